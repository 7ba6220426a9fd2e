//! When a call must be done.

use std::time::Duration;

use kport::deadline::Deadline;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn one_that_is_far_away() {
    let deadline = Deadline::after(Duration::MAX);
    assert!(!deadline.passed() && deadline.remaining() > 364 * 24 * HOUR);
    let sooner = deadline.sooner(HOUR);
    assert!(sooner < deadline && sooner.remaining() <= HOUR);
    assert_eq!(sooner.sooner(2 * HOUR), sooner);
    assert!(sooner.later(2 * HOUR).remaining() > HOUR);
    assert_eq!(deadline.later(HOUR), deadline);
}

#[test]
fn what_is_reserved() {
    let deadline = Deadline::after(HOUR);
    let reserved = |time| deadline.remaining() - deadline.reserving(time, 3).remaining();
    let tenth = reserved(HOUR / 10);
    assert!(tenth >= HOUR / 10 && tenth < HOUR / 5, "{tenth:?}");
    let third = reserved(HOUR);
    assert!(third > HOUR / 4 && third < HOUR / 2, "{third:?}");
}

#[test]
fn one_that_has_passed() {
    let deadline = Deadline::after(Duration::ZERO);
    assert!(deadline.passed());
    assert_eq!((deadline.remaining(), deadline.reserving(HOUR, 3)), (Duration::ZERO, deadline));
    assert!(!deadline.later(HOUR).passed());
}
