//! The rulesets of others: which anchors they call, and which redirects may conflict with kport's. The one place that
//! decides which rulesets are read, for every backend.
//!
//! No ruleset may make kport fail, so each part of a rule that is not supported counts as "any": the redirect then
//! seems wider, and is never overlooked.

use std::collections::HashSet;
use std::convert::Infallible;

use crate::net::{Place, Protocol};
use crate::pf::{ForeignRedirect, Rulesets};
use crate::pfconf::Conf;
use crate::pfconf::address::Operand;
use crate::pfconf::path::{self, Called, is_own};
use crate::pfconf::rule::{Action, Rule, RuleKind};

/// Every redirect that pf evaluates outside kport's anchors, in the main ruleset and in the anchors that it calls, at
/// any depth. An anchor that is not called takes no packets, and is not read: so it conflicts with nothing.
///
/// `rules` returns the rules of one kind in an anchor, at least those that [`outline`] leaves; `children` the names of the anchors
/// directly below one. None if there is no such anchor.
pub(crate) fn redirects<E>(
    mut rules: impl FnMut(&str, RuleKind) -> Result<Vec<Rule>, E>,
    mut children: impl FnMut(&str) -> Result<Vec<String>, E>,
) -> Result<Vec<ForeignRedirect>, E> {
    let mut found = Vec::new();
    // filter rules of 15 have `rdr-to`; a binat rule redirects an address of the host to another machine
    for kind in [RuleKind::Rdr, RuleKind::Binat, RuleKind::Filter] {
        let mut seen = HashSet::from([String::new()]);
        let mut waiting = vec![String::new()];
        while let Some(anchor) = waiting.pop() {
            for rule in rules(&anchor, kind)? {
                let Action::Call(_, called) = &rule.action else {
                    found.extend(redirect(&anchor, &rule));
                    continue;
                };
                let called = Called::resolve(&anchor, called);
                // kport's may be many: these are not read
                if !is_own(&called.path) {
                    let reached = called.anchors(&mut children)?;
                    waiting.extend(reached.into_iter().filter(|path| !is_own(path) && seen.insert(path.clone())));
                }
            }
        }
    }
    // the result must not depend on the order of the walk
    found.sort_by(|a, b| (&a.anchor, &a.text).cmp(&(&b.anchor, &b.text)));
    Ok(found)
}

/// The redirects of a ruleset that was read from a file, with the anchors that are written in it.
pub(crate) fn of_conf(conf: &Conf) -> Vec<ForeignRedirect> {
    let rules = |anchor: &str, kind| {
        let all = conf.rulesets.get(anchor).into_iter().flatten();
        Ok::<_, Infallible>(all.filter(|rule| rule.action.kind() == kind).cloned().collect())
    };
    let children = |anchor: &str| {
        let below = path::join(anchor, "");
        let name = |path: &String| {
            let rest = if below.is_empty() { Some(&**path) } else { path.strip_prefix(&below)?.strip_prefix('/') };
            rest.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned)
        };
        Ok(conf.rulesets.keys().filter_map(name).collect())
    };
    redirects(rules, children).unwrap_or_else(|never| match never {})
}

pub fn of_rulesets(rulesets: &Rulesets) -> Vec<ForeignRedirect> {
    let each = rulesets.iter().flat_map(|(path, conf)| {
        conf.rulesets.iter().map(move |(inside, rules)| (path::join(path, inside), rules.clone()))
    });
    of_conf(&Conf { rulesets: each.collect(), ..Conf::default() })
}

/// The rules of a main ruleset that [`redirects`] and [`Conf::calls_kport`] use.
pub(crate) fn outline(conf: &Conf) -> Conf {
    let needed = |rule: &&Rule| matches!(rule.action, Action::Call(..)) || redirect("", rule).is_some();
    let of = |rules: &[Rule]| rules.iter().filter(needed).cloned().collect();
    let rulesets = conf.rulesets.iter().map(|(path, rules)| (path.clone(), of(rules)));
    Conf { rulesets: rulesets.collect(), ..Conf::default() }
}

/// The redirects of one of kport's own anchors.
pub(crate) fn own(anchor: &str, conf: &Conf) -> Vec<ForeignRedirect> {
    conf.rulesets.get("").into_iter().flatten().filter_map(|rule| redirect(anchor, rule)).collect()
}

/// The redirect of a rule, if it has one for a protocol with ports.
fn redirect(anchor: &str, rule: &Rule) -> Option<ForeignRedirect> {
    let when = &rule.when;
    let to = match &rule.action {
        Action::Translate { kind: RuleKind::Rdr, pool: Some(_), .. } => Some(&when.to),
        // the address that it redirects to another machine: rdr rules are evaluated first, and would take its packets
        // (pf_get_translation in sys/netpfil/pf/pf_lb.c)
        Action::Translate { kind: RuleKind::Binat, pool: Some(_), .. } => None,
        Action::Pass | Action::Match if rule.effects.rdr_to.is_some() => Some(&when.to),
        _ => return None,
    };
    let protocol = match when.protocol {
        Some(number) => Some(Protocol::numbered(number)?),
        None => None,
    };
    let to_place = match to {
        Some(to) if to.not => None,
        Some(to) => bound(&to.address),
        None => rule.pools().flat_map(|pool| &pool.addresses).find_map(|at| bound(at.address.as_ref()?)),
    };
    // "on ! em0" is every interface but that one
    let on = when.on.as_ref().filter(|on| !on.not).and_then(|on| on.name.parse().ok()).map(Place::Interface);
    Some(ForeignRedirect {
        anchor: anchor.to_owned(),
        family: when.family,
        protocol,
        place: to_place.or(on).unwrap_or(Place::Any),
        any_address: to_place.is_none(),
        ports: to.and_then(|to| to.ports?.range()),
        text: rule.origin.text.to_string(),
    })
}

/// The place that a destination stands for. `None` for networks, tables, ranges and `any`, which name no place, and for
/// every address of the host, which is the same as `any` here.
fn bound(to: &Operand) -> Option<Place> {
    match to {
        Operand::Network(network) if network.prefix_len() == network.max_prefix_len() => {
            Place::address(network.addr()).ok()
        }
        Operand::Interface(of) if of.dynamic && of.name != "self" => of.name.parse().ok().map(Place::Interface),
        _ => None,
    }
}
