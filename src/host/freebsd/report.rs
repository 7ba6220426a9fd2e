//! What a child process reports over a pipe: three words, and bytes.
//!
//! The head says how long the report is, so the reader does not depend on the end of the file: another thread of the
//! caller may have forked meanwhile and hold the pipe open.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, Kind, Result};

/// The bytes before the report: `step` and `errno`, 32 bits each, and the 64-bit length of what follows.
pub const HEAD: usize = 16;

/// What a child did.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It came to its end, and sent this.
    Done(Vec<u8>),
    /// Its step of this number failed with this errno.
    Failed(u32, i32),
}

/// The head of a report. Called in a child after a fork: it only moves bytes.
pub fn head(step: u32, errno: i32, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&step.to_ne_bytes());
    head[4..8].copy_from_slice(&errno.to_ne_bytes());
    head[8..].copy_from_slice(&(length as u64).to_ne_bytes());
    head
}

/// How long a child may be stopped. What asks a jail can be stopped by the jail's root, and no continued one takes so long.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Reads a report of at most `most` bytes until `deadline`: [`Kind::Busy`] after it. A child that was killed, or that
/// `is_stopped`, is [`Kind::Unavailable`].
pub fn read(pipe: BorrowedFd<'_>, most: usize, deadline: Instant, is_stopped: &dyn Fn() -> bool) -> Result<Answer> {
    let mut received = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some((head, body)) = received.split_first_chunk::<HEAD>() {
            let word = |at: usize| head[at..at + 4].try_into().unwrap_or_default();
            let (step, errno) = (u32::from_ne_bytes(word(0)), i32::from_ne_bytes(word(4)));
            if errno != 0 {
                return Ok(Answer::Failed(step, errno));
            }
            let length = u64::from_ne_bytes(head[8..].try_into().unwrap_or_default());
            match usize::try_from(length) {
                Ok(length) if body.len() == length => return Ok(Answer::Done(body.to_vec())),
                Ok(length) if length <= most && body.len() < length => (),
                _ => return Err(Error::new(Kind::Internal, "a report of the wrong length from a child process")),
            }
        }
        wait(pipe, deadline, is_stopped)?;
        match rustix::io::read(pipe, &mut chunk) {
            Ok(0) => return Err(Error::new(Kind::Unavailable, "the process that asks was killed; what kills it?")),
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(Error::io("read a child's report", &errno.into())),
        }
    }
}

/// Until there is something to read.
fn wait(pipe: BorrowedFd<'_>, deadline: Instant, is_stopped: &dyn Fn() -> bool) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Err(Error::new(Kind::Busy, "the process that asks did not report in time"));
        }
        let timeout = Timespec::try_from(left.min(STOP_CHECK)).ok();
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) if is_stopped() => {
                return Err(Error::new(Kind::Unavailable, "the process that asks was stopped; what stops it?"));
            }
            Ok(0) | Err(rustix::io::Errno::INTR) => (),
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Error::io("poll", &io::Error::from(errno))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).unwrap()
    }

    /// Reads what `parts` send, a pause between them; the other end stays open.
    fn read_parts(parts: &[&[u8]], most: usize, time: Duration) -> Result<Answer> {
        let (reader, writer) = pipe();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for part in parts {
                    assert_eq!(rustix::io::write(&writer, part), Ok(part.len()));
                    std::thread::yield_now();
                }
            });
            read(reader.as_fd(), most, Instant::now() + time, &|| false)
        })
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_report_comes_in_pieces_and_needs_no_end_of_file() {
        let whole = [head(3, 0, 5).as_slice(), b"abcde"].concat();
        for cut in 0..whole.len() {
            let (a, b) = whole.split_at(cut);
            assert_eq!(read_parts(&[a, b], 5, LONG), Ok(Answer::Done(b"abcde".to_vec())));
        }
        assert_eq!(read_parts(&[&head(0, 0, 0)], 0, LONG), Ok(Answer::Done(Vec::new())));
    }

    #[test]
    fn a_failure_names_its_step() {
        assert_eq!(read_parts(&[&head(2, libc::EPERM, 0)], 0, LONG), Ok(Answer::Failed(2, libc::EPERM)));
    }

    #[test]
    fn a_length_is_not_believed() {
        for (length, most) in [(6, 5), (usize::MAX, 5)] {
            let error = read_parts(&[&head(0, 0, length)], most, LONG).unwrap_err();
            assert_eq!(error.kind(), Kind::Internal);
        }
        let more = [head(0, 0, 1).as_slice(), b"ab"].concat();
        assert_eq!(read_parts(&[&more], 5, LONG).unwrap_err().kind(), Kind::Internal);
    }

    #[test]
    fn a_child_that_dies_or_hangs() {
        let (reader, writer) = pipe();
        rustix::io::write(&writer, &head(0, 0, 5)).unwrap();
        let until = |time, is_stopped: &dyn Fn() -> bool| {
            read(reader.as_fd(), 5, Instant::now() + time, is_stopped).unwrap_err().kind()
        };
        assert_eq!(until(Duration::ZERO, &|| false), Kind::Busy);
        // root of the jail has stopped it
        assert_eq!(until(LONG, &|| true), Kind::Unavailable);
        // or it was only slow
        let asked = std::cell::Cell::new(0);
        assert_eq!(until(2 * STOP_CHECK, &|| asked.replace(asked.get() + 1) > 5), Kind::Busy);
        drop(writer);
        assert_eq!(until(LONG, &|| false), Kind::Unavailable);
    }
}
