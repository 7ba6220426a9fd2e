//! Finds ports that are already taken: redirects that overlap each other, listening sockets, other tools' rules.
//!
//! Pure: no host is read. pf itself would load every overlap, and one rule would win: the first one on FreeBSD 14, the
//! last anchor on 15.1. So kport relies on no order, and refuses overlaps.

use ipnet::IpNet;

use crate::error::{Problem, Result, Setting, error};
use crate::host::{HostInterface, Interfaces, Listener};
use crate::name::JailName;
use crate::net::{Family, Place};
use crate::pf::ForeignRedirect;
use crate::publication::Redirect;

pub fn overlap(a: &Redirect, b: &Redirect, interfaces: Interfaces<'_>) -> bool {
    a.protocol == b.protocol
        && a.family() == b.family()
        && a.host.overlaps(b.host)
        && interfaces.overlap(a.place, b.place)
}

/// Each two redirects that one packet can match, with their owners.
pub fn overlapping<'r, T: Copy + Ord>(
    mut all: Vec<(T, &'r Redirect)>, interfaces: Interfaces<'r>,
) -> impl Iterator<Item = [(T, &'r Redirect); 2]> {
    all.sort_by_key(|(owner, r)| (r.protocol, r.family(), r.host.first(), *owner));
    // those before this one whose ports reach up to it
    let mut open: Vec<(T, &Redirect)> = vec![];
    all.into_iter().flat_map(move |one| {
        let r = one.1;
        open.retain(|(_, o)| o.protocol == r.protocol && o.family() == r.family() && o.host.last() >= r.host.first());
        let found: Vec<_> = open.iter().filter(|(_, o)| overlap(o, r, interfaces)).map(|o| [*o, one]).collect();
        open.push(one);
        found
    })
}

pub fn within(redirects: &[Redirect], interfaces: Interfaces<'_>) -> Result<()> {
    let all = redirects.iter().map(|r| ((), r)).collect();
    overlapping(all, interfaces).next().map_or(Ok(()), |[(_, other), (_, redirect)]| {
        Err(error!(Conflict, "{other} and {redirect} would both take the same packets; leave one of them out"))
    })
}

/// Overlaps of the redirects of several jails. Each of them was published without a conflict; they overlap since an
/// address moved to another interface, or an interface joined a group.
pub fn among(claims: &[(&JailName, Redirect)], interfaces: Interfaces<'_>) -> Vec<Problem> {
    let all = claims.iter().map(|(jail, r)| (*jail, r)).collect();
    let of_two = overlapping(all, interfaces).filter(|[(owner, _), (jail, _)]| owner != jail);
    let problem = |[(owner, other), (jail, redirect)]: [(&JailName, &Redirect); 2]| {
        let both = format!("{other} of {} and {redirect} of {}", owner.mention(), jail.mention());
        let seen = format!("{both} now match the same packets, and which one wins differs between FreeBSD 14 and 15");
        Problem::new(seen, "publish one of them on another port or address")
    };
    of_two.map(problem).collect()
}

/// A redirect that overlaps one of another jail.
pub fn with_jail(redirect: &Redirect, owner: &str, theirs: &Redirect) -> Problem {
    let shown = if redirect.host.count() == 1 { redirect.host } else { theirs.host };
    let mut seen = format!("{} {shown} on {} is published by {owner}", redirect.protocol, theirs.place);
    if theirs.host != shown {
        seen.push_str(&format!(" ({})", theirs.host));
    }
    if theirs.place != redirect.place {
        seen.push_str(&format!(", and {} is also reached through {}", redirect.place, theirs.place));
    }
    Problem::new(seen, "choose another host port, or unpublish that one")
}

/// A redirect that would take the traffic of a socket: publishing port 22 must not lock the administrator out.
pub fn with_listener(redirect: &Redirect, listener: &Listener, interfaces: Interfaces<'_>) -> Option<Problem> {
    let accepts = *listener.families.of(redirect.family());
    if !accepts || listener.protocol != redirect.protocol || !redirect.host.contains(listener.port) {
        return None;
    }
    let place = match listener.address {
        None => Place::Any,
        // the jail's own service, at an address of the host that redirects lead to
        Some(address) if address == redirect.target => return None,
        Some(address) => Place::Address(address),
    };
    if !interfaces.overlap(place, redirect.place) {
        return None;
    }
    let at = listener.address.map_or("every address".to_owned(), |address| Place::Address(address).to_string());
    let (protocol, port, from) = (redirect.protocol, listener.port, redirect.place);
    let there = format!("a socket of the host listens on {protocol} port {port} of {at}");
    let seen = format!("{there}, and would not get traffic from {from} (to find it: sockstat -l -p {port})");
    Some(Problem::new(seen, "choose another host port"))
}

/// The same redirect for a part of its place, each for one address or interface: the interfaces of the host for every
/// address, then the addresses that the place has.
pub fn narrower(redirect: &Redirect, interfaces: Interfaces<'_>) -> Vec<Redirect> {
    let usable = |own: &&IpNet| {
        let address = own.addr();
        let can_be_published = Place::address(address) == Ok(Place::Address(address)) && !address.is_loopback();
        can_be_published && Family::of(address) == redirect.family()
    };
    let is_part = |known: &&HostInterface| match redirect.place {
        Place::Interface(name) => known.is_in(name),
        place => place.is_any(),
    };
    let has = |known: &&HostInterface| known.up && known.addresses.iter().any(|own| usable(&own));
    let mut known: Vec<&HostInterface> = interfaces.0.iter().filter(is_part).filter(has).collect();
    known.sort_by_key(|known| known.is_of_jails());
    // an interface has both families: it is not a part of the addresses of one
    let whole = known.iter().filter(|_| !matches!(redirect.place, Place::AnyOf(_)));
    let names = whole.map(|known| Place::Interface(known.name));
    let addresses = known.iter().flat_map(|known| &known.addresses).filter(usable);
    let places = names.chain(addresses.map(|own| Place::Address(own.addr()))).filter(|place| *place != redirect.place);
    places.map(|place| Redirect { place, ..*redirect }).collect()
}

/// Refuses a redirect of an address that is not the host's: pf would take packets that the host only forwards.
pub fn with_transit(redirect: &Redirect, interfaces: Interfaces<'_>) -> Result<()> {
    let Place::Address(address) = redirect.place else { return Ok(()) };
    if interfaces.is_own(address) {
        return Ok(());
    }
    Err(error!(
        Argument,
        "{redirect}: {address} is not an address of this host, so packets that the host forwards for others would be \
         redirected; give an address of the host or an interface"
    )
    .remedy("if the address is added later, give", Setting::Force))
}

pub fn with_foreign(redirect: &Redirect, foreign: &ForeignRedirect, interfaces: Interfaces<'_>) -> Option<Problem> {
    let meets = foreign.family.is_none_or(|f| f == redirect.family())
        && foreign.protocol.is_none_or(|p| p == redirect.protocol)
        && foreign.ports.is_none_or(|p| p.overlaps(redirect.host))
        && (interfaces.overlap(foreign.place, redirect.place)
            // packets to an address may come in where the redirect takes all: one of em1 is also reached through em0
            || foreign.any_address && matches!(redirect.place, Place::Address(to) if !to.is_loopback()));
    let owner = match foreign.anchor.as_str() {
        "" => "the main ruleset".to_owned(),
        anchor => format!("anchor {anchor}"),
    };
    let (Redirect { protocol, host, place, .. }, text) = (redirect, foreign.text.trim());
    let seen = || format!("{owner} has a redirect of its own for {protocol} {host} on {place}: {text}");
    let remedy = "remove one of them (which of them wins differs between FreeBSD 14 and 15)";
    meets.then(|| Problem::new(seen(), remedy))
}
