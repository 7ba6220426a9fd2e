//! Whether requests can be published: overlaps, and the tables that they name.

use std::collections::HashSet;

use super::resolve::Resolved;
use super::survey::Survey;
use super::{Phase, Request};
use crate::conflict;
use crate::error::{Error, Kind, Problem, Result, Setting};
use crate::name::Anchor;
use crate::options::Source;
use crate::publication::{Publication, Redirect};
use crate::readiness;
use crate::store::Record;

/// Refuses ports that are in use. Those of other jails are never overridden; sockets, other tools' rules and anchors without
/// a record are, with `force`. `old` is the record of what is published now.
pub(super) fn check(
    survey: &Survey<'_>,
    requests: &[Request],
    old: Option<&Record>,
    resolved: &Resolved,
) -> Result<()> {
    survey.phase(Phase::Check)?;
    let Resolved { jid, adds, publications, .. } = resolved;
    let af_to = publications.iter().flat_map(|p| &p.redirects).find(|r| r.af_to);
    if let Some(redirect) = af_to
        && survey.host.sysctl("kern.osreldate")?.is_some_and(|date| date < 1_500_000)
    {
        return Err(Error::new(Kind::Unsupported, format!("{redirect}: pf of FreeBSD 14 has no af-to, 15 does")));
    }
    let claims: Vec<Redirect> = publications.iter().flat_map(Publication::claims).collect();
    if claims.len() > 1 {
        conflict::within(&claims, survey.places()?)?;
    }
    let own = requests[0].jail.anchor();
    let force = requests.iter().all(|request| request.force);
    let mut forced = vec![];
    // what stays was checked when it was published, and may have been forced then
    let stays = old.filter(|old| *adds || old.replaces.is_empty() && old.publications == *publications);
    let kept: HashSet<Redirect> = stays.map(|old| old.claims().into_iter().collect()).unwrap_or_default();
    let published: HashSet<Redirect> = old.map(|old| old.claims().into_iter().collect()).unwrap_or_default();
    for redirect in &claims {
        survey.in_time()?;
        let refused =
            |problem| Ok::<_, Error>(or_narrower(survey, &own, *jid, redirect, problem)?.error(Kind::Conflict));
        match survey.held_by_others(&own, *jid, redirect, force)? {
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
        let remedy = format!("add to /etc/pf.conf: table <{table}> persist, then: service pf reload");
        let error = Error::new(Kind::Unavailable, format!("{what}; {remedy}"));
        if !request.allow_inert {
            return Err(error);
        }
        survey.note(format!("without effect at present: {error}"));
    }
    Ok(())
}

/// The problem of a redirect with a remedy in addition, if a part of its place is free: that one.
fn or_narrower(
    survey: &Survey<'_>,
    own: &Anchor,
    jid: Option<i32>,
    redirect: &Redirect,
    problem: Problem,
) -> Result<Problem> {
    for narrower in conflict::narrower(redirect, survey.places()?) {
        survey.in_time()?;
        if survey.held_by_others(own, jid, &narrower, false)?.is_none() && survey.held_by_host(&narrower)?.is_empty() {
            let instead = format!("publish on one interface or address of the host: {}", narrower.spec());
            return Ok(Problem { remedy: format!("{instead}, or {}", problem.remedy), ..problem });
        }
    }
    Ok(problem)
}
