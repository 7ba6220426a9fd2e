//! Whether a jail that runs is the one of a record, and whether that is gone or has not started yet. A jid alone does not show it:
//! root of a jail with `children.max` chooses the jids of the jails in it, and may take that of a jail that is gone.

use std::time::SystemTime;

use crate::error::Result;
use crate::host::{Host, Jail};
use crate::name::JailName;
use crate::store::{Record, Store};

/// How long a jail may take from its prestart hook until it exists, in seconds: mounts, other hooks. After that, `gc`
/// considers the jail gone, if its jid was not recorded.
const STARTING: u64 = 60;

/// Whether the jail of a record may still be starting: it did not exist when it was published, just now.
pub(super) fn is_starting(host: &dyn Host, record: &Record) -> Result<bool> {
    Ok(record.jid.is_none() && !record.no_jail && age(host, record)? < STARTING)
}

/// Whether half of that time is over. Only then does publishing the same set again restart it, so that two calls in a row
/// change nothing.
pub(super) fn is_half_over(host: &dyn Host, record: &Record) -> Result<bool> {
    Ok(age(host, record)? >= STARTING / 2)
}

/// The seconds since a record of this boot was written.
fn age(host: &dyn Host, record: &Record) -> Result<u64> {
    Ok(host.uptime()?.saturating_sub(record.uptime))
}

/// The time, in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether a jail is the one that a record was published for, possibly renamed since (jail(8) can rename a running jail). A new
/// name is at the same depth, and the path of a jail cannot be changed.
pub(super) fn is_of(record: &Record, there: &Jail) -> bool {
    let depth = |name: &str| name.matches('.').count();
    let known = record.path.as_deref().filter(|path| !path.is_empty() && !there.path.is_empty());
    let same_path = known.is_none_or(|path| path == there.path);
    !there.dying
        && record.jid == Some(there.jid)
        && (there.name == record.jail.as_str() || depth(&there.name) == depth(record.jail.as_str()) && same_path)
}

/// Whether the jail of a record is gone: it is not running, and not starting. Read from the host now, so that jails which
/// start meanwhile are not missed.
pub(super) fn is_gone(host: &dyn Host, store: &Store, record: &Record) -> Result<bool> {
    let Some(jid) = record.jid else {
        return Ok(!record.no_jail && host.running(record.jail.as_str())?.is_none() && !is_starting(host, record)?);
    };
    let Some(there) = host.jail(&jid.to_string())?.filter(|there| is_of(record, there)) else { return Ok(true) };
    if there.name == record.jail.as_str() {
        return Ok(false);
    }
    // a jail with a record by its name is not this one, renamed
    let Ok(name) = there.name.parse::<JailName>() else { return Ok(false) };
    let own = store.get(&name.anchor())?;
    Ok(own.is_some_and(|own| own.boot == record.boot && own.jid == Some(jid)))
}

/// The name by which a jail has published, if it differs from `jail` because the jail was renamed. `jid` is the jid that the
/// caller knows, possibly of a jail that is gone. `None` for a jail with a record by its name.
pub(super) fn earlier_name(
    host: &dyn Host,
    store: &Store,
    boot: &str,
    jail: &JailName,
    jid: Option<i32>,
) -> Result<Option<JailName>> {
    // what is wrong with an existing record is reported elsewhere
    if store.has(&jail.anchor()) {
        return Ok(None);
    }
    let there = host.running(jail.as_str())?;
    let number = match (&there, jid) {
        (Some(there), _) => there.jid,
        // a jail of another name has the jid now
        (None, Some(jid)) if host.jail(&jid.to_string())?.is_some_and(|there| !there.dying) => return Ok(None),
        (None, Some(jid)) => jid,
        (None, None) => return Ok(None),
    };
    for anchor in store.of_jid(number)? {
        if let Ok(Some(record)) = store.get(&anchor)
            && record.boot == boot
            && record.jid == Some(number)
            && there.as_ref().is_none_or(|there| is_of(&record, there))
        {
            return Ok(Some(record.jail));
        }
    }
    Ok(None)
}
