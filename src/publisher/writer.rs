//! Changes pf and the records, and collects the outcome.

use super::facts::Facts;
use super::locked::LockedStore;
use super::progress::Progress;
use super::starting::now;
use super::{Outcome, Phase};
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, JailName, Label};
use crate::pf::{Firewall, States};
use crate::publication::Publication;
use crate::store::Record;

/// The side of a transaction that changes something.
pub(super) struct Writer<'a> {
    pub(super) firewall: &'a dyn Firewall,
    pub(super) store: LockedStore<'a>,
    pub(super) progress: Progress<'a>,
    pub(super) outcome: Outcome,
}

impl Writer<'_> {
    /// Adds a note for the caller.
    pub(super) fn note(&mut self, text: String) {
        self.outcome.notes.push(text);
    }

    /// See [`LockedStore::record`].
    pub(super) fn record(&mut self, anchor: &Anchor, facts: &Facts<'_>) -> Result<Option<Record>> {
        self.store.record(anchor, facts, &mut self.outcome.notes)
    }

    /// A record with the current time and boot.
    pub(super) fn record_of(&self, jail: &JailName, jid: Option<i32>, publications: Vec<Publication>) -> Record {
        Record {
            version: Record::VERSION,
            boot: self.store.boot().to_owned(),
            jail: jail.clone(),
            jid,
            earlier_jid: None,
            since: now(),
            mapping_labels: self.firewall.labels_mappings(),
            publications,
            replaces: vec![],
        }
    }

    /// Clears an anchor, ends its states, and only then removes its record.
    pub(super) fn drop_anchor(&mut self, anchor: &Anchor, label: Label, record: Option<&Record>) -> Result<()> {
        // if pf is not available, it has no rules
        let absent = |error: &Error| error.kind() == Kind::Unavailable;
        let mut errors = vec![];
        match self.progress.phase(Phase::Load).and_then(|()| self.firewall.clear(anchor)) {
            Ok(cleared) => self.outcome.changed |= cleared,
            Err(error) if absent(&error) => self.note(format!("pf has nothing to clear: {error}")),
            Err(error) => errors.push(error),
        }
        let all = [States::Jail { label }];
        match self.progress.phase(Phase::Kill).and_then(|()| self.firewall.kill_states(&all)) {
            Ok(killed) => self.outcome.killed += killed,
            Err(error) if absent(&error) => {}
            Err(error) => errors.push(error.context("states were not ended")),
        }
        if errors.is_empty() {
            let forgotten = self.progress.phase(Phase::Settle).and_then(|()| self.store.remove(anchor, record));
            errors.extend(forgotten.err());
        }
        Error::all(errors)
    }
}
