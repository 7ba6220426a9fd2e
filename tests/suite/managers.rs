//! The hooks of jail managers: the lines of the documentation, with the path where the installer puts the program.

use crate::support::cc;
use kport::cli::hook;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Every text that shows how to call kport, by its path in the repository.
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

/// The path at which scripts/install.sh installs the helper.
fn installed() -> String {
    let script = fs::read_to_string(cc::root().join("scripts/install.sh")).unwrap();
    let value = |from: &str, to: &str| {
        let (_, rest) = script.split_once(from).unwrap_or_else(|| panic!("{from}: not in install.sh"));
        rest.split_once(to).unwrap().0.to_owned()
    };
    assert!(script.contains("\nput 755 \"$work/kport\" \"$bindir\"\n"));
    let prefix = value("\nprefix=", " ");
    value("\"${bindir:=", "}").replace("$prefix", &prefix) + "/kport"
}

/// A line that a manager or rc(8) runs, whose PATH may lack /usr/local (libexec/rc/rc sets one without).
fn is_hook(line: &str) -> bool {
    ["exec.", "exec_", "_postcmd=", "_precmd="].iter().any(|key| line.contains(key))
}

/// The paths of the program in a line, and whether it is named without one.
fn calls(line: &str) -> (Vec<&str>, bool) {
    let words = line.split(|c: char| c.is_whitespace() || "\"'`=;()<>|&".contains(c));
    let mut absolute = vec![];
    let mut bare = false;
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let command = matches!(words.peek(), Some(&("publish" | "unpublish" | "apply" | "doctor")));
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
        // a script that a manager runs, in a page or in a file
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

/// A host from a file, and kport on it, called as a hook: with only what the manager sets in the environment.
struct Hooks {
    dir: tempfile::TempDir,
}

impl Hooks {
    fn new() -> Hooks {
        let hooks = Hooks { dir: tempfile::tempdir().unwrap() };
        hooks.jails(&[("web", 2, "10.0.0.2")]);
        hooks
    }

    /// The running jails: name, jid, address (none if it is empty).
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

    /// The exit status, and the output without the simulator's notice.
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
    // the jid is recorded: a stop of another start changes nothing
    let (status, text) = hooks.run(&[("JNAME", "web"), ("JID", "1")], STOP);
    assert!(status == 0 && text.contains("published again as jid 2"), "{text}");
    assert_eq!(hooks.list().len(), 1);
    assert_eq!(hooks.run(WEB, STOP), DONE);
    assert_eq!(hooks.run(WEB, STOP), DONE);
    assert_eq!(hooks.list(), [""; 0]);
    // single mappings, and the name as well
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "web", "8080:80", "8443:443"]), DONE);
    assert_eq!(hooks.run(WEB, &["unpublish", "--hook", "web", "8443:443"]), DONE);
    assert_eq!(hooks.list(), ["web tcp em0 8080 10.0.0.2:80 live"]);
}

#[test]
fn a_hook_with_two_names_is_an_error() {
    let hooks = Hooks::new();
    let (status, text) = hooks.run(WEB, &["publish", "--hook", "db", "8080:80"]);
    assert!(status == 1 && text.contains("\"web\"") && text.contains("\"db\""), "{status} {text}");
    let (status, text) = hooks.run(&[], START);
    assert!(status == 1 && text.contains("name the jail"), "{status} {text}");
    // without ports, those of kport.conf, which is not there
    for (arguments, status) in [
        (&["publish", "--hook"][..], 0),
        (&["publish", "--hook", "web"], 0),
        (&["publish", "web"], 64),
        (&["publish"], 64),
    ] {
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
        (WEB, &["unpublish", "--hook", "80:"], "kport apply"),
        (WEB, &["unpublish", "--hook", "--typo"], "--typo"),
        (WEB, &["unpublish", "--hook", "--backend", "pfctl"], "kport apply"),
        (&[("JNAME", "web"), ("JID", "two")], STOP, "two"),
    ] {
        let (status, text) = hooks.run(environment, arguments);
        assert!(status == 0 && text.contains(word), "{arguments:?}: {status} {text}");
    }
    fs::write(hooks.dir.path().join("state"), "").unwrap();
    let (status, text) = hooks.run(WEB, STOP);
    assert!(status == 0 && text.contains("kport apply"), "{status} {text}");
    // a start fails
    assert_eq!(hooks.run(WEB, START).0, 7);
}

#[test]
fn renames_clones_and_late_stops_follow_from_the_number() {
    let hooks = Hooks::new();
    assert_eq!(hooks.run(WEB, START), DONE);
    // a clone has the same hooks and its own name: a conflict, and its stop does not change the other
    hooks.jails(&[("web", 2, "10.0.0.2"), ("clone", 3, "10.0.0.3")]);
    let clone = &[("JNAME", "clone"), ("JID", "3")];
    let (status, text) = hooks.run(clone, START);
    assert!(status == 3 && text.contains("jail \"web\""), "{status} {text}");
    assert_eq!(hooks.run(clone, STOP), DONE);
    assert_eq!(hooks.list().len(), 1);
    // renamed while it runs: the record has the old name and the jid
    hooks.jails(&[("www", 2, "10.0.0.2")]);
    let (status, text) = hooks.run(&[("JNAME", "www"), ("JID", "2")], STOP);
    assert!(status == 0 && text.contains("jail \"www\" has published as jail \"web\""), "{status} {text}");
    assert_eq!(hooks.list(), [""; 0]);
    // started again under the new name, and the stop of the first start arrives later
    hooks.jails(&[("www", 4, "10.0.0.2")]);
    assert_eq!(hooks.run(&[("JNAME", "www"), ("JID", "4")], START), DONE);
    for late in [&[("JNAME", "www"), ("JID", "2")], &[("JNAME", "web"), ("JID", "2")]] {
        assert_eq!(hooks.run(late, STOP).0, 0);
    }
    assert_eq!(hooks.list(), ["www tcp em0 8080 10.0.0.2:80 live"]);
}

/// After `jail -m name=`, the stop of the old block (`service jail stop web`) finds no jail, and none of its hooks runs.
#[test]
fn a_rename_without_a_stop_hook() {
    let hooks = Hooks::new();
    assert_eq!(hooks.run(WEB, START), DONE);
    hooks.jails(&[("www", 2, "10.0.0.2"), ("db", 3, "10.0.0.3")]);
    // the jail runs, so its port is in use
    assert_eq!(hooks.run(&[], &["apply"]), DONE);
    let db = &[("JNAME", "db"), ("JID", "3")];
    let (status, text) = hooks.run(db, START);
    assert!(status == 3 && text.contains("jail \"web\""), "{status} {text}");
    assert_eq!(hooks.list(), ["web tcp em0 8080 10.0.0.2:80 live"]);
    // the jail is gone, and the next publish clears what it left
    hooks.jails(&[("db", 3, "10.0.0.3")]);
    let (status, text) = hooks.run(db, START);
    assert!(status == 0 && text.contains("jail \"web\" is gone: unpublished"), "{status} {text}");
    assert_eq!(hooks.list(), ["db tcp em0 8080 10.0.0.3:80 live"]);
}

/// In exec.prepare, before anything is there that a refusal would leave behind.
#[test]
fn a_dry_run_refuses_before_the_jail_exists() {
    let hooks = Hooks::new();
    assert_eq!(hooks.run(WEB, START), DONE);
    let early = |spec: &str| hooks.run(&[("JNAME", "db"), ("JID", "7")], &["publish", "--hook", "--dry-run", spec]);
    let (status, text) = early("8080:80");
    assert!(status == 3 && text.contains("jail \"web\"") && !text.contains("jail -rC"), "{status} {text}");
    assert_eq!(early("8081:80"), DONE);
    assert_eq!(early("auto:80"), DONE);
    let (status, text) = early("nosuch0:8081:80");
    assert!(status == 0 && text.is_empty(), "{status} {text}");
    // a socket of the host
    assert_eq!(early("22:22").0, 3);
    // of the jail itself, which is published
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "--dry-run", "8080:80"]), DONE);
    assert_eq!(hooks.list(), ["web tcp em0 8080 10.0.0.2:80 live"]);
    fs::write(hooks.dir.path().join("state/sim/main.conf"), "pass all\n").unwrap();
    let (status, text) = early("8081:80");
    assert!(status == 5 && text.contains("does not call kport's anchors"), "{status} {text}");
}

/// After a poststart hook that fails, jail(8) does not run the poststop lines of the jail.
#[test]
fn a_refusal_of_a_vnet_jail_names_what_cleans_up() {
    let hooks = Hooks::new();
    assert_eq!(hooks.run(WEB, START), DONE);
    hooks.jails(&[("web", 2, "10.0.0.2"), ("db", 3, "10.0.0.3")]);
    let (status, text) = hooks.run(&[("JNAME", "db"), ("JID", "3")], START);
    assert!(status == 3 && text.ends_with("jail -rC db"), "{status} {text}");
}

/// jail(8) removes a jail whose hook takes longer than exec.timeout, but does not end the hook.
#[test]
fn a_hook_that_outlives_its_jail_publishes_nothing() {
    let hooks = Hooks::new();
    hooks.jails(&[]);
    for arguments in [START, &["publish", "--hook", "-a", "10.0.0.2", "8080:80"]] {
        let (status, text) = hooks.run(WEB, arguments);
        assert!(status == 5 && text.contains("jail \"web\" (jid 2) is gone"), "{status} {text}");
    }
    // its jid is that of another jail now
    hooks.jails(&[("other", 2, "10.0.0.9")]);
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "-a", "10.0.0.2", "8080:80"]).0, 5);
    assert_eq!(hooks.list(), [""; 0]);
}

#[test]
fn an_oci_state_comes_on_standard_input() {
    let hooks = Hooks::new();
    hooks.jails(&[("pod.c0ffee", 9, "10.0.0.9")]);
    let state = r#"{"ociVersion":"1.0.2","id":"c0ffee","status":"created","pid":17,"bundle":"/b",
        "annotations":{"org.freebsd.parentJail":"pod","org.freebsd.jail.jid":"9"}}"#;
    let with_state = |words: &[&str]| {
        let arguments = [words, &["--state", "-"]].concat();
        let mut child = hooks.command(&[], &arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(state.as_bytes()).unwrap();
        // the pipe stays open until kport ends, as it may with a manager that forks
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        said(output)
    };
    assert_eq!(with_state(START), DONE);
    assert_eq!(hooks.list(), ["pod.c0ffee tcp em0 8080 10.0.0.9:80 live"]);
    assert_eq!(with_state(STOP), DONE);
    assert_eq!(hooks.list(), [""; 0]);
}

/// `bastille stop -f` pipes the lines of its hooks into `while read`: what is on standard input belongs to the script.
#[test]
fn a_hook_leaves_standard_input_alone() {
    let hooks = Hooks::new();
    for (environment, words) in [(WEB, &[][..]), (&[], &["web"]), (&[("JNAME", "web")], &[]), (&[("JID", "2")], &[])] {
        for line in [START, STOP] {
            let arguments = [&line[..2], words, &line[2..]].concat();
            let (mut reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(b"ifconfig epair0 destroy\n").unwrap();
            // the writer stays open
            let command = &mut hooks.command(environment, &arguments);
            let output = command.stdin(reader.try_clone().unwrap()).output().unwrap();
            assert_eq!(said(output), DONE, "{arguments:?}");
            drop(writer);
            let mut left = String::new();
            std::io::Read::read_to_string(&mut reader, &mut left).unwrap();
            assert_eq!(left, "ifconfig epair0 destroy\n");
        }
        assert_eq!(hooks.list(), [""; 0]);
    }
}

#[test]
fn a_jail_without_an_address_is_waited_for() {
    let hooks = Hooks::new();
    hooks.jails(&[("web", 2, "")]);
    let (status, text) = hooks.run(WEB, START);
    assert!(status == 5 && !text.contains("waited"), "{status} {text}");
    let (status, text) = hooks.run(WEB, &["publish", "--hook", "--wait", "1", "8080:80"]);
    assert!(status == 5 && text.contains("waited 1 s"), "{status} {text}");
    // an error that waiting cannot change is reported at once, and an address that is given is not waited for
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "--wait", "3600", "-a", "inherit", "8080:80"]).0, 8);
    assert_eq!(hooks.run(WEB, &["publish", "--hook", "--wait", "3600", "-a", "10.0.0.7", "8081:80"]), DONE);

    let mut waiting = hooks.command(WEB, &["publish", "--hook", "-vv", "--wait", "3600", "8080:80"]);
    let mut child = waiting.stderr(Stdio::piped()).spawn().unwrap();
    // it reports that it waits, and only then DHCP answers
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("waiting: ")));
    hooks.jails(&[("web", 2, "10.0.0.2")]);
    assert!(lines.any(|line| line.contains("addresses: 10.0.0.2")));
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    assert_eq!(hooks.list(), ["web tcp em0 8080 10.0.0.2:80 live"]);
}

/// A page of docs/managers, and a script of tests/managers in place of the manager.
struct Played {
    dir: tempfile::TempDir,
    page: String,
    player: PathBuf,
}

impl Played {
    fn new(page: &str, player: &str) -> Played {
        Played {
            dir: tempfile::tempdir().unwrap(),
            page: fs::read_to_string(cc::root().join(format!("docs/managers/{page}.md"))).unwrap(),
            player: cc::root().join(format!("tests/managers/{player}.sh")),
        }
    }

    /// The first lines of the page for the manager.
    fn lines(&self) -> String {
        let (_, block) = self.page.split_once("\n```").unwrap();
        let (_, block) = block.split_once('\n').unwrap();
        block.split_once("\n```").unwrap().0.to_owned()
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("WORLD", self.dir.path()).current_dir(self.dir.path());
        command.env("KPORT", env!("CARGO_BIN_EXE_kport")).stdin(Stdio::null());
        command
    }

    /// Runs the manager with these arguments: its status and output.
    fn play(&self, arguments: &[&str]) -> (i32, String) {
        said(self.command(&self.player).args(arguments).output().unwrap())
    }

    fn play_with(&self, arguments: &[&str], input: &str) {
        let mut child = self.command(&self.player).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[track_caller]
    fn fine(&self, arguments: &[&str]) {
        assert_eq!(self.play(arguments), DONE, "{arguments:?}");
    }

    /// Runs the lines of the page in a shell with the manager's programs, each of which calls the script with its argument here.
    fn shell(&self, programs: &[(&str, &str)], lines: &str) {
        let mut script = "set -e\nmkdir -p bin\n".to_owned();
        for (program, call) in programs {
            let player = self.player.display();
            script += &format!("printf '#!/bin/sh\\n{call}\\n' '{player}' >bin/{program}\nchmod 755 bin/{program}\n");
        }
        script += &format!("PATH=$PWD/bin:$PATH\n{lines}\n");
        cc::done(self.command(Path::new("/bin/sh")).arg("-c").arg(script));
    }

    fn kport(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(&self.dir.path().join("kport")).args(arguments).output().unwrap();
        let (status, said) = (output.status.code().unwrap(), cc::text(&output.stdout));
        (status, said)
    }

    /// The jails that have published, with the address.
    fn list(&self) -> Vec<String> {
        let rows = self.kport(&["list"]).1;
        rows.lines()
            .skip(1)
            .map(|row| row.split_whitespace().collect::<Vec<_>>())
            .map(|w| format!("{} {}", w[0], w[4]))
            .collect()
    }

    fn is_there(&self, file: &str) -> bool {
        self.dir.path().join(file).exists()
    }
}

const NOBODY: [&str; 0] = [];

/// Writes a jail.conf with the lines in each jail's block.
fn jail_conf(played: &Played, name: &str, lines: &str) -> String {
    let path = played.dir.path().join("jail.conf");
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    text += &format!("{name} {{\n  vnet;\n{lines}\n}}\n");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn jail_conf_s_lines() {
    let jail = Played::new("jail.conf", "jail");
    let conf = jail_conf(&jail, "web", &jail.lines());
    let (start, stop) = (["-c", &conf, "web", "10.0.0.2"], ["-r", &conf, "web"]);
    jail.fine(&start);
    assert_eq!(jail.list(), ["web 10.0.0.2:80", "web 10.0.0.2:443", "web 10.0.0.2:443"]);
    jail.fine(&stop);
    assert_eq!(jail.list(), NOBODY);
    // forced, and a crash: no hook runs
    jail.fine(&start);
    jail.fine(&["-R", "web"]);
    assert_eq!(jail.list().len(), 3);
    assert_eq!(jail.kport(&["-q", "apply"]).0, 0);
    assert_eq!(jail.list(), NOBODY);
    // a clone is refused, and does not start; the original is unchanged
    jail.fine(&start);
    jail_conf(&jail, "clone", &jail.lines());
    let (status, text) = jail.play(&["-c", &conf, "clone", "10.0.0.3"]);
    assert!(status == 1 && text.contains("jail \"web\""), "{text}");
    assert!(jail.list().iter().all(|row| row.starts_with("web ")) && !jail.is_there("jails/clone"));
    // renamed while it runs
    fs::rename(jail.dir.path().join("jails/web"), jail.dir.path().join("jails/www")).unwrap();
    jail_conf(&jail, "www", &jail.lines());
    let (status, _) = jail.play(&["-r", &conf, "www"]);
    assert_eq!((status, jail.list()), (0, vec![]));
}

#[test]
fn jail_conf_with_a_later_hook_that_fails() {
    let jail = Played::new("jail.conf", "jail");
    // earlier lines remain, unlike with "="; and if a later one fails, the ports remain until gc
    let lines = "  exec.poststart += \"true\";\n".to_owned() + &jail.lines() + "\n  exec.poststart += \"false\";";
    let conf = jail_conf(&jail, "web", &lines);
    assert_eq!(jail.play(&["-c", &conf, "web", "10.0.0.2"]).0, 1);
    assert_eq!(jail.list().len(), 3);
    jail.kport(&["-q", "apply"]);
    assert_eq!(jail.list(), NOBODY);
    // a missing firewall does not keep a jail running
    let lines = jail.lines().replace("unpublish --hook", "unpublish --hook --backend pfctl --pfctl /nonexistent");
    let broken = Played::new("jail.conf", "jail");
    let conf = jail_conf(&broken, "web", &lines);
    broken.fine(&["-c", &conf, "web", "10.0.0.2"]);
    let (status, text) = broken.play(&["-r", &conf, "web"]);
    assert!(status == 0 && !broken.is_there("jails/web"), "{text}");
}

#[test]
fn jail_conf_with_dhcp() {
    let jail = Played::new("jail.conf", "jail");
    let lines = jail.lines().replace("publish --hook 8080", "publish --hook -vv --wait 3600 8080");
    let conf = jail_conf(&jail, "web", &lines);
    let mut starting = jail.command(&jail.player);
    let mut child = starting.args(["-c", &conf, "web", ""]).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(text.any(|line| line.contains("waiting: ")));
    // the lease
    let world = cc::root().join("tests/managers/world.sh");
    let lease = format!(". {}; echo 1 10.0.0.2 >$WORLD/jails/web; host_json", world.display());
    cc::done(jail.command(Path::new("/bin/sh")).arg("-c").arg(lease));
    text.for_each(drop);
    assert!(child.wait().unwrap().success());
    assert_eq!(jail.list().len(), 3);
}

#[test]
fn bastille_s_lines() {
    let bastille = Played::new("bastille", "bastille");
    bastille.fine(&["create", "web", "vnet"]);
    bastille.play_with(&["edit", "web"], &bastille.lines());
    bastille.fine(&["start", "web", "10.0.0.2"]);
    assert_eq!(bastille.list(), ["web 10.0.0.2:80"]);
    bastille.fine(&["stop", "web"]);
    assert_eq!(bastille.list(), NOBODY);
    assert!(bastille.is_there("unplugged") && bastille.is_there("destroyed"), "Bastille's own hooks run as well");
    // forced: the lines run without JNAME
    bastille.fine(&["start", "web", "10.0.0.2"]);
    let (status, text) = bastille.play(&["stop", "-f", "web"]);
    assert!(status == 0 && text.contains("finds no jail"), "{text}");
    assert_eq!(bastille.list().len(), 1);
    bastille.kport(&["-q", "apply"]);
    assert_eq!(bastille.list(), NOBODY);
    // renamed, and cloned
    bastille.fine(&["rename", "web", "www"]);
    bastille.fine(&["start", "www", "10.0.0.2"]);
    assert_eq!(bastille.list(), ["www 10.0.0.2:80"]);
    bastille.fine(&["clone", "www", "clone"]);
    let (status, text) = bastille.play(&["start", "clone", "10.0.0.3"]);
    assert!(status == 0 && text.contains("jail \"www\"") && !bastille.is_there("jails/clone"), "{text}");
    assert_eq!(bastille.play(&["destroy", "www"]).0, 1);
    bastille.fine(&["destroy", "-a", "www"]);
    assert_eq!(bastille.list(), NOBODY);
}

#[test]
fn bastille_s_oci_jails_keep_their_process() {
    let bastille = Played::new("bastille", "bastille");
    bastille.fine(&["create", "app", "oci"]);
    bastille.play_with(&["edit", "app"], &bastille.lines());
    bastille.fine(&["start", "app", "10.0.0.2"]);
    assert!(bastille.is_there("application") && bastille.list() == ["app 10.0.0.2:80"]);
    // what the page warns about
    let replaced = Played::new("bastille", "bastille");
    replaced.fine(&["create", "app", "oci"]);
    replaced.play_with(&["edit", "app"], &replaced.lines().replace("+=", "="));
    replaced.fine(&["start", "app", "10.0.0.2"]);
    assert!(!replaced.is_there("application"));
}

#[test]
fn iocage_s_lines() {
    let iocage = Played::new("iocage", "iocage");
    let program = [("iocage", "exec %s \"$@\"")];
    iocage.shell(&program, &iocage.lines());
    for old in [false, true] {
        let play = |arguments: &[&str]| {
            let mut command = iocage.command(&iocage.player);
            if old {
                command.env("IOCAGE_OLD", "1");
            }
            said(command.args(arguments).output().unwrap())
        };
        assert_eq!(play(&["start", "web", "10.0.0.2"]), DONE, "old: {old}");
        assert_eq!(iocage.list(), ["ioc-web 10.0.0.2:80"]);
        assert_eq!(play(&["stop", "web"]), DONE);
        assert_eq!(iocage.list(), NOBODY);
        assert_eq!(play(&["start", "web", "10.0.0.2"]), DONE);
        assert_eq!(play(&["stop", "--force", "web"]), DONE);
        assert_eq!(iocage.list(), NOBODY);
    }
    // a dot in the name
    iocage.shell(&program, &iocage.lines().replace("ioc-web", "ioc-web_db").replace("' web", "' web.db"));
    iocage.fine(&["start", "web.db", "10.0.0.4"]);
    assert_eq!(iocage.list(), ["ioc-web_db 10.0.0.4:80"]);
    iocage.fine(&["destroy", "-f", "web.db"]);
    assert_eq!(iocage.list(), NOBODY);
    // renamed and cloned: the hooks name the old one, and the start is refused until they are set again
    iocage.fine(&["clone", "web", "clone"]);
    iocage.fine(&["rename", "web", "www"]);
    for name in ["clone", "www"] {
        let (status, text) = iocage.play(&["start", name, "10.0.0.2"]);
        assert!(status == 1 && text.contains("which jail is it"), "{text}");
        assert_eq!(iocage.list(), NOBODY);
    }
    iocage.shell(&program, &iocage.lines().replace("ioc-web", "ioc-www").replace("' web", "' www"));
    iocage.fine(&["start", "www", "10.0.0.2"]);
    assert_eq!(iocage.list(), ["ioc-www 10.0.0.2:80"]);
}

#[test]
fn appjail_s_lines() {
    let appjail = Played::new("appjail", "appjail");
    appjail.fine(&["quick", "web"]);
    // appjail-config set -I -j web KEY="VALUE"
    appjail.shell(
        &[("appjail-config", "[ \"$1 $2 $3\" = \"set -I -j\" ] && exec %s config \"$4\" \"$5\"")],
        &appjail.lines(),
    );
    appjail.fine(&["start", "web", "10.0.0.2"]);
    assert!(appjail.is_there("assigned") && appjail.list() == ["web 10.0.0.2:80"]);
    appjail.fine(&["stop", "web"]);
    assert!(appjail.is_there("unplugged") && appjail.list() == NOBODY);
    appjail.fine(&["start", "web", "10.0.0.2"]);
    appjail.fine(&["stop", "-f", "web"]);
    assert_eq!(appjail.list().len(), 1);
    appjail.kport(&["-q", "apply"]);
    assert_eq!(appjail.list(), NOBODY);
    appjail.fine(&["rename", "web", "_web"]);
    appjail.fine(&["start", "_web", "10.0.0.2"]);
    assert_eq!(appjail.list(), ["_web 10.0.0.2:80"]);
    appjail.fine(&["clone", "_web", "clone"]);
    let (status, text) = appjail.play(&["start", "clone", "10.0.0.3"]);
    assert!(status == 1 && text.contains("jail \"_web\""), "{text}");
    assert_eq!(appjail.play(&["destroy", "-f", "_web"]).0, 77);
    appjail.fine(&["stop", "_web"]);
    appjail.fine(&["destroy", "-f", "_web"]);
    assert_eq!(appjail.list(), NOBODY);
}

#[test]
fn pot_s_lines() {
    let pot = Played::new("pot", "pot");
    pot.fine(&["create", "web", "10.0.0.2"]);
    pot.shell(&[("pot", "exec %s \"$@\"")], &pot.lines());
    // the address is not set yet when poststart runs
    pot.fine(&["start", "web"]);
    assert_eq!(pot.list(), ["web 10.0.0.2:80"]);
    pot.fine(&["stop", "web"]);
    assert_eq!(pot.list(), NOBODY);
    pot.fine(&["start", "web"]);
    pot.fine(&["crash", "web"]);
    assert_eq!(pot.list(), NOBODY);
    pot.fine(&["rename", "web", "www"]);
    pot.fine(&["start", "www"]);
    assert_eq!(pot.list(), ["www 10.0.0.2:80"]);
    // a clone runs without its ports, and its stop does not change those of the original
    pot.fine(&["clone", "www", "clone", "10.0.0.3"]);
    let (status, text) = pot.play(&["start", "clone"]);
    assert!(status == 0 && text.contains("jail \"www\"") && pot.is_there("jails/clone"), "{text}");
    pot.fine(&["stop", "clone"]);
    assert_eq!(pot.list(), ["www 10.0.0.2:80"]);
    pot.fine(&["destroy", "-F", "www"]);
    assert_eq!(pot.list(), NOBODY);
}

#[test]
fn nomad_s_lines() {
    let pot = Played::new("nomad", "pot");
    pot.fine(&["create", "image", "10.0.0.9"]);
    pot.shell(&[("pot", "exec %s \"$@\"")], &pot.lines());
    // two allocations of one image, with names longer than an anchor's
    let names = ["1", "2"].map(|n| format!("web_group_job_{n}f0e1d2c-3b4a-5968-7786-95a4b3c2d1e0"));
    for (name, address) in names.iter().zip(["10.0.0.2", "10.0.0.3"]) {
        pot.fine(&["clone", "image", name, address]);
        pot.play(&["start", name]);
    }
    assert_eq!(pot.list(), [format!("{} 10.0.0.2:80", names[0]), format!("{} 10.0.0.3:80", names[1])]);
    for name in &names {
        pot.fine(&["crash", name]);
    }
    assert_eq!(pot.list(), NOBODY);
}

#[test]
fn cbsd_s_lines() {
    let cbsd = Played::new("cbsd", "cbsd");
    cbsd.fine(&["jcreate", "web", "10.0.0.2"]);
    cbsd.shell(&[], &cbsd.lines().replace("~cbsd", "cbsd"));
    cbsd.fine(&["jstart", "web"]);
    assert_eq!(cbsd.list(), ["web 10.0.0.2:80"]);
    cbsd.fine(&["jstop", "fast", "web"]);
    assert_eq!(cbsd.list(), NOBODY);
    // its hooks also run after a start that failed
    let (status, text) = cbsd.play(&["jstart-that-fails", "web"]);
    assert!(status == 0 && text.contains("did not start"), "{text}");
    assert_eq!(cbsd.list(), NOBODY);
    cbsd.fine(&["jrename", "web", "w@b:1"]);
    cbsd.fine(&["jstart", "w@b:1"]);
    assert_eq!(cbsd.list(), ["w@b:1 10.0.0.2:80"]);
    cbsd.fine(&["jclone", "w@b:1", "clone", "10.0.0.3"]);
    let (status, text) = cbsd.play(&["jstart", "clone"]);
    assert!(status == 0 && text.contains("w@b:1"), "{text}");
    cbsd.fine(&["jremove", "clone"]);
    assert_eq!(cbsd.list().len(), 1);
    cbsd.fine(&["jremove", "w@b:1"]);
    assert_eq!(cbsd.list(), NOBODY);
}

#[test]
fn every_page_says_what_happens() {
    let dir = cc::root().join("docs/managers");
    let index = fs::read_to_string(dir.join("README.md")).unwrap();
    for entry in fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "README.md" {
            continue;
        }
        assert!(index.contains(&format!("]({name})")), "{name} is not in the table of docs/managers/README.md");
        let page = fs::read_to_string(dir.join(&name)).unwrap().to_lowercase();
        for word in ["start", "stop", "forced stop", "crash", "rename", "clone", "destroy", "## moving over"] {
            assert!(name == "podman.md" || page.contains(word), "{name} does not say {word:?}");
        }
    }
}

/// Every script of the repository: sh(1) reads it, and shellcheck finds nothing.
#[test]
fn scripts_are_sound() {
    let mut scripts = vec![];
    for top in ["tests/managers", "tests/setup", "scripts", "packaging", "examples"] {
        let mut dirs = vec![cc::root().join(top)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|end| end == "in") {
                    // those of the port, which packaging.rs checks in the form in which they are installed
                } else if fs::read_to_string(&path).is_ok_and(|text| text.starts_with("#!/bin/sh"))
                    || path.ends_with("world.sh")
                {
                    scripts.push(path);
                }
            }
        }
    }
    assert!(scripts.len() > 8, "{scripts:?}");
    for script in &scripts {
        cc::done(Command::new("sh").arg("-n").arg(script));
    }
    if cc::has("shellcheck") {
        let mut shellcheck = Command::new("shellcheck");
        let output = shellcheck.args(["-x", "-P", "SCRIPTDIR", "-s", "sh"]).args(&scripts).output().unwrap();
        assert!(output.status.success(), "{}", cc::text(&output.stdout));
    }
}

#[test]
fn kleene_s_lines() {
    let kleene = Played::new("kleene", "kleene");
    let file = kleene.dir.path().join("lines");
    fs::write(&file, kleene.lines()).unwrap();
    let play = |arguments: &[&str]| {
        said(kleene.command(&kleene.player).env("LINES_FILE", &file).args(arguments).output().unwrap())
    };
    let records = |host: &str, container: &str, address: &str| {
        serde_json::json!([
            { "interfaces": [], "host_port": host, "container_port": container, "protocol": "tcp", "ip_address": address, "ip_address6": "" },
            { "interfaces": ["em0"], "host_port": "5353", "container_port": "53", "protocol": "udp", "ip_address": address, "ip_address6": "" },
        ])
        .to_string()
    };
    // the jail does not exist yet, and has no jid
    assert_eq!(play(&["start", "3f2a-77aa10", "10.0.0.2", &records("8000:8010", "9000:*", "10.0.0.2")]), DONE);
    let both = ["3f2a-77aa10 10.0.0.2:9000-9010", "3f2a-77aa10 10.0.0.2:53"];
    assert_eq!(kleene.list(), both);
    // the daemon starts again
    assert_eq!(play(&["boot"]), DONE);
    assert_eq!(kleene.list(), both);
    // another container with one of the ports
    let (status, text) = play(&["start", "99bb-000001", "10.0.0.3", &records("8080", "80", "10.0.0.3")]);
    assert!(status == 1 && text.contains("3f2a-77aa10") && !kleene.is_there("jails/99bb-000001"), "{text}");
    // a mistake names the record, and nothing changes
    let (status, text) = play(&["connect", "3f2a-77aa10", &records("8010:8000", "9000:*", "10.0.0.2")]);
    assert!(status == 2 && text.contains("record 1") && text.contains("8010:8000"), "{text}");
    assert_eq!(kleene.list(), both);
    // another network
    assert_eq!(play(&["connect", "3f2a-77aa10", &records("8080", "80", "10.0.0.7")]), DONE);
    assert_eq!(kleene.list(), ["3f2a-77aa10 10.0.0.7:80", "3f2a-77aa10 10.0.0.7:53"]);
    assert_eq!(play(&["end", "3f2a-77aa10"]), DONE);
    assert_eq!(play(&["end", "3f2a-77aa10"]), DONE);
    assert_eq!(kleene.list(), NOBODY);
}

#[test]
fn the_first_word_is_a_name_if_it_is_not_a_spec() {
    assert_eq!(hook::words(["web", "8080:80"]), (Some("web"), vec!["8080:80"]));
    assert_eq!(hook::words(["8080", "443"]), (None, vec!["8080", "443"]));
    for spec in ["8000-8010", "auto:80", "em0:80:80", "80/udp", "*:80:80", "[::1]:80:80", "8080:80/tpc"] {
        assert_eq!(hook::words([spec]), (None, vec![spec]));
    }
    assert_eq!(hook::words(["3f2a-77"]), (Some("3f2a-77"), vec![]));
    assert_eq!(hook::words([]), (None, vec![]));
}

#[test]
fn a_state_is_read_to_its_end_though_the_pipe_stays_open() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(br#" {"id": "#).unwrap();
    writer.write_all(br#""web"}"#).unwrap();
    let file = || OwnedFd::from(reader.try_clone().unwrap()).into();
    assert_eq!(hook::read_state(file()).unwrap().identity().unwrap().name.as_deref(), Some("web"));
    drop(writer);
    assert!(hook::read_state(file()).is_none());
    assert!(hook::read_state(fs::File::open("/dev/null").unwrap()).is_none());
}

#[test]
fn syslogd_gets_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let (none, there) = (dir.path().join("none"), dir.path().join("log"));
    let syslogd = UnixDatagram::bind(&there).unwrap();
    hook::log_to([none.as_path(), there.as_path()], 27, "jail web: pf is away");
    let mut text = [0; 200];
    let count = syslogd.recv(&mut text).unwrap();
    let expected = format!("<27>kport[{}]: jail web: pf is away", std::process::id());
    assert_eq!(std::str::from_utf8(&text[..count]), Ok(expected.as_str()));
    hook::log_to([none.as_path()], 27, "nobody");
}
