//! From requests to the record that is to be published (the jid and addresses, the gateway interface for each family, free ports
//! for `auto`), and whether that is possible: overlaps, and the tables that the requests name.

use std::collections::HashSet;
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::addresses::{Addresses, addresses, of_families, reported};
use super::survey::{Survey, gateway, is_of};
use super::{Phase, Request};
use crate::error::{Error, Kind, Problem, Result, Setting, error, quoted};
use crate::host::{ANSWER_TIME, Host, Interfaces, Jail};
use crate::name::JailName;
use crate::net::{Family, PortRange};
use crate::options::Source;
use crate::publication::{self, Publication, Redirect, Targets, distinct};
use crate::rule::Rule;
use crate::spec::{HostPorts, Mapping, Spec};
use crate::store::Record;
use crate::{conflict, readiness, rules};

/// What requests of one jail publish, of which there is one at least, each added to those before it, and not yet what was requested.
/// `old` is what the jail has published; it is also returned if they are added to it: what an earlier start left is not adopted.
pub(super) fn resolve<'r>(
    survey: &Survey<'_>, requests: &[Request], old: Option<&'r Record>,
) -> Result<(Record, Option<&'r Record>)> {
    survey.observer.phase(Phase::Resolve)?;
    let first = &requests[0];
    let jail = &first.jail;
    // a jail that is being removed is not the one that is published: that one has not started yet
    let (found, dying) = match survey.host.jail(jail.as_str())? {
        Some(jail) if jail.dying => (None, Some(jail.jid)),
        found => (found, None),
    };
    if let Some(found) = found.as_ref().filter(|j| j.name != jail.as_str()) {
        // later, when the jail is gone, it would be unknown which jail had published
        let (jid, name) = (quoted(jail.as_str()), quoted(&found.name));
        return Err(error!(Argument, "{jid} is the jid of jail {name}; publish by its name"));
    }
    let given = requests.iter().find_map(|request| request.jid);
    if let (None, Some(jid)) = (&found, given) {
        check_hidden(survey, jail, jid)?;
    }
    check_kind(survey, first, found.as_ref(), old)?;
    // the jail that runs now: the poststart hook of a restart (jail -rc) is given the jid of the earlier start
    let jid = found.as_ref().map(|j| j.jid).or(given);
    let kept = match old {
        Some(old) if first.add && is_same_start(survey, old, jid)? => Some(old),
        _ => None,
    };
    // what is added belongs to the start that is known
    let jid = jid.or(kept.and_then(|old| old.jid));
    let earlier_jid = match jid {
        Some(_) => None,
        None => dying.or(old.and_then(|old| old.jid.or(old.earlier_jid))),
    };
    survey.observer.detail(&match &found {
        Some(j) => {
            let stack = if j.vnet { "with a network stack of its own" } else { "on the host's network stack" };
            format!("jail {}: jid {}, {stack}", quoted(&j.name), j.jid)
        }
        None => format!("{}: not requested, or not running", jail.mention()),
    });
    let (path, no_jail) = (found.as_ref().map(|jail| jail.path.clone()), first.no_jail);
    let mut record = Record { jid, path, earlier_jid, no_jail, ..survey.new_record(jail)? };
    if let Some(old) = kept {
        record.publications.clone_from(&old.publications);
        record.reported.clone_from(&old.reported);
    }
    for request in requests {
        add(survey, request, found.as_ref(), old, &mut record)?;
    }
    Ok((record, kept))
}

/// Adds what a request publishes.
fn add(
    survey: &Survey<'_>, request: &Request, found: Option<&Jail>, old: Option<&Record>, record: &mut Record,
) -> Result<()> {
    let Addresses { all: addresses, reported, given } = addresses(survey, request, found)?;
    let targets = targets(request, &addresses, found)?;
    for target in targets.all() {
        if reported.contains(&target) {
            if !record.redirects().any(|r| r.target == target) {
                record.reported.insert(target);
            }
        } else {
            record.reported.remove(&target);
            if given {
                let known = there_or_above(survey, &request.jail, found)?;
                survey.disprove(&request.jail, Some(&known).filter(|_| !request.no_jail), target)?;
            }
        }
    }
    let shown = |all: Vec<IpAddr>| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
    let chosen = shown(targets.all().collect());
    survey.observer.detail(&format!("addresses: {}; the targets of redirects are {chosen}", shown(addresses)));
    let redirects = redirects(survey, request, record, old, &targets)?;
    join(&mut record.publications, publication(survey, survey.places()?, request, found, redirects)?);
    let targets: HashSet<IpAddr> = record.redirects().map(|r| r.target).collect();
    record.reported.retain(|target| targets.contains(target));
    Ok(())
}

/// The redirects of a request, with a free port for each `auto`; `own` has what the jail keeps for other mappings.
fn redirects(
    survey: &Survey<'_>, request: &Request, own: &Record, old: Option<&Record>, targets: &Targets,
) -> Result<Vec<Redirect>> {
    let redirects_of = |spec: &Spec| redirects_of(survey, request, spec, targets);
    let is_auto = |m: &&Mapping| m.host == HostPorts::Auto;
    // ports that are given come first: a chosen port must not overlap them
    let given = request.spec.only(|m| !is_auto(&m));
    let mut made = given.map_or(Ok(vec![]), |spec| redirects_of(&spec))?;
    let autos: Vec<&Mapping> = request.spec.mappings().iter().filter(is_auto).collect();
    let before: HashSet<Redirect> = old.iter().flat_map(|old| old.redirects()).map(Redirect::without_target).collect();
    let kept = own.claims();
    // auto:53/tcp,udp is one service, at one port
    for group in autos.chunk_by(|a, b| (a.place, a.jail) == (b.place, b.jail) && a.protocol != b.protocol) {
        let mapping = group[0];
        let mut chosen = None;
        for (first, fresh) in candidates(request, old, mapping, targets) {
            survey.in_time()?;
            let Some(host) = PortRange::starting_at(first, mapping.jail.count()) else { continue };
            let mut redirects = vec![];
            for mapping in group {
                let fixed = Mapping { host: HostPorts::Fixed(host), ..**mapping };
                redirects.extend(redirects_of(&Spec::one(fixed))?);
            }
            // a port that the jail has at another place does not belong to this mapping
            if !fresh && !redirects.iter().any(|r| before.contains(&r.without_target())) {
                continue;
            }
            if is_free(survey, request, own, &redirects, &made, &kept)? {
                chosen = Some(redirects);
                break;
            }
        }
        let Some(redirects) = chosen else {
            return Err(error!(Conflict, "{mapping}: no port from {} is free", request.auto_range)
                .remedy("give others with", Setting::AutoRange));
        };
        made.extend(redirects);
    }
    Ok(made)
}

fn redirects_of(host: &dyn Host, request: &Request, spec: &Spec, targets: &Targets) -> Result<Vec<Redirect>> {
    let gateway = |family| request.gateway.map_or_else(|| gateway(host, family), Ok);
    publication::redirects(&request.jail, spec, targets, gateway)
}

/// Whether these ports are free: not chosen already, not kept by the jail for other mappings, and not in use by others.
fn is_free(
    survey: &Survey<'_>, request: &Request, own: &Record, redirects: &[Redirect], made: &[Redirect], kept: &[Redirect],
) -> Result<bool> {
    let places = survey.places()?;
    let claims = |redirects: &[Redirect]| publication::claims(redirects, &request.options);
    let (wanted, made) = (claims(redirects), claims(made));
    let again: HashSet<Redirect> = wanted.iter().map(Redirect::without_target).collect();
    let others = || made.iter().chain(kept.iter().filter(|r| !again.contains(&r.without_target())));
    if wanted.iter().any(|r| others().any(|other| conflict::overlap(r, other, places))) {
        return Ok(false);
    }
    for redirect in &wanted {
        if !survey.is_free(own, redirect)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The rules that [`Publisher::publish`](super::Publisher::publish) would load for a request, without checking pf, the records or
/// the ports. If the request has no addresses, those that the jail reports are used.
///
/// # Errors
///
/// As for [`Publisher::publish`](super::Publisher::publish), as far as they follow from the request and the host's interfaces;
/// [`Kind::Unsupported`] for `auto`, whose port is chosen when it is published.
#[doc(hidden)]
pub fn rules(host: &dyn Host, request: &Request) -> Result<Vec<Rule>> {
    let running = host.jail(request.jail.as_str())?.filter(|jail| !jail.dying);
    let addresses = match request.addresses.is_empty() {
        true => reported(&request.jail, running.as_ref(), |jail| host.vnet_addresses(jail, ANSWER_TIME))?,
        false => request.addresses.clone(),
    };
    let targets = targets(request, &of_families(request, addresses)?, running.as_ref())?;
    let redirects = redirects_of(host, request, &request.spec, &targets)?;
    let interfaces = match host.interfaces() {
        Err(error) if error.kind() == Kind::Unsupported => vec![],
        other => other?,
    };
    Ok(rules::rules(&publication(host, Interfaces(&interfaces), request, running.as_ref(), redirects)?))
}

fn targets(request: &Request, addresses: &[IpAddr], there: Option<&Jail>) -> Result<Targets> {
    let own = there.map_or(&[][..], Jail::on_host_stack);
    Ok(Targets { af_to: request.options.af_to, ..Targets::choose_of(&request.jail, addresses, own)? })
}

/// The publication of a request, with the way of its answers. A router that was given must be next to the host.
fn publication(
    host: &dyn Host, all: Interfaces<'_>, request: &Request, there: Option<&Jail>, redirects: Vec<Redirect>,
) -> Result<Publication> {
    let mut made = Publication::new(request.jail.clone(), redirects, request.options.clone(), |to| all.leads_to(to))?;
    made.answers = readiness::answers(host, all, there.map_or(0, |jail| jail.fib), &made)?;
    let needed = |router: &&IpAddr| made.redirects.iter().any(|r| r.family() == Family::of(**router));
    let hops = || made.answers.iter().filter_map(|answer| answer.routing.reply_to?.gateway);
    let given = request.options.reply_to.iter().flatten();
    if let Some(router) = given.filter(needed).find(|router| !hops().any(|hop| hop == **router)) {
        let places = distinct(made.redirects.iter().map(|r| r.place.to_string())).join(" ");
        return Err(error!(Argument, "no interface of {places} has a network with the router {router}")
            .remedy("give another with", Setting::ReplyTo));
    }
    Ok(made)
}

/// A jail, or one that has not started yet, as far as it can be known: it may use the network stack of the jail above it.
fn there_or_above(survey: &Survey<'_>, jail: &JailName, there: Option<&Jail>) -> Result<Jail> {
    if let Some(there) = there {
        return Ok(there.clone());
    }
    let above = jail.as_str().rsplit_once('.').map(|(above, _)| survey.host.jail(above)).transpose()?.flatten();
    Ok(above.unwrap_or_else(|| Jail { name: jail.to_string(), ..Jail::default() }))
}

/// The caller has the jid of a jail that the host does not show by its name. Fails unless it is one that cannot be read: jail(8)
/// removes a jail whose hook takes longer than `exec.timeout`, but the hook goes on.
fn check_hidden(survey: &Survey<'_>, jail: &JailName, jid: i32) -> Result<()> {
    let jails = match survey.jails() {
        // a system without jails, for trying kport
        Err(error) if error.kind() == Kind::Unsupported => return Ok(()),
        jails => jails?,
    };
    if jails.skipped.iter().any(|there| there.jid == jid) {
        return Ok(());
    }
    Err(error!(Unavailable, "{} (jid {jid}) is gone, so nothing was published", jail.mention()))
}

/// A name is that of a jail or of another target, and not both.
fn check_kind(survey: &Survey<'_>, request: &Request, found: Option<&Jail>, old: Option<&Record>) -> Result<()> {
    let name = request.jail.mention();
    let why = match (request.no_jail, old) {
        (true, _) if found.is_some() => {
            format!("{name} is running; choose another name for a target that is not a jail")
        }
        (true, Some(old)) if !old.no_jail && survey.is_starting(old)? => {
            format!("{name} is published, and may be starting; unpublish it first, or choose another name")
        }
        (false, Some(old)) if old.no_jail => {
            let name = old.mention();
            format!("{name} is published, but not as a jail; unpublish it first, or give the jail another name")
        }
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Conflict, why))
}

/// Whether the record was published for the start of the jail with this jid, or may have been.
fn is_same_start(survey: &Survey<'_>, old: &Record, jid: Option<i32>) -> Result<bool> {
    match (old.jid, jid) {
        (Some(before), Some(now)) => Ok(before == now),
        // the jail has not started yet: the other one is another start of it
        (Some(before), None) => {
            let jails = survey.jails()?;
            let runs = jails.jails.iter().any(|jail| is_of(old, jail));
            Ok(runs || jails.skipped.iter().any(|jail| jail.jid == before))
        }
        (None, _) => Ok(true),
    }
}

/// The first ports to try for a mapping with `auto`, best first, each with whether the jail still needs it: what the jail may
/// have for the mapping now, then from a port derived from its name, so that a jail gets the same port at every start, and
/// different jails get different ones.
fn candidates(
    request: &Request, old: Option<&Record>, mapping: &Mapping, targets: &Targets,
) -> impl Iterator<Item = (u16, bool)> {
    let range = request.auto_range;
    let mut current: Vec<(bool, u16)> = old
        .iter()
        .flat_map(|old| &old.publications)
        .flat_map(|p| p.redirects.iter().map(move |r| (p.options == request.options, r)))
        .filter(|(_, r)| r.jail == mapping.jail && r.protocol == mapping.protocol)
        .filter(|(_, r)| mapping.place.is_none_or(|place| place == r.place))
        .filter(|(_, r)| range.contains(r.host.first()) && range.contains(r.host.last()))
        .map(|(same, r)| (same && targets.of(Family::of(r.target)) == Some(r.target), r.host.first()))
        .collect();
    // what exactly matches the request comes first, or the same request would move another port each time
    current.sort_by_key(|(same, _)| !same);
    let digest = Sha256::digest(format!("{mapping}\n{}", request.jail).as_bytes());
    let seed = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) as usize;
    let firsts = range.first()..=range.last().saturating_sub(mapping.jail.count() - 1);
    let fresh = firsts.clone().cycle().skip(seed % firsts.len().max(1)).take(firsts.len());
    current.into_iter().map(|(_, port)| (port, false)).chain(fresh.map(|port| (port, true)))
}

/// Adds a publication to what is published. Mappings that were there with other options, or to a former address of the jail, move to
/// the new one.
fn join(all: &mut Vec<Publication>, added: Publication) {
    let new: HashSet<&Redirect> = added.redirects.iter().collect();
    let mappings: HashSet<Redirect> = added.redirects.iter().map(Redirect::without_target).collect();
    for publication in all.iter_mut() {
        let same = publication.options == added.options;
        publication.redirects.retain(|r| !mappings.contains(&r.without_target()) || same && new.contains(r));
    }
    match all.iter_mut().find(|p| p.options == added.options) {
        Some(same) => {
            let known: HashSet<Redirect> = same.redirects.iter().copied().collect();
            same.redirects.extend(added.redirects.iter().filter(|r| !known.contains(r)));
            same.via.extend(added.via);
            same.answers.retain(|a| !added.redirects.iter().any(|r| (r.place, r.target) == (a.place, a.target)));
            same.answers.extend(added.answers);
        }
        None => all.push(added),
    }
    all.retain(|p| !p.redirects.is_empty());
}

/// Refuses ports that are in use. Those of other jails are never overridden; sockets, other tools' rules and anchors without
/// a record are, with `force`. `old` is the record of what is published now, `kept` that to which they are added.
pub(super) fn check(
    survey: &Survey<'_>, requests: &[Request], old: Option<&Record>, kept: Option<&Record>, new: &Record,
) -> Result<()> {
    survey.observer.phase(Phase::Check)?;
    let publications = &new.publications;
    if let Some(redirect) = new.redirects().find(|r| r.af_to)
        && survey.host.sysctl("kern.osreldate")?.is_some_and(|date| date < 1_500_000)
    {
        return Err(error!(Unsupported, "{redirect}: pf of FreeBSD 14 has no af-to, 15 does"));
    }
    let claims: Vec<Redirect> = publications.iter().flat_map(Publication::claims).collect();
    if claims.len() > 1 {
        conflict::within(&claims, survey.places()?)?;
    }
    let force = requests.iter().all(|request| request.force);
    let mut forced = vec![];
    // what stays was checked when it was published, and may have been forced then
    let stays = kept.or(old.filter(|old| old.replaces.is_empty() && old.publications == *publications));
    let [kept, published] = [stays, old].map(|old| old.map(Record::claims).unwrap_or_default());
    let [kept, published] = [kept, published].map(HashSet::<Redirect>::from_iter);
    for redirect in &claims {
        survey.in_time()?;
        let refused = |problem| Ok::<_, Error>(or_narrower(survey, new, redirect, problem)?.error(Kind::Conflict));
        match survey.held_by_others(new, redirect, force)? {
            // an address of the host has moved since it was published: the neighbour is not newer than this one
            Some(problem) if published.contains(redirect) => {
                forced.push(format!("already published, even though {problem}"));
            }
            Some(problem) => return Err(refused(problem)?),
            None => {}
        }
        if kept.contains(redirect) {
            continue;
        }
        if let Err(error) = conflict::with_transit(redirect, survey.places()?) {
            if !force {
                return Err(error);
            }
            forced.push(format!("forced: {}", error.found()));
        }
        for problem in survey.held_by_host(redirect)? {
            if !force {
                return Err(refused(problem)?.remedy("to publish anyway, give", Setting::Force));
            }
            forced.push(format!("forced: {problem}"));
        }
    }
    forced.into_iter().for_each(|note| survey.note(note));
    if requests.iter().all(|request| !request.default_everywhere)
        && let Some(note) = readiness::everywhere(publications)
    {
        survey.note(note);
    }
    requests.iter().try_for_each(|request| check_tables(survey, request))
}

/// The tables that the request names must exist: pf matches nothing in a table that is missing.
fn check_tables(survey: &Survey<'_>, request: &Request) -> Result<()> {
    for source in &request.options.sources {
        let Source::Table(table) = source else { continue };
        if survey.firewall.has_table(table)? {
            continue;
        }
        let what = format!("pf has no table <{table}>, so no traffic would be passed");
        let error = error!(Unavailable, "{what}; add to /etc/pf.conf: table <{table}> persist, {}", readiness::RELOAD);
        if !request.allow_inert {
            return Err(error);
        }
        survey.note(format!("without effect at present: {error}"));
    }
    Ok(())
}

/// The problem of a redirect with a remedy in addition, if a part of its place is free: that one.
fn or_narrower(survey: &Survey<'_>, own: &Record, redirect: &Redirect, problem: Problem) -> Result<Problem> {
    for narrower in conflict::narrower(redirect, survey.places()?) {
        survey.in_time()?;
        if survey.is_free(own, &narrower)? {
            let instead = format!("publish on one interface or address of the host: {}", narrower.spec());
            return Ok(Problem { remedy: format!("{instead}, or {}", problem.remedy), ..problem });
        }
    }
    Ok(problem)
}
