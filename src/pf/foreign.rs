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

/// Reads what pf holds.
pub(crate) trait RulesetReader {
    /// The error of a read.
    type Error;
    /// Shows each rule of one kind in an anchor; none if there is no such anchor.
    fn each(&self, anchor: &str, kind: RuleKind, show: &mut dyn FnMut(&Rule)) -> Result<(), Self::Error>;
    /// The names of the anchors directly below `anchor`; none if there is no such anchor.
    fn children(&self, anchor: &str) -> Result<Vec<String>, Self::Error>;
}

/// A ruleset that was read from a file, with the anchors that are written in it.
impl RulesetReader for Conf {
    type Error = Infallible;

    fn each(&self, anchor: &str, kind: RuleKind, show: &mut dyn FnMut(&Rule)) -> Result<(), Infallible> {
        let rules = self.rulesets.get(anchor).into_iter().flatten();
        rules.filter(|rule| rule.action.kind() == kind).for_each(show);
        Ok(())
    }

    fn children(&self, anchor: &str) -> Result<Vec<String>, Infallible> {
        let below = path::join(anchor, "");
        let name = |path: &String| {
            let rest = if below.is_empty() { Some(&**path) } else { path.strip_prefix(&below)?.strip_prefix('/') };
            rest.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned)
        };
        Ok(self.rulesets.keys().filter_map(name).collect())
    }
}

/// Every redirect that pf evaluates outside kport's anchors, in the main ruleset and in the anchors that it calls, at
/// any depth. An anchor that is not called takes no packets, and is not read: so it conflicts with nothing.
pub(crate) fn redirects<R: RulesetReader + ?Sized>(reader: &R) -> Result<Vec<ForeignRedirect>, R::Error> {
    let mut found = Vec::new();
    // filter rules of 15 have `rdr-to`; a binat rule redirects an address of the host to another machine
    for kind in [RuleKind::Rdr, RuleKind::Binat, RuleKind::Filter] {
        let mut seen = HashSet::from([String::new()]);
        let mut waiting = vec![String::new()];
        while let Some(anchor) = waiting.pop() {
            let mut calls = vec![];
            reader.each(&anchor, kind, &mut |rule| match &rule.action {
                Action::Call(_, called) => calls.push(Called::resolve(&anchor, called)),
                _ => found.extend(redirect(&anchor, rule)),
            })?;
            // kport's may be many: these are not read
            for called in calls.into_iter().filter(|called| !is_own(&called.path)) {
                let reached = called.anchors(|parent| reader.children(parent))?;
                waiting.extend(reached.into_iter().filter(|path| !is_own(path) && seen.insert(path.clone())));
            }
        }
    }
    // the result must not depend on the order of the walk
    found.sort_by(|a, b| (&a.anchor, &a.text).cmp(&(&b.anchor, &b.text)));
    Ok(found)
}

/// The redirects of a ruleset that was read from a file.
pub(crate) fn of_conf(conf: &Conf) -> Vec<ForeignRedirect> {
    redirects(conf).unwrap_or_else(|never| match never {})
}

/// The same of rulesets that were read from pf.
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
pub(crate) fn redirect(anchor: &str, rule: &Rule) -> Option<ForeignRedirect> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        let conf = Conf::of_output(line);
        let Some(found) = conf.rules().first().and_then(|rule| redirect("x", rule)) else { return "none".to_owned() };
        let word = |part: Option<String>| part.unwrap_or_else(|| "any".to_owned());
        format!(
            "{} {} {} {}",
            word(found.family.map(|f| f.to_string())),
            word(found.protocol.map(|p| p.to_string())),
            found.place,
            word(found.ports.map(|p| p.to_string())),
        )
    }

    #[test]
    fn redirects() {
        for (line, expected) in [
            ("rdr on em0 inet proto tcp from any to (em0) port = 8080 -> 10.0.0.2 port 80", "inet tcp em0 8080"),
            (
                "rdr pass on em0 inet6 proto udp from any to any port 8000:8010 -> fd00::2 port 80",
                "inet6 udp em0 8000-8010",
            ),
            ("rdr log (all, to pflog1) on em0 inet all -> 10.0.0.2", "inet any em0 any"),
            ("rdr inet proto tcp from any to (self) port = 22 -> 10.0.0.2", "inet tcp * 22"),
            ("rdr on em0 inet proto tcp from any to (self) port = 22 -> 10.0.0.2", "inet tcp em0 22"),
            ("rdr on em0 inet proto tcp from any to (em1) port = 22 -> 10.0.0.2", "inet tcp em1 22"),
            (
                "rdr on em0 inet proto tcp from ! 10.0.0.0/8 port = 1 to 192.0.2.1 port = 53 -> 10.0.0.2",
                "inet tcp 192.0.2.1 53",
            ),
            ("rdr on em0 inet proto tcp from any to ! 192.0.2.1 port = 53 -> 10.0.0.2", "inet tcp em0 53"),
            ("rdr on ! em0 inet proto tcp from any to 192.0.2.0/24 port = 53 -> 10.0.0.2", "inet tcp * 53"),
            ("rdr on em0 inet proto tcp from any to <outside> port >= 1024 -> 10.0.0.2", "inet tcp em0 1024-65535"),
            (
                "rdr on em0 inet proto tcp from any to 192.0.2.1 - 192.0.2.9 port < 1024 -> 10.0.0.2",
                "inet tcp em0 1-1023",
            ),
            (
                "rdr on em0 inet6 proto tcp from any to 2001:db8::1 port 8 >< 11 -> fd00::2",
                "inet6 tcp [2001:db8::1] 9-10",
            ),
            (
                "rdr on em0 proto tcp from any to (em1:0) port != 80 -> { 10.0.0.2, 10.0.0.3 } round-robin",
                "inet tcp em1 any",
            ),
            ("rdr on em0 inet proto tcp from any to any port 8 <> 11 -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port = http -> 10.0.0.2", "inet tcp em0 80"),
            // as administrators write it
            ("rdr on em0 inet proto tcp from any to any port 2222 -> 10.0.0.2 port 22", "inet tcp em0 2222"),
            ("rdr on em0 proto tcp to port 2222 -> 10.0.0.2 port 22", "inet tcp em0 2222"),
            ("rdr log (to pflog1) on em0 proto tcp to (em1) port 2222 -> 10.0.0.2 port 22", "inet tcp em1 2222"),
            ("rdr on em0 inet proto tcp from any port 9 to (em0) port 2222:2229 -> 10.0.0.2", "inet tcp em0 2222-2229"),
            ("rdr on em0 inet proto tcp from any to any port 0 -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port 65536 -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port ssh -> 10.0.0.2", "inet tcp em0 22"),
            ("rdr on em0 inet proto tcp from any to any port { 80 443 } -> 10.0.0.2", "inet tcp em0 80"),
            ("rdr on em0 inet proto tcp from any to any port {80,443} -> 10.0.0.2", "inet tcp em0 80"),
            ("rdr on wan+0 inet proto sctp from any to any port = 9 tag x -> 10.0.0.2", "inet sctp * 9"),
            ("rdr on em0 inet proto icmp from any to any -> 10.0.0.2", "none"),
            ("binat on em0 inet from 10.0.0.9 to any -> 192.0.2.7", "inet any 192.0.2.7 any"),
            ("binat on em0 inet proto tcp from 10.0.0.9 to any -> (em1:0)", "inet tcp em1 any"),
            ("binat on em0 inet from 10.0.0.9 to any", "inet any em0 any"),
            ("no binat on em0 inet from 10.0.0.9 to any", "none"),
            ("rdr to be understood by another release", "any any * any"),
            ("rdr", "any any * any"),
            ("no rdr on em0 inet proto tcp from any to any port = 80", "none"),
            ("nat on em0 inet from 10.0.0.0/8 to any -> (em0) round-robin", "none"),
            ("rdr-anchor \"rdr/*\" all", "none"),
            (
                "pass in quick on em0 inet proto tcp from any to (em0) port = 80 flags S/SA keep state label \"to port = 9\" rdr-to 10.0.0.9 port 81",
                "inet tcp em0 80",
            ),
            (
                "pass in on em0 inet proto tcp from any to any port = 80 flags S/SA keep state label \"a rdr-to b\"",
                "none",
            ),
            ("block drop in log all", "none"),
            ("", "none"),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    proptest::proptest! {
        /// Whatever a later pfctl(8) prints after `rdr`, it is reported, unless it is about a protocol without ports.
        #[test]
        fn no_rdr_rule_is_overlooked(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "on", "em0", "!", "inet", "from", "to", "any", "all", "port", "=", "><", "0", "80", "65535", "65536", "1:0", "9:",
                    "(", "(em0", "(self)", "()", "<t>", "192.0.2.1", "::1", "->", "-", "\"", "tag", "rdr-to", "{", "\u{e9}",
                ]),
                0..12,
            ),
            anything in ".*",
        ) {
            let line = format!("rdr {}", words.join(" "));
            proptest::prop_assert!(!of_conf(&Conf::of_output(&line)).is_empty(), "{}", line);
            _ = of_conf(&Conf::of_output(&anything));
            _ = Called::resolve(&anything, &anything);
        }
    }

    #[test]
    fn a_call_leads_where_pf_finds_it() {
        for (caller, call, path, children) in [
            ("", "kport/*", "kport", true),
            ("", "/kport/*", "kport", true),
            ("", "rdr", "rdr", false),
            ("", "*", "", true),
            ("a/b", "c", "a/b/c", false),
            ("a/b", "../c/*", "a/c", true),
            ("a/b", "../../c", "c", false),
            ("a/b", "..//*", "a", true),
            ("a/b", "/c", "c", false),
            ("a", "*", "a", true),
            // ".." is only special at the start
            ("", "x/../y", "x/../y", false),
            ("a", "/../y", "../y", false),
            // an error in pf: there is nothing above the main ruleset
            ("", "../c", "c", false),
            ("", "a*", "a*", false),
        ] {
            let called = Called::resolve(caller, call);
            assert_eq!(called, Called { path: path.to_owned(), children }, "{caller} {call}");
            assert_eq!(called.is_kport(), path == "kport");
        }
        for (path, own) in [("kport", true), ("kport/web", true), ("kportal", false), ("", false), ("x/kport", false)] {
            assert_eq!(is_own(path), own, "{path}");
        }
    }
}
