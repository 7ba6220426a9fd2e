//! From settings to a [`Publisher`]: which firewall, which state directory, how long to wait.

use std::path::PathBuf;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result, error, quoted};
use crate::host::Host;
use crate::pf::Firewall;
use crate::pf::files::{NOTICE, Sim};
use crate::pf::native::{self, Native};
use crate::pf::pfctl::{self, Helpers, Pfctl};
use crate::publisher::{Observer, Publisher};
use crate::store::Store;

/// The default time limit of a call: a boot that starts forty jails at once, each with the three runs of pfctl(8) that a
/// first publish needs, is done in a quarter of it if a run takes 0.12 s (an emulated FreeBSD 15.1), and in less than half of
/// it if a run takes 0.19 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// A way to drive pf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The best that this host has. FreeBSD: `Native` if the kernel has all that it needs, else `Pfctl`. macOS: Apple's pf,
    /// by a backend without a name of its own. Elsewhere: `Sim`.
    #[default]
    Auto,
    /// pf(4) through its device: FreeBSD only. It does not run pfctl(8).
    Native,
    /// pfctl(8)
    Pfctl,
    /// The simulator: no packet is redirected.
    Sim,
}

impl Backend {
    /// Every name of a backend.
    pub const NAMES: [&str; 4] = ["auto", "native", "pfctl", "sim"];
}

impl std::str::FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Backend> {
        match text {
            "auto" => Ok(Backend::Auto),
            "native" => Ok(Backend::Native),
            "pfctl" => Ok(Backend::Pfctl),
            "sim" => Ok(Backend::Sim),
            _ => Err(error!(Argument, "backend {} is unknown; there are {}", quoted(text), Backend::NAMES.join(", "))),
        }
    }
}

/// The settings of a caller.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The firewall.
    pub backend: Backend,
    /// The state directory; `None` for `Store::default_dir`.
    pub state_dir: Option<PathBuf>,
    /// The time limit of a call.
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
    pub(crate) host: Box<dyn Host>,
    pub(crate) firewall: Box<dyn Firewall>,
    why: String,
    state_dir: PathBuf,
    deadline: Deadline,
}

impl Session {
    /// Chooses the firewall. Nothing is changed or created yet. [`Backend::Auto`] always finds one; a backend that was
    /// requested by name is used or an error: `Kind::Unsupported` for native if there is no FreeBSD pf.
    pub fn new(settings: &Settings, host: Box<dyn Host>) -> Result<Session> {
        Session::traced(settings, host, None)
    }

    /// Like [`Session::new`], with `trace` called for every run of pfctl(8).
    pub(crate) fn traced(
        settings: &Settings, host: Box<dyn Host>, trace: Option<Box<pfctl::Trace>>,
    ) -> Result<Session> {
        let deadline = Deadline::after(settings.timeout);
        let state_dir = settings.state_dir.clone().unwrap_or_else(Store::default_dir);
        let pfctl = Pfctl::new(settings.pfctl.clone(), deadline).with(Helpers {
            trace,
            skipped: Some(Box::new(native::skipped)),
            anchors: Some(Box::new(native::anchors)),
            called: Some(Box::new(native::called)),
            out_of_tags: Some(Box::new(native::out_of_tags)),
        });
        let over = |native: Native| {
            Box::new(match host.boot_id() {
                Ok(boot) => native.with_cache(state_dir.clone(), boot),
                Err(_) => native,
            }) as Box<dyn Firewall>
        };
        let sim = || Box::new(Sim::new(&state_dir)) as Box<dyn Firewall>;
        let named = |firewall: Box<dyn Firewall>| (firewall, "it was requested".to_owned());
        let (firewall, why) = match settings.backend {
            Backend::Auto if cfg!(target_os = "freebsd") => match Native::probe(deadline) {
                Ok(native) => (over(native), "the kernel has all that it needs".to_owned()),
                Err(error) => (Box::new(pfctl) as _, format!("native is not usable here: {error}")),
            },
            #[cfg(target_os = "macos")]
            Backend::Auto => (Box::<crate::pf::macos::MacOs>::default() as _, "this is macOS".to_owned()),
            #[cfg(not(target_os = "macos"))]
            Backend::Auto => (sim(), format!("{} has no pf", std::env::consts::OS)),
            Backend::Native => named(over(Native::probe(deadline)?)),
            Backend::Pfctl => named(Box::new(pfctl)),
            Backend::Sim => named(sim()),
        };
        Ok(Session { host, firewall, why, state_dir, deadline })
    }

    /// When the call must be done.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Why this firewall was chosen, for `-v`: `backend pfctl: native is not usable here: ...`.
    pub fn why(&self) -> String {
        format!("backend {}: {}", self.firewall.name(), self.why)
    }

    /// Whether loaded rules redirect packets; false for the simulator.
    pub fn redirects_packets(&self) -> bool {
        self.firewall.redirects_packets()
    }

    /// The notice for the caller of a backend whose rules redirect no packet, such as after each change.
    pub fn notice(&self) -> Option<&'static str> {
        (!self.redirects_packets()).then_some(NOTICE)
    }

    /// A publisher; creates the state directory if it is missing.
    pub fn publisher<'a>(&'a self, observer: &'a dyn Observer) -> Result<Publisher<'a>> {
        Ok(Publisher::new(&*self.host, &*self.firewall, self.store()?, self.deadline, observer))
    }

    /// The records; creates the state directory if it is missing.
    pub(crate) fn store(&self) -> Result<Store> {
        Store::open(&self.state_dir)
    }
}
