//! From one record to the next one: record, load, verify, end states, settle; or the way back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::Phase;
use super::transaction::{Transaction, is_half_over};
use crate::error::{Error, Kind, Problem, Result};
use crate::name::Anchor;
use crate::net::Family;
use crate::options::Options;
use crate::pf::{Firewall, States, Status};
use crate::publication::{Publication, Redirect};
use crate::readiness::{self, Surroundings};
use crate::rule::Rule;
use crate::rules;
use crate::store::Record;

/// Of the time that is left before a load, what is kept for looking at its result: this, and no more than a third.
const RESERVED: Duration = Duration::from_secs(5);

/// What a way back may take, though the time is up: what failed must not stay open.
const GRACE: Duration = Duration::from_secs(10);

impl Transaction<'_> {
    /// From one record to the next one: record the wish, load the anchor, verify, settle, end states.
    pub(super) fn change(&mut self, old: Option<&Record>, mut record: Record, allow_inert: bool) -> Result<()> {
        let anchor = record.jail.anchor();
        self.outcome.redirects = record.redirects().copied().collect();
        let wanted = rules::of_all(&record.publications);
        // states outlive their rules
        record.mapping_labels &= old.is_none_or(|old| old.mapping_labels);
        if let Some(old) = old
            && old.replaces.is_empty()
            && old.publications == record.publications
            && old.jid == record.jid
            && let Some(status) = self.firewall.unchanged(&anchor, &wanted)?
        {
            if record.jid.is_none() && (is_half_over(old) || old.earlier_jid != record.earlier_jid) {
                // another start of the jail may be to come, and counts from now
                self.store.put(&self.lock, &record)?;
            }
            return self.verify(&record, &wanted, status, allow_inert, self.firewall.remembers());
        }

        self.observer.phase(Phase::Record)?;
        record.replaces = old.map(replaced).unwrap_or_default();
        if let Err(error) = self.store.put(&self.lock, &record) {
            // the claims may stand already; the record does not
            self.forget_claims(&record, old);
            return Err(error);
        }

        self.firewall.set_deadline(self.deadline.reserving(RESERVED, 3));
        let loaded = self
            .observer
            .phase(Phase::Load)
            .and_then(|()| self.firewall.replace(&anchor, &wanted))
            .map_err(|error| (error, false));
        self.firewall.set_deadline(self.deadline);
        let loaded = loaded.and_then(|()| {
            self.observer
                .phase(Phase::Verify)
                .and_then(|()| self.verify(&record, &wanted, self.firewall.status()?, allow_inert, true))
                .map_err(|error| (error, true))
        });
        if let Err((error, after_load)) = loaded {
            return Err(self.roll_back(&anchor, &record, old, error, after_load));
        }
        self.outcome.changed = true;

        // From here on the jail is published: what fails now is noted, not undone. The record names the old set until its
        // states are ended, so that the next call does what this one could not.
        let gone = gone(&record, self.firewall);
        let ended = if gone.is_empty() {
            Ok(0)
        } else {
            self.observer.phase(Phase::Kill).and_then(|()| self.firewall.kill_states(&gone))
        };
        match ended {
            Ok(killed) => self.outcome.killed = killed,
            Err(error) => {
                self.note(format!(
                    "published, but connections that are not allowed any more go on ({error}); publish again to end them"
                ));
                return Ok(());
            }
        }
        if !record.replaces.is_empty() {
            let settled = self.observer.phase(Phase::Settle).and_then(|()| self.settle(&mut record));
            if let (Ok(()), Some(old)) = (&settled, old) {
                // its number, which may be that of an earlier start
                self.store.release(&self.lock, old, Some(&record));
            }
            if let Err(error) = settled {
                self.note(format!(
                    "published, but the record still names the set before, too ({error}); publish again to set that right"
                ));
            }
        }
        Ok(())
    }

    /// Records that the publication is all that pf has.
    pub(super) fn settle(&self, record: &mut Record) -> Result<()> {
        let settled = Record { replaces: vec![], ..record.clone() };
        self.store.put(&self.lock, &settled)?;
        self.store.release(&self.lock, record, Some(&settled));
        *record = settled;
        Ok(())
    }

    /// Whether pf will look at the rules: it runs, its main ruleset calls our anchors, and packets are forwarded.
    /// With `all` it is noted, too, what of it nobody reaches.
    fn verify(&mut self, record: &Record, wanted: &[Rule], status: Status, allow_inert: bool, all: bool) -> Result<()> {
        match self.verify_strictly(record, wanted, status) {
            Err(error) if allow_inert && error.kind() == Kind::Unavailable => {
                self.note(format!("loaded, but without effect for now: {error}"));
                Ok(())
            }
            Ok(()) => {
                if all {
                    self.note_dead(record);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Says what of it nobody reaches.
    fn note_dead(&mut self, record: &Record) {
        match self.dead(record) {
            Ok(problems) => problems.iter().for_each(|problem| self.note(problem.to_string())),
            // the ports are published all the same
            Err(error) => self.observer.detail(&format!("whether anything arrives is not known: {error}")),
        }
    }

    /// What of it nobody reaches, though pf evaluates the rules.
    fn dead(&self, record: &Record) -> Result<Vec<Problem>> {
        // where no packet is redirected anyway, as on a Linux that somebody tries kport out on, em0 need not be there
        if !self.firewall.redirects_packets() && !self.host.is_played() {
            return Ok(vec![]);
        }
        let rulesets = match self.firewall.main_ruleset() {
            Ok(main) => vec![(String::new(), main)],
            Err(error) if error.kind() == Kind::Unsupported => vec![],
            Err(error) => return Err(error),
        };
        let around = Surroundings { host: self.host, interfaces: self.facts.interfaces()?, rulesets: &rulesets };
        readiness::of_jail(&around, &record.publications)
    }

    fn verify_strictly(&self, record: &Record, wanted: &[Rule], status: Status) -> Result<()> {
        let needs_nat = wanted.iter().any(|r| matches!(r, Rule::Nat { .. }));
        let mut problem = readiness::disabled(&status).or_else(|| readiness::uncalled(&status, needs_nat));
        for family in Family::ALL {
            if problem.is_none() {
                problem = readiness::unforwarded(self.host, family, record.redirects(), || self.facts.interfaces())?;
            }
        }
        if problem.is_none() && record.publications.iter().any(|p| p.options.host_access) {
            problem = readiness::unfiltered(self.host, &record.jail.mention())?;
        }
        problem.map_or(Ok(()), |problem| Err(problem.error(Kind::Unavailable)))
    }

    /// After a failed load or verification: pf and the record as they were, or an error that says what is left.
    fn roll_back(
        &self,
        anchor: &Anchor,
        record: &Record,
        old: Option<&Record>,
        error: Error,
        after_load: bool,
    ) -> Error {
        self.firewall.set_deadline(self.deadline.later(GRACE));
        let before = old.map(|o| rules::of_all(&o.publications)).unwrap_or_default();
        // see Firewall::replace
        let sure = !after_load && !matches!(error.kind(), Kind::System | Kind::Internal);
        let untouched = || {
            !after_load
                && before != rules::of_all(&record.publications)
                && self.firewall.holds(anchor, &before).is_ok_and(|holds| holds)
        };
        if !sure && !untouched() {
            // from here on it is the old set that is to be in pf, whatever happens on the way: what failed is not made
            // good later
            let back = way_back(record, old);
            _ = self.store.put(&self.lock, &back);
            if let Err(again) = self.firewall.replace(anchor, &before) {
                return error.and(format!(
                    "and {anchor} could not be brought back to what it held ({again}): it holds the old or the new set; \
                     kport restore brings the old one back, or publish again, or unpublish"
                ));
            }
        }
        let restored = match old {
            Some(old) => self.store.put(&self.lock, old),
            None => self.store.remove(&self.lock, anchor, Some(record)),
        };
        if let Err(again) = restored {
            return error
                .and(format!("and the record could not be brought back ({again}); publish again, or unpublish"));
        }
        self.forget_claims(record, old);
        error
    }

    fn forget_claims(&self, record: &Record, old: Option<&Record>) {
        self.store.release(&self.lock, record, old);
    }
}

/// The record of a change that is being undone: what was published is to be in pf, and what failed may be there.
fn way_back(record: &Record, old: Option<&Record>) -> Record {
    let (publications, before) = old.map(|old| (old.publications.clone(), replaced(old))).unwrap_or_default();
    let replaces = replaced(&Record { replaces: before, ..record.clone() });
    Record { publications, replaces, mapping_labels: record.mapping_labels, ..old.unwrap_or(record).clone() }
}

/// The states to end: of redirects that are not published any more, or not for everybody any more who could use them, and
/// of what asked the jail's own address by the reach list.
pub(super) fn gone(record: &Record, firewall: &dyn Firewall) -> Vec<States> {
    let now = record.publications.iter().flat_map(|p| p.redirects.iter().map(move |r| (r, &p.options)));
    let now: HashMap<&Redirect, &Options> = now.collect();
    let before = record.replaces.iter().flat_map(|p| p.redirects.iter().map(move |r| (r, &p.options)));
    let gone = before.filter(|(r, before)| !now.get(r).is_some_and(|now| now.allows_all_of(before)));
    let jail = record.jail.label();
    let none_stays = record.replaces.iter().flat_map(|p| &p.redirects).all(|r| !now.contains_key(r));
    // one call for all of the jail's where nothing of what was there stays; and where the backend tells mappings by their
    // labels, and there are states that have none: rather all than one too few
    let all = none_stays || firewall.labels_mappings() && !record.mapping_labels;
    // what asks the jail directly has the mapping's label, where there is one, and the jail's port
    let direct = |r: &Redirect| (r.protocol, r.target, r.jail);
    let reached: HashMap<_, &Options> = now.iter().map(|(r, options)| (direct(r), *options)).collect();
    let mut states = BTreeSet::new();
    for (r, before) in gone {
        if all {
            states.insert(States::Jail { label: jail.clone() });
            continue;
        }
        let label = record.jail.mapping_label(r.protocol, r.host);
        let mapping =
            |ports| States::Mapping { jail: jail.clone(), label: label.clone(), protocol: r.protocol, host: ports };
        states.insert(mapping(r.host));
        let may = |now: &&Options| before.reach.iter().all(|interface| now.reach.contains(interface));
        if !firewall.labels_mappings() && !before.reach.is_empty() && !reached.get(&direct(r)).is_some_and(may) {
            states.insert(mapping(r.jail));
        }
    }
    states.into_iter().collect()
}

/// What may be in pf, or live on in states, when `old` is replaced. Each redirect with its options once, however often a
/// change was cut off: what is recorded must not grow with each try.
fn replaced(old: &Record) -> Vec<Publication> {
    let mut all = old.publications.clone();
    for publication in &old.replaces {
        match all.iter_mut().find(|known| known.options == publication.options) {
            Some(known) => {
                let there: HashSet<Redirect> = known.redirects.iter().copied().collect();
                known.redirects.extend(publication.redirects.iter().filter(|r| !there.contains(r)));
                known.via.extend(publication.via.iter().map(|(target, interface)| (*target, *interface)));
            }
            None => all.push(publication.clone()),
        }
    }
    all
}
