//! Sends packets to published ports through the evaluator, with the real main ruleset and the rules of the redirect: an ordinary
//! outsider is chosen by the ruleset, the statement is named that decides, and a remedy is tried.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Findings, RELOAD, Surroundings};
use crate::error::{Problem, Result, quoted};
use crate::name::PARENT;
use crate::net::{Direction, Interface};
use crate::options::Source;
use crate::pf::Rulesets;
use crate::pfconf::Conf;
use crate::pfconf::path::is_own;
use crate::pfconf::rule::{Action, Origin, Rule, RuleKind};
use crate::proof::{self, Entrance, Judge, Positions};
use crate::publication::{Publication, Redirect, distinct};
use crate::rules;
use crate::trace::{At, Packet, Party, REFUSES, Release, Trace, TraceStep, Verdict, World};

const MOST_SOURCES: usize = 64;
/// The rule that decides if no other matches, on a host where it blocks.
const DEFAULT_RULE: &str = "the default rule (net.pf.default_to_drop)";

/// A packet to try a redirect with.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// The redirect alone, so that a thousand mappings do not each evaluate those of the others.
    pub(super) publication: Publication,
    pub(super) redirect: Redirect,
    pub(super) sender: Party,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// For a packet from outside.
    pub(super) entrance: Option<Entrance>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.publication.jail.mention(), self.sender, self.redirect)
    }
}

impl Probe {
    /// The path of the packet in a world, with the rules that should be there, so that missing rules are not a reason.
    pub(super) fn traced(&self, world: &World) -> Trace {
        let mut loaded = world.clone();
        loaded.load(self.publication.jail.anchor().path(), &rules::rules(&self.publication));
        loaded.trace(&self.sender, self.redirect.protocol, self.from, self.to)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Arrives,
    Depends(String),
    Lost(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Judged {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) notes: Vec<String>,
}

impl Judged {
    /// Whether a text names the mapping that was tried, and so is not about the others of its class.
    pub(super) fn names(&self, Probe { publication, redirect, to, .. }: &Probe) -> bool {
        let (jail, target) = (publication.jail.to_string(), redirect.target.to_string());
        let parts = [jail, target, redirect.jail.first().to_string(), to.port().to_string()];
        let texts = self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Arrives => None,
            Outcome::Depends(text) | Outcome::Lost(text) => Some(text),
        });
        texts.chain(&self.notes).any(|text| parts.iter().any(|part| text.contains(part)))
    }
}

/// Why rulesets are not evaluated: a problem if pfctl(8) would refuse one on this host, and a warning if one could not be read.
pub(super) fn unfit(around: &Surroundings<'_>, rulesets: &Rulesets) -> Result<Findings> {
    let mut found = Findings::default();
    let world = World::new(Release::of_host(around.host)?, around.interfaces.to_vec());
    for (path, conf) in rulesets.iter().filter(|(path, _)| !is_own(path)) {
        if let Some(unread) = conf.unread.first() {
            let place = if path.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {path}") };
            found.warnings.push(Problem::new(format!("not evaluated: {place}: {unread}"), ""));
            break;
        }
        if let Some(refused) = world.refused(conf) {
            let remedy = format!("correct that line in the file, or give the interface an address, {RELOAD}");
            found.problems.push(Problem::new(format!("{REFUSES}: {refused}"), remedy));
            break;
        }
    }
    Ok(found)
}

/// The rulesets of pf without kport's own, on a host.
pub(super) struct Evaluator<'a> {
    around: Surroundings<'a>,
    rulesets: Rulesets,
    main: Arc<Conf>,
    /// The file of the main ruleset; empty if it was not read from a file.
    file: Arc<str>,
    pub(super) world: World,
    judge: OnceCell<Judge>,
}

/// A host with this main ruleset, and with the others but kport's own.
fn world_with(main: &Conf, around: &Surroundings<'_>, rulesets: &Rulesets) -> Result<World> {
    let mut world = World::new(Release::of_host(around.host)?, around.interfaces.to_vec());
    world.set_gateways(around.host)?;
    world.filter_local = around.sysctl_is_on("net.pf.filter_local")?;
    world.pf.default_to_drop = around.sysctl_is_on("net.pf.default_to_drop")?;
    world.load_conf("", main);
    for (path, conf) in rulesets.iter().filter(|(path, _)| !path.is_empty() && !is_own(path)) {
        world.load_conf(path, conf);
    }
    Ok(world)
}

impl<'a> Evaluator<'a> {
    /// Of rulesets by path, the main one's empty, that are not [`unfit`].
    pub(super) fn new(around: Surroundings<'a>, rulesets: Rulesets) -> Result<Evaluator<'a>> {
        let main = rulesets.iter().find(|(path, _)| path.is_empty()).map(|(_, conf)| conf.clone()).unwrap_or_default();
        // the rules of an included file have another name
        let call = main.calls_of_kport(RuleKind::Filter).first().map(|rule| rule.origin.file.clone());
        let file = call.or_else(|| main.rules().first().map(|rule| rule.origin.file.clone())).unwrap_or_default();
        let world = world_with(&main, &around, &rulesets)?;
        Ok(Evaluator { around, rulesets, main, file, world, judge: OnceCell::new() })
    }

    fn judged(&self) -> &Judge {
        self.judge.get_or_init(|| Judge::new(self.world.clone(), &self.file))
    }

    pub(super) fn judge(&self, probes: &[Probe]) -> Result<Judged> {
        let mut judged = Judged::default();
        // a probability, and what is unknown, does not depend on the sender
        let by_chance = |rule: &Rule| rule.when.probability.is_some() || rule.when.unknown.is_some();
        let has_chance = self.world.rules().any(|(_, rule)| by_chance(rule));
        for probe in probes {
            let outcome = match self.outcome(&self.world, probe)? {
                Outcome::Arrives => Outcome::Arrives,
                Outcome::Depends(what) if has_chance => Outcome::Depends(what),
                first => self.second_look(probe, &mut judged.notes)?.unwrap_or(first),
            };
            judged.outcomes.push(outcome);
        }
        Ok(judged)
    }

    /// The first statement that refuses sources which arrive, and how many more there are.
    pub(super) fn bypassed(&self, probes: &[Probe]) -> Result<Option<(String, usize)>> {
        let mut found = BTreeSet::new();
        for probe in probes.iter().filter(|probe| probe.publication.options.sources.is_empty()) {
            if let Some(entrance) = &probe.entrance {
                found.extend(proof::bypassed(self.judged(), entrance, probe.publication.options.quick)?);
            }
        }
        Ok(found.first().map(|first| (shown(first), found.len() - 1)))
    }

    fn outcome(&self, world: &World, probe: &Probe) -> Result<Outcome> {
        let trace = probe.traced(world);
        Ok(match (trace.verdict, trace.delivered_to) {
            (Verdict::Depends, _) => Outcome::Depends(trace.depends_on.join("; ")),
            (_, Some((_, at))) if at.ip() == probe.redirect.target => Outcome::Arrives,
            (_, Some((party, at))) => Outcome::Lost(format!("it goes to {party} at {at} instead")),
            (_, None) => Outcome::Lost(self.reason(&trace.steps)),
        })
    }

    /// Tries an outsider that no rule singles out: the first address may be in a list of bogons, or not in a list of
    /// those that are allowed. `None` if there is no such outsider, or the ruleset cannot be judged.
    fn second_look(&self, probe: &Probe, notes: &mut Vec<String>) -> Result<Option<Outcome>> {
        let Some(entrance) = probe.entrance else { return Ok(None) };
        let options = &probe.publication.options;
        if !options.sources.is_empty() {
            return Ok(self.other_arrives(&self.world, probe)?.then_some(Outcome::Arrives));
        }
        let Ok(proof) = proof::prove_with(self.judged(), &[entrance], options.quick) else { return Ok(None) };
        if let Some(unreached) = proof.unreached.first() {
            let lost = |statement| Outcome::Lost(format!("{} ({})", unreached.why, shown(statement)));
            return Ok(unreached.statement.as_ref().map(lost));
        }
        if let Some(statement) = proof.allowed_by {
            notes.push(format!("only sources that {} allows get in", shown(&statement)));
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
            let probe = Probe { from: SocketAddr::new(source, probe.from.port()), ..probe.clone() };
            if matches!(self.outcome(world, &probe)?, Outcome::Arrives) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn reason(&self, steps: &[TraceStep]) -> String {
        let deciding = steps.iter().rev().find_map(|step| match step {
            TraceStep::Rule { anchor, text } => {
                let place = if anchor.is_empty() { "the main ruleset".to_owned() } else { format!("anchor {anchor}") };
                Some(format!("{} of {place}", quoted(text)))
            }
            TraceStep::DefaultRule => Some(DEFAULT_RULE.to_owned()),
            _ => None,
        });
        match (steps.last(), deciding) {
            (Some(TraceStep::Verdict(verdict)), Some(rule)) => format!("{verdict} by {rule}"),
            (Some(TraceStep::Note(note)), _) => note.clone(),
            _ => "it does not arrive".to_owned(),
        }
    }

    /// Another place of kport's calls with which all packets are treated as they should be; empty if there is none.
    pub(super) fn remedy(&self, probes: &[&Probe]) -> Result<String> {
        let [nat, rdr, filter] = RuleKind::OF_KPORT.map(|kind| self.main.kport_at(kind));
        // a call in the braces of an anchor
        let (Some(rdr), Some(filter_now)) = (rdr, filter) else { return Ok(String::new()) };
        let now = [nat.unwrap_or(rdr), rdr];
        let base = self.main.without_kport();
        let entrances = distinct(probes.iter().filter_map(|probe| probe.entrance));
        let world_with = |main: &Conf| world_with(main, &self.around, &self.rulesets);
        let judge = Judge::new(world_with(&base)?, &self.file);
        let [translation, filter] = [&[RuleKind::Nat, RuleKind::Rdr, RuleKind::Binat][..], &[RuleKind::Filter]]
            .map(|kinds| base.places_for(kinds));
        let positions = Positions { nat: translation.clone(), rdr: translation, filter };
        let contradiction = match proof::places(&judge, &base, &entrances, &positions) {
            Ok(Ok(mut places)) => {
                // the least change first
                places.sort_by_key(|place| (!place.quick, filter_now.abs_diff(positions.filter[place.filter])));
                for place in places {
                    let filter = positions.filter[place.filter];
                    // the translation calls stay if that is enough
                    for [nat, rdr] in [now, [positions.nat[place.nat], positions.rdr[place.rdr]]] {
                        let world = world_with(&base.with_kport([nat, rdr, filter]))?;
                        if self.is_right(&world, probes, &entrances, place.quick)? {
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
    fn is_right(&self, world: &World, probes: &[&Probe], entrances: &[Entrance], quick: bool) -> Result<bool> {
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
        let holds = |quick| proof::prove_with(&judge, entrances, quick).is_ok_and(|proof| proof.holds());
        Ok(modes.into_iter().all(holds))
    }

    /// The words for moving the calls to these positions of the ruleset without them.
    fn moves(&self, base: &Conf, to: [usize; 3], quick: bool, probes: &[&Probe]) -> String {
        let mut moves = vec![];
        for (kind, to) in RuleKind::OF_KPORT.into_iter().zip(to) {
            let Some(now) = self.main.kport_at(kind) else { continue };
            // statements of other kinds between two places make no difference
            if base.order_of(kind, now) == base.order_of(kind, to) {
                continue;
            }
            let of_kind = |rule: &&Rule| rule.action.kind() == kind;
            let shown = |rule: &Rule| match rule.origin.seen_from(&self.file) {
                Origin { line: 0, text, .. } => quoted(&text),
                cited => cited.to_string(),
            };
            let at = match (base.rules().iter().skip(to).find(of_kind), base.rules().iter().take(to).rfind(of_kind)) {
                (Some(next), _) => format!(" before {}", shown(next)),
                (None, Some(last)) => format!(" after {}", shown(last)),
                (None, None) => String::new(),
            };
            // the call as the file has it, without its conditions
            let calls = self.main.calls_of_kport(kind);
            let path = calls.iter().find_map(|rule| match &rule.action {
                Action::Call(_, path) => Some(path.as_str()),
                _ => None,
            });
            moves.push(format!("move {} {}{at}", kind.call(), quoted(path.unwrap_or(PARENT))));
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
}

/// A statement as the file has it, or if it was not read from a file as pf prints it.
fn shown(statement: &Origin) -> String {
    match statement.line {
        0 => format!("{} of the main ruleset", quoted(&statement.text)),
        _ => statement.to_string(),
    }
}

/// The rule that blocks IPv6 neighbour discovery on an interface, if there is one: the question of a neighbour to the multicast group of
/// an address.
pub(super) fn blocks_neighbours(world: &World, on: Interface, direction: Direction) -> Option<String> {
    const SOLICITATION: u8 = 135;
    let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x77);
    let [from, to] = [neighbour, group].map(|address| SocketAddr::new(address.into(), 0));
    let at = At { direction, on, received_on: (direction == Direction::In).then_some(on) };
    // not every ruleset can be judged
    let decided = world.decided(RuleKind::Filter, at, &Packet::icmp(SOLICITATION, 0, from, to), &[]).ok()?;
    match decided {
        Some(met) => met.blocks().then(|| quoted(&met.rule.origin.text)),
        None => (world.pf.default_to_drop && !world.skips(on)).then(|| DEFAULT_RULE.to_owned()),
    }
}
