//! A port that a manager has published by itself, and the words that several of their files have in common.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Where a manager keeps the ports that it has published.
#[derive(Clone, Copy, Debug)]
pub struct Exports {
    /// Which files these are, in a few words.
    pub files: &'static str,
    /// Reads the ports of one of these files, or directories.
    ///
    /// # Errors
    ///
    /// [`Kind::Argument`] for a file that is not one of this manager's; it names the line. Those of [`TextOf`].
    pub read: fn(&Path, TextOf<'_>) -> Result<Vec<Port>>,
}

/// The text of a file.
pub type TextOf<'a> = &'a dyn Fn(&Path) -> Result<String>;

/// One port, in its manager's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The line or file where it stands.
    pub from: String,
    /// The jail's name, as jls(8) prints it; empty if the file does not name it.
    pub jail: String,
    /// Where: interfaces or an address; empty for the gateway interface.
    pub places: Vec<String>,
    /// The host's ports: `8080`, `8000-8010` or `auto`.
    pub host: String,
    /// The jail's.
    pub ports: String,
    /// tcp, udp.
    pub protocols: Vec<String>,
    /// Who may connect; empty for everybody.
    pub sources: Vec<String>,
    /// Whether connections are logged.
    pub log: bool,
    /// What kport does in another way.
    pub notes: Vec<String>,
    /// Why kport cannot publish it.
    pub unsupported: Option<String>,
}

/// A range of pf.conf(5), or of a manager: `8000:8010`, `8000-8010`, and `9000:*`, as long as that of the other side.
pub(super) fn range(text: &str) -> String {
    text.strip_suffix(":*").unwrap_or(text).replacen(':', "-", 1)
}

pub(super) fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The lines but for empty ones and comments, each with its number.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

/// The directory in a path that comes after `jails`.
pub(super) fn jail_of(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().rposition(|part| *part == "jails");
    at.and_then(|at| parts.get(at + 1)).map_or(String::new(), |name| (*name).to_owned())
}

/// The error for what is not in a manager's file.
pub(super) fn wrong(from: impl fmt::Display, why: impl fmt::Display) -> Error {
    Error::new(Kind::Argument, format!("{from}: {why}"))
}
