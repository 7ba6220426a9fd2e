//! When a call must be done: one value, created when the call begins, and passed down to everything that waits.

use std::time::{Duration, Instant};

/// The latest deadline: a clock may be unable to represent more, and nobody waits that long.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A point in time of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// After `time` from now; after a year if `time` is longer.
    pub fn after(time: Duration) -> Deadline {
        Deadline(Instant::now() + time.min(LONGEST))
    }

    /// The remaining time; zero once the deadline has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the deadline has passed.
    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// This one, or `time` from now if that is sooner.
    #[must_use]
    pub fn sooner(self, time: Duration) -> Deadline {
        self.min(Deadline::after(time))
    }

    /// This one, or `time` from now if that is later.
    #[must_use]
    pub fn later(self, time: Duration) -> Deadline {
        self.max(Deadline::after(time))
    }

    /// Earlier by `time`, which is reserved for what follows, but at most by this `part` of the remaining time: a third for
    /// 3.
    #[must_use]
    pub fn reserving(self, time: Duration, part: u32) -> Deadline {
        Deadline(self.0 - time.min(self.remaining() / part))
    }
}
