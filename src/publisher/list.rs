//! Compares the records with what pf has.

use std::collections::BTreeMap;

use super::identity::earlier_name;
use super::{Listed, Liveness};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting};
use crate::host::Host;
use crate::name::{Anchor, JailName, Label};
use crate::pf::{Counters, Firewall, Loaded};
use crate::rule::{Count, Rule};
use crate::rules;
use crate::store::{Record, Store};

/// What is published by one jail, or by all; see [`super::Publisher::list`].
pub(super) fn list(
    host: &dyn Host,
    firewall: &dyn Firewall,
    store: &Store,
    jail: Option<&JailName>,
    counters: bool,
    deadline: Deadline,
) -> Result<Vec<Listed>> {
    let boot = host.boot_id()?;
    let one = match jail {
        Some(jail) => Some(earlier_name(host, store, &boot, jail, None)?.as_ref().unwrap_or(jail).anchor()),
        None => None,
    };
    // by the names below kport/. First pf, then the records: a jail's record is written before its rules are loaded
    let in_pf = match &one {
        Some(anchor) => BTreeMap::from([(anchor.child().to_owned(), firewall.loaded(anchor, counters)?)]),
        None => firewall.loaded_all(counters)?,
    };
    let mut records = store.records()?;
    let recorded = one.map_or_else(|| records.anchors(), |anchor| Ok(vec![anchor]))?;
    let all = recorded.len();
    let mut listed = Vec::with_capacity(all);
    let unknown = |(child, loaded): (String, Loaded)| {
        let anchor = Anchor::from_child(&child).filter(|_| !loaded.is_empty())?;
        Some(without_record(anchor, &loaded, None))
    };
    // both are sorted
    let mut in_pf = in_pf.into_iter().peekable();
    for (done, anchor) in recorded.into_iter().enumerate() {
        if deadline.passed() {
            let what = format!("the time is up after {done} of {all} anchors; list again");
            return Err(Error::new(Kind::Busy, what).remedy("give more time with", Setting::Timeout));
        }
        while let Some(other) = in_pf.next_if(|(child, _)| child.as_str() < anchor.child()) {
            listed.extend(unknown(other));
        }
        let loaded = in_pf.next_if(|(child, _)| child == anchor.child()).map(|(_, loaded)| loaded).unwrap_or_default();
        let (record, problem) = match records.get(&anchor) {
            Ok(record) => (record.filter(|r| r.boot == boot), None),
            Err(error) => (None, Some(error.message().to_owned())),
        };
        match record {
            Some(record) => listed.push(recorded_as(anchor, record, loaded, counters)),
            None if !loaded.is_empty() || problem.is_some() => listed.push(without_record(anchor, &loaded, problem)),
            None => {}
        }
    }
    listed.extend(in_pf.filter_map(unknown));
    Ok(listed)
}

/// A jail's part.
fn recorded_as(anchor: Anchor, record: Record, loaded: Loaded, counters: bool) -> Listed {
    // after an interrupted change pf may have the previous set, and that may look the same
    let before = !record.replaces.is_empty() && loaded.is_as_many(Count::of(&rules::of_all(&record.replaces)));
    let wanted = rules::of_all(&record.publications);
    let live = !before && loaded.is_as_many(Count::of(&wanted));
    let counted = match counters && live {
        true => counted(&wanted, loaded.filters),
        false => BTreeMap::new(),
    };
    let redirects = record.redirects().map(|r| {
        let label = || record.jail.mapping_label(r.protocol, r.host);
        let counters = if counted.is_empty() { None } else { counted.get(&label()).copied() };
        (*r, counters.unwrap_or_default())
    });
    Listed {
        redirects: redirects.collect(),
        anchor,
        no_jail: record.no_jail,
        jid: record.jid,
        since: Some(record.since),
        liveness: if live && !record.publications.is_empty() { Liveness::Live } else { Liveness::Missing },
        problem: if !record.replaces.is_empty() {
            Some("a change was interrupted; publish again, or kport restore".to_owned())
        } else if record.publications.is_empty() {
            Some("the jail has lost its address; kport apply publishes again when it has one".to_owned())
        } else {
            None
        },
        jail: Some(record.jail),
    }
}

/// The part of an anchor without a readable record.
fn without_record(anchor: Anchor, loaded: &Loaded, problem: Option<String>) -> Listed {
    Listed {
        anchor,
        jail: None,
        no_jail: false,
        jid: None,
        since: None,
        liveness: if loaded.is_empty() { Liveness::Missing } else { Liveness::Stale },
        redirects: vec![],
        problem,
    }
}

/// The counters of each mapping's rules, by its label. Rules are recognized by their position: pf keeps their order, and not
/// every backend gives the rules of a mapping a label of their own.
fn counted(rules: &[Rule], filters: Vec<Counters>) -> BTreeMap<Label, Counters> {
    let passes = rules.iter().filter_map(|rule| match rule {
        Rule::AfTo { matches, labels: [_, mapping], .. } | Rule::Pass { matches, labels: [_, mapping], .. } => {
            Some((mapping, matches.members().count()))
        }
        Rule::Nat { .. } | Rule::Rdr { .. } => None,
    });
    let labels = passes.flat_map(|(label, rules)| std::iter::repeat_n(label, rules));
    let mut counted: BTreeMap<Label, Counters> = BTreeMap::new();
    for (label, counters) in labels.zip(filters) {
        let sum = counted.entry(label.clone()).or_default();
        *sum = sum.plus(counters);
    }
    counted
}
