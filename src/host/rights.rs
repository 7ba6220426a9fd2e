//! The rights of the process.

use rustix::process::{getegid, geteuid, getgid, getuid};

/// Whether the process runs with the rights of another user or group than the one that started it, as with a setuid
/// bit.
pub fn has_borrowed_rights() -> bool {
    getuid() != geteuid() || getgid() != getegid() || was_set_at_exec()
}

/// Whether execve(2) gave it other rights, which the ids above may no longer show: issetugid(2).
#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
fn was_set_at_exec() -> bool {
    // SAFETY: it has no arguments and cannot fail.
    unsafe { libc::issetugid() != 0 }
}

#[cfg(not(target_os = "freebsd"))]
fn was_set_at_exec() -> bool {
    false
}
