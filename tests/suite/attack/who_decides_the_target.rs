//! The root of a vnet jail does not decide the target of the host's port.

use std::cell::RefCell;
use std::net::IpAddr;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::{Kind, Result};
use kport::host::{Behind, Fixed, Host, Jail};
use kport::net::Family;
use kport::publisher::{Publisher, Request, Unobserved};
use kport::store::Store;

use crate::support::rig::{Rig, request};

fn web_says(rig: &mut Rig, addresses: &[&str]) {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    rig.host.vnet_addresses.insert("web".to_owned(), addresses);
}

fn refused(rig: &Rig, word: &str) {
    let error = rig.publish(&request("web", "2222:22")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.message().contains(word) && error.message().contains("give its address with -a"), "{error}");
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
    // the target that the administrator gave for db's ports
    let db = Request { addresses: vec!["10.1.0.3".parse().unwrap()], ..request("db", "8080:80") };
    rig.publish(&db).unwrap();
    web_says(&mut rig, &["10.1.0.3"]);
    let error = rig.publish(&request("web", "2222:22")).unwrap_err();
    assert!(error.message().contains("is already the target of redirects of jail \"db\""), "{error}");
    rig.unpublish("db").unwrap();
    rig.publish(&request("web", "2222:22")).unwrap();
    // that of a jail on the host's stack, which no interface has at present
    rig.host.jails[2].addresses = vec!["10.0.0.9".parse().unwrap()];
    web_says(&mut rig, &["10.0.0.9"]);
    let error = rig.publish(&request("web", "2222:22")).unwrap_err();
    assert!(error.message().contains("10.0.0.9, which is an address of jail \"flat\""), "{error}");
}

/// Valid addresses are used; others are noted if their family has no valid one.
#[test]
fn among_right_ones() {
    let mut rig = Rig::new();
    rig.publish(&request("db", "3333:33")).unwrap();
    web_says(&mut rig, &["10.0.0.3", "10.0.0.1", "10.0.0.2"]);
    let done = rig.publish(&request("web", "2222:22")).unwrap();
    assert_eq!(done.redirects.iter().map(|r| r.target.to_string()).collect::<Vec<_>>(), ["10.0.0.2"]);
    assert_eq!(done.notes, [""; 0]);
    web_says(&mut rig, &["10.0.0.2", "2001:db8::99"]);
    // both families or none
    refused(&rig_with(&rig), "2001:db8::99, which is on the network of em0");
    let mut request = request("web", "2222:22");
    request.options.families = vec![Family::Inet];
    assert_eq!(rig.publish(&request).unwrap().redirects.len(), 1);
}

/// The same host, with nothing published.
fn rig_with(rig: &Rig) -> Rig {
    Rig { host: rig.host.clone(), ..Rig::new() }
}

/// What is trusted is the network, and never an address that somebody else has.
#[test]
fn on_a_trusted_network() {
    let trusting = |networks: &[&str]| {
        let trust = networks.iter().map(|network| network.parse().unwrap()).collect();
        Request { trust, ..request("web", "2222:22") }
    };
    let mut rig = Rig::new();
    for (address, network) in
        [("192.0.2.99", "192.0.2.0/24"), ("203.0.113.9", "203.0.113.9/32"), ("2001:db8::9", "::/0")]
    {
        web_says(&mut rig, &[address]);
        let done = rig.publish(&trusting(&["198.51.100.0/24", network])).unwrap();
        assert_eq!(done.redirects[0].target, address.parse::<IpAddr>().unwrap());
        let error = rig.publish(&trusting(&["198.51.100.0/24"])).unwrap_err();
        assert!(error.message().contains("are to be believed with --trust"), "{error}");
    }
    rig.unpublish("web").unwrap();
    let db = Request { addresses: vec!["192.0.2.98".parse().unwrap()], ..request("db", "8080:80") };
    rig.publish(&db).unwrap();
    for (address, word) in
        [("192.0.2.1", "is the host's own"), ("192.0.2.98", "is already the target of redirects of jail \"db\"")]
    {
        web_says(&mut rig, &[address]);
        let error = rig.publish(&trusting(&["0.0.0.0/0"])).unwrap_err();
        assert!(error.message().contains(word) && !error.message().contains("--trust"), "{error}");
    }
}

/// A jail that reports the address of a jail on a trusted network does not keep it from starting, and the other way round
/// it is refused.
#[test]
fn a_trusted_address_is_not_vetoed() {
    let mut rig = Rig::new();
    let says = |rig: &mut Rig, jail: &str| {
        rig.host.vnet_addresses.insert(jail.to_owned(), vec!["10.0.0.44".parse().unwrap()]);
    };
    says(&mut rig, "db");
    rig.publish(&request("db", "9090:90")).unwrap();
    says(&mut rig, "web");
    let web = Request { trust: vec!["10.0.0.0/24".parse().unwrap()], ..request("web", "8080:80") };
    rig.publish(&web).unwrap();
    // db goes on: it is trusted by nobody, but no more than a report is against it
    assert_eq!(rig.list().len(), 2);
    rig.unpublish("db").unwrap();
    let error = rig.publish(&request("db", "9090:90")).unwrap_err();
    assert!(error.message().contains("is already the target of redirects of jail \"web\""), "{error}");
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
    // an address with -a is trusted, even one on no network of the host, behind a router
    rig.publish(&given("web", "10.77.0.2")).unwrap();
    rig.unpublish("web").unwrap();
    // and a jail on the host's stack has only such ones
    rig.publish(&given("flat", "10.9.0.2")).unwrap();
}

/// An address that was valid when it was published, and is another jail's now.
#[test]
fn doctor_reports_whose_a_target_is_now() {
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

/// The rig's host, which records the jails that are asked for their addresses.
struct Asked {
    host: Fixed,
    asked: RefCell<Vec<String>>,
}

impl Host for Asked {
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Host(&self.host))
    }

    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
        self.asked.borrow_mut().push(jail.name.clone());
        self.host.vnet_addresses(jail, within)
    }
}

/// Each question is a process that attaches to the jail: whatever other jails do, they neither delay nor refuse this one.
#[test]
fn only_the_jail_itself_is_asked_and_only_without_an_address() {
    let rig = Rig::new();
    for (addresses, asked) in [(&[][..], &["web"][..]), (&["10.0.0.2"], &[])] {
        let host = Asked { host: rig.host.clone(), asked: RefCell::default() };
        let deadline = Deadline::after(Duration::from_secs(60));
        let sim = rig.sim();
        let publisher = Publisher::new(&host, &sim, Store::open(rig.path()).unwrap(), deadline, &Unobserved);
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        publisher.publish(&Request { addresses, ..request("web", "2222:22") }).unwrap();
        assert_eq!(*host.asked.borrow(), asked);
    }
}

/// The rig's host, where the jail db has assigned web's address as well.
fn with_a_liar() -> Rig {
    let mut rig = Rig::new();
    for jail in ["web", "db"] {
        rig.host.vnet_addresses.insert(jail.to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    }
    rig
}

#[test]
fn a_jail_that_publishes_nothing_is_in_nobodys_way() {
    let rig = with_a_liar();
    let done = rig.publish(&request("web", "2222:22")).unwrap();
    assert_eq!((done.redirects.len(), &done.notes[..]), (1, &[][..]));
    // and now it is too late to take the address by reporting it
    let error = rig.publish(&request("db", "3333:33")).unwrap_err();
    assert!(error.message().contains("is already the target of redirects of jail \"web\""), "{error}");
}

/// The administrator says whose an address is: what was published by a report of it is removed.
#[test]
fn an_address_that_is_given_is_no_longer_anothers_by_its_report() {
    let web = || Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request("web", "2222:22") };
    let jails = |rig: &Rig| rig.loaded().into_iter().map(|(child, _)| child).collect::<Vec<_>>();
    let note = "jail \"db\" has reported 10.0.0.2, which is not its address: unpublished";
    // before web has started, and when it runs; even the same port
    for spec in ["3333:33", "2222:22"] {
        for runs in [true, false] {
            let mut rig = with_a_liar();
            rig.publish(&request("db", spec)).unwrap();
            assert_eq!(rig.publish(&request("web", "2222:22")).unwrap_err().kind(), Kind::Unavailable);
            if !runs {
                rig.host.jails.remove(0);
            }
            assert_eq!(rig.publish(&web()).unwrap().notes, [note]);
            assert_eq!(jails(&rig), ["web"]);
            // it cannot come back by its report
            assert_eq!(rig.publish(&request("db", "3333:33")).unwrap_err().kind(), Kind::Unavailable);
        }
    }
    // the administrator has given it to both
    let rig = with_a_liar();
    let db = Request { jail: "db".parse().unwrap(), spec: "3333:33".parse().unwrap(), ..web() };
    // what is added without an address does not make it less certain
    for given in [db.clone(), Request { add: true, addresses: vec![], spec: "3334:33".parse().unwrap(), ..db.clone() }]
    {
        rig.publish(&given).unwrap();
    }
    assert_eq!(rig.publish(&web()).unwrap().notes, [""; 0]);
    assert_eq!(jails(&rig), ["db", "web"]);
    // or confirmed what it reported
    let rig = with_a_liar();
    rig.publish(&request("db", "3333:33")).unwrap();
    assert!(!rig.publish(&db).unwrap().changed);
    assert_eq!(rig.publish(&web()).unwrap().notes, [""; 0]);
    // an address of a jail on the host's network stack is by the kernel's word
    let mut rig = with_a_liar();
    rig.publish(&request("db", "3333:33")).unwrap();
    rig.host.jails[2].addresses = vec!["10.0.0.2".parse().unwrap()];
    assert_eq!(rig.publish(&request("flat", "2222:22")).unwrap().notes, [note]);
}

/// Containers of one pod use the network stack of the jail above them, so each of them has its addresses.
#[test]
fn jails_on_one_network_stack() {
    let mut rig = Rig::new();
    let pod = rig.host.jails[0].clone();
    let inside = |jid, name: &str| Jail { jid, name: name.to_owned(), stack: 2, ..pod.clone() };
    rig.host.jails.extend([inside(20, "web.one"), inside(21, "web.two")]);
    for name in ["web", "web.one", "web.two"] {
        rig.host.vnet_addresses.insert(name.to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    }
    rig.publish(&request("web.one", "8080:80")).unwrap();
    rig.publish(&request("web.two", "8081:81")).unwrap();
    rig.publish(&request("web", "8082:82")).unwrap();
    // one that has not started yet
    let three = Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request("web.three", "8084:84") };
    assert_eq!(rig.publish(&three).unwrap().notes, [""; 0]);
    assert_eq!(rig.loaded().len(), 4);
    // a stack of its own inside the pod is another one
    rig.host.jails.push(Jail { jid: 22, name: "other".to_owned(), ..pod });
    rig.host.vnet_addresses.insert("other".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
    assert!(rig.publish(&request("other", "8083:83")).unwrap_err().message().contains("jail \"web"));
}
