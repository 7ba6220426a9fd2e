// Makes include/kport.h: included by build.rs and by tests/suite/header.rs, so that both make the same.

use std::path::Path;

/// The text of include/kport.h for the sources under `root`.
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

/// What style(9) requires and cbindgen has no setting for: tabs, no `//`, no two empty lines in a row.
fn dress(text: &str) -> String {
    let mut dressed = String::with_capacity(text.len());
    let mut empty = false;
    for line in text.lines() {
        let stripped = line.trim_start_matches(' ');
        let blanks = line.len() - stripped.len();
        // a comment's " * " is not indentation
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
