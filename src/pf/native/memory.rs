//! A cache of pf's rulesets, so that a publish does not read what has not changed.
//!
//! Each load and each flush of a ruleset gives it another ticket (pf_commit_rules in sys/netpfil/pf/pf_ioctl.c), and reading
//! the tickets and the number of rules is cheap. If a main ruleset has the same tickets and numbers under the same run of pf,
//! it is the one that was read. A process keeps them in memory; the helper, which is a new process each time, in a small file
//! of the state directory. That file is only a cache: if it cannot be trusted, pf is read.
//!
//! A run of pf, after which tickets start again, is identified by the boot and by `hostid`, a random number that each attach
//! of pf chooses; not by `since`, which is the difference of two clocks that tick separately. With `set hostid` every run has
//! the same number, so the checksum of the main ruleset, which pf computes at each load, must match as well. DIOCCHANGERULE
//! raises only the ticket of the active ruleset, which the next load may then use again, and does not change the checksum:
//! different rules with the same checksum are not remembered. Two cases remain. The first is that the rules are read for the
//! first time between such a change and a load of the same file. The other is that with `set hostid` pf is unloaded and
//! loaded within one boot, and then another process gives one of kport's own anchors as many loads and rules as it had from
//! this one.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::read::Stamp;
use super::rulesets::{ByPath, ReadAt};
use crate::files;
use crate::pfconf::Conf;
use crate::rule::Rule;

/// The version of the format of [`Left`] in a file.
const VERSION: u32 = 4;

/// The longest file that is read, in bytes: a rule needs about 700.
const MAX_FILE: usize = 1 << 24;

/// A run of pf, and the main ruleset that it had when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) hostid: u64,
    pub(super) checksum: Vec<u8>,
}

/// A main ruleset at one moment.
#[derive(Clone, Debug)]
struct Main {
    checksum: Vec<u8>,
    /// Its own, and those of the anchors in its braces, by path.
    stamps: ReadAt,
    conf: Arc<Conf>,
}

/// What a file has of a main ruleset.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    version: u32,
    boot: String,
    run: Run,
    stamps: ReadAt,
    rulesets: ByPath,
}

/// The rules of one of kport's own anchors.
#[derive(Debug)]
struct Content {
    stamps: [Stamp; 3],
    digest: u64,
}

#[derive(Debug, Default)]
struct Known {
    hostid: u64,
    main: Option<Main>,
    /// by path, of this process's own loads
    anchors: HashMap<String, Content>,
}

/// A file for the memory, and the current boot.
#[derive(Debug)]
pub(super) struct CacheFile {
    pub(super) path: PathBuf,
    pub(super) boot: String,
}

/// The memory of a process; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Known>>);

impl Memory {
    /// The main ruleset that was read in this run of pf, and the stamps that it had.
    pub(super) fn main(&self, run: &Run) -> Option<(ReadAt, Arc<Conf>)> {
        self.with(run, |known| {
            let main = known.main.as_ref().filter(|main| main.checksum == run.checksum)?;
            Some((main.stamps.clone(), Arc::clone(&main.conf)))
        })?
    }

    /// Remembers the main ruleset.
    pub(super) fn learn(&self, run: &Run, stamps: ReadAt, conf: Arc<Conf>) {
        _ = self.with(run, |known| known.main = Some(Main { checksum: run.checksum.clone(), stamps, conf }));
    }

    /// Remembers that the main ruleset, if it is still this one, has other settings.
    pub(super) fn settle(&self, run: &Run, known: &Arc<Conf>, settled: Arc<Conf>) {
        _ = self.with(run, |all| {
            if let Some(main) = all.main.as_mut().filter(|main| Arc::ptr_eq(&main.conf, known)) {
                main.conf = settled;
            }
        });
    }

    /// Whether an anchor that has these stamps now is known to hold these rules.
    pub(super) fn holds(&self, run: &Run, anchor: &str, stamps: &[Stamp; 3], rules: &[Rule]) -> bool {
        let holds = |known: &mut Known| {
            known.anchors.get(anchor).is_some_and(|it| it.stamps == *stamps && it.digest == digest(rules))
        };
        self.with(run, holds).unwrap_or(false)
    }

    /// Remembers the rules of an anchor; an anchor without rules is forgotten.
    pub(super) fn loaded(&self, run: &Run, anchor: &str, stamps: [Stamp; 3], rules: &[Rule]) {
        _ = self.with(run, |known| match rules {
            [] => _ = known.anchors.remove(anchor),
            _ => _ = known.anchors.insert(anchor.to_owned(), Content { stamps, digest: digest(rules) }),
        });
    }

    /// Nothing is known of another run of pf. A lock that another thread had when this process was forked is never released:
    /// then there is no memory.
    fn with<T>(&self, run: &Run, act: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut known = self.0.try_lock().ok()?;
        if known.hostid != run.hostid {
            *known = Known { hostid: run.hostid, ..Known::default() };
        }
        Some(act(&mut known))
    }

    /// Uses what an earlier process has left in a file about the main ruleset of this boot and this run of pf. A file that is
    /// damaged, or that others may write to, is ignored.
    pub(super) fn read(&self, run: &Run, file: &CacheFile) {
        let Some(left) = read(file).filter(|left| left.run == *run) else { return };
        let rulesets = left.rulesets.into_iter().map(|(path, rules)| {
            let named = rules.into_iter().map(crate::pfconf::rule::Rule::named);
            (path, named.collect())
        });
        self.learn(run, left.stamps, Arc::new(Conf { rulesets: rulesets.collect(), ..Conf::default() }));
    }
}

/// Leaves a main ruleset to later processes. If the file cannot be written, they only lose time, so it is not an error.
pub(super) fn leave(file: &CacheFile, run: &Run, stamps: &ReadAt, conf: &Conf) {
    let left = Left {
        version: VERSION,
        boot: file.boot.clone(),
        run: run.clone(),
        stamps: stamps.clone(),
        rulesets: conf.rulesets.clone(),
    };
    if let Some(bytes) = serde_json::to_vec(&left).ok().filter(|bytes| bytes.len() <= MAX_FILE) {
        _ = files::replace_file(&file.path, &bytes);
    }
}

fn read(cache: &CacheFile) -> Option<Left> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = files::open(&cache.path, flags, Mode::empty()).ok()?;
    let is = file.metadata().ok()?;
    let own = is.is_file() && is.uid() == rustix::process::geteuid().as_raw() && is.mode() & 0o077 == 0;
    if !own || is.len() > MAX_FILE as u64 {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64).read_to_end(&mut bytes).ok()?;
    let left: Left = serde_json::from_slice(&bytes).ok()?;
    (left.version == VERSION && left.boot == cache.boot).then_some(left)
}

/// An attacker who could create two sets of rules with one digest is root already, and has easier ways.
fn digest(rules: &[Rule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}
