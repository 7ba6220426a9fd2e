//! Whether pf would look at kport's rules at all: what `publish` checks each time, and `kport doctor` in its list. One place
//! for the questions and for their words.

use crate::error::{Problem, Result};
use crate::host::{Host, HostInterface, Interfaces};
use crate::net::Family;
use crate::pf::Status;
use crate::publication::Redirect;

/// pf is disabled.
pub fn disabled(status: &Status) -> Option<Problem> {
    (!status.enabled).then(|| Problem {
        seen: "pf is disabled, so nothing would be redirected".to_owned(),
        remedy: "enable it: service pf onestart (and at boot: sysrc pf_enable=YES)".to_owned(),
    })
}

/// The main ruleset does not call kport's anchors. `nat` only counts where a rule needs it.
pub fn uncalled(status: &Status, needs_nat: bool) -> Option<Problem> {
    let lines = [
        (status.nat_anchor || !needs_nat, "nat-anchor \"kport/*\""),
        (status.rdr_anchor, "rdr-anchor \"kport/*\""),
        (status.anchor, "anchor \"kport/*\""),
    ];
    let missing: Vec<&str> = lines.into_iter().filter_map(|(there, line)| (!there).then_some(line)).collect();
    (!missing.is_empty()).then(|| Problem {
        seen: "pf's main ruleset does not call kport's anchors".to_owned(),
        remedy: format!(
            "add to /etc/pf.conf: {} (translation lines before filter lines), then: service pf reload",
            missing.join(" and ")
        ),
    })
}

/// pf does not see what the host sends to itself, which host access needs. `who` publishes with it.
pub fn unfiltered(host: &dyn Host, who: &str) -> Result<Option<Problem>> {
    Ok((host.sysctl("net.pf.filter_local")? == Some(0)).then(|| Problem {
        seen: format!("net.pf.filter_local is 0, so the host itself does not reach what {who} publishes"),
        remedy: "sysctl net.pf.filter_local=1 (and in /etc/sysctl.conf), then, since it counts when pf is enabled: \
               service pf restart"
            .to_owned(),
    }))
}

/// The sysctl that turns forwarding on, and the variable of rc.conf(5) for it.
pub const fn forwarding(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Inet => ("net.inet.ip.forwarding", "gateway_enable"),
        Family::Inet6 => ("net.inet6.ip6.forwarding", "ipv6_gateway_enable"),
    }
}

/// The host forwards no packets of a family that one of these redirects needs. A target that is the host's own address, as
/// that of a jail without vnet is, needs no forwarding; `interfaces` is only asked where it matters.
pub fn unforwarded<'a>(
    host: &dyn Host,
    family: Family,
    redirects: impl IntoIterator<Item = &'a Redirect>,
    interfaces: impl Fn() -> Result<&'a [HostInterface]>,
) -> Result<Option<Problem>> {
    let (sysctl, variable) = forwarding(family);
    let mut needed = redirects.into_iter().filter(|r| r.family() == family).peekable();
    if needed.peek().is_none() || host.sysctl(sysctl)? != Some(0) {
        return Ok(None);
    }
    for redirect in needed {
        if !Interfaces(interfaces()?).is_own(redirect.target) {
            return Ok(Some(Problem {
                seen: format!(
                    "the host does not forward {family} packets ({sysctl} is 0), so none would arrive at {}",
                    redirect.target
                ),
                remedy: format!("turn it on: sysctl {sysctl}=1 (and at boot: sysrc {variable}=YES)"),
            }));
        }
    }
    Ok(None)
}
