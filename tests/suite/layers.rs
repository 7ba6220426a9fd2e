//! Dependencies go one way: which module may name which other one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module, and the modules that it may use. Everybody may use `error`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("files", &[]),
    ("child", &[]),
    ("net", &[]),
    ("name", &["net"]),
    ("spec", &["net"]),
    ("rule", &["name", "net"]),
    ("options", &["name", "net", "rule"]),
    ("publication", &["name", "net", "options", "spec"]),
    ("rules", &["name", "net", "options", "publication", "rule", "spec"]),
    ("host", &["net"]),
    ("pf", &["child", "name", "net", "rule"]),
    ("sim", &["files", "host", "name", "net", "pf", "rule"]),
    ("conflict", &["host", "net", "pf", "publication"]),
    ("readiness", &["host", "net", "pf", "publication"]),
    ("store", &["files", "name", "net", "publication"]),
    (
        "publisher",
        &[
            "conflict",
            "host",
            "name",
            "net",
            "options",
            "pf",
            "publication",
            "readiness",
            "rule",
            "rules",
            "spec",
            "store",
        ],
    ),
    (
        "doctor",
        &[
            "child",
            "conflict",
            "host",
            "name",
            "net",
            "options",
            "pf",
            "publication",
            "publisher",
            "readiness",
            "rule",
            "rules",
            "sim",
            "spec",
            "store",
        ],
    ),
    ("session", &["host", "pf", "publisher", "sim", "store"]),
    ("ffi", &["host", "name", "net", "options", "publication", "publisher", "rule", "session", "spec"]),
];

/// The only modules that may hold `unsafe`.
const UNSAFE: &[&str] = &["ffi", "host", "pf/native"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a text names as `crate::name`, doc comments left out.
fn uses(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        if let Some(list) = part.strip_prefix('{') {
            for item in list.split('}').next().unwrap().split(',') {
                found.insert(word(item.trim()));
            }
        } else {
            found.insert(word(part));
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_use_only_what_is_below_them() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    sources(&src, &mut files);
    let mut seen = BTreeSet::new();
    for path in files {
        let relative = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let module = relative.split('/').next().unwrap().trim_end_matches(".rs");
        if matches!(module, "lib" | "main" | "cli") {
            continue;
        }
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{relative}: say in tests/layers.rs what module {module} may use"));
        seen.insert(module.to_owned());
        for used in uses(&fs::read_to_string(&path).unwrap()) {
            let fine = used == module || used == "error" || allowed.contains(&used.as_str());
            assert!(fine, "{relative} uses crate::{used}, which is not below {module}");
        }
    }
    for (name, _) in ALLOWED {
        assert!(seen.contains(*name), "there is no module {name} any more");
    }
}

#[test]
fn the_helper_uses_the_rust_api_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![src.join("main.rs")];
    sources(&src.join("cli"), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for word in ["kport::ffi", "unsafe", "extern \"C\""] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn unsafe_stays_where_it_belongs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    sources(&src, &mut files);
    for path in files {
        let relative = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let has = text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("unsafe "));
        let may = UNSAFE.iter().any(|m| relative.starts_with(m));
        assert!(!has || may, "{relative} has unsafe code");
    }
}

#[test]
fn the_check_sees_an_edge() {
    let found = uses("// crate::no\nuse crate::{ffi, net::Place};\nfn f() { crate::store::g() }");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["ffi", "net", "store"]);
}
