//! `list`: counting rules, and merging the records with what pf has.

use std::fs;
use std::os::unix::fs::symlink;

use kport::name::Anchor;
use kport::net::{PortRange, Protocol};
use kport::options::{Limits, Options};
use kport::pf::Firewall;
use kport::pf::files::Sim;
use kport::publication::{Answer, Publication, Redirect};
use kport::publisher::{Liveness, Unobserved};
use kport::rule::{Count, NextHop, Routing, Rule};
use kport::rules;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::support::rig::{Rig, request};

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
        prop_assert_eq!(sim.loaded_all(true).unwrap().remove("web").unwrap_or_default(), loaded);
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
