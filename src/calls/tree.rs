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

use super::{Entry, Key, Kinds};
use crate::net::{PortRange, Protocol};

/// A ruleset has more entries than these before it is split.
const MOST: u32 = 32;

/// A part with more entries than these is a node.
const FEW: u32 = 4;

/// The deepest tree: pf follows 32 calls within each other (PF_ANCHOR_STACK_MAX in sys/net/pfvar.h), some of which may be the
/// administrator's. Only addresses that are chosen for it, each with other bits than the one before, need more; then there is no tree.
pub(super) const DEEPEST: u8 = 20;

/// Groups of four bits: an address, as the last ones if it is of IPv4; then, of what is about ports, the protocol, and a port.
type Bits = [u8; PORTS as usize];

/// The number of groups of an address, and of one with ports.
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
        let family = |to: IpNet| u8::from(to.addr().is_ipv6());
        let Key { protocol, ports, to } = self;
        let about = match (protocol, to) {
            (Some(protocol), None) => protocol as u8,
            (Some(_), Some(to)) => 3 + family(to),
            (None, to) => 5 + to.map_or(0, family),
        };
        let address = to.map_or(0, |to| match to.addr() {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => v6.to_bits(),
        });
        let [first, last] = [ports.first(), ports.last()].map(|port| {
            let port = protocol.map_or(0, |protocol| (protocol as u32) << 16 | u32::from(port));
            std::array::from_fn(|at| match u32::try_from(at).unwrap_or(u32::MAX) {
                at @ 0..32 => (address >> (124 - 4 * at) & 0xf) as u8,
                at => (port >> (144 - 4 * at) & 0xf) as u8,
            })
        });
        Span { about, first, last }
    }

    /// The number of groups of four bits in it.
    fn length(self) -> u8 {
        if self.protocol.is_none() { ADDRESS } else { PORTS }
    }
}

/// The number of groups of four bits that both begin with.
fn in_common(a: Bits, b: Bits) -> u8 {
    (0..PORTS).find(|at| a[usize::from(*at)] != b[usize::from(*at)]).unwrap_or(PORTS)
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
        let first_address = |to: IpNet| match to.addr() {
            IpAddr::V4(v4) => IpAddr::from(Ipv4Addr::from_bits(v4.to_bits() & !(others(0) as u32))),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !others(0)).into(),
        };
        let other_ports = (others(ADDRESS + 1) >> 112) as u16;
        let first = key.ports.first() & !other_ports;
        let key = Key {
            protocol: key.protocol.map(|protocol| if length > ADDRESS { protocol } else { Protocol::Tcp }),
            ports: PortRange::new(first.max(1), first | other_ports).unwrap_or(key.ports),
            to: key.to.map(|to| first_address(to).into()),
        };
        Block { key, length }
    }

    /// Whether it has all that a key is about.
    fn has(&self, key: Key) -> bool {
        let Span { first, last, .. } = key.span();
        in_common(first, last) >= self.length && Block::around(key, self.length) == *self
    }

    /// The condition of its node's calls.
    pub(super) fn condition(&self) -> Key {
        let bits_of = |network: IpNet| 4 * self.length.min(ADDRESS) - (128 - network.max_prefix_len());
        Key {
            protocol: self.key.protocol.filter(|_| self.length > ADDRESS),
            to: self.key.to.and_then(|network| IpNet::new(network.addr(), bits_of(network)).ok()),
            ..self.key
        }
    }
}

impl fmt::Display for Block {
    /// The name of its node: `tcp.8080-8095`, `host.192.0.2.0_28`, `host.192.0.2.1.tcp.8080-8095`, `10.0.0.0_28`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { protocol, ports, to } = self.condition();
        if self.key.protocol.is_some() && to.is_some() {
            f.write_str("host.")?;
        }
        match (protocol, to) {
            (Some(protocol), None) => write!(f, "{protocol}.{ports}"),
            (Some(protocol), Some(to)) => write!(f, "{}.{protocol}.{ports}", to.addr()),
            (None, to) => to.map_or(Ok(()), |to| write!(f, "{}_{}", to.addr(), to.prefix_len())),
        }
    }
}

/// What a ruleset of the tree has calls of: a jail's anchor, or a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub(super) block: Block,
    /// The name of the jail's anchor below `kport`; `None` for a node.
    pub(super) child: Option<String>,
    pub(super) kinds: Kinds,
    /// The number of entries in it and below.
    entries: u32,
    /// The number of calls within each other below it.
    height: u8,
}

impl From<Entry> for Item {
    fn from(Entry { key, child, kinds }: Entry) -> Item {
        Item { block: Block { key, length: key.length() }, child: Some(child), kinds, entries: 1, height: 0 }
    }
}

impl Item {
    pub fn key(&self) -> Key {
        self.block.key
    }

    fn is_about_as(&self, entry: &Entry) -> bool {
        self.key() == entry.key && self.child.as_ref() == Some(&entry.child)
    }

    fn is_node(&self) -> bool {
        self.child.is_none()
    }

    fn span(&self) -> Span {
        self.key().span()
    }
}

/// Sorted by key; anchors with the same key by name, as pf walks the anchors that a wildcard calls (pf_kanchor_compare).
pub(super) fn sorted(mut items: Vec<Item>) -> Vec<Item> {
    items.sort_by_cached_key(|item| (item.span(), item.child.clone()));
    items
}

fn total(items: &[Item]) -> u32 {
    items.iter().map(|item| item.entries).sum()
}

fn height(items: &[Item]) -> u8 {
    items.iter().map(|item| item.height).max().unwrap_or(0)
}

/// A ruleset of the tree: as it was, and as it is to be, empty for a node that is not needed.
pub type Changed = (Option<Block>, Vec<Item>, Vec<Item>);

/// Every ruleset of the tree of these entries.
pub fn whole(entries: &[Entry]) -> BTreeMap<Option<Block>, Vec<Item>> {
    let Ok(made) = change(|_| Ok::<_, Infallible>(vec![]), &[], &super::distinct(entries));
    let made = made.into_iter().map(|(block, _, items)| (block, items));
    made.filter(|(block, items)| block.is_none() || !items.is_empty()).collect()
}

/// Changes the set of a tree: what is removed need not be in it, and what is added may be. Returns every ruleset that was read or
/// made; each is read at most once, and only if it is needed. `load` reads what a node has, or with `None` the anchor `kport`.
pub fn change<E>(
    load: impl FnMut(Option<&Block>) -> Result<Vec<Item>, E>, removed: &[Entry], added: &[Entry],
) -> Result<Vec<Changed>, E> {
    let mut tree = Tree { load, known: BTreeMap::new() };
    let mut items = tree.take(None)?;
    for entry in removed.iter().chain(added) {
        items = tree.without(items, entry)?;
    }
    items.extend(added.iter().cloned().map(Item::from));
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
    tree.make(None, sorted(root));
    Ok(tree.known.into_iter().map(|(block, (old, new))| (block, old, new)).collect())
}

/// The rulesets of a tree, as far as they are needed.
struct Tree<L> {
    load: L,
    /// as they are, and as they are to be
    known: BTreeMap<Option<Block>, (Vec<Item>, Vec<Item>)>,
}

impl<E, L: FnMut(Option<&Block>) -> Result<Vec<Item>, E>> Tree<L> {
    /// What a ruleset has, which is not needed any more, unless it is made again.
    fn take(&mut self, block: Option<Block>) -> Result<Vec<Item>, E> {
        if let Some((_, new)) = self.known.get_mut(&block) {
            return Ok(std::mem::take(new));
        }
        let items = (self.load)(block.as_ref())?;
        self.known.insert(block, (items.clone(), vec![]));
        Ok(items)
    }

    fn make(&mut self, block: Option<Block>, items: Vec<Item>) {
        self.known.entry(block).or_default().1 = items;
    }

    /// All entries of these items.
    fn entries(&mut self, items: Vec<Item>) -> Result<Vec<Item>, E> {
        let mut all = vec![];
        for item in items {
            if item.is_node() {
                let below = self.take(Some(item.block))?;
                all.append(&mut self.entries(below)?);
            } else {
                all.push(item);
            }
        }
        Ok(all)
    }

    /// The items without an entry, and with what the nodes have in which it may be.
    fn without(&mut self, mut items: Vec<Item>, entry: &Entry) -> Result<Vec<Item>, E> {
        items.retain(|item| !item.is_about_as(entry));
        let Some(place) = items.iter().position(|item| item.is_node() && item.block.has(entry.key)) else {
            return Ok(items);
        };
        let node = items.swap_remove(place);
        items.append(&mut self.take(Some(node.block))?);
        self.without(items, entry)
    }

    /// The ruleset that has the entries of these items, which are all about the same.
    fn arrange(&mut self, mut items: Vec<Item>) -> Result<Vec<Item>, E> {
        if total(&items) <= MOST {
            return self.entries(items).map(sorted);
        }
        // groups of four bits that all have in common
        let at = common(&items);
        if let Some(place) = items.iter().position(|item| item.is_node() && item.block.length <= at) {
            let node = items.swap_remove(place);
            items.append(&mut self.take(Some(node.block))?);
            return self.arrange(items);
        }
        if at >= items[0].key().length() {
            return Ok(sorted(items));
        }
        let mut parts: BTreeMap<u8, Vec<Item>> = BTreeMap::new();
        let mut made = vec![];
        for item in items {
            let Span { first, last, .. } = item.span();
            match first[usize::from(at)] {
                next if next == last[usize::from(at)] => parts.entry(next).or_default().push(item),
                _ => made.push(item),
            }
        }
        for part in parts.into_values() {
            let block = Block::around(part[0].key(), at + 1);
            if total(&part) <= FEW || part.len() == 1 && part[0].block == block {
                made.extend(part);
                continue;
            }
            let items = self.arrange(part)?;
            let kinds = items.iter().map(|item| item.kinds).fold(Kinds::default(), Kinds::or);
            let height = height(&items).saturating_add(1);
            made.push(Item { block, child: None, kinds, entries: total(&items), height });
            self.make(Some(block), items);
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
