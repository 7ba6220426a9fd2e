//! The calls of the kernel: sysctl(3), jail_get(2), and the requests of netintro(4) about interfaces.

use std::ffi::{CStr, CString};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::{io, ptr};

use libc::{IFNAMSIZ, JAIL_DYING, c_int, c_uint, c_ulong, c_void, iovec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Parameter, TEXT, at};
use crate::error::{Error, Result, quoted};
use crate::files::above_stdio;
use crate::net::{Family, Interface, PerFamily};

/// How often a list may grow between reading its size and reading it.
const TRIES: usize = 16;

/// Enough for a number, a text, and the routes and interfaces of most hosts: they are then read by one call.
const USUAL: usize = 16 * 1024;

/// net.route.0.0.iflist: the interfaces and addresses of the network stack that the caller is in.
pub const INTERFACES: [c_int; 6] = [libc::CTL_NET, libc::PF_ROUTE, 0, libc::AF_UNSPEC, libc::NET_RT_IFLISTL, 0];

/// net.route.0.FAMILY.dump: the routes of the network stack that the caller is in. Without a seventh number the kernel uses
/// the FIB of the process (sysctl_rtsock() of net/rtsock.c).
pub fn routes(family: Family) -> [c_int; 6] {
    let domain = *PerFamily { inet: libc::AF_INET, inet6: libc::AF_INET6 }.of(family);
    [libc::CTL_NET, libc::PF_ROUTE, 0, domain, libc::NET_RT_DUMP, 0]
}

pub fn fetch(mib: &[c_int]) -> io::Result<Vec<u8>> {
    // lossless: CTL_MAXNAME numbers at most
    let count = mib.len() as c_uint;
    // SAFETY: `mib` has `count` numbers, and `value` has `size` bytes or is NULL.
    read(|value, size| unsafe { libc::sysctl(mib.as_ptr(), count, value, size, ptr::null(), 0) })
}

/// The value of the sysctl with this name; `None` if the kernel has none.
pub fn named(name: &str) -> Result<Option<Vec<u8>>> {
    let Ok(text) = CString::new(name) else { return Ok(None) };
    // SAFETY: `text` ends with a NUL, and `value` has `size` bytes or is NULL.
    match read(|value, size| unsafe { libc::sysctlbyname(text.as_ptr(), value, size, ptr::null(), 0) }) {
        Ok(value) => Ok(Some(value)),
        // the name is unknown, or its module was unloaded
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(Error::io(format!("sysctl {name}"), &error)),
    }
}

/// Reads a value by `ask`, which is given a buffer and its size, which the kernel replaces with the number of bytes that it wrote;
/// without a buffer it only stores the size that it needs.
fn read(ask: impl Fn(*mut c_void, *mut usize) -> c_int) -> io::Result<Vec<u8>> {
    let mut size = USUAL;
    for _ in 0..TRIES {
        let mut value = vec![0u8; size];
        if ask(value.as_mut_ptr().cast(), &raw mut size) == 0 {
            value.truncate(size);
            return Ok(value);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return Err(error);
        }
        if ask(ptr::null_mut(), &raw mut size) != 0 {
            return Err(io::Error::last_os_error());
        }
        // space for what is opened meanwhile
        size += size / 8 + 1024;
    }
    Err(io::Error::from_raw_os_error(libc::ENOMEM))
}

/// jail_get(2): fills the values of `parameters`, the first of which selects the jail. Returns its jid, `None` if there is none.
pub fn jail_get(parameters: &mut Vec<Parameter>) -> Result<Option<i32>> {
    parameters.push((c"errmsg", vec![0; TEXT]));
    let mut list: Vec<iovec> = Vec::with_capacity(2 * parameters.len());
    for (name, value) in parameters.iter_mut() {
        // the kernel does not write to a name
        list.push(iovec { iov_base: name.as_ptr().cast_mut().cast(), iov_len: name.count_bytes() + 1 });
        list.push(iovec { iov_base: value.as_mut_ptr().cast(), iov_len: value.len() });
    }
    // lossless: a few
    let count = list.len() as c_uint;
    // SAFETY: `list` has `count` entries; each points to memory of its length that outlives the call and is not used
    // otherwise meanwhile. The kernel writes no value longer than its buffer, and stores the length of each in `list`.
    let jid = unsafe { libc::jail_get(list.as_mut_ptr(), count, JAIL_DYING) };
    let error = io::Error::last_os_error();
    let message = parameters.pop().map(|(_, value)| value).unwrap_or_default();
    if jid >= 0 {
        for ((_, value), entry) in parameters.iter_mut().zip(list.iter().skip(1).step_by(2)) {
            value.truncate(entry.iov_len);
        }
        return Ok(Some(jid));
    }
    if error.raw_os_error() == Some(libc::ENOENT) {
        return Ok(None);
    }
    let failed = Error::io("jail_get", &error);
    match CStr::from_bytes_until_nul(&message) {
        Ok(text) if !text.is_empty() => Err(failed.and(quoted(&text.to_string_lossy()))),
        _ => Err(failed),
    }
}

/// Whether execve(2) gave this process other rights, which its ids may no longer show: issetugid(2).
pub fn was_set_at_exec() -> bool {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::issetugid() != 0 }
}

// ---- requests about interfaces: each number has the size of its struct

/// `_IOWR('i', 136, struct ifgroupreq)` of sys/sockio.h.
const SIOCGIFGROUP: c_ulong = 0xc028_6988;
/// `_IOWR('i', 92, struct ifreq)` and `_IOWR('i', 31, struct ifreq)` of sys/sockio.h.
const SIOCGIFFIB: c_ulong = 0xc020_695c;
const SIOCGIFCAP: c_ulong = 0xc020_691f;
/// `_IOWR('i', 73, struct in6_ifreq)` of netinet6/in6_var.h.
const SIOCGIFAFLAG_IN6: c_ulong = 0xc120_6949;
/// IFCAP_TXCSUM and IFCAP_TXCSUM_IPV6 of net/if.h.
const TXCSUM: u32 = 1 << 1 | 1 << 22;

/// A name of an interface, or struct ifg_req, the name of a group; the last byte is NUL.
type Name = [u8; IFNAMSIZ];

/// struct ifgroupreq of net/if.h, with the member of its union that SIOCGIFGROUP uses.
#[repr(C)]
struct GroupRequest {
    name: Name,
    length: c_uint,
    groups: *mut Name,
    /// the union has the size of a name
    rest: [u8; IFNAMSIZ - 8],
}

const _: () = assert!(std::mem::offset_of!(GroupRequest, groups) == 24);

/// More groups than an interface has, usually: they are then read by one call.
const USUAL_GROUPS: usize = 8;
/// How often there may be more groups than room, which is doubled.
const GROUP_TRIES: usize = 8;

/// A socket for the requests. It is of AF_LOCAL, as in ifconfig(8), because a kernel may lack any other family.
pub fn socket() -> Result<OwnedFd> {
    let open = || Ok(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?);
    above_stdio(open).map_err(|e| Error::io("socket", &e))
}

/// The groups of the interface, without `all` and other names that are not groups in pf.conf(5); `None` if there is no
/// such interface.
pub fn groups(socket: &OwnedFd, interface: &str) -> Result<Option<Vec<Interface>>> {
    let failed = |error: &io::Error| Error::io(format!("read the groups of {interface}"), error);
    let mut groups: Vec<Name> = vec![[0; IFNAMSIZ]; USUAL_GROUPS];
    for _ in 0..GROUP_TRIES {
        // lossless: an interface has few groups
        let length = size_of_val(&*groups) as c_uint;
        let (name, rest) = (padded(interface), [0; IFNAMSIZ - 8]);
        let mut request = GroupRequest { name, length, groups: groups.as_mut_ptr(), rest };
        // SAFETY: the kernel writes at most `length` bytes to `groups`, which has as many.
        match unsafe { ask::<SIOCGIFGROUP, _>(socket, &mut request) } {
            // the kernel writes as many as there are, and leaves the rest empty, which is not a name
            Ok(()) => {
                let name = |group: &Name| CStr::from_bytes_until_nul(group).ok()?.to_str().ok()?.parse().ok();
                return Ok(Some(groups.iter().take_while(|group| group[0] != 0).filter_map(name).collect()));
            }
            // there is not enough room (if_getgroup() of net/if.c)
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => groups = vec![[0; IFNAMSIZ]; 2 * groups.len()],
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            Err(error) => return Err(failed(&error)),
        }
    }
    Err(failed(&io::Error::from_raw_os_error(libc::EAGAIN)))
}

/// The FIB of the interface; that of the host if there is no such interface.
pub fn fib(socket: &OwnedFd, interface: &str) -> Result<u32> {
    Ok(numbers::<SIOCGIFFIB>(socket, interface)?[0])
}

/// Whether the interface leaves the checksums of some packets to the hardware.
pub fn leaves_checksums(socket: &OwnedFd, interface: &str) -> Result<bool> {
    Ok(numbers::<SIOCGIFCAP>(socket, interface)?[1] & TXCSUM != 0)
}

/// The numbers of a request with a struct ifreq of net/if.h, in the union after the name: SIOCGIFFIB returns the FIB as the first,
/// SIOCGIFCAP the enabled capabilities as the second. Zeros if there is no such interface.
fn numbers<const REQUEST: c_ulong>(socket: &OwnedFd, interface: &str) -> Result<[u32; 2]> {
    let mut request = [padded(interface), [0; IFNAMSIZ]];
    // SAFETY: the request has no pointers.
    match unsafe { ask::<REQUEST, _>(socket, &mut request) } {
        Ok(()) => Ok([0, 4].map(|offset| at(&request[1], offset).unwrap_or(0))),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok([0; 2]),
        Err(error) => Err(Error::io(format!("read the options of {interface}"), &error)),
    }
}

/// The flags of an IPv6 address of an interface, by a socket of AF_INET6; 0 if there is no such address. ifconfig(8) uses this
/// request, too.
pub fn flags6(socket: &OwnedFd, interface: &str, address: Ipv6Addr) -> u32 {
    // struct in6_ifreq: after the name a union, which the kernel replaces with the flags. Its largest member is struct
    // icmp6_ifstat, 34 numbers of 64 bits
    let mut request = [0; IFNAMSIZ + 34 * 8];
    request[..IFNAMSIZ].copy_from_slice(&padded(interface));
    // struct sockaddr_in6: its length, 28, and family; the address follows port and flow information
    request[IFNAMSIZ..][..2].copy_from_slice(&[28, libc::AF_INET6 as u8]);
    request[IFNAMSIZ + 8..][..16].copy_from_slice(&address.octets());
    // SAFETY: the request has no pointers.
    match unsafe { ask::<SIOCGIFAFLAG_IN6, _>(socket, &mut request) } {
        Ok(()) => at(&request, IFNAMSIZ).unwrap_or(0),
        Err(_) => 0,
    }
}

fn padded(interface: &str) -> Name {
    let mut name = [0; IFNAMSIZ];
    for (to, from) in name[..IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from;
    }
    name
}

/// # Safety
/// The pointers in a request must be valid for what the kernel does with them.
unsafe fn ask<const REQUEST: c_ulong, T>(socket: &OwnedFd, request: &mut T) -> io::Result<()> {
    const { assert!(size_of::<T>() == (REQUEST >> 16 & 0x1fff) as usize) };
    // SAFETY: the request has the size that its number encodes; the caller guarantees the rest.
    match unsafe { libc::ioctl(socket.as_raw_fd(), REQUEST, ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
