//! Publish, unpublish, list, restore and gc with the simulator: what they do, what they refuse, what remains.

use std::fs;

use crate::support::rig::{Rig, files, request};
use kport::error::Kind;
use kport::host::Jail;
use kport::net::{Family, PerFamily};
use kport::pf::Firewall;
use kport::publisher::{Liveness, Request, Unobserved};

fn rows(rig: &Rig) -> Vec<String> {
    rig.list()
        .iter()
        .flat_map(|l| {
            let jail = l.jail.as_ref().map_or("?", |j| j.as_str()).to_owned();
            l.redirects.iter().map(move |(r, _)| format!("{jail} {r} {}", l.liveness.name())).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_examples_of_kleenes_publishing_ports() {
    let rig = Rig::new();
    rig.publish(&request("db", "8080:80/tcp 8080:80/udp em1:9000:90")).unwrap();
    assert_eq!(
        rows(&rig),
        [
            "db tcp 8080 on em0 -> 10.0.0.3:80 live",
            "db udp 8080 on em0 -> 10.0.0.3:80 live",
            "db tcp 9000 on em1 -> 10.0.0.3:90 live",
        ]
    );
}

#[test]
fn both_families_where_the_jail_has_both() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80 192.0.2.7:81:81")).unwrap();
    assert_eq!(
        rows(&rig),
        [
            "web tcp 8080 on em0 -> 10.0.0.2:80 live",
            "web tcp 8080 on em0 -> [fd00::2]:80 live",
            "web tcp 81 on 192.0.2.7 -> 10.0.0.2:81 live",
        ]
    );
}

#[test]
fn a_family_without_default_route_uses_the_gateway_interface_of_the_other() {
    let mut rig = Rig::new();
    rig.host.gateway.inet6 = None;
    rig.publish(&request("web", "8080:80")).unwrap();
    assert_eq!(rows(&rig)[1], "web tcp 8080 on em0 -> [fd00::2]:80 live");
    rig.host.gateway = PerFamily::default();
    let error = rig.publish(&request("web", "8081:80")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("--gateway"), "{error}");
}

#[test]
fn publishing_again_changes_nothing() {
    let rig = Rig::new();
    assert!(rig.publish(&request("web", "8080:80")).unwrap().changed);
    let before = fs::read(rig.state("jails/web.json")).unwrap();
    let again = rig.publish(&request("web", "8080:80")).unwrap();
    assert!(!again.changed);
    assert_eq!(again.redirects.len(), 2);
    assert_eq!(fs::read(rig.state("jails/web.json")).unwrap(), before);
}

#[test]
fn publishing_replaces_the_set() {
    let rig = Rig::new();
    rig.publish(&request("db", "8080:80 8081:81")).unwrap();
    rig.publish(&request("db", "8081:81 8082:82")).unwrap();
    assert_eq!(rows(&rig), ["db tcp 8081 on em0 -> 10.0.0.3:81 live", "db tcp 8082 on em0 -> 10.0.0.3:82 live"]);
    // and what it no longer publishes is free
    rig.publish(&request("web", "8080:80")).unwrap();
}

#[test]
fn unpublish_is_idempotent_and_leaves_nothing() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80 1-65535/udp")).unwrap_err();
    rig.publish(&request("web", "8080:80 1000-65535/udp")).unwrap();
    assert!(rig.unpublish("web").unwrap().changed);
    assert!(!rig.unpublish("web").unwrap().changed);
    assert_eq!(files(rig.path()), ["lock"]);
    assert!(rig.loaded().is_empty());
}

#[test]
fn other_jails_ports_are_refused_before_anything_changes() {
    let rig = Rig::new();
    rig.publish(&request("db", "8000-8100")).unwrap();
    let before = (files(rig.path()), rig.loaded());
    for spec in ["8080:80", "*:8080:80", "192.0.2.7:8100:80", "em0:7000-8000:1", "em1:1:1 8050:1"] {
        for force in [false, true] {
            let mut request = request("web", spec);
            request.force = force;
            let error = rig.publish(&request).unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict, "{spec}");
            assert!(error.message().contains("is published by jail \"db\""), "{error}");
        }
        assert_eq!((files(rig.path()), rig.loaded()), before, "{spec}");
    }
    let error = rig.publish(&request("web", "8080:80")).unwrap_err();
    assert!(error.message().starts_with("tcp 8080 on em0 is published by jail \"db\" (8000-8100)"), "{error}");
    for spec in ["8080:80/udp", "em1:8080:80", "8101:80", "198.51.100.1:8080:80"] {
        rig.publish(&request("web", spec)).unwrap_or_else(|e| panic!("{spec}: {e}"));
    }
}

#[test]
fn a_port_of_the_hosts_own_is_refused_unless_forced() {
    let rig = Rig::new();
    for spec in ["22", "*:22:22", "20-30:80", "*:53:53/udp", "em0:53:53/udp"] {
        let mut request = request("web", spec);
        let error = rig.publish(&request).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{spec}");
        assert!(error.message().contains("--force"), "{error}");
        request.force = true;
        let done = rig.publish(&request).unwrap();
        assert!(done.notes.iter().any(|n| n.starts_with("forced: a socket of the host listens")), "{:?}", done.notes);
        rig.unpublish("web").unwrap();
    }
    rig.publish(&request("web", "em1:53:53/udp")).unwrap();
    // its own service, on an address of the host
    rig.publish(&request("flat", "8100:80 *:80:80")).unwrap();
}

#[test]
fn two_specs_of_one_call_may_not_overlap() {
    let rig = Rig::new();
    for spec in ["8080:80 8080:81", "8080:80 em0:8080:81", "8000-8100 8050:1", "*:80:80 em1:80:81"] {
        let error = rig.publish(&request("web", spec)).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{spec}");
    }
    // the same twice is one mapping
    assert_eq!(rig.publish(&request("db", "8080:80 8080:80 em0:8080:80")).unwrap().redirects.len(), 1);
}

#[test]
fn where_the_address_comes_from() {
    let rig = Rig::new();
    let mut given = request("web", "8080:80");
    given.addresses = ["127.0.0.1", "fe80::1", "10.1.0.9", "10.1.0.10"].map(|a| a.parse().unwrap()).to_vec();
    rig.publish(&given).unwrap();
    assert_eq!(rows(&rig), ["web tcp 8080 on em0 -> 10.1.0.9:80 live"]);
    rig.publish(&request("flat", "8100:80")).unwrap();
    assert_eq!(rows(&rig)[0], "flat tcp 8100 on em0 -> 10.9.0.2:80 live");

    let error = rig.publish(&request("hosty", "8200:80")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("on the host's network"), "{error}");

    let error = rig.publish(&request("nobody", "8200:80")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("-a"), "{error}");

    given.addresses = ["127.0.0.1", "::"].map(|a| a.parse().unwrap()).to_vec();
    let error = rig.publish(&given).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("127.0.0.1 is a loopback address"), "{error}");
}

#[test]
fn a_late_stop_hook_does_not_undo_the_next_start() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    // the jail stops, starts again with another jid, publishes, and then the old stop hook runs
    rig.host.jails[0].jid = 9;
    rig.publish(&request("web", "8080:80")).unwrap();
    let web = "web".parse().unwrap();
    let late = rig.with(&rig.sim(), &Unobserved, |p| p.unpublish(&web, Some(2))).unwrap();
    assert!(!late.changed && late.notes[0].contains("jid 9"), "{late:?}");
    assert_eq!(rows(&rig).len(), 2);
    let right = rig.with(&rig.sim(), &Unobserved, |p| p.unpublish(&web, Some(9))).unwrap();
    assert!(right.changed);
    assert!(rows(&rig).is_empty());
}

#[test]
fn what_pf_lost_is_missing_and_restore_loads_it() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.publish(&request("db", "8081:80")).unwrap();
    let before = rig.loaded();
    fs::remove_file(rig.state("sim/web.json")).unwrap();
    let states: Vec<Liveness> = rig.list().iter().map(|l| l.liveness).collect();
    assert_eq!(states, [Liveness::Live, Liveness::Missing]);
    let done = rig.with(&rig.sim(), &Unobserved, |p| p.restore()).unwrap();
    assert_eq!(done.notes, ["jail \"web\": loaded again"]);
    assert_eq!(rig.loaded(), before);
    assert!(!rig.with(&rig.sim(), &Unobserved, |p| p.restore()).unwrap().changed);
}

#[test]
fn gc_drops_what_belongs_to_jails_that_are_gone() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.publish(&request("db", "8081:80")).unwrap();
    rig.publish(&request("flat", "8082:80")).unwrap();
    // web is gone, db was started again without publishing, and one anchor has no record
    rig.host.jails.retain(|j| j.name != "web");
    rig.host.jails.iter_mut().filter(|j| j.name == "db").for_each(|j| j.jid = 30);
    fs::copy(rig.state("sim/flat.json"), rig.state("sim/orphan.json")).unwrap();
    assert!(rig.list().iter().any(|l| l.liveness == Liveness::Stale && l.anchor.child() == "orphan"));
    let done = rig.with(&rig.sim(), &Unobserved, |p| p.gc()).unwrap();
    assert!(done.changed);
    assert_eq!(done.notes.len(), 3, "{:?}", done.notes);
    assert_eq!(rows(&rig), ["flat tcp 8082 on em0 -> 10.9.0.2:80 live"]);
    assert_eq!(rig.sim().anchors().unwrap(), ["flat"]);
}

#[test]
fn a_dying_jail_is_gone() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.host.jails = vec![Jail { dying: true, ..rig.host.jails[0].clone() }];
    rig.with(&rig.sim(), &Unobserved, |p| p.gc()).unwrap();
    assert!(rows(&rig).is_empty());
}

#[test]
fn a_dying_jail_is_not_the_one_that_starts() {
    let mut rig = Rig::new();
    rig.host.jails = vec![Jail { dying: true, ..rig.host.jails[0].clone() }];
    let error = rig.publish(&request("web", "8080:80")).unwrap_err();
    assert!(error.message().contains("jail \"web\" is not running"), "{error}");
    // published by the hook that runs before the next start
    let early = Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request("web", "8080:80") };
    rig.publish(&early).unwrap();
    assert_eq!(rig.list()[0].jid, None);
    let next = rig.host.jails[0].jid + 10;
    rig.host.jails.push(Jail { jid: next, dying: false, ..rig.host.jails[0].clone() });
    rig.with(&rig.sim(), &Unobserved, |p| p.gc()).unwrap();
    assert_eq!(rows(&rig), ["web tcp 8080 on em0 -> 10.0.0.2:80 live"]);
}

#[test]
fn the_record_of_an_earlier_boot_counts_for_nothing() {
    let mut rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    rig.host.boot_id = "second".into();
    fs::remove_dir_all(rig.state("sim")).unwrap();
    assert!(rows(&rig).is_empty());
    rig.publish(&request("db", "8080:80")).unwrap();
    assert_eq!(rows(&rig), ["db tcp 8080 on em0 -> 10.0.0.3:80 live"]);
    rig.publish(&request("web", "8081:80")).unwrap();
    assert_eq!(rows(&rig).len(), 3);
}

#[test]
fn forwarding_that_is_off_is_reported() {
    let mut rig = Rig::new();
    rig.host.sysctls.insert("net.inet.ip.forwarding".into(), 0);
    let mut request_db = request("db", "8080:80");
    let error = rig.publish(&request_db).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("sysctl net.inet.ip.forwarding=1"), "{error}");
    assert!(rig.loaded().is_empty() && rig.list().is_empty());
    request_db.allow_inert = true;
    let done = rig.publish(&request_db).unwrap();
    assert!(done.notes[0].starts_with("loaded, but without effect"), "{:?}", done.notes);
    // a jail with an address of the host's own is not forwarded to
    rig.publish(&request("flat", "8100:80")).unwrap();
}

#[test]
fn a_file_that_is_not_a_record_is_reported_and_kept() {
    for content in ["", "{", "not json", "{\"version\":1}"] {
        let rig = Rig::new();
        rig.publish(&request("web", "8080:80")).unwrap();
        fs::write(rig.state("jails/web.json"), content).unwrap();
        let listed = rig.list();
        assert!(listed[0].problem.as_ref().unwrap().contains("web.json"), "{listed:?}");
        assert_eq!(listed[0].liveness, Liveness::Stale);
        // its rules are still in pf: no other jail gets the port
        let error = rig.publish(&request("db", "8080:80")).unwrap_err();
        assert!(error.message().contains("web.json"), "{error}");
        let done = rig.publish(&request("web", "8080:80")).unwrap();
        assert!(done.notes[0].contains("damaged"), "{:?}", done.notes);
        assert_eq!(fs::read_to_string(rig.state("damaged/web.1")).unwrap(), content);
        assert_eq!(rig.list()[0].liveness, Liveness::Live);
    }
}

#[test]
fn the_record_of_another_jail_is_not_taken_for_this_one() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    fs::copy(rig.state("jails/web.json"), rig.state("jails/db.json")).unwrap();
    let done = rig.publish(&request("db", "8081:80")).unwrap();
    assert!(done.notes[0].contains("it is of jail \"web\""), "{:?}", done.notes);
    assert_eq!(rows(&rig).len(), 3);
}

#[test]
fn hostile_jail_names_stay_apart() {
    let rig = Rig::new();
    let names = [
        "../../etc",
        "a/b",
        "a b",
        "a\"b",
        "_x",
        "..",
        ".",
        "-f",
        "$(id)",
        "web*",
        "a\\",
        "x+y",
        "{",
        "\u{202e}",
        "%n",
    ];
    for (i, name) in names.iter().enumerate() {
        let mut request = request(name, &format!("{}:80", 9000 + i));
        request.addresses = vec!["10.0.0.2".parse().unwrap()];
        rig.publish(&request).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let listed = rig.list();
    assert_eq!(listed.len(), names.len());
    assert!(listed.iter().all(|l| l.liveness == Liveness::Live));
    for (_, text) in rig.loaded() {
        assert_eq!(text.lines().count(), 3, "{text}");
    }
    for name in names {
        rig.unpublish(name).unwrap();
    }
    assert_eq!(files(rig.path()), ["lock"]);
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    for mode in [0o770, 0o707, 0o1777] {
        fs::set_permissions(rig.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = kport::store::Store::open(rig.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Permission);
    }
    fs::set_permissions(rig.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let link = rig.path().join("link");
    std::os::unix::fs::symlink(rig.path(), &link).unwrap();
    assert_eq!(kport::store::Store::open(&link).unwrap_err().kind(), Kind::Permission);
    assert_eq!(kport::store::Store::open("relative".as_ref()).unwrap_err().kind(), Kind::Argument);
}

#[test]
fn links_in_the_state_directory_are_not_followed() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80")).unwrap();
    let victim = rig.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for place in ["jails/db.json", "jails/db.json.tmp"] {
        std::os::unix::fs::symlink(&victim, rig.state(place)).unwrap();
        _ = rig.publish(&request("db", "8081:80"));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{place}");
        _ = fs::remove_file(rig.state(place));
    }
}

/// The published host ports, in the order of the list.
fn ports(rig: &Rig) -> Vec<u16> {
    rig.list().iter().flat_map(|l| l.redirects.iter().map(|(r, _)| r.host.first()).collect::<Vec<_>>()).collect()
}

#[test]
fn auto_is_a_free_port_and_the_same_at_every_start() {
    let rig = Rig::new();
    let done = rig.publish(&request("db", "auto:80 auto:90-95 em1:auto:80")).unwrap();
    let first = ports(&rig);
    assert_eq!(first.len(), 3);
    assert_eq!(done.redirects.iter().map(|r| r.host.first()).collect::<Vec<_>>(), first);
    assert_eq!(done.redirects[1].host.count(), 6);
    assert!(first.iter().all(|p| *p >= 49152));
    assert!(!rig.publish(&request("db", "auto:80 auto:90-95 em1:auto:80")).unwrap().changed);
    rig.unpublish("db").unwrap();
    rig.publish(&request("db", "auto:80 auto:90-95 em1:auto:80")).unwrap();
    assert_eq!(ports(&rig), first);
    // one more mapping does not change the ports of the others
    rig.publish(&request("db", "8080:80 auto:90-95 auto:80 em1:auto:80")).unwrap();
    let now = ports(&rig);
    assert_eq!([now[2], now[1], now[3]], first[..]);
}

/// One service, which a client uses at one port.
#[test]
fn auto_is_one_port_for_all_protocols() {
    let rig = Rig::new();
    let mut db = request("db", "auto:53/tcp,udp em1:auto:80-82/tcp,udp auto:90");
    db.auto_range = "9000-9009".parse().unwrap();
    // a port that is free for one protocol only
    rig.publish(&request("web", "9000-9003:80/udp 9006:80/tcp")).unwrap();
    let done = rig.publish(&db).unwrap();
    let ports: Vec<_> = done.redirects.iter().map(|r| (r.protocol.name(), r.host.first())).collect();
    assert!(ports[0].1 == ports[1].1 && ports[2].1 == ports[3].1 && ports.len() == 5, "{ports:?}");
    assert_eq!(ports.iter().map(|port| port.0).collect::<Vec<_>>(), ["tcp", "udp", "tcp", "udp", "tcp"]);
    assert!([4, 5, 7, 8, 9].contains(&(ports[0].1 - 9000)), "{ports:?}");
    assert!(!rig.publish(&db).unwrap().changed);
}

#[test]
fn auto_keeps_clear_of_everybody() {
    let mut rig = Rig::new();
    // 8 ports, of which 3 are taken: by a socket, by another jail, by the same call
    rig.host.listeners.push(kport::host::Listener {
        protocol: kport::net::Protocol::Tcp,
        families: PerFamily::only(Family::Inet),
        address: None,
        port: 9001,
    });
    rig.publish(&request("db", "9002:80")).unwrap();
    let mut web = request("web", "9003:80 auto:1 auto:2 auto:3 auto:4 auto:5");
    web.auto_range = "9000-9007".parse().unwrap();
    web.force = true;
    rig.publish(&web).unwrap();
    let mut chosen: Vec<u16> = ports(&rig)[1..].to_vec();
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen, [9000, 9003, 9004, 9005, 9006, 9007]);
    // one more is one too many, and nothing changes
    let before = rig.loaded();
    web.spec = "9003:80 auto:1 auto:2 auto:3 auto:4 auto:5 auto:6".parse().unwrap();
    let error = rig.publish(&web).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("auto:6/tcp: no port from 9000-9007 is free"), "{error}");
    assert_eq!(rig.loaded(), before);
    // a range that does not fit at all
    web.spec = "auto:1-9".parse().unwrap();
    assert_eq!(rig.publish(&web).unwrap_err().kind(), Kind::Conflict);
}

#[test]
fn several_calls_add_up() {
    let rig = Rig::new();
    let mut first = request("db", "8080:80");
    first.add = true;
    assert!(rig.publish(&first).unwrap().changed);
    let mut second = request("db", "em1:8443:443 8080:80/udp");
    second.add = true;
    second.options.sources = vec!["192.0.2.0/24".parse().unwrap()];
    second.options.log = true;
    assert_eq!(rig.publish(&second).unwrap().redirects.len(), 3);
    assert!(!rig.publish(&second).unwrap().changed);
    assert_eq!(
        rows(&rig),
        [
            "db tcp 8080 on em0 -> 10.0.0.3:80 live",
            "db tcp 8443 on em1 -> 10.0.0.3:443 live",
            "db udp 8080 on em0 -> 10.0.0.3:80 live",
        ]
    );
    let text = rig.loaded()[0].1.clone();
    assert!(text.contains("rdr on \"em0\" inet proto tcp from any to (\"em0\") port 8080 "), "{text}");
    assert!(text.contains("rdr on \"em1\" inet proto tcp from 192.0.2.0/24 to (\"em1\") port 8443 "), "{text}");
    // an overlap is refused, also with what was published before
    let mut third = request("db", "*:8080:81");
    third.add = true;
    assert_eq!(rig.publish(&third).unwrap_err().kind(), Kind::Conflict);
    // the same mapping with other options moves
    let mut again = request("db", "8080:80");
    again.add = true;
    again.options.log = true;
    rig.publish(&again).unwrap();
    assert_eq!(rows(&rig).len(), 3);
    // and without add, the set is that of the call
    rig.publish(&request("db", "9000:90")).unwrap();
    assert_eq!(rows(&rig), ["db tcp 9000 on em0 -> 10.0.0.3:90 live"]);
}

#[test]
fn two_publications_to_the_same_port_of_the_jail_stay_apart() {
    let rig = Rig::new();
    rig.publish(&request("db", "8080:80")).unwrap();
    let mut second = request("db", "em1:8080:80");
    second.add = true;
    second.options.sources = vec!["192.0.2.0/24".parse().unwrap()];
    rig.publish(&second).unwrap();
    let text = rig.loaded()[0].1.clone();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let count = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), count, "{text}");
    // the source is checked by the redirect, and the tag passes this on to the pass rule
    assert!(text.contains("from any to (\"em0\") port 8080 tag \"kport:db:tcp:8080\" ->"), "{text}");
    assert!(text.contains("from 192.0.2.0/24 to (\"em1\") port 8080 tag \"kport:db:tcp:8080:1\" ->"), "{text}");
    assert!(
        text.contains("tagged \"kport:db:tcp:8080\" ") && text.contains("tagged \"kport:db:tcp:8080:1\" "),
        "{text}"
    );
}

#[test]
fn single_mappings_are_removed() {
    let rig = Rig::new();
    rig.publish(&request("web", "8080:80 8081:81 em1:8082:82 auto:90")).unwrap();
    let web = "web".parse().unwrap();
    let remove =
        |spec: &str| rig.with(&rig.sim(), &Unobserved, |p| p.unpublish_some(&web, None, &spec.parse().unwrap()));
    let done = remove("8080:80 em1:8082:82 em1:8081:81").unwrap();
    assert!(done.changed);
    assert_eq!(done.notes, ["jail \"web\" has not published em1:8081:81/tcp"]);
    assert_eq!(rows(&rig).len(), 4);
    assert!(rows(&rig)[0].starts_with("web tcp 8081 on em0"));
    // what was removed is free
    rig.publish(&request("db", "8080:80")).unwrap();
    remove("auto:90").unwrap();
    assert!(!remove("8080:80").unwrap().changed);
    assert!(remove("8081:81").unwrap().changed);
    assert_eq!(rows(&rig), ["db tcp 8080 on em0 -> 10.0.0.3:80 live"]);
    assert!(!remove("8081:81").unwrap().changed);
}

#[test]
fn a_missing_table_is_reported_with_the_line_that_fixes_it() {
    let rig = Rig::new();
    let mut friends = request("db", "8080:80");
    friends.options.sources = vec!["<friends>".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
    // the simulator does not know which tables exist
    rig.publish(&friends).unwrap();
    rig.unpublish("db").unwrap();
    fs::create_dir_all(rig.state("sim")).unwrap();
    fs::write(rig.state("sim/main.conf"), "table <others> persist\npass all\n").unwrap();
    let error = rig.publish(&friends).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        error.message().contains("add to /etc/pf.conf: table <friends> persist, then: service pf reload"),
        "{error}"
    );
    assert_eq!(files(&rig.state("jails")), [""; 0]);
    friends.allow_inert = true;
    let done = rig.publish(&friends).unwrap();
    assert!(done.notes[0].starts_with("without effect at present: pf has no table <friends>"), "{:?}", done.notes);
    // the other note: nothing calls kport's anchors there
    assert!(done.notes[1].contains("rdr-anchor \"kport\" and anchor \"kport\""), "{:?}", done.notes);
    let calls = "rdr-anchor \"kport\"\nanchor \"kport\"\n";
    fs::write(rig.state("sim/main.conf"), format!("table <friends> persist\n{calls}")).unwrap();
    friends.allow_inert = false;
    assert_eq!(rig.publish(&friends).unwrap().notes, [""; 0]);
    fs::write(rig.state("sim/main.conf"), "table\n").unwrap();
    let error = rig.publish(&friends).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.message().contains("main.conf line 1"), "{error}");
}

#[test]
fn a_jail_is_published_by_its_name() {
    let rig = Rig::new();
    let error = rig.publish(&request("2", "8080:80")).unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(error.message().contains("\"2\" is the jid of jail \"web\""), "{error}");
}

#[test]
fn a_mapping_without_place_is_removed_where_it_is() {
    let mut rig = Rig::new();
    let web = "web".parse().unwrap();
    let mut given = request("web", "8080:80 8081:81");
    given.gateway = Some("em1".parse().unwrap());
    rig.publish(&given).unwrap();
    let mut added = request("web", "8081:81");
    added.add = true;
    rig.publish(&added).unwrap();
    let remove = |rig: &Rig, spec: &str| {
        rig.with(&rig.sim(), &Unobserved, |p| p.unpublish_some(&web, None, &spec.parse().unwrap())).unwrap()
    };
    // on em1, since another gateway was given
    assert!(remove(&rig, "8080:80").changed);
    // on em0 and on em1: the host's gateway decides
    assert!(remove(&rig, "8081:81").changed);
    assert_eq!(rows(&rig), ["web tcp 8081 on em1 -> 10.0.0.2:81 live", "web tcp 8081 on em1 -> [fd00::2]:81 live"]);
    rig.host.gateway = PerFamily::default();
    assert!(remove(&rig, "8081:81").changed);
    assert!(rig.list().is_empty());
}

#[test]
fn host_access_needs_pf_to_see_what_the_host_sends_itself() {
    let mut rig = Rig::new();
    rig.host.sysctls.insert("net.pf.filter_local".into(), 0);
    let mut wish = request("web", "8080:80");
    rig.publish(&wish).unwrap();
    wish.options.host_access = true;
    let before = rig.loaded();
    let error = rig.publish(&wish).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("sysctl net.pf.filter_local=1"), "{error}");
    assert_eq!(rig.loaded(), before);
    wish.allow_inert = true;
    assert!(rig.publish(&wish).unwrap().notes[0].contains("net.pf.filter_local is 0"));
    rig.host.sysctls.insert("net.pf.filter_local".into(), 1);
    wish.allow_inert = false;
    assert!(!rig.publish(&wish).unwrap().changed);
}

/// The main ruleset of the simulator is written by hand: `port 2222` is that port only.
#[test]
fn a_redirect_of_the_admins_own_is_in_the_way_of_its_port_alone() {
    let rig = Rig::new();
    fs::create_dir_all(rig.state("sim")).unwrap();
    let calls = "rdr-anchor \"kport\"\nanchor \"kport\"\n";
    fs::write(rig.state("sim/main.conf"), format!("rdr on em0 proto tcp to port 2222 -> 10.0.0.9 port 22\n{calls}"))
        .unwrap();
    rig.publish(&request("web", "8080:80 2222:22/udp em1:2222:22")).unwrap();
    let error = rig.publish(&request("db", "2200-2300:1200")).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(error.message().contains("to port 2222"), "{error}");
}

/// The line in a message is that of the administrator's file.
#[test]
fn the_line_of_a_mistake() {
    let rig = Rig::new();
    fs::create_dir_all(rig.state("sim")).unwrap();
    let mistakes = [
        "table",
        "pass inn",
        "pass \"x",
        "pass $x",
        "}",
        "pass from {",
        "anchor x {",
        "include \"gone\"",
        "pass from 10.0.0.0/77",
    ];
    for mistake in mistakes {
        for (before, line) in [("", 1), ("\n", 2), ("# a\n\npass all\nblock \\\n  all\n\n", 7), ("x=\"a\nb\"\n", 3)] {
            for after in ["", "\n", "\n\n# b\n"] {
                let mistake = if before.starts_with('x') { mistake.replace("$x", "$y") } else { mistake.to_owned() };
                let text = format!("{before}{mistake}{after}");
                fs::write(rig.state("sim/main.conf"), &text).unwrap();
                let error = rig.publish(&request("web", "8080:80")).unwrap_err();
                assert!(error.message().contains(&format!("main.conf line {line}: ")), "{text:?}: {error}");
            }
        }
    }
}

/// pf would redirect an sctp packet to the port that it was sent to, whatever the port in the rule.
#[test]
fn sctp_keeps_its_port() {
    let rig = Rig::new();
    for spec in ["8080:80/sctp", "8080:80/tcp,sctp", "auto:80/sctp"] {
        let error = rig.publish(&request("web", spec)).unwrap_err();
        assert!(error.kind() == Kind::Unsupported && error.message().contains("publish 80:80/sctp"), "{spec}: {error}");
        assert!(rig.loaded().is_empty() && rig.list().is_empty(), "{spec}");
    }
    rig.publish(&request("web", "3868/sctp")).unwrap();
}

/// pf accepts the rules, but no packet arrives: each limit that these rules need is named, with its line.
#[test]
fn a_limit_of_pf_that_is_reached_is_noted() {
    for (name, zone, by_source) in
        [("states", "pf_states", false), ("src-nodes", "pf_source_nodes", true), ("anchors", "pf_anchors", false)]
    {
        let mut rig = Rig::new();
        let mut has = |items, by_source: bool| {
            let sysctls = [("stats.current", items), ("limit.max_items", 1000)];
            rig.host.sysctls.extend(sysctls.map(|(of, value)| (format!("vm.uma.{zone}.{of}"), value)));
            let mut request = request("web", &format!("{}:80", 8000 + items));
            request.options.limits.connections_per_source = by_source.then(|| 9.try_into().unwrap());
            rig.publish(&request).unwrap().notes
        };
        // of anchors, each jail takes one
        assert_eq!(has(899, by_source), [""; 0]);
        let near = has(999, by_source);
        assert_eq!(near.len(), usize::from(name == "anchors"));
        assert!(near.iter().all(|note| note.contains("pf has 999 anchors, and its limit is 1000")), "{near:?}");
        assert_eq!(has(1000, false).is_empty(), by_source);
        let notes = has(1000, by_source);
        assert!(
            notes.len() == 1
                && notes[0].contains(&format!("pf has 1000 {name}, and its limit is 1000"))
                && notes[0].contains(&format!("set limit {name} 2000")),
            "{notes:?}"
        );
    }
}
