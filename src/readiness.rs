//! The causes of a dead port that `publish` checks each time, and `kport doctor` reports, with their messages.
//!
//! If pf would not evaluate the rules at all ([`disabled`], [`uncalled`], [`unforwarded`], [`unfiltered`]), `publish`
//! fails. What [`of_jail`] finds is a note: missing interfaces, and a main ruleset that blocks.

mod answers;
mod evaluator;
mod interfaces;
mod judged;
mod lines;

use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;

pub use crate::pfconf::PF_CONF;
pub use answers::{answers, on_the_lan, unanswered};
pub use interfaces::{everywhere, interfaces, neighbour_discovery, skip};
pub use judged::{MainRuleset, bypassed, calls, main_ruleset, name_by_file, remedy};
pub use lines::{CALLS, Wildcard, can_be_turned, end_of_path, missing, missing_in, uncalled, wildcards};

use serde::{Deserialize, Serialize};

use crate::error::{Problem, Result};
use crate::host::{Host, HostInterface, Interfaces};
use crate::net::{Family, Interface, Place, Protocol};
use crate::pf::Status;
use crate::publication::{Publication, Redirect};

pub trait Publications<'p>: IntoIterator<Item = &'p Publication> {}
impl<'p, T: IntoIterator<Item = &'p Publication>> Publications<'p> for T {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Causes of a dead port.
    pub problems: Vec<Problem>,
    /// What may be intended.
    pub warnings: Vec<Problem>,
    /// What limits a good result.
    pub notes: Vec<String>,
}

/// The host and its interfaces, read once.
#[derive(Clone)]
pub struct Surroundings<'a> {
    pub host: &'a dyn Host,
    pub interfaces: Rc<[HostInterface]>,
}

impl Surroundings<'_> {
    /// The interfaces by which packets for a place come in; for every place, that of the default route.
    pub fn outer(&self, place: Place, family: Family) -> Result<Vec<&HostInterface>> {
        let all = Interfaces(&self.interfaces);
        Ok(match place {
            Place::Interface(name) => all.members(name).collect(),
            Place::Any | Place::AnyOf(_) => {
                self.host.gateway(family)?.into_iter().flat_map(|name| all.members(name)).collect()
            }
            Place::Address(address) => self.interfaces.iter().filter(|interface| interface.has(address)).collect(),
        })
    }

    /// The interface that leads to a target; `None` for the host's own address, and if none is known.
    pub fn via(&self, target: IpAddr) -> Option<Interface> {
        Interfaces(&self.interfaces).leads_to(target).unwrap_or(None)
    }

    pub fn sysctl_is_on(&self, name: &str) -> Result<bool> {
        Ok(self.host.sysctl(name)?.is_some_and(|value| value != 0))
    }
}

/// What to do after a change of /etc/pf.conf.
pub const RELOAD: &str = "then: service pf reload";

/// The problems of a jail's ports apart from pf not evaluating its rules. A main ruleset that cannot be read has none.
pub fn of_jail(main: &MainRuleset<'_>, publications: &[Publication]) -> Result<Vec<Problem>> {
    let mut problems = interfaces(&main.around, publications)?.problems;
    problems.extend(calls(main, publications)?.problems);
    let skipped = skip(main, publications)?;
    // a packet that pf skips needs no second reason
    if skipped.is_empty() && problems.is_empty() {
        problems.extend(neighbour_discovery(main, publications)?);
        problems.extend(main_ruleset(main, publications)?.problems);
        let lan = on_the_lan(main, publications)?;
        problems.extend(lan.problems.into_iter().chain(lan.warnings));
        problems.extend(unanswered(main, publications)?);
        // not every ruleset can be judged
        let bypassed = bypassed(main, publications).unwrap_or_default();
        let remedy = "for a remedy, run kport doctor";
        problems.extend(bypassed.into_iter().map(|problem| Problem { remedy: remedy.to_owned(), ..problem }));
    }
    problems.extend(skipped);
    // of the limits those of what the rules need
    let by_source =
        publications.iter().any(|p| Protocol::ALL.iter().any(|proto| p.options.limits.state(*proto).tracks_sources()));
    let needed = |limit: &str| limit == "states" || limit == "src-nodes" && by_source;
    problems.extend(limits(main.around.host, needed)?.problems);
    // each jail takes one: told before none is left
    let anchors = limits(main.around.host, |limit| limit == "anchors")?;
    problems.extend(anchors.problems.into_iter().chain(anchors.warnings));
    let needs = |publication: &&Publication| publication.options.translate_sources();
    if let Some(publication) = publications.iter().find(needs) {
        problems.extend(bridge_members(main.around.host, &publication.jail.mention())?);
    }
    Ok(problems)
}

/// The limits of pf that are reached, as problems, and those that are near, as warnings. The kernel allocates from zones (zone(9))
/// with a maximum, which is INT_MAX without a limit (pf_ioctl_set_limit in sys/netpfil/pf/pf_ioctl.c). `which`: those whose name in
/// pf.conf(5) it is true for.
pub fn limits(host: &dyn Host, which: impl Fn(&str) -> bool) -> Result<Findings> {
    // the name in pf.conf(5), that of the zone in sysctl(8), and what cannot be done at the limit
    const LIMITS: [(&str, &str, &str); 4] = [
        ("states", "pf_states", "a connection needs one, and new ones are refused"),
        (
            "src-nodes",
            "pf_source_nodes",
            "a new client of a port with a limit for each source needs one, and is refused",
        ),
        ("table-entries", "pf_table_entries", "no address can be added to a table"),
        ("anchors", "pf_anchors", "a jail that publishes for the first time needs one"),
    ];
    let mut found = Findings::default();
    // the zones of the host have these names
    if host.sysctl("security.jail.jailed")?.is_some_and(|jailed| jailed != 0) {
        return Ok(found);
    }
    for (name, zone, effect) in LIMITS.into_iter().filter(|(name, ..)| which(name)) {
        let value = |of: &str| host.sysctl(&format!("vm.uma.{zone}.{of}"));
        let (Some(used), Some(limit)) = (value("stats.current")?, value("limit.max_items")?) else { continue };
        let list = match used {
            _ if used >= limit => &mut found.problems,
            _ if used >= limit - limit / 10 => &mut found.warnings,
            _ => continue,
        };
        let remedy = format!("add to /etc/pf.conf: set limit {name} {}, {RELOAD}", 2 * used.max(limit));
        list.push(Problem::new(format!("pf has {used} {name}, and its limit is {limit}: {effect}"), remedy));
    }
    Ok(found)
}

/// pf does not evaluate the rules of kport; those of nat only count if a rule needs it.
pub fn unused(host: &dyn Host, status: &Status, needs_nat: bool) -> Option<Problem> {
    // a host from a file has none
    let file = (!host.is_played()).then_some(Path::new(PF_CONF));
    disabled(status).or_else(|| uncalled(status, needs_nat, file))
}

pub fn disabled(status: &Status) -> Option<Problem> {
    let remedy = "enable it: service pf onestart (and at boot: sysrc pf_enable=YES)";
    (!status.enabled).then(|| Problem::new("pf is disabled, so nothing would be redirected", remedy))
}

/// The kernel refuses to change pf: the calls of /dev/pf above kern.securelevel 2 (pfioctl() of sys/netpfil/pf/pf_ioctl.c), and since
/// FreeBSD 15 those of pfctl(8), which are netlink's, from 2 on (cmd_securelevel of sys/netpfil/pf/pf_nl.c). `by_pfctl` is whether
/// pfctl(8) is to change it.
pub fn securelevel(host: &dyn Host, by_pfctl: bool) -> Result<Option<Problem>> {
    let level = host.sysctl("kern.securelevel")?.unwrap_or(-1);
    let by_netlink = host.sysctl("kern.osreldate")?.is_none_or(|date| date >= 1_500_000);
    let most = if by_pfctl && by_netlink { 1 } else { 2 };
    // what both backends can work with
    let fine = if by_netlink { 1 } else { 2 };
    let seen = match level {
        _ if level <= most => return Ok(None),
        2 => "kern.securelevel is 2: pfctl(8) cannot change pf, nor load /etc/pf.conf, until the next boot".to_owned(),
        _ => format!("kern.securelevel is {level}: pf's rules cannot be changed until the next boot"),
    };
    let remedy = format!("allow it from the next boot on: sysrc kern_securelevel={fine}, then reboot");
    Ok(Some(Problem::new(seen, remedy)))
}

/// pf does not filter what the host sends to itself, which host access needs. `who` publishes with it.
pub fn unfiltered(host: &dyn Host, who: &str) -> Result<Option<Problem>> {
    let remedy = "sysctl net.pf.filter_local=1, then, since it counts when pf is enabled: service pf restart (and for the \
                  next boot: kport setup --host-access --write)";
    let seen = || format!("net.pf.filter_local is 0, so the host itself does not reach what {who} publishes");
    Ok((host.sysctl("net.pf.filter_local")? == Some(0)).then(|| Problem::new(seen(), remedy)))
}

/// The other packet filters that rc.conf(5) enables, by its variables; `value` returns the value of one.
pub fn other_firewalls(value: impl Fn(&str) -> Option<String>) -> Vec<Problem> {
    const FILTERS: [(&str, &str); 2] = [("firewall_enable", "ipfw(8)"), ("ipfilter_enable", "ipf(8)")];
    let on = |name: &&(&str, &str)| {
        let value = value(name.0).unwrap_or_default().to_ascii_lowercase();
        // checkyesno() of rc.subr(8)
        matches!(value.as_str(), "yes" | "true" | "on" | "1")
    };
    let problem = |(name, filter): &(&str, &str)| {
        let seen = format!("{name} is set, so {filter} filters the packets of published ports as well");
        Problem::new(seen, format!("pass them there, too, or disable it: sysrc {name}=NO"))
    };
    FILTERS.iter().filter(on).map(problem).collect()
}

/// pf filters at the members of bridges, where answers would be translated back. `who` publishes what translates sources.
pub fn bridge_members(host: &dyn Host, who: &str) -> Result<Option<Problem>> {
    let what = format!("answers to what is translated for {who} are translated back too early");
    let remedy = "sysctl net.link.bridge.pfil_member=0 (and in /etc/sysctl.conf)";
    let looks = host.sysctl("net.link.bridge.pfil_member")?.is_some_and(|value| value != 0);
    Ok(looks.then(|| Problem::new(format!("net.link.bridge.pfil_member is 1: {what}"), remedy)))
}

/// The sysctl that enables forwarding, and its variable in rc.conf(5).
pub const fn forwarding(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Inet => ("net.inet.ip.forwarding", "gateway_enable"),
        Family::Inet6 => ("net.inet6.ip6.forwarding", "ipv6_gateway_enable"),
    }
}

/// The host does not forward packets of a family that one of these redirects needs. A target that is the host's own address, as that
/// of a jail without vnet is, needs no forwarding, and pf itself sends what af-to translates; `interfaces` is only called if it matters.
pub fn unforwarded<'a>(
    host: &dyn Host, family: Family, redirects: impl IntoIterator<Item = &'a Redirect>,
    interfaces: impl Fn() -> Result<&'a [HostInterface]>,
) -> Result<Option<Problem>> {
    let (sysctl, variable) = forwarding(family);
    let mut needed = redirects.into_iter().filter(|r| r.family() == family && !r.af_to).peekable();
    if needed.peek().is_none() || host.sysctl(sysctl)? != Some(0) {
        return Ok(None);
    }
    let all = Interfaces(interfaces()?);
    let Some(Redirect { target, .. }) = needed.find(|redirect| !all.is_own(redirect.target)) else { return Ok(None) };
    let seen = format!("the host does not forward {family} packets ({sysctl} is 0), so none would arrive at {target}");
    Ok(Some(Problem::new(seen, format!("enable it: sysctl {sysctl}=1 (and at boot: sysrc {variable}=YES)"))))
}
