//! Whether requests may be: what they overlap, and the tables that they name.

use std::collections::HashSet;

use super::resolve::Resolved;
use super::transaction::Transaction;
use super::{Phase, Request};
use crate::conflict;
use crate::error::{Error, Kind, Result};
use crate::net::Place;
use crate::options::Source;
use crate::publication::{Publication, Redirect};
use crate::store::Record;

impl Transaction<'_> {
    /// Refuses what somebody else has. Other jails are final; sockets and other tools' rules yield to `force`.
    ///
    /// Returns the record of what is published then; `old` is the one of now.
    pub(super) fn check(&mut self, requests: &[Request], old: Option<&Record>, resolved: Resolved) -> Result<Record> {
        self.observer.phase(Phase::Check)?;
        let Resolved { jid, earlier_jid, adds, publications } = resolved;
        let forced = self.check_ports(requests, old, old.filter(|_| adds), jid, &publications)?;
        self.outcome.notes.extend(forced);
        self.note_everywhere(&publications);
        requests.iter().try_for_each(|request| self.check_tables(request))?;
        Ok(Record { earlier_jid, ..self.record_of(&requests[0].jail, jid, publications) })
    }

    /// What of it was forced, and what overlaps all the same. `old` is what the jail has published, `added_to` the same if it
    /// keeps it.
    fn check_ports(
        &self,
        requests: &[Request],
        old: Option<&Record>,
        added_to: Option<&Record>,
        jid: Option<i32>,
        publications: &[Publication],
    ) -> Result<Vec<String>> {
        let claims: Vec<Redirect> = publications.iter().flat_map(Publication::claims).collect();
        if claims.len() > 1 {
            conflict::within(&claims, self.facts.places()?)?;
        }
        let own = requests[0].jail.anchor();
        let force = requests.iter().all(|request| request.force);
        let mut forced = vec![];
        // what stays was looked at when it was published, and may have been forced then
        let stays = added_to.or(old.filter(|old| is_same(old, publications)));
        let kept: HashSet<Redirect> = stays.map(|old| old.claims().into_iter().collect()).unwrap_or_default();
        let published: HashSet<Redirect> = old.map(|old| old.claims().into_iter().collect()).unwrap_or_default();
        for redirect in &claims {
            self.in_time()?;
            match self.others.check(&own, jid, redirect, self.facts.places()?) {
                // an address of the host has moved since it was published: the neighbour is no newer than this one
                Err(error) if error.kind() == Kind::Conflict && published.contains(redirect) => {
                    forced.push(format!("published already, though {error}"));
                }
                other => other?,
            }
            if kept.contains(redirect) {
                continue;
            }
            let mut yielding = |error| {
                if !force {
                    return Err(error);
                }
                forced.push(format!("forced: {error}"));
                Ok(())
            };
            conflict::with_transit(redirect, self.facts.places()?).or_else(&mut yielding)?;
            self.check_host(redirect, &mut yielding)?;
        }
        Ok(forced)
    }

    /// What is on every address is on those toward jails, too.
    fn note_everywhere(&mut self, publications: &[Publication]) {
        let mut all =
            publications.iter().flat_map(|p| &p.redirects).filter(|r| matches!(r.place, Place::Any | Place::AnyOf(_)));
        if let Some(redirect) = all.next() {
            let more = match all.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            self.note(format!(
                "{redirect}{more}: {} takes what comes in by any interface for any address of the host, also from jails, and \
                 those of jails on the host's stack; name an interface or address to leave the others alone",
                redirect.place
            ));
        }
    }

    /// The tables that the request names have to be there: by a table that is not, pf lets nobody in.
    fn check_tables(&mut self, request: &Request) -> Result<()> {
        for source in &request.options.sources {
            let Source::Table(table) = source else { continue };
            if self.firewall.has_table(table)? {
                continue;
            }
            let error = Error::new(
                Kind::Unavailable,
                format!(
                    "pf has no table <{table}>, so nobody could come in by it; add to /etc/pf.conf: \
                     table <{table}> persist, then: service pf reload"
                ),
            );
            if !request.allow_inert {
                return Err(error);
            }
            self.note(format!("without effect for now: {error}"));
        }
        Ok(())
    }
}

/// Whether just this is published.
fn is_same(old: &Record, publications: &[Publication]) -> bool {
    old.replaces.is_empty() && old.publications == publications
}
