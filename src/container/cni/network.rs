//! The network configuration on standard input: its version, its name, and the plugin's own fields.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use kport::error::quoted;
use kport::net::{Interface, Place};
use kport::options::{Limits, Options, Source};
use kport::rule::Rate;
use kport::session::Backend;
use serde_json::{Map, Value};

use super::super::args::Global;
use super::code::{Code, Failure};
use super::environment::is_identifier;
use super::fields::{field, shown, text, word, words};
use super::mapping::{self, PortMapping};

/// The most that is read from standard input.
pub const MAX_INPUT: usize = 16 << 20;

/// A version of the specification, by its own words.
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

    /// Fails where the command came with a later version than this.
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

/// A configuration with a version that kport speaks. Nothing else of it is looked at yet.
#[derive(Clone, Debug)]
pub struct Network {
    pub version: Version,
    pub name: String,
    fields: Map<String, Value>,
}

/// What a plugin's configuration says of where kport keeps its record and how it drives pf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub backend: Option<Backend>,
    pub state_dir: Option<PathBuf>,
    pub timeout: Option<Duration>,
}

impl Overrides {
    /// The command line's options, with these in their place.
    pub fn over(self, global: &Global) -> Global {
        let mut global = global.clone();
        global.backend = self.backend.or(global.backend);
        global.state_dir = self.state_dir.or(global.state_dir);
        global.timeout = self.timeout.unwrap_or(global.timeout);
        global
    }
}

/// What a plugin's configuration says of how to publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Publishing {
    pub options: Options,
    /// For mappings without `hostIP`.
    pub place: Place,
    pub force: bool,
    pub allow_inert: bool,
}

/// Fields of the specification that are the runtime's business, or another plugin's.
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
    /// Reads a configuration; the version that it names is told also where it fails.
    pub fn read(bytes: &[u8]) -> Result<Network, Failure> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|e| Failure::new(Code::Decode, format!("the network configuration on standard input: {e}")))?;
        let Value::Object(fields) = value else {
            return Err(Failure::new(Code::Decode, "the network configuration on standard input is no JSON object"));
        };
        let spoken = || Version::ALL.map(Version::name).join(", ");
        let version = match text(&fields, "cniVersion")? {
            None => Err(format!("the configuration names no cniVersion; kport speaks {}", spoken())),
            Some(named) => Version::named(&named).ok_or_else(|| {
                format!("the configuration has cniVersion {}; kport speaks {}", quoted(&named), spoken())
            }),
        };
        let version = version.map_err(|why| Failure::new(Code::Version, why))?;
        let name = text(&fields, "name")?
            .ok_or_else(|| Failure::new(Code::Config, "the configuration has no name of the network"))?;
        if !is_identifier(&name) {
            let why = "a letter or digit, then letters, digits, _, . and -";
            return Err(Failure::new(Code::Config, format!("name {}: {why}", quoted(&name))));
        }
        Ok(Network { version, name, fields })
    }

    pub fn overrides(&self) -> Result<Overrides, Failure> {
        overrides(&self.fields)
    }

    pub fn publishing(&self) -> Result<Publishing, Failure> {
        let known = |key: &str| OTHERS.contains(&key) || key.starts_with("cni.dev/") || key == "plugins";
        let known = |key: &str| known(key) || matches!(key, "runtimeConfig" | "prevResult" | "loadOnlyInlinedPlugins");
        publishing(&self.fields, known)
    }

    /// `runtimeConfig.portMappings`; none is fine.
    pub fn mappings(&self, place: Place) -> Result<Vec<PortMapping>, Failure> {
        let Some(runtime) = field::<Map<String, Value>>(&self.fields, "runtimeConfig")? else { return Ok(vec![]) };
        let listed: Vec<Map<String, Value>> = field(&runtime, "portMappings")?.unwrap_or_default();
        listed.iter().map(|entry| mapping::read(entry, place)).collect()
    }

    /// `prevResult`, as it came.
    pub fn previous(&self) -> Option<&Value> {
        self.fields.get("prevResult").filter(|value| !value.is_null())
    }

    /// `cni.dev/valid-attachments`, each the container and the interface.
    pub fn valid_attachments(&self) -> Result<Vec<(String, String)>, Failure> {
        const KEY: &str = "cni.dev/valid-attachments";
        // a runtime that has none may write null; without the field, nothing tells which are meant
        if !self.fields.contains_key(KEY) {
            let why = format!("GC needs {KEY}, the attachments that are still there");
            return Err(Failure::new(Code::Config, why));
        }
        let listed: Vec<Map<String, Value>> = field(&self.fields, KEY)?.unwrap_or_default();
        let part = |entry: &Map<String, Value>, key: &str| {
            text(entry, key)?.ok_or_else(|| Failure::new(Code::Config, format!("{KEY}: an entry has no {key}")))
        };
        listed.iter().map(|entry| Ok((part(entry, "containerID")?, part(entry, "ifname")?))).collect()
    }
}

/// Where the record is and how pf is driven.
pub fn overrides(fields: &Map<String, Value>) -> Result<Overrides, Failure> {
    let backend = text(fields, "backend")?.map(|name| name.parse()).transpose();
    // portmap has a field of this name, with other words
    let backend = backend.map_err(|_| {
        let why = format!("backend is {}; there are {}", shown(&fields["backend"]), Backend::NAMES.join(", "));
        Failure::new(Code::Unsupported, why)
    })?;
    let seconds = |seconds: f64| {
        Duration::try_from_secs_f64(seconds).map_err(|e| Failure::new(Code::Config, format!("timeout {seconds}: {e}")))
    };
    Ok(Overrides {
        backend,
        state_dir: text(fields, "stateDir")?.map(PathBuf::from),
        timeout: field(fields, "timeout")?.map(seconds).transpose()?,
    })
}

/// The options. A field that is none of these, and that `others` does not know, is refused: an option that is misspelt must
/// not open a port to everybody.
pub fn publishing(fields: &Map<String, Value>, others: impl Fn(&str) -> bool) -> Result<Publishing, Failure> {
    const OWN: [&str; 13] = [
        "reach",
        "hairpin",
        "hostAccess",
        "sources",
        "limits",
        "log",
        "quick",
        "place",
        "force",
        "allowInert",
        "backend",
        "stateDir",
        "timeout",
    ];
    let unsupported = |key: &str, why: &str| {
        Failure::new(Code::Unsupported, format!("{key} is {}: {why}", shown(fields.get(key).unwrap_or(&Value::Null))))
    };
    for (key, value) in fields {
        let empty = value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty);
        match key.as_str() {
            "snat" => {}
            "conditionsV4" | "conditionsV6" if !empty => {
                return Err(unsupported(key, "conditions of iptables; kport has sources instead"));
            }
            "masqAll" if !empty => {
                return Err(unsupported(
                    key,
                    "the jail sees who connects; hairpin and hostAccess translate where needed",
                ));
            }
            "markMasqBit" | "externalSetMarkChain" if !empty => {
                return Err(unsupported(key, "of iptables, which is not here; leave it out"));
            }
            "conditionsV4" | "conditionsV6" | "masqAll" | "markMasqBit" | "externalSetMarkChain" => {}
            key if OWN.contains(&key) || others(key) => {}
            key => return Err(unsupported(key, &format!("unknown to kport, whose options are {}", OWN.join(", ")))),
        }
    }
    let flag = |key: &str| field::<bool>(fields, key);
    // portmap's word for letting the host and the container's own network in by the host's address
    let snat = flag("snat")?.unwrap_or(false);
    let default = Options::default();
    Ok(Publishing {
        options: Options {
            reach: words::<Interface>(fields, "reach")?.unwrap_or(default.reach),
            hairpin: flag("hairpin")?.unwrap_or(snat),
            host_access: flag("hostAccess")?.unwrap_or(snat),
            sources: words::<Source>(fields, "sources")?.unwrap_or_default(),
            limits: limits(fields)?,
            log: flag("log")?.unwrap_or(false),
            quick: flag("quick")?.unwrap_or(true),
        },
        place: word::<Place>(fields, "place")?.unwrap_or(Place::Any),
        force: flag("force")?.unwrap_or(false),
        allow_inert: flag("allowInert")?.unwrap_or(false),
    })
}

fn limits(fields: &Map<String, Value>) -> Result<Limits, Failure> {
    let fields = field::<Map<String, Value>>(fields, "limits")?.unwrap_or_default();
    for key in fields.keys() {
        if !matches!(key.as_str(), "connections" | "connectionsPerSource" | "rate") {
            let why = format!("limits.{key} is {}: there are connections, connectionsPerSource, rate", fields[key]);
            return Err(Failure::new(Code::Unsupported, why));
        }
    }
    let number = |key: &str| -> Result<Option<NonZeroU32>, Failure> {
        let Some(number) = field::<i64>(&fields, key)? else { return Ok(None) };
        let fits = u32::try_from(number).ok().and_then(NonZeroU32::new);
        let fits = fits.ok_or_else(|| Failure::new(Code::Config, format!("limits.{key} {number}: 1 to {}", u32::MAX)));
        fits.map(Some)
    };
    Ok(Limits {
        connections: number("connections")?,
        connections_per_source: number("connectionsPerSource")?,
        rate: word::<Rate>(&fields, "rate")?,
    })
}
