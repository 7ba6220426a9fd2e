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
    pub(crate) fn without_kport(&self) -> Conf {
        let mut made = self.clone();
        if let Some(rules) = made.rulesets.get_mut("") {
            rules.retain(|rule| !calls_kport(rule));
        }
        made
    }

    /// How many rules of [`Conf::without_kport`] come before the first call of this kind.
    pub(crate) fn kport_at(&self, kind: RuleKind) -> Option<usize> {
        let rules = self.rules();
        let at = rules.iter().position(|rule| calls_kport(rule) && rule.action.kind() == kind)?;
        Some(rules[..at].iter().filter(|rule| !calls_kport(rule)).count())
    }

    /// The ruleset with the calls for nat, rdr and filter rules, each after this many of its rules.
    pub(crate) fn with_kport(&self, at: [usize; 3]) -> Conf {
        let mut made = self.clone();
        let rules = made.rulesets.entry(String::new()).or_default();
        let kinds = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter];
        // from the last one on, so that the positions of the others stay
        let mut calls: Vec<(usize, RuleKind)> = at.into_iter().zip(kinds).collect();
        calls.sort_by_key(|(at, _)| *at);
        for (at, kind) in calls.into_iter().rev() {
            let origin = Origin { text: format!("{} \"{PARENT}\"", kind.call()).into(), ..Origin::default() };
            rules.insert(at.min(rules.len()), Rule::new(origin, Action::Call(kind, PARENT.to_owned())));
        }
        made
    }

    /// The positions between statements at which a call of these kinds makes a difference: before each of their
    /// statements, and after the last one.
    pub(crate) fn places_for(&self, kinds: &[RuleKind]) -> Vec<usize> {
        let rules = self.rules();
        let is_of = |rule: &Rule| kinds.contains(&rule.action.kind());
        let starts = |at: usize| is_of(&rules[at]) && (at == 0 || !is_same_statement(&rules[at - 1], &rules[at]));
        let end = rules.iter().rposition(is_of).map_or(0, |last| last + 1);
        let mut places: Vec<usize> = (0..rules.len()).filter(|at| starts(*at)).collect();
        places.push(end);
        places.dedup();
        places
    }

    /// How many rules of a kind come before a position.
    pub(crate) fn order_of(&self, kind: RuleKind, at: usize) -> usize {
        self.rules().iter().take(at).filter(|rule| rule.action.kind() == kind).count()
    }

    /// The first rule of a kind after a position.
    pub(crate) fn next_of(&self, kind: RuleKind, at: usize) -> Option<&Rule> {
        self.rules().iter().skip(at).find(|rule| rule.action.kind() == kind)
    }

    /// The last rule of a kind before a position.
    pub(crate) fn last_of(&self, kind: RuleKind, at: usize) -> Option<&Rule> {
        self.rules().iter().take(at).rfind(|rule| rule.action.kind() == kind)
    }

    /// Whether a rule has a probability, or a part that is unknown here.
    pub(crate) fn has_chance(&self) -> bool {
        self.rulesets.values().flatten().any(|rule| rule.when.probability.is_some() || rule.when.unknown.is_some())
    }

    /// The ports at which a condition of its rules begins to hold, or ceases to, in order: no rule distinguishes two ports
    /// between which there is none.
    pub(crate) fn port_edges(&self) -> Vec<u16> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Conf {
        text.parse().unwrap()
    }

    #[test]
    fn the_calls_are_found_and_moved() {
        let text = "rdr on em0 proto tcp to port 1 -> 10.0.0.9\nrdr-anchor \"kport/*\"\nblock in all\nanchor \"kport/*\"\npass out\n";
        let main = conf(text);
        let base = main.without_kport();
        assert_eq!((base.rules().len(), main.rules().len()), (3, 5));
        let kinds = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter];
        assert_eq!(kinds.map(|kind| main.kport_at(kind)), [None, Some(1), Some(2)]);
        for at in [[0, 0, 1], [1, 1, 3], [1, 0, 2]] {
            let made = base.with_kport(at);
            assert_eq!(made.without_kport(), base);
            for (kind, at) in kinds.into_iter().zip(at) {
                let order = |conf: &Conf, at| conf.order_of(kind, at);
                assert_eq!(made.kport_at(kind).map(|at| order(&base, at)), Some(order(&base, at)), "{kind:?}");
            }
        }
        assert_eq!(base.places_for(&[RuleKind::Filter]), [1, 2, 3]);
        assert_eq!(base.places_for(&[RuleKind::Nat, RuleKind::Rdr]), [0, 1]);
        assert_eq!(conf("").places_for(&[RuleKind::Filter]), [0]);
        // a list is one statement
        assert_eq!(
            conf("block in on { em0 em1 }\nantispoof for em0\npass\n").places_for(&[RuleKind::Filter]),
            [0, 2, 4, 5]
        );
    }

    #[test]
    fn ports_that_no_rule_distinguishes() {
        let edges = conf("pass proto tcp to port { 80 8000:8010 }\npass proto udp from port > 1023\n").port_edges();
        assert_eq!(edges, [80, 81, 1023, 1024, 8000, 8001, 8010, 8011]);
        assert_eq!(conf("pass proto tcp to port 65535\n").port_edges(), [65535]);
    }
}
