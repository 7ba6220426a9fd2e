//! pf.conf(5) text to rules: the output of pfctl(8), and files. Lists are expanded, macros replaced, files read if the caller
//! allows it; what does not decide where a packet goes is skipped.

pub mod address;
mod conditions;
pub mod flat;
mod lex;
mod loads;
pub mod names;
pub mod nested;
mod operands;
mod outline;
pub mod path;
mod places;
mod print;
pub mod rule;
mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Kind, Result, quoted};
use crate::name;
use crate::net::Interface;
use address::{Operand, Pool, Table};
use path::Called;
use rule::{Action, Rule};

/// Rules and settings, read from text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// By path below the ruleset of the text, whose own path is empty.
    pub rulesets: BTreeMap<String, Vec<Rule>>,
    pub skip: Vec<String>,
    pub tables: BTreeMap<String, Table>,
    /// Rules about Ethernet frames, which are reported and not evaluated.
    pub ether: Vec<String>,
    /// `set syncookies always`
    pub syncookies: bool,
    /// What pfctl(8) has printed and is unknown here: its position, and why it was not read.
    pub unread: Vec<String>,
}

#[derive(Clone, Copy)]
struct How<'a> {
    /// The name of the file, for messages.
    name: &'a str,
    files: lex::Files<'a>,
}

/// Without other files.
const ALONE: How<'static> = How { name: "pf.conf", files: None };

impl Conf {
    /// Reads a pf.conf(5), and the files that it includes, loads, or fills tables from, as pfctl(8) would: paths are relative
    /// to the working directory. Host names are not looked up.
    pub fn of_file(path: &Path) -> Result<Conf> {
        let text = std::fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), &error))?;
        Conf::of_named(path, &text)
    }

    pub fn of_named(path: &Path, text: &[u8]) -> Result<Conf> {
        Conf::read(text, How { name: &path.display().to_string(), files: outline::FROM_DISK })
    }

    /// Reads pf.conf(5) text, without files. Comments and quoted strings may have bytes that are not UTF-8, as in pfctl(8).
    pub fn of_text(text: &[u8]) -> Result<Conf> {
        Conf::read(text, ALONE)
    }

    /// Reads the output of pfctl(8) for a ruleset. What is unknown in a rule becomes a condition that cannot be decided, and
    /// an unknown statement is [kept](Conf::unread) and skipped.
    pub fn of_output(text: &str) -> Conf {
        statements::read_output(text)
    }

    /// The parts of pfctl's output that could not be read, one line each.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    fn read(text: &[u8], how: How<'_>) -> Result<Conf> {
        statements::read(text, how, 0).map_err(|failure| Error::new(Kind::Unsupported, shown(failure)))
    }

    /// The main ruleset, or that of the anchor of the text.
    pub fn rules(&self) -> &[Rule] {
        self.rulesets.get("").map_or(&[], Vec::as_slice)
    }

    pub fn has_table(&self, table: &name::Table) -> bool {
        self.tables.contains_key(table.as_str())
    }

    /// Whether a table that it defines has no address; `None` if it does not define it.
    pub fn table_is_empty(&self, table: &name::Table) -> Option<bool> {
        self.tables.get(table.as_str()).map(Table::is_empty)
    }

    /// The calls of kport's anchors, in the order of evaluation: those of the ruleset, and those in braces in it.
    pub fn calls_of_kport(&self, kind: RuleKind) -> Vec<&Rule> {
        let mut found = vec![];
        self.find_calls("", kind, &mut found);
        found
    }

    fn find_calls<'a>(&'a self, path: &str, kind: RuleKind, found: &mut Vec<&'a Rule>) {
        for rule in self.rulesets.get(path).into_iter().flatten() {
            let Action::Call(of, called) = &rule.action else { continue };
            let called = Called::resolve(path, called);
            if *of == kind && called.is_kport() {
                found.push(rule);
            } else if !called.children && called.path.len() > path.len() {
                // in braces below the caller, if it is there
                self.find_calls(&called.path, kind, found);
            }
        }
    }

    /// Whether kport's anchors are called for nat, rdr and filter rules.
    pub fn calls_kport(&self) -> [bool; 3] {
        RuleKind::OF_KPORT.map(|kind| !self.calls_of_kport(kind).is_empty())
    }

    /// Whether each of kport's anchors is called by wildcard.
    pub fn calls_by_wildcard(&self) -> bool {
        let by_wildcard = |rule: &Rule| matches!(&rule.action, Action::Call(_, called) if called.ends_with("/*"));
        RuleKind::OF_KPORT.into_iter().flat_map(|kind| self.calls_of_kport(kind)).any(by_wildcard)
    }

    /// The rules in the braces of an anchor, as a ruleset of its own.
    pub fn below(&self, anchor: &str) -> Conf {
        let rulesets = self.rulesets.iter().filter_map(|(path, rules)| {
            let rest = path.strip_prefix(anchor).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
            Some((rest.trim_start_matches('/').to_owned(), rules.clone()))
        });
        Conf { rulesets: rulesets.collect(), ..Conf::default() }
    }

    /// Adds what was read of another kind of rules for the same ruleset.
    pub fn append(&mut self, other: &Conf) {
        for (path, rules) in &other.rulesets {
            self.rulesets.entry(path.clone()).or_default().extend_from_slice(rules);
        }
        self.unread.extend_from_slice(&other.unread);
    }

    pub fn named_tables(&self) -> BTreeSet<&str> {
        let operands = self.rulesets.values().flatten().flat_map(|rule| {
            let ends = [&rule.when.from.address, &rule.when.to.address];
            ends.into_iter().chain(rule.pools().flat_map(Pool::operands))
        });
        operands.filter_map(|operand| if let Operand::Table(name) = operand { Some(&**name) } else { None }).collect()
    }

    /// The interfaces and groups of `set skip` whose names kport knows.
    pub fn skipped(&self) -> Vec<Interface> {
        self.skip.iter().filter_map(|name| name.parse().ok()).collect()
    }
}

/// "pf.conf line 3: why: the statement"
fn shown((file, line, why, text): lex::Failure) -> String {
    let text = if text.is_empty() { text } else { format!(": {}", quoted(&text)) };
    format!("{file} line {line}: {why}{text}")
}

impl FromStr for Conf {
    type Err = Error;

    /// Reads pf.conf(5) text, or the output of pfctl(8). Files are not read.
    fn from_str(text: &str) -> Result<Conf> {
        Conf::of_text(text.as_bytes())
    }
}

/// The file of the main ruleset, unless rc.conf(5) names another one.
pub const PF_CONF: &str = "/etc/pf.conf";

pub use lex::Statement;
pub use names::icmp_type;
pub use outline::{Outline, StatementKind};
pub use rule::RuleKind;
