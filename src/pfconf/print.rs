//! Rules as pfctl(8) prints them (print_rule in sbin/pfctl/pfctl_parser.c), as far as they are kept: what is printed reads as the
//! same rules.

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter, Write};

use super::Conf;
use super::address::{Compared, OfInterface, Operand, Operator, Part, Pool, PoolKind, Side};
use super::names;
use super::operands::PROXY_PORTS;
use super::path::Called;
use super::rule::{Action, Keep, On, Owner, RouteKind, Rule, RuleKind};

impl Conf {
    /// What holds for all rules.
    pub(super) fn settings(&self) -> String {
        let mut text = String::new();
        if self.syncookies {
            text += "set syncookies always\n";
        }
        for name in &self.skip {
            text += &format!("set skip on {}\n", string(name));
        }
        for (name, table) in &self.tables {
            text += &format!("table <{name}> {{");
            for (not, network) in table.networks() {
                text += &format!(" {}", address(not, &Operand::Network(network)));
            }
            for (not, operand) in &table.others {
                text += &format!(" {}", address(*not, operand));
            }
            text += " }\n";
        }
        for rule in &self.ether {
            text += rule;
            text.push('\n');
        }
        text
    }
}

impl Display for Conf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.settings())?;
        let mut printed = HashSet::new();
        self.ruleset(f, "", 0, &mut printed)
    }
}

impl Conf {
    fn ruleset<'a>(
        &'a self,
        f: &mut Formatter<'_>,
        path: &str,
        depth: usize,
        printed: &mut HashSet<&'a str>,
    ) -> fmt::Result {
        let Some((_, rules)) = self.rulesets.get_key_value(path) else { return Ok(()) };
        for rule in rules {
            write!(f, "{:1$}", "", 2 * depth)?;
            let Action::Call(RuleKind::Filter, called) = &rule.action else {
                writeln!(f, "{rule}")?;
                continue;
            };
            let below = Called::resolve(path, called).path;
            match self.rulesets.get_key_value(&below) {
                // the rules in braces stand with the first call
                Some((below, _)) if depth < 64 && !called.contains('/') && printed.insert(below) => {
                    let name = if called.starts_with('_') { String::new() } else { format!(" \"{called}\"") };
                    writeln!(f, "anchor{name}{} {{", Rest(rule))?;
                    self.ruleset(f, below, depth + 1, printed)?;
                    writeln!(f, "{:1$}}}", "", 2 * depth)?;
                }
                _ => writeln!(f, "{rule}")?,
            }
        }
        Ok(())
    }
}

impl Rule {
    /// Its conditions; empty if it is about every packet.
    pub(crate) fn conditions(&self) -> String {
        let text = Rest(self).to_string();
        text.split(' ').filter(|word| !word.is_empty() && *word != "all").collect::<Vec<_>>().join(" ")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Pass => f.write_str("pass")?,
            Action::Block => f.write_str("block")?,
            Action::Match => f.write_str("match")?,
            Action::Translate { kind, pool, pass } => {
                let word = word(*kind);
                let no = if pool.is_none() { "no " } else { "" };
                write!(f, "{no}{word}{}", if *pass { " pass" } else { "" })?;
            }
            Action::Call(kind, called) => write!(f, "{} \"{called}\"", kind.call())?,
        }
        write!(f, "{}", Rest(self))
    }
}

fn word(kind: RuleKind) -> &'static str {
    match kind {
        RuleKind::Nat => "nat",
        RuleKind::Rdr => "rdr",
        RuleKind::Binat => "binat",
        RuleKind::Filter => "anchor",
    }
}

/// A rule behind its action.
struct Rest<'a>(&'a Rule);

impl Display for Rest<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        let (when, effects) = (&rule.when, &rule.effects);
        if let Some(direction) = when.direction {
            write!(f, " {direction}")?;
        }
        f.write_str(if rule.log { " log" } else { "" })?;
        if rule.quick {
            f.write_str(" quick")?;
        }
        if let Some(on) = &when.on {
            write!(f, " on {}", interface(on))?;
        }
        if let Some((kind, pool)) = &effects.route {
            let word = match kind {
                RouteKind::Packets => "route-to",
                RouteKind::Replies => "reply-to",
                RouteKind::Copies => "dup-to",
            };
            write!(f, " {word} {}", self::pool(pool, false))?;
        }
        if let Some(family) = when.family {
            write!(f, " {family}")?;
        }
        if let Some(protocol) = when.protocol {
            write!(f, " proto {}", names::protocol_name(protocol))?;
        }
        if when.from == Side::any() && when.to == Side::any() && when.os.is_none() {
            f.write_str(" all")?;
        } else {
            write!(f, " from {}", side(&when.from))?;
            if let Some(os) = &when.os {
                write!(f, " os {}", string(os))?;
            }
            write!(f, " to {}", side(&when.to))?;
        }
        if let Some(on) = &when.received_on {
            write!(f, " {}received-on {}", if on.not { "! " } else { "" }, string(&on.name))?;
        }
        for (word, owner) in [("user", &when.user), ("group", &when.group)] {
            match owner {
                Some(Owner::Number(compared)) => write!(f, " {word}{}", self::compared(compared))?,
                Some(Owner::Unknown { not }) => write!(f, " {word} {} unknown", if *not { "!=" } else { "=" })?,
                Some(Owner::Named(name)) => write!(f, " {word} {name}")?,
                None => {}
            }
        }
        match when.flags {
            Some((set, of)) => write!(f, " flags {}/{}", names::flag_letters(set), names::flag_letters(of))?,
            None if effects.keep.is_some() && when.protocol.is_none_or(|protocol| protocol == 6) && !when.fragment => {
                f.write_str(" flags any")?;
            }
            None => {}
        }
        if let Some((kind, code)) = when.icmp {
            let inet6 = when.protocol == Some(58);
            write!(f, " {} {kind}", if inet6 { "icmp6-type" } else { "icmp-type" })?;
            if let Some(code) = code {
                write!(f, " code {code}")?;
            }
        }
        if let Some(tos) = when.tos {
            write!(f, " tos 0x{tos:02x}")?;
        }
        if let Some(prio) = when.prio {
            write!(f, " prio {prio}")?;
        }
        if let Some((packets, seconds)) = when.max_pkt_rate {
            write!(f, " max-pkt-rate {packets}/{seconds}")?;
        }
        if effects.max_pkt_size > 0 {
            write!(f, " max-pkt-size {}", effects.max_pkt_size)?;
        }
        match &effects.keep {
            Some(keep) => write!(f, " {}", state(keep))?,
            None if rule.action == Action::Pass => f.write_str(" no state")?,
            None => {}
        }
        if let Some(probability) = &when.probability {
            write!(f, " probability {probability}")?;
        }
        if when.fragment {
            f.write_str(" fragment")?;
        }
        for label in &rule.labels {
            write!(f, " label {}", string(label))?;
        }
        if let Some(tag) = &rule.tag {
            write!(f, " tag {}", string(tag))?;
        }
        if let Some((not, tag)) = &when.tagged {
            write!(f, "{} tagged {}", if *not { " !" } else { "" }, string(tag))?;
        }
        if let Some(table) = effects.rtable {
            write!(f, " rtable {table}")?;
        }
        if let Some(port) = effects.divert {
            write!(f, " divert-to {port}")?;
        }
        if rule.once {
            f.write_str(" once")?;
        }
        if let Action::Translate { kind, pool: Some(pool), .. } = &rule.action {
            write!(f, " -> {}", self::pool(pool, *kind == RuleKind::Nat))?;
        }
        if let Some((family, source, target)) = &effects.af_to {
            write!(f, " af-to {family} from {}", pool(source, true))?;
            if let Some(target) = target {
                write!(f, " to {}", pool(target, false))?;
            }
        }
        if let Some(pool) = &effects.nat_to {
            write!(f, " nat-to {}", self::pool(pool, true))?;
        }
        if let Some(pool) = &effects.rdr_to {
            write!(f, " rdr-to {}", self::pool(pool, false))?;
        }
        if let Some(unknown) = &when.unknown {
            write!(f, " {unknown}")?;
        }
        Ok(())
    }
}

/// A word as it is, anything else in quotes.
fn string(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !text.is_empty() && text.bytes().all(plain) && !names::is_keyword(text) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if c == '"' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

fn interface(on: &On) -> String {
    format!("{}{}", if on.not { "! " } else { "" }, if on.name == "any" { "any".to_owned() } else { string(&on.name) })
}

pub(super) fn address(not: bool, operand: &Operand) -> String {
    let mut text = if not { "! ".to_owned() } else { String::new() };
    // writing to a string does not fail
    _ = match operand {
        Operand::Any => write!(text, "any"),
        Operand::Network(network) if network.prefix_len() == network.max_prefix_len() => {
            write!(text, "{}", network.addr())
        }
        Operand::Network(network) => write!(text, "{network}"),
        Operand::Range(first, last) => write!(text, "{first} - {last}"),
        Operand::Interface(of) => write!(text, "{}", of_interface(of)),
        Operand::Table(name) => write!(text, "<{name}>"),
        Operand::NoRoute => write!(text, "no-route"),
        Operand::UrpfFailed => write!(text, "urpf-failed"),
        Operand::Named(name) => write!(text, "{name}"),
    };
    text
}

fn of_interface(of: &OfInterface) -> String {
    let part = match of.part {
        Part::Address => "",
        Part::Network => ":network",
        Part::Broadcast => ":broadcast",
        Part::Peer => ":peer",
    };
    let name = format!("{}{part}{}", of.name, if of.first { ":0" } else { "" });
    let bits = of.bits.map_or_else(String::new, |bits| format!("/{bits}"));
    if of.dynamic { format!("({name}){bits}") } else { format!("{name}{bits}") }
}

fn side(side: &Side) -> String {
    let ports = side.ports.as_ref().map_or_else(String::new, |ports| format!(" port{}", compared(ports)));
    format!("{}{ports}", address(side.not, &side.address))
}

fn compared<N: Display + Copy>(compared: &Compared<N>) -> String {
    let (a, b) = (compared.a, compared.b);
    match compared.operator {
        Operator::Between => format!(" {a} >< {b}"),
        Operator::Outside => format!(" {a} <> {b}"),
        Operator::Range => format!(" {a}:{b}"),
        Operator::Equal => format!(" = {a}"),
        Operator::NotEqual => format!(" != {a}"),
        Operator::Less => format!(" < {a}"),
        Operator::AtMost => format!(" <= {a}"),
        Operator::Greater => format!(" > {a}"),
        Operator::AtLeast => format!(" >= {a}"),
    }
}

fn state(keep: &Keep) -> String {
    let mut options = vec![];
    for (word, number) in [
        ("max", keep.max),
        ("max-src-states", keep.max_src_states),
        ("max-src-conn", keep.max_src_conn),
        ("max-src-nodes", keep.max_src_nodes),
    ] {
        if number > 0 {
            options.push(format!("{word} {number}"));
        }
    }
    if let (connections @ 1.., seconds) = keep.max_src_conn_rate {
        options.push(format!("max-src-conn-rate {connections}/{seconds}"));
    }
    if keep.if_bound {
        options.push("if-bound".to_owned());
    }
    let word = if keep.synproxy { "synproxy" } else { "keep" };
    let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
    format!("{word} state{options}")
}

fn pool(pool: &Pool, source: bool) -> String {
    let one = |at: &super::address::PoolAddress| match (&at.interface, &at.address) {
        (Some(interface), Some(operand)) => format!("({} {})", string(interface), address(false, operand)),
        (Some(interface), None) => string(interface),
        (None, operand) => operand.as_ref().map_or_else(String::new, |operand| address(false, operand)),
    };
    let all: Vec<String> = pool.addresses.iter().map(one).collect();
    let mut text = if all.len() == 1 { all[0].clone() } else { format!("{{ {} }}", all.join(", ")) };
    // writing to a string does not fail
    _ = match pool.ports {
        (0, 0) => Ok(()),
        ports if source && ports == PROXY_PORTS => Ok(()),
        (first, 0) => write!(text, " port {first}"),
        (first, last) if first == last => write!(text, " port {first}"),
        (first, last) => write!(text, " port {first}:{last}"),
    };
    _ = match &pool.kind {
        PoolKind::Single => Ok(()),
        PoolKind::Bitmask => write!(text, " bitmask"),
        PoolKind::Random => write!(text, " random"),
        PoolKind::SourceHash(key) if key.is_empty() => write!(text, " source-hash"),
        PoolKind::SourceHash(key) => write!(text, " source-hash {}", string(key)),
        PoolKind::RoundRobin => write!(text, " round-robin"),
    };
    if pool.sticky {
        text += " sticky-address";
    }
    if pool.endpoint_independent {
        text += " endpoint-independent";
    }
    if source && pool.ports == (0, 0) {
        text += " static-port";
    }
    if let Some((offset, length, id)) = pool.portset {
        _ = write!(text, " map-e-portset {offset}/{length}/{id}");
    }
    if pool.prefer_ipv6_nexthop {
        text += " prefer-ipv6-nexthop";
    }
    text
}
