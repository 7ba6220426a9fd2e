//! Whether the interfaces and addresses that a jail is published on exist.

use std::collections::BTreeMap;

use super::{Findings, Surroundings, address};
use crate::error::{Problem, Result};
use crate::net::{Family, Place};
use crate::publication::{Publication, Redirect};

/// A redirect on every address also applies on the interfaces toward jails.
pub fn everywhere<'a>(publications: impl IntoIterator<Item = &'a Publication>) -> Option<String> {
    let mut all = publications.into_iter().flat_map(|p| &p.redirects).filter(|r| r.place.is_any());
    let redirect = all.next()?;
    let more = match all.count() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!(
        "{redirect}{more}: {} takes what arrives on any interface for any address of the host, also from jails, and those of \
         jails on the host's stack; name an interface or address to leave the others alone",
        redirect.place
    ))
}

/// Interfaces that are missing, down or without an address, and addresses that the host does not have.
pub fn interfaces<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Findings> {
    let mut seen: BTreeMap<(Place, Family), (bool, Problem)> = BTreeMap::new();
    let publications = publications.into_iter();
    for (publication, redirect) in publications.flat_map(|p| p.redirects.iter().map(move |redirect| (p, redirect))) {
        let (place, family) = (redirect.place, redirect.family());
        let outer = around.outer(place, family)?;
        let has = |family| outer.iter().any(|interface| address(interface, family).is_some());
        let jail = publication.jail.mention();
        let problem = |seen: String, remedy: String| (true, Problem { seen, remedy });
        let found = match place {
            Place::Any | Place::AnyOf(_) => continue,
            Place::Address(address) if outer.is_empty() && !address.is_loopback() => problem(
                format!("the host does not have the address {address}, on which {jail} is published"),
                "add it to an interface, or publish on another address (to list them: ifconfig)".to_owned(),
            ),
            Place::Address(_) => continue,
            Place::Interface(name) if outer.is_empty() => problem(
                format!("there is no interface or group {name}, on which {jail} is published; its rules wait for it"),
                format!(
                    "create it, or publish on one of: {}",
                    around.interfaces.iter().map(|i| i.name.to_string()).collect::<Vec<_>>().join(" ")
                ),
            ),
            Place::Interface(name) if outer.iter().all(|interface| !interface.up) => problem(
                format!("{name}, on which {jail} is published, is down"),
                format!("ifconfig {} up", outer[0].name),
            ),
            Place::Interface(name) if !has(family) => {
                let text = format!("{name}, on which {jail} is published, has no {family} address");
                let remedy = format!("ifconfig {} {family} ADDRESS/PREFIX alias", outer[0].name);
                let other = |r: &Redirect| r.place == place && r.family() == family.other();
                // a jail with both families on a host with one cannot be reached better
                let served = has(family.other()) && publication.redirects.iter().any(other);
                (!served, Problem { seen: text, remedy })
            }
            Place::Interface(_) => continue,
        };
        seen.entry((place, family)).or_insert(found);
    }
    let mut found = Findings::default();
    for (dead, problem) in seen.into_values() {
        let list = if dead { &mut found.problems } else { &mut found.warnings };
        // both families of a missing interface are one finding
        if list.last() != Some(&problem) {
            list.push(problem);
        }
    }
    Ok(found)
}
