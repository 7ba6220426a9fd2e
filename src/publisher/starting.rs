//! A jail that is published before it exists.

use std::time::SystemTime;

use crate::store::Record;

/// How long a jail may take from its prestart hook until it exists, in seconds: mounts, other hooks. After that, `gc`
/// considers the jail gone, if its jid was not recorded.
const STARTING: u64 = 60;

/// Whether the jail of a record may still be starting: it did not exist when it was published, just now.
pub(super) fn is_starting(record: &Record) -> bool {
    // a clock that was set back must not keep a record young for long
    record.jid.is_none() && record.since.abs_diff(now()) < STARTING
}

/// Whether half of that time is over. Only then does publishing the same set again restart it, so that two calls in a row
/// change nothing.
pub(super) fn is_half_over(record: &Record) -> bool {
    record.since.abs_diff(now()) >= STARTING / 2
}

/// The time, in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
