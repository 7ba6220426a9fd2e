//! The listening sockets of the host and of the jails on its network stack: the `pcblist` sysctls, and
//! `net.inet.sctp.assoclist`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::buffer::{bytes, malformed, u8_at, u16_at, u32_at, u64_at};
use super::rtsock::address;
use crate::error::Result;
use crate::host::Listener;
use crate::net::{Family, PerFamily, Protocol};

/// Every listening tcp and sctp socket, and every udp socket that is bound and not connected.
#[cfg(target_os = "freebsd")]
pub fn listeners() -> Result<Vec<Listener>> {
    let mut found = Vec::new();
    type Reading = fn(&[u8]) -> Result<Vec<Listener>>;
    let lists: [(&str, Reading); 3] = [
        ("net.inet.tcp.pcblist", tcp_listeners),
        ("net.inet.udp.pcblist", udp_listeners),
        // exists when sctp(4) is loaded
        ("net.inet.sctp.assoclist", sctp_listeners),
    ];
    for (name, read) in lists {
        if let Some(answer) = super::sysctl::named(name)? {
            found.extend(read(&answer)?);
        }
    }
    Ok(found)
}

// ---- pcblist: a struct xinpgen, one record for each socket, a struct xinpgen

/// sizeof (struct xinpgen)
pub const XINPGEN: usize = 64;
/// sizeof (struct xinpcb), netinet/in_pcb.h
pub const XINPCB: usize = 400;
/// offsetof (struct xinpcb, inp_inc.inc_ie), and the offsets in struct in_endpoints there
const IN_ENDPOINTS: usize = 252;
const IE_FPORT: usize = IN_ENDPOINTS;
const IE_LPORT: usize = IN_ENDPOINTS + 2;
const IE_LADDR: usize = IN_ENDPOINTS + 20;
/// an IPv4 address is in the last 4 of the 16 bytes (struct in_addr_4in6)
const IE_LADDR4: usize = IE_LADDR + 12;
/// offsetof (struct xinpcb, xi_socket.xso_so)
const XSO_SO: usize = 16;
const INP_FLAGS: usize = 356;
/// The kernel chose the port (in_pcbbind() of netinet/in_pcb.c, in6_pcbsetport() of netinet6/in6_pcb.c).
const INP_ANONPORT: u32 = 0x40;
const INP_VFLAG: usize = 392;
const INP_IPV4: u8 = 0x1;
const INP_IPV6: u8 = 0x2;
/// sizeof (struct xtcpcb), netinet/tcp_var.h
pub const XTCPCB: usize = 744;
const XT_INP: usize = 8;
const T_STATE: usize = 568;
/// netinet/tcp_fsm.h
const TCPS_LISTEN: u32 = 1;

/// The records of a pcblist, each of `size` bytes. Every struct in it starts with its own length.
fn records(buffer: &[u8], size: usize) -> Option<Vec<&[u8]>> {
    let length = |rest| u64_at(rest, 0).and_then(|length| usize::try_from(length).ok());
    if length(buffer)? != XINPGEN {
        return None;
    }
    let mut rest = buffer.get(XINPGEN..)?;
    let mut found = Vec::new();
    while length(rest)? != XINPGEN {
        if length(rest)? != size {
            return None;
        }
        let (record, after) = rest.split_at_checked(size)?;
        found.push(record);
        rest = after;
    }
    rest.get(..XINPGEN).map(|_| found)
}

/// The local end of a struct xinpcb; `None` if it is bound to no port.
fn listener(xinpcb: &[u8], protocol: Protocol) -> Option<Option<Listener>> {
    let vflag = u8_at(xinpcb, INP_VFLAG)?;
    let port = u16::from_be_bytes(bytes(xinpcb, IE_LPORT)?);
    let families = PerFamily { inet: vflag & INP_IPV4 != 0, inet6: vflag & INP_IPV6 != 0 };
    let address: IpAddr = match families {
        // a socket of both families has an IPv6 address: it must be ::, or the socket would be of one family
        PerFamily { inet6: true, .. } => Ipv6Addr::from(bytes::<16>(xinpcb, IE_LADDR)?).into(),
        PerFamily { inet: true, .. } => Ipv4Addr::from(bytes::<4>(xinpcb, IE_LADDR4)?).into(),
        // the kernel clears both while it tears a socket down
        _ => return Some(None),
    };
    Some((port != 0).then(|| listening(protocol, families, address, port)))
}

fn listening(protocol: Protocol, families: PerFamily<bool>, address: IpAddr, port: u16) -> Listener {
    if address.is_unspecified() {
        return Listener { protocol, families, address: None, port };
    }
    Listener { protocol, families: PerFamily::only(Family::of(address)), address: Some(address), port }
}

/// The sockets in TCPS_LISTEN in the result of `net.inet.tcp.pcblist`.
pub fn tcp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    let read = || {
        let mut found = Vec::new();
        for record in records(buffer, XTCPCB)? {
            if u32_at(record, T_STATE)? == TCPS_LISTEN {
                found.extend(listener(record.get(XT_INP..)?, Protocol::Tcp)?);
            }
        }
        Some(found)
    };
    read().ok_or_else(|| malformed("list of tcp sockets"))
}

/// The bound, unconnected sockets in the result of `net.inet.udp.pcblist`. A socket with a port that the kernel chose
/// is a client's: nothing else knows the port.
pub fn udp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    let read = || {
        let mut found = Vec::new();
        for record in records(buffer, XINPCB)? {
            if u16_at(record, IE_FPORT)? == 0 && u32_at(record, INP_FLAGS)? & INP_ANONPORT == 0 {
                found.extend(listener(record, Protocol::Udp)?);
            }
        }
        Some(found)
    };
    read().ok_or_else(|| malformed("list of udp sockets"))
}

/// The kernel's addresses of the udp sockets that are bound to `port` and not connected: xi_socket.xso_so.
pub fn udp_sockets_at(buffer: &[u8], port: u16) -> Result<Vec<u64>> {
    let read = || {
        let mut found = Vec::new();
        for record in records(buffer, XINPCB)? {
            if u16_at(record, IE_FPORT)? == 0 && u16::from_be_bytes(bytes(record, IE_LPORT)?) == port {
                found.push(u64_at(record, XSO_SO)?);
            }
        }
        Some(found)
    };
    read().ok_or_else(|| malformed("list of udp sockets"))
}

// ---- net.inet.sctp.assoclist: endpoints, each with its addresses and associations; each list ends with `last`

/// sizeof of netinet/sctp_uio.h
const XSCTP_INPCB: usize = 160;
const XSCTP_LADDR: usize = 168;
const XSCTP_TCB: usize = 264;
const XSCTP_RADDR: usize = 204;
/// offsetof (struct xsctp_inpcb, ...)
const XSCTP_LAST: usize = 0;
const XSCTP_FLAGS: usize = 4;
const XSCTP_LOCAL_PORT: usize = 32;
/// the other three start with a 28-byte socket address, then `last`
const XSCTP_OTHER_LAST: usize = 28;
/// netinet/sctp.h
const SCTP_PCB_FLAGS_BOUNDALL: u32 = 0x4;
const SCTP_PCB_FLAGS_ACCEPTING: u32 = 0x8;

/// The records up to the `last` one; `rest` becomes what follows.
fn until_last<'a>(rest: &mut &'a [u8], size: usize) -> Option<Vec<&'a [u8]>> {
    let mut found = Vec::new();
    loop {
        let (record, after) = rest.split_at_checked(size)?;
        *rest = after;
        if u32_at(record, XSCTP_OTHER_LAST)? != 0 {
            return Some(found);
        }
        found.push(record);
    }
}

/// The listening sockets in the result of `net.inet.sctp.assoclist` (sctp_sysctl.c). An endpoint that is bound to every
/// address still lists them one by one, which shows its families.
pub fn sctp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    read_sctp(buffer).ok_or_else(|| malformed("list of sctp sockets"))
}

fn read_sctp(buffer: &[u8]) -> Option<Vec<Listener>> {
    let mut found = Vec::new();
    let mut rest = buffer;
    loop {
        let (endpoint, after) = rest.split_at_checked(XSCTP_INPCB)?;
        rest = after;
        if u32_at(endpoint, XSCTP_LAST)? != 0 {
            return Some(found);
        }
        let flags = u32_at(endpoint, XSCTP_FLAGS)?;
        let port = u16_at(endpoint, XSCTP_LOCAL_PORT)?;
        let addresses: Vec<IpAddr> = until_last(&mut rest, XSCTP_LADDR)?.into_iter().filter_map(address).collect();
        // each association: itself, its local addresses, its remote ones; the `last` one has no addresses
        loop {
            let (association, after) = rest.split_at_checked(XSCTP_TCB)?;
            rest = after;
            if u32_at(association, XSCTP_OTHER_LAST)? != 0 {
                break;
            }
            until_last(&mut rest, XSCTP_LADDR)?;
            until_last(&mut rest, XSCTP_RADDR)?;
        }
        if flags & SCTP_PCB_FLAGS_ACCEPTING == 0 || port == 0 {
            continue;
        }
        if flags & SCTP_PCB_FLAGS_BOUNDALL == 0 {
            found.extend(addresses.into_iter().map(|a| listening(Protocol::Sctp, PerFamily::default(), a, port)));
        } else {
            let families = PerFamily::each(|family| addresses.iter().any(|a| Family::of(*a) == family));
            found.push(Listener { protocol: Protocol::Sctp, families, address: None, port });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::recordings::{NETSTAT_AN, TCP_PCBLIST, UDP_PCBLIST};
    use super::super::rtsock::{AF_INET, AF_INET6};
    use super::*;
    use crate::error::Kind;

    const BOTH: PerFamily<bool> = PerFamily { inet: true, inet6: true };

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
        let ports: Vec<(u16, bool)> = records(TCP_PCBLIST, XTCPCB)
            .unwrap()
            .iter()
            .map(|record| &record[XT_INP..])
            .map(|socket| {
                let port = u16::from_be_bytes(bytes(socket, IE_LPORT).unwrap());
                (port, u32_at(socket, INP_FLAGS).unwrap() & INP_ANONPORT != 0)
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
}
