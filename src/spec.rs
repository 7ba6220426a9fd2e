//! The grammar of port specs: parses text to a [`Spec`], and prints the same text.
//!
//! ```text
//! specs     = spec *( white-space spec )
//! spec      = [ where ":" ] hostports [ ":" jailports ] [ "/" protocol *( "," protocol ) ]
//!                               ; with `where`, jailports is required
//! where     = interface / ipv4 / "[" ipv6 "]" / "*"
//! hostports = port [ "-" port ] / "auto"
//! jailports = port [ "-" port ] ; as many as hostports, or one port: the first of as many
//! port      = 1..65535, decimal digits only, no sign, no leading zero
//! protocol  = "tcp" / "udp" / "sctp"
//! ```
//!
//! `auto` needs jailports: it stands for as many consecutive free host ports.

mod meant;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use arrayvec::ArrayVec;
use nom::Parser;
use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::multispace0;

use crate::error::{Error, Kind, Result, error, quoted};
use crate::net::{Interface, Misread, Place, PortRange, Protocol, as_text};

/// The maximum length of a text, in bytes.
pub const MAX_TEXT: usize = 1 << 20;

/// The host's side of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostPorts {
    /// These ports.
    Fixed(PortRange),
    /// As many consecutive free ports as on the jail's side, chosen when the mapping is published.
    Auto,
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPorts::Fixed(range) => range.fmt(f),
            HostPorts::Auto => f.write_str("auto"),
        }
    }
}

/// One spec for one protocol: the ports of the host, and those of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Where on the host; `None` is the gateway interface, which depends on the host.
    pub place: Option<Place>,
    /// The ports on the host.
    pub host: HostPorts,
    /// The ports in the jail; as many as on the host.
    pub jail: PortRange,
    /// The protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "{place}:")?;
        }
        write!(f, "{}:{}/{}", self.host, self.jail, self.protocol)
    }
}

// each spec holds eight of them
const _: () = assert!(size_of::<Mapping>() <= 28);

/// One or more mappings, in the order of the text. Up to [`Spec::INLINE`] of them, enough for nearly every jail, are
/// held without an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec(Mappings);

// one variant is large on purpose
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mappings {
    Few(ArrayVec<Mapping, { Spec::INLINE }>),
    /// More than these.
    Many(Vec<Mapping>),
}

impl Spec {
    /// The maximum number of mappings that need no allocation.
    pub const INLINE: usize = 8;

    /// A single mapping.
    pub fn one(mapping: Mapping) -> Spec {
        let mut one = Spec::none();
        one.push(mapping);
        one
    }

    /// Those of its mappings that stay; `None` if there are none.
    pub(crate) fn only(&self, stays: impl Fn(&Mapping) -> bool) -> Option<Spec> {
        let mut kept = Spec::none();
        self.mappings().iter().filter(|mapping| stays(mapping)).for_each(|mapping| kept.push(*mapping));
        Some(kept).filter(|kept| !kept.mappings().is_empty())
    }

    /// The mappings; there is at least one.
    pub fn mappings(&self) -> &[Mapping] {
        match &self.0 {
            Mappings::Few(few) => few,
            Mappings::Many(many) => many,
        }
    }

    /// The start value of the parser.
    fn none() -> Spec {
        Spec(Mappings::Few(ArrayVec::new()))
    }

    fn push(&mut self, mapping: Mapping) {
        match &mut self.0 {
            Mappings::Few(few) => {
                if let Err(full) = few.try_push(mapping) {
                    let mut many = Vec::with_capacity(4 * Spec::INLINE);
                    many.extend_from_slice(few);
                    many.push(full.element());
                    self.0 = Mappings::Many(many);
                }
            }
            Mappings::Many(many) => many.push(mapping),
        }
    }
}

/// The canonical text: with every field, one mapping for each protocol.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        self.mappings().iter().try_for_each(|mapping| write!(f, "{}{mapping}", std::mem::replace(&mut gap, " ")))
    }
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Spec> {
        parse(text)
    }
}

as_text!(Spec);

/// Parses one or more specs. An error gives the byte offset, what was found, and what was expected.
pub fn parse(text: &str) -> Result<Spec> {
    if text.len() > MAX_TEXT {
        return Err(error!(Spec, "the text has {} bytes; at most {MAX_TEXT} are read", text.len()).at(MAX_TEXT));
    }
    match specs(text) {
        Ok((_, spec)) => Ok(spec),
        Err(nom::Err::Error(stopped) | nom::Err::Failure(stopped)) => Err(stopped.report(text)),
        Err(nom::Err::Incomplete(_)) => Err(Error::new(Kind::Internal, "the parser asked for more text")),
    }
}

/// Where the parser stopped, what it expected there, and a hint for the user.
#[derive(Debug)]
struct Stopped<'a> {
    rest: &'a str,
    expected: &'static str,
    /// Empty for none.
    hint: String,
}

impl<'a> nom::error::ParseError<&'a str> for Box<Stopped<'a>> {
    fn from_error_kind(rest: &'a str, _: nom::error::ErrorKind) -> Self {
        Box::new(Stopped { rest, expected: "a port", hint: String::new() })
    }
    fn append(_: &'a str, _: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

impl Stopped<'_> {
    fn report(&self, text: &str) -> Error {
        let Stopped { rest, expected, hint } = self;
        let offset = text.len() - rest.len();
        let found = match token(rest) {
            "" if rest.is_empty() => "the end".to_owned(),
            "" => "white space".to_owned(),
            found => quoted(found),
        };
        let colon = if hint.is_empty() { "" } else { ": " };
        error!(Spec, "at byte {offset}: found {found}, expected {expected}{colon}{hint}").at(offset)
    }
}

/// What was parsed, and the rest of the text. The error is boxed, so that this is small if there is none.
type Parsed<'a, T> = nom::IResult<&'a str, T, Box<Stopped<'a>>>;

#[cold]
fn fail<'a, T>(rest: &'a str, expected: &'static str, hint: impl Into<String>) -> Parsed<'a, T> {
    Err(nom::Err::Failure(Box::new(Stopped { rest, expected, hint: hint.into() })))
}

/// The start of `text` up to white space.
fn token(text: &str) -> &str {
    text.split(char::is_whitespace).next().unwrap_or_default()
}

fn specs(text: &str) -> Parsed<'_, Spec> {
    let (mut rest, _) = multispace0.parse(text)?;
    if rest.is_empty() {
        return fail(rest, "a port spec", "such as 8080, 8080:80/udp or em0:8080:80");
    }
    let mut made = Spec::none();
    while !rest.is_empty() {
        rest = match spec_and_space(rest, &mut made) {
            Ok((behind, ())) => behind,
            // wherever the parser stopped in one, this is the right hint
            Err(_) if is_bare_inet6(rest) => {
                let hint = "an IPv6 address must be in brackets: [2001:db8::1]:8080:80";
                return fail(rest, "a port or a place", hint);
            }
            Err(stopped) => return Err(stopped),
        };
    }
    Ok((rest, made))
}

fn spec_and_space<'a>(start: &'a str, made: &mut Spec) -> Parsed<'a, ()> {
    let (after, ()) = spec(start, made)?;
    let (rest, _) = multispace0.parse(after)?;
    if rest.len() == after.len() && !rest.is_empty() {
        let hint = match after.as_bytes()[0] {
            b':' => "the protocol comes last: 8080:80/tcp",
            b',' => "several specs are separated by white space: 80 443",
            _ => "",
        };
        return fail(rest, "white space or the end", hint);
    }
    Ok((rest, ()))
}

fn spec<'a>(start: &'a str, made: &mut Spec) -> Parsed<'a, ()> {
    let (ports, place) = place(start)?;
    let (rest, host) = host_ports(ports, place)?;
    let (rest, jail) = match (rest.strip_prefix(':'), place, host) {
        (Some(rest), ..) => jail_ports(rest, host)?,
        (None, Some(place), _) => return fail(rest, "\":\" and a jail port", needs_both(place, Some(host))),
        (None, None, HostPorts::Fixed(range)) => (rest, range),
        (None, None, HostPorts::Auto) => return fail(rest, "\":\" and a jail port", "auto needs one: auto:80"),
    };
    if rest.starts_with(':') {
        let hint = match place {
            None => "the first of three fields is an interface, an address, [IPv6 address] or *: em0:8080:80",
            Some(_) => "a spec has at most three fields, and an IPv6 address in brackets",
        };
        let meant = meant::range(place, token(ports)).map(|meant| format!("; a range has a dash: {meant}"));
        return fail(rest, "\"/\", white space or the end", hint.to_owned() + &meant.unwrap_or_default());
    }
    let (rest, protocols) = protocols(rest)?;
    for protocol in protocols {
        made.push(Mapping { place, host, jail, protocol });
    }
    Ok((rest, ()))
}

fn needs_both(place: Place, host: Option<HostPorts>) -> String {
    let what = match place {
        Place::Interface(_) => "an interface",
        Place::Address(_) => "an address",
        Place::Any => "*",
        Place::AnyOf(_) => "every address of a family",
    };
    let example = match host {
        Some(HostPorts::Fixed(range)) => format!("{place}:{range}:{range}"),
        _ => format!("{place}:8080:80"),
    };
    format!("{what} needs host and jail port: {example}")
}

/// The place and the colon after it, or nothing if the spec starts with a host port.
fn place(start: &str) -> Parsed<'_, Option<Place>> {
    let (rest, place) = match start.as_bytes().first() {
        Some(b'*') => (&start[1..], Place::Any),
        Some(b'[') => bracketed(start)?,
        Some(b'0'..=b'9') => {
            let (rest, word): (_, &str) = take_while1(|c: char| c.is_ascii_digit() || c == '.').parse(start)?;
            if !word.contains('.') {
                return Ok((start, None));
            }
            let Ok(address) = word.parse::<Ipv4Addr>() else {
                return fail(start, "an IPv4 address", "four numbers, 0 to 255, without leading zeros");
            };
            (rest, checked(start, IpAddr::V4(address))?.1)
        }
        Some(letter) if letter.is_ascii_alphabetic() => {
            let (rest, word): (_, &str) =
                take_while(|c: char| c.is_ascii() && Interface::may_contain(c as u8)).parse(start)?;
            // `auto` before two more fields is an interface of that name
            if word == "auto" && token(rest).bytes().filter(|b| *b == b':').count() < 2 {
                return Ok((start, None));
            }
            if let Some(misread) = Misread::of(word) {
                return fail(start, "a port or a place", meant::place(misread, rest));
            }
            if !at_end_of_field(rest) {
                return fail(rest, "\":\"", "an interface name has letters, digits, _, . and - only");
            }
            match word.parse() {
                Ok(interface) => (rest, Place::Interface(interface)),
                Err(error) => return fail(start, "an interface", error.message()),
            }
        }
        Some(b':') => return fail(start, "a port or a place", meant::host_port(None, start)),
        _ => return fail(start, "a port, an interface, an address, [IPv6 address] or *", ""),
    };
    match rest.strip_prefix(':') {
        Some(ports) => Ok((ports, Some(place))),
        None => fail(rest, "\":\" and a host port", needs_both(place, None)),
    }
}

/// Whether a token that is not a spec starts with an IPv6 address without brackets, and not with an IPv4 address: more
/// colons than any spec has, and two in a row or as many as in a full address.
fn is_bare_inet6(start: &str) -> bool {
    let word = token(start);
    let colons = word.bytes().filter(|b| *b == b':').count();
    colons > 2
        && !word.starts_with('/')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.' | b'/'))
        && word.bytes().find(|b| !b.is_ascii_digit()) != Some(b'.')
        && (word.contains("::") || colons >= 7)
}

fn bracketed(start: &str) -> Parsed<'_, Place> {
    let inner = &start[1..];
    let Some(end) = token(inner).find(']') else {
        return fail(start, "an IPv6 address in brackets", "the closing ] is missing");
    };
    if let Ok(address) = inner[..end].parse::<Ipv6Addr>() {
        return Ok((&inner[end + 1..], checked(start, IpAddr::V6(address))?.1));
    }
    match inner[..end].find('%') {
        Some(zone) => fail(&inner[zone..], "\"]\"", "a zone is not part of an address here; name the interface"),
        None => fail(inner, "an IPv6 address", ""),
    }
}

fn checked(start: &str, address: IpAddr) -> Parsed<'_, Place> {
    match Place::address(address) {
        Ok(place) => Ok((start, place)),
        Err(why) => fail(start, "an address of the host", why),
    }
}

fn host_ports(start: &str, place: Option<Place>) -> Parsed<'_, HostPorts> {
    match start.strip_prefix("auto") {
        Some(rest) if place.is_none() || at_end_of_field(rest) => Ok((rest, HostPorts::Auto)),
        _ if at_end_of_field(start) => fail(start, "a port", meant::host_port(place, start)),
        _ => ports(start).map(|(rest, range)| (rest, HostPorts::Fixed(range))),
    }
}

fn jail_ports(start: &str, host: HostPorts) -> Parsed<'_, PortRange> {
    if at_end_of_field(start) {
        return fail(start, "a port", "jail port missing");
    }
    let (rest, jail) = ports(start)?;
    let HostPorts::Fixed(host) = host else { return Ok((rest, jail)) };
    if jail.count() == host.count() {
        return Ok((rest, jail));
    }
    if jail.count() != 1 {
        let hint =
            format!("{host} is {} ports, {jail} is {}; give as many, or the first one", host.count(), jail.count());
        return fail(start, "as many jail ports as host ports", hint);
    }
    let Some(jail) = PortRange::starting_at(jail.first(), host.count()) else {
        let hint = format!("{} ports from {} on would end above 65535", host.count(), jail.first());
        return fail(start, "a lower jail port", hint);
    };
    Ok((rest, jail))
}

fn at_end_of_field(text: &str) -> bool {
    text.is_empty() || text.starts_with(|c: char| matches!(c, ':' | '/') || c.is_whitespace())
}

fn ports(start: &str) -> Parsed<'_, PortRange> {
    let (rest, first) = port(start, "a port")?;
    let (rest, last) = match rest.strip_prefix('-') {
        Some(tail) => port(tail, "the last port of the range")?,
        None => (rest, first),
    };
    match PortRange::new(first, last) {
        Some(range) => Ok((rest, range)),
        None => fail(start, "a range that counts up", format!("write {last}-{first}")),
    }
}

fn port<'a>(start: &'a str, expected: &'static str) -> Parsed<'a, u16> {
    const RANGE: &str = "ports are 1 to 65535";
    let digits = start.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = start.split_at(digits);
    let hint = match (number.trim_start_matches('0'), number.parse::<u16>()) {
        ("", _) if digits == 0 => match rest.as_bytes().first() {
            Some(b'+' | b'-') => "ports have no sign".to_owned(),
            Some(letter) if letter.is_ascii_alphabetic() => "ports are numbers".to_owned(),
            _ => String::new(),
        },
        ("", _) if digits == 1 => format!("{RANGE}; auto is a free port: auto:80"),
        (meant, _) if !meant.is_empty() && meant != number => format!("no leading zeros: {meant}"),
        (_, Ok(port @ 1..)) => return Ok((rest, port)),
        _ => RANGE.to_owned(),
    };
    fail(start, expected, hint)
}

/// The protocols, in the order of lists; tcp without a "/".
fn protocols(start: &str) -> Parsed<'_, ArrayVec<Protocol, 3>> {
    let mut found = ArrayVec::new();
    let Some(mut rest) = start.strip_prefix('/') else {
        found.push(Protocol::Tcp);
        return Ok((start, found));
    };
    loop {
        let (after, word): (_, &str) = take_while(|c: char| c.is_ascii_alphanumeric()).parse(rest)?;
        let Some(protocol) = Protocol::named(word) else {
            let hint = match word.to_ascii_lowercase() {
                lower if Protocol::named(&lower).is_some() => format!("protocols are lower case: {lower}"),
                lower if lower.is_empty() => "protocol missing".to_owned(),
                _ => String::new(),
            };
            return fail(rest, "tcp, udp or sctp", hint);
        };
        if found.contains(&protocol) {
            return fail(rest, "another protocol", format!("{protocol} is given twice"));
        }
        found.push(protocol);
        rest = match after.as_bytes().first() {
            Some(b',') => &after[1..],
            Some(b'/') => return fail(after, "\",\"", "write several protocols as tcp,udp"),
            _ => {
                found.sort_unstable();
                return Ok((after, found));
            }
        };
    }
}
