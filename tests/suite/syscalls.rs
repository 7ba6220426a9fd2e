//! The system calls of the helper, counted by ptrace(2): each of them costs as much as an ioctl of pf(4).
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use kport::publisher::Liveness;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::support::rig::{Rig, host};

/// A state directory, and the host in a file, which the helper reads again for each question.
struct Helper {
    rig: Rig,
    /// The calls from execve(2) to the end of a command that needs neither.
    start: usize,
}

impl Helper {
    fn new() -> Helper {
        let mut helper = Helper { rig: Rig::new(), start: 0 };
        fs::write(helper.rig.state("host.json"), serde_json::to_string(&host()).unwrap()).unwrap();
        helper.start = helper.calls("parse 8080:80");
        // the first call of a boot looks for what earlier ones have left
        helper.calls("publish db 9090:80");
        helper
    }

    /// The calls of a command beyond those of the start. Memory is not counted, nor the questions to the host, which are other
    /// calls on FreeBSD.
    #[allow(clippy::zombie_processes, reason = "waitpid(2) waits for it")]
    fn calls(&self, command: &str) -> usize {
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport
            .args(["--backend", "sim", "--state-dir"])
            .arg(self.rig.path())
            .arg("--host")
            .arg(self.rig.state("host.json"));
        kport.args(command.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: ptrace(2) is only a system call.
        unsafe { kport.pre_exec(|| Ok(ptrace::traceme()?)) };
        let child = kport.spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(pid, Signal::SIGTRAP), "{command}");
        ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL).unwrap();
        let mut counted = Counted::default();
        let mut signal = None;
        loop {
            ptrace::syscall(pid, signal.take()).unwrap();
            match waitpid(pid, None).unwrap() {
                WaitStatus::PtraceSyscall(_) => counted.stop(pid),
                WaitStatus::Stopped(_, other) => signal = Some(other),
                end => {
                    assert_eq!(end, WaitStatus::Exited(pid, 0), "{command}");
                    return counted.calls - self.start;
                }
            }
        }
    }
}

/// The calls of a process.
#[derive(Default)]
struct Counted {
    calls: usize,
    opens_host: bool,
    /// The descriptor of the host's file.
    host: Option<u64>,
}

impl Counted {
    /// At the entry of a call, or at its end.
    fn stop(&mut self, pid: Pid) {
        let info = ptrace::syscall_info(pid).unwrap();
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if std::mem::take(&mut self.opens_host) {
                // SAFETY: `op` says which member it is.
                self.host = u64::try_from(unsafe { info.u.exit }.sval).ok();
            }
            return;
        }
        // SAFETY: as above.
        let entry = unsafe { info.u.entry };
        let number = i64::try_from(entry.nr).unwrap();
        match number {
            libc::SYS_brk | libc::SYS_mmap | libc::SYS_munmap | libc::SYS_mprotect | libc::SYS_mremap => {}
            // std checks descriptors that it closes, in a debug build
            libc::SYS_fcntl if entry.args[1] == libc::F_GETFD as u64 && entry.args[0] > 2 => {}
            libc::SYS_openat if path(pid, entry.args[1]).ends_with("host.json") => self.opens_host = true,
            libc::SYS_close if Some(entry.args[0]) == self.host => self.host = None,
            libc::SYS_read | libc::SYS_fstat | libc::SYS_statx if Some(entry.args[0]) == self.host => {}
            _ => self.calls += 1,
        }
    }
}

/// The text at an address of a process.
fn path(pid: Pid, mut address: u64) -> String {
    let mut bytes = vec![];
    while !bytes.contains(&0) {
        bytes.extend(ptrace::read(pid, address as ptrace::AddressType).unwrap().to_ne_bytes());
        address += 8;
    }
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap()).into_owned()
}

/// As few as docs/backends.md says.
#[test]
fn each_file_is_opened_read_and_locked_once() {
    let helper = Helper::new();
    let fifty: String = (8000..8050).map(|port| format!(" {port}:80")).collect();
    for (command, most) in [
        ("publish web 8080:80", 48),
        ("publish web 8080:80", 36),
        ("publish web 8081:81", 54),
        ("list", 26),
        ("apply", 147),
        ("unpublish web", 28),
        (&*format!("publish web{fifty}"), 97),
        // one for each claim
        ("unpublish web", 79),
    ] {
        let calls = helper.calls(command);
        assert!(calls <= most, "{command}: {calls}");
        // a bound that is far off would not see what is read twice
        assert!(calls + 4 > most, "{command}: {calls}, so lower the bound");
    }
    let jails: Vec<_> = helper.rig.list().iter().map(|l| (l.anchor.child().to_owned(), l.liveness)).collect();
    assert_eq!(jails, [("db".to_owned(), Liveness::Live)]);
}
