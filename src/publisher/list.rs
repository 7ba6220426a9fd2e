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
use crate::store::{Record, Store, Summary};

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
    let mut records = store.records()?;
    let recorded = match &one {
        Some(anchor) => vec![anchor.clone()],
        None => records.anchors()?,
    };
    // by the names below kport/. First pf, then what the records say: a jail's record is written before its rules are loaded
    let mut all = match &one {
        Some(anchor) => BTreeMap::from([(anchor.child().to_owned(), firewall.loaded(anchor, counters)?)]),
        None => firewall.loaded_all(&recorded, counters)?,
    };
    for anchor in recorded {
        all.entry(anchor.child().to_owned()).or_default();
    }
    let count = all.len();
    let mut listed = Vec::with_capacity(count);
    // the counters need the rules of each record
    let mut summaries = if counters { None } else { store.summaries(&boot, count) };
    for (done, (child, loaded)) in all.into_iter().enumerate() {
        if deadline.passed() {
            let what = format!("the time is up after {done} of {count} anchors; list again");
            return Err(Error::new(Kind::Busy, what).remedy("give more time with", Setting::Timeout));
        }
        let Some(anchor) = Anchor::from_child(&child) else { continue };
        if let Some(summary) = summaries.as_mut().and_then(|summaries| summaries.get(&anchor)) {
            listed.push(summarized(anchor, summary, &loaded));
            continue;
        }
        let (record, problem) = match records.get(&anchor) {
            Ok(record) => (record.filter(|r| r.boot == boot), None),
            Err(error) => (None, Some(error.message().to_owned())),
        };
        match record {
            Some(record) => {
                let wanted = rules::of_all(&record.publications);
                let summary = Summary::new(&record, Count::of(&wanted));
                let mut shown = summarized(anchor.clone(), &summary, &loaded);
                if !record.replaces.is_empty() {
                    interrupted(&mut shown, &record, &loaded);
                } else if let Some(summaries) = &mut summaries {
                    summaries.add(&anchor, summary);
                }
                if counters && shown.liveness == Liveness::Live {
                    count_traffic(&mut shown, &record.jail, &wanted, loaded.filters);
                }
                listed.push(shown);
            }
            None if !loaded.is_empty() || problem.is_some() => listed.push(without_record(anchor, &loaded, problem)),
            None => {}
        }
    }
    if let Some(summaries) = summaries {
        summaries.leave();
    }
    Ok(listed)
}

/// A jail's part, without counters.
fn summarized(anchor: Anchor, summary: &Summary, loaded: &Loaded) -> Listed {
    Listed {
        anchor,
        jail: Some(summary.jail.clone()),
        no_jail: summary.no_jail,
        jid: summary.jid,
        since: Some(summary.since),
        liveness: if loaded.is_as_many(summary.rules) { Liveness::Live } else { Liveness::Missing },
        redirects: summary.redirects.iter().map(|redirect| (*redirect, Counters::default())).collect(),
        problem: None,
    }
}

/// After an interrupted change pf may have the previous set, and that may look the same.
fn interrupted(listed: &mut Listed, record: &Record, loaded: &Loaded) {
    if loaded.is_as_many(Count::of(&rules::of_all(&record.replaces))) {
        listed.liveness = Liveness::Missing;
    }
    listed.problem = Some("a change was interrupted; publish again, or kport restore".to_owned());
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

/// Sets the counters of each mapping: the sum of those of its rules, which have its label. Rules are recognized by their position:
/// pf keeps their order, and not every backend gives the rules of a mapping a label of their own.
fn count_traffic(listed: &mut Listed, jail: &JailName, rules: &[Rule], filters: Vec<Counters>) {
    let passes = rules.iter().filter_map(|rule| match rule {
        Rule::AfTo { matches, labels: [_, mapping], .. } | Rule::Pass { matches, labels: [_, mapping], .. } => {
            Some((mapping, matches.members().count()))
        }
        Rule::Nat { .. } | Rule::Rdr { .. } => None,
    });
    let labels = passes.flat_map(|(label, rules)| std::iter::repeat_n(label, rules));
    let mut counted: BTreeMap<&Label, Counters> = BTreeMap::new();
    for (label, counters) in labels.zip(filters) {
        let sum = counted.entry(label).or_default();
        *sum = sum.plus(counters);
    }
    for (redirect, counters) in &mut listed.redirects {
        let label = jail.mapping_label(redirect.protocol, redirect.host);
        *counters = counted.get(&label).copied().unwrap_or_default();
    }
}
