//! The pf.conf(5) text of rules: the input of pfctl(8), and the output of `kport rules`.

use std::fmt::{self, Write as _};
use std::num::NonZeroU32;

use super::{Address, Match, Rate, Rule, StateOptions, Tag};
use crate::net::{Interface, JAIL_GROUPS, PortRange};

/// The rules as pf.conf(5) text, one line each.
pub fn text(rules: &[Rule]) -> String {
    let mut text = String::with_capacity(160 * rules.len());
    for rule in rules {
        // writing to a String cannot fail
        _ = writeln!(text, "{rule}");
    }
    text
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Nat { matches, address_of } => write!(f, "nat{matches} -> (\"{address_of}\")"),
            Rule::Rdr { matches, tag, target, ports } => {
                write!(f, "rdr{matches} tag {} -> {target} port {}", QuotedTag(tag), Ports(*ports))
            }
            Rule::Pass { direction, log, quick, matches, tagged, state, labels } => {
                f.write_str("pass")?;
                if let Some(direction) = direction {
                    write!(f, " {direction}")?;
                }
                f.write_str(if *log { " log" } else { "" })?;
                f.write_str(if *quick { " quick" } else { "" })?;
                matches.fmt(f)?;
                if let Some(tag) = tagged {
                    write!(f, " tagged {}", QuotedTag(tag))?;
                }
                write!(f, " keep state{state}")?;
                for label in labels {
                    write!(f, " label \"{label}\"")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on.as_slice() {
            [] => {}
            [one] => write!(f, " on \"{one}\"")?,
            several => write!(f, " on {}", Braces(several.iter().map(Bare)))?,
        }
        write!(f, " {} proto {} from ", self.family, self.protocol)?;
        for (addresses, then) in [(&self.from, " to "), (&self.to, "")] {
            match addresses.as_slice() {
                [] => f.write_str("any")?,
                [one] => one.fmt(f)?,
                several => Braces(several.iter()).fmt(f)?,
            }
            f.write_str(then)?;
        }
        write!(f, " port {}", Ports(self.ports))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Any => f.write_str("any"),
            Address::Host(address) => address.fmt(f),
            Address::Network(network) => network.fmt(f),
            Address::Interface(interface) => write!(f, "(\"{interface}\")"),
            Address::InterfaceNetwork(interface) => write!(f, "(\"{interface}:network\")"),
            Address::Own => f.write_str("(self)"),
            Address::Table(table) => write!(f, "<{table}>"),
        }
    }
}

/// In quotes, because ":" cannot be in an unquoted word of pfctl's lexer.
struct QuotedTag<'a>(&'a Tag);

impl fmt::Display for QuotedTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.connections, self.seconds)
    }
}

/// ` (max 100, source-track rule, max-src-conn 10)`; empty without options.
impl fmt::Display for StateOptions {
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

/// `{ a b }`
struct Braces<I>(I);

impl<I: Iterator<Item: fmt::Display> + Clone> fmt::Display for Braces<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for one in self.0.clone() {
            write!(f, " {one}")?;
        }
        f.write_str(" }")
    }
}

/// An interface in a list: the usual groups without quotes, as in most pf.conf files, any other name in quotes, since
/// it may be a keyword of pf.conf(5).
struct Bare<'a>(&'a Interface);

impl fmt::Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if JAIL_GROUPS.contains(&self.0.as_str()) { self.0.fmt(f) } else { write!(f, "\"{}\"", self.0) }
    }
}

/// pf.conf(5) writes a range with a colon.
struct Ports(PortRange);

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.count() == 1 {
            write!(f, "{}", self.0.first())
        } else {
            write!(f, "{}:{}", self.0.first(), self.0.last())
        }
    }
}
