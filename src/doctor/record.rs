//! What the record says against what pf holds and which jails run.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::evidence::Evidence;
use super::{Found, problem, warning};
use crate::error::quoted;
use crate::host::Jails;
use crate::name::{Anchor, PARENT};
use crate::rules;

pub(super) fn state(evidence: &Evidence<'_>) -> Found {
    let store = match &evidence.store {
        Ok(store) => store,
        Err(error) => {
            let remedy = "run as root, or name another directory: --state-dir DIR";
            return Ok(Some(vec![problem(error.message(), remedy)]));
        }
    };
    let mut all = vec![];
    for anchor in store.anchors()? {
        if let Err(error) = store.get(&anchor) {
            all.push(problem(error.message(), "publish or unpublish its jail again: the file is set aside then"));
        }
    }
    for path in store.foreign_files()? {
        all.push(warning(
            format!("{} is not one of kport's files", path.display()),
            format!("see what it is, and remove it: rm {}", quoted(&path.to_string_lossy())),
        ));
    }
    for path in store.damaged()? {
        all.push(warning(
            format!("{} was a record that could not be read", path.display()),
            format!("see what it is, and remove it: rm {}", quoted(&path.to_string_lossy())),
        ));
    }
    Ok(Some(all))
}

pub(super) fn anchors_loaded(evidence: &Evidence<'_>) -> Found {
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
            // its record is there, and cannot be read: a finding of its own
            Some(anchor) if store.get(&anchor).is_err() => continue,
            Some(_) => problem(format!("anchor {path} has rules that no record knows"), "kport gc"),
            None => warning(
                format!("anchor {} is not one of kport's", quoted(&path)),
                format!("if nobody needs it: pfctl -a {} -F rules -F nat", quoted(&path)),
            ),
        });
    }
    Ok(Some(all))
}

pub(super) fn jails(evidence: &Evidence<'_>) -> Found {
    let mut all = vec![];
    if evidence.records.is_empty() {
        return Ok(Some(all));
    }
    let Jails { jails: running, skipped } = evidence.host.jails()?;
    for record in &evidence.records {
        let (name, shown) = (record.jail.as_str(), quoted(record.jail.as_str()));
        let known = running.iter().find(|jail| !jail.dying && jail.name == name);
        let jail = match (known, record.jid) {
            // it runs, and no more is known of it
            (None, Some(jid)) if skipped.iter().any(|jail| jail.jid == jid) => continue,
            (None, _) => {
                all.push(problem(format!("jail {shown} is published, but does not run"), "kport gc"));
                continue;
            }
            (Some(jail), Some(jid)) if jid != jail.jid => {
                all.push(problem(
                    format!("jail {shown} was published as jid {jid}, and was started again since as jid {}", jail.jid),
                    "publish it again; what its last start has left: kport gc",
                ));
                continue;
            }
            (Some(jail), _) => jail,
        };
        let addresses = if jail.vnet { evidence.host.vnet_addresses(jail)? } else { jail.addresses.clone() };
        let targets: BTreeSet<IpAddr> = record.redirects().map(|r| r.target).collect();
        for target in targets.into_iter().filter(|target| !addresses.is_empty() && !addresses.contains(target)) {
            all.push(problem(
                format!("jail {shown} does not have the address {target}, to which its ports lead"),
                "publish it again",
            ));
        }
    }
    Ok(Some(all))
}
