//! The facts of the host: routes, interfaces, jails, listening sockets, sysctls. The only module that reads them from
//! the system.
//!
//! [`Host`] is a trait so that tests can use any host: [`System`] is the running one, [`Fixed`] one from a file.

mod events;
mod fixed;
#[cfg(all(target_os = "freebsd", not(feature = "internals")))]
mod freebsd;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod freebsd;
mod interfaces;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
mod other;
mod snapshot;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rustix::process::{getegid, geteuid, getgid, getuid};
use serde::{Deserialize, Serialize};

pub use events::{Event, Events, Watch};
pub use fixed::{Fixed, Played};
#[cfg(target_os = "freebsd")]
pub use freebsd::System;
pub use interfaces::Interfaces;
#[cfg(target_os = "linux")]
pub use linux::System;
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
pub use other::System;
pub use snapshot::Snapshot;

use crate::error::Result;
use crate::net::{Family, Interface, PerFamily, Protocol};

/// A network interface of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostInterface {
    /// Its name.
    pub name: Interface,
    /// The groups it is in (ifconfig(8) `group`), its own driver's among them.
    #[serde(default)]
    pub groups: Vec<Interface>,
    /// Its addresses, each with its network.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Whether it is up.
    pub up: bool,
    /// The FIB in which what comes in on it is looked up (ifconfig(8) `fib`).
    #[serde(default)]
    pub fib: u32,
    /// Whether packets need no next hop on it: a tunnel (`IFF_POINTOPOINT`, and what has no broadcast, as wg(4)).
    #[serde(default)]
    pub point_to_point: bool,
}

/// A router next to the host, in one of its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The interface that leads to it.
    pub interface: Interface,
    /// Its address; the unspecified one for a route to the interface itself.
    pub address: IpAddr,
    /// The FIB that has the route.
    #[serde(default)]
    pub fib: u32,
    /// Whether the route is a default route.
    #[serde(default)]
    pub default: bool,
}

/// A jail, as jail_get(2) reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jail {
    /// The jid. It is not reused while a dying jail has it.
    pub jid: i32,
    /// Its name.
    pub name: String,
    /// The directory that is its root, which cannot be changed while it runs; empty if it is unknown.
    #[serde(default)]
    pub path: String,
    /// Whether its network stack is not the host's: `vnet=new`, its own or of a jail above it. Its addresses are then
    /// [`Host::vnet_addresses`].
    #[serde(default)]
    pub vnet: bool,
    /// The jid of the jail whose network stack it uses, if that is not the host's; 0 stands for its own.
    #[serde(default)]
    pub stack: i32,
    /// Whether it uses the host's addresses (`ip4=inherit`, `ip6=inherit`), by family; never if `vnet` is set, although
    /// the kernel reports `ip4=inherit` for a VNET jail, too.
    #[serde(default)]
    pub inherits: PerFamily<bool>,
    /// The FIB of its processes (`exec.fib`), for a jail on the host's network stack.
    #[serde(default)]
    pub fib: u32,
    /// Its addresses, for a jail on the host's network stack: `ip4.addr`, then `ip6.addr`.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Whether it is being torn down.
    #[serde(default)]
    pub dying: bool,
}

impl Jail {
    /// The addresses that it has on the host's network stack.
    pub(crate) fn on_host_stack(&self) -> &[IpAddr] {
        if self.vnet { &[] } else { &self.addresses }
    }

    /// Whether both may have the same addresses: one is inside the other, or they use one network stack that is not the host's.
    pub(crate) fn shares_addresses_with(&self, other: &Jail) -> bool {
        let inside = |inner: &Jail, outer: &Jail| {
            inner.name.strip_prefix(outer.name.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        let stack = |jail: &Jail| if jail.stack == 0 { jail.jid } else { jail.stack };
        inside(self, other) || inside(other, self) || self.vnet && other.vnet && stack(self) == stack(other)
    }
}

/// The jails of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jails {
    /// Those that can be read, dying ones included.
    pub jails: Vec<Jail>,
    /// Those that cannot be read: root of a jail chooses the names of the jails in it.
    pub skipped: Vec<SkippedJail>,
}

/// A jail that exists, and of which no more is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedJail {
    /// Its jid.
    pub jid: i32,
    /// Its name, if it is known.
    #[serde(default)]
    pub name: Option<String>,
    /// The reason why it cannot be read.
    pub why: String,
}

/// Where a jail sends what is not for its own networks: its default route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Router {
    /// It is not known.
    #[default]
    Unknown,
    /// The jail has no default route.
    Missing,
    /// The gateway of the default route.
    At(IpAddr),
}

/// A listening socket of the host, or of a jail without a network stack of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The protocol.
    pub protocol: Protocol,
    /// The families that it accepts.
    pub families: PerFamily<bool>,
    /// The local address; `None` for every address of its families.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The local port.
    pub port: u16,
}

/// A process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// The jid of its jail; 0 for the host.
    #[serde(default)]
    pub jid: i32,
    /// Its arguments, the program's name first. The process may have changed them.
    pub arguments: Vec<String>,
}

/// The time limit for reading the addresses of a jail while nothing else waits. It takes a millisecond, on a loaded
/// machine many.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Whether the process runs with the rights of another user or group than the one that started it, as with a setuid
/// bit.
pub fn has_borrowed_rights() -> bool {
    #[cfg(target_os = "freebsd")]
    use freebsd::was_set_at_exec;
    #[cfg(not(target_os = "freebsd"))]
    let was_set_at_exec = || false;
    getuid() != geteuid() || getgid() != getegid() || was_set_at_exec()
}

/// The events of the running host.
///
/// # Errors
///
/// [`Kind::Unsupported`](crate::error::Kind::Unsupported) on a system that is neither FreeBSD nor Linux.
pub fn events() -> Result<Box<dyn Events + Send>> {
    #[cfg(target_os = "freebsd")]
    return Ok(Box::new(freebsd::Queue::new()?));
    #[cfg(target_os = "linux")]
    return Ok(Box::new(linux::Timer::new()?));
    #[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
    return other::unsupported();
}

/// The facts that kport reads from the host. Each result is true at this moment only.
pub trait Host {
    /// The interface of the default route of `family`, of the calling process's FIB; `None` without one.
    fn gateway(&self, family: Family) -> Result<Option<Interface>>;

    /// The routers in the routes of every FIB, and the default routes to an interface itself; each once. Empty if the
    /// system does not report them.
    fn gateways(&self) -> Result<Vec<Gateway>> {
        Ok(vec![])
    }

    /// Whether an interface leaves the checksums of what is sent through it to the hardware (TXCSUM of ifconfig(8)); false if
    /// the system does not report it.
    fn leaves_checksums(&self, _interface: Interface) -> Result<bool> {
        Ok(false)
    }

    /// Every interface whose name a pf rule of kport can contain.
    fn interfaces(&self) -> Result<Vec<HostInterface>>;

    /// The jail with this name, or with this jid if `name` is a number; `None` if there is none. Includes dying jails.
    fn jail(&self, name: &str) -> Result<Option<Jail>>;

    /// The jail with this name, if it runs.
    fn running(&self, name: &str) -> Result<Option<Jail>> {
        Ok(self.jail(name)?.filter(|jail| !jail.dying && jail.name == name))
    }

    /// Every jail, including dying ones. A jail that cannot be read does not hide the others.
    fn jails(&self) -> Result<Jails>;

    /// The addresses of a jail with `vnet`, in the order of its interfaces, without loopback, link-local and
    /// unspecified ones, and without those of interfaces that are down. The answer comes from the jail's root, who may
    /// lie or not answer: the latter is [`Kind::Unavailable`](crate::error::Kind::Unavailable), as is a jail that is
    /// gone. No answer `within` the time is [`Kind::Busy`](crate::error::Kind::Busy); the jail cannot cause any other
    /// error.
    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>>;

    /// The default route of a jail with `vnet`. The answer comes from the jail's root; a jail that does not answer
    /// `within` the time, or is gone, is [`Router::Unknown`].
    fn router(&self, _jail: &Jail, _family: Family, _within: Duration) -> Router {
        Router::Unknown
    }

    /// Reports changes to the network of a jail with `vnet`: interfaces, addresses, routes. `None` if the system does
    /// not report them. It takes at most `within`, and fails as [`Host::vnet_addresses`] does. Drop it soon: until then
    /// a jail that is removed stays dying.
    fn watch(&self, _jail: &Jail, _within: Duration) -> Result<Option<Watch>> {
        Ok(None)
    }

    /// Every listening tcp and sctp socket, and every udp socket that is not connected and is bound to a port that its
    /// process chose, of the host and of the jails that share its network stack. A udp socket with a port that the
    /// kernel chose is a client's.
    fn listeners(&self) -> Result<Vec<Listener>>;

    /// The processes that have an unconnected udp socket bound to `port`; empty if the system does not report them. It
    /// reads the open files of every process, so it is too slow for each publication.
    fn udp_holders(&self, _port: u16) -> Result<Vec<Process>> {
        Ok(vec![])
    }

    /// An integer sysctl(8) by name; `None` if the kernel does not have it.
    fn sysctl(&self, name: &str) -> Result<Option<i64>>;

    /// A string that differs after each boot.
    fn boot_id(&self) -> Result<String>;

    /// The seconds since the boot: unlike the time of the day, nobody sets it.
    fn uptime(&self) -> Result<u64>;

    /// Whether the facts come from a file, not from the running host.
    fn is_played(&self) -> bool {
        false
    }
}
