//! A plugin of the Container Network Interface, in place of `portmap`, for podman and other runtimes that use it.
//!
//! The input is the environment and a JSON document on standard input; the output is a JSON document: the result, or the error with
//! its code.

mod attachments;
mod conmon;
mod environment;
mod mapping;
mod network;
mod previous;

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::Program;
use super::code::{Code, Failure};
use super::settings::{Overrides, Publishing};
use crate::error::{self, Error, Kind};
use crate::host::Host;
use crate::managers::Environment;
use crate::name::{Anchor, JailName};
use crate::net::Protocol;
use crate::options::Options;
use crate::publication::{self, Redirect, Targets};
use crate::publisher::{Liveness, Outcome, Publisher, Request};
use crate::readiness;
use crate::session::Session;

use attachments::{Attachment, Attachments, Files, Stored};
use conmon::WithoutConmon;
use environment::Attached;
pub use environment::Operation;
use mapping::PortMapping;
pub use network::MAX_INPUT;
use network::{Network, Version};

/// Runs the operation that the environment names, and returns the document to print, if there is one; on failure that of the error.
///
/// `input` reads standard input to its end, or to one byte more than [`MAX_INPUT`].
pub fn answer(
    environment: &Environment<'_>,
    input: &dyn Fn(Operation) -> error::Result<Vec<u8>>,
    program: &dyn Program,
) -> Result<Option<Value>, Value> {
    // the answer has the version of the request, if that could be read
    let mut version = Version::NEWEST;
    act(environment, input, program, &mut version).map_err(|failure| {
        json!({
            "cniVersion": version.name(),
            "code": failure.code.number(),
            "msg": failure.code.text(),
            "details": failure.details,
        })
    })
}

fn act(
    environment: &Environment<'_>,
    input: &dyn Fn(Operation) -> error::Result<Vec<u8>>,
    program: &dyn Program,
    version: &mut Version,
) -> Result<Option<Value>, Failure> {
    let operation = Operation::asked(environment)?;
    let input = input(operation);
    let act: fn(&Call<'_>) -> Result<Option<Value>, Failure> = match operation {
        Operation::Version => return Ok(Some(versions(&input.unwrap_or_default()))),
        Operation::Add => |call| add(call).map(Some),
        Operation::Del => |call| del(call).map(|()| None),
        Operation::Check => |call| check(call).map(|()| None),
        Operation::Gc => |call| gc(call).map(|()| None),
        Operation::Status => |call| status(call).map(|()| None),
    };
    let network = Network::read(&input?)?;
    *version = network.version;
    act(&Call { network, environment, program })
}

/// `VERSION`. The document has the version of the request, but may be missing.
fn versions(input: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(input).ok();
    let asked = asked.and_then(|value| Version::named(value.get("cniVersion")?.as_str()?));
    json!({
        "cniVersion": asked.unwrap_or(Version::NEWEST).name(),
        "supportedVersions": Version::ALL.map(Version::name),
    })
}

/// One call of the plugin.
struct Call<'a> {
    network: Network,
    environment: &'a Environment<'a>,
    program: &'a dyn Program,
}

impl Call<'_> {
    fn attached(&self) -> Result<Attached, Failure> {
        Attached::of(self.environment)
    }

    /// The names that the jail of a container may have: that of `CNI_NETNS`, which podman sets, or that of the container.
    fn names(&self, attached: &Attached) -> Vec<JailName> {
        environment::jail(self.environment).ok().into_iter().chain(attached.container.parse().ok()).collect()
    }

    fn work(&self, overrides: Overrides) -> Result<Work<'_>, Failure> {
        Ok(Work { session: self.program.session(overrides)?, program: self.program })
    }
}

/// What an operation works with.
struct Work<'a> {
    session: Session,
    program: &'a dyn Program,
}

impl Work<'_> {
    /// The ports that podman's conmon holds for the container are not in use.
    fn without_conmon(mut self, container: &str, mappings: &BTreeSet<PortMapping>) -> Self {
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
        Ok(self.session.publisher(self.program.observer())?)
    }

    fn report(&self, outcome: &Outcome) {
        self.program.report(&self.session, outcome);
    }

    /// Reads the files, and reports those that cannot be read. One of another version is an error if it is that of one of
    /// these jails.
    fn found(&self, files: &Files, jails: &[JailName]) -> Result<Stored, Failure> {
        let found = files.all()?;
        let is_own = |anchor: &Anchor| jails.iter().any(|jail| anchor.is_of(jail));
        if let Some((_, error)) =
            found.unread.iter().find(|(anchor, error)| error.kind() == Kind::Unsupported && is_own(anchor))
        {
            return Err(error.clone().into());
        }
        let notes = found.unread.iter().map(|(_, error)| error.to_string()).collect();
        self.report(&Outcome { notes, ..Outcome::default() });
        Ok(found)
    }

    /// Publishes the ports of the attachments. `force` and `allow_inert` are for ports that were published and checked before.
    fn publish(&self, attachments: &Attachments, force: bool, allow_inert: bool) -> Result<(), Failure> {
        let (mappings, passed_over) = mapping::of_families(&attachments.mappings(), &attachments.addresses());
        let Some(spec) = mapping::spec(&mappings)? else {
            self.report(&self.publisher()?.unpublish(&attachments.jail, attachments.jid)?);
            return Ok(());
        };
        let mut request = Request::new(attachments.jail.clone(), spec);
        request.addresses = attachments.addresses();
        request.options = options_of(attachments);
        request.jid = attachments.jid;
        request.force = force;
        request.allow_inert = allow_inert;
        // the place of mappings without hostIP; kport doctor reports it
        request.default_everywhere = true;
        let mut outcome = self.publisher()?.publish(&request)?;
        outcome.notes.extend(passed_over.first().map(|first| {
            let more = match passed_over.len() {
                1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let (PortMapping { place, protocol, host, .. }, jail) = (first, attachments.jail.mention());
            format!(
                "{protocol} {host} of {place}{more} is passed over: {jail} has no address of that family, and the port is \
                 published at another address"
            )
        }));
        self.report(&outcome);
        Ok(())
    }

    /// Removes the attachments of a jail for which `gone` is true, from pf and then from the file. Those that stay were checked
    /// when they were added, so only pf itself can reject them.
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
        // those of another boot are no longer in pf
        if self.host().boot_id()? == before.boot {
            // one whose address belongs to the removed network
            let addresses = after.addresses();
            for attachment in &mut after.list {
                attachment.mappings.retain(|mapping| mapping::served(mapping, &addresses));
            }
            self.publish(&after, true, true)?;
        }
        Ok(files.put(&after)?)
    }
}

/// All attachments have the same options ([`add`] checks that).
fn options_of(attachments: &Attachments) -> Options {
    attachments.list.first().map(|first| first.options.clone()).unwrap_or_default()
}

/// The input of an operation on one attachment.
struct Asked {
    attached: Attached,
    /// See [`Call::names`].
    names: Vec<JailName>,
    publishing: Publishing,
    mappings: BTreeSet<PortMapping>,
    addresses: Vec<IpAddr>,
    result: Value,
}

impl Asked {
    /// For `ADD` and `CHECK`.
    fn read(call: &Call<'_>) -> Result<Asked, Failure> {
        let network = &call.network;
        let attached = call.attached()?;
        environment::jail(call.environment)?;
        let names = call.names(&attached);
        let publishing = network.publishing()?;
        let mappings = network.mappings(publishing.place)?.into_iter().collect();
        let result = network.previous().ok_or_else(|| {
            let why = "prevResult is missing: put kport after the plugin that creates the container's interface";
            Failure::new(Code::Config, why)
        })?;
        let addresses = previous::addresses(result, &attached.interface)?;
        let result = previous::as_version(result, network.version);
        Ok(Asked { attached, names, publishing, mappings, addresses, result })
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

fn add(call: &Call<'_>) -> Result<Value, Failure> {
    let network = &call.network;
    let asked = Asked::read(call)?;
    let work = call.work(network.overrides()?)?.without_conmon(&asked.attached.container, &asked.mappings);
    let files = Files::lock(&work.session)?;
    let found = work.found(&files, &asked.names)?;
    if asked.mappings.is_empty() {
        // an earlier attachment of this name that had ports was not removed
        for other in &found.list {
            work.withdraw(&files, other, |attachment| attachment.is(&network.name, &asked.attached))?;
        }
        return Ok(asked.result);
    }
    if asked.addresses.is_empty() {
        let why = format!(
            "prevResult has no address of interface {} in the container, so no port can be redirected to it",
            asked.attached.interface
        );
        return Err(Failure::new(Code::Config, why));
    }
    let (jail, jid) = running(work.host(), &asked.names)?;
    let boot = work.host().boot_id()?;
    // the container was started again as another jail, without having been removed
    for other in found.list.iter().filter(|other| other.jail != jail) {
        work.withdraw(&files, other, |attachment| attachment.is(&network.name, &asked.attached))?;
    }
    let before = found.list.into_iter().find(|attachments| attachments.jail == jail);
    // those of an earlier start of the jail are gone
    let current = before.clone().filter(|b| b.boot == boot && b.jid.is_none_or(|before| before == jid));
    let mut after = current.unwrap_or_else(|| Attachments::none(jail.clone(), Some(jid), boot.clone()));
    after.jid = Some(jid);
    let made = asked.attachment(network);
    match after.list.iter_mut().find(|attachment| attachment.is(&network.name, &asked.attached)) {
        Some(same) => *same = made,
        None => after.list.push(made),
    }
    if let Some(other) = after.list.iter().find(|attachment| attachment.options != asked.publishing.options) {
        let why = format!(
            "networks {} and {} of the same container have different options: a port is published once, \
             so give both networks the same",
            network.name, other.network
        );
        return Err(Failure::new(Code::Config, why));
    }
    files.put(&after)?;
    if let Err(failure) = work.publish(&after, asked.publishing.force, asked.publishing.allow_inert) {
        let restored = match &before {
            Some(before) => files.put(before),
            None => files.put(&Attachments::none(jail, Some(jid), boot)),
        };
        return Err(match restored {
            Ok(()) => failure,
            Err(again) => Failure::new(failure.code, format!("{}; and {again}", failure.details)),
        });
    }
    Ok(asked.result)
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
fn del(call: &Call<'_>) -> Result<(), Failure> {
    let network = &call.network;
    let attached = call.attached()?;
    let work = call.work(network.overrides().unwrap_or_default())?;
    let files = Files::lock(&work.session)?;
    let names = call.names(&attached);
    let found = work.found(&files, &names)?;
    for other in &found.list {
        work.withdraw(&files, other, |attachment| attachment.is(&network.name, &attached))?;
    }
    for jail in names {
        let anchor = jail.anchor();
        // it is no longer known which of its networks that was
        if found.unread.iter().any(|(unread, _)| *unread == anchor) {
            work.report(&work.publisher()?.unpublish(&jail, None)?);
            files.remove(&anchor)?;
        }
    }
    Ok(())
}

fn gc(call: &Call<'_>) -> Result<(), Failure> {
    let network = &call.network;
    network.version.at_least(Version::V1_1_0, "GC")?;
    let valid = network.valid_attachments()?;
    let work = call.work(network.overrides().unwrap_or_default())?;
    let files = Files::lock(&work.session)?;
    let mut failures: Vec<Failure> = vec![];
    for other in work.found(&files, &[])?.list {
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

fn check(call: &Call<'_>) -> Result<(), Failure> {
    let network = &call.network;
    network.version.at_least(Version::V0_4_0, "CHECK")?;
    let attached = call.attached()?;
    environment::jail(call.environment)?;
    if network.mappings(network.publishing()?.place)?.is_empty() {
        return Ok(());
    }
    let work = call.work(network.overrides()?)?;
    let files = Files::lock(&work.session)?;
    let all = work.found(&files, &call.names(&attached))?.list;
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
    let asked = Asked::read(call)?;
    let differs = |why: String| Err(Failure::new(Code::Differs, why));
    if !attachments.list.contains(&asked.attachment(network)) {
        return differs(format!(
            "network {} of container {} was added with other ports, addresses or options",
            network.name, asked.attached.container
        ));
    }
    let jail = &attachments.jail;
    let (_, jid) = running(work.host(), std::slice::from_ref(jail))?;
    if attachments.jid.is_some_and(|added| added != jid) {
        let why = format!("{} was started again since its network was added", jail.mention());
        return Err(Failure::new(Code::Unknown, why));
    }
    let listed = work.publisher()?.list(Some(jail))?;
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
    match problem(&work, &asked.publishing)? {
        Some(problem) => Err(Failure::new(Code::NotReady, problem)),
        None => Ok(()),
    }
}

/// The redirects of a jail's attachments.
fn redirects(attachments: &Attachments) -> Result<Vec<Redirect>, Failure> {
    let addresses = attachments.addresses();
    let (mappings, _) = mapping::of_families(&attachments.mappings(), &addresses);
    let Some(spec) = mapping::spec(&mappings)? else { return Ok(vec![]) };
    let targets = Targets::choose(&attachments.jail, &addresses)?;
    let unplaced = |_| Err(Error::new(Kind::Internal, "a mapping without a place"));
    Ok(publication::redirects(&attachments.jail, &spec, &targets, unplaced)?)
}

fn status(call: &Call<'_>) -> Result<(), Failure> {
    let network = &call.network;
    network.version.at_least(Version::V1_1_0, "STATUS")?;
    let publishing = network.publishing()?;
    let work = call.work(network.overrides()?)?;
    let problem = match problem(&work, &publishing) {
        Ok(None) => return Ok(()),
        Ok(Some(problem)) => problem,
        // if pf cannot be read, it is not ready
        Err(failure) if matches!(failure.code, Code::NotReady | Code::Permission | Code::Io) => failure.details,
        Err(failure) => return Err(failure),
    };
    let files = Files::lock(&work.session)?;
    let all = work.found(&files, &[])?.list;
    let boot = work.host().boot_id()?;
    let mut living = all.iter().filter(|attachments| attachments.boot == boot).flat_map(|a| &a.list);
    let suffers = living.any(|attachment| attachment.network == network.name);
    Err(Failure::new(if suffers { Code::Dead } else { Code::Unavailable }, problem))
}

/// Why nothing could be published with these options at present, and what to do about it.
fn problem(work: &Work<'_>, publishing: &Publishing) -> Result<Option<String>, Failure> {
    let status = work.session.firewall.status()?;
    let needs_nat = publishing.options.translate_sources();
    let mut problem = readiness::disabled(&status)
        .or_else(|| readiness::uncalled(&status, needs_nat, readiness::pf_conf(work.host())));
    if problem.is_none() && publishing.options.host_access {
        problem = readiness::unfiltered(work.host(), "this network")?;
    }
    Ok(problem.map(|problem| problem.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::Stage;
    use super::*;

    /// `command` with this document, for interface eth0 of container c0ffee in jail blue.
    fn run(played: &Stage, command: &str, document: &Value) -> Result<Option<Value>, Value> {
        let variables = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_CONTAINERID" => Some("c0ffee".to_owned()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_NETNS" => Some("/var/run/netns/blue".to_owned()),
            _ => None,
        };
        answer(&Environment(&variables), &|_| Ok(document.to_string().into_bytes()), played)
    }

    #[test]
    fn from_add_to_del() {
        let played = Stage::new();
        let document = whole();
        for _ in 0..2 {
            assert_eq!(run(&played, "ADD", &document), Ok(Some(document["prevResult"].clone())));
            assert_eq!(played.published(), ["blue tcp port 8080 of 192.0.2.1 -> 10.88.0.5 port 80"]);
        }
        assert_eq!(run(&played, "CHECK", &document), Ok(None));
        let mut other = document.clone();
        other["log"] = json!(true);
        assert_eq!(run(&played, "CHECK", &other).unwrap_err()["code"], Code::Differs.number());
        for _ in 0..2 {
            assert_eq!(run(&played, "DEL", &document), Ok(None));
            assert_eq!(played.published(), [""; 0]);
        }
        assert_eq!(run(&played, "CHECK", &document).unwrap_err()["code"], Code::Unknown.number());
    }

    #[test]
    fn a_damaged_document_is_removed_and_reported() {
        let played = Stage::new();
        run(&played, "ADD", &whole()).unwrap();
        let file = played.file("cni/blue.json");
        std::fs::write(&file, "{").unwrap();
        // DEL removes all ports of the jail of the damaged document
        assert_eq!(run(&played, "DEL", &whole()), Ok(None));
        assert_eq!(played.published(), [""; 0]);
        let notes = played.notes.take();
        assert!(notes.iter().any(|note| note.starts_with(&file.display().to_string())), "{notes:?}");
        assert!(!file.exists());
    }

    /// The settings of a document are passed to the program.
    #[test]
    fn the_program_gets_the_overrides() {
        let played = Stage::new();
        run(&played, "ADD", &whole()).unwrap();
        let overrides = played.overrides.take();
        assert_eq!((overrides.state_dir, overrides.timeout), (Some("/x".into()), Some(Duration::from_secs(5))));
    }

    #[test]
    fn an_error_has_the_version_of_the_question_and_reaches_no_session() {
        let played = Stage::new();
        for (command, key, value, version, code) in [
            ("ADD", "sorces", json!([]), "1.1.0", Code::Unsupported),
            ("ADD", "cniVersion", json!("9.9.9"), "1.1.0", Code::Version),
            ("CHECK", "cniVersion", json!("0.3.1"), "0.3.1", Code::Version),
            ("GC", "cniVersion", json!("1.0.0"), "1.0.0", Code::Version),
            ("ADD", "prevResult", json!(null), "1.1.0", Code::Config),
            ("NONE", "log", json!(true), "1.1.0", Code::Environment),
        ] {
            let mut document = whole();
            document[key] = value;
            let error = run(&played, command, &document).unwrap_err();
            assert_eq!((&error["cniVersion"], &error["code"]), (&json!(version), &json!(code.number())), "{error}");
        }
        assert_eq!(played.overrides.take(), Overrides::default());
        let versions = run(&played, "VERSION", &json!({ "cniVersion": "0.4.0" })).unwrap().unwrap();
        assert_eq!(versions["cniVersion"], "0.4.0");
    }

    /// Reads every field of a configuration.
    fn read(bytes: &[u8]) -> Result<(), Failure> {
        let network = Network::read(bytes)?;
        let answers = [
            network.overrides().map(|_| ()),
            network.publishing().map(|_| ()),
            network.mappings("em0".parse().unwrap()).map(|_| ()),
            network.valid_attachments().map(|_| ()),
            network.previous().map_or(Ok(()), |result| {
                for version in Version::ALL {
                    let made = previous::as_version(result, version);
                    assert!(!made.is_object() || made["cniVersion"] == version.name());
                }
                previous::addresses(result, "eth0").map(|_| ())
            }),
        ];
        answers.into_iter().collect()
    }

    fn whole() -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "podman", "type": "portmap", "backend": "sim", "stateDir": "/x", "timeout": 5,
            "reach": ["bridge"], "sources": ["192.0.2.0/24"], "hairpin": true, "hostAccess": false, "snat": true,
            "limits": { "connections": 1, "connectionsPerSource": 2, "rate": "5/10" }, "log": false, "quick": true,
            "place": "em0", "force": false, "allowInert": false, "conditionsV4": [], "args": { "x": [1] },
            "runtimeConfig": { "portMappings": [
                { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1" }
            ] },
            "cni.dev/valid-attachments": [ { "containerID": "a", "ifname": "eth0" } ],
            "prevResult": {
                "cniVersion": "1.1.0",
                "interfaces": [ { "name": "eth0", "sandbox": "blue" } ],
                "ips": [ { "address": "10.88.0.5/16", "interface": 0, "version": "4" } ],
            },
        })
    }

    /// Every value of a document, with its path.
    fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
        found.push(path.to_owned());
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    pointers(value, &format!("{path}/{}", key.replace('/', "~1")), found);
                }
            }
            Value::Array(list) => {
                for (at, value) in list.iter().enumerate() {
                    pointers(value, &format!("{path}/{at}"), found);
                }
            }
            _ => {}
        }
    }

    fn names_the_reason(answer: Result<(), Failure>) -> Result<(), proptest::test_runner::TestCaseError> {
        if let Err(failure) = answer {
            let expected = [Code::Version, Code::Unsupported, Code::Decode, Code::Config];
            proptest::prop_assert!(expected.contains(&failure.code), "{failure:?}");
            proptest::prop_assert!(!failure.details.contains(char::is_control), "{failure:?}");
            proptest::prop_assert!(!failure.details.is_empty() && failure.details.len() < 2000, "{failure:?}");
        }
        Ok(())
    }

    fn any_json() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
            "[0-9a-f.:/%\\-*<>\\x00\\n]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inside| {
            prop_oneof![
                proptest::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-zA-Z.]{0,12}", inside, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn the_whole_document_is_good() {
        assert_eq!(read(whole().to_string().as_bytes()), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
            names_the_reason(read(&bytes))?;
        }

        #[test]
        fn no_cut_or_flip_panics(at in 0..2000usize, bit in 0..8u8, cut in proptest::arbitrary::any::<bool>()) {
            let mut bytes = whole().to_string().into_bytes();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            names_the_reason(read(&bytes))?;
        }

        #[test]
        fn no_value_in_any_place_panics(at in 0..1000usize, value in any_json()) {
            let mut document = whole();
            let mut found = vec![];
            pointers(&document, "", &mut found);
            *document.pointer_mut(&found[at % found.len()]).unwrap() = value;
            names_the_reason(read(document.to_string().as_bytes()))?;
        }

        #[test]
        fn no_unknown_field_passes(name in "[a-zA-Z]{1,12}", value in any_json()) {
            let mut document = whole();
            proptest::prop_assume!(document.get(&name).is_none());
            document[&name] = value;
            if let Err(failure) = read(document.to_string().as_bytes()) {
                names_the_reason(Err(failure))?;
            } else {
                // fields of the runtime, or of another plugin
                let known = ["cniVersions", "capabilities", "dns", "ipam", "ipMasq", "disableCheck", "disableGC", "plugins"];
                let portmaps = ["conditionsV6", "masqAll", "markMasqBit", "externalSetMarkChain"];
                proptest::prop_assert!(known.contains(&name.as_str()) || portmaps.contains(&name.as_str()), "{name}");
            }
        }
    }
}
