//! A plugin of the Container Network Interface, in place of `portmap`, for podman and other runtimes that use it.
//!
//! The input is the environment and a JSON document on standard input; the output is a JSON document: the result, or the error with
//! its code.
//!
//! A runtime adds and removes one network of a container at a time, and gives each the same mappings; kport publishes a
//! jail's ports once. So the attachments of a jail to networks are stored, in a document for each jail, and determine
//! what is published. It is written before a publication, and cleaned up afterwards: a kill in between leaves an extra attachment,
//! which the runtime's `DEL` removes. A `DEL` without `CNI_NETNS` finds its jail there.

#[cfg(not(feature = "internals"))]
mod code;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod code;
mod conmon;
mod input;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Program;
use crate::error::{self, Error, Kind, error};
use crate::host::Host;
use crate::managers::Environment;
use crate::name::{Anchor, JailName};
use crate::net::Protocol;
use crate::options::Options;
use crate::publication::{self, Redirect, Targets};
use crate::publisher::{Liveness, Outcome, Request};
use crate::readiness;
use crate::session::Session;
use crate::store::Documents;

use code::{Code, Failure};
use conmon::WithoutConmon;
use input::{Attachment, NEWEST, Network, PortMapping, VERSIONS};
pub use input::{MAX_INPUT, Operation};

/// Runs the operation that the environment names, and returns the document to print, if there is one; on failure that of the error.
///
/// `input` reads standard input to its end, or to one byte more than [`MAX_INPUT`].
pub fn answer(
    environment: &Environment<'_>, input: &dyn Fn(Operation) -> error::Result<Vec<u8>>, program: &dyn Program,
) -> Result<Option<Value>, Value> {
    // the answer has the version of the request, if that could be read
    let mut version = NEWEST;
    act(environment, input, program, &mut version).map_err(|failure| {
        json!({
            "cniVersion": version,
            "code": failure.code as u16,
            "msg": failure.code.text(),
            "details": failure.details,
        })
    })
}

fn act(
    environment: &Environment<'_>, input: &dyn Fn(Operation) -> error::Result<Vec<u8>>, program: &dyn Program,
    version: &mut &'static str,
) -> Result<Option<Value>, Failure> {
    let operation = Operation::asked(environment)?;
    let input = input(operation);
    if operation == Operation::Version {
        return Ok(Some(versions(&input.unwrap_or_default())));
    }
    let network = Network::read(&input?)?;
    *version = network.version;
    match operation {
        Operation::Add => return add(&network, environment, program).map(Some),
        Operation::Del => del(&network, environment, program)?,
        Operation::Check => check(&network, environment, program)?,
        Operation::Gc => gc(&network, program)?,
        Operation::Status => status(&network, program)?,
        Operation::Version => {}
    }
    Ok(None)
}

/// `VERSION`. The document has the version of the request, but may be missing.
fn versions(document: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(document).ok();
    let asked = asked.and_then(|value| input::version(value.get("cniVersion")?.as_str()?));
    json!({
        "cniVersion": asked.unwrap_or(NEWEST),
        "supportedVersions": VERSIONS,
    })
}

/// The attachments of one jail, in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Attachments {
    version: u32,
    /// As in the records: those of another boot do not count.
    boot: String,
    jail: JailName,
    /// The jid when one was added, if it was known.
    jid: Option<i32>,
    list: Vec<Attachment>,
}

impl Attachments {
    const VERSION: u32 = 1;

    fn read(path: &Path, anchor: &Anchor, bytes: &[u8]) -> error::Result<Attachments> {
        let damaged = |why: String| error!(System, "{} is not a file of kport: {why}", path.display());
        let value: Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let version = &value["version"];
        if version.is_number() && *version != Attachments::VERSION {
            return Err(error!(
                Unsupported,
                "{} is of version {version}, and this kport supports only version {}: use the kport that wrote it",
                path.display(),
                Attachments::VERSION
            ));
        }
        let read: Attachments = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        match read.jail.anchor() == *anchor {
            true => Ok(read),
            false => Err(damaged(format!("it is of {}", read.jail.mention()))),
        }
    }

    /// The addresses on all networks, the first network's first.
    fn addresses(&self) -> Vec<IpAddr> {
        self.list.iter().flat_map(|attachment| &attachment.addresses).copied().collect()
    }

    /// The mappings of all networks.
    fn mappings(&self) -> BTreeSet<PortMapping> {
        self.list.iter().flat_map(|attachment| &attachment.mappings).copied().collect()
    }
}

/// What an operation works with, and the lock over the documents.
struct Work<'a> {
    session: Session,
    program: &'a dyn Program,
    documents: Documents,
    /// The attachments of every jail.
    list: Vec<Attachments>,
    /// The documents that could not be read. They are not changed.
    unread: Vec<Anchor>,
}

impl<'a> Work<'a> {
    /// Waits for the lock until the time-out of the session, and reads the documents; those that cannot be read are reported. One of
    /// another version, which another kport can read, is an error if it is that of one of these jails.
    fn begin(program: &'a dyn Program, session: Session, jails: &[JailName]) -> Result<Work<'a>, Failure> {
        let documents = session.store()?.documents("cni", session.deadline())?;
        let (mut list, mut unread, mut notes) = (vec![], vec![], vec![]);
        for anchor in documents.anchors()? {
            let is_own = || jails.iter().any(|jail| anchor.is_of(jail));
            match Attachments::read(&documents.path(&anchor), &anchor, &documents.get(&anchor)?) {
                Ok(read) => list.push(read),
                Err(error) if error.kind() == Kind::Unsupported && is_own() => return Err(error.into()),
                Err(error) => {
                    notes.push(error.to_string());
                    unread.push(anchor);
                }
            }
        }
        program.report(&session, &Outcome { notes, ..Outcome::default() });
        Ok(Work { session, program, documents, list, unread })
    }

    /// Writes the attachments of a jail as a whole or not at all; without attachments the document is removed.
    fn put(&self, attachments: &Attachments) -> error::Result<()> {
        let anchor = attachments.jail.anchor();
        if attachments.list.is_empty() {
            return self.documents.remove(&anchor);
        }
        let bytes = serde_json::to_vec(attachments).map_err(|e| error!(Internal, "attachments: {e}"))?;
        self.documents.put(&anchor, &bytes)
    }

    /// Publishes the ports of the attachments. `force` and `allow_inert` are for ports that were published and checked before.
    fn publish(&self, attachments: &Attachments, force: bool, allow_inert: bool) -> Result<(), Failure> {
        let (mappings, passed_over) = input::of_families(&attachments.mappings(), &attachments.addresses());
        let publisher = self.session.publisher(self.program.observer())?;
        let Some(spec) = input::spec(&mappings)? else {
            self.program.report(&self.session, &publisher.unpublish(&attachments.jail, attachments.jid)?);
            return Ok(());
        };
        let request = Request {
            addresses: attachments.addresses(),
            // those of all are the same: `add` checks that
            options: attachments.list.first().map(|first| first.options.clone()).unwrap_or_default(),
            jid: attachments.jid,
            force,
            allow_inert,
            // the place of mappings without hostIP; kport doctor reports it
            default_everywhere: true,
            ..Request::new(attachments.jail.clone(), spec)
        };
        let mut outcome = publisher.publish(&request)?;
        outcome.notes.extend(passed_over.first().map(|PortMapping { place, protocol, host, .. }| {
            let more = match passed_over.len() {
                1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let jail = attachments.jail.mention();
            format!(
                "{protocol} {host} of {place}{more} is passed over: {jail} has no address of that family, and the port is \
                 published at another address"
            )
        }));
        self.program.report(&self.session, &outcome);
        Ok(())
    }

    /// Removes the attachments of a jail for which `gone` is true, from pf and then from the file. Those that stay were checked
    /// when they were added, so only pf itself can reject them.
    fn withdraw(&self, before: &Attachments, gone: impl Fn(&Attachment) -> bool) -> Result<(), Failure> {
        let mut after = before.clone();
        after.list.retain(|attachment| !gone(attachment));
        if after.list.len() == before.list.len() {
            return Ok(());
        }
        // those of another boot are no longer in pf
        if self.session.host.boot_id()? == before.boot {
            // one whose address belongs to the removed network
            let addresses = after.addresses();
            for attachment in &mut after.list {
                attachment.mappings.retain(|mapping| input::served(mapping, &addresses));
            }
            self.publish(&after, true, true)?;
        }
        Ok(self.put(&after)?)
    }
}

/// The input of `ADD` and `CHECK`: the attachment, the names that the container's jail may have, and the result.
fn asked(network: &Network, environment: &Environment<'_>) -> Result<(Attachment, Vec<JailName>, Value), Failure> {
    let (mut own, names) = Attachment::named(environment, network)?;
    input::jail(environment)?;
    own.options = network.options()?;
    own.mappings = network.mappings()?;
    let mut result = network.previous()?.clone();
    own.addresses = input::addresses(&result, &own.interface)?;
    result["cniVersion"] = json!(network.version);
    Ok((own, names, result))
}

fn add(network: &Network, environment: &Environment<'_>, program: &dyn Program) -> Result<Value, Failure> {
    let (own, names, result) = asked(network, environment)?;
    let (force, allow_inert) = (network.flag("force")?, network.flag("allowInert")?);
    let mut session = program.session(network.overrides()?)?;
    // the ports that podman's conmon holds for the container are not in use
    let ports = own.mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp).map(|mapping| mapping.host);
    let (container, ports) = (own.container.clone(), ports.collect());
    session.host = Box::new(WithoutConmon { host: session.host, container, ports });
    let work = Work::begin(program, session, &names)?;
    let is_own = |attachment: &Attachment| attachment.is(&own);
    if own.mappings.is_empty() {
        // an earlier attachment of this name that had ports was not removed
        work.list.iter().try_for_each(|other| work.withdraw(other, is_own))?;
        return Ok(result);
    }
    if own.addresses.is_empty() {
        let why = format!(
            "prevResult has no address of interface {} in the container, so no port can be redirected to it",
            own.interface
        );
        return Err(Failure::new(Code::Config, why));
    }
    let (jail, jid) = running(&*work.session.host, &names)?;
    let boot = work.session.host.boot_id()?;
    // the container was started again as another jail, without having been removed
    work.list.iter().filter(|other| other.jail != jail).try_for_each(|other| work.withdraw(other, is_own))?;
    let none = Attachments { version: Attachments::VERSION, boot, jail, jid: Some(jid), list: vec![] };
    let before = work.list.iter().find(|attachments| attachments.jail == none.jail).unwrap_or(&none);
    // those of an earlier start of the jail are gone
    let is_current = before.boot == none.boot && before.jid.is_none_or(|before| before == jid);
    let mut after = Attachments { jid: Some(jid), ..if is_current { before.clone() } else { none.clone() } };
    if let Some(other) = after.list.iter().find(|other| !is_own(other) && other.options != own.options) {
        let why = format!(
            "networks {} and {} of the same container have different options: a port is published once, \
             so give both networks the same",
            network.name, other.network
        );
        return Err(Failure::new(Code::Config, why));
    }
    match after.list.iter_mut().find(|attachment| is_own(attachment)) {
        Some(same) => *same = own.clone(),
        None => after.list.push(own.clone()),
    }
    work.put(&after)?;
    if let Err(failure) = work.publish(&after, force, allow_inert) {
        return Err(match work.put(before) {
            Ok(()) => failure,
            Err(again) => Failure::new(failure.code, format!("{}; and {again}", failure.details)),
        });
    }
    Ok(result)
}

/// The first of these jails that is running, with its jid. A runtime creates the jail before its network.
fn running(host: &dyn Host, names: &[JailName]) -> Result<(JailName, i32), Failure> {
    for name in names {
        if let Some(jail) = host.running(name.as_str())? {
            return Ok((name.clone(), jail.jid));
        }
    }
    let names: Vec<String> = names.iter().map(JailName::mention).collect();
    Err(Failure::new(Code::Unknown, format!("{} is not running", names.join(" or "))))
}

/// Needs only the names of the network, the container and the interface. The ports are removed even if `ADD` would reject
/// the configuration.
fn del(network: &Network, environment: &Environment<'_>, program: &dyn Program) -> Result<(), Failure> {
    let (own, names) = Attachment::named(environment, network)?;
    let work = Work::begin(program, program.session(network.overrides().unwrap_or_default())?, &names)?;
    work.list.iter().try_for_each(|other| work.withdraw(other, |attachment| attachment.is(&own)))?;
    for jail in &names {
        let anchor = jail.anchor();
        // it is no longer known which of its networks that was
        if work.unread.contains(&anchor) {
            let outcome = work.session.publisher(program.observer())?.unpublish(jail, None)?;
            program.report(&work.session, &outcome);
            work.documents.remove(&anchor)?;
        }
    }
    Ok(())
}

fn gc(network: &Network, program: &dyn Program) -> Result<(), Failure> {
    network.at_least("1.1.0", "GC")?;
    let valid = network.valid_attachments()?;
    let work = Work::begin(program, program.session(network.overrides().unwrap_or_default())?, &[])?;
    let mut failures: Vec<Failure> = vec![];
    for other in &work.list {
        let stale = |a: &Attachment| {
            a.network == network.name && !valid.iter().any(|of| (&of.0, &of.1) == (&a.container, &a.interface))
        };
        if let Err(failure) = work.withdraw(other, stale) {
            failures.push(Failure::new(failure.code, format!("jail \"{}\": {}", other.jail, failure.details)));
        }
    }
    let together =
        |first: Failure, next: Failure| Failure::new(first.code, format!("{}; {}", first.details, next.details));
    failures.into_iter().reduce(together).map_or(Ok(()), Err)
}

fn check(network: &Network, environment: &Environment<'_>, program: &dyn Program) -> Result<(), Failure> {
    network.at_least("0.4.0", "CHECK")?;
    let (own, names) = Attachment::named(environment, network)?;
    if input::jail(environment).and_then(|_| network.mappings())?.is_empty() {
        return Ok(());
    }
    let work = Work::begin(program, program.session(network.overrides()?)?, &names)?;
    let boot = work.session.host.boot_id()?;
    let has = |attachments: &&Attachments| attachments.boot == boot && attachments.list.iter().any(|a| a.is(&own));
    let Some(attachments) = work.list.iter().find(has) else {
        let why = format!(
            "interface {} of container {} was not added to network {} with its ports, or not since the host started",
            own.interface, own.container, network.name
        );
        return Err(Failure::new(Code::Unknown, why));
    };
    let (own, ..) = asked(network, environment)?;
    let differs = |why: String| Err(Failure::new(Code::Differs, why));
    if !attachments.list.contains(&own) {
        return differs(format!(
            "network {} of container {} was added with other ports, addresses or options",
            network.name, own.container
        ));
    }
    let jail = &attachments.jail;
    let (_, jid) = running(&*work.session.host, std::slice::from_ref(jail))?;
    if attachments.jid.is_some_and(|added| added != jid) {
        let why = format!("{} was started again since its network was added", jail.mention());
        return Err(Failure::new(Code::Unknown, why));
    }
    let listed = work.session.publisher(program.observer())?.list(Some(jail))?;
    let found: BTreeSet<String> =
        listed.iter().flat_map(|l| &l.redirects).map(|(redirect, _)| redirect.to_string()).collect();
    for redirect in redirects(attachments)? {
        if !found.contains(&redirect.to_string()) {
            return differs(format!("jail \"{jail}\" does not have {redirect} published"));
        }
    }
    // what pf does not evaluate is reported below
    if listed.iter().any(|l| !matches!(l.liveness, Liveness::Live | Liveness::Inert)) {
        return differs(format!("pf does not have the rules of jail \"{jail}\"; run kport apply to load them"));
    }
    match problem(&work.session, &own.options)? {
        Some(problem) => Err(Failure::new(Code::NotReady, problem)),
        None => Ok(()),
    }
}

/// The redirects of a jail's attachments.
fn redirects(attachments: &Attachments) -> Result<Vec<Redirect>, Failure> {
    let addresses = attachments.addresses();
    let (mappings, _) = input::of_families(&attachments.mappings(), &addresses);
    let Some(spec) = input::spec(&mappings)? else { return Ok(vec![]) };
    let targets = Targets::choose(&attachments.jail, &addresses)?;
    let unplaced = |_| Err(Error::new(Kind::Internal, "a mapping without a place"));
    Ok(publication::redirects(&attachments.jail, &spec, &targets, unplaced)?)
}

fn status(network: &Network, program: &dyn Program) -> Result<(), Failure> {
    network.at_least("1.1.0", "STATUS")?;
    let options = network.options()?;
    let session = program.session(network.overrides()?)?;
    let problem = match problem(&session, &options) {
        Ok(None) => return Ok(()),
        Ok(Some(problem)) => problem,
        // if pf cannot be read, it is not ready
        Err(failure) if matches!(failure.code, Code::NotReady | Code::Permission | Code::Io) => failure.details,
        Err(failure) => return Err(failure),
    };
    let work = Work::begin(program, session, &[])?;
    let boot = work.session.host.boot_id()?;
    let mut living = work.list.iter().filter(|attachments| attachments.boot == boot).flat_map(|a| &a.list);
    let suffers = living.any(|attachment| attachment.network == network.name);
    Err(Failure::new(if suffers { Code::Dead } else { Code::Unavailable }, problem))
}

/// Why nothing could be published with these options at present, and what to do about it.
fn problem(session: &Session, options: &Options) -> Result<Option<String>, Failure> {
    let (host, status) = (&*session.host, session.firewall.status()?);
    let needs_nat = options.translate_sources();
    let mut problem = readiness::unused(host, &status, needs_nat);
    if problem.is_none() && options.host_access {
        problem = readiness::unfiltered(host, "this network")?;
    }
    Ok(problem.map(|problem| problem.to_string()))
}
