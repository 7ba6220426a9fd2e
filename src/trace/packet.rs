//! A packet, its sender, and the release of pf that evaluates it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::error::{Error, Result, error, quoted};
use crate::host::Host;
use crate::net::{Family, Interface, Protocol};
use crate::pfconf::names;

/// The release of FreeBSD whose pf evaluates. In 14 the first translation rule that matches wins; in 15.1 the first one
/// of each ruleset, and of these the last (pf_match_translation_rule in sys/netpfil/pf/pf_lb.c).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    V14,
    #[default]
    V15,
}

impl Release {
    /// By `kern.osreldate`. 15.0 was not examined; it counts as 14.
    pub const fn of(osreldate: i64) -> Release {
        if osreldate < 1_501_000 { Release::V14 } else { Release::V15 }
    }

    /// That of a host; the newest if it is unknown.
    pub fn of_host(host: &dyn Host) -> Result<Release> {
        Ok(host.sysctl("kern.osreldate")?.map(Release::of).unwrap_or_default())
    }

    pub const fn number(self) -> u32 {
        match self {
            Release::V14 => 14,
            Release::V15 => 15,
        }
    }
}

/// A protocol of IP, by its number (protocols(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    pub const ICMP: IpProtocol = IpProtocol(1);
    pub const ICMP6: IpProtocol = IpProtocol(58);

    pub fn with_ports(self) -> Option<Protocol> {
        Protocol::numbered(self.0)
    }

    /// Whether pf translates its ports, or its id (pf_get_sport in pf_lb.c).
    pub(super) fn has_translated_ports(self) -> bool {
        matches!(self.with_ports(), Some(Protocol::Tcp | Protocol::Udp))
    }

    pub(super) fn is_icmp(self) -> bool {
        self == IpProtocol::ICMP || self == IpProtocol::ICMP6
    }
}

impl From<Protocol> for IpProtocol {
    fn from(protocol: Protocol) -> IpProtocol {
        IpProtocol(protocol.number())
    }
}

impl FromStr for IpProtocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<IpProtocol> {
        let unknown =
            || error!(Argument, "{} is not a protocol: tcp, udp, sctp, icmp, icmp6 or a number", quoted(text));
        names::protocol(text).map(IpProtocol).ok_or_else(unknown)
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IpProtocol::ICMP6 => f.write_str("icmp6"),
            IpProtocol(number) => f.write_str(&names::protocol_name(number)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub protocol: IpProtocol,
    /// Where it comes from. The port of an ICMP query is its id.
    pub from: SocketAddr,
    /// Where it goes. The port of an ICMP query is its type.
    pub to: SocketAddr,
    pub flags: u16,
    pub icmp: Option<(u8, u8)>,
    pub tag: Option<String>,
    /// The interface that it came in on; `None` for what the host sends.
    pub(super) received_on: Option<Interface>,
    /// What an ICMP error is about.
    pub(super) about: Option<Box<Packet>>,
    pub(super) fib: u32,
}

pub(super) const SYN: u16 = 0x02;
const ACK: u16 = 0x10;
/// The query of each pair of ICMP types, and its answer (pf_icmp_mapping in sys/netpfil/pf/pf.c).
fn queries(inet6: bool) -> &'static [(u8, u8)] {
    if inet6 { &[(128, 129), (135, 136), (201, 200)] } else { &[(8, 0), (13, 14), (15, 16), (17, 18), (10, 9)] }
}

impl Packet {
    /// The first packet of a connection; of ICMP an echo request.
    pub fn first(protocol: impl Into<IpProtocol>, from: SocketAddr, to: SocketAddr) -> Packet {
        let protocol = protocol.into();
        match protocol {
            IpProtocol::ICMP => Packet::icmp(8, 0, from, to),
            IpProtocol::ICMP6 => Packet::icmp(128, 0, from, to),
            _ => Packet::plain(protocol, from, to, SYN),
        }
    }

    /// An ICMP packet of the family of its addresses. The port of the source is the id of a query.
    pub fn icmp(kind: u8, code: u8, from: SocketAddr, to: SocketAddr) -> Packet {
        let inet6 = to.is_ipv6();
        let protocol = if inet6 { IpProtocol::ICMP6 } else { IpProtocol::ICMP };
        let (mut from, mut to) = (from, to);
        // the id is on the side that sent the query, the type of the query on the other
        let queries = queries(inet6);
        match queries.iter().find(|(_, answer)| *answer == kind) {
            Some((query, _)) => {
                to.set_port(from.port());
                from.set_port((*query).into());
            }
            None => {
                if !queries.iter().any(|(query, _)| *query == kind) {
                    from.set_port(0);
                }
                to.set_port(kind.into());
            }
        }
        Packet { icmp: Some((kind, code)), ..Packet::plain(protocol, from, to, 0) }
    }

    fn plain(protocol: IpProtocol, from: SocketAddr, to: SocketAddr, flags: u16) -> Packet {
        let flags = if protocol.with_ports() == Some(Protocol::Tcp) { flags } else { 0 };
        Packet { protocol, from, to, flags, icmp: None, tag: None, received_on: None, about: None, fib: 0 }
    }

    /// The "port unreachable" error about a packet.
    pub(super) fn unreachable(about: &Packet) -> Packet {
        let (kind, code) = if about.to.is_ipv6() { (1, 4) } else { (3, 3) };
        let port_of_error = |address: SocketAddr| SocketAddr::new(address.ip(), 0);
        let made = Packet::icmp(kind, code, port_of_error(about.to), port_of_error(about.from));
        Packet { about: Some(Box::new(about.clone())), ..made }
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.to.ip())
    }

    pub(super) fn is_icmp_error(&self) -> bool {
        match (self.protocol, self.icmp) {
            (IpProtocol::ICMP, Some((kind, _))) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (IpProtocol::ICMP6, Some((kind, _))) => matches!(kind, 1..=4),
            _ => false,
        }
    }

    pub(super) fn answer(&self) -> Option<Packet> {
        let icmp = match self.icmp {
            Some((kind, _)) => Some((queries(self.to.is_ipv6()).iter().find(|(query, _)| *query == kind)?.1, 0)),
            None => None,
        };
        Some(Packet { icmp, ..Packet::plain(self.protocol, self.to, self.from, SYN | ACK) })
    }

    pub(super) fn next(&self) -> Packet {
        Packet { icmp: self.icmp, ..Packet::plain(self.protocol, self.from, self.to, ACK) }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol.with_ports().is_some() {
            return write!(f, "{} {} -> {}", self.protocol, self.from, self.to);
        }
        write!(f, "{}", self.protocol)?;
        if let Some((kind, _)) = self.icmp {
            write!(f, " {}", names::icmp_type_name(kind, self.protocol == IpProtocol::ICMP6))?;
        }
        write!(f, " {} -> {}", self.from.ip(), self.to.ip())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    Host,
    Jail(String),
    /// Another host, behind an interface of this one.
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
