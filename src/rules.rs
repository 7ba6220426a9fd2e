//! What a jail's publication is in pf: from mappings and addresses to typed rules, and to pf.conf(5) text.
//!
//! Pure: no host is asked, nothing is loaded. The rules are the ones that were seen to work on FreeBSD 15.1; they use
//! only what pf.conf(5) of 14 and 15 both know. Never `rdr pass` (it skips the admin's filter rules and takes no
//! label), never `rdr-to` (unknown to 14).

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::str::FromStr;

use arrayvec::{ArrayString, ArrayVec};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result, quoted};
use crate::name::{JailName, Label, MAX_NAME, Table, fixed};
use crate::net::{Family, Interface, Place, PortRange, Protocol, as_text, is_link_local6};
use crate::spec::{HostPorts, Spec};

/// The tag that a redirected packet carries from the rdr rule to the pass rule.
pub const TAG: &str = "kport";

/// The groups whose interfaces reach a jail's published ports at the jail's own address, unless the caller names
/// others: where containers of other networks are.
pub const REACH: [&str; 3] = ["bridge", "epair", "lo"];

/// The group of the interfaces that the host's own stack uses to reach itself.
const LOOPBACK: &str = "lo";

/// The one address for each family that redirects lead to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The IPv4 address, if the jail has a usable one.
    pub inet: Option<Ipv4Addr>,
    /// The IPv6 address, if the jail has a usable one.
    pub inet6: Option<Ipv6Addr>,
}

impl Targets {
    /// The first usable address of each family, in the caller's order: the addresses that the jail has on the networks
    /// it is connected to. Fails where none is usable, with the reason for each.
    pub fn choose(jail: &JailName, addresses: &[IpAddr]) -> Result<Targets> {
        let mut targets = Targets::default();
        let mut refused = String::new();
        for address in addresses {
            match (unusable(*address), address) {
                (Some(why), _) => _ = write!(refused, "; {address} is {why}"),
                (None, IpAddr::V4(v4)) => _ = targets.inet.get_or_insert(*v4),
                (None, IpAddr::V6(v6)) => _ = targets.inet6.get_or_insert(*v6),
            }
        }
        if targets == Targets::default() {
            let kind = if addresses.is_empty() { Kind::Unavailable } else { Kind::Argument };
            return Err(Error::new(
                kind,
                format!("jail \"{jail}\" has no address that a port can be redirected to{refused}; give one with -a"),
            ));
        }
        Ok(targets)
    }

    /// The address of `family`.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Inet => self.inet.map(IpAddr::V4),
            Family::Inet6 => self.inet6.map(IpAddr::V6),
        }
    }
}

/// The addresses of a jail from words: each an address, or `inherit` for a jail that is on the host's network and so
/// cannot publish.
pub fn addresses<'a>(jail: &JailName, words: impl IntoIterator<Item = &'a str>) -> Result<Vec<IpAddr>> {
    words
        .into_iter()
        .map(|word| match word {
            "inherit" => Err(host_network(jail)),
            _ => word
                .parse()
                .map_err(|_| Error::new(Kind::Argument, format!("{} is not an IPv4 or IPv6 address", quoted(word)))),
        })
        .collect()
}

/// Why no redirect can lead to `address`.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        // pf.conf(5): a redirect to 127/8 would expose the host's own loopback services
        _ if address.is_loopback() => Some("a loopback address, which is the host's own"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address, which is not routed"),
        IpAddr::V6(v6) if is_link_local6(v6) => Some("a link-local address, which is not routed"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address, which is not on the wire"),
        _ => None,
    }
}

/// The error for a jail that shares the host's network.
pub fn host_network(jail: &JailName) -> Error {
    Error::new(
        Kind::Unsupported,
        format!(
            "jail \"{jail}\" is on the host's network (ip4=inherit): its services already listen on the host's own \
             addresses, so there is nothing to redirect to; give the jail an address of its own to publish its ports"
        ),
    )
}

/// One redirect, with everything that the host had to tell filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Redirect {
    /// Where on the host.
    pub place: Place,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports on the host.
    pub host: PortRange,
    /// The jail's address; its family is the family of the redirect.
    pub target: IpAddr,
    /// The ports in the jail, as many as on the host.
    pub jail: PortRange,
}

impl Redirect {
    /// The family of the traffic.
    pub fn family(&self) -> Family {
        Family::of(self.target)
    }
}

/// `8080 on em0 -> 10.0.0.2:80`, with the protocol in front.
impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} on {} -> ", self.protocol, self.host, self.place)?;
        match self.target {
            IpAddr::V4(v4) => write!(f, "{v4}:{}", self.jail),
            IpAddr::V6(v6) => write!(f, "[{v6}]:{}", self.jail),
        }
    }
}

/// The redirects of a spec: one for each mapping and each family of which the jail has an address. `gateway` is the
/// interface of the host's default route for a family; it is asked only where a mapping names no place.
/// `auto` must have been resolved before.
pub fn redirects(
    jail: &JailName,
    spec: &Spec,
    targets: &Targets,
    mut gateway: impl FnMut(Family) -> Result<Interface>,
) -> Result<Vec<Redirect>> {
    let mut made = Vec::with_capacity(spec.mappings().len());
    let mut seen = HashSet::with_capacity(spec.mappings().len());
    for mapping in spec.mappings() {
        let HostPorts::Fixed(host) = mapping.host else {
            let why = format!("{mapping}: auto is a port only when it is published; give one");
            return Err(Error::new(Kind::Unsupported, why));
        };
        let mut served = false;
        for family in Family::ALL {
            let Some(target) = targets.of(family) else { continue };
            let place = match mapping.place {
                Some(place) if !place.has_family(family) => continue,
                Some(place) => place,
                None => Place::Interface(gateway(family)?),
            };
            served = true;
            let redirect = Redirect { place, protocol: mapping.protocol, host, target, jail: mapping.jail };
            // the same spec twice is one redirect
            if seen.insert(redirect) {
                made.push(redirect);
            }
        }
        if !served {
            let family = if targets.inet.is_some() { "IPv6" } else { "IPv4" };
            let why = format!("{mapping}: jail \"{jail}\" has no {family} address; give one with -a");
            return Err(Error::new(Kind::Argument, why));
        }
    }
    Ok(made)
}

/// What is loaded for one jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Whose ports.
    pub jail: JailName,
    /// What leads into it; an empty list is nothing published.
    pub redirects: Vec<Redirect>,
    /// How.
    pub options: Options,
    /// The interface of the host through which each target is reached, as [`inner`] finds it: a bridge, as a rule. Only
    /// [`Options::hairpin`] and [`Options::host_access`] need it; a target that is the host's own address has none.
    #[serde(default)]
    pub inner: BTreeMap<IpAddr, Interface>,
}

impl Publication {
    /// A publication that passed [`Publication::check`]. `inner` is asked once for each target, and only where the
    /// options need to know.
    pub fn new(
        jail: JailName,
        redirects: Vec<Redirect>,
        options: Options,
        mut inner: impl FnMut(IpAddr) -> Result<Option<Interface>>,
    ) -> Result<Publication> {
        let mut made = Publication { jail, redirects, options, inner: BTreeMap::new() };
        made.check()?;
        if made.options.hairpin || made.options.host_access {
            for target in distinct(made.redirects.iter().map(|redirect| redirect.target)) {
                if let Some(interface) = inner(target)? {
                    made.inner.insert(target, interface);
                }
            }
        }
        Ok(made)
    }

    /// Whether the options can do what they say for these redirects.
    pub fn check(&self) -> Result<()> {
        self.options.check()?;
        for redirect in &self.redirects {
            if is_loopback(redirect.place) && !self.options.host_access {
                return Err(Error::new(
                    Kind::Argument,
                    format!(
                        "{redirect}: {} is reached by the host itself only, which needs host access (--host-access); \
                         name an outer interface or address to publish to others",
                        redirect.place
                    ),
                ));
            }
            if self.options.limits.rate.is_some() && redirect.protocol != Protocol::Tcp {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "{redirect}: pf counts the rate of tcp connections only; publish {} without --rate",
                        redirect.protocol
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What no other publication may overlap: each redirect in each place that it answers for, its own and, with host
    /// access, the host's loopback address.
    pub fn claims(&self) -> Vec<Redirect> {
        claims(&self.redirects, &self.options)
    }
}

/// [`Publication::claims`] of redirects that are no publication yet.
pub fn claims(redirects: &[Redirect], options: &Options) -> Vec<Redirect> {
    let mut claims = redirects.to_vec();
    if options.host_access {
        // `*` is every address already, the loopback one too
        let outer = redirects.iter().filter(|r| !is_loopback(r.place) && r.place != Place::Any);
        claims.extend(distinct(outer.map(|r| Redirect { place: Place::Address(loopback(r.family())), ..*r })));
    }
    claims
}

/// The interface of the host through which it reaches `address`: the one with the longest network that holds it. `None`
/// where the address is the host's own, as that of a jail without a network stack of its own is.
pub fn inner<'a>(
    address: IpAddr,
    interfaces: impl IntoIterator<Item = (&'a Interface, &'a [IpNet])>,
) -> Result<Option<Interface>> {
    let mut best: Option<(u8, Interface)> = None;
    for (interface, networks) in interfaces {
        for network in networks {
            if network.addr() == address {
                return Ok(None);
            }
            if network.contains(&address) && best.is_none_or(|(length, _)| length < network.prefix_len()) {
                best = Some((network.prefix_len(), *interface));
            }
        }
    }
    match best {
        Some((_, interface)) => Ok(Some(interface)),
        None => Err(Error::new(
            Kind::Unavailable,
            format!(
                "no interface of the host has a network with {address}: --hairpin and --host-access need the one that leads to \
                 the jail; give the jail's bridge an address of the jail's network"
            ),
        )),
    }
}

/// Who may use a publication from outside: a network or an address, or a pf table. Its text is `192.0.2.0/24`,
/// `192.0.2.1` or `<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Source {
    /// The addresses of a network.
    Network(IpNet),
    /// The addresses in a table of the main ruleset, both families.
    Table(Table),
}

impl Source {
    /// As it stands in a rule of `family`; `None` where the rule can never see such an address.
    fn address(&self, family: Family) -> Option<Address> {
        match self {
            Source::Table(table) => Some(Address::Table(table.clone())),
            Source::Network(network) if Family::of(network.addr()) != family => None,
            Source::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                Some(Address::Host(network.addr()))
            }
            Source::Network(network) => Some(Address::Network(*network)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Table(table) => write!(f, "<{table}>"),
            Source::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Source::Network(network) => network.fmt(f),
        }
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Source> {
        let refuse = |why: &str| Err(Error::new(Kind::Argument, format!("source {}: {why}", quoted(text))));
        if let Some(name) = text.strip_prefix('<') {
            let Some(name) = name.strip_suffix('>') else { return refuse("the closing > is missing") };
            return name.parse().map(Source::Table);
        }
        let network = match text.parse::<IpNet>() {
            Ok(network) => network,
            Err(_) => match text.parse::<IpAddr>() {
                Ok(address) => IpNet::from(address),
                Err(_) => return refuse("neither a network such as 192.0.2.0/24, nor an address, nor a table <name>"),
            },
        };
        if network.addr() != network.network() {
            return refuse(&format!("has bits behind its prefix; write {} or {}", network.trunc(), network.addr()));
        }
        match network.addr() {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                refuse("an IPv4-mapped address, which is not on the wire; write the IPv4 address itself")
            }
            address if address.is_multicast() => refuse("a multicast address is no source"),
            _ => Ok(Source::Network(network)),
        }
    }
}

/// How fast one source may make new connections: so many in so many seconds. Its text is `15/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    connections: NonZeroU32,
    seconds: NonZeroU32,
}

impl Rate {
    /// The most connections: PF_THRESHOLD_MAX of sys/netpfil/pf/pf.h.
    pub const MAX: u32 = u32::MAX / 1000;

    /// `None` where a number is 0 or `connections` is above [`Rate::MAX`].
    pub fn new(connections: u32, seconds: u32) -> Option<Rate> {
        let connections = NonZeroU32::new(connections).filter(|n| n.get() <= Rate::MAX)?;
        Some(Rate { connections, seconds: NonZeroU32::new(seconds)? })
    }

    /// How many.
    pub fn connections(self) -> u32 {
        self.connections.get()
    }

    /// In how many seconds.
    pub fn seconds(self) -> u32 {
        self.seconds.get()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connections, self.seconds)
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Rate> {
        let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().ok()).flatten();
        text.split_once('/').and_then(|(n, s)| Rate::new(number(n)?, number(s)?)).ok_or_else(|| {
            let what = format!("is not connections/seconds such as 15/5, at most {}/{}", Rate::MAX, u32::MAX);
            Error::new(Kind::Argument, format!("rate {} {what}", quoted(text)))
        })
    }
}

as_text!(Source, Rate, Tag);

/// How much of a mapping may be used at a time. pf counts for each rule: what comes from outside together, and what
/// comes from each interface or group of the reach list by itself. A connection counts once, on its way in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Connections at a time, of everybody together: `max`.
    pub connections: Option<NonZeroU32>,
    /// Connections at a time of one source address: `max-src-conn`, which counts finished handshakes; for udp and
    /// sctp, whose connections pf does not see, `max-src-states`.
    pub connections_per_source: Option<NonZeroU32>,
    /// New connections of one source address, tcp only: `max-src-conn-rate`.
    pub rate: Option<Rate>,
}

impl Limits {
    fn state(&self, protocol: Protocol) -> StateOptions {
        let tcp = protocol == Protocol::Tcp;
        StateOptions {
            max: self.connections,
            max_src_states: self.connections_per_source.filter(|_| !tcp),
            max_src_conn: self.connections_per_source.filter(|_| tcp),
            max_src_conn_rate: self.rate.filter(|_| tcp),
        }
    }
}

/// How a jail's ports are published: the same for all of them.
///
/// Three lists say who gets in, and none narrows another. [`Options::from`] is about the host's places as outsiders use
/// them; [`Options::reach`] opens the jail's own address, and with [`Options::hairpin`] the host's, to jails;
/// [`Options::host_access`] is for the host's own programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The interfaces and groups from which the jail's own address and published ports are reached (`--reach`).
    pub reach: Vec<Interface>,
    /// The reach list's jails, those on the published jail's own bridge among them, reach the host's address and
    /// published port (`--hairpin`). A loopback interface in the reach list is left to [`Options::host_access`].
    pub hairpin: bool,
    /// The host itself, and the jails that share its stack, reach its own address and 127.0.0.1 or ::1 on the
    /// published port (`--host-access`). Needs `net.pf.filter_local=1` from before pf was enabled, and no `set skip`
    /// on lo.
    pub host_access: bool,
    /// Only these may use the publication from outside (`--from`); empty for everybody. A redirect of a family of
    /// which no source is listed serves nobody from outside.
    pub from: Vec<Source>,
    /// How much of each mapping may be used at a time (`--max-connections`, `--max-connections-per-source`, `--rate`).
    pub limits: Limits,
    /// The packet that starts a connection is logged to pflog0, once, on its way in (`--log`).
    pub log: bool,
    /// The pass rules end the evaluation, whatever stands behind kport's anchor (`--no-quick` turns it off).
    pub quick: bool,
}

impl Options {
    /// The most sources, and the most interfaces to reach from: each is a rule of its own for each mapping. A table
    /// holds any number of addresses.
    pub const MOST: usize = 64;

    fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::new(Kind::Argument, why));
        let most = Options::MOST;
        if self.from.len() > most {
            return refuse(format!(
                "{} sources; at most {most}: put them into a pf table and give <table>",
                self.from.len()
            ));
        }
        if self.reach.len() > most {
            return refuse(format!(
                "{} interfaces to reach from; at most {most}: put them into a group",
                self.reach.len()
            ));
        }
        if self.hairpin && self.reach.iter().all(|interface| is_loopback(Place::Interface(*interface))) {
            return refuse("hairpin serves the reach list, which names no interface or group of jails".to_owned());
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            // the names are constants that the tests parse
            reach: REACH.iter().filter_map(|name| name.parse().ok()).collect(),
            hairpin: false,
            host_access: false,
            from: vec![],
            limits: Limits::default(),
            log: false,
            quick: true,
        }
    }
}

/// The address by which the host knows itself.
fn loopback(family: Family) -> IpAddr {
    match family {
        Family::Inet => Ipv4Addr::LOCALHOST.into(),
        Family::Inet6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Whether only the host's own stack sends there: a loopback address, the group `lo`, or one of its interfaces.
pub(crate) fn is_loopback(place: Place) -> bool {
    match place {
        Place::Any => false,
        Place::Address(address) => address.is_loopback(),
        Place::Interface(interface) => {
            interface.as_str().strip_prefix("lo").is_some_and(|unit| unit.bytes().all(|b| b.is_ascii_digit()))
        }
    }
}

/// Each thing once, in the order of its first appearance.
fn distinct<T: Clone + Eq + Hash>(things: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    things.into_iter().filter(|thing| seen.insert(thing.clone())).collect()
}

/// An address in a rule, as pf.conf(5) has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// `any`
    Any,
    /// One address.
    Host(IpAddr),
    /// `192.0.2.0/24`
    Network(IpNet),
    /// `("em0")`: every address that the interface, or the group, has at the time, aliases included.
    Interface(Interface),
    /// `("bridge0:network")`: the networks that the interface has at the time.
    InterfaceNetwork(Interface),
    /// `(self)`: every address of the host at the time.
    Own,
    /// `<name>`
    Table(Table),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any => f.write_str("any"),
            Address::Host(address) => address.fmt(f),
            Address::Network(network) => network.fmt(f),
            Address::Interface(interface) => write!(f, "(\"{interface}\")"),
            Address::InterfaceNetwork(interface) => write!(f, "(\"{interface}:network\")"),
            Address::Own => f.write_str("(self)"),
            Address::Table(table) => write!(f, "<{table}>"),
        }
    }
}

/// Which packets a rule is about. A list stands for one rule for each of its members; an empty one for any.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    /// The interfaces or groups.
    pub on: Vec<Interface>,
    /// The family.
    pub family: Family,
    /// The protocol.
    pub protocol: Protocol,
    /// The source addresses.
    pub from: Vec<Address>,
    /// The destination addresses.
    pub to: Vec<Address>,
    /// The destination ports.
    pub ports: PortRange,
}

impl Match {
    /// How many rules the kernel gets for it: one for each combination of list members.
    pub fn expanded(&self) -> usize {
        self.on.len().max(1) * self.from.len().max(1) * self.to.len().max(1)
    }
}

/// What a packet carries from an rdr rule to its pass rule: [`TAG`], or a tag of one mapping's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(ArrayString<MAX_NAME>);

impl Tag {
    fn shared() -> Tag {
        Tag(fixed(format_args!("{TAG}")))
    }

    /// The tag of one mapping in one of the publications of a jail, counted from 0.
    fn of_mapping(protocol: Protocol, host: PortRange, publication: usize) -> Tag {
        match publication {
            0 => Tag(fixed(format_args!("{TAG}:{protocol}:{host}"))),
            n => Tag(fixed(format_args!("{TAG}:{protocol}:{host}:{n}"))),
        }
    }

    /// The tag, at most 63 bytes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As pf.conf(5) has it: ":" is no part of an unquoted word in pfctl's lexer.
struct QuotedTag<'a>(&'a Tag);

impl fmt::Display for QuotedTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.as_str() == TAG { f.write_str(TAG) } else { write!(f, "\"{}\"", self.0) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = Error;

    /// Only a tag that kport makes.
    fn from_str(text: &str) -> Result<Tag> {
        let of_mapping = || {
            let mut words = text.strip_prefix(TAG)?.strip_prefix(':')?.split(':');
            let protocol = words.next()?;
            let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol)?;
            let host = words.next()?.parse().ok()?;
            let publication = words.next().map_or(Some(0), |n| n.parse().ok())?;
            Some(Tag::of_mapping(protocol, host, publication))
        };
        // written out again, it must be the same: one text for each tag
        let made = if text == TAG { Some(Tag::shared()) } else { of_mapping().filter(|made| made.as_str() == text) };
        made.ok_or_else(|| Error::new(Kind::Argument, format!("tag {} is none of kport's", quoted(text))))
    }
}

/// The way of a packet through an interface, as pf.conf(5) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the host.
    In,
    /// Out of the host.
    Out,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::In => "in",
            Direction::Out => "out",
        })
    }
}

/// What stands in the brackets behind `keep state`, by pf.conf(5)'s words. Anything but `max` needs `source-track
/// rule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct StateOptions {
    /// States of the rule.
    pub max: Option<NonZeroU32>,
    /// States of the rule from one source.
    pub max_src_states: Option<NonZeroU32>,
    /// Tcp connections from one source that finished the handshake.
    pub max_src_conn: Option<NonZeroU32>,
    /// New tcp connections from one source.
    pub max_src_conn_rate: Option<Rate>,
}

impl StateOptions {
    /// Whether pf must keep count of each source: `source-track rule`.
    pub fn tracks_sources(&self) -> bool {
        self.max_src_states.is_some() || self.max_src_conn.is_some() || self.max_src_conn_rate.is_some()
    }
}

/// ` (max 100, source-track rule, max-src-conn 10)`; nothing where there is no option.
impl fmt::Display for StateOptions {
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

/// One rule of an anchor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// `nat ... -> ("bridge0")`: the source becomes an address of the interface.
    Nat {
        /// Which packets.
        matches: Match,
        /// Whose address becomes the source.
        address_of: Interface,
    },
    /// `rdr ... tag kport -> 10.0.0.2 port 80`
    Rdr {
        /// Which packets.
        matches: Match,
        /// The tag that says: this packet was redirected here.
        tag: Tag,
        /// Where they go.
        target: IpAddr,
        /// To which ports: as many as `matches.ports`.
        ports: PortRange,
    },
    /// `pass quick ... keep state`
    Pass {
        /// `None` for both: under `block log all` a packet must pass in on the outer interface and out towards the
        /// jail, and both states carry the labels. Where connections are counted or logged, the two ways have a rule
        /// each, so that each connection counts once.
        direction: Option<Direction>,
        /// To pflog0.
        log: bool,
        /// No rule behind this one is looked at.
        quick: bool,
        /// Which packets, after redirection.
        matches: Match,
        /// Only packets that an rdr rule tagged so.
        tagged: Option<Tag>,
        /// Limits.
        state: StateOptions,
        /// The jail's label and the mapping's.
        labels: [Label; 2],
    },
}

impl Rule {
    /// Which packets the rule is about.
    pub fn matches(&self) -> &Match {
        match self {
            Rule::Nat { matches, .. } | Rule::Rdr { matches, .. } | Rule::Pass { matches, .. } => matches,
        }
    }

    /// The rules that the kernel gets for it: one for each combination of list members, [`Match::expanded`] in number.
    pub fn expand(&self) -> Vec<Rule> {
        fn each<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
            if list.is_empty() { vec![vec![]] } else { list.iter().map(|one| vec![one.clone()]).collect() }
        }
        let lists = self.matches();
        let mut made = Vec::with_capacity(lists.expanded());
        for on in each(&lists.on) {
            for from in each(&lists.from) {
                for to in each(&lists.to) {
                    let single = Match { on: on.clone(), from: from.clone(), to, ..lists.clone() };
                    let mut rule = self.clone();
                    let (Rule::Nat { matches, .. } | Rule::Rdr { matches, .. } | Rule::Pass { matches, .. }) =
                        &mut rule;
                    *matches = single;
                    made.push(rule);
                }
            }
        }
        made
    }
}

/// The rules of one publication; see [`of_all`].
pub fn rules(publication: &Publication) -> Vec<Rule> {
    of_all(std::slice::from_ref(publication))
}

/// The rules of one jail's anchor, in pf's order: nat, rdr, pass. A jail has one publication, or several with different
/// options. No rule is there twice, also where a list stands for several (the kernel refuses that with EEXIST,
/// pf_ioctl_addrule in sys/netpfil/pf/pf_ioctl.c).
pub fn of_all(publications: &[Publication]) -> Vec<Rule> {
    let tags = Tags::of(publications);
    let (mut nat, mut rdr, mut pass, mut direct) = (vec![], vec![], vec![], vec![]);
    for (n, publication) in publications.iter().enumerate() {
        let [nats, rdrs, passes, directs] = kinds(n, publication, &tags);
        nat.extend(nats);
        rdr.extend(rdrs);
        pass.extend(passes);
        direct.extend(directs);
    }
    // DESIGN's order for one mapping: its pass rule, then the one for the reach list
    let mut all = nat;
    all.reserve(rdr.len() + pass.len() + direct.len());
    all.extend(rdr.into_iter().chain(pass).chain(direct));
    if publications.len() < 2 {
        return all;
    }
    // two publications may have members of their lists in common
    distinct(all.iter().flat_map(Rule::expand))
}

/// The nat, rdr, pass and reach rules of the publication with number `n`.
fn kinds(n: usize, publication: &Publication, tags: &Tags) -> [Vec<Rule>; 4] {
    let Publication { jail, redirects, options, inner } = publication;
    let jail_label = jail.label();
    let reach = distinct(options.reach.iter().copied());
    let (mut nat, mut rdr) = (Translation::default(), Translation::default());
    let (mut pass, mut direct) =
        (Passes::new(options, &[], redirects.len()), Passes::new(options, &reach, redirects.len()));
    rdr.rules.reserve(redirects.len());
    rdr.seen.reserve(redirects.len());
    for redirect in redirects {
        let labels = [jail_label.clone(), jail.mapping_label(redirect.protocol, redirect.host)];
        let tag = tags.tag(n, redirect);
        let base = Match {
            on: vec![],
            family: redirect.family(),
            protocol: redirect.protocol,
            from: vec![],
            to: vec![],
            ports: redirect.host,
        };
        let entrances = entrances(redirect, options, &reach, &base);
        let entered = !entrances.is_empty();
        for matches in entrances {
            rdr.push(matches, |matches| Rule::Rdr {
                matches,
                tag: tag.clone(),
                target: redirect.target,
                ports: redirect.jail,
            });
        }
        if let Some(interface) = inner.get(&redirect.target) {
            for from in returns(redirect, options, *interface) {
                let to = vec![Address::Host(redirect.target)];
                let matches = Match { on: vec![*interface], from, to, ports: redirect.jail, ..base.clone() };
                nat.push(matches, |matches| Rule::Nat { matches, address_of: *interface });
            }
        }
        if !reach.is_empty() {
            direct.push(redirect, None, labels.clone());
        }
        if entered {
            pass.push(redirect, Some(tag), labels);
        }
    }
    [nat.rules, rdr.rules, pass.rules, direct.rules]
}

/// Which packets a redirect takes: those from outside, then the jails' to the host's address, then the host's own.
fn entrances(redirect: &Redirect, options: &Options, reach: &[Interface], base: &Match) -> ArrayVec<Match, 3> {
    let place = redirect.place;
    let local = is_loopback(place);
    let (on, to) = match place {
        Place::Interface(interface) => (Some(interface), Address::Interface(interface)),
        Place::Address(address) => (None, Address::Host(address)),
        Place::Any => (None, Address::Own),
    };
    let from = distinct(options.from.iter().filter_map(|source| source.address(redirect.family())));
    // a list of sources of which none is of this family allows nobody; an empty list in a rule would be anybody
    let nobody = from.is_empty() && !options.from.is_empty();
    // without `on` and without sources the rule takes what comes from jails and from the host as well
    let everywhere = on.is_none() && options.from.is_empty() && !local;
    let mut made = ArrayVec::new();
    if !local && !nobody {
        made.push(Match { on: on.into_iter().collect(), from, to: vec![to.clone()], ..base.clone() });
    }
    if options.hairpin && !local && !everywhere {
        // the place's own interface has its line already, unless that one is for some sources only
        let covered = |interface: &Interface| options.from.is_empty() && on == Some(*interface);
        let jails = |interface: &Interface| !is_loopback(Place::Interface(*interface)) && !covered(interface);
        let on: Vec<Interface> = reach.iter().copied().filter(jails).collect();
        if !on.is_empty() {
            made.push(Match { on, to: vec![to.clone()], ..base.clone() });
        }
    }
    if options.host_access {
        let mut own = vec![];
        if !everywhere {
            own.push(to);
        }
        // (self) has the loopback addresses, and a place that is one stands for itself
        if !local && place != Place::Any {
            own.push(Address::Host(loopback(redirect.family())));
        }
        if !own.is_empty() {
            made.push(Match { on: LOOPBACK.parse().into_iter().collect(), to: own, ..base.clone() });
        }
    }
    made
}

/// Whose packets must come from an address of the interface that leads to the jail, so that the answers return
/// through pf: those of the jail's own network, which the jail would answer directly, and the host's own.
fn returns(redirect: &Redirect, options: &Options, interface: Interface) -> Vec<Vec<Address>> {
    let mut made = vec![];
    if options.hairpin && !is_loopback(redirect.place) {
        made.push(vec![Address::InterfaceNetwork(interface)]);
    }
    if options.host_access {
        let loopback: Vec<Address> = "lo0".parse().map(Address::Interface).into_iter().collect();
        made.push(match redirect.place {
            Place::Any => vec![Address::Own],
            place if is_loopback(place) => loopback,
            Place::Interface(outer) => [loopback, vec![Address::Interface(outer)]].concat(),
            Place::Address(address) => [loopback, vec![Address::Host(address)]].concat(),
        });
    }
    made
}

/// What one rule of the kernel's matches: one member of each list of a [`Match`], and the rest of it.
type Single = (Option<Interface>, Option<Address>, Option<Address>, Family, Protocol, PortRange);

/// Translation rules, each for packets that no earlier one takes.
#[derive(Default)]
struct Translation {
    seen: HashSet<Single>,
    rules: Vec<Rule>,
}

impl Translation {
    /// Adds a rule for `matches` without what is there already. At most one of the lists has several members.
    fn push(&mut self, mut matches: Match, rule: impl FnOnce(Match) -> Rule) {
        let Match { on, family, protocol, from, to, ports } = &mut matches;
        let mut new = |on, from, to| self.seen.insert((on, from, to, *family, *protocol, *ports));
        let (one_on, one_from, one_to) = (on.first().copied(), from.first().cloned(), to.first().cloned());
        let some = if on.len() > 1 {
            on.retain(|on| new(Some(*on), one_from.clone(), one_to.clone()));
            !on.is_empty()
        } else if from.len() > 1 {
            from.retain(|from| new(one_on, Some(from.clone()), one_to.clone()));
            !from.is_empty()
        } else if to.len() > 1 {
            to.retain(|to| new(one_on, one_from.clone(), Some(to.clone())));
            !to.is_empty()
        } else {
            new(one_on, one_from, one_to)
        };
        if some {
            self.rules.push(rule(matches));
        }
    }
}

/// Pass rules, one for each thing that is matched: a second one with the same match would never be reached.
struct Passes<'a> {
    options: &'a Options,
    /// The interfaces that all of them are on.
    on: &'a [Interface],
    seen: HashSet<(IpAddr, Protocol, PortRange, Option<Tag>)>,
    rules: Vec<Rule>,
}

impl Passes<'_> {
    fn new<'a>(options: &'a Options, on: &'a [Interface], room: usize) -> Passes<'a> {
        Passes { options, on, seen: HashSet::with_capacity(room), rules: Vec::with_capacity(room) }
    }

    /// Adds a rule for what a redirect leads to.
    fn push(&mut self, redirect: &Redirect, tagged: Option<Tag>, labels: [Label; 2]) {
        let Redirect { protocol, target, jail: ports, .. } = *redirect;
        if !self.seen.insert((target, protocol, ports, tagged.clone())) {
            return;
        }
        let Options { log, quick, limits, .. } = *self.options;
        let state = limits.state(protocol);
        let family = redirect.family();
        let (on, to) = (self.on.to_vec(), vec![Address::Host(target)]);
        let matches = Match { on, family, protocol, from: vec![], to, ports };
        if log || state != StateOptions::default() {
            self.rules.push(Rule::Pass {
                direction: Some(Direction::In),
                log,
                quick,
                matches: matches.clone(),
                tagged: tagged.clone(),
                state,
                labels: labels.clone(),
            });
            let (direction, state) = (Some(Direction::Out), StateOptions::default());
            self.rules.push(Rule::Pass { direction, log: false, quick, matches, tagged, state, labels });
        } else {
            self.rules.push(Rule::Pass { direction: None, log, quick, matches, tagged, state, labels });
        }
    }
}

/// Which redirects need a tag of their own, by what they lead to: those that lead to a port of the jail to which another
/// mapping leads as well, or another publication with other options. With one tag for both, the first pass rule would take
/// the packets of both, and neither could the states of one mapping be told from the states of the other.
struct Tags(HashSet<(Protocol, IpAddr, PortRange)>);

impl Tags {
    fn of(publications: &[Publication]) -> Tags {
        let uses = publications.iter().enumerate().flat_map(|(n, publication)| {
            publication.redirects.iter().map(move |r| (r.protocol, r.target, r.jail, (n, r.host)))
        });
        let mut uses: Vec<_> = uses.collect();
        uses.sort_unstable();
        let mut own = HashSet::new();
        let mut rest = uses.as_slice();
        while let [(protocol, target, ports, user), ..] = rest {
            // all that hang together by ports that they have in common
            let mut last = ports.last();
            let together = rest.iter().take_while(|(p, t, ports, _)| {
                let joins = (p, t) == (protocol, target) && ports.first() <= last;
                last = last.max(ports.last());
                joins
            });
            let (these, behind) = rest.split_at(together.count());
            if these.iter().any(|(.., other)| other != user) {
                own.extend(these.iter().map(|(protocol, target, ports, _)| (*protocol, *target, *ports)));
            }
            rest = behind;
        }
        Tags(own)
    }

    fn tag(&self, n: usize, redirect: &Redirect) -> Tag {
        if self.0.contains(&(redirect.protocol, redirect.target, redirect.jail)) {
            Tag::of_mapping(redirect.protocol, redirect.host, n)
        } else {
            Tag::shared()
        }
    }
}

/// The rules as pf.conf(5) text, a line each.
pub fn text(rules: &[Rule]) -> String {
    let mut text = String::with_capacity(160 * rules.len());
    for rule in rules {
        // writing to a String cannot fail
        _ = writeln!(text, "{rule}");
    }
    text
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Nat { matches, address_of } => write!(f, "nat{matches} -> (\"{address_of}\")"),
            Rule::Rdr { matches, tag, target, ports } => {
                write!(f, "rdr{matches} tag {} -> {target} port {}", QuotedTag(tag), Ports(*ports))
            }
            Rule::Pass { direction, log, quick, matches, tagged, state, labels } => {
                f.write_str("pass")?;
                if let Some(direction) = direction {
                    write!(f, " {direction}")?;
                }
                f.write_str(if *log { " log" } else { "" })?;
                f.write_str(if *quick { " quick" } else { "" })?;
                matches.fmt(f)?;
                if let Some(tag) = tagged {
                    write!(f, " tagged {}", QuotedTag(tag))?;
                }
                write!(f, " keep state{state}")?;
                for label in labels {
                    write!(f, " label \"{label}\"")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on.as_slice() {
            [] => {}
            [one] => write!(f, " on \"{one}\"")?,
            several => write!(f, " on {}", Braces(several.iter().map(Bare)))?,
        }
        write!(f, " {} proto {} from ", self.family, self.protocol)?;
        for (addresses, then) in [(&self.from, " to "), (&self.to, "")] {
            match addresses.as_slice() {
                [] => f.write_str("any")?,
                [one] => one.fmt(f)?,
                several => Braces(several.iter()).fmt(f)?,
            }
            f.write_str(then)?;
        }
        write!(f, " port {}", Ports(self.ports))
    }
}

/// `{ a b }`
struct Braces<I>(I);

impl<I: Iterator<Item: fmt::Display> + Clone> fmt::Display for Braces<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for one in self.0.clone() {
            write!(f, " {one}")?;
        }
        f.write_str(" }")
    }
}

/// An interface in a list: the usual groups as everybody writes them, any other name quoted, since it may be one of
/// pf.conf(5)'s keywords.
struct Bare<'a>(&'a Interface);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if REACH.contains(&self.0.as_str()) { self.0.fmt(f) } else { write!(f, "\"{}\"", self.0) }
    }
}

/// pf.conf(5) writes a range with a colon.
struct Ports(PortRange);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.count() == 1 {
            write!(f, "{}", self.0.first())
        } else {
            write!(f, "{}:{}", self.0.first(), self.0.last())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lines() {
        let jail: JailName = "web".parse().unwrap();
        let targets = Targets::choose(&jail, &["10.0.0.2".parse().unwrap()]).unwrap();
        let spec = crate::spec::parse("8080:80").unwrap();
        let redirects = redirects(&jail, &spec, &targets, |_| "em0".parse()).unwrap();
        let publication = Publication { jail, redirects, options: Options::default(), inner: BTreeMap::new() };
        assert_eq!(
            text(&rules(&publication)),
            "\
rdr on \"em0\" inet proto tcp from any to (\"em0\") port 8080 tag kport -> 10.0.0.2 port 80
pass quick inet proto tcp from any to 10.0.0.2 port 80 tagged kport keep state label \"kport:web\" label \"kport:web:tcp:8080\"
pass quick on { bridge epair lo } inet proto tcp from any to 10.0.0.2 port 80 keep state label \"kport:web\" label \"kport:web:tcp:8080\"
"
        );
    }

    #[test]
    fn sources() {
        for good in ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "2001:db8::1", "<friends>", "0.0.0.0/0", "::/0"] {
            assert_eq!(good.parse::<Source>().unwrap().to_string(), good);
        }
        assert_eq!("192.0.2.1/32".parse::<Source>().unwrap().to_string(), "192.0.2.1");
        for bad in
            ["", "192.0.2.1/24", "192.0.2.0/33", "<>", "<a", "a", "<a b>", "<_pf>", "! 192.0.2.1", "ff02::1", "em0"]
        {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
            assert!(serde_json::from_value::<Source>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!("15/5".parse::<Rate>().unwrap(), Rate::new(15, 5).unwrap());
        for bad in ["", "15", "15/", "/5", "0/5", "15/0", "+15/5", "15/5/5", "4294968/1", "15/4294967296", "１５/5"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_in_rules_are_checked_when_they_are_read() {
        for good in ["kport", "kport:tcp:8080", "kport:udp:8000-8010", "kport:udp:8000-8010:2"] {
            assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "admin",
            "kport:",
            "kport:tcp",
            "kport:tcp:0",
            "kport:icmp:1",
            "kport:tcp:08",
            "kport:tcp:1 ",
            "kport:tcp:1:0",
            "kport:tcp:1:01",
            "kport:tcp:1:1:1",
        ] {
            assert!(serde_json::from_value::<Tag>(bad.into()).is_err(), "{bad}");
        }
        for bad in ["", "a b", "$nr", "a\"b", "a\nb", "\u{e4}", &"x".repeat(64)] {
            assert!(serde_json::from_value::<Label>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_without_the_newer_options_is_read() {
        let old = r#"{"jail":"web","redirects":[],"options":{"reach":["bridge"]}}"#;
        let read: Publication = serde_json::from_str(old).unwrap();
        assert_eq!(read.options, Options { reach: vec!["bridge".parse().unwrap()], ..Options::default() });
    }

    #[test]
    fn the_interface_that_leads_to_a_jail() {
        let [em0, bridge0, bridge1] = ["em0", "bridge0", "bridge1"].map(|name| name.parse::<Interface>().unwrap());
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let (outer, wide, narrow) =
            (nets(&["192.0.2.1/24"]), nets(&["10.0.0.1/8"]), nets(&["10.1.0.1/24", "fd00::1/64"]));
        let host = [(&em0, &*outer), (&bridge0, &*wide), (&bridge1, &*narrow)];
        let found = |address: &str| inner(address.parse().unwrap(), host);
        assert_eq!(found("10.0.0.2").unwrap(), Some(bridge0));
        assert_eq!(found("10.1.0.2").unwrap(), Some(bridge1));
        assert_eq!(found("fd00::2").unwrap(), Some(bridge1));
        assert_eq!(found("192.0.2.1").unwrap(), None);
        assert_eq!(found("198.51.100.1").unwrap_err().kind(), Kind::Unavailable);
    }

    #[test]
    fn host_access_answers_for_loopback() {
        let jail: JailName = "web".parse().unwrap();
        let targets = Targets::choose(&jail, &["10.0.0.2".parse().unwrap()]).unwrap();
        let redirects = redirects(&jail, &"em0:8080:80".parse().unwrap(), &targets, |_| "em0".parse()).unwrap();
        let options = Options { host_access: true, ..Options::default() };
        let publication = Publication::new(jail, redirects, options, |_| Ok(None)).unwrap();
        let places: Vec<String> = publication.claims().iter().map(|claim| claim.place.to_string()).collect();
        assert_eq!(places, ["em0", "127.0.0.1"]);
    }
}
