//! Publications: the redirects of a jail, with their targets and options.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result, Setting, error, quoted};
use crate::name::JailName;
use crate::net::{Family, Interface, Place, PortRange, Protocol};
use crate::options::Options;
use crate::rule::Routing;
use crate::spec::{HostPorts, Spec};

/// The address of each family that is the target of redirects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The IPv4 address, if the jail has a usable one.
    pub inet: Option<Ipv4Addr>,
    /// The IPv6 address, if the jail has a usable one.
    pub inet6: Option<Ipv6Addr>,
    /// Whether the IPv4 address is also that of IPv6 clients, if the jail has no IPv6 address ([`Options::af_to`]).
    pub af_to: bool,
}

impl Targets {
    /// Chooses the first usable address of each family, in the caller's order: the addresses of the jail on its
    /// networks. Fails if none is usable, with the reason for each.
    pub fn choose(jail: &JailName, addresses: &[IpAddr]) -> Result<Targets> {
        Targets::choose_of(jail, addresses, &[])
    }

    /// Like [`Targets::choose`] for a jail that has the addresses `own` on the host's network stack (`ip4.addr`). One of
    /// these may be in 127/8: pf translates to it after ip_input() has refused 127/8 from a network, and the answer back
    /// before ip_output() does (sys/netinet/ip_input.c, ip_output.c). 127.0.0.1 is the host's own, whatever jail has it.
    pub fn choose_of(jail: &JailName, addresses: &[IpAddr], own: &[IpAddr]) -> Result<Targets> {
        let mut targets = Targets::default();
        let mut refused = String::new();
        let mut loopback = false;
        for address in addresses {
            let host_loopback = Family::of(*address).loopback();
            let of_jail = address.is_loopback() && *address != host_loopback && own.contains(address);
            let why = unusable(*address).filter(|_| !of_jail);
            match (why, address) {
                (Some(why), _) => {
                    _ = write!(refused, "; {address} is {why}");
                    loopback |= address.is_loopback();
                }
                (None, IpAddr::V4(v4)) => _ = targets.inet.get_or_insert(*v4),
                (None, IpAddr::V6(v6)) => _ = targets.inet6.get_or_insert(*v6),
            }
        }
        if targets != Targets::default() {
            return Ok(targets);
        }
        let what = format!("{} has no address that a port can be redirected to{refused}", jail.mention());
        if addresses.is_empty() {
            let error = Error::new(Kind::Unavailable, what).remedy("wait for one with", Setting::Wait);
            return Err(error.remedy("or give it with", Setting::Address));
        }
        let error = Error::new(Kind::Argument, what);
        Err(match addresses.iter().find_map(|address| embedded(*address)) {
            _ if loopback => error.and("give the jail an address outside of 127.0.0.0/8, and not ::1"),
            Some(v4) => error.remedy(format_args!("give the IPv4 address {v4} with"), Setting::Address),
            None => error.and("give the jail another address"),
        })
    }

    /// These, with [`Targets::af_to`].
    #[must_use]
    pub fn with_af_to(self, af_to: bool) -> Targets {
        Targets { af_to, ..self }
    }

    /// The address of `family`.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Inet => self.inet.map(IpAddr::V4),
            Family::Inet6 => self.inet6.map(IpAddr::V6),
        }
    }

    /// The address of each family.
    pub(crate) fn all(self) -> impl Iterator<Item = IpAddr> {
        Family::ALL.into_iter().filter_map(move |family| self.of(family))
    }
}

/// Parses an address of a jail; `inherit` is that of a jail on the host's network, which cannot publish.
pub fn address(jail: &JailName, word: &str) -> Result<IpAddr> {
    if word == "inherit" {
        return Err(host_network(jail));
    }
    word.parse().map_err(|_| error!(Argument, "{} is not an IPv4 or IPv6 address", quoted(word)))
}

/// The reason why an address cannot be the target of a redirect.
pub(crate) fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        // pf.conf(5): a redirect to 127/8 would expose the host's own loopback services
        IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST) => {
            Some("a loopback address, which is the host's own")
        }
        _ if address.is_loopback() => Some("a loopback address that is not the jail's own (ip4.addr)"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("a link-local address, which is not routed"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address, which is not routed"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address, which is not on the wire"),
        _ if embedded(address).is_some() => Some("how NAT64 shows an IPv4 address to IPv6 clients"),
        _ => None,
    }
}

/// The IPv4 address in an IPv4-mapped address, and in one of 64:ff9b::/96 (RFC 6052).
fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().or(match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
            _ => None,
        }),
        IpAddr::V4(_) => None,
    }
}

/// The error for a jail that shares the host's network.
pub fn host_network(jail: &JailName) -> Error {
    let why = "its services already listen on the host's own addresses, so there is nothing to redirect to; give the jail \
               an address of its own to publish its ports";
    error!(Unsupported, "{} is on the host's network (ip4=inherit): {why}", jail.mention())
}

/// One redirect, complete with what was read from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Redirect {
    /// Where on the host.
    pub place: Place,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports on the host.
    pub host: PortRange,
    /// The jail's address.
    pub target: IpAddr,
    /// The ports in the jail, as many as on the host.
    pub jail: PortRange,
    /// Whether it is for IPv6 clients of an IPv4 target: pf translates from one family to the other (`af-to`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub af_to: bool,
}

impl Redirect {
    /// The family of the traffic at the host's place; that of the target, unless pf translates between them.
    pub fn family(&self) -> Family {
        if self.af_to { Family::Inet6 } else { Family::of(self.target) }
    }

    /// It by its mapping, with any address of the jail.
    pub(crate) fn without_target(&self) -> Redirect {
        Redirect { target: self.family().unspecified(), ..*self }
    }

    /// A spec of it: `em0:8080:80`, `192.0.2.1:53:53/udp`.
    pub fn spec(&self) -> String {
        let protocol = if self.protocol == Protocol::Tcp { String::new() } else { format!("/{}", self.protocol) };
        format!("{}:{}:{}{protocol}", self.place, self.host, self.jail)
    }
}

/// `8080 on em0 -> 10.0.0.2:80`, after the protocol.
impl fmt::Display for Redirect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, by) = (Place::Address(self.target), if self.af_to { " by af-to" } else { "" });
        write!(f, "{} {} on {} -> {target}:{}{by}", self.protocol, self.host, self.place, self.jail)
    }
}

/// The redirects of a spec: one for each mapping and each family in which the jail has an address. `gateway` returns
/// the interface of the host's default route for a family; it is only called for a mapping without a place. `auto` must
/// have been resolved before.
pub fn redirects(
    jail: &JailName, spec: &Spec, targets: &Targets, mut gateway: impl FnMut(Family) -> Result<Interface>,
) -> Result<Vec<Redirect>> {
    let mut made = Vec::with_capacity(spec.mappings().len());
    let mut seen = HashSet::with_capacity(spec.mappings().len());
    for mapping in spec.mappings() {
        let HostPorts::Fixed(host) = mapping.host else {
            return Err(error!(Unsupported, "{mapping}: auto is a port only when it is published; give one"));
        };
        let mut served = false;
        for family in Family::ALL {
            let own = targets.of(family);
            let af_to = own.is_none() && family == Family::Inet6 && targets.af_to;
            let Some(target) = own.or(targets.of(Family::Inet).filter(|_| af_to)) else { continue };
            let place = match mapping.place {
                Some(place) if !place.has_family(family) || af_to && place.is_loopback() => continue,
                Some(place) => place,
                None => Place::Interface(gateway(family)?),
            };
            served = true;
            let redirect = Redirect { place, protocol: mapping.protocol, host, target, jail: mapping.jail, af_to };
            // the same spec twice is one redirect
            if seen.insert(redirect) {
                made.push(redirect);
            }
        }
        if !served {
            let family = if targets.of(Family::Inet).is_some() { "IPv6" } else { "IPv4" };
            return Err(error!(Argument, "{mapping}: {} has no {family} address", jail.mention())
                .remedy("give one with", Setting::Address));
        }
    }
    Ok(made)
}

/// What is published for one jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The jail.
    pub jail: JailName,
    /// Its redirects; if the list is empty, nothing is published.
    pub redirects: Vec<Redirect>,
    /// The options.
    pub options: Options,
    /// The interface of the host through which each target is reached, usually a bridge. Only options that translate sources
    /// need it; a target that is the host's own address has none.
    #[serde(default)]
    pub via: BTreeMap<IpAddr, Interface>,
    /// How connections are answered that come in where the route to the client would be another way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
}

/// How connections through a place that come in on one of its interfaces are answered, if not by the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// The place.
    pub place: Place,
    /// The target.
    pub target: IpAddr,
    /// The interface.
    pub on: Interface,
    /// Whether the hosts of the interface's own network are left to the routes, which lead to them directly.
    pub beyond: bool,
    /// The way.
    pub routing: Routing,
}

impl Publication {
    /// Returns a publication that passed [`Publication::check`]. `via` is called once for each target, and only if the
    /// options need it.
    pub fn new(
        jail: JailName, redirects: Vec<Redirect>, options: Options,
        mut via: impl FnMut(IpAddr) -> Result<Option<Interface>>,
    ) -> Result<Publication> {
        let mut made = Publication { jail, redirects, options, via: BTreeMap::new(), answers: vec![] };
        made.check()?;
        let all = made.options.translate_sources();
        for target in distinct(made.redirects.iter().filter(|r| all || r.af_to).map(|redirect| redirect.target)) {
            if let Some(interface) = via(target)? {
                made.via.insert(target, interface);
            }
        }
        if let Some(redirect) = made.redirects.iter().find(|r| r.af_to && !made.via.contains_key(&r.target)) {
            let what = format!("{redirect}: {} is an address of the host", redirect.target);
            return Err(error!(Unsupported, "{what}; af-to needs a jail with a network stack of its own"));
        }
        Ok(made)
    }

    /// Checks whether pf supports the redirects and the options. It does not change the ports of sctp:
    /// pf_get_transaddr, case PF_RDR, and pf_get_sport in sys/netpfil/pf/pf_lb.c.
    pub fn check(&self) -> Result<()> {
        self.options.check()?;
        for redirect in &self.redirects {
            let Redirect { place, protocol, host, jail, af_to, .. } = *redirect;
            let unsupported = |why: String| error!(Unsupported, "{redirect}: {why}");
            if place.is_loopback() && !self.options.host_access {
                let why = "to publish to others, give an outer interface or address";
                let what = format!("{redirect}: only the host itself reaches {place}; {why}");
                let error = Error::new(Kind::Argument, what);
                return Err(error.remedy("to let the host use it, give", Setting::HostAccess));
            }
            if protocol == Protocol::Sctp && host != jail {
                let what =
                    format!("pf does not change the ports of sctp, so this would lead to port {host} of the jail");
                let remedy = format!("publish {jail}:{jail}/sctp, or let the service listen on {host}");
                return Err(unsupported(format!("{what}; {remedy}")));
            }
            if af_to && host != jail && host.count() > 1 {
                let remedy = format!("publish {jail}:{jail}, or each port by itself");
                return Err(unsupported(format!("af-to changes all ports of a range to one port; {remedy}")));
            }
            if af_to && protocol == Protocol::Sctp {
                return Err(unsupported("af-to is for tcp and udp only".to_owned()));
            }
            if self.options.limits.rate.is_some() && protocol != Protocol::Tcp {
                let error = unsupported("pf counts the rate of tcp connections only".to_owned());
                return Err(error.remedy(format_args!("publish {protocol} without"), Setting::Rate));
            }
        }
        Ok(())
    }

    /// The places and ports that no other publication may overlap: those of each redirect and, with host access, the
    /// same ports of the host's loopback address.
    pub fn claims(&self) -> Vec<Redirect> {
        claims(&self.redirects, &self.options)
    }
}

/// [`Publication::claims`] of redirects that are not yet a publication.
pub fn claims(redirects: &[Redirect], options: &Options) -> Vec<Redirect> {
    let mut claims = redirects.to_vec();
    if options.host_access {
        // `*` is every address already, including the loopback one
        let outer = redirects.iter().filter(|r| !r.place.is_loopback() && !r.place.is_any() && !r.af_to);
        claims.extend(distinct(outer.map(|r| Redirect { place: Place::Address(r.family().loopback()), ..*r })));
    }
    claims
}

/// Removes duplicates, and keeps the order.
pub(crate) fn distinct<T: Clone + Eq + Hash>(things: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    things.into_iter().filter(|thing| seen.insert(thing.clone())).collect()
}
