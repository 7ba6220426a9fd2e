//! pf's table of states: what was let through once is let through again, both ways, and translated as before.

use std::net::{IpAddr, SocketAddr};

use super::Packet;
use crate::net::{Interface, Protocol};
use crate::rule::{Direction, StateOptions};

/// The two ends of a connection. The first is the source of a packet that comes in, the destination of one that goes
/// out, so that both directions of a connection have the same key (pf_state_key_setup in sys/netpfil/pf/pf.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(SocketAddr, SocketAddr);

impl Key {
    fn of(packet: &Packet, direction: Direction) -> Key {
        match direction {
            Direction::In => Key(packet.from, packet.to),
            Direction::Out => Key(packet.to, packet.from),
        }
    }

    fn apply(self, packet: &mut Packet, direction: Direction) {
        (packet.from, packet.to) = match direction {
            Direction::In => (self.0, self.1),
            Direction::Out => (self.1, self.0),
        };
    }
}

/// Which rule made a state: the anchor, empty for the main ruleset, and the rule's number in it.
pub(super) type Origin = (String, usize);

#[derive(Clone, Debug)]
pub(super) struct State {
    protocol: Protocol,
    /// As the interface sees the packets, and as the host does.
    wire: Key,
    stack: Key,
    /// `None` for a floating state.
    bound: Option<Interface>,
    /// Who started the connection, for the limits.
    source: IpAddr,
    pub origin: Origin,
    /// The rule's text.
    pub rule: String,
}

/// Every state.
#[derive(Clone, Debug, Default)]
pub(super) struct States(Vec<State>);

impl States {
    /// The state that a packet belongs to; the packet is translated as the state says. If-bound states come before
    /// floating ones (pf_find_state in pf.c).
    pub(super) fn find(&self, packet: &mut Packet, direction: Direction, on: Interface) -> Option<&State> {
        let key = Key::of(packet, direction);
        let belongs = |state: &&State| {
            let own = if direction == Direction::In { state.wire } else { state.stack };
            state.protocol == packet.protocol && own == key
        };
        let mut all = self.0.iter().filter(belongs);
        let found =
            all.clone().find(|state| state.bound == Some(on)).or_else(|| all.find(|state| state.bound.is_none()))?;
        let other = if direction == Direction::In { found.stack } else { found.wire };
        other.apply(packet, direction);
        Some(found)
    }

    /// Makes a state for a packet that was `before` and is `after` translation. Refused with the limit that is reached.
    pub(super) fn insert(
        &mut self,
        (before, after): (&Packet, &Packet),
        direction: Direction,
        bound: Option<Interface>,
        (origin, rule): (Origin, String),
        limits: &StateOptions,
    ) -> Result<(), &'static str> {
        let source = after.from.ip();
        let of_rule = self.0.iter().filter(|state| state.origin == origin);
        let of_source = of_rule.clone().filter(|state| state.source == source).count();
        let reached =
            |limit: Option<std::num::NonZeroU32>, count: usize| limit.is_some_and(|n| count >= n.get() as usize);
        if reached(limits.max, of_rule.count()) {
            return Err("max");
        }
        if reached(limits.max_src_states, of_source) {
            return Err("max-src-states");
        }
        // pf lets the handshake finish and then kills the state: to the client the same
        if reached(limits.max_src_conn, of_source) {
            return Err("max-src-conn");
        }
        let (outer, inner) = if direction == Direction::In { (before, after) } else { (after, before) };
        self.0.push(State {
            protocol: before.protocol,
            wire: Key::of(outer, direction),
            stack: Key::of(inner, direction),
            bound,
            source,
            origin,
            rule,
        });
        Ok(())
    }

    /// A source port for address translation that no state has: pf takes one of 50001 to 65535 at random.
    pub(super) fn free_port(&self, packet: &Packet, address: IpAddr) -> Option<u16> {
        let taken = |port: u16| {
            let ours = SocketAddr::new(address, port);
            self.0.iter().any(|s| s.protocol == packet.protocol && (s.wire == Key(packet.to, ours)))
        };
        (50001..=65535).find(|port| !taken(*port))
    }
}
