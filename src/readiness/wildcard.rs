//! The lines of pf.conf(5) that call the anchor of each jail by wildcard, as `anchor "kport/*"`: each new connection is compared with
//! the rules of every jail then.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::name::PARENT;
use crate::pfconf::Outline;

/// Such a line.
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
    found.map(|of| Wildcard { file: of.file, line: of.line, bytes: of.bytes }).collect()
}

/// Whether `kport setup` turns all of those that a file and the files that it includes have, and there are any.
pub fn can_be_turned(file: &Path) -> bool {
    let Ok(text) = std::fs::read(file) else { return false };
    let all = wildcards(file, &text);
    let is_in_text = |of: &Wildcard| std::fs::read(&*of.file).is_ok_and(|text| of.in_text(&text).is_some());
    !all.is_empty() && all.iter().all(is_in_text)
}

impl Wildcard {
    /// The bytes of `/*` in the text of its file; `None` if they are not there, since the path is a macro, or if it has several
    /// lines.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_found_in_a_call() {
        for (line, at) in [
            ("anchor \"kport/*\" on em0\n", Some(13)),
            ("\tanchor '/kport/*'\n", Some(15)),
            ("rdr-anchor kport/* # x\n", Some(16)),
            ("anchor \\\n \"kport\"\n", Some(16)),
            ("anchor $kport\n", None),
            ("anchor", None),
            ("", None),
        ] {
            assert_eq!(end_of_path(line.as_bytes()), at, "{line}");
        }
    }

    #[test]
    fn calls_by_wildcard_are_found() {
        let several = b"anchor \"kport/*\" \\\n on em0\n";
        assert_eq!(wildcards(Path::new("pf.conf"), several)[0].in_text(several), None);
        let text = b"k = '\"kport/*\"'\nnat-anchor \"kport/*\"\nrdr-anchor \"kport\"\nanchor \"other/*\"\nanchor $k\nanchor \"a\" {\n anchor \"/kport/*\"\n}\n";
        let found = wildcards(Path::new("pf.conf"), text);
        let lines: Vec<_> = found.iter().map(|of| (of.line, of.in_text(text).map(|at| text[at].to_vec()))).collect();
        assert_eq!(lines, [(2, Some(b"/*".to_vec())), (5, None), (7, Some(b"/*".to_vec()))]);
    }
}
