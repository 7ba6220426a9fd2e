//! The pf.conf(5) text of rules, as an administrator would write them, with their lists: the input of pfctl(8), and the output
//! of `kport rules`. [`pfconf`](crate::pfconf) reads it, and prints rules as pfctl(8) does, without lists.

use std::fmt::{self, Display};
use std::num::NonZeroU32;

use super::{Address, Match, NextHop, Rate, Routing, Rule, StateOptions};
use crate::net::{Interface, JAIL_GROUPS, PortRange};

/// The rules as pf.conf(5) text, one line each.
pub fn text(rules: &[Rule]) -> String {
    rules.iter().map(|rule| format!("{rule}\n")).collect()
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Nat { matches, tagged, source } => {
                write!(f, "nat{matches}")?;
                if let Some(tag) = tagged {
                    write!(f, " tagged \"{tag}\"")?;
                }
                write!(f, " -> {source}")
            }
            // in quotes, because ":" cannot be in an unquoted word of pfctl's lexer
            Rule::Rdr { matches, tag, target, ports } => {
                write!(f, "rdr{matches} tag \"{tag}\" -> {target} port {}", colon(*ports))
            }
            Rule::AfTo { log, quick, matches, address_of, target, port, state, labels } => {
                f.write_str(if *log { "pass in log" } else { "pass in" })?;
                f.write_str(if *quick { " quick" } else { "" })?;
                write!(f, "{matches} af-to inet from (\"{address_of}\") to {target}")?;
                port.iter().try_for_each(|port| write!(f, " port {port}"))?;
                write!(f, " keep state{state}")?;
                labels.iter().try_for_each(|label| write!(f, " label \"{label}\""))
            }
            Rule::Pass { direction, log, quick, routing, matches, tagged, state, labels } => {
                f.write_str("pass")?;
                if let Some(direction) = direction {
                    write!(f, " {direction}")?;
                }
                f.write_str(if *log { " log" } else { "" })?;
                f.write_str(if *quick { " quick" } else { "" })?;
                matches.on(f)?;
                let Routing { reply_to, rtable } = routing;
                reply_to.iter().try_for_each(|hop| write!(f, " reply-to {hop}"))?;
                matches.packets(f)?;
                tagged.iter().try_for_each(|tag| write!(f, " tagged \"{tag}\""))?;
                rtable.iter().try_for_each(|fib| write!(f, " rtable {fib}"))?;
                write!(f, " keep state{state}")?;
                labels.iter().try_for_each(|label| write!(f, " label \"{label}\""))
            }
        }
    }
}

impl Match {
    fn on(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " on \"{one}\""),
            several => write!(f, " on {}", braces(several.iter().map(bare))),
        }
    }

    fn packets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {} proto {}", self.family, self.protocol)?;
        for (word, addresses) in [("from", &self.from), ("to", &self.to)] {
            match addresses.as_slice() {
                [] => write!(f, " {word} any")?,
                [one] => write!(f, " {word} {one}")?,
                several => write!(f, " {word} {}", braces(several))?,
            }
        }
        write!(f, " port {}", colon(self.ports))
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.on(f)?;
        self.packets(f)
    }
}

/// ` reply-to ("em1" 203.0.113.254) rtable 0`
impl Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reply_to.iter().try_for_each(|hop| write!(f, " reply-to {hop}"))?;
        self.rtable.iter().try_for_each(|fib| write!(f, " rtable {fib}"))
    }
}

impl Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gateway {
            Some(gateway) => write!(f, "(\"{}\" {gateway})", self.interface),
            None => write!(f, "\"{}\"", self.interface),
        }
    }
}

/// `{ a b }`
fn braces(items: impl IntoIterator<Item: Display>) -> String {
    let items: String = items.into_iter().map(|item| format!(" {item}")).collect();
    format!("{{{items} }}")
}

/// An interface in a list: the usual groups without quotes, as in most pf.conf files, any other name in quotes, since
/// it may be a keyword of pf.conf(5).
fn bare(interface: &Interface) -> String {
    if JAIL_GROUPS.contains(&interface.as_str()) { interface.to_string() } else { format!("\"{interface}\"") }
}

/// pf.conf(5) writes a range with a colon.
fn colon(ports: PortRange) -> String {
    ports.to_string().replace('-', ":")
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any => f.write_str("any"),
            Address::Host(address) => address.fmt(f),
            Address::Network(network) => network.fmt(f),
            Address::Interface(interface) => write!(f, "(\"{interface}\")"),
            Address::First(interface) => write!(f, "(\"{interface}:0\")"),
            Address::InterfaceNetwork(interface) => write!(f, "(\"{interface}:network\")"),
            Address::NotInterfaceNetwork(interface) => write!(f, "! (\"{interface}:network\")"),
            Address::Own => f.write_str("(self)"),
            Address::Table(table) => write!(f, "<{table}>"),
        }
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connections, self.seconds)
    }
}

/// ` (max 100, source-track rule, max-src-conn 10)`; empty without options.
impl Display for StateOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbered = |word: &str, number: Option<NonZeroU32>| number.map(|number| format!("{word} {number}"));
        let words = [
            numbered("max", self.max),
            self.tracks_sources().then(|| "source-track rule".to_owned()),
            numbered("max-src-states", self.max_src_states),
            numbered("max-src-conn", self.max_src_conn),
            self.max_src_conn_rate.map(|rate| format!("max-src-conn-rate {rate}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}
