//! Changes pf and the records, and collects the outcome.

use std::collections::BTreeSet;

use super::facts::Facts;
use super::locked::LockedStore;
use super::others::Outdated;
use super::progress::Progress;
use super::starting::now;
use super::states::targets;
use super::{Outcome, Phase};
use crate::calls::Change;
use crate::error::{Error, Kind, Result};
use crate::host::Host;
use crate::name::{Anchor, JailName, Label};
use crate::pf::{Firewall, States};
use crate::publication::Publication;
use crate::rule::Rule;
use crate::rules;
use crate::store::Record;

/// A sysctl that exists while pf(4) is loaded.
const SYSCTL_OF_PF: &str = "net.pf.request_maxcount";

/// The side of a transaction that changes something.
pub(super) struct Writer<'a> {
    pub(super) host: &'a dyn Host,
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
    pub(super) fn record_of(
        &self,
        jail: &JailName,
        jid: Option<i32>,
        publications: Vec<Publication>,
    ) -> Result<Record> {
        Ok(Record {
            version: Record::VERSION,
            boot: self.store.boot().to_owned(),
            jail: jail.clone(),
            jid,
            earlier_jid: None,
            path: None,
            reported: BTreeSet::new(),
            no_jail: false,
            since: now(),
            uptime: self.host.uptime()?,
            mapping_labels: self.firewall.labels_mappings(),
            publications,
            replaces: vec![],
            requested: vec![],
        })
    }

    /// Removes what is in the way of a publication, and notes it.
    pub(super) fn drop_outdated(&mut self, anchor: &Anchor, outdated: &Outdated) -> Result<()> {
        match outdated {
            Outdated::Gone(record) => {
                self.drop_anchor(anchor, record.jail.label(), Some(record))?;
                self.note(format!("{} is gone: unpublished", record.mention()));
            }
            Outdated::Disproved(record, address) => {
                self.drop_anchor(anchor, record.jail.label(), Some(record))?;
                self.note(format!(
                    "{} has reported {address}, which is not its address: unpublished",
                    record.jail.mention()
                ));
            }
            Outdated::Unrecorded => {
                self.drop_anchor(anchor, Label::of_anchor(anchor), None)?;
                self.note(format!("anchor {anchor} had no record: cleared"));
            }
        }
        Ok(())
    }

    /// Ends the states of [`states::from_before`](super::states::from_before), and notes how many. The ports are published
    /// anyway.
    pub(super) fn end_from_before(&mut self, states: &[States]) {
        const THEY: &str = "that reached the host itself at these ports before they were redirected";
        match if states.is_empty() { Ok(0) } else { self.firewall.kill_states(states) } {
            Ok(0) => {}
            // on macOS, whose pf does not end states by themselves
            Err(error) if error.kind() == Kind::Unsupported => {}
            Ok(ended) => {
                self.outcome.killed += ended;
                self.note(format!("ended the states of connections {THEY}: {ended}"));
            }
            Err(error) => self.note(format!(
                "published, but connections {THEY} stay there as long as they last ({error}); unpublish and publish again to \
                 end them"
            )),
        }
    }

    /// Lets `kport` call an anchor for its new rules instead of the earlier ones; then, in any case, for those of its record.
    pub(super) fn call(&self, anchor: &Anchor, before: &[Rule], after: &[Rule]) -> Result<bool> {
        let change = Change::new(anchor, before, after);
        self.firewall.call(Some(&change), &mut || {
            let mut all = self.store.to_call(self.firewall, Some(anchor))?;
            all.extend_from_slice(&change.added);
            Ok(all)
        })
    }

    /// Makes pf's calls those of all records.
    pub(super) fn call_all(&mut self) -> Result<()> {
        if self.firewall.call(None, &mut || self.store.to_call(self.firewall, None))? {
            self.outcome.changed = true;
            self.note("the calls of kport's anchors: loaded again".to_owned());
        }
        Ok(())
    }

    /// Clears an anchor, ends its states, and only then removes its calls and its record.
    pub(super) fn drop_anchor(&mut self, anchor: &Anchor, label: Label, record: Option<&Record>) -> Result<()> {
        // if pf is not loaded, it has no rules; its device may be hidden although it is (devfs(8))
        let absent =
            |error: &Error| error.kind() == Kind::Unavailable && !matches!(self.host.sysctl(SYSCTL_OF_PF), Ok(Some(_)));
        let mut errors = vec![];
        match self.progress.phase(Phase::Load).and_then(|()| self.firewall.clear(anchor)) {
            Ok(cleared) => self.outcome.changed |= cleared,
            Err(error) if absent(&error) => self.note(format!("pf has nothing to clear: {error}")),
            Err(error) if error.kind() == Kind::Unavailable => {
                let why = "pf is loaded, so it may still have the rules: make /dev/pf visible here (devfs(8)), and unpublish again";
                return Err(Error::new(Kind::Permission, error.to_string()).and(why));
            }
            Err(error) => errors.push(error),
        }
        let all = [States::Jail { label, targets: record.map(targets).unwrap_or_default() }];
        match self.progress.phase(Phase::Kill).and_then(|()| self.firewall.kill_states(&all)) {
            Ok(killed) => self.outcome.killed += killed,
            Err(error) if absent(&error) => {}
            Err(error) => errors.push(error.context("states were not ended")),
        }
        if errors.is_empty() {
            let possible: Vec<Publication> = record.iter().flat_map(|record| record.possible()).cloned().collect();
            match self.call(anchor, &rules::of_all(&possible), &[]) {
                Err(error) if !absent(&error) => errors.push(error.context("the calls of its anchor remain")),
                _ => {}
            }
        }
        if errors.is_empty() {
            let forgotten = self.progress.phase(Phase::Settle).and_then(|()| self.store.remove(anchor, record));
            errors.extend(forgotten.err());
        }
        Error::all(errors)
    }
}
