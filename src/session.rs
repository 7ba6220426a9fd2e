//! From settings to a [`Publisher`]: which firewall, which state directory, how long to wait.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result, quoted};
use crate::host::Host;
use crate::pf::Firewall;
use crate::pf::pfctl::{self, Pfctl};
use crate::pf::sim::Sim;
use crate::publisher::{Observer, Publisher};
use crate::store::Store;

/// How long a call may take unless the caller says otherwise: a boot that starts forty jails at once, each with a run of
/// pfctl(8), is through in less.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// A way to drive pf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The best that this host has: pf(4) on FreeBSD, the simulator elsewhere.
    #[default]
    Auto,
    /// pfctl(8)
    Pfctl,
    /// The simulator: no packet is redirected.
    Sim,
}

impl Backend {
    /// Every word for a backend.
    pub const NAMES: [&str; 3] = ["auto", "pfctl", "sim"];
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Backend> {
        match text {
            "auto" => Ok(Backend::Auto),
            "pfctl" => Ok(Backend::Pfctl),
            "sim" => Ok(Backend::Sim),
            _ => Err(Error::new(
                Kind::Argument,
                format!("backend {} is unknown; there are {}", quoted(text), Backend::NAMES.join(", ")),
            )),
        }
    }
}

/// What a caller may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which firewall.
    pub backend: Backend,
    /// The state directory; `None` for [`Store::default_dir`].
    pub state_dir: Option<PathBuf>,
    /// How long a call may take.
    pub timeout: Duration,
    /// The pfctl(8) to run.
    pub pfctl: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            backend: Backend::Auto,
            state_dir: None,
            timeout: DEFAULT_TIMEOUT,
            pfctl: PathBuf::from(pfctl::PROGRAM),
        }
    }
}

/// A host and a firewall for one call.
pub struct Session {
    /// Who answers for the host.
    pub host: Box<dyn Host>,
    /// Who drives pf.
    pub firewall: Box<dyn Firewall>,
    state_dir: PathBuf,
    deadline: Instant,
}

impl Session {
    /// Chooses the firewall. Nothing is changed or made yet.
    pub fn new(settings: &Settings, host: Box<dyn Host>) -> Result<Session> {
        Session::traced(settings, host, None)
    }

    /// The same, and `trace` sees every run of pfctl(8).
    pub fn traced(settings: &Settings, host: Box<dyn Host>, trace: Option<Box<pfctl::Trace>>) -> Result<Session> {
        // a time-out so long that the clock cannot hold it is as good as a year
        let deadline = Instant::now() + settings.timeout.min(Duration::from_secs(365 * 24 * 3600));
        let state_dir = settings.state_dir.clone().unwrap_or_else(Store::default_dir);
        let pfctl = || {
            let program = Pfctl::new(settings.pfctl.clone(), deadline);
            match trace {
                Some(trace) => program.traced(trace),
                None => program,
            }
        };
        let firewall: Box<dyn Firewall> = match settings.backend {
            Backend::Auto if cfg!(target_os = "freebsd") => Box::new(pfctl()),
            Backend::Pfctl => Box::new(pfctl()),
            Backend::Auto | Backend::Sim => Box::new(Sim::new(&state_dir)),
        };
        Ok(Session { host, firewall, state_dir, deadline })
    }

    /// A publisher; makes the state directory where it is missing.
    pub fn publisher<'a>(&'a self, observer: &'a dyn Observer) -> Result<Publisher<'a>> {
        Ok(Publisher::new(&*self.host, &*self.firewall, self.store()?, self.deadline, observer))
    }

    /// The record; makes the state directory where it is missing.
    pub fn store(&self) -> Result<Store> {
        Store::open(&self.state_dir)
    }
}
