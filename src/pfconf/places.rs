//! The places of kport's calls in a ruleset: where they are, and the same ruleset with them elsewhere.

use std::collections::BTreeSet;

use super::Conf;
use super::address::{Operator, Ports};
use super::path::Called;
use super::rule::{Action, Origin, Rule, RuleKind};
use crate::name::PARENT;

fn calls_kport(rule: &Rule) -> bool {
    matches!(&rule.action, Action::Call(_, called) if Called::resolve("", called).is_kport())
}

fn is_same_statement(a: &Rule, b: &Rule) -> bool {
    a.origin.line > 0
        && a.origin.line == b.origin.line
        && a.origin.file == b.origin.file
        && a.origin.text == b.origin.text
}

impl Conf {
    /// The ruleset without its own calls of kport's anchors; those in the braces of anchors stay.
    pub fn without_kport(&self) -> Conf {
        let mut made = self.clone();
        if let Some(rules) = made.rulesets.get_mut("") {
            rules.retain(|rule| !calls_kport(rule));
        }
        made
    }

    /// How many rules of [`Conf::without_kport`] come before the first call of this kind.
    pub fn kport_at(&self, kind: RuleKind) -> Option<usize> {
        let rules = self.rules();
        let at = rules.iter().position(|rule| calls_kport(rule) && rule.action.kind() == kind)?;
        Some(rules[..at].iter().filter(|rule| !calls_kport(rule)).count())
    }

    /// The ruleset with the calls for nat, rdr and filter rules, each after this many of its rules.
    pub fn with_kport(&self, at: [usize; 3]) -> Conf {
        let mut made = self.clone();
        let rules = made.rulesets.entry(String::new()).or_default();
        // from the last one on, so that the positions of the others stay
        let mut calls: Vec<(usize, RuleKind)> = at.into_iter().zip(RuleKind::OF_KPORT).collect();
        calls.sort_by_key(|(at, _)| *at);
        for (at, kind) in calls.into_iter().rev() {
            let origin = Origin { text: format!("{} \"{PARENT}\"", kind.call()).into(), ..Origin::default() };
            rules.insert(at.min(rules.len()), Rule::new(origin, Action::Call(kind, PARENT.to_owned())));
        }
        made
    }

    /// The positions between statements at which a call of these kinds makes a difference: before each of their
    /// statements, and after the last one.
    pub fn places_for(&self, kinds: &[RuleKind]) -> Vec<usize> {
        let rules = self.rules();
        let is_of = |rule: &Rule| kinds.contains(&rule.action.kind());
        let starts = |at: usize| is_of(&rules[at]) && (at == 0 || !is_same_statement(&rules[at - 1], &rules[at]));
        let end = rules.iter().rposition(is_of).map_or(0, |last| last + 1);
        let mut places: Vec<usize> = (0..rules.len()).filter(|at| starts(*at)).collect();
        places.push(end);
        places.dedup();
        places
    }

    pub fn order_of(&self, kind: RuleKind, at: usize) -> usize {
        self.rules().iter().take(at).filter(|rule| rule.action.kind() == kind).count()
    }

    pub fn next_of(&self, kind: RuleKind, at: usize) -> Option<&Rule> {
        self.rules().iter().skip(at).find(|rule| rule.action.kind() == kind)
    }

    pub fn last_of(&self, kind: RuleKind, at: usize) -> Option<&Rule> {
        self.rules().iter().take(at).rfind(|rule| rule.action.kind() == kind)
    }

    /// Whether a rule has a probability, or a part that is unknown here.
    pub fn has_chance(&self) -> bool {
        self.rulesets.values().flatten().any(|rule| rule.when.probability.is_some() || rule.when.unknown.is_some())
    }

    /// The ports at which a condition of its rules begins to hold, or ceases to, in order: no rule distinguishes two ports
    /// between which there is none.
    pub fn port_edges(&self) -> Vec<u16> {
        let conditions = |rule: &Rule| [rule.when.from.ports, rule.when.to.ports].into_iter().flatten();
        let mut edges = BTreeSet::new();
        for Ports { operator, a, b } in self.rulesets.values().flatten().flat_map(conditions) {
            let two = matches!(operator, Operator::Between | Operator::Outside | Operator::Range);
            for port in [Some(a), two.then_some(b)].into_iter().flatten() {
                edges.extend([Some(port), port.checked_add(1)].into_iter().flatten());
            }
        }
        edges.into_iter().collect()
    }
}
