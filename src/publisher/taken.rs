//! Who else has a port: other jails, sockets of the host, other tools' rules.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Request;
use super::facts::Facts;
use super::survey::Survey;
use crate::conflict;
use crate::error::{Error, Kind, Result};
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
    let found = wanted.iter().try_for_each(|r| {
        survey.others.check(&own, jid, r, places, false)?;
        held_by_host(&survey.facts, r, &mut |error| Err(error))
    });
    match found {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == Kind::Conflict => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses what a socket of the host, a rule of the administrator or another tool's rule has; `yielding` decides what happens
/// on a conflict.
pub(super) fn held_by_host(
    facts: &Facts<'_>,
    redirect: &Redirect,
    yielding: &mut dyn FnMut(Error) -> Result<()>,
) -> Result<()> {
    for listener in facts.listeners()?.iter().filter(|l| redirect.host.contains(l.port)) {
        conflict::with_listener(redirect, listener, facts.places()?).or_else(&mut *yielding)?;
    }
    for foreign in facts.foreign()? {
        conflict::with_foreign(redirect, foreign, facts.places()?).or_else(&mut *yielding)?;
    }
    Ok(())
}

/// A redirect by its mapping, with any address of the jail.
pub(super) fn without_target(redirect: &Redirect) -> Redirect {
    let target = match redirect.family() {
        Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
        Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    Redirect { target, ..*redirect }
}
