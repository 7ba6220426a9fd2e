//! A host from a file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router, SkippedJail};
use crate::error::{Error, Kind, Result};
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
        serde_json::from_str(json).map_err(|e| Error::new(Kind::Argument, format!("host facts: {e}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_goes_to_json_and_back() {
        let host = Fixed {
            gateway: PerFamily { inet: None, inet6: Some("em1".parse().unwrap()) },
            interfaces: vec![HostInterface {
                name: "bridge0".parse().unwrap(),
                groups: vec!["bridge".parse().unwrap()],
                addresses: vec!["fd00::1/64".parse().unwrap()],
                up: true,
                fib: 1,
                point_to_point: true,
            }],
            jails: vec![Jail {
                jid: 7,
                name: "flat".to_owned(),
                path: "/jails/flat".to_owned(),
                vnet: false,
                stack: 0,
                fib: 2,
                inherits: PerFamily::only(Family::Inet6),
                addresses: vec!["10.9.0.2".parse().unwrap()],
                dying: true,
            }],
            gateways: vec![Gateway {
                interface: "em1".parse().unwrap(),
                address: "fe80::1".parse().unwrap(),
                fib: 1,
                default: true,
            }],
            ..Fixed::default()
        };
        let json = serde_json::to_string(&host).unwrap();
        assert_eq!(json.parse::<Fixed>().unwrap(), host);
        assert_eq!(host.jail("7").unwrap(), host.jail("flat").unwrap());
        assert_eq!(host.jail("07").unwrap(), None);
        assert_eq!(host.gateway(Family::Inet).unwrap(), None);
    }

    #[test]
    fn mistakes_in_a_file_are_reported() {
        for (json, word) in [
            (r#"{ "gatway": {} }"#, "gatway"),
            (r#"{ "interfaces": [ { "name": "em 0", "up": true } ] }"#, "em 0"),
            (r#"{ "jails": [ { "name": "web" } ] }"#, "jid"),
        ] {
            let error = json.parse::<Fixed>().unwrap_err();
            assert_eq!(error.kind(), Kind::Argument);
            assert!(error.message().contains(word), "{error}");
        }
    }
}
