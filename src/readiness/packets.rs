//! Whether the main ruleset passes the packets: sends packets through the evaluator with the rules that pf has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Findings, RELOAD, Surroundings, address};
use crate::error::{Problem, Result, quoted};
use crate::host::{HostInterface, Interfaces};
use crate::name::PARENT;
use crate::net::Direction;
use crate::net::{Family, Interface, Place};
use crate::options::Source;
use crate::pfconf::Conf;
use crate::pfconf::address::Side;
use crate::pfconf::rule::{Action, Rule};
use crate::publication::{Publication, Redirect};
use crate::rules;
use crate::trace::{Party, Release, TraceStep, Verdict, World};

/// `set skip` on an interface where pf must filter.
pub fn skip<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Vec<Problem>> {
    let Some(main) = around.main() else { return Ok(vec![]) };
    let skipped = |i: &HostInterface| main.skipped().iter().copied().find(|name| i.is_in(*name));
    let mut needed: BTreeMap<Interface, (Interface, String)> = BTreeMap::new();
    let mut need = |interface: &HostInterface, why: String| {
        if let Some(name) = skipped(interface) {
            needed.entry(interface.name).or_insert((name, why));
        }
    };
    for (publication, redirect) in redirects(publications) {
        for interface in around.outer(redirect.place, redirect.family())? {
            need(interface, format!("on which {} is published", publication.jail.mention()));
        }
        let options = &publication.options;
        if let Some(via) = around.via(redirect.target).filter(|_| options.hairpin || options.host_access) {
            for interface in Interfaces(around.interfaces).members(via) {
                need(interface, format!("which hairpin and host access to {} need", publication.jail.mention()));
            }
        }
        if options.host_access {
            for interface in around.interfaces.iter().filter(|i| i.name.as_str() == "lo0") {
                need(interface, format!("which host access to {} needs", publication.jail.mention()));
            }
        }
    }
    let finding = |(interface, (name, why)): (Interface, (Interface, String))| {
        let mut remedy = format!("remove {name} from the set skip line in /etc/pf.conf, {RELOAD}");
        if interface.as_str() == "lo0" {
            remedy.push_str("; to pass lo0, add there: pass quick on lo0 no state");
        }
        Problem { seen: format!("set skip on {name}: pf does not filter {interface}, {why}"), remedy }
    };
    Ok(needed.into_iter().map(finding).collect())
}

/// Rules that block IPv6 neighbour discovery, without which nothing arrives. A main ruleset that cannot be read has
/// none: [`main_ruleset`] reports it.
pub fn neighbour_discovery<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Vec<Problem>> {
    let Some(main) = around.main().filter(|main| main.unread().is_empty()) else { return Ok(vec![]) };
    let all = around.interfaces;
    // by rule: the targets do not matter for the remedy, so the first one stands for all
    let mut blocked: BTreeMap<&str, (IpAddr, BTreeSet<Interface>)> = BTreeMap::new();
    for (_, redirect) in
        redirects(publications).filter(|(_, r)| r.family() == Family::Inet6 && !Interfaces(all).is_own(r.target))
    {
        let outer = around.outer(redirect.place, Family::Inet6)?.into_iter().map(|interface| interface.name);
        for on in outer.chain(around.via(redirect.target)).filter(|on| !Place::Interface(*on).is_loopback()) {
            for direction in [Direction::In, Direction::Out] {
                if let Some(rule) = blocks_neighbours(main, all, on, direction) {
                    blocked.entry(rule).or_insert((redirect.target, BTreeSet::new())).1.insert(on);
                }
            }
        }
    }
    let finding = |(rule, (target, on)): (&str, (IpAddr, BTreeSet<Interface>))| {
        let on: Vec<String> = on.iter().map(Interface::to_string).collect();
        Problem {
            seen: format!(
                "{} blocks IPv6 neighbour discovery on {}, so nothing arrives at {target}",
                quoted(rule),
                on.join(" and ")
            ),
            remedy: format!(
                "add to /etc/pf.conf, before anchor \"kport/*\": pass quick inet6 proto ipv6-icmp, {RELOAD}"
            ),
        }
    };
    Ok(blocked.into_iter().map(finding).collect())
}

/// The rule that blocks IPv6 neighbour discovery (icmp6) on an interface, if there is one. Its addresses are
/// link-local, multicast and the target: a block of certain addresses is not taken to be meant for it; a pass of
/// certain addresses is, if it names icmp6.
fn blocks_neighbours<'a>(
    main: &'a Conf,
    all: &[HostInterface],
    on: Interface,
    direction: Direction,
) -> Option<&'a str> {
    const ICMP6: u8 = 58;
    let is_in = |name: &str| name.parse().is_ok_and(|name| Interfaces(all).is_in(on, name));
    if main.skip.iter().any(|name| is_in(name)) {
        return None;
    }
    let mut last: Option<&Rule> = None;
    for rule in main.rules() {
        let when = &rule.when;
        let certain = when.from != Side::any() || when.to != Side::any() || when.tagged.is_some();
        let meant = match rule.action {
            Action::Block => !certain,
            Action::Pass => !certain || when.protocol == Some(ICMP6),
            Action::Match | Action::Translate { .. } | Action::Call(..) => false,
        };
        if meant
            && when.on.as_ref().is_none_or(|on| is_in(&on.name) != on.not)
            && when.direction.is_none_or(|wanted| wanted == direction)
            && when.family != Some(Family::Inet)
            && when.protocol.is_none_or(|number| number == ICMP6)
        {
            last = Some(rule);
            if rule.quick {
                break;
            }
        }
    }
    last.filter(|rule| rule.action == Action::Block).map(|rule| &*rule.origin.text)
}

/// Sends the first packet of each redirect through the evaluator, with the real main ruleset and the redirect's own
/// rules. A ruleset that could not be read is a warning.
pub fn main_ruleset<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Findings> {
    let mut found = Findings::default();
    let release = Release::of(around.host.sysctl("kern.osreldate")?.unwrap_or(i64::MAX));
    let mut world = World::new(release, around.interfaces.to_vec());
    for family in Family::ALL {
        *world.gateway.of_mut(family) = around.host.gateway(family)?;
    }
    world.filter_local = around.sysctl_is_on("net.pf.filter_local")?;
    let own = |path: &str| path.strip_prefix(PARENT).is_some_and(|rest| rest.starts_with('/'));
    for (path, conf) in around.rulesets.iter().filter(|(path, _)| !own(path)) {
        if let Some(unread) = conf.unread().first() {
            let place = if path.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {path}") };
            found.warnings.push(Problem { seen: format!("not evaluated: {place}: {unread}"), remedy: String::new() });
            return Ok(found);
        }
        world.load_conf(path, conf);
    }
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    let mut lost: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (publication, redirect) in redirects(publications) {
        let probes = probes(around, publication, redirect, world.filter_local)?;
        if probes.is_empty() {
            continue;
        }
        // the rules that should be there, so that missing rules are not a reason here; its own rules alone, so that a
        // thousand mappings do not each evaluate those of the others
        let alone = Publication {
            jail: publication.jail.clone(),
            redirects: vec![*redirect],
            options: publication.options.clone(),
            via: publication.via.clone(),
        };
        let mut loaded = world.clone();
        loaded.load(publication.jail.anchor().path(), &rules::rules(&alone));
        for (sender, from, to) in probes {
            // no states of an earlier probe
            let trace = loaded.clone().trace(&sender, redirect.protocol, from, to);
            if trace.verdict == Verdict::Depends {
                let seen = format!("{} from {sender} to {redirect}", publication.jail.mention());
                open.entry(trace.depends_on.join("; ")).or_insert(seen);
                continue;
            }
            let reason = match trace.delivered_to {
                Some((_, at)) if at.ip() == redirect.target => continue,
                Some((party, at)) => format!("it goes to {party} at {at} instead"),
                None => reason(&trace.steps),
            };
            lost.entry(reason).or_default().push(format!("{} from {sender} to {redirect}", publication.jail.mention()));
        }
    }
    let undecided = |(what, seen): (String, String)| Problem {
        seen: format!("{seen}: whether it arrives depends on what kport cannot decide: {what}"),
        remedy: String::new(),
    };
    found.warnings.extend(open.into_iter().map(undecided));
    // a family that is not forwarded is a finding of its own
    lost.remove("the host does not forward");
    found.problems.extend(lost.into_iter().map(|(reason, lost)| {
        let more = if lost.len() > 1 { format!(" (and {} more)", lost.len() - 1) } else { String::new() };
        Problem {
            seen: format!("{}{more}: {reason}", lost[0]),
            remedy: format!("pass it in /etc/pf.conf, or move that line after anchor \"kport/*\", {RELOAD}"),
        }
    }));
    Ok(found)
}

fn redirects<'a>(
    publications: impl IntoIterator<Item = &'a Publication>,
) -> impl Iterator<Item = (&'a Publication, &'a Redirect)> {
    publications.into_iter().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
}

/// The packets to try a redirect with: from outside, and from the host if it has access.
fn probes(
    around: &Surroundings<'_>,
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
            // the addresses in a table are unknown here
            Source::Network(_) | Source::Table(_) => None,
        }),
    };
    let mut probes = vec![];
    let outer = around.outer(redirect.place, family)?;
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

/// The reason why a packet did not arrive.
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
