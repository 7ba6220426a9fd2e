//! The way of the answers. A client that came in on one interface, and is answered by another, has asked a network that does not
//! accept the answer: each network behind an interface is taken for one that remembers connections. A jail on the network of an outer
//! interface reaches clients without the host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use once_cell::unsync::OnceCell;

use super::evaluator::Probe;
use super::judged::{MainRuleset, SOURCE_PORTS, first_source};
use super::{Findings, Publications, Surroundings};
use crate::error::{Error, Problem, Result};
use crate::host::{ANSWER_TIME, Gateway, Host, HostInterface, Interfaces, Router};
use crate::net::{Family, Interface, PerFamily, Place};
use crate::options::{Given, Options, Source};
use crate::publication::{Answer, Publication, Redirect, distinct};
use crate::rule::{NextHop, Routing};
use crate::trace::{Attachment, DOCUMENTATION, Party, TraceStep, Verdict, World};

/// How many addresses of the network are tried as a client's.
const MOST_HOSTS: usize = 256;

/// What the rules must do so that connections are answered by the interface that they came in on, if its router is known. The host is
/// asked for the default routes of the FIB of this process; for the routers of every FIB, if they matter. `jail_fib` is that of the
/// jail's processes, if it is on the host's network stack.
pub fn answers(host: &dyn Host, all: Interfaces<'_>, jail_fib: u32, publication: &Publication) -> Result<Vec<Answer>> {
    let mut made = vec![];
    if publication.options.reply_to.as_ref().is_some_and(Vec::is_empty) {
        return Ok(made);
    }
    let gateways = OnceCell::new();
    let all_gateways = || gateways.get_or_try_init(|| host.gateways());
    for (place, target) in distinct(publication.redirects.iter().map(|r| (r.place, r.target))) {
        let family = Family::of(target);
        let via = all.connected(target).map(|(interface, _)| interface).filter(|_| !all.is_own(target));
        // without a network that leads to the target, that of the default route
        let back = match via.and_then(|via| all.members(via).next()) {
            Some(via) => via.fib,
            None if all.is_own(target) => jail_fib,
            None => 0,
        };
        let default = match back {
            0 => host.gateway(family)?,
            fib => {
                let is_of = |of: &&Gateway| of.default && of.fib == fib && Family::of(of.address) == family;
                all_gateways()?.iter().find(is_of).map(|gateway| gateway.interface)
            }
        };
        let given = publication.options.reply_to.iter().flatten().copied();
        let given: Vec<IpAddr> = given.filter(|router| Family::of(*router) == family).collect();
        let outer = outer(all, place, family);
        // the name of an interface that comes later, not of a group: those do not end in a digit
        if let Place::Interface(on) = place
            && outer.is_empty()
            && on.as_str().ends_with(|last: char| last.is_ascii_digit())
            && let gateway @ Some(_) = given.first().copied()
        {
            let routing = Routing { reply_to: Some(NextHop { interface: on, gateway }), rtable: None };
            made.push(Answer { place, target, on, beyond: true, routing });
        }
        for interface in outer {
            if via == Some(interface.name) {
                continue;
            }
            let by_route = default == Some(interface.name) && interface.fib == back;
            let named =
                matches!(place, Place::Interface(name) if name == interface.name) || matches!(place, Place::Address(_));
            let is_next = |router| interface.networks(family).any(|network| network.contains(&router));
            let given = given.iter().copied().find(|router| is_next(*router) || named && !by_route);
            let hop = |gateway| Some(NextHop { interface: interface.name, gateway });
            let reply_to = match given {
                Some(_) => hop(given),
                None if by_route => None,
                None if interface.point_to_point => hop(None),
                None => router_of(all_gateways()?, interface, family).and_then(|router| hop(Some(router))),
            };
            let rtable = (via.is_some() && interface.fib != back).then_some(back);
            let routing = Routing { reply_to, rtable };
            if routing != Routing::default() {
                let beyond = interface.fib == back && reply_to.is_some_and(|hop| hop.gateway.is_some());
                made.push(Answer { place, target, on: interface.name, beyond, routing });
            }
        }
    }
    Ok(made)
}

fn outer<'a>(all: Interfaces<'a>, place: Place, family: Family) -> Vec<&'a HostInterface> {
    let in_use = |interface: &&HostInterface| interface.up && interface.address(family).is_some();
    let outside = |interface: &&HostInterface| !Place::Interface(interface.name).is_loopback();
    let all = all.0.iter().filter(outside);
    match place {
        Place::Interface(name) => all.filter(|interface| interface.is_in(name)).collect(),
        Place::Address(address) => all.filter(|interface| interface.has(address)).collect(),
        Place::Any | Place::AnyOf(_) => all.filter(in_use).collect(),
    }
}

/// The router behind an interface: that of a default route, of its own FIB first; else the only one that is there.
fn router_of(gateways: &[Gateway], interface: &HostInterface, family: Family) -> Option<IpAddr> {
    let ours = |gateway: &&Gateway| {
        let address = gateway.address;
        gateway.interface == interface.name && Family::of(address) == family && !address.is_unspecified()
    };
    let mut ours: Vec<&Gateway> = gateways.iter().filter(ours).collect();
    ours.sort_by_key(|gateway| (!gateway.default, gateway.fib != interface.fib));
    let first = ours.first()?;
    let only = || ours.iter().all(|gateway| gateway.address == first.address);
    (first.default || only()).then_some(first.address)
}

/// The ports of which not everybody from outside is answered: the answer to a client beyond the interface's own network leaves
/// by another interface, whoever wrote the rules. Only interfaces that are not the default route's are tried. And those that
/// are answered through a router that is not the interface's any more.
pub fn unanswered<'p>(main: &MainRuleset<'_>, publications: impl Publications<'p>) -> Result<Vec<Problem>> {
    let around = &main.around;
    let (host, interfaces) = (around.host, &*around.interfaces);
    let one_fib = interfaces.iter().all(|interface| interface.fib == 0);
    let away = |redirect: &Redirect| {
        let outer = around.outer(redirect.place, redirect.family())?;
        // without a default route no client is beyond
        let default = host.gateway(redirect.family())?;
        Ok::<_, Error>(default.is_some_and(|default| outer.iter().any(|i| i.name != default || !one_fib)))
    };
    let mut found: BTreeMap<(String, Interface, Family), Problem> = BTreeMap::new();
    for publication in publications.into_iter().filter(|p| p.options.reply_to.as_ref().is_none_or(|to| !to.is_empty()))
    {
        let jail = publication.jail.mention();
        let mut redirects = vec![];
        for redirect in &publication.redirects {
            if away(redirect)? {
                redirects.push(*redirect);
            }
        }
        if redirects.is_empty() && publication.answers.is_empty() {
            continue;
        }
        let now = answers(host, Interfaces(interfaces), 0, publication)?;
        for old in &publication.answers {
            let is_of = |new: &&Answer| (new.place, new.target, new.on) == (old.place, old.target, old.on);
            if let Some(new) = now.iter().find(is_of).filter(|new| new.routing != old.routing) {
                let [was, is] = [old, new].map(|answer| answer.routing.to_string());
                let seen =
                    format!("{jail}: what comes in on {} is answered by{was}, and the routes now say{is}", old.on);
                let problem = Problem::new(seen, "publish the ports again");
                found.insert((jail.clone(), old.on, Family::of(old.target)), problem);
            }
        }
        // why it cannot be evaluated is a finding of another check
        let Some(world) = main.world()? else { continue };
        let classes = main.classes([&Publication { redirects, ..publication.clone() }])?;
        for probe in classes.into_iter().flat_map(|class| class.probes) {
            let Party::Network(on) = probe.sender else { continue };
            // the networks of jails have no clients beyond them
            if interfaces.iter().any(|known| known.name == on && known.is_in_jail_group()) {
                continue;
            }
            let key = (jail.clone(), on, probe.redirect.family());
            let beyond = |address: &IpAddr| Interfaces(interfaces).connected(*address).is_none();
            let from = match publication.options.sources.is_empty() {
                true => DOCUMENTATION.into_iter().find(|address| Family::of(*address) == key.2 && beyond(address)),
                false => Some(probe.from.ip()),
            };
            let Some(from) = from.filter(|_| !found.contains_key(&key)) else { continue };
            let redirect = probe.redirect;
            let probe = Probe { from: SocketAddr::new(from, SOURCE_PORTS[0]), ..probe };
            let trace = probe.traced(world);
            let arrives = trace.delivered_to.is_some_and(|(_, at)| at.ip() == redirect.target);
            let Some(TraceStep::Note(why)) = trace.steps.last() else { continue };
            if trace.verdict != Verdict::Unanswered || !arrives {
                continue;
            }
            let known = now.iter().any(|answer| (answer.target, answer.on) == (redirect.target, on));
            let remedy = match known {
                true => "publish the ports again: the way back is known now".to_owned(),
                false => format!(
                    "give the router on {on}: kport publish --reply-to ROUTER, or --reply-to none if only its network uses them"
                ),
            };
            let seen = format!("{jail}: clients beyond the network of {on} are not answered at {redirect}: {why}");
            found.insert(key, Problem { seen, remedy });
        }
    }
    Ok(found.into_values().collect())
}

/// Ports whose clients are not answered, as a problem, and those whose clients may not be, as a warning; the remedy was tried.
pub fn on_the_lan<'a>(main: &MainRuleset<'_>, publications: impl Publications<'a>) -> Result<Findings> {
    let around = &main.around;
    let mut found = Findings::default();
    let mut seen = BTreeSet::new();
    for publication in publications {
        for redirect in publication.redirects.iter().filter(|redirect| !redirect.place.is_loopback()) {
            let Some((via, network)) = outer_network(around, redirect.target)? else { continue };
            if !seen.insert((publication.jail.clone(), redirect.place, redirect.target)) {
                continue;
            }
            // why it cannot be evaluated is a finding of another check
            let Some(world) = main.world()? else { return Ok(found) };
            let case = Case { around, publication, redirect, via, network };
            case.judge(world.clone(), &mut found)?;
        }
    }
    Ok(found)
}

/// The interface that leads to `target`, and its network, if a default route of the host is by that interface.
fn outer_network(around: &Surroundings<'_>, target: IpAddr) -> Result<Option<(Interface, IpNet)>> {
    let all = Interfaces(&around.interfaces);
    let Some((via, network)) = all.connected(target).filter(|_| !all.is_own(target)) else { return Ok(None) };
    for family in Family::ALL {
        if around.host.gateway(family)? == Some(via) {
            return Ok(Some((via, network.trunc())));
        }
    }
    Ok(None)
}

/// A redirect to such a jail.
struct Case<'a> {
    around: &'a Surroundings<'a>,
    publication: &'a Publication,
    redirect: &'a Redirect,
    via: Interface,
    network: IpNet,
}

impl Case<'_> {
    fn judge(&self, mut world: World, found: &mut Findings) -> Result<()> {
        let (redirect, jail) = (self.redirect, &self.publication.jail);
        let family = redirect.family();
        let router = match self.around.host.running(jail.as_str())? {
            Some(jail) if jail.vnet => self.around.host.router(&jail, family, ANSWER_TIME),
            _ => Router::Unknown,
        };
        let address = IpNet::new(redirect.target, self.network.prefix_len()).unwrap_or(redirect.target.into());
        let behind = Some(self.via);
        world.jails.push(Attachment { name: jail.to_string(), behind, member: None, addresses: vec![address] });
        world.routers.insert(jail.to_string(), PerFamily::each(|_| router));
        let options = &self.publication.options;
        for interface in self.around.outer(redirect.place, family)? {
            let to = match redirect.place {
                Place::Address(address) => Some(address),
                _ => interface.address(family),
            };
            let Some(to) = to.map(|to| SocketAddr::new(to, redirect.host.first())) else { continue };
            let (mention, on) = (jail.mention(), interface.name);
            if on == self.via
                && let Some(client) = self.neighbour(router)
                && self.verdict(&world, options, on, client, to)? == Verdict::Unanswered
            {
                let seen = format!(
                    "hosts of {}, the network of {on}, are not answered at {to}: {mention} is on it, and answers them \
                     directly, from {}",
                    self.network, redirect.target
                );
                let remedy = self.remedy(&world, &["hairpin", "masquerade"], on, client, to)?;
                found.problems.push(Problem { seen, remedy });
            }
            let Some(client) = first_source(options, family) else { continue };
            let (list, seen) = match self.verdict(&world, options, on, client, to)? {
                Verdict::Depends => (
                    &mut found.warnings,
                    format!("whether they are answered at {to} depends on the default route of {mention}"),
                ),
                Verdict::Unanswered => (
                    &mut found.problems,
                    format!("they are not answered at {to}: the host is not the router of {mention}"),
                ),
                _ => continue,
            };
            let remedy = self.remedy(&world, &["masquerade"], on, client, to)?;
            list.push(Problem { seen: format!("clients beyond {}: {seen}", self.network), remedy });
        }
        Ok(())
    }

    /// The options of these with which a connection is answered.
    fn remedy(&self, world: &World, names: &[&str], on: Interface, from: IpAddr, to: SocketAddr) -> Result<String> {
        let mut enough = vec![];
        for name in names {
            let mut options = self.publication.options.clone();
            options.set(name, &Given::Flag(true))?;
            if self.verdict(world, &options, on, from, to)? == Verdict::Answered {
                enough.push(*name);
            }
        }
        if enough.is_empty() {
            return Ok(String::new());
        }
        Ok(format!(
            "publish its ports with kport publish --{}: the answers then return through the host, which the jail sees as the client",
            enough.join(" or --")
        ))
    }

    /// An address of another host on the network of the jail.
    fn neighbour(&self, router: Router) -> Option<IpAddr> {
        let sources = &self.publication.options.sources;
        let allowed = |address: &IpAddr| {
            sources.is_empty() || sources.iter().filter_map(Source::network).any(|network| network.contains(address))
        };
        let taken = |address: &IpAddr| {
            *address == self.redirect.target
                || router == Router::At(*address)
                || Interfaces(&self.around.interfaces).is_own(*address)
        };
        self.network.hosts().take(MOST_HOSTS).find(|address| allowed(address) && !taken(address))
    }

    /// What becomes of a connection, with the rules of the redirect alone.
    fn verdict(
        &self, world: &World, options: &Options, on: Interface, from: IpAddr, to: SocketAddr,
    ) -> Result<Verdict> {
        let (jail, redirect) = (self.publication.jail.clone(), *self.redirect);
        let mut publication = Publication::new(jail, vec![redirect], options.clone(), |_| Ok(Some(self.via)))?;
        publication.answers.clone_from(&self.publication.answers);
        let (sender, from) = (Party::Network(on), SocketAddr::new(from, SOURCE_PORTS[0]));
        Ok(Probe { publication, redirect, sender, from, to, entrance: None }.traced(world).verdict)
    }
}
