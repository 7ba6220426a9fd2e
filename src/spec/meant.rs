//! The spec that was meant by text in the syntax of another tool, for the hint of an error. Each hint ends with a spec that can be
//! parsed.

use super::{parse, token};
use crate::net::{Misread, Place, PortRange, Protocol};

/// The hint for a word that is not a place, with the text after it.
pub(super) fn place(word: Misread, rest: &str) -> String {
    // `tcp 8080 80`, as on Bastille's command line
    let words: Vec<&str> = match token(rest) {
        "" => rest.split_whitespace().take(2).collect(),
        token => vec![token],
    };
    let parts = || words.iter().flat_map(|word| word.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    let ports: Vec<PortRange> = parts().filter_map(|part| part.parse().ok()).collect();
    let also: Vec<Protocol> = Protocol::ALL.into_iter().filter(|p| parts().any(|part| part == p.name())).collect();
    match word {
        Misread::Protocol(protocol) => {
            let mut protocols = vec![protocol];
            protocols.extend(also.into_iter().filter(|also| *also != protocol));
            let turned: Vec<PortRange> = ports.iter().rev().copied().collect();
            let (plain, turned) = (spec(None, &ports, &protocols), spec(None, &turned, &protocols));
            // iocage: `tcp(80:8080)`, the jail's port first
            if rest.starts_with('(') {
                return format!("the protocol comes last, and the jail's port after the host's: {turned}");
            }
            // pot: `tcp:80:8080`, the jail's port first
            let or = format!(", or, if the jail's port was first as in pot: {turned}");
            format!("the protocol comes last: {plain}{}", if turned == plain { "" } else { &or })
        }
        Misread::Place(place) => {
            let what = match place {
                Place::Any => "every address of the host".to_owned(),
                Place::AnyOf(family) => format!("every {family} address of the host"),
                Place::Address(_) | Place::Interface(_) => "a loopback address, which needs host access,".to_owned(),
            };
            format!("{what} is written {place}: {}", spec(Some(place), &ports, &also))
        }
        Misread::Gateway => format!("the gateway interface is the default: {}", spec(None, &ports, &also)),
    }
}

/// The hint for a missing host port, with the text after it: Docker's `:80` and `127.0.0.1::80`.
pub(super) fn host_port(place: Option<Place>, rest: &str) -> String {
    let place = before(place);
    let free = format!("{place}auto{}", token(rest));
    let free = if parse(&free).is_ok() { free } else { format!("{place}auto:80") };
    format!("host port missing; auto is a free one: {free}")
}

/// The spec that the text after a place is with pf's ranges, `8000:8010:9000:9010` or `8000:8010:9000:*`.
pub(super) fn range(place: Option<Place>, text: &str) -> Option<String> {
    let (ports, protocol) = text.split_at(text.find('/').unwrap_or(text.len()));
    let fields: Vec<&str> = ports.split(':').collect();
    let ports = match fields[..] {
        [first, last, to] | [first, last, to, "*"] if first != last => format!("{first}-{last}:{to}"),
        [first, last, to, end] => format!("{first}-{last}:{to}-{end}"),
        _ => return None,
    };
    Some(format!("{}{ports}{protocol}", before(place))).filter(|spec| parse(spec).is_ok())
}

fn before(place: Option<Place>) -> String {
    place.map_or(String::new(), |place| format!("{place}:"))
}

fn spec(place: Option<Place>, ports: &[PortRange], protocols: &[Protocol]) -> String {
    let before = before(place);
    let names: Vec<&str> = protocols.iter().map(|protocol| protocol.name()).collect();
    let after = if names.is_empty() { String::new() } else { format!("/{}", names.join(",")) };
    let given = match ports {
        [port] if place.is_none() => port.to_string(),
        [port] => format!("{port}:{port}"),
        [host, jail] => format!("{host}:{jail}"),
        _ => "8080:80".to_owned(),
    };
    let made = format!("{before}{given}{after}");
    if parse(&made).is_ok() { made } else { format!("{before}8080:80{after}") }
}
