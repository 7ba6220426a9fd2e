//! What jail managers call: the lines of the documentation, at the place where the installer puts the program.

use crate::support::cc;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Every text that shows a way to call kport, by its path below the repository.
fn texts() -> Vec<(String, String)> {
    fn walk(path: PathBuf, found: &mut Vec<(String, String)>) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| walk(entry.unwrap().path(), found));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.strip_prefix(cc::root()).unwrap().display().to_string(), text));
        }
    }
    let mut found = vec![];
    for top in ["README.md", "docs", "examples", "man", "packaging", "c-examples"] {
        walk(cc::root().join(top), &mut found);
    }
    assert!(found.len() > 8, "{found:#?}");
    found.sort();
    found
}

/// Where scripts/install.sh puts the helper.
fn installed() -> String {
    let script = fs::read_to_string(cc::root().join("scripts/install.sh")).unwrap();
    let value = |from: &str, to: &str| {
        let (_, rest) = script.split_once(from).unwrap_or_else(|| panic!("{from}: not in install.sh"));
        rest.split_once(to).unwrap().0.to_owned()
    };
    assert!(script.contains("\nput 755 \"$from/kport\" \"$bindir\"\n"));
    let prefix = value("\nprefix=", " ");
    value("\"${bindir:=", "}").replace("$prefix", &prefix) + "/kport"
}

/// A line that a manager or rc(8) runs, whose PATH may lack /usr/local (libexec/rc/rc sets one without).
fn is_hook(line: &str) -> bool {
    ["exec.", "exec_", "_postcmd=", "_precmd="].iter().any(|key| line.contains(key))
}

/// The places of the program that a line names, and whether it names it without one.
fn calls(line: &str) -> (Vec<&str>, bool) {
    let words = line.split(|c: char| c.is_whitespace() || "\"'`=;()<>|&".contains(c));
    let mut absolute = vec![];
    let mut bare = false;
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let command = matches!(words.peek(), Some(&("publish" | "unpublish" | "restore" | "gc" | "doctor")));
        if word.starts_with('/') && word.ends_with("bin/kport") {
            absolute.push(word);
        } else if word == "kport" && command {
            bare = true;
        }
    }
    (absolute, bare)
}

#[test]
fn every_text_calls_kport_where_the_installer_puts_it() {
    let installed = installed();
    assert_eq!(installed, "/usr/local/bin/kport");
    let mut seen = 0;
    for (path, text) in texts() {
        // a script that a manager runs, in a page or a file of its own
        let mut script = false;
        for (number, line) in (1..).zip(text.lines()) {
            script = if line.starts_with("#!") { true } else { script && !line.starts_with("```") };
            let (absolute, bare) = calls(line);
            assert!(absolute.iter().all(|place| *place == installed), "{path}:{number}: {line}");
            assert!(!(bare && (is_hook(line) || script)), "{path}:{number}: name {installed}: {line}");
            seen += absolute.len();
        }
    }
    assert!(seen > 8, "only {seen} calls were found");
}

#[test]
fn the_check_sees_a_wrong_place_and_none() {
    assert_eq!(
        calls("exec.poststart = \"/usr/local/sbin/kport publish web 80\";"),
        (vec!["/usr/local/sbin/kport"], false)
    );
    assert_eq!(calls("exec.poststop = 'kport unpublish web || true';"), (vec![], true));
    assert_eq!(calls("the lock of kport and /var/run/kport"), (vec![], false));
    assert!(is_hook("iocage set exec_poststart='x' web") && !is_hook("$ kport publish web 80"));
    assert!(Path::new(&installed()).is_absolute());
}

/// A host that is played, and kport on it, called as a hook: with nothing in the environment but what the manager sets.
struct Hooks {
    dir: tempfile::TempDir,
}

impl Hooks {
    fn new() -> Hooks {
        let hooks = Hooks { dir: tempfile::tempdir().unwrap() };
        hooks.jails(&[("web", 2, "10.0.0.2")]);
        hooks
    }

    /// The jails that run: name, number, address (none where it is empty).
    fn jails(&self, jails: &[(&str, i32, &str)]) {
        let mut host: serde_json::Value = serde_json::from_str(include_str!("../../examples/host.json")).unwrap();
        host["jails"] = jails.iter().map(|j| serde_json::json!({ "jid": j.1, "name": j.0, "vnet": true })).collect();
        host["vnet_addresses"] = serde_json::json!({});
        for (name, _, address) in jails.iter().filter(|jail| !jail.2.is_empty()) {
            host["vnet_addresses"][*name] = serde_json::json!([address]);
        }
        // the program reads it at any time
        fs::write(self.dir.path().join("new"), host.to_string()).unwrap();
        fs::rename(self.dir.path().join("new"), self.dir.path().join("host.json")).unwrap();
    }

    fn command(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Command {
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().env("KPORT_BACKEND", "sim").env("KPORT_STATE_DIR", self.dir.path().join("state"));
        kport.envs(environment.iter().copied()).arg("--host").arg(self.dir.path().join("host.json")).args(arguments);
        kport.stdin(Stdio::null());
        kport
    }

    /// The exit status, and what was said but for the simulator's notice.
    fn run(&self, environment: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
        said(self.command(environment, arguments).output().unwrap())
    }

    fn list(&self) -> Vec<String> {
        let table = cc::text(&cc::done(&mut self.command(&[], &["list"])).stdout);
        let row = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        table.lines().skip(1).map(row).collect()
    }
}

fn said(output: Output) -> (i32, String) {
    let text = cc::text(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("simulator")).collect();
    (output.status.code().unwrap(), lines.join("\n"))
}

const START: &[&str] = &["publish", "--hook", "8080:80"];
const STOP: &[&str] = &["unpublish", "--hook"];
const WEB: &[(&str, &str)] = &[("JNAME", "web"), ("JID", "2")];
const DONE: (i32, String) = (0, String::new());

#[test]
fn a_hook_knows_its_jail() {
    let hooks = Hooks::new();
    assert_eq!(hooks.run(WEB, START), DONE);
    assert_eq!(hooks.list(), ["web tcp em0 8080 10.0.0.2:80 live"]);
    // the number is on record: a stop that belongs to another start changes nothing
    let (status, text) = hooks.run(&[("JNAME", "web"), ("JID", "1")], STOP);
    assert!(status == 0 && text.contains("published again as jid 2"), "{text}");
    assert_eq!(hooks.list().len(), 1);
    assert_eq!(hooks.run(WEB, STOP), DONE);
    assert_eq!(hooks.run(WEB, STOP), DONE);
    assert_eq!(hooks.list(), [""; 0]);
    // single mappings, and a name that says the same
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "web", "8080:80", "8443:443"]), DONE);
    assert_eq!(hooks.run(WEB, &["unpublish", "--hook", "web", "8443:443"]), DONE);
    assert_eq!(hooks.list(), ["web tcp em0 8080 10.0.0.2:80 live"]);
}

#[test]
fn a_hook_that_is_told_two_names_is_an_error() {
    let hooks = Hooks::new();
    let (status, text) = hooks.run(WEB, &["publish", "--hook", "db", "8080:80"]);
    assert!(status == 1 && text.contains("\"web\"") && text.contains("\"db\""), "{status} {text}");
    let (status, text) = hooks.run(&[], START);
    assert!(status == 1 && text.contains("name the jail"), "{status} {text}");
    for (arguments, status) in
        [(&["publish", "--hook"][..], 64), (&["publish", "--hook", "web"], 64), (&["publish", "web"], 64)]
    {
        assert_eq!(hooks.run(WEB, arguments).0, status, "{arguments:?}");
    }
    assert_eq!(hooks.list(), [""; 0]);
}

#[test]
fn a_stop_never_fails() {
    let hooks = Hooks::new();
    for (environment, arguments, word) in [
        (&[][..], STOP, "name the jail"),
        (WEB, &["unpublish", "--hook", "db"], "which jail is it"),
        (WEB, &["unpublish", "--hook", "80:"], "kport gc"),
        (WEB, &["unpublish", "--hook", "--typo"], "--typo"),
        (WEB, &["unpublish", "--hook", "--backend", "pfctl"], "kport gc"),
        (&[("JNAME", "web"), ("JID", "two")], STOP, "two"),
    ] {
        let (status, text) = hooks.run(environment, arguments);
        assert!(status == 0 && text.contains(word), "{arguments:?}: {status} {text}");
    }
    fs::write(hooks.dir.path().join("state"), "").unwrap();
    let (status, text) = hooks.run(WEB, STOP);
    assert!(status == 0 && text.contains("kport gc"), "{status} {text}");
    // a start does fail
    assert_eq!(hooks.run(WEB, START).0, 7);
}

#[test]
fn renames_clones_and_late_stops_follow_from_the_number() {
    let hooks = Hooks::new();
    assert_eq!(hooks.run(WEB, START), DONE);
    // a clone has the same hooks, and its own name: an honest conflict, and its stop leaves the other alone
    hooks.jails(&[("web", 2, "10.0.0.2"), ("clone", 3, "10.0.0.3")]);
    let clone = &[("JNAME", "clone"), ("JID", "3")];
    let (status, text) = hooks.run(clone, START);
    assert!(status == 3 && text.contains("jail \"web\""), "{status} {text}");
    assert_eq!(hooks.run(clone, STOP), DONE);
    assert_eq!(hooks.list().len(), 1);
    // renamed while it runs: the record has the old name and the number
    hooks.jails(&[("www", 2, "10.0.0.2")]);
    let (status, text) = hooks.run(&[("JNAME", "www"), ("JID", "2")], STOP);
    assert!(status == 0 && text.contains("jail \"web\", now \"www\""), "{status} {text}");
    assert_eq!(hooks.list(), [""; 0]);
    // started again under the new name, and the stop of the first start comes late
    hooks.jails(&[("www", 4, "10.0.0.2")]);
    assert_eq!(hooks.run(&[("JNAME", "www"), ("JID", "4")], START), DONE);
    for late in [&[("JNAME", "www"), ("JID", "2")], &[("JNAME", "web"), ("JID", "2")]] {
        assert_eq!(hooks.run(late, STOP).0, 0);
    }
    assert_eq!(hooks.list(), ["www tcp em0 8080 10.0.0.2:80 live"]);
}

#[test]
fn an_oci_state_comes_on_standard_input() {
    let hooks = Hooks::new();
    hooks.jails(&[("pod.c0ffee", 9, "10.0.0.9")]);
    let state = r#"{"ociVersion":"1.0.2","id":"c0ffee","status":"created","pid":17,"bundle":"/b",
        "annotations":{"org.freebsd.parentJail":"pod","org.freebsd.jail.jid":"9"}}"#;
    let with_state = |arguments: &[&str]| {
        let mut child = hooks.command(&[], arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(state.as_bytes()).unwrap();
        // the pipe stays open until kport is through, as it may with a manager that forks
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        said(output)
    };
    assert_eq!(with_state(START), DONE);
    assert_eq!(hooks.list(), ["pod.c0ffee tcp em0 8080 10.0.0.9:80 live"]);
    assert_eq!(with_state(STOP), DONE);
    assert_eq!(hooks.list(), [""; 0]);
}

#[test]
fn a_jail_without_an_address_is_waited_for() {
    let hooks = Hooks::new();
    hooks.jails(&[("web", 2, "")]);
    let (status, text) = hooks.run(WEB, START);
    assert!(status == 5 && !text.contains("waited"), "{status} {text}");
    let (status, text) = hooks.run(WEB, &["publish", "--hook", "--wait", "1", "8080:80"]);
    assert!(status == 5 && text.contains("waited 1 s"), "{status} {text}");
    // what waiting cannot change is said at once, and an address that is given is not waited for
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "--wait", "3600", "-a", "inherit", "8080:80"]).0, 8);
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "--wait", "3600", "-a", "10.0.0.7", "8081:80"]), DONE);

    let mut waiting = hooks.command(WEB, &["publish", "--hook", "-vv", "--wait", "3600", "8080:80"]);
    let mut child = waiting.stderr(Stdio::piped()).spawn().unwrap();
    // it says that it waits, and only then DHCP answers
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("waiting: ")));
    hooks.jails(&[("web", 2, "10.0.0.2")]);
    assert!(lines.any(|line| line.contains("addresses: 10.0.0.2")));
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    assert_eq!(hooks.list(), ["web tcp em0 8080 10.0.0.2:80 live"]);
}
