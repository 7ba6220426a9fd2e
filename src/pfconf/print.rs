//! Rules as pfctl(8) prints them (print_rule in sbin/pfctl/pfctl_parser.c); the output reads as the same rules.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};

use super::address::{Compared, OfInterface, Operand, Operator, Part, Pool, PoolAddress, PoolKind, Side};
use super::lex::{Token, is_word};
use super::operands::PROXY_PORTS;
use super::path::Called;
use super::rule::{Action, Keep, On, Owner, RouteKind, Rule, RuleKind};
use super::{Conf, names};

impl Conf {
    fn ruleset<'a>(
        &'a self, f: &mut Formatter<'_>, path: &str, depth: usize, printed: &mut HashSet<&'a str>,
    ) -> fmt::Result {
        for rule in self.rulesets.get(path).into_iter().flatten() {
            write!(f, "{:1$}", "", 2 * depth)?;
            let Action::Call(RuleKind::Filter, called) = &rule.action else {
                writeln!(f, "{rule}")?;
                continue;
            };
            let Called { path: below, children } = Called::resolve(path, called);
            match self.rulesets.get_key_value(&below) {
                // the rules in braces are printed with the first call
                Some((below, _)) if depth < 64 && !children && !called.contains('/') && printed.insert(below) => {
                    let name = if called.starts_with('_') { String::new() } else { format!(" {}", quoted(called)) };
                    writeln!(f, "anchor{name}{} {{", rest(rule))?;
                    self.ruleset(f, below, depth + 1, printed)?;
                    writeln!(f, "{:1$}}}", "", 2 * depth)?;
                }
                _ => writeln!(f, "{rule}")?,
            }
        }
        Ok(())
    }
}

impl Display for Conf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(if self.syncookies { "set syncookies always\n" } else { "" })?;
        self.skip.iter().try_for_each(|name| writeln!(f, "set skip on {}", string(name)))?;
        for (name, table) in &self.tables {
            let networks = table.networks().map(|(not, network)| (not, Operand::Network(network)));
            let entries = networks.chain(table.others.iter().cloned());
            let entries: String = entries.map(|(not, operand)| format!(" {}", negated(not, operand))).collect();
            writeln!(f, "table <{}> {{{entries} }}", word(name))?;
        }
        self.ether.iter().try_for_each(|rule| writeln!(f, "{rule}"))?;
        self.ruleset(f, "", 0, &mut HashSet::new())
    }
}

impl Rule {
    /// Its conditions; empty if it matches every packet.
    pub fn conditions(&self) -> String {
        let text = rest(self);
        text.split(' ').filter(|word| !word.is_empty() && *word != "all").collect::<Vec<_>>().join(" ")
    }

    /// The rule, with its own text as its position.
    pub fn named(mut self) -> Rule {
        self.origin.text = self.to_string().into();
        self
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Pass => f.write_str("pass")?,
            Action::Block => f.write_str("block")?,
            Action::Match => f.write_str("match")?,
            Action::Translate { kind, pool, pass } => {
                let no = if pool.is_none() { "no " } else { "" };
                write!(f, "{no}{}{}", kind.call().trim_end_matches("-anchor"), if *pass { " pass" } else { "" })?;
            }
            Action::Call(kind, called) => write!(f, "{} {}", kind.call(), quoted(called))?,
        }
        f.write_str(&rest(self))
    }
}

/// Words, with a blank before each.
#[derive(Default)]
struct Line(String);

impl Line {
    fn add(&mut self, word: impl Display) {
        self.0 += &format!(" {word}");
    }

    fn flag(&mut self, is: bool, word: &str) {
        if is {
            self.add(word);
        }
    }

    fn value(&mut self, word: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.0 += &format!(" {word} {value}");
        }
    }
}

/// A rule without its action.
fn rest(rule: &Rule) -> String {
    let (when, effects) = (&rule.when, &rule.effects);
    let mut line = Line::default();
    when.direction.into_iter().for_each(|direction| line.add(direction));
    line.flag(rule.log, "log");
    line.flag(rule.quick, "quick");
    let interface = |on: &On| if on.name == "any" { on.name.clone() } else { string(&on.name) };
    line.value("on", when.on.as_ref().map(|on| negated(on.not, interface(on))));
    if let Some((kind, to)) = &effects.route {
        let word = match kind {
            RouteKind::Packets => "route-to",
            RouteKind::Replies => "reply-to",
            RouteKind::Copies => "dup-to",
        };
        line.value(word, Some(pool(to, false)));
    }
    when.family.into_iter().for_each(|family| line.add(family));
    line.value("proto", when.protocol.map(names::protocol_name));
    if when.from == Side::default() && when.to == Side::default() && when.os.is_none() {
        line.add("all");
    } else {
        line.value("from", Some(side(&when.from)));
        line.value("os", when.os.as_ref().map(|os| string(os)));
        line.value("to", Some(side(&when.to)));
    }
    if let Some(on) = &when.received_on {
        line.add(negated(on.not, format!("received-on {}", string(&on.name))));
    }
    for (word, owner) in [("user", &when.user), ("group", &when.group)] {
        let owner = owner.iter().map(|owner| Owner { a: self::word(&owner.a), ..owner.clone() });
        owner.for_each(|owner| line.add(format!("{word}{}", compared(&owner))));
    }
    match when.flags {
        Some((set, of)) => line.add(format!("flags {}/{}", names::flag_letters(set), names::flag_letters(of))),
        None => {
            let tcp = when.protocol.is_none_or(|protocol| protocol == 6);
            line.flag(effects.keep.is_some() && tcp && !when.fragment, "flags any");
        }
    }
    if let Some((kind, code)) = when.icmp {
        line.value(if when.protocol == Some(58) { "icmp6-type" } else { "icmp-type" }, Some(kind));
        line.value("code", code);
    }
    line.value("tos", when.tos.map(|tos| format!("0x{tos:02x}")));
    line.value("prio", when.prio);
    line.value("max-pkt-rate", when.max_pkt_rate.map(|(packets, seconds)| format!("{packets}/{seconds}")));
    line.value("max-pkt-size", Some(effects.max_pkt_size).filter(|size| *size > 0));
    match &effects.keep {
        Some(keep) => line.add(state(keep)),
        None => line.flag(rule.action == Action::Pass, "no state"),
    }
    line.value("probability", when.probability.as_ref().map(|probability| word(probability)));
    line.flag(when.fragment, "fragment");
    rule.labels.iter().for_each(|label| line.value("label", Some(string(label))));
    line.value("tag", rule.tag.as_ref().map(|tag| string(tag)));
    if let Some((not, tag)) = &when.tagged {
        line.add(negated(*not, format!("tagged {}", string(tag))));
    }
    line.value("rtable", effects.rtable);
    line.value("divert-to", effects.divert);
    line.flag(rule.once, "once");
    if let Action::Translate { kind, pool: Some(to), .. } = &rule.action {
        line.value("->", Some(pool(to, *kind == RuleKind::Nat)));
    }
    if let Some((family, source, target)) = &effects.af_to {
        line.add(format!("af-to {family} from {}", pool(source, true)));
        line.value("to", target.as_ref().map(|target| pool(target, false)));
    }
    line.value("nat-to", effects.nat_to.as_ref().map(|to| pool(to, true)));
    line.value("rdr-to", effects.rdr_to.as_ref().map(|to| pool(to, false)));
    when.unknown.iter().for_each(|unknown| line.add(unknown));
    line.0
}

/// A text without quotes if it has only letters, digits and `_`, and is not a keyword.
fn string(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if text.bytes().all(plain) { word(text) } else { quoted(text) }
}

/// A text without quotes if it is read as one string without them.
fn word(text: &str) -> String {
    if is_word(text) && !names::is_keyword(text) { text.to_owned() } else { quoted(text) }
}

/// A text in quotes. A backslash is an ordinary character, except before a quote or a blank, which it escapes.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    let mut last = '"';
    for c in text.chars() {
        if c == '"' || last == '\\' && matches!(c, ' ' | '\t') {
            quoted.push('\\');
        }
        quoted.push(c);
        last = c;
    }
    quoted + "\""
}

/// Words and signs, in a form that can be read again.
pub(super) fn written(tokens: &[Token]) -> String {
    let one = |token: &Token| match token {
        Token::Word(word) if is_word(word) => word.clone(),
        Token::Word(text) | Token::Quoted(text) => quoted(text),
        Token::Sign(sign) => (*sign).to_owned(),
    };
    tokens.iter().map(one).collect::<Vec<_>>().join(" ")
}

pub(super) fn negated(not: bool, what: impl Display) -> String {
    format!("{}{what}", if not { "! " } else { "" })
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Any => f.write_str("any"),
            Operand::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Operand::Network(network) => network.fmt(f),
            Operand::Range(first, last) => write!(f, "{first} - {last}"),
            Operand::Interface(of) => f.write_str(&of_interface(of)),
            Operand::Table(name) => write!(f, "<{}>", word(name)),
            Operand::NoRoute => f.write_str("no-route"),
            Operand::UrpfFailed => f.write_str("urpf-failed"),
            Operand::Named(name) => f.write_str(&word(name)),
        }
    }
}

fn of_interface(of: &OfInterface) -> String {
    let part = match of.part {
        Part::Address => "",
        Part::Network => ":network",
        Part::Broadcast => ":broadcast",
        Part::Peer => ":peer",
    };
    let name = word(&format!("{}{part}{}", of.name, if of.first { ":0" } else { "" }));
    let name = if of.dynamic { format!("({name})") } else { name };
    of.bits.map_or_else(|| name.clone(), |bits| format!("{name}/{bits}"))
}

fn side(side: &Side) -> String {
    let ports = side.ports.as_ref().map_or_else(String::new, |ports| format!(" port{}", compared(ports)));
    format!("{}{ports}", negated(side.not, &side.address))
}

pub(super) fn compared<N: Display>(Compared { operator, a, b }: &Compared<N>) -> String {
    match operator {
        Operator::Range => format!(" {a}:{b}"),
        Operator::Between | Operator::Outside => format!(" {a} {} {b}", operator.sign()),
        _ => format!(" {} {a}", operator.sign()),
    }
}

fn state(keep: &Keep) -> String {
    let limits = Keep::LIMITS.into_iter().zip(keep.limits).filter(|(_, number)| *number > 0);
    let mut options: Vec<String> = limits.map(|(word, number)| format!("{word} {number}")).collect();
    if let (connections @ 1.., seconds) = keep.max_src_conn_rate {
        options.push(format!("max-src-conn-rate {connections}/{seconds}"));
    }
    options.extend(keep.if_bound.then(|| "if-bound".to_owned()));
    let word = if keep.synproxy { "synproxy" } else { "keep" };
    let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
    format!("{word} state{options}")
}

fn pool(pool: &Pool, source: bool) -> String {
    let one = |at: &PoolAddress| match (&at.interface, &at.address) {
        (Some(interface), Some(operand)) => format!("({} {operand})", string(interface)),
        (Some(interface), None) => string(interface),
        (None, operand) => operand.as_ref().map_or_else(String::new, Operand::to_string),
    };
    let all: Vec<String> = pool.addresses.iter().map(one).collect();
    let mut line = Line(if all.len() == 1 { all[0].clone() } else { format!("{{ {} }}", all.join(", ")) });
    match pool.ports {
        (0, 0) => {}
        ports if source && ports == PROXY_PORTS => {}
        (first, last) if last == 0 || first == last => line.value("port", Some(first)),
        (first, last) => line.value("port", Some(format!("{first}:{last}"))),
    }
    match &pool.kind {
        PoolKind::Single => {}
        PoolKind::Bitmask => line.add("bitmask"),
        PoolKind::Random => line.add("random"),
        PoolKind::SourceHash(key) if key.is_empty() => line.add("source-hash"),
        PoolKind::SourceHash(key) => line.value("source-hash", Some(string(key))),
        PoolKind::RoundRobin => line.add("round-robin"),
    }
    line.flag(pool.sticky, "sticky-address");
    line.flag(pool.endpoint_independent, "endpoint-independent");
    line.flag(source && pool.ports == (0, 0), "static-port");
    line.value("map-e-portset", pool.portset.map(|(offset, length, id)| format!("{offset}/{length}/{id}")));
    line.flag(pool.prefer_ipv6_nexthop, "prefer-ipv6-nexthop");
    line.0
}
