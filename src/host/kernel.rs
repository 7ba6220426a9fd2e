//! Reads the buffers in which the FreeBSD kernel answers: routes and interfaces (rtsock, route(4)), sockets (the
//! `pcblist` sysctls), the time of boot.
//!
//! Nothing here asks the system, so it runs and is tested anywhere, against recordings of FreeBSD 15.1. The offsets are
//! those of the 64-bit structs of FreeBSD 14 and 15; `tests/host/layout.c` asserts them with FreeBSD's own headers. No
//! byte is trusted: a buffer of another shape is an error, never a panic, never a wrong fact.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::{Error, Kind, Result};
use crate::net::{Family, Interface, Protocol, is_link_local6};

use super::{HostInterface, Listener};

const AF_INET: u8 = 2;
const AF_LINK: u8 = 18;
const AF_INET6: u8 = 28;

/// `N` bytes at `offset`.
fn bytes<const N: usize>(buffer: &[u8], offset: usize) -> Option<[u8; N]> {
    buffer.get(offset..)?.first_chunk().copied()
}

fn u8_at(buffer: &[u8], offset: usize) -> Option<u8> {
    buffer.get(offset).copied()
}

fn u16_at(buffer: &[u8], offset: usize) -> Option<u16> {
    bytes(buffer, offset).map(u16::from_ne_bytes)
}

fn u32_at(buffer: &[u8], offset: usize) -> Option<u32> {
    bytes(buffer, offset).map(u32::from_ne_bytes)
}

fn u64_at(buffer: &[u8], offset: usize) -> Option<u64> {
    bytes(buffer, offset).map(u64::from_ne_bytes)
}

fn malformed(what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!(
            "the kernel's {what} does not have the layout of FreeBSD 14 and 15; a kport for this release is needed"
        ),
    )
}

// ---- rtsock: messages, each followed by socket addresses

/// net/route.h
const RTM_VERSION: u8 = 5;
const RTM_GET: u8 = 0x4;
const RTM_NEWADDR: u8 = 0xc;
const RTM_IFINFO: u8 = 0xe;
const RTF_UP: u32 = 0x1;
const RTF_HOST: u32 = 0x4;
const RTF_REJECT: u32 = 0x8;
const RTF_BLACKHOLE: u32 = 0x1000;
const RTAX_DST: usize = 0;
const RTAX_NETMASK: usize = 2;
const RTAX_IFP: usize = 4;
const RTAX_IFA: usize = 5;
const RTAX_MAX: usize = 8;
/// sizeof (struct rt_msghdr)
const RT_MSGHDR: usize = 152;
const RTM_FLAGS: usize = 8;
const RTM_ADDRS: usize = 12;
/// struct if_msghdrl and struct ifa_msghdrl begin alike, and say where the addresses start.
const IFM_ADDRS: usize = 4;
const IFM_FLAGS: usize = 8;
const IFM_INDEX: usize = 12;
const IFM_LEN: usize = 16;
/// net/if.h
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;

/// The messages of an rtsock sysctl: type and bytes of each.
fn messages(buffer: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = u16_at(rest, 0).and_then(|length| rest.get(..usize::from(length)));
        match message {
            Some(m) if m.len() >= 4 && m[2] == RTM_VERSION => {
                rest = &rest[m.len()..];
                Some(Some((m[3], m)))
            }
            _ => {
                rest = &[];
                Some(None)
            }
        }
    })
}

/// The socket addresses at `offset` of a message, by their RTAX index; `None` where `mask` names one that is not there.
fn sockaddrs(message: &[u8], offset: usize, mask: u32) -> Option<[&[u8]; RTAX_MAX]> {
    let mut found = [[].as_slice(); RTAX_MAX];
    let mut rest = message.get(offset..)?;
    for (index, place) in found.iter_mut().enumerate() {
        if mask & 1 << index != 0 {
            let length = usize::from(*rest.first()?);
            *place = rest.get(..length)?;
            // SA_SIZE of net/route.h: in steps of a long, an empty one takes a long too
            rest = rest.get(length.next_multiple_of(8).max(8)..).unwrap_or(&[]);
        }
    }
    Some(found)
}

/// The address in a sockaddr_in or sockaddr_in6; `None` for any other family.
fn address(sockaddr: &[u8]) -> Option<IpAddr> {
    match *sockaddr.get(1)? {
        AF_INET => Some(Ipv4Addr::from(bytes::<4>(sockaddr, 4)?).into()),
        AF_INET6 => {
            let address = Ipv6Addr::from(bytes::<16>(sockaddr, 8)?);
            // KAME: the kernel may leave the scope in the second 16 bits of a link-local address
            let mut segments = address.segments();
            if is_link_local6(address) {
                segments[1] = 0;
            }
            Some(Ipv6Addr::from(segments).into())
        }
        _ => None,
    }
}

/// The length of the prefix that a netmask tells for `family`. The kernel may cut a mask's trailing zeros, and even its
/// family, so it is read by the family of the address.
fn prefix(mask: &[u8], family: Family) -> u8 {
    let (start, size) = match family {
        Family::Inet => (4, 4),
        Family::Inet6 => (8, 16),
    };
    let mut length = 0;
    for byte in mask.iter().skip(start).take(size) {
        // lossless: at most 8
        length += byte.leading_ones() as u8;
        if *byte != 0xff {
            break;
        }
    }
    length
}

/// The interface name in a sockaddr_dl (net/if_dl.h: the name's length at 5, the name at 8).
fn link_name(sockaddr: &[u8]) -> Option<&str> {
    if u8_at(sockaddr, 1)? != AF_LINK {
        return None;
    }
    let length = usize::from(u8_at(sockaddr, 5)?);
    let name = std::str::from_utf8(sockaddr.get(8..8 + length)?).ok()?;
    (!name.is_empty()).then_some(name)
}

/// The name of the interface of the first default route of `family` in the answer to NET_RT_DUMP; `None` without one.
/// A default route that only refuses (`-reject`, `-blackhole`) is none.
pub fn default_route(buffer: &[u8], family: Family) -> Result<Option<&str>> {
    let wrong = || malformed("routing table");
    for message in messages(buffer) {
        let (RTM_GET, message) = message.ok_or_else(wrong)? else { continue };
        let flags = u32_at(message, RTM_FLAGS).ok_or_else(wrong)?;
        let mask = u32_at(message, RTM_ADDRS).ok_or_else(wrong)?;
        let addresses = sockaddrs(message, RT_MSGHDR, mask).ok_or_else(wrong)?;
        if flags & (RTF_UP | RTF_HOST | RTF_REJECT | RTF_BLACKHOLE) != RTF_UP || mask & 1 << RTAX_NETMASK == 0 {
            continue;
        }
        let Some(destination) = address(addresses[RTAX_DST]) else { continue };
        if Family::of(destination) == family
            && destination.is_unspecified()
            && prefix(addresses[RTAX_NETMASK], family) == 0
        {
            // an interface that is going away has no RTAX_IFP any more: sysctl_dumpnhop() of net/rtsock.c
            match link_name(addresses[RTAX_IFP]) {
                Some(name) => return Ok(Some(name)),
                None => continue,
            }
        }
    }
    Ok(None)
}

/// An interface as NET_RT_IFLISTL tells it, without its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    index: u16,
    flags: u32,
    /// Its name, whatever characters it has.
    pub name: String,
    /// Its addresses, each with its network, in the kernel's order.
    pub addresses: Vec<IpNet>,
}

impl Link {
    /// This interface with its `groups`. `None` where it has a name that pf rules of kport cannot hold.
    pub fn with_groups(self, groups: Vec<Interface>) -> Option<HostInterface> {
        let name = self.name.parse().ok()?;
        Some(HostInterface { name, groups, addresses: self.addresses, up: self.flags & IFF_UP != 0 })
    }
}

/// The interfaces and their addresses in the answer to NET_RT_IFLISTL.
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
        let index = u16_at(message, IFM_INDEX)?;
        let start = usize::from(u16_at(message, IFM_LEN)?);
        let addresses = sockaddrs(message, start, u32_at(message, IFM_ADDRS)?)?;
        if kind == RTM_IFINFO {
            let name = link_name(addresses[RTAX_IFP])?.to_owned();
            links.push(Link { index, flags: u32_at(message, IFM_FLAGS)?, name, addresses: Vec::new() });
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

/// The addresses at which a jail with a network stack of its own can be reached, in the order of `links`: not those of
/// loopback, not link-local ones, and not the 0.0.0.0 that dhclient(8) sets while it waits.
pub fn reachable(links: &[Link]) -> Vec<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(is_link_local6(*v6) || v6.is_unspecified()),
    };
    let up = links.iter().filter(|link| link.flags & IFF_LOOPBACK == 0);
    up.flat_map(|link| &link.addresses).map(IpNet::addr).filter(usable).collect()
}

// ---- pcblist: a struct xinpgen, one record a socket, a struct xinpgen

/// sizeof (struct xinpgen)
const XINPGEN: usize = 64;
/// sizeof (struct xinpcb), netinet/in_pcb.h
const XINPCB: usize = 400;
/// offsetof (struct xinpcb, inp_inc.inc_ie), and in there struct in_endpoints
const IN_ENDPOINTS: usize = 252;
const IE_FPORT: usize = IN_ENDPOINTS;
const IE_LPORT: usize = IN_ENDPOINTS + 2;
const IE_LADDR: usize = IN_ENDPOINTS + 20;
/// an IPv4 address stands in the last 4 of the 16 bytes (struct in_addr_4in6)
const IE_LADDR4: usize = IE_LADDR + 12;
const INP_VFLAG: usize = 392;
const INP_IPV4: u8 = 0x1;
const INP_IPV6: u8 = 0x2;
/// sizeof (struct xtcpcb), netinet/tcp_var.h
const XTCPCB: usize = 744;
const XT_INP: usize = 8;
const T_STATE: usize = 568;
/// netinet/tcp_fsm.h
const TCPS_LISTEN: u32 = 1;

/// The records of a pcblist, each of `size` bytes. Every struct in it begins with its own length.
fn records(buffer: &[u8], size: usize) -> Option<Vec<&[u8]>> {
    let length = |rest| u64_at(rest, 0).and_then(|length| usize::try_from(length).ok());
    if length(buffer)? != XINPGEN {
        return None;
    }
    let mut rest = buffer.get(XINPGEN..)?;
    let mut found = Vec::new();
    while length(rest)? != XINPGEN {
        if length(rest)? != size {
            return None;
        }
        let (record, after) = rest.split_at_checked(size)?;
        found.push(record);
        rest = after;
    }
    rest.get(..XINPGEN).map(|_| found)
}

/// The local end of a struct xinpcb; `None` where it is bound to no port.
fn listener(xinpcb: &[u8], protocol: Protocol) -> Option<Option<Listener>> {
    let vflag = u8_at(xinpcb, INP_VFLAG)?;
    let port = u16::from_be_bytes(bytes(xinpcb, IE_LPORT)?);
    let families = [vflag & INP_IPV4 != 0, vflag & INP_IPV6 != 0];
    let address: IpAddr = match families {
        // a socket of both families has an IPv6 address: all of ::, or it would be of one family
        [_, true] => Ipv6Addr::from(bytes::<16>(xinpcb, IE_LADDR)?).into(),
        [true, false] => Ipv4Addr::from(bytes::<4>(xinpcb, IE_LADDR4)?).into(),
        // the kernel clears both while it tears a socket down
        [false, false] => return Some(None),
    };
    Some((port != 0).then(|| listening(protocol, families, address, port)))
}

fn listening(protocol: Protocol, families: [bool; 2], address: IpAddr, port: u16) -> Listener {
    if address.is_unspecified() {
        return Listener { protocol, families, address: None, port };
    }
    Listener { protocol, families: [address.is_ipv4(), address.is_ipv6()], address: Some(address), port }
}

/// The sockets in TCPS_LISTEN in the answer to `net.inet.tcp.pcblist`.
pub fn tcp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    let read = || {
        let mut found = Vec::new();
        for record in records(buffer, XTCPCB)? {
            if u32_at(record, T_STATE)? == TCPS_LISTEN {
                found.extend(listener(record.get(XT_INP..)?, Protocol::Tcp)?);
            }
        }
        Some(found)
    };
    read().ok_or_else(|| malformed("list of tcp sockets"))
}

/// The sockets that are bound and not connected in the answer to `net.inet.udp.pcblist`.
pub fn udp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    let read = || {
        let mut found = Vec::new();
        for record in records(buffer, XINPCB)? {
            if u16_at(record, IE_FPORT)? == 0 {
                found.extend(listener(record, Protocol::Udp)?);
            }
        }
        Some(found)
    };
    read().ok_or_else(|| malformed("list of udp sockets"))
}

// ---- net.inet.sctp.assoclist: endpoints, each with its addresses and associations, each list closed by a `last` record

/// sizeof of netinet/sctp_uio.h
const XSCTP_INPCB: usize = 160;
const XSCTP_LADDR: usize = 168;
const XSCTP_TCB: usize = 264;
const XSCTP_RADDR: usize = 204;
/// offsetof (struct xsctp_inpcb, ...)
const XSCTP_LAST: usize = 0;
const XSCTP_FLAGS: usize = 4;
const XSCTP_LOCAL_PORT: usize = 32;
/// the other three begin with a 28-byte socket address, then `last`
const XSCTP_OTHER_LAST: usize = 28;
/// netinet/sctp.h
const SCTP_PCB_FLAGS_BOUNDALL: u32 = 0x4;
const SCTP_PCB_FLAGS_ACCEPTING: u32 = 0x8;

/// The records up to the `last` one, which `rest` is left behind.
fn until_last<'a>(rest: &mut &'a [u8], size: usize) -> Option<Vec<&'a [u8]>> {
    let mut found = Vec::new();
    loop {
        let (record, after) = rest.split_at_checked(size)?;
        *rest = after;
        if u32_at(record, XSCTP_OTHER_LAST)? != 0 {
            return Some(found);
        }
        found.push(record);
    }
}

/// The listening sockets in the answer to `net.inet.sctp.assoclist` (sctp_sysctl.c). An endpoint that is bound to every
/// address still lists them one by one, and so tells its families.
pub fn sctp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    read_sctp(buffer).ok_or_else(|| malformed("list of sctp sockets"))
}

fn read_sctp(buffer: &[u8]) -> Option<Vec<Listener>> {
    let mut found = Vec::new();
    let mut rest = buffer;
    loop {
        let (endpoint, after) = rest.split_at_checked(XSCTP_INPCB)?;
        rest = after;
        if u32_at(endpoint, XSCTP_LAST)? != 0 {
            return Some(found);
        }
        let flags = u32_at(endpoint, XSCTP_FLAGS)?;
        let port = u16_at(endpoint, XSCTP_LOCAL_PORT)?;
        let addresses: Vec<IpAddr> = until_last(&mut rest, XSCTP_LADDR)?.into_iter().filter_map(address).collect();
        // each association: itself, its local addresses, its remote ones; the `last` one stands alone
        loop {
            let (association, after) = rest.split_at_checked(XSCTP_TCB)?;
            rest = after;
            if u32_at(association, XSCTP_OTHER_LAST)? != 0 {
                break;
            }
            until_last(&mut rest, XSCTP_LADDR)?;
            until_last(&mut rest, XSCTP_RADDR)?;
        }
        if flags & SCTP_PCB_FLAGS_ACCEPTING == 0 || port == 0 {
            continue;
        }
        if flags & SCTP_PCB_FLAGS_BOUNDALL == 0 {
            found.extend(addresses.into_iter().map(|a| listening(Protocol::Sctp, [false; 2], a, port)));
        } else {
            let families = [addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6)];
            found.push(Listener { protocol: Protocol::Sctp, families, address: None, port });
        }
    }
}

// ---- the rest

/// The struct timeval of `kern.boottime`: seconds and microseconds since 1970.
pub fn boottime(buffer: &[u8]) -> Result<(i64, i64)> {
    match (buffer.len(), bytes(buffer, 0), bytes(buffer, 8)) {
        (16, Some(seconds), Some(micros)) => Ok((i64::from_ne_bytes(seconds), i64::from_ne_bytes(micros))),
        _ => Err(malformed("kern.boottime")),
    }
}

/// The number in the answer to an integer sysctl. Those of 32 and 64 bits are signed (`kern.securelevel` is -1).
pub fn integer(buffer: &[u8]) -> Option<i64> {
    match *buffer {
        [a] => Some(i64::from(a)),
        [a, b] => Some(i64::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => Some(i64::from(i32::from_ne_bytes([a, b, c, d]))),
        _ => buffer.try_into().ok().map(i64::from_ne_bytes),
    }
}

/// The addresses in jail_get(2)'s `ip4.addr`, then those in its `ip6.addr`.
pub fn jail_addresses(ip4: &[u8], ip6: &[u8]) -> Result<Vec<IpAddr>> {
    let (v4, odd4) = ip4.as_chunks::<4>();
    let (v6, odd6) = ip6.as_chunks::<16>();
    if !(odd4.is_empty() && odd6.is_empty()) {
        return Err(malformed("list of jail addresses"));
    }
    let v4 = v4.iter().map(|bytes| IpAddr::from(*bytes));
    Ok(v4.chain(v6.iter().map(|bytes| IpAddr::from(*bytes))).collect())
}

/// sys/jail.h
const JAIL_SYS_INHERIT: i32 = 2;

/// Whether a jail uses the host's addresses, by family: from its parameters `ip4` and `ip6`, as far as the kernel has
/// them. The kernel says "inherit" for a VNET jail too, and for one that inherits the addresses of the jail above it,
/// which it then lists.
pub fn inherits(vnet: bool, jailsys: [Option<i32>; 2], addresses: &[IpAddr]) -> [bool; 2] {
    let own = [addresses.iter().any(IpAddr::is_ipv4), addresses.iter().any(IpAddr::is_ipv6)];
    [0, 1].map(|family| !vnet && !own[family] && jailsys[family] == Some(JAIL_SYS_INHERIT))
}

#[cfg(test)]
mod tests;
