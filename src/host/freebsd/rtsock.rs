//! The interfaces and the routes of a network stack, in the messages of route(4), each of which is followed by socket addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{at, malformed};
use crate::error::{Result, error, quoted};
use crate::host::{Gateway, HostInterface, Router};
use crate::net::{Family, Interface};

const AF_INET: u8 = 2;
const AF_LINK: u8 = 18;
const AF_INET6: u8 = 28;

/// net/route.h
const RTM_VERSION: u8 = 5;
const RTM_GET: u8 = 0x4;
const RTM_NEWADDR: u8 = 0xc;
const RTM_IFINFO: u8 = 0xe;
const RTAX_DST: usize = 0;
const RTAX_GATEWAY: usize = 1;
const RTAX_NETMASK: usize = 2;
const RTAX_IFP: usize = 4;
const RTAX_IFA: usize = 5;
const RTAX_MAX: usize = 8;
const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;
const RTF_HOST: u32 = 0x4;
const RTF_REJECT: u32 = 0x8;
const RTF_BLACKHOLE: u32 = 0x1000;
/// sizeof (struct rt_msghdr)
const RT_MSGHDR: usize = 152;
const RTM_FLAGS: usize = 8;
const RTM_ADDRS: usize = 12;

/// struct if_msghdrl and struct ifa_msghdrl have the same start, which contains the offset of the addresses.
const IFM_ADDRS: usize = 4;
const IFM_FLAGS: usize = 8;
const IFM_INDEX: usize = 12;
const IFM_LEN: usize = 16;
/// net/if.h
const IFF_UP: u32 = 0x1;
const IFF_BROADCAST: u32 = 0x2;
const IFF_LOOPBACK: u32 = 0x8;
/// netinet6/in6_var.h
const IN6_IFF_TENTATIVE: u32 = 0x02;
const IN6_IFF_DUPLICATED: u32 = 0x04;
const IN6_IFF_DETACHED: u32 = 0x08;
const IN6_IFF_DEPRECATED: u32 = 0x10;
const IN6_IFF_TEMPORARY: u32 = 0x80;

/// The messages of an rtsock sysctl: type and bytes of each.
fn messages(buffer: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = at::<u16>(rest, 0).map(usize::from);
        let message = length.and_then(|length| rest.get(..length)).filter(|m| m.len() >= 4 && m[2] == RTM_VERSION);
        rest = message.map_or(&[], |message| &rest[message.len()..]);
        Some(message.map(|message| (message[3], message)))
    })
}

/// The socket addresses at `offset` of a message, by their RTAX index; `None` if `mask` names one that is missing.
fn sockaddrs(message: &[u8], offset: usize, mask: u32) -> Option<[&[u8]; RTAX_MAX]> {
    let mut found = [[].as_slice(); RTAX_MAX];
    let mut rest = message.get(offset..)?;
    for (index, place) in found.iter_mut().enumerate() {
        if mask & 1 << index != 0 {
            let length = usize::from(*rest.first()?);
            *place = rest.get(..length)?;
            // SA_SIZE of net/route.h: in steps of a long; an empty one also takes a long
            rest = rest.get(length.next_multiple_of(8).max(8)..).unwrap_or(&[]);
        }
    }
    Some(found)
}

/// The address in a sockaddr_in or sockaddr_in6; `None` for any other family.
pub fn address(sockaddr: &[u8]) -> Option<IpAddr> {
    match *sockaddr.get(1)? {
        AF_INET => Some(Ipv4Addr::from(at::<[u8; 4]>(sockaddr, 4)?).into()),
        AF_INET6 => {
            let address = Ipv6Addr::from(at::<[u8; 16]>(sockaddr, 8)?);
            // KAME: the kernel may leave the scope in the second 16 bits of a link-local address
            let mut segments = address.segments();
            if address.is_unicast_link_local() {
                segments[1] = 0;
            }
            Some(Ipv6Addr::from(segments).into())
        }
        _ => None,
    }
}

/// The prefix length of a netmask for `family`. The kernel may cut a mask's trailing zeros, and even its family, so the
/// family of the address decides.
pub fn prefix(mask: &[u8], family: Family) -> u8 {
    let (start, size) = match family {
        Family::Inet => (4, 4),
        Family::Inet6 => (8, 16),
    };
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(mask.iter().skip(start).take(size)).for_each(|(to, byte)| *to = *byte);
    // lossless: at most 128
    u128::from_be_bytes(bytes).leading_ones() as u8
}

/// The interface name in a sockaddr_dl (net/if_dl.h: the name's length at 5, the name at 8).
fn link_name(sockaddr: &[u8]) -> Option<&[u8]> {
    let (AF_LINK, length) = (*sockaddr.get(1)?, usize::from(*sockaddr.get(5)?)) else { return None };
    sockaddr.get(8..8 + length).filter(|name| !name.is_empty())
}

// ---- interfaces

/// An interface in the result of NET_RT_IFLISTL, without its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u16,
    pub flags: u32,
    /// Its name, with any characters.
    pub name: String,
    /// Its addresses, each with its network, in the kernel's order.
    pub addresses: Vec<IpNet>,
}

impl Link {
    /// This interface with its `groups`. `None` if pf rules of kport cannot contain its name.
    pub fn with_groups(self, groups: Vec<Interface>) -> Option<HostInterface> {
        let name = self.name.parse().ok()?;
        let (up, point_to_point) = (self.flags & IFF_UP != 0, self.flags & (IFF_BROADCAST | IFF_LOOPBACK) == 0);
        Some(HostInterface { up, point_to_point, ..HostInterface::up(name, groups, self.addresses) })
    }
}

/// The interfaces and their addresses in the result of NET_RT_IFLISTL.
pub fn links(buffer: &[u8]) -> Result<Vec<Link>> {
    read_links(buffer).ok_or_else(|| malformed("interface list"))
}

fn read_links(buffer: &[u8]) -> Option<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    for message in messages(buffer) {
        let (kind, message) = message?;
        if kind != RTM_IFINFO && kind != RTM_NEWADDR {
            continue;
        }
        let index = at(message, IFM_INDEX)?;
        let start = usize::from(at::<u16>(message, IFM_LEN)?);
        let addresses = sockaddrs(message, start, at(message, IFM_ADDRS)?)?;
        if kind == RTM_IFINFO {
            // root of a jail chooses the names of its interfaces
            let name = String::from_utf8_lossy(link_name(addresses[RTAX_IFP])?).into_owned();
            links.push(Link { index, flags: at(message, IFM_FLAGS)?, name, addresses: Vec::new() });
            continue;
        }
        // the addresses of an interface follow it
        let link = links.last_mut().filter(|link| link.index == index)?;
        if let Some(address) = address(addresses[RTAX_IFA]) {
            let length = prefix(addresses[RTAX_NETMASK], Family::of(address));
            link.addresses.push(IpNet::new(address, length).ok()?);
        }
    }
    Some(links)
}

/// The addresses at which a jail with its own network stack can be reached, in the order of `links`: without loopback
/// and link-local addresses, without the 0.0.0.0 that dhclient(8) sets while it waits, and without those of an
/// interface that is down. `flags` returns the flags of an IPv6 address of an interface, netinet6/in6_var.h: temporary
/// addresses follow the others, deprecated ones these, and the last are those that are not ready.
pub fn reachable(links: &[Link], mut flags: impl FnMut(&str, Ipv6Addr) -> u32) -> Vec<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(v6.is_unicast_link_local() || v6.is_unspecified()),
    };
    let up = links.iter().filter(|link| link.flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP);
    let own = up.flat_map(|link| link.addresses.iter().map(move |own| (link, own.addr())));
    let mut found: Vec<(&Link, IpAddr)> = own.filter(|(_, address)| usable(address)).collect();
    found.sort_by_cached_key(|(link, address)| match address {
        IpAddr::V4(_) => 0,
        IpAddr::V6(v6) => match flags(&link.name, *v6) {
            set if set & (IN6_IFF_TENTATIVE | IN6_IFF_DUPLICATED | IN6_IFF_DETACHED) != 0 => 3,
            set if set & IN6_IFF_DEPRECATED != 0 => 2,
            set if set & IN6_IFF_TEMPORARY != 0 => 1,
            _ => 0,
        },
    });
    found.into_iter().map(|(_, address)| address).collect()
}

// ---- routes

pub fn named(name: &str) -> Result<Interface> {
    name.parse().map_err(|_| {
        let name = quoted(name);
        error!(Unsupported, "the default route's interface {name} has a name that pf rules cannot contain: rename it")
    })
}

/// A route to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    pub default: bool,
    pub name: &'a str,
    /// `None` for a route to the interface itself.
    pub gateway: Option<IpAddr>,
}

/// The first default route of `family` in the result of NET_RT_DUMP.
pub fn default_route(buffer: &[u8], family: Family) -> Result<Option<Route<'_>>> {
    routes(buffer, family).find(|route| route.as_ref().map_or(true, |route| route.default)).transpose()
}

/// Where the default route of `family` in the result of NET_RT_DUMP leads. One without a gateway, by an interface, is not known.
pub fn router(buffer: &[u8], family: Family) -> Result<Router> {
    let route = default_route(buffer, family)?;
    Ok(route.map_or(Router::Missing, |route| route.gateway.map_or(Router::Unknown, Router::At)))
}

/// Adds the routers in the result of NET_RT_DUMP. An interface with a name that pf rules cannot contain is left out.
pub fn add_gateways(buffer: &[u8], family: Family, fib: u32, found: &mut Vec<Gateway>) -> Result<()> {
    for route in routes(buffer, family) {
        let Route { default, name, gateway } = route?;
        let Ok(interface) = name.parse() else { continue };
        let Some(address) = gateway.or(default.then(|| family.unspecified())) else { continue };
        let one = Gateway { interface, address, fib, default };
        if !found.contains(&one) {
            found.push(one);
        }
    }
    Ok(())
}

/// The routes of `family` to networks in the result of NET_RT_DUMP.
fn routes(buffer: &[u8], family: Family) -> impl Iterator<Item = Result<Route<'_>>> {
    messages(buffer).filter_map(move |message| {
        let route =
            message.and_then(|(kind, message)| if kind == RTM_GET { route(message, family) } else { Some(None) });
        route.ok_or_else(|| malformed("routing table")).transpose()
    })
}

/// A route that only rejects (`-reject`, `-blackhole`) does not count.
fn route(message: &[u8], family: Family) -> Option<Option<Route<'_>>> {
    let flags: u32 = at(message, RTM_FLAGS)?;
    let mask = at(message, RTM_ADDRS)?;
    let addresses = sockaddrs(message, RT_MSGHDR, mask)?;
    if flags & (RTF_UP | RTF_HOST | RTF_REJECT | RTF_BLACKHOLE) != RTF_UP || mask & 1 << RTAX_NETMASK == 0 {
        return Some(None);
    }
    let of_family = address(addresses[RTAX_DST]).filter(|to| Family::of(*to) == family);
    // an interface that is being removed has no RTAX_IFP: sysctl_dumpnhop() of net/rtsock.c
    let name = link_name(addresses[RTAX_IFP]).and_then(|name| std::str::from_utf8(name).ok());
    Some(of_family.zip(name).map(|(to, name)| Route {
        default: to.is_unspecified() && prefix(addresses[RTAX_NETMASK], family) == 0,
        name,
        gateway: address(addresses[RTAX_GATEWAY]).filter(|_| flags & RTF_GATEWAY != 0),
    }))
}
