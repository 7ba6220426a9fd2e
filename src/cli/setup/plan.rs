//! Finds the places of kport's lines in a pf.conf: bytes in, plan out.
//!
//! pf.conf(5) wants options, normalization, queueing, translation and filter rules in this order. Where the lines may be
//! is decided by this order, and which of these places is right by [`proof`], which evaluates packets. The file with the lines is
//! proved before it is written.

use std::fmt;
use std::path::Path;

use crate::error::Result;
use crate::host::Host;
use crate::pfconf::{Conf, Outline, RuleKind, Statement, StatementKind};
use crate::proof::{self, CallPlace, Contradiction, Does, Need, Positions, Proof};
use crate::readiness::{CALLS, Wildcard, missing, wildcards};

use crate::name::PARENT;

use super::marks;

/// The last of the calls.
const FILTER: &str = CALLS[2].1;

/// Lines that go after one line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insertion {
    /// The number of the line that they go after; 0 for the top of the file.
    pub after: usize,
    /// The bytes of the file that are before them.
    at: usize,
    /// The line that they go after.
    pub beside: String,
    /// The lines to add.
    pub lines: Vec<&'static str>,
}

/// The plan for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The insertions, from the top down; empty if the lines are there, or must be added by hand.
    pub insertions: Vec<Insertion>,
    /// Why only the administrator can choose the place.
    pub by_hand: Vec<String>,
    /// Notes about the file.
    pub notes: Vec<String>,
    /// What is proved of the file with the lines.
    pub proof: Option<Proof>,
    /// The statement that must decide after kport's rules, if these must not be quick.
    pub no_quick: Option<String>,
    /// The line that the filter call belongs after, if it is in a wrong place and was not added by setup.
    pub better: Option<String>,
    /// Whether the lines of an earlier setup are moved.
    pub moves: bool,
    /// The file without its calls by wildcard, if it had any.
    turned: Option<Turned>,
    missing: Vec<&'static str>,
}

/// A file in which the calls of kport's anchors by wildcard are turned into calls of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Its new contents.
    pub text: Vec<u8>,
    /// The numbers of the lines.
    lines: Vec<usize>,
}

impl Turned {
    /// The file `name` with contents `text`; `None` if none of `all` is in it.
    ///
    /// # Errors
    ///
    /// Why the administrator must do it.
    pub fn new(name: &str, text: &[u8], all: &[Wildcard]) -> Option<std::result::Result<Turned, String>> {
        let own: Vec<&Wildcard> = all.iter().filter(|wildcard| *wildcard.file == *name).collect();
        let lines: Vec<usize> = own.iter().map(|wildcard| wildcard.line).collect();
        let first = *lines.first()?;
        let bytes: Option<Vec<_>> = own.iter().map(|wildcard| wildcard.in_text(text)).collect();
        let made = bytes.map(|bytes| marks::turned(text, &bytes));
        let by_hand = || format!("line {first} calls \"{PARENT}/*\": write \"{PARENT}\" instead");
        Some(made.map(|text| Turned { text, lines }).ok_or_else(by_hand))
    }
}

impl fmt::Display for Turned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.text.split(|byte| *byte == b'\n').enumerate();
        for (at, line) in lines.filter(|(at, _)| self.lines.contains(&(at + 1))) {
            writeln!(f, "  line {} without the wildcard:\n    {}", at + 1, String::from_utf8_lossy(line).trim())?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    /// Macros, tables, `load anchor`: anywhere.
    Anywhere,
    /// Options, ethernet rules, normalization, queueing: before translation.
    Before,
    Translation,
    Filter,
    Unknown,
}

fn section(kind: StatementKind) -> Section {
    match kind {
        StatementKind::Macro | StatementKind::Table | StatementKind::LoadAnchor => Section::Anywhere,
        StatementKind::Option | StatementKind::Ether | StatementKind::Normalization | StatementKind::Queueing => {
            Section::Before
        }
        StatementKind::Call(RuleKind::Filter)
        | StatementKind::Antispoof
        | StatementKind::Block
        | StatementKind::Pass
        | StatementKind::Match => Section::Filter,
        StatementKind::Translation | StatementKind::Call(_) => Section::Translation,
        // the statements of the included file have their own sections
        StatementKind::Include => Section::Anywhere,
        StatementKind::Close | StatementKind::Unknown => Section::Unknown,
    }
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

/// The statements of the file itself.
fn tops<'a>(outline: &'a Outline, name: &str) -> Vec<Top<'a>> {
    let mut tops: Vec<Top<'_>> = vec![];
    for statement in &outline.statements {
        let (kind, included) = (statement.kind(), *statement.file != *name);
        match tops.last_mut() {
            Some(last) if included || statement.depth > 0 || kind == StatementKind::Close => {
                last.rules = statement.rules;
                if statement.depth == 0 && kind != StatementKind::Close {
                    last.sections.push(section(kind));
                }
                if !included {
                    last.end = statement.bytes.end;
                }
            }
            _ => tops.push(Top {
                statement,
                end: statement.bytes.end,
                rules: statement.rules,
                sections: vec![section(kind)],
            }),
        }
    }
    tops
}

/// A place for lines: the byte, and how many rules of the main ruleset come before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    at: usize,
    rules: usize,
}

/// The places for a kind of calls: where one is, or the end of each statement of the section, and before the first one.
fn candidates(all: &[Top<'_>], text: &[u8], kind: RuleKind) -> Vec<Candidate> {
    if let Some(at) = all.iter().position(|top| top.statement.calls_kport(kind)) {
        let rules = at.checked_sub(1).map_or(0, |before| all[before].rules);
        return vec![Candidate { at: all[at].statement.bytes.start, rules }];
    }
    let of_filter = kind == RuleKind::Filter;
    let own = if of_filter { Section::Filter } else { Section::Translation };
    // the order of the sections
    let first = all.iter().rposition(|top| top.has(Section::Before) || of_filter && top.has(Section::Translation));
    let first = first.map_or(0, |last| last + 1);
    let end =
        if of_filter { all.len() } else { all.iter().position(|top| top.has(Section::Filter)).unwrap_or(all.len()) };
    let after = |at: usize| Candidate { at: all[at].end, rules: all[at].rules };
    let before = |at: usize| {
        let rules = at.checked_sub(1).map_or(0, |before| all[before].rules);
        match (at.checked_sub(1), all.get(at)) {
            // filter lines are next to the filter rules
            (_, Some(top)) if of_filter || at == 0 => {
                Candidate { at: line_start(text, top.statement.bytes.start), rules }
            }
            (Some(before), Some(_)) => Candidate { at: all[before].end, rules },
            (_, None) => Candidate { at: text.len(), rules },
            (None, Some(_)) => Candidate { at: 0, rules },
        }
    };
    let mut found = vec![];
    let begins = (first..end).find(|at| all[*at].has(own)).unwrap_or(end);
    if begins >= first {
        found.push(before(begins));
    }
    found.extend((begins..end).filter(|at| all[*at].has(own)).map(after));
    found
}

/// The file that is planned for, and the host that its packets are evaluated on.
pub struct Ground<'a> {
    /// The host.
    pub host: &'a dyn Host,
    /// The name of the file.
    pub name: &'a Path,
}

impl Ground<'_> {
    fn prove(&self, text: &[u8], quick: bool) -> Result<Proof> {
        let conf = Conf::of_named(self.name, text)?;
        let (judge, possible) = proof::judge(self.host, [("", &conf)], &self.name.display().to_string())?;
        proof::prove_with(&judge, &possible, quick)
    }
}

/// What holds of a file that has the lines.
pub struct Checked {
    /// The sentences.
    pub proof: Proof,
    /// The statement that must decide after kport's rules, if these must not be quick.
    pub no_quick: Option<String>,
    /// The line that the filter call belongs after, if it is in a wrong place.
    pub better: Option<String>,
}

/// Judges a file that has the lines. They are in a wrong place if kport's rules must not be quick there, but may be in
/// another place.
pub fn check(ground: &Ground<'_>, text: &[u8]) -> Result<Checked> {
    let proof = ground.prove(text, true)?;
    if proof.holds() {
        return Ok(Checked { proof, no_quick: None, better: None });
    }
    let mut other = Plan { missing: CALLS.iter().map(|(_, line)| *line).collect(), ..Plan::default() };
    other.place(ground, &without_calls(ground.name, text))?;
    let better = other.insertions.iter().find(|insertion| insertion.lines.contains(&FILTER));
    if other.no_quick.is_some() {
        let slow = ground.prove(text, false)?;
        if slow.holds() {
            let no_quick = proof.bypassed.into_keys().next().map(|statement| statement.to_string());
            return Ok(Checked { proof: slow, no_quick, better: None });
        }
    }
    Ok(Checked { proof, no_quick: None, better: better.map(|insertion| insertion.beside.clone()) })
}

/// The file without its calls of kport's anchors.
fn without_calls(name: &Path, text: &[u8]) -> Vec<u8> {
    let outline = Outline::of_file(name, text);
    let file = name.display().to_string();
    let mut made = vec![];
    let mut from = 0;
    for statement in outline.statements.iter().filter(|statement| *statement.file == *file) {
        if CALLS.iter().any(|(kind, _)| statement.calls_kport(*kind)) {
            made.extend(&text[from..statement.bytes.start]);
            from = statement.bytes.end;
        }
    }
    made.extend(&text[from..]);
    made
}

/// The plan for `text`: lines that are missing, and lines of an earlier setup that must move.
pub fn plan(ground: &Ground<'_>, text: &[u8]) -> Result<Plan> {
    let mut plan = Plan { missing: missing(ground.name, text), ..Plan::default() };
    let outline = Outline::of_file(ground.name, text);
    if let Some(broken) = &outline.broken {
        plan.missing = CALLS.iter().map(|(_, line)| *line).collect();
        plan.by_hand.push(broken.to_string());
        return Ok(plan);
    }
    let name = ground.name.display().to_string();
    plan.notes = notes(&tops(&outline, &name));
    match Turned::new(&name, text, &wildcards(ground.name, text)) {
        None => {}
        Some(Ok(turned)) => plan.turned = Some(turned),
        Some(Err(why)) => plan.notes.push(why),
    }
    let turned = plan.turned.as_ref().map(|turned| turned.text.clone());
    let text = turned.as_deref().unwrap_or(text);
    let without = without_added(text);
    if plan.missing.is_empty() {
        let Checked { proof, no_quick, better } = match check(ground, text) {
            Ok(checked) => checked,
            Err(error) => {
                plan.notes.push(format!("not proved: {error}"));
                return Ok(plan);
            }
        };
        let holds = proof.holds();
        (plan.no_quick, plan.proof, plan.better) = (no_quick, Some(proof), better);
        if holds || without == text {
            return Ok(plan);
        }
    }
    let there = std::mem::take(&mut plan.proof);
    (plan.no_quick, plan.better) = (None, None);
    plan.moves = without != text;
    plan.missing = missing(ground.name, &without);
    plan.place(ground, &without)?;
    if !plan.by_hand.is_empty() {
        plan.proof = plan.proof.or(there);
    }
    Ok(plan)
}

impl Insertion {
    /// An empty insertion after the line that ends at a byte.
    fn at(at: usize, text: &[u8]) -> Insertion {
        let lines = text[..at].split_inclusive(|byte| *byte == b'\n');
        let beside = String::from_utf8_lossy(lines.clone().next_back().unwrap_or_default()).trim().to_owned();
        Insertion { after: lines.count(), at, beside, lines: vec![] }
    }
}

fn by_hand(all: &[Top<'_>]) -> Vec<String> {
    let mut why = vec![];
    let first_filter = all.iter().position(|top| top.has(Section::Filter)).unwrap_or(all.len());
    for (at, top) in all.iter().enumerate() {
        let line = top.statement.line;
        if top.has(Section::Unknown) {
            why.push(format!("line {line}: {:?} is unknown to kport setup", top.statement.first()));
        } else if at > first_filter && top.has(Section::Translation) {
            why.push(format!("line {line}: a translation rule after the filter rules"));
        }
    }
    why
}

fn notes(all: &[Top<'_>]) -> Vec<String> {
    let mut notes = vec![];
    for top in all {
        let line = top.statement.line;
        for name in top.statement.skipped() {
            notes.push(if name.starts_with("lo") {
                format!("line {line}: pf skips {name}, so --host-access has no effect")
            } else {
                format!(
                    "line {line}: pf skips {name}: no port is published there, and jails behind it are not protected"
                )
            });
        }
    }
    notes
}

/// The start of the line that has a byte.
fn line_start(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

/// Why a statement and another one do not allow any place.
fn contradiction(found: &Contradiction) -> String {
    let needs = |need: &Need| match &need.does {
        Does::RefusesSource => format!("{} refuses some because of their source: it must come before", need.statement),
        Does::BlocksAll(entrance) => {
            format!("{} decides about everybody's packets on {entrance}: it must come after", need.statement)
        }
        Does::Translates(entrance) => {
            format!(
                "{} ends the translation of everybody's packets on {entrance}: it must go, or come after",
                need.statement
            )
        }
    };
    match &found.second {
        Some(second) => format!(
            "no place is right for kport's rules: {}; {}; change one of the two lines",
            needs(&found.first),
            needs(second)
        ),
        None => format!("no place is right for kport's rules: {}", needs(&found.first)),
    }
}

impl Plan {
    /// Finds the places of the missing lines in `text`, or why there are none.
    fn place(&mut self, ground: &Ground<'_>, text: &[u8]) -> Result<()> {
        let outline = Outline::of_file(ground.name, text);
        let name = ground.name.display().to_string();
        let all = tops(&outline, &name);
        self.by_hand = by_hand(&all);
        if !self.by_hand.is_empty() {
            return Ok(());
        }
        let conf = match Conf::of_named(ground.name, text) {
            Ok(conf) => conf,
            Err(error) => {
                self.by_hand.push(error.to_string());
                return Ok(());
            }
        };
        let [nat, rdr, filter] = CALLS.map(|(kind, _)| candidates(&all, text, kind));
        let rules = |of: &[Candidate]| of.iter().map(|candidate| candidate.rules).collect();
        let positions = Positions { nat: rules(&nat), rdr: rules(&rdr), filter: rules(&filter) };
        let (judge, possible) = proof::judge(ground.host, [("", &conf)], &name)?;
        let places = match proof::places(&judge, &conf, &possible, &positions) {
            Ok(Ok(places)) => places,
            Ok(Err(found)) => {
                self.by_hand.push(contradiction(&found));
                return Ok(());
            }
            Err(error) => {
                self.by_hand.push(error.to_string());
                return Ok(());
            }
        };
        let mut failed = None;
        for place in places {
            let CallPlace { nat: at_nat, rdr: at_rdr, filter: at_filter, quick } = place;
            let (Some(nat), Some(rdr), Some(filter)) = (nat.get(at_nat), rdr.get(at_rdr), filter.get(at_filter)) else {
                continue;
            };
            self.insertions = self.insertions_at([nat.at, rdr.at, filter.at], text);
            if let Some(why) = self.goes_on(text) {
                self.insertions.clear();
                self.by_hand.push(why);
                return Ok(());
            }
            let made = self.inserted(text);
            let proof = match ground.prove(&made, quick) {
                Ok(proof) => proof,
                Err(error) => {
                    self.insertions.clear();
                    self.by_hand.push(error.to_string());
                    return Ok(());
                }
            };
            if proof.holds() {
                if !quick {
                    let bypassed = ground.prove(&made, true)?.bypassed;
                    self.no_quick = bypassed.into_keys().next().map(|statement| self.old(statement).to_string());
                }
                self.proof = Some(proof);
                return Ok(());
            }
            let mut proof = proof;
            proof.renumber(&|line| self.old_line(line));
            failed.get_or_insert(proof);
        }
        let proof = failed.unwrap_or_default();
        self.insertions.clear();
        self.by_hand.push("no place is right for kport's rules".to_owned());
        self.by_hand.extend(proof.failures());
        Ok(())
    }

    fn insertions_at(&self, at: [usize; 3], text: &[u8]) -> Vec<Insertion> {
        let mut insertions: Vec<Insertion> = vec![];
        for ((_, line), at) in CALLS.iter().zip(at).filter(|((_, line), _)| self.missing.contains(line)) {
            match insertions.iter_mut().find(|insertion| insertion.at == at) {
                Some(same) => same.lines.push(line),
                None => insertions.push(Insertion { lines: vec![line], ..Insertion::at(at, text) }),
            }
        }
        insertions.sort_by_key(|insertion| insertion.at);
        insertions
    }

    /// Why no line can be added at the end of a text.
    fn goes_on(&self, text: &[u8]) -> Option<String> {
        let goes_on = text.ends_with(b"\\") || text.ends_with(b"\\\n");
        let last = self.insertions.iter().find(|insertion| goes_on && insertion.at == text.len())?;
        Some(format!("line {}: the backslash at its end joins the next line to it", last.after))
    }

    /// The number that a line had before the lines were added.
    fn old_line(&self, line: usize) -> usize {
        let mut added = 0;
        for insertion in &self.insertions {
            let before = insertion.after + added;
            if line <= before {
                break;
            }
            if line <= before + insertion.lines.len() {
                return insertion.after;
            }
            added += insertion.lines.len();
        }
        line - added
    }

    fn old(&self, mut statement: proof::Cited) -> proof::Cited {
        if statement.line > 0 && statement.file.is_empty() {
            statement.line = self.old_line(statement.line);
        }
        statement
    }

    /// The file with the lines in it.
    pub fn applied(&self, text: &[u8]) -> Vec<u8> {
        let text = self.turned.as_ref().map_or(text, |turned| &turned.text);
        match self.moves && self.by_hand.is_empty() {
            true => self.inserted(&without_added(text)),
            false => self.inserted(text),
        }
    }

    fn inserted(&self, text: &[u8]) -> Vec<u8> {
        let mut made = vec![];
        let mut from = 0;
        for insertion in &self.insertions {
            made.extend(&text[from..insertion.at]);
            marks::add(&mut made, insertion.lines.iter().copied());
            from = insertion.at;
        }
        made.extend(&text[from..]);
        made
    }
}

/// The file as it was before [`Plan::applied`].
pub fn undone(text: &[u8]) -> Vec<u8> {
    marks::turned_back(&without_added(text))
}

/// The file without the lines that [`Plan::applied`] has added. Earlier ones call by wildcard.
fn without_added(text: &[u8]) -> Vec<u8> {
    let by_wildcard = format!("\"{PARENT}/*\"");
    let own = |line: &str| line.replace(&by_wildcard, &format!("\"{PARENT}\""));
    marks::removed(text, |line| CALLS.iter().any(|(_, call)| *call == own(line)))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(turned) = &self.turned {
            turned.fmt(f)?;
        }
        if self.missing.is_empty() {
            writeln!(f, "  has kport's lines")?;
        }
        if self.moves && !self.insertions.is_empty() {
            writeln!(f, "  the lines of kport setup are in a wrong place; without them:")?;
        }
        for insertion in &self.insertions {
            match insertion.after {
                0 => writeln!(f, "  at the top:")?,
                after if insertion.beside.is_empty() => writeln!(f, "  after line {after}:")?,
                after => writeln!(f, "  after line {after}, {}", insertion.beside)?,
            }
            for line in &insertion.lines {
                writeln!(f, "    {line}")?;
            }
        }
        if !self.by_hand.is_empty() {
            writeln!(f, "  kport cannot choose the place:")?;
            for why in &self.by_hand {
                writeln!(f, "    {why}")?;
            }
            if !self.missing.is_empty() {
                writeln!(f, "  add these lines by hand:")?;
            }
            for line in &self.missing {
                let place = match *line {
                    FILTER => "after the rules that refuse sources, before any quick rule that blocks everybody",
                    _ => "after the last nat or rdr line, before the first filter rule",
                };
                writeln!(f, "    {line}    {place}")?;
            }
        }
        if let Some(proof) = &self.proof {
            let mut proof = proof.clone();
            proof.renumber(&|line| self.old_line(line));
            f.write_str(&shown(&proof, self.no_quick.as_deref(), self.better.as_deref()))?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

/// What is proved of a file, and what of it fails.
pub fn shown(proof: &Proof, no_quick: Option<&str>, better: Option<&str>) -> String {
    let mut text = String::from("  by evaluation of packets:\n");
    for (holds, sentence) in proof.sentences() {
        text += &format!("    {}: {sentence}\n", if holds { "holds" } else { "fails" });
    }
    for note in proof.notes() {
        text += &format!("    note: {note}\n");
    }
    if let Some(statement) = no_quick {
        text += &format!(
            "  publish with --no-quick, so that {statement} decides after kport's rules; or make that line quick, and run \
             kport setup again\n"
        );
    }
    if let Some(line) = better {
        let place = if line.is_empty() { "before the first filter rule".to_owned() } else { format!("after {line}") };
        text += &format!("  move {FILTER} to the place {place}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAT: &str = CALLS[0].1;
    const RDR: &str = CALLS[1].1;
    use crate::host::Fixed;

    fn plan(text: &[u8]) -> Plan {
        let host: Fixed = r#"{
            "gateway": { "inet": "em0" },
            "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
                            { "name": "bridge0", "groups": [ "bridge" ], "up": true, "addresses": [ "10.0.0.1/24" ] } ]
        }"#
        .parse()
        .unwrap();
        super::plan(&Ground { host: &host, name: Path::new("pf.conf") }, text).unwrap()
    }

    fn plan_of(text: &[u8]) -> Plan {
        plan(text)
    }

    /// The numbers of the lines that the two groups go after.
    fn places(text: &str) -> Vec<usize> {
        plan(text.as_bytes()).insertions.iter().map(|insertion| insertion.after).collect()
    }

    #[test]
    fn an_empty_file_gets_all_three() {
        for text in [&b""[..], b"# nothing\n", b"\n\n", b"# no newline", b"# caf\xe9 \xff\r\n"] {
            let plan = plan(text);
            assert_eq!(plan.insertions.len(), 1, "{text:?}");
            assert_eq!(plan.insertions[0].lines, [NAT, RDR, FILTER]);
            assert_eq!(undone(&plan.applied(text)), text);
        }
    }

    #[test]
    fn again_changes_nothing() {
        let text = b"set skip on lo\nblock in all\npass out quick\n";
        let once = plan(text).applied(text);
        let again = plan(&once);
        assert!(again.missing.is_empty() && again.insertions.is_empty());
        assert_eq!(again.applied(&once), once);
        assert_eq!(undone(&once), text);
        // a file whose last line has no newline
        let once = plan(b"block all").applied(b"block all");
        assert_eq!(once.iter().filter(|byte| **byte == b'\n').count(), 4);
        assert!(plan(&once).missing.is_empty());
        assert_eq!(undone(&once), b"block all");
        // lines that somebody else has written stay
        let theirs = b"rdr-anchor \"kport\"\nnat-anchor \"kport\" # mine\nanchor 'kport'\n";
        assert!(plan(theirs).missing.is_empty());
        assert_eq!(undone(theirs), theirs);
    }

    #[test]
    fn calls_by_wildcard_are_turned() {
        let text =
            b"nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\" # mine\nblock in all\nanchor \"kport/*\" # kport setup\n";
        let plan = plan(text);
        assert!(plan.missing.is_empty() && plan.insertions.is_empty(), "{plan:?}");
        let made = plan.applied(text);
        let mark = "# kport setup (was \"kport/*\")";
        assert_eq!(
            String::from_utf8(made.clone()).unwrap(),
            format!("{NAT} {mark}\n{RDR} # mine {mark}\nblock in all\n{FILTER} # kport setup\n")
        );
        assert!(plan.to_string().contains("line 2 without the wildcard:\n    rdr-anchor \"kport\" # mine"), "{plan}");
        // what the administrator wrote is as it was; what an earlier setup has added goes
        assert_eq!(undone(&made), &text[..text.len() - 31]);
        assert_eq!(plan_of(&made).applied(&made), made);
        // with lines that are missing
        let text = b"rdr-anchor \"kport/*\"\nblock all";
        let made = plan_of(text).applied(text);
        assert!(made.starts_with(format!("{RDR} {mark}\n{NAT} # kport setup\n").as_bytes()), "{made:?}");
        assert_eq!(undone(&made), text);
        for text in [&b"k = '\"kport/*\"'\nanchor $k\n"[..], b"anchor \"kport/*\" \\\n on em0\n"] {
            let plan = plan_of(text);
            assert!(plan.turned.is_none() && plan.notes[0].contains("write \"kport\" instead"), "{plan:?}");
        }
    }

    #[test]
    fn sections() {
        assert_eq!(places("ext=\"em0\"\nset skip on lo\nscrub in\n\nblock all\npass out\n"), [3, 5]);
        assert_eq!(places("nat on em0 from any to any -> (em0)\nrdr-anchor \"x/*\"\nblock all\n"), [2, 3]);
        assert_eq!(places("pass in on em0\npass out\n"), [0]);
        assert_eq!(places("table <x> persist { \\\n10.0.0.0/8 }\nblock all\n"), [2, 3]);
        // a list over several lines, an anchor with its rules, a comment that goes on
        assert_eq!(
            places("x = \"{ 1 \\\n 2 }\"\nblock all\nanchor \"a\" {\n  pass in\n  block in quick\n}\npass out\n"),
            [2, 3]
        );
        assert_eq!(places("# one \\\nblock quick all\nblock all\n"), [2, 3]);
        // a line that is there
        let plan = plan(b"rdr-anchor \"kport\"\nblock all\n");
        assert_eq!(plan.insertions[0].lines, [NAT]);
        assert_eq!(plan.insertions[1].lines, [FILTER]);
    }

    #[test]
    fn rules_that_are_final() {
        assert_eq!(places("block in all\npass out quick\npass in proto tcp to port 22\n"), [0, 1]);
        assert_eq!(places("block in quick from <bad>\npass in quick on lo0\nblock all\nblock quick all\n"), [0, 3]);
        assert_eq!(places("pass in proto tcp to port 22\nblock in quick on em0\nblock all\n"), [0]);
        assert_eq!(places("block all\nanchor \"a\"\nanchor \"b\" quick\nblock all\n"), [0, 2]);
        assert_eq!(places("block all\npass quick all\nanchor \"a\"\n"), [0, 1]);
        assert_eq!(places("block in quick from any to any\n"), [0]);
        let late = plan(b"nat-anchor \"kport\"\nrdr-anchor \"kport\"\nblock quick all\nanchor \"kport\"\n");
        let failures: Vec<String> = late.proof.unwrap().failures().collect();
        assert!(failures.len() == 1 && failures[0].contains("line 3, block quick all"), "{failures:?}");
    }

    #[test]
    fn what_it_cannot_tell() {
        for (text, why) in [
            ("include \"/nonexistent/a\"\nblock all\n", "line 1: read /nonexistent/a"),
            ("block all\nnat on em0 -> (em0)\n", "after the filter rules"),
            ("blokc all\n", "\"blokc\""),
            ("x = \"a\nblock all\n", "a quote is not closed"),
            ("block in from { 10.0.0.1\n", "a { is not closed"),
            ("block all \\\n", "line 1: the backslash"),
            ("x = 1\n# \\", "line 2: the backslash"),
            ("block in from 10.0.0.1 }\n", "no { for this }"),
        ] {
            let plan = plan(text.as_bytes());
            assert!(plan.insertions.is_empty() && plan.by_hand[0].contains(why), "{text}: {plan:?}");
            let shown = plan.to_string();
            assert!([NAT, RDR, FILTER, "by hand"].iter().all(|line| shown.contains(line)), "{shown}");
            assert_eq!(plan.applied(text.as_bytes()), text.as_bytes());
        }
    }

    #[test]
    fn interfaces_that_pf_skips() {
        let plan = plan(b"set skip on { lo0 bridge }\n");
        assert!(
            plan.notes[0].contains("--host-access") && plan.notes[1].contains("pf skips bridge"),
            "{:?}",
            plan.notes
        );
    }

    /// Any bytes in comments and in quotes, and any line ends, are kept, and undo restores the same file.
    #[test]
    fn no_byte_is_lost() {
        let text =
            b"# caf\xe9 \xe2\x82\r\next = \"em\xe90\" # \xff \\\n goes on\n\t block in all label \"\xe9 \\\" \" # \r\n\
            anchor \"a\" { # \xe9\n pass in\n} # \xe9\npass out";
        let plan = plan(text);
        assert_eq!(plan.insertions.iter().map(|insertion| insertion.after).collect::<Vec<_>>(), [3, 7], "{plan:?}");
        let once = plan.applied(text);
        assert_eq!(
            once.len(),
            text.len() + CALLS.iter().map(|(_, line)| line.len() + 2 + marks::MARK.len()).sum::<usize>()
        );
        assert_eq!(undone(&once), text);
        let lines: Vec<&[u8]> = once.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(
            [lines[3], lines[4], lines[9]].concat(),
            format!("{NAT} {0}\n{RDR} {0}\n{FILTER} {0}\n", marks::MARK).as_bytes()
        );
    }

    proptest::proptest! {
        #[test]
        fn undo_gives_back_any_bytes(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                &b"block all\n"[..], b"pass quick", b"\n", b"\r\n", b"# \xe9", b"\"", b" \\\n", b"anchor {\n", b"}\n", b"nat on em0 -> em0\n",
                b"x = 1\n", b"\xff", b"set skip on lo\n", b"anchor \"kport\"\n", b"anchor \"kport/*\" # x\r\n", b"\t", b"$x", b"block all",
            ]), 0..12),
        ) {
            let text = parts.concat();
            let made = plan(&text);
            let once = made.applied(&text);
            proptest::prop_assert_eq!(undone(&once), &text[..], "{:?}", once);
            if !made.insertions.is_empty() {
                proptest::prop_assert!(plan(&once).missing.is_empty(), "{:?}", once);
            }
        }
    }
}
