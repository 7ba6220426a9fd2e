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
//! The modules are layers, and know only those before them: [`error`]; [`net`] and [`name`] (words that may stand in
//! a rule); [`spec`] (the grammar); [`rules`] (what a publication is in pf); [`pf`] (the firewall behind a trait) and
//! [`host`] (what the system knows, behind another); [`readiness`], [`conflict`] and [`store`]; [`publisher`] (the
//! transactions); [`doctor`] (why a port could be dead); [`session`] (which firewall, which directory). The C ABI ([`ffi`]) and the helper stand on top.

mod child;
pub mod conflict;
pub mod doctor;
pub mod error;
pub mod ffi;
#[doc(hidden)]
pub mod files;
pub mod host;
pub mod name;
pub mod net;
pub mod options;
pub mod pf;
pub mod publication;
pub mod publisher;
pub mod readiness;
pub mod rule;
pub mod rules;
pub mod session;
pub mod sim;
pub mod spec;
pub mod store;
