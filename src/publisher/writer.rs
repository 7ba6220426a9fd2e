//! Changes pf and the records while the host-wide lock is held, and collects the outcome.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::AsFd;

use super::states::targets;
use super::survey::{Outdated, Survey};
use super::{Outcome, Phase};
use crate::calls::{self, Change, Entry};
use crate::error::{Cause, Error, Kind, Result};
use crate::name::{Anchor, Label};
use crate::pf::States;
use crate::publication::Publication;
use crate::rule::Rule;
use crate::rules;
use crate::store::{Lock, Record};

/// A sysctl that exists while pf(4) is loaded.
const SYSCTL_OF_PF: &str = "net.pf.request_maxcount";

/// One transaction: a call that changes something, from the lock to its outcome.
pub(super) struct Writer<'a> {
    pub(super) survey: &'a Survey<'a>,
    lock: Lock,
    /// The records that were read, and have not changed since.
    read: RefCell<BTreeMap<Anchor, Record>>,
    pub(super) outcome: Outcome,
}

impl<'a> Writer<'a> {
    /// Takes the lock. The first call after a boot removes what earlier boots have left.
    pub(super) fn begin(survey: &'a Survey<'a>) -> Result<Writer<'a>> {
        survey.observer.phase(Phase::Lock)?;
        let Survey { store, firewall, ref boot, .. } = *survey;
        let lock = store.lock(survey.deadline)?;
        firewall.locked(lock.as_fd());
        let anchors = OnceCell::new();
        let anchors = || anchors.get_or_init(|| firewall.anchors());
        // an anchor may outlive its rules; those that are noted are read again by each publish
        let has_rules = |child: &String| {
            let anchor = Anchor::from_child(child).filter(|anchor| !store.has(anchor));
            anchor.is_some_and(|anchor| firewall.loaded(&anchor, false).map_or(true, |loaded| !loaded.is_empty()))
        };
        let without_record = || anchors().clone().map(|all| all.into_iter().filter(has_rules).collect());
        store.sweep_after_boot(&lock, boot, &mut |anchor| is_held(anchors(), anchor), without_record)?;
        Ok(Writer { survey, lock, read: RefCell::default(), outcome: Outcome::default() })
    }

    /// The outcome. An error has no notes, but they may also concern other jails, or a file that was moved aside: they are
    /// added to its text.
    pub(super) fn finish(self, result: Result<()>) -> Result<Outcome> {
        let notes = self.survey.notes.take();
        match result {
            Ok(()) => Ok(Outcome { notes, ..self.outcome }),
            Err(error) if notes.is_empty() => Err(error),
            Err(error) => Err(error.and(format_args!("noted: {}", notes.join("; ")))),
        }
    }

    /// The record of this boot. A file that is not a record is moved aside and noted: it must neither block its jail for good
    /// nor disappear. If the jail was missing when its record was written, the jid is added.
    pub(super) fn record(&self, anchor: &Anchor) -> Result<Option<Record>> {
        let Survey { host, store, ref boot, .. } = *self.survey;
        let mut record = match store.get(anchor) {
            Ok(record) => record.filter(|r| r.boot == *boot),
            Err(error) if error.cause() == Some(Cause::DamagedRecord) => {
                let kept = store.move_damaged(&self.lock, anchor)?;
                self.survey.note(format!("{error}; kept as {}", kept.display()));
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(record) = record.as_mut().filter(|record| record.jid.is_none() && !record.no_jail)
            && let Some(jail) = host.running(record.jail.as_str())?
        {
            (record.jid, record.earlier_jid, record.path) = (Some(jail.jid), None, Some(jail.path));
            // if it cannot be written, the next call tries again
            _ = self.put(record);
        }
        self.read.borrow_mut().extend(record.clone().map(|record| (anchor.clone(), record)));
        Ok(record)
    }

    pub(super) fn put(&self, record: &Record) -> Result<()> {
        self.read.borrow_mut().remove(&record.jail.anchor());
        self.survey.store.put(&self.lock, record)
    }

    pub(super) fn settle(&self, record: &mut Record) -> Result<()> {
        self.read.borrow_mut().remove(&record.jail.anchor());
        self.survey.store.settle(&self.lock, record)
    }

    pub(super) fn release(&self, gone: &Record, kept: Option<&Record>) {
        self.survey.store.release(&self.lock, gone, kept);
    }

    pub(super) fn remove(&self, anchor: &Anchor, record: Option<&Record>) -> Result<()> {
        self.read.borrow_mut().remove(anchor);
        self.survey.store.remove(&self.lock, anchor, record)
    }

    pub(super) fn sweep(&self) {
        let Survey { store, firewall, ref boot, .. } = *self.survey;
        let anchors = OnceCell::new();
        let mut held = |anchor: &Anchor| is_held(anchors.get_or_init(|| firewall.anchors()), anchor);
        store.sweep(&self.lock, boot, &self.read.borrow(), &mut held);
    }

    /// Removes what is in the way of a publication, and notes it.
    pub(super) fn drop_outdated(&mut self, anchor: &Anchor, outdated: Outdated) -> Result<()> {
        self.drop_anchor(anchor, outdated.record.as_ref())?;
        self.survey.note(outdated.note);
        Ok(())
    }

    /// Ends the states of [`states::from_before`](super::states::from_before), and notes how many. The ports are published
    /// anyway.
    pub(super) fn end_from_before(&mut self, states: &[States]) {
        const THEY: &str = "that reached the host itself at these ports before they were redirected";
        match if states.is_empty() { Ok(0) } else { self.survey.firewall.kill_states(states) } {
            Ok(0) => {}
            // on macOS, whose pf does not end states by themselves
            Err(error) if error.kind() == Kind::Unsupported => {}
            Ok(ended) => {
                self.outcome.killed += ended;
                self.survey.note(format!("ended the states of connections {THEY}: {ended}"));
            }
            Err(error) => self.survey.note(format!(
                "published, but connections {THEY} stay there as long as they last ({error}); unpublish and publish again to \
                 end them"
            )),
        }
    }

    /// Lets `kport` call an anchor for its new rules instead of the earlier ones; then, in any case, for those of its record.
    pub(super) fn call(&self, anchor: &Anchor, before: &[Rule], after: &[Rule]) -> Result<bool> {
        let change = Change::new(anchor, before, after);
        self.survey.firewall.call(Some(&change), &mut || {
            let mut all = to_call(self.survey, Some(anchor))?;
            all.extend_from_slice(&change.added);
            Ok(all)
        })
    }

    /// Makes pf's calls those of all records.
    pub(super) fn call_all(&mut self) -> Result<()> {
        if self.survey.firewall.call(None, &mut || to_call(self.survey, None))? {
            self.outcome.changed = true;
            self.survey.note("the calls of kport's anchors: loaded again".to_owned());
        }
        Ok(())
    }

    /// Clears an anchor, ends its states, and only then removes its calls and its record.
    pub(super) fn drop_anchor(&mut self, anchor: &Anchor, record: Option<&Record>) -> Result<()> {
        let survey = self.survey;
        // if pf is not loaded, it has no rules; its device may be hidden although it is (devfs(8))
        let absent = |error: &Error| {
            error.kind() == Kind::Unavailable && !matches!(survey.host.sysctl(SYSCTL_OF_PF), Ok(Some(_)))
        };
        let mut errors = vec![];
        match survey.observer.phase(Phase::Load).and_then(|()| survey.firewall.clear(anchor)) {
            Ok(cleared) => self.outcome.changed |= cleared,
            Err(error) if absent(&error) => self.survey.note(format!("pf has nothing to clear: {error}")),
            Err(error) if error.kind() == Kind::Unavailable => {
                let why = "pf is loaded, so it may still have the rules: make /dev/pf visible here (devfs(8)), and unpublish again";
                return Err(Error::new(Kind::Permission, error.to_string()).and(why));
            }
            Err(error) => errors.push(error),
        }
        let targets = record.map(targets).unwrap_or_default();
        let all = [States { jail: Some(Label::of_anchor(anchor)), at: targets, ..States::default() }];
        match survey.observer.phase(Phase::Kill).and_then(|()| survey.firewall.kill_states(&all)) {
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
            let forgotten = survey.observer.phase(Phase::Settle).and_then(|()| self.remove(anchor, record));
            errors.extend(forgotten.err());
        }
        Error::all(errors)
    }
}

/// What `kport` is to call for all anchors, or for all but one: what their records say. Without a record that can be read, what it
/// calls now, as long as the anchor has rules.
fn to_call(survey: &Survey<'_>, but: Option<&Anchor>) -> Result<Vec<Entry>> {
    let Survey { store, firewall, ref boot, .. } = *survey;
    let mut all = vec![];
    let mut known: HashSet<String> = but.into_iter().map(|anchor| anchor.child().to_owned()).collect();
    let mut records = store.records()?;
    let mut unreadable = !store.damaged()?.is_empty();
    for anchor in records.anchors()?.iter().filter(|anchor| Some(*anchor) != but) {
        match records.get(anchor) {
            Ok(Some(record)) if record.boot == *boot => {
                known.insert(anchor.child().to_owned());
                for publications in [&record.publications, &record.replaces] {
                    all.extend(calls::entries(anchor, &rules::of_all(publications)));
                }
            }
            Ok(_) => {}
            Err(_) => unreadable = true,
        }
    }
    if unreadable {
        let held = firewall.anchors()?;
        let mut called = firewall.called(None, true)?.unwrap_or_default();
        called.retain(|entry| held.contains(&entry.child) && !known.contains(&entry.child));
        all.extend(called);
    }
    Ok(all)
}

/// Whether pf has rules in an anchor, by `Firewall::anchors`.
fn is_held(anchors: &Result<Vec<String>>, anchor: &Anchor) -> bool {
    match anchors {
        Ok(anchors) => anchors.iter().any(|child| child == anchor.child()),
        // if pf is not available it has none; otherwise the answer is unknown
        Err(error) => error.kind() != Kind::Unavailable,
    }
}
