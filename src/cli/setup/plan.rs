//! Finds the places of kport's lines in a pf.conf: bytes in, plan out.
//!
//! pf.conf(5) wants options, normalization, queueing, translation and filter rules in this order. Among the translation rules
//! the first one that matches wins, so kport's come after those of the administrator and of other managers. Among the filter rules
//! the last one wins, or the first with `quick`; kport's are quick, so its line must come before any quick rule that
//! would match first, and after the rules that block if that is possible, for --no-quick.

use std::fmt;

use crate::pfconf::{Outline, RuleKind, Statement, StatementKind};

use super::marks;

/// The calls of the main ruleset, in the required order.
const NAT: &str = "nat-anchor \"kport/*\"";
const RDR: &str = "rdr-anchor \"kport/*\"";
const FILTER: &str = "anchor \"kport/*\"";
const CALLS: [(RuleKind, &str); 3] = [(RuleKind::Nat, NAT), (RuleKind::Rdr, RDR), (RuleKind::Filter, FILTER)];

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
    missing: Vec<&'static str>,
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

/// A statement of the main ruleset, with the rules in its braces if it has any.
struct Top<'a> {
    statement: &'a Statement,
    kind: StatementKind,
    /// The byte after it.
    end: usize,
}

impl Top<'_> {
    fn section(&self) -> Section {
        match self.kind {
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
            StatementKind::Include | StatementKind::Close | StatementKind::Unknown => Section::Unknown,
        }
    }

    /// Whether kport's filter rules come after it: rules that block, and the anchors of others.
    fn settles(&self) -> bool {
        match self.kind {
            StatementKind::Block => !self.statement.is_quick(),
            kind => matches!(kind, StatementKind::Call(RuleKind::Filter) | StatementKind::Antispoof),
        }
    }
}

/// The statements of the main ruleset.
fn tops(outline: &Outline) -> Vec<Top<'_>> {
    let mut tops: Vec<Top<'_>> = vec![];
    for statement in outline.statements.iter().filter(|statement| statement.depth == 0) {
        match (statement.kind(), tops.last_mut()) {
            (StatementKind::Close, Some(opened)) => opened.end = statement.bytes.end,
            (kind, _) => tops.push(Top { statement, kind, end: statement.bytes.end }),
        }
    }
    tops
}

/// The plan for `text`.
pub fn plan(text: &[u8]) -> Plan {
    let mut plan = Plan::default();
    let outline = Outline::of_text(text);
    if let Some(broken) = &outline.broken {
        plan.missing = CALLS.iter().map(|(_, line)| *line).collect();
        plan.by_hand.push(broken.to_string());
        return plan;
    }
    let all = tops(&outline);
    let is_there = |kind| all.iter().any(|top| top.statement.calls_kport(kind));
    plan.missing = CALLS.iter().filter(|(kind, _)| !is_there(*kind)).map(|(_, line)| *line).collect();
    plan.notes = notes(&outline, &all);
    if plan.missing.is_empty() {
        return plan;
    }
    plan.by_hand = by_hand(&all);
    if !plan.by_hand.is_empty() {
        return plan;
    }
    let (translation, filter): (Vec<&str>, Vec<&str>) = plan.missing.iter().partition(|line| **line != FILTER);
    let places = [(after_translation(&all, text), translation), (after_filter(&outline, &all, text), filter)];
    for (at, missing) in places.into_iter().filter(|(_, missing)| !missing.is_empty()) {
        match plan.insertions.iter_mut().find(|insertion| insertion.at == at) {
            Some(same) => same.lines.extend(missing),
            None => plan.insertions.push(Insertion { lines: missing, ..Insertion::at(at, text) }),
        }
    }
    let goes_on = text.ends_with(b"\\") || text.ends_with(b"\\\n");
    if let Some(last) = plan.insertions.pop_if(|insertion| goes_on && insertion.at == text.len()) {
        plan.insertions.clear();
        plan.by_hand.push(format!("line {}: the backslash at its end joins the next line to it", last.after));
    }
    plan
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
    let first_filter = all.iter().position(|top| top.section() == Section::Filter).unwrap_or(all.len());
    for (at, top) in all.iter().enumerate() {
        let line = top.statement.line;
        match top.section() {
            Section::Unknown if top.kind == StatementKind::Include => {
                why.push(format!("line {line}: the included file may have rules of any kind"))
            }
            Section::Unknown => {
                why.push(format!("line {line}: {:?} is unknown to kport setup", top.statement.first()));
            }
            Section::Translation if at > first_filter => {
                why.push(format!("line {line}: a translation rule after the filter rules"));
            }
            _ => {}
        }
    }
    why
}

fn notes(outline: &Outline, all: &[Top<'_>]) -> Vec<String> {
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
    let filters = || all.iter().filter(|top| top.section() == Section::Filter);
    let before = filters().take_while(|top| !top.statement.calls_kport(RuleKind::Filter));
    let ours = filters().find(|top| top.statement.calls_kport(RuleKind::Filter));
    if let Some(ours) = ours
        && let Some(last) = before.into_iter().find(|top| outline.ends_evaluation(top.statement))
    {
        notes.push(format!(
            "line {}: {FILTER} is never evaluated for traffic that line {} matches; move it before that line",
            ours.statement.line, last.statement.line
        ));
    }
    notes
}

/// The start of the line that has a byte.
fn line_start(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

/// The byte after which the translation lines are added.
fn after_translation(all: &[Top<'_>], text: &[u8]) -> usize {
    if let Some(last) = all.iter().rfind(|top| top.section() == Section::Translation) {
        return last.end;
    }
    match all.iter().position(|top| top.section() == Section::Filter) {
        None => text.len(),
        Some(0) => line_start(text, all[0].statement.bytes.start),
        Some(at) => all[at - 1].end,
    }
}

/// The byte after which the filter line is added.
fn after_filter(outline: &Outline, all: &[Top<'_>], text: &[u8]) -> usize {
    let filters: Vec<&Top<'_>> = all.iter().filter(|top| top.section() == Section::Filter).collect();
    let open = filters.iter().position(|top| outline.ends_evaluation(top.statement)).unwrap_or(filters.len());
    match (filters[..open].iter().rfind(|top| top.settles()), filters.first()) {
        (Some(last), _) => last.end,
        (None, Some(first)) => after_translation(all, text).max(line_start(text, first.statement.bytes.start)),
        (None, None) => after_translation(all, text),
    }
}

impl Plan {
    /// The file with the lines in it.
    pub fn applied(&self, text: &[u8]) -> Vec<u8> {
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

/// The file without the lines that [`Plan::applied`] has added.
pub fn undone(text: &[u8]) -> Vec<u8> {
    marks::removed(text, |line| CALLS.iter().any(|(_, call)| *call == line))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            writeln!(f, "  has kport's lines")?;
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
            writeln!(f, "  add these lines by hand:")?;
            for line in &self.missing {
                let place = match *line {
                    FILTER => "after your block rules, before any quick rule that would block the traffic",
                    _ => "after the last nat or rdr line, before the first filter rule",
                };
                writeln!(f, "    {line}    {place}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let theirs = b"rdr-anchor \"kport/*\"\nnat-anchor \"kport/*\" # mine\nanchor 'kport/*'\n";
        assert!(plan(theirs).missing.is_empty());
        assert_eq!(undone(theirs), theirs);
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
            [2, 7]
        );
        assert_eq!(places("# one \\\nblock quick all\nblock all\n"), [2, 3]);
        // a line that is there
        let plan = plan(b"rdr-anchor \"kport/*\"\nblock all\n");
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
        let late = plan(b"nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\nblock quick all\nanchor \"kport/*\"\n");
        assert!(late.notes[0].contains("line 4") && late.notes[0].contains("line 3"), "{:?}", late.notes);
    }

    #[test]
    fn what_it_cannot_tell() {
        for (text, why) in [
            ("include \"/etc/pf.d/a\"\nblock all\n", "included"),
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
                b"x = 1\n", b"\xff", b"set skip on lo\n", b"anchor \"kport/*\"\n", b"\t", b"$x", b"block all",
            ]), 0..12),
        ) {
            let text = parts.concat();
            let plan = plan(&text);
            let once = plan.applied(&text);
            proptest::prop_assert_eq!(undone(&once), &text[..], "{:?}", once);
            if !plan.insertions.is_empty() {
                proptest::prop_assert!(super::plan(&once).missing.is_empty(), "{:?}", once);
            }
        }
    }
}
