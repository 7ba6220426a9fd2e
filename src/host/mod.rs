//! What the host knows: routes, interfaces, jails, listening sockets, sysctls. The only place that asks the system.
//!
//! [`Host`] is a trait so that tests can play any host.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::Result;
use crate::net::{Family, Interface, Protocol};

/// A network interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name.
    pub name: Interface,
    /// The groups it is in (ifconfig(8) `group`), its own driver's among them.
    pub groups: Vec<Interface>,
    /// Its addresses, each with its network.
    pub addresses: Vec<IpNet>,
    /// Whether it is up.
    pub up: bool,
}

/// A jail, as jail_get(2) tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    /// Its number, never reused while the host is up as long as a dying one keeps it.
    pub jid: i32,
    /// Its name.
    pub name: String,
    /// Whether it has a network stack of its own (`vnet=new`). jail_get(2) gives no addresses for such a jail.
    pub vnet: bool,
    /// Whether it uses the host's addresses (`ip4=inherit`, `ip6=inherit`), by family.
    pub inherits: [bool; 2],
    /// Its addresses, for a jail without a network stack of its own: `ip4.addr`, then `ip6.addr`.
    pub addresses: Vec<IpAddr>,
    /// Whether it is being torn down.
    pub dying: bool,
}

/// A socket of the host, or of a jail without a network stack of its own, that waits for traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listener {
    /// The protocol.
    pub protocol: Protocol,
    /// The families that it accepts.
    pub families: [bool; 2],
    /// The local address; `None` for every address.
    pub address: Option<IpAddr>,
    /// The local port.
    pub port: u16,
}

/// What kport asks the host. Every answer is a fact of this moment.
pub trait Host {
    /// The interface of the default route of `family`, of the calling process's FIB; `None` without one.
    fn gateway(&self, family: Family) -> Result<Option<Interface>>;

    /// Every interface.
    fn interfaces(&self) -> Result<Vec<HostInterface>>;

    /// The jail with this name, or with this number where `name` is one; `None` where there is none.
    fn jail(&self, name: &str) -> Result<Option<Jail>>;

    /// Every jail, dying ones included.
    fn jails(&self) -> Result<Vec<Jail>>;

    /// The addresses that a jail with a network stack of its own has, in the order of its interfaces, loopback left out.
    fn vnet_addresses(&self, jail: &Jail) -> Result<Vec<IpAddr>>;

    /// Every listening tcp socket and every bound, unconnected udp socket, of the host and of the jails that share its
    /// network stack.
    fn listeners(&self) -> Result<Vec<Listener>>;

    /// An integer sysctl(8) by name; `None` where the kernel does not know it.
    fn sysctl(&self, name: &str) -> Result<Option<i64>>;

    /// A text that is another one after each boot.
    fn boot_id(&self) -> Result<String>;
}
/// A host that knows nothing, until the host facts land.
pub struct Stub;
impl Host for Stub {
    fn gateway(&self, _: Family) -> Result<Option<Interface>> {
        Ok(None)
    }
    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        Ok(vec![])
    }
    fn jail(&self, _: &str) -> Result<Option<Jail>> {
        Ok(None)
    }
    fn jails(&self) -> Result<Vec<Jail>> {
        Ok(vec![])
    }
    fn vnet_addresses(&self, _: &Jail) -> Result<Vec<IpAddr>> {
        Ok(vec![])
    }
    fn listeners(&self) -> Result<Vec<Listener>> {
        Ok(vec![])
    }
    fn sysctl(&self, _: &str) -> Result<Option<i64>> {
        Ok(None)
    }
    fn boot_id(&self) -> Result<String> {
        Ok("x".into())
    }
}
/// A host that knows nothing, until the host facts land.
pub fn system() -> Stub {
    Stub
}
