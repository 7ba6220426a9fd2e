//! The facts of a FreeBSD host, from its kernel: sysctl(3), jail_get(2), ioctl(2). What the answers mean is read in
//! [`super::kernel`].

mod group;
mod jail;
mod sysctl;
mod vnet;

use std::net::IpAddr;

use libc::{AF_INET, AF_INET6, AF_UNSPEC, CTL_NET, NET_RT_DUMP, NET_RT_IFLISTL, PF_ROUTE, c_int};

use super::{Host, HostInterface, Jail, Listener, kernel};
use crate::error::{Error, Kind, Result, quoted};
use crate::net::{Family, Interface};

/// net.route.0.0.iflist: the interfaces and addresses of the network stack that the caller is in.
const INTERFACES: [c_int; 6] = [CTL_NET, PF_ROUTE, 0, AF_UNSPEC, NET_RT_IFLISTL, 0];

// what `kernel` reads by offsets, as far as the libc crate knows the structs
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<libc::c_long>() == 8, "kport reads the structs of 64-bit kernels");
    assert!(size_of::<libc::if_msghdrl>() == 176);
    assert!(offset_of!(libc::if_msghdrl, ifm_addrs) == 4);
    assert!(offset_of!(libc::if_msghdrl, ifm_flags) == 8);
    assert!(offset_of!(libc::if_msghdrl, ifm_index) == 12);
    assert!(offset_of!(libc::if_msghdrl, ifm_len) == 16);
    assert!(offset_of!(libc::sockaddr_dl, sdl_nlen) == 5);
    assert!(offset_of!(libc::sockaddr_dl, sdl_data) == 8);
    assert!(offset_of!(libc::sockaddr_in, sin_addr) == 4);
    assert!(offset_of!(libc::sockaddr_in6, sin6_addr) == 8);
    assert!(size_of::<libc::xinpgen>() == 64);
    assert!(size_of::<libc::in_conninfo>() == 44);
    assert!(offset_of!(libc::in_conninfo, inc_ie) == 4);
    assert!(offset_of!(libc::in_endpoints, ie_fport) == 0);
    assert!(offset_of!(libc::in_endpoints, ie_lport) == 2);
    assert!(offset_of!(libc::in_endpoints, ie_dependladdr) == 20);
    assert!(size_of::<libc::timeval>() == 16);
};

/// The host that runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Host for System {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        let domain = match family {
            Family::Inet => AF_INET,
            Family::Inet6 => AF_INET6,
        };
        // without a seventh number the kernel answers for the FIB of the process (sysctl_rtsock() of net/rtsock.c)
        let routes = match sysctl::fetch(&[CTL_NET, PF_ROUTE, 0, domain, NET_RT_DUMP, 0]) {
            Ok(routes) => routes,
            // a kernel without this family
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            Err(error) => return Err(Error::io("read the routing table", &error)),
        };
        let Some(name) = kernel::default_route(&routes, family)? else { return Ok(None) };
        let interface = name.parse().map_err(|_| {
            let name = quoted(name);
            let text = format!("the default route's interface {name} has a name that pf rules cannot hold: rename it");
            Error::new(Kind::Unsupported, text)
        });
        interface.map(Some)
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        let answer = sysctl::fetch(&INTERFACES).map_err(|e| Error::io("read the interface list", &e))?;
        let socket = group::socket()?;
        let mut found = Vec::new();
        for link in kernel::links(&answer)? {
            // one that is gone by now is none of the host's
            if let Some(groups) = group::of(&socket, &link.name)? {
                found.extend(link.with_groups(groups));
            }
        }
        Ok(found)
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        jail::named(name)
    }

    fn jails(&self) -> Result<Vec<Jail>> {
        jail::all()
    }

    fn vnet_addresses(&self, jail: &Jail) -> Result<Vec<IpAddr>> {
        let answer = vnet::interface_list(jail)?;
        Ok(kernel::reachable(&kernel::links(&answer)?))
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        let mut found = Vec::new();
        if let Some(answer) = sysctl::named("net.inet.tcp.pcblist")? {
            found.extend(kernel::tcp_listeners(&answer)?);
        }
        if let Some(answer) = sysctl::named("net.inet.udp.pcblist")? {
            found.extend(kernel::udp_listeners(&answer)?);
        }
        // known once sctp(4) is loaded
        if let Some(answer) = sysctl::named("net.inet.sctp.assoclist")? {
            found.extend(kernel::sctp_listeners(&answer)?);
        }
        Ok(found)
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        let Some(answer) = sysctl::named(name)? else { return Ok(None) };
        let number = kernel::integer(&answer);
        number.map(Some).ok_or_else(|| Error::new(Kind::Argument, format!("sysctl {name} is no integer")))
    }

    fn boot_id(&self) -> Result<String> {
        // random, made once in each boot (sysctl_bootid() of kern/kern_mib.c); the time of boot moves when the clock is
        // set, and is for kernels that do not know the other
        if let Some(id) = sysctl::named("kern.boot_id")? {
            return Ok(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        let answer = sysctl::named("kern.boottime")?.unwrap_or_default();
        let (seconds, micros) = kernel::boottime(&answer)?;
        Ok(format!("{seconds}.{micros:06}"))
    }
}
