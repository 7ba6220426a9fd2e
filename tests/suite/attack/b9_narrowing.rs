//! B9: publishing a narrower set ends nothing.

use std::time::Duration;

use kport::deadline::Deadline;
use kport::options::{Limits, Options};
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Request, Unobserved};

use crate::support::rig::{Rig, request};
use crate::support::standin;

/// Publishes wide, then narrow, then wide again; says how many states each of the two changes ended.
fn ended(wide: &Options, narrow: &Options) -> (u64, u64) {
    let pf = standin::Pfctl::new();
    let rig = Rig::new();
    let publish = |options: &Options| {
        let pfctl = Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
        let request = Request { options: options.clone(), ..request("db", "8080:80 8081:81") };
        rig.with(&pfctl, &Unobserved, |p| p.publish(&request)).unwrap()
    };
    publish(wide);
    let states = ["kport:db kport:db:tcp:8080", "kport:db kport:db:tcp:8081", "kport:web kport:web:tcp:1"];
    pf.set_states(&states);
    let first = publish(narrow).killed;
    pf.set_states(&states);
    let done = publish(wide);
    assert!(done.changed);
    (first, done.killed)
}

#[test]
fn those_who_may_not_come_any_more_are_cut_off() {
    let usual = Options::default;
    let narrower = [
        Options { sources: vec!["192.0.2.0/24".parse().unwrap()], ..usual() },
        Options { reach: vec!["bridge".parse().unwrap()], ..usual() },
        Options { limits: Limits { connections: 10.try_into().ok(), ..Limits::default() }, ..usual() },
    ];
    for narrow in narrower {
        assert_eq!(ended(&usual(), &narrow), (2, 0), "{narrow:?}");
    }
    assert_eq!(ended(&Options { hairpin: true, ..usual() }, &usual()), (2, 0));
    assert_eq!(ended(&usual(), &Options { log: true, ..usual() }), (0, 0));
}

/// Only the mappings that a call is about.
#[test]
fn the_other_mappings_of_the_jail_go_on() {
    let pf = standin::Pfctl::new();
    let rig = Rig::new();
    let publish = |request: &Request| {
        let pfctl = Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
        rig.with(&pfctl, &Unobserved, |p| p.publish(request)).unwrap()
    };
    publish(&request("db", "8080:80 8081:81"));
    pf.set_states(&["kport:db kport:db:tcp:8080", "kport:db kport:db:tcp:8081"]);
    let mut narrow = Request { add: true, ..request("db", "8081:81") };
    narrow.options.sources = vec!["192.0.2.0/24".parse().unwrap()];
    assert_eq!(publish(&narrow).killed, 1);
    assert_eq!(pf.states(), ["kport:db kport:db:tcp:8080"]);
}
