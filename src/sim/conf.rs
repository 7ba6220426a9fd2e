//! The subset of pf.conf(5) that the simulator reads: what decides about a packet. Anything else is refused by line,
//! so that a trace never rests on a guess.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use ipnet::IpNet;

use super::rule::{Action, Keep, Operand, PortMatch, Rule, RuleKind, Side, Target, each};
use crate::error::{self, Error, Result, quoted};
use crate::host::{HostInterface, Interfaces};
use crate::name::Table;
use crate::net::{Family, Interface, PortRange};
use crate::pf::foreign;
use crate::rule::{Direction, Rate, StateOptions};

/// Rules and settings, read from text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    pub(super) rules: Vec<Rule>,
    pub(super) skip: Vec<Interface>,
    pub(super) if_bound: bool,
    pub(super) tables: BTreeMap<String, Vec<IpNet>>,
}

impl Conf {
    /// Whether it defines the table.
    pub fn has_table(&self, table: &Table) -> bool {
        self.tables.contains_key(table.as_str())
    }

    /// Whether it calls this path, `kport/*` for example, for nat, rdr and filter rules.
    pub fn calls(&self, path: &str) -> [bool; 3] {
        [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter].map(|kind| {
            self.rules
                .iter()
                .any(|rule| matches!(&rule.action, Action::Call(of, called) if *of == kind && called == path))
        })
    }
}

impl FromStr for Conf {
    type Err = Error;

    /// Reads pf.conf(5) text, or what pfctl(8) `-s nat` and `-s rules` print. `match`, `route-to`, `binat`, inline
    /// anchors, tables in files, names of hosts and services are among what is refused.
    fn from_str(text: &str) -> Result<Conf> {
        let mut made = Conf::default();
        let mut macros = HashMap::new();
        let mut start = 1;
        let mut joined = String::new();
        for (number, line) in (1..).zip(text.lines().chain([""])) {
            if joined.is_empty() {
                start = number;
            }
            let line = without_comment(line);
            if let Some(head) = line.trim_end().strip_suffix('\\') {
                joined.push_str(head);
                joined.push(' ');
                continue;
            }
            joined.push_str(line);
            let whole = std::mem::take(&mut joined);
            let read = words(&whole, &macros).and_then(|words| made.statement(&whole, Words(&words), &mut macros));
            read.map_err(|why| {
                Error::new(error::Kind::Unsupported, format!("pf.conf line {start}: {why}: {}", quoted(whole.trim())))
            })?;
        }
        Ok(made)
    }
}

impl Conf {
    /// The interfaces and groups of `set skip`.
    pub fn skipped(&self) -> &[Interface] {
        &self.skip
    }

    /// The rule that keeps IPv6 neighbour discovery (icmp6) from passing an interface, if one does. Its addresses are link-local,
    /// multicast and what is asked for: a block of certain addresses is not taken to be meant for it, a pass of certain
    /// addresses is if it names icmp6.
    pub fn blocks_neighbours(&self, all: &[HostInterface], on: Interface, direction: Direction) -> Option<&str> {
        const ICMP6: u8 = 58;
        let is_in = |name| Interfaces(all).is_in(on, name);
        if self.skip.iter().any(|name| is_in(*name)) {
            return None;
        }
        let mut last: Option<&Rule> = None;
        for rule in &self.rules {
            let certain = rule.from != Side::any() || rule.to != Side::any() || rule.tagged.is_some();
            let meant = match rule.action {
                Action::Block => !certain,
                Action::Pass => !certain || rule.protocol == Some(ICMP6),
                Action::Nat(_) | Action::Rdr(_) | Action::Call(..) => false,
            };
            if meant
                && rule.on.is_none_or(|(not, name)| is_in(name) != not)
                && rule.direction.is_none_or(|wanted| wanted == direction)
                && rule.family != Some(Family::Inet)
                && rule.protocol.is_none_or(|number| number == ICMP6)
            {
                last = Some(rule);
                if rule.quick {
                    break;
                }
            }
        }
        last.filter(|rule| rule.action == Action::Block).map(|rule| rule.text.as_str())
    }
}

/// The most words of a statement, macros put in, and the most rules that its lists stand for: more is a mistake, or
/// malice.
const MOST: usize = 1 << 16;

/// Why a statement was not read.
type Read<T> = std::result::Result<T, String>;

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let end = line.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b'#' && !quoted
    });
    &line[..end.unwrap_or(line.len())]
}

/// Splits a statement; macros are put in.
fn words(text: &str, macros: &HashMap<String, Vec<String>>) -> Read<Vec<String>> {
    let mut words = vec![];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let end = rest[1..].find('"').ok_or("a quote is not closed")?;
                words.push(rest[1..=end].to_owned());
                rest = rest[end + 2..].trim_start();
                continue;
            }
            '{' | '}' | '(' | ')' | ',' => 1,
            '<' if rest[1..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') => {
                rest.find('>').ok_or("a < is not closed")? + 1
            }
            '!' | '=' | '<' | '>' => rest.find(|c| !matches!(c, '!' | '=' | '<' | '>')).unwrap_or(rest.len()),
            _ => rest.find(|c: char| c.is_whitespace() || "{}(),\"!=<>".contains(c)).unwrap_or(rest.len()),
        };
        let word = if rest.starts_with("->") { "->" } else { &rest[..length] };
        match word.strip_prefix('$') {
            Some(name) => words.extend_from_slice(macros.get(name).ok_or(format!("macro {name} is not defined"))?),
            None if word != "," => words.push(word.to_owned()),
            None => {}
        }
        if words.len() > MOST {
            return Err(format!("more than {MOST} words"));
        }
        rest = rest[word.len()..].trim_start();
    }
    Ok(words)
}

/// What is left of a statement.
#[derive(Clone, Copy)]
struct Words<'a>(&'a [String]);

impl<'a> Words<'a> {
    fn peek(&self) -> &'a str {
        self.0.first().map_or("", String::as_str)
    }

    fn next(&mut self) -> Read<&'a str> {
        let (first, rest) = self.0.split_first().ok_or("the statement ends too early")?;
        self.0 = rest;
        Ok(first)
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.peek() == word && !self.0.is_empty();
        if there {
            self.0 = &self.0[1..];
        }
        there
    }

    /// One thing, or several in braces.
    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        if !self.take("{") {
            return Ok(vec![one(self)?]);
        }
        let mut all = vec![];
        while !self.take("}") {
            all.push(one(self)?);
        }
        if all.is_empty() { Err("an empty list".to_owned()) } else { Ok(all) }
    }

    /// What stands in round brackets, word by word.
    fn bracketed(&mut self) -> Read<Vec<&'a str>> {
        let mut all = vec![];
        if self.take("(") {
            while !self.take(")") {
                all.push(self.next()?);
            }
        }
        Ok(all)
    }

    fn parsed<T: FromStr>(&mut self, what: &str) -> Read<T> {
        let word = self.next()?;
        word.parse().map_err(|_| format!("{} is no {what} that the simulator knows", quoted(word)))
    }
}

impl Conf {
    fn statement(&mut self, text: &str, words: Words<'_>, macros: &mut HashMap<String, Vec<String>>) -> Read<()> {
        if let [name, equals, value @ ..] = words.0
            && equals == "="
        {
            // the value is text of its own
            let value = value.join(" ");
            macros.insert(name.clone(), self::words(&value, macros)?);
            return Ok(());
        }
        match words.peek() {
            "" if words.0.is_empty() => Ok(()),
            "set" => self.set(words),
            "table" => self.table(words),
            // scrub rules change no address and pass everything
            "scrub" => Ok(()),
            _ => self.rule(text.trim(), words),
        }
    }

    fn set(&mut self, mut words: Words<'_>) -> Read<()> {
        words.next()?;
        match words.next()? {
            "skip" => {
                if !words.take("on") {
                    return Err("expected on".to_owned());
                }
                self.skip.append(&mut words.list(|words| words.parsed("interface"))?);
            }
            "state-policy" => self.if_bound = words.next()? == "if-bound",
            // the other settings decide about no packet of a trace, but for these
            word @ ("ruleset-optimization"
            | "limit"
            | "timeout"
            | "optimization"
            | "block-policy"
            | "loginterface"
            | "debug"
            | "hostid"
            | "reassemble"
            | "fingerprints"
            | "keepcounters"
            | "require-order"
            | "syncookies") => {
                _ = word;
            }
            word => return Err(format!("set {word} is not known to the simulator")),
        }
        Ok(())
    }

    fn table(&mut self, mut words: Words<'_>) -> Read<()> {
        words.next()?;
        let name = table(words.next()?)?.ok_or("expected <name>")?;
        let mut networks = vec![];
        while !words.0.is_empty() {
            match words.next()? {
                "persist" | "const" | "counters" => {}
                "{" => {
                    while !words.take("}") {
                        networks.push(network(words.next()?).ok_or("a table holds addresses and networks")?);
                    }
                }
                word => return Err(format!("{word} of a table is not known to the simulator")),
            }
        }
        self.tables.insert(name, networks);
        Ok(())
    }

    fn rule(&mut self, text: &str, mut words: Words<'_>) -> Read<()> {
        let no = words.take("no");
        let mut rule = Rule::new(text.to_owned(), Action::Pass);
        match words.next()? {
            "pass" if !no => {
                rule.keep = Some(Keep { if_bound: self.if_bound, options: StateOptions::default() });
                rule.starts_only = true;
            }
            "block" if !no => {
                rule.action = Action::Block;
                if matches!(words.peek(), "drop" | "return" | "return-rst" | "return-icmp" | "return-icmp6") {
                    words.next()?;
                    words.bracketed()?;
                }
            }
            word @ ("anchor" | "nat-anchor" | "rdr-anchor") if !no => {
                let kind = match word {
                    "anchor" => RuleKind::Filter,
                    "nat-anchor" => RuleKind::Nat,
                    _ => RuleKind::Rdr,
                };
                rule.quick = words.take("quick");
                let called = words.next()?;
                if called == "all" || called == "{" {
                    return Err("an anchor without a name is not known to the simulator".to_owned());
                }
                // this is the main ruleset: a path from the root, and one from here, are the same
                rule.action = Action::Call(kind, foreign::Called::resolve("", called).to_string());
            }
            "nat" => rule.action = Action::Nat(None),
            "rdr" => rule.action = Action::Rdr(None),
            word => return Err(format!("{} is not known to the simulator", quoted(word))),
        }
        let pass = !no && matches!(rule.action, Action::Rdr(_) | Action::Nat(_)) && words.take("pass");
        if pass && matches!(rule.action, Action::Nat(_)) {
            return Err("nat pass is not known to the simulator".to_owned());
        }
        let mut lists = Lists::default();
        let to_nowhere = no || rule.action.kind() == RuleKind::Filter || matches!(rule.action, Action::Call(..));
        while !words.0.is_empty() && words.peek() != "->" {
            self.condition(&mut rule, &mut lists, &mut words)?;
        }
        if !to_nowhere {
            if !words.take("->") {
                return Err("expected ->".to_owned());
            }
            let address = operand(&mut words)?;
            let mut ports = None;
            let mut open = false;
            if words.take("port") {
                let word = words.next()?;
                open = word.ends_with(":*");
                ports = Some(range(word.trim_end_matches(":*"))?);
            }
            while !words.0.is_empty() {
                match words.next()? {
                    "round-robin" | "static-port" | "sticky-address" | "random" | "source-hash" => {}
                    word => return Err(format!("{} behind -> is not known to the simulator", quoted(word))),
                }
            }
            if let (true, Some(first)) = (open, ports) {
                let count = lists.to.iter().find_map(|side| match side.ports {
                    Some(PortMatch::In(a, b)) => b.checked_sub(a)?.checked_add(1),
                    _ => None,
                });
                ports = count.and_then(|count| PortRange::starting_at(first.first(), count));
            }
            match &mut rule.action {
                Action::Nat(pool) => *pool = Some(address),
                Action::Rdr(target) => *target = Some(Target { address, ports, pass }),
                _ => {}
            }
        }
        if !words.0.is_empty() {
            return Err(format!("{} is not expected", quoted(words.peek())));
        }
        if lists.product() > MOST {
            return Err(format!("its lists stand for more than {MOST} rules"));
        }
        self.rules.extend(lists.expand(rule));
        Ok(())
    }

    fn condition(&self, rule: &mut Rule, lists: &mut Lists, words: &mut Words<'_>) -> Read<()> {
        match words.next()? {
            "in" => rule.direction = Some(Direction::In),
            "out" => rule.direction = Some(Direction::Out),
            "quick" => rule.quick = true,
            "log" => _ = words.bracketed()?,
            "all" | "any" => {}
            "on" => {
                lists.on = words.list(|words| {
                    let not = words.take("!");
                    words.parsed("interface").map(|name| (not, name))
                })?
            }
            "inet" => rule.family = Some(Family::Inet),
            "inet6" => rule.family = Some(Family::Inet6),
            "proto" => {
                lists.protocols = words.list(|words| {
                    let word = words.next()?;
                    let known = [
                        ("tcp", 6),
                        ("udp", 17),
                        ("sctp", 132),
                        ("icmp", 1),
                        ("icmp6", 58),
                        ("ipv6-icmp", 58),
                        ("igmp", 2),
                        ("esp", 50),
                        ("ah", 51),
                        ("gre", 47),
                        ("carp", 112),
                        ("pfsync", 240),
                        ("ipencap", 4),
                        ("ipv6", 41),
                    ];
                    let number = known.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
                    number
                        .or_else(|| word.parse().ok())
                        .ok_or_else(|| format!("protocol {} is not known", quoted(word)))
                })?
            }
            "from" => lists.from = sides(words)?,
            "to" => lists.to = sides(words)?,
            "icmp-type" | "icmp6-type" => _ = words.list(|words| words.next())?,
            "code" => _ = words.next()?,
            "flags" => match words.next()? {
                "any" => rule.starts_only = false,
                "S/SA" => rule.starts_only = true,
                word => return Err(format!("flags {word} is not known to the simulator")),
            },
            "tag" => rule.tag = Some(words.next()?.to_owned()),
            "tagged" => rule.tagged = Some((false, words.next()?.to_owned())),
            "!" if words.take("tagged") => rule.tagged = Some((true, words.next()?.to_owned())),
            "label" | "ridentifier" => _ = words.next()?,
            "no" if words.take("state") => (rule.keep, rule.starts_only) = (None, false),
            "keep" if words.take("state") => rule.keep = Some(self.keep(&words.bracketed()?)?),
            word => return Err(format!("{} is not known to the simulator", quoted(word))),
        }
        Ok(())
    }

    fn keep(&self, options: &[&str]) -> Read<Keep> {
        let mut keep = Keep { if_bound: self.if_bound, options: StateOptions::default() };
        let mut words = options.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().copied().unwrap_or_default();
            let number = |text: &str| text.parse().map(Some).map_err(|_| format!("{word} {}", quoted(text)));
            match *word {
                "if-bound" => keep.if_bound = true,
                "floating" => keep.if_bound = false,
                "max" => keep.options.max = number(value())?,
                "max-src-states" => keep.options.max_src_states = number(value())?,
                "max-src-conn" => keep.options.max_src_conn = number(value())?,
                "max-src-conn-rate" => {
                    keep.options.max_src_conn_rate =
                        Some(value().parse::<Rate>().map_err(|error| error.message().to_owned())?);
                }
                // the rest of source-track, and what changes no verdict
                "source-track" | "rule" | "global" | "no-sync" | "pflow" => {}
                // time-outs, each with its number: there is no time here
                word if word.contains('.') => _ = number(value())?,
                word => return Err(format!("state option {} is not known to the simulator", quoted(word))),
            }
        }
        Ok(keep)
    }
}

/// The lists of a rule before they are multiplied out.
#[derive(Default)]
struct Lists {
    on: Vec<(bool, Interface)>,
    protocols: Vec<u8>,
    from: Vec<Side>,
    to: Vec<Side>,
}

impl Lists {
    fn product(&self) -> usize {
        let lengths = [self.on.len(), self.protocols.len(), self.from.len(), self.to.len()];
        lengths.into_iter().fold(1, |product, length| product.saturating_mul(length.max(1)))
    }

    fn expand(&self, rule: Rule) -> Vec<Rule> {
        let mut made = vec![];
        for on in each(&self.on) {
            for protocol in each(&self.protocols) {
                for from in each(&self.from) {
                    for to in each(&self.to) {
                        made.push(Rule {
                            on: on.copied(),
                            protocol: protocol.copied(),
                            from: from.cloned().unwrap_or_else(Side::any),
                            to: to.cloned().unwrap_or_else(Side::any),
                            ..rule.clone()
                        });
                    }
                }
            }
        }
        made
    }
}

/// `{ a !b } port { 80 443 }`, multiplied out.
fn sides(words: &mut Words<'_>) -> Read<Vec<Side>> {
    let addresses = if words.peek() == "port" {
        vec![(false, Operand::Any)]
    } else {
        words.list(|words| {
            let not = words.take("!");
            operand(words).map(|address| (not, address))
        })?
    };
    let ports = if words.take("port") { words.list(port_match)?.into_iter().map(Some).collect() } else { vec![None] };
    if addresses.len().saturating_mul(ports.len()) > MOST {
        return Err(format!("its lists stand for more than {MOST} rules"));
    }
    let side = |(not, address): &(bool, Operand)| {
        let (not, address) = (*not, address.clone());
        ports.iter().map(move |ports| Side { not, address: address.clone(), ports: *ports }).collect::<Vec<_>>()
    };
    Ok(addresses.iter().flat_map(side).collect())
}

fn port_match(words: &mut Words<'_>) -> Read<PortMatch> {
    let number = |text: &str| text.parse::<u16>().map_err(|_| format!("port {} is not a number", quoted(text)));
    let first = words.next()?;
    let compared = match first {
        "=" => number(words.next()?).map(|n| PortMatch::In(n, n))?,
        "!=" => number(words.next()?).map(|n| PortMatch::NotIn(n, n))?,
        ">" => number(words.next()?).map(|n| PortMatch::NotIn(0, n))?,
        ">=" => PortMatch::In(number(words.next()?)?, u16::MAX),
        "<" => number(words.next()?).map(|n| PortMatch::NotIn(n, u16::MAX))?,
        "<=" => PortMatch::In(0, number(words.next()?)?),
        _ => {
            let (a, b) = first.split_once(':').unwrap_or((first, first));
            let (a, b) = (number(a)?, number(b)?);
            if a > b {
                return Err(format!("ports {a}:{b} count down"));
            }
            match words.peek() {
                // both ends left out
                "><" => {
                    words.next()?;
                    let b = number(words.next()?)?;
                    match (a.checked_add(1), b.checked_sub(1)) {
                        (Some(low), Some(high)) if low <= high => PortMatch::In(low, high),
                        _ => return Err("a range of ports that holds none".to_owned()),
                    }
                }
                "<>" => {
                    words.next()?;
                    PortMatch::NotIn(a, number(words.next()?)?)
                }
                _ => PortMatch::In(a, b),
            }
        }
    };
    Ok(compared)
}

fn range(text: &str) -> Read<PortRange> {
    text.replace(':', "-").parse().map_err(|error: Error| error.message().to_owned())
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| IpNet::from(address)))
}

fn table(word: &str) -> Read<Option<String>> {
    let Some(name) = word.strip_prefix('<').and_then(|word| word.strip_suffix('>')) else { return Ok(None) };
    name.parse::<Table>().map(|table| Some(table.to_string())).map_err(|error| error.message().to_owned())
}

/// An address: `any`, `10.0.0.0/8`, `em0:network`, `(em0:0)`, `self`, `<table>`. pf takes the addresses of a name
/// without brackets once, when the rules are loaded; here they are those of the moment. Such a name must end in a
/// number, as an interface's does: any other may be a host's, which nobody looks up here.
fn operand(words: &mut Words<'_>) -> Read<Operand> {
    let dynamic = words.take("(");
    let word = words.next()?;
    if dynamic && !words.take(")") {
        return Err("expected )".to_owned());
    }
    if let Some(name) = table(word)? {
        return Ok(Operand::Table(name));
    }
    if let Some(network) = network(word) {
        return Ok(Operand::Network(network));
    }
    let refuse = || Err(format!("address {} is not known to the simulator", quoted(word)));
    let (name, modifier) = word.split_once(':').unwrap_or((word, ""));
    match (name, modifier) {
        ("any", "") => Ok(Operand::Any),
        ("self", "") => Ok(Operand::Own),
        (_, "" | "0" | "network") if dynamic || name.ends_with(|c: char| c.is_ascii_digit()) => match name.parse() {
            Ok(name) => Ok(Operand::Interface { name, network: modifier == "network", first: modifier == "0" }),
            Err(_) => refuse(),
        },
        _ => refuse(),
    }
}
