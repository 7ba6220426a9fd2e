//! The interfaces of a network stack, and their addresses.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::buffer::{malformed, u16_at, u32_at};
use super::rtsock::{
    RTAX_IFA, RTAX_IFP, RTAX_NETMASK, RTM_IFINFO, RTM_NEWADDR, address, link_name, messages, prefix, sockaddrs,
};
use crate::error::Result;
use crate::host::HostInterface;
use crate::net::{Family, Interface, is_link_local6};

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

/// net.route.0.0.iflist: the interfaces and addresses of the network stack that the caller is in.
#[cfg(target_os = "freebsd")]
pub const LIST: [libc::c_int; 6] = [libc::CTL_NET, libc::PF_ROUTE, 0, libc::AF_UNSPEC, libc::NET_RT_IFLISTL, 0];

/// Every interface of the host whose name a pf rule of kport can contain.
#[cfg(target_os = "freebsd")]
pub fn all() -> Result<Vec<HostInterface>> {
    use super::{group, sysctl};
    let answer = sysctl::fetch(&LIST).map_err(|e| crate::error::Error::io("read the interface list", &e))?;
    let socket = group::socket()?;
    let has_fibs = super::value::number("net.fibs")?.is_some_and(|fibs| fibs > 1);
    let mut found = Vec::new();
    for link in links(&answer)? {
        // an interface that was removed meanwhile is not the host's
        if let Some(groups) = group::of(&socket, &link.name)? {
            let fib = if has_fibs { group::fib(&socket, &link.name)? } else { 0 };
            found.extend(link.with_groups(groups).map(|interface| HostInterface { fib, ..interface }));
        }
    }
    Ok(found)
}

/// An interface in the result of NET_RT_IFLISTL, without its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    index: u16,
    flags: u32,
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
        let index = u16_at(message, IFM_INDEX)?;
        let start = usize::from(u16_at(message, IFM_LEN)?);
        let addresses = sockaddrs(message, start, u32_at(message, IFM_ADDRS)?)?;
        if kind == RTM_IFINFO {
            // root of a jail chooses the names of its interfaces
            let name = String::from_utf8_lossy(link_name(addresses[RTAX_IFP])?).into_owned();
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

/// The addresses at which a jail with its own network stack can be reached, in the order of `links`: without loopback
/// and link-local addresses, without the 0.0.0.0 that dhclient(8) sets while it waits, and without those of an
/// interface that is down. `flags` returns the flags of an IPv6 address of an interface, netinet6/in6_var.h: temporary
/// addresses follow the others, deprecated ones these, and the last are those that are not ready.
pub fn reachable(links: &[Link], mut flags: impl FnMut(&str, Ipv6Addr) -> u32) -> Vec<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(is_link_local6(*v6) || v6.is_unspecified()),
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

#[cfg(test)]
mod tests {
    use ipnet::{Ipv4Net, Ipv6Net};

    use super::super::recordings::{IFCONFIG_A, IFLISTL};
    use super::*;

    /// name, up, addresses of each interface that ifconfig(8) printed
    fn ifconfig() -> Vec<(String, bool, Vec<IpNet>)> {
        let mut found: Vec<(String, bool, Vec<IpNet>)> = Vec::new();
        for line in IFCONFIG_A.lines() {
            if let Some((name, rest)) = line.split_once(": flags=") {
                let flags = rest.split_once('<').map_or("", |(_, flags)| flags);
                found.push((name.to_owned(), flags.starts_with("UP,"), Vec::new()));
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let addresses = &mut found.last_mut().unwrap().2;
            match words[..] {
                ["inet", address, "netmask", mask, ..] => {
                    let mask = u32::from_str_radix(mask.trim_start_matches("0x"), 16).unwrap();
                    let net = Ipv4Net::new(address.parse().unwrap(), mask.leading_ones() as u8);
                    addresses.push(net.unwrap().into());
                }
                ["inet6", address, "prefixlen", length, ..] => {
                    let address = address.split('%').next().unwrap().parse().unwrap();
                    addresses.push(Ipv6Net::new(address, length.parse().unwrap()).unwrap().into());
                }
                _ => (),
            }
        }
        found
    }

    /// With addresses that have no flags.
    fn usual(links: &[Link]) -> Vec<IpAddr> {
        reachable(links, |_, _| 0)
    }

    #[test]
    fn interfaces_as_ifconfig_prints_them() {
        let mut expected = ifconfig();
        assert_eq!(expected.len(), 9);
        let mut seen: Vec<(String, bool, Vec<IpNet>)> =
            links(IFLISTL).unwrap().into_iter().map(|l| (l.name, l.flags & IFF_UP != 0, l.addresses)).collect();
        // ifconfig sorts the addresses of an interface by family
        for (_, _, addresses) in seen.iter_mut().chain(&mut expected) {
            addresses.sort();
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn groups_come_from_elsewhere_and_odd_names_are_left_out() {
        let em0 = links(IFLISTL).unwrap().into_iter().find(|link| link.name == "em0").unwrap();
        let wan: Interface = "wan".parse().unwrap();
        let interface = em0.clone().with_groups(vec![wan]).unwrap();
        assert_eq!((interface.name.as_str(), interface.groups, interface.up), ("em0", vec![wan], true));
        assert_eq!(Link { name: "odd:name".to_owned(), ..em0 }.with_groups(Vec::new()), None);
    }

    #[test]
    fn reachable_addresses_are_neither_loopback_nor_link_local() {
        let expected = ["192.0.2.1", "2001:db8::1", "192.0.2.7", "10.0.0.1", "fd00::1", "10.1.0.1", "fd01::1"];
        let expected: Vec<IpAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(usual(&links(IFLISTL).unwrap()), expected);
    }

    /// fd00::1 and fd01::1 have flags.
    #[test]
    fn a_preferred_address_comes_first() {
        let links = links(IFLISTL).unwrap();
        let order = |first, second| {
            let flags = |_: &str, address: Ipv6Addr| match address.to_string().as_str() {
                "fd00::1" => first,
                "fd01::1" => second,
                _ => 0,
            };
            let found = reachable(&links, flags).into_iter().filter(IpAddr::is_ipv6);
            found.map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(0, 0), "2001:db8::1 fd00::1 fd01::1");
        for (before, after) in [
            (0, IN6_IFF_TEMPORARY),
            (IN6_IFF_TEMPORARY, IN6_IFF_DEPRECATED),
            (IN6_IFF_TEMPORARY, IN6_IFF_TEMPORARY | IN6_IFF_DEPRECATED),
            (IN6_IFF_DEPRECATED, IN6_IFF_TENTATIVE),
            (IN6_IFF_DEPRECATED, IN6_IFF_DUPLICATED),
            (IN6_IFF_DEPRECATED, IN6_IFF_DETACHED | IN6_IFF_DEPRECATED),
        ] {
            assert_eq!(order(before, after), "2001:db8::1 fd00::1 fd01::1", "{before} {after}");
            assert_eq!(order(after, before), "2001:db8::1 fd01::1 fd00::1", "{before} {after}");
        }
    }

    /// Root of a jail cannot hide its addresses in this way.
    #[test]
    fn an_interface_with_a_name_that_is_not_text() {
        let at = IFLISTL.windows(7).position(|bytes| bytes == b"bridge0").unwrap();
        let mut buffer = IFLISTL.to_vec();
        buffer[at] = 0xff;
        assert_eq!(usual(&links(&buffer).unwrap()), usual(&links(IFLISTL).unwrap()));
        let odd = links(&buffer).unwrap().into_iter().find(|link| link.name.ends_with("ridge0")).unwrap();
        assert_eq!(odd.with_groups(vec![]), None);
    }

    /// The recording, with one interface down.
    #[test]
    fn an_interface_that_is_down_has_no_reachable_address() {
        let before = links(IFLISTL).unwrap();
        let down = before.iter().find(|link| link.name == "bridge0").unwrap();
        let mut buffer = IFLISTL.to_vec();
        let mut at = 0;
        for message in messages(IFLISTL) {
            let (kind, message) = message.unwrap();
            if kind == RTM_IFINFO && u16_at(message, IFM_INDEX) == Some(down.index) {
                let flags = down.flags & !IFF_UP;
                buffer[at + IFM_FLAGS..][..4].copy_from_slice(&flags.to_ne_bytes());
            }
            at += message.len();
        }
        let expected: Vec<IpAddr> =
            usual(&before).into_iter().filter(|a| down.addresses.iter().all(|net| net.addr() != *a)).collect();
        assert!(expected.len() < usual(&before).len());
        assert_eq!(usual(&links(&buffer).unwrap()), expected);
    }
}
