//! The path of a packet through the host: ip_input(9), ip_output(9), loopback, bridges, and its receiver.

use std::net::SocketAddr;

use super::matching::is_loopback;
use super::packet::{IpProtocol, Packet, Party};
use super::steps::{Delivered, Run, Trace, TraceStep, Verdict, all_runs};
use super::walk::After;
use super::world::{Attachment, World};
use crate::host::Router;
use crate::net::{Direction, Family, Interface, Protocol};

/// How often pf routes a packet before it drops it (pf_route in sys/netpfil/pf/pf.c).
const ROUTED: usize = 3;

/// The receiver of a packet, and the packet as it arrives; `None` if it is lost on its path.
type Way = Option<(Party, Packet)>;

impl Run {
    fn lost(&mut self, why: &str) -> Way {
        self.note(why);
        None
    }

    fn delivered(&mut self, party: Party, packet: Packet) -> Way {
        self.steps.push(TraceStep::Delivered(party.clone(), packet.to));
        Some((party, packet))
    }
}

impl World {
    /// Sends a connection's first packet, the answer, and the next packet of the sender. Their states stay.
    pub fn trace(
        &mut self, sender: &Party, protocol: impl Into<IpProtocol>, from: SocketAddr, to: SocketAddr,
    ) -> Trace {
        self.trace_packet(sender, &Packet::first(protocol, from, to))
    }

    pub fn trace_packet(&mut self, sender: &Party, first: &Packet) -> Trace {
        let before = self.pf.states.clone();
        let mut after = None;
        let jails = self.jails.iter().flat_map(|jail| &jail.addresses);
        let own = self.lookup.interfaces.iter().flat_map(|interface| &interface.addresses);
        self.lookup.known = jails.chain(own).map(|network| network.addr()).collect();
        let trace = all_runs(|run| {
            self.pf.states.clone_from(&before);
            let end = self.connection(sender, first, run);
            after.get_or_insert_with(|| self.pf.states.clone());
            end
        });
        self.pf.states = after.unwrap_or(before);
        trace
    }

    fn connection(&mut self, sender: &Party, first: &Packet, run: &mut Run) -> (Verdict, Delivered) {
        self.lookup.clients = if self.is_on_stack(sender) { vec![first.from] } else { vec![] };
        let Some((party, got)) = self.send(sender, first.clone(), run) else { return (Verdict::Lost, None) };
        // what the answer costs does not count
        let looked = run.looked;
        let verdict = self.answered(sender, first, &party, &got, run);
        run.looked = looked;
        (verdict, Some((party, got.to)))
    }

    fn answered(&mut self, sender: &Party, first: &Packet, party: &Party, got: &Packet, run: &mut Run) -> Verdict {
        let Some(answer) = got.answer() else { return Verdict::Delivered };
        if let Some(protocol) = got.protocol.with_ports()
            && self.is_on_stack(party)
            && self.lookup.socket(protocol, got.to) == Some(false)
        {
            let refusal = match protocol {
                Protocol::Tcp => Packet { flags: 0x14, ..answer },
                Protocol::Udp | Protocol::Sctp => Packet::unreachable(got),
            };
            run.note("nothing listens there");
            self.send(party, refusal, run);
            return Verdict::Refused;
        }
        if !self.answers(party, answer, sender, first, run) {
            return Verdict::Unanswered;
        }
        if first.icmp.is_some() {
            return Verdict::Answered;
        }
        // the next packet matches a state, or is lost; it is only shown if it is lost
        let shown = run.steps.len();
        match self.send(sender, first.next(), run) {
            Some((who, next)) if (&who, next.from, next.to) == (party, got.from, got.to) => {
                run.steps.truncate(shown);
                Verdict::Answered
            }
            _ => Verdict::Unanswered,
        }
    }

    fn is_on_stack(&self, party: &Party) -> bool {
        match party {
            Party::Host => true,
            Party::Jail(name) => self.jails.iter().any(|jail| jail.name == *name && jail.behind.is_none()),
            Party::Network(_) => false,
        }
    }

    /// Whether the answer to what `party` received arrives at `sender`, from the address that `sender` used.
    fn answers(&mut self, party: &Party, answer: Packet, sender: &Party, sent: &Packet, run: &mut Run) -> bool {
        let Some((back, answer)) = self.send(party, answer, run) else { return false };
        if (answer.from, answer.to) != (sent.to, sent.from) {
            run.note(format!("not the answer that {sender} waits for"));
            return false;
        }
        match (&back, sender) {
            (Party::Network(out), Party::Network(came)) if out != came => {
                // a network remembers its connections, and drops the answer to what it has not seen
                run.note(format!("the answer leaves by {out}; the packet came in on {came}"));
                false
            }
            _ => back == *sender,
        }
    }

    fn send(&mut self, sender: &Party, mut packet: Packet, run: &mut Run) -> Way {
        run.steps.push(TraceStep::Sent(sender.clone(), packet.clone()));
        run.routed = 0;
        let jail = match sender {
            Party::Host => return self.originate(sender, packet, run),
            Party::Network(interface) => {
                let is_there = |jail: &Attachment| jail.behind == Some(*interface) && jail.has(packet.to.ip());
                if self.jails.iter().any(is_there) {
                    run.note(format!("over {interface}, not through the host"));
                    return self.neighbour(packet, *interface, run);
                }
                return self.arrive(packet, *interface, run);
            }
            Party::Jail(name) => {
                let mut sides = self.jails.iter().filter(|jail| jail.name == *name);
                if sides.clone().any(|jail| jail.behind.is_some() && jail.has(packet.to.ip())) {
                    return run.delivered(sender.clone(), packet);
                }
                sides.clone().find(|jail| jail.has(packet.from.ip())).or_else(|| sides.next()).cloned()
            }
        };
        let Some(jail) = jail else { return run.lost("there is no such jail") };
        let Some(behind) = jail.behind else { return self.originate(sender, packet, run) };
        // the destination of the frame stays, whatever pf makes of the packet in it
        let on_link = jail.addresses.iter().any(|own| own.contains(&packet.to.ip()));
        let past = on_link && !self.is_own(packet.to.ip());
        if let Some(member) = jail.member.filter(|_| self.pfil_member) {
            let after = self.hook(packet, Direction::In, member, run);
            let After::Goes(passed) = after else { return self.elsewhere(after, run) };
            packet = passed;
        }
        if past {
            run.note(format!("over {behind}, not through the host"));
            return self.neighbour(packet, behind, run);
        }
        if !on_link && let Some(way) = self.by_its_router(&packet, &jail, behind, run) {
            return way;
        }
        self.arrive(packet, behind, run)
    }

    /// The way of a packet that a jail sends to the router of its default route; `None` if that is the host.
    fn by_its_router(&self, packet: &Packet, jail: &Attachment, behind: Interface, run: &mut Run) -> Option<Way> {
        let name = &jail.name;
        let route = format!("the default route of jail {name}");
        match self.routers.get(name).map(|routers| *routers.of(packet.family())).unwrap_or_default() {
            Router::Missing => return Some(run.lost(&format!("jail {name} has no default route"))),
            Router::At(router) if self.is_own(router) => return None,
            Router::At(router) => match self.jails.iter().find(|other| other.has(router)) {
                Some(other) => {
                    run.gave_up = Some(format!("what jail {}, the router of jail {name}, sends on", other.name));
                    return Some(run.lost("sent to another jail"));
                }
                None => run.note(format!("over {behind} to the router {router}, not through the host")),
            },
            Router::Unknown if !self.is_outer(jail) => return None,
            Router::Unknown if run.assume(&route, 2) == 0 => {
                run.note(format!("assumed: {route} is the host"));
                return None;
            }
            Router::Unknown => run.note(format!("assumed: {route} is another router")),
        }
        Some(run.delivered(Party::Network(behind), packet.clone()))
    }

    /// Sends a packet of the host, or of a jail on its stack.
    fn originate(&mut self, sender: &Party, packet: Packet, run: &mut Run) -> Way {
        let packet = Packet { received_on: None, fib: self.fib_of(sender), ..packet };
        if !self.is_own(packet.to.ip()) {
            return self.leave(packet, run);
        }
        // the host reaches its own addresses over lo0, those of another loopback interface over that one
        let Some(interface) = self.loopback(packet.to.ip()) else { return run.lost("the host has no lo0") };
        match self.hook(packet, Direction::Out, interface, run) {
            // tags are removed in the loop (m_tag_delete_nonpersistent in sys/net/if_loop.c)
            After::Goes(packet) => self.arrive(Packet { tag: None, ..packet }, interface, run),
            other => self.elsewhere(other, run),
        }
    }

    /// ip_input(9): a packet comes in on an interface.
    fn arrive(&mut self, packet: Packet, on: Interface, run: &mut Run) -> Way {
        if !is_loopback(on) && (packet.from.ip().is_loopback() || packet.to.ip().is_loopback()) {
            return run.lost("a loopback address does not come from a network");
        }
        let fib = self.lookup.interfaces.iter().find(|known| known.name == on).map_or(0, |known| known.fib);
        let packet = Packet { received_on: Some(on), fib, ..packet };
        let after = self.hook(packet, Direction::In, on, run);
        let After::Goes(packet) = after else { return self.elsewhere(after, run) };
        if self.is_own(packet.to.ip()) {
            return self.deliver(packet, run);
        }
        if !self.forwarding.of(packet.family()) {
            return run.lost("the host does not forward");
        }
        // ip6_forward checks the scope of the source before pf could translate it; ip_output checks after pf
        if packet.family() == Family::Inet6 && packet.from.ip().is_loopback() {
            return run.lost("::1 is not forwarded");
        }
        self.leave(packet, run)
    }

    /// Delivers to a socket of the host or of a jail on its stack.
    fn deliver(&mut self, mut packet: Packet, run: &mut Run) -> Way {
        if self.filter_local {
            let Some(lo0) = self.lo0() else { return run.lost("the host has no lo0") };
            let after = self.hook(packet, Direction::Out, lo0, run);
            let After::Goes(passed) = after else { return self.elsewhere(after, run) };
            packet = passed;
        }
        let address = packet.to.ip();
        let jail = self.jails.iter().find(|jail| jail.behind.is_none() && jail.has(address));
        let party = jail.map_or(Party::Host, |jail| Party::Jail(jail.name.clone()));
        run.delivered(party, packet)
    }

    /// ip_output(9): sends a packet out by the interface that leads to its destination.
    fn leave(&mut self, packet: Packet, run: &mut Run) -> Way {
        let fib = packet.fib;
        if !self.lookup.knows_fib(fib) {
            run.gave_up = Some(format!("the routes of FIB {fib} are unknown"));
        }
        let Some(out) = self.lookup.route_of_fib(fib, packet.to.ip()) else {
            let table = if fib == 0 { String::new() } else { format!(" in FIB {fib}") };
            return run.lost(&format!("no route{table}"));
        };
        let meant = packet.to.ip();
        let after = self.hook(packet, Direction::Out, out, run);
        let After::Goes(packet) = after else { return self.elsewhere(after, run) };
        if packet.from.ip().is_loopback() {
            return run.lost("a loopback address does not go to a network");
        }
        if packet.to.ip() != meant && self.lookup.route_of_fib(fib, packet.to.ip()) != Some(out) {
            return run.lost("translated on the way out to an address behind another interface");
        }
        self.neighbour(packet, out, run)
    }

    /// Continues with a packet that pf has taken over.
    fn elsewhere(&mut self, after: After, run: &mut Run) -> Way {
        match after {
            After::Dropped => None,
            After::Goes(packet) => self.leave(packet, run),
            After::Crossed(packet) => {
                // pf itself routes it, and does not evaluate it again (skip_test in pf_route)
                if self.is_own(packet.to.ip()) {
                    return self.deliver(packet, run);
                }
                match self.lookup.route_of_fib(packet.fib, packet.to.ip()) {
                    Some(out) => self.neighbour(packet, out, run),
                    None => run.lost("no route"),
                }
            }
            After::Sent { packet, on, tested } => {
                run.routed += 1;
                if run.routed > ROUTED {
                    return run.lost("sent elsewhere too often");
                }
                if is_loopback(on) {
                    run.gave_up = Some(format!("what becomes of a packet that is sent out by {on} is unknown"));
                    return run.lost("sent to loopback");
                }
                if !tested {
                    return self.neighbour(packet, on, run);
                }
                match self.hook(packet, Direction::Out, on, run) {
                    After::Goes(packet) => self.neighbour(packet, on, run),
                    other => self.elsewhere(other, run),
                }
            }
        }
    }

    /// The last hop, on a bridge or a wire.
    fn neighbour(&mut self, mut packet: Packet, on: Interface, run: &mut Run) -> Way {
        let jail = self.jails.iter().find(|jail| jail.behind == Some(on) && jail.has(packet.to.ip())).cloned();
        let Some(jail) = jail else {
            if let Some(tunnel) = TUNNELS.iter().find(|tunnel| on.as_str().starts_with(**tunnel)) {
                run.note(format!("wrapped by {tunnel}: what becomes of the outer packet is not followed"));
            }
            return run.delivered(Party::Network(on), packet);
        };
        if let Some(member) = jail.member.filter(|_| self.pfil_member) {
            let after = self.hook(packet, Direction::Out, member, run);
            let After::Goes(passed) = after else { return self.elsewhere(after, run) };
            packet = passed;
        }
        // a jail drops a packet from the wire with its own address as source
        if jail.has(packet.from.ip()) {
            return run.lost(&format!("jail {} gets a packet from its own address", jail.name));
        }
        if !jail.has(packet.to.ip()) {
            return run.lost("translated at the bridge member, after the last hop");
        }
        run.delivered(Party::Jail(jail.name), packet)
    }

    fn hook(&mut self, packet: Packet, direction: Direction, on: Interface, run: &mut Run) -> After {
        self.pf.test(packet, (direction, on), &self.lookup, run)
    }
}

/// Interfaces that wrap packets in others, by the names of their drivers.
const TUNNELS: [&str; 9] = ["enc", "gif", "gre", "wg", "tun", "ipsec", "ovpn", "ng", "vxlan"];
