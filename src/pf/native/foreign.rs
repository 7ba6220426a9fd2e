//! The redirects of others as the kernel gives them: what [`redirects`](crate::pf::foreign::redirects) finds by way of the device.

use std::fmt::Write as _;

use super::encode::Ruleset;
use super::kernel::{Failure, Kernel};
use super::layout::*;
use super::nv::{List, Malformed};
use super::read::{self, Address, Ports};
use crate::net::{Family, Place, PortRange, Protocol};
use crate::pf::ForeignRedirect;
use serde::{Deserialize, Serialize};

/// A rule of somebody's, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    /// A call.
    Call(String),
    /// A redirect.
    Redirect(ForeignRedirect),
}

/// What a ruleset says that concerns kport: its calls and its redirects. It has this number of rules and this ticket; EBUSY
/// where it was loaded anew meanwhile.
pub(super) fn read<K: Kernel>(
    kernel: &K,
    anchor: &str,
    ruleset: Ruleset,
    stamp: (u32, u32),
) -> Result<Vec<Found>, Failure> {
    let unreadable = |malformed| read::unreadable("DIOCGETRULENV", &malformed);
    let mut found = Vec::new();
    for loaded in read::rules_at(kernel, anchor, ruleset, stamp)? {
        if !loaded.anchor_call.is_empty() {
            found.push(Found::Call(loaded.anchor_call));
        } else if may_redirect(&loaded.rule).map_err(unreadable)? {
            let targets = read::targets(kernel, anchor, ruleset, &loaded)?;
            found.extend(redirect(anchor, &loaded.rule, &targets).map_err(unreadable)?.map(Found::Redirect));
        }
    }
    Ok(found)
}

/// Whether it is an rdr or binat rule, or a filter rule whose addresses, if it has any, are those of rdr-to: with route-to, 14 would
/// give those.
fn may_redirect(rule: &List) -> Result<bool, Malformed> {
    let action = rule.number("action")?;
    let filters = [u64::from(PF_PASS), u64::from(PF_MATCH)].contains(&action);
    let translates = [u64::from(PF_RDR), u64::from(PF_BINAT)].contains(&action);
    Ok(translates || filters && rule.number("rt")? == 0)
}

/// `rule` as a redirect; `None` for one that redirects nothing that kport publishes: no rdr-to, another protocol.
fn redirect(anchor: &str, rule: &List, targets: &[Address]) -> Result<Option<ForeignRedirect>, Malformed> {
    let action = rule.number("action")?;
    let binat = action == u64::from(PF_BINAT);
    if action != u64::from(PF_RDR) && !binat && targets.is_empty() {
        return Ok(None);
    }
    let protocol = match rule.number("proto")? {
        0 => None,
        number => match Protocol::ALL.into_iter().find(|protocol| u64::from(protocol.number()) == number) {
            Some(protocol) => Some(protocol),
            None => return Ok(None),
        },
    };
    let af = rule.number("af")?;
    let family = Family::ALL.into_iter().find(|family| u64::from(super::encode::af(*family)) == af);
    let dst = rule.list("dst")?;
    let to = read::address(dst, af)?;
    let not_to = dst.number("neg")? != 0;
    // the address that binat gives to another machine: rdr rules are asked first, and would take its packets
    // (pf_get_translation in sys/netpfil/pf/pf_lb.c)
    let taken = if binat { targets.first() } else { Some(&to).filter(|_| !not_to) };
    let interface = rule.string("ifname")?;
    let not_on = rule.number("ifnot")? != 0;
    Ok(Some(ForeignRedirect {
        anchor: anchor.to_owned(),
        family: family.or(match taken {
            Some(Address::Host(host) | Address::Network(host, _)) => Some(Family::of(*host)),
            _ => None,
        }),
        protocol,
        place: place(taken, if not_on { None } else { Some(interface) }),
        any_address: place(taken, None) == Place::Any,
        ports: if binat { None } else { Ports::read(dst)?.covered() },
        text: text(rule, protocol, family, &to, targets)?,
    }))
}

/// The narrowest place that is sure to hold all that the rule matches: what it says of the destination, because packets to
/// the addresses of em1 may come in through em0; then the interface.
fn place(to: Option<&Address>, on: Option<&str>) -> Place {
    let interface = |name: &str| name.parse().ok().map(Place::Interface);
    match to {
        Some(Address::Host(host)) => Place::address(*host).ok(),
        Some(Address::Interface(name, _)) if name != "self" => interface(name),
        _ => None,
    }
    .or_else(|| on.and_then(interface))
    .unwrap_or(Place::Any)
}

impl Ports {
    /// A range that holds every port that is matched; `None` for all of them.
    fn covered(&self) -> Option<PortRange> {
        let [a, b] = self.ports;
        let (first, last) = match self.op {
            PF_OP_EQ => (a, a),
            PF_OP_RRG => (a, b),
            PF_OP_IRG => (a.saturating_add(1), b.saturating_sub(1)),
            PF_OP_LT => (1, a.saturating_sub(1)),
            PF_OP_LE => (1, a),
            PF_OP_GT => (a.saturating_add(1), u16::MAX),
            PF_OP_GE => (a, u16::MAX),
            _ => return None,
        };
        PortRange::new(first.max(1), last)
    }

    fn text(&self) -> String {
        let [a, b] = self.ports;
        match self.op {
            0 => String::new(),
            PF_OP_IRG => format!(" port {a} >< {b}"),
            PF_OP_EQ => format!(" port = {a}"),
            3 => format!(" port != {a}"),
            PF_OP_LT => format!(" port < {a}"),
            PF_OP_LE => format!(" port <= {a}"),
            PF_OP_GT => format!(" port > {a}"),
            PF_OP_GE => format!(" port >= {a}"),
            8 => format!(" port {a} <> {b}"),
            PF_OP_RRG => format!(" port {a}:{b}"),
            other => format!(" port op {other} {a} {b}"),
        }
    }
}

/// What the rule matches and where it leads to, as `pfctl -P -s nat` and `pfctl -P -s rules` print it; of the options of a
/// filter rule nothing.
fn text(
    rule: &List,
    protocol: Option<Protocol>,
    family: Option<Family>,
    to: &Address,
    targets: &[Address],
) -> Result<String, Malformed> {
    let (name, arrow) = match rule.number("action")? {
        action if action == u64::from(PF_PASS) => ("pass", "rdr-to"),
        action if action == u64::from(PF_MATCH) => ("match", "rdr-to"),
        action if action == u64::from(PF_BINAT) => ("binat", "->"),
        _ => ("rdr", "->"),
    };
    let mut text = String::from(name);
    // writing to a String cannot fail
    if arrow == "->" && rule.number("natpass")? != 0 {
        text.push_str(" pass");
    }
    let interface = rule.string("ifname")?;
    if !interface.is_empty() {
        let not = if rule.number("ifnot")? != 0 { "! " } else { "" };
        _ = write!(text, " on {not}{interface}");
    }
    if let Some(family) = family {
        _ = write!(text, " {family}");
    }
    if let Some(protocol) = protocol {
        _ = write!(text, " proto {protocol}");
    }
    let src = rule.list("src")?;
    let from = read::address(src, rule.number("af")?)?;
    for (word, list, address) in [("from", src, &from), ("to", rule.list("dst")?, to)] {
        let not = if list.number("neg")? != 0 { "! " } else { "" };
        _ = write!(text, " {word} {not}{}{}", shown(address), Ports::read(list)?.text());
    }
    match targets {
        [] => {}
        [one] => _ = write!(text, " {arrow} {}", shown(one)),
        several => {
            let several: Vec<String> = several.iter().map(shown).collect();
            _ = write!(text, " {arrow} {{ {} }}", several.join(", "));
        }
    }
    // in host order, 0 for the port that the packet has
    let ports = rule.list("rpool")?.numbers("proxy_port")?;
    match (targets, ports) {
        ([], _) | (_, [] | [0, ..]) => {}
        (_, [first, 0]) | (_, [first]) => _ = write!(text, " port {first}"),
        (_, [first, last, ..]) if first == last => _ = write!(text, " port {first}"),
        (_, [first, last, ..]) => _ = write!(text, " port {first}:{last}"),
    }
    Ok(text)
}

fn shown(address: &Address) -> String {
    match address {
        Address::Any => "any".to_owned(),
        Address::Host(host) => host.to_string(),
        Address::Network(network, prefix) => format!("{network}/{prefix}"),
        Address::Interface(name, modifiers) => format!("({name}{modifiers})"),
        Address::Table(name) => format!("<{name}>"),
        Address::Other => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn every_comparison_of_ports_is_covered() {
        let range = |first, last| PortRange::new(first, last);
        for (op, ports, covered) in [
            (0, [0, 0], None),
            (PF_OP_EQ, [80, 0], range(80, 80)),
            (PF_OP_RRG, [80, 90], range(80, 90)),
            (PF_OP_IRG, [80, 90], range(81, 89)),
            (3, [80, 0], None),
            (PF_OP_LT, [80, 0], range(1, 79)),
            (PF_OP_LE, [80, 0], range(1, 80)),
            (PF_OP_GT, [80, 0], range(81, 65535)),
            (PF_OP_GE, [80, 0], range(80, 65535)),
            (8, [80, 90], None),
        ] {
            assert_eq!(Ports { op, ports }.covered(), covered, "{op}");
        }
    }

    #[test]
    fn a_place_holds_all_that_is_matched() {
        let host = Address::Host("192.0.2.1".parse::<IpAddr>().unwrap());
        let address = "192.0.2.1".parse().unwrap();
        let em0 = "em0".parse().unwrap();
        assert_eq!(place(Some(&host), Some("em0")), address);
        assert_eq!(place(Some(&Address::Any), Some("em0")), em0);
        assert_eq!(place(Some(&Address::Interface("em0".into(), String::new())), Some("")), em0);
        assert_eq!(place(Some(&Address::Interface("em0".into(), String::new())), Some("em1")), em0);
        assert_eq!(place(Some(&Address::Interface("self".into(), String::new())), Some("em0")), em0);
        assert_eq!(place(Some(&Address::Interface("self".into(), String::new())), Some("")), Place::Any);
        assert_eq!(place(None, None), Place::Any);
        assert_eq!(place(Some(&Address::Table("t".into())), Some("")), Place::Any);
    }
}
