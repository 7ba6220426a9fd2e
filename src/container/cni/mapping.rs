//! `portMappings`: turns the runtime's list into specs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::code::{Code, Failure, field, text};
use crate::error::quoted;
use crate::net::{Family, Place, Protocol};
use crate::spec::{self, Spec};

/// One port of the host, and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    pub place: Place,
    pub protocol: Protocol,
    pub host: u16,
    pub jail: u16,
}

/// An entry of the runtime's list. `place` is for one without `hostIP`.
pub fn read(entry: &Map<String, Value>, place: Place) -> Result<PortMapping, Failure> {
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
        Some(address) => address_of(&address)?,
        None => place,
    };
    Ok(PortMapping { place, protocol, host: port("hostPort")?, jail: port("containerPort")? })
}

fn address_of(text: &str) -> Result<Place, Failure> {
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
    mappings: &BTreeSet<PortMapping>,
    addresses: &[IpAddr],
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
