//! Events: what the system reports at once, so that nobody has to ask.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::Watch;
use crate::error::Result;

/// Something that may have changed. An event only says when to look: some are lost, several come as one, and a false alarm is
/// possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Jails were made.
    Jails,
    /// The jail with this jid was changed or removed.
    Jail(i32),
    /// Interfaces, addresses or routes in the network stack of the jail with this jid.
    Network(i32),
    /// Interfaces, addresses or routes of the host.
    Routes,
}

/// A source of events.
pub trait Events {
    /// Whether events tell about jails: without them, the jails have to be listed often.
    fn tells_jails(&self) -> bool;

    /// Tells about the jail with this jid until it is removed. If it is gone already, nobody is told.
    fn add_jail(&mut self, jid: i32);

    /// Tells about the network of the jail with this jid.
    fn add_network(&mut self, jid: i32, socket: Watch);

    /// Closes the socket of a jail's network: until then a jail that is removed is dying.
    fn remove_network(&mut self, jid: i32);

    /// What has come since the last call; several events on one thing are one. Waits for the first one, but not longer than
    /// `within`; a signal ends the wait.
    ///
    /// # Errors
    ///
    /// Only if there will be no more.
    fn next(&mut self, within: Duration) -> Result<Vec<Event>>;

    /// Makes the descriptor readable after this time, if it is not before.
    fn wake(&mut self, within: Duration);

    /// A descriptor that is readable when [`Events::next`] would return something, or after [`Events::wake`].
    fn descriptor(&self) -> BorrowedFd<'_>;
}
