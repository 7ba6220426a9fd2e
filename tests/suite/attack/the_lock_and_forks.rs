//! A child that the program forks does not keep the lock.
//!
//! Dropping the lock releases it, even if another process has its descriptor; a lock file that was removed is not a lock: both are
//! tested in src/store/lock.rs.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use kport::deadline::Deadline;

use crate::support::cc::{self, C99};
use crate::support::standin::{self, Fault};

#[test]
fn a_host_whose_other_thread_forks_all_the_time() {
    let (mut program, _dir) = cc::command(&C99.build("tests/c/fork.c"));
    let output = cc::done(&mut program);
    assert_eq!(cc::text(&output.stderr), "");
}

/// A helper is killed before its pfctl(8) has loaded. An unpublish that follows waits for that program: otherwise the ports would be
/// open after it.
#[test]
fn what_a_killed_helper_started_loads_nothing_after_a_later_unpublish() {
    let pf = standin::Pfctl::new();
    let state = tempfile::tempdir().unwrap();
    let kport = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kport"));
        command.env_clear().env("KPORT_STATE_DIR", state.path()).env("KPORT_BACKEND", "pfctl");
        command.arg("--pfctl").arg(pf.program()).args(arguments);
        command
    };
    pf.faults("-f -", 1, 100, Fault::Slow(1500));
    let mut killed = kport(&["publish", "web", "-a", "10.0.0.2", "em0:8080:80"]).spawn().unwrap();
    let end = Deadline::after(Duration::from_secs(60));
    while !pf.calls().iter().any(|call| call.contains("-f -")) {
        assert!(!end.passed() && killed.try_wait().unwrap().is_none(), "pfctl was not run: {:?}", pf.calls());
        sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let output = cc::done(&mut kport(&["unpublish", "web"]));
    assert_eq!(cc::text(&output.stderr), "");
    assert_eq!(pf.rules("kport/web"), None);
    // and nothing is loaded later
    sleep(Duration::from_millis(2000));
    assert_eq!(pf.rules("kport/web"), None);
}
