//! `portMappings`: turns the runtime's list into specs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::code::{Code, Failure};
use super::super::fields::{field, text};
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
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let address = address.parse::<IpAddr>().map_err(|_| refuse("not an IPv4 or IPv6 address"))?;
    if zone.is_some() {
        return Err(refuse(
            "an address with a zone cannot be published; name the interface in the plugin's field place",
        ));
    }
    Place::address(address).map_err(refuse)
}

/// The specs of a set of mappings: consecutive ports are one range. `None` for no mappings.
pub fn spec(mappings: &BTreeSet<PortMapping>) -> Result<Option<Spec>, Failure> {
    let mut text = String::new();
    let mut rest = mappings.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        // the set is sorted: what can be joined is adjacent
        while let Some(next) = rest.next_if(|next| is_next(last, *next)) {
            last = next;
        }
        let range = |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
        let (host, jail) = (range(first.host, last.host), range(first.jail, last.jail));
        _ = write!(text, "{}:{host}:{jail}/{} ", first.place, first.protocol);
    }
    if text.is_empty() { Ok(None) } else { Ok(Some(spec::parse(&text)?)) }
}

fn is_next(last: PortMapping, next: PortMapping) -> bool {
    (next.place, next.protocol) == (last.place, last.protocol)
        && Some(next.host) == last.host.checked_add(1)
        && Some(next.jail) == last.jail.checked_add(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Result<PortMapping, Failure> {
        read(&serde_json::from_str(json).unwrap(), "em0".parse().unwrap())
    }

    #[test]
    fn entries() {
        let made =
            one(r#"{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":"192.0.2.1","extra":1}"#).unwrap();
        assert_eq!((made.place.to_string().as_str(), made.host, made.jail), ("192.0.2.1", 8080, 80));
        let made = one(r#"{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":""}"#).unwrap();
        assert_eq!((made.place.to_string().as_str(), made.protocol), ("em0", Protocol::Udp));
        for (json, code, says) in [
            (r#"{"containerPort":80}"#, Code::Config, "hostPort is 0"),
            (r#"{"hostPort":65536,"containerPort":80}"#, Code::Config, "65536"),
            (r#"{"hostPort":-1,"containerPort":80}"#, Code::Config, "-1"),
            (r#"{"hostPort":"80","containerPort":80}"#, Code::Decode, "hostPort is \"80\""),
            (r#"{"hostPort":80.5,"containerPort":80}"#, Code::Decode, "80.5"),
            (r#"{"hostPort":80,"containerPort":80,"protocol":"icmp"}"#, Code::Config, "tcp, udp, sctp"),
            (r#"{"hostPort":80,"containerPort":80,"hostIP":"fe80::1%em0"}"#, Code::Config, "zone"),
            (r#"{"hostPort":80,"containerPort":80,"hostIP":"fe80::1"}"#, Code::Config, "link-local"),
            (r#"{"hostPort":80,"containerPort":80,"hostIP":"em0"}"#, Code::Config, "not an IPv4 or IPv6"),
            (r#"{"hostPort":80,"containerPort":80,"hostIP":"224.0.0.1"}"#, Code::Config, "multicast"),
        ] {
            let failure = one(json).unwrap_err();
            assert_eq!(failure.code, code, "{json}");
            assert!(failure.details.contains(says), "{failure}");
        }
    }

    #[test]
    fn ports_in_a_row_are_one_range() {
        let place: Place = "*".parse().unwrap();
        let port = |protocol, host, jail| PortMapping { place, protocol, host, jail };
        let mut set: BTreeSet<PortMapping> = (8000..=8010).map(|p| port(Protocol::Tcp, p, p + 1000)).collect();
        set.extend([port(Protocol::Tcp, 8011, 80), port(Protocol::Udp, 8012, 81), port(Protocol::Tcp, 65535, 65535)]);
        let made = spec(&set).unwrap().unwrap().to_string();
        assert_eq!(made, "*:8000-8010:9000-9010/tcp *:8011:80/tcp *:65535:65535/tcp *:8012:81/udp");
        assert_eq!(spec(&BTreeSet::new()).unwrap(), None);
    }

    #[test]
    fn a_family_that_the_container_does_not_have_is_passed_over() {
        let of = |place: &str, protocol, host| PortMapping { place: place.parse().unwrap(), protocol, host, jail: 80 };
        let (inet, inet6) = (of("0.0.0.0", Protocol::Tcp, 8080), of("[::]", Protocol::Tcp, 8080));
        let set = |mappings: &[PortMapping]| mappings.iter().copied().collect::<BTreeSet<_>>();
        let v4: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap()];
        let both: Vec<IpAddr> = vec![v4[0], "fd00::2".parse().unwrap()];
        assert_eq!(of_families(&set(&[inet, inet6]), &v4), (set(&[inet]), vec![inet6]));
        assert_eq!(of_families(&set(&[inet, inet6]), &both[1..]), (set(&[inet6]), vec![inet]));
        assert_eq!(of_families(&set(&[inet, inet6]), &both), (set(&[inet, inet6]), vec![]));
        // nothing else serves these: they stay, and publishing them is an error
        for alone in [inet6, of("[::1]", Protocol::Tcp, 8080)] {
            for other in [of("0.0.0.0", Protocol::Udp, 8080), of("0.0.0.0", Protocol::Tcp, 8081)] {
                assert_eq!(of_families(&set(&[alone, other]), &v4), (set(&[alone, other]), vec![]));
            }
        }
    }

    #[test]
    fn every_port_at_once() {
        let place: Place = "*".parse().unwrap();
        let set = (1..=65535).map(|p| PortMapping { place, protocol: Protocol::Udp, host: p, jail: p }).collect();
        assert_eq!(spec(&set).unwrap().unwrap().to_string(), "*:1-65535:1-65535/udp");
    }

    proptest::proptest! {
        /// Ranges are the same ports as the list, each once.
        #[test]
        fn no_port_is_lost_or_won(
            list in proptest::collection::vec((0..3usize, 0..2usize, 1..40u16, 0..3u16), 0..60)
        ) {
            let places: Vec<Place> = ["*", "0.0.0.0", "192.0.2.1"].map(|place| place.parse().unwrap()).to_vec();
            let set: BTreeSet<PortMapping> = list
                .into_iter()
                .map(|(place, protocol, host, shift)| PortMapping {
                    place: places[place],
                    protocol: Protocol::ALL[protocol],
                    host,
                    jail: host + 100 * shift,
                })
                .collect();
            let mut found = vec![];
            for mapping in spec(&set).unwrap().iter().flat_map(Spec::mappings) {
                let spec::HostPorts::Fixed(host) = mapping.host else { panic!("{mapping}") };
                let (place, protocol) = (mapping.place.unwrap(), mapping.protocol);
                let pairs = (host.first()..=host.last()).zip(mapping.jail.first()..=mapping.jail.last());
                found.extend(pairs.map(|(host, jail)| PortMapping { place, protocol, host, jail }));
            }
            proptest::prop_assert_eq!(found.len(), set.len());
            proptest::prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), set);
        }
    }
}
