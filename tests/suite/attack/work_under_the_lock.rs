//! The work under the lock is bounded.

use std::cell::Cell;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::{Kind, Result};
use kport::name::Anchor;
use kport::pf::Firewall;
use kport::publisher::{Liveness, Observer, Outcome, Phase, Publisher, Unobserved};
use kport::store::Store;

use crate::support::around::{Around, Call, Moment};
use crate::support::rig::{Rig, request};

fn single_ports() -> String {
    (10_000..11_000).map(|port| format!("{port}:80 ")).collect()
}

/// The record of another jail with a thousand claims is read once. The test counts the reads of the anchor, one for each read of a
/// record that is gone.
#[test]
fn another_jails_record_is_looked_at_once() {
    let rig = Rig::new();
    rig.publish(&request("db", &single_ports())).unwrap();
    std::fs::remove_file(rig.state("jails/db.json")).unwrap();
    rig.sim().replace(&Anchor::from_child("db").unwrap(), &[]).unwrap();
    // the reads of the other jail's anchor
    let asked = Cell::new(0);
    let around = |call: Call<'_>, moment| {
        if let (Call::Loaded(anchor), Moment::Before) = (call, moment) {
            asked.set(asked.get() + u32::from(anchor.child() == "db"));
        }
        Ok(())
    };
    let counting = Around { sim: rig.sim(), around };
    rig.with(&counting, &Unobserved, |p| p.publish(&request("web", &single_ports()))).unwrap();
    assert_eq!(asked.get(), 1);
}

/// Uses up the time at a phase.
struct Slow {
    at: Phase,
    deadline: Deadline,
}

impl Observer for Slow {
    fn phase(&self, phase: Phase) -> Result<()> {
        if phase == self.at {
            std::thread::sleep(self.deadline.remaining());
        }
        Ok(())
    }
}

#[test]
fn a_loop_ends_when_the_time_is_up() {
    let rig = Rig::new();
    for (at, spec) in [(Phase::Check, "8080:80"), (Phase::Resolve, "auto:80")] {
        let deadline = Deadline::after(Duration::from_millis(200));
        let (sim, slow) = (rig.sim(), Slow { at, deadline });
        let publisher = Publisher::new(&rig.host, &sim, Store::open(rig.path()).unwrap(), deadline, &slow);
        let error = publisher.publish(&request("db", spec)).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy, "{spec}: {error}");
        assert!(error.message().contains("nothing was changed"), "{error}");
        assert!(rig.loaded().is_empty() && rig.list().is_empty());
    }
}

/// Some of them are done when the time is up: the error reports it, and the next call does the others.
#[test]
fn gc_and_restore_report_how_far_they_came() {
    let mut rig = Rig::new();
    let publish = |rig: &Rig| {
        for (jail, spec) in [("db", "5432"), ("web", "8080:80")] {
            rig.publish(&request(jail, spec)).unwrap();
        }
    };
    let cut_short = |rig: &Rig, act: &dyn Fn(&Publisher<'_>) -> Result<Outcome>| {
        let deadline = Deadline::after(Duration::from_secs(1));
        let (sim, slow) = (rig.sim(), Slow { at: Phase::Load, deadline });
        act(&Publisher::new(&rig.host, &sim, Store::open(rig.path()).unwrap(), deadline, &slow)).unwrap_err()
    };
    publish(&rig);
    for jail in ["db", "web"] {
        rig.sim().replace(&Anchor::from_child(jail).unwrap(), &[]).unwrap();
    }
    let error = cut_short(&rig, &|p| p.restore());
    assert_eq!(error.kind(), Kind::Busy);
    assert_eq!(
        error.message(),
        "the time is up after 1 of 2 records; the others are unchanged: kport apply again; give more time with --timeout; \
         noted: jail \"db\": loaded again"
    );
    let live = |rig: &Rig| rig.list().iter().map(|listed| listed.liveness).collect::<Vec<_>>();
    assert_eq!(live(&rig), [Liveness::Live, Liveness::Missing]);
    rig.with(&rig.sim(), &Unobserved, |p| p.restore()).unwrap();
    assert_eq!(live(&rig), [Liveness::Live, Liveness::Live]);

    let jails = std::mem::take(&mut rig.host.jails);
    let error = cut_short(&rig, &|p| p.gc());
    assert_eq!(error.kind(), Kind::Busy);
    let said = ["after 1 of 2 records", "kport apply again", "noted: jail \"db\" is gone: unpublished"];
    assert!(said.iter().all(|part| error.message().contains(part)), "{error}");
    // web has a record that was not read, so its rules must not count as those of no jail
    assert_eq!(live(&rig), [Liveness::Live]);
    rig.with(&rig.sim(), &Unobserved, |p| p.gc()).unwrap();
    assert!(rig.loaded().is_empty() && rig.list().is_empty());

    // the same for anchors without a record
    rig.host.jails = jails;
    publish(&rig);
    for jail in ["db", "web"] {
        std::fs::remove_file(rig.state(&format!("jails/{jail}.json"))).unwrap();
    }
    let error = cut_short(&rig, &|p| p.gc());
    assert!(error.message().contains("after 1 of 2 anchors"), "{error}");
    assert_eq!(live(&rig), [Liveness::Stale]);
}

#[test]
fn a_list_ends_when_the_time_is_up() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    let sim = rig.sim();
    let publisher =
        Publisher::new(&rig.host, &sim, Store::open(rig.path()).unwrap(), Deadline::after(Duration::ZERO), &Unobserved);
    let error = publisher.list(None).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.message().starts_with("the time is up after 0 of 1 anchors"), "{error}");
}
