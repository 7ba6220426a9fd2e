//! The facts of a FreeBSD host, from its kernel: sysctl(3), jail_get(2), ioctl(2).
//!
//! What decodes their results is built and tested on any system, with recordings of FreeBSD 15.1 (tests/host); the calls need FreeBSD.
//! The offsets are those of the 64-bit structs of FreeBSD 14 and 15; `tests/host/layout.c` asserts them with FreeBSD's own headers. No
//! byte is trusted: a result with another layout is an error, never a panic, never a wrong fact.

#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod events;
pub mod jail;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod kernel;
pub mod process;
pub mod report;
pub mod rtsock;
pub mod socket;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod vnet;

use std::ffi::CStr;
#[cfg(target_os = "freebsd")]
use std::{net::IpAddr, time::Duration};

use zerocopy::FromBytes;

use crate::error::{Error, Kind, Result};
#[cfg(target_os = "freebsd")]
use crate::host::{Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router, Watch};
#[cfg(target_os = "freebsd")]
use crate::net::{Family, Interface};

#[cfg(target_os = "freebsd")]
pub use events::Queue;
#[cfg(target_os = "freebsd")]
pub use kernel::was_set_at_exec;

#[cfg(target_os = "freebsd")]
const _: () = assert!(size_of::<libc::c_long>() == 8, "kport reads the structs of 64-bit kernels");

/// The running host.
#[cfg(target_os = "freebsd")]
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

#[cfg(target_os = "freebsd")]
impl Host for System {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        rtsock::gateway(family)
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        rtsock::gateways()
    }

    fn leaves_checksums(&self, interface: Interface) -> Result<bool> {
        kernel::leaves_checksums(&kernel::socket()?, interface.as_str())
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        rtsock::interfaces()
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        let mut found = jail::named(&kernel::jail_get, jail::Features::of_kernel()?, name)?;
        set_fibs(found.as_mut_slice())?;
        Ok(found)
    }

    fn jails(&self) -> Result<Jails> {
        let mut found = jail::all(&kernel::jail_get, jail::Features::of_kernel()?)?;
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
        number(name)
    }

    fn boot_id(&self) -> Result<String> {
        match kernel::named("kern.boot_id")? {
            Some(id) => Ok(random_id(&id)),
            None => time_of_boot(&kernel::named("kern.boottime")?.unwrap_or_default()),
        }
    }

    fn uptime(&self) -> Result<u64> {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Ok(u64::try_from(time.tv_sec).unwrap_or(0))
    }
}

/// Sets the FIB of each jail on the host's network stack.
#[cfg(target_os = "freebsd")]
fn set_fibs(jails: &mut [Jail]) -> Result<()> {
    if jails.iter().all(|jail| jail.vnet) || fibs()? < 2 {
        return Ok(());
    }
    let fibs = process::fibs()?;
    for jail in jails.iter_mut().filter(|jail| !jail.vnet) {
        jail.fib = fibs.get(&jail.jid).copied().unwrap_or(0);
    }
    Ok(())
}

/// A parameter of jail(8), and a buffer for its value.
pub type Parameter = (&'static CStr, Vec<u8>);

/// MAXHOSTNAMELEN: the size of the longest name with its NUL, and of an error message of the kernel.
const TEXT: usize = 256;

/// The number, or the array of bytes, at `offset` of a result.
fn at<T: FromBytes>(result: &[u8], offset: usize) -> Option<T> {
    T::read_from_prefix(result.get(offset..)?).ok().map(|(value, _)| value)
}

/// The error for a result with another layout.
fn malformed(what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!(
            "the kernel's {what} does not have the layout of FreeBSD 14 and 15; a kport for this release is needed"
        ),
    )
}

/// An integer by its name; `None` if the kernel does not have it.
#[cfg(target_os = "freebsd")]
fn number(name: &str) -> Result<Option<i64>> {
    let Some(answer) = kernel::named(name)? else { return Ok(None) };
    integer(name, &answer).map(Some)
}

/// The number of FIBs.
#[cfg(target_os = "freebsd")]
fn fibs() -> Result<u32> {
    Ok(number("net.fibs")?.and_then(|fibs| u32::try_from(fibs).ok()).unwrap_or(1))
}

/// `kern.boot_id`: random, generated once for each boot (sysctl_bootid() of kern/kern_mib.c).
pub fn random_id(answer: &[u8]) -> String {
    answer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The struct timeval of `kern.boottime`: seconds and microseconds since 1970. It changes when the clock is set; it is
/// for kernels without `kern.boot_id`.
pub fn time_of_boot(answer: &[u8]) -> Result<String> {
    match (answer.len(), at::<i64>(answer, 0), at::<i64>(answer, 8)) {
        (16, Some(seconds), Some(micros)) => Ok(format!("{seconds}.{micros:06}")),
        _ => Err(malformed("kern.boottime")),
    }
}

/// The number in the result of an integer sysctl. Those of 32 and 64 bits are signed (`kern.securelevel` is -1).
pub fn integer(name: &str, answer: &[u8]) -> Result<i64> {
    match *answer {
        [a] => Ok(i64::from(a)),
        [a, b] => Ok(i64::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => Ok(i64::from(i32::from_ne_bytes([a, b, c, d]))),
        _ => answer
            .try_into()
            .map(i64::from_ne_bytes)
            .map_err(|_| Error::new(Kind::Argument, format!("sysctl {name} is not an integer"))),
    }
}
