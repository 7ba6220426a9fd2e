//! pf.conf(5) text to rules: what pfctl(8) prints, and what people write. Lists are multiplied out, macros put in, files read
//! where the caller allows it; what does not decide where a packet goes is passed over.

pub(crate) mod address;
mod conditions;
mod lex;
pub(crate) mod names;
mod operands;
mod outline;
pub(crate) mod path;
mod print;
pub(crate) mod rule;
mod statements;
pub(crate) mod table;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use ipnet::IpNet;

use crate::error::{Error, Kind, Result, quoted};
use crate::host::{HostInterface, Interfaces};
use crate::name;
use crate::net::Direction;
use crate::net::{Family, Interface};
use address::{Operand, Side};
use path::Called;
use rule::{Action, Rule};
use table::Table;

/// Rules and settings, read from text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// By path below the ruleset that the text is for, whose own is empty.
    pub(crate) rulesets: BTreeMap<String, Vec<Rule>>,
    pub(crate) skip: Vec<String>,
    pub(crate) tables: BTreeMap<String, Table>,
    /// Rules about Ethernet frames, which are reported and not evaluated.
    pub(crate) ether: Vec<String>,
    /// `set syncookies always`
    pub(crate) syncookies: bool,
}

/// How a text is read.
#[derive(Clone, Copy, Default)]
struct How<'a> {
    /// The name of the file, for messages; empty for "pf.conf".
    name: &'a str,
    files: lex::Files<'a>,
    /// pfctl(8) wrote it: what is not known of a rule may be another release's, and is kept as that.
    output: bool,
}

impl Conf {
    /// Reads a pf.conf(5), and the files that it includes, loads, or fills tables from, as pfctl(8) would: paths are of the
    /// working directory. Names of hosts are not looked up.
    pub fn of_file(path: &Path) -> Result<Conf> {
        let text = outline::read_file(path)?;
        let name = path.display().to_string();
        Conf::read(&text, How { name: &name, files: outline::FROM_DISK, output: false })
    }

    /// Reads pf.conf(5) text. Files are not read. Bytes that are not UTF-8 are possible in comments and in quotes, as in pfctl(8).
    pub fn of_text(text: &[u8]) -> Result<Conf> {
        Conf::read(text, How::default())
    }

    /// Reads what pfctl(8) prints of a ruleset. What is not known of a rule becomes a condition that cannot be decided.
    pub fn of_output(text: &str) -> Result<Conf> {
        Conf::read(text.as_bytes(), How { output: true, ..How::default() })
    }

    fn read(text: &[u8], how: How<'_>) -> Result<Conf> {
        let read = statements::read(text, how);
        read.map_err(|(file, line, why, text)| {
            let text = if text.is_empty() { text } else { format!(": {}", quoted(&text)) };
            Error::new(Kind::Unsupported, format!("{file} line {line}: {why}{text}"))
        })
    }

    /// The rulesets by path as text, each by itself: the main one with the settings, and those of anchors in braces and of `load
    /// anchor`.
    pub fn texts(&self) -> Vec<(String, String)> {
        let mut all = vec![(String::new(), self.settings() + &print::flat(self.rules()))];
        let anchors = self.rulesets.iter().filter(|(path, _)| !path.is_empty());
        all.extend(anchors.map(|(path, rules)| (path.clone(), print::flat(rules))));
        all
    }

    /// The main ruleset, or that of the anchor which the text is for.
    pub(crate) fn rules(&self) -> &[Rule] {
        self.rulesets.get("").map_or(&[], Vec::as_slice)
    }

    /// Whether it defines the table.
    pub fn has_table(&self, table: &name::Table) -> bool {
        self.tables.contains_key(table.as_str())
    }

    /// Whether it calls this path, `kport/*` for example, for nat, rdr and filter rules.
    pub fn calls(&self, path: &str) -> [bool; 3] {
        [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter].map(|kind| {
            self.rules().iter().any(|rule| {
                matches!(&rule.action, Action::Call(of, called) if *of == kind && Called::resolve("", called).to_string() == path)
            })
        })
    }

    /// The interfaces and groups of `set skip` whose names kport knows.
    pub fn skipped(&self) -> Vec<Interface> {
        self.skip.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// The rule that keeps IPv6 neighbour discovery (icmp6) from passing an interface, if one does. Its addresses are link-local,
    /// multicast and what is asked for: a block of certain addresses is not taken to be meant for it, a pass of certain
    /// addresses is if it names icmp6.
    pub fn blocks_neighbours(&self, all: &[HostInterface], on: Interface, direction: Direction) -> Option<&str> {
        const ICMP6: u8 = 58;
        let is_in = |name: &str| name.parse().is_ok_and(|name| Interfaces(all).is_in(on, name));
        if self.skip.iter().any(|name| is_in(name)) {
            return None;
        }
        let mut last: Option<&Rule> = None;
        for rule in self.rules() {
            let when = &rule.when;
            let certain = when.from != Side::any() || when.to != Side::any() || when.tagged.is_some();
            let meant = match rule.action {
                Action::Block => !certain,
                Action::Pass => !certain || when.protocol == Some(ICMP6),
                Action::Match | Action::Translate { .. } | Action::Call(..) => false,
            };
            if meant
                && when.on.as_ref().is_none_or(|on| is_in(&on.name) != on.not)
                && when.direction.is_none_or(|wanted| wanted == direction)
                && when.family != Some(Family::Inet)
                && when.protocol.is_none_or(|number| number == ICMP6)
            {
                last = Some(rule);
                if rule.quick {
                    break;
                }
            }
        }
        last.filter(|rule| rule.action == Action::Block).map(|rule| &*rule.origin.text)
    }
}

impl FromStr for Conf {
    type Err = Error;

    /// Reads pf.conf(5) text, or what pfctl(8) prints. Files are not read.
    fn from_str(text: &str) -> Result<Conf> {
        Conf::of_text(text.as_bytes())
    }
}

pub use lex::Statement;
pub use names::icmp_type;
pub use outline::{Broken, Outline, StatementKind};
pub use rule::RuleKind;

/// The network that an operand is, if it is one.
fn as_network(operand: &Operand) -> Option<IpNet> {
    match operand {
        Operand::Network(network) => Some(*network),
        _ => None,
    }
}
