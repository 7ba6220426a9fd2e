//! Evaluates packets: whether a packet arrives at a host with pf, and which rule decides.
//!
//! A [`World`] is a host with its interfaces, jails, main ruleset and anchors. [`World::trace`] sends the first packet
//! of a connection through it, and then its answer, hop by hop as FreeBSD's network stack does: in and out of each
//! interface, translation before filter, states before rules, over lo0 for what the host sends to itself. [`Release`]
//! selects the behaviour of 14 or 15.
//!
//! Not modelled: fragments, time (rates, time-outs) and queues. If a rule cannot be decided, and the result depends on
//! it, the verdict is [`Verdict::Depends`].
//!
//! `walk` evaluates the rules of [`pfconf`](crate::pfconf) for one packet at one interface, with the `state`s and what rules
//! compare (`matching`). `world` is the host around pf, and `way` the path of a packet through it.

mod classes;
mod matching;
mod packet;
mod state;
mod steps;
mod translate;
mod walk;
mod way;
mod world;

pub use classes::{At, DOCUMENTATION};
pub use packet::{IpProtocol, Packet, Party, Release};
#[cfg(feature = "internals")]
pub use steps::Looked;
pub use steps::{Trace, TraceStep, Verdict};
pub use walk::Met;
pub use world::{Attachment, REFUSES, World};
