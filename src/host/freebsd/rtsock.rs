//! The messages of route(4) about routes and interfaces, each followed by socket addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::buffer::{bytes, u8_at, u16_at};
use crate::net::{Family, is_link_local6};

pub const AF_INET: u8 = 2;
const AF_LINK: u8 = 18;
pub const AF_INET6: u8 = 28;

/// net/route.h
pub const RTM_VERSION: u8 = 5;
pub const RTM_GET: u8 = 0x4;
pub const RTM_NEWADDR: u8 = 0xc;
pub const RTM_IFINFO: u8 = 0xe;
pub const RTAX_DST: usize = 0;
pub const RTAX_GATEWAY: usize = 1;
pub const RTAX_NETMASK: usize = 2;
pub const RTAX_IFP: usize = 4;
pub const RTAX_IFA: usize = 5;
const RTAX_MAX: usize = 8;

/// The messages of an rtsock sysctl: type and bytes of each.
pub fn messages(buffer: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    let mut rest = buffer;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = u16_at(rest, 0).and_then(|length| rest.get(..usize::from(length)));
        match message {
            Some(m) if m.len() >= 4 && m[2] == RTM_VERSION => {
                rest = &rest[m.len()..];
                Some(Some((m[3], m)))
            }
            _ => {
                rest = &[];
                Some(None)
            }
        }
    })
}

/// The socket addresses at `offset` of a message, by their RTAX index; `None` if `mask` names one that is missing.
pub fn sockaddrs(message: &[u8], offset: usize, mask: u32) -> Option<[&[u8]; RTAX_MAX]> {
    let mut found = [[].as_slice(); RTAX_MAX];
    let mut rest = message.get(offset..)?;
    for (index, place) in found.iter_mut().enumerate() {
        if mask & 1 << index != 0 {
            let length = usize::from(*rest.first()?);
            *place = rest.get(..length)?;
            // SA_SIZE of net/route.h: in steps of a long; an empty one also takes a long
            rest = rest.get(length.next_multiple_of(8).max(8)..).unwrap_or(&[]);
        }
    }
    Some(found)
}

/// The address in a sockaddr_in or sockaddr_in6; `None` for any other family.
pub fn address(sockaddr: &[u8]) -> Option<IpAddr> {
    match *sockaddr.get(1)? {
        AF_INET => Some(Ipv4Addr::from(bytes::<4>(sockaddr, 4)?).into()),
        AF_INET6 => {
            let address = Ipv6Addr::from(bytes::<16>(sockaddr, 8)?);
            // KAME: the kernel may leave the scope in the second 16 bits of a link-local address
            let mut segments = address.segments();
            if is_link_local6(address) {
                segments[1] = 0;
            }
            Some(Ipv6Addr::from(segments).into())
        }
        _ => None,
    }
}

/// The prefix length of a netmask for `family`. The kernel may cut a mask's trailing zeros, and even its family, so the
/// family of the address decides.
pub fn prefix(mask: &[u8], family: Family) -> u8 {
    let (start, size) = match family {
        Family::Inet => (4, 4),
        Family::Inet6 => (8, 16),
    };
    let mut length = 0;
    for byte in mask.iter().skip(start).take(size) {
        // lossless: at most 8
        length += byte.leading_ones() as u8;
        if *byte != 0xff {
            break;
        }
    }
    length
}

/// The interface name in a sockaddr_dl (net/if_dl.h: the name's length at 5, the name at 8).
pub fn link_name(sockaddr: &[u8]) -> Option<&[u8]> {
    if u8_at(sockaddr, 1)? != AF_LINK {
        return None;
    }
    let length = usize::from(u8_at(sockaddr, 5)?);
    let name = sockaddr.get(8..8 + length)?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_may_cut_a_netmask() {
        assert_eq!(prefix(&[], Family::Inet), 0);
        assert_eq!(prefix(&[6, 0, 0, 0, 0xff, 0x80], Family::Inet), 9);
        assert_eq!(prefix(&[7, 0, 0, 0, 0xff, 0xff, 0xff], Family::Inet), 24);
        assert_eq!(prefix(&[16, 2, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0], Family::Inet), 32);
        let mut full = [0xff; 28];
        full[8 + 15] = 0xfe;
        assert_eq!(prefix(&full, Family::Inet6), 127);
    }
}
