//! Hosts that are not asked each time: one from a file, and one whose routes are read once.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use once_cell::unsync::OnceCell;
use serde::{Deserialize, Serialize};

use super::{Behind, Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router, SkippedJail};
use crate::error::{Error, Result, error};
use crate::net::{Family, Interface, PerFamily};

/// The facts of a host, as plain data: for tests and the simulator. In JSON every field is optional:
///
/// ```
/// # use kport::host::{Fixed, Host};
/// let host: Fixed = r#"{
///     "gateway": { "inet": "em0" },
///     "gateways": [ { "interface": "em1", "address": "203.0.113.254", "fib": 1, "default": true } ],
///     "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
///                     { "name": "em1", "up": true, "addresses": [ "203.0.113.1/24" ], "fib": 1 },
///                     { "name": "wg0", "up": true, "addresses": [ "10.99.0.2/24" ], "point_to_point": true } ],
///     "jails": [ { "jid": 2, "name": "web", "vnet": true } ],
///     "vnet_addresses": { "web": [ "10.0.0.2" ] },
///     "listeners": [ { "protocol": "tcp", "families": { "inet": true }, "port": 22 } ],
///     "sysctls": { "net.inet.ip.forwarding": 1 },
///     "boot_id": "a"
/// }"#.parse()?;
/// assert_eq!(host.sysctl("net.inet.ip.forwarding")?, Some(1));
/// # Ok::<(), kport::error::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fixed {
    /// The interface of the default route of each family that has one.
    pub gateway: PerFamily<Option<Interface>>,
    /// The routers in the routes of every FIB.
    pub gateways: Vec<Gateway>,
    /// Every interface.
    pub interfaces: Vec<HostInterface>,
    /// The interfaces that leave checksums to the hardware.
    pub txcsum: Vec<Interface>,
    /// Every jail.
    pub jails: Vec<Jail>,
    /// The jails that cannot be read.
    pub skipped_jails: Vec<SkippedJail>,
    /// The addresses in the jails that have `vnet`, by the jail's name.
    pub vnet_addresses: BTreeMap<String, Vec<IpAddr>>,
    /// The gateways of the default routes in jails that have `vnet`, by the jail's name; those of a jail that is not here
    /// are unknown.
    pub default_routes: BTreeMap<String, PerFamily<Option<IpAddr>>>,
    /// Every listening socket.
    pub listeners: Vec<Listener>,
    /// The processes that have the bound udp sockets, by port.
    pub udp_holders: BTreeMap<u16, Vec<Process>>,
    /// The sysctls that the kernel has.
    pub sysctls: BTreeMap<String, i64>,
    /// The string that differs after each boot.
    pub boot_id: String,
    /// The seconds since the boot.
    pub uptime: u64,
}

impl FromStr for Fixed {
    type Err = Error;

    fn from_str(json: &str) -> Result<Fixed> {
        serde_json::from_str(json).map_err(|e| error!(Argument, "host facts: {e}"))
    }
}

impl Host for Fixed {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        Ok(*self.gateway.of(family))
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        Ok(self.gateways.clone())
    }

    fn leaves_checksums(&self, interface: Interface) -> Result<bool> {
        Ok(self.txcsum.contains(&interface))
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        Ok(self.interfaces.clone())
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        let found = self.jails.iter().find(|jail| jail.name == name || jail.jid.to_string() == name);
        Ok(found.cloned())
    }

    fn jails(&self) -> Result<Jails> {
        Ok(Jails { jails: self.jails.clone(), skipped: self.skipped_jails.clone() })
    }

    fn vnet_addresses(&self, jail: &Jail, _: Duration) -> Result<Vec<IpAddr>> {
        Ok(self.vnet_addresses.get(&jail.name).cloned().unwrap_or_default())
    }

    fn router(&self, jail: &Jail, family: Family, _: Duration) -> Router {
        let of = |routes: &PerFamily<Option<IpAddr>>| routes.of(family).map_or(Router::Missing, Router::At);
        self.default_routes.get(&jail.name).map_or(Router::Unknown, of)
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        Ok(self.listeners.clone())
    }

    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        Ok(self.udp_holders.get(&port).cloned().unwrap_or_default())
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.sysctls.get(name).copied())
    }

    fn boot_id(&self) -> Result<String> {
        Ok(self.boot_id.clone())
    }

    fn uptime(&self) -> Result<u64> {
        Ok(self.uptime)
    }

    fn is_played(&self) -> bool {
        true
    }
}

/// The host that a JSON file describes ([`Fixed`]). Each call reads the file again: changing the file gives a jail its
/// address, or removes a jail.
#[derive(Clone, Debug)]
pub struct Played {
    file: PathBuf,
}

impl Played {
    /// Fails if the file does not describe a host.
    pub fn new(file: impl Into<PathBuf>) -> Result<Played> {
        let played = Played { file: file.into() };
        played.now().map(|_| played)
    }

    fn now(&self) -> Result<Fixed> {
        let file = self.file.display();
        let text = fs::read_to_string(&self.file).map_err(|e| Error::io(format_args!("read {file}"), &e))?;
        text.parse().map_err(|e: Error| e.context(file))
    }
}

impl Host for Played {
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Read(Box::new(self.now()?)))
    }

    fn is_played(&self) -> bool {
        true
    }
}

/// A host for one look at it: its routes are read once. Everything else is asked each time.
pub struct Snapshot<'a> {
    host: &'a dyn Host,
    defaults: PerFamily<Option<Interface>>,
    gateways: OnceCell<Vec<Gateway>>,
}

impl<'a> Snapshot<'a> {
    /// A host with these default routes, by family.
    pub fn new(host: &'a dyn Host, defaults: PerFamily<Option<Interface>>) -> Snapshot<'a> {
        Snapshot { host, defaults, gateways: OnceCell::new() }
    }
}

impl Host for Snapshot<'_> {
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Host(self.host))
    }

    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        Ok(*self.defaults.of(family))
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        self.gateways.get_or_try_init(|| self.host.gateways()).cloned()
    }
}
