//! What a list shows of the records, in one file: a list of thousands of jails does not open as many files.
//!
//! The file is only a cache, which [`Publisher::list`](crate::publisher::Publisher::list) writes; a change of a record does not
//! touch it. A summary is used while the record is the same file, unchanged: each change of a record creates another file, and any
//! other write to it changes its times. So a damaged record is read, and reported.
//!
//! The first line of the file is what it was made by and when; then it has a line for each record, in their order, which begins
//! with the name of the anchor. The lines of records that have not changed are copied to the next file as they are. They are not
//! JSON, which takes several times as long to read.

use std::cmp::Ordering;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use rustix::fs::Stat;

use super::{Record, Records, Store, file_name};
use crate::deadline::Deadline;
use crate::files::{read_file, replace_file};
use crate::name::{Anchor, JailName};
use crate::net::Protocol;
use crate::publication::Redirect;
use crate::rule::Count;

/// The file in the state directory.
const FILE: &str = "summaries";

/// The version of the file. The number of rules of a publication depends on the version of kport.
const VERSION: &str = concat!("2 ", env!("CARGO_PKG_VERSION"));

/// The longest file that is read, in bytes: a record of one redirect needs about 250.
const MAX_FILE: usize = 64 << 20;

/// A directory with fewer records is read faster than the summaries are written.
const FEW: usize = 64;

/// A file system may count whole seconds: what has just been written could change again and have the same times.
const SETTLED: Duration = Duration::from_secs(2);

/// What a list shows of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Its part of a line.
    fn text(&self) -> String {
        let Summary { jail, jid, no_jail, since, rules: Count { translations, filters }, redirects } = self;
        let jid = jid.map_or_else(|| "-".to_owned(), |jid| jid.to_string());
        let mut text = format!("{jid} {no_jail} {since} {translations} {filters}");
        for Redirect { place, protocol, host, target, jail, af_to } in redirects {
            text += &format!(" {place} {protocol} {host} {target} {jail} {af_to}");
        }
        // which may have spaces, but no control characters
        text + "\t" + jail.as_str() + "\n"
    }

    fn read(text: &str) -> Option<Summary> {
        let (text, jail) = text.strip_suffix('\n')?.split_once('\t')?;
        let mut words = text.split(' ');
        let jid = Some(words.next()?).filter(|jid| *jid != "-").map(str::parse).transpose().ok()?;
        let (no_jail, since) = (word(&mut words)?, word(&mut words)?);
        let rules = Count { translations: word(&mut words)?, filters: word(&mut words)? };
        let mut redirects = vec![];
        while let Some(place) = words.next() {
            redirects.push(Redirect {
                place: place.parse().ok()?,
                protocol: Protocol::named(words.next()?)?,
                host: word(&mut words)?,
                target: word(&mut words)?,
                jail: word(&mut words)?,
                af_to: word(&mut words)?,
            });
        }
        Some(Summary { jail: jail.parse().ok()?, jid, no_jail, since, rules, redirects })
    }
}

fn word<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    words.next()?.parse().ok()
}

/// A file as it was: device, inode, size, and the time of the last change of its inode in seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    /// The numbers have other types on each system.
    #[allow(clippy::unnecessary_cast)]
    fn of(is: &Stat) -> Stamp {
        Stamp(is.st_dev as u64, is.st_ino as u64, is.st_size as u64, is.st_ctime as i64, is.st_ctime_nsec as i64)
    }

    /// Its part of a line, and the rest.
    fn read(text: &str) -> Option<(Stamp, &str)> {
        let mut words = text.splitn(6, ' ');
        let words = &mut words;
        let stamp = Stamp(word(words)?, word(words)?, word(words)?, word(words)?, word(words)?);
        Some((stamp, words.next()?))
    }

    fn is_settled(self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.3).ok().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > SETTLED))
    }
}

/// The summaries, for one pass over the anchors that have a record, in their order.
pub struct Summaries<'a> {
    store: &'a Store,
    now: SystemTime,
    /// The file, and how much of it was read.
    left: String,
    at: usize,
    /// The next file, with so many lines of the last one and so many others.
    next: String,
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
        let bytes = read_file(&self.dir.join(FILE), MAX_FILE).ok().flatten().unwrap_or_default();
        let next = format!("{VERSION} {boot}\n");
        let left = String::from_utf8(bytes).ok().filter(|left| left.starts_with(&next)).unwrap_or_default();
        let at = next.len().min(left.len());
        Some(Summaries { store: self, now: SystemTime::now(), left, at, next, kept: 0, added: 0, stamp: None })
    }
}

impl Summaries<'_> {
    /// The summary of an anchor's record, if that is still the one that it was made of.
    pub fn get(&mut self, records: &Records<'_>, anchor: &Anchor) -> Option<Summary> {
        self.stamp = records.folder.as_ref()?.look_at(&file_name(anchor)).ok().map(|is| Stamp::of(&is));
        loop {
            let line = self.left[self.at..].split_inclusive('\n').next()?;
            let (child, known) = line.split_once(' ')?;
            match child.cmp(anchor.child()) {
                Ordering::Less => self.at += line.len(),
                Ordering::Greater => return None,
                Ordering::Equal => {
                    self.at += line.len();
                    let (stamp, summary) = Stamp::read(known)?;
                    let summary = Summary::read(summary).filter(|_| self.stamp == Some(stamp))?;
                    self.next.push_str(line);
                    self.kept += 1;
                    return Some(summary);
                }
            }
        }
    }

    /// Adds that of the record that was asked for last, and then read.
    pub fn add(&mut self, anchor: &Anchor, summary: &Summary) {
        if let Some(Stamp(a, b, c, d, e)) = self.stamp.filter(|stamp| stamp.is_settled(self.now)) {
            self.next += &format!("{} {a} {b} {c} {d} {e} {}", anchor.child(), summary.text());
            self.added += 1;
        }
    }

    /// Leaves them for the next list, if many were added and nobody has the lock at present. Without them the next list only
    /// takes longer, so failures are not reported.
    pub fn leave(self) {
        if self.added > self.kept / 8
            && let Ok(_lock) = self.store.lock(Deadline::after(Duration::ZERO))
        {
            _ = replace_file(&self.store.dir.join(FILE), self.next.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let redirect = |spec: &str, target: &str, af_to| {
            let parts: Vec<&str> = spec.split(' ').collect();
            Redirect {
                place: parts[0].parse().unwrap(),
                protocol: Protocol::named(parts[1]).unwrap(),
                host: parts[2].parse().unwrap(),
                target: target.parse().unwrap(),
                jail: parts[3].parse().unwrap(),
                af_to,
            }
        };
        let mut summary = Summary {
            jail: "a jail".parse().unwrap(),
            jid: Some(7),
            no_jail: false,
            since: 1_700_000_000,
            rules: Count { translations: 2, filters: 8 },
            redirects: vec![
                redirect("em0 tcp 8080 80", "10.0.0.2", false),
                redirect("[2001:db8::1] udp 8000-8010 9000-9010", "fd00::2", false),
                redirect("* tcp 443 443", "10.0.0.2", true),
            ],
        };
        assert_eq!(Summary::read(&summary.text()).as_ref(), Some(&summary));
        (summary.jid, summary.no_jail) = (None, true);
        summary.redirects.clear();
        let text = summary.text();
        assert_eq!(Summary::read(&text), Some(summary));
        assert_eq!(Summary::read(text.trim_end()), None);
        assert_eq!(Summary::read(&text.replacen(' ', " x", 1)), None);
    }

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
