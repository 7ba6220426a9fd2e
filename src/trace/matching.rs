//! Whether a rule matches a packet at an interface: yes, no, or undecided (pf_match_rule in sys/netpfil/pf/pf.c); and what is looked
//! up for that: interfaces, tables, routes, sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::packet::{Packet, SYN};
use super::state::Pf;
use crate::host::{Gateway, HostInterface, Interfaces, Listener};
use crate::net::{Direction, Family, Interface, PerFamily, Protocol, is_link_local6};
use crate::pfconf::address::{OfInterface, Operand, Operator, Part, Side, Table};
use crate::pfconf::rule::{Action, Conditions, Owner, Rule, RuleKind};

/// Where pf evaluates a packet.
#[derive(Clone, Copy)]
pub(super) struct Hook<'a> {
    pub direction: Direction,
    pub on: Interface,
    pub lookup: &'a Lookup,
    pub pf: &'a Pf,
}

/// A rule that was found, and its ruleset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub anchor: &'a str,
    pub number: usize,
    pub rule: &'a Rule,
}

impl Found<'_> {
    /// "rule 3 of pf.conf (pass in ...): why"
    pub(super) fn place(&self, why: &str) -> String {
        let anchor = if self.anchor.is_empty() { "pf.conf".to_owned() } else { format!("anchor {}", self.anchor) };
        format!("rule {} of {anchor} ({}): {why}", self.number + 1, self.rule.origin.text)
    }
}

/// An assumption about what could not be decided: what, and which of the possible answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assumed {
    pub what: String,
    pub answer: usize,
    /// Which address of a pool is used: the runs agree if their verdicts do.
    pub pool: bool,
    /// A property of the packet, which is the same for every rule.
    pub of_packet: bool,
}

impl Found<'_> {
    /// Whether the rule matches this packet; if that is undecided, whether it depends on the packet alone.
    pub(super) fn takes(&self, packet: &Packet, hook: &Hook<'_>) -> (Truth, bool) {
        let when = &self.rule.when;
        if when.direction.is_some_and(|wanted| wanted != hook.direction)
            || when.on.as_ref().is_some_and(|on| hook.lookup.is_in(hook.on, &on.name) == on.not)
            || when.family.is_some_and(|family| family != packet.family())
            || when.protocol.is_some_and(|number| number != packet.protocol.0)
        {
            return (Truth::No, false);
        }
        let certain = when.fragment
            || packet.protocol.with_ports() == Some(Protocol::Tcp)
                && when.flags.is_some_and(|(set, of)| packet.flags & of != set)
            || packet.protocol.is_icmp()
                && when.icmp.is_some_and(|(kind, code)| {
                    packet.icmp.is_none_or(|(k, c)| k != kind || code.is_some_and(|code| code != c))
                })
            || when.tagged.as_ref().is_some_and(|(not, wanted)| (packet.tag.as_ref() == Some(wanted)) == *not)
            // what the host itself sends came in on no interface (pf_match_rcvif)
            || when.received_on.as_ref().is_some_and(|on| {
                packet.received_on.is_some_and(|interface| hook.lookup.is_in(interface, &on.name)) == on.not
            });
        if certain {
            return (Truth::No, false);
        }
        let of_packet = self.ends(packet, hook).and(|| when.owners(packet, hook)).and(|| when.properties(packet));
        match (of_packet, when.chance()) {
            (Truth::No, _) => (Truth::No, false),
            (of_packet, Truth::Yes) => (of_packet, true),
            (of_packet, chance) => (of_packet.and(|| chance), false),
        }
    }

    fn ends(&self, packet: &Packet, hook: &Hook<'_>) -> Truth {
        let Rule { when, action, .. } = self.rule;
        let ports = action.kind() != RuleKind::Filter || packet.protocol.with_ports().is_some();
        let at = |side: &Side, source: bool| {
            let end = if source { packet.from } else { packet.to };
            let fits = !ports || side.ports.is_none_or(|ports| ports.holds(end.port()));
            let from = source.then_some(hook.on);
            Truth::of(fits).and(|| side.address.holds(self.anchor, end.ip(), side.not, from, hook.lookup))
        };
        match action {
            // its own addresses: what the packet is sent to, under another name
            Action::Translate { kind: RuleKind::Binat, pool, .. } if hook.direction == Direction::In => {
                let outside = pool.as_ref().and_then(|pool| pool.operands().next());
                at(&when.to, true).and(|| {
                    outside.map_or(Truth::Yes, |operand| {
                        operand.holds(self.anchor, packet.to.ip(), false, None, hook.lookup)
                    })
                })
            }
            _ => at(&when.from, true).and(|| at(&when.to, false)),
        }
    }
}

impl Conditions {
    /// `user` and `group`: the owner of the packet's socket (pf_socket_lookup).
    fn owners(&self, packet: &Packet, hook: &Hook<'_>) -> Truth {
        let owned = |word: &str, owner: &Option<Owner>| {
            let (Some(owner), Some(protocol)) = (owner, packet.protocol.with_ports()) else { return Truth::Yes };
            let local = if hook.direction == Direction::In { packet.to } else { packet.from };
            let socket = if protocol == Protocol::Sctp { Some(false) } else { hook.lookup.socket(protocol, local) };
            let differs = owner.operator == Operator::NotEqual;
            match (&*owner.a, socket) {
                // without a socket the owner is unknown, which equals nothing else
                ("unknown", Some(there)) => Truth::of(there == differs),
                (_, Some(false)) => Truth::of(differs),
                _ => Truth::Maybe(format!("the {word} of the socket {protocol} {local}")),
            }
        };
        owned("user", &self.user).and(|| owned("group", &self.group))
    }

    /// Properties of the packet that the question does not give.
    fn properties(&self, packet: &Packet) -> Truth {
        // only the first packet of a connection shows it
        if self.os.is_some() && (packet.protocol.with_ports() != Some(Protocol::Tcp) || packet.flags != SYN) {
            return Truth::No;
        }
        undecided([
            self.tos.map(|tos| format!("whether the packet's tos is 0x{tos:02x}")),
            self.prio.map(|prio| format!("whether the frame's priority is {prio}")),
            self.os.as_ref().map(|os| format!("whether the sender's operating system is {os}")),
        ])
    }

    /// What differs from packet to packet, or is not supported.
    fn chance(&self) -> Truth {
        undecided([
            self.probability.as_ref().map(|p| format!("probability {p}")),
            self.unknown.as_ref().map(|unknown| format!("kport does not support {unknown}")),
        ])
    }
}

/// Whether all hold that are there.
fn undecided<const N: usize>(reasons: [Option<String>; N]) -> Truth {
    reasons.into_iter().flatten().fold(Truth::Yes, |all, why| all.and(|| Truth::Maybe(why)))
}

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

    /// The addresses that pfctl(8) finds for a name when it loads a file; `None` if unknown, as for the name of another host.
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

    /// The interface that leads to an address of others: that of the longest network, else of the default route.
    pub(super) fn route_of_fib(&self, fib: u32, address: IpAddr) -> Option<Interface> {
        let default = || match fib {
            0 => *self.gateway.of(Family::of(address)),
            _ => {
                let of_fib = |gateway: &&Gateway| gateway.default && gateway.fib == fib;
                let mut ours = self.routers.iter().filter(of_fib);
                Some(ours.find(|gateway| gateway.address.is_ipv4() == address.is_ipv4())?.interface)
            }
        };
        self.connected(fib, address).map(|(name, _)| name).or_else(default)
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
                !self.first || !is_link_local6(network.addr()) && !std::mem::replace(known, true)
            })
        };
        let ours = |interface: &&HostInterface| self.name == "self" || lookup.is_in(interface.name, &self.name);
        lookup.interfaces.iter().filter(ours).flat_map(of_interface).filter_map(|network| self.part_of(network))
    }

    fn part_of(&self, network: IpNet) -> Option<IpNet> {
        let part = match self.part {
            Part::Address => IpNet::from(network.addr()),
            Part::Network if is_link_local6(network.addr()) => return None,
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
        &self, anchor: &str, address: IpAddr, not: bool, from: Option<Interface>, lookup: &Lookup,
    ) -> Truth {
        let held = match self {
            Operand::Any => Truth::Yes,
            Operand::Network(network) => Truth::of(network.contains(&address)),
            Operand::Range(first, last) => {
                Truth::of(first.is_ipv4() == address.is_ipv4() && (first..=last).contains(&&address))
            }
            Operand::Table(name) => lookup.table(anchor, name).map_or(Truth::No, |table| table.holds(address, lookup)),
            Operand::Interface(of) => return of.holds(address, not, lookup),
            Operand::NoRoute => Truth::of(!is_link_local6(address) && lookup.route(address).is_none()),
            Operand::UrpfFailed => Truth::of(
                !is_link_local6(address)
                    && from.is_some_and(|on| !on.as_str().starts_with("enc") && lookup.route(address) != Some(on)),
            ),
            Operand::Named(name) => Truth::Maybe(format!("the addresses of {name} are not looked up")),
        };
        match held {
            Truth::Maybe(_) => held,
            _ => Truth::of((held == Truth::Yes) != not),
        }
    }

    /// The networks that a pool takes addresses from, in order, without link-local ones (pf_map_addr); `None` if unknown.
    pub(super) fn pool(&self, anchor: &str, family: Family, lookup: &Lookup) -> Option<Vec<IpNet>> {
        let of_family = |network: &IpNet| Family::of(network.addr()) == family;
        Some(match self {
            Operand::Network(network) => Some(*network).into_iter().filter(of_family).collect(),
            Operand::Interface(of) if of.part == Part::Peer => return None,
            Operand::Interface(of) if !of.dynamic && !lookup.knows(&of.name) => return None,
            Operand::Interface(of) => {
                of.networks(lookup).filter(of_family).filter(|network| !is_link_local6(network.addr())).collect()
            }
            Operand::Table(name) => lookup.table(anchor, name).map_or(vec![], |table| table.pool(family).collect()),
            Operand::Any | Operand::Range(..) | Operand::NoRoute | Operand::UrpfFailed => vec![],
            Operand::Named(_) => return None,
        })
    }
}
