//! The host around pf: who is where, and which interfaces a packet passes.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::lookup::Lookup;
use super::pf::Pf;
use super::rule::{Action, Rule};
use super::state::States;
use super::{Conf, Packet, Party, Release, Trace, TraceStep, Verdict};
use crate::error::{Error, Kind, Result};
use crate::host::{Host, HostInterface, Interfaces};
use crate::net::{Family, Interface, PerFamily, Protocol};
use crate::pf::Firewall;
use crate::rule::{self, Direction};

/// Where a jail is on the network: one for each interface of the host behind which it has addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// The host's interface at which the jail's packets are seen: its bridge, or the host's end of its epair. `None`
    /// for a jail that uses the host's stack; its addresses are the host's then.
    pub behind: Option<Interface>,
    /// The host's end of its epair, where that is a member of the bridge.
    pub member: Option<Interface>,
    /// Its addresses, each with its network.
    pub addresses: Vec<IpNet>,
}

impl Attachment {
    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }
}

/// A host with pf, its jails, and what is around it.
#[derive(Clone, Debug)]
pub struct World {
    lookup: Lookup,
    pf: Pf,
    /// The jails.
    pub jails: Vec<Attachment>,
    /// The interface of the default route, IPv4 and IPv6.
    pub gateway: PerFamily<Option<Interface>>,
    /// `net.inet.ip.forwarding`, `net.inet6.ip6.forwarding`
    pub forwarding: PerFamily<bool>,
    /// `net.pf.filter_local`, as it was when pf was enabled.
    pub filter_local: bool,
    /// `net.link.bridge.pfil_member`
    pub pfil_member: bool,
}

/// What becomes of a packet on its way.
enum Way {
    Delivered(Party, Packet),
    Lost,
}

impl World {
    /// A host with these interfaces that forwards, with pf enabled and an empty main ruleset.
    pub fn new(release: Release, interfaces: Vec<HostInterface>) -> World {
        World {
            lookup: Lookup { interfaces, ..Lookup::default() },
            pf: Pf {
                enabled: true,
                release,
                main: Conf::default(),
                anchors: std::collections::BTreeMap::new(),
                states: States::default(),
            },
            jails: vec![],
            gateway: PerFamily::default(),
            forwarding: PerFamily { inet: true, inet6: true },
            filter_local: false,
            pfil_member: false,
        }
    }

    /// The host that is asked: its interfaces, jails, default routes and sysctls, with pf enabled and no rules yet. A
    /// jail on several networks is there once for each. Which member of a bridge is whose is not known, so that what
    /// pf does at members is left out.
    pub fn of_host(host: &dyn Host, release: Release) -> Result<World> {
        let mut world = World::new(release, host.interfaces()?);
        for family in Family::ALL {
            *world.gateway.of_mut(family) = host.gateway(family)?;
            let sysctl = match family {
                Family::Inet => "net.inet.ip.forwarding",
                Family::Inet6 => "net.inet6.ip6.forwarding",
            };
            *world.forwarding.of_mut(family) = host.sysctl(sysctl)?.is_none_or(|value| value != 0);
        }
        world.filter_local = host.sysctl("net.pf.filter_local")?.is_some_and(|value| value != 0);
        for jail in host.jails()?.jails.iter().filter(|jail| !jail.dying) {
            let addresses = if jail.vnet { host.vnet_addresses(jail)? } else { jail.addresses.clone() };
            for address in addresses {
                world.add_address(&jail.name, address, jail.vnet);
            }
        }
        Ok(world)
    }

    /// The host that is asked, with the rules and tables that pf has now. What the simulator does not read in them is an
    /// error of [`Kind::Unsupported`] that shows the line.
    pub fn of_pf(host: &dyn Host, firewall: &dyn Firewall, release: Release) -> Result<World> {
        let mut world = World::of_host(host, release)?;
        world.enable(firewall.status()?.enabled);
        for (path, text) in firewall.rulesets()? {
            if path.is_empty() {
                world.load_main(&text).map_err(|error| error.context("main ruleset"))?;
            } else {
                world.load_text(&path, &text).map_err(|error| error.context(format_args!("anchor {path}")))?;
            }
        }
        Ok(world)
    }

    fn add_address(&mut self, name: &str, address: IpAddr, vnet: bool) {
        let connected = Interfaces(&self.lookup.interfaces).connected(address).filter(|_| vnet);
        let behind = connected.map(|(interface, _)| interface);
        let host = IpNet::from(address);
        let Ok(network) = IpNet::new(address, connected.map_or(host.prefix_len(), |(_, on)| on.prefix_len())) else {
            return;
        };
        // a network that the host is not on: the jail cannot be told from what is behind the gateway
        if vnet && behind.is_none() {
            return;
        }
        match self.jails.iter_mut().find(|jail| jail.name == name && jail.behind == behind) {
            Some(jail) => jail.addresses.push(network),
            None => {
                self.jails.push(Attachment { name: name.to_owned(), behind, member: None, addresses: vec![network] })
            }
        }
    }

    /// Loads the main ruleset: pf.conf(5) text. States stay.
    pub fn load_main(&mut self, text: &str) -> Result<()> {
        let ruleset: Conf = text.parse()?;
        self.lookup.tables.clone_from(&ruleset.tables);
        self.pf.main = ruleset;
        Ok(())
    }

    /// Loads kport's rules into the anchor `path`, as all that it has.
    pub fn load(&mut self, path: &str, rules: &[rule::Rule]) {
        self.replace(path, rules.iter().flat_map(Rule::of).collect());
    }

    /// Loads pf.conf(5) text into the anchor `path`, as all that it has. Anchors are called by the main ruleset only.
    pub fn load_text(&mut self, path: &str, text: &str) -> Result<()> {
        let ruleset: Conf = text.parse()?;
        if let Some(call) = ruleset.rules.iter().find(|rule| matches!(rule.action, Action::Call(..))) {
            let why = format!("anchor {path} calls another, which the simulator does not follow: {}", call.text);
            return Err(Error::new(Kind::Unsupported, why));
        }
        self.replace(path, ruleset.rules);
        Ok(())
    }

    fn replace(&mut self, path: &str, rules: Vec<Rule>) {
        if rules.is_empty() {
            self.pf.anchors.remove(path);
        } else {
            self.pf.anchors.insert(path.to_owned(), rules);
        }
    }

    /// `pfctl -e`, `pfctl -d`
    pub fn enable(&mut self, enabled: bool) {
        self.pf.enabled = enabled;
    }

    /// The interfaces, to change them as ifconfig(8) would.
    pub fn interfaces(&mut self) -> &mut Vec<HostInterface> {
        &mut self.lookup.interfaces
    }

    /// Who has `address`: the host, a jail, or somebody behind the interface that leads there.
    pub fn party(&self, address: IpAddr) -> Result<Party> {
        if let Some(jail) = self.jails.iter().find(|jail| jail.has(address)) {
            return Ok(Party::Jail(jail.name.clone()));
        }
        if self.is_own(address) || address.is_loopback() {
            return Ok(Party::Host);
        }
        self.route(address).map(Party::Network).ok_or_else(|| {
            Error::new(Kind::Unavailable, format!("no route leads to {address}; say where it comes from with --on"))
        })
    }

    /// Who sends a packet with this source that comes in on `on`: a jail that is behind that interface, or anybody
    /// else there. Without an interface, whoever has the address.
    pub fn sender(&self, source: IpAddr, on: Option<Interface>) -> Result<Party> {
        let Some(on) = on else { return self.party(source) };
        if !self.lookup.interfaces.iter().any(|interface| interface.name == on) {
            return Err(Error::new(Kind::Argument, format!("the host has no interface {on}")));
        }
        let behind = |jail: &&Attachment| jail.has(source) && (jail.behind == Some(on) || jail.member == Some(on));
        Ok(self.jails.iter().find(behind).map_or(Party::Network(on), |jail| Party::Jail(jail.name.clone())))
    }

    /// The way of a connection's first packet, of the answer, and of the packet after it. States that it makes stay.
    pub fn trace(&mut self, sender: &Party, protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Trace {
        let mut steps = vec![];
        let first = Packet { protocol, from, to, starts: true, tag: None };
        let (verdict, delivered_to) = match self.send(sender, first.clone(), &mut steps) {
            Way::Lost => (Verdict::Lost, None),
            Way::Delivered(party, got) => {
                let at = (party.clone(), got.to);
                let mut answered = self.answers(&party, &got, sender, &first, &mut steps);
                if answered {
                    // the next packet belongs to the states, or is lost; it is shown only then
                    let mut more = vec![];
                    let next = Packet { starts: false, ..first };
                    answered = match self.send(sender, next, &mut more) {
                        Way::Delivered(who, next) => (who, next.from, next.to) == (party, got.from, got.to),
                        Way::Lost => false,
                    };
                    if !answered {
                        steps.append(&mut more);
                    }
                }
                (if answered { Verdict::Answered } else { Verdict::Unanswered }, Some(at))
            }
        };
        Trace { steps, verdict, delivered_to }
    }

    /// Whether the answer to what `party` got comes back to `sender` as the answer to what was sent.
    fn answers(
        &mut self,
        party: &Party,
        got: &Packet,
        sender: &Party,
        sent: &Packet,
        steps: &mut Vec<TraceStep>,
    ) -> bool {
        let Way::Delivered(back, answer) = self.send(party, got.answer(), steps) else { return false };
        if (answer.from, answer.to) != (sent.to, sent.from) {
            steps.push(TraceStep::Note(format!("not the answer that {sender} waits for")));
            return false;
        }
        match (&back, sender) {
            (Party::Network(out), Party::Network(came)) if out != came => {
                // whether it gets there is up to the networks around the host
                steps.push(TraceStep::Note(format!("the answer leaves by {out}; the packet came in on {came}")));
                true
            }
            _ => back == *sender,
        }
    }

    fn send(&mut self, sender: &Party, packet: Packet, steps: &mut Vec<TraceStep>) -> Way {
        steps.push(TraceStep::Sent(sender.clone(), packet.clone()));
        let jail = match sender {
            Party::Host => return self.originate(packet, steps),
            Party::Network(interface) => return self.arrive(packet, *interface, steps),
            Party::Jail(name) => {
                let mut sides = self.jails.iter().filter(|jail| jail.name == *name);
                if sides.clone().any(|jail| jail.behind.is_some() && jail.has(packet.to.ip())) {
                    return delivered(sender.clone(), packet, steps);
                }
                sides.clone().find(|jail| jail.has(packet.from.ip())).or_else(|| sides.next()).cloned()
            }
        };
        let Some(jail) = jail else { return lost(steps, "there is no such jail") };
        let Some(behind) = jail.behind else { return self.originate(packet, steps) };
        let mut packet = packet;
        // the frame goes where it was addressed to, whatever pf makes of the packet in it
        let on_link = jail.addresses.iter().any(|own| own.contains(&packet.to.ip()));
        let past = on_link && !self.is_own(packet.to.ip());
        if self.pfil_member
            && let Some(member) = jail.member
            && !self.hook(&mut packet, Direction::In, member, steps)
        {
            return Way::Lost;
        }
        if past {
            steps.push(TraceStep::Note(format!("over {behind}, past the host")));
            return self.neighbour(packet, behind, steps);
        }
        self.arrive(packet, behind, steps)
    }

    /// What the host, or a jail on its stack, sends.
    fn originate(&mut self, mut packet: Packet, steps: &mut Vec<TraceStep>) -> Way {
        if !self.is_own(packet.to.ip()) {
            return self.leave(packet, steps);
        }
        // the host reaches its own addresses over lo0, those of another loopback interface over that one
        let Some(interface) = self.loopback(packet.to.ip()) else { return lost(steps, "the host has no lo0") };
        if !self.hook(&mut packet, Direction::Out, interface, steps) {
            return Way::Lost;
        }
        // tags do not outlive the loop (m_tag_delete_nonpersistent in sys/net/if_loop.c)
        packet.tag = None;
        self.arrive(packet, interface, steps)
    }

    /// ip_input(9): what comes in on an interface.
    fn arrive(&mut self, mut packet: Packet, on: Interface, steps: &mut Vec<TraceStep>) -> Way {
        let over_loopback = self.is_loopback(on);
        if !over_loopback && (packet.from.ip().is_loopback() || packet.to.ip().is_loopback()) {
            return lost(steps, "a loopback address does not come from a network");
        }
        if !self.hook(&mut packet, Direction::In, on, steps) {
            return Way::Lost;
        }
        if self.is_own(packet.to.ip()) {
            return self.deliver(packet, steps);
        }
        if !self.forwarding.of(packet.family()) {
            return lost(steps, "the host does not forward");
        }
        // ip6_forward looks at the scope of the source before pf could translate it; ip_output looks behind pf
        if packet.family() == Family::Inet6 && packet.from.ip().is_loopback() {
            return lost(steps, "::1 is not forwarded");
        }
        self.leave(packet, steps)
    }

    /// To a socket of the host or of a jail on its stack.
    fn deliver(&mut self, mut packet: Packet, steps: &mut Vec<TraceStep>) -> Way {
        if self.filter_local {
            let Some(lo0) = self.lo0() else { return lost(steps, "the host has no lo0") };
            if !self.hook(&mut packet, Direction::Out, lo0, steps) {
                return Way::Lost;
            }
        }
        let address = packet.to.ip();
        let jail = self.jails.iter().find(|jail| jail.behind.is_none() && jail.has(address));
        let party = jail.map_or(Party::Host, |jail| Party::Jail(jail.name.clone()));
        delivered(party, packet, steps)
    }

    /// ip_output(9): out by the interface that leads there.
    fn leave(&mut self, mut packet: Packet, steps: &mut Vec<TraceStep>) -> Way {
        let Some(out) = self.route(packet.to.ip()) else { return lost(steps, "no route") };
        let meant = packet.to.ip();
        if !self.hook(&mut packet, Direction::Out, out, steps) {
            return Way::Lost;
        }
        if packet.from.ip().is_loopback() {
            return lost(steps, "a loopback address does not go to a network");
        }
        if packet.to.ip() != meant && self.route(packet.to.ip()) != Some(out) {
            return lost(steps, "translated on the way out to where another interface leads");
        }
        self.neighbour(packet, out, steps)
    }

    /// The last hop, on a bridge or a wire.
    fn neighbour(&mut self, mut packet: Packet, on: Interface, steps: &mut Vec<TraceStep>) -> Way {
        let jail = self.jails.iter().find(|jail| jail.behind == Some(on) && jail.has(packet.to.ip())).cloned();
        let Some(jail) = jail else { return delivered(Party::Network(on), packet, steps) };
        if self.pfil_member
            && let Some(member) = jail.member
            && !self.hook(&mut packet, Direction::Out, member, steps)
        {
            return Way::Lost;
        }
        // the jail takes no packet from the wire that claims to be from itself
        if jail.has(packet.from.ip()) {
            return lost(steps, &format!("jail {} gets a packet from its own address", jail.name));
        }
        if !jail.has(packet.to.ip()) {
            return lost(steps, "translated at the bridge member, behind the last hop");
        }
        delivered(Party::Jail(jail.name), packet, steps)
    }

    fn hook(&mut self, packet: &mut Packet, direction: Direction, on: Interface, steps: &mut Vec<TraceStep>) -> bool {
        self.pf.test(packet, direction, on, &self.lookup, steps)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        let networks = || self.lookup.interfaces.iter().flat_map(|interface| &interface.addresses);
        // all of 127/8 is the host's
        networks().any(|own| own.addr() == address || own.addr().is_loopback() && own.contains(&address))
    }

    fn is_loopback(&self, interface: Interface) -> bool {
        crate::net::Place::Interface(interface).is_loopback()
    }

    fn lo0(&self) -> Option<Interface> {
        self.lookup.interfaces.iter().map(|interface| interface.name).find(|name| name.as_str() == "lo0")
    }

    fn loopback(&self, address: IpAddr) -> Option<Interface> {
        let owner = Interfaces(&self.lookup.interfaces).holder(address);
        owner.map(|owner| owner.name).filter(|name| self.is_loopback(*name)).or_else(|| self.lo0())
    }

    /// The interface that leads to an address that is not the host's: by the longest network, else the default route.
    fn route(&self, address: IpAddr) -> Option<Interface> {
        Interfaces(&self.lookup.interfaces)
            .connected(address)
            .map(|(name, _)| name)
            .or(*self.gateway.of(Family::of(address)))
    }
}

fn lost(steps: &mut Vec<TraceStep>, why: &str) -> Way {
    steps.push(TraceStep::Note(why.to_owned()));
    Way::Lost
}

fn delivered(party: Party, packet: Packet, steps: &mut Vec<TraceStep>) -> Way {
    steps.push(TraceStep::Delivered(party.clone(), packet.to));
    Way::Delivered(party, packet)
}
