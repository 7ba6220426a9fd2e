//! Loads again what pf lost.

use super::Phase;
use super::facts::Facts;
use super::states;
use super::writer::Writer;
use crate::error::{Error, Result};
use crate::name::Anchor;
use crate::rules;

/// See [`Publisher::restore`](super::Publisher::restore).
pub(super) fn restore(writer: &mut Writer<'_>, facts: &Facts<'_>) -> Result<()> {
    let mut errors = vec![];
    let anchors = writer.store.anchors()?;
    for (done, anchor) in anchors.iter().enumerate() {
        let of = format_args!("{done} of {} records", anchors.len());
        if let Some(error) = writer.progress.cut_short(of, "kport apply") {
            errors.push(error);
            return Error::all(errors);
        }
        if let Err(error) = restore_one(writer, facts, anchor) {
            errors.push(error.context(anchor));
        }
    }
    errors.extend(writer.call_all().err());
    Error::all(errors)
}

pub(super) fn restore_one(writer: &mut Writer<'_>, facts: &Facts<'_>, anchor: &Anchor) -> Result<()> {
    let Some(mut record) = writer.record(anchor, facts)? else { return Ok(()) };
    if record.publications.is_empty() && record.requested.is_empty() {
        // a first change that failed and was not undone
        writer.drop_anchor(anchor, record.jail.label(), Some(&record))?;
        writer.note(format!("{}: what could not be published was removed", record.mention()));
        return Ok(());
    }
    let wanted = rules::of_all(&record.publications);
    let mut before = vec![];
    // after an interrupted change pf may have the previous set, and that may look the same
    if !record.replaces.is_empty() || !writer.firewall.holds(anchor, &wanted)? {
        writer.progress.phase(Phase::Load)?;
        writer.firewall.replace(anchor, &wanted)?;
        writer.outcome.changed = true;
        writer.note(format!("{}: loaded again", record.mention()));
        before = states::from_before(&record, None, facts)?;
    }
    writer.end_from_before(&before);
    if !record.replaces.is_empty() {
        let ended = states::to_end(&record, writer.firewall.labels_mappings(), facts);
        writer.outcome.killed += writer.firewall.kill_states(&ended)?;
        writer.store.settle(&mut record)?;
    }
    writer.outcome.redirects.extend(record.redirects());
    Ok(())
}
