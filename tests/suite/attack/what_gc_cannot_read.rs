//! gc and records or jails that it cannot read.
//!
//! Reading jails whose names are not UTF-8 from jail_get(2) is tested in src/host/freebsd/jail.rs.

use std::fs;

use kport::error::Kind;
use kport::host::SkippedJail;
use kport::publisher::Unobserved;

use crate::support::rig::{Rig, request};

fn gc(rig: &Rig) -> kport::error::Result<kport::publisher::Outcome> {
    rig.with(&rig.sim(), &Unobserved, |p| p.gc())
}

#[test]
fn a_record_of_a_newer_kport() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.publish(&request("db", "8081:80")).unwrap();
    let loaded = rig.loaded();
    let newer = r#"{"version":2,"what":"this kport does not know"}"#;
    for jail in ["web", "db"] {
        fs::write(rig.state(&format!("jails/{jail}.json")), newer).unwrap();
    }
    let calls: [(&str, kport::error::Result<_>); 4] = [
        ("gc", gc(&rig)),
        ("restore", rig.with(&rig.sim(), &Unobserved, |p| p.restore())),
        ("unpublish", rig.unpublish("web")),
        ("publish", rig.publish(&request("web", "8080:80"))),
    ];
    for (call, done) in calls {
        let error = done.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{call}: {error}");
        assert!(
            error.message().contains("is a record of version 2, and this kport supports only version 1"),
            "{error}"
        );
    }
    assert_eq!(rig.loaded(), loaded);
    assert_eq!(fs::read_to_string(rig.state("jails/web.json")).unwrap(), newer);
    assert!(!rig.state("damaged").exists());
    assert!(rig.list()[0].problem.as_ref().unwrap().contains("version 2"));
}

#[test]
fn a_damaged_record_of_a_jail_that_runs() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    let loaded = rig.loaded();
    fs::write(rig.state("jails/web.json"), "{").unwrap();
    for _ in 0..2 {
        let done = gc(&rig).unwrap();
        assert!(
            done.notes.iter().any(|note| note.contains("not changed; publish its ports again")),
            "{:?}",
            done.notes
        );
        assert_eq!(rig.loaded(), loaded);
    }
    // publishing again corrects it
    rig.publish(&request("web", "8080:80")).unwrap();
    fs::write(rig.state("jails/web.json"), "{").unwrap();
    rig.host.jails.retain(|jail| jail.name != "web");
    gc(&rig).unwrap();
    assert!(rig.loaded().is_empty());
}

#[test]
fn a_full_directory_of_damaged_records() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    fs::create_dir(rig.state("damaged")).unwrap();
    for n in 1..=1000 {
        fs::write(rig.state(&format!("damaged/web.{n}")), n.to_string()).unwrap();
    }
    fs::write(rig.state("jails/web.json"), "{").unwrap();
    rig.unpublish("web").unwrap();
    assert!(rig.loaded().is_empty() && !rig.state("jails/web.json").exists());
    // the first ones are kept
    assert_eq!(fs::read_to_string(rig.state("damaged/web.1")).unwrap(), "1");
}

/// The root of web chooses the name of a jail in it.
fn rig_with_an_odd_name() -> Rig {
    let mut rig = Rig::new();
    let why = r#"the name of jail 9, "web.\xff", is not UTF-8: rename it"#.to_owned();
    rig.host.skipped_jails.push(SkippedJail { jid: 9, name: None, why });
    rig
}

#[test]
fn gc_continues_and_reports_which_jail_it_skipped() {
    let mut rig = rig_with_an_odd_name();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.publish(&request("db", "5432")).unwrap();
    rig.host.jails.retain(|jail| jail.name != "db");
    let outcome = rig.with(&rig.sim(), &Unobserved, |publisher| publisher.gc()).unwrap();
    assert_eq!(
        outcome.notes,
        [
            r#"jail 9 was not changed: the name of jail 9, "web.\xff", is not UTF-8: rename it"#,
            "jail \"db\" is gone: unpublished",
        ]
    );
    assert_eq!(rig.list().len(), 1);
}

/// A jail that is recorded with the jid of a jail that cannot be read does not count as gone.
#[test]
fn gc_keeps_what_may_belong_to_the_jail() {
    let mut rig = rig_with_an_odd_name();
    rig.publish(&request("web", "8080:80")).unwrap();
    let web = rig.host.jails.remove(0);
    rig.host.skipped_jails[0].jid = web.jid;
    rig.with(&rig.sim(), &Unobserved, |publisher| publisher.gc()).unwrap();
    assert_eq!(rig.list().len(), 1);
}
