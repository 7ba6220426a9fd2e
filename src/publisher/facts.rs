//! What the host and pf say, asked for once in a transaction.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use once_cell::unsync::OnceCell;

use super::{Observer, gateway};
use crate::error::Result;
use crate::host::{Host, HostInterface, Interfaces, Jail, Jails, Listener};
use crate::net::{Family, Interface, PerFamily};
use crate::pf::{Firewall, ForeignRedirect};

/// How long other jails are asked for their addresses, together.
const ASKING: Duration = Duration::from_secs(1);

/// Facts that are asked for at most once in a transaction, and only when a question needs them.
pub(super) struct HostFacts<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    interfaces: OnceCell<Vec<HostInterface>>,
    listeners: OnceCell<Vec<Listener>>,
    foreign: OnceCell<Vec<ForeignRedirect>>,
    /// by family, as [`gateway`] finds them
    gateways: PerFamily<OnceCell<Interface>>,
    jails: OnceCell<Jails>,
    jail_addresses: OnceCell<Vec<(Jail, Vec<IpAddr>)>>,
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
            jails: OnceCell::new(),
            jail_addresses: OnceCell::new(),
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

    /// Every jail, dying ones included.
    pub(super) fn jails(&self) -> Result<&Jails> {
        self.jails.get_or_try_init(|| self.host.jails())
    }

    /// The running jails but for one, each with the addresses that it has. A jail with a network stack of its own that
    /// does not answer, or whose turn comes after [`ASKING`], is left out: the answer is a jail's word, and no jail may hold
    /// up what others publish.
    pub(super) fn jail_addresses(&self, but: &Jail) -> Result<&[(Jail, Vec<IpAddr>)]> {
        let ask = || -> Result<Vec<(Jail, Vec<IpAddr>)>> {
            let start = Instant::now();
            let addresses = |jail: &Jail| {
                if !jail.vnet {
                    return Some(jail.addresses.clone());
                }
                (start.elapsed() < ASKING).then(|| self.host.vnet_addresses(jail).ok()).flatten()
            };
            let others = self.jails()?.jails.iter().filter(|jail| !jail.dying && jail.jid != but.jid);
            Ok(others.filter_map(|jail| Some((jail.clone(), addresses(jail)?))).collect())
        };
        self.jail_addresses.get_or_try_init(ask).map(Vec::as_slice)
    }

    pub(super) fn foreign(&self) -> Result<&[ForeignRedirect]> {
        self.foreign.get_or_try_init(|| self.firewall.foreign_redirects()).map(Vec::as_slice)
    }
}
