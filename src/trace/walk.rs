//! Walks through the rules of one kind, with all anchors. If a rule cannot be decided, both possibilities are followed:
//! each is a [`Branch`]. Branches with the same end are merged, so that a rule that changes nothing does not make the
//! result depend on it.

use super::matching::{Assumed, Found, Hook, Truth};
use super::packet::{Packet, Release};
use super::steps::{Run, TraceStep};
use super::translate::{self, UNKNOWN, Untranslated};
use crate::pfconf::path::{self, Called};
use crate::pfconf::rule::{Action, Rule, RuleKind};

/// The maximum depth of anchors (PF_ANCHOR_STACK_MAX in sys/net/pfvar.h).
const DEEPEST: usize = 64;
/// The maximum number of branches that are followed at once.
const MOST_BRANCHES: usize = 64;
/// The maximum number of rules that one packet is compared with.
const MOST_RULES: u64 = 10_000_000;
/// Why pf drops a packet that it cannot translate.
pub(super) const NO_ADDRESS: &str = "no address to translate to";

impl Found<'_> {
    /// Whether both do the same to the packet.
    fn does_as(&self, other: &Found<'_>) -> bool {
        let (a, b) = (self.rule, other.rule);
        let limited = a.effects.keep.is_some_and(|keep| keep.limits != [0; 4]);
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

#[derive(Clone, Copy, Debug)]
pub struct Met<'a> {
    /// The rule of the main ruleset by which it was reached, itself or a call; and its number among those of its kind.
    pub main: &'a Rule,
    pub at: usize,
    pub anchor: &'a str,
    pub number: usize,
    pub rule: &'a Rule,
    /// Whether it decides, unless a later one does. A quick call of an anchor may end the evaluation without that.
    pub decides: bool,
    /// Whether it gives the packet another tag.
    pub tags: bool,
    /// No later rule is evaluated.
    pub last: bool,
}

impl<'a> Met<'a> {
    /// The rule that decides: the last one.
    pub fn decision(met: &[Met<'a>]) -> Option<Met<'a>> {
        met.iter().rfind(|met| met.decides).copied()
    }

    pub fn is(&self, other: &Met<'_>) -> bool {
        (self.at, self.anchor, self.number) == (other.at, other.anchor, other.number)
    }

    pub fn blocks(&self) -> bool {
        self.rule.action == Action::Block
    }

    pub fn translates(&self) -> bool {
        matches!(self.rule.action, Action::Translate { pool: Some(_), .. })
    }
}

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
    pub found: Option<Found<'a>>,
    /// pf drops the packet for this reason.
    pub failed: Option<&'static str>,
    pub rtable: Option<u32>,
    pub max_pkt_size: u16,
    pub assumed: Vec<Assumed>,
    pub steps: Vec<TraceStep>,
    flow: Flow,
    /// 15: a quick anchor was entered (test_status of pf_match_rule).
    quick: bool,
}

impl<'a> Branch<'a> {
    pub(super) fn new(packet: Packet) -> Branch<'a> {
        Branch {
            packet,
            found: None,
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
            (Some(a), Some(b)) => a.does_as(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        found
            && self.flow == other.flow
            && self.quick == other.quick
            && self.packet == other.packet
            && self.failed == other.failed
            && self.rtable == other.rtable
            && self.max_pkt_size == other.max_pkt_size
    }

    /// Merges the other branch: an assumption that only one of them makes is dropped.
    fn absorb(&mut self, other: &Branch<'a>) {
        let differs = |a: &Assumed| other.assumed.iter().any(|b| a.what == b.what && a.answer != b.answer);
        self.assumed.retain(|a| !differs(a));
    }
}

pub(super) struct Walk<'a, 'r> {
    pub hook: Hook<'a>,
    /// The packet as it came to the hook.
    pub before: &'r Packet,
    pub kind: RuleKind,
    /// What was assumed at earlier interfaces; it is told what was looked at, and if there is too much to follow.
    pub run: &'r mut Run,
    pub supposed: Option<&'r [String]>,
}

impl<'a> Walk<'a, '_> {
    pub(super) fn branches(&mut self, start: Branch<'a>) -> Vec<Branch<'a>> {
        match self.hook.pf.rulesets.get_key_value("") {
            Some((path, main)) => self.ruleset(path, main, vec![start], 0),
            None => vec![start],
        }
    }

    /// The rules that match, one rule of the main ruleset after the other. What cannot be decided must be
    /// [supposed](Walk::supposed), so that there is one branch; of the addresses of a pool the first one is used.
    pub(super) fn one_by_one(&mut self, start: Branch<'a>) -> Vec<Met<'a>> {
        let Some((path, main)) = self.hook.pf.rulesets.get_key_value("") else { return vec![] };
        let mut met = vec![];
        let mut branch = start;
        for (at, main) in of_kind(main, self.kind).enumerate() {
            let mut next = vec![];
            let tag = branch.packet.tag.clone();
            self.rule(Found { anchor: path, number: at, rule: main }, branch, &mut next, 0);
            branch = next.swap_remove(0);
            let (tags, last) = (branch.packet.tag != tag, branch.flow != Flow::On);
            match branch.found.take() {
                Some(Found { anchor, number, rule }) => {
                    met.push(Met { main, at, anchor, number, rule, decides: true, tags, last });
                }
                // `no rdr` finds no rule; 15 keeps what an earlier anchor found
                None if last || tags => {
                    let decides = self.kind != RuleKind::Filter && !met.iter().any(|met: &Met<'_>| met.decides);
                    met.push(Met { main, at, anchor: path, number: at, rule: main, decides, tags, last });
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
        &mut self, path: &'a str, rules: &'a [Rule], mut live: Vec<Branch<'a>>, depth: usize,
    ) -> Vec<Branch<'a>> {
        for (number, rule) in of_kind(rules, self.kind).enumerate() {
            if live.iter().all(|branch| branch.flow != Flow::On) || self.run.gave_up.is_some() {
                break;
            }
            self.run.looked.rules += 1;
            if self.run.looked.rules > MOST_RULES {
                self.run.gave_up = Some(format!("more than {MOST_RULES} rules are evaluated"));
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
        live.iter_mut().filter(|branch| branch.flow == Flow::EndOfRuleset).for_each(|branch| branch.flow = Flow::On);
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
                None => self.run.gave_up = Some("too many rules cannot be decided".to_owned()),
            }
        }
        kept
    }

    fn rule(&mut self, at: Found<'a>, mut branch: Branch<'a>, next: &mut Vec<Branch<'a>>, depth: usize) {
        let (why, of_packet) = match at.takes(&branch.packet, &self.hook) {
            (Truth::No, _) => return next.push(branch),
            (Truth::Yes, _) => return self.apply(at, branch, next, depth),
            (Truth::Maybe(why), of_packet) => (why, of_packet),
        };
        let place = at.place(&why);
        let what = if of_packet { why } else { place.clone() };
        if self.supposed.is_some() {
            self.run.undecided.insert(what.clone());
        }
        let here = branch.assumed.iter().find(|assumed| assumed.what == what);
        let before = || self.run.assumed.iter().find(|assumed| assumed.of_packet && assumed.what == what);
        let supposed = || Some(usize::from(self.supposed?.contains(&what)));
        match here.or_else(before).map(|assumed| assumed.answer).or_else(supposed) {
            Some(0) => return next.push(branch),
            Some(_) => {}
            None => {
                let with = |mut branch: Branch<'a>, taken: bool| {
                    let answer = usize::from(taken);
                    branch.assumed.push(Assumed { what: what.clone(), answer, pool: false, of_packet });
                    branch.steps.push(TraceStep::Undecided { what: place.clone(), taken });
                    branch
                };
                next.push(with(branch.clone(), false));
                branch = with(branch, true);
            }
        }
        self.apply(at, branch, next, depth);
    }

    fn apply(&mut self, at: Found<'a>, mut branch: Branch<'a>, next: &mut Vec<Branch<'a>>, depth: usize) {
        let rule = at.rule;
        // a tag holds from here on, even if a later rule wins
        if rule.tag.is_some() {
            branch.packet.tag.clone_from(&rule.tag);
        }
        if let Action::Call(_, called) = &rule.action {
            if path::is_own(at.anchor) {
                let (anchor, text) = (at.anchor.to_owned(), rule.origin.text.to_string());
                branch.steps.push(TraceStep::Call { anchor, text });
            }
            return self.call(at, called, branch, next, depth);
        }
        branch.steps.push(TraceStep::Rule { anchor: at.anchor.to_owned(), text: rule.origin.text.to_string() });
        let last_wins = self.hook.pf.release == Release::V15;
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
    fn translate(&mut self, at: Found<'a>, mut branch: Branch<'a>, next: &mut Vec<Branch<'a>>) {
        let Some((kind, pool)) = at.rule.effects.translation() else { return next.push(branch) };
        if self.is_translated(&branch.packet) {
            (branch.failed, branch.flow) = (Some("translated twice"), Flow::Over);
            return next.push(branch);
        }
        match translate::by_rule(&branch.packet, kind, pool, &at, self.hook) {
            Ok((packets, more)) => {
                for mut branch in taken(&at, branch, packets, more) {
                    if self.is_translated(&branch.packet) {
                        branch.steps.push(TraceStep::Translated(branch.packet.clone()));
                    }
                    next.push(branch);
                }
                return;
            }
            Err(Untranslated::Failed) => (branch.failed, branch.flow) = (Some(NO_ADDRESS), Flow::Over),
            Err(Untranslated::Unknown) => self.run.gave_up = Some(at.place(UNKNOWN)),
        }
        next.push(branch);
    }

    pub(super) fn is_translated(&self, packet: &Packet) -> bool {
        (packet.from, packet.to) != (self.before.from, self.before.to)
    }

    fn call(
        &mut self, at: Found<'a>, called: &'a str, mut branch: Branch<'a>, next: &mut Vec<Branch<'a>>, depth: usize,
    ) {
        let (pf, v15) = (self.hook.pf, self.hook.pf.release == Release::V15);
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
        // "*" in the main ruleset is an anchor of that name: pf checks for "/*" at the end (pf_kanchor_setup)
        let children = called.children && !called.path.is_empty();
        let path = if called.children && !children { "*" } else { &called.path };
        // the direct children only, in order; not the rules of the parent
        let below = format!("{path}/");
        let range = pf.rulesets.range(below.clone()..).take_while(|(path, _)| children && path.starts_with(&below));
        let range = range.filter(|(path, _)| !path[below.len()..].contains('/'));
        let single = pf.rulesets.get_key_value(path).filter(|_| !children);
        // 15: a quick call ends with its anchor, one with a wildcard after its first child, even if nothing matched
        let ends = v15 && self.kind == RuleKind::Filter;
        let end_if_quick = |live: &mut Vec<Branch<'a>>| {
            live.iter_mut().filter(|branch| ends && branch.quick).for_each(|branch| branch.flow = Flow::Over);
        };
        let mut live = vec![branch];
        for (path, rules) in single.into_iter().chain(range) {
            let (on, over): (Vec<_>, Vec<_>) = live.into_iter().partition(|branch| branch.flow == Flow::On);
            live = on;
            if !live.is_empty() {
                self.run.looked.anchors += 1;
                live = self.ruleset(path, rules, live, depth + 1);
                end_if_quick(&mut live);
            }
            live.extend(over);
            live = self.merged(live);
        }
        if !children {
            end_if_quick(&mut live);
        }
        // 14: a quick call is final if anything in it has matched
        if !v15 && at.rule.quick {
            let matched = |found: Option<Found<'_>>| found.is_some_and(|now| !before.is_some_and(|then| now.is(&then)));
            live.iter_mut().filter(|branch| matched(branch.found)).for_each(|branch| branch.flow = Flow::Over);
        }
        next.append(&mut live);
    }
}

pub(super) fn of_kind(rules: &[Rule], kind: RuleKind) -> impl Iterator<Item = &Rule> {
    rules.iter().filter(move |rule| rule.action.kind() == kind)
}

/// A branch for each packet that a pool gives.
pub(super) fn taken<'a>(at: &Found<'a>, branch: Branch<'a>, packets: Vec<Packet>, more: bool) -> Vec<Branch<'a>> {
    let what = (packets.len() > 1 || more).then(|| at.place("which address of its pool is used"));
    let one = |(answer, packet)| {
        let mut branch = Branch { packet, ..branch.clone() };
        branch.assumed.extend(what.clone().map(|what| Assumed { what, answer, pool: true, of_packet: false }));
        branch
    };
    packets.into_iter().enumerate().map(one).collect()
}
