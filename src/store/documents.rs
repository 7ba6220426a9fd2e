//! Documents beside the records: other data of a jail while it is published, a file for each jail.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Lock, Store, dir, file_name};
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::files::{names_in, read_file, replace_file};
use crate::name::Anchor;

/// The maximum that is read of a document, in bytes.
const MAX_DOCUMENT: usize = 64 << 20;

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
        let names = names_in(&self.dir)?;
        let mut anchors: Vec<Anchor> =
            names.iter().filter_map(|name| Anchor::from_child(name.strip_suffix(".json")?)).collect();
        anchors.sort_unstable();
        Ok(anchors)
    }

    /// The contents of an anchor's document; empty if there is none.
    pub fn get(&self, anchor: &Anchor) -> Result<Vec<u8>> {
        let path = self.path(anchor);
        let read = read_file(&path, MAX_DOCUMENT).map_err(|e| failed("read", &path, &e))?;
        Ok(read.unwrap_or_default())
    }

    /// Writes the document of an anchor, as a whole or not at all.
    pub fn put(&self, anchor: &Anchor, bytes: &[u8]) -> Result<()> {
        replace_file(&self.path(anchor), bytes)
    }

    /// Removes the document of an anchor, if there is one.
    pub fn remove(&self, anchor: &Anchor) -> Result<()> {
        let path = self.path(anchor);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &e)),
            _ => Ok(()),
        }
    }
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::io(format_args!("{doing} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::name::JailName;

    #[test]
    fn a_folder_has_a_lock_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let documents = store.documents("cni", Deadline::after(std::time::Duration::ZERO)).unwrap();
        assert_eq!(store.documents("cni", Deadline::after(std::time::Duration::ZERO)).unwrap_err().kind(), Kind::Busy);
        drop(store.lock(Deadline::after(std::time::Duration::ZERO)).unwrap());
        drop(store.documents("other", Deadline::after(std::time::Duration::ZERO)).unwrap());
        drop(documents);
        drop(store.documents("cni", Deadline::after(std::time::Duration::ZERO)).unwrap());
    }

    #[test]
    fn documents_are_by_anchor_and_nothing_else_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let documents = store.documents("cni", Deadline::after(std::time::Duration::ZERO)).unwrap();
        let anchor = |name: &str| name.parse::<JailName>().unwrap().anchor();
        for name in ["web", "db"] {
            documents.put(&anchor(name), name.as_bytes()).unwrap();
        }
        for name in ["web.json.tmp", "README", "_odd.json"] {
            fs::write(dir.path().join("cni").join(name), "x").unwrap();
        }
        assert_eq!(documents.anchors().unwrap(), [anchor("db"), anchor("web")]);
        assert_eq!(documents.get(&anchor("web")).unwrap(), b"web");
        for _ in 0..2 {
            documents.remove(&anchor("web")).unwrap();
            assert_eq!(documents.get(&anchor("web")).unwrap(), b"");
        }
        assert_eq!(documents.anchors().unwrap(), [anchor("db")]);
    }
}
