//! Finds the places of kport's lines in a pf.conf: bytes in, plan out.
//!
//! pf.conf(5) wants options, normalization, queueing, translation and filter rules in this order. Where the lines may be
//! is decided by this order, and which of these places is right by [`proof`], which evaluates packets. The file with the lines is
//! proved before it is written.

use std::fmt;
use std::path::Path;

use crate::error::Result;
use crate::host::Host;
use crate::name::PARENT;
use crate::pfconf::{Conf, Outline, RuleKind, Section, Statement};
use crate::proof::{self, CallPlace, Contradiction, Need, Positions, Proof};
use crate::readiness::{CALLS, Wildcard, missing, wildcards};

use super::marks;
use super::settings::list;

const FILTER: &str = CALLS[2].1;

#[derive(Clone, Debug)]
pub struct Insertion {
    /// The number of the line that they go after; 0 for the top of the file.
    pub after: usize,
    /// The bytes of the file that are before them.
    at: usize,
    beside: String,
    pub lines: Vec<&'static str>,
}

#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The file with the lines.
    pub text: Vec<u8>,
    /// From the top down; empty if the lines are there, or must be added by hand.
    pub insertions: Vec<Insertion>,
    /// Why only the administrator can choose the place.
    pub by_hand: Vec<String>,
    pub notes: Vec<String>,
    /// What holds of the file with the lines; its lines have the numbers from before that.
    pub checked: Option<Checked>,
    /// Whether the lines of an earlier setup are moved.
    moves: bool,
    /// What is said of the calls by wildcard that are turned into calls of the tree.
    turned: String,
    pub missing: Vec<&'static str>,
}

/// The file with its calls by wildcard turned into calls of the tree, and what is said of that; or of what must be done by hand.
pub fn turned(name: &str, text: &[u8], all: &[Wildcard]) -> (Vec<u8>, String) {
    let own: Vec<&Wildcard> = all.iter().filter(|wildcard| *wildcard.file == *name).collect();
    let bytes: Option<Vec<_>> = own.iter().map(|wildcard| wildcard.in_text(text)).collect();
    let Some(bytes) = bytes else {
        let line = own[0].line;
        return (text.to_owned(), format!("  note: line {line} calls \"{PARENT}/*\": write \"{PARENT}\" instead\n"));
    };
    let text = marks::turned(text, &bytes);
    let mut shown = String::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if own.iter().any(|wildcard| wildcard.line == number) {
            let line = String::from_utf8_lossy(line);
            shown += &format!("  line {number} without the wildcard:\n    {}\n", line.trim());
        }
    }
    (text, shown)
}

/// A statement of the file, with the rules in its braces if it has any, or with those of the file that it includes.
struct Top<'a> {
    statement: &'a Statement,
    /// The byte after it.
    end: usize,
    /// How many rules the main ruleset has after it.
    rules: usize,
    sections: Vec<Section>,
}

impl Top<'_> {
    fn has(&self, section: Section) -> bool {
        self.sections.contains(&section)
    }
}

fn tops<'a>(outline: &'a Outline, name: &str) -> Vec<Top<'a>> {
    let mut tops: Vec<Top<'_>> = vec![];
    for statement in &outline.statements {
        let (section, included) = (statement.section(), *statement.origin.file != *name);
        match tops.last_mut() {
            Some(last) if included || statement.depth > 0 || section == Section::Close => {
                last.rules = statement.rules;
                if statement.depth == 0 && section != Section::Close {
                    last.sections.push(section);
                }
                if !included {
                    last.end = statement.bytes.end;
                }
            }
            _ => {
                tops.push(Top { statement, end: statement.bytes.end, rules: statement.rules, sections: vec![section] })
            }
        }
    }
    tops
}

/// A place for lines: the byte, and how many rules of the main ruleset come before it.
struct Candidate {
    at: usize,
    rules: usize,
}

/// The places for a kind of calls: where one is, or the end of each statement of the section, and before the first one.
fn candidates(all: &[Top<'_>], text: &[u8], kind: RuleKind) -> Vec<Candidate> {
    let rules_before = |at: usize| at.checked_sub(1).map_or(0, |before| all[before].rules);
    if let Some(at) = all.iter().position(|top| top.statement.calls_kport(kind)) {
        return vec![Candidate { at: all[at].statement.bytes.start, rules: rules_before(at) }];
    }
    let of_filter = kind == RuleKind::Filter;
    let has_own = |top: &Top<'_>| top.has(if of_filter { Section::Filter } else { Section::Translation });
    // the order of the sections
    let earlier =
        all.iter().rposition(|top| top.has(Section::BeforeTranslation) || of_filter && top.has(Section::Translation));
    let first = earlier.map_or(0, |last| last + 1);
    let later = all.iter().position(|top| !of_filter && top.has(Section::Filter));
    let end = later.unwrap_or(all.len());
    let begins = (first..end).find(|at| has_own(&all[*at])).unwrap_or(end);
    let mut found = vec![];
    if begins >= first {
        let at = match all.get(begins) {
            None => text.len(),
            // filter lines are next to the filter rules
            Some(top) if of_filter || begins == 0 => {
                let newline = text[..top.statement.bytes.start].iter().rposition(|byte| *byte == b'\n');
                newline.map_or(0, |newline| newline + 1)
            }
            Some(_) => all[begins - 1].end,
        };
        found.push(Candidate { at, rules: rules_before(begins) });
    }
    found.extend(
        all[begins..end].iter().filter(|top| has_own(top)).map(|top| Candidate { at: top.end, rules: top.rules }),
    );
    found
}

/// The file that is planned for, and the host that its packets are evaluated on.
pub struct Ground<'a> {
    pub host: &'a dyn Host,
    pub name: &'a Path,
}

impl Ground<'_> {
    fn file(&self) -> String {
        self.name.display().to_string()
    }

    /// `number` is the number of a line in messages.
    fn prove(&self, text: &[u8], quick: bool, number: impl Fn(usize) -> usize) -> Result<Proof> {
        let mut conf = Conf::of_named(self.name, text)?;
        conf.renumber(&self.file(), number);
        let (judge, entrances) = proof::judge(self.host, [("", &conf)], &self.file())?;
        proof::prove_with(&judge, &entrances, quick)
    }
}

#[derive(Clone, Debug)]
pub struct Checked {
    pub proof: Proof,
    /// The statement that must decide after kport's rules, if these must not be quick.
    no_quick: Option<String>,
    /// The line that the filter call belongs after, if it is in a wrong place and was not added by setup.
    better: Option<String>,
}

/// Judges a file that has the lines. Their place is wrong if kport's rules must not be quick there, but may be in another one.
pub fn check(ground: &Ground<'_>, text: &[u8]) -> Result<Checked> {
    let proof = ground.prove(text, true, |line| line)?;
    if proof.holds() {
        return Ok(Checked { proof, no_quick: None, better: None });
    }
    let other = place(ground, &without_calls(ground, text), &CALLS.map(|(_, line)| line)).unwrap_or_default();
    if other.checked.is_some_and(|other| other.no_quick.is_some()) {
        let slow = ground.prove(text, false, |line| line)?;
        if slow.holds() {
            return Ok(Checked { proof: slow, no_quick: first_bypassed(proof), better: None });
        }
    }
    let better = other.insertions.into_iter().find(|insertion| insertion.lines.contains(&FILTER));
    Ok(Checked { proof, no_quick: None, better: better.map(|insertion| insertion.beside) })
}

fn first_bypassed(proof: Proof) -> Option<String> {
    proof.bypassed.into_keys().next().map(|statement| statement.to_string())
}

fn without_calls(ground: &Ground<'_>, text: &[u8]) -> Vec<u8> {
    let outline = Outline::of_file(ground.name, text);
    let file = ground.file();
    let mut made = vec![];
    let mut from = 0;
    for statement in outline.statements.iter().filter(|statement| *statement.origin.file == *file) {
        if CALLS.iter().any(|(kind, _)| statement.calls_kport(*kind)) {
            made.extend(&text[from..statement.bytes.start]);
            from = statement.bytes.end;
        }
    }
    made.extend(&text[from..]);
    made
}

/// The plan for `text`: lines that are missing, and lines of an earlier setup that must move.
pub fn plan(ground: &Ground<'_>, text: &[u8]) -> Plan {
    let mut plan = Plan { text: text.to_owned(), missing: missing(ground.name, text), ..Plan::default() };
    let outline = Outline::of_file(ground.name, text);
    if let Some(broken) = &outline.broken {
        plan.missing = CALLS.map(|(_, line)| line).to_vec();
        plan.by_hand.push(format!("line {}: {}", broken.origin.line, broken.why));
        return plan;
    }
    let name = ground.file();
    plan.notes = notes(&tops(&outline, &name));
    (plan.text, plan.turned) = turned(&name, text, &wildcards(ground.name, text));
    let without = without_added(&plan.text);
    plan.moves = without != plan.text;
    if plan.missing.is_empty() {
        match check(ground, &plan.text) {
            Ok(checked) if checked.proof.holds() || !plan.moves => {
                plan.checked = Some(checked);
                return plan;
            }
            Ok(_) => {}
            Err(error) => {
                plan.notes.push(format!("not proved: {error}"));
                return plan;
            }
        }
    }
    plan.missing = missing(ground.name, &without);
    match place(ground, &without, &plan.missing) {
        Ok(placed) if placed.by_hand.is_empty() => {
            let Plan { text, insertions, checked, .. } = placed;
            return Plan { text, insertions, checked, ..plan };
        }
        Ok(placed) => plan.by_hand = placed.by_hand,
        Err(error) => plan.by_hand = vec![error.to_string()],
    }
    plan
}

fn by_hand(all: &[Top<'_>]) -> Vec<String> {
    let first_filter = all.iter().position(|top| top.has(Section::Filter)).unwrap_or(all.len());
    let why = |(at, top): (usize, &Top<'_>)| {
        let line = top.statement.origin.line;
        if top.has(Section::Unknown) {
            return Some(format!("line {line}: {:?} is unknown to kport setup", top.statement.first()));
        }
        let is_late = at > first_filter && top.has(Section::Translation);
        is_late.then(|| format!("line {line}: a translation rule after the filter rules"))
    };
    all.iter().enumerate().filter_map(why).collect()
}

fn notes(all: &[Top<'_>]) -> Vec<String> {
    let skipped =
        all.iter().flat_map(|top| top.statement.skipped().into_iter().map(|name| (top.statement.origin.line, name)));
    let note = |(line, name): (usize, String)| match name.starts_with("lo") {
        true => format!("line {line}: pf skips {name}, so --host-access has no effect"),
        false => {
            format!("line {line}: pf skips {name}: no port is published there, and jails behind it are not protected")
        }
    };
    skipped.map(note).collect()
}

fn contradiction(found: &Contradiction) -> String {
    let needs = |Need { statement, does }: &Need| format!("{statement} {does}");
    let first = needs(&found.first);
    let both = found.second.as_ref().map(|second| format!("; {}; change one of the two lines", needs(second)));
    format!("no place is right for kport's rules: {first}{}", both.unwrap_or_default())
}

/// The missing lines at their places in `text`, or why only the administrator can choose these.
fn place(ground: &Ground<'_>, text: &[u8], missing: &[&'static str]) -> Result<Plan> {
    let outline = Outline::of_file(ground.name, text);
    let name = ground.file();
    let all = tops(&outline, &name);
    let nowhere = |by_hand: Vec<String>| Ok(Plan { by_hand, ..Plan::default() });
    let unknown = by_hand(&all);
    if !unknown.is_empty() {
        return nowhere(unknown);
    }
    let conf = Conf::of_named(ground.name, text)?;
    let [nat, rdr, filter] = CALLS.map(|(kind, _)| candidates(&all, text, kind));
    let rules = |of: &[Candidate]| of.iter().map(|candidate| candidate.rules).collect();
    let positions = Positions { nat: rules(&nat), rdr: rules(&rdr), filter: rules(&filter) };
    let (judge, entrances) = proof::judge(ground.host, [("", &conf)], &name)?;
    let places = match proof::places(&judge, &conf, &entrances, &positions)? {
        Ok(places) => places,
        Err(found) => return nowhere(vec![contradiction(&found)]),
    };
    let mut failed = None;
    for place in places {
        let CallPlace { nat: at_nat, rdr: at_rdr, filter: at_filter, quick } = place;
        // a section may have no place at all
        let (Some(nat), Some(rdr), Some(filter)) = (nat.get(at_nat), rdr.get(at_rdr), filter.get(at_filter)) else {
            continue;
        };
        let insertions = insertions_at([nat.at, rdr.at, filter.at], text, missing);
        if let Some(last) = insertions.iter().find(|insertion| insertion.at == text.len())
            && (text.ends_with(b"\\") || text.ends_with(b"\\\n"))
        {
            return nowhere(vec![format!("line {}: the backslash at its end joins the next line to it", last.after)]);
        }
        let made = inserted(text, &insertions);
        let prove = |quick| ground.prove(&made, quick, |line| old_line(&insertions, line));
        let proof = prove(quick)?;
        if proof.holds() {
            let no_quick = if quick { None } else { first_bypassed(prove(true)?) };
            let checked = Some(Checked { proof, no_quick, better: None });
            return Ok(Plan { text: made, insertions, checked, ..Plan::default() });
        }
        failed.get_or_insert(proof);
    }
    let failures = failed.iter().flat_map(Proof::failures);
    nowhere(std::iter::once("no place is right for kport's rules".to_owned()).chain(failures).collect())
}

/// The missing lines at their places in a text, from the top down.
fn insertions_at(at: [usize; 3], text: &[u8], missing: &[&'static str]) -> Vec<Insertion> {
    let mut insertions: Vec<Insertion> = vec![];
    for ((_, line), at) in CALLS.iter().zip(at).filter(|((_, line), _)| missing.contains(line)) {
        match insertions.iter_mut().find(|insertion| insertion.at == at) {
            Some(same) => same.lines.push(line),
            None => {
                let lines = text[..at].split_inclusive(|byte| *byte == b'\n');
                let beside = lines.clone().next_back().unwrap_or_default();
                let beside = String::from_utf8_lossy(beside).trim().to_owned();
                insertions.push(Insertion { after: lines.count(), at, beside, lines: vec![line] });
            }
        }
    }
    insertions.sort_by_key(|insertion| insertion.at);
    insertions
}

/// The number that a line had before the lines were added; one of these has that of the line before them.
fn old_line(insertions: &[Insertion], line: usize) -> usize {
    let above = |line: usize, insertion: &Insertion| match line > insertion.after {
        true => line.saturating_sub(insertion.lines.len()).max(insertion.after),
        false => line,
    };
    insertions.iter().fold(line, above)
}

fn inserted(text: &[u8], insertions: &[Insertion]) -> Vec<u8> {
    let mut made = vec![];
    let mut from = 0;
    for insertion in insertions {
        made.extend(&text[from..insertion.at]);
        marks::add(&mut made, insertion.lines.iter().copied());
        from = insertion.at;
    }
    made.extend(&text[from..]);
    made
}

/// The file as it was before [`plan`].
pub fn undone(text: &[u8]) -> Vec<u8> {
    marks::turned_back(&without_added(text))
}

/// The file without the lines that [`plan`] has added. Earlier ones call by wildcard.
fn without_added(text: &[u8]) -> Vec<u8> {
    let by_wildcard = format!("\"{PARENT}/*\"");
    let own = |line: &str| line.replace(&by_wildcard, &format!("\"{PARENT}\""));
    marks::removed(text, |line| CALLS.iter().any(|(_, call)| *call == own(line)))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.turned)?;
        if self.missing.is_empty() {
            writeln!(f, "  has kport's lines")?;
        }
        if self.moves && !self.insertions.is_empty() {
            writeln!(f, "  the lines of kport setup are in a wrong place; without them:")?;
        }
        for Insertion { after, beside, lines, .. } in &self.insertions {
            let place = match after {
                0 => "at the top:".to_owned(),
                after if beside.is_empty() => format!("after line {after}:"),
                after => format!("after line {after}, {beside}"),
            };
            list(f, &place, lines)?;
        }
        if !self.by_hand.is_empty() {
            list(f, "kport cannot choose the place:", &self.by_hand)?;
            let with_place = |line: &&str| match *line {
                FILTER => format!(
                    "{FILTER}    after the rules that refuse sources, before any quick rule that blocks everybody"
                ),
                line => format!("{line}    after the last nat or rdr line, before the first filter rule"),
            };
            list(f, "add these lines by hand:", &self.missing.iter().map(with_place).collect::<Vec<_>>())?;
        }
        self.checked.iter().try_for_each(|checked| checked.fmt(f))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  by evaluation of packets:")?;
        for (holds, sentence) in self.proof.sentences() {
            writeln!(f, "    {}: {sentence}", if holds { "holds" } else { "fails" })?;
        }
        for note in self.proof.notes() {
            writeln!(f, "    note: {note}")?;
        }
        if let Some(statement) = &self.no_quick {
            writeln!(
                f,
                "  publish with --no-quick, so that {statement} decides after kport's rules; or make that line quick, and run \
                 kport setup again"
            )?;
        }
        match self.better.as_deref() {
            None => Ok(()),
            Some("") => writeln!(f, "  move {FILTER} to the place before the first filter rule"),
            Some(line) => writeln!(f, "  move {FILTER} to the place after {line}"),
        }
    }
}
