//! Ports from which the answers take another way than the questions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::answers::Ways;
use super::judged::{BEYOND, MainRuleset, SOURCE_PORTS};
use super::probe::Probe;
use crate::error::{Error, Problem, Result};
use crate::host::{HostInterface, Interfaces};
use crate::net::{Family, Interface, JAIL_GROUPS};
use crate::publication::{Answer, Publication, Redirect};
use crate::trace::{Party, TraceStep, Verdict};

/// The ports of which not everybody from outside is answered: the answer to a client beyond the interface's own network leaves
/// by another interface, whoever wrote the rules. Only interfaces that are not the default route's are tried. And those that
/// are answered through a router that is not the interface's any more.
pub fn unanswered<'p>(
    main: &MainRuleset<'_>,
    publications: impl IntoIterator<Item = &'p Publication>,
) -> Result<Vec<Problem>> {
    let around = &main.around;
    let (host, interfaces) = (around.host, &*around.interfaces);
    let ways = Ways { host, interfaces, default: &|family| host.gateway(family), jail_fib: 0 };
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
        let now = ways.answers(publication)?;
        for old in &publication.answers {
            let is_of = |new: &&Answer| (new.place, new.target, new.on) == (old.place, old.target, old.on);
            if let Some(new) = now.iter().find(is_of).filter(|new| new.routing != old.routing) {
                let [was, is] = [old, new].map(|answer| answer.routing.to_string());
                let seen =
                    format!("{jail}: what comes in on {} is answered by{was}, and the routes now say{is}", old.on);
                let problem = Problem { seen, remedy: "publish the ports again".to_owned() };
                found.insert((jail.clone(), old.on, Family::of(old.target)), problem);
            }
        }
        // why it cannot be evaluated is a finding of another check
        let Some(world) = main.world()? else { continue };
        let classes = main.classes([&Publication { redirects, ..publication.clone() }])?;
        for probe in classes.into_iter().flat_map(|class| class.probes) {
            let Party::Network(on) = probe.sender else { continue };
            // the networks of jails have no clients beyond them
            let of_jails =
                |known: &HostInterface| JAIL_GROUPS.iter().any(|group| group.parse().is_ok_and(|g| known.is_in(g)));
            if interfaces.iter().any(|known| known.name == on && of_jails(known)) {
                continue;
            }
            let key = (jail.clone(), on, probe.redirect.family());
            let beyond = |address: &IpAddr| Interfaces(interfaces).connected(*address).is_none();
            let from = match publication.options.sources.is_empty() {
                true => BEYOND.into_iter().find(|address| Family::of(*address) == key.2 && beyond(address)),
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
