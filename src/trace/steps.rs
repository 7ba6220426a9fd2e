//! The report about a packet's path. Every path that it may take is followed, one run for each: if something cannot be decided, a
//! run takes one answer, and the next run another. The result is what all runs agree on; otherwise it depends on their assumptions.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::net::SocketAddr;

use super::matching::Assumed;
use super::packet::{Packet, Party};
use crate::net::{Direction, Interface};

/// The maximum number of runs. If there are more, the verdict is [`Verdict::Depends`].
const MOST_RUNS: usize = 256;

/// One run: the answers that it picks, its assumptions, and its steps.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Each pick, and the number of its answers; those after `made` are of the run before.
    picks: Vec<(usize, usize)>,
    made: usize,
    pub assumed: Vec<Assumed>,
    /// Set if kport cannot follow the packet: the result depends on this.
    pub gave_up: Option<String>,
    pub looked: Looked,
    pub steps: Vec<TraceStep>,
    /// What was supposed, as in [`Pf`](super::state::Pf).
    pub undecided: BTreeSet<String>,
    /// How often pf has routed the packet.
    pub routed: usize,
}

impl Run {
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.steps.push(TraceStep::Note(text.into()));
    }

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
    fn next(self) -> Option<Run> {
        let mut picks = self.picks;
        picks.truncate(self.made);
        while let Some((pick, answers)) = picks.pop() {
            if pick + 1 < answers {
                picks.push((pick + 1, answers));
                return Some(Run { picks, ..Run::default() });
            }
        }
        None
    }
}

pub(super) type Delivered = Option<(Party, SocketAddr)>;

struct RunEnd {
    verdict: Verdict,
    delivered: Delivered,
    assumed: Vec<Assumed>,
}

/// Makes runs until each answer was taken. The first one is shown.
pub(super) fn all_runs(mut run: impl FnMut(&mut Run) -> (Verdict, Delivered)) -> Trace {
    let mut depends: BTreeSet<String> = BTreeSet::new();
    let mut ends: Vec<RunEnd> = vec![];
    let mut shown = None;
    let mut next = Some(Run::default());
    while let Some(mut this) = next {
        if ends.len() >= MOST_RUNS {
            depends.insert(format!("more than {MOST_RUNS} paths are possible"));
            break;
        }
        let (verdict, delivered) = run(&mut this);
        depends.extend(this.gave_up.take());
        shown.get_or_insert((std::mem::take(&mut this.steps), verdict, delivered.clone(), this.looked));
        ends.push(RunEnd { verdict, delivered, assumed: std::mem::take(&mut this.assumed) });
        next = this.next();
    }
    depends.extend(hangs_on(&ends, |end| &end.verdict, |_| true));
    // the receiver is part of the result; which address of a pool was used is not
    depends.extend(hangs_on(&ends, |end| &end.delivered, |assumed| !assumed.pool));
    let (steps, verdict, delivered_to, looked) = shown.unwrap_or((vec![], Verdict::Lost, None, Looked::default()));
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
fn hangs_on<V: Eq + Hash>(
    ends: &[RunEnd], what: impl Fn(&RunEnd) -> &V, counts: impl Fn(&Assumed) -> bool,
) -> Vec<String> {
    if ends.iter().all(|end| what(end) == what(&ends[0])) {
        return vec![];
    }
    let assumed = ends.iter().flat_map(|end| &end.assumed).filter(|assumed| counts(assumed));
    let mut seen = HashSet::new();
    let names: Vec<&str> = assumed.map(|assumed| &*assumed.what).filter(|what| seen.insert(*what)).collect();
    let matters = |name: &&str| {
        let mut by_answer: HashMap<usize, HashSet<&V>> = HashMap::new();
        for end in ends {
            if let Some(assumed) = end.assumed.iter().find(|assumed| assumed.what == *name) {
                by_answer.entry(assumed.answer).or_default().insert(what(end));
            }
        }
        let mut found = by_answer.values();
        let first = found.next();
        found.any(|other| Some(other) != first)
    };
    let found: Vec<&str> = names.iter().copied().filter(matters).collect();
    // none alone: all of them together
    if found.is_empty() { names } else { found }.into_iter().map(str::to_owned).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    Sent(Party, Packet),
    Hook {
        direction: Direction,
        on: Interface,
    },
    /// A rule matches; the last one decides, unless one is quick.
    Rule {
        anchor: String,
        text: String,
    },
    /// A rule of kport's calls an anchor.
    Call {
        anchor: String,
        text: String,
    },
    /// No rule matches, and the default rule blocks: `net.pf.default_to_drop`.
    DefaultRule,
    /// The packet belongs to a state.
    State {
        anchor: String,
        text: String,
    },
    Translated(Packet),
    /// Whether a rule matches cannot be decided; both possibilities were followed, and this one is shown.
    Undecided {
        what: String,
        /// Whether it matches in the case that is shown.
        taken: bool,
    },
    Verdict(String),
    Delivered(Party, SocketAddr),
    Note(String),
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |anchor: &str| if anchor.is_empty() { "pf.conf".to_owned() } else { anchor.to_owned() };
        match self {
            TraceStep::Sent(party, packet) => write!(f, "{packet} from {party}"),
            TraceStep::Hook { direction, on } => write!(f, "  {direction} on {on}"),
            TraceStep::Rule { anchor, text } | TraceStep::Call { anchor, text } => {
                write!(f, "    {}: {text}", named(anchor))
            }
            TraceStep::DefaultRule => f.write_str("    the default rule: block (net.pf.default_to_drop)"),
            TraceStep::State { anchor, text } => write!(f, "    state of {}: {text}", named(anchor)),
            TraceStep::Translated(packet) => write!(f, "    now {packet}"),
            TraceStep::Undecided { what, taken } => {
                write!(f, "    cannot be decided, taken as {}: {what}", if *taken { "a match" } else { "no match" })
            }
            TraceStep::Verdict(verdict) => write!(f, "    {verdict}"),
            TraceStep::Delivered(party, address) => write!(f, "  delivered to {party} at {address}"),
            TraceStep::Note(note) => write!(f, "    {note}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was delivered, and so were the answer and the packet after it.
    Answered,
    /// It was delivered, and such a packet has no answer.
    Delivered,
    /// It was delivered to the host's stack, where nothing listens, and the refusal arrives at the sender.
    Refused,
    /// It was delivered, but no connection is established.
    Unanswered,
    Lost,
    /// It depends on what cannot be decided: [`Trace::depends_on`].
    Depends,
}

/// What pf evaluates for a packet, at all interfaces together, without the answer. pf skips rules in a row that fail
/// for the same reason; here each of them counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub anchors: u64,
    pub rules: u64,
}

/// The path of a connection's first packet and of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub steps: Vec<TraceStep>,
    pub verdict: Verdict,
    /// Whether the packet arrives at one receiver, whatever the verdict depends on.
    pub arrives: bool,
    /// The receiver of the packet, and its address; if several are possible, the first.
    pub delivered_to: Option<(Party, SocketAddr)>,
    /// Each possible receiver: more than one if a pool has several addresses, or if the verdict depends.
    pub possible: Vec<(Party, SocketAddr)>,
    /// What the verdict depends on: the rules that cannot be decided, each with the reason.
    pub depends_on: Vec<String>,
    pub looked: Looked,
}

impl Trace {
    /// Whether a connection with this jail is established, or would be if something listened there.
    pub fn reaches(&self, jail: &str) -> bool {
        matches!(self.verdict, Verdict::Answered | Verdict::Delivered | Verdict::Refused) && self.touches(jail)
    }

    /// Whether the packet arrives at this jail, whatever becomes of the answer.
    pub fn touches(&self, jail: &str) -> bool {
        let ours = |(party, _): &(Party, SocketAddr)| matches!(party, Party::Jail(name) if name == jail);
        !self.possible.is_empty() && self.possible.iter().all(ours)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        if self.possible.len() > 1 {
            let all: Vec<String> = self.possible.iter().map(|(party, at)| format!("{party} at {at}")).collect();
            writeln!(f, "one of {}", all.join(", "))?;
        }
        f.write_str(match self.verdict {
            Verdict::Answered => "arrives, and is answered",
            Verdict::Delivered => "arrives, and needs no answer",
            Verdict::Refused => "arrives, but nothing listens there",
            Verdict::Unanswered => "arrives, but the connection is not established",
            Verdict::Lost => "does not arrive",
            Verdict::Depends if self.arrives => "arrives; whether it is answered depends on",
            Verdict::Depends => "depends on what cannot be decided here:",
        })?;
        match (&self.depends_on[..], self.arrives) {
            ([what], true) => write!(f, " {what}"),
            (all, _) => all.iter().try_for_each(|what| write!(f, "\n  {what}")),
        }?;
        Ok(())
    }
}
