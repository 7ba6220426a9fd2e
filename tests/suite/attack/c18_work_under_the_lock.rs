//! C18: cost under the lock.

use std::cell::Cell;
use std::time::{Duration, Instant};

use kport::error::{Kind, Result};
use kport::name::{Anchor, Table};
use kport::pf::{Firewall, ForeignRedirect, Loaded, States, Status};
use kport::publisher::{Observer, Phase, Publisher, Unobserved};
use kport::rule::Rule;
use kport::sim::Sim;
use kport::store::Store;

use crate::support::rig::{Rig, request};

fn single_ports() -> String {
    (10_000..11_000).map(|port| format!("{port}:80 ")).collect()
}

/// Counts the questions after what another jail's anchor holds.
struct Counting {
    sim: Sim,
    asked: Cell<u32>,
}

impl Firewall for Counting {
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
        self.asked.set(self.asked.get() + u32::from(anchor.child() == "db"));
        self.sim.loaded(anchor)
    }
    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.sim.holds(anchor, rules)
    }
    fn kill_states(&self, states: &[States]) -> Result<u64> {
        self.sim.kill_states(states)
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

/// A thousand claims of another jail lead to its record once. What is counted is the question that follows each look at a record
/// that is gone.
#[test]
fn another_jails_record_is_looked_at_once() {
    let rig = Rig::new();
    rig.publish(&request("db", &single_ports())).unwrap();
    std::fs::remove_file(rig.state("jails/db.json")).unwrap();
    rig.sim().replace(&Anchor::from_child("db").unwrap(), &[]).unwrap();
    let counting = Counting { sim: rig.sim(), asked: Cell::new(0) };
    rig.with(&counting, &Unobserved, |p| p.publish(&request("web", &single_ports()))).unwrap();
    assert_eq!(counting.asked.get(), 1);
}

/// Uses up the time at a phase.
struct Slow {
    at: Phase,
    deadline: Instant,
}

impl Observer for Slow {
    fn phase(&self, phase: Phase) -> Result<()> {
        if phase == self.at {
            std::thread::sleep(self.deadline.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

#[test]
fn a_loop_ends_when_the_time_is_up() {
    let rig = Rig::new();
    for (at, spec) in [(Phase::Check, "8080:80"), (Phase::Resolve, "auto:80")] {
        let deadline = Instant::now() + Duration::from_millis(200);
        let (sim, slow) = (rig.sim(), Slow { at, deadline });
        let publisher = Publisher::new(&rig.host, &sim, Store::open(rig.path()).unwrap(), deadline, &slow);
        let error = publisher.publish(&request("db", spec)).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy, "{spec}: {error}");
        assert!(error.message().contains("nothing was changed"), "{error}");
        assert!(rig.loaded().is_empty() && rig.list().is_empty());
    }
}
