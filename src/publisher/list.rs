//! The record against what pf has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Listed, Liveness};
use crate::error::{Error, Kind, Result};
use crate::host::{Host, Jail};
use crate::name::{Anchor, JailName, Label};
use crate::pf::{Counters, Firewall, Loaded};
use crate::rule::Rule;
use crate::rules;
use crate::store::{Record, Store};

/// What is published: of one jail, or of all; see [`super::Publisher::list`].
pub(super) fn list(
    host: &dyn Host,
    firewall: &dyn Firewall,
    store: &Store,
    jail: Option<&JailName>,
    counters: bool,
    deadline: Instant,
) -> Result<Vec<Listed>> {
    let boot = host.boot_id()?;
    let in_pf: BTreeMap<Anchor, Loaded> = match jail {
        Some(jail) => {
            let name = earlier_name(host, store, &boot, jail, None)?;
            let anchor = name.as_ref().unwrap_or(jail).anchor();
            let loaded = firewall.loaded(&anchor)?;
            BTreeMap::from([(anchor, loaded)])
        }
        None => {
            let all = firewall.loaded_all(counters)?.into_iter();
            all.filter_map(|(child, loaded)| Some((Anchor::from_child(&child)?, loaded))).collect()
        }
    };
    let recorded = if jail.is_none() { store.anchors()? } else { Default::default() };
    let anchors: BTreeSet<Anchor> = recorded.into_iter().chain(in_pf.keys().cloned()).collect();
    let mut listed = vec![];
    let all = anchors.len();
    for (done, anchor) in anchors.into_iter().enumerate() {
        if Instant::now() >= deadline {
            let what = format!("the time is up after {done} of {all} anchors; list again, with more time (--timeout)");
            return Err(Error::new(Kind::Busy, what));
        }
        let (record, problem) = match store.get(&anchor) {
            Ok(record) => (record.filter(|r| r.boot == boot), None),
            Err(error) => (None, Some(error.message().to_owned())),
        };
        let loaded = in_pf.get(&anchor).cloned().unwrap_or_default();
        match record {
            Some(record) => listed.push(listed_as(anchor, record, loaded)),
            None if !loaded.is_empty() || problem.is_some() => listed.push(Listed {
                anchor,
                jail: None,
                jid: None,
                since: None,
                liveness: if loaded.is_empty() { Liveness::Missing } else { Liveness::Stale },
                redirects: vec![],
                problem,
            }),
            None => {}
        }
    }
    Ok(listed)
}

/// The name by which a jail has published, if that is another one than `jail`: jail(8) can rename one that runs, and the
/// record has its number. `jid` is the number that the caller knows, of a jail that is gone by now maybe. None for a jail with
/// a record by its name.
pub(super) fn earlier_name(
    host: &dyn Host,
    store: &Store,
    boot: &str,
    jail: &JailName,
    jid: Option<i32>,
) -> Result<Option<JailName>> {
    // what is wrong with a record that is there is for others to say
    if !matches!(store.get(&jail.anchor()), Ok(None)) {
        return Ok(None);
    }
    let running = |name: &str| -> Result<Option<Jail>> { Ok(host.jail(name)?.filter(|there| !there.dying)) };
    let number = match (running(jail.as_str())?.filter(|there| there.name == jail.as_str()), jid) {
        (Some(there), _) => there.jid,
        // a jail of another name has the number now
        (None, Some(jid)) if running(&jid.to_string())?.is_some() => return Ok(None),
        (None, Some(jid)) => jid,
        (None, None) => return Ok(None),
    };
    for anchor in store.of_jid(number)? {
        if let Ok(Some(record)) = store.get(&anchor)
            && record.boot == boot
            && record.jid == Some(number)
        {
            return Ok(Some(record.jail));
        }
    }
    Ok(None)
}

fn listed_as(anchor: Anchor, record: Record, loaded: Loaded) -> Listed {
    let wanted = rules::of_all(&record.publications);
    // after an interrupted change pf may hold the set before, and that may look the same
    let before = !record.replaces.is_empty() && loaded.fits(&rules::of_all(&record.replaces));
    let live = !before && loaded.fits(&wanted);
    // rules are told by their position: pf keeps their order, and not every backend gives a mapping's rules a label of their
    // own
    let labels = wanted.iter().flat_map(|rule| match rule {
        Rule::Pass { matches, labels: [_, mapping], .. } => matches.members().map(|_| mapping.clone()).collect(),
        Rule::Nat { .. } | Rule::Rdr { .. } => vec![],
    });
    let mut counted: BTreeMap<Label, Counters> = BTreeMap::new();
    for (label, counters) in labels.zip(loaded.filters).filter(|_| live) {
        let sum = counted.entry(label).or_default();
        *sum = sum.plus(counters);
    }
    let redirects = record
        .redirects()
        .map(|r| {
            let label = record.jail.mapping_label(r.protocol, r.host);
            (*r, counted.get(&label).copied().unwrap_or_default())
        })
        .collect();
    Listed {
        anchor,
        jid: record.jid,
        since: Some(record.since),
        liveness: if live { Liveness::Live } else { Liveness::Missing },
        redirects,
        problem: (!record.replaces.is_empty())
            .then(|| "a change was interrupted; publish again, or kport restore".to_owned()),
        jail: Some(record.jail),
    }
}
