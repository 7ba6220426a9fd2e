//! The end of a child, from kqueue(2): a host that ignores SIGCHLD, or waits for any child, leaves no status for
//! wait(2).

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::kqueue::{Event, EventFilter, EventFlags, ProcessEvents, kevent, kqueue};
use rustix::process::Pid;

use crate::files;

/// A kqueue(2) that gets the end of one process.
pub(super) struct Queue(OwnedFd);

impl Queue {
    /// `None` if the process has gone already, or nothing can be watched.
    pub(super) fn new(process: u32) -> Option<Queue> {
        let pid = Pid::from_raw(i32::try_from(process).ok()?)?;
        let queue = files::above_stdio(|| Ok(kqueue()?)).ok()?;
        let filter = EventFilter::Proc { pid, flags: ProcessEvents::EXIT };
        let event = Event::new(filter, EventFlags::ADD | EventFlags::ONESHOT, ptr::null_mut());
        // SAFETY: the event is about a process, not about a descriptor that could be closed meanwhile.
        unsafe { kevent(&queue, &[event], &mut [] as &mut [Event], Some(Duration::ZERO)) }.ok()?;
        Some(Queue(queue))
    }

    /// The status as in wait(2) (filt_proc() of kern/kern_event.c), when the process has ended.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        let mut events: Vec<Event> = Vec::with_capacity(1);
        // SAFETY: as above; nothing is added.
        unsafe { kevent(&self.0, &[], spare_capacity(&mut events), Some(Duration::ZERO)) }.ok()?;
        let status = i32::try_from(events.first()?.data()).ok()?;
        Some(ExitStatus::from_raw(status))
    }
}
