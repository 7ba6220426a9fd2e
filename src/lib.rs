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
//! The modules are storeys: each uses those before it.
//!
//! 1. [`error`] and [`deadline`]; [`net`] and [`name`]: words that may stand in a rule.
//! 2. [`spec`]: the grammar; [`kleene`]: the records of Kleene. [`options`] and [`publication`]: how, and what, is published.
//! 3. [`rule`]: a typed rule of pf. [`rules`]: all rules of a publication, decided in one place.
//! 4. [`host`]: what the system knows, behind the trait [`Host`](host::Host).
//! 5. [`pf`]: the firewall, behind the trait [`Firewall`](pf::Firewall). [`sim`]: one of files, and packets sent through rules.
//! 6. [`conflict`], [`readiness`] and [`store`]: who else has a port, whether pf looks at it, what is recorded.
//! 7. [`publisher`]: the transactions. [`doctor`]: why a published port could be dead.
//! 8. [`session`]: which firewall, which directory, how long.
//! 9. [`ffi`], the C ABI, and the helper `kport`: nothing uses them.
//!
//! `docs/architecture.md` has the way of a publish through them, and where something new goes.

mod child;
pub mod conflict;
pub mod deadline;
pub mod doctor;
pub mod error;
pub mod ffi;
#[doc(hidden)]
pub mod files;
pub mod host;
pub mod kleene;
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
