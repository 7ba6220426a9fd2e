//! What a list shows of the records, in one file: a list of thousands of jails does not read as many files.
//!
//! The file is only a cache, which [`Publisher::list`](crate::publisher::Publisher::list) writes; a change of a record does not
//! touch it. A summary is used while the record is the same file, unchanged: each change of a record creates another file, and any
//! other write to it changes its times. So a damaged record is read, and reported.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Record, Store};
use crate::deadline::Deadline;
use crate::files::{read_file, replace_file};
use crate::name::{Anchor, JailName};
use crate::publication::Redirect;
use crate::rule::Count;

/// The file in the state directory.
const FILE: &str = "summaries.json";

/// The version of the file. The number of rules of a publication depends on the version of kport.
const VERSION: &str = concat!("1 ", env!("CARGO_PKG_VERSION"));

/// The longest file that is read, in bytes: a record of one redirect needs about 200.
const MAX_FILE: usize = 64 << 20;

/// A directory with fewer records is read faster than the summaries are written.
const FEW: usize = 64;

/// A file system may count whole seconds: what has just been written could change again and have the same times.
const SETTLED: Duration = Duration::from_secs(2);

/// What a list shows of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub jail: JailName,
    pub jid: Option<i32>,
    pub no_jail: bool,
    pub since: u64,
    /// The rules that pf should have.
    pub rules: Count,
    pub redirects: Vec<Redirect>,
}

impl Summary {
    /// That of a record with these rules.
    pub fn new(record: &Record, rules: Count) -> Summary {
        let Record { ref jail, jid, no_jail, since, .. } = *record;
        Summary { jail: jail.clone(), jid, no_jail, since, rules, redirects: record.redirects().copied().collect() }
    }
}

/// A file as it was: device, inode, size, and the time of the last change of its inode in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let is = fs::symlink_metadata(path).ok()?;
        Some(Stamp(is.dev(), is.ino(), is.size(), is.ctime(), is.ctime_nsec()))
    }

    fn is_settled(self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.3).ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > SETTLED))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// The name of the anchor's record.
    child: String,
    stamp: Stamp,
    summary: Summary,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    version: String,
    boot: String,
    /// sorted
    known: Vec<Known>,
}

/// The summaries, for one pass over the anchors that have a record, in their order.
pub struct Summaries<'a> {
    store: &'a Store,
    boot: &'a str,
    now: SystemTime,
    left: std::iter::Peekable<std::vec::IntoIter<Known>>,
    next: Vec<Known>,
    /// The stamp of the record that was asked for last.
    stamp: Option<Stamp>,
    added: usize,
}

impl Store {
    /// The summaries of this boot; `None` if there are only a few records.
    pub fn summaries<'a>(&'a self, boot: &'a str, records: usize) -> Option<Summaries<'a>> {
        if records < FEW {
            return None;
        }
        let bytes = read_file(&self.dir.join(FILE), MAX_FILE).ok().flatten().unwrap_or_default();
        let left = serde_json::from_slice(&bytes).ok();
        let left = left.filter(|left: &Left| left.version == VERSION && left.boot == boot);
        let left = left.map(|left| left.known).unwrap_or_default().into_iter().peekable();
        let now = SystemTime::now();
        Some(Summaries { store: self, boot, now, left, next: Vec::with_capacity(records), stamp: None, added: 0 })
    }
}

impl Summaries<'_> {
    /// The summary of an anchor's record, if that is still the one that it was made of.
    pub fn get(&mut self, anchor: &Anchor) -> Option<&Summary> {
        self.stamp = Stamp::of(&self.store.record_path(anchor));
        while self.left.next_if(|known| known.child.as_str() < anchor.child()).is_some() {}
        let known = self.left.next_if(|known| known.child == anchor.child())?;
        if self.stamp != Some(known.stamp) {
            return None;
        }
        self.next.push(known);
        self.next.last().map(|known| &known.summary)
    }

    /// Adds that of the record that was asked for last, and then read.
    pub fn add(&mut self, anchor: &Anchor, summary: Summary) {
        if let Some(stamp) = self.stamp.filter(|stamp| stamp.is_settled(self.now)) {
            self.next.push(Known { child: anchor.child().to_owned(), stamp, summary });
            self.added += 1;
        }
    }

    /// Leaves them for the next list, if many were added and nobody has the lock at present. Without them the next list only
    /// takes longer, so failures are not reported.
    pub fn leave(self) {
        if self.added <= self.next.len() / 8 {
            return;
        }
        let left = Left { version: VERSION.to_owned(), boot: self.boot.to_owned(), known: self.next };
        if let Ok(bytes) = serde_json::to_vec(&left)
            && let Ok(_lock) = self.store.lock(Deadline::after(Duration::ZERO))
        {
            _ = replace_file(&self.store.dir.join(FILE), &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_is_not_settled() {
        let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let stamp = Stamp(1, 2, 3, 100, 999_999_999);
        for (now, settled) in [(99_000, false), (100_999, false), (102_000, false), (102_001, true)] {
            assert_eq!(stamp.is_settled(at(now)), settled, "{now}");
        }
        assert!(!Stamp(1, 2, 3, -1, 0).is_settled(at(102_001)));
    }
}
