//! Follows every path that a packet may take, one run for each: if something cannot be decided, a run takes one answer,
//! and the next run another. The result is what all runs agree on; otherwise it depends on their assumptions.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;

use super::matching::Assumed;
use super::packet::Party;
use super::steps::{Looked, Trace, TraceStep, Verdict};

/// The maximum number of runs. If there are more, the verdict is [`Verdict::Depends`].
const MOST_RUNS: usize = 256;

/// One run: the answers that it picks, and its assumptions.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// Each pick, and the number of its answers; those after `made` are of the run before.
    picks: Vec<(usize, usize)>,
    made: usize,
    pub assumed: Vec<Assumed>,
    /// Set if kport cannot follow the packet: the result depends on this.
    pub gave_up: Option<String>,
    pub looked: Looked,
}

impl Choices {
    pub(super) fn pick(&mut self, answers: usize) -> usize {
        if self.made == self.picks.len() {
            self.picks.push((0, answers));
        }
        let (pick, of) = &mut self.picks[self.made];
        self.made += 1;
        *of = answers;
        (*pick).min(answers.saturating_sub(1))
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
        picks.truncate(self.made);
        while let Some((pick, answers)) = picks.pop() {
            if pick + 1 < answers {
                picks.push((pick + 1, answers));
                return Some(Choices { picks, ..Choices::default() });
            }
        }
        None
    }
}

/// The receiver of a packet, and its address.
pub(super) type Delivered = Option<(Party, SocketAddr)>;

struct RunEnd {
    verdict: Verdict,
    delivered: Delivered,
    assumed: Vec<Assumed>,
}

/// Makes runs until each answer was taken. The first one is shown.
pub(super) fn all_runs(mut run: impl FnMut(&mut Choices) -> (Vec<TraceStep>, Verdict, Delivered)) -> Trace {
    let mut depends: BTreeSet<String> = BTreeSet::new();
    let mut this = Choices::default();
    let (steps, verdict, delivered_to) = run(&mut this);
    let looked = this.looked;
    depends.extend(this.gave_up.take());
    let mut ends =
        vec![RunEnd { verdict, delivered: delivered_to.clone(), assumed: std::mem::take(&mut this.assumed) }];
    while let Some(mut next) = this.next() {
        if ends.len() >= MOST_RUNS {
            depends.insert(format!("more than {MOST_RUNS} paths are possible"));
            break;
        }
        let (_, verdict, delivered) = run(&mut next);
        depends.extend(next.gave_up.take());
        ends.push(RunEnd { verdict, delivered, assumed: std::mem::take(&mut next.assumed) });
        this = next;
    }
    depends.extend(hangs_on(&ends, |end| &end.verdict, |_| true));
    // the receiver is part of the result; which address of a pool was used is not
    depends.extend(hangs_on(&ends, |end| &end.delivered, |assumed| !assumed.pool));
    let mut seen = HashSet::new();
    Trace {
        steps,
        verdict: if depends.is_empty() { verdict } else { Verdict::Depends },
        arrives: ends.iter().all(|end| end.delivered.is_some() && end.delivered == delivered_to),
        possible: ends.into_iter().filter_map(|end| end.delivered).filter(|at| seen.insert(at.clone())).collect(),
        delivered_to,
        depends_on: depends.into_iter().collect(),
        looked,
    }
}

/// The assumptions that make a difference: different answers lead to different ends.
fn hangs_on<V: PartialEq>(
    ends: &[RunEnd],
    what: impl Fn(&RunEnd) -> &V,
    counts: impl Fn(&Assumed) -> bool,
) -> Vec<String> {
    if ends.iter().all(|end| what(end) == what(&ends[0])) {
        return vec![];
    }
    let mut names: Vec<&str> = vec![];
    for assumed in ends.iter().flat_map(|end| &end.assumed).filter(|assumed| counts(assumed)) {
        if !names.contains(&&*assumed.what) {
            names.push(&assumed.what);
        }
    }
    let matters = |name: &&str| {
        // the ends of each answer, without order and duplicates
        let mut by_answer: BTreeMap<usize, Vec<&V>> = BTreeMap::new();
        for end in ends {
            if let Some(assumed) = end.assumed.iter().find(|assumed| assumed.what == *name) {
                let found = by_answer.entry(assumed.answer).or_default();
                if !found.contains(&what(end)) {
                    found.push(what(end));
                }
            }
        }
        let same = |a: &[&V], b: &[&V]| a.len() == b.len() && a.iter().all(|value| b.contains(value));
        by_answer.values().zip(by_answer.values().skip(1)).any(|(a, b)| !same(a, b))
    };
    let found: Vec<String> = names.iter().copied().filter(matters).map(str::to_owned).collect();
    // none alone: all of them together
    if found.is_empty() { names.into_iter().map(str::to_owned).collect() } else { found }
}
