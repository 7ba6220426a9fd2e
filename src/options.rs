//! How a jail's ports are published: who may come, from where, how many.

pub(crate) mod named;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result, quoted};
use crate::name::Table;
use crate::net::{Family, Interface, JAIL_GROUPS, Place, Protocol, as_text};
use crate::rule::{Address, Rate, StateOptions};

pub use named::{Given, Takes};
use named::{Reader, Table as Named, put};

/// Who may use a publication from outside: a network or an address, or a pf table. Its text is `192.0.2.0/24`,
/// `192.0.2.1` or `<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The addresses of a network.
    Network(IpNet),
    /// The addresses in a table of the main ruleset, both families.
    Table(Table),
}

impl Source {
    /// Whether every address of `other` is one of this. What is in a table is not known.
    fn holds(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Network(all), Source::Network(part)) => all.contains(part),
            _ => self == other,
        }
    }

    /// As it stands in a rule of `family`; `None` where the rule can never see such an address.
    pub(crate) fn address(&self, family: Family) -> Option<Address> {
        match self {
            Source::Table(table) => Some(Address::Table(table.clone())),
            Source::Network(network) if Family::of(network.addr()) != family => None,
            Source::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                Some(Address::Host(network.addr()))
            }
            Source::Network(network) => Some(Address::Network(*network)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Table(table) => write!(f, "<{table}>"),
            Source::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Source::Network(network) => network.fmt(f),
        }
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Source> {
        let refuse = |why: &str| Err(Error::new(Kind::Argument, format!("source {}: {why}", quoted(text))));
        if let Some(name) = text.strip_prefix('<') {
            let Some(name) = name.strip_suffix('>') else { return refuse("the closing > is missing") };
            return name.parse().map(Source::Table);
        }
        let network = match text.parse::<IpNet>() {
            Ok(network) => network,
            Err(_) => match text.parse::<IpAddr>() {
                Ok(address) => IpNet::from(address),
                Err(_) => return refuse("neither a network such as 192.0.2.0/24, nor an address, nor a table <name>"),
            },
        };
        if network.addr() != network.network() {
            return refuse(&format!("has bits behind its prefix; write {} or {}", network.trunc(), network.addr()));
        }
        match network.addr() {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                refuse("an IPv4-mapped address, which is not on the wire; write the IPv4 address itself")
            }
            address if address.is_multicast() => refuse("a multicast address is no source"),
            _ => Ok(Source::Network(network)),
        }
    }
}

as_text!(Source);

/// How much of a mapping may be used at a time. pf counts for each rule: what comes from outside together, and what
/// comes from each interface or group of the reach list by itself. A connection counts once, on its way in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Connections at a time, of everybody together: `max`.
    pub connections: Option<NonZeroU32>,
    /// Connections at a time of one source address: `max-src-conn`, which counts finished handshakes; for udp and
    /// sctp, whose connections pf does not see, `max-src-states`.
    pub connections_per_source: Option<NonZeroU32>,
    /// New connections of one source address, tcp only: `max-src-conn-rate`.
    pub rate: Option<Rate>,
}

impl Limits {
    /// Whether each limit is as wide as that of `before`.
    fn allow_all_of(&self, before: &Limits) -> bool {
        let number = |now: Option<NonZeroU32>, before: Option<NonZeroU32>| match (now, before) {
            (None, _) => true,
            (Some(now), Some(before)) => now >= before,
            (Some(_), None) => false,
        };
        number(self.connections, before.connections)
            && number(self.connections_per_source, before.connections_per_source)
            && (self.rate.is_none() || self.rate == before.rate)
    }

    /// What a pass rule says of it.
    pub(crate) fn state(&self, protocol: Protocol) -> StateOptions {
        let tcp = protocol == Protocol::Tcp;
        StateOptions {
            max: self.connections,
            max_src_states: self.connections_per_source.filter(|_| !tcp),
            max_src_conn: self.connections_per_source.filter(|_| tcp),
            max_src_conn_rate: self.rate.filter(|_| tcp),
        }
    }
}

/// How a jail's ports are published: the same for all of them.
///
/// Three lists say who gets in, and none narrows another. [`Options::sources`] is about the host's places as outsiders use
/// them; [`Options::reach`] opens the jail's own address, and with [`Options::hairpin`] the host's, to jails;
/// [`Options::host_access`] is for the host's own programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The interfaces and groups from which the jail's own address and published ports are reached (`--reach`).
    pub reach: Vec<Interface>,
    /// The reach list's jails, those on the published jail's own bridge among them, reach the host's address and
    /// published port (`--hairpin`). A loopback interface in the reach list is left to [`Options::host_access`].
    pub hairpin: bool,
    /// The host itself, and the jails that share its stack, reach its own address and 127.0.0.1 or ::1 on the
    /// published port (`--host-access`). Needs `net.pf.filter_local=1` from before pf was enabled, and no `set skip`
    /// on lo.
    pub host_access: bool,
    /// Only these may use the publication from outside (`--sources`); empty for everybody. A redirect of a family of
    /// which no source is listed serves nobody from outside.
    pub sources: Vec<Source>,
    /// How much of each mapping may be used at a time (`--max-connections`, `--max-connections-per-source`, `--rate`).
    pub limits: Limits,
    /// The packet that starts a connection is logged to pflog0, once, on its way in (`--log`).
    pub log: bool,
    /// The pass rules end the evaluation, whatever stands behind kport's anchor (`--no-quick` turns it off).
    pub quick: bool,
}

/// Each option by its name.
const NAMED: Named<Options> = Named(&[
    ("reach", Reader::Words(|options, words| put(&mut options.reach, words.parse()))),
    ("hairpin", Reader::Flag(|options, on| options.hairpin = on)),
    ("host-access", Reader::Flag(|options, on| options.host_access = on)),
    ("sources", Reader::Words(|options, words| put(&mut options.sources, words.parse().and_then(somebody)))),
    ("max-connections", Reader::Number(|options, most| options.limits.connections = Some(most))),
    ("max-connections-per-source", Reader::Number(|options, most| options.limits.connections_per_source = Some(most))),
    ("rate", Reader::Word(|options, word| put(&mut options.limits.rate, word.parse().map(Some)))),
    ("log", Reader::Flag(|options, on| options.log = on)),
    ("quick", Reader::Flag(|options, on| options.quick = on)),
]);

/// A list that was given and is empty has been lost: it must not admit everybody.
fn somebody(sources: Vec<Source>) -> Result<Vec<Source>> {
    match sources.is_empty() {
        true => Err(Error::new(Kind::Argument, "an empty list would admit nobody; leave it out to admit everybody")),
        false => Ok(sources),
    }
}

impl Options {
    /// The name of each option, as [`Options::set`] takes it, and what kind of value it has.
    pub fn names() -> impl Iterator<Item = (&'static str, Takes)> {
        NAMED.names()
    }

    /// What kind of value the option with this name has; `None` if there is none.
    pub fn takes(name: &str) -> Option<Takes> {
        NAMED.takes(name)
    }

    /// Sets an option by its name, which is that of its flag: `max-connections`, `quick` or `no-quick`.
    ///
    /// # Errors
    ///
    /// [`Kind::Argument`] for a value that the option cannot have; if it is an item of a list that was given as one text,
    /// [`Error::offset`] is that of the item. The message does not repeat the name. [`Kind::Unsupported`] for an unknown name.
    pub fn set(&mut self, name: &str, given: &Given) -> Result<()> {
        let unknown = || Err(Error::new(Kind::Unsupported, format!("{} is not an option of kport", quoted(name))));
        NAMED.set(self, name, given).unwrap_or_else(unknown)
    }

    /// The most sources, and the most interfaces to reach from: each is a rule of its own for each mapping. A table
    /// holds any number of addresses.
    pub const MOST: usize = 64;

    /// Whether everybody whom `before` let in may still come, and as much of it at a time: otherwise connections that were
    /// made before must end. Where it is not plain that a change is none to the worse, it is one.
    pub(crate) fn allows_all_of(&self, before: &Options) -> bool {
        let sources = self.sources.is_empty()
            || !before.sources.is_empty()
                && before.sources.iter().all(|old| self.sources.iter().any(|new| new.holds(old)));
        let reach = before.reach.iter().all(|interface| self.reach.contains(interface));
        let stays = |before: bool, now: bool| !before || now;
        sources
            && reach
            && stays(before.hairpin, self.hairpin)
            && stays(before.host_access, self.host_access)
            && self.limits.allow_all_of(&before.limits)
    }

    /// Whether the options can hold together, whatever is published.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::new(Kind::Argument, why));
        let most = Options::MOST;
        if self.sources.len() > most {
            return refuse(format!(
                "{} sources; at most {most}: put them into a pf table and give <table>",
                self.sources.len()
            ));
        }
        if self.reach.len() > most {
            return refuse(format!(
                "{} interfaces to reach from; at most {most}: put them into a group",
                self.reach.len()
            ));
        }
        if self.hairpin && self.reach.iter().all(|interface| Place::Interface(*interface).is_loopback()) {
            return refuse("hairpin serves the reach list, which names no interface or group of jails".to_owned());
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            // the names are constants that the tests parse
            reach: JAIL_GROUPS.iter().filter_map(|name| name.parse().ok()).collect(),
            hairpin: false,
            host_access: false,
            sources: vec![],
            limits: Limits::default(),
            log: false,
            quick: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_narrower_does_not_allow_all() {
        let usual = Options::default;
        let from =
            |sources: &[&str]| Options { sources: sources.iter().map(|s| s.parse().unwrap()).collect(), ..usual() };
        let most = |n: u32| Limits { connections: n.try_into().ok(), ..Limits::default() };
        let rate = |rate: &str| Options { limits: Limits { rate: rate.parse().ok(), ..most(0) }, ..usual() };
        // one way is narrower, and back is wider
        for (wide, narrow) in [
            (usual(), from(&["192.0.2.0/24"])),
            (from(&["192.0.2.0/24", "<a>"]), from(&["192.0.2.0/25", "<a>"])),
            (from(&["<a>", "<b>"]), from(&["<a>"])),
            (usual(), Options { reach: vec!["bridge".parse().unwrap()], ..usual() }),
            (Options { hairpin: true, ..usual() }, usual()),
            (Options { host_access: true, ..usual() }, usual()),
            (usual(), Options { limits: most(10), ..usual() }),
            (Options { limits: most(10), ..usual() }, Options { limits: most(9), ..usual() }),
            (usual(), rate("5/1")),
        ] {
            assert!(wide.allows_all_of(&narrow) && !narrow.allows_all_of(&wide), "{wide:?} {narrow:?}");
            assert!(wide.allows_all_of(&wide) && narrow.allows_all_of(&narrow));
        }
        // not plain, so an end both ways
        assert!(!rate("5/1").allows_all_of(&rate("10/2")) && !rate("10/2").allows_all_of(&rate("5/1")));
        assert!(!from(&["<a>"]).allows_all_of(&from(&["192.0.2.1"])));
        let other = Options { log: true, quick: false, ..usual() };
        assert!(other.allows_all_of(&usual()) && usual().allows_all_of(&other));
    }

    /// One value of each option that is not its default.
    fn each_by_name() -> Options {
        let mut options = Options::default();
        for (name, takes) in Options::names() {
            let text = match name {
                "reach" => "bridge1 jails",
                "sources" => "192.0.2.0/24 <friends>",
                "rate" => "15/5",
                _ => "7",
            };
            let given = match takes {
                Takes::Flag => Given::Flag(name != "quick"),
                _ => Given::Text(text.to_owned()),
            };
            options.set(name, &given).unwrap();
        }
        options
    }

    #[test]
    fn every_field_is_set_by_name() {
        use serde_json::{Value, to_value};
        fn leaves(value: Value, path: String, found: &mut Vec<(String, Value)>) {
            match value {
                Value::Object(fields) => {
                    fields.into_iter().for_each(|(key, value)| leaves(value, format!("{path}.{key}"), found));
                }
                value => found.push((path, value)),
            }
        }
        let (mut usual, mut set) = (vec![], vec![]);
        leaves(to_value(Options::default()).unwrap(), String::new(), &mut usual);
        leaves(to_value(each_by_name()).unwrap(), String::new(), &mut set);
        assert_eq!(usual.len(), Options::names().count());
        for (before, after) in usual.iter().zip(&set) {
            assert!(before.0 == after.0 && before.1 != after.1, "{before:?} {after:?}");
        }
    }

    #[test]
    fn values_by_name() {
        let set = |name: &str, given: Given| {
            let mut options = Options::default();
            options.set(name, &given).map(|()| options)
        };
        let text = |text: &str| Given::Text(text.to_owned());
        let list = |items: &[&str]| Given::List(items.iter().map(|item| (*item).to_owned()).collect());
        assert_eq!(set("reach", text(" ")).unwrap().reach, []);
        assert_eq!(set("reach", text(" lo\tbridge ")), set("reach", list(&["lo", "bridge"])));
        for (name, on, quick) in [("quick", true, true), ("no-quick", true, false), ("no-quick", false, true)] {
            assert_eq!(set(name, Given::Flag(on)).unwrap().quick, quick);
        }
        for (name, given, kind, offset) in [
            ("sources", text("192.0.2.0/24 em0"), Kind::Argument, Some(13)),
            ("sources", list(&["192.0.2.0/24", "em0"]), Kind::Argument, None),
            ("sources", list(&["192.0.2.0/24 <a>"]), Kind::Argument, None),
            ("sources", text(" "), Kind::Argument, None),
            ("sources", list(&[]), Kind::Argument, None),
            ("sources", Given::Flag(true), Kind::Argument, None),
            ("hairpin", text("yes"), Kind::Argument, None),
            ("max-connections", text("0"), Kind::Argument, None),
            ("max-connections", text("4294967296"), Kind::Argument, None),
            ("rate", text("5"), Kind::Argument, None),
            ("rate", list(&["5/1"]), Kind::Argument, None),
            ("no-sources", text("<a>"), Kind::Unsupported, None),
            ("no-no-quick", Given::Flag(true), Kind::Unsupported, None),
            ("sorces", text("<a>"), Kind::Unsupported, None),
        ] {
            let error = set(name, given.clone()).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (kind, offset), "{name} {given:?}: {error}");
        }
    }

    #[test]
    fn sources() {
        for good in ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "2001:db8::1", "<friends>", "0.0.0.0/0", "::/0"] {
            assert_eq!(good.parse::<Source>().unwrap().to_string(), good);
        }
        assert_eq!("192.0.2.1/32".parse::<Source>().unwrap().to_string(), "192.0.2.1");
        for bad in
            ["", "192.0.2.1/24", "192.0.2.0/33", "<>", "<a", "a", "<a b>", "<_pf>", "! 192.0.2.1", "ff02::1", "em0"]
        {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
            assert!(serde_json::from_value::<Source>(bad.into()).is_err(), "{bad}");
        }
    }
}
