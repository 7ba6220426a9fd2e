//! Published ports as Kleene records them: `PublishedPort` and `PublishedPortConfig` of Kleened's API, as JSON, one record or a
//! list of them.
//!
//! ```
//! # use kport::container::kleene;
//! let records = r#"[ { "interfaces": [], "host_port": "8080", "container_port": "80", "protocol": "tcp",
//!                      "ip_address": "10.0.0.2", "ip_address6": "" } ]"#;
//! let ports = kleene::parse(records)?;
//! assert_eq!(ports.spec.to_string(), "8080:80/tcp");
//! assert_eq!(ports.addresses, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
//! # Ok::<(), kport::error::Error>(())
//! ```
//!
//! Kleened accepts more than it can publish: port 0, a range from high to low, a range to one port. Here these are errors that
//! name the record, like an unknown field and records with different addresses: the redirects of a container have one target
//! address of each family.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Kind, Result, error, quoted};
use crate::net::{Interface, PortRange, Protocol};
use crate::spec::{self, Spec};

/// The maximum length of the records, in bytes.
pub const MAX_TEXT: usize = spec::MAX_TEXT;

/// The ports of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The mappings.
    pub spec: Spec,
    /// The container's addresses, IPv4 first; empty if the records have none: then they are read from the kernel.
    pub addresses: Vec<IpAddr>,
}

/// One record in the JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    interfaces: Vec<String>,
    host_port: String,
    container_port: String,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    ip_address: Option<String>,
    #[serde(default)]
    ip_address6: Option<String>,
}

/// Parses records.
///
/// # Errors
///
/// [`Kind::Argument`] for what is not JSON, or not a record; [`Kind::Spec`] for ports, protocols and interfaces that cannot be
/// published. Each has the number of the record, from 1.
pub fn parse(json: &str) -> Result<Ports> {
    if json.len() > MAX_TEXT {
        return Err(error!(Argument, "Kleene's records have {} bytes; at most {MAX_TEXT} are read", json.len()));
    }
    let bad = |why: &dyn fmt::Display| error!(Argument, "Kleene's records: {why}");
    let records = match serde_json::from_str(json).map_err(|e| bad(&e))? {
        Value::Array(many) => many,
        one => vec![one],
    };
    if records.is_empty() {
        return Err(bad(&"no records; use unpublish for a container without ports"));
    }
    let mut specs = vec![];
    let mut addresses: [Option<IpAddr>; 2] = [None; 2];
    for (number, value) in (1..).zip(records) {
        let record: Record =
            serde_json::from_value(value).map_err(|e| error!(Argument, "record {number} of Kleene's: {e}"))?;
        let ports =
            format!("host_port {}, container_port {}", quoted(&record.host_port), quoted(&record.container_port));
        let named = |error: Error| error.context(format_args!("record {number} of Kleene's ({ports})"));
        add(&record, &mut specs, &mut addresses).map_err(named)?;
    }
    // the same port twice is an error as in any spec
    let spec = spec::parse(&specs.join(" ")).map_err(|error| error.context("Kleene's records"))?;
    Ok(Ports { spec, addresses: addresses.into_iter().flatten().collect() })
}

/// Adds the specs of a record, one for each interface, and its addresses.
fn add(record: &Record, specs: &mut Vec<String>, addresses: &mut [Option<IpAddr>; 2]) -> Result<()> {
    let refuse = |why: String| Error::new(Kind::Spec, why);
    let host = range("host_port", &record.host_port)?;
    let container = match record.container_port.strip_suffix(":*") {
        // as many ports as on the host
        Some(first) => {
            let first = range("container_port", first)?.first();
            PortRange::starting_at(first, host.count())
                .ok_or_else(|| refuse(format!("container_port: {} ports from {first} exceed 65535", host.count())))?
        }
        None => range("container_port", &record.container_port)?,
    };
    if host.count() != container.count() {
        return Err(refuse(format!(
            "{} ports on the host and {} in the container must be equally many; use container_port \"{}:*\"",
            host.count(),
            container.count(),
            container.first()
        )));
    }
    let protocol = record.protocol.as_deref().unwrap_or("tcp");
    let known = Protocol::named(protocol);
    let protocol = known.ok_or_else(|| refuse(format!("protocol {} is not tcp or udp", quoted(protocol))))?;
    let ports = format!("{host}:{container}/{protocol}");
    for name in &record.interfaces {
        let interface: Interface = name.parse().map_err(|e: Error| refuse(e.message().to_owned()))?;
        specs.push(format!("{interface}:{ports}"));
    }
    if record.interfaces.is_empty() {
        specs.push(ports);
    }
    let given = [("ip_address", &record.ip_address), ("ip_address6", &record.ip_address6)];
    for (slot, (field, text)) in addresses.iter_mut().zip(given) {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { continue };
        let address = text.parse().ok().filter(|address: &IpAddr| address.is_ipv6() == (field == "ip_address6"));
        let address =
            address.ok_or_else(|| error!(Argument, "{field}: {} is not an address of its family", quoted(text)))?;
        if let Some(before) = slot.replace(address).filter(|before| *before != address) {
            return Err(error!(
                Argument,
                "{field} is {address}, but an earlier record has {before}; use one address for all ports of a container"
            ));
        }
    }
    Ok(())
}

/// `N` or `A:B`.
fn range(field: &str, text: &str) -> Result<PortRange> {
    let range = text.replacen(':', "-", 1).parse();
    range.map_err(|error: Error| error!(Spec, "{field}: {}", error.message()))
}
