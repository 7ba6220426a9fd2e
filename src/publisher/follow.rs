//! Makes what a jail has published what its requests say now.

use std::net::IpAddr;

use super::Request;
use super::addresses::check_no_jail;
use super::change::{change, replaced};
use super::check::check;
use super::facts::Facts;
use super::identity::is_gone;
use super::others::Outdated;
use super::requested;
use super::resolve::{Resolved, resolve};
use super::restore::restore_one;
use super::transaction::Transaction;
use super::verify::Verification;
use super::writer::Writer;
use crate::error::{Cause, Error, Kind, Result};
use crate::host::{Host, Jail};
use crate::name::{Anchor, JailName};
use crate::pf::Firewall;
use crate::publication::Redirect;
use crate::rules;
use crate::store::{Record, Store};

/// What is recorded for one jail.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The jail.
    pub jail: JailName,
    /// Whether the jail is gone, so that its ports are to be removed.
    pub gone: bool,
    /// What was requested for it.
    pub requests: Vec<Request>,
    /// What should be published.
    pub redirects: Vec<Redirect>,
}

/// See [`Publisher::recorded`](super::Publisher::recorded).
pub(super) fn recorded(host: &dyn Host, store: &Store) -> Result<Vec<Recorded>> {
    let boot = host.boot_id()?;
    let mut records = store.records()?;
    let mut found = vec![];
    for anchor in records.anchors()? {
        let record = match records.get(&anchor) {
            Ok(Some(record)) if record.boot == boot => record,
            Ok(_) => continue,
            Err(error) if matches!(error.kind(), Kind::Unsupported) || error.cause() == Some(Cause::DamagedRecord) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        found.push(Recorded {
            gone: is_gone(host, store, &record)?,
            requests: requests_of(&record)?,
            redirects: record.redirects().copied().collect(),
            jail: record.jail,
        });
    }
    Ok(found)
}

/// See [`Publisher::redirects`](super::Publisher::redirects).
pub(super) fn redirects(host: &dyn Host, store: &Store, jail: &JailName) -> Result<Vec<Redirect>> {
    Ok(current(host, store, jail)?.map_or(vec![], |record| record.redirects().copied().collect()))
}

/// Whether pf does not have what the record of a jail says.
pub(super) fn is_lost(host: &dyn Host, firewall: &dyn Firewall, store: &Store, jail: &JailName) -> Result<bool> {
    let Some(record) = current(host, store, jail)? else { return Ok(false) };
    // a change that is under way, or was interrupted, is not judged by its rules
    let interrupted = !record.replaces.is_empty();
    let wanted = rules::of_all(&record.publications);
    Ok(interrupted || !firewall.still_holds(&jail.anchor(), &wanted)?)
}

/// The record of this boot, if it can be read.
fn current(host: &dyn Host, store: &Store, jail: &JailName) -> Result<Option<Record>> {
    let boot = host.boot_id()?;
    Ok(store.get(&jail.anchor()).ok().flatten().filter(|record| record.boot == boot))
}

fn requests_of(record: &Record) -> Result<Vec<Request>> {
    record.requested.iter().map(|one| requested::request(one, &record.jail, record.no_jail)).collect()
}

/// See [`Publisher::follow`](super::Publisher::follow).
pub(super) fn follow(transaction: &mut Transaction<'_>, jail: &JailName, configured: Option<&[Request]>) -> Result<()> {
    let Transaction { survey, writer } = transaction;
    let facts = &survey.facts;
    let anchor = jail.anchor();
    let mut old = writer.record(&anchor, facts)?;
    if let Some(record) = &old
        && writer.store.is_gone(facts.host, record)?
    {
        writer.drop_outdated(&anchor, &Outdated::Gone(Box::new(record.clone())))?;
        old = None;
    }
    let requests = requests(old.as_ref(), configured)?;
    let there = facts.host.running(jail.as_str())?;
    let Some(first) = requests.first() else {
        return match &old {
            None => Ok(()),
            // it is not known how these were made
            Some(record) if record.requested.is_empty() => restore(writer, facts, &anchor),
            Some(record) => writer.drop_anchor(&anchor, jail.label(), Some(record)),
        };
    };
    if there.is_none() && !first.no_jail {
        // nothing, or published before the jail has started
        return if old.is_some() { restore(writer, facts, &anchor) } else { Ok(()) };
    }
    let notes = &mut writer.outcome.notes;
    let resolved = requests
        .iter()
        .try_for_each(|request| check_no_jail(request, first.no_jail))
        .and_then(|()| resolve(survey, &requests, old.as_ref(), notes))
        .and_then(|resolved| {
            // what is published already was checked then
            let resolved = Resolved { adds: old.is_some(), ..resolved };
            check(survey, &requests, old.as_ref(), &resolved, notes).map(|()| resolved)
        });
    let resolved = match (resolved, &old) {
        (Ok(resolved), _) => resolved,
        (Err(error), None) => return Err(error),
        (Err(error), Some(record)) => return Err(kept(writer, facts, there.as_ref(), record, error)),
    };
    for (anchor, outdated) in survey.others.outdated() {
        writer.drop_outdated(&anchor, &outdated)?;
    }
    let Resolved { jid, path, earlier_jid, reported, publications, .. } = resolved;
    let requested = requests.iter().map(requested::of).collect();
    let no_jail = first.no_jail;
    let record =
        Record { path, earlier_jid, no_jail, reported, requested, ..writer.record_of(jail, jid, publications)? };
    if let Some(old) = &old
        && old.publications == record.publications
        && !writer.firewall.still_holds(&anchor, &rules::of_all(&record.publications))?
    {
        // a flush, which a change need not see
        restore_one(writer, facts, &anchor)?;
    }
    let allow_inert = requests.iter().all(|request| request.allow_inert);
    change(writer, old.as_ref(), record, &Verification { facts, allow_inert, thorough: false })
}

/// Loads what is recorded, and its calls.
fn restore(writer: &mut Writer<'_>, facts: &Facts<'_>, anchor: &Anchor) -> Result<()> {
    restore_one(writer, facts, anchor)?;
    writer.call_all()
}

/// The requests by hand that are recorded, then the configured ones.
fn requests(old: Option<&Record>, configured: Option<&[Request]>) -> Result<Vec<Request>> {
    let recorded = old.map(requests_of).transpose()?.unwrap_or_default();
    let Some(configured) = configured else { return Ok(recorded) };
    let (lines, mut all): (Vec<Request>, Vec<Request>) = recorded.into_iter().partition(|request| request.configured);
    for request in configured {
        let mut request = request.clone();
        // those that the manager gave to the hook
        if request.addresses.is_empty()
            && let Some(known) =
                lines.iter().find(|line| request.is_same(&Request { addresses: vec![], ..(*line).clone() }))
        {
            request.addresses.clone_from(&known.addresses);
        }
        all.push(request);
    }
    Ok(all)
}

/// After an error, what is published stays, and is loaded if pf lost it; but not if it leads to an address that the jail does not
/// have any more: somebody else may get it.
fn kept(writer: &mut Writer<'_>, facts: &Facts<'_>, there: Option<&Jail>, record: &Record, error: Error) -> Error {
    let anchor = record.jail.anchor();
    let restored = match there {
        Some(there) if has_lost(facts, there, record) => {
            let lost = Record { publications: vec![], replaces: replaced(record), ..record.clone() };
            let count = record.redirects().count();
            writer.store.put(&lost).and_then(|()| restore(writer, facts, &anchor)).map(|()| {
                if count > 0 {
                    writer.outcome.changed = true;
                }
            })
        }
        _ => restore(writer, facts, &anchor),
    };
    match restored {
        Ok(()) => error,
        Err(again) => error.and(again),
    }
}

/// Whether a jail does not have an address any more that was found. False if it does not answer.
fn has_lost(facts: &Facts<'_>, there: &Jail, record: &Record) -> bool {
    let now = match there.vnet {
        true => facts.reported_by(there),
        false => Ok(there.addresses.clone()),
    };
    let is_given = |target: IpAddr| record.requested.iter().any(|one| one.addresses.contains(&target));
    !record.requested.is_empty()
        && now.is_ok_and(|now| record.redirects().any(|r| !is_given(r.target) && !now.contains(&r.target)))
}
