//! Rulesets as values, with everything that this kernel returns of their rules.

use std::collections::BTreeMap;

use zerocopy::FromZeros;

use super::decode::{self, Addresses, Wrap};
use super::encode::{self, EVERY};
use super::kernel::{Call, Failure, Kernel};
use super::layout::*;
use super::netlink::{self, Attributes, Command};
use super::nv::{List, Malformed};
use super::read::{self, RulesetAt, Stamp};
use crate::pfconf::address::{Operand, PoolAddress};
use crate::pfconf::path::Called;
use crate::pfconf::rule::{Action, Rule, RuleKind};

/// Rules by the path of their anchor.
pub(super) type ByPath = BTreeMap<String, Vec<Rule>>;

/// The stamps of the rulesets of an anchor, in the order of [`EVERY`].
pub(super) type Stamps = [Stamp; 4];

/// The stamps at which rulesets were read, by the path of their anchor.
pub(super) type ReadAt = Vec<(String, Stamps)>;

/// The rules of an anchor, and of those in its braces. Their stamps are added to `stamps`, so that a later change can be
/// detected. EBUSY if one was loaded again meanwhile.
pub(super) fn with_braces<K: Kernel>(kernel: &K, anchor: &str, stamps: &mut ReadAt) -> Result<ByPath, Failure> {
    let mut read = ByPath::new();
    let mut waiting = vec![anchor.to_owned()];
    while let Some(at) = waiting.pop() {
        if read.contains_key(&at) {
            continue;
        }
        let every = read::every_stamp(kernel, &at)?;
        stamps.push((at.clone(), every));
        let rules = rules_at(kernel, &at, every)?;
        waiting.extend(rules.iter().filter_map(|rule| in_braces(&at, rule)));
        read.insert(at, rules);
    }
    Ok(read)
}

/// The path of the anchor in braces that a rule calls: pfctl(8) gives such an anchor a name that begins with `_`.
fn in_braces(caller: &str, rule: &Rule) -> Option<String> {
    let Action::Call(_, called) = &rule.action else { return None };
    let called = Called::resolve(caller, called);
    let below = called.path.strip_prefix(caller)?.trim_start_matches('/');
    (!called.children && below.starts_with('_')).then_some(called.path)
}

/// The rules of an anchor. EBUSY if it was loaded again meanwhile.
pub(super) fn rules_of_all<K: Kernel>(kernel: &K, anchor: &str) -> Result<Vec<Rule>, Failure> {
    rules_at(kernel, anchor, read::every_stamp(kernel, anchor)?)
}

fn rules_at<K: Kernel>(kernel: &K, anchor: &str, stamps: Stamps) -> Result<Vec<Rule>, Failure> {
    let mut all = vec![];
    for (ruleset, stamp) in EVERY.into_iter().zip(stamps) {
        all.append(&mut rules(kernel, anchor, ruleset, stamp)?);
    }
    Ok(all)
}

/// The rules of one ruleset with this number of rules and this ticket. EBUSY if it was loaded again meanwhile.
pub(super) fn rules<K: Kernel>(
    kernel: &K,
    anchor: &str,
    ruleset: RuleKind,
    (count, ticket): Stamp,
) -> Result<Vec<Rule>, Failure> {
    let mut rules = vec![];
    for nr in 0..count {
        let at = RulesetAt { anchor, ruleset, ticket, nr };
        rules.extend(rule(kernel, &at)?.map(Rule::named));
    }
    Ok(rules)
}

/// One rule with its addresses; `None` for one that is not of packets.
pub(super) fn rule<K: Kernel>(kernel: &K, at: &RulesetAt<'_>) -> Result<Option<Rule>, Failure> {
    let (list, call, by_netlink) = whole(kernel, at)?;
    let read = || Ok((pools(&list, &call, by_netlink)?, list.number("af")?));
    let (which, af) = read().map_err(|malformed| at.unreadable(&malformed))?;
    let mut addresses = Addresses::default();
    for pool in which {
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
    decode::rule(&list, &call, addresses).map_err(|malformed| at.unreadable(&malformed))
}

/// A rule, the anchor that it calls, and whether it was read by netlink, which has all fields. Before 15 DIOCGETRULENV does; pf
/// of 15 always has netlink (MODULE_DEPEND in sys/netpfil/pf/pf_ioctl.c).
fn whole<K: Kernel>(kernel: &K, at: &RulesetAt<'_>) -> Result<(List, String, bool), Failure> {
    // PF_GR_ANCHOR, without which the kernel dereferences a null pointer; PF_GR_ACTION, PF_GR_NR, PF_GR_TICKET
    let request = Attributes::default()
        .text(1, at.anchor)
        .with(2, &[encode::action(at.ruleset)])
        .number(3, at.nr)
        .number(4, at.ticket);
    match kernel.ask(Command::Rule, &request) {
        Ok(reply) => {
            let (list, call) = netlink::rule(&reply).map_err(|malformed| at.unreadable(&malformed))?;
            Ok((list, call, true))
        }
        Err(failure) if failure.errno == libc::EOPNOTSUPP => {
            let loaded = read::rule(kernel, at)?;
            Ok((loaded.rule, loaded.anchor_call, false))
        }
        Err(failure) => Err(at.failed(failure)),
    }
}

/// The pools that a rule may have: PF_RDR, also for nat and binat rules, PF_NAT for nat-to, PF_RT for route-to. Before 15 a rule
/// had one.
fn pools(list: &List, call: &str, by_netlink: bool) -> Result<Vec<u8>, Malformed> {
    let routes = list.number("rt")? != 0;
    Ok(match u8::try_from(list.number("action")?).unwrap_or(u8::MAX) {
        _ if !call.is_empty() => vec![],
        PF_NAT | PF_BINAT | PF_RDR => vec![PF_RDR],
        PF_PASS | PF_DROP | PF_MATCH if !by_netlink => {
            if routes {
                vec![PF_RT]
            } else {
                vec![]
            }
        }
        PF_PASS | PF_MATCH if routes => vec![PF_NAT, PF_RDR, PF_RT],
        PF_PASS | PF_MATCH => vec![PF_NAT, PF_RDR],
        PF_DROP if routes => vec![PF_RT],
        _ => vec![],
    })
}

/// The addresses of one pool of a rule of this family, by netlink. EBUSY if the ruleset was loaded again meanwhile.
fn asked<K: Kernel>(kernel: &K, at: &RulesetAt<'_>, which: u8, af: u64) -> Result<Vec<PoolAddress>, Failure> {
    // PF_AA_TICKET, PF_AA_NR, PF_AA_R_NUM, PF_AA_R_ACTION, PF_AA_ANCHOR, PF_AA_WHICH
    let request = |nr: u32| {
        let request = Attributes::default().number(2, at.ticket).number(3, nr).number(4, at.nr);
        request.with(5, &[encode::action(at.ruleset)]).text(8, at.anchor).number(10, u32::from(which))
    };
    let unreadable = |malformed| at.unreadable(&malformed);
    let reply = kernel.ask(Command::Addrs, &request(0)).map_err(|failure| at.failed(failure))?;
    let count = netlink::count(&reply).map_err(unreadable)?;
    let one = |nr| {
        let reply = kernel.ask(Command::Addr, &request(nr)).map_err(|failure| at.failed(failure))?;
        let read = || {
            let reply = netlink::pool_address(&reply)?;
            let pooled = reply.list("addr")?;
            let wrap = Wrap::of_list(pooled.list("addr")?)?;
            Ok(decode::pool_address(&wrap, reply.number("af")?, af, pooled.string("ifname")?))
        };
        read().map_err(unreadable)
    };
    (0..count).map(one).collect()
}

/// The addresses of a filter rule's reply-to, on 15 by netlink; none if the kernel does not return them. EBUSY if the ruleset
/// was loaded again meanwhile.
pub(super) fn routed<K: Kernel>(kernel: &K, at: &RulesetAt<'_>, af: u64) -> Result<Vec<PoolAddress>, Failure> {
    match asked(kernel, at, PF_RT, af) {
        Err(failure) if failure.errno == libc::EOPNOTSUPP => Ok(pooled(kernel, at, af)?.unwrap_or_default()),
        other => other,
    }
}

/// The addresses of the pool of a rule of this family by DIOCGETADDRS: for a filter rule before 15 those of route-to. `None` if
/// the kernel does not return them. EBUSY if the ruleset was loaded again meanwhile.
pub(super) fn pooled<K: Kernel>(kernel: &K, at: &RulesetAt<'_>, af: u64) -> Result<Option<Vec<PoolAddress>>, Failure> {
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
        let wrap = Wrap::of_struct(&request.addr);
        found.push(decode::pool_address(&wrap, u64::from(request.af), af, &text(&request.ifname)));
    }
    Ok(Some(found))
}
