//! Root of a vnet jail does not decide where the host's port leads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::{Error, Kind, Result};
use kport::host::{Fixed, Host, HostInterface, Jail, Jails, Listener};
use kport::net::{Family, Interface};
use kport::publisher::{Outcome, Publisher, Request, Unobserved};
use kport::store::Store;

use crate::support::rig::{Rig, request};

fn web_says(rig: &mut Rig, addresses: &[&str]) {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    rig.host.vnet_addresses.insert("web".to_owned(), addresses);
}

fn refused(rig: &Rig, word: &str) {
    let error = rig.publish(&request("web", "2222:22")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.message().contains(word) && error.message().ends_with("give its address with -a"), "{error}");
    assert!(rig.loaded().is_empty());
}

#[test]
fn the_hosts_own_address() {
    let mut rig = Rig::new();
    for own in ["10.0.0.1", "192.0.2.7", "10.9.0.2", "fd00::1"] {
        web_says(&mut rig, &[own]);
        refused(&rig, "is the host's own");
    }
}

#[test]
fn a_stranger() {
    let mut rig = Rig::new();
    for (stranger, word) in [
        ("203.0.113.99", "is on no network of the host"),
        ("198.51.100.99", "is on the network of em1"),
        ("192.0.2.99", "is on the network of em0"),
    ] {
        web_says(&mut rig, &[stranger]);
        refused(&rig, word);
    }
}

/// The bridge that has the default route is the outer interface, whatever its group.
#[test]
fn a_neighbour_on_an_outer_bridge() {
    let mut rig = Rig::new();
    rig.host =
        serde_json::to_string(&rig.host).unwrap().replace(r#""inet":"em0""#, r#""inet":"bridge1""#).parse().unwrap();
    web_says(&mut rig, &["10.1.0.9"]);
    refused(&rig, "is on the network of bridge1");
}

#[test]
fn another_jails_address() {
    let mut rig = Rig::new();
    // db's own word, not published
    web_says(&mut rig, &["10.0.0.3"]);
    refused(&rig, "jail \"db\" also has");
    // and where an admin has led db's ports
    let db = Request { addresses: vec!["10.1.0.3".parse().unwrap()], ..request("db", "8080:80") };
    rig.publish(&db).unwrap();
    web_says(&mut rig, &["10.1.0.3"]);
    let error = rig.publish(&request("web", "2222:22")).unwrap_err();
    assert!(error.message().contains("is already the target of redirects of jail \"db\""), "{error}");
    rig.unpublish("db").unwrap();
    rig.publish(&request("web", "2222:22")).unwrap();
}

/// What is right is used, and what is not is noted where nothing of its family is left.
#[test]
fn among_right_ones() {
    let mut rig = Rig::new();
    web_says(&mut rig, &["10.0.0.3", "10.0.0.1", "10.0.0.2"]);
    let done = rig.publish(&request("web", "2222:22")).unwrap();
    assert_eq!(done.redirects.iter().map(|r| r.target.to_string()).collect::<Vec<_>>(), ["10.0.0.2"]);
    assert_eq!(done.notes, [""; 0]);
    web_says(&mut rig, &["10.0.0.2", "2001:db8::99"]);
    let done = rig.publish(&request("web", "2222:22")).unwrap();
    assert_eq!(done.redirects.len(), 1);
    assert!(done.notes[0].contains("2001:db8::99, which is on the network of em0"), "{:?}", done.notes);
}

/// A jail inside another one shares its network stack.
#[test]
fn a_jail_in_a_jail() {
    let mut rig = Rig::new();
    let web = rig.host.jails[0].clone();
    rig.host.jails.push(kport::host::Jail { jid: 20, name: "web.inner".to_owned(), ..web });
    rig.host.vnet_addresses.insert("web.inner".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    rig.publish(&request("web.inner", "2222:22")).unwrap();
}

#[test]
fn an_address_that_is_given() {
    let rig = Rig::new();
    let given =
        |jail: &str, address: &str| Request { addresses: vec![address.parse().unwrap()], ..request(jail, "2222:22") };
    let error = rig.publish(&given("web", "10.0.0.1")).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("10.0.0.1 is an address of the host"), "{error}");
    // the administrator decides: an address behind a router is on no network of the host
    rig.publish(&given("web", "10.77.0.2")).unwrap();
    rig.unpublish("web").unwrap();
    // and a jail on the host's stack has no other
    rig.publish(&given("flat", "10.9.0.2")).unwrap();
}

/// What was right when it was published, and is somebody else's by now.
#[test]
fn doctor_says_whose_a_target_has_become() {
    let seen = |rig: &Rig| {
        let found = kport::doctor::examine(&rig.host, &rig.sim(), kport::store::Store::open(rig.path()), None);
        let jails = found.into_iter().filter(|f| f.id == "jails" && f.level == kport::doctor::Level::Problem);
        jails.map(|finding| finding.seen).collect::<Vec<_>>()
    };
    let mut rig = Rig::new();
    rig.publish(&request("web", "em1:2222:22")).unwrap();
    assert_eq!(seen(&rig), [""; 0]);
    rig.host.vnet_addresses.insert("db".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    assert_eq!(
        seen(&rig),
        ["the target of the ports of jail \"web\" is 10.0.0.2, which is now the address of jail \"db\""]
    );
    rig.host.interfaces[2].addresses.push("10.0.0.2/24".parse().unwrap());
    assert_eq!(
        seen(&rig),
        ["the target of the ports of jail \"web\" is 10.0.0.2, which is now an address of the host"]
    );
}

/// The rig's host, with jails that do not answer.
struct Silent {
    host: Fixed,
    /// What comes of asking these.
    errors: BTreeMap<&'static str, Kind>,
    /// Who was asked, and how long each would have been waited for.
    asked: RefCell<Vec<(String, Duration)>>,
    /// Whether these have gone by the time that they are asked.
    gone: bool,
}

impl Silent {
    fn new(rig: &Rig, errors: &[(&'static str, Kind)]) -> Silent {
        let mut host = rig.host.clone();
        let web = host.jails[0].clone();
        for (jid, (name, _)) in (20..).zip(errors).filter(|(_, (name, _))| *name != "db") {
            host.jails.insert(0, Jail { jid, name: (*name).to_owned(), ..web.clone() });
        }
        Silent { host, errors: errors.iter().copied().collect(), asked: RefCell::default(), gone: false }
    }

    fn publish(&self, rig: &Rig) -> Result<Outcome> {
        let deadline = Deadline::after(Duration::from_secs(60));
        let sim = rig.sim();
        let publisher = Publisher::new(self, &sim, Store::open(rig.path()).unwrap(), deadline, &Unobserved);
        publisher.publish(&request("web", "2222:22"))
    }

    fn names(&self) -> Vec<String> {
        self.asked.borrow().iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Host for Silent {
    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        self.host.gateway(family)
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        self.host.interfaces()
    }

    fn jail(&self, name: &str) -> Result<Option<Jail>> {
        let gone = |jail: &Jail| self.gone && self.errors.contains_key(jail.name.as_str());
        Ok(self.host.jail(name)?.filter(|jail| !gone(jail)))
    }

    fn jails(&self) -> Result<Jails> {
        self.host.jails()
    }

    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
        self.asked.borrow_mut().push((jail.name.clone(), within));
        match self.errors.get(jail.name.as_str()) {
            Some(kind) => Err(Error::new(*kind, format!("addresses of jail {}: it does not say", jail.name))),
            None => self.host.vnet_addresses(jail, within),
        }
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        self.host.listeners()
    }

    fn sysctl(&self, name: &str) -> Result<Option<i64>> {
        self.host.sysctl(name)
    }

    fn boot_id(&self) -> Result<String> {
        self.host.boot_id()
    }
}

/// Root of one jail stops what asks it: others publish all the same, and the admin hears who it is.
#[test]
fn a_jail_that_keeps_its_addresses_back() {
    let rig = Rig::new();
    let host = Silent::new(
        &rig,
        &[("evil", Kind::Unavailable), ("evil.one", Kind::Unavailable), ("evil.two", Kind::Unavailable)],
    );
    let done = host.publish(&rig).unwrap();
    assert_eq!(done.redirects.len(), 2);
    let [note] = &done.notes[..] else { panic!("{:?}", done.notes) };
    assert!(note.contains(r#"jail "evil", "evil.two", "evil.one""#) && note.contains("10.0.0.2 or fd00::2"), "{note}");
    // those that the host has made first, and those inside of the silent one not at all
    assert_eq!(host.names(), ["web", "evil", "db"]);
    assert!(host.asked.borrow()[1..].iter().all(|(_, within)| *within <= Duration::from_secs(1)));
    // doctor says what it knows of the others
    let found = kport::doctor::examine(&host, &rig.sim(), Store::open(rig.path()), None);
    assert!(found.iter().any(|f| f.id == "jails" && f.level == kport::doctor::Level::Ok), "{found:?}");
    // the others' addresses are still theirs
    let mut host = Silent::new(&rig, &[("evil", Kind::Unavailable)]);
    host.host.vnet_addresses.insert("web".to_owned(), vec!["10.0.0.3".parse().unwrap()]);
    let error = host.publish(&rig).unwrap_err();
    assert!(error.message().contains("jail \"db\" also has"), "{error}");
}

/// A jail that ended meanwhile has no address, and is not reported.
#[test]
fn a_jail_that_has_gone_meanwhile() {
    let rig = Rig::new();
    let mut host = Silent::new(&rig, &[("db", Kind::Unavailable)]);
    host.gone = true;
    assert_eq!(host.publish(&rig).unwrap().notes, [""; 0]);
}

/// What is not the jail's doing leaves it open whose the address is, and what is open is closed.
#[test]
fn a_jail_that_could_not_be_asked() {
    let rig = Rig::new();
    for kind in [Kind::Busy, Kind::System, Kind::Permission] {
        let error = Silent::new(&rig, &[("db", kind)]).publish(&rig).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(
            error.message().contains("addresses of jail db") && error.message().ends_with("give its address with -a"),
            "{error}"
        );
        assert!(rig.loaded().is_empty());
    }
}
