//! The addresses that the loaded rules can distinguish: instead of every address, one of each class is enough.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::lookup::{Lookup, Truth, link_local};
use super::packet::Release;
use super::world::World;
use crate::net::{Family, Interface};
use crate::pfconf::address::{Operand, Ports};
use crate::pfconf::path::Called;
use crate::pfconf::rule::{Action, Rule, RuleKind};
use crate::pfconf::table::Table;

/// Networks whose addresses are not used on the Internet (RFC 6890).
const NOT_PUBLIC: [&str; 17] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/3",
    "2001::/23",
    "4000::/2",
    "8000::/1",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// The addresses to show if they are in the class: those for documentation (RFC 5737, RFC 3849).
const PREFERRED: [[u8; 4]; 3] = [[203, 0, 113, 77], [198, 51, 100, 77], [192, 0, 2, 77]];
const PREFERRED6: [u16; 8] = [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77];

/// Addresses that no loaded rule can tell apart by `from` and `to`.
#[derive(Clone, Debug)]
pub struct AddressClass {
    /// One of them.
    pub address: IpAddr,
    /// How many of them are public and not in a network of the host.
    pub public: u128,
    /// How many there are.
    pub size: u128,
    /// The first and last address of its largest part.
    largest: (u128, u128),
}

impl AddressClass {
    /// Another one of them, by its number in the middle of the largest part; `None` if there are not so many.
    pub(crate) fn another(&self, number: u32) -> Option<IpAddr> {
        let (first, last) = self.largest;
        let at = first.checked_add((last - first) / 2)?.checked_add(number.into())?;
        (at <= last).then(|| address(Family::of(self.address), at)).filter(|another| *another != self.address)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::Inet => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        Family::Inet6 => Ipv6Addr::from(number).into(),
    }
}

fn highest(family: Family) -> u128 {
    match family {
        Family::Inet => u32::MAX.into(),
        Family::Inet6 => u128::MAX,
    }
}

/// The first and last address of a network.
fn span(network: &IpNet) -> (IpAddr, IpAddr) {
    (network.network(), network.broadcast())
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
        sets.extend(self.rules().flat_map(|(path, rule)| operands(rule).map(move |operand| (path, operand))).filter(
            |(path, operand)| match operand {
                Operand::Table(_) => seen.insert((*path, *operand)),
                _ => seen.insert(("", *operand)),
            },
        ));
        let mut changes: Vec<(u128, usize)> = vec![];
        for (at, (path, operand)) in sets.iter().enumerate() {
            for (first, last) in self.lookup.spans(path, operand).filter(|(first, _)| Family::of(*first) == family) {
                changes.push((number(first), at));
                changes.extend(number(last).checked_add(1).map(|next| (next, at)));
            }
        }
        changes.sort_unstable();
        changes.dedup();
        let mut sweep =
            Sweep { family, inside: vec![false; sets.len()], sum: 0, not_public: 0, classes: HashMap::new() };
        let (mut parts, mut start) = (vec![], 0);
        let mut changes = changes.into_iter().filter(|(at, _)| *at <= highest(family)).peekable();
        loop {
            while let Some((at, set)) = changes.next_if(|(at, _)| *at == start) {
                let (path, operand) = sets[set];
                let held = operand.holds_in(path, address(family, at), false, None, &self.lookup) == Truth::Yes;
                sweep.set(set, held, set < not_public);
            }
            let last = changes.peek().map_or(highest(family), |(next, _)| next - 1);
            sweep.part(start, last);
            parts.push((start, sweep.sum));
            match changes.peek() {
                Some((next, _)) => start = *next,
                None => break,
            }
        }
        let preferred: Vec<IpAddr> = match family {
            Family::Inet => PREFERRED.map(IpAddr::from).to_vec(),
            Family::Inet6 => vec![IpAddr::from(PREFERRED6)],
        };
        for preferred in preferred.into_iter().rev() {
            let part = parts.partition_point(|(start, _)| *start <= number(preferred));
            let class = parts.get(part.saturating_sub(1)).and_then(|(_, sum)| sweep.classes.get_mut(sum));
            if let Some(class) = class {
                class.address = preferred;
            }
        }
        let mut classes: Vec<AddressClass> = sweep.classes.into_values().collect();
        classes.sort_by_key(|class| (u128::MAX - class.public, u128::MAX - class.size, class.largest));
        classes
    }

    /// The first addresses of the parts of a family between which the rules differ, their pools, and the networks of the host.
    pub(crate) fn address_edges(&self, family: Family) -> Vec<IpAddr> {
        let fixed = self.fixed(family);
        let of_rules = self.rules().flat_map(|(path, rule)| {
            let pooled = rule.pools().flat_map(|pool| &pool.addresses).filter_map(|at| at.address.as_ref());
            operands(rule).chain(pooled).map(move |operand| (path, operand))
        });
        let all = fixed.iter().map(|operand| ("", operand)).chain(of_rules);
        let spans = all.flat_map(|(path, operand)| self.lookup.spans(path, operand));
        let edges: BTreeSet<u128> = spans
            .filter(|(first, _)| Family::of(*first) == family)
            .flat_map(|(first, last)| [Some(number(first)), number(last).checked_add(1)])
            .flatten()
            .filter(|edge| *edge <= highest(family))
            .collect();
        edges.into_iter().map(|edge| address(family, edge)).collect()
    }

    /// Whether a rule has `tagged`.
    pub(crate) fn compares_tags(&self) -> bool {
        self.rules().any(|(_, rule)| rule.when.tagged.is_some())
    }

    /// The networks that are not rules'.
    fn fixed(&self, family: Family) -> Vec<Operand> {
        let not_public = NOT_PUBLIC.iter().filter_map(|text| text.parse().ok());
        not_public.chain(self.networks(family)).map(Operand::Network).collect()
    }

    /// The rules of every ruleset, each with its path.
    pub(super) fn rules(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.pf.rulesets.iter().flat_map(|(path, rules)| rules.all().map(move |rule| (path.as_str(), rule)))
    }

    /// The networks of the host, its addresses, those of its jails, and its routes.
    fn networks(&self, family: Family) -> Vec<IpNet> {
        let own = self.lookup.interfaces.iter().flat_map(|interface| &interface.addresses);
        let jails = self.jails.iter().flat_map(|jail| &jail.addresses);
        let of_hosts = own.chain(jails).flat_map(|network| [network.trunc(), IpNet::from(network.addr())]);
        let all = of_hosts.chain(self.lookup.routes.iter().map(|(network, _)| *network));
        all.filter(|network| Family::of(network.addr()) == family).collect()
    }

    /// A port of each class that rules can distinguish, the largest class first; `preferred` in its class.
    fn port_classes(&self, preferred: u16) -> Vec<u16> {
        let of_rule = |rule: &Rule| [rule.when.from.ports, rule.when.to.ports].into_iter().flatten();
        let mut all: Vec<Ports> = vec![];
        for ports in self.rules().flat_map(|(_, rule)| of_rule(rule)) {
            if !all.contains(&ports) {
                all.push(ports);
            }
        }
        // where an operator may begin or cease to hold
        let edges = |ports: &Ports| [ports.a, ports.b].into_iter().flat_map(|edge| [edge, edge.saturating_add(1)]);
        let mut starts: Vec<u16> = all.iter().flat_map(edges).chain([1]).filter(|port| *port > 0).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut classes: HashMap<Vec<bool>, (u32, u16)> = HashMap::new();
        for (at, start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).map_or(1 << 16, |next| u32::from(*next));
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

    /// A port that no rule singles out: `preferred`, if it is one.
    pub(crate) fn ordinary_port(&self, preferred: u16) -> u16 {
        self.port_classes(preferred).first().copied().unwrap_or(preferred)
    }

    /// Ports to which some rule blocks only certain sources, one of each rule.
    pub(crate) fn refusing_ports(&self) -> Vec<u16> {
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

    /// A port of each class that rules can distinguish.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.port_classes(0)
    }

    /// Whether another host with this address can be behind an interface.
    pub(crate) fn is_behind(&self, interface: Interface, address: IpAddr) -> bool {
        let of_link = match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || link_local(address),
        };
        !of_link && !self.is_own(address) && self.lookup.route(address) == Some(interface)
    }

    /// Whether pf skips an interface.
    pub(crate) fn skips(&self, interface: Interface) -> bool {
        self.pf.skip.iter().any(|name| self.lookup.is_in(interface, name))
    }

    /// The release of pf.
    pub(crate) fn release(&self) -> Release {
        self.pf.release
    }

    /// An address in a network of an interface that is neither the host's nor `other`.
    pub(crate) fn other_host(&self, interface: Interface, other: IpAddr) -> Option<IpAddr> {
        let of_family = |network: &&IpNet| Family::of(network.addr()) == Family::of(other);
        let networks = self.lookup.interfaces.iter().filter(|known| known.name == interface);
        let mut networks = networks.flat_map(|known| &known.addresses).filter(of_family);
        networks
            .find_map(|network| network.hosts().take(9).find(|address| *address != other && *address != network.addr()))
    }

    /// The tables that rules name in `from` and `to`, each with the anchor whose rules use it.
    pub(crate) fn tables(&self) -> Vec<(String, String)> {
        let named = |(path, rule)| {
            operands(rule).filter_map(move |operand| match operand {
                Operand::Table(name) => Some((self.lookup.owner(path, name).to_owned(), name.clone())),
                _ => None,
            })
        };
        let mut all: Vec<(String, String)> = self.rules().flat_map(named).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Adds an address to a table of an anchor, as `pfctl -T add` does.
    pub(crate) fn add_to_table(&mut self, (anchor, name): &(String, String), address: IpAddr) {
        let tables = self.lookup.tables.entry(anchor.clone()).or_default();
        tables.entry(name.clone()).or_default().insert(address.into(), false);
    }

    /// The paths of anchors that filter rules call and that a program may fill: those without rules of their own, and for
    /// `name/*` a child that does not exist.
    pub(crate) fn open_anchors(&self) -> Vec<String> {
        let called = |(path, rule): (&str, &Rule)| match &rule.action {
            Action::Call(RuleKind::Filter, call) => Some(Called::resolve(path, call)),
            _ => None,
        };
        let mut open: Vec<String> = self
            .rules()
            .filter_map(called)
            .filter(|called| !called.is_kport())
            .filter_map(|called| match (called.children, called.path) {
                (true, path) if path.is_empty() => None,
                (true, path) => Some(format!("{path}/a program's")),
                (false, path) => (!self.pf.rulesets.contains_key(&path)).then_some(path),
            })
            .collect();
        open.sort_unstable();
        open.dedup();
        open
    }
}

/// The addresses that a rule compares a packet's with.
fn operands(rule: &Rule) -> impl Iterator<Item = &Operand> {
    let binat = match &rule.action {
        Action::Translate { kind: RuleKind::Binat, pool: Some(pool), .. } => Some(pool),
        _ => None,
    };
    let outside = binat.into_iter().flat_map(|pool| pool.addresses.iter().filter_map(|at| at.address.as_ref()));
    [&rule.when.from.address, &rule.when.to.address].into_iter().chain(outside)
}

impl Lookup {
    /// The first and last addresses of the parts of an operand, where what it holds may change.
    fn spans<'a>(&'a self, anchor: &str, operand: &'a Operand) -> Box<dyn Iterator<Item = (IpAddr, IpAddr)> + 'a> {
        match operand {
            Operand::Network(network) => Box::new(std::iter::once(span(network))),
            Operand::Range(first, last) => Box::new(std::iter::once((*first, *last))),
            Operand::Interface(of) => Box::new(of.networks(self).map(|network| span(&network))),
            Operand::Table(name) => {
                let table = self.table(anchor, name);
                let networks = table.into_iter().flat_map(Table::networks).map(|(_, network)| span(&network));
                let others = table.into_iter().flat_map(|table| &table.others);
                Box::new(networks.chain(others.flat_map(|(_, other)| self.spans("", other))))
            }
            Operand::Any | Operand::NoRoute | Operand::UrpfFailed | Operand::Named(_) => Box::new(std::iter::empty()),
        }
    }

    /// The anchor whose table a rule of `anchor` uses.
    fn owner<'a>(&self, anchor: &'a str, name: &str) -> &'a str {
        let has = self.tables.get(anchor).is_some_and(|tables| tables.contains_key(name));
        if has { anchor } else { "" }
    }
}

/// A pass over all addresses, from the lowest up.
struct Sweep {
    family: Family,
    /// Of each set, whether it holds the current address.
    inside: Vec<bool>,
    /// Which sets hold it, as one number.
    sum: u128,
    /// How many of the sets that are not public hold it.
    not_public: usize,
    classes: HashMap<u128, AddressClass>,
}

impl Sweep {
    fn set(&mut self, set: usize, held: bool, of_not_public: bool) {
        if std::mem::replace(&mut self.inside[set], held) == held {
            return;
        }
        let bits = spread(set);
        self.sum = if held { self.sum.wrapping_add(bits) } else { self.sum.wrapping_sub(bits) };
        if of_not_public {
            self.not_public = if held { self.not_public + 1 } else { self.not_public - 1 };
        }
    }

    /// The addresses up to `last` are of the current class.
    fn part(&mut self, first: u128, last: u128) {
        let count = (last - first).saturating_add(1);
        let public = if self.not_public == 0 { count } else { 0 };
        let shown = address(self.family, first + (last - first).min(77));
        let class = self.classes.entry(self.sum).or_insert(AddressClass {
            address: shown,
            public: 0,
            size: 0,
            largest: (first, first),
        });
        class.public = class.public.saturating_add(public);
        class.size = class.size.saturating_add(count);
        if last - first > class.largest.1 - class.largest.0 {
            (class.largest, class.address) = ((first, last), shown);
        }
    }
}

/// Distinct bits for each number: sums of different sets of them are different, but for one in 2^64 (splitmix64).
fn spread(number: usize) -> u128 {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let number = number as u64 + 1;
    u128::from(mix(number)) << 64 | u128::from(mix(number ^ 0x5555_5555_5555_5555))
}
