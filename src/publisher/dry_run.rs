//! A publish that changes nothing, of a jail that need not exist yet: in `exec.prepare` of jail.conf(5), before there is anything
//! that a refusal would leave behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::addresses::leads_to_jails;
use super::check::check;
use super::facts::Facts;
use super::resolve::resolve;
use super::transaction::Transaction;
use super::verify::Verification;
use super::{Request, Resolved};
use crate::error::Result;
use crate::net::{Family, Place, is_link_local6};

/// Checks what [`super::Publisher::publish`] checks before it changes something, and whether pf would evaluate the rules.
pub(super) fn dry_run(Transaction { survey, writer }: &mut Transaction<'_>, request: &Request) -> Result<()> {
    let facts = &survey.facts;
    // a restart gives the jid of the earlier start
    let mut request = Request { jid: None, ..request.clone() };
    let is_there = facts.host.running(request.jail.as_str())?.is_some();
    if request.addresses.is_empty() && !is_there {
        request.addresses = families(facts, &request)?.into_iter().map(nobody).collect();
    }
    let old = writer.store.readable(&request.jail.anchor());
    let requests = std::slice::from_ref(&request);
    let notes = &mut writer.outcome.notes;
    let resolved = resolve(survey, requests, old.as_ref(), notes)?;
    check(survey, requests, old.as_ref(), &resolved, notes)?;
    let Resolved { jid, publications, .. } = resolved;
    let record = writer.record_of(&request.jail, jid, publications)?;
    let wanted = crate::rules::of_all(&record.publications);
    let verification = Verification { facts, allow_inert: request.allow_inert, thorough: false };
    let status = writer.firewall.status()?;
    verification.verify(&record, &wanted, status, false, &mut writer.outcome.notes)
}

/// An address that no host has, in place of a jail's that is unknown: the IPv4 dummy address (RFC 7600), and one of the
/// discard-only prefix (RFC 6666).
fn nobody(family: Family) -> IpAddr {
    match family {
        Family::Inet => Ipv4Addr::new(192, 0, 0, 8).into(),
        Family::Inet6 => Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The families in which the jail can be expected to have an address: those that are requested; else those of the networks of
/// jails, and those that the places of the request name. A host without such networks has jails on its own ones.
fn families(facts: &Facts<'_>, request: &Request) -> Result<Vec<Family>> {
    if !request.options.families.is_empty() {
        return Ok(request.options.families.clone());
    }
    let mut of_jails = vec![];
    let mut of_host = vec![];
    for interface in facts.interfaces()? {
        let networks = interface.addresses.iter().map(ipnet::IpNet::addr);
        let usable = networks.filter(|a| !a.is_loopback() && !matches!(a, IpAddr::V6(v6) if is_link_local6(*v6)));
        let found = if leads_to_jails(facts, interface.name)? { &mut of_jails } else { &mut of_host };
        found.extend(usable.map(Family::of));
    }
    if of_jails.is_empty() {
        of_jails = of_host;
    }
    of_jails.extend(request.spec.mappings().iter().filter_map(|mapping| match mapping.place {
        Some(Place::Address(address)) => Some(Family::of(address)),
        _ => None,
    }));
    Ok(Family::ALL.into_iter().filter(|family| of_jails.contains(family) && request.can_have(*family)).collect())
}
