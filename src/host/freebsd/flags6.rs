//! The flags of an IPv6 address: SIOCGIFAFLAG_IN6, which ifconfig(8) uses, too.

use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use libc::{IFNAMSIZ, c_ulong, sockaddr_in6};

/// `_IOWR('i', 73, struct in6_ifreq)` of netinet6/in6_var.h.
const SIOCGIFAFLAG_IN6: c_ulong = 0xc120_6949;
/// The size of struct in6_ifreq: a name, and a union whose largest member is struct icmp6_ifstat, 34 numbers of 64 bits.
const SIZE: usize = IFNAMSIZ + 34 * 8;

/// struct in6_ifreq with the address in its union, which the kernel replaces with the flags.
#[repr(C, align(8))]
struct AddressRequest {
    name: [u8; IFNAMSIZ],
    address: sockaddr_in6,
    rest: [u8; SIZE - IFNAMSIZ - size_of::<sockaddr_in6>()],
}

// the size is part of the request's number
const _: () = assert!(size_of::<AddressRequest>() == SIZE && SIZE == (SIOCGIFAFLAG_IN6 >> 16 & 0x1fff) as usize);

/// The flags of an address of the interface `name`, by a socket of AF_INET6; 0 if there is no such address.
pub fn of(socket: &OwnedFd, name: &str, address: Ipv6Addr) -> u32 {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut request: AddressRequest = unsafe { std::mem::zeroed() };
    // the last byte stays NUL
    for (to, from) in request.name[..IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // lossless: both are 28
    request.address.sin6_len = size_of::<sockaddr_in6>() as u8;
    request.address.sin6_family = libc::AF_INET6 as u8;
    request.address.sin6_addr.s6_addr = address.octets();
    // SAFETY: the request has the size that its number encodes; the kernel writes nothing else.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGIFAFLAG_IN6, ptr::from_mut(&mut request)) } {
        // SAFETY: `ifru_flags6`, an int, is at the start of the union.
        0 => unsafe { ptr::from_ref(&request.address).cast::<u32>().read() },
        _ => 0,
    }
}
