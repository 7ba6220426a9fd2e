//! Whether a rule is about a packet at an interface: yes, no, or it cannot be decided here (pf_match_rule in
//! sys/netpfil/pf/pf.c).

use super::lookup::{Lookup, Truth};
use super::packet::{IpProtocol, Packet};
use crate::net::Direction;
use crate::net::{Interface, Protocol};
use crate::pfconf::address::{Compared, Operand, Operator, Side};
use crate::pfconf::rule::{Action, Conditions, On, Owner, Rule, RuleKind};

/// Where pf looks at a packet.
#[derive(Clone, Copy)]
pub(super) struct Hook<'a> {
    pub direction: Direction,
    pub on: Interface,
    pub lookup: &'a Lookup,
}

/// What was taken to be so, because it could not be decided: what, and which of the possible answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assumed {
    pub what: String,
    pub answer: usize,
    /// Which address of a pool is taken: whoever it is, the answer is the same one as long as the verdict is.
    pub pool: bool,
    /// A property of the packet, which is the same for every rule.
    pub of_packet: bool,
}

impl Rule {
    /// Whether the rule, which stands in `anchor`, takes this packet. What is undecided is given with whether it is a property of
    /// the packet rather than of this rule.
    pub(super) fn takes(&self, anchor: &str, packet: &Packet, tag: Option<&str>, hook: &Hook<'_>) -> (Truth, bool) {
        let when = &self.when;
        if when.direction.is_some_and(|wanted| wanted != hook.direction)
            || when.on.as_ref().is_some_and(|on| !is_on(on, hook.on, hook.lookup))
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
            || when.tagged.as_ref().is_some_and(|(not, wanted)| (tag == Some(wanted)) == *not)
            || when.received_on.as_ref().is_some_and(|on| !is_received_on(on, packet, hook.lookup));
        if certain {
            return (Truth::No, false);
        }
        let ends = self.ends(anchor, packet, hook);
        let of_packet = ends.and(|| when.owners(packet, hook)).and(|| when.properties(packet));
        let chance = when.chance();
        match (of_packet, chance) {
            (Truth::No, _) => (Truth::No, false),
            (of_packet, Truth::Yes) => (of_packet, true),
            (of_packet, chance) => (of_packet.and(|| chance), false),
        }
    }

    fn ends(&self, anchor: &str, packet: &Packet, hook: &Hook<'_>) -> Truth {
        let when = &self.when;
        let translates = self.action.kind() != RuleKind::Filter;
        let ports = translates || packet.protocol.with_ports().is_some();
        let at = |side: &Side, source: bool| {
            let end = if source { packet.from } else { packet.to };
            let fits = !ports || side.ports.is_none_or(|ports| ports.holds(end.port()));
            let from = source.then_some(hook.on);
            Truth::of(fits).and(|| side.address.holds_in(anchor, end.ip(), side.not, from, hook.lookup))
        };
        match &self.action {
            // its own addresses are what the packet goes to, by their other name
            Action::Translate { kind: RuleKind::Binat, pool, .. } if hook.direction == Direction::In => {
                let to_source = Side { ports: when.to.ports, ..when.to.clone() };
                let outside = pool.as_ref().and_then(|pool| pool.addresses.first()?.address.as_ref());
                let of_outside = |operand: &Operand| {
                    let end = packet.to.ip();
                    operand.holds_in(anchor, end, false, None, hook.lookup)
                };
                at(&to_source, true).and(|| outside.map_or(Truth::Yes, of_outside))
            }
            _ => at(&when.from, true).and(|| at(&when.to, false)),
        }
    }
}

fn is_on(on: &On, interface: Interface, lookup: &Lookup) -> bool {
    lookup.is_in(interface, &on.name) != on.not
}

/// What the host itself sends was received on no interface (pf_match_rcvif).
fn is_received_on(on: &On, packet: &Packet, lookup: &Lookup) -> bool {
    packet.received_on.is_some_and(|interface| lookup.is_in(interface, &on.name)) != on.not
}

impl Conditions {
    /// `user` and `group`: whose socket has the packet (pf_socket_lookup).
    fn owners(&self, packet: &Packet, hook: &Hook<'_>) -> Truth {
        let owned = |word: &str, owner: &Owner| {
            let Some(protocol) = packet.protocol.with_ports() else { return Truth::Yes };
            let local = if hook.direction == Direction::In { packet.to } else { packet.from };
            let socket = if protocol == Protocol::Sctp { Some(false) } else { hook.lookup.socket(protocol, local) };
            match (owner, socket) {
                // where there is none its owner is unknown, which equals nothing else
                (Owner::Unknown { not }, Some(there)) => Truth::of(there == *not),
                (Owner::Number(Compared { operator, .. }) | Owner::Named { operator, .. }, Some(false)) => {
                    Truth::of(*operator == Operator::NotEqual)
                }
                _ => Truth::Maybe(format!("the {word} of the socket {protocol} {local}")),
            }
        };
        let user = self.user.as_ref().map_or(Truth::Yes, |owner| owned("user", owner));
        user.and(|| self.group.as_ref().map_or(Truth::Yes, |owner| owned("group", owner)))
    }

    /// What the question does not say of the packet.
    fn properties(&self, packet: &Packet) -> Truth {
        let tos = self.tos.map(|tos| format!("whether the packet's tos is 0x{tos:02x}"));
        let prio = self.prio.map(|prio| format!("whether the frame's priority is {prio}"));
        let tcp = packet.protocol.with_ports() == Some(Protocol::Tcp);
        let os = match &self.os {
            // only what starts a connection shows it
            Some(_) if !tcp || packet.flags != 0x02 => return Truth::No,
            Some(os) => Some(format!("whether the sender's operating system is {os}")),
            None => None,
        };
        let maybe = |why: Option<String>| why.map_or(Truth::Yes, Truth::Maybe);
        maybe(tos).and(|| maybe(prio)).and(|| maybe(os))
    }

    /// What is another answer for each packet, or is not understood.
    fn chance(&self) -> Truth {
        let probability = self.probability.as_ref().map(|p| format!("probability {p}"));
        let unknown = self.unknown.as_ref().map(|unknown| format!("{unknown} is not known to kport"));
        let maybe = |why: Option<String>| why.map_or(Truth::Yes, Truth::Maybe);
        maybe(probability).and(|| maybe(unknown))
    }
}

impl IpProtocol {
    /// Whether pf translates its ports, or its id (pf_get_sport in pf_lb.c).
    pub(super) fn has_translated_ports(self) -> bool {
        matches!(self.with_ports(), Some(Protocol::Tcp | Protocol::Udp))
    }
}
