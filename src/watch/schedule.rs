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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Conf,
    Started,
    /// jail_set(2): its name, its addresses.
    Changed,
    Gone,
    Network,
    /// The gateway interface of the host, or a router.
    Routes,
    /// pf does not have its rules, or evaluates them again.
    Pf,
    Again,
}

impl Why {
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

/// For each kind of look a value: whether it is due now, or when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks<T = bool> {
    pub jails: T,
    pub records: T,
    pub routes: T,
    /// Whether pf runs, and what it has.
    pub pf: T,
}

impl Looks {
    pub fn any(self) -> bool {
        self != Looks::default()
    }
}

#[derive(Debug)]
pub struct Schedule {
    /// Those of the last list.
    jails: BTreeMap<i32, Jail>,
    due: BTreeMap<JailName, (Instant, Why)>,
    /// When the last transaction of a jail was, and how many have failed since one that did not.
    last: BTreeMap<JailName, (Instant, u32)>,
    times: Looks<Instant>,
    /// Whether pf evaluated the rules at the last look; `None` before the first one.
    works: Option<bool>,
}

impl Schedule {
    pub fn new(now: Instant) -> Schedule {
        Schedule {
            jails: BTreeMap::new(),
            due: BTreeMap::new(),
            last: BTreeMap::new(),
            times: Looks { jails: now, records: now, routes: now, pf: now },
            works: None,
        }
    }

    pub fn tell(&mut self, event: Event, now: Instant) {
        let soon = now + SETTLE;
        match event {
            Event::Jails => self.times.jails = now,
            // the list says what has happened to it
            Event::Jail(jid) => {
                self.times.jails = now;
                self.jails.get(&jid).cloned().iter().for_each(|jail| self.want_known(jail, Why::Changed, now));
            }
            Event::Network(jid) => {
                let on_it = |jail: &&Jail| jail.vnet && (jail.jid == jid || jail.stack == jid);
                let on_it: Vec<Jail> = self.jails.values().filter(on_it).cloned().collect();
                on_it.iter().for_each(|jail| self.want_known(jail, Why::Network, soon));
            }
            Event::Routes => self.times.routes = self.times.routes.min(soon),
        }
    }

    /// The jails that there are; a dying one is gone. Returns the jids that are new, and those that are gone.
    pub fn list(&mut self, jails: Vec<Jail>, now: Instant) -> (Vec<i32>, Vec<i32>) {
        let current: BTreeMap<i32, Jail> =
            jails.into_iter().filter(|jail| !jail.dying).map(|jail| (jail.jid, jail)).collect();
        let before = std::mem::take(&mut self.jails);
        let (mut made, mut gone) = (vec![], vec![]);
        for (jid, jail) in &current {
            match before.get(jid) {
                None => {
                    made.push(*jid);
                    self.want_known(jail, Why::Started, now);
                }
                Some(old) if old != jail => {
                    [jail, old].iter().for_each(|jail| self.want_known(jail, Why::Changed, now))
                }
                Some(_) => {}
            }
        }
        for (jid, jail) in before.iter().filter(|(jid, _)| !current.contains_key(jid)) {
            gone.push(*jid);
            self.want_known(jail, Why::Gone, now);
        }
        self.jails = current;
        // what was long ago is of no interest
        self.last.retain(|_, (at, _)| now < *at + LONGEST + LONGEST);
        (made, gone)
    }

    /// A jail as it is now, if the last list had it.
    pub fn saw(&mut self, jail: Jail) {
        self.jails.entry(jail.jid).and_modify(|known| *known = jail);
    }

    pub fn jails(&self) -> impl Iterator<Item = &Jail> {
        self.jails.values()
    }

    /// The status of pf, if it is available. Returns whether it is news. When pf evaluates the rules again, all of `jails` are due.
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
        let at = self.last.get(&jail).map_or(at, |(last, _)| at.max(*last + PACE));
        let due = self.due.entry(jail).or_insert((at, why));
        due.0 = due.0.min(at);
        // what has happened since is a better reason than that it is tried again, and that it is gone than all others
        if due.1 == Why::Again || why == Why::Gone {
            due.1 = why;
        }
    }

    /// [`Schedule::want`], of a jail that may have a name that kport does not use.
    pub fn want_known(&mut self, jail: &Jail, why: Why, at: Instant) {
        jail.name.parse().into_iter().for_each(|name| self.want(name, why, at));
    }

    /// What is to be looked at now. `often` is whether the jails are to be listed often.
    pub fn looks(&mut self, now: Instant, often: bool) -> Looks {
        let Looks { jails, records, routes, pf } = &mut self.times;
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

    pub fn look_at_records(&mut self, now: Instant) {
        self.times.records = now;
    }

    /// The looks have taken this long: the next ones come later, for a twentieth of the time at most, but not later than [`FULL`].
    pub fn took(&mut self, now: Instant, looks: Looks, time: Duration) {
        let later = now + (time * 20).min(FULL);
        let Looks { jails, records, pf, .. } = &mut self.times;
        for (looked, at) in [(looks.jails, jails), (looks.records, records), (looks.pf, pf)] {
            if looked {
                *at = (*at).max(later);
            }
        }
    }

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
        let failures = if failed { self.last.get(jail).map_or(0, |(_, failures)| *failures) + 1 } else { 0 };
        self.last.insert(jail.clone(), (now, failures));
        if failed {
            let wait = PACE * 2u32.saturating_pow(failures.min(6) - 1);
            self.want(jail.clone(), Why::Again, now + wait.min(LONGEST));
        }
    }

    /// How long nothing is to be done, unless an event comes.
    pub fn idle(&self, now: Instant) -> Duration {
        let Looks { jails, records, routes, pf } = self.times;
        let next = [jails, records, routes, pf].into_iter().chain(self.due.values().map(|(at, _)| *at)).min();
        next.map_or(PF, |next| next.saturating_duration_since(now))
    }
}
