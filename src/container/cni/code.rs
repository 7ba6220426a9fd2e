//! Error codes of the CNI specification, and the fields of a JSON object, whose mistakes have them.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Kind, Setting};

/// The code of an error. The numbers never change: those below 100 are of the specification, those from 100 on are kport's own, 100
/// and the number of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration has a version that is not supported, or that does not have the command.
    Version = 1,
    /// A field has a value that is not supported.
    Unsupported = 2,
    /// No such attachment was added.
    Unknown = 3,
    Environment = 4,
    Io = 5,
    /// The input is not JSON, or a field has the wrong type.
    Decode = 6,
    /// A field has an impossible value.
    Config = 7,
    Busy = 11,
    Unavailable = 50,
    Dead = 51,
    Conflict = 103,
    Permission = 104,
    NotReady = 105,
    NotPossible = 108,
    Differs = 110,
    Internal = 999,
}

/// Every code, with the text of all errors that have it.
pub const CODES: [(Code, &str); 16] = [
    (Code::Version, "incompatible CNI version"),
    (Code::Unsupported, "unsupported field"),
    (Code::Unknown, "unknown container"),
    (Code::Environment, "bad environment variable"),
    (Code::Io, "system error"),
    (Code::Decode, "cannot decode"),
    (Code::Config, "bad network configuration"),
    (Code::Busy, "busy, try again"),
    (Code::Unavailable, "pf is not ready"),
    (Code::Dead, "pf is not ready, and published ports are dead"),
    (Code::Conflict, "port in use"),
    (Code::Permission, "permission denied"),
    (Code::NotReady, "firewall not ready"),
    (Code::NotPossible, "not supported"),
    (Code::Differs, "not published as asked for"),
    (Code::Internal, "internal error in kport"),
];

impl Code {
    pub fn text(self) -> &'static str {
        CODES.iter().find(|(code, _)| *code == self).map_or("", |(_, text)| text)
    }
}

impl From<Kind> for Code {
    fn from(kind: Kind) -> Code {
        match kind {
            Kind::Argument | Kind::Spec => Code::Config,
            Kind::Conflict => Code::Conflict,
            Kind::Permission => Code::Permission,
            Kind::Unavailable => Code::NotReady,
            Kind::Busy => Code::Busy,
            Kind::System => Code::Io,
            Kind::Unsupported => Code::NotPossible,
            _ => Code::Internal,
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// What was found and what to do: the `details` of the answer.
    pub details: String,
}

impl Failure {
    pub fn new(code: Code, details: impl AsRef<str>) -> Failure {
        // always one line
        Failure { code, details: Error::new(Kind::Argument, details).message().to_owned() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let words = |setting: Setting| Some(format!("{} in the network configuration", setting.in_cni()?));
        Failure::new(error.kind().into(), error.in_words(words).message())
    }
}

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
