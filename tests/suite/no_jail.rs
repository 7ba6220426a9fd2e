//! A target that is not a jail: a guest of bhyve(8), a host of the LAN behind the firewall.

use std::process::Command;

use kport::doctor::{self, Level};
use kport::error::{Kind, Result};
use kport::host::Fixed;
use kport::publisher::{Liveness, Outcome, Request, Unobserved};
use kport::store::Store;

use crate::support::rig::{Rig, request};

/// A guest on bridge0.
fn guest(spec: &str) -> Request {
    Request { no_jail: true, addresses: vec!["10.0.0.77".parse().unwrap()], ..request("guest", spec) }
}

/// The host with one more jail.
fn with_jail(rig: &mut Rig, name: &str, address: &str) {
    let mut host: serde_json::Value = serde_json::to_value(&rig.host).unwrap();
    let jail = serde_json::json!({ "jid": 9, "name": name, "vnet": true });
    host["jails"].as_array_mut().unwrap().push(jail);
    host["vnet_addresses"][name] = serde_json::json!([address]);
    rig.host = host.to_string().parse::<Fixed>().unwrap();
}

fn act(rig: &Rig, act: fn(&kport::publisher::Publisher<'_>) -> Result<Outcome>) -> Outcome {
    rig.with(&rig.sim(), &Unobserved, act).unwrap()
}

#[test]
fn it_is_published_until_it_is_unpublished() {
    let rig = Rig::new();
    rig.publish(&guest("8080:80")).unwrap();
    rig.publish(&Request { add: true, ..guest("8081:81") }).unwrap();
    let loaded = rig.loaded();
    assert!(loaded[0].1.contains("-> 10.0.0.77 port 81"), "{loaded:?}");
    // its ports are taken
    let error = rig.publish(&request("web", "8080:80")).unwrap_err();
    assert!(error.kind() == Kind::Conflict && error.message().contains("published by \"guest\""), "{error}");
    let swept = act(&rig, |p| p.gc());
    assert!(!swept.changed && rig.loaded() == loaded, "{swept:?}");
    std::fs::remove_file(rig.state("sim/guest.json")).unwrap();
    let restored = act(&rig, |p| p.restore());
    assert!(restored.notes[0].starts_with("\"guest\": loaded again"), "{restored:?}");
    assert_eq!(rig.loaded(), loaded);
    let listed = rig.list();
    assert!(listed.iter().all(|l| l.no_jail && l.liveness == Liveness::Live && l.jid.is_none()), "{listed:?}");
    // an unpublish of one mapping keeps what it is
    let one = |p: &kport::publisher::Publisher<'_>| {
        p.unpublish_some(&"guest".parse().unwrap(), None, &"8081:81".parse().unwrap())
    };
    act(&rig, one);
    assert!(rig.list()[0].no_jail && !act(&rig, |p| p.gc()).changed);
    // the stop of a jail of that name
    let stopped = act(&rig, |p| p.unpublish(&"guest".parse().unwrap(), Some(9)));
    assert!(!stopped.changed && stopped.notes[0].contains("not as a jail"), "{stopped:?}");
    assert!(rig.unpublish("guest").unwrap().changed && rig.list().is_empty());
}

#[test]
fn what_is_refused() {
    let at = |address: &str| Request { addresses: vec![address.parse().unwrap()], ..guest("8080:80") };
    let rows = [
        (Request { addresses: vec![], ..guest("8080:80") }, Kind::Argument, "its address is unknown; give it with -a"),
        (Request { jid: Some(4), ..guest("8080:80") }, Kind::Argument, "has the jid 4"),
        (at("192.0.2.7"), Kind::Argument, "192.0.2.7 is an address of the host"),
        // of a jail on the host's stack
        (at("10.9.0.2"), Kind::Argument, "10.9.0.2 is an address of the host"),
        (at("127.0.0.1"), Kind::Argument, "a loopback address"),
        (Request { jail: "web".parse().unwrap(), ..guest("8080:80") }, Kind::Conflict, "jail \"web\" is running"),
    ];
    for (request, kind, words) in rows {
        let rig = Rig::new();
        let error = rig.publish(&request).unwrap_err();
        assert!(error.kind() == kind && error.message().contains(words), "{request:?}: {error}");
        assert!(rig.list().is_empty());
    }
    // a jail to which the administrator has given the address
    let rig = Rig::new();
    rig.publish(&Request { addresses: vec!["10.0.0.3".parse().unwrap()], ..request("db", "9090:80") }).unwrap();
    let error = rig.publish(&at("10.0.0.3")).unwrap_err();
    assert!(error.message().contains("10.0.0.3 is an address of jail \"db\""), "{error}");
    // a jail that is published before it starts, and one that has the target's name or address
    let mut rig = Rig::new();
    rig.publish(&Request { no_jail: false, ..guest("8080:80") }).unwrap();
    assert!(rig.publish(&guest("8080:80")).unwrap_err().message().contains("may be starting"));
    rig.unpublish("guest").unwrap();
    rig.publish(&guest("8080:80")).unwrap();
    with_jail(&mut rig, "guest", "10.0.0.9");
    let error = rig.publish(&request("guest", "8081:80")).unwrap_err();
    assert!(error.kind() == Kind::Conflict && error.message().contains("not as a jail"), "{error}");
    let mut rig = Rig::new();
    rig.publish(&guest("8080:80")).unwrap();
    with_jail(&mut rig, "thief", "10.0.0.77");
    let error = rig.publish(&request("thief", "8081:80")).unwrap_err();
    assert!(error.message().contains("already the target of redirects of \"guest\""), "{error}");
    // in one transaction with a jail of the same name
    let two = [guest("8080:80"), Request { no_jail: false, ..guest("8081:80") }];
    let error = rig.with(&rig.sim(), &Unobserved, |p| p.publish_all(&two)).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument, "{error}");
}

#[test]
fn doctor_does_not_look_for_its_jail() {
    let mut rig = Rig::new();
    rig.publish(&guest("8080:80")).unwrap();
    let problems = |rig: &Rig| -> Vec<String> {
        let found = doctor::examine(&rig.host, &rig.sim(), Store::open(rig.path()), None);
        found.into_iter().filter(|f| f.level == Level::Problem && f.id.contains("jail")).map(|f| f.seen).collect()
    };
    assert_eq!(problems(&rig), [""; 0]);
    with_jail(&mut rig, "thief", "10.0.0.77");
    let found = problems(&rig);
    assert!(found.len() == 1 && found[0].contains("which is now the address of jail \"thief\""), "{found:?}");
}

/// A host of the LAN, by the helper: published, listed, traced.
#[test]
fn by_the_helper() {
    let state = tempfile::tempdir().unwrap();
    let kport = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kport"))
            .args(["-q", "--backend", "sim", "--host", "examples/host.json", "--state-dir"])
            .arg(state.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let done = kport(&["publish", "--no-jail", "nas", "-a", "10.0.0.50", "8443:443"]);
    assert_eq!(done.0, 0, "{}", done.1);
    let table =
        "JAIL           PROTO  ON   PORT  TO             STATE\nnas (no jail)  tcp    em0  8443  10.0.0.50:443  live\n";
    assert_eq!(kport(&["list"]).1, table);
    assert!(kport(&["list", "--json"]).1.contains("\"no_jail\": true"));
    assert!(kport(&["metrics"]).1.contains("kport_jail_live{jail=\"nas\",anchor=\"kport/nas\",no_jail=\"true\""));
    let (status, traced) = kport(&["trace", "tcp", "192.0.2.100", "192.0.2.1:8443"]);
    assert!(traced.contains("delivered to the network behind bridge0 at 10.0.0.50:443"), "{traced}");
    assert!(status == 0 && traced.ends_with("arrives, and is answered\n"), "{status} {traced}");
    for arguments in
        [&["publish", "--hook", "--no-jail", "nas", "80"][..], &["publish", "--no-jail", "--kleene", "x", "nas"]]
    {
        let (status, said) = kport(arguments);
        assert!(status == 1 && said.contains("--no-jail cannot be used with"), "{said}");
    }
    assert_eq!(kport(&["unpublish", "nas"]).0, 0);
    assert_eq!(kport(&["list"]).1, "");
}
