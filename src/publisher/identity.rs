//! A jail that was renamed since it published.

use crate::error::Result;
use crate::host::{Host, Jail};
use crate::name::JailName;
use crate::store::Store;

/// The name by which a jail has published, if it differs from `jail`: jail(8) can rename a running jail, and the record has
/// its jid. `jid` is the jid that the caller knows, possibly of a jail that is gone. `None` for a jail with a record by its
/// name.
pub(super) fn earlier_name(
    host: &dyn Host,
    store: &Store,
    boot: &str,
    jail: &JailName,
    jid: Option<i32>,
) -> Result<Option<JailName>> {
    // what is wrong with an existing record is reported elsewhere
    if !matches!(store.get(&jail.anchor()), Ok(None)) {
        return Ok(None);
    }
    let running = |name: &str| -> Result<Option<Jail>> { Ok(host.jail(name)?.filter(|there| !there.dying)) };
    let number = match (running(jail.as_str())?.filter(|there| there.name == jail.as_str()), jid) {
        (Some(there), _) => there.jid,
        // a jail of another name has the jid now
        (None, Some(jid)) if running(&jid.to_string())?.is_some() => return Ok(None),
        (None, Some(jid)) => jid,
        (None, None) => return Ok(None),
    };
    for anchor in store.of_jid(number)? {
        if let Ok(Some(record)) = store.get(&anchor)
            && record.boot == boot
            && record.jid == Some(number)
        {
            return Ok(Some(record.jail));
        }
    }
    Ok(None)
}
