//! The parsers against recordings of FreeBSD 15.1 (tests/host), compared with what its own tools printed of the same
//! moment, and against anything else.

use std::collections::BTreeMap;

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;

const ROUTE_INET: &[u8] = include_bytes!("../../../tests/host/route-inet.bin");
const ROUTE_INET6: &[u8] = include_bytes!("../../../tests/host/route-inet6.bin");
const IFLISTL: &[u8] = include_bytes!("../../../tests/host/iflistl.bin");
const TCP_PCBLIST: &[u8] = include_bytes!("../../../tests/host/tcp-pcblist.bin");
const UDP_PCBLIST: &[u8] = include_bytes!("../../../tests/host/udp-pcblist.bin");
const BOOTTIME: &[u8] = include_bytes!("../../../tests/host/boottime.bin");

const NETSTAT_RN: &str = include_str!("../../../tests/host/netstat-rn.txt");
const NETSTAT_AN: &str = include_str!("../../../tests/host/netstat-an.txt");
const IFCONFIG_A: &str = include_str!("../../../tests/host/ifconfig-a.txt");
const JLS: &str = include_str!("../../../tests/host/jls.txt");

/// The Netif column of the default route in the part of netstat(1) that begins with `heading`.
fn netif(heading: &str) -> &'static str {
    let mut lines = NETSTAT_RN.lines().skip_while(|line| *line != heading);
    let line = lines.find(|line| line.starts_with("default")).unwrap();
    line.split_whitespace().nth(5).unwrap()
}

#[test]
fn default_route_as_netstat_prints_it() {
    assert_eq!(default_route(ROUTE_INET, Family::Inet).unwrap(), Some(netif("Internet:")));
    assert_eq!(default_route(ROUTE_INET6, Family::Inet6).unwrap(), Some(netif("Internet6:")));
    assert_eq!(netif("Internet:"), "em0");
}

#[test]
fn no_default_route() {
    assert_eq!(default_route(&[], Family::Inet).unwrap(), None);
    // the other family's table
    assert_eq!(default_route(ROUTE_INET, Family::Inet6).unwrap(), None);
    // the first message is the default route: up, a gateway, static
    assert_eq!(u32_at(ROUTE_INET, RTM_FLAGS), Some(0x803));
    for refusing in [RTF_REJECT, RTF_BLACKHOLE] {
        let mut table = ROUTE_INET.to_vec();
        table[RTM_FLAGS..RTM_FLAGS + 4].copy_from_slice(&(0x803 | refusing).to_ne_bytes());
        assert_eq!(default_route(&table, Family::Inet).unwrap(), None);
    }
}

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

/// name, up, addresses of each interface that ifconfig(8) printed
fn ifconfig() -> Vec<(String, bool, Vec<IpNet>)> {
    let mut found: Vec<(String, bool, Vec<IpNet>)> = Vec::new();
    for line in IFCONFIG_A.lines() {
        if let Some((name, rest)) = line.split_once(": flags=") {
            let flags = rest.split_once('<').map_or("", |(_, flags)| flags);
            found.push((name.to_owned(), flags.starts_with("UP,"), Vec::new()));
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let addresses = &mut found.last_mut().unwrap().2;
        match words[..] {
            ["inet", address, "netmask", mask, ..] => {
                let mask = u32::from_str_radix(mask.trim_start_matches("0x"), 16).unwrap();
                let net = Ipv4Net::new(address.parse().unwrap(), mask.leading_ones() as u8);
                addresses.push(net.unwrap().into());
            }
            ["inet6", address, "prefixlen", length, ..] => {
                let address = address.split('%').next().unwrap().parse().unwrap();
                addresses.push(Ipv6Net::new(address, length.parse().unwrap()).unwrap().into());
            }
            _ => (),
        }
    }
    found
}

#[test]
fn interfaces_as_ifconfig_prints_them() {
    let mut expected = ifconfig();
    assert_eq!(expected.len(), 9);
    let mut seen: Vec<(String, bool, Vec<IpNet>)> =
        links(IFLISTL).unwrap().into_iter().map(|l| (l.name, l.flags & IFF_UP != 0, l.addresses)).collect();
    // ifconfig sorts the addresses of an interface by family
    for (_, _, addresses) in seen.iter_mut().chain(&mut expected) {
        addresses.sort();
    }
    assert_eq!(seen, expected);
}

#[test]
fn groups_come_from_elsewhere_and_odd_names_are_left_out() {
    let em0 = links(IFLISTL).unwrap().into_iter().find(|link| link.name == "em0").unwrap();
    let wan: Interface = "wan".parse().unwrap();
    let interface = em0.clone().with_groups(vec![wan]).unwrap();
    assert_eq!((interface.name.as_str(), interface.groups, interface.up), ("em0", vec![wan], true));
    assert_eq!(Link { name: "odd:name".to_owned(), ..em0 }.with_groups(Vec::new()), None);
}

#[test]
fn reachable_addresses_are_neither_loopback_nor_link_local() {
    let expected = ["192.0.2.1", "2001:db8::1", "192.0.2.7", "10.0.0.1", "fd00::1", "10.1.0.1", "fd01::1"];
    let expected: Vec<IpAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
    assert_eq!(reachable(&links(IFLISTL).unwrap()), expected);
}

/// What netstat(1) printed: protocol and local end of what waits for traffic.
fn netstat() -> Vec<(Protocol, [bool; 2], String)> {
    let mut found = Vec::new();
    for line in NETSTAT_AN.lines().skip(2) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (protocol, families) = match words[0] {
            "tcp4" => (Protocol::Tcp, [true, false]),
            "tcp6" => (Protocol::Tcp, [false, true]),
            "udp4" => (Protocol::Udp, [true, false]),
            "udp6" => (Protocol::Udp, [false, true]),
            other => panic!("{other}"),
        };
        if words[4] == "*.*" && (protocol == Protocol::Udp || words[5] == "LISTEN") {
            found.push((protocol, families, words[3].to_owned()));
        }
    }
    found
}

fn as_netstat(l: &Listener) -> (Protocol, [bool; 2], String) {
    let address = l.address.map_or("*".to_owned(), |a| a.to_string());
    (l.protocol, l.families, format!("{address}.{}", l.port))
}

#[test]
fn listeners_as_netstat_prints_them() {
    let mut seen = tcp_listeners(TCP_PCBLIST).unwrap();
    assert_eq!(seen.len(), 4);
    seen.extend(udp_listeners(UDP_PCBLIST).unwrap());
    assert_eq!(seen.iter().map(as_netstat).collect::<Vec<_>>(), netstat());
}

#[test]
fn a_socket_of_both_families() {
    // the second record of the recording, udp6 *:123
    let mut list = UDP_PCBLIST.to_vec();
    let vflag = XINPGEN + XINPCB + INP_VFLAG;
    assert_eq!(list[vflag] & (INP_IPV4 | INP_IPV6), INP_IPV6);
    list[vflag] |= INP_IPV4;
    let both = udp_listeners(&list).unwrap()[1];
    assert_eq!(both, Listener { protocol: Protocol::Udp, families: [true, true], address: None, port: 123 });
    // connected: no listener
    list[XINPGEN + XINPCB + IE_FPORT] = 1;
    assert_eq!(udp_listeners(&list).unwrap().len(), 1);
}

#[test]
fn structs_of_another_size_are_refused() {
    for (at, size) in [(0, 72u64), (XINPGEN, 752), (XINPGEN, 0), (XINPGEN, u64::MAX)] {
        let mut list = TCP_PCBLIST.to_vec();
        list[at..at + 8].copy_from_slice(&size.to_ne_bytes());
        assert_eq!(tcp_listeners(&list).unwrap_err().kind(), Kind::Unsupported, "{at} {size}");
    }
    assert!(udp_listeners(TCP_PCBLIST).is_err());
    let mut table = ROUTE_INET.to_vec();
    table[2] = 6;
    assert!(default_route(&table, Family::Inet).is_err());
}

/// An answer of sctp_sysctl_handle_assoclist(), put together by the order in which it writes.
#[derive(Default)]
struct Assoclist(Vec<u8>);

impl Assoclist {
    fn endpoint(&mut self, flags: u32, port: u16) -> &mut Self {
        let mut record = [0; XSCTP_INPCB];
        record[4..8].copy_from_slice(&flags.to_ne_bytes());
        record[32..34].copy_from_slice(&port.to_ne_bytes());
        self.0.extend(record);
        self
    }

    fn addresses(&mut self, size: usize, addresses: &[&str]) -> &mut Self {
        for text in addresses {
            let mut record = vec![0; size];
            match text.parse().unwrap() {
                IpAddr::V4(v4) => {
                    record[..2].copy_from_slice(&[16, AF_INET]);
                    record[4..8].copy_from_slice(&v4.octets());
                }
                IpAddr::V6(v6) => {
                    record[..2].copy_from_slice(&[28, AF_INET6]);
                    record[8..24].copy_from_slice(&v6.octets());
                }
            }
            self.0.extend(record);
        }
        self.last(size, 28)
    }

    fn association(&mut self) -> &mut Self {
        self.0.extend([0; XSCTP_TCB]);
        self
    }

    fn last(&mut self, size: usize, offset: usize) -> &mut Self {
        let mut record = vec![0; size];
        record[offset] = 1;
        self.0.extend(record);
        self
    }
}

#[test]
fn sctp_endpoints() {
    let mut list = Assoclist::default();
    // every address of both families, one association
    list.endpoint(SCTP_PCB_FLAGS_BOUNDALL | SCTP_PCB_FLAGS_ACCEPTING, 5000)
        .addresses(XSCTP_LADDR, &["192.0.2.1", "2001:db8::1"])
        .association()
        .addresses(XSCTP_LADDR, &["192.0.2.1"])
        .addresses(XSCTP_RADDR, &["192.0.2.100"])
        .last(XSCTP_TCB, 28);
    // one address
    list.endpoint(SCTP_PCB_FLAGS_ACCEPTING, 5001).addresses(XSCTP_LADDR, &["192.0.2.7"]).last(XSCTP_TCB, 28);
    // a client
    list.endpoint(SCTP_PCB_FLAGS_BOUNDALL, 5002).addresses(XSCTP_LADDR, &["192.0.2.7"]).last(XSCTP_TCB, 28);
    list.last(XSCTP_INPCB, 0);
    let expected = [
        Listener { protocol: Protocol::Sctp, families: [true, true], address: None, port: 5000 },
        Listener {
            protocol: Protocol::Sctp,
            families: [true, false],
            address: Some("192.0.2.7".parse().unwrap()),
            port: 5001,
        },
    ];
    assert_eq!(sctp_listeners(&list.0).unwrap(), expected);
    for cut in 0..list.0.len() {
        assert!(sctp_listeners(&list.0[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn time_of_boot() {
    // sysctl(8) said { sec = 1795387109, usec = 318318 }
    assert_eq!(boottime(BOOTTIME).unwrap(), (1_795_387_109, 318_318));
    assert!(boottime(&BOOTTIME[..8]).is_err());
}

#[test]
fn integers() {
    assert_eq!(integer(&(-1i32).to_ne_bytes()), Some(-1));
    assert_eq!(integer(&(1u64 << 40).to_ne_bytes()), Some(1 << 40));
    assert_eq!(integer(&[1]), Some(1));
    assert_eq!(integer(&0xffffu16.to_ne_bytes()), Some(0xffff));
    assert_eq!(integer(b""), None);
    assert_eq!(integer(b"amd64"), None);
}

#[test]
fn addresses_of_a_jail() {
    let found = jail_addresses(&[10, 9, 0, 2, 10, 9, 0, 3], &Ipv6Addr::LOCALHOST.octets()).unwrap();
    assert_eq!(found, ["10.9.0.2", "10.9.0.3", "::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert!(jail_addresses(&[10, 9, 0], &[]).is_err());
    assert!(jail_addresses(&[], &[0; 17]).is_err());
}

#[test]
fn a_jail_inherits_the_host_s_addresses() {
    // as jls(8) printed them: four with vnet=new ip4=inherit ip6=inherit, one with ip4.addr=10.9.0.2
    let mut seen = Vec::new();
    for line in JLS.lines() {
        let parameters: BTreeMap<&str, &str> = line.split(' ').filter_map(|word| word.split_once('=')).collect();
        let jailsys = |name| ["disable", "new", "inherit"].iter().position(|word| *word == parameters[name]);
        let jailsys = |name| jailsys(name).map(|number| number as i32);
        let addresses: Vec<IpAddr> = parameters["ip4.addr"].parse().into_iter().collect();
        let vnet = parameters["vnet"] == "new";
        seen.push((vnet, inherits(vnet, [jailsys("ip4"), jailsys("ip6")], &addresses)));
    }
    assert_eq!(
        seen,
        [(true, [false; 2]), (true, [false; 2]), (true, [false; 2]), (true, [false; 2]), (false, [false; 2])]
    );

    let inherit = Some(JAIL_SYS_INHERIT);
    assert_eq!(inherits(false, [inherit, inherit], &[]), [true, true]);
    assert_eq!(inherits(false, [inherit, Some(0)], &[]), [true, false]);
    // a kernel without IPv6
    assert_eq!(inherits(false, [inherit, None], &[]), [true, false]);
    // a jail in flat, which inherits what flat has
    assert_eq!(inherits(false, [inherit, inherit], &["10.9.0.2".parse().unwrap()]), [false, true]);
}

/// Every parser on `buffer`: what they answer does not matter, only that they do.
fn parse_all(buffer: &[u8]) {
    for family in Family::ALL {
        let _ = default_route(buffer, family);
    }
    if let Ok(links) = links(buffer) {
        let _ = reachable(&links);
    }
    let _ = (tcp_listeners(buffer), udp_listeners(buffer), sctp_listeners(buffer));
    let _ = (boottime(buffer), integer(buffer), jail_addresses(buffer, buffer));
}

fn recording() -> impl Strategy<Value = Vec<u8>> {
    let all = [ROUTE_INET, ROUTE_INET6, IFLISTL, TCP_PCBLIST, UDP_PCBLIST, BOOTTIME];
    prop::sample::select(all.map(<[u8]>::to_vec).to_vec())
}

/// The head of a record: bytes that make the parsers go on, so that arbitrary ones follow.
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

    /// A cut answer is an error or tells less; it never tells something else.
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
        prop_assert!(default_route(part, Family::Inet).map_or(true, |route| route.is_none_or(|name| name == "em0")));
    }
}
