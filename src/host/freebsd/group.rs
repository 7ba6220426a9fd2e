//! The groups of an interface: SIOCGIFGROUP, netintro(4).

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
    /// the union is as long as a name
    rest: [u8; IFNAMSIZ - 8],
}

/// struct ifg_req: a name.
type Group = [u8; IFNAMSIZ];

// the size is a part of the request's number
const _: () = assert!(size_of::<GroupRequest>() == 0x28 && std::mem::offset_of!(GroupRequest, groups) == 24);

/// How often the groups may have changed between the question for their number and the question for themselves.
const TRIES: usize = 16;

/// A socket to ask with. It is of AF_LOCAL, as ifconfig(8)'s, because a kernel may lack any other family.
pub fn socket() -> Result<OwnedFd> {
    let open = || {
        // SAFETY: no memory is involved.
        match unsafe { libc::socket(libc::AF_LOCAL, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the descriptor is new and nobody else has it.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    };
    above_stdio(open).map_err(|e| Error::io("socket", &e))
}

/// The groups that the interface is in, without `all` and what else is no name of a group in pf.conf(5); `None` if
/// there is no such interface.
pub fn of(socket: &OwnedFd, interface: &str) -> Result<Option<Vec<Interface>>> {
    let mut request = GroupRequest { name: [0; IFNAMSIZ], length: 0, groups: ptr::null_mut(), rest: [0; IFNAMSIZ - 8] };
    // the last byte stays NUL
    for (to, from) in request.name[..IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    for _ in 0..TRIES {
        request.length = 0;
        request.groups = ptr::null_mut();
        // a length of 0 asks for the length (if_getgroup() of net/if.c)
        match ask(socket, &mut request) {
            Ok(()) => (),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            Err(error) => return Err(Error::io(format!("ask for the groups of {interface}"), &error)),
        }
        let mut groups: Vec<Group> = vec![[0; IFNAMSIZ]; request.length as usize / size_of::<Group>()];
        request.groups = groups.as_mut_ptr();
        match ask(socket, &mut request) {
            Ok(()) => return Ok(Some(groups.iter().filter_map(name).collect())),
            // there are more now
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (),
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            Err(error) => return Err(Error::io(format!("ask for the groups of {interface}"), &error)),
        }
    }
    Err(Error::io(format!("ask for the groups of {interface}"), &io::Error::from_raw_os_error(libc::EAGAIN)))
}

/// One SIOCGIFGROUP; `request.groups` must have `request.length` bytes.
fn ask(socket: &OwnedFd, request: &mut GroupRequest) -> io::Result<()> {
    debug_assert!(request.length == 0 || !request.groups.is_null());
    // SAFETY: the request has the size that its number tells, and the kernel writes at most `length` bytes to `groups`.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFGROUP, ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn name(group: &Group) -> Option<Interface> {
    CStr::from_bytes_until_nul(group).ok()?.to_str().ok()?.parse().ok()
}
