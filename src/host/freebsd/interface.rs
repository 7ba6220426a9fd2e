//! The interfaces of a network stack, and their addresses.

use std::net::IpAddr;

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
/// interface that is down.
pub fn reachable(links: &[Link]) -> Vec<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !(v4.is_link_local() || v4.is_unspecified()),
        IpAddr::V6(v6) => !(is_link_local6(*v6) || v6.is_unspecified()),
    };
    let up = links.iter().filter(|link| link.flags & (IFF_UP | IFF_LOOPBACK) == IFF_UP);
    up.flat_map(|link| &link.addresses).map(IpNet::addr).filter(usable).collect()
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
        assert_eq!(reachable(&links(IFLISTL).unwrap()), expected);
    }

    /// Root of a jail cannot hide its addresses in this way.
    #[test]
    fn an_interface_with_a_name_that_is_not_text() {
        let at = IFLISTL.windows(7).position(|bytes| bytes == b"bridge0").unwrap();
        let mut buffer = IFLISTL.to_vec();
        buffer[at] = 0xff;
        assert_eq!(reachable(&links(&buffer).unwrap()), reachable(&links(IFLISTL).unwrap()));
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
            reachable(&before).into_iter().filter(|a| down.addresses.iter().all(|net| net.addr() != *a)).collect();
        assert!(expected.len() < reachable(&before).len());
        assert_eq!(reachable(&links(&buffer).unwrap()), expected);
    }
}
