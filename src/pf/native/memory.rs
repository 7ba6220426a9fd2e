//! What was learnt of pf's rulesets, so that a publish does not read what has not changed.
//!
//! Each load and each flush of a ruleset gives it another ticket (pf_commit_rules in sys/netpfil/pf/pf_ioctl.c), and pf tells the
//! tickets and the number of rules for next to nothing. A main ruleset that has the ticket and the number that it had, under the
//! same run of pf, is the one that was read. A process remembers for itself; the helper, which is a new one each time, in a small
//! file of the state directory. That file is never more than a memory: whoever cannot be sure of it reads pf.
//!
//! A run of pf, after whose end tickets start anew, is known by the boot and by `hostid`, a random number that each attach of pf
//! takes; not by `since`, which is the difference of two clocks that tick apart. With `set hostid` every run has the same number,
//! and DIOCCHANGERULE raises only the ticket of the active ruleset, which the next load may then give once more. Against both,
//! the checksum of the main ruleset has to be the same as well. One case is left: under a set `hostid` pf is unloaded and loaded
//! within one boot, and then another process gives one of kport's own anchors as many loads and rules as it had from this one.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::encode::Ruleset;
use super::foreign::Found;
use crate::files;
use crate::rule::Rule;

/// A ruleset at one moment: its number of rules and its ticket.
pub(super) type Stamp = (u32, u32);

/// The number of the form of [`Main`] in a file.
const VERSION: u32 = 3;

/// The longest file that is read, in bytes.
const MAX_FILE: usize = 1 << 20;

/// What a main ruleset says that concerns kport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Learnt {
    /// When.
    pub(super) stamp: Stamp,
    /// Its calls, and its redirects.
    pub(super) found: Vec<Found>,
}

/// A run of pf, and the checksum of the main ruleset in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) hostid: u64,
    pub(super) checksum: Vec<u8>,
}

/// What was learnt of the main rulesets in one run of pf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Main {
    version: u32,
    /// The boot; empty in a process, which does not outlive one.
    boot: String,
    run: Run,
    /// By [`Ruleset`].
    rulesets: [Option<Learnt>; 4],
    /// All as text, and when those of [`Ruleset::ALL`] were read: a load of nat rules is one of binat rules as well.
    text: Option<([Stamp; 3], String)>,
}

/// What one of kport's own anchors holds.
#[derive(Debug)]
struct Content {
    stamps: [Stamp; 3],
    digest: u64,
}

#[derive(Debug, Default)]
struct Known {
    main: Main,
    /// by path, of this process's own loads
    anchors: HashMap<String, Content>,
}

/// A file to remember in, and the boot of now.
#[derive(Debug)]
pub(super) struct CacheFile {
    pub(super) path: PathBuf,
    pub(super) boot: String,
}

/// The memory of a process; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Known>>);

impl Memory {
    /// What is known of a main ruleset that has this stamp now, in this run of pf.
    pub(super) fn main(&self, run: &Run, ruleset: Ruleset, stamp: Stamp) -> Option<Vec<Found>> {
        self.with(run, |known| {
            let learnt = known.main.rulesets[ruleset as usize].as_ref()?;
            (learnt.stamp == stamp).then(|| learnt.found.clone())
        })?
    }

    /// Takes note of a main ruleset.
    pub(super) fn learn(&self, run: &Run, ruleset: Ruleset, learnt: Learnt) {
        _ = self.with(run, |known| known.main.rulesets[ruleset as usize] = Some(learnt));
    }

    /// The text of the main rulesets that have these stamps now.
    pub(super) fn text(&self, run: &Run, stamps: &[Stamp; 3]) -> Option<String> {
        self.with(run, |known| {
            let (read, text) = known.main.text.as_ref()?;
            (read == stamps).then(|| text.clone())
        })?
    }

    /// Takes note of the text of the main rulesets.
    pub(super) fn learn_text(&self, run: &Run, stamps: [Stamp; 3], text: String) {
        _ = self.with(run, |known| known.main.text = Some((stamps, text)));
    }

    /// Whether an anchor that has these stamps now is known to hold these rules.
    pub(super) fn holds(&self, run: &Run, anchor: &str, stamps: &[Stamp; 3], rules: &[Rule]) -> bool {
        let holds = |known: &mut Known| {
            known.anchors.get(anchor).is_some_and(|it| it.stamps == *stamps && it.digest == digest(rules))
        };
        self.with(run, holds).unwrap_or(false)
    }

    /// Takes note of what an anchor holds; nothing is known of one without rules.
    pub(super) fn loaded(&self, run: &Run, anchor: &str, stamps: [Stamp; 3], rules: &[Rule]) {
        _ = self.with(run, |known| match rules {
            [] => _ = known.anchors.remove(anchor),
            _ => _ = known.anchors.insert(anchor.to_owned(), Content { stamps, digest: digest(rules) }),
        });
    }

    /// Of another run of pf nothing is known. A lock that another thread had when this process was forked is never given back:
    /// then there is no memory.
    fn with<T>(&self, run: &Run, act: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut known = self.0.try_lock().ok()?;
        if known.main.run.hostid != run.hostid {
            *known = Known::default();
        }
        if known.main.run != *run {
            known.main = Main { run: run.clone(), ..Main::default() };
        }
        Some(act(&mut known))
    }

    /// Takes over what an earlier process has left in a file about main rulesets of this boot and this run of pf, as far as
    /// nothing is known here. What is damaged, or not of this user alone, is nothing.
    pub(super) fn read(&self, run: &Run, file: &CacheFile) {
        let Some(left) = read(file).filter(|left| left.run == *run) else { return };
        _ = self.with(run, |known| {
            for (mine, theirs) in known.main.rulesets.iter_mut().zip(left.rulesets) {
                *mine = mine.take().or(theirs);
            }
            known.main.text = known.main.text.take().or(left.text);
        });
    }

    /// Leaves what is known of the main rulesets to later processes. A file that cannot be written costs them time, and is no
    /// error.
    pub(super) fn write(&self, run: &Run, file: &CacheFile) {
        let main = self.with(run, |known| Main { version: VERSION, boot: file.boot.clone(), ..known.main.clone() });
        if let Some(bytes) = main.and_then(|main| serde_json::to_vec(&main).ok()).filter(|b| b.len() <= MAX_FILE) {
            _ = files::replace_file(&file.path, &bytes);
        }
    }
}

fn read(cache: &CacheFile) -> Option<Main> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = files::open(&cache.path, flags, Mode::empty()).ok()?;
    let is = file.metadata().ok()?;
    let own = is.is_file() && is.uid() == rustix::process::geteuid().as_raw() && is.mode() & 0o077 == 0;
    if !own || is.len() > MAX_FILE as u64 {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64).read_to_end(&mut bytes).ok()?;
    let main: Main = serde_json::from_slice(&bytes).ok()?;
    (main.version == VERSION && main.boot == cache.boot).then_some(main)
}

/// Whoever would make two sets of rules with one digest is root already, and has easier ways.
fn digest(rules: &[Rule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}
