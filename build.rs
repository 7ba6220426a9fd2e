//! Build script: the name that the shared library carries (SONAME), and the C header.
//!
//! The header is made by cbindgen from src/ffi.rs alone. It is committed as include/kport.h, so that building kport needs no
//! cbindgen; tests/suite/header.rs makes it again, and fails when the two differ. `--features header` makes
//! it here, too, into OUT_DIR.

// cargo reads standard output
#![allow(clippy::print_stdout)]

use std::env;
#[cfg(feature = "header")]
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // before 1.0 each minor version is an ABI of its own, as cargo-c has it
    let (major, minor) = (env::var("CARGO_PKG_VERSION_MAJOR"), env::var("CARGO_PKG_VERSION_MINOR"));
    let (major, minor) = (major.unwrap_or_default(), minor.unwrap_or_default());
    let version = if major == "0" { format!("0.{minor}") } else { major };
    if matches!(env::var("CARGO_CFG_TARGET_OS").as_deref(), Ok("freebsd" | "linux")) {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkport.so.{version}");
    }

    #[cfg(feature = "header")]
    {
        println!("cargo::rerun-if-changed=src/ffi.rs");
        println!("cargo::rerun-if-changed=cbindgen.toml");
        let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
        let text = header::header(Path::new(&root)).expect("cbindgen reads src/ffi.rs");
        std::fs::write(Path::new(&out).join("kport.h"), text).expect("OUT_DIR can be written");
    }
}

#[cfg(feature = "header")]
mod header {
    include!("scripts/header.rs");
}
