//! Makes the rules of a jail's anchor from its publications: the one place that decides which rules go where.
//!
//! Pure: no host is read, nothing is loaded. The rules are the ones that were seen to work on FreeBSD 15.1; they use only what
//! pf.conf(5) of 14 and 15 have in common, except `af-to`, an option for 15. Never `rdr pass` (it skips the administrator's filter
//! rules and accepts no label), never `rdr-to` (unknown to 14).

use std::collections::HashSet;
use std::mem;
use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::name::Label;
use crate::net::{Direction, Interface, Place, PortRange, Protocol};
use crate::options::Options;
use crate::publication::{Answer, Publication, Redirect, distinct};
use crate::rule::{Address, Match, Member, Rule, StateOptions};

/// The group of the interfaces that the host's own stack uses to reach itself.
const LOOPBACK: &str = "lo";

/// The rules of one publication; see [`of_all`].
pub fn rules(publication: &Publication) -> Vec<Rule> {
    of_all(std::slice::from_ref(publication))
}

/// The rules of one jail's anchor, in pf's order: nat, rdr, pass. A jail has one publication, or several with different
/// options. No rule is there twice, even if a list stands for several (the kernel refuses that with EEXIST,
/// pf_ioctl_addrule in sys/netpfil/pf/pf_ioctl.c).
pub fn of_all(publications: &[Publication]) -> Vec<Rule> {
    let own_tags = with_own_tags(publications);
    let mut lists: [Vec<Rule>; 6] = Default::default();
    for (n, publication) in publications.iter().enumerate() {
        let [nat, rdr, answers, pass, direct] = kinds(n, publication, &own_tags);
        // the one for some packets decides: the first rule that is quick, else the last one
        let [first, last] = if publication.options.quick { [answers, vec![]] } else { [vec![], answers] };
        // the pass rule of each mapping before the one for the reach list: a published connection keeps the mapping's own
        // rule
        for (list, rules) in lists.iter_mut().zip([nat, rdr, first, pass, direct, last]) {
            list.extend(rules);
        }
    }
    let all: Vec<Rule> = lists.into_iter().flatten().collect();
    if publications.len() < 2 {
        return all;
    }
    // two publications may have members of their lists in common
    distinct(all.iter().flat_map(Rule::expand))
}

/// The nat, rdr, answer, pass and reach rules of the publication with number `n`.
fn kinds(n: usize, publication: &Publication, own_tags: &HashSet<Target>) -> [Vec<Rule>; 5] {
    let Publication { jail, redirects, options, via, answers } = publication;
    let jail_label = jail.label();
    let reach = distinct(options.reach.iter().copied());
    let [mut nat, mut rdr, mut back, mut pass, mut direct, mut af_to]: [Vec<Rule>; 6] = Default::default();
    for redirect in redirects {
        let labels = [jail_label.clone(), jail.mapping_label(redirect.protocol, redirect.host)];
        let tag = match own_tags.contains(&target(redirect)) {
            true => jail.mapping_tag(redirect.protocol, redirect.host, n),
            false => jail_label.clone(),
        };
        let base = Match {
            on: vec![],
            family: redirect.family(),
            protocol: redirect.protocol,
            from: vec![],
            to: vec![],
            ports: redirect.host,
        };
        if redirect.af_to {
            let Some(address_of) = via.get(&redirect.target).copied() else { continue };
            let outside = Options { host_access: false, ..options.clone() };
            af_to.extend(entrances(redirect, &outside, &reach, &base).into_iter().map(|matches| Rule::AfTo {
                log: options.log,
                quick: options.quick,
                matches,
                address_of,
                target: redirect.target,
                port: (redirect.host != redirect.jail).then(|| redirect.jail.first()),
                state: options.limits.state(redirect.protocol),
                labels: labels.clone(),
            }));
            continue;
        }
        let entrances = entrances(redirect, options, &reach, &base);
        let entered = !entrances.is_empty();
        rdr.extend(entrances.into_iter().map(|matches| Rule::Rdr {
            matches,
            tag: tag.clone(),
            target: redirect.target,
            ports: redirect.jail,
        }));
        if let Some(interface) = via.get(&redirect.target) {
            let mut push = |from, tagged, source| {
                let (on, to) = (vec![*interface], vec![Address::Host(redirect.target)]);
                let matches = Match { on, from, to, ports: redirect.jail, ..base };
                nat.push(Rule::Nat { matches, tagged, source });
            };
            for from in returns(redirect, options, *interface) {
                push(from, None, Address::Interface(*interface));
            }
            if options.masquerade && entered {
                // one address, on the network of the jail, which answers to it directly
                push(vec![], Some(tag.clone()), Address::First(*interface));
            }
        }
        if !reach.is_empty() {
            direct.extend(passes(options, redirect, &reach, None, None, &labels));
        }
        if entered {
            for answer in answers.iter().filter(|a| (a.place, a.target) == (redirect.place, redirect.target)) {
                back.extend(passes(options, redirect, &[answer.on], Some(answer), Some(&tag), &labels));
            }
            pass.extend(passes(options, redirect, &[], None, Some(&tag), &labels));
        }
    }
    pass.append(&mut af_to);
    [nat, rdr, back, pass, direct].map(without_repetition)
}

/// The packets that a redirect matches: those from outside, then the jails' to the host's address, then the host's own.
fn entrances(redirect: &Redirect, options: &Options, reach: &[Interface], base: &Match) -> ArrayVec<Match, 3> {
    let place = redirect.place;
    let local = place.is_loopback();
    let (on, to) = match place {
        Place::Interface(interface) => (Some(interface), Address::Interface(interface)),
        Place::Address(address) => (None, Address::Host(address)),
        Place::Any | Place::AnyOf(_) => (None, Address::Own),
    };
    let from = distinct(options.sources.iter().filter_map(|source| source.address(redirect.family())));
    // sources without an address of this family match nothing; an empty list in a rule would match anything
    let nobody = from.is_empty() && !options.sources.is_empty();
    // without `on` and without sources the rule also matches packets from jails and from the host
    let everywhere = on.is_none() && options.sources.is_empty() && !local;
    let mut made = ArrayVec::new();
    if !local && !nobody {
        made.push(Match { on: on.into_iter().collect(), from, to: vec![to.clone()], ..base.clone() });
    }
    if options.hairpin && !local && !everywhere {
        // the place's own interface has its rule already, unless that one is for some sources only
        let covered = |interface: &Interface| options.sources.is_empty() && on == Some(*interface);
        let jails = |interface: &Interface| !Place::Interface(*interface).is_loopback() && !covered(interface);
        let on: Vec<Interface> = reach.iter().copied().filter(jails).collect();
        if !on.is_empty() {
            made.push(Match { on, to: vec![to.clone()], ..base.clone() });
        }
    }
    if options.host_access {
        let mut own = vec![];
        if !everywhere {
            own.push(to);
        }
        // (self) has the loopback addresses, and a loopback place stands for itself
        if !local && !place.is_any() {
            own.push(Address::Host(redirect.family().loopback()));
        }
        if !own.is_empty() {
            made.push(Match { on: LOOPBACK.parse().into_iter().collect(), to: own, ..base.clone() });
        }
    }
    made
}

/// The sources that must be replaced with an address of the interface that leads to the jail, so that the answers
/// return through pf: those of the jail's own network, which the jail would answer directly, and the host's own.
fn returns(redirect: &Redirect, options: &Options, interface: Interface) -> Vec<Vec<Address>> {
    let mut made = vec![];
    if options.hairpin && !redirect.place.is_loopback() {
        made.push(vec![Address::InterfaceNetwork(interface)]);
    }
    if options.host_access {
        let loopback: Vec<Address> = "lo0".parse().map(Address::Interface).into_iter().collect();
        made.push(match redirect.place {
            Place::Any | Place::AnyOf(_) => vec![Address::Own],
            place if place.is_loopback() => loopback,
            Place::Interface(outer) => [loopback, vec![Address::Interface(outer)]].concat(),
            Place::Address(address) => [loopback, vec![Address::Host(address)]].concat(),
        });
    }
    made
}

/// Pass rules for a redirect's target; with an `answer`, for what comes in there, which is not answered by the routes.
fn passes(
    options: &Options, redirect: &Redirect, on: &[Interface], answer: Option<&Answer>, tagged: Option<&Label>,
    labels: &[Label; 2],
) -> Vec<Rule> {
    let Redirect { protocol, target, jail: ports, .. } = *redirect;
    let Options { log, quick, limits, .. } = *options;
    let beyond = answer.filter(|answer| answer.beyond).map(|answer| Address::NotInterfaceNetwork(answer.on));
    let (on, from, to) = (on.to_vec(), beyond.into_iter().collect(), vec![Address::Host(target)]);
    let matches = Match { on, family: redirect.family(), protocol, from, to, ports };
    let rule = |direction, log, state| Rule::Pass {
        direction,
        log,
        quick,
        routing: answer.map(|answer| answer.routing).unwrap_or_default(),
        matches: matches.clone(),
        tagged: tagged.cloned(),
        state,
        labels: labels.clone(),
    };
    let (state, none) = (limits.state(protocol), StateOptions::default());
    match answer {
        Some(_) => vec![rule(Some(Direction::In), log, state)],
        None if !log && state == none => vec![rule(None, log, state)],
        None => vec![rule(Some(Direction::In), log, state), rule(Some(Direction::Out), false, none)],
    }
}

/// The rules, each without what an earlier one of the same kind matches: it would never be reached. At most one of the lists of a
/// rule has several members.
fn without_repetition(mut rules: Vec<Rule>) -> Vec<Rule> {
    let mut seen = HashSet::with_capacity(rules.len());
    rules.retain_mut(|rule| {
        let (direction, tagged) = match rule {
            Rule::Nat { tagged, .. } => (None, tagged.clone()),
            Rule::Pass { direction, tagged, .. } => (*direction, tagged.clone()),
            Rule::Rdr { .. } | Rule::AfTo { .. } => (None, None),
        };
        let kind = (mem::discriminant(rule), direction, tagged);
        let matches = rule.matches_mut();
        let packets = (matches.family, matches.protocol, matches.ports);
        let owned = matches.members().map(|Member { on, from, to }| (on.copied(), from.cloned(), to.cloned()));
        let new: Vec<_> = owned.filter(|one| seen.insert((kind.clone(), packets, one.clone()))).collect();
        matches.on = distinct(new.iter().filter_map(|(on, ..)| *on));
        matches.from = distinct(new.iter().filter_map(|(_, from, _)| from.clone()));
        matches.to = distinct(new.iter().filter_map(|(.., to)| to.clone()));
        !new.is_empty()
    });
    rules
}

/// What a redirect leads to: the protocol, and the address and ports of a jail.
type Target = (Protocol, IpAddr, PortRange);

fn target(redirect: &Redirect) -> Target {
    (redirect.protocol, redirect.target, redirect.jail)
}

/// The targets of redirects that need a tag of their own instead of the jail's: those to a port of the jail that is
/// also the target of another mapping, or of another publication with other options. With one tag for both, the first
/// pass rule would match the packets of both, and the states of one mapping could not be told from those of the other.
fn with_own_tags(publications: &[Publication]) -> HashSet<Target> {
    let uses = publications.iter().enumerate();
    let uses = uses.flat_map(|(n, publication)| publication.redirects.iter().map(move |r| (target(r), (n, r.host))));
    let mut uses: Vec<_> = uses.collect();
    uses.sort_unstable();
    let mut own = HashSet::new();
    let mut rest = uses.as_slice();
    while let [((protocol, address, ports), user), ..] = rest {
        // all that are connected by ports that they have in common
        let mut last = ports.last();
        let together = rest.iter().take_while(|((p, a, ports), _)| {
            let joins = (p, a) == (protocol, address) && ports.first() <= last;
            last = last.max(ports.last());
            joins
        });
        let (these, behind) = rest.split_at(together.count());
        if these.iter().any(|(_, other)| other != user) {
            own.extend(these.iter().map(|(target, _)| *target));
        }
        rest = behind;
    }
    own
}
