//! When the watcher looks at what: pure, with a clock of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kport::host::{Event, Jail};
use kport::name::JailName;
use kport::pf::Status;
use kport::watch::schedule::{FULL, LIST, Looks, Schedule, Why};

fn jail(jid: i32, name: &str) -> Jail {
    Jail { jid, name: name.to_owned(), vnet: true, stack: jid, ..Jail::default() }
}

fn name(text: &str) -> JailName {
    text.parse().unwrap()
}

/// A schedule that has seen two jails, and is idle.
fn idle(now: Instant) -> Schedule {
    let mut schedule = Schedule::new(now);
    assert_eq!(schedule.looks(now, false), Looks { jails: true, records: true, routes: true, pf: true });
    assert_eq!(schedule.list(vec![jail(1, "web"), jail(2, "db")], now), (vec![1, 2], vec![]));
    while let Some((jail, why)) = schedule.next(now) {
        assert_eq!(why, Why::Started);
        schedule.done(&jail, false, now);
    }
    assert!(!schedule.looks(now, false).any());
    schedule
}

fn after(now: Instant, milliseconds: u64) -> Instant {
    now + Duration::from_millis(milliseconds)
}

#[test]
fn a_jail_that_is_gone_is_due_at_once() {
    let now = Instant::now();
    let mut schedule = idle(now);
    let later = after(now, 5000);
    schedule.tell(Event::Jail(1), later);
    assert_eq!(schedule.idle(later), Duration::ZERO);
    assert!(schedule.looks(later, false).jails);
    assert_eq!(schedule.list(vec![jail(2, "db")], later), (vec![], vec![1]));
    assert_eq!(schedule.next(later), Some((name("web"), Why::Gone)));
    assert_eq!(schedule.next(later), None);
    // an event that never came is found by the list
    assert!(schedule.looks(after(later, 10_000), false).jails);
    assert_eq!(schedule.list(vec![Jail { dying: true, ..jail(2, "db") }], after(later, 10_000)), (vec![], vec![2]));
    assert_eq!(schedule.next(after(later, 10_000)), Some((name("db"), Why::Gone)));
}

#[test]
fn the_jails_are_listed_often_where_no_event_tells() {
    let now = Instant::now();
    for (often, at) in [(false, FULL), (true, LIST)] {
        let mut schedule = Schedule::new(now);
        schedule.looks(now, often);
        assert!(!schedule.looks(now + at - Duration::from_millis(1), often).jails);
        assert!(schedule.looks(now + at, often).jails);
    }
}

#[test]
fn a_storm_is_one_transaction_a_second() {
    let now = Instant::now();
    let mut schedule = idle(now);
    let mut done = 0;
    // ten seconds, an event each millisecond
    for at in 2000..12_000 {
        let at = after(now, at);
        schedule.tell(Event::Network(1), at);
        schedule.tell(Event::Jail(1), at);
        schedule.tell(Event::Routes, at);
        while let Some((jail, _)) = schedule.next(at) {
            assert_eq!(jail, name("web"));
            done += 1;
            schedule.done(&jail, done % 2 == 0, at);
        }
    }
    assert!((9..=11).contains(&done), "{done}");
}

#[test]
fn routes_are_looked_at_once_after_they_have_settled() {
    let now = Instant::now();
    let mut schedule = idle(now);
    let at = after(now, 1000);
    schedule.tell(Event::Routes, at);
    assert!(!schedule.looks(at, false).routes);
    schedule.tell(Event::Routes, after(at, 90));
    assert!(schedule.looks(after(at, 100), false).routes);
    assert!(!schedule.looks(after(at, 200), false).routes);
}

#[test]
fn a_failure_is_tried_again_ever_more_rarely_and_an_event_comes_first() {
    let now = Instant::now();
    let mut schedule = idle(now);
    let mut at = after(now, 5000);
    schedule.want(name("web"), Why::Pf, at);
    let mut waits = vec![];
    for _ in 0..9 {
        let (jail, _) = schedule.next(at).unwrap();
        schedule.done(&jail, true, at);
        let wait = (1..).find(|s| {
            schedule.next(after(at, s * 1000)).is_some_and(|(j, why)| {
                schedule.want(j, why, at);
                true
            })
        });
        waits.push(wait.unwrap());
        at = after(at, wait.unwrap() * 1000);
    }
    assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 32]);
    let (jail, why) = schedule.next(at).unwrap();
    assert_eq!(why, Why::Again);
    schedule.done(&jail, true, at);
    schedule.tell(Event::Network(1), at);
    assert_eq!(schedule.next(after(at, 1000)), Some((jail, Why::Network)));
}

#[test]
fn pf_is_news_when_it_changes_and_all_are_due_when_it_works_again() {
    let now = Instant::now();
    let jails: BTreeSet<JailName> = [name("web"), name("db")].into();
    let working = Status { enabled: true, nat_anchor: true, rdr_anchor: true, anchor: true };
    let on = Some(working);
    let mut schedule = idle(now);
    assert!(!schedule.pf(on, &jails, now) && schedule.pf_works());
    for off in [None, Some(Status { enabled: false, ..working }), Some(Status { anchor: false, ..working })] {
        let at = after(now, 5000);
        assert!(schedule.pf(off, &jails, at) && !schedule.pf_works());
        assert!(!schedule.pf(off, &jails, at));
        assert_eq!(schedule.next(at), None);
        assert!(schedule.pf(on, &jails, at));
        assert_eq!(schedule.next(at).map(|(_, why)| why), Some(Why::Pf));
        assert_eq!(schedule.next(at).map(|(_, why)| why), Some(Why::Pf));
    }
    // the first look is news only if pf does not work
    assert!(!Schedule::new(now).pf(on, &jails, now) && Schedule::new(now).pf(None, &jails, now));
}

#[test]
fn what_takes_long_is_looked_at_more_rarely() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now);
    let looks = schedule.looks(now, false);
    schedule.took(now, looks, Duration::from_millis(400));
    assert!(!schedule.looks(after(now, 7999), false).any());
    assert!(schedule.looks(after(now, 8000), false).pf);
    schedule.took(after(now, 8000), looks, Duration::from_secs(9));
    assert!(schedule.looks(after(now, 18_000), false).pf);
}

#[test]
fn the_jails_of_one_network_stack_and_a_renamed_jail() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now);
    let inner = Jail { stack: 1, ..jail(7, "web.inner") };
    schedule.list(vec![jail(1, "web"), inner.clone(), Jail { vnet: false, stack: 0, ..jail(9, "flat") }], now);
    while schedule.next(now).is_some() {}
    schedule.tell(Event::Network(1), now);
    let mut due = vec![];
    while let Some((jail, _)) = schedule.next(after(now, 200)) {
        due.push(jail.to_string());
    }
    assert_eq!(due, ["web", "web.inner"]);
    schedule.list(vec![jail(1, "www"), inner], after(now, 5000));
    let mut due = vec![];
    while let Some((jail, _)) = schedule.next(after(now, 5000)) {
        due.push(jail.to_string());
    }
    assert_eq!(due, ["flat", "web", "www"]);
}
