//! The words of pf.conf(5), as pfctl's lexer reads them from the bytes (yylex in sbin/pfctl/parse.y): macros are replaced as
//! text, so that `$if:network` is one word, and are not replaced inside one another.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::names;
use super::rule::Origin;
use crate::error::quoted;

pub(super) type Read<T> = Result<T, String>;

/// Where and why a text cannot be read, or is refused. The text of the origin is empty if there is no statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub origin: Origin,
    pub why: String,
}

/// `pf.conf line 3: why: the statement`
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { file, line, text } = &self.origin;
        write!(f, "{file} line {line}: {}", self.why)?;
        if text.is_empty() { Ok(()) } else { write!(f, ": {}", quoted(text)) }
    }
}

/// The maximum number of characters of a macro, words of a statement, rules of a ruleset: more is a mistake, or malice.
pub(super) const MOST: usize = 1 << 18;

const DEEPEST: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// A quoted string; it is never a keyword.
    Quoted(String),
    /// `{`, `!=`, `->` and the others.
    Sign(&'static str),
}

impl Token {
    /// The word or the sign; empty for a quoted string.
    pub(super) fn bare(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Sign(sign) => sign,
            Token::Quoted(_) => "",
        }
    }

    /// A quoted string, or a word that is not a keyword (STRING and NUMBER in parse.y).
    pub(super) fn string(&self) -> Option<&str> {
        match self {
            Token::Quoted(text) => Some(text),
            Token::Word(text) => Some(&**text).filter(|text| !names::is_keyword(text)),
            Token::Sign(_) => None,
        }
    }

    pub(super) fn shown(&self) -> &str {
        match self {
            Token::Word(text) | Token::Quoted(text) => text,
            Token::Sign(sign) => sign,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Statement {
    pub(super) tokens: Vec<Token>,
    /// Its file is the one that is read, or one that it includes, and its line the one on which it starts.
    pub origin: Origin,
    /// Its bytes in the file: from its first token to the end of the line on which it ends, the newline included if there is one.
    pub bytes: Range<usize>,
    /// It ends with a brace after which an anchor's rules follow.
    pub opens: bool,
    /// The number of anchors in braces around it; their closing brace is outside.
    pub depth: usize,
    /// How many rules the main ruleset has after it.
    pub rules: usize,
    pub(super) path: String,
    pub refused: Option<String>,
}

struct Source {
    name: Arc<str>,
    text: Vec<u8>,
    at: usize,
    line: usize,
}

/// The start of a word, and its byte.
type Start = (Origin, usize);

/// The statements of a file, and of those that it includes.
#[derive(Default)]
pub(super) struct Lexer {
    sources: Vec<Source>,
    /// Characters to read before the source, in reverse; `None` after the text of a macro.
    pushed: Vec<Option<u8>>,
    expanding: bool,
    macros: HashMap<String, String>,
    /// Files are read: those of `include`, `load anchor`, and tables, relative to the working directory as in pfctl(8).
    reads_files: bool,
    raw: Vec<u8>,
    in_comment: bool,
    /// The text is from pfctl(8), which prints `?` for an address that it cannot name.
    output: bool,
    start: Start,
}

const NEWLINE: &str = "\n";

fn sign(byte: u8) -> Option<&'static str> {
    const SIGNS: &[&str] = &["{", "}", "(", ")", ",", "/", "!", "=", "<", ">", "-"];
    SIGNS.iter().find(|sign| sign.as_bytes() == [byte]).copied()
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b':' || byte == b'_'
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte.is_ascii_punctuation() && !b"(){}<>!=/#,".contains(&byte)
}

/// Whether a text without quotes is read as one word, and as this word.
pub(super) fn is_word(text: &str) -> bool {
    text.bytes().next().is_some_and(starts_word) && text.bytes().all(|byte| in_word(byte) && byte != b'\\')
}

/// The contents of a string or a word. Bytes that are not UTF-8 are replaced by U+FFFD.
fn held(bytes: &[u8]) -> Read<String> {
    match bytes.last() {
        Some(b'\\') => Err("a string that ends with a backslash cannot be quoted".into()),
        _ => Ok(String::from_utf8_lossy(bytes).into_owned()),
    }
}

impl Lexer {
    pub(super) fn new(name: &str, text: &[u8], reads_files: bool) -> Lexer {
        let source = Source { name: name.into(), text: text.into(), at: 0, line: 1 };
        Lexer { sources: vec![source], reads_files, ..Lexer::default() }
    }

    pub(super) fn of_output(line: &str) -> Lexer {
        Lexer { output: true, ..Lexer::new("", format!("{line}\n").as_bytes(), false) }
    }

    /// The position of the last byte that was read.
    fn place(&self) -> Start {
        self.sources.last().map_or_else(Default::default, |source| {
            let at = source.at.saturating_sub(1);
            let line = source.line - usize::from(source.text.get(at) == Some(&b'\n'));
            (Origin { file: source.name.clone(), line, text: Arc::default() }, at)
        })
    }

    /// `include "file"`: reading continues there, and then here.
    pub(super) fn include(&mut self, name: &str) -> Read<()> {
        if self.sources.len() >= DEEPEST {
            return Err(format!("more than {DEEPEST} files include one another"));
        }
        let text = self.read(name)?;
        self.sources.push(Source { name: name.into(), text, at: 0, line: 1 });
        Ok(())
    }

    pub(super) fn read(&self, name: &str) -> Read<Vec<u8>> {
        if !self.reads_files {
            return Err(format!("file {name} is not read here"));
        }
        std::fs::read(name).map_err(|error| format!("read {name}: {error}"))
    }

    pub(super) fn define(&mut self, name: &str, value: String) -> Read<()> {
        if value.len() > MOST {
            return Err(format!("macro {name} stands for more than {MOST} characters"));
        }
        self.macros.insert(name.to_owned(), value);
        Ok(())
    }

    /// A character, without regard to its meaning; `None` at the end of the last file.
    fn byte(&mut self) -> Option<u8> {
        while let Some(char) = self.pushed.pop() {
            match char {
                Some(_) => return char,
                None => self.expanding = false,
            }
        }
        let source = self.sources.last_mut()?;
        let byte = *source.text.get(source.at)?;
        source.at += 1;
        if !self.in_comment {
            self.raw.push(byte);
        }
        if byte == b'\n' {
            source.line += 1;
        }
        Some(byte)
    }

    /// A character; a line that ends with `\` continues (lgetc).
    fn char(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if byte != b'\\' {
                return Some(byte);
            }
            match self.byte() {
                Some(b'\n') => {}
                // pfctl drops the backslash
                other => return other,
            }
        }
    }

    fn push(&mut self, byte: Option<u8>) {
        if byte.is_some() {
            self.pushed.push(byte);
        }
    }

    pub(super) fn statement(&mut self) -> Option<Result<Statement, Failure>> {
        self.raw.clear();
        let mut tokens: Vec<Token> = vec![];
        let mut depth = 0_usize;
        let mut start = self.start.clone();
        let fail = |(origin, _): &Start, why: String| Some(Err(Failure { origin: origin.clone(), why }));
        loop {
            let next = match self.token() {
                Ok(next) => next,
                Err(why) => {
                    self.skip_line();
                    return fail(if tokens.is_empty() { &self.start } else { &start }, why);
                }
            };
            if tokens.is_empty() {
                // the first word is the start of the statement
                start = self.start.clone();
            }
            match next {
                None => {
                    let ended = self.sources.pop()?;
                    if depth > 0 {
                        return fail(&start, "a { is not closed".into());
                    }
                    if !tokens.is_empty() {
                        return Some(Ok(self.made(start, tokens, ended.at, false)));
                    }
                }
                Some(Token::Sign(NEWLINE)) if tokens.is_empty() => self.raw.clear(),
                Some(Token::Sign(NEWLINE)) => {
                    let opens = depth == 1 && self::opens(&tokens);
                    if depth == 0 || opens {
                        let end = self.sources.last().map_or(start.1, |source| source.at);
                        return Some(Ok(self.made(start, tokens, end, opens)));
                    }
                }
                Some(token) => {
                    match token.bare() {
                        "{" => depth += 1,
                        "}" if depth > 0 => depth -= 1,
                        // a brace alone ends an anchor's rules
                        "}" if !tokens.is_empty() => {
                            self.skip_line();
                            return fail(&start, "there is no { for this }".into());
                        }
                        _ => {}
                    }
                    tokens.push(token);
                }
            }
            if tokens.len() > MOST {
                return fail(&start, format!("more than {MOST} words"));
            }
        }
    }

    fn made(&mut self, (origin, start): Start, mut tokens: Vec<Token>, end: usize, opens: bool) -> Statement {
        let raw = String::from_utf8_lossy(&std::mem::take(&mut self.raw)).replace("\\\n", " ");
        let mut text = raw.split_whitespace().collect::<Vec<_>>().join(" ");
        if opens {
            tokens.pop();
            text.truncate(text.trim_end_matches('{').trim_end().len());
        }
        let origin = Origin { text: text.into(), ..origin };
        Statement { tokens, origin, bytes: start..end, opens, depth: 0, rules: 0, path: String::new(), refused: None }
    }

    fn skip_line(&mut self) {
        self.pushed.clear();
        self.expanding = false;
        while self.byte().is_some_and(|byte| byte != b'\n') {}
        self.in_comment = false;
    }

    fn token(&mut self) -> Read<Option<Token>> {
        let Some(mut byte) = self.blank() else { return Ok(None) };
        self.start = self.place();
        while byte == b'$' && !self.expanding {
            let name = self.run_of(vec![], |c| c.is_ascii_alphanumeric() || c == b'_');
            let name = String::from_utf8_lossy(&name);
            let value = self.macros.get(&*name).ok_or_else(|| format!("macro {name} is not defined"))?;
            self.pushed.push(None);
            self.pushed.extend(value.bytes().rev().map(Some));
            self.expanding = true;
            match self.blank() {
                Some(first) => byte = first,
                None => return Ok(None),
            }
        }
        if let b'"' | b'\'' = byte {
            return self.quoted(byte).map(|text| Some(Token::Quoted(text)));
        }
        if byte == b'\n' {
            return Ok(Some(Token::Sign(NEWLINE)));
        }
        let next = self.char();
        let two = ["!=", "<>", "<=", "><", ">=", "->"].into_iter().find(|two| {
            let [first, second] = [0, 1].map(|at| two.as_bytes()[at]);
            byte == first && next == Some(second)
        });
        if let Some(two) = two {
            return Ok(Some(Token::Sign(two)));
        }
        self.push(next);
        if let Some(sign) = sign(byte).or((self.output && byte == b'?').then_some("?")) {
            return Ok(Some(Token::Sign(sign)));
        }
        if byte == b'\r' {
            return Err("a carriage return, which pfctl(8) refuses outside of comments and quotes".to_owned());
        }
        if !starts_word(byte) {
            return Err(format!("the character {:?} has no meaning here", char::from(byte)));
        }
        let word = self.run_of(vec![byte], in_word);
        Ok(Some(Token::Word(held(&word)?)))
    }

    /// What was read so far, with the characters of a kind that follow.
    fn run_of(&mut self, mut read: Vec<u8>, of_kind: fn(u8) -> bool) -> Vec<u8> {
        let mut next = self.char();
        while let Some(c) = next.filter(|c| of_kind(*c)) {
            read.push(c);
            next = self.char();
        }
        self.push(next);
        read
    }

    /// The first character that is neither blank nor part of a comment.
    fn blank(&mut self) -> Option<u8> {
        loop {
            match self.char()? {
                b' ' | b'\t' | 0x0c => {}
                b'#' if !self.expanding => {
                    self.in_comment = true;
                    self.raw.pop();
                    let mut end = self.char();
                    while end.is_some_and(|byte| byte != b'\n') {
                        end = self.char();
                    }
                    self.in_comment = false;
                    return end;
                }
                byte => return Some(byte),
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Read<String> {
        let mut text = vec![];
        loop {
            match self.byte() {
                None => return Err("a quote is not closed".into()),
                Some(b'\n') => {}
                Some(b'\\') => match self.byte() {
                    Some(next) if next == quote || next == b' ' || next == b'\t' => text.push(next),
                    Some(b'\n') => {}
                    next => {
                        text.push(b'\\');
                        self.push(next);
                    }
                },
                // a zero ends a string, 1 and 2 mark the text of macros
                Some(byte @ 0..3) => return Err(format!("a quoted string has a byte {byte}")),
                Some(byte) if byte == quote => return held(&text),
                Some(byte) => text.push(byte),
            }
        }
    }
}

/// Whether the brace at the end of these words opens an anchor: before a list there is a word that takes one.
fn opens(tokens: &[Token]) -> bool {
    const TAKE_LISTS: [&str; 10] =
        ["on", "proto", "from", "to", "port", "user", "group", "icmp-type", "icmp6-type", "os"];
    let mut words = tokens.iter().skip_while(|token| token.bare() == "ether");
    let calls = words.next().is_some_and(|first| first.bare() == "anchor");
    let [.., before, last] = tokens else { return false };
    calls && last.bare() == "{" && !TAKE_LISTS.contains(&before.bare())
}
