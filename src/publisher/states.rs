//! Which states end when a publication is replaced: of what is not published any more, and of a mapping that stays, but no longer for
//! everybody who could use it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::survey::Survey;
use crate::error::Result;
use crate::host::Interfaces;
use crate::name::Label;
use crate::net::{Family, Interface, Place, PortRange, Protocol, is_link_local6};
use crate::options::{Options, Source};
use crate::pf::{Hosts, States};
use crate::publication::Redirect;
use crate::store::Record;

/// The most calls of pf that end a part of a jail's connections: each searches the whole state table, or with pfctl(8) the list of
/// it. Where more would be needed, those that are still allowed end as well.
const MOST_PARTS: usize = 512;

/// The states to end: of redirects that are no longer published, or no longer for everyone who could use them, and of
/// connections to the jail's own address through the reach list.
pub(super) fn to_end(record: &Record, facts: &Survey<'_>) -> Vec<States> {
    let labels_mappings = facts.firewall.labels_mappings();
    let now = record.publications.iter().flat_map(|p| p.redirects.iter().map(move |r| (r, &p.options)));
    let now: HashMap<&Redirect, &Options> = now.collect();
    let before = record.replaces.iter().flat_map(|p| p.redirects.iter().map(move |r| (r, &p.options)));
    let gone = before.filter(|(r, before)| !now.get(r).is_some_and(|now| now.allows_all_of(before)));
    let jail = record.jail.label();
    let none_stays = record.replaces.iter().flat_map(|p| &p.redirects).all(|r| !now.contains_key(r));
    // one call for all of the jail's states if nothing of the old set stays; also if the backend finds the states of a
    // mapping by its label, and there are states without one: rather all than one too few
    let all = none_stays || labels_mappings && !record.mapping_labels;
    // a connection to the jail itself has the mapping's label, if there is one, and the jail's port
    let direct = |r: &Redirect| (r.protocol, r.target, r.jail);
    let reached: HashMap<_, &Options> = now.iter().map(|(r, options)| (direct(r), *options)).collect();
    let whole = |r: &Redirect, before: &Options| {
        if all {
            return vec![States { jail: Some(jail.clone()), at: targets(record), ..States::default() }];
        }
        let mapping = |ports, to| States {
            mapping: Some(record.jail.mapping_label(r.protocol, r.host)),
            to,
            ..of_redirect(&jail, r, ports)
        };
        let to = if labels_mappings { None } else { host_of(r, now.keys().copied(), facts) };
        let mut states = vec![mapping(r.host, to)];
        let may = |now: &&Options| before.reach.iter().all(|interface| now.reach.contains(interface));
        if !labels_mappings && !before.reach.is_empty() && !reached.get(&direct(r)).is_some_and(may) {
            states.push(mapping(r.jail, Some(Hosts::of(r.target))));
        }
        states
    };
    let (mut states, mut parts, mut instead) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (r, before) in gone {
        // pfctl(8) prints both families of a state of af-to, as no other: those that are still allowed end as well
        let is_found = !(labels_mappings && r.af_to);
        let stays = now.get(r).filter(|_| is_found).and_then(|now| {
            let to = host_of(r, [r].into_iter(), facts);
            let reach = reached.get(&direct(r)).map_or(&[][..], |options| &options.reach);
            narrower(&jail, r, to, [before, now], reach, facts)
        });
        match stays {
            Some(some) => {
                parts.extend(some);
                instead.extend(whole(r, before));
            }
            None => states.extend(whole(r, before)),
        }
    }
    states.extend(if parts.len() > MOST_PARTS { instead } else { parts });
    states.into_iter().collect()
}

/// The states of a jail's connections to these ports, which lead to the target of a redirect.
fn of_redirect(jail: &Label, redirect: &Redirect, ports: PortRange) -> States {
    let ports = Some((redirect.protocol, ports));
    States { jail: Some(jail.clone()), ports, at: vec![redirect.target], ..States::default() }
}

/// Where all connections of a jail are led; empty if that is not known: sctp has states for other addresses as well
/// (pf_sctp_multihome_add_addr in sys/netpfil/pf/pf.c).
pub(super) fn targets(record: &Record) -> Vec<IpAddr> {
    let all = || record.possible().flat_map(|p| &p.redirects);
    match all().any(|r| r.protocol == Protocol::Sctp) {
        true => vec![],
        false => all().map(|r| r.target).collect::<BTreeSet<_>>().into_iter().collect(),
    }
}

/// Where connections to the host's ports of a redirect are to. If another mapping that stays leads to the same ports of the
/// jail, connections to the jail are not among them. The address of a jail on the host's network stack may be that of
/// both: rather one too many than one too few.
fn host_of<'a>(gone: &Redirect, stay: impl Iterator<Item = &'a Redirect>, facts: &Survey<'_>) -> Option<Hosts> {
    let near = |r: &&Redirect| r.protocol == gone.protocol && r.family() == gone.family() && r.jail.overlaps(gone.host);
    let targets: BTreeSet<IpAddr> = stay.filter(near).map(|r| r.target).collect();
    match targets.first() {
        Some(target) if targets.len() == 1 && facts.places().is_ok_and(|all| !all.is_own(*target)) => {
            Some(Hosts::except(*target))
        }
        _ => None,
    }
}

/// The states of connections with the host itself, from before its ports were redirected: pf looks at states first, so the
/// packets of a udp peer that keeps sending never reach the rules. Only for redirects that were not in pf before: `known` is
/// the record of those that were. Each range of ports is one element for each address of its place.
pub(super) fn from_before(record: &Record, known: Option<&Record>, facts: &Survey<'_>) -> Result<Vec<States>> {
    let known = known.iter().flat_map(|known| &known.publications);
    let known: Vec<(&Options, HashSet<Redirect>)> =
        known.map(|p| (&p.options, p.claims().iter().map(Redirect::without_target).collect())).collect();
    let mut found: BTreeMap<_, BTreeSet<PortRange>> = BTreeMap::new();
    for publication in &record.publications {
        let options = &publication.options;
        // others than those of the place's own interface and of the sources are redirected, too
        let anywhere = options.hairpin || options.host_access;
        let sources: Option<Vec<_>> = options.sources.iter().map(Source::network).collect();
        let sources = match sources.filter(|sources| !anywhere && !sources.is_empty()) {
            Some(sources) => sources.into_iter().map(|network| Some(Hosts::of(*network))).collect(),
            None => vec![None],
        };
        for claim in publication.claims() {
            let mapping = claim.without_target();
            if known.iter().any(|(before, there)| *before == options && there.contains(&mapping)) {
                continue;
            }
            let places = facts.places()?;
            let mut on = None;
            let addresses: Vec<IpAddr> = match claim.place {
                Place::Address(address) => vec![address],
                Place::Interface(name) => {
                    on = places.0.iter().any(|known| known.name == name && !anywhere).then_some(name);
                    places.members(name).flat_map(|member| &member.addresses).map(|own| own.addr()).collect()
                }
                Place::Any | Place::AnyOf(_) => {
                    places.0.iter().flat_map(|interface| &interface.addresses).map(|own| own.addr()).collect()
                }
            };
            for address in addresses {
                let elsewhere = Family::of(address) != claim.family()
                    || is_link_local6(address)
                    // of a jail on the host's stack: connections with the jail itself
                    || address == claim.target;
                let of_family =
                    |from: &Option<Hosts>| from.is_none_or(|from| Family::of(from.network.addr()) == claim.family());
                for from in sources.iter().copied().filter(of_family).filter(|_| !elsewhere) {
                    found.entry((on, from, claim.protocol, address)).or_default().insert(claim.host);
                }
            }
        }
    }
    let one = |((on, from, protocol, address), ports)| {
        let states = move |ports| States {
            ports: Some((protocol, ports)),
            to: Some(Hosts::of(address)),
            from,
            on,
            at: vec![address],
            ..States::default()
        };
        joined(ports).into_iter().map(states)
    };
    Ok(found.into_iter().flat_map(one).collect())
}

/// Ranges that are next to each other, or overlap, as one.
fn joined(ranges: BTreeSet<PortRange>) -> Vec<PortRange> {
    let mut all: Vec<PortRange> = vec![];
    for next in ranges {
        let near = all.pop_if(|last| u32::from(next.first()) <= u32::from(last.last()) + 1);
        let joined = near.and_then(|last| PortRange::new(last.first(), last.last().max(next.last())));
        all.push(joined.unwrap_or(next));
    }
    all
}

/// The states to end of a redirect that was published with other options. `to` is where connections through the redirect are to,
/// `reach` the reach list with which the jail's port is still published. `None` if they cannot be told from those of connections
/// that are still allowed: with lower limits.
fn narrower(
    jail: &Label, redirect: &Redirect, to: Option<Hosts>, [before, now]: [&Options; 2], reach: &[Interface],
    facts: &Survey<'_>,
) -> Option<Vec<States>> {
    if !now.limits.allow_all_of(&before.limits) {
        return None;
    }
    let interfaces = facts.places().ok()?;
    // with it, an epair without an address is where a connection comes in
    let members = facts.host.sysctl("net.link.bridge.pfil_member").ok()?.unwrap_or(0) != 0;
    let named = |names: &[Interface]| named(interfaces, names, members);
    let Redirect { target, place, .. } = *redirect;
    let part = |ports, to, on, from| States { to, from, on, ..of_redirect(jail, redirect, ports) };
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
        found.extend(from.into_iter().map(|from| part(redirect.host, to, on, Some(from))));
    }
    // without `on` and without sources the rule is for jails and for the host as well
    let everywhere = !matches!(place, Place::Interface(_)) && now.sources.is_empty();
    if !everywhere {
        let jails = |options: &Options| match options.hairpin {
            true => named(&options.reach).into_iter().filter(|on| !Place::Interface(*on).is_loopback()).collect(),
            false => BTreeSet::new(),
        };
        let own = |on: &Interface| matches!(place, Place::Interface(place) if interfaces.is_in(*on, place));
        let mut taken: BTreeSet<Interface> = jails(before).difference(&jails(now)).copied().collect();
        taken.retain(|on| !own(on));
        if before.host_access && !now.host_access {
            taken.extend(interfaces.0.iter().map(|known| known.name).filter(|on| Place::Interface(*on).is_loopback()));
        }
        found.extend(taken.into_iter().map(|on| part(redirect.host, to, Some(on), None)));
    }
    // connections to the jail itself
    let leads = interfaces.leads_to(target).ok().flatten();
    for on in named(&before.reach).difference(&named(reach)) {
        let mut direct = |from| found.push(part(redirect.jail, Some(Hosts::of(target)), Some(*on), from));
        match leads == Some(*on) {
            // here are also the states of all connections on their way out to the jail
            true => networks(interfaces, *on)
                .filter(|network| Family::of(network.addr()) == Family::of(target))
                .for_each(|network| direct(Some(Hosts::of(network)))),
            false => direct(None),
        }
    }
    Some(found)
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

fn networks<'a>(interfaces: Interfaces<'a>, on: Interface) -> impl Iterator<Item = IpNet> + use<'a> {
    let members = interfaces.0.iter().filter(move |known| known.name == on);
    members.flat_map(|member| &member.addresses).map(|own| own.trunc())
}

/// The sources of this family that were admitted, and are not any more. The addresses in a table are not known here: if it was
/// taken away, everybody may have been in it, and if it was added, nobody.
pub fn shut_out(before: &[Source], now: &[Source], others: Vec<IpNet>, family: Family) -> Vec<Hosts> {
    let of_family = |sources: &[Source]| -> Vec<IpNet> {
        let networks = sources.iter().filter_map(|source| source.network().copied());
        networks.filter(|network| Family::of(network.addr()) == family).collect()
    };
    let all = IpNet::new_assert(family.unspecified(), 0);
    let unknown = |source: &Source| source.network().is_none() && !now.contains(source);
    let everybody = before.is_empty() || before.iter().any(unknown);
    let mut allowed = of_family(now);
    allowed.extend(others.into_iter().filter(|network| Family::of(network.addr()) == family));
    let (mut found, mut shut) = (vec![], if everybody { vec![all] } else { of_family(before) });
    if let Some(first) = allowed.first().filter(|_| everybody) {
        let mut hull = *first;
        while let Some(wider) = hull.supernet().filter(|_| !allowed.iter().all(|network| hull.contains(network))) {
            hull = wider;
        }
        found.extend((hull != all).then(|| Hosts::except(hull)));
        shut = vec![hull];
    }
    found.extend(shut.into_iter().flat_map(|network| without(network, &allowed)).map(Hosts::of));
    found
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
