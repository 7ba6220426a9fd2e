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

/// How often the host is read, and how to sleep in between. Tests have another one.
#[doc(hidden)]
pub struct Pace<'a> {
    /// If nothing reports a change: a routing socket does not report that a jail is created, or that jail_set(2) gives an
    /// address to a jail on the host's network stack. Reading is two system calls for such a jail.
    pub poll: Duration,
    /// The longest time between two reads if the system reports changes: it may have missed one. It is also how long the
    /// socket keeps a jail that has been removed dying.
    pub longest: Duration,
    /// From a change to the next read: an address, its routes and the flags of its interface change together, and a network
    /// that changes all the time must not keep kport busy.
    pub settle: Duration,
    /// std::thread::sleep
    pub sleep: &'a dyn Fn(Duration),
    /// Instant::now
    pub now: &'a dyn Fn() -> Instant,
}

pub(super) const PACE: Pace<'_> = Pace {
    poll: Duration::from_millis(200),
    longest: Duration::from_secs(2),
    settle: Duration::from_millis(50),
    sleep: &std::thread::sleep,
    now: &Instant::now,
};

/// Returns when the jail has its addresses, at once if one is given or no waiting was requested. `is_complete` says whether the jail
/// has every address that is waited for; an error if it has none.
///
/// # Errors
///
/// The reason that there is none yet, after `request.wait` or at the deadline; at once if waiting cannot help.
#[doc(hidden)]
pub fn for_address(
    host: &dyn Host,
    request: &Request,
    deadline: Deadline,
    observer: &dyn Observer,
    is_complete: &dyn Fn(Option<&Jail>) -> Result<bool>,
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
    use super::*;
    use crate::publisher::Unobserved;

    /// A change that was not reported is found, even if the reads become less frequent.
    #[test]
    fn a_watch_that_tells_nothing() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let poll = Duration::from_millis(2);
        let mut watched = Watched { jid: 1, watch: Some(Watch::new(here.into())), interval: poll };
        let pace = Pace { poll, longest: 3 * poll, sleep: &|_| unreachable!(), ..PACE };
        let intervals = [(); 3].map(|()| {
            watched.wait(Duration::MAX, &Unobserved, &pace);
            watched.interval
        });
        assert_eq!(intervals, [2 * poll, 3 * poll, 3 * poll]);
    }
}
