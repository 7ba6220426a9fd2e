//! Packets through a host that has pf: the simulator's answer to "does this arrive, and by which rule".
//!
//! A [`World`] is a host with its interfaces, jails, main ruleset and anchors. [`World::trace`] sends the first
//! packet of a connection through it, and what answers it back, hop by hop as FreeBSD's network stack does: in and
//! out of each interface, translation before filter, states before rules, over lo0 for what the host sends to itself.
//! Where 14 and 15 differ, [`Release`] says which.
//!
//! ```
//! use kport::{host::Fixed, net::Protocol, sim::{MAIN, Release, World}};
//!
//! let host: Fixed = r#"{
//!     "gateway": { "inet": "em0" },
//!     "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
//!                     { "name": "bridge0", "up": true, "groups": [ "bridge" ], "addresses": [ "10.0.0.1/24" ] } ],
//!     "jails": [ { "jid": 2, "name": "web", "vnet": true } ],
//!     "vnet_addresses": { "web": [ "10.0.0.2" ] }
//! }"#.parse()?;
//! let mut world = World::of_host(&host, Release::V15)?;
//! world.load_main(MAIN)?;
//! let (from, to) = ("192.0.2.100:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
//! let sender = world.sender("192.0.2.100".parse().unwrap(), None)?;
//! let trace = world.trace(&sender, Protocol::Tcp, from, to);
//! assert!(!trace.touches("web"), "{trace}");
//! # Ok::<(), kport::error::Error>(())
//! ```
//!
//! Not modelled: fragments, icmp, route-to, binat, time (rates, time-outs), and queues.
//!
//! The way of a question through the room: `conf` reads text into rules (`rule`), `pf` evaluates them for one packet at one
//! interface with its `state`s and what it looks up (`lookup`), and `world` is the host around pf. [`Sim`] is the firewall of
//! hosts that have no pf: its rules are files, and the same evaluator answers for them.

mod address;
mod choice;
mod conf;
mod files;
mod lookup;
mod matching;
mod names;
mod packet;
mod pf;
mod rule;
mod state;
mod trace;
mod translate;
mod walk;
mod way;
mod world;

pub use conf::Conf;
pub use files::{NOTICE, Sim};
pub use packet::{IpProtocol, Packet, Party, Release};
pub use trace::{Looked, Trace, TraceStep, Verdict};
pub use world::{Attachment, World};

/// A main ruleset to trace with where there is none: what kport asks for, on a host that is closed from outside.
pub const MAIN: &str = "\
set skip on lo
nat-anchor \"kport/*\"
rdr-anchor \"kport/*\"
block in log all
pass out all
pass quick inet6 proto ipv6-icmp
anchor \"kport/*\"
";
