//! A jail that is published before it is there.

use std::time::SystemTime;

use crate::store::Record;

/// How long a jail may take from its prestart hook until it is there, in seconds: mounts, other hooks. After that, `gc` takes what was
/// published for it without a number for that of a jail that is gone.
const STARTING: u64 = 60;

/// Whether the jail of a record may still be starting: it was not there when it was published, just now.
pub(super) fn is_starting(record: &Record) -> bool {
    // a clock that was set back makes no record young for long
    record.jid.is_none() && record.since.abs_diff(now()) < STARTING
}

/// Whether half of that time is over. Only then does publishing the same set again start it anew, so that whoever publishes twice at once
/// changes nothing.
pub(super) fn is_half_over(record: &Record) -> bool {
    record.since.abs_diff(now()) >= STARTING / 2
}

/// The time, in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
