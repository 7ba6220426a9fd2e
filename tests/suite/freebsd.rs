//! What decodes the results of FreeBSD's kernel, with recordings of FreeBSD 15.1 (tests/host), compared with what its own tools
//! printed of the same moment, and with arbitrary input.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kport::deadline::Deadline;
use kport::error::{Error, Kind, Result};
use kport::host::freebsd::jail::{self, Features, MOST_ADDRESSES, addresses, inherits};
use kport::host::freebsd::report::{self, Answer, STOP_CHECK, head, pass};
use kport::host::freebsd::rtsock::{Link, Route, add_gateways, default_route, links, named, prefix, reachable, router};
use kport::host::freebsd::socket::{
    arguments, fibs_of, jid, owners, sctp_listeners, stopped, tcp_listeners, udp_listeners, udp_sockets_at,
};
use kport::host::freebsd::{Parameter, integer, random_id};
use kport::host::{Gateway, Listener, Router};
use kport::net::{Family, Interface, PerFamily, Protocol};
use proptest::prelude::*;

const ROUTE_INET: &[u8] = include_bytes!("../host/route-inet.bin");
const ROUTE_INET6: &[u8] = include_bytes!("../host/route-inet6.bin");
const IFLISTL: &[u8] = include_bytes!("../host/iflistl.bin");
const TCP_PCBLIST: &[u8] = include_bytes!("../host/tcp-pcblist.bin");
const UDP_PCBLIST: &[u8] = include_bytes!("../host/udp-pcblist.bin");
const NETSTAT_RN: &str = include_str!("../host/netstat-rn.txt");
const NETSTAT_AN: &str = include_str!("../host/netstat-an.txt");
const IFCONFIG_A: &str = include_str!("../host/ifconfig-a.txt");
const JLS: &str = include_str!("../host/jls.txt");

// sizes and offsets of FreeBSD's headers (tests/host/layout.c), not those of the library: a field in a wrong place shows
const RTM_VERSION: u8 = 5;
const RTM_GET: u8 = 4;
const RTM_NEWADDR: u8 = 12;
const RTM_IFINFO: u8 = 14;
const RTM_FLAGS: usize = 8;
const IFM_FLAGS: usize = 8;
const IFM_INDEX: usize = 12;
const IFF_UP: u32 = 1;
const XINPGEN: usize = 64;
const XINPCB: usize = 400;
const XTCPCB: usize = 744;
const XT_INP: usize = 8;
const IE_FPORT: usize = 252;
const IE_LPORT: usize = 254;
const INP_FLAGS: usize = 356;
const INP_ANONPORT: u32 = 0x40;
const INP_VFLAG: usize = 392;
const INP_IPV4: u8 = 1;
const INP_IPV6: u8 = 2;
const XSCTP_INPCB: usize = 160;
const XSCTP_LADDR: usize = 168;
const XSCTP_TCB: usize = 264;
const XSCTP_RADDR: usize = 204;
const SCTP_PCB_FLAGS_BOUNDALL: u32 = 4;
const SCTP_PCB_FLAGS_ACCEPTING: u32 = 8;
const XFILE: usize = 128;
const KINFO_PROC: usize = 1088;
const SSTOP: u8 = 4;
const JAIL_SYS_NEW: i32 = 1;
const JAIL_SYS_INHERIT: i32 = 2;

const BOTH: PerFamily<bool> = PerFamily { inet: true, inet6: true };

/// The number at an offset.
fn u32_at(buffer: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(buffer[offset..][..4].try_into().unwrap())
}

// ---- routes and interfaces

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

/// With addresses that have no flags.
fn usual(links: &[Link]) -> Vec<IpAddr> {
    reachable(links, |_, _| 0)
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
    assert_eq!(usual(&links(IFLISTL).unwrap()), expected);
}

/// fd00::1 and fd01::1 have flags.
#[test]
fn a_preferred_address_comes_first() {
    let links = links(IFLISTL).unwrap();
    let order = |first, second| {
        let flags = |_: &str, address: Ipv6Addr| match address.to_string().as_str() {
            "fd00::1" => first,
            "fd01::1" => second,
            _ => 0,
        };
        let found = reachable(&links, flags).into_iter().filter(IpAddr::is_ipv6);
        found.map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
    };
    const IN6_IFF_TENTATIVE: u32 = 0x02;
    const IN6_IFF_DUPLICATED: u32 = 0x04;
    const IN6_IFF_DETACHED: u32 = 0x08;
    const IN6_IFF_DEPRECATED: u32 = 0x10;
    const IN6_IFF_TEMPORARY: u32 = 0x80;
    assert_eq!(order(0, 0), "2001:db8::1 fd00::1 fd01::1");
    for (before, after) in [
        (0, IN6_IFF_TEMPORARY),
        (IN6_IFF_TEMPORARY, IN6_IFF_DEPRECATED),
        (IN6_IFF_TEMPORARY, IN6_IFF_TEMPORARY | IN6_IFF_DEPRECATED),
        (IN6_IFF_DEPRECATED, IN6_IFF_TENTATIVE),
        (IN6_IFF_DEPRECATED, IN6_IFF_DUPLICATED),
        (IN6_IFF_DEPRECATED, IN6_IFF_DETACHED | IN6_IFF_DEPRECATED),
    ] {
        assert_eq!(order(before, after), "2001:db8::1 fd00::1 fd01::1", "{before} {after}");
        assert_eq!(order(after, before), "2001:db8::1 fd01::1 fd00::1", "{before} {after}");
    }
}

/// Root of a jail cannot hide its addresses in this way.
#[test]
fn an_interface_with_a_name_that_is_not_text() {
    let at = IFLISTL.windows(7).position(|bytes| bytes == b"bridge0").unwrap();
    let mut buffer = IFLISTL.to_vec();
    buffer[at] = 0xff;
    assert_eq!(usual(&links(&buffer).unwrap()), usual(&links(IFLISTL).unwrap()));
    let odd = links(&buffer).unwrap().into_iter().find(|link| link.name.ends_with("ridge0")).unwrap();
    assert_eq!(odd.with_groups(vec![]), None);
}

/// The recording, with one interface down.
#[test]
fn an_interface_that_is_down_has_no_reachable_address() {
    let before = links(IFLISTL).unwrap();
    let down = before.iter().find(|link| link.name == "bridge0").unwrap();
    let mut buffer = IFLISTL.to_vec();
    let u16_at = |offset: usize| u16::from_ne_bytes([IFLISTL[offset], IFLISTL[offset + 1]]);
    let mut at = 0;
    while at < IFLISTL.len() {
        if IFLISTL[at + 3] == RTM_IFINFO && u16_at(at + IFM_INDEX) == down.index {
            let flags = down.flags & !IFF_UP;
            buffer[at + IFM_FLAGS..][..4].copy_from_slice(&flags.to_ne_bytes());
        }
        at += usize::from(u16_at(at));
    }
    let expected: Vec<IpAddr> =
        usual(&before).into_iter().filter(|a| down.addresses.iter().all(|net| net.addr() != *a)).collect();
    assert!(expected.len() < usual(&before).len());
    assert_eq!(usual(&links(&buffer).unwrap()), expected);
}

/// The Netif and Gateway columns of the default route in the part of netstat(1) that starts with `heading`.
fn netstat_default(heading: &str) -> Option<(&'static str, Option<IpAddr>)> {
    let mut lines = NETSTAT_RN.lines().skip_while(|line| *line != heading);
    let line = lines.find(|line| line.starts_with("default")).unwrap();
    let mut columns = line.split_whitespace();
    // a link-local address has its zone
    let gateway = columns.nth(1).unwrap().split('%').next().unwrap().parse().ok();
    columns.nth(3).map(|netif| (netif, gateway))
}

#[test]
fn default_route_as_netstat_prints_it() {
    for (table, family, heading) in
        [(ROUTE_INET, Family::Inet, "Internet:"), (ROUTE_INET6, Family::Inet6, "Internet6:")]
    {
        let (netif, gateway) = netstat_default(heading).unwrap();
        assert_eq!(default_route(table, family).unwrap(), Some(Route { default: true, name: netif, gateway }));
        assert_eq!(router(table, family).unwrap(), Router::At(gateway.unwrap()));
    }
    assert_eq!(netstat_default("Internet:").unwrap().0, "em0");
}

#[test]
fn routers_as_netstat_prints_them() {
    let mut found = vec![];
    add_gateways(ROUTE_INET, Family::Inet, 0, &mut found).unwrap();
    add_gateways(ROUTE_INET6, Family::Inet6, 3, &mut found).unwrap();
    let gateway = |address: &str, fib| Gateway {
        interface: "em0".parse().unwrap(),
        address: address.parse().unwrap(),
        fib,
        default: true,
    };
    assert_eq!(found, [gateway("192.0.2.100", 0), gateway("2001:db8::100", 3)]);
}

#[test]
fn no_default_route() {
    assert_eq!(default_route(&[], Family::Inet).unwrap(), None);
    assert_eq!(router(&[], Family::Inet).unwrap(), Router::Missing);
    // the other family's table
    assert_eq!(default_route(ROUTE_INET, Family::Inet6).unwrap(), None);
    // the first message is the default route: up, a gateway, static
    assert_eq!(u32_at(ROUTE_INET, RTM_FLAGS), 0x803);
    // RTF_REJECT, RTF_BLACKHOLE
    for refusing in [0x8, 0x1000] {
        let mut table = ROUTE_INET.to_vec();
        table[RTM_FLAGS..RTM_FLAGS + 4].copy_from_slice(&(0x803_u32 | refusing).to_ne_bytes());
        assert_eq!(default_route(&table, Family::Inet).unwrap(), None);
    }
}

#[test]
fn a_version_that_is_not_known_is_refused() {
    let mut table = ROUTE_INET.to_vec();
    table[2] = 6;
    assert_eq!(default_route(&table, Family::Inet).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn an_interface_that_pf_cannot_name_is_reported() {
    assert_eq!(named("em0").unwrap().as_str(), "em0");
    assert!(named("em 0").unwrap_err().message().contains("rename it"));
}

// ---- sockets and processes

/// The output of netstat(1): protocol and local end of the listening sockets.
fn netstat() -> Vec<(Protocol, PerFamily<bool>, String)> {
    let mut found = Vec::new();
    for line in NETSTAT_AN.lines().skip(2) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (protocol, families) = match words[0] {
            "tcp4" => (Protocol::Tcp, PerFamily::only(Family::Inet)),
            "tcp6" => (Protocol::Tcp, PerFamily::only(Family::Inet6)),
            "udp4" => (Protocol::Udp, PerFamily::only(Family::Inet)),
            "udp6" => (Protocol::Udp, PerFamily::only(Family::Inet6)),
            other => panic!("{other}"),
        };
        if words[4] == "*.*" && (protocol == Protocol::Udp || words[5] == "LISTEN") {
            found.push((protocol, families, words[3].to_owned()));
        }
    }
    found
}

fn as_netstat(l: &Listener) -> (Protocol, PerFamily<bool>, String) {
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
    assert_eq!(both, Listener { protocol: Protocol::Udp, families: BOTH, address: None, port: 123 });
    // a client that is not connected: the kernel chose its port
    let mut asking = list.clone();
    asking[XINPGEN + XINPCB + INP_FLAGS] |= 0x40;
    assert_eq!(udp_listeners(&asking).unwrap().len(), 1);
    // connected: not listening
    list[XINPGEN + XINPCB + IE_FPORT] = 1;
    assert_eq!(udp_listeners(&list).unwrap().len(), 1);
}

/// In the recording one tcp socket is a client's, connected from port 45348; the processes chose the ports of the
/// others.
#[test]
fn the_kernel_chose_the_port_of_a_client() {
    let ports: Vec<(u16, bool)> = TCP_PCBLIST[XINPGEN..]
        .chunks_exact(XTCPCB)
        .map(|record| &record[XT_INP..])
        .map(|socket| {
            let port = u16::from_be_bytes([socket[IE_LPORT], socket[IE_LPORT + 1]]);
            (port, u32_at(socket, INP_FLAGS) & INP_ANONPORT != 0)
        })
        .collect();
    let by_the_kernel: Vec<u16> = ports.iter().filter(|(_, chosen)| *chosen).map(|(port, _)| *port).collect();
    assert_eq!((ports.len(), by_the_kernel), (6, vec![45348]));
}

#[test]
fn structs_of_another_size_are_refused() {
    for (at, size) in [(0, 72u64), (XINPGEN, 752), (XINPGEN, 0), (XINPGEN, u64::MAX)] {
        let mut list = TCP_PCBLIST.to_vec();
        list[at..at + 8].copy_from_slice(&size.to_ne_bytes());
        assert_eq!(tcp_listeners(&list).unwrap_err().kind(), Kind::Unsupported, "{at} {size}");
    }
    assert!(udp_listeners(TCP_PCBLIST).is_err());
}

/// A result of sctp_sysctl_handle_assoclist(), in the order in which it writes.
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
                    record[..2].copy_from_slice(&[16, 2]);
                    record[4..8].copy_from_slice(&v4.octets());
                }
                IpAddr::V6(v6) => {
                    record[..2].copy_from_slice(&[28, 28]);
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
        Listener { protocol: Protocol::Sctp, families: BOTH, address: None, port: 5000 },
        Listener {
            protocol: Protocol::Sctp,
            families: PerFamily::only(Family::Inet),
            address: Some("192.0.2.7".parse().unwrap()),
            port: 5001,
        },
    ];
    assert_eq!(sctp_listeners(&list.0).unwrap(), expected);
    for cut in 0..list.0.len() {
        assert!(sctp_listeners(&list.0[..cut]).is_err(), "{cut}");
    }
}

/// A struct kinfo_proc.
fn process(jid: i32, fib: u32) -> Vec<u8> {
    let mut process = vec![0; KINFO_PROC];
    process[..4].copy_from_slice(&(KINFO_PROC as u32).to_ne_bytes());
    process[592..][..4].copy_from_slice(&jid.to_ne_bytes());
    process[584..][..4].copy_from_slice(&fib.to_ne_bytes());
    process
}

fn file(pid: i32, data: u64) -> [u8; XFILE] {
    let mut record = [0; XFILE];
    record[..8].copy_from_slice(&(XFILE as u64).to_ne_bytes());
    record[8..][..4].copy_from_slice(&pid.to_ne_bytes());
    record[56..][..8].copy_from_slice(&data.to_ne_bytes());
    record
}

#[test]
fn a_socket_leads_to_its_processes() {
    // a recording of FreeBSD 15.1: syslogd(8) had two sockets on port 514
    let port = udp_listeners(UDP_PCBLIST).unwrap()[0].port;
    let sockets = udp_sockets_at(UDP_PCBLIST, port).unwrap();
    assert!(!sockets.is_empty() && sockets.iter().all(|socket| *socket != 0), "{sockets:x?}");
    assert_eq!(udp_sockets_at(UDP_PCBLIST, 1).unwrap(), [0; 0]);
    assert!(udp_sockets_at(&UDP_PCBLIST[..XINPGEN + XINPCB - 1], port).is_err());
    let files = [file(7, sockets[0]), file(8, 5), file(9, sockets[0]), file(7, sockets[0])].concat();
    assert_eq!(owners(&files, &sockets).unwrap().into_iter().collect::<Vec<_>>(), [7, 9]);
    assert!(owners(&[], &sockets).unwrap().is_empty());
}

#[test]
fn another_layout_is_an_error() {
    let mut odd = file(7, 5);
    odd[0] = 120;
    for answer in [&odd[..], &file(7, 5)[..120]] {
        assert_eq!(owners(answer, &[5]).unwrap_err().kind(), Kind::Unsupported);
    }
    let mut process = process(6, 0);
    process[388] = SSTOP;
    assert_eq!((jid(&process).unwrap(), stopped(&process).unwrap()), (6, true));
    assert!(jid(&process[..1000]).is_err() && stopped(&process[..1000]).is_err() && jid(&[]).is_err());
}

#[test]
fn the_fib_of_a_jail_is_that_of_most_processes() {
    let all = [process(0, 0), process(6, 0), process(6, 1), process(6, 1), process(7, 2), process(7, 1)].concat();
    assert_eq!(fibs_of(&all).unwrap(), [(0, 0), (6, 1), (7, 1)].into());
    assert!(fibs_of(&all[..all.len() - 1]).is_err());
}

#[test]
fn arguments_end_with_nuls() {
    assert_eq!(arguments(b"conmon\0-c\0id\0"), ["conmon", "-c", "id"]);
    assert_eq!(arguments(b"sh\0\0"), ["sh", ""]);
    assert_eq!(arguments(b""), [""; 0]);
}

// ---- jails

const NONE: PerFamily<bool> = PerFamily { inet: false, inet6: false };

#[test]
fn addresses_of_a_jail() {
    let found = addresses(&[10, 9, 0, 2, 10, 9, 0, 3], &Ipv6Addr::LOCALHOST.octets()).unwrap();
    assert_eq!(found, ["10.9.0.2", "10.9.0.3", "::1"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert!(addresses(&[10, 9, 0], &[]).is_err());
    assert!(addresses(&[], &[0; 17]).is_err());
}

#[test]
fn a_jail_inherits_the_host_s_addresses() {
    // as printed by jls(8): four with vnet=new ip4=inherit ip6=inherit, one with ip4.addr=10.9.0.2
    let mut seen = Vec::new();
    for line in JLS.lines() {
        let parameters: BTreeMap<&str, &str> = line.split(' ').filter_map(|word| word.split_once('=')).collect();
        let jailsys = |name| ["disable", "new", "inherit"].iter().position(|word| *word == parameters[name]);
        let jailsys = |name| jailsys(name).map(|number| number as i32);
        let own: Vec<IpAddr> = parameters["ip4.addr"].parse().into_iter().collect();
        let vnet = parameters["vnet"] == "new";
        seen.push((vnet, inherits(vnet, PerFamily { inet: jailsys("ip4"), inet6: jailsys("ip6") }, &own)));
    }
    assert_eq!(seen, [(true, NONE), (true, NONE), (true, NONE), (true, NONE), (false, NONE)]);

    let inherit = Some(JAIL_SYS_INHERIT);
    let jailsys = |inet, inet6| PerFamily { inet, inet6 };
    assert_eq!(inherits(false, jailsys(inherit, inherit), &[]), PerFamily { inet: true, inet6: true });
    assert_eq!(inherits(false, jailsys(inherit, Some(0)), &[]), PerFamily::only(Family::Inet));
    // a kernel without IPv6
    assert_eq!(inherits(false, jailsys(inherit, None), &[]), PerFamily::only(Family::Inet));
    // a jail in flat that inherits the addresses of flat
    assert_eq!(
        inherits(false, jailsys(inherit, inherit), &["10.9.0.2".parse().unwrap()]),
        PerFamily::only(Family::Inet6)
    );
}

/// A jail of jail_get(2): jid, name, parent, vnet, ip4, its IPv4 addresses.
#[derive(Clone)]
struct Recorded {
    jid: i32,
    name: &'static [u8],
    parent: i32,
    vnet: i32,
    addresses: Vec<[u8; 4]>,
}

impl Recorded {
    fn new(jid: i32, name: &'static [u8]) -> Recorded {
        Recorded { jid, name, parent: 0, vnet: 0, addresses: vec![] }
    }
}

/// kern_jail_get() of kern/kern_jail.c, as far as it matters here.
fn kernel(jails: Vec<Recorded>) -> impl Fn(&mut Vec<Parameter>) -> Result<Option<i32>> {
    move |parameters| {
        let (key, value) = parameters[0].clone();
        let number = || i32::from_ne_bytes(value.as_slice().try_into().unwrap());
        let found = match key.to_str().unwrap() {
            "jid" => jails.iter().find(|jail| jail.jid == number()),
            "lastjid" => jails.iter().find(|jail| jail.jid > number()),
            "name" => jails.iter().find(|jail| [jail.name, &[0]].concat() == value),
            other => panic!("{other}"),
        };
        let Some(jail) = found else { return Ok(None) };
        for (name, value) in parameters.iter_mut().skip(1) {
            let told = match name.to_str().unwrap() {
                "name" => [jail.name, &[0]].concat(),
                "path" => [b"/jails/", jail.name, &[0]].concat(),
                "parent" => jail.parent.to_ne_bytes().to_vec(),
                "dying" => 0_i32.to_ne_bytes().to_vec(),
                "vnet" => jail.vnet.to_ne_bytes().to_vec(),
                "ip4" => JAIL_SYS_INHERIT.to_ne_bytes().to_vec(),
                "ip4.addr" => jail.addresses.concat(),
                other => panic!("a kernel without {other}"),
            };
            if told.len() > value.len() {
                return Err(Error::new(Kind::System, "jail_get: Invalid argument"));
            }
            *value = told;
        }
        Ok(Some(jail.jid))
    }
}

const FEATURES: Features = Features { families: PerFamily { inet: true, inet6: false }, vimage: true };

#[test]
fn jails_in_jails() {
    let kernel = kernel(vec![
        Recorded { vnet: JAIL_SYS_NEW, ..Recorded::new(1, b"web") },
        Recorded { parent: 1, ..Recorded::new(2, b"web.in") },
        Recorded { addresses: vec![[10, 9, 0, 2]], ..Recorded::new(5, b"flat") },
        Recorded::new(6, b"hosty"),
    ]);
    let found = jail::all(&kernel, FEATURES).unwrap();
    assert_eq!(found.skipped, []);
    let seen: Vec<_> =
        found.jails.iter().map(|jail| (jail.jid, jail.name.as_str(), jail.vnet, jail.inherits)).collect();
    let inherits = PerFamily::only(Family::Inet);
    assert_eq!(
        seen,
        [(1, "web", true, NONE), (2, "web.in", true, NONE), (5, "flat", false, NONE), (6, "hosty", false, inherits)]
    );
    assert_eq!(found.jails.iter().map(|jail| jail.stack).collect::<Vec<_>>(), [1, 1, 0, 0]);
    assert_eq!(found.jails[0].path, "/jails/web");
    assert_eq!(found.jails[2].addresses, ["10.9.0.2".parse::<IpAddr>().unwrap()]);
    for name in ["flat", "5"] {
        assert_eq!(jail::named(&kernel, FEATURES, name).unwrap().as_ref(), Some(&found.jails[2]));
    }
    for name in ["", "05", "-1", "7", "fla", "flat\0"] {
        assert_eq!(jail::named(&kernel, FEATURES, name).unwrap(), None, "{name:?}");
    }
}

#[test]
fn a_jail_that_cannot_be_read_does_not_hide_others() {
    let too_many = vec![[10, 0, 0, 1]; MOST_ADDRESSES + 1];
    let jails = kernel(vec![
        Recorded::new(1, b"a"),
        Recorded::new(2, b"a.\xff\x1b"),
        Recorded { addresses: too_many, ..Recorded::new(3, b"many") },
        Recorded::new(4, b"d"),
    ]);
    let found = jail::all(&jails, FEATURES).unwrap();
    assert_eq!(found.jails.iter().map(|jail| jail.jid).collect::<Vec<_>>(), [1, 4]);
    let skipped: Vec<_> =
        found.skipped.iter().map(|jail| (jail.jid, jail.name.as_deref(), jail.why.as_str())).collect();
    assert_eq!(
        skipped,
        [
            (2, None, r#"the name of jail 2, "a.\xff\x1b", is not UTF-8: rename it"#),
            (3, Some("many"), "jail_get: Invalid argument"),
        ]
    );
    // a lookup of that jail reports the error
    assert_eq!(jail::named(&jails, FEATURES, "2").unwrap_err().kind(), Kind::Unsupported);
    assert!(jail::named(&jails, FEATURES, "d").unwrap().is_some());
}

#[test]
fn a_kernel_that_refuses_is_an_error() {
    let refused = |_: &mut Vec<Parameter>| Err(Error::new(Kind::Permission, "jail_get: Operation not permitted"));
    assert_eq!(jail::all(&refused, FEATURES).unwrap_err().kind(), Kind::Permission);
}

// ---- the report of a child

/// Reads what `parts` send, with a pause between them; the other end stays open.
fn read_parts(parts: &[&[u8]], most: usize, time: Duration) -> Result<Answer> {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in parts {
                writer.write_all(part).unwrap();
                std::thread::yield_now();
            }
        });
        report::read(reader.as_fd(), most, Deadline::after(time), &|| false)
    })
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_report_may_come_in_pieces_without_an_end_of_file() {
    let whole = [head(3, 0, 5).as_slice(), b"abcde"].concat();
    for cut in 0..whole.len() {
        let (a, b) = whole.split_at(cut);
        assert!(matches!(read_parts(&[a, b], 5, LONG), Ok(Answer::Done(bytes, None)) if bytes == b"abcde"));
    }
    assert!(matches!(read_parts(&[&head(0, 0, 0)], 0, LONG), Ok(Answer::Done(bytes, None)) if bytes.is_empty()));
}

#[test]
fn a_descriptor_is_passed() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let (mut here, there) = UnixStream::pair().unwrap();
    pass(writer.as_fd(), 5, 0, there.as_fd()).unwrap();
    drop(there);
    let answer = report::read(reader.as_fd(), 0, Deadline::after(LONG), &|| false);
    let Ok(Answer::Done(bytes, Some(passed))) = answer else { panic!("{answer:?}") };
    assert!(bytes.is_empty());
    // it is the other end, and no program that this process runs inherits it
    assert!(rustix::io::fcntl_getfd(&passed).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    here.write_all(b"x").unwrap();
    assert_eq!(rustix::io::read(&passed, &mut [0; 2]), Ok(1));
}

#[test]
fn a_failure_names_its_step() {
    let answer = read_parts(&[&head(2, 1, 0)], 0, LONG);
    assert!(matches!(answer, Ok(Answer::Failed(2, 1))), "{answer:?}");
}

#[test]
fn a_length_is_checked() {
    for (length, most) in [(6, 5), (usize::MAX, 5)] {
        let error = read_parts(&[&head(0, 0, length)], most, LONG).unwrap_err();
        assert_eq!(error.kind(), Kind::Internal);
    }
    let more = [head(0, 0, 1).as_slice(), b"ab"].concat();
    assert_eq!(read_parts(&[&more], 5, LONG).unwrap_err().kind(), Kind::Internal);
}

#[test]
fn a_child_that_dies_or_hangs() {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.write_all(&head(0, 0, 5)).unwrap();
    let until = |time, is_stopped: &dyn Fn() -> bool| {
        report::read(reader.as_fd(), 5, Deadline::after(time), is_stopped).unwrap_err().kind()
    };
    assert_eq!(until(Duration::ZERO, &|| false), Kind::Busy);
    // root of the jail has stopped it
    assert_eq!(until(LONG, &|| true), Kind::Unavailable);
    // or it was only slow
    let asked = std::cell::Cell::new(0);
    assert_eq!(until(2 * STOP_CHECK, &|| asked.replace(asked.get() + 1) > 5), Kind::Busy);
    drop(writer);
    assert_eq!(until(LONG, &|| false), Kind::Unavailable);
}

// ---- single sysctls

#[test]
fn which_boot() {
    assert_eq!(random_id(&[0, 0xa1]), "00a1");
}

#[test]
fn integers() {
    let integer = |answer: &[u8]| integer("kern.one", answer);
    assert_eq!(integer(&(-1i32).to_ne_bytes()), Ok(-1));
    assert_eq!(integer(&(1u64 << 40).to_ne_bytes()), Ok(1 << 40));
    assert_eq!(integer(&[1]), Ok(1));
    assert_eq!(integer(&0xffffu16.to_ne_bytes()), Ok(0xffff));
    assert_eq!(integer(b"").unwrap_err().kind(), Kind::Argument);
    assert_eq!(integer(b"amd64").unwrap_err().message(), "sysctl kern.one is not an integer");
}

// ---- anything else

/// Every parser on `buffer`: what they answer does not matter, only that they do.
fn parse_all(buffer: &[u8]) {
    for family in Family::ALL {
        let _ = router(buffer, family);
    }
    if let Ok(links) = links(buffer) {
        let _ = reachable(&links, |_, _| 0);
    }
    let _ = (tcp_listeners(buffer), udp_listeners(buffer), sctp_listeners(buffer));
    let _ = (integer("kern.any", buffer), addresses(buffer, buffer));
}

fn recording() -> impl Strategy<Value = Vec<u8>> {
    let all = [ROUTE_INET, ROUTE_INET6, IFLISTL, TCP_PCBLIST, UDP_PCBLIST];
    prop::sample::select(all.map(<[u8]>::to_vec).to_vec())
}

/// The head of a record: bytes that the parsers accept, so that they read the arbitrary ones after it.
fn start() -> impl Strategy<Value = Vec<u8>> {
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
    fn any_records_are_survived(parts in prop::collection::vec((start(), prop::collection::vec(any::<u8>(), 0..400)), 0..8)) {
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
        prop_assert!(default_route(part, Family::Inet).map_or(true, |route| route.is_none_or(|route| route.name == "em0")));
    }
}
