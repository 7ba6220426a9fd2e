//! Lookups in the interfaces of the host: the members of a group, overlapping places, the interface that leads to an
//! address.

use std::net::IpAddr;

use ipnet::IpNet;

use super::HostInterface;
use crate::error::{Error, Kind, Result};
use crate::net::{Family, Interface, Place};

/// The interfaces of the host.
#[derive(Clone, Copy, Debug)]
pub struct Interfaces<'a>(pub &'a [HostInterface]);

impl HostInterface {
    /// An interface that is up.
    pub fn up(name: Interface, groups: Vec<Interface>, addresses: Vec<IpNet>) -> HostInterface {
        HostInterface { name, groups, addresses, up: true, fib: 0, point_to_point: false }
    }

    /// Whether `name` is its name, or that of one of its groups (pfi_kkif_match of pf_if.c).
    pub fn is_in(&self, name: Interface) -> bool {
        self.name == name || self.groups.contains(&name)
    }

    /// Whether it has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }
}

impl<'a> Interfaces<'a> {
    /// Whether one packet can match both places.
    pub fn overlap(&self, a: Place, b: Place) -> bool {
        if !Family::ALL.into_iter().any(|family| a.has_family(family) && b.has_family(family)) {
            return false;
        }
        match (a, b) {
            (Place::Any | Place::AnyOf(_), _) | (_, Place::Any | Place::AnyOf(_)) => true,
            (Place::Address(a), Place::Address(b)) => a == b,
            (Place::Interface(i), Place::Address(a)) | (Place::Address(a), Place::Interface(i)) => {
                self.members(i).any(|member| member.has(a))
            }
            (Place::Interface(a), Place::Interface(b)) => a == b || self.members(a).any(|member| member.is_in(b)),
        }
    }

    /// The interface of that name, and those in the group of that name.
    pub fn members(&self, name: Interface) -> impl Iterator<Item = &'a HostInterface> {
        self.0.iter().filter(move |interface| interface.is_in(name))
    }

    /// Whether `name` is the name of the interface `interface`, or of one of its groups. An interface that the host
    /// does not have is in no group.
    pub fn is_in(&self, interface: Interface, name: Interface) -> bool {
        interface == name || self.0.iter().any(|known| known.name == interface && known.is_in(name))
    }

    /// The first interface that has this address.
    pub fn holder(&self, address: IpAddr) -> Option<&'a HostInterface> {
        self.0.iter().find(|interface| interface.has(address))
    }

    /// The interface on the longest network that contains `address`, and that network; the first of several with the
    /// same length. An interface that is down is only used if none that is up has such a network: the kernel removes
    /// its routes, and it may be up when the jail is running.
    pub fn connected(&self, address: IpAddr) -> Option<(Interface, IpNet)> {
        let networks = self.0.iter().flat_map(|i| i.addresses.iter().map(move |network| (i, *network)));
        let nearest = networks
            .filter(|(_, network)| network.contains(&address))
            .rev()
            .max_by_key(|(interface, network)| (interface.up, network.prefix_len()));
        nearest.map(|(interface, network)| (interface.name, network))
    }

    /// Whether the address is one of the host's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.holder(address).is_some()
    }

    /// The interface through which the host reaches `address`: the one with the longest network that contains it.
    /// `None` if the address is the host's own, as that of a jail without its own network stack is.
    pub fn leads_to(&self, address: IpAddr) -> Result<Option<Interface>> {
        if self.is_own(address) {
            return Ok(None);
        }
        match self.connected(address) {
            Some((interface, _)) => Ok(Some(interface)),
            None => Err(Error::new(
                Kind::Unavailable,
                format!(
                    "no interface of the host has a network with {address}: hairpin, host access, masquerade and af-to need the one \
                     that leads to the jail; give the jail's bridge an address of the jail's network"
                ),
            )),
        }
    }
}
