//! One rule of pf(4), as a typed value that can only hold what a rule may contain, in what pf.conf(5) of 14 and 15 have in
//! common; [`crate::rules`] decides which ones a jail's anchor gets. Its `Display` is pf.conf(5) as an administrator would write
//! it, with lists: the input of pfctl(8), and the output of `kport rules`. [`pfconf`](crate::pfconf) reads it, and prints rules
//! as pfctl(8) does, without lists.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, error, quoted};
use crate::name::{Label, Table};
use crate::net::{Direction, Family, Interface, JAIL_GROUPS, PortRange, Protocol, as_text};

/// An address in a rule, in the forms of pf.conf(5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    Any,
    Host(IpAddr),
    /// `192.0.2.0/24`
    Network(IpNet),
    /// `("em0")`: every address that the interface, or the group, currently has, aliases included.
    Interface(Interface),
    /// `("em0:0")`: the first address of the interface, without its aliases.
    First(Interface),
    /// `("bridge0:network")`: the networks that the interface currently has.
    InterfaceNetwork(Interface),
    /// `! ("em1:network")`: every other address.
    NotInterfaceNetwork(Interface),
    /// `(self)`: every address that the host currently has.
    Own,
    /// `<name>`
    Table(Table),
}

/// The packets that a rule matches. A list stands for one rule for each of its members; an empty list means any.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    pub on: Vec<Interface>,
    pub family: Family,
    pub protocol: Protocol,
    pub from: Vec<Address>,
    pub to: Vec<Address>,
    pub ports: PortRange,
}

impl Match {
    /// The rules of the kernel that it stands for: one for each combination of list members, in the order in which
    /// pfctl(8) creates them (expand_rule in sbin/pfctl/parse.y). Allocates nothing.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        fn each<T>(list: &[T]) -> impl Iterator<Item = Option<&T>> {
            list.is_empty().then_some(None).into_iter().chain(list.iter().map(Some))
        }
        each(&self.on).flat_map(move |on| {
            each(&self.from).flat_map(move |from| each(&self.to).map(move |to| Member { on, from, to }))
        })
    }
}

/// One member of each list of a [`Match`]; `None` for any.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    pub on: Option<&'a Interface>,
    pub from: Option<&'a Address>,
    pub to: Option<&'a Address>,
}

/// The maximum rate of new connections from one source: connections in a number of seconds. Its text is `15/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    connections: u32,
    seconds: u32,
}

impl Rate {
    /// PF_THRESHOLD_MAX of sys/netpfil/pf/pf.h.
    pub const MAX: u32 = u32::MAX / 1000;

    /// An error of `Kind::Argument` if a number is 0 or `connections` is above [`Rate::MAX`].
    pub fn new(connections: u32, seconds: u32) -> Result<Rate> {
        let fits = (1..=Rate::MAX).contains(&connections) && seconds > 0;
        if fits { Ok(Rate { connections, seconds }) } else { Err(Rate::refused(&format!("{connections}/{seconds}"))) }
    }

    fn refused(text: &str) -> Error {
        let what = format!("is not connections/seconds such as 15/5, at most {}/{}", Rate::MAX, u32::MAX);
        error!(Argument, "rate {} {what}", quoted(text))
    }

    pub fn connections(self) -> u32 {
        self.connections
    }

    pub fn seconds(self) -> u32 {
        self.seconds
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rate> {
        let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok()).flatten();
        match text.split_once('/').and_then(|(n, s)| Some((number(n)?, number(s)?))) {
            Some((connections, seconds)) => Rate::new(connections, seconds),
            None => Err(Rate::refused(text)),
        }
    }
}

as_text!(Rate);

/// The options of `keep state`, by the names of pf.conf(5). All but `max` need `source-track rule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct StateOptions {
    pub max: Option<NonZeroU32>,
    /// Of one source.
    pub max_src_states: Option<NonZeroU32>,
    /// Of one source, tcp, after the handshake.
    pub max_src_conn: Option<NonZeroU32>,
    pub max_src_conn_rate: Option<Rate>,
}

impl StateOptions {
    /// Whether pf must count for each source: `source-track rule`.
    pub fn tracks_sources(&self) -> bool {
        self.max_src_states.is_some() || self.max_src_conn.is_some() || self.max_src_conn_rate.is_some()
    }
}

/// The way of the answers to what a pass rule passes, regardless of the routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Routing {
    pub reply_to: Option<NextHop>,
    /// The FIB in which the target is looked up.
    pub rtable: Option<u32>,
}

/// `(em1 203.0.113.254)`, or `wg0`, on which packets need no next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NextHop {
    pub interface: Interface,
    /// Its address; an IPv6 one may be link-local.
    pub gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// `nat ... -> ("bridge0")`: replaces the source.
    Nat {
        matches: Match,
        /// Only packets that an rdr rule gave this tag.
        tagged: Option<Label>,
        /// The new source: an address of an interface.
        source: Address,
    },
    /// `rdr ... tag "kport:web" -> 10.0.0.2 port 80`
    Rdr {
        matches: Match,
        tag: Label,
        target: IpAddr,
        /// The target ports: as many as `matches.ports`.
        ports: PortRange,
    },
    /// `pass in quick ... af-to inet from ("bridge0") to 10.0.0.2 port 80 keep state`: makes an IPv4 packet of an IPv6 one. pf of 15
    /// sends it by itself, so there is no second rule.
    AfTo {
        log: bool,
        quick: bool,
        matches: Match,
        /// The interface whose IPv4 address becomes the source.
        address_of: Interface,
        target: IpAddr,
        /// The target port; `None` keeps the port.
        port: Option<u16>,
        state: StateOptions,
        /// The jail's label and the mapping's.
        labels: [Label; 2],
    },
    /// `pass quick ... keep state`
    Pass {
        /// `None` for both: after `block log all` a packet must pass in on the outer interface and out towards the
        /// jail, and both states carry the labels. If connections are counted or logged, each direction has its own
        /// rule, so that each connection counts once.
        direction: Option<Direction>,
        log: bool,
        quick: bool,
        /// The way of the answers. If it has `reply-to`, the rule must have a direction (pf_ioctl_addrule in
        /// sys/netpfil/pf/pf_ioctl.c).
        #[serde(default)]
        routing: Routing,
        /// The packets, after redirection.
        matches: Match,
        tagged: Option<Label>,
        state: StateOptions,
        labels: [Label; 2],
    },
}

impl Rule {
    pub fn matches(&self) -> &Match {
        match self {
            Rule::Nat { matches, .. }
            | Rule::Rdr { matches, .. }
            | Rule::AfTo { matches, .. }
            | Rule::Pass { matches, .. } => matches,
        }
    }

    pub(crate) fn matches_mut(&mut self) -> &mut Match {
        match self {
            Rule::Nat { matches, .. }
            | Rule::Rdr { matches, .. }
            | Rule::AfTo { matches, .. }
            | Rule::Pass { matches, .. } => matches,
        }
    }

    /// The rules of the kernel that it stands for: one for each of [`Match::members`].
    pub fn expand(&self) -> Vec<Rule> {
        let single = |member: Member<'_>| {
            let mut rule = self.clone();
            let matches = rule.matches_mut();
            matches.on = member.on.into_iter().copied().collect();
            matches.from = member.from.into_iter().cloned().collect();
            matches.to = member.to.into_iter().cloned().collect();
            rule
        };
        self.matches().members().map(single).collect()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// In both directions, as `bytes`.
    pub packets: u64,
    pub bytes: u64,
    pub states: u64,
}

impl Counters {
    #[must_use]
    pub fn plus(self, other: Counters) -> Counters {
        Counters {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
            states: self.states.saturating_add(other.states),
        }
    }
}

/// The number of rules in the kernel: one for each of [`Match::members`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub translations: usize,
    pub filters: usize,
}

impl Count {
    pub fn of(rules: &[Rule]) -> Count {
        let mut count = Count::default();
        for rule in rules {
            let members = rule.matches().members().count();
            match rule {
                Rule::Nat { .. } | Rule::Rdr { .. } => count.translations += members,
                Rule::AfTo { .. } | Rule::Pass { .. } => count.filters += members,
            }
        }
        count
    }
}

pub fn text(rules: &[Rule]) -> String {
    rules.iter().map(|rule| format!("{rule}\n")).collect()
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Nat { matches, tagged, source } => {
                write!(f, "nat{matches}")?;
                tagged.iter().try_for_each(|tag| write!(f, " tagged \"{tag}\""))?;
                write!(f, " -> {source}")
            }
            // in quotes, because ":" cannot be in an unquoted word of pfctl's lexer
            Rule::Rdr { matches, tag, target, ports } => {
                write!(f, "rdr{matches} tag \"{tag}\" -> {target} port {}", colon(*ports))
            }
            Rule::AfTo { log, quick, matches, address_of, target, port, state, labels } => {
                f.write_str(if *log { "pass in log" } else { "pass in" })?;
                f.write_str(if *quick { " quick" } else { "" })?;
                write!(f, "{matches} af-to inet from (\"{address_of}\") to {target}")?;
                port.iter().try_for_each(|port| write!(f, " port {port}"))?;
                write!(f, " keep state{state}")?;
                labels.iter().try_for_each(|label| write!(f, " label \"{label}\""))
            }
            Rule::Pass { direction, log, quick, routing, matches, tagged, state, labels } => {
                f.write_str("pass")?;
                direction.iter().try_for_each(|direction| write!(f, " {direction}"))?;
                f.write_str(if *log { " log" } else { "" })?;
                f.write_str(if *quick { " quick" } else { "" })?;
                matches.on(f)?;
                routing.reply_to.iter().try_for_each(|hop| write!(f, " reply-to {hop}"))?;
                matches.packets(f)?;
                tagged.iter().try_for_each(|tag| write!(f, " tagged \"{tag}\""))?;
                routing.rtable.iter().try_for_each(|fib| write!(f, " rtable {fib}"))?;
                write!(f, " keep state{state}")?;
                labels.iter().try_for_each(|label| write!(f, " label \"{label}\""))
            }
        }
    }
}

impl Match {
    fn on(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " on \"{one}\""),
            several => write!(f, " on {}", braces(several.iter().map(bare))),
        }
    }

    fn packets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {} proto {}", self.family, self.protocol)?;
        for (word, addresses) in [("from", &self.from), ("to", &self.to)] {
            match addresses.as_slice() {
                [] => write!(f, " {word} any")?,
                [one] => write!(f, " {word} {one}")?,
                several => write!(f, " {word} {}", braces(several))?,
            }
        }
        write!(f, " port {}", colon(self.ports))
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.on(f)?;
        self.packets(f)
    }
}

/// ` reply-to ("em1" 203.0.113.254) rtable 0`
impl Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reply_to.iter().try_for_each(|hop| write!(f, " reply-to {hop}"))?;
        self.rtable.iter().try_for_each(|fib| write!(f, " rtable {fib}"))
    }
}

impl Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gateway {
            Some(gateway) => write!(f, "(\"{}\" {gateway})", self.interface),
            None => write!(f, "\"{}\"", self.interface),
        }
    }
}

/// `{ a b }`
fn braces(items: impl IntoIterator<Item: Display>) -> String {
    let items: String = items.into_iter().map(|item| format!(" {item}")).collect();
    format!("{{{items} }}")
}

/// An interface in a list: the usual groups without quotes, as in most pf.conf files, any other name in quotes, since
/// it may be a keyword of pf.conf(5).
fn bare(interface: &Interface) -> String {
    if JAIL_GROUPS.contains(&interface.as_str()) { interface.to_string() } else { format!("\"{interface}\"") }
}

/// pf.conf(5) writes a range with a colon.
fn colon(ports: PortRange) -> String {
    ports.to_string().replace('-', ":")
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any => f.write_str("any"),
            Address::Host(address) => address.fmt(f),
            Address::Network(network) => network.fmt(f),
            Address::Interface(interface) => write!(f, "(\"{interface}\")"),
            Address::First(interface) => write!(f, "(\"{interface}:0\")"),
            Address::InterfaceNetwork(interface) => write!(f, "(\"{interface}:network\")"),
            Address::NotInterfaceNetwork(interface) => write!(f, "! (\"{interface}:network\")"),
            Address::Own => f.write_str("(self)"),
            Address::Table(table) => write!(f, "<{table}>"),
        }
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connections, self.seconds)
    }
}

/// ` (max 100, source-track rule, max-src-conn 10)`; empty without options.
impl Display for StateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbered = |word: &str, number: Option<NonZeroU32>| number.map(|number| format!("{word} {number}"));
        let words = [
            numbered("max", self.max),
            self.tracks_sources().then(|| "source-track rule".to_owned()),
            numbered("max-src-states", self.max_src_states),
            numbered("max-src-conn", self.max_src_conn),
            self.max_src_conn_rate.map(|rate| format!("max-src-conn-rate {rate}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}
