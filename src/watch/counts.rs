//! How many reports of each kind there were, in a file of the state directory: `kport metrics` prints them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::What;
use crate::files::{read_regular, replace_file};
use crate::store::Store;

/// The most bytes that are read of the file.
const MAX_FILE: usize = 4096;

/// The reports by the name of their kind.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    counted: BTreeMap<String, u64>,
    is_read: bool,
    is_written: bool,
}

impl Counts {
    pub(super) fn add(&mut self, what: What) {
        *self.counted.entry(what.name().to_owned()).or_default() += 1;
        self.is_written = false;
    }

    /// Writes them, if there are new ones. The first time, those of earlier processes are added. A failure costs no more than the
    /// numbers.
    pub(super) fn write(&mut self, store: &Store) {
        if !std::mem::replace(&mut self.is_read, true) {
            for (what, count) in counts(store) {
                *self.counted.entry(what).or_default() += count;
            }
        }
        if !std::mem::replace(&mut self.is_written, true)
            && let Ok(bytes) = serde_json::to_vec(&self.counted)
        {
            _ = replace_file(&path(store), &bytes);
        }
    }
}

fn path(store: &Store) -> PathBuf {
    store.dir().join("watch.json")
}

/// The number of reports of each kind that the watchers have made since the boot; empty if none has run.
pub fn counts(store: &Store) -> BTreeMap<String, u64> {
    let bytes = read_regular(&path(store), MAX_FILE).ok().flatten().unwrap_or_default();
    let mut counted: BTreeMap<String, u64> = serde_json::from_slice(&bytes).unwrap_or_default();
    counted.retain(|name, _| What::ALL.iter().any(|what| what.name() == name));
    counted
}
