//! What pf does with one packet at one interface: state, translation, filter (pf_test and pf_test_rule in
//! sys/netpfil/pf/pf.c, pf_get_translation in pf_lb.c).
//!
//! The rules of a kind are walked with all anchors. If a rule cannot be decided, both possibilities are followed: each is a
//! [`Branch`]. Branches with the same end are merged, so that a rule that changes nothing does not make the result depend on it.

use std::collections::HashSet;

use super::matching::{Assumed, Found, Hook, Lookup, Truth};
use super::packet::{Packet, Release};
use super::state::{FoundState, Kept, Pf};
use super::steps::{Run, TraceStep};
use super::translate::{self, Made, UNKNOWN, Untranslated};
use crate::net::{Direction, Interface};
use crate::pfconf::path::{self, Called};
use crate::pfconf::rule::{Action, Effects, Keep, RouteKind, Rule, RuleKind};

/// The maximum depth of anchors (PF_ANCHOR_STACK_MAX in sys/net/pfvar.h).
const DEEPEST: usize = 64;
/// The maximum number of branches that are followed at once.
const MOST_BRANCHES: usize = 64;
/// The maximum number of rules that one packet is compared with.
const MOST_RULES: u64 = 10_000_000;
/// Why pf drops a packet that it cannot translate.
const NO_ADDRESS: &str = "no address to translate to";

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
        let rest = |b: &Branch<'_>| (b.flow, b.quick, b.failed, b.rtable, b.max_pkt_size);
        found && rest(self) == rest(other) && self.packet == other.packet
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
    fn branches(&mut self, start: Branch<'a>) -> Vec<Branch<'a>> {
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
            let itself = Found { anchor: path, number: at, rule: main };
            self.rule(itself, branch, &mut next, 0);
            branch = next.swap_remove(0);
            let (tags, last) = (branch.packet.tag != tag, branch.flow != Flow::On);
            let found = branch.found.take();
            // `no rdr` finds no rule; 15 keeps what an earlier anchor found
            let decides =
                found.is_some() || self.kind != RuleKind::Filter && !met.iter().any(|met: &Met<'_>| met.decides);
            if found.is_some() || last || tags {
                let Found { anchor, number, rule } = found.unwrap_or(itself);
                met.push(Met { main, at, anchor, number, rule, decides, tags, last });
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
        let (anchor, text) = (at.anchor.to_owned(), rule.origin.text.to_string());
        if let Action::Call(_, called) = &rule.action {
            branch.steps.extend(path::is_own(at.anchor).then_some(TraceStep::Call { anchor, text }));
            return self.call(at, called, branch, next, depth);
        }
        branch.steps.push(TraceStep::Rule { anchor, text });
        let last_wins = self.hook.pf.release == Release::V15;
        if rule.quick {
            branch.flow = Flow::Over;
        }
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
                return self.translate(at, branch, next);
            }
            Action::Pass | Action::Block | Action::Call(..) => branch.found = Some(at),
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

    fn is_translated(&self, packet: &Packet) -> bool {
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

fn of_kind(rules: &[Rule], kind: RuleKind) -> impl Iterator<Item = &Rule> {
    rules.iter().filter(move |rule| rule.action.kind() == kind)
}

/// A branch for each packet that a pool gives.
fn taken<'a>(at: &Found<'a>, branch: Branch<'a>, packets: Vec<Packet>, more: bool) -> Vec<Branch<'a>> {
    let what = (packets.len() > 1 || more).then(|| at.place("which address of its pool is used"));
    let one = |(answer, packet)| {
        let mut branch = Branch { packet, ..branch.clone() };
        branch.assumed.extend(what.clone().map(|what| Assumed { what, answer, pool: true, of_packet: false }));
        branch
    };
    packets.into_iter().enumerate().map(one).collect()
}

/// What becomes of a packet after the hook.
pub(super) enum After {
    Dropped,
    Goes(Packet),
    /// Sent out by this interface, whatever the routes are.
    Sent {
        packet: Packet,
        on: Interface,
        /// Whether pf evaluates it there.
        tested: bool,
    },
    /// Translated to the other family: sent out by its route, where pf does not evaluate it again.
    Crossed(Packet),
}

impl Pf {
    pub(super) fn test(
        &mut self, mut packet: Packet, (direction, on): (Direction, Interface), lookup: &Lookup, run: &mut Run,
    ) -> After {
        run.steps.push(TraceStep::Hook { direction, on });
        if !self.enabled {
            run.note("pf is disabled: not evaluated");
            return After::Goes(packet);
        }
        if self.skip.iter().any(|name| lookup.is_in(on, name)) {
            run.note("set skip: not evaluated");
            return After::Goes(packet);
        }
        let before = packet.clone();
        let hook = Hook { direction, on, lookup, pf: self };
        let supposed = self.supposed.as_deref();
        let mut walk = Walk { hook, before: &before, kind: RuleKind::Filter, run, supposed };
        if let Some(state) = self.states.find(&mut packet, direction, on) {
            return walk.by_state(state, packet);
        }
        let Some((packet, state, after)) = walk.rules() else { return After::Dropped };
        if let Some(kept) = state
            && let Err(limit) = self.states.insert((&before, &packet), direction, kept)
        {
            run.steps.push(TraceStep::Verdict(format!("blocked: {limit} is reached")));
            return After::Dropped;
        }
        run.steps.push(TraceStep::Verdict("passed".to_owned()));
        after
    }
}

/// The packet that the rules pass, the state to create, and what becomes of the packet.
type Passed = (Packet, Option<Kept>, After);

impl<'a> Walk<'a, '_> {
    /// Translates, tags and routes the packet as the state does.
    fn by_state(&mut self, FoundState { kept, along }: FoundState, packet: Packet) -> After {
        self.run.steps.push(TraceStep::State { anchor: kept.anchor, text: kept.text.to_string() });
        self.note_translation(&packet);
        let (tag, fib) = (kept.tag.or(packet.tag), kept.rtable.unwrap_or(self.before.fib));
        let packet = Packet { tag, received_on: self.before.received_on, fib, ..packet };
        self.after(packet, kept.route, along)
    }

    /// `along` for a packet in the direction of the one that creates the state.
    fn after(&mut self, packet: Packet, route: Option<(RouteKind, Interface)>, along: bool) -> After {
        match route.filter(|(kind, _)| (*kind == RouteKind::Packets) == along) {
            _ if self.is_crossed(&packet) => After::Crossed(packet),
            Some((_, on)) => {
                self.run.note(format!("sent out by {on}, regardless of the routes"));
                After::Sent { packet, on, tested: self.hook.direction == Direction::In }
            }
            None => After::Goes(packet),
        }
    }

    fn walk(&mut self, kind: RuleKind, start: Branch<'a>) -> Branch<'a> {
        self.kind = kind;
        let all = self.branches(start);
        self.pick(all)
    }

    /// Picks one of the possible branches. The run takes over its assumptions.
    fn pick(&mut self, mut all: Vec<Branch<'a>>) -> Branch<'a> {
        let at = if all.len() == 1 { 0 } else { self.run.pick(all.len()) };
        let mut picked = all.swap_remove(at);
        self.run.assumed.append(&mut picked.assumed);
        self.run.steps.append(&mut picked.steps);
        picked
    }

    /// What the rules decide about a packet without a state; `None` if it is dropped.
    fn rules(&mut self) -> Option<Passed> {
        let direction = self.hook.direction;
        let kinds = match direction {
            Direction::In => [RuleKind::Rdr, RuleKind::Binat],
            Direction::Out => [RuleKind::Binat, RuleKind::Nat],
        };
        let mut branch = Branch::new(self.before.clone());
        for kind in kinds {
            branch = self.walk(kind, Branch::new(branch.packet));
            if branch.found.is_some() {
                break;
            }
        }
        // the packet keeps a translation rule's tag, whatever the filter rules decide
        let mut passes = false;
        if let Some(found) = branch.found {
            let Action::Translate { kind, pool: Some(pool), pass } = &found.rule.action else { return None };
            let made = translate::by_rule(&branch.packet, *kind, pool, &found, self.hook);
            // 14 goes on untranslated (pf_get_translation returns no rule), 15 drops (PFRES_MAPFAILED)
            let goes_on = self.hook.pf.release == Release::V14 && matches!(made, Err(Untranslated::Failed));
            branch.packet = self.made(&found, made).or_else(|| goes_on.then(|| branch.packet.clone()))?;
            self.note_translation(&branch.packet);
            passes = *pass && self.is_translated(&branch.packet);
        }
        if !passes {
            branch = self.walk(RuleKind::Filter, Branch::new(branch.packet));
            if let Some(why) = branch.failed {
                self.run.note(why);
                return None;
            }
        }
        let found = branch.found;
        let default_drops = found.is_none() && self.hook.pf.default_to_drop;
        if default_drops {
            self.run.steps.push(TraceStep::DefaultRule);
        }
        let filter = found.filter(|_| !passes);
        if default_drops || filter.is_some_and(|found| found.rule.action == Action::Block) {
            self.run.steps.push(TraceStep::Verdict("blocked".to_owned()));
            return None;
        }
        let nothing = Effects::default();
        let effects = filter.map_or(&nothing, |found| &*found.rule.effects);
        let mut packet = match filter {
            Some(found) => self.filter_translation(&found, branch.packet)?,
            None => branch.packet,
        };
        if let Some(limit) = [effects.max_pkt_size, branch.max_pkt_size].into_iter().find(|limit| *limit > 0) {
            self.run.note(format!("packets longer than {limit} bytes are dropped"));
        }
        let rtable = effects.rtable.or(branch.rtable);
        packet.fib = rtable.unwrap_or(packet.fib);
        let route = filter.and_then(|found| self.route(&found));
        let keep = if passes { Some(Keep::default()) } else { effects.keep };
        if self.hook.pf.syncookies || keep.is_some_and(|keep| keep.synproxy && direction == Direction::In) {
            self.run.note("pf answers the first packet itself, and connects to the target then");
        }
        if let Some(found) = filter.filter(|_| effects.divert.is_some()) {
            self.gives_up(&found, "what the program at the divert-to port does with it");
        }
        if found.is_some_and(|found| found.rule.once) {
            self.run.note("once: pf removes the rule after this packet");
        }
        let state = (!packet.is_icmp_error() && (keep.is_some() || self.is_translated(&packet))).then(|| {
            let keep = keep.unwrap_or_default();
            let (anchor, number, text) = match found {
                Some(found) => (found.anchor.to_owned(), found.number, found.rule.origin.text.clone()),
                None => (String::new(), usize::MAX, "no rule".into()),
            };
            // the answer to a packet with a route comes in on another interface (BOUND_IFACE in sys/netpfil/pf/pf.c)
            let floats = self.is_crossed(&packet) || matches!(route, Some((RouteKind::Replies, _)));
            let bound = (keep.if_bound && !floats).then_some(self.hook.on);
            Kept { keep, anchor, number, text, bound, route, tag: packet.tag.clone(), rtable }
        });
        let after = self.after(packet.clone(), route, true);
        Some((packet, state, after))
    }

    fn gives_up(&mut self, found: &Found<'_>, why: &str) {
        let what = found.place(why);
        self.run.steps.push(TraceStep::Undecided { what: what.clone(), taken: true });
        self.run.gave_up = Some(what);
    }

    fn made(&mut self, found: &Found<'a>, made: Made) -> Option<Packet> {
        match made {
            Ok((packets, more)) => {
                let start = Branch::new(packets[0].clone());
                return Some(self.pick(taken(found, start, packets, more)).packet);
            }
            Err(Untranslated::Failed) => self.run.note(NO_ADDRESS),
            Err(Untranslated::Unknown) => self.gives_up(found, UNKNOWN),
        }
        None
    }

    /// `nat-to`, `rdr-to` and `af-to` of the rule that passes the packet.
    fn filter_translation(&mut self, found: &Found<'a>, packet: Packet) -> Option<Packet> {
        let effects = &found.rule.effects;
        let made = match (&effects.af_to, effects.translation()) {
            (None, None) => return Some(packet),
            _ if self.is_translated(&packet) => {
                self.run.note("translated twice, and dropped");
                return None;
            }
            (Some(af_to), _) => translate::family(&packet, af_to, found, self.hook).map(|made| (vec![made], false)),
            (None, Some((kind, pool))) => translate::by_rule(&packet, kind, pool, found, self.hook),
        };
        let made = self.made(found, made)?;
        self.note_translation(&made);
        Some(made)
    }

    /// The interface of `route-to`, `reply-to` and `dup-to`. If the pool has several, one is picked.
    fn route(&mut self, found: &Found<'a>) -> Option<(RouteKind, Interface)> {
        let (kind, pool) = found.rule.effects.route.as_ref()?;
        let mut seen = HashSet::new();
        let named = pool.addresses.iter().filter_map(|address| address.interface.as_deref());
        let names: Vec<&str> = named.filter(|name| seen.insert(*name)).collect();
        let mut at = 0;
        if names.len() > 1 {
            at = self.run.pick(names.len());
            let what = found.place("which interface of its pool is used");
            self.run.assumed.push(Assumed { what, answer: at, pool: true, of_packet: false });
        }
        let mut known = self.hook.lookup.interfaces.iter().map(|interface| interface.name);
        let Some(on) = known.find(|name| names.get(at) == Some(&name.as_str())) else {
            self.gives_up(found, "the interface is unknown");
            return None;
        };
        if *kind == RouteKind::Copies {
            self.run.note(format!("a copy is sent out by {on}"));
            return None;
        }
        Some((*kind, on))
    }

    fn note_translation(&mut self, packet: &Packet) {
        if self.is_translated(packet) {
            self.run.steps.push(TraceStep::Translated(packet.clone()));
        }
    }

    /// Whether it has another family now: `af-to`.
    fn is_crossed(&self, packet: &Packet) -> bool {
        packet.family() != self.before.family()
    }
}
