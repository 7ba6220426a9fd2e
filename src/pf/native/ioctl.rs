//! /dev/pf itself. The only place of the backend that is not safe Rust.
//!
//! The structs are those of LP64, and nvlists are read in little-endian form: amd64, arm64, riscv64.

#[cfg(not(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little")))]
pub use elsewhere::Device;
#[cfg(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little"))]
pub use freebsd::Device;

#[cfg(not(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little")))]
mod elsewhere {
    use crate::error::{Error, Kind, Result};
    use crate::pf::native::kernel::{Call, Failure, Kernel};

    /// There is no FreeBSD pf here, and so never one of these.
    #[derive(Clone, Copy, Debug)]
    pub enum Device {}

    impl Device {
        /// Always [`Kind::Unsupported`].
        pub fn open() -> Result<Device> {
            let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
            let why =
                format!("backend native drives /dev/pf of FreeBSD on 64 bits, little-endian; this is {os} on {arch}");
            Err(Error::new(Kind::Unsupported, why))
        }
    }

    impl Kernel for Device {
        fn call(&self, _: Call<'_>) -> std::result::Result<(), Failure> {
            match *self {}
        }
    }
}

#[cfg(all(target_os = "freebsd", target_pointer_width = "64", target_endian = "little"))]
mod freebsd {
    use std::ffi::c_int;
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::path::Path;
    use std::sync::Arc;

    use crate::error::Result;
    use crate::pf::native::descriptor::Descriptor;
    use crate::pf::native::kernel::{Call, Failure, Kernel, Nv, OPEN};
    use crate::pf::native::layout::{PfiKif, PfiocTransE};

    /// A handle to this process's one descriptor of /dev/pf.
    #[derive(Clone, Copy, Debug)]
    pub struct Device(());

    impl Device {
        /// Opens the device, or finds it open.
        pub fn open() -> Result<Device> {
            descriptor()?;
            Ok(Device(()))
        }
    }

    static DESCRIPTOR: Descriptor = Descriptor::new();

    fn descriptor() -> std::result::Result<Arc<OwnedFd>, Failure> {
        DESCRIPTOR.get(Path::new("/dev/pf")).map_err(|error| failure(OPEN, &error))
    }

    fn failure(call: &'static str, error: &io::Error) -> Failure {
        Failure::new(call, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// struct pfioc_trans
    #[repr(C)]
    struct PfiocTrans {
        size: c_int,
        esize: c_int,
        array: *mut PfiocTransE,
    }

    /// struct pfioc_nv
    #[repr(C)]
    struct PfiocNv {
        data: *mut u8,
        len: usize,
        size: usize,
    }

    /// struct pfioc_iface
    #[repr(C)]
    struct PfiocIface {
        name: [u8; 16],
        buffer: *mut PfiKif,
        esize: c_int,
        size: c_int,
        nzero: c_int,
        flags: c_int,
    }

    const _: () = assert!(size_of::<PfiocTrans>() == 16 && size_of::<PfiocNv>() == 24 && size_of::<PfiocIface>() == 40);

    impl Kernel for Device {
        fn call(&self, call: Call<'_>) -> std::result::Result<(), Failure> {
            let (name, number) = (call.name(), call.number());
            let nvlist = |nv: &mut Nv| {
                let mut io = PfiocNv { data: nv.buffer.as_mut_ptr(), len: nv.length, size: nv.buffer.len() };
                ioctl(name, number, &mut io)?;
                nv.length = io.len;
                Ok(())
            };
            match call {
                Call::XBegin(rulesets) | Call::XCommit(rulesets) | Call::XRollback(rulesets) => {
                    let mut io = PfiocTrans {
                        size: rulesets.len() as c_int,
                        esize: size_of::<PfiocTransE>() as c_int,
                        array: rulesets.as_mut_ptr(),
                    };
                    ioctl(name, number, &mut io)
                }
                Call::BeginAddrs(address)
                | Call::AddAddr(address)
                | Call::GetAddrs(address)
                | Call::GetAddr(address) => ioctl(name, number, address),
                Call::AddRule(rule) | Call::GetRules(rule) => ioctl(name, number, rule),
                Call::GetRule(nv) | Call::GetStatus(nv) | Call::KillStates(nv) => nvlist(nv),
                Call::GetRulesets(ruleset) | Call::GetRuleset(ruleset) => ioctl(name, number, ruleset),
                Call::GetLimit(limit) => ioctl(name, number, limit),
                Call::GetTable(table) => {
                    // the kernel would write as many addresses to wherever it says
                    (table.buffer, table.size) = (0, 0);
                    ioctl(name, number, table)
                }
                Call::GetInterfaces(room, count) => {
                    let mut io = PfiocIface {
                        name: [0; 16],
                        buffer: room.as_mut_ptr(),
                        esize: size_of::<PfiKif>() as c_int,
                        size: c_int::try_from(room.len()).map_err(|_| Failure::new(name, libc::EINVAL))?,
                        nzero: 0,
                        flags: 0,
                    };
                    ioctl(name, number, &mut io)?;
                    *count = usize::try_from(io.size).unwrap_or(0);
                    Ok(())
                }
            }
        }
    }

    fn ioctl<T>(name: &'static str, number: u64, argument: &mut T) -> std::result::Result<(), Failure> {
        // IOCPARM_LEN of sys/sys/ioccom.h: as many bytes as the kernel copies in and out
        assert_eq!(number as usize >> 16 & 0x1fff, size_of::<T>(), "{name}");
        let device = descriptor()?;
        // SAFETY: the descriptor is open for the length of the call. The kernel reads and writes the number of bytes
        // that is part of the call's number, which is the size of `argument` (asserted above). What `argument` points
        // to, if anything, is a live array that nobody else uses, with its true length beside it: the rulesets of a
        // transaction, the interfaces, and the buffer of an nvlist, of which the kernel writes at most `size` elements
        // or bytes. Any bytes are a value of the types it writes to.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), number as libc::c_ulong, std::ptr::from_mut(argument)) };
        if result == -1 { Err(failure(name, &io::Error::last_os_error())) } else { Ok(()) }
    }
}
