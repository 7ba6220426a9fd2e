//! `--af-to`: IPv6 clients of a jail that has only an IPv4 address.

use std::process::Command;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::Kind;
use kport::options::Options;
use kport::pf::Firewall;
use kport::pf::native::Native;
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Liveness, Request, Unobserved, rules};

use crate::support::fake_kernel::Fake;
use crate::support::rig::{Rig, request};
use crate::support::standin;

/// db, which has 10.0.0.3 only.
fn db(spec: &str) -> Request {
    Request { options: Options { af_to: true, ..Options::default() }, ..request("db", spec) }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

const RULE: &str = "pass in quick on \"em0\" inet6 proto tcp from any to (\"em0\") port 8080 af-to inet from (\"bridge0\") \
                    to 10.0.0.3 port 80 keep state label \"kport:db\" label \"kport:db:tcp:8080\"";

/// Loaded, recognized, listed, read as a rule of pf, unpublished.
fn by(backend: &dyn Firewall) {
    let rig = Rig::new();
    let mut wish = db("8080:80 5353:53/udp 9000-9010");
    wish.options.limits.connections = 9.try_into().ok();
    let wanted = rules(&rig.host, &wish).unwrap();
    let act = |request: &Request| rig.with(backend, &Unobserved, |p| p.publish(request)).unwrap();
    assert!(act(&wish).changed && !act(&wish).changed);
    let anchor = wish.jail.anchor();
    assert!(backend.holds(&anchor, &wanted).unwrap());
    // other rules are told from it
    let other = rules(&rig.host, &db("8080:81 5353:53/udp 9000-9010")).unwrap();
    assert!(!backend.holds(&anchor, &other).unwrap());
    let listed = rig.with(backend, &Unobserved, |p| p.list_with_counters(None)).unwrap();
    assert_eq!(listed[0].liveness, Liveness::Live);
    assert_eq!(listed[0].redirects.iter().filter(|(r, _)| r.af_to).count(), 3);
    let read = backend.rulesets(true).unwrap();
    let (_, conf) = read.iter().find(|(path, _)| path == anchor.path()).unwrap();
    let read = format!("{conf:?}");
    assert_eq!(read.matches("af_to: Some((Inet,").count(), 3, "{read}");
    assert!(rig.with(backend, &Unobserved, |p| p.unpublish(&wish.jail, None)).unwrap().changed);
    assert!(backend.loaded(&anchor, false).unwrap().is_empty());
}

#[test]
fn by_native() {
    let fake = Fake::new();
    by(&Native::over(&fake, soon()));
    // of another process, which remembers nothing
    let rig = Rig::new();
    rig.with(&Native::over(&fake, soon()), &Unobserved, |p| p.publish(&db("8080:80"))).unwrap();
    let wanted = rules(&rig.host, &db("8080:80")).unwrap();
    for (spec, same) in [("8080:80", true), ("8080:81", false), ("8080:8080", false)] {
        let wanted = if same { wanted.clone() } else { rules(&rig.host, &db(spec)).unwrap() };
        assert_eq!(Native::over(&fake, soon()).holds(&db(spec).jail.anchor(), &wanted).unwrap(), same, "{spec}");
    }
}

#[test]
fn by_pfctl() {
    let pf = standin::Pfctl::new();
    by(&Pfctl::new(pf.program(), soon()));
}

#[test]
fn it_takes_the_port_of_both_families() {
    let mut rig = Rig::new();
    rig.publish(&db("8080:80")).unwrap();
    assert!(rig.loaded()[0].1.contains(RULE), "{:?}", rig.loaded());
    let error = rig.publish(&request("web", "[2001:db8::1]:8080:80")).unwrap_err();
    assert!(error.kind() == Kind::Conflict && error.message().contains("db"), "{error}");
    // an option that somebody may need no more: the connections end
    rig.publish(&request("db", "8080:80")).unwrap();
    rig.publish(&request("web", "[2001:db8::1]:8080:80")).unwrap();
    // pf of 14
    let mut host: serde_json::Value = serde_json::to_value(&rig.host).unwrap();
    host["sysctls"]["kern.osreldate"] = 1_403_000.into();
    rig.host = host.to_string().parse().unwrap();
    let error = rig.publish(&db("8081:80")).unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::Unsupported, "tcp 8081 on em0 -> 10.0.0.3:80 by af-to: pf of FreeBSD 14 has no af-to, 15 does")
    );
}

/// The packet crosses the families, and so does its answer.
#[test]
fn traced() {
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
    assert_eq!(kport(&["publish", "db", "--af-to", "8080:80"]).0, 0);
    let (status, traced) = kport(&["trace", "tcp", "2001:db8::100", "[2001:db8::1]:8080"]);
    assert!(traced.contains("delivered to jail db at 10.0.0.3:80"), "{traced}");
    assert!(status == 0 && traced.ends_with("arrives, and is answered\n"), "{status} {traced}");
    assert!(kport(&["list"]).1.contains("db    tcp    em0  8080  10.0.0.3:80 by af-to  live"));
    let json = kport(&["list", "--json"]).1;
    assert!(json.contains("\"af_to\": true") && json.contains("\"family\": \"inet6\""), "{json}");
}
