//! `list`: counting rules, and merging the records with what pf has.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::name::Anchor;
use kport::net::{PortRange, Protocol};
use kport::options::{Limits, Options};
use kport::pf::Firewall;
use kport::pf::files::Sim;
use kport::pf::native::Native;
use kport::pf::pfctl::Pfctl;
use kport::publication::{Answer, Publication, Redirect};
use kport::publisher::{Liveness, Unobserved};
use kport::rule::{Count, NextHop, Routing, Rule};
use kport::rules;
use kport::store::Store;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::support::fake_kernel::Fake;
use crate::support::rig::{Rig, replaced, request};
use crate::support::standin;

const FILTER: i32 = 1;
const NAT: i32 = 2;
const RDR: i32 = 4;

fn ports() -> impl Strategy<Value = PortRange> {
    (1_u16..5, 0_u16..3).prop_map(|(first, more)| PortRange::new(first, first + more).unwrap())
}

/// Few different values, so that redirects have much in common.
fn redirect() -> impl Strategy<Value = Redirect> {
    let places = select(vec!["em0", "em1", "lo0", "bridge", "192.0.2.1", "127.0.0.1", "*", "0.0.0.0"]);
    let targets = select(vec!["10.0.0.2", "10.0.0.3", "fd00::2"]);
    (places, select(Protocol::ALL.to_vec()), ports(), targets, ports()).prop_map(
        |(place, protocol, host, target, jail)| {
            let (place, target) = (place.parse().unwrap(), target.parse().unwrap());
            Redirect { place, protocol, host, target, jail, af_to: false }
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    let reach = subsequence(vec!["bridge", "epair", "lo", "em0", "bridge"], 0..=5);
    let sources = subsequence(vec!["192.0.2.0/24", "192.0.2.7", "fd00::/64", "<friends>", "<friends>"], 0..=5);
    (reach, sources, any::<[bool; 5]>(), prop::option::of(1_u32..9)).prop_map(
        |(reach, sources, [hairpin, host_access, masquerade, log, quick], connections)| Options {
            af_to: false,
            reach: reach.iter().map(|word| word.parse().unwrap()).collect(),
            sources: sources.iter().map(|word| word.parse().unwrap()).collect(),
            reply_to: None,
            hairpin,
            host_access,
            masquerade,
            families: vec![],
            log,
            quick,
            limits: Limits { connections: connections.map(|n| n.try_into().unwrap()), ..Limits::default() },
        },
    )
}

fn publication() -> impl Strategy<Value = Publication> {
    let via = subsequence(vec![("10.0.0.2", "bridge0"), ("10.0.0.3", "bridge1"), ("fd00::2", "bridge0")], 0..=3);
    let on = subsequence(vec!["em1", "wg0"], 0..=2);
    (prop::collection::vec(redirect(), 0..6), options(), via, on).prop_map(|(redirects, options, via, on)| {
        let answer = |redirect: &Redirect, on: &str| {
            let on = on.parse().unwrap();
            let routing = Routing { reply_to: Some(NextHop { interface: on, gateway: None }), rtable: None };
            Answer { place: redirect.place, target: redirect.target, on, beyond: true, routing }
        };
        Publication {
            jail: "web".parse().unwrap(),
            answers: redirects.iter().flat_map(|redirect| on.iter().map(|on| answer(redirect, on))).collect(),
            redirects,
            options,
            via: via.iter().map(|(target, on)| (target.parse().unwrap(), on.parse().unwrap())).collect(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    /// A firewall has as many rules as the lists of the loaded ones expand to.
    #[test]
    fn as_many_rules_as_are_made(publications in prop::collection::vec(publication(), 0..3)) {
        let made = rules::of_all(&publications);
        let count = Count::of(&made);
        let single: Vec<Rule> = made.iter().flat_map(Rule::expand).collect();
        let filters = single.iter().filter(|rule| matches!(rule, Rule::Pass { .. })).count();
        prop_assert_eq!(count, Count { translations: single.len() - filters, filters });

        let dir = tempfile::tempdir().unwrap();
        let (sim, anchor) = (Sim::new(dir.path()), Anchor::from_child("web").unwrap());
        sim.replace(&anchor, &made).unwrap();
        let loaded = sim.loaded(&anchor, true).unwrap();
        prop_assert!(loaded.is_as_many(count));
        for other in [Count { filters: filters + 1, ..count }, Count { translations: count.translations + 1, ..count }] {
            prop_assert!(!loaded.is_as_many(other));
        }
        prop_assert_eq!(sim.loaded_all(&[], true).unwrap().remove("web").unwrap_or_default(), loaded);
    }
}

/// Jails with a record, anchors without, records that cannot be read, in pf or not: each is listed, in the order of the anchors.
#[test]
fn each_in_its_place() {
    let mut rig = Rig::new();
    rig.host.boot_id = "earlier".into();
    rig.publish(&request("db", "8081:80")).unwrap();
    let earlier = fs::read(rig.state("jails/db.json")).unwrap();
    rig.unpublish("db").unwrap();
    rig.host.boot_id = "first".into();
    rig.publish(&request("web", "8080:80")).unwrap();
    let rules = rig.sim().rules(&Anchor::from_child("web").unwrap()).unwrap();
    for unknown in ["a", "mail", "zoo", "damaged"] {
        rig.sim().replace(&Anchor::from_child(unknown).unwrap(), &rules).unwrap();
    }
    fs::write(rig.state("sim/_foreign.json"), "[]").unwrap();
    fs::write(rig.state("jails/damaged.json"), b"{ \"version\": 1, \"boot\": \"\xff\" }").unwrap();
    fs::write(rig.state("jails/empty.json"), "").unwrap();
    // of another boot, of another jail, and with another target
    fs::write(rig.state("jails/db.json"), earlier).unwrap();
    fs::copy(rig.state("jails/web.json"), rig.state("jails/mine.json")).unwrap();
    symlink(rig.state("jails/web.json"), rig.state("jails/link.json")).unwrap();
    fs::create_dir(rig.state("jails/folder.json")).unwrap();
    let told: Vec<String> = rig
        .list()
        .iter()
        .map(|l| {
            let problem = l.problem.as_deref().map_or("", |problem| problem.rsplit(": ").next().unwrap());
            format!("{} {} {}", l.anchor.child(), l.liveness.name(), problem.split(" at line").next().unwrap())
        })
        .collect();
    assert_eq!(
        told,
        [
            "a stale ",
            "damaged stale invalid utf-8 sequence of 1 bytes from index 25",
            "empty missing EOF while parsing a value",
            "folder missing it is not a file",
            "link missing it is a symbolic link",
            "mail stale ",
            "mine missing it is of jail \"web\"",
            "web live ",
            "zoo stale ",
        ]
    );
    // one by one they are the same
    rig.with(&rig.sim(), &Unobserved, |publisher| {
        for l in rig.list() {
            let jail = l.anchor.child().parse().unwrap();
            assert_eq!(publisher.list(Some(&jail)).unwrap(), [l]);
        }
    });
    assert!(rig.list().iter().all(|l| (l.liveness == Liveness::Live) == (l.jail.is_some())));
}

/// A list of many jails reads the records that have changed, and for the others the summaries that an earlier one has left.
#[test]
fn a_summary_stands_for_a_record_that_has_not_changed() {
    let mut rig = Rig::new();
    let name = |n: u16| format!("jail{n:03}");
    for n in 0..100 {
        let mut one = request(&name(n), &format!("{}:80", 10_000 + n));
        one.addresses = vec![[10, 0, 1, n as u8].into()];
        rig.publish(&one).unwrap();
    }
    let summaries = rig.state("summaries");
    let list = || (rig.list(), fs::read(&summaries).unwrap_or_default());
    let (before, _) = list();
    assert!(before.iter().all(|l| l.liveness == Liveness::Live && l.problem.is_none()));
    // a record that was just written may change again within the precision of its times
    std::thread::sleep(Duration::from_millis(3100));
    _ = fs::remove_file(&summaries);
    // nobody waits for the lock
    let lock = Store::open(rig.path()).unwrap().lock(Deadline::after(Duration::ZERO)).unwrap();
    assert!(list() == (before.clone(), vec![]));
    drop(lock);
    let (first, left) = list();
    assert!(first == before && left.len() > 100 * 40, "{left:?}");
    // they are used
    fs::write(&summaries, replaced(&left, "10007", "20007")).unwrap();
    assert_eq!(list().0[7].redirects[0].0.host.first(), 20_007);
    fs::write(&summaries, &left).unwrap();
    // a change in place, another file, none; and what pf has lost
    let damaged =
        fs::read_to_string(rig.state("jails/jail001.json")).unwrap().replace("\"version\":1", "\"version\":x");
    fs::write(rig.state("jails/jail001.json"), damaged).unwrap();
    fs::copy(rig.state("jails/jail002.json"), rig.state("jails/jail003.json")).unwrap();
    rig.unpublish(&name(4)).unwrap();
    let mut changed = request(&name(5), "20000:80");
    changed.addresses = vec!["10.0.1.5".parse().unwrap()];
    rig.publish(&changed).unwrap();
    rig.sim().replace(&Anchor::from_child(&name(6)).unwrap(), &[]).unwrap();
    let (now, _) = list();
    let told = |n: &str| now.iter().find(|l| l.anchor.child() == n).map(|l| (l.liveness, l.problem.is_some()));
    assert_eq!(told("jail001"), Some((Liveness::Stale, true)));
    assert_eq!(told("jail003"), Some((Liveness::Stale, true)));
    assert_eq!(told("jail004"), None);
    assert_eq!(told("jail006"), Some((Liveness::Missing, false)));
    assert_eq!(now[4].redirects[0].0.host.first(), 20000);
    assert!(now[6..] == before[7..]);
    // summaries of another version or boot, or none, are not used
    let of_others = |from, to| replaced(&replaced(&left, from, to), "10008", "20008");
    let [other, second] = [("3 0", "2 0"), ("first", "other")].map(|(from, to)| of_others(from, to));
    let cut = &left[..left.len() / 2];
    for bad in [&b""[..], b"{}", &left[1..], cut, &left[..left.len() - 1], &other, &second] {
        fs::write(&summaries, bad).unwrap();
        assert!(rig.list() == now, "{:?}", &bad[..bad.len().min(100)]);
    }
    rig.host.boot_id = "second".into();
    assert!(rig.list().iter().all(|l| l.liveness == Liveness::Stale && l.redirects.is_empty()));
}

/// A connection to a jail with its own network stack has two states, both of a pass rule. One of them is of the rdr rule, too.
#[test]
fn a_connection_is_counted_once() {
    let (rig, fake) = (Rig::new(), Fake::new());
    let native = || Native::over(&fake, Deadline::after(Duration::from_secs(60)));
    let mut hairpin = request("web", "8080:80 8081:81/udp");
    hairpin.options.hairpin = true;
    rig.with(&native(), &Unobserved, |p| p.publish(&hairpin)).unwrap();
    let rdr = fake.active("kport/web", RDR).len() as u64 / 2;
    for (ruleset, counters) in
        [(NAT, [9, 1, 1, 10, 10, 1]), (RDR, [9, 3, 4, 300, 500, 2]), (FILTER, [9, 6, 8, 600, 900, 4])]
    {
        fake.set_counters("kport/web", ruleset, counters);
    }
    for jail in [None, Some(&hairpin.jail)] {
        let listed = rig.with(&native(), &Unobserved, |p| p.list_with_counters(jail)).unwrap();
        assert_eq!(listed[0].redirects.len(), 4);
        for (redirect, counted) in &listed[0].redirects {
            assert_eq!((counted.packets, counted.bytes, counted.states), (7 * rdr, 800 * rdr, 2 * rdr), "{redirect}");
        }
    }
}

/// Live means that a packet arrives: pf must be enabled, and its main ruleset must call kport's anchors.
#[test]
fn what_pf_does_not_evaluate_is_inert() {
    let (rig, fake, standin) = (Rig::new(), Fake::new(), standin::Pfctl::new());
    let soon = || Deadline::after(Duration::from_secs(60));
    let firewalls = || -> [Box<dyn Firewall>; 2] {
        [Box::new(Native::over(&fake, soon())), Box::new(Pfctl::new(standin.program(), soon()))]
    };
    let all = |liveness: Liveness, why: &str| {
        for jail in [None, Some("web".parse().unwrap())] {
            for firewall in firewalls() {
                let listed = rig.with(&*firewall, &Unobserved, |p| p.list(jail.as_ref())).unwrap();
                let [web] = &listed[..] else { panic!("{listed:?}") };
                let problem = web.problem.as_deref().unwrap_or_default();
                assert!(web.liveness == liveness && problem.contains(why), "{}: {web:?}", firewall.name());
            }
        }
    };
    for firewall in firewalls() {
        rig.with(&*firewall, &Unobserved, |p| p.unpublish(&"web".parse().unwrap(), None)).unwrap();
        rig.with(&*firewall, &Unobserved, |p| p.publish(&request("web", "8080:80"))).unwrap();
    }
    all(Liveness::Live, "");
    fake.set_running(false);
    standin.disable();
    all(Liveness::Inert, "pf is disabled, so nothing would be redirected");
    fake.set_running(true);
    standin.enable();
    fake.set_rules("", FILTER, vec![]);
    standin.put("", "rdr-anchor \"kport/*\" all\nblock drop in log all\n");
    all(Liveness::Inert, "does not call kport's anchors");
}
