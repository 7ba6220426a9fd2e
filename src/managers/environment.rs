//! The variables that a hook or a plugin is called with.

use crate::error::{Error, Kind, Result, quoted};

/// The environment of a process, by a function that returns the value of a variable.
#[derive(Clone, Copy)]
pub struct Environment<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// A variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A variable that holds the number of a jail.
    ///
    /// # Errors
    ///
    /// [`Kind::Argument`] for a number that a jail cannot have.
    pub fn jid(&self, name: &str) -> Result<Option<i32>> {
        self.get(name).map(|text| jid(name, &text)).transpose()
    }
}

/// The number of a jail, from 1 on; `from` names the place where it stands.
pub(crate) fn jid(from: &str, text: &str) -> Result<i32> {
    text.parse()
        .ok()
        .filter(|jid| *jid > 0)
        .ok_or_else(|| Error::new(Kind::Argument, format!("{from}={} is not the number of a jail", quoted(text))))
}
