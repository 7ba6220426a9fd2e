//! What the kernel would say of a rule is read as that rule.

use kport::net::{Direction, Family};
use kport::pf::native::decode::{self, Addresses, pool_address};
use kport::pf::native::encode::octets;
use kport::pf::native::nv::{List, Value};
use kport::pfconf::Conf;
use kport::pfconf::address::{Operand, Operator, Part, Pool, PoolAddress, PoolKind, Side};
use kport::pfconf::rule::{Action, Owner, RouteKind, Rule, RuleKind};
use proptest::prelude::*;

fn number(value: impl Into<u64>) -> Value {
    Value::Number(value.into())
}

fn blob(bytes: [u8; 16]) -> Value {
    Value::List(List::new().with("addr", Value::Binary(bytes.to_vec())))
}

/// So many ones, then zeros.
fn ones(bits: u8) -> [u8; 16] {
    (u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)).to_be_bytes()
}

/// pf_addr_wrap_to_nvaddr_wrap
fn wrap(operand: &Operand, family: Option<Family>) -> List {
    let (kind, iflags, addr, mask) = match operand {
        Operand::Any => (0, 0, [0; 16], [0; 16]),
        Operand::Network(network) => (0, 0, octets(network.addr()), octets(network.netmask())),
        Operand::Range(first, last) => (5, 0, octets(*first), octets(*last)),
        Operand::NoRoute => (1, 0, [0; 16], [0; 16]),
        Operand::UrpfFailed => (4, 0, [0; 16], [0; 16]),
        Operand::Table(_) => (3, 0, [7; 16], [7; 16]),
        Operand::Interface(of) => {
            let part = match of.part {
                Part::Address => 0,
                Part::Network => 1,
                Part::Broadcast => 2,
                Part::Peer => 4,
            };
            let whole = if family == Some(Family::Inet) { 32 } else { 128 };
            (2, part | if of.first { 8 } else { 0 }, [7; 16], ones(of.bits.unwrap_or(whole)))
        }
        Operand::Named(name) => panic!("{name} is not what a kernel has"),
    };
    let list = List::new().with("type", number(kind as u8)).with("iflags", number(iflags as u8));
    let list = match operand {
        Operand::Interface(of) => list.with("ifname", Value::String(of.name.clone())).with("dyncnt", number(1u8)),
        Operand::Table(name) => list.with("tblname", Value::String(name.clone())).with("tblcnt", number(1u8)),
        _ => list,
    };
    list.with("addr", blob(addr)).with("mask", blob(mask))
}

fn op(operator: Operator) -> u8 {
    match operator {
        Operator::Between => 1,
        Operator::Equal => 2,
        Operator::NotEqual => 3,
        Operator::Less => 4,
        Operator::AtMost => 5,
        Operator::Greater => 6,
        Operator::AtLeast => 7,
        Operator::Outside => 8,
        Operator::Range => 9,
    }
}

fn side_of(side: &Side, family: Option<Family>) -> Value {
    let network = |port: u16| u64::from(port.to_be());
    let (op, ports) = side.ports.map_or((0, [0, 0]), |p| (op(p.operator), [network(p.a), network(p.b)]));
    Value::List(
        List::new()
            .with("addr", Value::List(wrap(&side.address, family)))
            .with("port", Value::Numbers(ports.to_vec()))
            .with("neg", number(u8::from(side.not)))
            .with("port_op", number(op)),
    )
}

fn owner_of(owner: Option<&Owner>) -> Value {
    let (op, ids) = match owner {
        None => (0, [0, 0]),
        Some(Owner { operator, a, b }) => {
            let a = if a == "unknown" { u32::MAX } else { a.parse().unwrap() };
            (op(*operator), [a, b.parse().unwrap_or(0)])
        }
    };
    Value::List(List::new().with("uid", Value::Numbers(ids.map(u64::from).to_vec())).with("op", number(op)))
}

/// pf_pool_to_nvpool
fn pool_of(pool: Option<&Pool>) -> Value {
    let pool = pool.cloned().unwrap_or_default();
    let (kind, key) = match &pool.kind {
        PoolKind::Single => (0, vec![0; 16]),
        PoolKind::Bitmask => (1, vec![0; 16]),
        PoolKind::Random => (2, vec![0; 16]),
        PoolKind::SourceHash(key) => {
            let key = u128::from_str_radix(key.trim_start_matches("0x"), 16).unwrap().to_be_bytes();
            (3, key.chunks(4).flat_map(|word| word.iter().rev().copied()).collect())
        }
        PoolKind::RoundRobin => (4, vec![0; 16]),
    };
    let bits = [(pool.sticky, 0x20), (pool.endpoint_independent, 0x40), (pool.prefer_ipv6_nexthop, 0x80)];
    let opts = bits.iter().filter(|(is, _)| *is).fold(kind, |opts, (_, bit)| opts | bit);
    let (offset, length, id) = pool.portset.unwrap_or_default();
    let mape = List::new().with("offset", number(offset)).with("psidlen", number(length)).with("psid", number(id));
    Value::List(
        List::new()
            .with("key", Value::Binary(key))
            .with("counter", blob([9; 16]))
            .with("tblidx", number(0u8))
            .with("proxy_port", Value::Numbers(vec![pool.ports.0.into(), pool.ports.1.into()]))
            .with("opts", number(opts as u8))
            .with("mape", Value::List(mape)),
    )
}

/// What 15 says of `rule`: pf_krule_to_nvrule, and what netlink says beside it, and the addresses of its pools.
fn said(rule: &Rule) -> (List, Addresses) {
    let when = &rule.when;
    let effects = &rule.effects;
    let (mut call, mut rdr, mut natpass) = (String::new(), effects.rdr_to.as_ref(), false);
    let action: u8 = match &rule.action {
        Action::Pass => 0,
        Action::Block => 1,
        Action::Match => 12,
        Action::Translate { kind, pool, pass } => {
            (rdr, natpass) = (pool.as_ref(), *pass);
            let no = u8::from(pool.is_none());
            match kind {
                RuleKind::Nat => 4 + no,
                RuleKind::Binat => 6 + no,
                RuleKind::Rdr => 8 + no,
                RuleKind::Filter => panic!("a filter rule translates"),
            }
        }
        Action::Call(kind, called) => {
            call.clone_from(called);
            match kind {
                RuleKind::Filter => 0,
                RuleKind::Nat => 4,
                RuleKind::Binat => 6,
                RuleKind::Rdr => 8,
            }
        }
    };
    let mut nat = effects.nat_to.as_ref();
    let mut naf = 0;
    let af = |family: Option<Family>| family.map_or(0, |family| if family == Family::Inet { 2u8 } else { 28 });
    let mut rule_flag = if when.fragment { 2u32 } else { 0 };
    if let Some((family, source, target)) = &effects.af_to {
        (naf, nat, rdr) = (af(Some(*family)), Some(source), target.as_ref());
        rule_flag |= 0x0020_0000;
    }
    let keep = effects.keep.unwrap_or_default();
    rule_flag |= if keep.if_bound { 0x0001_0000 } else { 0 };
    let keep_state: u8 = effects.keep.map_or(0, |keep| if keep.synproxy { 3 } else { 1 });
    let (rt, route) = match &effects.route {
        None => (0u8, None),
        Some((RouteKind::Packets, pool)) => (2, Some(pool)),
        Some((RouteKind::Copies, pool)) => (3, Some(pool)),
        Some((RouteKind::Replies, pool)) => (4, Some(pool)),
    };
    let percent = |text: &String| text.trim_end_matches('%').parse::<f64>().unwrap();
    let prob = when.probability.as_ref().map_or(0, |text| (percent(text) / 100.0 * 4_294_967_296.0).round() as u32);
    let text = |text: Option<&str>| Value::String(text.unwrap_or_default().to_owned());
    let mut labels = rule.labels.clone();
    labels.resize(5, String::new());
    let on = when.on.as_ref();
    let (flags, flagset) = when.flags.unwrap_or_default();
    let (kind, code) = match when.icmp {
        None => (0, 0),
        Some((kind, code)) => (u16::from(kind) + 1, code.map_or(0, |code| u16::from(code) + 1)),
    };
    let received = when.received_on.as_ref();
    let (limit, seconds) = when.max_pkt_rate.unwrap_or_default();
    let divert = List::new().with("addr", blob([0; 16])).with("port", number(effects.divert.unwrap_or(0).to_be()));
    let list = List::new()
        .with("src", side_of(&when.from, when.family))
        .with("dst", side_of(&when.to, when.family))
        .with("labels", Value::Strings(labels))
        .with("ifname", text(on.map(|on| on.name.as_str())))
        .with("ifnot", number(u8::from(on.is_some_and(|on| on.not))))
        .with("tagname", text(rule.tag.as_deref()))
        .with("match_tagname", text(when.tagged.as_ref().map(|(_, tag)| tag.as_str())))
        .with("match_tag_not", number(u8::from(when.tagged.as_ref().is_some_and(|(not, _)| *not))))
        .with("rpool", pool_of(rdr))
        .with("nat", pool_of(nat))
        .with("route", pool_of(route))
        .with("os_fingerprint", number(0u8))
        .with("rtableid", number(effects.rtable.map_or(u64::MAX, u64::from)))
        .with("max_states", number(keep.limits[0]))
        .with("max_src_nodes", number(keep.limits[3]))
        .with("max_src_states", number(keep.limits[1]))
        .with("max_src_conn", number(keep.limits[2]))
        .with("max_src_conn_rate.limit", number(keep.max_src_conn_rate.0))
        .with("max_src_conn_rate.seconds", number(keep.max_src_conn_rate.1))
        .with("prob", number(prob))
        .with("uid", owner_of(when.user.as_ref()))
        .with("gid", owner_of(when.group.as_ref()))
        .with("rule_flag", number(rule_flag))
        .with("action", number(action))
        .with("direction", number(when.direction.map_or(0u8, |d| if d == Direction::In { 1 } else { 2 })))
        .with("log", number(u8::from(rule.log)))
        .with("quick", number(u8::from(rule.quick)))
        .with("natpass", number(u8::from(natpass)))
        .with("keep_state", number(keep_state))
        .with("af", number(af(when.family)))
        .with("naf", number(naf))
        .with("proto", number(when.protocol.unwrap_or(0)))
        .with("type", number(kind))
        .with("code", number(code))
        .with("flags", number(flags))
        .with("flagset", number(flagset))
        .with("rt", number(rt))
        .with("tos", number(when.tos.unwrap_or(0)))
        .with("prio", number(when.prio.map_or(0, |prio| if prio == 0 { 0xff } else { prio })))
        .with("divert", Value::List(divert))
        .with("rcv_ifname", text(received.map(|on| on.name.as_str())))
        .with("rcv_ifnot", number(u8::from(received.is_some_and(|on| on.not))))
        .with("pktrate", Value::List(List::new().with("limit", number(limit)).with("seconds", number(seconds))))
        .with("max_pkt_size", number(effects.max_pkt_size))
        .with("anchor_call", Value::String(call));
    let of = |pool: Option<&Pool>| {
        let all = pool.map(|pool| pool.addresses.clone()).unwrap_or_default();
        // that of af-to is the other one
        let of_rule = effects.af_to.as_ref().map_or(when.family, |(family, ..)| Some(*family));
        let read = |at: &PoolAddress| {
            let family = at.address.as_ref().and_then(Operand::family);
            let wrap = match &at.address {
                Some(operand) => wrap(operand, of_rule),
                // route_host in sbin/pfctl/parse.y
                None => List::new()
                    .with("type", number(6u8))
                    .with("iflags", number(0u8))
                    .with("addr", blob([0; 16]))
                    .with("mask", blob([0xff; 16])),
            };
            let interface = at.interface.clone().unwrap_or_default();
            pool_address(&decode::wrap(&wrap).unwrap(), af(family).into(), af(of_rule).into(), &interface)
        };
        all.iter().map(read).collect()
    };
    (list, Addresses { rdr: of(rdr), nat: of(nat), route: of(route) })
}

/// The list with other values for some of its keys, and more of them.
fn with(list: &List, first: &[(&str, Value)]) -> List {
    let first = first.iter().map(|(name, value)| (*name, value));
    first.chain(list.pairs()).fold(List::new(), |list, (name, value)| list.with(name, value.clone()))
}

/// The rules that a text stands for come back from what the kernel says of them.
fn come_back(text: &str) -> Result<(), String> {
    let conf: Conf = text.parse().map_err(|error| format!("{text}: {error}"))?;
    assert!(!conf.rules().is_empty(), "{text}");
    for rule in conf.rules() {
        let (list, addresses) = said(rule);
        // as it is sent
        let list = List::decode(&list.encode(), &[]).unwrap();
        let read = decode::rule(&list, addresses).unwrap().unwrap();
        assert_eq!(read.to_string(), rule.to_string(), "{text}");
        assert_eq!(&read, rule, "{text}");
        // and what it is printed as
        let shown = Conf::of_output(&read.to_string());
        assert_eq!(shown.rules(), [read], "{text}");
    }
    Ok(())
}

#[test]
fn every_kind_of_rule_comes_back() {
    for text in [
        "pass all",
        "block drop in log quick on em0 all",
        "block return out on ! em0 inet all",
        "match in all tag x",
        "pass no state",
        "pass in quick on em0 inet proto tcp from 10.0.0.0/8 port 1:1023 to (em0) port = 443 flags S/SA keep state",
        "pass proto tcp from any port 1 >< 9 to any port 8 <> 11 flags any",
        "pass proto tcp to any port != 80",
        "pass proto tcp to any port < 80",
        "pass proto tcp to any port <= 80",
        "pass proto tcp to any port > 80",
        "pass proto tcp to any port >= 80",
        "pass inet from ! 10.0.0.1 to 192.0.2.1 - 192.0.2.9",
        "pass inet6 from fd00::/64 to 2001:db8::1",
        "pass inet6 from fd00::1 - fd00::ff to any",
        "pass from <good> to ! <bad>",
        "pass from no-route to any",
        "block in from urpf-failed to any",
        "pass from (em0:network) to (em0:broadcast)",
        "pass from (em0:peer) to (em0:0)",
        "pass inet from (em0:network:0) to (self)",
        "pass inet from (em0)/24 to any",
        "pass inet6 from (em0)/64 to any",
        "pass in inet proto icmp all icmp-type echoreq code 0",
        "pass in inet6 proto icmp6 all icmp6-type 135",
        "pass in inet proto icmp all icmp-type unreach",
        "pass out proto tcp all user = 1001",
        "pass out proto tcp all user > 999 group != 0",
        "pass out proto udp all user unknown",
        "pass out proto udp all user != unknown group 1 >< 9",
        "pass all tos 0x10 prio 0",
        "pass all prio 3",
        "pass all probability 25%",
        "pass all fragment",
        "pass all tag a",
        "pass all tagged a",
        "pass all ! tagged a",
        "pass all label \"one\" label \"two\"",
        "pass all rtable 5",
        "pass in proto tcp all divert-to 127.0.0.1 port 8000",
        "pass all keep state (max 10, max-src-states 3, max-src-nodes 4, if-bound)",
        "pass proto tcp all keep state (max-src-conn 10, max-src-conn-rate 15/5)",
        "pass proto tcp all synproxy state",
        "pass in on em0 received-on em1 all",
        "pass in all ! received-on em1",
        "block in all max-pkt-rate 100/10",
        "pass all max-pkt-size 1500",
        "pass out route-to em1 all",
        "pass out route-to (em1 192.0.2.254) inet all",
        "pass in reply-to { (em1 192.0.2.254), (em2 192.0.2.253) } round-robin sticky-address inet all",
        "pass in dup-to (em1 fd00::1) inet6 all",
        "pass out route-to { (em1 fd00::1) } prefer-ipv6-nexthop inet all",
        "pass out on em0 inet all nat-to 192.0.2.1",
        "pass out on em0 inet all nat-to (em0) port 1024:65535 endpoint-independent",
        "pass out on em0 inet all nat-to 192.0.2.1 static-port",
        "match out on em0 inet all nat-to 192.0.2.0/24 bitmask",
        "match out on em0 inet all nat-to <pool> random",
        "match out on em0 inet all nat-to 192.0.2.0/28 source-hash 0x00112233445566778899aabbccddeeff sticky-address",
        "match out on em0 inet all nat-to 192.0.2.1 map-e-portset 6/8/52",
        "pass in on em0 inet proto tcp to any port 80 rdr-to 10.0.0.1 port 8080",
        "pass in on em0 inet proto tcp to any port 80 rdr-to { 10.0.0.1, 10.0.0.2 }",
        "match on em0 inet from 10.0.0.2 to any binat-to 192.0.2.7",
        "pass in inet6 from any to 64:ff9b::/96 af-to inet from (em0)",
        "pass in inet6 from any to 64:ff9b::/96 af-to inet from 192.0.2.1 to 10.0.0.1",
        "nat on em0 inet from 10.0.0.0/8 to any -> (em0)",
        "nat on em0 inet from 10.0.0.0/8 to any -> (em0:0)",
        "nat on em0 inet from 10.0.0.0/8 to any -> { 192.0.2.1, 192.0.2.2 } static-port",
        "nat pass on em0 inet from 10.0.0.0/8 to any -> 192.0.2.1 port 1024",
        "no nat on em0 inet from 10.0.0.0/8 to 10.0.0.0/8",
        "rdr on em0 inet proto tcp from any to any port 80 -> 10.0.0.1 port 8080",
        "rdr pass log on em0 inet proto udp from any to any port 8000:8010 -> 10.0.0.1 port 9000:*",
        "rdr on em0 inet proto tcp from any to any port 80 -> <servers> round-robin sticky-address",
        "rdr on em0 proto tcp from any to any port 80 -> 10.0.0.0/30 source-hash 0x00000000000000000000000000000001",
        "no rdr on em0 proto tcp from any to any port 22",
        "binat on em0 inet from 10.0.0.2 to any -> 192.0.2.7",
        "binat pass on em0 inet from 10.0.0.2 to ! 10.0.0.0/8 -> 192.0.2.7",
        "no binat on em0 inet from 10.0.0.3 to any",
        "anchor \"kport/*\" all",
        "anchor \"a\" in on em0 inet proto tcp from any to any port 80",
        "anchor \"../b\" quick all",
        "nat-anchor \"kport/*\" all",
        "rdr-anchor \"/x/y\" on em0 all",
        "binat-anchor \"z\" inet all",
    ] {
        come_back(text).unwrap();
    }
}

fn part(all: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop_oneof![1 => Just(""), 2 => prop::sample::select(all)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_rule_comes_back(
        action in prop::sample::select(&["pass", "block", "match", "anchor \"a/*\""][..]),
        (direction, log, quick) in (part(&["in", "out"]), part(&["log"]), part(&["quick"])),
        on in part(&["on em0", "on ! em0", "on any"]),
        family in part(&["inet", "inet6"]),
        protocol in part(&["proto tcp", "proto udp", "proto 47"]),
        from in part(&["from any", "from <t>", "from ! (em0:network)", "from 10.0.0.0/9", "from fd00::/7", "from no-route"]),
        to in part(&["to (self)", "to ! 192.0.2.1", "to <u> port 80:90", "to any port >= 1024", "to (em1:0) port 1 >< 3"]),
        more in prop::collection::vec(
            prop::sample::select(&[
                "tagged x", "! tagged x", "tag y", "label \"l\"", "rtable 2", "tos 0x20", "prio 0", "received-on em2",
                "user 0", "group >= 5", "max-pkt-size 64", "max-pkt-rate 3/4", "probability 12.5%", "fragment", "flags any",
                "flags A/SA", "no state", "keep state (max 7)", "synproxy state", "rdr-to <pool> port 80", "nat-to <pool>",
                "route-to (em3 10.0.0.1)", "divert-to 127.0.0.1 port 9",
            ][..]),
            0..4,
        ),
    ) {
        let text = [action, direction, log, quick, on, family, protocol, from, to].join(" ") + " " + &more.join(" ");
        // not every combination is a rule
        _ = come_back(&text);
    }

    #[test]
    fn any_numbers_are_read_or_refused(numbers in prop::collection::vec(any::<u64>(), 32), call in "(|a)") {
        let (rule, _) = said(Conf::of_output("pass all").rules().first().unwrap());
        let of_number = rule.pairs().filter(|(_, value)| matches!(value, Value::Number(_)));
        let others = of_number.zip(numbers.iter().cycle()).map(|((name, _), number)| (name, Value::Number(*number)));
        let others: Vec<_> = others.chain([("anchor_call", Value::String(call))]).collect();
        _ = decode::rule(&with(&rule, &others), Addresses::default());
    }
}

/// What is not understood is said, and what says nothing of a packet's way is passed over.
#[test]
fn what_is_not_understood_cannot_be_decided() {
    let conf = Conf::of_output("pass in on em0 inet from 10.0.0.0/8 to any keep state");
    let (list, _) = said(&conf.rules()[0]);
    let decoded = |name: &str, value: Value| decode::rule(&with(&list, &[(name, value)]), Addresses::default());
    let unknown = |name: &str, value: Value| decoded(name, value).map(|rule| rule.unwrap().when.unknown);
    assert_eq!(unknown("rule_flag", number(0x0010_3ff1u32)), Ok(Some("rule_flag 0x100400".to_owned())));
    assert_eq!(unknown("rule_flag", number(0x000e_3bf1u32)), Ok(None));
    assert_eq!(unknown("rt", number(5u8)), Ok(Some("rt 5".to_owned())));
    assert_eq!(unknown("rt", number(1u8)), Ok(None));
    assert_eq!(unknown("direction", number(3u8)), Ok(Some("direction 3".to_owned())));
    assert_eq!(unknown("af", number(7u8)), Ok(Some("af 7".to_owned())));
    assert_eq!(
        unknown("unknown", Value::String("netlink attribute 90".to_owned())),
        Ok(Some("netlink attribute 90".to_owned()))
    );
    let side = List::new()
        .with("type", number(6u8))
        .with("iflags", number(0u8))
        .with("addr", blob([0; 16]))
        .with("mask", blob([0; 16]));
    let of = |side: List, op: u8| {
        Value::List(
            List::new()
                .with("addr", Value::List(side))
                .with("port", Value::Numbers(vec![1, 2]))
                .with("neg", number(0u8))
                .with("port_op", number(op)),
        )
    };
    assert_eq!(unknown("src", of(side, 0)), Ok(Some("address of type 6".to_owned())));
    assert_eq!(unknown("src", of(wrap(&Operand::Any, None), 10)), Ok(Some("port op 10 256 512".to_owned())));
    let odd = List::new().with("type", number(0u8)).with("iflags", number(0u8));
    let odd =
        odd.with("addr", blob([10; 16])).with("mask", blob([0xff, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(unknown("dst", of(odd, 0)), Ok(Some("mask 255.0.255.0".to_owned())));
    // before 15 an interface alone has an address of zeros
    let zeros = List::new().with("type", number(0u8)).with("iflags", number(0u8));
    let zeros = decode::wrap(&zeros.with("addr", blob([0; 16])).with("mask", blob([0xff; 16]))).unwrap();
    let alone = PoolAddress { interface: Some("em1".to_owned()), address: None };
    assert_eq!(pool_address(&zeros, 2, 2, "em1"), alone);
    // another action is no rule that could be shown
    assert!(decoded("action", number(13u8)).is_err());
    for scrub in [2u8, 3] {
        assert_eq!(decoded("action", number(scrub)), Ok(None));
    }
}

/// 14 has one pool for each rule, and says nothing of what is new in 15.
#[test]
fn what_14_says_is_enough() {
    for text in [
        "pass in quick on em0 inet proto tcp from <t> to (em0) port = 443 flags S/SA keep state",
        "pass out route-to (em1 192.0.2.254) inet all",
        "rdr on em0 inet proto tcp from any to any port = 80 -> 10.0.0.1 port 8080",
        "nat on em0 inet from 10.0.0.0/8 to any -> (em0) round-robin",
    ] {
        let conf: Conf = text.parse().unwrap();
        let rule = &conf.rules()[0];
        let (list, addresses) = said(rule);
        let later = ["nat", "route", "naf", "rcv_ifname", "rcv_ifnot", "pktrate", "max_pkt_size"];
        let old = list.pairs().filter(|(name, _)| !later.contains(name));
        let old = old.fold(List::new(), |old, (name, value)| old.with(name, value.clone()));
        assert_eq!(decode::rule(&old, addresses).unwrap().as_ref(), Some(rule), "{text}");
    }
}
