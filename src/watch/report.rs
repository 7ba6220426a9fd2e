//! What the watcher has done: a line for syslogd(8), a JSON document on one line, and how many there were of each kind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde_json::json;

use crate::files::{read_regular, replace_file};
use crate::name::JailName;
use crate::publication::Redirect;
use crate::store::Store;

/// The most bytes that are read of the file with the numbers.
const MAX_FILE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A jail has published ports, and had none.
    Published,
    /// A jail has no ports any more.
    Unpublished,
    /// A jail has other ports, or they lead to another address.
    Changed,
    /// pf had lost rules, and has them again.
    Restored,
    /// pf does not evaluate the rules, or evaluates them again.
    Pf,
    /// Something has failed, and is tried again.
    Failed,
}

impl What {
    pub const ALL: [What; 6] =
        [What::Published, What::Unpublished, What::Changed, What::Restored, What::Pf, What::Failed];

    pub const fn name(self) -> &'static str {
        ["published", "unpublished", "changed", "restored", "pf", "failed"][self as usize]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub what: What,
    pub jail: Option<JailName>,
    pub why: String,
    /// What the jail had published, and what it has published now.
    pub before: Vec<Redirect>,
    pub after: Vec<Redirect>,
    pub notes: Vec<String>,
    pub error: Option<String>,
    /// In seconds since 1970.
    pub time: u64,
}

impl Report {
    /// A report of now, with nothing else.
    pub fn new(what: What) -> Report {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (before, after, notes) = Default::default();
        Report { what, jail: None, why: String::new(), before, after, notes, error: None, time }
    }

    /// One line of JSON, without the newline. Characters that are not ASCII are escaped.
    pub fn json(&self) -> String {
        let shown = |redirects: &[Redirect]| redirects.iter().map(Redirect::to_string).collect::<Vec<_>>();
        let document = json!({
            "version": 1,
            "time": self.time,
            "what": self.what.name(),
            "jail": self.jail.as_ref().map(JailName::as_str),
            "why": self.why,
            "before": shown(&self.before),
            "after": shown(&self.after),
            "notes": self.notes,
            "error": self.error,
        });
        let mut line = String::new();
        for c in document.to_string().chars() {
            match c {
                ' '..='~' => line.push(c),
                _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| line.push_str(&format!("\\u{unit:04x}"))),
            }
        }
        line
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(jail) = &self.jail {
            write!(f, "{}: ", jail.mention())?;
        }
        if let Some(error) = &self.error {
            return f.write_str(error);
        }
        if self.what == What::Pf {
            return f.write_str(&self.why);
        }
        write!(f, "{}: {}", self.what.name(), self.why)?;
        let shown = if self.after.is_empty() { &self.before } else { &self.after };
        for (number, redirect) in shown.iter().enumerate() {
            write!(f, "{} {redirect}", if number == 0 { ":" } else { "," })?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// Adds new reports to those that are counted. A failure costs no more than the numbers.
pub(super) fn count(reported: impl ExactSizeIterator<Item = What>, store: &Store) {
    if reported.len() == 0 {
        return;
    }
    let mut counted = counts(store);
    for what in reported {
        *counted.entry(what.name().to_owned()).or_default() += 1;
    }
    if let Ok(bytes) = serde_json::to_vec(&counted) {
        _ = replace_file(&path(store), &bytes);
    }
}

fn path(store: &Store) -> std::path::PathBuf {
    store.dir().join("watch.json")
}

/// The number of reports of each kind that the watchers have made since the boot; empty if none has run.
pub fn counts(store: &Store) -> BTreeMap<String, u64> {
    let bytes = read_regular(&path(store), MAX_FILE).ok().flatten().unwrap_or_default();
    let mut counted: BTreeMap<String, u64> = serde_json::from_slice(&bytes).unwrap_or_default();
    counted.retain(|name, _| What::ALL.iter().any(|what| what.name() == name));
    counted
}
