//! What the host and pf say, asked for once in a transaction.

use once_cell::unsync::OnceCell;

use super::{Observer, gateway};
use crate::error::Result;
use crate::host::{Host, HostInterface, Interfaces, Listener};
use crate::net::{Family, Interface, PerFamily};
use crate::pf::{Firewall, ForeignRedirect};

/// Facts that are asked for at most once in a transaction, and only when a question needs them.
pub(super) struct HostFacts<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    interfaces: OnceCell<Vec<HostInterface>>,
    listeners: OnceCell<Vec<Listener>>,
    foreign: OnceCell<Vec<ForeignRedirect>>,
    /// by family, as [`gateway`] finds them
    gateways: PerFamily<OnceCell<Interface>>,
}

impl<'a> HostFacts<'a> {
    pub(super) fn new(host: &'a dyn Host, firewall: &'a dyn Firewall) -> HostFacts<'a> {
        HostFacts {
            host,
            firewall,
            interfaces: OnceCell::new(),
            listeners: OnceCell::new(),
            foreign: OnceCell::new(),
            gateways: PerFamily::default(),
        }
    }

    /// Asked for each mapping without a place, and for each port that `auto` tries: the routing table is read once.
    pub(super) fn gateway(&self, family: Family, observer: &dyn Observer) -> Result<Interface> {
        self.gateways
            .of(family)
            .get_or_try_init(|| {
                let interface = gateway(self.host, family)?;
                observer.detail(&format!("gateway interface for {family}: {interface}"));
                Ok(interface)
            })
            .copied()
    }

    pub(super) fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.get_or_try_init(|| self.host.interfaces()).map(Vec::as_slice)
    }

    pub(super) fn places(&self) -> Result<Interfaces<'_>> {
        self.interfaces().map(Interfaces)
    }

    pub(super) fn listeners(&self) -> Result<&[Listener]> {
        self.listeners.get_or_try_init(|| self.host.listeners()).map(Vec::as_slice)
    }

    pub(super) fn foreign(&self) -> Result<&[ForeignRedirect]> {
        self.foreign.get_or_try_init(|| self.firewall.foreign_redirects()).map(Vec::as_slice)
    }
}
