//! The network configuration on standard input: its version, its name, and the plugin's own fields.

use std::fmt;

use serde_json::{Map, Value};

use super::super::code::{Code, Failure};
use super::super::fields::{field, text};
use super::super::settings::{Overrides, Publishing};
use super::environment::is_identifier;
use super::mapping::{self, PortMapping};
use crate::error::quoted;
use crate::net::Place;

/// The maximum length of a configuration, in bytes.
pub const MAX_INPUT: usize = 16 << 20;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    pub const ALL: [Version; 4] = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
    pub const NEWEST: Version = Version::V1_1_0;

    pub const fn name(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    pub fn named(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.name() == text)
    }

    /// Fails if the command came with a later version than this.
    pub fn at_least(self, first: Version, command: &str) -> Result<(), Failure> {
        if self >= first {
            return Ok(());
        }
        Err(Failure::new(Code::Version, format!("cniVersion {self} has no {command}, which came with {first}")))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A configuration with a supported version and a name. Its other fields are checked when they are used.
#[derive(Clone, Debug)]
pub struct Network {
    pub version: Version,
    pub name: String,
    fields: Map<String, Value>,
}

/// Fields of the specification for the runtime, or for other plugins.
const OTHERS: [&str; 11] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "capabilities",
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
        let spoken = || Version::ALL.map(Version::name).join(", ");
        let version = match text(&fields, "cniVersion")? {
            None => Err(format!("the configuration has no cniVersion; kport supports {}", spoken())),
            Some(named) => Version::named(&named).ok_or_else(|| {
                format!("the configuration has cniVersion {}; kport supports {}", quoted(&named), spoken())
            }),
        };
        let version = version.map_err(|why| Failure::new(Code::Version, why))?;
        let name = text(&fields, "name")?
            .ok_or_else(|| Failure::new(Code::Config, "the configuration has no name for the network"))?;
        if !is_identifier(&name) {
            let why = "a letter or digit, then letters, digits, _, . and -";
            return Err(Failure::new(Code::Config, format!("name {}: {why}", quoted(&name))));
        }
        Ok(Network { version, name, fields })
    }

    pub fn overrides(&self) -> Result<Overrides, Failure> {
        Overrides::read(&self.fields)
    }

    pub fn publishing(&self) -> Result<Publishing, Failure> {
        let known = |key: &str| OTHERS.contains(&key) || key.starts_with("cni.dev/") || key == "plugins";
        let known = |key: &str| known(key) || matches!(key, "runtimeConfig" | "prevResult" | "loadOnlyInlinedPlugins");
        Publishing::read(&self.fields, known)
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
