//! What a pf.conf(5) consists of: its statements, of which kind each is, and where. What edits a file edits it by these places.

use std::fmt;
use std::path::Path;

use super::lex::{Files, Read, Statement, Token};
use super::rule::{Action, Rule, RuleKind};
use super::words::Words;
use super::{Conf, How, operands, path::Called, statements};
use crate::error::{Error, Result};

/// What a statement is, by its first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// `name = value`
    Macro,
    /// `set`
    Option,
    /// `table`
    Table,
    /// `ether`
    Ether,
    /// `scrub`, `no scrub`
    Normalization,
    /// `altq`, `queue`
    Queueing,
    /// `nat`, `rdr`, `binat`, and each with `no`
    Translation,
    /// `nat-anchor`, `rdr-anchor`, `binat-anchor`, `anchor`
    Call(RuleKind),
    /// `antispoof`
    Antispoof,
    /// `block`
    Block,
    /// `pass`
    Pass,
    /// `match`
    Match,
    /// `include`
    Include,
    /// `load anchor`
    LoadAnchor,
    /// The brace that closes the rules of an anchor.
    Close,
    /// None of these.
    Unknown,
}

impl Statement {
    /// What it is.
    pub fn kind(&self) -> StatementKind {
        if let [Token::Word(_) | Token::Quoted(_), Token::Sign("="), ..] = &self.tokens[..] {
            return StatementKind::Macro;
        }
        match self.bare(0) {
            "set" => StatementKind::Option,
            "table" => StatementKind::Table,
            "ether" => StatementKind::Ether,
            "scrub" => StatementKind::Normalization,
            "no" if self.bare(1) == "scrub" => StatementKind::Normalization,
            "altq" | "queue" => StatementKind::Queueing,
            "nat" | "rdr" | "binat" | "no" => StatementKind::Translation,
            "nat-anchor" => StatementKind::Call(RuleKind::Nat),
            "rdr-anchor" => StatementKind::Call(RuleKind::Rdr),
            "binat-anchor" => StatementKind::Call(RuleKind::Binat),
            "anchor" => StatementKind::Call(RuleKind::Filter),
            "antispoof" => StatementKind::Antispoof,
            "block" => StatementKind::Block,
            "pass" => StatementKind::Pass,
            "match" => StatementKind::Match,
            "include" => StatementKind::Include,
            "load" => StatementKind::LoadAnchor,
            "}" => StatementKind::Close,
            _ => StatementKind::Unknown,
        }
    }

    fn bare(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", Token::bare)
    }

    /// Its first word or sign.
    pub fn first(&self) -> String {
        self.tokens.first().map_or_else(String::new, Token::shown)
    }

    /// Whether it is a rule with `quick`.
    pub fn is_quick(&self) -> bool {
        self.tokens.iter().any(|token| token.bare() == "quick")
    }

    /// The interfaces and groups of `set skip on`; none of another statement.
    pub fn skipped(&self) -> Vec<String> {
        let names = match &self.tokens[..] {
            [set, skip, on, names @ ..] if [set.bare(), skip.bare(), on.bare()] == ["set", "skip", "on"] => names,
            _ => &[],
        };
        let listed = Words(names).list(&mut operands::on).unwrap_or_default();
        listed.into_iter().map(|on| on.name).collect()
    }

    /// Whether it calls kport's anchors from where it is, for the rules of this kind.
    pub fn calls_kport(&self, kind: RuleKind) -> bool {
        let path = match &self.tokens[..] {
            [_, Token::Word(path) | Token::Quoted(path), ..] if self.kind() == StatementKind::Call(kind) => path,
            _ => return false,
        };
        Called::resolve(&self.path, path).is_kport()
    }
}

/// Where a text cannot be read any further, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// Why.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// The statements of a pf.conf(5) in their order, those of included files among them. One that cannot be read has its place all the
/// same, and [says why](Statement::refused).
#[derive(Debug, Default)]
pub struct Outline {
    /// The statements.
    pub statements: Vec<Statement>,
    /// Why there are no more of them: a quote or a brace that is not closed, a macro that is not defined.
    pub broken: Option<Broken>,
    pub(super) conf: Conf,
}

impl Outline {
    /// Reads a text by itself: a file that it includes is not read.
    pub fn of_text(text: &[u8]) -> Outline {
        statements::outline(text, How::default())
    }

    /// Reads a file, and those that it includes, as [`Conf::of_file`] does.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn of_file(path: &Path) -> Result<Outline> {
        let text = read_file(path)?;
        Ok(statements::outline(&text, How { name: &path.display().to_string(), files: FROM_DISK }))
    }

    /// The rules that come of a statement; none if it was not read.
    fn rules<'a>(&'a self, statement: &'a Statement) -> impl Iterator<Item = &'a Rule> {
        let ruleset = self.conf.rulesets.get(&statement.path).into_iter().flatten();
        ruleset.filter(|rule| rule.origin.line == statement.line && rule.origin.file == statement.file)
    }

    /// Whether a packet from anywhere to any port may end here: pf evaluates nothing after a quick rule that matches. Interfaces
    /// count for a pass rule alone; the rules in the braces of an anchor do not.
    pub fn ends_evaluation(&self, statement: &Statement) -> bool {
        statement.is_quick()
            && statement.kind() != StatementKind::Antispoof
            && self.rules(statement).any(ends_evaluation)
    }
}

fn ends_evaluation(rule: &Rule) -> bool {
    use super::address::Side;
    let when = &rule.when;
    let unlimited = when.direction != Some(crate::net::Direction::Out)
        && when.from == Side::any()
        && when.to == Side::any()
        && when.protocol.is_none();
    rule.quick
        && match rule.action {
            Action::Block => unlimited,
            Action::Pass => unlimited && when.on.is_none() && when.received_on.is_none(),
            Action::Call(..) => true,
            Action::Match | Action::Translate { .. } => false,
        }
}

/// Files by name, from the working directory as pfctl(8) has them.
pub(super) const FROM_DISK: Files<'static> = Some(&|name| read_named(name));

fn read_named(name: &str) -> Read<Vec<u8>> {
    std::fs::read(name).map_err(|error| format!("read {name}: {error}").into())
}

/// A file as it is.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(format_args!("read {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(text: &[u8]) -> Outline {
        Outline::of_text(text)
    }

    /// What each statement is, and its bytes.
    fn parts(text: &[u8]) -> Vec<(StatementKind, usize, usize, &[u8])> {
        let outline = outline(text);
        assert_eq!(outline.broken, None);
        outline.statements.iter().map(|s| (s.kind(), s.line, s.depth, &text[s.bytes.clone()])).collect()
    }

    #[test]
    fn statements_have_their_bytes() {
        use StatementKind::*;
        let text = b"# caf\xe9\nx = \"{ 1 \\\n 2 }\"\n\n  set skip on lo0 # \xff\r\n\\\nscrub in\nnat on em0 from { 10/8,\n 192.168.0.1\n} -> (em0)\n\
            rdr-anchor \"kport/*\"\nanchor \"a\" {\n  block in quick\n anchor in {\n}\n}\n$x \nantispoof for em0\nfrob\npass label \"\xe9\"";
        assert_eq!(
            parts(text),
            [
                (Macro, 2, 0, &b"x = \"{ 1 \\\n 2 }\"\n"[..]),
                (Option, 5, 0, b"set skip on lo0 # \xff\r\n"),
                (Normalization, 7, 0, b"scrub in\n"),
                (Translation, 8, 0, b"nat on em0 from { 10/8,\n 192.168.0.1\n} -> (em0)\n"),
                (Call(RuleKind::Rdr), 11, 0, b"rdr-anchor \"kport/*\"\n"),
                (Call(RuleKind::Filter), 12, 0, b"anchor \"a\" {\n"),
                (Block, 13, 1, b"block in quick\n"),
                (Call(RuleKind::Filter), 14, 1, b"anchor in {\n"),
                (Close, 15, 1, b"}\n"),
                (Close, 16, 0, b"}\n"),
                (Unknown, 17, 0, b"$x \n"),
                (Antispoof, 18, 0, b"antispoof for em0\n"),
                (Unknown, 19, 0, b"frob\n"),
                (Pass, 20, 0, b"pass label \"\xe9\""),
            ]
        );
        let outline = outline(text);
        let refused: Vec<bool> = outline.statements.iter().map(|s| s.refused.is_some()).collect();
        assert_eq!(refused.iter().filter(|refused| **refused).count(), 2, "{outline:?}");
        assert!(refused[10] && refused[12]);
        assert_eq!(outline.statements[1].skipped(), ["lo0"]);
        assert!(outline.statements[4].calls_kport(RuleKind::Rdr) && !outline.statements[4].calls_kport(RuleKind::Nat));
        // the rules that came of them, and where they say that they are
        let rules: Vec<usize> = outline.statements.iter().map(|s| outline.rules(s).count()).collect();
        assert_eq!(rules, [0, 0, 0, 2, 1, 1, 1, 1, 0, 0, 0, 2, 0, 1]);
        for statement in &outline.statements {
            for rule in outline.rules(statement) {
                let origin = &rule.origin;
                assert_eq!((&*origin.file, origin.line), (&*statement.file, statement.line));
                assert!(!origin.text.is_empty());
            }
        }
    }

    #[test]
    fn an_included_file_has_its_own_name() {
        let read = |name: &str| -> Read<Vec<u8>> {
            match name {
                "a" => Ok(b"x = em1\n\nblock in \\\n on $x".to_vec()),
                _ => Err("there is none".into()),
            }
        };
        let text = b"pass\ninclude \"a\" # \xe9\ninclude \"b\"\npass on $x\n";
        let outline = statements::outline(text, How { name: "main", files: Some(&read) });
        let found: Vec<_> = outline.statements.iter().map(|s| (&*s.file, s.line, s.bytes.clone())).collect();
        assert_eq!(
            found,
            [
                ("main", 1, 0..5),
                ("main", 2, 5..21),
                ("a", 1, 0..8),
                ("a", 3, 9..26),
                ("main", 3, 21..33),
                ("main", 4, 33..44)
            ]
        );
        assert!(outline.statements[4].refused.as_ref().is_some_and(|why| why == "there is none"));
        let rules: Vec<_> = outline.conf.rules().iter().map(|rule| (&*rule.origin.file, rule.origin.line)).collect();
        assert_eq!(rules, [("main", 1), ("a", 3), ("main", 4)]);
    }

    #[test]
    fn what_breaks_a_text() {
        for (text, line, why) in [
            ("pass\nblock label \"a\nb\n", 2, "a quote is not closed"),
            ("pass\npass in from { 10.0.0.1\n", 2, "a { is not closed"),
            ("pass\n\npass on $x\npass\n", 3, "macro x is not defined"),
            ("anchor {\npass\n", 2, "the } of an anchor is missing"),
            ("pass\n}\npass\n", 2, "there is no { that this } closes"),
        ] {
            let broken = outline(text.as_bytes()).broken.unwrap();
            assert_eq!((broken.line, &*broken.why), (line, why), "{text}");
        }
        // an anchor whose own line is not understood has its rules all the same
        let outline = outline(b"anchor frob frob {\n block quick\n}\nblock quick\n");
        assert_eq!(outline.broken, None);
        let ends: Vec<bool> = outline.statements.iter().map(|s| outline.ends_evaluation(s)).collect();
        assert_eq!(ends, [false, false, false, true]);
    }
}
