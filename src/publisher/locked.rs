//! The records while the host-wide lock is held.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;

use once_cell::unsync::OnceCell;

use super::facts::Facts;
use super::identity::{earlier_name, is_gone};
use crate::calls::{self, Entry};
use crate::deadline::Deadline;
use crate::error::{Cause, Kind, Result};
use crate::host::Host;
use crate::name::{Anchor, JailName};
use crate::pf::Firewall;
use crate::rules;
use crate::store::{Lock, Record, Store};

/// The state directory, locked, in the current boot: records of another boot are ignored.
pub(super) struct LockedStore<'a> {
    store: &'a Store,
    lock: Lock,
    boot: String,
    /// Those that were read, and have not changed since.
    read: RefCell<BTreeMap<Anchor, Record>>,
}

impl<'a> LockedStore<'a> {
    /// Takes the lock; waits for it until `deadline`. The first call after a boot removes what earlier boots have left.
    pub(super) fn take(
        store: &'a Store,
        host: &dyn Host,
        firewall: &dyn Firewall,
        deadline: Deadline,
    ) -> Result<LockedStore<'a>> {
        let lock = store.lock(deadline)?;
        firewall.locked(lock.as_fd());
        let boot = host.boot_id()?;
        let anchors = OnceCell::new();
        let anchors = || anchors.get_or_init(|| firewall.anchors());
        // an anchor may outlive its rules; those that are noted are read again by each publish
        let has_rules = |child: &String| {
            let anchor = Anchor::from_child(child).filter(|anchor| !store.has(anchor));
            anchor.is_some_and(|anchor| firewall.loaded(&anchor, false).map_or(true, |loaded| !loaded.is_empty()))
        };
        let without_record = || anchors().clone().map(|all| all.into_iter().filter(has_rules).collect());
        store.sweep_after_boot(&lock, &boot, &mut |anchor| is_held(anchors(), anchor), without_record)?;
        Ok(LockedStore { store, lock, boot, read: RefCell::default() })
    }

    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    /// The record of this boot. A file that is not a record is moved aside and noted: it must neither block its jail for good
    /// nor disappear. If the jail was missing when its record was written, the jid is added.
    pub(super) fn record(&self, anchor: &Anchor, facts: &Facts<'_>, notes: &mut Vec<String>) -> Result<Option<Record>> {
        let mut record = match self.store.get(anchor) {
            Ok(record) => record.filter(|r| r.boot == self.boot),
            Err(error) if error.cause() == Some(Cause::DamagedRecord) => {
                let kept = self.store.move_damaged(&self.lock, anchor)?;
                notes.push(format!("{error}; kept as {}", kept.display()));
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(record) = record.as_mut().filter(|record| record.jid.is_none() && !record.no_jail)
            && let Some(jail) = facts.host.running(record.jail.as_str())?
        {
            (record.jid, record.earlier_jid, record.path) = (Some(jail.jid), None, Some(jail.path));
            // if it cannot be written, the next call tries again
            _ = self.put(record);
        }
        self.read.borrow_mut().extend(record.clone().map(|record| (anchor.clone(), record)));
        Ok(record)
    }

    /// See [`to_call`].
    pub(super) fn to_call(&self, firewall: &dyn Firewall, but: Option<&Anchor>) -> Result<Vec<Entry>> {
        to_call(firewall, self.store, &self.boot, but)
    }

    /// The record of this boot, if it can be read; changes nothing.
    pub(super) fn readable(&self, anchor: &Anchor) -> Option<Record> {
        self.store.get(anchor).ok()?.filter(|record| record.boot == self.boot)
    }

    /// The anchors that have a record, of any boot, sorted.
    pub(super) fn anchors(&self) -> Result<Vec<Anchor>> {
        self.store.anchors()
    }

    /// See [`is_gone`].
    pub(super) fn is_gone(&self, host: &dyn Host, record: &Record) -> Result<bool> {
        is_gone(host, self.store, record)
    }

    /// Whether a file of this anchor was moved aside, and has not been removed.
    pub(super) fn is_damaged(&self, anchor: &Anchor) -> Result<bool> {
        self.store.is_damaged(anchor)
    }

    /// See [`earlier_name`].
    pub(super) fn earlier_name(&self, host: &dyn Host, jail: &JailName, jid: Option<i32>) -> Result<Option<JailName>> {
        earlier_name(host, self.store, &self.boot, jail, jid)
    }

    pub(super) fn put(&self, record: &Record) -> Result<()> {
        self.read.borrow_mut().remove(&record.jail.anchor());
        self.store.put(&self.lock, record)
    }

    /// See [`Store::settle`].
    pub(super) fn settle(&self, record: &mut Record) -> Result<()> {
        self.read.borrow_mut().remove(&record.jail.anchor());
        self.store.settle(&self.lock, record)
    }

    /// Removes the claims of `gone` that are not those of `kept`.
    pub(super) fn release(&self, gone: &Record, kept: Option<&Record>) {
        self.store.release(&self.lock, gone, kept);
    }

    /// Removes the record of an anchor; `record` is the one that was there.
    pub(super) fn remove(&self, anchor: &Anchor, record: Option<&Record>) -> Result<()> {
        self.read.borrow_mut().remove(anchor);
        self.store.remove(&self.lock, anchor, record)
    }

    /// Removes what earlier boots and killed processes have left in the state directory.
    pub(super) fn sweep(&self, firewall: &dyn Firewall) {
        let anchors = OnceCell::new();
        let mut held = |anchor: &Anchor| is_held(anchors.get_or_init(|| firewall.anchors()), anchor);
        self.store.sweep(&self.lock, &self.boot, &self.read.borrow(), &mut held);
    }
}

/// What `kport` is to call for all anchors, or for all but one: what their records say. Without a record that can be read, what it
/// calls now, as long as the anchor has rules.
pub(super) fn to_call(firewall: &dyn Firewall, store: &Store, boot: &str, but: Option<&Anchor>) -> Result<Vec<Entry>> {
    let mut all = vec![];
    let mut known: HashSet<String> = but.into_iter().map(|anchor| anchor.child().to_owned()).collect();
    let mut records = store.records()?;
    let mut unreadable = !store.damaged()?.is_empty();
    for anchor in records.anchors()?.iter().filter(|anchor| Some(*anchor) != but) {
        match records.get(anchor) {
            Ok(Some(record)) if record.boot == boot => {
                known.insert(anchor.child().to_owned());
                for publications in [&record.publications, &record.replaces] {
                    all.extend(calls::entries(anchor, &rules::of_all(publications)));
                }
            }
            Ok(_) => {}
            Err(_) => unreadable = true,
        }
    }
    if !unreadable {
        return Ok(all);
    }
    let mut held: HashMap<String, bool> = HashMap::new();
    for entry in firewall.called(None, true)?.unwrap_or_default() {
        let Some(anchor) = Anchor::from_child(&entry.child).filter(|anchor| !known.contains(anchor.child())) else {
            continue;
        };
        if !held.contains_key(&entry.child) {
            held.insert(entry.child.clone(), !firewall.loaded(&anchor, false)?.is_empty());
        }
        if held[&entry.child] {
            all.push(entry);
        }
    }
    Ok(all)
}

/// Whether pf has rules in an anchor, by [`Firewall::anchors`].
fn is_held(anchors: &Result<Vec<String>>, anchor: &Anchor) -> bool {
    match anchors {
        Ok(anchors) => anchors.iter().any(|child| child == anchor.child()),
        // if pf is not available it has none; otherwise the answer is unknown
        Err(error) => error.kind() != Kind::Unavailable,
    }
}
