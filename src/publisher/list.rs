//! Compares the records with what pf has.

use std::collections::{BTreeMap, HashMap};

use super::Publisher;
use super::survey::Survey;
use crate::calls::{self, Entry, Kinds};
use crate::error::{Result, Setting, error};
use crate::name::{Anchor, JailName};
use crate::pf::{Counters, Loaded};
use crate::publication::Redirect;
use crate::rule::{Count, Rule};
use crate::store::{Shown, Summary};
use crate::{readiness, rules};

/// Whether pf has what is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// pf has what the record says, and evaluates it.
    Live,
    /// pf has what the record says, but does not evaluate it: it is disabled, or its main ruleset does not call kport's anchors.
    Inert,
    /// It is recorded, but pf does not have it, or only a part of it: `kport apply` loads it again.
    Missing,
    /// pf has it, but it is not recorded: `kport apply` removes it.
    Stale,
}

impl Liveness {
    /// Its name in the output.
    pub const fn name(self) -> &'static str {
        ["live", "inert", "missing", "stale"][self as usize]
    }
}

/// One jail's part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The anchor with its rules.
    pub anchor: Anchor,
    /// The jail; `None` for an anchor without a record.
    pub jail: Option<JailName>,
    /// Whether the name is that of another target, see [`Request::no_jail`](super::Request::no_jail).
    pub no_jail: bool,
    /// The jid when it was published, if it was known.
    pub jid: Option<i32>,
    /// When it was published, in seconds since 1970.
    pub since: Option<u64>,
    /// Whether pf has what is recorded.
    pub liveness: Liveness,
    /// The redirects, each with the counters of its rules if requested and if the backend has them.
    pub redirects: Vec<(Redirect, Counters)>,
    /// What is wrong with the record, if anything, or why pf does not evaluate the rules.
    pub problem: Option<String>,
}

impl Publisher<'_> {
    /// Returns what is published by one jail, or by all, sorted by anchor, and kport's anchors without a record. Changes
    /// nothing and does not take the lock.
    ///
    /// # Errors
    ///
    /// `Kind::Unavailable` if pf is not available. A record that cannot be read is not an error: see [`Listed::problem`].
    pub fn list(&self, jail: Option<&JailName>) -> Result<Vec<Listed>> {
        list(&Survey::new(self)?, jail, false)
    }

    /// Like [`Publisher::list`], with the counters of each redirect, which requires reading each rule.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::list`].
    pub fn list_with_counters(&self, jail: Option<&JailName>) -> Result<Vec<Listed>> {
        list(&Survey::new(self)?, jail, true)
    }
}

fn list(survey: &Survey<'_>, jail: Option<&JailName>, counters: bool) -> Result<Vec<Listed>> {
    let Survey { firewall, store, ref boot, .. } = *survey;
    let one = match jail {
        Some(jail) => Some(survey.earlier_name(jail, None)?.as_ref().unwrap_or(jail).anchor()),
        None => None,
    };
    let mut records = store.records()?;
    // by the names below kport/. First pf, then what the records say: a jail's record is written before its rules are loaded
    let (all, called) = match &one {
        Some(anchor) => (BTreeMap::from([(anchor.child().to_owned(), firewall.loaded(anchor, counters)?)]), None),
        None => {
            let recorded = records.anchors()?;
            let mut all = firewall.loaded_all(&recorded, counters)?;
            for anchor in recorded {
                all.entry(anchor.child().to_owned()).or_default();
            }
            (all, firewall.called(None, false)?.map(by_child))
        }
    };
    let count = all.len();
    let mut listed = Vec::with_capacity(count);
    // the counters need the rules of each record
    let mut summaries = if counters { None } else { store.summaries(boot, count) };
    for (done, (child, loaded)) in all.into_iter().enumerate() {
        if survey.deadline.passed() {
            return Err(error!(Busy, "the time is up after {done} of {count} anchors; list again")
                .remedy("give more time with", Setting::Timeout));
        }
        let Some(anchor) = Anchor::from_child(&child) else { continue };
        if let Some(summary) = summaries.as_mut().and_then(|summaries| summaries.get(&records, &anchor)) {
            listed.push(summarized(anchor, summary, &loaded, called.as_ref()));
            continue;
        }
        let (record, problem) = match records.get(&anchor) {
            Ok(record) => (record.filter(|r| r.boot == *boot), None),
            Err(error) => (None, Some(error.message().to_owned())),
        };
        match record {
            Some(record) => {
                let wanted = rules::of_all(&record.publications);
                let called_of_one = match one {
                    Some(_) => firewall.called(Some(&calls::entries(&anchor, &wanted)), false)?.map(by_child),
                    None => None,
                };
                let summary = Summary::new(&record, Count::of(&wanted));
                if let Some(summaries) = summaries.as_mut().filter(|_| record.replaces.is_empty()) {
                    summaries.add(&anchor, &summary);
                }
                let mut shown =
                    summarized(anchor.clone(), summary, &loaded, called_of_one.as_ref().or(called.as_ref()));
                if !record.replaces.is_empty() {
                    // pf may have the previous set, and that may look the same
                    if loaded.is_as_many(Count::of(&rules::of_all(&record.replaces))) {
                        shown.liveness = Liveness::Missing;
                    }
                    shown.problem = Some("a change was interrupted; publish again, or kport apply".to_owned());
                }
                if counters && shown.liveness == Liveness::Live {
                    count_traffic(&mut shown, &wanted, loaded.translations, || firewall.filter_counters(&anchor))?;
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
    inert(survey, &mut listed)?;
    Ok(listed)
}

/// Marks what pf has, but does not evaluate.
fn inert(survey: &Survey<'_>, listed: &mut [Listed]) -> Result<()> {
    let mut live = listed.iter_mut().filter(|listed| listed.liveness == Liveness::Live).peekable();
    if live.peek().is_none() {
        return Ok(());
    }
    // the published ports themselves need no nat
    if let Some(problem) = readiness::unused(survey.host, &survey.firewall.status()?, false) {
        for listed in live {
            listed.liveness = Liveness::Inert;
            listed.problem.get_or_insert_with(|| problem.to_string());
        }
    }
    Ok(())
}

/// Which rules of an anchor are called, by its name.
type ByChild = HashMap<String, Kinds>;

fn by_child(called: Vec<Entry>) -> ByChild {
    let mut all = ByChild::new();
    for entry in called {
        let kinds = all.entry(entry.child).or_default();
        *kinds = kinds.or(entry.kinds);
    }
    all
}

/// A jail's part, without counters.
fn summarized(anchor: Anchor, summary: Summary, loaded: &Loaded, called: Option<&ByChild>) -> Listed {
    let published = !summary.redirects.is_empty();
    let is_called = |called: &ByChild| {
        let Kinds { translates, filters } = called.get(anchor.child()).copied().unwrap_or_default();
        (translates || loaded.translations.is_empty()) && (filters || loaded.filters == 0)
    };
    let live = published && loaded.is_as_many(summary.rules) && called.is_none_or(is_called);
    Listed {
        anchor,
        jail: Some(summary.jail),
        no_jail: summary.no_jail,
        jid: summary.jid,
        since: Some(summary.since),
        liveness: if live { Liveness::Live } else { Liveness::Missing },
        redirects: summary.redirects.into_iter().map(|Shown(redirect)| (redirect, Counters::default())).collect(),
        problem: (!published)
            .then(|| "the jail has lost its address; kport apply publishes again when it has one".to_owned()),
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

/// Sets the counters of each mapping: those of the rules that redirect its connections. For a connection to a jail with its own
/// network stack a pass rule makes two states, one of them on the way out to the jail. Rules are recognized by their position,
/// since pf keeps their order.
fn count_traffic(
    listed: &mut Listed, rules: &[Rule], translations: Vec<Counters>, filters: impl FnOnce() -> Result<Vec<Counters>>,
) -> Result<()> {
    let mut counted: BTreeMap<_, Counters> = BTreeMap::new();
    let mut count = |translates: bool, counters: Vec<Counters>| {
        let of_kind = rules.iter().filter(|r| matches!(r, Rule::Nat { .. } | Rule::Rdr { .. }) == translates);
        let members = of_kind.flat_map(|rule| rule.matches().members().map(move |_| rule));
        for (rule, counters) in members.zip(counters) {
            if let Rule::Rdr { matches, .. } | Rule::AfTo { matches, .. } = rule {
                let mapping = counted.entry((matches.protocol, matches.ports)).or_default();
                *mapping = mapping.plus(counters);
            }
        }
    };
    count(true, translations);
    // which redirects without a translation rule
    if rules.iter().any(|rule| matches!(rule, Rule::AfTo { .. })) {
        count(false, filters()?);
    }
    for (redirect, counters) in &mut listed.redirects {
        *counters = counted.get(&(redirect.protocol, redirect.host)).copied().unwrap_or_default();
    }
    Ok(())
}
