//! Sources, what a main ruleset makes of them, and the entrances of a host: where ports can be published, before any is.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::error::Result;
use crate::host::{Host, HostInterface};
use crate::net::{Direction, Family, Interface, PerFamily, Place, Protocol};
use crate::pfconf::Conf;
use crate::pfconf::path::is_own;
use crate::pfconf::rule::{Origin, Rule, RuleKind};
use crate::trace::{At, Met, Packet, Release, World};

pub const SOURCE_PORT: u16 = 40_000;
const MOST_PORTS: usize = 8;
/// Networks for a jail on a host that has none for jails yet.
const NETWORKS: [&str; 4] = ["10.77.77.1/24", "172.29.77.1/24", "192.168.177.1/24", "fd77:77::1/64"];
/// The port to publish, unless a rule singles it out.
const PORT: u16 = 8080;
/// How many addresses of a class are taken for tables and anchors.
const MOST_FREE: u32 = 4096;
/// The number of classes from which addresses are added to tables and blocked in anchors.
const MOST_CLASSES: usize = 4;

/// A published port, as packets from outside use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entrance {
    pub on: Interface,
    pub protocol: Protocol,
    pub host: SocketAddr,
    pub jail: SocketAddr,
    /// The interface that leads to the jail; `None` if the address is the host's own.
    pub via: Option<Interface>,
    /// Published ports must be reached there.
    pub required: bool,
}

impl Entrance {
    pub fn family(&self) -> Family {
        Family::of(self.jail.ip())
    }

    pub fn into(&self) -> At {
        At { direction: Direction::In, on: self.on, received_on: Some(self.on) }
    }

    /// The interfaces at which pf evaluates a packet to it after the redirect.
    pub fn hooks(&self) -> impl Iterator<Item = At> {
        let out = self.via.map(|on| At { direction: Direction::Out, on, received_on: Some(self.on) });
        std::iter::once(self.into()).chain(out)
    }

    pub fn sent(&self, source: IpAddr) -> Packet {
        Packet::first(self.protocol, SocketAddr::new(source, SOURCE_PORT), self.host)
    }

    pub fn redirected(&self, source: IpAddr) -> Packet {
        Packet::first(self.protocol, SocketAddr::new(source, SOURCE_PORT), self.jail)
    }
}

/// `em0 inet tcp`
impl fmt::Display for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.on, self.family(), self.protocol)
    }
}

/// Somebody who sends packets to published ports.
#[derive(Clone, Debug)]
pub struct Source {
    pub address: IpAddr,
    /// What cannot be decided, and holds for its packets.
    pub holds: Option<String>,
    /// It is blocked in an anchor of a program that is not known to block anybody.
    pub perhaps: bool,
}

impl Source {
    fn of(address: IpAddr) -> Source {
        Source { address, holds: None, perhaps: false }
    }
}

/// Programs that block sources in an anchor of this name.
const BLOCKERS: [&str; 6] = ["blacklistd", "blocklistd", "crowdsec", "f2b", "fail2ban", "sshguard"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outsider {
    pub address: IpAddr,
    /// The statement that refuses most others: only those that it allows, as this one, get in.
    pub allowed_by: Option<Origin>,
}

/// A ruleset, and the sources that it can distinguish.
#[derive(Debug)]
pub struct Judge {
    pub world: World,
    main: Arc<str>,
    /// The largest class of addresses first.
    pub sources: PerFamily<Vec<Source>>,
    /// Entrances to other ports of jails, at which rules refuse sources.
    pub ports: Vec<Entrance>,
}

/// The rules that match the packets of a source, by interface.
pub type Trail<'j> = Vec<Vec<Met<'j>>>;

/// The rules that match the packets of each source at one [`Entrance`].
pub struct BySource<'j> {
    sources: Vec<(Source, Trail<'j>)>,
    /// The ordinary outsider among the sources.
    ordinary: Option<usize>,
    /// The statement that refuses most sources because of their addresses, if there is one.
    pub most: Option<Origin>,
}

impl Judge {
    /// Judges a world without kport's own rules. `main` is the name of the file of its main ruleset, if there is one.
    pub fn new(mut world: World, main: &str) -> Judge {
        let families = PerFamily::each(|family| world.classes(family));
        let (tables, anchors) = (world.tables(), world.open_anchors());
        let sources = PerFamily::each(|family| {
            let classes = families.of(family);
            let mut of: Vec<Source> = classes.iter().map(|class| Source::of(class.address)).collect();
            // of the largest ones, since an allow-list may refuse the first
            for class in classes.iter().take(MOST_CLASSES) {
                let mut free = (0..MOST_FREE).filter_map(|number| class.another(number));
                for table in &tables {
                    let Some(address) = free.next() else { break };
                    world.add_to_table(table, address);
                    of.push(Source::of(address));
                }
                for anchor in &anchors {
                    let Some(address) = free.next() else { break };
                    // as fail2ban, blocklistd(8) and others load it
                    world.load_more(anchor, &Conf::of_output(&format!("block drop quick from {address}\n")));
                    let perhaps = !anchor.split('/').any(|name| BLOCKERS.contains(&name));
                    of.push(Source { perhaps, ..Source::of(address) });
                }
            }
            of
        });
        Judge { world, main: main.into(), sources, ports: vec![] }
    }

    /// What becomes of every source at an entrance.
    pub fn survey(&self, entrance: &Entrance) -> Result<BySource<'_>> {
        let mut undecided = BTreeSet::new();
        let mut sources = vec![];
        for source in self.sources.of(entrance.family()) {
            sources.push((source.clone(), self.trail(entrance, source, &mut undecided)?));
        }
        let (ordinary, _) = self.find_ordinary(entrance, &sources);
        // what cannot be decided differs for packets of one source
        if let Some(address) = sources.get(ordinary.unwrap_or(0)).map(|(source, _)| source.address) {
            for what in std::mem::take(&mut undecided) {
                let source = Source { holds: Some(what), ..Source::of(address) };
                let trail = self.trail(entrance, &source, &mut undecided)?;
                sources.push((source, trail));
            }
        }
        let (ordinary, most) = self.find_ordinary(entrance, &sources);
        Ok(BySource { ordinary, most: most.map(|met| self.statement(&met)), sources })
    }

    /// The ordinary outsider among sources, the largest class of those that are not refused, or by a rule that refuses
    /// every source that reaches it; and the rule that refuses larger classes. Packets from its address come in on the interface
    /// of the entrance, as the routes are.
    fn find_ordinary<'j>(
        &self, entrance: &Entrance, sources: &[(Source, Trail<'j>)],
    ) -> (Option<usize>, Option<Met<'j>>) {
        let mut most = None;
        for (at, (source, hooks)) in sources.iter().enumerate() {
            if !self.world.is_behind(entrance.on, source.address) {
                continue;
            }
            let refused = hooks.iter().enumerate().find_map(|(hook, met)| {
                let last = Met::decision(met).filter(Met::blocks)?;
                (!refuses_all(sources, hook, &last)).then_some(last)
            });
            match refused {
                None => return (Some(at), most),
                Some(last) => _ = most.get_or_insert(last),
            }
        }
        (None, most)
    }

    fn trail(&self, entrance: &Entrance, source: &Source, undecided: &mut BTreeSet<String>) -> Result<Trail<'_>> {
        let packet = entrance.redirected(source.address);
        let hooks = entrance.hooks().map(|hook| {
            let (met, more) = self.world.met(RuleKind::Filter, hook, &packet, source.holds.as_slice())?;
            undecided.extend(more);
            Ok(met)
        });
        hooks.collect()
    }

    /// A source that no rule, list or table singles out; if only an allow-list lets anybody in, one of those.
    pub fn outsider(&self, entrance: &Entrance) -> Result<Option<Outsider>> {
        Ok(self.survey(entrance)?.outsider())
    }

    /// The statement that refuses a source because of its address: an ordinary outsider is not refused by it.
    pub fn refusal(&self, entrance: &Entrance, source: IpAddr) -> Result<Option<Origin>> {
        let survey = self.survey(entrance)?;
        let trail = self.trail(entrance, &Source::of(source), &mut BTreeSet::new())?;
        Ok(survey.refused_by_source(&trail).map(|met| self.statement(&met)))
    }

    /// The statement of a rule: that of the file.
    pub fn statement(&self, met: &Met<'_>) -> Origin {
        // rules that a program has loaded, or may load, are the call's
        let of_file = |rule: &&Rule| rule.origin.line > 0 && !rule.origin.file.is_empty();
        Some(met.rule).filter(of_file).unwrap_or(met.main).origin.seen_from(&self.main)
    }
}

impl<'j> BySource<'j> {
    pub fn outsider(&self) -> Option<Outsider> {
        Some(Outsider { address: self.sources[self.ordinary?].0.address, allowed_by: self.most.clone() })
    }

    /// The sources that are refused, the rules that match their packets, by interface, and the one that refuses.
    pub fn refused(&self) -> impl Iterator<Item = (&Source, &Trail<'j>, Met<'j>)> {
        self.sources.iter().filter_map(|(source, trail)| Some((source, trail, self.refused_by_source(trail)?)))
    }

    pub fn ordinary_trail(&self) -> Option<&Trail<'j>> {
        Some(&self.sources[self.ordinary?].1)
    }

    /// The rule that refuses a source, unless there is an ordinary outsider that is refused by it as well.
    fn refused_by_source(&self, trail: &Trail<'j>) -> Option<Met<'j>> {
        let last = |met: &Vec<Met<'j>>| Met::decision(met).filter(Met::blocks);
        let (hook, refused) = trail.iter().enumerate().find_map(|(hook, met)| Some((hook, last(met)?)))?;
        let other = self.ordinary_trail().and_then(|hooks| Met::decision(&hooks[hook]));
        (!other.is_some_and(|other| other.is(&refused))).then_some(refused)
    }
}

/// Whether a rule blocks every source that reaches it.
fn refuses_all(sources: &[(Source, Trail<'_>)], hook: usize, rule: &Met<'_>) -> bool {
    sources.iter().all(|(_, hooks)| {
        let ended = hooks[hook].last().is_some_and(|last| last.last && last.at < rule.at);
        ended || hooks[hook].iter().any(|met| met.is(rule))
    })
}

/// A judge of rulesets on a host, by path, the main one's empty, and the entrances of the host. kport's own anchors are
/// left out. `main` is the name of the file of the main ruleset, if it was read from one.
pub fn judge<'a>(
    host: &dyn Host, rulesets: impl IntoIterator<Item = (&'a str, &'a Conf)>, main: &str,
) -> Result<(Judge, Vec<Entrance>)> {
    let mut world = World::new(Release::of_host(host)?, host.interfaces()?);
    world.set_gateways(host)?;
    for (path, conf) in rulesets.into_iter().filter(|(path, _)| !is_own(path)) {
        world.load_conf(path, conf);
    }
    let entrances = entrances(&mut world);
    let mut judge = Judge::new(world, main);
    // whether sources that are refused at ports of jails that rules name stay refused there
    let ports: Vec<u16> = judge.world.refusing_ports().into_iter().take(MOST_PORTS).collect();
    for entrance in &entrances {
        let other = ports.iter().filter(|port| **port != entrance.jail.port());
        judge
            .ports
            .extend(other.map(|port| Entrance { jail: SocketAddr::new(entrance.jail.ip(), *port), ..*entrance }));
    }
    Ok((judge, entrances))
}

/// The entrances of a host, with a port that no rule singles out: for each interface to other hosts and each of its families, tcp
/// and udp to a jail. Adds a bridge to a host that has no network for jails. An interface that pf skips is not one. Required are
/// those at the interface of a default route, in a family in which the host has networks for jails.
fn entrances(world: &mut World) -> Vec<Entrance> {
    let port = world.ports(PORT)[0];
    let mut found = vec![];
    let gateways = Family::ALL.map(|family| *world.lookup.gateway.of(family));
    let inner = |interface: &HostInterface| interface.is_in_jail_group() && !gateways.contains(&Some(interface.name));
    let all = world.lookup.interfaces.clone();
    let (inner, outer): (Vec<_>, Vec<_>) = all.into_iter().partition(inner);
    let has_network = |family| inner.iter().any(|interface| jail_on(interface, family).is_some());
    let any_network = Family::ALL.into_iter().any(has_network);
    for family in Family::ALL {
        let mut jails: Vec<_> = inner.iter().filter_map(|interface| jail_on(interface, family)).collect();
        let outer = outer.iter().filter(|interface| !world.skips(interface.name));
        let outer: Vec<(Interface, IpAddr)> = outer.filter_map(|i| Some((i.name, i.address(family)?))).collect();
        if outer.is_empty() {
            continue;
        }
        if jails.is_empty() {
            jails.extend(made_up(world, family));
        }
        for (on, host) in outer {
            let required = *world.lookup.gateway.of(family) == Some(on) && (has_network(family) || !any_network);
            for (jail, via) in &jails {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let at = |address| SocketAddr::new(address, port);
                    found.push(Entrance { on, protocol, host: at(host), jail: at(*jail), via: *via, required });
                }
            }
        }
    }
    // a host without a default route
    if found.iter().all(|entrance| !entrance.required) {
        found.iter_mut().for_each(|entrance| entrance.required = true);
    }
    found
}

/// An address for a jail behind an interface, and the interface; on a loopback interface one of the host's own.
fn jail_on(interface: &HostInterface, family: Family) -> Option<(IpAddr, Option<Interface>)> {
    let mut networks = interface.networks(family).filter(|network| !network.addr().is_loopback());
    let loopback = "lo".parse().is_ok_and(|group| interface.is_in(group));
    if loopback || Place::Interface(interface.name).is_loopback() {
        return networks.next().map(|network| (network.addr(), None));
    }
    let free = |network: &IpNet| network.hosts().skip(1).take(9).find(|address| !interface.has(*address));
    networks.find_map(free).map(|address| (address, Some(interface.name)))
}

/// A jail on a bridge that the host does not have, in a network that it does not have.
fn made_up(world: &mut World, family: Family) -> Option<(IpAddr, Option<Interface>)> {
    let interfaces = &mut world.lookup.interfaces;
    let own = || interfaces.iter().flat_map(|interface| &interface.addresses);
    let network = NETWORKS.iter().filter_map(|text| text.parse::<IpNet>().ok()).find(|network| {
        Family::of(network.addr()) == family
            && own().all(|own| !own.contains(&network.addr()) && !network.contains(&own.addr()))
    })?;
    let there = |name: &Interface| interfaces.iter().any(|interface| interface.name == *name);
    let bridge = (0..100).filter_map(|unit| format!("bridge{unit}").parse().ok()).find(|name| !there(name))?;
    let group = "bridge".parse().ok()?;
    let on = interfaces.iter_mut().find(|interface| interface.is_in(group));
    let name = match on {
        Some(on) => {
            on.addresses.push(network);
            on.name
        }
        None => {
            interfaces.push(HostInterface::up(bridge, vec![group], vec![network]));
            bridge
        }
    };
    let jail = network.hosts().skip(1).find(|address| *address != network.addr())?;
    Some((jail, Some(name)))
}
