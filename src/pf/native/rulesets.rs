//! Rulesets as values, with everything that this kernel returns of their rules; and whether an anchor has the rules that it was
//! given.

use std::collections::BTreeMap;

use zerocopy::FromZeros;

use super::decode::{self, Addresses};
use super::encode::{self, EVERY, LOADED};
use super::kernel::{Answer, Call, Kernel};
use super::layout::*;
use super::netlink::{self, Attributes, Command};
use super::nv::{List, Malformed};
use super::read::{self, RulesetAt, Stamp};
use crate::pfconf::address::{Operand, PoolAddress};
use crate::pfconf::path::Called;
use crate::pfconf::rule::{Action, Rule, RuleKind};

/// Rules by the path of their anchor.
pub(super) type ByPath = BTreeMap<String, Vec<Rule>>;

/// The stamps at which rulesets were read, in the order of [`EVERY`], by the path of their anchor.
pub(super) type ReadAt = Vec<(String, [Stamp; 4])>;

/// The rules of the main ruleset and of the anchors in its braces, and their stamps, so that a later change can be detected. EBUSY if
/// one was loaded again meanwhile.
pub(super) fn main(kernel: &dyn Kernel) -> Answer<(ByPath, ReadAt)> {
    let (mut read, mut stamps) = (ByPath::new(), ReadAt::new());
    let mut waiting = vec![String::new()];
    while let Some(at) = waiting.pop() {
        if read.contains_key(&at) {
            continue;
        }
        let every = read::stamps(kernel, &at, EVERY)?;
        let rules = rules_of_all(kernel, &at, every)?;
        waiting.extend(rules.iter().filter_map(|rule| in_braces(&at, rule)));
        stamps.push((at.clone(), every));
        read.insert(at, rules);
    }
    Ok((read, stamps))
}

/// The path of the anchor in braces that a rule calls: pfctl(8) gives such an anchor a name that begins with `_`.
fn in_braces(caller: &str, rule: &Rule) -> Option<String> {
    let Action::Call(_, called) = &rule.action else { return None };
    let called = Called::resolve(caller, called);
    let below = called.path.strip_prefix(caller)?.trim_start_matches('/');
    (!called.children && below.starts_with('_')).then_some(called.path)
}

/// The rules of an anchor with these stamps. EBUSY if it was loaded again meanwhile.
pub(super) fn rules_of_all(kernel: &dyn Kernel, anchor: &str, stamps: [Stamp; 4]) -> Answer<Vec<Rule>> {
    let of = |(ruleset, stamp)| rules(kernel, anchor, ruleset, stamp);
    EVERY.into_iter().zip(stamps).map(of).collect::<Answer<Vec<_>>>().map(|all| all.concat())
}

/// The rules of one ruleset, without those that are not of packets.
pub(super) fn rules(kernel: &dyn Kernel, anchor: &str, ruleset: RuleKind, stamp: Stamp) -> Answer<Vec<Rule>> {
    let all = read::each(anchor, ruleset, stamp, |at| Ok(rule(kernel, at)?.map(Rule::named)));
    all.filter_map(Answer::transpose).collect()
}

/// The rules of an anchor of the tree of calls, without what only redirects have. By DIOCGETRULENV: reading a rule by netlink stops
/// all packets for as long.
pub(super) fn calls(kernel: &dyn Kernel, anchor: &str) -> Answer<Vec<Rule>> {
    let mut found = vec![];
    for (ruleset, stamp) in LOADED.into_iter().zip(read::stamps(kernel, anchor, LOADED)?) {
        let read = |at: &RulesetAt<'_>| Ok(decode::rule(&read::rule(kernel, at)?, Addresses::default())?);
        for rule in read::each(anchor, ruleset, stamp, read) {
            found.extend(rule?);
        }
    }
    Ok(found)
}

/// One rule with its addresses; `None` for one that is not of packets.
fn rule(kernel: &dyn Kernel, at: &RulesetAt<'_>) -> Answer<Option<Rule>> {
    let (list, by_netlink) = whole(kernel, at)?;
    let af = list.number("af")?;
    let mut addresses = Addresses::default();
    for pool in pools(&list, by_netlink)? {
        let into = match pool {
            PF_NAT => &mut addresses.nat,
            PF_RT => &mut addresses.route,
            _ => &mut addresses.rdr,
        };
        *into = match by_netlink {
            true => asked(kernel, at, pool, af)?,
            // a pool that cannot be read
            false => pooled(kernel, at, af)?.unwrap_or_else(|| {
                vec![PoolAddress { interface: None, address: Some(Operand::Named("?".to_owned())) }]
            }),
        };
    }
    Ok(decode::rule(&list, addresses)?)
}

/// A rule, and whether it was read by netlink, which has all fields. Before 15 DIOCGETRULENV does; pf of 15 always has netlink
/// (MODULE_DEPEND in sys/netpfil/pf/pf_ioctl.c).
fn whole(kernel: &dyn Kernel, at: &RulesetAt<'_>) -> Answer<(List, bool)> {
    // PF_GR_ANCHOR, without which the kernel dereferences a null pointer; PF_GR_ACTION, PF_GR_NR, PF_GR_TICKET
    let request = Attributes::default()
        .text(1, at.anchor)
        .with(2, &[encode::action(at.ruleset)])
        .number(3, at.nr)
        .number(4, at.ticket);
    match kernel.ask(Command::Rule, &request) {
        Ok(reply) => Ok((netlink::rule(&reply)?, true)),
        Err(failure) if failure.errno == libc::EOPNOTSUPP => Ok((read::rule(kernel, at)?, false)),
        Err(failure) => Err(failure),
    }
}

/// The pools that a rule may have: PF_RDR, also for nat and binat rules, PF_NAT for nat-to, PF_RT for route-to. Before 15 a rule
/// had one.
fn pools(list: &List, by_netlink: bool) -> Result<Vec<u8>, Malformed> {
    let mut pools = match u8::try_from(list.number("action")?).unwrap_or(u8::MAX) {
        _ if list.string("anchor_call").is_ok_and(|call| !call.is_empty()) => return Ok(vec![]),
        PF_NAT | PF_BINAT | PF_RDR => return Ok(vec![PF_RDR]),
        PF_PASS | PF_MATCH if by_netlink => vec![PF_NAT, PF_RDR],
        PF_PASS | PF_MATCH | PF_DROP => vec![],
        _ => return Ok(vec![]),
    };
    if list.number("rt")? != 0 {
        pools.push(PF_RT);
    }
    Ok(pools)
}

/// The addresses of one pool of a rule of this family, by netlink. EBUSY if the ruleset was loaded again meanwhile.
fn asked(kernel: &dyn Kernel, at: &RulesetAt<'_>, which: u8, af: u64) -> Answer<Vec<PoolAddress>> {
    // PF_AA_TICKET, PF_AA_NR, PF_AA_R_NUM, PF_AA_R_ACTION, PF_AA_ANCHOR, PF_AA_WHICH
    let request = |nr: u32| {
        let request = Attributes::default().number(2, at.ticket).number(3, nr).number(4, at.nr);
        request.with(5, &[encode::action(at.ruleset)]).text(8, at.anchor).number(10, u32::from(which))
    };
    let one = |nr| {
        let reply = netlink::pool_address(&kernel.ask(Command::Addr, &request(nr))?)?;
        let pooled = reply.list("addr")?;
        let wrap = decode::wrap(pooled.list("addr")?)?;
        Ok(decode::pool_address(&wrap, reply.number("af")?, af, pooled.string("ifname")?))
    };
    let count = netlink::count(&kernel.ask(Command::Addrs, &request(0))?)?;
    (0..count).map(one).collect()
}

/// The addresses of the pool of a rule of this family by DIOCGETADDRS: for a filter rule before 15 those of route-to. `None` if
/// the kernel does not return them. EBUSY if the ruleset was loaded again meanwhile.
fn pooled(kernel: &dyn Kernel, at: &RulesetAt<'_>, af: u64) -> Answer<Option<Vec<PoolAddress>>> {
    let mut request = PfiocPooladdr::new_zeroed();
    (request.ticket, request.r_action, request.r_num) = (at.ticket, encode::action(at.ruleset), at.nr);
    request.anchor = field(at.anchor);
    match kernel.call(Call::GetAddrs(&mut request)) {
        Ok(()) => {}
        Err(failure) if failure.errno == libc::EBUSY => return Err(failure),
        Err(_) => return Ok(None),
    }
    let mut found = vec![];
    for nr in 0..request.nr {
        request.nr = nr;
        kernel.call(Call::GetAddr(&mut request))?;
        found.push(decode::pool_address(&request.addr, u64::from(request.af), af, &text(&request.ifname)));
    }
    Ok(Some(found))
}

/// Whether an anchor has exactly these rules, in this order, whichever backend loaded them. `stamps` are of [`LOADED`]; EBUSY if the
/// anchor was loaded again meanwhile.
///
/// What 15 returns of a rule only by netlink is not read, except for af-to and reply-to: reading a rule that way stops all
/// packets for as long.
pub(super) fn holds(kernel: &dyn Kernel, anchor: &str, stamps: [Stamp; 3], rules: &[Rule]) -> Answer<bool> {
    let wanted = LOADED.map(|kind| rules.iter().filter(move |rule| rule.action.kind() == kind));
    if wanted.iter().zip(stamps).any(|(wanted, (count, _))| wanted.clone().count() != count as usize) {
        return Ok(false);
    }
    for ((ruleset, stamp), mut wanted) in LOADED.into_iter().zip(stamps).zip(wanted) {
        let read = |at: &RulesetAt<'_>| wanted.next().map_or(Ok(false), |wanted| is(kernel, at, wanted.clone()));
        for is in read::each(anchor, ruleset, stamp, read) {
            if !is? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn is(kernel: &dyn Kernel, at: &RulesetAt<'_>, mut wanted: Rule) -> Answer<bool> {
    let found = if wanted.effects.af_to.is_some() {
        rule(kernel, at)?
    } else {
        let loaded = read::rule(kernel, at)?;
        let af = loaded.number("af")?;
        let mut addresses = Addresses::default();
        if let Action::Translate { pool: Some(pool), .. } = &wanted.action {
            // if a kernel does not return the target of a redirect, it is assumed: the pass rules have the same address
            addresses.rdr = pooled(kernel, at, af)?.unwrap_or_else(|| pool.addresses.clone());
        }
        if wanted.effects.route.is_some() {
            addresses.route = match asked(kernel, at, PF_RT, af) {
                Err(failure) if failure.errno == libc::EOPNOTSUPP => pooled(kernel, at, af)?.unwrap_or_default(),
                other => other?,
            };
        }
        decode::rule(&loaded, addresses)?
    };
    // the struct of DIOCADDRULE has room for one label
    wanted.labels.truncate(1);
    Ok(found.is_some_and(|mut found| {
        found.labels.truncate(1);
        found == wanted
    }))
}
