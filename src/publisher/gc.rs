//! Removes the ports of jails that are gone.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::others::Outdated;
use super::writer::Writer;
use crate::error::{Error, Result, quoted};
use crate::host::{Jail, Jails};
use crate::name::{Anchor, JailName, PARENT};

/// See [`Publisher::gc`](super::Publisher::gc).
pub(super) fn gc(writer: &mut Writer<'_>, facts: &Facts<'_>) -> Result<()> {
    let jails = facts.jails()?;
    for jail in &jails.skipped {
        writer.note(format!("jail {} was not changed: {}", jail.jid, jail.why));
    }
    let mut errors = vec![];
    let mut known = BTreeSet::new();
    let anchors = writer.store.anchors()?;
    for (done, anchor) in anchors.iter().enumerate() {
        if let Some(error) =
            writer.progress.cut_short(format_args!("{done} of {} records", anchors.len()), "kport apply")
        {
            // a record that was not checked must not count as missing below
            errors.push(error);
            return Error::all(errors);
        }
        match gc_one(writer, facts, anchor, jails) {
            Ok(false) => {}
            Ok(true) => _ = known.insert(anchor.child().to_owned()),
            Err(error) => {
                known.insert(anchor.child().to_owned());
                errors.push(error.context(anchor));
            }
        }
    }
    let children = writer.firewall.anchors()?;
    for (done, child) in children.iter().enumerate() {
        if let Some(error) =
            writer.progress.cut_short(format_args!("{done} of {} anchors", children.len()), "kport apply")
        {
            errors.push(error);
            return Error::all(errors);
        }
        if known.contains(child) {
            continue;
        }
        let Some(anchor) = Anchor::from_child(child) else {
            let path = quoted(&format!("{PARENT}/{child}"));
            writer.note(format!("anchor {path} is not one of kport's: not changed"));
            continue;
        };
        let published = |jail: &&Jail| jail.name.parse::<JailName>().is_ok_and(|name| name.anchor() == anchor);
        if writer.store.is_damaged(&anchor)?
            && let Some(jail) = jails.jails.iter().filter(|jail| !jail.dying).find(published)
        {
            let jail = quoted(&jail.name);
            writer.note(format!(
                "anchor {anchor} has no record but a damaged one, and jail {jail} is running: not changed; publish its \
                 ports again, or unpublish it"
            ));
            continue;
        }
        if let Err(error) = writer.drop_outdated(&anchor, &Outdated::Unrecorded) {
            errors.push(error.context(&anchor));
        }
    }
    errors.extend(writer.call_all().err());
    writer.store.sweep(writer.firewall);
    Error::all(errors)
}

/// Clears a record's anchor unless its jail runs or is starting; returns whether it was cleared.
fn gc_one(writer: &mut Writer<'_>, facts: &Facts<'_>, anchor: &Anchor, jails: &Jails) -> Result<bool> {
    let Some(record) = writer.record(anchor, facts)? else { return Ok(false) };
    let jail = &record.jail;
    let may_run = jails.skipped.iter().any(|j| match record.jid {
        Some(jid) => jid == j.jid,
        None => j.name.as_deref() == Some(jail.as_str()),
    });
    // not by the list, which is older: jails start meanwhile
    let alive = may_run || !writer.store.is_gone(facts.host, &record)?;
    if !alive {
        writer.drop_outdated(anchor, &Outdated::Gone(Box::new(record)))?;
    }
    Ok(alive)
}
