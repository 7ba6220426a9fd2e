//! The three sentences that setup, doctor and `kport setup --check` say of a main ruleset.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::judge::{BySource, Entrance, Judge, SOURCE_PORT};
use crate::error::{Result, error};
use crate::name::JailName;
use crate::net::{Direction, Interface, Place, PortRange, Protocol};
use crate::options::Options;
use crate::pfconf::path::is_below_own;
use crate::pfconf::rule::{Origin, RuleKind};
use crate::publication::{Publication, Redirect, distinct};
use crate::rules;
use crate::trace::{At, Attachment, Met, Packet, Party, TraceStep, Verdict, World};

const JAIL: &str = "kport-proof";

const SHOWN: usize = 5;

/// What was found of a main ruleset that calls kport's anchors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The statements that refuse sources, and still do so at published ports.
    pub refusing: BTreeSet<Origin>,
    /// The statements that refuse sources, but not at published ports; with such a source, and an entrance.
    pub bypassed: BTreeMap<Origin, (IpAddr, Entrance)>,
    /// The anchors of programs that may block sources, which would reach published ports.
    pub overtaken: BTreeSet<Origin>,
    /// Where an ordinary outsider reaches a published port, and its address.
    pub reached: Vec<(Entrance, IpAddr)>,
    /// If only an allow-list lets anybody in: the statement that refuses all others.
    pub allowed_by: Option<Origin>,
    pub unreached: Vec<Unreached>,
    /// Packets that are not to a published port, and are treated in another way.
    pub changed: Vec<String>,
}

/// An entrance that an ordinary outsider does not get in by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    pub entrance: Entrance,
    pub statement: Option<Origin>,
    pub why: String,
}

impl Proof {
    pub fn holds(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The three sentences, each with whether it holds.
    pub fn sentences(&self) -> [(bool, String); 3] {
        let refuses = match self.bypassed.iter().next() {
            Some((statement, (source, entrance))) => format!(
                "{statement}{}: it refuses {source}, but not at ports published on {entrance}",
                and_more(self.bypassed.len() - 1)
            ),
            None if self.refusing.is_empty() => "no rule refuses anybody because of the source".to_owned(),
            None => {
                let shown: Vec<String> = self.refusing.iter().take(SHOWN).map(Origin::to_string).collect();
                format!(
                    "whom a rule refuses because of the source stays refused at published ports: {}{}",
                    shown.join("; "),
                    and_more(self.refusing.len() - shown.len())
                )
            }
        };
        let required = self.unreached.iter().find(|unreached| unreached.entrance.required);
        let arrives = match required {
            Some(unreached) => format!("an ordinary outsider does not reach a port published on {unreached}"),
            None if self.reached.is_empty() => "there is no interface with an address to publish on".to_owned(),
            None => {
                let mut outsiders: Vec<String> = self.reached.iter().map(|(_, address)| address.to_string()).collect();
                outsiders.dedup();
                format!(
                    "an ordinary outsider ({}) reaches a port published on {}",
                    outsiders.join(", "),
                    shown(&self.reached)
                )
            }
        };
        let others = match self.changed.first() {
            Some(changed) => {
                format!("other packets are treated in another way: {changed}{}", and_more(self.changed.len() - 1))
            }
            None => "nothing changes for packets that are not to a published port".to_owned(),
        };
        [(self.bypassed.is_empty(), refuses), (required.is_none(), arrives), (self.changed.is_empty(), others)]
    }

    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.sentences().into_iter().filter(|(holds, _)| !holds).map(|(_, sentence)| sentence)
    }

    pub fn notes(&self) -> Vec<String> {
        let allowed = self.allowed_by.iter();
        let mut notes: Vec<String> =
            allowed.map(|by| format!("only sources that {by} allows reach published ports")).collect();
        notes.extend(self.overtaken.iter().map(|call| format!("what {call} blocks reaches published ports")));
        let optional = self.unreached.iter().filter(|unreached| !unreached.entrance.required);
        notes.extend(optional.map(|unreached| format!("ports published on {unreached} are not reached")));
        notes
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.statement {
            Some(statement) => write!(f, "{} ({statement})", self.entrance),
            None => write!(f, "{} ({})", self.entrance, self.why),
        }
    }
}

/// `em0 (inet tcp, inet udp), em1 (inet tcp)`
fn shown(reached: &[(Entrance, IpAddr)]) -> String {
    let of = |on: Interface| {
        let of_interface = reached.iter().filter(|(entrance, _)| entrance.on == on);
        let all = distinct(of_interface.map(|(entrance, _)| format!("{} {}", entrance.family(), entrance.protocol)));
        format!("{on} ({})", all.join(", "))
    };
    let interfaces = distinct(reached.iter().map(|(entrance, _)| entrance.on));
    interfaces.into_iter().map(of).collect::<Vec<_>>().join(", ")
}

/// How many more there are like those that are shown.
pub fn and_more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more)") }
}

/// Judges a main ruleset that calls kport's anchors, with rules of kport that are quick, or not.
pub fn prove_with(judge: &Judge, entrances: &[Entrance], quick: bool) -> Result<Proof> {
    let mut proof = Proof::default();
    let mut world = judge.world.clone();
    world.pf.supposed = Some(vec![]);
    for entrance in &judge.ports {
        proof.refusals(judge, &mut world, entrance, quick)?;
    }
    for entrance in entrances {
        let survey = proof.refusals(judge, &mut world, entrance, quick)?;
        let lost = match survey.outsider() {
            None => Some((survey.most.clone(), "every source is refused".to_owned())),
            Some(outsider) => {
                proof.allowed_by = proof.allowed_by.or(outsider.allowed_by);
                let lost = lost(&mut world, judge, entrance, outsider.address)?;
                if lost.is_none() {
                    proof.reached.push((*entrance, outsider.address));
                }
                lost
            }
        };
        if let Some((statement, why)) = lost {
            proof.unreached.push(Unreached { entrance: *entrance, statement, why });
        }
        // kport's rules match none of these packets, whatever their protocol
        if entrance.protocol == Protocol::Tcp {
            changed(judge, &world, entrance, &mut proof.changed)?;
        }
    }
    Ok(proof)
}

/// The first sentence alone: the statements that refuse sources which reach an entrance.
pub fn bypassed(judge: &Judge, entrance: &Entrance, quick: bool) -> Result<BTreeSet<Origin>> {
    let mut world = judge.world.clone();
    world.pf.supposed = Some(vec![]);
    let mut proof = Proof::default();
    proof.refusals(judge, &mut world, entrance, quick)?;
    Ok(proof.bypassed.into_keys().collect())
}

impl Proof {
    /// Loads the rules of an entrance, and adds the sources that are refused there.
    fn refusals<'j>(
        &mut self, judge: &'j Judge, world: &mut World, entrance: &Entrance, quick: bool,
    ) -> Result<BySource<'j>> {
        let jail: JailName = JAIL.parse()?;
        world.load(jail.anchor().path(), &rules::rules(&publication(entrance, quick)?));
        let survey = judge.survey(entrance)?;
        for (source, _, met) in survey.refused() {
            let statement = judge.statement(&met);
            let held = source.holds.as_slice();
            let redirect = world.decided(RuleKind::Rdr, entrance.into(), &entrance.sent(source.address), held)?;
            let mut passes = redirect.is_some_and(|met| is_below_own(met.anchor));
            if passes {
                let packet = tagged(entrance.redirected(source.address))?;
                for hook in entrance.hooks() {
                    let met = world.decided(RuleKind::Filter, hook, &packet, held)?;
                    passes &= !met.is_some_and(|met| met.blocks());
                }
            }
            if source.perhaps {
                if passes {
                    self.overtaken.insert(statement);
                }
            } else if passes {
                self.refusing.remove(&statement);
                self.bypassed.entry(statement).or_insert((source.address, *entrance));
            } else if !self.bypassed.contains_key(&statement) {
                self.refusing.insert(statement);
            }
        }
        Ok(survey)
    }
}

pub fn publication(entrance: &Entrance, quick: bool) -> Result<Publication> {
    let ports = |port| PortRange::new(port, port).ok_or_else(|| error!(Internal, "the port of an entrance is 0"));
    let redirect = Redirect {
        af_to: false,
        place: Place::Interface(entrance.on),
        protocol: entrance.protocol,
        host: ports(entrance.host.port())?,
        target: entrance.jail.ip(),
        jail: ports(entrance.jail.port())?,
    };
    let options = Options { quick, ..Options::default() };
    Publication::new(JAIL.parse()?, vec![redirect], options, |_| Ok(None))
}

/// A packet as kport's rdr rule leaves it.
fn tagged(mut packet: Packet) -> Result<Packet> {
    packet.tag = Some(JAIL.parse::<JailName>()?.label().as_str().to_owned());
    Ok(packet)
}

/// Sends a connection of a source to an entrance; if it is not answered, the statement that decides, and what happens.
fn lost(
    world: &mut World, judge: &Judge, entrance: &Entrance, source: IpAddr,
) -> Result<Option<(Option<Origin>, String)>> {
    let jail = Attachment {
        name: JAIL.to_owned(),
        behind: entrance.via,
        member: None,
        addresses: vec![entrance.jail.ip().into()],
    };
    world.jails = vec![jail];
    world.pf.states = Default::default();
    let from = SocketAddr::new(source, SOURCE_PORT);
    let trace = world.trace(&Party::Network(entrance.on), entrance.protocol, from, entrance.host);
    world.jails.clear();
    world.pf.states = Default::default();
    let there = (Party::Jail(JAIL.to_owned()), entrance.jail);
    let arrives = matches!(trace.verdict, Verdict::Answered | Verdict::Delivered | Verdict::Refused);
    if arrives && trace.delivered_to.as_ref() == Some(&there) {
        return Ok(None);
    }
    let why = match (&trace.delivered_to, trace.verdict) {
        (Some((party, at)), _) if *at != entrance.jail => format!("it goes to {party} at {at}"),
        (_, Verdict::Depends) => format!("cannot be decided: {}", trace.depends_on.join("; ")),
        _ => match trace.steps.last() {
            Some(TraceStep::Verdict(text) | TraceStep::Note(text)) => text.clone(),
            _ => "it does not arrive".to_owned(),
        },
    };
    // the rule that was met last, on the way that the packet went
    let redirect = world.decided(RuleKind::Rdr, entrance.into(), &entrance.sent(source), &[])?;
    if let Some(met) = redirect.filter(|met| !is_below_own(met.anchor)) {
        return Ok(Some((Some(judge.statement(&met)), why)));
    }
    let packet = tagged(entrance.redirected(source))?;
    for hook in entrance.hooks() {
        let (met, _) = world.met(RuleKind::Filter, hook, &packet, &[])?;
        // with another tag than kport's
        let tagging = met.iter().find(|met| met.tags).copied();
        if let Some(met) = tagging.or_else(|| Met::decision(&met).filter(Met::blocks)) {
            return Ok(Some((Some(judge.statement(&met)), why)));
        }
    }
    Ok(Some((None, why)))
}

/// Adds packets that are not to a published port and that are treated in another way with kport's rules: from every source to
/// another port, to every class of destinations, and to every port that rules distinguish. kport's rules match none
/// of them; only a call can make a difference.
fn changed(judge: &Judge, with: &World, entrance: &Entrance, found: &mut Vec<String>) -> Result<()> {
    let sources = judge.sources.of(entrance.family());
    let Some(first) = sources.first().map(|source| source.address) else { return Ok(()) };
    let other = if entrance.host.port() == 1 { 2 } else { entrance.host.port() - 1 };
    let into = entrance.into();
    let out = At { direction: Direction::Out, on: entrance.on, received_on: entrance.via };
    let host = entrance.host.ip();
    let base = judge.world.without_quick_kport();
    let mut packets: Vec<(At, IpAddr, IpAddr, u16)> = vec![];
    for source in sources {
        packets.push((into, source.address, host, other));
        packets.push((out, entrance.jail.ip(), source.address, other));
        packets.push((into, first, source.address, other));
    }
    let ports = judge.world.ports(0).into_iter().filter(|port| *port != entrance.host.port());
    packets.extend(ports.map(|port| (into, first, host, port)));
    for (at, from, to, port) in packets {
        let (from, to) = (SocketAddr::new(from, SOURCE_PORT), SocketAddr::new(to, port));
        let packet = Packet::first(entrance.protocol, from, to);
        for kind in [RuleKind::Rdr, RuleKind::Nat, RuleKind::Filter] {
            let before = base.decided(kind, at, &packet, &[])?;
            let after = with.decided(kind, at, &packet, &[])?;
            let same = match (before, after) {
                (Some(before), Some(after)) => before.is(&after),
                (before, after) => before.is_none() && after.is_none(),
            };
            let what = format!("{} {packet} on {}", at.direction, at.on);
            if !same && !found.contains(&what) {
                found.push(what);
            }
        }
    }
    Ok(())
}
