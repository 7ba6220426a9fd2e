//! Build script: the name that the shared library carries (SONAME), and the C header.
//!
//! The header is made by cbindgen from src/ffi.rs alone. It is committed as include/kport.h, so that building kport needs no
//! cbindgen; tests/header.rs includes this file, makes it again, and fails when the two differ. `--features header`
//! makes it here, too, into OUT_DIR.

// cargo reads standard output
#![allow(clippy::print_stdout)]

use std::env;
#[cfg(any(feature = "header", test))]
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
        let text = header(Path::new(&root)).expect("cbindgen reads src/ffi.rs");
        std::fs::write(Path::new(&out).join("kport.h"), text).expect("OUT_DIR can be written");
    }
}

/// The text of include/kport.h for the sources under `root`.
#[cfg(any(feature = "header", test))]
pub fn header(root: &Path) -> Result<String, cbindgen::Error> {
    let mut config =
        cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is a configuration of cbindgen");
    let version = env!("CARGO_PKG_VERSION");
    let mut numbers = version.split(['.', '-']);
    let mut number = || numbers.next().unwrap_or("0");
    config.after_includes = Some(format!(
        "\n#define KPORT_VERSION \"{version}\"\n#define KPORT_VERSION_MAJOR {}\n#define KPORT_VERSION_MINOR {}\n\
         #define KPORT_VERSION_PATCH {}\n{}",
        number(),
        number(),
        number(),
        config.after_includes.unwrap_or_default()
    ));
    let bindings = cbindgen::Builder::new().with_config(config).with_src(root.join("src/ffi.rs")).generate()?;
    let mut text = Vec::new();
    bindings.write(&mut text);
    Ok(dress(&String::from_utf8_lossy(&text)))
}

/// What style(9) asks for and cbindgen has no setting for: tabs, no `//`, no two empty lines in a row.
#[cfg(any(feature = "header", test))]
fn dress(text: &str) -> String {
    let mut dressed = String::with_capacity(text.len());
    let mut empty = false;
    for line in text.lines() {
        let stripped = line.trim_start_matches(' ');
        let blanks = line.len() - stripped.len();
        // a comment's " * " is no indentation
        let indent = "\t".repeat(blanks / 8) + &" ".repeat(blanks % 8);
        let line = match stripped.split_once(" // ") {
            Some((code, comment)) => format!("{indent}{} /* {comment} */", code.trim_end()),
            None => format!("{indent}{}", stripped.trim_end()),
        };
        if line.is_empty() && empty {
            continue;
        }
        empty = line.is_empty();
        dressed.push_str(&line);
        dressed.push('\n');
    }
    dressed.truncate(dressed.trim_end().len());
    dressed.push('\n');
    dressed
}
