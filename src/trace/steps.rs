//! What is told of a packet's way.

use std::fmt;
use std::net::SocketAddr;

use super::packet::{Packet, Party};
use crate::net::Direction;
use crate::net::Interface;

/// One step of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// The packet sets out.
    Sent(Party, Packet),
    /// pf looks at it.
    Hook {
        /// Which way.
        direction: Direction,
        /// At which interface.
        on: Interface,
    },
    /// A rule matches; the last that does decides, unless it is quick.
    Rule {
        /// Empty for the main ruleset.
        anchor: String,
        /// The rule.
        text: String,
    },
    /// The packet belongs to a state.
    State {
        /// The anchor of the rule that made it; empty for the main ruleset.
        anchor: String,
        /// The rule that made it.
        text: String,
    },
    /// The packet as it is from here on.
    Translated(Packet),
    /// Whether a rule matches cannot be decided; both ways were followed, and this one is shown.
    Undecided {
        /// Which rule, and what it hangs on.
        what: String,
        /// On the way that is shown it matches.
        taken: bool,
    },
    /// What pf decides.
    Verdict(String),
    /// The packet is where it belongs.
    Delivered(Party, SocketAddr),
    /// What else happens to it.
    Note(String),
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |anchor: &str| if anchor.is_empty() { "pf.conf".to_owned() } else { anchor.to_owned() };
        match self {
            TraceStep::Sent(party, packet) => write!(f, "{packet} from {party}"),
            TraceStep::Hook { direction, on } => write!(f, "  {direction} on {on}"),
            TraceStep::Rule { anchor, text } => write!(f, "    {}: {text}", named(anchor)),
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

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was delivered, and so were the answer and the packet after it.
    Answered,
    /// It was delivered, and nothing answers such a packet.
    Delivered,
    /// It was delivered to the host or a jail on its stack, where nothing listens, and the refusal gets back.
    Refused,
    /// It was delivered, but the connection does not come about.
    Unanswered,
    /// It was not delivered.
    Lost,
    /// That hangs on what cannot be decided here: [`Trace::depends_on`].
    Depends,
}

/// What pf has looked at on a packet's way, at all interfaces together, the answer left out. pf passes over rules in a row that
/// fail for the same reason; here each counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Anchors entered.
    pub anchors: u64,
    /// Rules compared.
    pub rules: u64,
}

/// The way of a connection's first packet and of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// In order.
    pub steps: Vec<TraceStep>,
    /// The end of it.
    pub verdict: Verdict,
    /// Who got the packet, and at which of its addresses; where several are possible, the first.
    pub delivered_to: Option<(Party, SocketAddr)>,
    /// Everybody who may get it: more than one where a pool has several addresses, or where it depends.
    pub possible: Vec<(Party, SocketAddr)>,
    /// What the verdict hangs on: the rules that cannot be decided, each with the reason.
    pub depends_on: Vec<String>,
    /// What pf had to look at.
    pub looked: Looked,
}

impl Trace {
    /// Whether the connection comes about with this jail, or would if something listened there.
    pub fn reaches(&self, jail: &str) -> bool {
        matches!(self.verdict, Verdict::Answered | Verdict::Delivered | Verdict::Refused) && self.touches(jail)
    }

    /// Whether the packet gets to this jail, whatever becomes of the answer.
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
            Verdict::Unanswered => "arrives, but the connection does not come about",
            Verdict::Lost => "does not arrive",
            Verdict::Depends => "depends on what cannot be decided here:",
        })?;
        for what in &self.depends_on {
            write!(f, "\n  {what}")?;
        }
        Ok(())
    }
}
