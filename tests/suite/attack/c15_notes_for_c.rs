//! C15: the caller of C hears the notes that the helper prints.
//!
//! What each call of C hands out, beside what the Rust API returns, is tested in tests/suite/faces.rs, and with hostile
//! arguments in tests/c/hostile.c.

use std::fs;
use std::process::Command;

use crate::support::cc::{C99, text};

/// A jail manager in C, which prints what it hears.
#[test]
fn a_damaged_record_is_heard_by_a_program_in_c() {
    let hook = C99.build("c-examples/hook.c");
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut hook = Command::new(&hook);
        let output = hook.args(args).env("KPORT_BACKEND", "sim").env("KPORT_STATE_DIR", dir.path()).output().unwrap();
        assert!(output.status.success());
        text(&output.stderr)
    };
    let start = ["start", "web", "7", "10.0.0.2", "em0:8080:80"];
    assert_eq!(run(&start), "kport: simulator: the rules are kept in files, no packet is redirected\n");
    assert_eq!(run(&start), "");
    fs::write(dir.path().join("jails/web.json"), "{").unwrap();
    let heard = run(&start);
    assert!(heard.lines().any(|line| line.starts_with("kport: ") && line.contains("; kept as ")), "{heard}");
}
