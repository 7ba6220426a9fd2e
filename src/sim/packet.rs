//! A packet, and whose pf it meets.

use std::fmt;
use std::net::SocketAddr;

use crate::net::{Family, Interface, Protocol};

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
    pub(super) tag: Option<String>,
}

impl Packet {
    pub(super) fn family(&self) -> Family {
        Family::of(self.to.ip())
    }

    pub(super) fn answer(&self) -> Packet {
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
    Network(Interface),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Party::Host => f.write_str("the host"),
            Party::Jail(name) => write!(f, "jail {name}"),
            Party::Network(interface) => write!(f, "the network behind {interface}"),
        }
    }
}
