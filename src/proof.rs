//! Judges a main ruleset: whom it refuses because of his source, who an ordinary outsider is, and what kport's rules
//! change. By evaluation with [`trace`](crate::trace), never by patterns of lines.
//!
//! A packet of a connection that comes in differs from another one in what rules can compare. Of the addresses a
//! [`Judge`] tries one of each class ([`World::classes`](crate::trace::World::classes)), so that the result holds for all
//! of them, and not for samples only:
//!
//! * addresses, networks, ranges, addresses of interfaces, no-route, urpf-failed, antispoof: exact;
//! * a table: one address of each combination of tables and networks that it has now, and an address that is added to it
//!   later; so an empty table refuses somebody;
//! * an anchor that a program may fill: an address that it blocks later;
//! * what cannot be decided (os, tos, prio, probability, host names, the owner of a socket): an ordinary outsider has none
//!   of it, and for each of these there is a source that has it.
//!
//! Interfaces, families, protocols and ports are those of the [`Entrance`] that is asked about. Rates, and limits of states, are not
//! followed.
//!
//! [`places`] looks for the positions of kport's calls, and [`prove_with`] judges a ruleset that has them.

mod judge;
mod place;
mod sentences;

pub use judge::{Entrance, Judge, judge};
pub use place::{CallPlace, Contradiction, Need, Positions, places};
pub use sentences::{Proof, and_more, bypassed, prove_with};
