//! Questions about the interfaces of the host: who is a member of a group, which places overlap, which interface leads to
//! an address.

use std::net::IpAddr;

use super::HostInterface;
use crate::error::{Error, Kind, Result};
use crate::net::{Interface, Place};

/// The interfaces of the host, to ask about.
#[derive(Clone, Copy, Debug)]
pub struct Interfaces<'a>(pub &'a [HostInterface]);

impl<'a> Interfaces<'a> {
    /// Whether one packet can be meant by both places.
    pub fn overlap(&self, a: Place, b: Place) -> bool {
        match (a, b) {
            (Place::Any, _) | (_, Place::Any) => true,
            (Place::Address(a), Place::Address(b)) => a == b,
            (Place::Interface(i), Place::Address(a)) | (Place::Address(a), Place::Interface(i)) => {
                self.members(i).any(|m| m.addresses.iter().any(|n| n.addr() == a))
            }
            (Place::Interface(a), Place::Interface(b)) => {
                a == b || self.members(a).any(|m| m.name == b || m.groups.contains(&b))
            }
        }
    }

    /// The interface of that name, and those in the group of that name.
    pub fn members(&self, name: Interface) -> impl Iterator<Item = &'a HostInterface> {
        self.0.iter().filter(move |i| i.name == name || i.groups.contains(&name))
    }

    /// Whether the address is one of the host's own.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.0.iter().any(|i| i.addresses.iter().any(|n| n.addr() == address))
    }

    /// The interface through which the host reaches `address`: the one with the longest network that holds it. `None` where
    /// the address is the host's own, as that of a jail without a network stack of its own is.
    pub fn leads_to(&self, address: IpAddr) -> Result<Option<Interface>> {
        if self.is_own(address) {
            return Ok(None);
        }
        let holds = self.0.iter().flat_map(|i| i.addresses.iter().map(move |network| (i.name, network)));
        let holds = holds.filter(|(_, network)| network.contains(&address));
        // the first of several that are as long
        match holds.rev().max_by_key(|(_, network)| network.prefix_len()) {
            Some((interface, _)) => Ok(Some(interface)),
            None => Err(Error::new(
                Kind::Unavailable,
                format!(
                    "no interface of the host has a network with {address}: --hairpin and --host-access need the one that \
                     leads to the jail; give the jail's bridge an address of the jail's network"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<HostInterface> {
        let interface = |name: &str, groups: &[&str], addresses: &[&str]| HostInterface {
            name: name.parse().unwrap(),
            groups: groups.iter().map(|g| g.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            up: true,
        };
        vec![
            interface("em0", &["egress"], &["192.0.2.1/24", "192.0.2.7/32", "2001:db8::1/64"]),
            interface("em1", &[], &["198.51.100.1/24"]),
            interface("bridge0", &["bridge"], &["10.0.0.1/24"]),
            interface("lo0", &["lo"], &["127.0.0.1/8"]),
        ]
    }

    #[test]
    fn places() {
        let host = host();
        let interfaces = Interfaces(&host);
        for (a, b, overlap) in [
            ("em0", "em0", true),
            ("em0", "em1", false),
            ("em0", "*", true),
            ("192.0.2.7", "em0", true),
            ("192.0.2.7", "egress", true),
            ("192.0.2.7", "em1", false),
            ("192.0.2.7", "192.0.2.1", false),
            ("egress", "em0", true),
            ("egress", "bridge", false),
            ("wg7", "em0", false),
            ("wg7", "wg7", true),
        ] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(interfaces.overlap(a, b), overlap, "{a} {b}");
            assert_eq!(interfaces.overlap(b, a), overlap, "{b} {a}");
        }
    }

    #[test]
    fn the_interface_that_leads_to_a_jail() {
        let interface = |name: &str, addresses: &[&str]| HostInterface {
            name: name.parse().unwrap(),
            groups: vec![],
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            up: true,
        };
        let host = [
            interface("em0", &["192.0.2.1/24"]),
            interface("bridge0", &["10.0.0.1/8"]),
            interface("bridge1", &["10.1.0.1/24", "fd00::1/64"]),
        ];
        let found = |address: &str| Interfaces(&host).leads_to(address.parse().unwrap());
        assert_eq!(found("10.0.0.2").unwrap(), Some(host[1].name));
        assert_eq!(found("10.1.0.2").unwrap(), Some(host[2].name));
        assert_eq!(found("fd00::2").unwrap(), Some(host[2].name));
        assert_eq!(found("192.0.2.1").unwrap(), None);
        assert_eq!(found("198.51.100.1").unwrap_err().kind(), Kind::Unavailable);
    }
}
