//! A publication that nobody can reach from the start is noted.

use std::fs;

use crate::support::rig::{Rig, request, run};
use crate::support::standin;
use kport::deadline::Deadline;
use kport::doctor::{self, Level};
use kport::error::Kind;
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Request, Unobserved};
use kport::store::Store;

use std::time::Duration;

const CALLS: &str = "nat-anchor \"kport\"\nrdr-anchor \"kport\"\npass quick inet6 proto ipv6-icmp\nanchor \"kport\"\n";

/// The notes of publish with this main ruleset; doctor's problems have the same text.
fn notes(main: &str, request: &Request) -> Vec<String> {
    let rig = Rig::new();
    fs::create_dir_all(rig.state("sim")).unwrap();
    fs::write(rig.state("sim/main.conf"), main).unwrap();
    let notes = rig.publish(request).unwrap().notes;
    // publishing again notes it again
    assert_eq!(rig.publish(request).unwrap().notes, notes);
    let found = doctor::examine(&rig.host, &rig.sim(), Store::open(rig.path()), None);
    let problems: Vec<String> = found
        .iter()
        .filter(|finding| finding.level == Level::Problem)
        .map(|finding| format!("{}; {}", finding.seen, finding.remedy))
        .collect();
    assert_eq!(notes, problems, "{main}");
    notes
}

#[test]
fn a_ruleset_that_lets_everything_through_has_no_notes() {
    for main in
        [CALLS, &format!("block in log all\npass out all\n{CALLS}"), &format!("set skip on lo\n{CALLS}block all\n")]
    {
        assert_eq!(notes(main, &request("web", "8080:80")), [""; 0], "{main}");
    }
}

#[test]
fn a_call_with_a_condition() {
    for (main, seen) in [
        (
            CALLS.replace("rdr-anchor \"kport\"", "rdr-anchor \"kport\" on bridge0"),
            "rdr-anchor \"kport\" is called with a condition (on bridge0)",
        ),
        (
            CALLS.replace("\nanchor \"kport\"", "\nanchor \"kport\" in on em0"),
            "anchor \"kport\" is called with a condition (in on em0)",
        ),
    ] {
        let main = main.replace("pass quick", "block log all\npass quick");
        let notes = notes(&main, &request("web", "8080:80"));
        assert!(notes.len() == 1 && notes[0].starts_with(seen), "{main}: {notes:?}");
    }
}

#[test]
fn set_skip_where_it_is_published() {
    let notes = notes(&format!("set skip on em0\n{CALLS}"), &request("web", "8080:80"));
    assert_eq!(
        notes,
        [
            "set skip on em0: pf does not filter em0, on which jail \"web\" is published; remove em0 from the set skip line in \
          /etc/pf.conf, then: service pf reload"
        ]
    );
}

#[test]
fn a_rule_that_is_final_before_the_anchor() {
    for (main, reason) in [
        (format!("block in quick on em0\n{CALLS}"), "blocked (line 3, block in quick on em0)"),
        (format!("no rdr on em0 inet proto tcp from any to any port 8080\n{CALLS}"), "no rdr"),
    ] {
        let main = if main.starts_with("no rdr") { main } else { reordered(&main) };
        let notes = notes(&main, &request("db", "8080:80"));
        assert!(notes.iter().any(|note| note.contains(reason) || note.contains("instead")), "{main}: {notes:?}");
        assert!(notes[0].starts_with("jail \"db\" from the network behind em0"), "{notes:?}");
    }
}

/// Translation rules before filter rules, as pf.conf(5) requires.
fn reordered(main: &str) -> String {
    let (filter, translation): (Vec<&str>, Vec<&str>) =
        main.lines().partition(|line| !line.starts_with("nat-anchor") && !line.starts_with("rdr-anchor"));
    translation.into_iter().chain(filter).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_place_that_is_not_there() {
    let notes = notes(CALLS, &request("db", "wg7:8080:80"));
    assert!(notes[0].starts_with("there is no interface or group wg7, on which jail \"db\" is published"), "{notes:?}");
}

/// Also with pfctl(8), which does not print the skipped interfaces with the rules.
#[test]
fn by_pfctl() {
    let rig = Rig::new();
    let pf = standin::Pfctl::new();
    pf.put("", &reordered(&format!("block drop in quick on em0 all\n{CALLS}")));
    let deadline = || Deadline::after(Duration::from_secs(60));
    let publish = |request: &Request| {
        let firewall = Pfctl::new(pf.program(), deadline());
        run(rig.path(), &rig.host, &firewall, &Unobserved, |publisher| publisher.publish(request)).unwrap().notes
    };
    let notes = publish(&request("db", "8080:80"));
    assert!(notes[0].contains("blocked (\"block drop in quick on em0 all\" of the main ruleset)"), "{notes:?}");
    pf.put("", CALLS);
    assert_eq!(publish(&request("db", "8080:80")), [""; 0]);
    pf.set_skip("em0");
    // publishing again runs pfctl(8) twice, also with the note
    assert_eq!(publish(&request("db", "8080:80")), [""; 0]);
    assert!(publish(&request("db", "8081:80"))[0].starts_with("set skip on em0"));
}

/// A redirect of everything that comes in on em0 also takes packets to the address of em1.
#[test]
fn a_foreign_rule_is_in_the_way_wherever_its_packets_come_in() {
    let every = "rdr on em0 inet proto tcp from any to any port = 8080 -> 10.0.0.9 port 80\n";
    let one = "rdr on em0 inet proto tcp from any to 198.51.100.1 port = 8080 -> 10.0.0.9 port 80\n";
    // rdr rules are evaluated before binat, and would take the packets of the other machine
    let binat = "binat on em0 inet from 10.0.0.9 to any -> 192.0.2.7\n";
    for (rdr, spec, conflict) in [
        (binat, "192.0.2.7:8080:80", true),
        (binat, "em0:8080:80", true),
        (binat, "em1:8080:80", false),
        (every, "198.51.100.1:8080:80", true),
        (every, "192.0.2.7:8080:80", true),
        (every, "em0:8080:80", true),
        (every, "*:8080:80", true),
        (every, "em1:8080:80", false),
        (every, "em0:8081:80", false),
        (one, "198.51.100.1:8080:80", true),
        (one, "192.0.2.7:8080:80", false),
        (one, "em0:8080:80", false),
    ] {
        let rig = Rig::new();
        fs::create_dir_all(rig.state("sim")).unwrap();
        fs::write(rig.state("sim/main.conf"), format!("{rdr}{CALLS}")).unwrap();
        match rig.publish(&request("db", spec)) {
            Ok(_) => assert!(!conflict, "{rdr} {spec}"),
            Err(error) => {
                assert!(conflict && error.kind() == Kind::Conflict, "{rdr} {spec}: {error}");
                assert!(error.message().starts_with("the main ruleset has a redirect of its own"), "{error}");
            }
        }
    }
}

/// A condition that every published port meets is not a problem, and may be intended.
#[test]
fn a_condition_that_is_fulfilled() {
    let main = CALLS.replace("rdr-anchor \"kport\"", "rdr-anchor \"kport\" on em0");
    assert_eq!(notes(&main, &request("db", "8080:80")), [""; 0]);
    assert_eq!(notes(&main, &request("db", "em1:8080:80")).len(), 1);
}
