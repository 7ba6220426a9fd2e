//! What the runtime passes: the `CNI_` variables of the environment, the network configuration on standard input, and in that the
//! result of the plugin before kport, which is also kport's result.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::super::Overrides;
use super::code::{Code, Failure, field, text};
use super::mapping::{self, PortMapping};
use super::settings::Publishing;
use crate::error::{Error, quoted};
use crate::managers::Environment;
use crate::name::JailName;
use crate::net::Place;

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
        let known = || Operation::ALL.map(|(name, _)| name).join(", ");
        match environment.get("CNI_COMMAND") {
            None => Err(refuse(format!(
                "CNI_COMMAND is not set: a container runtime sets it to one of {}, and gives the network configuration \
                 on standard input",
                known()
            ))),
            Some(text) => match Operation::ALL.into_iter().find(|(name, _)| *name == text) {
                Some((_, operation)) => Ok(operation),
                None => Err(refuse(format!("CNI_COMMAND is {}; there are {}", quoted(&text), known()))),
            },
        }
    }
}

/// A container and its interface on a network.
#[derive(Clone, Debug)]
pub struct Attached {
    pub network: String,
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_IFNAME`
    pub interface: String,
    /// The names that the container's jail may have: that of `CNI_NETNS`, which podman sets, or that of the container.
    pub names: Vec<JailName>,
}

impl Attached {
    pub fn of(environment: &Environment<'_>, network: &Network) -> Result<Attached, Failure> {
        let container = required(environment, "CNI_CONTAINERID")?;
        if !is_identifier(&container) {
            return Err(refuse(format!(
                "CNI_CONTAINERID is {}: a letter or digit, then letters, digits, _, . and -",
                quoted(&container)
            )));
        }
        let interface = required(environment, "CNI_IFNAME")?;
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        // IFNAMSIZ less its NUL
        if interface.len() > 15 || interface.contains(odd) || matches!(interface.as_str(), "." | "..") {
            return Err(refuse(format!("CNI_IFNAME is {}, which is not the name of an interface", quoted(&interface))));
        }
        let names = jail(environment).ok().into_iter().chain(container.parse().ok()).collect();
        Ok(Attached { network: network.name.clone(), container, interface, names })
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

/// A letter or digit, then letters, digits, `_`, `.` and `-`: a container or a network.
pub fn is_identifier(text: &str) -> bool {
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

/// Fields of the specification for the runtime, or for other plugins.
const OTHERS: [&str; 15] = [
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
            let why = "a letter or digit, then letters, digits, _, . and -";
            return Err(Failure::new(Code::Config, format!("name {}: {why}", quoted(&name))));
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

    pub fn overrides(&self) -> Result<Overrides, Failure> {
        Overrides::read(&self.fields)
    }

    pub fn publishing(&self) -> Result<Publishing, Failure> {
        Publishing::read(&self.fields, |key| OTHERS.contains(&key) || key.starts_with("cni.dev/"))
    }

    /// `runtimeConfig.portMappings`; may be missing.
    pub fn mappings(&self, place: Place) -> Result<Vec<PortMapping>, Failure> {
        let Some(runtime) = field::<Map<String, Value>>(&self.fields, "runtimeConfig")? else { return Ok(vec![]) };
        let listed: Vec<Map<String, Value>> = field(&runtime, "portMappings")?.unwrap_or_default();
        listed.iter().map(|entry| mapping::read(entry, place)).collect()
    }

    /// `prevResult`, unchanged.
    pub fn previous(&self) -> Option<&Value> {
        self.fields.get("prevResult").filter(|value| !value.is_null())
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

/// The result in the form of `version`: unchanged, unless it has another version. Before 1.0.0 an address has a field for its
/// family.
pub fn as_version(result: &Value, version: &str) -> Value {
    let mut result = result.clone();
    let Value::Object(fields) = &mut result else { return result };
    let came = fields.get("cniVersion").and_then(Value::as_str).map(str::to_owned);
    if came.as_deref() == Some(version) {
        return result;
    }
    fields.insert("cniVersion".to_owned(), json!(version));
    if came.is_none_or(|came| came.is_empty()) {
        return result;
    }
    for ip in fields.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten() {
        let Value::Object(ip) = ip else { continue };
        let inet6 = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
        if version < "1.0.0" {
            ip.insert("version".to_owned(), json!(if inet6 { "6" } else { "4" }));
        } else {
            ip.remove("version");
        }
    }
    result
}
