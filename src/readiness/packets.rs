//! Whether pf filters where it must, and passes IPv6 neighbour discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{MainRuleset, RELOAD};
use crate::error::{Problem, Result};
use crate::host::{HostInterface, Interfaces};
use crate::net::Direction;
use crate::net::{Family, Interface, Place};
use crate::publication::{Publication, Redirect};

/// `set skip` on an interface where pf must filter.
pub fn skip<'a>(
    main: &MainRuleset<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Vec<Problem>> {
    let around = &main.around;
    let names: Vec<Interface> = main.facts()?.skip.iter().filter_map(|name| name.parse().ok()).collect();
    let skipped = |i: &HostInterface| names.iter().copied().find(|name| i.is_in(*name));
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
            for interface in Interfaces(&around.interfaces).members(via) {
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
    main: &MainRuleset<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Vec<Problem>> {
    let around = &main.around;
    let all = &around.interfaces;
    // by rule: the targets do not matter for the remedy, so the first one stands for all
    let mut blocked: BTreeMap<String, (IpAddr, BTreeSet<Interface>)> = BTreeMap::new();
    for (_, redirect) in
        redirects(publications).filter(|(_, r)| r.family() == Family::Inet6 && !Interfaces(all).is_own(r.target))
    {
        let outer = around.outer(redirect.place, Family::Inet6)?.into_iter().map(|interface| interface.name);
        for on in outer.chain(around.via(redirect.target)).filter(|on| !Place::Interface(*on).is_loopback()) {
            for direction in [Direction::In, Direction::Out] {
                if let Some(rule) = main.blocks_neighbours(on, direction)? {
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
            remedy: format!("add to /etc/pf.conf, before anchor \"kport\": pass quick inet6 proto ipv6-icmp, {RELOAD}"),
        }
    };
    Ok(blocked.into_iter().map(finding).collect())
}

fn redirects<'a>(
    publications: impl IntoIterator<Item = &'a Publication>,
) -> impl Iterator<Item = (&'a Publication, &'a Redirect)> {
    publications.into_iter().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
}
