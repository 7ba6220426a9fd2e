//! The environment of a hook or a plugin.

use crate::error::{Error, Kind, Result, quoted};

/// The environment of a process: a function that returns the value of a variable.
#[derive(Clone, Copy)]
pub struct Environment<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// A variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A variable with a jid.
    ///
    /// # Errors
    ///
    /// [`Kind::Argument`] for an invalid jid.
    pub fn jid(&self, name: &str) -> Result<Option<i32>> {
        self.get(name).map(|text| jid(name, &text)).transpose()
    }
}

/// Parses a jid, which is at least 1; `from` names its source for messages.
pub(crate) fn jid(from: &str, text: &str) -> Result<i32> {
    text.parse()
        .ok()
        .filter(|jid| *jid > 0)
        .ok_or_else(|| Error::new(Kind::Argument, format!("{from}={} is not a jid", quoted(text))))
}
