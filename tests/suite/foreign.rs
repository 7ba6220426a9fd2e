//! The redirects of others, and where a call leads.

use std::sync::Arc;

use kport::pf::{ForeignRedirect, redirects_of};
use kport::pfconf::Conf;
use kport::pfconf::path::{Called, is_own};

fn found(conf: Conf) -> Vec<ForeignRedirect> {
    redirects_of(&vec![(String::new(), Arc::new(conf))])
}

fn read(line: &str) -> String {
    let Some(found) = found(Conf::of_output(line)).into_iter().next() else { return "none".to_owned() };
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
        ("rdr on em0 inet proto tcp from any to 192.0.2.1 - 192.0.2.9 port < 1024 -> 10.0.0.2", "inet tcp em0 1-1023"),
        ("rdr on em0 inet6 proto tcp from any to 2001:db8::1 port 8 >< 11 -> fd00::2", "inet6 tcp [2001:db8::1] 9-10"),
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
        ("pass in on em0 inet proto tcp from any to any port = 80 flags S/SA keep state label \"a rdr-to b\"", "none"),
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
        proptest::prop_assert!(!found(Conf::of_output(&line)).is_empty(), "{}", line);
        _ = found(Conf::of_output(&anything));
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
