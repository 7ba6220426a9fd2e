//! The words of a statement, and what it is made of: addresses, ports, pools.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::address::{Compared, OfInterface, Operand, Operator, Part, Pool, PoolAddress, PoolKind, Ports};
use super::lex::{Read, Token};
use super::names;
use super::rule::{On, RuleKind};
use crate::error::quoted;

/// The ports of `nat` if none are given (PF_NAT_PROXY_PORT_LOW and _HIGH in sys/net/pfvar.h).
pub(super) const PROXY_PORTS: (u16, u16) = (50_001, 65_535);

#[derive(Clone, Copy)]
pub(super) struct Words<'a>(pub &'a [Token]);

impl<'a> Words<'a> {
    /// The next word or sign; empty for a string in quotes, and at the end.
    pub(super) fn peek(&self) -> &'a str {
        self.0.first().map_or("", Token::bare)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn next(&mut self) -> Read<&'a Token> {
        let (first, rest) = self.0.split_first().ok_or("the statement ends too early")?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn take(&mut self, word: &str) -> bool {
        let there = self.peek() == word && !word.is_empty();
        if there {
            self.0 = &self.0[1..];
        }
        there
    }

    pub(super) fn expect(&mut self, word: &str) -> Read<()> {
        if self.take(word) { Ok(()) } else { Err(format!("expected {word} instead of {}", self.shown())) }
    }

    pub(super) fn shown(&self) -> String {
        self.0.first().map_or("the end".to_owned(), |token| quoted(token.shown()))
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        let next = self.next()?;
        next.string().ok_or_else(|| format!("{} is not expected", quoted(next.shown())))
    }

    pub(super) fn has_string(&self) -> bool {
        self.0.first().is_some_and(|token| token.string().is_some())
    }

    /// Consecutive strings, as one with blanks between (string in parse.y).
    pub(super) fn strings(&mut self) -> Read<String> {
        let mut all = self.text()?.to_owned();
        while self.has_string() {
            all.push(' ');
            all.push_str(self.text()?);
        }
        Ok(all)
    }

    pub(super) fn number<N: TryFrom<u64>>(&mut self) -> Read<N> {
        let number = |text: &str| N::try_from(names::number(text)?).ok();
        self.read("is not a number that is possible here", number)
    }

    /// The next string, as something reads it; otherwise what is wrong with it.
    pub(super) fn read<T>(&mut self, wrong: &str, read: impl FnOnce(&str) -> Option<T>) -> Read<T> {
        let text = self.text()?;
        read(text).ok_or_else(|| format!("{} {wrong}", quoted(text)))
    }

    /// One item, or several in braces, with or without commas; also lists in lists.
    pub(super) fn list<T>(&mut self, one: &mut dyn FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let (mut all, mut depth) = (vec![], 0_usize);
        loop {
            if self.take("{") {
                depth += 1;
                if self.peek() == "}" {
                    return Err("an empty list".into());
                }
                continue;
            }
            if depth > 0 && self.take("}") {
                depth -= 1
            } else {
                all.push(one(self)?)
            }
            if depth == 0 {
                return Ok(all);
            }
            while self.take(",") {}
        }
    }

    /// Skips a string, or round brackets and their contents.
    pub(super) fn skip_value(&mut self) -> Read<()> {
        if self.peek() == "(" { self.skip_brackets() } else { self.text().map(drop) }
    }

    pub(super) fn skip_brackets(&mut self) -> Read<()> {
        let mut depth = 0_usize;
        while depth > 0 || self.peek() == "(" {
            match self.next()?.bare() {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Read<()> {
        if self.is_empty() { Ok(()) } else { Err(format!("{} is not expected", self.shown())) }
    }
}

/// The name of a table between `<` and `>`, also in the output of `pfctl -v`, with the number of its addresses: `<name:3>`.
pub(super) fn table(words: &mut Words<'_>) -> Read<String> {
    words.expect("<")?;
    // also a keyword, which pfctl(8) prints like any other name
    let name = match words.next()? {
        Token::Word(name) | Token::Quoted(name) => name,
        Token::Sign(sign) => return Err(format!("{} is not expected", quoted(sign))),
    };
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
    let Ok(first) = plain.parse::<IpAddr>() else { return of_interface(word, false, None) };
    if !words.take("-") {
        return Ok(Operand::Network(IpNet::from(first)));
    }
    let last: IpAddr = words.read("is not an address", |text| text.parse().ok())?;
    match first.is_ipv4() == last.is_ipv4() {
        true => Ok(Operand::Range(first, last)),
        false => Err(format!("{first} and {last} are of different families")),
    }
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

/// What a system without the file has of services(5).
const COMMON: &str = "ftp 21\nssh 22\ntelnet 23\nsmtp 25\ndomain 53\nbootps 67\nbootpc 68\nhttp 80\nwww 80\npop3 110\n\
    auth 113\nntp 123\nimap 143\nsnmp 161\nhttps 443\nsyslog 514\nsubmission 587\nimaps 993\npop3s 995";

thread_local! {
    /// Those of this system. A lock would wait for ever in a child that was forked while another thread reads them.
    static SERVICES: HashMap<String, u16> =
        names::services(&std::fs::read_to_string("/etc/services").unwrap_or_else(|_| COMMON.to_owned()));
}

/// A port by number or name.
fn port(text: &str) -> Read<u16> {
    let number = names::number(text).and_then(|number| u16::try_from(number).ok());
    let found = number.or_else(|| SERVICES.with(|services| services.get(text).copied()));
    found.ok_or_else(|| format!("port {}, neither a number nor a service of services(5), is not known", quoted(text)))
}

pub(super) fn unary(words: &mut Words<'_>) -> Option<Operator> {
    use Operator::{AtLeast, AtMost, Equal, Greater, Less, NotEqual};
    [Equal, NotEqual, Less, AtMost, Greater, AtLeast].into_iter().find(|operator| words.take(operator.sign()))
}

pub(super) fn binary(words: &mut Words<'_>) -> Option<Operator> {
    [Operator::Between, Operator::Outside].into_iter().find(|operator| words.take(operator.sign()))
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

/// `{ 10.0.0.2, (em0) } port 80 round-robin`, as a translation of this kind; and whether the ports of a new destination are `a:*`,
/// as many as the rule's.
pub(super) fn pool(words: &mut Words<'_>, kind: RuleKind) -> Read<(Pool, bool)> {
    let addresses = words.list(&mut |words| Ok(host(words)?.into()))?;
    let mut pool = Pool { addresses, ..Pool::default() };
    let mut open = false;
    if words.take("port") {
        let text = words.text()?;
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let first = port(first)?;
        open = last == "*";
        let last = if open { first } else { port(last)? };
        if last < first {
            return Err(format!("the range of ports {first}:{last} is empty"));
        }
        // a single port has no last one
        pool.ports = (first, if last == first { 0 } else { last });
    }
    // binat_redirspec of parse.y has none
    while kind != RuleKind::Binat && options(words, &mut pool)? {}
    pool.balance();
    match kind {
        // apply_nat_ports of parse.y: without ports the default range is used, and 0, 0 is the original port
        RuleKind::Nat if pool.static_port && (pool.ports != (0, 0) || open) => {
            return Err("static-port is not possible with ports".into());
        }
        RuleKind::Nat => {
            pool.ports = match pool.ports {
                (0, 0) if !pool.static_port => PROXY_PORTS,
                (first, 0) => (first, first),
                ports => ports,
            }
        }
        // binatrule of parse.y
        RuleKind::Binat if pool.kind != PoolKind::Single => {
            return Err("binat leads to a single address: no list, no table, and (em0:0) for an interface".into());
        }
        // apply_rdr_ports of parse.y
        _ if pool.static_port => return Err("static-port is for nat only".into()),
        _ if pool.portset.is_some() => return Err("map-e-portset is for nat only".into()),
        _ => {}
    }
    Ok((pool, open && kind == RuleKind::Rdr))
}

/// `{ em0, (em1 192.0.2.254) } round-robin`
pub(super) fn route(words: &mut Words<'_>) -> Read<Pool> {
    let mut pool = Pool { addresses: words.list(&mut gateway)?, ..Pool::default() };
    while options(words, &mut pool)? {}
    pool.balance();
    // expand_rule of parse.y ignores them
    (pool.static_port, pool.portset) = (false, None);
    Ok(pool)
}

impl Pool {
    /// Several addresses are used in turn, unless something else is given (apply_redirspec in parse.y).
    fn balance(&mut self) {
        let is_one = self.addresses.len() == 1 && !self.operands().any(Operand::is_several);
        if self.kind == PoolKind::Single && !is_one {
            self.kind = PoolKind::RoundRobin;
        }
    }
}

fn options(words: &mut Words<'_>, pool: &mut Pool) -> Read<bool> {
    match words.peek() {
        "bitmask" => pool.kind = PoolKind::Bitmask,
        "random" => pool.kind = PoolKind::Random,
        "round-robin" => pool.kind = PoolKind::RoundRobin,
        "source-hash" => pool.kind = PoolKind::SourceHash(String::new()),
        "static-port" => pool.static_port = true,
        "sticky-address" => pool.sticky = true,
        "endpoint-independent" => pool.endpoint_independent = true,
        "prefer-ipv6-nexthop" => pool.prefer_ipv6_nexthop = true,
        "map-e-portset" => {}
        _ => return Ok(false),
    }
    match words.next()?.bare() {
        "source-hash" if words.has_string() => pool.kind = PoolKind::SourceHash(words.text()?.to_owned()),
        "map-e-portset" => {
            let offset = words.number()?;
            words.expect("/")?;
            let length = words.number()?;
            words.expect("/")?;
            pool.portset = Some((offset, length, words.number()?));
        }
        _ => {}
    }
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

pub(super) fn on(words: &mut Words<'_>) -> Read<On> {
    let not = words.take("!");
    let name = if words.take("any") { "any" } else { words.text()? };
    if name.is_empty() || name.len() > 63 {
        return Err(format!("{} is not an interface", quoted(name)));
    }
    Ok(On { not, name: name.to_owned() })
}
