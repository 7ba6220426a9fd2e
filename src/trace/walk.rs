//! Walks through the rules of one kind, with all anchors. If a rule cannot be decided, both possibilities are followed:
//! each is a [`Branch`]. Branches with the same end are merged, so that a rule that changes nothing does not make the
//! result depend on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::loaded::{Pf, Ruleset};
use super::matching::{Assumed, Hook};
use super::packet::{Packet, Release};
use super::steps::{Looked, TraceStep};
use super::translate::{self, Context, Untranslated};
use crate::pfconf::path::{self, Called};
use crate::pfconf::rule::{Action, Rule, RuleKind};

/// The maximum depth of anchors (PF_ANCHOR_STACK_MAX in sys/net/pfvar.h).
const DEEPEST: usize = 64;
/// The maximum number of branches that are followed at once.
const MOST_BRANCHES: usize = 64;
/// The maximum number of rules that one packet is compared with.
const MOST_RULES: u64 = 10_000_000;

/// A rule that was found, and its ruleset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub anchor: &'a str,
    pub number: usize,
    pub rule: &'a Rule,
}

impl Found<'_> {
    /// Whether both do the same to the packet.
    fn does_as(&self, other: &Found<'_>) -> bool {
        let (a, b) = (self.rule, other.rule);
        let limited = a.effects.keep.is_some_and(|keep| keep.is_limited());
        let ports = |rule: &Rule| rule.when.to.ports.map(|ports| ports.a);
        let binat = |rule: &Rule| matches!(rule.action, Action::Translate { kind: RuleKind::Binat, .. });
        a.action == b.action
            && a.effects == b.effects
            && (!limited || self.is(other))
            && (a.effects.rdr_to.is_none() && !matches!(a.action, Action::Translate { .. }) || ports(a) == ports(b))
            && (!binat(a) || a.when.from == b.when.from)
    }

    fn is(&self, other: &Found<'_>) -> bool {
        self.number == other.number && self.anchor == other.anchor
    }
}

/// A rule that matches a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Met<'a> {
    /// The rule of the main ruleset by which it was reached, by its number among those of its kind: its own, or that of
    /// the call of its anchor.
    pub at: usize,
    /// Its anchor; empty for the main ruleset.
    pub anchor: &'a str,
    /// Its number there.
    pub number: usize,
    /// The rule.
    pub rule: &'a Rule,
    /// Whether it decides, unless a later one does. A quick call of an anchor may end the evaluation without that.
    pub decides: bool,
    /// Whether it gives the packet another tag.
    pub tags: bool,
    /// No later rule is evaluated.
    pub last: bool,
}

impl Met<'_> {
    /// Whether it is the same rule.
    pub(crate) fn is(&self, other: &Met<'_>) -> bool {
        (self.at, self.anchor, self.number) == (other.at, other.anchor, other.number)
    }

    /// Whether it blocks.
    pub(crate) fn blocks(&self) -> bool {
        self.rule.action == Action::Block
    }

    /// Whether it translates the packet.
    pub(crate) fn translates(&self) -> bool {
        matches!(self.rule.action, Action::Translate { pool: Some(_), .. })
    }
}

/// How a branch continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    /// After this ruleset.
    EndOfRuleset,
    Over,
}

/// One path through the rules.
#[derive(Clone, Debug)]
pub(super) struct Branch<'a> {
    pub packet: Packet,
    pub tag: Option<String>,
    pub found: Option<Found<'a>>,
    /// A match rule, or an earlier translation rule, has translated the packet.
    pub translated: bool,
    /// pf drops the packet for this reason.
    pub failed: Option<String>,
    pub rtable: Option<u32>,
    pub max_pkt_size: u16,
    /// The assumptions of this branch.
    pub assumed: Vec<Assumed>,
    pub steps: Vec<TraceStep>,
    flow: Flow,
    /// 15: a quick anchor was entered (test_status of pf_match_rule).
    quick: bool,
}

impl<'a> Branch<'a> {
    pub(super) fn new(packet: Packet, tag: Option<String>, translated: bool) -> Branch<'a> {
        Branch {
            packet,
            tag,
            found: None,
            translated,
            failed: None,
            rtable: None,
            max_pkt_size: 0,
            assumed: vec![],
            steps: vec![],
            flow: Flow::On,
            quick: false,
        }
    }

    /// Whether they differ only in their assumptions.
    fn ends_as(&self, other: &Branch<'a>) -> bool {
        let found = match (&self.found, &other.found) {
            (None, None) => true,
            (Some(a), Some(b)) => a.does_as(b),
            _ => false,
        };
        found
            && self.flow == other.flow
            && self.quick == other.quick
            && self.tag == other.tag
            && self.packet == other.packet
            && self.translated == other.translated
            && self.failed == other.failed
            && self.rtable == other.rtable
            && self.max_pkt_size == other.max_pkt_size
    }

    /// Merges the other branch: an assumption that only one of them makes is dropped.
    fn absorb(&mut self, other: &Branch<'a>) {
        let differs = |a: &Assumed| other.assumed.iter().any(|b| a.what == b.what && a.answer != b.answer);
        self.assumed.retain(|a| !differs(a));
    }

    fn assumes(&self, what: &str) -> Option<usize> {
        self.assumed.iter().find(|assumed| assumed.what == what).map(|assumed| assumed.answer)
    }
}

/// A walk through the rulesets.
pub(super) struct Walk<'a, 'r> {
    pub pf: &'a Pf,
    pub hook: Hook<'a>,
    pub kind: RuleKind,
    /// Addresses in use, for pools.
    pub known: &'a [std::net::IpAddr],
    /// Assumptions about the same packet at an earlier interface.
    pub settled: &'r [Assumed],
    pub looked: &'r mut Looked,
    /// Set if there is too much to follow.
    pub gave_up: &'r mut Option<String>,
    /// Which of the conditions that cannot be decided hold, by what they depend on; `None` if both possibilities are
    /// followed.
    pub supposed: Option<&'r [String]>,
    /// What was supposed.
    pub undecided: BTreeSet<String>,
}

impl<'a> Walk<'a, '_> {
    /// Walks through the main ruleset.
    pub(super) fn run(&mut self, start: Branch<'a>) -> Vec<Branch<'a>> {
        match self.pf.rulesets.get_key_value("") {
            Some((path, main)) => self.ruleset(path, main, vec![start], 0),
            None => vec![start],
        }
    }

    /// The rules that match, one rule of the main ruleset after the other. What cannot be decided must be
    /// [supposed](Walk::supposed), so that there is one branch; of the addresses of a pool the first one is used.
    pub(super) fn one_by_one(&mut self, start: Branch<'a>) -> Vec<Met<'a>> {
        let Some((path, main)) = self.pf.rulesets.get_key_value("") else { return vec![] };
        let mut met = vec![];
        let mut branch = start;
        for (at, rule) in main.of(self.kind).iter().enumerate() {
            let mut next = vec![];
            let tag = branch.tag.clone();
            self.rule(Found { anchor: path, number: at, rule }, branch, &mut next, 0);
            branch = next.swap_remove(0);
            let (tags, last) = (branch.tag != tag, branch.flow != Flow::On);
            match branch.found.take() {
                Some(Found { anchor, number, rule }) => {
                    met.push(Met { at, anchor, number, rule, decides: true, tags, last });
                }
                // `no rdr` finds no rule; 15 keeps what an earlier anchor found
                None if last || tags => {
                    let decides = self.kind != RuleKind::Filter && !met.iter().any(|met: &Met<'_>| met.decides);
                    met.push(Met { at, anchor: path, number: at, rule, decides, tags, last });
                }
                None => {}
            }
            if last {
                break;
            }
        }
        met
    }

    fn ruleset(
        &mut self,
        path: &'a str,
        rules: &'a Ruleset,
        mut live: Vec<Branch<'a>>,
        depth: usize,
    ) -> Vec<Branch<'a>> {
        for (number, rule) in rules.of(self.kind).iter().enumerate() {
            if live.iter().all(|branch| branch.flow != Flow::On) || self.gave_up.is_some() {
                break;
            }
            self.looked.rules += 1;
            if self.looked.rules > MOST_RULES {
                *self.gave_up = Some(format!("more than {MOST_RULES} rules are evaluated"));
                break;
            }
            let mut next = Vec::with_capacity(live.len());
            for branch in live {
                if branch.flow == Flow::On {
                    self.rule(Found { anchor: path, number, rule }, branch, &mut next, depth);
                } else {
                    next.push(branch);
                }
            }
            live = self.merged(next);
        }
        // a branch at the end of this ruleset continues after the call
        for branch in &mut live {
            if branch.flow == Flow::EndOfRuleset {
                branch.flow = Flow::On;
            }
        }
        live
    }

    fn merged(&mut self, branches: Vec<Branch<'a>>) -> Vec<Branch<'a>> {
        if branches.len() < 2 {
            return branches;
        }
        let mut kept: Vec<Branch<'a>> = vec![];
        for branch in branches {
            let room = kept.len() < MOST_BRANCHES;
            match kept.iter_mut().find(|other| other.ends_as(&branch)) {
                Some(other) => other.absorb(&branch),
                None if room => kept.push(branch),
                None => *self.gave_up = Some("too many rules cannot be decided".to_owned()),
            }
        }
        kept
    }

    fn rule(&mut self, at: Found<'a>, branch: Branch<'a>, next: &mut Vec<Branch<'a>>, depth: usize) {
        use super::lookup::Truth;
        let (truth, of_packet) = at.rule.takes(at.anchor, &branch.packet, branch.tag.as_deref(), &self.hook);
        match truth {
            Truth::No => next.push(branch),
            Truth::Yes => self.apply(at, branch, next, depth),
            Truth::Maybe(why) => {
                let what = if of_packet { why } else { place(&at, &why) };
                let of_packet_before = || {
                    let before = self.settled.iter().find(|assumed| assumed.of_packet && assumed.what == what);
                    before.map(|assumed| assumed.answer)
                };
                let supposed = || Some(usize::from(self.supposed?.contains(&what)));
                let settled = branch.assumes(&what).or_else(of_packet_before).or_else(supposed);
                if self.supposed.is_some() {
                    self.undecided.insert(what.clone());
                }
                let mut takes = branch;
                match settled {
                    Some(0) => return next.push(takes),
                    Some(_) => {}
                    None => {
                        let mut not = takes.clone();
                        let reason = if of_packet { place(&at, &what) } else { what.clone() };
                        let assumed = |answer| Assumed { what: what.clone(), answer, pool: false, of_packet };
                        not.assumed.push(assumed(0));
                        not.steps.push(TraceStep::Undecided { what: reason.clone(), taken: false });
                        next.push(not);
                        takes.assumed.push(assumed(1));
                        takes.steps.push(TraceStep::Undecided { what: reason, taken: true });
                    }
                }
                self.apply(at, takes, next, depth);
            }
        }
    }

    fn apply(&mut self, at: Found<'a>, mut branch: Branch<'a>, next: &mut Vec<Branch<'a>>, depth: usize) {
        let rule = at.rule;
        // a tag holds from here on, even if a later rule wins
        if let Some(tag) = &rule.tag {
            branch.tag = Some(tag.clone());
        }
        if let Action::Call(_, called) = &rule.action {
            if path::is_own(at.anchor) {
                let (anchor, text) = (at.anchor.to_owned(), rule.origin.text.to_string());
                branch.steps.push(TraceStep::Call { anchor, text });
            }
            return self.call(at, called, branch, next, depth);
        }
        branch.steps.push(TraceStep::Rule { anchor: at.anchor.to_owned(), text: rule.origin.text.to_string() });
        let last_wins = self.pf.release == Release::V15;
        match &rule.action {
            // 15 keeps what an earlier anchor found, and continues after this ruleset
            Action::Translate { pool: None, .. } if last_wins => branch.flow = Flow::EndOfRuleset,
            Action::Translate { pool: None, .. } => (branch.found, branch.flow) = (None, Flow::Over),
            Action::Translate { .. } => {
                branch.found = Some(at);
                // 14: the first match of all. 15: the first one of its ruleset, and a later ruleset may still match
                branch.flow = if last_wins { Flow::EndOfRuleset } else { Flow::Over };
            }
            Action::Match => {
                branch.rtable = rule.effects.rtable.or(branch.rtable);
                if rule.effects.max_pkt_size > 0 {
                    branch.max_pkt_size = rule.effects.max_pkt_size;
                }
                if rule.quick {
                    branch.flow = Flow::Over;
                }
                return self.translate(at, branch, next);
            }
            Action::Pass | Action::Block | Action::Call(..) => {
                branch.found = Some(at);
                if rule.quick {
                    branch.flow = Flow::Over;
                }
            }
        }
        next.push(branch);
    }

    /// Applies `nat-to` and `rdr-to` of a match rule, at once (pf_rule_apply_nat).
    fn translate(&mut self, at: Found<'a>, branch: Branch<'a>, next: &mut Vec<Branch<'a>>) {
        let effects = &at.rule.effects;
        let (kind, pool) = match (&effects.nat_to, &effects.rdr_to) {
            (Some(pool), _) => (RuleKind::Nat, pool),
            (None, Some(pool)) => (RuleKind::Rdr, pool),
            (None, None) => return next.push(branch),
        };
        let cx = Context { anchor: at.anchor, lookup: self.hook.lookup, states: &self.pf.states, known: self.known };
        let mut branch = branch;
        if branch.translated {
            branch.failed = Some("translated twice".to_owned());
            branch.flow = Flow::Over;
            return next.push(branch);
        }
        match translate::by_rule(&branch.packet, kind, pool, &at.rule.when, self.hook.direction, cx) {
            Ok((packets, more)) => {
                for (branch, packet) in taken(&at, branch, packets, more) {
                    let before = branch.packet.clone();
                    let mut branch = Branch { packet, translated: true, ..branch };
                    if branch.packet == before {
                        branch.translated = false;
                    } else {
                        branch.steps.push(TraceStep::Translated(branch.packet.clone()));
                    }
                    next.push(branch);
                }
            }
            Err(Untranslated::Failed) => {
                branch.failed = Some("no address to translate to".to_owned());
                branch.flow = Flow::Over;
                next.push(branch);
            }
            Err(Untranslated::Unknown(why)) => {
                *self.gave_up = Some(place(&at, &why));
                next.push(branch);
            }
        }
    }

    fn call(&mut self, at: Found<'a>, called: &'a str, branch: Branch<'a>, next: &mut Vec<Branch<'a>>, depth: usize) {
        let (pf, v15) = (self.pf, self.pf.release == Release::V15);
        let mut branch = branch;
        if depth + 1 >= DEEPEST {
            // 15 leaves the ruleset, 14 skips the call
            if v15 {
                branch.flow = Flow::EndOfRuleset;
            }
            return next.push(branch);
        }
        branch.quick |= at.rule.quick;
        let before = branch.found;
        let called = Called::resolve(at.anchor, called);
        let mut live = vec![branch];
        // "*" in the main ruleset is an anchor of that name: pf checks for "/*" at the end (pf_kanchor_setup in
        // pf_ruleset.c)
        match Some(&called.path).filter(|parent| called.children && !parent.is_empty()) {
            None => {
                let path = if called.children { "*" } else { &called.path };
                if let Some((path, rules)) = pf.rulesets.get_key_value(path) {
                    self.looked.anchors += 1;
                    live = self.ruleset(path, rules, live, depth + 1);
                }
                if v15 && self.kind == RuleKind::Filter {
                    live.iter_mut().filter(|branch| branch.quick).for_each(|branch| branch.flow = Flow::Over);
                }
            }
            Some(parent) => {
                // the direct children only, in order; not the rules of the parent
                let below = format!("{parent}/");
                let children = pf.rulesets.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
                for (path, rules) in children.filter(|(path, _)| !path[below.len()..].contains('/')) {
                    if live.iter().all(|branch| branch.flow != Flow::On) {
                        break;
                    }
                    self.looked.anchors += 1;
                    let (on, over): (Vec<_>, Vec<_>) = live.into_iter().partition(|branch| branch.flow == Flow::On);
                    live = self.ruleset(path, rules, on, depth + 1);
                    // 15: a quick call with a wildcard ends after its first child, even if that did not match
                    if v15 && self.kind == RuleKind::Filter {
                        live.iter_mut().filter(|branch| branch.quick).for_each(|branch| branch.flow = Flow::Over);
                    }
                    live.extend(over);
                    live = self.merged(live);
                }
            }
        }
        // 14: a quick call is final if anything in it has matched
        if !v15 && at.rule.quick {
            for branch in &mut live {
                let matched = match (&branch.found, &before) {
                    (Some(now), Some(then)) => !now.is(then),
                    (now, _) => now.is_some(),
                };
                if matched {
                    branch.flow = Flow::Over;
                }
            }
        }
        next.append(&mut live);
    }
}

/// "rule 3 of pf.conf (pass in ...): why"
pub(super) fn place(at: &Found<'_>, why: &str) -> String {
    let anchor = if at.anchor.is_empty() { "pf.conf".to_owned() } else { format!("anchor {}", at.anchor) };
    let text: &Arc<str> = &at.rule.origin.text;
    format!("rule {} of {anchor} ({text}): {why}", at.number + 1)
}

/// A branch for each packet that a pool gives.
pub(super) fn taken<'a>(
    at: &Found<'a>,
    branch: Branch<'a>,
    packets: Vec<Packet>,
    more: bool,
) -> Vec<(Branch<'a>, Packet)> {
    if packets.len() == 1 && !more {
        return packets.into_iter().map(|packet| (branch.clone(), packet)).collect();
    }
    let what = place(at, "which address of its pool is used");
    let one = |(answer, packet)| {
        let mut branch = branch.clone();
        branch.assumed.push(Assumed { what: what.clone(), answer, pool: true, of_packet: false });
        (branch, packet)
    };
    packets.into_iter().enumerate().map(one).collect()
}
