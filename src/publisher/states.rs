//! Which states end when a publication is replaced.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::options::Options;
use crate::pf::{Destination, States};
use crate::publication::Redirect;
use crate::store::Record;

/// The states to end: of redirects that are no longer published, or no longer for everyone who could use them, and of
/// connections to the jail's own address through the reach list. `labels_mappings` is what the backend reports
/// ([`Firewall::labels_mappings`](crate::pf::Firewall::labels_mappings)); `is_own` reports whether an address is the host's
/// own.
pub(super) fn to_end(record: &Record, labels_mappings: bool, is_own: &dyn Fn(IpAddr) -> bool) -> Vec<States> {
    let now = record.publications.iter().flat_map(|p| p.redirects.iter().map(move |r| (r, &p.options)));
    let now: HashMap<&Redirect, &Options> = now.collect();
    let before = record.replaces.iter().flat_map(|p| p.redirects.iter().map(move |r| (r, &p.options)));
    let gone = before.filter(|(r, before)| !now.get(r).is_some_and(|now| now.allows_all_of(before)));
    let jail = record.jail.label();
    let none_stays = record.replaces.iter().flat_map(|p| &p.redirects).all(|r| !now.contains_key(r));
    // one call for all of the jail's states if nothing of the old set stays; also if the backend finds the states of a
    // mapping by its label, and there are states without one: rather all than one too few
    let all = none_stays || labels_mappings && !record.mapping_labels;
    // a connection to the jail itself has the mapping's label, if there is one, and the jail's port
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
            |ports, to| States::Mapping { jail: jail.clone(), label: label.clone(), protocol: r.protocol, ports, to };
        states.insert(mapping(r.host, host_of(r, now.keys().copied(), labels_mappings, is_own)));
        let may = |now: &&Options| before.reach.iter().all(|interface| now.reach.contains(interface));
        if !labels_mappings && !before.reach.is_empty() && !reached.get(&direct(r)).is_some_and(may) {
            states.insert(mapping(r.jail, Destination::Only(r.target)));
        }
    }
    states.into_iter().collect()
}

/// Where connections to the host's ports of a redirect are to. If another mapping that stays leads to the same ports of the
/// jail, connections to the jail are not among them. The address of a jail on the host's network stack may be that of
/// both: rather one too many than one too few.
fn host_of<'a>(
    gone: &Redirect,
    stay: impl Iterator<Item = &'a Redirect>,
    labels_mappings: bool,
    is_own: &dyn Fn(IpAddr) -> bool,
) -> Destination {
    let near = |r: &&Redirect| r.protocol == gone.protocol && r.family() == gone.family() && r.jail.overlaps(gone.host);
    let targets: BTreeSet<IpAddr> = stay.filter(near).map(|r| r.target).collect();
    match targets.first() {
        Some(target) if !labels_mappings && targets.len() == 1 && !is_own(*target) => Destination::Except(*target),
        _ => Destination::Any,
    }
}
