//! Jail managers, each in a separate file.
//!
//! [`ALL`] says of each how to find the jail that one of its hooks is called for, how to read the ports that it has published by itself,
//! and which settings keep a port of kport from working. `kport --hook`, `kport import` and the doctor use it.
//!
//! Nomad's pot driver needs no file: its tasks are pots.

mod appjail;
mod bastille;
mod caller;
mod cbsd;
mod import;
mod iocage;
mod jail;
mod kleene;
mod pot;

use std::fs;
use std::path::{Component, Path, PathBuf};

use regex_lite::Regex;

use crate::error::{Problem, Result};
use crate::pfconf::{Conf, PF_CONF};

pub(crate) use caller::jid;
pub use caller::{Caller, Environment, Identity};
pub use import::{Command, Exports, Import, Imported, Port, TextOf, by_jail};
pub use jail::{ExecStatement, HookFile};

/// The file of the main ruleset that rc(8) loads, on the host whose root directory is `root`.
pub fn main_ruleset(root: &Path) -> PathBuf {
    let rules = Root::new(root).path_setting("/etc/rc.conf", "pf_rules").unwrap_or_else(|| PF_CONF.into());
    root.join(rules.strip_prefix("/").unwrap_or(&rules))
}

/// A jail manager.
#[derive(Clone, Copy, Debug)]
pub struct Manager {
    /// Its name on the command line.
    pub name: &'static str,
    /// The variable of its hooks that names the jail.
    pub variable: Option<&'static str>,
    /// The jail that a hook is called for; `None` if the variables of this manager are not set. It fails with
    /// `Kind::Argument` for an invalid jid.
    pub identity: fn(&Environment<'_>) -> Result<Option<Identity>>,
    /// The files with the ports that it has published by itself.
    pub exports: Option<Exports>,
    /// The files in which its jails have hooks, as far as they can be read.
    pub hook_files: fn(&Root<'_>) -> Vec<HookFile>,
    /// How it loads a main ruleset without kport's lines, and what to do about it; `None` if it does not.
    pub replaces_ruleset: fn(&Root<'_>) -> Option<Problem>,
}

impl Manager {
    /// One that has nothing of this.
    const fn named(name: &'static str) -> Manager {
        Manager {
            name,
            variable: None,
            identity: |_| Ok(None),
            exports: None,
            hook_files: |_| vec![],
            replaces_ruleset: |_| None,
        }
    }
}

/// Every manager.
pub static ALL: [Manager; 7] =
    [jail::JAIL, bastille::BASTILLE, iocage::IOCAGE, appjail::APPJAIL, cbsd::CBSD, kleene::KLEENE, pot::POT];

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
    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = self.below(path.as_ref());
        let about = fs::metadata(&path).ok()?;
        if !about.is_file() || about.len() > MAX_FILE {
            return None;
        }
        Some(String::from_utf8_lossy(&fs::read(&path).ok()?).into_owned())
    }

    /// The paths of the entries of a directory, sorted.
    fn children(&self, dir: impl AsRef<Path>) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.below(dir.as_ref())).into_iter().flatten().flatten();
        let mut all: Vec<PathBuf> = entries.map(|entry| dir.as_ref().join(entry.file_name())).collect();
        all.sort();
        all
    }

    /// The paths that a pattern of a shell matches: `*` and `?` in any part of an absolute path, sorted.
    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::from("/")];
        for part in pattern.components() {
            let Component::Normal(name) = part else { continue };
            let name = name.to_string_lossy();
            found = if name.contains(['*', '?']) {
                let fits = fits(&name);
                let children = found.iter().flat_map(|dir| self.children(dir));
                children.filter(|path| path.file_name().is_some_and(|own| fits(&own.to_string_lossy()))).collect()
            } else {
                found.into_iter().map(|dir| dir.join(&*name)).collect()
            };
        }
        found
    }

    /// The value of `name="value"` or `name: value` in a file, if it is an absolute path.
    fn path_setting(&self, file: &str, name: &str) -> Option<PathBuf> {
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
    fn without_calls(&self, path: &Path, seen: String) -> Option<Problem> {
        let [_, rdr, filter] = Conf::of_output(&self.text(path)?).calls_kport();
        let remedy = || format!("add kport's lines there, too: kport setup --pf-conf {} --write", path.display());
        (!(rdr && filter)).then(|| Problem { seen, remedy: remedy() })
    }
}

/// Whether names match a pattern with `*` and `?`; a leading dot only matches itself.
fn fits(pattern: &str) -> impl Fn(&str) -> bool {
    let expression = regex_lite::escape(pattern).replace(r"\*", ".*").replace(r"\?", ".");
    let expression = Regex::new(&format!("(?s)^{expression}$"));
    let hidden = pattern.starts_with('.');
    move |name| {
        (hidden || !name.starts_with('.')) && expression.as_ref().is_ok_and(|expression| expression.is_match(name))
    }
}
