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

use super::encode::{self, LOADED, NUMBERS};
use super::kernel::{Answer, Call, Kernel};
use super::layout::*;
use super::read::Stamp;
use super::transaction::{Load, element};
use crate::calls::{self, Item};
use crate::name::PARENT;

/// More differences than these are one transaction: it costs about the same as two edits for each rule that it loads, and four
/// calls more.
const FEW: usize = 12;

/// A ruleset of the tree that is to change.
pub(super) struct Ruleset {
    pub(super) path: String,
    /// Its calls, by kind in the order of [`LOADED`].
    old: [Vec<calls::Call>; 3],
    new: [Vec<calls::Call>; 3],
    /// As it is, then as it is to be.
    pub(super) stamps: [Stamp; 3],
    pub(super) items: Vec<Item>,
}

impl Ruleset {
    pub(super) fn new(path: String, old: &[Item], new: &[Item], stamps: [Stamp; 3]) -> Ruleset {
        let calls = |items| LOADED.map(|kind| calls::Call::of_kind(path != PARENT, items, kind).collect());
        let (old, new, items) = (calls(old), calls(new), new.to_vec());
        Ruleset { path, old, new, stamps, items }
    }

    pub(super) fn differences(&self) -> usize {
        let only =
            |these: &[calls::Call], those: &[calls::Call]| these.iter().filter(|rule| !those.contains(rule)).count();
        self.old.iter().zip(&self.new).map(|(old, new)| only(old, new) + only(new, old)).sum()
    }

    /// Whether the anchor exists only before, or only after the change.
    pub(super) fn is_node_that_comes_or_goes(&self) -> bool {
        self.old.iter().all(Vec::is_empty) || self.new.iter().all(Vec::is_empty)
    }
}

/// Gives rulesets their new calls, and sets their stamps.
pub(super) fn change(kernel: &dyn Kernel, rulesets: &mut [Ruleset]) -> Answer<()> {
    let differences: usize = rulesets.iter().map(Ruleset::differences).sum();
    if differences <= FEW && !rulesets.iter().any(Ruleset::is_node_that_comes_or_goes) {
        let mut behind = vec![];
        let edited = rulesets.iter_mut().try_for_each(|ruleset| edit(kernel, ruleset, &mut behind));
        match edited.and_then(|()| pass_by(kernel, behind)) {
            // another program has changed it, or this kernel does not have the call
            Err(failure) if ![libc::EPERM, libc::EACCES].contains(&failure.errno) => {}
            done => return done,
        }
    }
    load(kernel, rulesets)
}

/// An inactive ruleset, the ticket of the active one, and how far it is behind.
type Behind = (PfiocTransE, u32, usize);

fn edit(kernel: &dyn Kernel, ruleset: &mut Ruleset, behind: &mut Vec<Behind>) -> Answer<()> {
    let mut rule = PfiocRule::new_zeroed();
    rule.anchor = field(&ruleset.path);
    for (n, number) in NUMBERS.into_iter().enumerate() {
        let (old, new, (count, ticket)) = (&mut ruleset.old[n], &ruleset.new[n], &mut ruleset.stamps[n]);
        let mut edits = 0;
        let mut change = |action: u32, at: usize, call: calls::Call| -> Answer<()> {
            (rule.action, rule.nr, rule.ticket) = (action, u32::try_from(at).unwrap_or(u32::MAX), *ticket);
            encode::call(&call.into(), &mut rule);
            let mut attempt = || {
                // a new rule takes what is in the buffer for redirect addresses, whose ticket is checked
                if action != PF_CHANGE_REMOVE {
                    let mut address = PfiocPooladdr::new_zeroed();
                    kernel.call(Call::BeginAddrs(&mut address))?;
                    rule.pool_ticket = address.ticket;
                }
                kernel.call(Call::ChangeRule(&mut rule))
            };
            match attempt() {
                // another program has used the buffer meanwhile
                Err(failure) if failure.is_busy() => attempt(),
                done => done,
            }?;
            *ticket = ticket.wrapping_add(1);
            edits += 1;
            Ok(())
        };
        while let Some(at) = old.iter().rposition(|call| !new.contains(call)) {
            change(PF_CHANGE_REMOVE, at, old.remove(at))?;
        }
        for (at, call) in new.iter().enumerate() {
            if old.get(at) != Some(call) {
                let action = if at < old.len() { PF_CHANGE_ADD_BEFORE } else { PF_CHANGE_ADD_TAIL };
                change(action, at, call.clone())?;
                old.insert(at, call.clone());
            }
        }
        *count = u32::try_from(old.len()).unwrap_or(u32::MAX);
        if edits > 0 {
            behind.push((element(&ruleset.path, number), *ticket, edits));
        }
    }
    Ok(())
}

/// Raises the tickets of the inactive rulesets to those of the active ones, each time by a transaction that is rolled back: so no
/// later load gets a ticket that is remembered. One ruleset may be in a transaction several times (pf_begin_rules).
fn pass_by(kernel: &dyn Kernel, mut behind: Vec<Behind>) -> Answer<()> {
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

/// One transaction over all of these rulesets.
pub(super) fn load(kernel: &dyn Kernel, rulesets: &mut [Ruleset]) -> Answer<()> {
    let paths: Vec<&str> = rulesets.iter().map(|ruleset| &*ruleset.path).collect();
    let mut load = Load::begin(kernel, &paths).map_err(|failure| failure.about("the calls of the jails' anchors"))?;
    for (anchor, ruleset) in rulesets.iter().enumerate() {
        for (n, calls) in ruleset.new.iter().enumerate() {
            calls.iter().try_for_each(|call| load.call(anchor, n, &call.clone().into()))?;
        }
    }
    for (ruleset, stamps) in rulesets.iter_mut().zip(load.commit()?) {
        ruleset.stamps = stamps;
    }
    Ok(())
}
