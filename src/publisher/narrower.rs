//! Which connections of a mapping end if it stays, but no longer for everybody who could use it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::survey::Survey;
use crate::host::Interfaces;
use crate::name::Label;
use crate::net::{Family, Interface, Place};
use crate::options::{Options, Source};
use crate::pf::{Destination, Sources, States};
use crate::publication::Redirect;

/// The states to end of a redirect that was published with other options. `to` is where connections through the redirect are to,
/// `reach` the reach list with which the jail's port is still published. `None` if they cannot be told from those of connections
/// that are still allowed: with lower limits.
pub(super) fn states(
    jail: &Label,
    redirect: &Redirect,
    to: Destination,
    [before, now]: [&Options; 2],
    reach: &[Interface],
    facts: &Survey<'_>,
) -> Option<Vec<States>> {
    if !now.limits.allow_all_of(&before.limits) {
        return None;
    }
    let interfaces = facts.places().ok()?;
    // with it, an epair without an address is where a connection comes in
    let members = facts.host.sysctl("net.link.bridge.pfil_member").ok()?.unwrap_or(0) != 0;
    let named = |names: &[Interface]| named(interfaces, names, members);
    let Redirect { protocol, target, place, .. } = *redirect;
    let part = |ports, to, on, from| States::Part { jail: jail.clone(), protocol, ports, to, target, on, from };
    let mut found = vec![];

    // the redirect's own interface; see rules::entrances
    let on = match place {
        Place::Interface(name) => interfaces.0.iter().any(|known| known.name == name).then_some(name),
        Place::Address(_) | Place::Any | Place::AnyOf(_) => None,
    };
    if !now.sources_allow_all_of(before) {
        // a rule of its own, with the same destination and without these sources
        let mut others = vec![];
        if on.is_none() && now.hairpin {
            let networks = named(&now.reach).into_iter().flat_map(|on| networks(interfaces, on));
            others.extend(networks);
        }
        if on.is_none() && now.host_access {
            others.extend(interfaces.0.iter().flat_map(|known| &known.addresses).map(|own| IpNet::from(own.addr())));
        }
        let from = shut_out(&before.sources, &now.sources, others, redirect.family());
        found.extend(from.into_iter().map(|from| part(redirect.host, to, on, from)));
    }
    // without `on` and without sources the rule is for jails and for the host as well
    let everywhere = !matches!(place, Place::Interface(_)) && now.sources.is_empty();
    if !everywhere {
        let jails = |options: &Options| match options.hairpin {
            true => named(&options.reach).into_iter().filter(|on| !is_loopback(*on)).collect(),
            false => BTreeSet::new(),
        };
        let own = |on: &Interface| matches!(place, Place::Interface(place) if interfaces.is_in(*on, place));
        let mut taken: BTreeSet<Interface> = jails(before).difference(&jails(now)).copied().collect();
        taken.retain(|on| !own(on));
        if before.host_access && !now.host_access {
            taken.extend(interfaces.0.iter().map(|known| known.name).filter(|on| is_loopback(*on)));
        }
        found.extend(taken.into_iter().map(|on| part(redirect.host, to, Some(on), Sources::Any)));
    }
    // connections to the jail itself
    let leads = interfaces.leads_to(target).ok().flatten();
    for on in named(&before.reach).difference(&named(reach)) {
        let mut direct = |from| found.push(part(redirect.jail, Destination::Only(target), Some(*on), from));
        match leads == Some(*on) {
            // here are also the states of all connections on their way out to the jail
            true => networks(interfaces, *on)
                .filter(|network| Family::of(network.addr()) == Family::of(target))
                .for_each(|network| direct(Sources::In(network))),
            false => direct(Sources::Any),
        }
    }
    Some(found)
}

fn is_loopback(interface: Interface) -> bool {
    Place::Interface(interface).is_loopback()
}

/// The interfaces with these names, and those in groups with these names. An epair without an address only has what its bridge
/// has, unless pf filters at the members of bridges.
fn named(interfaces: Interfaces<'_>, names: &[Interface], members: bool) -> BTreeSet<Interface> {
    let is_epair = |on: &Interface| on.as_str().starts_with("epair");
    let mut found = BTreeSet::new();
    for name in names {
        let of_name = interfaces.members(*name);
        let used = of_name.filter(|on| members || !on.addresses.is_empty() || !on.groups.iter().any(is_epair));
        found.extend(used.map(|on| on.name));
        // one that is gone may have been where a state was created
        if !interfaces.members(*name).any(|_| true) {
            found.insert(*name);
        }
    }
    found
}

/// The networks of an interface.
fn networks<'a>(interfaces: Interfaces<'a>, on: Interface) -> impl Iterator<Item = IpNet> + use<'a> {
    let members = interfaces.0.iter().filter(move |known| known.name == on);
    members.flat_map(|member| &member.addresses).map(|own| own.trunc())
}

/// The sources of this family that were admitted, and are not any more. The addresses in a table are not known here: if it was
/// taken away, everybody may have been in it, and if it was added, nobody.
fn shut_out(before: &[Source], now: &[Source], others: Vec<IpNet>, family: Family) -> Vec<Sources> {
    let of_family = |sources: &[Source]| -> Vec<IpNet> {
        let networks = sources.iter().filter_map(|source| source.network().copied());
        networks.filter(|network| Family::of(network.addr()) == family).collect()
    };
    let all = IpNet::new_assert(
        match family {
            Family::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Family::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        },
        0,
    );
    let unknown = |source: &Source| source.network().is_none() && !now.contains(source);
    let everybody = before.is_empty() || before.iter().any(unknown);
    let mut allowed = of_family(now);
    allowed.extend(others.into_iter().filter(|network| Family::of(network.addr()) == family));
    let mut hull = match allowed.first() {
        Some(first) if everybody => *first,
        _ => {
            return (if everybody { vec![all] } else { of_family(before) })
                .into_iter()
                .flat_map(|network| without(network, &allowed))
                .map(Sources::In)
                .collect();
        }
    };
    while let Some(wider) = hull.supernet().filter(|_| !allowed.iter().all(|network| hull.contains(network))) {
        hull = wider;
    }
    let outside = (hull != all).then_some(Sources::Except(hull));
    outside.into_iter().chain(without(hull, &allowed).into_iter().map(Sources::In)).collect()
}

/// A network without others, as networks.
fn without(network: IpNet, others: &[IpNet]) -> Vec<IpNet> {
    if others.iter().any(|other| other.contains(&network)) {
        return vec![];
    }
    if !others.iter().any(|other| network.contains(other)) {
        return vec![network];
    }
    let halves = network.subnets(network.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| without(half, others)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_shut_out() {
        use Family::{Inet, Inet6};
        fn read<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Vec<T> {
            text.split_whitespace().map(|word| word.parse().unwrap()).collect()
        }
        for (before, now, others, family, expected) in [
            ("", "192.0.2.0/24", "", Inet, "!192.0.2.0/24"),
            ("", "192.0.2.0/24 2001:db8::/32", "", Inet, "!192.0.2.0/24"),
            ("", "192.0.2.0/24", "", Inet6, "::/0"),
            ("", "192.0.2.1 192.0.2.2", "", Inet, "!192.0.2.0/30 192.0.2.0/32 192.0.2.3/32"),
            ("192.0.2.0/24 198.51.100.0/24", "192.0.2.0/24", "", Inet, "198.51.100.0/24"),
            ("192.0.2.0/24", "192.0.2.0/25", "", Inet, "192.0.2.128/25"),
            ("", "0.0.0.0/1 192.0.0.0/2", "", Inet, "128.0.0.0/2"),
            // those with a rule of their own
            ("", "10.0.0.0/25", "10.0.0.128/25", Inet, "!10.0.0.0/24"),
            // a table that stays has whom it had; one that was taken away may have had everybody
            ("<a> 192.0.2.0/24", "<a>", "", Inet, "192.0.2.0/24"),
            ("<a> 192.0.2.0/24", "192.0.2.0/24", "", Inet, "!192.0.2.0/24"),
            ("", "<a>", "", Inet, "0.0.0.0/0"),
        ] {
            let found = shut_out(&read(before), &read(now), read(others), family).into_iter().map(|from| match from {
                Sources::Any => "any".to_owned(),
                Sources::In(network) => network.to_string(),
                Sources::Except(network) => format!("!{network}"),
            });
            assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{before} -> {now}");
        }
    }
}
