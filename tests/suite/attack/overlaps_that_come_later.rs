//! Overlaps that arise after both jails have published.

use kport::doctor::{self, Level};
use kport::error::Kind;
use kport::publisher::Request;
use kport::store::Store;

use crate::support::rig::{Rig, request};

/// web has 192.0.2.7, which em0 lacks; db has em0; then em0 gets the address.
fn met() -> (Rig, Request, Request) {
    let mut rig = Rig::new();
    let seven = rig.host.interfaces[0].addresses.remove(1);
    let web = Request { force: true, ..request("web", "192.0.2.7:8080:80") };
    let db = request("db", "em0:8080:80");
    rig.publish(&web).unwrap();
    rig.publish(&db).unwrap();
    rig.host.interfaces[0].addresses.push(seven);
    (rig, web, db)
}

#[test]
fn doctor_compares_the_jails_at_the_addresses_of_now() {
    let (rig, ..) = met();
    let found = doctor::examine(&rig.host, &rig.sim(), Store::open(rig.path()), None);
    let overlap = found.iter().find(|finding| finding.id == "overlaps").unwrap();
    assert_eq!(overlap.level, Level::Problem);
    assert_eq!(
        overlap.seen,
        "tcp 8080 on em0 -> 10.0.0.3:80 of jail \"db\" and tcp 8080 on 192.0.2.7 -> 10.0.0.2:80 of jail \"web\" now \
         match the same packets, and which one wins differs between FreeBSD 14 and 15"
    );
}

#[test]
fn publishing_again_is_not_refused_because_of_a_neighbour() {
    let (rig, web, db) = met();
    let before = rig.loaded();
    for (request, neighbour) in [(&web, "db"), (&db, "web")] {
        let done = rig.publish(request).unwrap();
        assert!(!done.changed);
        assert!(
            done.notes[0].starts_with("already published, even though tcp 8080")
                && done.notes[0].contains(&format!("is published by jail \"{neighbour}\"")),
            "{:?}",
            done.notes
        );
    }
    // a new overlap is refused as before
    for new in [request("web", "192.0.2.7:8080-8081:80"), request("app", "em0:8080:80")] {
        let new = Request { addresses: vec!["10.0.0.9".parse().unwrap()], ..new };
        assert_eq!(rig.publish(&new).unwrap_err().kind(), Kind::Conflict);
    }
    assert_eq!(rig.loaded(), before);
}
