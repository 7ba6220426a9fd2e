//! B8: a jail whose states take longer to end than the time-out can never be unpublished.

use std::cell::Cell;
use std::fs;

use kport::error::{Error, Kind, Result};
use kport::name::{Anchor, Table};
use kport::pf::{Firewall, ForeignRedirect, Loaded, States, Status};
use kport::publisher::Unobserved;
use kport::rule::Rule;
use kport::sim::Sim;

use crate::support::rig::{Rig, request};

/// A firewall on which each call that ends states takes so long that a second one comes too late.
struct Slow {
    sim: Sim,
    calls: Cell<u32>,
    /// Not even one comes through.
    never: bool,
}

impl Firewall for Slow {
    fn name(&self) -> &'static str {
        "sim"
    }
    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        self.sim.replace(anchor, rules)
    }
    fn anchors(&self) -> Result<Vec<String>> {
        self.sim.anchors()
    }
    fn loaded(&self, anchor: &Anchor) -> Result<Loaded> {
        self.sim.loaded(anchor)
    }
    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.sim.holds(anchor, rules)
    }
    fn kill_states(&self, states: &[States]) -> Result<u64> {
        for _ in states {
            self.calls.set(self.calls.get() + 1);
            if self.never || self.calls.get() > 1 {
                return Err(Error::new(Kind::Busy, "the time is up"));
            }
        }
        Ok(0)
    }
    fn status(&self) -> Result<Status> {
        self.sim.status()
    }
    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.sim.foreign_redirects()
    }
    fn has_table(&self, table: &Table) -> Result<bool> {
        self.sim.has_table(table)
    }
    fn rulesets(&self) -> Result<Vec<(String, String)>> {
        self.sim.rulesets()
    }
}

fn mappings(first: u16) -> String {
    (first..first + 60).map(|port| format!("{port}:80 ")).collect()
}

#[test]
fn unpublish_ends_all_of_them_with_one_call() {
    let rig = Rig::new();
    rig.publish(&request("db", &mappings(8000))).unwrap();
    let slow = Slow { sim: rig.sim(), calls: Cell::new(0), never: false };
    rig.with(&slow, &Unobserved, |p| p.unpublish(&"db".parse().unwrap(), None)).unwrap();
    assert!(rig.loaded().is_empty() && rig.list().is_empty());
}

/// Each try that could not end what the one before left is recorded once.
#[test]
fn what_is_recorded_does_not_grow_with_each_try() {
    let rig = Rig::new();
    rig.publish(&request("db", &mappings(8000))).unwrap();
    let mut sizes = vec![];
    for n in 0..12 {
        let slow = Slow { sim: rig.sim(), calls: Cell::new(0), never: true };
        let spec = mappings(if n % 2 == 0 { 9000 } else { 8000 });
        let done = rig.with(&slow, &Unobserved, |p| p.publish(&request("db", &spec))).unwrap();
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
