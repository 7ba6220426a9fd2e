//! kport in a program that ignores SIGCHLD, has closed its standard descriptors, or prints the notes.
//!
//! On FreeBSD kqueue(2) reports how pfctl(8) ended; here nothing does, and the contents of the anchor decide. The results of each C
//! function, compared with those of the Rust API, are tested in tests/suite/faces.rs, and with hostile arguments in tests/c/hostile.c.

use std::collections::BTreeSet;
use std::process::Command;

use crate::support::cc::{self, C99};
use crate::support::rig::files;
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
fn limits_are_loaded_replaced_and_recognized() {
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

/// A pfctl(8) that dies before its work, with an unknown status, has not published.
#[test]
fn what_was_not_loaded_is_not_taken_for_loaded() {
    let (pf, state) = (standin::Pfctl::new(), tempfile::tempdir().unwrap());
    pf.faults("-f -", 1, 100, Fault::Abort);
    let arguments = [&["publish", "web", "-a", "10.0.0.2"], &LIMITS[..], &["em0:8080:80"]].concat();
    let output = kport(&pf, &state, &arguments).output().unwrap();
    assert!(!output.status.success(), "{}", cc::text(&output.stderr));
    assert_eq!(pf.rules("kport/web"), None);
}

/// A program that closed descriptors 0 to 2.
#[test]
fn what_the_host_prints_is_in_no_file_of_kport_s() {
    let (mut program, dir) = cc::command(&C99.build("tests/c/closed.c"));
    cc::done(&mut program);
    let mut records = 0;
    for file in files(dir.path()) {
        let path = dir.path().join(&file);
        // the entries
        if path.is_symlink() {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("the host's log"), "{file}: {text}");
        records += usize::from(file.ends_with(".json") && text.starts_with(['{', '[']));
    }
    // the record, and the rules of the simulator
    assert_eq!(records, 2);
}

/// A jail manager in C, which prints the notes.
#[test]
fn a_damaged_record_is_noted_to_a_program_in_c() {
    let hook = C99.build("c-examples/hook.c");
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut hook = Command::new(&hook);
        let output = hook.args(args).env("KPORT_BACKEND", "sim").env("KPORT_STATE_DIR", dir.path()).output().unwrap();
        assert!(output.status.success());
        cc::text(&output.stderr)
    };
    let start = ["start", "web", "7", "10.0.0.2", "em0:8080:80"];
    assert_eq!(run(&start), "kport: simulator: the rules are kept in files, no packet is redirected\n");
    assert_eq!(run(&start), "");
    std::fs::write(dir.path().join("jails/web.json"), "{").unwrap();
    let noted = run(&start);
    assert!(noted.lines().any(|line| line.starts_with("kport: ") && line.contains("; kept as ")), "{noted}");
}

/// The variables that sudo(8) (env_keep and env_check of `sudo -V`, sudo 1.9; and what it sets) and doas(1) (doas.conf(5) without
/// keepenv) pass to a program by default. kport reads none of them: what a user of such a rule sets does not reach it.
const KEPT: &str = "COLORS DISPLAY HOSTNAME KRB5CCNAME LS_COLORS PATH PS1 PS2 XAUTHORITY XAUTHORIZATION XDG_CURRENT_DESKTOP \
    COLORTERM LANG LANGUAGE LC_ALL LC_CTYPE LINGUAS TERM TZ HOME LOGNAME MAIL SHELL USER \
    SUDO_COMMAND SUDO_GID SUDO_HOME SUDO_PS1 SUDO_UID SUDO_USER DOAS_USER";

#[test]
fn what_sudo_and_doas_pass_on_decides_nothing() {
    let kept: BTreeSet<&str> = KEPT.split_whitespace().collect();
    let src = cc::root().join("src");
    for file in files(&src) {
        let text = std::fs::read_to_string(src.join(&file)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        // the functions that read a variable
        for (name, read) in kept.iter().flat_map(|name| ["var", "var_os", "get", "jid"].map(|read| (name, read))) {
            assert!(!code.contains(&format!("{read}(\"{name}\"")), "{file} reads {name}");
        }
    }
    // and the answer is the same, whatever they are
    let answers: BTreeSet<_> = [None, Some("/nowhere"), Some("%s\u{1b}[31m"), Some("0")]
        .into_iter()
        .map(|value| {
            let state = tempfile::tempdir().unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_kport"));
            command.env_clear().envs(value.into_iter().flat_map(|value| kept.iter().map(move |name| (*name, value))));
            command.arg("--backend").arg("sim").arg("--state-dir").arg(state.path().join("state"));
            let output = command.args(["publish", "web", "-a", "10.0.0.2", "em0:8080:80"]).output().unwrap();
            (output.status.code(), cc::text(&output.stdout), cc::text(&output.stderr))
        })
        .collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers.first().unwrap().0, Some(0));
}
