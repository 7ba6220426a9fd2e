//! Whether the host has what the published ports need, and forwards the packets: interfaces, addresses, sysctls.

use std::collections::BTreeMap;

use super::evidence::Evidence;
use super::{Checked, Finding, Level, all, found, warning};
use crate::net::Family;
use crate::publication::Publication;
use crate::readiness;

pub(super) fn forwarding(evidence: &Evidence<'_>) -> Checked {
    let mut all = vec![];
    for family in Family::ALL {
        let redirects = evidence.redirects().map(|(_, redirect)| redirect);
        let problem = readiness::unforwarded(evidence.host, family, redirects, || evidence.interfaces())?;
        all.extend(problem.map(Finding::from));
    }
    Ok(Some(all))
}

pub(super) fn interfaces(evidence: &Evidence<'_>) -> Checked {
    let mut found = all(readiness::interfaces(&evidence.surroundings()?, evidence.publications())?);
    if found.is_empty() {
        let seen = readiness::everywhere(evidence.publications());
        found.extend(seen.map(|seen| Finding { level: Level::Ok, ..warning(format!("they exist; {seen}"), "") }));
    }
    Ok(Some(found))
}

pub(super) fn host_access(evidence: &Evidence<'_>) -> Checked {
    let wanted = evidence.publications().find(|publication| publication.options.host_access);
    found(match wanted {
        Some(publication) => readiness::unfiltered(evidence.host, &publication.jail.mention())?,
        None => None,
    })
}

pub(super) fn bridge_members(evidence: &Evidence<'_>) -> Checked {
    let needs = |publication: &&Publication| publication.options.hairpin || publication.options.host_access;
    found(match evidence.publications().find(needs) {
        Some(publication) => readiness::bridge_members(evidence.host, &publication.jail.mention())?,
        None => None,
    })
}

pub(super) fn reach(evidence: &Evidence<'_>) -> Checked {
    let around = evidence.surroundings()?;
    let mut all = BTreeMap::new();
    for (publication, redirect) in evidence.redirects().filter(|(_, r)| !r.place.is_loopback()) {
        for interface in around.outer(redirect.place, redirect.family())? {
            let Some(by) = publication.options.reach.iter().find(|name| interface.is_in(**name)) else { continue };
            let group = if *by == interface.name { String::new() } else { format!(" (by its group {by})") };
            all.entry((&publication.jail, interface.name)).or_insert(warning(
                format!(
                    "{}{group} is in the reach list of {}: the hosts behind it reach {} port {} directly",
                    interface.name,
                    publication.jail.mention(),
                    redirect.target,
                    redirect.jail
                ),
                "if that is not intended, publish with a reach list of its own, such as --reach bridge0",
            ));
        }
    }
    Ok(Some(all.into_values().collect()))
}
