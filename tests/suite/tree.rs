//! The tree of calls: its shape is a function of what is called, whatever was called before.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};

use kport::calls::{self, Block, Entry, Item, Key, Kinds, whole};
use kport::net::{PortRange, Protocol};
use proptest::prelude::*;

fn entry(key: Key, jail: usize) -> Entry {
    let kinds = Kinds { translates: !jail.is_multiple_of(7), filters: jail.is_multiple_of(3) };
    Entry { key, child: format!("j{jail}"), kinds }
}

fn key() -> impl Strategy<Value = Key> {
    let protocol = prop::sample::select(&Protocol::ALL[..]);
    let port = prop_oneof![1_u16.., 8000_u16..8300];
    let ports = (protocol, port, prop_oneof![4 => Just(0_u16), 1 => 1_u16..60]);
    let ports = ports
        .prop_map(|(protocol, first, more)| (protocol, PortRange::new(first, first.saturating_add(more)).unwrap()));
    let host = prop_oneof![
        (0_u32..300).prop_map(|n| Ipv4Addr::from_bits(0xc000_0200 + n).into()),
        any::<u64>().prop_map(|n| Ipv6Addr::from_bits(0x2001 << 112 | u128::from(n)).into()),
    ];
    let few = prop::sample::select(&[(Protocol::Tcp, "443"), (Protocol::Udp, "443"), (Protocol::Tcp, "8000-8010")][..]);
    prop_oneof![
        4 => ports.clone().prop_map(|(protocol, ports)| Key::ports(protocol, ports)),
        2 => (host.clone(), few).prop_map(|(to, (protocol, ports))| Key::at(to, protocol, ports.parse().unwrap())),
        2 => (host, ports).prop_map(|(to, (protocol, ports))| Key::at(to, protocol, ports)),
        2 => (0_u32..300).prop_map(|n| Key::address(Ipv4Addr::from_bits(0x0a00_0000 + n).into())),
        1 => any::<u32>().prop_map(|n| Key::address(Ipv4Addr::from_bits(n).into())),
        2 => any::<u64>().prop_map(|n| Key::address(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(n)).into())),
    ]
}

type Rulesets = BTreeMap<Option<Block>, Vec<Item>>;

fn change(held: &mut Rulesets, removed: &[Entry], added: &[Entry]) -> usize {
    let before = held.clone();
    let load = |block: Option<&Block>| Ok::<_, Infallible>(before.get(&block.copied()).cloned().unwrap_or_default());
    let Ok(changed) = calls::change(load, removed, added);
    let mut differ = 0;
    for (block, old, new) in changed {
        assert_eq!(old, before.get(&block).cloned().unwrap_or_default());
        differ += old.iter().filter(|item| !new.contains(item)).count();
        differ += new.iter().filter(|item| !old.contains(item)).count();
        held.insert(block, new);
    }
    held.retain(|block, items| block.is_none() || !items.is_empty());
    differ
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever was added and removed before, the tree is that of the set.
    #[test]
    fn its_shape_is_a_function_of_the_set(
        keys in prop::collection::vec(key(), 0..400),
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..300),
    ) {
        let mut set: BTreeMap<(Key, String), Entry> = BTreeMap::new();
        let mut held = Rulesets::new();
        for (n, key) in keys.iter().enumerate() {
            let new = entry(*key, n % 90);
            set.insert((*key, new.child.clone()), new);
        }
        let all: Vec<Entry> = set.values().cloned().collect();
        change(&mut held, &[], &all);
        prop_assert_eq!(&held, &whole(&all));
        for (at, stays) in steps {
            if all.is_empty() {
                break;
            }
            let one = all[at.index(all.len())].clone();
            let id = (one.key, one.child.clone());
            if stays {
                change(&mut held, &[], std::slice::from_ref(&one));
                set.insert(id, one);
            } else {
                change(&mut held, std::slice::from_ref(&one), &[]);
                set.remove(&id);
            }
        }
        let now: Vec<Entry> = set.values().cloned().collect();
        prop_assert_eq!(&held, &whole(&now));
        let bound = 64;
        for (block, items) in &held {
            // apart from ranges that are in several parts, and several anchors of one key
            let is_range = |key: &Key| key.protocol.is_some() && key.ports.count() > 1;
            let keys: HashSet<Key> = items.iter().map(Item::key).filter(|key| !is_range(key)).collect();
            let most = if block.is_none() { 7 * bound } else { bound };
            prop_assert!(keys.len() <= most);
        }
    }

    /// One more changes at most one ruleset's worth of calls.
    #[test]
    fn a_small_change_is_a_small_difference(count in 1_usize..2000, at in any::<u16>()) {
        let all: Vec<Entry> = (0..count).map(|n| {
            entry(Key::address(Ipv4Addr::from_bits(0x0a00_0000 + n as u32).into()), n)
        }).collect();
        let mut held = whole(&all);
        let new = [entry(Key::address(Ipv4Addr::from_bits(u32::from(at) << 8 | 7).into()), count)];
        prop_assert!(change(&mut held, &[], &new) <= 80);
        prop_assert!(change(&mut held, &new, &[]) <= 80);
        prop_assert_eq!(held, whole(&all));
    }
}

#[test]
fn names_of_nodes() {
    let port = Key::ports(Protocol::Tcp, "8080".parse().unwrap());
    let at = |address: &str| Key::at(address.parse().unwrap(), Protocol::Sctp, "8080".parse().unwrap());
    let v6 = Key::address("fd00::12:3".parse().unwrap());
    for (key, length, name) in [
        (port, 34, "tcp.4096-8191"),
        (port, 36, "tcp.8080-8095"),
        (port, 37, "tcp.8080"),
        (Key::address("10.0.0.77".parse().unwrap()), 31, "10.0.0.64_28"),
        (v6, 1, "f000::_4"),
        (v6, 31, "fd00::12:0_124"),
        (v6, 32, "fd00::12:3_128"),
        (at("192.0.2.1"), 25, "host.192.0.0.0_4"),
        (at("192.0.2.1"), 32, "host.192.0.2.1_32"),
        (at("192.0.2.1"), 33, "host.192.0.2.1.sctp.1-65535"),
        (at("192.0.2.1"), 36, "host.192.0.2.1.sctp.8080-8095"),
        (at("2001:db8::77"), 31, "host.2001:db8::70_124"),
        (at("2001:db8::77"), 37, "host.2001:db8::77.sctp.8080"),
    ] {
        assert_eq!(Block::around(key, length).to_string(), name);
    }
}

/// Each address has another bit than all before it: a tree of them would be as deep as an address is long.
#[test]
fn there_is_no_tree_that_is_too_deep_for_pf() {
    let chain = (0..32).flat_map(|at| (1..=5_u128).map(move |n| n << (124 - 4 * at)));
    let all: Vec<Entry> = chain
        .chain(0..40)
        .enumerate()
        .map(|(n, bits)| entry(Key::address(Ipv6Addr::from_bits(bits).into()), n))
        .collect();
    let mut held = whole(&all);
    assert_eq!(held.len(), 1);
    assert_eq!(held[&None].len(), all.len());
    change(&mut held, &all[..100], &[]);
    assert_eq!(held, whole(&all[100..]));
    assert!(held.len() > 1);
}
