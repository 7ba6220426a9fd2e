//! The redirects that are not kport's: in the main ruleset, in what it calls, and in the anchors of other tools.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::encode::Ruleset;
use super::kernel::{Failure, Kernel};
use super::layout::*;
use super::nv::{List, Malformed};
use super::read::{self, Held, Where};
use crate::name::PARENT;
use crate::net::{Family, Place, PortRange, Protocol};
use crate::pf::ForeignRedirect;

/// Where Bastille (`rdr`), AppJail, pot and the CNI plugins put their redirects: looked at whether they are called or not.
const TOOLS: [&str; 4] = ["rdr", "appjail-rdr", "pot-rdr", "cni-rdr"];

/// Every redirect outside kport's anchors. EBUSY where a ruleset was loaded anew meanwhile.
pub fn redirects<K: Kernel>(kernel: &K) -> Result<Vec<ForeignRedirect>, Failure> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut waiting = vec![String::new()];
    for tool in TOOLS {
        waiting.extend(below(kernel, tool)?);
        waiting.push(tool.to_owned());
    }
    while let Some(anchor) = waiting.pop() {
        let own = anchor.strip_prefix(PARENT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if own || !seen.insert(anchor.clone()) {
            continue;
        }
        // 15 has redirects among the filter rules as well: rdr-to
        for ruleset in [Ruleset::Rdr, Ruleset::Filter] {
            for held in read::rules(kernel, &anchor, ruleset)? {
                let unreadable = |malformed| read::unreadable("DIOCGETRULENV", &malformed);
                if held.anchor_call.is_empty() {
                    if may_redirect(&held.rule).map_err(unreadable)? {
                        let targets = read::targets(kernel, &anchor, ruleset, &held)?;
                        found.extend(redirect(&anchor, &held.rule, &targets).map_err(unreadable)?);
                    }
                    continue;
                }
                let (path, wildcard) = called(&anchor, &held.anchor_call);
                match wildcard {
                    false => waiting.push(path),
                    true => waiting.extend(read::children(kernel, &path)?.iter().map(|child| join(&path, child))),
                }
            }
        }
    }
    // what is found must not depend on the order of the walk
    found.sort_by(|a, b| (&a.anchor, &a.text).cmp(&(&b.anchor, &b.text)));
    Ok(found)
}

/// Every anchor below `anchor`.
fn below<K: Kernel>(kernel: &K, anchor: &str) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    let mut waiting = vec![anchor.to_owned()];
    while let Some(anchor) = waiting.pop() {
        for child in read::children(kernel, &anchor)? {
            let path = join(&anchor, &child);
            waiting.push(path.clone());
            found.push(path);
        }
    }
    Ok(found)
}

fn join(anchor: &str, child: &str) -> String {
    if anchor.is_empty() { child.to_owned() } else { format!("{anchor}/{child}") }
}

/// The anchor that a call in `caller` names, and whether its children are meant (pf_kanchor_setup in
/// sys/netpfil/pf/pf_ruleset.c).
pub fn called(caller: &str, call: &str) -> (String, bool) {
    let path = match call.strip_prefix('/') {
        Some(absolute) => absolute.to_owned(),
        None => {
            let (mut base, mut rest) = (caller, call);
            while let Some(inner) = rest.strip_prefix("../") {
                base = base.rsplit_once('/').map_or("", |(parent, _)| parent);
                rest = inner;
            }
            join(base, rest)
        }
    };
    if path == "*" {
        return (String::new(), true);
    }
    match path.strip_suffix("/*") {
        Some(parent) => (parent.to_owned(), true),
        None => (path, false),
    }
}

/// Whether a rule of the main ruleset calls kport's anchors.
pub fn calls_kport(held: &Held) -> bool {
    called("", &held.anchor_call) == (PARENT.to_owned(), true)
}

/// Whether it is an rdr rule, or a filter rule whose addresses, if it has any, are those of rdr-to: with route-to, 14 would
/// give those.
fn may_redirect(rule: &List) -> Result<bool, Malformed> {
    let action = rule.number("action")?;
    let filters = [u64::from(PF_PASS), u64::from(PF_MATCH)].contains(&action);
    Ok(action == u64::from(PF_RDR) || filters && rule.number("rt")? == 0)
}

/// `rule` as a redirect; `None` for one that redirects nothing that kport publishes: no rdr-to, another protocol.
fn redirect(anchor: &str, rule: &List, targets: &[Where]) -> Result<Option<ForeignRedirect>, Malformed> {
    if rule.number("action")? != u64::from(PF_RDR) && targets.is_empty() {
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
    let interface = rule.string("ifname")?;
    let not_on = rule.number("ifnot")? != 0;
    Ok(Some(ForeignRedirect {
        anchor: anchor.to_owned(),
        family: family.or(match &to {
            Where::Host(host) | Where::Network(host, _) if !not_to => Some(Family::of(*host)),
            _ => None,
        }),
        protocol,
        place: place(if not_to { None } else { Some(&to) }, if not_on { None } else { Some(interface) }),
        ports: Ports::read(dst)?.covered(),
        text: text(rule, protocol, family, &to, targets)?,
    }))
}

/// The narrowest place that is sure to hold all that the rule matches: what it says of the destination, because packets to
/// the addresses of em1 may come in through em0; then the interface.
fn place(to: Option<&Where>, on: Option<&str>) -> Place {
    let interface = |name: &str| name.parse().ok().map(Place::Interface);
    match to {
        Some(Where::Host(host)) => Place::address(*host).ok(),
        Some(Where::Interface(name, _)) if name != "self" => interface(name),
        _ => None,
    }
    .or_else(|| on.and_then(interface))
    .unwrap_or(Place::Any)
}

struct Ports {
    op: u8,
    ports: [u16; 2],
}

impl Ports {
    fn read(rule_addr: &List) -> Result<Ports, Malformed> {
        // the numbers are the bytes of the struct's field: network order
        let port = |number: Option<&u64>| number.map_or(0, |number| u16::from_be(*number as u16));
        let numbers = rule_addr.numbers("port")?;
        Ok(Ports { op: rule_addr.number("port_op")? as u8, ports: [port(numbers.first()), port(numbers.get(1))] })
    }

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
    to: &Where,
    targets: &[Where],
) -> Result<String, Malformed> {
    let (name, arrow) = match rule.number("action")? {
        action if action == u64::from(PF_PASS) => ("pass", "rdr-to"),
        action if action == u64::from(PF_MATCH) => ("match", "rdr-to"),
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

fn shown(address: &Where) -> String {
    match address {
        Where::Any => "any".to_owned(),
        Where::Host(host) => host.to_string(),
        Where::Network(network, prefix) => format!("{network}/{prefix}"),
        Where::Interface(name, modifiers) => format!("({name}{modifiers})"),
        Where::Table(name) => format!("<{name}>"),
        Where::Other => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn calls_are_found_where_pf_finds_them() {
        for (caller, call, path, wildcard) in [
            ("", "kport/*", "kport", true),
            ("", "/kport/*", "kport", true),
            ("", "rdr", "rdr", false),
            ("", "*", "", true),
            ("a/b", "c", "a/b/c", false),
            ("a/b", "../c/*", "a/c", true),
            ("a/b", "../../c", "c", false),
            ("a/b", "/c", "c", false),
            ("a", "*", "a", true),
        ] {
            assert_eq!(called(caller, call), (path.to_owned(), wildcard), "{caller} {call}");
        }
    }

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
        let host = Where::Host("192.0.2.1".parse::<IpAddr>().unwrap());
        let address = "192.0.2.1".parse().unwrap();
        let em0 = "em0".parse().unwrap();
        assert_eq!(place(Some(&host), Some("em0")), address);
        assert_eq!(place(Some(&Where::Any), Some("em0")), em0);
        assert_eq!(place(Some(&Where::Interface("em0".into(), String::new())), Some("")), em0);
        assert_eq!(place(Some(&Where::Interface("em0".into(), String::new())), Some("em1")), em0);
        assert_eq!(place(Some(&Where::Interface("self".into(), String::new())), Some("em0")), em0);
        assert_eq!(place(Some(&Where::Interface("self".into(), String::new())), Some("")), Place::Any);
        assert_eq!(place(None, None), Place::Any);
        assert_eq!(place(Some(&Where::Table("t".into())), Some("")), Place::Any);
    }
}
