//! B8: a jail whose states take longer to end than the time-out can never be unpublished.

use std::cell::Cell;
use std::fs;

use kport::error::{Error, Kind};
use kport::pf::Firewall;
use kport::publisher::Unobserved;

use crate::support::around::{Around, Call, Moment};
use crate::support::rig::{Rig, request};

/// A firewall on which only this many calls that end states have the time.
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

/// Each try that could not end what the one before left is recorded once.
#[test]
fn what_is_recorded_does_not_grow_with_each_try() {
    let rig = Rig::new();
    rig.publish(&request("db", &mappings(8000))).unwrap();
    let mut sizes = vec![];
    for n in 0..12 {
        let spec = mappings(if n % 2 == 0 { 9000 } else { 8000 });
        let done = rig.with(&slow(&rig, 0), &Unobserved, |p| p.publish(&request("db", &spec))).unwrap();
        assert!(done.notes.iter().any(|note| note.contains("not allowed any more go on")), "{:?}", done.notes);
        sizes.push(fs::metadata(rig.state("jails/db.json")).unwrap().len());
    }
    assert!(sizes[1..].iter().all(|size| size.abs_diff(sizes[1]) < 100), "{sizes:?}");
    // and a call that has the time leaves nothing of it
    let done = rig.publish(&request("db", &mappings(8000))).unwrap();
    assert_eq!(done.notes, [""; 0]);
    let record = fs::read_to_string(rig.state("jails/db.json")).unwrap();
    assert!(record.contains("\"replaces\":[]"), "{record}");
}
