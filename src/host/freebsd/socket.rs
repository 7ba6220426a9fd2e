//! The listening sockets of the host and of the jails on its network stack (the `pcblist` sysctls, `net.inet.sctp.assoclist`), and
//! processes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::FromBytes;

use super::rtsock::address;
use super::{at, malformed};
use crate::error::Result;
use crate::host::Listener;
use crate::net::{Family, PerFamily, Protocol};

// ---- pcblist: a struct xinpgen, one record for each socket, a struct xinpgen

/// sizeof (struct xinpgen)
const XINPGEN: usize = 64;
/// sizeof (struct xinpcb), netinet/in_pcb.h
const XINPCB: usize = 400;
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
const XTCPCB: usize = 744;
const XT_INP: usize = 8;
const T_STATE: usize = 568;
/// netinet/tcp_fsm.h
const TCPS_LISTEN: u32 = 1;

/// What `read` finds in the records of a pcblist, each of `size` bytes; it returns `Some(None)` for one that does not count. Every
/// struct in the list starts with its own length.
fn records<T>(buffer: &[u8], size: usize, read: impl Fn(&[u8]) -> Option<Option<T>>) -> Option<Vec<T>> {
    let length = |rest| at::<u64>(rest, 0).and_then(|length| usize::try_from(length).ok());
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
        found.extend(read(record)?);
        rest = after;
    }
    rest.get(..XINPGEN).map(|_| found)
}

/// The local end of a struct xinpcb; `Some(None)` if it is bound to no port.
fn listener(xinpcb: &[u8], protocol: Protocol) -> Option<Option<Listener>> {
    let vflag: u8 = at(xinpcb, INP_VFLAG)?;
    let port = u16::from_be_bytes(at(xinpcb, IE_LPORT)?);
    let families = PerFamily { inet: vflag & INP_IPV4 != 0, inet6: vflag & INP_IPV6 != 0 };
    let address: IpAddr = match families {
        // a socket of both families has an IPv6 address: it must be ::, or the socket would be of one family
        PerFamily { inet6: true, .. } => Ipv6Addr::from(at::<[u8; 16]>(xinpcb, IE_LADDR)?).into(),
        PerFamily { inet: true, .. } => Ipv4Addr::from(at::<[u8; 4]>(xinpcb, IE_LADDR4)?).into(),
        // the kernel clears both while it tears a socket down
        _ => return Some(None),
    };
    Some((port != 0).then(|| Listener::bound(protocol, families, address, port)))
}

/// The sockets in TCPS_LISTEN in the result of `net.inet.tcp.pcblist`.
pub fn tcp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    let read = |record: &[u8]| match at::<u32>(record, T_STATE)? {
        TCPS_LISTEN => listener(record.get(XT_INP..)?, Protocol::Tcp),
        _ => Some(None),
    };
    records(buffer, XTCPCB, read).ok_or_else(|| malformed("list of tcp sockets"))
}

/// What `read` finds in the unconnected sockets in the result of `net.inet.udp.pcblist`.
fn udp<T>(buffer: &[u8], read: impl Fn(&[u8]) -> Option<Option<T>>) -> Result<Vec<T>> {
    let read = |record: &[u8]| if at::<u16>(record, IE_FPORT)? == 0 { read(record) } else { Some(None) };
    records(buffer, XINPCB, read).ok_or_else(|| malformed("list of udp sockets"))
}

/// The bound, unconnected udp sockets. A socket with a port that the kernel chose is a client's: nothing else knows the port.
pub fn udp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    udp(buffer, |record| match at::<u32>(record, INP_FLAGS)? & INP_ANONPORT {
        0 => listener(record, Protocol::Udp),
        _ => Some(None),
    })
}

/// The kernel's addresses of the udp sockets that are bound to `port` and not connected: xi_socket.xso_so.
pub fn udp_sockets_at(buffer: &[u8], port: u16) -> Result<Vec<u64>> {
    udp(buffer, |record| {
        let bound = u16::from_be_bytes(at(record, IE_LPORT)?) == port;
        if bound { at(record, XSO_SO).map(Some) } else { Some(None) }
    })
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

/// The next record of a list, `None` after its last one, which has its mark at `last`; `rest` becomes what follows.
fn next<'a>(rest: &mut &'a [u8], size: usize, last: usize) -> Option<Option<&'a [u8]>> {
    let (record, after) = rest.split_at_checked(size)?;
    *rest = after;
    Some((at::<u32>(record, last)? == 0).then_some(record))
}

/// The addresses up to the last record of a list of them.
fn addresses(rest: &mut &[u8], size: usize) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    while let Some(record) = next(rest, size, XSCTP_OTHER_LAST)? {
        found.extend(address(record));
    }
    Some(found)
}

/// The listening sockets in the result of `net.inet.sctp.assoclist` (sctp_sysctl.c). An endpoint that is bound to every
/// address still lists them one by one, which shows its families.
pub fn sctp_listeners(buffer: &[u8]) -> Result<Vec<Listener>> {
    read_sctp(buffer).ok_or_else(|| malformed("list of sctp sockets"))
}

fn read_sctp(mut rest: &[u8]) -> Option<Vec<Listener>> {
    let mut found = Vec::new();
    while let Some(endpoint) = next(&mut rest, XSCTP_INPCB, XSCTP_LAST)? {
        let flags = at::<u32>(endpoint, XSCTP_FLAGS)?;
        let port = at::<u16>(endpoint, XSCTP_LOCAL_PORT)?;
        let local = addresses(&mut rest, XSCTP_LADDR)?;
        // each association: itself, its local addresses, its remote ones; the last one has no addresses
        while next(&mut rest, XSCTP_TCB, XSCTP_OTHER_LAST)?.is_some() {
            addresses(&mut rest, XSCTP_LADDR)?;
            addresses(&mut rest, XSCTP_RADDR)?;
        }
        if flags & SCTP_PCB_FLAGS_ACCEPTING == 0 || port == 0 {
            continue;
        }
        if flags & SCTP_PCB_FLAGS_BOUNDALL == 0 {
            found.extend(local.into_iter().map(|a| Listener::bound(Protocol::Sctp, PerFamily::default(), a, port)));
        } else {
            let families = PerFamily::each(|family| local.iter().any(|a| Family::of(*a) == family));
            found.push(Listener { protocol: Protocol::Sctp, families, address: None, port });
        }
    }
    Some(found)
}

// ---- the processes that have a socket: kern.file, the table of all open files, and kern.proc, as in sockstat(1)

/// sizeof (struct xfile), sys/file.h, and offsets in it
const XFILE: usize = 128;
const XF_PID: usize = 8;
const XF_DATA: usize = 56;
/// sizeof (struct kinfo_proc), sys/user.h, and offsets in it
const KINFO_PROC: usize = 1088;
const KI_STAT: usize = 388;
const KI_FIBNUM: usize = 584;
const KI_JID: usize = 592;
/// sys/proc.h
const SSTOP: u8 = 4;

/// The processes in the result of `kern.file` that have one of these sockets open: one record for each file, with its
/// length.
pub fn owners(answer: &[u8], sockets: &[u64]) -> Result<BTreeSet<i32>> {
    let (records, rest) = answer.as_chunks::<XFILE>();
    let owner = |record: &[u8; XFILE]| {
        let known = at::<u64>(record, 0)? == XFILE as u64;
        let (socket, pid) = (at::<u64>(record, XF_DATA)?, at::<i32>(record, XF_PID)?);
        known.then(|| sockets.contains(&socket).then_some(pid))
    };
    let found: Option<Vec<Option<i32>>> = records.iter().map(owner).collect();
    let found = found.filter(|_| rest.is_empty()).ok_or_else(|| malformed("list of open files"))?;
    Ok(found.into_iter().flatten().collect())
}

/// The FIB of most processes of each jail in the result of `kern.proc.proc`; of two with as many processes the lower one.
pub fn fibs_of(answer: &[u8]) -> Result<BTreeMap<i32, u32>> {
    let mut processes: BTreeMap<(i32, u32), usize> = BTreeMap::new();
    for process in answer.chunks(KINFO_PROC) {
        *processes.entry((jid(process)?, field(process, KI_FIBNUM)?)).or_default() += 1;
    }
    let mut most: BTreeMap<i32, (usize, Reverse<u32>)> = BTreeMap::new();
    for ((jid, fib), count) in processes {
        let now = most.entry(jid).or_default();
        *now = (*now).max((count, Reverse(fib)));
    }
    Ok(most.into_iter().map(|(jid, (_, Reverse(fib)))| (jid, fib)).collect())
}

/// The jid in the result of `kern.proc.pid`; 0 for none.
pub fn jid(answer: &[u8]) -> Result<i32> {
    field(answer, KI_JID)
}

/// Whether the process in the result of `kern.proc.pid` is stopped.
pub fn stopped(answer: &[u8]) -> Result<bool> {
    Ok(field::<u8>(answer, KI_STAT)? == SSTOP)
}

/// A field of a struct kinfo_proc.
fn field<T: FromBytes>(answer: &[u8], offset: usize) -> Result<T> {
    let whole = answer.len() == KINFO_PROC && at::<u32>(answer, 0) == Some(KINFO_PROC as u32);
    at(answer, offset).filter(|_| whole).ok_or_else(|| malformed("record of a process"))
}

/// The arguments in the result of `kern.proc.args`, each with its NUL.
pub fn arguments(answer: &[u8]) -> Vec<String> {
    let text = answer.strip_suffix(&[0]).unwrap_or(answer);
    if text.is_empty() {
        return vec![];
    }
    text.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}
