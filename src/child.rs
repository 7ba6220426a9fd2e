//! Runs one program to its end, within a bound, inside a process that is not ours.
//!
//! The host may have closed its standard descriptors, may ignore SIGCHLD, may reap every child itself, may have threads
//! that fork. So: no signal disposition is touched, no thread is started, only our own child is waited for, and nothing
//! is written to a pipe (that could raise SIGPIPE, or block while the child writes to us): the child's standard input is
//! a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The most that is kept of each output, in bytes. The labels of an anchor with a rule for every port fit.
const CAP: usize = 16 << 20;

/// How often a child that says nothing is looked at, in case that something else holds its pipes open.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a killed child may take to go. One that takes longer hangs in the kernel; waiting for it would hang the host too.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It left with this status.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody can tell: the host ignores SIGCHLD or reaped the child itself.
    Unknown,
    /// The deadline passed, and it was killed.
    TimedOut,
    /// It wrote more than is kept, and was killed.
    TooMuch,
}

/// What a child left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// How it ended.
    pub(crate) end: End,
    /// What it wrote to standard output, in full unless it was killed.
    pub(crate) stdout: Vec<u8>,
    /// What it wrote to standard error, in full unless it was killed.
    pub(crate) stderr: Vec<u8>,
}

/// Runs `program`, an absolute path, with `arguments`, with `input` on its standard input, in `/`, with no environment but
/// `LC_ALL=C`. An error means that it was not started.
pub(crate) fn run(program: &Path, arguments: &[&str], input: &[u8], deadline: Instant) -> io::Result<Output> {
    let mut held = Vec::new();
    let stdin = above_stdio(input_file(input)?.into(), &mut held)?;
    let (out, child_out) = pipe(&mut held)?;
    let (err, child_err) = pipe(&mut held)?;

    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(child_out)).stderr(Stdio::from(child_err));
    let mut child = command.spawn()?;
    // the write ends of the pipes go with the command, so that a pipe ends when the child does
    drop(command);
    drop(held);

    let mut pipes = [Capture::new(out), Capture::new(err)];
    let end = watch(&mut child, &mut pipes, deadline).unwrap_or_else(|end| kill(&mut child, end));
    let [stdout, stderr] = pipes.map(|pipe| pipe.text);
    Ok(Output { end, stdout, stderr })
}

/// Reads both pipes until the child has ended. `Err` is the reason why it must be killed.
fn watch(child: &mut Child, pipes: &mut [Capture; 2], deadline: Instant) -> Result<End, End> {
    let mut nap = Duration::from_micros(50);
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(End::TimedOut);
        }
        let left = deadline - now;
        if pipes.iter().any(|pipe| pipe.open.is_some()) {
            if Capture::read(pipes, left.min(GLANCE))? {
                continue;
            }
        } else {
            // both outputs are closed: it is about to go
            sleep(nap.min(left));
            nap = (nap * 2).min(Duration::from_millis(10));
        }
        if let Some(end) = ended(child) {
            // what it wrote before it went; whoever else holds the pipe open is not waited for
            while Capture::read(pipes, Duration::ZERO)? {}
            return Ok(end);
        }
    }
}

/// How the child ended, if it has.
fn ended(child: &mut Child) -> Option<End> {
    match child.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => Some(match (status.code(), status.signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => End::Unknown,
        }),
        // ECHILD: it has ended, and its status is lost
        Err(_) => Some(End::Unknown),
    }
}

/// Kills the child, unless it has just gone by itself, and waits for it.
fn kill(child: &mut Child, why: End) -> End {
    // a child that is waited for has a number that may be another's by now
    if ended(child).is_some() {
        return why;
    }
    // an error here means that it is gone
    _ = child.kill();
    let last = Instant::now() + LAST_GRACE;
    let mut nap = Duration::from_micros(50);
    while ended(child).is_none() && Instant::now() < last {
        sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(10));
    }
    why
}

/// One output of the child.
struct Capture {
    open: Option<File>,
    text: Vec<u8>,
}

impl Capture {
    fn new(end: OwnedFd) -> Capture {
        Capture { open: Some(File::from(end)), text: Vec::new() }
    }

    /// Waits up to `timeout` for output, and reads what is there. `Ok(false)` where nothing came.
    fn read(pipes: &mut [Capture; 2], timeout: Duration) -> Result<bool, End> {
        let mut open: Vec<&mut Capture> = pipes.iter_mut().filter(|pipe| pipe.open.is_some()).collect();
        let mut fds: Vec<PollFd<'_>> =
            open.iter().filter_map(|pipe| pipe.open.as_ref()).map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
        // EINTR and ENOMEM come to the same as silence; the caller's deadline goes on
        if poll(&mut fds, Some(&timeout)).unwrap_or(0) == 0 {
            return Ok(false);
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut some = false;
        for (pipe, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            some = true;
            let mut buffer = [0; 16 << 10];
            match pipe.open.as_mut().map(|file| file.read(&mut buffer)) {
                Some(Ok(count)) if count > 0 => pipe.text.extend_from_slice(&buffer[..count]),
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => pipe.open = None,
            }
            if pipe.text.len() > CAP {
                pipe.text.truncate(CAP);
                return Err(End::TooMuch);
            }
        }
        Ok(some)
    }
}

fn pipe(held: &mut Vec<OwnedFd>) -> io::Result<(OwnedFd, OwnedFd)> {
    // std's pipes are close-on-exec
    let (read, write) = io::pipe()?;
    Ok((above_stdio(read.into(), held)?, above_stdio(write.into(), held)?))
}

/// The same file under a number of 3 or more. Where the host has closed 0, 1 or 2, a new descriptor gets that number, and
/// putting the child's standard descriptors in place would then overwrite one with another. The low ones are held until
/// the child is started, so that nothing else that std opens for it gets such a number.
fn above_stdio(file: OwnedFd, held: &mut Vec<OwnedFd>) -> io::Result<OwnedFd> {
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    let high = rustix::io::fcntl_dupfd_cloexec(&file, 3)?;
    held.push(file);
    Ok(high)
}

/// A file with `input`, at its start, that has no name.
fn input_file(input: &[u8]) -> io::Result<File> {
    if input.is_empty() {
        return File::open("/dev/null");
    }
    let mut file = nameless()?;
    file.write_all(input)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn nameless() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(File::from(memfd_create("kport", MemfdFlags::CLOEXEC)?))
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn nameless() -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = format!("/tmp/kport.{}.{:016x}", std::process::id(), fastrand::u64(..));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}
