//! Compares the records with what pf has and which jails run.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Checked, Evidence, Finding, found, problem, warning};
use crate::error::{Kind, Result, quoted};
use crate::host::{ANSWER_TIME, HostInterface, Interfaces, Jail, Jails};
use crate::name::{Anchor, JailName, PARENT};
use crate::net::Family;
use crate::publication::{Redirect, unusable};
use crate::store::Record;
use crate::{calls, conflict, rules};

pub(super) fn state(evidence: &Evidence<'_>) -> Checked {
    let store = match &evidence.store {
        Ok(store) => store,
        Err(error) => {
            return found([problem(error.message(), "run as root, or name another directory: --state-dir DIR")]);
        }
    };
    let mut all = vec![];
    if let Err(error) = store.writable() {
        let remedy =
            "make it writable, such as a tmpfs(5) for /var/run; until then no port can be published or unpublished";
        all.push(problem(error.message(), remedy));
    }
    for anchor in store.anchors()? {
        if let Err(error) = store.get(&anchor) {
            all.push(problem(error.message(), "publish or unpublish its jail again: the file is moved aside then"));
        }
    }
    let foreign = store.foreign_files()?.into_iter().map(|path| (path, "is not one of kport's files"));
    let damaged = store.damaged()?.into_iter().map(|path| (path, "was a record that could not be read"));
    for (path, what) in foreign.chain(damaged) {
        all.push(warning(
            format!("{} {what}", path.display()),
            format!("check what it is, and remove it: rm {}", quoted(&path.to_string_lossy())),
        ));
    }
    Ok(Some(all))
}

pub(super) fn anchors_loaded(evidence: &Evidence<'_>) -> Checked {
    let (Ok(_), Ok(store)) = (&evidence.status, &evidence.store) else { return Ok(None) };
    let mut all = vec![];
    let wanted = |record: &Record| (record.jail.anchor(), rules::of_all(&record.publications));
    let wanted: Vec<_> = evidence.records.iter().map(wanted).collect();
    let (holds, anchors) = evidence.firewall.compare(&wanted)?;
    let known: BTreeSet<&str> = wanted.iter().map(|(anchor, _)| anchor.child()).collect();
    let called = evidence.firewall.called(None, true)?;
    for ((record, (anchor, rules)), holds) in evidence.records.iter().zip(&wanted).zip(holds) {
        let jail = record.jail.mention();
        let is_called =
            |called: &Vec<_>| calls::entries(anchor, rules).iter().all(|entry| calls::covers(called, entry));
        let seen = if !record.replaces.is_empty() {
            format!("a change of what {jail} publishes was interrupted")
        } else if !holds {
            format!("pf does not have, in {anchor}, what {jail} has published")
        } else if !called.as_ref().is_none_or(is_called) {
            format!("anchor {PARENT} does not call {anchor} for all that {jail} has published")
        } else {
            continue;
        };
        all.push(problem(seen, "kport apply"));
    }
    for child in anchors.into_iter().filter(|child| !known.contains(&**child)) {
        let path = format!("{PARENT}/{child}");
        all.push(match Anchor::from_child(&child) {
            // its record exists, and cannot be read: a separate finding
            Some(anchor) if store.get(&anchor).is_err() => continue,
            Some(_) => problem(format!("anchor {path} has rules but no record"), "kport apply"),
            None => warning(
                format!("anchor {} is not one of kport's", quoted(&path)),
                format!("if nobody needs it: pfctl -a {} -F rules -F nat", quoted(&path)),
            ),
        });
    }
    let children: BTreeSet<&str> = called.iter().flatten().map(|entry| entry.child.as_str()).collect();
    for child in children.into_iter().filter(|child| !known.contains(*child)) {
        let seen = format!("anchor {PARENT} calls {PARENT}/{child}, which nothing has published");
        all.push(warning(seen, "kport apply"));
    }
    Ok(Some(all))
}

pub(super) fn jails(evidence: &Evidence<'_>) -> Checked {
    if evidence.records.is_empty() {
        return Ok(Some(vec![]));
    }
    let jails = evidence.host.jails()?;
    let found = evidence.records.iter().map(|record| of_record(evidence, record, &jails));
    Ok(Some(found.collect::<Result<Vec<_>>>()?.concat()))
}

fn of_record(evidence: &Evidence<'_>, record: &Record, Jails { jails, skipped }: &Jails) -> Result<Vec<Finding>> {
    let mut all = vec![];
    let (name, shown) = (record.jail.as_str(), quoted(record.jail.as_str()));
    let targets: BTreeSet<IpAddr> = record.redirects().map(|r| r.target).collect();
    if record.no_jail {
        for target in &targets {
            let Some(owner) = owner(evidence, jails, None, *target)? else { continue };
            let what = format!("the target of the ports of {shown}, which is not a jail, is {target}");
            let again = format!("publish it again with its address: kport publish --no-jail {shown} -a ADDRESS");
            all.push(problem(format!("{what}, which is now {owner}"), format!("unpublish it, or {again}")));
        }
        return Ok(all);
    }
    let Some(jail) = jails.iter().find(|jail| !jail.dying && jail.name == name) else {
        // it may run, and nothing else be known about it
        let runs = skipped.iter().any(|jail| Some(jail.jid) == record.jid);
        let gone = || problem(format!("jail {shown} is published, but does not run"), "kport apply");
        return Ok((!runs).then(gone).into_iter().collect());
    };
    if let Some(jid) = record.jid.filter(|jid| *jid != jail.jid) {
        let seen = format!("jail {shown} was published as jid {jid}, and was started again since as jid {}", jail.jid);
        let remedy = "publish it again; to remove what its last start has left: kport apply";
        return Ok(vec![problem(seen, remedy)]);
    }
    let addresses = match addresses(evidence, jail) {
        Err(error) if error.kind() == Kind::Unavailable => {
            let seen = format!("jail {shown} is published, and {error}");
            return Ok(vec![problem(seen, "check what runs in that jail")]);
        }
        other => other?,
    };
    for target in targets.iter().filter(|target| !addresses.is_empty() && !addresses.contains(target)) {
        let seen = format!("jail {shown} does not have the address {target}, the target of its ports");
        all.push(problem(seen, "publish it again"));
    }
    all.extend(half_published(evidence, record, &addresses)?);
    // the address of a jail without vnet is the host's own, and may be that of another jail
    for target in targets.iter().filter(|_| jail.vnet) {
        let Some(owner) = owner(evidence, jails, Some(jail), *target)? else { continue };
        all.push(problem(
            format!("the target of the ports of jail {shown} is {target}, which is now {owner}"),
            "give the address back, or publish the jail again with its address: -a ADDRESS",
        ));
    }
    Ok(all)
}

/// A jail that has addresses of both families now, and is published by one of them.
fn half_published(evidence: &Evidence<'_>, record: &Record, addresses: &[IpAddr]) -> Result<Option<Finding>> {
    let around = evidence.surroundings()?;
    for publication in record.publications.iter().filter(|publication| publication.options.families.is_empty()) {
        for redirect in &publication.redirects {
            let (by, family) = (redirect.family(), redirect.family().other());
            let key = |r: &Redirect| (r.protocol, r.host, r.jail);
            let is_published = |r: &Redirect| r.family() == family && key(r) == key(redirect);
            if !redirect.place.has_family(family) || publication.redirects.iter().any(is_published) {
                continue;
            }
            let mut outer = around.outer(redirect.place, family)?.into_iter();
            let interface = outer.find(|interface| interface.address(family).is_some());
            let address = addresses.iter().find(|a| Family::of(**a) == family && unusable(**a).is_none());
            let (Some(address), Some(HostInterface { name, .. })) = (address, interface) else { continue };
            let (jail, family, only) = (record.jail.mention(), family.protocol(), by.protocol());
            return Ok(Some(warning(
                format!(
                    "{jail} has {address} now, and {name} has an {family} address, but {redirect} is published by {only} only"
                ),
                format!("publish it again; if that is intended, with --family {by}"),
            )));
        }
    }
    Ok(None)
}

fn addresses(evidence: &Evidence<'_>, jail: &Jail) -> Result<Vec<IpAddr>> {
    if jail.vnet { evidence.host.vnet_addresses(jail, ANSWER_TIME) } else { Ok(jail.addresses.clone()) }
}

/// The new owner of the address of a jail with its own network stack, or of a target that is not a jail, if it is another one.
fn owner(evidence: &Evidence<'_>, running: &[Jail], jail: Option<&Jail>, target: IpAddr) -> Result<Option<String>> {
    if Interfaces(evidence.interfaces()?).is_own(target) {
        return Ok(Some("an address of the host".to_owned()));
    }
    for other in running.iter().filter(|other| !other.dying) {
        if jail.is_some_and(|jail| other.jid == jail.jid || other.shares_addresses_with(jail)) {
            continue;
        }
        let theirs = match addresses(evidence, other) {
            // a jail that does not report its addresses only affects itself
            Err(error) if error.kind() == Kind::Unavailable => continue,
            other => other?,
        };
        if theirs.contains(&target) {
            return Ok(Some(format!("the address of jail {}", quoted(&other.name))));
        }
    }
    Ok(None)
}

/// Two jails that a packet could be for: each was published when there was no conflict.
pub(super) fn overlaps(evidence: &Evidence<'_>) -> Checked {
    let claims: Vec<(&JailName, Redirect)> = evidence
        .records
        .iter()
        .flat_map(|record| record.claims().into_iter().map(move |claim| (&record.jail, claim)))
        .collect();
    found(conflict::among(&claims, Interfaces(evidence.interfaces()?)))
}
