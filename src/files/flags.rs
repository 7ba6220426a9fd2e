//! The flags of a file: chflags(1). Other systems than FreeBSD have none here.

use std::fs::{File, Metadata};
use std::io;

/// The flags that keep a file from being replaced, or the entries of a directory from being renamed, by their names in chflags(1).
const IMMUTABLE: [(u32, &str); 6] =
    [(0x2, "uchg"), (0x4, "uappnd"), (0x10, "uunlnk"), (0x2_0000, "schg"), (0x4_0000, "sappnd"), (0x10_0000, "sunlnk")];

/// UF_SETTABLE of sys/stat.h: the flags that the owner may change.
const OF_THE_OWNER: u32 = 0xffff;

/// Those of a file's flags that keep it as it is.
pub(crate) fn immutable(file: &Metadata) -> Vec<&'static str> {
    IMMUTABLE.iter().filter(|(flag, _)| of(file) & flag != 0).map(|(_, name)| *name).collect()
}

/// Gives a new file the flags of the owner that the old one has, such as nodump.
pub(crate) fn copy(old: &Metadata, new: &File) -> io::Result<()> {
    let (wanted, now) = (of(old) & OF_THE_OWNER, of(&new.metadata()?));
    if now & OF_THE_OWNER == wanted {
        return Ok(());
    }
    set(new, now & !OF_THE_OWNER | wanted)
}

#[cfg(target_os = "freebsd")]
fn of(file: &Metadata) -> u32 {
    std::os::freebsd::fs::MetadataExt::st_flags(file)
}

#[cfg(not(target_os = "freebsd"))]
fn of(_: &Metadata) -> u32 {
    0
}

#[cfg(target_os = "freebsd")]
#[allow(unsafe_code)]
fn set(file: &File, flags: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    match unsafe { libc::fchflags(file.as_raw_fd(), flags.into()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "freebsd"))]
fn set(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}
