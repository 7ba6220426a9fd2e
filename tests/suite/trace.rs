//! `kport trace`: which rules it reads, its output, its exit status.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::standin;
use serde_json::{Value, json};

/// The host of docs/who-can-reach-what.md.
const HOST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trace/host.json");
const NOTICE: &str = "kport: simulator: the rules are kept in files, no packet is redirected\n";
const LOST: &str = "kport: the packet does not arrive\n";

struct Kport {
    dir: tempfile::TempDir,
    pfctl: Option<PathBuf>,
}

impl Kport {
    fn new() -> Kport {
        Kport { dir: tempfile::tempdir().unwrap(), pfctl: None }
    }

    fn over(standin: &standin::Pfctl) -> Kport {
        Kport { pfctl: Some(standin.program()), ..Kport::new() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kport"));
        command.args(arguments).env_clear().env("KPORT_STATE_DIR", self.dir.path());
        match &self.pfctl {
            Some(program) => command.args(["--backend", "pfctl", "--pfctl"]).arg(program),
            None => command.args(["--backend", "sim"]),
        };
        command.output().unwrap()
    }

    fn publish(&self, options: &[&str]) {
        let output =
            self.run(&[&["publish", "web", "-a", "10.0.0.2", "--gateway", "em0"], options, &["8080:80"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }

    fn trace(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = self.run(&[&["trace", "--host", HOST], arguments].concat());
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// The document of a trace, and the status.
    fn json(&self, arguments: &[&str]) -> (Value, i32) {
        let (status, out, err) = self.trace(&[&["--json"], arguments].concat());
        (serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")), status.unwrap())
    }

    fn main_conf(&self, text: &str) {
        std::fs::create_dir_all(self.dir.path().join("sim")).unwrap();
        std::fs::write(self.dir.path().join("sim/main.conf"), text).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The example of docs/who-can-reach-what.md is what the helper prints; KPORT_BLESS=1 writes it.
#[test]
fn the_example_of_who_can_reach_what() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/who-can-reach-what.md");
    let kport = Kport::new();
    kport.publish(&[]);
    let (status, out, err) = kport.trace(&["tcp", "192.0.2.100", "192.0.2.1:8080"]);
    assert_eq!((status, err.as_str()), (Some(0), NOTICE), "{out}");
    let shown: String = out.lines().map(|line| format!("    {line}\n")).collect();
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once("<!-- trace -->\n").unwrap();
    let (example, tail) = rest.split_once("<!-- end trace -->\n").unwrap();
    if std::env::var_os("KPORT_BLESS").is_some() {
        std::fs::write(PAGE, format!("{head}<!-- trace -->\n\n{shown}\n<!-- end trace -->\n{tail}")).unwrap();
    } else {
        assert_eq!(example, format!("\n{shown}\n"));
    }
}

#[test]
fn what_does_not_arrive_is_status_5() {
    let kport = Kport::new();
    kport.publish(&["--sources", "192.0.2.96/28"]);
    let (status, out, err) = kport.trace(&["tcp", "192.0.2.7", "192.0.2.1:8080"]);
    assert_eq!((status, err), (Some(5), format!("{NOTICE}{LOST}")));
    assert!(out.contains("pf.conf: block in log all\n    blocked\ndoes not arrive\n"), "{out}");
    let (status, _, err) = kport.trace(&["-q", "tcp", "192.0.2.7", "192.0.2.1:8080"]);
    assert_eq!((status, err.as_str()), (Some(5), LOST));
    assert_eq!(kport.trace(&["tcp", "192.0.2.100", "192.0.2.1:8080"]).0, Some(0));
    // another port, another protocol, the jail's own address from outside, and with the interface given
    for question in [
        &["tcp", "192.0.2.100", "192.0.2.1:8081"][..],
        &["udp", "192.0.2.100", "192.0.2.1:8080"],
        &["--on", "em0", "tcp", "192.0.2.100", "10.0.0.2:80"],
        &["--on", "bridge1", "tcp", "192.0.2.100", "192.0.2.1:8080"],
        // its name in previews of 0.1.0
        &["--from", "bridge1", "tcp", "192.0.2.100", "192.0.2.1:8080"],
    ] {
        assert_eq!(kport.trace(question).0, Some(5), "{question:?}");
    }
}

#[test]
fn a_jail_as_the_source_and_json() {
    let kport = Kport::new();
    kport.publish(&[]);
    let (found, status) = kport.json(&["tcp", "other", "10.0.0.2:80"]);
    assert_eq!((status, &found["version"], &found["release"]), (0, &json!(1), &json!(15)));
    assert_eq!(found["verdict"], "answered");
    assert_eq!(found["delivered_to"], json!({ "party": { "jail": "web" }, "address": "10.0.0.2:80" }));
    assert_eq!(
        found["steps"][0],
        json!({ "step": "sent", "by": { "jail": "other" },
                "packet": { "protocol": "tcp", "from": "10.1.0.2:40000", "to": "10.0.0.2:80" } })
    );
    assert_eq!(found["steps"][1], json!({ "step": "hook", "direction": "in", "on": "bridge1" }));
    let rules: Vec<&Value> = found["steps"].as_array().unwrap().iter().filter(|s| s["step"] == "rule").collect();
    assert!(rules.iter().any(|rule| rule["anchor"] == "kport/web"), "{rules:?}");
    // not without hairpin
    let (found, status) = kport.json(&["--release", "14", "tcp", "other", "192.0.2.1:8080"]);
    assert_eq!((status, &found["verdict"], &found["delivered_to"]), (5, &json!("lost"), &Value::Null));
    assert_eq!(found["release"], 14);
}

#[test]
fn the_main_ruleset_of_the_simulator_is_a_file() {
    let kport = Kport::new();
    kport.main_conf(
        "table <friends> { 192.0.2.96/28 }\nrdr-anchor \"/kport/*\"\nblock in log all\nanchor \"/kport/*\"\n",
    );
    kport.publish(&["--sources", "<friends>"]);
    assert_eq!(kport.trace(&["tcp", "192.0.2.100", "192.0.2.1:8080"]).0, Some(0));
    assert_eq!(kport.trace(&["tcp", "192.0.2.7", "192.0.2.1:8080"]).0, Some(5));
    // no call, no publication
    kport.main_conf("table <friends> { 192.0.2.96/28 }\nblock in log all\n");
    assert_eq!(kport.trace(&["tcp", "192.0.2.100", "192.0.2.1:8080"]).0, Some(5));
    kport.main_conf("rdr-anchor \"*\"\nblock in log all\n\npass out frobnicate all\n");
    let (status, out, err) = kport.trace(&["tcp", "192.0.2.100", "192.0.2.1:8080"]);
    assert_eq!((status, out.as_str()), (Some(8), ""));
    assert!(err.contains("sim/main.conf line 4: \"frobnicate\" is not known: \"pass out frobnicate all\""), "{err}");
}

#[test]
fn the_rules_that_pfctl_shows() {
    let pf = standin::Pfctl::new();
    let kport = Kport::over(&pf);
    pf.set_tables("friends 192.0.2.96/28\n");
    kport.publish(&["--sources", "<friends>"]);
    let (status, out, err) = kport.trace(&["tcp", "192.0.2.100", "192.0.2.1:8080"]);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
    assert!(
        out.contains(
            "kport/web: rdr on em0 inet proto tcp from <friends> to (em0) port = 8080 tag kport:web -> 10.0.0.2"
        ),
        "{out}"
    );
    assert_eq!(kport.trace(&["tcp", "192.0.2.7", "192.0.2.1:8080"]).0, Some(5));
    // another tool's anchor, which the main ruleset calls
    pf.put("", "rdr-anchor \"kport/*\"\nrdr-anchor \"rdr/*\"\nblock in log all\npass out all\nanchor \"kport/*\"\n");
    pf.put("rdr/db", "rdr pass on em0 inet proto tcp from any to any port = 2222 -> 10.1.0.2 port 22\n");
    let (found, status) = kport.json(&["tcp", "192.0.2.7", "192.0.2.1:2222"]);
    assert_eq!((status, &found["delivered_to"]["party"]), (0, &json!({ "jail": "other" })));
    // every anchor below one, but none below those
    pf.put("", "rdr-anchor \"tools/*\"\nblock in log all\npass out all\n");
    pf.put("tools/db", "rdr pass on em0 inet proto tcp from any to any port = 2223 -> 10.1.0.2 port 22\n");
    pf.put("tools/db/x", "rdr pass on em0 inet proto tcp from any to any port = 2222 -> 10.1.0.2 port 22\n");
    assert_eq!(kport.trace(&["tcp", "192.0.2.7", "192.0.2.1:2223"]).0, Some(0));
    assert_eq!(kport.trace(&["tcp", "192.0.2.7", "192.0.2.1:2222"]).0, Some(5));
    // skipped interfaces, and pf disabled
    pf.put("", "block in log all\n");
    let ssh = ["tcp", "192.0.2.7", "192.0.2.1:22"];
    assert_eq!(kport.trace(&ssh).0, Some(5));
    pf.set_skip("em0");
    let (status, out, _) = kport.trace(&ssh);
    assert!(status == Some(0) && out.contains("set skip: not evaluated\n  delivered to the host at"), "{out}");
    // if nothing listens, this is reported, whatever pf does
    for (pass, port) in [("set skip: not evaluated", "23"), ("set skip: not evaluated", "8081")] {
        let (status, out, err) = kport.trace(&["tcp", "192.0.2.7", &format!("192.0.2.1:{port}")]);
        assert!(status == Some(5) && out.contains(pass) && out.ends_with("nothing listens there\n"), "{out}");
        assert_eq!(err, "kport: the packet arrives, but nothing listens there\n");
    }
    pf.set_skip("");
    // tables that pfctl has made of lists
    pf.set_tables("friends 192.0.2.96/28\n__automatic_a2508139_0 192.0.2.7 198.51.100.7\n");
    pf.put("", "block in log all\npass in quick from <__automatic_a2508139_0>\npass out all\n");
    assert_eq!((kport.trace(&ssh).0, kport.trace(&["tcp", "192.0.2.8", "192.0.2.1:22"]).0), (Some(0), Some(5)));
    // the answer depends on what is unknown in a rule, if the packet reaches the rule
    pf.put("", "block in log all\npass in frobnicate on em0 proto tcp\n");
    let (status, out, err) = kport.trace(&ssh);
    assert_eq!(status, Some(8), "{out}");
    assert!(out.contains("rule 2 of pf.conf (pass in frobnicate on em0 proto tcp): "), "{out}");
    assert!(err.contains("kport cannot decide whether"), "{err}");
    assert_eq!(kport.trace(&["udp", "192.0.2.7", "192.0.2.1:22"]).0, Some(8), "what follows is not known either");
    pf.disable();
    let (status, out, _) = kport.trace(&ssh);
    assert!(status == Some(0) && out.contains("pf is disabled: not evaluated"), "{out}");
    // and what cannot be read is reported, with its place
    pf.put("", "block in log all\nreroute out from (\n");
    let (status, out, err) = kport.trace(&ssh);
    assert_eq!((status, out.as_str()), (Some(8), ""));
    assert!(err.starts_with("kport: main ruleset: pfctl line 2: ") && err.contains("reroute out from"), "{err}");
    pf.put("", "rdr-anchor \"rdr/*\"\n");
    pf.put("rdr/db", "reroute on em0\n");
    let (status, _, err) = kport.trace(&ssh);
    assert!(status == Some(8) && err.starts_with("kport: anchor rdr/db: pfctl line 1: "), "{err}");
}

#[test]
fn questions_that_make_no_sense() {
    let kport = Kport::new();
    for (arguments, status, says) in [
        (
            &["tcp", "nobody", "192.0.2.1:80"][..],
            1,
            "\"nobody\" is not an address, nor a jail of this host with an inet address",
        ),
        (&["tcp", "other", "[2001:db8::1]:80"], 1, "nor a jail of this host with an inet6 address"),
        (&["tcp", "192.0.2.7", "[2001:db8::1]:80"], 1, "different families"),
        (&["--on", "em7", "tcp", "192.0.2.7", "192.0.2.1:80"], 1, "no interface em7"),
        (&["gre", "192.0.2.7", "192.0.2.1:80"], 64, "tcp, udp, sctp, icmp, icmp6"),
        (&["icmp", "192.0.2.7", "192.0.2.1:80"], 1, "no ports"),
        (&["icmp6", "192.0.2.7", "192.0.2.1"], 1, "IPv6"),
        (&["icmp", "--icmp-type", "echo", "192.0.2.7", "192.0.2.1"], 1, "not an ICMP type"),
        (&["tcp", "192.0.2.7", "192.0.2.1"], 1, "give the port, too"),
        (&["tcp", "192.0.2.7", "nowhere:80"], 64, "nowhere"),
        (&["--release", "13", "tcp", "192.0.2.7", "192.0.2.1:80"], 64, "14 or 15"),
        (&["--host", "/nonexistent", "tcp", "192.0.2.7", "192.0.2.1:80"], 64, "cannot be used multiple times"),
    ] {
        let (got, out, err) = kport.trace(arguments);
        assert_eq!((got, out.as_str()), (Some(status), ""), "{arguments:?}: {err}");
        assert!(err.contains(says), "{arguments:?}: {err}");
    }
    let output = kport.run(&["trace", "--host", "/nonexistent", "tcp", "192.0.2.7", "192.0.2.1:80"]);
    assert!(text(&output.stderr).contains("read /nonexistent"), "{}", text(&output.stderr));
    // a host without jails
    if cfg!(target_os = "linux") {
        let output = kport.run(&["trace", "tcp", "192.0.2.7", "192.0.2.1:80"]);
        assert_eq!(output.status.code(), Some(8));
        assert!(text(&output.stderr).contains("describe a host with --host FILE"), "{}", text(&output.stderr));
    }
}

/// `--pf-conf`: the file in place of the loaded main ruleset, with kport's anchors unchanged; for `trace` and `doctor`.
#[test]
fn a_pf_conf_that_is_not_loaded() {
    const CALLS: &str = "nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\nanchor \"kport/*\"\n";
    let standin = standin::Pfctl::new();
    for kport in [Kport::new(), Kport::over(&standin)] {
        let file = kport.dir.path().join("new.conf");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        let conf = ["--pf-conf", file.to_str().unwrap()];
        let question = ["tcp", "192.0.2.100", "192.0.2.1:8080"];
        let trace = || kport.trace(&[&conf[..], &question].concat());
        // doctor reads a host from a file with the simulator only
        let doctor = |expected: Option<i32>, part: &str| {
            if kport.pfctl.is_none() {
                let output = kport.run(&[&["doctor", "--host", HOST], &conf[..]].concat());
                let said = text(&output.stdout) + &text(&output.stderr);
                assert!(output.status.code() == expected && said.contains(part), "{said}");
            }
        };
        if kport.pfctl.is_none() {
            kport.publish(&[]);
        } else {
            standin.put(
                "kport/web",
                "rdr on em0 inet proto tcp from any to (em0) port = 8080 tag kport:web -> 10.0.0.2 port 80\n\
                 pass quick inet proto tcp from any to 10.0.0.2 port = 80 flags S/SA keep state label \"kport:web\" tagged kport:web\n",
            );
        }
        write(&format!("outside = em0\n{CALLS}block in on $outside\n"));
        let (status, out, err) = trace();
        assert!(status == Some(0) && out.contains("kport/web: rdr on"), "{out}{err}");
        write(&format!("{CALLS}block in quick on em0\npass\n").replace("\nanchor", "\n#"));
        let (status, out, err) = trace();
        assert!(status == Some(5) && out.contains("pf.conf: block in quick on em0"), "{out}{err}");
        doctor(Some(5), "problem  anchors-called");
        write(&format!("{CALLS}block in log on em0\n"));
        // the earlier rules of the simulator are of another host
        doctor(Some(5), "warning  anchors-called");
        // an error in the file, with its place, and no other output
        write("pass all\n\nblock inn on em0\n");
        let line = format!("{} line 3: \"inn\" is not known", file.display());
        let (status, out, err) = trace();
        assert!(status == Some(8) && out.is_empty() && err.contains(&line), "{status:?} {out}{err}");
        doctor(Some(8), &line);
        std::fs::remove_file(&file).unwrap();
        let (status, _, err) = trace();
        assert!(status != Some(0) && err.contains("new.conf"), "{status:?} {err}");
    }
}
