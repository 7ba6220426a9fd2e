//! The facts of the host: routes, interfaces, jails, listening sockets, sysctls. The only module that reads them from
//! the system.
//!
//! [`Host`] is a trait so that tests can use any host: [`System`] is the running one, [`Fixed`] one from a file.

mod events;
mod fixed;
#[cfg(any(target_os = "freebsd", feature = "internals"))]
#[doc(hidden)]
pub mod freebsd;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod linux;

use std::net::IpAddr;
use std::ops::Deref;
use std::time::Duration;

use ipnet::IpNet;
use rustix::process::{getegid, geteuid, getgid, getuid};
use serde::{Deserialize, Serialize};

pub use events::{Event, Events, Watch};
pub use fixed::{Fixed, Played, Snapshot};
#[cfg(target_os = "freebsd")]
pub use freebsd::System;
#[cfg(target_os = "linux")]
pub use linux::System;

use crate::error::{Error, Result, error};
use crate::net::{Family, Interface, JAIL_GROUPS, PerFamily, Place, Protocol, is_link_local6};

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

impl HostInterface {
    /// An interface that is up.
    pub fn up(name: Interface, groups: Vec<Interface>, addresses: Vec<IpNet>) -> HostInterface {
        HostInterface { name, groups, addresses, up: true, fib: 0, point_to_point: false }
    }

    /// Whether `name` is its name, or that of one of its groups (pfi_kkif_match of pf_if.c).
    pub fn is_in(&self, name: Interface) -> bool {
        self.name == name || self.groups.contains(&name)
    }

    /// Whether it connects jails, by its groups: bridge(4), epair(4).
    pub(crate) fn is_of_jails(&self) -> bool {
        self.groups.iter().any(|group| matches!(group.as_str(), "bridge" | "epair"))
    }

    /// Whether it has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }

    /// Its networks that other hosts use.
    pub(crate) fn networks(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        self.addresses.iter().filter(move |own| Family::of(own.addr()) == family && !is_link_local6(own.addr()))
    }

    /// The address that other hosts use.
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.networks(family).next().map(IpNet::addr)
    }

    pub(crate) fn is_in_jail_group(&self) -> bool {
        JAIL_GROUPS.iter().any(|group| group.parse().is_ok_and(|group| self.is_in(group)))
    }
}

/// The interfaces of the host.
#[derive(Clone, Copy, Debug)]
pub struct Interfaces<'a>(pub &'a [HostInterface]);

impl<'a> Interfaces<'a> {
    /// Whether one packet can match both places.
    pub fn overlap(&self, a: Place, b: Place) -> bool {
        if !Family::ALL.into_iter().any(|family| a.has_family(family) && b.has_family(family)) {
            return false;
        }
        match (a, b) {
            (Place::Any | Place::AnyOf(_), _) | (_, Place::Any | Place::AnyOf(_)) => true,
            (Place::Address(a), Place::Address(b)) => a == b,
            (Place::Interface(i), Place::Address(a)) | (Place::Address(a), Place::Interface(i)) => {
                self.members(i).any(|member| member.has(a))
            }
            (Place::Interface(a), Place::Interface(b)) => a == b || self.members(a).any(|member| member.is_in(b)),
        }
    }

    /// The interface of that name, and those in the group of that name.
    pub fn members(self, name: Interface) -> impl Iterator<Item = &'a HostInterface> {
        self.0.iter().filter(move |interface| interface.is_in(name))
    }

    /// Whether `name` is the name of the interface `interface`, or of one of its groups. An interface that the host
    /// does not have is in no group.
    pub fn is_in(&self, interface: Interface, name: Interface) -> bool {
        interface == name || self.0.iter().any(|known| known.name == interface && known.is_in(name))
    }

    /// The first interface that has this address.
    pub fn holder(&self, address: IpAddr) -> Option<&'a HostInterface> {
        self.0.iter().find(|interface| interface.has(address))
    }

    /// The interface on the longest network that contains `address`, and that network; the first of several with the
    /// same length. An interface that is down is only used if none that is up has such a network: the kernel removes
    /// its routes, and it may be up when the jail is running.
    pub fn connected(&self, address: IpAddr) -> Option<(Interface, IpNet)> {
        let networks = self.0.iter().flat_map(|i| i.addresses.iter().map(move |network| (i, *network)));
        let nearest = networks
            .filter(|(_, network)| network.contains(&address))
            .rev()
            .max_by_key(|(interface, network)| (interface.up, network.prefix_len()));
        nearest.map(|(interface, network)| (interface.name, network))
    }

    /// Whether the address is one of the host's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.holder(address).is_some()
    }

    /// The interface through which the host reaches `address`: the one with the longest network that contains it.
    /// `None` if the address is the host's own, as that of a jail without its own network stack is.
    pub fn leads_to(&self, address: IpAddr) -> Result<Option<Interface>> {
        if self.is_own(address) {
            return Ok(None);
        }
        let Some((interface, _)) = self.connected(address) else {
            let need = "hairpin, host access, masquerade and af-to need the one that leads to the jail";
            let remedy = "give the jail's bridge an address of the jail's network";
            return Err(error!(Unavailable, "no interface of the host has a network with {address}: {need}; {remedy}"));
        };
        Ok(Some(interface))
    }
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

#[cfg(any(target_os = "freebsd", target_os = "linux"))]
impl Listener {
    /// A socket that is bound to an address, and accepts these families if it is every address.
    pub(crate) fn bound(protocol: Protocol, families: PerFamily<bool>, address: IpAddr, port: u16) -> Listener {
        let is_every = address.is_unspecified();
        let families = if is_every { families } else { PerFamily::only(Family::of(address)) };
        Listener { protocol, families, address: (!is_every).then_some(address), port }
    }
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
/// `Kind::Unsupported` on a system that is neither FreeBSD nor Linux.
pub fn events() -> Result<Box<dyn Events + Send>> {
    #[cfg(target_os = "freebsd")]
    return Ok(Box::new(freebsd::Queue::new()?));
    #[cfg(target_os = "linux")]
    return Ok(Box::new(linux::Timer::new()?));
    #[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
    return Err(unsupported());
}

fn unsupported() -> Error {
    let os = std::env::consts::OS;
    error!(Unsupported, "kport cannot read the facts of a host of {os}; run it on FreeBSD")
}

/// The running host; it is neither FreeBSD nor Linux, so every call returns [`Kind::Unsupported`].
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
impl Host for System {}

/// See [`Host::behind`].
pub enum Behind<'a> {
    /// One that is there.
    Host(&'a dyn Host),
    /// One that was read for this question.
    Read(Box<Fixed>),
}

impl<'a> Deref for Behind<'a> {
    type Target = dyn Host + 'a;

    fn deref(&self) -> &Self::Target {
        match self {
            Behind::Host(host) => *host,
            Behind::Read(host) => &**host,
        }
    }
}

/// The facts that kport reads from the host. Each result is true at this moment only.
pub trait Host {
    /// The host that answers what this one does not answer itself; without one that is `Kind::Unsupported`.
    fn behind(&self) -> Result<Behind<'_>> {
        Err(unsupported())
    }

    /// The interface of the default route of `family`, of the calling process's FIB; `None` without one.
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        self.behind()?.gateway(family)
    }

    /// The routers in the routes of every FIB, and the default routes to an interface itself; each once. Empty if the
    /// system does not report them.
    fn gateways(&self) -> Result<Vec<Gateway>> {
        self.behind()?.gateways()
    }

    /// Whether an interface leaves the checksums of what is sent through it to the hardware (TXCSUM of ifconfig(8)); false if
    /// the system does not report it.
    fn leaves_checksums(&self, interface: Interface) -> Result<bool> {
        self.behind()?.leaves_checksums(interface)
    }

    /// Every interface whose name a pf rule of kport can contain.
    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        self.behind()?.interfaces()
    }

    /// The jail with this name, or with this jid if `name` is a number; `None` if there is none. Includes dying jails.
    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        self.behind()?.jail(name)
    }

    /// The jail with this name, if it runs.
    fn running(&self, name: &str) -> Result<Option<Jail>> {
        Ok(self.jail(name)?.filter(|jail| !jail.dying && jail.name == name))
    }

    /// Every jail, including dying ones. A jail that cannot be read does not hide the others.
    fn jails(&self) -> Result<Jails> {
        self.behind()?.jails()
    }

    /// The addresses of a jail with `vnet`, in the order of its interfaces, without loopback, link-local and
    /// unspecified ones, and without those of interfaces that are down. The answer comes from the jail's root, who may
    /// lie or not answer: the latter is `Kind::Unavailable`, as is a jail that is
    /// gone. No answer `within` the time is `Kind::Busy`; the jail cannot cause any other
    /// error.
    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
        self.behind()?.vnet_addresses(jail, within)
    }

    /// The default route of a jail with `vnet`. The answer comes from the jail's root; a jail that does not answer
    /// `within` the time, or is gone, is [`Router::Unknown`].
    fn router(&self, jail: &Jail, family: Family, within: Duration) -> Router {
        self.behind().map_or(Router::Unknown, |host| host.router(jail, family, within))
    }

    /// Reports changes to the network of a jail with `vnet`: interfaces, addresses, routes. `None` if the system does
    /// not report them. It takes at most `within`, and fails as [`Host::vnet_addresses`] does. Drop it soon: until then
    /// a jail that is removed stays dying.
    fn watch(&self, jail: &Jail, within: Duration) -> Result<Option<Watch>> {
        self.behind().map_or(Ok(None), |host| host.watch(jail, within))
    }

    /// Every listening tcp and sctp socket, and every udp socket that is not connected and is bound to a port that its
    /// process chose, of the host and of the jails that share its network stack. A udp socket with a port that the
    /// kernel chose is a client's.
    fn listeners(&self) -> Result<Vec<Listener>> {
        self.behind()?.listeners()
    }

    /// The processes that have an unconnected udp socket bound to `port`; empty if the system does not report them. It
    /// reads the open files of every process, so it is too slow for each publication.
    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        self.behind()?.udp_holders(port)
    }

    /// An integer sysctl(8) by name; `None` if the kernel does not have it.
    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        self.behind()?.sysctl(name)
    }

    /// A string that differs after each boot.
    fn boot_id(&self) -> Result<String> {
        self.behind()?.boot_id()
    }

    /// The seconds since the boot: unlike the time of the day, nobody sets it.
    fn uptime(&self) -> Result<u64> {
        self.behind()?.uptime()
    }

    /// Whether the facts come from a file, not from the running host.
    fn is_played(&self) -> bool {
        self.behind().is_ok_and(|host| host.is_played())
    }
}
