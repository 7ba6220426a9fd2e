//! What pf lost is loaded again.

use super::change::gone;
use super::transaction::Transaction;
use super::{Phase, all_or};
use crate::error::Result;
use crate::name::Anchor;
use crate::rules;

impl Transaction<'_> {
    /// Loads again what is recorded and not in pf: after `pfctl -F` on kport's anchors, or after pf(4) was unloaded.
    /// Says which jails; an error of one does not stop the others.
    pub(super) fn restore(&mut self) -> Result<()> {
        let mut errors = vec![];
        let anchors = self.store.anchors()?;
        for (done, anchor) in anchors.iter().enumerate() {
            if self.is_time_up() {
                errors.push(self.cut_short(format_args!("{done} of {} records", anchors.len()), "kport restore"));
                return all_or(errors, ());
            }
            if let Err(error) = self.restore_one(anchor) {
                errors.push(error.context(anchor));
            }
        }
        self.sweep();
        all_or(errors, ())
    }

    fn restore_one(&mut self, anchor: &Anchor) -> Result<()> {
        let Some(mut record) = self.record(anchor)? else { return Ok(()) };
        if record.publications.is_empty() {
            // a first change that failed and was not undone
            self.drop_anchor(anchor, record.jail.label(), Some(&record))?;
            self.note(format!("{}: what could not be published was taken away", record.jail.mention()));
            return Ok(());
        }
        let wanted = rules::of_all(&record.publications);
        // after an interrupted change pf may hold the set before, and that may look the same
        if !record.replaces.is_empty() || !self.firewall.holds(anchor, &wanted)? {
            self.observer.phase(Phase::Load)?;
            self.firewall.replace(anchor, &wanted)?;
            self.outcome.changed = true;
            self.note(format!("{}: loaded again", record.jail.mention()));
        }
        if !record.replaces.is_empty() {
            self.outcome.killed += self.firewall.kill_states(&gone(&record, self.firewall))?;
            self.settle(&mut record)?;
        }
        self.outcome.redirects.extend(record.redirects());
        Ok(())
    }
}
