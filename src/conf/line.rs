//! A line: whose it is, and the request that its words make.

use std::fmt;
use std::sync::Arc;

use regex_lite::Regex;

use crate::error::{Error, Result, error, quoted};
use crate::name::JailName;
use crate::options::{Given, Source, Takes};
use crate::publisher::Request;
use crate::spec;

/// The longest regular expression, and the memory that one may need when it is compiled, in bytes.
const MAX_PATTERN: usize = 1 << 10;
const MAX_COMPILED: usize = 1 << 20;

#[derive(Clone, Debug)]
pub struct Line {
    /// If it is for every jail whose name has a match.
    pattern: Option<Regex>,
    /// With the name of the jail, or with the pattern in its place.
    pub(super) request: Request,
    /// The words after the jail, as written: those of `kport publish`.
    pub words: Vec<String>,
    file: Arc<str>,
    number: usize,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.number)
    }
}

impl Line {
    pub fn is_of(&self, jail: &JailName) -> bool {
        self.pattern.as_ref().map_or(self.request.jail == *jail, |pattern| pattern.is_match(jail.as_str()))
    }

    pub fn jail(&self) -> Option<&JailName> {
        self.pattern.is_none().then_some(&self.request.jail)
    }

    /// Its request, for one of its jails.
    pub fn request(&self, jail: &JailName) -> Request {
        Request { jail: jail.clone(), ..self.request.clone() }
    }

    pub fn sources(&self) -> &[Source] {
        &self.request.options.sources
    }
}

/// The lines of a text; `file` is its name for messages.
pub fn parse(file: &str, text: &str) -> Result<Vec<Line>> {
    let file: Arc<str> = file.into();
    let line = |(number, text)| {
        let made = line(&file, number, text).map_err(|error| error.context(format_args!("{file}:{number}")));
        made.transpose()
    };
    (1..).zip(text.lines()).filter_map(line).collect()
}

/// `None` for a line without words.
fn line(file: &Arc<str>, number: usize, text: &str) -> Result<Option<Line>> {
    let all = words(text)?;
    let Some((first, rest)) = all.split_first() else { return Ok(None) };
    let (name, pattern) = whose(first)?;
    let (specs, options) = sorted(rest)?;
    if specs.is_empty() {
        return Err(refused(text.trim_end().len(), "the ports are missing, such as 8080:80"));
    }
    // the offset of a mistake is that in the line
    let mut only_specs = vec![b' '; text.len()];
    for word in specs {
        only_specs[word.at..word.at + word.text.len()].copy_from_slice(word.text.as_bytes());
    }
    let mut request = Request::new(name, spec::parse(&String::from_utf8_lossy(&only_specs))?);
    for (word, option, given) in options {
        request
            .set(option, &given)
            .map_err(|error| error.context(format_args!("at byte {}: {}", word.at, word.text)))?;
    }
    request.configured = true;
    if request.no_jail && pattern.is_some() {
        return Err(refused(first.at, "a pattern is for jails, and --no-jail names a target that is not one"));
    }
    let words = rest.iter().map(|word| word.text.to_owned()).collect();
    Ok(Some(Line { pattern, request, words, file: Arc::clone(file), number }))
}

/// A word, and its offset in the line, in bytes from 0.
struct Word<'a> {
    /// Without the quotes.
    text: &'a str,
    /// That of its first byte, after the quote.
    at: usize,
}

/// Splits a line at blanks, up to a `#` that begins a word. A word in quotes may hold blanks and `#`.
fn words(line: &str) -> Result<Vec<Word<'_>>> {
    let mut found = vec![];
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let at = line.len() - rest.len();
        let (at, (text, behind)) = match rest.strip_prefix('"') {
            Some(quoted) => (at + 1, quoted.split_once('"').ok_or_else(|| refused(at, "the closing \" is missing"))?),
            None => (at, rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()))),
        };
        if let Some(quote) = text.find('"') {
            return Err(refused(at + quote, "a quote inside a word; quote the whole word"));
        }
        if behind.starts_with(|c: char| !c.is_whitespace()) {
            let end = line.len() - behind.len();
            return Err(refused(end, "a word with quotes ends with the quote; put a blank after it"));
        }
        found.push(Word { text, at });
        rest = behind.trim_start();
    }
    Ok(found)
}

/// An error at an offset of the line.
fn refused(at: usize, why: impl AsRef<str>) -> Error {
    error!(Argument, "at byte {at}: {}", why.as_ref()).at(at)
}

/// The name of the jail, or a pattern, which stands for the name as well.
fn whose(word: &Word<'_>) -> Result<(JailName, Option<Regex>)> {
    let Some(pattern) = word.text.strip_prefix('/') else {
        let is_spec = word.text.contains([':', '/']) || word.text.chars().all(|c| c.is_ascii_digit() || c == '-');
        if is_spec || word.text.starts_with('-') {
            return Err(refused(word.at, format!("the name of the jail comes first, and not {}", quoted(word.text))));
        }
        let name = word.text.parse().map_err(|error: Error| error.context(format_args!("at byte {}", word.at)))?;
        return Ok((name, None));
    };
    let Some(pattern) = pattern.strip_suffix('/') else {
        return Err(refused(word.at, "a regular expression ends with /; quote one that holds blanks"));
    };
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Err(refused(word.at, format!("a regular expression has 1 to {MAX_PATTERN} bytes")));
    }
    let made = regex_lite::RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build();
    let made = made.map_err(|error| refused(word.at + 1, format!("{}: {error}", quoted(pattern))))?;
    Ok((word.text.parse()?, Some(made)))
}

/// An option as it was given, with its word.
type OptionOf<'a> = (&'a Word<'a>, &'a str, Given);

/// The specs and the options, in any order, as on the command line.
fn sorted<'a>(words: &'a [Word<'a>]) -> Result<(Vec<&'a Word<'a>>, Vec<OptionOf<'a>>)> {
    let mut specs = vec![];
    let mut options: Vec<OptionOf<'a>> = vec![];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, value) = match word.text {
            "-a" => ("address", None),
            text => match text.strip_prefix("--") {
                None if text.starts_with('-') => return Err(unknown(word, text)),
                None => {
                    specs.push(word);
                    continue;
                }
                Some(option) => option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value))),
            },
        };
        if name == "add" {
            return Err(refused(word.at, "the lines of a jail are one publication: omit --add"));
        }
        let takes = Request::takes(name).ok_or_else(|| unknown(word, name))?;
        let mut value = || {
            let value = value.or_else(|| words.next().map(|next| next.text)).map(str::to_owned);
            value.ok_or_else(|| refused(word.at, format!("{} needs a value", word.text)))
        };
        let given = match takes {
            Takes::Flag if word.text.contains('=') => {
                return Err(refused(word.at, format!("--{name} takes no value")));
            }
            Takes::Flag => Given::Flag(true),
            Takes::Number | Takes::Word => Given::Text(value()?),
            Takes::Words => Given::List(vec![value()?]),
        };
        match options.iter_mut().find(|(_, known, _)| *known == name) {
            Some((_, _, Given::List(list))) => {
                if let Given::List(more) = given {
                    list.extend(more);
                }
            }
            Some(_) => return Err(refused(word.at, format!("--{name} is given twice"))),
            None => options.push((word, name, given)),
        }
    }
    Ok((specs, options))
}

fn unknown(word: &Word<'_>, name: &str) -> Error {
    refused(word.at, format!("there is no option {}", quoted(name)))
}
