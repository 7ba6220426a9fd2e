//! From one record to the next one: record, load, verify, end states, settle; on an error, undo.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::Phase;
use super::facts::Facts;
use super::starting::is_half_over;
use super::states;
use super::verify::Verification;
use super::writer::Writer;
use crate::calls;
use crate::error::{Error, Kind, Result};
use crate::name::Anchor;
use crate::options::Options;
use crate::publication::{Publication, Redirect};
use crate::rules;
use crate::store::Record;

/// What is reserved for checking the result of a load, but at most a third of the remaining time.
const RESERVED: Duration = Duration::from_secs(5);

/// The time for undoing after the deadline: a port of a failed change must not stay open.
const GRACE: Duration = Duration::from_secs(10);

/// From one record to the next one: record the change, load the anchor, verify, end states, settle.
pub(super) fn change(
    writer: &mut Writer<'_>,
    old: Option<&Record>,
    mut record: Record,
    verification: &Verification<'_>,
) -> Result<()> {
    let (firewall, progress) = (writer.firewall, writer.progress);
    let anchor = record.jail.anchor();
    writer.outcome.redirects = record.redirects().copied().collect();
    let wanted = rules::of_all(&record.publications);
    // states remain when their rules are removed
    record.mapping_labels &= old.is_none_or(|old| old.mapping_labels);
    if let Some(old) = old
        && old.replaces.is_empty()
        && old.publications == record.publications
        && old.jid == record.jid
        && let Some(status) = firewall.unchanged(&anchor, &wanted)?
    {
        let restarts = record.jid.is_none()
            && !record.no_jail
            && (is_half_over(writer.host, old)? || old.earlier_jid != record.earlier_jid);
        // another start of the jail may follow, and its time starts now
        if restarts || old.reported != record.reported || old.requested != record.requested {
            writer.store.put(&record)?;
        }
        // a change that was killed may have left out its calls, and a flush takes them
        let entries = calls::entries(&anchor, &wanted);
        let called = firewall.called(Some(&entries), false)?;
        if called.is_some_and(|called| !entries.iter().all(|entry| calls::covers(&called, entry))) {
            writer.outcome.changed |= writer.call(&anchor, &[], &wanted)?;
        }
        let all = firewall.remembers();
        return verification.verify(&record, &wanted, status, all, &mut writer.outcome.notes);
    }

    // whose redirects pf certainly has
    let known = old.filter(|old| old.replaces.is_empty() && old.publications != record.publications);
    let before = states::from_before(&record, known, verification.facts)?;
    progress.phase(Phase::Record)?;
    record.replaces = old.map(replaced).unwrap_or_default();
    if !before.is_empty() && record.replaces.is_empty() {
        // nothing is replaced, but the next call is to end them if this one is killed
        let (jail, options) = (record.jail.clone(), Options::default());
        record.replaces.push(Publication { jail, options, redirects: vec![], via: BTreeMap::new(), answers: vec![] });
    }
    if let Err(error) = writer.store.put(&record) {
        // the claims may be written already; the record is not
        writer.store.release(&record, old);
        return Err(error);
    }

    firewall.set_deadline(progress.deadline.reserving(RESERVED, 3));
    let loaded = progress.phase(Phase::Load).and_then(|()| firewall.replace(&anchor, &wanted));
    let before_rules = rules::of_all(&record.replaces);
    let called = loaded.map(|()| writer.call(&anchor, &before_rules, &wanted));
    firewall.set_deadline(progress.deadline);
    match called {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(roll_back(writer, &anchor, &record, old, error, Some(verification.facts))),
        Err(error) => return Err(roll_back(writer, &anchor, &record, old, error, None)),
    }
    let notes = &mut writer.outcome.notes;
    let verified = progress
        .phase(Phase::Verify)
        .and_then(|()| verification.verify(&record, &wanted, firewall.status()?, true, notes));
    if let Err(error) = verified {
        return Err(roll_back(writer, &anchor, &record, old, error, Some(verification.facts)));
    }
    writer.outcome.changed = true;

    // From here on the jail is published: a failure is noted, not undone. The record keeps the old set until its
    // states are ended, so that the next call does what this one could not.
    let gone = states::to_end(&record, firewall.labels_mappings(), verification.facts);
    let ended = match gone.is_empty() && before.is_empty() {
        true => Ok(0),
        false => progress.phase(Phase::Kill).and_then(|()| firewall.kill_states(&gone)),
    };
    match ended {
        Ok(killed) => writer.outcome.killed = killed,
        Err(error) => {
            writer.note(format!(
                "published, but connections that are no longer allowed continue ({error}); publish again to end them"
            ));
            return Ok(());
        }
    }
    writer.end_from_before(&before);
    if !record.replaces.is_empty() {
        let settled = progress.phase(Phase::Settle).and_then(|()| writer.store.settle(&mut record));
        // the jid of an earlier start is not among what is replaced
        if let (Ok(()), Some(old)) = (&settled, old.filter(|old| old.jid != record.jid)) {
            writer.store.release(old, Some(&record));
        }
        if let Err(error) = settled {
            writer.note(format!(
                "published, but the record still has the previous set as well ({error}); publish again to correct that"
            ));
        }
    }
    Ok(())
}

/// After a failed load or, with `loaded`, after what failed later: restores pf and the record, or returns an error that says what is
/// left.
fn roll_back(
    writer: &Writer<'_>,
    anchor: &Anchor,
    record: &Record,
    old: Option<&Record>,
    error: Error,
    loaded: Option<&Facts<'_>>,
) -> Error {
    let Writer { firewall, store, progress, .. } = writer;
    firewall.set_deadline(progress.deadline.later(GRACE));
    let before = old.map(|o| rules::of_all(&o.publications)).unwrap_or_default();
    let failed = rules::of_all(&record.publications);
    // see Firewall::replace
    let sure = loaded.is_none() && !matches!(error.kind(), Kind::System | Kind::Internal);
    let untouched = || loaded.is_none() && before != failed && firewall.holds(anchor, &before).is_ok_and(|holds| holds);
    if !sure && !untouched() {
        // from here on pf is to have the old set, whatever fails next: the new set is not loaded later
        let back = way_back(record, old);
        _ = store.put(&back);
        let restored = firewall.replace(anchor, &before).and_then(|()| writer.call(anchor, &failed, &before));
        if let Err(again) = restored {
            return error.and(format!(
                "and {anchor} could not be restored ({again}): it has the old or the new set; \
                 run kport apply for the old one, or publish again, or unpublish"
            ));
        }
        let ended = loaded.map(|facts| firewall.kill_states(&states::to_end(&back, firewall.labels_mappings(), facts)));
        if let Some(Err(again)) = ended {
            return error
                .and(format!("and connections that came meanwhile continue ({again}); publish again, or unpublish"));
        }
    }
    let restored = match old {
        Some(old) => store.put(old),
        None => store.remove(anchor, Some(record)),
    };
    if let Err(again) = restored {
        return error.and(format!("and the record could not be restored ({again}); publish again, or unpublish"));
    }
    store.release(record, old);
    error
}

/// The record of a change that is being undone: pf is to have what was published, and may have what failed.
fn way_back(record: &Record, old: Option<&Record>) -> Record {
    let (publications, before) = old.map(|old| (old.publications.clone(), replaced(old))).unwrap_or_default();
    let replaces = replaced(&Record { replaces: before, ..record.clone() });
    let requested = old.map(|old| old.requested.clone()).unwrap_or_default();
    Record { publications, replaces, requested, mapping_labels: record.mapping_labels, ..old.unwrap_or(record).clone() }
}

/// What pf, or the states, may still have when `old` is replaced. Each redirect with its options is listed once, even if a
/// change was interrupted several times: the record must not grow with each attempt.
pub(super) fn replaced(old: &Record) -> Vec<Publication> {
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
