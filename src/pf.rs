//! The firewall: one trait, several ways to drive pf(4).

pub(crate) mod foreign;
#[cfg(target_os = "macos")]
pub mod macos;
pub mod native;
pub mod pfctl;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, Label, Table};
use crate::net::{Family, Place, PortRange, Protocol};
use crate::rule::{Count, Rule};
use foreign::Called;

/// What an anchor holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// How many nat and rdr rules.
    pub translations: usize,
    /// What each filter rule has counted since it was loaded, in pf's order, which is that of the rules that were given to
    /// [`Firewall::replace`], each [expanded](Rule::expand).
    pub filters: Vec<Counters>,
}

impl Loaded {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.translations == 0 && self.filters.is_empty()
    }

    /// Whether it may be so many rules of publications. [`Firewall::holds`] compares the rules themselves.
    pub fn is_as_many(&self, rules: Count) -> bool {
        (self.translations, self.filters.len()) == (rules.translations, rules.filters)
    }
}

/// What pf counts for a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How often it was compared with a packet.
    pub evaluations: u64,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes, both directions.
    pub bytes: u64,
    /// States it has made.
    pub states: u64,
}

impl Counters {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Counters) -> Counters {
        Counters {
            evaluations: self.evaluations.saturating_add(other.evaluations),
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
            states: self.states.saturating_add(other.states),
        }
    }
}

/// What the main ruleset does with kport's anchors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `pfctl -s Running`
    pub enabled: bool,
    /// `nat-anchor "kport/*"` is there.
    pub nat_anchor: bool,
    /// `rdr-anchor "kport/*"` is there.
    pub rdr_anchor: bool,
    /// `anchor "kport/*"` is there.
    pub anchor: bool,
}

/// The calls of kport's anchors by `keyword` (`nat-anchor`, `rdr-anchor`, `anchor`) in a main ruleset: the number of the line,
/// counted from 0, and the conditions; empty for a call that is always made.
pub fn calls_of_kport(main: &str, keyword: &str) -> Vec<(usize, String)> {
    // what stands in the braces of an anchor without a name is called from there
    let mut caller = String::new();
    let mut found = Vec::new();
    for (at, line) in main.lines().enumerate() {
        let shown = line.split('#').next().unwrap_or_default();
        if let Some(called) = foreign::call(line, keyword)
            && Called::resolve(&caller, called).is_kport()
        {
            let rest = shown.rsplit('"').next().unwrap_or_default();
            let conditions: Vec<&str> = rest.split_whitespace().filter(|word| *word != "all").collect();
            found.push((at, conditions.join(" ")));
        }
        let shown = shown.trim();
        if shown.starts_with("anchor ") && shown.ends_with(" {") {
            caller = foreign::join(&caller, "_");
        } else if shown == "}" {
            caller = caller.rsplit_once('/').map_or("", |(outer, _)| outer).to_owned();
        }
    }
    found
}

/// A redirect that stands outside kport's anchors: in the main ruleset or in another tool's anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignRedirect {
    /// The anchor it is in; empty for the main ruleset.
    pub anchor: String,
    /// The family, if the rule names one.
    pub family: Option<Family>,
    /// The protocol, if the rule names one.
    pub protocol: Option<Protocol>,
    /// The interface or the address it is bound to; [`Place::Any`] where it names neither.
    pub place: Place,
    /// Whether it takes packets to whatever address: the place, if it is an interface, is where they come in.
    pub any_address: bool,
    /// The ports; `None` for every port.
    pub ports: Option<PortRange>,
    /// The rule as it was found, for the message.
    pub text: String,
}

/// States to end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum States {
    /// All that rules of a jail made.
    Jail {
        /// The jail's label.
        label: Label,
    },
    /// Those of one mapping: of connections that came in by these ports of the host.
    Mapping {
        /// The jail's label.
        jail: Label,
        /// The mapping's label.
        label: Label,
        /// The protocol.
        protocol: Protocol,
        /// The ports of the host.
        host: PortRange,
    },
}

/// [`Firewall::loaded`] of each of kport's anchors.
fn one_by_one<F: Firewall + ?Sized>(firewall: &F) -> Result<BTreeMap<String, Loaded>> {
    let one = |child: String| {
        let loaded = Anchor::from_child(&child).map(|anchor| firewall.loaded(&anchor));
        Ok((child, loaded.transpose()?.unwrap_or_default()))
    };
    firewall.anchors()?.into_iter().map(one).collect()
}

/// A way to drive pf. Every call is bounded by the deadline that the backend was made with.
pub trait Firewall {
    /// The word for it in `--backend`: `sim`, `pfctl`, `native`.
    fn name(&self) -> &'static str;

    /// Whether what is loaded redirects packets: not where pf is only played.
    fn redirects_packets(&self) -> bool {
        true
    }

    /// Whether the states that its rules make carry their mapping's label as well as the jail's.
    fn labels_mappings(&self) -> bool {
        true
    }

    /// Whether the main ruleset is not read again as long as it has not changed, so that a publish that changes nothing may ask
    /// for it as well.
    fn remembers(&self) -> bool {
        true
    }

    /// From now on calls may last until `deadline`, which may be sooner or later than the one before: a load leaves time for what
    /// comes after it, and a way back has time of its own.
    fn set_deadline(&self, _deadline: Deadline) {}

    /// Called once the host-wide lock is held, with its descriptor. A backend that starts a program gives it a copy: where the
    /// caller is killed, the lock lives as long as the program, so that its load cannot come after somebody else's change.
    fn locked(&self, _lock: BorrowedFd<'_>) {}

    /// Loads `rules` as all that the anchor has, in one transaction: on an error the anchor holds what it held. Only after
    /// [`Kind::System`](crate::error::Kind) and `Internal` it may be otherwise, where the transaction was cut off.
    /// No rules at all clears the anchor.
    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()>;

    /// kport's anchors that hold something, by the name below `kport/`, sorted.
    fn anchors(&self) -> Result<Vec<String>>;

    /// What an anchor holds; nothing where there is no such anchor.
    fn loaded(&self, anchor: &Anchor) -> Result<Loaded>;

    /// What all of kport's anchors hold, by their names below `kport/`. Without `counters` those may be zeros.
    fn loaded_all(&self, _counters: bool) -> Result<BTreeMap<String, Loaded>> {
        one_by_one(self)
    }

    /// Whether an anchor holds just these rules.
    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool>;

    /// Whether an anchor still holds the rules with which it was published; if so, whether pf still evaluates it. May look less
    /// closely than [`Firewall::holds`] and [`Firewall::status`] do, which are for whoever doubts.
    fn unchanged(&self, anchor: &Anchor, rules: &[Rule]) -> Result<Option<Status>> {
        if self.holds(anchor, rules)? { self.status().map(Some) } else { Ok(None) }
    }

    /// Clears an anchor, and says whether there was anything in it. [`Kind::Unavailable`] is for a pf that is not there, which
    /// holds nothing.
    fn clear(&self, anchor: &Anchor) -> Result<bool> {
        // one that holds something unknown is cleared as well
        let there = !self.loaded(anchor)?.is_empty() || self.anchors()?.iter().any(|child| child == anchor.child());
        if there {
            // pf is there: whatever the reason is, the anchor may hold what it held
            self.replace(anchor, &[]).map_err(|error| match error.kind() {
                Kind::Unavailable => Error::new(Kind::System, error.to_string()),
                _ => error,
            })?;
        }
        Ok(there)
    }

    /// Ends states, whichever backend loaded the rules that made them, and says how many. Where it cannot tell a mapping's
    /// from the jail's other ones, see [`Firewall::labels_mappings`], [`States::Mapping`] ends none.
    fn kill_states(&self, states: &[States]) -> Result<u64>;

    /// Whether pf runs and evaluates kport's anchors.
    fn status(&self) -> Result<Status>;

    /// The redirects that are not kport's: of the main ruleset, and of the anchors that are called from there.
    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>>;

    /// Whether the main ruleset has the table, or somebody has made it with pfctl(8) `-T add`. pf loads a rule that names
    /// a table which is nowhere, and matches nobody by it.
    fn has_table(&self, table: &Table) -> Result<bool>;

    /// The rulesets that pf evaluates, by path, as pf.conf(5) text: the main one, whose path is empty, with the tables and
    /// the skipped interfaces; then each anchor that is called. For `sim::World::of_pf`.
    fn rulesets(&self) -> Result<Vec<(String, String)>>;

    /// The main ruleset as pf.conf(5) text: the skipped interfaces, then translation rules, then filter rules. What every
    /// transaction asks, so that it may be what was read of a ruleset that has not changed since. The tables are left out.
    fn main_ruleset(&self) -> Result<String> {
        let why = format!("backend {} does not tell the main ruleset", self.name());
        Err(Error::new(Kind::Unsupported, why))
    }

    /// How many anchors pf has, those of others included, and how many it may have (`None` without a limit): for
    /// `kport doctor`, not for a transaction.
    fn anchors_of_all(&self) -> Result<(usize, Option<usize>)> {
        let why = format!("backend {} has no limit of anchors", self.name());
        Err(Error::new(Kind::Unsupported, why))
    }
}
