//! Publish, unpublish, list, restore, gc: each one transaction over the record, the host and the firewall.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use crate::conflict::{self, Places};
use crate::error::{Error, Kind, Result, quoted};
use crate::host::{Host, HostInterface, Jail};
use crate::name::{Anchor, JailName, Label, PARENT};
use crate::net::{Family, Interface};
use crate::pf::{Counters, Firewall, Loaded};
use crate::rules::{self, Options, Publication, Redirect, Rule, Targets};
use crate::spec::Spec;
use crate::store::{self, Lock, Record, Store};

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
    /// Record that the wish came true.
    Settle,
    /// End the states of what is not published any more.
    Kill,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Step; 8] =
        [Step::Lock, Step::Resolve, Step::Check, Step::Record, Step::Load, Step::Verify, Step::Settle, Step::Kill];

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

    /// Publishes the whole set of a jail: all of it or nothing. It replaces what the jail had published; the same again
    /// changes nothing and succeeds.
    ///
    /// On an error pf and the record are as they were; where even that was impossible, the message says so, and the next
    /// call mends it.
    pub fn publish(&self, request: &Request) -> Result<Outcome> {
        let lock = self.lock()?;
        let mut outcome = Outcome::default();
        let anchor = request.jail.anchor();
        let boot = self.host.boot_id()?;
        let old = self.record(&lock, &anchor, &boot, &mut outcome.notes)?;

        self.observer.step(Step::Resolve)?;
        let facts = Facts::new(self.host);
        let (publication, jid) = self.resolve(request, &facts)?;
        outcome.redirects.clone_from(&publication.redirects);

        self.observer.step(Step::Check)?;
        self.check(request, &publication, &facts, &boot, &mut outcome.notes)?;

        let wanted = rules::rules(&publication);
        if let Some(old) = &old
            && old.replaces.is_empty()
            && old.publication == publication
            && old.jid == jid
            && is_live(&wanted, &self.firewall.loaded(&anchor)?)
        {
            self.verify(request, &publication, &facts, &mut outcome.notes)?;
            return Ok(outcome);
        }

        self.observer.step(Step::Record)?;
        let mut record = Record {
            version: Record::VERSION,
            boot,
            jid,
            since: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            backend: self.firewall.name().to_owned(),
            publication,
            replaces: old.iter().flat_map(|old| old.publications()).cloned().collect(),
        };
        if let Err(error) = self.store.put(&lock, &record) {
            // the claims may stand already; the record does not
            self.forget_claims(&lock, &anchor, &record, old.as_ref());
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
                    .and_then(|()| self.verify(request, &record.publication, &facts, &mut outcome.notes))
                    .map_err(|error| (error, true))
            });
        if let Err((error, after_load)) = loaded {
            return Err(self.roll_back(&lock, &anchor, &record, old.as_ref(), error, after_load));
        }
        outcome.changed = true;

        // from here on the jail is published: what fails now is told, not undone
        let gone = gone(&record);
        if !record.replaces.is_empty() {
            match self.observer.step(Step::Settle).and_then(|()| self.settle(&lock, &anchor, &mut record)) {
                Ok(()) => {}
                Err(error) => outcome.notes.push(format!(
                    "published, but the record still names the set before, too ({error}); publish again to mend that"
                )),
            }
        }
        if !gone.is_empty() {
            match self.observer.step(Step::Kill).and_then(|()| self.kill(&gone)) {
                Ok(killed) => outcome.killed = killed,
                Err(error) => outcome.notes.push(format!(
                    "published, but connections of ports that are not published any more go on ({error})"
                )),
            }
        }
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
        if let (Some(jid), Some(theirs)) = (jid, record.as_ref().and_then(|r| r.jid))
            && jid != theirs
        {
            outcome.notes.push(format!(
                "jail \"{jail}\" was published again as jid {theirs}; nothing of that was touched for jid {jid}"
            ));
            return Ok(outcome);
        }
        self.drop_anchor(&lock, &anchor, jail.label(), record.as_ref(), &mut outcome)?;
        Ok(outcome)
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
                let wanted = rules::rules(&record.publication);
                if !is_live(&wanted, &self.firewall.loaded(&anchor)?) {
                    self.observer.step(Step::Load)?;
                    self.firewall.replace(&anchor, &wanted)?;
                    outcome.changed = true;
                    outcome.notes.push(format!("jail \"{}\": loaded again", record.publication.jail));
                }
                if !record.replaces.is_empty() {
                    let gone = gone(&record);
                    self.settle(&lock, &anchor, &mut record)?;
                    outcome.killed += self.kill(&gone)?;
                }
                outcome.redirects.extend(&record.publication.redirects);
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
                let jail = &record.publication.jail;
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
                outcome.notes.push(format!("anchor {PARENT}/{child} is not one of kport's: left alone"));
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
        let in_pf: BTreeSet<String> = self.firewall.anchors()?.into_iter().collect();
        let mut listed = vec![];
        let mut anchors: BTreeMap<String, Anchor> = BTreeMap::new();
        for anchor in self.store.anchors()? {
            anchors.insert(anchor.child().to_owned(), anchor);
        }
        for child in &in_pf {
            if let Some(anchor) = Anchor::from_child(child) {
                anchors.insert(child.clone(), anchor);
            }
        }
        let wanted = jail.map(JailName::anchor);
        for (child, anchor) in anchors {
            if wanted.as_ref().is_some_and(|w| *w != anchor) {
                continue;
            }
            let (record, trouble) = match self.store.get(&anchor) {
                Ok(record) => (record.filter(|r| r.boot == boot), None),
                Err(error) => (None, Some(error.message().to_owned())),
            };
            let is_in_pf = in_pf.contains(&child);
            match record {
                Some(record) => listed.push(self.listed(anchor, record, is_in_pf)?),
                None if is_in_pf || trouble.is_some() => listed.push(Listed {
                    anchor,
                    jail: None,
                    jid: None,
                    since: None,
                    liveness: if is_in_pf { Liveness::Stale } else { Liveness::Missing },
                    redirects: vec![],
                    trouble,
                }),
                None => {}
            }
        }
        Ok(listed)
    }

    fn listed(&self, anchor: Anchor, record: Record, is_in_pf: bool) -> Result<Listed> {
        let loaded = if is_in_pf { self.firewall.loaded(&anchor)? } else { Loaded::default() };
        let publication = record.publication;
        let live = record.replaces.is_empty() && is_live(&rules::rules(&publication), &loaded);
        let mut counted: BTreeMap<String, Counters> = BTreeMap::new();
        for rule in loaded.rules {
            if let Some(label) = rule.labels.last() {
                let sum = counted.entry(label.clone()).or_default();
                *sum = sum.plus(rule.counters);
            }
        }
        let redirects = publication
            .redirects
            .iter()
            .map(|r| {
                let label = publication.jail.mapping_label(r.protocol, r.host);
                (*r, counted.get(label.as_str()).copied().unwrap_or_default())
            })
            .collect();
        Ok(Listed {
            anchor,
            jail: Some(publication.jail),
            jid: record.jid,
            since: Some(record.since),
            liveness: if live { Liveness::Live } else { Liveness::Missing },
            redirects,
            trouble: (!record.replaces.is_empty())
                .then(|| "a change was interrupted; publish again, or kport restore".to_owned()),
        })
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

    /// From wishes to redirects: the jail's addresses and number, and the gateway interface for each family.
    fn resolve(&self, request: &Request, facts: &Facts<'_>) -> Result<(Publication, Option<i32>)> {
        let jail = &request.jail;
        let found =
            if request.addresses.is_empty() || request.jid.is_none() { self.host.jail(jail.as_str())? } else { None };
        let jid = request.jid.or(found.as_ref().map(|j| j.jid));
        let asked;
        let addresses = if request.addresses.is_empty() {
            asked = self.addresses(jail, found.as_ref())?;
            &asked
        } else {
            &request.addresses
        };
        let targets = Targets::choose(jail, addresses)?;
        let redirects = rules::redirects(jail, &request.spec, &targets, |family| match request.gateway {
            Some(interface) => Ok(interface),
            None => gateway(self.host, family),
        })?;
        let publication = Publication::new(jail.clone(), redirects, request.options.clone(), |target| {
            rules::inner(target, facts.interfaces()?.iter().map(|i| (&i.name, i.addresses.as_slice())))
        })?;
        Ok((publication, jid))
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
            return Err(rules::host_network(name));
        }
        Ok(jail.addresses.clone())
    }

    /// Refuses what somebody else has. Other jails are final; sockets and other tools' rules yield to `force`.
    fn check(
        &self,
        request: &Request,
        publication: &Publication,
        facts: &Facts<'_>,
        boot: &str,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let redirects = &publication.claims();
        if redirects.len() > 1 {
            conflict::within(redirects, facts.places()?)?;
        }
        let own = publication.jail.anchor();
        for redirect in redirects {
            self.check_jails(&own, redirect, facts, boot)?;
        }
        let mut yielding = |found: Result<()>| match found {
            Err(error) if request.force => {
                notes.push(format!("forced: {error}"));
                Ok(())
            }
            other => other,
        };
        for listener in self.host.listeners()? {
            for redirect in redirects.iter().filter(|r| r.host.contains(listener.port)) {
                yielding(conflict::with_listener(redirect, &listener, facts.places()?))?;
            }
        }
        for foreign in self.firewall.foreign_redirects()? {
            for redirect in redirects {
                yielding(conflict::with_foreign(redirect, &foreign, facts.places()?))?;
            }
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
                    let owner = store::owner(Some(&record), &claim.anchor);
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
        request: &Request,
        publication: &Publication,
        facts: &Facts<'_>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let found = self.verify_strictly(publication, facts);
        match found {
            Err(error) if request.allow_inert && error.kind() == Kind::Unavailable => {
                notes.push(format!("loaded, but without effect for now: {error}"));
                Ok(())
            }
            other => other,
        }
    }

    fn verify_strictly(&self, publication: &Publication, facts: &Facts<'_>) -> Result<()> {
        let unavailable = |text: String| Err(Error::new(Kind::Unavailable, text));
        let status = self.firewall.status()?;
        if !status.enabled {
            return unavailable(
                "pf is disabled, so nothing would be redirected; enable it: service pf onestart".to_owned(),
            );
        }
        let needs_nat = rules::rules(publication).iter().any(|r| matches!(r, Rule::Nat { .. }));
        let missing: Vec<&str> = [
            (status.nat_anchor || !needs_nat, "nat-anchor \"kport/*\""),
            (status.rdr_anchor, "rdr-anchor \"kport/*\""),
            (status.anchor, "anchor \"kport/*\""),
        ]
        .into_iter()
        .filter_map(|(there, line)| (!there).then_some(line))
        .collect();
        if !missing.is_empty() {
            return unavailable(format!(
                "pf's main ruleset does not call kport's anchors; add to /etc/pf.conf: {} (translation lines before filter \
                 lines), then: service pf reload",
                missing.join(" and ")
            ));
        }
        for (family, name) in [(Family::Inet, "net.inet.ip.forwarding"), (Family::Inet6, "net.inet6.ip6.forwarding")] {
            let mut forwarded = publication.redirects.iter().filter(|r| r.family() == family).peekable();
            if forwarded.peek().is_none() || self.host.sysctl(name)? != Some(0) {
                continue;
            }
            // an address of the host's own (a jail without vnet) needs no forwarding
            let own = |r: &Redirect| -> Result<bool> {
                Ok(facts.interfaces()?.iter().any(|i| i.addresses.iter().any(|n| n.addr() == r.target)))
            };
            for redirect in forwarded {
                if !own(redirect)? {
                    return unavailable(format!(
                        "the host does not forward {family} packets ({name} is 0), so none would arrive at {}; \
                         turn it on: sysctl {name}=1 (and in /etc/rc.conf: {}=\"YES\")",
                        redirect.target,
                        if family == Family::Inet { "gateway_enable" } else { "ipv6_gateway_enable" }
                    ));
                }
            }
        }
        Ok(())
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
        let before = old.map(|o| rules::rules(&o.publication)).unwrap_or_default();
        // A load that failed changed nothing, except that a child that was killed at its time-out may have come through.
        let sure = !after_load && matches!(error.kind(), Kind::Permission | Kind::Unavailable | Kind::Argument);
        if !sure {
            let untouched = !after_load
                && self.firewall.loaded(anchor).is_ok_and(|loaded| {
                    is_live(&before, &loaded) && !is_live(&rules::rules(&record.publication), &loaded)
                });
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
        let loaded = self.observer.step(Step::Load).and_then(|()| {
            let held = self.firewall.loaded(anchor)?;
            // an anchor that holds something unknown is cleared as well
            if !held.is_empty() || self.firewall.anchors()?.iter().any(|child| child == anchor.child()) {
                self.firewall.replace(anchor, &[])?;
                outcome.changed = true;
            }
            Ok(held)
        });
        // the jail's label is on every state, except on those of rules that the native backend loaded
        let mut labels: BTreeSet<Label> = BTreeSet::from([label]);
        match loaded {
            Ok(held) => labels.extend(
                held.rules.iter().filter(|r| r.labels.len() < 2).filter_map(|r| Label::loaded(r.labels.last()?)),
            ),
            Err(error) if absent(&error) => outcome.notes.push(format!("pf has nothing to clear: {error}")),
            Err(error) => errors.push(error),
        }
        if let Some(record) = record.filter(|r| r.backend == "native") {
            let jail = &record.publication.jail;
            let redirects = record.publications().flat_map(|p| &p.redirects);
            labels.extend(redirects.map(|r| jail.mapping_label(r.protocol, r.host)));
        }
        let labels: Vec<Label> = labels.into_iter().collect();
        match self.observer.step(Step::Kill).and_then(|()| self.kill(&labels)) {
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

    fn kill(&self, labels: &[Label]) -> Result<u64> {
        self.firewall.kill_states(labels)
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
    interfaces: once_cell::unsync::OnceCell<Vec<HostInterface>>,
}

impl<'a> Facts<'a> {
    fn new(host: &'a dyn Host) -> Facts<'a> {
        Facts { host, interfaces: once_cell::unsync::OnceCell::new() }
    }

    fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.get_or_try_init(|| self.host.interfaces()).map(Vec::as_slice)
    }

    fn places(&self) -> Result<Places<'_>> {
        self.interfaces().map(Places)
    }
}

/// Whether an anchor holds `wanted`: as many translation rules, and pass rules with the same labels. The text that
/// pfctl(8) prints differs between releases, so it is not compared.
fn is_live(wanted: &[Rule], loaded: &Loaded) -> bool {
    let expected: BTreeSet<&str> = wanted
        .iter()
        .filter_map(|rule| match rule {
            Rule::Pass { labels: [_, mapping], .. } => Some(mapping.as_str()),
            Rule::Nat { .. } | Rule::Rdr { .. } => None,
        })
        .collect();
    let found: BTreeSet<&str> = loaded.rules.iter().map(|rule| rule.labels.last().map_or("", String::as_str)).collect();
    let translations: usize =
        wanted.iter().filter(|r| !matches!(r, Rule::Pass { .. })).map(|r| r.matches().expanded()).sum();
    expected == found && translations == loaded.translations
}

/// The labels of redirects that are not published any more.
fn gone(record: &Record) -> Vec<Label> {
    let kept: HashSet<&Redirect> = record.publication.redirects.iter().collect();
    let before = record.replaces.iter().flat_map(|p| &p.redirects);
    let jail = &record.publication.jail;
    let labels: BTreeSet<Label> =
        before.filter(|r| !kept.contains(r)).map(|r| jail.mapping_label(r.protocol, r.host)).collect();
    labels.into_iter().collect()
}

/// The value, or all the errors as one: the kind of the first, the text of all.
fn all_or<T>(errors: Vec<Error>, value: T) -> Result<T> {
    errors.into_iter().reduce(|first, next| first.and(next)).map_or(Ok(value), Err)
}
