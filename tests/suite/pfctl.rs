//! The pfctl(8) backend against a stand-in: every answer that the real one has given, or can give by its source, and
//! children and callers that behave in unusual ways.

#![allow(unsafe_code)]

use crate::support::standin;

use std::num::NonZeroU32;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::standin::{BUSY, Fault};
use kport::deadline::Deadline;
use kport::error::{Error, Kind};
use kport::name::{Anchor, JailName};
use kport::net::{Family, Place, PortRange, Protocol};
use kport::options::{Limits, Options};
use kport::pf::pfctl::{Helpers, Invocation, OutOfTags, Pfctl, Trace, is_without_device};
use kport::pf::{Counters, Firewall, Loaded, States, Status};
use kport::publication::{Publication, Targets, redirects};
use kport::rule::{Rule, text};
use kport::rules::rules;

/// Long enough for any machine; what works takes a small part of it.
const AMPLE: Duration = Duration::from_secs(60);

fn pfctl(standin: &standin::Pfctl) -> Pfctl {
    within(standin, AMPLE)
}

fn traced(standin: &standin::Pfctl, trace: Box<Trace>) -> Pfctl {
    pfctl(standin).with(Helpers { trace: Some(trace), ..Helpers::default() })
}

fn within(standin: &standin::Pfctl, time: Duration) -> Pfctl {
    Pfctl::new(standin.program(), Deadline::after(time))
}

fn jail() -> JailName {
    "web".parse().unwrap()
}

fn web() -> Anchor {
    jail().anchor()
}

/// All states of the jail.
fn of_the_jail() -> [States; 1] {
    [States { jail: Some(jail().label()), ..States::default() }]
}

/// The rules of jail web, 10.0.0.2 and fd00::2, published on em0.
fn some(spec: &str) -> Vec<Rule> {
    with(spec, Options::default())
}

fn with(spec: &str, options: Options) -> Vec<Rule> {
    let targets = Targets::choose(&jail(), &["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]).unwrap();
    let redirects = redirects(&jail(), &kport::spec::parse(spec).unwrap(), &targets, |_| "em0".parse()).unwrap();
    let publication = Publication::new(jail(), redirects, options, |_| Ok(Some("bridge0".parse().unwrap()))).unwrap();
    let rules = rules(&publication);
    assert!(!rules.is_empty());
    rules
}

fn recording(name: &str, what: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/standin/recordings/{name}.{what}"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// With the same commands in the same order, the stand-in prints the same as the real one.
#[test]
fn the_stand_in_is_like_the_real_one() {
    let standin = standin::Pfctl::new();
    standin.set_states(&[]);
    for name in [
        "04-running",
        "05-main-load",
        "06-load-web",
        "07-load-again",
        "08-show-nat",
        "09-show-rules",
        "10-show-nat-v",
        "11-show-labels",
        "12-show-anchors",
        "13-show-anchors-kport",
        "14-show-anchors-none",
        "15-main-nat",
        "16-main-rules",
        "17-missing-sn",
        "18-missing-sr",
        "19-syntax-error",
        "21-bad-anchor-underscore",
        "22-long-anchor",
        "23-duplicate-rule",
        "25-kill-label-none",
        "27-kill-label",
        "28-empty-load",
        "29-anchors-after-empty",
    ] {
        let command = recording(name, "cmd");
        let input = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&input, recording(name, "stdin")).unwrap();
        let output = Command::new(standin.program())
            .args(command.split_whitespace().skip(1))
            .stdin(input.reopen().unwrap())
            .output()
            .unwrap();
        let mut stdout = String::from_utf8(output.stdout).unwrap();
        let mut expected = recording(name, "stdout");
        if name == "10-show-nat-v" {
            // the numbers are not played
            let rules = |text: &str| {
                text.lines().filter(|line| !line.starts_with("  [")).map(|l| l.to_owned() + "\n").collect()
            };
            (stdout, expected) = (rules(&stdout), rules(&expected));
        }
        if name == "23-duplicate-rule" {
            // the notice is only read from the source, pfctl_load_rule
            assert!(stdout.ends_with(" -- rule was already present\n"), "{stdout}");
            stdout.clear();
        }
        assert_eq!(stdout, expected, "{name}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), recording(name, "stderr"), "{name}");
        assert_eq!(output.status.code().unwrap().to_string(), recording(name, "rc").trim(), "{name}");
    }
    standin.disable();
    let output = Command::new(standin.program()).args(["-s", "Running"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), recording("01-pf-disabled-running", "stdout"));
    assert_eq!(output.status.code().unwrap().to_string(), recording("01-pf-disabled-running", "rc").trim());
}

#[test]
fn recorded_answers() {
    let none = Anchor::from_child("nosuch").unwrap();

    let recorded = standin::Pfctl::replay(&["04-running", "15-main-nat", "16-main-rules"]);
    let all = Status { enabled: true, nat_anchor: true, rdr_anchor: true, anchor: true };
    assert_eq!(pfctl(&recorded).status().unwrap(), all);
    let recorded = standin::Pfctl::replay(&["01-pf-disabled-running", "15-main-nat", "16-main-rules"]);
    assert_eq!(pfctl(&recorded).status().unwrap(), Status { enabled: false, ..all });

    let recorded = standin::Pfctl::replay(&[
        "13-show-anchors-kport",
        "11-show-labels",
        "08-show-nat",
        "25-kill-label-none",
        "27-kill-label",
    ]);
    assert_eq!(pfctl(&recorded).anchors().unwrap(), ["web"]);
    let loaded = pfctl(&recorded).loaded(&web(), false).unwrap();
    assert_eq!((loaded.translations.len(), loaded.filters), (4, 4));
    assert_eq!(pfctl(&recorded).kill_states(&of_the_jail()).unwrap(), 0);
    let no_jail = States { jail: Some("none".parse::<JailName>().unwrap().label()), ..States::default() };
    assert_eq!(pfctl(&recorded).kill_states(&[no_jail]).unwrap(), 0);

    for good in ["06-load-web", "28-empty-load"] {
        pfctl(&standin::Pfctl::replay(&[good])).replace(&web(), &some("8080:80")).unwrap();
    }
    for (bad, anchor, kind, part) in [
        ("19-syntax-error", "bad", Kind::Internal, "line 2, `pass quick inet"),
        ("37-securelevel", "web", Kind::Permission, "kern.securelevel"),
    ] {
        let anchor = Anchor::from_child(anchor).unwrap();
        let rules = some("192.0.2.1:8080:80");
        let error = pfctl(&standin::Pfctl::replay(&[bad])).replace(&anchor, &rules).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(part), "{error}");
    }

    // the texts of a missing anchor
    let standin = standin::Pfctl::new();
    assert_eq!(pfctl(&standin).loaded(&none, true).unwrap(), Loaded::default());
    standin.old();
    assert_eq!(pfctl(&standin).loaded(&none, true).unwrap(), Loaded::default());
    standin.put("", "block in log all\n");
    assert_eq!(pfctl(&standin).anchors().unwrap(), [""; 0]);
    assert_eq!(pfctl(&standin).status().unwrap(), Status { enabled: true, ..Status::default() });
}

#[test]
fn an_anchor_holds_what_was_loaded_last() {
    let standin = standin::Pfctl::new();
    assert_eq!(pfctl(&standin).name(), "pfctl");
    assert_eq!(pfctl(&standin).anchors().unwrap(), [""; 0]);
    assert_eq!(pfctl(&standin).loaded(&web(), true).unwrap(), Loaded::default());
    for spec in ["8080:80", "8080:80", "8080:80 em1:9000-9010:9000-9010/udp [fd00::1]:1:1"] {
        pfctl(&standin).replace(&web(), &some(spec)).unwrap();
        assert_eq!(standin.rules("kport/web").unwrap(), text(&some(spec)));
    }
    let app = Anchor::from_child("app").unwrap();
    pfctl(&standin).replace(&app, &some("7:7")).unwrap();
    standin.put("kport/app/of-an-admin", "pass all\n");
    standin.put("kportal/x", "pass all\n");
    assert_eq!(pfctl(&standin).anchors().unwrap(), ["app", "web"]);
    standin.set_counters("10 9 8 1 2 3 4 7");
    let counters = Counters { packets: 9, bytes: 8, states: 7 };
    // two families, and each time the redirected traffic and three groups
    let loaded = Loaded { translations: vec![counters; 2], filters: 8 };
    assert_eq!(pfctl(&standin).loaded(&app, true).unwrap(), loaded);
    assert_eq!(pfctl(&standin).filter_counters(&app).unwrap(), [counters; 8]);
    assert_eq!(pfctl(&standin).loaded_all(&[], true).unwrap()["app"], loaded);
    assert_eq!(pfctl(&standin).loaded_all(&[], false).unwrap()["app"].translations, [Counters::default(); 2]);
    pfctl(&standin).replace(&app, &[]).unwrap();
    assert_eq!(standin.rules("kport/app"), None);
    pfctl(&standin).replace(&app, &[]).unwrap();
    let load = "-q -o none -a kport/web -f -";
    assert_eq!(standin.calls().iter().filter(|call| *call == load).count(), 3);
}

/// They have one label each. doctor by the other backend has nothing to say against them, and a publish loads them with both.
#[test]
fn the_rules_of_native_are_recognized() {
    let standin = standin::Pfctl::new();
    let rules = some("8080:80 9000-9010:9000-9010/udp");
    let one_label = |line: &str| line.match_indices(" label ").nth(1).map_or(line.len(), |(at, _)| at);
    let by_native: String = text(&rules).lines().map(|line| format!("{}\n", &line[..one_label(line)])).collect();
    assert_ne!(by_native, text(&rules));
    standin.put("kport/web", &by_native);
    let found = pfctl(&standin);
    assert!(found.holds(&web(), &rules).unwrap() && found.unchanged(&web(), &rules).unwrap().is_none());
    assert!(!found.holds(&web(), &some("8080:80 9000-9009:9000-9009/udp")).unwrap());
    found.replace(&web(), &rules).unwrap();
    assert!(found.holds(&web(), &rules).unwrap() && found.unchanged(&web(), &rules).unwrap().is_some());
}

#[test]
fn states_are_killed_by_label() {
    let standin = standin::Pfctl::new();
    standin.set_states(&["kport:web kport:web:tcp:80", "kport:web kport:web:tcp:80", "kport:web2 kport:web2:tcp:80"]);
    assert_eq!(pfctl(&standin).kill_states(&of_the_jail()).unwrap(), 2);
    assert_eq!(pfctl(&standin).kill_states(&of_the_jail()).unwrap(), 0);
    let other: JailName = "web2".parse().unwrap();
    let host = PortRange::new(80, 80).unwrap();
    let mapping = States {
        jail: Some(other.label()),
        mapping: Some(other.mapping_label(Protocol::Tcp, host)),
        ports: Some((Protocol::Tcp, host)),
        at: vec![[10, 0, 0, 2].into()],
        ..States::default()
    };
    assert_eq!(pfctl(&standin).kill_states(&[mapping]).unwrap(), 1);
    assert_eq!(standin.states(), [""; 0]);
}

/// Every failure of pfctl(8): the kind, and words of the remedy.
#[test]
fn refusals() {
    let rows = [
        (
            1,
            "stdin:2: syntax error\npfctl: Syntax error in config file: pf rules not loaded\n",
            Kind::Internal,
            "line 2, `rdr on \"em0\" inet6 proto tcp from any to (\"em0\") port 8080 tag \"kport:web\" -> fd00::2 port 80`: syntax error",
        ),
        (
            1,
            "stdin:1: macro 'x' not defined\npfctl: Syntax error in config file: pf rules not loaded\n",
            Kind::Internal,
            "line 1, `rdr on \"em0\" inet proto",
        ),
        (
            1,
            "no IP address found for x\nstdin:1: could not parse host specification\npfctl: Syntax error in config file: pf rules not loaded\n",
            Kind::Internal,
            "could not parse host",
        ),
        (1, "pfctl: DIOCADDRULE: Invalid argument\n", Kind::System, "DIOCADDRULE: Invalid argument"),
        (1, "pfctl: DIOCADDRULE: Cannot allocate memory\n", Kind::System, "memory"),
        (1, "pfctl: pfctl_rules\n", Kind::System, "set limit anchors"),
        (1, "pfctl: pfctl_rules\npfctl: DIOCXROLLBACK: Operation not permitted\n", Kind::Permission, "securelevel"),
        (1, "pfctl: /dev/pf: No such file or directory\n", Kind::Unavailable, "kldload pf"),
        (1, "pfctl: /dev/pf: Permission denied\n", Kind::Permission, "root"),
        (1, "pfctl: Failed to open netlink: Protocol not supported\n", Kind::Unavailable, "kldload netlink"),
        (1, "pfctl: DIOCGETALTQS: Inappropriate ioctl for device\n", Kind::System, "different releases"),
        (1, "pfctl: pfctl_rules: strlcpy\n", Kind::Internal, "defect in kport"),
        (
            1,
            "pfctl: anchor names beginning with '_' cannot be modified from the command line\n",
            Kind::Internal,
            "defect",
        ),
        (1, "usage: pfctl [-AdeghMmNnOPqRSrvz]\n", Kind::Unsupported, "FreeBSD 14"),
        (1, "pfctl: what nobody ever saw\n", Kind::System, "what nobody ever saw"),
        (1, "", Kind::System, "exited with status 1 and printed nothing"),
        (0, "pfctl: what nobody ever saw\n", Kind::System, "holds what it held"),
        (0, "pfctl: DIOCXCOMMIT: Operation not permitted\n", Kind::Permission, "holds what it held"),
    ];
    for (status, stderr, kind, part) in rows {
        let standin = standin::Pfctl::new();
        pfctl(&standin).replace(&web(), &some("1:1")).unwrap();
        standin.fault("-f -", Fault::Say(status, stderr));
        let error = pfctl(&standin).replace(&web(), &some("8080:80")).unwrap_err();
        assert_eq!(error.kind(), kind, "{stderr:?}: {error}");
        assert!(error.message().starts_with("load anchor kport/web: "), "{error}");
        assert!(error.message().contains(part), "{stderr:?}: {error}");
        assert_eq!(is_without_device(stderr), part == "kldload pf", "{stderr:?}");
        assert!(!error.message().contains('\n'));
        assert_eq!(standin.rules("kport/web").unwrap(), text(&some("1:1")), "{stderr:?}");
    }
}

/// pfctl(8) prints the same for a load at the same time and for a tag for which pf has no number. The kernel is asked which.
#[test]
fn a_tag_for_which_there_is_no_number_is_reported_at_once() {
    let standin = standin::Pfctl::new();
    standin.faults("-f -", 1, 100, Fault::Say(1, "pfctl: DIOCADDRULE: Device busy\n"));
    let why = |_: &Anchor, _: &[Rule]| Some(Error::new(Kind::System, "TAGID_MAX"));
    let with =
        |helper: Box<OutOfTags>| pfctl(&standin).with(Helpers { out_of_tags: Some(helper), ..Helpers::default() });
    let error = with(Box::new(why)).replace(&web(), &some("8080:80")).unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::System, "load anchor kport/web: TAGID_MAX"));
    assert_eq!(standin.calls().len(), 1);
    standin.faults("-f -", 1, 100, Fault::Say(1, "pfctl: DIOCADDRULE: Device busy\n"));
    with(Box::new(|_, _| None)).replace(&web(), &some("8080:80")).unwrap();
}

/// A run that only reads fails if there is text on standard error, whatever the exit status.
#[test]
fn questions_that_fail() {
    type Ask = fn(&Pfctl) -> kport::error::Result<()>;
    let asks: [(&str, Ask); 5] = [
        ("-sA", |p| p.anchors().map(drop)),
        ("-sl", |p| p.loaded(&web(), true).map(drop)),
        ("-k label", |p| p.kill_states(&of_the_jail()).map(drop)),
        ("-s Running", |p| p.status().map(drop)),
        ("-sn", |p| p.foreign_redirects().map(drop)),
    ];
    let faults = [
        (Fault::Say(1, "pfctl: /dev/pf: No such file or directory\n"), Kind::Unavailable),
        (Fault::Say(1, "pfctl: /dev/pf: Permission denied\n"), Kind::Permission),
        (Fault::Say(0, "pfctl: DIOCGETRULES: Operation not permitted\n"), Kind::Permission),
        (Fault::Say(255, "pfctl: DIOCGETSTATUS: Cannot allocate memory\n"), Kind::System),
        (Fault::Say(3, ""), Kind::System),
        (Fault::Abort, Kind::System),
        (Fault::AbortLate, Kind::System),
    ];
    for (part, ask) in asks {
        for (fault, kind) in faults {
            let standin = standin::Pfctl::new();
            standin.put("kport/web", &text(&some("1:1")));
            ask(&pfctl(&standin)).unwrap();
            standin.fault(part, fault);
            let error = ask(&pfctl(&standin)).unwrap_err();
            assert_eq!(error.kind(), kind, "{part} {fault:?}: {error}");
        }
    }
    // the main ruleset always exists: then it is not an answer
    let standin = standin::Pfctl::new();
    standin.fault("-q -sn", Fault::Say(0, "pfctl: DIOCGETRULES: Invalid argument\n"));
    assert_eq!(pfctl(&standin).status().unwrap_err().kind(), Kind::System);
    assert_eq!(pfctl(&standin).foreign_redirects().unwrap_err().kind(), Kind::System);
    standin.heal();
    // removed before or between the calls: EINVAL, ENOENT, or pfctl's own message
    for gone in [
        "pfctl: Anchor does not exist.",
        "pfctl: DIOCGETRULES: Invalid argument",
        "pfctl: DIOCGETRULE: No such file or directory",
        "pfctl: DIOCGETRULENV: No such file or directory",
    ] {
        standin.fault("-sl", Fault::Warn(gone));
        assert_eq!(pfctl(&standin).loaded(&web(), true).unwrap(), Loaded::default(), "{gone}");
        standin.heal();
    }
    standin.put("kport/web", "pass all label \"a\"\n");
    standin.set_counters("1 2 3");
    standin.heal();
    assert!(pfctl(&standin).loaded(&web(), true).unwrap_err().message().contains("a 1 2 3"));
}

#[test]
fn no_program() {
    let dir = tempfile::tempdir().unwrap();
    let deadline = Deadline::after(AMPLE);
    let error = Pfctl::new(dir.path().join("pfctl"), deadline).status().unwrap_err();
    assert_eq!(error.kind(), Kind::Argument, "{error}");
    let error = Pfctl::new(dir.path(), deadline).status().unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    let error = Pfctl::new("pfctl", deadline).status().unwrap_err();
    assert_eq!(error.kind(), Kind::Argument, "{error}");
}

/// What pfctl(8) prints of all jails, or of the rules that a jail loses, is of any size.
#[test]
fn many_rules_of_one_jail_stop_nobody() {
    let standin = standin::Pfctl::new();
    let rules = |label: &str, count: usize| {
        format!(
            "pass quick inet proto tcp from any to 10.0.0.2 port = 80 flags S/SA keep state label \"{label:.<250}\"\n"
        )
        .repeat(count)
    };
    // 70 MB
    for anchor in ["kport/big", "kport/large"] {
        standin.put(anchor, &rules(anchor, 100_000));
    }
    standin.put("kport/web", &rules("web", 2));
    let loaded = pfctl(&standin).loaded_all(&[], false).unwrap();
    let counts: Vec<_> = loaded.iter().map(|(child, loaded)| (child.as_str(), loaded.filters)).collect();
    assert_eq!(counts, [("big", 100_000), ("large", 100_000), ("web", 2)]);
    assert!(pfctl(&standin).clear(&"big".parse::<JailName>().unwrap().anchor()).unwrap());
    assert_eq!(standin.rules("kport/big").unwrap_or_default(), "");
}

/// If a load does not end normally, the contents of the anchor decide.
#[test]
fn loads_that_end_strangely() {
    let short = Duration::from_secs(4);
    for (fault, time, done, kind) in [
        (Fault::Warn("pfctl: a warning of the next release"), AMPLE, true, None),
        (Fault::AbortLate, AMPLE, true, None),
        (Fault::HangLate, short, true, None),
        (Fault::Orphan(20), AMPLE, true, None),
        (Fault::Slow(50), AMPLE, true, None),
        (Fault::Say(0, ""), AMPLE, false, None),
        (Fault::Abort, AMPLE, false, Some((Kind::System, "signal 6"))),
        (Fault::Hang, short, false, Some((Kind::Busy, "did not finish in time"))),
        (Fault::Huge, AMPLE, false, Some((Kind::System, "64 MiB"))),
    ] {
        let standin = standin::Pfctl::new();
        pfctl(&standin).replace(&web(), &some("1:1")).unwrap();
        standin.fault("-f -", fault);
        let result = within(&standin, time).replace(&web(), &some("em1:8080:80 9-11:9-11/udp"));
        match kind {
            None => result.unwrap_or_else(|error| panic!("{fault:?}: {error}")),
            Some((kind, part)) => {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), kind, "{fault:?}: {error}");
                assert!(error.message().contains(part), "{fault:?}: {error}");
                if !matches!(fault, Fault::Huge) {
                    assert!(error.message().contains("the anchor holds what it held before"), "{fault:?}: {error}");
                }
            }
        }
        let held = standin.rules("kport/web").unwrap();
        // (exit status 0 without output is accepted, even if false: the real one does not do that)
        if !matches!(fault, Fault::Huge) {
            assert_eq!(held == text(&some("em1:8080:80 9-11:9-11/udp")), done, "{fault:?}");
        }
    }
    // if the anchor cannot be read either, the error says that its contents are unknown
    let standin = standin::Pfctl::new();
    standin.fault("", Fault::Abort);
    let error = pfctl(&standin).replace(&web(), &some("1:1")).unwrap_err();
    assert!(error.message().contains("what the anchor holds now is unknown"), "{error}");
    // cleared, and died before it could report it
    let standin = standin::Pfctl::new();
    pfctl(&standin).replace(&web(), &some("1:1")).unwrap();
    standin.fault("-f -", Fault::AbortLate);
    pfctl(&standin).replace(&web(), &[]).unwrap();
    assert_eq!(standin.rules("kport/web"), None);
}

/// Any set is recognized when it is printed, and no other set is.
#[test]
fn what_is_loaded_is_recognized() {
    let source = |text: &str| text.parse().unwrap();
    let plain = Options::default();
    let rich = Options {
        hairpin: true,
        host_access: true,
        masquerade: true,
        sources: ["192.0.2.0/24", "198.51.100.7/32", "198.51.100.8", "2001:db8::/32", "<friends>"].map(source).to_vec(),
        limits: Limits { connections: NonZeroU32::new(100), connections_per_source: NonZeroU32::new(10), rate: None },
        log: true,
        quick: false,
        ..Options::default()
    };
    // two mappings to one port have separate tags
    let spec = "8080:80 8081:80 *:9000-9010:9000-9010/udp 192.0.2.1:1:1/sctp";
    let mut fast = rich.clone();
    fast.limits.rate = Some("15/5".parse().unwrap());
    let sets = [
        with(spec, plain.clone()),
        with(spec, rich.clone()),
        with("8080:80", plain),
        with("8080:80", rich),
        with("8080:80", fast),
    ];
    for wanted in &sets {
        for there in &sets {
            let standin = standin::Pfctl::new();
            standin.put("kport/web", &text(there));
            standin.fault("-f -", Fault::Abort);
            let result = pfctl(&standin).replace(&web(), wanted);
            assert_eq!(result.is_ok(), wanted == there, "{}{}{result:?}", text(wanted), text(there));
        }
    }
}

#[test]
fn busy_is_tried_again_until_the_deadline() {
    let standin = standin::Pfctl::new();
    standin.faults("-f -", 4, 100, Fault::Say(1, BUSY));
    standin.faults("-f -", 2, 100, Fault::Say(1, "pfctl: DIOCXCOMMIT: Device busy\n"));
    standin.faults("-sl", 1, 100, Fault::Say(0, "pfctl: DIOCGETRULE: Device busy\n"));
    pfctl(&standin).replace(&web(), &some("8080:80")).unwrap();
    assert_eq!(standin.calls().len(), 7);
    assert_eq!(pfctl(&standin).loaded(&web(), true).unwrap().filters, 8);

    standin.fault("-f -", Fault::Say(1, BUSY));
    let start = Instant::now();
    let error = within(&standin, Duration::from_secs(1)).replace(&web(), &some("1:1")).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    // the deadline may end the last try
    let words = ["another program", "did not finish in time"];
    assert!(words.iter().any(|part| error.message().contains(part)), "{error}");
    assert!(start.elapsed() < AMPLE / 2);
    let error = within(&standin, Duration::ZERO).status().unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert_eq!(standin.rules("kport/web").unwrap(), text(&some("8080:80")));
}

/// An anchor that is removed while pfctl reads all of them ends that run, and the others are still listed.
#[test]
fn half_a_list_is_an_error() {
    for gone in ["pfctl: Anchor does not exist.", "pfctl: DIOCGETRULESETS: No such file or directory"] {
        let standin = standin::Pfctl::new();
        for jail in ["a", "b"] {
            standin.put(&format!("kport/{jail}"), &text(&some("1:1")));
        }
        standin.faults("-sA", 2, 100, Fault::Warn(gone));
        assert_eq!(pfctl(&standin).anchors().unwrap(), ["a", "b"], "{gone}");
        assert_eq!(standin.calls().len(), 3);
    }
}

#[test]
fn many_at_once_while_a_third_is_busy() {
    let standin = standin::Pfctl::new();
    standin.faults("", u64::MAX, 33, Fault::Say(1, BUSY));
    std::thread::scope(|scope| {
        for number in 0..16 {
            let standin = &standin;
            scope.spawn(move || {
                let anchor = Anchor::from_child(&format!("jail{number}")).unwrap();
                let rules = some(&format!("{}:80", 8000 + number));
                pfctl(standin).replace(&anchor, &rules).unwrap();
                assert_eq!(pfctl(standin).loaded(&anchor, true).unwrap().filters, 8);
            });
        }
    });
    assert_eq!(pfctl(&standin).anchors().unwrap().len(), 16);
}

#[test]
fn redirects_of_others() {
    let standin = standin::Pfctl::new();
    standin.put(
        "",
        "\
nat on em0 inet from 10.0.0.0/24 to any -> (em0)
nat-anchor \"kport/*\"
rdr-anchor \"kport/*\"
rdr-anchor \"rdr/*\"
rdr-anchor \"appjail-rdr/*\" on em0 all
rdr-anchor \"gone/*\"
rdr-anchor \"one\" all
rdr pass on em0 inet proto tcp from any to (em0) port = 2222 -> 10.0.0.7 port 22
no rdr on em0 inet proto tcp from any to any port = 25
binat-anchor \"given\" all
binat on em0 inet from 10.0.0.9 to any -> 192.0.2.7
rdr on em0 what a later release may print
anchor \"kport/*\"
anchor \"f2b/*\" in on em0 all
pass in on em0 inet proto udp from any to 192.0.2.1 port = 53 keep state rdr-to 10.0.0.8
",
    );
    standin.put("kport/web", &text(&some("8080:80")));
    standin.put("rdr/db", "rdr on em0 inet proto tcp from any to any port = 5432 -> 10.0.0.5 port 5432\n");
    standin.put("rdr/db/below", "rdr on em0 inet proto tcp from any to any port = 1 -> 10.0.0.5 port 1\n");
    standin.put("rdr/_hidden", "rdr on em0 inet6 proto tcp from any to any port 80:89 -> fd00::9 port 80:89\n");
    standin.put("appjail-rdr/an odd name", "rdr inet proto tcp from any to (self) port = 443 -> 10.0.0.6\n");
    standin.put("one", "rdr-anchor \"two\" all\nrdr-anchor \"/one\" all\nrdr-anchor \"../kport/*\" all\n");
    standin.put("one/two", "rdr on em1 inet proto tcp from any to any -> 10.0.0.1\n");
    standin.put(
        "given",
        "binat on em0 inet from 10.0.0.9 to any -> 192.0.2.8\nrdr on em1 inet proto tcp from any to any -> 10.0.0.1\n",
    );
    standin.put("never-called", "rdr on em1 inet proto tcp from any to any port = 9 -> 10.0.0.1\n");
    standin.put(
        "f2b/x",
        "pass in quick on em1 inet proto tcp from any to any port = 7 flags S/SA keep state rdr-to 10.0.0.1\n",
    );
    for old in [false, true] {
        if old {
            standin.old();
        }
        let mut found: Vec<String> = pfctl(&standin)
            .foreign_redirects()
            .unwrap()
            .into_iter()
            .map(|r| {
                let word = |part: Option<String>| part.unwrap_or_else(|| "any".to_owned());
                let (family, protocol) =
                    (word(r.family.map(|f| f.to_string())), word(r.protocol.map(|p| p.to_string())));
                format!("{:?} {family} {protocol} {} {}", r.anchor, r.place, word(r.ports.map(|p| p.to_string())))
            })
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "\"\" any any em0 any",
                "\"\" inet any 192.0.2.7 any",
                "\"\" inet tcp em0 2222",
                "\"\" inet udp 192.0.2.1 53",
                "\"appjail-rdr/an odd name\" inet tcp * 443",
                "\"f2b/x\" inet tcp em1 7",
                "\"given\" inet any 192.0.2.8 any",
                "\"one/two\" inet tcp em1 any",
                "\"rdr/_hidden\" inet6 tcp em0 80-89",
                "\"rdr/db\" inet tcp em0 5432",
            ]
        );
    }
    assert!(!standin.calls().iter().any(|call| call.contains("kport")), "kport's own anchors are not read");
    // what the message shows
    let found = pfctl(&standin).foreign_redirects().unwrap();
    let ssh = found.iter().find(|r| r.ports == PortRange::new(2222, 2222)).unwrap();
    assert_eq!((ssh.family, ssh.place), (Some(Family::Inet), Place::Interface("em0".parse().unwrap())));
    assert_eq!(ssh.text, "rdr pass on em0 inet proto tcp from any to (em0) port = 2222 -> 10.0.0.7 port 22");
    // a main ruleset that calls every anchor
    standin.put("", "rdr-anchor \"*\" all\n");
    let anchors: Vec<String> = pfctl(&standin).foreign_redirects().unwrap().into_iter().map(|r| r.anchor).collect();
    assert!(
        anchors.contains(&"never-called".to_owned()) && !anchors.iter().any(|a| a.starts_with("kport")),
        "{anchors:?}"
    );
}

#[test]
fn every_run_is_traced() {
    let standin = standin::Pfctl::new();
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let pfctl = traced(&standin, Box::new(move |run: &Invocation<'_>| *log.lock().unwrap() += &format!("{run}\n")));
    pfctl.replace(&web(), &some("192.0.2.1:8080:80")).unwrap();
    standin.put("kport/web", "pass all label \"\u{1b}[2J\"\n");
    pfctl.loaded(&web(), false).unwrap();
    standin.fault("-k", Fault::Say(1, "pfctl: oops\n"));
    pfctl.kill_states(&of_the_jail()).unwrap_err();
    let seen = seen.lock().unwrap().clone();
    let program = standin.program().display().to_string();
    let parts: Vec<&str> = seen.split(&program).collect();
    assert_eq!(parts.len(), 5, "{seen}");
    assert!(parts[1].starts_with(" -q -o none -a kport/web -f -: "), "{seen}");
    assert!(
        parts[1].contains(
            " ms, exit status 0\n  < rdr inet proto tcp from any to 192.0.2.1 port 8080 tag \"kport:web\" -> 10.0.0.2 port 80\n"
        ),
        "{seen}"
    );
    assert!(parts[3].ends_with(" ms, exit status 0\n  > \\u{1b}[2J 0 0 0 0 0 0 0 0\n"), "{seen}");
    assert!(parts[4].ends_with(" ms, exit status 1\n  ! pfctl: oops\n"), "{seen}");
}

/// Runs a test in a process of its own: it changes or counts what belongs to the whole process.
fn alone(test: &str, scenario: impl FnOnce()) {
    if std::env::var_os("KPORT_TEST_ALONE").is_some() {
        return scenario();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("pfctl::{test}"), "--test-threads=1", "--nocapture"])
        .env("KPORT_TEST_ALONE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a jail manager does with the backend, and the expected results.
fn whole_day(standin: &standin::Pfctl) {
    standin.set_states(&["kport:web kport:web:tcp:8080"]);
    pfctl(standin).replace(&web(), &some("8080:80")).unwrap();
    assert_eq!(standin.rules("kport/web").unwrap(), text(&some("8080:80")));
    assert_eq!(pfctl(standin).anchors().unwrap(), ["web"]);
    assert_eq!(pfctl(standin).loaded(&web(), true).unwrap().filters, 8);
    assert!(pfctl(standin).status().unwrap().enabled);
    assert_eq!(pfctl(standin).foreign_redirects().unwrap(), []);
    assert_eq!(pfctl(standin).kill_states(&of_the_jail()).unwrap(), 1);
    assert_eq!(pfctl(standin).loaded(&Anchor::from_child("nosuch").unwrap(), true).unwrap(), Loaded::default());
    for (fault, kind) in [
        (Fault::Say(1, "pfctl: /dev/pf: Permission denied\n"), Kind::Permission),
        (
            Fault::Say(1, "stdin:1: syntax error\npfctl: Syntax error in config file: pf rules not loaded\n"),
            Kind::Internal,
        ),
        (Fault::Abort, Kind::System),
    ] {
        standin.faults("-f -", 1, 100, fault);
        let error = pfctl(standin).replace(&web(), &some("1:1")).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(standin.rules("kport/web").unwrap(), text(&some("8080:80")));
    }
    standin.faults("-f -", 2, 100, Fault::Say(1, BUSY));
    standin.faults("-f -", 1, 100, Fault::AbortLate);
    pfctl(standin).replace(&web(), &some("1:1 2:2/udp")).unwrap();
    pfctl(standin).replace(&web(), &[]).unwrap();
    assert_eq!(standin.rules("kport/web"), None);
    standin.disable();
    assert!(!pfctl(standin).status().unwrap().enabled);
}

#[test]
fn a_host_that_ignores_sigchld() {
    alone("a_host_that_ignores_sigchld", || {
        let standin = standin::Pfctl::new();
        // SAFETY: no handler is installed, and no other thread of this process depends on it
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        whole_day(&standin);
    });
}

/// A supervisor waits for every child, and so also for ours.
#[test]
fn a_host_that_reaps_every_child() {
    alone("a_host_that_reaps_every_child", || {
        let standin = standin::Pfctl::new();
        std::thread::spawn(|| {
            loop {
                if rustix::process::wait(rustix::process::WaitOptions::empty()).is_err() {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        });
        whole_day(&standin);
    });
}

#[test]
fn a_host_without_standard_descriptors() {
    alone("a_host_without_standard_descriptors", || {
        let standin = standin::Pfctl::new();
        for closed in [&[0][..], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
            let standard = [0, 1, 2].map(|fd| {
                // SAFETY: the three are open: std opens them at the start
                unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) }
            });
            for fd in closed {
                // SAFETY: nothing in this process uses it until it is restored
                unsafe { libc::close(*fd) };
            }
            let result = std::panic::catch_unwind(|| {
                pfctl(&standin).replace(&web(), &some("8080:80")).unwrap();
                assert_eq!(standin.rules("kport/web").unwrap(), text(&some("8080:80")));
                standin.faults("-f -", 1, 100, Fault::Say(1, "pfctl: /dev/pf: Permission denied\n"));
                let error = pfctl(&standin).replace(&web(), &some("1:1")).unwrap_err();
                assert_eq!(error.kind(), Kind::Permission, "{error}");
                let missing = Pfctl::new("/no/such/program", Deadline::after(AMPLE)).status().unwrap_err();
                assert_eq!(missing.kind(), Kind::Argument, "{missing}");
                assert!(pfctl(&standin).status().unwrap().enabled);
                pfctl(&standin).replace(&web(), &[]).unwrap();
                // they are closed as before
                closed.iter().all(|fd| {
                    // SAFETY: only reads a flag
                    unsafe { libc::fcntl(*fd, libc::F_GETFD) == -1 }
                })
            });
            for (fd, kept) in standard.into_iter().enumerate() {
                // SAFETY: kept is the descriptor from above, fd one of the three
                unsafe {
                    libc::dup2(kept, fd as i32);
                    libc::close(kept);
                }
            }
            assert!(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), "{closed:?}");
        }
    });
}

/// The rules of a big jail do not fit into a pipe, and this child does not read them.
#[test]
fn a_host_that_dies_by_sigpipe() {
    alone("a_host_that_dies_by_sigpipe", || {
        let standin = standin::Pfctl::new();
        // SAFETY: the default action is not a handler
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let spec: Vec<String> = (1..2000).map(|port| format!("{port}:{port}")).collect();
        let rules = some(&spec.join(" "));
        assert!(text(&rules).len() > 1 << 20);
        standin.faults("-f -", 1, 100, Fault::Say(1, "pfctl: /dev/pf: Permission denied\n"));
        assert_eq!(pfctl(&standin).replace(&web(), &rules).unwrap_err().kind(), Kind::Permission);
        pfctl(&standin).replace(&web(), &rules).unwrap();
        assert_eq!(pfctl(&standin).loaded(&web(), true).unwrap().filters, 8 * 1999);
    });
}

/// Runs of every kind leave no descriptor and no child in this process.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_behind() {
    alone("nothing_is_left_behind", || {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let standin = standin::Pfctl::new();
        pfctl(&standin).status().unwrap();
        let before = descriptors();
        for fault in [Fault::Say(1, "pfctl: x\n"), Fault::Abort, Fault::Hang, Fault::Huge, Fault::Orphan(1)] {
            standin.faults("-f -", 1, 100, fault);
            let result = within(&standin, Duration::from_secs(2)).replace(&web(), &some("1:1"));
            assert_eq!(result.is_ok(), matches!(fault, Fault::Orphan(_)), "{fault:?} {result:?}");
            pfctl(&standin).loaded(&web(), true).unwrap();
            assert_eq!(descriptors(), before, "{fault:?}");
        }
        _ = Pfctl::new("/no/such/program", Deadline::after(AMPLE)).status().unwrap_err();
        assert_eq!(descriptors(), before);
        // ECHILD: no child, alive or dead
        let left = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
        assert_eq!(left.unwrap_err(), rustix::io::Errno::CHILD);
    });
}

/// The child has its three descriptors, no environment but LC_ALL, and `/`.
#[cfg(target_os = "linux")]
#[test]
fn what_a_child_gets() {
    let standin = standin::Pfctl::new();
    standin.fault("-f -", Fault::Describe);
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let pfctl = traced(&standin, Box::new(move |run: &Invocation<'_>| *log.lock().unwrap() += &format!("{run}\n")));
    pfctl.replace(&web(), &some("1:1")).unwrap_err();
    let seen = seen.lock().unwrap().clone();
    // descriptors that cargo's caller left open for every child do not count
    let inherited = |fd: &str| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or("0").trim().to_owned();
        !info.is_empty() && i32::from_str_radix(&flags, 8).unwrap() & libc::O_CLOEXEC == 0
    };
    let mut said: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("  ! ")).collect();
    said.retain(|line| {
        !line.strip_prefix("fd ").and_then(|l| l.split(' ').next()).is_some_and(|n| n.len() > 1 && inherited(n))
    });
    let starts = ["cwd /", "env LC_ALL=C", "fd 0 /memfd:kport", "fd 1 pipe:", "fd 2 pipe:"];
    assert_eq!(said.len(), starts.len(), "{seen}");
    for (line, start) in said.iter().zip(starts) {
        assert!(line.starts_with(start), "{seen}");
    }
}

#[test]
fn tables_of_the_main_ruleset() {
    let standin = standin::Pfctl::new();
    let has = |name: &str| pfctl(&standin).has_table(&name.parse().unwrap());
    assert!(!has("friends").unwrap());
    standin.set_tables("friends 192.0.2.0/24 2001:db8::7\nempty\n");
    assert!(has("friends").unwrap() && has("empty").unwrap());
    assert!(!has("friend").unwrap() && !has("192.0.2.0").unwrap());
    standin.fault("-sT", Fault::Say(1, "pfctl: /dev/pf: Permission denied\n"));
    assert_eq!(has("friends").unwrap_err().kind(), Kind::Permission);
}

#[test]
fn rulesets_as_values() {
    let standin = standin::Pfctl::new();
    standin.put(
        "",
        "\
nat-anchor \"kport/*\"
rdr-anchor \"kport/*\"
rdr-anchor \"rdr/*\"
anchor \"kport/*\"
anchor \"gone\" all
pass in inet proto tcp from <friends> to any port = 22 flags S/SA keep state
",
    );
    standin.put("kport/web", &text(&some("8080:80")));
    standin.put("rdr/db", "rdr on em0 inet proto tcp from <others> to any port = 5432 -> 10.0.0.5 port 5432\n");
    standin.put("never-called", "block drop all\n");
    standin.set_tables("friends 192.0.2.0/24 !192.0.2.9\nothers\nunnamed 10.0.0.1\n");
    standin.set_skip("lo lo0");
    let read = pfctl(&standin).rulesets(true).unwrap();
    let paths: Vec<&str> = read.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["", "kport/web", "rdr/db", "gone"]);
    let texts: Vec<String> = read.iter().map(|(_, conf)| conf.to_string()).collect();
    assert!(
        texts[0].starts_with(
            "set skip on lo\nset skip on lo0\ntable <friends> { 192.0.2.0/24 ! 192.0.2.9 }\ntable <others> { }\n\
         nat-anchor \"kport/*\" all\n"
        ),
        "{}",
        texts[0]
    );
    assert_eq!(texts[1].lines().filter(|line| line.starts_with("rdr ")).count(), 2, "{}", texts[1]);
    assert_eq!(texts[3], "", "an anchor that is called and not there");
    assert!(read.iter().all(|(_, conf)| conf.unread.is_empty()));
}

/// pf names an anchor without a name `_1`, a number that `-sr` does not show, and the anchors in its braces are below that. So the
/// ruleset of an earlier pf.conf may be among those of this one.
#[test]
fn anchors_that_are_called_in_braces() {
    let standin = standin::Pfctl::new();
    let first = "pass in on em0 all flags S/SA keep state\n";
    let second = "anchor \"x\" all\nanchor in on em1 all {\n  anchor \"y/*\" all\n}\n";
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    standin.put(
        "",
        &format!(
            "anchor \"kport/*\" all\nanchor all {{\n{}}}\nanchor all {{\n{}}}\n",
            indented(first),
            indented(second)
        ),
    );
    standin.put("_1", "anchor \"x\" all\n");
    standin.put("_2", first);
    standin.put("_4", second);
    standin.put("_4/x", "pass in on em0 inet proto tcp from <bad> to any port = 9 rdr-to 10.0.0.9\n");
    standin.put("_4/_5", "anchor \"y/*\" all\n");
    standin.put("_4/_5/y/z", "block drop out all\n");
    standin.put("x", "block drop quick all\n");
    standin.put("_1/x", "block drop quick all\n");
    let read = pfctl(&standin).rulesets(true).unwrap();
    let held: Vec<(&str, String)> =
        read[1..].iter().map(|(path, conf)| (path.as_str(), conf.to_string().trim_end().to_owned())).collect();
    let redirect = "pass in on em0 inet proto tcp from <bad> to any port = 9 flags S/SA keep state rdr-to 10.0.0.9";
    // as counted by the simulator, which reads the text
    assert_eq!(held, [("_2/x", redirect.to_owned()), ("_2/_3/y/z", "block out all".to_owned())]);
    // and the redirect in it is one of another tool
    let found = pfctl(&standin).foreign_redirects().unwrap();
    assert_eq!(found.iter().map(|found| found.anchor.as_str()).collect::<Vec<_>>(), ["_4/x"]);
    // there `kport/*` does not call kport's anchors
    let called = |main: &str| {
        standin.put("", main);
        pfctl(&standin).status().unwrap().anchor
    };
    let main = standin.rules("").unwrap();
    assert!(!called("anchor all {\n  anchor \"kport/*\" all\n}\n"));
    assert!(called("anchor all {\n  anchor \"/kport/*\" all\n}\n"));
    standin.put("", &main);

    // what is loaded differs from what is shown: none of them is omitted
    standin.put("_4", "block drop all\n");
    let found = pfctl(&standin).foreign_redirects().unwrap();
    assert_eq!(found.iter().map(|found| found.anchor.as_str()).collect::<Vec<_>>(), ["_4/x"]);
}

/// A rule of an anchor means the anchor's table of that name, if it has one, else the main ruleset's.
#[test]
fn tables_of_anchors() {
    let standin = standin::Pfctl::new();
    let rule = |table: &str| format!("block drop in quick inet from <{table}> to any\n");
    standin.put("", "anchor \"f2b/*\" all\nanchor \"kport/*\" all\n");
    standin.put("f2b/sshd", &(rule("f2b-sshd") + &rule("friends") + &rule("both")));
    standin.set_tables("friends 192.0.2.0/24\nboth 198.51.100.1\n");
    standin.set_tables_of("f2b/sshd", "f2b-sshd 203.0.113.9\nboth 198.51.100.2\nunnamed 10.0.0.1\n");
    let read = pfctl(&standin).rulesets(true).unwrap();
    let [main, sshd] = [0, 1].map(|at| read[at].1.to_string());
    assert!(main.starts_with("table <both> { 198.51.100.1 }\ntable <friends> { 192.0.2.0/24 }\n"), "{main}");
    assert_eq!(read[1].0, "f2b/sshd");
    assert!(sshd.starts_with("table <both> { 198.51.100.2 }\ntable <f2b-sshd> { 203.0.113.9 }\nblock "), "{sshd}");
}
