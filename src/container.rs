//! The interfaces for container runtimes and Kleene: a plugin of the Container Network Interface, a hook of the OCI runtime
//! specification, and Kleene's records.
//!
//! The documents are read here, and turned into calls of a [`Publisher`](crate::publisher::Publisher). The trait [`Program`] is the
//! program that the runtime has called: it reads the environment and standard input, opens the session, and prints.

pub mod cni;
mod code;
mod fields;
pub mod kleene;
pub mod oci;
mod settings;

use crate::error::Result;
use crate::publisher::{Observer, Outcome};
use crate::session::Session;

pub use settings::Overrides;

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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::host::Fixed;
    use crate::publisher::Unobserved;
    use crate::session::{Backend, Settings};

    /// A program on a host of its own, with the simulator.
    pub(super) struct Stage {
        dir: tempfile::TempDir,
        /// The overrides of the last document.
        pub(super) overrides: Cell<Overrides>,
        /// The reported notes.
        pub(super) notes: RefCell<Vec<String>>,
    }

    impl Stage {
        pub(super) fn new() -> Stage {
            let dir = tempfile::tempdir().unwrap();
            Stage { dir, overrides: Cell::default(), notes: RefCell::default() }
        }

        /// A file of the state directory.
        pub(super) fn file(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join("state").join(name)
        }

        /// A line for each redirect.
        pub(super) fn published(&self) -> Vec<String> {
            let session = self.session(Overrides::default()).unwrap();
            let listed = session.publisher(&Unobserved).unwrap().list(None).unwrap();
            let lines = |l: &crate::publisher::Listed| {
                let jail = l.jail.clone().unwrap();
                let line = |r: &crate::publication::Redirect| {
                    format!("{jail} {} port {} of {} -> {} port {}", r.protocol, r.host, r.place, r.target, r.jail)
                };
                l.redirects.iter().map(|(redirect, _)| line(redirect)).collect::<Vec<_>>()
            };
            listed.iter().flat_map(lines).collect()
        }
    }

    impl Program for Stage {
        fn session(&self, overrides: Overrides) -> Result<Session> {
            self.overrides.set(overrides);
            let host: Fixed = r#"{
                "gateway": { "inet": "em0" },
                "interfaces": [
                    { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
                    { "name": "bridge0", "groups": [ "bridge" ], "up": true, "addresses": [ "10.88.0.1/16" ] }
                ],
                "jails": [ { "jid": 7, "name": "blue", "vnet": true } ],
                "vnet_addresses": { "blue": [ "10.88.0.5" ] },
                "sysctls": { "net.inet.ip.forwarding": 1 },
                "boot_id": "first"
            }"#
            .parse()?;
            let state_dir = Some(self.file(""));
            Session::new(&Settings { backend: Backend::Sim, state_dir, ..Settings::default() }, Box::new(host))
        }

        fn observer(&self) -> &dyn Observer {
            &Unobserved
        }

        fn report(&self, _: &Session, outcome: &Outcome) {
            self.notes.borrow_mut().extend(outcome.notes.iter().cloned());
        }
    }
}
