//! What rules look up when a packet passes: interfaces, tables, routes, sockets. The answer may be unknown.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use crate::host::{Gateway, HostInterface, Interfaces, Listener};
use crate::net::{Family, Interface, PerFamily, Protocol};
use crate::pfconf::address::{OfInterface, Operand, Part, Table};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    No,
    Yes,
    Maybe(String),
}

impl Truth {
    pub(super) fn of(holds: bool) -> Truth {
        if holds { Truth::Yes } else { Truth::No }
    }

    pub(super) fn not(self) -> Truth {
        match self {
            Truth::No => Truth::Yes,
            Truth::Yes => Truth::No,
            maybe @ Truth::Maybe(_) => maybe,
        }
    }

    /// Whether both hold: `No` decides, whatever the other is.
    pub(super) fn and(self, other: impl FnOnce() -> Truth) -> Truth {
        match self {
            Truth::No => Truth::No,
            Truth::Yes => other(),
            Truth::Maybe(why) => match other() {
                Truth::No => Truth::No,
                Truth::Yes => Truth::Maybe(why),
                Truth::Maybe(more) if more == why => Truth::Maybe(why),
                Truth::Maybe(more) => Truth::Maybe(format!("{why}; {more}")),
            },
        }
    }
}

impl Table {
    fn holds(&self, address: IpAddr, lookup: &Lookup) -> Truth {
        let mut found = Truth::of(self.longest(address) == Some(false));
        for (not, operand) in &self.others {
            match operand.holds("", address, false, None, lookup) {
                Truth::Yes => return Truth::of(!not),
                maybe @ Truth::Maybe(_) if found != Truth::Yes => found = maybe,
                _ => {}
            }
        }
        found
    }
}

/// The facts of the host that rules use.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    pub interfaces: Vec<HostInterface>,
    /// By the anchor that defines them, and by name.
    pub(super) tables: BTreeMap<String, BTreeMap<String, Table>>,
    /// Networks that are reached through a gateway behind an interface, besides the default route.
    pub routes: Vec<(IpNet, Interface)>,
    pub gateway: PerFamily<Option<Interface>>,
    pub(super) routers: Vec<Gateway>,
    /// `net.add_addr_allfibs`: the network of an interface is in every FIB.
    pub(super) all_fibs: bool,
    /// The listening sockets of the host and of jails on its stack; `None` if they are unknown.
    pub listeners: Option<Vec<Listener>>,
    /// The local ends of connections that the host, or a jail on its stack, has started.
    pub(super) clients: Vec<SocketAddr>,
    /// Addresses in use: these are tried if a pool has too many.
    pub(super) known: Vec<IpAddr>,
}

impl Lookup {
    /// Whether `name` is the interface or a group that it is in, or `any`, which is all but loopback (pfi_kkif_match in pf_if.c).
    pub(super) fn is_in(&self, interface: Interface, name: &str) -> bool {
        let grouped = |known: &HostInterface| known.groups.iter().any(|group| group.as_str() == name);
        interface.as_str() == name
            || self.interfaces.iter().any(|known| known.name == interface && grouped(known))
            || name == "any" && !is_loopback(interface)
    }

    fn knows(&self, name: &str) -> bool {
        name == "self" || self.interfaces.iter().any(|known| self.is_in(known.name, name))
    }

    /// The addresses that pfctl(8) finds for a name when it loads a file; `None` if that is unknown, as for the name of another
    /// host.
    pub(super) fn named(&self, of: &OfInterface) -> Option<Vec<IpNet>> {
        let is_known = of.part != Part::Peer && (self.knows(&of.name) || of.part != Part::Address || of.first);
        is_known.then(|| of.networks(self).collect())
    }

    pub(super) fn table(&self, anchor: &str, name: &str) -> Option<&Table> {
        let of = |anchor: &str| self.tables.get(anchor)?.get(name);
        of(anchor).or_else(|| of(""))
    }

    /// The interface that leads to an address, or has it.
    pub(super) fn route(&self, address: IpAddr) -> Option<Interface> {
        let own = Interfaces(&self.interfaces).holder(address);
        own.map(|own| own.name).or_else(|| self.route_of_fib(0, address))
    }

    /// The interface that leads to an address of others: that of the longest network or route, else of the default route.
    pub(super) fn route_of_fib(&self, fib: u32, address: IpAddr) -> Option<Interface> {
        let connected = self.connected(fib, address).map(|(name, network)| (network.prefix_len(), name));
        if fib == 0 {
            let routes = self.routes.iter().filter(|(network, _)| network.contains(&address));
            let routes = routes.map(|(network, name)| (network.prefix_len(), *name));
            // a network of the host comes before a route of the same length
            let longest = routes.chain(connected).max_by_key(|(length, _)| *length);
            return longest.map(|(_, name)| name).or(*self.gateway.of(Family::of(address)));
        }
        let default = |gateway: &&Gateway| {
            gateway.default && gateway.fib == fib && gateway.address.is_ipv4() == address.is_ipv4()
        };
        connected.map(|(_, name)| name).or_else(|| Some(self.routers.iter().find(default)?.interface))
    }

    fn connected(&self, fib: u32, address: IpAddr) -> Option<(Interface, IpNet)> {
        let has_network = |interface: &&HostInterface| self.all_fibs || interface.fib == fib;
        if self.interfaces.iter().all(|interface| has_network(&interface)) {
            return Interfaces(&self.interfaces).connected(address);
        }
        Interfaces(&self.interfaces.iter().filter(has_network).cloned().collect::<Vec<_>>()).connected(address)
    }

    /// Whether something is known of the routes of a FIB.
    pub(super) fn knows_fib(&self, fib: u32) -> bool {
        let of_fib = |gateway: &Gateway| gateway.fib == fib;
        fib == 0 || self.routers.iter().any(of_fib) || self.interfaces.iter().any(|interface| interface.fib == fib)
    }

    /// Whether a socket of the host has a local address (pf_socket_lookup in pf.c); `None` if that is unknown.
    pub(super) fn socket(&self, protocol: Protocol, local: SocketAddr) -> Option<bool> {
        if self.clients.contains(&local) {
            return Some(true);
        }
        // sctp sockets are not listed, and pf does not look them up
        let listeners = self.listeners.as_ref().filter(|_| protocol != Protocol::Sctp)?;
        let family = Family::of(local.ip());
        Some(listeners.iter().any(|listener| {
            listener.protocol == protocol
                && listener.port == local.port()
                && *listener.families.of(family)
                && listener.address.is_none_or(|address| address == local.ip())
        }))
    }
}

pub(super) fn is_loopback(interface: Interface) -> bool {
    crate::net::Place::Interface(interface).is_loopback()
}

pub(super) fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// An address as a number, whatever its family.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

pub(super) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::Inet => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::Inet6 => Ipv6Addr::from(number).into(),
    }
}

impl OfInterface {
    /// The addresses that it stands for, each with its network.
    pub(super) fn networks<'a>(&'a self, lookup: &'a Lookup) -> impl Iterator<Item = IpNet> + 'a {
        let of_interface = move |interface: &'a HostInterface| {
            // `:0` is the first address of each family, without link-local ones (pfi_instance_add in pf_if.c)
            let mut seen = [false; 2];
            interface.addresses.iter().copied().filter(move |network| {
                let known = &mut seen[usize::from(network.addr().is_ipv6())];
                !self.first || !link_local(network.addr()) && !std::mem::replace(known, true)
            })
        };
        let ours = |interface: &&HostInterface| self.name == "self" || lookup.is_in(interface.name, &self.name);
        lookup.interfaces.iter().filter(ours).flat_map(of_interface).filter_map(|network| self.part_of(network))
    }

    fn part_of(&self, network: IpNet) -> Option<IpNet> {
        let part = match self.part {
            Part::Address => IpNet::from(network.addr()),
            Part::Network if link_local(network.addr()) => return None,
            Part::Network => network.trunc(),
            Part::Broadcast => match network {
                IpNet::V4(v4) if v4.prefix_len() < 31 => IpNet::V4(Ipv4Net::from(v4.broadcast())),
                _ => return None,
            },
            Part::Peer => return None,
        };
        match self.bits {
            Some(bits) => IpNet::new(part.addr(), bits.min(part.max_prefix_len())).ok(),
            None => Some(part),
        }
    }

    fn holds(&self, address: IpAddr, not: bool, lookup: &Lookup) -> Truth {
        if self.part == Part::Peer {
            return Truth::Maybe(format!("the address at the other end of {} is unknown", self.name));
        }
        if !self.dynamic && !lookup.knows(&self.name) {
            return Truth::Maybe(format!("the addresses of {} are unknown", self.name));
        }
        let family = Family::of(address);
        let mut members = self.networks(lookup).filter(|network| Family::of(network.addr()) == family);
        Truth::of(match (not, self.dynamic) {
            (false, _) => members.any(|network| network.contains(&address)),
            (true, true) => !members.any(|network| network.contains(&address)),
            // pfctl has made one rule for each address: each of them matches all but its own address
            (true, false) => members.any(|network| !network.contains(&address)),
        })
    }
}

impl Operand {
    /// Whether it stands for `address`, or with `not` for any other, in a rule of `anchor`, which may have tables of its own.
    /// `from` is the interface by which a packet with this source comes in, for urpf-failed.
    pub(super) fn holds(
        &self,
        anchor: &str,
        address: IpAddr,
        not: bool,
        from: Option<Interface>,
        lookup: &Lookup,
    ) -> Truth {
        let held = match self {
            Operand::Any => Truth::Yes,
            Operand::Network(network) => Truth::of(network.contains(&address)),
            Operand::Range(first, last) => {
                Truth::of(first.is_ipv4() == address.is_ipv4() && (first..=last).contains(&&address))
            }
            Operand::Table(name) => lookup.table(anchor, name).map_or(Truth::No, |table| table.holds(address, lookup)),
            Operand::Interface(of) => return of.holds(address, not, lookup),
            Operand::NoRoute => Truth::of(!link_local(address) && lookup.route(address).is_none()),
            Operand::UrpfFailed => Truth::of(
                !link_local(address)
                    && from.is_some_and(|on| !on.as_str().starts_with("enc") && lookup.route(address) != Some(on)),
            ),
            Operand::Named(name) => Truth::Maybe(format!("the addresses of {name} are not looked up")),
        };
        if not { held.not() } else { held }
    }

    /// The networks of one family that a pool takes addresses from, in its order, without link-local ones (pf_map_addr
    /// in pf_lb.c). `None` if they are unknown.
    pub(super) fn pool(&self, anchor: &str, family: Family, lookup: &Lookup) -> Option<Vec<IpNet>> {
        let of_family = |network: &IpNet| Family::of(network.addr()) == family;
        Some(match self {
            Operand::Network(network) => Some(*network).into_iter().filter(of_family).collect(),
            Operand::Interface(of) if of.part == Part::Peer => return None,
            Operand::Interface(of) if !of.dynamic && !lookup.knows(&of.name) => return None,
            Operand::Interface(of) => {
                of.networks(lookup).filter(of_family).filter(|network| !link_local(network.addr())).collect()
            }
            Operand::Table(name) => lookup.table(anchor, name).map_or(vec![], |table| table.pool(family).collect()),
            Operand::Any | Operand::Range(..) | Operand::NoRoute | Operand::UrpfFailed => vec![],
            Operand::Named(_) => return None,
        })
    }
}
