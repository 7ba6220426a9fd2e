//! From one record to the next one: record, load, verify, end states, settle; on an error, undo. And to none: unpublish.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use super::request::{has_ports, left};
use super::survey::{STARTING, Survey, gateway};
use super::writer::Writer;
use super::{Outcome, Phase, Publisher, Request, states};
use crate::error::{Error, Kind, Problem, Result};
use crate::host::{Host, Jail, Snapshot};
use crate::name::{Anchor, JailName};
use crate::net::{Family, PerFamily, Place};
use crate::options::Options;
use crate::pf::Status;
use crate::publication::{Publication, Redirect};
use crate::readiness::{self, MainRuleset, Surroundings};
use crate::rule::Rule;
use crate::spec::{Mapping, Spec};
use crate::store::Record;
use crate::{calls, rules};

/// What is reserved for checking the result of a load, but at most a third of the remaining time.
const RESERVED: Duration = Duration::from_secs(5);

/// The time for undoing after the deadline: a port of a failed change must not stay open.
const GRACE: Duration = Duration::from_secs(10);

/// How long a publish may judge a main ruleset that has changed.
const JUDGING: Duration = Duration::from_secs(2);

/// What a publication needs in addition to its rules.
#[derive(Clone, Copy)]
pub(super) struct Verification {
    /// Whether rules without effect are noted, not an error.
    pub(super) allow_inert: bool,
    /// Whether ports that cannot be reached anyway are noted as well.
    pub(super) thorough: bool,
}

impl Verification {
    pub(super) fn of(requests: &[Request], thorough: bool) -> Verification {
        Verification { allow_inert: requests.iter().all(|request| request.allow_inert), thorough }
    }
}

/// From one record to the next one: remove what is in the way, record the change, load the anchor, verify, end states, settle.
pub(super) fn change(
    writer: &mut Writer<'_>, old: Option<&Record>, mut record: Record, verification: Verification,
) -> Result<()> {
    let survey = writer.survey;
    let firewall = survey.firewall;
    for (anchor, outdated) in survey.outdated() {
        writer.drop_outdated(&anchor, outdated)?;
    }
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
        // another start of the jail may follow, and its time starts now; not with each of two calls in a row, which change nothing
        let restarts = record.jid.is_none()
            && !record.no_jail
            && (survey.age(old)? >= STARTING / 2 || old.earlier_jid != record.earlier_jid);
        if restarts || old.reported != record.reported || old.requested != record.requested {
            writer.put(&record)?;
        }
        // a change that was killed may have left out its calls, and a flush takes them
        let entries = calls::entries(&anchor, &wanted);
        let called = firewall.called(Some(&entries), false)?;
        if called.is_some_and(|called| !entries.iter().all(|entry| calls::covers(&called, entry))) {
            writer.outcome.changed |= writer.call(&anchor, &[], &wanted)?;
        }
        // else it would read the main ruleset to change nothing
        let thorough = verification.thorough && !firewall.runs_pfctl();
        return verify(survey, &record, &wanted, status, Verification { thorough, ..verification });
    }

    // whose redirects pf certainly has
    let known = old.filter(|old| old.replaces.is_empty() && old.publications != record.publications);
    let before = states::from_before(&record, known, survey)?;
    survey.observer.phase(Phase::Record)?;
    record.replaces = old.map(replaced).unwrap_or_default();
    if !before.is_empty() && record.replaces.is_empty() {
        // nothing is replaced, but the next call is to end them if this one is killed
        record.replaces.push(Publication::new(record.jail.clone(), vec![], Options::default(), |_| Ok(None))?);
    }
    if let Err(error) = writer.put(&record) {
        // the claims may be written already; the record is not
        writer.release(&record, old);
        return Err(error);
    }

    firewall.set_deadline(survey.deadline.reserving(RESERVED, 3));
    let loaded = survey.observer.phase(Phase::Load).and_then(|()| firewall.replace(&anchor, &wanted));
    let before_rules = rules::of_all(&record.replaces);
    let called = loaded.map(|()| writer.call(&anchor, &before_rules, &wanted));
    firewall.set_deadline(survey.deadline);
    let after_load = called.is_ok();
    let verified = called.and_then(|called| {
        called?;
        survey.observer.phase(Phase::Verify)?;
        verify(survey, &record, &wanted, firewall.status()?, verification)
    });
    if let Err(error) = verified {
        return Err(roll_back(writer, &anchor, &record, old, error, after_load));
    }
    writer.outcome.changed = true;

    // From here on the jail is published: a failure is noted, not undone. The record keeps the old set until its
    // states are ended, so that the next call does what this one could not.
    let gone = states::to_end(&record, survey);
    if !gone.is_empty() || !before.is_empty() {
        match survey.observer.phase(Phase::Kill).and_then(|()| firewall.kill_states(&gone)) {
            Ok(killed) => writer.outcome.killed = killed,
            Err(error) => {
                let continues = format!("connections that are no longer allowed continue ({error})");
                survey.note(format!("published, but {continues}; publish again to end them"));
                return Ok(());
            }
        }
    }
    writer.end_from_before(&before);
    if !record.replaces.is_empty() {
        if let Err(error) = survey.observer.phase(Phase::Settle).and_then(|()| writer.settle(&mut record)) {
            let still = format!("the record still has the previous set as well ({error})");
            survey.note(format!("published, but {still}; publish again to correct that"));
        } else if let Some(old) = old.filter(|old| old.jid != record.jid) {
            // the jid of an earlier start is not among what is replaced
            writer.release(old, Some(&record));
        }
    }
    Ok(())
}

/// Fails if pf will not evaluate the rules: it must be enabled, its main ruleset must call kport's anchors, and packets must be
/// forwarded.
pub(super) fn verify(
    survey: &Survey<'_>, record: &Record, wanted: &[Rule], status: Status, verification: Verification,
) -> Result<()> {
    match inert(survey, record, wanted, status)?.map(|problem| problem.error(Kind::Unavailable)) {
        Some(error) if verification.allow_inert => {
            survey.note(format!("loaded, but without effect at present: {error}"));
        }
        Some(error) => return Err(error),
        None if verification.thorough => match dead(survey, &record.publications) {
            Ok(problems) => problems.iter().for_each(|problem| survey.note(problem.to_string())),
            // the ports are published anyway
            Err(error) => survey.observer.detail(&format!("it is unknown whether packets arrive: {error}")),
        },
        None => {}
    }
    Ok(())
}

/// Why pf would not evaluate the rules of a record.
fn inert(survey: &Survey<'_>, record: &Record, wanted: &[Rule], status: Status) -> Result<Option<Problem>> {
    let host = survey.host;
    let needs_nat = wanted.iter().any(|r| matches!(r, Rule::Nat { .. }));
    let mut problem = readiness::unused(host, &status, needs_nat);
    for family in Family::ALL {
        if problem.is_none() {
            problem = readiness::unforwarded(host, family, record.redirects(), || Ok(survey.places()?.0))?;
        }
    }
    if problem.is_none() && record.publications.iter().any(|p| p.options.host_access) {
        problem = readiness::unfiltered(host, &record.jail.mention())?;
    }
    Ok(problem)
}

/// Ports that cannot be reached, although pf evaluates the rules.
fn dead(survey: &Survey<'_>, publications: &[Publication]) -> Result<Vec<Problem>> {
    let Survey { host, firewall, .. } = *survey;
    // without a real firewall, such as a Linux host for trying kport, em0 need not exist
    if !firewall.redirects_packets() && !host.is_played() {
        return Ok(vec![]);
    }
    let rulesets = || match firewall.main_ruleset() {
        Ok(main) => Ok(vec![(String::new(), main)]),
        Err(error) if error.kind() == Kind::Unsupported => Ok(vec![]),
        Err(error) => Err(error),
    };
    let [inet, inet6] = Family::ALL.map(|family| survey.gateway(family));
    let host = Snapshot::new(host, PerFamily { inet: inet?, inet6: inet6? });
    let around = Surroundings { host: &host, interfaces: survey.places()?.0.into() };
    let mut main = MainRuleset::new(around, firewall.kept()?.as_deref(), rulesets)?;
    main.deadline = Some(survey.deadline.sooner(JUDGING));
    // it may be newer than what pf has: a rule that it does not have is shown as pf prints it
    main.file = firewall.redirects_packets().then_some(Path::new(readiness::PF_CONF));
    let found = readiness::of_jail(&main, publications);
    survey.observer.detail(&format!("main ruleset: {} evaluations", main.evaluations()));
    if let Some(learned) = main.learned() {
        firewall.keep(&learned);
    }
    found
}

/// After a failed load or what follows it: restores pf and the record, or returns an error that says what is left.
fn roll_back(
    writer: &mut Writer<'_>, anchor: &Anchor, record: &Record, old: Option<&Record>, error: Error, after_load: bool,
) -> Error {
    let firewall = writer.survey.firewall;
    firewall.set_deadline(writer.survey.deadline.later(GRACE));
    let before = old.map(|o| rules::of_all(&o.publications)).unwrap_or_default();
    let failed = rules::of_all(&record.publications);
    // see Firewall::replace
    let sure = !after_load && !matches!(error.kind(), Kind::System | Kind::Internal);
    let untouched = || !after_load && before != failed && firewall.holds(anchor, &before).is_ok_and(|holds| holds);
    if !sure && !untouched() {
        // from here on pf is to have the old set, whatever fails next: the new set is not loaded later
        let back = way_back(record, old);
        _ = writer.put(&back);
        let restored = firewall.replace(anchor, &before).and_then(|()| writer.call(anchor, &failed, &before));
        if let Err(again) = restored {
            return error.and(format!(
                "and {anchor} could not be restored ({again}): it has the old or the new set; \
                 run kport apply for the old one, or publish again, or unpublish"
            ));
        }
        if after_load {
            let ended = states::to_end(&back, writer.survey);
            if let Err(again) = firewall.kill_states(&ended) {
                let why =
                    format!("and connections that came meanwhile continue ({again}); publish again, or unpublish");
                return error.and(why);
            }
        }
    }
    let restored = match old {
        Some(old) => writer.put(old),
        None => writer.remove(anchor, Some(record)),
    };
    if let Err(again) = restored {
        return error.and(format!("and the record could not be restored ({again}); publish again, or unpublish"));
    }
    writer.release(record, old);
    error
}

/// The record of a change that is being undone: pf is to have what was published, and may have what failed.
fn way_back(record: &Record, old: Option<&Record>) -> Record {
    let nothing = || Record { publications: vec![], replaces: vec![], requested: vec![], ..record.clone() };
    let back = old.cloned().unwrap_or_else(nothing);
    let replaces = replaced(&Record { replaces: replaced(&back), ..record.clone() });
    Record { replaces, mapping_labels: record.mapping_labels, ..back }
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

impl Publisher<'_> {
    /// Removes all ports of a jail from pf, ends its states, and removes its record. It is not an error if nothing is
    /// published. With a `jid`, what another start of the jail has published is not changed: a stop hook that runs late must
    /// not remove what the next start has published.
    ///
    /// # Errors
    ///
    /// They are collected: what can be undone is undone, and the record stays until all of it is. The kind is
    /// that of [`Error::all`](crate::error::Error::all).
    pub fn unpublish(&self, jail: &JailName, jid: Option<i32>) -> Result<Outcome> {
        self.run(&[], |writer| unpublish(writer, jail, jid, None))
    }

    /// Removes single mappings of a jail, in one transaction, and keeps the others. A mapping that is not published is noted,
    /// and is not an error. `auto` stands for any host port.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::unpublish`]; on an error either all mappings are still published, or the message lists what is
    /// left.
    pub fn unpublish_some(&self, jail: &JailName, jid: Option<i32>, spec: &Spec) -> Result<Outcome> {
        self.run(&[], |writer| unpublish(writer, jail, jid, Some(spec)))
    }
}

fn unpublish(writer: &mut Writer<'_>, jail: &JailName, jid: Option<i32>, spec: Option<&Spec>) -> Result<()> {
    let (jail, old) = &published_as(writer, jail, jid)?;
    if is_late(writer, jail, jid, old.as_ref())? {
        return Ok(());
    }
    let Some(spec) = spec else { return writer.drop_anchor(&jail.anchor(), old.as_ref()) };
    writer.survey.observer.phase(Phase::Resolve)?;
    let mut publications = old.as_ref().map(|o| o.publications.clone()).unwrap_or_default();
    for mapping in spec.mappings() {
        let here = places_of(writer.survey, mapping, &publications);
        let is_of = |r: &Redirect| has_ports(mapping, r) && here.contains(&r.place);
        if !publications.iter().flat_map(|p| &p.redirects).any(is_of) {
            writer.survey.note(format!("{} has not published {mapping}", jail.mention()));
        }
        publications.iter_mut().for_each(|p| p.redirects.retain(|r| !is_of(r)));
    }
    publications.retain(|p| !p.redirects.is_empty());
    let Some(old) = old else { return Ok(()) };
    if publications.is_empty() {
        return writer.drop_anchor(&jail.anchor(), Some(old));
    }
    let requested = left(&old.requested, &publications);
    let Record { since, uptime, mapping_labels, .. } = writer.survey.new_record(jail)?;
    let wanted = Record { since, uptime, mapping_labels, publications, requested, earlier_jid: None, ..old.clone() };
    // what stays was verified when it was published
    change(writer, Some(old), wanted, Verification { allow_inert: true, thorough: false })
}

/// The name by which a jail has published, and its record: a jail that was renamed since is found by its jid.
fn published_as(writer: &Writer<'_>, jail: &JailName, jid: Option<i32>) -> Result<(JailName, Option<Record>)> {
    let record = writer.record(&jail.anchor())?;
    // with a record by its name it was not renamed
    if record.is_none()
        && let Some(name) = writer.survey.earlier_name(jail, jid)?
    {
        writer.survey.note(format!("{} has published as {}", jail.mention(), name.mention()));
        let record = writer.record(&name.anchor())?;
        return Ok((name, record));
    }
    Ok((jail.clone(), record))
}

/// Whether an unpublish is too late: the jail was started again, and has published with another jid, or for a start that has
/// not happened yet.
fn is_late(writer: &Writer<'_>, jail: &JailName, jid: Option<i32>, record: Option<&Record>) -> Result<bool> {
    let (Some(jid), Some(record)) = (jid, record) else { return Ok(false) };
    if record.no_jail {
        writer.survey.note(format!("{} is published, but not as a jail: not changed for jid {jid}", record.mention()));
        return Ok(true);
    }
    let by = match record.jid {
        Some(theirs) if theirs == jid => return Ok(false),
        Some(theirs) => format!("as jid {theirs}"),
        None => {
            let is_earlier = record.earlier_jid == Some(jid);
            // it did not exist when it was published, and does now: it is the same start
            let came = |there: Jail| there.name == jail.as_str();
            if !is_earlier
                && (writer.survey.host.jail(&jid.to_string())?.is_some_and(came)
                    || !writer.survey.is_starting(record)?)
            {
                return Ok(false);
            }
            "for a start that has not happened yet".to_owned()
        }
    };
    writer.survey.note(format!("{} was published again {by}; that was not changed for jid {jid}", jail.mention()));
    Ok(true)
}

/// The places with the redirects of a mapping: its own place or, if it has none, the gateway interface. The gateway interface
/// may have changed, or another one was given when the mapping was published: then the other place with these ports, if there
/// is exactly one.
fn places_of(survey: &Survey<'_>, mapping: &Mapping, publications: &[Publication]) -> HashSet<Place> {
    if let Some(place) = mapping.place {
        return HashSet::from([place]);
    }
    // never an address or *: only a mapping that names one is published there
    let with_ports: HashSet<Place> = publications
        .iter()
        .flat_map(|p| &p.redirects)
        .filter(|r| has_ports(mapping, r) && matches!(r.place, Place::Interface(_)))
        .map(|r| r.place)
        .collect();
    // without a default route there is no gateway interface, but the mapping can still be removed
    let gateways = Family::ALL.into_iter().filter_map(|family| gateway(survey, family).ok());
    let there: HashSet<Place> = gateways.map(Place::Interface).filter(|place| with_ports.contains(place)).collect();
    match (there.is_empty(), with_ports.len()) {
        (true, 1) => with_ports,
        _ => there,
    }
}
