//! The text of pf.conf(5): statements and their places, what rules stand for, what pfctl(8) prints.

mod print;

use ipnet::IpNet;
use kport::net::{Direction, Family, Protocol};
use kport::pfconf::address::{OfInterface, Part};
use kport::pfconf::nested::{ByChild, Children};
use kport::pfconf::{Conf, Outline, RuleKind, Section, flat, names};
use kport::rule::{self, Address, Counters, Match, StateOptions};
use proptest::proptest;

fn outline(text: &[u8]) -> Outline {
    Outline::of_text(text)
}

/// The section of each statement, and its bytes.
fn parts(text: &[u8]) -> Vec<(Section, usize, usize, &[u8])> {
    let outline = outline(text);
    assert_eq!(outline.broken, None);
    outline.statements.iter().map(|s| (s.section(), s.origin.line, s.depth, &text[s.bytes.clone()])).collect()
}

#[test]
fn statements_have_their_bytes() {
    use Section::*;
    let text = b"# caf\xe9\nx = \"{ 1 \\\n 2 }\"\n\n  set skip on lo0 # \xff\r\n\\\nscrub in\nnat on em0 from { 10/8,\n 192.168.0.1\n} -> (em0)\n\
        rdr-anchor \"kport/*\"\nanchor \"a\" {\n  block in quick\n anchor in {\n}\n}\n$x \nantispoof for em0\nfrob\npass label \"\xe9\"";
    assert_eq!(
        parts(text),
        [
            (Anywhere, 2, 0, &b"x = \"{ 1 \\\n 2 }\"\n"[..]),
            (BeforeTranslation, 5, 0, b"set skip on lo0 # \xff\r\n"),
            (BeforeTranslation, 7, 0, b"scrub in\n"),
            (Translation, 8, 0, b"nat on em0 from { 10/8,\n 192.168.0.1\n} -> (em0)\n"),
            (Translation, 11, 0, b"rdr-anchor \"kport/*\"\n"),
            (Filter, 12, 0, b"anchor \"a\" {\n"),
            (Filter, 13, 1, b"block in quick\n"),
            (Filter, 14, 1, b"anchor in {\n"),
            (Close, 15, 1, b"}\n"),
            (Close, 16, 0, b"}\n"),
            (Unknown, 17, 0, b"$x \n"),
            (Filter, 18, 0, b"antispoof for em0\n"),
            (Unknown, 19, 0, b"frob\n"),
            (Filter, 20, 0, b"pass label \"\xe9\""),
        ]
    );
    let outline = outline(text);
    let refused: Vec<bool> = outline.statements.iter().map(|s| s.refused.is_some()).collect();
    assert_eq!(refused.iter().filter(|refused| **refused).count(), 2, "{outline:?}");
    assert!(refused[10] && refused[12]);
    assert_eq!(outline.statements[1].skipped(), ["lo0"]);
    assert!(outline.statements[4].calls_kport(RuleKind::Rdr) && !outline.statements[4].calls_kport(RuleKind::Nat));
    // the rules of the main ruleset
    let rules: Vec<usize> = outline.statements.iter().map(|s| s.rules).collect();
    assert_eq!(rules, [0, 0, 0, 2, 3, 4, 4, 4, 4, 4, 4, 6, 6, 7]);
}

#[test]
fn an_included_file_has_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let [main, a, b] = ["main", "a", "b"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&a, "x = em1\n\nblock in \\\n on $x").unwrap();
    let includes = [&a, &b].map(|name| format!("include \"{name}\""));
    let text = [b"pass\n", includes[0].as_bytes(), b" # \xe9\n", includes[1].as_bytes(), b"\npass on $x\n"].concat();
    let outline = Outline::of_file(main.as_ref(), &text);
    let [second, third] = [5 + includes[0].len() + 5, 5 + includes[0].len() + 5 + includes[1].len() + 1];
    let found: Vec<_> = outline.statements.iter().map(|s| (&*s.origin.file, s.origin.line, s.bytes.clone())).collect();
    assert_eq!(
        found,
        [
            (&*main, 1, 0..5),
            (&*main, 2, 5..second),
            (&*a, 1, 0..8),
            (&*a, 3, 9..26),
            (&*main, 3, second..third),
            (&*main, 4, third..third + 11)
        ]
    );
    let why = format!("read {b}: No such file or directory (os error 2)");
    assert_eq!(outline.statements[4].refused.as_ref(), Some(&why));
    assert_eq!(outline.statements.iter().map(|s| s.rules).collect::<Vec<_>>(), [1, 1, 1, 2, 2, 3]);
}

#[test]
fn what_only_pfctl_prints() {
    let rule = |line: &str| Conf::of_output(line).rules()[0].clone();
    for (printed, written) in [
        ("pass in route-to (vtnet1 ?) inet all no state", "pass in route-to vtnet1 inet all no state"),
        ("pass in proto tcp all user = 4294967295 no state", "pass in proto tcp user unknown no state"),
        ("pass in proto udp all group != 4294967295 no state", "pass in proto udp group != unknown no state"),
    ] {
        assert_eq!(rule(printed), written.parse::<Conf>().unwrap().rules()[0]);
    }
    assert!("pass in route-to (vtnet1 ?) inet all".parse::<Conf>().is_err());
}

#[test]
fn what_breaks_a_text() {
    for (text, line, why) in [
        ("pass\nblock label \"a\nb\n", 2, "a quote is not closed"),
        ("pass\npass in from { 10.0.0.1\n", 2, "a { is not closed"),
        ("pass\n\npass on $x\npass\n", 3, "macro x is not defined"),
        ("anchor {\npass\n", 2, "the } of an anchor is missing"),
        ("pass\n}\npass\n", 2, "there is no { for this }"),
    ] {
        let broken = outline(text.as_bytes()).broken.unwrap();
        assert_eq!((broken.origin.line, &*broken.why), (line, why), "{text}");
    }
    // an anchor whose own line is unknown has its rules anyway
    let outline = outline(b"anchor frob frob {\n block quick\n}\nblock quick\n");
    assert_eq!(outline.broken, None);
    assert_eq!(outline.statements.last().map(|s| s.rules), Some(1));
}

#[test]
fn rules_have_the_statements_of_the_file() {
    let file = "block log all\nantispoof quick for em0\npass in proto tcp from { 192.0.2.0/24, 10.0.0.0/8 } to em0 port 80\n\
                block in quick from urpf-failed\n";
    let shown = "block drop log all\nblock drop in quick on ! em0 inet from 203.0.113.0/24 to any\n\
                 block drop in quick inet from 203.0.113.10 to any\n\
                 pass in inet proto tcp from 192.0.2.0/24 to 203.0.113.10 port = 80 flags S/SA keep state\n\
                 pass in inet proto tcp from 10.0.0.0/8 to 203.0.113.10 port = 80 flags S/SA keep state\n\
                 block drop out all\nblock drop in quick from urpf-failed to any\n";
    let networks = |of: &OfInterface| {
        let network: IpNet = "203.0.113.10/24".parse().unwrap();
        Some(vec![if of.part == Part::Network { network.trunc() } else { network.addr().into() }])
    };
    let named = Conf::of_output(shown).named_by(&file.parse().unwrap(), &networks);
    let lines: Vec<(usize, bool)> =
        named.rules().iter().map(|rule| (rule.origin.line, rule.origin.file.is_empty())).collect();
    let file = |line| (line, false);
    assert_eq!(lines[..5], [file(1), file(2), file(2), file(3), file(3)]);
    // which is not in the file
    assert!(lines[5].1);
    assert_eq!(lines[6], file(4));
    assert_eq!(&*named.rules()[1].origin.text, "antispoof quick for em0");
}

fn conf(text: &str) -> Conf {
    text.parse().unwrap()
}

#[test]
fn the_calls_are_found_and_moved() {
    let text = "rdr on em0 proto tcp to port 1 -> 10.0.0.9\nrdr-anchor \"kport/*\"\nblock in all\nanchor \"kport/*\"\npass out\n";
    let main = conf(text);
    let base = main.without_kport();
    assert_eq!((base.rules().len(), main.rules().len()), (3, 5));
    let kinds = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter];
    assert_eq!(kinds.map(|kind| main.kport_at(kind)), [None, Some(1), Some(2)]);
    for at in [[0, 0, 1], [1, 1, 3], [1, 0, 2]] {
        let made = base.with_kport(at);
        assert_eq!(made.without_kport(), base);
        for (kind, at) in kinds.into_iter().zip(at) {
            let order = |conf: &Conf, at| conf.order_of(kind, at);
            assert_eq!(made.kport_at(kind).map(|at| order(&base, at)), Some(order(&base, at)), "{kind:?}");
        }
    }
    assert_eq!(base.places_for(&[RuleKind::Filter]), [1, 2, 3]);
    assert_eq!(base.places_for(&[RuleKind::Nat, RuleKind::Rdr]), [0, 1]);
    assert_eq!(conf("").places_for(&[RuleKind::Filter]), [0]);
    // a list is one statement
    assert_eq!(
        conf("block in on { em0 em1 }\nantispoof for em0\npass\n").places_for(&[RuleKind::Filter]),
        [0, 2, 4, 5]
    );
}

/// The text of a rule reads as the same values.
#[test]
fn rules_of_kport_are_what_their_text_says() {
    let matches = |protocol, ports: &str| Match {
        on: vec!["em0".parse().unwrap(), "wan".parse().unwrap()],
        family: Family::Inet,
        protocol,
        from: vec![
            Address::Any,
            Address::Host("192.0.2.9".parse().unwrap()),
            Address::Network("10.0.0.0/8".parse().unwrap()),
            Address::Table("friends".parse().unwrap()),
            Address::InterfaceNetwork("bridge0".parse().unwrap()),
            Address::NotInterfaceNetwork("em1".parse().unwrap()),
        ],
        to: vec![Address::Own, Address::Interface("em0".parse().unwrap())],
        ports: ports.parse().unwrap(),
    };
    let state = StateOptions {
        max: std::num::NonZeroU32::new(9),
        max_src_conn: std::num::NonZeroU32::new(4),
        max_src_conn_rate: rule::Rate::new(15, 5).ok(),
        ..StateOptions::default()
    };
    let hop = |gateway: Option<&str>| {
        let gateway = gateway.map(|text| text.parse().unwrap());
        let reply_to = Some(rule::NextHop { interface: "em1".parse().unwrap(), gateway });
        rule::Routing { reply_to, rtable: gateway.map(|_| 1) }
    };
    let pass = |protocol, routing: rule::Routing, state| rule::Rule::Pass {
        direction: routing.reply_to.map(|_| Direction::In),
        log: routing.reply_to.is_some(),
        quick: routing.reply_to.is_none(),
        routing,
        matches: matches(protocol, "80-90"),
        tagged: Some("kport:web".parse().unwrap()),
        state,
        labels: ["kport:web".parse().unwrap(), "kport:web:tcp:80-90".parse().unwrap()],
    };
    let nat = |tagged, source| rule::Rule::Nat { matches: matches(Protocol::Tcp, "80"), tagged, source };
    let rules = [
        nat(None, Address::Interface("bridge0".parse().unwrap())),
        nat(Some("kport:web".parse().unwrap()), Address::First("em0".parse().unwrap())),
        nat(None, Address::First("wan".parse().unwrap())),
        rule::Rule::Rdr {
            matches: matches(Protocol::Udp, "80"),
            tag: "kport:web".parse().unwrap(),
            target: "10.0.0.2".parse().unwrap(),
            ports: "8080".parse().unwrap(),
        },
        rule::Rule::Rdr {
            matches: matches(Protocol::Sctp, "80-90"),
            tag: "kport:web".parse().unwrap(),
            target: "10.0.0.2".parse().unwrap(),
            ports: "8080-8090".parse().unwrap(),
        },
        pass(Protocol::Tcp, hop(Some("192.0.2.254")), state),
        pass(Protocol::Tcp, hop(None), StateOptions::default()),
        pass(Protocol::Udp, rule::Routing::default(), StateOptions::default()),
    ];
    let af_to = |protocol, port: Option<u16>, state| rule::Rule::AfTo {
        log: port == Some(80),
        quick: port.is_none(),
        matches: Match {
            on: vec!["em0".parse().unwrap()],
            family: Family::Inet6,
            protocol,
            from: vec![Address::Any, Address::Network("2001:db8::/32".parse().unwrap())],
            to: vec![Address::Interface("em0".parse().unwrap())],
            ports: "8080-8081".parse().unwrap(),
        },
        address_of: "bridge0".parse().unwrap(),
        target: "10.0.0.2".parse().unwrap(),
        port,
        state,
        labels: ["kport:web".parse().unwrap(), "kport:web:tcp:8080".parse().unwrap()],
    };
    let rules = rules
        .into_iter()
        .chain([af_to(Protocol::Tcp, Some(80), state), af_to(Protocol::Udp, None, StateOptions::default())]);
    let rules: Vec<_> = rules.collect();
    // pf.conf(5) does not allow any in a list with other addresses
    for rule in rules.iter().flat_map(rule::Rule::expand) {
        let conf: Conf = rule.to_string().parse().unwrap();
        assert_eq!(flat(&[rule]), conf.rules());
    }
}

const TRANSLATIONS: &str = "\
nat on em0 inet from 10.0.0.0/24 to any -> (em0) round-robin
nat-anchor \"kport/*\" all {
  nat-anchor \"db\" all {
rdr on em0 inet proto tcp from any to (em0) port = 5432 tag kport:db -> 10.0.0.3 port 5432
  }
  nat-anchor \"web\" all {
nat on bridge0 inet proto tcp from (bridge0:network) to 10.0.0.2 port = 80 -> (bridge0) round-robin
rdr on em0 inet proto tcp from any to (em0) port = 8080 tag kport:web -> 10.0.0.2 port 80
  }
}
rdr-anchor \"kport/*\" all {
  nat-anchor \"db\" all {
rdr on em0 inet proto tcp from any to (em0) port = 5432 tag kport:db -> 10.0.0.3 port 5432
  }
}
";

fn children(shown: &str) -> Option<ByChild> {
    let mut children = Children::default();
    shown.lines().for_each(|line| children.line(line));
    children.finish()
}

fn counts(shown: &str) -> Option<Vec<(String, usize)>> {
    Some(children(shown)?.into_iter().map(|(child, lines)| (child, lines.len())).collect())
}

#[test]
fn anchors_are_counted_once() {
    let expected = Some(vec![("db".to_owned(), 1), ("web".to_owned(), 2)]);
    assert_eq!(counts(TRANSLATIONS), expected);
    // 14
    assert_eq!(counts(&TRANSLATIONS.replace("kport/*", "kport")), expected);
    assert_eq!(counts(&TRANSLATIONS.replace("nat-anchor \"kport", "nat-anchor \"/kport")), expected);
    assert_eq!(counts("rdr-anchor \"kport/*\" on em0 all {\n}\n"), Some(vec![]));
    for none in ["", "nat-anchor \"kport/*\" all\n", "rdr-anchor \"rdr/*\" all {\n  nat-anchor \"web\" all {\n  }\n}\n"]
    {
        assert_eq!(counts(none), None, "{none}");
    }
    // cut off
    assert_eq!(counts(&TRANSLATIONS[..300]), None);
}

#[test]
fn counters_are_those_of_the_rule_above() {
    let shown = "\
block drop in log all
  [ Evaluations: 99        Packets: 98        Bytes: 97          States: 96    ]
anchor \"f2b/*\" all {
anchor \"x\" all {
pass all flags S/SA keep state
}
}
anchor \"kport/*\" all {
  [ Evaluations: 10        Packets: 0         Bytes: 0           States: 0     ]
  [ Inserted: uid 0 pid 7 State Creations: 0     ]
anchor \"web\" all {
pass quick inet proto tcp from any to 10.0.0.2 port = 80 flags S/SA keep state label \"kport:web\"
  [ Evaluations: 3         Packets: 7         Bytes: 800         States: 1     ]
  [ Source Nodes: 0      Limit: 0        NAT/RDR: 0        Route: 0     ]
  [ Inserted: uid 0 pid 8 State Creations: 2     ]
anchor \"of-an-admin\" all {
pass all flags S/SA keep state
}
pass on bridge inet proto tcp from any to 10.0.0.2 port = 80 flags S/SA keep state label \"kport:web\"
}
}
";
    let found = children(shown).unwrap();
    let [(child, lines)] = &found[..] else { panic!("{found:?}") };
    let first = Counters { packets: 7, bytes: 800, states: 2 };
    let counters: Vec<_> = lines.iter().map(|(_, counters)| *counters).collect();
    assert_eq!((child.as_str(), &counters[..]), ("web", &[first, Counters::default(), Counters::default()][..]));
    let texts = lines.iter().map(|(text, _)| text.as_str());
    assert!(texts.eq(shown.lines().filter(|line| line.contains("kport:web") || line.contains("of-an-admin"))));
}

proptest! {
    #[test]
    fn whatever_is_printed_is_read(text in "[ab{} \\[\\]\"/*\n]{0,200}") {
        _ = children(&format!("anchor \"kport/*\" all {{\n{text}"));
    }
}

#[test]
fn the_keywords_are_sorted() {
    assert!(names::KEYWORDS.is_sorted());
    assert!(["af-to", "user", "no"].into_iter().all(names::is_keyword) && !names::is_keyword("http"));
}

#[test]
fn names_and_numbers() {
    use names::{flag_letters, flags, icmp_code, protocol, services, tos};
    assert_eq!((protocol("tcp"), protocol("103"), protocol("0"), protocol("x")), (Some(6), Some(103), None, None));
    assert_eq!((flags("SA"), flags("X"), flag_letters(0x12)), (Some(0x12), None, "SA".to_owned()));
    assert_eq!((icmp_code(3, "port-unr", false), icmp_code(1, "port-unr", true)), (Some(3), Some(4)));
    let services = services("# x\nkpasswd 464/tcp kpwd # change\nnone\n\nkpwd 1/udp\n");
    assert_eq!(services, [("kpasswd".to_owned(), 464), ("kpwd".to_owned(), 464)].into());
    assert_eq!((tos("lowdelay"), tos("0x2c"), tos("300")), (Some(0x10), Some(0x2c), None));
}
