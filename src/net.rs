//! The terms that specs, rules and host facts share: families, protocols, ports, interfaces, places.
//!
//! Each type can only hold what a pf rule may contain, so nothing after the parser has to check it again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use arrayvec::ArrayString;
use serde::{Deserialize, Serialize};

use crate::error::{Error, error, quoted, shows};

/// The interface groups of FreeBSD's drivers for jails: bridge(4), epair(4), lo(4).
pub const JAIL_GROUPS: [&str; 3] = ["bridge", "epair", "lo"];

/// An address family, by its name in pf.conf(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4
    Inet,
    /// IPv6
    Inet6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Family; 2] = [Family::Inet, Family::Inet6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::Inet } else { Family::Inet6 }
    }

    /// The loopback address.
    pub fn loopback(self) -> IpAddr {
        match self {
            Family::Inet => Ipv4Addr::LOCALHOST.into(),
            Family::Inet6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// The unspecified address.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
            Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    const fn name(self) -> &'static str {
        if matches!(self, Family::Inet) { "inet" } else { "inet6" }
    }

    /// Families by their names, separated by commas.
    pub(crate) fn list(names: &str) -> Result<Vec<Family>, Error> {
        let named = |name: &str| Family::ALL.into_iter().find(|family| family.name() == name);
        let family = |name| named(name).ok_or_else(|| error!(Argument, "{} is not inet or inet6", quoted(name)));
        names.split(',').map(family).collect()
    }

    /// Its name among people.
    pub(crate) const fn protocol(self) -> &'static str {
        if matches!(self, Family::Inet) { "IPv4" } else { "IPv6" }
    }

    /// The other one.
    pub fn other(self) -> Family {
        if self == Family::Inet { Family::Inet6 } else { Family::Inet }
    }
}

/// A value for each family. In JSON a family without a value has the default: `{"inet": true}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerFamily<T> {
    /// For IPv4.
    #[serde(default)]
    pub inet: T,
    /// For IPv6.
    #[serde(default)]
    pub inet6: T,
}

impl PerFamily<bool> {
    /// True for this family only.
    pub fn only(family: Family) -> PerFamily<bool> {
        PerFamily::each(|one| one == family)
    }

    /// Whether it is true for at least one family.
    pub fn any(self) -> bool {
        self.inet || self.inet6
    }
}

impl<T> PerFamily<T> {
    /// Calls `make` for each family.
    pub fn each(mut make: impl FnMut(Family) -> T) -> PerFamily<T> {
        PerFamily { inet: make(Family::Inet), inet6: make(Family::Inet6) }
    }

    /// The value of one family.
    pub fn of(&self, family: Family) -> &T {
        match family {
            Family::Inet => &self.inet,
            Family::Inet6 => &self.inet6,
        }
    }

    /// The value of one family, to change it.
    pub fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Inet => &mut self.inet,
            Family::Inet6 => &mut self.inet6,
        }
    }
}

/// The direction of a packet at an interface, by its name in pf.conf(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the host.
    In,
    /// Out of the host.
    Out,
}

impl Direction {
    const fn name(self) -> &'static str {
        if matches!(self, Direction::In) { "in" } else { "out" }
    }
}

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, the default of a spec
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// All of them, in the order of lists.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// Its number in an IP header (protocols(5)).
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Its name in protocols(5) and pf.conf(5).
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// The one with this number.
    pub fn numbered(number: u8) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// One port, or several consecutive ones; never 0, never reversed. Its text is `80` or `8000-8010`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// `first` to `last`, both included; `None` if that is not a range of ports.
    pub const fn new(first: u16, last: u16) -> Option<PortRange> {
        if first != 0 && first <= last { Some(PortRange { first, last }) } else { None }
    }

    /// `count` ports from `first` on; `None` if there are not so many.
    pub fn starting_at(first: u16, count: u16) -> Option<PortRange> {
        PortRange::new(first, first.checked_add(count.checked_sub(1)?)?)
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port; the same as the lowest for one port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// The number of ports: 1 to 65535.
    pub fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// Whether a port is in both.
    pub fn overlaps(self, other: PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for PortRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // no sign, no leading zero
        let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.starts_with(|c: char| matches!(c, '1'..='9')));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = port(first).zip(port(last)).and_then(|(first, last)| PortRange::new(first, last));
        range.ok_or_else(|| error!(Argument, "{} is not a port or a range of ports such as 8000-8010", quoted(text)))
    }
}

/// The name of a network interface or of an interface group: a letter, then letters, digits, `_`, `.` and `-` (vm-bhyve
/// has bridges such as vm-public), at most 15 bytes (IFNAMSIZ without its NUL). `any`, `all` and `self` are keywords of
/// pf, not names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface([u8; Interface::SIZE]);

impl Interface {
    /// IFNAMSIZ of net/if.h: the size of the field in the kernel's structs, with a NUL at the end.
    pub const SIZE: usize = 16;

    /// Whether `byte` may be in a name, after the first letter.
    pub(crate) fn may_contain(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        // from_str accepts ASCII only
        std::str::from_utf8(&self.0).unwrap_or_default().trim_end_matches('\0')
    }

    /// The name padded with NULs, as struct ifreq and struct pf_addr_wrap hold it.
    pub fn padded(&self) -> &[u8; Interface::SIZE] {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text.as_bytes();
        let good =
            bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(|b| Interface::may_contain(*b));
        let why = match text {
            "any" | "all" | "self" => "a word of pf.conf(5), not a name; every address of the host is written *",
            _ if bytes.len() >= Interface::SIZE => "a name has at most 15 bytes",
            _ if !good => "a name is a letter, then letters, digits, _, . and -",
            _ => {
                let mut padded = [0; Interface::SIZE];
                padded[..bytes.len()].copy_from_slice(bytes);
                return Ok(Interface(padded));
            }
        };
        Err(error!(Argument, "interface {}: {why}", quoted(text)))
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interface({:?})", self.as_str())
    }
}

/// A word that other tools and pf.conf(5) have before the ports, and that is not a place. Each could be the name of an interface,
/// which nobody has, so that a port published there would be dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misread {
    Protocol(Protocol),
    Place(Place),
    /// The gateway interface.
    Gateway,
}

impl Misread {
    /// The meaning of a word, in any case; `None` if it can be a place.
    pub(crate) fn of(word: &str) -> Option<Misread> {
        let mut lower = ArrayString::<16>::from(word).ok()?;
        lower.make_ascii_lowercase();
        Some(match lower.as_str() {
            // hosts(5)
            "localhost" | "localhost4" => Misread::Place(Place::Address(Family::Inet.loopback())),
            "localhost6" | "ip6-localhost" => Misread::Place(Place::Address(Family::Inet6.loopback())),
            // pf.conf(5), and rdr.conf of Bastille
            "any" | "all" | "self" | "dual" => Misread::Place(Place::Any),
            "inet" | "ipv4" => Misread::Place(Place::AnyOf(Family::Inet)),
            "inet6" | "ipv6" => Misread::Place(Place::AnyOf(Family::Inet6)),
            // a group of OpenBSD, and the macro of most files of rules
            "egress" | "ext_if" => Misread::Gateway,
            name => Misread::Protocol(Protocol::named(name)?),
        })
    }

    /// What to write instead of it, if a place is to be named.
    pub(crate) fn instead(self) -> String {
        match self {
            Misread::Protocol(_) => "a protocol, not an interface".to_owned(),
            Misread::Place(place) => format!("not an interface; write {place}"),
            Misread::Gateway => "not an interface; name that of the default route".to_owned(),
        }
    }
}

/// Where a publication listens on the host. Its text is `em0`, `192.0.2.1`, `[2001:db8::1]`, `*`, `0.0.0.0` or `[::]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Every current address of an interface, or of the interfaces of a group.
    Interface(Interface),
    /// One address of the host, for its family only.
    Address(IpAddr),
    /// Every address of the host: pf's `(self)`.
    Any,
    /// Every address of the host in one family, like a socket bound to the unspecified address.
    AnyOf(Family),
}

impl Place {
    /// Whether only the host's own stack sends there: a loopback address, the group `lo`, or one of its interfaces.
    pub fn is_loopback(self) -> bool {
        match self {
            Place::Any | Place::AnyOf(_) => false,
            Place::Address(address) => address.is_loopback(),
            Place::Interface(interface) => {
                interface.as_str().strip_prefix("lo").is_some_and(|unit| unit.bytes().all(|b| b.is_ascii_digit()))
            }
        }
    }

    /// Whether a publication at this place can serve `family`.
    pub fn has_family(self, family: Family) -> bool {
        match self {
            Place::Address(address) => Family::of(address) == family,
            Place::AnyOf(only) => only == family,
            Place::Interface(_) | Place::Any => true,
        }
    }

    /// Whether it is every address of the host, in both families or in one.
    pub fn is_any(self) -> bool {
        matches!(self, Place::Any | Place::AnyOf(_))
    }

    /// `address` as a place: the unspecified one is every address of its family. The error is the reason why no
    /// publication can listen on it.
    pub fn address(address: IpAddr) -> Result<Place, &'static str> {
        let why = match address {
            _ if address.is_unspecified() => return Ok(Place::AnyOf(Family::of(address))),
            _ if address.is_multicast() => "a multicast address cannot be redirected",
            IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address cannot be redirected",
            IpAddr::V4(v4) if v4.is_link_local() => "a link-local address is not published; name the interface",
            IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address is not published; name the interface",
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4-mapped address; write the IPv4 address itself",
            _ => return Ok(Place::Address(address)),
        };
        Err(why)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Interface(interface) => interface.fmt(f),
            Place::Address(IpAddr::V4(v4)) => v4.fmt(f),
            Place::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Place::Any => f.write_str("*"),
            Place::AnyOf(family) => Place::Address(family.unspecified()).fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "*" {
            return Ok(Place::Any);
        }
        let address = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        };
        let Some(address) = address else { return text.parse().map(Place::Interface) };
        Place::address(address).map_err(|why| error!(Argument, "address {}: {why}", quoted(text)))
    }
}

/// Whether it is a link-local address of IPv6, which is not routed.
pub(crate) fn is_link_local6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Implements `Serialize` and `Deserialize` as a string, by `Display` and `FromStr`.
macro_rules! as_text {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use as_text;

as_text!(PortRange, Interface, Place);
shows!(Family: name, Direction: name, Protocol: name, Interface: as_str);
