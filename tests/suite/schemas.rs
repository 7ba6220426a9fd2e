//! The JSON documents that users read, and the files that a later kport reads, are as schema/ says. A field that a schema does not
//! name is a mistake here, and so is one that is never seen: a document changes together with its schema.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::schema::{self, Schema};
use crate::support::{cc, rig};
use kport::host::Fixed;
use kport::store::Record;
use kport::watch::{Report, What};
use serde_json::{Value, json};

/// A state directory of the simulator, and a host.
struct Kport {
    dir: tempfile::TempDir,
    host: Value,
}

impl Kport {
    fn new() -> Kport {
        let host = json!({
            "gateway": { "inet": "em0", "inet6": "em0" },
            "interfaces": [
                { "name": "em0", "up": true, "addresses": ["192.0.2.1/24", "2001:db8::1/64"] },
                { "name": "bridge0", "groups": ["bridge"], "up": true, "addresses": ["10.0.0.1/24", "fd00::1/64"] },
                { "name": "lo0", "groups": ["lo"], "up": true, "addresses": ["127.0.0.1/8", "::1/128"] }
            ],
            "jails": [
                { "jid": 2, "name": "web", "vnet": true },
                { "jid": 3, "name": "db", "vnet": true },
                { "jid": 4, "name": "gone", "vnet": true }
            ],
            "vnet_addresses": { "web": ["10.0.0.2", "fd00::2"], "db": ["10.0.0.3"], "gone": ["10.0.0.4"] },
            "listeners": [{ "protocol": "tcp", "families": { "inet": true }, "port": 22 }],
            "sysctls": { "net.inet.ip.forwarding": 1, "net.inet6.ip6.forwarding": 1 },
            "boot_id": "first"
        });
        Kport { dir: tempfile::tempdir().unwrap(), host }
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    fn main_ruleset(&self, text: &str) {
        fs::create_dir_all(self.state().join("sim")).unwrap();
        fs::write(self.state().join("sim/main.conf"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> String {
        let host = self.dir.path().join("host.json");
        fs::write(&host, self.host.to_string()).unwrap();
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().env("KPORT_STATE_DIR", self.state()).args(["--backend", "sim", "--host"]).arg(host);
        kport.arg("--config").arg(self.dir.path().join("kport.conf"));
        let output = kport.args(arguments).output().unwrap();
        // a packet that is lost and a problem that is found are results, too
        let finds = matches!(arguments[0], "trace" | "doctor") && matches!(output.status.code(), Some(5 | 8));
        assert!(output.status.success() || finds, "{arguments:?}: {}", cc::text(&output.stderr));
        cc::text(&output.stdout)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let out = self.run(arguments);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    }
}

/// Each value of `enum`, each alternative and each field was seen, but for these.
#[track_caller]
fn all_was_met(schema: &Schema, but: &[&str]) {
    assert_eq!(schema.unmet(), but);
}

#[test]
fn each_document_has_a_schema() {
    let names = schema::names();
    assert_eq!(names, ["doctor", "host", "list", "outcome", "parse", "record", "trace", "watch"]);
    let page = fs::read_to_string(cc::root().join("docs/what-stays.md")).unwrap();
    for name in names {
        assert!(page.contains(&format!("(../schema/{name}.json)")), "docs/what-stays.md does not link {name}.json");
    }
}

#[test]
fn parse() {
    let (schema, kport) = (Schema::new("parse"), Kport::new());
    for specs in ["8080:80 auto:81/udp [2001:db8::1]:53:53/tcp,udp", "em0:8000-8010:9000", "*:80:80/sctp"] {
        let specs: Vec<&str> = specs.split(' ').collect();
        schema.holds_for(&kport.json(&[&["parse", "--json"][..], &specs].concat()));
    }
    all_was_met(&schema, &[]);
}

#[test]
fn list() {
    let (schema, mut kport) = (Schema::new("list"), Kport::new());
    let list = |kport: &Kport| {
        let list = kport.json(&["list", "--json"]);
        schema.holds_for(&list);
        list
    };
    assert_eq!(list(&kport)["jails"], json!([]));
    kport.run(&["publish", "web", "8080-8081:80/tcp,udp", "9899/sctp"]);
    kport.run(&["publish", "db", "--af-to", "5432"]);
    kport.run(&["publish", "--no-jail", "guest", "-a", "10.0.0.9", "7000"]);
    assert_eq!(list(&kport)["jails"][0]["state"], "live");
    // without its rules, without its record
    fs::remove_file(kport.state().join("sim/web.json")).unwrap();
    fs::remove_file(kport.state().join("jails/db.json")).unwrap();
    let states: Vec<Value> =
        list(&kport)["jails"].as_array().unwrap().iter().map(|jail| jail["state"].clone()).collect();
    assert_eq!(states, ["stale", "live", "missing"]);
    kport.main_ruleset("pass all\n");
    assert_eq!(list(&kport)["jails"][1]["state"], "inert");
    kport.host["boot_id"] = json!("second");
    list(&kport);
    all_was_met(&schema, &[]);
}

#[test]
fn outcome() {
    let (schema, mut kport) = (Schema::new("outcome"), Kport::new());
    let publish = |kport: &Kport, words: &[&str]| {
        let document = kport.json(&[&["publish", "--json"], words].concat());
        schema.holds_for(&document);
        document
    };
    assert_eq!(publish(&kport, &["web", "*:8080:80/tcp,udp", "9899/sctp"])["changed"], true);
    assert_eq!(publish(&kport, &["web", "*:8080:80/tcp,udp", "9899/sctp"])["changed"], false);
    assert_ne!(publish(&kport, &["db", "*:5432:5432"])["notes"], json!([]));
    publish(&kport, &["gone", "auto:80"]);
    fs::write(kport.dir.path().join("kport.conf"), "db 5433:5432\n").unwrap();
    kport.host["jails"].as_array_mut().unwrap().pop();
    let document = kport.json(&["apply", "--json"]);
    schema.holds_for(&document);
    assert_eq!(document["changed"], true);
    all_was_met(&schema, &[]);
}

#[test]
fn watch() {
    // what the program prints is compared in watch.rs
    let schema = Schema::new("watch");
    let redirects = {
        let rig = rig::Rig::new();
        rig.publish(&rig::request("web", "8080:80")).unwrap().redirects
    };
    for what in What::ALL {
        let mut report = Report::new(what);
        schema.holds_for(&serde_json::from_str(&report.json()).unwrap());
        report.jail = Some("web".parse().unwrap());
        (report.before, report.after) = (redirects.clone(), redirects.clone());
        (report.notes, report.error) = (vec!["a note\u{202e}".to_owned()], Some("an error".to_owned()));
        schema.holds_for(&serde_json::from_str(&report.json()).unwrap());
    }
    all_was_met(&schema, &[]);
}

#[test]
fn doctor() {
    let (schema, mut kport) = (Schema::new("doctor"), Kport::new());
    let doctor = |kport: &Kport| {
        let document = kport.json(&["doctor", "--json"]);
        schema.holds_for(&document);
        document["healthy"].as_bool().unwrap()
    };
    kport.run(&["publish", "web", "8080:80"]);
    assert!(doctor(&kport));
    kport.main_ruleset("nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\nanchor \"kport/*\"\npass all\n");
    doctor(&kport);
    kport.host["sysctls"]["net.inet.ip.forwarding"] = json!(0);
    assert!(!doctor(&kport));
    all_was_met(&schema, &[]);
}

#[test]
fn trace() {
    let (schema, mut kport) = (Schema::new("trace"), Kport::new());
    kport.run(&["publish", "web", "8080:80/tcp,udp", "9899/sctp"]);
    let trace = |kport: &Kport, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let document = kport.json(&[&["trace", "--json"], &words[..]].concat());
        schema.holds_for(&document);
        document["verdict"].as_str().unwrap().to_owned()
    };
    for (words, verdict) in [
        ("tcp 192.0.2.100 192.0.2.1:8080", "answered"),
        ("--release 14 udp 192.0.2.100 192.0.2.1:8080", "answered"),
        ("sctp 2001:db8::7 [2001:db8::1]:9899", "answered"),
        ("tcp 192.0.2.100 192.0.2.1:8081", "lost"),
        ("tcp db 10.0.0.2:80", "answered"),
        ("icmp db 10.0.0.2", "answered"),
        ("icmp6 web 2001:db8::1", "answered"),
        ("--icmp-type unreach icmp db 10.0.0.2", "delivered"),
    ] {
        assert_eq!(trace(&kport, words), verdict, "{words}");
    }
    let calls = "nat-anchor kport\nrdr-anchor kport\n";
    kport.main_ruleset(&format!("{calls}pass all\nanchor kport\n"));
    assert_eq!(trace(&kport, "tcp 192.0.2.100 192.0.2.1:22"), "answered");
    assert_eq!(trace(&kport, "tcp 192.0.2.100 192.0.2.1:23"), "refused");
    kport.main_ruleset(&format!(
        "set skip on lo\n{calls}pass in on em0\nblock in on em0 probability 10%\nanchor kport\n"
    ));
    assert_eq!(trace(&kport, "tcp 192.0.2.100 192.0.2.1:22"), "depends");
    kport.main_ruleset(&format!("{calls}pass in on em0 no state\nblock out on em0\nanchor kport\n"));
    assert_eq!(trace(&kport, "tcp 192.0.2.100 192.0.2.1:22"), "unanswered");
    kport.host["sysctls"]["net.pf.default_to_drop"] = json!(1);
    kport.main_ruleset("set skip on lo\n");
    assert_eq!(trace(&kport, "tcp 192.0.2.100 192.0.2.1:22"), "lost");
    trace(&kport, "tcp 127.0.0.1 127.0.0.1:22");
    all_was_met(&schema, &[]);
}

/// Something of each type that a schema describes, with every field.
fn made(schema: &Value, root: &Value) -> Value {
    if let Some(target) = schema.get("$ref") {
        return made(root.pointer(&target.as_str().unwrap()[1..]).unwrap(), root);
    }
    if let Some(one) = schema.get("enum") {
        return one[0].clone();
    }
    let of_type = match &schema["type"] {
        Value::Array(all) => &all[0],
        one => one,
    };
    match of_type.as_str().unwrap() {
        "object" => match (schema.get("properties"), schema.get("additionalProperties")) {
            (Some(all), _) => {
                all.as_object().unwrap().iter().map(|(name, one)| (name.clone(), made(one, root))).collect()
            }
            (None, Some(one)) => json!({ "7": made(one, root) }),
            (None, None) => panic!("{schema}"),
        },
        "array" => json!([made(&schema["items"], root)]),
        "integer" => json!(7),
        "boolean" => json!(true),
        _ => json!(match schema["description"].as_str().unwrap_or_default() {
            "A name of ifconfig(8)" => "em0",
            "192.0.2.1/24" => "192.0.2.1/24",
            _ => "192.0.2.7",
        }),
    }
}

#[test]
fn host() {
    let schema = Schema::new("host");
    let text = fs::read_to_string(cc::root().join("schema/host.json")).unwrap();
    let root: Value = serde_json::from_str(&text).unwrap();
    // kport reads each field of the schema, and writes no other
    let host = made(&root, &root);
    schema.holds_for(&host);
    let read: Fixed = host.to_string().parse().unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), host);
    schema.holds_for(&serde_json::to_value(Fixed::default()).unwrap());
    let mut files = vec!["examples/host.json".to_owned(), "tests/trace/host.json".to_owned()];
    files.extend(super::upgrade::VERSIONS.map(|version| format!("tests/upgrade/{version}/host.json")));
    for folder in ["tests/topologies", "tests/uplinks"] {
        let all = rig::files(&cc::root().join(folder));
        files.extend(all.into_iter().filter(|file| file.ends_with(".json")).map(|file| format!("{folder}/{file}")));
    }
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let text = fs::read_to_string(cc::root().join(&file)).unwrap();
        schema.holds_for(&serde_json::from_str(&text).unwrap());
        assert!(text.parse::<Fixed>().is_ok(), "{file}");
    }
    all_was_met(&schema, &["/$defs/listener/properties/protocol/enum/1", "/$defs/listener/properties/protocol/enum/2"]);
    // a word that is no field is a mistake for both
    let odd = json!({ "interface": [] });
    assert!(!schema.is_of(&odd) && odd.to_string().parse::<Fixed>().is_err());
}

/// Every record in a state directory.
fn records(dir: &Path) -> Vec<Value> {
    let files = fs::read_dir(dir.join("jails")).unwrap().map(|file| file.unwrap().path());
    files.map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

#[test]
fn record() {
    let (schema, mut kport) = (Schema::new("record"), Kport::new());
    kport.host["gateways"] = json!([{ "interface": "em0", "address": "192.0.2.254", "default": true },
        { "interface": "em1", "address": "198.51.100.254" }, { "interface": "wg0", "address": "0.0.0.0", "fib": 1, "default": true }]);
    let interfaces = kport.host["interfaces"].as_array_mut().unwrap();
    interfaces.push(json!({ "name": "em1", "up": true, "addresses": ["198.51.100.1/24"] }));
    interfaces
        .push(json!({ "name": "wg0", "up": true, "addresses": ["10.99.0.2/24"], "point_to_point": true, "fib": 1 }));
    // no router is known there
    interfaces.push(json!({ "name": "em2", "up": true, "addresses": ["203.0.113.1/24"], "fib": 2 }));
    kport.host["jails"][0]["path"] = json!("/jails/web");
    kport.run(&["publish", "web", "em1:8080:80", "wg0:8080:80", "em2:8080:80", "9000-9001:80/udp", "9899/sctp"]);
    let options = "--reach bridge0 --hairpin --host-access --masquerade --log --no-quick --sources 192.0.2.0/24 --rate 15/5 \
        --max-connections 10 --max-connections-per-source 5 --family inet --reply-to 198.51.100.254 --trust 10.0.0.0/24 \
        --gateway em0 --auto-range 50000-50010 --force --allow-inert -a 10.0.0.3";
    let options: Vec<&str> = options.split_whitespace().collect();
    kport.host["sysctls"]["net.pf.filter_local"] = json!(1);
    kport.run(&[&["publish", "db", "em1:5432:5432", "em1:auto:80"], &options[..]].concat());
    fs::write(kport.dir.path().join("kport.conf"), "gone --af-to auto:80\nsix --family inet,inet6 6000\n").unwrap();
    kport.host["jails"].as_array_mut().unwrap().push(json!({ "jid": 5, "name": "six", "vnet": true }));
    kport.host["vnet_addresses"]["six"] = json!(["10.0.0.6", "fd00::6"]);
    kport.run(&["apply", "gone", "six"]);
    for record in records(&kport.state()) {
        schema.holds_for(&record);
        let read: Record = serde_json::from_value(record.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), record);
    }
    for version in super::upgrade::VERSIONS {
        let state = super::upgrade::state(version);
        records(state.path()).iter().for_each(|record| schema.holds_for(record));
    }
    all_was_met(&schema, &[]);
}
