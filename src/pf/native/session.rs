//! A netlink(4) socket to pf.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::kernel::{Answer, Failure};
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
    pub fn over(socket: OwnedFd) -> Answer<Session> {
        let mut session = Session { socket, family: 0, sequence: Cell::new(0) };
        // CTRL_ATTR_FAMILY_NAME
        let request = Attributes::default().text(2, "pfctl");
        let reply = session.exchange(GETFAMILY, CONTROL.0, CONTROL.1, &request)?;
        session.family =
            netlink::family(&reply).map_err(|malformed| Failure::new(GETFAMILY, libc::EBADMSG).about(malformed))?;
        Ok(session)
    }

    /// The attributes of the reply.
    pub fn ask(&self, command: Command, request: &Attributes) -> Answer<Vec<u8>> {
        self.exchange(command.name(), self.family, command as u8, request)
    }

    fn exchange(&self, name: &'static str, family: u16, command: u8, request: &Attributes) -> Answer<Vec<u8>> {
        let failed = |errno: Errno| Failure::new(name, errno.raw_os_error());
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let message = message(family, sequence, command, request);
        send(&self.socket, &message, SendFlags::empty()).map_err(failed)?;
        let mut answer = vec![];
        let mut buffer = vec![0; REPLY];
        loop {
            let received = retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::empty()));
            let (length, _) = received.map_err(failed)?;
            if length == 0 {
                return Err(failed(Errno::CONNRESET));
            }
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let Some((kind, seq, body, after)) = split(rest) else { return Err(failed(Errno::BADMSG)) };
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
