//! One transaction: what is read and changed while the host-wide lock is held.

use super::facts::{Facts, ask};
use super::locked::LockedStore;
use super::others::Others;
use super::progress::Progress;
use super::survey::Survey;
use super::writer::Writer;
use super::{Outcome, Phase, Request};
use crate::error::Result;
use crate::host::Host;
use crate::pf::Firewall;
use crate::store::Store;

/// A call that changes something, from the lock to its outcome: its two sides.
pub(super) struct Transaction<'a> {
    pub(super) survey: Survey<'a>,
    pub(super) writer: Writer<'a>,
}

impl<'a> Transaction<'a> {
    /// Takes the lock; first asks the jail of these requests what is to be known of it.
    pub(super) fn begin(
        host: &'a dyn Host,
        firewall: &'a dyn Firewall,
        store: &'a Store,
        progress: Progress<'a>,
        requests: &[Request],
    ) -> Result<Transaction<'a>> {
        let asked = ask(host, requests, progress.deadline);
        progress.phase(Phase::Lock)?;
        let locked = LockedStore::take(store, host, firewall, progress.deadline)?;
        let others = Others::new(host, firewall, store, locked.boot());
        Ok(Transaction {
            survey: Survey { facts: Facts::new(host, firewall, progress).with_asked(asked), others },
            writer: Writer { host, firewall, store: locked, progress, outcome: Outcome::default() },
        })
    }

    /// The outcome. An error has no notes, but they may also concern other jails, or a file that was moved aside: they are
    /// added to its text.
    pub(super) fn finish(self, result: Result<()>) -> Result<Outcome> {
        let outcome = self.writer.outcome;
        match (result, &outcome.notes[..]) {
            (Ok(()), _) => Ok(outcome),
            (Err(error), []) => Err(error),
            (Err(error), notes) => Err(error.and(format_args!("noted: {}", notes.join("; ")))),
        }
    }
}
