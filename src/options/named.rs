//! Options by name: from the given strings to a checked value.
//!
//! The names are those of the flags of kport(8), such as `max-connections`. A flag of the helper, a field of the C struct and
//! a key of JSON are all converted to such a name, so that an option is read and checked in one place: its row in a
//! [`Names`]. The caller puts the name that the user wrote before the error: `--rate`, `options->rate_seconds`,
//! `limits.rate`.

use std::num::NonZeroU32;
use std::str::FromStr;

use crate::error::{Error, Kind, Result, quoted};

/// The value of an option, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// On or off.
    Flag(bool),
    /// One string; for an option that takes a list, the items separated by white space.
    Text(String),
    /// A list, a string for each item.
    List(Vec<String>),
}

/// The kind of value that an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None: the option is on or off, and `no-NAME` is its opposite.
    Flag,
    /// A number from 1 to 4294967295.
    Number,
    /// One word.
    Word,
    /// Any number of words.
    Words,
}

/// How an option of a `T` is read from its strings.
pub(crate) enum Setter<T> {
    Flag(fn(&mut T, bool)),
    Number(fn(&mut T, NonZeroU32)),
    Word(fn(&mut T, &str) -> Result<()>),
    Words(fn(&mut T, &Words<'_>) -> Result<()>),
}

impl<T> Setter<T> {
    fn takes(&self) -> Takes {
        match self {
            Setter::Flag(_) => Takes::Flag,
            Setter::Number(_) => Takes::Number,
            Setter::Word(_) => Takes::Word,
            Setter::Words(_) => Takes::Words,
        }
    }

    fn read(&self, to: &mut T, given: &Given) -> Result<()> {
        match (self, given) {
            (Setter::Flag(set), Given::Flag(on)) => set(to, *on),
            (Setter::Number(set), Given::Text(text)) => set(to, number(text)?),
            (Setter::Word(set), Given::Text(text)) => set(to, text)?,
            (Setter::Words(set), Given::Text(text)) => set(to, &Words::split(text))?,
            (Setter::Words(set), Given::List(items)) => set(to, &Words::of(items))?,
            _ => {
                let wanted = match self.takes() {
                    Takes::Flag => "is on or off",
                    Takes::Number => "takes a number",
                    Takes::Word => "takes one word",
                    Takes::Words => "takes a list of words",
                };
                return Err(Error::new(Kind::Argument, wanted));
            }
        }
        Ok(())
    }
}

/// Stores a value, unless it is an error.
pub(crate) fn put<V>(place: &mut V, value: Result<V>) -> Result<()> {
    *place = value?;
    Ok(())
}

fn number(text: &str) -> Result<NonZeroU32> {
    let refuse = |_| Error::new(Kind::Argument, format!("{} is not a number from 1 to {}", quoted(text), u32::MAX));
    text.parse().map_err(refuse)
}

/// The items of a list.
pub(crate) struct Words<'a> {
    /// Each with its offset in the common string, if there is one.
    items: Vec<(Option<usize>, &'a str)>,
}

impl<'a> Words<'a> {
    fn split(text: &'a str) -> Words<'a> {
        let offset = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
        Words { items: text.split_whitespace().map(|word| (Some(offset(word)), word)).collect() }
    }

    fn of(items: &'a [String]) -> Words<'a> {
        Words { items: items.iter().map(|item| (None, item.as_str())).collect() }
    }

    /// Reads each item with `read`; an error has the offset of the item, if all are from one string.
    pub(crate) fn each<V>(&self, read: impl Fn(&str) -> Result<V>) -> Result<Vec<V>> {
        let one = |(offset, word): &(Option<usize>, &str)| {
            read(word).map_err(|error| offset.iter().fold(error, |error, offset| error.at(*offset)))
        };
        self.items.iter().map(one).collect()
    }

    /// Each item as written.
    pub(crate) fn parse<V: FromStr<Err = Error>>(&self) -> Result<Vec<V>> {
        self.each(str::parse)
    }
}

/// The options of a `T`.
pub(crate) struct Names<T: 'static>(pub(crate) &'static [(&'static str, Setter<T>)]);

impl<T> Names<T> {
    /// Every name, and the kind of its value.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&'static str, Takes)> {
        self.0.iter().map(|(name, reader)| (*name, reader.takes()))
    }

    /// The kind of value of the option with this name.
    pub(crate) fn takes(&self, name: &str) -> Option<Takes> {
        self.reader(name).map(|(reader, _)| reader.takes())
    }

    /// Reads an option into `to`; `None` if no option has this name.
    pub(crate) fn set(&self, to: &mut T, name: &str, given: &Given) -> Option<Result<()>> {
        let (reader, is_opposite) = self.reader(name)?;
        Some(match given {
            Given::Flag(on) => reader.read(to, &Given::Flag(*on != is_opposite)),
            other => reader.read(to, other),
        })
    }

    /// The option with this name, and whether the name is that of its opposite.
    fn reader(&self, name: &str) -> Option<(&Setter<T>, bool)> {
        let named = |name: &str| self.0.iter().find(|(known, _)| *known == name).map(|(_, reader)| reader);
        let opposite = || named(name.strip_prefix("no-")?).filter(|reader| reader.takes() == Takes::Flag);
        named(name).map(|reader| (reader, false)).or_else(|| opposite().map(|reader| (reader, true)))
    }
}
