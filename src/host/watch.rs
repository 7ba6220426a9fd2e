//! A descriptor that becomes readable when something may have changed.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::deadline::Deadline;

/// How many messages are discarded at once: that many are a change in any case.
const MOST_MESSAGES: usize = 256;

/// Wakes up the caller after a change. The contents of messages are discarded: only their arrival counts, and that may
/// be a false alarm. So a sender can do no more than wake up the caller.
#[derive(Debug)]
pub struct Watch(OwnedFd);

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

    /// The socket, to wait for several at once.
    #[cfg(target_os = "freebsd")]
    pub(super) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn many_messages_are_one_change() {
        let (here, there) = UnixDatagram::pair().unwrap();
        let watch = Watch::new(here.into());
        assert!(!watch.wait(Duration::ZERO).unwrap());
        // longer than what is read of it
        for size in [1, 100, 5000] {
            there.send(&vec![7; size]).unwrap();
        }
        assert!(watch.wait(LONG).unwrap());
        assert!(!watch.wait(Duration::ZERO).unwrap());
    }

    /// A flood of messages does not block the call.
    #[test]
    fn a_flood() {
        let (here, there) = UnixStream::pair().unwrap();
        there.set_nonblocking(true).unwrap();
        let watch = Watch::new(here.into());
        let flood = std::thread::spawn(move || {
            let written = |there: &UnixStream| match (&mut &*there).write(&[0; 512]) {
                Ok(_) => true,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
            while written(&there) {}
        });
        assert!(watch.wait(LONG).unwrap() && watch.wait(LONG).unwrap());
        drop(watch);
        flood.join().unwrap();
    }

    #[test]
    fn an_error_is_permanent() {
        let (here, there) = UnixStream::pair().unwrap();
        let watch = Watch::new(here.into());
        drop(there);
        assert!(watch.wait(LONG).is_err() && watch.wait(LONG).is_err());
    }
}
