//! The simulator, with hooks around its calls: to make them slow or fail, to count them, or to kill the process.

use std::sync::Arc;

use kport::deadline::Deadline;
use kport::error::Result;
use kport::name::{Anchor, Table};
use kport::pf::files::Sim;
use kport::pf::{Counters, Firewall, ForeignRedirect, Loaded, Rulesets, States, Status};
use kport::pfconf::Conf;
use kport::rule::Rule;

/// A call, with what tests check.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    SetDeadline(Deadline),
    Replace,
    Loaded(&'a Anchor),
    KillStates(&'a [States]),
    Status,
    ForeignRedirects,
    HasTable,
    /// The other calls.
    Other,
}

/// Before or after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An error here is returned by the call, which has no effect.
    Before,
    /// An error here is returned by the call, which had its effect.
    After,
}

/// Calls the simulator, and `around` before and after each call.
pub struct Around<F> {
    pub sim: Sim,
    pub around: F,
}

impl<F: Fn(Call<'_>, Moment) -> Result<()>> Around<F> {
    fn call<T>(&self, call: Call<'_>, act: impl FnOnce(&Sim) -> Result<T>) -> Result<T> {
        (self.around)(call, Moment::Before)?;
        let done = act(&self.sim);
        (self.around)(call, Moment::After)?;
        done
    }
}

impl<F: Fn(Call<'_>, Moment) -> Result<()>> Firewall for Around<F> {
    fn name(&self) -> &'static str {
        self.sim.name()
    }
    fn redirects_packets(&self) -> bool {
        self.sim.redirects_packets()
    }
    fn set_deadline(&self, deadline: Deadline) {
        let set = |sim: &Sim| {
            sim.set_deadline(deadline);
            Ok(())
        };
        self.call(Call::SetDeadline(deadline), set).expect("a deadline is set in any case");
    }
    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        self.call(Call::Replace, |sim| sim.replace(anchor, rules))
    }
    fn clear(&self, anchor: &Anchor) -> Result<bool> {
        // as calls of their own, so that each of them can fail
        let there =
            !self.loaded(anchor, false)?.is_empty() || self.anchors()?.iter().any(|name| name == anchor.child());
        if there {
            self.replace(anchor, &[])?;
        }
        Ok(there)
    }
    fn anchors(&self) -> Result<Vec<String>> {
        self.call(Call::Other, Sim::anchors)
    }
    fn loaded(&self, anchor: &Anchor, counters: bool) -> Result<Loaded> {
        self.call(Call::Loaded(anchor), |sim| sim.loaded(anchor, counters))
    }
    fn filter_counters(&self, anchor: &Anchor) -> Result<Vec<Counters>> {
        self.call(Call::Other, |sim| sim.filter_counters(anchor))
    }
    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.call(Call::Other, |sim| sim.holds(anchor, rules))
    }
    fn kill_states(&self, states: &[States]) -> Result<u64> {
        self.call(Call::KillStates(states), |sim| sim.kill_states(states))
    }
    fn status(&self) -> Result<Status> {
        self.call(Call::Status, Sim::status)
    }
    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.call(Call::ForeignRedirects, Sim::foreign_redirects)
    }
    fn has_table(&self, table: &Table) -> Result<bool> {
        self.call(Call::HasTable, |sim| sim.has_table(table))
    }
    fn rulesets(&self, own: bool) -> Result<Rulesets> {
        self.call(Call::Other, |sim| sim.rulesets(own))
    }
    fn main_ruleset(&self) -> Result<Arc<Conf>> {
        self.call(Call::Other, Sim::main_ruleset)
    }
}
