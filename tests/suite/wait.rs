//! Waiting until a jail has an address: a grace for the other family, and a watch of the jail's network.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use kport::deadline::Deadline;
use kport::error::{Error, Kind, Result};
use kport::host::{ANSWER_TIME, Behind, Fixed, Host, Jail, Watch};
use kport::publisher::{GRACE, Pace, Request, Unobserved, for_address};

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
        let has_one = |jail: Option<&Jail>| self.has_one(jail);
        for_address(self, &request, Deadline::after(LONG), &Unobserved, &has_one, &pace).unwrap();
        slept.into_inner()
    }

    fn has_one(&self, jail: Option<&Jail>) -> Result<bool> {
        match jail.filter(|jail| jail.vnet) {
            None => Err(Error::new(Kind::Unsupported, "on the host's network")),
            Some(jail) if self.vnet_addresses(jail, ANSWER_TIME)?.is_empty() => {
                Err(Error::new(Kind::Unavailable, "no address"))
            }
            Some(_) => Ok(true),
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
        ("the first family later, the other never", 30, |at| if at < 5 { no() } else { Ok(false) }, 5 + grace, true),
        ("the wait is shorter than the grace", 2, |_| Ok(false), 2, true),
        ("one that is not believed, then another", 15, |at| if at < 3 { no() } else { Ok(true) }, 3, true),
        ("one that is not believed, for ever", 15, |_| no(), 15, false),
        ("the other family is not believed, for ever", 15, |at| if at < 1 { Ok(false) } else { no() }, 15, false),
        ("the first address goes, and comes again", 30, |at| if at == 2 { no() } else { Ok(false) }, 3 + grace, true),
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
        let result = for_address(&host, &request, Deadline::after(LONG), &Unobserved, &having, &pace);
        assert_eq!((result.is_ok(), slept.get().as_secs()), (done, ends), "{name}: {result:?}");
    }
}

/// With distinct lengths.
const POLL: Duration = Duration::from_millis(2);
const SETTLE: Duration = Duration::from_millis(1);

impl Host for Late {
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Read(Box::new(self.host.borrow().clone())))
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
    let pace = Pace { poll: POLL, longest: LONG, settle: SETTLE, sleep: &std::thread::sleep, now: &Instant::now };
    let wait = |request: &Request, deadline| {
        for_address(&host, request, deadline, &Unobserved, &|jail| host.has_one(jail), &pace)
    };
    wait(&request, Deadline::after(Duration::ZERO)).unwrap();
    assert_eq!(host.asked.get(), 0);
    request.wait = Duration::from_millis(1);
    let error = wait(&request, Deadline::after(LONG)).unwrap_err();
    assert!(error.kind() == Kind::Unavailable && error.message().ends_with("waited 0.001 s for it"), "{error}");
    request.wait = LONG;
    host.host.borrow_mut().jails[0].vnet = false;
    let error = wait(&request, Deadline::after(LONG)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}
