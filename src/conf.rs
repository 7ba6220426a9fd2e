//! kport.conf(5): what is to be published, one line for each publication, and the jails that it is for.
//!
//! ```text
//! web      8080:80 8443:443/tcp,udp --sources 192.0.2.0/24
//! /^ci-/   auto:22
//! ```
//!
//! The words after the jail are those of `kport publish`; the options are read by their names, as everywhere
//! ([`Request::set`]).

mod apply;
mod check;
mod line;
mod source;
mod words;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::error::{Kind, Result};
use crate::host::Host;
use crate::name::JailName;
use crate::publisher::Request;

pub use apply::{apply, jails};
pub use check::check;
pub use line::Line;

/// The file that is read if the caller names none.
pub const DEFAULT: &str = "/usr/local/etc/kport.conf";

/// The lines of kport.conf(5) and of the files in kport.conf.d.
#[derive(Clone, Debug, Default)]
pub struct Conf {
    lines: Vec<Line>,
}

/// The names of the jails that run.
fn running(host: &dyn Host) -> Result<Vec<JailName>> {
    let jails = match host.jails() {
        // a system without jails, for trying kport
        Err(error) if error.kind() == Kind::Unsupported => vec![],
        jails => jails?.jails,
    };
    Ok(jails.into_iter().filter(|jail| !jail.dying).filter_map(|jail| jail.name.parse().ok()).collect())
}

/// Whether a request was made from a line.
pub fn is_of_line(request: &Request, line: &Request) -> bool {
    let found = || Request { addresses: vec![], ..request.clone() };
    request.is_same(line) || line.addresses.is_empty() && line.is_same(&found())
}

impl Conf {
    /// Reads `file`, then the files of the directory `file.d` whose names end in `.conf`, in the order of their names. Without
    /// a file of the caller's choice, [`DEFAULT`], which need not exist.
    ///
    /// # Errors
    ///
    /// [`Kind::Permission`](crate::error::Kind) if somebody other than root and the caller could have written it;
    /// [`Kind::Spec`](crate::error::Kind) and [`Kind::Argument`](crate::error::Kind) for a line that cannot be read, with the
    /// file, the line and the offset in it.
    pub fn read(file: Option<&Path>) -> Result<Conf> {
        let mut lines = vec![];
        for (name, text) in source::texts(file)? {
            lines.extend(line::parse(&name, &text)?);
        }
        Ok(Conf { lines })
    }

    /// What a file with this text and this name says.
    ///
    /// # Errors
    ///
    /// As for [`Conf::read`].
    pub fn parse(name: &str, text: &str) -> Result<Conf> {
        Ok(Conf { lines: line::parse(name, text)? })
    }

    /// The lines, in their order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines of a jail.
    pub fn of<'a>(&'a self, jail: &'a JailName) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(|line| line.is_of(jail))
    }

    /// The requests of one transaction for a jail that runs; empty if no line is for it. They do not wait for an address: a hook
    /// does.
    pub fn requests(&self, jail: &JailName) -> Vec<Request> {
        self.of(jail).map(|line| Request { wait: Duration::ZERO, ..line.request(jail) }).collect()
    }

    /// Whether the lines of a jail are others than those that were requested for it, except for addresses that a manager gave to
    /// the hook.
    pub fn differs(&self, jail: &JailName, requests: &[Request]) -> bool {
        let lines = self.requests(jail);
        let had: Vec<&Request> = requests.iter().filter(|request| request.configured).collect();
        had.len() != lines.len() || lines.iter().any(|line| !had.iter().any(|old| is_of_line(old, line)))
    }

    /// The jails that the lines name.
    pub fn named(&self) -> BTreeSet<&JailName> {
        self.lines.iter().filter_map(Line::jail).collect()
    }

    /// The names of targets that are not jails.
    pub fn not_jails(&self) -> BTreeSet<&JailName> {
        self.lines.iter().filter(|line| line.is_no_jail()).filter_map(Line::jail).collect()
    }
}
