//! The interface list and the routing table of a jail with its own network stack, and a routing socket of that stack.
//!
//! Only a process in the jail can read them, and a process cannot leave a jail, so a child enters the jail, reads,
//! reports over a socket and exits. A program started in the jail would be the jail's own (or missing, in a jail
//! without a userland), and its output would be text; ifconfig(8) has `-j` but also prints text. So the child is a
//! fork. A fork is dangerous in a library; the dangers are handled as follows:
//!
//! * other threads may hold any lock at that moment: the child makes system calls only, and writes only to memory that
//!   was allocated before (the lock of rtld(1) does not matter if symbols are bound at load time, as rustc does; in a C
//!   program that binds libkport.a lazily the time-out would end the child);
//! * the caller's signal handlers must not run in the child: every signal is blocked before the fork;
//! * the caller may wait for any child, or ignore SIGCHLD: pdfork(2) creates a child that raises no SIGCHLD and that
//!   wait(2) for any child does not return, and closing its descriptor reaps it;
//! * root of the jail may debug any process in the jail, and the child has the caller's memory and descriptors: before
//!   it enters, it closes every descriptor but the socket, and forbids tracing (PROC_TRACE_CTL of procctl(2); undoing
//!   that needs PRIV_DEBUG_DENIED, which no jail has);
//! * root of the jail may stop or kill it: a stopped child is not waited for, and the wait has a limit.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{io, ptr};

use libc::{c_int, c_uint, c_void, pid_t};
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::report::{self, Answer};
use super::rtsock::{self, links, reachable};
use super::{kernel, socket};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting, error, quoted};
use crate::files::{above_stdio, taken};
use crate::host::{Jail, Router, Watch};
use crate::net::Family;

/// The initial and the maximum size of the answer: about a hundred interfaces with an address, and some thousands.
const FIRST: usize = 64 << 10;
const MOST: usize = 4 << 20;

/// The steps of the child, in this order; the last two are alternatives.
const STEPS: [&str; 6] = [
    "pass on the socket",
    "close descriptors",
    "procctl PROC_TRACE_CTL",
    "jail_attach",
    "read the interfaces or routes",
    "open a routing socket",
];
const TRACE_CTL: c_uint = 2;
const ATTACH: c_uint = 3;
const READ_LIST: c_uint = 4;
const OPEN_SOCKET: c_uint = 5;

pub fn addresses(jail: &Jail, within: Duration) -> Result<Vec<IpAddr>> {
    let (list, socket) = read(jail, kernel::INTERFACES, "addresses", within)?;
    // a socket belongs to the stack in which it was created, and so do its ioctls (soo_ioctl() of kern/sys_socket.c)
    let flags = |name: &str, address| socket.as_ref().map_or(0, |socket| kernel::flags6(socket, name, address));
    Ok(reachable(&links(&list)?, flags))
}

pub fn router(jail: &Jail, family: Family, within: Duration) -> Result<Router> {
    rtsock::router(&read(jail, kernel::routes(family), "routes", within)?.0, family)
}

/// The value of a sysctl(3) in `jail`, and a socket of AF_INET6 of its stack. `what` is what the value is.
fn read(jail: &Jail, mib: [c_int; 6], what: &str, within: Duration) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let deadline = Deadline::after(within);
    let who = format!("{what} of jail {}", quoted(&jail.name));
    let mut room = FIRST;
    loop {
        match ask(jail.jid, Some(mib), room, deadline).map_err(|error| error.context(&who))? {
            Answer::Done(value, socket) => return Ok((value, socket)),
            Answer::Failed(READ_LIST, libc::ENOMEM) if room < MOST => room *= 4,
            // root of the jail may create any number of interfaces
            Answer::Failed(READ_LIST, libc::ENOMEM) => {
                return Err(error!(Unavailable, "{who}: more than kport reads"));
            }
            Answer::Failed(step, errno) => return Err(failed(jail, step, errno).context(&who)),
        }
    }
}

/// A routing socket of the jail's network stack (route(4)). A socket always belongs to the stack in which it was
/// created, whichever process has it (so_vnet, socreate() of kern/uipc_socket.c), so it reports to the host what
/// happens in the jail. Its credential keeps the jail from being freed: a removed jail is dying, with its name free,
/// but its interfaces return only when this is closed.
pub fn watch(jail: &Jail, within: Duration) -> Result<Watch> {
    let who = format!("routing socket of jail {}", quoted(&jail.name));
    let answer = ask(jail.jid, None, 0, Deadline::after(within)).map_err(|error| error.context(&who))?;
    match answer {
        Answer::Done(_, Some(socket)) => Ok(Watch::new(socket)),
        Answer::Done(_, None) => Err(error!(System, "{who}: it was not passed: too many open files?")),
        Answer::Failed(step, errno) => Err(failed(jail, step, errno).context(&who)),
    }
}

fn failed(jail: &Jail, step: c_uint, errno: c_int) -> Error {
    // jail_attach(2)
    if (step, errno) == (ATTACH, libc::EINVAL) {
        return error!(Unavailable, "jail {} is gone or dying", jail.jid);
    }
    // trace_ctl() in sys/kern/kern_procctl.c. What is traced must not enter: root of the jail could go on tracing it
    if (step, errno) == (TRACE_CTL, libc::EBUSY) {
        let why = "a process that is traced does not enter a jail; run truss(1) without -f and ktrace(1) without -i";
        let error = Error::new(Kind::System, why).with_errno(errno);
        return error.remedy("or give the addresses with", Setting::Address);
    }
    let step = usize::try_from(step).ok().and_then(|step| STEPS.get(step)).unwrap_or(&"child process");
    let error = Error::io(step, &io::Error::from_raw_os_error(errno));
    let hint = "pass the addresses, or run as root on the host";
    if error.kind() == Kind::Permission { error.and(hint) } else { error }
}

/// A child reports the sysctl(3) with this MIB, of at most `room` bytes, and passes a socket of AF_INET6 if the jail can have one;
/// without a MIB it passes a routing socket.
fn ask(jid: i32, mib: Option<[c_int; 6]>, room: usize, deadline: Deadline) -> Result<Answer> {
    // also for the descriptor of the child, and what it passes
    let _taken = taken();
    let (reader, writer) = UnixStream::pair().map_err(|e| Error::io("socketpair", &e))?;
    let lift = |stream: UnixStream| above_stdio(|| Ok(stream)).map_err(|e| Error::io("socketpair", &e));
    let (reader, writer) = (lift(reader)?, lift(writer)?);
    let mut answer = vec![0u8; room];
    let child = {
        let _blocked = Blocked::all()?;
        let mut fd = -1;
        // SAFETY: in the child, which has this one thread, only `send` runs, which makes system calls and never
        // returns.
        match unsafe { libc::pdfork(&raw mut fd, libc::PD_CLOEXEC) } {
            -1 => return Err(Error::io("pdfork", &io::Error::last_os_error())),
            // SAFETY: this is the child.
            0 => unsafe { send(jid, writer.as_raw_fd(), mib, &mut answer) },
            // SAFETY: the descriptor is new and has no other owner.
            pid => Child { pid, descriptor: unsafe { OwnedFd::from_raw_fd(fd) } },
        }
    };
    drop(writer);
    let report = report::read(reader.as_fd(), room, deadline, &|| child.is_stopped());
    drop(child);
    match report? {
        Answer::Done(bytes, Some(passed)) => {
            let passed = above_stdio(|| Ok(passed)).map_err(|e| Error::io("dup", &e))?;
            Ok(Answer::Done(bytes, Some(passed)))
        }
        other => Ok(other),
    }
}

/// A child process. Its pid is not reused until the descriptor is closed.
struct Child {
    pid: pid_t,
    descriptor: OwnedFd,
}

impl Child {
    /// Whether it is stopped (SIGSTOP). If it cannot be read it counts as not stopped.
    fn is_stopped(&self) -> bool {
        let mib = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, self.pid];
        kernel::fetch(&mib).is_ok_and(|answer| socket::stopped(&answer).unwrap_or(false))
    }
}

impl Drop for Child {
    /// Kills it, unless it has ended, and waits until it has: then the close that follows reaps it. Closing the
    /// descriptor of a running child would leave it to its reaper, which may be the caller (PROC_REAP_ACQUIRE).
    fn drop(&mut self) {
        // SAFETY: no memory is involved. An error means that it has ended.
        unsafe { libc::pdkill(self.descriptor.as_raw_fd(), libc::SIGKILL) };
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        // POLLHUP, which is always reported, means that it has ended; if it has not, there is nothing to do
        let _ = poll(&mut [PollFd::new(&self.descriptor, PollFlags::empty())], Some(&second));
    }
}

/// Blocks every signal of this thread, until it is dropped.
struct Blocked(SigSet);

impl Blocked {
    fn all() -> Result<Blocked> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
        before.map(Blocked).map_err(|errno| Error::io("pthread_sigmask", &errno.into()))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // the set is one that pthread_sigmask() has stored
        _ = self.0.thread_set_mask();
    }
}

/// Enters the jail, does what [`ask`] describes, and reports to `stream`.
///
/// # Safety
/// Only in a child that was just forked.
unsafe fn send(jid: i32, stream: c_int, mib: Option<[c_int; 6]>, answer: &mut [u8]) -> ! {
    // SAFETY: system calls on the memory of this frame and on `answer`.
    unsafe {
        let mut size = 0;
        let done = enter(jid, stream).and_then(|()| match mib {
            Some(mib) => {
                size = answer.len();
                let (count, value) = (mib.len() as c_uint, answer.as_mut_ptr().cast());
                let read = libc::sysctl(mib.as_ptr(), count, value, &raw mut size, ptr::null(), 0);
                step(READ_LIST, read == 0)
            }
            None => pass_socket((libc::PF_ROUTE, SocketType::RAW), OPEN_SOCKET, 0),
        });
        match (done, mib) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                // a jail without IPv6 has no such socket
                if pass_socket((libc::PF_INET6, SocketType::DGRAM), READ_LIST, size).is_err() {
                    put(0, &report::head(READ_LIST, 0, size));
                }
                put(0, answer.get(..size).unwrap_or_default());
            }
            (Err((failed, errno)), _) => {
                let out = if failed == 0 { stream } else { 0 };
                put(out, &report::head(failed, errno, 0));
            }
        }
        libc::_exit(0)
    }
}

/// A step, with its errno if it failed.
type StepResult = std::result::Result<(), (c_uint, c_int)>;

fn step(number: c_uint, done: bool) -> StepResult {
    // SAFETY: no memory but this thread's errno.
    if done { Ok(()) } else { Err((number, unsafe { *libc::__error() })) }
}

/// The steps up to the jail. Afterwards the stream is descriptor 0, and there are no others.
///
/// # Safety
/// As [`send`].
unsafe fn enter(jid: i32, stream: c_int) -> StepResult {
    // SAFETY: as in `send`.
    unsafe {
        step(0, libc::dup2(stream, 0) == 0)?;
        step(1, libc::close_range(1, c_uint::MAX, 0) == 0)?;
        let mut forbid = libc::PROC_TRACE_CTL_DISABLE;
        let this = libc::id_t::from(libc::getpid());
        step(
            TRACE_CTL,
            libc::procctl(libc::P_PID, this, libc::PROC_TRACE_CTL, (&raw mut forbid).cast::<c_void>()) == 0,
        )?;
        step(ATTACH, libc::jail_attach(jid) == 0)
    }
}

/// Opens a socket, and passes it with the head of a report of `length` bytes. A routing socket gets every message of its
/// network stack.
fn pass_socket((domain, kind): (c_int, SocketType), step: c_uint, length: usize) -> StepResult {
    let errno = |errno: rustix::io::Errno| (step, errno.raw_os_error());
    // lossless: 17 and 28
    let family = AddressFamily::from_raw(domain as u16);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None).map_err(errno)?;
    // SAFETY: the child has it until it exits.
    let stream = unsafe { BorrowedFd::borrow_raw(0) };
    report::pass(stream, step, length, socket.as_fd()).map_err(errno)
}

/// Writes all of it, or gives up: then the report is too short, which the reader detects.
fn put(out: c_int, mut bytes: &[u8]) {
    // SAFETY: the child has it until it exits.
    let out = unsafe { BorrowedFd::borrow_raw(out) };
    while !bytes.is_empty() {
        let Ok(written @ 1..) = rustix::io::write(out, bytes) else { return };
        bytes = bytes.get(written..).unwrap_or_default();
    }
}
