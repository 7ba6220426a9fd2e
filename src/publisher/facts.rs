//! What the host and pf report, read once in a transaction.

use std::net::IpAddr;

use once_cell::unsync::OnceCell;

use super::progress::Progress;
use super::{Request, gateway};
use crate::deadline::Deadline;
use crate::error::Result;
use crate::host::{ANSWER_TIME, Host, HostInterface, Interfaces, Jail, Jails, Listener};
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
    asked: OnceCell<Asked>,
}

/// A jid, and what the jail has reported.
type Asked = (i32, Result<Vec<IpAddr>>);

/// Asks the jail of the requests for its addresses, before anybody waits for this call: its root may delay the answer, and the
/// question is a fork of the calling process. `None` if the answer is not needed, or the jail is not running.
pub(super) fn ask(host: &dyn Host, requests: &[Request], deadline: Deadline) -> Option<Asked> {
    let request = requests.iter().find(|request| request.addresses.is_empty() && !request.no_jail)?;
    let jail = host.running(request.jail.as_str()).ok()??;
    jail.vnet.then(|| (jail.jid, host.vnet_addresses(&jail, deadline.sooner(ANSWER_TIME).remaining())))
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
            asked: OnceCell::new(),
        }
    }

    /// The same, with an answer of [`ask`].
    pub(super) fn with_asked(self, asked: Option<Asked>) -> Facts<'a> {
        Facts { asked: asked.map_or_else(OnceCell::new, OnceCell::with_value), ..self }
    }

    /// The addresses that a jail with its own network stack reports; it is asked once.
    pub(super) fn reported_by(&self, jail: &Jail) -> Result<Vec<IpAddr>> {
        let ask = || self.host.vnet_addresses(jail, self.progress.deadline.sooner(ANSWER_TIME).remaining());
        match self.asked.get_or_init(|| (jail.jid, ask())) {
            (jid, found) if *jid == jail.jid => found.clone(),
            // it was started again meanwhile
            _ => ask(),
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
