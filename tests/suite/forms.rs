//! Each form that a rule of pf.conf(5) can have, and which packets arrive with it. The host is that of [`support::world`](crate::support::world).

use kport::host::Listener;
use kport::net::{Family, PerFamily, Protocol};
use kport::pfconf::Conf;
use kport::trace::{IpProtocol, Packet, Release, Trace, Verdict, World};
use proptest::prelude::*;

use crate::support::world::{ANCHORS, host, party, publish};

/// `em0 tcp 192.0.2.100 10.0.0.2:80`: the sender, the protocol or an ICMP type, from, to.
fn ask(world: &World, question: &str) -> Trace {
    let [who, protocol, from, to] = question.split(' ').collect::<Vec<_>>()[..] else { panic!("{question}") };
    let from = match from.parse() {
        Ok(address) => std::net::SocketAddr::new(address, 40_000),
        Err(_) => from.parse().unwrap(),
    };
    let to = to.parse().unwrap_or_else(|_| std::net::SocketAddr::new(to.parse().unwrap(), 0));
    let packet = match protocol.parse::<IpProtocol>() {
        Ok(protocol) => Packet::first(protocol, from, to),
        Err(_) => Packet::icmp(kport::pfconf::icmp_type(protocol, to.is_ipv6()).unwrap(), 0, from, to),
    };
    world.clone().trace_packet(&party(who), &packet)
}

fn of(release: Release, main: &str) -> World {
    let mut world = host(release);
    world.load_text("", main).unwrap_or_else(|error| panic!("{error}"));
    world
}

fn told(trace: &Trace) -> String {
    let verdict = format!("{:?}", trace.verdict).to_lowercase();
    let at = |(party, at): &(kport::trace::Party, std::net::SocketAddr)| match party {
        kport::trace::Party::Host => format!(" host {at}"),
        kport::trace::Party::Jail(name) => format!(" {name} {at}"),
        kport::trace::Party::Network(interface) => format!(" {interface} {at}"),
    };
    verdict + &trace.possible.iter().map(at).collect::<String>()
}

/// What arrives, the same with 14 and 15.
fn check(main: &str, questions: &[(&str, &str)]) {
    for release in [Release::V14, Release::V15] {
        check_with(&of(release, main), main, questions);
    }
}

fn check_with(world: &World, main: &str, questions: &[(&str, &str)]) {
    for (question, expected) in questions {
        let trace = ask(world, question);
        assert_eq!(told(&trace), *expected, "{main}\n{question}\n{trace}");
    }
}

const WEB: &str = "em0 tcp 192.0.2.100 10.0.0.2:80";
const REACHED: &str = "answered web 10.0.0.2:80";

#[test]
fn block_and_pass() {
    check("block all", &[(WEB, "lost")]);
    check("block all\npass all", &[(WEB, REACHED)]);
    check("pass quick all\nblock all", &[(WEB, REACHED)]);
    check("block return quick all\npass all", &[(WEB, "lost")]);
    check("set block-policy return\nset optimization aggressive\nblock all", &[(WEB, "lost")]);
    check("", &[(WEB, REACHED)]);
}

#[test]
fn interfaces() {
    check("block in on em0\n", &[(WEB, "lost"), ("other tcp 10.1.0.2 10.0.0.2:80", REACHED)]);
    check("block in on ! em0\n", &[(WEB, "unanswered web 10.0.0.2:80"), ("other tcp 10.1.0.2 10.0.0.2:80", "lost")]);
    check("block in on bridge\n", &[(WEB, "unanswered web 10.0.0.2:80"), ("other tcp 10.1.0.2 10.0.0.2:80", "lost")]);
    check("block in on any\n", &[(WEB, "lost"), ("host tcp 127.0.0.1 127.0.0.1:80", "answered host 127.0.0.1:80")]);
    check("block in on { em0 em1 }\n", &[(WEB, "lost")]);
    check("set skip on { em0 bridge }\nblock all", &[(WEB, REACHED)]);
    check(
        "block out on bridge0\npass out on bridge0 received-on em0\n",
        &[(WEB, REACHED), ("other tcp 10.1.0.2 10.0.0.2:80", "lost")],
    );
    check("block out on bridge0 ! received-on em0\n", &[(WEB, REACHED), ("other tcp 10.1.0.2 10.0.0.2:80", "lost")]);
    // what the host sends was not received on an interface
    check("block out received-on lo0\n", &[("host tcp 10.0.0.1 10.0.0.2:80", REACHED)]);
}

#[test]
fn addresses() {
    let blocked = |rule: &str| format!("block in on em0 {rule}");
    for (rule, expected) in [
        ("from 192.0.2.0/24", "lost"),
        ("from 192.0.2/24", "lost"),
        ("from 192.0.2.96 - 192.0.2.101", "lost"),
        ("from 192.0.2.1 - 192.0.2.99", REACHED),
        ("from ! 192.0.2.100", REACHED),
        ("from { 198.51.100.1, 192.0.2.100 }", "lost"),
        ("inet6 all", REACHED),
        ("from em0:network", "lost"),
        ("from (em0:network)", "lost"),
        ("from (em0:network:0)", "lost"),
        ("from (em0)/24", "lost"),
        ("from em0", REACHED),
        // pfctl makes a rule of each of its addresses, and the packet is not from the other
        ("from ! em0", "lost"),
        ("from ! (em0)", "lost"),
        ("from ! (em0:network)", REACHED),
        ("from (bridge:network)", REACHED),
        ("to (bridge:network)", "lost"),
        ("to ! (self:network)", REACHED),
        ("from em0:broadcast", REACHED),
        ("from em0:peer", "depends web 10.0.0.2:80"),
        ("from no-route", REACHED),
        ("from urpf-failed", REACHED),
        ("from www.example.org", "depends web 10.0.0.2:80"),
    ] {
        check(&blocked(rule), &[(WEB, expected)]);
    }
    // its route leads elsewhere
    check("block in from urpf-failed", &[("em0 tcp 10.1.0.9 10.0.0.2:80", "lost")]);
    let mut world = of(Release::V15, "block in from no-route");
    world.lookup.gateway = PerFamily::default();
    check_with(&world, "", &[("em0 tcp 203.0.113.9 10.0.0.2:80", "lost"), (WEB, REACHED)]);
}

#[test]
fn ports() {
    for (ports, blocked) in [
        ("80", true),
        ("http", true),
        ("80:90", true),
        ("81:90", false),
        ("!= 80", false),
        ("< 80", false),
        ("<= 80", true),
        ("> 79", true),
        (">= 81", false),
        ("79 >< 81", true),
        ("80 >< 90", false),
        ("79 <> 80", false),
        ("1 <> 79", true),
        ("{ 22, 80 }", true),
        ("0x50", true),
    ] {
        let main = format!("block in on em0 proto tcp to port {ports}");
        check(&main, &[(WEB, if blocked { "lost" } else { REACHED })]);
    }
    check("block in proto tcp from port 40000", &[(WEB, "lost")]);
    check("block in proto udp", &[(WEB, REACHED)]);
    check("block in proto { tcp udp }", &[(WEB, "lost")]);
    check("block in proto 6", &[(WEB, "lost")]);
}

#[test]
fn tables() {
    let main = "table <t> { 192.0.2.0/24, ! 192.0.2.96/28, 192.0.2.101 }\nblock in from <t>";
    check(
        main,
        &[(WEB, REACHED), ("em0 tcp 192.0.2.5 10.0.0.2:80", "lost"), ("em0 tcp 192.0.2.101 10.0.0.2:80", "lost")],
    );
    check("block in from ! <t>", &[(WEB, "lost")]);
    check("table <t> persist counters { em0:network }\nblock in from <t>", &[(WEB, "lost")]);
    check(
        "table <__automatic_a2508139_0> const { 192.0.2.100 }\nblock in from <__automatic_a2508139_0>",
        &[(WEB, "lost")],
    );
    // an anchor's own table comes before that of the main ruleset
    let mut world = of(Release::V15, "table <t> { 192.0.2.100 }\nanchor \"a\"\nanchor \"b\"");
    world.load_text("a", "table <t> { 198.51.100.1 }\nblock in from <t>").unwrap();
    check_with(&world, "", &[(WEB, REACHED)]);
    world.load_text("b", "block in from <t>").unwrap();
    check_with(&world, "", &[(WEB, "lost")]);
}

#[test]
fn antispoof() {
    let main = "antispoof quick for { em0 lo0 }\npass all";
    check(
        main,
        &[
            (WEB, REACHED),
            ("bridge1 tcp 192.0.2.100 10.0.0.2:80", "lost"),
            ("em0 tcp 192.0.2.7 10.0.0.2:80", "lost"),
            ("em0 tcp 192.0.2.1 10.0.0.2:80", "lost"),
        ],
    );
    check("antispoof for (em0) inet", &[("bridge1 tcp 192.0.2.100 10.0.0.2:80", "lost"), (WEB, REACHED)]);
}

#[test]
fn flags_and_states() {
    // only the packet that starts a connection, and those of its state
    check("block all\npass in on em0 proto tcp flags S/SA\npass out", &[(WEB, REACHED)]);
    check("block all\npass in on em0 proto tcp flags S/FSRPAUEW\npass out", &[(WEB, REACHED)]);
    check("block all\npass in on em0 proto tcp flags A/A\npass out", &[(WEB, "lost")]);
    check("block all\npass in on em0 proto tcp flags /R\npass out", &[(WEB, REACHED)]);
    check("block all\npass in on em0 no state\npass out", &[(WEB, "unanswered web 10.0.0.2:80")]);
    check("block all\npass no state", &[(WEB, REACHED)]);
    for state in ["keep", "modulate", "synproxy"] {
        check(&format!("block all\npass in on em0 proto tcp {state} state\npass out"), &[(WEB, REACHED)]);
    }
    for options in ["sloppy", "no-sync", "floating", "if-bound", "pflow", "tcp.established 60", "source-track rule"] {
        check(&format!("block all\npass in on em0 keep state ({options})\npass out"), &[(WEB, REACHED)]);
    }
    check("set state-policy if-bound\nblock all\npass in on em0 keep state (floating)\npass out", &[(WEB, REACHED)]);
    let main = "table <bad> persist\npass in proto tcp keep state (max-src-conn 10, max-src-conn-rate 3/9, overload <bad> flush global)";
    check(main, &[(WEB, REACHED)]);
    let mut world = of(Release::V15, "set state-defaults max 1\npass all");
    let first =
        world.trace(&party("em0"), Protocol::Tcp, "192.0.2.100:1".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    let second =
        world.trace(&party("em0"), Protocol::Tcp, "192.0.2.100:2".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
    assert_eq!(
        (told(&first).as_str(), told(&second).as_str()),
        ("lost", "lost"),
        "in and out are two states of one rule"
    );
}

#[test]
fn tags() {
    let main = "block all\npass in on em0 tag outside\npass out tagged outside\n";
    check(main, &[(WEB, REACHED), ("host tcp 10.0.0.1 10.0.0.2:80", "lost")]);
    check("block out ! tagged outside\npass in on em0 tag \"outside\"\n", &[(WEB, REACHED)]);
    // a tag remains even if a later rule decides, and match sets one too
    check("block out on bridge0\nmatch in on em0 tag a\npass out tagged a", &[(WEB, REACHED)]);
    // pfctl replaces these by the values of the rule
    check("block all\npass in on em0 tag \"from $if\"\npass out tagged \"from em0\"", &[(WEB, REACHED)]);
}

#[test]
fn what_cannot_be_decided() {
    // both outcomes are followed, and only a difference makes the answer depend
    for condition in ["probability 20%", "prio 3", "tos lowdelay", "os \"Linux\"", "user 80", "group { 1 2 }"] {
        let proto = "proto tcp";
        let only = format!("block in on em0 {proto} all {condition}");
        // a packet that is only forwarded has no socket on the host, so its owner is unknown
        let forwarded = if condition.contains("er 80") || condition.contains("group") {
            REACHED
        } else {
            "depends web 10.0.0.2:80"
        };
        let mut world = of(Release::V15, &only);
        world.lookup.listeners = Some(vec![]);
        check_with(&world, &only, &[(WEB, forwarded), ("em0 udp 192.0.2.100 10.0.0.2:80", REACHED)]);
        check(&format!("{only}\npass quick all"), &[(WEB, REACHED)]);
        check(&format!("pass quick in on em0\n{only}"), &[(WEB, REACHED)]);
        check(&format!("block in on em0 all\n{only}"), &[(WEB, "lost")]);
    }
    let depends = of(Release::V15, "pass all\nblock in proto tcp os \"Linux\"");
    let trace = ask(&depends, WEB);
    assert_eq!(trace.verdict, Verdict::Depends);
    assert_eq!(trace.depends_on, ["whether the sender's operating system is Linux"], "{trace}");
    // the same condition has the same answer in every rule
    let main = "block in on em0 proto tcp tos 0x10\npass in on em0 proto tcp tos 0x10\n";
    check(main, &[(WEB, REACHED)]);
    // probability does not
    check("block in on em0 probability 10%\npass in on em0 probability 10%", &[(WEB, "depends web 10.0.0.2:80")]);
    // many of them cost no more than their outcomes
    let many = "block in on em0 probability 1%\npass in on em0 probability 1%\n".repeat(200);
    check(&many, &[(WEB, "depends web 10.0.0.2:80")]);
    check(&format!("{many}block quick all"), &[(WEB, "lost")]);
}

#[test]
fn owners_of_sockets() {
    let mut world = of(Release::V15, "block in on em0 proto { tcp udp } user != unknown");
    let listener =
        |port| Listener { protocol: Protocol::Tcp, families: PerFamily::only(Family::Inet), address: None, port };
    world.lookup.listeners = Some(vec![listener(22)]);
    check_with(
        &world,
        "",
        &[
            ("em0 tcp 192.0.2.100 192.0.2.1:22", "lost"),
            ("em0 tcp 192.0.2.100 192.0.2.1:23", "refused host 192.0.2.1:23"),
        ],
    );
    world.load_text("", "block in on em0 proto tcp user 80").unwrap();
    check_with(
        &world,
        "",
        &[
            ("em0 tcp 192.0.2.100 192.0.2.1:22", "depends host 192.0.2.1:22"),
            ("em0 tcp 192.0.2.100 192.0.2.1:23", "refused host 192.0.2.1:23"),
        ],
    );
}

#[test]
fn icmp() {
    let ping = "em0 icmp 192.0.2.100 10.0.0.2";
    check("block all\npass inet proto icmp", &[(ping, "answered web 10.0.0.2:8"), (WEB, "lost")]);
    check("block all\npass proto icmp all icmp-type echoreq", &[(ping, "answered web 10.0.0.2:8")]);
    check("block all\npass proto icmp all icmp-type { unreach code port-unr, timex }", &[(ping, "lost")]);
    check("block proto icmp all icmp-type 8 code 1", &[(ping, "answered web 10.0.0.2:8")]);
    check(
        "block all\npass inet6 proto icmp6 all icmp6-type echoreq",
        &[("em0 icmp6 2001:db8::100 fd00::2", "answered web [fd00::2]:128"), (ping, "lost")],
    );
    // an answer without a connection belongs to no state
    check("block all\npass in proto icmp icmp-type echoreq", &[("em0 echorep 192.0.2.100 10.0.0.2", "lost")]);
    check("pass all", &[("em0 timex 192.0.2.100 10.0.0.2", "delivered web 10.0.0.2:11")]);
    // through nat by its id
    check(
        "nat on em0 inet from 10.0.0.0/24 to any -> (em0)",
        &[("web icmp 10.0.0.2 203.0.113.9", "answered em0 203.0.113.9:8")],
    );
}

/// The error about a packet passes with its state, translated as the packet was; another does not.
#[test]
fn icmp_errors_of_a_state() {
    let main = "block all\nrdr on em0 proto udp to port 53 -> 192.0.2.7\npass in on em0 proto udp keep state\n";
    let mut world = of(Release::V15, main);
    world.lookup.listeners = Some(vec![]);
    let trace = ask(&world, "em0 udp 192.0.2.100 192.0.2.1:53");
    assert_eq!(told(&trace), "refused host 192.0.2.7:53", "{trace}");
    let shown = trace.to_string();
    assert!(shown.contains("icmp unreach 192.0.2.7 -> 192.0.2.100 from the host"), "{shown}");
    assert!(shown.contains("now icmp unreach 192.0.2.1 -> 192.0.2.100"), "{shown}");
    assert!(shown.contains("delivered to the network behind em0 at 192.0.2.100"), "{shown}");
    // no state, no error
    world.load_text("", "block all\npass in on em0 proto udp no state\n").unwrap();
    let shown = ask(&world, "em0 udp 192.0.2.100 192.0.2.1:53").to_string();
    assert!(!shown.contains("delivered to the network"), "{shown}");
}

#[test]
fn translation() {
    let to_host = "em0 tcp 192.0.2.100 192.0.2.1:8080";
    check("rdr on em0 proto tcp to port 8080 -> 10.0.0.2 port 80", &[(to_host, REACHED)]);
    check("rdr pass on em0 proto tcp to port 8080 -> 10.0.0.2 port 80\nblock in on em0", &[(to_host, REACHED)]);
    check("rdr on em0 proto tcp to port { 80, 8080 } -> 10.0.0.2 port 80", &[(to_host, REACHED)]);
    check(
        "rdr on em0 proto tcp to port 8000:9000 -> 10.0.0.2 port 10000:*",
        &[(to_host, "answered web 10.0.0.2:10080")],
    );
    check("rdr on em0 proto tcp to port 8000:9000 -> 10.0.0.2", &[(to_host, "answered web 10.0.0.2:8080")]);
    check("rdr on em0 proto tcp to port > 8000 -> 10.0.0.2 port 80", &[(to_host, REACHED)]);
    check(
        "no rdr on em0 proto tcp to port 8080\nrdr on em0 proto tcp -> 10.0.0.2 port 80",
        &[(to_host, "answered host 192.0.2.1:8080"), ("em0 tcp 192.0.2.100 192.0.2.1:81", REACHED)],
    );
    let out = "web tcp 10.0.0.2 203.0.113.9:80";
    let seen = |main: &str, from: &str| {
        for release in [Release::V14, Release::V15] {
            let trace = ask(&of(release, main), out);
            assert!(
                trace.verdict == Verdict::Answered && trace.to_string().contains(&format!("now tcp {from}")),
                "{main}\n{trace}"
            );
        }
    };
    seen("nat on em0 from 10.0.0.0/24 -> 192.0.2.7", "192.0.2.7:50001 ");
    seen("nat on em0 from 10.0.0.0/24 -> (em0:0) static-port", "192.0.2.1:40000 ");
    seen("nat on em0 from 10.0.0.0/24 -> 192.0.2.7 port 1024:2000", "192.0.2.7:1024 ");
    seen("nat pass on em0 from 10.0.0.0/24 -> 192.0.2.7\nblock out on em0", "192.0.2.7:50001 ");
    seen("nat on em0 from 10.0.0.0/24 -> 192.0.2.0/24 bitmask", "192.0.2.2:50001 ");
    seen("binat on em0 from 10.0.0.2 to any -> 192.0.2.7", "192.0.2.7:40000 ");
    seen("nat on em0 from any -> 192.0.2.7 map-e-portset 6/8/52", "192.0.2.7:1232 ");
    check("no nat on em0 from 10.0.0.2\nnat on em0 -> 192.0.2.7", &[(out, "answered em0 203.0.113.9:80")]);
    // and in the other direction
    check("binat on em0 from 10.0.0.2 to any -> 192.0.2.7", &[("em0 tcp 192.0.2.100 192.0.2.7:80", REACHED)]);
    check("binat on em0 from 10.0.0.0/28 to any -> 192.0.2.0/28", &[("em0 tcp 192.0.2.100 192.0.2.2:80", REACHED)]);
    check(
        "no binat on em0 from 10.0.0.2 to any\nbinat on em0 from 10.0.0.2 to any -> 192.0.2.7",
        &[("em0 tcp 192.0.2.100 192.0.2.7:80", "answered host 192.0.2.7:80")],
    );
}

/// Every address of a pool may be used; the verdict holds if it is the same for all.
#[test]
fn pools() {
    let to_host = "em0 tcp 192.0.2.100 192.0.2.1:80";
    for kind in ["", "round-robin", "round-robin sticky-address"] {
        let main = format!("rdr on em0 proto tcp to port 80 -> {{ 10.0.0.2, 10.0.0.3 }} {kind}");
        check(&main, &[(to_host, "answered web 10.0.0.2:80 app 10.0.0.3:80")]);
    }
    for kind in ["random", "source-hash", "source-hash 0x42424242424242424242424242424242"] {
        let main = format!("rdr on em0 proto tcp to port 80 -> 10.0.0.2/31 {kind}\nblock out to 10.0.0.3");
        check(&main, &[(to_host, "depends web 10.0.0.2:80")]);
        let all = format!("rdr on em0 proto tcp to port 80 -> 10.0.0.2/31 {kind}\nblock out on bridge0");
        check(&all, &[(to_host, "lost")]);
    }
    check(
        "table <t> { 10.0.0.2 10.0.0.3 }\nrdr on em0 proto tcp to port 80 -> <t>",
        &[(to_host, "answered web 10.0.0.2:80 app 10.0.0.3:80")],
    );
    check("nat on em0 -> (em0) round-robin", &[("web tcp 10.0.0.2 203.0.113.9:80", "answered em0 203.0.113.9:80")]);
}

/// pf does not change the ports of sctp: pf_get_transaddr in sys/netpfil/pf/pf_lb.c.
#[test]
fn the_ports_of_sctp_stay() {
    check(
        "rdr on em0 proto sctp to port 8080 -> 10.0.0.2 port 80",
        &[("em0 sctp 192.0.2.100 192.0.2.1:8080", "answered web 10.0.0.2:8080")],
    );
}

#[test]
fn translation_in_filter_rules() {
    let to_host = "em0 tcp 192.0.2.100 192.0.2.1:8080";
    let only_15 = |main: &str, questions: &[(&str, &str)]| check_with(&of(Release::V15, main), main, questions);
    only_15("pass in on em0 proto tcp to port 8080 rdr-to 10.0.0.2 port 80", &[(to_host, REACHED)]);
    only_15("match in on em0 proto tcp to port 8080 rdr-to 10.0.0.2 port 80\npass", &[(to_host, REACHED)]);
    // rules after a match rule see the translated packet
    only_15(
        "match in on em0 proto tcp to port 8080 rdr-to 10.0.0.2 port 80\nblock in to 10.0.0.2",
        &[(to_host, "lost")],
    );
    only_15(
        "match in on em0 proto tcp rdr-to 10.0.0.2\npass in on em0 proto tcp rdr-to 10.0.0.3",
        &[(to_host, "lost")],
    );
    let out = "web tcp 10.0.0.2 203.0.113.9:80";
    let trace = ask(&of(Release::V15, "pass out on em0 inet nat-to (em0:0)"), out);
    assert!(trace.verdict == Verdict::Answered && trace.to_string().contains("now tcp 192.0.2.1:50001"), "{trace}");
    let binat = "pass on em0 from 10.0.0.2 to any binat-to 192.0.2.7";
    only_15(binat, &[("em0 tcp 192.0.2.100 192.0.2.7:80", REACHED), (out, "answered em0 203.0.113.9:80")]);
    // one address for another: check_binat_redirspec in sbin/pfctl/parse.y
    for good in ["from (em0:0) binat-to 192.0.2.7", "from 10.0.0.2 binat-to (em0:0)"] {
        assert!(format!("pass {good}").parse::<Conf>().is_ok(), "{good}");
    }
    for bad in [
        "from (em0) binat-to 192.0.2.7",
        "from (em0:network) binat-to 192.0.2.7",
        "from (bridge:0) binat-to 192.0.2.7",
        "from 10.0.0.2 binat-to (em0)",
        "from <t> binat-to 192.0.2.7",
    ] {
        assert!(format!("pass {bad}").parse::<Conf>().is_err(), "{bad}");
    }
}

#[test]
fn families() {
    let main = "pass in on bridge0 inet6 from any to 64:ff9b::/96 af-to inet from 192.0.2.7\n";
    let trace = ask(&of(Release::V15, main), "web tcp fd00::2 [64:ff9b::203.0.113.9]:80");
    assert_eq!(told(&trace), "answered em0 203.0.113.9:80", "{trace}");
    assert!(trace.to_string().contains("now tcp 192.0.2.7:50001 -> 203.0.113.9:80"), "{trace}");
    let trace = ask(&of(Release::V15, main), "web icmp6 fd00::2 64:ff9b::203.0.113.9");
    assert_eq!(told(&trace), "answered em0 203.0.113.9:8", "{trace}");
    let main = "pass in on em0 inet af-to inet6 from fd00::1 to fd00::2";
    let trace = ask(&of(Release::V15, main), "em0 tcp 192.0.2.100 192.0.2.1:80");
    assert_eq!(told(&trace), "answered web [fd00::2]:80", "{trace}");
}

#[test]
fn routing() {
    check(
        "pass in on em0 route-to (bridge1 10.1.0.2)",
        &[("em0 tcp 192.0.2.100 203.0.113.9:80", "answered bridge1 203.0.113.9:80")],
    );
    // pf evaluates the packet there too
    check(
        "pass in on em0 route-to (bridge1 10.1.0.2)\nblock out on bridge1",
        &[("em0 tcp 192.0.2.100 203.0.113.9:80", "lost")],
    );
    check(
        "pass out on em0 route-to (bridge1 10.1.0.2)",
        &[("web tcp 10.0.0.2 203.0.113.9:80", "answered bridge1 203.0.113.9:80")],
    );
    check(
        "pass in on em0 route-to { (bridge0 10.0.0.9), (bridge1 10.1.0.9) } round-robin",
        &[("em0 tcp 192.0.2.100 203.0.113.9:80", "answered bridge0 203.0.113.9:80 bridge1 203.0.113.9:80")],
    );
    check("pass in on em0 route-to (em9 192.0.2.9)", &[(WEB, "depends web 10.0.0.2:80")]);
    // the answers return by the interface that the packet came in on, whatever the routes are
    let trace = ask(
        &of(Release::V15, "pass in on bridge1 reply-to (bridge1 10.1.0.9)"),
        "bridge1 tcp 198.51.100.9 10.0.0.2:80",
    );
    assert!(trace.to_string().contains("sent out by bridge1, regardless of the routes"), "{trace}");
    let trace = ask(&of(Release::V15, "pass in on em0 dup-to (bridge1 10.1.0.2)"), WEB);
    assert!(told(&trace) == REACHED && trace.to_string().contains("a copy is sent out by bridge1"), "{trace}");
    // the routes of other tables are unknown; the host's own addresses need none
    check(
        "pass in on em0 rtable 1",
        &[(WEB, "depends"), ("em0 tcp 192.0.2.100 192.0.2.1:22", "answered host 192.0.2.1:22")],
    );
    check(
        "pass in on em0 proto tcp divert-to 8080",
        &[(WEB, "depends web 10.0.0.2:80"), ("em0 udp 192.0.2.100 10.0.0.2:53", "answered web 10.0.0.2:53")],
    );
}

#[test]
fn anchors() {
    // in braces, with conditions, nested
    check(
        "block all\nanchor in on em0 {\n  anchor \"x\" proto tcp {\n    pass tag t\n  }\n}\npass out tagged t",
        &[(WEB, REACHED), ("em0 udp 192.0.2.100 10.0.0.2:53", "lost")],
    );
    check("anchor out {\n block quick on bridge0\n}\npass all", &[(WEB, "lost")]);
    check("block all\nanchor {\n}\nanchor \"missing\"\npass all", &[(WEB, REACHED)]);
    for release in [Release::V14, Release::V15] {
        let mut world = of(release, "block all\nanchor \"tools/*\"\npass out");
        world.load_text("tools/a", "anchor \"b\" proto tcp\nanchor \"../c\"\nanchor \"/d\"").unwrap();
        check_with(&world, "", &[(WEB, "lost")]);
        world.load_text("tools/a/b", "pass in to port 81").unwrap();
        check_with(&world, "", &[(WEB, "lost"), ("em0 tcp 192.0.2.100 10.0.0.2:81", "answered web 10.0.0.2:81")]);
        world.load_text("tools/c", "pass in proto tcp to port 82").unwrap();
        world.load_text("d", "pass in proto tcp to port 83").unwrap();
        check_with(
            &world,
            "",
            &[
                ("em0 tcp 192.0.2.100 10.0.0.2:82", "answered web 10.0.0.2:82"),
                ("em0 tcp 192.0.2.100 10.0.0.2:83", "answered web 10.0.0.2:83"),
            ],
        );
        // one that calls itself ends
        world.load_text("d", "anchor \"/d\"\npass in proto tcp to port 83").unwrap();
        let trace = ask(&world, "em0 tcp 192.0.2.100 10.0.0.2:83");
        assert!(trace.looked.anchors < 200, "{:?}", trace.looked);
        // nat and rdr anchors, and binat
        let mut world = of(release, "rdr-anchor \"r\" on em0\nnat-anchor \"n/*\"\nbinat-anchor \"b\"");
        world.load_text("r", "rdr proto tcp to port 8080 -> 10.0.0.2 port 80").unwrap();
        world.load_text("b", "binat on em0 from 10.0.0.3 to any -> 192.0.2.7").unwrap();
        check_with(
            &world,
            "",
            &[
                ("em0 tcp 192.0.2.100 192.0.2.1:8080", REACHED),
                ("other tcp 10.1.0.2 192.0.2.1:8080", "answered host 192.0.2.1:8080"),
                ("em0 tcp 192.0.2.100 192.0.2.7:80", "answered app 10.0.0.3:80"),
            ],
        );
    }
}

/// A quick anchor ends the evaluation: with 14 if a rule in it matches, with 15 always (test_status in pf_match_rule).
#[test]
fn quick_anchors() {
    let main = "block all\nanchor quick {\n  pass in proto udp\n}\npass all";
    check_with(&of(Release::V14, main), main, &[(WEB, REACHED)]);
    check_with(&of(Release::V15, main), main, &[(WEB, "lost")]);
    check("block all\nanchor quick {\n  pass proto tcp\n}\nblock all", &[(WEB, REACHED)]);
}

#[test]
fn without_effect_on_arrival() {
    let main = "set limit { states 1000, frags 5 }\nset timeout tcp.first 6\nset loginterface em0\nset ruleset-optimization none\n\
        scrub in all fragment reassemble\nno scrub in on lo0\naltq on em0 cbq bandwidth 1Mb queue { a }\nqueue a bandwidth 60%\n\
        match in all scrub (no-df max-mss 1440) queue (a, b)\n\
        pass log (all, to pflog1) quick all label \"x $nr\" allow-opts set (prio 3, tos lowdelay) dnpipe (1, 2) ridentifier 7 max-pkt-rate 100/10\n";
    check(main, &[(WEB, REACHED)]);
    check("pass all max-pkt-size 100", &[(WEB, REACHED)]);
    check("block in all fragment", &[(WEB, REACHED)]);
    check("block in once proto udp\npass in once", &[(WEB, REACHED)]);
    let world = of(Release::V15, "ether block in on em0 from 00:01:02:03:04:05/24 l3 all\npass");
    assert!(world.notes[0].starts_with("rules about Ethernet frames are not evaluated: ether block in on em0"));
    check_with(&world, "", &[(WEB, REACHED)]);
}

#[test]
fn pf_conf_as_people_write_it() {
    let main = "ext_if = \"em0\"            # outside\nint_ifs = \"{\" bridge0 $ext_if \"}\"\nservices = \"{ ssh, \\\n http }\"\nweb=\"10.0.0.2\"\n\
        table <mine> const { $web, 10.0.0.3 }\n\
        set skip on lo0\n\
        block in log on $ext_if\npass in on $int_ifs proto tcp from ! ($ext_if:network) \\\n  to <mine> port $services\n\
        pass in on $ext_if proto tcp \\\n  from $ext_if:network to $web port 80 # a comment goes on too \\\n block out\npass out";
    check(
        main,
        &[
            (WEB, REACHED),
            ("em0 tcp 192.0.2.100 10.0.0.2:22", "lost"),
            ("em0 tcp 203.0.113.9 10.0.0.3:22", "answered app 10.0.0.3:22"),
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    write("included", "block in proto udp\n");
    write("addresses", "# friends\n192.0.2.96/28 ; other\n!192.0.2.101\n");
    write("anchor", "pass in quick proto tcp from <friends> to port 80\n");
    let text = format!(
        "include \"{}\"\ntable <friends> file \"{}\"\nblock in on em0 proto tcp\nanchor \"a\"\nload anchor a from \"{}\"\n",
        at("included"),
        at("addresses"),
        at("anchor")
    );
    write("pf.conf", &text);
    let conf = Conf::of_file(&dir.path().join("pf.conf")).unwrap();
    let mut world = host(Release::V15);
    world.load_conf("", &conf);
    check_with(
        &world,
        &text,
        &[(WEB, REACHED), ("em0 tcp 192.0.2.101 10.0.0.2:80", "lost"), ("em0 udp 192.0.2.100 10.0.0.2:53", "lost")],
    );
    // an error has the file and the line
    write("included", "\nblock in\npass frob\n");
    let error = Conf::of_file(&dir.path().join("pf.conf")).unwrap_err();
    assert!(error.message().starts_with(&format!("{} line 3: \"frob\" is not known", at("included"))), "{error}");
    write("included", &format!("include \"{}\"\n", at("included")));
    assert!(Conf::of_file(&dir.path().join("pf.conf")).unwrap_err().message().contains("include one another"));
    // bytes that are not UTF-8 are possible in comments and in strings, as in pfctl(8), and nowhere else
    std::fs::write(dir.path().join("included"), b"block in # \xe9\n").unwrap();
    std::fs::write(dir.path().join("addresses"), b"# caf\xe9\n192.0.2.96/28\n").unwrap();
    std::fs::write(dir.path().join("pf.conf"), [b"# \xff\xe9\npass label \"\xe9\"\n", text.as_bytes()].concat())
        .unwrap();
    assert!(Conf::of_file(&dir.path().join("pf.conf")).is_ok());
    assert!(Conf::of_text(b"pass label \"\xe9\" # \xe9\n").is_ok());
    assert!(Conf::of_text(b"pass label \xe9\n").is_err());
    write("pf.conf", "pass\ntable <t> file \"/nonexistent\"\n");
    let error = Conf::of_file(&dir.path().join("pf.conf")).unwrap_err();
    assert!(error.message().contains("pf.conf line 2: read /nonexistent"), "{error}");
}

/// What pfctl(8) refuses is not evaluated: a table that contains itself would not end.
#[test]
fn tables_that_pfctl_refuses() {
    for (text, why) in [
        ("table <t> { <t> }\nblock in from <t>", "tables cannot contain tables"),
        ("table <t> { <u> }\ntable <u> { <t> }", "tables cannot contain tables"),
        ("table <t> { 10.0.0.1 - 10.0.0.9 }", "address ranges are not permitted inside tables"),
        ("table <t> { (em0) }", "dynamic addresses are not permitted inside tables"),
        ("table <t> { no-route }", "\"no-route\" is not permitted inside tables"),
    ] {
        let error = text.parse::<Conf>().unwrap_err();
        assert!(error.message().contains(why), "{text}: {error}");
    }
}

/// The ports of a rule, as pfctl(8) checks them, and as it counts `a:*`.
#[test]
fn ports_that_count() {
    for (text, why) in [
        ("pass proto tcp to port 90:80", "the range of ports 90 to 80 is empty"),
        ("pass proto tcp to port 90 >< 90", "the range of ports 90 to 90 is empty"),
        ("pass proto tcp to port 90 <> 80", "the range of ports 90 to 80 is empty"),
        ("rdr proto tcp to port 80 -> 10.0.0.2 port 90:80", "the range of ports 90:80 is empty"),
        ("rdr proto tcp to port 80:90 -> 10.0.0.2 port 65530:*", "65530:* end after 65535"),
        ("rdr proto tcp to port > 80 -> 10.0.0.2 port 9000:*", "9000:* need one port or a range"),
    ] {
        let error = text.parse::<Conf>().unwrap_err();
        assert!(error.message().contains(why), "{text}: {error}");
    }
    for (ports, asked, expected) in [("80:90", 85, 9005), ("80", 80, 9000), ("{ 80 90 }", 90, 9000)] {
        let main = format!("rdr on em0 proto tcp to 192.0.2.1 port {ports} -> 10.0.0.2 port 9000:*");
        let question = format!("em0 tcp 192.0.2.100 192.0.2.1:{asked}");
        check(&main, &[(question.as_str(), format!("answered web 10.0.0.2:{expected}").as_str())]);
    }
}

#[test]
fn ports_that_no_rule_distinguishes() {
    let text = "pass proto tcp to port { 80 8000:8010 }\npass proto udp from port > 1023\n";
    let mut world = of(Release::V15, text);
    assert_eq!(Vec::from_iter(world.port_edges()), [80, 81, 1023, 1024, 8000, 8001, 8010, 8011]);
    // the rules of every anchor count
    world.load_text("f2b", "block in proto tcp to port 65535\n").unwrap();
    assert_eq!(world.port_edges().last(), Some(&65535));
}

/// The rules that pf evaluates grow with the published jails: one for each call, and those of each anchor.
#[test]
fn what_is_looked_at_is_counted() {
    let mut world = of(Release::V15, &format!("block log all\n{ANCHORS}"));
    let before = ask(&world, WEB).looked;
    assert_eq!((before.anchors, before.rules), (0, 4), "the rdr call, and three filter rules");
    publish(&mut world, "web", &["10.0.0.2"], "8080:80", &kport::options::Options::default());
    let after = ask(&world, "em0 tcp 192.0.2.100 192.0.2.1:9").looked;
    assert_eq!(after.anchors, 2, "kport for rdr, kport for the filter");
    assert!(after.rules > before.rules);
    // by wildcard: two anchors and five rules for each jail
    let mut world = of(
        Release::V15,
        "nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\nblock in all\npass out all\nanchor \"kport/*\"",
    );
    for jail in 0..10 {
        let pass = format!("inet proto tcp from any to 10.0.1.{jail} port 80");
        let rdr = format!("rdr on em0 inet proto tcp from any to (em0) port 80{jail:02} -> 10.0.1.{jail} port 80");
        let reach = format!("pass quick on {{ bridge epair lo }} {pass}");
        world
            .load_text(&format!("kport/j{jail}"), &format!("{rdr}\npass quick {pass} tagged \"j{jail}\"\n{reach}"))
            .unwrap();
    }
    let looked = ask(&world, "em0 tcp 192.0.2.100 192.0.2.1:9").looked;
    assert_eq!((looked.anchors, looked.rules), (20, 54));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    /// Any characters between the quotes of a string, and in any place.
    #[test]
    fn strings_are_printed_as_they_are_read(
        parts in prop::collection::vec((prop::sample::select(vec![
            "pass label", "pass tag", "pass tagged", "anchor", "rdr-anchor", "pass on", "pass user", "pass from", "pass os", "set skip on",
            "pass proto tcp to port 80 nat-to 192.0.2.7 source-hash", "antispoof for", "ether pass on", "match probability", "pass route-to",
        ]), prop::sample::select(vec!["\"", "'", ""]), "[ -~é]{0,6}"), 1..5)
    ) {
        let lines: Vec<String> = parts.iter().map(|(start, quote, text)| format!("{start} {quote}{text}{quote}\n")).collect();
        if let Ok(conf) = lines.concat().parse::<Conf>() {
            let printed = conf.to_string();
            let again = printed.parse::<Conf>().unwrap_or_else(|error| panic!("{error}\n{lines:?}\n{printed}"));
            prop_assert_eq!(&again, &conf, "{:?}\n{}", lines, printed);
        }
    }

    /// Any text that is read: printed and read again it is the same, the path of a packet ends, and is the same the next time.
    #[test]
    fn what_is_read_is_printed_and_evaluated(lines in prop::collection::vec(line(), 1..12)) {
        let text = lines.join("\n");
        if let Ok(conf) = text.parse::<Conf>() {
            let printed = conf.to_string();
            let again = printed.parse::<Conf>().unwrap_or_else(|error| panic!("{error}\n{text}\n{printed}"));
            prop_assert_eq!(&again, &conf, "{}\n{}", text, printed);
            for release in [Release::V14, Release::V15] {
                let mut world = host(release);
                world.load_conf("", &conf);
                for question in [WEB, "em0 udp 192.0.2.100 192.0.2.1:53", "web icmp 10.0.0.2 203.0.113.9", "host tcp 192.0.2.1 192.0.2.1:80"] {
                    let trace = ask(&world, question);
                    prop_assert_eq!(told(&trace), told(&ask(&world, question)));
                    prop_assert_eq!(trace.verdict == Verdict::Depends, !trace.depends_on.is_empty());
                }
            }
        }
    }
}

/// A line that is a rule in many cases.
fn line() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "in",
        "out",
        "quick",
        "on em0",
        "on ! bridge",
        "inet",
        "inet6",
        "proto tcp",
        "proto { tcp udp }",
        "proto icmp",
        "from any",
        "from 192.0.2.0/24",
        "from ! <t>",
        "to port 80",
        "to 10.0.0.2 port { 80 81:90 }",
        "from (em0:network)",
        "from em0",
        "all",
        "keep state",
        "no state",
        "keep state (max 3, if-bound)",
        "synproxy state",
        "flags S/SA",
        "flags any",
        "tag a",
        "tagged a",
        "! tagged a",
        "probability 5%",
        "os \"x\"",
        "user 7",
        "tos 8",
        "icmp-type 8",
        "rtable 1",
        "divert-to 9",
        "once",
        "nat-to 192.0.2.7",
        "rdr-to { 10.0.0.2 10.0.0.3 }",
        "route-to (bridge1 10.1.0.2)",
        "reply-to em0",
        "label \"x\"",
        "af-to inet from 192.0.2.7",
        "received-on em0",
        "max-pkt-size 9",
        "-> 10.0.0.2 port 80",
        "-> (em0) static-port",
        "{",
        "binat-to 192.0.2.7",
        // words of the language, signs and quotes where a name is expected
        "from \"port\"",
        "from { <t> \"any\" }",
        "to <\"a $b\">",
        "to (\"all:network\")",
        "from \"-a\"",
        "on \"any\"",
        "on ! \"a\\\"b\"",
        "user \"a b\"",
        "user > root",
        "group { != \"$x\" 7 >< 2 }",
        "os \"a\\b\"",
        "label \"a\\\\\" b\"",
        "label 'a\"\\ '",
        "label a\\\\b",
        "tag \"$proto-$if-$dstport\"",
        "tag \"$i$if\"",
        "tagged \"$$proto\"",
        "tag port",
        // ports that count down, or are 0
        "to port 0",
        "to port 9:0",
        "to port 90 >< 80",
        "to port 9 <> 10",
        "to port { 80:90 7 > 5 }",
        "-> 10.0.0.2 port 9000:*",
        "-> 10.0.0.2 port 65530:*",
        "-> 10.0.0.2 port 0:5",
        "-> 10.0.0.2 port 5:0",
        "nat-to 192.0.2.7 port 0",
        "nat-to 192.0.2.7 port 0:5 source-hash \"in\"",
        "rdr-to { 10.0.0.2 <t> } port 9:9 source-hash 5",
        "route-to { (em0 192.0.2.1) em1 } static-port",
        "probability \".5%\"",
        "probability 2e-1",
    ]);
    let start = prop::sample::select(vec![
        "pass",
        "block",
        "match",
        "nat",
        "rdr",
        "no rdr",
        "binat",
        "anchor \"a\"",
        "anchor",
        "rdr-anchor \"a/*\"",
        "}",
        "antispoof for em0",
        "table <t> { 192.0.2.1 ! 10/8 }",
        "set skip on lo",
        "anchor \"a\" {",
        "anchor {",
        "x = \"em0\"",
        "x = \"'$x \\\" #\"",
        "pass on $x",
        "pass label $x",
        "ether pass on $x",
        "ether anchor \"e\" {",
        "anchor \"*\"",
        "anchor \"a\\\"b\" {",
        "nat-anchor \"a\\\"b\" c",
        "anchor \"_1\"",
        "table <\"a $b\"> { em0 \"in\" <t> }",
        "table <t> { ! \"port:network\" www.example.org }",
        "set skip on { \"any\" \"a\\\"b\" }",
        "antispoof quick for { \"port\" (em1) }",
        "\"pass\"",
    ]);
    (start, prop::collection::vec(words, 0..5)).prop_map(|(start, words)| format!("{start} {}", words.join(" ")))
}
