//! How a jail's ports are published: who may connect, from where, how often.
//!
//! Options are set by name. The names are those of the flags of kport(8), such as `max-connections`. A flag of the helper, a field
//! of the C struct and a key of JSON are all converted to such a name, so that an option is read and checked in one place: its row
//! in a `Names`. The caller puts the name that the user wrote before the error: `--rate`, `options->rate_seconds`, `limits.rate`.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, error, quoted};
use crate::name::Table;
use crate::net::{Family, Interface, JAIL_GROUPS, Place, Protocol, as_text};
pub use crate::rule::Rate;
use crate::rule::{Address, StateOptions};

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
    /// Whether every address of `other` is also in this one. The contents of a table are unknown.
    fn holds(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::Network(all), Source::Network(part)) => all.contains(part),
            _ => self == other,
        }
    }

    /// The network; `None` for a table.
    pub fn network(&self) -> Option<&IpNet> {
        if let Source::Network(network) = self { Some(network) } else { None }
    }

    /// Its text in a rule of `family`; `None` if the rule can never match such an address.
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
        let refuse = |why: &str| Err(error!(Argument, "source {}: {why}", quoted(text)));
        if let Some(name) = text.strip_prefix('<') {
            let Some(name) = name.strip_suffix('>') else { return refuse("the closing > is missing") };
            return name.parse().map(Source::Table);
        }
        let Ok(network) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) else {
            return refuse("neither a network such as 192.0.2.0/24, nor an address, nor a table <name>");
        };
        if network.addr() != network.network() {
            return refuse(&format!("has bits set after its prefix; write {} or {}", network.trunc(), network.addr()));
        }
        match network.addr() {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                refuse("an IPv4-mapped address, which is not on the wire; write the IPv4 address itself")
            }
            address if address.is_multicast() => refuse("a multicast address cannot be a source"),
            _ => Ok(Source::Network(network)),
        }
    }
}

as_text!(Source);

/// Limits of a mapping. pf counts for each rule: all traffic from outside together, that with `reply-to` apart from it, and that
/// from each interface or group of the reach list separately. A connection counts once, when it comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// The maximum number of connections at once, from all sources together: `max`.
    pub connections: Option<NonZeroU32>,
    /// The maximum number of connections at once from one source address: `max-src-conn`, which counts finished handshakes;
    /// for udp and sctp, whose connections pf does not track, `max-src-states`.
    pub connections_per_source: Option<NonZeroU32>,
    /// The maximum rate of new connections from one source address, tcp only: `max-src-conn-rate`.
    pub rate: Option<Rate>,
}

impl Limits {
    /// Whether each limit is at least as wide as that of `before`.
    pub(crate) fn allow_all_of(&self, before: &Limits) -> bool {
        let number = |now: Option<NonZeroU32>, before: Option<NonZeroU32>| {
            now.is_none_or(|now| before.is_some_and(|before| now >= before))
        };
        number(self.connections, before.connections)
            && number(self.connections_per_source, before.connections_per_source)
            && (self.rate.is_none() || self.rate == before.rate)
    }

    /// The state options of a pass rule.
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
/// Three lists decide who may connect, and none restricts another. [`Options::sources`] applies to the host's places, for
/// traffic from outside; [`Options::reach`] opens the jail's own address, and with [`Options::hairpin`] the host's, to jails;
/// [`Options::host_access`] is for the host's own programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The interfaces and groups whose hosts may connect to the jail's own address and published ports (`--reach`).
    pub reach: Vec<Interface>,
    /// Let the jails of the reach list, including those on the published jail's own bridge, also use the published port at
    /// the host's address (`--hairpin`). Loopback interfaces in the reach list are not included: see
    /// [`Options::host_access`].
    pub hairpin: bool,
    /// Let the host itself, and the jails that share its stack, use the published port at its own address and at 127.0.0.1 or
    /// ::1 (`--host-access`). Needs `net.pf.filter_local=1` from before pf was enabled, and no `set skip` on lo.
    pub host_access: bool,
    /// Replace the source of every connection to the published port with an address of the interface that leads to the jail
    /// (`--masquerade`), so that the answer returns through the host whatever the jail's default route is. The jail sees the
    /// host as the client; [`Options::sources`] applies to the client's own address.
    pub masquerade: bool,
    /// The families of the published ports (`--family`); if empty, those of the jail's addresses.
    pub families: Vec<Family>,
    /// Let IPv6 clients use the ports of a jail that has an IPv4 address only (`--af-to`): pf of 15 translates the packets. The
    /// jail sees an address of the host as the source.
    pub af_to: bool,
    /// Only these sources may use the publication from outside (`--sources`); if empty, all may. If no source of a redirect's
    /// family is listed, nobody outside can use that redirect.
    pub sources: Vec<Source>,
    /// The limits of each mapping (`--max-connections`, `--max-connections-per-source`, `--rate`).
    pub limits: Limits,
    /// The routers of the interfaces that are not the default route's, at most one of each family (`--reply-to`): what comes
    /// in by one of these interfaces is answered through its router. `None`: those of the host's routes. An empty list:
    /// never, the route to the client decides (`--reply-to none`).
    pub reply_to: Option<Vec<IpAddr>>,
    /// Log the packet that starts a connection to pflog0, once, when it comes in (`--log`).
    pub log: bool,
    /// The pass rules end the evaluation, whatever rules follow kport's anchor (`--no-quick` turns it off).
    pub quick: bool,
}

/// Each option by its name.
const NAMED: Names<Options> = Names(&[
    ("reach", Takes::Words, |options, given| put(&mut options.reach, given.parse())),
    ("hairpin", Takes::Flag, |options, given| put(&mut options.hairpin, given.flag())),
    ("host-access", Takes::Flag, |options, given| put(&mut options.host_access, given.flag())),
    ("masquerade", Takes::Flag, |options, given| put(&mut options.masquerade, given.flag())),
    ("family", Takes::Words, |options, given| put(&mut options.families, given.each(Family::list).map(flat))),
    ("sources", Takes::Words, |options, given| put(&mut options.sources, given.parse().and_then(somebody))),
    ("max-connections", Takes::Number, |options, given| put(&mut options.limits.connections, given.number().map(Some))),
    ("max-connections-per-source", Takes::Number, |options, given| {
        put(&mut options.limits.connections_per_source, given.number().map(Some))
    }),
    ("rate", Takes::Word, |options, given| put(&mut options.limits.rate, given.word(str::parse).map(Some))),
    ("reply-to", Takes::Words, |options, given| {
        put(&mut options.reply_to, given.each(router).and_then(routers).map(Some))
    }),
    ("log", Takes::Flag, |options, given| put(&mut options.log, given.flag())),
    ("af-to", Takes::Flag, |options, given| put(&mut options.af_to, given.flag())),
    ("quick", Takes::Flag, |options, given| put(&mut options.quick, given.flag())),
]);

fn flat(lists: Vec<Vec<Family>>) -> Vec<Family> {
    let given = lists.concat();
    Family::ALL.into_iter().filter(|family| given.contains(family)).collect()
}

/// An empty list is a mistake of the caller: it must not admit everybody.
fn somebody(sources: Vec<Source>) -> Result<Vec<Source>> {
    if sources.is_empty() {
        return Err(error!(Argument, "an empty list would admit nobody; omit it to admit everybody"));
    }
    Ok(sources)
}

/// The routers of an item: addresses with commas; `none` is no router.
fn router(item: &str) -> Result<Vec<IpAddr>> {
    let address = |word: &str| {
        word.parse().map_err(|_| error!(Argument, "{} is not the address of a router, nor none", quoted(word)))
    };
    if item == "none" { Ok(vec![]) } else { item.split(',').map(address).collect() }
}

/// Those of all items.
fn routers(given: Vec<Vec<IpAddr>>) -> Result<Vec<IpAddr>> {
    if given.is_empty() {
        return Err(error!(Argument, "an empty list; write none to leave the answers to the routes"));
    }
    if given.len() > 1 && given.iter().any(Vec::is_empty) {
        return Err(error!(Argument, "none cannot be in a list with routers"));
    }
    let all = given.concat();
    check_routers(&all)?;
    Ok(all)
}

/// Whether they can be routers, and are one of each family at most.
fn check_routers(routers: &[IpAddr]) -> Result<()> {
    let unusable = |address: &&IpAddr| match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => true,
        _ => address.is_unspecified() || address.is_loopback() || address.is_multicast(),
    };
    if let Some(address) = routers.iter().find(unusable) {
        return Err(error!(Argument, "{address} is not the address of a router"));
    }
    match Family::ALL.into_iter().find(|family| routers.iter().filter(|a| Family::of(**a) == *family).count() > 1) {
        Some(family) => {
            Err(error!(Argument, "two {family} routers; publish the ports of each interface by themselves"))
        }
        None => Ok(()),
    }
}

impl Options {
    /// The name of each option, as for [`Options::set`], and the kind of its value.
    pub fn names() -> impl Iterator<Item = (&'static str, Takes)> {
        NAMED.names()
    }

    /// The kind of value of the option with this name; `None` if there is none.
    pub fn takes(name: &str) -> Option<Takes> {
        NAMED.takes(name)
    }

    /// Sets an option by its name, which is that of its flag: `max-connections`, `quick` or `no-quick`.
    ///
    /// # Errors
    ///
    /// `Kind::Argument` for a value that the option cannot have; if it is an item of a list that
    /// was given as one string, [`Error::offset`] is that of the item. The message does not repeat the name.
    /// `Kind::Unsupported` for an unknown name.
    pub fn set(&mut self, name: &str, given: &Given) -> Result<()> {
        let unknown = || Err(error!(Unsupported, "{} is not an option of kport", quoted(name)));
        NAMED.set(self, name, given).unwrap_or_else(unknown)
    }

    /// The maximum number of sources, and of interfaces in the reach list: each is a rule of its own for each mapping. A
    /// table has any number of addresses.
    pub const MOST: usize = 64;

    /// Whether they need nat rules, at the interface that leads to the jail.
    pub(crate) fn translate_sources(&self) -> bool {
        self.hairpin || self.host_access || self.masquerade
    }

    /// Whether everybody that `before` admitted is still admitted, and with no lower limits: otherwise connections that were
    /// created before must end. When in doubt, a change counts as a restriction.
    #[doc(hidden)]
    pub fn allows_all_of(&self, before: &Options) -> bool {
        self.sources_allow_all_of(before)
            && before.reach.iter().all(|interface| self.reach.contains(interface))
            && self.hairpin >= before.hairpin
            && self.host_access >= before.host_access
            && self.af_to >= before.af_to
            && self.limits.allow_all_of(&before.limits)
    }

    /// Whether every source that `before` admitted is still admitted.
    pub(crate) fn sources_allow_all_of(&self, before: &Options) -> bool {
        self.sources.is_empty()
            || !before.sources.is_empty()
                && before.sources.iter().all(|old| self.sources.iter().any(|new| new.holds(old)))
    }

    /// Whether the options are consistent, independent of the ports.
    pub(crate) fn check(&self) -> Result<()> {
        let most = Options::MOST;
        let (sources, reach) = (self.sources.len(), self.reach.len());
        if sources > most {
            return Err(error!(
                Argument,
                "{sources} sources; at most {most}: put them into a pf table and give <table>"
            ));
        }
        if reach > most {
            return Err(error!(Argument, "{reach} interfaces to reach from; at most {most}: put them into a group"));
        }
        check_routers(self.reply_to.as_deref().unwrap_or_default())?;
        if self.hairpin && self.reach.iter().all(|interface| Place::Interface(*interface).is_loopback()) {
            return Err(error!(Argument, "hairpin needs an interface or group of jails in the reach list"));
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
            masquerade: false,
            families: vec![],
            af_to: false,
            sources: vec![],
            limits: Limits::default(),
            reply_to: None,
            log: false,
            quick: true,
        }
    }
}

/// The value of an option, as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// On or off.
    Flag(bool),
    /// One string; for an option that takes a list, the items separated by white space.
    Text(String),
    /// A list, a string for each item.
    List(Vec<String>),
}

/// The kind of value that an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None: the option is on or off, and `no-NAME` is its opposite.
    Flag,
    /// A number from 1 to 4294967295.
    Number,
    /// One word.
    Word,
    /// Any number of words.
    Words,
}

/// Stores a value, unless it is an error.
pub(crate) fn put<V>(place: &mut V, value: Result<V>) -> Result<()> {
    *place = value?;
    Ok(())
}

impl Given {
    pub(crate) fn flag(&self) -> Result<bool> {
        if let Given::Flag(on) = self { Ok(*on) } else { Err(error!(Argument, "is on or off")) }
    }

    fn text(&self, what: &str) -> Result<&str> {
        if let Given::Text(text) = self { Ok(text) } else { Err(error!(Argument, "takes {what}")) }
    }

    fn number(&self) -> Result<NonZeroU32> {
        let text = self.text("a number")?;
        text.parse().map_err(|_| error!(Argument, "{} is not a number from 1 to {}", quoted(text), u32::MAX))
    }

    /// Reads one word with `read`.
    pub(crate) fn word<V>(&self, read: impl Fn(&str) -> Result<V>) -> Result<V> {
        read(self.text("one word")?)
    }

    /// Reads each item of a list with `read`; an error has the offset of the item in the string, if all are from one.
    pub(crate) fn each<V>(&self, read: impl Fn(&str) -> Result<V>) -> Result<Vec<V>> {
        match self {
            Given::Flag(_) => Err(error!(Argument, "takes a list of words")),
            Given::Text(text) => {
                let offset = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
                text.split_whitespace().map(|word| read(word).map_err(|error| error.at(offset(word)))).collect()
            }
            Given::List(items) => items.iter().map(|item| read(item)).collect(),
        }
    }

    /// Each item as written.
    pub(crate) fn parse<V: FromStr<Err = Error>>(&self) -> Result<Vec<V>> {
        self.each(str::parse)
    }
}

/// An option of a `T`: its name, the kind of its value, and what reads and stores it.
type Named<T> = (&'static str, Takes, fn(&mut T, &Given) -> Result<()>);

/// The options of a `T`.
pub(crate) struct Names<T: 'static>(pub(crate) &'static [Named<T>]);

impl<T> Names<T> {
    /// Every name, and the kind of its value.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&'static str, Takes)> {
        self.0.iter().map(|(name, takes, _)| (*name, *takes))
    }

    /// The kind of value of the option with this name.
    pub(crate) fn takes(&self, name: &str) -> Option<Takes> {
        self.named(name).map(|((_, takes, _), _)| *takes)
    }

    /// Reads an option into `to`; `None` if no option has this name.
    pub(crate) fn set(&self, to: &mut T, name: &str, given: &Given) -> Option<Result<()>> {
        let ((.., set), is_opposite) = self.named(name)?;
        Some(match is_opposite {
            true => given.flag().and_then(|on| set(to, &Given::Flag(!on))),
            false => set(to, given),
        })
    }

    /// The option with this name, and whether the name is that of its opposite.
    fn named(&self, name: &str) -> Option<(&Named<T>, bool)> {
        let named = |name: &str| self.0.iter().find(|(known, ..)| *known == name);
        let opposite = || named(name.strip_prefix("no-")?).filter(|(_, takes, _)| *takes == Takes::Flag);
        named(name).map(|option| (option, false)).or_else(|| opposite().map(|option| (option, true)))
    }
}
