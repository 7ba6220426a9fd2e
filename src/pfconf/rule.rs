//! One rule as pf evaluates it. Of what does not decide where a packet goes only labels and `log` are kept.

use std::sync::Arc;
use std::{fmt, iter};

use serde::{Deserialize, Serialize};

use super::address::{Compared, Operator, Pool, Side};
use crate::net::{Direction, Family};

/// The rulesets of an anchor, by the kind of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleKind {
    Nat,
    Rdr,
    Binat,
    Filter,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Pass,
    Block,
    /// Does not decide; its effects apply to the packet from here on.
    #[default]
    Match,
    /// `nat`, `rdr`, `binat`. Without a pool: `no nat` and so on.
    Translate {
        kind: RuleKind,
        pool: Option<Pool>,
        /// `rdr pass`: the filter rules are not evaluated.
        pass: bool,
    },
    /// An anchor call: the path as written, or that of rules in braces, which are below the caller.
    Call(RuleKind, String),
}

impl RuleKind {
    pub const OF_KPORT: [RuleKind; 3] = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter];

    pub fn call(self) -> &'static str {
        match self {
            RuleKind::Nat => "nat-anchor",
            RuleKind::Rdr => "rdr-anchor",
            RuleKind::Binat => "binat-anchor",
            RuleKind::Filter => "anchor",
        }
    }
}

impl Action {
    pub fn kind(&self) -> RuleKind {
        match self {
            Action::Pass | Action::Block | Action::Match => RuleKind::Filter,
            Action::Translate { kind, .. } | Action::Call(kind, _) => *kind,
        }
    }
}

/// `keep state` and its options, as far as they matter for a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    pub synproxy: bool,
    pub if_bound: bool,
    /// By their words in [`Keep::LIMITS`]; 0 for no limit.
    pub limits: [u32; 4],
    /// New connections in seconds, from one source.
    pub max_src_conn_rate: (u32, u32),
}

impl Keep {
    pub const LIMITS: [&str; 4] = ["max", "max-src-states", "max-src-conn", "max-src-nodes"];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteKind {
    Packets,
    Replies,
    Copies,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effects {
    pub keep: Option<Keep>,
    pub nat_to: Option<Pool>,
    pub rdr_to: Option<Pool>,
    /// The new address family of a packet, its source, and its destination if one is given.
    pub af_to: Option<(Family, Pool, Option<Pool>)>,
    pub route: Option<(RouteKind, Pool)>,
    pub divert: Option<u16>,
    pub rtable: Option<u32>,
    /// Longer packets are dropped; 0 for any length.
    pub max_pkt_size: u16,
}

impl Effects {
    pub fn translation(&self) -> Option<(RuleKind, &Pool)> {
        let nat = self.nat_to.as_ref().map(|pool| (RuleKind::Nat, pool));
        nat.or_else(|| Some((RuleKind::Rdr, self.rdr_to.as_ref()?)))
    }
}

/// `user` and `group`: numbers, a name whose number is unknown, or `unknown`, if no socket has the packet.
pub type Owner = Compared<String>;

impl Owner {
    /// An owner by number; the last one is `unknown` (UID_MAX and GID_MAX in sbin/pfctl/parse.y).
    pub fn number(Compared { operator, a, b }: Compared<u32>) -> Owner {
        let unknown = a == u32::MAX && matches!(operator, Operator::Equal | Operator::NotEqual);
        let a = if unknown { "unknown".to_owned() } else { a.to_string() };
        Owner { operator, a, b: if operator.takes_two() { b.to_string() } else { String::new() } }
    }
}

/// An interface or group, and whether it is negated (`! em0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct On {
    pub not: bool,
    pub name: String,
}

/// The packets that a rule matches; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    pub direction: Option<Direction>,
    pub on: Option<On>,
    pub family: Option<Family>,
    pub protocol: Option<u8>,
    pub from: Side,
    pub to: Side,
    pub os: Option<String>,
    pub received_on: Option<On>,
    pub user: Option<Owner>,
    pub group: Option<Owner>,
    /// The flags that must be set, and the flags that are checked. `flags any` checks none.
    pub flags: Option<(u16, u16)>,
    /// Type and code.
    pub icmp: Option<(u8, Option<u8>)>,
    pub tos: Option<u8>,
    pub prio: Option<u8>,
    /// Packets in seconds.
    pub max_pkt_rate: Option<(u32, u32)>,
    pub probability: Option<String>,
    pub fragment: bool,
    pub tagged: Option<(bool, String)>,
    pub unknown: Option<String>,
}

/// Where a statement was read, for messages and for editing the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Empty if it was not read from a file.
    pub file: Arc<str>,
    /// From 1; 0 if it was not read from a text.
    pub line: usize,
    /// On one line, without comments.
    pub text: Arc<str>,
}

impl Origin {
    /// For a reader of the file `main`, whose own name is omitted. A line counts in a file only.
    pub fn seen_from(&self, main: &str) -> Origin {
        let line = if self.file.is_empty() { 0 } else { self.line };
        let file = if *self.file == *main { Arc::default() } else { self.file.clone() };
        Origin { file, line, text: self.text.clone() }
    }
}

/// `line 5, block drop in quick from <bad> to any`
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.text);
        }
        if !self.file.is_empty() {
            write!(f, "{} ", self.file)?;
        }
        write!(f, "line {}, {}", self.line, self.text)
    }
}

/// Two rules that differ only in their origin are equal.
#[derive(Clone, Debug, Default, Eq, Serialize, Deserialize)]
pub struct Rule {
    #[serde(skip)]
    pub origin: Origin,
    pub action: Action,
    pub quick: bool,
    pub when: Conditions,
    pub log: bool,
    pub labels: Vec<String>,
    pub tag: Option<String>,
    /// In a box, since most rules have none and are smaller without.
    pub effects: Box<Effects>,
    /// Matches one packet, and is then removed (pf.conf(5) of OpenBSD).
    pub once: bool,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        let Rule { origin: _, action, quick, when, log, labels, tag, effects, once } = self;
        (action, quick, when, log) == (&other.action, &other.quick, &other.when, &other.log)
            && (labels, tag, effects, once) == (&other.labels, &other.tag, &other.effects, &other.once)
    }
}

impl Rule {
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        let translation = match &self.action {
            Action::Translate { pool, .. } => pool.as_ref(),
            _ => None,
        };
        let Effects { nat_to, rdr_to, af_to, route, .. } = &*self.effects;
        let af_to = af_to.iter().flat_map(|(_, source, target)| iter::once(source).chain(target));
        let route = route.iter().map(|(_, pool)| pool);
        translation.into_iter().chain(nat_to).chain(rdr_to).chain(af_to).chain(route)
    }

    pub fn new(origin: Origin, action: Action) -> Rule {
        Rule { origin, action, ..Rule::default() }
    }
}
