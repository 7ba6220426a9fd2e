//! Whether the host has what the published ports need, and forwards the packets: interfaces, addresses, sysctls.

use std::collections::BTreeMap;

use super::evidence::Evidence;
use super::{Checked, Finding, all, fine, found, problem, warning};
use crate::host::{HostInterface, Interfaces};
use crate::name::JailName;
use crate::net::{Family, Interface};
use crate::options::{Options, Source};
use crate::publication::{Publication, distinct};
use crate::readiness::{self, RELOAD};

pub(super) fn forwarding(evidence: &Evidence<'_>) -> Checked {
    let mut all = vec![];
    for family in Family::ALL {
        let redirects = evidence.redirects().map(|(_, redirect)| redirect);
        let problem = readiness::unforwarded(evidence.host, family, redirects, || evidence.interfaces())?;
        all.extend(problem.map(Finding::from));
    }
    if all.is_empty() {
        let mut sysctls = vec![];
        for (sysctl, _) in Family::ALL.map(readiness::forwarding) {
            if evidence.host.sysctl(sysctl)? == Some(0) {
                sysctls.push(sysctl);
            }
        }
        if !sysctls.is_empty() {
            all.push(fine(format!("nothing is published that needs {}, which is 0", sysctls.join(" or "))));
        }
    }
    Ok(Some(all))
}

pub(super) fn interfaces(evidence: &Evidence<'_>) -> Checked {
    let mut found = all(readiness::interfaces(&evidence.surroundings()?, evidence.publications())?);
    if found.is_empty() {
        let seen = readiness::everywhere(evidence.publications());
        found.extend(seen.map(|seen| fine(format!("they exist; {seen}"))));
    }
    Ok(Some(found))
}

pub(super) fn host_access(evidence: &Evidence<'_>) -> Checked {
    let jail = evidence.jail_with(|options| options.host_access);
    found(jail.map(|jail| readiness::unfiltered(evidence.host, &jail)).transpose()?.flatten())
}

pub(super) fn bridge_members(evidence: &Evidence<'_>) -> Checked {
    let jail = evidence.jail_with(Options::translate_sources);
    found(jail.map(|jail| readiness::bridge_members(evidence.host, &jail)).transpose()?.flatten())
}

/// Jails and guests whose packets --af-to cannot translate: pf does not compute what is left to the hardware of a checksum.
pub(super) fn checksums(evidence: &Evidence<'_>) -> Checked {
    let translated = |p: &&Publication| p.options.hairpin && p.redirects.iter().any(|r| r.af_to && r.host != r.jail);
    let Some(publication) = evidence.publications().find(translated) else { return Ok(Some(vec![])) };
    let epair = "epair".parse().ok();
    for interface in evidence.interfaces()?.iter().filter(|known| epair.is_some_and(|epair| known.is_in(epair))) {
        if evidence.host.leaves_checksums(interface.name)? {
            let name = interface.name;
            let seen = format!(
                "{name} leaves checksums to the hardware, so the jail behind it does not reach the IPv6 ports that {} publishes \
                 with af-to",
                publication.jail.mention()
            );
            let remedy = format!("ifconfig {name} -txcsum -txcsum6, and the same for its other end in the jail");
            return found([warning(seen, remedy)]);
        }
    }
    Ok(Some(vec![]))
}

pub(super) fn reach(evidence: &Evidence<'_>) -> Checked {
    let around = evidence.surroundings()?;
    let mut all = BTreeMap::new();
    let mut outer: BTreeMap<&JailName, Vec<&HostInterface>> = BTreeMap::new();
    let outside = || evidence.redirects().filter(|(_, redirect)| !redirect.place.is_loopback());
    for (publication, redirect) in outside() {
        outer.entry(&publication.jail).or_default().extend(around.outer(redirect.place, redirect.family())?);
    }
    for (publication, redirect) in outside() {
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
                format!(
                    "if that is not intended, publish with a reach list without it: {}",
                    inner_reach(&publication.options.reach, &outer[&publication.jail], &around.interfaces)
                ),
            ));
        }
    }
    Ok(Some(all.into_values().collect()))
}

/// The flags for a reach list without the interfaces that lead outside: a group that one of them is in is replaced by its
/// other members. The host itself is always behind `lo`.
fn inner_reach(reach: &[Interface], outer: &[&HostInterface], all: &[HostInterface]) -> String {
    let is_outer = |name: Interface| outer.iter().any(|interface| interface.is_in(name));
    let mut inner: Vec<Interface> = vec![];
    for name in reach {
        if !is_outer(*name) {
            inner.push(*name);
            continue;
        }
        inner.extend(Interfaces(all).members(*name).map(|member| member.name).filter(|member| !is_outer(*member)));
    }
    if inner.is_empty() {
        inner.extend("lo".parse::<Interface>().ok());
    }
    distinct(inner).iter().map(|name| format!("--reach {name}")).collect::<Vec<_>>().join(" ")
}

/// The tables of `--sources` that let nobody in.
pub(super) fn sources(evidence: &Evidence<'_>) -> Checked {
    let Some(main) = evidence.main() else { return Ok(None) };
    let mut all = BTreeMap::new();
    for publication in evidence.publications() {
        for source in &publication.options.sources {
            let Source::Table(table) = source else { continue };
            let jail = publication.jail.mention();
            let finding = match (evidence.firewall.has_table(table)?, main.table_is_empty(table)) {
                (false, _) => problem(
                    format!("pf has no table <{table}>, so it lets nobody in to the ports of {jail}"),
                    format!("add to /etc/pf.conf: table <{table}> persist, {RELOAD}"),
                ),
                (true, Some(true)) => warning(
                    format!("table <{table}> is empty, so it lets nobody in to the ports of {jail}"),
                    format!("add the addresses: pfctl -t {table} -T add ADDRESS"),
                ),
                (true, _) => continue,
            };
            all.entry((&publication.jail, table)).or_insert(finding);
        }
    }
    Ok(Some(all.into_values().collect()))
}
