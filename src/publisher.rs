//! Publish, unpublish, list, restore, gc: each one transaction over the record, the host and the firewall.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Instant, SystemTime};

use once_cell::unsync::OnceCell;
use sha2::{Digest, Sha256};

use crate::conflict;
use crate::error::{Error, Kind, Result, quoted};
use crate::host::{Host, HostInterface, Interfaces, Jail, Listener};
use crate::name::{Anchor, JailName, Label, PARENT};
use crate::net::{Family, Interface, Place, PortRange};
use crate::options::{Options, Source};
use crate::pf::{Counters, Firewall, ForeignRedirect, Loaded, States};
use crate::publication::{self, Publication, Redirect, Targets};
use crate::readiness;
use crate::rule::Rule;
use crate::rules;
use crate::spec::{HostPorts, Mapping, Spec};
use crate::store::{Lock, Record, Store};

/// The steps of a transaction, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take the host-wide lock.
    Lock,
    /// Ask the host: the jail's addresses, the gateway interface.
    Resolve,
    /// Look for conflicts.
    Check,
    /// Record the wish.
    Record,
    /// Change the anchor.
    Load,
    /// See that the rules are evaluated.
    Verify,
    /// End the states of what is not published any more.
    Kill,
    /// Record that the wish came true.
    Settle,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Step; 8] =
        [Step::Lock, Step::Resolve, Step::Check, Step::Record, Step::Load, Step::Verify, Step::Kill, Step::Settle];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Lock => "lock",
            Step::Resolve => "resolve",
            Step::Check => "check",
            Step::Record => "record",
            Step::Load => "load",
            Step::Verify => "verify",
            Step::Settle => "settle",
            Step::Kill => "kill",
        }
    }
}

/// Looks on while a transaction runs: `kport -v`, and the tests that make each step fail.
pub trait Observer {
    /// Called before a step. An error makes the transaction fail there, and is undone like any other.
    fn step(&self, _step: Step) -> Result<()> {
        Ok(())
    }

    /// A detail for whoever wants to know exactly.
    fn detail(&self, _text: &str) {}
}

/// The observer that looks away.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// The ports that `auto` chooses from unless the caller says otherwise: the dynamic ports of RFC 6335, which are those of
/// `net.inet.ip.portrange.hifirst` and `hilast`, too.
pub const AUTO_RANGE: PortRange = match PortRange::new(49152, 65535) {
    Some(range) => range,
    None => unreachable!(),
};

/// What to publish.
#[derive(Clone, Debug)]
pub struct Request {
    /// Whose ports.
    pub jail: JailName,
    /// Which ports.
    pub spec: Spec,
    /// The jail's addresses in order of preference: one for each network it is connected to. Empty: the host is asked.
    pub addresses: Vec<IpAddr>,
    /// The gateway interface, for mappings that name no place. `None`: the host's default route decides.
    pub gateway: Option<Interface>,
    /// The jail's number. `None`: the host is asked.
    pub jid: Option<i32>,
    /// How.
    pub options: Options,
    /// The host ports to choose from for `auto`.
    pub auto_range: PortRange,
    /// Add to what the jail has published, instead of taking its place. Each call's options are those of its mappings.
    pub add: bool,
    /// Publish although a socket of the host or another tool's redirect has the port.
    pub force: bool,
    /// Publish although pf would not evaluate the rules.
    pub allow_inert: bool,
}

impl Request {
    /// A request with nothing but defaults.
    pub fn new(jail: JailName, spec: Spec) -> Request {
        Request {
            jail,
            spec,
            addresses: vec![],
            gateway: None,
            jid: None,
            options: Options::default(),
            auto_range: AUTO_RANGE,
            add: false,
            force: false,
            allow_inert: false,
        }
    }
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether pf was changed.
    pub changed: bool,
    /// What is published now.
    pub redirects: Vec<Redirect>,
    /// How many states were ended.
    pub killed: u64,
    /// What the caller should hear, a line each.
    pub notes: Vec<String>,
}

/// Whether what is recorded is what pf has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// pf has what the record says.
    Live,
    /// The record says it, but pf has not, or only a part of it: `kport restore` loads it again.
    Missing,
    /// pf has it, but no record says so: `kport gc` removes it.
    Stale,
}

impl Liveness {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Liveness::Live => "live",
            Liveness::Missing => "missing",
            Liveness::Stale => "stale",
        }
    }
}

/// One jail's part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where its rules are.
    pub anchor: Anchor,
    /// The jail; `None` for an anchor without a record.
    pub jail: Option<JailName>,
    /// Its number when it was published, if that was known.
    pub jid: Option<i32>,
    /// When it was published, in seconds since 1970.
    pub since: Option<u64>,
    /// Record against pf.
    pub liveness: Liveness,
    /// The redirects, each with what its rules have counted, where the backend tells.
    pub redirects: Vec<(Redirect, Counters)>,
    /// What is wrong with the record, if something is.
    pub trouble: Option<String>,
}

/// Publishes on one host, through one firewall, with one state directory.
pub struct Publisher<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    store: Store,
    deadline: Instant,
    observer: &'a dyn Observer,
}

impl<'a> Publisher<'a> {
    /// Everything is given, so that tests can play any host and any firewall. Waiting for the lock ends at `deadline`.
    pub fn new(
        host: &'a dyn Host,
        firewall: &'a dyn Firewall,
        store: Store,
        deadline: Instant,
        observer: &'a dyn Observer,
    ) -> Publisher<'a> {
        Publisher { host, firewall, store, deadline, observer }
    }

    /// Publishes the whole set of a jail: all of it or nothing. It replaces what the jail had published, unless the
    /// request adds to that; the same again changes nothing and succeeds.
    ///
    /// On an error pf and the record are as they were; where even that was impossible, the message says so, and the next
    /// call mends it.
    pub fn publish(&self, request: &Request) -> Result<Outcome> {
        let lock = self.lock()?;
        let mut outcome = Outcome::default();
        let boot = self.host.boot_id()?;
        let old = self.record(&lock, &request.jail.anchor(), &boot, &mut outcome.notes)?;
        let facts = Facts::new(self.host, self.firewall);

        self.observer.step(Step::Resolve)?;
        let (jid, publication) = self.resolve(request, old.as_ref(), &facts, &boot)?;
        self.observer.step(Step::Check)?;
        let publications = match &old {
            Some(old) if request.add => joined(&old.publications, publication),
            _ => vec![publication],
        };
        self.check(request, old.as_ref(), &publications, &facts, &boot, &mut outcome.notes)?;
        self.check_tables(request, &mut outcome.notes)?;

        let wanted = self.record_of(&request.jail, jid, boot, publications);
        self.change(&lock, old.as_ref(), wanted, request.allow_inert, &facts, &mut outcome)?;
        Ok(outcome)
    }

    /// Removes everything of a jail from pf, ends its states, and forgets it. Nothing published is success. With a `jid`,
    /// a publication by another start of the jail is left alone: a stop hook that comes late must not tear down what
    /// the next start has published.
    ///
    /// Errors are gathered: what can be undone is undone, and the record stays until all of it is.
    pub fn unpublish(&self, jail: &JailName, jid: Option<i32>) -> Result<Outcome> {
        let lock = self.lock()?;
        let mut outcome = Outcome::default();
        let anchor = jail.anchor();
        let boot = self.host.boot_id()?;
        let record = self.record(&lock, &anchor, &boot, &mut outcome.notes)?;
        if !is_late(jail, jid, record.as_ref(), &mut outcome) {
            self.drop_anchor(&lock, &anchor, jail.label(), record.as_ref(), &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Removes single mappings of a jail, in one transaction, and leaves its others. A mapping that is not published is
    /// told, and is no error. `auto` stands for any host port.
    pub fn unpublish_some(&self, jail: &JailName, jid: Option<i32>, spec: &Spec) -> Result<Outcome> {
        let lock = self.lock()?;
        let mut outcome = Outcome::default();
        let boot = self.host.boot_id()?;
        let old = self.record(&lock, &jail.anchor(), &boot, &mut outcome.notes)?;
        if is_late(jail, jid, old.as_ref(), &mut outcome) {
            return Ok(outcome);
        }
        let facts = Facts::new(self.host, self.firewall);
        self.observer.step(Step::Resolve)?;
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
                outcome.notes.push(format!("jail \"{jail}\" has not published {mapping}"));
            }
        }
        publications.retain(|p| !p.redirects.is_empty());
        let Some(old) = old else { return Ok(outcome) };
        if publications.is_empty() {
            self.drop_anchor(&lock, &jail.anchor(), jail.label(), Some(&old), &mut outcome)?;
            return Ok(outcome);
        }
        let wanted = self.record_of(jail, old.jid, boot, publications);
        // what stays was verified when it was published
        self.change(&lock, Some(&old), wanted, true, &facts, &mut outcome)?;
        Ok(outcome)
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

    fn record_of(&self, jail: &JailName, jid: Option<i32>, boot: String, publications: Vec<Publication>) -> Record {
        Record {
            version: Record::VERSION,
            boot,
            jail: jail.clone(),
            jid,
            since: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            mapping_labels: self.firewall.labels_mappings(),
            publications,
            replaces: vec![],
        }
    }

    /// From one record to the next one: record the wish, load the anchor, verify, settle, end states.
    fn change(
        &self,
        lock: &Lock,
        old: Option<&Record>,
        mut record: Record,
        allow_inert: bool,
        facts: &Facts<'_>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let anchor = record.jail.anchor();
        outcome.redirects = record.redirects().copied().collect();
        let wanted = rules::of_all(&record.publications);
        if let Some(old) = old
            && old.replaces.is_empty()
            && old.publications == record.publications
            && old.jid == record.jid
            && self.firewall.holds(&anchor, &wanted)?
        {
            return self.verify(&record, &wanted, allow_inert, facts, &mut outcome.notes);
        }

        // states outlive their rules
        record.mapping_labels &= old.is_none_or(|old| old.mapping_labels);
        self.observer.step(Step::Record)?;
        record.replaces = old.iter().flat_map(|old| old.possible()).cloned().collect();
        if let Err(error) = self.store.put(lock, &record) {
            // the claims may stand already; the record does not
            self.forget_claims(lock, &anchor, &record, old);
            return Err(error);
        }

        let loaded = self
            .observer
            .step(Step::Load)
            .and_then(|()| self.firewall.replace(&anchor, &wanted))
            .map_err(|error| (error, false))
            .and_then(|()| {
                self.observer
                    .step(Step::Verify)
                    .and_then(|()| self.verify(&record, &wanted, allow_inert, facts, &mut outcome.notes))
                    .map_err(|error| (error, true))
            });
        if let Err((error, after_load)) = loaded {
            return Err(self.roll_back(lock, &anchor, &record, old, error, after_load));
        }
        outcome.changed = true;

        // From here on the jail is published: what fails now is told, not undone. The record names the old set until its
        // states are ended, so that the next call does what this one could not.
        let gone = gone(&record, self.firewall);
        let ended = if gone.is_empty() {
            Ok(0)
        } else {
            self.observer.step(Step::Kill).and_then(|()| self.firewall.kill_states(&gone))
        };
        match ended {
            Ok(killed) => outcome.killed = killed,
            Err(error) => {
                outcome.notes.push(format!(
                    "published, but connections of ports that are not published any more go on ({error}); publish again \
                     to end them"
                ));
                return Ok(());
            }
        }
        if !record.replaces.is_empty() {
            let settled = self.observer.step(Step::Settle).and_then(|()| self.settle(lock, &anchor, &mut record));
            if let Err(error) = settled {
                outcome.notes.push(format!(
                    "published, but the record still names the set before, too ({error}); publish again to mend that"
                ));
            }
        }
        Ok(())
    }

    /// Loads again what is recorded and not in pf: after `pfctl -F` on kport's anchors, or after pf(4) was unloaded.
    /// Says which jails; an error of one does not stop the others.
    pub fn restore(&self) -> Result<Outcome> {
        let lock = self.lock()?;
        let mut outcome = Outcome::default();
        let boot = self.host.boot_id()?;
        let mut errors = vec![];
        for anchor in self.store.anchors()? {
            let mut restore = || -> Result<()> {
                let Some(mut record) = self.record(&lock, &anchor, &boot, &mut outcome.notes)? else { return Ok(()) };
                let wanted = rules::of_all(&record.publications);
                // after an interrupted change pf may hold the set before, and that may look the same
                if !record.replaces.is_empty() || !self.firewall.holds(&anchor, &wanted)? {
                    self.observer.step(Step::Load)?;
                    self.firewall.replace(&anchor, &wanted)?;
                    outcome.changed = true;
                    outcome.notes.push(format!("jail \"{}\": loaded again", record.jail));
                }
                if !record.replaces.is_empty() {
                    outcome.killed += self.firewall.kill_states(&gone(&record, self.firewall))?;
                    self.settle(&lock, &anchor, &mut record)?;
                }
                outcome.redirects.extend(record.redirects());
                Ok(())
            };
            if let Err(error) = restore() {
                errors.push(error.context(&anchor));
            }
        }
        all_or(errors, outcome)
    }

    /// Drops what belongs to jails that are gone, and anchors that no record knows.
    pub fn collect(&self) -> Result<Outcome> {
        let lock = self.lock()?;
        let mut outcome = Outcome::default();
        let boot = self.host.boot_id()?;
        let jails = self.host.jails()?;
        let mut errors = vec![];
        let mut known = BTreeSet::new();
        for anchor in self.store.anchors()? {
            let mut collect = || -> Result<()> {
                let Some(record) = self.record(&lock, &anchor, &boot, &mut outcome.notes)? else { return Ok(()) };
                let jail = &record.jail;
                let alive = jails
                    .iter()
                    .any(|j| !j.dying && j.name == jail.as_str() && record.jid.is_none_or(|jid| jid == j.jid));
                if alive {
                    known.insert(anchor.child().to_owned());
                    return Ok(());
                }
                self.drop_anchor(&lock, &anchor, jail.label(), Some(&record), &mut outcome)?;
                outcome.notes.push(format!("jail \"{jail}\" is gone: unpublished"));
                Ok(())
            };
            if let Err(error) = collect() {
                known.insert(anchor.child().to_owned());
                errors.push(error.context(&anchor));
            }
        }
        for child in self.firewall.anchors()? {
            if known.contains(&child) {
                continue;
            }
            let Some(anchor) = Anchor::from_child(&child) else {
                let path = quoted(&format!("{PARENT}/{child}"));
                outcome.notes.push(format!("anchor {path} is not one of kport's: left alone"));
                continue;
            };
            let label = Label::of_anchor(&anchor);
            match self.drop_anchor(&lock, &anchor, label, None, &mut outcome) {
                Ok(()) => outcome.notes.push(format!("anchor {anchor} had no record: cleared")),
                Err(error) => errors.push(error.context(&anchor)),
            }
        }
        all_or(errors, outcome)
    }

    /// What is published: of one jail, or of all, sorted by anchor, and anchors of kport's that no record knows. Changes
    /// nothing and takes no lock.
    pub fn list(&self, jail: Option<&JailName>) -> Result<Vec<Listed>> {
        let boot = self.host.boot_id()?;
        let anchors: BTreeSet<Anchor> = match jail {
            Some(jail) => BTreeSet::from([jail.anchor()]),
            None => {
                let in_pf = self.firewall.anchors()?;
                self.store.anchors()?.into_iter().chain(in_pf.iter().filter_map(|c| Anchor::from_child(c))).collect()
            }
        };
        let mut listed = vec![];
        for anchor in anchors {
            let (record, trouble) = match self.store.get(&anchor) {
                Ok(record) => (record.filter(|r| r.boot == boot), None),
                Err(error) => (None, Some(error.message().to_owned())),
            };
            let loaded = self.firewall.loaded(&anchor)?;
            match record {
                Some(record) => listed.push(listed_as(anchor, record, loaded)),
                None if !loaded.is_empty() || trouble.is_some() => listed.push(Listed {
                    anchor,
                    jail: None,
                    jid: None,
                    since: None,
                    liveness: if loaded.is_empty() { Liveness::Missing } else { Liveness::Stale },
                    redirects: vec![],
                    trouble,
                }),
                None => {}
            }
        }
        Ok(listed)
    }

    /// Records that the publication is all that pf has.
    fn settle(&self, lock: &Lock, anchor: &Anchor, record: &mut Record) -> Result<()> {
        let before = record.claims();
        let replaced = std::mem::take(&mut record.replaces);
        match self.store.put(lock, record) {
            Ok(()) => {
                self.store.release(lock, anchor, &before, &record.claims());
                Ok(())
            }
            Err(error) => {
                record.replaces = replaced;
                Err(error)
            }
        }
    }

    fn lock(&self) -> Result<Lock> {
        self.observer.step(Step::Lock)?;
        self.store.lock(self.deadline)
    }

    /// The record of this boot. A file that is no record is set aside and told: it must not stop its jail for good, and must
    /// not vanish.
    fn record(&self, lock: &Lock, anchor: &Anchor, boot: &str, notes: &mut Vec<String>) -> Result<Option<Record>> {
        match self.store.get(anchor) {
            Ok(record) => Ok(record.filter(|r| r.boot == boot)),
            Err(error) if error.kind() == Kind::System && error.errno().is_none() => {
                let kept = self.store.set_aside(lock, anchor)?;
                notes.push(format!("{error}; kept as {}", kept.display()));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// From wishes to redirects: the jail's number and addresses, the gateway interface for each family, free ports.
    fn resolve(
        &self,
        request: &Request,
        old: Option<&Record>,
        facts: &Facts<'_>,
        boot: &str,
    ) -> Result<(Option<i32>, Publication)> {
        let jail = &request.jail;
        let found =
            if request.addresses.is_empty() || request.jid.is_none() { self.host.jail(jail.as_str())? } else { None };
        // one that is being torn down is not the one whose ports these are: that one is still to come
        let found = found.filter(|j| !j.dying);
        if let Some(found) = found.as_ref().filter(|j| j.name != jail.as_str()) {
            // later, when the jail is gone, nothing could tell whose the publication was
            return Err(Error::new(
                Kind::Argument,
                format!("{jail} is the number of jail {}; publish by its name", quoted(&found.name)),
            ));
        }
        // what is added belongs to the start that is known
        let known = old.filter(|_| request.add).and_then(|old| old.jid);
        let jid = request.jid.or(found.as_ref().map(|j| j.jid)).or(known);
        match &found {
            Some(j) => self.observer.detail(&format!("jail {}: jid {}{}", quoted(&j.name), j.jid, vnet_word(j))),
            None => self.observer.detail(&format!("jail {}: not asked for, or not running", quoted(jail.as_str()))),
        }
        let asked;
        let addresses = if request.addresses.is_empty() {
            asked = self.addresses(jail, found.as_ref())?;
            &asked
        } else {
            &request.addresses
        };
        let targets = Targets::choose(jail, addresses)?;
        let shown = |all: &mut dyn Iterator<Item = IpAddr>| all.map(|a| a.to_string()).collect::<Vec<_>>().join(" ");
        self.observer.detail(&format!(
            "addresses: {}; redirects lead to {}",
            shown(&mut addresses.iter().copied()),
            shown(&mut Family::ALL.into_iter().filter_map(|family| targets.of(family)))
        ));
        let redirects_of = |spec: &Spec| {
            publication::redirects(jail, spec, &targets, |family| match request.gateway {
                Some(interface) => Ok(interface),
                None => facts.gateway(family, self.observer),
            })
        };
        let is_auto = |m: &Mapping| m.host == HostPorts::Auto;
        let redirects = if request.spec.mappings().iter().any(is_auto) {
            // ports that are given first: a port that is chosen keeps clear of them
            let mut made: Vec<Redirect> = vec![];
            let before: HashSet<Redirect> = old.iter().flat_map(|old| old.redirects()).map(without_target).collect();
            let kept = old.filter(|_| request.add).map(Record::claims).unwrap_or_default();
            for mapping in request.spec.mappings().iter().filter(|m| !is_auto(m)) {
                made.extend(redirects_of(&Spec::one(*mapping))?);
            }
            for mapping in request.spec.mappings().iter().filter(|m| is_auto(m)) {
                let at = |first| {
                    let host = PortRange::starting_at(first, mapping.jail.count())?;
                    Some(Mapping { host: HostPorts::Fixed(host), ..*mapping })
                };
                let mut chosen = None;
                for (first, fresh) in candidates(request, old, mapping, &targets) {
                    let Some(fixed) = at(first) else { continue };
                    let redirects = redirects_of(&Spec::one(fixed))?;
                    // a port that the jail has at another place is not this mapping's
                    if !fresh && !redirects.iter().any(|r| before.contains(&without_target(r))) {
                        continue;
                    }
                    if self.is_free(request, &redirects, &made, &kept, facts, boot)? {
                        chosen = Some(redirects);
                        break;
                    }
                }
                let Some(redirects) = chosen else {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!("{mapping}: no port from {} is free; give another --auto-range", request.auto_range),
                    ));
                };
                made.extend(redirects);
            }
            made
        } else {
            redirects_of(&request.spec)?
        };
        let publication = Publication::new(jail.clone(), redirects, request.options.clone(), |target| {
            Interfaces(facts.interfaces()?).leads_to(target)
        })?;
        Ok((jid, publication))
    }

    /// Whether nobody has these ports: neither what is chosen already, nor what the jail keeps for other mappings, nor
    /// anybody else.
    fn is_free(
        &self,
        request: &Request,
        redirects: &[Redirect],
        made: &[Redirect],
        kept: &[Redirect],
        facts: &Facts<'_>,
        boot: &str,
    ) -> Result<bool> {
        let places = facts.places()?;
        let claims = |redirects: &[Redirect]| publication::claims(redirects, &request.options);
        let (wanted, made) = (claims(redirects), claims(made));
        let own: HashSet<Redirect> = wanted.iter().map(without_target).collect();
        let others = || made.iter().chain(kept.iter().filter(|r| !own.contains(&without_target(r))));
        if wanted.iter().any(|r| others().any(|other| conflict::overlap(r, other, places))) {
            return Ok(false);
        }
        let own = request.jail.anchor();
        let found = wanted.iter().try_for_each(|r| {
            self.check_jails(&own, r, facts, boot)?;
            self.check_host(r, facts, &mut |error| Err(error))
        });
        match found {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == Kind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn addresses(&self, name: &JailName, jail: Option<&Jail>) -> Result<Vec<IpAddr>> {
        let Some(jail) = jail else {
            return Err(Error::new(
                Kind::Unavailable,
                format!("no jail {} is running here to ask for its address; give it with -a", quoted(name.as_str())),
            ));
        };
        if jail.vnet {
            return self.host.vnet_addresses(jail);
        }
        if jail.addresses.is_empty() && jail.inherits != [false; 2] {
            return Err(publication::host_network(name));
        }
        Ok(jail.addresses.clone())
    }

    /// Refuses what somebody else has. Other jails are final; sockets and other tools' rules yield to `force`.
    fn check(
        &self,
        request: &Request,
        old: Option<&Record>,
        publications: &[Publication],
        facts: &Facts<'_>,
        boot: &str,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let claims: Vec<Redirect> = publications.iter().flat_map(Publication::claims).collect();
        if claims.len() > 1 {
            conflict::within(&claims, facts.places()?)?;
        }
        let own = request.jail.anchor();
        // what stays was looked at when it was published, and may have been forced then
        let kept: HashSet<Redirect> =
            old.filter(|_| request.add).map(|old| old.claims().into_iter().collect()).unwrap_or_default();
        for redirect in &claims {
            self.check_jails(&own, redirect, facts, boot)?;
            if kept.contains(redirect) {
                continue;
            }
            self.check_host(redirect, facts, &mut |error| {
                if !request.force {
                    return Err(error);
                }
                notes.push(format!("forced: {error}"));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The tables that the request names have to be there: by a table that is not, pf lets nobody in.
    fn check_tables(&self, request: &Request, notes: &mut Vec<String>) -> Result<()> {
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
            notes.push(format!("without effect for now: {error}"));
        }
        Ok(())
    }

    /// Sockets of the host, the admin's rules and other tools' rules; `yielding` decides what a conflict means.
    fn check_host(
        &self,
        redirect: &Redirect,
        facts: &Facts<'_>,
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

    fn check_jails(&self, own: &Anchor, redirect: &Redirect, facts: &Facts<'_>, boot: &str) -> Result<()> {
        for claim in self.store.claims(own, redirect.protocol, redirect.host)? {
            if !facts.places()?.overlap(claim.place, redirect.place) {
                continue;
            }
            match self.store.get(&claim.anchor) {
                Ok(Some(record)) if record.boot == boot => {
                    let owner = format!("jail {}", quoted(record.jail.as_str()));
                    for theirs in record.claims() {
                        conflict::with_jail(redirect, &owner, &theirs, facts.places()?)?;
                    }
                }
                // a claim that outlived its record, unless pf still has the rules
                Ok(Some(_) | None) if self.firewall.loaded(&claim.anchor)?.is_empty() => {}
                Ok(Some(_) | None) => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!(
                            "{} {} on {} is in anchor {}, which has no record; kport gc clears it",
                            redirect.protocol, claim.ports, claim.place, claim.anchor
                        ),
                    ));
                }
                Err(error) => return Err(error.and("publish or unpublish its jail again to mend that")),
            }
        }
        Ok(())
    }

    /// Whether pf will look at the rules: it runs, its main ruleset calls our anchors, and packets are forwarded.
    fn verify(
        &self,
        record: &Record,
        wanted: &[Rule],
        allow_inert: bool,
        facts: &Facts<'_>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        match self.verify_strictly(record, wanted, facts) {
            Err(error) if allow_inert && error.kind() == Kind::Unavailable => {
                notes.push(format!("loaded, but without effect for now: {error}"));
                Ok(())
            }
            other => other,
        }
    }

    fn verify_strictly(&self, record: &Record, wanted: &[Rule], facts: &Facts<'_>) -> Result<()> {
        let status = self.firewall.status()?;
        let needs_nat = wanted.iter().any(|r| matches!(r, Rule::Nat { .. }));
        let mut trouble = readiness::disabled(&status).or_else(|| readiness::uncalled(&status, needs_nat));
        for family in Family::ALL {
            if trouble.is_none() {
                trouble = readiness::unforwarded(self.host, family, record.redirects(), || facts.interfaces())?;
            }
        }
        if trouble.is_none() && record.publications.iter().any(|p| p.options.host_access) {
            trouble = readiness::unfiltered(self.host, &format!("jail {}", quoted(record.jail.as_str())))?;
        }
        trouble.map_or(Ok(()), |trouble| Err(trouble.into()))
    }

    /// After a failed load or verification: pf and the record as they were, or an error that says what is left.
    fn roll_back(
        &self,
        lock: &Lock,
        anchor: &Anchor,
        record: &Record,
        old: Option<&Record>,
        error: Error,
        after_load: bool,
    ) -> Error {
        let before = old.map(|o| rules::of_all(&o.publications)).unwrap_or_default();
        // see Firewall::replace; when the time is up, nothing could be asked anyway
        let sure = !after_load && !matches!(error.kind(), Kind::System | Kind::Internal);
        if !sure {
            let untouched = !after_load
                && self.firewall.holds(anchor, &before).is_ok_and(|holds| holds)
                && before != rules::of_all(&record.publications);
            if !untouched && let Err(again) = self.firewall.replace(anchor, &before) {
                return error.and(format!(
                    "and {anchor} could not be brought back to what it held ({again}): it holds the old or the new set; \
                     publish again, or unpublish"
                ));
            }
        }
        let restored = match old {
            Some(old) => self.store.put(lock, old),
            None => self.store.remove(lock, anchor, &[]),
        };
        if let Err(again) = restored {
            return error
                .and(format!("and the record could not be brought back ({again}); publish again, or unpublish"));
        }
        self.forget_claims(lock, anchor, record, old);
        error
    }

    fn forget_claims(&self, lock: &Lock, anchor: &Anchor, record: &Record, old: Option<&Record>) {
        self.store.release(lock, anchor, &record.claims(), &old.map(Record::claims).unwrap_or_default());
    }

    /// Clears an anchor, ends its states, and only then forgets it.
    fn drop_anchor(
        &self,
        lock: &Lock,
        anchor: &Anchor,
        label: Label,
        record: Option<&Record>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        // pf that is not there holds nothing
        let absent = |error: &Error| error.kind() == Kind::Unavailable;
        let mut errors = vec![];
        match self.observer.step(Step::Load).and_then(|()| self.firewall.loaded(anchor)) {
            Ok(held) => {
                let clear = || -> Result<bool> {
                    // an anchor that holds something unknown is cleared as well
                    let there =
                        !held.is_empty() || self.firewall.anchors()?.iter().any(|child| child == anchor.child());
                    if there {
                        self.firewall.replace(anchor, &[])?;
                    }
                    Ok(there)
                };
                match clear() {
                    Ok(cleared) => outcome.changed |= cleared,
                    // pf is there: whatever the reason is, the anchor may hold what it held
                    Err(error) => errors.push(error),
                }
            }
            Err(error) if absent(&error) => outcome.notes.push(format!("pf has nothing to clear: {error}")),
            Err(error) => errors.push(error),
        }
        let all = [States::Jail { label }];
        match self.observer.step(Step::Kill).and_then(|()| self.firewall.kill_states(&all)) {
            Ok(killed) => outcome.killed += killed,
            Err(error) if absent(&error) => {}
            Err(error) => errors.push(error.context("states were not ended")),
        }
        if errors.is_empty() {
            let settled = self
                .observer
                .step(Step::Settle)
                .and_then(|()| self.store.remove(lock, anchor, &record.map(Record::claims).unwrap_or_default()));
            errors.extend(settled.err());
        }
        all_or(errors, ())
    }
}

/// The interface of the default route; for a family without one, that of the other family: "the gateway interface of the
/// host".
pub fn gateway(host: &dyn Host, family: Family) -> Result<Interface> {
    for family in [family, family.other()] {
        if let Some(interface) = host.gateway(family)? {
            return Ok(interface);
        }
    }
    Err(Error::new(
        Kind::Unavailable,
        "the host has no default route, so it has no gateway interface; name one with --gateway, or in the spec: \
         em0:8080:80",
    ))
}

/// Facts that are asked for at most once in a transaction, and only when a question needs them.
struct Facts<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    interfaces: OnceCell<Vec<HostInterface>>,
    listeners: OnceCell<Vec<Listener>>,
    foreign: OnceCell<Vec<ForeignRedirect>>,
    /// by family, as [`gateway`] finds them
    gateways: [OnceCell<Interface>; 2],
}

impl<'a> Facts<'a> {
    fn new(host: &'a dyn Host, firewall: &'a dyn Firewall) -> Facts<'a> {
        Facts {
            host,
            firewall,
            interfaces: OnceCell::new(),
            listeners: OnceCell::new(),
            foreign: OnceCell::new(),
            gateways: [OnceCell::new(), OnceCell::new()],
        }
    }

    /// Asked for each mapping without a place, and for each port that `auto` tries: the routing table is read once.
    fn gateway(&self, family: Family, observer: &dyn Observer) -> Result<Interface> {
        self.gateways[usize::from(family == Family::Inet6)]
            .get_or_try_init(|| {
                let interface = gateway(self.host, family)?;
                observer.detail(&format!("gateway interface for {family}: {interface}"));
                Ok(interface)
            })
            .copied()
    }

    fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.get_or_try_init(|| self.host.interfaces()).map(Vec::as_slice)
    }

    fn places(&self) -> Result<Interfaces<'_>> {
        self.interfaces().map(Interfaces)
    }

    fn listeners(&self) -> Result<&[Listener]> {
        self.listeners.get_or_try_init(|| self.host.listeners()).map(Vec::as_slice)
    }

    fn foreign(&self) -> Result<&[ForeignRedirect]> {
        self.foreign.get_or_try_init(|| self.firewall.foreign_redirects()).map(Vec::as_slice)
    }
}

/// A redirect as its mapping says it: whichever address the jail has.
fn without_target(redirect: &Redirect) -> Redirect {
    let target = match redirect.family() {
        Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
        Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    Redirect { target, ..*redirect }
}

/// What is published, and one publication more. Mappings that were there with other options, or to an address that the
/// jail had, are those of the new one.
fn joined(before: &[Publication], added: Publication) -> Vec<Publication> {
    let new: HashSet<&Redirect> = added.redirects.iter().collect();
    let mappings: HashSet<Redirect> = added.redirects.iter().map(without_target).collect();
    let mut all: Vec<Publication> = before.to_vec();
    for publication in &mut all {
        let same = publication.options == added.options;
        publication.redirects.retain(|r| !mappings.contains(&without_target(r)) || same && new.contains(r));
    }
    match all.iter_mut().find(|p| p.options == added.options) {
        Some(same) => {
            let known: HashSet<Redirect> = same.redirects.iter().copied().collect();
            same.redirects.extend(added.redirects.iter().filter(|r| !known.contains(r)));
            same.via.extend(added.via);
        }
        None => all.push(added),
    }
    all.retain(|p| !p.redirects.is_empty());
    all
}

/// The first ports to try for a mapping with `auto`, best first, each with whether the jail does not have it yet: what it
/// may have for the mapping now, then from a port that follows from its name on, so that a jail comes to the same port at
/// every start, and different jails to different ones.
fn candidates(
    request: &Request,
    old: Option<&Record>,
    mapping: &Mapping,
    targets: &Targets,
) -> impl Iterator<Item = (u16, bool)> {
    let range = request.auto_range;
    let mut current: Vec<(bool, u16)> = old
        .iter()
        .flat_map(|old| &old.publications)
        .flat_map(|p| p.redirects.iter().map(move |r| (p.options == request.options, r)))
        .filter(|(_, r)| r.jail == mapping.jail && r.protocol == mapping.protocol)
        .filter(|(_, r)| mapping.place.is_none_or(|place| place == r.place))
        .filter(|(_, r)| range.contains(r.host.first()) && range.contains(r.host.last()))
        .map(|(same, r)| (same && targets.of(r.family()) == Some(r.target), r.host.first()))
        .collect();
    // what is just as the request has it comes first, or the same request would move another port each time
    current.sort_by_key(|(same, _)| !same);
    let digest = Sha256::digest(format!("{mapping}\n{}", request.jail).as_bytes());
    let seed = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let last = range.last().saturating_sub(mapping.jail.count() - 1);
    let span = if last < range.first() { 0 } else { u32::from(last - range.first()) + 1 };
    let fresh = (0..span).map(move |i| {
        // below span, which is at most 65535
        let offset = (seed % span + i) % span;
        range.first() + u16::try_from(offset).unwrap_or(0)
    });
    current.into_iter().map(|(_, port)| (port, false)).chain(fresh.map(|port| (port, true)))
}

/// Whether a redirect has the ports and the protocol of a mapping.
fn has_ports(mapping: &Mapping, redirect: &Redirect) -> bool {
    let host = match mapping.host {
        HostPorts::Fixed(host) => host == redirect.host,
        HostPorts::Auto => true,
    };
    host && mapping.jail == redirect.jail && mapping.protocol == redirect.protocol
}

/// Whether an unpublish came too late: the jail was started again, and published as another number.
fn is_late(jail: &JailName, jid: Option<i32>, record: Option<&Record>, outcome: &mut Outcome) -> bool {
    let (Some(jid), Some(theirs)) = (jid, record.and_then(|r| r.jid)) else { return false };
    if jid != theirs {
        outcome.notes.push(format!(
            "jail \"{jail}\" was published again as jid {theirs}; nothing of that was touched for jid {jid}"
        ));
    }
    jid != theirs
}

fn listed_as(anchor: Anchor, record: Record, loaded: Loaded) -> Listed {
    // after an interrupted change pf may hold the set before, and that may look the same
    let before = !record.replaces.is_empty() && loaded.fits(&rules::of_all(&record.replaces));
    let live = !before && loaded.fits(&rules::of_all(&record.publications));
    // rules are told by their position: the kernel keeps their order, and not every backend gives a mapping's rules a label
    // of their own
    let wanted = rules::of_all(&record.publications);
    let labels = wanted.iter().flat_map(|rule| match rule {
        Rule::Pass { matches, labels: [_, mapping], .. } => matches.members().map(|_| mapping.clone()).collect(),
        Rule::Nat { .. } | Rule::Rdr { .. } => vec![],
    });
    let mut counted: BTreeMap<Label, Counters> = BTreeMap::new();
    for (label, counters) in labels.zip(loaded.filters).filter(|_| live) {
        let sum = counted.entry(label).or_default();
        *sum = sum.plus(counters);
    }
    let redirects = record
        .redirects()
        .map(|r| {
            let label = record.jail.mapping_label(r.protocol, r.host);
            (*r, counted.get(&label).copied().unwrap_or_default())
        })
        .collect();
    Listed {
        anchor,
        jid: record.jid,
        since: Some(record.since),
        liveness: if live { Liveness::Live } else { Liveness::Missing },
        redirects,
        trouble: (!record.replaces.is_empty())
            .then(|| "a change was interrupted; publish again, or kport restore".to_owned()),
        jail: Some(record.jail),
    }
}

fn vnet_word(jail: &Jail) -> &'static str {
    if jail.vnet { ", with a network stack of its own" } else { ", on the host's network stack" }
}

/// The states of redirects that are not published any more.
fn gone(record: &Record, firewall: &dyn Firewall) -> Vec<States> {
    let kept: HashSet<&Redirect> = record.redirects().collect();
    let before = record.replaces.iter().flat_map(|p| &p.redirects).filter(|r| !kept.contains(r));
    let jail = record.jail.label();
    // a backend that tells mappings by their labels, and states that have none: all of the jail's, rather than one too few
    let all = firewall.labels_mappings() && !record.mapping_labels;
    let states: BTreeSet<States> = before
        .map(|r| match all {
            true => States::Jail { label: jail.clone() },
            false => States::Mapping {
                jail: jail.clone(),
                label: record.jail.mapping_label(r.protocol, r.host),
                protocol: r.protocol,
                host: r.host,
            },
        })
        .collect();
    states.into_iter().collect()
}

/// The value, or all the errors as one: the kind of the first, the text of all.
fn all_or<T>(errors: Vec<Error>, value: T) -> Result<T> {
    errors.into_iter().reduce(|first, next| first.and(next)).map_or(Ok(value), Err)
}
