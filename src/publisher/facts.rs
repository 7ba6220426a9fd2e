//! What the host and pf report, read once in a transaction.

use std::net::IpAddr;

use once_cell::unsync::OnceCell;

use super::gateway;
use super::progress::Progress;
use crate::error::Result;
use crate::host::{Host, HostInterface, Interfaces, Jail, Jails, Listener};
use crate::name::Table;
use crate::net::{Family, Interface, PerFamily};
use crate::pf::{Firewall, ForeignRedirect};

/// Facts that are read at most once in a transaction, and only when needed.
pub(super) struct Facts<'a> {
    /// For facts that must be current: a sysctl, one jail.
    pub(super) host: &'a dyn Host,
    /// Read only.
    pub(super) firewall: &'a dyn Firewall,
    pub(super) progress: Progress<'a>,
    interfaces: OnceCell<Vec<HostInterface>>,
    listeners: OnceCell<Vec<Listener>>,
    foreign: OnceCell<Vec<ForeignRedirect>>,
    /// by family
    defaults: PerFamily<OnceCell<Option<Interface>>>,
    jails: OnceCell<Jails>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(host: &'a dyn Host, firewall: &'a dyn Firewall, progress: Progress<'a>) -> Facts<'a> {
        Facts {
            host,
            firewall,
            progress,
            interfaces: OnceCell::new(),
            listeners: OnceCell::new(),
            foreign: OnceCell::new(),
            defaults: PerFamily::default(),
            jails: OnceCell::new(),
        }
    }

    /// The interface of the default route. Needed for each mapping without a place, and for each port that `auto` tries: the
    /// routing table is read once.
    pub(super) fn default_route(&self, family: Family) -> Result<Option<Interface>> {
        let read = || {
            let interface = self.host.gateway(family)?;
            if let Some(interface) = interface {
                self.progress.detail(&format!("gateway interface for {family}: {interface}"));
            }
            Ok(interface)
        };
        self.defaults.of(family).get_or_try_init(read).copied()
    }

    /// The gateway interface.
    pub(super) fn gateway(&self, family: Family) -> Result<Interface> {
        gateway(&|family| self.default_route(family), family)
    }

    pub(super) fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.get_or_try_init(|| self.host.interfaces()).map(Vec::as_slice)
    }

    pub(super) fn places(&self) -> Result<Interfaces<'_>> {
        self.interfaces().map(Interfaces)
    }

    /// Whether an address is the host's own, or may be.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.places().map_or(true, |places| places.is_own(address))
    }

    pub(super) fn listeners(&self) -> Result<&[Listener]> {
        self.listeners.get_or_try_init(|| self.host.listeners()).map(Vec::as_slice)
    }

    /// One jail, by name or number; a dying one is found too.
    pub(super) fn jail(&self, name: &str) -> Result<Option<Jail>> {
        self.host.jail(name)
    }

    /// Every jail, dying ones included.
    pub(super) fn jails(&self) -> Result<&Jails> {
        self.jails.get_or_try_init(|| self.host.jails())
    }

    pub(super) fn foreign(&self) -> Result<&[ForeignRedirect]> {
        self.foreign.get_or_try_init(|| self.firewall.foreign_redirects()).map(Vec::as_slice)
    }

    pub(super) fn has_table(&self, table: &Table) -> Result<bool> {
        self.firewall.has_table(table)
    }
}
