//! kport publishes ports of FreeBSD jails through pf(4): it parses specs such as `8080`, `8080:80/udp` or `em1:8080:80`, and
//! redirects and allows the traffic, in one anchor for each jail, all of a jail's ports or none.
//!
//! ```
//! use kport::publisher::{Request, Unobserved};
//! use kport::session::{Backend, Session, Settings};
//!
//! # fn main() -> kport::error::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let settings = Settings { backend: Backend::Sim, state_dir: Some(dir.path().into()), ..Settings::default() };
//! let session = Session::new(&settings, Box::new(kport::host::System))?;
//! let publisher = session.publisher(&Unobserved)?;
//!
//! let mut request = Request::new("web".parse()?, kport::spec::parse("em0:8080:80")?);
//! request.addresses = vec!["10.0.0.2".parse().unwrap()];
//! publisher.publish(&request)?;
//! assert_eq!(publisher.list(None)?.len(), 1);
//! publisher.unpublish(&request.jail, None)?;
//! # Ok(())
//! # }
//! ```
//!
//! The modules are layers; each uses only those before it in this list.
//!
//! 1. [`error`]; [`net`] and [`name`]: what a rule may contain.
//! 2. [`spec`]: the grammar. [`options`] and [`publication`]: what is published, and how.
//! 3. `rule`: a typed rule of pf. `rules`: all rules of a publication, decided in one place.
//! 4. [`host`]: the facts of the system, with the trait [`Host`](host::Host). `pfconf`: the text of pf.conf(5).
//! 5. `calls`: which jail's rules a packet is compared with. `pf`: the firewall, with the trait `Firewall`. `trace`: evaluates packets.
//! 6. `conflict`, `readiness` and `store`: ports that are taken, causes of a dead port, records.
//! 7. [`publisher`]: the transactions. [`managers`]: what each jail manager does. [`doctor`]: diagnosis of published ports.
//! 8. [`session`]: which firewall, which directory, which time limit. [`container`]: CNI, OCI and Kleene's records.
//! 9. [`ffi`], the C ABI, and the helper `kport`: no module uses them.
//!
//! `docs/architecture.md` describes the path of a publish through them, and where something new belongs.

// what only the helper uses is dead in a build of the library alone
#![cfg_attr(not(feature = "cli"), allow(dead_code, unused_imports))]

pub mod container;
pub mod deadline;
pub mod doctor;
pub mod error;
#[doc(hidden)]
pub mod ffi;
pub mod host;
pub mod managers;
pub mod name;
pub mod net;
pub mod options;
pub mod publication;
pub mod publisher;
pub mod session;
pub mod spec;

/// The modules that are not part of the Rust API.
#[allow(missing_docs, reason = "a comment that repeats the name helps nobody")]
#[path = "."]
mod internal {
    pub mod calls;
    pub mod child;
    #[cfg(feature = "cli")]
    pub mod cli;
    pub mod conf;
    pub mod conflict;
    pub mod files;
    pub mod pf;
    pub mod pfconf;
    pub mod proof;
    pub mod readiness;
    pub mod rule;
    pub mod rules;
    pub mod store;
    pub mod trace;
    pub mod watch;
}
#[cfg(not(feature = "internals"))]
use internal::*;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use internal::*;

/// Runs the helper kport(8) with the arguments of the process. The value is its exit status.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub fn cli() -> std::process::ExitCode {
    cli::main()
}
