//! Runs one program to its end, with limits, inside a process that is not kport's own.
//!
//! The host may have closed its standard descriptors, may ignore SIGCHLD, may reap every child, may have threads that
//! fork. So no signal disposition is changed, no thread is started, only kport's own child is waited for, and nothing
//! is written to a pipe (that could raise SIGPIPE, or block while the child writes to kport): the child's standard
//! input is a file.

#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
mod exit;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

use crate::deadline::Deadline;
use crate::error::{Error, Result, Setting, error};
use crate::files::{self, taken};

/// The maximum size of an output that is kept, in bytes. The rules of an anchor with a mapping for every port fit.
const MAX_OUTPUT: usize = 64 << 20;

/// The interval of checks whether a silent child has ended, in case another process holds its pipes open.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The first wait for a child that is about to exit; each later one is twice as long.
const FIRST_NAP: Duration = Duration::from_micros(50);

/// The time for a killed child to end. One that takes longer hangs in the kernel, and would block the host, too.
const KILL_TIME: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
    /// Unknown: the host ignores SIGCHLD or reaped the child itself, and the kernel did not report it otherwise.
    Unknown,
    /// The deadline passed, and it was killed.
    TimedOut,
    /// It wrote more than the maximum, and was killed.
    TooMuch,
}

/// The output of a child, complete unless it was killed.
#[derive(Debug)]
pub struct Output {
    pub end: End,
    /// If the lines were read as they came: the last one.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs `program`, an absolute path, with `arguments` and with `input` on its standard input, in `/`, with no
/// environment but `LC_ALL=C`. The child also holds a copy of `keep` until it ends. An error means that it was not
/// started. With `lines`, standard output has any size: each line is passed on when the next one begins.
pub(crate) fn run(
    program: &Path, arguments: &[impl AsRef<OsStr>], input: &[u8], keep: Option<BorrowedFd<'_>>,
    lines: Option<&mut Lines<'_>>, deadline: Deadline,
) -> io::Result<Output> {
    // a descriptor with a number below 3 would be overwritten when the child's standard descriptors are set up: one of
    // these by the other, and any that std opens for it
    let taken = taken();
    let stdin = input_file(input)?;
    let (out, child_out) = files::pipe()?;
    let (err, child_err) = files::pipe()?;
    let kept = keep.map(inheritable).transpose()?;

    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(child_out)).stderr(Stdio::from(child_err));
    let child = command.spawn()?;
    // dropping the command closes the write ends of the pipes, so that a pipe ends when the child does
    drop(command);
    drop(kept);
    drop(taken);

    let mut child = Running::new(child);
    let mut pipes = [Capture::new(out, lines), Capture::new(err, None)];
    let end = watch(&mut child, &mut pipes, deadline).unwrap_or_else(|end| kill(&mut child, end));
    let [stdout, stderr] = pipes.map(|pipe| pipe.text);
    Ok(Output { end, stdout, stderr })
}

/// Runs a program, on a file if one is given. `None` if there is no such program; else its output or its errors.
pub(crate) fn output_of(
    program: &Path, arguments: &[&str], file: Option<&Path>, deadline: Deadline,
) -> Result<Option<std::result::Result<String, String>>> {
    let failed = |error: io::Error| Error::io(format_args!("run {}", program.display()), &error);
    // it runs in another directory
    let file = file.map(std::path::absolute).transpose().map_err(failed)?;
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).chain(file.as_deref().map(Path::as_os_str)).collect();
    let program = std::path::absolute(program).map_err(failed)?;
    let output = match run(&program, &arguments, b"", None, None, deadline) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output.map_err(failed)?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().take(3).collect();
    match output.end {
        End::Exit(0) => Ok(Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))),
        End::Exit(_) => Ok(Some(Err(lines.join("; ")))),
        End::TimedOut => {
            let error = error!(Busy, "{} was not done in time, and was killed", program.display());
            Err(error.remedy("give more time with", Setting::Timeout))
        }
        end @ (End::Signal(_) | End::Unknown | End::TooMuch) => {
            Err(error!(System, "{} ended with {end:?}: {}", program.display(), lines.join("; ")))
        }
    }
}

/// Reads both pipes until the child has ended. `Err` is the reason why it must be killed.
fn watch(child: &mut Running, pipes: &mut [Capture<'_, '_>; 2], deadline: Deadline) -> std::result::Result<End, End> {
    let mut nap = FIRST_NAP;
    loop {
        let left = deadline.remaining();
        if left.is_zero() {
            return Err(End::TimedOut);
        }
        if pipes.iter().any(|pipe| pipe.open.is_some()) {
            if Capture::read(pipes, left.min(POLL_INTERVAL))? {
                continue;
            }
        } else {
            // both outputs are closed: it is about to exit
            sleep(nap.min(left));
            nap = (nap * 2).min(POLL_INTERVAL / 10);
        }
        if let Some(end) = child.ended() {
            // what it wrote before it ended; another process that holds the pipe open is not waited for
            while Capture::read(pipes, Duration::ZERO)? {}
            return Ok(end);
        }
    }
}

/// A child, and what reports how it ended if wait(2) does not.
struct Running {
    child: Child,
    #[cfg(target_os = "freebsd")]
    exit: Option<exit::Queue>,
}

impl Running {
    fn new(child: Child) -> Running {
        Running {
            #[cfg(target_os = "freebsd")]
            exit: exit::Queue::new(child.id()),
            child,
        }
    }

    /// The end of the child, if it has ended.
    fn ended(&mut self) -> Option<End> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(End::of(status)),
            // ECHILD: it has ended, and wait(2) does not return how. A pidfd of Linux loses the status as well, except in kernels
            // that are too new to require
            #[cfg(target_os = "freebsd")]
            Err(_) => Some(self.exit.as_ref().and_then(exit::Queue::status).map_or(End::Unknown, End::of)),
            #[cfg(not(target_os = "freebsd"))]
            Err(_) => Some(End::Unknown),
        }
    }
}

impl End {
    fn of(status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Exit(code),
            (None, Some(signal)) => End::Signal(signal),
            (None, None) => End::Unknown,
        }
    }
}

/// A copy of a descriptor that the next program inherits. Another program that a thread of the host starts at the same
/// moment inherits it, too: if that matters, release what it holds by other means than a close.
fn inheritable(descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let copy = rustix::io::fcntl_dupfd_cloexec(descriptor, 3)?;
    rustix::io::fcntl_setfd(&copy, FdFlags::empty())?;
    Ok(copy)
}

/// Kills the child, unless it has just gone by itself, and waits for it.
fn kill(child: &mut Running, why: End) -> End {
    // after wait(2) the pid may have been reused
    if child.ended().is_some() {
        return why;
    }
    // an error means that it has ended
    _ = child.child.kill();
    let last = Deadline::after(KILL_TIME);
    let mut nap = FIRST_NAP;
    while child.ended().is_none() && !last.passed() {
        sleep(nap);
        nap = (nap * 2).min(POLL_INTERVAL / 10);
    }
    why
}

/// Reads the lines of an output, each with its newline.
pub(crate) type Lines<'a> = dyn FnMut(&[u8]) + 'a;

struct Capture<'c, 'l> {
    open: Option<File>,
    /// All of it, or what is not passed on yet.
    text: Vec<u8>,
    lines: Option<&'c mut Lines<'l>>,
}

impl<'c, 'l> Capture<'c, 'l> {
    fn new(end: OwnedFd, lines: Option<&'c mut Lines<'l>>) -> Self {
        Capture { open: Some(File::from(end)), text: Vec::new(), lines }
    }

    /// Passes on each line that another one follows.
    fn pass_on(&mut self) {
        let Some(lines) = &mut self.lines else { return };
        let all = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        let Some(last) = all.iter().rposition(|byte| *byte == b'\n') else { return };
        self.text[..=last].split_inclusive(|byte| *byte == b'\n').for_each(lines);
        self.text.drain(..=last);
    }

    /// Waits up to `timeout` for output, and reads what is there. `Ok(false)` if there was none.
    fn read(pipes: &mut [Self; 2], timeout: Duration) -> std::result::Result<bool, End> {
        let open = pipes.iter().filter_map(|pipe| pipe.open.as_ref());
        let mut fds: Vec<PollFd<'_>> = open.map(|file| PollFd::new(file, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(timeout).ok();
        // EINTR and ENOMEM are the same as no output; the caller's deadline still applies
        if poll(&mut fds, timeout.as_ref()).unwrap_or(0) == 0 {
            return Ok(false);
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let open = pipes.iter_mut().filter(|pipe| pipe.open.is_some());
        for (pipe, _) in open.zip(ready).filter(|(_, ready)| *ready) {
            let mut buffer = [0; 16 << 10];
            match pipe.open.as_mut().map(|file| file.read(&mut buffer)) {
                Some(Ok(count)) if count > 0 => pipe.text.extend_from_slice(&buffer[..count]),
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => pipe.open = None,
            }
            pipe.pass_on();
            if pipe.text.len() > MAX_OUTPUT {
                pipe.text.truncate(MAX_OUTPUT);
                return Err(End::TooMuch);
            }
        }
        Ok(true)
    }
}

/// A file without a name that contains `input`, at its start.
fn input_file(input: &[u8]) -> io::Result<File> {
    if input.is_empty() {
        return files::open(Path::new("/dev/null"), OFlags::RDONLY, Mode::empty());
    }
    let mut file = unnamed_file()?;
    files::write_new(&file, input)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn unnamed_file() -> io::Result<File> {
    // not rustix's, which looks the function up by dlsym(3): a static program has none
    use nix::sys::memfd::{MFdFlags, memfd_create};
    Ok(files::above_stdio(|| Ok(memfd_create("kport", MFdFlags::MFD_CLOEXEC)?))?.into())
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn unnamed_file() -> io::Result<File> {
    let name = format!("/tmp/kport.{}.{:016x}", std::process::id(), fastrand::u64(..));
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let file = files::open(Path::new(&name), flags, Mode::RUSR | Mode::WUSR)?;
    std::fs::remove_file(&name)?;
    Ok(file)
}
