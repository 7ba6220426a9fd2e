//! The files of a host that managers use.

use std::fs;
use std::path::{Component, Path, PathBuf};

use regex_lite::Regex;

use crate::error::Problem;
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

    /// The paths that a pattern of a shell matches: `*` and `?` in any part of an absolute path, sorted.
    pub(super) fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::from("/")];
        for part in pattern.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_string_lossy();
            found = if name.contains(['*', '?']) {
                let children = found.iter().flat_map(|dir| self.children(dir));
                children
                    .filter(|path| path.file_name().is_some_and(|own| fits(&name, &own.to_string_lossy())))
                    .collect()
            } else {
                found.into_iter().map(|dir| dir.join(&*name)).collect()
            };
        }
        found
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

    /// The problem of a file of rules that does not call kport's anchors; `None` if it does, or if there is no such file. It may be a
    /// template, so an unknown line is skipped.
    pub(super) fn without_calls(&self, path: &Path, seen: String) -> Option<Problem> {
        let [_, rdr, filter] = Conf::of_output(&self.text(path)?).calls_kport();
        let remedy = || format!("add kport's lines there, too: kport setup --pf-conf {} --write", path.display());
        (!(rdr && filter)).then(|| Problem { seen, remedy: remedy() })
    }
}

/// Whether a name matches a pattern with `*` and `?`; a leading dot only matches itself.
fn fits(pattern: &str, name: &str) -> bool {
    let expression = regex_lite::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    (!name.starts_with('.') || pattern.starts_with('.'))
        && Regex::new(&format!("(?s)^{expression}$")).is_ok_and(|expression| expression.is_match(name))
}
