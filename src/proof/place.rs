//! Looks for the places in a main ruleset at which kport's anchors can be called.

use std::net::{IpAddr, SocketAddr};

use super::judge::{BySource, Entrance, Judge, SOURCE_PORT};
use crate::error::Result;
use crate::net::Direction;
use crate::pfconf::Conf;
use crate::pfconf::rule::{Action, Origin, Rule, RuleKind};
use crate::trace::{At, Met, Packet, Release};

const MOST: usize = 12;

/// Where calls may be added: how many rules of the main ruleset come before each place.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    pub nat: Vec<usize>,
    pub rdr: Vec<usize>,
    pub filter: Vec<usize>,
}

/// Where the three calls go: indexes of [`Positions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPlace {
    pub nat: usize,
    pub rdr: usize,
    pub filter: usize,
    pub quick: bool,
}

/// Why there is no place: what each of two statements needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub first: Need,
    /// What another one needs, unless the first alone is impossible.
    pub second: Option<Need>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub statement: Origin,
    /// What it does to packets that are sent to published ports, and where it must be.
    pub does: String,
}

const REFUSES_SOURCE: &str = "refuses some because of their source: it must come before";

/// Whether each position satisfies something; of filter rules first all with quick, then all without.
type Fits = Vec<bool>;

pub type Placed<T> = std::result::Result<T, Box<Contradiction>>;

struct Constraint {
    fits: Fits,
    need: Need,
    /// Whether it is only satisfied if that is possible.
    optional: bool,
}

/// How many rules of a kind come before each position.
fn counted(conf: &Conf, kind: RuleKind, positions: &[usize]) -> Vec<usize> {
    positions.iter().map(|at| conf.order_of(kind, *at)).collect()
}

/// Whether a rule blocks at an interface if kport's anchors are called after `before` filter rules; `None` if kport's rules decide.
fn blocks(met: &[Met<'_>], before: usize, quick: bool) -> Option<bool> {
    // with another tag than kport's the packet matches none of its rules
    if met.iter().any(|met| (met.last || met.tags) && met.at < before) {
        return Some(Met::decision(met).is_some_and(|met| met.blocks()));
    }
    let later = met.iter().rfind(|met| met.decides && met.at >= before);
    later.filter(|_| !quick).map(Met::blocks)
}

/// The places that keep whom the ruleset refuses because of his source, and let an ordinary outsider in; the best first.
/// At each entrance that is not required the outsider is let in if that is possible, too.
///
/// The best is right with and without quick, after the last filter rule that blocks and the last anchor of others.
pub fn places(
    judge: &Judge, conf: &Conf, entrances: &[Entrance], positions: &Positions,
) -> Result<Placed<Vec<CallPlace>>> {
    let translations = match translation(judge, conf, entrances, positions)? {
        Ok(found) => found,
        Err(contradiction) => return Ok(Err(contradiction)),
    };
    let filters = counted(conf, RuleKind::Filter, &positions.filter);
    let mut lists: Vec<Constraint> = vec![];
    let (mut reached, mut passed) = (vec![], vec![]);
    let fits = |ok: &dyn Fn(usize, bool) -> bool| -> Fits {
        let of_mode = |quick| filters.iter().map(move |before| ok(*before, quick));
        of_mode(true).chain(of_mode(false)).collect()
    };
    let mut add = |survey: &BySource<'_>| {
        for (source, trail, met) in survey.refused() {
            let stays = |before, quick| trail.iter().any(|met| blocks(met, before, quick) == Some(true));
            let (fits, optional) = (fits(&stays), source.perhaps);
            if !lists.iter().any(|list| list.fits == fits && list.optional <= optional) {
                let need = Need { statement: judge.statement(&met), does: REFUSES_SOURCE.to_owned() };
                lists.push(Constraint { fits, need, optional });
            }
        }
    };
    for entrance in &judge.ports {
        add(&judge.survey(entrance)?);
    }
    for entrance in entrances {
        let survey = judge.survey(entrance)?;
        add(&survey);
        let Some(trail) = survey.ordinary_trail() else { continue };
        let by_kport = |before, quick| {
            // after the first interface the packet has a tag and a state
            let stays = |(hook, met): (usize, &Vec<Met<'_>>)| match blocks(met, before, quick) {
                None => true,
                Some(blocks) => !blocks && (!quick || hook > 0),
            };
            trail.iter().enumerate().all(stays)
        };
        let arrives = |before, quick| trail.iter().all(|met| blocks(met, before, quick) != Some(true));
        let blocking = trail.iter().find_map(|met| Met::decision(met).filter(Met::blocks));
        let tagging = trail.iter().flatten().find(|met| met.tags).copied();
        let Some(met) = tagging.or(blocking).or_else(|| trail.iter().flatten().next().copied()) else { continue };
        let does = format!("decides about everybody's packets on {entrance}: it must come after");
        let need = Need { statement: judge.statement(&met), does };
        let optional = !entrance.required;
        reached.push(Constraint { fits: fits(&by_kport), need: need.clone(), optional });
        passed.push(Constraint { fits: fits(&arrives), need, optional });
    }
    let fits = |outsiders: &[Constraint]| satisfied(outsiders.iter().chain(&lists), 2 * positions.filter.len());
    let found = fits(&reached).or_else(|_| fits(&passed));
    Ok(found.map(|fits| ordered(conf, &fits, positions, translations)))
}

/// The positions that satisfy all constraints, but for optional ones that cannot be satisfied.
fn satisfied<'c>(constraints: impl Iterator<Item = &'c Constraint>, positions: usize) -> Placed<Fits> {
    let mut fits = vec![true; positions];
    let mut taken: Vec<&Constraint> = vec![];
    let (optional, required): (Vec<_>, Vec<_>) = constraints.partition(|constraint| constraint.optional);
    for constraint in required.into_iter().chain(optional) {
        let both = and(&fits, &constraint.fits);
        if both.contains(&true) {
            fits = both;
            taken.push(constraint);
        } else if !constraint.optional {
            let apart = |other: &&&Constraint| !and(&other.fits, &constraint.fits).contains(&true);
            // three statements may contradict each other only together: then the first of them is shown
            let partly = |other: &&&Constraint| other.fits.contains(&false);
            let other = taken.iter().find(apart).or_else(|| taken.iter().find(partly));
            let second = other.map(|other| other.need.clone());
            return Err(Box::new(Contradiction { first: constraint.need.clone(), second }));
        }
    }
    Ok(fits)
}

fn and(a: &[bool], b: &[bool]) -> Fits {
    a.iter().zip(b).map(|(a, b)| *a && *b).collect()
}

/// The best places first: those with and without quick, those with quick, those without.
fn ordered(conf: &Conf, fits: &[bool], positions: &Positions, (nat, rdr): (usize, usize)) -> Vec<CallPlace> {
    let (quick, slow) = fits.split_at(positions.filter.len());
    let both = and(quick, slow);
    let mut found: Vec<CallPlace> = vec![];
    // the calls of others, and what blocks
    let settles = |rule: &Rule| matches!(rule.action, Action::Block | Action::Call(RuleKind::Filter, _));
    for (fits, quick) in [(&both[..], true), (quick, true), (slow, false)] {
        let good: Vec<usize> = (0..fits.len()).filter(|at| fits[*at]).collect();
        let Some(last) = good.last() else { continue };
        let end = positions.filter[*last];
        let settled = conf.rules().iter().take(end).rposition(settles).map_or(0, |at| at + 1);
        let best = good.iter().find(|at| positions.filter[**at] >= settled);
        for filter in best.into_iter().chain(&good) {
            let place = CallPlace { nat, rdr, filter: *filter, quick };
            if found.len() < MOST && !found.contains(&place) {
                found.push(place);
            }
        }
    }
    found
}

/// The positions of nat-anchor and rdr-anchor: the last possible ones.
fn translation(
    judge: &Judge, conf: &Conf, entrances: &[Entrance], positions: &Positions,
) -> Result<Placed<(usize, usize)>> {
    let [nats, rdrs] = [(RuleKind::Nat, &positions.nat), (RuleKind::Rdr, &positions.rdr)]
        .map(|(kind, positions)| counted(conf, kind, positions));
    let v15 = judge.world.pf.release == Release::V15;
    let constraint = |fits, met: &Met<'_>, does, optional| {
        let need = Need { statement: judge.statement(met), does };
        Constraint { fits, need, optional }
    };
    // the positions from which the call is evaluated
    let called = |met: &Met<'_>, before: &[usize]| -> Fits {
        let fits = |before: &usize| match (met.last, v15) {
            // 15: of the matches of several rulesets the last one wins
            (true, true) if met.translates() && met.anchor.is_empty() => false,
            (false, true) => *before > met.at,
            _ => *before <= met.at,
        };
        before.iter().map(fits).collect()
    };
    let (mut of_rdr, mut of_nat) = (vec![], vec![]);
    for entrance in entrances {
        let translates =
            format!("ends the translation of everybody's packets on {entrance}: it must go, or come after");
        // nat is for hairpin and host access: a jail to a port of its own network
        if let Some(via) = entrance.via
            && let Some(neighbour) = judge.world.other_host(via, entrance.jail.ip())
        {
            let at = At { direction: Direction::Out, on: via, received_on: Some(via) };
            let met = judge.world.decided(RuleKind::Nat, at, &entrance.redirected(neighbour), &[])?;
            if let Some(met) = met.filter(|met| !met.translates()) {
                of_nat.push(constraint(called(&met, &nats), &met, translates.clone(), true));
            }
        }
        let Some(outsider) = judge.survey(entrance)?.outsider() else { continue };
        let met_by = |source: IpAddr, port: u16| -> Result<Option<Met<'_>>> {
            let to = SocketAddr::new(entrance.host.ip(), port);
            let packet = Packet::first(entrance.protocol, SocketAddr::new(source, SOURCE_PORT), to);
            judge.world.decided(RuleKind::Rdr, entrance.into(), &packet, &[])
        };
        let ordinary = met_by(outsider.address, entrance.host.port())?;
        if let Some(met) = &ordinary {
            let fits = called(met, &rdrs);
            of_rdr.push(constraint(fits, met, translates.clone(), !entrance.required));
        }
        // a source that is not redirected today
        for source in judge.sources.of(entrance.family()) {
            let Some(met) = met_by(source.address, entrance.host.port())? else { continue };
            if !met.translates() && !ordinary.is_some_and(|other| other.is(&met)) {
                let after = rdrs.iter().map(|before| *before > met.at).collect();
                of_rdr.push(constraint(after, &met, REFUSES_SOURCE.to_owned(), false));
            }
        }
        // a port that is not redirected to anybody
        for port in judge.world.ports(0) {
            if let Some(met) = met_by(outsider.address, port)?.filter(|met| !met.translates()) {
                of_rdr.push(constraint(called(&met, &rdrs), &met, translates.clone(), true));
            }
        }
    }
    let last = |fits: &[bool]| fits.iter().rposition(|fits| *fits).unwrap_or(fits.len().saturating_sub(1));
    Ok(satisfied(of_rdr.iter(), positions.rdr.len()).and_then(|fits| {
        let rdr = last(&fits);
        let fits = satisfied(of_nat.iter(), positions.nat.len())?;
        // both in one place, if possible
        let together = fits.get(..=rdr).filter(|_| positions.nat == positions.rdr).map(last).filter(|at| fits[*at]);
        Ok((together.unwrap_or_else(|| last(&fits)), rdr))
    }))
}
