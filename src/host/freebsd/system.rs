//! The running host: what is asked of the kernel for each fact.

use std::net::IpAddr;
use std::time::Duration;

use libc::{CTL_KERN, EAFNOSUPPORT, ESRCH, KERN_PROC, KERN_PROC_ARGS, KERN_PROC_PID, KERN_PROC_PROC, c_int};

use super::jail::{self, Features};
use super::{integer, kernel, malformed, random_id, rtsock, socket, vnet};
use crate::error::{Error, Result};
use crate::host::{Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router, Watch};
use crate::net::{Family, Interface, PerFamily};

const _: () = assert!(size_of::<libc::c_long>() == 8, "kport reads the structs of 64-bit kernels");

/// The running host.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Host for System {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        let route = rtsock::default_route(&routes(family, &[])?, family)?.map(|route| rtsock::named(route.name));
        route.transpose()
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        let mut found = vec![];
        for fib in 0..fibs()? {
            for family in Family::ALL {
                rtsock::add_gateways(&routes(family, &[fib.cast_signed()])?, family, fib, &mut found)?;
            }
        }
        Ok(found)
    }

    fn leaves_checksums(&self, interface: Interface) -> Result<bool> {
        kernel::leaves_checksums(&kernel::socket()?, interface.as_str())
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        let answer = kernel::fetch(&kernel::INTERFACES).map_err(|e| Error::io("read the interface list", &e))?;
        let socket = kernel::socket()?;
        let has_fibs = fibs()? > 1;
        let mut found = Vec::new();
        for link in rtsock::links(&answer)? {
            // an interface that was removed meanwhile is not the host's
            if let Some(groups) = kernel::groups(&socket, &link.name)? {
                let fib = if has_fibs { kernel::fib(&socket, &link.name)? } else { 0 };
                found.extend(link.with_groups(groups).map(|interface| HostInterface { fib, ..interface }));
            }
        }
        Ok(found)
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        let mut found = jail::named(&kernel::jail_get, features()?, name)?;
        set_fibs(found.as_mut_slice())?;
        Ok(found)
    }

    fn jails(&self) -> Result<Jails> {
        let mut found = jail::all(&kernel::jail_get, features()?)?;
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
        let list = |name, read: fn(&[u8]) -> Result<Vec<Listener>>| -> Result<Vec<Listener>> {
            kernel::named(name)?.map_or(Ok(vec![]), |answer| read(&answer))
        };
        let mut found = list("net.inet.tcp.pcblist", socket::tcp_listeners)?;
        found.extend(list("net.inet.udp.pcblist", socket::udp_listeners)?);
        // exists when sctp(4) is loaded
        found.extend(list("net.inet.sctp.assoclist", socket::sctp_listeners)?);
        Ok(found)
    }

    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        let Some(answer) = kernel::named("net.inet.udp.pcblist")? else { return Ok(vec![]) };
        let sockets = socket::udp_sockets_at(&answer, port)?;
        if sockets.is_empty() {
            return Ok(vec![]);
        }
        let files = kernel::named("kern.file")?.unwrap_or_default();
        let mut found = vec![];
        for pid in socket::owners(&files, &sockets)? {
            let ask = |what: c_int| match kernel::fetch(&[CTL_KERN, KERN_PROC, what, pid]) {
                // it has ended meanwhile
                Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(None),
                Err(error) => Err(Error::io(format_args!("read process {pid}"), &error)),
                Ok(answer) => Ok(Some(answer)),
            };
            if let (Some(process), Some(line)) = (ask(KERN_PROC_PID)?, ask(KERN_PROC_ARGS)?) {
                found.push(Process { pid, jid: socket::jid(&process)?, arguments: socket::arguments(&line) });
            }
        }
        Ok(found)
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        let Some(answer) = kernel::named(name)? else { return Ok(None) };
        integer(name, &answer).map(Some)
    }

    fn boot_id(&self) -> Result<String> {
        let id = kernel::named("kern.boot_id")?.map(|id| random_id(&id));
        id.ok_or_else(|| malformed("kern.boot_id"))
    }

    fn uptime(&self) -> Result<u64> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Ok(u64::try_from(time.tv_sec).unwrap_or(0))
    }
}

/// The options of the running kernel.
fn features() -> Result<Features> {
    let has = |name| kernel::named(name).map(|value| value.is_some());
    let families = PerFamily { inet: has("kern.features.inet")?, inet6: has("kern.features.inet6")? };
    Ok(Features { families, vimage: has("kern.features.vimage")? })
}

/// Sets the FIB of each jail on the host's network stack: that of most of its processes.
fn set_fibs(jails: &mut [Jail]) -> Result<()> {
    if jails.iter().all(|jail| jail.vnet) || fibs()? < 2 {
        return Ok(());
    }
    let processes = kernel::fetch(&[CTL_KERN, KERN_PROC, KERN_PROC_PROC]);
    let fibs = socket::fibs_of(&processes.map_err(|e| Error::io("read the processes", &e))?)?;
    for jail in jails.iter_mut().filter(|jail| !jail.vnet) {
        jail.fib = fibs.get(&jail.jid).copied().unwrap_or(0);
    }
    Ok(())
}

fn fibs() -> Result<u32> {
    Ok(System.sysctl("net.fibs")?.and_then(|fibs| u32::try_from(fibs).ok()).unwrap_or(1))
}

/// The routing table of a family: of the process's FIB, or of the one that is given.
fn routes(family: Family, fib: &[c_int]) -> Result<Vec<u8>> {
    match kernel::fetch(&[&kernel::routes(family)[..], fib].concat()) {
        // a kernel without this family
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => Ok(vec![]),
        other => other.map_err(|e| Error::io("read the routing table", &e)),
    }
}
