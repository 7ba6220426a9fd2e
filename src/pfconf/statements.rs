//! The statements of a file, one after the other: settings, tables, macros, anchors in braces; rules are read in `rule`.

use std::collections::HashSet;

use super::address::{OfInterface, Operand, Part};
use super::conditions::{self, Defaults};
use super::lex::{Lexer, MOST, Read, Statement, Token};
use super::operands::{self, host};
use super::path::Called;
use super::rule::{Action, Keep, Origin, Rule, RuleKind};
use super::table::Table;
use super::words::{Words, end};
use super::{Conf, How, as_network};
use crate::error::quoted;

/// Where, why, and the text of the statement.
pub(super) type Failure = (String, usize, String, String);

/// The most anchors in anchors (PFCTL_ANCHOR_STACK_DEPTH in sbin/pfctl/pfctl_parser.h).
const DEEPEST: usize = 64;

struct Reader<'a> {
    lexer: Lexer<'a>,
    made: Conf,
    defaults: Defaults,
    /// The paths of the anchors that are open; `None` for one whose rules are passed over.
    open: Vec<Option<String>>,
    /// How many anchors in braces there were: they have numbers for names.
    braces: usize,
    named: HashSet<String>,
    rules: usize,
    /// `load anchor`: the path, the file, and where it stands.
    loads: Vec<(String, String, String, usize)>,
}

pub(super) fn read(text: &str, how: How<'_>) -> Result<Conf, Failure> {
    read_below(text, how, 0)
}

/// What pfctl(8) has printed: a rule is a line, whatever stands in its quotes.
pub(super) fn read_output(text: &str) -> Conf {
    let mut reader = Reader::new(Lexer::new("", "", None), true);
    for (number, line) in (1..).zip(text.lines()) {
        reader.lexer = Lexer::new("", &format!("{line}\n"), None);
        while let Some(next) = reader.lexer.statement() {
            let read = match next {
                Ok(statement) => reader.statement(&statement),
                Err((_, _, why)) => match reader.unknown(line) {
                    Some(rule) => reader.add(vec![rule]),
                    None => Err(why),
                },
            };
            if let Err(why) = read {
                // there is more to the text than one line that another release knows
                reader.made.unread.push(super::shown(("pfctl".to_owned(), number, why, line.trim().to_owned())));
            }
        }
    }
    reader.made
}

fn read_below(text: &str, how: How<'_>, depth: usize) -> Result<Conf, Failure> {
    let name = if how.name.is_empty() { "pf.conf" } else { how.name };
    let mut reader = Reader::new(Lexer::new(name, text, how.files), false);
    let mut last = (name.to_owned(), 1);
    while let Some(next) = reader.lexer.statement() {
        let statement = next.map_err(|(file, line, why)| (file, line, why, String::new()))?;
        last = (statement.file.clone(), statement.line);
        let read = reader.statement(&statement);
        read.map_err(|why| (statement.file.clone(), statement.line, why, statement.text.clone()))?;
    }
    if !reader.open.is_empty() {
        return Err((last.0, last.1, "the } of an anchor is missing".to_owned(), String::new()));
    }
    for (path, file, from, line) in std::mem::take(&mut reader.loads) {
        let fail = |why: String| (from.clone(), line, why, format!("load anchor {path} from {file}"));
        if depth > 8 {
            return Err(fail("files load one another".to_owned()));
        }
        let text = reader.lexer.read(&file).map_err(fail)?;
        let loaded = read_below(&text, How { name: &file, ..how }, depth + 1)?;
        for (below, rules) in loaded.rulesets {
            let path = below_of(&path, &below);
            reader.made.rulesets.entry(path).or_default().extend(rules);
        }
        reader.made.tables.extend(loaded.tables);
    }
    Ok(reader.made)
}

impl<'a> Reader<'a> {
    fn new(lexer: Lexer<'a>, output: bool) -> Reader<'a> {
        Reader {
            lexer,
            made: Conf::default(),
            defaults: Defaults { output, ..Defaults::default() },
            open: vec![],
            braces: 0,
            named: HashSet::new(),
            rules: 0,
            loads: vec![],
        }
    }

    /// The rule that a line is of which no more is known than how it begins.
    fn unknown(&self, line: &str) -> Option<Rule> {
        let tokens: Vec<Token> = line.split_whitespace().map(|word| Token::Word(word.to_owned())).collect();
        conditions::unknown(Words(&tokens), &Origin { text: line.trim().into() })
    }

    fn statement(&mut self, statement: &Statement) -> Read<()> {
        let mut words = Words(&statement.tokens);
        if let [Token::Word(name) | Token::Quoted(name), Token::Sign("="), value @ ..] = &statement.tokens[..]
            && !self.defaults.output
        {
            return self.macro_of(name, value);
        }
        if words.is_empty() {
            return Ok(());
        }
        if words.take("}") {
            self.open.pop().ok_or("there is no { that this } closes")?;
            return end(&words);
        }
        if self.open.last() == Some(&None) {
            if statement.opens {
                self.open.push(None);
            }
            return Ok(());
        }
        match words.peek() {
            "include" => {
                words.next()?;
                let file = words.text()?.to_owned();
                end(&words)?;
                self.lexer.include(&file)
            }
            "set" => self.set(words),
            "table" => self.table(words),
            "load" => self.load(words, statement),
            "antispoof" => self.antispoof(words, statement),
            "ether" => {
                if statement.opens {
                    self.open.push(None);
                }
                self.made.ether.push(statement.text.clone());
                Ok(())
            }
            // they change neither address nor verdict
            "scrub" | "altq" | "queue" => Ok(()),
            "no" if matches!(&statement.tokens[..], [_, second, ..] if second.bare() == "scrub") => Ok(()),
            "anchor" => self.anchor(statement),
            _ => {
                let origin = origin(statement);
                let read = conditions::rules(words, &origin, &self.defaults);
                let rules = match conditions::unknown(words, &origin).filter(|_| self.defaults.output) {
                    Some(rule) => read.unwrap_or_else(|_| vec![rule]),
                    None => read?,
                };
                self.add(rules)
            }
        }
    }

    /// The path of the ruleset that rules go to.
    fn path(&self) -> String {
        self.open.last().cloned().flatten().unwrap_or_default()
    }

    fn add(&mut self, rules: Vec<Rule>) -> Read<()> {
        self.rules += rules.len();
        if self.rules > MOST {
            return Err(format!("more than {MOST} rules"));
        }
        self.made.rulesets.entry(self.path()).or_default().extend(rules);
        Ok(())
    }

    fn macro_of(&mut self, name: &str, value: &[Token]) -> Read<()> {
        let mut text = String::new();
        for token in value {
            // words next to one another have a blank between; signs stand where they stood
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&token.shown());
        }
        self.lexer.define(name, text)
    }

    fn set(&mut self, mut words: Words<'_>) -> Read<()> {
        words.next()?;
        match words.text()? {
            "skip" => {
                words.expect("on")?;
                let names = words.list(&mut operands::on)?;
                if let Some(on) = names.iter().find(|on| on.not) {
                    return Err(format!("skip on ! {} is not supported by pfctl(8)", on.name));
                }
                self.made.skip.extend(names.into_iter().map(|on| on.name).filter(|name| name != "none"));
                end(&words)
            }
            "state-policy" => {
                self.defaults.if_bound = match words.text()? {
                    "if-bound" => true,
                    "floating" => false,
                    other => return Err(format!("{} is no state-policy", quoted(other))),
                };
                end(&words)
            }
            "state-defaults" => {
                let mut keep = Keep::default();
                let bound = conditions::state_options(&mut words, &mut keep, false)?;
                keep.if_bound = bound.unwrap_or(self.defaults.if_bound);
                self.defaults.keep = Some(keep);
                end(&words)
            }
            "syncookies" => {
                self.made.syncookies = words.text()? == "always";
                Ok(())
            }
            // these decide about no packet of a trace
            "ruleset-optimization"
            | "limit"
            | "timeout"
            | "optimization"
            | "block-policy"
            | "fail-policy"
            | "loginterface"
            | "debug"
            | "hostid"
            | "reassemble"
            | "fingerprints"
            | "keepcounters"
            | "require-order" => Ok(()),
            word => Err(format!("set {word} is not known")),
        }
    }

    fn table(&mut self, mut words: Words<'_>) -> Read<()> {
        words.next()?;
        let name = operands::table(&mut words)?;
        let mut table = Table::default();
        while !words.is_empty() {
            match words.next()?.shown().as_str() {
                "persist" | "const" | "counters" => {}
                "file" => {
                    let text = self.lexer.read(words.text()?)?;
                    for entry in entries(&text) {
                        table_entry(&mut table, entry)?;
                    }
                }
                "{" => {
                    while !words.take("}") {
                        let (not, operand) = operands::side(&mut words)?;
                        enter(&mut table, not, operand)?;
                        while words.take(",") {}
                    }
                }
                word => return Err(format!("{word} of a table is not known")),
            }
        }
        self.made.tables.insert(name, table);
        Ok(())
    }

    /// `load anchor name from "file"`
    fn load(&mut self, mut words: Words<'_>, statement: &Statement) -> Read<()> {
        words.next()?;
        words.expect("anchor")?;
        let path = words.text()?.to_owned();
        words.expect("from")?;
        let file = words.text()?.to_owned();
        end(&words)?;
        let path = below_of(&self.path(), &path);
        self.loads.push((path, file, statement.file.clone(), statement.line));
        Ok(())
    }

    /// `anchor "name" in on em0 { ... }`, or the call of one that is elsewhere.
    fn anchor(&mut self, statement: &Statement) -> Read<()> {
        let mut words = Words(&statement.tokens);
        words.next()?;
        let name = if words.has_string() { Some(words.text()?.to_owned()) } else { None };
        let (called, path) = if statement.opens {
            if self.open.len() >= DEEPEST {
                return Err(format!("more than {DEEPEST} anchors in anchors"));
            }
            self.braces += 1;
            if name.as_ref().is_some_and(|name| name.contains('/')) {
                return Err("the name of an anchor in braces has no /".to_owned());
            }
            let called = name.unwrap_or_else(|| format!("_{}", self.braces));
            let path = below_of(&self.path(), &called);
            if !self.named.insert(path.clone()) {
                return Err(format!("anchor {} in braces is there already", quoted(&path)));
            }
            (called, Some(path))
        } else {
            match name {
                Some(name) if !name.is_empty() => (name, None),
                _ => return Err("an anchor without rules in braces has a name".to_owned()),
            }
        };
        let call = Rule::new(origin(statement), Action::Call(RuleKind::Filter, called));
        let rules = conditions::conditions(words, call, &self.defaults)?;
        self.add(rules)?;
        if let Some(path) = path {
            self.made.rulesets.entry(path.clone()).or_default();
            self.open.push(Some(path));
        }
        Ok(())
    }

    /// Two rules for an interface: its networks come from nowhere else, and its addresses from nowhere at all; the second not
    /// for loopback (antispoof in parse.y).
    fn antispoof(&mut self, mut words: Words<'_>, statement: &Statement) -> Read<()> {
        words.next()?;
        let mut block = Rule::new(origin(statement), Action::Block);
        block.when.direction = Some(crate::net::Direction::In);
        let mut interfaces = vec![];
        while !words.is_empty() {
            match words.next()?.bare() {
                "log" => words.skip_brackets()?,
                "quick" => block.quick = true,
                "for" => {
                    interfaces = words.list(&mut |words| {
                        let dynamic = words.take("(");
                        let name = words.text()?.to_owned();
                        if dynamic {
                            words.expect(")")?;
                        }
                        Ok((name, dynamic))
                    })?;
                }
                "inet" => block.when.family = Some(crate::net::Family::Inet),
                "inet6" => block.when.family = Some(crate::net::Family::Inet6),
                "label" | "ridentifier" | "rtable" => _ = words.next()?,
                word => return Err(format!("{} of antispoof is not known", quoted(word))),
            }
        }
        if interfaces.is_empty() {
            return Err("expected for and an interface".to_owned());
        }
        let of = |name: &str, part, dynamic| {
            Operand::Interface(OfInterface { name: name.to_owned(), part, first: false, dynamic, bits: None })
        };
        for (name, dynamic) in interfaces {
            let mut network = block.clone();
            network.when.on = Some(super::rule::On { not: true, name: name.clone() });
            network.when.from.address = of(&name, Part::Network, dynamic);
            let mut own = block.clone();
            own.when.from.address = of(&name, Part::Address, dynamic);
            let loopback = name.strip_prefix("lo").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
            self.add(if loopback { vec![network] } else { vec![network, own] })?;
        }
        Ok(())
    }
}

/// The path of an anchor that a ruleset names.
fn below_of(path: &str, name: &str) -> String {
    if name.is_empty() { path.to_owned() } else { Called::resolve(path, name).path }
}

fn origin(statement: &Statement) -> Origin {
    Origin { text: statement.text.trim_end_matches('{').trim_end().into() }
}

/// What stands in a table's file, and what `pfctl -T show` prints.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split(['#', ';']).next()).flat_map(str::split_whitespace)
}

impl Table {
    /// Reads what `pfctl -T show` prints. What is not known is passed over.
    pub(crate) fn of_output(text: &str) -> Table {
        let mut table = Table::default();
        for entry in entries(text) {
            // nothing is entered that was not read
            _ = table_entry(&mut table, entry);
        }
        table
    }
}

/// An entry of a table's file: `10.0.0.0/8`, `! 10.0.0.1`.
fn table_entry(table: &mut Table, text: &str) -> Read<()> {
    let plain = text.trim_start_matches('!');
    let not = (text.len() - plain.len()) % 2 == 1;
    if plain.is_empty() {
        return Ok(());
    }
    let (address, bits) = plain.split_once('/').map_or((plain, None), |(address, bits)| (address, Some(bits)));
    let tokens: Vec<Token> = [Some(Token::Word(address.to_owned()))]
        .into_iter()
        .chain(bits.map(|bits| [Token::Sign("/"), Token::Word(bits.to_owned())]).into_iter().flatten().map(Some))
        .flatten()
        .collect();
    enter(table, not, host(&mut Words(&tokens))?)
}

fn enter(table: &mut Table, not: bool, operand: Operand) -> Read<()> {
    match &operand {
        Operand::Any | Operand::NoRoute | Operand::UrpfFailed | Operand::Range(..) => {
            return Err("a table holds addresses and networks".to_owned());
        }
        Operand::Interface(of) if of.dynamic => return Err("a table holds no address in brackets".to_owned()),
        _ => {}
    }
    match as_network(&operand) {
        Some(network) => table.insert(network, not),
        None => table.others.push((not, operand)),
    }
    Ok(())
}
