//! What a jail's publication is in pf: from mappings and addresses to typed rules, and to pf.conf(5) text.
//!
//! Pure: no host is asked, nothing is loaded. The rules are the ones that were seen to work on FreeBSD 15.1; they use only
//! what pf.conf(5) of 14 and 15 both know. Never `rdr pass` (it skips the admin's filter rules and takes no
//! label), never `rdr-to` (unknown to 14).

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::name::{JailName, Label, Table};
use crate::net::{Family, Interface, Place, PortRange, Protocol, is_link_local6};
use crate::spec::{HostPorts, Spec};

/// The tag that a redirected packet carries from the rdr rule to the pass rule.
pub const TAG: &str = "kport";

/// The groups whose interfaces reach a jail's published ports at the jail's own address, unless the caller names others:
/// where containers of other networks are.
pub const REACH: [&str; 3] = ["bridge", "epair", "lo"];

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
            return Err(Error::new(Kind::Internal, format!("{mapping}: no port was chosen")));
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
}

/// How a jail's ports are published: the same for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The interfaces and groups from which the jail's own address and published ports are reached.
    pub reach: Vec<Interface>,
}

impl Default for Options {
    fn default() -> Self {
        // the names are constants that the tests parse
        Options { reach: REACH.iter().filter_map(|name| name.parse().ok()).collect() }
    }
}

/// An address in a rule, as pf.conf(5) has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// What a packet carries from an rdr rule to its pass rule: [`TAG`], or a tag of one mapping's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag, at most 63 bytes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ":" is no part of an unquoted word in pfctl's lexer
        if self.0 == TAG { f.write_str(TAG) } else { write!(f, "\"{}\"", self.0) }
    }
}

/// One rule of an anchor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    /// `pass quick ... keep state`. Without a direction: under `block log all` a packet must pass in on the outer
    /// interface and out towards the jail, and both states carry the labels.
    Pass {
        /// Which packets, after redirection.
        matches: Match,
        /// Only packets that an rdr rule tagged so.
        tagged: Option<Tag>,
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
}

/// The rules of one jail's anchor, in pf's order: nat, rdr, pass. No rule is there twice (the kernel refuses that with
/// EEXIST, pf_ioctl_addrule in sys/netpfil/pf/pf_ioctl.c).
pub fn rules(publication: &Publication) -> Vec<Rule> {
    let Publication { jail, redirects, options } = publication;
    let jail_label = jail.label();
    let tags = Tags::of(redirects);
    let mut rdr = Vec::with_capacity(3 * redirects.len());
    let mut pass = Distinct::default();
    let mut direct = Distinct::default();
    for redirect in redirects {
        let labels = [jail_label.clone(), jail.mapping_label(redirect.protocol, redirect.host)];
        let tag = tags.tag(redirect);
        let (on, to) = match redirect.place {
            Place::Interface(interface) => (vec![interface], Address::Interface(interface)),
            Place::Address(address) => (vec![], Address::Host(address)),
            Place::Any => (vec![], Address::Own),
        };
        let base = Match {
            on,
            family: redirect.family(),
            protocol: redirect.protocol,
            from: vec![],
            to: vec![to],
            ports: redirect.host,
        };
        let inner =
            Match { on: vec![], to: vec![Address::Host(redirect.target)], ports: redirect.jail, ..base.clone() };
        rdr.push(Rule::Rdr { matches: base, tag: tag.clone(), target: redirect.target, ports: redirect.jail });
        pass.push((inner.clone(), Some(tag.clone())), labels.clone());
        if !options.reach.is_empty() {
            direct.push((Match { on: options.reach.clone(), ..inner }, None), labels);
        }
    }
    // DESIGN's order for one mapping: its pass rule, then the one for the reach list
    for ((matches, tagged), labels) in pass.rules.into_iter().chain(direct.rules) {
        rdr.push(Rule::Pass { matches, tagged, labels });
    }
    rdr
}

/// Pass rules, one for each thing that is matched: a second one with the same match would never be reached.
#[derive(Default)]
struct Distinct {
    seen: HashSet<(Match, Option<Tag>)>,
    rules: Vec<((Match, Option<Tag>), [Label; 2])>,
}

impl Distinct {
    fn push(&mut self, matches: (Match, Option<Tag>), labels: [Label; 2]) {
        if self.seen.insert(matches.clone()) {
            self.rules.push((matches, labels));
        }
    }
}

/// Which redirects need a tag of their own: those that lead to the same ports of the jail as another mapping does. With one
/// tag for both, the first pass rule would take the packets of both, and the states of one mapping could not be
/// told from the states of the other.
struct Tags(HashMap<(Protocol, IpAddr, PortRange), Option<PortRange>>);

impl Tags {
    fn of(redirects: &[Redirect]) -> Tags {
        let mut hosts: HashMap<_, Option<PortRange>> = HashMap::with_capacity(redirects.len());
        for redirect in redirects {
            hosts
                .entry((redirect.protocol, redirect.target, redirect.jail))
                .and_modify(|host| *host = host.filter(|host| *host == redirect.host))
                .or_insert(Some(redirect.host));
        }
        Tags(hosts)
    }

    fn tag(&self, redirect: &Redirect) -> Tag {
        match self.0.get(&(redirect.protocol, redirect.target, redirect.jail)) {
            Some(None) => Tag(format!("{TAG}:{}:{}", redirect.protocol, redirect.host)),
            _ => Tag(TAG.to_owned()),
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
                write!(f, "rdr{matches} tag {tag} -> {target} port {}", Ports(*ports))
            }
            Rule::Pass { matches, tagged, labels } => {
                write!(f, "pass quick{matches}")?;
                if let Some(tag) = tagged {
                    write!(f, " tagged {tag}")?;
                }
                f.write_str(" keep state")?;
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
        let publication = Publication { jail, redirects, options: Options::default() };
        assert_eq!(
            text(&rules(&publication)),
            "\
rdr on \"em0\" inet proto tcp from any to (\"em0\") port 8080 tag kport -> 10.0.0.2 port 80
pass quick inet proto tcp from any to 10.0.0.2 port 80 tagged kport keep state label \"kport:web\" label \"kport:web:tcp:8080\"
pass quick on { bridge epair lo } inet proto tcp from any to 10.0.0.2 port 80 keep state label \"kport:web\" label \"kport:web:tcp:8080\"
"
        );
    }
}
