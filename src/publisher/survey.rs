//! What is read before a publish changes anything.

use super::facts::Facts;
use super::others::Others;

/// The facts of the host and of pf, and the records of other jails; each is read at most once.
pub(super) struct Survey<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) others: Others<'a>,
}
