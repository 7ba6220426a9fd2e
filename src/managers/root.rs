//! The files of a host that managers use.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pfconf::Conf;

/// The maximum length of a file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The root directory of a host. Each path is absolute, from that directory; nothing is run, and shell variables are not
/// expanded.
#[derive(Clone, Copy, Debug)]
pub struct Root<'a>(&'a Path);

impl<'a> Root<'a> {
    /// The host whose root directory is `root`.
    pub fn new(root: &'a Path) -> Root<'a> {
        Root(root)
    }

    fn below(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a regular file; `None` if it cannot be read, or is not a regular file: a jail may have created it.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = self.below(path.as_ref());
        let about = fs::metadata(&path).ok()?;
        if !about.is_file() || about.len() > MAX_FILE {
            return None;
        }
        Some(String::from_utf8_lossy(&fs::read(&path).ok()?).into_owned())
    }

    /// Whether a path exists.
    pub(super) fn has(&self, path: &str) -> bool {
        self.below(path.as_ref()).exists()
    }

    /// The paths of the entries of a directory, sorted.
    pub(super) fn children(&self, dir: impl AsRef<Path>) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.below(dir.as_ref())).into_iter().flatten().flatten();
        let mut all: Vec<PathBuf> = entries.map(|entry| dir.as_ref().join(entry.file_name())).collect();
        all.sort();
        all
    }

    /// The value of `name="value"` or `name: value` in a file, if it is an absolute path.
    pub(super) fn path_setting(&self, file: &str, name: &str) -> Option<PathBuf> {
        let text = self.text(file)?;
        let value = text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix(name)?.trim_start();
            rest.strip_prefix(['=', ':']).map(str::trim)
        })?;
        let value = value.split(" #").next()?.trim().trim_matches(['"', '\'']);
        (value.starts_with('/') && !value.contains('$')).then(|| value.into())
    }

    /// Whether there is a file of rules that does not call kport's anchors. It may be a template, so an unknown line is
    /// skipped.
    pub(super) fn lacks_calls(&self, path: impl AsRef<Path>) -> bool {
        let calls = self.text(path).map(|text| Conf::of_output(&text).calls_kport());
        calls.is_some_and(|[_, rdr, filter]| !(rdr && filter))
    }
}

/// What to do about a file of rules that does not call kport's anchors.
pub(super) fn add_calls(path: &Path) -> String {
    format!("add kport's lines there, too: kport setup --pf-conf {} --write", path.display())
}
