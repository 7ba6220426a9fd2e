//! A4: a nested jail whose name is not UTF-8.
//!
//! What jail_get(2) says of such jails is read in src/host/freebsd/jail.rs, and tested there.

use kport::host::SkippedJail;
use kport::publisher::Unobserved;

use crate::support::rig::{Rig, request};

/// A jail in jail web has a name of root of web's choice.
fn rig() -> Rig {
    let mut rig = Rig::new();
    let why = r#"the name of jail 9, "web.\xff", is not UTF-8: rename it"#.to_owned();
    rig.host.skipped_jails.push(SkippedJail { jid: 9, name: None, why });
    rig
}

#[test]
fn gc_goes_on_and_says_which_jail_it_left_alone() {
    let mut rig = rig();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.publish(&request("db", "5432")).unwrap();
    rig.host.jails.retain(|jail| jail.name != "db");
    let outcome = rig.with(&rig.sim(), &Unobserved, |publisher| publisher.gc()).unwrap();
    assert_eq!(
        outcome.notes,
        [
            r#"jail 9 was left alone: the name of jail 9, "web.\xff", is not UTF-8: rename it"#,
            "jail \"db\" is gone: unpublished",
        ]
    );
    assert_eq!(rig.list().len(), 1);
}

/// Whoever is published under the number of a jail that cannot be read is not taken to be gone.
#[test]
fn gc_keeps_what_may_belong_to_the_jail() {
    let mut rig = rig();
    rig.publish(&request("web", "8080:80")).unwrap();
    let web = rig.host.jails.remove(0);
    rig.host.skipped_jails[0].jid = web.jid;
    rig.with(&rig.sim(), &Unobserved, |publisher| publisher.gc()).unwrap();
    assert_eq!(rig.list().len(), 1);
}
