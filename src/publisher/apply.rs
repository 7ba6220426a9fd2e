//! What `kport apply` does: makes what each jail has published what its requests say now, removes the ports of jails that are gone,
//! and loads again what pf has lost.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::addresses::check_no_jail;
use super::change::{Verification, change, replaced};
use super::resolve::{check, resolve};
use super::survey::{Outdated, Survey};
use super::writer::Writer;
use super::{Outcome, Phase, Publisher, Request, states};
use crate::error::{Error, Result, quoted};
use crate::host::{Jail, Jails};
use crate::name::{Anchor, JailName, PARENT};
use crate::publication::Redirect;
use crate::rules;
use crate::store::Record;

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

impl Publisher<'_> {
    /// Makes what a jail has published what its requests say now: those that were made by hand, and the lines of kport.conf(5).
    /// `configured` has the lines that the file has now; with `None`, those that are recorded. Addresses that were found and not
    /// given, and the gateway interface, are read again; a jail that has no such address any more keeps its requests, and
    /// nothing that is published. The ports of a jail that is gone are removed, and rules that pf has lost are loaded.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::publish_all`]. What is published stays then, unless it leads to an address that is not the jail's any
    /// more.
    pub fn follow(&self, jail: &JailName, configured: Option<&[Request]>) -> Result<Outcome> {
        self.wait(configured.unwrap_or_default())?;
        self.run(configured.unwrap_or_default(), |writer| follow(writer, jail, configured))
    }

    /// What is recorded for each jail. Does not take the lock.
    ///
    /// # Errors
    ///
    /// Only if the state directory cannot be read: a record that cannot be read is left out.
    pub fn recorded(&self) -> Result<Vec<Recorded>> {
        let survey = Survey::new(self)?;
        let mut records = self.store.records()?;
        let mut found = vec![];
        for anchor in records.anchors()? {
            let record = records.get(&anchor).ok().flatten().filter(|record| record.boot == survey.boot);
            let Some(record) = record else { continue };
            found.push(Recorded {
                gone: survey.is_gone(&record)?,
                requests: Request::of_record(&record),
                redirects: record.redirects().copied().collect(),
                jail: record.jail,
            });
        }
        Ok(found)
    }

    /// What is recorded to be published for a jail; nothing if there is no record that can be read. Does not take the lock.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub fn redirects(&self, jail: &JailName) -> Result<Vec<Redirect>> {
        let record = Survey::new(self)?.readable(jail);
        Ok(record.map_or(vec![], |record| record.redirects().copied().collect()))
    }

    /// Those of the jails whose rules pf has lost: it does not have what is recorded. Does not take the lock.
    ///
    /// # Errors
    ///
    /// `Kind::Unavailable` if pf is not available.
    pub fn lost<'j>(&self, jails: impl IntoIterator<Item = &'j JailName>) -> Result<Vec<JailName>> {
        let survey = Survey::new(self)?;
        let mut lost = vec![];
        for jail in jails {
            let Some(record) = survey.readable(jail) else { continue };
            // a change that is under way, or was interrupted, is not judged by its rules
            let interrupted = !record.replaces.is_empty();
            if interrupted || !self.firewall.still_holds(&jail.anchor(), &rules::of_all(&record.publications))? {
                lost.push(jail.clone());
            }
        }
        Ok(lost)
    }

    /// Loads again what is recorded and not in pf: after `pfctl -F` on kport's anchors, or after pf(4) was unloaded. Reports
    /// the jails.
    ///
    /// # Errors
    ///
    /// `Kind::Unavailable` if pf is not available. An error of one jail does not stop the others; the kind is
    /// that of [`Error::all`].
    pub fn restore(&self) -> Result<Outcome> {
        self.run(&[], |writer| {
            let (survey, mut errors) = (writer.survey, vec![]);
            let restored = |anchor: &Anchor| restore(writer, anchor).map_err(|error| error.context(anchor));
            if survey.each("records", &self.store.anchors()?, &mut errors, restored) {
                errors.extend(writer.call_all().err());
            }
            Error::all(errors)
        })
    }

    /// Removes the ports of jails that are gone, and anchors without a record.
    ///
    /// # Errors
    ///
    /// `Kind::Unavailable` if pf is not available. An error of one jail does not stop the others; the kind is
    /// that of [`Error::all`].
    pub fn gc(&self) -> Result<Outcome> {
        self.run(&[], gc)
    }
}

fn follow(writer: &mut Writer<'_>, jail: &JailName, configured: Option<&[Request]>) -> Result<()> {
    let survey = writer.survey;
    let anchor = jail.anchor();
    let mut old = writer.record(&anchor)?;
    if let Some(record) = &old
        && survey.is_gone(record)?
    {
        writer.drop_outdated(&anchor, Outdated::gone(record))?;
        old = None;
    }
    let requests = requests(old.as_ref(), configured);
    let there = survey.host.running(jail.as_str())?;
    let Some(first) = requests.first() else {
        return match &old {
            None => Ok(()),
            // it is not known how these were made
            Some(record) if record.requested.is_empty() => restore_and_call(writer, &anchor),
            Some(record) => writer.drop_anchor(&anchor, Some(record)),
        };
    };
    if there.is_none() && !first.no_jail {
        // nothing, or published before the jail has started
        return if old.is_some() { restore_and_call(writer, &anchor) } else { Ok(()) };
    }
    let resolved = requests
        .iter()
        .try_for_each(|request| check_no_jail(request, first.no_jail))
        .and_then(|()| resolve(survey, &requests, old.as_ref()))
        .and_then(|(record, _)| {
            // what is published already was checked then
            check(survey, &requests, old.as_ref(), old.as_ref(), &record).map(|()| record)
        });
    let record = match (resolved, &old) {
        (Ok(record), _) => record,
        (Err(error), None) => return Err(error),
        (Err(error), Some(record)) => return Err(kept(writer, there.as_ref(), record, error)),
    };
    if let Some(old) = &old
        && old.publications == record.publications
        && !survey.firewall.still_holds(&anchor, &rules::of_all(&old.publications))?
    {
        // a flush, which a change need not see
        restore(writer, &anchor)?;
    }
    let requested = requests.iter().map(Request::to_record).collect();
    change(writer, old.as_ref(), Record { requested, ..record }, Verification::of(&requests, false))
}

/// The requests by hand that are recorded, then the configured ones.
fn requests(old: Option<&Record>, configured: Option<&[Request]>) -> Vec<Request> {
    let recorded = old.map(Request::of_record).unwrap_or_default();
    let Some(configured) = configured else { return recorded };
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
    all
}

/// After an error, what is published stays, and is loaded if pf lost it; but not if it leads to an address that the jail does not
/// have any more: somebody else may get it.
fn kept(writer: &mut Writer<'_>, there: Option<&Jail>, record: &Record, error: Error) -> Error {
    let lost = there.is_some_and(|there| has_lost_address(writer.survey, there, record));
    let put = if lost {
        let replaces = replaced(record);
        writer.put(&Record { publications: vec![], replaces, ..record.clone() })
    } else {
        Ok(())
    };
    match put.and_then(|()| restore_and_call(writer, &record.jail.anchor())) {
        Ok(()) => {
            writer.outcome.changed |= lost && record.redirects().next().is_some();
            error
        }
        Err(again) => error.and(again),
    }
}

/// Whether a jail does not have an address any more that was found. False if it does not answer.
fn has_lost_address(survey: &Survey<'_>, there: &Jail, record: &Record) -> bool {
    let now = if there.vnet { survey.reported_by(there) } else { Ok(there.addresses.clone()) };
    let is_given = |target: IpAddr| record.requested.iter().any(|one| one.addresses.contains(&target));
    !record.requested.is_empty()
        && now.is_ok_and(|now| record.redirects().any(|r| !is_given(r.target) && !now.contains(&r.target)))
}

fn restore_and_call(writer: &mut Writer<'_>, anchor: &Anchor) -> Result<()> {
    restore(writer, anchor)?;
    writer.call_all()
}

/// Loads what is recorded for an anchor, if pf does not have it.
fn restore(writer: &mut Writer<'_>, anchor: &Anchor) -> Result<()> {
    let survey = writer.survey;
    let Some(mut record) = writer.record(anchor)? else { return Ok(()) };
    if record.publications.is_empty() && record.requested.is_empty() {
        // a first change that failed and was not undone
        writer.drop_anchor(anchor, Some(&record))?;
        survey.note(format!("{}: what could not be published was removed", record.mention()));
        return Ok(());
    }
    let wanted = rules::of_all(&record.publications);
    // after an interrupted change pf may have the previous set, and that may look the same
    if !record.replaces.is_empty() || !survey.firewall.holds(anchor, &wanted)? {
        survey.observer.phase(Phase::Load)?;
        survey.firewall.replace(anchor, &wanted)?;
        writer.outcome.changed = true;
        survey.note(format!("{}: loaded again", record.mention()));
        let before = states::from_before(&record, None, survey)?;
        writer.end_from_before(&before);
    }
    if !record.replaces.is_empty() {
        let ended = states::to_end(&record, survey);
        writer.outcome.killed += survey.firewall.kill_states(&ended)?;
        writer.settle(&mut record)?;
    }
    writer.outcome.redirects.extend(record.redirects());
    Ok(())
}

fn gc(writer: &mut Writer<'_>) -> Result<()> {
    let survey = writer.survey;
    let jails = survey.jails()?;
    for jail in &jails.skipped {
        survey.note(format!("jail {} was not changed: {}", jail.jid, jail.why));
    }
    let mut errors = vec![];
    let mut known = BTreeSet::new();
    let checked = |anchor: &Anchor| {
        let stays = gc_one(writer, anchor, jails);
        if !matches!(stays, Ok(false)) {
            known.insert(anchor.child().to_owned());
        }
        stays.map(|_| ()).map_err(|error| error.context(anchor))
    };
    // a record that was not checked must not count as missing below
    if !survey.each("records", &survey.store.anchors()?, &mut errors, checked) {
        return Error::all(errors);
    }
    let cleared = |child: &String| {
        if known.contains(child) {
            return Ok(());
        }
        let Some(anchor) = Anchor::from_child(child) else {
            let path = quoted(&format!("{PARENT}/{child}"));
            survey.note(format!("anchor {path} is not one of kport's: not changed"));
            return Ok(());
        };
        let published = |jail: &&Jail| jail.name.parse::<JailName>().is_ok_and(|name| name.anchor() == anchor);
        if survey.store.is_damaged(&anchor)?
            && let Some(jail) = jails.jails.iter().filter(|jail| !jail.dying).find(published)
        {
            let jail = quoted(&jail.name);
            survey.note(format!(
                "anchor {anchor} has no record but a damaged one, and jail {jail} is running: not changed; publish its \
                 ports again, or unpublish it"
            ));
            return Ok(());
        }
        writer.drop_outdated(&anchor, Outdated::unrecorded(&anchor)).map_err(|error| error.context(&anchor))
    };
    if !survey.each("anchors", &survey.firewall.anchors()?, &mut errors, cleared) {
        return Error::all(errors);
    }
    errors.extend(writer.call_all().err());
    writer.sweep();
    Error::all(errors)
}

/// Clears a record's anchor unless its jail runs or is starting; returns whether it stays.
fn gc_one(writer: &mut Writer<'_>, anchor: &Anchor, jails: &Jails) -> Result<bool> {
    let Some(record) = writer.record(anchor)? else { return Ok(false) };
    let may_run = jails.skipped.iter().any(|j| match record.jid {
        Some(jid) => jid == j.jid,
        None => j.name.as_deref() == Some(record.jail.as_str()),
    });
    // not by the list, which is older: jails start meanwhile
    let alive = may_run || !writer.survey.is_gone(&record)?;
    if !alive {
        writer.drop_outdated(anchor, Outdated::gone(&record))?;
    }
    Ok(alive)
}
