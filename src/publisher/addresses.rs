//! Who has an address, and the wait until a jail has one (DHCP, SLAAC, a manager that sets it while its hooks run). The root of a jail
//! with its own network stack decides which addresses the jail has. So what such a jail reports is used only if the host can verify it:
//! otherwise a jail could decide where the host's port is redirected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::survey::Survey;
use super::{Observer, Request};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting, error, quoted};
use crate::host::{Host, HostInterface, Jail, Watch};
use crate::name::JailName;
use crate::net::{Family, Interface, PerFamily, Place};
use crate::publication::{Targets, host_network, unusable};

/// How long to wait for an address of the other family after the first one, at most as long as is waited at all. A router
/// advertisement comes within a second of its solicitation, duplicate address detection takes another one, and
/// dhclient(8) a moment.
pub const GRACE: Duration = Duration::from_secs(3);

/// How often the host is read, and how to sleep in between. Tests have another one.
#[doc(hidden)]
pub struct Pace<'a> {
    /// If nothing reports a change: a routing socket does not report that a jail is created, or that jail_set(2) gives an
    /// address to a jail on the host's network stack. Reading is two system calls for such a jail.
    pub poll: Duration,
    /// The longest time between two reads if the system reports changes: it may have missed one. It is also how long the
    /// socket keeps a jail that has been removed dying.
    pub longest: Duration,
    /// From a change to the next read: an address, its routes and the flags of its interface change together, and a network
    /// that changes all the time must not keep kport busy.
    pub settle: Duration,
    /// std::thread::sleep
    pub sleep: &'a dyn Fn(Duration),
    /// Instant::now
    pub now: &'a dyn Fn() -> Instant,
}

pub(super) const PACE: Pace<'_> = Pace {
    poll: Duration::from_millis(200),
    longest: Duration::from_secs(2),
    settle: Duration::from_millis(50),
    sleep: &std::thread::sleep,
    now: &Instant::now,
};

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
        return Err(error!(Unavailable, "{} has no address", request.jail.mention()));
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
    let error = error!(Unavailable, "{} has no {} address", request.jail.mention(), family.protocol());
    Err(error.remedy("wait for one with", Setting::Wait).remedy("or give it with", Setting::Address))
}

/// A family that the jail has no address of yet, while the host has a default route of it, and the ports could be published
/// by it.
fn missing(survey: &Survey<'_>, request: &Request, found: &[IpAddr]) -> Result<Option<Family>> {
    for family in request.families() {
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
    let with_stack = jail.filter(|jail| jail.vnet);
    if !request.addresses.is_empty() {
        let places = with_stack.map(|_| survey.places()).transpose()?;
        let is_own = |a: &&IpAddr| unusable(**a).is_none() && places.is_some_and(|places| places.is_own(**a));
        if let Some(own) = request.addresses.iter().find(is_own) {
            let what = format!("{own} is an address of the host, and {} has", request.jail.mention());
            return Err(error!(Argument, "{what} a network stack of its own: redirects would go to the host")
                .remedy("give an address of the jail with", Setting::Address));
        }
        return Ok(Addresses::given(request.addresses.clone()));
    }
    let found = reported(&request.jail, jail, |jail| survey.reported_by(jail))?;
    let Some(jail) = with_stack else { return Ok(Addresses::given(found)) };
    let mut believed: Vec<IpAddr> = vec![];
    let mut doubts: Vec<(IpAddr, Doubt)> = vec![];
    for family in request.families() {
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
    let refuse = |why: &str| error!(Argument, "{name} is given as a target that is not a jail{why}");
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
    for address in request.addresses.iter().copied().filter(|address| unusable(*address).is_none()) {
        let whose = match survey.places()?.is_own(address) {
            true => Some("the host, or of a jail on the host's network stack".to_owned()),
            false => survey.leading_to(&request.jail, None, address, true)?,
        };
        if let Some(whose) = whose {
            let (what, name) = (format!("{address} is an address of {whose}"), quoted(request.jail.as_str()));
            return Err(error!(Argument, "{what}, and {name} is given as a target that is not a jail"));
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
            let why = "and that is not an interface of jails (of group bridge or epair, and not the gateway interface)";
            return because(true, format!("is on the network of {interface}, {why}"));
        }
    }
    if let Some(other) = survey.leading_to(&request.jail, Some(jail), address, trusted)? {
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
        if survey.gateway(family)? == Some(interface) {
            return Ok(false);
        }
    }
    let known = survey.places()?.0.iter().find(|known| known.name == interface);
    Ok(known.is_some_and(HostInterface::is_of_jails))
}

/// The addresses that a jail has, as it reports them to `ask` or, without its own network stack, as the host does.
pub(super) fn reported(
    name: &JailName, jail: Option<&Jail>, ask: impl FnOnce(&Jail) -> Result<Vec<IpAddr>>,
) -> Result<Vec<IpAddr>> {
    let Some(jail) = jail else {
        return Err(error!(Unavailable, "{} is not running here, so its address is unknown", name.mention())
            .remedy("give it with", Setting::Address));
    };
    if jail.vnet {
        return ask(jail);
    }
    if jail.addresses.is_empty() && jail.inherits.any() {
        return Err(host_network(name));
    }
    Ok(jail.addresses.clone())
}

/// An address that no host has, in place of a jail's that is unknown: the IPv4 dummy address (RFC 7600), and one of the
/// discard-only prefix (RFC 6666).
pub(crate) const NOBODY: PerFamily<IpAddr> = PerFamily {
    inet: IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)),
    inet6: IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
};

/// What stands for the addresses of a jail that does not exist yet, one of each family in which it can be expected to have one: those
/// that are requested; else those of the networks of jails, and those that the places of the request name. A host without such
/// networks has jails on its own ones.
pub(super) fn expected(survey: &Survey<'_>, request: &Request) -> Result<Vec<IpAddr>> {
    let mut families = request.options.families.clone();
    if families.is_empty() {
        let (mut of_jails, mut of_host) = (vec![], vec![]);
        for interface in survey.places()?.0 {
            let networks = interface.addresses.iter().map(ipnet::IpNet::addr);
            let usable = |address: &IpAddr| match address {
                IpAddr::V4(v4) => !v4.is_loopback(),
                IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
            };
            let found = if leads_to_jails(survey, interface.name)? { &mut of_jails } else { &mut of_host };
            found.extend(networks.filter(usable).map(Family::of));
        }
        families = if of_jails.is_empty() { of_host } else { of_jails };
        families.extend(request.spec.mappings().iter().filter_map(|mapping| match mapping.place {
            Some(Place::Address(address)) => Some(Family::of(address)),
            _ => None,
        }));
        families = request.families().filter(|family| families.contains(family)).collect();
    }
    Ok(families.into_iter().map(|family| *NOBODY.of(family)).collect())
}

/// Returns when the jail has its addresses, at once if one is given or no waiting was requested. `is_complete` says whether the jail
/// has every address that is waited for; an error if it has none.
///
/// # Errors
///
/// The reason that there is none yet, after `request.wait` or at the deadline; at once if waiting cannot help.
#[doc(hidden)]
pub fn for_address(
    host: &dyn Host, request: &Request, deadline: Deadline, observer: &dyn Observer,
    is_complete: &dyn Fn(Option<&Jail>) -> Result<bool>, pace: &Pace<'_>,
) -> Result<()> {
    if !request.waits() {
        return Ok(());
    }
    let whole = request.wait.min(deadline.remaining());
    let left = |time: Duration, since: Instant| time.saturating_sub((pace.now)().duration_since(since));
    let begin = (pace.now)();
    // when the first family had an address
    let mut first: Option<Instant> = None;
    let mut watched = Watched { jid: None, watch: None, interval: pace.poll };
    let mut told = String::new();
    let mut tell = |why: String| {
        if why != told {
            observer.waiting(&why);
            told = why;
        }
    };
    loop {
        let jail = host.jail(request.jail.as_str())?.filter(|jail| !jail.dying);
        let mut rest = left(whole, begin);
        match is_complete(jail.as_ref()) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                rest = rest.min(left(GRACE, *first.get_or_insert_with(pace.now)));
                if rest.is_zero() {
                    return Ok(());
                }
                tell("an address of the other family".to_owned());
            }
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Argument | Kind::Busy) => {
                if rest.is_zero() {
                    let seconds = (whole.as_secs_f64() * 1e3).round() / 1e3;
                    return Err(error.and(format_args!("waited {seconds} s for it")));
                }
                first = None;
                tell(error.to_string());
            }
            Err(error) => return Err(error),
        }
        let jail = jail.filter(|jail| jail.vnet);
        let jid = jail.as_ref().map(|jail| jail.jid);
        // the socket of a jail that is gone is closed, too
        if watched.jid != jid {
            let watch = jail.map_or(Ok(None), |jail| host.watch(&jail, rest)).unwrap_or_else(|error| {
                observer.detail(&format!("reading every {} ms: {error}", pace.poll.as_millis()));
                None
            });
            watched = Watched { jid, watch, interval: pace.poll };
            // it does not report what happened before it was opened, so read again at once
            if watched.watch.is_some() {
                continue;
            }
        }
        watched.wait(rest, observer, pace);
    }
}

/// What is watched while nothing else is to be done.
struct Watched {
    /// The jail whose network it is.
    jid: Option<i32>,
    /// `None` if the system does not report changes, or no longer does.
    watch: Option<Watch>,
    interval: Duration,
}

impl Watched {
    /// Waits until it is time to read again.
    fn wait(&mut self, left: Duration, observer: &dyn Observer, pace: &Pace<'_>) {
        match self.watch.as_ref().map(|watch| watch.wait(left.min(self.interval))) {
            Some(Ok(true)) => {
                self.interval = pace.poll;
                (pace.sleep)(left.min(pace.settle));
            }
            Some(Ok(false)) => self.interval = (2 * self.interval).min(pace.longest),
            Some(Err(error)) => {
                observer.detail(&format!("reading every {} ms: the routing socket: {error}", pace.poll.as_millis()));
                self.watch = None;
                (pace.sleep)(left.min(pace.poll));
            }
            None => (pace.sleep)(left.min(pace.poll)),
        }
    }
}
