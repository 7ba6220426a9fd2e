//! Addresses that are not the host's, and `*`.

use kport::error::Kind;
use kport::publisher::Request;

use crate::support::rig::{Rig, request};

#[test]
fn an_address_that_is_none_of_the_hosts() {
    let rig = Rig::new();
    let wanted = request("db", "8.8.8.8:53:53/udp");
    let error = rig.publish(&wanted).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("8.8.8.8 is not an address of this host"), "{error}");
    assert!(rig.loaded().is_empty());
    let done = rig.publish(&Request { force: true, ..wanted }).unwrap();
    assert!(
        done.notes[0].starts_with("forced: udp 53 on 8.8.8.8 -> 10.0.0.3:53: 8.8.8.8 is not an address"),
        "{done:?}"
    );
    // those of the host are not noted
    let own = request("db", "192.0.2.7:8080:80 10.0.0.1:8080:80");
    assert_eq!(rig.publish(&own).unwrap().notes, [""; 0]);
}

#[test]
fn every_address_of_the_host() {
    let rig = Rig::new();
    let notes = |spec: &str| rig.publish(&request("db", spec)).unwrap().notes;
    let note = notes("*:8080:80 *:8081:81 8082:82").join("\n");
    assert!(
        note.starts_with("tcp 8080 on * -> 10.0.0.3:80 (and 1 more): * takes what arrives on any interface"),
        "{note}"
    );
    assert_eq!(notes("8080:80"), [""; 0]);
    // a caller with this default, as the CNI plugin is one
    let default = Request { default_everywhere: true, ..request("db", "*:8080:80") };
    assert_eq!(rig.publish(&default).unwrap().notes, [""; 0]);
}
