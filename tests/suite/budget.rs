//! The calls of pf in a publish: system calls of the native backend, runs of pfctl(8) of the other one. Neither grows with
//! pf.conf or with the ports of other jails.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::doctor::{self, Level};
use kport::error::Kind;
use kport::pf::Firewall;
use kport::pf::native::Native;
use kport::pf::pfctl::{Helpers, Pfctl};
use kport::publisher::{Liveness, Observer, Outcome, Publisher, Request, Unobserved};
use kport::store::Store;
use kport::trace::{Release, World};

use crate::support::fake_kernel::{Fake, RULE, State, blank};
use crate::support::rig::{Rig, replaced, request};
use crate::support::{offsets as at, standin};

fn skips(skipped: Option<Vec<String>>) -> Helpers {
    Helpers { skipped: Some(Box::new(move || skipped.clone())), ..Helpers::default() }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// The details of a transaction.
#[derive(Default)]
struct Details(RefCell<Vec<String>>);

impl Observer for Details {
    fn detail(&self, text: &str) {
        self.0.borrow_mut().push(text.to_owned());
    }
}

/// A host with a kernel.
struct Host {
    rig: Rig,
    fake: Fake,
}

impl Host {
    /// With this many more rules in pf.conf, and this many jails that publish a port.
    fn new(rules: usize, jails: u16) -> Host {
        let host = Host { rig: Rig::new(), fake: Fake::new() };
        for _ in 0..rules {
            host.fake.hold("", blank(1));
        }
        for n in 0..jails {
            let mut others = request(&format!("other{n}"), &format!("{}:80", 20000 + n));
            others.addresses = vec![[10, 0, 1, n as u8].into()];
            host.with(|p| p.publish(&others)).unwrap();
        }
        host
    }

    fn native(&self) -> Native<&Fake> {
        self.native_until(soon())
    }

    /// As in a process of its own.
    fn native_until(&self, deadline: Deadline) -> Native<&Fake> {
        Native::over(&self.fake, deadline).with_cache(self.rig.state(""), "first".to_owned())
    }

    fn with<T>(&self, act: impl FnOnce(&Publisher<'_>) -> T) -> T {
        self.rig.with(&self.native(), &Unobserved, act)
    }

    /// The calls of a publish.
    fn publish(&self, jail: &str, spec: &str) -> (Vec<&'static str>, Outcome) {
        let (calls, _, outcome) = self.publish_to(jail, "10.0.0.2", spec);
        (calls, outcome)
    }

    /// The calls of a publish, and how often the evaluator was asked.
    fn publish_to(&self, jail: &str, address: &str, spec: &str) -> (Vec<&'static str>, usize, Outcome) {
        let mut request = request(jail, spec);
        request.addresses = vec![address.parse().unwrap()];
        let details = Details::default();
        let mut outcome = None;
        let calls = self.fake.calls_of(|| {
            outcome = Some(self.rig.with(&self.native(), &details, |p| p.publish(&request)).unwrap());
        });
        let details = details.0.into_inner();
        let evaluations = details.iter().find_map(|text| text.strip_prefix("main ruleset: ")).unwrap();
        let evaluations = evaluations.strip_suffix(" evaluations").unwrap().parse().unwrap();
        (calls, evaluations, outcome.unwrap())
    }
}

/// How many rules were read, by ioctl or by netlink.
fn reads(calls: &[&str]) -> usize {
    calls.iter().filter(|call| matches!(**call, "DIOCGETRULENV" | "PFNL_CMD_GETRULE")).count()
}

/// The rdr rule, the pass rule, and one for each of three groups.
const RULES: usize = 5;

#[test]
fn native_asks_next_to_nothing_whatever_pf_conf_and_other_jails_have() {
    let mut counts = vec![];
    for (rules, jails) in [(0, 1), (200, 1), (0, 20), (200, 20)] {
        let host = Host::new(rules, jails);
        let (first, outcome) = host.publish("web", "8080:80");
        assert!(outcome.changed);
        assert_eq!(reads(&first), 0, "{first:?}");
        // states from before are looked for, and there are none
        assert!(first.contains(&"DIOCGETSTATESV2") && !first.contains(&"DIOCKILLSTATESNV"), "{first:?}");
        assert!(first.len() <= 21 + 2 * RULES, "{}: {first:?}", first.len());
        let (again, outcome) = host.publish("web", "8080:80");
        assert!(!outcome.changed);
        assert!(again.len() <= 17, "{}: {again:?}", again.len());
        // nor of its own anchor
        assert_eq!(reads(&again), 0, "{again:?}");
        counts.push((first.len(), again.len()));
    }
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
}

#[test]
fn native_reads_a_main_ruleset_again_when_it_has_changed() {
    let host = Host::new(3, 1);
    let (calls, _) = host.publish("web", "8080:80");
    assert_eq!(reads(&calls), 0);
    // as pfctl -f does: other tickets, and another checksum
    host.fake.hold("", blank(1));
    let (calls, _) = host.publish("web", "8081:81");
    assert_eq!(reads(&calls), 7);
    // another run of pf: its tickets may be the same
    host.fake.set_hostid(2);
    let (calls, ..) = host.publish("web", "8082:82");
    assert_eq!(reads(&calls), 7);
    let (calls, ..) = host.publish("web", "8083:83");
    assert_eq!(reads(&calls), 0);
    // one rule for another, and then a load that takes the same ticket
    let quick = |quick: u8| {
        let mut rule = blank(1);
        rule.bytes[RULE + 908] = quick;
        rule
    };
    host.fake.change_rule("", quick(1));
    assert!(reads(&host.publish("web", "8084:84").0) > 0);
    assert!(reads(&host.publish("web", "8085:85").0) > 0);
    host.fake.reload_main(quick(0));
    assert!(reads(&host.publish("web", "8086:86").0) > 0);
    assert_eq!(reads(&host.publish("web", "8087:87").0), 0);
}

/// The kernel computes `since` from two clocks that tick separately (pf_getstatus), so it does not identify a run of pf.
#[test]
fn native_remembers_while_the_clocks_of_the_kernel_tick() {
    let host = Host::new(3, 1);
    for port in 8000..8010 {
        let (calls, ..) = host.publish("web", &format!("{port}:80"));
        assert_eq!(reads(&calls), 0, "{calls:?}");
    }
}

/// A file that is not kport's own, complete and of this boot, is ignored.
#[test]
fn a_cache_that_cannot_be_trusted_is_a_miss() {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let host = Host::new(3, 1);
    let (outline, rules) = (host.rig.state("pf-outline.cache"), host.rig.state("pf-rulesets.cache"));
    // a publish needs all rules only to judge them
    let publish = |spec: &str| {
        let (calls, evaluations, _) = host.publish_to("web", "10.0.0.2", spec);
        (reads(&calls) > 0, evaluations > 0)
    };
    publish("8080:80");
    let good = fs::read(&outline).unwrap();
    for path in [&outline, &rules] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let boot = replaced(&good, "first", "other");
    let version = [&[good[0] - 1], &good[1..]].concat();
    let long = [&*good, &[0; 1 << 24]].concat();
    for bad in [b"", &b"{}"[..], &good[..good.len() / 2], &boot, &version, &long, b"[1e999]", b"\0"] {
        assert_ne!(bad, good);
        fs::write(&outline, bad).unwrap();
        assert_eq!(publish("8081:81"), (true, true), "{:?}", &bad[..bad.len().min(60)]);
        // and is written again
        assert_eq!(publish("8080:80"), (false, false));
    }
    // what was found, of another version of kport or damaged
    for (from, to) in [("\"version\":\"3 ", "\"version\":\"0 "), ("\"known\":true", "\"known\":1   ")] {
        let bad = replaced(&fs::read(&outline).unwrap(), from, to);
        fs::write(&outline, bad).unwrap();
        assert_eq!(publish("8081:81"), (false, true), "{to}");
        assert_eq!(publish("8080:80"), (false, false));
    }
    // without the rules, what was found still holds
    fs::write(&rules, "{}").unwrap();
    assert_eq!(publish("8081:81"), (false, false));
    assert_eq!(publish("em1:8081:81"), (true, true));
    fs::set_permissions(&outline, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(publish("8081:81"), (true, true));
    let elsewhere = host.rig.state("elsewhere");
    fs::copy(&outline, &elsewhere).unwrap();
    fs::remove_file(&outline).unwrap();
    symlink(&elsewhere, &outline).unwrap();
    assert_eq!(publish("8080:80"), (true, true));
    assert!(!fs::symlink_metadata(&outline).unwrap().is_symlink());
    // one that cannot be written only costs time
    fs::remove_file(&outline).unwrap();
    fs::create_dir(&outline).unwrap();
    assert_eq!(publish("8081:81"), (true, true));
    assert_eq!(publish("8080:80"), (true, true));
}

/// What was found about a main ruleset holds for all mappings that its rules do not distinguish, until the ruleset or the host
/// changes.
#[test]
fn a_main_ruleset_is_judged_once_for_each_class_of_mappings() {
    let mut host = Host::new(0, 0);
    // block drop in quick proto tcp from any to any port = 25, on interfaces that do not matter here
    let mut smtp = blank(1);
    smtp.bytes[RULE + at::PROTO] = 6;
    smtp.bytes[RULE + at::DST + at::PORT..][..2].copy_from_slice(&25u16.to_be_bytes());
    smtp.bytes[RULE + at::DST + at::PORT_OP] = 2;
    smtp.bytes[RULE + at::AF] = 2;
    // and from one network
    smtp.bytes[RULE..][..2].copy_from_slice(&[203, 0]);
    smtp.bytes[RULE + 16..][..2].fill(0xff);
    host.fake.hold("", smtp);
    let evaluations = |host: &Host, (jail, address, spec): (&str, &str, &str)| host.publish_to(jail, address, spec).1;
    assert!(evaluations(&host, ("web", "10.0.0.2", "8080:80")) > 0);
    for (same, mapping) in [
        (true, ("web", "10.0.0.2", "8080:80")),
        (true, ("web", "10.0.0.2", "8081:81")),
        (true, ("db", "10.0.0.3", "9090:80")),
        (true, ("db", "10.0.0.3", "9000-9010:9000")),
        // the place, the protocol, the family, the interface to the jail, a port that a rule distinguishes
        (false, ("web", "10.0.0.2", "em1:8080:80")),
        (false, ("web", "10.0.0.2", "8080:80/udp")),
        (false, ("web", "fd00::2", "8080:80")),
        (false, ("web", "10.1.0.2", "8080:80")),
        (false, ("web", "10.0.0.2", "8025:25")),
        (false, ("web", "10.0.0.2", "8020-8029:20-29")),
        (true, ("web", "10.0.0.2", "7020-7029:20-29")),
    ] {
        assert_eq!(evaluations(&host, mapping) == 0, same, "{mapping:?}");
        assert_eq!(evaluations(&host, mapping), 0, "{mapping:?}");
    }
    let again = ("web", "10.0.0.2", "8082:80");
    // an end of an epair is not part of it, and an address is
    let mut interface = host.rig.host.interfaces[2].clone();
    (interface.name, interface.groups) = ("epair5a".parse().unwrap(), vec!["epair".parse().unwrap()]);
    interface.addresses.clear();
    host.rig.host.interfaces.push(interface);
    assert_eq!(evaluations(&host, again), 0);
    host.rig.host.interfaces[2].addresses.push("10.2.0.1/24".parse().unwrap());
    assert!(evaluations(&host, again) > 0);
    assert_eq!(evaluations(&host, again), 0);
    host.rig.host.gateway.inet = Some("em1".parse().unwrap());
    assert!(evaluations(&host, ("web", "10.0.0.2", "em0:8082:80")) > 0);
    assert_eq!(evaluations(&host, ("web", "10.0.0.2", "em0:8082:80")), 0);
    // the settings, and the rules
    host.fake.set_interfaces(&[("all", true, false), ("lo", true, true)]);
    assert!(evaluations(&host, again) > 0);
    assert_eq!(evaluations(&host, again), 0);
    host.fake.hold("", blank(1));
    assert!(evaluations(&host, again) > 0);
    assert_eq!(evaluations(&host, again), 0);
}

/// A rule that refuses sources, after kport's anchor: a note of each publish, which costs nothing once it was found.
#[test]
fn a_bypassed_blocklist_is_a_note() {
    let host = Host::new(0, 0);
    let mut list = blank(1);
    list.bytes[RULE..][..4].copy_from_slice(&[203, 0, 113, 0]);
    list.bytes[RULE + 16..][..3].fill(0xff);
    list.bytes[RULE + at::AF] = 2;
    list.bytes[RULE + at::DIRECTION] = 1;
    list.bytes[RULE + at::QUICK] = 1;
    let mut more = list.clone();
    more.bytes[RULE + 1] = 1;
    host.fake.hold("", list);
    let expected = "\"block in quick inet from 203.0.113.0/24 to any\" of the main ruleset refuses sources, but not at 8080 \
                    on em0, which jail \"web\" publishes; for a remedy, run kport doctor";
    let (_, evaluations, outcome) = host.publish_to("web", "10.0.0.2", "8080:80");
    assert!(evaluations > 0);
    assert_eq!(outcome.notes, [expected]);
    for (jail, port) in [("web", "8080"), ("web", "8081"), ("db", "9090")] {
        let (calls, evaluations, outcome) = host.publish_to(jail, "10.0.0.2", &format!("{port}:80"));
        assert_eq!((reads(&calls), evaluations), (0, 0));
        let expected = expected.replace("8080", port).replace("\"web\"", &format!("\"{jail}\""));
        assert_eq!(outcome.notes, [expected]);
    }
    // several are one note
    host.fake.hold("", more);
    let (.., outcome) = host.publish_to("web", "10.0.0.2", "8080:80");
    assert_eq!(outcome.notes, [expected.replace(" refuses", " (and 1 more) refuses")]);
    // with rules that are not quick they decide
    let mut request = request("web", "8080:80");
    (request.addresses, request.options.quick) = (vec!["10.0.0.2".parse().unwrap()], false);
    assert_eq!(host.with(|p| p.publish(&request)).unwrap().notes, [""; 0]);
}

#[test]
fn native_unpublishes_and_lists_with_few_calls() {
    let host = Host::new(50, 20);
    host.publish("web", "8080:80 8081:81 9000-9100:9000-9100");
    let state = |label: &str, port| State::new(label, 6, port);
    host.fake.set_states(&[state("kport:web", 8080), state("kport:web", 9050), state("kport:other1", 20001)]);
    let calls = host.fake.calls_of(|| {
        let list = host.with(|p| p.list(None)).unwrap();
        assert!(list.len() == 21 && list.iter().all(|listed| listed.liveness == Liveness::Live));
    });
    let jail = "web".parse().unwrap();
    let one = host.fake.calls_of(|| assert_eq!(host.with(|p| p.list(Some(&jail))).unwrap().len(), 1));
    // of the anchor, and of what calls it; whether pf is enabled, and whether its main ruleset is the one that is known
    let (status, stamps): (Vec<&str>, Vec<&str>) = one.iter().partition(|call| **call == "DIOCGETSTATUSNV");
    assert!(status.len() == 1 && stamps == ["DIOCGETRULES"; 3 + 3 + 4], "{one:?}");
    // the numbers of anchors and of nodes, and for each record the numbers of rules; the same of the rulesets of calls
    let nodes = host.rig.state("calls").read_dir().unwrap().count();
    assert_eq!(calls.len(), 2 + 21 * 3 + 1 + 3 * nodes + 4, "{calls:?}");
    assert!(!calls.contains(&"DIOCGETRULENV"));
    // an anchor without a record: all are listed
    host.fake.hold("kport/unknown", blank(1));
    let list = host.with(|p| p.list(None)).unwrap();
    let stale = list.iter().filter(|listed| listed.liveness == Liveness::Stale);
    assert_eq!((list.len(), stale.map(|listed| listed.anchor.child()).collect()), (22, vec!["unknown"]));
    host.fake.set_rules("kport/unknown", 1, vec![]);
    host.fake.set_counters("kport/web", 4, [9, 3, 4, 300, 500, 2]);
    let list = host.with(|p| p.list_with_counters(None)).unwrap();
    let web = list.iter().find(|listed| listed.anchor.child() == "web").unwrap();
    assert!(web.redirects.iter().all(|(_, counters)| counters.packets == 7), "{:?}", web.redirects);

    // one mapping: the host's interfaces are not asked for, nor is the main ruleset judged
    let details = Details::default();
    let gone = host.rig.with(&host.native(), &details, |p| p.unpublish_some(&jail, None, &"8081:81".parse().unwrap()));
    assert!(gone.unwrap().changed);
    assert!(!details.0.borrow().iter().any(|text| text.starts_with("main ruleset")));
    let calls = host.fake.calls_of(|| {
        let done = host.with(|p| p.unpublish(&"web".parse().unwrap(), None)).unwrap();
        assert!(done.changed && done.killed == 2, "{done:?}");
    });
    assert_eq!(calls.iter().filter(|call| **call == "DIOCKILLSTATESNV").count(), 1);
    // one to remove a call, two for the tickets
    let changed = calls.iter().filter(|call| **call == "DIOCCHANGERULE").count();
    assert_eq!(changed, 3, "{calls:?}");
    assert!(calls.len() <= 8 + changed + 6, "{calls:?}");
    assert_eq!(host.fake.states(), [state("kport:other1", 20001)]);
    // without connections the table is read, but not searched
    host.publish_to("db", "10.0.0.3", "9090:80");
    let calls =
        host.fake.calls_of(|| assert!(host.with(|p| p.unpublish(&"db".parse().unwrap(), None)).unwrap().changed));
    assert!(!calls.contains(&"DIOCKILLSTATESNV"), "{calls:?}");
    assert_eq!(calls.iter().filter(|call| **call == "DIOCGETSTATESV2").count(), 2);
}

/// Whether an anchor is as it was loaded is decided by its tickets and numbers of rules, by a later process as well; if they are not
/// known, its rules are read.
#[test]
fn the_same_ports_again_are_known_by_the_tickets() {
    let host = Host::new(0, 0);
    let ports = "8000:80 8001:81 8002:82 8003:83";
    let again = || {
        let (calls, outcome) = host.publish("web", ports);
        (reads(&calls), outcome.changed)
    };
    let known = (0, false);
    assert!(again().1);
    assert_eq!(again(), known);
    // what an earlier process has left is damaged, of another anchor, or of another run of pf
    let path = host.rig.state("loaded/web.cache");
    let good = std::fs::read(&path).unwrap();
    // its version and its boot are before the number of the run
    let hostid = [&good[..7], &[good[7] ^ 1], &good[8..]].concat();
    for bad in [b"", &b"[]"[..], &good[1..], &replaced(&good, "first", "other"), &hostid] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(again(), (4 * RULES, false), "{bad:?}");
        assert_eq!(again(), known);
    }
    // another program loads the same rules, a part of them, or changes one
    let rules = host.fake.active("kport/web", 1);
    host.fake.set_rules("kport/web", 1, rules.clone());
    assert_eq!(again(), (4 * RULES, false));
    assert_eq!(again(), known);
    host.fake.set_rules("kport/web", 1, rules[1..].to_vec());
    assert_eq!(again(), (0, true));
    host.fake.change_rule("kport/web", blank(1));
    assert!(again().1);
    assert_eq!(again(), known);
    // restore compares the rules
    let calls = host.fake.calls_of(|| assert!(!host.with(|p| p.restore()).unwrap().changed));
    // and the calls: one for each port, and one for the address
    assert_eq!(reads(&calls), 4 * RULES + 5);
    // they go with the rules
    host.with(|p| p.unpublish(&"web".parse().unwrap(), None)).unwrap();
    assert!(!path.exists());
}

/// So many rules that reading them takes longer than a load: they are not read, and if they must be, only in time.
#[test]
fn four_hundred_ports_again_are_no_rules_read_or_the_time_is_up() {
    let host = Host::new(0, 0);
    let ports: String = (8000..8400).map(|port| format!("{port}:80 ")).collect();
    assert!(host.publish("web", ports.trim_end()).1.changed);
    let nodes = host.rig.state("calls").read_dir().unwrap().count();
    let (again, outcome) = host.publish("web", ports.trim_end());
    assert_eq!((reads(&again), outcome.changed), (0, false));
    assert!(nodes > 1 && again.len() <= 17 + 3 * nodes, "{nodes} nodes, {}: {again:?}", again.len());

    let mut same = request("web", ports.trim_end());
    same.addresses = vec!["10.0.0.2".parse().unwrap()];
    let without_time = || {
        let native = host.native_until(Deadline::after(Duration::ZERO));
        let mut done = None;
        let calls = host.fake.calls_of(|| done = Some(host.rig.with(&native, &Unobserved, |p| p.publish(&same))));
        (reads(&calls), done.unwrap())
    };
    let (read, done) = without_time();
    assert!(read == 0 && !done.unwrap().changed);
    std::fs::remove_file(host.rig.state("loaded/web.cache")).unwrap();
    let (read, done) = without_time();
    assert_eq!((read, done.unwrap_err().kind()), (0, Kind::Busy));
}

#[test]
fn an_anchor_without_a_record_is_searched_for_among_many() {
    let host = Host::new(0, 60);
    let stale = || -> Vec<String> {
        let list = host.with(|p| p.list(None)).unwrap();
        let live = list.iter().filter(|listed| listed.liveness == Liveness::Live).count();
        assert_eq!(live, 60);
        let stale = list.iter().filter(|listed| listed.liveness == Liveness::Stale);
        stale.map(|listed| listed.anchor.child().to_owned()).collect()
    };
    let mut unknown = vec![];
    for (name, most) in [("other3x", 7), ("a", 14), ("zz", 100)] {
        host.fake.hold(&format!("kport/{name}"), blank(1));
        unknown.push(name);
        unknown.sort();
        let asked = host.fake.calls_of(|| assert_eq!(stale(), unknown));
        let asked = asked.iter().filter(|call| **call == "DIOCGETRULESET").count();
        assert!((1..=most).contains(&asked), "{name}: {asked}");
    }
    host.fake.set_rules("kport/a", 1, vec![]);
    host.fake.set_rules("kport/zz", 1, vec![]);
    assert_eq!(stale(), ["other3x"]);
}

/// Loops over rules end when the time is up.
#[test]
fn no_rule_is_read_after_the_deadline() {
    let host = Host::new(3, 1);
    let native = Native::over(&host.fake, Deadline::after(Duration::ZERO));
    let anchor = kport::name::Anchor::from_child("other0").unwrap();
    let asked: [(&str, &dyn Fn() -> kport::error::Result<()>); 4] = [
        ("holds", &|| native.holds(&anchor, &[]).map(drop)),
        ("counters", &|| native.loaded(&anchor, true).map(drop)),
        ("status", &|| native.status().map(drop)),
        ("rulesets", &|| native.rulesets(true).map(drop)),
    ];
    let mut refused = 0;
    for (what, ask) in asked {
        let calls = host.fake.calls_of(|| {
            if let Err(error) = ask() {
                assert_eq!(error.kind(), Kind::Busy, "{what}: {error}");
                refused += 1;
            }
        });
        assert_eq!(reads(&calls), 0, "{what}: {calls:?}");
    }
    // no rules are wanted of the first
    assert_eq!(refused, 3);
    assert!(native.loaded(&anchor, false).is_ok());
}

/// The descriptor of the device is checked before an operation, not before each call.
#[test]
fn the_descriptor_is_checked_once_for_each_operation() {
    let host = Host::new(0, 0);
    let checks = |spec: &str| {
        host.fake.renewals.set(0);
        host.publish("web", spec);
        host.fake.renewals.get()
    };
    assert!(checks("8080:80") <= 10);
    let one = checks("8081:80");
    assert!(one <= 7, "{one}");
    assert_eq!(checks("8080:80 9000:90 9001:91 9002:92"), one);
}

/// Doctor reads the rules of each jail once, and trace as well.
#[test]
fn doctor_and_trace_read_each_anchor_once() {
    let counts = |jails: u16| {
        let host = Host::new(2, jails);
        std::fs::remove_file(host.rig.state("pf-rulesets.cache")).unwrap();
        std::fs::remove_file(host.rig.state("pf-outline.cache")).unwrap();
        let of_doctor = host.fake.calls_of(|| {
            let findings = doctor::examine(&host.rig.host, &host.native(), Store::open(host.rig.path()), None);
            assert!(findings.iter().all(|finding| finding.id != "pf" || finding.level == Level::Ok));
        });
        let of_trace = host.fake.calls_of(|| {
            World::of_pf(&host.rig.host, &host.native(), Release::V15).unwrap();
        });
        // five of the main ruleset
        // and two calls of each jail
        assert_eq!(reads(&of_doctor), 5 + (RULES + 2) * usize::from(jails));
        assert_eq!(reads(&of_trace), (RULES + 2) * usize::from(jails));
        (of_doctor.len(), of_trace.len())
    };
    let [(a, x), (b, y), (c, z)] = [1, 5, 20].map(counts);
    assert_eq!((c - b, z - y), (15 * (b - a) / 4, 15 * (y - x) / 4));
}

/// What could not be read is not taken for an empty ruleset.
#[test]
fn a_ruleset_that_cannot_be_read_has_no_notes() {
    let host = Host::new(1, 0);
    host.fake.set_other_kif();
    let (_, evaluations, outcome) = host.publish_to("web", "10.0.0.2", "8080:80");
    assert_eq!((evaluations, outcome.notes), (0, vec![]));
    let host = Host::new(1, 0);
    for errno in [libc::EPERM, libc::EACCES, libc::ENOMEM] {
        host.fake.refuse("PFNL_CMD_GETRULE", usize::MAX, errno);
        let mut request = request("web", "8080:80");
        request.addresses = vec!["10.0.0.2".parse().unwrap()];
        let error = host.with(|p| p.publish(&request)).unwrap_err();
        assert!(error.message().contains("PFNL_CMD_GETRULE") && !error.message().contains("noted"), "{error}");
        assert!(host.fake.active("kport/web", 1).is_empty());
    }
}

/// The start of pfctl(8) costs more than its work.
#[test]
fn pfctl_runs() {
    let pf = standin::Pfctl::new();
    let rig = Arc::new(Rig::new());
    // as a session creates it: the interfaces with set skip are read from /dev/pf
    let runs_of = |pfctl: Pfctl, act: &dyn Fn(&Publisher<'_>)| {
        let before = pf.calls().len();
        rig.with(&pfctl, &Unobserved, |p| act(p));
        let mut runs = pf.calls()[before..].to_vec();
        // what is called is read from there, too
        runs.retain(|run| !run.starts_with("-q -a kport -s"));
        runs
    };
    let runs = |act: &dyn Fn(&Publisher<'_>)| runs_of(Pfctl::new(pf.program(), soon()).with(skips(Some(vec![]))), act);
    // the first transaction of a boot looks for rules without a record
    runs(&|p| _ = p.unpublish(&"web".parse().unwrap(), None).unwrap());
    for (jail, spec) in [("web", "8080:80"), ("db", "9090:80 9000-9010:9000/udp")] {
        let first = runs(&|p| assert!(p.publish(&request(jail, spec)).unwrap().changed));
        let load = format!("-q -o none -a kport/{jail} -s info -f -");
        assert_eq!(first, ["-q -sn -P", "-q -sr -P", &load, "-q -o none -a kport -f -", "-q -ss"]);
        let again = runs(&|p| assert!(!p.publish(&request(jail, spec)).unwrap().changed));
        assert_eq!(again, [format!("-q -a kport/{jail} -sr -P"), "-s Running".to_owned()]);
    }
    pf.set_counters("10 9 8 1 2 3 4 7");
    let list = runs(&|p| {
        let list = p.list(None).unwrap();
        assert!(list.len() == 2 && list.iter().all(|listed| listed.liveness == Liveness::Live), "{list:?}");
    });
    assert_eq!(list, ["-q -a * -sn -P", "-q -a * -sr -P", "-s Running"]);
    let list = runs(&|p| {
        let list = p.list_with_counters(None).unwrap();
        let web = list.iter().find(|listed| listed.anchor.child() == "web").unwrap();
        assert!(web.redirects.iter().all(|(_, counters)| (counters.packets, counters.states) == (18, 14)));
    });
    assert_eq!(list, ["-q -a * -sn -P -v", "-q -a * -sr -P", "-s Running"]);
    // one more jail is no more runs
    for jail in ["", "more"] {
        if !jail.is_empty() {
            runs(&|p| {
                _ = p.publish(&Request { addresses: vec![[10, 0, 0, 9].into()], ..request(jail, "7070:80") }).unwrap()
            });
        }
        let pfctl = Pfctl::new(pf.program(), soon()).with(skips(Some(vec![])));
        let before = pf.calls().len();
        let findings = doctor::examine(&rig.host, &pfctl, Store::open(rig.path()), None);
        let is_fine = |id: &str| findings.iter().all(|finding| finding.id != id || finding.level == Level::Ok);
        assert!(["pf", "anchors-loaded", "other-redirects"].into_iter().all(is_fine), "{findings:?}");
        // the last two only if the calls cannot be read from /dev/pf
        let expected =
            "-sn -P|-sr -P|-s Running|-a * -sn -P|-a * -sr -P|-a kport -sA|-a kport -sn -P|-a kport -sr -P".split('|');
        let expected = expected.map(|run| if run == "-s Running" { run.to_owned() } else { format!("-q {run}") });
        let expected: Vec<String> = expected.collect();
        assert_eq!(pf.calls()[before..], expected);
    }
    // they are listed only if they cannot be read from there
    let known = || Some(vec!["more".to_owned(), "web".to_owned()]);
    let pfctl =
        Pfctl::new(pf.program(), soon()).with(Helpers { anchors: Some(Box::new(known)), ..skips(Some(vec![])) });
    let before = pf.calls().len();
    doctor::examine(&rig.host, &pfctl, Store::open(rig.path()), None);
    assert_eq!((pf.calls().len() - before, pf.calls()[before..].iter().any(|run| run.ends_with("-sA"))), (7, false));
    let gone = runs(&|p| assert!(p.unpublish(&"web".parse().unwrap(), None).unwrap().changed));
    assert_eq!(gone, ["-q -a kport/web -sr -f -", "-k label -k kport:web", "-q -o none -a kport -f -"]);
    let gone = runs(&|p| assert!(!p.unpublish(&"web".parse().unwrap(), None).unwrap().changed));
    assert_eq!(gone.len(), 2);
    // a kernel with another struct for it: one more run, for the note
    let elsewhere = Pfctl::new(pf.program(), soon()).with(skips(None));
    let first = runs_of(elsewhere, &|p| assert!(p.publish(&request("web", "8080:80")).unwrap().changed));
    assert_eq!(first[4..], ["-q -v -sI", "-q -ss"]);
    // nothing calls kport's anchors: they are read one by one
    pf.put("", "block in log all\n");
    let list = runs(&|p| assert_eq!(p.list(None).unwrap()[0].liveness, Liveness::Inert));
    assert!(list.len() > 3, "{list:?}");
}
