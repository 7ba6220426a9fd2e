//! B11: with SIGCHLD ignored, limits over pfctl always fail.
//!
//! On FreeBSD kqueue(2) tells how pfctl(8) ended; here nothing does, and what the anchor holds decides.

use std::process::Command;

use crate::support::cc::{self, C99};
use crate::support::standin::{self, Fault};

/// The helper, started by a program that ignores SIGCHLD: execve(2) keeps that.
fn kport(pf: &standin::Pfctl, state: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(C99.build("tests/c/ignore.c"));
    command.args([env!("CARGO_BIN_EXE_kport"), "-v", "--backend", "pfctl"]);
    command.arg("--pfctl").arg(pf.program()).args(arguments);
    command.env_clear().env("KPORT_STATE_DIR", state.path());
    command
}

const LIMITS: [&str; 6] = ["--max-connections", "100", "--max-connections-per-source", "10", "--rate", "20/5"];

#[test]
fn limits_are_loaded_replaced_and_known_again() {
    let (pf, state) = (standin::Pfctl::new(), tempfile::tempdir().unwrap());
    let publish = |limits: &[&str]| {
        let arguments = [&["publish", "web", "-a", "10.0.0.2"], limits, &["em0:8080:80"]].concat();
        let output = cc::done(&mut kport(&pf, &state, &arguments));
        cc::text(&output.stderr)
    };
    let said = publish(&LIMITS);
    if cfg!(not(target_os = "freebsd")) {
        assert!(said.contains("exit status unknown"), "{said}");
    }
    assert!(pf.rules("kport/web").unwrap().contains("max 100"));
    publish(&["--max-connections", "200"]);
    assert!(pf.rules("kport/web").unwrap().contains("max 200"));
    cc::done(&mut kport(&pf, &state, &["unpublish", "web"]));
    assert_eq!(pf.rules("kport/web"), None);
}

/// A pfctl(8) that dies before its work, whose end nobody sees, has not published.
#[test]
fn what_was_not_loaded_is_not_taken_for_loaded() {
    let (pf, state) = (standin::Pfctl::new(), tempfile::tempdir().unwrap());
    pf.faults("-f -", 1, 100, Fault::Abort);
    let arguments = [&["publish", "web", "-a", "10.0.0.2"], &LIMITS[..], &["em0:8080:80"]].concat();
    let output = kport(&pf, &state, &arguments).output().unwrap();
    assert!(!output.status.success(), "{}", cc::text(&output.stderr));
    assert_eq!(pf.rules("kport/web"), None);
}
