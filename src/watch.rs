//! Keeps what is published what kport.conf(5), the records and the running jails say.
//!
//! [`Schedule`] decides what is to be done and when; it is pure. [`Watcher`] reads the host, and acts by the calls of [`Publisher`]
//! alone: with the same checks and the same lock as every caller, so that it can be killed at any moment, and be one of many.

mod report;
pub mod schedule;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::conf::{self, Conf};
use crate::error::{Error, Kind, Result};
use crate::host::{Events, Gateway, Host};
use crate::name::JailName;
use crate::net::{Family, Interface, PerFamily};
use crate::publication::Redirect;
use crate::publisher::{Outcome, Publisher, Recorded, Unobserved};
use crate::session::Session;

pub use report::{Report, What, counts};
use schedule::{Looks, Schedule, Why};

/// How long one look at the anchors may take, after the first one: with one each two seconds, half a percent of the time.
const SLICE: Duration = Duration::from_millis(10);
/// How long opening the sockets of networks may take in one look, and one of them.
const OPENING: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_millis(300);
/// A jail that has nothing recorded may be about to stop: its hook has unpublished its ports. After this it is not.
const STOPPING: Duration = Duration::from_secs(30);
/// A failure that lasts is reported, and not one that passes: a jail that starts has no address for a moment.
const LASTING: u32 = 2;

pub type Open = Box<dyn Fn() -> Result<Session> + Send>;

pub struct Watcher {
    open: Open,
    events: Box<dyn Events + Send>,
    clock: Box<dyn Fn() -> Instant + Send>,
    file: Option<PathBuf>,
    /// `None` as long as it could not be read: the lines are those that are recorded.
    conf: Option<Conf>,
    schedule: Schedule,
    /// The jails with a record, at the last look.
    recorded: BTreeSet<JailName>,
    /// Jails that run and have lines, but no record, and since when.
    unpublished: BTreeMap<JailName, Instant>,
    /// The last one whose anchor was looked at.
    looked_at: Option<JailName>,
    /// The jids of the jails whose network is told about.
    networks: BTreeSet<i32>,
    /// The host's gateway interface of each family, and its routers.
    routes: Option<(PerFamily<Option<Interface>>, Vec<Gateway>)>,
    /// When kport.conf(5) is to be read.
    reads_at: Option<Instant>,
    reports: VecDeque<Report>,
    /// The last failure of each jail, and how often it came; `None` is that of no jail.
    failures: BTreeMap<Option<JailName>, (String, u32)>,
    /// Reports that are not counted yet.
    uncounted: Vec<What>,
}

impl Watcher {
    /// A watcher of the host that the sessions of `open` have, with these events. `file` is that of [`Conf::read`]. The first
    /// [`Watcher::step`] makes everything true.
    pub fn new(
        open: Open, events: Box<dyn Events + Send>, clock: Box<dyn Fn() -> Instant + Send>, file: Option<PathBuf>,
    ) -> Watcher {
        let now = clock();
        Watcher {
            open,
            events,
            clock,
            file,
            conf: None,
            schedule: Schedule::new(now),
            recorded: BTreeSet::new(),
            unpublished: BTreeMap::new(),
            looked_at: None,
            networks: BTreeSet::new(),
            routes: None,
            reads_at: Some(now),
            reports: VecDeque::new(),
            failures: BTreeMap::new(),
            uncounted: vec![],
        }
    }

    /// The next step reads kport.conf(5) again, and applies it.
    pub fn reload(&mut self) {
        self.reads_at = Some((self.clock)());
    }

    pub fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        self.events.descriptor()
    }

    /// Waits for something to do, but not longer than `within`, does it, at most for one jail, and returns what there is to
    /// report. It fails only if there will be no more events: what fails otherwise is reported, and tried again.
    pub fn step(&mut self, within: Duration) -> Result<Option<Report>> {
        if let Some(report) = self.reports.pop_front() {
            return Ok(Some(report));
        }
        let told = self.events.next(self.idle().min(within))?;
        let now = (self.clock)();
        told.into_iter().for_each(|event| self.schedule.tell(event, now));
        let often = !self.events.tells_jails() || !self.networks.is_empty();
        let looks = self.schedule.looks(now, often);
        match self.act(looks) {
            Err(error) => self.failed(None, Some(error)),
            // a full look
            Ok(()) if looks.records => self.failed(None, None),
            Ok(()) => {}
        }
        self.events.wake(if self.reports.is_empty() { self.idle() } else { Duration::ZERO });
        Ok(self.reports.pop_front())
    }

    /// How long nothing is to be done, unless an event comes.
    fn idle(&self) -> Duration {
        let now = (self.clock)();
        let reads = self.reads_at.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        self.schedule.idle(now).min(reads)
    }

    fn act(&mut self, looks: Looks) -> Result<()> {
        let start = (self.clock)();
        let reads = self.reads_at.take_if(|at| *at <= start).is_some();
        let due = self.schedule.is_due(start);
        if !looks.any() && !due && !reads {
            return Ok(());
        }
        // what follows here follows what there is now, which the last look may not have seen: its end would be no change
        let looks = Looks { jails: looks.jails || reads, routes: looks.routes || due || reads, ..looks };
        // if there is an error, what is due is not tried all the time
        if reads {
            self.reads_at = Some(start + schedule::PACE);
        }
        let opened = (self.open)();
        let session = opened.inspect_err(|_| self.schedule.put_off(start))?;
        let publisher = session.publisher(&Unobserved).inspect_err(|_| self.schedule.put_off(start))?;
        let looked = self.look(looks, &session, &publisher);
        let now = (self.clock)();
        self.schedule.took(now, looks, now.saturating_duration_since(start));
        if reads {
            self.apply(&session, &publisher)?;
            self.reads_at = None;
        } else if let Some((jail, why)) = self.schedule.next(now) {
            let before = publisher.redirects(&jail).unwrap_or_default();
            if let Ok(Some(jail)) = session.host.running(jail.as_str()) {
                self.schedule.saw(jail);
            }
            let lines = self.conf.as_ref().map(|conf| conf.requests(&jail));
            let result = publisher.follow(&jail, lines.as_deref());
            let conflict = result.as_ref().is_err_and(|error| error.kind() == Kind::Conflict);
            if !(conflict && self.exchange(&publisher, &jail)?) {
                self.done(&publisher, &jail, why, before, result);
            }
        }
        report::count(self.uncounted.drain(..), &session.store()?);
        looked
    }

    fn look(&mut self, looks: Looks, session: &Session, publisher: &Publisher<'_>) -> Result<()> {
        let host = &*session.host;
        // a system without jails, for trying kport
        let matters = |error: &Error| error.kind() != Kind::Unsupported;
        let mut errors = vec![];
        if looks.jails {
            errors.extend(self.jails(host).err().filter(matters));
        }
        if looks.records {
            errors.extend(publisher.recorded().map(|recorded| self.records(host, recorded)).err());
        }
        if looks.routes {
            errors.extend(self.routes(host).err().filter(matters));
        }
        if looks.pf {
            errors.extend(self.pf(session, publisher).err());
        }
        Error::all(errors)
    }

    fn jails(&mut self, host: &dyn Host) -> Result<()> {
        let (made, gone) = self.schedule.list(host.jails()?.jails, (self.clock)());
        made.into_iter().for_each(|jid| self.events.add_jail(jid));
        for jid in gone {
            self.networks.remove(&jid);
            self.events.remove_network(jid);
        }
        Ok(())
    }

    fn routes(&mut self, host: &dyn Host) -> Result<()> {
        let now = (self.clock)();
        let defaults = PerFamily { inet: host.gateway(Family::Inet)?, inet6: host.gateway(Family::Inet6)? };
        let routes = Some((defaults, host.gateways()?));
        if self.routes.is_some() && self.routes != routes {
            self.recorded.iter().for_each(|jail| self.schedule.want(jail.clone(), Why::Routes, now));
        }
        self.routes = routes;
        Ok(())
    }

    /// The records: of jails that are gone, and of those whose network is to be watched.
    fn records(&mut self, host: &dyn Host, recorded: Vec<Recorded>) {
        let now = (self.clock)();
        let end = now + OPENING;
        for record in recorded.iter().filter(|record| record.gone) {
            self.schedule.want(record.jail.clone(), Why::Gone, now);
        }
        // what was changed by hand, or by nobody
        if let Some(conf) = &self.conf {
            let running = self.schedule.jails().filter_map(|jail| jail.name.parse::<JailName>().ok());
            let mut jails: BTreeSet<JailName> = running.collect();
            jails.extend(conf.not_jails().into_iter().cloned());
            let mut unpublished = BTreeMap::new();
            for jail in jails {
                let record = recorded.iter().find(|record| record.jail == jail);
                if !conf.differs(&jail, record.map_or(&[], |record| &record.requests)) {
                    continue;
                }
                let since = self.unpublished.get(&jail).copied().unwrap_or(now);
                if record.is_some() || now >= since + STOPPING {
                    self.schedule.want(jail, Why::Conf, now);
                } else {
                    unpublished.insert(jail, since);
                }
            }
            self.unpublished = unpublished;
        }
        // those whose addresses were found
        let finds = |record: &&Recorded| record.requests.iter().any(|request| request.addresses.is_empty());
        let finding: BTreeSet<&str> = recorded.iter().filter(finds).map(|record| record.jail.as_str()).collect();
        let vnet = self.schedule.jails().filter(|jail| jail.vnet && finding.contains(jail.name.as_str()));
        let unwatched: Vec<_> = vnet.filter(|jail| !self.networks.contains(&jail.jid)).cloned().collect();
        for jail in unwatched {
            let socket = if (self.clock)() < end { host.watch(&jail, ANSWER) } else { Ok(None) };
            if let Ok(Some(socket)) = socket {
                self.events.add_network(jail.jid, socket);
                self.networks.insert(jail.jid);
            }
            // what came before the socket; or, without one, from time to time
            self.schedule.want_known(&jail, Why::Network, now);
        }
        self.recorded = recorded.into_iter().map(|record| record.jail).collect();
    }

    /// Whether pf runs, and a part of the anchors.
    fn pf(&mut self, session: &Session, publisher: &Publisher<'_>) -> Result<()> {
        let now = (self.clock)();
        let status = match session.firewall.status() {
            Ok(status) => Some(status),
            Err(error) if error.kind() == Kind::Unavailable => None,
            Err(error) => return Err(error),
        };
        if self.schedule.pf(status, &self.recorded, now) {
            let why = match status {
                _ if self.schedule.pf_works() => "pf evaluates the rules again",
                None => "pf is not available",
                Some(status) if !status.enabled => "pf is disabled",
                Some(_) => "the main ruleset does not call kport's anchors",
            };
            self.tell(Report { why: why.to_owned(), ..Report::new(What::Pf) });
        }
        if !self.schedule.pf_works() {
            return Ok(());
        }
        let rest = self.recorded.iter().filter(|jail| Some(*jail) > self.looked_at.as_ref());
        let order: Vec<JailName> = rest.chain(self.recorded.iter()).take(self.recorded.len()).cloned().collect();
        for jail in order {
            for lost in publisher.lost([&jail])? {
                self.schedule.want(lost, Why::Pf, now);
            }
            self.looked_at = Some(jail);
            if (self.clock)().saturating_duration_since(now) > SLICE {
                break;
            }
        }
        Ok(())
    }

    /// Reads kport.conf(5), and makes everything what it says.
    fn apply(&mut self, session: &Session, publisher: &Publisher<'_>) -> Result<()> {
        match Conf::read(self.file.as_deref()) {
            Ok(conf) => self.conf = Some(conf),
            Err(error) => self.tell_failure(None, &error),
        }
        match publisher.gc() {
            Ok(outcome) => {
                for note in outcome.notes.into_iter().filter(|_| outcome.changed) {
                    self.tell(Report { why: note, ..Report::new(What::Unpublished) });
                }
            }
            // the look at pf tells that; or it is a system without jails, for trying kport
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Unsupported) => {}
            Err(error) => self.tell_failure(None, &error),
        }
        let recorded = publisher.recorded()?;
        let jails = conf::jails(self.conf.as_ref(), &*session.host, &recorded)?;
        self.follow(publisher, &recorded, &jails);
        self.records(&*session.host, publisher.recorded()?);
        Ok(())
    }

    /// After a conflict: follows the jails whose ports are not what the file says either as well. False if there are none.
    fn exchange(&mut self, publisher: &Publisher<'_>, jail: &JailName) -> Result<bool> {
        let Some(conf) = &self.conf else { return Ok(false) };
        let recorded = publisher.recorded()?;
        let others = recorded.iter().filter(|of| of.jail != *jail && conf.differs(&of.jail, &of.requests));
        let mut jails: BTreeSet<JailName> = others.map(|of| of.jail.clone()).collect();
        if jails.is_empty() {
            return Ok(false);
        }
        jails.insert(jail.clone());
        self.follow(publisher, &recorded, &jails);
        Ok(true)
    }

    /// Makes what these jails have published what the file says.
    fn follow(&mut self, publisher: &Publisher<'_>, recorded: &[Recorded], jails: &BTreeSet<JailName>) {
        for (jail, result) in conf::apply(publisher, self.conf.as_ref(), recorded, jails) {
            let before = recorded.iter().find(|record| record.jail == *jail);
            let before = before.map(|record| record.redirects.clone()).unwrap_or_default();
            self.done(publisher, jail, Why::Conf, before, result);
        }
    }

    /// After a transaction of a jail.
    fn done(
        &mut self, publisher: &Publisher<'_>, jail: &JailName, why: Why, before: Vec<Redirect>, result: Result<Outcome>,
    ) {
        self.schedule.done(jail, result.is_err(), (self.clock)());
        let after = publisher.redirects(jail).unwrap_or_default();
        let of = Report { jail: Some(jail.clone()), why: why.text().to_owned(), ..Report::new(What::Changed) };
        let what = match (before.is_empty(), after.is_empty()) {
            (true, false) => What::Published,
            (false, true) => What::Unpublished,
            _ if before == after => What::Restored,
            _ => What::Changed,
        };
        let changed = before != after || result.as_ref().is_ok_and(|outcome| outcome.changed);
        let (notes, error) = match result {
            Ok(outcome) => (outcome.notes, None),
            Err(error) => (vec![], Some(error)),
        };
        if changed && !(before.is_empty() && after.is_empty()) {
            if !after.is_empty() {
                self.recorded.insert(jail.clone());
                self.schedule.look_at_records((self.clock)());
            }
            self.tell(Report { what, before, after, notes, ..of });
        }
        self.failed(Some(jail), error);
    }

    /// Reports a failure that lasts, once.
    fn failed(&mut self, jail: Option<&JailName>, error: Option<Error>) {
        let key = jail.cloned();
        let Some(error) = error else {
            self.failures.remove(&key);
            return;
        };
        let text = error.to_string();
        let (known, count) = self.failures.entry(key).or_default();
        *count = if *known == text { *count + 1 } else { 1 };
        *known = text;
        // that pf does not work is told by itself
        let is_told = error.kind() == Kind::Unavailable && !self.schedule.pf_works();
        if *count == LASTING && !is_told {
            self.tell_failure(jail, &error);
        }
    }

    fn tell_failure(&mut self, jail: Option<&JailName>, error: &Error) {
        self.tell(Report { jail: jail.cloned(), error: Some(error.to_string()), ..Report::new(What::Failed) });
    }

    fn tell(&mut self, report: Report) {
        self.uncounted.push(report.what);
        self.reports.push_back(report);
    }
}
