//! Rules as pfctl(8) prints them: the output reads as the same rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kport::net::{Direction, Family};
use kport::pfconf::address::{
    Compared, OfInterface, Operand, Operator, Part, Pool, PoolAddress, PoolKind, Ports, Side,
};
use kport::pfconf::rule::{Action, Keep, On, Origin, Owner, RouteKind, Rule};
use kport::pfconf::{Conf, RuleKind};
use proptest::prelude::*;

/// The ports of `nat` if none are given.
const PROXY_PORTS: (u16, u16) = (50_001, 65_535);

#[test]
fn strings_are_quoted() {
    for (text, shown) in [
        ("a_1", "a_1"),
        ("port", "\"port\""),
        ("", "\"\""),
        ("a-b", "\"a-b\""),
        ("a\"b", "\"a\\\"b\""),
        ("a\\\"b", "\"a\\\\\"b\""),
        ("\\ \\\t\\x '$x # {", "\"\\\\ \\\\\t\\x '$x # {\""),
        ("é", "\"é\""),
    ] {
        let conf: Conf = format!("pass no state label {shown}").parse().unwrap();
        assert_eq!(conf.rules()[0].labels, [text]);
        assert_eq!(conf.rules()[0].to_string(), format!("pass all no state label {shown}"));
    }
    // names of hosts and tables are also without quotes with a dot or a colon
    for (text, shown) in [("a-b.c:0", "a-b.c:0"), ("-a", "\"-a\""), ("a\\b", "\"a\\b\""), ("in", "\"in\"")] {
        assert_eq!(Operand::Named(text.to_owned()).to_string(), shown);
    }
    // it would escape the quote
    assert!("pass label \"a\\\\\n\"".parse::<Conf>().is_err());
}

/// Any string that can be written: no newline, no backslash at its end.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        "[ -~\té]{0,8}",
        prop::sample::select(vec!["port", "any", "all", "from", "no", "a\\\\ b", "$if\"", "'", "#", "0", "self", "on"])
            .prop_map(str::to_owned),
    ]
    .prop_filter("a backslash at its end", |text| !text.ends_with('\\'))
    .boxed()
}

fn name() -> BoxedStrategy<String> {
    prop_oneof![
        "[a-z][a-z0-9_.+-]{0,6}[0-9]",
        prop::sample::select(vec!["port", "any", "self", "em0"]).prop_map(str::to_owned)
    ]
    .boxed()
}

fn address(family: Family) -> BoxedStrategy<IpAddr> {
    any::<u128>()
        .prop_map(move |bits| match family {
            Family::Inet => IpAddr::from(Ipv4Addr::from(bits as u32)),
            Family::Inet6 => IpAddr::from(Ipv6Addr::from(bits)),
        })
        .boxed()
}

/// An address of a rule of this family, but not `any`.
fn operand(family: Family) -> BoxedStrategy<Operand> {
    let part = prop::sample::select(vec![Part::Address, Part::Network, Part::Broadcast, Part::Peer]);
    let bits = prop::option::of(0..=32_u8);
    prop_oneof![
        (address(family), 0..=32_u8).prop_map(|(address, bits)| Operand::Network(IpNet::new(address, bits).unwrap())),
        address(family).prop_map(|address| Operand::Network(IpNet::from(address))),
        (address(family), address(family)).prop_map(|(first, last)| Operand::Range(first, last)),
        (name(), part, any::<bool>(), any::<bool>(), bits).prop_map(|(name, part, first, dynamic, bits)| {
            Operand::Interface(OfInterface { name, part, first, dynamic, bits })
        }),
        text()
            .prop_filter("the name of a table", |name| (1..32).contains(&name.len()) && !name.contains(':'))
            .prop_map(Operand::Table),
        "[a-z]{1,4}\\.[a-z]{2,3}".prop_map(Operand::Named),
    ]
    .boxed()
}

fn number<N: Copy + Arbitrary<Strategy: 'static> + 'static>() -> BoxedStrategy<(Operator, N, N)> {
    let operators = [
        Operator::Between,
        Operator::Outside,
        Operator::Equal,
        Operator::NotEqual,
        Operator::Less,
        Operator::AtMost,
        Operator::Greater,
        Operator::AtLeast,
    ];
    (prop::sample::select(operators.to_vec()), any::<N>(), any::<N>()).boxed()
}

fn ports() -> BoxedStrategy<Ports> {
    (number::<u16>(), any::<bool>())
        .prop_map(|((operator, a, b), range)| {
            let (low, high) = (a.min(b), a.max(b));
            match operator {
                Operator::Between | Operator::Outside if low < high => {
                    Compared { operator: if range { Operator::Range } else { operator }, a: low, b: high }
                }
                Operator::Between | Operator::Outside => Compared { operator: Operator::Equal, a, b: 0 },
                _ => Compared { operator, a, b: 0 },
            }
        })
        .boxed()
}

fn owner() -> BoxedStrategy<Owner> {
    let operators = vec![Operator::Equal, Operator::NotEqual, Operator::Less, Operator::AtLeast];
    prop_oneof![
        number::<u32>().prop_map(|(operator, a, b)| {
            let two = matches!(operator, Operator::Between | Operator::Outside);
            Owner::number(Compared { operator, a, b: if two { b } else { 0 } })
        }),
        prop::sample::select(vec![Operator::Equal, Operator::NotEqual]).prop_map(|operator| Owner::number(Compared {
            operator,
            a: u32::MAX,
            b: 0
        })),
        (prop::sample::select(operators), text()).prop_filter_map("a name", |(operator, name)| {
            let named = name != "unknown" && name.parse::<u32>().is_err();
            named.then_some(Owner { operator, a: name, b: String::new() })
        }),
    ]
    .boxed()
}

fn side(family: Family) -> BoxedStrategy<Side> {
    let special = prop::sample::select(vec![Operand::NoRoute, Operand::UrpfFailed]);
    let address = prop_oneof![operand(family), special];
    (prop::option::of((any::<bool>(), address)), prop::option::of(ports()))
        .prop_map(|(address, ports)| {
            let (not, address) = address.unwrap_or((false, Operand::Any));
            Side { not, address, ports }
        })
        .boxed()
}

fn a_pool(family: Family, ports: BoxedStrategy<(u16, u16)>) -> BoxedStrategy<Pool> {
    let one = operand(family).prop_map(|address| PoolAddress { interface: None, address: Some(address) });
    let kinds = prop_oneof![
        prop::sample::select(vec![PoolKind::Single, PoolKind::Bitmask, PoolKind::Random, PoolKind::RoundRobin]),
        text().prop_map(PoolKind::SourceHash),
    ];
    (prop::collection::vec(one, 1..3), ports, kinds, any::<[bool; 3]>())
        .prop_map(|(addresses, ports, kind, [sticky, endpoint_independent, prefer_ipv6_nexthop])| {
            let several = |at: &PoolAddress| at.address.as_ref().is_some_and(Operand::is_several);
            let kind = match kind {
                PoolKind::Single if addresses.len() > 1 || addresses.iter().any(several) => PoolKind::RoundRobin,
                kind => kind,
            };
            Pool { addresses, ports, kind, sticky, endpoint_independent, prefer_ipv6_nexthop, ..Pool::default() }
        })
        .boxed()
}

/// Pools that change the source, and pools that change the destination.
fn sources(family: Family) -> BoxedStrategy<Pool> {
    let ports = prop_oneof![Just(PROXY_PORTS), (1..=u16::MAX).prop_map(|port| (port, port)), (0..9_u16, 9..=u16::MAX),];
    let statically = a_pool(family, Just((0, 0)).boxed()).prop_map(|pool| Pool { static_port: true, ..pool });
    prop_oneof![a_pool(family, ports.boxed()), statically].boxed()
}

fn targets(family: Family) -> BoxedStrategy<Pool> {
    a_pool(family, prop_oneof![any::<u16>().prop_map(|port| (port, 0)), (0..9_u16, 9..=u16::MAX)].boxed()).boxed()
}

/// The parts of a translation rule.
fn translation(family: Family) -> BoxedStrategy<Rule> {
    let kinds = prop_oneof![
        sources(family).prop_map(|pool| (RuleKind::Nat, Some(pool))),
        targets(family).prop_map(|pool| (RuleKind::Rdr, Some(pool))),
        prop::sample::select(vec![RuleKind::Nat, RuleKind::Rdr, RuleKind::Binat]).prop_map(|kind| (kind, None)),
    ];
    let actions = prop_oneof![
        (kinds, any::<bool>()).prop_map(|((kind, pool), pass)| {
            let pass = pass && pool.is_some();
            Action::Translate { kind, pool, pass }
        }),
        (prop::sample::select(vec![RuleKind::Nat, RuleKind::Rdr, RuleKind::Binat]), text())
            .prop_map(|(kind, called)| Action::Call(kind, called)),
    ];
    let on = prop::option::of((any::<bool>(), text().prop_filter("a name", |name| !name.is_empty())));
    let protocols = prop::option::of(1..=u8::MAX);
    (actions, on, protocols, side(family), side(family), prop::option::of(text()), any::<bool>())
        .prop_map(move |(action, on, protocol, from, to, tag, log)| {
            let mut rule = Rule::new(Origin::default(), action);
            (rule.log, rule.tag) = (log, tag.filter(|tag| !tag.contains('$')));
            rule.when.on = on.map(|(not, name)| On { not, name });
            (rule.when.family, rule.when.protocol) = (Some(family), protocol);
            (rule.when.from, rule.when.to) = (from, to);
            rule
        })
        .boxed()
}

/// The parts of a filter rule.
fn filter(family: Family) -> BoxedStrategy<Rule> {
    let actions = prop_oneof![
        Just(Action::Pass),
        Just(Action::Block),
        Just(Action::Match),
        "[a-z\"][ -~]{0,5}/x"
            .prop_filter("reserved", |name| !name.contains("/_"))
            .prop_map(|called| Action::Call(RuleKind::Filter, called)),
    ];
    let keep = (any::<[bool; 3]>(), any::<[u32; 4]>()).prop_map(|([some, synproxy, if_bound], limits)| {
        let [a, .., b] = limits;
        // pfctl refuses a rate of 0, and one in 0 seconds
        let max_src_conn_rate = if a > 0 && b > 0 { (a, b) } else { (0, 0) };
        let keep = Keep { synproxy, if_bound, limits, max_src_conn_rate };
        some.then_some(keep)
    });
    let flags = prop::option::of((0..0x200_u16, 1..0x200_u16));
    let icmp = prop::option::of((any::<u8>(), prop::option::of(any::<u8>())));
    let direction = prop::option::of(prop::sample::select(vec![Direction::In, Direction::Out]));
    let received = prop::option::of((any::<bool>(), text().prop_filter("a name", |name| !name.is_empty())));
    let owners = (prop::option::of(owner()), prop::option::of(owner()));
    let others = (prop::option::of(text()), prop::option::of(1..=u8::MAX), prop::option::of(any::<u8>()));
    let texts = (prop::collection::vec(text(), 0..3), prop::option::of((any::<bool>(), text())));
    let route = prop::option::of((prop::sample::select(vec![RouteKind::Packets, RouteKind::Replies]), text()));
    let pools = (prop::option::of(sources(family)), prop::option::of(targets(family)), route);
    let chance = prop::option::of(prop::sample::select(vec!["5%", ".5%", "0.25", "1e-3", "-1"]));
    let numbers = (any::<u16>(), prop::option::of(any::<u32>()), prop::option::of(any::<u16>()), any::<[bool; 3]>());
    (
        (translation(family), actions, direction, keep, flags, icmp),
        (received, owners, others, texts, pools, chance),
        numbers,
    )
        .prop_map(|((rule, action, direction, keep, flags, icmp), more, numbers)| {
            let (received, owners, (os, tos, prio), (labels, tagged), (nat_to, rdr_to, route), chance) = more;
            let (max_pkt_size, rtable, divert, [quick, fragment, once]) = numbers;
            let mut rule = Rule { action, labels, quick, once, ..rule };
            let when = &mut rule.when;
            (when.direction, when.fragment, when.os, when.tos, when.prio) = (direction, fragment, os, tos, prio);
            (when.user, when.group) = owners;
            when.received_on = received.map(|(not, name)| On { not, name });
            when.tagged = tagged.filter(|(_, tag)| !tag.contains('$'));
            when.probability = chance.map(str::to_owned);
            let tcp = when.protocol.is_none_or(|protocol| protocol == 6);
            when.flags = flags.filter(|_| tcp);
            when.icmp = icmp.filter(|_| matches!(when.protocol, Some(1 | 58)));
            let effects = &mut *rule.effects;
            (effects.max_pkt_size, effects.rtable) = (max_pkt_size, rtable);
            if !matches!(rule.action, Action::Call(..)) {
                let keep = keep.map(|keep| Keep { synproxy: keep.synproxy && tcp, ..keep });
                effects.keep = keep.filter(|_| rule.action == Action::Pass);
                (effects.nat_to, effects.rdr_to, effects.divert) = (nat_to, rdr_to, divert);
                effects.route = route.map(|(kind, interface)| {
                    let addresses = vec![PoolAddress { interface: Some(interface), address: None }];
                    (kind, Pool { addresses, ..Pool::default() })
                });
            } else {
                rule.once = false;
            }
            rule
        })
        .boxed()
}

fn rule() -> BoxedStrategy<Rule> {
    let families = prop::sample::select(vec![Family::Inet, Family::Inet6]);
    families.prop_flat_map(|family| prop_oneof![translation(family), filter(family)]).boxed()
}

/// One of these, and of `more` the parts of the text that are separated by " | ".
fn one_of(all: &'static str) -> BoxedStrategy<&'static str> {
    let all: Vec<&str> = all.split(" | ").map(|one| if one == "~" { "" } else { one }).collect();
    prop::sample::select(all).boxed()
}

/// A statement as people and programs write it, and as nobody does: what a lexer, a range and a name can be mistaken for.
fn statement() -> BoxedStrategy<String> {
    const STRINGS: &str = r##"em0 | lo | "a\"b" | 'a"b' | "port" | port | any | "any" | self | "self" | "a b" | "$x" | $x | $y | "a\ b" | "\\x" | "$if" | "a$nr" | "$srcaddr:$dstport" | "'" | '"' | "\"" | "\"\"" | "a\\"b" | "\	" | "#" | "é" | "{" | "" | 0 | 10 | 1.2.3.4 | "1.2.3.4" | <t> | "<t>" | egress | a.b | a-b | a\\b | "in" | "all" | "0x1" | unknown | "unknown" | "port 0" | {} | "! em0" | ! em0 | "tagged" | "none" | none | "_1" | _a"##;
    const ADDRESSES: &str = r##"any | 1.2.3.4 | 10/8 | 10.1/16 | 10.0.0.1/8 | 0/0 | 0.0.0.0/0 | ! 1.2.3.4 | 1.2.3.4/32 | 1.2.3.4 - 1.2.3.9 | 1.2.3.9 - 1.2.3.4 | ::1 - ::9 | em0 | (em0) | (em0:0) | em0:network | em0:0 | ! (em0) | (em0:network:0)/24 | em0/24 | em0:peer:0 | port | "port" | (port) | ("port") | "any" | "self" | self | (self) | self:network | <t> | ! <t> | <"port"> | <"a b"> | <"a\"b"> | <$x> | no-route | urpf-failed | ! no-route | ! any | ::1 | fe80::1%em0 | ::ffff:1.2.3.4 | ::/0 | 2001:db8::/32 | host.example | "host.example" | "a b" | { 1.2.3.4, ::1 } | { 1.2.3.4 ! 1.2.3.5 } | { em0 (em1) } | { any } | $x | "1.2.3.4" | "1.2.3.4/8" | "10"/8 | 5 | "" | "no-route" | all | "$nr" | -1 | a/b | to"##;
    const PORTS: &str = r##"~ | ~ | port 80 | port http | port "http" | port "80" | port 80:90 | port 90:80 | port 80:80 | port 0 | port 0:0 | port 0:5 | port 5 >< 5 | port 9 >< 5 | port 5 >< 9 | port 5 >< 6 | port 5 <> 9 | port 9 <> 5 | port 5 <> 5 | port > 80 | port >= 0 | port != 0 | port < 1 | port = 80 | port { 80, 90:91 } | port {80 >< 90, != 5} | port 80:* | port * | port 65535 | port 65536 | port "80:90" | port port | port "port""##;
    const MORE: &str = r##"~ | ~ | ~ | keep state | no state | keep state (max 0) | keep state (max 5, if-bound) | synproxy state | modulate state (max-src-conn-rate 0/5) | (max-src-conn-rate 5/0) | keep state (max-src-conn-rate 5/1, overload <t> flush) | keep state (max-src-nodes 1) | fragment | flags S/SA | flags any | flags /SA | flags /S | flags S/S | flags SA/S | tos 0x10 | tos 0 | tos lowdelay | prio 0 | prio 7 | probability 5% | probability 0 | probability .5 | rtable 0 | rtable 1 | divert-to 1.2.3.4 port 0 | divert-to 1.2.3.4 port 5 | max-pkt-size 0 | max-pkt-size 5 | max-pkt-rate 0/0 | max-pkt-rate 5/1 | icmp-type echoreq | icmp-type 8 code 0 | icmp-type 0 | icmp6-type 128 | user root | user 0 | user 5 >< 3 | user 3 >< 5 | user 5 <> 5 | user != 0 | user unknown | user != unknown | user "unknown" | user > unknown | user { 1, 2 } | group 5:3 | group wheel | group "a b" | once | os "Windows" | received-on em0 | ! received-on any | set prio 5 | set tos 5 | allow-opts | dup-to em1 | route-to em1 | route-to (em1 1.2.3.4) | reply-to (em1 1.2.3.4) | reply-to { em1, (em2 1.2.3.4) } round-robin | route-to ("port" em0:peer) | nat-to 1.2.3.4 | nat-to 1.2.3.4 port 0 | nat-to (em0) port 5:3 | nat-to em0 static-port | rdr-to 1.2.3.4 port 0 | rdr-to 1.2.3.4 port 80:* | rdr-to { 1.2.3.4, 1.2.3.5 } random sticky-address | rdr-to 1.2.3.0/24 bitmask | rdr-to 1.2.3.0/24 source-hash "a\"b" | rdr-to 1.2.3.0/24 source-hash 0x1 | binat-to 1.2.3.4 | af-to inet from 1.2.3.4 | af-to inet6 from ::1 to ::2"##;
    const POOLS: &str = r##"~ | ~ | port 0 | port 0:0 | port 0:5 | port 80 | port 80:90 | port 90:80 | port 80:80 | port http | port 9000:* | port 0:* | static-port | bitmask | random | random sticky-address | source-hash | source-hash "a b" | source-hash port | round-robin | endpoint-independent | port 50001:65535 | port 1:0 | map-e-portset 6/8/0x34 | map-e-portset 0/0/0"##;
    const ONLY: &str = r##"~ | in | out | log | quick | in quick | log (all, to pflog1) | log (user)"##;
    const FAMILY: &str = r##"~ | ~ | inet | inet6 | proto tcp | inet proto udp | proto { tcp udp } | proto 0 | proto 255 | proto "tcp" | proto icmp | inet6 proto icmp6 | proto port | inet proto 58"##;
    let on = prop_oneof![Just(String::new()), one_of(STRINGS).prop_map(|name| format!("on {name}"))];
    let side = |word: &'static str| {
        (one_of(ADDRESSES), one_of(PORTS)).prop_map(move |(address, ports)| format!("{word} {address} {ports}"))
    };
    let sides = prop_oneof![
        Just("all".to_owned()),
        Just(String::new()),
        (side("from"), side("to")).prop_map(|(from, to)| format!("{from} {to}")),
        side("to"),
        side("from"),
        one_of(PORTS).prop_map(|ports| format!("to {ports}")),
    ];
    let named = prop_oneof![
        Just(String::new()),
        (one_of("label | tag | tagged | ! tagged | ridentifier"), one_of(STRINGS))
            .prop_map(|(word, text)| format!("{word} {text}")),
    ];
    let start = (one_of(ONLY), on, one_of(FAMILY), sides)
        .prop_map(|(only, on, family, sides)| format!("{only} {on} {family} {sides}"));
    let filter = (
        one_of("pass | block | match | block return | block return-icmp(port-unr)"),
        start.clone(),
        named.clone(),
        one_of(MORE),
        named.clone(),
    );
    let filter =
        filter.prop_map(|(action, start, first, more, last)| format!("{action} {start} {first} {more} {last}"));
    let translation = (
        one_of("nat | rdr | binat | no nat | no rdr | nat pass | rdr pass log"),
        start.clone(),
        named,
        one_of(ADDRESSES),
        one_of(POOLS),
    );
    let translation = translation.prop_map(|(action, start, named, address, pool)| match action.starts_with("no") {
        true => format!("{action} {start} {named}"),
        false => format!("{action} {start} {named} -> {address} {pool}"),
    });
    let call = (
        one_of("nat-anchor | rdr-anchor | binat-anchor | anchor"),
        one_of(STRINGS),
        one_of("~ | /* | /b"),
        start.clone(),
    );
    let call = call.prop_map(|(word, name, below, start)| match name.strip_suffix('"') {
        Some(name) => format!("{word} {name}{below}\" {start}"),
        None => format!("{word} {name}{below} {start}"),
    });
    let braces = (one_of(STRINGS), start.clone(), filter.clone())
        .prop_map(|(name, start, rule)| format!("anchor {name} {start} {{\n{rule}\n}}"));
    let table = (one_of(STRINGS), one_of("~ | persist | const"), prop::collection::vec(one_of(ADDRESSES), 0..3));
    let table =
        table.prop_map(|(name, option, entries)| format!("table <{name}> {option} {{ {} }}", entries.join(" ")));
    let option = prop_oneof![
        one_of(STRINGS).prop_map(|name| format!("set skip on {name}")),
        one_of(STRINGS).prop_map(|name| format!("set skip on {{ {name} lo }}")),
        one_of("set syncookies always | set state-policy if-bound | set state-defaults no-sync | set state-defaults max 5, if-bound | x = \"1.2.3.4\" | y = \"port\" | x = \"{ 80, 90 }\" | antispoof for em0 inet | antispoof quick for { em0 (lo0) } | antispoof for \"port\" | scrub in all | ether pass in on em0 label \"a\\\"b\"").prop_map(str::to_owned),
    ];
    let antispoof = one_of(STRINGS).prop_map(|name| format!("antispoof for {name}"));
    prop_oneof![6 => filter, 6 => translation, 2 => call, 1 => braces, 2 => table, 2 => option, 1 => antispoof].boxed()
}

/// A file that reads, of statements each of which does.
fn file() -> BoxedStrategy<String> {
    let reads = |text: &String| format!("x = \"1.2.3.4\"\ny = \"a\"\n{text}\n").parse::<Conf>().is_ok();
    let all = move |texts: Vec<String>| {
        let read: Vec<String> = texts.into_iter().filter(|text| reads(text)).collect();
        format!("x = \"1.2.3.4\"\ny = \"a\"\n{}\n", read.join("\n"))
    };
    prop::collection::vec(statement(), 1..6).prop_map(all).boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..Default::default() })]

    /// For any rule: the printed text reads as the same rule, and only that rule.
    #[test]
    fn a_rule_is_read_as_it_is_printed(rule in rule()) {
        let shown = rule.to_string();
        let conf: Conf = shown.parse().unwrap_or_else(|error| panic!("{error}\n{rule:?}"));
        prop_assert_eq!(conf.rules(), &[rule][..], "{}", shown);
    }

    /// And for any file: what is not refused is printed as the same rules, tables and settings.
    #[test]
    fn a_file_is_read_as_it_is_printed(text in file()) {
        let Ok(conf) = text.parse::<Conf>() else { return Ok(()) };
        let shown = conf.to_string();
        let again: Conf = shown.parse().unwrap_or_else(|error| panic!("{error}\n{text}\n{shown}"));
        prop_assert_eq!(&again, &conf, "{}\n{}", text, shown);
    }
}
