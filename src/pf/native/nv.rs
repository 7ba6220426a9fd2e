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
//! Descriptors cannot be written and are refused when read: the kernel's decoder aborts on them.

use std::fmt;

/// The length of both headers.
const HEADER: usize = 19;
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
const ARRAY_NEXT: u8 = 254;
const UP: u8 = 255;

/// A value of a pair. Empty arrays and binaries are not part of the form: [`List::add`] omits such a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    /// A number; a negative one in two's complement.
    Number(u64),
    /// A string; what follows a NUL is not written.
    String(String),
    List(List),
    Binary(Vec<u8>),
    Bools(Vec<bool>),
    Numbers(Vec<u64>),
    Strings(Vec<String>),
    Lists(Vec<List>),
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

impl std::error::Error for Malformed {}

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
            Value::Bools(items) => items.is_empty(),
            Value::Numbers(items) => items.is_empty(),
            Value::Strings(items) => items.is_empty(),
            Value::Lists(items) => items.is_empty(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::List(_) => false,
        };
        let good =
            !empty && !name.is_empty() && name.len() < MAX_NAME && !name.contains('\0') && self.get(name).is_none();
        if good {
            self.pairs.push((name.to_owned(), value));
        }
        good
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The pairs, in order.
    #[cfg(test)]
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// A number that must be there.
    pub fn number(&self, name: &str) -> Result<u64, Malformed> {
        self.typed(name, "a number", |value| if let Value::Number(number) = value { Some(*number) } else { None })
    }

    /// A truth value that must be there.
    pub fn bool(&self, name: &str) -> Result<bool, Malformed> {
        self.typed(name, "a truth value", |value| if let Value::Bool(bool) = value { Some(*bool) } else { None })
    }

    /// A string that must be there.
    pub fn string(&self, name: &str) -> Result<&str, Malformed> {
        self.typed(name, "a text", |value| if let Value::String(text) = value { Some(text.as_str()) } else { None })
    }

    /// An inner list that must be there.
    pub fn list(&self, name: &str) -> Result<&List, Malformed> {
        self.typed(name, "a list", |value| if let Value::List(list) = value { Some(list) } else { None })
    }

    /// Bytes that must be there.
    pub fn binary(&self, name: &str) -> Result<&[u8], Malformed> {
        self.typed(name, "bytes", |value| if let Value::Binary(bytes) = value { Some(bytes.as_slice()) } else { None })
    }

    /// Numbers that must be there.
    pub fn numbers(&self, name: &str) -> Result<&[u64], Malformed> {
        self.typed(
            name,
            "numbers",
            |value| {
                if let Value::Numbers(numbers) = value { Some(numbers.as_slice()) } else { None }
            },
        )
    }

    /// Strings that must be there.
    pub fn strings(&self, name: &str) -> Result<&[String], Malformed> {
        self.typed(name, "texts", |value| if let Value::Strings(texts) = value { Some(texts.as_slice()) } else { None })
    }

    fn typed<'a, T>(&'a self, name: &str, what: &str, pick: fn(&'a Value) -> Option<T>) -> Result<T, Malformed> {
        match self.get(name).map(pick) {
            Some(Some(value)) => Ok(value),
            Some(None) => malformed(format!("{name} is not {what}")),
            None => malformed(format!("{name} is missing")),
        }
    }

    /// The packed form.
    pub fn encode(&self) -> Vec<u8> {
        let total = self.length();
        let mut into = Vec::with_capacity(total);
        self.write(&mut into, total);
        into
    }

    /// Header and pairs, without the marker after an inner list.
    fn length(&self) -> usize {
        HEADER + self.pairs.iter().map(|(name, value)| HEADER + name.len() + 1 + value.length()).sum::<usize>()
    }

    /// `total`: the length of the whole buffer.
    fn write(&self, into: &mut Vec<u8>, total: usize) {
        into.extend_from_slice(&[MAGIC, 0, 0]);
        into.extend_from_slice(&0u64.to_le_bytes());
        let left = total - into.len() - 8;
        into.extend_from_slice(&(left as u64).to_le_bytes());
        for (name, value) in &self.pairs {
            value.write(name, into, total);
        }
    }

    /// Reads a packed list that fills `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<List, Malformed> {
        let mut reader = Cursor { rest: bytes };
        reader.header()?;
        let (list, end) = reader.pairs(0)?;
        match end {
            Marker::Data => Ok(list),
            Marker::Up | Marker::Next => malformed("the end of a list that was not begun"),
        }
    }
}

impl Value {
    fn kind(&self) -> u8 {
        match self {
            Value::Null => NULL,
            Value::Bool(_) => BOOL,
            Value::Number(_) => NUMBER,
            Value::String(_) => STRING,
            Value::List(_) => NVLIST,
            Value::Binary(_) => BINARY,
            Value::Bools(_) => BOOL_ARRAY,
            Value::Numbers(_) => NUMBER_ARRAY,
            Value::Strings(_) => STRING_ARRAY,
            Value::Lists(_) => NVLIST_ARRAY,
        }
    }

    /// The number of bytes after the name, markers included.
    fn length(&self) -> usize {
        const MARKER: usize = HEADER + 1;
        match self {
            Value::List(list) => list.length() + MARKER,
            Value::Lists(lists) => lists.iter().map(|list| list.length() + MARKER).sum(),
            other => other.stated(),
        }
    }

    /// The length in the pair's header.
    fn stated(&self) -> usize {
        match self {
            Value::Null | Value::Lists(_) => 0,
            Value::Bool(_) => 1,
            Value::Number(_) => 8,
            Value::String(text) => up_to_nul(text).len() + 1,
            Value::List(list) => list.length(),
            Value::Binary(bytes) => bytes.len(),
            Value::Bools(bools) => bools.len(),
            Value::Numbers(numbers) => 8 * numbers.len(),
            Value::Strings(texts) => texts.iter().map(|text| up_to_nul(text).len() + 1).sum(),
        }
    }

    fn items(&self) -> usize {
        match self {
            Value::Bools(items) => items.len(),
            Value::Numbers(items) => items.len(),
            Value::Strings(items) => items.len(),
            Value::Lists(items) => items.len(),
            _ => 0,
        }
    }

    fn write(&self, name: &str, into: &mut Vec<u8>, total: usize) {
        pair(into, self.kind(), name, self.stated(), self.items());
        match self {
            Value::Null => {}
            Value::Bool(bool) => into.push(u8::from(*bool)),
            Value::Number(number) => into.extend_from_slice(&number.to_le_bytes()),
            Value::String(text) => string(into, text),
            Value::List(list) => {
                list.write(into, total);
                pair(into, UP, "", 0, 0);
            }
            Value::Binary(bytes) => into.extend_from_slice(bytes),
            Value::Bools(bools) => into.extend(bools.iter().map(|bool| u8::from(*bool))),
            Value::Numbers(numbers) => numbers.iter().for_each(|n| into.extend_from_slice(&n.to_le_bytes())),
            Value::Strings(texts) => texts.iter().for_each(|text| string(into, text)),
            Value::Lists(lists) => {
                for list in lists {
                    list.write(into, total);
                    pair(into, ARRAY_NEXT, "", 0, 0);
                }
            }
        }
    }
}

fn pair(into: &mut Vec<u8>, kind: u8, name: &str, length: usize, items: usize) {
    into.push(kind);
    // the longest name has 2047 bytes (List::add)
    into.extend_from_slice(&(name.len() as u16 + 1).to_le_bytes());
    into.extend_from_slice(&(length as u64).to_le_bytes());
    into.extend_from_slice(&(items as u64).to_le_bytes());
    into.extend_from_slice(name.as_bytes());
    into.push(0);
}

fn string(into: &mut Vec<u8>, text: &str) {
    into.extend_from_slice(up_to_nul(text).as_bytes());
    into.push(0);
}

fn up_to_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default()
}

/// The marker that ended a list; none at the end of the data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Marker {
    Data,
    Up,
    Next,
}

struct Cursor<'a> {
    rest: &'a [u8],
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
        if magic != MAGIC || version != 0 {
            return malformed("no header of an nvlist");
        }
        if flags & BIG_ENDIAN != 0 {
            return malformed("a big-endian nvlist");
        }
        if flags != 0 {
            return malformed(format!("flags {flags:#x}"));
        }
        if self.u64()? != 0 {
            return malformed("descriptors");
        }
        let size = self.u64()?;
        if size != self.rest.len() as u64 {
            return malformed(format!("size {size} stated, {} bytes left", self.rest.len()));
        }
        Ok(())
    }

    fn pairs(&mut self, depth: usize) -> Result<(List, Marker), Malformed> {
        let mut list = List::new();
        while !self.rest.is_empty() {
            let [kind] = self.array()?;
            let name_size = u16::from_le_bytes(self.array()?);
            let length = self.u64()?;
            let items = self.u64()?;
            if name_size == 0 || usize::from(name_size) > MAX_NAME {
                return malformed(format!("a name of {name_size} bytes"));
            }
            let name = text(self.take(u64::from(name_size))?)?;
            match kind {
                UP => return Ok((list, Marker::Up)),
                ARRAY_NEXT => return Ok((list, Marker::Next)),
                _ => {}
            }
            let value = self.value(kind, length, items, depth)?;
            if !list.add(&name, value) {
                return malformed(format!("{name:?} twice, empty, or without a name"));
            }
        }
        Ok((list, Marker::Data))
    }

    fn value(&mut self, kind: u8, length: u64, items: u64, depth: usize) -> Result<Value, Malformed> {
        let fixed = |expected: u64| {
            if length == expected { Ok(()) } else { malformed(format!("{length} bytes for type {kind}")) }
        };
        Ok(match kind {
            NULL => {
                fixed(0)?;
                Value::Null
            }
            BOOL => {
                fixed(1)?;
                let [byte] = self.array()?;
                Value::Bool(truth(byte)?)
            }
            NUMBER => {
                fixed(8)?;
                Value::Number(self.u64()?)
            }
            STRING => Value::String(text(self.take(length)?)?),
            NVLIST => Value::List(self.inner(depth, Marker::Up)?),
            BINARY => Value::Binary(self.take(length)?.to_vec()),
            BOOL_ARRAY => {
                fixed(items)?;
                Value::Bools(self.take(length)?.iter().map(|byte| truth(*byte)).collect::<Result<_, _>>()?)
            }
            NUMBER_ARRAY => {
                if items.checked_mul(8) != Some(length) {
                    return malformed(format!("{items} numbers in {length} bytes"));
                }
                let numbers = self.take(length)?.chunks_exact(8);
                // chunks of exactly 8
                Value::Numbers(numbers.map(|n| n.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b))).collect())
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
            NVLIST_ARRAY => {
                let mut lists = Vec::new();
                for _ in 0..items {
                    lists.push(self.inner(depth, Marker::Next)?);
                }
                Value::Lists(lists)
            }
            6 | 12 => return malformed("descriptors"),
            other => return malformed(format!("type {other}")),
        })
    }

    fn inner(&mut self, depth: usize, expected: Marker) -> Result<List, Malformed> {
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

fn truth(byte: u8) -> Result<bool, Malformed> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        other => malformed(format!("truth value {other}")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(depth: u32) -> BoxedStrategy<Value> {
        let text = "[a-z0-9/:. äöü]{0,12}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<u64>().prop_map(Value::Number),
            text.prop_map(Value::String),
            prop::collection::vec(any::<u8>(), 1..20).prop_map(Value::Binary),
            prop::collection::vec(any::<bool>(), 1..5).prop_map(Value::Bools),
            prop::collection::vec(any::<u64>(), 1..5).prop_map(Value::Numbers),
            prop::collection::vec(text, 1..5).prop_map(Value::Strings),
        ];
        if depth == 0 {
            return leaf.boxed();
        }
        prop_oneof![
            4 => leaf,
            1 => list(depth - 1).prop_map(Value::List),
            1 => prop::collection::vec(list(depth - 1), 1..3).prop_map(Value::Lists),
        ]
        .boxed()
    }

    fn list(depth: u32) -> BoxedStrategy<List> {
        prop::collection::vec(("[a-z_.]{1,9}", value(depth)), 0..6)
            .prop_map(|pairs| pairs.into_iter().fold(List::new(), |list, (name, value)| list.with(&name, value)))
            .boxed()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_encoded_is_read_again(list in list(3)) {
            let bytes = list.encode();
            prop_assert_eq!(List::decode(&bytes), Ok(list));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(list) = List::decode(&bytes) {
                prop_assert_eq!(List::decode(&list.encode()), Ok(list));
            }
        }

        /// Almost valid input reaches further into the reader than random input.
        #[test]
        fn a_changed_byte_is_read_or_refused(list in list(3), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = list.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(list) = List::decode(&bytes) {
                prop_assert_eq!(List::decode(&list.encode()), Ok(list));
            }
            prop_assert!(List::decode(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn descriptors_are_refused() {
        let good = List::new().with("fd", Value::Number(0)).encode();
        for kind in [0, 6, 12, 13, 253] {
            let mut bytes = good.clone();
            bytes[HEADER] = kind;
            assert!(List::decode(&bytes).is_err(), "{kind}");
        }
    }

    #[test]
    fn an_announced_size_allocates_nothing() {
        for kind in [BINARY, STRING, STRING_ARRAY, NUMBER_ARRAY, BOOL_ARRAY, NVLIST_ARRAY] {
            let mut bytes = List::new().with("x", Value::Number(0)).encode();
            bytes[HEADER] = kind;
            bytes[HEADER + 3..HEADER + 19].fill(0xff);
            assert!(List::decode(&bytes).is_err(), "{kind}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = (0..MAX_DEPTH).fold(List::new(), |list, _| List::new().with("x", Value::List(list)));
        assert_eq!(List::decode(&deep.encode()), Ok(deep.clone()));
        assert!(List::decode(&List::new().with("x", Value::List(deep)).encode()).is_err());
    }

    #[test]
    fn a_missing_or_other_key_is_told() {
        let list = List::new().with("n", Value::Number(1));
        assert_eq!(list.number("n"), Ok(1));
        assert_eq!(list.string("n").unwrap_err().to_string(), "n is not a text");
        assert_eq!(list.number("m").unwrap_err().to_string(), "m is missing");
    }
}
