//! A publish that runs out of time after its load.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::{Error, Kind};
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Liveness, Publisher, Request, Unobserved};
use kport::store::Store;

use crate::support::around::{Around, Call, Moment};
use crate::support::rig::{Rig, request};
use crate::support::standin::{self, Fault};

/// Publishes without sources over what is published, with this much time, on a firewall that is at the deadline after its first
/// load: only a later deadline gives it more time; with `for_ever` undoing fails, too. Returns the deadline of each load.
fn too_late(rig: &Rig, time: Duration, for_ever: bool) -> (Error, Deadline, Vec<Deadline>) {
    let deadline = Deadline::after(time);
    let now = Cell::new(deadline);
    let loads = RefCell::new(Vec::new());
    let around = |call: Call<'_>, moment| {
        match call {
            _ if moment == Moment::After => {}
            Call::SetDeadline(deadline) => now.set(deadline),
            Call::Replace => {
                let mut loads = loads.borrow_mut();
                loads.push(now.get());
                if loads.len() > 1 && (for_ever || loads[1] <= loads[0]) {
                    return Err(Error::new(Kind::Busy, "the time is up"));
                }
            }
            Call::Status => return Err(Error::new(Kind::Busy, "ask whether pf is enabled: the time is up")),
            _ => {}
        }
        Ok(())
    };
    let firewall = Around { sim: rig.sim(), around };
    let publisher = Publisher::new(&rig.host, &firewall, Store::open(rig.path()).unwrap(), deadline, &Unobserved);
    let error = publisher.publish(&request("web", "8080:80")).unwrap_err();
    (error, deadline, loads.into_inner())
}

fn narrow() -> Request {
    let mut narrow = request("web", "8080:80");
    narrow.options.sources = vec!["192.0.2.96/28".parse().unwrap()];
    narrow
}

#[test]
fn there_is_time_for_undoing() {
    for before in [None, Some(narrow())] {
        let rig = Rig::new();
        if let Some(before) = &before {
            rig.publish(before).unwrap();
        }
        let held = (rig.loaded(), crate::support::rig::files(rig.path()));
        let (error, deadline, loads) = too_late(&rig, Duration::from_secs(60), false);
        assert_eq!(error.kind(), Kind::Busy);
        // the load leaves time for the steps after it, and undoing has time of its own
        assert!(loads[0] < deadline.reserving(Duration::from_secs(4), 1), "{loads:?}");
        let again = (rig.loaded(), crate::support::rig::files(rig.path()));
        assert_eq!(again.0, held.0, "{error}");
        assert!(before.is_none() || again.1 == held.1);
        assert!(rig.list().iter().all(|listed| listed.liveness == Liveness::Live && listed.problem.is_none()));
    }
}

#[test]
fn undoing_has_time_of_its_own() {
    let rig = Rig::new();
    rig.publish(&narrow()).unwrap();
    let held = rig.loaded();
    // no time is left after the load
    let (_, deadline, loads) = too_late(&rig, Duration::from_millis(300), false);
    assert!(loads[1].reserving(Duration::from_secs(5), 1) > deadline, "{loads:?}");
    assert_eq!(rig.loaded(), held);
}

/// If undoing fails as well, the record has the intended set: restore does not load the failed one.
#[test]
fn restore_loads_the_old_set() {
    for before in [None, Some(narrow())] {
        let rig = Rig::new();
        if let Some(before) = &before {
            rig.publish(before).unwrap();
        }
        let held = rig.loaded();
        let (error, ..) = too_late(&rig, Duration::from_secs(60), true);
        assert!(error.message().contains("run kport apply for the old one"), "{error}");
        assert_ne!(rig.loaded(), held, "the failed set is there");
        assert!(rig.list()[0].problem.is_some());
        // no other jail gets its ports until then
        assert_eq!(rig.publish(&request("db", "8080:80")).unwrap_err().kind(), Kind::Conflict);
        rig.with(&rig.sim(), &Unobserved, |p| p.restore()).unwrap();
        assert_eq!(rig.loaded(), held);
        assert!(rig.list().iter().all(|listed| listed.liveness == Liveness::Live && listed.problem.is_none()));
        assert_eq!(rig.list().len(), usize::from(before.is_some()));
    }
}

/// A pfctl(8) that does its work and does not exit is killed at the deadline: the contents of the anchor then decide. If they
/// cannot be read, or the rest fails, the change is undone, even if pfctl hangs then as well.
#[test]
fn a_pfctl_that_hangs_after_its_commit() {
    const LOOK: &str = "-a kport/web -sr";
    let denied = Fault::Say(1, "pfctl: /dev/pf: Permission denied\n");
    // the fault after the load, its call, and how often a load hangs
    for (then, loads, published) in
        [(None, 1, true), (Some((LOOK, denied)), 1, false), (Some(("Running", denied)), 2, false)]
    {
        for before in [None, Some(narrow())] {
            let rig = Rig::new();
            let standin = standin::Pfctl::new();
            let ample = || Pfctl::new(standin.program(), Deadline::after(Duration::from_secs(60)));
            if let Some(before) = &before {
                rig.with(&ample(), &Unobserved, |p| p.publish(before)).unwrap();
            }
            let old = (standin.rules("kport/web"), crate::support::rig::files(rig.path()));
            standin.faults("-f -", loads, 100, Fault::HangLate);
            if let Some((call, fault)) = then {
                standin.faults(call, 1, 100, fault);
            }
            let deadline = Deadline::after(Duration::from_secs(8));
            let pfctl = Pfctl::new(standin.program(), deadline);
            let publisher = Publisher::new(&rig.host, &pfctl, Store::open(rig.path()).unwrap(), deadline, &Unobserved);
            let done = publisher.publish(&request("web", "8080:80"));
            // what is left of the faults
            standin.heal();
            let listed = rig.with(&ample(), &Unobserved, |p| p.list(None)).unwrap();
            assert!(
                listed.iter().all(|listed| listed.liveness == Liveness::Live && listed.problem.is_none()),
                "{then:?}: {done:?} {listed:?}"
            );
            if published {
                assert!(done.unwrap().changed);
                assert!(listed.len() == 1 && standin.rules("kport/web") != old.0);
            } else {
                let error = done.unwrap_err();
                let new = (standin.rules("kport/web"), crate::support::rig::files(rig.path()));
                assert_eq!(new.0, old.0, "{error}");
                assert!(before.is_none() || new.1 == old.1, "{error}");
                assert_eq!(listed.len(), usize::from(before.is_some()));
            }
        }
    }
}

/// A boot that starts forty jails at once, with a slow pfctl(8): 10 ms for each run, and a time-out with the same ratio to the work
/// as on a slow machine.
#[test]
fn forty_jails_at_boot() {
    const JAILS: usize = 40;
    let mut rig = Rig::new();
    let jail = |number: i32| serde_json::json!({ "jid": 100 + number, "name": format!("jail{number}") });
    rig.host.jails = (0..40).map(|number| serde_json::from_value(jail(number)).unwrap()).collect();
    let standin = standin::Pfctl::new();
    standin.fault("", Fault::Slow(10));
    std::thread::scope(|scope| {
        for number in 0..JAILS {
            let (rig, standin) = (&rig, &standin);
            scope.spawn(move || {
                let mut request = request(&format!("jail{number}"), &format!("{}:80", 8000 + number));
                request.addresses = vec![format!("10.0.0.{}", 100 + number).parse().unwrap()];
                request.jid = Some(100 + i32::try_from(number).unwrap());
                let deadline = Deadline::after(Duration::from_secs(120));
                let pfctl = Pfctl::new(standin.program(), deadline);
                let store = Store::open(rig.path()).unwrap();
                let publisher = Publisher::new(&rig.host, &pfctl, store, deadline, &Unobserved);
                let done = publisher.publish(&request).unwrap();
                assert!(done.changed);
            });
        }
    });
    // the assumption of DEFAULT_TIMEOUT; the first one of a boot lists kport's anchors as well
    assert_eq!(standin.calls().len(), JAILS * 6 + 1);
    standin.heal();
    let pfctl = Pfctl::new(standin.program(), Deadline::after(Duration::from_secs(60)));
    let listed = rig.with(&pfctl, &Unobserved, |p| p.list(None)).unwrap();
    assert_eq!(listed.len(), JAILS);
    assert!(listed.iter().all(|listed| listed.liveness == Liveness::Live && listed.problem.is_none()), "{listed:?}");
}
