//! The running host.

use std::net::IpAddr;
use std::time::Duration;

use super::{group, interface, jail, process, route, socket, value, vnet};
use crate::error::Result;
use crate::host::{Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router, Watch};
use crate::net::{Family, Interface};

// the structs that are read by offsets, as far as the libc crate has them
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
    assert!(size_of::<libc::kinfo_proc>() == 1088);
    assert!(offset_of!(libc::kinfo_proc, ki_stat) == 388);
    assert!(offset_of!(libc::kinfo_proc, ki_fibnum) == 584);
    assert!(offset_of!(libc::kinfo_proc, ki_jid) == 592);
};

/// The running host.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Host for System {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        route::gateway(family)
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        route::gateways()
    }

    fn leaves_checksums(&self, interface: Interface) -> Result<bool> {
        group::leaves_checksums(&group::socket()?, interface.as_str())
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        interface::all()
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        let mut found = jail::named(&jail::jail_get, jail::Features::of_kernel()?, name)?;
        set_fibs(found.as_mut_slice())?;
        Ok(found)
    }

    fn jails(&self) -> Result<Jails> {
        let mut found = jail::all(&jail::jail_get, jail::Features::of_kernel()?)?;
        set_fibs(&mut found.jails)?;
        Ok(found)
    }

    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
        vnet::addresses(jail, within)
    }

    fn router(&self, jail: &Jail, family: Family, within: Duration) -> Router {
        vnet::router(jail, family, within).unwrap_or_default()
    }

    fn watch(&self, jail: &Jail, within: Duration) -> Result<Option<Watch>> {
        vnet::watch(jail, within).map(Some)
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        socket::listeners()
    }

    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        process::udp_holders(port)
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        value::number(name)
    }

    fn boot_id(&self) -> Result<String> {
        value::boot_id()
    }

    fn uptime(&self) -> Result<u64> {
        Ok(value::uptime())
    }
}

/// Sets the FIB of each jail on the host's network stack.
fn set_fibs(jails: &mut [Jail]) -> Result<()> {
    if jails.iter().all(|jail| jail.vnet) || value::number("net.fibs")?.is_none_or(|fibs| fibs < 2) {
        return Ok(());
    }
    let fibs = process::fibs()?;
    for jail in jails.iter_mut().filter(|jail| !jail.vnet) {
        jail.fib = fibs.get(&jail.jid).copied().unwrap_or(0);
    }
    Ok(())
}
