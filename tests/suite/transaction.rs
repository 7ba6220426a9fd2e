//! Publishing is a transaction: every step is made to fail, and the process is killed at every step. Afterwards pf holds
//! the old or the new set, the record agrees or `list` reports the difference, and the next call corrects it.
//!
//! `cargo test --test suite transaction:: -- --nocapture matrix` prints the table.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::support::around::{Around, Call, Moment};
use crate::support::rig::{Rig, files, request, run};
use crate::support::{rig, standin};
use kport::deadline::Deadline;
use kport::error::{Error, Kind, Result};
use kport::name::JailName;
use kport::pf::Firewall;
use kport::pf::files::Sim;
use kport::publisher::{Liveness, Observer, Outcome, Phase, Publisher, Request, Unobserved};

/// A fault at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The step fails before it does anything.
    Fails,
    /// The call to the firewall fails, without effect.
    CallFails,
    /// The call to the firewall fails after its effect: a time-out after the commit.
    CallFailsLate,
    /// The process is killed before the step.
    Killed,
    /// The process is killed after the effect of the call to the firewall.
    KilledLate,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Fault::Fails => "fails",
            Fault::CallFails => "pf call fails",
            Fault::CallFailsLate => "pf call fails late",
            Fault::Killed => "killed",
            Fault::KilledLate => "killed after pf call",
        }
    }
}

/// A firewall that fails, or kills the process, once, at the calls that belong to a step.
fn faulty(sim: Sim, at: Phase, fault: Fault) -> impl Firewall {
    let fault = Cell::new(Some(fault));
    let around = move |call: Call<'_>, moment| {
        let step = match call {
            Call::Replace => Phase::Load,
            Call::KillStates(_) => Phase::Kill,
            Call::Status => Phase::Verify,
            Call::ForeignRedirects | Call::HasTable => Phase::Check,
            Call::SetDeadline(_) | Call::Loaded(_) | Call::Other => return Ok(()),
        };
        if step != at {
            return Ok(());
        }
        match (fault.get(), moment) {
            (Some(Fault::CallFails), Moment::Before) | (Some(Fault::CallFailsLate), Moment::After) => {
                fault.set(None);
                Err(Error::new(Kind::System, "made to fail"))
            }
            (Some(Fault::KilledLate), Moment::After) => std::process::abort(),
            _ => Ok(()),
        }
    };
    Around { sim, around }
}

/// Fails, or kills the process, before a step.
struct Breaker {
    at: Phase,
    fault: Fault,
}

impl Observer for Breaker {
    fn phase(&self, phase: Phase) -> Result<()> {
        match self.fault {
            Fault::Fails if phase == self.at => Err(Error::new(Kind::System, "made to fail")),
            Fault::Killed if phase == self.at => std::process::abort(),
            _ => Ok(()),
        }
    }
}

/// What is being done at the fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    First,
    Replace,
    Unpublish,
}

impl Act {
    const ALL: [Act; 3] = [Act::First, Act::Replace, Act::Unpublish];

    fn name(self) -> &'static str {
        match self {
            Act::First => "publish",
            Act::Replace => "replace",
            Act::Unpublish => "unpublish",
        }
    }

    fn old() -> Request {
        request("web", "8080:80 8081:81 *:9000-9100:9000/udp")
    }

    fn wish() -> Request {
        request("web", "8081:81 8082:82")
    }

    fn run(self, publisher: &Publisher<'_>) -> Result<Outcome> {
        match self {
            Act::First | Act::Replace => publisher.publish(&Act::wish()),
            Act::Unpublish => publisher.unpublish(&"web".parse().unwrap(), None),
        }
    }
}

type Anchors = Vec<(String, String)>;

/// A rig before the act, and the contents of pf before and after one that succeeds.
fn before(act: Act) -> (Rig, Anchors, Anchors) {
    let prepared = || {
        let rig = Rig::new();
        rig.publish(&request("db", "7000-7100:1")).unwrap();
        if act != Act::First {
            rig.publish(&Act::old()).unwrap();
        }
        rig
    };
    let reference = prepared();
    let old = reference.loaded();
    reference.with(&reference.sim(), &Unobserved, |p| act.run(p)).unwrap();
    (prepared(), old, reference.loaded())
}

fn breaking(rig_path: &Path, act: Act, at: Phase, fault: Fault) -> Result<Outcome> {
    let firewall = faulty(Sim::new(rig_path), at, fault);
    run(rig_path, &rig::host(), &firewall, &Breaker { at, fault }, |p| act.run(p))
}

/// Runs as a process of its own, for the faults that end it.
#[test]
#[ignore = "the matrix runs it, in a process that is killed"]
fn killed() {
    let var = |name: &str| std::env::var(name).unwrap();
    let act = *Act::ALL.iter().find(|a| a.name() == var("KPORT_TEST_ACT")).unwrap();
    let at = *Phase::ALL.iter().find(|s| s.name() == var("KPORT_TEST_STEP")).unwrap();
    let fault = if var("KPORT_TEST_FAULT") == Fault::Killed.name() { Fault::Killed } else { Fault::KilledLate };
    _ = breaking(Path::new(&var("KPORT_TEST_DIR")), act, at, fault);
    panic!("{} never comes to {}", act.name(), at.name());
}

#[test]
fn matrix() {
    use std::os::unix::process::ExitStatusExt;
    let mut table = String::new();
    _ = writeln!(table, "{:<10} {:<8} {:<21} {:<9} {:<30} next call", "act", "step", "fault", "pf has", "record");
    let mut rows = 0;
    for act in Act::ALL {
        for step in Phase::ALL {
            let in_unpublish = matches!(step, Phase::Lock | Phase::Load | Phase::Kill | Phase::Settle);
            if act == Act::Unpublish && !in_unpublish {
                continue;
            }
            let calls_pf = matches!(step, Phase::Load | Phase::Kill)
                || (act != Act::Unpublish && matches!(step, Phase::Check | Phase::Verify));
            for fault in [Fault::Fails, Fault::CallFails, Fault::CallFailsLate, Fault::Killed, Fault::KilledLate] {
                if !calls_pf && !matches!(fault, Fault::Fails | Fault::Killed) {
                    continue;
                }
                let (rig, old, new) = before(act);
                let claims = files(&rig.path().join("ports"));
                let outcome = if matches!(fault, Fault::Killed | Fault::KilledLate) {
                    let status = Command::new(std::env::current_exe().unwrap())
                        .args(["--ignored", "--exact", "transaction::killed"])
                        .env("KPORT_TEST_DIR", rig.path())
                        .env("KPORT_TEST_ACT", act.name())
                        .env("KPORT_TEST_STEP", step.name())
                        .env("KPORT_TEST_FAULT", fault.name())
                        .output()
                        .unwrap()
                        .status;
                    assert_eq!(status.signal(), Some(6), "{act:?} {step:?} {fault:?} did not end by abort");
                    None
                } else {
                    Some(breaking(rig.path(), act, step, fault))
                };
                let what = format!("{} {} {}", act.name(), step.name(), fault.name());

                // pf has one of the two sets, and that of the other jail is unchanged
                let holds = rig.loaded();
                let set = match () {
                    () if holds == old => "old set",
                    () if holds == new => "new set",
                    () => panic!("{what}: pf holds neither set: {holds:?}"),
                };
                // after a success pf has the new set, after a failure the old one
                if let Some(outcome) = outcome {
                    match (&outcome, act) {
                        (Ok(_), _) => assert_eq!(set, "new set", "{what}"),
                        // an unpublish does as much as it can
                        (Err(_), Act::Unpublish) => {}
                        (Err(error), _) => {
                            assert_eq!(set, "old set", "{what}: {error}");
                            assert_eq!(files(&rig.path().join("ports")), claims, "{what}");
                        }
                    }
                }
                // the record agrees, or the list reports that it does not
                let listed = rig.list();
                let web = listed.iter().find(|l| l.anchor.child() == "web");
                let in_pf = holds.iter().any(|(child, _)| child == "web");
                let record = match web {
                    None if !in_pf => "agrees".to_owned(),
                    None => panic!("{what}: pf has rules that the list does not show"),
                    Some(l) if l.liveness == Liveness::Live => {
                        assert!(in_pf, "{what}");
                        let told = if l.problem.is_some() { "agrees, list says interrupted" } else { "agrees" };
                        told.to_owned()
                    }
                    Some(l) => format!("list says {}", l.liveness.name()),
                };
                // the ports that may be in pf are still taken
                if in_pf {
                    let thief = if set == "old set" && act != Act::First { "8080:1" } else { "8082:1" };
                    let error = rig.publish(&request("flat", thief)).unwrap_err();
                    assert_eq!(error.kind(), Kind::Conflict, "{what}");
                }
                // the next call corrects it, and leaves what a run without a fault leaves
                rig.with(&rig.sim(), &Unobserved, |p| act.run(p)).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(rig.loaded(), new, "{what}");
                assert!(rig.list().iter().all(|l| l.liveness == Liveness::Live && l.problem.is_none()), "{what}");
                let (clean, _, _) = before(act);
                clean.with(&clean.sim(), &Unobserved, |p| act.run(p)).unwrap();
                assert_eq!(files(rig.path()), files(clean.path()), "{what}");
                _ = writeln!(
                    table,
                    "{:<10} {:<8} {:<21} {set:<9} {record:<30} corrected",
                    act.name(),
                    step.name(),
                    fault.name()
                );
                rows += 1;
            }
        }
    }
    // captured unless --nocapture
    eprintln!("{table}");
    assert_eq!(rows, 70, "{table}");
}

/// A change that was cut off before the load, and whose two sets have the same counts in pf: restore loads the new one.
#[test]
fn restore_after_a_change_that_only_moved_the_address() {
    let rig = Rig::new();
    let at = |address: &str| Request { addresses: vec![address.parse().unwrap()], ..request("web", "8080:80") };
    rig.publish(&at("10.0.0.2")).unwrap();
    struct Cut;
    impl Observer for Cut {
        fn phase(&self, phase: Phase) -> Result<()> {
            // unwinds past the rollback, as a kill does
            if phase == Phase::Load { std::panic::panic_any("cut off") } else { Ok(()) }
        }
    }
    let cut = || rig.with(&rig.sim(), &Cut, |p| p.publish(&at("10.0.0.3")));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(cut)).is_err());
    assert_eq!(rig.list()[0].liveness, Liveness::Missing);
    let done = rig.with(&rig.sim(), &Unobserved, |p| p.restore()).unwrap();
    assert!(done.changed);
    assert!(rig.loaded()[0].1.contains("-> 10.0.0.3 port 80"), "{:?}", rig.loaded());
    assert_eq!(rig.list()[0].liveness, Liveness::Live);
}

/// An anchor that cannot be cleared is still published: unpublish fails, and the record stays.
#[test]
fn unpublish_that_cannot_clear_the_anchor() {
    use std::time::Duration;
    for (call, said) in
        [("-f -", "pfctl: pfctl_rules\n"), ("-sr", "pfctl: DIOCGETRULES: Inappropriate ioctl for device\n")]
    {
        let pf = standin::Pfctl::new();
        let rig = Rig::new();
        let pfctl = || kport::pf::pfctl::Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
        rig.with(&pfctl(), &Unobserved, |p| p.publish(&request("db", "8080:80"))).unwrap();
        let before = files(rig.path());
        pf.fault(call, standin::Fault::Say(1, said));
        let name = "db".parse().unwrap();
        let done = rig.with(&pfctl(), &Unobserved, |p| p.unpublish(&name, None));
        assert!(done.is_err() && pf.rules("kport/db").is_some(), "{call}: {done:?}");
        assert_eq!(files(rig.path()), before, "{call}");
    }
}

/// With pfctl: whatever pf loses or refuses at each run, the set stays complete.
#[test]
fn pfctl_that_fails_in_the_middle() {
    use std::time::Duration;
    for fault in [
        standin::Fault::Abort,
        standin::Fault::AbortLate,
        standin::Fault::Say(1, "pfctl: DIOCXCOMMIT: Operation not permitted\n"),
        standin::Fault::Say(1, "stdin:1: syntax error\npfctl: Syntax error in config file: pf rules not loaded\n"),
    ] {
        let pf = standin::Pfctl::new();
        let rig = Rig::new();
        let publish = |spec: &str| {
            let pfctl = kport::pf::pfctl::Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
            rig.with(&pfctl, &Unobserved, |p| {
                let done = p.publish(&request("db", spec));
                (done, p.list(None).unwrap())
            })
        };
        publish("8080:80").0.unwrap();
        let old = pf.rules("kport/db").unwrap();
        pf.faults("-f -", 1, 100, fault);
        let (done, listed) = publish("8081:81");
        let now = pf.rules("kport/db").unwrap();
        match done {
            Ok(_) => assert!(now != old && now.contains("8081"), "{fault:?}"),
            Err(error) => assert_eq!(now, old, "{fault:?}: {error}"),
        }
        assert_eq!(listed[0].liveness, Liveness::Live, "{fault:?}");
        assert_eq!(listed[0].redirects[0].0.host.first(), if now == old { 8080 } else { 8081 }, "{fault:?}");
        publish("8081:81").0.unwrap();
    }
}

/// Busy until the deadline: pf and the record are unchanged, and the error names the program that may use pf.
#[test]
fn busy_until_the_time_is_up() {
    use std::time::Duration;
    let pf = standin::Pfctl::new();
    let rig = Rig::new();
    let publish = |spec: &str, time: Duration| {
        let pfctl = kport::pf::pfctl::Pfctl::new(pf.program(), Deadline::after(time));
        rig.with(&pfctl, &Unobserved, |p| p.publish(&request("db", spec)))
    };
    publish("8080:80", Duration::from_secs(60)).unwrap();
    let before = (files(rig.path()), std::fs::read(rig.state("jails/db.json")).unwrap(), pf.rules("kport/db"));
    pf.fault("-f -", standin::Fault::Say(1, standin::BUSY));
    let error = publish("8081:81", Duration::from_secs(2)).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    // the deadline may end the last try
    let words = ["another program loads pf rules", "not done when the time was up"];
    assert!(words.iter().any(|part| error.message().contains(part)), "{error}");
    assert_eq!((files(rig.path()), std::fs::read(rig.state("jails/db.json")).unwrap(), pf.rules("kport/db")), before);
}

/// Changing a set ends the states of what was removed, and no others.
#[test]
fn states_of_removed_mappings() {
    use std::time::Duration;
    let pf = standin::Pfctl::new();
    let rig = Rig::new();
    let publish = |spec: &str| {
        let pfctl = kport::pf::pfctl::Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
        rig.with(&pfctl, &Unobserved, |p| p.publish(&request("db", spec))).unwrap()
    };
    publish("8080:80 8081:81");
    pf.set_states(&["kport:db kport:db:tcp:8080", "kport:db kport:db:tcp:8081", "kport:web kport:web:tcp:1"]);
    assert_eq!(publish("8081:81").killed, 1);
    assert_eq!(pf.states(), ["kport:db kport:db:tcp:8081", "kport:web kport:web:tcp:1"]);
    let pfctl = kport::pf::pfctl::Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
    rig.with(&pfctl, &Unobserved, |p| p.unpublish(&"db".parse().unwrap(), None)).unwrap();
    assert_eq!(pf.states(), ["kport:web kport:web:tcp:1"]);
}

/// The states of the native backend have the jail's label only, and outlive its rules: pfctl, which cannot find those of a mapping
/// among them, ends all of them when one of the mappings is removed.
#[test]
fn states_of_another_backend() {
    use std::time::Duration;
    let pf = standin::Pfctl::new();
    let rig = Rig::new();
    let pfctl = || kport::pf::pfctl::Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
    let publish = |spec: &str| rig.with(&pfctl(), &Unobserved, |p| p.publish(&request("db", spec))).unwrap();
    publish("8080:80");
    let record = std::fs::read_to_string(rig.state("jails/db.json")).unwrap();
    let native = record.replace("\"mapping_labels\":true", "\"mapping_labels\":false");
    assert_ne!(native, record);
    std::fs::write(rig.state("jails/db.json"), native).unwrap();
    pf.set_states(&["kport:db", "kport:web"]);
    publish("8080:80 8081:81");
    assert_eq!(pf.states().len(), 2);
    publish("8081:81");
    assert_eq!(pf.states(), ["kport:web"]);
    // these may live as long as the jail is published
    pf.set_states(&["kport:db", "kport:db kport:db:tcp:8081"]);
    publish("8082:82");
    assert_eq!(pf.states(), [""; 0]);
    rig.with(&pfctl(), &Unobserved, |p| p.unpublish(&"db".parse().unwrap(), None)).unwrap();
    publish("8080:80 8081:81");
    pf.set_states(&["kport:db kport:db:tcp:8080", "kport:db kport:db:tcp:8081"]);
    publish("8080:80");
    assert_eq!(pf.states(), ["kport:db kport:db:tcp:8080"]);
}

/// A boot: 64 processes publish 64 jails at once, and pf is busy at a third of all calls.
#[test]
fn sixty_four_at_once_while_pf_is_busy() {
    let pf = standin::Pfctl::new();
    pf.faults("-f -", u64::MAX, 33, standin::Fault::Say(1, standin::BUSY));
    let state = tempfile::tempdir().unwrap();
    let kport = |arguments: &[String]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kport"));
        command
            .args(["--backend", "pfctl", "--timeout", "300", "--pfctl"])
            .arg(pf.program())
            .arg("--state-dir")
            .arg(state.path())
            .args(arguments);
        command
    };
    let arguments = |i: usize| -> Vec<String> {
        [
            "publish",
            &format!("jail{i}"),
            "-a",
            &format!("10.0.0.{}", i + 2),
            "--gateway",
            "em0",
            &format!("{}:80", 8000 + i),
        ]
        .iter()
        .map(|a| (*a).to_owned())
        .collect()
    };
    let children: Vec<_> = (0..64).map(|i| kport(&arguments(i)).spawn().unwrap()).collect();
    for (i, child) in children.into_iter().enumerate() {
        assert!(child.wait_with_output().unwrap().status.success(), "jail{i}");
    }
    for i in 0..64 {
        let rules = pf.rules(&format!("kport/jail{i}")).unwrap();
        assert!(
            rules.contains(&format!("port {} tag \"kport:jail{i}\" -> 10.0.0.{} port 80", 8000 + i, i + 2)),
            "{rules}"
        );
    }
    pf.heal();
    let listed = kport(&["list".to_owned(), "--json".to_owned()]).output().unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for jail in listed["jails"].as_array().unwrap() {
        *states.entry(jail["state"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(states, BTreeMap::from([("live".to_owned(), 64)]));
}

/// A process that dies releases the lock, and a wait for it ends in time with the name of its holder.
#[test]
fn the_lock() {
    use std::time::Duration;
    let rig = Rig::new();
    let store = kport::store::Store::open(rig.path()).unwrap();
    let held = store.lock(Deadline::after(Duration::ZERO)).unwrap();
    let error = store.lock(Deadline::after(Duration::from_millis(50))).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.message().contains(&format!("held by process {}", std::process::id())), "{error}");
    drop(held);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "transaction::killed"])
        .env("KPORT_TEST_DIR", rig.path())
        .env("KPORT_TEST_ACT", "publish")
        .env("KPORT_TEST_STEP", "load")
        .env("KPORT_TEST_FAULT", "killed")
        .output()
        .unwrap();
    assert!(!child.status.success());
    drop(store.lock(Deadline::after(Duration::ZERO)).unwrap());
}

/// Redirects of other tools and of the administrator are conflicts, before anything is loaded, unless forced.
#[test]
fn redirects_of_other_tools() {
    use std::time::Duration;
    for (anchor, name) in [
        ("", "the main ruleset"),
        ("rdr/old", "anchor rdr/old"),
        ("appjail-rdr/a", "anchor appjail-rdr/a"),
        ("pot-rdr/b", "anchor pot-rdr/b"),
        ("cni-rdr/0123", "anchor cni-rdr/0123"),
    ] {
        let pf = standin::Pfctl::new();
        let calls: String =
            ["rdr", "appjail-rdr", "pot-rdr", "cni-rdr"].iter().map(|a| format!("rdr-anchor \"{a}/*\"\n")).collect();
        let rdr = "rdr pass on em0 inet proto tcp from any to any port 8000:8100 -> 10.0.0.9 port 80\n";
        match anchor {
            "" => pf.put("", &format!("{calls}{rdr}{}", standin::MAIN)),
            _ => {
                pf.put("", &format!("{calls}{}", standin::MAIN));
                pf.put(anchor, rdr);
            }
        }
        let rig = Rig::new();
        let publish = |request: &Request| {
            let pfctl = kport::pf::pfctl::Pfctl::new(pf.program(), Deadline::after(Duration::from_secs(60)));
            rig.with(&pfctl, &Unobserved, |p| p.publish(request))
        };
        let mut wish = request("db", "8080:80");
        let error = publish(&wish).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{name}: {error}");
        assert!(
            error.message().starts_with(&format!("{name} has a redirect of its own for tcp 8080 on em0")),
            "{error}"
        );
        assert_eq!(pf.rules("kport/db"), None);
        assert_eq!(files(rig.path()), ["lock"]);
        for clear in ["7999:80", "8101:80", "8080:80/udp", "em1:8080:80"] {
            publish(&request("db", clear)).unwrap_or_else(|e| panic!("{name} {clear}: {e}"));
        }
        wish.force = true;
        assert!(publish(&wish).unwrap().notes[0].starts_with("forced: "), "{name}");
    }
}

/// Requests of one jail, each with options of its own: the last one has log, the one before it sources.
fn several(specs: [&str; 3]) -> Vec<Request> {
    let mut all = specs.map(|spec| request("web", spec));
    all[1].options.sources = vec!["198.51.100.0/24".parse().unwrap()];
    all[2].options.log = true;
    all.into()
}

#[test]
fn several_requests_are_one_transaction() {
    let all = |rig: &Rig, requests: &[Request]| rig.with(&rig.sim(), &Unobserved, |p| p.publish_all(requests));
    let state = |rig: &Rig| (rig.loaded(), files(rig.path()), std::fs::read(rig.state("jails/web.json")).ok());
    let rig = Rig::new();
    let requests = several(["em0:8080:80", "em1:8081:81", "192.0.2.7:8082:82"]);
    assert_eq!(all(&rig, &requests).unwrap().redirects.len(), 5);
    let published = state(&rig);
    assert!(!all(&rig, &requests).unwrap().changed);
    assert_eq!(state(&rig), published);
    // as if one after the other
    let other = Rig::new();
    for (number, request) in requests.iter().enumerate() {
        other.publish(&Request { add: number > 0, ..request.clone() }).unwrap();
    }
    assert_eq!(rig.loaded(), other.loaded());

    // what the last one cannot have: a port of another jail, of a socket, of the other requests, an address of another family
    rig.publish(&request("db", "em1:9000:90")).unwrap();
    let mut published = state(&rig);
    for (specs, kind) in [
        (["em0:7080:80", "em1:7081:81", "em1:9000:90"], Kind::Conflict),
        (["em0:7080:80", "em1:7081:81", "em0:22:22"], Kind::Conflict),
        (["em0:7080:80", "em1:7081:81", "em0:7080:99"], Kind::Conflict),
        (["em0:7080:80", "em1:7081:81", "[2001:db8::1]:7082:82 127.0.0.1:7083:83"], Kind::Argument),
    ] {
        assert_eq!(all(&rig, &several(specs)).unwrap_err().kind(), kind, "{specs:?}");
        assert_eq!(state(&rig), published, "{specs:?}");
    }
    // each of its steps fails
    let requests = several(["em0:7080:80", "em1:7081:81", "em1:7082:82"]);
    for at in [Phase::Lock, Phase::Resolve, Phase::Check, Phase::Record, Phase::Load, Phase::Verify] {
        for fault in [Fault::Fails, Fault::CallFails, Fault::CallFailsLate] {
            let firewall = faulty(rig.sim(), at, fault);
            let breaker = Breaker { at, fault };
            let failed = rig.with(&firewall, &breaker, |p| p.publish_all(&requests)).is_err();
            let calls = [Phase::Check, Phase::Load, Phase::Verify].contains(&at);
            assert_eq!(failed, fault == Fault::Fails || calls, "{at:?} {fault:?}");
            if failed {
                assert_eq!(state(&rig), published, "{at:?} {fault:?}");
            } else {
                let again = several(["em0:8080:80", "em1:8081:81", "192.0.2.7:8082:82"]);
                all(&rig, &again).unwrap();
                published = state(&rig);
            }
        }
    }

    // the first one decides whether they are added; requests of two jails, and none
    all(&rig, &several(["em0:8080:80", "em1:8081:81", "192.0.2.7:8082:82"])).unwrap();
    let mut more = several(["em0:6080:80", "em1:6081:81", "em1:6082:82"]);
    more[0].add = true;
    assert_eq!(all(&rig, &more).unwrap().redirects.len(), 11);
    assert_eq!(all(&rig, &[request("web", "80"), request("db", "81")]).unwrap_err().kind(), Kind::Argument);
    assert_eq!(all(&rig, &[]).unwrap_err().kind(), Kind::Argument);
}

/// Notes about other jails are reported if one fails.
#[test]
fn an_error_of_one_jail_takes_the_notes_of_the_others_along() {
    /// Fails at the second load.
    struct Second(Cell<usize>);
    impl Observer for Second {
        fn phase(&self, phase: Phase) -> Result<()> {
            let loads = self.0.get() + usize::from(phase == Phase::Load);
            self.0.set(loads);
            match (phase, loads) {
                (Phase::Load, 2) => Err(Error::new(Kind::System, "made to fail")),
                _ => Ok(()),
            }
        }
    }
    let mut rig = Rig::new();
    let jails = [("db", "5432"), ("flat", "8081:80"), ("web", "8080:80")];
    for (jail, spec) in jails {
        rig.publish(&request(jail, spec)).unwrap();
        rig.sim().replace(&jail.parse::<JailName>().unwrap().anchor(), &[]).unwrap();
    }
    let error = rig.with(&rig.sim(), &Second(Cell::new(0)), |p| p.restore()).unwrap_err();
    assert_eq!(error.kind(), Kind::System);
    assert_eq!(
        error.message(),
        "kport/flat: made to fail; noted: jail \"db\": loaded again; jail \"web\": loaded again"
    );
    rig.host.jails.clear();
    let error = rig.with(&rig.sim(), &Second(Cell::new(0)), |p| p.gc()).unwrap_err();
    assert_eq!(
        error.message(),
        "kport/flat: made to fail; noted: jail \"db\" is gone: unpublished; jail \"web\" is gone: unpublished"
    );
    // and a record that was moved aside is not reported again
    std::fs::write(rig.state("jails/flat.json"), "no record").unwrap();
    let error =
        rig.with(&rig.sim(), &Second(Cell::new(1)), |p| p.unpublish(&"flat".parse().unwrap(), None)).unwrap_err();
    assert!(error.message().contains("made to fail; noted: ") && error.message().contains("kept as "), "{error}");
}
