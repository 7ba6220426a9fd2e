//! Addresses, ports and pools of a statement.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::address::{Compared, OfInterface, Operand, Operator, Part, Pool, PoolAddress, PoolKind, Ports};
use super::lex::Read;
use super::names;
use super::words::Words;
use crate::error::quoted;

/// The ports of `nat` if none are given (PF_NAT_PROXY_PORT_LOW and _HIGH in sys/net/pfvar.h).
pub(super) const PROXY_PORTS: (u16, u16) = (50_001, 65_535);

/// The name of a table between `<` and `>`, also in the output of `pfctl -v`, with the number of its addresses: `<name:3>`.
pub(super) fn table(words: &mut Words<'_>) -> Read<String> {
    words.expect("<")?;
    let name = words.text()?;
    words.expect(">")?;
    let name = name.split(':').next().unwrap_or(name);
    if name.is_empty() || name.len() > 31 {
        return Err(format!("the name of table {} is empty, or longer than 31 bytes", quoted(name)));
    }
    Ok(name.to_owned())
}

/// `[!] host`, `any`, `no-route`, `urpf-failed`
pub(super) fn side(words: &mut Words<'_>) -> Read<(bool, Operand)> {
    if words.take("any") {
        return Ok((false, Operand::Any));
    }
    let not = words.take("!");
    if words.take("no-route") {
        return Ok((not, Operand::NoRoute));
    }
    if words.take("urpf-failed") {
        return Ok((not, Operand::UrpfFailed));
    }
    Ok((not, host(words)?))
}

/// `10.0.0.0/8`, `10/8`, `10.0.0.1 - 10.0.0.9`, `em0:network`, `(em0:0)/24`, `<table>`, a name.
pub(super) fn host(words: &mut Words<'_>) -> Read<Operand> {
    if words.peek() == "<" {
        return Ok(Operand::Table(table(words)?));
    }
    if words.take("(") {
        let name = words.text()?;
        words.expect(")")?;
        let bits = if words.take("/") { Some(words.number()?) } else { None };
        return of_interface(name, true, bits);
    }
    let word = words.text()?;
    // the scope of a link-local address is its interface
    let plain = word.split('%').next().unwrap_or(word);
    if words.take("/") {
        let bits: u8 = words.number()?;
        return match network(plain, bits) {
            Some(network) => Ok(Operand::Network(network)),
            None if plain.parse::<IpAddr>().is_ok() => Err(format!("{word}/{bits} is not a network")),
            None => of_interface(word, false, Some(bits)),
        };
    }
    if let Ok(first) = plain.parse::<IpAddr>() {
        if words.take("-") {
            let last = words.text()?;
            let last: IpAddr = last.parse().map_err(|_| format!("{} is not an address", quoted(last)))?;
            if first.is_ipv4() != last.is_ipv4() {
                return Err(format!("{first} and {last} are of different families"));
            }
            return Ok(Operand::Range(first, last));
        }
        return Ok(Operand::Network(IpNet::from(first)));
    }
    of_interface(word, false, None)
}

/// An address with a length; IPv4 also as `10/8` (inet_net_pton(3)).
pub(super) fn network(address: &str, bits: u8) -> Option<IpNet> {
    if let Ok(address) = address.parse::<IpAddr>() {
        return IpNet::new(address, bits).ok();
    }
    let parts: Vec<&str> = address.split('.').collect();
    let octets: Vec<u8> = parts.iter().map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let mut all = [0; 4];
    all.get_mut(..octets.len())?.copy_from_slice(&octets);
    IpNet::new(Ipv4Addr::from(all).into(), bits).ok()
}

/// `em0`, `em0:network:0`. A name with a dot and without a digit at its end is a host name.
pub(super) fn of_interface(text: &str, dynamic: bool, bits: Option<u8>) -> Read<Operand> {
    let mut name = text;
    let (mut part, mut first) = (Part::Address, false);
    while let Some((head, modifier)) = name.rsplit_once(':') {
        match modifier {
            "network" => part = Part::Network,
            "broadcast" => part = Part::Broadcast,
            "peer" => part = Part::Peer,
            "0" => first = true,
            _ => return Err(format!("{} is not an address, nor a part of an interface's", quoted(text))),
        }
        name = head;
    }
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-+".contains(&b));
    if name.is_empty() || !plain {
        return Err(format!("{} is not an address", quoted(text)));
    }
    if !dynamic && part == Part::Address && name.contains('.') && !name.ends_with(|c: char| c.is_ascii_digit()) {
        return Ok(Operand::Named(name.to_owned()));
    }
    if dynamic && !name.starts_with(|c: char| c.is_ascii_alphabetic()) || name.len() > 63 {
        return Err(format!("{} is not an interface", quoted(name)));
    }
    Ok(Operand::Interface(OfInterface { name: name.to_owned(), part, first, dynamic, bits }))
}

/// A port by number or name; services(5) is read if possible.
fn port(text: &str) -> Read<u16> {
    let table = || std::fs::read_to_string("/etc/services").ok();
    let number = names::number(text).and_then(|number| u16::try_from(number).ok());
    let found = number.or_else(|| names::service(text, table).filter(|_| !text.is_empty()));
    let unknown = || format!("port {}, neither a number nor a service of services(5), is not known", quoted(text));
    found.ok_or_else(unknown)
}

/// The operator before a number.
pub(super) fn unary(words: &mut Words<'_>) -> Option<Operator> {
    let operators = [
        ("=", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<", Operator::Less),
        ("<=", Operator::AtMost),
        (">", Operator::Greater),
        (">=", Operator::AtLeast),
    ];
    operators.into_iter().find(|(sign, _)| words.take(sign)).map(|(_, operator)| operator)
}

/// The operator between two numbers.
pub(super) fn binary(words: &mut Words<'_>) -> Option<Operator> {
    let operators = [("><", Operator::Between), ("<>", Operator::Outside)];
    operators.into_iter().find(|(sign, _)| words.take(sign)).map(|(_, operator)| operator)
}

/// `80`, `80:90`, `> 1023`, `1 >< 9`
pub(super) fn ports(words: &mut Words<'_>) -> Read<Ports> {
    if let Some(operator) = unary(words) {
        return Ok(Compared { operator, a: port(words.text()?)?, b: 0 });
    }
    let text = words.text()?;
    let (operator, a, b) = if let Some((a, b)) = text.split_once(':') {
        let (a, b) = (port(a)?, port(b)?);
        if a == b { (Operator::Equal, a, 0) } else { (Operator::Range, a, b) }
    } else {
        let a = port(text)?;
        match binary(words) {
            Some(operator) => (operator, a, port(words.text()?)?),
            None => (Operator::Equal, a, 0),
        }
    };
    // validate_range of parse.y
    let empty = match operator {
        Operator::Range | Operator::Outside => a > b,
        Operator::Between => a >= b,
        _ => false,
    };
    match empty {
        true => Err(format!("the range of ports {a} to {b} is empty")),
        false => Ok(Compared { operator, a, b }),
    }
}

/// The translation of a pool: the ports have different meanings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PoolFor {
    Source,
    /// With the ports of the rule, for `port 9000:*`.
    Destination,
    Both,
    Route,
}

/// The port of a pool, `a`, `a:b` or `a:*`, before the rule's own ports are known. Without a port it is 0, and so is the last
/// one of `a`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PoolPorts {
    pub first: u16,
    pub last: u16,
    pub open: bool,
}

/// `10.0.0.2`, `{ 10.0.0.2, (em0) } port 80 round-robin`, `(em0 192.0.2.254)`
pub(super) fn pool(words: &mut Words<'_>, what: PoolFor) -> Read<(Pool, PoolPorts)> {
    let addresses = if what == PoolFor::Route {
        words.list(&mut gateway)?
    } else {
        let one = &mut |words: &mut Words<'_>| Ok(PoolAddress { interface: None, address: Some(host(words)?) });
        words.list(one)?
    };
    let mut pool = Pool { addresses, ..Pool::default() };
    let mut given = PoolPorts::default();
    if what != PoolFor::Route && words.take("port") {
        let text = words.text()?;
        given = match text.split_once(':') {
            Some((a, "*")) => PoolPorts { first: port(a)?, last: 0, open: true },
            Some((a, b)) => match (port(a)?, port(b)?) {
                (first, last) if last < first => {
                    return Err(format!("the range of ports {first}:{last} is empty"));
                }
                (first, last) if first == last => PoolPorts { first, last: 0, open: false },
                (first, last) => PoolPorts { first, last, open: false },
            },
            None => PoolPorts { first: port(text)?, last: 0, open: false },
        };
    }
    let several = |address: &PoolAddress| address.address.as_ref().is_some_and(Operand::is_several);
    // binat_redirspec of parse.y has none
    while what != PoolFor::Both && options(words, &mut pool)? {}
    match what {
        // apply_nat_ports of parse.y
        PoolFor::Source if pool.static_port && given != PoolPorts::default() => {
            return Err("static-port is not possible with ports".into());
        }
        PoolFor::Source => {}
        // binatrule of parse.y
        PoolFor::Both if pool.addresses.len() != 1 || pool.addresses.iter().any(several) => {
            return Err("binat leads to a single address: no list, no table, and (em0:0) for an interface".into());
        }
        PoolFor::Both => {}
        // apply_rdr_ports of parse.y
        PoolFor::Destination if pool.static_port => return Err("static-port is for nat only".into()),
        PoolFor::Destination if pool.portset.is_some() => return Err("map-e-portset is for nat only".into()),
        PoolFor::Destination => {}
        // expand_rule of parse.y ignores them
        PoolFor::Route => (pool.static_port, pool.portset) = (false, None),
    }
    // like apply_redirspec
    if pool.kind == PoolKind::Single && (pool.addresses.len() > 1 || pool.addresses.iter().any(several)) {
        pool.kind = PoolKind::RoundRobin;
    }
    Ok((pool, given))
}

fn options(words: &mut Words<'_>, pool: &mut Pool) -> Read<bool> {
    match words.peek() {
        "bitmask" => pool.kind = PoolKind::Bitmask,
        "random" => pool.kind = PoolKind::Random,
        "round-robin" => pool.kind = PoolKind::RoundRobin,
        "static-port" => pool.static_port = true,
        "sticky-address" => pool.sticky = true,
        "endpoint-independent" => pool.endpoint_independent = true,
        "prefer-ipv6-nexthop" => pool.prefer_ipv6_nexthop = true,
        "source-hash" => {
            words.next()?;
            let key = if words.has_string() { words.text()?.to_owned() } else { String::new() };
            pool.kind = PoolKind::SourceHash(key);
            return Ok(true);
        }
        "map-e-portset" => {
            words.next()?;
            let offset = words.number()?;
            words.expect("/")?;
            let length = words.number()?;
            words.expect("/")?;
            pool.portset = Some((offset, length, words.number()?));
            return Ok(true);
        }
        _ => return Ok(false),
    }
    words.next()?;
    Ok(true)
}

/// `em1`, `(em1 192.0.2.254)`; pfctl(8) of 15 prints `(em1 ?)` for `em1` (PF_ADDR_NONE in print_addr of pfctl_parser.c)
fn gateway(words: &mut Words<'_>) -> Read<PoolAddress> {
    if !words.take("(") {
        return Ok(PoolAddress { interface: Some(words.text()?.to_owned()), address: None });
    }
    let interface = words.text()?.to_owned();
    let address = if words.take("?") { None } else { Some(host(words)?) };
    words.expect(")")?;
    Ok(PoolAddress { interface: Some(interface), address })
}

/// An interface or group, possibly negated.
pub(super) fn on(words: &mut Words<'_>) -> Read<super::rule::On> {
    let not = words.take("!");
    let name = if words.take("any") { "any" } else { words.text()? };
    if name.is_empty() || name.len() > 63 {
        return Err(format!("{} is not an interface", quoted(name)));
    }
    Ok(super::rule::On { not, name: name.to_owned() })
}
