//! /dev/pf itself. The only place of the backend that is not safe Rust.
//!
//! The structs are those of LP64, and nvlists are read in little-endian form: amd64, arm64, riscv64.

#[cfg(not(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little")))]
pub use elsewhere::Device;
#[cfg(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little"))]
pub use freebsd::Device;

#[cfg(not(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little")))]
mod elsewhere {
    use crate::error::{Result, error};
    use crate::pf::native::kernel::{Answer, Call, Kernel};

    /// A value of this type does not exist without FreeBSD's pf.
    #[derive(Clone, Copy, Debug)]
    pub enum Device {}

    impl Device {
        /// Always [`Kind::Unsupported`].
        pub fn open() -> Result<Device> {
            let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
            Err(error!(
                Unsupported,
                "backend native drives /dev/pf of FreeBSD on 64 bits, little-endian; this is {os} on {arch}"
            ))
        }
    }

    impl Kernel for Device {
        fn call(&self, _: Call<'_>) -> Answer<()> {
            match *self {}
        }
    }
}

#[cfg(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little"))]
mod freebsd {
    use std::cell::RefCell;
    use std::ffi::c_int;
    use std::io;
    use std::num::NonZeroU32;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use once_cell::unsync::OnceCell;
    use rustix::io::Errno;
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, socket_with};
    use zerocopy::FromZeros;

    use crate::error::Result;
    use crate::pf::native::descriptor::Descriptor;
    use crate::pf::native::kernel::{Answer, Call, Failure, Kernel, OPEN};
    use crate::pf::native::layout::*;
    use crate::pf::native::netlink::{Attributes, Command};
    use crate::pf::native::session::{AF_NETLINK, NETLINK_GENERIC, Session};

    /// A handle to this process's one descriptor of /dev/pf, with a netlink socket of its own.
    #[derive(Debug)]
    pub struct Device {
        device: RefCell<Arc<OwnedFd>>,
        /// opened by the first request; `None` if the kernel does not have the family
        session: OnceCell<Option<Session>>,
    }

    impl Device {
        /// Opens the device, or uses the open one.
        pub fn open() -> Result<Device> {
            Ok(Device { device: RefCell::new(descriptor()?), session: OnceCell::new() })
        }

        fn ioctl<T>(&self, name: &'static str, number: u64, argument: &mut T) -> Answer<()> {
            // IOCPARM_LEN of sys/sys/ioccom.h: as many bytes as the kernel copies in and out
            assert_eq!(number as usize >> 16 & 0x1fff, size_of::<T>(), "{name}");
            let device = self.device.borrow();
            // SAFETY: the descriptor is open for the length of the call, or the host has closed it: then its number may be that of
            // another file, which refuses the call, since no other driver has one with this number (see `Kernel::renew`). The
            // kernel reads and writes the number of bytes that is part of the call's number, which is the size of `argument`
            // (asserted above). What `argument` points to, if anything, is a live array that nobody else uses, with its true
            // length beside it: the rulesets of a transaction, the states, the interfaces, the addresses of a table, and the buffer of an
            // nvlist, of which the kernel writes at most `size` elements or bytes. Any bytes are a value of the types it writes to.
            let result =
                unsafe { libc::ioctl(device.as_raw_fd(), number as libc::c_ulong, std::ptr::from_mut(argument)) };
            if result == -1 { Err(failure(name, &io::Error::last_os_error())) } else { Ok(()) }
        }
    }

    /// Longer than the kernel needs for any answer.
    const ANSWER: Duration = Duration::from_secs(10);

    /// `None` if pf has no family in netlink(4) (before 15), or the kernel has no netlink.
    fn session() -> Answer<Option<Session>> {
        let open = || -> rustix::io::Result<OwnedFd> {
            let family = AddressFamily::from_raw(AF_NETLINK);
            let protocol = NonZeroU32::new(NETLINK_GENERIC).map(Protocol::from_raw);
            let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
            set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
            Ok(socket)
        };
        let socket = match open() {
            Ok(socket) => socket,
            Err(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT) => return Ok(None),
            Err(errno) => return Err(Failure::new("netlink socket", errno.raw_os_error())),
        };
        match Session::over(socket) {
            Ok(session) => Ok(Some(session)),
            Err(failure) if failure.errno == libc::ENOENT => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    static DESCRIPTOR: Descriptor = Descriptor::closed();

    fn descriptor() -> Answer<Arc<OwnedFd>> {
        DESCRIPTOR.get(Path::new("/dev/pf")).map_err(|error| failure(OPEN, &error))
    }

    fn failure(call: &'static str, error: &io::Error) -> Failure {
        Failure::new(call, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Where the kernel is to read and write an array.
    fn address<T>(array: &mut [T]) -> u64 {
        array.as_mut_ptr().expose_provenance() as u64
    }

    impl Kernel for Device {
        fn call(&self, call: Call<'_>) -> Answer<()> {
            let (name, number) = (call.name(), call.number());
            let int = |number: usize| c_int::try_from(number).map_err(|_| Failure::new(name, libc::EINVAL));
            match call {
                Call::XBegin(rulesets) | Call::XCommit(rulesets) | Call::XRollback(rulesets) => {
                    let (size, esize) = (int(rulesets.len())?, int(size_of::<PfiocTransE>())?);
                    self.ioctl(name, number, &mut PfiocTrans { size, esize, array: address(rulesets) })
                }
                Call::BeginAddrs(address)
                | Call::AddAddr(address)
                | Call::GetAddrs(address)
                | Call::GetAddr(address) => self.ioctl(name, number, address),
                Call::AddRule(rule) | Call::ChangeRule(rule) | Call::GetRules(rule) => self.ioctl(name, number, rule),
                Call::GetRule(nv)
                | Call::GetStatus(nv)
                | Call::KillStates(nv)
                | Call::GetSyncookies(nv)
                | Call::GetEtherRules(nv) => {
                    let (len, size) = (nv.length as u64, nv.buffer.len() as u64);
                    let mut io = PfiocNv { data: address(&mut nv.buffer), len, size };
                    self.ioctl(name, number, &mut io)?;
                    nv.length = io.len as usize;
                    Ok(())
                }
                Call::GetRulesets(ruleset) | Call::GetRuleset(ruleset) => self.ioctl(name, number, ruleset),
                Call::GetLimit(limit) => self.ioctl(name, number, limit),
                Call::GetTable(table, room) => {
                    // the kernel writes as many addresses as fit
                    (table.esize, table.size) = (int(size_of::<PfrAddr>())?, int(room.len())?);
                    table.buffer = address(room);
                    let done = self.ioctl(name, number, table);
                    table.buffer = 0;
                    done
                }
                Call::GetStates(room, count) => {
                    let (len, version) = (int(size_of_val(room))?, PF_STATE_VERSION);
                    let mut io = PfiocStates { len, pad: [0; 4], version, states: address(room) };
                    self.ioctl(name, number, &mut io)?;
                    *count = usize::try_from(io.len).unwrap_or(0) / size_of::<PfStateExport>();
                    Ok(())
                }
                Call::GetInterfaces(room, count) => {
                    let (esize, size) = (int(size_of::<PfiKif>())?, int(room.len())?);
                    let mut io = PfiocIface { buffer: address(room), esize, size, ..PfiocIface::new_zeroed() };
                    self.ioctl(name, number, &mut io)?;
                    *count = usize::try_from(io.size).unwrap_or(0);
                    Ok(())
                }
            }
        }

        fn renew(&self) -> Answer<()> {
            self.device.replace(descriptor()?);
            Ok(())
        }

        fn ask(&self, command: Command, request: &Attributes) -> Answer<Vec<u8>> {
            match self.session.get_or_try_init(session)? {
                Some(session) => session.ask(command, request),
                None => Err(Failure::new(command.name(), libc::EOPNOTSUPP)),
            }
        }
    }
}
