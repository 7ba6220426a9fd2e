//! What pf has loaded: rules by path, and its states.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::packet::Release;
use super::state::States;
use crate::pfconf::rule::{Rule, RuleKind};

/// The rules of one anchor, or of the main ruleset, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Ruleset([Vec<Rule>; 4]);

impl Ruleset {
    pub(super) fn new(rules: Vec<Rule>) -> Ruleset {
        let mut made = Ruleset::default();
        for rule in rules {
            made.0[rule.action.kind() as usize].push(rule);
        }
        made
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().flatten()
    }

    pub(super) fn of_mut(&mut self, kind: RuleKind) -> &mut [Rule] {
        &mut self.0[kind as usize]
    }

    pub(super) fn of(&self, kind: RuleKind) -> &[Rule] {
        &self.0[kind as usize]
    }
}

/// pf with its rules and states.
#[derive(Clone, Debug)]
pub(super) struct Pf {
    pub enabled: bool,
    pub release: Release,
    /// By path, the main one's empty, in the order in which pf walks the children of a wildcard call.
    pub rulesets: BTreeMap<String, Arc<Ruleset>>,
    pub skip: Vec<String>,
    pub syncookies: bool,
    /// `net.pf.default_to_drop`: the default rule, which decides about a packet that no rule matches, blocks.
    pub default_to_drop: bool,
    pub states: States,
    /// Which of the conditions that cannot be decided hold, by what they depend on; `None` if both possibilities are
    /// followed.
    pub supposed: Option<Vec<String>>,
}
