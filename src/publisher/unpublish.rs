//! Removes what a jail has published: all of it, or single mappings.

use std::collections::HashSet;

use super::change::{Verification, change};
use super::request::{has_ports, left};
use super::survey::Survey;
use super::writer::Writer;
use super::{Outcome, Phase, Publisher};
use crate::error::Result;
use crate::name::JailName;
use crate::net::{Family, Place};
use crate::publication::Publication;
use crate::spec::{Mapping, Spec};
use crate::store::Record;

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
        self.run(&[], |writer| {
            let (jail, record) = &published_as(writer, jail, jid)?;
            if is_late(writer, jail, jid, record.as_ref())? {
                return Ok(());
            }
            writer.drop_anchor(&jail.anchor(), record.as_ref())
        })
    }

    /// Removes single mappings of a jail, in one transaction, and keeps the others. A mapping that is not published is noted,
    /// and is not an error. `auto` stands for any host port.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::unpublish`]; on an error either all mappings are still published, or the message lists what is
    /// left.
    pub fn unpublish_some(&self, jail: &JailName, jid: Option<i32>, spec: &Spec) -> Result<Outcome> {
        self.run(&[], |writer| unpublish_some(writer, jail, jid, spec))
    }
}

fn unpublish_some(writer: &mut Writer<'_>, jail: &JailName, jid: Option<i32>, spec: &Spec) -> Result<()> {
    let (jail, old) = published_as(writer, jail, jid)?;
    let jail = &jail;
    if is_late(writer, jail, jid, old.as_ref())? {
        return Ok(());
    }
    writer.survey.phase(Phase::Resolve)?;
    let mut publications = old.as_ref().map(|o| o.publications.clone()).unwrap_or_default();
    for mapping in spec.mappings() {
        let here = places_of(writer.survey, mapping, &publications);
        let mut found = false;
        for publication in &mut publications {
            let before = publication.redirects.len();
            publication.redirects.retain(|r| !(has_ports(mapping, r) && here.contains(&r.place)));
            found |= publication.redirects.len() < before;
        }
        if !found {
            writer.survey.note(format!("{} has not published {mapping}", jail.mention()));
        }
    }
    publications.retain(|p| !p.redirects.is_empty());
    let Some(old) = old else { return Ok(()) };
    if publications.is_empty() {
        return writer.drop_anchor(&jail.anchor(), Some(&old));
    }
    let wanted = Record {
        path: old.path.clone(),
        requested: left(&old.requested, &publications)?,
        no_jail: old.no_jail,
        reported: old.reported.clone(),
        ..writer.record_of(jail, old.jid, publications)?
    };
    // what stays was verified when it was published
    change(writer, Some(&old), wanted, Verification { allow_inert: true, thorough: false })
}

/// The name by which a jail has published, and its record: a jail that was renamed since is found by its jid.
fn published_as(writer: &mut Writer<'_>, jail: &JailName, jid: Option<i32>) -> Result<(JailName, Option<Record>)> {
    let mut record = writer.record(&jail.anchor())?;
    // with a record by its name it was not renamed
    let earlier = if record.is_some() { None } else { writer.survey.earlier_name(jail, jid)? };
    if let Some(name) = &earlier {
        writer.survey.note(format!("{} has published as {}", jail.mention(), name.mention()));
        record = writer.record(&name.anchor())?;
    }
    Ok((earlier.unwrap_or_else(|| jail.clone()), record))
}

/// Whether an unpublish is too late: the jail was started again, and has published with another jid, or for a start that has
/// not happened yet.
fn is_late(writer: &mut Writer<'_>, jail: &JailName, jid: Option<i32>, record: Option<&Record>) -> Result<bool> {
    let (Some(jid), Some(record)) = (jid, record) else { return Ok(false) };
    if record.no_jail {
        writer.survey.note(format!("{} is published, but not as a jail: not changed for jid {jid}", record.mention()));
        return Ok(true);
    }
    let by = match record.jid {
        Some(theirs) if theirs == jid => return Ok(false),
        Some(theirs) => format!("as jid {theirs}"),
        None if record.earlier_jid != Some(jid) => {
            // it did not exist when it was published, and does now: it is the same start
            let came = writer.survey.host.jail(&jid.to_string())?.is_some_and(|there| there.name == jail.as_str());
            if came || !writer.survey.is_starting(record)? {
                return Ok(false);
            }
            "for a start that has not happened yet".to_owned()
        }
        None => "for a start that has not happened yet".to_owned(),
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
    let gateways = Family::ALL.into_iter().filter_map(|family| survey.gateway(family).ok());
    let there: HashSet<Place> = gateways.map(Place::Interface).filter(|place| with_ports.contains(place)).collect();
    match (there.is_empty(), with_ports.len()) {
        (true, 1) => with_ports,
        _ => there,
    }
}
