//! What is published, on disk: the lock and the record.
//!
//! ```text
//! lock                        flock(2): one change at a time on the host; holds who has it, for the message
//! jails/NAME.json             the record of one jail, NAME being its anchor's name
//! ports/tcp/126/8080-8080@em0@NAME   a claim: NAME's record has tcp ports in block 126 (64 ports each)
//! ports/tcp/wide/...          the claims over more than 16 blocks
//! targets/10.0.0.2/NAME       NAME's record has redirects that lead to 10.0.0.2
//! jids/7/NAME                 NAME's record is of jail number 7
//! damaged/                    records that could not be read, kept for the admin
//! ```
//!
//! One file for each jail, not one for all: what a publish costs does not grow with the number of jails, and a damaged
//! file is one jail's problem. Claims, targets and numbers only say which records to look at: they are made before the record
//! and go after it, so a kill in between leaves one too many, never one too few. Nothing is synced to disk: the record is of this
//! boot (it carries the boot's id), and what the kernel lost in a crash it need not remember either.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::files::{make_dir, names_in, replace_file};
use crate::name::{Anchor, JailName};
use crate::net::{Place, PortRange, Protocol};
use crate::publication::{Publication, Redirect};

/// Where the record is unless the caller says otherwise.
pub const DEFAULT_DIR: &str = "/var/run/kport";

/// The largest record that is read: a thousand redirects take about 150 kB.
const MAX_RECORD: u64 = 64 << 20;

/// What is recorded of one jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The form of the file: [`Record::VERSION`].
    pub version: u32,
    /// The boot during which it was written (`Host::boot_id`): pf forgets its rules at a boot.
    pub boot: String,
    /// Whose ports.
    pub jail: JailName,
    /// The number that the jail had, if it was known: another number is another start of the jail.
    pub jid: Option<i32>,
    /// While the number is not known: that of an earlier start, which may still ask to unpublish.
    #[serde(default)]
    pub earlier_jid: Option<i32>,
    /// When it was published, in seconds since 1970.
    pub since: u64,
    /// Whether every state that may live has its mapping's label: [`Firewall::labels_mappings`](crate::pf::Firewall) of each
    /// backend that has loaded rules for the jail since it was unpublished.
    pub mapping_labels: bool,
    /// What is to be in pf: one publication, or several with different options. All of the same jail. None where a first
    /// change failed and could not be undone.
    pub publications: Vec<Publication>,
    /// What may be in pf instead, while it is being replaced. Still there after a crash: then pf holds the old or the new.
    pub replaces: Vec<Publication>,
}

impl Record {
    /// The version that this code writes.
    pub const VERSION: u32 = 1;

    /// Everything that may be in pf.
    pub fn possible(&self) -> impl Iterator<Item = &Publication> {
        self.publications.iter().chain(&self.replaces)
    }

    /// What is to be published.
    pub fn redirects(&self) -> impl Iterator<Item = &Redirect> {
        self.publications.iter().flat_map(|p| &p.redirects)
    }

    /// What no other jail may overlap ([`Publication::claims`]).
    pub fn claims(&self) -> Vec<Redirect> {
        self.possible().flat_map(Publication::claims).collect()
    }
}

/// A claim of another jail that may overlap a redirect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The anchor that made it.
    pub anchor: Anchor,
    /// The ports.
    pub ports: PortRange,
    /// Where.
    pub place: Place,
}

/// The state directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

/// The lock of a state directory; dropping it, or the end of the process, lets go.
#[derive(Debug)]
#[must_use = "the lock is held as long as this value lives"]
pub struct Lock {
    _file: File,
}

impl Store {
    /// The directory to use when the caller names none: [`DEFAULT_DIR`] for root and on FreeBSD, else one of the user's
    /// own.
    pub fn default_dir() -> PathBuf {
        let uid = rustix::process::geteuid();
        if uid.is_root() || cfg!(target_os = "freebsd") {
            return PathBuf::from(DEFAULT_DIR);
        }
        let runtime = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
        if runtime.is_dir() {
            return runtime.join("kport");
        }
        PathBuf::from(format!("/tmp/kport-{}", uid.as_raw()))
    }

    /// Uses `dir`, which must be an absolute path, and makes it where it is missing (mode 0700). A directory that others
    /// may write to, or that belongs to another user, is refused: whoever writes there decides what is loaded into pf.
    pub fn open(dir: &Path) -> Result<Store> {
        let shown = dir.display();
        if !dir.is_absolute() {
            return Err(Error::new(Kind::Argument, format!("state directory {shown}: give an absolute path")));
        }
        match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
            Ok(()) => {}
            Err(error) => return Err(Error::io(format_args!("make the state directory {shown}"), &error)),
        }
        let meta = fs::symlink_metadata(dir).map_err(|e| Error::io(format_args!("state directory {shown}"), &e))?;
        let owner = rustix::process::geteuid().as_raw();
        if !meta.is_dir() || meta.uid() != owner || meta.mode() & 0o022 != 0 {
            return Err(Error::new(
                Kind::Permission,
                format!(
                    "state directory {shown} must be a directory of user {owner} that only its owner can write to \
                     (it is owned by user {}, mode {:o}); run as its owner, or name another one with --state-dir",
                    meta.uid(),
                    meta.mode() & 0o7777
                ),
            ));
        }
        Ok(Store { dir: dir.to_owned() })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the host-wide lock. Waits until `deadline`, then fails with [`Kind::Busy`] and says who has it.
    pub fn lock(&self, deadline: Instant) -> Result<Lock> {
        let path = self.dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|e| Error::io(format_args!("open {}", path.display()), &e))?;
        let mut pause = Duration::from_micros(200);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(TryLockError::Error(e)) => return Err(Error::io(format_args!("lock {}", path.display()), &e)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let mut holder = String::new();
                // the text is only for the message; an unreadable one says nothing
                _ = Read::by_ref(&mut file).take(200).read_to_string(&mut holder);
                let holder = if holder.is_empty() { "another process".to_owned() } else { holder };
                return Err(Error::new(
                    Kind::Busy,
                    format!("{} is held by {} and the time-out has passed; try again", path.display(), holder.trim()),
                ));
            }
            std::thread::sleep(pause.mul_f64(0.5 + fastrand::f64()).min(left));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        // who has the lock; a failure to say so is no reason to fail
        let text = format!("process {}\n", std::process::id());
        _ = file.set_len(text.len() as u64).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Lock { _file: file })
    }

    fn record_path(&self, anchor: &Anchor) -> PathBuf {
        self.dir.join("jails").join(format!("{}.json", anchor.child()))
    }

    /// The record of an anchor; `None` where there is none. A file that is no record of this anchor is an error of
    /// [`Kind::System`] without errno; see [`Store::set_aside`]. A record of a version that this code does not know is one
    /// of [`Kind::Unsupported`].
    pub fn get(&self, anchor: &Anchor) -> Result<Option<Record>> {
        let path = self.record_path(anchor);
        let damaged = |why: &dyn std::fmt::Display| {
            Error::new(Kind::System, format!("{} is not a record of kport's: {why}", path.display()))
        };
        let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path)
        {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // a symbolic link: EMLINK on FreeBSD, ELOOP elsewhere
            Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::EMLINK)) => {
                return Err(damaged(&"it is a symbolic link"));
            }
            Err(e) => return Err(Error::io(format_args!("open {}", path.display()), &e)),
        };
        let mut bytes = Vec::new();
        let meta = file.metadata().map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
        if !meta.is_file() {
            return Err(damaged(&"it is not a file"));
        }
        if meta.len() > MAX_RECORD {
            return Err(damaged(&"it is too large"));
        }
        file.read_to_end(&mut bytes).map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
        let form: Form = serde_json::from_slice(&bytes).map_err(|e| damaged(&e))?;
        if form.version != Record::VERSION {
            // not damaged: another kport can read it, and its rules are in pf
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "{} is a record of version {}, and this kport knows version {} only: use the kport that wrote it, or \
                     unpublish with that one first",
                    path.display(),
                    form.version,
                    Record::VERSION
                ),
            ));
        }
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| damaged(&e))?;
        if record.jail.anchor() != *anchor || record.possible().any(|p| p.jail != record.jail) {
            return Err(damaged(&format_args!("it is of {}", record.jail.mention())));
        }
        Ok(Some(record))
    }

    /// Writes the record of its jail, in whole or not at all, and what leads to it before it.
    pub fn put(&self, _lock: &Lock, record: &Record) -> Result<()> {
        let anchor = record.jail.anchor();
        for entry in entries(record) {
            let dir = self.dir.join(&entry.dir);
            let path = dir.join(entry.file);
            let made = match OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => make_dir(&dir)
                    .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)),
                other => other,
            };
            made.map_err(|e| Error::io(format_args!("make {}", path.display()), &e))?;
        }
        let path = self.record_path(&anchor);
        let bytes = serde_json::to_vec(record).map_err(|e| Error::new(Kind::Internal, format!("record: {e}")))?;
        replace_file(&path, &bytes)
    }

    /// Removes the record of an anchor, if there is one, and then what leads to it; `record` is the one that was there.
    pub fn remove(&self, lock: &Lock, anchor: &Anchor, record: Option<&Record>) -> Result<()> {
        let path = self.record_path(anchor);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format_args!("remove {}", path.display()), &e));
            }
            _ => {}
        }
        if let Some(record) = record {
            self.release(lock, record, None);
        }
        Ok(())
    }

    /// Drops what leads to the record `gone` and not to `kept`, of the same jail. An entry that stays behind costs a look
    /// at a record, no more, so failures are not reported.
    pub fn release(&self, _lock: &Lock, gone: &Record, kept: Option<&Record>) {
        let kept = kept.map(entries).unwrap_or_default();
        for entry in entries(gone).difference(&kept) {
            let dir = self.dir.join(&entry.dir);
            _ = fs::remove_file(dir.join(&entry.file));
            // only an empty one goes
            _ = fs::remove_dir(dir);
        }
    }

    /// Moves a file that is no record out of the way, where the admin finds it, and says where.
    pub fn set_aside(&self, _lock: &Lock, anchor: &Anchor) -> Result<PathBuf> {
        let from = self.record_path(anchor);
        let dir = self.dir.join("damaged");
        make_dir(&dir).map_err(|e| Error::io(format_args!("make {}", dir.display()), &e))?;
        let named = |n: usize| dir.join(format!("{}.{n}", anchor.child()));
        // where so many are kept, the last one gives way: what is unreadable must not keep a port open
        let to = (1..MAX_DAMAGED).map(named).find(|to| fs::symlink_metadata(to).is_err());
        let to = to.unwrap_or_else(|| named(MAX_DAMAGED));
        fs::rename(&from, &to).map_err(|e| Error::io(format_args!("set aside {}", from.display()), &e))?;
        Ok(to)
    }

    /// Whether a file of this anchor was [set aside](Store::set_aside), and nobody has removed it.
    pub fn is_damaged(&self, anchor: &Anchor) -> Result<bool> {
        let names = names_in(&self.dir.join("damaged"))?;
        Ok(names.iter().any(|name| name.rsplit_once('.').is_some_and(|(child, _)| child == anchor.child())))
    }

    /// The anchors that have a record, sorted.
    pub fn anchors(&self) -> Result<Vec<Anchor>> {
        let dir = self.dir.join("jails");
        let mut found: Vec<Anchor> =
            names_in(&dir)?.iter().filter_map(|name| Anchor::from_child(name.strip_suffix(".json")?)).collect();
        found.sort();
        Ok(found)
    }

    /// Files among the records that kport did not put there.
    pub fn foreign_files(&self) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("jails");
        let foreign = |name: &String| {
            let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".json.tmp"));
            stem.is_none_or(|child| Anchor::from_child(child).is_none())
        };
        Ok(names_in(&dir)?.into_iter().filter(foreign).map(|name| dir.join(name)).collect())
    }

    /// The records that [`Store::set_aside`] has moved out of the way, sorted.
    pub fn aside(&self) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("damaged");
        let mut found: Vec<PathBuf> = names_in(&dir)?.into_iter().map(|name| dir.join(name)).collect();
        found.sort();
        Ok(found)
    }

    /// The claims on ports of a block. One may be out of date; its record tells.
    pub fn claims(&self, block: Block) -> Result<Vec<Claim>> {
        Ok(names_in(&self.dir.join(block.dir()))?.iter().filter_map(|name| Claim::read(name)).collect())
    }

    /// The anchors whose records may have redirects that lead to `address`.
    pub fn leading_to(&self, address: IpAddr) -> Result<Vec<Anchor>> {
        self.anchors_in(&target_dir(address))
    }

    /// The anchors whose records may be of the jail with this number.
    pub fn of_jid(&self, jid: i32) -> Result<Vec<Anchor>> {
        self.anchors_in(&jid_dir(jid))
    }

    fn anchors_in(&self, dir: &str) -> Result<Vec<Anchor>> {
        let mut found: Vec<Anchor> =
            names_in(&self.dir.join(dir))?.iter().filter_map(|child| Anchor::from_child(child)).collect();
        found.sort();
        Ok(found)
    }
}

/// What is looked at of a record before anything else.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// The most files of one anchor that are kept in `damaged`.
const MAX_DAMAGED: usize = 100;

/// The folder of the claims over more than [`WIDE_BLOCKS`] blocks.
const WIDE: &str = "wide";
/// 2^6 ports are a block.
const BLOCK_BITS: u16 = 6;
/// A claim is written into each of its blocks, unless there are more than these.
const WIDE_BLOCKS: usize = 16;

/// A folder of claims: those on one block of ports, or those over more than [`WIDE_BLOCKS`] blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    protocol: Protocol,
    /// `None` for the wide ones.
    number: Option<u16>,
}

impl Block {
    /// The blocks with all claims that may overlap `ports`.
    pub fn of(protocol: Protocol, ports: PortRange) -> impl Iterator<Item = Block> {
        let numbers = std::iter::once(None).chain(numbers(ports).map(Some));
        numbers.map(move |number| Block { protocol, number })
    }

    fn dir(self) -> String {
        match self.number {
            None => format!("ports/{}/{WIDE}", self.protocol),
            Some(number) => format!("ports/{}/{number}", self.protocol),
        }
    }
}

fn numbers(ports: PortRange) -> std::ops::RangeInclusive<u16> {
    (ports.first() >> BLOCK_BITS)..=(ports.last() >> BLOCK_BITS)
}

impl Claim {
    /// A claim from its file's name.
    fn read(name: &str) -> Option<Claim> {
        let mut parts = name.splitn(3, '@');
        let (ports, place, child) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Claim { anchor: Anchor::from_child(child)?, ports: ports.parse().ok()?, place: place.parse().ok()? })
    }
}

/// An empty file that leads to a record.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    dir: String,
    file: String,
}

fn target_dir(address: IpAddr) -> String {
    format!("targets/{address}")
}

fn jid_dir(jid: i32) -> String {
    format!("jids/{jid}")
}

/// All that leads to a record.
fn entries(record: &Record) -> BTreeSet<Entry> {
    let anchor = record.jail.anchor();
    let mut made = BTreeSet::new();
    for claim in record.claims() {
        let (protocol, ports) = (claim.protocol, claim.host);
        let file = format!("{ports}@{}@{}", claim.place, anchor.child());
        if numbers(ports).len() > WIDE_BLOCKS {
            made.insert(Entry { dir: Block { protocol, number: None }.dir(), file });
        } else {
            for number in numbers(ports) {
                let dir = Block { protocol, number: Some(number) }.dir();
                made.insert(Entry { dir, file: file.clone() });
            }
        }
    }
    let targets: BTreeSet<IpAddr> = record.possible().flat_map(|p| &p.redirects).map(|r| r.target).collect();
    made.extend(targets.into_iter().map(|target| Entry { dir: target_dir(target), file: anchor.child().to_owned() }));
    made.extend(record.jid.map(|jid| Entry { dir: jid_dir(jid), file: anchor.child().to_owned() }));
    made
}
