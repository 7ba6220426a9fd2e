//! The entrances of a host: where ports can be published, before any is.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::judge::{Entrance, Judge};
use crate::error::Result;
use crate::host::{Host, HostInterface};
use crate::net::{Family, Interface, JAIL_GROUPS, Place, Protocol};
use crate::pfconf::Conf;
use crate::pfconf::path::is_own;
use crate::trace::{Release, World};

/// Networks for a jail on a host that has none for jails yet.
const NETWORKS: [&str; 4] = ["10.77.77.1/24", "172.29.77.1/24", "192.168.177.1/24", "fd77:77::1/64"];
/// The port to publish, unless a rule singles it out.
const PORT: u16 = 8080;

/// An entrance, and whether published ports must be reached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Possible {
    /// The entrance, with a port that no rule singles out.
    pub entrance: Entrance,
    /// The interface of a default route, and a family in which the host has networks for jails.
    pub required: bool,
}

/// A judge of rulesets on a host, by path, the main one's empty, and the entrances of the host. kport's own anchors are
/// left out. `main` is the name of the file of the main ruleset, if it was read from one.
pub fn judge<'a>(
    host: &dyn Host,
    rulesets: impl IntoIterator<Item = (&'a str, &'a Conf)>,
    main: &str,
) -> Result<(Judge, Vec<Possible>)> {
    let mut world = World::new(Release::of_host(host)?, host.interfaces()?);
    world.set_gateways(host)?;
    for (path, conf) in rulesets.into_iter().filter(|(path, _)| !is_own(path)) {
        world.load_conf(path, conf);
    }
    let possible = entrances(&mut world);
    let mut judge = Judge::new(world, main);
    judge.refuses_at_ports_of(possible.iter().map(|possible| &possible.entrance));
    Ok((judge, possible))
}

/// The entrances of a host: for each interface to other hosts and each of its families, tcp and udp to a jail. Adds a
/// bridge to a host that has no network for jails. An interface that pf skips is not one.
pub fn entrances(world: &mut World) -> Vec<Possible> {
    let port = world.ports(PORT)[0];
    let mut found = vec![];
    let gateways = Family::ALL.map(|family| *world.lookup.gateway.of(family));
    let inner = |interface: &HostInterface| {
        let ours = |group: &str| group.parse().is_ok_and(|group: Interface| interface.is_in(group));
        JAIL_GROUPS.into_iter().any(ours) && !gateways.contains(&Some(interface.name))
    };
    let all = world.lookup.interfaces.clone();
    let (inner, outer): (Vec<_>, Vec<_>) = all.into_iter().partition(inner);
    let has_network = |family| inner.iter().any(|interface| jail_on(interface, family).is_some());
    let any_network = Family::ALL.into_iter().any(has_network);
    for family in Family::ALL {
        let mut jails: Vec<_> = inner.iter().filter_map(|interface| jail_on(interface, family)).collect();
        let outer: Vec<(Interface, IpAddr)> = outer
            .iter()
            .filter(|interface| !world.skips(interface.name))
            .filter_map(|interface| {
                let mut addresses = interface.addresses.iter().map(|own| own.addr());
                Some((interface.name, addresses.find(|address| is_usable(*address, family))?))
            })
            .collect();
        if outer.is_empty() {
            continue;
        }
        if jails.is_empty() {
            jails.extend(made_up(world, family));
        }
        for (on, host) in outer {
            let required = *world.lookup.gateway.of(family) == Some(on) && (has_network(family) || !any_network);
            for (jail, via) in &jails {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let at = |address| SocketAddr::new(address, port);
                    let entrance = Entrance { on, protocol, host: at(host), jail: at(*jail), via: *via };
                    found.push(Possible { entrance, required });
                }
            }
        }
    }
    // a host without a default route
    if found.iter().all(|possible| !possible.required) {
        found.iter_mut().for_each(|possible| possible.required = true);
    }
    found
}

/// Whether other hosts use such an address.
fn is_usable(address: IpAddr, family: Family) -> bool {
    Family::of(address) == family && !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// An address for a jail behind an interface, and the interface; on a loopback interface one of the host's own.
fn jail_on(interface: &HostInterface, family: Family) -> Option<(IpAddr, Option<Interface>)> {
    let of_jails = |network: &&IpNet| is_usable(network.addr(), family) && !network.addr().is_loopback();
    let mut networks = interface.addresses.iter().filter(of_jails);
    let loopback = "lo".parse().is_ok_and(|group| interface.is_in(group));
    if loopback || Place::Interface(interface.name).is_loopback() {
        return networks.next().map(|network| (network.addr(), None));
    }
    let free = |network: &IpNet| network.hosts().skip(1).take(9).find(|address| !interface.has(*address));
    networks.find_map(free).map(|address| (address, Some(interface.name)))
}

/// A jail on a bridge that the host does not have, in a network that it does not have.
fn made_up(world: &mut World, family: Family) -> Option<(IpAddr, Option<Interface>)> {
    let interfaces = &mut world.lookup.interfaces;
    let own = || interfaces.iter().flat_map(|interface| &interface.addresses);
    let network = NETWORKS.iter().filter_map(|text| text.parse::<IpNet>().ok()).find(|network| {
        Family::of(network.addr()) == family
            && own().all(|own| !own.contains(&network.addr()) && !network.contains(&own.addr()))
    })?;
    let there = |name: &Interface| interfaces.iter().any(|interface| interface.name == *name);
    let bridge = (0..100).filter_map(|unit| format!("bridge{unit}").parse().ok()).find(|name| !there(name))?;
    let group = "bridge".parse().ok()?;
    let on = interfaces.iter_mut().find(|interface| interface.is_in(group));
    let name = match on {
        Some(on) => {
            on.addresses.push(network);
            on.name
        }
        None => {
            interfaces.push(HostInterface::up(bridge, vec![group], vec![network]));
            bridge
        }
    };
    let jail = network.hosts().skip(1).find(|address| *address != network.addr())?;
    Some((jail, Some(name)))
}
