//! The facts of a FreeBSD host, from its kernel: sysctl(3), jail_get(2), ioctl(2). Each module has one subject, and
//! contains both the call and the parser of its result.
//!
//! The parsers run and are tested on any system, with recordings of FreeBSD 15.1 (tests/host); the calls need FreeBSD.

mod buffer;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod events;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod flags6;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod group;
mod interface;
mod jail;
mod process;
#[cfg(test)]
mod recordings;
mod report;
mod route;
mod rtsock;
mod socket;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod sysctl;
#[cfg(target_os = "freebsd")]
mod system;
#[cfg(test)]
mod tests;
mod value;
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod vnet;

#[cfg(target_os = "freebsd")]
pub use events::Queue;
#[cfg(target_os = "freebsd")]
pub use system::System;
