//! Jail managers, each in a separate file.
//!
//! A [`Manager`] finds the jail that one of its hooks is called for, reads the ports that it has published by itself, and reports
//! settings that keep a port of kport from working. `kport --hook`, `kport import` and the doctor use the list [`ALL`].
//!
//! Nomad's pot driver needs no file: its tasks are pots.

mod appjail;
mod bastille;
mod caller;
mod cbsd;
mod environment;
mod hooks;
mod import;
mod iocage;
mod jail;
mod kleene;
mod ports;
mod pot;
mod root;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Problem, Result};
use crate::pfconf::PF_CONF;

pub use caller::{Caller, Identity};
pub use environment::Environment;
pub(crate) use environment::jid;
pub use hooks::{ExecStatement, HookFile};
pub use import::{Command, Import, Imported, by_jail};
pub use ports::{Exports, Port, TextOf};
pub use root::Root;

/// The file of the main ruleset that rc(8) loads, on the host whose root directory is `root`.
pub fn main_ruleset(root: &Path) -> PathBuf {
    let rules = Root::new(root).path_setting("/etc/rc.conf", "pf_rules").unwrap_or_else(|| PF_CONF.into());
    root.join(rules.strip_prefix("/").unwrap_or(&rules))
}

/// A jail manager.
pub trait Manager: fmt::Debug + Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// The variable of its hooks that names the jail.
    fn variable(&self) -> Option<&'static str> {
        None
    }

    /// The jail that a hook is called for; `None` if the variables of this manager are not set.
    ///
    /// # Errors
    ///
    /// [`Kind::Argument`](crate::error::Kind::Argument) for an invalid jid.
    fn identity(&self, _environment: &Environment<'_>) -> Result<Option<Identity>> {
        Ok(None)
    }

    /// The files with the ports that it has published by itself.
    fn exports(&self) -> Option<Exports> {
        None
    }

    /// The files in which its jails have hooks, as far as they can be read.
    fn hook_files(&self, _root: &Root<'_>) -> Vec<HookFile> {
        vec![]
    }

    /// How it loads a main ruleset without kport's lines, and what to do about it; `None` if it does not.
    fn replaces_ruleset(&self, _root: &Root<'_>) -> Option<Problem> {
        None
    }
}

/// Every manager.
pub static ALL: [&dyn Manager; 7] =
    [&jail::Jail, &bastille::Bastille, &iocage::Iocage, &appjail::AppJail, &cbsd::Cbsd, &kleene::Kleene, &pot::Pot];
