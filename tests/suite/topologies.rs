//! docs/topologies.md: the line of each section is run on the host of that section, tests/topologies/SECTION.json, with the
//! main ruleset tests/topologies/pf.conf, and packets are answered as the page says.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::cc;

/// A client: an address or a jail, and perhaps the interface by which its packets come in.
type Row = (&'static str, Option<&'static str>, &'static str, &'static str);

const ANSWERED: &str = "answered";
const LOST: &str = "lost";

/// For each section of the page: who asks, at which address, and what becomes of it.
const TABLE: &[(&str, &[Row])] = &[
    (
        "behind-the-host",
        &[
            ("198.51.100.7", None, "192.0.2.1:8080", ANSWERED),
            ("192.0.2.77", None, "192.0.2.1:8080", ANSWERED),
            ("2001:db8:ffff::7", None, "[2001:db8::1]:8080", ANSWERED),
            ("app", None, "10.0.0.2:80", ANSWERED),
            ("app", None, "192.0.2.1:8080", LOST),
            ("198.51.100.7", None, "10.0.0.2:80", LOST),
        ],
    ),
    (
        "on-the-lan",
        &[
            ("192.168.1.77", None, "192.168.1.10:8080", ANSWERED),
            ("198.51.100.7", None, "192.168.1.10:8080", ANSWERED),
            // without the host
            ("192.168.1.77", None, "192.168.1.50:80", ANSWERED),
        ],
    ),
    (
        "shared-addresses",
        &[
            ("198.51.100.7", None, "192.0.2.1:8080", ANSWERED),
            ("192.0.2.77", None, "192.0.2.7:8080", ANSWERED),
            ("198.51.100.7", None, "192.0.2.7:80", LOST),
        ],
    ),
    (
        "aliases-of-lo1",
        &[("198.51.100.7", None, "192.0.2.1:5432", ANSWERED), ("192.0.2.1", None, "192.0.2.1:5432", "refused")],
    ),
    ("carp", &[("198.51.100.7", None, "192.0.2.7:8080", ANSWERED), ("198.51.100.7", None, "192.0.2.1:8080", LOST)]),
    (
        "vlans",
        &[
            ("203.0.113.7", None, "198.51.100.1:8080", ANSWERED),
            ("198.51.100.77", Some("em0.100"), "198.51.100.1:8080", ANSWERED),
            ("app", None, "10.0.0.2:80", ANSWERED),
        ],
    ),
    (
        "ipv6-only",
        &[
            ("2001:db8:ffff::7", None, "[2001:db8::1]:8080", ANSWERED),
            ("2001:db8::77", None, "[2001:db8::1]:8080", ANSWERED),
        ],
    ),
];

/// The sections that uplinks.rs is about.
const UPLINKS: [&str; 3] = ["a-tunnel", "two-uplinks", "two-fibs"];

/// The host of a section, and the helper that uses it.
struct Stage {
    dir: tempfile::TempDir,
    host: Value,
}

impl Stage {
    fn new(section: &str) -> Stage {
        let file = |name: &str| fs::read_to_string(cc::root().join("tests/topologies").join(name)).unwrap();
        let stage = Stage {
            dir: tempfile::tempdir().unwrap(),
            host: serde_json::from_str(&file(&format!("{section}.json"))).unwrap(),
        };
        fs::create_dir(stage.dir.path().join("sim")).unwrap();
        fs::write(stage.dir.path().join("sim/main.conf"), file("pf.conf")).unwrap();
        stage
    }

    fn with(mut self, key: &str, value: Value) -> Stage {
        self.host[key] = value;
        self
    }

    /// The file of the host, as it is now.
    fn put(&self) -> PathBuf {
        let path = self.dir.path().join("host.json");
        fs::write(&path, self.host.to_string()).unwrap();
        path
    }

    fn command(&self, words: &[&str]) -> Command {
        let jail = &self.host["jails"][0];
        let mut command = Command::new(env!("CARGO_BIN_EXE_kport"));
        command.env_clear().env("JNAME", jail["name"].as_str().unwrap()).env("JID", jail["jid"].to_string());
        command.args(["--backend", "sim", "--state-dir"]).arg(self.dir.path()).arg("--host").arg(self.put());
        command.args(words);
        command
    }

    fn kport(&self, words: &[&str]) -> (i32, String) {
        let output = self.command(words).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    }

    fn publish(&self, words: &[&str]) -> String {
        let (status, text) = self.kport(&[&["publish", "--hook"], words].concat());
        assert_eq!(status, 0, "{words:?}: {text}");
        text
    }

    /// The verdict, and the exit status.
    fn trace(&self, (client, on, to, _): Row) -> (String, i32) {
        let mut words = vec!["-q", "trace", "--json"];
        words.extend(on.iter().flat_map(|on| ["--on", on]));
        words.extend(["tcp", client, to]);
        let output = self.command(&words).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{words:?}: {output:?}"));
        (json["verdict"].as_str().unwrap().to_owned(), output.status.code().unwrap())
    }

    fn problems(&self) -> Vec<String> {
        let (_, text) = self.kport(&["-q", "doctor"]);
        text.lines()
            .filter(|line| line.starts_with("problem") || line.starts_with("warning"))
            .map(str::to_owned)
            .collect()
    }
}

/// The sections of the page that have a line for jail.conf(5): its anchor, and the arguments of `publish --hook`.
fn sections() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(cc::root().join("docs/topologies.md")).unwrap();
    let mut found = vec![];
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap();
        let line = section.lines().find_map(|line| line.split_once("/usr/local/bin/kport publish --hook "));
        let Some((_, line)) = line else { continue };
        let words = line.trim_end_matches("\";").split_whitespace().map(str::to_owned).collect();
        found.push((title.to_lowercase().replace(' ', "-"), words));
    }
    found
}

#[test]
fn the_page_is_true() {
    let sections = sections();
    let known: BTreeSet<&str> = TABLE.iter().map(|(section, _)| *section).chain(UPLINKS).collect();
    assert_eq!(sections.iter().map(|(section, _)| section.as_str()).collect::<BTreeSet<_>>(), known);
    for (section, rows) in TABLE {
        let (_, words) = sections.iter().find(|(title, _)| title == section).unwrap();
        let stage = Stage::new(section);
        stage.publish(&words.iter().map(String::as_str).collect::<Vec<_>>());
        for row in *rows {
            assert_eq!(stage.trace(*row).0, row.3, "{section}: {row:?}");
        }
        assert_eq!(stage.problems(), [""; 0], "{section}");
    }
}

const LAN: &[&str] = &["--trust", "192.168.1.0/24"];
const NEIGHBOUR: Row = ("192.168.1.77", None, "192.168.1.10:8080", "");
const FAR: Row = ("198.51.100.7", None, "192.168.1.10:8080", "");

/// Clients of a jail on the LAN: with each option, and with what the host knows of the jail's default route.
#[test]
fn the_default_route_of_a_jail_on_the_lan() {
    let routes = [
        ("unknown", json!({})),
        ("the LAN's router", json!({ "web": { "inet": "192.168.1.1" } })),
        ("the host", json!({ "web": { "inet": "192.168.1.10" } })),
        ("none", json!({ "web": {} })),
    ];
    for (options, neighbour, far) in [
        (&[][..], "unanswered", ["depends", "unanswered", ANSWERED, "unanswered"]),
        (&["--hairpin"], ANSWERED, ["depends", "unanswered", ANSWERED, "unanswered"]),
        (&["--masquerade"], ANSWERED, [ANSWERED; 4]),
        (&["--hairpin", "--masquerade"], ANSWERED, [ANSWERED; 4]),
    ] {
        for ((name, route), far) in routes.iter().zip(far) {
            let stage = Stage::new("on-the-lan").with("default_routes", route.clone());
            let notes = stage.publish(&[LAN, options, &["8080:80"]].concat());
            assert_eq!(stage.trace(NEIGHBOUR).0, neighbour, "{options:?}, {name}");
            let (verdict, status) = stage.trace(FAR);
            assert_eq!((verdict.as_str(), status == 0), (far, far == ANSWERED), "{options:?}, {name}");
            assert!(status == 0 || status == 5, "{status}");
            // publish and doctor report the same, with a remedy
            let found = stage.problems();
            let expected = usize::from(neighbour != ANSWERED) + usize::from(far != ANSWERED);
            assert_eq!(found.len(), expected, "{options:?}, {name}: {found:?}");
            assert_eq!(notes.matches("--masquerade").count(), expected, "{notes}");
        }
    }
    let (_, text) = Stage::new("on-the-lan").with("default_routes", json!({})).unanswered();
    assert!(text.contains("arrives; whether it is answered depends on the default route of jail web"), "{text}");
}

impl Stage {
    /// What trace prints about a client beyond the LAN, without an option.
    fn unanswered(&self) -> (i32, String) {
        self.publish(&[LAN, &["8080:80"]].concat());
        self.kport(&["trace", "tcp", FAR.0, FAR.2])
    }
}

/// `-a NETWORK` is `--trust NETWORK`.
#[test]
fn an_address_of_the_lan_is_believed_if_the_administrator_says_so() {
    for (words, done) in [
        (&["8080:80"][..], false),
        (&["--trust", "10.0.0.0/8", "8080:80"], false),
        (&["--trust", "10.0.0.0/8", "--trust", "192.168.1.0/24", "8080:80"], true),
        (&["-a", "192.168.1.0/24", "8080:80"], true),
        (&["-a", "192.168.1.50/32", "8080:80"], true),
    ] {
        let stage = Stage::new("on-the-lan");
        let (status, text) = stage.kport(&[&["publish", "--hook"], words].concat());
        assert_eq!(status, if done { 0 } else { 5 }, "{words:?}: {text}");
        assert!(done || text.contains("or name the network whose addresses are to be believed with --trust"), "{text}");
    }
    for (network, why) in [("192.168.1.50/24", "write 192.168.1.0/24 or 192.168.1.50"), ("192.168.1", "not a network")]
    {
        let (status, text) = Stage::new("on-the-lan").kport(&["publish", "--trust", network, "web", "8080:80"]);
        assert!(status == 64 && text.contains(why), "{status} {text}");
    }
}

/// --wait waits on while the jail has an address that is not believed, and until it has each family that is named.
#[test]
fn waiting_for_what_comes_later() {
    use std::io::{BufRead, BufReader};
    let v4 = json!({ "web": ["198.51.100.5", "10.0.0.2"] });
    let both = json!({ "web": ["198.51.100.5", "10.0.0.2", "fd00::2"] });
    for (families, seen, later, published) in [
        (&["--family", "inet"][..], "reports 198.51.100.5, which is on no network", v4.clone(), "10.0.0.2:80"),
        (&["--family", "inet,inet6"], "web\" has no IPv6 address", both.clone(), "[fd00::2]:80"),
    ] {
        let mut stage = Stage::new("behind-the-host");
        let first = if families[1] == "inet" { json!({ "web": ["198.51.100.5"] }) } else { v4.clone() };
        stage.host["vnet_addresses"] = first;
        let words = [&["-vv", "publish", "--hook", "--wait", "3600"], families, &["8080:80"]].concat();
        let mut child = stage.command(&words).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("waiting: ") && line.contains(seen)));
        stage.host["vnet_addresses"] = later;
        let next = stage.dir.path().join("next");
        fs::write(&next, stage.host.to_string()).unwrap();
        fs::rename(&next, stage.dir.path().join("host.json")).unwrap();
        lines.for_each(drop);
        assert!(child.wait().unwrap().success());
        let (_, listed) = stage.kport(&["-q", "list"]);
        assert!(listed.contains(published), "{listed}");
    }
}

/// Both families or none, and which one is missing.
#[test]
fn families() {
    for (addresses, words, status, says) in [
        // the jail has no address: one family is published
        (json!(["10.0.0.2"]), &["8080:80"][..], 0, ""),
        (json!(["10.0.0.2"]), &["--family", "inet", "8080:80"], 0, ""),
        (
            json!(["10.0.0.2"]),
            &["--family", "inet,inet6", "8080:80"],
            5,
            "has no IPv6 address; wait for one with --wait",
        ),
        (json!(["10.0.0.2"]), &["--family", "inet6", "8080:80"], 5, "has no IPv6 address"),
        (
            json!(["10.0.0.2"]),
            &["--wait", "0.01", "8080:80"],
            0,
            "has no IPv6 address, so its ports are published by IPv4 only",
        ),
        (json!(["10.0.0.2"]), &["--wait", "0.01", "--family", "inet", "8080:80"], 0, ""),
        (json!(["10.0.0.2"]), &["--wait", "0.01", "192.0.2.1:8080:80"], 0, ""),
        // the address is refused: nothing is published
        (json!(["10.0.0.2", "2001:db8::99"]), &["8080:80"], 5, "or publish by IPv4 only with --family"),
        (json!(["10.0.0.2", "2001:db8::99"]), &["--wait", "0.01", "8080:80"], 5, "2001:db8::99, which"),
        (json!(["10.0.0.2", "2001:db8::99"]), &["--family", "inet", "8080:80"], 0, ""),
        (json!(["10.0.0.2", "2001:db8::99"]), &["192.0.2.1:8080:80"], 0, ""),
    ] {
        let stage =
            Stage::new("behind-the-host").with("vnet_addresses", json!({ "web": addresses, "app": ["10.0.0.3"] }));
        let (got, text) = stage.kport(&[&["publish", "--hook"], words].concat());
        let said = text.lines().filter(|line| !line.contains("simulator")).collect::<Vec<_>>().join("\n");
        assert_eq!(got, status, "{addresses} {words:?}: {text}");
        assert!(said.contains(says) && (!says.is_empty() || said.is_empty()), "{addresses} {words:?}: {text}");
        let (_, listed) = stage.kport(&["-q", "list"]);
        assert_eq!(listed.contains("web"), status == 0, "{listed}");
    }
}

/// A family that comes after the publish is a finding, unless one family was named.
#[test]
fn a_family_that_comes_later_is_reported() {
    let missing = "jail \"web\" has 10.0.0.2 now, and em0 has an IPv4 address";
    for (families, found) in [(&[][..], true), (&["--family", "inet6"], false)] {
        let mut stage = Stage::new("behind-the-host").with("vnet_addresses", json!({ "web": ["fd00::2"] }));
        stage.publish(&[families, &["8080:80"]].concat());
        assert_eq!(stage.problems(), [""; 0]);
        stage.host["vnet_addresses"] = json!({ "web": ["fd00::2", "10.0.0.2"] });
        assert_eq!(stage.problems().iter().any(|line| line.contains(missing)), found);
        stage.publish(&[families, &["8080:80"]].concat());
        assert_eq!(stage.problems(), [""; 0]);
    }
}
