//! The tree of calls: every packet that a jail's rules match reaches them, as if pf.conf called every anchor by wildcard, and what pf
//! looks at for a packet does not grow with the number of jails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use kport::calls::{self, Entry};
use kport::deadline::Deadline;
use kport::error::Result;
use kport::host::HostInterface;
use kport::name::{Anchor, JailName};
use kport::net::{Place, PortRange, Protocol};
use kport::options::Options;
use kport::pf::native::Native;
use kport::pf::pfctl::Pfctl;
use kport::publication::{Publication, Redirect};
use kport::publisher::{Liveness, Outcome, Publisher, Unobserved};
use kport::rule::Rule;
use kport::store::Store;
use kport::trace::{Looked, Party, Release, Trace, World};
use kport::{doctor, rules};
use proptest::prelude::*;

use crate::support::fake_kernel::{Fake, RULE, Stored};
use crate::support::rig::{Rig, request};
use crate::support::{offsets as at, standin};

const HOST: &str = "192.0.2.1";
const HOST6: &str = "2001:db8::1";

fn world(release: Release, call: &str) -> World {
    let interface = |name: &str, group: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        HostInterface::up(name.parse().unwrap(), vec![group.parse().unwrap()], addresses)
    };
    let interfaces = vec![
        interface("em0", "egress", &["192.0.2.1/24", "2001:db8::1/64"]),
        interface("em1", "egress", &["198.51.100.1/24"]),
        interface("bridge0", "bridge", &["10.0.0.1/8", "fd00::1/64"]),
        interface("lo0", "lo", &["127.0.0.1/8", "::1/128"]),
    ];
    let mut world = World::new(release, interfaces);
    world.lookup.gateway.inet = "em0".parse().ok();
    world.lookup.gateway.inet6 = "em0".parse().ok();
    let main = format!(
        "nat-anchor \"{call}\"\nrdr-anchor \"{call}\"\nblock log all\npass out on em0 all\npass quick inet6 proto ipv6-icmp\n\
         anchor \"{call}\"\n"
    );
    world.load_text("", &main).unwrap();
    world
}

/// A jail's mapping, with the addresses of the jail.
#[derive(Clone, Debug)]
struct Mapping {
    jail: usize,
    /// From 4 on an address of the host, of which there are many.
    place: u8,
    protocol: Protocol,
    first: u16,
    more: u16,
    inner: u16,
    v6: bool,
    af_to: bool,
    options: u8,
}

fn v4(jail: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0100 + u32::try_from(jail).unwrap() * 3).into()
}

/// At random in one /64.
fn v6(jail: usize) -> IpAddr {
    let low = (jail as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(low)).into()
}

/// One of the host's addresses.
fn host(n: u32, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n) << 60 | 1).into()
    } else {
        Ipv4Addr::from_bits(0xc612_0001 + n).into()
    }
}

fn published(mapping: &Mapping) -> Option<(Anchor, Vec<Rule>, Redirect, Vec<Redirect>)> {
    let Mapping { jail, place, protocol, first, more, inner, v6: is_v6, af_to, options } = *mapping;
    let name: JailName = format!("j{jail}").parse().unwrap();
    let af_to = af_to && protocol != Protocol::Sctp;
    let place = match place {
        0 => Place::Interface("em0".parse().unwrap()),
        1 => Place::Any,
        2 if is_v6 || af_to => Place::Address(HOST6.parse().unwrap()),
        2 => Place::Address(HOST.parse().unwrap()),
        many @ 4.. => Place::Address(host(many.into(), is_v6 || af_to)),
        _ if is_v6 || af_to => Place::Interface("em0".parse().unwrap()),
        _ => Place::Interface("em1".parse().unwrap()),
    };
    let more = if af_to { 0 } else { more };
    let host = PortRange::new(first, first.saturating_add(more))?;
    let inner = if protocol == Protocol::Sctp { host } else { PortRange::starting_at(inner, host.count())? };
    let target = if is_v6 && !af_to { v6(jail) } else { v4(jail) };
    let redirect = Redirect { place, protocol, host, target, jail: inner, af_to };
    let options = Options {
        hairpin: options & 1 > 0,
        host_access: options & 2 > 0,
        quick: options & 4 == 0,
        masquerade: options & 16 > 0,
        reach: if options & 8 > 0 { vec![] } else { Options::default().reach },
        ..Options::default()
    };
    let publication = Publication::new(name.clone(), vec![redirect], options, |_| Ok("bridge0".parse().ok())).ok()?;
    Some((name.anchor(), rules::rules(&publication), redirect, publication.claims()))
}

fn mapping(jails: usize) -> impl Strategy<Value = Mapping> {
    let port = prop_oneof![2 => 1024_u16..65000, 2 => 8000_u16..8400, 1 => Just(443)];
    let more = prop_oneof![3 => Just(0_u16), 1 => 1_u16..40];
    (
        (0..jails, prop_oneof![0_u8..4, 4_u8..150], prop::sample::select(&Protocol::ALL[..]), port, more),
        (1_u16..60000, any::<bool>(), prop::bool::weighted(0.2), 0_u8..32),
    )
        .prop_map(|((jail, place, protocol, first, more), (inner, v6, af_to, options))| Mapping {
            jail,
            place,
            protocol,
            first,
            more,
            inner,
            v6,
            af_to,
            options,
        })
}

/// Packets that some rule of a redirect is about, and others.
fn packets(redirect: &Redirect) -> Vec<(Party, Protocol, SocketAddr, SocketAddr)> {
    let Redirect { protocol, host, target, jail, .. } = *redirect;
    let is_v6 = redirect.family() == kport::net::Family::Inet6;
    let at = |text: &str| -> IpAddr { text.parse().unwrap() };
    let on = |name: &str| Party::Network(name.parse().unwrap());
    let (main, client, neighbour) = match is_v6 {
        true => (at(HOST6), at("2001:db8::99"), at("fd00::99")),
        false => (at(HOST), at("192.0.2.100"), at("10.0.0.99")),
    };
    let ours = if let Place::Address(place) = redirect.place { place } else { main };
    let mut made = vec![
        (on("bridge0"), protocol, neighbour, SocketAddr::new(target, jail.first())),
        (on("em0"), protocol, client, SocketAddr::new(target, jail.last())),
        (Party::Host, protocol, ours, SocketAddr::new(target, jail.first())),
    ];
    made.retain(|(.., from, to)| from.is_ipv4() == to.is_ipv4());
    made.push((on("em0"), protocol, client, SocketAddr::new(main, host.first())));
    for port in [host.first(), host.last(), host.last().saturating_add(1)] {
        made.push((on("em0"), protocol, client, SocketAddr::new(ours, port)));
        made.push((on("bridge0"), protocol, neighbour, SocketAddr::new(ours, port)));
        made.push((Party::Host, protocol, ours, SocketAddr::new(ours, port)));
    }
    if !is_v6 {
        made.push((on("em1"), protocol, at("198.51.100.9"), SocketAddr::new(at("198.51.100.1"), host.first())));
        made.push((Party::Host, protocol, at("127.0.0.1"), SocketAddr::new(at("127.0.0.1"), host.first())));
    }
    made.into_iter().map(|(party, protocol, from, to)| (party, protocol, SocketAddr::new(from, 40000), to)).collect()
}

fn becomes(trace: &Trace) -> (String, Vec<(Party, SocketAddr)>, Vec<String>) {
    (format!("{:?}", trace.verdict), trace.possible.clone(), trace.depends_on.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_packet_that_a_jails_rules_match_reaches_them(
        mappings in prop::collection::vec(mapping(150), 1..260),
        asked in prop::collection::vec(any::<prop::sample::Index>(), 6),
        v15 in any::<bool>(),
    ) {
        let release = if v15 { Release::V15 } else { Release::V14 };
        let (mut by_wildcard, mut tree) = (world(release, "kport/*"), world(release, "kport"));
        // one mapping a jail, and no two that kport refuses
        let mut all: Vec<(Anchor, Vec<Rule>, Redirect, Vec<Redirect>)> = vec![];
        for (anchor, rules, redirect, claims) in mappings.iter().filter_map(published) {
            let clash = |one: &Redirect, other: &Redirect| {
                let apart = matches!((one.place, other.place), (Place::Address(a), Place::Address(b)) if a != b);
                !apart && other.protocol == one.protocol && other.host.overlaps(one.host)
            };
            let taken = |others: &[Redirect]| others.iter().any(|other| claims.iter().any(|one| clash(one, other)));
            if !all.iter().any(|(other, .., theirs)| *other == anchor || taken(theirs)) {
                all.push((anchor, rules, redirect, claims));
            }
        }
        // a mapping alone that cannot be published
        prop_assume!(!all.is_empty());
        let mut entries = vec![];
        for (anchor, rules, ..) in &all {
            by_wildcard.load(anchor.path(), rules);
            tree.load(anchor.path(), rules);
            entries.extend(calls::entries(anchor, rules));
        }
        tree.call(&entries);
        for index in asked {
            let (_, _, redirect, _) = &all[index.index(all.len())];
            for (party, protocol, from, to) in packets(redirect) {
                let one = by_wildcard.clone().trace(&party, protocol, from, to);
                let other = tree.clone().trace(&party, protocol, from, to);
                prop_assert_eq!(becomes(&one), becomes(&other), "{} {}\n{}\n{}", party, to, one, other);
            }
        }
    }
}

/// What the jails of a host publish: a port for each, with jails of IPv4 and ports in a row, or of IPv6 and random ports; or the same
/// ports of an address for each.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Set {
    Ports,
    RandomPorts,
    Addresses { v6: bool },
}

/// What is looked at for a packet that nobody publishes, and for one to the last jail; and the number of rulesets of calls.
fn looked(jails: usize, set: Set) -> ([Looked; 2], usize) {
    let mut tree = world(Release::V15, "kport");
    let mut entries: Vec<Entry> = vec![];
    let v6 = matches!(set, Set::RandomPorts | Set::Addresses { v6: true });
    let main = if v6 { HOST6 } else { HOST }.parse().unwrap();
    let mut last = SocketAddr::new(main, 9);
    for jail in 0..jails {
        let (to, ports) = match set {
            Set::Ports => (main, PortRange::new(10_000 + jail as u16, 10_000 + jail as u16)),
            // distinct: an odd factor, modulo a power of two
            Set::RandomPorts => {
                let port = (jail as u16).wrapping_mul(40503).max(1);
                (main, PortRange::new(port, port))
            }
            Set::Addresses { .. } if jail.is_multiple_of(3) => (host(jail as u32, v6), PortRange::new(8000, 8010)),
            Set::Addresses { .. } => (host(jail as u32, v6), PortRange::new(443, 443)),
        };
        let place = if to == main { Place::Interface("em0".parse().unwrap()) } else { Place::Address(to) };
        let (host, target) = (ports.unwrap(), if v6 { self::v6(jail) } else { v4(jail) });
        let name: JailName = format!("j{jail}").parse().unwrap();
        let redirect = Redirect { place, protocol: Protocol::Tcp, host, target, jail: host, af_to: false };
        let publication = Publication::new(name.clone(), vec![redirect], Options::default(), |_| Ok(None)).unwrap();
        let rules = rules::rules(&publication);
        last = SocketAddr::new(to, host.last());
        // without the calls, which `load` would make each time
        let text = kport::rule::text(&rules);
        tree.load_conf(name.anchor().path(), &kport::pfconf::Conf::of_text(text.as_bytes()).unwrap());
        entries.extend(calls::entries(&name.anchor(), &rules));
    }
    tree.call(&entries);
    let client: IpAddr = if v6 { "2001:db8::99" } else { "192.0.2.100" }.parse().unwrap();
    let em0 = Party::Network("em0".parse().unwrap());
    // the port of a jail at an address that nobody publishes, or the other way round
    let unrelated = match set {
        Set::Addresses { .. } if jails.is_multiple_of(2) => SocketAddr::new(main, 443),
        _ => SocketAddr::new(last.ip(), 9),
    };
    let ask = |to| tree.clone().trace(&em0, Protocol::Tcp, SocketAddr::new(client, 40000), to).looked;
    ([unrelated, last].map(ask), calls::whole(&entries).len())
}

#[test]
fn what_pf_looks_at_does_not_grow_with_the_jails() {
    for set in [Set::Ports, Set::RandomPorts, Set::Addresses { v6: false }, Set::Addresses { v6: true }] {
        for jails in [1, 10, 100, 101, 1_000, 10_000] {
            let log = (jails as f64).log2().ceil() as u64;
            let ([unrelated, published], rulesets) = looked(jails, set);
            // pf has a limit of anchors
            assert!(rulesets <= 1 + jails / 3, "{set:?} {jails}: {rulesets}");
            assert!(unrelated.rules <= 90 + 12 * log, "{set:?} {jails}: {unrelated:?}");
            assert!(published.rules <= 250 + 25 * log, "{set:?} {jails}: {published:?}");
            assert!(published.anchors <= 20 + log, "{set:?} {jails}: {published:?}");
        }
    }
}

/// The rules of one kind, and of the next: nat, rdr, pass.
const KINDS: [i32; 3] = [2, 4, 1];

/// A host with a kernel, and with jails that each publish a port.
struct Kernel {
    rig: Rig,
    fake: Fake,
}

impl Kernel {
    fn new() -> Kernel {
        Kernel { rig: Rig::new(), fake: Fake::new() }
    }

    fn with_jails(jails: u16) -> Kernel {
        let made = Kernel::new();
        (0..jails).for_each(|n| _ = made.publish(n).unwrap());
        made
    }

    /// With a jail that publishes so many ports.
    fn with_ports(ports: u16) -> Kernel {
        let made = Kernel::new();
        let spec: Vec<String> = (0..ports).map(|n| format!("{}:80", 30000 + 5 * n)).collect();
        let mut request = request("j0", &spec.join(" "));
        request.addresses = vec![[10, 0, 0, 9].into()];
        made.run(|p| p.publish(&request)).unwrap();
        made
    }

    /// A process of its own.
    fn run<T>(&self, act: impl FnOnce(&Publisher<'_>) -> T) -> T {
        let deadline = Deadline::after(Duration::from_secs(60));
        let native = Native::over(&self.fake, deadline).with_cache(self.rig.state(""), "first".to_owned());
        self.rig.with(&native, &Unobserved, act)
    }

    fn publish(&self, n: u16) -> Result<Outcome> {
        let mut request = request(&format!("j{n}"), &format!("{}:80 {}:53/udp", 20000 + n * 7, 20000 + n));
        request.addresses = vec![Ipv4Addr::from_bits(0x0a00_0100 + u32::from(n) * 5).into()];
        self.run(|p| p.publish(&request))
    }

    /// The same ports as others, of its own address.
    fn publish_at_its_own(&self, n: u16) -> Result<Outcome> {
        let mut request = request(&format!("j{n}"), &format!("198.18.0.{n}:443:443 198.18.0.{n}:8000-8010:8000-8010"));
        // they are not the host's
        request.force = true;
        request.addresses = vec![Ipv4Addr::from_bits(0x0a00_0100 + u32::from(n) * 5).into()];
        self.run(|p| p.publish(&request))
    }

    fn unpublish(&self, n: u16) -> Result<Outcome> {
        self.run(|p| p.unpublish(&format!("j{n}").parse().unwrap(), None))
    }

    fn restore(&self) -> Outcome {
        self.run(|p| p.restore()).unwrap()
    }

    fn live(&self) -> usize {
        self.run(|p| p.list(None)).unwrap().iter().filter(|jail| jail.liveness == Liveness::Live).count()
    }

    /// What an anchor calls, with the destination port of each call.
    fn calls(&self, anchor: &str, kind: i32) -> Vec<(String, u16)> {
        let port = |stored: &Stored| {
            let at = RULE + at::DST + at::PORT;
            u16::from_be_bytes([stored.bytes[at], stored.bytes[at + 1]])
        };
        self.fake.active(anchor, kind).iter().map(|stored| (stored.anchor_call.clone(), port(stored))).collect()
    }

    /// Nothing differs from the records.
    fn is_right(&self) {
        let done = self.restore();
        assert!(!done.changed, "{:?}", done.notes);
    }
}

#[test]
fn a_publish_changes_single_calls_and_reads_none() {
    let kernel = Kernel::with_jails(3);
    assert_eq!(
        kernel.calls("kport", 4),
        [("j0", 20000), ("j1", 20007), ("j2", 20014), ("j0", 20000), ("j1", 20001), ("j2", 20002)]
            .map(|(to, port)| (to.to_owned(), port))
    );
    let count = |calls: &[&str], name: &str| calls.iter().filter(|call| **call == name).count();
    let calls = kernel.fake.calls_of(|| _ = kernel.publish(3).unwrap());
    assert_eq!(count(&calls, "DIOCCHANGERULE"), 3, "{calls:?}");
    assert_eq!(count(&calls, "DIOCGETRULENV"), 0);
    assert_eq!(kernel.calls("kport", 1).len(), 4);
    kernel.is_right();
    let calls = kernel.fake.calls_of(|| _ = kernel.unpublish(1).unwrap());
    assert_eq!((count(&calls, "DIOCCHANGERULE"), count(&calls, "DIOCGETRULENV")), (3, 0));
    kernel.is_right();
    // the cost does not grow with the jails
    let many = Kernel::with_jails(150);
    let mut costs: Vec<usize> = (150..158).map(|n| many.fake.calls_of(|| _ = many.publish(n).unwrap()).len()).collect();
    costs.sort_unstable();
    assert!(costs[4] <= 90, "{costs:?}");
    many.is_right();
    assert!(many.fake.exists("kport/+calls/tcp.20480-20495") || many.fake.exists("kport/+calls/tcp.20480-20735"));
}

#[test]
fn one_port_of_many_addresses_is_a_tree_as_well() {
    let kernel = Kernel::new();
    (1..60).for_each(|n| _ = kernel.publish_at_its_own(n).unwrap());
    assert!(kernel.fake.exists("kport/+calls/host.198.18.0.16_28"));
    assert_eq!(kernel.calls("kport/+calls/host.198.18.0.16_28", 4).len(), 32);
    kernel.publish(60).unwrap();
    assert_eq!(kernel.calls("kport", 4).len(), 6);
    kernel.is_right();
    for n in 20..30 {
        kernel.unpublish(n).unwrap();
        kernel.is_right();
    }
    assert_eq!(kernel.live(), 50);
}

#[test]
fn nothing_is_left_when_nothing_is_published() {
    let kernel = Kernel::with_jails(60);
    assert!(kernel.rig.state("calls").read_dir().unwrap().count() > 1);
    (0..60).for_each(|n| _ = kernel.unpublish(n).unwrap());
    for kind in KINDS {
        assert_eq!(kernel.calls("kport", kind), []);
    }
    assert!(!kernel.fake.exists("kport/+calls") && !kernel.fake.exists("kport/j0"));
    assert_eq!(kernel.rig.state("calls").read_dir().unwrap().count(), 1);
}

#[test]
fn a_kernel_without_changerule_loads_what_differs() {
    let kernel = Kernel::with_jails(50);
    kernel.fake.refuse_change_rule();
    kernel.publish(50).unwrap();
    kernel.unpublish(3).unwrap();
    kernel.is_right();
    assert_eq!(kernel.live(), 50);
}

#[test]
fn calls_that_are_flushed_or_edited_are_found_and_made_again() {
    let kernel = Kernel::with_jails(40);
    let flush = || KINDS.iter().for_each(|kind| kernel.fake.set_rules("kport", *kind, vec![]));
    flush();
    assert_eq!(kernel.live(), 0);
    // the same ports again
    assert!(kernel.publish(7).unwrap().changed);
    assert_eq!(kernel.live(), 40);
    kernel.is_right();
    flush();
    assert_eq!(kernel.restore().notes, ["the calls of kport's anchors: loaded again"]);
    assert_eq!(kernel.live(), 40);
    flush();
    kernel.unpublish(39).unwrap();
    assert_eq!(kernel.live(), 39);
    // another program loads as many, whatever was edited before
    for n in 100..106 {
        kernel.publish(n).unwrap();
        let others = kernel.fake.active("kport", 4);
        kernel.fake.set_rules("kport", 4, others.iter().cloned().rev().collect());
        kernel.publish(n + 100).unwrap();
        kernel.is_right();
    }
}

/// A record that this version cannot read: its rules and its calls stay.
#[test]
fn the_calls_of_a_record_of_another_version_stay() {
    let kernel = Kernel::with_jails(5);
    let path = kernel.rig.state("jails/j2.json");
    let record = std::fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":9");
    std::fs::write(&path, record).unwrap();
    std::fs::remove_dir_all(kernel.rig.state("calls")).unwrap();
    kernel.publish(6).unwrap();
    assert!(kernel.calls("kport", 4).contains(&("j2".to_owned(), 20014)));
}

/// Killed before each call of the kernel: what others have published stays, and the next call makes it right.
#[test]
fn a_kill_between_two_steps_is_made_right_by_the_next_call() {
    let last = 1;
    // one call more, or one that splits a ruleset
    for ports in [3, 32] {
        for unpublishes in [false, true] {
            for at in 0.. {
                let kernel = Kernel::with_ports(ports);
                if unpublishes {
                    kernel.publish(last).unwrap();
                }
                kernel.fake.kill_at(Some(at));
                let act = || if unpublishes { kernel.unpublish(last) } else { kernel.publish(last) };
                let done = catch_unwind(AssertUnwindSafe(act)).is_ok();
                kernel.fake.kill_at(None);
                assert!(kernel.live() >= 1, "{ports} {unpublishes} {at}");
                match at % 3 {
                    // of another jail, the same again, all
                    0 => _ = kernel.publish(last + 1).unwrap(),
                    1 => _ = if unpublishes { kernel.unpublish(last) } else { kernel.publish(last) }.unwrap(),
                    _ => _ = kernel.restore(),
                }
                kernel.restore();
                kernel.is_right();
                let all = kernel.run(|p| p.list(None)).unwrap();
                assert!(all.iter().all(|jail| jail.liveness == Liveness::Live), "{ports} {unpublishes} {at}: {all:?}");
                if done {
                    break;
                }
            }
        }
    }
}

/// A kill between the change of pf and what is remembered of it, in one of the files or in all; and files that are damaged.
#[test]
fn what_is_remembered_of_the_calls_may_be_old() {
    let read = |kernel: &Kernel| -> BTreeMap<PathBuf, Vec<u8>> {
        let files = kernel.rig.state("calls").read_dir().unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    };
    // one call more, or one that splits a ruleset
    for ports in [3, 32] {
        for unpublishes in [false, true] {
            let mut names: Vec<Option<PathBuf>> = vec![None];
            for n in 0.. {
                let kernel = Kernel::with_ports(ports);
                if unpublishes {
                    kernel.publish(1).unwrap();
                }
                let old = read(&kernel);
                if unpublishes { kernel.unpublish(1) } else { kernel.publish(1) }.unwrap();
                if n == 0 {
                    let all: BTreeSet<PathBuf> = old.keys().cloned().chain(read(&kernel).into_keys()).collect();
                    names.extend(all.iter().map(|path| path.file_name().map(PathBuf::from)));
                }
                let Some(which) = names.get(n) else { break };
                for path in old.keys().cloned().chain(read(&kernel).into_keys()) {
                    if which.as_ref().is_none_or(|name| path.ends_with(name)) {
                        match old.get(&path) {
                            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                            None => _ = std::fs::remove_file(&path),
                        }
                    }
                }
                match n % 4 {
                    0 => _ = kernel.publish(2).unwrap(),
                    1 => _ = if unpublishes { kernel.publish(1) } else { kernel.unpublish(1) }.unwrap(),
                    2 => _ = kernel.publish(1).unwrap(),
                    _ => {
                        read(&kernel).keys().for_each(|path| std::fs::write(path, "{}").unwrap());
                        kernel.publish(3).unwrap();
                    }
                }
                kernel.is_right();
                let all = kernel.run(|p| p.list(None)).unwrap();
                assert!(all.iter().all(|jail| jail.liveness == Liveness::Live), "{ports} {unpublishes} {n}: {all:?}");
            }
        }
    }
}

/// The tickets of a node that is gone begin again with the next one: what is remembered of it goes before the next one is there.
#[test]
fn nothing_is_remembered_of_a_node_that_was_there_before() {
    let mut gone_before = false;
    for at in 0.. {
        let kernel = Kernel::with_ports(32);
        kernel.publish(1).unwrap();
        let nodes = || kernel.rig.state("calls").read_dir().unwrap().map(|entry| entry.unwrap().path());
        let (node, old) = nodes()
            .filter(|path| !path.ends_with("kport.cache"))
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .max()
            .unwrap();
        let name = node.file_stem().unwrap().to_str().unwrap().to_owned();
        kernel.unpublish(1).unwrap();
        let is_there = || kernel.fake.exists(&format!("kport/+calls/{name}"));
        assert!(!is_there() && !node.exists());
        // killed before it was removed
        std::fs::write(&node, &old).unwrap();
        kernel.fake.kill_at(Some(at));
        let done = catch_unwind(AssertUnwindSafe(|| kernel.publish(1))).is_ok();
        kernel.fake.kill_at(None);
        gone_before |= !is_there() && !node.exists();
        if done {
            assert!(is_there());
            break;
        }
    }
    assert!(gone_before);
}

/// Each call of the kernel fails once: the change is made, or undone.
#[test]
fn a_call_that_fails_is_no_half_change() {
    for errno in [libc::EINVAL, libc::ENOMEM, libc::EBUSY] {
        for at in 0.. {
            let kernel = Kernel::with_ports(3);
            kernel.fake.fail(at, errno);
            let done = kernel.publish(1);
            let reached = kernel.fake.failed();
            kernel.fake.heal();
            assert_eq!(kernel.live(), if done.is_ok() { 2 } else { 1 }, "{errno} {at}: {done:?}");
            kernel.restore();
            kernel.is_right();
            if !reached {
                break;
            }
        }
    }
}

/// pfctl(8) cannot show what is called by a node that native has made: its anchors are read one by one.
#[test]
fn the_tree_of_native_is_read_by_pfctl() {
    let (rig, pf) = (Rig::new(), standin::Pfctl::new());
    pf.put("", &kport::pf::files::MAIN.replace("set skip on lo\n", ""));
    let pfctl = || Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
    let run = |act: &dyn Fn(&Publisher<'_>)| rig.with(&pfctl(), &Unobserved, |p| act(p));
    let many: Vec<String> = (0..40).map(|n| format!("{}:80 em1:{}:80", 9000 + 3 * n, 9001 + 3 * n)).collect();
    let wishes =
        [("web", many.join(" ")), ("db", (1..40).map(|n| format!("192.0.2.7:{}:53/udp ", 2000 + n)).collect())];
    for (jail, spec) in &wishes {
        run(&|p| _ = p.publish(&request(jail, spec)).unwrap());
    }
    let entries: Vec<Entry> = Store::open(rig.path())
        .unwrap()
        .anchors()
        .unwrap()
        .iter()
        .flat_map(|anchor| {
            let record = Store::open(rig.path()).unwrap().get(anchor).unwrap().unwrap();
            calls::entries(anchor, &rules::of_all(&record.publications))
        })
        .collect();
    let as_native = || {
        let rulesets = calls::rulesets(&entries);
        rulesets.iter().for_each(|(path, conf)| pf.put(path, &conf.to_string()));
        rulesets.len()
    };
    assert!(as_native() > 5);
    let states = || {
        let mut states = vec![];
        rig.with(&pfctl(), &Unobserved, |p| {
            let all = p.list(None).unwrap();
            for listed in &all {
                let jail = listed.jail.clone().unwrap();
                assert_eq!(p.list(Some(&jail)).unwrap()[0].liveness, listed.liveness, "{jail}");
                let counted = p.list_with_counters(Some(&jail)).unwrap();
                assert_eq!(counted[0].liveness, listed.liveness, "{jail}");
                states.push((jail.to_string(), listed.liveness == Liveness::Live));
            }
        });
        states
    };
    let found = || -> Vec<String> {
        let findings = doctor::examine(&rig.host, &pfctl(), Store::open(rig.path()), None);
        let loaded = findings.into_iter().filter(|finding| finding.id == "anchors-loaded");
        loaded.filter(|finding| finding.level > doctor::Level::Ok).map(|finding| finding.seen).collect()
    };
    let both = |web, db| vec![("db".to_owned(), db), ("web".to_owned(), web)];
    assert_eq!(states(), both(true, true));
    assert_eq!(found(), Vec::<String>::new());
    for (jail, spec) in &wishes {
        run(&|p| assert!(!p.publish(&request(jail, spec)).unwrap().changed));
    }
    // a node without what it called
    pf.put("kport/+calls/host.192.0.2.7.udp.2016-2031", "");
    assert_eq!(found(), ["anchor kport does not call kport/db for all that jail \"db\" has published"]);
    pf.put("kport/+calls/tcp.9000-9007", "block drop all\n");
    run(&|p| assert!(p.restore().unwrap().changed));
    assert!(!pf.rules("kport").unwrap().contains("+calls"));
    assert_eq!((states(), found()), (both(true, true), vec![]));
    as_native();
    run(&|p| _ = p.unpublish(&"web".parse().unwrap(), None).unwrap());
    assert!(!pf.rules("kport").unwrap().contains("+calls"));
    assert_eq!(states(), [("db".to_owned(), true)]);
}

/// pfctl(8) takes no range in a call of rdr rules.
#[test]
fn pfctl_calls_an_address_and_its_ports() {
    let (rig, pf) = (Rig::new(), standin::Pfctl::new());
    let pfctl = Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
    let mut wish = request("web", "192.0.2.7:443:443 192.0.2.1:8000-8010:9000-9010/udp em1:8443:443");
    wish.options.host_access = true;
    rig.with(&pfctl, &Unobserved, |p| p.publish(&wish).unwrap());
    let called = pf.rules("kport").unwrap();
    let translations: Vec<&str> = called.lines().filter(|line| line.starts_with("rdr-anchor")).collect();
    assert_eq!(
        translations,
        [
            "rdr-anchor \"web\" proto tcp from any to any port = 8443",
            "rdr-anchor \"web\" inet proto tcp from any to 127.0.0.1 port = 443",
            "rdr-anchor \"web\" inet proto udp from any to 127.0.0.1",
            "rdr-anchor \"web\" inet proto udp from any to 192.0.2.1",
            "rdr-anchor \"web\" inet proto tcp from any to 192.0.2.7 port = 443",
        ]
    );
}
