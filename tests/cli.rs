//! The helper: arguments, exit statuses, what it prints and where.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::standin;

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

    /// Standard output of a success; standard error says `err`.
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
rdr on \"em0\" inet proto tcp from any to (\"em0\") port 8080 tag kport -> 10.0.0.2 port 80
pass quick inet proto tcp from any to 10.0.0.2 port 80 tagged kport keep state label \"kport:web\" label \"kport:web:tcp:8080\"
pass quick on { bridge epair lo } inet proto tcp from any to 10.0.0.2 port 80 keep state label \"kport:web\" label \"kport:web:tcp:8080\"
"
    );
    assert_eq!(common::files(kport.dir.path()), [""; 0]);
    let options =
        "--reach bridge1 --from 192.0.2.0/24 --from <friends> --max-connections 10 --rate 5/10 --log --no-quick";
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
        (vec!["publish", "db", "80"], 5, "no jail \"db\" is running here"),
        (vec!["publish", "db", "-a", "inherit", "80"], 8, "host's network"),
        (vec!["gc"], 8, "Linux has no jails"),
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
    for command in ["parse", "rules", "publish", "unpublish", "trace", "list", "restore", "gc"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
    assert_eq!(kport.ok(&["--version"], ""), concat!("kport ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn an_environment_that_is_wrong_is_told() {
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
    // and why it is this backend: the library itself prints nothing
    let why = |arguments: &[&str]| text(&kport.run(&[arguments, &["list"]].concat()).stderr);
    assert_eq!(why(&["-v", "--backend", "sim"]).lines().next(), Some("kport: backend sim: it was asked for"));
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
    assert_eq!(common::files(&kport.dir.path().join("jails")), ["web.json"]);
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
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), String::new()));
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

/// Two processes at once, many times: one of them gets each port, and nothing is lost.
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
    let readme = include_str!("../README.md");
    // what the helper prints
    let kport = Kport::new();
    for (command, shown) in console(readme) {
        let Some(arguments) = command.strip_prefix("$ cargo run -- ") else { continue };
        let output = kport.run(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert_eq!(text(&output.stderr) + &text(&output.stdout), shown, "{command}");
    }
    // files that it shows
    for (name, language) in [("examples/pf.conf", ""), ("examples/jail.conf", ""), ("c-examples/publish.c", "c")] {
        let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let block =
            readme.split(&format!("<!-- {name} -->\n```{language}\n")).nth(1).unwrap().split("```\n").next().unwrap();
        assert_eq!(block, file, "{name}");
    }
    // the table of statuses
    for kind in kport::error::Kind::ALL {
        assert!(readme.contains(&format!("\n| {} | {} |", kind.number(), kind.text())), "{kind:?}");
    }
}

/// The commands of console blocks, each with what stands below it.
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
