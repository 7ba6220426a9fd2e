//! Addresses and ports of a rule: `from`, `to`, tables, and the pools for translation and routing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::{Family, PortRange};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operand {
    #[default]
    Any,
    Network(IpNet),
    Range(IpAddr, IpAddr),
    Interface(OfInterface),
    Table(String),
    NoRoute,
    UrpfFailed,
    /// A host name, which pfctl looks up when it loads the rule.
    Named(String),
}

/// `(em0:network)`, `em0`, `(self)`: the addresses of an interface, of a group's interfaces, or of all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OfInterface {
    /// `self` is every interface.
    pub name: String,
    pub part: Part,
    /// `:0`: without aliases.
    pub first: bool,
    /// In brackets: the current addresses. Without brackets, pfctl creates a rule for each address when it loads.
    pub dynamic: bool,
    pub bits: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    Address,
    Network,
    Broadcast,
    Peer,
}

impl Operand {
    pub fn family(&self) -> Option<Family> {
        match self {
            Operand::Network(network) => Some(Family::of(network.addr())),
            Operand::Range(first, _) => Some(Family::of(*first)),
            _ => None,
        }
    }

    /// Whether pf treats it as several, whatever addresses it has (DYNIF_MULTIADDR in sbin/pfctl/parse.y, and tables).
    pub fn is_several(&self) -> bool {
        match self {
            Operand::Table(_) => true,
            Operand::Interface(of) => of.dynamic && !(of.first && of.name.ends_with(|c: char| c.is_ascii_digit())),
            _ => false,
        }
    }
}

/// An operator of ports and of users, with its two numbers or names (pf_match in sys/netpfil/pf/pf.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared<N> {
    pub operator: Operator,
    pub a: N,
    /// 0, or empty, for operators with one.
    pub b: N,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// `a >< b`, without a and b
    Between,
    Outside,
    Range,
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

pub type Ports = Compared<u16>;

impl Operator {
    pub fn sign(self) -> &'static str {
        match self {
            Operator::Between => "><",
            Operator::Outside => "<>",
            Operator::Range => ":",
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Less => "<",
            Operator::AtMost => "<=",
            Operator::Greater => ">",
            Operator::AtLeast => ">=",
        }
    }

    pub fn takes_two(self) -> bool {
        matches!(self, Operator::Between | Operator::Outside | Operator::Range)
    }
}

impl<N: Copy + PartialOrd> Compared<N> {
    pub fn holds(self, number: N) -> bool {
        let (a, b) = (self.a, self.b);
        match self.operator {
            Operator::Between => number > a && number < b,
            Operator::Outside => number < a || number > b,
            Operator::Range => number >= a && number <= b,
            Operator::Equal => number == a,
            Operator::NotEqual => number != a,
            Operator::Less => number < a,
            Operator::AtMost => number <= a,
            Operator::Greater => number > a,
            Operator::AtLeast => number >= a,
        }
    }
}

impl Ports {
    /// The first ports from which on it may hold, or not hold any more.
    pub fn edges(self) -> impl Iterator<Item = u16> {
        let numbers = [Some(self.a), self.operator.takes_two().then_some(self.b)].into_iter().flatten();
        numbers.flat_map(|port| [Some(port), port.checked_add(1)]).flatten()
    }

    /// The ports as one range; `None` if they are not one.
    pub fn range(self) -> Option<PortRange> {
        let (a, b) = (self.a, self.b);
        match self.operator {
            Operator::Equal => PortRange::new(a, a),
            Operator::Greater => PortRange::new(a.checked_add(1)?, u16::MAX),
            Operator::AtLeast => PortRange::new(a.max(1), u16::MAX),
            Operator::Less => PortRange::new(1, a.checked_sub(1)?),
            Operator::AtMost => PortRange::new(1, a),
            Operator::Between => PortRange::new(a.checked_add(1)?, b.checked_sub(1)?),
            Operator::Range => PortRange::new(a.max(1), b),
            Operator::Outside | Operator::NotEqual => None,
        }
    }
}

impl From<PortRange> for Ports {
    fn from(ports: PortRange) -> Ports {
        let (a, b) = (ports.first(), ports.last());
        if a == b {
            Compared { operator: Operator::Equal, a, b: 0 }
        } else {
            Compared { operator: Operator::Range, a, b }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub not: bool,
    pub address: Operand,
    pub ports: Option<Ports>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolKind {
    #[default]
    Single,
    /// The network of the pool, the rest from the original address.
    Bitmask,
    Random,
    /// With its key, as written.
    SourceHash(String),
    RoundRobin,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolAddress {
    /// `(em0 192.0.2.254)` of route-to, reply-to and dup-to.
    pub interface: Option<String>,
    /// `None` for an interface alone.
    pub address: Option<Operand>,
}

impl From<Operand> for PoolAddress {
    fn from(address: Operand) -> PoolAddress {
        PoolAddress { interface: None, address: Some(address) }
    }
}

/// The addresses after `->`, `nat-to`, `rdr-to`, `af-to`, `route-to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub addresses: Vec<PoolAddress>,
    /// `port a:b`: 0, 0 if none is given (proxy_port).
    pub ports: (u16, u16),
    pub kind: PoolKind,
    pub sticky: bool,
    pub static_port: bool,
    pub endpoint_independent: bool,
    pub portset: Option<(u8, u8, u16)>,
    pub prefer_ipv6_nexthop: bool,
}

impl Pool {
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        self.addresses.iter().filter_map(|at| at.address.as_ref())
    }

    pub fn family(&self) -> Option<Family> {
        self.operands().find_map(Operand::family)
    }
}

/// The addresses of a pf table; the longest entry that holds an address decides (pfr_match_addr in pf_table.c).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    networks: BTreeMap<IpNet, bool>,
    /// The lengths of its entries, of each family: only these are looked up.
    lengths: BTreeSet<(Family, u8)>,
    /// Names of interfaces and hosts, which pfctl looks up when it fills the table.
    pub others: Vec<(bool, Operand)>,
}

impl Table {
    pub fn insert(&mut self, network: IpNet, not: bool) {
        self.lengths.insert((Family::of(network.addr()), network.prefix_len()));
        self.networks.insert(network.trunc(), not);
    }

    pub fn is_empty(&self) -> bool {
        self.networks.values().all(|not| *not) && self.others.iter().all(|(not, _)| *not)
    }

    pub fn networks(&self) -> impl Iterator<Item = (bool, IpNet)> {
        self.networks.iter().map(|(network, not)| (*not, *network))
    }

    /// Whether the longest entry that contains an address is negated; `None` if no entry contains it.
    pub fn longest(&self, address: IpAddr) -> Option<bool> {
        let family = Family::of(address);
        let mut lengths = self.lengths.range((family, 0)..=(family, u8::MAX)).rev();
        lengths.find_map(|(_, length)| self.networks.get(&IpNet::new(address, *length).ok()?.trunc()).copied())
    }

    /// The addresses of one family that a pool uses from it: one for each entry.
    pub fn pool(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.networks().filter(move |(not, net)| !not && Family::of(net.addr()) == family).map(|(_, n)| n)
    }
}
