//! The report of a child process over a stream of AF_UNIX: three words, and bytes or a descriptor.
//!
//! The head contains the length of the report, so the reader does not depend on the end of the file: another thread of
//! the caller may have forked meanwhile, and that process would hold the child's end open.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use zerocopy::FromBytes;

use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};

/// The size of the head: `step`, `errno` and the length of what follows, 32 bits each.
pub const HEAD: usize = 12;

/// The result of a child.
#[derive(Debug)]
pub enum Answer {
    /// It finished: the bytes that it sent, and the last descriptor that it passed.
    Done(Vec<u8>, Option<OwnedFd>),
    /// The step with this number failed with this errno.
    Failed(u32, i32),
}

/// The head of a report. Called in a child after a fork: it only copies bytes.
pub fn head(step: u32, errno: i32, length: usize) -> [u8; HEAD] {
    // lossless: no report has 4 GiB
    zerocopy::transmute!([step, errno.cast_unsigned(), length as u32])
}

/// Sends the head of a report of `length` bytes, and a descriptor. Called in a child after a fork: it only makes a system
/// call.
pub fn pass(stream: BorrowedFd<'_>, step: u32, length: usize, descriptor: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    // there is space for one
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(stream, &[IoSlice::new(&head(step, 0, length))], &mut control, SendFlags::empty()).map(|_| ())
}

/// How long a child may be stopped. The jail's root can stop a child in the jail; one that is continued does not take
/// this long.
pub const STOP_CHECK: Duration = Duration::from_millis(100);

/// Reads a report of at most `most` bytes until `deadline`: [`Kind::Busy`] after it. [`Kind::Unavailable`] means that
/// the child was killed, or that it `is_stopped`.
pub fn read(stream: BorrowedFd<'_>, most: usize, deadline: Deadline, is_stopped: &dyn Fn() -> bool) -> Result<Answer> {
    let mut received = Vec::new();
    let mut passed = None;
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Ok(([step, errno, length], body)) = <[u32; 3]>::read_from_prefix(&received) {
            if errno != 0 {
                return Ok(Answer::Failed(step, errno.cast_signed()));
            }
            match length as usize {
                length if body.len() == length => return Ok(Answer::Done(body.to_vec(), passed)),
                length if length <= most && body.len() < length => (),
                _ => return Err(Error::new(Kind::Internal, "a report of the wrong length from a child process")),
            }
        }
        wait(stream, deadline, is_stopped)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let message = recvmsg(stream, &mut [IoSliceMut::new(&mut chunk)], &mut control, RecvFlags::CMSG_CLOEXEC);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                passed = descriptors.last().or(passed);
            }
        }
        match message.map(|message| message.bytes) {
            Ok(0) => {
                return Err(Error::new(Kind::Unavailable, "the helper process was killed; find out what kills it"));
            }
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(rustix::io::Errno::INTR) => (),
            Err(errno) => return Err(Error::io("read a child's report", &errno.into())),
        }
    }
}

fn wait(stream: BorrowedFd<'_>, deadline: Deadline, is_stopped: &dyn Fn() -> bool) -> Result<()> {
    loop {
        let left = deadline.remaining();
        if left == Duration::ZERO {
            return Err(Error::new(Kind::Busy, "the helper process did not report in time"));
        }
        let timeout = Timespec::try_from(left.min(STOP_CHECK)).ok();
        match poll(&mut [PollFd::new(&stream, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) if is_stopped() => {
                let why = "the helper process was stopped; find out what stops it (truss -f?)";
                return Err(Error::new(Kind::Unavailable, why));
            }
            Ok(0) | Err(rustix::io::Errno::INTR) => (),
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Error::io("poll", &io::Error::from(errno))),
        }
    }
}
