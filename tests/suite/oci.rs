//! `kport oci-hook`: the state of a container on standard input, and what is published.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, Output, Stdio};

use kport::container::oci;
use kport::error::Kind;
use serde_json::{Value, json};

use crate::support::cc;

/// A host with the jail of one container.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let host = Host { dir: tempfile::tempdir().unwrap() };
        let facts = json!({
            "gateway": { "inet": "em0" },
            "interfaces": [
                { "name": "em0", "up": true, "addresses": ["192.0.2.1/24"] },
                { "name": "bridge0", "groups": ["bridge"], "up": true, "addresses": ["10.88.0.1/16"] },
            ],
            "jails": [ { "jid": 7, "name": "c0ffee", "vnet": true }, { "jid": 9, "name": "pod.beef", "vnet": true } ],
            "vnet_addresses": { "c0ffee": ["10.88.0.5"], "pod.beef": ["10.88.0.6"] },
            "sysctls": { "net.inet.ip.forwarding": 1 },
            "boot_id": "first",
        });
        std::fs::write(host.dir.path().join("host.json"), facts.to_string()).unwrap();
        host
    }

    fn kport(&self, arguments: &[&str]) -> Command {
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().arg("--host").arg(self.dir.path().join("host.json")).args(["--backend", "sim"]);
        kport.args(arguments).env("KPORT_STATE_DIR", self.dir.path().join("state"));
        kport
    }

    fn hook_with(&self, arguments: &[&str], state: &Value) -> Output {
        feed(&mut self.kport(&[&["oci-hook"], arguments].concat()), &state.to_string())
    }

    fn hook(&self, state: &str) -> Output {
        feed(&mut self.kport(&["oci-hook"]), state)
    }

    #[track_caller]
    fn ok(&self, state: &Value) {
        let output = self.hook(&state.to_string());
        assert_eq!(output.status.code(), Some(0), "{}", cc::text(&output.stderr));
        assert_eq!(cc::text(&output.stdout), "");
    }

    fn list(&self) -> String {
        cc::text(&cc::done(&mut self.kport(&["list"])).stdout)
    }
}

fn feed(command: &mut Command, text: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

fn state(status: &str, annotations: Value) -> Value {
    json!({ "ociVersion": "1.0.2", "id": "c0ffee", "status": status, "pid": 17, "bundle": "/b", "annotations": annotations })
}

const TABLE: &str = "\
JAIL    PROTO  ON   PORT  TO            STATE
c0ffee  tcp    em0  8080  10.88.0.5:80  live
";

#[test]
fn from_start_to_stop() {
    let host = Host::new();
    let ports = json!({ "io.kport.publish": "8080:80", "org.freebsd.jail.jid": "7" });
    for status in ["creating", "created", "running"] {
        host.ok(&state(status, ports.clone()));
        assert_eq!(host.list(), TABLE, "{status}");
    }
    // another start of the jail, and containers that are not published by this hook
    host.ok(&state("stopped", json!({ "io.kport.publish": "8080:80", "org.freebsd.jail.jid": "6" })));
    host.ok(&state("stopped", json!({})));
    host.ok(&json!({ "id": "c0ffee", "status": "stopped" }));
    assert_eq!(host.list(), TABLE);
    for _ in 0..2 {
        host.ok(&state("stopped", ports.clone()));
        assert_eq!(host.list(), "");
    }
}

#[test]
fn the_arguments_of_the_hook_decide() {
    let host = Host::new();
    let annotations = json!({ "io.kport.publish": "443:443 *:8443:443 auto:80", "org.freebsd.parentJail": "pod" });
    let mut beef = state("created", annotations);
    beef["id"] = json!("beef");
    for (arguments, says) in [
        (&[][..], "443:443/tcp: containers may have the ports 1024-65535"),
        (&["--allow-ports", "443"], "*:8443:443/tcp: containers may have the ports 443;"),
        (&["--allow-ports", "1-65535"], "containers may not name *; the administrator can add --allow-place *"),
        (
            &["--allow-ports", "443", "--allow-ports", "8000-9000", "--allow-place", "*"],
            "add --allow-ports 49152-65535",
        ),
    ] {
        let output = host.hook_with(arguments, &beef);
        let said = cc::text(&output.stderr);
        assert!(output.status.code() == Some(4) && said.contains(says), "{arguments:?}: {said}");
        assert_eq!(host.list(), "");
    }
    let output = host.hook_with(&["--allow-ports", "1-65535", "--allow-place", "em0", "--allow-place", "*"], &beef);
    assert_eq!(output.status.code(), Some(0), "{}", cc::text(&output.stderr));
    let list = host.list();
    assert!(list.lines().count() == 4 && list.contains("pod.beef  tcp    *    8443"), "{list}");
    beef["status"] = json!("stopped");
    // what is no longer allowed or valid does not keep it from being removed
    beef["annotations"]["io.kport.publish"] = json!("{");
    host.ok(&beef);
    assert_eq!(host.list(), "");
    for wrong in [&["--allow-ports", "0"][..], &["--allow-ports", "9-8"], &["--allow-place", "all"], &["--force"]] {
        beef["status"] = json!("created");
        assert_eq!(host.hook_with(wrong, &beef).status.code(), Some(64), "{wrong:?}");
        // a stop must not fail
        beef["status"] = json!("stopped");
        let output = host.hook_with(wrong, &beef);
        assert!(output.status.success() && !output.stderr.is_empty(), "{wrong:?}: {output:?}");
    }
}

/// A range is allowed as a whole, by one of the ranges.
#[test]
fn allowed_ranges_and_places() {
    let host = Host::new();
    let allowed = ["--allow-ports", "22", "--allow-ports", "80-90", "--allow-place", "em0", "--allow-place", "*"];
    for (specs, works) in [
        ("22 80-85:1080 em0:90:1090 *:443-443:443", false),
        ("79-90:80", false),
        ("22-80:80", false),
        ("192.0.2.1:80:80", false),
        ("0.0.0.0:80:80", false),
        ("22 80-85:1080 em0:90:1090", true),
    ] {
        let output = host.hook_with(&allowed, &state("created", json!({ "io.kport.publish": specs })));
        assert_eq!(output.status.code(), Some(if works { 0 } else { 4 }), "{specs}: {}", cc::text(&output.stderr));
        assert_eq!(host.list().is_empty(), !works, "{specs}");
    }
}

#[test]
fn a_start_reports_what_is_wrong() {
    let host = Host::new();
    for (annotations, status, says) in [
        (json!({ "io.kport.publish": "80/tpc" }), 2, "annotation io.kport.publish: at byte 3: found \"tpc\""),
        (json!({ "io.kport.publish": "22" }), 4, "1024-65535"),
        (json!({ "io.kport.publish": "8080 1023:80" }), 4, "1024-65535"),
        (json!({ "io.kport.publish": "1000-1030:80" }), 4, "1024-65535"),
        (json!({ "io.kport.publish": "127.0.0.1:8080:80" }), 4, "may not name 127.0.0.1"),
        (json!({ "io.kport.publish": "0.0.0.0:auto:80" }), 4, "may not name 0.0.0.0"),
        (json!({ "io.kport.publish": "8080", "io.kport.publish.json": "{}" }), 4, "can only ask for ports"),
        (json!({ "io.kport.publish": "8080", "io.kport.": "" }), 4, "can only ask for ports"),
        (json!({ "io.kport.publish": "em0:8080:80" }), 4, "may not name em0"),
        (json!({ "io.kport.publish": 8080 }), 1, "not a string"),
        (json!({ "io.kport.publish.json": "{\"publish\":[\"8080\"],\"force\":true}" }), 4, "can only ask for ports"),
        (json!({ "io.kport.publish": "8080", "io.kport.address": "10.88.0.6" }), 4, "io.kport.address"),
        (json!({ "io.kport.publish": "8080", "io.kport.stateDir": "/tmp" }), 4, "io.kport.stateDir"),
    ] {
        let output = host.hook(&state("created", annotations.clone()).to_string());
        let said = cc::text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{annotations}: {said}");
        assert!(said.contains(says) && host.list().is_empty(), "{annotations}: {said}");
        host.ok(&state("stopped", annotations));
    }
    // the words of the hook, not those of kport publish
    let mut gone = state("created", json!({ "io.kport.publish": "8080" }));
    gone["id"] = json!("gone");
    let said = cc::text(&host.hook(&gone.to_string()).stderr);
    assert!(said.contains("not running here") && !said.contains("-a"), "{said}");
    for text in ["", "nonsense", "{}", "[]", "{\"id\":7}", "\u{0}"] {
        assert_eq!(host.hook(text).status.code(), Some(1), "{text:?}");
    }
    host.ok(&state("created", json!({})));
    assert_eq!(host.list(), "");
}

#[test]
fn a_stop_never_fails() {
    let host = Host::new();
    let ports = json!({ "io.kport.publish": "8080:80" });
    host.ok(&state("created", ports.clone()));
    // the state directory cannot be used
    std::fs::remove_dir_all(host.dir.path().join("state")).unwrap();
    std::fs::write(host.dir.path().join("state"), "").unwrap();
    let output = host.hook(&state("stopped", ports).to_string());
    assert_eq!(output.status.code(), Some(0));
    assert!(cc::text(&output.stderr).contains("the container stops anyway"));
    let broken = json!({ "id": "a\nb", "status": "stopped", "annotations": { "io.kport.publish": "80" } });
    assert_eq!(host.hook(&broken.to_string()).status.code(), Some(0));
}

/// At a stop only the id must be valid: whatever an image has put into the annotations, the ports are removed. A start fails.
#[test]
fn a_stop_needs_nothing_but_the_id() {
    let large = "x".repeat(3 << 20);
    let whole = |status: &str| {
        format!(
            r#"{{"annotations":{{"x":"{large}","io.kport.publish":"8080:80"}},"bundle":"/b","id":"c0ffee","status":"{status}","pid":1}}"#
        )
    };
    let cut = |status: &str| whole(status).trim_end_matches(r#","pid":1}"#).to_owned();
    let nested = |status: &str| whole(status).replace(r#""pid":1"#, &format!(r#""pid":{}"#, "[".repeat(500)));
    let number = |status: &str| whole(status).replace(r#""x":"#, r#""org.freebsd.jail.jid":"x","x":"#);
    for (state, starts) in
        [(&whole as &dyn Fn(&str) -> String, true), (&cut, false), (&nested, false), (&number, false)]
    {
        let host = Host::new();
        let output = host.hook(&state("created"));
        assert_eq!(output.status.success(), starts, "{}", cc::text(&output.stderr));
        host.ok(&json!({ "id": "c0ffee", "status": "created", "annotations": { "io.kport.publish": "8080:80" } }));
        assert_eq!(host.list(), TABLE);
        let output = host.hook(&state("stopped"));
        assert_eq!(output.status.code(), Some(0), "{}", cc::text(&output.stderr));
        assert_eq!(host.list(), "");
    }
}

/// As in the specification, and as ocijail does it: the path comes before `args`.
#[test]
fn by_the_name_in_the_hook_file() {
    let page = std::fs::read_to_string(cc::root().join("docs/managers/podman.md")).unwrap();
    let file = page.split("<!-- hook -->\n```json\n").nth(1).unwrap().split("```").next().unwrap();
    let file: Value = serde_json::from_str(file).unwrap();
    let name = file["hook"]["args"][0].as_str().unwrap();
    let host = Host::new();
    let text = state("created", json!({})).to_string();
    let link = host.dir.path().join(name);
    symlink(env!("CARGO_BIN_EXE_kport"), &link).unwrap();
    assert_eq!(feed(Command::new(&link).env_clear(), &text).status.code(), Some(0));
    assert_eq!(feed(&mut host.kport(&[name]), &text).status.code(), Some(0));
}

#[test]
fn the_jail_of_a_state() {
    let read = |json: &str| oci::State::read(json.as_bytes()).unwrap();
    let json = r#"{"ociVersion":"1.0.2","id":"c0ffee","status":"created","pid":17,"bundle":"/b",
        "annotations":{"org.freebsd.parentJail":"pod","org.freebsd.jail.jid":"9"}}"#;
    let identity = read(json).identity().unwrap();
    assert_eq!((identity.name.as_deref(), identity.jid), (Some("pod.c0ffee"), Some(9)));
    let identity = read(r#"{"id":"c0ffee","annotations":null}"#).identity().unwrap();
    assert_eq!((identity.name.as_deref(), identity.jid), (Some("c0ffee"), None));
    for json in
        ["nonsense", "{", "{}", "[]", "7", r#"{"id":7}"#, r#"{"id":"a","annotations":{"org.freebsd.jail.jid":"x"}}"#]
    {
        assert_eq!(read(json).identity().unwrap_err().kind(), Kind::Argument, "{json}");
    }
    for none in ["", " ", "\n "] {
        assert!(oci::State::read(none.as_bytes()).is_none());
    }
    // nothing after it is read
    let mut two = r#"{"id":"a"} {"id":"b"}"#.as_bytes();
    assert_eq!(oci::State::read(&mut two).unwrap().identity().unwrap().name.as_deref(), Some("a"));
    assert_eq!(two, br#" {"id":"b"}"#);
}
