//! Changes the rulesets of the tree of calls: a few calls in place, by DIOCCHANGERULE, which costs the same however long the ruleset
//! is; more of them in one transaction over all rulesets that differ.
//!
//! What each ruleset has is remembered together with its tickets ([`memory`](super::memory)), so a change reads no rule. If the
//! tickets are others, everything is made again from the records. A kill between two steps leaves tickets that nobody remembers, and
//! calls too many or too few of a jail whose record says what it is to have: a call of an empty anchor does nothing.
//!
//! DIOCCHANGERULE raises the ticket of the active ruleset alone, and a later load could get the same one. So the inactive ones are
//! raised as well, before it is remembered.

use zerocopy::FromZeros;

use super::decode::{self, Addresses};
use super::encode::{self, LOADED};
use super::kernel::{Call, Failure, Kernel};
use super::layout::*;
use super::read::{self, RulesetAt, Stamp};
use crate::calls::{self, Item};
use crate::name::PARENT;
use crate::pfconf::rule::{Action, Rule};

/// More differences than these are one transaction: it costs about the same as two edits for each rule that it loads, and four
/// calls more.
const FEW: usize = 12;

/// A ruleset of the tree that is to change.
pub(super) struct Ruleset {
    pub(super) path: String,
    /// Its calls, by kind in the order of [`LOADED`].
    old: [Vec<Rule>; 3],
    new: [Vec<Rule>; 3],
    /// As it is, then as it is to be.
    pub(super) stamps: [Stamp; 3],
    pub(super) items: Vec<Item>,
    /// How often each was changed in place.
    edits: [usize; 3],
}

impl Ruleset {
    pub(super) fn new(path: String, old: &[Item], new: &[Item], stamps: [Stamp; 3]) -> Ruleset {
        let (old, new, items) = (by_kind(&path, old), by_kind(&path, new), new.to_vec());
        Ruleset { path, old, new, stamps, items, edits: [0; 3] }
    }

    /// How many calls are to be added or removed.
    pub(super) fn differences(&self) -> usize {
        let only = |these: &[Rule], those: &[Rule]| these.iter().filter(|rule| !those.contains(rule)).count();
        self.old.iter().zip(&self.new).map(|(old, new)| only(old, new) + only(new, old)).sum()
    }

    /// Whether the anchor exists only before, or only after the change.
    pub(super) fn is_node_that_comes_or_goes(&self) -> bool {
        self.old.iter().all(Vec::is_empty) || self.new.iter().all(Vec::is_empty)
    }
}

fn by_kind(path: &str, items: &[Item]) -> [Vec<Rule>; 3] {
    let rules = calls::calls(path != PARENT, items);
    LOADED.map(|kind| rules.iter().filter(|rule| rule.action.kind() == kind).cloned().collect())
}

/// Gives rulesets their new calls, and sets their stamps.
pub(super) fn change<K: Kernel>(kernel: &K, rulesets: &mut [Ruleset]) -> Result<(), Failure> {
    let differences: usize = rulesets.iter().map(Ruleset::differences).sum();
    if differences <= FEW && !rulesets.iter().any(Ruleset::is_node_that_comes_or_goes) {
        match rulesets.iter_mut().try_for_each(|ruleset| edit(kernel, ruleset)).and_then(|()| pass_by(kernel, rulesets))
        {
            // another program has changed it, or this kernel does not have the call
            Err(failure) if ![libc::EPERM, libc::EACCES].contains(&failure.errno) => {}
            done => return done,
        }
    }
    load(kernel, rulesets)
}

/// DIOCCHANGERULE for each difference.
fn edit<K: Kernel>(kernel: &K, ruleset: &mut Ruleset) -> Result<(), Failure> {
    let mut rule = PfiocRule::new_zeroed();
    rule.anchor = field(&ruleset.path);
    for n in 0..LOADED.len() {
        let (old, new) = (&mut ruleset.old[n], &ruleset.new[n]);
        let ((count, ticket), edits) = (&mut ruleset.stamps[n], &mut ruleset.edits[n]);
        let mut change = |action: u32, at: usize, call: &Rule, old: &[Rule]| {
            (rule.action, rule.nr, rule.ticket) = (action, u32::try_from(at).unwrap_or(u32::MAX), *ticket);
            one(kernel, &mut rule, call)?;
            *ticket = ticket.wrapping_add(1);
            *edits += 1;
            *count = u32::try_from(old.len()).unwrap_or(u32::MAX);
            Ok(())
        };
        while let Some(at) = old.iter().rposition(|call| !new.contains(call)) {
            let gone = old.remove(at);
            change(PF_CHANGE_REMOVE, at, &gone, old)?;
        }
        for (at, call) in new.iter().enumerate() {
            if old.get(at) != Some(call) {
                let action = if at < old.len() { PF_CHANGE_ADD_BEFORE } else { PF_CHANGE_ADD_TAIL };
                old.insert(at, call.clone());
                change(action, at, call, old)?;
            }
        }
    }
    Ok(())
}

/// One DIOCCHANGERULE. A new rule takes what is in the buffer for redirect addresses, whose ticket is checked.
fn one<K: Kernel>(kernel: &K, rule: &mut PfiocRule, call: &Rule) -> Result<(), Failure> {
    encode(call, rule);
    let mut attempt = || {
        if rule.action != PF_CHANGE_REMOVE {
            buffer(kernel, rule)?;
        }
        kernel.call(Call::ChangeRule(rule))
    };
    match attempt() {
        // another program has used the buffer meanwhile
        Err(failure) if failure.is_busy() => attempt(),
        done => done,
    }
}

/// Raises the tickets of the inactive rulesets to those of the active ones, each time by a transaction that is rolled back: so no
/// later load gets a ticket that is remembered. One ruleset may be in a transaction several times (pf_begin_rules).
fn pass_by<K: Kernel>(kernel: &K, rulesets: &[Ruleset]) -> Result<(), Failure> {
    let mut behind: Vec<(PfiocTransE, u32, usize)> = vec![];
    for ruleset in rulesets {
        for ((kind, edits), (_, ticket)) in LOADED.into_iter().zip(ruleset.edits).zip(ruleset.stamps) {
            if edits > 0 {
                let element = PfiocTransE { rs_num: encode::number(kind), anchor: field(&ruleset.path), ticket: 0 };
                behind.push((element, ticket, edits));
            }
        }
    }
    while !behind.is_empty() {
        let mut begun: Vec<PfiocTransE> =
            behind.iter().flat_map(|(element, _, edits)| std::iter::repeat_n(*element, *edits)).collect();
        kernel.call(Call::XBegin(&mut begun))?;
        kernel.call(Call::XRollback(&mut begun))?;
        let mut last = 0;
        behind.retain_mut(|(_, ticket, edits)| {
            last += *edits;
            let now = begun[last - 1].ticket;
            *edits = usize::try_from(ticket.wrapping_sub(now)).unwrap_or(0);
            now < *ticket
        });
    }
    Ok(())
}

fn encode(call: &Rule, into: &mut PfiocRule) {
    encode::call(call, &mut into.rule);
    if let Action::Call(_, path) = &call.action {
        into.anchor_call = field(path);
    }
}

fn buffer<K: Kernel>(kernel: &K, rule: &mut PfiocRule) -> Result<(), Failure> {
    let mut address = PfiocPooladdr::new_zeroed();
    kernel.call(Call::BeginAddrs(&mut address))?;
    rule.pool_ticket = address.ticket;
    Ok(())
}

/// One transaction over all of these rulesets.
pub(super) fn load<K: Kernel>(kernel: &K, rulesets: &mut [Ruleset]) -> Result<(), Failure> {
    let element = |path: &str, kind| PfiocTransE { rs_num: encode::number(kind), anchor: field(path), ticket: 0 };
    let mut begun: Vec<PfiocTransE> =
        rulesets.iter().flat_map(|ruleset| LOADED.map(|kind| element(&ruleset.path, kind))).collect();
    kernel.call(Call::XBegin(&mut begun)).map_err(|failure| failure.about("the calls of the jails' anchors"))?;
    let loaded = fill(kernel, rulesets, &begun).and_then(|()| kernel.call(Call::XCommit(&mut begun)));
    if let Err(failure) = loaded {
        // as for the rules of a jail
        _ = kernel.call(Call::XRollback(&mut begun));
        return Err(failure);
    }
    for (ruleset, tickets) in rulesets.iter_mut().zip(begun.chunks(LOADED.len())) {
        for ((stamp, new), begun) in ruleset.stamps.iter_mut().zip(&ruleset.new).zip(tickets) {
            *stamp = (u32::try_from(new.len()).unwrap_or(u32::MAX), begun.ticket);
        }
    }
    Ok(())
}

fn fill<K: Kernel>(kernel: &K, rulesets: &[Ruleset], begun: &[PfiocTransE]) -> Result<(), Failure> {
    let mut rule = PfiocRule::new_zeroed();
    for (ruleset, tickets) in rulesets.iter().zip(begun.chunks(LOADED.len())) {
        rule.anchor = field(&ruleset.path);
        for (calls, begun) in ruleset.new.iter().zip(tickets) {
            rule.ticket = begun.ticket;
            for call in calls {
                encode(call, &mut rule);
                buffer(kernel, &mut rule)?;
                kernel.call(Call::AddRule(&mut rule)).map_err(|failure| failure.about(format_args!("call: {call}")))?;
            }
        }
    }
    Ok(())
}

/// The rules of an anchor of the tree, without what only redirects have. EBUSY if it was loaded again meanwhile.
pub(super) fn rules<K: Kernel>(kernel: &K, anchor: &str) -> Result<Vec<Rule>, Failure> {
    let mut found = vec![];
    for ruleset in LOADED {
        let (count, ticket) = read::count(kernel, anchor, ruleset)?;
        for nr in 0..count {
            found.extend(rule(kernel, &RulesetAt { anchor, ruleset, ticket, nr })?);
        }
    }
    Ok(found)
}

/// By DIOCGETRULENV: reading a rule by netlink stops all packets for as long.
fn rule<K: Kernel>(kernel: &K, at: &RulesetAt<'_>) -> Result<Option<Rule>, Failure> {
    let loaded = read::rule(kernel, at)?;
    let rule = decode::rule(&loaded.rule, &loaded.anchor_call, Addresses::default());
    rule.map_err(|malformed| at.unreadable(&malformed))
}

/// Whether an anchor of the tree has exactly these calls. EBUSY if it was loaded again meanwhile.
pub(super) fn holds<K: Kernel>(kernel: &K, anchor: &str, items: &[Item], stamps: &[Stamp; 3]) -> Result<bool, Failure> {
    let wanted = by_kind(anchor, items);
    if wanted.iter().zip(stamps).any(|(wanted, (count, _))| wanted.len() != *count as usize) {
        return Ok(false);
    }
    for ((ruleset, (_, ticket)), wanted) in LOADED.into_iter().zip(*stamps).zip(wanted) {
        for (nr, wanted) in (0..).zip(wanted) {
            if rule(kernel, &RulesetAt { anchor, ruleset, ticket, nr })? != Some(wanted) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
