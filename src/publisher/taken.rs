//! Who else has a port: other jails, sockets of the host, other tools' rules.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Request;
use super::facts::Facts;
use super::survey::Survey;
use crate::conflict;
use crate::error::{Problem, Result};
use crate::name::Anchor;
use crate::net::Family;
use crate::publication::{self, Redirect};

/// Whether these ports are free: not chosen already, not kept by the jail for other mappings, and not in use by others.
pub(super) fn is_free(
    survey: &Survey<'_>,
    request: &Request,
    jid: Option<i32>,
    redirects: &[Redirect],
    made: &[Redirect],
    kept: &[Redirect],
) -> Result<bool> {
    let places = survey.facts.places()?;
    let claims = |redirects: &[Redirect]| publication::claims(redirects, &request.options);
    let (wanted, made) = (claims(redirects), claims(made));
    let own: HashSet<Redirect> = wanted.iter().map(without_target).collect();
    let others = || made.iter().chain(kept.iter().filter(|r| !own.contains(&without_target(r))));
    if wanted.iter().any(|r| others().any(|other| conflict::overlap(r, other, places))) {
        return Ok(false);
    }
    let own = request.jail.anchor();
    for redirect in &wanted {
        if survey.others.check(&own, jid, redirect, places, false)?.is_some()
            || !held_by_host(&survey.facts, redirect)?.is_empty()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The sockets of the host, rules of the administrator and other tools' rules that have the ports of a redirect.
pub(super) fn held_by_host(facts: &Facts<'_>, redirect: &Redirect) -> Result<Vec<Problem>> {
    let places = facts.places()?;
    let listeners = facts.listeners()?.iter().filter(|listener| redirect.host.contains(listener.port));
    let sockets = listeners.filter_map(|listener| conflict::with_listener(redirect, listener, places));
    let foreign = facts.foreign()?.iter().filter_map(|foreign| conflict::with_foreign(redirect, foreign, places));
    Ok(sockets.chain(foreign).collect())
}

/// The problem of a redirect with a remedy in addition, if a part of its place is free: that one.
pub(super) fn or_narrower(
    survey: &Survey<'_>,
    own: &Anchor,
    jid: Option<i32>,
    redirect: &Redirect,
    problem: Problem,
) -> Result<Problem> {
    let places = survey.facts.places()?;
    for narrower in conflict::narrower(redirect, places) {
        survey.facts.progress.in_time()?;
        if survey.others.check(own, jid, &narrower, places, false)?.is_none()
            && held_by_host(&survey.facts, &narrower)?.is_empty()
        {
            let instead = format!("publish on one interface or address of the host: {}", narrower.spec());
            return Ok(Problem { remedy: format!("{instead}, or {}", problem.remedy), ..problem });
        }
    }
    Ok(problem)
}

/// A redirect by its mapping, with any address of the jail.
pub(super) fn without_target(redirect: &Redirect) -> Redirect {
    let target = match redirect.family() {
        Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
        Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    Redirect { target, ..*redirect }
}
