//! What pf does with one packet at one interface: state, translation, filter (pf_test and pf_test_rule in
//! sys/netpfil/pf/pf.c, pf_get_translation in pf_lb.c).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::conf::Conf;
use super::lookup::Lookup;
use super::rule::{Action, Keep, PortMatch, Rule, RuleKind, Target};
use super::state::States;
use super::{Packet, Release, TraceStep};
use crate::net::Interface;
use crate::rule::Direction;

/// pf with its rules and states.
#[derive(Clone, Debug)]
pub(super) struct Pf {
    pub enabled: bool,
    pub release: Release,
    pub main: Conf,
    /// By path, in the order in which pf walks the children of a wildcard call.
    pub anchors: BTreeMap<String, Vec<Rule>>,
    pub states: States,
}

/// A rule that was found: where, and which.
struct Found<'a> {
    anchor: &'a str,
    number: usize,
    rule: &'a Rule,
}

/// One walk through the rules of a kind.
struct Walk<'a, 's> {
    pf: &'a Pf,
    lookup: &'a Lookup,
    kind: RuleKind,
    direction: Direction,
    on: Interface,
    packet: Packet,
    found: Option<Found<'a>>,
    done: bool,
    steps: &'s mut Vec<TraceStep>,
}

impl<'a> Walk<'a, '_> {
    /// `anchor` is empty for the main ruleset.
    fn ruleset(&mut self, anchor: &'a str, rules: &'a [Rule]) {
        for (number, rule) in rules.iter().enumerate() {
            if rule.action.kind() != self.kind || !rule.takes(&self.packet, self.direction, self.on, self.lookup) {
                continue;
            }
            // a tag holds from here on, also when a later rule wins
            if let Some(tag) = &rule.tag {
                self.packet.tag = Some(tag.clone());
            }
            if let Action::Call(_, path) = &rule.action {
                self.call(path, rule.quick);
                if self.done {
                    return;
                }
                continue;
            }
            self.steps.push(TraceStep::Rule { anchor: anchor.to_owned(), text: rule.text.clone() });
            match &rule.action {
                // 15 leaves what an earlier anchor found, and goes on behind this ruleset
                Action::Nat(None) | Action::Rdr(None) if self.pf.release == Release::V15 => return,
                Action::Nat(None) | Action::Rdr(None) => {
                    (self.found, self.done) = (None, true);
                    return;
                }
                Action::Nat(_) | Action::Rdr(_) => {
                    self.found = Some(Found { anchor, number, rule });
                    // 14: the first match of all. 15: the first of its ruleset, and a later ruleset may still match
                    self.done = self.pf.release == Release::V14;
                    return;
                }
                Action::Pass | Action::Block | Action::Call(..) => {
                    self.found = Some(Found { anchor, number, rule });
                    if rule.quick {
                        self.done = true;
                        return;
                    }
                }
            }
        }
    }

    fn call(&mut self, path: &'a str, quick: bool) {
        let pf = self.pf;
        let before = self.found.as_ref().map(|found| (found.anchor, found.number));
        match path.strip_suffix('*') {
            None => {
                if let Some((path, rules)) = pf.anchors.get_key_value(path) {
                    self.ruleset(path, rules);
                }
            }
            Some(parent) => {
                // the direct children only, in order; not the parent's own rules
                let children = pf.anchors.iter().filter(|(path, _)| {
                    path.strip_prefix(parent).is_some_and(|name| !name.is_empty() && !name.contains('/'))
                });
                for (path, rules) in children {
                    self.ruleset(path, rules);
                    // 15: a quick call with a wildcard ends behind its first child, whether that matched or not
                    if self.done || (quick && pf.release == Release::V15) {
                        self.done = self.done || quick;
                        return;
                    }
                }
            }
        }
        let matched = self.found.as_ref().map(|found| (found.anchor, found.number)) != before;
        self.done = self.done || (quick && matched);
    }
}

impl Pf {
    fn walk<'a>(
        &'a self,
        kind: RuleKind,
        packet: &Packet,
        direction: Direction,
        on: Interface,
        lookup: &'a Lookup,
        steps: &mut Vec<TraceStep>,
    ) -> (Option<Found<'a>>, Packet) {
        let packet = packet.clone();
        let mut walk = Walk { pf: self, lookup, kind, direction, on, packet, found: None, done: false, steps };
        walk.ruleset("", &self.main.rules);
        (walk.found, walk.packet)
    }

    /// Whether the packet goes on, and as what.
    pub(super) fn test(
        &mut self,
        packet: &mut Packet,
        direction: Direction,
        on: Interface,
        lookup: &Lookup,
        steps: &mut Vec<TraceStep>,
    ) -> bool {
        steps.push(TraceStep::Hook { direction, on });
        if !self.enabled {
            steps.push(TraceStep::Note("pf is disabled: not looked at".to_owned()));
            return true;
        }
        if self.main.skip.iter().any(|name| lookup.is_in(on, *name)) {
            steps.push(TraceStep::Note("set skip: not looked at".to_owned()));
            return true;
        }
        let before = packet.clone();
        if let Some(state) = self.states.find(packet, direction, on) {
            steps.push(TraceStep::State { anchor: state.origin.0.clone(), text: state.rule.clone() });
            note_translation(&before, packet, steps);
            return true;
        }
        let kind = if direction == Direction::In { RuleKind::Rdr } else { RuleKind::Nat };
        let (translation, tagged) = self.walk(kind, packet, direction, on, lookup, steps);
        packet.tag = tagged.tag;
        let mut passed_by_rdr = None;
        let translated = translation.is_some();
        if let Some(found) = translation {
            let done = match &found.rule.action {
                Action::Rdr(Some(target)) => redirect(packet, target, found.rule, lookup),
                Action::Nat(Some(pool)) => pool.pick(packet.family(), lookup).and_then(|address| {
                    let port = self.states.free_port(packet, address)?;
                    packet.from = SocketAddr::new(address, port);
                    Some(())
                }),
                _ => Some(()),
            };
            if done.is_none() {
                steps.push(TraceStep::Note("no address to translate to".to_owned()));
                // 14 goes on untranslated (pf_get_translation returns no rule), 15 drops (PFRES_MAPFAILED)
                if self.release == Release::V15 {
                    return false;
                }
            }
            note_translation(&before, packet, steps);
            if matches!(&found.rule.action, Action::Rdr(Some(Target { pass: true, .. }))) {
                let origin = (found.anchor.to_owned(), found.number);
                passed_by_rdr = Some((origin, found.rule.text.clone()));
            }
        }
        let (bound, origin, keep) = if let Some((origin, text)) = passed_by_rdr {
            (self.main.if_bound, (origin, text), Some(Keep::default()))
        } else {
            let (filter, tagged) = self.walk(RuleKind::Filter, packet, direction, on, lookup, steps);
            packet.tag = tagged.tag;
            match filter {
                Some(Found { rule: Rule { action: Action::Block, .. }, .. }) => {
                    steps.push(TraceStep::Verdict("blocked".to_owned()));
                    return false;
                }
                Some(Found { anchor, number, rule }) => {
                    let bound = rule.keep.is_some_and(|keep| keep.if_bound);
                    (bound, ((anchor.to_owned(), number), rule.text.clone()), rule.keep)
                }
                None => (false, ((String::new(), usize::MAX), "no rule".to_owned()), None),
            }
        };
        if keep.is_some() || translated {
            let options = keep.unwrap_or_default().options;
            let made = self.states.insert((&before, packet), direction, bound.then_some(on), origin, &options);
            if let Err(limit) = made {
                steps.push(TraceStep::Verdict(format!("blocked: {limit} is reached")));
                return false;
            }
        }
        steps.push(TraceStep::Verdict("passed".to_owned()));
        true
    }
}

/// The destination of an rdr rule; a range keeps its offset (pf_get_transaddr in pf_lb.c).
fn redirect(packet: &mut Packet, target: &Target, rule: &Rule, lookup: &Lookup) -> Option<()> {
    let address = target.address.pick(packet.family(), lookup)?;
    let port = match (target.ports, rule.to.ports) {
        (None, _) => packet.to.port(),
        (Some(ports), Some(PortMatch::In(first, _))) => {
            ports.first() + (packet.to.port().wrapping_sub(first)) % ports.count()
        }
        (Some(ports), _) => ports.first(),
    };
    packet.to = SocketAddr::new(address, port);
    Some(())
}

fn note_translation(before: &Packet, after: &Packet, steps: &mut Vec<TraceStep>) {
    if (before.from, before.to) != (after.from, after.to) {
        steps.push(TraceStep::Translated(after.clone()));
    }
}
