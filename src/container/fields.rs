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

/// A string; `None` if it is empty.
pub fn text(fields: &Map<String, Value>, key: &str) -> Result<Option<String>, Failure> {
    Ok(field::<String>(fields, key)?.filter(|text| !text.is_empty()))
}

/// The value of a field for a message, as the specification requires; cut if it is long.
pub fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A field with a keyword of kport.
pub fn word<T: FromStr<Err = Error>>(fields: &Map<String, Value>, key: &str) -> Result<Option<T>, Failure> {
    let parsed = |word: String| word.parse().map_err(|e: Error| Failure::new(Code::Config, format!("{key}: {e}")));
    text(fields, key)?.map(parsed).transpose()
}
