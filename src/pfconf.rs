//! pf.conf(5) text to rules: the output of pfctl(8), and files. Lists are expanded, macros replaced, files read if the caller
//! allows it; what does not decide where a packet goes is skipped.

pub mod address;
mod conditions;
mod lex;
mod loads;
pub mod names;
pub mod nested;
mod operands;
pub mod path;
mod print;
pub mod rule;
mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Kind, Result};
use crate::name::{self, PARENT};
use crate::net::Interface;
use address::{Operand, Pool, Table};
use path::Called;
use rule::{Action, Origin, Rule};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// By path below the ruleset of the text, whose own path is empty.
    pub rulesets: BTreeMap<String, Vec<Rule>>,
    pub skip: Vec<String>,
    pub tables: BTreeMap<String, Table>,
    /// Rules about Ethernet frames, which are reported and not evaluated.
    pub ether: Vec<String>,
    pub syncookies: bool,
    /// What pfctl(8) has printed and is unknown here: its position, and why it was not read.
    pub unread: Vec<String>,
}

impl Conf {
    /// Reads a pf.conf(5), and the files that it includes, loads, or fills tables from, as pfctl(8) would: paths are relative
    /// to the working directory. Host names are not looked up.
    pub fn of_file(path: &Path) -> Result<Conf> {
        let text = std::fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), &error))?;
        Conf::of_named(path, &text)
    }

    pub fn of_named(path: &Path, text: &[u8]) -> Result<Conf> {
        Conf::read(&path.display().to_string(), text, statements::FROM_DISK)
    }

    /// Reads pf.conf(5) text, without files. Comments and quoted strings may have bytes that are not UTF-8, as in pfctl(8).
    pub fn of_text(text: &[u8]) -> Result<Conf> {
        Conf::read("pf.conf", text, None)
    }

    /// Reads the output of pfctl(8) for a ruleset. What is unknown in a rule becomes a condition that cannot be decided, and
    /// an unknown statement is [kept](Conf::unread) and skipped.
    pub fn of_output(text: &str) -> Conf {
        statements::read_output(text)
    }

    fn read(name: &str, text: &[u8], files: lex::Files<'_>) -> Result<Conf> {
        statements::read(name, text, files, 0).map_err(|failure| Error::new(Kind::Unsupported, failure.to_string()))
    }

    pub fn of_rules(rules: &[crate::rule::Rule]) -> Conf {
        Conf { rulesets: [(String::new(), flat(rules))].into(), ..Conf::default() }
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

    pub fn calls_kport(&self) -> [bool; 3] {
        RuleKind::OF_KPORT.map(|kind| !self.calls_of_kport(kind).is_empty())
    }

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

    /// The ruleset without its own calls of kport's anchors; those in the braces of anchors stay.
    pub fn without_kport(&self) -> Conf {
        let mut made = self.clone();
        if let Some(rules) = made.rulesets.get_mut("") {
            rules.retain(|rule| !rule.calls_kport());
        }
        made
    }

    /// How many rules of [`Conf::without_kport`] come before the first call of this kind.
    pub fn kport_at(&self, kind: RuleKind) -> Option<usize> {
        let rules = self.rules();
        let at = rules.iter().position(|rule| rule.calls_kport() && rule.action.kind() == kind)?;
        Some(rules[..at].iter().filter(|rule| !rule.calls_kport()).count())
    }

    /// The ruleset with the calls for nat, rdr and filter rules, each after this many of its rules.
    pub fn with_kport(&self, at: [usize; 3]) -> Conf {
        let mut made = self.clone();
        let rules = made.rulesets.entry(String::new()).or_default();
        // from the last one on, so that the positions of the others stay
        let mut calls: Vec<(usize, RuleKind)> = at.into_iter().zip(RuleKind::OF_KPORT).collect();
        calls.sort_by_key(|(at, _)| *at);
        for (at, kind) in calls.into_iter().rev() {
            let origin = Origin { text: format!("{} \"{PARENT}\"", kind.call()).into(), ..Origin::default() };
            rules.insert(at.min(rules.len()), Rule::new(origin, Action::Call(kind, PARENT.to_owned())));
        }
        made
    }

    /// The positions between statements at which a call of these kinds makes a difference: before each of their
    /// statements, and after the last one.
    pub fn places_for(&self, kinds: &[RuleKind]) -> Vec<usize> {
        let rules = self.rules();
        let is_of = |rule: &Rule| kinds.contains(&rule.action.kind());
        let starts = |at: usize| is_of(&rules[at]) && (at == 0 || !is_same_statement(&rules[at - 1], &rules[at]));
        let end = rules.iter().rposition(is_of).map_or(0, |last| last + 1);
        let mut places: Vec<usize> = (0..rules.len()).filter(|at| starts(*at)).collect();
        places.push(end);
        places.dedup();
        places
    }

    pub fn order_of(&self, kind: RuleKind, at: usize) -> usize {
        self.rules().iter().take(at).filter(|rule| rule.action.kind() == kind).count()
    }

    /// Gives the lines of a file other numbers, as those from before lines were added.
    pub fn renumber(&mut self, file: &str, number: impl Fn(usize) -> usize) {
        for rule in self.rulesets.values_mut().flatten().filter(|rule| *rule.origin.file == *file) {
            rule.origin.line = number(rule.origin.line);
        }
    }
}

impl Rule {
    /// Whether it calls kport's anchors from the main ruleset.
    pub fn calls_kport(&self) -> bool {
        matches!(&self.action, Action::Call(_, called) if Called::resolve("", called).is_kport())
    }
}

fn is_same_statement(a: &Rule, b: &Rule) -> bool {
    a.origin.line > 0
        && a.origin.line == b.origin.line
        && a.origin.file == b.origin.file
        && a.origin.text == b.origin.text
}

/// kport's own rules in the form of pf: what their text says, with one for each member of their lists.
pub fn flat(rules: &[crate::rule::Rule]) -> Vec<Rule> {
    let mut all = vec![];
    for rule in rules {
        let origin = Origin { text: rule.to_string().into(), ..Origin::default() };
        let texts = rule.expand().into_iter().map(|single| single.to_string());
        for mut made in texts.flat_map(|text| Conf::of_output(&text).rulesets.into_values().flatten()) {
            for side in [&mut made.when.from, &mut made.when.to] {
                match side.address {
                    // a mask of zeros is equal to any
                    Operand::Network(network) if network.prefix_len() == 0 => side.address = Operand::Any,
                    _ => {}
                }
            }
            all.push(Rule { origin: origin.clone(), ..made });
        }
    }
    all
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
pub use rule::RuleKind;
pub use statements::{Outline, StatementKind};
