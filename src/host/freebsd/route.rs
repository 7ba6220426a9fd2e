//! The gateway interface: the one of the default route, and the routers of every FIB, from the routing tables.

use std::net::IpAddr;

use super::buffer::{malformed, u32_at};
use super::rtsock::{
    RTAX_DST, RTAX_GATEWAY, RTAX_IFP, RTAX_NETMASK, RTM_GET, address, link_name, messages, prefix, sockaddrs,
};
use crate::error::{Error, Kind, Result, quoted};
use crate::host::Gateway;
use crate::net::{Family, Interface};

/// net/route.h
const RTF_UP: u32 = 0x1;
const RTF_GATEWAY: u32 = 0x2;
const RTF_HOST: u32 = 0x4;
const RTF_REJECT: u32 = 0x8;
const RTF_BLACKHOLE: u32 = 0x1000;
/// sizeof (struct rt_msghdr)
const RT_MSGHDR: usize = 152;
const RTM_FLAGS: usize = 8;
const RTM_ADDRS: usize = 12;

/// The interface of the default route of `family`, of the calling process's FIB.
#[cfg(target_os = "freebsd")]
pub fn gateway(family: Family) -> Result<Option<Interface>> {
    // without a number the kernel uses the FIB of the process (sysctl_rtsock() of net/rtsock.c)
    default_route(&table(family, &[])?, family)?.map(named).transpose()
}

/// The routers of every FIB; see [`Host::gateways`](crate::host::Host::gateways).
#[cfg(target_os = "freebsd")]
pub fn gateways() -> Result<Vec<Gateway>> {
    let mut found = vec![];
    for fib in 0..u32::try_from(super::value::number("net.fibs")?.unwrap_or(1)).unwrap_or(1) {
        for family in Family::ALL {
            add_gateways(&table(family, &[fib.cast_signed()])?, family, fib, &mut found)?;
        }
    }
    Ok(found)
}

/// The routing table of a family.
#[cfg(target_os = "freebsd")]
fn table(family: Family, fib: &[libc::c_int]) -> Result<Vec<u8>> {
    use libc::{AF_INET, AF_INET6, CTL_NET, NET_RT_DUMP, PF_ROUTE};
    let domain = match family {
        Family::Inet => AF_INET,
        Family::Inet6 => AF_INET6,
    };
    match super::sysctl::fetch(&[&[CTL_NET, PF_ROUTE, 0, domain, NET_RT_DUMP, 0][..], fib].concat()) {
        // a kernel without this family
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(vec![]),
        other => other.map_err(|e| Error::io("read the routing table", &e)),
    }
}

fn named(name: &str) -> Result<Interface> {
    name.parse().map_err(|_| {
        let name = quoted(name);
        let text = format!("the default route's interface {name} has a name that pf rules cannot contain: rename it");
        Error::new(Kind::Unsupported, text)
    })
}

/// The name of the interface of the first default route of `family` in the result of NET_RT_DUMP; `None` without one.
pub fn default_route(buffer: &[u8], family: Family) -> Result<Option<&str>> {
    routes(buffer, family)
        .find(|route| route.as_ref().map_or(true, |route| route.default))
        .map_or(Ok(None), |route| route.map(|route| Some(route.name)))
}

/// Adds the routers in the result of NET_RT_DUMP. An interface with a name that pf rules cannot contain is left out.
pub fn add_gateways(buffer: &[u8], family: Family, fib: u32, found: &mut Vec<Gateway>) -> Result<()> {
    for route in routes(buffer, family) {
        let Route { default, name, gateway } = route?;
        let Ok(interface) = name.parse() else { continue };
        let address = match gateway {
            Some(address) => address,
            None if default => family.unspecified(),
            None => continue,
        };
        let one = Gateway { interface, address, fib, default };
        if !found.contains(&one) {
            found.push(one);
        }
    }
    Ok(())
}

/// A route to a network.
struct Route<'a> {
    default: bool,
    /// The name of its interface.
    name: &'a str,
    /// `None` for a route to the interface itself.
    gateway: Option<IpAddr>,
}

/// The routes of `family` to networks in the result of NET_RT_DUMP. One that only rejects (`-reject`, `-blackhole`) does not
/// count.
fn routes(buffer: &[u8], family: Family) -> impl Iterator<Item = Result<Route<'_>>> {
    messages(buffer).filter_map(move |message| {
        let read = || {
            let (kind, message) = message?;
            if kind != RTM_GET {
                return Some(None);
            }
            let flags = u32_at(message, RTM_FLAGS)?;
            let mask = u32_at(message, RTM_ADDRS)?;
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
        };
        read().map_or_else(|| Some(Err(malformed("routing table"))), |route| route.map(Ok))
    })
}

#[cfg(test)]
mod tests {
    use super::super::recordings::{NETSTAT_RN, ROUTE_INET, ROUTE_INET6};
    use super::*;

    /// The Netif column of the default route in the part of netstat(1) that starts with `heading`.
    fn netif(heading: &str) -> &'static str {
        let mut lines = NETSTAT_RN.lines().skip_while(|line| *line != heading);
        let line = lines.find(|line| line.starts_with("default")).unwrap();
        line.split_whitespace().nth(5).unwrap()
    }

    #[test]
    fn default_route_as_netstat_prints_it() {
        assert_eq!(default_route(ROUTE_INET, Family::Inet).unwrap(), Some(netif("Internet:")));
        assert_eq!(default_route(ROUTE_INET6, Family::Inet6).unwrap(), Some(netif("Internet6:")));
        assert_eq!(netif("Internet:"), "em0");
    }

    #[test]
    fn routers_as_netstat_prints_them() {
        let mut found = vec![];
        add_gateways(ROUTE_INET, Family::Inet, 0, &mut found).unwrap();
        add_gateways(ROUTE_INET6, Family::Inet6, 3, &mut found).unwrap();
        let gateway = |address: &str, fib| Gateway {
            interface: "em0".parse().unwrap(),
            address: address.parse().unwrap(),
            fib,
            default: true,
        };
        assert_eq!(found, [gateway("192.0.2.100", 0), gateway("2001:db8::100", 3)]);
    }

    #[test]
    fn no_default_route() {
        assert_eq!(default_route(&[], Family::Inet).unwrap(), None);
        // the other family's table
        assert_eq!(default_route(ROUTE_INET, Family::Inet6).unwrap(), None);
        // the first message is the default route: up, a gateway, static
        assert_eq!(u32_at(ROUTE_INET, RTM_FLAGS), Some(0x803));
        for refusing in [RTF_REJECT, RTF_BLACKHOLE] {
            let mut table = ROUTE_INET.to_vec();
            table[RTM_FLAGS..RTM_FLAGS + 4].copy_from_slice(&(0x803 | refusing).to_ne_bytes());
            assert_eq!(default_route(&table, Family::Inet).unwrap(), None);
        }
    }

    #[test]
    fn a_version_that_is_not_known_is_refused() {
        let mut table = ROUTE_INET.to_vec();
        table[2] = 6;
        assert_eq!(default_route(&table, Family::Inet).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn an_interface_that_pf_cannot_name_is_reported() {
        assert_eq!(named("em0").unwrap().as_str(), "em0");
        assert!(named("em 0").unwrap_err().message().contains("rename it"));
    }
}
