//! Publish, unpublish, list, restore, gc: each one transaction over the records, the host and the firewall.
//!
//! A `Transaction` has two sides. The `Survey` reads: the `Facts` of the host and of pf, and what `Others` have published.
//! The `Writer` changes pf and the records, whose lock it holds. Publishing enters each phase once: `resolve` (from the
//! request to redirects) and `check` (who else has the ports) by the survey, then `change` by the writer (record, load,
//! verify, end states, settle; on an error it undoes the change).

mod addresses;
mod change;
mod check;
mod dry_run;
mod facts;
mod follow;
mod gc;
mod identity;
mod list;
mod locked;
mod narrower;
mod others;
mod progress;
mod request;
mod requested;
mod resolve;
mod restore;
mod starting;
mod states;
mod survey;
mod taken;
mod transaction;
mod unpublish;
mod verify;
mod wait;
mod writer;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting};
use crate::host::{ANSWER_TIME, Host, Interfaces, Jail};
use crate::name::{Anchor, JailName};
use crate::net::{Family, Interface, PortRange};
use crate::options::Options;
pub use crate::pf::Counters;
use crate::pf::Firewall;
use crate::publication::{self, Publication, Redirect, Targets, distinct};
use crate::readiness::Ways;
use crate::rule::Rule;
use crate::rules;
use crate::spec::Spec;
use crate::store::{Record, Store};

use facts::Facts;
use others::Others;
use progress::Progress;
use resolve::Resolved;
use survey::Survey;
use transaction::Transaction;
use verify::Verification;

pub use follow::Recorded;
pub use wait::GRACE;

/// The phases of a transaction, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Take the host-wide lock.
    Lock,
    /// Read from the host: the jail's addresses, the gateway interface.
    Resolve,
    /// Look for conflicts.
    Check,
    /// Record what is to be published.
    Record,
    /// Change the anchor.
    Load,
    /// Check that pf evaluates the rules.
    Verify,
    /// End the states of what is no longer published.
    Kill,
    /// Record that pf has it.
    Settle,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 8] = [
        Phase::Lock,
        Phase::Resolve,
        Phase::Check,
        Phase::Record,
        Phase::Load,
        Phase::Verify,
        Phase::Kill,
        Phase::Settle,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Lock => "lock",
            Phase::Resolve => "resolve",
            Phase::Check => "check",
            Phase::Record => "record",
            Phase::Load => "load",
            Phase::Verify => "verify",
            Phase::Settle => "settle",
            Phase::Kill => "kill",
        }
    }
}

/// Observes a transaction: `kport -v`, and the tests that make each phase fail.
pub trait Observer {
    /// Called before a phase. An error makes the transaction fail in this phase; it is undone like any other error.
    fn phase(&self, _phase: Phase) -> Result<()> {
        Ok(())
    }

    /// What a publish waits for, when that begins and when it changes.
    fn waiting(&self, _why: &str) {}

    /// A detail, for `kport -vv`.
    fn detail(&self, _text: &str) {}
}

/// The observer that does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// The ports that `auto` chooses from by default: the dynamic ports of RFC 6335, which are also those of
/// `net.inet.ip.portrange.hifirst` and `hilast`.
pub const AUTO_RANGE: PortRange = match PortRange::new(49152, 65535) {
    Some(range) => range,
    None => unreachable!(),
};

/// What to publish.
#[derive(Clone, Debug)]
pub struct Request {
    /// The jail.
    pub jail: JailName,
    /// The ports.
    pub spec: Spec,
    /// The jail's addresses in order of preference: one for each network it is connected to. If empty, they are read from the
    /// host.
    pub addresses: Vec<IpAddr>,
    /// The networks from which the addresses that a jail with its own network stack reports are believed, besides those of
    /// the bridges and epairs of the host: the jail's address is one of the LAN, from DHCP. The host's own addresses, and those
    /// of other jails, are never believed.
    pub trust: Vec<IpNet>,
    /// The gateway interface, for mappings without a place. `None`: that of the host's default route.
    pub gateway: Option<Interface>,
    /// The jid. `None`: it is read from the host.
    pub jid: Option<i32>,
    /// How long to wait until the jail has an address that can be published, if none is given: one of each family of
    /// [`Options::families`]; if none is named, one, and [`GRACE`] for one of the other family, if the host has a default route
    /// of both. The deadline of the publisher applies as well.
    pub wait: Duration,
    /// The options.
    pub options: Options,
    /// The host ports that `auto` chooses from.
    pub auto_range: PortRange,
    /// Add to what the jail has published instead of replacing it. The options apply to the mappings of this call.
    pub add: bool,
    /// Publish even if a socket of the host or another tool's redirect has the port.
    pub force: bool,
    /// Publish even if pf does not evaluate the rules at present.
    pub allow_inert: bool,
    /// The name is not that of a jail, but of another target of redirects: a guest of bhyve(8), a host of the LAN. It needs its
    /// address, has no jid, and is published until it is unpublished.
    pub no_jail: bool,
    /// Every address of the host is the default of the caller, and not the choice of a user: no note about it.
    pub default_everywhere: bool,
    /// It is a line of kport.conf(5): [`Publisher::follow`] unpublishes it when the line is gone.
    pub configured: bool,
}

impl Request {
    /// A request with the default options.
    pub fn new(jail: JailName, spec: Spec) -> Request {
        Request {
            jail,
            spec,
            addresses: vec![],
            trust: vec![],
            gateway: None,
            jid: None,
            wait: Duration::ZERO,
            options: Options::default(),
            auto_range: AUTO_RANGE,
            add: false,
            force: false,
            allow_inert: false,
            no_jail: false,
            default_everywhere: false,
            configured: false,
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
    /// Notes for the caller, one line each.
    pub notes: Vec<String>,
}

/// Whether pf has what is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// pf has what the record says, and evaluates it.
    Live,
    /// pf has what the record says, but does not evaluate it: it is disabled, or its main ruleset does not call kport's anchors.
    Inert,
    /// It is recorded, but pf does not have it, or only a part of it: `kport apply` loads it again.
    Missing,
    /// pf has it, but it is not recorded: `kport apply` removes it.
    Stale,
}

impl Liveness {
    /// Its name in the output.
    pub const fn name(self) -> &'static str {
        match self {
            Liveness::Live => "live",
            Liveness::Inert => "inert",
            Liveness::Missing => "missing",
            Liveness::Stale => "stale",
        }
    }
}

/// One jail's part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The anchor with its rules.
    pub anchor: Anchor,
    /// The jail; `None` for an anchor without a record.
    pub jail: Option<JailName>,
    /// Whether the name is that of another target, see [`Request::no_jail`].
    pub no_jail: bool,
    /// The jid when it was published, if it was known.
    pub jid: Option<i32>,
    /// When it was published, in seconds since 1970.
    pub since: Option<u64>,
    /// Whether pf has what is recorded.
    pub liveness: Liveness,
    /// The redirects, each with the counters of its rules if requested and if the backend has them.
    pub redirects: Vec<(Redirect, Counters)>,
    /// What is wrong with the record, if anything, or why pf does not evaluate the rules.
    pub problem: Option<String>,
}

/// Publishes on one host, through one firewall, with one state directory.
///
/// Every method fails with [`Kind::Permission`] if the caller may not change pf or the state directory, with [`Kind::Busy`]
/// if the lock or pf stayed busy until the deadline, with [`Kind::System`] if a system call or pfctl(8) failed, and with
/// [`Kind::Internal`] on a defect of kport. The other kinds are listed with each method. The text of an error ends with the
/// notes.
pub struct Publisher<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    store: Store,
    deadline: Deadline,
    observer: &'a dyn Observer,
}

impl<'a> Publisher<'a> {
    /// Host and firewall are parameters, so that tests can use any. Waiting for the lock ends at `deadline`, and so does
    /// every loop over what is published.
    #[doc(hidden)]
    pub fn new(
        host: &'a dyn Host,
        firewall: &'a dyn Firewall,
        store: Store,
        deadline: Deadline,
        observer: &'a dyn Observer,
    ) -> Publisher<'a> {
        Publisher { host, firewall, store, deadline, observer }
    }

    /// Publishes all ports of a jail, or none. They replace the ports that the jail had published, unless the request adds to
    /// them. Publishing the same ports again changes nothing and succeeds.
    ///
    /// On an error pf and the record are unchanged; if that was impossible, the message says so, and the next call corrects
    /// it.
    ///
    /// # Errors
    ///
    /// [`Kind::Conflict`] if one of the ports is in use, or no port is free for `auto`; [`Kind::Unavailable`] if pf would not
    /// evaluate the rules, or the jail's address or the gateway interface is unknown; [`Kind::Unsupported`] if the jail is on
    /// the host's network, or an option cannot be used with a protocol; [`Kind::Argument`] for an address that cannot be the
    /// target of a redirect, and for options that contradict each other.
    pub fn publish(&self, request: &Request) -> Result<Outcome> {
        self.publish_all(std::slice::from_ref(request))
    }

    /// Publishes several requests of one jail, each with its own options, in one transaction: all of it or nothing. The first
    /// request decides whether that replaces what the jail had published; the others add to it. A conflict is overridden, and
    /// rules without effect are published, only if each request allows it.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::publish`]; [`Kind::Argument`] if there is no request, and for requests of several jails.
    pub fn publish_all(&self, requests: &[Request]) -> Result<Outcome> {
        let jail = match requests {
            [] => return Err(Error::new(Kind::Argument, "there is nothing to publish; unpublish the jail instead")),
            [first, ..] => &first.jail,
        };
        if let Some(other) = requests.iter().find(|request| request.jail != *jail) {
            let why = format!("{} and {} are two jails: publish each by itself", jail.mention(), other.jail.mention());
            return Err(Error::new(Kind::Argument, why));
        }
        for request in requests {
            addresses::check_no_jail(request, requests[0].no_jail)?;
        }
        self.wait(requests)?;
        let allow_inert = requests.iter().all(|request| request.allow_inert);
        self.run_for(requests, |Transaction { survey, writer }| {
            let facts = &survey.facts;
            let old = writer.record(&jail.anchor(), facts)?;
            let notes = &mut writer.outcome.notes;
            let resolved = resolve::resolve(survey, requests, old.as_ref(), notes)?;
            check::check(survey, requests, old.as_ref(), &resolved, notes)?;
            for (anchor, outdated) in survey.others.outdated() {
                writer.drop_outdated(&anchor, &outdated)?;
            }
            let requested = requested::after(old.as_ref().filter(|_| resolved.adds), requests)?;
            let Resolved { jid, path, earlier_jid, reported, publications, .. } = resolved;
            let no_jail = requests[0].no_jail;
            let record = Record {
                path,
                earlier_jid,
                no_jail,
                reported,
                requested,
                ..writer.record_of(jail, jid, publications)?
            };
            change::change(writer, old.as_ref(), record, &Verification { facts, allow_inert, thorough: true })
        })
    }

    /// Checks a request like [`Publisher::publish`], and changes nothing. The jail need not exist yet; without its address, the ports
    /// are checked in each family in which the host has a network of jails. What it finds free may be in use later.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::publish`].
    pub fn dry_run(&self, request: &Request) -> Result<Outcome> {
        self.run_for(std::slice::from_ref(request), |transaction| dry_run::dry_run(transaction, request))
    }

    /// Removes all ports of a jail from pf, ends its states, and removes its record. It is not an error if nothing is
    /// published. With a `jid`, what another start of the jail has published is not changed: a stop hook that runs late must
    /// not remove what the next start has published.
    ///
    /// # Errors
    ///
    /// They are collected: what can be undone is undone, and the record stays until all of it is. The kind is
    /// that of [`Error::all`].
    pub fn unpublish(&self, jail: &JailName, jid: Option<i32>) -> Result<Outcome> {
        self.run(|Transaction { survey, writer }| unpublish::unpublish(writer, &survey.facts, jail, jid))
    }

    /// Removes single mappings of a jail, in one transaction, and keeps the others. A mapping that is not published is noted,
    /// and is not an error. `auto` stands for any host port.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::unpublish`]; on an error either all mappings are still published, or the message lists what is
    /// left.
    pub fn unpublish_some(&self, jail: &JailName, jid: Option<i32>, spec: &Spec) -> Result<Outcome> {
        self.run(|Transaction { survey, writer }| unpublish::unpublish_some(writer, &survey.facts, jail, jid, spec))
    }

    /// Loads again what is recorded and not in pf: after `pfctl -F` on kport's anchors, or after pf(4) was unloaded. Reports
    /// the jails.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`] if pf is not available. An error of one jail does not stop the others; the kind is
    /// that of [`Error::all`].
    pub fn restore(&self) -> Result<Outcome> {
        self.run(|Transaction { survey, writer }| restore::restore(writer, &survey.facts))
    }

    /// Makes what a jail has published what its requests say now: those that were made by hand, and the lines of kport.conf(5).
    /// `configured` has the lines that the file has now; with `None`, those that are recorded. Addresses that were found and not
    /// given, and the gateway interface, are read again; a jail that has no such address any more keeps its requests, and
    /// nothing that is published. The ports of a jail that is gone are removed, and rules that pf has lost are loaded.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::publish_all`]. What is published stays then, unless it leads to an address that is not the jail's any
    /// more.
    pub fn follow(&self, jail: &JailName, configured: Option<&[Request]>) -> Result<Outcome> {
        self.wait(configured.unwrap_or_default())?;
        self.run_for(configured.unwrap_or_default(), |transaction| follow::follow(transaction, jail, configured))
    }

    /// What is recorded for each jail. Does not take the lock.
    ///
    /// # Errors
    ///
    /// Only if the state directory cannot be read: a record that cannot be read is left out.
    pub fn recorded(&self) -> Result<Vec<Recorded>> {
        follow::recorded(self.host, &self.store)
    }

    /// What is recorded to be published for a jail; nothing if there is no record that can be read. Does not take the lock.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub fn redirects(&self, jail: &JailName) -> Result<Vec<Redirect>> {
        follow::redirects(self.host, &self.store, jail)
    }

    /// Those of the jails whose rules pf has lost: it does not have what is recorded. Does not take the lock.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`] if pf is not available.
    pub fn lost<'j>(&self, jails: impl IntoIterator<Item = &'j JailName>) -> Result<Vec<JailName>> {
        let mut lost = vec![];
        for jail in jails {
            if follow::is_lost(self.host, self.firewall, &self.store, jail)? {
                lost.push(jail.clone());
            }
        }
        Ok(lost)
    }

    /// Removes the ports of jails that are gone, and anchors without a record.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`] if pf is not available. An error of one jail does not stop the others; the kind is
    /// that of [`Error::all`].
    pub fn gc(&self) -> Result<Outcome> {
        self.run(|Transaction { survey, writer }| gc::gc(writer, &survey.facts))
    }

    /// Returns what is published by one jail, or by all, sorted by anchor, and kport's anchors without a record. Changes
    /// nothing and does not take the lock.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`] if pf is not available. A record that cannot be read is not an error: see [`Listed::problem`].
    pub fn list(&self, jail: Option<&JailName>) -> Result<Vec<Listed>> {
        list::list(self.host, self.firewall, &self.store, jail, false, self.deadline)
    }

    /// Like [`Publisher::list`], with the counters of each redirect, which requires reading each rule.
    ///
    /// # Errors
    ///
    /// As for [`Publisher::list`].
    pub fn list_with_counters(&self, jail: Option<&JailName>) -> Result<Vec<Listed>> {
        list::list(self.host, self.firewall, &self.store, jail, true, self.deadline)
    }

    /// Waits until the jail has the addresses that the requests wait for. Other processes have the lock meanwhile.
    fn wait(&self, requests: &[Request]) -> Result<()> {
        for request in requests {
            let is_complete = |jail: Option<&Jail>| {
                let facts = Facts::new(self.host, self.firewall, Progress::new(self.observer, self.deadline));
                let others = Others::new(self.host, self.firewall, &self.store, &self.host.boot_id()?);
                addresses::are_complete(&Survey { facts, others }, request, jail)
            };
            wait::for_address(self.host, request, self.deadline, self.observer, &is_complete)?;
        }
        Ok(())
    }

    fn run(&self, act: impl FnOnce(&mut Transaction<'_>) -> Result<()>) -> Result<Outcome> {
        self.run_for(&[], act)
    }

    /// A transaction that makes what a jail has published these requests.
    fn run_for(&self, requests: &[Request], act: impl FnOnce(&mut Transaction<'_>) -> Result<()>) -> Result<Outcome> {
        let progress = Progress::new(self.observer, self.deadline);
        let mut transaction = Transaction::begin(self.host, self.firewall, &self.store, progress, requests)?;
        let result = act(&mut transaction);
        transaction.finish(result)
    }
}

/// The interface of the default route. A family without a default route has that of the other family: "the gateway interface
/// of the host".
fn gateway(default: &dyn Fn(Family) -> Result<Option<Interface>>, family: Family) -> Result<Interface> {
    for family in [family, family.other()] {
        if let Some(interface) = default(family)? {
            return Ok(interface);
        }
    }
    Err(Error::new(
        Kind::Unavailable,
        "the host has no default route, so it has no gateway interface; name one in the spec: em0:8080:80",
    )
    .remedy("or with", Setting::Gateway))
}

/// Returns the rules that [`Publisher::publish`] would load for a request, without checking pf, the records or the ports. If
/// the request has no addresses, those that the jail reports are used.
///
/// # Errors
///
/// As for [`Publisher::publish`], as far as they follow from the request and the host's interfaces; [`Kind::Unsupported`] for
/// `auto`, whose port is chosen when it is published.
#[doc(hidden)]
pub fn rules(host: &dyn Host, request: &Request) -> Result<Vec<Rule>> {
    let running = host.jail(request.jail.as_str())?.filter(|jail| !jail.dying);
    let addresses = match request.addresses.is_empty() {
        true => addresses::reported(&request.jail, running.as_ref(), |jail| host.vnet_addresses(jail, ANSWER_TIME))?,
        false => request.addresses.clone(),
    };
    let addresses = addresses::of_families(request, addresses)?;
    let own = running.as_ref().map_or(&[][..], Jail::on_host_stack);
    let targets = Targets::choose_of(&request.jail, &addresses, own)?.with_af_to(request.options.af_to);
    let redirects = publication::redirects(&request.jail, &request.spec, &targets, |family| match request.gateway {
        Some(interface) => Ok(interface),
        None => gateway(&|family| host.gateway(family), family),
    })?;
    let interfaces = match host.interfaces() {
        Err(error) if error.kind() == Kind::Unsupported => vec![],
        other => other?,
    };
    let publication = Publication::new(request.jail.clone(), redirects, request.options.clone(), |target| {
        Interfaces(&interfaces).leads_to(target)
    })?;
    let ways = Ways {
        interfaces: &interfaces,
        default: &|family| host.gateway(family),
        gateways: &|| host.gateways(),
        jail_fib: running.map_or(0, |jail| jail.fib),
    };
    Ok(rules::rules(&answered(publication, &ways)?))
}

/// A publication with the way of its answers. A router that was given must be next to the host.
fn answered(publication: Publication, ways: &Ways<'_>) -> Result<Publication> {
    let answers = ways.answers(&publication)?;
    let needed = |router: &&IpAddr| publication.redirects.iter().any(|r| r.family() == Family::of(**router));
    let used =
        |router: &IpAddr| answers.iter().any(|a| a.routing.reply_to.is_some_and(|hop| hop.gateway == Some(*router)));
    let given = publication.options.reply_to.iter().flatten();
    if let Some(router) = given.filter(needed).find(|router| !used(router)) {
        let places = distinct(publication.redirects.iter().map(|r| r.place.to_string())).join(" ");
        let why = format!("no interface of {places} has a network with the router {router}");
        return Err(Error::new(Kind::Argument, why).remedy("give another with", Setting::ReplyTo));
    }
    Ok(Publication { answers, ..publication })
}
