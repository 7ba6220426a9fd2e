//! The calls of pf in a publish: system calls of the native backend, runs of pfctl(8) of the other one. Neither grows with
//! pf.conf or with the ports of other jails.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::pf::native::{Memory, Native};
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Liveness, Outcome, Publisher, Unobserved};

use crate::support::fake_kernel::{Fake, RULE, State, blank};
use crate::support::rig::{Rig, request};
use crate::support::standin;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// A host with a kernel.
struct Host {
    rig: Rig,
    fake: Fake,
    memory: RefCell<Memory>,
}

impl Host {
    /// With this many more rules in pf.conf, and this many jails that publish a port.
    fn new(rules: usize, jails: u16) -> Host {
        let host = Host { rig: Rig::new(), fake: Fake::new(), memory: RefCell::default() };
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

    fn with<T>(&self, act: impl FnOnce(&Publisher<'_>) -> T) -> T {
        let native = Native::over(&self.fake, soon())
            .with_memory(&self.memory.borrow())
            .with_cache(self.rig.state("pf-rulesets.json"), "first".to_owned());
        self.rig.with(&native, &Unobserved, act)
    }

    /// Another process, which has only the file.
    fn restart(&self) {
        *self.memory.borrow_mut() = Memory::default();
    }

    /// The calls of a publish.
    fn publish(&self, jail: &str, spec: &str) -> (Vec<&'static str>, Outcome) {
        let mut request = request(jail, spec);
        request.addresses = vec!["10.0.0.2".parse().unwrap()];
        let mut outcome = None;
        let calls = self.fake.calls_of(|| outcome = Some(self.with(|p| p.publish(&request)).unwrap()));
        (calls, outcome.unwrap())
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
        for cold in [false, true] {
            if cold {
                host.restart();
            }
            let jail = if cold { "db" } else { "web" };
            let spec = if cold { "9090:90" } else { "8080:80" };
            let (first, outcome) = host.publish(jail, spec);
            assert!(outcome.changed);
            assert_eq!(reads(&first), 0, "{first:?}");
            // those from before, at the two addresses of em0; and whether the kernel is 15
            assert_eq!(first.iter().filter(|call| **call == "DIOCKILLSTATESNV").count(), 2, "{first:?}");
            assert!(first.len() <= 29 + 3 * RULES, "{}: {first:?}", first.len());
            if cold {
                host.restart();
            }
            let (again, outcome) = host.publish(jail, spec);
            assert!(!outcome.changed);
            assert!(again.len() <= 17, "{}: {again:?}", again.len());
            // of its own anchor
            assert_eq!(reads(&again), if cold { RULES } else { 0 }, "{again:?}");
            counts.push((cold, first.len(), again.len()));
        }
    }
    for cold in [false, true] {
        let same: Vec<_> = counts.iter().filter(|(c, ..)| *c == cold).collect();
        assert!(same.iter().all(|count| *count == same[0]), "{same:?}");
    }
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
    host.restart();
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
    let path = host.rig.state("pf-rulesets.json");
    let good = fs::read_to_string(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let misses = |spec: &str| {
        host.restart();
        reads(&host.publish("web", spec).0) > 0
    };
    assert!(!misses("8080:80"));
    let boot = good.replace("\"first\"", "\"second\"");
    let version = good.replace("\"version\":4", "\"version\":3");
    let long = format!("{good}{}", " ".repeat(1 << 24));
    for bad in ["", "{}", &good[..good.len() / 2], &boot, &version, &long, "[1e999]", "\0"] {
        fs::write(&path, bad).unwrap();
        assert!(misses("8081:81"), "{bad:.60}");
        // and is written again
        assert!(!misses("8080:80"));
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(misses("8081:81"));
    let elsewhere = host.rig.state("elsewhere");
    fs::write(&elsewhere, &good).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert!(misses("8080:80"));
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    // one that cannot be written only costs time
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(misses("8081:81") && misses("8080:80"));
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
    // the names, and for each of them the numbers of rules
    assert_eq!(calls.len(), 2 + 21 * (1 + 3), "{calls:?}");
    assert!(!calls.contains(&"DIOCGETRULENV"));
    host.fake.set_counters("kport/web", 1, [9, 3, 4, 300, 500, 2]);
    let list = host.with(|p| p.list_with_counters(None)).unwrap();
    let web = list.iter().find(|listed| listed.anchor.child() == "web").unwrap();
    // three pass rules for each mapping would be counted together
    assert!(web.redirects.iter().all(|(_, counters)| counters.packets == 4 * 7), "{:?}", web.redirects);

    let calls = host.fake.calls_of(|| {
        let done = host.with(|p| p.unpublish(&"web".parse().unwrap(), None)).unwrap();
        assert!(done.changed && done.killed == 2, "{done:?}");
    });
    assert_eq!(calls.iter().filter(|call| **call == "DIOCKILLSTATESNV").count(), 1);
    assert!(calls.len() <= 8, "{calls:?}");
    assert_eq!(host.fake.states(), [state("kport:other1", 20001)]);
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
        pf.calls()[before..].to_vec()
    };
    let runs = |act: &dyn Fn(&Publisher<'_>)| {
        runs_of(Pfctl::new(pf.program(), soon()).skips_from(Box::new(|| Some(vec![]))), act)
    };
    // the first transaction of a boot looks for rules without a record
    runs(&|p| _ = p.unpublish(&"web".parse().unwrap(), None).unwrap());
    for (jail, spec) in [("web", "8080:80"), ("db", "9090:80 9000-9010:9000/udp")] {
        let first = runs(&|p| assert!(p.publish(&request(jail, spec)).unwrap().changed));
        let load = format!("-q -o none -a kport/{jail} -s info -f -");
        assert_eq!(first, ["-q -sn -P", "-q -sr -P", &load, "-q -ss"]);
        let again = runs(&|p| assert!(!p.publish(&request(jail, spec)).unwrap().changed));
        assert_eq!(again, [format!("-q -a kport/{jail} -sr -P"), "-s Running".to_owned()]);
    }
    pf.set_counters("10 9 8 1 2 3 4 7");
    let list = runs(&|p| {
        let list = p.list(None).unwrap();
        assert!(list.len() == 2 && list.iter().all(|listed| listed.liveness == Liveness::Live), "{list:?}");
    });
    assert_eq!(list, ["-q -a * -sn -P", "-q -a * -sr -P"]);
    let list = runs(&|p| {
        let list = p.list_with_counters(None).unwrap();
        let web = list.iter().find(|listed| listed.anchor.child() == "web").unwrap();
        assert!(web.redirects.iter().all(|(_, counters)| (counters.packets, counters.states) == (72, 56)));
    });
    assert_eq!(list, ["-q -a * -sn -P", "-q -a * -sr -P -v"]);
    let gone = runs(&|p| assert!(p.unpublish(&"web".parse().unwrap(), None).unwrap().changed));
    assert_eq!(gone, ["-q -a kport/web -sr -f -", "-k label -k kport:web"]);
    let gone = runs(&|p| assert!(!p.unpublish(&"web".parse().unwrap(), None).unwrap().changed));
    assert_eq!(gone.len(), 2);
    // a kernel with another struct for it: one more run, for the note
    let elsewhere = Pfctl::new(pf.program(), soon()).skips_from(Box::new(|| None));
    let first = runs_of(elsewhere, &|p| assert!(p.publish(&request("web", "8080:80")).unwrap().changed));
    assert_eq!(first[3..], ["-q -v -sI", "-q -ss"]);
    // nothing calls kport's anchors: they are read one by one
    pf.put("", "block in log all\n");
    let list = runs(&|p| assert_eq!(p.list(None).unwrap()[0].liveness, Liveness::Live));
    assert!(list.len() > 3, "{list:?}");
}
