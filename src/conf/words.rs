//! The words of a line.

use crate::error::{Error, Kind, Result};

/// A word, and its offset in the line, in bytes from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// Without the quotes.
    pub text: &'a str,
    /// That of its first byte, after the quote.
    pub at: usize,
}

/// Splits a line at blanks, up to a `#` that begins a word. A word that begins with `"` ends at the next one, and may hold
/// blanks and `#`.
pub fn words(line: &str) -> Result<Vec<Word<'_>>> {
    let mut found = vec![];
    let mut at = 0;
    loop {
        at += line[at..].len() - line[at..].trim_start().len();
        let rest = &line[at..];
        if rest.is_empty() || rest.starts_with('#') {
            return Ok(found);
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let Some(length) = quoted.find('"') else { return Err(refused(at, "the closing \" is missing")) };
            let end = at + length + 2;
            if line[end..].starts_with(|c: char| !c.is_whitespace()) {
                return Err(refused(end, "a word with quotes ends with the quote; put a blank after it"));
            }
            found.push(Word { text: &quoted[..length], at: at + 1 });
            at = end;
            continue;
        }
        let text = rest.split(char::is_whitespace).next().unwrap_or(rest);
        if let Some(quote) = text.find('"') {
            return Err(refused(at + quote, "a quote inside a word; quote the whole word"));
        }
        found.push(Word { text, at });
        at += text.len();
    }
}

/// An error at an offset of the line.
pub fn refused(at: usize, why: impl AsRef<str>) -> Error {
    Error::new(Kind::Argument, format!("at byte {at}: {}", why.as_ref())).at(at)
}
