//! Follows every path that a packet may take, one run for each: if something cannot be decided, a run takes one answer,
//! and the next run another. The result is what all runs agree on; otherwise it depends on their assumptions.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;

use super::matching::Assumed;
use super::packet::Party;
use super::steps::{Looked, Verdict};

/// The maximum number of runs. If there are more, the verdict is [`Verdict::Depends`].
const MOST_RUNS: usize = 256;

/// One run: the answers that it picks, and its assumptions.
#[derive(Debug, Default)]
pub(super) struct Choices {
    picks: Vec<usize>,
    /// The number of answers of each pick.
    of: Vec<usize>,
    pub assumed: Vec<Assumed>,
    /// Set if kport cannot follow the packet: the result depends on this.
    pub gave_up: Option<String>,
    pub looked: Looked,
}

impl Choices {
    /// Picks one of `answers`, by its number.
    pub(super) fn pick(&mut self, answers: usize) -> usize {
        let at = self.of.len();
        self.of.push(answers);
        if at == self.picks.len() {
            self.picks.push(0);
        }
        self.picks[at].min(answers.saturating_sub(1))
    }

    /// One of the `answers` to a question, the same whenever it is asked in this run.
    pub(super) fn assume(&mut self, what: &str, answers: usize) -> usize {
        if let Some(before) = self.assumed.iter().find(|assumed| assumed.what == what) {
            return before.answer;
        }
        let answer = self.pick(answers);
        self.assumed.push(Assumed { what: what.to_owned(), answer, pool: false, of_packet: false });
        answer
    }

    /// The next run; `None` after the last one.
    fn next(self) -> Option<Choices> {
        let mut picks = self.picks;
        picks.truncate(self.of.len());
        while let Some(pick) = picks.pop() {
            if pick + 1 < self.of[picks.len()] {
                picks.push(pick + 1);
                return Some(Choices { picks, ..Choices::default() });
            }
        }
        None
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
struct RunEnd {
    verdict: Verdict,
    delivered: Option<(Party, SocketAddr)>,
    assumed: Vec<Assumed>,
}

/// The common result of all runs.
pub(super) struct Agreed<T> {
    /// Of the first run.
    pub first: T,
    pub verdict: Verdict,
    /// Whether the packet was delivered in every run, to the same receiver.
    pub arrives: bool,
    /// The receiver of the packet in the first run.
    pub delivered: Option<(Party, SocketAddr)>,
    pub possible: Vec<(Party, SocketAddr)>,
    pub depends_on: Vec<String>,
    pub looked: Looked,
}

/// Makes runs until each answer was taken. `run` returns what is shown, the verdict, and the receiver.
pub(super) fn all_runs<T>(mut run: impl FnMut(&mut Choices) -> (T, Verdict, Option<(Party, SocketAddr)>)) -> Agreed<T> {
    let mut ends: Vec<RunEnd> = vec![];
    let mut depends: BTreeSet<String> = BTreeSet::new();
    let mut next = Choices::default();
    let (first, verdict, delivered) = run(&mut next);
    ends.push(RunEnd { verdict, delivered: delivered.clone(), assumed: next.assumed.clone() });
    let looked = next.looked;
    depends.extend(next.gave_up.take());
    while let Some(mut this) = next.next() {
        if ends.len() >= MOST_RUNS {
            depends.insert(format!("more than {MOST_RUNS} paths are possible"));
            break;
        }
        let (_, verdict, delivered) = run(&mut this);
        depends.extend(this.gave_up.take());
        ends.push(RunEnd { verdict, delivered, assumed: this.assumed.clone() });
        next = this;
    }
    depends.extend(hangs_on(&ends, |end| end.verdict, |_| true));
    // the receiver is part of the result; which address of a pool was used is not
    depends.extend(hangs_on(&ends, |end| end.delivered.clone(), |assumed| !assumed.pool));
    let mut seen = HashSet::new();
    let possible = ends.iter().filter_map(|end| end.delivered.clone()).filter(|at| seen.insert(at.clone())).collect();
    let verdict = if depends.is_empty() { ends[0].verdict } else { Verdict::Depends };
    let arrives = ends.iter().all(|end| end.delivered.is_some() && end.delivered == delivered);
    Agreed { first, verdict, arrives, delivered, possible, depends_on: depends.into_iter().collect(), looked }
}

/// The assumptions that make a difference: different answers lead to different ends.
fn hangs_on<V: PartialEq + Clone>(
    ends: &[RunEnd],
    what: impl Fn(&RunEnd) -> V,
    counts: impl Fn(&Assumed) -> bool,
) -> Vec<String> {
    let values: Vec<V> = ends.iter().map(&what).collect();
    if values.iter().all(|value| *value == values[0]) {
        return vec![];
    }
    let mut names: Vec<&Assumed> = vec![];
    for assumed in ends.iter().flat_map(|end| &end.assumed).filter(|assumed| counts(assumed)) {
        if !names.iter().any(|name| name.what == assumed.what) {
            names.push(assumed);
        }
    }
    // the ends of one answer, without order and duplicates
    let of = |name: &str, answer: Option<usize>| {
        let mut found: Vec<V> = vec![];
        for (end, value) in ends.iter().zip(&values) {
            let taken = end.assumed.iter().find(|a| a.what == name).map(|a| a.answer);
            if taken == answer && !found.contains(value) {
                found.push(value.clone());
            }
        }
        found
    };
    let same = |a: &[V], b: &[V]| a.len() == b.len() && a.iter().all(|value| b.contains(value));
    let matters = |name: &&Assumed| {
        let mut answers: Vec<usize> =
            ends.iter().flat_map(|end| &end.assumed).filter(|a| a.what == name.what).map(|a| a.answer).collect();
        answers.sort_unstable();
        answers.dedup();
        let sets: Vec<Vec<V>> = answers.iter().map(|answer| of(&name.what, Some(*answer))).collect();
        sets.iter().any(|set| !same(set, &sets[0]))
    };
    let shown = |name: &&Assumed| name.what.clone();
    let found: Vec<String> = names.iter().copied().filter(|name| matters(name)).map(|name| shown(&name)).collect();
    // none alone: all of them together
    if found.is_empty() { names.iter().map(shown).collect() } else { found }
}
