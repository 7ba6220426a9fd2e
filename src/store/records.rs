//! The records, the index entries that point to them (names that have all data: by port, by target, by jid), and the documents beside
//! them: other data of a jail while it is published, a file for each jail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

use super::{JAILS, Lock, Record, Store, anchors, dir, file_name, remove};
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Result, error};
use crate::files::{Folder, mark, names_in, read_file, replace_file};
use crate::name::Anchor;
use crate::net::{Place, PortRange, Protocol};

/// The largest record or document that is read: a thousand redirects need about 150 kB.
const MAX_RECORD: usize = 64 << 20;

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

    pub fn has(&self, anchor: &Anchor) -> bool {
        let there = fs::symlink_metadata(self.record_path(anchor));
        there.map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
    }

    pub fn records(&self) -> Result<Records<'_>> {
        let dir = self.dir.join(JAILS);
        let folder = Folder::open(&dir).map_err(|e| Error::io(format_args!("read {}", dir.display()), &e))?;
        Ok(Records { store: self, folder, bytes: vec![] })
    }

    pub fn anchors(&self) -> Result<Vec<Anchor>> {
        self.records()?.anchors()
    }

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
            let path = self.record_path(anchor);
            let ours = format!("and this kport supports only version {}", Record::VERSION);
            let what = format!("{} is a record of version {version}, {ours}", path.display());
            let remedy = "use the kport that wrote it, or unpublish with that one first";
            return Err(error!(Unsupported, "{what}: {remedy}"));
        }
        let record = read.map_err(|error| self.not_a_record(anchor, error))?;
        if !anchor.is_of(&record.jail) || record.possible().any(|p| p.jail != record.jail) {
            return Err(self.not_a_record(anchor, format_args!("it is of {}", record.jail.mention())));
        }
        Ok(record)
    }

    fn not_a_record(&self, anchor: &Anchor, why: impl Display) -> Error {
        let path = self.record_path(anchor);
        error!(System, "{} is not a record of kport: {why}", path.display()).because(Cause::DamagedRecord)
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
    /// with `Kind::Busy`. This lock is taken before the store's own, never after it.
    pub fn documents(&self, folder: &str, deadline: Deadline) -> Result<Documents> {
        let dir = dir::own(&self.dir.join(folder))?;
        Ok(Documents { _lock: Lock::take(&dir, deadline)?, dir })
    }
}

impl Documents {
    pub fn path(&self, anchor: &Anchor) -> PathBuf {
        self.dir.join(file_name(anchor))
    }

    pub fn anchors(&self) -> Result<Vec<Anchor>> {
        Ok(anchors(names_in(&self.dir)?, ".json"))
    }

    /// The contents of an anchor's document; empty if there is none.
    pub fn get(&self, anchor: &Anchor) -> Result<Vec<u8>> {
        let path = self.path(anchor);
        let read = read_file(&path, MAX_RECORD);
        Ok(read.map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?.unwrap_or_default())
    }

    pub fn put(&self, anchor: &Anchor, bytes: &[u8]) -> Result<()> {
        replace_file(&self.path(anchor), bytes)
    }

    pub fn remove(&self, anchor: &Anchor) -> Result<()> {
        remove(&self.path(anchor))
    }
}

/// A claim of another jail that may overlap a redirect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    pub anchor: Anchor,
    pub ports: PortRange,
    pub place: Place,
}

impl Store {
    /// Removes the entries of the record `gone` that are not those of `kept`, of the same jail. A left-over entry only costs
    /// reading a record, so failures are not reported.
    pub fn release(&self, _lock: &Lock, gone: &Record, kept: Option<&Record>) {
        let kept = kept.map(entries).unwrap_or_default();
        let mut folders = BTreeSet::new();
        for entry in entries(gone).difference(&kept) {
            let path = self.dir.join(entry);
            _ = fs::remove_file(&path);
            folders.extend(path.parent().map(Path::to_owned));
        }
        for folder in folders {
            // only an empty one is removed
            _ = fs::remove_dir(folder);
        }
    }

    /// The claims in one of the [`claim_folders`]. One may be out of date; check its record.
    pub fn claims(&self, folder: &str) -> Result<Vec<Claim>> {
        Ok(names_in(&self.dir.join(folder))?.iter().filter_map(|name| Claim::read(name)).collect())
    }

    pub fn leading_to(&self, address: IpAddr) -> Result<Vec<Anchor>> {
        self.anchors_in(&format!("targets/{address}"))
    }

    pub fn of_jid(&self, jid: i32) -> Result<Vec<Anchor>> {
        self.anchors_in(&format!("jids/{jid}"))
    }

    /// The anchors without a record that pf had at the first transaction of this boot, or of a new state directory.
    pub fn unrecorded(&self) -> Result<Vec<Anchor>> {
        self.anchors_in(UNRECORDED)
    }

    fn anchors_in(&self, dir: &str) -> Result<Vec<Anchor>> {
        Ok(anchors(names_in(&self.dir.join(dir))?, ""))
    }

    /// Removes what earlier boots and killed processes have left: records of another boot than `boot`, partly written files,
    /// and entries without a record. Entries of an anchor stay if `holds` reports that pf has something in it: they show who
    /// has the ports.
    ///
    /// What cannot be removed only costs reading a record, so failures are not reported. `read` is what the caller has read.
    pub fn sweep(
        &self, _lock: &Lock, boot: &str, read: &BTreeMap<Anchor, Record>, holds: &mut dyn FnMut(&Anchor) -> bool,
    ) {
        // the entries of an anchor's record; `None` if all of them stay
        let mut explained = |anchor: &Anchor| {
            let record = match read.get(anchor) {
                Some(known) => Ok(Some(known.clone())),
                None => self.get(anchor),
            };
            match record {
                Ok(Some(record)) if record.boot == boot => Some(entries(&record)),
                Ok(old) => {
                    if old.is_some() {
                        _ = fs::remove_file(self.record_path(anchor));
                    }
                    (!holds(anchor)).then(BTreeSet::new)
                }
                Err(_) => None,
            }
        };
        let jails = self.dir.join(JAILS);
        let mut known: BTreeMap<Anchor, Option<BTreeSet<String>>> = BTreeMap::new();
        for name in names_in(&jails).unwrap_or_default() {
            if name.strip_suffix(".json.tmp").is_some_and(|child| Anchor::from_child(child).is_some()) {
                _ = fs::remove_file(jails.join(&name));
            }
            if let Some(anchor) = name.strip_suffix(".json").and_then(Anchor::from_child) {
                known.entry(anchor).or_insert_with_key(&mut explained);
            }
        }
        let ports = Protocol::ALL.map(|protocol| format!("ports/{protocol}"));
        for base in ports.into_iter().chain(["targets".to_owned(), "jids".to_owned()]) {
            for folder in names_in(&self.dir.join(&base)).unwrap_or_default() {
                let dir = format!("{base}/{folder}");
                let mut empty = true;
                for file in names_in(&self.dir.join(&dir)).unwrap_or_default() {
                    // a claim ends with its anchor, the other entries are the anchor
                    let child = file.splitn(3, '@').last().unwrap_or_default();
                    let Some(anchor) = Anchor::from_child(child) else {
                        empty = false;
                        continue;
                    };
                    let wanted = known.entry(anchor).or_insert_with_key(&mut explained);
                    let entry = format!("{dir}/{file}");
                    match wanted.as_ref().is_some_and(|wanted| !wanted.contains(&entry)) {
                        true => _ = fs::remove_file(self.dir.join(entry)),
                        false => empty = false,
                    }
                }
                if empty {
                    _ = fs::remove_dir(self.dir.join(dir));
                }
            }
        }
        for anchor in self.unrecorded().unwrap_or_default() {
            if self.has(&anchor) || !holds(&anchor) {
                _ = fs::remove_file(self.dir.join(UNRECORDED).join(anchor.child()));
            }
        }
    }

    /// [`Store::sweep`], in the first transaction of a boot or of a new state directory. `children` reads the names of kport's
    /// anchors that have rules: those without a record are noted, since their ports are in use. If it fails, the next transaction
    /// tries again.
    pub fn sweep_after_boot(
        &self, lock: &Lock, boot: &str, holds: &mut dyn FnMut(&Anchor) -> bool,
        children: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<()> {
        if lock.boot() == boot {
            return Ok(());
        }
        self.sweep(lock, boot, &BTreeMap::new(), holds);
        let Ok(children) = children() else { return Ok(()) };
        for anchor in children.iter().filter_map(|child| Anchor::from_child(child)) {
            if !self.has(&anchor) {
                let path = self.dir.join(UNRECORDED).join(anchor.child());
                mark(&path).map_err(|e| Error::io(format_args!("create {}", path.display()), &e))?;
            }
        }
        lock.set_boot(boot);
        Ok(())
    }
}

/// The folder of the names of anchors without a record.
const UNRECORDED: &str = "unrecorded";
/// A claim is an entry of each of its blocks, unless there are more than these.
const WIDE_BLOCKS: usize = 16;

/// The blocks of 64 ports.
fn blocks(ports: PortRange) -> RangeInclusive<u16> {
    (ports.first() >> 6)..=(ports.last() >> 6)
}

/// The folder of the claims on ports of a block; without one, of those over more than [`WIDE_BLOCKS`].
fn claim_folder(protocol: Protocol, block: Option<u16>) -> String {
    block.map_or_else(|| format!("ports/{protocol}/wide"), |block| format!("ports/{protocol}/{block}"))
}

/// The folders of all claims that may overlap these ports.
pub fn claim_folders(protocol: Protocol, ports: PortRange) -> impl Iterator<Item = String> {
    let all = std::iter::once(None).chain(blocks(ports).map(Some));
    all.map(move |block| claim_folder(protocol, block))
}

impl Claim {
    fn read(name: &str) -> Option<Claim> {
        let mut parts = name.splitn(3, '@');
        let (ports, place, child) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Claim { anchor: Anchor::from_child(child)?, ports: ports.parse().ok()?, place: place.parse().ok()? })
    }
}

/// The paths of all entries of a record, below the state directory.
pub(super) fn entries(record: &Record) -> BTreeSet<String> {
    let anchor = record.jail.anchor();
    let child = anchor.child();
    let mut made = BTreeSet::new();
    for claim in record.claims() {
        let file = format!("{}@{}@{child}", claim.host, claim.place);
        if blocks(claim.host).len() > WIDE_BLOCKS {
            made.insert(format!("{}/{file}", claim_folder(claim.protocol, None)));
        } else {
            made.extend(blocks(claim.host).map(|b| format!("{}/{file}", claim_folder(claim.protocol, Some(b)))));
        }
    }
    let targets = record.possible().flat_map(|p| &p.redirects).map(|r| r.target);
    made.extend(targets.map(|target| format!("targets/{target}/{child}")));
    made.extend(record.jid.map(|jid| format!("jids/{jid}/{child}")));
    made
}
