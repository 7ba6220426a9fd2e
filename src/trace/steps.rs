//! The report about a packet's path.

use std::fmt;
use std::net::SocketAddr;

use super::packet::{Packet, Party};
use crate::net::Direction;
use crate::net::Interface;

/// One step of a packet's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    Sent(Party, Packet),
    Hook {
        direction: Direction,
        on: Interface,
    },
    /// A rule matches; the last one decides, unless one is quick.
    Rule {
        /// Empty for the main ruleset.
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
        /// The anchor of the rule that created it; empty for the main ruleset.
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
    /// Anything else that happens to it.
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
