//! Waits until a jail has an address that can be published: DHCP, SLAAC, a manager that sets it while its hooks run.

use std::time::{Duration, Instant};

use super::{Observer, Request};
use crate::deadline::Deadline;
use crate::error::{Kind, Result};
use crate::host::{Host, Jail, Watch};

/// How long to wait for an address of the other family after the first one, at most as long as is waited at all. A router
/// advertisement comes within a second of its solicitation, duplicate address detection takes another one, and
/// dhclient(8) a moment.
pub const GRACE: Duration = Duration::from_secs(3);

/// How often the host is read, and how to sleep in between.
struct Pace<'a> {
    /// If nothing reports a change: a routing socket does not report that a jail is created, or that jail_set(2) gives an
    /// address to a jail on the host's network stack. Reading is two system calls for such a jail.
    poll: Duration,
    /// The longest time between two reads if the system reports changes: it may have missed one. It is also how long the
    /// socket keeps a jail that has been removed dying.
    longest: Duration,
    /// From a change to the next read: an address, its routes and the flags of its interface change together, and a network
    /// that changes all the time must not keep kport busy.
    settle: Duration,
    sleep: &'a dyn Fn(Duration),
    now: &'a dyn Fn() -> Instant,
}

const PACE: Pace<'_> = Pace {
    poll: Duration::from_millis(200),
    longest: Duration::from_secs(2),
    settle: Duration::from_millis(50),
    sleep: &std::thread::sleep,
    now: &Instant::now,
};

/// Whether the jail has every address that is waited for; an error if it has none.
type IsComplete<'a> = dyn Fn(Option<&Jail>) -> Result<bool> + 'a;

/// Returns when the jail has its addresses, at once if one is given or no waiting was requested.
///
/// # Errors
///
/// The reason that there is none yet, after `request.wait` or at the deadline; at once if waiting cannot help.
pub(super) fn for_address(
    host: &dyn Host,
    request: &Request,
    deadline: Deadline,
    observer: &dyn Observer,
    is_complete: &IsComplete<'_>,
) -> Result<()> {
    at_pace(host, request, deadline, observer, is_complete, &PACE)
}

fn at_pace(
    host: &dyn Host,
    request: &Request,
    deadline: Deadline,
    observer: &dyn Observer,
    is_complete: &IsComplete<'_>,
    pace: &Pace<'_>,
) -> Result<()> {
    if !request.waits() {
        return Ok(());
    }
    let whole = request.wait.min(deadline.remaining());
    let left = |time: Duration, since: Instant| time.saturating_sub((pace.now)().duration_since(since));
    let begin = (pace.now)();
    // when the first family had an address
    let mut first: Option<Instant> = None;
    let mut watched: Option<Watched> = None;
    let mut told = String::new();
    let mut tell = |why: String| {
        if why != told {
            observer.waiting(&why);
            told = why;
        }
    };
    loop {
        let jail = host.jail(request.jail.as_str())?.filter(|jail| !jail.dying);
        let mut rest = left(whole, begin);
        match is_complete(jail.as_ref()) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                rest = rest.min(left(GRACE, *first.get_or_insert_with(pace.now)));
                if rest.is_zero() {
                    return Ok(());
                }
                tell("an address of the other family".to_owned());
            }
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Argument | Kind::Busy) => {
                if rest.is_zero() {
                    let seconds = (whole.as_secs_f64() * 1e3).round() / 1e3;
                    return Err(error.and(format_args!("waited {seconds} s for it")));
                }
                first = None;
                tell(error.to_string());
            }
            Err(error) => return Err(error),
        }
        // the socket of a jail that is gone must be closed, too
        watched = watched.filter(|watched| jail.as_ref().is_some_and(|jail| jail.jid == watched.jid));
        match (&mut watched, jail.filter(|jail| jail.vnet)) {
            (None, Some(jail)) => {
                let mut new = Watched::new(host, &jail, rest, observer, pace);
                // it does not report what happened before it was opened, so read again at once
                if new.watch.is_none() {
                    new.wait(rest, observer, pace);
                }
                watched = Some(new);
            }
            (Some(watched), _) => watched.wait(rest, observer, pace),
            (None, None) => (pace.sleep)(rest.min(pace.poll)),
        }
    }
}

/// A jail whose network is watched.
struct Watched {
    jid: i32,
    /// `None` if the system does not report changes, or no longer does.
    watch: Option<Watch>,
    interval: Duration,
}

impl Watched {
    fn new(host: &dyn Host, jail: &Jail, left: Duration, observer: &dyn Observer, pace: &Pace<'_>) -> Watched {
        let watch = host.watch(jail, left).unwrap_or_else(|error| {
            observer.detail(&format!("reading every {} ms: {error}", pace.poll.as_millis()));
            None
        });
        Watched { jid: jail.jid, watch, interval: pace.poll }
    }

    /// Waits until it is time to read again.
    fn wait(&mut self, left: Duration, observer: &dyn Observer, pace: &Pace<'_>) {
        let Some(watch) = &self.watch else { return (pace.sleep)(left.min(pace.poll)) };
        match watch.wait(left.min(self.interval)) {
            Ok(true) => {
                self.interval = pace.poll;
                (pace.sleep)(left.min(pace.settle));
            }
            Ok(false) => self.interval = (2 * self.interval).min(pace.longest),
            Err(error) => {
                observer.detail(&format!("reading every {} ms: the routing socket: {error}", pace.poll.as_millis()));
                self.watch = None;
                (pace.sleep)(left.min(pace.poll));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::io::Write;
    use std::net::IpAddr;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::error::Error;
    use crate::host::{ANSWER_TIME, Fixed, HostInterface, Jails, Listener};
    use crate::net::{Family, Interface};
    use crate::publisher::Unobserved;
    use crate::publisher::addresses::reported;

    const LONG: Duration = Duration::from_secs(3600);

    type Event = dyn Fn(&Late, usize);

    /// A host with a jail that has its address at the read with this number.
    struct Late {
        host: RefCell<Fixed>,
        answers_at: usize,
        asked: Cell<usize>,
        /// What happens at each read of addresses.
        event: Box<Event>,
        /// How many watches are available, and the other ends of those in use.
        watches: Cell<usize>,
        opened: RefCell<Vec<(i32, UnixStream)>>,
    }

    impl Late {
        fn new(answers_at: usize, watches: usize, event: impl Fn(&Late, usize) + 'static) -> Late {
            let host = r#"{ "jails": [ { "jid": 2, "name": "web", "vnet": true } ] }"#.parse().unwrap();
            Late {
                host: RefCell::new(host),
                answers_at,
                asked: Cell::new(0),
                event: Box::new(event),
                watches: Cell::new(watches),
                opened: RefCell::default(),
            }
        }

        /// A change of the jail's network.
        fn tell(&self) {
            for (_, there) in self.opened.borrow().iter() {
                // a watch that is no longer used is closed
                _ = (&*there).write(&[0]);
            }
        }

        /// Waits, and returns the sleeps.
        fn wait(&self, poll: Duration) -> Vec<Duration> {
            let slept = RefCell::new(vec![]);
            let sleep = |time| slept.borrow_mut().push(time);
            let pace = Pace { poll, longest: LONG, settle: SETTLE, sleep: &sleep, now: &Instant::now };
            let mut request = Request::new("web".parse().unwrap(), "8080:80".parse().unwrap());
            request.wait = LONG;
            let has_one = |jail: Option<&Jail>| self.has_one(&request, jail);
            at_pace(self, &request, Deadline::after(LONG), &Unobserved, &has_one, &pace).unwrap();
            slept.into_inner()
        }

        fn has_one(&self, request: &Request, jail: Option<&Jail>) -> Result<bool> {
            match reported(&request.jail, jail, |jail| self.vnet_addresses(jail, ANSWER_TIME))?.is_empty() {
                true => Err(Error::new(Kind::Unavailable, "no address")),
                false => Ok(true),
            }
        }
    }

    /// What the jail has, by the seconds since the beginning.
    type Having = fn(u64) -> Result<bool>;

    /// With a clock that only sleeping moves.
    #[test]
    fn both_families_or_a_grace_after_the_first() {
        fn no() -> Result<bool> {
            Err(Error::new(Kind::Unavailable, "not believed"))
        }
        let grace = GRACE.as_secs();
        for (name, wait, having, ends, done) in [
            ("at once", 30, (|_| Ok(true)) as Having, 0, true),
            ("the other family a second later", 30, |at| Ok(at >= 1), 1, true),
            ("the other family never", 30, |_| Ok(false), grace, true),
            (
                "the first family later, the other never",
                30,
                |at| if at < 5 { no() } else { Ok(false) },
                5 + grace,
                true,
            ),
            ("the wait is shorter than the grace", 2, |_| Ok(false), 2, true),
            ("one that is not believed, then another", 15, |at| if at < 3 { no() } else { Ok(true) }, 3, true),
            ("one that is not believed, for ever", 15, |_| no(), 15, false),
            ("the other family is not believed, for ever", 15, |at| if at < 1 { Ok(false) } else { no() }, 15, false),
            (
                "the first address goes, and comes again",
                30,
                |at| if at == 2 { no() } else { Ok(false) },
                3 + grace,
                true,
            ),
        ] {
            let host = Late::new(0, 0, |_, _| {});
            let (begin, slept) = (Instant::now(), Cell::new(Duration::ZERO));
            let pace = Pace {
                poll: Duration::from_secs(1),
                longest: LONG,
                settle: SETTLE,
                sleep: &|time| slept.set(slept.get() + time),
                now: &|| begin + slept.get(),
            };
            let mut request = Request::new("web".parse().unwrap(), "8080:80".parse().unwrap());
            request.wait = Duration::from_secs(wait);
            let having = |_: Option<&Jail>| having(slept.get().as_secs());
            let result = at_pace(&host, &request, Deadline::after(LONG), &Unobserved, &having, &pace);
            assert_eq!((result.is_ok(), slept.get().as_secs()), (done, ends), "{name}: {result:?}");
        }
    }

    /// With distinct lengths.
    const POLL: Duration = Duration::from_millis(2);
    const SETTLE: Duration = Duration::from_millis(1);

    impl Host for Late {
        fn gateway(&self, _: Family) -> Result<Option<Interface>> {
            Ok(None)
        }

        fn interfaces(&self) -> Result<Vec<HostInterface>> {
            Ok(vec![])
        }

        fn jail(&self, name: &str) -> Result<Option<Jail>> {
            self.host.borrow().jail(name)
        }

        fn jails(&self) -> Result<Jails> {
            self.host.borrow().jails()
        }

        fn vnet_addresses(&self, _: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
            assert!(within > Duration::ZERO && within <= ANSWER_TIME);
            let asked = self.asked.get() + 1;
            self.asked.set(asked);
            (self.event)(self, asked);
            Ok(if asked < self.answers_at { vec![] } else { vec!["10.0.0.2".parse().unwrap()] })
        }

        fn watch(&self, jail: &Jail, _: Duration) -> Result<Option<Watch>> {
            let Some(left) = self.watches.get().checked_sub(1) else { return Ok(None) };
            self.watches.set(left);
            let (here, there) = UnixStream::pair().unwrap();
            self.opened.borrow_mut().push((jail.jid, there));
            Ok(Some(Watch::new(here.into())))
        }

        fn listeners(&self) -> Result<Vec<Listener>> {
            Ok(vec![])
        }

        fn sysctl(&self, _: &str) -> Result<Option<i64>> {
            Ok(None)
        }

        fn boot_id(&self) -> Result<String> {
            Ok(String::new())
        }

        fn uptime(&self) -> Result<u64> {
            Ok(0)
        }
    }

    /// With hours between two reads the change ends the wait. The second read is for what happened before the watch existed.
    #[test]
    fn a_change_wakes_up() {
        let host = Late::new(3, 1, |host, asked| {
            if asked == 2 {
                host.tell()
            }
        });
        let slept = host.wait(LONG);
        assert_eq!((host.asked.get(), slept), (3, vec![SETTLE]));
        // what happened between the first read and the watch does not delay it
        let host = Late::new(2, 1, |_, _| {});
        assert_eq!(host.wait(LONG), [Duration::ZERO; 0]);
    }

    /// There is a pause before each read, however often something changes.
    #[test]
    fn a_network_that_changes_all_the_time() {
        let host = Late::new(50, 1, |host, _| {
            for _ in 0..5 {
                host.tell();
            }
        });
        assert_eq!(host.wait(LONG), vec![SETTLE; 48]);
    }

    /// A change that was not reported is found, even if the reads become less frequent.
    #[test]
    fn a_watch_that_tells_nothing() {
        let host = Late::new(6, 1, |_, _| {});
        assert_eq!(host.wait(POLL), [Duration::ZERO; 0]);
        let mut watched = Watched::new(&host, &jail(), LONG, &Unobserved, &PACE);
        let (here, _there) = UnixStream::pair().unwrap();
        watched.watch = Some(Watch::new(here.into()));
        let sleep = |_| unreachable!();
        let pace = Pace { poll: POLL, longest: 3 * POLL, settle: SETTLE, sleep: &sleep, now: &Instant::now };
        watched.interval = POLL;
        let mut intervals = vec![];
        for _ in 0..3 {
            watched.wait(LONG, &Unobserved, &pace);
            intervals.push(watched.interval);
        }
        assert_eq!(intervals, [2 * POLL, 3 * POLL, 3 * POLL]);
    }

    fn jail() -> Jail {
        Late::new(0, 0, |_, _| {}).jail("web").unwrap().unwrap()
    }

    /// Without a watch, and with one that fails, it is read at intervals, and no second one is opened.
    #[test]
    fn no_watch_and_one_that_breaks() {
        let host = Late::new(4, 0, |_, _| {});
        assert_eq!(host.wait(POLL), [POLL; 3]);
        let host = Late::new(6, 2, |host, asked| {
            if asked == 2 {
                host.opened.borrow_mut().clear()
            }
        });
        assert_eq!(host.wait(POLL), [POLL; 4]);
        assert_eq!((host.asked.get(), host.watches.get()), (6, 1));
    }

    /// A jail that is started again has another network, and the socket of the old one is closed at once.
    #[test]
    fn a_jail_that_is_started_again() {
        let host = Late::new(5, 2, |host, asked| {
            let mut facts = host.host.borrow_mut();
            match asked {
                2 => {
                    facts.jails[0].jid = 3;
                    drop(facts);
                    host.tell();
                }
                4 => {
                    let opened = host.opened.borrow();
                    assert_eq!(opened.iter().map(|(jid, _)| *jid).collect::<Vec<_>>(), [2, 3]);
                    assert!((&opened[0].1).write(&[0]).is_err() && (&opened[1].1).write(&[0]).is_ok());
                }
                _ => {}
            }
        });
        assert_eq!(host.wait(LONG), [SETTLE; 2]);
    }

    #[test]
    fn what_no_waiting_changes_and_the_end() {
        let mut request = Request::new("web".parse().unwrap(), "8080:80".parse().unwrap());
        let host = Late::new(usize::MAX, 1, |_, _| {});
        let wait = |request: &Request, deadline| {
            for_address(&host, request, deadline, &Unobserved, &|jail| host.has_one(request, jail))
        };
        wait(&request, Deadline::after(Duration::ZERO)).unwrap();
        assert_eq!(host.asked.get(), 0);
        request.wait = Duration::from_millis(1);
        let error = wait(&request, Deadline::after(LONG)).unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.message().ends_with("waited 0.001 s for it"), "{error}");
        request.wait = LONG;
        host.host.borrow_mut().jails[0].vnet = false;
        host.host.borrow_mut().jails[0].inherits.inet = true;
        let error: Error = wait(&request, Deadline::after(LONG)).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}
