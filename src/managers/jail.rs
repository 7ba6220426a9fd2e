//! jail(8) and jail.conf(5).

use std::path::Path;

use super::{Environment, HookFile, Identity, Manager, Root};
use crate::error::Result;

/// The variable with the jail's name.
const NAME: &str = "JNAME";

#[derive(Debug)]
pub(super) struct Jail;

impl Manager for Jail {
    fn name(&self) -> &'static str {
        "jail"
    }

    fn variable(&self) -> Option<&'static str> {
        Some(NAME)
    }

    /// `JNAME`, and `JID` in all hooks except prestart (run_command() of usr.sbin/jail/command.c; seen on 15.1). Bastille and AppJail
    /// use the hooks of jail(8), and iocage sets both for its poststart.
    fn identity(&self, environment: &Environment<'_>) -> Result<Option<Identity>> {
        let (name, jid) = (environment.get(NAME), environment.jid("JID")?);
        if name.is_none() && jid.is_none() {
            return Ok(None);
        }
        Ok(Some(Identity { name, jid, ..Identity::by("jail(8)'s JNAME") }))
    }

    fn hook_files(&self, root: &Root<'_>) -> Vec<HookFile> {
        let main = HookFile::jail_conf(root, Path::new("/etc/jail.conf"));
        let included = main.as_ref().map(|main| main.includes.clone()).unwrap_or_default();
        let mut paths = root.children("/etc/jail.conf.d");
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf") && !included.contains(path));
        main.into_iter().chain(paths.iter().filter_map(|path| HookFile::jail_conf(root, path))).collect()
    }
}
