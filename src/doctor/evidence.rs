//! What the checks ask: each fact of the host, of pf and of the record once.

use std::net::IpAddr;

use crate::error::{Error, Result};
use crate::host::{Host, HostInterface, Interfaces};
use crate::net::{Family, Interface, Place, is_link_local6};
use crate::pf::{Firewall, Status};
use crate::publication::{Publication, Redirect};
use crate::store::{Record, Store};

/// What is asked once.
pub(super) struct Evidence<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) firewall: &'a dyn Firewall,
    pub(super) store: Result<Store>,
    pub(super) interfaces: Result<Vec<HostInterface>>,
    pub(super) status: Result<Status>,
    /// By path; the main ruleset's is empty.
    pub(super) rulesets: Result<Vec<(String, String)>>,
    /// What is published; records of an earlier boot and those that cannot be read are left out.
    pub(super) records: Vec<Record>,
}

impl<'a> Evidence<'a> {
    pub(super) fn ask(host: &'a dyn Host, firewall: &'a dyn Firewall, store: Result<Store>) -> Evidence<'a> {
        let (boot, mut records) = (host.boot_id(), vec![]);
        if let (Ok(boot), Ok(store)) = (&boot, &store) {
            let anchors = store.anchors().unwrap_or_default();
            records = anchors.iter().filter_map(|anchor| store.get(anchor).ok()?).collect();
            records.retain(|record: &Record| record.boot == *boot);
        }
        let interfaces = host.interfaces();
        Evidence {
            host,
            firewall,
            store,
            interfaces,
            status: firewall.status(),
            rulesets: firewall.rulesets(),
            records,
        }
    }

    pub(super) fn publications(&self) -> impl Iterator<Item = &Publication> {
        self.records.iter().flat_map(|record| &record.publications)
    }

    pub(super) fn redirects(&self) -> impl Iterator<Item = (&Publication, &Redirect)> {
        self.publications().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
    }

    pub(super) fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.as_deref().map_err(Error::clone)
    }

    /// The interfaces by which packets for a place come in; for every place, that of the default route.
    pub(super) fn outer(&self, place: Place, family: Family) -> Result<Vec<&HostInterface>> {
        let all = self.interfaces()?;
        let named = |name| Interfaces(all).members(name).map(|found| found.name).collect::<Vec<_>>();
        let names = match place {
            Place::Interface(name) => named(name),
            Place::Any => self.host.gateway(family)?.into_iter().flat_map(named).collect(),
            Place::Address(address) => holders(all, address).map(|found| found.name).collect(),
        };
        Ok(all.iter().filter(|interface| names.contains(&interface.name)).collect())
    }

    /// The interface that leads to a target; `None` for the host's own address, and where none is known.
    pub(super) fn via(&self, target: IpAddr) -> Result<Option<Interface>> {
        let all = self.interfaces()?;
        Ok(Interfaces(all).leads_to(target).unwrap_or(None))
    }

    pub(super) fn main(&self) -> Option<&str> {
        let (_, text) = self.rulesets.as_ref().ok()?.iter().find(|(path, _)| path.is_empty())?;
        Some(text)
    }

    pub(super) fn sysctl_is_on(&self, name: &str) -> Result<bool> {
        Ok(self.host.sysctl(name)?.is_some_and(|value| value != 0))
    }
}

pub(super) fn holders(all: &[HostInterface], address: IpAddr) -> impl Iterator<Item = &HostInterface> {
    all.iter().filter(move |interface| interface.has(address))
}

/// The address by which outsiders know an interface.
pub(super) fn address(interface: &HostInterface, family: Family) -> Option<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !is_link_local6(*v6),
    };
    interface.addresses.iter().map(|own| own.addr()).find(|a| Family::of(*a) == family && usable(a))
}

pub(super) fn jail(publication: &Publication) -> String {
    publication.jail.mention()
}
