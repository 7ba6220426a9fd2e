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

use crate::error::{Error, Kind, Result, quoted};
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

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<serde_json::Value>),
    One(serde_json::Value),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, container) = (quoted(&self.host_port), quoted(&self.container_port));
        write!(f, "host_port {host}, container_port {container}")
    }
}

/// Parses records.
///
/// # Errors
///
/// [`Kind::Argument`] for what is not JSON, or not a record; [`Kind::Spec`] for ports, protocols and interfaces that cannot be
/// published. Each has the number of the record, from 1.
pub fn parse(json: &str) -> Result<Ports> {
    if json.len() > MAX_TEXT {
        return Err(Error::new(
            Kind::Argument,
            format!("Kleene's records have {} bytes; at most {MAX_TEXT} are read", json.len()),
        ));
    }
    let bad = |why: &dyn fmt::Display| Error::new(Kind::Argument, format!("Kleene's records: {why}"));
    let records = match serde_json::from_str(json).map_err(|e| bad(&e))? {
        OneOrMany::Many(many) => many,
        OneOrMany::One(one) => vec![one],
    };
    if records.is_empty() {
        return Err(bad(&"no records; use unpublish for a container without ports"));
    }
    let mut specs = vec![];
    let mut addresses: [Option<IpAddr>; 2] = [None; 2];
    for (number, value) in (1..).zip(records) {
        let record: Record = serde_json::from_value(value)
            .map_err(|e| Error::new(Kind::Argument, format!("record {number} of Kleene's: {e}")))?;
        let named = |error: Error| error.context(format_args!("record {number} of Kleene's ({record})"));
        specs.extend(texts(&record).map_err(named)?);
        let given = [("ip_address", &record.ip_address), ("ip_address6", &record.ip_address6)];
        for (slot, (field, text)) in addresses.iter_mut().zip(given) {
            let Some(address) = address(field, text.as_deref()).map_err(named)? else { continue };
            if let Some(before) = slot.replace(address).filter(|before| *before != address) {
                let why = format!(
                    "{field} is {address}, but an earlier record has {before}; use one address for all ports of a container"
                );
                return Err(named(Error::new(Kind::Argument, why)));
            }
        }
    }
    // the same port twice is an error as in any spec
    let spec = spec::parse(&specs.join(" ")).map_err(|error| error.context("Kleene's records"))?;
    Ok(Ports { spec, addresses: addresses.into_iter().flatten().collect() })
}

/// The specs of a record, one for each interface.
fn texts(record: &Record) -> Result<Vec<String>> {
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
    if record.interfaces.is_empty() {
        return Ok(vec![ports]);
    }
    let place = |name: &String| {
        let interface: Interface = name.parse().map_err(|e: Error| refuse(e.message().to_owned()))?;
        Ok(format!("{interface}:{ports}"))
    };
    record.interfaces.iter().map(place).collect()
}

/// `N` or `A:B`.
fn range(field: &str, text: &str) -> Result<PortRange> {
    let refuse = |why: &str| Error::new(Kind::Spec, format!("{field}: {why}"));
    let port = |text: &str| {
        let digits =
            !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let port = text.parse::<u16>().ok().filter(|_| digits);
        port.ok_or_else(|| refuse(&format!("{} is not a port from 1 to 65535", quoted(text))))
    };
    let (first, last) = match text.split_once(':') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    PortRange::new(first, last)
        .ok_or_else(|| refuse(&format!("the range is from {first} down to {last}; swap the two")))
}

fn address(field: &str, text: Option<&str>) -> Result<Option<IpAddr>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let address: Option<IpAddr> = text.parse().ok();
    let right = address.filter(|address| address.is_ipv6() == (field == "ip_address6"));
    right
        .map(Some)
        .ok_or_else(|| Error::new(Kind::Argument, format!("{field}: {} is not an address of its family", quoted(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(host: &str, container: &str, more: &str) -> String {
        format!(r#"{{ "interfaces": [], "host_port": "{host}", "container_port": "{container}"{more} }}"#)
    }

    fn specs(json: &str) -> String {
        parse(json).unwrap().spec.to_string()
    }

    #[test]
    fn every_form_of_a_record() {
        assert_eq!(specs(&record("8080", "80", "")), "8080:80/tcp");
        assert_eq!(specs(&record("53", "53", r#", "protocol": "udp""#)), "53:53/udp");
        assert_eq!(specs(&record("8000:8010", "9000:*", "")), "8000-8010:9000-9010/tcp");
        assert_eq!(specs(&record("8000:8010", "9000:9010", "")), "8000-8010:9000-9010/tcp");
        assert_eq!(specs(&record("8000", "9000:*", "")), "8000:9000/tcp");
        let two = r#"[ { "interfaces": ["em0", "em1"], "host_port": "80", "container_port": "8080", "protocol": "tcp",
                         "ip_address": "10.0.0.2", "ip_address6": "" },
                       { "interfaces": [], "host_port": "80", "container_port": "8080", "protocol": "udp",
                         "ip_address": "10.0.0.2", "ip_address6": "fd00::2" } ]"#;
        let ports = parse(two).unwrap();
        assert_eq!(ports.spec.to_string(), "em0:80:8080/tcp em1:80:8080/tcp 80:8080/udp");
        assert_eq!(ports.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert!(parse(&record("80", "80", r#", "ip_address": null"#)).unwrap().addresses.is_empty());
    }

    #[test]
    fn what_is_wrong_names_the_record() {
        let second = |host: &str, container: &str, more: &str| {
            format!("[{}, {}]", record("80", "80", r#", "ip_address": "10.0.0.2""#), record(host, container, more))
        };
        for (json, kind, word) in [
            (second("8010:8000", "9000:*", ""), Kind::Spec, "from 8010 down to 8000"),
            (second("8000:8010", "80", ""), Kind::Spec, "11 ports on the host and 1 in the container"),
            (second("8000:8010", "9000:9001", ""), Kind::Spec, "use container_port \"9000:*\""),
            (second("0", "80", ""), Kind::Spec, "\"0\" is not a port"),
            (second("65536", "80", ""), Kind::Spec, "65536"),
            (second("080", "80", ""), Kind::Spec, "080"),
            (second("8000:8001:8002", "80", ""), Kind::Spec, "8001:8002"),
            (second("*", "80", ""), Kind::Spec, "\"*\""),
            (second("60000:65535", "65000:*", ""), Kind::Spec, "exceed 65535"),
            (second("8080", "80", r#", "protocol": "icmp""#), Kind::Spec, "icmp"),
            (second("8080", "80", r#", "ip_address": "10.0.0.3""#), Kind::Argument, "10.0.0.2"),
            (second("8080", "80", r#", "ip_address": "fd00::2""#), Kind::Argument, "fd00::2"),
            (second("8080", "80", r#", "sources": []"#), Kind::Argument, "sources"),
            (second("8080\\n", "80", ""), Kind::Spec, "8080\\n"),
        ] {
            let error = parse(&json).unwrap_err();
            let said = error.message();
            assert!(
                error.kind() == kind && said.contains("record 2") && said.contains(word),
                "{json}: {kind:?} {said}"
            );
        }
        let interface = r#"{ "interfaces": ["em 0"], "host_port": "80", "container_port": "80" }"#;
        assert_eq!(parse(interface).unwrap_err().kind(), Kind::Spec);
        for json in
            ["", "[]", "7", "nonsense", r#"[{ "host_port": 80, "container_port": "80" }]"#, r#"{ "host_port": "80" }"#]
        {
            assert_eq!(parse(json).unwrap_err().kind(), Kind::Argument, "{json}");
        }
        let twice = format!("[{0}, {0}]", record("80", "80", ""));
        let twice = parse(&twice).map(|ports| ports.spec.mappings().len());
        // as the same spec twice
        assert_eq!(twice.ok(), spec::parse("80:80 80:80").map(|spec| spec.mappings().len()).ok());
    }
}
