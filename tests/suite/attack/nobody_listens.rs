//! trace shows whether somebody listens.

use kport::host::Listener;
use kport::net::{Family, PerFamily, Protocol};
use kport::options::Options;
use kport::trace::{Release, Verdict, World};

use crate::support::world::{ANCHORS, host, party, publish};

fn verdict(world: &World, protocol: Protocol, to: &str) -> Verdict {
    let from = "192.0.2.100:40000".parse().unwrap();
    world.clone().trace(&party("em0"), protocol, from, to.parse().unwrap()).verdict
}

fn listener(protocol: Protocol, address: Option<&str>, port: u16) -> Listener {
    let address = address.map(|text| text.parse().unwrap());
    Listener { protocol, families: PerFamily::only(Family::Inet), address, port }
}

/// On a real kernel 92 of 108 answers agreed; the other 16 were "delivered to the host", where nothing listens.
#[test]
fn what_is_delivered_where_nothing_listens_is_refused() {
    let mut world = host(Release::V15);
    world.load_text("", &format!("pass all\n{ANCHORS}")).unwrap();
    // if the sockets are unknown, nothing is reported about them
    assert_eq!(verdict(&world, Protocol::Tcp, "192.0.2.1:22"), Verdict::Answered);
    world.lookup.listeners = Some(vec![
        listener(Protocol::Tcp, None, 22),
        listener(Protocol::Udp, Some("192.0.2.7"), 53),
        listener(Protocol::Tcp, Some("10.9.0.2"), 80),
    ]);
    for (protocol, to, expected) in [
        (Protocol::Tcp, "192.0.2.1:22", Verdict::Answered),
        (Protocol::Tcp, "192.0.2.1:23", Verdict::Refused),
        (Protocol::Udp, "192.0.2.1:22", Verdict::Refused),
        (Protocol::Udp, "192.0.2.7:53", Verdict::Answered),
        (Protocol::Udp, "192.0.2.1:53", Verdict::Refused),
        // the sockets of sctp are not listed
        (Protocol::Sctp, "192.0.2.1:9", Verdict::Answered),
        // a jail on the host's stack, and one with its own, whose sockets the host cannot read
        (Protocol::Tcp, "10.9.0.2:80", Verdict::Answered),
        (Protocol::Tcp, "10.9.0.2:81", Verdict::Refused),
        (Protocol::Tcp, "10.0.0.2:81", Verdict::Answered),
    ] {
        assert_eq!(verdict(&world, protocol, to), expected, "{protocol} {to}");
    }
}

#[test]
fn through_a_publication_too() {
    let mut world = host(Release::V15);
    world.load_text("", &format!("block log all\n{ANCHORS}")).unwrap();
    publish(&mut world, "flat", &["10.9.0.2"], "8100:80", &Options::default());
    world.lookup.listeners = Some(vec![]);
    assert_eq!(verdict(&world, Protocol::Tcp, "192.0.2.1:8100"), Verdict::Refused);
    world.lookup.listeners = Some(vec![listener(Protocol::Tcp, Some("10.9.0.2"), 80)]);
    assert_eq!(verdict(&world, Protocol::Tcp, "192.0.2.1:8100"), Verdict::Answered);
}

#[test]
fn it_is_reported_also_if_pf_does_not_evaluate() {
    let mut world = host(Release::V15);
    world.load_text("", "set skip on em0\nblock all").unwrap();
    world.lookup.listeners = Some(vec![listener(Protocol::Tcp, None, 22)]);
    assert_eq!(verdict(&world, Protocol::Tcp, "192.0.2.1:22"), Verdict::Answered);
    assert_eq!(verdict(&world, Protocol::Tcp, "192.0.2.1:23"), Verdict::Refused);
    world.load_text("", "").unwrap();
    world.pf.enabled = false;
    assert_eq!(verdict(&world, Protocol::Tcp, "192.0.2.1:23"), Verdict::Refused);
}
