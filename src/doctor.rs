//! Why a published port could be dead: findings from what the host, pf and the record say.
//!
//! [`examine`] asks and changes nothing. Each finding has a name that stays, what was seen, and the line or the command
//! that remedies it. A problem makes a published port dead, or leaves one open that nobody published; a warning may be just
//! what the admin wants.

mod evidence;
mod firewall;
mod hooks;
mod main_ruleset;
mod managers;
mod network;
mod record;
pub mod self_test;

use std::fmt;
use std::path::Path;

use self::evidence::Evidence;
use crate::error::{Error, Kind, Problem, Result};
use crate::host::Host;
use crate::pf::Firewall;
use crate::readiness::Findings;
use crate::store::Store;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may be meant so, or could not be looked at.
    Warning,
    /// A published port is dead, or open without being published.
    Problem,
}

impl Level {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which: one of [`IDS`].
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen, and what it means.
    pub seen: String,
    /// The line or the command against it; empty if nothing is to be done.
    pub remedy: String,
}

impl fmt::Display for Finding {
    /// Two lines, or one without a remedy; no newline at the end. Control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |text: &str| Error::new(Kind::Internal, text).message().to_owned();
        write!(f, "{:<7}  {:<19}  {}", self.level.name(), self.id, line(&self.seen))?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "\n{:30}-> {}", "", line(&self.remedy)) }
    }
}

/// What comes of a check: nothing wrong is an empty list, and `None` means that another finding is the reason not to look.
type Checked = Result<Option<Vec<Finding>>>;

/// A check: its name, the text if it finds nothing, and the check.
type Check = (&'static str, &'static str, fn(&Evidence<'_>) -> Checked);

const CHECKS: [Check; 20] = [
    ("state", "the records can be read", record::state),
    ("pf", "pf answers", firewall::pf),
    ("securelevel", "pf's rules may be changed", firewall::securelevel),
    ("enabled", "pf is enabled", firewall::enabled),
    ("anchors-called", "pf's main ruleset calls kport's anchors", firewall::anchors_called),
    (
        "anchors-order",
        "kport's anchors are called for every packet, and before rules that are final",
        firewall::anchors_order,
    ),
    ("forwarding", "the host forwards what is published", network::forwarding),
    ("interfaces", "the interfaces and addresses that are published on are there", network::interfaces),
    ("skip", "no interface that is needed has set skip", main_ruleset::skip),
    ("neighbour-discovery", "IPv6 neighbour discovery is not blocked", main_ruleset::neighbour_discovery),
    ("main-ruleset", "the main ruleset lets through what is published", main_ruleset::main_ruleset),
    ("anchors-loaded", "pf has what is recorded, and nothing else", record::anchors_loaded),
    ("jails", "the jails run, with the addresses that are published", record::jails),
    ("overlaps", "no two jails take the same packets", record::overlaps),
    ("host-access", "the host itself gets where it should", network::host_access),
    ("bridge-members", "pf does not look at bridge members", network::bridge_members),
    ("reach", "nobody outside reaches a jail's own address", network::reach),
    ("other-redirects", "no other redirect takes a published port", firewall::other_redirects),
    ("hooks", "no hook of a jail calls kport for another jail, or is discarded", managers::hooks),
    ("anchors-limit", "pf has room for more anchors", firewall::anchors_limit),
];

/// The names of all checks, in the order of the findings.
pub const IDS: [&str; CHECKS.len()] = {
    let mut ids = [""; CHECKS.len()];
    let mut at = 0;
    while at < ids.len() {
        ids[at] = CHECKS[at].0;
        at += 1;
    }
    ids
};

/// Where the files of jail managers are, and how the command lines of kport(8) in them are read.
#[derive(Clone, Copy, Debug)]
pub struct ManagerFiles<'a> {
    /// Where they are looked for: `/`.
    pub root: &'a Path,
    /// The flags of the helper after which a value stands: `--rate`, `-a`.
    pub with_values: &'a [String],
}

/// Looks at everything; at least one finding for each check that could be made. `store` is an error where the state
/// directory cannot be used: that is a finding too.
///
/// `files` is `None` for a host that is played: it has none.
pub fn examine(
    host: &dyn Host,
    firewall: &dyn Firewall,
    store: Result<Store>,
    files: Option<ManagerFiles<'_>>,
) -> Vec<Finding> {
    let evidence = Evidence::ask(host, firewall, store, files);
    let mut findings = vec![];
    for (id, fine, check) in CHECKS {
        let plain = |level, seen: String| Finding { id, level, seen, remedy: String::new() };
        match check(&evidence) {
            Ok(None) => {}
            Ok(Some(found)) if found.is_empty() => findings.push(plain(Level::Ok, fine.to_owned())),
            Ok(Some(found)) => findings.extend(found.into_iter().map(|finding| Finding { id, ..finding })),
            // a system that has no such thing cannot have it wrong
            Err(error) if error.kind() == Kind::Unsupported => {
                findings.push(plain(Level::Ok, format!("not looked at: {error}")));
            }
            Err(error) => findings.push(plain(Level::Problem, error.message().to_owned())),
        }
    }
    findings
}

fn problem(seen: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { id: "", level: Level::Problem, seen: seen.into(), remedy: remedy.into() }
}

fn warning(seen: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..problem(seen, remedy) }
}

impl From<Problem> for Finding {
    fn from(Problem { seen, remedy }: Problem) -> Finding {
        problem(seen, remedy)
    }
}

fn found(problem: Option<Problem>) -> Checked {
    Ok(Some(problem.into_iter().map(Finding::from).collect()))
}

fn all(found: Findings) -> Vec<Finding> {
    let warnings = found.warnings.into_iter().map(|Problem { seen, remedy }| warning(seen, remedy));
    found.problems.into_iter().map(Finding::from).chain(warnings).collect()
}
