//! A line: whose it is, and the request that its words make.

use std::fmt;
use std::sync::Arc;

use regex_lite::Regex;

use super::words::{Word, refused, words};
use crate::error::{Error, Kind, Result, quoted};
use crate::name::JailName;
use crate::options::{Given, Source, Takes};
use crate::publisher::Request;
use crate::spec;

/// The longest regular expression, and the memory that one may need when it is compiled, in bytes.
const MAX_PATTERN: usize = 1 << 10;
const MAX_COMPILED: usize = 1 << 20;

/// The jails that a line is for.
#[derive(Clone, Debug)]
enum Whose {
    /// The jail with this name.
    Named(JailName),
    /// Every jail whose name has a match.
    Matching(Regex),
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    whose: Whose,
    /// With the name of the jail, or with the pattern in its place.
    request: Request,
    /// The words after the jail, as written.
    words: Vec<String>,
    file: Arc<str>,
    number: usize,
}

/// The file and the number of the line.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.number)
    }
}

impl Line {
    /// Whether it is for a jail with this name.
    pub fn is_of(&self, jail: &JailName) -> bool {
        match &self.whose {
            Whose::Named(name) => name == jail,
            Whose::Matching(pattern) => pattern.is_match(jail.as_str()),
        }
    }

    /// The jail that it names.
    pub fn jail(&self) -> Option<&JailName> {
        match &self.whose {
            Whose::Named(name) => Some(name),
            Whose::Matching(_) => None,
        }
    }

    /// Whether it names a target that is not a jail.
    pub fn is_no_jail(&self) -> bool {
        self.request.no_jail
    }

    /// Its request, for one of its jails.
    pub fn request(&self, jail: &JailName) -> Request {
        Request { jail: jail.clone(), ..self.request.clone() }
    }

    /// The sources that it names.
    pub fn sources(&self) -> &[Source] {
        &self.request.options.sources
    }

    /// The words after the jail: those of `kport publish`.
    pub fn words(&self) -> &[String] {
        &self.words
    }
}

/// The lines of a text; `file` is its name for messages.
pub fn parse(file: &str, text: &str) -> Result<Vec<Line>> {
    let file: Arc<str> = file.into();
    let mut lines = vec![];
    for (number, text) in (1..).zip(text.lines()) {
        let line = line(&file, number, text).map_err(|error| error.context(format_args!("{file}:{number}")))?;
        lines.extend(line);
    }
    Ok(lines)
}

/// `None` for a line without words.
fn line(file: &Arc<str>, number: usize, text: &str) -> Result<Option<Line>> {
    let all = words(text)?;
    let Some((first, rest)) = all.split_first() else { return Ok(None) };
    let whose = whose(first)?;
    let name = match &whose {
        Whose::Named(name) => name.clone(),
        Whose::Matching(_) => first.text.parse()?,
    };
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
    if request.no_jail && matches!(whose, Whose::Matching(_)) {
        return Err(refused(first.at, "a pattern is for jails, and --no-jail names a target that is not one"));
    }
    let words = rest.iter().map(|word| word.text.to_owned()).collect();
    Ok(Some(Line { whose, request, words, file: Arc::clone(file), number }))
}

fn whose(word: &Word<'_>) -> Result<Whose> {
    let Some(pattern) = word.text.strip_prefix('/') else {
        let is_spec = word.text.contains([':', '/']) || word.text.chars().all(|c| c.is_ascii_digit() || c == '-');
        if is_spec || word.text.starts_with('-') {
            return Err(refused(word.at, format!("the name of the jail comes first, and not {}", quoted(word.text))));
        }
        return Ok(Whose::Named(
            word.text.parse().map_err(|error: Error| error.context(format_args!("at byte {}", word.at)))?,
        ));
    };
    let Some(pattern) = pattern.strip_suffix('/') else {
        return Err(refused(word.at, "a regular expression ends with /; quote one that holds blanks"));
    };
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Err(refused(word.at, format!("a regular expression has 1 to {MAX_PATTERN} bytes")));
    }
    let made = regex_lite::RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build();
    made.map(Whose::Matching).map_err(|error| refused(word.at + 1, format!("{}: {error}", quoted(pattern))))
}

/// An option as it was given, with its word.
type OptionOf<'a> = (&'a Word<'a>, &'a str, Given);

/// The specs, and the options, in any order, as on the command line.
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
        let mut value = || match value {
            Some(value) => Ok(value.to_owned()),
            None => words
                .next()
                .map(|word| word.text.to_owned())
                .ok_or_else(|| refused(word.at, format!("{} needs a value", word.text))),
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
    Error::new(Kind::Argument, format!("at byte {}: there is no option {}", word.at, quoted(name))).at(word.at)
}
