//! What is published, on disk: the lock and the records.
//!
//! ```text
//! lock                        flock(2): one change at a time on the host; names the holder, and the boot in which the directory
//!                             was last swept
//! jails/NAME.json             the record of one jail, NAME being its anchor's name
//! ports/tcp/126/8080@em0@NAME   a claim: NAME's record has tcp ports in block 126 (64 ports each)
//! ports/tcp/wide/...          the claims over more than 16 blocks
//! targets/10.0.0.2/NAME       NAME's record has 10.0.0.2 as a target of redirects
//! jids/7/NAME                 NAME's record is of the jail with jid 7
//! summaries                   what a list shows of the records, if they are many (summaries.rs)
//! unrecorded/NAME             pf had rules in NAME's anchor without a record, at the first transaction
//! pf-*.cache, calls/, loaded/  what the native backend remembers of pf (pf/native/memory.rs)
//! watch.json                  what kport watch has counted (watch/report.rs)
//! damaged/                    records that could not be read, kept for the administrator
//! cni/NAME.json, cni/lock     documents of a higher module (the attachments of the CNI plugin), and their lock
//! ```
//!
//! There is one file for each jail, not one for all: the cost of a publish does not grow with the number of jails, and a
//! damaged file affects only one jail. Claims, targets and jids only tell which records to read: they are written before the
//! record and removed after it, so a kill in between leaves one too many, never one too few. Nothing is synced to disk: a
//! record is valid only in the boot whose id it has, and a crash also removes the rules from the kernel.

mod dir;
mod records;
mod summaries;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::error::{Error, Result, error, quoted};
use crate::files::{make_dir, mark, names_in, replace_file};
use crate::name::{Anchor, JailName};
use crate::net::{Interface, PortRange};
use crate::options::Options;
use crate::publication::{Publication, Redirect};
use crate::spec::Spec;

pub use dir::Lock;
use records::entries;
pub use records::{Claim, Documents, Records, claim_folders};
#[cfg(feature = "internals")]
pub use summaries::is_settled;
pub use summaries::{Shown, Summary};

pub const DEFAULT_DIR: &str = "/var/run/kport";

const JAILS: &str = "jails";

fn file_name(anchor: &Anchor) -> String {
    [anchor.child(), ".json"].concat()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    /// The boot in which it was written (`Host::boot_id`): pf loses its rules at a boot.
    pub boot: String,
    pub jail: JailName,
    /// The jid, if it was known: another jid is another start of the jail.
    pub jid: Option<i32>,
    /// While the jid is unknown: that of an earlier start, which may still call unpublish.
    #[serde(default)]
    pub earlier_jid: Option<i32>,
    /// The path of the jail, if the host had it when it was published; empty if the path was unknown. The jid may be another
    /// jail's by now.
    #[serde(default)]
    pub path: Option<String>,
    /// The targets that are the jail's by its own report only, not given by the administrator.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reported: BTreeSet<IpAddr>,
    /// Whether the name is not that of a jail, but of another target: it is not gone until it is unpublished.
    #[serde(default)]
    pub no_jail: bool,
    /// When it was published, in seconds since 1970.
    pub since: u64,
    /// When it was published, in seconds since the boot.
    #[serde(default)]
    pub uptime: u64,
    /// Whether every state that may exist has the label of its mapping: [`Firewall::labels_mappings`](crate::pf::Firewall) of
    /// each backend that has loaded rules for the jail since it was last unpublished.
    pub mapping_labels: bool,
    /// What pf should have: one publication, or several with different options, all of the same jail. None if a first change
    /// failed and could not be undone.
    pub publications: Vec<Publication>,
    /// What pf may still have while it is being replaced. If it remains after a crash, pf has the old or the new set.
    pub replaces: Vec<Publication>,
    /// What was requested: from it the publications are made again when an address of the jail or an interface of the host has
    /// changed. With it and without publications, the jail has lost its address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<Requested>,
}

/// What was requested for a jail, as far as it does not depend on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    pub spec: Spec,
    /// The addresses that were given; if there are none, they are found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Interface>,
    pub auto_range: PortRange,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_inert: bool,
    pub options: Options,
    /// Whether it is a line of kport.conf(5), and not by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub configured: bool,
}

impl Record {
    pub const VERSION: u32 = 1;

    /// The name as messages have it: `jail "web"`.
    pub fn mention(&self) -> String {
        if self.no_jail { quoted(self.jail.as_str()) } else { self.jail.mention() }
    }

    /// Everything that pf may have.
    pub fn possible(&self) -> impl Iterator<Item = &Publication> {
        self.publications.iter().chain(&self.replaces)
    }

    /// What should be published.
    pub fn redirects(&self) -> impl Iterator<Item = &Redirect> {
        self.publications.iter().flat_map(|p| &p.redirects)
    }

    /// What no other jail may overlap ([`Publication::claims`]).
    pub fn claims(&self) -> Vec<Redirect> {
        self.possible().flat_map(Publication::claims).collect()
    }
}

#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The directory to use if the caller names none: [`DEFAULT_DIR`] for root and on FreeBSD, else one of the user's own.
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

    /// Uses `dir`, which must be an absolute path, and creates it if it is missing (mode 0700). Write access to it decides
    /// what is loaded into pf: a directory that others may write to or replace, or that belongs to another user, is refused
    /// with [`Kind::Permission`].
    pub fn open(dir: &Path) -> Result<Store> {
        Ok(Store { dir: dir::own(dir)? })
    }

    /// Takes the host-wide lock. Waits until `deadline`, then fails with [`Kind::Busy`] and names the holder.
    pub fn lock(&self, deadline: Deadline) -> Result<Lock> {
        Lock::take(&self.dir, deadline)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fails if the directory cannot be written to, as on a file system that is mounted read-only.
    pub fn writable(&self) -> Result<()> {
        let write = rustix::fs::access(&self.dir, rustix::fs::Access::WRITE_OK);
        write.map_err(|e| Error::io(format_args!("write to {}", self.dir.display()), &e.into()))
    }

    fn record_path(&self, anchor: &Anchor) -> PathBuf {
        self.dir.join(JAILS).join(file_name(anchor))
    }

    /// Writes the record of its jail, as a whole or not at all, and before it the entries that point to it.
    pub fn put(&self, _lock: &Lock, record: &Record) -> Result<()> {
        let anchor = record.jail.anchor();
        for entry in entries(record) {
            let path = self.dir.join(entry);
            mark(&path).map_err(|e| Error::io(format_args!("create {}", path.display()), &e))?;
        }
        self.write(&anchor, record)
    }

    fn write(&self, anchor: &Anchor, record: &Record) -> Result<()> {
        let bytes = serde_json::to_vec(record).map_err(|e| error!(Internal, "record: {e}"))?;
        replace_file(&self.record_path(anchor), &bytes)
    }

    /// Records that the publication of `record` is all that pf has.
    pub fn settle(&self, lock: &Lock, record: &mut Record) -> Result<()> {
        let settled = Record { replaces: vec![], ..record.clone() };
        // its entries are among those of `record`
        self.write(&record.jail.anchor(), &settled)?;
        self.release(lock, record, Some(&settled));
        *record = settled;
        Ok(())
    }

    /// Removes the record of an anchor, if there is one, and then the entries that point to it; `record` is the one that was
    /// there.
    pub fn remove(&self, lock: &Lock, anchor: &Anchor, record: Option<&Record>) -> Result<()> {
        remove(&self.record_path(anchor))?;
        if let Some(record) = record {
            self.release(lock, record, None);
        }
        Ok(())
    }

    /// Moves a file that is not a record to `damaged`, and returns the path.
    pub fn move_damaged(&self, _lock: &Lock, anchor: &Anchor) -> Result<PathBuf> {
        let from = self.record_path(anchor);
        let dir = self.dir.join("damaged");
        make_dir(&dir).map_err(|e| Error::io(format_args!("create {}", dir.display()), &e))?;
        let named = |n: usize| dir.join(format!("{}.{n}", anchor.child()));
        // if there are too many, the last one is replaced: unreadable files must not keep a port open
        let to = (1..MAX_DAMAGED).map(named).find(|to| fs::symlink_metadata(to).is_err());
        let to = to.unwrap_or_else(|| named(MAX_DAMAGED));
        fs::rename(&from, &to).map_err(|e| Error::io(format_args!("move {}", from.display()), &e))?;
        Ok(to)
    }

    /// Whether a file of this anchor was [moved there](Store::move_damaged), and has not been removed.
    pub fn is_damaged(&self, anchor: &Anchor) -> Result<bool> {
        Ok(self.damaged()?.iter().any(|path| path.file_stem().is_some_and(|child| child == anchor.child())))
    }

    /// Files among the records that kport did not write.
    pub fn foreign_files(&self) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join(JAILS);
        let foreign = |name: &String| {
            let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".json.tmp"));
            stem.is_none_or(|child| Anchor::from_child(child).is_none())
        };
        Ok(names_in(&dir)?.into_iter().filter(foreign).map(|name| dir.join(name)).collect())
    }

    /// The records that [`Store::move_damaged`] has moved aside, sorted.
    pub fn damaged(&self) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("damaged");
        let mut found: Vec<PathBuf> = names_in(&dir)?.into_iter().map(|name| dir.join(name)).collect();
        found.sort();
        Ok(found)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format_args!("remove {}", path.display()), &e)),
        _ => Ok(()),
    }
}

/// The anchors with one of these names, without `end`, sorted.
fn anchors(names: Vec<String>, end: &str) -> Vec<Anchor> {
    let mut anchors: Vec<Anchor> =
        names.iter().filter_map(|name| Anchor::from_child(name.strip_suffix(end)?)).collect();
    anchors.sort_unstable();
    anchors
}

const MAX_DAMAGED: usize = 100;
