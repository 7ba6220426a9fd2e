//! Whether a rule matches a packet at an interface: yes, no, or undecided (pf_match_rule in sys/netpfil/pf/pf.c).

use super::lookup::{Lookup, Truth};
use super::packet::{Packet, SYN};
use super::state::States;
use crate::net::{Direction, Interface, Protocol};
use crate::pfconf::address::{Compared, Operator, Side};
use crate::pfconf::rule::{Action, Conditions, Owner, Rule, RuleKind};

/// Where pf evaluates a packet.
#[derive(Clone, Copy)]
pub(super) struct Hook<'a> {
    pub direction: Direction,
    pub on: Interface,
    pub lookup: &'a Lookup,
    pub states: &'a States,
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
            match (owner, socket) {
                // without a socket the owner is unknown, which equals nothing else
                (Owner::Unknown { not }, Some(there)) => Truth::of(there == *not),
                (Owner::Number(Compared { operator, .. }) | Owner::Named { operator, .. }, Some(false)) => {
                    Truth::of(*operator == Operator::NotEqual)
                }
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
