//! kport publishes ports of FreeBSD jails through pf(4).
pub mod error;
pub mod host;
pub mod name;
pub mod net;
pub mod pf;
pub mod rules;
pub mod spec;
