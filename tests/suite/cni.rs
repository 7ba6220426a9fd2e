//! `kport cni`: the requests of a container runtime, and the answers.

mod answer;
mod libcni;

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{cc, rig};

/// A host with a state directory, and the request of a runtime.
struct Plugin {
    dir: tempfile::TempDir,
}

/// What the plugin answered.
#[derive(Debug)]
struct Answer {
    good: bool,
    json: Option<Value>,
    stderr: String,
}

impl Answer {
    #[track_caller]
    fn ok(self) -> Option<Value> {
        assert!(self.good, "{self:?}");
        self.json
    }

    /// The code and the details of an error.
    #[track_caller]
    fn error(self) -> (u64, String) {
        assert!(!self.good, "{self:?}");
        let json = self.json.expect("an error on standard output");
        assert!(json["cniVersion"].is_string() && !json["msg"].as_str().unwrap().is_empty(), "{json}");
        (json["code"].as_u64().unwrap(), json["details"].as_str().unwrap().to_owned())
    }
}

impl Plugin {
    fn new() -> Plugin {
        let plugin = Plugin { dir: tempfile::tempdir().unwrap() };
        plugin.play(|_| ());
        plugin
    }

    /// Changes the host.
    fn play(&self, change: impl FnOnce(&mut Value)) {
        let mut host: Value = serde_json::from_str(include_str!("../cni/host.json")).unwrap();
        change(&mut host);
        std::fs::write(self.host(), host.to_string()).unwrap();
    }

    fn host(&self) -> PathBuf {
        self.dir.path().join("host.json")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn kport(&self, arguments: &[&str]) -> Command {
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().arg("--host").arg(self.host()).args(["--backend", "sim"]).args(arguments);
        kport.env("KPORT_STATE_DIR", self.state());
        kport
    }

    fn command(&self, command: &str, variables: &[(&str, &str)]) -> Command {
        let mut kport = self.kport(&["cni"]);
        kport.env("CNI_COMMAND", command).envs(variables.iter().copied());
        kport
    }

    /// Attachment eth0 of container c0ffee in jail blue.
    fn say(&self, command: &str, input: &Value) -> Answer {
        self.say_with(command, &[], input)
    }

    /// The same, with other variables; an empty one counts as missing.
    fn say_with(&self, command: &str, variables: &[(&str, &str)], input: &Value) -> Answer {
        let mut all = vec![
            ("CNI_CONTAINERID", "c0ffee"),
            ("CNI_NETNS", "/var/run/netns/blue"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
            ("CNI_PATH", "/usr/local/libexec/cni"),
        ];
        all.extend(variables);
        feed(&mut self.command(command, &all), input.to_string().as_bytes())
    }

    fn published(&self) -> Vec<String> {
        let output = self.kport(&["list", "--json"]).output().unwrap();
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut found = vec![];
        for jail in list["jails"].as_array().unwrap() {
            assert_eq!(jail["state"], "live", "{list}");
            for port in jail["ports"].as_array().unwrap() {
                let range = |first: &Value| match port["count"].as_u64().unwrap() {
                    1 => first.to_string(),
                    count => format!("{first}-{}", first.as_u64().unwrap() + count - 1),
                };
                let word = |key: &str| port[key].as_str().unwrap().to_owned();
                let address = word("address");
                let address = if address.contains(':') { format!("[{address}]") } else { address };
                let (host, inside) = (range(&port["host_port"]), range(&port["jail_port"]));
                found.push(format!("{} {host} on {} -> {address}:{inside}", word("protocol"), word("place")));
            }
        }
        found
    }

    /// Nothing is published, and nothing of an attachment is left.
    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(self.published(), [""; 0]);
        let left: Vec<String> = rig::files(&self.state()).into_iter().filter(|f| !f.ends_with("lock")).collect();
        // the index entry of an earlier jid may remain: it names a record that does not exist
        let left: Vec<&String> = left.iter().filter(|f| !f.starts_with("sim/") && !f.starts_with("jids/")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn feed(command: &mut Command, input: &[u8]) -> Answer {
    let output = feed_raw(command, input);
    let stdout = cc::text(&output.stdout);
    let json = (!stdout.is_empty()).then(|| serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}")));
    Answer { good: output.status.success(), json, stderr: cc::text(&output.stderr) }
}

fn feed_raw(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // a program that does not read all of it closes the pipe
    _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn mapping(host: u16, jail: u16) -> Value {
    json!({ "hostPort": host, "containerPort": jail, "protocol": "tcp" })
}

/// A configuration with the result of the plugin before it.
fn network(name: &str, address: &str, mappings: &[Value]) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": name,
        "type": "portmap",
        "runtimeConfig": { "portMappings": mappings },
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [ { "name": "eth0", "sandbox": "blue" }, { "name": "eth1", "sandbox": "blue" } ],
            "ips": [ { "address": address } ],
        },
    })
}

fn with(mut network: Value, key: &str, value: Value) -> Value {
    network[key] = value;
    network
}

fn podman() -> Value {
    network("podman", "10.88.0.5/16", &[mapping(8080, 80)])
}

const WEB: &str = "tcp 8080 on * -> 10.88.0.5:80";

#[test]
fn a_dialogue_as_the_specification_has_it() {
    let plugin = Plugin::new();
    let dialogue: Vec<Value> = serde_json::from_str(include_str!("../cni/dialogue.json")).unwrap();
    for part in dialogue {
        let answer = plugin.say(part["command"].as_str().unwrap(), &part["input"]).ok();
        let expected = match &part["answer"] {
            Value::Null => None,
            key => Some(part["input"][key.as_str().unwrap()].clone()),
        };
        assert_eq!(answer, expected, "{}", part["says"]);
        assert_eq!(json!(plugin.published()), part["published"], "{}", part["says"]);
    }
    plugin.is_clean();
}

#[test]
fn each_version_gets_its_own_result() {
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let plugin = Plugin::new();
        let mut config = with(podman(), "cniVersion", json!(version));
        config["prevResult"]["cniVersion"] = json!(version);
        if version < "1.0.0" {
            config["prevResult"]["ips"][0]["version"] = json!("4");
        }
        assert_eq!(plugin.say("ADD", &config).ok().as_ref(), Some(&config["prevResult"]), "{version}");
        let check = plugin.say("CHECK", &config);
        if version == "0.3.1" {
            assert_eq!(check.error().0, 1);
        } else {
            assert_eq!(check.ok(), None);
        }
        for (command, last) in [("GC", "cni.dev/valid-attachments"), ("STATUS", "x")] {
            let answer = plugin.say(command, &with(podman_bare(version), last, json!([])));
            match (version, command) {
                ("1.1.0", "GC") => assert_eq!(answer.ok(), None),
                ("1.1.0", _) => assert_eq!(answer.error().0, 2, "x is no field"),
                _ => assert_eq!(answer.error().0, 1, "{version} {command}"),
            }
        }
        assert_eq!(plugin.say("DEL", &podman_bare(version)).ok(), None);
        plugin.is_clean();
    }
    let answer = Plugin::new().say("VERSION", &json!({ "cniVersion": "0.4.0" })).ok().unwrap();
    assert_eq!(answer, json!({ "cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] }));
    for odd in [json!({}), json!(5), json!({ "cniVersion": "9.9" }), json!("")] {
        assert_eq!(Plugin::new().say("VERSION", &odd).ok().unwrap()["cniVersion"], "1.1.0");
    }
}

fn podman_bare(version: &str) -> Value {
    json!({ "cniVersion": version, "name": "podman", "type": "portmap" })
}

#[test]
fn every_command_twice_and_out_of_order() {
    let plugin = Plugin::new();
    let bare = podman_bare("1.0.0");
    // nothing was added yet
    plugin.say("DEL", &bare).ok();
    assert_eq!(plugin.say("CHECK", &podman()).error().0, 3);
    let gc = with(podman_bare("1.1.0"), "cni.dev/valid-attachments", json!([]));
    plugin.say("GC", &gc).ok();
    plugin.is_clean();
    for _ in 0..2 {
        assert_eq!(plugin.say("ADD", &podman()).ok().unwrap(), podman()["prevResult"]);
        assert_eq!(plugin.published(), [WEB]);
    }
    for _ in 0..2 {
        assert_eq!(plugin.say("CHECK", &podman()).ok(), None);
    }
    for _ in 0..2 {
        assert_eq!(plugin.say("STATUS", &podman_bare("1.1.0")).ok(), None);
    }
    for _ in 0..2 {
        plugin.say_with("DEL", &[("CNI_NETNS", "")], &bare).ok();
        plugin.is_clean();
    }
    plugin.say("ADD", &podman()).ok();
    for _ in 0..2 {
        plugin.say("GC", &gc).ok();
        plugin.is_clean();
    }
    assert_eq!(plugin.say("CHECK", &podman()).error().0, 3);
}

#[test]
fn no_mappings_is_not_an_error_and_removes_earlier_ones() {
    let plugin = Plugin::new();
    for none in [json!({ "portMappings": [] }), json!({ "portMappings": null }), json!({}), Value::Null] {
        let config = with(podman(), "runtimeConfig", none);
        plugin.say("ADD", &podman()).ok();
        assert_eq!(plugin.say("ADD", &config).ok().unwrap(), config["prevResult"]);
        assert_eq!(plugin.published(), [""; 0]);
        assert_eq!(plugin.say("CHECK", &config).ok(), None);
        plugin.say("DEL", &config).ok();
    }
    plugin.is_clean();
}

#[test]
fn two_networks_of_a_container_are_one_publication() {
    let plugin = Plugin::new();
    let second = network("inside", "fd00:88::5/64", &[mapping(8080, 80)]);
    let eth1 = [("CNI_IFNAME", "eth1")];
    plugin.say("ADD", &podman()).ok();
    plugin.say_with("ADD", &eth1, &second).ok();
    let both = [WEB, "tcp 8080 on * -> [fd00:88::5]:80"];
    assert_eq!(plugin.published(), both);
    plugin.say("CHECK", &podman()).ok();
    plugin.say_with("CHECK", &eth1, &second).ok();
    // a third network with the same family changes nothing
    let third = network("more", "10.89.0.5/16", &[mapping(8080, 80)]);
    plugin.say_with("ADD", &[("CNI_IFNAME", "eth2")], &third).ok();
    assert_eq!(plugin.published(), both);
    // wrong names remove nothing
    plugin.say_with("DEL", &eth1, &podman()).ok();
    plugin.say_with("DEL", &[("CNI_CONTAINERID", "other")], &podman()).ok();
    assert_eq!(plugin.published(), both);
    // when the first is removed, the third takes its place
    plugin.say_with("DEL", &[("CNI_NETNS", "")], &podman()).ok();
    assert_eq!(plugin.published(), ["tcp 8080 on * -> 10.89.0.5:80", both[1]]);
    plugin.say_with("CHECK", &eth1, &second).ok();
    // GC concerns its own network only
    let gc = |name: &str| json!({ "cniVersion": "1.1.0", "name": name, "type": "portmap", "cni.dev/valid-attachments": null });
    plugin.say("GC", &gc("podman")).ok();
    plugin.say("GC", &gc("inside")).ok();
    assert_eq!(plugin.published(), ["tcp 8080 on * -> 10.89.0.5:80"]);
    plugin.say("GC", &gc("more")).ok();
    plugin.is_clean();
}

#[test]
fn networks_of_a_container_with_different_options_are_refused() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    let other = with(network("inside", "10.89.0.5/16", &[mapping(8080, 80)]), "sources", json!(["192.0.2.0/24"]));
    let (code, details) = plugin.say_with("ADD", &[("CNI_IFNAME", "eth1")], &other).error();
    assert_eq!(code, 7);
    assert!(details.contains("networks inside and podman of the same container have different options"), "{details}");
    assert_eq!(plugin.published(), [WEB]);
    plugin.say("DEL", &podman()).ok();
    plugin.is_clean();
}

#[test]
fn all_or_none() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    let green = [("CNI_NETNS", "green"), ("CNI_CONTAINERID", "beef")];
    let taken = network("podman", "10.88.0.6/16", &[mapping(9000, 90), mapping(8080, 80)]);
    let (code, details) = plugin.say_with("ADD", &green, &taken).error();
    assert_eq!(code, 103);
    assert!(details.contains("tcp 8080 on * is published by jail \"blue\""), "{details}");
    assert_eq!(plugin.published(), [WEB]);
    // and nothing of it remains that would be a conflict
    plugin.say_with("ADD", &green, &network("podman", "10.88.0.6/16", &[mapping(9000, 90)])).ok();
    plugin.say_with("DEL", &green, &taken).ok();
    let ssh = network("podman", "10.88.0.6/16", &[mapping(22, 22)]);
    let (code, details) = plugin.say_with("ADD", &green, &ssh).error();
    assert!(code == 103 && details.contains("a socket of the host listens"), "{details}");
    plugin.say_with("ADD", &green, &with(ssh, "force", json!(true))).ok();
    plugin.say_with("DEL", &green, &taken).ok();
    plugin.say("DEL", &podman()).ok();
    plugin.is_clean();
}

#[test]
fn a_container_that_came_back_as_another_jail() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    plugin.say_with("ADD", &[("CNI_NETNS", "green")], &podman()).ok();
    assert_eq!(plugin.published(), [WEB]);
    let list = cc::text(&plugin.kport(&["list"]).output().unwrap().stdout);
    assert!(list.contains("\ngreen ") && !list.contains("blue"), "{list}");
    plugin.say_with("DEL", &[("CNI_NETNS", "blue")], &podman()).ok();
    plugin.is_clean();
    // the jail with the name of the container, if CNI_NETNS names none
    plugin.say_with("ADD", &[("CNI_NETNS", "nowhere"), ("CNI_CONTAINERID", "green")], &podman()).ok();
    assert!(cc::text(&plugin.kport(&["list"]).output().unwrap().stdout).contains("\ngreen "));
    // the networks of an earlier start of the jail do not count
    let second = network("inside", "10.89.0.5/16", &[mapping(9090, 90)]);
    let green = [("CNI_NETNS", "green"), ("CNI_CONTAINERID", "green")];
    plugin.play(|host| host["jails"][1]["jid"] = json!(9));
    plugin.say_with("ADD", &green, &second).ok();
    assert_eq!(plugin.published(), ["tcp 9090 on * -> 10.89.0.5:90"]);
    plugin.say_with("DEL", &green, &second).ok();
    plugin.is_clean();
}

#[test]
fn gc_of_kport_takes_a_jail_that_is_gone() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    plugin.play(|host| host["jails"] = json!([]));
    cc::done(&mut plugin.kport(&["apply"]));
    assert_eq!(plugin.published(), [""; 0]);
    assert_eq!(plugin.say("CHECK", &podman()).error().0, 3);
    plugin.say("DEL", &podman()).ok();
    plugin.is_clean();
}

#[test]
fn after_a_reboot() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    // the state directory survived it, the rules in pf did not
    plugin.play(|host| host["boot_id"] = json!("second"));
    std::fs::remove_dir_all(plugin.state().join("sim")).unwrap();
    assert_eq!(plugin.say("CHECK", &podman()).error().0, 3);
    plugin.say_with("DEL", &[("CNI_NETNS", "")], &podman_bare("1.0.0")).ok();
    assert!(!plugin.state().join("cni/blue.json").exists());
    plugin.say("ADD", &podman()).ok();
    assert_eq!(plugin.published(), [WEB]);
}

#[test]
fn check_sees_what_is_missing() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    let other = [
        network("podman", "10.88.0.5/16", &[mapping(8081, 80)]),
        network("podman", "10.88.0.6/16", &[mapping(8080, 80)]),
        with(podman(), "log", json!(true)),
    ];
    for other in other {
        let (code, details) = plugin.say("CHECK", &other).error();
        assert!(code == 110 && details.contains("other ports, addresses or options"), "{details}");
    }
    // another program unpublished it
    cc::done(&mut plugin.kport(&["unpublish", "blue"]));
    assert_eq!(plugin.say("CHECK", &podman()).error().0, 110);
    plugin.say("ADD", &podman()).ok();
    plugin.say("CHECK", &podman()).ok();
    // a flush of the anchor
    std::fs::remove_dir_all(plugin.state().join("sim")).unwrap();
    let (code, details) = plugin.say("CHECK", &podman()).error();
    assert!(code == 110 && details.contains("kport apply"), "{details}");
    plugin.say("DEL", &podman()).ok();
    plugin.is_clean();
}

#[test]
fn status_reports_what_pf_lacks_and_which_ports_are_dead() {
    let plugin = Plugin::new();
    let status = podman_bare("1.1.0");
    plugin.say("ADD", &podman()).ok();
    let main = plugin.state().join("sim/main.conf");
    std::fs::write(&main, "pass all\n").unwrap();
    let (code, details) = plugin.say("STATUS", &status).error();
    assert_eq!(code, 51);
    assert!(details.contains("rdr-anchor \"kport\"") && details.contains("/etc/pf.conf"), "{details}");
    assert_eq!(plugin.say("STATUS", &with(status.clone(), "name", json!("other"))).error().0, 50);
    assert_eq!(plugin.say("CHECK", &podman()).error().0, 105);
    plugin.say("DEL", &podman()).ok();
    assert_eq!(plugin.say("STATUS", &status).error().0, 50);
    assert_eq!(plugin.say("ADD", &podman()).error().0, 105);
    plugin.say("ADD", &with(podman(), "allowInert", json!(true))).ok();
    plugin.say("DEL", &podman()).ok();
    std::fs::write(&main, "rdr-anchor \"kport\"\nanchor \"kport\"\n").unwrap();
    plugin.say("STATUS", &status).ok();
    // only what needs it requires it
    let hairpin = with(status.clone(), "hairpin", json!(true));
    assert!(plugin.say("STATUS", &hairpin).error().1.contains("nat-anchor"));
    std::fs::remove_file(&main).unwrap();
    plugin.play(|host| host["sysctls"]["net.pf.filter_local"] = json!(0));
    let access = with(status, "snat", json!(true));
    assert!(plugin.say("STATUS", &access).error().1.contains("net.pf.filter_local"));
}

#[test]
fn options_are_kports() {
    let plugin = Plugin::new();
    let options = json!({
        "reach": ["cni-podman0"], "hairpin": true, "hostAccess": true, "sources": ["192.0.2.0/24"],
        "limits": { "connections": 10, "connectionsPerSource": 5, "rate": "5/10" }, "log": true, "quick": false,
        "place": "em0", "timeout": 5, "stateDir": plugin.state(), "backend": "sim",
        "snat": true, "conditionsV4": [], "conditionsV6": null, "masqAll": false,
    });
    let mut config = podman();
    config.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    plugin.say("ADD", &config).ok();
    assert_eq!(plugin.published(), ["tcp 8080 on em0 -> 10.88.0.5:80"]);
    let rules = std::fs::read_to_string(plugin.state().join("jails/blue.json")).unwrap();
    let record: Value = serde_json::from_str(&rules).unwrap();
    let published = &record["publications"][0]["options"];
    assert_eq!(published["reach"], json!(["cni-podman0"]));
    assert_eq!((&published["hairpin"], &published["host_access"]), (&json!(true), &json!(true)));
    assert_eq!((&published["log"], &published["quick"]), (&json!(true), &json!(false)));
    assert_eq!(published["sources"], json!(["192.0.2.0/24"]));
    assert_eq!(published["limits"], json!({ "connections": 10, "connections_per_source": 5, "rate": "5/10" }));
    plugin.say("CHECK", &config).ok();
    plugin.say("DEL", &config).ok();
    plugin.is_clean();
}

#[test]
fn what_is_refused() {
    let plugin = Plugin::new();
    for (key, value, code, says) in [
        ("sorces", json!(["192.0.2.0/24"]), 2, "sorces is [\"192.0.2.0/24\"]: unknown to kport"),
        ("conditionsV4", json!(["-d", "192.0.2.1"]), 2, "conditionsV4 is [\"-d\",\"192.0.2.1\"]"),
        ("conditionsV6", json!(["! -s", "::1"]), 2, "conditionsV6"),
        ("masqAll", json!(true), 2, "masqAll is true"),
        ("markMasqBit", json!(13), 2, "markMasqBit is 13"),
        ("externalSetMarkChain", json!("X"), 2, "externalSetMarkChain"),
        ("backend", json!("iptables"), 2, "backend is \"iptables\"; there are auto"),
        ("snat", json!("yes"), 6, "snat is \"yes\""),
        ("sources", json!("192.0.2.1"), 6, "sources is"),
        ("sources", json!(["em0"]), 7, "sources: source \"em0\""),
        ("reach", json!(["em 0"]), 7, "reach: interface \"em 0\""),
        ("reach", json!([5]), 6, "reach is [5]"),
        ("limits", json!({ "rate": "5" }), 7, "rate"),
        ("limits", json!({ "connections": 0 }), 7, "limits.connections: \"0\" is not a number from 1"),
        ("limits", json!({ "most": 1 }), 2, "limits.most is 1"),
        ("place", json!("em0:80"), 7, "place: interface"),
        ("timeout", json!(-1), 7, "timeout"),
        ("timeout", json!("5"), 6, "timeout is \"5\""),
        ("stateDir", json!("relative"), 7, "absolute path"),
        ("runtimeConfig", json!([]), 6, "runtimeConfig"),
        ("runtimeConfig", json!({ "portMappings": {} }), 6, "portMappings"),
        ("runtimeConfig", json!({ "portMappings": [5] }), 6, "portMappings"),
        ("prevResult", Value::Null, 7, "prevResult is missing"),
        ("prevResult", json!("x"), 6, "prevResult"),
        ("prevResult", json!({ "ips": [ { "address": "10.88.0.5/99" } ] }), 6, "10.88.0.5/99"),
        ("prevResult", json!({ "ips": [] }), 7, "no address of interface eth0"),
        ("prevResult", json!({ "ips": [ { "address": "127.0.0.1/8" } ] }), 7, "loopback"),
        ("cniVersion", json!("9.9.9"), 1, "cniVersion \"9.9.9\"; kport supports 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
        ("cniVersion", json!("0.2.0"), 1, "kport supports"),
        ("cniVersion", json!(1), 6, "cniVersion is 1"),
        ("cniVersion", Value::Null, 1, "no cniVersion"),
        ("name", Value::Null, 7, "no name"),
        ("name", json!("a/b"), 7, "name \"a/b\""),
        ("name", json!(["a"]), 6, "name is"),
    ] {
        let (found, details) = plugin.say("ADD", &with(podman(), key, value)).error();
        assert_eq!(found, code, "{key}: {details}");
        assert!(details.contains(says) && details.lines().count() == 1, "{key}: {details}");
    }
    plugin.is_clean();
    // DEL works nevertheless
    plugin.say("ADD", &podman()).ok();
    plugin.say("DEL", &with(with(podman(), "sorces", json!([])), "backend", json!("nftables"))).ok();
    plugin.is_clean();
    // GC needs the list of valid attachments
    let (code, details) = plugin.say("GC", &podman_bare("1.1.0")).error();
    assert!(code == 7 && details.contains("cni.dev/valid-attachments"), "{details}");
    for odd in [json!({}), json!([{}]), json!([{ "containerID": 5 }]), json!("x")] {
        plugin.say("GC", &with(podman_bare("1.1.0"), "cni.dev/valid-attachments", odd)).error();
    }
}

#[test]
fn host_addresses() {
    let plugin = Plugin::new();
    let on = |address: &str| json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": address });
    let both = |address: &str| {
        let mut config = network("podman", "10.88.0.5/16", &[on(address)]);
        config["prevResult"]["ips"].as_array_mut().unwrap().push(json!({ "address": "fd00:88::5/64" }));
        config
    };
    let inet6 = "[fd00:88::5]:80";
    for (address, published) in [
        ("", vec![WEB.to_owned(), format!("tcp 8080 on * -> {inet6}")]),
        ("192.0.2.1", vec!["tcp 8080 on 192.0.2.1 -> 10.88.0.5:80".to_owned()]),
        ("2001:db8::1", vec![format!("tcp 8080 on [2001:db8::1] -> {inet6}")]),
        // every address of this family only
        ("0.0.0.0", vec!["tcp 8080 on 0.0.0.0 -> 10.88.0.5:80".to_owned()]),
        ("::", vec![format!("tcp 8080 on [::] -> {inet6}")]),
    ] {
        plugin.say("ADD", &both(address)).ok();
        assert_eq!(plugin.published(), published, "{address}");
        plugin.say("CHECK", &both(address)).ok();
    }
    plugin.say("DEL", &podman()).ok();
    for (address, says) in [
        ("fe80::1%em0", "zone"),
        ("fe80::1", "link-local"),
        ("169.254.0.1", "link-local"),
        ("127.0.0.1", "\"hostAccess\": true"),
        ("2001:db8::1", "has no IPv6 address"),
        ("::", "has no IPv6 address"),
        ("::ffff:192.0.2.1", "IPv4-mapped"),
        ("192.0.2.1; pass all", "not an IPv4 or IPv6 address"),
        ("em0", "not an IPv4 or IPv6 address"),
    ] {
        let (code, details) = plugin.say("ADD", &network("podman", "10.88.0.5/16", &[on(address)])).error();
        assert!(code == 7 && details.contains(says), "{address}: {code} {details}");
    }
    plugin.is_clean();
}

/// Remedies are fields of the plugin's configuration, and there is none for what the runtime decides.
#[test]
fn errors_are_in_the_words_of_the_plugin() {
    let plugin = Plugin::new();
    let at = |address: &str, host: u16| with(mapping(host, 80), "hostIP", json!(address));
    let udp = with(mapping(8080, 80), "protocol", json!("udp"));
    let limited = with(network("front", "10.88.0.5/16", &[udp]), "limits", json!({ "rate": "5/1" }));
    let of = |mapping: Value| network("front", "10.88.0.5/16", &[mapping]);
    for (network, says) in [
        (of(at("127.0.0.1", 8080)), r#"to let the host use it, give "hostAccess": true in the network configuration"#),
        (of(mapping(22, 22)), r#"to publish anyway, give "force": true in the network configuration"#),
        (of(at("203.0.113.99", 8080)), r#"give "force": true in the network configuration"#),
        (limited, r#"publish udp without "limits": { "rate""#),
        (of(at("::", 8080)), "has no IPv6 address"),
        (of(at("2001:db8::99", 8080)), "has no IPv6 address"),
    ] {
        let (_, details) = plugin.say("ADD", &network).error();
        assert!(details.contains(says), "{details}");
        for word in [" -a", "--"] {
            assert!(!details.contains(word), "{details}");
        }
    }
    assert_eq!(plugin.published(), [""; 0]);
}

/// As `portmap` of the CNI project does it.
#[test]
fn a_mapping_of_a_family_that_the_container_does_not_have_is_passed_over() {
    let plugin = Plugin::new();
    let at = |address: &str, host: u16| with(mapping(host, 80), "hostIP", json!(address));
    let both =
        network("front", "10.88.0.5/16", &[at("0.0.0.0", 8080), at("::", 8080), at("0.0.0.0", 8081), at("::", 8081)]);
    let answer = plugin.say("ADD", &both);
    let note = answer.stderr.clone();
    answer.ok();
    assert!(note.contains("tcp 8080 of [::] (and 1 more) is passed over: jail \"blue\" has no address"), "{note}");
    let lines = ["tcp 8080 on 0.0.0.0 -> 10.88.0.5:80", "tcp 8081 on 0.0.0.0 -> 10.88.0.5:80"];
    assert_eq!(plugin.published(), lines);
    plugin.say("CHECK", &both).ok();
    plugin.say("DEL", &both).ok();
    plugin.is_clean();
    // nothing else serves that port
    for alone in [&[at("::", 8080)][..], &[at("0.0.0.0", 8080), at("::", 9090)]] {
        let (code, details) = plugin.say("ADD", &network("front", "10.88.0.5/16", alone)).error();
        assert!(code == 7 && details.contains("has no IPv6 address"), "{code} {details}");
        plugin.is_clean();
    }
    // a container with both families has both
    let mut dual = network("front", "10.88.0.5/16", &[at("0.0.0.0", 8080), at("::", 8080)]);
    dual["prevResult"]["ips"].as_array_mut().unwrap().push(json!({ "address": "fd00:88::5/64" }));
    let answer = plugin.say("ADD", &dual);
    assert!(!answer.stderr.contains("passed over"), "{answer:?}");
    answer.ok();
    assert_eq!(plugin.published().len(), 2);
}

#[test]
fn the_place_of_every_mapping_is_no_news() {
    let plugin = Plugin::new();
    for network in
        [network("front", "10.88.0.5/16", &[mapping(8080, 80)]), network("front", "10.88.0.5/16", &[mapping(8081, 80)])]
    {
        let answer = plugin.say("ADD", &network);
        assert!(!answer.stderr.contains("takes what arrives"), "{answer:?}");
        answer.ok();
    }
    // doctor reports it, once
    let doctor = cc::text(&plugin.kport(&["doctor"]).output().unwrap().stdout);
    assert_eq!(doctor.matches("takes what arrives on any interface").count(), 1, "{doctor}");
}

#[test]
fn the_environment_is_checked() {
    let plugin = Plugin::new();
    for (command, variable, value) in [
        ("ADD", "CNI_CONTAINERID", ""),
        ("ADD", "CNI_CONTAINERID", "../x"),
        ("ADD", "CNI_NETNS", ""),
        ("ADD", "CNI_IFNAME", ""),
        ("ADD", "CNI_IFNAME", "e/0"),
        ("CHECK", "CNI_NETNS", "/"),
        ("DEL", "CNI_CONTAINERID", "a b"),
        ("DEL", "CNI_IFNAME", ""),
        ("", "CNI_COMMAND", ""),
        ("FLY", "CNI_COMMAND", "FLY"),
    ] {
        let (code, details) = plugin.say_with(command, &[(variable, value)], &podman()).error();
        assert!(code == 4 && details.contains(variable), "{command} {variable}: {code} {details}");
    }
    let (code, details) = feed(&mut plugin.kport(&["cni"]), b"").error();
    assert!(code == 4 && details.contains("a container runtime sets it"), "{details}");
    plugin.is_clean();
}

#[test]
fn broken_and_large_input() {
    let plugin = Plugin::new();
    let variables = [("CNI_CONTAINERID", "c0ffee"), ("CNI_NETNS", "blue"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/x")];
    let raw = |command: &str, input: &[u8]| feed(&mut plugin.command(command, &variables), input);
    let whole = podman().to_string().into_bytes();
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        for input in [
            &b""[..],
            b"{",
            b"null",
            b"5",
            b"[]",
            b"\"x\"",
            b"\xff\xfe",
            b"{\"name\":\"a\",}",
            &whole[..whole.len() - 1],
            &deep,
        ] {
            assert_eq!(raw(command, input).error().0, 6, "{command}");
        }
    }
    // a megabyte, with 20,000 mappings that are not consecutive
    let many: Vec<Value> = (0..20_000).map(|n| mapping(20_000 + 2 * n, 1 + n)).collect();
    let large = network("podman", "10.88.0.5/16", &many[..500]).to_string();
    raw("ADD", large.as_bytes()).ok();
    assert_eq!(plugin.published().len(), 500);
    let padded = with(podman(), "args", json!("x".repeat(1 << 20))).to_string();
    raw("ADD", padded.as_bytes()).ok();
    assert_eq!(plugin.published(), [WEB]);
    let large = network("podman", "10.88.0.5/16", &many).to_string();
    assert!(large.len() > 1 << 20);
    raw("DEL", large.as_bytes()).ok();
    plugin.is_clean();
    // a range is one rule, however long the list is
    let range: Vec<Value> = (0..20_000).map(|n| mapping(20_000 + n, 1 + n)).collect();
    raw("ADD", network("podman", "10.88.0.5/16", &range).to_string().as_bytes()).ok();
    assert_eq!(plugin.published(), ["tcp 20000-39999 on * -> 10.88.0.5:1-20000"]);
    raw("DEL", b" {\"cniVersion\":\"1.0.0\",\"name\":\"podman\"}\n").ok();
    plugin.is_clean();
    assert_eq!(raw("ADD", &vec![b' '; (16 << 20) + 1]).error().0, 6);
}

#[test]
fn killed_at_any_moment() {
    let plugin = Plugin::new();
    let config = podman().to_string();
    let variables = [("CNI_CONTAINERID", "c0ffee"), ("CNI_NETNS", "blue"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/x")];
    for round in 0..60 {
        let mut command = plugin.command(if round % 3 == 2 { "DEL" } else { "ADD" }, &variables);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        _ = child.stdin.take().unwrap().write_all(config.as_bytes());
        // at some point in its few milliseconds; which one does not matter
        std::thread::sleep(std::time::Duration::from_micros(100 * (round % 40)));
        child.kill().unwrap();
        child.wait().unwrap();
        match round % 4 {
            // what the runtime does next: it tries again, or gives up
            0 => {
                plugin.say("ADD", &podman()).ok();
                plugin.say("CHECK", &podman()).ok();
            }
            1 => {}
            _ => {
                plugin.say_with("DEL", &[("CNI_NETNS", "")], &podman_bare("1.0.0")).ok();
                assert_eq!(plugin.published(), [""; 0]);
            }
        }
    }
    plugin.say("DEL", &podman()).ok();
    assert_eq!(plugin.published(), [""; 0]);
    assert!(!plugin.state().join("cni/blue.json").exists());
}

#[test]
fn a_damaged_file_stops_nobody() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    let file = plugin.state().join("cni/blue.json");
    for damage in ["", "{", "[]", "{\"version\":1}"] {
        std::fs::write(&file, damage).unwrap();
        let answer = plugin.say("ADD", &podman());
        assert!(answer.stderr.contains("is not a file of kport"), "{answer:?}");
        answer.ok();
        assert_eq!(plugin.published(), [WEB]);
    }
    std::fs::write(&file, "{").unwrap();
    // it is another container's, whatever is wrong with it: nobody but that one may change it
    let green = [("CNI_NETNS", "green"), ("CNI_CONTAINERID", "beef")];
    let other = network("podman", "10.88.0.6/16", &[mapping(8081, 80)]);
    let gc = with(podman_bare("1.1.0"), "cni.dev/valid-attachments", json!([]));
    for (command, config) in
        [("ADD", &other), ("CHECK", &other), ("DEL", &other), ("GC", &gc), ("STATUS", &podman_bare("1.1.0"))]
    {
        plugin.say_with(command, &green, config).ok();
        assert_eq!((std::fs::read_to_string(&file).unwrap().as_str(), plugin.published()[0].as_str()), ("{", WEB));
    }
    plugin.say("DEL", &podman()).ok();
    plugin.is_clean();
}

/// What a newer kport has written is not damaged: it is refused, as a record is, and others work.
#[test]
fn a_file_of_another_version_is_refused() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    let file = plugin.state().join("cni/blue.json");
    let newer = r#"{"version":9,"jail":"blue"}"#;
    std::fs::write(&file, newer).unwrap();
    for command in ["ADD", "CHECK", "DEL"] {
        let (code, details) = plugin.say(command, &podman()).error();
        assert!(code == 108 && details.contains("supports only version 1"), "{command}: {code} {details}");
        assert_eq!(
            (std::fs::read_to_string(&file).unwrap().as_str(), plugin.published()),
            (newer, vec![WEB.to_owned()])
        );
    }
    let green = [("CNI_NETNS", "green"), ("CNI_CONTAINERID", "beef")];
    let other = network("podman", "10.88.0.6/16", &[mapping(8081, 80)]);
    for command in ["ADD", "CHECK", "DEL"] {
        let answer = plugin.say_with(command, &green, &other);
        assert!(answer.stderr.contains("of version 9"), "{answer:?}");
        answer.ok();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), newer);
}

/// The runtime creates the jail before its network, and keeps it as long as that.
#[test]
fn a_jail_that_is_not_there_has_no_network() {
    let plugin = Plugin::new();
    plugin.say("ADD", &podman()).ok();
    let nowhere = [("CNI_NETNS", "nowhere")];
    let (code, details) =
        plugin.say_with("ADD", &nowhere, &network("podman", "10.88.0.7/16", &[mapping(8081, 80)])).error();
    assert!(code == 3 && details.contains(r#"jail "nowhere" or jail "c0ffee" is not running"#), "{code} {details}");
    assert_eq!(plugin.published(), [WEB]);
    for (jails, says) in [
        (json!([]), r#"jail "blue" is not running"#),
        (json!([{ "jid": 7, "name": "blue", "vnet": true, "dying": true }]), r#"jail "blue" is not running"#),
        (json!([{ "jid": 9, "name": "blue", "vnet": true }]), r#"jail "blue" was started again"#),
    ] {
        plugin.play(|host| host["jails"] = jails);
        let (code, details) = plugin.say("CHECK", &podman()).error();
        assert!(code == 3 && details.contains(says), "{code} {details}");
    }
    plugin.say("DEL", &podman()).ok();
    plugin.is_clean();
}

#[test]
fn twenty_at_once() {
    let plugin = Plugin::new();
    plugin.play(|host| host["jails"] = (0..20).map(|n| json!({ "jid": n + 1, "name": format!("c{n}") })).collect());
    std::thread::scope(|scope| {
        for n in 0..20u16 {
            let plugin = &plugin;
            scope.spawn(move || {
                let (id, port) = (format!("c{n}"), 9000 + n);
                let own = [("CNI_CONTAINERID", id.as_str()), ("CNI_NETNS", id.as_str())];
                let config = network("podman", &format!("10.88.1.{n}/16"), &[mapping(port, 80)]);
                plugin.say_with("ADD", &own, &config).ok();
                plugin.say_with("CHECK", &own, &config).ok();
                if n % 2 == 0 {
                    plugin.say_with("DEL", &own, &config).ok();
                }
            });
        }
    });
    assert_eq!(plugin.published().len(), 10);
}

#[test]
fn the_sockets_of_the_containers_conmon_are_not_a_conflict() {
    let plugin = Plugin::new();
    let dns = json!({ "hostPort": 8053, "containerPort": 53, "protocol": "udp" });
    let config = network("podman", "10.88.0.5/16", &[dns]);
    let hold = |holders: &[(i32, &str)]| {
        let holders: Vec<Value> = holders
            .iter()
            .map(|(jid, line)| json!({ "pid": 7, "jid": jid, "arguments": line.split(' ').collect::<Vec<_>>() }))
            .collect();
        plugin.play(|host| {
            let inet = json!({ "inet": true, "inet6": false });
            host["listeners"] = json!([ { "protocol": "udp", "families": inet, "port": 8053 } ]);
            host["udp_holders"] = json!({ "8053": holders });
        });
    };
    let conmon = (0, "/usr/local/bin/conmon --api-version 1 -c c0ffee -u c0ffee");
    for other in [
        (0, "/usr/sbin/named -c c0ffee"),
        (0, "conmon -c deadbeef -u c0ffee"),
        (0, "conmon c0ffee"),
        (3, "conmon -c c0ffee"),
        (0, ""),
    ] {
        for holders in [&[other][..], &[conmon, other]] {
            hold(holders);
            assert_eq!(plugin.say("ADD", &config).error().0, 103, "{holders:?}");
        }
    }
    // the process is unknown
    hold(&[]);
    assert_eq!(plugin.say("ADD", &config).error().0, 103);
    hold(&[conmon, (0, "conmon --cid c0ffee")]);
    // the sockets of other ports, and of tcp, stay
    let listeners = |protocol: &str, port: u16| json!({ "protocol": protocol, "families": { "inet": true, "inet6": false }, "port": port });
    plugin.play(|host| {
        host["listeners"] = json!([listeners("udp", 8053), listeners("tcp", 8053), listeners("udp", 8054)]);
        host["udp_holders"] = json!({ "8053": [{ "pid": 7, "arguments": ["conmon", "-c", "c0ffee"] }] });
    });
    for taken in [mapping(8053, 53), json!({ "hostPort": 8054, "containerPort": 53, "protocol": "udp" })] {
        let dns = json!({ "hostPort": 8053, "containerPort": 53, "protocol": "udp" });
        let config = network("podman", "10.88.0.5/16", &[dns, taken]);
        assert_eq!(plugin.say("ADD", &config).error().0, 103);
    }
    hold(&[conmon, (0, "conmon --cid c0ffee")]);
    plugin.say("ADD", &config).ok();
    plugin.say("CHECK", &config).ok();
    plugin.say("DEL", &config).ok();
    plugin.is_clean();
}

/// The same with what this host reports: a process named conmon, with the sockets that podman passes to it.
#[cfg(target_os = "linux")]
#[test]
fn the_system_reports_who_has_a_socket() {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;

    use kport::host::{Host, System};

    let plugin = Plugin::new();
    // not a port that the system chooses for clients
    let udp = (21000..22000).find_map(|port| UdpSocket::bind(("0.0.0.0", port)).ok()).unwrap();
    let udp_port = udp.local_addr().unwrap().port();
    // bound and not listening, as podman does it
    let tcp = {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
        use std::os::fd::AsRawFd;
        let tcp = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(tcp.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let port = getsockname::<SockaddrIn>(tcp.as_raw_fd()).unwrap().port();
        (tcp, port)
    };
    let config = network(
        "podman",
        "10.88.0.5/16",
        &[mapping(tcp.1, 80), json!({ "hostPort": udp_port, "containerPort": 53, "protocol": "udp" })],
    );
    let say_with = |command: &str, config: &Value| {
        plugin.play(|host| {
            host["listeners"] = json!(System.listeners().unwrap());
            host["udp_holders"] = json!({ udp_port.to_string(): System.udp_holders(udp_port).unwrap() });
        });
        plugin.say(command, config)
    };
    let say = |command: &str| say_with(command, &config);
    // at this point the sockets are this program's
    let (code, details) = say("ADD").error();
    assert!(code == 103 && details.contains(&format!("udp port {udp_port}")), "{details}");
    let mut conmon = Command::new("sh");
    conmon.arg0("/usr/bin/conmon").args(["-c", "read line", "-c", "c0ffee"]).stdin(Stdio::piped());
    conmon.stdout(Stdio::from(OwnedFd::from(udp))).stderr(Stdio::from(tcp.0));
    let mut child = conmon.spawn().unwrap();
    // its copies of the sockets are closed with it; a child of another test may have some until it runs its own program
    drop(conmon);
    let mut answer = say("ADD");
    for _ in 0..50 {
        if answer.good {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        answer = say("ADD");
    }
    answer.ok();
    // a listening socket is a conflict in any program
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let taken = network("podman", "10.88.0.5/16", &[mapping(port, 80)]);
    assert_eq!(say_with("ADD", &taken).error().0, 103);
    say("DEL").ok();
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn by_the_name_of_the_program() {
    let plugin = Plugin::new();
    for name in ["portmap", "kport-cni"] {
        let program = plugin.dir.path().join(name);
        symlink(env!("CARGO_BIN_EXE_kport"), &program).unwrap();
        let mut command = Command::new(&program);
        command.env_clear().env("CNI_COMMAND", "VERSION");
        assert_eq!(feed(&mut command, b"").ok().unwrap()["supportedVersions"][3], "1.1.0");
    }
    let other = plugin.dir.path().join("bridge");
    symlink(env!("CARGO_BIN_EXE_kport"), &other).unwrap();
    let output = feed_raw(Command::new(&other).env_clear().env("CNI_COMMAND", "VERSION"), b"");
    assert_eq!(output.status.code(), Some(64));
}
