//! Removes what a jail has published: all of it, or single mappings.

use std::collections::HashSet;

use super::Phase;
use super::change::change;
use super::facts::Facts;
use super::requested::{self, has_ports};
use super::starting::is_starting;
use super::verify::Verification;
use super::writer::Writer;
use crate::error::Result;
use crate::name::JailName;
use crate::net::{Family, Place};
use crate::publication::Publication;
use crate::spec::{Mapping, Spec};
use crate::store::Record;

/// See [`Publisher::unpublish`](super::Publisher::unpublish).
pub(super) fn unpublish(writer: &mut Writer<'_>, facts: &Facts<'_>, jail: &JailName, jid: Option<i32>) -> Result<()> {
    let (jail, record) = &published_as(writer, facts, jail, jid)?;
    if is_late(writer, facts, jail, jid, record.as_ref())? {
        return Ok(());
    }
    writer.drop_anchor(&jail.anchor(), jail.label(), record.as_ref())
}

/// See [`Publisher::unpublish_some`](super::Publisher::unpublish_some).
pub(super) fn unpublish_some(
    writer: &mut Writer<'_>,
    facts: &Facts<'_>,
    jail: &JailName,
    jid: Option<i32>,
    spec: &Spec,
) -> Result<()> {
    let (jail, old) = published_as(writer, facts, jail, jid)?;
    let jail = &jail;
    if is_late(writer, facts, jail, jid, old.as_ref())? {
        return Ok(());
    }
    writer.progress.phase(Phase::Resolve)?;
    let mut publications = old.as_ref().map(|o| o.publications.clone()).unwrap_or_default();
    for mapping in spec.mappings() {
        let here = places_of(facts, mapping, &publications);
        let mut found = false;
        for publication in &mut publications {
            let before = publication.redirects.len();
            publication.redirects.retain(|r| !(has_ports(mapping, r) && here.contains(&r.place)));
            found |= publication.redirects.len() < before;
        }
        if !found {
            writer.note(format!("{} has not published {mapping}", jail.mention()));
        }
    }
    publications.retain(|p| !p.redirects.is_empty());
    let Some(old) = old else { return Ok(()) };
    if publications.is_empty() {
        return writer.drop_anchor(&jail.anchor(), jail.label(), Some(&old));
    }
    let wanted = Record {
        path: old.path.clone(),
        requested: requested::left(&old.requested, &publications)?,
        no_jail: old.no_jail,
        reported: old.reported.clone(),
        ..writer.record_of(jail, old.jid, publications)?
    };
    // what stays was verified when it was published
    change(writer, Some(&old), wanted, &Verification { facts, allow_inert: true, thorough: false })
}

/// The name by which a jail has published, and its record: a jail that was renamed since is found by its jid.
fn published_as(
    writer: &mut Writer<'_>,
    facts: &Facts<'_>,
    jail: &JailName,
    jid: Option<i32>,
) -> Result<(JailName, Option<Record>)> {
    let mut record = writer.record(&jail.anchor(), facts)?;
    // with a record by its name it was not renamed
    let earlier = if record.is_some() { None } else { writer.store.earlier_name(facts.host, jail, jid)? };
    if let Some(name) = &earlier {
        writer.note(format!("{} has published as {}", jail.mention(), name.mention()));
        record = writer.record(&name.anchor(), facts)?;
    }
    Ok((earlier.unwrap_or_else(|| jail.clone()), record))
}

/// Whether an unpublish is too late: the jail was started again, and has published with another jid, or for a start that has
/// not happened yet.
fn is_late(
    writer: &mut Writer<'_>,
    facts: &Facts<'_>,
    jail: &JailName,
    jid: Option<i32>,
    record: Option<&Record>,
) -> Result<bool> {
    let (Some(jid), Some(record)) = (jid, record) else { return Ok(false) };
    if record.no_jail {
        writer.note(format!("{} is published, but not as a jail: not changed for jid {jid}", record.mention()));
        return Ok(true);
    }
    let by = match record.jid {
        Some(theirs) if theirs == jid => return Ok(false),
        Some(theirs) => format!("as jid {theirs}"),
        None if record.earlier_jid != Some(jid) => {
            // it did not exist when it was published, and does now: it is the same start
            let came = facts.jail(&jid.to_string())?.is_some_and(|there| there.name == jail.as_str());
            if came || !is_starting(facts.host, record)? {
                return Ok(false);
            }
            "for a start that has not happened yet".to_owned()
        }
        None => "for a start that has not happened yet".to_owned(),
    };
    writer.note(format!("{} was published again {by}; that was not changed for jid {jid}", jail.mention()));
    Ok(true)
}

/// The places with the redirects of a mapping: its own place or, if it has none, the gateway interface. The gateway interface
/// may have changed, or another one was given when the mapping was published: then the other place with these ports, if there
/// is exactly one.
fn places_of(facts: &Facts<'_>, mapping: &Mapping, publications: &[Publication]) -> HashSet<Place> {
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
    let gateways = Family::ALL.into_iter().filter_map(|family| facts.gateway(family).ok());
    let there: HashSet<Place> = gateways.map(Place::Interface).filter(|place| with_ports.contains(place)).collect();
    match (there.is_empty(), with_ports.len()) {
        (true, 1) => with_ports,
        _ => there,
    }
}
