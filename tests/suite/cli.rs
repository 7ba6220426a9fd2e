//! The helper: arguments, exit statuses, output.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{rig, standin};
use kport::cli::args::Cli;

struct Kport {
    dir: tempfile::TempDir,
}

impl Kport {
    fn new() -> Kport {
        Kport { dir: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kport"))
            .args(arguments)
            .env_clear()
            .env("KPORT_STATE_DIR", self.dir.path())
            .output()
            .unwrap()
    }

    /// Standard output of a success; standard error is `err`.
    #[track_caller]
    fn ok(&self, arguments: &[&str], err: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(text(&output.stderr), err, "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        text(&output.stdout)
    }

    /// Standard error of a failure with `status`; nothing on standard output.
    #[track_caller]
    fn fails(&self, arguments: &[&str], status: i32) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        text(&output.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const NOTICE: &str = "kport: simulator: the rules are kept in files, no packet is redirected\n";
const WEB: [&str; 6] = ["publish", "web", "-a", "10.0.0.2", "--gateway", "em0"];

fn web<'a>(specs: &[&'a str]) -> Vec<&'a str> {
    [&WEB[..], specs].concat()
}

#[test]
fn the_main_job() {
    let kport = Kport::new();
    assert_eq!(kport.ok(&["list"], ""), "");
    assert_eq!(kport.ok(&web(&["8080:80", "8080:80/udp"]), NOTICE), "");
    let table = "\
JAIL  PROTO  ON   PORT  TO           STATE
web   tcp    em0  8080  10.0.0.2:80  live
web   udp    em0  8080  10.0.0.2:80  live
";
    assert_eq!(kport.ok(&["list"], ""), table);
    assert_eq!(kport.ok(&["list", "web"], ""), table);
    assert_eq!(kport.ok(&["list", "db"], ""), "");
    assert_eq!(kport.ok(&web(&["8080:80", "8080:80/udp"]), ""), "");
    assert_eq!(kport.ok(&["unpublish", "web"], NOTICE), "");
    assert_eq!(kport.ok(&["unpublish", "web"], ""), "");
    assert_eq!(kport.ok(&["list"], ""), "");
}

#[test]
fn rules_are_printed_and_nothing_is_touched() {
    let kport = Kport::new();
    let rules = kport.ok(&["rules", "web", "-a", "10.0.0.2", "--gateway", "em0", "8080:80"], "");
    assert_eq!(
        rules,
        "\
rdr on \"em0\" inet proto tcp from any to (\"em0\") port 8080 tag \"kport:web\" -> 10.0.0.2 port 80
pass quick inet proto tcp from any to 10.0.0.2 port 80 tagged \"kport:web\" keep state label \"kport:web\" label \"kport:web:tcp:8080\"
pass quick on { bridge epair lo } inet proto tcp from any to 10.0.0.2 port 80 keep state label \"kport:web\" label \"kport:web:tcp:8080\"
"
    );
    assert_eq!(rig::files(kport.dir.path()), [""; 0]);
    let options =
        "--reach bridge1 --sources 192.0.2.0/24 --sources <friends> --max-connections 10 --rate 5/10 --log --no-quick";
    let mut arguments = vec!["rules", "web", "-a", "10.0.0.2", "--gateway", "em0", "8080:80"];
    arguments.extend(options.split(' '));
    let rules = kport.ok(&arguments, "");
    for part in
        ["from { 192.0.2.0/24 <friends> }", "max 10", "max-src-conn-rate 5/10", "pass in log ", "on \"bridge1\""]
    {
        assert!(rules.contains(part), "{part}: {rules}");
    }
    assert!(!rules.contains("quick"), "{rules}");
}

/// Scripts of previews of 0.1.0 call `--sources` by this name.
#[test]
fn from_is_another_word_for_sources_that_no_help_shows() {
    let kport = Kport::new();
    let rules =
        |option| kport.ok(&["rules", "web", "-a", "10.0.0.2", "8080:80", "--gateway", "em0", option, "192.0.2.7"], "");
    assert!(rules("--sources").contains("from 192.0.2.7 to"));
    assert_eq!(rules("--from"), rules("--sources"));
    for command in ["publish", "rules", "trace"] {
        let help = kport.ok(&[command, "--help"], "");
        assert!(!help.contains("--from"), "{help}");
    }
}

#[test]
fn rules_have_no_port_that_is_yet_to_be_chosen() {
    let kport = Kport::new();
    let run = kport.run(&["rules", "web", "-a", "10.0.0.2", "--gateway", "em0", "auto:80"]);
    assert_eq!(run.status.code(), Some(8));
    assert!(text(&run.stderr).contains("auto:80/tcp: auto is a port only when it is published; give one"));
}

#[test]
fn parse_checks_and_writes_out() {
    let kport = Kport::new();
    assert_eq!(kport.ok(&["parse", "8080", "em0:53:53/udp,tcp"], ""), "8080:8080/tcp\nem0:53:53/tcp\nem0:53:53/udp\n");
    let json: serde_json::Value =
        serde_json::from_str(&kport.ok(&["parse", "--json", "[2001:db8::1]:8000-8001:80", "auto:80"], "")).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "version": 1, "mappings": [
            { "place": "[2001:db8::1]", "host_port": 8000, "jail_port": 80, "count": 2, "protocol": "tcp" },
            { "place": null, "host_port": "auto", "jail_port": 80, "count": 1, "protocol": "tcp" },
        ] })
    );
}

#[test]
fn publish_says_which_ports_were_chosen() {
    let kport = Kport::new();
    let said = kport.ok(&web(&["9000:90", "auto:80"]), NOTICE);
    let port: u16 = said.lines().nth(1).unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    assert!(port >= 49152);
    assert_eq!(said, format!("tcp 9000 on em0 -> 10.0.0.2:90\ntcp {port} on em0 -> 10.0.0.2:80\n"));
    assert_eq!(kport.ok(&web(&["-q", "9000:90", "auto:80"]), ""), "");
    let json: serde_json::Value = serde_json::from_str(&kport.ok(&web(&["--json", "9000:90", "auto:80"]), "")).unwrap();
    assert_eq!((&json["changed"], &json["ports"][1]["host_port"]), (&false.into(), &port.into()));
}

#[test]
fn list_as_json() {
    let kport = Kport::new();
    kport.ok(&web(&["--jid", "7", "8080-8081:80"]), NOTICE);
    let json: serde_json::Value = serde_json::from_str(&kport.ok(&["list", "--json"], "")).unwrap();
    assert_eq!(json["version"], 1);
    let jail = &json["jails"][0];
    assert_eq!((&jail["jail"], &jail["anchor"], &jail["jid"]), (&"web".into(), &"kport/web".into(), &7.into()));
    assert_eq!(jail["state"], "live");
    assert!(jail["since"].as_u64().unwrap() > 1_700_000_000);
    let port = &jail["ports"][0];
    assert_eq!((&port["place"], &port["host_port"], &port["count"]), (&"em0".into(), &8080.into(), &2.into()));
    assert_eq!((&port["address"], &port["jail_port"]), (&"10.0.0.2".into(), &80.into()));
    assert_eq!((&port["family"], &port["protocol"]), (&"inet".into(), &"tcp".into()));
}

#[test]
fn exit_statuses() {
    let kport = Kport::new();
    kport.ok(&web(&["8080:80"]), NOTICE);
    let db = ["publish", "db", "-a", "10.0.0.3", "--gateway", "em0"];
    let file = kport.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (arguments, status, says) in [
        (vec!["unpublish", "a\nb"], 64, "control character"),
        (web(&["-a", "127.0.0.1.1", "80"]), 1, "is not an IPv4 or IPv6 address"),
        (vec!["publish", "db", "-a", "::1", "--gateway", "em0", "80"], 1, "::1 is a loopback address"),
        (vec!["parse", "80/TCP"], 2, "at byte 3: found \"TCP\""),
        ([&db[..], &["8000-9000"]].concat(), 3, "tcp 8080 on em0 is published by jail \"web\""),
        (vec!["publish", "db", "80"], 5, "jail \"db\" is not running here"),
        (vec!["publish", "db", "-a", "inherit", "80"], 8, "host's network"),
        (vec!["--backend", "pfctl", "--pfctl", "/nonexistent/pfctl", "list"], 1, "/nonexistent/pfctl"),
        (vec!["--state-dir", file.to_str().unwrap(), "list"], 7, "state directory"),
    ] {
        let error = kport.fails(&arguments, status);
        assert!(error.contains(says), "{arguments:?}: {error}");
        assert!(status == 64 || (error.starts_with("kport: ") && error.lines().count() == 1), "{error}");
    }
}

#[test]
fn wrong_usage_is_64() {
    let kport = Kport::new();
    for arguments in [
        &[][..],
        &["fly"],
        &["parse"],
        &["publish", "web"],
        &["publish", "web", "80", "--gateway", "em 0"],
        &["--backend", "ipfw", "list"],
        &["--timeout", "soon", "list"],
        &["--timeout", "-1", "list"],
        &["rules", "web", "-a", "10.0.0.2", "80", "--rate", "0/5"],
    ] {
        kport.fails(arguments, 64);
    }
    let help = kport.ok(&["--help"], "");
    for command in ["parse", "rules", "publish", "unpublish", "trace", "list", "apply"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
    assert_eq!(kport.ok(&["--version"], ""), concat!("kport ", env!("CARGO_PKG_VERSION"), "\n"));
}

/// An error must not keep a jail from stopping.
#[test]
fn wrong_usage_is_no_error_in_a_stop_hook() {
    let kport = Kport::new();
    for (line, status) in [
        ("unpublish --hook --typo", 0),
        ("--bogus unpublish --hook", 0),
        ("-q unpublish --jid x --hook", 0),
        ("unpublish --typo --hook", 0),
        ("publish --hook unpublish 80 --typo", 64),
        ("publish --hook 80 --typo", 64),
        ("unpublish web --typo", 64),
        ("--hook", 64),
        ("list unpublish --hook", 64),
    ] {
        kport.fails(&line.split(' ').collect::<Vec<_>>(), status);
    }
}

/// `--address` is a separate flag, as are those without a request: a hook and Kleene's records also have addresses.
#[test]
fn every_option_of_a_request_has_a_flag_and_every_flag_an_option() {
    use kport::options::Takes;
    use kport::publisher::Request;
    let help = Kport::new().ok(&["publish", "--help"], "");
    let (_, rest) = help.split_once("\nPorts:\n").unwrap();
    let (flags, _) = rest.split_once("\nAs a hook:\n").unwrap();
    let flags = flags.lines().filter_map(|line| line.trim_start().trim_start_matches("-a, ").strip_prefix("--"));
    // each with whether it takes a value
    let flags: BTreeMap<&str, bool> = flags
        .map(|flag| {
            let (name, rest) = flag.split_at(flag.find([' ', '.']).unwrap_or(flag.len()));
            (name, rest.starts_with(" <"))
        })
        .collect();
    for (name, takes) in Request::names() {
        let opposite = format!("no-{name}");
        let is_there = flags.contains_key(name) || takes == Takes::Flag && flags.contains_key(opposite.as_str());
        assert!(is_there, "{name}: {flags:?}");
    }
    for (name, has_value) in flags.into_iter().filter(|(name, _)| *name != "kleene") {
        let takes = Request::takes(name).unwrap_or_else(|| panic!("{name} is not an option"));
        assert_eq!(takes != Takes::Flag, has_value, "{name}");
    }
}

/// Clap cannot fold lines without asking the terminal.
#[test]
fn the_flags_that_take_a_value() {
    let flags = Cli::flags_with_values();
    let has = |flag: &str| flags.iter().any(|known| known == flag);
    assert!(["--kleene", "-a", "--address", "--from", "--jid", "--rate", "--backend", "--wait"].into_iter().all(has));
    assert!(!["--hairpin", "-v", "--no-quick", "--add", "--hook", "--json"].into_iter().any(has));
}

#[test]
fn help_is_in_sections_and_fits() {
    let kport = Kport::new();
    let help = kport.ok(&["publish", "--help"], "");
    let sections: Vec<&str> = help.lines().filter_map(|line| line.strip_suffix(':')).collect();
    assert_eq!(
        sections,
        ["Arguments", "Ports", "Who may connect", "Limits", "Where the jail is", "As a hook", "Output", "All commands"]
    );
    for command in ["", "parse", "rules", "publish", "unpublish", "list", "trace", "doctor", "setup", "import", "apply"]
    {
        let help = kport.ok(&[command, "--help"].as_slice()[usize::from(command.is_empty())..], "");
        for line in help.lines() {
            assert!(line.len() <= 100, "{command}: {} columns: {line}", line.len());
        }
        // a line without a description has only the name
        let bare = |line: &&str| line.starts_with("  <") || line.starts_with("  [");
        for argument in
            help.lines().filter(bare).filter(|line| !line.starts_with("  <MANAGER") && !line.contains("FILE"))
        {
            assert!(argument.split_whitespace().count() > 1, "{command}: {argument}");
        }
    }
}

#[test]
fn a_terminal_gets_only_what_prints() {
    let kport = Kport::new();
    let name = "a\u{202e}b\u{200b}'\"\\";
    kport.ok(&["publish", name, "-a", "10.0.0.2", "--gateway", "em0", "8080:80"], NOTICE);
    let shown = "a\\u{202e}b\\u{200b}'\"\\";
    let list = kport.ok(&["list"], "");
    assert!(list.contains(&format!("\n{shown}  tcp ")), "{list}");
    // JSON has its own escapes, and reads back unchanged
    let list = kport.ok(&["list", "--json"], "");
    assert!(list.is_ascii(), "{list}");
    let document: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(document["jails"][0]["jail"], name);
    let error = kport.fails(&["publish", name, "-a", "inherit", "80"], 8);
    assert!(error.contains("jail \"a\\u{202e}b\\u{200b}'\\\"") && error.is_ascii(), "{error}");
    // usage errors are clap's
    for bad in ["\u{1b}[2J\u{202e}", "fly\nkport: all is well", "\u{9b}2J", "\u{7f}"] {
        for arguments in
            [&[bad][..], &["list", bad, bad], &["--backend", bad, "list"], &["publish", "web", "--rate", bad]]
        {
            let error = kport.fails(arguments, 64);
            assert!(error.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{error}");
            assert!(!error.contains("\nkport: all"), "{error}");
        }
    }
}

/// With a setuid bit every user would be root: the caller names the pfctl(8) that it runs.
#[test]
fn a_helper_with_a_setuid_bit_refuses_to_run() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("kport");
    // by a program that ends before: a child of another test would hold the file open for writing (ETXTBSY)
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_kport")).arg(&program).status().unwrap().success());
    let run = || Command::new(&program).arg("--version").output().unwrap();
    assert_eq!(run().status.code(), Some(0));
    // another user or group than the caller's: only root can change the owner
    let (user, group) = (std::fs::metadata(&program).unwrap().uid(), std::fs::metadata(&program).unwrap().gid());
    let mut refused = 0;
    for (uid, gid, mode) in [(user + 1, group, 0o4755), (user, group + 1, 0o2755)] {
        if chown(&program, Some(uid), Some(gid)).is_err() {
            eprintln!("not root: nothing is tried");
            return;
        }
        std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
        let output = run();
        if output.status.success() {
            eprintln!("the file system is mounted nosuid: nothing is tried");
            return;
        }
        assert_eq!(output.status.code(), Some(4), "{mode:o}");
        assert!(text(&output.stderr).contains("setuid"), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "");
        refused += 1;
    }
    assert_eq!(refused, 2);
}

#[test]
fn an_invalid_environment_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_kport")).arg("list").env("KPORT_BACKEND", "ipfw").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("KPORT_BACKEND"), "{}", text(&output.stderr));
}

#[test]
fn verbose_shows_the_steps() {
    let kport = Kport::new();
    let output = kport.run(&web(&["-v", "8080:80"]));
    let steps: Vec<String> = text(&output.stderr)
        .lines()
        .filter_map(|line| line.split_once(" ms  ").map(|(_, step)| step.to_owned()))
        .collect();
    assert_eq!(steps, ["lock", "resolve", "check", "record", "load", "verify"]);
    // and the reason for this backend: the library itself prints nothing
    let why = |arguments: &[&str]| text(&kport.run(&[arguments, &["list"]].concat()).stderr);
    assert_eq!(why(&["-v", "--backend", "sim"]).lines().next(), Some("kport: backend sim: it was requested"));
    assert_eq!(why(&["--backend", "sim"]), "");
}

#[cfg(target_os = "linux")]
#[test]
fn a_backend_that_is_not_there_is_not_replaced_by_another() {
    let kport = Kport::new();
    let output = kport.run(&["--backend", "native", "list"]);
    assert_eq!(output.status.code(), Some(8));
    assert!(text(&output.stderr).contains("backend native drives /dev/pf of FreeBSD"), "{}", text(&output.stderr));
    let auto = kport.run(&["-v", "--backend", "auto", "list"]);
    assert!(text(&auto.stderr).starts_with("kport: backend sim: linux has no pf\n"), "{}", text(&auto.stderr));
}

#[test]
fn a_full_disk_leaves_everything_as_it_was() {
    let kport = Kport::new();
    kport.ok(&web(&["8080:80"]), NOTICE);
    let before = kport.ok(&["list", "--json"], "");
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
    for spec in ["8080:80 8081:81", "9000:90"] {
        let output = Command::new("/bin/sh")
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_kport")])
            .args(web(&[spec]))
            .env_clear()
            .env("KPORT_STATE_DIR", kport.dir.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("jails/web.json: File too large"), "{}", text(&output.stderr));
        assert_eq!(kport.ok(&["list", "--json"], ""), before);
    }
    assert_eq!(rig::files(&kport.dir.path().join("jails")), ["web.json"]);
}

#[test]
fn pfctl_through_the_helper() {
    let pf = standin::Pfctl::new();
    let kport = Kport::new();
    let program = pf.program();
    let with = |arguments: &[&str]| -> Vec<String> {
        ["--backend", "pfctl", "--pfctl", program.to_str().unwrap()]
            .iter()
            .chain(arguments)
            .map(|a| (*a).to_owned())
            .collect()
    };
    let run = |arguments: &[&str]| {
        let arguments = with(arguments);
        kport.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let done = run(&web(&["8080:80"]));
    assert_eq!(done.status.code(), Some(0));
    // of the host that runs the tests
    assert!(text(&done.stderr).contains("there is no interface or group em0"), "{}", text(&done.stderr));
    assert_eq!(pf.rules("kport/web").unwrap().lines().count(), 3);
    assert!(text(&run(&["list"]).stdout).contains("live"));
    pf.set_states(&["kport:web kport:web:tcp:8080", "other"]);
    assert_eq!(run(&["unpublish", "web"]).status.code(), Some(0));
    assert_eq!(pf.states(), ["other"]);
    assert_eq!(pf.rules("kport/web"), None);
    pf.disable();
    let error = run(&web(&["8080:80"]));
    assert_eq!(error.status.code(), Some(5));
    assert!(text(&error.stderr).contains("pf is disabled"), "{}", text(&error.stderr));
    assert_eq!(pf.rules("kport/web"), None);
}

/// With --host, everything works without addresses and a gateway on the command line.
#[test]
fn doctor_on_a_played_host() {
    let host = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/host.json");
    let kport = Kport::new();
    assert_eq!(kport.ok(&["--host", host, "publish", "web", "8080:80"], NOTICE), "");
    let table = kport.ok(&["--host", host, "doctor"], "");
    assert!(table.lines().all(|line| line.starts_with("ok ")), "{table}");
    assert_eq!(table.lines().count(), kport::doctor::IDS.len());
    assert_eq!(kport.ok(&["-q", "--host", host, "doctor"], ""), "");
    let json: serde_json::Value = serde_json::from_str(&kport.ok(&["--host", host, "doctor", "--json"], "")).unwrap();
    assert_eq!((&json["version"], &json["healthy"]), (&1.into(), &true.into()));
    assert_eq!(json["findings"][0]["id"], "state");

    std::fs::write(kport.dir.path().join("sim/main.conf"), "pass all\n").unwrap();
    let output = kport.run(&["-q", "--host", host, "doctor", "--json"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(5), "kport: one problem was found\n"));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["healthy"], false);
    let bad = json["findings"].as_array().unwrap().iter().find(|f| f["level"] == "problem").unwrap();
    assert_eq!(bad["id"], "anchors-called");
    assert!(bad["remedy"].as_str().unwrap().starts_with("add to /etc/pf.conf: nat-anchor"), "{bad}");
    let output = kport.run(&["-q", "--host", host, "doctor"]);
    assert_eq!(text(&output.stdout).lines().count(), 2);

    assert!(kport.ok(&["--host", host, "rules", "web", "-a", "10.0.0.2", "8080"], "").starts_with("rdr on \"em0\""));
    assert!(kport.fails(&["--host", host, "--backend", "pfctl", "list"], 1).contains("--backend sim"));
    assert!(
        kport.fails(&["--host", host, "--backend", "pfctl", "rules", "web", "8080:80"], 1).contains("--backend sim")
    );
    assert!(kport.fails(&["--host", "/nonexistent", "doctor"], 7).contains("read /nonexistent"));
    let odd = kport.dir.path().join("odd.json");
    std::fs::write(&odd, "{ \"jail\": [] }").unwrap();
    assert!(
        kport.fails(&["--host", odd.to_str().unwrap(), "doctor"], 1).contains("odd.json: host facts: unknown field")
    );
}

#[test]
fn self_test_by_the_simulator() {
    let kport = Kport::new();
    let passed = kport.ok(&["--backend", "sim", "doctor", "--self-test"], NOTICE);
    assert_eq!(
        passed,
        " 1  passed  create two jails with a network each
 2  passed  find the jail and its address
 3  passed  a port that is not published is not reached
 4  passed  publish
 5  passed  publish the same ports again: nothing changes
 6  passed  list shows that pf has it
 7  passed  an outsider connects to the host's port, and the jail answers
 8  passed  unpublish: the connection's states end
 9  passed  nothing is left in pf or in the record
10  passed  the port is not reached any more
11  passed  tidy up
"
    );
    assert_eq!(rig::files(kport.dir.path()), ["lock"]);

    // errors are reported, and nothing is left
    let calls = "rdr-anchor \"kport\"\nanchor \"kport\"\n";
    let main = kport.dir.path().join("sim/main.conf");
    std::fs::write(&main, calls.replacen('\n', "\nblock in quick proto tcp\n", 1)).unwrap();
    let output = kport.run(&["--backend", "sim", "doctor", "--self-test"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).ends_with("kport: self-test: 1 of 8 steps failed\n"), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    assert!(
        lines.contains("\n 7  FAILED  an outsider connects") && lines.ends_with(" 8  passed  tidy up\n"),
        "{lines}"
    );
    assert_eq!(rig::files(kport.dir.path()), ["lock", "sim/main.conf"]);
    // a port that is open already
    std::fs::write(&main, format!("rdr on epair inet proto tcp to port 18080 -> 198.18.77.2 port 8080\n{calls}"))
        .unwrap();
    let output = kport.run(&["--backend", "sim", "doctor", "--self-test"]);
    assert!(text(&output.stdout).contains("\n 3  FAILED  "), "{}", text(&output.stdout));

    // if it would interfere, or cannot work, it does nothing
    std::fs::write(&main, "pass all\n").unwrap();
    assert!(
        kport
            .fails(&["--backend", "sim", "doctor", "--self-test"], 5)
            .contains("self-test not run: pf's main ruleset does not call")
    );
    std::fs::remove_file(&main).unwrap();
    kport.ok(&web(&["8080:80"]), NOTICE);
    let before = rig::files(kport.dir.path());
    assert!(
        kport
            .fails(&["--backend", "sim", "doctor", "--self-test"], 5)
            .contains("something is published (anchor kport/web)")
    );
    std::fs::remove_file(kport.dir.path().join("sim/web.json")).unwrap();
    assert!(kport.fails(&["--backend", "sim", "doctor", "--self-test"], 5).contains("there is a record of kport/web"));
    assert!(before.contains(&"jails/web.json".to_owned()));
    for (facts, why) in [
        (r#"{ "jails": [ { "jid": 1, "name": "kport-selftest-client" } ] }"#, "jail -r kport-selftest-client"),
        (
            r#"{ "interfaces": [ { "name": "em0", "up": true, "addresses": [ "198.18.0.1/15" ] } ] }"#,
            "em0 has an address",
        ),
    ] {
        let kport = Kport::new();
        let file = kport.dir.path().join("host.json");
        std::fs::write(&file, facts).unwrap();
        let error = kport.fails(&["--backend", "sim", "--host", file.to_str().unwrap(), "doctor", "--self-test"], 5);
        assert!(error.contains(why), "{error}");
    }
    kport.fails(&["--backend", "sim", "doctor", "--self-test", "--json"], 64);
    if cfg!(target_os = "linux") {
        let pf = standin::Pfctl::new();
        let kport = Kport::new();
        let program = pf.program();
        let with = ["--backend", "pfctl", "--pfctl", program.to_str().unwrap(), "doctor", "--self-test"];
        assert!(kport.fails(&with, 8).contains("creates FreeBSD jails"));
    }
}

#[test]
fn verbose_shows_steps_facts_and_pfctl() {
    let host = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/host.json");
    let said = |kport: &Kport, arguments: &[&str]| {
        let output = kport.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let kport = Kport::new();
    let once = said(&kport, &["-v", "--host", host, "publish", "web", "8080:80"]);
    for step in
        kport::publisher::Phase::ALL.map(|phase| phase.name()).iter().filter(|n| !["kill", "settle"].contains(n))
    {
        assert!(once.lines().any(|line| line.ends_with(&format!(" ms  {step}"))), "{step}: {once}");
    }
    assert!(!once.contains("gateway"), "{once}");
    let twice = said(&kport, &["-vv", "--host", host, "publish", "web", "8080:80 8081:81"]);
    for part in [
        "gateway interface for inet: em0",
        "jail \"web\": jid 2, with a network stack",
        "the targets of redirects are 10.0.0.2 fd00::2",
    ] {
        assert!(twice.contains(part), "{part}: {twice}");
    }

    let pf = standin::Pfctl::new();
    let program = pf.program();
    let kport = Kport::new();
    let arguments =
        [&["-v", "--backend", "pfctl", "--pfctl", program.to_str().unwrap()][..], &web(&["8080:80"])].concat();
    let traced = said(&kport, &arguments);
    for part in [
        " -q -o none -a kport/web -s info -f -: ",
        "\n  < rdr on \"em0\" inet proto tcp",
        "exit status 0",
        "\n  > Status: Enabled",
    ] {
        assert!(traced.contains(part), "{part}: {traced}");
    }
}

/// Two processes at once, many times: one of them gets each port, and no record is lost.
#[test]
fn two_at_once() {
    let kport = Kport::new();
    for round in 0..10 {
        let port = format!("{}:80", 9000 + round);
        let start = |jail: &str| {
            Command::new(env!("CARGO_BIN_EXE_kport"))
                .args(["publish", jail, "-a", "10.0.0.2", "--gateway", "em0", &port])
                .env("KPORT_STATE_DIR", kport.dir.path())
                .output()
        };
        let (a, b) = std::thread::scope(|scope| {
            let a = scope.spawn(|| start("a").unwrap());
            let b = scope.spawn(|| start("b").unwrap());
            (a.join().unwrap(), b.join().unwrap())
        });
        let mut statuses = [a.status.code().unwrap(), b.status.code().unwrap()];
        statuses.sort_unstable();
        assert_eq!(statuses, [0, 3], "{}{}", text(&a.stderr), text(&b.stderr));
        let listed = kport.ok(&["list"], "");
        assert_eq!(listed.lines().filter(|l| l.contains(&format!(" {} ", 9000 + round))).count(), 1, "{listed}");
    }
}

#[test]
fn the_readme_is_true() {
    let readme = page("README.md");
    let kport = Kport::new();
    let mut shown = 0;
    for (command, output) in console(&readme) {
        if !command.starts_with("$ cargo run") {
            continue;
        }
        let line =
            command.trim_start_matches("$ ").replace("cargo run -q --", "$KPORT").replace("cargo run --", "$KPORT");
        let mut sh = Command::new("sh");
        sh.args(["-c", &format!("exec 2>&1; {line}")]).current_dir(env!("CARGO_MANIFEST_DIR")).env_clear();
        sh.env("KPORT", env!("CARGO_BIN_EXE_kport")).env("KPORT_STATE_DIR", kport.dir.path());
        let run = sh.output().unwrap();
        assert_eq!((run.status.code(), text(&run.stdout)), (Some(0), output), "{command}");
        shown += 1;
    }
    assert_eq!(shown, 2);
    assert!(readme.lines().count() <= 150);
}

/// The text of a page of the documentation, or of an example.
fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn pages_show_the_examples_as_they_are() {
    let block = |name: &str, example: &str, language: &str| {
        let page = page(name);
        let (_, rest) = page.split_once(&format!("<!-- {example} -->\n```{language}\n")).expect(name);
        rest.split_once("```\n").unwrap().0.to_owned()
    };
    assert_eq!(block("README.md", "examples/pf.conf", ""), page("examples/pf.conf"));
    assert_eq!(block("docs/library.md", "c-examples/publish.c", "c"), page("c-examples/publish.c"));
    // three lines of the example
    let jail = page("examples/jail.conf");
    let lines: Vec<&str> = jail.lines().map(str::trim).filter(|line| line.contains("/kport ")).collect();
    assert_eq!(block("README.md", "examples/jail.conf", "").lines().collect::<Vec<_>>(), lines);
}

/// The commands of console blocks, each with the output below it.
fn console(readme: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = vec![];
    for block in readme.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match found.last_mut() {
                _ if line.starts_with("$ ") || line.starts_with("# ") => found.push((line.to_owned(), String::new())),
                Some((_, shown)) => *shown += &format!("{line}\n"),
                None => panic!("{line}: no command"),
            }
        }
    }
    found
}
