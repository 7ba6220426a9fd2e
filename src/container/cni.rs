//! `kport cni`: a plugin of the Container Network Interface, in the place of `portmap`, for podman and what else speaks it.
//!
//! What comes in is the environment and a JSON document on standard input, what goes out is a JSON document on standard
//! output: the result, or the error with its code. Notes go to standard error.

mod attachments;
mod code;
mod conmon;
mod environment;
mod fields;
mod mapping;
mod network;
mod previous;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use kport::error::Kind;
use kport::host::Host;
use kport::name::JailName;
use kport::net::Protocol;
use kport::options::Options;
use kport::publication::{self, Redirect, Targets};
use kport::publisher::{Liveness, Observer, Outcome, Publisher, Request};
use kport::readiness;
use kport::session::Session;
use serde_json::{Value, json};

use self::attachments::{Attachment, Attachments, Files, Found};
use self::code::Code;
pub use self::code::Failure;
use self::conmon::WithoutConmon;
use self::environment::{Attached, Operation};
pub use self::fields::words;
use self::mapping::PortMapping;
use self::network::{MAX_INPUT, Network, Version};
pub use self::network::{Overrides, Publishing, overrides, publishing};
use super::args::Global;
use super::output;

/// The names by which a runtime may call the program, each with its command. A plugin is looked for by its `type`; a hook has
/// the first of its `args` as its name, but for ocijail, which hands that on as the first argument.
const NAMES: [(&str, &str); 3] = [("portmap", "cni"), ("kport-cni", "cni"), ("kport-oci-hook", "oci-hook")];

/// The command line of the process, with what the name of the program says in front: a container runtime gives its plugins no
/// arguments.
pub fn command_line() -> Vec<OsString> {
    let mut line: Vec<OsString> = std::env::args_os().collect();
    let name = line.first().and_then(|program| Path::new(program).file_name()?.to_str());
    if let Some((_, command)) = NAMES.into_iter().find(|known| Some(known.0) == name) {
        line.insert(1, command.into());
    }
    line
}

/// Does what the environment says, and answers on standard output.
pub fn run(global: &Global) -> ExitCode {
    // the version of an answer is that of the question, as far as that could be read
    let mut version = Version::NEWEST;
    let answer = act(global, &mut version);
    let (document, status) = match &answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result.clone(), ExitCode::SUCCESS),
        Err(failure) => {
            let error = json!({
                "cniVersion": version.name(),
                "code": failure.code.number(),
                "msg": failure.code.text(),
                "details": failure.details,
            });
            (error, ExitCode::FAILURE)
        }
    };
    match output::print(&format!("{document}\n")) {
        Ok(()) => status,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn act(global: &Global, version: &mut Version) -> Result<Option<Value>, Failure> {
    let operation = Operation::asked(environment::variable)?;
    if operation == Operation::Version {
        return Ok(Some(versions()));
    }
    let network = Network::read(&input()?)?;
    *version = network.version;
    match operation {
        Operation::Add => add(global, &network).map(Some),
        Operation::Del => del(global, &network).map(|()| None),
        Operation::Check => check(global, &network).map(|()| None),
        Operation::Gc => gc(global, &network).map(|()| None),
        Operation::Status => status(global, &network).map(|()| None),
        Operation::Version => unreachable!("answered above"),
    }
}

/// Standard input to its end.
fn input() -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![];
    let read = io::stdin().lock().take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::new(Code::Io, format!("read the network configuration from standard input: {e}")))?;
    if bytes.len() > MAX_INPUT {
        let why = format!("the network configuration on standard input has more than {MAX_INPUT} bytes");
        return Err(Failure::new(Code::Decode, why));
    }
    Ok(bytes)
}

/// `VERSION`. What stands on standard input says in which version the question is, and need not be there.
fn versions() -> Value {
    let asked = (!io::stdin().is_terminal()).then(|| input().ok()).flatten();
    let asked = asked.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let asked = asked.and_then(|value| Version::named(value.get("cniVersion")?.as_str()?));
    json!({
        "cniVersion": asked.unwrap_or(Version::NEWEST).name(),
        "supportedVersions": Version::ALL.map(Version::name),
    })
}

/// What a command works with.
struct Work {
    session: Session,
    quiet: bool,
    observer: output::Shown,
}

impl Work {
    fn new(global: &Global, overrides: Overrides) -> Result<Work, Failure> {
        let global = overrides.over(global);
        let observer = output::Shown::new(global.verbose);
        Ok(Work { session: super::session::session(&global)?, quiet: global.quiet, observer })
    }

    /// What podman's conmon holds for the container is not in the way of its ports.
    fn without_conmon(mut self, container: &str, mappings: &BTreeSet<PortMapping>) -> Work {
        let ports = mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp).map(|mapping| mapping.host);
        let ports: BTreeSet<u16> = ports.collect();
        if !ports.is_empty() {
            self.session.host = Box::new(WithoutConmon::new(self.session.host, container.to_owned(), ports));
        }
        self
    }

    fn host(&self) -> &dyn Host {
        &*self.session.host
    }

    fn publisher(&self) -> Result<Publisher<'_>, Failure> {
        Ok(self.session.publisher(&self.observer as &dyn Observer)?)
    }

    fn say(&self, notes: &[String]) {
        if !self.quiet {
            notes.iter().for_each(|note| output::complain(note));
        }
    }

    fn heard(&self, outcome: &Outcome) {
        if outcome.changed && self.session.firewall.name() == "sim" {
            output::complain(&kport::sim::NOTICE);
        }
        self.say(&outcome.notes);
    }

    /// What the files hold; whose file was damaged is said.
    fn found(&self, files: &Files) -> Result<Found, Failure> {
        let found = files.all()?;
        self.say(&found.notes);
        Ok(found)
    }

    /// Publishes what follows from the attachments. `force` and `allow_inert` for what was published and looked at before.
    fn publish(&self, attachments: &Attachments, force: bool, allow_inert: bool) -> Result<(), Failure> {
        let Some(spec) = mapping::spec(&attachments.mappings())? else {
            self.heard(&self.publisher()?.unpublish(&attachments.jail, attachments.jid)?);
            return Ok(());
        };
        let mut request = Request::new(attachments.jail.clone(), spec);
        request.addresses = attachments.addresses();
        request.options = options_of(attachments);
        request.jid = attachments.jid;
        request.force = force;
        request.allow_inert = allow_inert;
        self.heard(&self.publisher()?.publish(&request)?);
        Ok(())
    }

    /// Takes away the attachments of a jail that `gone` means, in pf and then in the file. Those that stay were looked at
    /// when they were added, so that nothing but pf itself can stand in their way.
    fn withdraw(
        &self,
        files: &Files,
        before: &Attachments,
        mut gone: impl FnMut(&Attachment) -> bool,
    ) -> Result<(), Failure> {
        let mut after = before.clone();
        after.list.retain(|attachment| !gone(attachment));
        if after.list.len() == before.list.len() {
            return Ok(());
        }
        // pf forgot those of another boot
        if self.host().boot_id()? == before.boot {
            // one that had its address from the network that goes
            let addresses = after.addresses();
            for attachment in &mut after.list {
                attachment.mappings.retain(|mapping| mapping::served(mapping, &addresses));
            }
            self.publish(&after, true, true)?;
        }
        Ok(files.put(&after)?)
    }
}

/// All attachments have the same options ([`add`] sees to that).
fn options_of(attachments: &Attachments) -> Options {
    attachments.list.first().map(|first| first.options.clone()).unwrap_or_default()
}

/// What a command about one attachment is given.
struct Asked {
    attached: Attached,
    jail: JailName,
    publishing: Publishing,
    mappings: BTreeSet<PortMapping>,
    addresses: Vec<IpAddr>,
    result: Value,
}

impl Asked {
    /// For `ADD` and `CHECK`, which need all of it.
    fn read(network: &Network) -> Result<Asked, Failure> {
        let attached = Attached::of(environment::variable)?;
        let jail = environment::jail(environment::variable)?;
        let publishing = network.publishing()?;
        let mappings = network.mappings(publishing.place)?.into_iter().collect();
        let result = network.previous().ok_or_else(|| {
            let why = "prevResult is missing: put kport behind the plugin that makes the container's interface";
            Failure::new(Code::Config, why)
        })?;
        let addresses = previous::addresses(result, &attached.interface)?;
        let result = previous::as_version(result, network.version);
        Ok(Asked { attached, jail, publishing, mappings, addresses, result })
    }

    fn attachment(&self, network: &Network) -> Attachment {
        Attachment {
            network: network.name.clone(),
            container: self.attached.container.clone(),
            interface: self.attached.interface.clone(),
            addresses: self.addresses.clone(),
            mappings: self.mappings.clone(),
            options: self.publishing.options.clone(),
        }
    }
}

fn add(global: &Global, network: &Network) -> Result<Value, Failure> {
    let asked = Asked::read(network)?;
    let work = Work::new(global, network.overrides()?)?.without_conmon(&asked.attached.container, &asked.mappings);
    let files = Files::lock(&work.session)?;
    let found = work.found(&files)?;
    if asked.mappings.is_empty() {
        // an attachment of this name that had some was not removed before it came back
        for other in &found.list {
            work.withdraw(&files, other, |attachment| attachment.is(&network.name, &asked.attached))?;
        }
        return Ok(asked.result);
    }
    if asked.addresses.is_empty() {
        let why = format!(
            "prevResult has no address of interface {} in the container, so that no port can be redirected to it",
            asked.attached.interface
        );
        return Err(Failure::new(Code::Config, why));
    }
    let (jail, jid) = jail_of(work.host(), &asked)?;
    let boot = work.host().boot_id()?;
    // the container came back as another jail, without having been removed
    for other in found.list.iter().filter(|other| other.jail != jail) {
        work.withdraw(&files, other, |attachment| attachment.is(&network.name, &asked.attached))?;
    }
    let before = found.list.into_iter().find(|attachments| attachments.jail == jail);
    // those of an earlier start of the jail went with it
    let current = before.clone().filter(|b| b.boot == boot && (b.jid.is_none() || jid.is_none() || b.jid == jid));
    let mut after = current.unwrap_or_else(|| Attachments::none(jail.clone(), jid, boot.clone()));
    after.jid = jid.or(after.jid);
    let made = asked.attachment(network);
    match after.list.iter_mut().find(|attachment| attachment.is(&network.name, &asked.attached)) {
        Some(same) => *same = made,
        None => after.list.push(made),
    }
    if let Some(other) = after.list.iter().find(|attachment| attachment.options != asked.publishing.options) {
        let why = format!(
            "network {} publishes with other options than network {} of the same container: a port is published once, \
             so give both the same",
            network.name, other.network
        );
        return Err(Failure::new(Code::Config, why));
    }
    files.put(&after)?;
    if let Err(failure) = work.publish(&after, asked.publishing.force, asked.publishing.allow_inert) {
        let restored = match &before {
            Some(before) => files.put(before),
            None => files.put(&Attachments::none(jail, jid, boot)),
        };
        return Err(match restored {
            Ok(()) => failure,
            Err(again) => Failure::new(failure.code, format!("{}; and {again}", failure.details)),
        });
    }
    Ok(asked.result)
}

/// The jail that is meant, and its number: the one of `CNI_NETNS`, which podman fills in, or the one that is called like the
/// container; where neither is there, the first all the same.
fn jail_of(host: &dyn Host, asked: &Asked) -> Result<(JailName, Option<i32>), Failure> {
    for name in [Ok(asked.jail.clone()), asked.attached.container.parse()].into_iter().flatten() {
        if let Some(jail) = host.jail(name.as_str())?.filter(|jail| !jail.dying && jail.name == name.as_str()) {
            return Ok((name, Some(jail.jid)));
        }
    }
    Ok((asked.jail.clone(), None))
}

/// Needs nothing but the names of the network, the container and the interface. A configuration that could not be added with
/// is no reason to keep what was.
fn del(global: &Global, network: &Network) -> Result<(), Failure> {
    let attached = Attached::of(environment::variable)?;
    let work = Work::new(global, network.overrides().unwrap_or_default())?;
    let files = Files::lock(&work.session)?;
    let found = work.found(&files)?;
    for other in &found.list {
        work.withdraw(&files, other, |attachment| attachment.is(&network.name, &attached))?;
    }
    // nothing tells any more which of its networks that was
    if let Ok(jail) = environment::jail(environment::variable)
        && found.damaged.contains(&jail.anchor())
    {
        work.heard(&work.publisher()?.unpublish(&jail, None)?);
    }
    Ok(())
}

fn gc(global: &Global, network: &Network) -> Result<(), Failure> {
    network.version.at_least(Version::V1_1_0, "GC")?;
    let valid = network.valid_attachments()?;
    let work = Work::new(global, network.overrides().unwrap_or_default())?;
    let files = Files::lock(&work.session)?;
    let mut failures: Vec<Failure> = vec![];
    for other in work.found(&files)?.list {
        let stale = |attachment: &Attachment| {
            let is = |(container, interface): &(String, String)| {
                *container == attachment.container && *interface == attachment.interface
            };
            attachment.network == network.name && !valid.iter().any(is)
        };
        if let Err(failure) = work.withdraw(&files, &other, stale) {
            failures.push(Failure::new(failure.code, format!("jail \"{}\": {}", other.jail, failure.details)));
        }
    }
    let together =
        |first: Failure, next: Failure| Failure::new(first.code, format!("{}; {}", first.details, next.details));
    failures.into_iter().reduce(together).map_or(Ok(()), Err)
}

fn check(global: &Global, network: &Network) -> Result<(), Failure> {
    network.version.at_least(Version::V0_4_0, "CHECK")?;
    let attached = Attached::of(environment::variable)?;
    environment::jail(environment::variable)?;
    if network.mappings(network.publishing()?.place)?.is_empty() {
        return Ok(());
    }
    let work = Work::new(global, network.overrides()?)?;
    let files = Files::lock(&work.session)?;
    let all = work.found(&files)?.list;
    let boot = work.host().boot_id()?;
    let has = |attachments: &&Attachments| {
        attachments.boot == boot && attachments.list.iter().any(|a| a.is(&network.name, &attached))
    };
    let Some(attachments) = all.iter().find(has) else {
        let why = format!(
            "interface {} of container {} was not added to network {} with its ports, or not since the host started",
            attached.interface, attached.container, network.name
        );
        return Err(Failure::new(Code::Unknown, why));
    };
    let asked = Asked::read(network)?;
    let differs = |why: String| Err(Failure::new(Code::Differs, why));
    if !attachments.list.contains(&asked.attachment(network)) {
        return differs(format!(
            "network {} of container {} was added with other ports, addresses or options",
            network.name, asked.attached.container
        ));
    }
    let jail = &attachments.jail;
    let listed = work.publisher()?.list(Some(jail))?;
    let found: BTreeSet<String> =
        listed.iter().flat_map(|l| &l.redirects).map(|(redirect, _)| redirect.to_string()).collect();
    for redirect in redirects(attachments)? {
        if !found.contains(&redirect.to_string()) {
            return differs(format!("jail \"{jail}\" does not have {redirect} published"));
        }
    }
    if listed.iter().any(|l| l.liveness != Liveness::Live) {
        return differs(format!("pf does not have the rules of jail \"{jail}\"; kport restore loads them again"));
    }
    match problem(&work, &asked.publishing)? {
        Some(problem) => Err(Failure::new(Code::NotReady, problem)),
        None => Ok(()),
    }
}

/// What the attachments of a jail are in pf.
fn redirects(attachments: &Attachments) -> Result<Vec<Redirect>, Failure> {
    let Some(spec) = mapping::spec(&attachments.mappings())? else { return Ok(vec![]) };
    let targets = Targets::choose(&attachments.jail, &attachments.addresses())?;
    let unplaced = |_| Err(kport::error::Error::new(Kind::Internal, "a mapping without a place"));
    Ok(publication::redirects(&attachments.jail, &spec, &targets, unplaced)?)
}

fn status(global: &Global, network: &Network) -> Result<(), Failure> {
    network.version.at_least(Version::V1_1_0, "STATUS")?;
    let publishing = network.publishing()?;
    let work = Work::new(global, network.overrides()?)?;
    let problem = match problem(&work, &publishing) {
        Ok(None) => return Ok(()),
        Ok(Some(problem)) => problem,
        // pf that does not answer is not ready either
        Err(failure) if matches!(failure.code, Code::NotReady | Code::Permission | Code::Io) => failure.details,
        Err(failure) => return Err(failure),
    };
    let files = Files::lock(&work.session)?;
    let all = work.found(&files)?.list;
    let boot = work.host().boot_id()?;
    let mut living = all.iter().filter(|attachments| attachments.boot == boot).flat_map(|a| &a.list);
    let suffers = living.any(|attachment| attachment.network == network.name);
    Err(Failure::new(if suffers { Code::Dead } else { Code::Unavailable }, problem))
}

/// Why nothing could be published with these options now, and what is to be done.
fn problem(work: &Work, publishing: &Publishing) -> Result<Option<String>, Failure> {
    let status = work.session.firewall.status()?;
    let needs_nat = publishing.options.hairpin || publishing.options.host_access;
    let mut problem = readiness::disabled(&status).or_else(|| readiness::uncalled(&status, needs_nat));
    if problem.is_none() && publishing.options.host_access {
        problem = readiness::unfiltered(work.host(), "this network")?;
    }
    Ok(problem.map(|problem| problem.to_string()))
}
