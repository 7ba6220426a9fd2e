//! kport's lines in the main ruleset: those that are loaded, and those in its file. By wildcard, as `anchor "kport/*"`, each new
//! connection is compared with the rules of every jail.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::Problem;
use crate::name::PARENT;
use crate::pf::Status;
use crate::pfconf::{Outline, PF_CONF, RuleKind};

use super::RELOAD;

/// The calls of kport's anchors, in the order that pf.conf(5) requires.
pub const CALLS: [(RuleKind, &str); 3] = [
    (RuleKind::Nat, "nat-anchor \"kport\""),
    (RuleKind::Rdr, "rdr-anchor \"kport\""),
    (RuleKind::Filter, "anchor \"kport\""),
];

/// The maximum size of a pf.conf(5) that is read to explain an error, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The calls that a pf.conf(5) does not have. `name` is its name, which files that it includes are relative to.
pub fn missing(name: &Path, text: &[u8]) -> Vec<&'static str> {
    let outline = Outline::of_file(name, text);
    let is_there = |kind| outline.statements.iter().any(|statement| statement.calls_kport(kind));
    CALLS.iter().filter(|(kind, _)| !is_there(*kind)).map(|(_, line)| *line).collect()
}

/// The calls that the file of the main ruleset does not have; `None` if the file cannot be read.
pub fn missing_in(file: &Path) -> Option<Vec<&'static str>> {
    let mut text = vec![];
    File::open(file).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some(missing(file, &text))
}

/// The loaded main ruleset does not call kport's anchors; `nat-anchor` only counts if a rule needs it. `file` is its file.
pub fn uncalled(status: &Status, needs_nat: bool, file: Option<&Path>) -> Option<Problem> {
    let loaded = |kind| match kind {
        RuleKind::Nat => status.nat_anchor || !needs_nat,
        RuleKind::Rdr => status.rdr_anchor,
        _ => status.anchor,
    };
    let lines: Vec<&str> = CALLS.into_iter().filter(|(kind, _)| !loaded(*kind)).map(|(_, line)| line).collect();
    if lines.is_empty() {
        return None;
    }
    let seen = "pf's main ruleset does not call kport's anchors";
    let in_file =
        file.filter(|file| missing_in(file).is_some_and(|missing| lines.iter().all(|line| !missing.contains(line))));
    Some(match in_file {
        Some(file) => Problem::new(
            format!("{seen}; {} does, but it is not what is loaded", file.display()),
            "service pf reload; if that fails, correct the line that it names",
        ),
        None => {
            let lines = lines.join(" and ");
            Problem::new(seen, format!("add to {PF_CONF}: {lines} (translation lines before filter lines), {RELOAD}"))
        }
    })
}

/// A line of pf.conf(5) that calls the anchor of each jail by wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    /// Its file: the one that was read, or one that it includes.
    pub file: Arc<str>,
    /// Its number, from 1.
    pub line: usize,
    bytes: Range<usize>,
}

/// Those of a file, whose name is `name`, and of the files that it includes.
pub fn wildcards(name: &Path, text: &[u8]) -> Vec<Wildcard> {
    let outline = Outline::of_file(name, text);
    let found = outline.statements.into_iter().filter(|statement| statement.calls_by_wildcard());
    found.map(|of| Wildcard { file: of.origin.file, line: of.origin.line, bytes: of.bytes }).collect()
}

/// Whether `kport setup` turns all of those that a file and the files that it includes have, and there are any.
pub fn can_be_turned(file: &Path) -> bool {
    let Ok(text) = std::fs::read(file) else { return false };
    let all = wildcards(file, &text);
    let is_in_text = |of: &Wildcard| std::fs::read(&*of.file).is_ok_and(|text| of.in_text(&text).is_some());
    !all.is_empty() && all.iter().all(is_in_text)
}

impl Wildcard {
    /// The bytes of `/*` in the text of its file; `None` if the path is a macro, or the call has several lines.
    pub fn in_text(&self, text: &[u8]) -> Option<Range<usize>> {
        let call = text.get(self.bytes.clone())?;
        let end = end_of_path(call).filter(|_| !call.trim_ascii_end().contains(&b'\n'))? + self.bytes.start;
        text[end..].starts_with(b"/*").then_some(end..end + 2)
    }
}

/// The byte after the path `kport` of a call.
pub fn end_of_path(call: &[u8]) -> Option<usize> {
    let after =
        |from: usize, skipped: &[u8]| Some(from + call[from..].iter().position(|byte| !skipped.contains(byte))?);
    let keyword = after(0, b" \t")?;
    let path = after(keyword + call[keyword..].iter().position(|byte| b" \t\"'\\".contains(byte))?, b" \t\r\n\\\"'/")?;
    call[path..].starts_with(PARENT.as_bytes()).then_some(path + PARENT.len())
}
