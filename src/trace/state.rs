//! pf's table of states: once passed, a connection passes again, both ways, and is translated as before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::packet::{IpProtocol, Packet};
use crate::net::Direction;
use crate::net::Interface;
use crate::pfconf::rule::{Keep, RouteKind};

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

/// The rule that created a state: its anchor, empty for the main ruleset, its number among the filter or translation
/// rules there, and its text.
#[derive(Clone, Debug)]
pub(super) struct Maker {
    pub anchor: String,
    pub number: usize,
    pub text: Arc<str>,
}

/// Where the packets of a state are sent, regardless of the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub kind: RouteKind,
    pub on: Interface,
}

/// What else a state does.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub route: Option<Route>,
    pub tag: Option<String>,
    pub rtable: Option<u32>,
}

#[derive(Clone, Debug)]
struct State {
    protocol: IpProtocol,
    /// As the interface sees the packets, and as the host does.
    wire: Key,
    stack: Key,
    /// The first packet before and after `af-to`, which crosses families.
    crossed: Option<Box<(Packet, Packet)>>,
    direction: Direction,
    /// `None` for a floating state.
    bound: Option<Interface>,
    /// The source that started the connection, for the limits.
    source: IpAddr,
    maker: Maker,
    kept: Kept,
}

/// A state that a packet belongs to.
#[derive(Clone, Debug)]
pub(super) struct FoundState {
    pub maker: Maker,
    pub kept: Kept,
    /// The packet has the direction of the one that created the state.
    pub along: bool,
    /// The packet was translated to the other family.
    pub crossed: bool,
}

/// Every state.
#[derive(Clone, Debug, Default)]
pub(super) struct States(Vec<State>);

impl States {
    /// Finds the state of a packet, and translates the packet as the state does. If-bound states come before floating
    /// ones (pf_find_state in pf.c).
    pub(super) fn find(&self, packet: &mut Packet, direction: Direction, on: Interface) -> Option<FoundState> {
        let key = Key::of(packet, direction);
        let belongs = |state: &&State| {
            let own = if direction == Direction::In { state.wire } else { state.stack };
            state.crossed.is_none() && state.protocol == packet.protocol && own == key
        };
        if let Some(state) = self.bound_first(on, belongs) {
            let other = if direction == Direction::In { state.stack } else { state.wire };
            other.apply(packet, direction);
            return Some(state.found(direction));
        }
        // those of af-to are found by the addresses of either family
        let ends = |p: &Packet, q: &Packet| p.protocol == q.protocol && (p.from, p.to) == (q.from, q.to);
        let back = |p: &Packet, q: &Packet| p.protocol == q.protocol && (p.from, p.to) == (q.to, q.from);
        let crossed =
            |state: &&State| state.crossed.as_ref().is_some_and(|pair| ends(packet, &pair.0) || back(packet, &pair.1));
        let state = self.bound_first(on, crossed)?;
        let (before, after) = &**state.crossed.as_ref()?;
        let mut found = state.found(direction);
        found.crossed = true;
        found.along = ends(packet, before);
        let flags = packet.flags;
        *packet = if found.along {
            after.clone()
        } else {
            // as the answer to the first packet
            Packet {
                from: before.to,
                to: before.from,
                icmp: before.answer().and_then(|answer| answer.icmp),
                ..before.clone()
            }
        };
        packet.flags = flags;
        Some(found)
    }

    fn bound_first(&self, on: Interface, belongs: impl Fn(&&State) -> bool) -> Option<&State> {
        let mut floating = None;
        for state in self.0.iter().filter(belongs) {
            if state.bound == Some(on) {
                return Some(state);
            }
            if state.bound.is_none() && floating.is_none() {
                floating = Some(state);
            }
        }
        floating
    }

    /// The state that an ICMP error is about: its inner packet goes the other way (pf_test_state_icmp). The error is translated as
    /// that packet was.
    pub(super) fn find_error(&self, packet: &mut Packet, direction: Direction, on: Interface) -> Option<FoundState> {
        let inner = packet.about.as_deref()?.clone();
        let other_way = if direction == Direction::In { Direction::Out } else { Direction::In };
        let key = Key::of(&inner, other_way);
        let belongs = |state: &&State| {
            let own = if direction == Direction::In { state.wire } else { state.stack };
            state.crossed.is_none() && state.protocol == inner.protocol && own == key
        };
        let state = self.bound_first(on, belongs)?;
        let mut was = inner.clone();
        let other = if direction == Direction::In { state.stack } else { state.wire };
        other.apply(&mut was, other_way);
        packet.to.set_ip(was.from.ip());
        if packet.from.ip() == inner.to.ip() {
            packet.from.set_ip(was.to.ip());
        }
        packet.about = Some(Box::new(was));
        Some(state.found(direction))
    }

    /// Creates a state for a packet, given `before` and `after` translation. The error is the limit that was reached.
    pub(super) fn insert(
        &mut self,
        (before, after): (&Packet, &Packet),
        direction: Direction,
        bound: Option<Interface>,
        maker: Maker,
        keep: &Keep,
        kept: Kept,
    ) -> Result<(), &'static str> {
        let crossed = before.family() != after.family();
        let source = if crossed { before.from.ip() } else { after.from.ip() };
        if keep.is_limited() {
            let of_rule = self.0.iter().filter(|s| s.maker.number == maker.number && s.maker.anchor == maker.anchor);
            let (mut all, mut of_source) = (0, 0);
            let mut sources = std::collections::HashSet::new();
            for state in of_rule {
                all += 1;
                of_source += u32::from(state.source == source);
                sources.insert(state.source);
            }
            sources.remove(&source);
            let nodes = u32::try_from(sources.len()).unwrap_or(u32::MAX);
            let reached = |limit: u32, count: u32| limit > 0 && count >= limit;
            if reached(keep.max, all) {
                return Err("max");
            }
            if reached(keep.max_src_nodes, nodes) {
                return Err("max-src-nodes");
            }
            if reached(keep.max_src_states, of_source) {
                return Err("max-src-states");
            }
            // pf lets the handshake finish, and then kills the state: the same for the client
            if reached(keep.max_src_conn, of_source) {
                return Err("max-src-conn");
            }
        }
        let (outside, host) = if direction == Direction::In { (before, after) } else { (after, before) };
        self.0.push(State {
            protocol: before.protocol,
            wire: Key::of(outside, direction),
            stack: Key::of(host, direction),
            crossed: crossed.then(|| Box::new((before.clone(), after.clone()))),
            direction,
            bound,
            source,
            maker,
            kept,
        });
        Ok(())
    }

    /// The first port, or id, from `low` to `high` without a state of this source; pf starts anywhere. `kept` is the
    /// port of the packet, which is tried first if it is in the range.
    pub(super) fn free_port(&self, packet: &Packet, address: IpAddr, low: u16, high: u16, kept: u16) -> Option<u16> {
        let taken = |port: u16| {
            let ours = SocketAddr::new(address, port);
            self.0.iter().any(|s| s.protocol == packet.protocol && (s.wire == Key(packet.to, ours)))
        };
        let first = Some(kept).filter(|port| (low..=high).contains(port) && *port > 0);
        first.into_iter().chain(low..=high).find(|port| !taken(*port))
    }
}

impl State {
    fn found(&self, direction: Direction) -> FoundState {
        FoundState {
            maker: self.maker.clone(),
            kept: self.kept.clone(),
            along: self.direction == direction,
            crossed: false,
        }
    }
}
