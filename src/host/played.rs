//! A host from a file that may change during its use.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Fixed, Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router};
use crate::error::{Error, Result};
use crate::net::{Family, Interface};

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
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        self.now()?.gateway(family)
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        self.now()?.gateways()
    }

    fn leaves_checksums(&self, interface: Interface) -> Result<bool> {
        self.now()?.leaves_checksums(interface)
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        self.now()?.interfaces()
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        self.now()?.jail(name)
    }

    fn jails(&self) -> Result<Jails> {
        self.now()?.jails()
    }

    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
        self.now()?.vnet_addresses(jail, within)
    }

    fn router(&self, jail: &Jail, family: Family, within: Duration) -> Router {
        self.now().map_or(Router::Unknown, |now| now.router(jail, family, within))
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        self.now()?.listeners()
    }

    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        self.now()?.udp_holders(port)
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        self.now()?.sysctl(name)
    }

    fn boot_id(&self) -> Result<String> {
        self.now()?.boot_id()
    }

    fn uptime(&self) -> Result<u64> {
        self.now()?.uptime()
    }

    fn is_played(&self) -> bool {
        true
    }
}
