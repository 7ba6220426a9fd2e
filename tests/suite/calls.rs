//! The tree of calls: every packet that a jail's rules match reaches them, as if pf.conf called every anchor by wildcard, and what pf
//! looks at for a packet does not grow with the number of jails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kport::calls::{self, Entry};
use kport::deadline::Deadline;
use kport::error::Result;
use kport::host::HostInterface;
use kport::name::{Anchor, JailName};
use kport::net::{Place, PortRange, Protocol};
use kport::options::Options;
use kport::pf::native::Native;
use kport::publication::{Publication, Redirect};
use kport::publisher::{Liveness, Outcome, Publisher, Unobserved};
use kport::rule::Rule;
use kport::rules;
use kport::trace::{Looked, Party, Release, Trace, World};
use proptest::prelude::*;

use crate::support::fake_kernel::{Fake, RULE, Stored};
use crate::support::offsets as at;
use crate::support::rig::{Rig, request};

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
    world.gateway.inet = "em0".parse().ok();
    world.gateway.inet6 = "em0".parse().ok();
    let main = format!(
        "nat-anchor \"{call}\"\nrdr-anchor \"{call}\"\nblock log all\npass out on em0 all\npass quick inet6 proto ipv6-icmp\n\
         anchor \"{call}\"\n"
    );
    world.load_main(&main).unwrap();
    world
}

/// A jail's mapping, with the addresses of the jail.
#[derive(Clone, Debug)]
struct Mapping {
    jail: usize,
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

fn published(mapping: &Mapping) -> Option<(Anchor, Vec<Rule>, Redirect)> {
    let Mapping { jail, place, protocol, first, more, inner, v6: is_v6, af_to, options } = *mapping;
    let name: JailName = format!("j{jail}").parse().unwrap();
    let af_to = af_to && protocol != Protocol::Sctp;
    let place = match place {
        0 => Place::Interface("em0".parse().unwrap()),
        1 => Place::Any,
        2 if is_v6 || af_to => Place::Address(HOST6.parse().unwrap()),
        2 => Place::Address(HOST.parse().unwrap()),
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
    Some((name.anchor(), rules::rules(&publication), redirect))
}

fn mapping(jails: usize) -> impl Strategy<Value = Mapping> {
    let port = prop_oneof![1024_u16..65000, 8000_u16..8400];
    let more = prop_oneof![3 => Just(0_u16), 1 => 1_u16..40];
    (
        (0..jails, 0_u8..4, prop::sample::select(&Protocol::ALL[..]), port, more),
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
    let (ours, client, neighbour) = match is_v6 {
        true => (at(HOST6), at("2001:db8::99"), at("fd00::99")),
        false => (at(HOST), at("192.0.2.100"), at("10.0.0.99")),
    };
    let mut made = vec![
        (on("bridge0"), protocol, neighbour, SocketAddr::new(target, jail.first())),
        (on("em0"), protocol, client, SocketAddr::new(target, jail.last())),
        (Party::Host, protocol, ours, SocketAddr::new(target, jail.first())),
    ];
    made.retain(|(.., from, to)| from.is_ipv4() == to.is_ipv4());
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
        // one mapping a jail, and no two of the same protocol with ports in common, as kport refuses
        let mut all: Vec<(Anchor, Vec<Rule>, Redirect)> = vec![];
        for (anchor, rules, redirect) in mappings.iter().filter_map(published) {
            let taken = |other: &Redirect| other.protocol == redirect.protocol && other.host.overlaps(redirect.host);
            if !all.iter().any(|(other, _, theirs)| *other == anchor || taken(theirs)) {
                all.push((anchor, rules, redirect));
            }
        }
        let mut entries = vec![];
        for (anchor, rules, _) in &all {
            by_wildcard.load(anchor.path(), rules);
            tree.load(anchor.path(), rules);
            entries.extend(calls::entries(anchor, rules));
        }
        tree.call(&entries);
        for index in asked {
            let (_, _, redirect) = &all[index.index(all.len())];
            for (party, protocol, from, to) in packets(redirect) {
                let one = by_wildcard.clone().trace(&party, protocol, from, to);
                let other = tree.clone().trace(&party, protocol, from, to);
                prop_assert_eq!(becomes(&one), becomes(&other), "{} {}\n{}\n{}", party, to, one, other);
            }
        }
    }
}

fn simple(jail: usize, port: u16, random: bool) -> Mapping {
    Mapping {
        jail,
        place: 0,
        protocol: Protocol::Tcp,
        first: port,
        more: 0,
        inner: 80,
        v6: random,
        af_to: false,
        options: 0,
    }
}

/// What is looked at for a packet that nobody publishes, and for one to the last jail.
fn looked(jails: usize, random: bool) -> [Looked; 2] {
    let mut tree = world(Release::V15, "kport");
    let mut entries: Vec<Entry> = vec![];
    let mut last = 0;
    for jail in 0..jails {
        // distinct: an odd factor, modulo a power of two
        let port = if random { (jail as u16).wrapping_mul(40503) } else { 10_000 + jail as u16 };
        let Some((anchor, rules, _)) = published(&simple(jail, port.max(1), random)) else { continue };
        last = port.max(1);
        // without the calls, which `load` would make each time
        tree.load_conf(anchor.path(), &kport::pfconf::Conf::of_text(kport::rule::text(&rules).as_bytes()).unwrap());
        entries.extend(calls::entries(&anchor, &rules));
    }
    tree.call(&entries);
    let (client, host): (IpAddr, IpAddr) = match random {
        true => ("2001:db8::99".parse().unwrap(), HOST6.parse().unwrap()),
        false => ("192.0.2.100".parse().unwrap(), HOST.parse().unwrap()),
    };
    let em0 = Party::Network("em0".parse().unwrap());
    [9, last].map(|port| {
        let (from, to) = (SocketAddr::new(client, 40000), SocketAddr::new(host, port));
        tree.clone().trace(&em0, Protocol::Tcp, from, to).looked
    })
}

#[test]
fn what_pf_looks_at_does_not_grow_with_the_jails() {
    for random in [false, true] {
        for jails in [1, 10, 100, 1_000, 10_000] {
            let log = (jails as f64).log2().ceil() as u64;
            let [unrelated, published] = looked(jails, random);
            assert!(unrelated.rules <= 90 + 12 * log, "{jails}: {unrelated:?}");
            assert!(published.rules <= 250 + 25 * log, "{jails}: {published:?}");
            assert!(published.anchors <= 20 + log, "{jails}: {published:?}");
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
        let native =
            Native::over(&self.fake, deadline).with_cache(self.rig.state("pf-rulesets.json"), "first".to_owned());
        self.rig.with(&native, &Unobserved, act)
    }

    fn publish(&self, n: u16) -> Result<Outcome> {
        let mut request = request(&format!("j{n}"), &format!("{}:80 {}:53/udp", 20000 + n * 7, 20000 + n));
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
