//! The groups of an interface, its FIB and its capabilities: SIOCGIFGROUP, SIOCGIFFIB, SIOCGIFCAP, netintro(4).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{IFNAMSIZ, c_uint, c_ulong};

use crate::error::{Error, Result};
use crate::files::above_stdio;
use crate::net::Interface;

/// `_IOWR('i', 136, struct ifgroupreq)` of sys/sockio.h.
const SIOCGIFGROUP: c_ulong = 0xc028_6988;

/// struct ifgroupreq of net/if.h, with the member of its union that SIOCGIFGROUP uses.
#[repr(C)]
struct GroupRequest {
    name: [u8; IFNAMSIZ],
    length: c_uint,
    groups: *mut Group,
    /// the union has the size of a name
    rest: [u8; IFNAMSIZ - 8],
}

/// `_IOWR('i', 92, struct ifreq)` of sys/sockio.h.
const SIOCGIFFIB: c_ulong = 0xc020_695c;

/// `_IOWR('i', 31, struct ifreq)` of sys/sockio.h.
const SIOCGIFCAP: c_ulong = 0xc020_691f;

/// IFCAP_TXCSUM and IFCAP_TXCSUM_IPV6 of net/if.h.
const TXCSUM: c_uint = 1 << 1 | 1 << 22;

/// struct ifreq of net/if.h, with the numbers in its union: SIOCGIFFIB returns the FIB as the first, SIOCGIFCAP the enabled
/// capabilities as the second.
#[repr(C)]
struct NumberRequest {
    name: [u8; IFNAMSIZ],
    numbers: [c_uint; 2],
    /// the union has the size of a name
    rest: [u8; IFNAMSIZ - 8],
}

const _: () = assert!(size_of::<NumberRequest>() == 0x20 && std::mem::offset_of!(NumberRequest, numbers) == 16);

/// struct ifg_req: a name.
type Group = [u8; IFNAMSIZ];

// the size is part of the request's number
const _: () = assert!(size_of::<GroupRequest>() == 0x28 && std::mem::offset_of!(GroupRequest, groups) == 24);

/// More groups than an interface has, usually: they are then read by one call.
const USUAL: usize = 8;

/// How often there may be more groups than room, which is doubled.
const TRIES: usize = 8;

/// A socket for the requests. It is of AF_LOCAL, as in ifconfig(8), because a kernel may lack any other family.
pub fn socket() -> Result<OwnedFd> {
    let open = || {
        // SAFETY: no memory is involved.
        match unsafe { libc::socket(libc::AF_LOCAL, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the descriptor is new and has no other owner.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    };
    above_stdio(open).map_err(|e| Error::io("socket", &e))
}

/// The groups of the interface, without `all` and other names that are not groups in pf.conf(5); `None` if there is no
/// such interface.
pub fn of(socket: &OwnedFd, interface: &str) -> Result<Option<Vec<Interface>>> {
    let rest = [0; IFNAMSIZ - 8];
    let mut request = GroupRequest { name: padded(interface), length: 0, groups: ptr::null_mut(), rest };
    let mut groups: Vec<Group> = vec![[0; IFNAMSIZ]; USUAL];
    for _ in 0..TRIES {
        // lossless: an interface has few groups
        request.length = size_of_val(&*groups) as c_uint;
        request.groups = groups.as_mut_ptr();
        match ask(socket, &mut request) {
            // the kernel writes as many as there are, and leaves the rest empty, which is not a name
            Ok(()) => return Ok(Some(groups.iter().filter_map(name).collect())),
            // there is not enough room (if_getgroup() of net/if.c)
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                groups = vec![[0; IFNAMSIZ]; 2 * groups.len()];
            }
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            Err(error) => return Err(Error::io(format!("read the groups of {interface}"), &error)),
        }
    }
    Err(Error::io(format!("read the groups of {interface}"), &io::Error::from_raw_os_error(libc::EAGAIN)))
}

/// The FIB of the interface; that of the host if there is no such interface.
pub fn fib(socket: &OwnedFd, interface: &str) -> Result<u32> {
    Ok(numbers(socket, SIOCGIFFIB, interface)?[0])
}

/// Whether the interface leaves the checksums of some packets to the hardware.
pub fn leaves_checksums(socket: &OwnedFd, interface: &str) -> Result<bool> {
    Ok(numbers(socket, SIOCGIFCAP, interface)?[1] & TXCSUM != 0)
}

/// The numbers of a request; zeros if there is no such interface.
fn numbers(socket: &OwnedFd, number: c_ulong, interface: &str) -> Result<[u32; 2]> {
    let mut request = NumberRequest { name: padded(interface), numbers: [0; 2], rest: [0; IFNAMSIZ - 8] };
    // SAFETY: the request has the size that its number encodes.
    match unsafe { libc::ioctl(socket.as_raw_fd(), number, ptr::from_mut(&mut request)) } {
        0 => Ok(request.numbers),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok([0; 2]),
            error => Err(Error::io(format!("read the options of {interface}"), &error)),
        },
    }
}

/// A name in a request; the last byte is NUL.
fn padded(interface: &str) -> [u8; IFNAMSIZ] {
    let mut name = [0; IFNAMSIZ];
    for (to, from) in name[..IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    name
}

/// One SIOCGIFGROUP; `request.groups` must have `request.length` bytes.
fn ask(socket: &OwnedFd, request: &mut GroupRequest) -> io::Result<()> {
    debug_assert!(request.length == 0 || !request.groups.is_null());
    // SAFETY: the request has the size that its number encodes, and the kernel writes at most `length` bytes to
    // `groups`.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFGROUP, ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn name(group: &Group) -> Option<Interface> {
    CStr::from_bytes_until_nul(group).ok()?.to_str().ok()?.parse().ok()
}
