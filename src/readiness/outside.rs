//! Whether packets from outside arrive at published ports, and whether those arrive that the main ruleset refuses because of
//! their source. By evaluation only: an ordinary outsider is chosen by the ruleset, the statement is named that decides, and
//! a remedy is printed if it was tried.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::answers::Ways;
use super::{Findings, RELOAD, Surroundings, address};
use crate::error::{Error, Problem, Result, quoted};
use crate::host::Interfaces;
use crate::name::PARENT;
use crate::net::{Family, Interface, Place, PortRange};
use crate::options::{Options, Source};
use crate::pfconf::Conf;
use crate::pfconf::path::is_below_own;
use crate::pfconf::rule::{Rule, RuleKind};
use crate::proof::{self, Cited, Entrance, Judge, Positions, Possible};
use crate::publication::{Answer, Publication, Redirect};
use crate::rules;
use crate::trace::{Party, REFUSES, Release, Trace, TraceStep, Verdict, World};

/// The kinds of rules for which the main ruleset calls kport's anchors.
const KINDS: [RuleKind; 3] = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter];
/// The source ports of packets from outside and of those from the host.
pub(super) const SOURCE_PORTS: [u16; 2] = [40_000, 40_001];
/// Clients of networks that are not the host's: documentation addresses (RFC 5737, RFC 3849).
const BEYOND: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 77)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x77)),
];
/// The maximum number of ports of a redirect that are tried.
const MOST_PORTS: usize = 64;
/// The maximum number of sources of a list that are tried.
const MOST_SOURCES: usize = 64;

/// Sends the first packet of published ports through the evaluator, with the real main ruleset and the rules of the
/// redirect. Ports that no rule of the main ruleset distinguishes are tried once. A ruleset that could not be read is a
/// warning.
pub fn main_ruleset<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Findings> {
    let mut found = Findings::default();
    let Some(rulesets) = Rulesets::new(around, &mut found)? else { return Ok(found) };
    let mut open: BTreeMap<String, String> = BTreeMap::new();
    let mut lost: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let probes = rulesets.probes(publications)?;
    for (probe, alike) in &probes {
        let outcome = match rulesets.outcome(&rulesets.world, probe)? {
            Outcome::Arrives => continue,
            // a probability, and what is unknown, does not depend on the sender
            Outcome::Depends(what) if rulesets.has_chance => Outcome::Depends(what),
            first => rulesets.second_look(probe, &mut found)?.unwrap_or(first),
        };
        match outcome {
            Outcome::Arrives => {}
            Outcome::Depends(what) => _ = open.entry(what).or_insert_with(|| probe.to_string()),
            Outcome::Lost(reason) => lost.entry(reason).or_insert_with(|| (probe.to_string(), 0)).1 += alike,
        }
    }
    let undecided = |(what, seen): (String, String)| Problem {
        seen: format!("{seen}: whether it arrives depends on what kport cannot decide: {what}"),
        remedy: String::new(),
    };
    found.warnings.extend(open.into_iter().map(undecided));
    // a family that is not forwarded is a finding of its own
    lost.remove("the host does not forward");
    if lost.is_empty() {
        return Ok(found);
    }
    let all: Vec<&Probe> = probes.iter().map(|(probe, _)| probe).collect();
    let remedy = rulesets.remedy(&all)?;
    found.problems.extend(lost.into_iter().map(|(reason, (first, count))| {
        let more = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        Problem { seen: format!("{first}{more}: {reason}"), remedy: remedy.clone() }
    }));
    Ok(found)
}

/// The statements of the main ruleset that refuse sources which reach published ports. Ports that are published for some
/// sources only are not judged: the administrator has named who gets in.
pub fn bypassed<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Vec<Problem>> {
    let Some(rulesets) = Rulesets::new(around, &mut Findings::default())? else { return Ok(vec![]) };
    let probes = rulesets.probes(publications)?;
    let mut seen: BTreeMap<Cited, (IpAddr, &Probe)> = BTreeMap::new();
    for (probe, _) in &probes {
        let Some(possible) = probe.possible().filter(|_| probe.publication.options.sources.is_empty()) else {
            continue;
        };
        let quick = probe.publication.options.quick;
        for (statement, (source, _)) in proof::prove_with(rulesets.judge(), &[possible], quick)?.bypassed {
            seen.entry(statement).or_insert((source, probe));
        }
    }
    if seen.is_empty() {
        return Ok(vec![]);
    }
    let all: Vec<&Probe> = probes.iter().map(|(probe, _)| probe).collect();
    let remedy = rulesets.remedy(&all)?;
    let problem = |(statement, (source, probe)): (Cited, (IpAddr, &Probe))| Problem {
        seen: format!(
            "{} refuses {source}, but not at {} on {}, which {} publishes",
            shown(&statement),
            probe.to.port(),
            probe.redirect.place,
            probe.publication.jail.mention()
        ),
        remedy: remedy.clone(),
    };
    Ok(seen.into_iter().map(problem).collect())
}

/// The ports of which not everybody from outside is answered: the answer to a client beyond the interface's own network leaves
/// by another interface, whoever wrote the rules. Only interfaces that are not the default route's are tried. And those that
/// are answered through a router that is not the interface's any more.
pub fn unanswered<'a>(
    around: &Surroundings<'_>,
    publications: impl IntoIterator<Item = &'a Publication>,
) -> Result<Vec<Problem>> {
    let Surroundings { host, interfaces, .. } = *around;
    let ways = Ways { interfaces, default: &|family| host.gateway(family), gateways: &|| host.gateways(), jail_fib: 0 };
    let one_fib = interfaces.iter().all(|interface| interface.fib == 0);
    let away = |redirect: &Redirect| {
        let outer = around.outer(redirect.place, redirect.family())?;
        // without a default route no client is beyond
        let default = host.gateway(redirect.family())?;
        Ok::<_, Error>(default.is_some_and(|default| outer.iter().any(|i| i.name != default || !one_fib)))
    };
    let mut found: BTreeMap<(String, Interface, Family), Problem> = BTreeMap::new();
    let mut rulesets = None;
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
        if rulesets.is_none() {
            rulesets = Some(Rulesets::new(around, &mut Findings::default())?);
        }
        let Some(Some(rulesets)) = &rulesets else { continue };
        for (probe, _) in rulesets.probes([&Publication { redirects, ..publication.clone() }])? {
            let Party::Network(on) = probe.sender else { continue };
            let key = (jail.clone(), on, probe.redirect.family());
            let beyond = |address: &IpAddr| Interfaces(interfaces).connected(*address).is_none();
            let from = match publication.options.sources.is_empty() {
                true => BEYOND.into_iter().find(|address| Family::of(*address) == key.2 && beyond(address)),
                false => Some(probe.from.ip()),
            };
            let Some(from) = from.filter(|_| !found.contains_key(&key)) else { continue };
            let redirect = probe.redirect;
            let probe = Probe { from: SocketAddr::new(from, SOURCE_PORTS[0]), ..probe };
            let trace = rulesets.traced(&rulesets.world, &probe);
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

/// A packet to try a redirect with.
#[derive(Clone, Debug)]
struct Probe {
    /// The redirect alone, so that a thousand mappings do not each evaluate those of the others.
    publication: Publication,
    redirect: Redirect,
    sender: Party,
    from: SocketAddr,
    to: SocketAddr,
    /// For a packet from outside.
    entrance: Option<Entrance>,
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {} to {}", self.publication.jail.mention(), self.sender, self.redirect)
    }
}

impl Probe {
    fn possible(&self) -> Option<Possible> {
        self.entrance.map(|entrance| Possible { entrance, required: true })
    }
}

enum Outcome {
    Arrives,
    Depends(String),
    /// With the reason.
    Lost(String),
}

/// The rulesets of pf without kport's own.
pub(super) struct Rulesets<'a> {
    around: &'a Surroundings<'a>,
    release: Release,
    main: Arc<Conf>,
    /// The file of the main ruleset; empty if it was not read from a file.
    file: Arc<str>,
    pub(super) world: World,
    /// The ports between which the rules of the main ruleset differ.
    edges: Vec<u16>,
    /// A rule has a part that holds for some packets of everybody, or is unknown.
    has_chance: bool,
    judge: OnceCell<Judge>,
}

impl<'a> Rulesets<'a> {
    /// `None` if a ruleset cannot be evaluated, with the reason in `found`.
    pub(super) fn new(around: &'a Surroundings<'_>, found: &mut Findings) -> Result<Option<Rulesets<'a>>> {
        let release = Release::of_host(around.host)?;
        let Some(main) = around.rulesets.iter().find(|(path, _)| path.is_empty()).map(|(_, conf)| conf.clone()) else {
            return Ok(None);
        };
        let world = World::new(release, around.interfaces.to_vec());
        for (path, conf) in around.rulesets.iter().filter(|(path, _)| !is_below_own(path)) {
            if let Some(unread) = conf.unread().first() {
                let place = if path.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {path}") };
                let seen = format!("not evaluated: {place}: {unread}");
                found.warnings.push(Problem { seen, remedy: String::new() });
                return Ok(None);
            }
            if let Some(refused) = world.refused(conf) {
                let remedy = format!("correct that line in the file, or give the interface an address, {RELOAD}");
                found.problems.push(Problem { seen: format!("{REFUSES}: {refused}"), remedy });
                return Ok(None);
            }
        }
        // the rules of an included file have another name
        let call = main.calls_of_kport(RuleKind::Filter).first().map(|rule| rule.origin.file.clone());
        let file = call.or_else(|| main.rules().first().map(|rule| rule.origin.file.clone())).unwrap_or_default();
        let edges = main.port_edges();
        let has_chance = around.rulesets.iter().any(|(path, conf)| !is_below_own(path) && conf.has_chance());
        let mut rulesets = Rulesets { around, release, main, file, world, edges, has_chance, judge: OnceCell::new() };
        rulesets.world = rulesets.world_with(&rulesets.main)?;
        Ok(Some(rulesets))
    }

    /// The host with another main ruleset.
    fn world_with(&self, main: &Conf) -> Result<World> {
        let around = self.around;
        let mut world = World::new(self.release, around.interfaces.to_vec());
        world.set_gateways(around.host)?;
        world.filter_local = around.sysctl_is_on("net.pf.filter_local")?;
        world.default_to_drop(around.sysctl_is_on("net.pf.default_to_drop")?);
        world.load_conf("", main);
        for (path, conf) in around.rulesets.iter().filter(|(path, _)| !path.is_empty() && !is_below_own(path)) {
            world.load_conf(path, conf);
        }
        Ok(world)
    }

    fn judge(&self) -> &Judge {
        self.judge.get_or_init(|| Judge::new(self.world.clone(), &self.file))
    }

    /// The packets to try redirects with, from outside and from the host if it has access; each with the number of mappings
    /// that it stands for.
    fn probes<'p>(&self, publications: impl IntoIterator<Item = &'p Publication>) -> Result<Vec<(Probe, usize)>> {
        let mut made: Vec<(Probe, usize)> = vec![];
        let mut seen: BTreeMap<_, usize> = BTreeMap::new();
        for (number, publication) in publications.into_iter().enumerate() {
            for redirect in &publication.redirects {
                let kind = (number, redirect.place, redirect.protocol, redirect.target);
                for (host, jail) in self.ports(redirect) {
                    let class = |port| self.edges.partition_point(|edge| *edge <= port);
                    let alike = (kind, class(host), class(jail));
                    if let Some(first) = seen.get(&alike) {
                        made[*first].1 += 1;
                        continue;
                    }
                    let probes = self.probes_of(publication, redirect, host, jail)?;
                    // none at an interface without an address
                    if !probes.is_empty() {
                        seen.insert(alike, made.len());
                        made.extend(probes.into_iter().map(|probe| (probe, 1)));
                    }
                }
            }
        }
        Ok(made)
    }

    /// The first port of a redirect, and further ones at which the rules of the main ruleset begin to differ, each with its
    /// port in the jail.
    fn ports(&self, redirect: &Redirect) -> BTreeSet<(u16, u16)> {
        let (host, jail) = (redirect.host, redirect.jail);
        let within = |ports: PortRange| {
            let edges = self.edges.iter().filter(move |edge| ports.contains(**edge));
            edges.map(move |edge| edge - ports.first())
        };
        let offsets = within(host).chain(within(jail)).take(MOST_PORTS);
        std::iter::once(0).chain(offsets).map(|offset| (host.first() + offset, jail.first() + offset)).collect()
    }

    fn probes_of(&self, publication: &Publication, redirect: &Redirect, host: u16, jail: u16) -> Result<Vec<Probe>> {
        let family = redirect.family();
        let alone = Publication {
            jail: publication.jail.clone(),
            redirects: vec![*redirect],
            options: publication.options.clone(),
            via: publication.via.clone(),
            answers: publication.answers.clone(),
        };
        let probe = |sender, from, to, entrance| Probe {
            publication: alone.clone(),
            redirect: *redirect,
            sender,
            from,
            to,
            entrance,
        };
        let mut made = vec![];
        for interface in self.around.outer(redirect.place, family)? {
            let Some(own) = address(interface, family) else { continue };
            let to = match redirect.place {
                Place::Address(address) => address,
                Place::Interface(_) | Place::Any | Place::AnyOf(_) => own,
            };
            let to = SocketAddr::new(to, host);
            let source = first_source(&publication.options, family);
            if let Some(source) = source.filter(|_| !redirect.place.is_loopback()) {
                let entrance = Entrance {
                    on: interface.name,
                    protocol: redirect.protocol,
                    host: to,
                    jail: SocketAddr::new(redirect.target, jail),
                    via: self.around.via(redirect.target),
                };
                let from = SocketAddr::new(source, SOURCE_PORTS[0]);
                made.push(probe(Party::Network(interface.name), from, to, Some(entrance)));
            }
            if publication.options.host_access && self.world.filter_local {
                made.push(probe(Party::Host, SocketAddr::new(to.ip(), SOURCE_PORTS[1]), to, None));
            }
        }
        Ok(made)
    }

    /// The path of a packet, with the rules that should be there, so that missing rules are not a reason here.
    fn traced(&self, world: &World, probe: &Probe) -> Trace {
        let mut loaded = world.clone();
        loaded.load(probe.publication.jail.anchor().path(), &rules::rules(&probe.publication));
        loaded.trace(&probe.sender, probe.redirect.protocol, probe.from, probe.to)
    }

    /// What becomes of a packet.
    fn outcome(&self, world: &World, probe: &Probe) -> Result<Outcome> {
        let trace = self.traced(world, probe);
        Ok(match (trace.verdict, trace.delivered_to) {
            (Verdict::Depends, _) => Outcome::Depends(trace.depends_on.join("; ")),
            (_, Some((_, at))) if at.ip() == probe.redirect.target => Outcome::Arrives,
            (_, Some((party, at))) => Outcome::Lost(format!("it goes to {party} at {at} instead")),
            (_, None) => Outcome::Lost(self.reason(&trace.steps)),
        })
    }

    /// Tries an outsider that no rule singles out: the first address may be in a list of bogons, or not in a list of
    /// those that are allowed. `None` if there is no such outsider, or the ruleset cannot be judged.
    fn second_look(&self, probe: &Probe, found: &mut Findings) -> Result<Option<Outcome>> {
        let Some(possible) = probe.possible() else { return Ok(None) };
        let options = &probe.publication.options;
        if !options.sources.is_empty() {
            return Ok(self.other_arrives(&self.world, probe)?.then_some(Outcome::Arrives));
        }
        let Ok(proof) = proof::prove_with(self.judge(), &[possible], options.quick) else { return Ok(None) };
        if let Some(unreached) = proof.unreached.first() {
            let lost = |statement| Outcome::Lost(format!("{} ({})", unreached.why, shown(statement)));
            return Ok(unreached.statement.as_ref().map(lost));
        }
        if let Some(statement) = proof.allowed_by {
            let note = format!("only sources that {} allows get in", shown(&statement));
            if !found.notes.contains(&note) {
                found.notes.push(note);
            }
        }
        Ok(Some(Outcome::Arrives))
    }

    /// Whether a packet of another source that the publication lets in arrives; one of each class is tried.
    fn other_arrives(&self, world: &World, probe: &Probe) -> Result<bool> {
        let within = |address: &IpAddr| {
            let mut networks = probe.publication.options.sources.iter().filter_map(Source::network);
            networks.any(|network| network.contains(address))
        };
        let classes = world.classes(probe.redirect.family()).into_iter().map(|class| class.address);
        for source in classes.filter(within).take(MOST_SOURCES) {
            let other = Probe { from: SocketAddr::new(source, SOURCE_PORTS[0]), ..probe.clone() };
            if matches!(self.outcome(world, &other)?, Outcome::Arrives) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The reason why a packet did not arrive.
    fn reason(&self, steps: &[TraceStep]) -> String {
        let deciding = steps.iter().rev().find_map(|step| match step {
            TraceStep::Rule { anchor, text } => {
                let place = if anchor.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {anchor}") };
                Some(format!("{} of {place}", quoted(text)))
            }
            TraceStep::DefaultRule => Some(super::packets::DEFAULT_RULE.to_owned()),
            _ => None,
        });
        match (steps.last(), deciding) {
            (Some(TraceStep::Verdict(verdict)), Some(rule)) => format!("{verdict} by {rule}"),
            (Some(TraceStep::Note(note)), _) => note.clone(),
            _ => "it does not arrive".to_owned(),
        }
    }

    /// Another place of kport's calls with which the packets arrive, whoever is refused because of his source stays
    /// refused, and nothing else changes. Empty if there is none.
    fn remedy(&self, probes: &[&Probe]) -> Result<String> {
        let [nat, rdr, filter] = KINDS.map(|kind| self.main.kport_at(kind));
        // a call in the braces of an anchor
        let (Some(rdr), Some(filter_now)) = (rdr, filter) else { return Ok(String::new()) };
        let now = [nat.unwrap_or(rdr), rdr];
        let base = self.main.without_kport();
        let mut possible: Vec<Possible> = vec![];
        for one in probes.iter().filter_map(|probe| probe.possible()) {
            if !possible.contains(&one) {
                possible.push(one);
            }
        }
        let judge = Judge::new(self.world_with(&base)?, &self.file);
        let [translation, filter] = [&[RuleKind::Nat, RuleKind::Rdr, RuleKind::Binat][..], &[RuleKind::Filter]]
            .map(|kinds| base.places_for(kinds));
        let positions = Positions { nat: translation.clone(), rdr: translation, filter };
        let contradiction = match proof::places(&judge, &base, &possible, &positions) {
            Ok(Ok(mut places)) => {
                // the least change first
                places.sort_by_key(|place| (!place.quick, filter_now.abs_diff(positions.filter[place.filter])));
                for place in places {
                    let filter = positions.filter[place.filter];
                    // the translation calls stay if that is enough
                    for [nat, rdr] in [now, [positions.nat[place.nat], positions.rdr[place.rdr]]] {
                        let world = self.world_with(&base.with_kport([nat, rdr, filter]))?;
                        if self.is_right(&world, probes, &possible, place.quick)? {
                            return Ok(self.moves(&base, [nat, rdr, filter], place.quick, probes));
                        }
                    }
                }
                return Ok(String::new());
            }
            Ok(Err(contradiction)) => contradiction,
            // not every ruleset can be judged
            Err(_) => return Ok(String::new()),
        };
        let first = shown(&contradiction.first.statement);
        Ok(match &contradiction.second {
            Some(second) => format!(
                "no place of kport's lines is right, since {first} and {} contradict each other: change one of them",
                shown(&second.statement)
            ),
            None => format!("no place of kport's lines is right for {first}: change it"),
        })
    }

    /// Whether each packet arrives and the three sentences hold, with quick rules if those of the publication are.
    fn is_right(&self, world: &World, probes: &[&Probe], possible: &[Possible], quick: bool) -> Result<bool> {
        let mut modes = BTreeSet::new();
        for probe in probes {
            let mut probe = (*probe).clone();
            probe.publication.options.quick &= quick;
            modes.insert(probe.publication.options.quick);
            // those of an ordinary outsider are judged below
            if probe.entrance.is_some() && probe.publication.options.sources.is_empty() {
                continue;
            }
            let arrives = matches!(self.outcome(world, &probe)?, Outcome::Arrives)
                || probe.entrance.is_some() && self.other_arrives(world, &probe)?;
            if !arrives {
                return Ok(false);
            }
        }
        let judge = Judge::new(world.clone(), &self.file);
        let holds = |quick| proof::prove_with(&judge, possible, quick).is_ok_and(|proof| proof.holds());
        Ok(modes.into_iter().all(holds))
    }

    /// The words for moving the calls to these positions of the ruleset without them.
    fn moves(&self, base: &Conf, to: [usize; 3], quick: bool, probes: &[&Probe]) -> String {
        let mut moves = vec![];
        for (kind, to) in KINDS.into_iter().zip(to) {
            let Some(now) = self.main.kport_at(kind) else { continue };
            // statements of other kinds between two places make no difference
            if base.order_of(kind, now) == base.order_of(kind, to) {
                continue;
            }
            let at = match (base.next_of(kind, to), base.last_of(kind, to)) {
                (Some(next), _) => format!(" before {}", self.shown_rule(next)),
                (None, Some(last)) => format!(" after {}", self.shown_rule(last)),
                (None, None) => String::new(),
            };
            moves.push(format!("move {} \"{PARENT}/*\"{at}", kind.call()));
        }
        let mut remedy = String::new();
        if !moves.is_empty() {
            remedy = format!("in /etc/pf.conf, {}, {RELOAD}", moves.join(" and "));
        }
        if !quick && probes.iter().any(|probe| probe.publication.options.quick) {
            let and = if remedy.is_empty() { "" } else { "; and " };
            remedy = format!("{remedy}{and}publish its ports with kport publish --no-quick");
        }
        remedy
    }

    /// A rule in a remedy.
    fn shown_rule(&self, rule: &Rule) -> String {
        let origin = &rule.origin;
        if origin.file.is_empty() {
            return quoted(&origin.text);
        }
        let file = if origin.file == self.file { "".into() } else { origin.file.clone() };
        Cited { file, line: origin.line, text: origin.text.clone() }.to_string()
    }
}

/// The source to try first: a documentation address (RFC 5737, RFC 3849), or the first one that the publication lets in;
/// the addresses of a table are unknown here.
pub(super) fn first_source(options: &Options, family: Family) -> Option<IpAddr> {
    if options.sources.is_empty() {
        return BEYOND.into_iter().find(|address| Family::of(*address) == family);
    }
    let networks = options.sources.iter().filter_map(Source::network);
    networks.filter(|network| Family::of(network.addr()) == family).find_map(|network| network.hosts().next())
}

/// A statement as the file has it, or if it was not read from a file as pf prints it.
fn shown(statement: &Cited) -> String {
    match statement.line {
        0 => format!("{} of the main ruleset", quoted(&statement.text)),
        _ => statement.to_string(),
    }
}
