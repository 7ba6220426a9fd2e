//! A netlink(4) socket to pf.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::kernel::Failure;
use super::netlink::{self, Attributes, Command};

pub const AF_NETLINK: u16 = 38;
pub const NETLINK_GENERIC: u32 = 16;

/// GENL_ID_CTRL, the family that has the numbers of the others, and its CTRL_CMD_GETFAMILY
const CONTROL: (u16, u8) = (16, 3);
const GETFAMILY: &str = "CTRL_CMD_GETFAMILY";
/// NLMSG_ERROR
const ERROR: u16 = 2;
/// NLM_F_REQUEST, NLM_F_ACK
const REQUEST_AND_ACK: u16 = 0x5;
/// struct nlmsghdr
const HEADER: usize = 16;
/// struct nlmsghdr and struct genlmsghdr
const HEADERS: usize = 20;
/// A rule needs about 1,500 bytes.
const REPLY: usize = 32 * 1024;

/// A socket to the family. Each request is answered before the next one is sent.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
    family: u16,
    sequence: Cell<u32>,
}

impl Session {
    /// A session over a netlink socket. ENOENT if the kernel does not have the family.
    pub fn over(socket: OwnedFd) -> Result<Session, Failure> {
        let mut session = Session { socket, family: 0, sequence: Cell::new(0) };
        // CTRL_ATTR_FAMILY_NAME
        let request = Attributes::default().text(2, "pfctl");
        let reply = session.exchange(GETFAMILY, CONTROL.0, CONTROL.1, &request)?;
        session.family =
            netlink::family(&reply).map_err(|malformed| Failure::new(GETFAMILY, libc::EBADMSG).about(malformed))?;
        Ok(session)
    }

    /// Sends a request; returns the attributes of the reply.
    pub fn ask(&self, command: Command, request: &Attributes) -> Result<Vec<u8>, Failure> {
        self.exchange(command.name(), self.family, command as u8, request)
    }

    fn exchange(&self, name: &'static str, family: u16, command: u8, request: &Attributes) -> Result<Vec<u8>, Failure> {
        let failed = |error: io::Error| Failure::new(name, error.raw_os_error().unwrap_or(libc::EIO));
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let message = message(family, sequence, command, request);
        send(&self.socket, &message, SendFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let mut answer = vec![];
        let mut buffer = vec![0; REPLY];
        loop {
            let length = loop {
                match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                    Err(rustix::io::Errno::INTR) => {}
                    Ok((0, _)) => return Err(Failure::new(name, libc::ECONNRESET)),
                    other => break other.map_err(|errno| failed(errno.into()))?.0,
                }
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let Some((kind, seq, body, after)) = split(rest) else { return Err(Failure::new(name, libc::EBADMSG)) };
                rest = after;
                match kind {
                    // left over from a request that was abandoned
                    _ if seq != sequence => {}
                    ERROR => {
                        let errno = body.first_chunk().map_or(libc::EBADMSG, |errno| i32::from_le_bytes(*errno));
                        // positive here, negative on other systems
                        return if errno == 0 { Ok(answer) } else { Err(Failure::new(name, errno.saturating_abs())) };
                    }
                    _ => answer = body.get(HEADERS - HEADER..).unwrap_or_default().to_vec(),
                }
            }
        }
    }
}

/// struct nlmsghdr, struct genlmsghdr, attributes.
fn message(family: u16, sequence: u32, command: u8, request: &Attributes) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADERS + request.as_bytes().len());
    message.extend_from_slice(&((HEADERS + request.as_bytes().len()) as u32).to_le_bytes());
    message.extend_from_slice(&family.to_le_bytes());
    message.extend_from_slice(&REQUEST_AND_ACK.to_le_bytes());
    message.extend_from_slice(&sequence.to_le_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&[command, 0, 0, 0]);
    message.extend_from_slice(request.as_bytes());
    message
}

/// The first message: its type, sequence and body; and the bytes after it.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let body = bytes.get(HEADER..length)?;
    let kind = u16::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    let sequence = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    Some((kind, sequence, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::thread;

    /// A session, and a thread that stands in for the kernel: it answers each request with `answer`, which is given the type
    /// and the command.
    fn with_kernel<T>(
        answer: impl Fn(u16, u8, u32) -> Vec<Vec<u8>> + Send + 'static,
        act: impl FnOnce(OwnedFd) -> T,
    ) -> T {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        let kernel = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, _)) = recv(&theirs, &mut buffer[..], RecvFlags::empty()) {
                let Some((kind, sequence, body, rest)) = split(&buffer[..length]) else { break };
                assert!(rest.is_empty());
                for message in answer(kind, body[0], sequence) {
                    send(&theirs, &message, SendFlags::empty()).unwrap();
                }
            }
        });
        let done = act(ours.try_clone().unwrap());
        send(&ours, &[0], SendFlags::empty()).unwrap();
        kernel.join().unwrap();
        done
    }

    fn reply(family: u16, sequence: u32, attributes: &Attributes) -> Vec<u8> {
        message(family, sequence, 0, attributes)
    }

    fn error(sequence: u32, errno: i32) -> Vec<u8> {
        let mut message = reply(ERROR, sequence, &Attributes::default());
        message[HEADER..HEADERS].copy_from_slice(&errno.to_le_bytes());
        message
    }

    #[test]
    fn a_request_is_answered() {
        let answer = |kind, command, sequence| match (kind, command) {
            (16, 3) => vec![
                reply(16, sequence, &Attributes::default().text(2, "pfctl").with(1, &25u16.to_le_bytes())),
                error(sequence, 0),
            ],
            // an old answer, then both parts in one
            (25, 21) => vec![
                error(sequence - 1, libc::EBUSY),
                [reply(25, sequence, &Attributes::default().number(3, 7)), error(sequence, 0)].concat(),
            ],
            (25, 22) => vec![error(sequence, libc::EBUSY)],
            (25, 7) => vec![vec![200, 0, 0, 0, 0]],
            other => panic!("{other:?}"),
        };
        with_kernel(answer, |socket| {
            let session = Session::over(socket).unwrap();
            let none = Attributes::default();
            assert_eq!(netlink::count(&session.ask(Command::Addrs, &none).unwrap()), Ok(7));
            let failure = session.ask(Command::Addr, &none).unwrap_err();
            assert_eq!((failure.call, failure.errno), ("PFNL_CMD_GET_ADDR", libc::EBUSY));
            assert_eq!(session.ask(Command::Rule, &none).unwrap_err().errno, libc::EBADMSG);
        });
        for (errno, expected) in [(libc::ENOENT, libc::ENOENT), (-libc::ENOENT, libc::ENOENT)] {
            let failure = with_kernel(move |_, _, sequence| vec![error(sequence, errno)], Session::over).unwrap_err();
            assert_eq!((failure.call, failure.errno), ("CTRL_CMD_GETFAMILY", expected));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some((_, _, body, rest)) = split(&bytes) {
                prop_assert!(HEADER + body.len() + rest.len() <= bytes.len());
            }
        }
    }
}
