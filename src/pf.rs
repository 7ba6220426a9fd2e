//! The firewall: one trait, and several drivers of pf(4).

pub mod files;
pub(crate) mod foreign;
#[cfg(target_os = "macos")]
pub mod macos;
// off FreeBSD, only tests call what drives the device
#[cfg_attr(not(any(target_os = "freebsd", feature = "internals")), allow(dead_code))]
pub mod native;
pub mod pfctl;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::calls::{Change, Entry};
use crate::deadline::Deadline;
use crate::error::{Result, Setting, error};
use crate::name::{Anchor, Label, Table};
use crate::net::{Family, Interface, Place, PortRange, Protocol};
use crate::pfconf::Conf;
pub use crate::rule::Counters;
use crate::rule::{Count, Rule};
pub use files::WithConf;
pub use foreign::of_rulesets as redirects_of;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// What each nat and rdr rule has counted since it was loaded, in pf's order: that of the rules given to
    /// [`Firewall::replace`], each [expanded](Rule::expand).
    pub translations: Vec<Counters>,
    /// The number of filter rules; for what they have counted, see [`Firewall::filter_counters`].
    pub filters: usize,
}

impl Loaded {
    pub fn uncounted(rules: Count) -> Loaded {
        Loaded { translations: vec![Counters::default(); rules.translations], filters: rules.filters }
    }

    pub fn is_empty(&self) -> bool {
        self.translations.is_empty() && self.filters == 0
    }

    /// Whether it has this number of rules. [`Firewall::holds`] compares the rules themselves.
    pub fn is_as_many(&self, rules: Count) -> bool {
        (self.translations.len(), self.filters) == (rules.translations, rules.filters)
    }
}

/// Whether the main ruleset evaluates kport's anchors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `pfctl -s Running`
    pub enabled: bool,
    // whether it has the calls of `"kport"`, or `"kport/*"`
    pub nat_anchor: bool,
    pub rdr_anchor: bool,
    pub anchor: bool,
}

impl Status {
    pub(crate) fn of(enabled: bool, main: &Conf) -> Status {
        let [nat_anchor, rdr_anchor, anchor] = main.calls_kport();
        Status { enabled, nat_anchor, rdr_anchor, anchor }
    }
}

/// A redirect outside kport's anchors: in the main ruleset or in another tool's anchor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignRedirect {
    /// The anchor it is in; empty for the main ruleset.
    pub anchor: String,
    pub family: Option<Family>,
    pub protocol: Option<Protocol>,
    /// The interface or the address that it is for; [`Place::Any`] if it names neither.
    pub place: Place,
    /// Whether it matches any destination address: then a place that is an interface is where packets come in.
    pub any_address: bool,
    /// The ports; `None` for every port.
    pub ports: Option<PortRange>,
    /// The rule as pf prints it, for the message.
    pub text: String,
}

/// Rulesets by path from the root. The main one, with the tables and the skipped interfaces, comes first, with an empty
/// path; then each anchor that is called.
pub type Rulesets = Vec<(String, Arc<Conf>)>;

/// The states for which everything holds that is given here.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct States {
    /// Of the rules of this jail. Without it, of connections whose destination no rule has replaced: not those of a redirect,
    /// whoever has made it.
    pub jail: Option<Label>,
    /// Of this mapping of the jail, for a backend that [labels](Firewall::labels_mappings) them.
    pub mapping: Option<Label>,
    /// Of connections to these ports, as they were before the redirect.
    pub ports: Option<(Protocol, PortRange)>,
    /// The address that a connection is to, before the redirect.
    pub to: Option<Hosts>,
    pub from: Option<Hosts>,
    /// The interface where the state was created.
    pub on: Option<Interface>,
    /// Each of them has one of these addresses: where the rules lead to, or that of the host. Empty if these are not known.
    pub at: Vec<IpAddr>,
}

/// The addresses of a network, or the others of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hosts {
    pub not: bool,
    pub network: IpNet,
}

impl Hosts {
    pub fn of(network: impl Into<IpNet>) -> Hosts {
        Hosts { not: false, network: network.into() }
    }

    pub fn except(network: impl Into<IpNet>) -> Hosts {
        Hosts { not: true, network: network.into() }
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        Family::of(address) == Family::of(self.network.addr()) && self.network.contains(&address) != self.not
    }
}

fn one_by_one<F: Firewall + ?Sized>(firewall: &F, counters: bool) -> Result<BTreeMap<String, Loaded>> {
    let one = |child: String| {
        let loaded = Anchor::from_child(&child).map(|anchor| firewall.loaded(&anchor, counters));
        Ok((child, loaded.transpose()?.unwrap_or_default()))
    };
    firewall.anchors()?.into_iter().map(one).collect()
}

fn compare_one_by_one<F: Firewall + ?Sized>(
    firewall: &F, wanted: &[(Anchor, Vec<Rule>)],
) -> Result<(Vec<bool>, Vec<String>)> {
    let holds = wanted.iter().map(|(anchor, rules)| firewall.holds(anchor, rules)).collect::<Result<_>>()?;
    Ok((holds, firewall.anchors()?))
}

pub type AllCalls<'a> = dyn FnMut() -> Result<Vec<Entry>> + 'a;

fn unsupported<T>(backend: &str, what: &str) -> Result<T> {
    Err(error!(Unsupported, "backend {backend} does not {what}").remedy("use", Setting::Backend))
}

/// A driver of pf. No call lasts longer than the deadline that the backend was created with. What a driver cannot do is
/// [`Kind::Unsupported`](crate::error::Kind).
pub trait Firewall {
    /// The name of the backend in `--backend`: `sim`, `pfctl`, `native`.
    fn name(&self) -> &'static str;

    /// Whether loaded rules redirect packets; false for the simulator.
    fn redirects_packets(&self) -> bool {
        true
    }

    /// Whether it runs pfctl(8), which costs far more than anything else: so a publish that changes nothing cannot afford to read
    /// the main ruleset.
    fn runs_pfctl(&self) -> bool {
        false
    }

    /// Whether the states of its rules carry the mapping's label, too.
    fn labels_mappings(&self) -> bool {
        true
    }

    /// Sets the deadline of later calls: so that a load leaves time for the steps after it, and undoing has time of its own.
    fn set_deadline(&self, _deadline: Deadline) {}

    /// Called when the host-wide lock is taken. A backend that runs a program passes it a copy of the descriptor: if the caller is
    /// killed, the program still holds the lock, so that its load cannot come after a later change.
    fn locked(&self, _lock: BorrowedFd<'_>) {}

    /// Loads `rules` in place of the anchor's rules, in one transaction: after an error the anchor is unchanged. Only
    /// after [`Kind::System`](crate::error::Kind) and `Internal` it may have changed, if the transaction was cut off.
    /// An empty list clears the anchor.
    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()>;

    /// Changes what the anchor `kport` calls, and returns whether pf was changed. `all` returns what is to be called after the change;
    /// it is asked if pf does not have what this driver has left there, and without a change, which makes pf's calls exactly those.
    /// By default nothing is called, as for a driver without pf's anchors.
    fn call(&self, _change: Option<&Change>, _all: &mut AllCalls<'_>) -> Result<bool> {
        Ok(false)
    }

    /// What the anchor `kport` calls, at least of the keys of `among`; `None` if that is always what its anchors need. Without
    /// `thorough` it may be what this driver knows to be there.
    fn called(&self, _among: Option<&[Entry]>, _thorough: bool) -> Result<Option<Vec<Entry>>> {
        Ok(None)
    }

    /// The names below `kport/` of kport's anchors that are not empty, sorted. By pfctl(8) also of those that were emptied some
    /// seconds ago, or whose load was cut off: [`Firewall::loaded`] tells.
    fn anchors(&self) -> Result<Vec<String>> {
        unsupported(self.name(), "list anchors")
    }

    /// The contents of an anchor; empty if there is no such anchor. Without `counters` these may be zeros.
    fn loaded(&self, _anchor: &Anchor, _counters: bool) -> Result<Loaded> {
        unsupported(self.name(), "read rules")
    }

    /// What each filter rule of an anchor has counted since it was loaded, in pf's order.
    fn filter_counters(&self, _anchor: &Anchor) -> Result<Vec<Counters>> {
        unsupported(self.name(), "read rules")
    }

    /// The contents of all of kport's anchors, by their names below `kport/`. Without `counters` these may be zeros. A backend
    /// that has to find them one by one looks at those that are `recorded` first.
    fn loaded_all(&self, _recorded: &[Anchor], counters: bool) -> Result<BTreeMap<String, Loaded>> {
        one_by_one(self, counters)
    }

    fn holds(&self, _anchor: &Anchor, _rules: &[Rule]) -> Result<bool> {
        unsupported(self.name(), "read rules")
    }

    /// Whether each of these anchors holds exactly these rules, and which [anchors](Firewall::anchors) there are.
    fn compare(&self, wanted: &[(Anchor, Vec<Rule>)]) -> Result<(Vec<bool>, Vec<String>)> {
        compare_one_by_one(self, wanted)
    }

    /// Whether an anchor still holds the rules with which it was published. May check less than [`Firewall::holds`] does.
    fn still_holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.holds(anchor, rules)
    }

    /// As [`Firewall::still_holds`]; if so, whether pf still evaluates it. May check less than [`Firewall::status`] does.
    fn unchanged(&self, anchor: &Anchor, rules: &[Rule]) -> Result<Option<Status>> {
        // the status first: it tells which run of pf it is
        let status = self.status()?;
        Ok(self.still_holds(anchor, rules)?.then_some(status))
    }

    /// Clears an anchor, and returns whether it held anything. [`Kind::Unavailable`] means that there is no pf, and so
    /// no rules.
    fn clear(&self, _anchor: &Anchor) -> Result<bool> {
        unsupported(self.name(), "read rules")
    }

    /// Kills states, whichever backend loaded their rules, and returns how many. If a mapping's states cannot be told
    /// from the jail's other ones, see [`Firewall::labels_mappings`], none of them is killed.
    fn kill_states(&self, _states: &[States]) -> Result<u64> {
        unsupported(self.name(), "end states")
    }

    /// Whether pf runs and evaluates kport's anchors. By default it runs, as for a driver whose main ruleset is a file.
    fn status(&self) -> Result<Status> {
        Ok(Status::of(true, &*self.main_ruleset()?))
    }

    /// In the main ruleset, and in the anchors that it calls.
    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        Ok(foreign::of_conf(&*self.main_ruleset()?))
    }

    /// Also one that was created with pfctl(8) `-T add`. pf loads a rule with a table that does not exist; it then matches no packet.
    fn has_table(&self, table: &Table) -> Result<bool> {
        Ok(self.main_ruleset()?.has_table(table))
    }

    /// The rulesets that pf evaluates, for [`World::of_pf`](crate::trace::World::of_pf). If they are not needed, kport's `own`
    /// anchors may be left out: they are many.
    fn rulesets(&self, _own: bool) -> Result<Rulesets> {
        unsupported(self.name(), "read rules")
    }

    /// The main ruleset: the skipped interfaces, translation and filter rules, without the tables. Each transaction
    /// uses it, so the result may come from an earlier call if the ruleset has not changed since.
    fn main_ruleset(&self) -> Result<Arc<Conf>> {
        unsupported(self.name(), "read the main ruleset")
    }

    /// What [`Firewall::keep`] was given for the main ruleset and the settings that pf has now; `None` if they have changed
    /// since, and for a backend that keeps nothing.
    fn kept(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Keeps what was found about the main ruleset until it or its settings change. If that is impossible, it is found again.
    fn keep(&self, _found: &str) {}
}
