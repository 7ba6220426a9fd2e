//! The fields of a JSON object, with their types.

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::code::{Code, Failure};
use crate::error::Error;

/// A field with its type; `None` if it is missing or null.
pub fn field<T: DeserializeOwned>(fields: &Map<String, Value>, key: &str) -> Result<Option<T>, Failure> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let wrong = |e| Failure::new(Code::Decode, format!("{key} is {}: {e}", shown(value)));
            serde_json::from_value(value.clone()).map(Some).map_err(wrong)
        }
    }
}

/// A text; `None` if it is empty.
pub fn text(fields: &Map<String, Value>, key: &str) -> Result<Option<String>, Failure> {
    Ok(field::<String>(fields, key)?.filter(|text| !text.is_empty()))
}

/// The value of a field as the specification wants it in a message, cut if it is long.
pub fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A field that is a word of kport's.
pub fn word<T: FromStr<Err = Error>>(fields: &Map<String, Value>, key: &str) -> Result<Option<T>, Failure> {
    text(fields, key)?.map(|word| parsed(key, &word)).transpose()
}

/// A field that is a list of them.
pub fn words<T: FromStr<Err = Error>>(fields: &Map<String, Value>, key: &str) -> Result<Option<Vec<T>>, Failure> {
    let Some(words) = field::<Vec<String>>(fields, key)? else { return Ok(None) };
    words.iter().map(|word| parsed(key, word)).collect::<Result<_, _>>().map(Some)
}

fn parsed<T: FromStr<Err = Error>>(key: &str, word: &str) -> Result<T, Failure> {
    word.parse().map_err(|e: Error| Failure::new(Code::Config, format!("{key}: {e}")))
}
