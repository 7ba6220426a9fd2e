//! Who has an address. The root of a jail with its own network stack decides which addresses the jail has. So what such a
//! jail reports is used only if the host can verify it: otherwise a jail could decide where the host's port is redirected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Request;
use super::survey::Survey;
use crate::error::{Error, Kind, Result, Setting, quoted};
use crate::host::Jail;
use crate::name::JailName;
use crate::net::{Family, Interface, Place, is_link_local6};
use crate::publication::{Targets, host_network, unusable};

/// The groups of the interfaces that connect jails with their own network stack: bridge(4), epair(4).
const VNET_GROUPS: [&str; 2] = ["bridge", "epair"];

pub(super) struct Addresses {
    /// In order of preference.
    pub(super) all: Vec<IpAddr>,
    /// Those that are the jail's by its own report only, and on no network that the administrator trusts.
    pub(super) reported: Vec<IpAddr>,
    /// Whether they are those of the request, or by jail_get(2): what others report does not count then.
    pub(super) given: bool,
}

impl Addresses {
    fn given(all: Vec<IpAddr>) -> Addresses {
        Addresses { all, reported: vec![], given: true }
    }
}

pub(super) fn addresses(survey: &Survey<'_>, request: &Request, jail: Option<&Jail>) -> Result<Addresses> {
    let mut found = candidates(survey, request, jail)?;
    found.all = of_families(request, found.all)?;
    if request.waits()
        && let Some(family) = missing(survey, request, &found.all)?
    {
        let (missing, other) = (family.protocol(), family.other().protocol());
        let jail = request.jail.mention();
        survey.note(format!("{jail} has no {missing} address, so its ports are published by {other} only"));
    }
    Ok(found)
}

/// Whether the jail has an address of each family that is to be published, as [`addresses`] reads them.
pub(super) fn are_complete(survey: &Survey<'_>, request: &Request, jail: Option<&Jail>) -> Result<bool> {
    let found = of_families(request, candidates(survey, request, jail)?.all)?;
    if found.is_empty() {
        return Err(Error::new(Kind::Unavailable, format!("{} has no address", request.jail.mention())));
    }
    Targets::choose_of(&request.jail, &found, jail.map_or(&[][..], Jail::on_host_stack))?;
    Ok(missing(survey, request, &found)?.is_none())
}

/// The addresses of the families that are requested; an error if one of these families is missing.
pub(super) fn of_families(request: &Request, mut addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>> {
    let families = &request.options.families;
    addresses.retain(|address| families.is_empty() || families.contains(&Family::of(*address)));
    let Some(family) = families.iter().find(|family| !addresses.iter().any(|a| Family::of(*a) == **family)) else {
        return Ok(addresses);
    };
    let error =
        Error::new(Kind::Unavailable, format!("{} has no {} address", request.jail.mention(), family.protocol()));
    Err(error.remedy("wait for one with", Setting::Wait).remedy("or give it with", Setting::Address))
}

/// A family that the jail has no address of yet, while the host has a default route of it, and the ports could be published
/// by it.
fn missing(survey: &Survey<'_>, request: &Request, found: &[IpAddr]) -> Result<Option<Family>> {
    for family in Family::ALL.into_iter().filter(|family| request.can_have(*family)) {
        if !found.iter().any(|address| Family::of(*address) == family) && survey.host.gateway(family)?.is_some() {
            return Ok(Some(family));
        }
    }
    Ok(None)
}

/// As [`addresses`], of both families.
fn candidates(survey: &Survey<'_>, request: &Request, jail: Option<&Jail>) -> Result<Addresses> {
    if request.no_jail {
        return of_no_jail(survey, request);
    }
    let ask = |jail| reported(&request.jail, jail, |jail| survey.reported_by(jail));
    let Some(jail) = jail.filter(|jail| jail.vnet) else {
        return Ok(Addresses::given(if request.addresses.is_empty() { ask(jail)? } else { request.addresses.clone() }));
    };
    if !request.addresses.is_empty() {
        let places = survey.places()?;
        if let Some(own) = request.addresses.iter().find(|a| unusable(**a).is_none() && places.is_own(**a)) {
            let what = format!(
                "{own} is an address of the host, and jail {} has a network stack of its own: redirects would go to the host",
                quoted(&jail.name)
            );
            return Err(Error::new(Kind::Argument, what).remedy("give an address of the jail with", Setting::Address));
        }
        return Ok(Addresses::given(request.addresses.clone()));
    }
    let found = ask(Some(jail))?;
    let mut believed: Vec<IpAddr> = vec![];
    let mut doubts: Vec<(IpAddr, Doubt)> = vec![];
    for family in Family::ALL.into_iter().filter(|family| request.can_have(*family)) {
        // the first one is the target of redirects
        let mut doubted = vec![];
        for address in found.iter().copied().filter(|a| Family::of(*a) == family && unusable(*a).is_none()) {
            let Some(doubt) = doubt(survey, request, jail, address)? else {
                believed.push(address);
                doubted.clear();
                break;
            };
            doubted.push((address, doubt));
        }
        doubts.append(&mut doubted);
    }
    if doubts.is_empty() {
        // an address that cannot be a target is an error by itself
        let all = if believed.is_empty() { found } else { believed };
        let reported = all.iter().copied().filter(|address| !request.trusts(*address)).collect();
        return Ok(Addresses { all, reported, given: false });
    }
    let shown: Vec<String> = doubts.iter().map(|(address, doubt)| format!("{address}, which {}", doubt.why)).collect();
    let what =
        format!("jail {} reports {}; the report of a jail is not enough", quoted(&jail.name), shown.join(", and "));
    let mut error = Error::new(Kind::Unavailable, what).remedy("give its address with", Setting::Address);
    if doubts.iter().any(|(_, doubt)| doubt.is_of_network) {
        error = error.remedy("or name the network whose addresses are to be believed with", Setting::Trust);
    }
    if let Some(other) = believed.first() {
        let family = Family::of(*other).protocol();
        error = error.remedy(format_args!("or publish by {family} only with"), Setting::Family);
    }
    Err(error)
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
    let own = request.jail.anchor();
    for address in request.addresses.iter().copied().filter(|address| unusable(*address).is_none()) {
        let whose = match survey.places()?.is_own(address) {
            true => Some("the host, or of a jail on the host's network stack".to_owned()),
            false => survey.leading_to(&own, None, address, true)?,
        };
        if let Some(whose) = whose {
            let name = quoted(request.jail.as_str());
            let what =
                format!("{address} is an address of {whose}, and {name} is given as a target that is not a jail");
            return Err(Error::new(Kind::Argument, what));
        }
    }
    Ok(Addresses::given(request.addresses.clone()))
}

/// Why an address that a jail reports is not accepted as its own.
struct Doubt {
    why: String,
    /// Because of its network, and not because somebody else has the address.
    is_of_network: bool,
}

/// What other jails report is not considered: a jail could then keep others from publishing.
fn doubt(survey: &Survey<'_>, request: &Request, jail: &Jail, address: IpAddr) -> Result<Option<Doubt>> {
    let interfaces = survey.places()?;
    let because = |is_of_network, why: String| Ok(Some(Doubt { why, is_of_network }));
    if interfaces.is_own(address) {
        return because(false, "is the host's own".to_owned());
    }
    let interface = interfaces.leads_to(address).unwrap_or(None);
    if let Some(down) = interfaces.0.iter().find(|known| Some(known.name) == interface && !known.up) {
        return because(false, format!("is on the network of {}, which is down", down.name));
    }
    let trusted = request.trusts(address);
    if !trusted {
        let Some(interface) = interface else { return because(true, "is on no network of the host".to_owned()) };
        if !leads_to_jails(survey, interface)? {
            let why = format!(
                "is on the network of {interface}, and that is not an interface of jails (of group bridge or epair, and \
                 not the gateway interface)"
            );
            return because(true, why);
        }
    }
    if let Some(other) = survey.leading_to(&request.jail.anchor(), Some(jail), address, trusted)? {
        let why = format!("is already the target of redirects of {other} (if that jail is gone, run kport apply)");
        return because(false, why);
    }
    let has = |other: &&Jail| !other.dying && other.on_host_stack().contains(&address);
    match survey.jails()?.jails.iter().find(has) {
        Some(other) => because(false, format!("is an address of jail {}", quoted(&other.name))),
        None => Ok(None),
    }
}

/// Whether an interface connects jails, and not the outside.
fn leads_to_jails(survey: &Survey<'_>, interface: Interface) -> Result<bool> {
    for family in Family::ALL {
        if survey.default_route(family)? == Some(interface) {
            return Ok(false);
        }
    }
    let known = survey.interfaces()?.iter().find(|known| known.name == interface);
    Ok(known.is_some_and(|known| known.groups.iter().any(|group| VNET_GROUPS.contains(&group.as_str()))))
}

/// The addresses that a jail has, as it reports them to `ask` or, without its own network stack, as the host does.
pub(super) fn reported(
    name: &JailName,
    jail: Option<&Jail>,
    ask: impl FnOnce(&Jail) -> Result<Vec<IpAddr>>,
) -> Result<Vec<IpAddr>> {
    let Some(jail) = jail else {
        let why = format!("{} is not running here, so its address is unknown", name.mention());
        return Err(Error::new(Kind::Unavailable, why).remedy("give it with", Setting::Address));
    };
    if jail.vnet {
        return ask(jail);
    }
    if jail.addresses.is_empty() && jail.inherits.any() {
        return Err(host_network(name));
    }
    Ok(jail.addresses.clone())
}

/// What stands for the addresses of a jail that does not exist yet, one of each family in which it can be expected to have one.
pub(super) fn expected(survey: &Survey<'_>, request: &Request) -> Result<Vec<IpAddr>> {
    Ok(families(survey, request)?.into_iter().map(nobody).collect())
}

/// An address that no host has, in place of a jail's that is unknown: the IPv4 dummy address (RFC 7600), and one of the
/// discard-only prefix (RFC 6666).
fn nobody(family: Family) -> IpAddr {
    match family {
        Family::Inet => Ipv4Addr::new(192, 0, 0, 8).into(),
        Family::Inet6 => Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The families in which the jail can be expected to have an address: those that are requested; else those of the networks of
/// jails, and those that the places of the request name. A host without such networks has jails on its own ones.
fn families(survey: &Survey<'_>, request: &Request) -> Result<Vec<Family>> {
    if !request.options.families.is_empty() {
        return Ok(request.options.families.clone());
    }
    let mut of_jails = vec![];
    let mut of_host = vec![];
    for interface in survey.interfaces()? {
        let networks = interface.addresses.iter().map(ipnet::IpNet::addr);
        let usable = networks.filter(|a| !a.is_loopback() && !matches!(a, IpAddr::V6(v6) if is_link_local6(*v6)));
        let found = if leads_to_jails(survey, interface.name)? { &mut of_jails } else { &mut of_host };
        found.extend(usable.map(Family::of));
    }
    if of_jails.is_empty() {
        of_jails = of_host;
    }
    of_jails.extend(request.spec.mappings().iter().filter_map(|mapping| match mapping.place {
        Some(Place::Address(address)) => Some(Family::of(address)),
        _ => None,
    }));
    Ok(Family::ALL.into_iter().filter(|family| of_jails.contains(family) && request.can_have(*family)).collect())
}
