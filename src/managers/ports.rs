//! A port that a manager has published by itself, and the syntax that files of several managers have in common.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// The files with the ports that a manager has published.
#[derive(Clone, Copy, Debug)]
pub struct Exports {
    /// A short description of the files.
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

/// One port, in the syntax of its manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its line or file.
    pub from: String,
    /// The jail's name, as jls(8) prints it; empty if the file does not name it.
    pub jail: String,
    /// Its places: interfaces or an address; empty for the gateway interface.
    pub places: Vec<String>,
    /// The host's ports: `8080`, `8000-8010` or `auto`.
    pub host: String,
    /// The jail's ports.
    pub ports: String,
    /// tcp, udp.
    pub protocols: Vec<String>,
    /// The allowed sources; empty for all.
    pub sources: Vec<String>,
    /// Whether connections are logged.
    pub log: bool,
    /// Differences between the manager and kport.
    pub notes: Vec<String>,
    /// Why kport cannot publish it.
    pub unsupported: Option<String>,
}

/// A range of pf.conf(5), or of a manager: `8000:8010`, `8000-8010`, and `9000:*`, as many ports as on the other side.
pub(super) fn range(text: &str) -> String {
    text.strip_suffix(":*").unwrap_or(text).replacen(':', "-", 1)
}

pub(super) fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The lines except empty ones and comments, each with its number.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

/// The directory after `jails` in a path.
pub(super) fn jail_of(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().rposition(|part| *part == "jails");
    at.and_then(|at| parts.get(at + 1)).map_or(String::new(), |name| (*name).to_owned())
}

/// The error for an invalid file of a manager.
pub(super) fn wrong(from: impl fmt::Display, why: impl fmt::Display) -> Error {
    Error::new(Kind::Argument, format!("{from}: {why}"))
}
