//! podman lets conmon(8) hold the ports that it publishes, with sockets that are never read, so that no other program binds them.
//! For tcp they do not listen, so kport ignores them. A udp socket looks like any other, so its process is checked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::error::Result;
use crate::host::{Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router, Watch};
use crate::net::{Family, Interface, Protocol};

/// A host without the udp sockets that one container's conmon has on the container's own ports.
pub struct WithoutConmon {
    host: Box<dyn Host>,
    container: String,
    ports: BTreeSet<u16>,
}

impl WithoutConmon {
    pub fn new(host: Box<dyn Host>, container: String, ports: BTreeSet<u16>) -> WithoutConmon {
        WithoutConmon { host, container, ports }
    }

    /// Only if all sockets of a port are known to belong to the container's conmon: one whose process is unknown is still a
    /// conflict.
    fn is_conmons(&self, port: u16) -> bool {
        self.host
            .udp_holders(port)
            .is_ok_and(|holders| !holders.is_empty() && holders.iter().all(|holder| self.is_conmon(holder)))
    }

    /// conmon(8) of this container: `conmon ... -c ID`, on the host. A process in a jail may use any name.
    fn is_conmon(&self, process: &Process) -> bool {
        let Some((program, arguments)) = process.arguments.split_first() else { return false };
        let named = Path::new(program).file_name().is_some_and(|name| name == "conmon");
        let id = |pair: &[String]| matches!(pair[0].as_str(), "-c" | "--cid") && pair[1] == self.container;
        process.jid == 0 && named && arguments.windows(2).any(id)
    }
}

impl Host for WithoutConmon {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        self.host.gateway(family)
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        self.host.gateways()
    }

    fn leaves_checksums(&self, interface: Interface) -> Result<bool> {
        self.host.leaves_checksums(interface)
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        self.host.interfaces()
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        self.host.jail(name)
    }

    fn jails(&self) -> Result<Jails> {
        self.host.jails()
    }

    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
        self.host.vnet_addresses(jail, within)
    }

    fn router(&self, jail: &Jail, family: Family, within: Duration) -> Router {
        self.host.router(jail, family, within)
    }

    fn watch(&self, jail: &Jail, within: Duration) -> Result<Option<Watch>> {
        self.host.watch(jail, within)
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        let mut listeners = self.host.listeners()?;
        let there: BTreeSet<u16> =
            listeners.iter().filter(|l| l.protocol == Protocol::Udp).map(|listener| listener.port).collect();
        let conmons: BTreeSet<u16> =
            there.intersection(&self.ports).copied().filter(|port| self.is_conmons(*port)).collect();
        listeners.retain(|l| l.protocol != Protocol::Udp || !conmons.contains(&l.port));
        Ok(listeners)
    }

    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        self.host.udp_holders(port)
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        self.host.sysctl(name)
    }

    fn boot_id(&self) -> Result<String> {
        self.host.boot_id()
    }

    fn uptime(&self) -> Result<u64> {
        self.host.uptime()
    }

    fn is_played(&self) -> bool {
        self.host.is_played()
    }
}
