//! The processes that have a socket: from `kern.file`, the table of all open files, and `kern.proc`, as in sockstat(1).

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::FromBytes;

use super::{at, malformed};
#[cfg(target_os = "freebsd")]
use crate::error::Error;
use crate::error::Result;
#[cfg(target_os = "freebsd")]
use crate::host::Process;

/// The processes that have a udp socket which is bound to `port`.
#[cfg(target_os = "freebsd")]
pub fn udp_holders(port: u16) -> Result<Vec<Process>> {
    use libc::{CTL_KERN, ESRCH, KERN_PROC, KERN_PROC_ARGS, KERN_PROC_PID, c_int};
    let Some(answer) = super::kernel::named("net.inet.udp.pcblist")? else { return Ok(vec![]) };
    let sockets = super::socket::udp_sockets_at(&answer, port)?;
    if sockets.is_empty() {
        return Ok(vec![]);
    }
    let files = super::kernel::named("kern.file")?.unwrap_or_default();
    let mut found = vec![];
    for pid in owners(&files, &sockets)? {
        let ask = |what: c_int| match super::kernel::fetch(&[CTL_KERN, KERN_PROC, what, pid]) {
            // it has ended meanwhile
            Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(None),
            Err(error) => Err(Error::io(format_args!("read process {pid}"), &error)),
            Ok(answer) => Ok(Some(answer)),
        };
        if let (Some(process), Some(line)) = (ask(KERN_PROC_PID)?, ask(KERN_PROC_ARGS)?) {
            found.push(Process { pid, jid: jid(&process)?, arguments: arguments(&line) });
        }
    }
    Ok(found)
}

/// The FIB of most processes of each jail.
#[cfg(target_os = "freebsd")]
pub fn fibs() -> Result<BTreeMap<i32, u32>> {
    use libc::{CTL_KERN, KERN_PROC, KERN_PROC_PROC};
    let all = super::kernel::fetch(&[CTL_KERN, KERN_PROC, KERN_PROC_PROC]);
    fibs_of(&all.map_err(|e| Error::io("read the processes", &e))?)
}

/// Whether a process is stopped (SIGSTOP). One that cannot be read counts as not stopped.
#[cfg(target_os = "freebsd")]
pub fn is_stopped(pid: i32) -> bool {
    let mib = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PID, pid];
    super::kernel::fetch(&mib).is_ok_and(|answer| stopped(&answer).unwrap_or(false))
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
pub fn owners(answer: &[u8], sockets: &[u64]) -> Result<BTreeSet<i32>> {
    let read = || {
        let (records, rest) = answer.as_chunks::<XFILE>();
        if !rest.is_empty() {
            return None;
        }
        let mut found = BTreeSet::new();
        for record in records {
            if at::<u64>(record, 0)? != XFILE as u64 {
                return None;
            }
            if sockets.contains(&at::<u64>(record, XF_DATA)?) {
                found.insert(at::<i32>(record, XF_PID)?);
            }
        }
        Some(found)
    };
    read().ok_or_else(|| malformed("list of open files"))
}

/// The FIB of most processes of each jail in the result of `kern.proc.proc`; of two with as many processes the lower one.
pub fn fibs_of(answer: &[u8]) -> Result<BTreeMap<i32, u32>> {
    let mut processes: BTreeMap<(i32, u32), usize> = BTreeMap::new();
    for process in answer.chunks(KINFO_PROC) {
        *processes.entry((jid(process)?, field(process, KI_FIBNUM)?)).or_default() += 1;
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
