//! Whether an anchor has exactly the rules that it was given: rule by rule, as DIOCGETRULENV returns them.

use super::decode::{self, Addresses};
use super::encode::LOADED;
use super::kernel::{Failure, Kernel};
use super::read::{self, RulesetAt, Stamp};
use super::rulesets::{self, pooled, routed};
use crate::pfconf::flat::flat;
use crate::pfconf::rule::{Action, Rule};
use crate::rule;

/// Whether `anchor` has exactly these rules, in this order, whichever backend loaded them. `stamps` are from
/// [`read::stamps`]; EBUSY if the anchor was loaded again meanwhile.
///
/// What 15 returns of a rule only by netlink is not read, except for af-to: reading a rule that way stops all packets for as
/// long.
pub(super) fn holds<K: Kernel>(
    kernel: &K,
    anchor: &str,
    stamps: &[Stamp; 3],
    rules: &[rule::Rule],
) -> Result<bool, Failure> {
    let wanted = flat(rules);
    let wanted =
        LOADED.map(|ruleset| wanted.iter().filter(move |rule| rule.action.kind() == ruleset).collect::<Vec<_>>());
    if wanted.iter().zip(stamps).any(|(wanted, (count, _))| wanted.len() != *count as usize) {
        return Ok(false);
    }
    for ((ruleset, (_, ticket)), wanted) in LOADED.into_iter().zip(*stamps).zip(wanted) {
        for (nr, wanted) in (0..).zip(wanted) {
            if !is(kernel, &RulesetAt { anchor, ruleset, ticket, nr }, wanted)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is<K: Kernel>(kernel: &K, at: &RulesetAt<'_>, wanted: &Rule) -> Result<bool, Failure> {
    // the struct of DIOCADDRULE has room for one label
    let mut wanted = wanted.clone();
    wanted.labels.truncate(1);
    let same = |decoded: Option<Rule>| {
        decoded.is_some_and(|mut decoded| {
            decoded.labels.truncate(1);
            decoded == wanted
        })
    };
    if wanted.effects.af_to.is_some() {
        return rulesets::rule(kernel, at).map(same);
    }
    let loaded = read::rule(kernel, at)?;
    let unreadable = |malformed| at.unreadable(&malformed);
    let af = loaded.rule.number("af").map_err(unreadable)?;
    // if a kernel does not return the target of a redirect, it is assumed: the pass rules have the same address
    let rdr = match &wanted.action {
        Action::Translate { pool: Some(pool), .. } => pooled(kernel, at, af)?.unwrap_or_else(|| pool.addresses.clone()),
        _ => vec![],
    };
    let route = if wanted.effects.route.is_some() { routed(kernel, at, af)? } else { vec![] };
    let addresses = Addresses { rdr, route, ..Addresses::default() };
    let decoded = decode::rule(&loaded.rule, &loaded.anchor_call, addresses).map_err(unreadable)?;
    Ok(same(decoded))
}
