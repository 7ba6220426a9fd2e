//! The calls of the jails' anchors, which the ruleset of the anchor `kport` has, so that a packet is compared with the rules of
//! the jail that it is for, not with those of every jail. Pure: nothing is read, nothing is loaded.
//!
//! A call has a condition that each packet fulfils which the rules of the jail's anchor can match: the protocol and the ports for
//! rdr rules (and `af-to`, which sees the packet before the translation), the target's address for nat and pass rules. So a call
//! never leaves out a packet, and the jail's rules decide, as they do if pf.conf(5) calls `"kport/*"`.
//!
//! If there are many calls, they are a [tree]: `kport` calls nodes, anchors below `kport/+calls` that contain calls themselves.

mod tree;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::name::{Anchor, NODES, PARENT};
use crate::net::{Family, PortRange, Protocol};
use crate::pfconf::Conf;
use crate::pfconf::address::{Compared, Operand, Operator};
use crate::pfconf::path::Called;
use crate::pfconf::rule::{Action, Origin, Rule, RuleKind};
use crate::rule;
pub use tree::{Block, Item, change, whole};

/// The packets that a call is for. Of a jail's anchor: those to ports of the host, at any address or at one; or, after a redirect,
/// those to an address of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// `None` after a redirect.
    pub protocol: Option<Protocol>,
    pub ports: PortRange,
    pub to: Option<IpNet>,
}

impl Key {
    const ALL: PortRange = PortRange::new(1, u16::MAX).expect("they are all ports");

    pub fn ports(protocol: Protocol, ports: PortRange) -> Key {
        Key { protocol: Some(protocol), ports, to: None }
    }

    pub fn at(to: IpAddr, protocol: Protocol, ports: PortRange) -> Key {
        Key { to: Some(to.into()), ..Key::ports(protocol, ports) }
    }

    pub fn address(to: IpAddr) -> Key {
        Key { protocol: None, ports: Key::ALL, to: Some(to.into()) }
    }

    /// That of a rule which calls an anchor; `None` if kport has none such.
    fn of(rule: &Rule) -> Option<Key> {
        let protocol = rule.when.protocol.map(|number| Protocol::numbered(number).ok_or(())).transpose().ok()?;
        let to = if let Operand::Network(network) = rule.when.to.address { Some(network) } else { None };
        Some(Key { protocol, ports: rule.when.to.ports.and_then(Compared::range).unwrap_or(Key::ALL), to })
    }

    /// Whether it can be that of a jail's anchor.
    fn is_of_entry(self) -> bool {
        self.to.map_or(self.protocol.is_some(), |to| to.prefix_len() == to.max_prefix_len())
    }

    /// Whether it has each packet that the other one has.
    fn includes(self, other: Key) -> bool {
        let to = self.to.is_none_or(|all| other.to.is_some_and(|some| all.contains(&some)));
        let ports = self.ports.first() <= other.ports.first() && other.ports.last() <= self.ports.last();
        to && ports && (self.protocol.is_none() || self.protocol == other.protocol)
    }
}

/// That an anchor is to be called for the packets of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub key: Key,
    /// The anchor's name below `kport`.
    pub child: String,
    pub kinds: Kinds,
}

/// Which rules an anchor has for the packets of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kinds {
    /// Rdr rules for ports, nat rules for an address.
    pub translates: bool,
    pub filters: bool,
}

impl Kinds {
    #[must_use]
    pub fn or(self, other: Kinds) -> Kinds {
        Kinds { translates: self.translates || other.translates, filters: self.filters || other.filters }
    }
}

/// A change of what is to be called. What is removed need not be called, and what is added may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub removed: Vec<Entry>,
    pub added: Vec<Entry>,
}

impl Change {
    /// That of an anchor that gets other rules.
    pub fn new(anchor: &Anchor, before: &[rule::Rule], after: &[rule::Rule]) -> Change {
        let (mut removed, added) = (entries(anchor, before), entries(anchor, after));
        removed.retain(|entry| !added.iter().any(|other| other.key == entry.key));
        Change { removed, added }
    }
}

/// What is to be called for an anchor with these rules, sorted by key.
pub fn entries(anchor: &Anchor, rules: &[rule::Rule]) -> Vec<Entry> {
    let mut found = vec![];
    for rule in rules {
        let rule::Match { protocol, to, ports, .. } = rule.matches();
        let by_ports = matches!(rule, rule::Rule::Rdr { .. } | rule::Rule::AfTo { .. });
        let translates = matches!(rule, rule::Rule::Rdr { .. } | rule::Rule::Nat { .. });
        let any = [rule::Address::Any];
        for to in if to.is_empty() { &any[..] } else { to } {
            let key = match to {
                rule::Address::Host(host) if by_ports => Key::at(*host, *protocol, *ports),
                _ if by_ports => Key::ports(*protocol, *ports),
                rule::Address::Host(host) => Key::address(*host),
                _ => continue,
            };
            let kinds = Kinds { translates, filters: !translates };
            found.push(Entry { key, child: anchor.child().to_owned(), kinds });
        }
    }
    let mut found = distinct(&found);
    // with --host-access also at a loopback address
    let anywhere: HashSet<Entry> = found.iter().filter(|entry| entry.key.to.is_none()).cloned().collect();
    found.retain(|entry| {
        let key = Key { to: None, ..entry.key };
        entry.key.to.is_none() || !anywhere.contains(&Entry { key, ..entry.clone() })
    });
    found
}

/// The path of the anchor of a node; `kport` without one.
pub fn path(node: Option<&Block>) -> String {
    node.map_or_else(|| PARENT.to_owned(), |block| format!("{PARENT}/{NODES}/{block}"))
}

/// The calls in the rulesets of a node, or else of `kport`: those of nat, rdr and filter rules, one after the other. They are relative:
/// for each absolute path pfctl(8) shows the rules of the caller again (pfctl_show_rules in sbin/pfctl/pfctl.c, with `-a '*'`).
pub(crate) fn calls(is_node: bool, items: &[Item]) -> Vec<Rule> {
    Call::of_items(is_node, items).map(Rule::from).collect()
}

/// The whole tree of these entries, by path.
pub fn rulesets(entries: &[Entry]) -> Vec<(String, Conf)> {
    let of = |(node, items): (Option<Block>, Vec<Item>)| {
        let rulesets = [(String::new(), calls(node.is_some(), &items))].into();
        (path(node.as_ref()), Conf { rulesets, ..Conf::default() })
    };
    whole(entries).into_iter().map(of).collect()
}

/// A call, without what is the same in each rule that calls an anchor, and without its text.
#[derive(Clone, PartialEq)]
pub(crate) struct Call {
    kind: RuleKind,
    /// As the rule has it: relative.
    path: String,
    condition: Key,
}

impl Call {
    /// Those in the rulesets of a node, or else of `kport`, in the order of [`calls`].
    pub(crate) fn of_items(is_node: bool, items: &[Item]) -> impl Iterator<Item = Call> {
        RuleKind::OF_KPORT.into_iter().flat_map(move |kind| Call::of_kind(is_node, items, kind))
    }

    /// Those in its ruleset of this kind.
    pub(crate) fn of_kind(is_node: bool, items: &[Item], kind: RuleKind) -> impl Iterator<Item = Call> {
        let to_kport = if is_node { "../../" } else { "" };
        let is_in = move |item: &&Item| match kind {
            RuleKind::Filter => item.kinds.filters,
            _ => item.kinds.translates && item.key().protocol.is_none() == (kind == RuleKind::Nat),
        };
        items.iter().filter(is_in).map(move |item| {
            let path = match &item.child {
                Some(child) => [to_kport, child].concat(),
                None => format!("{to_kport}{NODES}/{}", item.block),
            };
            Call { kind, path, condition: item.block.condition() }
        })
    }

    pub(crate) fn of_rules(rules: &[Rule]) -> Vec<Call> {
        let call = |rule: &Rule| match &rule.action {
            Action::Call(kind, path) => Some(Call { kind: *kind, path: path.clone(), condition: Key::of(rule)? }),
            _ => None,
        };
        rules.iter().filter_map(call).collect()
    }
}

impl From<Call> for Rule {
    fn from(Call { kind, path, condition: Key { protocol, ports, to } }: Call) -> Rule {
        let mut rule = Rule::new(Origin::default(), Action::Call(kind, path));
        // only af-to filters by the port
        let af_to = (to.is_none() && kind == RuleKind::Filter).then_some(Family::Inet6);
        rule.when.family = to.map(|network| Family::of(network.addr())).or(af_to);
        rule.when.protocol = protocol.map(Protocol::number);
        rule.when.to.ports = (ports != Key::ALL).then(|| ports.into());
        if let Some(network) = to {
            rule.when.to.address = Operand::Network(network);
        }
        rule.origin.text = rule.to_string().into();
        rule
    }
}

/// Each key and anchor once, sorted.
fn distinct(entries: &[Entry]) -> Vec<Entry> {
    let mut found: BTreeMap<(Key, &str), Kinds> = BTreeMap::new();
    for entry in entries {
        let kinds = found.entry((entry.key, &entry.child)).or_default();
        *kinds = kinds.or(entry.kinds);
    }
    found.into_iter().map(|((key, child), kinds)| Entry { key, child: child.to_owned(), kinds }).collect()
}

/// All calls in the ruleset of `kport`, without a tree, for pfctl(8): in a call of rdr rules it takes no range of ports, so a range
/// has no condition on the port.
pub(crate) fn flat(entries: &[Entry]) -> Vec<Rule> {
    let items = tree::sorted(distinct(entries).into_iter().map(Item::from).collect());
    let mut made = calls(false, &items);
    for rule in &mut made {
        if rule.when.to.ports.is_some_and(|ports| ports.operator == Operator::Range) {
            rule.when.to.ports = None;
            rule.origin.text = rule.to_string().into();
        }
    }
    // the kernel refuses the same rule twice
    let mut seen = HashSet::new();
    made.retain(|rule| seen.insert(rule.origin.text.clone()));
    made
}

/// What the calls of `kport`, and of the nodes that it calls, lead to; nodes without a key of `among` are left out. `read` returns
/// the calls of an anchor.
pub(crate) fn led_to<E>(
    among: Option<&[Entry]>, read: &mut dyn FnMut(&str) -> Result<Vec<Call>, E>,
) -> Result<Vec<Entry>, E> {
    let mut found = vec![];
    let mut known: HashMap<String, Rc<[Call]>> = HashMap::new();
    // anchors whose calls are still to be read: those of one kind of rules, within the condition of the call that leads there
    let mut waiting = vec![(PARENT.to_owned(), None::<(RuleKind, Key)>, 0)];
    while let Some((caller, by, depth)) = waiting.pop() {
        let calls = match known.get(&caller) {
            Some(calls) => Rc::clone(calls),
            None => Rc::clone(known.entry(caller.clone()).or_insert(read(&caller)?.into())),
        };
        for Call { kind, path, condition } in calls.iter() {
            let condition = *condition;
            if by.is_some_and(|(of, by)| of != *kind || !by.includes(condition)) {
                continue;
            }
            let called = Called::resolve(&caller, path);
            let Some(below) = called.path.strip_prefix(PARENT).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            if below.strip_prefix(NODES).is_some_and(|rest| rest.starts_with('/')) {
                let leads = |entry: &Entry| condition.includes(entry.key);
                // no deeper than kport's own: another program may have made a ring
                if among.is_none_or(|among| among.iter().any(leads)) && depth < tree::DEEPEST {
                    waiting.push((called.path, Some((*kind, condition)), depth + 1));
                }
            } else if condition.is_of_entry() {
                let filters = *kind == RuleKind::Filter;
                let kinds = Kinds { translates: !filters, filters };
                found.push(Entry { key: condition, child: below.to_owned(), kinds });
            }
        }
    }
    Ok(distinct(&found))
}

/// Whether what is called is what is wanted.
pub fn same(called: &[Entry], wanted: &[Entry]) -> bool {
    let mut by_anchor: HashMap<&str, Vec<Entry>> = wanted.iter().map(|entry| (entry.child.as_str(), vec![])).collect();
    for entry in called {
        let Some(of_anchor) = by_anchor.get_mut(entry.child.as_str()) else { return false };
        of_anchor.push(entry.clone());
    }
    wanted.iter().all(|entry| covers(&by_anchor[entry.child.as_str()], entry))
}

/// Whether what is called leads to all packets of an entry.
pub fn covers(called: &[Entry], entry: &Entry) -> bool {
    let leads = |other: &&Entry| other.child == entry.child && other.key.includes(entry.key);
    let kinds = called.iter().filter(leads).map(|other| other.kinds).fold(Kinds::default(), Kinds::or);
    kinds.or(entry.kinds) == kinds
}
