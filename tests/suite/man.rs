//! The manual pages have no errors, and agree with the source. The links of the other pages lead to files and headings.

use crate::support::cc;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
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
    for name in ["kport.3", "kport.conf.5", "kport.8", "kport-cni.8"] {
        let mut mandoc = Command::new("mandoc");
        let output = mandoc.args(["-Tlint", "-Wstyle"]).arg(cc::root().join("man").join(name)).output().unwrap();
        let said = cc::text(&output.stdout) + &cc::text(&output.stderr);
        // which pages are installed depends on this machine
        let machine = ["referenced manual not found", "outdated mandoc.db"];
        let found: Vec<&str> = said.lines().filter(|line| !machine.iter().any(|m| line.contains(m))).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// The rows of the table after the comment, without macros.
fn statuses(page: &str) -> Vec<Vec<String>> {
    let (_, table) = page.split_once("\n.\\\" status table").expect("a status table");
    let (table, _) = table.split_once("\n.El").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix(".It "));
    rows.map(|row| row.split(" Ta ").map(|cell| cell.trim_start_matches("Dv ").to_owned()).collect()).collect()
}

#[test]
fn the_status_tables_are_those_of_the_source() {
    let library = statuses(&page("kport.3"));
    let mut command = statuses(&page("kport.8"));
    // the third column explains the second
    command.iter_mut().for_each(|row| row.truncate(2));
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

/// The commands and the long options that `--help` prints.
pub fn options(arguments: &[&str]) -> BTreeSet<String> {
    let text = help(arguments);
    // an option is at the start of a line, after its short form
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with('-'));
    let long = lines.filter_map(|line| line.split([' ', ',', '.', '=']).find_map(|word| word.strip_prefix("--")));
    long.map(str::to_owned).collect()
}

/// The commands that `--help` prints.
pub fn commands() -> BTreeSet<String> {
    let top = help(&["--help"]);
    let names = top.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let names: BTreeSet<String> = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.len() > 6 && names.contains("publish"), "{names:?}");
    names
}

/// The options that a part of a page lists, by the names that they are sorted by.
fn listed(part: &str) -> Vec<(&str, Option<&str>)> {
    let items = part.lines().filter_map(|line| line.strip_prefix(".It Fl "));
    let named = items.map(|item| {
        let words: Vec<&str> = item.split([' ', ',']).collect();
        (words[0].trim_start_matches('-'), words.iter().find_map(|word| word.strip_prefix('-')))
    });
    named.collect()
}

#[test]
fn every_command_and_option_is_in_kport_8() {
    let page = page("kport.8");
    let (before, commands) = page.split_once("\n.Ss Commands\n").unwrap();
    let (_, global) = before.split_once("\n.Ss Global options\n").unwrap();
    let (commands, _) = commands.split_once("\n.Ss ").unwrap();
    let names = self::commands();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();

    let everywhere: BTreeSet<&str> = listed(global).into_iter().filter_map(|(_, long)| long).collect();
    let of_top = options(&["--help"]);
    assert!(of_top.iter().all(|option| everywhere.contains(option.as_str())), "{of_top:?} {everywhere:?}");
    for name in &names {
        let (_, part) = commands.split_once(&format!(".It Cm {name}\n")).unwrap_or_else(|| panic!("no {name}"));
        // to the next command; names of backends and the like are deeper, and have no options
        let next = part
            .match_indices("\n.It Cm ")
            .find(|(at, item)| names.contains(part[at + item.len()..].split('\n').next().unwrap()));
        let part = next.map_or(part, |(at, _)| &part[..at]);
        let mut expected = if *name == "help" { BTreeSet::new() } else { options(&[name, "--help"]) };
        expected.retain(|option| !everywhere.contains(option.as_str()));
        // an item of the list, or a word that refers to another command's
        for option in &expected {
            let named = part.lines().any(|line| line.split(' ').any(|word| word.strip_prefix('-') == Some(option)));
            assert!(named, "{name} does not have the option --{option}");
        }
        let listed = listed(part);
        let unknown = listed.iter().filter_map(|(_, long)| *long).find(|long| !expected.contains(*long));
        assert_eq!(unknown, None, "{name}");
        let keys: Vec<&str> = listed.iter().map(|(key, _)| *key).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{name}: {keys:?}");
    }
}

/// The options that a part of the synopsis names: each letter of a short one, and the long ones.
fn named(part: &str) -> BTreeSet<String> {
    let lines = part.lines().filter(|line| line.starts_with(".Op") || line.starts_with(".Fl"));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let after_fl = words.windows(2).filter(|pair| pair[0].ends_with("Fl")).map(|pair| pair[1]);
    let short = after_fl.filter(|word| !word.starts_with('-')).flat_map(|word| word.chars().map(String::from));
    // a hyphen alone is that of a range
    let long = words.iter().filter_map(|word| word.strip_prefix('-')).filter(|name| !name.is_empty());
    short.chain(long.map(str::to_owned)).collect()
}

#[test]
fn the_synopsis_is_complete() {
    let page = page("kport.8");
    let (_, synopsis) = page.split_once("\n.Sh SYNOPSIS\n").unwrap();
    let (synopsis, rest) = synopsis.split_once("\n.Sh DESCRIPTION\n").unwrap();
    let (entries, of_rules) = synopsis.split_once("\n.Pp\nEach\n").unwrap();
    let (global, entries) = entries.split_once("\n.Pp\n.Nm\n.Cm ").unwrap();
    // the synopsis has the short form, if there is one
    let items = listed(rest);
    let keys = |command: &[&str]| -> BTreeSet<String> {
        let key = |long: &String| items.iter().find(|(_, of)| *of == Some(long.as_str())).map(|(key, _)| *key);
        let all = options(command);
        all.iter().map(|long| key(long).unwrap_or_else(|| panic!("--{long} is not in the page")).to_owned()).collect()
    };
    let everywhere = keys(&["--help"]);
    let (global, help) = global.split_once("\n.Nm\n").unwrap();
    assert_eq!(help, ".Fl h | V");
    assert_eq!(named(global), &everywhere - &BTreeSet::from(["h", "V"].map(str::to_owned)));

    let mut commands: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for entry in entries.split("\n.Nm\n.Cm ") {
        let (name, entry) = entry.split_once('\n').unwrap_or((entry, ""));
        let of_command = commands.entry(name).or_default();
        of_command.extend(named(entry));
        if entry.contains("Ar rule-option") {
            of_command.extend(named(of_rules));
        }
    }
    assert!(commands.len() > 10);
    for (name, of_command) in commands.iter().filter(|(name, _)| **name != "help") {
        assert_eq!(*of_command, &keys(&[name, "--help"]) - &everywhere, "{name}");
    }
}

/// The pages in Markdown below a directory of the repository.
fn markdown(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            markdown(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
}

#[test]
fn links_lead_to_files_and_headings() {
    // as GitHub makes it of a heading
    let anchor = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || "- _".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    let (mut pages, mut links) = (vec![], 0);
    markdown(cc::root(), &mut pages);
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            let there = || {
                fs::read_to_string(&target)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == heading)
            };
            assert!(heading.is_empty() || there(), "{}: {link}", page.display());
            links += 1;
        }
    }
    assert!(links > 40, "{links} links in {pages:?}");
}
