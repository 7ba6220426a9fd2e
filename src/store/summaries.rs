//! What a list shows of the records, in one file: a list of thousands of jails does not open as many files.
//!
//! The file is only a cache, which [`Publisher::list`](crate::publisher::Publisher::list) writes; a change of a record does not
//! touch it. A summary is used while the record is the same file, unchanged: each change of a record creates another file, and any
//! other write to it changes its times. So a damaged record is read, and reported.
//!
//! The file begins with what it was made by and when; then it has a [`Line`] for each record, in their order. The lines of records that
//! have not changed are copied to the next file as they are. They are not JSON, which takes several times as long to read.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use super::{Record, Records, Store, file_name};
use crate::deadline::Deadline;
use crate::files::{read_file, replace_file};
use crate::name::{Anchor, JailName};
use crate::net::{Place, PortRange, Protocol};
use crate::publication::Redirect;
use crate::rule::Count;

/// The file in the state directory.
const FILE: &str = "summaries";

/// The version of the file. The number of rules of a publication depends on the version of kport.
const VERSION: &str = concat!("3 ", env!("CARGO_PKG_VERSION"));

/// The longest file that is read, in bytes: a record of one redirect needs about 250.
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
    pub redirects: Vec<Shown>,
}

/// A redirect with all of its fields: the form that it has in a record leaves one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown(#[serde(with = "Whole")] pub Redirect);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Redirect")]
struct Whole {
    place: Place,
    protocol: Protocol,
    host: PortRange,
    target: IpAddr,
    jail: PortRange,
    af_to: bool,
}

impl Summary {
    /// That of a record with these rules.
    pub fn new(record: &Record, rules: Count) -> Summary {
        let Record { ref jail, jid, no_jail, since, .. } = *record;
        let redirects = record.redirects().copied().map(Shown).collect();
        Summary { jail: jail.clone(), jid, no_jail, since, rules, redirects }
    }
}

/// A file as it was: device, inode, size, and the time of the last change of its inode in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    /// The numbers have other types on each system.
    #[allow(clippy::unnecessary_cast)]
    fn of(is: &Stat) -> Stamp {
        Stamp(is.st_dev as u64, is.st_ino as u64, is.st_size as u64, is.st_ctime as i64, is.st_ctime_nsec as i64)
    }
}

/// Whether what was changed at this second is older than a change that could have the same times.
pub fn is_settled(changed: i64, now: SystemTime) -> bool {
    let changed = u64::try_from(changed).ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > SETTLED))
}

/// The name of an anchor, its record as it was, and what a list shows of that.
type Line<'a> = (&'a str, Stamp, Summary);

/// The summaries, for one pass over the anchors that have a record, in their order.
pub struct Summaries<'a> {
    store: &'a Store,
    now: SystemTime,
    /// The file, and how much of it was read.
    left: Vec<u8>,
    at: usize,
    /// The next file, with so many lines of the last one and so many others.
    next: Vec<u8>,
    kept: usize,
    added: usize,
    /// The stamp of the record that was asked for last.
    stamp: Option<Stamp>,
}

impl Store {
    /// The summaries of this boot; `None` if there are only a few records.
    pub fn summaries(&self, boot: &str, records: usize) -> Option<Summaries<'_>> {
        if records < FEW {
            return None;
        }
        let next = postcard::to_stdvec(&(VERSION, boot)).ok()?;
        let mut left = read_file(&self.dir.join(FILE), MAX_FILE).ok().flatten().unwrap_or_default();
        if !left.starts_with(&next) {
            left.clear();
        }
        let at = next.len().min(left.len());
        Some(Summaries { store: self, now: SystemTime::now(), left, at, next, kept: 0, added: 0, stamp: None })
    }
}

impl Summaries<'_> {
    /// The summary of an anchor's record, if that is still the one that it was made of.
    pub fn get(&mut self, records: &Records<'_>, anchor: &Anchor) -> Option<Summary> {
        self.stamp = records.folder.as_ref()?.look_at(&file_name(anchor)).ok().map(|is| Stamp::of(&is));
        loop {
            let left = &self.left[self.at..];
            let ((child, stamp, summary), after): (Line<'_>, _) = postcard::take_from_bytes(left).ok()?;
            let line = &left[..left.len() - after.len()];
            match child.cmp(anchor.child()) {
                Ordering::Less => self.at += line.len(),
                Ordering::Greater => return None,
                Ordering::Equal => {
                    self.at += line.len();
                    if self.stamp != Some(stamp) {
                        return None;
                    }
                    self.next.extend_from_slice(line);
                    self.kept += 1;
                    return Some(summary);
                }
            }
        }
    }

    /// Adds that of the record that was asked for last, and then read.
    pub fn add(&mut self, anchor: &Anchor, summary: &Summary) {
        if let Some(stamp) = self.stamp.filter(|stamp| is_settled(stamp.3, self.now))
            && let Ok(line) = postcard::to_stdvec(&(anchor.child(), stamp, summary))
        {
            self.next.extend(line);
            self.added += 1;
        }
    }

    /// Leaves them for the next list, if many were added and nobody has the lock at present. Without them the next list only
    /// takes longer, so failures are not reported.
    pub fn leave(self) {
        if self.added > self.kept / 8
            && let Ok(_lock) = self.store.lock(Deadline::after(Duration::ZERO))
        {
            _ = replace_file(&self.store.dir.join(FILE), &self.next);
        }
    }
}
