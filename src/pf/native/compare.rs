//! Whether an anchor holds just the rules that it was given: rule by rule, as DIOCGETRULENV gives them.

use std::num::NonZeroU32;

use super::encode::{self, Ruleset};
use super::kernel::{Failure, Kernel};
use super::layout::*;
use super::nv::{List, Malformed};
use super::read::{self, Address};
use crate::net::Direction;
use crate::rule::{self, Match, Member, Rule};

/// Whether `anchor` holds these rules and no others, in their order, whichever backend loaded them. What it compares is all
/// that decides about a packet. `stamps` are what [`read::stamps`] has said; EBUSY where the anchor was loaded anew meanwhile.
pub(super) fn holds<K: Kernel>(
    kernel: &K,
    anchor: &str,
    stamps: &[(u32, u32); 3],
    rules: &[Rule],
) -> Result<bool, Failure> {
    for (ruleset, (count, ticket)) in Ruleset::ALL.into_iter().zip(*stamps) {
        let of_ruleset = rules.iter().filter(|rule| Ruleset::of(rule) == ruleset);
        let wanted: Vec<(&Rule, Member<'_>)> =
            of_ruleset.flat_map(|rule| rule.matches().members().map(move |member| (rule, member))).collect();
        if count as usize != wanted.len() {
            return Ok(false);
        }
        for (nr, (rule, member)) in (0..).zip(wanted) {
            let loaded = read::rule(kernel, anchor, ruleset, ticket, nr)?;
            let same = loaded.anchor_call.is_empty()
                && is(rule, member, &loaded.rule).map_err(|malformed| read::unreadable("DIOCGETRULENV", &malformed))?;
            if !same || !leads_to(rule, || read::targets(kernel, anchor, ruleset, &loaded))? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether the kernel's rule is `rule` for one member of its lists.
fn is(rule: &Rule, member: Member<'_>, loaded: &List) -> Result<bool, Malformed> {
    // `on`, `from` and `to` are the member's; nothing else of a match may be left out
    let Match { on: _, family, protocol, from: _, to: _, ports } = rule.matches();
    let af = u64::from(encode::af(*family));
    let (src, dst) = (loaded.list("src")?, loaded.list("dst")?);
    let number = |name, value: u64| Ok::<_, Malformed>(loaded.number(name)? == value);
    let text = |name, value: &str| Ok::<_, Malformed>(loaded.string(name)? == value);
    let ports = match ports.count() {
        1 => read::Ports { op: PF_OP_EQ, ports: [ports.first(), 0] },
        _ => read::Ports { op: PF_OP_RRG, ports: [ports.first(), ports.last()] },
    };
    let matches = number("action", u64::from(Ruleset::of(rule).action()))?
        && number("af", af)?
        && number("proto", u64::from(protocol.number()))?
        && text("ifname", member.on.map_or("", |on| on.as_str()))?
        && number("ifnot", 0)?
        && read::address(src, af)? == address(member.from)
        && read::address(dst, af)? == address(member.to)
        && src.number("neg")? == 0
        && dst.number("neg")? == 0
        && src.number("port_op")? == 0
        && read::Ports::read(dst)? == ports;
    if !matches {
        return Ok(false);
    }
    match rule {
        Rule::Nat { .. } => Ok(true),
        Rule::Rdr { matches: _, tag, target: _, ports } => {
            let last = if ports.count() == 1 { 0 } else { u64::from(ports.last()) };
            let proxy = loaded.list("rpool")?.numbers("proxy_port")?;
            Ok(text("tagname", tag.as_str())? && proxy == [u64::from(ports.first()), last])
        }
        Rule::Pass { matches: _, direction, log, quick, tagged, state, labels: [jail, _] } => {
            let direction = match direction {
                None => 0,
                Some(Direction::In) => PF_IN,
                Some(Direction::Out) => PF_OUT,
            };
            let limit = |limit: Option<NonZeroU32>| u64::from(limit.map_or(0, NonZeroU32::get));
            let rate = state.max_src_conn_rate.map_or([0, 0], |rate| [rate.connections(), rate.seconds()]);
            Ok(number("direction", u64::from(direction))?
                && number("log", u64::from(*log))?
                && number("quick", u64::from(*quick))?
                && text("match_tagname", tagged.as_ref().map_or("", |tag| tag.as_str()))?
                && loaded.strings("labels")?.first().is_some_and(|label| label == jail.as_str())
                && number("max_states", limit(state.max))?
                && number("max_src_states", limit(state.max_src_states))?
                && number("max_src_conn", limit(state.max_src_conn))?
                && number("max_src_conn_rate.limit", u64::from(rate[0]))?
                && number("max_src_conn_rate.seconds", u64::from(rate[1]))?)
        }
    }
}

/// What the kernel says of an address that it was given so.
fn address(given: Option<&rule::Address>) -> Address {
    let interface = |name: &str, what: &str| Address::Interface(name.to_owned(), what.to_owned());
    match given {
        None | Some(rule::Address::Any) => Address::Any,
        Some(rule::Address::Host(host)) => Address::Host(*host),
        Some(rule::Address::Network(network)) => match network.prefix_len() {
            0 => Address::Any,
            whole if whole == network.max_prefix_len() => Address::Host(network.network()),
            length => Address::Network(network.network(), u32::from(length)),
        },
        Some(rule::Address::Interface(name)) => interface(name.as_str(), ""),
        Some(rule::Address::InterfaceNetwork(name)) => interface(name.as_str(), ":network"),
        Some(rule::Address::Own) => interface("self", ""),
        Some(rule::Address::Table(table)) => Address::Table(table.as_str().to_owned()),
    }
}

/// Whether a redirect leads where it was to lead. Of a kernel that does not tell it is believed: the pass rules have the same
/// address. Those of nat rules are not told by the same call in 15 (pf_ioctl_get_addrs), and are the interface's own.
fn leads_to(rule: &Rule, targets: impl FnOnce() -> Result<Vec<Address>, Failure>) -> Result<bool, Failure> {
    let Rule::Rdr { target, .. } = rule else { return Ok(true) };
    let targets = targets()?;
    Ok(targets.is_empty() || targets == [Address::Host(*target)])
}
