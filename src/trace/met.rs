//! The rules that match a packet, one by one, without states and without a path: for what is to be known of a ruleset rather
//! than of a packet.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::choice::Choices;
use super::loaded::Ruleset;
use super::matching::Hook;
use super::packet::Packet;
use super::walk::{Branch, Met, Walk};
use super::world::World;
use crate::net::{Direction, Interface, PerFamily};
use crate::pfconf::Conf;
use crate::pfconf::rule::{Rule, RuleKind};

/// Where pf evaluates a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub direction: Direction,
    pub on: Interface,
    /// Where it came in.
    pub received_on: Option<Interface>,
}

impl World {
    /// Uses the default routes as they are now.
    pub(crate) fn settle(&mut self) {
        self.lookup.gateways = PerFamily { inet: self.gateway.inet, inet6: self.gateway.inet6 };
    }

    /// From now on the conditions that cannot be decided hold in a trace if they are `held`, and else do not. `None`: both
    /// possibilities are followed.
    pub(crate) fn suppose(&mut self, held: Option<Vec<String>>) {
        self.pf.supposed = held;
    }

    /// Loads rules into an anchor, in addition to its rules.
    pub(crate) fn load_more(&mut self, path: &str, more: &Conf) {
        let mut all: Vec<Rule> =
            self.pf.rulesets.get(path).into_iter().flat_map(|rules| rules.all()).cloned().collect();
        all.extend_from_slice(more.rules());
        self.pf.rulesets.insert(path.to_owned(), Arc::new(Ruleset::new(all)));
    }

    /// A rule of the main ruleset, by its number among those of its kind.
    pub(crate) fn main_rule(&self, kind: RuleKind, number: usize) -> Option<&Rule> {
        self.pf.rulesets.get("")?.of(kind).get(number)
    }

    /// Removes all states.
    pub(crate) fn forget(&mut self) {
        self.pf.states = Default::default();
    }

    /// The rules of a kind that match a packet as the first of a connection, in the order of evaluation: of filter rules
    /// the last one decides. None on an interface that pf skips. The packet has the `tag`. The conditions that cannot be decided hold if they are
    /// `held`, and else do not; they are returned, too. [`World::settle`] must be called before.
    ///
    /// # Errors
    ///
    /// Why the evaluation cannot be followed.
    pub(crate) fn met(
        &self,
        kind: RuleKind,
        at: At,
        packet: &Packet,
        (tag, held): (Option<&str>, &[String]),
    ) -> Result<(Vec<Met<'_>>, BTreeSet<String>), String> {
        if self.pf.skip.iter().any(|name| self.lookup.is_in(at.on, name)) {
            return Ok(Default::default());
        }
        let Choices { mut looked, mut gave_up, .. } = Choices::default();
        let mut walk = Walk {
            pf: &self.pf,
            hook: Hook { direction: at.direction, on: at.on, lookup: &self.lookup },
            kind,
            known: &[],
            settled: &[],
            looked: &mut looked,
            gave_up: &mut gave_up,
            supposed: Some(held),
            undecided: BTreeSet::new(),
        };
        let packet = Packet { received_on: at.received_on, ..packet.clone() };
        let met = walk.one_by_one(Branch::new(packet, tag.map(str::to_owned), false));
        let undecided = walk.undecided;
        gave_up.map_or(Ok((met, undecided)), Err)
    }
}
