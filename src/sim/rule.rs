//! One rule as pf evaluates it: no lists, no macros, whichever text or typed rule it came from.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Packet;
use super::lookup::Lookup;
use crate::net::{Family, Interface, PortRange};
use crate::rule::{self, Direction, StateOptions};

/// An address of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Any,
    Network(IpNet),
    /// The addresses of an interface or of a group's interfaces; `network`: the networks that they are in; `first`:
    /// without aliases, `:0`.
    Interface {
        name: Interface,
        network: bool,
        first: bool,
    },
    /// `(self)`
    Own,
    Table(String),
}

impl From<&rule::Address> for Operand {
    fn from(address: &rule::Address) -> Operand {
        match address {
            rule::Address::Any => Operand::Any,
            rule::Address::Host(address) => Operand::Network(IpNet::from(*address)),
            rule::Address::Network(network) => Operand::Network(*network),
            rule::Address::Interface(name) => Operand::Interface { name: *name, network: false, first: false },
            rule::Address::InterfaceNetwork(name) => Operand::Interface { name: *name, network: true, first: false },
            rule::Address::Own => Operand::Own,
            rule::Address::Table(table) => Operand::Table(table.to_string()),
        }
    }
}

impl Operand {
    /// Whether it stands for `address` at this moment.
    pub(super) fn holds(&self, address: IpAddr, lookup: &Lookup) -> bool {
        match self {
            Operand::Any => true,
            Operand::Network(network) => network.contains(&address),
            Operand::Table(name) => lookup
                .tables
                .get(name)
                .is_some_and(|networks| networks.iter().any(|network| network.contains(&address))),
            Operand::Interface { network: true, .. } => {
                self.networks(lookup).any(|network| !link_local(network.addr()) && network.contains(&address))
            }
            Operand::Interface { .. } | Operand::Own => self.networks(lookup).any(|network| network.addr() == address),
        }
    }

    /// The addresses that a dynamic operand has, each with its network.
    fn networks<'a>(&'a self, lookup: &'a Lookup) -> impl Iterator<Item = IpNet> + 'a {
        lookup.interfaces.iter().flat_map(move |interface| {
            let (ours, first) = match self {
                Operand::Own => (true, false),
                Operand::Interface { name, first, .. } => (lookup.is_in(interface.name, *name), *first),
                _ => (false, false),
            };
            // `:0` is the first address of each family, link-local ones left out (pfi_instance_add in pf_if.c)
            let mut seen = [false; 2];
            interface.addresses.iter().copied().filter(move |network| {
                let known = &mut seen[usize::from(network.addr().is_ipv6())];
                ours && (!first || !link_local(network.addr()) && !std::mem::replace(known, true))
            })
        })
    }

    /// The address that a translation to this operand takes; pf goes round several, here it is always the first.
    pub(super) fn pick(&self, family: Family, lookup: &Lookup) -> Option<IpAddr> {
        match self {
            Operand::Network(network) => Some(network.addr()),
            // pf_map_addr in pf_lb.c passes over link-local addresses
            _ => self
                .networks(lookup)
                .map(|network| network.addr())
                .find(|address| Family::of(*address) == family && !link_local(*address)),
        }
    }
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if crate::net::is_link_local6(v6))
}

/// Ports of a rule, as pf.conf(5) compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortMatch {
    /// `a:b`, `= a`
    In(u16, u16),
    /// `!= a`, `a <> b`
    NotIn(u16, u16),
}

impl PortMatch {
    fn holds(self, port: u16) -> bool {
        match self {
            PortMatch::In(a, b) => (a..=b).contains(&port),
            PortMatch::NotIn(a, b) => !(a..=b).contains(&port),
        }
    }
}

/// `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub not: bool,
    pub address: Operand,
    pub ports: Option<PortMatch>,
}

impl Side {
    pub(super) fn any() -> Side {
        Side { not: false, address: Operand::Any, ports: None }
    }

    fn holds(&self, address: IpAddr, port: u16, lookup: &Lookup) -> bool {
        self.address.holds(address, lookup) != self.not && self.ports.is_none_or(|ports| ports.holds(port))
    }
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pass,
    Block,
    /// Source translation; `None` for `no nat`.
    Nat(Option<Operand>),
    /// Redirection; `None` for `no rdr`.
    Rdr(Option<Target>),
    /// An anchor call, by kind.
    Call(RuleKind, String),
}

/// Where an rdr rule leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub address: Operand,
    pub ports: Option<PortRange>,
    /// `rdr pass`
    pub pass: bool,
}

/// The rulesets of an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleKind {
    Nat,
    Rdr,
    Filter,
}

impl Action {
    pub(super) fn kind(&self) -> RuleKind {
        match self {
            Action::Pass | Action::Block => RuleKind::Filter,
            Action::Nat(_) => RuleKind::Nat,
            Action::Rdr(_) => RuleKind::Rdr,
            Action::Call(kind, _) => *kind,
        }
    }
}

/// `keep state` of a pass rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keep {
    pub if_bound: bool,
    pub options: StateOptions,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// As it was written, for the trace.
    pub text: String,
    pub action: Action,
    pub direction: Option<Direction>,
    pub quick: bool,
    /// The interface, and whether it is any other (`! em0`).
    pub on: Option<(bool, Interface)>,
    pub family: Option<Family>,
    /// The number of the protocol.
    pub protocol: Option<u8>,
    pub from: Side,
    pub to: Side,
    pub tag: Option<String>,
    pub tagged: Option<(bool, String)>,
    /// `flags S/SA`: of tcp, only the packet that starts a connection.
    pub starts_only: bool,
    pub keep: Option<Keep>,
}

impl Rule {
    /// A rule that takes every packet.
    pub(super) fn new(text: String, action: Action) -> Rule {
        Rule {
            text,
            action,
            direction: None,
            quick: false,
            on: None,
            family: None,
            protocol: None,
            from: Side::any(),
            to: Side::any(),
            tag: None,
            tagged: None,
            starts_only: false,
            keep: None,
        }
    }

    /// The rules that a typed rule's lists stand for, in pfctl's order: interface, then source, then destination.
    pub(super) fn of(typed: &rule::Rule) -> Vec<Rule> {
        let matches = typed.matches();
        let action = match typed {
            rule::Rule::Nat { address_of, .. } => {
                Action::Nat(Some(Operand::Interface { name: *address_of, network: false, first: false }))
            }
            rule::Rule::Rdr { target, ports, .. } => Action::Rdr(Some(Target {
                address: Operand::Network(IpNet::from(*target)),
                ports: Some(*ports),
                pass: false,
            })),
            rule::Rule::Pass { .. } => Action::Pass,
        };
        let mut base = Rule::new(typed.to_string(), action);
        base.family = Some(matches.family);
        base.protocol = Some(matches.protocol.number());
        match typed {
            rule::Rule::Nat { .. } => {}
            rule::Rule::Rdr { tag, .. } => base.tag = Some(tag.to_string()),
            rule::Rule::Pass { direction, quick, tagged, state, .. } => {
                base.direction = *direction;
                base.quick = *quick;
                base.tagged = tagged.as_ref().map(|tag| (false, tag.to_string()));
                base.keep = Some(Keep { if_bound: false, options: *state });
                // pfctl's default for a pass rule that keeps state
                base.starts_only = true;
            }
        }
        let side = |address: Option<&rule::Address>, ports| Side {
            not: false,
            address: address.map_or(Operand::Any, Operand::from),
            ports,
        };
        let ports = Some(PortMatch::In(matches.ports.first(), matches.ports.last()));
        let mut made = vec![];
        for on in each(&matches.on) {
            for from in each(&matches.from) {
                for to in each(&matches.to) {
                    let on = on.map(|name| (false, *name));
                    made.push(Rule { on, from: side(from, None), to: side(to, ports), ..base.clone() });
                }
            }
        }
        made
    }

    /// Whether the rule is about this packet, on its way through this interface.
    pub(super) fn takes(&self, packet: &Packet, direction: Direction, on: Interface, lookup: &Lookup) -> bool {
        let interface = self.on.is_none_or(|(not, name)| lookup.is_in(on, name) != not);
        let tagged = |(not, tag): &(bool, String)| (packet.tag.as_deref() == Some(tag)) != *not;
        interface
            && self.direction.is_none_or(|wanted| wanted == direction)
            && self.family.is_none_or(|family| family == packet.family())
            && self.protocol.is_none_or(|number| number == packet.protocol.number())
            && self.from.holds(packet.from.ip(), packet.from.port(), lookup)
            && self.to.holds(packet.to.ip(), packet.to.port(), lookup)
            && (packet.starts || !self.starts_only || packet.protocol != crate::net::Protocol::Tcp)
            && self.tagged.as_ref().is_none_or(tagged)
    }
}

/// Each member of a list, or one `None` for an empty one.
pub(super) fn each<T>(list: &[T]) -> Vec<Option<&T>> {
    if list.is_empty() { vec![None] } else { list.iter().map(Some).collect() }
}
