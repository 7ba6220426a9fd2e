//! The statements of a file, in order, with their positions, at which an editor edits it; rules are read in `conditions`.

use std::path::Path;
use std::sync::Arc;

use super::Conf;
use super::address::{OfInterface, Operand, Part, Table};
use super::conditions::{self, Defaults};
use super::lex::{Failure, Lexer, MOST, Read, Statement, Token};
use super::operands::{self, Words, host};
use super::path::Called;
use super::rule::{Action, Keep, On, Origin, Rule, RuleKind};
use crate::error::quoted;
use crate::net::{Direction, Family};

/// The parts of a file, in their order (require-order of parse.y), and statements that are in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Also `include`: the statements of the file have their own sections.
    Anywhere,
    BeforeTranslation,
    Translation,
    Filter,
    /// The brace that closes the rules of an anchor.
    Close,
    Unknown,
}

impl Statement {
    pub fn section(&self) -> Section {
        match self.bare(0) {
            _ if self.is_macro() => Section::Anywhere,
            "table" | "include" | "load" => Section::Anywhere,
            "set" | "ether" => Section::BeforeTranslation,
            _ if self.is_of_traffic() => Section::BeforeTranslation,
            "nat" | "rdr" | "binat" | "no" | "nat-anchor" | "rdr-anchor" | "binat-anchor" => Section::Translation,
            "anchor" | "antispoof" | "block" | "pass" | "match" => Section::Filter,
            "}" => Section::Close,
            _ => Section::Unknown,
        }
    }

    fn is_macro(&self) -> bool {
        matches!(&self.tokens[..], [Token::Word(_) | Token::Quoted(_), Token::Sign("="), ..])
    }

    /// Normalization and queueing, which change neither address nor verdict.
    fn is_of_traffic(&self) -> bool {
        matches!((self.bare(0), self.bare(1)), ("scrub" | "altq" | "queue", _) | ("no", "scrub"))
    }

    fn bare(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", Token::bare)
    }

    pub fn first(&self) -> &str {
        self.tokens.first().map_or("", Token::shown)
    }

    /// The interfaces and groups of `set skip on`; none for another statement.
    pub fn skipped(&self) -> Vec<String> {
        let [set, skip, on, names @ ..] = &self.tokens[..] else { return vec![] };
        if [set.bare(), skip.bare(), on.bare()] != ["set", "skip", "on"] {
            return vec![];
        }
        let listed = Words(names).list(&mut operands::on).unwrap_or_default();
        listed.into_iter().map(|on| on.name).collect()
    }

    /// Whether it calls kport's anchors from its position, for the rules of this kind.
    pub fn calls_kport(&self, kind: RuleKind) -> bool {
        self.bare(0) == kind.call() && self.called().is_some_and(|called| called.is_kport())
    }

    /// Whether it calls each of kport's anchors by wildcard.
    pub fn calls_by_wildcard(&self) -> bool {
        self.called().is_some_and(|called| called.is_kport() && called.children)
    }

    fn called(&self) -> Option<Called> {
        let [Token::Word(call), Token::Word(path) | Token::Quoted(path), ..] = &self.tokens[..] else { return None };
        call.ends_with("anchor").then(|| Called::resolve(&self.path, path))
    }
}

/// The statements of a file and of those that it includes, also those that [cannot be read](Statement::refused).
#[derive(Debug, Default)]
pub struct Outline {
    pub statements: Vec<Statement>,
    /// Why there are no more of them: a quote or a brace that is not closed, a macro that is not defined.
    pub broken: Option<Failure>,
}

impl Outline {
    /// Reads a single text: a file that it includes is not read. For tests.
    #[cfg(feature = "internals")]
    pub fn of_text(text: &[u8]) -> Outline {
        Reader::new("pf.conf", text, false).outline()
    }

    /// Reads the text of a file, and the files that it includes, like [`Conf::of_file`].
    pub fn of_file(path: &Path, text: &[u8]) -> Outline {
        Reader::new(&path.display().to_string(), text, true).outline()
    }
}

/// The maximum depth of anchors in braces (PFCTL_ANCHOR_STACK_DEPTH in sbin/pfctl/pfctl_parser.h).
const DEEPEST: usize = 64;

/// Options of `set` that do not decide about a packet of a trace.
#[rustfmt::skip]
const WITHOUT_EFFECT: &[&str] = &[
    "ruleset-optimization", "limit", "timeout", "optimization", "block-policy", "fail-policy", "loginterface", "debug",
    "hostid", "reassemble", "fingerprints", "keepcounters", "require-order",
];

#[derive(Default)]
struct Reader {
    lexer: Lexer,
    made: Conf,
    defaults: Defaults,
    /// The paths of the anchors that are open; `None` for one whose rules are skipped.
    open: Vec<Option<String>>,
    /// The number of anchors in braces so far: their names are numbers.
    braces: usize,
    rules: usize,
    /// Only the positions of statements are wanted. The files of tables have none, and may be large.
    is_outline: bool,
    /// `load anchor`: the path, the file, and the statement.
    loads: Vec<(String, String, Origin)>,
}

/// The output of pfctl(8): a rule is a line, whatever its quotes contain.
pub(super) fn read_output(text: &str) -> Conf {
    let mut reader = Reader::default();
    reader.defaults.output = true;
    for (number, line) in (1..).zip(text.lines()) {
        reader.lexer = Lexer::of_output(line);
        while let Some(next) = reader.lexer.statement() {
            let read = next.map_err(|failure| failure.why).and_then(|mut statement| reader.next(&mut statement));
            let known = read.or_else(|why| reader.add(vec![conditions::unknown(line).ok_or(why)?]));
            if let Err(why) = known {
                // the text has more than one line that another release knows
                let origin = Origin { file: "pfctl".into(), line: number, text: line.trim().into() };
                reader.made.unread.push(Failure { origin, why }.to_string());
            }
        }
    }
    reader.made
}

/// Reads a file that is loaded by `depth` others.
pub(super) fn read(name: &str, text: &[u8], reads_files: bool, depth: usize) -> Result<Conf, Failure> {
    let mut reader = Reader::new(name, text, reads_files);
    reader.statements(&mut |_| {})?;
    for (path, file, origin) in std::mem::take(&mut reader.loads) {
        let fail = |why: String| Failure { origin, why };
        if depth > 8 {
            return Err(fail("files load one another".into()));
        }
        let loaded = reader.lexer.read(&file).map_err(fail)?;
        let loaded = read(&file, &loaded, reads_files, depth + 1)?;
        for (below, rules) in loaded.rulesets {
            reader.made.rulesets.entry(below_of(&path, &below)).or_default().extend(rules);
        }
        reader.made.tables.extend(loaded.tables);
    }
    Ok(reader.made)
}

impl Reader {
    fn new(name: &str, text: &[u8], reads_files: bool) -> Reader {
        Reader { lexer: Lexer::new(name, text, reads_files), ..Reader::default() }
    }

    fn outline(mut self) -> Outline {
        self.is_outline = true;
        let mut statements = vec![];
        let broken = self.statements(&mut |statement| statements.push(statement)).err();
        Outline { statements, broken }
    }

    /// Reads all statements. In an outline one that is refused is skipped, unless it is unknown then where the next one begins.
    fn statements(&mut self, each: &mut dyn FnMut(Statement)) -> Result<(), Failure> {
        let mut last = Origin::default();
        while let Some(next) = self.lexer.statement() {
            let mut statement = next?;
            let read = self.next(&mut statement);
            statement.refused = read.as_ref().err().cloned();
            statement.rules = self.made.rules().len();
            last.clone_from(&statement.origin);
            let (section, opens) = (statement.section(), statement.opens);
            each(statement);
            match read {
                Err(why) if !self.is_outline || section == Section::Close => {
                    return Err(Failure { origin: last, why });
                }
                Err(_) if opens => self.open.push(None),
                _ => {}
            }
        }
        let origin = Origin { text: Arc::default(), ..last };
        let why = "the } of an anchor is missing".to_owned();
        if self.open.is_empty() { Ok(()) } else { Err(Failure { origin, why }) }
    }

    fn next(&mut self, statement: &mut Statement) -> Read<()> {
        let closes = statement.section() == Section::Close;
        statement.depth = self.open.len().saturating_sub(usize::from(closes));
        statement.path = self.path();
        let statement = &*statement;
        let mut words = Words(&statement.tokens[1..]);
        if closes {
            self.open.pop().ok_or("there is no { for this }")?;
            return words.end();
        }
        let is_macro = statement.is_macro() && !self.defaults.output;
        if self.open.last() == Some(&None) && !is_macro {
            self.open.extend(statement.opens.then_some(None));
            return Ok(());
        }
        match statement.bare(0) {
            _ if is_macro => {
                let value: Vec<&str> = statement.tokens[2..].iter().map(Token::shown).collect();
                self.lexer.define(statement.first(), value.join(" "))
            }
            _ if statement.is_of_traffic() => Ok(()),
            "include" => {
                let file = words.text()?.to_owned();
                words.end()?;
                self.lexer.include(&file)
            }
            "set" => self.set(words),
            "table" => self.table(words),
            "load" => self.load(words, statement),
            "antispoof" => self.antispoof(words, statement),
            "ether" => {
                self.open.extend(statement.opens.then_some(None));
                self.made.ether.push(super::print::written(&statement.tokens));
                Ok(())
            }
            "anchor" => self.anchor(words, statement),
            _ => {
                let rules = conditions::rules(Words(&statement.tokens), &statement.origin, &self.defaults)?;
                self.add(rules)
            }
        }
    }

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

    fn set(&mut self, mut words: Words<'_>) -> Read<()> {
        let option = words.next()?;
        match option.bare() {
            "skip" => {
                words.expect("on")?;
                let names = words.list(&mut operands::on)?;
                if let Some(on) = names.iter().find(|on| on.not) {
                    return Err(format!("skip on ! {} is not supported by pfctl(8)", on.name));
                }
                self.made.skip.extend(names.into_iter().map(|on| on.name).filter(|name| name != "none"));
            }
            "state-policy" => {
                self.defaults.if_bound = match words.next()?.bare() {
                    "if-bound" => true,
                    "floating" => false,
                    other => return Err(format!("{} is not a state-policy", quoted(other))),
                };
            }
            "state-defaults" => {
                let mut keep = Keep::default();
                let bound = conditions::state_options(&mut words, &mut keep, false)?;
                keep.if_bound = bound.unwrap_or(self.defaults.if_bound);
                self.defaults.keep = Some(keep);
            }
            "syncookies" => {
                self.made.syncookies = words.text()? == "always";
                return Ok(());
            }
            option if WITHOUT_EFFECT.contains(&option) => return Ok(()),
            _ => return Err(format!("set {} is not known", option.shown())),
        }
        words.end()
    }

    fn table(&mut self, mut words: Words<'_>) -> Read<()> {
        let name = operands::table(&mut words)?;
        let mut table = Table::default();
        while !words.is_empty() {
            let option = words.next()?;
            match option.bare() {
                "file" if self.is_outline => _ = words.text()?,
                "file" => {
                    let text = self.lexer.read(words.text()?)?;
                    let text = String::from_utf8_lossy(&text);
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
                _ if ["persist", "const", "counters"].contains(&option.shown()) => {}
                _ => return Err(format!("{} of a table is not known", option.shown())),
            }
        }
        self.made.tables.insert(name, table);
        Ok(())
    }

    fn load(&mut self, mut words: Words<'_>, statement: &Statement) -> Read<()> {
        words.expect("anchor")?;
        let path = words.text()?.to_owned();
        words.expect("from")?;
        let file = words.text()?.to_owned();
        words.end()?;
        let path = below_of(&self.path(), &path);
        self.loads.push((path, file, statement.origin.clone()));
        Ok(())
    }

    /// `anchor "name" in on em0 { ... }`, or a call of an anchor elsewhere.
    fn anchor(&mut self, mut words: Words<'_>, statement: &Statement) -> Read<()> {
        let name = if words.has_string() { Some(words.text()?.to_owned()) } else { None };
        // anchorname of parse.y
        if name.as_ref().is_some_and(|name| name.starts_with('_') || name.contains("/_")) && !self.defaults.output {
            return Err("names of anchors that begin with _ are reserved for internal use".into());
        }
        let called = if statement.opens {
            if self.open.len() >= DEEPEST {
                return Err(format!("more than {DEEPEST} anchors in anchors"));
            }
            self.braces += 1;
            if name.as_ref().is_some_and(|name| name.contains('/') || name == "*" || name.is_empty()) {
                return Err("the name of an anchor in braces must not be empty or *, or have a /".into());
            }
            name.unwrap_or_else(|| format!("_{}", self.braces))
        } else {
            name.filter(|name| !name.is_empty()).ok_or("an anchor without rules in braces needs a name")?
        };
        let below = below_of(&self.path(), &called);
        if statement.opens && self.made.rulesets.contains_key(&below) {
            return Err(format!("anchor {} in braces exists already", quoted(&below)));
        }
        let call = Rule::new(statement.origin.clone(), Action::Call(RuleKind::Filter, called));
        self.add(conditions::conditions(words, call, &self.defaults)?)?;
        if statement.opens {
            self.made.rulesets.insert(below.clone(), vec![]);
            self.open.push(Some(below));
        }
        Ok(())
    }

    /// Its networks may not arrive on other interfaces, and its addresses not at all but for loopback (antispoof in parse.y).
    fn antispoof(&mut self, mut words: Words<'_>, statement: &Statement) -> Read<()> {
        let mut block = Rule::new(statement.origin.clone(), Action::Block);
        block.when.direction = Some(Direction::In);
        let mut interfaces = vec![];
        while !words.is_empty() {
            match words.next()?.bare() {
                "log" => words.skip_brackets()?,
                "quick" => block.quick = true,
                "for" => interfaces = words.list(&mut interface)?,
                "inet" => block.when.family = Some(Family::Inet),
                "inet6" => block.when.family = Some(Family::Inet6),
                "label" | "ridentifier" | "rtable" => _ = words.next()?,
                word => return Err(format!("{} of antispoof is not known", quoted(word))),
            }
        }
        if interfaces.is_empty() {
            return Err("expected for and an interface".into());
        }
        for of in interfaces {
            let name = of.name.clone();
            let loopback = name.strip_prefix("lo").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
            let (mut network, mut own) = (block.clone(), block.clone());
            network.when.on = Some(On { not: true, name });
            network.when.from.address = Operand::Interface(OfInterface { part: Part::Network, ..of.clone() });
            own.when.from.address = Operand::Interface(of);
            self.add(if loopback { vec![network] } else { vec![network, own] })?;
        }
        Ok(())
    }
}

/// An interface of antispoof: `em0`, `(em0)`
fn interface(words: &mut Words<'_>) -> Read<OfInterface> {
    match host(words)? {
        Operand::Interface(of) if of.part == Part::Address && !of.first && of.bits.is_none() => Ok(of),
        other => Err(format!("{other} is not an interface")),
    }
}

/// The path of an anchor that a ruleset names.
fn below_of(path: &str, name: &str) -> String {
    if name.is_empty() { path.to_owned() } else { Called::resolve(path, name).path }
}

/// The contents of a table's file, and the output of `pfctl -T show`.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split(['#', ';']).next()).flat_map(str::split_whitespace)
}

impl Table {
    /// Reads the output of `pfctl -T show`. What is unknown is skipped.
    pub fn of_output(text: &str) -> Table {
        let mut table = Table::default();
        for entry in entries(text) {
            // the table lists only what was read
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
    let mut tokens = vec![Token::Word(address.to_owned())];
    if let Some(bits) = bits {
        tokens.extend([Token::Sign("/"), Token::Word(bits.to_owned())]);
    }
    enter(table, not, host(&mut Words(&tokens))?)
}

fn enter(table: &mut Table, not: bool, operand: Operand) -> Read<()> {
    // in pfctl's words (table_opt in parse.y)
    let refused = match operand {
        Operand::Network(network) => {
            table.insert(network, not);
            return Ok(());
        }
        Operand::Table(_) => return Err("tables cannot contain tables".into()),
        Operand::Any => "any is",
        Operand::NoRoute => "\"no-route\" is",
        Operand::UrpfFailed => "\"urpf-failed\" is",
        Operand::Range(..) => "address ranges are",
        Operand::Interface(of) if of.dynamic => "dynamic addresses are",
        other => {
            table.others.push((not, other));
            return Ok(());
        }
    };
    Err(format!("{refused} not permitted inside tables"))
}
