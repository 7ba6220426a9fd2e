//! jail(8) and jail.conf(5).

use std::path::Path;

use super::{Environment, HookFile, Identity, Manager, Root};
use crate::error::Result;

/// The variable with the jail's name.
const NAME: &str = "JNAME";

pub(super) const JAIL: Manager = Manager { variable: Some(NAME), identity, hook_files, ..Manager::named("jail") };

/// `JNAME`, and `JID` in all hooks except prestart (run_command() of usr.sbin/jail/command.c; seen on 15.1). Bastille and AppJail
/// use the hooks of jail(8), and iocage sets both for its poststart.
fn identity(environment: &Environment<'_>) -> Result<Option<Identity>> {
    let (name, jid) = (environment.get(NAME), environment.jid("JID")?);
    let by = Identity::by("jail(8)'s JNAME");
    Ok((name.is_some() || jid.is_some()).then_some(Identity { name, jid, ..by }))
}

fn hook_files(root: &Root<'_>) -> Vec<HookFile> {
    let main = HookFile::jail_conf(root, Path::new("/etc/jail.conf"));
    let included = main.as_ref().map(|main| main.includes.clone()).unwrap_or_default();
    let mut paths = root.children("/etc/jail.conf.d");
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf") && !included.contains(path));
    main.into_iter().chain(paths.iter().filter_map(|path| HookFile::jail_conf(root, path))).collect()
}
