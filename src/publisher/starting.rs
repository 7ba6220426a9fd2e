//! A jail that is published before it exists.

use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};

use crate::store::Record;

/// How long a jail may take from its prestart hook until it exists, in seconds: mounts, other hooks. After that, `gc`
/// considers the jail gone, if its jid was not recorded.
const STARTING: u64 = 60;

/// Whether the jail of a record may still be starting: it did not exist when it was published, just now.
pub(super) fn is_starting(record: &Record) -> bool {
    record.jid.is_none() && age(record) < STARTING
}

/// Whether half of that time is over. Only then does publishing the same set again restart it, so that two calls in a row
/// change nothing.
pub(super) fn is_half_over(record: &Record) -> bool {
    age(record) >= STARTING / 2
}

/// The seconds since a record of this boot was written. The clock of the day may be set meanwhile; this one is not.
fn age(record: &Record) -> u64 {
    uptime().saturating_sub(record.uptime)
}

/// The time, in seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The seconds since the boot: CLOCK_MONOTONIC of clock_gettime(2), which is the same for every process.
pub(super) fn uptime() -> u64 {
    u64::try_from(clock_gettime(ClockId::Monotonic).tv_sec).unwrap_or(0)
}
