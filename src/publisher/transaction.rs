//! One transaction: the host-wide lock, and what is known and done while it is held.

use std::os::fd::AsFd;
use std::time::{Instant, SystemTime};

use super::facts::HostFacts;
use super::{Observer, Outcome, Phase};
use crate::error::{Kind, Result};
use crate::host::Host;
use crate::name::{Anchor, JailName};
use crate::pf::Firewall;
use crate::publication::Publication;
use crate::store::{Lock, Record, Store};

/// A call that changes something, from the lock to its outcome.
pub(super) struct Transaction<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) firewall: &'a dyn Firewall,
    pub(super) store: &'a Store,
    pub(super) observer: &'a dyn Observer,
    pub(super) lock: Lock,
    /// The boot of now: records of another one count for nothing.
    pub(super) boot: String,
    pub(super) facts: HostFacts<'a>,
    pub(super) outcome: Outcome,
}

impl<'a> Transaction<'a> {
    /// Takes the lock, waiting until `deadline`.
    pub(super) fn begin(
        host: &'a dyn Host,
        firewall: &'a dyn Firewall,
        store: &'a Store,
        deadline: Instant,
        observer: &'a dyn Observer,
    ) -> Result<Transaction<'a>> {
        observer.phase(Phase::Lock)?;
        let lock = store.lock(deadline)?;
        firewall.locked(lock.as_fd());
        let boot = host.boot_id()?;
        store.sweep_after_boot(&lock, &boot, &mut held(firewall));
        let facts = HostFacts::new(host, firewall);
        Ok(Transaction { host, firewall, store, observer, lock, boot, facts, outcome: Outcome::default() })
    }

    /// Removes what earlier boots and killed runs have left in the state directory.
    pub(super) fn sweep(&self) {
        self.store.sweep(&self.lock, &self.boot, &mut held(self.firewall));
    }

    /// The record of this boot. A file that is no record is set aside and noted: it must not stop its jail for good, and must
    /// not vanish.
    pub(super) fn record(&mut self, anchor: &Anchor) -> Result<Option<Record>> {
        match self.store.get(anchor) {
            Ok(record) => Ok(record.filter(|r| r.boot == self.boot)),
            Err(error) if error.kind() == Kind::System && error.errno().is_none() => {
                let kept = self.store.move_damaged(&self.lock, anchor)?;
                self.note(format!("{error}; kept as {}", kept.display()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A record of now.
    pub(super) fn record_of(&self, jail: &JailName, jid: Option<i32>, publications: Vec<Publication>) -> Record {
        Record {
            version: Record::VERSION,
            boot: self.boot.clone(),
            jail: jail.clone(),
            jid,
            since: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            mapping_labels: self.firewall.labels_mappings(),
            publications,
            replaces: vec![],
        }
    }

    /// Something that the caller should hear.
    pub(super) fn note(&mut self, text: String) {
        self.outcome.notes.push(text);
    }
}

/// Whether pf has something in an anchor; asked once, and only if there is an anchor to ask about.
fn held(firewall: &dyn Firewall) -> impl FnMut(&Anchor) -> bool {
    let mut anchors = None;
    move |anchor| match anchors.get_or_insert_with(|| firewall.anchors()) {
        Ok(anchors) => anchors.iter().any(|child| child == anchor.child()),
        // pf that is not there holds nothing; else nobody can tell
        Err(error) => error.kind() != Kind::Unavailable,
    }
}
