//! Ports that are taken: by the same set, another jail, sockets of the host; and the parts of a place that are free.

use kport::conflict::{narrower, with_jail, with_listener, within};
use kport::error::Kind;
use kport::host::{HostInterface, Interfaces, Listener};
use kport::net::{Family, PerFamily, PortRange, Protocol};
use kport::publication::Redirect;

use crate::support::world::interface;

fn host() -> Vec<HostInterface> {
    vec![
        interface("em0", &["egress"], &["192.0.2.1/24", "192.0.2.7/32", "2001:db8::1/64"]),
        interface("em1", &[], &["198.51.100.1/24"]),
        interface("bridge0", &["bridge"], &["10.0.0.1/24"]),
        interface("lo0", &["lo"], &["127.0.0.1/8"]),
    ]
}

fn redirect(place: &str, ports: &str) -> Redirect {
    Redirect {
        af_to: false,
        place: place.parse().unwrap(),
        protocol: Protocol::Tcp,
        host: ports.parse().unwrap(),
        target: "10.0.0.2".parse().unwrap(),
        jail: PortRange::new(80, 80).unwrap(),
    }
}

#[test]
fn a_set_of_its_own() {
    let host = host();
    let interfaces = Interfaces(&host);
    within(&[redirect("em0", "8080"), redirect("em1", "8080"), redirect("em0", "8081-8090")], interfaces).unwrap();
    let error =
        within(&[redirect("*", "80"), redirect("em0", "9000"), redirect("em0", "8-100")], interfaces).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let mut udp = redirect("em0", "8080");
    udp.protocol = Protocol::Udp;
    within(&[udp, redirect("em0", "8080")], interfaces).unwrap();
}

#[test]
fn messages_name_the_other_side() {
    let problem = with_jail(&redirect("em0", "8080"), "jail \"db\"", &redirect("em0", "8000-8100"));
    assert!(problem.seen.starts_with("tcp 8080 on em0 is published by jail \"db\" (8000-8100)"), "{problem}");
}

#[test]
fn sockets() {
    let host = host();
    let interfaces = Interfaces(&host);
    let ssh = |address: Option<&str>| Listener {
        protocol: Protocol::Tcp,
        families: PerFamily::only(Family::Inet),
        address: address.map(|a| a.parse().unwrap()),
        port: 22,
    };
    for (place, listener, conflict) in [
        ("em0", ssh(None), true),
        ("em0", ssh(Some("192.0.2.1")), true),
        ("em1", ssh(Some("192.0.2.1")), false),
        ("192.0.2.7", ssh(Some("192.0.2.1")), false),
        ("em0", ssh(Some("127.0.0.1")), false),
        // (self) has the loopback addresses, too
        ("*", ssh(Some("127.0.0.1")), true),
        ("*", ssh(Some("10.0.0.2")), false),
        ("*", ssh(Some("192.0.2.1")), true),
    ] {
        let found = with_listener(&redirect(place, "20-30"), &listener, interfaces);
        assert_eq!(found.is_some(), conflict, "{place} {listener:?}");
    }
    assert_eq!(with_listener(&redirect("em0", "23"), &ssh(None), interfaces), None);
}

#[test]
fn the_parts_of_a_place() {
    let mut host = host();
    let parts = |host: &[HostInterface], place: &str| -> Vec<String> {
        narrower(&redirect(place, "80"), Interfaces(host)).iter().map(|r| r.place.to_string()).collect()
    };
    let all = ["em0", "em1", "bridge0", "192.0.2.1", "192.0.2.7", "198.51.100.1", "10.0.0.1"];
    assert_eq!(parts(&host, "*"), all);
    assert_eq!(parts(&host, "0.0.0.0"), all[3..]);
    assert_eq!(parts(&host, "egress"), ["em0", "192.0.2.1", "192.0.2.7"]);
    assert_eq!(parts(&host, "em0"), ["192.0.2.1", "192.0.2.7"]);
    assert_eq!((parts(&host, "192.0.2.1").len(), parts(&host, "wg7").len()), (0, 0));
    host[0].up = false;
    assert_eq!(parts(&host, "*")[..2], ["em1", "bridge0"]);
}
