//! Evaluates packets: whether a packet arrives at a host with pf, and which rule decides.
//!
//! A [`World`] is a host with its interfaces, jails, main ruleset and anchors. [`World::trace`] sends the first packet
//! of a connection through it, and then its answer, hop by hop as FreeBSD's network stack does: in and out of each
//! interface, translation before filter, states before rules, over lo0 for what the host sends to itself. [`Release`]
//! selects the behaviour of 14 or 15.
//!
//! ```
//! use kport::{host::Fixed, net::Protocol, pf::files::MAIN, trace::{Release, World}};
//!
//! let host: Fixed = r#"{
//!     "gateway": { "inet": "em0" },
//!     "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
//!                     { "name": "bridge0", "up": true, "groups": [ "bridge" ], "addresses": [ "10.0.0.1/24" ] } ],
//!     "jails": [ { "jid": 2, "name": "web", "vnet": true } ],
//!     "vnet_addresses": { "web": [ "10.0.0.2" ] }
//! }"#.parse()?;
//! let mut world = World::of_host(&host, Release::V15)?;
//! world.load_text("", MAIN)?;
//! let (from, to) = ("192.0.2.100:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
//! let sender = world.sender("192.0.2.100".parse().unwrap(), None)?;
//! let trace = world.trace(&sender, Protocol::Tcp, from, to);
//! assert!(!trace.touches("web"), "{trace}");
//! # Ok::<(), kport::error::Error>(())
//! ```
//!
//! Not modelled: fragments, time (rates, time-outs) and queues. If a rule cannot be decided, and the result depends on
//! it, the verdict is [`Verdict::Depends`].
//!
//! `filter` evaluates the rules of [`pfconf`](crate::pfconf) for one packet at one interface: it walks (`walk`) the
//! loaded rulesets, with the `state`s and what rules look up (`lookup`). `world` is the host around pf, and `way` the
//! path of a packet through it.

mod choice;
mod classes;
mod filter;
mod lookup;
mod matching;
mod packet;
mod state;
mod steps;
mod translate;
mod walk;
mod way;
mod world;

pub use classes::At;
pub use packet::{IpProtocol, Packet, Party, Release};
#[cfg(feature = "internals")]
pub use steps::Looked;
pub use steps::{Trace, TraceStep, Verdict};
pub use walk::Met;
pub use world::{Attachment, REFUSES, World};
