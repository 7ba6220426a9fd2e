//! The host, as the checks use it.

use std::net::IpAddr;
use std::rc::Rc;

use crate::error::Result;
use crate::host::{Host, HostInterface, Interfaces};
use crate::net::{Family, Interface, Place, is_link_local6};

/// The host and its interfaces, read once.
#[derive(Clone)]
pub struct Surroundings<'a> {
    /// The host.
    pub host: &'a dyn Host,
    /// Its interfaces.
    pub interfaces: Rc<[HostInterface]>,
}

impl Surroundings<'_> {
    /// The interfaces by which packets for a place come in; for every place, that of the default route.
    pub fn outer(&self, place: Place, family: Family) -> Result<Vec<&HostInterface>> {
        let all = Interfaces(&self.interfaces);
        Ok(match place {
            Place::Interface(name) => all.members(name).collect(),
            Place::Any | Place::AnyOf(_) => {
                self.host.gateway(family)?.into_iter().flat_map(|name| all.members(name)).collect()
            }
            Place::Address(address) => self.interfaces.iter().filter(|interface| interface.has(address)).collect(),
        })
    }

    /// The interface that leads to a target; `None` for the host's own address, and if none is known.
    pub fn via(&self, target: IpAddr) -> Option<Interface> {
        Interfaces(&self.interfaces).leads_to(target).unwrap_or(None)
    }

    /// Whether an integer sysctl exists, and is not 0.
    pub fn sysctl_is_on(&self, name: &str) -> Result<bool> {
        Ok(self.host.sysctl(name)?.is_some_and(|value| value != 0))
    }
}

/// The address of an interface that outside hosts use.
pub fn address(interface: &HostInterface, family: Family) -> Option<IpAddr> {
    let usable = |address: &IpAddr| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !is_link_local6(*v6),
    };
    interface.addresses.iter().map(|own| own.addr()).find(|a| Family::of(*a) == family && usable(a))
}
