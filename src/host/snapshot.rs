//! A host whose default routes and sysctls are read once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use once_cell::unsync::OnceCell;

use super::{Gateway, Host, HostInterface, Jail, Jails, Listener, Process, Router, Watch};
use crate::error::Result;
use crate::net::{Family, Interface, PerFamily};

/// A host for one look at it, in which many questions need the same answer. Everything else is asked each time.
pub struct Snapshot<'a> {
    host: &'a dyn Host,
    defaults: PerFamily<Option<Interface>>,
    gateways: OnceCell<Vec<Gateway>>,
    sysctls: RefCell<BTreeMap<String, Option<i64>>>,
}

impl<'a> Snapshot<'a> {
    /// A host with these default routes, by family.
    pub fn new(host: &'a dyn Host, defaults: PerFamily<Option<Interface>>) -> Snapshot<'a> {
        Snapshot { host, defaults, gateways: OnceCell::new(), sysctls: RefCell::default() }
    }
}

impl Host for Snapshot<'_> {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        Ok(*self.defaults.of(family))
    }

    fn gateways(&self) -> Result<Vec<Gateway>> {
        self.gateways.get_or_try_init(|| self.host.gateways()).cloned()
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
        self.host.listeners()
    }

    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        self.host.udp_holders(port)
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        if let Some(known) = self.sysctls.borrow().get(name) {
            return Ok(*known);
        }
        let value = self.host.sysctl(name)?;
        self.sysctls.borrow_mut().insert(name.to_owned(), value);
        Ok(value)
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
