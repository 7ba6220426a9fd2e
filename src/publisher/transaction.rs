//! One transaction: the host-wide lock, and what is known and done while it is held.

use std::os::fd::AsFd;
use std::time::SystemTime;

use super::facts::HostFacts;
use super::others::Others;
use super::{Observer, Outcome, Phase};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
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
    pub(super) others: Others<'a>,
    pub(super) deadline: Deadline,
    pub(super) outcome: Outcome,
}

impl<'a> Transaction<'a> {
    /// Takes the lock, waiting until `deadline`.
    pub(super) fn begin(
        host: &'a dyn Host,
        firewall: &'a dyn Firewall,
        store: &'a Store,
        deadline: Deadline,
        observer: &'a dyn Observer,
    ) -> Result<Transaction<'a>> {
        observer.phase(Phase::Lock)?;
        let lock = store.lock(deadline)?;
        firewall.locked(lock.as_fd());
        let boot = host.boot_id()?;
        store.sweep_after_boot(&lock, &boot, &mut held(firewall));
        let facts = HostFacts::new(host, firewall, deadline);
        let others = Others::new(firewall, store, &boot);
        let outcome = Outcome::default();
        Ok(Transaction { host, firewall, store, observer, lock, boot, facts, others, deadline, outcome })
    }

    pub(super) fn is_time_up(&self) -> bool {
        self.deadline.passed()
    }

    /// What a loop over anchors that change one by one says when it ends before its last one: each is as it is to be, or as it
    /// was. `of` says how far it came.
    pub(super) fn cut_short(&self, of: std::fmt::Arguments<'_>, again: &str) -> Error {
        Error::new(
            Kind::Busy,
            format!(
                "the time is up after {of}; the others are as they were: {again} again, with more time (--timeout)"
            ),
        )
    }

    /// What comes of it. An error has no notes, and what they say is about other jails, or of a file that was set aside, as well:
    /// it takes them along.
    pub(super) fn finish(self, result: Result<()>) -> Result<Outcome> {
        match (result, &self.outcome.notes[..]) {
            (Ok(()), _) => Ok(self.outcome),
            (Err(error), []) => Err(error),
            (Err(error), notes) => Err(error.and(format_args!("noted: {}", notes.join("; ")))),
        }
    }

    /// Refuses to go on when the time is up: for loops before anything is changed.
    pub(super) fn in_time(&self) -> Result<()> {
        if !self.is_time_up() {
            return Ok(());
        }
        Err(Error::new(Kind::Busy, "the time is up, and nothing was changed; try again with more time (--timeout)"))
    }

    /// Removes what earlier boots and killed runs have left in the state directory.
    pub(super) fn sweep(&self) {
        self.store.sweep(&self.lock, &self.boot, &mut held(self.firewall));
    }

    /// The record of this boot. A file that is no record is set aside and noted: it must not stop its jail for good, and must
    /// not vanish. A record that was made before its jail was there learns the jail's number.
    pub(super) fn record(&mut self, anchor: &Anchor) -> Result<Option<Record>> {
        let mut record = match self.store.get(anchor) {
            Ok(record) => record.filter(|r| r.boot == self.boot),
            Err(error) if error.kind() == Kind::System && error.errno().is_none() => {
                let kept = self.store.move_damaged(&self.lock, anchor)?;
                self.note(format!("{error}; kept as {}", kept.display()));
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(record) = record.as_mut().filter(|record| record.jid.is_none())
            && let Some(jail) = self.host.jail(record.jail.as_str())?
            && !jail.dying
            && jail.name == record.jail.as_str()
        {
            (record.jid, record.earlier_jid) = (Some(jail.jid), None);
            // what cannot be written is learnt again by the next call
            _ = self.store.put(&self.lock, record);
        }
        Ok(record)
    }

    /// A record of now.
    pub(super) fn record_of(&self, jail: &JailName, jid: Option<i32>, publications: Vec<Publication>) -> Record {
        Record {
            version: Record::VERSION,
            boot: self.boot.clone(),
            jail: jail.clone(),
            jid,
            earlier_jid: None,
            since: now(),
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

/// How long a jail may take from its prestart hook to being there, in seconds: mounts, other hooks. What was published for it
/// by then without a number, `gc` takes for that of a jail that is gone.
const STARTING: u64 = 60;

/// Whether the jail of a record may still be starting: it was not there when it was published, just now.
pub(super) fn is_starting(record: &Record) -> bool {
    // a clock that was set back makes no record young for long
    record.jid.is_none() && record.since.abs_diff(now()) < STARTING
}

/// Whether half of that time is over: the same again counts from then on only, so that who publishes twice at once changes nothing.
pub(super) fn is_half_over(record: &Record) -> bool {
    record.since.abs_diff(now()) >= STARTING / 2
}

/// The time, in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
