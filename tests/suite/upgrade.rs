//! A host is upgraded while jails run: what an earlier kport has left in its state directory is read, and changed, by this one.
//! The directories in tests/upgrade were made by these commits, with tests/upgrade/make.sh.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::support::cc;
use crate::support::rig::files;
use serde_json::{Value, json};

/// Commits: one whose records do not have what was requested, and that before version 0.1.0.
pub const VERSIONS: [&str; 2] = ["143c0be", "0f124d4"];

fn file(version: &str, name: &str) -> PathBuf {
    cc::root().join("tests/upgrade").join(version).join(name)
}

/// The state directory of a version.
pub fn state(version: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for line in fs::read_to_string(file(version, "state")).unwrap().lines() {
        let [kind, path, what] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match kind {
            "l" => symlink(what, path).unwrap(),
            // the simulator wrote this field of a nat rule by another name; a kernel has the rules
            _ if version == "143c0be" && line.contains("\tsim/") => {
                fs::write(path, what.replace("\"address_of\":\"bridge0\"", "\"source\":{\"interface\":\"bridge0\"}"))
                    .unwrap();
            }
            _ if path.ends_with("lock") => fs::write(path, what.replace("\\n", "\n")).unwrap(),
            _ => fs::write(path, what).unwrap(),
        }
    }
    for dir in ["cni", ""].map(|name| dir.path().join(name)) {
        fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    dir
}

/// This kport, on the state directory of an earlier one.
struct Upgraded {
    version: &'static str,
    state: tempfile::TempDir,
    dir: tempfile::TempDir,
    host: Value,
}

/// A jail, as `list --json` has it.
type Listed = BTreeMap<String, Value>;

impl Upgraded {
    fn new(version: &'static str) -> Upgraded {
        let mut host: Value = serde_json::from_str(&fs::read_to_string(file(version, "host.json")).unwrap()).unwrap();
        // some time later: a jail that had not started has not come
        host["uptime"] = json!(5000);
        let upgraded = Upgraded { version, state: state(version), dir: tempfile::tempdir().unwrap(), host };
        upgraded.conf("lines 7017:80 auto:81 --sources 192.0.2.0/24\n");
        upgraded
    }

    /// kport.conf(5): of the version that reads one, that with which it has published.
    fn conf(&self, text: &str) {
        let text = if self.version == "143c0be" { "" } else { text };
        fs::write(self.dir.path().join("kport.conf"), text).unwrap();
    }

    fn command(&self) -> Command {
        let host = self.dir.path().join("host.json");
        fs::write(&host, self.host.to_string()).unwrap();
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().env("KPORT_STATE_DIR", self.state.path()).args(["--backend", "sim", "--host"]).arg(host);
        kport.arg("--config").arg(self.dir.path().join("kport.conf"));
        kport
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}: {arguments:?}: {}", self.version, cc::text(&output.stderr));
        cc::text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    fn list(&self) -> BTreeMap<String, Listed> {
        by_anchor(&self.json(&["list", "--json"]))
    }

    /// What is not live, by anchor.
    fn not_live(&self) -> Vec<(String, String)> {
        let list = self.list().into_iter().filter(|(_, jail)| jail["state"] != "live");
        list.map(|(anchor, jail)| (anchor, jail["state"].as_str().unwrap().to_owned())).collect()
    }

    fn gone(&mut self, jail: &str) {
        self.host["jails"].as_array_mut().unwrap().retain(|one| one["name"] != jail);
    }
}

fn by_anchor(list: &Value) -> BTreeMap<String, Listed> {
    let jails = list["jails"].as_array().unwrap().iter();
    let of = |jail: &Value| jail.as_object().unwrap().clone().into_iter().collect();
    jails.map(|jail| (jail["anchor"].as_str().unwrap().to_owned(), of(jail))).collect()
}

/// What that version listed.
fn listed_then(version: &str) -> BTreeMap<String, Listed> {
    by_anchor(&serde_json::from_str(&fs::read_to_string(file(version, "list.json")).unwrap()).unwrap())
}

/// The specs of what a jail has published.
fn specs(jail: &Listed) -> Vec<String> {
    let mut all = vec![];
    for port in jail["ports"].as_array().unwrap() {
        let range = |first: &str| match (port[first].as_u64().unwrap(), port["count"].as_u64().unwrap()) {
            (first, 1) => first.to_string(),
            (first, count) => format!("{first}-{}", first + count - 1),
        };
        let word = |name: &str| port[name].as_str().unwrap();
        all.push(format!("{}:{}:{}/{}", word("place"), range("host_port"), range("jail_port"), word("protocol")));
    }
    all.dedup();
    all
}

#[test]
fn a_list_shows_what_it_showed() {
    for version in VERSIONS {
        let upgraded = Upgraded::new(version);
        let before = files(upgraded.state.path());
        let (then, now) = (listed_then(version), upgraded.list());
        assert!(then.len() >= 12 && then.keys().eq(now.keys()), "{version}");
        for (anchor, jail) in &then {
            for (field, value) in jail {
                match value.as_array() {
                    // a text for people
                    None if field == "problem" => {
                        assert_eq!(now[anchor][field].is_null(), value.is_null(), "{version}: {anchor}")
                    }
                    None => assert_eq!(now[anchor][field], *value, "{version}: {anchor}: {field}"),
                    Some(ports) => {
                        let now = now[anchor][field].as_array().unwrap();
                        assert_eq!(ports.len(), now.len(), "{version}: {anchor}");
                        for (port, now) in ports.iter().zip(now) {
                            for (field, value) in port.as_object().unwrap() {
                                assert_eq!(now[field], *value, "{version}: {anchor}: {field}");
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(files(upgraded.state.path()), before, "{version}: a list changes nothing");
    }
}

/// What rc(8) runs at the start of the new version, with jails that run, that are gone, and that were being changed.
#[test]
fn apply_completes_what_was_left_half_done_and_changes_nothing_else() {
    for version in VERSIONS {
        let mut upgraded = Upgraded::new(version);
        let then = listed_then(version);
        let half = |jail: &str| (format!("kport/{jail}"), "missing".to_owned());
        assert_eq!(upgraded.not_live(), ["cut-change", "cut-first", "cut-unpublish"].map(half), "{version}");
        upgraded.gone("gone");
        let rules = |child: &str| fs::read(upgraded.state.path().join(format!("sim/{child}.json"))).unwrap();
        let web = rules("web");
        upgraded.ok(&["apply"]);
        assert_eq!(upgraded.not_live(), [], "{version}");
        assert_eq!(rules("web"), web, "{version}: the rules of a jail that runs are those that it had");
        let now = upgraded.list();
        for (anchor, jail) in &then {
            match anchor.as_str() {
                // jails that the host does not have
                "kport/gone" | "kport/coming" => assert!(!now.contains_key(anchor), "{version}: {anchor}"),
                // what was asked for last
                "kport/cut-change" => {
                    assert_eq!(specs(&now[anchor]), ["em0:7003:7003/tcp", "em0:7004:7004/tcp"], "{version}")
                }
                _ => assert_eq!(specs(&now[anchor]), specs(jail), "{version}: {anchor}"),
            }
        }
        // the second time there is nothing to do
        assert_eq!(upgraded.json(&["apply", "--json"])["changed"], false, "{version}");
    }
}

#[test]
fn the_same_ports_again_change_nothing() {
    for version in VERSIONS {
        let upgraded = Upgraded::new(version);
        for (jail, words) in [
            ("web", "8080:80 8443:443/tcp,udp 9899/sctp"),
            ("app", "--auto-range 50000-50010 8000-8010:9000 em1:9000-9001:9000/udp auto:80 20000-22999:20000"),
            ("flat", "192.0.2.7:81:80"),
            ("a name/with $signs", "7000"),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let again = upgraded.json(&[&["publish", "--json", jail], &words[..]].concat());
            assert_eq!((&again["changed"], &again["killed"]), (&json!(false), &json!(0)), "{version}: {jail}");
        }
    }
}

/// Ports are taken by whom the records say, whichever version wrote them.
#[test]
fn nobody_else_gets_a_port_that_is_published() {
    for version in VERSIONS {
        let mut upgraded = Upgraded::new(version);
        upgraded.host["jails"].as_array_mut().unwrap().push(json!({ "jid": 99, "name": "thief", "vnet": true }));
        upgraded.host["vnet_addresses"]["thief"] = json!(["10.0.0.99", "fd00::99"]);
        let mut tried = 0;
        for (anchor, jail) in listed_then(version) {
            for spec in specs(&jail) {
                let output = upgraded.run(&["publish", "thief", &spec]);
                let said = cc::text(&output.stderr);
                assert_eq!(output.status.code(), Some(3), "{version}: {anchor}: {spec}: {said}");
                assert!(said.contains(" is published by "), "{version}: {spec}: {said}");
                tried += 1;
            }
        }
        assert!(tried >= 20, "{version}: {tried}");
    }
}

#[test]
fn ports_are_added_to_and_removed_from_earlier_ones() {
    for version in VERSIONS {
        let upgraded = Upgraded::new(version);
        upgraded.ok(&["publish", "--add", "web", "--sources", "192.0.2.0/24", "6000"]);
        upgraded.ok(&["unpublish", "web", "8443:443/udp"]);
        let left = ["em0:8080:80/tcp", "em0:8443:443/tcp", "em0:9899:9899/sctp", "em0:6000:6000/tcp"];
        let mut now = specs(&upgraded.list()["kport/web"]);
        now.sort();
        now.dedup();
        let mut left = left.map(str::to_owned);
        left.sort();
        assert_eq!(now, left, "{version}");
        assert!(!upgraded.not_live().iter().any(|(anchor, _)| anchor == "kport/web"), "{version}");
    }
}

/// A stop hook that was installed with the new version ends what the old one has published.
#[test]
fn unpublish_leaves_nothing() {
    for version in VERSIONS {
        let upgraded = Upgraded::new(version);
        // of an earlier start
        upgraded.ok(&["unpublish", "web", "--jid", "1"]);
        assert!(upgraded.list().contains_key("kport/web"), "{version}");
        upgraded.ok(&["unpublish", "web", "--jid", "2"]);
        assert!(!upgraded.list().contains_key("kport/web"), "{version}");
        for jail in listed_then(version).values() {
            upgraded.ok(&["unpublish", jail["jail"].as_str().unwrap()]);
        }
        assert_eq!(upgraded.json(&["list", "--json"])["jails"], json!([]), "{version}");
        let mut left = files(upgraded.state.path());
        // the container's attachment is not ended by this; and of the simulator's killed calls
        left.retain(|path| !path.ends_with("lock") && !path.starts_with("cni/") && !path.ends_with(".tmp"));
        assert!(left.is_empty(), "{version}: {left:?}");
    }
}

#[test]
fn an_attachment_of_the_cni_plugin_ends() {
    for version in VERSIONS {
        let upgraded = Upgraded::new(version);
        let config = json!({ "cniVersion": "1.0.0", "name": "podman", "type": "portmap",
            "runtimeConfig": { "portMappings": [{ "hostPort": 7014, "containerPort": 80, "protocol": "tcp" }] } });
        let mut plugin = upgraded.command();
        for (name, value) in
            [("COMMAND", "DEL"), ("CONTAINERID", "c0ffee"), ("NETNS", "/var/run/netns/pod"), ("IFNAME", "eth0")]
        {
            plugin.env(format!("CNI_{name}"), value);
        }
        plugin.env("CNI_PATH", "/usr/local/libexec/cni").arg("cni").stdin(Stdio::piped());
        let mut child = plugin.stdout(Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.to_string().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{version}");
        assert!(!upgraded.list().contains_key("kport/pod"), "{version}");
        assert!(!upgraded.state.path().join("cni/pod.json").exists(), "{version}");
    }
}

#[test]
fn after_a_boot_nothing_of_it_is_used() {
    for version in VERSIONS {
        let mut upgraded = Upgraded::new(version);
        upgraded.host["boot_id"] = json!("second");
        // pf has lost its rules
        fs::remove_dir_all(upgraded.state.path().join("sim")).unwrap();
        assert_eq!(upgraded.json(&["list", "--json"])["jails"], json!([]), "{version}");
        upgraded.ok(&["publish", "db", "8080:80"]);
        assert_eq!(upgraded.list().keys().collect::<Vec<_>>(), ["kport/db"], "{version}");
    }
}

/// What is published by lines of the file follows the file, what was published by hand stays.
#[test]
fn lines_of_the_file_are_recognized() {
    let upgraded = Upgraded::new("0f124d4");
    let lines = |upgraded: &Upgraded| specs(&upgraded.list()["kport/lines"]);
    let then = lines(&upgraded);
    assert_eq!(upgraded.json(&["apply", "--json", "lines"])["changed"], false);
    assert_eq!(lines(&upgraded), then);
    upgraded.conf("lines 7018:80\n");
    upgraded.ok(&["apply", "lines", "web"]);
    assert_eq!(lines(&upgraded), ["em0:7018:80/tcp"]);
    assert_eq!(specs(&upgraded.list()["kport/web"]), specs(&listed_then("0f124d4")["kport/web"]));
}
