//! Error codes of the CNI specification: those below 100 are its own, those from 100 on are kport's.

use std::fmt;

use crate::error::{Error, Kind, Setting};

/// The code of an error. The numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration has a version that is not supported, or that does not have the command.
    Version,
    /// A field has a value that is not supported.
    Unsupported,
    /// No such attachment was added.
    Unknown,
    /// A variable of the environment is missing or unusable.
    Environment,
    /// A system call or pfctl(8) failed.
    Io,
    /// The input is not JSON, or a field has the wrong type.
    Decode,
    /// A field has an impossible value.
    Config,
    /// Try again later.
    Busy,
    /// Nothing could be published now.
    Unavailable,
    /// Nothing could be published now, and what is published is dead.
    Dead,
    /// [`Kind::Conflict`]
    Conflict,
    /// [`Kind::Permission`]
    Permission,
    /// [`Kind::Unavailable`]
    NotReady,
    /// [`Kind::Unsupported`]
    NotPossible,
    /// `CHECK`: the published ports are not the requested ones.
    Differs,
    /// A defect in kport.
    Internal,
}

impl Code {
    /// Every code, in the order of the numbers.
    #[cfg(test)]
    pub const ALL: [Code; 16] = [
        Code::Version,
        Code::Unsupported,
        Code::Unknown,
        Code::Environment,
        Code::Io,
        Code::Decode,
        Code::Config,
        Code::Busy,
        Code::Unavailable,
        Code::Dead,
        Code::Conflict,
        Code::Permission,
        Code::NotReady,
        Code::NotPossible,
        Code::Differs,
        Code::Internal,
    ];

    /// Its number, and a short text, which is the same for every error with this code.
    const fn row(self) -> (u16, &'static str) {
        match self {
            Code::Version => (1, "incompatible CNI version"),
            Code::Unsupported => (2, "unsupported field"),
            Code::Unknown => (3, "unknown container"),
            Code::Environment => (4, "bad environment variable"),
            Code::Io => (5, "system error"),
            Code::Decode => (6, "cannot decode"),
            Code::Config => (7, "bad network configuration"),
            Code::Busy => (11, "busy, try again"),
            Code::Unavailable => (50, "pf is not ready"),
            Code::Dead => (51, "pf is not ready, and published ports are dead"),
            // 100 and the number of the kind
            Code::Conflict => (103, "port in use"),
            Code::Permission => (104, "permission denied"),
            Code::NotReady => (105, "firewall not ready"),
            Code::NotPossible => (108, "not supported"),
            Code::Differs => (110, "not published as asked for"),
            Code::Internal => (999, "internal error in kport"),
        }
    }

    pub const fn number(self) -> u16 {
        self.row().0
    }

    pub const fn text(self) -> &'static str {
        self.row().1
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

/// The words of the plugin for a setting.
fn in_configuration(setting: Setting) -> Option<String> {
    Some(format!("{} in the network configuration", field_of(setting)?))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error.kind().into(), error.in_words(in_configuration).message())
    }
}

/// The field of a document for a setting, as in kport-cni(8). It has none for the addresses, which the runtime gives, and none for
/// the places and ports of all mappings.
pub fn field_of(setting: Setting) -> Option<&'static str> {
    Some(match setting {
        Setting::Address | Setting::AutoRange | Setting::Gateway | Setting::Trust | Setting::Wait => return None,
        Setting::Backend => r#""backend": "pfctl""#,
        Setting::Force => r#""force": true"#,
        Setting::Family => r#""family": [...]"#,
        Setting::HostAccess => r#""hostAccess": true"#,
        Setting::Rate => r#""limits": { "rate": ... }"#,
        Setting::ReplyTo => r#""replyTo": [ "ROUTER" ]"#,
        Setting::StateDir => r#""stateDir": "...""#,
        Setting::Timeout => r#""timeout": SECONDS"#,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.text(), self.details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_rise_and_kports_own_are_a_hundred_and_the_kind() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        for kind in Kind::ALL {
            let code = Code::from(kind).number();
            assert!(code < 100 || code == 999 || i32::from(code) == 100 + kind.number(), "{kind:?}: {code}");
        }
    }

    /// The table of kport-cni(8).
    #[test]
    fn the_manual_has_each_code() {
        let page = include_str!("../../man/kport-cni.8");
        let table = page.split("\n.\\\" code table").nth(1).unwrap().split("\n.El").next().unwrap();
        let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
        let expected: Vec<String> =
            Code::ALL.iter().map(|code| format!("{} Ta {}", code.number(), code.text())).collect();
        assert_eq!(rows, expected);
    }
}
