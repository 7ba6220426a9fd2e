//! Whether the main ruleset lets the packets through: packets sent through the simulator with the rules that pf has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::evidence::{Evidence, address, jail};
use super::{Found, RELOAD, problem, warning};
use crate::error::{Result, quoted};
use crate::host::{HostInterface, Interfaces};
use crate::name::PARENT;
use crate::net::{Family, Interface, Place};
use crate::options::Source;
use crate::publication::{Publication, Redirect};
use crate::rule::Direction;
use crate::rules;
use crate::sim::{Conf, Party, Release, TraceStep, World};

pub(super) fn skip(evidence: &Evidence<'_>) -> Found {
    let Some(main) = evidence.main() else { return Ok(None) };
    // whatever else is there to be read
    let settings: Vec<&str> = main.lines().filter(|line| line.trim_start().starts_with("set skip")).collect();
    let settings: Conf = settings.join("\n").parse()?;
    let skipped = |i: &HostInterface| settings.skipped().iter().copied().find(|name| i.is_in(*name));
    let mut needed: BTreeMap<Interface, (Interface, String)> = BTreeMap::new();
    let mut need = |interface: &HostInterface, why: String| {
        if let Some(name) = skipped(interface) {
            needed.entry(interface.name).or_insert((name, why));
        }
    };
    for (publication, redirect) in evidence.redirects() {
        for interface in evidence.outer(redirect.place, redirect.family())? {
            need(interface, format!("where {} is published", jail(publication)));
        }
        let options = &publication.options;
        if let Some(via) = evidence.via(redirect.target)?.filter(|_| options.hairpin || options.host_access) {
            for interface in Interfaces(evidence.interfaces()?).members(via) {
                need(interface, format!("which hairpin and host access to {} need", jail(publication)));
            }
        }
        if options.host_access {
            for interface in evidence.interfaces()?.iter().filter(|i| i.name.as_str() == "lo0") {
                need(interface, format!("which host access to {} needs", jail(publication)));
            }
        }
    }
    let finding = |(interface, (name, why)): (Interface, (Interface, String))| {
        let mut remedy = format!("take {name} out of the set skip line in /etc/pf.conf, {RELOAD}");
        if interface.as_str() == "lo0" {
            remedy.push_str("; let lo0 pass there by: pass quick on lo0 no state");
        }
        problem(format!("set skip on {name}: pf does not look at {interface}, {why}"), remedy)
    };
    Ok(Some(needed.into_iter().map(finding).collect()))
}

pub(super) fn neighbour_discovery(evidence: &Evidence<'_>) -> Found {
    // what cannot be read is told once, by the check of the main ruleset
    let Some(Ok(main)) = evidence.main().map(str::parse::<Conf>) else { return Ok(None) };
    let all = evidence.interfaces()?;
    // by rule: the targets do not matter for the remedy, so the first one stands for all
    let mut blocked: BTreeMap<&str, (IpAddr, BTreeSet<Interface>)> = BTreeMap::new();
    for (_, redirect) in
        evidence.redirects().filter(|(_, r)| r.family() == Family::Inet6 && !Interfaces(all).is_own(r.target))
    {
        let outer = evidence.outer(redirect.place, Family::Inet6)?.into_iter().map(|interface| interface.name);
        for on in outer.chain(evidence.via(redirect.target)?).filter(|on| !Place::Interface(*on).is_loopback()) {
            for direction in [Direction::In, Direction::Out] {
                if let Some(rule) = main.blocks_neighbours(all, on, direction) {
                    blocked.entry(rule).or_insert((redirect.target, BTreeSet::new())).1.insert(on);
                }
            }
        }
    }
    let finding = |(rule, (target, on)): (&str, (IpAddr, BTreeSet<Interface>))| {
        let on: Vec<String> = on.iter().map(Interface::to_string).collect();
        problem(
            format!(
                "{} blocks IPv6 neighbour discovery on {}, so nothing arrives at {target}",
                quoted(rule),
                on.join(" and ")
            ),
            format!("add to /etc/pf.conf, before anchor \"kport/*\": pass quick inet6 proto ipv6-icmp, {RELOAD}"),
        )
    };
    Ok(Some(blocked.into_iter().map(finding).collect()))
}

/// Sends the first packet of each publication through the simulator, with the real main ruleset and kport's rules.
pub(super) fn main_ruleset(evidence: &Evidence<'_>) -> Found {
    let (Ok(status), Ok(rulesets)) = (&evidence.status, &evidence.rulesets) else { return Ok(None) };
    let past = skip(evidence)?.is_some_and(|found| !found.is_empty());
    if !status.enabled || !status.rdr_anchor || !status.anchor || past {
        return Ok(None);
    }
    let release = Release::of(evidence.host.sysctl("kern.osreldate")?.unwrap_or(i64::MAX));
    let mut world = World::new(release, evidence.interfaces()?.to_vec());
    for family in Family::ALL {
        *world.gateway.of_mut(family) = evidence.host.gateway(family)?;
    }
    world.filter_local = evidence.sysctl_is_on("net.pf.filter_local")?;
    let own = |path: &str| path.strip_prefix(PARENT).is_some_and(|rest| rest.starts_with('/'));
    for (path, text) in rulesets.iter().filter(|(path, _)| !own(path)) {
        let read = if path.is_empty() { world.load_main(text) } else { world.load_text(path, text) };
        if let Err(error) = read {
            let place = if path.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {path}") };
            return Ok(Some(vec![warning(format!("not looked at: {place}: {error}"), "")]));
        }
    }
    // what should be there, so that what is missing is no reason here
    for record in &evidence.records {
        world.load(record.jail.anchor().path(), &rules::of_all(&record.publications));
    }
    let mut lost: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (publication, redirect) in evidence.redirects() {
        for (sender, from, to) in probes(evidence, publication, redirect, world.filter_local)? {
            // no states of the probe before
            let trace = world.clone().trace(&sender, redirect.protocol, from, to);
            let reason = match trace.delivered_to {
                Some((_, at)) if at.ip() == redirect.target => continue,
                Some((party, at)) => format!("it goes to {party} at {at} instead"),
                None => reason(&trace.steps),
            };
            lost.entry(reason).or_default().push(format!("{} from {sender} to {redirect}", jail(publication)));
        }
    }
    let finding = |(reason, lost): (String, Vec<String>)| {
        let more = if lost.len() > 1 { format!(" (and {} more)", lost.len() - 1) } else { String::new() };
        problem(
            format!("{}{more}: {reason}", lost[0]),
            format!("let it pass in /etc/pf.conf, or move that line behind anchor \"kport/*\", {RELOAD}"),
        )
    };
    // a family that is not forwarded is a finding of its own
    lost.remove("the host does not forward");
    Ok(Some(lost.into_iter().map(finding).collect()))
}

/// The packets to try a redirect with: from outside, and from the host where it has access.
fn probes(
    evidence: &Evidence<'_>,
    publication: &Publication,
    redirect: &Redirect,
    filter_local: bool,
) -> Result<Vec<(Party, SocketAddr, SocketAddr)>> {
    let family = redirect.family();
    // documentation addresses: RFC 5737, RFC 3849
    let stranger = match family {
        Family::Inet => IpAddr::from([203, 0, 113, 77]),
        Family::Inet6 => IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77]),
    };
    let source = match publication.options.sources.as_slice() {
        [] => Some(stranger),
        sources => sources.iter().find_map(|source| match source {
            Source::Network(network) if Family::of(network.addr()) == family => network.hosts().next(),
            // whoever is in a table is not known here
            Source::Network(_) | Source::Table(_) => None,
        }),
    };
    let mut probes = vec![];
    let outer = evidence.outer(redirect.place, family)?;
    let Some((on, own)) = outer.iter().find_map(|interface| Some((interface.name, address(interface, family)?))) else {
        return Ok(probes);
    };
    let to = match redirect.place {
        Place::Address(address) => address,
        Place::Interface(_) | Place::Any | Place::AnyOf(_) => own,
    };
    let to = SocketAddr::new(to, redirect.host.first());
    if let Some(source) = source.filter(|_| !redirect.place.is_loopback()) {
        probes.push((Party::Network(on), SocketAddr::new(source, 40_000), to));
    }
    if publication.options.host_access && filter_local {
        probes.push((Party::Host, SocketAddr::new(to.ip(), 40_001), to));
    }
    Ok(probes)
}

/// Why a packet did not arrive.
fn reason(steps: &[TraceStep]) -> String {
    let deciding = steps.iter().rev().find_map(|step| match step {
        TraceStep::Rule { anchor, text } => Some((anchor, text)),
        _ => None,
    });
    match (steps.last(), deciding) {
        (Some(TraceStep::Verdict(verdict)), Some((anchor, text))) => {
            let place = if anchor.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {anchor}") };
            format!("{verdict} by {} of {place}", quoted(text))
        }
        (Some(TraceStep::Note(note)), _) => note.clone(),
        _ => "it does not arrive".to_owned(),
    }
}
