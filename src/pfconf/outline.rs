//! The statements of a pf.conf(5): the kind of each, and its position. An editor edits the file at these positions.

use std::fmt;

use super::lex::{Files, Statement, Token};
use super::operands::{self, Words};
use super::path::Called;
use super::rule::RuleKind;

/// The kind of a statement, by its first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementKind {
    Macro,
    Option,
    Table,
    Ether,
    Normalization,
    Queueing,
    Translation,
    Call(RuleKind),
    Antispoof,
    Block,
    Pass,
    Match,
    Include,
    LoadAnchor,
    /// The brace that closes the rules of an anchor.
    Close,
    Unknown,
}

impl Statement {
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

    pub fn first(&self) -> String {
        self.tokens.first().map_or_else(String::new, Token::shown)
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
        self.kind() == StatementKind::Call(kind) && self.called().is_some_and(|called| called.is_kport())
    }

    /// Whether it calls each of kport's anchors by wildcard.
    pub fn calls_by_wildcard(&self) -> bool {
        self.called().is_some_and(|called| called.is_kport() && called.children)
    }

    fn called(&self) -> Option<Called> {
        let [_, Token::Word(path) | Token::Quoted(path), ..] = &self.tokens[..] else { return None };
        matches!(self.kind(), StatementKind::Call(_)).then(|| Called::resolve(&self.path, path))
    }
}

/// Where and why a text cannot be read any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub file: String,
    pub line: usize,
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// The statements of a pf.conf(5) in their order, including those of included files. One that cannot be read is listed as
/// well, [with the reason](Statement::refused).
#[derive(Debug, Default)]
pub struct Outline {
    pub statements: Vec<Statement>,
    /// Why there are no more of them: a quote or a brace that is not closed, a macro that is not defined.
    pub broken: Option<Broken>,
}

/// Files by name, relative to the working directory like in pfctl(8).
pub(super) const FROM_DISK: Files<'static> =
    Some(&|name| std::fs::read(name).map_err(|error| format!("read {name}: {error}")));
