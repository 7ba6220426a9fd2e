//! Whether pf filters where it must, and passes IPv6 neighbour discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{RELOAD, Surroundings};
use crate::error::{Problem, Result, quoted};
use crate::host::{HostInterface, Interfaces};
use crate::net::Direction;
use crate::net::{Family, Interface, Place};
use crate::pfconf::Conf;
use crate::pfconf::address::Side;
use crate::pfconf::rule::{Action, Rule};
use crate::publication::{Publication, Redirect};

/// The rule that decides if no other matches, on a host where it blocks.
pub(super) const DEFAULT_RULE: &str = "the default rule (net.pf.default_to_drop)";

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
        if let Some(via) = around.via(redirect.target).filter(|_| options.translate_sources()) {
            for interface in Interfaces(around.interfaces).members(via) {
                need(interface, format!("where sources are translated for {}", publication.jail.mention()));
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
    let mut blocked: BTreeMap<String, (IpAddr, BTreeSet<Interface>)> = BTreeMap::new();
    let drop = around.sysctl_is_on("net.pf.default_to_drop")?;
    for (_, redirect) in
        redirects(publications).filter(|(_, r)| r.family() == Family::Inet6 && !Interfaces(all).is_own(r.target))
    {
        let outer = around.outer(redirect.place, Family::Inet6)?.into_iter().map(|interface| interface.name);
        for on in outer.chain(around.via(redirect.target)).filter(|on| !Place::Interface(*on).is_loopback()) {
            for direction in [Direction::In, Direction::Out] {
                if let Some(rule) = blocks_neighbours(main, all, on, direction, drop) {
                    blocked.entry(rule).or_insert((redirect.target, BTreeSet::new())).1.insert(on);
                }
            }
        }
    }
    let finding = |(rule, (target, on)): (String, (IpAddr, BTreeSet<Interface>))| {
        let on: Vec<String> = on.iter().map(Interface::to_string).collect();
        Problem {
            seen: format!(
                "{rule} blocks IPv6 neighbour discovery on {}, so nothing arrives at {target}",
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
/// certain addresses is, if it names icmp6. With `drop` the default rule blocks.
fn blocks_neighbours(
    main: &Conf,
    all: &[HostInterface],
    on: Interface,
    direction: Direction,
    drop: bool,
) -> Option<String> {
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
    match last {
        Some(rule) => (rule.action == Action::Block).then(|| quoted(&rule.origin.text)),
        None => drop.then(|| DEFAULT_RULE.to_owned()),
    }
}

fn redirects<'a>(
    publications: impl IntoIterator<Item = &'a Publication>,
) -> impl Iterator<Item = (&'a Publication, &'a Redirect)> {
    publications.into_iter().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
}
