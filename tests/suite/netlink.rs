//! The netlink(4) family of pf: its attributes, and a socket to it.

use std::os::fd::OwnedFd;
use std::thread;

use kport::pf::native::netlink::{Attributes, Command, attributes, count, pool_address, rule};
use kport::pf::native::session::Session;
use proptest::prelude::*;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

#[test]
fn attributes_are_padded() {
    let some = Attributes::default().text(1, "").text(2, "em0").with(3, &[1]).number(4, 0x0102_0304);
    let bytes = some.as_bytes();
    let expected: [(u16, &[u8]); 4] = [(1, &[0]), (2, b"em0\0"), (3, &[1]), (4, &[4, 3, 2, 1])];
    assert_eq!(attributes(bytes).unwrap(), expected);
    assert_eq!(bytes[..8], [5, 0, 1, 0, 0, 0, 0, 0]);
    for length in [0, 3, 200] {
        let mut bytes = bytes.to_vec();
        bytes[0] = length;
        assert!(attributes(&bytes).is_err(), "{length}");
    }
    assert!(attributes(&bytes[..bytes.len() - 1]).is_err());
}

#[test]
fn what_a_later_release_says_is_not_passed_over() {
    let known = Attributes::default().with(34, &[1]).text(72, "a/*");
    let list = rule(known.as_bytes()).unwrap();
    assert_eq!((list.number("action"), list.string("anchor_call")), (Ok(1), Ok("a/*")));
    assert!(list.get("unknown").is_none());
    let later = known.number(90, 0).number(91, 5).text(92, "x");
    let list = rule(later.as_bytes()).unwrap();
    assert_eq!(list.string("unknown"), Ok("netlink attribute 91, netlink attribute 92"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        _ = rule(&bytes);
        _ = count(&bytes);
        _ = pool_address(&bytes);
    }
}

/// A session, and a thread that stands in for the kernel: it answers each request with `answer`, which is given the type
/// and the command.
fn with_kernel<T>(answer: impl Fn(u16, u8, u32) -> Vec<Vec<u8>> + Send + 'static, act: impl FnOnce(OwnedFd) -> T) -> T {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
    let kernel = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, _)) = recv(&theirs, &mut buffer[..], RecvFlags::empty()) {
            let [l0, l1, l2, l3, k0, k1, _, _, s0, s1, s2, s3, _, _, _, _, command, ..] = buffer[..length] else {
                break;
            };
            assert_eq!(u32::from_le_bytes([l0, l1, l2, l3]) as usize, length);
            let (kind, sequence) = (u16::from_le_bytes([k0, k1]), u32::from_le_bytes([s0, s1, s2, s3]));
            for message in answer(kind, command, sequence) {
                send(&theirs, &message, SendFlags::empty()).unwrap();
            }
        }
    });
    let done = act(ours.try_clone().unwrap());
    send(&ours, &[0], SendFlags::empty()).unwrap();
    kernel.join().unwrap();
    done
}

/// struct nlmsghdr and struct genlmsghdr, with a body after the first or the attributes after both.
fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = (16 + body.len() as u32).to_le_bytes();
    [&length[..], &kind.to_le_bytes(), &[5, 0], &sequence.to_le_bytes(), &[0; 4], body].concat()
}

fn reply(family: u16, sequence: u32, attributes: &Attributes) -> Vec<u8> {
    message(family, sequence, &[&[0; 4], attributes.as_bytes()].concat())
}

/// NLMSG_ERROR
fn error(sequence: u32, errno: i32) -> Vec<u8> {
    message(2, sequence, &errno.to_le_bytes())
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
        assert_eq!(count(&session.ask(Command::Addrs, &none).unwrap()), Ok(7));
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
    /// Whatever comes, the answer is one or an error: the session is not waited for.
    #[test]
    fn any_message_is_an_answer_or_refused(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        let answer = move |kind, _, sequence| match kind {
            16 => vec![reply(16, sequence, &Attributes::default().with(1, &25u16.to_le_bytes())), error(sequence, 0)],
            _ => vec![bytes.clone(), error(sequence, libc::EBUSY)],
        };
        let failure = with_kernel(answer, |socket| Session::over(socket)?.ask(Command::Rule, &Attributes::default()));
        prop_assert!([libc::EBUSY, libc::EBADMSG].contains(&failure.unwrap_err().errno));
    }
}
