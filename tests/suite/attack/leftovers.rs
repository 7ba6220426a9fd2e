//! What earlier boots and killed runs left, a state directory reached through a link, an interface that is down.
//!
//! Which directory can be the state directory is tested in src/store/dir.rs, the output to a terminal in tests/suite/cli.rs, which
//! interfaces of a jail count in src/host/freebsd/interface.rs.

use std::fs;

use kport::error::Kind;
use kport::publisher::Unobserved;
use kport::store::Store;

use crate::support::rig::{Rig, files, request};

/// The index entries of records, by jail.
fn entries(rig: &Rig, child: &str) -> Vec<String> {
    let mut found = files(rig.path());
    found.retain(|file| !file.starts_with("jails/") && !file.starts_with("sim/") && file.ends_with(child));
    found
}

#[test]
fn an_earlier_boot_leaves_nothing() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80 9000-9100:9000")).unwrap();
    assert!(!entries(&rig, "web").is_empty());
    // pf has lost its rules as well
    fs::remove_dir_all(rig.state("sim")).unwrap();
    rig.host.boot_id = "second".to_owned();
    rig.publish(&request("db", "5432")).unwrap();
    assert_eq!(entries(&rig, "web"), [""; 0]);
    assert!(!rig.state("jails/web.json").exists());
    assert!(!entries(&rig, "db").is_empty());
    assert_eq!(rig.list().len(), 1);
}

/// A publish was killed between its claims and its record, another one while it wrote: `gc` removes the rest.
#[test]
fn gc_removes_what_killed_runs_left() {
    let rig = Rig::new();
    rig.publish(&request("db", "5432")).unwrap();
    let kept = entries(&rig, "db");
    rig.publish(&request("web", "8080:80")).unwrap();
    fs::remove_file(rig.state("jails/web.json")).unwrap();
    fs::remove_dir_all(rig.state("sim")).unwrap();
    fs::write(rig.state("jails/web.json.tmp"), "{").unwrap();
    let left = entries(&rig, "web");
    assert!(!left.is_empty());
    // which reads the records alone
    rig.with(&rig.sim(), &Unobserved, |publisher| publisher.restore()).unwrap();
    assert_eq!(entries(&rig, "web"), left);
    rig.with(&rig.sim(), &Unobserved, |publisher| publisher.gc()).unwrap();
    assert_eq!(entries(&rig, "web"), [""; 0]);
    assert!(!rig.state("jails/web.json.tmp").exists());
    assert_eq!(entries(&rig, "db"), kept);
}

/// An anchor without a record in which pf still has rules: the owner of the ports must not be forgotten.
#[test]
fn what_pf_holds_is_not_forgotten() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    fs::remove_file(rig.state("jails/web.json")).unwrap();
    rig.with(&rig.sim(), &Unobserved, |publisher| publisher.restore()).unwrap();
    assert!(!entries(&rig, "web").is_empty());
    let error = rig.publish(&request("db", "8080:80")).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    // gc clears the anchor, and then its claims
    rig.with(&rig.sim(), &Unobserved, |publisher| publisher.gc()).unwrap();
    assert_eq!(entries(&rig, "web"), [""; 0]);
    rig.publish(&request("db", "8080:80")).unwrap();
}

#[test]
fn a_link_with_a_slash_is_a_link() {
    let rig = Rig::new();
    fs::create_dir(rig.state("real")).unwrap();
    std::os::unix::fs::symlink(rig.state("real"), rig.state("link")).unwrap();
    let error = Store::open(&rig.state("link/")).unwrap_err();
    assert_eq!(error.kind(), Kind::Permission);
}

/// The kernel has no route through an interface that is down: packets to its network take the next route.
#[test]
fn an_interface_that_is_down_leads_to_no_jail() {
    let mut rig = Rig::new();
    rig.host.interfaces[2].up = false;
    let error = rig.publish(&request("web", "8080:80")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("10.0.0.2, which is on the network of bridge0, which is down"), "{error}");
    assert!(rig.loaded().is_empty() && rig.list().is_empty());
    // a network of every address is that of the gateway interface, not of jails
    rig.host.interfaces[0].addresses.push("10.2.0.1/8".parse().unwrap());
    let error = rig.publish(&request("web", "8080:80/tcp")).unwrap_err();
    assert!(error.message().contains("10.0.0.2, which is on the network of em0"), "{error}");
    rig.host.interfaces[2].up = true;
    assert_eq!(rig.publish(&request("web", "8080:80")).unwrap().redirects.len(), 2);
}
