//! Whether clients are answered by jails on the network of an outer interface: such a jail reaches them without the host.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::judged::{MainRuleset, SOURCE_PORTS, first_source};
use super::{Findings, Surroundings, address};
use crate::error::{Problem, Result};
use crate::host::{ANSWER_TIME, Interfaces, Router};
use crate::net::{Family, Interface, PerFamily, Place};
use crate::options::{Options, Source};
use crate::publication::{Publication, Redirect};
use crate::rules;
use crate::trace::{Attachment, Party, Verdict, World};

/// Ports whose clients are not answered, as a problem, and those whose clients may not be, as a warning; the remedy was tried.
pub fn on_the_lan<'a>(
    main: &MainRuleset<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Findings> {
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
            let Some(to) = self.entrance(interface.name) else { continue };
            let mention = jail.mention();
            let with = |change: fn(&mut Options)| {
                let mut options = options.clone();
                change(&mut options);
                options
            };
            let (hairpin, masquerade) = (with(|o| o.hairpin = true), with(|o| o.masquerade = true));
            if interface.name == self.via
                && let Some(client) = self.neighbour(router)
                && self.verdict(&world, options, interface.name, client, to)? == Verdict::Unanswered
            {
                let mut remedies = vec![];
                for (name, options) in [("hairpin", &hairpin), ("masquerade", &masquerade)] {
                    if self.verdict(&world, options, interface.name, client, to)? == Verdict::Answered {
                        remedies.push(name);
                    }
                }
                found.problems.push(Problem {
                    seen: format!(
                        "hosts of {}, the network of {}, are not answered at {to}: {mention} is on it, and answers them \
                         directly, from {}",
                        self.network, interface.name, redirect.target
                    ),
                    remedy: remedy(&remedies),
                });
            }
            let Some(client) = first_source(options, family) else { continue };
            let verdict = self.verdict(&world, options, interface.name, client, to)?;
            let (list, seen) = match verdict {
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
            let is_enough = self.verdict(&world, &masquerade, interface.name, client, to)? == Verdict::Answered;
            let remedy = remedy(if is_enough { &["masquerade"] } else { &[] });
            list.push(Problem { seen: format!("clients beyond {}: {seen}", self.network), remedy });
        }
        Ok(())
    }

    /// The address and port that clients behind an interface use.
    fn entrance(&self, on: Interface) -> Option<SocketAddr> {
        let to = match self.redirect.place {
            Place::Address(address) => address,
            _ => address(self.around.interfaces.iter().find(|known| known.name == on)?, self.redirect.family())?,
        };
        Some(SocketAddr::new(to, self.redirect.host.first()))
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
        &self,
        world: &World,
        options: &Options,
        on: Interface,
        from: IpAddr,
        to: SocketAddr,
    ) -> Result<Verdict> {
        let jail = self.publication.jail.clone();
        let anchor = jail.anchor();
        let mut published = Publication::new(jail, vec![*self.redirect], options.clone(), |_| Ok(Some(self.via)))?;
        published.answers.clone_from(&self.publication.answers);
        let mut world = world.clone();
        world.load(anchor.path(), &rules::rules(&published));
        let from = SocketAddr::new(from, SOURCE_PORTS[0]);
        Ok(world.trace(&Party::Network(on), self.redirect.protocol, from, to).verdict)
    }
}

/// How many addresses of the network are tried as a client's.
const MOST_HOSTS: usize = 256;

fn remedy(options: &[&str]) -> String {
    if options.is_empty() {
        return String::new();
    }
    format!(
        "publish its ports with kport publish --{}: the answers then return through the host, which the jail sees as the client",
        options.join(" or --")
    )
}
