//! The processes that have a socket: from `kern.file`, the table of all open files, and `kern.proc`, as in sockstat(1).

use std::collections::{BTreeMap, BTreeSet};

use super::buffer::{bytes, malformed, u32_at, u64_at};
use crate::error::Result;

/// The processes that have a udp socket which is bound to `port`.
#[cfg(target_os = "freebsd")]
pub fn udp_holders(port: u16) -> Result<Vec<crate::host::Process>> {
    use crate::error::Error;
    use libc::{CTL_KERN, ESRCH, KERN_PROC, KERN_PROC_ARGS, KERN_PROC_PID, c_int};

    let Some(answer) = super::sysctl::named("net.inet.udp.pcblist")? else { return Ok(vec![]) };
    let sockets = super::socket::udp_sockets_at(&answer, port)?;
    if sockets.is_empty() {
        return Ok(vec![]);
    }
    let files = super::sysctl::named("kern.file")?.unwrap_or_default();
    let mut found = vec![];
    for pid in owners(&files, &sockets)? {
        let ask = |what: c_int| match super::sysctl::fetch(&[CTL_KERN, KERN_PROC, what, pid]) {
            // it has ended meanwhile
            Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(None),
            Err(error) => Err(Error::io(format_args!("read process {pid}"), &error)),
            Ok(answer) => Ok(Some(answer)),
        };
        if let (Some(process), Some(line)) = (ask(KERN_PROC_PID)?, ask(KERN_PROC_ARGS)?) {
            found.push(crate::host::Process { pid, jid: jid(&process)?, arguments: arguments(&line) });
        }
    }
    Ok(found)
}

/// The FIB of most processes of each jail.
#[cfg(target_os = "freebsd")]
pub fn fibs() -> Result<BTreeMap<i32, u32>> {
    use libc::{CTL_KERN, KERN_PROC, KERN_PROC_PROC};
    let all = super::sysctl::fetch(&[CTL_KERN, KERN_PROC, KERN_PROC_PROC]);
    fibs_of(&all.map_err(|e| crate::error::Error::io("read the processes", &e))?)
}

/// Whether a process is stopped (SIGSTOP). One that cannot be read counts as not stopped.
#[cfg(target_os = "freebsd")]
pub fn is_stopped(pid: i32) -> bool {
    let mib = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid];
    super::sysctl::fetch(&mib).is_ok_and(|answer| state(&answer).is_ok_and(|state| state == SSTOP))
}

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
fn owners(answer: &[u8], sockets: &[u64]) -> Result<BTreeSet<i32>> {
    let read = || {
        let (records, rest) = answer.as_chunks::<XFILE>();
        if !rest.is_empty() {
            return None;
        }
        let mut found = BTreeSet::new();
        for record in records {
            if u64_at(record, 0)? != XFILE as u64 {
                return None;
            }
            if sockets.contains(&u64_at(record, XF_DATA)?) {
                found.insert(u32_at(record, XF_PID)?.cast_signed());
            }
        }
        Some(found)
    };
    read().ok_or_else(|| malformed("list of open files"))
}

/// The FIB of most processes of each jail in the result of `kern.proc.proc`; of two with as many processes the lower one.
fn fibs_of(answer: &[u8]) -> Result<BTreeMap<i32, u32>> {
    let mut processes: BTreeMap<(i32, u32), usize> = BTreeMap::new();
    for process in answer.chunks(KINFO_PROC) {
        *processes.entry((jid(process)?, u32::from_ne_bytes(of_process(process, KI_FIBNUM)?))).or_default() += 1;
    }
    let mut most: BTreeMap<i32, (usize, u32)> = BTreeMap::new();
    for ((jid, fib), count) in processes {
        let now = most.entry(jid).or_default();
        if count > now.0 {
            *now = (count, fib);
        }
    }
    Ok(most.into_iter().map(|(jid, (_, fib))| (jid, fib)).collect())
}

/// The jid in the result of `kern.proc.pid`; 0 for none.
fn jid(answer: &[u8]) -> Result<i32> {
    Ok(i32::from_ne_bytes(of_process(answer, KI_JID)?))
}

/// The state in the result of `kern.proc.pid`.
fn state(answer: &[u8]) -> Result<u8> {
    of_process::<1>(answer, KI_STAT).map(|[state]| state)
}

fn of_process<const N: usize>(answer: &[u8], offset: usize) -> Result<[u8; N]> {
    let whole = answer.len() == KINFO_PROC && u32_at(answer, 0) == Some(KINFO_PROC as u32);
    bytes(answer, offset).filter(|_| whole).ok_or_else(|| malformed("record of a process"))
}

/// The arguments in the result of `kern.proc.args`, each with its NUL.
fn arguments(answer: &[u8]) -> Vec<String> {
    let text = answer.strip_suffix(&[0]).unwrap_or(answer);
    if text.is_empty() {
        return vec![];
    }
    text.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::recordings::UDP_PCBLIST;
    use super::super::socket::{XINPCB, XINPGEN, udp_sockets_at};
    use super::*;
    use crate::error::Kind;

    fn file(pid: i32, data: u64) -> [u8; XFILE] {
        let mut record = [0; XFILE];
        record[..8].copy_from_slice(&(XFILE as u64).to_ne_bytes());
        record[XF_PID..][..4].copy_from_slice(&pid.to_ne_bytes());
        record[XF_DATA..][..8].copy_from_slice(&data.to_ne_bytes());
        record
    }

    #[test]
    fn a_socket_leads_to_its_processes() {
        // a recording of FreeBSD 15.1: syslogd(8) had two sockets on port 514
        let port = super::super::socket::udp_listeners(UDP_PCBLIST).unwrap()[0].port;
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
        let mut process = vec![0; KINFO_PROC];
        process[..4].copy_from_slice(&(KINFO_PROC as u32).to_ne_bytes());
        process[KI_JID..][..4].copy_from_slice(&6u32.to_ne_bytes());
        process[KI_STAT] = SSTOP;
        assert_eq!((jid(&process).unwrap(), state(&process).unwrap()), (6, SSTOP));
        assert!(jid(&process[..1000]).is_err() && state(&process[..1000]).is_err() && jid(&[]).is_err());
    }

    #[test]
    fn the_fib_of_a_jail_is_that_of_most_processes() {
        let process = |jid: i32, fib: u32| {
            let mut process = vec![0; KINFO_PROC];
            process[..4].copy_from_slice(&(KINFO_PROC as u32).to_ne_bytes());
            process[KI_JID..][..4].copy_from_slice(&jid.to_ne_bytes());
            process[KI_FIBNUM..][..4].copy_from_slice(&fib.to_ne_bytes());
            process
        };
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
}
