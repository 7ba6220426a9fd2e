//! What the host and pf report, read once in a transaction.

use std::net::IpAddr;
use std::time::Duration;

use once_cell::unsync::OnceCell;

use super::gateway;
use super::progress::Progress;
use crate::error::{Kind, Result};
use crate::host::{Host, HostInterface, Interfaces, Jail, Jails, Listener};
use crate::name::Table;
use crate::net::{Family, Interface, PerFamily};
use crate::pf::{Firewall, ForeignRedirect};

/// How long it may take to read the addresses of other jails, of all together and of one.
const OTHERS_TIME: Duration = Duration::from_secs(5);
const OTHER_TIME: Duration = Duration::from_secs(1);

/// What other jails report of themselves.
pub(super) struct OtherJails {
    /// The running jails, each with the addresses that it has.
    pub(super) known: Vec<(Jail, Vec<IpAddr>)>,
    /// Those that did not answer.
    pub(super) silent: Vec<Jail>,
}

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
    /// by family, as [`gateway`] finds them
    gateways: PerFamily<OnceCell<Interface>>,
    jails: OnceCell<Jails>,
    other_jails: OnceCell<OtherJails>,
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
            gateways: PerFamily::default(),
            jails: OnceCell::new(),
            other_jails: OnceCell::new(),
        }
    }

    /// Needed for each mapping without a place, and for each port that `auto` tries: the routing table is read once.
    pub(super) fn gateway(&self, family: Family) -> Result<Interface> {
        self.gateways
            .of(family)
            .get_or_try_init(|| {
                let interface = gateway(self.host, family)?;
                self.progress.detail(&format!("gateway interface for {family}: {interface}"));
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

    /// One jail, by name or number; a dying one is found too.
    pub(super) fn jail(&self, name: &str) -> Result<Option<Jail>> {
        self.host.jail(name)
    }

    /// Every jail, dying ones included.
    pub(super) fn jails(&self) -> Result<&Jails> {
        self.jails.get_or_try_init(|| self.host.jails())
    }

    /// The running jails except one, if `but` is a jail. The root of a jail can stop or kill the process that reads the jail's addresses, and a busy
    /// host can delay it. That affects only this jail: it is skipped, and so are those inside it, or inside the jail above that the host itself has
    /// created, so that no number of jails delays what others publish. Any other failure is an error, since it is then
    /// unknown whether an address is free.
    pub(super) fn other_jails(&self, but: Option<&Jail>) -> Result<&OtherJails> {
        self.other_jails.get_or_try_init(|| {
            let end = self.progress.deadline.sooner(OTHERS_TIME);
            let mut others: Vec<&Jail> = self
                .jails()?
                .jails
                .iter()
                .filter(|jail| !jail.dying && but.is_none_or(|but| jail.jid != but.jid))
                .collect();
            others.retain(|jail| but.is_none_or(|but| !jail.shares_addresses_with(but)));
            // those of the host first, whatever happens to the others
            others.sort_by_key(|jail| jail.name.matches('.').count());
            let mut found = OtherJails { known: vec![], silent: vec![] };
            for jail in others {
                if !jail.vnet {
                    found.known.push((jail.clone(), jail.addresses.clone()));
                } else if found.silent.iter().any(|silent| top(silent) == top(jail)) {
                    found.silent.push(jail.clone());
                } else {
                    match self.host.vnet_addresses(jail, end.sooner(OTHER_TIME).remaining()) {
                        Ok(addresses) => found.known.push((jail.clone(), addresses)),
                        Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Busy) => {
                            if self.is_there(jail)? {
                                found.silent.push(jail.clone());
                            }
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(found)
        })
    }

    /// Whether a jail that was there a moment ago still is.
    fn is_there(&self, jail: &Jail) -> Result<bool> {
        Ok(self.jail(&jail.jid.to_string())?.is_some_and(|now| !now.dying && now.name == jail.name))
    }

    pub(super) fn foreign(&self) -> Result<&[ForeignRedirect]> {
        self.foreign.get_or_try_init(|| self.firewall.foreign_redirects()).map(Vec::as_slice)
    }

    pub(super) fn has_table(&self, table: &Table) -> Result<bool> {
        self.firewall.has_table(table)
    }
}

/// The name of the jail directly below the host that a jail is, or is inside.
fn top(jail: &Jail) -> &str {
    jail.name.split_once('.').map_or(&jail.name, |(top, _)| top)
}
