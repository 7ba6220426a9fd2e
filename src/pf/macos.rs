//! Apple's pf, by the `pfctl` crate. Type-checked, never run: macOS has no jails, and this is for trying rules there
//! with other hosts.
//!
//! What the crate does not support is an error, with two exceptions, which make the rules wider than on FreeBSD: it has
//! no tags, so a pass rule also passes what is sent straight to the target; and no dynamic addresses, so `on "en0" ...
//! to ("en0")` becomes `on "en0" ... to any`. It reads nothing: anchors, labels, states and other tools' redirects are
//! unknown, each of these calls is [`Kind::Unsupported`] by default, and the publisher makes one of them first in a transaction.
//! Whether the main ruleset calls kport's anchors is only known after a load, which adds the calls.

use std::cell::Cell;

use pfctl::{
    AddrFamily, AnchorChange, AnchorKind, Direction, Endpoint, FilterRule, FilterRuleAction, FilterRuleBuilder, Ip,
    PfCtl, Port, PortRangeModifier, Proto, RedirectRule, RedirectRuleAction, RedirectRuleBuilder, RuleLog, StatePolicy,
    TcpFlag, TcpFlags,
};

use super::{Firewall, Status};
use crate::error::{Error, Kind, Result, error};
use crate::name::{Anchor, PARENT};
use crate::net::{self, Family, Interface, PortRange, Protocol};
use crate::rule::{Address, Match, Member, Routing, Rule, StateOptions};

/// Apple's pf.
#[derive(Clone, Debug, Default)]
pub struct MacOs {
    /// The main ruleset has the calls of kport's anchors, since [`MacOs::replace`] has added what was missing.
    called: Cell<bool>,
}

impl Firewall for MacOs {
    fn name(&self) -> &'static str {
        "macos"
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        let (mut redirects, mut filters) = (vec![], vec![]);
        for rule in rules {
            for Member { on, from, to } in rule.matches().members() {
                let ends = || Ok::<_, Error>((address(from, on)?, address(to, on)?));
                match rule {
                    Rule::Nat { .. } => return Err(unsupported("a nat rule")),
                    Rule::AfTo { .. } => return Err(unsupported("af-to")),
                    Rule::Rdr { matches, tag: _, target, ports } => {
                        redirects.push(redirect(matches, on, ends()?, Endpoint::new(*target, port(*ports)))?);
                    }
                    Rule::Pass { .. } => filters.push(filter(rule, on, ends()?)?),
                }
            }
        }
        let mut change = AnchorChange::new();
        change.set_redirect_rules(redirects);
        change.set_filter_rules(filters);
        let mut pf = PfCtl::new().map_err(failed)?;
        for kind in [AnchorKind::Redirect, AnchorKind::Filter] {
            pf.try_add_anchor(&format!("{PARENT}/*"), kind).map_err(failed)?;
        }
        self.called.set(true);
        pf.set_rules(anchor.path(), change).map_err(failed)
    }

    fn status(&self) -> Result<Status> {
        let enabled = PfCtl::new().and_then(|mut pf| pf.is_enabled()).map_err(failed)?;
        // nat rules are an error, so their call is never added
        Ok(Status { enabled, nat_anchor: false, rdr_anchor: self.called.get(), anchor: self.called.get() })
    }
}

fn redirect(matches: &Match, on: Option<&Interface>, (from, to): (Ip, Ip), target: Endpoint) -> Result<RedirectRule> {
    let mut builder = RedirectRuleBuilder::default();
    builder.action(RedirectRuleAction::Redirect).af(family(matches)).proto(protocol(matches)?);
    builder.from(from).to(Endpoint::new(to, port(matches.ports))).redirect_to(target);
    if let Some(on) = on {
        builder.interface(on.as_str());
    }
    builder.build().map_err(failed)
}

/// The pass rule for one member of its lists.
fn filter(rule: &Rule, on: Option<&Interface>, (from, to): (Ip, Ip)) -> Result<FilterRule> {
    let Rule::Pass { direction, log, quick, routing, matches, tagged: _, state, labels: [_, label] } = rule else {
        return Err(error!(Internal, "no pass rule: {rule}"));
    };
    if *state != StateOptions::default() {
        return Err(unsupported("a limit of connections"));
    }
    if *routing != Routing::default() {
        return Err(unsupported("reply-to"));
    }
    let mut builder = FilterRuleBuilder::default();
    builder.action(FilterRuleAction::Pass).quick(*quick).af(family(matches)).proto(protocol(matches)?);
    builder.direction(match direction {
        None => Direction::Any,
        Some(net::Direction::In) => Direction::In,
        Some(net::Direction::Out) => Direction::Out,
    });
    if *log {
        builder.log(RuleLog::ExcludeMatchingState);
    }
    builder.from(from).to(Endpoint::new(to, port(matches.ports))).keep_state(StatePolicy::Keep);
    builder.label(label.as_str());
    if matches.protocol == Protocol::Tcp {
        builder.tcp_flags(TcpFlags::new(&[TcpFlag::Syn], &[TcpFlag::Syn, TcpFlag::Ack]));
    }
    if let Some(on) = on {
        builder.interface(on.as_str());
    }
    builder.build().map_err(failed)
}

fn address(address: Option<&Address>, on: Option<&Interface>) -> Result<Ip> {
    match address {
        None | Some(Address::Any) => Ok(Ip::Any),
        Some(Address::Host(host)) => Ok((*host).into()),
        Some(Address::Interface(interface)) if on == Some(interface) => Ok(Ip::Any),
        Some(other) => Err(unsupported(&format!("the address {other}"))),
    }
}

fn port(range: PortRange) -> Port {
    match range.count() {
        1 => range.first().into(),
        _ => Port::Range(range.first(), range.last(), PortRangeModifier::Inclusive),
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
    error!(Unsupported, "the macOS backend does not support {what}; pfctl(8) does")
}

fn failed(error: pfctl::Error) -> Error {
    let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
    let kind = match error.kind() {
        pfctl::ErrorKind::DeviceOpen => Kind::Permission,
        _ => Kind::System,
    };
    Error::new(kind, format!("pf of macOS: {error}{source}; this needs root"))
}
