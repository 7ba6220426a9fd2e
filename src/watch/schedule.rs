//! What is to be done, and when: from events, and from what is. Pure: the time is a parameter, and nothing is read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::host::{Event, Jail};
use crate::name::JailName;
use crate::pf::Status;

/// The time between two looks at pf.
pub const PF: Duration = Duration::from_secs(2);
/// That between two looks at everything, for what no event has told.
pub const FULL: Duration = Duration::from_secs(10);
/// That between two lists of the jails, if no event tells about them, or one may be missed that is needed soon.
pub const LIST: Duration = Duration::from_secs(2);
/// From an event to the look: an address, its routes and the flags of its interface change together.
const SETTLE: Duration = Duration::from_millis(100);
/// A jail is not changed more often.
pub const PACE: Duration = Duration::from_secs(1);
/// After a failure a jail is tried again, each time after twice as long, up to this.
const LONGEST: Duration = Duration::from_secs(60);

/// Why a jail is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The process has started, or kport.conf was read again.
    Conf,
    /// The jail was not there at the last look.
    Started,
    /// jail_set(2): its name, its addresses.
    Changed,
    /// It is not there any more.
    Gone,
    /// Interfaces, addresses or routes in its network stack.
    Network,
    /// The gateway interface of the host, or a router.
    Routes,
    /// pf does not have its rules, or evaluates them again.
    Pf,
    /// It failed before.
    Again,
}

impl Why {
    /// A few words.
    pub const fn text(self) -> &'static str {
        match self {
            Why::Conf => "kport.conf was read",
            Why::Started => "the jail has started",
            Why::Changed => "the jail has changed",
            Why::Gone => "the jail is gone",
            Why::Network => "the jail's network has changed",
            Why::Routes => "the host's routes have changed",
            Why::Pf => "pf has lost the rules",
            Why::Again => "tried again",
        }
    }
}

/// What is to be looked at now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// The list of jails.
    pub jails: bool,
    /// The records.
    pub records: bool,
    /// The host's routes.
    pub routes: bool,
    /// Whether pf runs, and what it has.
    pub pf: bool,
}

impl Looks {
    /// Whether there is anything.
    pub fn any(self) -> bool {
        self != Looks::default()
    }
}

/// When what was looked at the last time is due again.
#[derive(Debug)]
struct Times {
    jails: Instant,
    records: Instant,
    routes: Instant,
    pf: Instant,
}

/// A jail's last transaction.
#[derive(Debug)]
struct Last {
    at: Instant,
    failures: u32,
}

/// The state between two looks.
#[derive(Debug)]
pub struct Schedule {
    /// Those of the last list.
    jails: BTreeMap<i32, Jail>,
    due: BTreeMap<JailName, (Instant, Why)>,
    last: BTreeMap<JailName, Last>,
    times: Times,
    /// Whether pf evaluated the rules at the last look; `None` before the first one.
    works: Option<bool>,
}

impl Schedule {
    /// Everything is due.
    pub fn new(now: Instant) -> Schedule {
        Schedule {
            jails: BTreeMap::new(),
            due: BTreeMap::new(),
            last: BTreeMap::new(),
            times: Times { jails: now, records: now, routes: now, pf: now },
            works: None,
        }
    }

    /// An event.
    pub fn tell(&mut self, event: Event, now: Instant) {
        let soon = now + SETTLE;
        match event {
            Event::Jails => self.times.jails = now,
            // the list says what has happened to it
            Event::Jail(jid) => {
                self.times.jails = now;
                if let Some(name) = self.name(jid) {
                    self.want(name, Why::Changed, now);
                }
            }
            Event::Network(jid) => {
                let on_it = |jail: &&Jail| jail.vnet && (jail.jid == jid || jail.stack == jid);
                let names: Vec<_> =
                    self.jails.values().filter(on_it).filter_map(|jail| jail.name.parse().ok()).collect();
                for name in names {
                    self.want(name, Why::Network, soon);
                }
            }
            Event::Routes => self.times.routes = self.times.routes.min(soon),
        }
    }

    fn name(&self, jid: i32) -> Option<JailName> {
        self.jails.get(&jid)?.name.parse().ok()
    }

    /// The jails that there are; a dying one is gone. Returns the jids that are new, and those that are gone.
    pub fn list(&mut self, jails: Vec<Jail>, now: Instant) -> (Vec<i32>, Vec<i32>) {
        let current: BTreeMap<i32, Jail> =
            jails.into_iter().filter(|jail| !jail.dying).map(|jail| (jail.jid, jail)).collect();
        let before = std::mem::replace(&mut self.jails, current);
        let mut wanted = vec![];
        let (mut made, mut gone) = (vec![], vec![]);
        for (jid, jail) in &self.jails {
            match before.get(jid) {
                None => {
                    made.push(*jid);
                    wanted.push((jail.name.clone(), Why::Started));
                }
                Some(old) if old != jail => {
                    wanted.push((jail.name.clone(), Why::Changed));
                    if old.name != jail.name {
                        wanted.push((old.name.clone(), Why::Changed));
                    }
                }
                Some(_) => {}
            }
        }
        for (jid, jail) in &before {
            if !self.jails.contains_key(jid) {
                gone.push(*jid);
                wanted.push((jail.name.clone(), Why::Gone));
            }
        }
        for (name, why) in wanted {
            if let Ok(name) = name.parse() {
                self.want(name, why, now);
            }
        }
        // what was long ago is of no interest
        self.last.retain(|_, last| now < last.at + LONGEST + LONGEST);
        (made, gone)
    }

    /// A jail as it is now, if the last list had it.
    pub fn saw(&mut self, jail: Jail) {
        self.jails.entry(jail.jid).and_modify(|known| *known = jail);
    }

    /// The jails of the last list.
    pub fn jails(&self) -> impl Iterator<Item = &Jail> {
        self.jails.values()
    }

    /// The status of pf; `None` if it is not available. Returns whether that is news. When pf evaluates the rules again, all of
    /// `jails` are due.
    pub fn pf(&mut self, status: Option<Status>, jails: &BTreeSet<JailName>, now: Instant) -> bool {
        let works = status.is_some_and(|s| s.enabled && s.rdr_anchor && s.anchor);
        let before = self.works.replace(works);
        if works && before == Some(false) {
            jails.iter().for_each(|jail| self.want(jail.clone(), Why::Pf, now));
        }
        before.map_or(!works, |before| before != works)
    }

    /// Whether pf evaluates the rules, by the last look.
    pub fn pf_works(&self) -> bool {
        self.works.unwrap_or(true)
    }

    /// A jail is to be looked at; not before `at`, and not more often than once a second. The first reason stays.
    pub fn want(&mut self, jail: JailName, why: Why, at: Instant) {
        let at = self.last.get(&jail).map_or(at, |last| at.max(last.at + PACE));
        let due = self.due.entry(jail).or_insert((at, why));
        due.0 = due.0.min(at);
        // what has happened since is a better reason than that it is tried again, and that it is gone than all others
        if due.1 == Why::Again || why == Why::Gone {
            due.1 = why;
        }
    }

    /// What is to be looked at now. `often` is whether the jails are to be listed often.
    pub fn looks(&mut self, now: Instant, often: bool) -> Looks {
        let Times { jails, records, routes, pf } = &mut self.times;
        let take = |at: &mut Instant, every: Duration| {
            let is_due = *at <= now;
            if is_due {
                *at = now + every;
            }
            is_due
        };
        Looks {
            jails: take(jails, if often { LIST } else { FULL }),
            records: take(records, FULL),
            routes: take(routes, FULL),
            pf: take(pf, PF),
        }
    }

    /// The records have changed.
    pub fn look_at_records(&mut self, now: Instant) {
        self.times.records = now;
    }

    /// The looks have taken this long: the next ones come later, so that they need no more than a twentieth of the time; but not
    /// later than [`FULL`].
    pub fn took(&mut self, now: Instant, looks: Looks, time: Duration) {
        let later = now + (time * 20).min(FULL);
        let Times { jails, records, pf, .. } = &mut self.times;
        for (looked, at) in [(looks.jails, jails), (looks.records, records), (looks.pf, pf)] {
            if looked {
                *at = (*at).max(later);
            }
        }
    }

    /// Whether a jail is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.values().any(|(at, _)| *at <= now)
    }

    /// Nothing can be done now: what is due comes later.
    pub fn put_off(&mut self, now: Instant) {
        for (at, _) in self.due.values_mut() {
            *at = (*at).max(now + PACE);
        }
    }

    /// The next jail that is due, and why.
    pub fn next(&mut self, now: Instant) -> Option<(JailName, Why)> {
        let first = self.due.iter().min_by_key(|(_, (at, _))| *at)?;
        let (name, (at, why)) = (first.0.clone(), *first.1);
        (at <= now).then(|| {
            self.due.remove(&name);
            (name, why)
        })
    }

    /// A jail was changed, or that was not necessary; or it failed, and is tried again.
    pub fn done(&mut self, jail: &JailName, failed: bool, now: Instant) {
        let last = self.last.entry(jail.clone()).or_insert(Last { at: now, failures: 0 });
        last.at = now;
        last.failures = if failed { last.failures + 1 } else { 0 };
        if failed {
            let wait = PACE * 2u32.saturating_pow(last.failures.min(6) - 1);
            self.want(jail.clone(), Why::Again, now + wait.min(LONGEST));
        }
    }

    /// How long nothing is to be done, unless an event comes.
    pub fn idle(&self, now: Instant) -> Duration {
        let Times { jails, records, routes, pf } = self.times;
        let looks = [jails, records, routes, pf];
        let next = looks.into_iter().chain(self.due.values().map(|(at, _)| *at)).min();
        next.map_or(PF, |next| next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
