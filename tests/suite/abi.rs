//! The shared library exports the functions of the header, no others, and has the right name.

use crate::support::cc;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn header() -> String {
    fs::read_to_string(cc::root().join("include/kport.h")).unwrap()
}

/// The header without its comments.
fn code() -> String {
    let header = header();
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").unwrap().1;
    }
    code + rest
}

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let code = code();
    // a name before a parenthesis at the start of a declaration
    let words = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '(')).map(str::trim);
    words
        .filter_map(|word| word.split_once('('))
        .map(|(name, _)| name)
        .filter(|n| n.starts_with("kport_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_library_exports_the_functions_of_the_header_and_nothing_else() {
    let mut nm = Command::new("nm");
    let symbols = cc::text(&cc::done(nm.args(["-D", "--defined-only"]).arg(cc::shared_library())).stdout);
    let exported: BTreeSet<String> =
        symbols.lines().map(|line| line.split_whitespace().last().unwrap_or_default().to_owned()).collect();
    assert_eq!(exported, declared());
    assert!(exported.contains("kport_publish") && exported.len() > 15);
}

#[test]
fn every_function_is_in_the_manual() {
    let page = fs::read_to_string(cc::root().join("man/kport.3")).unwrap();
    for function in declared() {
        assert!(page.contains(&format!(".Fo {function}\n")), "kport(3) has no prototype of {function}");
        assert!(page.contains(&format!(".Nm {function}")), "kport(3) has no name {function}");
    }
    for line in header().lines() {
        if let Some(word) = line.trim().strip_prefix("#define KPORT_").or(line.trim().strip_prefix("KPORT_")) {
            let name = word.split([' ', ',']).next().unwrap();
            assert!(
                page.contains(&format!("KPORT_{name}")) || name == "MUST_USE" || name == "H",
                "kport(3): KPORT_{name}"
            );
        }
    }
}

#[test]
fn every_field_is_in_the_manual() {
    let page = fs::read_to_string(cc::root().join("man/kport.3")).unwrap();
    let lines = page.lines().filter_map(|line| line.strip_prefix(".It Va ").or(line.strip_prefix(".Va ")));
    let described: BTreeSet<&str> = lines.flat_map(str::split_whitespace).collect();
    let code = code();
    for name in ["kport_options", "kport_mapping", "kport_entry"] {
        let (_, fields) = code.split_once(&format!("struct {name} {{")).unwrap();
        let fields = fields.split('}').next().unwrap().split(';');
        let fields = fields.filter_map(|field| field.split(|c: char| c.is_whitespace() || c == '*').next_back());
        for field in fields.filter(|field| !field.is_empty() && *field != "reserved") {
            assert!(described.contains(field), "kport(3) does not describe {field} of {name}");
        }
    }
}

#[test]
fn the_library_carries_its_soname() {
    let mut readelf = Command::new("readelf");
    let dynamic = cc::text(&cc::done(readelf.arg("-d").arg(cc::shared_library())).stdout);
    let line = dynamic.lines().find(|line| line.contains("SONAME")).expect("a SONAME");
    assert!(line.contains(&format!("[{}]", cc::soname())), "{line}");
    assert!(!dynamic.contains("TEXTREL"));
}

#[test]
fn the_abi_is_the_recorded_one() {
    if cc::has("abidw") && cc::has("abidiff") {
        cc::done(Command::new("sh").arg("scripts/abi.sh").arg("check").current_dir(cc::root()));
    }
}
