//! A jail that is published before it exists.

use std::time::SystemTime;

use crate::error::Result;
use crate::host::Host;
use crate::store::Record;

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
