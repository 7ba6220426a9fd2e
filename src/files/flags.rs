//! The flags of a file: chflags(1). Other systems than FreeBSD have none here.

use std::fs::{File, Metadata};
use std::io;

/// The flags that keep a file from being replaced, or the entries of a directory from being renamed: sys/stat.h. Those of the
/// super-user cannot be cleared while kern.securelevel is above 0.
const IMMUTABLE: [(u32, &str); 6] = [
    (0x0002, "uchg"),
    (0x0004, "uappnd"),
    (0x0010, "uunlnk"),
    (0x0002_0000, "schg"),
    (0x0004_0000, "sappnd"),
    (0x0010_0000, "sunlnk"),
];

/// UF_SETTABLE of sys/stat.h: the flags that the owner may change.
const OF_THE_OWNER: u32 = 0xffff;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    pub(crate) fn of(file: &Metadata) -> Flags {
        #[cfg(target_os = "freebsd")]
        let flags = std::os::freebsd::fs::MetadataExt::st_flags(file);
        #[cfg(not(target_os = "freebsd"))]
        let flags = {
            _ = file;
            0
        };
        Flags(flags)
    }

    /// The names of the flags that keep the file as it is: `schg,sunlnk`. `None` if it can be replaced.
    pub(crate) fn immutable(self) -> Option<String> {
        let names: Vec<&str> = IMMUTABLE.iter().filter(|(flag, _)| self.0 & flag != 0).map(|(_, name)| *name).collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// Gives a new file the flags of the owner that the old one has, such as nodump.
    pub(crate) fn copy_to(self, file: &File) -> io::Result<()> {
        let wanted = self.0 & OF_THE_OWNER;
        let now = Flags::of(&file.metadata()?).0;
        if now & OF_THE_OWNER == wanted {
            return Ok(());
        }
        set(file, now & !OF_THE_OWNER | wanted)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_file_is_named_as_chflags_names_it() {
        // nodump, uarch
        for harmless in [0, 0x1, 0x800] {
            assert_eq!(Flags(harmless).immutable(), None);
        }
        for (flags, names) in [(0x2_0001, "schg"), (0x2, "uchg"), (0x4_0000, "sappnd"), (0x10_0002, "uchg,sunlnk")] {
            assert_eq!(Flags(flags).immutable().as_deref(), Some(names));
        }
    }

    #[test]
    fn a_new_file_has_the_flags_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("a")).unwrap();
        // nodump
        let wanted = if cfg!(target_os = "freebsd") { Flags(1) } else { Flags::default() };
        wanted.copy_to(&file).unwrap();
        assert_eq!(Flags::of(&file.metadata().unwrap()).0 & 1, wanted.0);
    }
}
