//! The plugin as a function: many documents, and any document.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use kport::container::cni::code::{CODES, Code};
use kport::container::{Overrides, Program, cni};
use kport::error::{Kind, Result, Setting};
use kport::host::Fixed;
use kport::managers::Environment;
use kport::publisher::{Observer, Outcome, Unobserved};
use kport::session::{Backend, Session, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A program on a host of its own, with the simulator, whatever the document says about these.
struct Stage {
    dir: tempfile::TempDir,
    /// The overrides of the last document.
    overrides: Cell<Overrides>,
    notes: RefCell<Vec<String>>,
}

impl Stage {
    fn new() -> Stage {
        Stage { dir: tempfile::tempdir().unwrap(), overrides: Cell::default(), notes: RefCell::default() }
    }

    /// A file of the state directory.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("state").join(name)
    }

    /// Protocol, host port and place, jail port and address of each redirect.
    fn published(&self) -> Vec<String> {
        let session = self.session(Overrides::default()).unwrap();
        let listed = session.publisher(&Unobserved).unwrap().list(None).unwrap();
        let redirects = listed.iter().flat_map(|jail| &jail.redirects);
        redirects.map(|(r, _)| format!("{} {} of {} -> {} {}", r.protocol, r.host, r.place, r.target, r.jail)).collect()
    }

    /// `command` for interface eth0 of container c0ffee in jail blue.
    fn run(&self, command: &str, document: &Value) -> std::result::Result<Option<Value>, Value> {
        self.run_with(command, &[], document.to_string().as_bytes())
    }

    fn run_with(
        &self, command: &str, variables: &[(&str, &str)], input: &[u8],
    ) -> std::result::Result<Option<Value>, Value> {
        let usual = [("CNI_CONTAINERID", "c0ffee"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/var/run/netns/blue")];
        let mut all: BTreeMap<&str, &str> = usual.into_iter().chain([("CNI_COMMAND", command)]).collect();
        all.extend(variables.iter().copied());
        let variable = |name: &str| all.get(name).map(|value| (*value).to_owned());
        cni::answer(&Environment(&variable), &|_| Ok(input.to_vec()), self)
    }

    /// The code and the details of an `ADD` that fails.
    #[track_caller]
    fn refuses(&self, document: &Value) -> (u64, String) {
        let error = self.run("ADD", document).unwrap_err();
        (error["code"].as_u64().unwrap(), error["details"].as_str().unwrap().to_owned())
    }
}

impl Program for Stage {
    fn session(&self, overrides: Overrides) -> Result<Session> {
        self.overrides.set(overrides);
        let host: Fixed = r#"{
            "gateway": { "inet": "em0" },
            "interfaces": [
                { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
                { "name": "bridge0", "groups": [ "bridge" ], "up": true, "addresses": [ "10.88.0.1/16", "fd00::1/64" ] }
            ],
            "jails": [ { "jid": 7, "name": "blue", "vnet": true } ],
            "vnet_addresses": { "blue": [ "10.88.0.5" ] },
            "sysctls": { "net.inet.ip.forwarding": 1, "net.inet6.ip6.forwarding": 1 },
            "boot_id": "first"
        }"#
        .parse()?;
        let state_dir = Some(self.file(""));
        Session::new(&Settings { backend: Backend::Sim, state_dir, ..Settings::default() }, Box::new(host))
    }

    fn observer(&self) -> &dyn Observer {
        &Unobserved
    }

    fn report(&self, _: &Session, outcome: &Outcome) {
        self.notes.borrow_mut().extend(outcome.notes.iter().cloned());
    }
}

/// A document with every field that kport reads.
fn whole() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "podman", "type": "portmap", "backend": "sim", "stateDir": "/x", "timeout": 5,
        "reach": ["bridge"], "sources": ["192.0.2.0/24"], "hairpin": true, "hostAccess": false, "snat": true,
        "limits": { "connections": 1, "connectionsPerSource": 2, "rate": "5/10" }, "log": false, "quick": true,
        "place": "em0", "force": false, "allowInert": false, "conditionsV4": [], "args": { "x": [1] },
        "runtimeConfig": { "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1" }
        ] },
        "cni.dev/valid-attachments": [ { "containerID": "a", "ifname": "eth0" } ],
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [ { "name": "eth0", "sandbox": "blue" } ],
            "ips": [ { "address": "10.88.0.5/16", "interface": 0, "version": "4" } ],
        },
    })
}

/// A short document, with these mappings.
fn mapped(mappings: Value) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "podman", "runtimeConfig": { "portMappings": mappings },
        "prevResult": { "cniVersion": "1.0.0", "ips": [ { "address": "10.88.0.5/16" } ] },
    })
}

#[test]
fn the_whole_document_is_good() {
    let stage = Stage::new();
    assert_eq!(stage.run("ADD", &whole()), Ok(Some(whole()["prevResult"].clone())));
    let overrides = stage.overrides.take();
    assert_eq!((overrides.state_dir, overrides.timeout), (Some("/x".into()), Some(Duration::from_secs(5))));
    assert_eq!(stage.published(), ["tcp 8080 of 192.0.2.1 -> 10.88.0.5 80"]);
    for command in ["CHECK", "STATUS", "GC", "DEL"] {
        assert_eq!(stage.run(command, &whole()), Ok(None), "{command}");
    }
    assert_eq!(stage.published(), [""; 0]);
}

#[test]
fn a_damaged_document_is_reported_and_removed() {
    let stage = Stage::new();
    stage.run("ADD", &whole()).unwrap();
    let file = stage.file("cni/blue.json");
    std::fs::write(&file, "{").unwrap();
    assert_eq!(stage.run("DEL", &whole()), Ok(None));
    let notes = stage.notes.take();
    assert!(notes.iter().any(|note| note.starts_with(&file.display().to_string())), "{notes:?}");
    assert!(!file.exists());
}

#[test]
fn an_error_has_the_version_of_the_question_and_reaches_no_session() {
    let stage = Stage::new();
    for (command, key, value, version, code) in [
        ("ADD", "sorces", json!([]), "1.1.0", 2),
        ("ADD", "cniVersion", json!("9.9.9"), "1.1.0", 1),
        ("CHECK", "cniVersion", json!("0.3.1"), "0.3.1", 1),
        ("GC", "cniVersion", json!("1.0.0"), "1.0.0", 1),
        ("ADD", "prevResult", json!(null), "1.1.0", 7),
        ("NONE", "log", json!(true), "1.1.0", 4),
    ] {
        let mut document = whole();
        document[key] = value;
        let error = stage.run(command, &document).unwrap_err();
        assert_eq!((&error["cniVersion"], &error["code"]), (&json!(version), &json!(code)), "{error}");
    }
    assert_eq!(stage.overrides.take(), Overrides::default());
}

#[test]
fn the_manual_has_each_option() {
    let page = include_str!("../../../man/kport-cni.8");
    let (_, options) = page.split_once("\n.Ss Options\n").unwrap();
    let (options, _) = options.split_once("\n.El\n").unwrap();
    let described: Vec<&str> = options.split_whitespace().collect();
    let mut document = whole();
    document["sorces"] = json!([]);
    let (_, details) = Stage::new().refuses(&document);
    let (_, keys) = details.split_once("whose options are ").unwrap();
    let keys: Vec<&str> = keys.split(", ").chain(["snat"]).collect();
    assert!(keys.len() > 15, "{details}");
    for key in keys {
        assert!(key.split('.').all(|word| described.contains(&word)), "kport-cni(8) does not describe {key}");
    }
}

#[test]
fn the_field_of_a_remedy_is_one_that_is_read() {
    let words =
        [("...\"", "/x\""), ("[...]", "[\"inet\"]"), ("...", "\"15/5\""), ("SECONDS", "7"), ("ROUTER", "192.0.2.254")];
    let fields: Vec<&str> = Setting::ALL.into_iter().filter_map(Setting::in_cni).collect();
    assert_eq!(fields.len(), 8);
    for field in fields {
        let field = words.iter().fold(field.to_owned(), |field, (word, value)| field.replace(word, value));
        let document = format!(r#"{{ "cniVersion": "1.1.0", "name": "podman", {field} }}"#);
        if let Err(error) = Stage::new().run("STATUS", &serde_json::from_str(&document).unwrap()) {
            // it was read: pf of this host is not ready for it
            assert_eq!(error["code"], 50, "{field}: {error}");
        }
    }
}

/// The table of kport-cni(8).
#[test]
fn the_manual_has_each_code() {
    let page = include_str!("../../../man/kport-cni.8");
    let table = page.split("\n.\\\" code table").nth(1).unwrap().split("\n.El").next().unwrap();
    let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(rows, CODES.map(|(code, text)| format!("{} Ta {text}", code as u16)));
    assert!(CODES.is_sorted_by_key(|(code, _)| *code as u16));
    for kind in Kind::ALL {
        let code = Code::from(kind) as i32;
        assert!(code < 100 || code == 999 || code == 100 + kind.number(), "{kind:?}: {code}");
    }
}

#[test]
fn a_place_is_not_a_word_of_another_tool() {
    for (place, says) in [
        ("tcp", "a protocol"),
        ("localhost", "write 127.0.0.1"),
        ("any", "write *"),
        ("egress", "that of the default route"),
        ("em 0", "a name is a letter"),
    ] {
        let mut document = whole();
        document["place"] = json!(place);
        let (code, details) = Stage::new().refuses(&document);
        assert!(code == 7 && details.contains(says), "{code} {details}");
    }
}

#[test]
fn the_variables_are_checked() {
    let stage = Stage::new();
    let refused = |variable: &str, value: &str| {
        let error = stage.run_with("ADD", &[(variable, value)], whole().to_string().as_bytes()).unwrap_err();
        (error["code"].as_u64().unwrap(), error["details"].as_str().unwrap().to_owned())
    };
    for (variable, value) in [
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "-x"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", "a\n"),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "eth0/1"),
        ("CNI_IFNAME", "eth0:1"),
        ("CNI_IFNAME", "sixteencharacter"),
        ("CNI_NETNS", "/"),
        ("CNI_NETNS", "a\nb"),
        ("CNI_NETNS", &"x".repeat(256)),
        ("CNI_COMMAND", ""),
    ] {
        let (code, details) = refused(variable, value);
        assert!(code == 4 && details.starts_with(variable), "{variable} {value:?}: {code} {details}");
    }
    assert!(refused("CNI_COMMAND", "add").1.contains("\"add\"; there are ADD, DEL"));
    // the jail is the last part of a path; without it the container is
    for (path, name) in [("web", "web"), ("/var/run/netns/green", "green"), ("/run/x/", "x"), ("a.b", "a.b")] {
        let (code, details) = refused("CNI_NETNS", path);
        assert_eq!((code, details), (3, format!("jail \"{name}\" or jail \"c0ffee\" is not running")));
    }
    stage.run_with("ADD", &[("CNI_CONTAINERID", "1f-0.b_c")], whole().to_string().as_bytes()).unwrap();
}

#[test]
fn entries_of_the_port_mappings() {
    for (json, says) in [
        (
            r#"{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":"192.0.2.1","extra":1}"#,
            "tcp 8080 of 192.0.2.1",
        ),
        (r#"{"hostPort":53,"containerPort":80,"protocol":"udp","hostIP":""}"#, "udp 53 of em0"),
    ] {
        let stage = Stage::new();
        let mut document = mapped(json!([serde_json::from_str::<Value>(json).unwrap()]));
        document["place"] = json!("em0");
        stage.run("ADD", &document).unwrap();
        assert_eq!(stage.published(), [format!("{says} -> 10.88.0.5 80")]);
    }
    for (json, code, says) in [
        (r#"{"containerPort":80}"#, 7, "hostPort is 0"),
        (r#"{"hostPort":65536,"containerPort":80}"#, 7, "65536"),
        (r#"{"hostPort":-1,"containerPort":80}"#, 7, "-1"),
        (r#"{"hostPort":"80","containerPort":80}"#, 6, "hostPort is \"80\""),
        (r#"{"hostPort":80.5,"containerPort":80}"#, 6, "80.5"),
        (r#"{"hostPort":80,"containerPort":80,"protocol":"icmp"}"#, 7, "tcp, udp, sctp"),
        (r#"{"hostPort":80,"containerPort":80,"hostIP":"224.0.0.1"}"#, 7, "multicast"),
    ] {
        let (found, details) = Stage::new().refuses(&mapped(json!([serde_json::from_str::<Value>(json).unwrap()])));
        assert!(found == code && details.contains(says), "{json}: {found} {details}");
    }
}

#[test]
fn ports_in_a_row_are_one_range() {
    let port =
        |protocol: &str, host: u16, jail: u16| json!({ "hostPort": host, "containerPort": jail, "protocol": protocol });
    let mut list: Vec<Value> = (8000..=8010).map(|p| port("tcp", p, p + 1000)).collect();
    list.extend([port("tcp", 8011, 80), port("udp", 8012, 81), port("tcp", 65535, 65535)]);
    let stage = Stage::new();
    stage.run("ADD", &mapped(json!(list))).unwrap();
    let lines = [
        "tcp 8000-8010 of * -> 10.88.0.5 9000-9010",
        "tcp 8011 of * -> 10.88.0.5 80",
        "tcp 65535 of * -> 10.88.0.5 65535",
        "udp 8012 of * -> 10.88.0.5 81",
    ];
    assert_eq!(stage.published(), lines);
    let every: Vec<Value> = (1..=65535).map(|p| port("udp", p, p)).collect();
    stage.run("ADD", &mapped(json!(every))).unwrap();
    assert_eq!(stage.published(), ["udp 1-65535 of * -> 10.88.0.5 1-65535"]);
}

#[test]
fn a_family_that_the_container_does_not_have_is_passed_over() {
    let at = |address: &str, protocol: &str, port: u16| json!({ "hostPort": port, "containerPort": 80, "protocol": protocol, "hostIP": address });
    let of = |mappings: &[&Value], addresses: &[&str]| {
        let mut document = mapped(json!(mappings));
        document["prevResult"]["ips"] = addresses.iter().map(|address| json!({ "address": address })).collect();
        document
    };
    let (inet, inet6) = (at("0.0.0.0", "tcp", 8080), at("::", "tcp", 8080));
    let (v4, v6) = ("tcp 8080 of 0.0.0.0 -> 10.88.0.5 80", "tcp 8080 of [::] -> fd00::5 80");
    for (addresses, lines) in
        [(&["10.88.0.5/16"][..], &[v4][..]), (&["fd00::5/64"], &[v6]), (&["10.88.0.5/16", "fd00::5/64"], &[v4, v6])]
    {
        let stage = Stage::new();
        stage.run("ADD", &of(&[&inet, &inet6], addresses)).unwrap();
        assert_eq!(stage.published(), lines);
    }
    // nothing else serves these: they stay, and publishing them is an error
    for alone in [&inet6, &at("::1", "tcp", 8080)] {
        for other in [at("0.0.0.0", "udp", 8080), at("0.0.0.0", "tcp", 8081)] {
            assert_eq!(Stage::new().refuses(&of(&[alone, &other], &["10.88.0.5/16"])).0, 7);
        }
    }
}

#[test]
fn addresses_of_the_host_are_left_out() {
    let stage = Stage::new();
    let mut document = mapped(json!([{ "hostPort": 8080, "containerPort": 80 }]));
    document["prevResult"] = json!({
        "interfaces": [
            { "name": "bridge0" },
            { "name": "eth0", "sandbox": "web" },
            { "name": "eth1", "sandbox": "web" },
            { "name": "eth0" },
        ],
        "ips": [
            { "address": "10.88.0.1/16", "interface": 0 },
            { "address": "10.88.0.5/16", "interface": 1 },
            { "address": "10.89.0.5/16", "interface": 2 },
            { "address": "10.90.0.5/16", "interface": 3 },
            { "address": "fd00::5/64" },
            { "address": "10.91.0.5/16", "interface": 9 },
            { "address": "10.92.0.5/16", "interface": -1 },
            { "address": "10.88.0.5/16", "interface": null },
        ],
    });
    stage.run("ADD", &document).unwrap();
    let stored: Value = serde_json::from_slice(&std::fs::read(stage.file("cni/blue.json")).unwrap()).unwrap();
    assert_eq!(stored["list"][0]["addresses"], json!(["10.88.0.5", "fd00::5", "10.91.0.5", "10.92.0.5"]));
    for (result, says) in [
        (json!({ "ips": [ { "address": "10.88.0.5" } ] }), "10.88.0.5"),
        (json!({ "ips": [ { "address": 5 } ] }), "address is 5"),
        (json!({ "ips": [ {} ] }), "no address"),
        (json!({ "ips": {} }), "prevResult.ips"),
        (json!({ "ips": [ 5 ] }), "prevResult.ips"),
        (json!([]), "not a JSON object"),
    ] {
        document["prevResult"] = result;
        let (code, details) = stage.refuses(&document);
        assert!(code == 6 && details.contains(says), "{code} {details}");
    }
}

#[test]
fn a_result_changes_only_where_the_version_does() {
    let answer = |version: &str, result: &Value| {
        let mut document = mapped(json!([]));
        (document["cniVersion"], document["prevResult"]) = (json!(version), result.clone());
        Stage::new().run("ADD", &document).unwrap().unwrap()
    };
    let result = json!({ "cniVersion": "1.0.0", "ips": [ { "address": "10.0.0.2/24" } ], "x": { "y": [1, null] } });
    assert_eq!(answer("1.0.0", &result), result);
    let mut old = result.clone();
    old["cniVersion"] = json!("0.4.0");
    assert_eq!(answer("0.4.0", &result), old);
    assert_eq!(answer("1.0.0", &old), result);
    let mut unnamed = result.clone();
    unnamed.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(answer("1.0.0", &unnamed), result);
}

/// Every value of a document, with its path.
fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                pointers(value, &format!("{path}/{}", key.replace('/', "~1")), found);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                pointers(value, &format!("{path}/{at}"), found);
            }
        }
        _ => {}
    }
}

/// Each command answers, or names a reason that is in the document or the state of the host.
fn is_answered(bytes: &[u8]) -> std::result::Result<(), TestCaseError> {
    let stage = Stage::new();
    for command in ["ADD", "CHECK", "STATUS", "GC", "DEL"] {
        if let Err(error) = stage.run_with(command, &[], bytes) {
            let details = error["details"].as_str().unwrap();
            prop_assert!([1, 2, 3, 6, 7, 103, 105].contains(&error["code"].as_u64().unwrap()), "{command}: {error}");
            prop_assert!(!details.contains(char::is_control), "{command}: {error}");
            prop_assert!(!details.is_empty() && details.len() < 2000, "{command}: {error}");
        }
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        "[0-9a-f.:/%\\-*<>\\x00\\n]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inside| {
        prop_oneof![
            proptest::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z.]{0,12}", inside, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    // each of them is a few transactions
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        is_answered(&bytes)?;
    }

    #[test]
    fn no_cut_or_flip_panics(at in 0..2000usize, bit in 0..8u8, cut in any::<bool>()) {
        let mut bytes = whole().to_string().into_bytes();
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        is_answered(&bytes)?;
    }

    #[test]
    fn no_value_in_any_place_panics(at in 0..1000usize, value in any_json()) {
        let mut document = whole();
        let mut found = vec![];
        pointers(&document, "", &mut found);
        *document.pointer_mut(&found[at % found.len()]).unwrap() = value;
        is_answered(document.to_string().as_bytes())?;
    }

    #[test]
    fn no_unknown_field_passes(name in "[a-zA-Z]{1,12}", value in any_json()) {
        let mut document = whole();
        prop_assume!(document.get(&name).is_none());
        document[&name] = value;
        is_answered(document.to_string().as_bytes())?;
        if Stage::new().run("ADD", &document).is_ok() {
            // fields of the runtime, or of another plugin
            let known = ["cniVersions", "capabilities", "dns", "ipam", "ipMasq", "disableCheck", "disableGC", "plugins"];
            let portmaps = ["conditionsV6", "masqAll", "markMasqBit", "externalSetMarkChain"];
            prop_assert!(known.contains(&name.as_str()) || portmaps.contains(&name.as_str()), "{name}");
        }
    }

    /// Ranges are the same ports as the list, each once.
    #[test]
    fn no_port_is_lost_or_won(list in proptest::collection::btree_map((0..2usize, 1..40u16), 0..3u16, 1..40)) {
        let wanted: BTreeSet<(&str, u16, u16)> =
            list.into_iter().map(|((protocol, host), shift)| (["tcp", "udp"][protocol], host, host + 100 * shift)).collect();
        let mappings: Vec<Value> = wanted
            .iter()
            .map(|(protocol, host, jail)| json!({ "hostPort": host, "containerPort": jail, "protocol": protocol }))
            .collect();
        let stage = Stage::new();
        stage.run("ADD", &mapped(json!(mappings))).unwrap();
        let session = stage.session(Overrides::default()).unwrap();
        let listed = session.publisher(&Unobserved).unwrap().list(None).unwrap();
        let mut found = vec![];
        for (redirect, _) in &listed[0].redirects {
            let pairs = (redirect.host.first()..=redirect.host.last()).zip(redirect.jail.first()..=redirect.jail.last());
            found.extend(pairs.map(|(host, jail)| (redirect.protocol.name(), host, jail)));
        }
        prop_assert_eq!(found.len(), wanted.len());
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), wanted);
    }
}
