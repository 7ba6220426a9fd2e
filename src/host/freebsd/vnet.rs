//! The interface list of a jail that has a network stack of its own.
//!
//! Only a process inside the jail can ask for it, and a process cannot leave a jail, so a child goes in, asks, reports
//! over a pipe and ends. A program started inside the jail would be the jail's own (or missing, in a jail without a
//! userland), and its answer would be text; ifconfig(8) has `-j` but prints text too. So the child is a fork, and what
//! makes a fork dangerous in a library is met like this:
//!
//! * other threads may hold any lock at that moment: the child makes system calls and nothing else, and what it writes
//!   to was allocated before (the lock of rtld(1) is no concern where symbols are bound at load time, as rustc has it;
//!   in a C program that binds libkport.a lazily the time-out would end the child);
//! * the caller's signal handlers must not run in the child: every signal is blocked before the fork;
//! * the caller may wait for any child, or ignore SIGCHLD: pdfork(2) makes a child that raises no SIGCHLD and that
//!   wait(2) for any child does not see, and closing its descriptor reaps it;
//! * root of the jail may debug what runs in the jail, and the child has the caller's memory and descriptors: before it
//!   goes in it closes every descriptor but the pipe, and forbids tracing itself (PROC_TRACE_CTL of procctl(2); lifting
//!   that takes PRIV_DEBUG_DENIED, which no jail has);
//! * root of the jail may stop or kill it: a stopped one is not waited for, and the wait is bounded.

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_int, c_uint, c_void, pid_t, sigset_t};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::interface::{LIST, links, reachable};
use super::process;
use super::report::{self, Answer, HEAD};
use crate::error::{Error, Kind, Result, quoted};
use crate::files::{self, Taken};
use crate::host::Jail;

/// The room for the answer at first, and at most: about a hundred interfaces with an address, and some thousands.
const FIRST: usize = 64 << 10;
const MOST: usize = 4 << 20;

/// What the child does, in this order.
const STEPS: [&str; 5] =
    ["pass on the pipe", "close descriptors", "procctl PROC_TRACE_CTL", "jail_attach", "read the interface list"];

/// The addresses that a jail with a network stack of its own has.
pub fn addresses(jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
    Ok(reachable(&links(&interface_list(jail, within)?)?))
}

/// The answer to NET_RT_IFLISTL inside `jail`.
fn interface_list(jail: &Jail, within: Duration) -> Result<Vec<u8>> {
    let deadline = Instant::now() + within;
    let who = format!("addresses of jail {}", quoted(&jail.name));
    let mut room = FIRST;
    loop {
        match ask(jail.jid, room, deadline).map_err(|error| error.context(&who))? {
            Answer::Done(list) => return Ok(list),
            Answer::Failed(4, libc::ENOMEM) if room < MOST => room *= 4,
            // root of the jail makes interfaces as it likes
            Answer::Failed(4, libc::ENOMEM) => {
                return Err(Error::new(Kind::Unavailable, format!("{who}: it has more interfaces than kport reads")));
            }
            // jail_attach(2)
            Answer::Failed(3, libc::EINVAL) => {
                return Err(Error::new(Kind::Unavailable, format!("{who}: jail {} is gone or going", jail.jid)));
            }
            Answer::Failed(step, errno) => {
                let step = usize::try_from(step).ok().and_then(|step| STEPS.get(step)).unwrap_or(&"child process");
                let error = Error::io(step, &io::Error::from_raw_os_error(errno)).context(&who);
                let hint = "pass the addresses, or run as root on the host";
                return Err(if error.kind() == Kind::Permission { error.and(hint) } else { error });
            }
        }
    }
}

/// One child, with `room` bytes for its answer.
fn ask(jid: i32, room: usize, deadline: Instant) -> Result<Answer> {
    // also for the descriptor of the child
    let _taken = Taken::standard();
    let (reader, writer) = files::pipe().map_err(|e| Error::io("pipe", &e))?;
    let mut answer = vec![0u8; room];
    let child = {
        let _blocked = Blocked::all()?;
        let mut fd = -1;
        // SAFETY: in the child, which has this one thread, only `send` runs, which makes system calls and never
        // returns.
        match unsafe { libc::pdfork(&raw mut fd, libc::PD_CLOEXEC) } {
            -1 => return Err(Error::io("pdfork", &io::Error::last_os_error())),
            // SAFETY: this is the child; `answer` has `room` bytes, and `writer` is an open pipe.
            0 => unsafe { send(jid, writer.as_raw_fd(), answer.as_mut_ptr(), room) },
            // SAFETY: the descriptor is new and nobody else has it.
            pid => Child { pid, descriptor: unsafe { OwnedFd::from_raw_fd(fd) } },
        }
    };
    drop(writer);
    let report = report::read(reader.as_fd(), room, deadline, &|| process::is_stopped(child.pid));
    drop(child);
    report
}

/// A child process. Its number is its own until the descriptor is closed.
struct Child {
    pid: pid_t,
    descriptor: OwnedFd,
}

impl Drop for Child {
    /// Ends it, if it has not come to its end, and waits until it has: then the close that follows reaps it. The close
    /// of one that still runs would leave it to its reaper, and that may be the caller (PROC_REAP_ACQUIRE).
    fn drop(&mut self) {
        // SAFETY: no memory is involved. An error says that it has ended.
        unsafe { libc::pdkill(self.descriptor.as_raw_fd(), libc::SIGKILL) };
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        // POLLHUP, which needs not be asked for, says that it has ended; there is nothing to do if it has not
        let _ = poll(&mut [PollFd::new(&self.descriptor, PollFlags::empty())], Some(&second));
    }
}

/// Every signal of this thread blocked, until it is dropped.
struct Blocked(sigset_t);

impl Blocked {
    fn all() -> Result<Blocked> {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset() makes `all` a set, and pthread_sigmask() stores one in `before` when it returns 0.
        let errno = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr())
        };
        match errno {
            // SAFETY: see above.
            0 => Ok(Blocked(unsafe { before.assume_init() })),
            _ => Err(Error::io("pthread_sigmask", &io::Error::from_raw_os_error(errno))),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is one that pthread_sigmask() has stored.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Goes into the jail, asks and reports to `pipe`.
///
/// # Safety
/// Only in a child that was just forked. `answer` must have `room` bytes.
unsafe fn send(jid: i32, pipe: c_int, answer: *mut u8, room: usize) -> ! {
    let mut size = room;
    // SAFETY: system calls on the memory of this frame and on `answer`, which the caller vouches for.
    unsafe {
        let step = look(jid, pipe, answer, &mut size);
        let errno = if step == STEPS.len() as c_uint { 0 } else { *libc::__error() };
        let out = if step == 0 { pipe } else { 0 };
        let head = report::head(step, errno, size);
        put(out, head.as_ptr(), HEAD);
        if errno == 0 {
            put(out, answer, size);
        }
        libc::_exit(0)
    }
}

/// The steps up to the one that fails, whose number is returned; all of them where none does, with `size` bytes in
/// `answer`.
///
/// # Safety
/// As [`send`].
unsafe fn look(jid: i32, pipe: c_int, answer: *mut u8, size: &mut usize) -> c_uint {
    // SAFETY: as in `send`.
    unsafe {
        if libc::dup2(pipe, 0) != 0 {
            return 0;
        }
        if libc::close_range(1, c_uint::MAX, 0) != 0 {
            return 1;
        }
        let mut forbid = libc::PROC_TRACE_CTL_DISABLE;
        let this = libc::id_t::from(libc::getpid());
        if libc::procctl(libc::P_PID, this, libc::PROC_TRACE_CTL, (&raw mut forbid).cast::<c_void>()) != 0 {
            return 2;
        }
        if libc::jail_attach(jid) != 0 {
            return 3;
        }
        let count = LIST.len() as c_uint;
        if libc::sysctl(LIST.as_ptr(), count, answer.cast(), size, ptr::null(), 0) != 0 {
            return 4;
        }
    }
    STEPS.len() as c_uint
}

/// Writes all of it, or gives up: then the report is short, which the reader sees.
///
/// # Safety
/// As [`send`], with `bytes` of `size` bytes.
unsafe fn put(out: c_int, mut bytes: *const u8, mut size: usize) {
    while size > 0 {
        // SAFETY: `bytes` has `size` bytes left.
        let Ok(written @ 1..) = usize::try_from(unsafe { libc::write(out, bytes.cast(), size) }) else { return };
        // SAFETY: no more was written than there was.
        bytes = unsafe { bytes.add(written) };
        size -= written;
    }
}
