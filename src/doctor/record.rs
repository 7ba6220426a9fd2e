//! Compares the records with what pf has and which jails run.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::evidence::Evidence;
use super::{Checked, Finding, problem, warning};
use crate::conflict;
use crate::error::{Kind, Result, quoted};
use crate::host::{ANSWER_TIME, Interfaces, Jail, Jails};
use crate::name::{Anchor, JailName, PARENT};
use crate::publication::Redirect;
use crate::rules;

pub(super) fn state(evidence: &Evidence<'_>) -> Checked {
    let store = match &evidence.store {
        Ok(store) => store,
        Err(error) => {
            let remedy = "run as root, or name another directory: --state-dir DIR";
            return Ok(Some(vec![problem(error.message(), remedy)]));
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
    for path in store.foreign_files()? {
        all.push(warning(
            format!("{} is not one of kport's files", path.display()),
            format!("check what it is, and remove it: rm {}", quoted(&path.to_string_lossy())),
        ));
    }
    for path in store.damaged()? {
        all.push(warning(
            format!("{} was a record that could not be read", path.display()),
            format!("check what it is, and remove it: rm {}", quoted(&path.to_string_lossy())),
        ));
    }
    Ok(Some(all))
}

pub(super) fn anchors_loaded(evidence: &Evidence<'_>) -> Checked {
    let (Ok(_), Ok(store)) = (&evidence.status, &evidence.store) else { return Ok(None) };
    let mut all = vec![];
    let mut known = BTreeSet::new();
    for record in &evidence.records {
        let (anchor, jail) = (record.jail.anchor(), quoted(record.jail.as_str()));
        if !record.replaces.is_empty() {
            all.push(problem(format!("a change of what jail {jail} publishes was interrupted"), "kport restore"));
        } else if !evidence.firewall.holds(&anchor, &rules::of_all(&record.publications))? {
            all.push(problem(
                format!("pf does not have, in {anchor}, what jail {jail} has published"),
                "kport restore",
            ));
        }
        known.insert(anchor.child().to_owned());
    }
    for child in evidence.firewall.anchors()?.into_iter().filter(|child| !known.contains(child)) {
        let path = format!("{PARENT}/{child}");
        all.push(match Anchor::from_child(&child) {
            // its record exists, and cannot be read: a separate finding
            Some(anchor) if store.get(&anchor).is_err() => continue,
            Some(_) => problem(format!("anchor {path} has rules but no record"), "kport gc"),
            None => warning(
                format!("anchor {} is not one of kport's", quoted(&path)),
                format!("if nobody needs it: pfctl -a {} -F rules -F nat", quoted(&path)),
            ),
        });
    }
    Ok(Some(all))
}

pub(super) fn jails(evidence: &Evidence<'_>) -> Checked {
    let mut all = vec![];
    if evidence.records.is_empty() {
        return Ok(Some(all));
    }
    let Jails { jails: running, skipped } = evidence.host.jails()?;
    for record in &evidence.records {
        let (name, shown) = (record.jail.as_str(), quoted(record.jail.as_str()));
        let known = running.iter().find(|jail| !jail.dying && jail.name == name);
        let jail = match (known, record.jid) {
            // it runs, and nothing else is known about it
            (None, Some(jid)) if skipped.iter().any(|jail| jail.jid == jid) => continue,
            (None, _) => {
                all.push(problem(format!("jail {shown} is published, but does not run"), "kport gc"));
                continue;
            }
            (Some(jail), Some(jid)) if jid != jail.jid => {
                all.push(problem(
                    format!("jail {shown} was published as jid {jid}, and was started again since as jid {}", jail.jid),
                    "publish it again; to remove what its last start has left: kport gc",
                ));
                continue;
            }
            (Some(jail), _) => jail,
        };
        let addresses = match addresses(evidence, jail) {
            Err(error) if error.kind() == Kind::Unavailable => {
                all.push(problem(format!("jail {shown} is published, and {error}"), "check what runs in that jail"));
                continue;
            }
            other => other?,
        };
        let targets: BTreeSet<IpAddr> = record.redirects().map(|r| r.target).collect();
        for target in targets.iter().filter(|target| !addresses.is_empty() && !addresses.contains(target)) {
            all.push(problem(
                format!("jail {shown} does not have the address {target}, the target of its ports"),
                "publish it again",
            ));
        }
        // the address of a jail without vnet is the host's own, and may be that of another jail
        if jail.vnet {
            for target in &targets {
                let Some(owner) = owner(evidence, &running, jail, *target)? else { continue };
                all.push(problem(
                    format!("the target of the ports of jail {shown} is {target}, which is now {owner}"),
                    "give the address back, or publish the jail again with its address: -a ADDRESS",
                ));
            }
        }
    }
    Ok(Some(all))
}

fn addresses(evidence: &Evidence<'_>, jail: &Jail) -> Result<Vec<IpAddr>> {
    if jail.vnet { evidence.host.vnet_addresses(jail, ANSWER_TIME) } else { Ok(jail.addresses.clone()) }
}

/// The new owner of the address of a jail with its own network stack, if it is not that jail.
fn owner(evidence: &Evidence<'_>, running: &[Jail], jail: &Jail, target: IpAddr) -> Result<Option<String>> {
    if Interfaces(evidence.interfaces()?).is_own(target) {
        return Ok(Some("an address of the host".to_owned()));
    }
    for other in running.iter().filter(|other| !other.dying && other.jid != jail.jid) {
        if other.shares_addresses_with(jail) {
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
    let problems = conflict::among(&claims, Interfaces(evidence.interfaces()?));
    Ok(Some(problems.into_iter().map(Finding::from).collect()))
}
