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
pub mod report;
pub mod rtsock;
pub mod socket;
#[cfg(target_os = "freebsd")]
mod system;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod vnet;

use std::ffi::CStr;

use zerocopy::FromBytes;

use crate::error::{Error, Result, error};

#[cfg(target_os = "freebsd")]
pub use events::Queue;
#[cfg(target_os = "freebsd")]
pub use kernel::was_set_at_exec;
#[cfg(target_os = "freebsd")]
pub use system::System;

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
    let not = "does not have the layout of FreeBSD 14 and 15";
    error!(Unsupported, "the kernel's {what} {not}; a kport for this release is needed")
}

/// `kern.boot_id`: random, generated once for each boot (sysctl_bootid() of kern/kern_mib.c).
pub fn random_id(answer: &[u8]) -> String {
    answer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The number in the result of an integer sysctl. Those of 32 and 64 bits are signed (`kern.securelevel` is -1).
pub fn integer(name: &str, answer: &[u8]) -> Result<i64> {
    match *answer {
        [a] => Ok(i64::from(a)),
        [a, b] => Ok(i64::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => Ok(i64::from(i32::from_ne_bytes([a, b, c, d]))),
        _ => answer.try_into().map(i64::from_ne_bytes).map_err(|_| error!(Argument, "sysctl {name} is not an integer")),
    }
}
