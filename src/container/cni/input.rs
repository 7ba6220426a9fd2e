//! What the runtime passes: the `CNI_` variables of the environment, the network configuration on standard input, and in that the
//! options, the mappings, and the result of the plugin before kport, which is also kport's result.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::Overrides;
use super::code::{Code, Failure, field, shown, text};
use crate::error::{Error, quoted};
use crate::managers::Environment;
use crate::name::JailName;
use crate::net::{Family, Misread, Place, Protocol};
use crate::options::{Given, Options, Takes};
use crate::session::Backend;
use crate::spec::{self, Spec};

/// The commands of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Publish the ports of an attachment.
    Add,
    /// Remove the ports of an attachment.
    Del,
    /// Check that an attachment is published as it was added.
    Check,
    /// Remove the attachments that are no longer valid.
    Gc,
    /// Check that ports could be published now.
    Status,
    /// Report the supported versions of the specification.
    Version,
}

impl Operation {
    const ALL: [(&str, Operation); 6] = [
        ("ADD", Operation::Add),
        ("DEL", Operation::Del),
        ("CHECK", Operation::Check),
        ("GC", Operation::Gc),
        ("STATUS", Operation::Status),
        ("VERSION", Operation::Version),
    ];

    /// `CNI_COMMAND`.
    pub(super) fn asked(environment: &Environment<'_>) -> Result<Operation, Failure> {
        let given = environment.get("CNI_COMMAND").unwrap_or_default();
        let asked = Operation::ALL.into_iter().find(|(name, _)| *name == given);
        asked.map(|(_, operation)| operation).ok_or_else(|| {
            let known = Operation::ALL.map(|(name, _)| name).join(", ");
            refuse(format!("CNI_COMMAND is {}; there are {known}, and a container runtime sets it", quoted(&given)))
        })
    }
}

/// One network of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: String,
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_IFNAME`
    pub interface: String,
    /// The addresses of the container on this network.
    pub addresses: Vec<IpAddr>,
    pub mappings: BTreeSet<PortMapping>,
    pub options: Options,
}

impl Attachment {
    /// The one that the variables name, without ports, and the names that the container's jail may have: that of `CNI_NETNS`, which
    /// podman sets, or that of the container.
    pub fn named(environment: &Environment<'_>, network: &Network) -> Result<(Attachment, Vec<JailName>), Failure> {
        let container = required(environment, "CNI_CONTAINERID")?;
        if !is_identifier(&container) {
            return Err(refuse(format!("CNI_CONTAINERID is {}: {IDENTIFIER}", quoted(&container))));
        }
        let interface = required(environment, "CNI_IFNAME")?;
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        // IFNAMSIZ less its NUL
        if interface.len() > 15 || interface.contains(odd) || matches!(interface.as_str(), "." | "..") {
            return Err(refuse(format!("CNI_IFNAME is {}, which is not the name of an interface", quoted(&interface))));
        }
        let names = jail(environment).ok().into_iter().chain(container.parse().ok()).collect();
        Ok((Attachment { network: network.name.clone(), container, interface, ..Attachment::default() }, names))
    }

    /// Whether both have the same names.
    pub fn is(&self, other: &Attachment) -> bool {
        self.network == other.network && self.container == other.container && self.interface == other.interface
    }
}

/// The jail that `CNI_NETNS` names: the last part of a path, since a runtime for Linux gives a path.
pub fn jail(environment: &Environment<'_>) -> Result<JailName, Failure> {
    let path = required(environment, "CNI_NETNS")?;
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    name.parse().map_err(|e: Error| refuse(format!("CNI_NETNS is {}: {e}", quoted(&path))))
}

fn required(environment: &Environment<'_>, name: &str) -> Result<String, Failure> {
    environment.get(name).ok_or_else(|| refuse(format!("{name} is not set")))
}

fn refuse(details: String) -> Failure {
    Failure::new(Code::Environment, details)
}

/// The form of the name of a container or a network.
const IDENTIFIER: &str = "a letter or digit, then letters, digits, _, . and -";

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

// ---- the network configuration

/// The maximum length of a configuration, in bytes.
pub const MAX_INPUT: usize = 16 << 20;

/// The versions of the specification; they are in order as text, too.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", NEWEST];
pub const NEWEST: &str = "1.1.0";

/// The version with this name, if it is supported.
pub fn version(name: &str) -> Option<&'static str> {
    VERSIONS.into_iter().find(|version| *version == name)
}

/// A configuration with a supported version and a name. Its other fields are checked when they are used.
#[derive(Clone, Debug)]
pub struct Network {
    pub version: &'static str,
    pub name: String,
    fields: Map<String, Value>,
}

/// Fields of the specification for the runtime, or for other plugins; and that of portmap which kport reads.
const OTHERS: [&str; 16] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "plugins",
    "loadOnlyInlinedPlugins",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "args",
    "dns",
    "ipam",
    "ipMasq",
    "disableCheck",
    "disableGC",
    "snat",
];

impl Network {
    /// Reads a configuration.
    pub fn read(bytes: &[u8]) -> Result<Network, Failure> {
        if bytes.len() > MAX_INPUT {
            let why = format!("the network configuration on standard input has more than {MAX_INPUT} bytes");
            return Err(Failure::new(Code::Decode, why));
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|e| Failure::new(Code::Decode, format!("the network configuration on standard input: {e}")))?;
        let Value::Object(fields) = value else {
            return Err(Failure::new(Code::Decode, "the network configuration on standard input is not a JSON object"));
        };
        let refuse = |has: String| {
            let supported = VERSIONS.join(", ");
            Failure::new(Code::Version, format!("the configuration has {has}; kport supports {supported}"))
        };
        let named = text(&fields, "cniVersion")?.ok_or_else(|| refuse("no cniVersion".to_owned()))?;
        let version = version(&named).ok_or_else(|| refuse(format!("cniVersion {}", quoted(&named))))?;
        let name = text(&fields, "name")?
            .ok_or_else(|| Failure::new(Code::Config, "the configuration has no name for the network"))?;
        if !is_identifier(&name) {
            return Err(Failure::new(Code::Config, format!("name {}: {IDENTIFIER}", quoted(&name))));
        }
        Ok(Network { version, name, fields })
    }

    /// Fails if the command came with a later version of the specification.
    pub fn at_least(&self, first: &str, command: &str) -> Result<(), Failure> {
        let version = self.version;
        if version >= first {
            return Ok(());
        }
        Err(Failure::new(Code::Version, format!("cniVersion {version} has no {command}, which came with {first}")))
    }

    /// The fields `backend`, `stateDir` and `timeout`, a number of seconds.
    pub fn overrides(&self) -> Result<Overrides, Failure> {
        let fields = &self.fields;
        let backend = text(fields, "backend")?.map(|name| name.parse()).transpose();
        // portmap has a field of this name, with other values
        let backend = backend.map_err(|_| {
            let why = format!("backend is {}; there are {}", shown(&fields["backend"]), Backend::NAMES.join(", "));
            Failure::new(Code::Unsupported, why)
        })?;
        let seconds = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|e| Failure::new(Code::Config, format!("timeout {seconds}: {e}")))
        };
        Ok(Overrides {
            backend,
            state_dir: text(fields, "stateDir")?.map(Into::into),
            timeout: field(fields, "timeout")?.map(seconds).transpose()?,
        })
    }

    /// The options. An unknown field is an error: a misspelt option must not open a port to everybody.
    pub fn options(&self) -> Result<Options, Failure> {
        let mut fields = self.fields.clone();
        for (key, value) in field::<Map<String, Value>>(&fields, LIMITS)?.unwrap_or_default() {
            fields.insert(format!("{LIMITS}.{key}"), value);
        }
        fields.remove(LIMITS);
        check_names(&fields)?;
        // of portmap: lets the host and the container's own network use the host's address
        let snat = self.flag("snat")?;
        let mut options = Options { hairpin: snat, host_access: snat, ..Options::default() };
        for (name, takes) in Options::names() {
            let key = &key(name);
            let given = match takes {
                Takes::Flag => field(&fields, key)?.map(Given::Flag),
                Takes::Number => field::<i64>(&fields, key)?.map(|number| Given::Text(number.to_string())),
                Takes::Word => text(&fields, key)?.map(Given::Text),
                Takes::Words => field(&fields, key)?.map(Given::List),
            };
            if let Some(given) = given {
                options.set(name, &given).map_err(|e| Failure::new(Code::Config, format!("{key}: {e}")))?;
            }
        }
        Ok(options)
    }

    /// A field that is false if it is missing: `force`, `allowInert`.
    pub fn flag(&self, key: &str) -> Result<bool, Failure> {
        Ok(field(&self.fields, key)?.unwrap_or(false))
    }

    /// `place`, for mappings without `hostIP`. A word of other tools is no more an interface here than in a spec.
    fn place(&self) -> Result<Place, Failure> {
        let Some(word) = text(&self.fields, "place")? else { return Ok(Place::Any) };
        if let Some(misread) = Misread::of(&word) {
            let why = format!("place is {}: {}", shown(&self.fields["place"]), misread.instead());
            return Err(Failure::new(Code::Config, why));
        }
        word.parse().map_err(|e: Error| Failure::new(Code::Config, format!("place: {e}")))
    }

    /// `runtimeConfig.portMappings`; may be missing.
    pub fn mappings(&self) -> Result<BTreeSet<PortMapping>, Failure> {
        let place = self.place()?;
        let runtime: Map<String, Value> = field(&self.fields, "runtimeConfig")?.unwrap_or_default();
        let listed: Vec<Map<String, Value>> = field(&runtime, "portMappings")?.unwrap_or_default();
        listed.iter().map(|entry| mapping(entry, place)).collect()
    }

    /// `prevResult`, unchanged.
    pub fn previous(&self) -> Result<&Value, Failure> {
        let why = "prevResult is missing: put kport after the plugin that creates the container's interface";
        let given = self.fields.get("prevResult").filter(|value| !value.is_null());
        given.ok_or_else(|| Failure::new(Code::Config, why))
    }

    /// `cni.dev/valid-attachments`, each the container and the interface.
    pub fn valid_attachments(&self) -> Result<Vec<(String, String)>, Failure> {
        const KEY: &str = "cni.dev/valid-attachments";
        // a runtime without attachments may write null; without the field they are unknown
        if !self.fields.contains_key(KEY) {
            let why = format!("GC needs {KEY}, the attachments that still exist");
            return Err(Failure::new(Code::Config, why));
        }
        let listed: Vec<Map<String, Value>> = field(&self.fields, KEY)?.unwrap_or_default();
        let part = |entry: &Map<String, Value>, key: &str| {
            text(entry, key)?.ok_or_else(|| Failure::new(Code::Config, format!("{KEY}: an entry has no {key}")))
        };
        listed.iter().map(|entry| Ok((part(entry, "containerID")?, part(entry, "ifname")?))).collect()
    }
}

// ---- `prevResult`

/// The addresses of the container on this network, in the order of the result: those of the interface `ifname` in a container,
/// and those without an interface. Addresses of the host are omitted.
pub fn addresses(result: &Value, ifname: &str) -> Result<Vec<IpAddr>, Failure> {
    let Value::Object(result) = result else {
        return Err(Failure::new(Code::Decode, "prevResult is not a JSON object"));
    };
    let interfaces: Vec<Map<String, Value>> = list(result, "interfaces")?;
    let mut found = vec![];
    for ip in list(result, "ips")? {
        let Some(address) = text(&ip, "address")? else {
            return Err(Failure::new(Code::Decode, "prevResult.ips: an entry has no address"));
        };
        let network: IpNet = address
            .parse()
            .map_err(|e| Failure::new(Code::Decode, format!("prevResult.ips: address {address:?}: {e}")))?;
        // a result of an early version may count from -1
        let index = field::<i64>(&ip, "interface")?.and_then(|index| usize::try_from(index).ok());
        if let Some(interface) = index.and_then(|index| interfaces.get(index)) {
            let name = text(interface, "name")?;
            if name.as_deref() != Some(ifname) || text(interface, "sandbox")?.is_none() {
                continue;
            }
        }
        if !found.contains(&network.addr()) {
            found.push(network.addr());
        }
    }
    Ok(found)
}

fn list(result: &Map<String, Value>, key: &str) -> Result<Vec<Map<String, Value>>, Failure> {
    field(result, key)
        .map(Option::unwrap_or_default)
        .map_err(|e| Failure::new(e.code, format!("prevResult.{}", e.details)))
}

// ---- the options

/// The object with the limits. Its keys are flattened: `limits.rate`.
const LIMITS: &str = "limits";

/// The options whose keys do not follow from their names.
const KEYS: [(&str, &str); 3] = [
    ("max-connections", "limits.connections"),
    ("max-connections-per-source", "limits.connectionsPerSource"),
    ("rate", "limits.rate"),
];

/// The other keys of kport.
const OWN: [&str; 6] = ["place", "force", "allowInert", "backend", "stateDir", "timeout"];

/// The fields of portmap that are for iptables.
const IPTABLES: [&str; 5] = ["conditionsV4", "conditionsV6", "masqAll", "markMasqBit", "externalSetMarkChain"];

/// The key of an option: `hostAccess`.
fn key(name: &str) -> String {
    if let Some((_, key)) = KEYS.iter().find(|(option, _)| *option == name) {
        return (*key).to_owned();
    }
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |key, word| key + &word[..1].to_uppercase() + &word[1..])
}

fn check_names(fields: &Map<String, Value>) -> Result<(), Failure> {
    let own: Vec<String> = Options::names().map(|(name, _)| key(name)).chain(OWN.map(str::to_owned)).collect();
    for (key, value) in fields {
        let empty = value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty);
        let why = match key.as_str() {
            key if IPTABLES.contains(&key) && empty => continue,
            key if IPTABLES.contains(&key) => {
                "for iptables, and refused unless it is empty; kport has sources and hairpin"
            }
            key if own.iter().any(|known| known == key) || OTHERS.contains(&key) || key.starts_with("cni.dev/") => {
                continue;
            }
            _ => &format!("unknown to kport, whose options are {}", own.join(", ")),
        };
        return Err(Failure::new(Code::Unsupported, format!("{key} is {}: {why}", shown(value))));
    }
    Ok(())
}

// ---- `portMappings`

/// One port of the host, and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    pub place: Place,
    pub protocol: Protocol,
    pub host: u16,
    pub jail: u16,
}

/// An entry of the runtime's list. `place` is for one without `hostIP`.
fn mapping(entry: &Map<String, Value>, place: Place) -> Result<PortMapping, Failure> {
    let port = |key: &str| -> Result<u16, Failure> {
        let number = field::<i64>(entry, key)?.unwrap_or_default();
        u16::try_from(number)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| Failure::new(Code::Config, format!("portMappings: {key} is {number}; ports are 1 to 65535")))
    };
    let protocol = text(entry, "protocol")?.unwrap_or_else(|| "tcp".to_owned());
    let known = Protocol::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(&protocol));
    let protocol = known.ok_or_else(|| {
        let names = Protocol::ALL.map(Protocol::name).join(", ");
        Failure::new(Code::Config, format!("portMappings: protocol is {}; there are {names}", quoted(&protocol)))
    })?;
    let place = match text(entry, "hostIP")? {
        Some(address) => host_ip(&address)?,
        None => place,
    };
    Ok(PortMapping { place, protocol, host: port("hostPort")?, jail: port("containerPort")? })
}

fn host_ip(text: &str) -> Result<Place, Failure> {
    let refuse = |why: &str| Failure::new(Code::Config, format!("portMappings: hostIP is {}: {why}", quoted(text)));
    if text.split_once('%').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok()) {
        let why = "an address with a zone cannot be published; name the interface in the plugin's field place";
        return Err(refuse(why));
    }
    let address = text.parse().map_err(|_| refuse("not an IPv4 or IPv6 address"))?;
    Place::address(address).map_err(refuse)
}

/// The specs of a set of mappings: consecutive ports are one range. `None` for no mappings.
pub fn spec(mappings: &BTreeSet<PortMapping>) -> Result<Option<Spec>, Failure> {
    let mut text = String::new();
    let mut rest = mappings.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        let follows = |last: PortMapping, next: &PortMapping| {
            let after = (last.place, last.protocol, last.host.checked_add(1), last.jail.checked_add(1));
            (next.place, next.protocol, Some(next.host), Some(next.jail)) == after
        };
        // the set is sorted: what can be joined is adjacent
        while let Some(next) = rest.next_if(|next| follows(last, next)) {
            last = next;
        }
        let range = |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
        let (host, jail) = (range(first.host, last.host), range(first.jail, last.jail));
        _ = write!(text, "{}:{host}:{jail}/{} ", first.place, first.protocol);
    }
    if text.is_empty() { Ok(None) } else { Ok(Some(spec::parse(&text)?)) }
}

/// The mappings of a container with these addresses, and those that are passed over, as `portmap` of the CNI project does: they are of a
/// family that the container does not have, and another mapping serves the same port.
pub fn of_families(
    mappings: &BTreeSet<PortMapping>, addresses: &[IpAddr],
) -> (BTreeSet<PortMapping>, Vec<PortMapping>) {
    let port = |mapping: &PortMapping| (mapping.protocol, mapping.host, mapping.jail);
    let ports: BTreeSet<_> = mappings.iter().filter(|mapping| served(mapping, addresses)).map(port).collect();
    let (kept, passed): (Vec<_>, Vec<_>) =
        mappings.iter().partition(|mapping| served(mapping, addresses) || !ports.contains(&port(mapping)));
    (kept.into_iter().collect(), passed)
}

/// Whether a mapping can be served by these addresses of the container.
pub fn served(mapping: &PortMapping, addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|address| mapping.place.has_family(Family::of(*address)))
}
