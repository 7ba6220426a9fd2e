//! Whether a main ruleset passes IPv6 neighbour discovery.

use crate::error::quoted;
use crate::host::{HostInterface, Interfaces};
use crate::net::{Direction, Family, Interface};
use crate::pfconf::Conf;
use crate::pfconf::address::Side;
use crate::pfconf::rule::{Action, Rule};

/// The rule that decides if no other matches, on a host where it blocks.
pub(super) const DEFAULT_RULE: &str = "the default rule (net.pf.default_to_drop)";

/// The rule that blocks IPv6 neighbour discovery (icmp6) on an interface, if there is one. Its addresses are
/// link-local, multicast and the target: a block of certain addresses is not taken to be meant for it; a pass of
/// certain addresses is, if it names icmp6. With `drop` the default rule blocks.
pub(super) fn blocked(
    main: &Conf,
    all: &[HostInterface],
    on: Interface,
    direction: Direction,
    drop: bool,
) -> Option<String> {
    const ICMP6: u8 = 58;
    let is_in = |name: &str| name.parse().is_ok_and(|name| Interfaces(all).is_in(on, name));
    if main.skip.iter().any(|name| is_in(name)) {
        return None;
    }
    let mut last: Option<&Rule> = None;
    for rule in main.rules() {
        let when = &rule.when;
        let certain = when.from != Side::default() || when.to != Side::default() || when.tagged.is_some();
        let meant = match rule.action {
            Action::Block => !certain,
            Action::Pass => !certain || when.protocol == Some(ICMP6),
            Action::Match | Action::Translate { .. } | Action::Call(..) => false,
        };
        if meant
            && when.on.as_ref().is_none_or(|on| is_in(&on.name) != on.not)
            && when.direction.is_none_or(|wanted| wanted == direction)
            && when.family != Some(Family::Inet)
            && when.protocol.is_none_or(|number| number == ICMP6)
        {
            last = Some(rule);
            if rule.quick {
                break;
            }
        }
    }
    match last {
        Some(rule) => (rule.action == Action::Block).then(|| quoted(&rule.origin.text)),
        None => drop.then(|| DEFAULT_RULE.to_owned()),
    }
}
