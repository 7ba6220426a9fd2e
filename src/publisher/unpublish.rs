//! Takes away what a jail has published: all of it, or single mappings.

use std::collections::HashSet;

use super::list::earlier_name;
use super::transaction::{Transaction, is_starting};
use super::{Phase, all_or, gateway};
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, JailName, Label};
use crate::net::{Family, Place};
use crate::pf::States;
use crate::publication::{Publication, Redirect};
use crate::spec::{HostPorts, Mapping, Spec};
use crate::store::Record;

impl Transaction<'_> {
    /// Removes everything of a jail from pf, ends its states, and forgets it. Nothing published is success. With a `jid`,
    /// a publication by another start of the jail is left alone: a stop hook that comes late must not tear down what
    /// the next start has published.
    ///
    /// Errors are gathered: what can be undone is undone, and the record stays until all of it is.
    pub(super) fn unpublish(&mut self, jail: &JailName, jid: Option<i32>) -> Result<()> {
        let jail = &self.published_as(jail, jid)?;
        let anchor = jail.anchor();
        let record = self.record(&anchor)?;
        if self.is_late(jail, jid, record.as_ref())? {
            return Ok(());
        }
        self.drop_anchor(&anchor, jail.label(), record.as_ref())
    }

    /// Removes single mappings of a jail, in one transaction, and leaves its others. A mapping that is not published is
    /// told, and is no error. `auto` stands for any host port.
    pub(super) fn unpublish_some(&mut self, jail: &JailName, jid: Option<i32>, spec: &Spec) -> Result<()> {
        let jail = &self.published_as(jail, jid)?;
        let old = self.record(&jail.anchor())?;
        if self.is_late(jail, jid, old.as_ref())? {
            return Ok(());
        }
        self.observer.phase(Phase::Resolve)?;
        let mut publications = old.as_ref().map(|o| o.publications.clone()).unwrap_or_default();
        for mapping in spec.mappings() {
            let here = self.places_of(mapping, &publications);
            let mut found = false;
            for publication in &mut publications {
                let before = publication.redirects.len();
                publication.redirects.retain(|r| !(has_ports(mapping, r) && here.contains(&r.place)));
                found |= publication.redirects.len() < before;
            }
            if !found {
                self.note(format!("{} has not published {mapping}", jail.mention()));
            }
        }
        publications.retain(|p| !p.redirects.is_empty());
        let Some(old) = old else { return Ok(()) };
        if publications.is_empty() {
            return self.drop_anchor(&jail.anchor(), jail.label(), Some(&old));
        }
        let wanted = self.record_of(jail, old.jid, publications);
        // what stays was verified when it was published
        self.change(Some(&old), wanted, true)
    }

    /// The name by which a jail has published: a jail that was renamed meanwhile is known by its number.
    fn published_as(&mut self, jail: &JailName, jid: Option<i32>) -> Result<JailName> {
        match earlier_name(self.host, self.store, &self.boot, jail, jid)? {
            None => Ok(jail.clone()),
            Some(name) => {
                self.note(format!("{} has published as {}", jail.mention(), name.mention()));
                Ok(name)
            }
        }
    }

    /// Whether an unpublish came too late: the jail was started again, and has published as another number, or for a start
    /// that is still to come.
    fn is_late(&mut self, jail: &JailName, jid: Option<i32>, record: Option<&Record>) -> Result<bool> {
        let (Some(jid), Some(record)) = (jid, record) else { return Ok(false) };
        let by = match record.jid {
            Some(theirs) if theirs == jid => return Ok(false),
            Some(theirs) => format!("as jid {theirs}"),
            None if record.earlier_jid != Some(jid) => {
                // not there yet when it was published, and there now: it is the one
                let came = self.host.jail(&jid.to_string())?.is_some_and(|there| there.name == jail.as_str());
                if came || !is_starting(record) {
                    return Ok(false);
                }
                "for a start that is still to come".to_owned()
            }
            None => "for a start that is still to come".to_owned(),
        };
        self.note(format!("{} was published again {by}; nothing of that was touched for jid {jid}", jail.mention()));
        Ok(true)
    }

    /// Where the redirects of a mapping are: in its place or, where it names none, on the gateway interface. That may be
    /// another one by now, or another one was given when the mapping was published: then where else its ports are, if that
    /// is one place.
    fn places_of(&self, mapping: &Mapping, publications: &[Publication]) -> HashSet<Place> {
        if let Some(place) = mapping.place {
            return HashSet::from([place]);
        }
        // never an address, nor *: only who names one publishes there
        let with_ports: HashSet<Place> = publications
            .iter()
            .flat_map(|p| &p.redirects)
            .filter(|r| has_ports(mapping, r) && matches!(r.place, Place::Interface(_)))
            .map(|r| r.place)
            .collect();
        // a host without a default route has no gateway interface, which is no reason to keep a mapping
        let gateways = Family::ALL.into_iter().filter_map(|family| gateway(self.host, family).ok());
        let there: HashSet<Place> = gateways.map(Place::Interface).filter(|place| with_ports.contains(place)).collect();
        match (there.is_empty(), with_ports.len()) {
            (true, 1) => with_ports,
            _ => there,
        }
    }

    /// Clears an anchor, ends its states, and only then forgets it.
    pub(super) fn drop_anchor(&mut self, anchor: &Anchor, label: Label, record: Option<&Record>) -> Result<()> {
        // pf that is not there holds nothing
        let absent = |error: &Error| error.kind() == Kind::Unavailable;
        let mut errors = vec![];
        match self.observer.phase(Phase::Load).and_then(|()| self.firewall.clear(anchor)) {
            Ok(cleared) => self.outcome.changed |= cleared,
            Err(error) if absent(&error) => self.note(format!("pf has nothing to clear: {error}")),
            Err(error) => errors.push(error),
        }
        let all = [States::Jail { label }];
        match self.observer.phase(Phase::Kill).and_then(|()| self.firewall.kill_states(&all)) {
            Ok(killed) => self.outcome.killed += killed,
            Err(error) if absent(&error) => {}
            Err(error) => errors.push(error.context("states were not ended")),
        }
        if errors.is_empty() {
            let settled =
                self.observer.phase(Phase::Settle).and_then(|()| self.store.remove(&self.lock, anchor, record));
            errors.extend(settled.err());
        }
        all_or(errors, ())
    }
}

/// Whether a redirect has the ports and the protocol of a mapping.
fn has_ports(mapping: &Mapping, redirect: &Redirect) -> bool {
    let host = match mapping.host {
        HostPorts::Fixed(host) => host == redirect.host,
        HostPorts::Auto => true,
    };
    host && mapping.jail == redirect.jail && mapping.protocol == redirect.protocol
}
