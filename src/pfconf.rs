//! pf.conf(5) text to rules: the output of pfctl(8), and files. Lists are expanded, macros replaced, files read if the caller
//! allows it; what does not decide where a packet goes is skipped.
//!
//! When pfctl(8) loads a file on a host, it looks up the name of an interface that is not in round brackets, and refuses the whole
//! file if there is no address, or none of the rule's family (host() in sbin/pfctl/pfctl_parser.c, expand_rule() and
//! remove_invalid_hosts() in sbin/pfctl/parse.y). A list is several rules, and antispoof and the names of interfaces are addresses then.

pub mod address;
mod conditions;
mod lex;
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

use ipnet::IpNet;

use crate::error::{Error, Result, error};
use crate::name::{self, PARENT};
use crate::net::Family;
use address::{OfInterface, Operand, Pool, Side, Table};
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

/// How many rules of the file may be missing in pf, one after the other.
const MOST_MISSING: usize = 256;

/// The addresses that the name of an interface stands for on a host; `None` if that is unknown.
pub type Networks<'a> = dyn Fn(&OfInterface) -> Option<Vec<IpNet>> + 'a;

impl Conf {
    /// Reads a pf.conf(5), and the files that it includes, loads, or fills tables from, as pfctl(8) would: paths are relative
    /// to the working directory. Host names are not looked up.
    pub fn of_file(path: &Path) -> Result<Conf> {
        let text = std::fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), &error))?;
        Conf::of_named(path, &text)
    }

    pub fn of_named(path: &Path, text: &[u8]) -> Result<Conf> {
        Conf::read(&path.display().to_string(), text, true)
    }

    /// Reads pf.conf(5) text, without files. Comments and quoted strings may have bytes that are not UTF-8, as in pfctl(8).
    pub fn of_text(text: &[u8]) -> Result<Conf> {
        Conf::read("pf.conf", text, false)
    }

    /// Reads the output of pfctl(8) for a ruleset. What is unknown in a rule becomes a condition that cannot be decided, and
    /// an unknown statement is [kept](Conf::unread) and skipped.
    pub fn of_output(text: &str) -> Conf {
        statements::read_output(text)
    }

    fn read(name: &str, text: &[u8], reads_files: bool) -> Result<Conf> {
        statements::read(name, text, reads_files, 0).map_err(|failure| error!(Unsupported, "{failure}"))
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

    /// The positions at which a call of these kinds makes a difference: before each of their statements, and after the last one.
    pub fn places_for(&self, kinds: &[RuleKind]) -> Vec<usize> {
        let rules = self.rules();
        let is_of = |rule: &Rule| kinds.contains(&rule.action.kind());
        let goes_on = |at: usize| rules[at].origin.line > 0 && at > 0 && rules[at].origin == rules[at - 1].origin;
        let starts = |at: usize| is_of(&rules[at]) && !goes_on(at);
        let end = rules.iter().rposition(is_of).map_or(0, |last| last + 1);
        let mut places: Vec<usize> = (0..rules.len()).filter(|at| starts(*at)).collect();
        places.push(end);
        places.dedup();
        places
    }

    pub fn order_of(&self, kind: RuleKind, at: usize) -> usize {
        self.rules().iter().take(at).filter(|rule| rule.action.kind() == kind).count()
    }

    /// The rules that pf has, each with the position of its statement in the file, if the file has it.
    pub fn named_by(&self, file: &Conf, networks: &Networks<'_>) -> Conf {
        let mut made = self.clone();
        for (path, rules) in &mut made.rulesets {
            let of_file: Vec<Rule> =
                file.rulesets.get(path).into_iter().flatten().flat_map(|rule| looked_up(rule, networks)).collect();
            let mut next = 0;
            for rule in rules {
                let found = of_file[next..].iter().take(MOST_MISSING).position(|other| other == rule);
                if let Some(at) = found {
                    rule.origin = of_file[next + at].origin.clone();
                    next += at + 1;
                }
            }
        }
        made
    }

    /// The first statement that pfctl(8) would refuse, and why in its words; none in what was read from its output.
    pub fn refused(&self, networks: &Networks<'_>) -> Option<String> {
        for (name, table) in &self.tables {
            if let Some(why) = table.others.iter().find_map(|(_, operand)| missing(operand, networks)) {
                return Some(format!("table <{name}>: {why}"));
            }
        }
        let expanded_together = |a: &Rule, b: &Rule| a.origin == b.origin && !is_antispoof(a);
        let mut statements = self.rulesets.values().flat_map(|rules| rules.chunk_by(expanded_together));
        statements.find_map(|rules| {
            let why = of_statement(rules, networks)?;
            Some(lex::Failure { origin: rules[0].origin.clone(), why }.to_string())
        })
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

/// The rules that pfctl(8) makes from one when it looks up the names of interfaces; those that it cannot look up stay.
fn looked_up(rule: &Rule, networks: &Networks<'_>) -> Vec<Rule> {
    let each = |side: &Side| match of_name(&side.address, networks) {
        Some(found) => found.into_iter().map(|one| Side { address: Operand::Network(one), ..side.clone() }).collect(),
        None => vec![side.clone()],
    };
    let mut made = vec![];
    for from in each(&rule.when.from) {
        for to in each(&rule.when.to) {
            let known = [rule.when.family, from.address.family(), to.address.family()];
            let family: Option<Family> = known.into_iter().flatten().next();
            if known.into_iter().flatten().any(|other| Some(other) != family) {
                continue;
            }
            let mut one = rule.clone();
            (one.when.from, one.when.to, one.when.family) = (from.clone(), to, family);
            made.push(one);
        }
    }
    made
}

/// Its rules are expanded one by one, and one without an address is omitted.
fn is_antispoof(rule: &Rule) -> bool {
    rule.origin.text.starts_with("antispoof")
}

/// Why pfctl(8) refuses the statement with these rules.
fn of_statement(rules: &[Rule], networks: &Networks<'_>) -> Option<String> {
    let sides = rules.iter().flat_map(|rule| [&rule.when.from.address, &rule.when.to.address]);
    let pooled = rules.iter().flat_map(Rule::pools).flat_map(Pool::operands);
    let why = sides.chain(pooled).find_map(|operand| missing(operand, networks));
    if why.is_some() {
        return why.filter(|_| !is_antispoof(&rules[0]));
    }
    if rules.iter().all(|rule| looked_up(rule, networks).is_empty()) {
        return Some("rule expands to no valid combination".to_owned());
    }
    let has = |operand: &Operand, family| match of_name(operand, networks) {
        Some(found) => found.iter().any(|network| Family::of(network.addr()) == family),
        None => operand.family().is_none_or(|own| own == family),
    };
    let translates = |rule: &Rule| match (&rule.action, rule.when.family) {
        (Action::Translate { pool: Some(pool), .. }, Some(family)) => {
            pool.operands().any(|operand| has(operand, family))
        }
        _ => true,
    };
    (!rules.iter().all(translates)).then(|| "no translation address with matching address family found.".to_owned())
}

/// The addresses of an operand that pfctl(8) looks up when it loads the file.
fn of_name(operand: &Operand, networks: &Networks<'_>) -> Option<Vec<IpNet>> {
    if let Operand::Interface(of) = operand
        && !of.dynamic
    {
        networks(of)
    } else {
        None
    }
}

/// The error about a name that stands for no address.
fn missing(operand: &Operand, networks: &Networks<'_>) -> Option<String> {
    of_name(operand, networks)?.is_empty().then(|| format!("no IP address found for {operand}"))
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
pub use statements::{Outline, Section};
