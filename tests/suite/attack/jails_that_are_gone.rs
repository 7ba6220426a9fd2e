//! A jail that is gone keeps neither its ports nor a successor from them, and one that runs does not lose them.

use std::fs;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::{Error, Kind, Result};
use kport::host::{Behind, Fixed, Host, Jail, Jails};
use kport::publisher::{Outcome, Publisher, Request, Unobserved};
use kport::store::Store;

use crate::support::around::{Around, Call, Moment};
use crate::support::rig::{Rig, request};

fn gc(rig: &Rig) -> Outcome {
    rig.with(&rig.sim(), &Unobserved, |p| p.gc()).unwrap()
}

/// Publishes a port before the jail is there.
fn early(rig: &Rig, jail: &str) -> Result<Outcome> {
    rig.publish(&Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request(jail, "8080:80") })
}

/// A host whose list of jails is older than its answers about one jail.
struct Earlier {
    jails: Vec<Jail>,
    now: Fixed,
}

impl Host for Earlier {
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Host(&self.now))
    }

    fn jails(&self) -> Result<Jails> {
        Ok(Jails { jails: self.jails.clone(), skipped: vec![] })
    }
}

/// The list was read, and then the jails started: with a record of this start, or of one that had no jid yet.
#[test]
fn gc_does_not_trust_a_list_from_before_a_jail_started() {
    for recorded in [true, false] {
        let mut rig = Rig::new();
        let web = rig.host.jails.remove(0);
        if recorded {
            rig.host.jails.push(web.clone());
            early(&rig, "web").unwrap();
        } else {
            early(&rig, "web").unwrap();
            rig.host.jails.push(web.clone());
        }
        let host = Earlier { jails: vec![], now: rig.host.clone() };
        let sim = rig.sim();
        let deadline = Deadline::after(Duration::from_secs(60));
        let store = Store::open(rig.path()).unwrap();
        let outcome = Publisher::new(&host, &sim, store, deadline, &Unobserved).gc().unwrap();
        assert!(!outcome.changed, "{outcome:?}");
        assert_eq!(rig.loaded().len(), 1);
    }
}

/// Root of a jail with `children.max` chooses a free jid for a jail in it.
#[test]
fn a_jid_is_not_an_identity() {
    let mut rig = Rig::new();
    rig.host.jails[0].path = "/jails/web".to_owned();
    let web = rig.host.jails[0].clone();
    for (name, path, is_web) in [
        ("db.x", "/jails/db/x", false),
        // even if the path is equal, from the host
        ("db.x", "/jails/web", false),
        ("new", "/jails/new", false),
        ("www", "/jails/web", true),
        // an earlier kport has not recorded the path
        ("www", "", true),
    ] {
        rig.publish(&request("web", "8080:80")).unwrap();
        rig.host.jails[0] = Jail { name: name.to_owned(), path: path.to_owned(), ..web.clone() };
        let listed =
            |rig: &Rig| rig.with(&rig.sim(), &Unobserved, |p| p.list(Some(&name.parse().unwrap()))).unwrap().len();
        assert_eq!(listed(&rig), usize::from(is_web), "{name} {path}");
        assert_eq!(gc(&rig).changed, !is_web, "{name} {path}");
        rig.host.jails[0] = web.clone();
        rig.unpublish("web").unwrap();
    }
}

#[test]
fn a_dead_jail_does_not_block_its_successor() {
    // the same port, or the same address of a jail with its own network stack
    for (spec, address) in [("8080:80", "10.0.0.3"), ("9090:80", "10.0.0.2")] {
        let mut rig = Rig::new();
        rig.publish(&request("web", "8080:80")).unwrap();
        rig.host.vnet_addresses.insert("db".to_owned(), vec![address.parse().unwrap()]);
        let refused = rig.publish(&request("db", spec)).unwrap_err();
        assert!(refused.message().contains("web"), "{refused}");
        rig.host.jails.remove(0);
        let outcome = rig.publish(&request("db", spec)).unwrap();
        assert!(outcome.notes.iter().any(|note| note == "jail \"web\" is gone: unpublished"), "{outcome:?}");
        let loaded: Vec<String> = rig.loaded().into_iter().map(|(child, _)| child).collect();
        assert_eq!(loaded, ["db"]);
        assert!(!rig.state("jails/web.json").exists());
    }
}

/// A port that stays free for `auto` as well.
#[test]
fn auto_takes_the_port_of_a_dead_jail() {
    let mut rig = Rig::new();
    let range = "8080-8080".parse().unwrap();
    rig.publish(&Request { auto_range: range, ..request("web", "auto:80") }).unwrap();
    let db = Request { auto_range: range, ..request("db", "auto:80") };
    assert_eq!(rig.publish(&db).unwrap_err().kind(), Kind::Conflict);
    rig.host.jails.remove(0);
    assert_eq!(rig.publish(&db).unwrap().redirects[0].host.first(), 8080);
}

/// What is not sure to be gone is not removed; the message says how.
#[test]
fn a_jail_that_may_be_starting_keeps_its_ports() {
    let mut rig = Rig::new();
    rig.host.jails.remove(0);
    early(&rig, "web").unwrap();
    let error = rig.publish(&request("db", "8080:80")).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("is not running; if it is not starting, run kport apply"), "{error}");
    assert_eq!(rig.loaded().len(), 1);
}

/// The clock of the day is set while a jail starts.
#[test]
fn a_clock_step_does_not_end_a_start() {
    let mut rig = Rig::new();
    rig.host.jails.remove(0);
    early(&rig, "web").unwrap();
    for step in [-86_400, 86_400] {
        let path = rig.state("jails/web.json");
        let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["since"] = (record["since"].as_i64().unwrap() + step).into();
        fs::write(path, serde_json::to_vec(&record).unwrap()).unwrap();
        assert!(!gc(&rig).changed);
    }
}

/// The poststart hook of a restart (jail -rc) is given the jid of the earlier start.
#[test]
fn the_jid_of_a_hook_is_that_of_the_jail_that_runs() {
    let mut rig = Rig::new();
    rig.host.jails[0].jid = 9;
    rig.publish(&Request { jid: Some(2), ..request("web", "8080:80") }).unwrap();
    assert_eq!(rig.list()[0].jid, Some(9));
    assert!(!gc(&rig).changed);
    let stopped = rig.with(&rig.sim(), &Unobserved, |p| p.unpublish(&"web".parse().unwrap(), Some(9))).unwrap();
    assert!(stopped.changed && rig.list().is_empty(), "{stopped:?}");
}

/// The state directory was lost, or another one was used: pf still has the rules.
#[test]
fn rules_without_a_record_are_in_use() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80 9000-9100:9000 5353:53/udp")).unwrap();
    for entry in fs::read_dir(rig.path()).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            "sim" => {}
            _ if path.is_dir() => fs::remove_dir_all(path).unwrap(),
            _ => fs::remove_file(path).unwrap(),
        }
    }
    // in the first transaction, and in later ones
    for (spec, word) in [("8080:80", "tcp 8080 on em0"), ("9050:80", "tcp 9050"), ("5353:53/udp", "udp 5353")] {
        let error = rig.publish(&request("db", spec)).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{spec}");
        assert!(error.message().contains("is in anchor kport/web, which has no record"), "{error}");
        assert!(error.message().contains(word) && error.message().contains("kport apply"), "{error}");
    }
    rig.publish(&request("db", "7070:70 8080:80/udp em1:8080:80")).unwrap();
    rig.unpublish("db").unwrap();
    let forced = rig.publish(&Request { force: true, ..request("db", "8080:80") }).unwrap();
    assert!(forced.notes.iter().any(|note| note == "anchor kport/web had no record: cleared"), "{forced:?}");
    assert_eq!(rig.loaded().len(), 1);
    // the port is not in use by the anchor any more, also for the jail itself
    rig.publish(&request("web", "9000-9100:9000")).unwrap();
    assert!(rig.publish(&request("db", "9050:80")).unwrap_err().message().contains("jail \"web\""));
    gc(&rig);
    assert!(!rig.state("unrecorded/web").exists());
}

/// devfs(8) hides /dev/pf in a jail with path=/: pf has the rules all the same.
#[test]
fn a_hidden_device_is_not_an_absent_pf() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    let unpublish = |rig: &Rig| {
        let hidden = Around {
            sim: rig.sim(),
            around: |call: Call<'_>, moment: Moment| match (call, moment) {
                (Call::SetDeadline(_), _) | (_, Moment::After) => Ok(()),
                _ => Err(Error::new(Kind::Unavailable, "open /dev/pf: No such file or directory")),
            },
        };
        rig.with(&hidden, &Unobserved, |p| p.unpublish(&"web".parse().unwrap(), None))
    };
    rig.host.sysctls.insert("net.pf.request_maxcount".to_owned(), 65535);
    let error = unpublish(&rig).unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    assert!(error.message().contains("devfs(8)") && rig.state("jails/web.json").exists(), "{error}");
    // pf was unloaded, and with it its rules
    rig.host.sysctls.remove("net.pf.request_maxcount");
    assert!(unpublish(&rig).unwrap().notes[0].contains("pf has nothing to clear"));
    assert!(!rig.state("jails/web.json").exists());
}
