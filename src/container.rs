//! The interfaces for container runtimes and Kleene: a plugin of the Container Network Interface, a hook of the OCI runtime
//! specification, and Kleene's records.
//!
//! The documents are read here, and turned into calls of a [`Publisher`](crate::publisher::Publisher). The trait [`Program`] is the
//! program that the runtime has called: it reads the environment and standard input, opens the session, and prints.

pub mod cni;
pub mod kleene;
pub mod oci;

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::publisher::{Observer, Outcome};
use crate::session::{Backend, Session};

/// The settings in a document: the backend, the state directory and the time-out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// The backend.
    pub backend: Option<Backend>,
    /// The state directory.
    pub state_dir: Option<PathBuf>,
    /// The maximum time of the call.
    pub timeout: Option<Duration>,
}

/// The program that a runtime has called.
pub trait Program {
    /// Opens the session of this call. Settings in the runtime's document override those of the program.
    ///
    /// # Errors
    ///
    /// As of [`Session::new`].
    fn session(&self, overrides: Overrides) -> Result<Session>;

    /// The observer of a change.
    fn observer(&self) -> &dyn Observer;

    /// Reports the outcome of each change, and notes without one.
    fn report(&self, session: &Session, outcome: &Outcome);
}
