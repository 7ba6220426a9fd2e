//! The flags of files: chflags(1).

use std::fs::File;

use kport::files::flags::Flags;

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
