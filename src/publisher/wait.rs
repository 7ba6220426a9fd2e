//! Waits until a jail has an address that can be published: DHCP, SLAAC, a manager that sets it while its hooks run.

use std::time::Duration;

use super::addresses::reported;
use super::{Observer, Request};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::host::{Host, Jail, Watch};
use crate::publication::Targets;

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
}

const PACE: Pace<'_> = Pace {
    poll: Duration::from_millis(200),
    longest: Duration::from_secs(2),
    settle: Duration::from_millis(50),
    sleep: &std::thread::sleep,
};

/// Returns when the jail has an address, at once if one is given or no waiting was requested.
///
/// # Errors
///
/// The reason that there is none yet, after `request.wait` or at the deadline; at once if waiting cannot help.
pub(super) fn for_address(
    host: &dyn Host,
    request: &Request,
    deadline: Deadline,
    observer: &dyn Observer,
) -> Result<()> {
    at_pace(host, request, deadline, observer, &PACE)
}

fn at_pace(
    host: &dyn Host,
    request: &Request,
    deadline: Deadline,
    observer: &dyn Observer,
    pace: &Pace<'_>,
) -> Result<()> {
    if request.wait.is_zero() || !request.addresses.is_empty() {
        return Ok(());
    }
    let end = deadline.sooner(request.wait);
    let whole = end.remaining();
    let mut watched: Option<Watched> = None;
    loop {
        let jail = host.jail(request.jail.as_str())?.filter(|jail| !jail.dying);
        let found = reported(host, &request.jail, jail.as_ref(), deadline);
        let own = jail.as_ref().map_or(&[][..], Jail::on_host_stack);
        let chosen = found.and_then(|found| match found[..] {
            [] => Err(Error::new(Kind::Unavailable, format!("{} has no address", request.jail.mention()))),
            _ => Targets::choose_of(&request.jail, &found, own).map(|_| ()),
        });
        let error = match chosen {
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Argument | Kind::Busy) => error,
            other => return other,
        };
        if end.passed() {
            return Err(error.and(format_args!("waited {:.0} s for it", whole.as_secs_f64())));
        }
        observer.detail(&format!("waiting: {error}"));
        // the socket of a jail that is gone must be closed, too
        watched = watched.filter(|watched| jail.as_ref().is_some_and(|jail| jail.jid == watched.jid));
        match (&mut watched, jail.filter(|jail| jail.vnet)) {
            (None, Some(jail)) => {
                let mut new = Watched::new(host, &jail, end.remaining(), observer, pace);
                // it does not report what happened before it was opened, so read again at once
                if new.watch.is_none() {
                    new.wait(end.remaining(), observer, pace);
                }
                watched = Some(new);
            }
            (Some(watched), _) => watched.wait(end.remaining(), observer, pace),
            (None, None) => (pace.sleep)(end.remaining().min(pace.poll)),
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
    use crate::host::{Fixed, HostInterface, Jails, Listener};
    use crate::net::{Family, Interface};
    use crate::publisher::Unobserved;

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
            let pace = Pace { poll, longest: LONG, settle: SETTLE, sleep: &|time| slept.borrow_mut().push(time) };
            let mut request = Request::new("web".parse().unwrap(), "8080:80".parse().unwrap());
            request.wait = LONG;
            at_pace(self, &request, Deadline::after(LONG), &Unobserved, &pace).unwrap();
            slept.into_inner()
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
            assert!(within > Duration::ZERO && within <= crate::host::ANSWER_TIME);
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
        let pace = Pace { poll: POLL, longest: 3 * POLL, settle: SETTLE, sleep: &|_| unreachable!() };
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
        for_address(&host, &request, Deadline::after(Duration::ZERO), &Unobserved).unwrap();
        assert_eq!(host.asked.get(), 0);
        request.wait = Duration::from_millis(1);
        let error = for_address(&host, &request, Deadline::after(LONG), &Unobserved).unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.message().ends_with("waited 0 s for it"), "{error}");
        request.wait = LONG;
        host.host.borrow_mut().jails[0].vnet = false;
        host.host.borrow_mut().jails[0].inherits.inet = true;
        let error: Error = for_address(&host, &request, Deadline::after(LONG), &Unobserved).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}
