//! kport's own rules in the form of pf: one for each member of a rule's lists, with what pfctl(8) adds.

use super::Conf;
use super::address::{Compared, OfInterface, Operand, Operator, Part, Pool, PoolAddress, PoolKind, Ports, Side};
use super::operands::PROXY_PORTS;
use super::rule::{Action, Effects, Keep, On, Origin, RouteKind, Rule, RuleKind};
use crate::name::Label;
use crate::net::{Direction, Family, PortRange, Protocol};
use crate::rule::{self, Address, Match, Member, StateOptions};

/// `rules` expanded, in the order in which pf evaluates those of one ruleset.
pub fn flat(rules: &[rule::Rule]) -> Vec<Rule> {
    let all = |rule| {
        let origin = Origin { text: rule::Rule::to_string(rule).into(), ..Origin::default() };
        rule.matches().members().map(move |member| one(rule, member, origin.clone()))
    };
    rules.iter().flat_map(all).collect()
}

impl Conf {
    /// The ruleset with kport's own rules.
    pub fn of_rules(rules: &[rule::Rule]) -> Conf {
        Conf { rulesets: [(String::new(), flat(rules))].into(), ..Conf::default() }
    }
}

fn one(rule: &rule::Rule, member: Member<'_>, origin: Origin) -> Rule {
    let action = match rule {
        rule::Rule::Nat { matches: _, tagged: _, source: address } => {
            Action::Translate { kind: RuleKind::Nat, pool: Some(source(address)), pass: false }
        }
        rule::Rule::Rdr { target, ports, .. } => {
            let last = if ports.count() == 1 { 0 } else { ports.last() };
            let addresses = vec![Operand::Network((*target).into()).into()];
            let pool = Pool { addresses, ports: (ports.first(), last), ..Pool::default() };
            Action::Translate { kind: RuleKind::Rdr, pool: Some(pool), pass: false }
        }
        rule::Rule::AfTo { .. } | rule::Rule::Pass { .. } => Action::Pass,
    };
    let mut made = Rule::new(origin, action);
    // `on`, `from` and `to` are the member's
    let Match { on: _, family, protocol, from: _, to: _, ports } = rule.matches();
    made.when.on = member.on.map(|on| On { not: false, name: on.as_str().to_owned() });
    made.when.family = Some(*family);
    made.when.protocol = Some(protocol.number());
    let not = matches!(member.from, Some(Address::NotInterfaceNetwork(_)));
    made.when.from = Side { not, address: operand(member.from), ports: None };
    made.when.to = Side { not: false, address: operand(member.to), ports: Some(compared(*ports)) };
    match rule {
        rule::Rule::Nat { matches: _, tagged, source: _ } => made.when.tagged = tag(tagged.as_ref()),
        rule::Rule::Rdr { tag, .. } => made.tag = Some(tag.as_str().to_owned()),
        rule::Rule::AfTo { log, quick, matches: _, address_of, target, port, state, labels } => {
            let ports = (port.unwrap_or(0), 0);
            let target = Pool { addresses: vec![Operand::Network((*target).into()).into()], ports, ..Pool::default() };
            made.when.direction = Some(Direction::In);
            passes(&mut made, (*log, *quick), state, labels);
            made.effects.af_to = Some((Family::Inet, source(&Address::Interface(*address_of)), Some(target)));
        }
        rule::Rule::Pass { direction, log, quick, routing, matches: _, tagged, state, labels } => {
            made.when.direction = *direction;
            made.when.tagged = tag(tagged.as_ref());
            passes(&mut made, (*log, *quick), state, labels);
            made.effects.rtable = routing.rtable;
            made.effects.route = routing.reply_to.map(|hop| {
                let interface = Some(hop.interface.as_str().to_owned());
                let address = hop.gateway.map(|gateway| Operand::Network(gateway.into()));
                let addresses = vec![PoolAddress { interface, address }];
                (RouteKind::Replies, Pool { addresses, ..Pool::default() })
            });
        }
    }
    made
}

fn passes(made: &mut Rule, (log, quick): (bool, bool), state: &StateOptions, labels: &[Label]) {
    (made.log, made.quick) = (log, quick);
    // flags S/SA
    made.when.flags = (made.when.protocol == Some(Protocol::Tcp.number())).then_some((0x02, 0x12));
    made.labels = labels.iter().map(|label| label.as_str().to_owned()).collect();
    *made.effects = Effects { keep: Some(keep(state)), ..Effects::default() };
}

/// The address that becomes the source, or those of an interface, one of which does.
fn source(address: &Address) -> Pool {
    let source = operand(Some(address));
    let kind = if source.is_several() { PoolKind::RoundRobin } else { PoolKind::Single };
    Pool { addresses: vec![source.into()], ports: PROXY_PORTS, kind, ..Pool::default() }
}

fn tag(tag: Option<&Label>) -> Option<(bool, String)> {
    tag.map(|tag| (false, tag.as_str().to_owned()))
}

fn interface(name: &str, part: Part, first: bool) -> Operand {
    Operand::Interface(OfInterface { name: name.to_owned(), part, first, dynamic: true, bits: None })
}

fn operand(address: Option<&Address>) -> Operand {
    match address {
        None | Some(Address::Any) => Operand::Any,
        Some(Address::Host(host)) => Operand::Network((*host).into()),
        // a mask of zeros is equal to `any`
        Some(Address::Network(network)) if network.prefix_len() == 0 => Operand::Any,
        Some(Address::Network(network)) => Operand::Network(network.trunc()),
        Some(Address::Interface(name)) => interface(name.as_str(), Part::Address, false),
        Some(Address::First(name)) => interface(name.as_str(), Part::Address, true),
        Some(Address::InterfaceNetwork(name) | Address::NotInterfaceNetwork(name)) => {
            interface(name.as_str(), Part::Network, false)
        }
        Some(Address::Own) => interface("self", Part::Address, false),
        Some(Address::Table(table)) => Operand::Table(table.as_str().to_owned()),
    }
}

pub fn compared(ports: PortRange) -> Ports {
    match ports.count() {
        1 => Compared { operator: Operator::Equal, a: ports.first(), b: 0 },
        _ => Compared { operator: Operator::Range, a: ports.first(), b: ports.last() },
    }
}

fn keep(state: &StateOptions) -> Keep {
    let StateOptions { max, max_src_states, max_src_conn, max_src_conn_rate } = *state;
    let number = |n: Option<std::num::NonZeroU32>| n.map_or(0, std::num::NonZeroU32::get);
    Keep {
        max: number(max),
        max_src_states: number(max_src_states),
        max_src_conn: number(max_src_conn),
        max_src_conn_rate: max_src_conn_rate.map_or((0, 0), |rate| (rate.connections(), rate.seconds())),
        ..Keep::default()
    }
}
