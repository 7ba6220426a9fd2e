//! Reading the records; and the documents beside them: other data of a jail while it is published, a file for each jail.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::{JAILS, Lock, Record, Store, anchors, dir, file_name, remove};
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Kind, Result};
use crate::files::{Folder, names_in, read_file, replace_file};
use crate::name::Anchor;

/// The largest record that is read: a thousand redirects need about 150 kB.
const MAX_RECORD: usize = 64 << 20;

/// The maximum that is read of a document, in bytes.
const MAX_DOCUMENT: usize = 64 << 20;

/// The records of a state directory, for reading many of them.
pub struct Records<'a> {
    store: &'a Store,
    /// `None` if nothing was ever published.
    pub(super) folder: Option<Folder>,
    bytes: Vec<u8>,
}

impl Store {
    /// The record of an anchor; `None` if there is none. A file that is not a record of this anchor is an error of
    /// [`Kind::System`] with [`Cause::DamagedRecord`]; see [`Store::move_damaged`]. A record of an unknown version is an
    /// error of [`Kind::Unsupported`].
    pub fn get(&self, anchor: &Anchor) -> Result<Option<Record>> {
        match read_file(&self.record_path(anchor), MAX_RECORD) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => self.record(anchor, &bytes).map(Some),
            Err(error) => Err(self.unreadable(anchor, &error)),
        }
    }

    /// Whether an anchor has a record, or something else in its place.
    pub fn has(&self, anchor: &Anchor) -> bool {
        let there = fs::symlink_metadata(self.record_path(anchor));
        there.map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
    }

    /// The records that are there now.
    pub fn records(&self) -> Result<Records<'_>> {
        let dir = self.dir.join(JAILS);
        let folder = Folder::open(&dir).map_err(|e| Error::io(format_args!("read {}", dir.display()), &e))?;
        Ok(Records { store: self, folder, bytes: vec![] })
    }

    /// The anchors that have a record, sorted.
    pub fn anchors(&self) -> Result<Vec<Anchor>> {
        self.records()?.anchors()
    }

    /// The record in a file, if it is this anchor's.
    fn record(&self, anchor: &Anchor, bytes: &[u8]) -> Result<Record> {
        if bytes.len() > MAX_RECORD {
            return Err(self.not_a_record(anchor, "it is too large"));
        }
        let text = str::from_utf8(bytes).map_err(|error| self.not_a_record(anchor, error))?;
        let read: serde_json::Result<Record> = serde_json::from_str(text);
        // a record of another version may have any other fields
        let version = match &read {
            Ok(record) => record.version,
            Err(error) => serde_json::from_str::<Form>(text).map_err(|_| self.not_a_record(anchor, error))?.version,
        };
        if version != Record::VERSION {
            // not damaged: another version of kport can read it, and its rules are in pf
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "{} is a record of version {version}, and this kport supports only version {}: use the kport that wrote \
                     it, or unpublish with that one first",
                    self.record_path(anchor).display(),
                    Record::VERSION
                ),
            ));
        }
        let record = read.map_err(|error| self.not_a_record(anchor, error))?;
        if !anchor.is_of(&record.jail) || record.possible().any(|p| p.jail != record.jail) {
            return Err(self.not_a_record(anchor, format_args!("it is of {}", record.jail.mention())));
        }
        Ok(record)
    }

    fn not_a_record(&self, anchor: &Anchor, why: impl Display) -> Error {
        let path = self.record_path(anchor);
        let what = format!("{} is not a record of kport: {why}", path.display());
        Error::new(Kind::System, what).because(Cause::DamagedRecord)
    }

    fn unreadable(&self, anchor: &Anchor, error: &io::Error) -> Error {
        match error.raw_os_error() {
            // EMLINK on FreeBSD, ELOOP elsewhere
            Some(libc::ELOOP | libc::EMLINK) => self.not_a_record(anchor, "it is a symbolic link"),
            Some(libc::EISDIR | libc::EAGAIN | libc::ESPIPE) => self.not_a_record(anchor, "it is not a file"),
            _ => Error::io(format_args!("read {}", self.record_path(anchor).display()), error),
        }
    }
}

impl Records<'_> {
    /// The anchors that have one, sorted; to be called once.
    pub fn anchors(&mut self) -> Result<Vec<Anchor>> {
        let names = self.folder.as_mut().map_or(Ok(vec![]), Folder::names);
        let names = names.map_err(|e| Error::io(format_args!("read {}", self.store.dir.join(JAILS).display()), &e))?;
        Ok(anchors(names, ".json"))
    }

    /// As for [`Store::get`].
    pub fn get(&mut self, anchor: &Anchor) -> Result<Option<Record>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        match folder.read(&file_name(anchor), MAX_RECORD, &mut self.bytes) {
            Ok(false) => Ok(None),
            Ok(true) => self.store.record(anchor, &self.bytes).map(Some),
            Err(error) => Err(self.store.unreadable(anchor, &error)),
        }
    }
}

/// What every version of a record has.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// The documents of one folder of the state directory, and the lock over them.
#[derive(Debug)]
pub struct Documents {
    dir: PathBuf,
    _lock: Lock,
}

impl Store {
    /// The documents of a folder, which is created if it is missing. Waits for the folder's lock until `deadline`, then fails
    /// with [`Kind::Busy`](crate::error::Kind::Busy). This lock is taken before the store's own, never after it.
    pub fn documents(&self, folder: &str, deadline: Deadline) -> Result<Documents> {
        let dir = dir::own(&self.dir.join(folder))?;
        Ok(Documents { _lock: Lock::take(&dir, deadline)?, dir })
    }
}

impl Documents {
    /// The file of an anchor's document.
    pub fn path(&self, anchor: &Anchor) -> PathBuf {
        self.dir.join(file_name(anchor))
    }

    /// The anchors that have a document, sorted.
    pub fn anchors(&self) -> Result<Vec<Anchor>> {
        Ok(anchors(names_in(&self.dir)?, ".json"))
    }

    /// The contents of an anchor's document; empty if there is none.
    pub fn get(&self, anchor: &Anchor) -> Result<Vec<u8>> {
        let path = self.path(anchor);
        let read = read_file(&path, MAX_DOCUMENT);
        Ok(read.map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?.unwrap_or_default())
    }

    /// Writes the document of an anchor, as a whole or not at all.
    pub fn put(&self, anchor: &Anchor, bytes: &[u8]) -> Result<()> {
        replace_file(&self.path(anchor), bytes)
    }

    /// Removes the document of an anchor, if there is one.
    pub fn remove(&self, anchor: &Anchor) -> Result<()> {
        remove(&self.path(anchor))
    }
}
