//! Whether the host has what is published, and lets it through: interfaces, addresses, sysctls.

use std::collections::BTreeMap;

use super::evidence::{Evidence, address, jail};
use super::{Finding, Found, found, problem, warning};
use crate::error::Problem;
use crate::net::{Family, Place};
use crate::publication::{Publication, Redirect};
use crate::readiness;

pub(super) fn forwarding(evidence: &Evidence<'_>) -> Found {
    let mut all = vec![];
    for family in Family::ALL {
        let redirects = evidence.redirects().map(|(_, redirect)| redirect);
        let problem = readiness::unforwarded(evidence.host, family, redirects, || evidence.interfaces())?;
        all.extend(problem.map(Finding::from));
    }
    Ok(Some(all))
}

pub(super) fn interfaces(evidence: &Evidence<'_>) -> Found {
    let all = evidence.interfaces()?;
    let mut findings: BTreeMap<(Place, Family), Finding> = BTreeMap::new();
    for (publication, redirect) in evidence.redirects() {
        let (place, family) = (redirect.place, redirect.family());
        let outer = evidence.outer(place, family)?;
        let has = |family| outer.iter().any(|interface| address(interface, family).is_some());
        let jail = jail(publication);
        let finding = match place {
            Place::Any | Place::AnyOf(_) => continue,
            Place::Address(address) if outer.is_empty() && !address.is_loopback() => problem(
                format!("the host does not have the address {address}, on which {jail} is published"),
                "give it to an interface, or publish on another; the host's: ifconfig".to_owned(),
            ),
            Place::Address(_) => continue,
            Place::Interface(name) if outer.is_empty() => problem(
                format!("there is no interface or group {name}, on which {jail} is published; its rules wait for it"),
                format!(
                    "make it, or publish on one of: {}",
                    all.iter().map(|i| i.name.to_string()).collect::<Vec<_>>().join(" ")
                ),
            ),
            Place::Interface(name) if outer.iter().all(|interface| !interface.up) => problem(
                format!("{name}, on which {jail} is published, is down"),
                format!("ifconfig {} up", outer[0].name),
            ),
            Place::Interface(name) if !has(family) => {
                let text = format!("{name}, on which {jail} is published, has no {family} address");
                let remedy = format!("ifconfig {} {family} ADDRESS/PREFIX alias", outer[0].name);
                let other = |r: &Redirect| r.place == place && r.family() == family.other();
                // a jail with both families on a host with one is as reachable as it can be
                if has(family.other()) && publication.redirects.iter().any(other) {
                    warning(text, remedy)
                } else {
                    problem(text, remedy)
                }
            }
            Place::Interface(_) => continue,
        };
        findings.entry((place, family)).or_insert(finding);
    }
    let mut findings: Vec<Finding> = findings.into_values().collect();
    // both families of a missing interface are one finding
    findings.dedup();
    Ok(Some(findings))
}

pub(super) fn host_access(evidence: &Evidence<'_>) -> Found {
    let wanted = evidence.publications().find(|publication| publication.options.host_access);
    found(match wanted {
        Some(publication) => readiness::unfiltered(evidence.host, &jail(publication))?,
        None => None,
    })
}

pub(super) fn bridge_members(evidence: &Evidence<'_>) -> Found {
    let needs = |publication: &&Publication| publication.options.hairpin || publication.options.host_access;
    let problem = match evidence.publications().find(needs) {
        Some(publication) if evidence.sysctl_is_on("net.link.bridge.pfil_member")? => Some(Problem {
            seen: format!(
                "net.link.bridge.pfil_member is 1: answers are translated back too early for the hairpin and host access \
                 of {}",
                jail(publication)
            ),
            remedy: "sysctl net.link.bridge.pfil_member=0 (and in /etc/sysctl.conf)".to_owned(),
        }),
        _ => None,
    };
    found(problem)
}

pub(super) fn reach(evidence: &Evidence<'_>) -> Found {
    let mut all = BTreeMap::new();
    for (publication, redirect) in evidence.redirects().filter(|(_, r)| !r.place.is_loopback()) {
        for interface in evidence.outer(redirect.place, redirect.family())? {
            let Some(by) = publication.options.reach.iter().find(|name| interface.is_in(**name)) else { continue };
            let group = if *by == interface.name { String::new() } else { format!(" (by its group {by})") };
            all.entry((&publication.jail, interface.name)).or_insert(warning(
                format!(
                    "{}{group} is in the reach list of {}: whoever is behind it reaches {} port {} directly",
                    interface.name,
                    jail(publication),
                    redirect.target,
                    redirect.jail
                ),
                "if that is not meant, publish with a reach list of its own, such as --reach bridge0",
            ));
        }
    }
    Ok(Some(all.into_values().collect()))
}
