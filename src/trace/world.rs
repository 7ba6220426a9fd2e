//! The host around pf: addresses, jails, and the loaded rules. The path of a packet is in `way`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::matching::{Lookup, is_loopback};
use super::state::Pf;
use super::{Party, Release};
use crate::calls::{self, Entry};
use crate::error::{Error, Kind, Result, error};
use crate::host::{ANSWER_TIME, Host, HostInterface, Interfaces, Router};
use crate::name::{Anchor, PARENT};
use crate::net::{Family, Interface, PerFamily};
use crate::pf::Firewall;
use crate::pfconf::Conf;
use crate::pfconf::path::Called;
use crate::rule::Rule;

/// The beginning of the message about a file that pfctl(8) would refuse.
pub const REFUSES: &str = "pfctl(8) refuses the whole file on this host";

/// Where a jail is on the network: one for each interface of the host behind which the jail has addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub name: String,
    /// The host's interface at which the jail's packets appear: its bridge, or the host's end of its epair. `None` for
    /// a jail that uses the host's stack; its addresses are then the host's.
    pub behind: Option<Interface>,
    /// The host's end of its epair, if that is a member of the bridge.
    pub member: Option<Interface>,
    pub addresses: Vec<IpNet>,
}

impl Attachment {
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }
}

/// A host with pf, its jails, and what is around it.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub lookup: Lookup,
    pub pf: Pf,
    /// The rulesets that each load has created, by the path that was loaded.
    loaded: BTreeMap<String, Vec<String>>,
    /// What `kport` calls, if that was not loaded.
    called: Vec<Entry>,
    /// What is loaded but not evaluated, one line each.
    pub notes: Vec<String>,
    pub jails: Vec<Attachment>,
    /// The FIBs of jails on the host's stack that are not 0.
    jail_fibs: BTreeMap<String, u32>,
    /// The default routes of jails with a network stack of their own, by name, as far as they are known and matter: those of
    /// jails on the network of a default route of the host. The host is taken for the router of all others.
    pub routers: BTreeMap<String, PerFamily<Router>>,
    /// `net.inet.ip.forwarding`, `net.inet6.ip6.forwarding`
    pub forwarding: PerFamily<bool>,
    /// `net.pf.filter_local`, as it was when pf was enabled.
    pub filter_local: bool,
    /// `net.link.bridge.pfil_member`
    pub pfil_member: bool,
}

impl World {
    /// A host with these interfaces that forwards, with pf enabled and an empty main ruleset.
    pub fn new(release: Release, interfaces: Vec<HostInterface>) -> World {
        World {
            lookup: Lookup { interfaces, ..Lookup::default() },
            pf: Pf { enabled: true, release, ..Pf::default() },
            forwarding: PerFamily { inet: true, inet6: true },
            ..World::default()
        }
    }

    /// The default routes of a host, in every FIB.
    pub fn set_gateways(&mut self, host: &dyn Host) -> Result<()> {
        if host.sysctl("net.fibs")?.is_none_or(|fibs| fibs > 1) {
            self.lookup.routers = host.gateways()?;
            self.lookup.all_fibs = host.sysctl("net.add_addr_allfibs")?.is_some_and(|value| value != 0);
        }
        self.lookup.gateway = PerFamily { inet: host.gateway(Family::Inet)?, inet6: host.gateway(Family::Inet6)? };
        Ok(())
    }

    /// The given host: its interfaces, jails, default routes and sysctls, with pf enabled and no rules yet. A jail on
    /// several networks is there once for each. Which jail has which member of a bridge is unknown, so what pf does at
    /// members is left out.
    pub fn of_host(host: &dyn Host, release: Release) -> Result<World> {
        let mut world = World::new(release, host.interfaces()?);
        world.set_gateways(host)?;
        let forwards = |sysctl| Ok::<_, Error>(host.sysctl(sysctl)?.is_none_or(|value| value != 0));
        world.forwarding.inet = forwards("net.inet.ip.forwarding")?;
        world.forwarding.inet6 = forwards("net.inet6.ip6.forwarding")?;
        world.filter_local = host.sysctl("net.pf.filter_local")?.is_some_and(|value| value != 0);
        world.pf.default_to_drop = host.sysctl("net.pf.default_to_drop")?.is_some_and(|value| value != 0);
        // if the host cannot list its sockets, they are unknown
        world.lookup.listeners = host.listeners().ok();
        for jail in host.jails()?.jails.iter().filter(|jail| !jail.dying) {
            let addresses = match jail.vnet {
                // a jail that hides its addresses hides only itself
                true => host.vnet_addresses(jail, ANSWER_TIME).or_else(|error| match error.kind() {
                    Kind::Unavailable => Ok(vec![]),
                    _ => Err(error),
                })?,
                false => jail.addresses.clone(),
            };
            if jail.fib != 0 && !jail.vnet {
                world.jail_fibs.insert(jail.name.clone(), jail.fib);
            }
            for address in addresses {
                world.add_address(&jail.name, address, jail.vnet);
            }
            if world.jails.iter().any(|known| known.name == jail.name && world.is_outer(known)) {
                let router = |family| host.router(jail, family, ANSWER_TIME);
                world.routers.insert(jail.name.clone(), PerFamily::each(router));
            }
        }
        Ok(world)
    }

    /// Whether a jail is on the network of a default route of the host, so that another router may be there.
    pub(super) fn is_outer(&self, jail: &Attachment) -> bool {
        jail.behind.is_some() && Family::ALL.iter().any(|family| *self.lookup.gateway.of(*family) == jail.behind)
    }

    /// The given host, with the rules and tables that pf has now. A rule that cannot be read is an error of
    /// [`Kind::Unsupported`] that shows the line; an unknown condition cannot be decided. A file that pfctl(8) refuses
    /// because of the host's addresses is an error of [`Kind::Unavailable`].
    pub fn of_pf(host: &dyn Host, firewall: &dyn Firewall, release: Release) -> Result<World> {
        let mut world = World::of_host(host, release)?;
        world.pf.enabled = firewall.status()?.enabled;
        for (path, conf) in firewall.rulesets(true)? {
            if let Some(unread) = conf.unread.first() {
                let name = if path.is_empty() { "main ruleset".to_owned() } else { format!("anchor {path}") };
                return Err(Error::new(Kind::Unsupported, unread.clone()).context(&name));
            }
            if let Some(refused) = world.refused(&conf) {
                return Err(Error::new(Kind::Unavailable, refused).context(REFUSES));
            }
            world.load_conf(&path, &conf);
        }
        Ok(world)
    }

    /// The first statement that pfctl(8) would refuse on this host, and with it the whole file; `None` if there is none.
    pub fn refused(&self, conf: &Conf) -> Option<String> {
        // a host without interfaces is one of which they are unknown
        if self.lookup.interfaces.is_empty() {
            return None;
        }
        conf.refused(&|of| self.lookup.named(of))
    }

    /// The rules that pf has, each with its statement in the file from which pfctl(8) has loaded them.
    pub fn named_by(&self, conf: &Conf, file: &Conf) -> Conf {
        conf.named_by(file, &|of| self.lookup.named(of))
    }

    fn add_address(&mut self, name: &str, address: IpAddr, vnet: bool) {
        let connected = Interfaces(&self.lookup.interfaces).connected(address).filter(|_| vnet);
        let behind = connected.map(|(interface, _)| interface);
        let host = IpNet::from(address);
        let Ok(network) = IpNet::new(address, connected.map_or(host.prefix_len(), |(_, on)| on.prefix_len())) else {
            return;
        };
        // a network without an interface of the host: the jail looks like a host behind the gateway
        if vnet && behind.is_none() {
            return;
        }
        match self.jails.iter_mut().find(|jail| jail.name == name && jail.behind == behind) {
            Some(jail) => jail.addresses.push(network),
            None => {
                self.jails.push(Attachment { name: name.to_owned(), behind, member: None, addresses: vec![network] })
            }
        }
    }

    /// Loads kport's rules into the anchor `path`, in place of its rules. Then `kport` calls the anchors loaded so.
    pub fn load(&mut self, path: &str, rules: &[Rule]) {
        self.load_conf(path, &Conf::of_rules(rules));
        if let Some(anchor) = path.strip_prefix(PARENT).and_then(|rest| Anchor::from_child(rest.strip_prefix('/')?)) {
            self.called.retain(|entry| entry.child != anchor.child());
            self.called.extend(calls::entries(&anchor, rules));
            self.call(&self.called.clone());
        }
    }

    /// Loads the tree of calls of these entries into `kport`.
    pub fn call(&mut self, entries: &[Entry]) {
        for (path, calls) in calls::rulesets(entries) {
            self.load_conf(&path, &calls);
        }
    }

    /// Loads rules into the anchor `path`, the empty one for the main ruleset, in place of its rules.
    pub fn load_conf(&mut self, path: &str, conf: &Conf) {
        for old in self.loaded.remove(path).unwrap_or_default() {
            self.pf.rulesets.remove(&old);
        }
        let mut made = vec![];
        for (below, rules) in &conf.rulesets {
            let full = if below.is_empty() { path.to_owned() } else { Called::resolve(path, below).path };
            if !rules.is_empty() {
                self.pf.rulesets.insert(full.clone(), rules.as_slice().into());
                made.push(full);
            }
        }
        self.loaded.insert(path.to_owned(), made);
        self.lookup.tables.insert(path.to_owned(), conf.tables.clone());
        if path.is_empty() {
            self.pf.skip.clone_from(&conf.skip);
            self.pf.syncookies = conf.syncookies;
            let more = match conf.ether.len().saturating_sub(1) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let note = |rule| format!("rules about Ethernet frames are not evaluated: {rule}{more}");
            self.notes = conf.ether.first().map(note).into_iter().collect();
        }
    }

    #[cfg(feature = "internals")]
    pub fn load_text(&mut self, path: &str, text: &str) -> Result<()> {
        self.load_conf(path, &text.parse()?);
        Ok(())
    }

    /// This world with calls of kport's anchors that are not quick: those end the evaluation on 15 even if nothing is published.
    pub fn without_quick_kport(&self) -> World {
        let mut made = self.clone();
        if let Some(main) = made.pf.rulesets.get_mut("") {
            for rule in Arc::make_mut(main) {
                rule.quick &= !rule.calls_kport();
            }
        }
        made
    }

    /// The owner of `address`: the host, a jail, or the network behind the interface that leads there.
    pub fn party(&self, address: IpAddr) -> Result<Party> {
        if let Some(jail) = self.jails.iter().find(|jail| jail.has(address)) {
            return Ok(Party::Jail(jail.name.clone()));
        }
        if self.is_own(address) || address.is_loopback() {
            return Ok(Party::Host);
        }
        self.lookup
            .route_of_fib(0, address)
            .map(Party::Network)
            .ok_or_else(|| error!(Unavailable, "no route leads to {address}; give the interface with --on"))
    }

    /// A jail behind `on`, or else another host there; without an interface, the owner of the address.
    pub fn sender(&self, source: IpAddr, on: Option<Interface>) -> Result<Party> {
        let Some(on) = on else { return self.party(source) };
        if !self.lookup.interfaces.iter().any(|interface| interface.name == on) {
            return Err(error!(Argument, "the host has no interface {on}"));
        }
        let behind = |jail: &&Attachment| jail.has(source) && (jail.behind == Some(on) || jail.member == Some(on));
        Ok(self.jails.iter().find(behind).map_or(Party::Network(on), |jail| Party::Jail(jail.name.clone())))
    }

    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        let networks = || self.lookup.interfaces.iter().flat_map(|interface| &interface.addresses);
        // all of 127/8 belongs to the host
        networks().any(|own| own.addr() == address || own.addr().is_loopback() && own.contains(&address))
    }

    pub(super) fn lo0(&self) -> Option<Interface> {
        self.lookup.interfaces.iter().map(|interface| interface.name).find(|name| name.as_str() == "lo0")
    }

    pub(super) fn loopback(&self, address: IpAddr) -> Option<Interface> {
        let owner = Interfaces(&self.lookup.interfaces).holder(address);
        owner.map(|owner| owner.name).filter(|name| is_loopback(*name)).or_else(|| self.lo0())
    }

    pub(super) fn fib_of(&self, party: &Party) -> u32 {
        match party {
            Party::Jail(name) => self.jail_fibs.get(name).copied().unwrap_or(0),
            Party::Host | Party::Network(_) => 0,
        }
    }
}
