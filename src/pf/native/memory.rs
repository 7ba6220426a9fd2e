//! A cache of pf's rulesets, so that a publish does not read what has not changed.
//!
//! Each load and each flush of a ruleset gives it another ticket (pf_commit_rules in sys/netpfil/pf/pf_ioctl.c), and reading
//! the tickets and the number of rules is cheap. If a main ruleset has the same tickets and numbers under the same run of pf,
//! it is the one that was read, and what was found about it ([`Firewall::keep`](crate::pf::Firewall::keep)) still holds. The files
//! are only a cache: if they cannot be trusted, pf is read. What is in them: docs/backends.md.
//!
//! The file of one of kport's own anchors is written after the load, so that after a kill the anchor has other tickets, and the rules
//! are read. What rests on it alone is that publishing the same again changes nothing; restore and doctor compare the rules.
//!
//! A run of pf, after which tickets start again, is identified by the boot and by `hostid`, a random number that each attach
//! of pf chooses; not by `since`, which is the difference of two clocks that tick separately. With `set hostid` every run has
//! the same number, so the checksum of the main ruleset, which pf computes at each load, must match as well. DIOCCHANGERULE
//! raises only the ticket of the active ruleset, which the next load may then use again, and does not change the checksum:
//! different rules with the same checksum are not remembered. Three cases remain. The first is that the rules are read for the
//! first time between such a change and a load of the same file. The second is that with `set hostid` pf is unloaded and
//! loaded within one boot, and then another process gives one of kport's own anchors as many loads and rules as it had from
//! kport. The third is that another program empties one of them, which removes it and its tickets (pf_remove_if_empty_kruleset),
//! and then gives it as many loads and rules.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::read::{Run, Stamp};
use super::rulesets::{ByPath, ReadAt};
use crate::calls::Item;
use crate::files;
use crate::name::{Anchor, PARENT};
use crate::pf::foreign;
use crate::pfconf::Conf;
use crate::pfconf::rule::Rule as ConfRule;
use crate::rule::Rule;

/// The version of what is in the files.
const VERSION: u32 = 8;

/// The longest file that is read, in bytes: a rule needs about 700.
const MAX_FILE: usize = 1 << 24;

/// The settings of pf that decide where packets go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) skip: Vec<String>,
    pub(super) syncookies: bool,
    /// Those that could not be read.
    pub(super) unread: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Main {
    run: Run,
    /// Its own, and those of the anchors in its braces, by path.
    pub(super) stamps: ReadAt,
    /// See [`outline`](crate::pf::foreign::outline); all rules in the file of these.
    #[serde(serialize_with = "rulesets", deserialize_with = "conf")]
    pub(super) outline: Arc<Conf>,
    /// All rules, if they were read.
    #[serde(skip)]
    pub(super) conf: Option<Arc<Conf>>,
    /// What was found about it with these settings.
    pub(super) found: Option<(Settings, String)>,
}

fn rulesets<S: Serializer>(conf: &Arc<Conf>, into: S) -> Result<S::Ok, S::Error> {
    conf.rulesets.serialize(into)
}

fn conf<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Conf>, D::Error> {
    let mut rulesets = ByPath::deserialize(from)?;
    for rules in rulesets.values_mut() {
        *rules = std::mem::take(rules).into_iter().map(ConfRule::named).collect();
    }
    Ok(Arc::new(Conf { rulesets, ..Conf::default() }))
}

impl Main {
    pub(super) fn new(run: &Run, stamps: ReadAt, conf: Conf) -> Main {
        let outline = Arc::new(foreign::outline(&conf));
        Main { run: run.clone(), stamps, outline, conf: Some(Arc::new(conf)), found: None }
    }

    /// Whether nothing was loaded between them.
    pub(super) fn is(&self, other: &Main) -> bool {
        self.run == other.run && self.stamps == other.stamps
    }
}

#[derive(Debug, Default)]
struct Known {
    hostid: u64,
    main: Option<Main>,
    /// the digests of rules by the path of their anchor, of this process's own loads
    anchors: HashMap<String, ([Stamp; 3], u64)>,
    /// by path, without files
    calling: HashMap<String, ([Stamp; 3], Vec<Item>)>,
}

/// The files for the memory, and the current boot.
#[derive(Debug)]
struct CacheFiles {
    /// The one with all rules.
    path: PathBuf,
    boot: String,
}

/// What a file has, which holds in one boot and one run of pf.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Left<T> {
    version: u32,
    boot: String,
    hostid: u64,
    what: T,
}

impl CacheFiles {
    fn outline(&self) -> PathBuf {
        self.path.with_file_name("pf-outline.cache")
    }

    fn anchor(&self, anchor: &Anchor) -> PathBuf {
        self.path.with_file_name("loaded").join([anchor.child(), ".cache"].concat())
    }

    /// Of an anchor in the tree of calls, protected by kport's lock.
    fn calling(&self, path: &str) -> PathBuf {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.path.with_file_name("calls").join([name, ".cache"].concat())
    }

    /// If it cannot be written, later processes only lose time, so it is not an error.
    fn write(&self, path: &Path, run: &Run, what: impl Serialize) {
        let left = Left { version: VERSION, boot: self.boot.clone(), hostid: run.hostid, what };
        if let Some(bytes) = postcard::to_stdvec(&left).ok().filter(|bytes| bytes.len() <= MAX_FILE) {
            _ = files::replace_file(path, &bytes);
        }
    }

    /// Leaves what each publish needs of a main ruleset to later processes.
    fn write_outline(&self, main: &Main) {
        self.write(&self.outline(), &main.run, main);
    }

    /// A file that is damaged, or that others may write to, is ignored.
    fn read<T: DeserializeOwned>(&self, path: &Path, run: &Run) -> Option<T> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = files::open(path, flags, Mode::empty()).ok()?;
        let is = file.metadata().ok()?;
        let own = is.is_file() && is.uid() == rustix::process::geteuid().as_raw() && is.mode() & 0o077 == 0;
        if !own || is.len() > MAX_FILE as u64 {
            return None;
        }
        // one more: the end is seen without another growth
        let mut bytes = Vec::with_capacity(usize::try_from(is.len()).unwrap_or(0) + 1);
        file.take(MAX_FILE as u64).read_to_end(&mut bytes).ok()?;
        let left: Left<T> = postcard::from_bytes(&bytes).ok()?;
        (left.version == VERSION && left.boot == self.boot && left.hostid == run.hostid).then_some(left.what)
    }
}

/// The memory of a process, which clones share; and the files of it, if it is kept for later processes.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    known: Arc<Mutex<Known>>,
    files: Option<Arc<CacheFiles>>,
}

impl Memory {
    /// The same memory, with the file for all rules, and others beside it.
    pub(super) fn with_files(self, path: PathBuf, boot: String) -> Memory {
        Memory { files: Some(Arc::new(CacheFiles { path, boot })), ..self }
    }

    /// The main ruleset that was read in this run of pf.
    pub(super) fn main(&self, run: &Run) -> Option<Main> {
        self.with(run, |known| known.main.clone().filter(|main| main.run == *run))?
    }

    /// The one that an earlier process has left, which is then remembered.
    pub(super) fn left_main(&self, run: &Run) -> Option<Main> {
        let files = self.files.as_ref()?;
        let main = files.read(&files.outline(), run).filter(|main: &Main| main.run == *run)?;
        self.with(run, |known| known.main.insert(main).clone())
    }

    /// Remembers a main ruleset that was just read, also for later processes.
    pub(super) fn learn(&self, main: &Main) {
        if let (Some(files), Some(conf)) = (&self.files, &main.conf) {
            files.write(&files.path, &main.run, Main { outline: Arc::clone(conf), ..main.clone() });
            files.write_outline(main);
        }
        _ = self.with(&main.run, |known| known.main = Some(main.clone()));
    }

    /// All rules of a main ruleset, if they are still known. From then on they are remembered.
    pub(super) fn rules(&self, of: &Main) -> Option<Arc<Conf>> {
        if of.conf.is_some() {
            return of.conf.clone();
        }
        let files = self.files.as_ref()?;
        let rules = files.read(&files.path, &of.run).filter(|left: &Main| left.is(of))?.outline;
        _ = self.with(&of.run, |known| {
            if let Some(main) = known.main.as_mut().filter(|main| main.is(of)) {
                main.conf = Some(Arc::clone(&rules));
            }
        });
        Some(rules)
    }

    /// Remembers what was found about a main ruleset, if it is the remembered one.
    pub(super) fn keep(&self, about: &Main, found: (Settings, String)) {
        let kept = self.with(&about.run, |known| {
            let main = known.main.as_mut().filter(|main| main.is(about))?;
            main.found = Some(found);
            Some(main.clone())
        });
        if let (Some(Some(main)), Some(files)) = (kept, &self.files) {
            files.write_outline(&main);
        }
    }

    /// Whether an anchor that has these stamps now is known to hold these rules: to this process, or with `by_files` to an earlier
    /// one.
    pub(super) fn holds(
        &self, run: &Run, anchor: &Anchor, stamps: &[Stamp; 3], rules: &[Rule], by_files: bool,
    ) -> bool {
        let now = (*stamps, digest(rules));
        let known = self.with(run, |known| known.anchors.get(anchor.path()) == Some(&now));
        let left = |files: &Arc<CacheFiles>| files.read(&files.anchor(anchor), run) == Some(now);
        known == Some(true) || by_files && self.files.as_ref().is_some_and(left)
    }

    pub(super) fn loaded(&self, run: &Run, anchor: &Anchor, stamps: [Stamp; 3], rules: &[Rule]) {
        let now = (stamps, digest(rules));
        _ = self.with(run, |known| known.anchors.insert(anchor.path().to_owned(), now));
        if let Some(files) = &self.files {
            files.write(&files.anchor(anchor), run, now);
        }
    }

    pub(super) fn cleared(&self, anchor: &Anchor) {
        if let Ok(mut known) = self.known.try_lock() {
            known.anchors.remove(anchor.path());
        }
        if let Some(files) = &self.files {
            _ = fs::remove_file(files.anchor(anchor));
        }
    }

    /// What an anchor in the tree of calls has, if it still has these stamps.
    pub(super) fn calling(&self, run: &Run, path: &str, stamps: &[Stamp; 3]) -> Option<Vec<Item>> {
        let (at, items) = match &self.files {
            Some(files) => files.read(&files.calling(path), run)?,
            None => self.with(run, |known| known.calling.get(path).cloned())??,
        };
        (at == *stamps).then_some(items)
    }

    pub(super) fn forget_calling(&self, run: &Run, path: &str) {
        match &self.files {
            Some(files) => _ = fs::remove_file(files.calling(path)),
            None => _ = self.with(run, |known| known.calling.remove(path)),
        }
    }

    /// Nothing is remembered of a node without items.
    pub(super) fn learn_calling(&self, run: &Run, path: &str, stamps: [Stamp; 3], items: &[Item]) {
        match &self.files {
            Some(_) if items.is_empty() && path != PARENT => self.forget_calling(run, path),
            Some(files) => files.write(&files.calling(path), run, (stamps, items)),
            None => _ = self.with(run, |known| known.calling.insert(path.to_owned(), (stamps, items.to_vec()))),
        }
    }

    /// Nothing is known of another run of pf. A lock that another thread had when this process was forked is never released:
    /// then there is no memory.
    fn with<T>(&self, run: &Run, act: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut known = self.known.try_lock().ok()?;
        if known.hostid != run.hostid {
            *known = Known { hostid: run.hostid, ..Known::default() };
        }
        Some(act(&mut known))
    }
}

/// An attacker who could create two sets of rules with one digest is root already, and has easier ways.
fn digest(rules: &[Rule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}
