//! include/kport.h is what cbindgen makes of src/ffi.rs. To renew it: `KPORT_BLESS=1 cargo test --test suite header`.

use std::path::Path;

mod build {
    include!("../../scripts/header.rs");
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/kport.h");
    let made = build::header(root).expect("cbindgen reads src/ffi.rs");
    if std::env::var_os("KPORT_BLESS").is_some() {
        std::fs::create_dir_all(root.join("include")).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == committed,
        "include/kport.h is out of date; renew it: KPORT_BLESS=1 cargo test --test suite header"
    );
}

#[test]
fn the_header_is_plain_c() {
    let header = include_str!("../../include/kport.h");
    for rust in ["[`", "Option", "Result", "None", "Some(", "# Safety", "Box<"] {
        assert!(!header.contains(rust), "{rust:?} is in include/kport.h");
    }
    assert!(header.contains(concat!("#define KPORT_VERSION \"", env!("CARGO_PKG_VERSION"), "\"")));
}
