//! Events of jails and networks: kqueue(2), with EVFILT_JAIL of FreeBSD 15 and the routing sockets of network stacks.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use std::{io, ptr};

use libc::{c_int, kevent, timespec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Error, Result};
use crate::files::above_stdio;
use crate::host::{Event, Events, Watch};

/// sys/event.h
const EVFILT_JAIL: i16 = -14;
const NOTE_JAIL_CHILD: u32 = 0x8000_0000;
const NOTE_JAIL_SET: u32 = 0x4000_0000;
const NOTE_JAIL_REMOVE: u32 = 0x1000_0000;
/// How many events one call returns; the rest come with the next one.
const MOST: usize = 64;
/// The caller's own jail: its children are the jails of the host.
const OWN: i32 = 0;

/// A queue.
pub struct Queue {
    queue: OwnedFd,
    tells_jails: bool,
    /// By jid; that of the host is [`OWN`].
    networks: BTreeMap<i32, Watch>,
}

impl Queue {
    pub fn new() -> Result<Queue> {
        let failed = |error: io::Error| Error::io("kqueue", &error);
        let queue = above_stdio(|| Ok(rustix::event::kqueue::kqueue()?)).map_err(failed)?;
        rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let mut queue = Queue { queue, tells_jails: false, networks: BTreeMap::new() };
        // before 15 there is no such filter: EINVAL
        queue.tells_jails =
            queue.change(OWN as usize, EVFILT_JAIL, libc::EV_ADD | libc::EV_CLEAR, NOTE_JAIL_CHILD, 0).is_ok();
        // without it the routes are looked at from time to time
        // lossless: 17
        let family = AddressFamily::from_raw(libc::PF_ROUTE as u16);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        if let Ok(socket) = above_stdio(|| Ok(socket_with(family, SocketType::RAW, flags, None)?)) {
            queue.add_network(OWN, Watch::new(socket));
        }
        Ok(queue)
    }

    fn change(&self, ident: usize, filter: i16, flags: u16, fflags: u32, data: i64) -> io::Result<()> {
        // SAFETY: all fields are integers and a raw pointer, for which zero is a value.
        let mut change: kevent = unsafe { MaybeUninit::zeroed().assume_init() };
        (change.ident, change.filter, change.flags, change.fflags) = (ident, filter, flags, fflags);
        change.data = data as _;
        // SAFETY: one change is read, and no event is written.
        let done =
            unsafe { libc::kevent(self.queue.as_raw_fd(), &raw const change, 1, ptr::null_mut(), 0, ptr::null()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Events for Queue {
    fn tells_jails(&self) -> bool {
        self.tells_jails
    }

    fn add_jail(&mut self, jid: i32) {
        if let (true, Ok(ident)) = (self.tells_jails, usize::try_from(jid)) {
            let notes = NOTE_JAIL_SET | NOTE_JAIL_REMOVE | NOTE_JAIL_CHILD;
            // a jail that is gone is missing in the next list
            _ = self.change(ident, EVFILT_JAIL, libc::EV_ADD | libc::EV_CLEAR, notes, 0);
        }
    }

    fn add_network(&mut self, jid: i32, socket: Watch) {
        // lossless: a descriptor is not negative
        let ident = socket.0.as_raw_fd() as usize;
        if self.change(ident, libc::EVFILT_READ, libc::EV_ADD | libc::EV_CLEAR, 0, 0).is_ok() {
            self.networks.insert(jid, socket);
        }
    }

    fn remove_network(&mut self, jid: i32) {
        // its knote goes with the socket
        self.networks.remove(&jid);
    }

    fn next(&mut self, within: Duration) -> Result<Vec<Event>> {
        // SAFETY: as in `change`.
        let mut events: [kevent; MOST] = unsafe { MaybeUninit::zeroed().assume_init() };
        let timeout = timespec {
            tv_sec: within.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: within.subsec_nanos().into(),
        };
        let room = MOST as c_int;
        // SAFETY: `events` has room for as many, and the timeout outlives the call.
        let count = unsafe {
            libc::kevent(self.queue.as_raw_fd(), ptr::null(), 0, events.as_mut_ptr(), room, &raw const timeout)
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(vec![]),
                _ => Err(Error::io("kevent", &error)),
            };
        };
        let mut told = vec![];
        for event in &events[..count] {
            match event.filter {
                EVFILT_JAIL => {
                    if event.fflags & NOTE_JAIL_CHILD != 0 {
                        told.push(Event::Jails);
                    }
                    if event.fflags & (NOTE_JAIL_SET | NOTE_JAIL_REMOVE) != 0 {
                        // lossless: it was made from a jid
                        told.push(Event::Jail(event.ident as i32));
                    }
                }
                libc::EVFILT_READ => {
                    let of = self.networks.iter().find(|(_, socket)| socket.0.as_raw_fd() as usize == event.ident);
                    let Some((jid, socket)) = of else { continue };
                    let jid = *jid;
                    // a socket that has failed tells nothing more
                    if socket.wait(Duration::ZERO).is_err() {
                        self.networks.remove(&jid);
                    }
                    told.push(if jid == OWN { Event::Routes } else { Event::Network(jid) });
                }
                _ => {}
            }
        }
        Ok(told)
    }

    fn wake(&mut self, within: Duration) {
        let milliseconds = i64::try_from(within.as_millis()).unwrap_or(i64::MAX).max(1);
        let flags = libc::EV_ADD | libc::EV_ONESHOT;
        _ = self.change(0, libc::EVFILT_TIMER, flags, libc::NOTE_MSECONDS, milliseconds);
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}
