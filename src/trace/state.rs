//! The rules and states of pf. Once passed, a connection passes again, both ways, and is translated as before.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::packet::{IpProtocol, Packet, Release};
use crate::net::{Direction, Interface};
use crate::pfconf::rule::{Keep, RouteKind, Rule};

#[derive(Clone, Debug, Default)]
pub struct Pf {
    pub enabled: bool,
    pub release: Release,
    /// By path, the main one's empty, in the order in which pf walks the children of a wildcard call.
    pub(super) rulesets: BTreeMap<String, Arc<[Rule]>>,
    pub(super) skip: Vec<String>,
    pub(super) syncookies: bool,
    /// `net.pf.default_to_drop` of 14 and later: the default rule, which decides about a packet that no rule matches, blocks.
    pub default_to_drop: bool,
    pub states: States,
    /// Which conditions that cannot be decided hold, by what they depend on; `None` if both possibilities are followed.
    pub supposed: Option<Vec<String>>,
}

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

/// What a state does with its packets, and the rule that created it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub keep: Keep,
    /// The anchor of the rule, empty for the main ruleset; its number among the filter or translation rules there; its text.
    pub anchor: String,
    pub number: usize,
    pub text: Arc<str>,
    /// `None` for a floating state.
    pub bound: Option<Interface>,
    /// Where the packets are sent, regardless of the routes.
    pub route: Option<(RouteKind, Interface)>,
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
    /// The source that started the connection, for the limits.
    source: IpAddr,
    kept: Kept,
}

#[derive(Clone, Debug)]
pub(super) struct FoundState {
    pub kept: Kept,
    /// The packet has the direction of the one that created the state.
    pub along: bool,
}

#[derive(Clone, Debug, Default)]
pub struct States(Vec<State>);

impl States {
    /// Finds the state of a packet, and translates the packet as the state does.
    pub(super) fn find(&self, packet: &mut Packet, direction: Direction, on: Interface) -> Option<FoundState> {
        if packet.about.is_some() {
            return self.find_error(packet, direction, on);
        }
        if let Some(state) = self.with_key(packet.protocol, Key::of(packet, direction), direction, on) {
            state.seen(other_way(direction)).apply(packet, direction);
            return Some(state.found(direction));
        }
        // those of af-to are found by the addresses of either family
        let ends = |p: &Packet, q: &Packet| p.protocol == q.protocol && (p.from, p.to) == (q.from, q.to);
        let back = |p: &Packet, q: &Packet| p.protocol == q.protocol && (p.from, p.to) == (q.to, q.from);
        let state = self.bound_first(on, |state| {
            state.crossed.as_ref().is_some_and(|pair| ends(packet, &pair.0) || back(packet, &pair.1))
        })?;
        let (before, after) = &**state.crossed.as_ref()?;
        let along = ends(packet, before);
        let flags = packet.flags;
        *packet = if along {
            Packet { flags, ..after.clone() }
        } else {
            // as the answer to the first packet
            let icmp = before.answer().and_then(|answer| answer.icmp);
            Packet { flags, from: before.to, to: before.from, icmp, ..before.clone() }
        };
        Some(FoundState { along, kept: state.kept.clone() })
    }

    /// The state of an ICMP error: that of its inner packet, which goes the other way (pf_test_state_icmp).
    fn find_error(&self, packet: &mut Packet, direction: Direction, on: Interface) -> Option<FoundState> {
        let inner = packet.about.as_deref()?.clone();
        let inner_way = other_way(direction);
        let state = self.with_key(inner.protocol, Key::of(&inner, inner_way), direction, on)?;
        let mut was = inner.clone();
        state.seen(inner_way).apply(&mut was, inner_way);
        packet.to.set_ip(was.from.ip());
        if packet.from.ip() == inner.to.ip() {
            packet.from.set_ip(was.to.ip());
        }
        packet.about = Some(Box::new(was));
        Some(state.found(direction))
    }

    fn with_key(&self, protocol: IpProtocol, key: Key, direction: Direction, on: Interface) -> Option<&State> {
        self.bound_first(on, |state| {
            state.crossed.is_none() && state.protocol == protocol && state.seen(direction) == key
        })
    }

    /// If-bound states come before floating ones (pf_find_state in pf.c).
    fn bound_first(&self, on: Interface, belongs: impl Fn(&State) -> bool) -> Option<&State> {
        let bound_to = |bound| self.0.iter().find(|state| state.kept.bound == bound && belongs(state));
        bound_to(Some(on)).or_else(|| bound_to(None))
    }

    /// Creates a state for a packet, given `before` and `after` translation. The error is the limit that was reached.
    pub(super) fn insert(
        &mut self, (before, after): (&Packet, &Packet), direction: Direction, kept: Kept,
    ) -> Result<(), &'static str> {
        let keep = &kept.keep;
        let crossed = before.family() != after.family();
        let source = if crossed { before.from.ip() } else { after.from.ip() };
        let of_rule = |s: &&State| s.kept.number == kept.number && s.kept.anchor == kept.anchor;
        let sources: Vec<IpAddr> = self.0.iter().filter(of_rule).map(|state| state.source).collect();
        let of_source = sources.iter().filter(|other| **other == source).count();
        let nodes = sources.iter().filter(|other| **other != source).collect::<HashSet<_>>().len();
        // of max-src-conn pf lets the handshake finish, and then kills the state: the same for the client
        let counts = keep.limits.into_iter().zip([sources.len(), of_source, of_source, nodes]);
        let reached = counts.map(|(limit, count)| limit > 0 && count >= limit as usize);
        if let Some((name, _)) = Keep::LIMITS.into_iter().zip(reached).find(|(_, reached)| *reached) {
            return Err(name);
        }
        let (outside, host) = if direction == Direction::In { (before, after) } else { (after, before) };
        self.0.push(State {
            protocol: before.protocol,
            wire: Key::of(outside, direction),
            stack: Key::of(host, direction),
            crossed: crossed.then(|| Box::new((before.clone(), after.clone()))),
            direction,
            source,
            kept,
        });
        Ok(())
    }

    /// The first port, or id, from `low` to `high` without a state of this source; before all others `kept`, the packet's own.
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
    /// The ends of a packet in this direction before pf translates it.
    fn seen(&self, direction: Direction) -> Key {
        if direction == Direction::In { self.wire } else { self.stack }
    }

    fn found(&self, direction: Direction) -> FoundState {
        FoundState { kept: self.kept.clone(), along: self.direction == direction }
    }
}

fn other_way(direction: Direction) -> Direction {
    if direction == Direction::In { Direction::Out } else { Direction::In }
}
