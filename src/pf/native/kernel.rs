//! The calls of pf(4), each with its struct, and their errors.

use std::{fmt, io};

use super::layout::*;
use super::netlink::{Attributes, Command};
use super::nv::Malformed;
use crate::error::{Error, Kind, Setting};

/// One ioctl on /dev/pf, with the struct that the kernel expects for it; the names are in `definition`.
#[derive(Debug)]
pub enum Call<'a> {
    /// Opens the inactive copy of each ruleset; fills in the tickets.
    XBegin(&'a mut [PfiocTransE]),
    /// Makes the inactive copies the active ones, all at once.
    XCommit(&'a mut [PfiocTransE]),
    /// Discards the inactive copies.
    XRollback(&'a mut [PfiocTransE]),
    /// Empties the host's one buffer for redirect addresses; fills in its ticket.
    BeginAddrs(&'a mut PfiocPooladdr),
    AddAddr(&'a mut PfiocPooladdr),
    /// Adds a rule, with the contents of the buffer.
    AddRule(&'a mut PfiocRule),
    /// Adds one rule to an active ruleset, or removes one, if the ruleset has the given ticket; then that is one higher.
    ChangeRule(&'a mut PfiocRule),
    /// The number of rules and the ticket of an active ruleset.
    GetRules(&'a mut PfiocRule),
    GetRule(&'a mut Nv),
    /// The number of a rule's redirect addresses.
    GetAddrs(&'a mut PfiocPooladdr),
    GetAddr(&'a mut PfiocPooladdr),
    /// The number of an anchor's children.
    GetRulesets(&'a mut PfiocRuleset),
    GetRuleset(&'a mut PfiocRuleset),
    GetStatus(&'a mut Nv),
    KillStates(&'a mut Nv),
    /// The states, as many as fit; fills in how many there are now if there is no room, else how many it wrote.
    GetStates(&'a mut [PfStateExport], &'a mut usize),
    GetLimit(&'a mut PfiocLimit),
    /// The addresses of a table; only their number if there is not enough room.
    GetTable(&'a mut PfiocTable, &'a mut [PfrAddr]),
    /// The interfaces and groups that pf knows, as many as fit; fills in how many there are, at most one more than fit.
    GetInterfaces(&'a mut [PfiKif], &'a mut usize),
    GetSyncookies(&'a mut Nv),
    /// The number of rules about Ethernet frames.
    GetEtherRules(&'a mut Nv),
}

impl Call<'_> {
    /// Its name and number in sys/net/pfvar.h, and the size of its struct.
    fn definition(&self) -> (&'static str, u8, usize) {
        const NV: usize = size_of::<PfiocNv>();
        match self {
            Call::XBegin(_) => ("DIOCXBEGIN", 81, size_of::<PfiocTrans>()),
            Call::XCommit(_) => ("DIOCXCOMMIT", 82, size_of::<PfiocTrans>()),
            Call::XRollback(_) => ("DIOCXROLLBACK", 83, size_of::<PfiocTrans>()),
            Call::BeginAddrs(_) => ("DIOCBEGINADDRS", 51, size_of::<PfiocPooladdr>()),
            Call::AddAddr(_) => ("DIOCADDADDR", 52, size_of::<PfiocPooladdr>()),
            Call::AddRule(_) => ("DIOCADDRULE", 4, size_of::<PfiocRule>()),
            Call::ChangeRule(_) => ("DIOCCHANGERULE", 26, size_of::<PfiocRule>()),
            Call::GetRules(_) => ("DIOCGETRULES", 6, size_of::<PfiocRule>()),
            Call::GetRule(_) => ("DIOCGETRULENV", 7, NV),
            Call::GetAddrs(_) => ("DIOCGETADDRS", 53, size_of::<PfiocPooladdr>()),
            Call::GetAddr(_) => ("DIOCGETADDR", 54, size_of::<PfiocPooladdr>()),
            Call::GetRulesets(_) => ("DIOCGETRULESETS", 58, size_of::<PfiocRuleset>()),
            Call::GetRuleset(_) => ("DIOCGETRULESET", 59, size_of::<PfiocRuleset>()),
            Call::GetStatus(_) => ("DIOCGETSTATUSNV", 21, NV),
            Call::KillStates(_) => ("DIOCKILLSTATESNV", 41, NV),
            Call::GetStates(..) => ("DIOCGETSTATESV2", 93, size_of::<PfiocStates>()),
            Call::GetLimit(_) => ("DIOCGETLIMIT", 39, size_of::<PfiocLimit>()),
            Call::GetTable(..) => ("DIOCRGETADDRS", 70, size_of::<PfiocTable>()),
            Call::GetInterfaces(..) => ("DIOCIGETIFACES", 87, size_of::<PfiocIface>()),
            Call::GetSyncookies(_) => ("DIOCGETSYNCOOKIES", 94, NV),
            Call::GetEtherRules(_) => ("DIOCGETETHRULES", 99, NV),
        }
    }

    pub fn name(&self) -> &'static str {
        self.definition().0
    }

    /// `_IOWR('D', n, struct)` of sys/net/pfvar.h and sys/sys/ioccom.h
    pub fn number(&self) -> u64 {
        let (_, n, size) = self.definition();
        0xc000_0000 | (size as u64 & 0x1fff) << 16 | u64::from(b'D') << 8 | u64::from(n)
    }
}

/// The buffer of a call with a packed nvlist in both directions: what struct pfioc_nv points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nv {
    /// Room for the reply; the request is at its start.
    pub buffer: Vec<u8>,
    /// The length of the request, then of the reply.
    pub length: usize,
}

pub type Answer<T> = Result<T, Failure>;

/// A way to make these calls: /dev/pf, or a stand-in in a test.
pub trait Kernel {
    fn call(&self, call: Call<'_>) -> Answer<()>;

    /// Makes sure, before the calls of an operation, that the descriptor of the device is still this process's own: the host may
    /// have closed it, or forked. Not before each call, since that is two more system calls: in a descriptor that is closed
    /// meanwhile, another file refuses the call. The numbers of pf have the size of a struct of pf in them, and no other driver has
    /// one of them (group `D` in sys of the source tree: bus.h, sndstat.h, tdfx_io.h).
    fn renew(&self) -> Answer<()> {
        Ok(())
    }

    /// Sends a request to the netlink family `pfctl`, and returns the attributes of the reply. EOPNOTSUPP if the kernel does
    /// not have the family or command (before 15).
    fn ask(&self, command: Command, _request: &Attributes) -> Answer<Vec<u8>> {
        Err(Failure::new(command.name(), libc::EOPNOTSUPP))
    }
}

impl<K: Kernel + ?Sized> Kernel for &K {
    fn renew(&self) -> Answer<()> {
        (**self).renew()
    }

    fn call(&self, call: Call<'_>) -> Answer<()> {
        (**self).call(call)
    }

    fn ask(&self, command: Command, request: &Attributes) -> Answer<Vec<u8>> {
        (**self).ask(command, request)
    }
}

/// The name in [`Failure::call`] for opening the device.
pub const OPEN: &str = "open /dev/pf";

/// The name in [`Failure::call`] for a rule with a tag that pf has no number for.
pub const NEW_TAG: &str = "DIOCADDRULE with a new tag";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub call: &'static str,
    pub errno: i32,
    /// What it was about: a rule, an anchor; empty if nothing in particular.
    pub about: String,
}

impl Failure {
    pub fn new(call: &'static str, errno: i32) -> Failure {
        Failure { call, errno, about: String::new() }
    }

    /// As busy, if an anchor that was there was removed between the calls.
    #[must_use]
    pub fn of_what_is_gone(self) -> Failure {
        let errno = if self.errno == libc::ENOENT { libc::EBUSY } else { self.errno };
        Failure { errno, ..self }
    }

    /// Whether it may be over in a moment.
    pub fn is_busy(&self) -> bool {
        self.errno == libc::EBUSY && self.call != NEW_TAG
    }

    #[must_use]
    pub fn about(self, what: impl fmt::Display) -> Failure {
        let about = if self.about.is_empty() { what.to_string() } else { format!("{what}: {}", self.about) };
        Failure { about, ..self }
    }

    fn remedy(&self) -> (Kind, &'static str) {
        match (self.errno, self.call) {
            (libc::ENOENT | libc::ENXIO, OPEN) => (
                Kind::Unavailable,
                "pf is not loaded, or this jail's devfs ruleset hides it: kldload pf, then service pf onestart",
            ),
            (libc::EACCES, _) => (Kind::Permission, "only root may change pf: run as root"),
            (libc::EPERM, _) => (
                Kind::Permission,
                "sysctl kern.securelevel is above 2, which only a reboot lowers, or this jail has no pf of its own",
            ),
            (libc::EBUSY, NEW_TAG) => (
                Kind::System,
                "pf has a number for 50000 tags (TAGID_MAX), and each is in use: run kport apply, or publish ranges of ports instead of single ones",
            ),
            (libc::EBUSY, _) => (
                Kind::Busy,
                "another program loads rules all the time: try again, or look for pfctl(8) or ftp-proxy(8)",
            ),
            (libc::ETIMEDOUT, _) => (Kind::Busy, "the time is up"),
            (libc::ENODEV | libc::ENOTTY | libc::EOPNOTSUPP, _) => {
                (Kind::Unsupported, "this kernel's pf does not have the call")
            }
            (libc::EINVAL, "DIOCXBEGIN") => {
                (Kind::System, "the limit of anchors may be reached: see pfctl -sm, and set limit anchors in pf.conf")
            }
            (libc::ENOMEM, _) => (Kind::System, "pf is out of memory: see pfctl -sm and vmstat -z"),
            _ => (Kind::System, "an unexpected answer of pf"),
        }
    }
}

/// A reply about a rule with an invalid form: EBADMSG, which the kernel also returns for such a request.
impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Failure {
        Failure::new("DIOCGETRULENV", libc::EBADMSG).about(malformed)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let (kind, remedy) = failure.remedy();
        let errno = io::Error::from_raw_os_error(failure.errno);
        let (call, about) = (failure.call, &failure.about);
        let about = if about.is_empty() { String::new() } else { format!(", for {about}") };
        let error = Error::new(kind, format!("{call}: {errno}{about}; {remedy}")).with_errno(failure.errno);
        match kind {
            Kind::Busy if failure.errno == libc::ETIMEDOUT => error.remedy("give more time with", Setting::Timeout),
            Kind::Unsupported => error.remedy("use", Setting::Backend),
            Kind::System if call != NEW_TAG => error.remedy("for what pfctl(8) says, use", Setting::Backend),
            _ => error,
        }
    }
}
