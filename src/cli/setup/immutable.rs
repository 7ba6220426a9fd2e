//! File flags that keep a file from being replaced (chflags(1)): rename(2) then fails with EPERM, without a reason.

use std::fs::Metadata;
use std::path::Path;

/// The flags of sys/stat.h, each with its name in chflags(1).
const FLAGS: [(u32, &str); 6] = [
    (0x0000_0002, "uchg"),
    (0x0000_0004, "uappnd"),
    (0x0000_0010, "uunlnk"),
    (0x0002_0000, "schg"),
    (0x0004_0000, "sappnd"),
    (0x0010_0000, "sunlnk"),
];

#[cfg(target_os = "freebsd")]
fn flags(file: &Metadata) -> u32 {
    std::os::freebsd::fs::MetadataExt::st_flags(file)
}

/// Only FreeBSD's files have them.
#[cfg(not(target_os = "freebsd"))]
fn flags(_: &Metadata) -> u32 {
    0
}

/// Why a file cannot be replaced, with the commands that allow it.
pub fn refused(path: &Path) -> Option<String> {
    // a file that does not exist has no flags
    let file = std::fs::metadata(path).ok()?;
    of(path, flags(&file))
}

fn of(path: &Path, flags: u32) -> Option<String> {
    let set: Vec<&str> = FLAGS.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    let path = path.display();
    let (set, unset) = (set.join(","), set.iter().map(|name| format!("no{name}")).collect::<Vec<_>>().join(","));
    (!set.is_empty()).then(|| {
        format!("{path} has the flags {set}: run chflags {unset} {path}, kport setup again, and chflags {set} {path}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_given() {
        let of = |flags| super::of(Path::new("/etc/pf.conf"), flags);
        assert_eq!(of(0), None);
        // nodump
        assert_eq!(of(1), None);
        assert_eq!(
            of(0x2_0001).unwrap(),
            "/etc/pf.conf has the flags schg: run chflags noschg /etc/pf.conf, kport setup again, and chflags schg /etc/pf.conf"
        );
        assert!(of(0x4_0002).unwrap().contains("chflags nouchg,nosappnd /etc/pf.conf,"));
    }
}
