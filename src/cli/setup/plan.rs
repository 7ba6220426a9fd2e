//! Where kport's lines belong in a pf.conf: text in, plan out.
//!
//! pf.conf(5) wants options, normalization, queueing, translation and filter rules in this order. Among the translation rules
//! the first one that matches wins, so that kport's come behind those of the admin and of other managers. Among the filter rules
//! the last one wins, or the first with `quick`; kport's own are quick, so that its line has to stand before any rule that ends
//! the matter for everybody, and stands behind the rules that block where that is possible, for the sake of --no-quick.

use std::fmt::{self, Write as _};

/// What marks a line as one that kport has put there.
pub const MARK: &str = "# kport setup";

/// The calls of the main ruleset, in the order in which they must stand.
const NAT: &str = "nat-anchor \"kport/*\"";
const RDR: &str = "rdr-anchor \"kport/*\"";
const FILTER: &str = "anchor \"kport/*\"";

/// Lines that go behind one line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insertion {
    /// The number of the line that they go behind; 0 for the top of the file.
    pub after: usize,
    /// That line.
    pub beside: String,
    /// What to put there, a line each.
    pub lines: Vec<&'static str>,
}

/// What a file needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What goes where, from the top down; nothing where the lines are there, and where they have to be put by hand.
    pub insertions: Vec<Insertion>,
    /// Why nobody but the admin can tell the right place.
    pub by_hand: Vec<String>,
    /// What to know about the file.
    pub notes: Vec<String>,
    missing: Vec<&'static str>,
}

/// One statement of pf.conf(5).
struct Statement {
    first: usize,
    last: usize,
    words: Vec<String>,
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

impl Statement {
    fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    fn section(&self) -> Section {
        if self.word(1) == "=" || self.word(0).contains('=') {
            return Section::Anywhere;
        }
        match self.word(0) {
            "table" | "load" => Section::Anywhere,
            "set" | "ether" | "scrub" | "altq" | "queue" => Section::Before,
            "nat" | "rdr" | "binat" | "nat-anchor" | "rdr-anchor" | "binat-anchor" | "no" => Section::Translation,
            "pass" | "block" | "match" | "antispoof" | "anchor" => Section::Filter,
            _ => Section::Unknown,
        }
    }

    /// Whether it is one of kport's calls.
    fn is(&self, line: &str) -> bool {
        line.split_once(' ').is_some_and(|(call, path)| self.word(0) == call && self.word(1) == path.trim_matches('"'))
    }

    /// Whether a packet from anywhere to a published port may never be looked at behind this rule.
    fn is_final(&self) -> bool {
        let restricted = |word: &str| {
            let mut rest = self.words.iter().skip_while(|w| *w != word).skip(1);
            rest.next().is_some_and(|next| next != "any")
        };
        let limited = restricted("from") || restricted("to") || self.has("proto") || self.has("port");
        self.has("quick")
            && match self.word(0) {
                "block" => !self.has("out") && !limited,
                "pass" => !self.has("out") && !limited && !self.has("on"),
                // not the rules that stand inside of it
                "anchor" => self.words.iter().take_while(|w| *w != "{").any(|w| w == "quick"),
                _ => false,
            }
    }
}

/// Splits a file into statements: to the end of the line, unless a brace or a quote is open or a backslash joins the next one.
fn statements(text: &str) -> Result<Vec<Statement>, String> {
    let mut found: Vec<Statement> = vec![];
    let mut words: Vec<String> = vec![];
    let (mut word, mut depth, mut quote, mut comment) = (String::new(), 0usize, None, false);
    let (mut line, mut first) = (1, 1);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\\' && quote.is_none() && characters.peek() == Some(&'\n') {
            // a comment goes on as well (lgetc() of sbin/pfctl/parse.y)
            characters.next();
            line += 1;
            continue;
        }
        let ends = quote.is_none() && (c.is_whitespace() || matches!(c, '{' | '}' | ',' | '=' | '(' | ')'));
        if !comment && (ends || (c == '#' && quote.is_none())) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        match c {
            '\n' => {
                comment = false;
                if depth == 0 && quote.is_none() && !words.is_empty() {
                    found.push(Statement { first, last: line, words: std::mem::take(&mut words) });
                }
                line += 1;
                if words.is_empty() && quote.is_none() {
                    first = line;
                }
            }
            _ if comment => {}
            '"' | '\'' if quote.is_none() => quote = Some((c, line)),
            _ if quote.is_some_and(|(open, _)| open == c) => {
                quote = None;
                words.push(std::mem::take(&mut word));
            }
            _ if quote.is_some() => word.push(c),
            '#' => comment = true,
            '{' => {
                depth += 1;
                words.push("{".to_owned());
            }
            '}' => depth = depth.checked_sub(1).ok_or(format!("line {line}: a brace is closed and none is open"))?,
            '=' => words.push("=".to_owned()),
            _ if ends => {}
            _ => word.push(c),
        }
    }
    if let Some((_, open)) = quote {
        return Err(format!("line {open}: a quote is not closed"));
    }
    if depth > 0 {
        return Err(format!("line {first}: a brace is not closed"));
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    if !words.is_empty() {
        found.push(Statement { first, last: line, words });
    }
    Ok(found)
}

/// What `text` needs.
pub fn plan(text: &str) -> Plan {
    let mut plan = Plan::default();
    let all = match statements(text) {
        Ok(all) => all,
        Err(why) => {
            plan.missing = vec![NAT, RDR, FILTER];
            plan.by_hand.push(why);
            return plan;
        }
    };
    plan.missing = [NAT, RDR, FILTER].into_iter().filter(|line| !all.iter().any(|s| s.is(line))).collect();
    plan.notes = notes(&all);
    if plan.missing.is_empty() {
        return plan;
    }
    plan.by_hand = by_hand(&all);
    if !plan.by_hand.is_empty() {
        return plan;
    }
    let lines: Vec<&str> = text.lines().collect();
    let (translation, filter): (Vec<&str>, Vec<&str>) = plan.missing.iter().partition(|line| **line != FILTER);
    let places = [(after_translation(&all, lines.len()), translation), (after_filter(&all, lines.len()), filter)];
    for (after, missing) in places.into_iter().filter(|(_, missing)| !missing.is_empty()) {
        let beside = after.checked_sub(1).and_then(|at| lines.get(at)).map_or("", |line| line.trim()).to_owned();
        match plan.insertions.iter_mut().find(|insertion| insertion.after == after) {
            Some(same) => same.lines.extend(missing),
            None => plan.insertions.push(Insertion { after, beside, lines: missing }),
        }
    }
    plan
}

fn by_hand(all: &[Statement]) -> Vec<String> {
    let mut why = vec![];
    let first_filter = all.iter().position(|s| s.section() == Section::Filter).unwrap_or(all.len());
    for (at, statement) in all.iter().enumerate() {
        let (line, word) = (statement.first, statement.word(0));
        match statement.section() {
            Section::Unknown if word == "include" => {
                why.push(format!("line {line}: what it includes may have rules of any kind"))
            }
            Section::Unknown => why.push(format!("line {line}: {word:?} is not known to kport setup")),
            Section::Translation if at > first_filter => {
                why.push(format!("line {line}: a translation rule behind the filter rules"));
            }
            _ => {}
        }
    }
    why
}

fn notes(all: &[Statement]) -> Vec<String> {
    let mut notes = vec![];
    for skip in all.iter().filter(|s| s.word(0) == "set" && s.word(1) == "skip") {
        let skipped: Vec<&str> = skip.words.iter().skip(3).map(String::as_str).filter(|word| *word != "{").collect();
        for name in skipped {
            notes.push(if name.starts_with("lo") {
                format!("line {}: pf skips {name}, so that --host-access has no effect", skip.first)
            } else {
                format!(
                    "line {}: pf skips {name}: no port is published there, and jails behind it are not protected",
                    skip.first
                )
            });
        }
    }
    let filters = || all.iter().filter(|s| s.section() == Section::Filter);
    let ours = filters().find(|s| s.is(FILTER));
    if let Some(ours) = ours
        && let Some(last) = filters().take_while(|s| s.first < ours.first).find(|s| s.is_final())
    {
        notes.push(format!(
            "line {}: {FILTER} is never reached by what line {} decides; move it in front of that",
            ours.first, last.first
        ));
    }
    notes
}

/// The line that the translation lines go behind.
fn after_translation(all: &[Statement], end: usize) -> usize {
    let first_filter = all.iter().position(|s| s.section() == Section::Filter);
    if let Some(last) = all.iter().rfind(|s| s.section() == Section::Translation) {
        return last.last;
    }
    match first_filter {
        None => end,
        Some(0) => all[0].first - 1,
        Some(at) => all[at - 1].last,
    }
}

/// The line that the filter line goes behind.
fn after_filter(all: &[Statement], end: usize) -> usize {
    let filters: Vec<&Statement> = all.iter().filter(|s| s.section() == Section::Filter).collect();
    let open = filters.iter().position(|s| s.is_final()).unwrap_or(filters.len());
    let settles =
        |s: &&&Statement| (s.word(0) == "block" && !s.has("quick")) || matches!(s.word(0), "anchor" | "antispoof");
    match (filters[..open].iter().rfind(settles), filters.first()) {
        (Some(last), _) => last.last,
        (None, Some(first)) => after_translation(all, end).max(first.first - 1),
        (None, None) => after_translation(all, end),
    }
}

impl Plan {
    /// The file with the lines in it.
    pub fn applied(&self, text: &str) -> String {
        let mut made = String::new();
        let put = |made: &mut String, after: usize| {
            for insertion in self.insertions.iter().filter(|insertion| insertion.after == after) {
                for line in &insertion.lines {
                    _ = writeln!(made, "{line} {MARK}");
                }
            }
        };
        put(&mut made, 0);
        for (number, line) in (1..).zip(text.lines()) {
            _ = writeln!(made, "{line}");
            put(&mut made, number);
        }
        made
    }
}

/// The file without the lines that [`Plan::applied`] has put there.
pub fn undone(text: &str) -> String {
    let ours = |line: &str| line.strip_suffix(MARK).is_some_and(|line| [NAT, RDR, FILTER].contains(&line.trim_end()));
    text.split_inclusive('\n').filter(|line| !ours(line.trim_end())).collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            writeln!(f, "  has kport's lines")?;
        }
        for insertion in &self.insertions {
            match insertion.after {
                0 => writeln!(f, "  at the top:")?,
                after if insertion.beside.is_empty() => writeln!(f, "  behind line {after}:")?,
                after => writeln!(f, "  behind line {after}, {}", insertion.beside)?,
            }
            for line in &insertion.lines {
                writeln!(f, "    {line}")?;
            }
        }
        if !self.by_hand.is_empty() {
            writeln!(f, "  kport cannot tell the right place:")?;
            for why in &self.by_hand {
                writeln!(f, "    {why}")?;
            }
            writeln!(f, "  put these lines there by hand:")?;
            for line in &self.missing {
                let place = match *line {
                    FILTER => "behind your block rules, before any quick rule that would block the traffic",
                    _ => "behind the last nat or rdr line, before the first filter rule",
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

    /// The numbers of the lines that the two groups go behind.
    fn places(text: &str) -> Vec<usize> {
        plan(text).insertions.iter().map(|insertion| insertion.after).collect()
    }

    #[test]
    fn an_empty_file_gets_all_three() {
        for text in ["", "# nothing\n", "\n\n"] {
            let plan = plan(text);
            assert_eq!(plan.insertions.len(), 1, "{text:?}");
            assert_eq!(plan.insertions[0].lines, [NAT, RDR, FILTER]);
            assert_eq!(undone(&plan.applied(text)), text);
        }
    }

    #[test]
    fn again_changes_nothing() {
        let text = "set skip on lo\nblock in all\npass out quick\n";
        let once = plan(text).applied(text);
        let again = plan(&once);
        assert!(again.missing.is_empty() && again.insertions.is_empty());
        assert_eq!(again.applied(&once), once);
        assert_eq!(undone(&once), text);
        // a file whose last line does not end
        assert_eq!(plan("block all").applied("block all").lines().count(), 4);
        // lines that somebody else has written stay
        let theirs = "rdr-anchor \"kport/*\"\nnat-anchor \"kport/*\" # mine\nanchor 'kport/*'\n";
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
        let plan = plan("rdr-anchor \"kport/*\"\nblock all\n");
        assert_eq!(plan.insertions[0].lines, [NAT]);
        assert_eq!(plan.insertions[1].lines, [FILTER]);
    }

    #[test]
    fn rules_that_are_final() {
        assert_eq!(places("block in all\npass out quick\npass in proto tcp to port 22\n"), [0, 1]);
        assert_eq!(places("block in quick from <bad>\npass in quick on lo0\nblock all\nblock quick all\n"), [0, 3]);
        assert_eq!(places("pass in proto tcp to port 22\nblock in quick on em0\nblock all\n"), [0]);
        assert_eq!(places("block all\nanchor \"a\"\nanchor quick \"b\"\nblock all\n"), [0, 2]);
        assert_eq!(places("block all\npass quick all\nanchor \"a\"\n"), [0, 1]);
        assert_eq!(places("block in quick from any to any\n"), [0]);
        let late = plan("nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\nblock quick all\nanchor \"kport/*\"\n");
        assert!(late.notes[0].contains("line 4") && late.notes[0].contains("line 3"), "{:?}", late.notes);
    }

    #[test]
    fn what_it_cannot_tell() {
        for (text, why) in [
            ("include \"/etc/pf.d/a\"\nblock all\n", "includes"),
            ("block all\nnat on em0 -> (em0)\n", "behind the filter rules"),
            ("blokc all\n", "\"blokc\""),
            ("x = \"a\nblock all\n", "a quote is not closed"),
            ("block in from { 10.0.0.1\n", "a brace is not closed"),
            ("block in from 10.0.0.1 }\n", "none is open"),
        ] {
            let plan = plan(text);
            assert!(plan.insertions.is_empty() && plan.by_hand[0].contains(why), "{text}: {plan:?}");
            let shown = plan.to_string();
            assert!([NAT, RDR, FILTER, "by hand"].iter().all(|line| shown.contains(line)), "{shown}");
            assert_eq!(plan.applied(text).trim_end(), text.trim_end());
        }
    }

    #[test]
    fn interfaces_that_pf_skips() {
        let plan = plan("set skip on { lo0 bridge }\n");
        assert!(
            plan.notes[0].contains("--host-access") && plan.notes[1].contains("pf skips bridge"),
            "{:?}",
            plan.notes
        );
    }
}
