//! A port that a manager has published by itself, and the syntax that files of several managers have in common.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// The files with the ports that a manager has published.
#[derive(Clone, Copy, Debug)]
pub struct Exports {
    /// A short description of the files.
    pub files: &'static str,
    /// Reads the ports of one of these files, or directories. A line that is not understood is a [`Port`] with the reason.
    ///
    /// # Errors
    ///
    /// [`Kind::Argument`] for a file of another kind. Those of [`TextOf`].
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
    /// Whether the host itself may use it, at its loopback addresses.
    pub host_access: bool,
    /// Differences between the manager and kport.
    pub notes: Vec<String>,
    /// Why kport cannot publish it, or why it was not understood.
    pub unsupported: Option<String>,
}

impl Port {
    /// An entry that is not understood. `jail` may be empty.
    pub(super) fn unread(from: impl Into<String>, jail: impl Into<String>, why: impl fmt::Display) -> Port {
        Port { from: from.into(), jail: jail.into(), unsupported: Some(why.to_string()), ..Port::default() }
    }
}

/// A range of pf.conf(5), or of a manager: `8000:8010`, `8000-8010`, and `9000:*`, as many ports as on the other side. Names of
/// services(5) are replaced by their numbers for `protocol`; those that are not there stay.
pub(super) fn range(range: &str, protocol: &str, text: TextOf<'_>) -> String {
    let ends = range.strip_suffix(":*").unwrap_or(range).replacen(':', "-", 1);
    if !ends.starts_with(|c: char| c.is_ascii_alphabetic()) || ends == "auto" {
        return ends;
    }
    let services = text("/etc/services".as_ref()).unwrap_or_default();
    // a name may have a dash of its own
    let number = |name: &str| service(&services, name, protocol);
    if let Some(port) = number(&ends) {
        return port;
    }
    let both = ends.split_once('-').and_then(|(first, last)| Some(format!("{}-{}", number(first)?, number(last)?)));
    both.unwrap_or(ends)
}

/// The number of a service, by its name or an alias: `http 80/tcp www www-http # comment`.
fn service(services: &str, name: &str, protocol: &str) -> Option<String> {
    services.lines().find_map(|line| {
        let words = words(line.split('#').next()?);
        let (port, of) = words.get(1)?.split_once('/')?;
        let names = || words.iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, word)| *word);
        (of == protocol && names().any(|known| known == name)).then(|| port.to_owned())
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_numbers() {
        let services = "# services(5)\nhttp\t80/tcp www # web\nntp 123/udp\nfoo-bar 7/tcp\nalt 8080/tcp\n";
        let text = |_: &Path| Ok(services.to_owned());
        for (given, protocol, number) in [
            ("http", "tcp", "80"),
            ("www", "tcp", "80"),
            ("http", "udp", "http"),
            ("ntp", "udp", "123"),
            ("foo-bar", "tcp", "7"),
            ("http:alt", "tcp", "80-8080"),
            ("http-alt", "tcp", "80-8080"),
            ("8000:8010", "tcp", "8000-8010"),
            ("9000:*", "tcp", "9000"),
            ("auto", "tcp", "auto"),
            ("80/tcp", "tcp", "80/tcp"),
        ] {
            assert_eq!(range(given, protocol, &text), number, "{given}/{protocol}");
        }
    }
}
