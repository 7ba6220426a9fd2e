//! Events: what the system reports at once, so that nobody has to ask.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::deadline::Deadline;
use crate::error::Result;

/// Something that may have changed. An event only says when to look: some are lost, several come as one, and a false alarm is
/// possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Jails were made.
    Jails,
    /// The jail with this jid was changed or removed.
    Jail(i32),
    /// Interfaces, addresses or routes in the network stack of the jail with this jid.
    Network(i32),
    /// Interfaces, addresses or routes of the host.
    Routes,
}

/// A source of events. By default it does not tell about jails, nor about their networks.
pub trait Events {
    /// Whether events tell about jails: without them, the jails have to be listed often.
    fn tells_jails(&self) -> bool {
        false
    }

    /// Tells about the jail with this jid until it is removed. If it is gone already, nobody is told.
    fn add_jail(&mut self, _jid: i32) {}

    /// Tells about the network of the jail with this jid.
    fn add_network(&mut self, _jid: i32, _socket: Watch) {}

    /// Closes the socket of a jail's network: until then a jail that is removed is dying.
    fn remove_network(&mut self, _jid: i32) {}

    /// What has come since the last call; several events on one thing are one. Waits for the first one, but not longer than
    /// `within`; a signal ends the wait.
    ///
    /// # Errors
    ///
    /// Only if there will be no more.
    fn next(&mut self, within: Duration) -> Result<Vec<Event>>;

    /// Makes the descriptor readable after this time, if it is not before.
    fn wake(&mut self, within: Duration);

    /// A descriptor that is readable when [`Events::next`] would return something, or after [`Events::wake`].
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// How many messages are discarded at once: that many are a change in any case.
const MOST_MESSAGES: usize = 256;

/// Wakes up the caller after a change. The contents of messages are discarded: only their arrival counts, and that may
/// be a false alarm. So a sender can do no more than wake up the caller.
#[derive(Debug)]
pub struct Watch(pub(super) OwnedFd);

impl Watch {
    /// A socket that gets a message, or a part of a stream, for each change.
    pub fn new(socket: OwnedFd) -> Watch {
        Watch(socket)
    }

    /// Waits until something has arrived since the last call; `false` after `time` without it. An error is permanent.
    pub fn wait(&self, time: Duration) -> io::Result<bool> {
        let end = Deadline::after(time);
        loop {
            let timeout = Timespec::try_from(end.remaining()).ok();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => return self.drain().map(|()| true),
                Err(Errno::INTR) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn drain(&self) -> io::Result<()> {
        let mut message = [0; 2048];
        for _ in 0..MOST_MESSAGES {
            match recv(&self.0, &mut message[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // no space for more messages: there were some
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => (),
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
