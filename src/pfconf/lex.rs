//! The words of pf.conf(5), as pfctl's lexer takes them from the characters (yylex in sbin/pfctl/parse.y): macros are put in as
//! text, so that `$if:network` is one word, and are not looked for inside one another.

use std::collections::HashMap;

/// Why a statement was not read.
pub(super) type Read<T> = Result<T, String>;

/// How files are read: `include`, `load anchor`, and the files of tables.
pub(super) type Files<'a> = Option<&'a dyn Fn(&str) -> Read<String>>;

/// The most characters that a macro may stand for, the most words of a statement, and the most rules of a ruleset: more is a
/// mistake, or malice.
pub(super) const MOST: usize = 1 << 18;

/// The most files that may include one another.
const DEEPEST: usize = 16;

/// One word or sign of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// What stood in quotes; it is never a keyword.
    Quoted(String),
    /// `{`, `!=`, `->` and the like.
    Sign(&'static str),
    /// A character that has no meaning.
    Stray(char),
}

impl Token {
    /// The word or the sign; empty for what stood in quotes.
    pub(super) fn bare(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Sign(sign) => sign,
            Token::Quoted(_) | Token::Stray(_) => "",
        }
    }

    /// Its characters, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Word(text) | Token::Quoted(text) => text.clone(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Stray(c) => c.to_string(),
        }
    }
}

/// A statement: its words, where it starts, and its text without comments.
#[derive(Debug)]
pub(super) struct Statement {
    pub tokens: Vec<Token>,
    pub file: String,
    pub line: usize,
    pub text: String,
    /// It ends with a brace behind which an anchor's rules follow.
    pub opens: bool,
}

/// A character, or a mark where the text of a macro ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Char {
    Byte(u8),
    EndOfMacro,
}

struct Source {
    name: String,
    text: Vec<u8>,
    at: usize,
    line: usize,
}

/// The statements of a file, and of those that it includes.
pub(super) struct Lexer<'a> {
    sources: Vec<Source>,
    /// Read again before the source: in reverse.
    pushed: Vec<Char>,
    expanding: bool,
    macros: HashMap<String, String>,
    files: Files<'a>,
    raw: Vec<u8>,
    in_comment: bool,
    /// Where the word starts that was read last.
    start: (String, usize),
}

enum Next {
    Token(Token),
    Newline,
    End,
}

/// A sign that is one character.
fn sign(byte: u8) -> Option<&'static str> {
    const SIGNS: &[&str] = &["{", "}", "(", ")", ",", "/", "!", "=", "<", ">", "-"];
    SIGNS.iter().find(|sign| sign.as_bytes() == [byte]).copied()
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || byte.is_ascii_punctuation() && !b"(){}<>!=/#,".contains(&byte)
}

impl<'a> Lexer<'a> {
    pub(super) fn new(name: &str, text: &str, files: Files<'a>) -> Lexer<'a> {
        let source = Source { name: name.to_owned(), text: text.into(), at: 0, line: 1 };
        Lexer {
            sources: vec![source],
            pushed: vec![],
            expanding: false,
            macros: HashMap::new(),
            files,
            raw: vec![],
            in_comment: false,
            start: (name.to_owned(), 1),
        }
    }

    /// The file and the line that are read.
    pub(super) fn place(&self) -> (String, usize) {
        self.sources.last().map_or_else(Default::default, |source| (source.name.clone(), source.line))
    }

    /// `include "file"`: what follows is read from there, then from here again.
    pub(super) fn include(&mut self, name: &str) -> Read<()> {
        if self.sources.len() >= DEEPEST {
            return Err(format!("more than {DEEPEST} files include one another"));
        }
        let text = self.read(name)?;
        self.sources.push(Source { name: name.to_owned(), text: text.into(), at: 0, line: 1 });
        Ok(())
    }

    /// The text of a file.
    pub(super) fn read(&self, name: &str) -> Read<String> {
        match self.files {
            Some(read) => read(name),
            None => Err(format!("file {name} is not read here")),
        }
    }

    /// `name = value`
    pub(super) fn define(&mut self, name: &str, value: String) -> Read<()> {
        if value.len() > MOST {
            return Err(format!("macro {name} stands for more than {MOST} characters"));
        }
        self.macros.insert(name.to_owned(), value);
        Ok(())
    }

    /// A character, without regard to what it means; `None` at the end of the last file.
    fn byte(&mut self) -> Option<u8> {
        while let Some(char) = self.pushed.pop() {
            match char {
                Char::Byte(byte) => return Some(byte),
                Char::EndOfMacro => self.expanding = false,
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

    /// A character; a line that ends with `\` goes on (lgetc).
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
        self.pushed.extend(byte.map(Char::Byte));
    }

    /// The next statement; `None` at the end.
    pub(super) fn statement(&mut self) -> Option<Result<Statement, (String, usize, String)>> {
        self.raw.clear();
        let (mut file, mut line) = self.place();
        self.start = (file.clone(), line);
        let mut tokens: Vec<Token> = vec![];
        let mut depth = 0_usize;
        let mut ended = false;
        loop {
            let next = match self.token() {
                Ok(next) => next,
                Err(why) => {
                    self.skip_line();
                    return Some(Err((file, line, why)));
                }
            };
            if tokens.is_empty() {
                // what comes first says where the statement starts
                (file, line) = self.start.clone();
            }
            match next {
                Next::End => {
                    ended = self.sources.pop().is_none_or(|_| self.sources.is_empty());
                    break;
                }
                Next::Newline if tokens.is_empty() => self.raw.clear(),
                Next::Newline if depth == 0 => break,
                Next::Newline if depth == 1 && self::opens(&tokens) => {
                    let text = self.text();
                    tokens.pop();
                    return Some(Ok(Statement { tokens, file, line, text, opens: true }));
                }
                Next::Newline => {}
                Next::Token(token) => {
                    match token.bare() {
                        "{" => depth += 1,
                        // one that closes nothing ends an anchor's rules
                        "}" => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    tokens.push(token);
                }
            }
            if tokens.len() > MOST {
                return Some(Err((file, line, format!("more than {MOST} words"))));
            }
        }
        if depth > 0 {
            return Some(Err((file, line, "a { is not closed".to_owned())));
        }
        if tokens.is_empty() && ended {
            return None;
        }
        let text = self.text();
        Some(Ok(Statement { tokens, file, line, text, opens: false }))
    }

    /// What was read, on one line.
    fn text(&mut self) -> String {
        let raw = String::from_utf8_lossy(&std::mem::take(&mut self.raw)).replace("\\\n", " ");
        raw.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn skip_line(&mut self) {
        self.pushed.clear();
        self.expanding = false;
        while self.byte().is_some_and(|byte| byte != b'\n') {}
        self.in_comment = false;
    }

    fn token(&mut self) -> Read<Next> {
        let Some(mut byte) = self.blank() else { return Ok(Next::End) };
        self.start = self.place();
        while byte == b'$' && !self.expanding {
            let mut name = vec![];
            let mut next = self.char();
            while let Some(c) = next.filter(|c| c.is_ascii_alphanumeric() || *c == b'_') {
                name.push(c);
                next = self.char();
            }
            self.push(next);
            let name = String::from_utf8_lossy(&name);
            let value = self.macros.get(&*name).ok_or_else(|| format!("macro {name} is not defined"))?;
            self.pushed.push(Char::EndOfMacro);
            self.pushed.extend(value.bytes().rev().map(Char::Byte));
            self.expanding = true;
            match self.blank() {
                Some(first) => byte = first,
                None => return Ok(Next::End),
            }
        }
        if let b'"' | b'\'' = byte {
            return self.quoted(byte).map(|text| Next::Token(Token::Quoted(text)));
        }
        if byte == b'\n' {
            return Ok(Next::Newline);
        }
        let next = self.char();
        let two = match (byte, next) {
            (b'!', Some(b'=')) => Some("!="),
            (b'<', Some(b'>')) => Some("<>"),
            (b'<', Some(b'=')) => Some("<="),
            (b'>', Some(b'<')) => Some("><"),
            (b'>', Some(b'=')) => Some(">="),
            (b'-', Some(b'>')) => Some("->"),
            _ => None,
        };
        if let Some(two) = two {
            return Ok(Next::Token(Token::Sign(two)));
        }
        self.push(next);
        if let Some(sign) = sign(byte) {
            return Ok(Next::Token(Token::Sign(sign)));
        }
        if !(byte.is_ascii_alphanumeric() || byte >= 0x80 || byte == b':' || byte == b'_') {
            return Ok(Next::Token(Token::Stray(char::from(byte))));
        }
        let mut word = vec![byte];
        let mut next = self.char();
        while let Some(c) = next.filter(|c| in_word(*c)) {
            word.push(c);
            next = self.char();
        }
        self.push(next);
        Ok(Next::Token(Token::Word(String::from_utf8_lossy(&word).into_owned())))
    }

    /// The first character that is neither blank nor in a comment.
    fn blank(&mut self) -> Option<u8> {
        loop {
            match self.char()? {
                b' ' | b'\t' | b'\r' | 0x0c => {}
                b'#' if !self.expanding => {
                    self.in_comment = true;
                    self.raw.pop();
                    let end = loop {
                        match self.char() {
                            Some(b'\n') => break Some(b'\n'),
                            Some(_) => {}
                            None => break None,
                        }
                    };
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
                None => return Err("a quote is not closed".to_owned()),
                Some(b'\n') => {}
                Some(b'\\') => match self.byte() {
                    Some(next) if next == quote || next == b' ' || next == b'\t' => text.push(next),
                    Some(b'\n') => {}
                    next => {
                        text.push(b'\\');
                        self.push(next);
                    }
                },
                Some(0) => return Err("a quoted string has a zero byte".to_owned()),
                Some(byte) if byte == quote => return Ok(String::from_utf8_lossy(&text).into_owned()),
                Some(byte) => text.push(byte),
            }
        }
    }
}

/// Whether the brace that these words end with opens an anchor: in front of a list there is a word that takes one.
fn opens(tokens: &[Token]) -> bool {
    const TAKE_LISTS: [&str; 10] =
        ["on", "proto", "from", "to", "port", "user", "group", "icmp-type", "icmp6-type", "os"];
    let mut words = tokens.iter().skip_while(|token| token.bare() == "ether");
    let calls = words.next().is_some_and(|first| first.bare() == "anchor");
    let [.., before, last] = tokens else { return false };
    calls && last.bare() == "{" && !TAKE_LISTS.contains(&before.bare())
}
