//! The native backend against recorded requests and a stand-in for the kernel.

#![allow(unsafe_code)]

use crate::support::input;
use crate::support::rig::{Rig, request};

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::doctor::{self, Level};
use kport::error::{Error, Kind};
use kport::name::{Anchor, JailName};
use kport::net::{Direction, Family, Interface, Place, Protocol};
use kport::options::Options;
use kport::pf::native::descriptor::Descriptor;
use kport::pf::native::kernel::{Call, Failure, Kernel, Nv, OPEN};
use kport::pf::native::layout::{PfiocPooladdr, PfiocRule, PfiocRuleset, PfiocTable, PfiocTransE, field};
use kport::pf::native::netlink::attributes;
use kport::pf::native::nv::{List, Value};
use kport::pf::native::transaction::Load;
use kport::pf::native::{Native, encode, probe};
use kport::pf::{Counters, Firewall, ForeignRedirect, States, Status};
use kport::pfconf::Conf;
use kport::publication::{Answer, Publication, Redirect};
use kport::publisher::{Liveness, Observer, Phase, Request, Unobserved};
use kport::rule::{Address, Match, NextHop, Rate, Routing, Rule, StateOptions};
use kport::rules::rules;
use kport::store::Store;
use kport::trace::{Party, Release, World};
use zerocopy::{FromZeros, IntoBytes};

use crate::support::fake_kernel::{Fake, RULE, State, Stored, blank, text_at, u32_at};
use crate::support::offsets as at;

const FILTER: i32 = 1;
const NAT: i32 = 2;
const RDR: i32 = 4;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn native(fake: &Fake) -> Native<&Fake> {
    Native::over(fake, soon())
}

fn anchor(name: &str) -> Anchor {
    Anchor::from_child(name).unwrap()
}

fn redirect(place: &str, protocol: Protocol, host: &str, target: &str, jail: &str) -> Redirect {
    Redirect {
        af_to: false,
        place: place.parse().unwrap(),
        protocol,
        host: host.parse().unwrap(),
        target: target.parse().unwrap(),
        jail: jail.parse().unwrap(),
    }
}

fn published(name: &str, redirects: Vec<Redirect>) -> Vec<Rule> {
    rules(&Publication::new(name.parse().unwrap(), redirects, Options::default(), |_| Ok(None)).unwrap())
}

/// With the way of the answers through em1 and a tunnel.
fn answered(redirects: Vec<Redirect>) -> Vec<Rule> {
    let answers = |redirects: &[Redirect]| {
        let gateway = |text: &str| Some(text.parse().unwrap());
        let one = |r: &Redirect, on: &str, gateway, rtable| {
            let on: Interface = on.parse().unwrap();
            let reply_to = Some(NextHop { interface: on, gateway });
            Answer {
                place: r.place,
                target: r.target,
                on,
                beyond: gateway.is_some(),
                routing: Routing { reply_to, rtable },
            }
        };
        let of = |r: &Redirect| match (r.place.to_string().as_str(), r.family()) {
            ("em1", Family::Inet) => vec![one(r, "em1", gateway("203.0.113.254"), Some(0))],
            ("*", Family::Inet) => vec![one(r, "em1", gateway("203.0.113.254"), None), one(r, "wg0", None, None)],
            ("*", Family::Inet6) => vec![one(r, "em1", gateway("fe80::1"), None), one(r, "wg0", None, None)],
            _ => vec![],
        };
        redirects.iter().flat_map(of).collect()
    };
    let made = Publication::new("web".parse().unwrap(), redirects, Options::default(), |_| Ok(None)).unwrap();
    rules(&Publication { answers: answers(&made.redirects), ..made })
}

fn web() -> Vec<Rule> {
    published("web", vec![redirect("em0", Protocol::Tcp, "8080", "10.0.0.2", "80")])
}

/// Rules of every form that kport makes.
fn golden() -> Vec<Rule> {
    let mut golden = answered(vec![
        redirect("em0", Protocol::Tcp, "8080", "10.0.0.2", "80"),
        redirect("em0", Protocol::Udp, "5353", "10.0.0.2", "53"),
        redirect("wan", Protocol::Sctp, "7000", "10.0.0.2", "7000"),
        redirect("em0", Protocol::Tcp, "8080", "fd00::2", "80"),
        redirect("em0", Protocol::Tcp, "8000-8010", "10.0.0.2", "9000-9010"),
        redirect("*", Protocol::Tcp, "443", "10.0.0.2", "443"),
        redirect("*", Protocol::Udp, "443", "fd00::2", "443"),
        redirect("192.0.2.1", Protocol::Tcp, "22", "10.0.0.2", "22"),
        redirect("[2001:db8::1]", Protocol::Tcp, "22", "fd00::2", "22"),
        // two mappings to one port: each has its own tag
        redirect("em0", Protocol::Tcp, "81", "10.0.0.2", "8000"),
        redirect("em1", Protocol::Tcp, "82", "10.0.0.2", "8000"),
        redirect("em0.10", Protocol::Tcp, "1-65535", "10.0.0.3", "1-65535"),
    ]);
    let matches = |rule: &Rule| rule.matches().clone();
    // sources
    let sources = vec![
        Address::Host("198.51.100.7".parse().unwrap()),
        Address::Network("198.51.100.0/24".parse().unwrap()),
        Address::InterfaceNetwork("bridge0".parse().unwrap()),
        Address::Table("friends".parse().unwrap()),
        Address::Table("a-name-of-a-table-of-31-bytes.x".parse().unwrap()),
        Address::Interface("em0".parse().unwrap()),
        Address::Own,
        Address::Any,
    ];
    let (first, pass) =
        (golden[0].clone(), golden.iter().find(|rule| matches!(rule, Rule::Pass { .. })).unwrap().clone());
    let Rule::Rdr { tag, target, ports, .. } = first.clone() else { panic!("{first}") };
    let from = Match { from: sources.clone(), ports: "18080".parse().unwrap(), ..matches(&first) };
    golden.push(Rule::Rdr { matches: from, tag, target, ports });
    let Rule::Pass { tagged, labels, .. } = pass.clone() else { panic!("{pass}") };
    let both = Match {
        on: vec!["em0".parse().unwrap(), "bridge".parse().unwrap()],
        from: sources[..2].to_vec(),
        to: vec![Address::Host("10.0.0.2".parse().unwrap()), Address::Host("10.0.0.9".parse().unwrap())],
        ..matches(&pass)
    };
    golden.push(Rule::Pass {
        direction: None,
        log: false,
        quick: true,
        routing: Routing::default(),
        state: Default::default(),
        matches: both,
        tagged,
        labels,
    });
    // hairpin
    for (target, family) in [("10.0.0.2", Family::Inet), ("fd00::2", Family::Inet6)] {
        let matches = Match {
            on: vec!["bridge0".parse().unwrap()],
            family,
            protocol: Protocol::Tcp,
            from: vec![Address::InterfaceNetwork("bridge0".parse().unwrap())],
            to: vec![Address::Host(target.parse().unwrap())],
            ports: "80".parse().unwrap(),
        };
        let nat = |tagged, source: fn(Interface) -> Address| {
            let source = source("bridge0".parse().unwrap());
            Rule::Nat { matches: matches.clone(), tagged, source }
        };
        golden.push(nat(None, Address::Interface));
        golden.push(nat(Some("kport:web".parse().unwrap()), Address::First));
    }
    golden.push(Rule::Nat {
        matches: Match {
            on: vec!["lo0".parse().unwrap()],
            family: Family::Inet6,
            protocol: Protocol::Udp,
            from: vec![Address::Network("fd00::/64".parse().unwrap())],
            to: vec![],
            ports: "53-54".parse().unwrap(),
        },
        tagged: None,
        source: Address::First("lo".parse().unwrap()),
    });
    golden
}

/// The text of each kernel rule that `rule` stands for, with the one label that the struct has.
fn expanded(rule: &Rule) -> Vec<String> {
    let one_label = |one: &Rule| match one {
        Rule::AfTo { labels: [_, mapping], .. } | Rule::Pass { labels: [_, mapping], .. } => {
            one.to_string().replacen(&format!(" label \"{mapping}\""), "", 1)
        }
        Rule::Nat { .. } | Rule::Rdr { .. } => one.to_string(),
    };
    rule.expand().iter().map(one_label).collect()
}

/// A kernel rule as pf.conf(5) text, read from the bytes with the offsets that were printed on FreeBSD.
fn shown(stored: &Stored) -> String {
    let rule = &stored.bytes[RULE..];
    let v6 = match rule[at::AF] {
        2 => false,
        28 => true,
        other => panic!("family {other}"),
    };
    let ip = |bytes: &[u8]| -> IpAddr {
        if v6 {
            return <[u8; 16]>::try_from(bytes).unwrap().into();
        }
        assert_eq!(bytes[4..], [0; 12]);
        <[u8; 4]>::try_from(&bytes[..4]).unwrap().into()
    };
    let address = |wrap: &[u8]| match (wrap[at::TYPE], wrap[at::IFLAGS]) {
        (0, 0) if wrap[at::MASK..][..16] == [0; 16] => {
            assert_eq!(wrap[..16], [0; 16]);
            "any".to_owned()
        }
        (0, 0) if wrap[at::MASK..][..16] == [0xff; 16] => ip(&wrap[..16]).to_string(),
        (0, 0) => {
            let bits: u32 = wrap[at::MASK..][..16].iter().map(|byte| byte.count_ones()).sum();
            format!("{}/{bits}", ip(&wrap[..16]))
        }
        (2, 0) if text_at(wrap, at::ADDR, at::IFNAMSIZ) == "self" => "(self)".to_owned(),
        (2, 0) => format!("(\"{}\")", text_at(wrap, at::ADDR, at::IFNAMSIZ)),
        (2, 1) => format!("(\"{}:network\")", text_at(wrap, at::ADDR, at::IFNAMSIZ)),
        (2, 8) => format!("(\"{}:0\")", text_at(wrap, at::ADDR, at::IFNAMSIZ)),
        (3, 0) => format!("<{}>", text_at(wrap, at::ADDR, at::TABLE_NAME_SIZE)),
        other => panic!("address {other:?}"),
    };
    let range = |first: u16, last: u16| if last == 0 { first.to_string() } else { format!("{first}:{last}") };
    let network = |offset: usize| u16::from_be_bytes([rule[offset], rule[offset + 1]]);
    let host = |offset: usize| u16::from_ne_bytes([rule[offset], rule[offset + 1]]);
    let (flags, keep_state) = ((rule[at::FLAGS], rule[at::FLAGSET]), rule[at::KEEP_STATE]);

    let ifname = text_at(rule, at::IFNAME, at::IFNAMSIZ);
    let mut text = if ifname.is_empty() { String::new() } else { format!(" on \"{ifname}\"") };
    let protocol = match rule[at::PROTO] {
        6 => "tcp",
        17 => "udp",
        132 => "sctp",
        other => panic!("protocol {other}"),
    };
    assert_eq!(rule[at::SRC + at::PORT_OP], 0, "a source port");
    let (first, last) = (network(at::DST + at::PORT), network(at::DST + at::LAST_PORT));
    let op = rule[at::DST + at::PORT_OP];
    assert!(matches!((op, last), (2, 0) | (9, 1..)), "port_op {op}");
    let on = std::mem::take(&mut text);
    text.push_str(&format!(
        " {} proto {protocol} from {}{} to {} port {}",
        if v6 { "inet6" } else { "inet" },
        if rule[at::SRC + at::NEG] == 1 { "! " } else { "" },
        address(&rule[at::SRC..][..at::WRAP]),
        address(&rule[at::DST..][..at::WRAP]),
        range(first, last),
    ));
    let pool: Vec<String> = stored
        .pool
        .iter()
        .map(|pooled| {
            let name = text_at(pooled, at::pooladdr::IFNAME, at::IFNAMSIZ);
            if pooled[at::pooladdr::AF] == 0 {
                assert_eq!(pooled[at::pooladdr::ADDR..][..16], [0; 16], "an interface alone");
                return format!("\"{name}\"");
            }
            let family = if stored.nat.is_some() { 2 } else { rule[at::AF] };
            assert_eq!(pooled[at::pooladdr::AF], family, "the family of the redirect address");
            let address = address(&pooled[at::pooladdr::ADDR..][..at::WRAP]);
            if name.is_empty() { address } else { format!("(\"{name}\" {address})") }
        })
        .collect();
    let tag = text_at(rule, at::TAGNAME, at::TAG_NAME_SIZE);
    let tagged = text_at(rule, at::MATCH_TAGNAME, at::TAG_NAME_SIZE);
    let label = text_at(rule, at::LABEL, at::LABEL_SIZE);
    let word = |tag: &str| if tag == "kport" { tag.to_owned() } else { format!("\"{tag}\"") };
    match rule[at::ACTION] {
        4 => {
            assert_eq!((keep_state, flags), (0, (0, 0)));
            // DYNIF_MULTIADDR in sbin/pfctl/parse.y
            let several = !pool[0].ends_with("0:0\")");
            let opts = if several { 4 } else { 0 };
            assert_eq!((host(at::PROXY_PORT), host(at::LAST_PROXY_PORT), rule[at::POOL_OPTS]), (50001, 65535, opts));
            assert_eq!((tag.as_str(), label.as_str()), ("", ""));
            let tagged = if tagged.is_empty() { String::new() } else { format!(" tagged {}", word(&tagged)) };
            format!("nat{on}{text}{tagged} -> {}", pool.join(" "))
        }
        8 => {
            assert_eq!((keep_state, flags, rule[at::POOL_OPTS]), (0, (0, 0), 0));
            assert_eq!((tagged.as_str(), label.as_str()), ("", ""));
            format!(
                "rdr{on}{text} tag {} -> {} port {}",
                word(&tag),
                pool.join(" "),
                range(host(at::PROXY_PORT), host(at::LAST_PROXY_PORT))
            )
        }
        0 => {
            assert_eq!(keep_state, 1);
            assert_eq!(flags, if protocol == "tcp" { (0x02, 0x12) } else { (0, 0) });
            assert_eq!((host(at::LAST_PROXY_PORT), rule[at::POOL_OPTS], tag.as_str()), (0, 0, ""));
            let (mut route, mut rtable) = (String::new(), String::new());
            if let (Some((source, _)), [target]) = (&stored.nat, &stored.pool[..]) {
                let source = attributes(source).unwrap();
                let (_, name) = source.iter().find(|(kind, _)| *kind == 1).unwrap();
                let name = text_at(name, 0, at::IFNAMSIZ);
                let target = <[u8; 4]>::try_from(&target[at::pooladdr::ADDR..][..4]).unwrap();
                text += &format!(" af-to inet from (\"{name}\") to {}", IpAddr::from(target));
                if host(at::PROXY_PORT) != 0 {
                    text += &format!(" port {}", host(at::PROXY_PORT));
                }
            } else {
                assert_eq!((host(at::PROXY_PORT), pool.len()), (0, usize::from(rule[at::RT] == 4)));
                route = pool.iter().map(|hop| format!(" reply-to {hop}")).collect();
                if u32_at(rule, at::RTABLEID) as i32 >= 0 {
                    rtable = format!(" rtable {}", u32_at(rule, at::RTABLEID));
                }
            }
            let tagged = if tagged.is_empty() { tagged } else { format!(" tagged {}", word(&tagged)) };
            let direction = ["", " in", " out"][usize::from(rule[at::DIRECTION])];
            let (log, quick) = (["", " log"][usize::from(rule[at::LOG])], ["", " quick"][usize::from(rule[at::QUICK])]);
            format!(
                "pass{direction}{log}{quick}{on}{route}{text}{tagged}{rtable} keep state{} label \"{label}\"",
                limits(rule)
            )
        }
        other => panic!("action {other}"),
    }
}

/// The options in brackets after `keep state`.
fn limits(rule: &[u8]) -> String {
    let [max, max_src_states, max_src_conn, rate, seconds] =
        [at::MAX_STATES, at::MAX_SRC_STATES, at::MAX_SRC_CONN, at::MAX_SRC_CONN_RATE, at::MAX_SRC_CONN_SECONDS]
            .map(|offset| u32_at(rule, offset));
    let words = [
        (max != 0).then(|| format!("max {max}")),
        (u32_at(rule, at::RULE_FLAG) & 0x40 != 0).then(|| "source-track rule".to_owned()),
        (max_src_states != 0).then(|| format!("max-src-states {max_src_states}")),
        (max_src_conn != 0).then(|| format!("max-src-conn {max_src_conn}")),
        (rate != 0).then(|| format!("max-src-conn-rate {rate}/{seconds}")),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn held(fake: &Fake, anchor: &Anchor) -> Vec<String> {
    [NAT, RDR, FILTER].iter().flat_map(|number| fake.active(anchor.path(), *number)).map(|one| shown(&one)).collect()
}

// ---- recorded requests

fn packed(rule: &Rule, ticket: u32, pool_ticket: u32) -> PfiocRule {
    let mut request = PfiocRule::new_zeroed();
    (request.ticket, request.pool_ticket) = (ticket, pool_ticket);
    request.anchor = field("kport/st");
    let mut members = rule.matches().members();
    encode::rule(rule, members.next().unwrap(), &mut request.rule);
    assert!(members.next().is_none());
    request
}

#[test]
fn requests_that_a_kernel_accepted_byte_for_byte() {
    let rules = web();
    let rdr = packed(&rules[0], 1, 6);
    assert_eq!(recorded_tag(rdr.as_bytes()), include_bytes!("../native/rdr.bin"));

    let mut address = PfiocPooladdr::new_zeroed();
    assert!(encode::target(&rules[0], &mut address));
    address.ticket = 6;
    assert_eq!(address.as_bytes(), include_bytes!("../native/addaddr.bin"));

    assert_eq!(recorded_tag(packed(&rules[1], 1, 7).as_bytes()), include_bytes!("../native/pass.bin"));
    assert!(!encode::target(&rules[1], &mut address));
}

/// A request with the tag of the recordings, from when every jail had the same.
fn recorded_tag(request: &[u8]) -> Vec<u8> {
    let mut request = request.to_vec();
    for name in [at::TAGNAME, at::MATCH_TAGNAME] {
        let field = &mut request[RULE + name..][..at::TAG_NAME_SIZE];
        if field[0] != 0 {
            assert_eq!(&field[..10], b"kport:web\0");
            field.fill(0);
            field[..5].copy_from_slice(b"kport");
        }
    }
    request
}

#[test]
fn nvlists_that_a_kernel_accepted_byte_for_byte() {
    for bytes in [include_bytes!("../native/nv-rdr.bin").as_slice(), include_bytes!("../native/nv-pass.bin")] {
        let list = List::decode(bytes, &[]).unwrap();
        assert_eq!(list.string("anchor"), Ok("kport/nv"));
        assert_eq!(list.encode(), bytes);
    }
}

/// The kernel accepted the same two rules in both forms: these must agree.
#[test]
fn struct_and_nvlist_of_one_rule_agree() {
    let scalars = [
        ("action", at::ACTION),
        ("direction", at::DIRECTION),
        ("log", at::LOG),
        ("quick", at::QUICK),
        ("ifnot", at::IFNOT),
        ("match_tag_not", at::MATCH_TAG_NOT),
        ("natpass", at::NATPASS),
        ("keep_state", at::KEEP_STATE),
        ("af", at::AF),
        ("proto", at::PROTO),
        ("flags", at::FLAGS),
        ("flagset", at::FLAGSET),
        ("prio", at::PRIO),
    ];
    let [rdr, pass, ..] = &web()[..] else { panic!() };
    for (rule, bytes) in
        [(rdr, include_bytes!("../native/nv-rdr.bin").as_slice()), (pass, include_bytes!("../native/nv-pass.bin"))]
    {
        let packed = packed(rule, 0, 0);
        let bytes_of = &recorded_tag(packed.as_bytes())[RULE..];
        let request = List::decode(bytes, &[]).unwrap();
        let list = request.list("rule").unwrap();
        for (name, offset) in scalars {
            assert_eq!(list.number(name), Ok(u64::from(bytes_of[offset])), "{name} of {rule}");
        }
        let names = [
            ("ifname", at::IFNAME, at::IFNAMSIZ),
            ("tagname", at::TAGNAME, at::TAG_NAME_SIZE),
            ("match_tagname", at::MATCH_TAGNAME, at::TAG_NAME_SIZE),
        ];
        for (name, offset, size) in names {
            assert_eq!(list.string(name), Ok(text_at(bytes_of, offset, size).as_str()), "{name} of {rule}");
        }
        let native = |offset: usize| u64::from(u16::from_ne_bytes([bytes_of[offset], bytes_of[offset + 1]]));
        for (name, offset) in [("src", at::SRC), ("dst", at::DST)] {
            let bytes_of = &bytes_of[offset..];
            let side = list.list(name).unwrap();
            let wrap = side.list("addr").unwrap();
            assert_eq!(wrap.number("type"), Ok(u64::from(bytes_of[at::TYPE])));
            assert_eq!(wrap.list("addr").unwrap().binary("addr"), Ok(&bytes_of[at::ADDR..][..16]));
            assert_eq!(wrap.list("mask").unwrap().binary("addr"), Ok(&bytes_of[at::MASK..][..16]));
            assert_eq!(
                side.numbers("port"),
                Ok([native(offset + at::PORT), native(offset + at::LAST_PORT)].as_slice())
            );
            assert_eq!(side.number("port_op"), Ok(u64::from(bytes_of[at::PORT_OP])));
        }
        let pool = list.list("rpool").unwrap();
        assert_eq!(pool.numbers("proxy_port"), Ok([native(at::PROXY_PORT), native(at::LAST_PROXY_PORT)].as_slice()));
    }
}

/// Packed by FreeBSD's own libnv.
#[test]
fn the_packed_form_is_libnvs() {
    let rule = List::new()
        .with("port", Value::Numbers(vec![80, 443]))
        .with("ifname", Value::String("em0".to_owned()))
        .with("neg", Value::Bool(true))
        .with("addr", Value::Binary(vec![10, 0, 0, 2]))
        .with("labels", Value::Strings(vec!["kport/a".to_owned(), "b".to_owned()]));
    let list = List::new()
        .with("ticket", Value::Number(7))
        .with("rule", Value::List(rule))
        .with("anchor", Value::String("kport/j".to_owned()));
    // it has an array of lists as well, which no call of pf uses
    assert_eq!(List::decode(include_bytes!("../native/nv-399.bin"), &[]), Ok(list));
    for bytes in [include_bytes!("../native/nv-rdr.bin").as_slice(), include_bytes!("../native/nv-pass.bin")] {
        assert_eq!(List::decode(bytes, &[]).unwrap().encode(), bytes);
    }
}

// ---- rules

#[test]
fn text_and_struct_of_every_golden_rule_agree() {
    let golden = golden();
    let fake = Fake::new();
    let web = anchor("web");
    native(&fake).replace(&web, &golden).unwrap();
    let mut expected = vec![];
    for ruleset in 0..encode::LOADED.len() {
        expected.extend(golden.iter().filter(|rule| encode::ruleset(rule) == ruleset).flat_map(expanded));
    }
    assert!(expected.len() > 60, "{}", expected.len());
    assert_eq!(held(&fake, &web), expected);
}

/// Every publication of tests/rules, with every option.
#[test]
fn text_and_struct_of_every_publication_agree() {
    let (mut publications, mut seen) = (0, String::new());
    for (path, input) in input::all() {
        let Ok(rules) = input::made(&input) else { continue };
        let fake = Fake::new();
        let web = anchor("web");
        native(&fake).replace(&web, &rules).unwrap();
        // the rulesets in the order of the text: nat, rdr, filter
        let held = held(&fake, &web);
        assert_eq!(held, rules.iter().flat_map(expanded).collect::<Vec<_>>(), "{}", path.display());
        publications += 1;
        seen.extend(held);
    }
    assert!(publications > 40, "{publications}");
    for word in [
        "nat on",
        "pass in log quick",
        "pass out quick",
        "pass in quick inet",
        "pass inet ",
        "(max ",
        "source-track rule, max-src-states",
        "source-track rule, max-src-conn ",
        "max-src-conn-rate",
        "from <",
        "/24 to",
        ":network\")",
        "(self)",
        "tag \"kport:",
    ] {
        assert!(seen.contains(word), "no golden has {word}");
    }
}

/// The numbers that pfctl(8) computes, with its unsigned arithmetic.
#[test]
fn limits_as_pfctl_sends_them() {
    let pass = |state: StateOptions| {
        let [_, Rule::Pass { matches, tagged, labels, .. }, ..] = &web()[..] else { panic!() };
        let (matches, tagged, labels) = (matches.clone(), tagged.clone(), labels.clone());
        let rule = Rule::Pass {
            direction: Some(Direction::In),
            log: true,
            quick: false,
            routing: Routing::default(),
            matches,
            tagged,
            state,
            labels,
        };
        packed(&rule, 0, 0).as_bytes()[RULE..].to_vec()
    };
    let number = NonZeroU32::new;
    for (max, start, end) in [(1, 0, 0), (9, 0, 0), (10, 6, 12), (99, 54, 108), (1_000_000, 600_000, 1_200_000)] {
        let rule = pass(StateOptions { max: number(max), ..StateOptions::default() });
        assert_eq!(
            [at::ADAPTIVE_START, at::ADAPTIVE_END, at::SRC_NODE, at::MAX_STATES, at::RULE_FLAG]
                .map(|offset| u32_at(&rule, offset)),
            [start, end, 0, max, 0]
        );
    }
    // all in u_int32_t: 429496729 * 12 wraps
    let rule = pass(StateOptions { max: number(u32::MAX), ..StateOptions::default() });
    assert_eq!(
        [at::ADAPTIVE_START, at::ADAPTIVE_END].map(|offset| u32_at(&rule, offset)),
        [2_576_980_374, 858_993_452]
    );
    let rate = Rate::new(15, 5).ok();
    let rule = pass(StateOptions { max_src_conn_rate: rate, max_src_conn: number(7), ..StateOptions::default() });
    assert_eq!(
        [
            at::ADAPTIVE_START,
            at::SRC_NODE,
            at::MAX_SRC_STATES,
            at::MAX_SRC_CONN,
            at::MAX_SRC_CONN_RATE,
            at::MAX_SRC_CONN_SECONDS,
            at::RULE_FLAG
        ]
        .map(|offset| u32_at(&rule, offset)),
        [0, 5, 0, 7, 15, 5, 0x60]
    );
    let rule = pass(StateOptions { max_src_states: number(3), ..StateOptions::default() });
    assert_eq!(
        [
            at::SRC_NODE,
            at::MAX_SRC_STATES,
            at::MAX_SRC_CONN,
            at::MAX_SRC_CONN_RATE,
            at::MAX_SRC_CONN_SECONDS,
            at::RULE_FLAG
        ]
        .map(|offset| u32_at(&rule, offset)),
        [0, 3, 0, 0, 0, 0x60]
    );
    // direction, log, quick
    assert_eq!((rule[at::DIRECTION], rule[at::LOG], rule[at::LOGIF], rule[at::QUICK]), (1, 1, 0, 0));
}

#[test]
fn the_longest_names_fit() {
    let jail = "x".repeat(255);
    let rules =
        published(&jail, vec![redirect("abcdefghijklmno", Protocol::Sctp, "10000-65535", "fd00::2", "10000-65535")]);
    let fake = Fake::new();
    let anchor = jail.parse::<JailName>().unwrap().anchor();
    native(&fake).replace(&anchor, &rules).unwrap();
    assert_eq!(held(&fake, &anchor), rules.iter().flat_map(expanded).collect::<Vec<_>>());
    let label = text_at(&fake.active(anchor.path(), FILTER)[0].bytes[RULE..], at::LABEL, at::LABEL_SIZE);
    let Rule::Pass { labels: [jail, _], .. } = &rules[1] else { panic!() };
    assert_eq!(label, jail.as_str());
}

#[test]
fn a_rule_given_twice_is_loaded_once() {
    let fake = Fake::new();
    let rules = [web(), web()].concat();
    native(&fake).replace(&anchor("web"), &rules).unwrap();
    assert_eq!(held(&fake, &anchor("web")), web().iter().flat_map(expanded).collect::<Vec<_>>());
}

// ---- the transaction

#[test]
fn the_calls_of_a_transaction_in_order() {
    let fake = Fake::new();
    let rules = published("web", vec![redirect("*", Protocol::Tcp, "80", "10.0.0.2", "80")]);
    let calls = fake.calls_of(|| native(&fake).replace(&anchor("web"), &rules).unwrap());
    let mut expected = vec!["DIOCXBEGIN", "DIOCBEGINADDRS", "DIOCADDADDR", "DIOCADDRULE"];
    // the pass rule, and one for each of three groups
    expected.extend(["DIOCADDRULE"; 4]);
    expected.push("DIOCXCOMMIT");
    assert_eq!(calls, expected);
}

/// The buffer for redirect addresses is begun again if another program has used it, for the rule that found that.
#[test]
fn a_program_that_loads_rules_at_the_same_time_costs_no_transaction() {
    struct Between<'f>(&'f Fake, Cell<usize>, usize);
    impl Kernel for Between<'_> {
        fn call(&self, call: Call<'_>) -> Result<(), Failure> {
            self.1.set(self.1.get() + 1);
            if self.1.get() == self.2 {
                self.0.call(Call::BeginAddrs(&mut PfiocPooladdr::new_zeroed()))?;
            }
            self.0.call(call)
        }
    }
    let rules = web();
    for at in 1..20 {
        let fake = Fake::new();
        let between = Between(&fake, Cell::new(0), at);
        let native = Native::over(&between, Deadline::after(Duration::from_secs(60)));
        let calls = fake.calls_of(|| native.replace(&anchor("web"), &rules).unwrap());
        assert_eq!(calls.iter().filter(|call| **call == "DIOCXBEGIN").count(), 1, "{calls:?}");
        assert_eq!(held(&fake, &anchor("web")), rules.iter().flat_map(expanded).collect::<Vec<_>>(), "{at}");
    }
}

#[test]
fn replacing_leaves_nothing_of_what_was_and_clearing_removes_the_anchor() {
    let fake = Fake::new();
    let (native, web) = (native(&fake), anchor("web"));
    native.replace(&web, &golden()).unwrap();
    native.replace(&web, &self::web()).unwrap();
    assert_eq!(held(&fake, &web), self::web().iter().flat_map(expanded).collect::<Vec<_>>());
    assert_eq!(native.anchors().unwrap(), ["web"]);
    native.replace(&web, &[]).unwrap();
    assert!(!fake.exists("kport/web"));
    assert_eq!(native.anchors().unwrap(), [""; 0]);
    // again
    native.replace(&web, &[]).unwrap();
    assert!(!fake.exists("kport/web"));
}

/// Any call fails with any errno: the anchor is unchanged, nothing stays open, and the error names the call.
#[test]
fn each_call_fails_with_each_errno() {
    let before = published("web", vec![redirect("em1", Protocol::Udp, "53", "10.0.0.9", "53")]);
    let (rules, anchor) = (web(), anchor("web"));
    let fake = Fake::new();
    native(&fake).replace(&anchor, &before).unwrap();
    let was = held(&fake, &anchor);
    let names = fake.calls_of(|| native(&fake).replace(&anchor, &rules).unwrap());
    assert!(names.len() > 7, "{names:?}");
    let errnos = [
        libc::EPERM,
        libc::ENOENT,
        libc::EIO,
        libc::ENXIO,
        libc::ENOMEM,
        libc::EACCES,
        libc::EFAULT,
        libc::ENODEV,
        libc::EINVAL,
        libc::ENOTTY,
        libc::ENOSPC,
        libc::EOPNOTSUPP,
    ];
    for (at, name) in names.iter().enumerate() {
        for errno in errnos {
            native(&fake).replace(&anchor, &before).unwrap();
            fake.fail(at, errno);
            let error = native(&fake).replace(&anchor, &rules).unwrap_err();
            fake.heal();
            assert_eq!(error.errno(), Some(errno), "{error}");
            assert!(error.message().starts_with(name), "{error}");
            if name.ends_with("ADDRULE") || name.ends_with("ADDR") || name.ends_with("ADDRS") {
                assert!(error.message().contains(", for rule: "), "{error}");
            }
            let kind = match errno {
                libc::EPERM | libc::EACCES => Kind::Permission,
                libc::ENODEV | libc::ENOTTY | libc::EOPNOTSUPP => Kind::Unsupported,
                _ => Kind::System,
            };
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(held(&fake, &anchor), was, "call {at} {name}");
            assert!(!fake.left_open(anchor.path()), "call {at} {name}");
        }
        // busy once: tried again from the start
        fake.fail(at, libc::EBUSY);
        native(&fake).replace(&anchor, &rules).unwrap();
        fake.heal();
        assert_eq!(held(&fake, &anchor), rules.iter().flat_map(expanded).collect::<Vec<_>>(), "call {at} {name}");
    }
}

#[test]
fn an_error_names_the_rule() {
    let fake = Fake::new();
    fake.refuse("DIOCADDRULE", 1, libc::ENOMEM);
    let error = native(&fake).replace(&anchor("web"), &web()).unwrap_err();
    assert!(error.message().contains(&web()[0].to_string()), "{error}");
}

#[test]
fn a_busy_pf_is_waited_for_until_the_deadline() {
    let fake = Fake::new();
    fake.refuse("DIOCADDRULE", 3, libc::EBUSY);
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    assert_eq!(held(&fake, &anchor("web")), web().iter().flat_map(expanded).collect::<Vec<_>>());

    fake.refuse("DIOCXCOMMIT", usize::MAX, libc::EBUSY);
    let deadline = Deadline::after(Duration::from_millis(20));
    let error = Native::over(&fake, deadline).replace(&anchor("web"), &[]).unwrap_err();
    assert!(deadline.passed());
    assert_eq!((error.kind(), error.errno()), (Kind::Busy, Some(libc::EBUSY)));
    assert_eq!(held(&fake, &anchor("web")).len(), 5);

    // after the deadline there is still one try
    fake.heal();
    Native::over(&fake, Deadline::after(Duration::ZERO)).replace(&anchor("web"), &[]).unwrap();
    assert!(!fake.exists("kport/web"));
}

#[test]
fn a_rollback_that_fails_does_no_harm() {
    let fake = Fake::new();
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    let was = held(&fake, &anchor("web"));
    fake.refuse("DIOCXROLLBACK", 1, libc::ENODEV);
    {
        let mut transaction = Load::begin(&fake, &["kport/web"]).unwrap();
        transaction.add(&golden()[1]).unwrap();
    }
    assert!(fake.left_open("kport/web"));
    assert_eq!(held(&fake, &anchor("web")), was);
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    assert_eq!(held(&fake, &anchor("web")), was);
    assert!(!fake.left_open("kport/web"));
}

#[test]
fn a_transaction_that_is_dropped_rolls_back() {
    let fake = Fake::new();
    let mut transaction = Load::begin(&fake, &["kport/web"]).unwrap();
    transaction.add(&web()[0]).unwrap();
    drop(transaction);
    assert!(!fake.left_open("kport/web"));
    // it remains, and is not a publication
    assert!(fake.exists("kport/web"));
    assert_eq!(native(&fake).anchors().unwrap(), [""; 0]);
}

/// Another program between two calls of this one.
#[test]
fn the_later_of_two_writers_wins_and_the_earlier_gets_an_error() {
    let fake = Fake::new();
    let mut earlier = Load::begin(&fake, &["kport/web"]).unwrap();
    earlier.add(&golden()[1]).unwrap();
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    assert_eq!(earlier.add(&golden()[2]).unwrap_err().errno, libc::EBUSY);
    assert_eq!(earlier.commit().unwrap_err().errno, libc::EBUSY);
    assert_eq!(held(&fake, &anchor("web")), web().iter().flat_map(expanded).collect::<Vec<_>>());
}

// ---- reading

/// pfctl -a kport/web -F all between two calls of this one: the anchor is gone.
#[test]
fn an_anchor_that_is_cleared_meanwhile_is_busy_and_a_bad_rule_is_not() {
    let fake = Fake::new();
    let mut earlier = Load::begin(&fake, &["kport/web"]).unwrap();
    native(&fake).replace(&anchor("web"), &[]).unwrap();
    assert!(!fake.exists("kport/web"));
    assert_eq!(earlier.add(&web()[0]).unwrap_err().errno, libc::EBUSY);
    drop(earlier);
    let mut again = Load::begin(&fake, &["kport/web"]).unwrap();
    fake.refuse("DIOCADDRULE", 1, libc::EINVAL);
    assert_eq!(again.add(&web()[0]).unwrap_err().errno, libc::EINVAL);
}

#[test]
fn anchors_are_listed_by_name() {
    let fake = Fake::new();
    let native = native(&fake);
    for name in ["web", "db", "a.b"] {
        native
            .replace(&anchor(name), &published(name, vec![redirect("em0", Protocol::Tcp, "1", "10.0.0.2", "1")]))
            .unwrap();
    }
    assert_eq!(native.anchors().unwrap(), ["a.b", "db", "web"]);
    // created or removed meanwhile
    for call in ["DIOCGETRULESETS", "DIOCGETRULESET"] {
        fake.refuse(call, 1, libc::EBUSY);
        assert_eq!(native.anchors().unwrap().len(), 3, "{call}");
    }
}

#[test]
fn rules_come_back_with_counters() {
    let fake = Fake::new();
    let native = native(&fake);
    native.replace(&anchor("web"), &web()).unwrap();
    fake.set_counters("kport/web", RDR, [9, 3, 4, 300, 500, 2]);
    fake.set_counters("kport/web", FILTER, [9, 6, 8, 600, 1000, 4]);
    let counters = Counters { packets: 7, bytes: 800, states: 2 };
    // loaded again between the calls
    fake.refuse("DIOCGETRULENV", 1, libc::EBUSY);
    let loaded = native.loaded(&anchor("web"), true).unwrap();
    assert_eq!((loaded.translations, loaded.filters), (vec![counters], 4));
    let counters = Counters { packets: 14, bytes: 1600, states: 4 };
    assert_eq!(native.filter_counters(&anchor("web")).unwrap(), [counters; 4]);
    assert!(native.loaded(&anchor("gone"), true).unwrap().is_empty());
}

#[test]
fn states_are_killed_by_label_and_by_the_port_of_the_host() {
    let fake = Fake::new();
    let native = native(&fake);
    let state = |protocol, port| State::new("kport:web", protocol, port);
    let tcp = |ports: &str| mapping("web", Protocol::Tcp, ports);
    let states = [state(6, 8080), state(6, 8080), state(17, 8080), state(6, 9000), state(6, 9010), state(6, 9011)];
    fake.set_states(&states);
    fake.set_states(&[State { label: "kport:web2".to_owned(), ..state(6, 8080) }]);
    assert_eq!(native.kill_states(&[tcp("8080")]).unwrap(), 2);
    assert_eq!(native.kill_states(&[tcp("8080")]).unwrap(), 0);
    assert_eq!(native.kill_states(&[tcp("9000-9010"), tcp("1")]).unwrap(), 2);
    // all that are left, with one search of the table, which is read only if it is known where the jail's states lead
    let all = |targets: &[&str]| {
        let at = targets.iter().map(|target| target.parse().unwrap()).collect();
        [States { jail: Some("web".parse::<JailName>().unwrap().label()), at, ..States::default() }]
    };
    let calls = fake.calls_of(|| assert_eq!(native.kill_states(&all(&["10.0.0.3", "fd00::2"])).unwrap(), 0));
    assert_eq!(calls, ["DIOCGETSTATESV2", "DIOCGETSTATESV2"]);
    let calls = fake.calls_of(|| assert_eq!(native.kill_states(&all(&[])).unwrap(), 2));
    assert_eq!(calls, ["DIOCKILLSTATESNV"]);
    assert_eq!(fake.states(), [State { label: "kport:web2".to_owned(), ..state(6, 8080) }]);
    // so many that to read them takes longer
    fake.set_states(&vec![state(6, 8080); 5000]);
    let calls = fake.calls_of(|| assert_eq!(native.kill_states(&all(&["10.0.0.2"])).unwrap(), 5000));
    assert_eq!(calls, ["DIOCGETSTATESV2", "DIOCKILLSTATESNV"]);
    // with af-to the side of the jail has the other family
    let to = Ipv6Addr::LOCALHOST.into();
    fake.set_states(&[State { from: to, to, ..state(6, 8080) }]);
    assert_eq!(native.kill_states(&all(&["10.0.0.2"])).unwrap(), 1);
    // an association of sctp may have other addresses of the jail
    fake.set_states(&[State { redirected: Some([10, 0, 0, 7].into()), ..state(132, 8080) }]);
    assert_eq!(native.kill_states(&[mapping("web", Protocol::Sctp, "8080")]).unwrap(), 1);
    fake.set_states(&[state(6, 8080)]);
    fake.refuse("DIOCKILLSTATESNV", 1, libc::EPERM);
    let error = native.kill_states(&[tcp("8080")]).unwrap_err();
    assert_eq!(error.kind(), Kind::Permission);
    assert!(error.message().contains("label \"kport:web\", tcp 8080"), "{error}");
}

/// The destination of a state is that of the packet before the redirect. A port of the host is not one of the jail with the
/// same number: what another mapping still allows goes on.
#[test]
fn the_ports_of_the_host_and_of_the_jail_are_told_apart() {
    // jail, published, unpublished, the states that end and those that stay
    let rows = [
        ("web", "8080:80 80:8000", "8080:80", "192.0.2.1:8080 10.0.0.2:80", "192.0.2.1:80 10.0.0.2:8000"),
        ("web", "8080:80 9090:8080", "8080:80", "192.0.2.1:8080 10.0.0.2:80", "192.0.2.1:9090 10.0.0.2:8080"),
        ("web", "8080:80 9090:8080", "8080:80", "[2001:db8::1]:8080 [fd00::2]:80", "[fd00::2]:8080 [2001:db8::1]:9090"),
        (
            "web",
            "8000-8009:100-109 100:8001",
            "8000-8009:100-109",
            "192.0.2.1:8001 10.0.0.2:105",
            "192.0.2.1:100 10.0.0.2:8001",
        ),
        // it is another jail's port with udp
        ("web", "8080:80 9090:8080/udp", "8080:80", "192.0.2.1:8080 10.0.0.2:8080", "192.0.2.1:9090"),
        // an address of the host: packets to it may have been redirected
        ("flat", "8080:81 9090:8080", "8080:81", "192.0.2.1:8080 10.9.0.2:8080 10.9.0.2:81", "192.0.2.1:9090"),
        // another mapping to the same port: connections to the jail itself go on
        ("web", "8080:80 81:80", "8080:80", "192.0.2.1:8080", "192.0.2.1:81 10.0.0.2:80"),
    ];
    for (jail, published, unpublished, end, stay) in rows {
        let (fake, rig) = (Fake::new(), Rig::new());
        let native = native(&fake);
        rig.with(&native, &Unobserved, |p| p.publish(&request(jail, published))).unwrap();
        let states = |addresses: &str| {
            let addresses = addresses.split(' ').map(|address| address.parse::<std::net::SocketAddr>().unwrap());
            let label = format!("kport:{jail}");
            let led = |to: IpAddr| match to {
                IpAddr::V4(_) if jail == "flat" => "10.9.0.2",
                IpAddr::V4(_) => "10.0.0.2",
                IpAddr::V6(_) => "fd00::2",
            };
            let state = |to: std::net::SocketAddr| {
                let redirected = Some(led(to.ip()).parse().unwrap());
                State { from: to.ip(), to: to.ip(), redirected, ..State::new(&label, 6, to.port()) }
            };
            addresses.map(state).collect::<Vec<_>>()
        };
        fake.set_states(&states(end));
        fake.set_states(&states(stay));
        let spec = unpublished.parse().unwrap();
        let done = rig.with(&native, &Unobserved, |p| p.unpublish_some(&jail.parse().unwrap(), None, &spec)).unwrap();
        assert_eq!(fake.states(), states(stay), "{published}: {done:?}");
    }
}

/// The rules of a change that fails are in pf until they are taken back.
#[test]
fn connections_that_came_before_a_change_was_undone_end() {
    struct Late<'a>(&'a Fake, State);
    impl Observer for Late<'_> {
        fn phase(&self, phase: Phase) -> kport::error::Result<()> {
            match phase {
                Phase::Verify => {
                    self.0.set_states(std::slice::from_ref(&self.1));
                    Err(Error::new(Kind::System, "made to fail"))
                }
                _ => Ok(()),
            }
        }
    }
    let (fake, rig) = (Fake::new(), Rig::new());
    let native = native(&fake);
    let state = |port| State::new("kport:web", 6, port);
    let late = |spec: &str, port| {
        rig.with(&native, &Late(&fake, state(port)), |p| p.publish(&request("web", spec))).unwrap_err()
    };
    late("8080:80", 8080);
    assert_eq!(fake.states(), []);
    rig.with(&native, &Unobserved, |p| p.publish(&request("web", "8080:80"))).unwrap();
    fake.set_states(&[state(8080)]);
    late("8080:80 8081:81", 8081);
    assert_eq!(fake.states(), [state(8080)]);
    // if they cannot be ended, the record says so to the next call
    fake.refuse("DIOCKILLSTATESNV", 1, libc::EPERM);
    let error = late("8080:80 8081:81", 8081);
    assert!(error.message().contains("connections that came meanwhile continue"), "{error}");
    rig.with(&native, &Unobserved, |p| p.publish(&request("web", "8080:80"))).unwrap();
    assert_eq!(fake.states(), [state(8080)]);
}

/// A set is recognized by its rules, and no other set is, even with as many.
#[test]
fn what_is_loaded_is_recognized() {
    let mut sets = vec![vec![], golden(), web()];
    for (_, input) in input::all() {
        sets.extend(input::made(&input));
    }
    for host in ["8080", "8081", "8080-8081"] {
        for (place, protocol, target, jail) in [
            ("em0", Protocol::Tcp, "10.0.0.2", "80"),
            ("em1", Protocol::Tcp, "10.0.0.2", "80"),
            ("192.0.2.1", Protocol::Tcp, "10.0.0.2", "80"),
            ("em0", Protocol::Udp, "10.0.0.2", "80"),
            ("em0", Protocol::Tcp, "10.0.0.3", "80"),
            ("em0", Protocol::Tcp, "10.0.0.2", "81"),
        ] {
            let jail = if host.contains('-') {
                format!("{jail}-{}", jail.parse::<u16>().unwrap() + 1)
            } else {
                jail.to_owned()
            };
            sets.push(published("web", vec![redirect(place, protocol, host, target, &jail)]));
        }
    }
    let Rule::Pass { matches, tagged, labels, .. } = web()[1].clone() else { panic!() };
    let pass = |direction, log, quick, state, tagged| {
        let (routing, matches) = (Routing::default(), matches.clone());
        vec![Rule::Pass { direction, log, quick, routing, matches, tagged, state, labels: labels.clone() }]
    };
    let answered = |on: &str, gateway: Option<&str>, rtable| {
        let reply_to = NextHop { interface: on.parse().unwrap(), gateway: gateway.map(|text| text.parse().unwrap()) };
        let mut rule = pass(Some(Direction::In), false, true, StateOptions::default(), tagged.clone());
        let Rule::Pass { routing, .. } = &mut rule[0] else { panic!() };
        *routing = Routing { reply_to: Some(reply_to), rtable };
        rule
    };
    let number = NonZeroU32::new;
    let limited = |state| pass(Some(Direction::In), false, true, state, tagged.clone());
    sets.extend([
        answered("em1", Some("203.0.113.254"), None),
        answered("em1", Some("203.0.113.253"), None),
        answered("em2", Some("203.0.113.254"), None),
        answered("em1", None, None),
        answered("em1", Some("203.0.113.254"), Some(0)),
        answered("em1", Some("203.0.113.254"), Some(1)),
        pass(None, false, true, StateOptions::default(), tagged.clone()),
        pass(None, false, true, StateOptions::default(), None),
        pass(None, true, true, StateOptions::default(), tagged.clone()),
        pass(None, false, false, StateOptions::default(), tagged.clone()),
        limited(StateOptions::default()),
        limited(StateOptions { max: number(5), ..StateOptions::default() }),
        limited(StateOptions { max_src_states: number(5), ..StateOptions::default() }),
        limited(StateOptions { max_src_conn: number(5), ..StateOptions::default() }),
        limited(StateOptions { max_src_conn_rate: Rate::new(5, 6).ok(), ..StateOptions::default() }),
        limited(StateOptions { max_src_conn_rate: Rate::new(6, 6).ok(), ..StateOptions::default() }),
        limited(StateOptions { max_src_conn_rate: Rate::new(5, 5).ok(), ..StateOptions::default() }),
    ]);
    let fake = Fake::new();
    let web = anchor("web");
    for there in &sets {
        let native = native(&fake);
        native.replace(&web, there).unwrap();
        for wanted in &sets {
            assert_eq!(native.holds(&web, wanted).unwrap(), wanted == there, "{wanted:?} {there:?}");
        }
        // a call by another tool in it is not one of these rules
        fake.hold("kport/web", called("x"));
        assert!(!native.holds(&web, there).unwrap());
    }
}

/// The states of a mapping.
fn mapping(jail: &str, protocol: Protocol, host: &str) -> States {
    let (jail, host) = (jail.parse::<JailName>().unwrap(), host.parse().unwrap());
    let mapping = Some(jail.mapping_label(protocol, host));
    let at = vec![[10, 0, 0, 2].into()];
    States { jail: Some(jail.label()), mapping, ports: Some((protocol, host)), at, ..States::default() }
}

#[test]
fn status_reports_each_anchor_call() {
    let fake = Fake::new();
    let all = Status { enabled: true, nat_anchor: true, rdr_anchor: true, anchor: true };
    assert_eq!(native(&fake).status().unwrap(), all);
    // longer than the first buffer
    fake.set_padding(40_000);
    fake.set_running(false);
    assert_eq!(native(&fake).status().unwrap(), Status { enabled: false, ..all });
    fake.set_padding(2_000_000);
    assert_eq!(native(&fake).status().unwrap_err().errno(), Some(libc::ENOSPC));

    // an anchor call of another tool is not one of kport's
    let fake = Fake::default();
    assert_eq!(native(&fake).status().unwrap_err().errno(), Some(libc::EINVAL));
    fake.call_anchor(8, "rdr/*");
    fake.call_anchor(0, "/kport/*");
    fake.call_anchor(4, "kport/web");
    let status = || native(&fake).status().unwrap();
    assert_eq!(status(), Status { enabled: false, nat_anchor: false, rdr_anchor: false, anchor: true });
    fake.call_anchor(4, "kport");
    assert_eq!(status(), Status { enabled: false, nat_anchor: true, rdr_anchor: false, anchor: true });
}

/// The kernel's answer is that of a program that loads at the same time, EBUSY, but waiting does not help.
#[test]
fn a_tag_for_which_there_is_no_number_is_reported_at_once() {
    let fake = Fake::new();
    let native = native(&fake);
    native.replace(&anchor("web"), &web()).unwrap();
    fake.use_every_tag();
    let calls = fake.calls_of(|| {
        let error = native.replace(&anchor("db"), &web()).unwrap_err();
        assert_eq!(error.kind(), Kind::System);
        assert!(error.message().contains("TAGID_MAX") && !error.message().contains("another program"), "{error}");
    });
    assert_eq!(calls.iter().filter(|call| **call == "DIOCXBEGIN").count(), 1, "{calls:?}");
    assert!(native.loaded(&anchor("db"), false).unwrap().is_empty());
    // rules without a tag are loaded
    let direct: Vec<Rule> = web().into_iter().filter(|rule| !rule.to_string().contains("tag")).collect();
    assert!(!direct.is_empty());
    native.replace(&anchor("db"), &direct).unwrap();
    // another program is something else, and is waited for
    fake.refuse("DIOCADDRULE", 1, libc::EBUSY);
    native.replace(&anchor("db"), &direct).unwrap();
}

#[test]
fn a_reply_that_is_not_an_nvlist_is_an_error() {
    struct Garbage(Vec<u8>);
    impl Kernel for Garbage {
        fn call(&self, call: Call<'_>) -> Result<(), Failure> {
            match call {
                Call::GetStatus(nv) => {
                    nv.buffer[..self.0.len()].copy_from_slice(&self.0);
                    nv.length = self.0.len();
                    Ok(())
                }
                other => Err(Failure::new(other.name(), libc::EIO)),
            }
        }
    }
    let wrong = List::new().with("running", Value::Number(1)).encode();
    for reply in [vec![], vec![0; 100], vec![0xff; 19], wrong] {
        let error = Native::over(Garbage(reply), soon()).status().unwrap_err();
        assert!(error.message().starts_with("DIOCGETSTATUSNV"), "{error}");
    }
    // a length beyond the buffer is not used
    struct Long;
    impl Kernel for Long {
        fn call(&self, call: Call<'_>) -> Result<(), Failure> {
            if let Call::GetStatus(nv) = call {
                nv.length = usize::MAX;
            }
            Ok(())
        }
    }
    assert!(Native::over(Long, soon()).status().is_err());
}

// ---- other tools

fn foreign(rule: &Rule, change: impl FnOnce(&mut [u8])) -> Stored {
    let mut bytes = packed(rule, 0, 0).as_bytes().to_vec();
    change(&mut bytes[RULE..]);
    let mut address = PfiocPooladdr::new_zeroed();
    let pool = if encode::target(rule, &mut address) { vec![address.as_bytes().to_vec()] } else { vec![] };
    Stored { bytes, pool, nat: None, anchor_call: String::new(), counters: [0; 6] }
}

fn called(anchor_call: &str) -> Stored {
    calling(8, anchor_call)
}

fn calling(action: u8, anchor_call: &str) -> Stored {
    Stored { anchor_call: anchor_call.to_owned(), ..blank(action) }
}

/// The places of those whose text has this start.
fn places(found: &[ForeignRedirect], start: &str) -> Vec<Place> {
    found.iter().filter(|one| one.text.starts_with(start)).map(|one| one.place).collect()
}

#[test]
fn redirects_of_others_are_found_wherever_they_are() {
    let fake = Fake::new();
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    let rule = |place: &str, protocol, ports: &str| {
        published("x", vec![redirect(place, protocol, ports, "10.9.9.9", ports)]).remove(0)
    };
    let plain = |rule: Rule| foreign(&rule, |_| {});
    fake.hold("", plain(rule("em0", Protocol::Tcp, "80")));
    // no rdr, icmp: no conflict is possible
    fake.hold("", foreign(&rule("em0", Protocol::Tcp, "81"), |rule| rule[at::ACTION] = 9));
    fake.hold("", foreign(&rule("em0", Protocol::Tcp, "82"), |rule| rule[at::PROTO] = 1));
    // called by name and by wildcard, nested; and a tool's anchor that nothing calls, or that is called for filter rules only
    fake.hold("", called("mine"));
    fake.hold("mine", plain(rule("192.0.2.1", Protocol::Udp, "53")));
    fake.hold("mine", called("deeper/*"));
    fake.hold("mine/deeper/a", plain(rule("*", Protocol::Tcp, "8000-8010")));
    fake.hold("", called("gone"));
    fake.hold("rdr/jail", plain(rule("em1", Protocol::Sctp, "9")));
    fake.hold("", calling(8, "appjail-rdr/*"));
    fake.hold("appjail-rdr/jail", plain(rule("em1", Protocol::Sctp, "9")));
    fake.hold("", calling(0, "filters"));
    fake.hold("filters", plain(rule("em1", Protocol::Tcp, "10")));
    // rdr-to, of 15; and route-to, whose addresses 14 returns instead
    let pass = |tcp_port: &str, route| {
        foreign(&rule("em0", Protocol::Tcp, tcp_port), |rule| (rule[at::ACTION], rule[at::RT]) = (0, route))
    };
    fake.hold("filters", pass("443", 0));
    fake.hold("filters", pass("444", 2));
    // an address of another machine; a binat without an address could be of a later release
    let given = |place: &str| {
        let mut stored = foreign(&rule("em0", Protocol::Tcp, "80"), |rule| {
            (rule[at::ACTION], rule[at::PROTO]) = (6, 0);
            // from 10.9.9.9 to any
            rule[..at::DST_END].fill(0);
            rule[at::SRC + at::ADDR..][..4].copy_from_slice(&[10, 9, 9, 9]);
            rule[at::SRC + at::MASK..][..16].fill(0xff);
            // no port
            rule[at::PROXY_PORT..][..4].fill(0);
        });
        stored.pool = foreign(&published("x", vec![redirect("em0", Protocol::Tcp, "80", place, "80")])[0], |_| {}).pool;
        stored
    };
    fake.hold("", given("192.0.2.7"));
    fake.hold("", calling(6, "given"));
    fake.hold("given", given("192.0.2.8"));
    // in a circle
    fake.hold("mine/deeper/a", called("/mine"));

    let found = native(&fake).foreign_redirects().unwrap();
    // a kernel that does not return the addresses, and has no rdr-to: the rdr rules are found
    fake.set_14();
    fake.refuse("DIOCGETADDRS", usize::MAX, libc::ENODEV);
    let without = native(&fake).foreign_redirects().unwrap();
    assert_eq!(places(&without, "rdr "), places(&found, "rdr "));
    // the address of binat is unknown: any that is reached through its interface
    let em0 = "em0".parse::<Place>().unwrap();
    assert_eq!(places(&without, "binat "), [em0, em0]);
    assert_eq!(without.len(), 6);
    assert!(without.iter().all(|one| one.text.contains("-> \"?\"")), "{without:?}");
    fake.heal();
    let expected = |anchor: &str, protocol, place: &str, ports: &str, text: &str| ForeignRedirect {
        anchor: anchor.to_owned(),
        family: Some(Family::Inet),
        protocol: Some(protocol),
        place: place.parse().unwrap(),
        any_address: text.contains(" to any") || text.contains(" to (self)"),
        ports: Some(ports.parse().unwrap()),
        text: text.to_owned(),
    };
    let binat = |anchor: &str, place: &str| ForeignRedirect {
        anchor: anchor.to_owned(),
        family: Some(Family::Inet),
        protocol: None,
        place: place.parse().unwrap(),
        any_address: false,
        ports: None,
        text: format!("binat on em0 inet from 10.9.9.9 to any tag \"kport:x\" -> {place}"),
    };
    assert_eq!(
        found,
        [
            binat("", "192.0.2.7"),
            expected(
                "",
                Protocol::Tcp,
                "em0",
                "80",
                "rdr on em0 inet proto tcp from any to (em0) port = 80 tag \"kport:x\" -> 10.9.9.9 port 80"
            ),
            expected(
                "appjail-rdr/jail",
                Protocol::Sctp,
                "em1",
                "9",
                "rdr on em1 inet proto sctp from any to (em1) port = 9 tag \"kport:x\" -> 10.9.9.9 port 9"
            ),
            expected(
                "filters",
                Protocol::Tcp,
                "em0",
                "443",
                "pass on em0 inet proto tcp from any to (em0) port = 443 no state tag \"kport:x\" rdr-to 10.9.9.9 port 443"
            ),
            binat("given", "192.0.2.8"),
            expected(
                "mine",
                Protocol::Udp,
                "192.0.2.1",
                "53",
                "rdr inet proto udp from any to 192.0.2.1 port = 53 tag \"kport:x\" -> 10.9.9.9 port 53"
            ),
            expected(
                "mine/deeper/a",
                Protocol::Tcp,
                "*",
                "8000-8010",
                "rdr inet proto tcp from any to (self) port 8000:8010 tag \"kport:x\" -> 10.9.9.9 port 8000:8010"
            ),
        ]
    );
}

#[test]
fn a_foreign_redirect_with_unknown_parts_counts_as_wider() {
    let fake = Fake::new();
    let rule = &published("x", vec![redirect("192.0.2.1", Protocol::Tcp, "80", "10.9.9.9", "80")])[0];
    let place = |change: fn(&mut [u8])| {
        let fake = Fake::new();
        fake.hold("", foreign(rule, change));
        native(&fake).foreign_redirects().unwrap().remove(0)
    };
    // rdr pass all
    let all = place(|rule| {
        rule[at::DST..at::DST_END].fill(0);
        (rule[at::NATPASS], rule[at::AF], rule[at::PROTO]) = (1, 0, 0);
    });
    assert_eq!((all.family, all.protocol, all.place, all.ports), (None, None, Place::Any, None));
    assert_eq!(all.text, "rdr pass all tag \"kport:x\" -> 10.9.9.9 port 80");
    // to ! 192.0.2.1
    let not = place(|rule| rule[at::DST + at::NEG] = 1);
    assert_eq!((not.family, not.place), (Some(Family::Inet), Place::Any));
    assert_eq!(not.text, "rdr inet proto tcp from any to ! 192.0.2.1 port = 80 tag \"kport:x\" -> 10.9.9.9 port 80");
    // on ! em0
    let elsewhere = place(|rule| {
        rule[at::DST..][..at::WRAP].fill(0);
        rule[at::IFNAME..][..3].copy_from_slice(b"em0");
        rule[at::IFNOT] = 1;
    });
    assert_eq!(elsewhere.place, Place::Any);
    assert_eq!(
        elsewhere.text,
        "rdr on ! em0 inet proto tcp from any to any port = 80 tag \"kport:x\" -> 10.9.9.9 port 80"
    );
    // a network, without a family
    let network = place(|rule| {
        rule[at::DST + at::MASK..][..16].fill(0);
        rule[at::DST + at::MASK..][..3].fill(0xff);
        rule[at::DST + at::ADDR + 3] = 0;
        rule[at::AF] = 0;
    });
    assert_eq!((network.family, network.place), (None, Place::Any));
    assert_eq!(network.text, "rdr proto tcp from any to 192.0.2.0/24 port = 80 tag \"kport:x\" -> 10.9.9.9 port 80");
    assert_eq!(native(&fake).foreign_redirects().unwrap(), []);
}

// ---- the calls

/// The numbers that the kernel's own headers gave for amd64 and arm64.
#[test]
fn the_numbers_of_the_calls_are_those_of_the_kernels_headers() {
    let mut trans = [PfiocTransE::new_zeroed(); 3];
    let mut rule = PfiocRule::new_zeroed();
    let mut address = PfiocPooladdr::new_zeroed();
    let mut ruleset = PfiocRuleset::new_zeroed();
    let mut table = PfiocTable::new_zeroed();
    let mut nv = Nv { buffer: vec![], length: 0 };
    assert_eq!(Call::XBegin(&mut trans).number(), 0xc010_4451);
    assert_eq!(Call::XCommit(&mut trans).number(), 0xc010_4452);
    assert_eq!(Call::XRollback(&mut trans).number(), 0xc010_4453);
    assert_eq!(Call::BeginAddrs(&mut address).number(), 0xc470_4433);
    assert_eq!(Call::AddAddr(&mut address).number(), 0xc470_4434);
    assert_eq!(Call::AddRule(&mut rule).number(), 0xcbe0_4404);
    assert_eq!(Call::GetRules(&mut rule).number(), 0xcbe0_4406);
    assert_eq!(Call::ChangeRule(&mut rule).number(), 0xcbe0_441a);
    assert_eq!(Call::GetRule(&mut nv).number(), 0xc018_4407);
    assert_eq!(Call::GetRulesets(&mut ruleset).number(), 0xc444_443a);
    assert_eq!(Call::GetRuleset(&mut ruleset).number(), 0xc444_443b);
    assert_eq!(Call::GetStatus(&mut nv).number(), 0xc018_4415);
    assert_eq!(Call::KillStates(&mut nv).number(), 0xc018_4429);
    assert_eq!(Call::GetStates(&mut [], &mut 0).number(), 0xc018_445d);
    assert_eq!(Call::GetTable(&mut table, &mut []).number(), 0xc450_4446);
    assert_eq!(Call::GetSyncookies(&mut nv).number(), 0xc018_445e);
    assert_eq!(Call::GetEtherRules(&mut nv).number(), 0xc018_4463);
    assert_eq!(Call::GetInterfaces(&mut [], &mut 0).number(), 0xc028_4457);
}

#[test]
fn an_error_says_the_call_the_errno_the_rule_and_what_to_do() {
    let error = Error::from(Failure::new("DIOCADDRULE", libc::ENODEV).about("pass quick all"));
    assert_eq!((error.kind(), error.errno()), (Kind::Unsupported, Some(libc::ENODEV)));
    for part in ["DIOCADDRULE: ", "pass quick all", "--backend pfctl"] {
        assert!(error.message().contains(part), "{error}");
    }
    let kind = |call, errno| Error::from(Failure::new(call, errno)).kind();
    assert_eq!(kind(OPEN, libc::ENOENT), Kind::Unavailable);
    assert_eq!(kind(OPEN, libc::EACCES), Kind::Permission);
    assert_eq!(kind("DIOCXBEGIN", libc::EPERM), Kind::Permission);
    assert_eq!(kind("DIOCXCOMMIT", libc::EBUSY), Kind::Busy);
    assert_eq!(kind("DIOCGETRULENV", libc::ENOENT), Kind::System);
}

// ---- the probe

#[test]
fn the_probe_changes_nothing_and_reports_why_not() {
    let fake = Fake::new();
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    let was = held(&fake, &anchor("web"));
    let calls = fake.calls_of(|| probe(&fake).unwrap());
    assert_eq!(calls, ["DIOCGETETHRULES", "DIOCADDRULE"]);
    assert_eq!(held(&fake, &anchor("web")), was);
    assert!(!fake.left_open("kport/web"));
    for (call, errno, kind) in [
        ("DIOCGETETHRULES", libc::ENODEV, Kind::Unsupported),
        ("DIOCADDRULE", libc::ENODEV, Kind::Unsupported),
        ("DIOCADDRULE", libc::ENOTTY, Kind::Unsupported),
        ("DIOCGETETHRULES", libc::EACCES, Kind::Permission),
    ] {
        fake.refuse(call, 1, errno);
        let error = probe(&fake).unwrap_err();
        assert_eq!((error.kind(), error.errno()), (kind, Some(errno)));
        assert!(error.message().starts_with(call), "{error}");
    }
    // a process that may only read pf, by its descriptor or by kern.securelevel, gets the error when it changes something
    for errno in [libc::EACCES, libc::EPERM] {
        fake.refuse("DIOCADDRULE", 2, errno);
        probe(&fake).unwrap();
        assert_eq!(native(&fake).replace(&anchor("db"), &web()).unwrap_err().kind(), Kind::Permission);
        assert_eq!(native(&fake).anchors().unwrap(), ["web"]);
    }
    // a kernel that accepts anything is not usable
    struct Yes;
    impl Kernel for Yes {
        fn call(&self, _: Call<'_>) -> Result<(), Failure> {
            Ok(())
        }
    }
    assert_eq!(probe(&Yes).map_err(|error: Error| error.kind()), Err(Kind::Unsupported));
}

#[cfg(not(target_os = "freebsd"))]
#[test]
fn there_is_no_device_elsewhere() {
    let error = Native::probe(soon()).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains(std::env::consts::OS), "{error}");
}

#[test]
fn a_ticket_is_not_part_of_a_stored_rule() {
    let fake = Fake::new();
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    let stored = &fake.active("kport/web", RDR)[0];
    assert_eq!((u32_at(&stored.bytes, 4), u32_at(&stored.pool[0], 4)), (0, 0));
}

/// `set skip on`, in the structs of the kernel.
#[test]
fn skipped_interfaces() {
    let fake = Fake::new();
    let skipped = || {
        let main = native(&fake).main_ruleset().unwrap();
        main.unread.is_empty().then(|| main.skip.clone())
    };
    fake.set_interfaces(&[]);
    // an answer without the group of all interfaces is from another kernel
    assert_eq!(skipped(), None);
    fake.set_interfaces(&[("all", false, false), ("lo0", false, true)]);
    assert_eq!(skipped(), None);
    fake.set_interfaces(&[("all", true, false), ("em0", false, false), ("lo", true, true), ("lo0", false, true)]);
    assert_eq!(skipped(), Some(vec!["lo".to_owned(), "lo0".to_owned()]));
    // more than the first buffer has room for
    let names: Vec<String> = (0..300).map(|n| format!("epair{n}a")).collect();
    let mut many: Vec<_> = names.iter().map(|name| (name.as_str(), false, false)).collect();
    many.extend([("all", true, false), ("vnet0", false, true)]);
    fake.set_interfaces(&many);
    assert_eq!(skipped(), Some(vec!["vnet0".to_owned()]));
    fake.set_other_kif();
    assert_eq!(skipped(), None);
}

#[test]
fn tables() {
    let fake = Fake::new();
    let has = |name: &str| native(&fake).has_table(&name.parse().unwrap());
    assert!(!has("friends").unwrap());
    fake.set_table("", "friends", &["10.0.0.0/8", "!10.1.0.0/16", "fd00::1/128"]);
    fake.set_table("", "empty", &[]);
    fake.set_table("kport/web", "friend", &[]);
    assert!(has("friends").unwrap() && has("empty").unwrap() && !has("friend").unwrap());
    fake.refuse("DIOCRGETADDRS", 1, libc::EACCES);
    let error = has("friends").unwrap_err();
    assert_eq!(error.kind(), Kind::Permission);
    assert!(error.message().contains("table <friends>"), "{error}");
}

/// Everything that needs rules of others reads them from the kernel.
#[test]
fn publish_list_doctor_and_trace_ask_the_kernel_alone() {
    let fake = Fake::new();
    fake.set_interfaces(&[("all", true, false), ("em0", false, false), ("lo", true, true)]);
    let mut rig = Rig::new();
    rig.host.sysctls.insert("kern.osreldate".to_owned(), 1_501_502);
    let web = Request { addresses: vec!["10.0.0.2".parse().unwrap()], ..request("web", "8080:80") };
    let outcome = rig.with(&native(&fake), &Unobserved, |p| p.publish(&web)).unwrap();
    assert!(outcome.changed && outcome.notes.is_empty(), "{outcome:?}");
    let list = rig.with(&native(&fake), &Unobserved, |p| p.list(None)).unwrap();
    assert!(list.len() == 1 && list[0].liveness == Liveness::Live, "{list:?}");
    let findings = doctor::examine(&rig.host, &native(&fake), Store::open(rig.path()), None);
    let problems: Vec<_> = findings.iter().filter(|finding| finding.level == Level::Problem).collect();
    assert!(problems.is_empty(), "{problems:?}");
    let mut world = World::of_pf(&rig.host, &native(&fake), Release::V15).unwrap();
    let client = Party::Network("em0".parse().unwrap());
    let (from, to) = ("203.0.113.9:4000".parse().unwrap(), "192.0.2.1:8080".parse().unwrap());
    let trace = world.trace(&client, Protocol::Tcp, from, to);
    assert_eq!(trace.delivered_to, Some((Party::Jail("web".to_owned()), "10.0.0.2:80".parse().unwrap())));
}

/// The backend has no code that starts a program.
#[test]
fn native_names_no_program() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pf");
    let files = std::fs::read_dir(src.join("native")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.is_file()).chain([src.join("native.rs")]).collect();
    assert!(files.len() > 10);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["process::Command", "crate::child", "Pfctl", "super::pfctl"] {
            assert!(!text.contains(word), "{} in {}", word, path.display());
        }
    }
}

/// The rulesets: every anchor that is called, each with its tables.
#[test]
fn rulesets_are_read_with_their_tables() {
    let fake = Fake::new();
    native(&fake).replace(&anchor("web"), &web()).unwrap();
    let table = |from: usize, name: &'static str| {
        move |rule: &mut [u8]| {
            rule[from..from + 48].fill(0);
            rule[from..from + name.len()].copy_from_slice(name.as_bytes());
            rule[from + 40] = 3;
        }
    };
    let rule = || web().remove(0);
    // an anchor in braces, one that is called from there, one that nothing calls; a circle
    fake.hold("", calling(0, "_1"));
    fake.hold("_1", calling(0, "../deep/*"));
    fake.hold("kport", calling(0, "web"));
    fake.hold("deep/a", called("/deep/a"));
    fake.hold("deep/a", foreign(&rule(), table(0, "good")));
    fake.hold("deep/b", foreign(&rule(), table(0, "main")));
    fake.hold("alone", foreign(&rule(), |_| {}));
    fake.set_table("deep/a", "good", &["10.0.0.0/8", "!10.1.0.0/16", "fd00::1/128"]);
    fake.set_table("", "main", &["192.0.2.1/32"]);
    fake.set_table("", "unused", &["192.0.2.2/32"]);
    fake.set_interfaces(&[("all", true, false), ("em0", false, false), ("lo", true, true)]);
    fake.set_syncookies(true);
    fake.set_ether_rules(3);
    let shown = |fake: &Fake| -> Vec<(String, String)> {
        let rulesets = native(fake).rulesets(true).unwrap();
        rulesets.into_iter().map(|(path, conf)| (path, conf.to_string())).collect()
    };
    let found = shown(&fake);
    let of = |path: &str| &found.iter().find(|(known, _)| known == path).expect(path).1;
    assert_eq!(found[0].0, "");
    let mut paths: Vec<_> = found[1..].iter().map(|(path, _)| path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["_1", "deep/a", "deep/b", "kport", "kport/web"]);
    assert_eq!(
        of(""),
        "set syncookies always\nset skip on lo\ntable <main> { 192.0.2.1 }\n3 rules\nnat-anchor \"kport\" all\n\
         rdr-anchor \"kport\" all\nanchor \"kport\" all\nanchor all {\n  anchor \"../deep/*\" all\n}\n"
    );
    assert!(
        of("deep/a").starts_with("table <good> { 10.0.0.0/8 ! 10.1.0.0/16 fd00::1 }\nrdr-anchor \"/deep/a\" all\n")
    );
    assert!(of("deep/b").starts_with("rdr on em0 inet proto tcp from <main> to (em0) port = 8080"));
    // as in the publication, except for the second label, for which the struct has no room
    let expected: Conf = web().iter().flat_map(expanded).collect::<Vec<_>>().join("\n").parse().unwrap();
    assert_eq!(of("kport/web"), &expected.to_string());
    // 14 returns the same
    fake.set_14();
    assert_eq!(shown(&fake), found);
}

/// A table that the kernel does not return, because of net.pf.request_maxcount, is unknown.
#[test]
fn a_table_that_is_too_large_cannot_be_decided() {
    let fake = Fake::new();
    let from = |rule: &mut [u8]| {
        rule[..3].copy_from_slice(b"big");
        (rule[40], rule[904], rule[912]) = (3, 1, 0);
    };
    let mut block = foreign(&web()[1], from);
    block.pool.clear();
    fake.hold("", block);
    fake.set_table("", "big", &["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"]);
    let main = |fake: &Fake| native(fake).rulesets(true).unwrap()[0].1.to_string();
    assert!(main(&fake).contains("table <big> { 10.0.0.1 10.0.0.2 10.0.0.3 }"));
    fake.set_most(2);
    assert!(main(&fake).contains("table <big> { \"table <big>, which has 3 addresses,\" }"));
}

/// The settings have no ticket: a change of them alone is noticed, also with `pfctl -f` of the same rules.
#[test]
fn settings_are_read_each_time() {
    let fake = Fake::new();
    let dir = tempfile::tempdir().unwrap();
    let native = || native(&fake).with_cache(dir.path().to_owned(), "first".to_owned());
    let main = || native().main_ruleset().unwrap();
    assert!(main().skip.is_empty());
    fake.set_interfaces(&[("all", true, false), ("lo", true, true)]);
    assert_eq!(main().skip, ["lo"]);
    let calls = fake.calls_of(|| assert_eq!(main(), main()));
    assert!(!calls.iter().any(|call| call.contains("RULENV") || call.starts_with("PFNL")), "{calls:?}");
    fake.set_other_kif();
    assert_eq!(main().unread.len(), 1);
}

/// An anchor in braces can be loaded by itself: it has its own tickets.
#[test]
fn a_call_in_braces_is_seen() {
    let fake = Fake::default();
    fake.call_anchor(8, "kport/*");
    fake.call_anchor(4, "kport/*");
    fake.hold("", calling(0, "_1"));
    let native = native(&fake);
    let status = || native.status().unwrap();
    assert!(!status().anchor);
    fake.hold("_1", calling(0, "../kport/*"));
    assert!(status().anchor);
    fake.hold("_1", calling(0, "../other"));
    assert!(status().anchor);
}

/// A program that closes descriptors by number: the device is opened again, and the file that has the number now is not used.
#[test]
fn a_descriptor_that_another_file_has_now() {
    use std::os::fd::AsRawFd;
    let (null, zero) = (Path::new("/dev/null"), std::fs::File::open("/dev/zero").unwrap());
    let descriptor = Descriptor::closed();
    let first = descriptor.get(null).unwrap().as_raw_fd();
    assert!(first > 2);
    assert_eq!(descriptor.get(null).unwrap().as_raw_fd(), first);
    // SAFETY: nothing else in this test uses the number
    assert_eq!(unsafe { libc::dup2(zero.as_raw_fd(), first) }, first);
    let second = descriptor.get(null).unwrap().as_raw_fd();
    assert_ne!(second, first);
    assert_eq!(descriptor.get(null).unwrap().as_raw_fd(), second);
    // SAFETY: reads a flag, and closes the descriptor that dup2 created
    unsafe {
        assert_ne!(libc::fcntl(first, libc::F_GETFD), -1, "the host's was closed");
        libc::close(first);
    }
    // a process that may only read
    let dir = tempfile::tempdir().unwrap();
    let missing = Descriptor::closed().get(&dir.path().join("pf")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
}
