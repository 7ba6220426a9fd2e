//! The rest of a statement, word by word.

use super::lex::{Read, Token};
use super::names;
use crate::error::quoted;

/// The remaining words.
#[derive(Clone, Copy)]
pub(super) struct Words<'a>(pub &'a [Token]);

impl<'a> Words<'a> {
    /// The next word or sign; empty for a string in quotes, and at the end.
    pub(super) fn peek(&self) -> &'a str {
        self.0.first().map_or("", Token::bare)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next(&mut self) -> Read<&'a Token> {
        let (first, rest) = self.0.split_first().ok_or("the statement ends too early")?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn take(&mut self, word: &str) -> bool {
        let there = self.peek() == word && !word.is_empty();
        if there {
            self.0 = &self.0[1..];
        }
        there
    }

    pub(super) fn expect(&mut self, word: &str) -> Read<()> {
        if self.take(word) { Ok(()) } else { Err(format!("expected {word} instead of {}", self.shown())) }
    }

    /// The next word, for messages.
    pub(super) fn shown(&self) -> String {
        self.0.first().map_or("the end".to_owned(), |token| quoted(&token.shown()))
    }

    /// A string or a number: a quoted string, or a word that is not a keyword (STRING and NUMBER in parse.y).
    pub(super) fn text(&mut self) -> Read<&'a str> {
        match self.next()? {
            Token::Quoted(text) => Ok(text),
            Token::Word(text) if !names::is_keyword(text) => Ok(text),
            other => Err(format!("{} is not expected", quoted(&other.shown()))),
        }
    }

    /// Whether a string follows: a quoted string, or a word that is not a keyword.
    pub(super) fn has_string(&self) -> bool {
        match self.0.first() {
            Some(Token::Quoted(_)) => true,
            Some(Token::Word(word)) => !names::is_keyword(word),
            _ => false,
        }
    }

    /// Consecutive strings, as one with blanks between (string in parse.y).
    pub(super) fn strings(&mut self) -> Read<String> {
        let mut all = self.text()?.to_owned();
        while self.has_string() {
            all.push(' ');
            all.push_str(self.text()?);
        }
        Ok(all)
    }

    pub(super) fn number<N: TryFrom<u64>>(&mut self) -> Read<N> {
        let text = self.text()?;
        let number = names::number(text).and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| format!("{} is not a number that is possible here", quoted(text)))
    }

    /// One item, or several in braces, with or without commas.
    pub(super) fn list<T>(&mut self, one: &mut dyn FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        self.nested(one, 0)
    }

    fn nested<T>(&mut self, one: &mut dyn FnMut(&mut Self) -> Read<T>, depth: usize) -> Read<Vec<T>> {
        if depth > 8 {
            return Err("lists in lists in lists".into());
        }
        if !self.take("{") {
            return Ok(vec![one(self)?]);
        }
        let mut all = vec![];
        while !self.take("}") {
            all.append(&mut self.nested(one, depth + 1)?);
            while self.take(",") {}
        }
        if all.is_empty() { Err("an empty list".into()) } else { Ok(all) }
    }

    /// Skips round brackets and their contents, if they follow.
    pub(super) fn skip_brackets(&mut self) -> Read<()> {
        let mut depth = 0_usize;
        while depth > 0 || self.peek() == "(" {
            match self.next()?.bare() {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Fails if words remain.
pub(super) fn end(words: &Words<'_>) -> Read<()> {
    if words.is_empty() { Ok(()) } else { Err(format!("{} is not expected", words.shown())) }
}
