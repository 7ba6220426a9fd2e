//! The way of the answers. A client that came in on one interface, and is answered by another, has asked a network that does not
//! accept the answer: each network behind an interface is taken for one that remembers connections.

use std::net::IpAddr;

use once_cell::unsync::OnceCell;

use super::address;
use crate::error::Result;
use crate::host::{Gateway, Host, HostInterface, Interfaces};
use crate::net::{Family, Interface, Place, is_link_local6};
use crate::publication::{Answer, Publication, distinct};
use crate::rule::{NextHop, Routing};

/// The facts that decide by which interface an answer leaves.
pub struct Ways<'a> {
    /// Asked for the routers of every FIB, if they matter.
    pub host: &'a dyn Host,
    /// Those of the host.
    pub interfaces: &'a [HostInterface],
    /// The interface of the default route, of the FIB of this process.
    pub default: &'a dyn Fn(Family) -> Result<Option<Interface>>,
    /// The FIB of the jail's processes, if it is on the host's network stack.
    pub jail_fib: u32,
}

impl Ways<'_> {
    /// What the rules of a publication must do so that connections are answered by the interface that they came in on; nothing
    /// for an interface whose router is unknown.
    pub fn answers(&self, publication: &Publication) -> Result<Vec<Answer>> {
        let mut made = vec![];
        if publication.options.reply_to.as_ref().is_some_and(Vec::is_empty) {
            return Ok(made);
        }
        let gateways = OnceCell::new();
        let all = Interfaces(self.interfaces);
        for (place, target) in distinct(publication.redirects.iter().map(|r| (r.place, r.target))) {
            let family = Family::of(target);
            let via = all.connected(target).map(|(interface, _)| interface).filter(|_| !all.is_own(target));
            // without a network that leads to the target, that of the default route
            let back = match via.and_then(|via| all.members(via).next()) {
                Some(via) => via.fib,
                None if all.is_own(target) => self.jail_fib,
                None => 0,
            };
            let default = match back {
                0 => (self.default)(family)?,
                fib => default_of(gateways.get_or_try_init(|| self.host.gateways())?, family, fib),
            };
            let given = |fits: &dyn Fn(IpAddr) -> bool| {
                let mut routers = publication.options.reply_to.iter().flatten().copied();
                routers.find(|router| Family::of(*router) == family && fits(*router))
            };
            let outer = self.outer(place, family);
            // the name of an interface that comes later, not of a group: those do not end in a digit
            if let Place::Interface(on) = place
                && outer.is_empty()
                && on.as_str().ends_with(|last: char| last.is_ascii_digit())
                && let gateway @ Some(_) = given(&|_| true)
            {
                let routing = Routing { reply_to: Some(NextHop { interface: on, gateway }), rtable: None };
                made.push(Answer { place, target, on, beyond: true, routing });
            }
            for interface in outer {
                if via == Some(interface.name) {
                    continue;
                }
                let by_route = default == Some(interface.name) && interface.fib == back;
                let named = matches!(place, Place::Interface(name) if name == interface.name)
                    || matches!(place, Place::Address(_));
                let given = given(&|router| is_next_to(interface, router) || named && !by_route);
                let hop = |gateway| Some(NextHop { interface: interface.name, gateway });
                let reply_to = match given {
                    Some(_) => hop(given),
                    None if by_route => None,
                    None if interface.point_to_point => hop(None),
                    None => router_of(gateways.get_or_try_init(|| self.host.gateways())?, interface, family)
                        .and_then(|router| hop(Some(router))),
                };
                let rtable = (via.is_some() && interface.fib != back).then_some(back);
                let routing = Routing { reply_to, rtable };
                if routing != Routing::default() {
                    let beyond = interface.fib == back && reply_to.is_some_and(|hop| hop.gateway.is_some());
                    made.push(Answer { place, target, on: interface.name, beyond, routing });
                }
            }
        }
        Ok(made)
    }

    /// The interfaces by which packets for a place come in.
    fn outer(&self, place: Place, family: Family) -> Vec<&HostInterface> {
        let in_use = |interface: &&HostInterface| interface.up && address(interface, family).is_some();
        let outside = |interface: &&HostInterface| !Place::Interface(interface.name).is_loopback();
        let all = self.interfaces.iter().filter(outside);
        match place {
            Place::Interface(name) => all.filter(|interface| interface.is_in(name)).collect(),
            Place::Address(address) => all.filter(|interface| interface.has(address)).collect(),
            Place::Any | Place::AnyOf(_) => all.filter(in_use).collect(),
        }
    }
}

/// The interface of the default route of a FIB.
fn default_of(gateways: &[Gateway], family: Family, fib: u32) -> Option<Interface> {
    let of_fib = |gateway: &&Gateway| gateway.default && gateway.fib == fib && Family::of(gateway.address) == family;
    gateways.iter().find(of_fib).map(|gateway| gateway.interface)
}

/// The router behind an interface: that of a default route, of its own FIB first; else the only one that is there.
fn router_of(gateways: &[Gateway], interface: &HostInterface, family: Family) -> Option<IpAddr> {
    let ours = |gateway: &&Gateway| {
        let address = gateway.address;
        gateway.interface == interface.name && Family::of(address) == family && !address.is_unspecified()
    };
    let mut ours: Vec<&Gateway> = gateways.iter().filter(ours).collect();
    ours.sort_by_key(|gateway| (!gateway.default, gateway.fib != interface.fib));
    let first = ours.first()?;
    let only = || ours.iter().all(|gateway| gateway.address == first.address);
    (first.default || only()).then_some(first.address)
}

/// Whether a router is on a network of the interface.
fn is_next_to(interface: &HostInterface, router: IpAddr) -> bool {
    let link_local = matches!(router, IpAddr::V6(v6) if is_link_local6(v6));
    !link_local && interface.addresses.iter().any(|network| network.contains(&router))
}
