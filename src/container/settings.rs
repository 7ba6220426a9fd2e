//! How to publish, and where: the fields that the CNI plugin's configuration and a container's annotation have in common.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::code::{Code, Failure};
use super::fields::{field, shown, text, word, words};
use crate::net::{Interface, Place};
use crate::options::{Limits, Options, Source};
use crate::rule::Rate;
use crate::session::Backend;

/// What a document says of where kport keeps its record and how it drives pf.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// How pf is driven.
    pub backend: Option<Backend>,
    /// Where the record is.
    pub state_dir: Option<PathBuf>,
    /// How long the call may take.
    pub timeout: Option<Duration>,
}

impl Overrides {
    /// Reads the fields `backend`, `stateDir` and `timeout`, a number of seconds.
    pub(super) fn read(fields: &Map<String, Value>) -> Result<Overrides, Failure> {
        let backend = text(fields, "backend")?.map(|name| name.parse()).transpose();
        // portmap has a field of this name, with other words
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
            state_dir: text(fields, "stateDir")?.map(PathBuf::from),
            timeout: field(fields, "timeout")?.map(seconds).transpose()?,
        })
    }
}

/// What a document says of how to publish.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Publishing {
    pub(super) options: Options,
    /// For mappings without `hostIP`.
    pub(super) place: Place,
    pub(super) force: bool,
    pub(super) allow_inert: bool,
}

impl Publishing {
    /// Reads the options. A field that is not one of these, and that `others` does not know, is refused: a misspelt option must
    /// not open a port to everybody.
    pub(super) fn read(fields: &Map<String, Value>, others: impl Fn(&str) -> bool) -> Result<Publishing, Failure> {
        check_names(fields, others)?;
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
}

fn check_names(fields: &Map<String, Value>, others: impl Fn(&str) -> bool) -> Result<(), Failure> {
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
    for (key, value) in fields {
        let refuse = |why: &str| Err(Failure::new(Code::Unsupported, format!("{key} is {}: {why}", shown(value))));
        let empty = value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty);
        match key.as_str() {
            "snat" => {}
            "conditionsV4" | "conditionsV6" if !empty => {
                return refuse("conditions of iptables; kport has sources instead");
            }
            "masqAll" if !empty => {
                return refuse("the jail sees who connects; hairpin and hostAccess translate where needed");
            }
            "markMasqBit" | "externalSetMarkChain" if !empty => {
                return refuse("of iptables, which is not here; leave it out");
            }
            "conditionsV4" | "conditionsV6" | "masqAll" | "markMasqBit" | "externalSetMarkChain" => {}
            key if OWN.contains(&key) || others(key) => {}
            _ => return refuse(&format!("unknown to kport, whose options are {}", OWN.join(", "))),
        }
    }
    Ok(())
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
