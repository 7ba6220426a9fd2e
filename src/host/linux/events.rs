//! A system without jails reports nothing about them: only the time passes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use crate::error::{Error, Result};
use crate::files::above_stdio;
use crate::host::{Event, Events, Watch};

/// A timer.
pub struct Timer(OwnedFd);

impl Timer {
    pub fn new() -> Result<Timer> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = above_stdio(|| Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?));
        timer.map(Timer).map_err(|error| Error::io("create a timer", &error))
    }
}

impl Events for Timer {
    fn tells_jails(&self) -> bool {
        false
    }

    fn add_jail(&mut self, _: i32) {}

    fn add_network(&mut self, _: i32, _: Watch) {}

    fn remove_network(&mut self, _: i32) {}

    fn next(&mut self, within: Duration) -> Result<Vec<Event>> {
        let timeout = Timespec::try_from(within).ok();
        // interrupted by a signal, or not: the caller looks
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()).is_ok_and(|ready| ready > 0) {
            _ = rustix::io::read(&self.0, &mut [0; 8]);
        }
        Ok(vec![])
    }

    fn wake(&mut self, within: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // a timer of 0 would be off
        let it_value = Timespec::try_from(within.max(Duration::from_nanos(1))).unwrap_or(zero);
        _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value });
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
