//! Whether the interfaces and addresses that a jail is published on exist, pf filters there, and passes IPv6 neighbour discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Findings, MainRuleset, Publications, RELOAD, Surroundings};
use crate::error::{Problem, Result};
use crate::host::{HostInterface, Interfaces};
use crate::net::{Direction, Family, Interface, Place};
use crate::proof::and_more;
use crate::publication::{Publication, Redirect};

/// A redirect on every address also applies on the interfaces toward jails.
pub fn everywhere<'a>(publications: impl Publications<'a>) -> Option<String> {
    let mut all = publications.into_iter().flat_map(|p| &p.redirects).filter(|r| r.place.is_any());
    let redirect = all.next()?;
    let more = and_more(all.count());
    Some(format!(
        "{redirect}{more}: {} takes what arrives on any interface for any address of the host, also from jails, and those of \
         jails on the host's stack; name an interface or address to leave the others alone",
        redirect.place
    ))
}

/// The drivers of interfaces whose program sets the address when it is connected: ppp(8), mpd5, openvpn.
const DIALLED: [&str; 3] = ["ng", "ppp", "tun"];

/// Interfaces that are missing, down or without an address, and addresses that are not the host's, once for each jail.
pub fn interfaces<'a>(around: &Surroundings<'_>, publications: impl Publications<'a>) -> Result<Findings> {
    let (mut found, mut seen) = (Findings::default(), BTreeSet::new());
    for (publication, redirect) in redirects(publications) {
        if seen.insert((redirect.place, &publication.jail, redirect.family()))
            && let Some((dead, problem)) = of_redirect(around, publication, redirect)?
        {
            let list = if dead { &mut found.problems } else { &mut found.warnings };
            // both families of a missing interface are one finding
            if !list.contains(&problem) {
                list.push(problem);
            }
        }
    }
    Ok(found)
}

/// The finding about a redirect, and whether its port is dead.
fn of_redirect(
    around: &Surroundings<'_>, publication: &Publication, redirect: &Redirect,
) -> Result<Option<(bool, Problem)>> {
    let (place, family) = (redirect.place, redirect.family());
    let outer = around.outer(place, family)?;
    let has = |family| outer.iter().any(|interface| interface.address(family).is_some());
    let jail = publication.jail.mention();
    let dead = |seen: String, remedy: String| Ok(Some((true, Problem { seen, remedy })));
    match place {
        Place::Address(address) if outer.is_empty() && !address.is_loopback() => dead(
            format!("the host does not have the address {address}, on which {jail} is published"),
            "add it to an interface, or publish on another address (to list them: ifconfig)".to_owned(),
        ),
        Place::Interface(name) if outer.is_empty() => dead(
            format!("there is no interface or group {name}, on which {jail} is published; its rules wait for it"),
            format!("create it, or publish on one of: {}", joined(around.interfaces.iter().map(|i| i.name), " ")),
        ),
        Place::Interface(name) if outer.iter().all(|interface| !interface.up) => {
            let up = format!("ifconfig {} up", outer[0].name);
            let remedy = if is_dialled(outer[0]) { format!("start its program (ppp(8), mpd5), or: {up}") } else { up };
            dead(format!("{name}, on which {jail} is published, is down"), remedy)
        }
        Place::Interface(name) if !has(family) => {
            let seen = format!("{name}, on which {jail} is published, has no {family} address");
            let other = |r: &Redirect| r.place == place && r.family() == family.other();
            // a jail with both families on a host with one cannot be reached better
            let served = has(family.other()) && publication.redirects.iter().any(other);
            let only_other = has(family.other()) && around.host.gateway(family)?.is_none();
            let remedy = match served {
                true if only_other => String::new(),
                _ => without_address(outer[0], family, only_other),
            };
            Ok(Some((!served, Problem { seen, remedy })))
        }
        Place::Any | Place::AnyOf(_) | Place::Address(_) | Place::Interface(_) => Ok(None),
    }
}

/// What to do about an interface without an address of a family. With `only_other`, the host has the other family only.
fn without_address(interface: &HostInterface, family: Family, only_other: bool) -> String {
    let name = interface.name;
    if only_other {
        return format!(
            "publish to an {} address of the jail, since the host has no {family} default route, or wait for the {family} \
             address of {name}",
            family.other()
        );
    }
    if is_dialled(interface) {
        return format!("wait until the program of {name} (ppp(8), mpd5) is connected; the rules wait, too");
    }
    let itself = match family {
        Family::Inet => "DHCP",
        Family::Inet6 => "router advertisements",
    };
    format!("wait for it if {name} gets it by {itself}, else: ifconfig {name} {family} ADDRESS/PREFIX alias")
}

/// Whether a program sets the address of an interface when it is connected; a renamed interface keeps its driver's group.
fn is_dialled(interface: &HostInterface) -> bool {
    let driver = |name: &str| DIALLED.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit()));
    driver(interface.name.as_str()) || interface.groups.iter().any(|group| driver(group.as_str()))
}

/// `set skip` on an interface where pf must filter.
pub fn skip<'a>(main: &MainRuleset<'_>, publications: impl Publications<'a>) -> Result<Vec<Problem>> {
    let (around, all) = (&main.around, Interfaces(&main.around.interfaces));
    let names: Vec<Interface> = main.facts()?.skip.iter().filter_map(|name| name.parse().ok()).collect();
    let mut found: BTreeMap<Interface, Problem> = BTreeMap::new();
    for (publication, redirect) in redirects(publications) {
        let (jail, options) = (publication.jail.mention(), &publication.options);
        let outer = around.outer(redirect.place, redirect.family())?.into_iter();
        let via = around.via(redirect.target).filter(|_| options.translate_sources());
        let inner = via.into_iter().flat_map(|via| all.members(via));
        let own = around.interfaces.iter().filter(|i| options.host_access && i.name.as_str() == "lo0");
        let needed = outer
            .map(|i| (i, format!("on which {jail} is published")))
            .chain(inner.map(|i| (i, format!("where sources are translated for {jail}"))))
            .chain(own.map(|i| (i, format!("which host access to {jail} needs"))));
        for (HostInterface { name: on, .. }, why) in needed {
            let Some(name) = names.iter().find(|name| all.is_in(*on, **name)) else {
                continue;
            };
            let pass = if on.as_str() == "lo0" { "; to pass lo0, add there: pass quick on lo0 no state" } else { "" };
            let remedy = format!("remove {name} from the set skip line in /etc/pf.conf, {RELOAD}{pass}");
            let seen = format!("set skip on {name}: pf does not filter {on}, {why}");
            found.entry(*on).or_insert(Problem::new(seen, remedy));
        }
    }
    Ok(found.into_values().collect())
}

/// Rules that block IPv6 neighbour discovery, without which nothing arrives; none of a main ruleset that cannot be read.
pub fn neighbour_discovery<'a>(main: &MainRuleset<'_>, publications: impl Publications<'a>) -> Result<Vec<Problem>> {
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
    let remedy = format!("add to /etc/pf.conf, before anchor \"kport\": pass quick inet6 proto ipv6-icmp, {RELOAD}");
    let finding = |(rule, (target, on)): (String, (IpAddr, BTreeSet<Interface>))| {
        let on = joined(on, " and ");
        let seen = format!("{rule} blocks IPv6 neighbour discovery on {on}, so nothing arrives at {target}");
        Problem::new(seen, &remedy)
    };
    Ok(blocked.into_iter().map(finding).collect())
}

fn redirects<'a>(publications: impl Publications<'a>) -> impl Iterator<Item = (&'a Publication, &'a Redirect)> {
    publications.into_iter().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
}

fn joined(names: impl IntoIterator<Item = Interface>, by: &str) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(by)
}
