//! What is wrong with the lines, without a look at pf: ports that two jails would have, and what the host lacks.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Conf, Line, running};
use crate::conflict;
use crate::error::{Error, Kind, Result};
use crate::host::{Host, HostInterface, Interfaces};
use crate::name::JailName;
use crate::net::{Family, Place};
use crate::publication::{self, Publication, Redirect, Targets};
use crate::publisher::Request;
use crate::spec::{HostPorts, Spec};

/// Addresses in place of a jail's, which is not asked: the IPv4 dummy address (RFC 7600), and one of the discard-only prefix
/// (RFC 6666).
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1))];

/// What is wrong, each error with its file and line. The lines with a pattern are checked for the jails that run.
pub fn check(conf: &Conf, host: &dyn Host) -> Result<Vec<Error>> {
    let interfaces = host.interfaces()?;
    let mut jails: BTreeSet<JailName> = conf.lines.iter().filter_map(Line::jail).cloned().collect();
    jails.extend(running(host)?);
    let mut wrong = vec![];
    let mut claims: Vec<(JailName, &Line, Redirect)> = vec![];
    // a line with a pattern is the same for each of its jails
    let mut refused: BTreeSet<String> = BTreeSet::new();
    for jail in &jails {
        for line in conf.of(jail) {
            match of_line(host, &interfaces, &line.request(jail)) {
                Ok(made) => claims.extend(made.into_iter().map(|claim| (jail.clone(), line, claim))),
                Err(error) => {
                    if refused.insert(line.to_string()) {
                        wrong.push(error.context(line));
                    }
                }
            }
        }
    }
    wrong.extend(overlaps(&claims, Interfaces(&interfaces)));
    Ok(wrong)
}

/// What a line takes of the host.
fn of_line(host: &dyn Host, interfaces: &[HostInterface], request: &Request) -> Result<Vec<Redirect>> {
    let places = Interfaces(interfaces);
    let families = &request.options.families;
    let mut addresses = if request.addresses.is_empty() { NOBODY.to_vec() } else { request.addresses.clone() };
    addresses.retain(|address| families.is_empty() || families.contains(&Family::of(*address)));
    let targets = Targets::choose_of(&request.jail, &addresses, &addresses)?;
    let mut redirects = vec![];
    // the port of the others is chosen when they are published
    for mapping in request.spec.mappings().iter().filter(|mapping| mapping.host != HostPorts::Auto) {
        redirects.extend(publication::redirects(&request.jail, &Spec::one(*mapping), &targets, |family| {
            match (request.gateway, host.gateway(family)?, host.gateway(family.other())?) {
                (Some(interface), ..) | (None, Some(interface), _) | (None, None, Some(interface)) => Ok(interface),
                (None, None, None) => Err(Error::new(
                    Kind::Unavailable,
                    "the host has no default route, so it has no gateway interface; name one: em0:8080:80",
                )),
            }
        })?);
    }
    let (jail, options) = (request.jail.clone(), request.options.clone());
    let publication = Publication { jail, redirects, options, via: Default::default(), answers: vec![] };
    publication.check()?;
    for redirect in &publication.redirects {
        match redirect.place {
            Place::Interface(name) if places.members(name).next().is_none() => {
                let why =
                    format!("the host has no interface or interface group {name}, so its ports would not be used");
                return Err(Error::new(Kind::Unavailable, why));
            }
            _ if !request.force => conflict::with_transit(redirect, places)?,
            _ => {}
        }
    }
    Ok(publication.claims())
}

/// Each pair of lines that would take the same packets, once.
fn overlaps(claims: &[(JailName, &Line, Redirect)], interfaces: Interfaces<'_>) -> Vec<Error> {
    let mut sorted: Vec<_> = claims.iter().collect();
    sorted.sort_by_key(|(_, _, r)| (r.protocol, r.family(), r.host.first()));
    let mut open: Vec<&(JailName, &Line, Redirect)> = vec![];
    let mut told: BTreeSet<(String, String)> = BTreeSet::new();
    let mut found = vec![];
    for claim in sorted {
        let (jail, line, redirect) = claim;
        open.retain(|(_, _, o)| {
            o.protocol == redirect.protocol && o.family() == redirect.family() && o.host.last() >= redirect.host.first()
        });
        for (owner, other, theirs) in
            open.iter().filter(|(_, _, theirs)| conflict::overlap(theirs, redirect, interfaces))
        {
            // of one line, and of one jail, the same redirect twice is one
            if owner == jail && theirs == redirect || !told.insert((line.to_string(), other.to_string())) {
                continue;
            }
            let whose = if owner == jail { "the same jail".to_owned() } else { owner.mention() };
            let (protocol, host, place) = (redirect.protocol, redirect.host, redirect.place);
            let why = format!(
                "{}: {protocol} {host} on {place} is also for {whose}, by {other} ({} on {}); choose another host port",
                jail.mention(),
                theirs.host,
                theirs.place
            );
            found.push(Error::new(Kind::Conflict, why).context(line));
        }
        open.push(claim);
    }
    found
}
