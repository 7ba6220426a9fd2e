//! The tree of calls: a prefix tree over the ports of each protocol, over the host's addresses of each family with their ports, and over
//! the jails' addresses of each family.
//!
//! A ruleset with many entries is split by the next four bits after what all of its keys have in common; a part with more than a few
//! entries becomes a node. Its shape is a function of the set of entries, so an entry more or less changes only the rulesets on its
//! way, and sometimes splits one of them. A range that is in several parts stays where they are: ranges of one place do not overlap,
//! so these are few.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Condition, Entry, Key, Kinds};
use crate::net::{PortRange, Protocol};

/// A ruleset has more entries than these before it is split.
const MOST: u32 = 32;

/// A part with more entries than these is a node.
const FEW: u32 = 4;

/// The deepest tree: pf follows 32 calls within each other (PF_ANCHOR_STACK_MAX in sys/net/pfvar.h), some of which may be the
/// administrator's. Only addresses that are chosen for it, each with other bits than the one before, need more; then there is no tree.
pub(super) const DEEPEST: u8 = 20;

/// An address, as the last bits if it is of IPv4; then, of what is about ports, four bits for the protocol, and a port.
type Bits = (u128, u32);

/// The number of groups of four bits of an address, and of one with ports.
const ADDRESS: u8 = 32;
const PORTS: u8 = ADDRESS + 5;

/// A place in the order of all keys: what they are about, then the bits from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    about: u8,
    first: Bits,
    last: Bits,
}

impl Key {
    fn span(self) -> Span {
        let family = |address: IpAddr| u8::from(address.is_ipv6());
        let (about, bits, ports) = match self {
            Key::Ports(protocol, ports) => (protocol as u8, 0, Some((protocol, ports))),
            Key::At(address, protocol, ports) => (3 + family(address), bits(address), Some((protocol, ports))),
            Key::Address(address) => (5 + family(address), bits(address), None),
        };
        let [first, last] = ports.map_or([0, 0], |(protocol, ports)| {
            [ports.first(), ports.last()].map(|port| (protocol as u32) << 28 | u32::from(port) << 12)
        });
        Span { about, first: (bits, first), last: (bits, last) }
    }

    /// The number of groups of four bits in it.
    fn length(self) -> u8 {
        if matches!(self, Key::Address(_)) { ADDRESS } else { PORTS }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The four bits at a place, counted from the left.
fn nibble((address, ports): Bits, at: u8) -> u128 {
    match u32::from(at) {
        at @ 0..32 => address >> (124 - 4 * at) & 0xf,
        at => u128::from(ports) >> (28 - 4 * (at - 32)) & 0xf,
    }
}

/// The number of groups of four bits that both begin with.
fn in_common(a: Bits, b: Bits) -> u8 {
    let bits = match (a.0 ^ b.0).leading_zeros() {
        u128::BITS => u128::BITS + (a.1 ^ b.1).leading_zeros(),
        bits => bits,
    };
    u8::try_from(bits / 4).unwrap_or(PORTS).min(PORTS)
}

/// The keys that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Its first address, and all its ports.
    key: Key,
    /// The number of groups of four bits that they have in common.
    length: u8,
}

impl Block {
    /// The one of this length that has the first bits of a key.
    pub fn around(key: Key, length: u8) -> Block {
        // of the bits in so many groups those that differ
        let others = |groups: u8| u128::MAX.checked_shr(4 * u32::from(length.saturating_sub(groups))).unwrap_or(0);
        let first = |address: IpAddr| match address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !(others(0) as u32)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !others(0)).into(),
        };
        let all = |ports: PortRange| {
            let others = (others(ADDRESS + 1) >> 112) as u16;
            let first = ports.first() & !others;
            PortRange::new(first.max(1), first | others).unwrap_or(ports)
        };
        let key = match key {
            Key::Ports(protocol, ports) => Key::Ports(protocol, all(ports)),
            Key::At(address, protocol, ports) => {
                Key::At(first(address), if length > ADDRESS { protocol } else { Protocol::Tcp }, all(ports))
            }
            Key::Address(address) => Key::Address(first(address)),
        };
        Block { key, length }
    }

    /// Whether it has all that a key is about.
    fn has(&self, key: Key) -> bool {
        let Span { first, last, .. } = key.span();
        in_common(first, last) >= self.length && Block::around(key, self.length) == *self
    }

    /// The condition of its node's calls.
    pub(super) fn condition(&self) -> Condition {
        let condition = Condition::from(self.key);
        let has_protocol = self.length > ADDRESS;
        let bits_of = |network: IpNet| 4 * self.length.min(ADDRESS) - (128 - network.max_prefix_len());
        Condition {
            protocol: condition.protocol.filter(|_| has_protocol),
            to: condition.to.and_then(|network| IpNet::new(network.addr(), bits_of(network)).ok()),
            ..condition
        }
    }
}

impl fmt::Display for Block {
    /// The name of its node: `tcp.8080-8095`, `host.192.0.2.0_28`, `host.192.0.2.1.tcp.8080-8095`, `10.0.0.0_28`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.condition().to.map(|network| format!("{}_{}", network.addr(), network.prefix_len()));
        match (self.key, network) {
            (Key::Ports(protocol, ports), _) => write!(f, "{protocol}.{ports}"),
            (Key::At(address, protocol, ports), _) if self.length > ADDRESS => {
                write!(f, "host.{address}.{protocol}.{ports}")
            }
            (Key::At(..), network) => write!(f, "host.{}", network.unwrap_or_default()),
            (Key::Address(_), network) => f.write_str(&network.unwrap_or_default()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A jail's anchor.
    Entry(Entry),
    /// Another ruleset of the tree.
    Node(Node),
}

/// A node as its caller knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub(super) block: Block,
    /// The number of entries in it and below.
    entries: u32,
    /// The number of calls within each other below it.
    height: u8,
    kinds: Kinds,
}

impl Item {
    pub fn key(&self) -> Key {
        match self {
            Item::Entry(entry) => entry.key,
            Item::Node(node) => node.block.key,
        }
    }

    pub(super) fn condition(&self) -> Condition {
        match self {
            Item::Entry(entry) => entry.key.into(),
            Item::Node(node) => node.block.condition(),
        }
    }

    pub(super) fn kinds(&self) -> Kinds {
        match self {
            Item::Entry(entry) => entry.kinds(),
            Item::Node(node) => node.kinds,
        }
    }

    fn entries(&self) -> u32 {
        match self {
            Item::Entry(_) => 1,
            Item::Node(node) => node.entries,
        }
    }

    fn span(&self) -> Span {
        self.key().span()
    }
}

/// Sorted by key; anchors with the same key by name, as pf walks the anchors that a wildcard calls (pf_kanchor_compare).
pub(super) fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    let child = |item: &Item| if let Item::Entry(entry) = item { entry.child.clone() } else { String::new() };
    items.sort_by_cached_key(|item| (item.span(), child(item)));
    items
}

fn total(items: &[Item]) -> u32 {
    items.iter().map(Item::entries).sum()
}

fn height(items: &[Item]) -> u8 {
    let below = |item: &Item| if let Item::Node(node) = item { node.height.saturating_add(1) } else { 0 };
    items.iter().map(below).max().unwrap_or(0)
}

/// Reads what a node has, or with `None` the anchor `kport`.
pub type Load<'l, E> = dyn FnMut(Option<&Block>) -> Result<Vec<Item>, E> + 'l;

/// A ruleset of the tree: as it was, and as it is to be, empty for a node that is not needed.
pub type Changed = (Option<Block>, Vec<Item>, Vec<Item>);

/// Every ruleset of the tree of these entries.
pub fn whole(entries: &[Entry]) -> BTreeMap<Option<Block>, Vec<Item>> {
    let Ok(made) = change(&mut |_| Ok::<_, Infallible>(vec![]), &[], &super::distinct(entries));
    let made = made.into_iter().map(|(block, _, items)| (block, items));
    made.filter(|(block, items)| block.is_none() || !items.is_empty()).collect()
}

/// Changes the set of a tree: what is removed need not be in it, and what is added may be. Returns every ruleset that was read or
/// made; each is read at most once, and only if it is needed.
pub fn change<E>(load: &mut Load<'_, E>, removed: &[Entry], added: &[Entry]) -> Result<Vec<Changed>, E> {
    let mut tree = Tree { load, old: BTreeMap::new(), new: BTreeMap::new() };
    let mut items = tree.take(None)?;
    for entry in removed.iter().chain(added) {
        items = tree.without(items, entry)?;
    }
    items.extend(added.iter().cloned().map(Item::Entry));
    // the trees of all protocols and families begin in one ruleset: they are skipped as fast as an entry
    let mut parts: BTreeMap<u8, Vec<Item>> = BTreeMap::new();
    for item in items {
        parts.entry(item.span().about).or_default().push(item);
    }
    let mut root = vec![];
    for part in parts.into_values() {
        root.append(&mut tree.arrange(part)?);
    }
    if height(&root) > DEEPEST {
        root = tree.entries(root)?;
    }
    tree.new.insert(None, sorted(root));
    let Tree { mut old, new, .. } = tree;
    Ok(new.into_iter().map(|(block, new)| (block, old.remove(&block).unwrap_or_default(), new)).collect())
}

/// The rulesets of a tree, as far as they are needed.
struct Tree<'t, 'l, E> {
    load: &'t mut Load<'l, E>,
    /// as they are
    old: BTreeMap<Option<Block>, Vec<Item>>,
    /// as they are to be
    new: BTreeMap<Option<Block>, Vec<Item>>,
}

impl<E> Tree<'_, '_, E> {
    fn take(&mut self, block: Option<Block>) -> Result<Vec<Item>, E> {
        if let Some(known) = self.new.get(&block) {
            return Ok(known.clone());
        }
        let items = (self.load)(block.as_ref())?;
        self.old.insert(block, items.clone());
        self.new.insert(block, items.clone());
        Ok(items)
    }

    /// What a node has, which is not needed any more, unless it is made again.
    fn open(&mut self, node: Node) -> Result<Vec<Item>, E> {
        let items = self.take(Some(node.block))?;
        self.new.insert(Some(node.block), vec![]);
        Ok(items)
    }

    /// All entries of these items.
    fn entries(&mut self, items: Vec<Item>) -> Result<Vec<Item>, E> {
        let mut all = vec![];
        for item in items {
            match item {
                Item::Node(node) => {
                    let below = self.open(node)?;
                    all.append(&mut self.entries(below)?);
                }
                entry @ Item::Entry(_) => all.push(entry),
            }
        }
        Ok(all)
    }

    /// The items without an entry, and with what the nodes have in which it may be.
    fn without(&mut self, mut items: Vec<Item>, entry: &Entry) -> Result<Vec<Item>, E> {
        items.retain(|item| !matches!(item, Item::Entry(other) if other.is_about_as(entry)));
        let place = items.iter().position(|item| matches!(item, Item::Node(node) if node.block.has(entry.key)));
        match place.map(|place| items.swap_remove(place)) {
            Some(Item::Node(node)) => {
                items.append(&mut self.open(node)?);
                self.without(items, entry)
            }
            _ => Ok(items),
        }
    }

    /// The ruleset that has the entries of these items, which are all about the same.
    fn arrange(&mut self, mut items: Vec<Item>) -> Result<Vec<Item>, E> {
        if total(&items) <= MOST {
            return self.entries(items).map(sorted);
        }
        // groups of four bits that all have in common
        let at = common(&items);
        let is_of_all = |item: &Item| matches!(item, Item::Node(node) if node.block.length <= at);
        if let Some(place) = items.iter().position(is_of_all)
            && let Item::Node(node) = items.swap_remove(place)
        {
            items.append(&mut self.open(node)?);
            return self.arrange(items);
        }
        if at >= items[0].key().length() {
            return Ok(sorted(items));
        }
        let mut parts: BTreeMap<u128, Vec<Item>> = BTreeMap::new();
        let mut made = vec![];
        for item in items {
            let Span { first, last, .. } = item.span();
            match nibble(first, at) == nibble(last, at) {
                true => parts.entry(nibble(first, at)).or_default().push(item),
                false => made.push(item),
            }
        }
        for part in parts.into_values() {
            let block = Block::around(part[0].key(), at + 1);
            match part[..] {
                [Item::Node(node)] if node.block == block => made.push(Item::Node(node)),
                _ if total(&part) <= FEW => made.extend(part),
                _ => {
                    let items = self.arrange(part)?;
                    let kinds = items.iter().map(Item::kinds).fold(Kinds::default(), Kinds::or);
                    made.push(Item::Node(Node { block, entries: total(&items), height: height(&items), kinds }));
                    self.new.insert(Some(block), items);
                }
            }
        }
        Ok(sorted(made))
    }
}

/// The number of groups of four bits that all items begin with.
fn common(items: &[Item]) -> u8 {
    let spans = || items.iter().map(Item::span);
    let ends = spans().map(|span| span.first).min().zip(spans().map(|span| span.last).max());
    ends.map_or(PORTS, |(first, last)| in_common(first, last))
}
