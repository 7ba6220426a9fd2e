//! Packets through a host that has pf: the simulator's answer to "does this arrive, and by which rule".
//!
//! A [`World`] is a host with its interfaces, jails, main ruleset and anchors. [`World::trace`] sends the first
//! packet of a connection through it, and what answers it back, hop by hop as FreeBSD's network stack does: in and
//! out of each interface, translation before filter, states before rules, over lo0 for what the host sends to itself.
//! Where 14 and 15 differ, [`Release`] says which.
//!
//! ```
//! use kport::{host::Fixed, net::Protocol, sim::packet::{MAIN, Release, World}};
//!
//! let host: Fixed = r#"{
//!     "gateway": { "inet": "em0" },
//!     "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
//!                     { "name": "bridge0", "up": true, "groups": [ "bridge" ], "addresses": [ "10.0.0.1/24" ] } ],
//!     "jails": [ { "jid": 2, "name": "web", "vnet": true } ],
//!     "vnet_addresses": { "web": [ "10.0.0.2" ] }
//! }"#.parse()?;
//! let mut world = World::of_host(&host, Release::V15)?;
//! world.load_main(MAIN)?;
//! let (from, to) = ("192.0.2.100:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
//! let sender = world.sender("192.0.2.100".parse().unwrap(), None)?;
//! let trace = world.trace(&sender, Protocol::Tcp, from, to);
//! assert!(!trace.touches("web"), "{trace}");
//! # Ok::<(), kport::error::Error>(())
//! ```
//!
//! Not modelled: fragments, icmp, route-to, binat, time (rates, time-outs), and queues.

mod conf;
mod pf;
mod rule;
mod state;
mod world;

use std::fmt;
use std::net::SocketAddr;

pub use conf::Ruleset;
pub use world::{Jail, World};

use crate::net::{Family, Interface, Protocol};
use crate::rule::Direction;

/// Whose pf. In 14 the first translation rule that matches wins over all; in 15.1 the first of each ruleset, and the
/// ruleset that is looked at last (pf_match_translation_rule in sys/netpfil/pf/pf_lb.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// FreeBSD 14
    V14,
    /// FreeBSD 15.1
    #[default]
    V15,
}

impl Release {
    /// By `kern.osreldate`. 15.0 was not looked at; it is taken for the older one.
    pub const fn of(osreldate: i64) -> Release {
        if osreldate < 1_501_000 { Release::V14 } else { Release::V15 }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        match self {
            Release::V14 => 14,
            Release::V15 => 15,
        }
    }
}

/// A main ruleset to trace with where there is none: what kport asks for, on a host that is closed from outside.
pub const MAIN: &str = "\
set skip on lo
nat-anchor \"kport/*\"
rdr-anchor \"kport/*\"
block in log all
pass out all
pass quick inet6 proto ipv6-icmp
anchor \"kport/*\"
";

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// Whether it starts a connection: a tcp SYN. A rule with `flags S/SA` takes no other tcp packet.
    pub starts: bool,
    tag: Option<String>,
}

impl Packet {
    fn family(&self) -> Family {
        Family::of(self.to.ip())
    }

    fn answer(&self) -> Packet {
        Packet { protocol: self.protocol, from: self.to, to: self.from, starts: false, tag: None }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.from, self.to)
    }
}

/// Who sends a packet, or takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The host's own programs.
    Host,
    /// A jail.
    Jail(String),
    /// Something behind an interface of the host that is no jail.
    Beyond(Interface),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Host => f.write_str("the host"),
            Party::Jail(name) => write!(f, "jail {name}"),
            Party::Beyond(interface) => write!(f, "the network behind {interface}"),
        }
    }
}

/// One step of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
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

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |anchor: &str| if anchor.is_empty() { "pf.conf".to_owned() } else { anchor.to_owned() };
        match self {
            Step::Sent(party, packet) => write!(f, "{packet} from {party}"),
            Step::Hook { direction, on } => write!(f, "  {direction} on {on}"),
            Step::Rule { anchor, text } => write!(f, "    {}: {text}", named(anchor)),
            Step::State { anchor, text } => write!(f, "    state of {}: {text}", named(anchor)),
            Step::Translated(packet) => write!(f, "    now {packet}"),
            Step::Verdict(verdict) => write!(f, "    {verdict}"),
            Step::Delivered(party, address) => write!(f, "  delivered to {party} at {address}"),
            Step::Note(note) => write!(f, "    {note}"),
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
    pub steps: Vec<Step>,
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
