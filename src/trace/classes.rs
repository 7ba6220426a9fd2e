//! What is to be known of the loaded rules rather than of a packet: the addresses and ports that they can distinguish, of which
//! one of each class is enough, and the rules that match a packet, one by one, without states and without a path.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::matching::{Hook, Lookup, Truth, address, number};
use super::packet::Packet;
use super::steps::Run;
use super::walk::{Branch, Met, Walk};
use super::world::World;
use crate::error::{Result, error};
use crate::net::{Direction, Family, Interface, is_link_local6};
use crate::pfconf::Conf;
use crate::pfconf::address::{Operand, Pool, Ports};
use crate::pfconf::path::Called;
use crate::pfconf::rule::{Action, Rule, RuleKind};

/// Networks whose addresses are not used on the Internet (RFC 6890).
#[rustfmt::skip]
const NOT_PUBLIC: [&str; 17] = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
    "::/3", "2001::/23", "4000::/2", "8000::/1", "fc00::/7", "fe80::/10", "ff00::/8",
];

/// Clients of networks that are not the host's: documentation addresses (RFC 5737, RFC 3849).
pub const DOCUMENTATION: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 77)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77)),
];

/// Addresses that no loaded rule can tell apart by `from` and `to`.
#[derive(Clone, Debug)]
pub struct AddressClass {
    pub address: IpAddr,
    /// How many of them are public and not in a network of the host.
    pub public: u128,
    pub size: u128,
    /// The first and last address of its largest part.
    largest: (u128, u128),
}

impl AddressClass {
    /// Another one of them, by its number in the middle of the largest part; `None` if there are not so many.
    pub fn another(&self, number: u32) -> Option<IpAddr> {
        let (first, last) = self.largest;
        let at = first.checked_add((last - first) / 2)?.checked_add(number.into())?;
        (at <= last).then(|| address(Family::of(self.address), at)).filter(|another| *another != self.address)
    }
}

fn highest(family: Family) -> u128 {
    match family {
        Family::Inet => u32::MAX.into(),
        Family::Inet6 => u128::MAX,
    }
}

/// Where pf evaluates a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub direction: Direction,
    pub on: Interface,
    pub received_on: Option<Interface>,
}

/// A set of addresses that a rule uses: an operand in a ruleset, which may have tables of its own.
type Set<'a> = (&'a str, &'a Operand);

impl World {
    /// The classes of the addresses of a family, the one with the most public addresses first.
    ///
    /// Two addresses of a class are in the same networks, ranges, tables and interface addresses of all loaded rules, and
    /// in the same networks of the host, so that no-route and urpf-failed hold for both or for neither. What is not
    /// decided by the addresses at hand does not count: host names, and the address at the other end of an interface.
    pub fn classes(&self, family: Family) -> Vec<AddressClass> {
        let fixed = self.fixed(family);
        let mut sets: Vec<Set<'_>> = fixed.iter().map(|operand| ("", operand)).collect();
        let not_public = sets.len();
        let mut seen = HashSet::new();
        // only tables differ by anchor
        let owned = |(path, operand)| (if matches!(operand, &Operand::Table(_)) { path } else { "" }, operand);
        sets.extend(self.sets().map(owned).filter(|set| seen.insert(*set)));
        let mut changes: BTreeMap<u128, Vec<usize>> = [(0, vec![])].into();
        for (at, (path, operand)) in sets.iter().enumerate() {
            for edge in self.lookup.edges(path, operand, family) {
                changes.entry(edge).or_default().push(at);
            }
        }
        // a pass over all addresses, from the lowest up: of each set, whether it holds the address, and the sum of those that do
        let mut inside = vec![false; sets.len()];
        let mut sum = 0;
        let mut by_sum: HashMap<u128, AddressClass> = HashMap::new();
        let mut sums = BTreeMap::new();
        let ends = changes.keys().skip(1).map(|next| next - 1).chain([highest(family)]);
        for ((start, changed), last) in changes.iter().zip(ends) {
            let start = *start;
            for set in changed {
                let (path, operand) = sets[*set];
                let holds = operand.holds(path, address(family, start), false, None, &self.lookup) == Truth::Yes;
                if std::mem::replace(&mut inside[*set], holds) != holds {
                    sum ^= spread(*set);
                }
            }
            let (length, shown) = (last - start, address(family, start + (last - start).min(77)));
            let new = AddressClass { address: shown, public: 0, size: 0, largest: (start, start) };
            let class = by_sum.entry(sum).or_insert(new);
            class.size = class.size.saturating_add(length.saturating_add(1));
            if !inside[..not_public].contains(&true) {
                class.public = class.public.saturating_add(length.saturating_add(1));
            }
            if length > class.largest.1 - class.largest.0 {
                (class.largest, class.address) = ((start, last), shown);
            }
            sums.insert(start, sum);
        }
        // the first of those in a class is shown
        for shown in DOCUMENTATION.into_iter().rev().filter(|shown| Family::of(*shown) == family) {
            let part = sums.range(..=number(shown)).next_back();
            if let Some(class) = part.and_then(|(_, sum)| by_sum.get_mut(sum)) {
                class.address = shown;
            }
        }
        let mut classes: Vec<AddressClass> = by_sum.into_values().collect();
        classes.sort_by_key(|class| (u128::MAX - class.public, u128::MAX - class.size, class.largest));
        classes
    }

    /// The first addresses of the parts of a family between which the rules differ, their pools, and the networks of the host.
    pub fn address_edges(&self, family: Family) -> Vec<IpAddr> {
        let fixed = self.fixed(family);
        let of_rules = self.rules().flat_map(|(path, rule)| {
            operands(rule).chain(rule.pools().flat_map(Pool::operands)).map(move |operand| (path, operand))
        });
        let all = fixed.iter().map(|operand| ("", operand)).chain(of_rules);
        let edges: BTreeSet<u128> = all.flat_map(|(path, operand)| self.lookup.edges(path, operand, family)).collect();
        edges.into_iter().map(|edge| address(family, edge)).collect()
    }

    /// The networks that are not rules'.
    fn fixed(&self, family: Family) -> Vec<Operand> {
        let not_public = NOT_PUBLIC.iter().filter_map(|text| text.parse().ok());
        not_public.chain(self.networks(family)).map(Operand::Network).collect()
    }

    fn sets(&self) -> impl Iterator<Item = Set<'_>> {
        self.rules().flat_map(|(path, rule)| operands(rule).map(move |operand| (path, operand)))
    }

    pub fn rules(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.pf.rulesets.iter().flat_map(|(path, rules)| rules.iter().map(move |rule| (path.as_str(), rule)))
    }

    /// The networks of the host, its addresses, and those of its jails.
    fn networks(&self, family: Family) -> Vec<IpNet> {
        let own = self.lookup.interfaces.iter().flat_map(|interface| &interface.addresses);
        let jails = self.jails.iter().flat_map(|jail| &jail.addresses);
        let of_hosts = own.chain(jails).flat_map(|network| [network.trunc(), IpNet::from(network.addr())]);
        of_hosts.filter(|network| Family::of(network.addr()) == family).collect()
    }

    fn port_conditions(&self) -> Vec<Ports> {
        let mut all: Vec<Ports> = vec![];
        for ports in self.rules().flat_map(|(_, rule)| [rule.when.from.ports, rule.when.to.ports]).flatten() {
            if !all.contains(&ports) {
                all.push(ports);
            }
        }
        all
    }

    /// The ports at which a condition begins or ceases to hold: no rule distinguishes two between which there is none.
    pub fn port_edges(&self) -> BTreeSet<u16> {
        self.port_conditions().into_iter().flat_map(Ports::edges).collect()
    }

    /// A port of each class that rules can distinguish, the largest class first; `preferred` in its class.
    pub fn ports(&self, preferred: u16) -> Vec<u16> {
        let all = self.port_conditions();
        let mut starts = self.port_edges();
        starts.insert(1);
        starts.remove(&0);
        let mut classes: HashMap<Vec<bool>, (u32, u16)> = HashMap::new();
        let ends = starts.iter().skip(1).map(|next| u32::from(*next)).chain([1 << 16]);
        for (start, end) in starts.iter().zip(ends) {
            let held: Vec<bool> = all.iter().map(|ports| ports.holds(*start)).collect();
            let class = classes.entry(held).or_insert((0, *start));
            class.0 += end - u32::from(*start);
            if (u32::from(*start)..end).contains(&preferred.into()) {
                class.1 = preferred;
            }
        }
        let mut classes: Vec<(u32, u16)> = classes.into_values().collect();
        classes.sort_unstable_by_key(|(size, port)| (u32::MAX - size, *port));
        classes.into_iter().map(|(_, port)| port).collect()
    }

    /// Ports to which some rule blocks only certain sources, one of each rule.
    pub fn refusing_ports(&self) -> Vec<u16> {
        let limited = |rule: &&Rule| rule.action == Action::Block && rule.when.from.address != Operand::Any;
        let mut found: Vec<u16> = vec![];
        for ports in self.rules().map(|(_, rule)| rule).filter(limited).filter_map(|rule| rule.when.to.ports) {
            let port = [ports.a, ports.a.saturating_add(1), ports.b, 1]
                .into_iter()
                .find(|port| ports.holds(*port) && *port > 0);
            if let Some(port) = port.filter(|port| !found.contains(port)) {
                found.push(port);
            }
        }
        found
    }

    /// Whether another host with this address can be behind an interface.
    pub fn is_behind(&self, interface: Interface, address: IpAddr) -> bool {
        let of_link = match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || is_link_local6(address),
        };
        !of_link && !self.is_own(address) && self.lookup.route(address) == Some(interface)
    }

    pub fn skips(&self, interface: Interface) -> bool {
        self.pf.skip.iter().any(|name| self.lookup.is_in(interface, name))
    }

    /// An address in a network of an interface that is neither the host's nor `other`.
    pub fn other_host(&self, interface: Interface, other: IpAddr) -> Option<IpAddr> {
        let of_family = |network: &&IpNet| Family::of(network.addr()) == Family::of(other);
        let networks = self.lookup.interfaces.iter().filter(|known| known.name == interface);
        let mut networks = networks.flat_map(|known| &known.addresses).filter(of_family);
        networks
            .find_map(|network| network.hosts().take(9).find(|address| *address != other && *address != network.addr()))
    }

    /// The tables that rules name in `from` and `to`, each with the anchor whose rules use it.
    pub fn tables(&self) -> BTreeSet<(String, String)> {
        let tables = self.sets().filter_map(|(path, operand)| match operand {
            Operand::Table(name) => {
                let own = self.lookup.tables.get(path).is_some_and(|tables| tables.contains_key(name));
                Some((if own { path.to_owned() } else { String::new() }, name.clone()))
            }
            _ => None,
        });
        tables.collect()
    }

    /// Adds an address to a table of an anchor, as `pfctl -T add` does.
    pub fn add_to_table(&mut self, (anchor, name): &(String, String), address: IpAddr) {
        let tables = self.lookup.tables.entry(anchor.clone()).or_default();
        tables.entry(name.clone()).or_default().insert(address.into(), false);
    }

    /// The anchors of filter rules that a program may fill: those without rules, and for `name/*` a child that does not exist.
    pub fn open_anchors(&self) -> BTreeSet<String> {
        let called = self.rules().filter_map(|(path, rule)| match &rule.action {
            Action::Call(RuleKind::Filter, call) => Some(Called::resolve(path, call)),
            _ => None,
        });
        let open =
            called.filter(|called| !called.is_kport()).filter_map(|called| match (called.children, called.path) {
                (true, path) if path.is_empty() => None,
                (true, path) => Some(format!("{path}/a program's")),
                (false, path) => (!self.pf.rulesets.contains_key(&path)).then_some(path),
            });
        open.collect()
    }

    pub fn load_more(&mut self, path: &str, more: &Conf) {
        let old = self.pf.rulesets.get(path).cloned().unwrap_or_default();
        self.pf.rulesets.insert(path.to_owned(), old.iter().chain(more.rules()).cloned().collect());
    }

    pub fn decided(&self, kind: RuleKind, at: At, packet: &Packet, held: &[String]) -> Result<Option<Met<'_>>> {
        Ok(Met::decision(&self.met(kind, at, packet, held)?.0))
    }

    /// The rules of a kind that match a packet as the first of a connection, in the order of evaluation: of filter rules
    /// the last one decides. None on an interface that pf skips. The conditions that cannot be decided hold if they are `held`,
    /// and else do not; they are returned, too.
    pub fn met(
        &self, kind: RuleKind, at: At, packet: &Packet, held: &[String],
    ) -> Result<(Vec<Met<'_>>, BTreeSet<String>)> {
        if self.skips(at.on) {
            return Ok(Default::default());
        }
        let mut run = Run::default();
        let hook = Hook { direction: at.direction, on: at.on, lookup: &self.lookup, pf: &self.pf };
        let packet = Packet { received_on: at.received_on, ..packet.clone() };
        let mut walk = Walk { hook, before: &packet, kind, run: &mut run, supposed: Some(held) };
        let met = walk.one_by_one(Branch::new(packet.clone()));
        match run.gave_up {
            None => Ok((met, run.undecided)),
            Some(why) => Err(error!(Unsupported, "the ruleset cannot be judged: {why}")),
        }
    }
}

/// The addresses that a rule compares a packet's with.
fn operands(rule: &Rule) -> impl Iterator<Item = &Operand> {
    let binat = match &rule.action {
        Action::Translate { kind: RuleKind::Binat, pool, .. } => pool.as_ref(),
        _ => None,
    };
    [&rule.when.from.address, &rule.when.to.address].into_iter().chain(binat.into_iter().flat_map(Pool::operands))
}

impl Lookup {
    /// The first addresses of a family from which on what an operand holds may be different.
    fn edges(&self, anchor: &str, operand: &Operand, family: Family) -> Vec<u128> {
        let spans = self.spans(anchor, operand).into_iter().filter(|(first, _)| Family::of(*first) == family);
        let edges = spans.flat_map(|(first, last)| [Some(number(first)), number(last).checked_add(1)]);
        edges.flatten().filter(|edge| *edge <= highest(family)).collect()
    }

    /// The first and last address of each part of an operand.
    fn spans(&self, anchor: &str, operand: &Operand) -> Vec<(IpAddr, IpAddr)> {
        let ends = |net: IpNet| (net.network(), net.broadcast());
        match operand {
            Operand::Network(network) => vec![ends(*network)],
            Operand::Range(first, last) => vec![(*first, *last)],
            Operand::Interface(of) => of.networks(self).map(ends).collect(),
            Operand::Table(name) => {
                let Some(table) = self.table(anchor, name) else { return vec![] };
                let others = table.others.iter().flat_map(|(_, other)| self.spans("", other));
                table.networks().map(|(_, network)| ends(network)).chain(others).collect()
            }
            Operand::Any | Operand::NoRoute | Operand::UrpfFailed | Operand::Named(_) => vec![],
        }
    }
}

/// Bits for each number: the sums (XOR) of different sets of numbers are different, but for one in 2^64.
fn spread(number: usize) -> u128 {
    let half = |which: u8| {
        let mut hasher = DefaultHasher::new();
        (which, number).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}
