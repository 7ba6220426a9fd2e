//! The parsers with recordings of FreeBSD 15.1 (tests/host), compared with what its own tools printed at the same
//! moment, and with arbitrary input.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::interface::{links, reachable};
use super::jail;
use super::recordings::{BOOTTIME, IFLISTL, ROUTE_INET, ROUTE_INET6, TCP_PCBLIST, UDP_PCBLIST};
use super::route::{default_route, router};
use super::rtsock::{RTM_GET, RTM_IFINFO, RTM_NEWADDR, RTM_VERSION};
use super::socket::{XINPCB, XINPGEN, XTCPCB, sctp_listeners, tcp_listeners, udp_listeners};
use super::value::{integer, time_of_boot};
use crate::net::Family;

/// Every parser on `buffer`: what they answer does not matter, only that they do.
fn parse_all(buffer: &[u8]) {
    for family in Family::ALL {
        let _ = router(buffer, family);
    }
    if let Ok(links) = links(buffer) {
        let _ = reachable(&links, |_, _| 0);
    }
    let _ = (tcp_listeners(buffer), udp_listeners(buffer), sctp_listeners(buffer));
    let _ = (time_of_boot(buffer), integer("kern.any", buffer), jail::addresses(buffer, buffer));
}

fn recording() -> impl Strategy<Value = Vec<u8>> {
    let all = [ROUTE_INET, ROUTE_INET6, IFLISTL, TCP_PCBLIST, UDP_PCBLIST, BOOTTIME];
    prop::sample::select(all.map(<[u8]>::to_vec).to_vec())
}

/// The head of a record: bytes that the parsers accept, so that they read the arbitrary ones after it.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let message = (0u16..600, prop::sample::select(vec![RTM_GET, RTM_NEWADDR, RTM_IFINFO]))
        .prop_map(|(length, kind)| [length.to_ne_bytes().as_slice(), &[RTM_VERSION, kind]].concat());
    let record =
        prop::sample::select(vec![XINPGEN, XINPCB, XTCPCB]).prop_map(|size| (size as u64).to_ne_bytes().to_vec());
    prop_oneof![message, record, Just(vec![0; 28])]
}

proptest! {
    #[test]
    fn any_bytes_are_survived(buffer in prop::collection::vec(any::<u8>(), 0..2000)) {
        parse_all(&buffer);
    }

    #[test]
    fn any_records_are_survived(parts in prop::collection::vec((head(), prop::collection::vec(any::<u8>(), 0..400)), 0..8)) {
        parse_all(&parts.into_iter().flat_map(|(head, body)| [head, body].concat()).collect::<Vec<_>>());
    }

    #[test]
    fn damaged_recordings_are_survived(
        mut buffer in recording(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, byte) in damage {
            let at = at.index(buffer.len());
            buffer[at] = byte;
        }
        buffer.truncate(cut.index(buffer.len() + 1));
        parse_all(&buffer);
    }

    /// A truncated answer is an error or gives fewer facts, never wrong ones.
    #[test]
    fn a_cut_answer_invents_nothing(cut in any::<prop::sample::Index>()) {
        let part = &IFLISTL[..cut.index(IFLISTL.len())];
        if let Ok(some) = links(part) {
            let whole: BTreeMap<_, _> = links(IFLISTL).unwrap().into_iter().map(|l| (l.name, l.addresses)).collect();
            for link in some {
                prop_assert!(whole[&link.name].starts_with(&link.addresses));
            }
        }
        let part = &TCP_PCBLIST[..cut.index(TCP_PCBLIST.len())];
        prop_assert!(tcp_listeners(part).is_err());
        let part = &UDP_PCBLIST[..cut.index(UDP_PCBLIST.len())];
        prop_assert!(udp_listeners(part).is_err());
        let part = &ROUTE_INET[..cut.index(ROUTE_INET.len())];
        prop_assert!(default_route(part, Family::Inet).map_or(true, |route| route.is_none_or(|(name, _)| name == "em0")));
    }
}
