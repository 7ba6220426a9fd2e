//! What pf does with one packet at one interface: state, translation, filter (pf_test and pf_test_rule in
//! sys/netpfil/pf/pf.c, pf_get_translation in pf_lb.c).

use super::matching::{Assumed, Found, Hook, Lookup};
use super::packet::{Packet, Release};
use super::state::{FoundState, Kept, Pf};
use super::steps::{Run, TraceStep};
use super::translate::{self, Made, UNKNOWN, Untranslated};
use super::walk::{Branch, NO_ADDRESS, Walk, taken};
use crate::net::{Direction, Interface};
use crate::pfconf::rule::{Action, Effects, Keep, RouteKind, RuleKind};

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
        let mut names: Vec<&str> = vec![];
        for name in pool.addresses.iter().filter_map(|address| address.interface.as_deref()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
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
