//! What the rulesets of others say: which anchors they call, and which redirects may stand in kport's way. The one place that
//! decides where is looked, whichever backend reads.
//!
//! Whatever somebody loads must not make kport fail, so each part of a rule that is not understood counts as "any": the
//! redirect is then wider than it is, and never overlooked.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::net::{Family, Interface, Place, PortRange, Protocol};
use crate::pf::ForeignRedirect;
use crate::pfconf::path::{Called, is_own};

/// The anchor that a line calls, if it does so with `keyword`: `rdr-anchor "rdr/*" on em0 all`.
pub(crate) fn call<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let rest = line.trim_start().strip_prefix(keyword)?.strip_prefix(" \"")?;
    rest.split_once('"').map(|(called, _)| called)
}

/// The rulesets of an anchor that may redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruleset {
    /// rdr rules
    Rdr,
    /// binat rules, which give an address of the host to another machine
    Binat,
    /// filter rules: 15 has `rdr-to` among them
    Filter,
}

/// A rule of somebody's, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    /// It calls an anchor, by what it says: see [`Called::resolve`].
    Call(String),
    /// It redirects.
    Redirect(ForeignRedirect),
}

/// Who reads what pf holds.
pub(crate) trait Reader {
    /// Why it could not.
    type Error;
    /// The rules of a ruleset that matter; none where there is no such anchor.
    fn read(&self, anchor: &str, ruleset: Ruleset) -> Result<Vec<Found>, Self::Error>;
    /// The names of the anchors directly below `anchor`; none where there is no such anchor.
    fn children(&self, anchor: &str) -> Result<Vec<String>, Self::Error>;
}

/// Every redirect that pf evaluates outside kport's anchors, in the main ruleset and in the anchors that are called from there,
/// at whatever depth. What no ruleset calls takes no packet, and is left alone: so a tool whose anchor is not called is in
/// nobody's way.
pub(crate) fn redirects<R: Reader>(reader: &R) -> Result<Vec<ForeignRedirect>, R::Error> {
    let mut found = Vec::new();
    for ruleset in [Ruleset::Rdr, Ruleset::Binat, Ruleset::Filter] {
        let mut seen = HashSet::from([String::new()]);
        let mut waiting = vec![String::new()];
        while let Some(anchor) = waiting.pop() {
            for rule in reader.read(&anchor, ruleset)? {
                let call = match rule {
                    Found::Redirect(redirect) => {
                        found.push(redirect);
                        continue;
                    }
                    Found::Call(call) => call,
                };
                let called = Called::resolve(&anchor, &call);
                // kport's may be many: they are not asked for
                if is_own(&called.path) {
                    continue;
                }
                let reached = called.anchors(|parent| reader.children(parent))?;
                waiting.extend(reached.into_iter().filter(|path| !is_own(path) && seen.insert(path.clone())));
            }
        }
    }
    // what is found must not depend on the order of the walk
    found.sort_by(|a, b| (&a.anchor, &a.text).cmp(&(&b.anchor, &b.text)));
    Ok(found)
}

/// The redirect that a line of `pfctl -sn -P` or `pfctl -sr -P` is, if it is one for a protocol that has ports.
pub(crate) fn redirect(anchor: &str, line: &str) -> Option<ForeignRedirect> {
    let words = words(line);
    let find = |word: &str, range: &[&str]| range.iter().position(|w| *w == word);
    // what it leads to does not matter
    let end = match *words.first()? {
        "rdr" | "binat" => find("->", &words).unwrap_or(words.len()),
        "pass" | "match" => find("rdr-to", &words)?,
        _ => return None,
    };
    // the address that binat gives to another machine: rdr rules are asked first, and would take its packets (pf_get_translation in
    // sys/netpfil/pf/pf_lb.c)
    let given = (words[0] == "binat").then(|| &words[(end + 1).min(words.len())..]);
    let words = &words[..end];
    // pfctl(8) prints both ends or neither, people leave one out
    let ends =
        words.iter().position(|w| matches!(*w, "from" | "all")).or_else(|| words.iter().rposition(|w| *w == "to"));
    let from = ends.unwrap_or(words.len());
    let (head, tail) = words.split_at(from);

    let family = head.iter().find_map(|w| match *w {
        "inet" => Some(Family::Inet),
        "inet6" => Some(Family::Inet6),
        _ => None,
    });
    let protocol = match find("proto", head).and_then(|at| head.get(at + 1)) {
        Some(name) => Some(Protocol::ALL.into_iter().find(|protocol| protocol.name() == *name)?),
        None => None,
    };
    // "on ! em0" is every interface but one
    let on = find("on", head).and_then(|at| head.get(at + 1)).and_then(|name| name.parse().ok()).map(Place::Interface);
    let to = find("to", tail).map_or(&[][..], |at| &tail[at + 1..]);
    let to = given.unwrap_or(to);
    let to_place = bound(to);
    let place = to_place.or(on).unwrap_or(Place::Any);
    let ports = find("port", to).and_then(|at| ports(&to[at + 1..]));
    Some(ForeignRedirect {
        anchor: anchor.to_owned(),
        family,
        protocol,
        place,
        any_address: to_place.is_none(),
        ports,
        text: line.trim().to_owned(),
    })
}

/// The words of a rule. What stands in quotes, such as a label, is one word, with its quotes.
fn words(line: &str) -> Vec<&str> {
    let mut quoted = false;
    line.split(|c: char| {
        quoted ^= c == '"';
        c == ' ' && !quoted
    })
    .filter(|word| !word.is_empty())
    .collect()
}

/// The place that a destination stands for: print_addr in sbin/pfctl/pf_print_state.c. `None` for networks, tables, ranges,
/// `! address` and `any`, which say no place.
fn bound(to: &[&str]) -> Option<Place> {
    let [address, rest @ ..] = to else { return None };
    if rest.first() == Some(&"-") {
        return None;
    }
    if let Some(dynamic) = address.strip_prefix('(') {
        // (em0) (em0:0) (em0:network) (self)
        let name = dynamic.trim_end_matches(')').split(':').next()?;
        // every address of the host says no more than `any`
        return name.parse::<Interface>().ok().filter(|_| name != "self").map(Place::Interface);
    }
    address.parse::<IpAddr>().ok().and_then(|address| Place::address(address).ok())
}

/// The ports after `port`, as print_op in sbin/pfctl/pfctl_parser.c prints them and as people write them. `None` where they are not one range.
fn ports(words: &[&str]) -> Option<PortRange> {
    let number = |word: &&str| word.parse::<u16>().ok();
    match words {
        ["=", port, ..] => number(port).and_then(|p| PortRange::new(p, p)),
        [">", port, ..] => number(port).and_then(|p| PortRange::new(p.checked_add(1)?, u16::MAX)),
        [">=", port, ..] => number(port).and_then(|p| PortRange::new(p.max(1), u16::MAX)),
        ["<", port, ..] => number(port).and_then(|p| PortRange::new(1, p.checked_sub(1)?)),
        ["<=", port, ..] => number(port).and_then(|p| PortRange::new(1, p)),
        [above, "><", below, ..] => {
            let (above, below) = number(above).zip(number(below))?;
            PortRange::new(above.checked_add(1)?, below.checked_sub(1)?)
        }
        [_, "<>", ..] => None,
        [ports, ..] => {
            // people leave the `=` out, pfctl(8) never does
            let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
            let (first, last) = number(&first).zip(number(&last))?;
            PortRange::new(if first == last { first } else { first.max(1) }, last)
        }
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        let Some(found) = redirect("x", line) else { return "none".to_owned() };
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
                "any tcp em1 any",
            ),
            ("rdr on em0 inet proto tcp from any to any port 8 <> 11 -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port = http -> 10.0.0.2", "inet tcp em0 any"),
            // as people write it
            ("rdr on em0 inet proto tcp from any to any port 2222 -> 10.0.0.2 port 22", "inet tcp em0 2222"),
            ("rdr on em0 proto tcp to port 2222 -> 10.0.0.2 port 22", "any tcp em0 2222"),
            ("rdr log (to pflog1) on em0 proto tcp to (em1) port 2222 -> 10.0.0.2 port 22", "any tcp em1 2222"),
            ("rdr on em0 inet proto tcp from any port 9 to (em0) port 2222:2229 -> 10.0.0.2", "inet tcp em0 2222-2229"),
            ("rdr on em0 inet proto tcp from any to any port 0 -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port 65536 -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port ssh -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port { 80 443 } -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on em0 inet proto tcp from any to any port {80,443} -> 10.0.0.2", "inet tcp em0 any"),
            ("rdr on wan+0 inet proto sctp from any to any port = 9 tag x -> 10.0.0.2", "inet sctp * 9"),
            ("rdr on em0 inet proto icmp from any to any -> 10.0.0.2", "none"),
            ("binat on em0 inet from 10.0.0.9 to any -> 192.0.2.7", "inet any 192.0.2.7 any"),
            ("binat on em0 inet proto tcp from 10.0.0.9 to any -> (em1)", "inet tcp em1 any"),
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
        /// Whatever a later pfctl(8) prints behind `rdr`, it is reported, unless it is about a protocol without ports.
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
            proptest::prop_assert!(redirect("", &line).is_some(), "{}", line);
            _ = redirect("", &anything);
            _ = call(&anything, "anchor");
            _ = Called::resolve(&anything, &anything);
        }
    }

    #[test]
    fn calls() {
        assert_eq!(call("rdr-anchor \"rdr/*\" on em0 all", "rdr-anchor"), Some("rdr/*"));
        assert_eq!(call("nat-anchor \"rdr/*\" all", "rdr-anchor"), None);
        assert_eq!(call("  anchor \"a b\" all {", "anchor"), Some("a b"));
        assert_eq!(call("anchor all {", "anchor"), None);
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
            // a name like any other
            ("", "x/../y", "x/../y", false),
            ("a", "/../y", "../y", false),
            // pf refuses it: there is nothing above the main ruleset
            ("", "../c", "c", false),
            ("", "a*", "a*", false),
        ] {
            let called = Called::resolve(caller, call);
            assert_eq!(called, Called { path: path.to_owned(), children }, "{caller} {call}");
            assert_eq!(called.is_kport(), path == "kport" && children);
        }
        for (path, own) in [("kport", true), ("kport/web", true), ("kportal", false), ("", false), ("x/kport", false)] {
            assert_eq!(is_own(path), own, "{path}");
        }
    }
}
