//! A jail is published before it is there, unpublished late, started again, or renamed.

use std::fs;

use kport::publisher::{Outcome, Request, Unobserved};

use crate::support::rig::{Rig, request};

/// What the hook publishes that runs before the jail is there.
fn prestart(rig: &Rig, spec: &str) -> Outcome {
    rig.publish(&Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request("web", spec) }).unwrap()
}

fn gc(rig: &Rig) -> Outcome {
    rig.with(&rig.sim(), &Unobserved, |p| p.gc()).unwrap()
}

fn unpublish(rig: &Rig, jail: &str, jid: Option<i32>) -> Outcome {
    rig.with(&rig.sim(), &Unobserved, |p| p.unpublish(&jail.parse().unwrap(), jid)).unwrap()
}

/// Stops web; says its entry, to be started again.
fn stop(rig: &mut Rig) -> kport::host::Jail {
    rig.host.jails.remove(0)
}

/// Makes the record of web older.
fn age(rig: &Rig, seconds: u64) {
    let path = rig.state("jails/web.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["since"] = (record["since"].as_u64().unwrap() - seconds).into();
    fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
}

#[test]
fn gc_before_the_jail_is_there() {
    let mut rig = Rig::new();
    let web = stop(&mut rig);
    prestart(&rig, "8080:80");
    assert!(!gc(&rig).changed && rig.list().len() == 1);
    // a start that never came
    age(&rig, 61);
    // publishing again is for another start, which has as much time
    prestart(&rig, "8080:80");
    assert!(!gc(&rig).changed);
    age(&rig, 61);
    assert!(gc(&rig).changed && rig.list().is_empty());
    // and publishing again a moment later changes nothing
    prestart(&rig, "8080:80");
    age(&rig, 10);
    let before = fs::read(rig.state("jails/web.json")).unwrap();
    prestart(&rig, "8080:80");
    assert_eq!(fs::read(rig.state("jails/web.json")).unwrap(), before);
    // one that came is known by its number from then on
    prestart(&rig, "8080:80");
    rig.host.jails.push(web);
    assert!(!gc(&rig).changed);
    assert_eq!(rig.list()[0].jid, Some(2));
    age(&rig, 3600);
    assert!(!gc(&rig).changed);
    rig.host.jails.pop();
    assert!(gc(&rig).changed && rig.list().is_empty());
}

#[test]
fn a_late_unpublish_and_the_next_start() {
    let mut rig = Rig::new();
    // the first start is known by its number, also while it is being torn down, or not at all
    for (known, dying) in [(true, false), (false, true), (false, false)] {
        let mut web = stop(&mut rig);
        if known {
            rig.host.jails.insert(0, web.clone());
            rig.publish(&request("web", "8080:80")).unwrap();
            rig.host.jails.remove(0);
        }
        web.dying = dying;
        if dying {
            rig.host.jails.insert(0, web.clone());
        }
        prestart(&rig, "8080:80");
        let late = unpublish(&rig, "web", Some(2));
        assert!(!late.changed && late.notes[0].contains("for a start that has not happened yet"), "{late:?}");
        assert_eq!(rig.list().len(), 1);
        rig.host.jails.retain(|jail| jail.name != "web");
        (web.jid, web.dying) = (9, false);
        rig.host.jails.insert(0, web.clone());
        let late = unpublish(&rig, "web", Some(2));
        assert!(!late.changed && late.notes[0].contains("as jid 9"), "{late:?}");
        assert!(unpublish(&rig, "web", Some(9)).changed);
        (rig.host.jails[0].jid, rig.host.jails[0].dying) = (2, false);
    }
}

/// The start that it was published for may end before anybody has learnt its number.
#[test]
fn unpublish_of_the_start_itself() {
    let mut rig = Rig::new();
    let mut web = stop(&mut rig);
    prestart(&rig, "8080:80");
    // it came, and is being torn down: the hook runs now
    web.dying = true;
    rig.host.jails.insert(0, web);
    assert!(unpublish(&rig, "web", Some(2)).changed);
    // or is gone for good, after a while
    stop(&mut rig);
    prestart(&rig, "8080:80");
    age(&rig, 61);
    assert!(unpublish(&rig, "web", Some(2)).changed);
}

#[test]
fn what_an_earlier_start_left_is_not_added_to() {
    let mut rig = Rig::new();
    let add = |rig: &Rig, spec: &str| {
        let request = Request { add: true, ..request("web", spec) };
        rig.publish(&request).unwrap().redirects.iter().map(|r| r.host.first()).collect::<Vec<_>>()
    };
    rig.host.vnet_addresses.insert("web".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    assert_eq!(add(&rig, "8080:80"), [8080]);
    assert_eq!(add(&rig, "8081:81"), [8080, 8081]);
    rig.host.jails[0].jid = 9;
    assert_eq!(add(&rig, "8082:82"), [8082]);
    // the port that it left is free
    rig.publish(&request("db", "8080:80")).unwrap();
    // the hook before the next start, twice, and one when it is there
    let web = stop(&mut rig);
    let early = |rig: &Rig, spec: &str| {
        let address = vec!["10.0.0.2".parse().unwrap()];
        let request = Request { add: true, addresses: address, ..request("web", spec) };
        rig.publish(&request).unwrap().redirects.iter().map(|r| r.host.first()).collect::<Vec<_>>()
    };
    assert_eq!(early(&rig, "8083:83"), [8083]);
    assert_eq!(early(&rig, "8084:84"), [8083, 8084]);
    rig.host.jails.insert(0, kport::host::Jail { jid: 10, ..web });
    assert_eq!(add(&rig, "8085:85"), [8083, 8084, 8085]);
    assert_eq!(rig.list().iter().find(|l| l.jail.as_ref().unwrap().as_str() == "web").unwrap().jid, Some(10));
}

#[test]
fn a_renamed_jail() {
    let mut rig = Rig::new();
    let rename = |rig: &mut Rig, name: &str| rig.host.jails[0].name = name.to_owned();
    let listed = |rig: &Rig, name: &str| {
        rig.with(&rig.sim(), &Unobserved, |p| p.list(Some(&name.parse().unwrap()))).unwrap().len()
    };
    for by in ["web", "www"] {
        rig.publish(&request("web", "8080:80 8081:81")).unwrap();
        rename(&mut rig, "www");
        assert!(!gc(&rig).changed);
        assert_eq!((listed(&rig, "web"), listed(&rig, "www"), listed(&rig, "db")), (1, 1, 0));
        let some = rig.with(&rig.sim(), &Unobserved, |p| {
            p.unpublish_some(&by.parse().unwrap(), Some(2), &"8081:81".parse().unwrap())
        });
        assert!(some.unwrap().changed);
        assert!(!unpublish(&rig, by, Some(7)).changed);
        let done = unpublish(&rig, by, Some(2));
        assert!(done.changed && rig.list().is_empty(), "{by}");
        rename(&mut rig, "web");
    }
    // a stop hook under the new name, when the jail is gone
    rig.publish(&request("web", "8080:80")).unwrap();
    let gone = stop(&mut rig);
    assert!(!unpublish(&rig, "www", Some(3)).changed && !unpublish(&rig, "www", None).changed);
    assert!(unpublish(&rig, "www", Some(2)).changed && rig.list().is_empty());
    rig.host.jails.insert(0, gone);
    // publishing by the new name says where the port is
    rig.publish(&request("web", "8080:80")).unwrap();
    rename(&mut rig, "www");
    rig.host.vnet_addresses.insert("www".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    let again = Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request("www", "8080:80") };
    let error = rig.publish(&again).unwrap_err();
    assert!(error.message().contains("the same jail under an earlier name: unpublish jail \"web\" first"), "{error}");
    // another jail that took over the number is another jail
    rename(&mut rig, "other");
    let other = Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request("other", "8090:80") };
    rig.publish(&other).unwrap();
    assert!(gc(&rig).changed);
    assert_eq!((listed(&rig, "other"), rig.list().len()), (1, 1));
}
