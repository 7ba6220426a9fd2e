//! What pf does with one packet at one interface: state, translation, filter (pf_test and pf_test_rule in
//! sys/netpfil/pf/pf.c, pf_get_translation in pf_lb.c).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::choice::Choices;
use super::loaded::Pf;
use super::lookup::Lookup;
use super::matching::{Assumed, Hook};
use super::packet::{Packet, Release};
use super::state::{FoundState, Kept, Maker, Route};
use super::steps::TraceStep;
use super::translate::{self, Context, Untranslated};
use super::walk::{Branch, Found, Walk, place, taken};
use crate::net::Direction;
use crate::net::Interface;
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

/// One packet at one interface.
struct Test<'a, 'r> {
    hook: Hook<'a>,
    known: &'a [IpAddr],
    run: &'r mut Choices,
    steps: &'r mut Vec<TraceStep>,
}

impl Pf {
    /// Whether the packet continues, and as what.
    pub(super) fn test(
        &mut self,
        packet: Packet,
        (direction, on): (Direction, Interface),
        (lookup, known): (&Lookup, &[IpAddr]),
        run: &mut Choices,
        steps: &mut Vec<TraceStep>,
    ) -> After {
        steps.push(TraceStep::Hook { direction, on });
        if !self.enabled {
            steps.push(TraceStep::Note("pf is disabled: not evaluated".to_owned()));
            return After::Goes(packet);
        }
        if self.skip.iter().any(|name| lookup.is_in(on, name)) {
            steps.push(TraceStep::Note("set skip: not evaluated".to_owned()));
            return After::Goes(packet);
        }
        let before = packet.clone();
        let mut packet = packet;
        let found = match packet.about {
            Some(_) => self.states.find_error(&mut packet, direction, on),
            None => self.states.find(&mut packet, direction, on),
        };
        if let Some(state) = found {
            return by_state(state, &before, packet, direction, steps);
        }
        let made = {
            let mut test = Test { hook: Hook { direction, on, lookup }, known, run, steps };
            test.rules(self, &packet)
        };
        let Some(made) = made else { return After::Dropped };
        if let Some(new) = made.state {
            let stored =
                self.states.insert((&before, &made.packet), direction, new.bound, new.maker, &new.keep, new.kept);
            if let Err(limit) = stored {
                steps.push(TraceStep::Verdict(format!("blocked: {limit} is reached")));
                return After::Dropped;
            }
        }
        steps.push(TraceStep::Verdict("passed".to_owned()));
        made.after
    }
}

/// Translates, tags and routes the packet as the state does.
fn by_state(
    state: FoundState,
    before: &Packet,
    mut packet: Packet,
    direction: Direction,
    steps: &mut Vec<TraceStep>,
) -> After {
    let FoundState { maker, kept, along, crossed } = state;
    steps.push(TraceStep::State { anchor: maker.anchor, text: maker.text.to_string() });
    note_translation(before, &packet, steps);
    packet.tag = kept.tag.or(packet.tag);
    packet.received_on = before.received_on;
    packet.fib = kept.rtable.unwrap_or(before.fib);
    if crossed {
        return After::Crossed(packet);
    }
    match kept.route {
        Some(Route { kind: RouteKind::Packets, on }) if along => sent(packet, on, direction, steps),
        Some(Route { kind: RouteKind::Replies, on }) if !along => sent(packet, on, direction, steps),
        _ => After::Goes(packet),
    }
}

fn sent(packet: Packet, on: Interface, direction: Direction, steps: &mut Vec<TraceStep>) -> After {
    steps.push(TraceStep::Note(format!("sent out by {on}, regardless of the routes")));
    After::Sent { packet, on, tested: direction == Direction::In }
}

/// A state to create.
struct NewState {
    bound: Option<Interface>,
    maker: Maker,
    keep: Keep,
    kept: Kept,
}

/// The decision of the rules about a packet without a state.
struct Made {
    packet: Packet,
    state: Option<NewState>,
    after: After,
}

impl<'a> Test<'a, '_> {
    fn note(&mut self, text: impl Into<String>) {
        self.steps.push(TraceStep::Note(text.into()));
    }

    fn walk(&mut self, pf: &'a Pf, kind: RuleKind, start: Branch<'a>) -> Branch<'a> {
        let settled: Vec<Assumed> = self.run.assumed.iter().filter(|assumed| assumed.of_packet).cloned().collect();
        let Choices { looked, gave_up, .. } = &mut *self.run;
        let mut walk = Walk {
            pf,
            hook: self.hook,
            kind,
            known: self.known,
            settled: &settled,
            looked,
            gave_up,
            supposed: pf.supposed.as_deref(),
            undecided: BTreeSet::new(),
        };
        let all = walk.run(start);
        self.pick(all)
    }

    /// Picks one of the possible branches. The run takes over its assumptions.
    fn pick(&mut self, mut all: Vec<Branch<'a>>) -> Branch<'a> {
        let at = if all.len() == 1 { 0 } else { self.run.pick(all.len()) };
        let mut picked = all.swap_remove(at);
        self.run.assumed.append(&mut picked.assumed);
        self.steps.append(&mut picked.steps);
        picked
    }

    fn rules(&mut self, pf: &'a Pf, packet: &Packet) -> Option<Made> {
        let before = packet.clone();
        let direction = self.hook.direction;
        let kinds = match direction {
            Direction::In => [RuleKind::Rdr, RuleKind::Binat],
            Direction::Out => [RuleKind::Binat, RuleKind::Nat],
        };
        let mut branch = Branch::new(packet.clone(), packet.tag.clone(), false);
        for kind in kinds {
            let start = Branch::new(branch.packet, branch.tag, false);
            branch = self.walk(pf, kind, start);
            if branch.found.is_some() {
                break;
            }
        }
        // the packet keeps a translation rule's tag, whatever the filter rules decide
        let mut passed_by = None;
        let mut translated = false;
        if let Some(found) = branch.found {
            let Action::Translate { kind, pool: Some(pool), pass } = &found.rule.action else { return None };
            let made = self.translation(pf, &found, *kind, pool, &branch)?;
            translated = made != branch.packet;
            branch.packet = made;
            note_translation(&before, &branch.packet, self.steps);
            if *pass && translated {
                passed_by = Some(found);
            }
        }
        if passed_by.is_none() {
            let start = Branch::new(branch.packet, branch.tag, translated);
            branch = self.walk(pf, RuleKind::Filter, start);
            if let Some(why) = branch.failed {
                self.note(why);
                return None;
            }
            translated = branch.translated;
        }
        let found = passed_by.or(branch.found);
        if found.is_some_and(|found| found.rule.action == Action::Block) {
            self.steps.push(TraceStep::Verdict("blocked".to_owned()));
            return None;
        }
        if found.is_none() && pf.default_to_drop {
            self.steps.push(TraceStep::DefaultRule);
            self.steps.push(TraceStep::Verdict("blocked".to_owned()));
            return None;
        }
        let nothing = Effects::default();
        let effects = match found {
            Some(found) if passed_by.is_none() => &*found.rule.effects,
            _ => &nothing,
        };
        let mut packet = branch.packet;
        packet.tag = branch.tag;
        let mut crossed = false;
        if let Some(found) = found.filter(|_| passed_by.is_none()) {
            let old = packet.clone();
            packet = self.filter_translation(pf, &found, packet, translated)?;
            translated |= (old.from, old.to) != (packet.from, packet.to);
            crossed = old.family() != packet.family();
        }
        if let Some(limit) = [effects.max_pkt_size, branch.max_pkt_size].into_iter().find(|limit| *limit > 0) {
            self.note(format!("packets longer than {limit} bytes are dropped"));
        }
        let rtable = effects.rtable.or(branch.rtable);
        packet.fib = rtable.unwrap_or(packet.fib);
        let route = self.route(&found, effects);
        let keep = if passed_by.is_some() { Some(Keep::default()) } else { effects.keep };
        if pf.syncookies || keep.is_some_and(|keep| keep.synproxy && direction == Direction::In) {
            self.note("pf answers the first packet itself, and connects to the target then");
        }
        if effects.divert.is_some() {
            self.gives_up(&found, "what the program at the divert-to port does with it");
        }
        if found.is_some_and(|found| found.rule.once) {
            self.note("once: pf removes the rule after this packet");
        }
        let state = (!packet.is_icmp_error() && (keep.is_some() || translated)).then(|| {
            let keep = keep.unwrap_or_default();
            let maker = match &found {
                Some(found) => Maker {
                    anchor: found.anchor.to_owned(),
                    number: found.number,
                    text: found.rule.origin.text.clone(),
                },
                None => Maker { anchor: String::new(), number: usize::MAX, text: "no rule".into() },
            };
            // the answer to a packet with a route comes in on another interface (BOUND_IFACE in sys/netpfil/pf/pf.c)
            let floats = crossed || route.is_some_and(|route| route.kind == RouteKind::Replies);
            let bound = keep.if_bound && !floats;
            let kept = Kept { route, tag: packet.tag.clone(), rtable };
            NewState { bound: bound.then_some(self.hook.on), maker, keep, kept }
        });
        let after = match route {
            _ if crossed => After::Crossed(packet.clone()),
            Some(Route { kind: RouteKind::Packets, on }) => {
                self.note(format!("sent out by {on}, regardless of the routes"));
                After::Sent { packet: packet.clone(), on, tested: direction == Direction::In }
            }
            _ => After::Goes(packet.clone()),
        };
        Some(Made { packet, state, after })
    }

    /// The verdict depends on something unknown.
    fn gives_up(&mut self, found: &Option<Found<'_>>, why: &str) {
        let what = found.map_or_else(|| why.to_owned(), |found| place(&found, why));
        self.steps.push(TraceStep::Undecided { what: what.clone(), taken: true });
        self.run.gave_up = Some(what);
    }

    fn translation(
        &mut self,
        pf: &'a Pf,
        found: &Found<'a>,
        kind: RuleKind,
        pool: &crate::pfconf::address::Pool,
        branch: &Branch<'a>,
    ) -> Option<Packet> {
        let cx = Context { anchor: found.anchor, lookup: self.hook.lookup, states: &pf.states, known: self.known };
        let when = &found.rule.when;
        match translate::by_rule(&branch.packet, kind, pool, when, self.hook.direction, cx) {
            Ok((packets, more)) => Some(self.one_of(found, packets, more)),
            Err(Untranslated::Failed) => {
                self.note("no address to translate to");
                // 14 goes on untranslated (pf_get_translation returns no rule), 15 drops (PFRES_MAPFAILED)
                (pf.release == Release::V14).then(|| branch.packet.clone())
            }
            Err(Untranslated::Unknown(why)) => {
                self.gives_up(&Some(*found), &why);
                None
            }
        }
    }

    /// Picks one of the packets that a pool gives.
    fn one_of(&mut self, found: &Found<'a>, packets: Vec<Packet>, more: bool) -> Packet {
        let start = Branch::new(packets[0].clone(), None, false);
        let all = taken(found, start, packets, more);
        let with = |(mut branch, packet): (Branch<'a>, Packet)| {
            branch.packet = packet;
            branch
        };
        let all = all.into_iter().map(with).collect();
        self.pick(all).packet
    }

    /// `nat-to`, `rdr-to` and `af-to` of the rule that passes the packet.
    fn filter_translation(
        &mut self,
        pf: &'a Pf,
        found: &Found<'a>,
        packet: Packet,
        translated: bool,
    ) -> Option<Packet> {
        let effects = &found.rule.effects;
        if effects.nat_to.is_none() && effects.rdr_to.is_none() && effects.af_to.is_none() {
            return Some(packet);
        }
        if translated {
            self.note("translated twice, and dropped");
            return None;
        }
        let before = packet.clone();
        let cx = Context { anchor: found.anchor, lookup: self.hook.lookup, states: &pf.states, known: self.known };
        let after = if effects.af_to.is_some() {
            translate::family(&packet, effects, &found.rule.when.to, cx).map(|packet| (vec![packet], false))
        } else {
            let (kind, pool) = match (&effects.nat_to, &effects.rdr_to) {
                (Some(pool), _) => (RuleKind::Nat, pool),
                (None, Some(pool)) => (RuleKind::Rdr, pool),
                (None, None) => return Some(packet),
            };
            translate::by_rule(&packet, kind, pool, &found.rule.when, self.hook.direction, cx)
        };
        match after {
            Ok((packets, more)) => {
                let made = self.one_of(found, packets, more);
                note_translation(&before, &made, self.steps);
                Some(made)
            }
            Err(Untranslated::Failed) => {
                self.note("no address to translate to");
                None
            }
            Err(Untranslated::Unknown(why)) => {
                self.gives_up(&Some(*found), &why);
                None
            }
        }
    }

    /// The interface of `route-to`, `reply-to` and `dup-to`. If the pool has several, one is picked.
    fn route(&mut self, found: &Option<Found<'a>>, effects: &Effects) -> Option<Route> {
        let (kind, pool) = effects.route.as_ref()?;
        let found = found.as_ref()?;
        let mut names: Vec<&str> = vec![];
        for name in pool.addresses.iter().filter_map(|address| address.interface.as_deref()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let at = if names.len() > 1 {
            let answer = self.run.pick(names.len());
            let what = place(found, "which interface of its pool is used");
            self.run.assumed.push(Assumed { what, answer, pool: true, of_packet: false });
            answer
        } else {
            0
        };
        let known = |interface: &&crate::host::HostInterface| names.get(at) == Some(&interface.name.as_str());
        let Some(on) = self.hook.lookup.interfaces.iter().find(known).map(|interface| interface.name) else {
            self.gives_up(&Some(*found), "the interface is unknown");
            return None;
        };
        if *kind == RouteKind::Copies {
            self.note(format!("a copy is sent out by {on}"));
            return None;
        }
        Some(Route { kind: *kind, on })
    }
}

fn note_translation(before: &Packet, after: &Packet, steps: &mut Vec<TraceStep>) {
    if (before.from, before.to) != (after.from, after.to) {
        steps.push(TraceStep::Translated(after.clone()));
    }
}
