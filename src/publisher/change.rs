//! From one record to the next one: record, load, verify, end states, settle; or the way back.

use std::collections::{BTreeSet, HashSet};

use super::Phase;
use super::transaction::Transaction;
use crate::error::{Error, Kind, Result};
use crate::name::Anchor;
use crate::net::Family;
use crate::pf::{Firewall, States, Status};
use crate::publication::Redirect;
use crate::readiness;
use crate::rule::Rule;
use crate::rules;
use crate::store::Record;

impl Transaction<'_> {
    /// From one record to the next one: record the wish, load the anchor, verify, settle, end states.
    pub(super) fn change(&mut self, old: Option<&Record>, mut record: Record, allow_inert: bool) -> Result<()> {
        let anchor = record.jail.anchor();
        self.outcome.redirects = record.redirects().copied().collect();
        let wanted = rules::of_all(&record.publications);
        if let Some(old) = old
            && old.replaces.is_empty()
            && old.publications == record.publications
            && old.jid == record.jid
            && let Some(status) = self.firewall.unchanged(&anchor, &wanted)?
        {
            if record.jid.is_none() {
                // another start of the jail may be to come, and counts from now
                self.store.put(&self.lock, &record)?;
            }
            return self.verify(&record, &wanted, status, allow_inert);
        }

        // states outlive their rules
        record.mapping_labels &= old.is_none_or(|old| old.mapping_labels);
        self.observer.phase(Phase::Record)?;
        record.replaces = old.iter().flat_map(|old| old.possible()).cloned().collect();
        if let Err(error) = self.store.put(&self.lock, &record) {
            // the claims may stand already; the record does not
            self.forget_claims(&record, old);
            return Err(error);
        }

        let loaded = self
            .observer
            .phase(Phase::Load)
            .and_then(|()| self.firewall.replace(&anchor, &wanted))
            .map_err(|error| (error, false))
            .and_then(|()| {
                self.observer
                    .phase(Phase::Verify)
                    .and_then(|()| self.verify(&record, &wanted, self.firewall.status()?, allow_inert))
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
                    "published, but connections of ports that are not published any more go on ({error}); publish again \
                     to end them"
                ));
                return Ok(());
            }
        }
        if !record.replaces.is_empty() {
            let settled = self.observer.phase(Phase::Settle).and_then(|()| self.settle(&mut record));
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
    fn verify(&mut self, record: &Record, wanted: &[Rule], status: Status, allow_inert: bool) -> Result<()> {
        match self.verify_strictly(record, wanted, status) {
            Err(error) if allow_inert && error.kind() == Kind::Unavailable => {
                self.note(format!("loaded, but without effect for now: {error}"));
                Ok(())
            }
            other => other,
        }
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
        let before = old.map(|o| rules::of_all(&o.publications)).unwrap_or_default();
        // see Firewall::replace; when the time is up, nothing could be asked anyway
        let sure = !after_load && !matches!(error.kind(), Kind::System | Kind::Internal);
        if !sure {
            let untouched = !after_load
                && before != rules::of_all(&record.publications)
                && self.firewall.holds(anchor, &before).is_ok_and(|holds| holds);
            if !untouched && let Err(again) = self.firewall.replace(anchor, &before) {
                return error.and(format!(
                    "and {anchor} could not be brought back to what it held ({again}): it holds the old or the new set; \
                     publish again, or unpublish"
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

/// The states of redirects that are not published any more.
pub(super) fn gone(record: &Record, firewall: &dyn Firewall) -> Vec<States> {
    let kept: HashSet<&Redirect> = record.redirects().collect();
    let before = record.replaces.iter().flat_map(|p| &p.redirects).filter(|r| !kept.contains(r));
    let jail = record.jail.label();
    // a backend that tells mappings by their labels, and states that have none: all of the jail's, rather than one too few
    let all = firewall.labels_mappings() && !record.mapping_labels;
    let states: BTreeSet<States> = before
        .map(|r| match all {
            true => States::Jail { label: jail.clone() },
            false => States::Mapping {
                jail: jail.clone(),
                label: record.jail.mapping_label(r.protocol, r.host),
                protocol: r.protocol,
                host: r.host,
            },
        })
        .collect();
    states.into_iter().collect()
}
