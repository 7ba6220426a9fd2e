//! What a publish finds out before it changes anything.

use super::facts::Facts;
use super::others::Others;

/// What the host, pf, and the records of other jails say: each question is asked at most once.
pub(super) struct Survey<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) others: Others<'a>,
}
