//! Apple's pf, by the `pfctl` crate. Type-checked, never run: macOS has no jails, and this is for who wants to try rules
//! there against other hosts.
//!
//! What the crate cannot say is refused, but for two things, which make the rules wider than on FreeBSD: it has
//! no tags, so that a pass rule also lets in what is sent straight to the target; and no dynamic addresses, so that
//! `on "en0" ... to ("en0")` becomes `on "en0" ... to any`. It reads nothing back: anchors, labels and other tools'
//! redirects are not known, and that the main ruleset calls kport's anchors is seen to by adding the calls.

use std::net::IpAddr;

use pfctl::{
    AddrFamily, AnchorChange, AnchorKind, Endpoint, FilterRule, FilterRuleAction, FilterRuleBuilder, Ip, PfCtl, Port,
    PortRangeModifier, Proto, RedirectRule, RedirectRuleAction, RedirectRuleBuilder, StatePolicy, TcpFlag, TcpFlags,
};

use super::{Firewall, ForeignRedirect, LoadedRule, Status};
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, Label, PARENT, Table};
use crate::net::{Family, Interface, PortRange, Protocol};
use crate::rules::{Address, Match, Rule};

/// Apple's pf.
#[derive(Clone, Copy, Debug, Default)]
pub struct MacOs;

impl Firewall for MacOs {
    fn name(&self) -> &'static str {
        "macos"
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        let mut redirects = Vec::with_capacity(rules.len());
        let mut filters = Vec::with_capacity(rules.len());
        for rule in rules {
            match rule {
                Rule::Nat { .. } => return Err(unsupported("a nat rule")),
                Rule::Rdr { matches, tag: _, target, ports } => redirects.extend(redirect(matches, *target, *ports)?),
                Rule::Pass { matches, tagged: _, labels: [_, label] } => filters.extend(filter(matches, label)?),
            }
        }
        let mut change = AnchorChange::new();
        change.set_redirect_rules(redirects);
        change.set_filter_rules(filters);
        let mut pf = PfCtl::new().map_err(failed)?;
        for kind in [AnchorKind::Redirect, AnchorKind::Filter] {
            pf.try_add_anchor(&format!("{PARENT}/*"), kind).map_err(failed)?;
        }
        pf.set_rules(anchor.path(), change).map_err(failed)
    }

    fn anchors(&self) -> Result<Vec<String>> {
        Err(unsupported("listing anchors"))
    }

    fn loaded(&self, _: &Anchor) -> Result<Vec<LoadedRule>> {
        Err(unsupported("reading rules back"))
    }

    fn kill_states(&self, _: &Label) -> Result<u64> {
        Err(unsupported("ending states by label"))
    }

    fn status(&self) -> Result<Status> {
        let enabled = PfCtl::new().and_then(|mut pf| pf.is_enabled()).map_err(failed)?;
        // the calls are added by `replace`; there are no nat rules to call
        Ok(Status { enabled, nat_anchor: true, rdr_anchor: true, anchor: true })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        Err(unsupported("reading other tools' redirects"))
    }

    fn has_table(&self, _: &Table) -> Result<bool> {
        Err(unsupported("a table"))
    }

    fn rulesets(&self) -> Result<Vec<(String, String)>> {
        Err(unsupported("reading rulesets"))
    }
}

fn redirect(matches: &Match, target: IpAddr, ports: PortRange) -> Result<Vec<RedirectRule>> {
    let mut made = Vec::new();
    for (on, from, to) in members(matches)? {
        let mut builder = RedirectRuleBuilder::default();
        builder.action(RedirectRuleAction::Redirect).af(family(matches)).proto(protocol(matches)?);
        builder
            .from(from)
            .to(Endpoint::new(to, port(matches.ports)))
            .redirect_to(Endpoint::new(ip(target), port(ports)));
        if let Some(on) = on {
            builder.interface(on.as_str());
        }
        made.push(builder.build().map_err(failed)?);
    }
    Ok(made)
}

fn filter(matches: &Match, label: &Label) -> Result<Vec<FilterRule>> {
    let mut made = Vec::new();
    for (on, from, to) in members(matches)? {
        let mut builder = FilterRuleBuilder::default();
        builder.action(FilterRuleAction::Pass).quick(true).af(family(matches)).proto(protocol(matches)?);
        builder.from(from).to(Endpoint::new(to, port(matches.ports))).keep_state(StatePolicy::Keep);
        builder.label(label.as_str());
        if matches.protocol == Protocol::Tcp {
            builder.tcp_flags(TcpFlags::new(&[TcpFlag::Syn], &[TcpFlag::Syn, TcpFlag::Ack]));
        }
        if let Some(on) = on {
            builder.interface(on.as_str());
        }
        made.push(builder.build().map_err(failed)?);
    }
    Ok(made)
}

/// One for each rule that `matches` stands for: the interface, the source, the destination.
fn members(matches: &Match) -> Result<Vec<(Option<Interface>, Ip, Ip)>> {
    fn each<T: Clone>(list: &[T]) -> Vec<Option<T>> {
        if list.is_empty() { vec![None] } else { list.iter().cloned().map(Some).collect() }
    }
    let mut made = Vec::new();
    for on in each(&matches.on) {
        for from in each(&matches.from) {
            for to in each(&matches.to) {
                made.push((on, address(from.as_ref(), on)?, address(to.as_ref(), on)?));
            }
        }
    }
    Ok(made)
}

fn address(address: Option<&Address>, on: Option<Interface>) -> Result<Ip> {
    match address {
        None | Some(Address::Any) => Ok(Ip::Any),
        Some(Address::Host(host)) => Ok(ip(*host)),
        Some(Address::Interface(interface)) if on == Some(*interface) => Ok(Ip::Any),
        Some(other) => Err(unsupported(&format!("the address {other}"))),
    }
}

fn ip(address: IpAddr) -> Ip {
    match address {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn port(range: PortRange) -> Port {
    if range.count() == 1 {
        range.first().into()
    } else {
        Port::Range(range.first(), range.last(), PortRangeModifier::Inclusive)
    }
}

fn family(matches: &Match) -> AddrFamily {
    match matches.family {
        Family::Inet => AddrFamily::Ipv4,
        Family::Inet6 => AddrFamily::Ipv6,
    }
}

fn protocol(matches: &Match) -> Result<Proto> {
    match matches.protocol {
        Protocol::Tcp => Ok(Proto::Tcp),
        Protocol::Udp => Ok(Proto::Udp),
        Protocol::Sctp => Err(unsupported("sctp")),
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{what} is beyond the macOS backend; pfctl(8) itself can do it"))
}

fn failed(error: pfctl::Error) -> Error {
    let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    let kind = match error.kind() {
        pfctl::ErrorKind::DeviceOpen => Kind::Permission,
        _ => Kind::System,
    };
    Error::new(kind, format!("pf of macOS: {error}{source}; it takes root"))
}
