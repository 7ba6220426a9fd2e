//! Which states a change ends, and that it ends them in time.

use std::cell::Cell;
use std::fs;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::{Error, Kind};
use kport::options::{Limits, Options};
use kport::pf::Firewall;
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Request, Unobserved};

use crate::support::around::{Around, Call, Moment};
use crate::support::rig::{Rig, request};
use crate::support::standin;

/// A connection that was redirected to the first mapping, as pfctl(8) lists it.
const STRANGER: &str = "em0 tcp 10.0.0.3:80 (192.0.2.1:8080) <- 203.0.113.9:40000       ESTABLISHED:ESTABLISHED";

/// Publishes for everybody, then for one network, then for everybody again; returns how many states each of the two changes ended.
fn ended(wide: &Options, narrow: &Options) -> (u64, u64) {
    let pf = standin::Pfctl::new();
    let rig = Rig::new();
    let publish = |options: &Options| {
        let pfctl = Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
        let request = Request { options: options.clone(), ..request("db", "8080:80 8081:81") };
        rig.with(&pfctl, &Unobserved, |p| p.publish(&request)).unwrap()
    };
    publish(wide);
    let hairpin = STRANGER.replace("em0", "bridge1");
    let direct = "lo0 tcp 10.0.0.3:80 <- 10.9.0.2:40000       ESTABLISHED:ESTABLISHED";
    let labels = ["kport:db kport:db:tcp:8080", "kport:db kport:db:tcp:8081", "kport:web kport:web:tcp:1"];
    let states = [&labels[..], &[STRANGER, &hairpin, direct]].concat();
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
    let limits = Limits { connections: 10.try_into().ok(), ..Limits::default() };
    for (narrow, killed) in [
        (Options { sources: vec!["192.0.2.0/24".parse().unwrap()], ..usual() }, 1),
        (Options { reach: vec!["bridge".parse().unwrap()], ..usual() }, 1),
        // by the labels of both mappings
        (Options { limits, ..usual() }, 2),
    ] {
        assert_eq!(ended(&usual(), &narrow), (killed, 0), "{narrow:?}");
    }
    assert_eq!(ended(&Options { hairpin: true, ..usual() }, &usual()), (1, 0));
    assert_eq!(ended(&usual(), &Options { log: true, ..usual() }), (0, 0));
}

/// Only the mappings of a call.
#[test]
fn the_other_mappings_of_the_jail_go_on() {
    let pf = standin::Pfctl::new();
    let rig = Rig::new();
    let publish = |request: &Request| {
        let pfctl = Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
        rig.with(&pfctl, &Unobserved, |p| p.publish(request)).unwrap()
    };
    publish(&request("db", "8080:80 8081:81"));
    let other = STRANGER.replace(":8080", ":8081").replace(":80 ", ":81 ");
    pf.set_states(&[STRANGER, &other]);
    let mut narrow = Request { add: true, ..request("db", "8081:81") };
    narrow.options.sources = vec!["192.0.2.0/24".parse().unwrap()];
    assert_eq!(publish(&narrow).killed, 1);
    assert_eq!(pf.states(), [STRANGER]);
}

/// A firewall that has time for only this many calls that end states.
fn slow(rig: &Rig, in_time: usize) -> impl Firewall {
    let calls = Cell::new(0);
    let around = move |call: Call<'_>, moment| {
        if let (Call::KillStates(states), Moment::Before) = (call, moment) {
            calls.set(calls.get() + states.len());
            if calls.get() > in_time {
                return Err(Error::new(Kind::Busy, "the time is up"));
            }
        }
        Ok(())
    };
    Around { sim: rig.sim(), around }
}

fn mappings(first: u16) -> String {
    (first..first + 60).map(|port| format!("{port}:80 ")).collect()
}

#[test]
fn unpublish_ends_all_of_them_with_one_call() {
    let rig = Rig::new();
    rig.publish(&request("db", &mappings(8000))).unwrap();
    rig.with(&slow(&rig, 1), &Unobserved, |p| p.unpublish(&"db".parse().unwrap(), None)).unwrap();
    assert!(rig.loaded().is_empty() && rig.list().is_empty());
}

/// Each try that could not end the states that the one before left is recorded once.
#[test]
fn what_is_recorded_does_not_grow_with_each_try() {
    let rig = Rig::new();
    rig.publish(&request("db", &mappings(8000))).unwrap();
    let mut sizes = vec![];
    for n in 0..12 {
        let spec = mappings(if n % 2 == 0 { 9000 } else { 8000 });
        let done = rig.with(&slow(&rig, 0), &Unobserved, |p| p.publish(&request("db", &spec))).unwrap();
        assert!(done.notes.iter().any(|note| note.contains("no longer allowed continue")), "{:?}", done.notes);
        sizes.push(fs::metadata(rig.state("jails/db.json")).unwrap().len());
    }
    assert!(sizes[1..].iter().all(|size| size.abs_diff(sizes[1]) < 100), "{sizes:?}");
    // and a call with enough time leaves none
    let done = rig.publish(&request("db", &mappings(8000))).unwrap();
    assert_eq!(done.notes, [""; 0]);
    let record = fs::read_to_string(rig.state("jails/db.json")).unwrap();
    assert!(record.contains("\"replaces\":[]"), "{record}");
}
