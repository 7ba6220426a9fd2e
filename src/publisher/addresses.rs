//! Who has an address. The root of a jail with its own network stack decides which addresses the jail has. So what such a
//! jail reports is used only if the host can verify it: otherwise a jail could decide where the host's port is redirected to.

use std::net::IpAddr;

use super::Request;
use super::facts::Facts;
use super::survey::Survey;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting, quoted};
use crate::host::{ANSWER_TIME, Host, Jail};
use crate::name::{Anchor, JailName};
use crate::net::{Family, Interface};
use crate::publication::{host_network, unusable};

/// The groups of the interfaces that connect jails with their own network stack: bridge(4), epair(4).
const VNET_GROUPS: [&str; 2] = ["bridge", "epair"];

/// The addresses that may be targets of a jail's redirects.
pub(super) struct Addresses {
    /// In order of preference.
    pub(super) all: Vec<IpAddr>,
    /// Whether they are the jail's by its own report only. Otherwise they are those of the request, or by jail_get(2).
    pub(super) reported: bool,
}

/// The addresses of the request, or those read from the host.
pub(super) fn addresses(
    survey: &Survey<'_>,
    request: &Request,
    jail: Option<&Jail>,
    notes: &mut Vec<String>,
) -> Result<Addresses> {
    let facts = &survey.facts;
    if request.no_jail {
        return of_no_jail(survey, request);
    }
    let ask = |jail| reported(facts.host, &request.jail, jail, facts.progress.deadline);
    let Some(jail) = jail.filter(|jail| jail.vnet) else {
        let given = !request.addresses.is_empty();
        let all = if given { request.addresses.clone() } else { ask(jail)? };
        return Ok(Addresses { all, reported: false });
    };
    if !request.addresses.is_empty() {
        let places = facts.places()?;
        return match request.addresses.iter().find(|a| unusable(**a).is_none() && places.is_own(**a)) {
            None => Ok(Addresses { all: request.addresses.clone(), reported: false }),
            Some(own) => Err(Error::new(
                Kind::Argument,
                format!(
                    "{own} is an address of the host, and jail {} has a network stack of its own: redirects would go to the host",
                    quoted(&jail.name)
                ),
            )
            .remedy("give an address of the jail with", Setting::Address)),
        };
    }
    let found = ask(Some(jail))?;
    let mut believed: Vec<IpAddr> = vec![];
    let mut doubts = vec![];
    for address in found.iter().copied() {
        // the first one of each family is the target of redirects
        if unusable(address).is_some() || believed.iter().any(|b| Family::of(*b) == Family::of(address)) {
            continue;
        }
        match doubt(survey, &request.jail.anchor(), jail, address)? {
            None => believed.push(address),
            Some(why) => doubts.push((address, why)),
        }
    }
    let lost = |address: &IpAddr| !believed.iter().any(|b| Family::of(*b) == Family::of(*address));
    let shown: Vec<String> =
        doubts.iter().filter(|(address, _)| lost(address)).map(|(a, why)| format!("{a}, which {why}")).collect();
    if shown.is_empty() {
        // an address that cannot be a target is an error by itself
        return Ok(Addresses { all: if believed.is_empty() { found } else { believed }, reported: true });
    }
    let what =
        format!("jail {} reports {}; the report of a jail is not enough", quoted(&jail.name), shown.join(", and "));
    if believed.is_empty() {
        return Err(Error::new(Kind::Unavailable, what).remedy("give its address with", Setting::Address));
    }
    notes.push(format!("not published with that address: {what}"));
    Ok(Addresses { all: believed, reported: true })
}

/// What a request of a target that is not a jail must have, whatever the host has; all of one transaction are like the first.
pub(super) fn check_no_jail(request: &Request, first: bool) -> Result<()> {
    let name = quoted(request.jail.as_str());
    let refuse = |why: &str| Error::new(Kind::Argument, format!("{name} is given as a target that is not a jail{why}"));
    match request {
        _ if request.no_jail != first => Err(refuse(" in one request, and as a jail in another")),
        Request { no_jail: false, .. } => Ok(()),
        Request { jid: Some(jid), .. } => Err(refuse(&format!(", and has the jid {jid}; omit that"))),
        _ if request.addresses.is_empty() => {
            Err(refuse(", so its address is unknown").remedy("give it with", Setting::Address))
        }
        _ => Ok(()),
    }
}

/// The given addresses of a target that is not a jail, unless they are those of the host or of a jail.
fn of_no_jail(survey: &Survey<'_>, request: &Request) -> Result<Addresses> {
    let refuse = |address: IpAddr, whose: &str| {
        let name = quoted(request.jail.as_str());
        let what = format!("{address} is an address of {whose}, and {name} is given as a target that is not a jail");
        Err(Error::new(Kind::Argument, what))
    };
    let own = request.jail.anchor();
    for address in request.addresses.iter().copied().filter(|address| unusable(*address).is_none()) {
        if survey.facts.places()?.is_own(address) {
            return refuse(address, "the host, or of a jail on the host's network stack");
        }
        if let Some(other) = survey.others.leading_to(&own, None, address)? {
            return refuse(address, &other);
        }
    }
    Ok(Addresses { all: request.addresses.clone(), reported: false })
}

/// Why an address that a jail reports is not accepted as its own. What other jails report is not considered: a jail could
/// then keep others from publishing.
fn doubt(survey: &Survey<'_>, own: &Anchor, jail: &Jail, address: IpAddr) -> Result<Option<String>> {
    let facts = &survey.facts;
    let interfaces = facts.places()?;
    let Some(interface) = interfaces.leads_to(address).unwrap_or(None) else {
        let why = if interfaces.is_own(address) { "is the host's own" } else { "is on no network of the host" };
        return Ok(Some(why.to_owned()));
    };
    if interfaces.0.iter().any(|known| known.name == interface && !known.up) {
        return Ok(Some(format!("is on the network of {interface}, which is down")));
    }
    if !leads_to_jails(facts, interface)? {
        return Ok(Some(format!(
            "is on the network of {interface}, and that is not an interface of jails (of group bridge or epair, and not \
             the gateway interface)"
        )));
    }
    if let Some(other) = survey.others.leading_to(own, Some(jail), address)? {
        return Ok(Some(format!(
            "is already the target of redirects of {} (if that jail is gone, run kport gc)",
            other
        )));
    }
    let has = |other: &&Jail| !other.dying && other.on_host_stack().contains(&address);
    Ok(facts.jails()?.jails.iter().find(has).map(|other| format!("is an address of jail {}", quoted(&other.name))))
}

/// Whether an interface connects jails, and not the outside.
pub(super) fn leads_to_jails(facts: &Facts<'_>, interface: Interface) -> Result<bool> {
    for family in Family::ALL {
        if facts.host.gateway(family)? == Some(interface) {
            return Ok(false);
        }
    }
    let known = facts.interfaces()?.iter().find(|known| known.name == interface);
    Ok(known.is_some_and(|known| known.groups.iter().any(|group| VNET_GROUPS.contains(&group.as_str()))))
}

/// The addresses that a jail has, as it reports them or, without its own network stack, as the host does.
pub(super) fn reported(
    host: &dyn Host,
    name: &JailName,
    jail: Option<&Jail>,
    deadline: Deadline,
) -> Result<Vec<IpAddr>> {
    let Some(jail) = jail else {
        let why = format!("{} is not running here, so its address is unknown", name.mention());
        return Err(Error::new(Kind::Unavailable, why).remedy("give it with", Setting::Address));
    };
    if jail.vnet {
        return host.vnet_addresses(jail, deadline.sooner(ANSWER_TIME).remaining());
    }
    if jail.addresses.is_empty() && jail.inherits.any() {
        return Err(host_network(name));
    }
    Ok(jail.addresses.clone())
}
