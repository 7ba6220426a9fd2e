//! nvlist(9) in libnv's packed form: what pf uses for calls without a struct in FreeBSD 15.
//!
//! The form, from sys/contrib/libnv/{nvlist,bsd_nvpair}.c: a list is a header of 19 bytes (magic, version, flags,
//! descriptors, size), then its pairs, each a header of 19 bytes (type, length of the name, of the data, number of items),
//! the name with its NUL, and the data. Two peculiarities of libnv are part of the form:
//!
//! * the size in the header of an inner list is what is left of the whole buffer, not the list's own length, and
//!   the reader insists on it;
//! * a pair that holds a list states the length of the list without the marker that ends it; a pair that
//!   holds an array of lists states 0.
//!
//! What the calls of pf do not use is passed over: nulls, arrays of truth values and of lists. Descriptors are refused: the
//! kernel's decoder aborts on them.

use std::fmt;

/// 'l', NVLIST_HEADER_MAGIC
const MAGIC: u8 = 0x6c;
/// NV_FLAG_BIG_ENDIAN
const BIG_ENDIAN: u8 = 0x80;
/// NV_NAME_MAX, with the NUL
const MAX_NAME: usize = 2048;
/// Deeper lists than pf's (four levels) are not read, so that no input can exhaust the stack.
const MAX_DEPTH: usize = 16;

const NULL: u8 = 1;
const BOOL: u8 = 2;
const NUMBER: u8 = 3;
const STRING: u8 = 4;
const NVLIST: u8 = 5;
const BINARY: u8 = 7;
const BOOL_ARRAY: u8 = 8;
const NUMBER_ARRAY: u8 = 9;
const STRING_ARRAY: u8 = 10;
const NVLIST_ARRAY: u8 = 11;
/// The markers that end a list in an array, and any other inner list.
const ARRAY_NEXT: u8 = 254;
const UP: u8 = 255;
/// No marker: the data ended.
const DATA: u8 = 0;

/// A value of a pair. Empty arrays and binaries are not part of the form: [`List::add`] omits such a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    /// A number; a negative one in two's complement.
    Number(u64),
    /// A string; what follows a NUL is not written.
    String(String),
    List(List),
    Binary(Vec<u8>),
    Numbers(Vec<u64>),
    Strings(Vec<String>),
}

/// Names and values, in order; no name twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    pairs: Vec<(String, Value)>,
}

/// An error in bytes that should have been an nvlist, or in a key of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn malformed<T>(what: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(what.into()))
}

impl List {
    pub fn new() -> List {
        List::default()
    }

    /// The list with one more pair. It is unchanged if the value cannot be written (an empty array or binary), or if the name
    /// exists already, is empty, is too long or has a NUL.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> List {
        self.add(name, value);
        self
    }

    /// Adds a pair, like [`List::with`]; returns whether it did.
    pub fn add(&mut self, name: &str, value: Value) -> bool {
        let empty = match &value {
            Value::Binary(items) => items.is_empty(),
            Value::Numbers(items) => items.is_empty(),
            Value::Strings(items) => items.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::List(_) => false,
        };
        let good =
            !empty && !name.is_empty() && name.len() < MAX_NAME && !name.contains('\0') && self.get(name).is_none();
        if good {
            self.pairs.push((name.to_owned(), value));
        }
        good
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    #[cfg(feature = "internals")]
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value))
    }

    // a value that must be there, and of this type

    pub fn number(&self, name: &str) -> Result<u64, Malformed> {
        self.typed(name, "a number", |value| if let Value::Number(number) = value { Some(*number) } else { None })
    }

    pub fn bool(&self, name: &str) -> Result<bool, Malformed> {
        self.typed(name, "a truth value", |value| if let Value::Bool(bool) = value { Some(*bool) } else { None })
    }

    pub fn string(&self, name: &str) -> Result<&str, Malformed> {
        self.typed(name, "a text", |value| if let Value::String(text) = value { Some(&**text) } else { None })
    }

    pub fn list(&self, name: &str) -> Result<&List, Malformed> {
        self.typed(name, "a list", |value| if let Value::List(list) = value { Some(list) } else { None })
    }

    pub fn binary(&self, name: &str) -> Result<&[u8], Malformed> {
        self.typed(name, "bytes", |value| if let Value::Binary(bytes) = value { Some(&**bytes) } else { None })
    }

    pub fn numbers(&self, name: &str) -> Result<&[u64], Malformed> {
        self.typed(name, "numbers", |value| if let Value::Numbers(all) = value { Some(&**all) } else { None })
    }

    pub fn strings(&self, name: &str) -> Result<&[String], Malformed> {
        self.typed(name, "texts", |value| if let Value::Strings(texts) = value { Some(&**texts) } else { None })
    }

    fn typed<'a, T>(&'a self, name: &str, what: &str, pick: fn(&'a Value) -> Option<T>) -> Result<T, Malformed> {
        match self.get(name).map(pick) {
            Some(Some(value)) => Ok(value),
            Some(None) => malformed(format!("{name} is not {what}")),
            None => malformed(format!("{name} is missing")),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        self.packed(0)
    }

    /// With so many bytes after it: what is left of the whole is the size in its header.
    fn packed(&self, after: usize) -> Vec<u8> {
        let mut pairs = vec![];
        for (name, value) in self.pairs.iter().rev() {
            if let Value::List(_) = value {
                pairs = [pair(UP, "", 0, &[]), pairs].concat();
            }
            let (kind, items, data) = match value {
                Value::Bool(bool) => (BOOL, 0, vec![u8::from(*bool)]),
                Value::Number(number) => (NUMBER, 0, number.to_le_bytes().to_vec()),
                Value::String(text) => (STRING, 0, string(text)),
                Value::List(list) => (NVLIST, 0, list.packed(pairs.len() + after)),
                Value::Binary(bytes) => (BINARY, 0, bytes.clone()),
                Value::Numbers(all) => (NUMBER_ARRAY, all.len(), all.iter().flat_map(|n| n.to_le_bytes()).collect()),
                Value::Strings(all) => (STRING_ARRAY, all.len(), all.iter().flat_map(|text| string(text)).collect()),
            };
            pairs = [pair(kind, name, items, &data), pairs].concat();
        }
        let size = ((pairs.len() + after) as u64).to_le_bytes();
        [&[MAGIC, 0, 0][..], &[0; 8], &size, &pairs].concat()
    }

    /// Reads a packed list that fills `bytes`, without values of other names than these; an empty list is for all names.
    pub fn decode(bytes: &[u8], names: &[&str]) -> Result<List, Malformed> {
        let mut reader = Cursor { rest: bytes, names };
        reader.header()?;
        match reader.pairs(0)? {
            (list, DATA) => Ok(list),
            _ => malformed("the end of a list that was not begun"),
        }
    }
}

fn pair(kind: u8, name: &str, items: usize, data: &[u8]) -> Vec<u8> {
    // the longest name has 2047 bytes (List::add)
    let name_size = (name.len() as u16 + 1).to_le_bytes();
    let [length, items] = [data.len(), items].map(|number| (number as u64).to_le_bytes());
    [&[kind][..], &name_size, &length, &items, name.as_bytes(), &[0], data].concat()
}

fn string(text: &str) -> Vec<u8> {
    text.bytes().take_while(|byte| *byte != 0).chain([0]).collect()
}

struct Cursor<'a> {
    rest: &'a [u8],
    /// what is read of the outermost list; empty for all
    names: &'a [&'a str],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        match usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count)) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => malformed(format!("{count} bytes announced, {} left", self.rest.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn header(&mut self) -> Result<(), Malformed> {
        let [magic, version, flags] = self.array()?;
        let (descriptors, size) = (self.u64()?, self.u64()?);
        if magic != MAGIC || version != 0 {
            return malformed("no header of an nvlist");
        }
        if flags & BIG_ENDIAN != 0 {
            return malformed("a big-endian nvlist");
        }
        if flags != 0 || descriptors != 0 {
            return malformed(format!("flags {flags:#x}, {descriptors} descriptors"));
        }
        if size != self.rest.len() as u64 {
            return malformed(format!("size {size} stated, {} bytes left", self.rest.len()));
        }
        Ok(())
    }

    /// The pairs up to a marker, and that.
    fn pairs(&mut self, depth: usize) -> Result<(List, u8), Malformed> {
        let mut list = List::new();
        while !self.rest.is_empty() {
            let [kind] = self.array()?;
            let name_size = u16::from_le_bytes(self.array()?);
            let (length, items) = (self.u64()?, self.u64()?);
            if name_size == 0 || usize::from(name_size) > MAX_NAME {
                return malformed(format!("a name of {name_size} bytes"));
            }
            let name = self.take(u64::from(name_size))?;
            if kind == UP || kind == ARRAY_NEXT {
                return Ok((list, kind));
            }
            let is_named = |one: &&str| name.strip_suffix(&[0]) == Some(one.as_bytes());
            if depth == 0 && kind != NVLIST_ARRAY && !self.names.is_empty() && !self.names.iter().any(is_named) {
                self.take(length)?;
                if kind == NVLIST && self.pairs(depth + 1)? != (List::new(), UP) {
                    return malformed("an inner list that does not end");
                }
                continue;
            }
            let name = text(name)?;
            if let Some(value) = self.value(kind, length, items, depth)?
                && !list.add(&name, value)
            {
                return malformed(format!("{name:?} twice, empty, or without a name"));
            }
        }
        Ok((list, DATA))
    }

    /// The value of a pair; `None` for one that is passed over.
    fn value(&mut self, kind: u8, length: u64, items: u64, depth: usize) -> Result<Option<Value>, Malformed> {
        Ok(Some(match kind {
            BOOL if length == 1 => match self.array()? {
                [byte @ (0 | 1)] => Value::Bool(byte == 1),
                [other] => return malformed(format!("truth value {other}")),
            },
            NUMBER if length == 8 => Value::Number(self.u64()?),
            STRING => Value::String(text(self.take(length)?)?),
            NVLIST => Value::List(self.inner(depth, UP)?),
            BINARY => Value::Binary(self.take(length)?.to_vec()),
            NUMBER_ARRAY if items.checked_mul(8) == Some(length) => {
                let (numbers, _) = self.take(length)?.as_chunks();
                Value::Numbers(numbers.iter().copied().map(u64::from_le_bytes).collect())
            }
            STRING_ARRAY => {
                let Some(all) = self.take(length)?.strip_suffix(&[0]) else {
                    return malformed("texts without a NUL at the end");
                };
                let texts: Vec<String> = all.split(|byte| *byte == 0).map(lossy).collect();
                if texts.len() as u64 != items {
                    return malformed(format!("{items} texts announced, {} found", texts.len()));
                }
                Value::Strings(texts)
            }
            NULL | BOOL_ARRAY => {
                self.take(length)?;
                return Ok(None);
            }
            NVLIST_ARRAY => {
                for _ in 0..items {
                    self.inner(depth, ARRAY_NEXT)?;
                }
                return Ok(None);
            }
            other => return malformed(format!("type {other}, {length} bytes, {items} items")),
        }))
    }

    fn inner(&mut self, depth: usize, expected: u8) -> Result<List, Malformed> {
        if depth == MAX_DEPTH {
            return malformed("too many lists in lists");
        }
        self.header()?;
        match self.pairs(depth + 1)? {
            (list, end) if end == expected => Ok(list),
            _ => malformed("an inner list that does not end"),
        }
    }
}

/// A string with its NUL.
fn text(bytes: &[u8]) -> Result<String, Malformed> {
    match bytes.split_last() {
        Some((0, text)) if !text.contains(&0) => Ok(lossy(text)),
        _ => malformed("a text that is not ended by its NUL"),
    }
}

/// A label of another program's rule need not be UTF-8, but its rule must be visible.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
