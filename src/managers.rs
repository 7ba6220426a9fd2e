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
mod root;

use std::path::{Path, PathBuf};

use crate::error::{Problem, Result};
use crate::pfconf::PF_CONF;

pub(crate) use caller::jid;
pub use caller::{Caller, Environment, Identity};
pub use import::{Command, Exports, Import, Imported, Port, TextOf, by_jail};
pub use jail::{ExecStatement, HookFile};
pub use root::Root;

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
    /// [`Kind::Argument`](crate::error::Kind::Argument) for an invalid jid.
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
