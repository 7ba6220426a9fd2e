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

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

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
const VERSION: u32 = 9;

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
    pub(super) run: Run,
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

/// The files in the state directory. Without a directory nothing is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    dir: Option<PathBuf>,
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

/// The main ruleset with its [`outline`](crate::pf::foreign::outline), which each publish reads, and with all rules.
const OUTLINE: &str = "pf-outline.cache";
const RULESETS: &str = "pf-rulesets.cache";

fn file_of(anchor: &Anchor) -> String {
    format!("loaded/{}.cache", anchor.child())
}

/// Of an anchor in the tree of calls, protected by kport's lock.
fn file_of_calls(path: &str) -> String {
    format!("calls/{}.cache", path.rsplit('/').next().unwrap_or(path))
}

impl Memory {
    pub(super) fn new(dir: PathBuf, boot: String) -> Memory {
        Memory { dir: Some(dir), boot }
    }

    /// If it cannot be written, later processes only lose time, so it is not an error.
    fn write(&self, file: &str, run: &Run, what: impl Serialize) {
        let Some(dir) = &self.dir else { return };
        let left = Left { version: VERSION, boot: self.boot.clone(), hostid: run.hostid, what };
        if let Some(bytes) = postcard::to_stdvec(&left).ok().filter(|bytes| bytes.len() <= MAX_FILE) {
            _ = files::replace_file(&dir.join(file), &bytes);
        }
    }

    /// A file that is damaged, or that others may write to, is ignored.
    fn read<T: DeserializeOwned>(&self, file: &str, run: &Run) -> Option<T> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = files::open(&self.dir.as_ref()?.join(file), flags, Mode::empty()).ok()?;
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

    fn remove(&self, file: &str) {
        _ = self.dir.as_ref().map(|dir| fs::remove_file(dir.join(file)));
    }

    /// The main ruleset that was read in this run of pf.
    pub(super) fn main(&self, run: &Run) -> Option<Main> {
        self.read(OUTLINE, run).filter(|main: &Main| main.run == *run)
    }

    /// Remembers a main ruleset that was just read.
    pub(super) fn learn(&self, main: &Main) {
        if let Some(conf) = &main.conf {
            self.write(RULESETS, &main.run, Main { outline: Arc::clone(conf), ..main.clone() });
        }
        self.keep(main);
    }

    /// Remembers what was found about a main ruleset.
    pub(super) fn keep(&self, main: &Main) {
        self.write(OUTLINE, &main.run, main);
    }

    /// All rules of a main ruleset, if they are still known.
    pub(super) fn rules(&self, of: &Main) -> Option<Arc<Conf>> {
        let left = || self.read(RULESETS, &of.run).filter(|left: &Main| left.is(of)).map(|left| left.outline);
        of.conf.clone().or_else(left)
    }

    /// Whether an anchor that has these stamps now is known to hold these rules.
    pub(super) fn holds(&self, run: &Run, anchor: &Anchor, stamps: &[Stamp; 3], rules: &[Rule]) -> bool {
        self.read(&file_of(anchor), run) == Some((*stamps, digest(rules)))
    }

    pub(super) fn loaded(&self, run: &Run, anchor: &Anchor, stamps: [Stamp; 3], rules: &[Rule]) {
        self.write(&file_of(anchor), run, (stamps, digest(rules)));
    }

    pub(super) fn cleared(&self, anchor: &Anchor) {
        self.remove(&file_of(anchor));
    }

    /// What an anchor in the tree of calls has, if it still has these stamps.
    pub(super) fn calls(&self, run: &Run, path: &str, stamps: &[Stamp; 3]) -> Option<Vec<Item>> {
        let (at, items): ([Stamp; 3], _) = self.read(&file_of_calls(path), run)?;
        (at == *stamps).then_some(items)
    }

    pub(super) fn forget_calls(&self, path: &str) {
        self.remove(&file_of_calls(path));
    }

    /// Nothing is remembered of a node without items.
    pub(super) fn learn_calls(&self, run: &Run, path: &str, stamps: [Stamp; 3], items: &[Item]) {
        match items.is_empty() && path != PARENT {
            true => self.forget_calls(path),
            false => self.write(&file_of_calls(path), run, (stamps, items)),
        }
    }
}

/// An attacker who could create two sets of rules with one digest is root already, and has easier ways.
fn digest(rules: &[Rule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}
