//! Why a published port may be dead: findings from the host, pf and the records.
//!
//! [`examine`] only reads. Each finding has a stable name, what was found, and the line or the command that fixes it. A
//! problem makes a published port dead, or leaves one open that is not published; a warning may be intended.

mod hooks;
mod packets;
mod record;
pub mod self_test;

use std::fmt;
use std::path::Path;

use once_cell::unsync::OnceCell;

use crate::error::{Error, Kind, Problem, Result};
use crate::host::{Host, HostInterface};
use crate::managers;
use crate::options::Options;
use crate::pf::{Firewall, Rulesets, Status};
use crate::pfconf::Conf;
use crate::publication::{Publication, Redirect};
use crate::readiness::{self, Findings, MainRuleset, Surroundings};
use crate::store::{Record, Store};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No problem.
    Ok,
    /// It may be intended, or could not be checked.
    Warning,
    /// A published port is dead, or a port is open without being published.
    Problem,
}

impl Level {
    /// Its name in the output.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check: one of [`IDS`].
    pub id: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, and what it means.
    pub seen: String,
    /// The line or the command that fixes it; empty if nothing needs to be done.
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

/// The result of a check: an empty list if nothing is wrong, and `None` if another finding makes the check pointless.
type Checked = Result<Option<Vec<Finding>>>;

/// A check: its name, the text if nothing is wrong, and the function.
type Check = (&'static str, &'static str, fn(&Evidence<'_>) -> Checked);

const CHECKS: [Check; 23] = [
    ("state", "the records can be read", record::state),
    ("pf", "pf answers", packets::pf),
    ("securelevel", "pf's rules may be changed", packets::securelevel),
    ("enabled", "pf is enabled", packets::enabled),
    ("anchors-called", "pf's main ruleset calls kport's anchors", packets::anchors_called),
    (
        "anchors-order",
        "kport's anchors are called for every packet, and after the rules that refuse sources",
        packets::anchors_order,
    ),
    ("forwarding", "the host forwards what is published", packets::forwarding),
    ("interfaces", "the interfaces and addresses of published ports exist", packets::interfaces),
    ("skip", "no interface that is needed has set skip", packets::skip),
    ("neighbour-discovery", "IPv6 neighbour discovery is not blocked", packets::neighbour_discovery),
    ("main-ruleset", "the main ruleset passes what is published", packets::main_ruleset),
    ("answers", "connections are answered, by the interface that they came in on", packets::answers),
    ("anchors-loaded", "pf has exactly what is recorded", record::anchors_loaded),
    ("jails", "the jails run, with the addresses that are published", record::jails),
    ("overlaps", "no two jails take the same packets", record::overlaps),
    ("host-access", "the host itself can use the ports of --host-access", packets::host_access),
    ("bridge-members", "pf does not filter on bridge members", packets::bridge_members),
    ("reach", "nobody outside reaches a jail's own address", packets::reach),
    ("checksums", "jails reach the ports of --af-to", packets::checksums),
    ("sources", "the tables of --sources have addresses", packets::sources),
    ("other-redirects", "no other redirect takes a published port", packets::other_redirects),
    ("hooks", "the hooks of jails call kport as they should", hooks::hooks),
    ("limits", "pf is below its limits", packets::limits),
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

/// The files of jail managers, and how the command lines of kport(8) in them are read.
#[derive(Clone, Copy, Debug)]
pub struct ManagerFiles<'a> {
    /// The directory that they are in: `/`.
    pub root: &'a Path,
    /// The flags of the helper that take a value: `--rate`, `-a`.
    pub with_values: &'a [String],
    /// The pfctl(8) that reads the file of the main ruleset.
    pub pfctl: &'a Path,
}

/// Makes all checks; returns at least one finding for each check that could be made. `store` is an error if the state
/// directory cannot be used: that is a finding too.
///
/// `files` is `None` for a host from a file: it has none.
pub fn examine(
    host: &dyn Host, firewall: &dyn Firewall, store: Result<Store>, files: Option<ManagerFiles<'_>>,
) -> Vec<Finding> {
    let mut records = vec![];
    if let (Ok(boot), Ok(store)) = (host.boot_id(), &store) {
        let anchors = store.anchors().unwrap_or_default();
        records = anchors.iter().filter_map(|anchor| store.get(anchor).ok()?).collect();
        records.retain(|record: &Record| record.boot == boot);
    }
    let (interfaces, mut rulesets) = (host.interfaces(), firewall.rulesets(false));
    if let (Ok(rulesets), Ok(interfaces), Some(files)) = (&mut rulesets, &interfaces, files) {
        readiness::name_by_file(rulesets, interfaces, &managers::main_ruleset(files.root));
    }
    let (status, judged) = (firewall.status(), OnceCell::new());
    let evidence = Evidence { host, firewall, store, interfaces, status, rulesets, files, records, judged };
    let mut findings = vec![];
    for (id, right, check) in CHECKS {
        let found = match check(&evidence) {
            Ok(None) => continue,
            Ok(Some(found)) if found.is_empty() => vec![fine(right)],
            Ok(Some(found)) => found,
            // a system without the facility cannot have it misconfigured
            Err(error) if error.kind() == Kind::Unsupported => vec![fine(format!("not checked: {error}"))],
            Err(error) => vec![problem(error.message(), "")],
        };
        findings.extend(found.into_iter().map(|finding| Finding { id, ..finding }));
    }
    findings
}

fn problem(seen: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { id: "", level: Level::Problem, seen: seen.into(), remedy: remedy.into() }
}

fn warning(seen: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, ..problem(seen, remedy) }
}

fn fine(seen: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, ..problem(seen, "") }
}

impl From<Problem> for Finding {
    fn from(Problem { seen, remedy }: Problem) -> Finding {
        problem(seen, remedy)
    }
}

fn found<F: Into<Finding>>(found: impl IntoIterator<Item = F>) -> Checked {
    Ok(Some(found.into_iter().map(Into::into).collect()))
}

fn all(found: Findings) -> Vec<Finding> {
    let warnings = found.warnings.into_iter().map(|Problem { seen, remedy }| warning(seen, remedy));
    found.problems.into_iter().map(Finding::from).chain(warnings).collect()
}

/// The facts of the host, of pf and of the records, each read once.
struct Evidence<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    store: Result<Store>,
    interfaces: Result<Vec<HostInterface>>,
    status: Result<Status>,
    /// By path; the main ruleset's is empty.
    rulesets: Result<Rulesets>,
    /// `None` for a host from a file.
    files: Option<ManagerFiles<'a>>,
    /// What is published; records of an earlier boot and those that cannot be read are omitted.
    records: Vec<Record>,
    judged: OnceCell<MainRuleset<'a>>,
}

impl<'a> Evidence<'a> {
    fn publications(&self) -> impl Iterator<Item = &Publication> + Clone {
        self.records.iter().flat_map(|record| &record.publications)
    }

    fn redirects(&self) -> impl Iterator<Item = (&Publication, &Redirect)> {
        self.publications().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
    }

    fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.as_deref().map_err(Error::clone)
    }

    fn surroundings(&self) -> Result<Surroundings<'a>> {
        Ok(Surroundings { host: self.host, interfaces: self.interfaces()?.into() })
    }

    /// The main ruleset, judged once for each class of mappings, whichever checks ask.
    fn judged(&self) -> Result<&MainRuleset<'a>> {
        self.judged.get_or_try_init(|| {
            let rulesets = self.rulesets.clone().unwrap_or_default();
            MainRuleset::new(self.surroundings()?, None, move || Ok(rulesets.clone()))
        })
    }

    fn main(&self) -> Option<&Conf> {
        let (_, conf) = self.rulesets.as_ref().ok()?.iter().find(|(path, _)| path.is_empty())?;
        Some(conf)
    }

    /// The first jail that publishes with such options, for messages.
    fn jail_with(&self, has: impl Fn(&Options) -> bool) -> Option<String> {
        self.publications().find(|publication| has(&publication.options)).map(|publication| publication.jail.mention())
    }
}
