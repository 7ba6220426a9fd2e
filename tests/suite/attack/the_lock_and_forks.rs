//! A child that the program forks does not keep the lock.
//!
//! Dropping the lock releases it, even if another process has its descriptor; a lock file that was removed is not a lock: both are
//! tested in store.rs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use kport::deadline::Deadline;

use crate::support::cc::{self, C99};
use crate::support::rig::files;
use crate::support::standin::{self, Fault};

#[test]
fn a_host_whose_other_thread_forks_all_the_time() {
    let (mut program, _dir) = cc::command(&C99.build("tests/c/fork.c"));
    let output = cc::done(&mut program);
    assert_eq!(cc::text(&output.stderr), "");
}

/// A child that is forked while another thread initializes something does not have that thread, and would wait for it for
/// ever: nothing in the library waits for another thread. Locks are tried.
#[test]
fn nothing_waits_for_a_thread_that_a_child_does_not_have() {
    let waits =
        ["::sync::Once", "Once::new", "OnceLock", "LazyLock", "once_cell::sync", "RwLock", "Condvar", "lazy_static"];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&src) {
        let text = fs::read_to_string(src.join(&file)).unwrap();
        let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for word in waits.iter().chain(code.contains("sync::Mutex").then_some(&".lock()")) {
            assert!(!code.contains(word), "{file}: {word}");
        }
    }
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
