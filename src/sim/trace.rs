//! What is told of a packet's way.

use std::fmt;
use std::net::SocketAddr;

use super::packet::{Packet, Party};
use crate::net::Interface;
use crate::rule::Direction;

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
            TraceStep::Verdict(verdict) => write!(f, "    {verdict}"),
            TraceStep::Delivered(party, address) => write!(f, "  delivered to {party} at {address}"),
            TraceStep::Note(note) => write!(f, "    {note}"),
        }
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was delivered, and so were the answer and the packet after it.
    Answered,
    /// It was delivered, but the connection does not come about.
    Unanswered,
    /// It was not delivered.
    Lost,
}

/// The way of a connection's first packet and of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// In order.
    pub steps: Vec<TraceStep>,
    /// The end of it.
    pub verdict: Verdict,
    /// Who got the packet, and at which of its addresses.
    pub delivered_to: Option<(Party, SocketAddr)>,
}

impl Trace {
    /// Whether the connection comes about with this jail.
    pub fn reaches(&self, jail: &str) -> bool {
        self.verdict == Verdict::Answered && self.touches(jail)
    }

    /// Whether the packet gets to this jail, whatever becomes of the answer.
    pub fn touches(&self, jail: &str) -> bool {
        matches!(&self.delivered_to, Some((Party::Jail(name), _)) if name == jail)
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        f.write_str(match self.verdict {
            Verdict::Answered => "arrives, and is answered",
            Verdict::Unanswered => "arrives, but the connection does not come about",
            Verdict::Lost => "does not arrive",
        })
    }
}
