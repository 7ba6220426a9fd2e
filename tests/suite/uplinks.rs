//! Hosts with more than one way out: each client is answered by the interface that he came in on. The hosts are tests/uplinks/*.json.

use std::net::SocketAddr;
use std::path::Path;

use kport::doctor;
use kport::host::{Fixed, Gateway};
use kport::net::Protocol;
use kport::options::Given;
use kport::store::Store;
use kport::trace::{Party, Release, TraceStep, Verdict, World};

use crate::support::rig::{Rig, request};
use crate::support::world::ANCHORS;

/// A publication on a host: its options, its ports, and what publish notes; then the clients.
type Topology = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str, &'static [Client]);

/// The interface, the client's address, the target, and the interface by which he is answered; empty if he is not.
type Client = (&'static str, &'static str, &'static str, &'static str);

const NOT_ANSWERED: &str = "are not answered";

const TOPOLOGIES: &[Topology] = &[
    (
        "tunnel",
        "wg0:8080:80",
        &[],
        "",
        &[
            ("wg0", "198.51.100.7", "10.99.0.2:8080", "wg0"),
            ("wg0", "10.99.0.1", "10.99.0.2:8080", "wg0"),
            ("wg0", "2001:db8:9::7", "[fd99::2]:8080", "wg0"),
        ],
    ),
    (
        "tunnel",
        "wg0:8080:80",
        &[("reply-to", "none")],
        "",
        &[("wg0", "198.51.100.7", "10.99.0.2:8080", ""), ("wg0", "10.99.0.1", "10.99.0.2:8080", "wg0")],
    ),
    (
        "tunnel",
        "*:8080:80",
        &[],
        "",
        &[("wg0", "198.51.100.7", "10.99.0.2:8080", "wg0"), ("em0", "198.51.100.7", "192.0.2.1:8080", "em0")],
    ),
    (
        "tunnel",
        "wg:8080:80 10.99.0.2:8081:80",
        &[],
        "",
        &[("wg0", "198.51.100.7", "10.99.0.2:8080", "wg0"), ("wg0", "198.51.100.7", "10.99.0.2:8081", "wg0")],
    ),
    (
        "two-uplinks",
        "em0:8080:80 em1:8080:80",
        &[],
        "",
        &[
            ("em0", "198.51.100.7", "192.0.2.1:8080", "em0"),
            ("em1", "198.51.100.7", "203.0.113.1:8080", "em1"),
            ("em1", "203.0.113.254", "203.0.113.1:8080", "em1"),
            ("em1", "2001:db8:9::7", "[2001:db8:1::1]:8080", "em1"),
            // a client of the other provider's network
            ("em1", "192.0.2.200", "203.0.113.1:8080", "em1"),
        ],
    ),
    (
        "two-uplinks",
        "em1:8080:80",
        &[("no-quick", ""), ("log", ""), ("max-connections", "9")],
        "",
        &[("em1", "198.51.100.7", "203.0.113.1:8080", "em1"), ("em1", "203.0.113.9", "203.0.113.1:8080", "em1")],
    ),
    (
        "two-uplinks",
        "em2:8080:80",
        &[],
        NOT_ANSWERED,
        &[("em2", "198.51.100.7", "198.18.0.1:8080", ""), ("em2", "198.18.0.9", "198.18.0.1:8080", "em2")],
    ),
    (
        "two-uplinks",
        "em2:8080:80",
        &[("reply-to", "198.18.0.254")],
        "",
        &[("em2", "198.51.100.7", "198.18.0.1:8080", "em2")],
    ),
    (
        "two-uplinks",
        "em1:8080:80",
        &[("hairpin", ""), ("sources", "198.51.100.0/24")],
        "",
        &[("em1", "198.51.100.7", "203.0.113.1:8080", "em1")],
    ),
    (
        "two-fibs",
        "em0:8080:80 em1:8080:80",
        &[],
        "",
        &[
            ("em0", "198.51.100.7", "192.0.2.1:8080", "em0"),
            ("em1", "198.51.100.7", "203.0.113.1:8080", "em1"),
            ("em1", "203.0.113.254", "203.0.113.1:8080", "em1"),
            ("em1", "2001:db8:9::7", "[2001:db8:1::1]:8080", "em1"),
        ],
    ),
    (
        "vlan",
        "clients:8080:80",
        &[],
        NOT_ANSWERED,
        &[("em1.100", "198.18.0.9", "198.18.0.1:8080", "em1.100"), ("em1.100", "198.51.100.7", "198.18.0.1:8080", "")],
    ),
    (
        "vlan",
        "em1.100:8080:80",
        &[("reply-to", "198.18.0.254")],
        "",
        &[("em1.100", "198.51.100.7", "198.18.0.1:8080", "em1.100")],
    ),
    (
        "carp",
        "192.0.2.7:8080:80 203.0.113.7:8080:80",
        &[("reply-to", "203.0.113.254")],
        "",
        &[
            ("em0", "198.51.100.7", "192.0.2.7:8080", "em0"),
            ("em1", "198.51.100.7", "203.0.113.7:8080", "em1"),
            ("em1", "203.0.113.9", "203.0.113.7:8080", "em1"),
        ],
    ),
];

fn rig(name: &str) -> Rig {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/uplinks").join(name).with_extension("json");
    let host: Fixed = std::fs::read_to_string(file).unwrap().parse().unwrap();
    let rig = Rig { host, ..Rig::new() };
    std::fs::create_dir_all(rig.state("sim")).unwrap();
    std::fs::write(rig.state("sim/main.conf"), format!("block log all\n{ANCHORS}")).unwrap();
    rig
}

/// The interface by which a client is answered; empty if he is not.
fn answered(world: &World, (on, from, to, _): Client, protocol: Protocol) -> (String, String) {
    let from = SocketAddr::new(from.parse().unwrap(), 40000);
    let sender = Party::Network(on.parse().unwrap());
    let trace = world.clone().trace(&sender, protocol, from, to.parse().unwrap());
    let left = trace.steps.iter().rev().find_map(|step| match step {
        TraceStep::Delivered(Party::Network(by), _) => Some(by.to_string()),
        _ => None,
    });
    let by_jail = trace.verdict == Verdict::Answered && matches!(trace.delivered_to, Some((Party::Jail(_), _)));
    (left.filter(|_| by_jail).unwrap_or_default(), trace.to_string())
}

#[test]
fn clients_are_answered_by_the_interface_that_they_came_in_on() {
    for (name, spec, options, noted, clients) in TOPOLOGIES {
        let rig = rig(name);
        for protocol in Protocol::ALL {
            // pf does not change the ports of sctp
            let spec: Vec<String> = spec
                .split(' ')
                .map(|spec| format!("{spec}/{protocol}"))
                .map(|spec| {
                    if protocol == Protocol::Sctp {
                        spec.replace(":80/", ":8080/").replace("8081:8080", "8081:8081")
                    } else {
                        spec
                    }
                })
                .collect();
            let mut request = request("web", &spec.join(" "));
            for (option, value) in *options {
                let given = if value.is_empty() { Given::Flag(true) } else { Given::Text((*value).to_owned()) };
                request.set(option, &given).unwrap();
            }
            let outcome = rig.publish(&request).unwrap_or_else(|error| panic!("{name} {spec:?}: {error}"));
            let notes: Vec<&String> = outcome.notes.iter().filter(|note| note.contains(NOT_ANSWERED)).collect();
            assert_eq!(!notes.is_empty(), !noted.is_empty(), "{name} {spec:?} {options:?}: {notes:?}");
            for release in [Release::V14, Release::V15] {
                let world = World::of_pf(&rig.host, &rig.sim(), release).unwrap();
                for client in *clients {
                    let (by, trace) = answered(&world, *client, protocol);
                    assert_eq!(by, client.3, "{name} {spec:?} {client:?}\n{trace}");
                }
            }
        }
    }
}

/// Which router it is: the only one, or that of a default route. A later change is reported.
#[test]
fn the_router_behind_an_interface() {
    let mut rig = rig("two-uplinks");
    rig.host.gateways.retain(|gateway| gateway.address.is_ipv4());
    rig.host.vnet_addresses.insert("web".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    let publish = |rig: &Rig| {
        let noted = rig.publish(&request("web", "em1:8080:80")).unwrap().notes.iter().any(|n| n.contains(NOT_ANSWERED));
        let rules = rig.loaded().remove(0).1;
        let router = rules.split_once("reply-to (\"em1\" ").map(|(_, rest)| rest.split_once(')').unwrap().0.to_owned());
        assert_eq!(noted, router.is_none());
        router
    };
    assert_eq!(publish(&rig).as_deref(), Some("203.0.113.254"));
    let other = Gateway { address: "203.0.113.253".parse().unwrap(), ..*rig.host.gateways.last().unwrap() };
    rig.host.gateways.insert(0, other);
    assert_eq!(publish(&rig), None);
    rig.host.gateways[0] = Gateway { fib: 3, default: true, ..other };
    assert_eq!(publish(&rig).as_deref(), Some("203.0.113.253"));
    // an interface that comes later
    let mut late = request("flat", "em9:8101:80");
    late.options.reply_to = Some(vec!["198.18.0.254".parse().unwrap()]);
    rig.publish(&late).unwrap();
    assert!(rig.loaded()[0].1.contains("on \"em9\" reply-to (\"em9\" 198.18.0.254) inet"), "{:?}", rig.loaded());
    rig.unpublish("flat").unwrap();
    rig.host.gateways[0].address = "203.0.113.252".parse().unwrap();
    let store = Store::open(rig.path());
    let found = doctor::examine(&rig.host, &rig.sim(), store, None).into_iter().find(|f| f.id == "answers").unwrap();
    assert_eq!(
        found.seen,
        "jail \"web\": what comes in on em1 is answered by reply-to (\"em1\" 203.0.113.253), and the routes now say reply-to \
         (\"em1\" 203.0.113.252)"
    );
}

/// A jail on the host's stack answers in its own FIB.
#[test]
fn a_jail_in_another_fib() {
    let rig = rig("two-fibs");
    rig.publish(&request("flat", "em0:8100:80 em1:8101:80")).unwrap();
    let world = World::of_pf(&rig.host, &rig.sim(), Release::V15).unwrap();
    for client in [
        ("em0", "198.51.100.7", "192.0.2.1:8100", "em0"),
        ("em1", "198.51.100.7", "203.0.113.1:8101", "em1"),
        ("em1", "203.0.113.9", "203.0.113.1:8101", "em1"),
    ] {
        let mut quiet = world.clone();
        quiet.lookup.listeners = None;
        let (by, trace) = answered(&quiet, client, Protocol::Tcp);
        assert_eq!(by, client.3, "{trace}");
    }
}

/// Rules of the administrator's, in the main ruleset: who wrote them makes no difference.
#[test]
fn anybodys_rules_are_followed() {
    let world = |rules: &str| {
        let rig = rig("two-fibs");
        std::fs::write(rig.state("sim/main.conf"), format!("block log all\npass out all\n{rules}\n")).unwrap();
        World::of_pf(&rig.host, &rig.sim(), Release::V15).unwrap()
    };
    let client: Client = ("em1", "198.51.100.7", "10.0.0.2:80", "em1");
    let stateless = "pass out on { bridge0, em0, em1 } no state\npass in on em1 inet from any to any no state rtable 0";
    let answer = |way: &str| format!("{stateless}\npass in on bridge0 {way} inet from any to any no state");
    for (rules, by) in [
        // looked up in FIB 1, which does not have the jail's network
        ("pass in on em1".to_owned(), ""),
        ("pass in on em1 reply-to (em1 203.0.113.254) inet".to_owned(), ""),
        // the way back is that of FIB 0
        ("pass in on em1 rtable 0".to_owned(), ""),
        (answer(""), ""),
        ("pass in on em1 reply-to (em1 203.0.113.254) inet from any to any rtable 0".to_owned(), "em1"),
        (answer("route-to (em1 203.0.113.254)"), "em1"),
        (answer("route-to (em0 192.0.2.254)"), ""),
        (format!("{} rtable 1", answer("")), "em1"),
    ] {
        let (got, trace) = answered(&world(&rules), client, Protocol::Tcp);
        assert_eq!(got, by, "{rules}\n{trace}");
    }
}
