//! The manual pages are sound, and say what the source says.

use crate::support::cc;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use kport::error::Kind;

fn page(name: &str) -> String {
    fs::read_to_string(cc::root().join("man").join(name)).unwrap()
}

#[test]
fn mandoc_finds_nothing() {
    if !cc::has("mandoc") {
        return;
    }
    for name in ["kport.3", "kport.8", "kport-cni.8"] {
        let mut mandoc = Command::new("mandoc");
        let output = mandoc.args(["-Tlint", "-Wstyle"]).arg(cc::root().join("man").join(name)).output().unwrap();
        let said = cc::text(&output.stdout) + &cc::text(&output.stderr);
        // which pages there are is a fact about this machine
        let machine = ["referenced manual not found", "outdated mandoc.db"];
        let found: Vec<&str> = said.lines().filter(|line| !machine.iter().any(|m| line.contains(m))).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// The rows of the table that follows the comment, without macros.
fn statuses(page: &str) -> Vec<Vec<String>> {
    let (_, table) = page.split_once("\n.\\\" status table").expect("a status table");
    let (table, _) = table.split_once("\n.El").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix(".It "));
    rows.map(|row| row.split(" Ta ").map(|cell| cell.trim_start_matches("Dv ").to_owned()).collect()).collect()
}

#[test]
fn the_status_tables_are_those_of_the_source() {
    let library = statuses(&page("kport.3"));
    let command = statuses(&page("kport.8"));
    let mut expected = vec![["0".to_owned(), "KPORT_OK".to_owned(), "done".to_owned()]];
    for kind in Kind::ALL {
        let name = format!("KPORT_ERR_{}", format!("{kind:?}").to_uppercase());
        expected.push([kind.number().to_string(), name, kind.text().to_owned()]);
    }
    assert_eq!(library, expected);
    let mut expected: Vec<[String; 2]> = expected.into_iter().map(|[number, _, text]| [number, text]).collect();
    expected.push(["64".to_owned(), "wrong usage".to_owned()]);
    assert_eq!(command, expected);
}

fn help(arguments: &[&str]) -> String {
    let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
    cc::text(&cc::done(kport.args(arguments)).stdout)
}

#[test]
fn every_command_and_option_is_in_kport_8() {
    let page = page("kport.8");
    let top = help(&["--help"]);
    let commands: Vec<&str> = top
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 6 && commands.contains(&"publish"), "{commands:?}");
    let mut options = BTreeSet::new();
    for command in commands {
        assert!(page.contains(&format!(".It Cm {command}\n")), "kport(8) does not have the command {command}");
        let text = if command == "help" { top.clone() } else { help(&[command, "--help"]) };
        // an option is what stands at the start of a line, after its short form
        for line in text.lines().map(str::trim).filter(|line| line.starts_with('-')) {
            let long = line.split([' ', ',', '.', '=']).find_map(|word| word.strip_prefix("--"));
            options.extend(long.map(str::to_owned));
        }
    }
    assert!(options.len() > 10, "{options:?}");
    for option in options {
        let documented = page.lines().any(|line| {
            line.starts_with(".It ") && line.split(' ').any(|word| word.strip_prefix('-') == Some(option.as_str()))
        });
        assert!(documented, "kport(8) does not have the option --{option}");
    }
}
