//! From the kernel's reply to the rule: DIOCGETRULENV's nvlist (pf_krule_to_nvrule in sys/netpfil/pf/pf_nv.c), with what 15
//! adds by [netlink](super::netlink).
//!
//! What is unknown becomes a [condition that cannot be decided](crate::pfconf::rule::Conditions::unknown). What decides
//! nothing (queues, scrub options, time-outs) is skipped.

use ipnet::IpNet;
use zerocopy::FromZeros;

use super::layout::*;
use super::nv::{List, Malformed, malformed};
use crate::net::{Direction, Family};
use crate::pfconf::address::{Compared, OfInterface, Operand, Operator, Part, Pool, PoolAddress, PoolKind, Side};
use crate::pfconf::rule::{Action, Effects, Keep, On, Origin, Owner, RouteKind, Rule, RuleKind};

/// The addresses of a rule's pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Those of a translation rule, and of `rdr-to`.
    pub rdr: Vec<PoolAddress>,
    /// Those of `nat-to`.
    pub nat: Vec<PoolAddress>,
    /// Those of `route-to`, `reply-to`, `dup-to`.
    pub route: Vec<PoolAddress>,
}

/// What is unknown in a rule.
#[derive(Default)]
struct Unknown(Vec<String>);

impl Unknown {
    /// There is no value for it.
    fn add<T>(&mut self, what: String) -> Option<T> {
        self.0.push(what);
        None
    }

    fn text(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join(", "))
    }
}

/// The ruleset that a rule with this action belongs to, and the action; `None` for scrub rules, which decide nothing.
fn action(loaded: &List) -> Result<Option<Action>, Malformed> {
    let action = u8::try_from(loaded.number("action")?).unwrap_or(u8::MAX);
    let kind = match action {
        PF_PASS | PF_DROP | PF_MATCH => RuleKind::Filter,
        PF_NAT | PF_NONAT => RuleKind::Nat,
        PF_BINAT | PF_NOBINAT => RuleKind::Binat,
        PF_RDR | PF_NORDR => RuleKind::Rdr,
        PF_SCRUB | PF_NOSCRUB => return Ok(None),
        other => return malformed(format!("action {other} is not known")),
    };
    let is_no = matches!(action, PF_NONAT | PF_NOBINAT | PF_NORDR);
    Ok(Some(match (loaded.string("anchor_call").unwrap_or_default(), action) {
        ("", PF_PASS) => Action::Pass,
        ("", PF_DROP) => Action::Block,
        ("", PF_MATCH) => Action::Match,
        ("", _) => Action::Translate { kind, pool: (!is_no).then(Pool::default), pass: false },
        (call, _) => Action::Call(kind, call.to_owned()),
    }))
}

/// The rule; `None` for a scrub rule.
pub fn rule(loaded: &List, addresses: Addresses) -> Result<Option<Rule>, Malformed> {
    let Some(action) = action(loaded)? else { return Ok(None) };
    let mut unknown = Unknown::default();
    let mut rule = Rule::new(Origin::default(), action);
    let later = |name: &str| loaded.number(name).unwrap_or(0);
    let flag = |name| Ok::<_, Malformed>(loaded.number(name)? != 0);
    let text = |name| Ok::<_, Malformed>(Some(loaded.string(name)?.to_owned()).filter(|text| !text.is_empty()));
    let rule_flag = loaded.number("rule_flag")?;
    if rule_flag & !KNOWN_FLAGS != 0 {
        unknown.0.push(format!("rule_flag {:#x}", rule_flag & !KNOWN_FLAGS));
    }
    let family = family(loaded.number("af")?, &mut unknown);

    let when = &mut rule.when;
    when.direction = match loaded.number("direction")? {
        1 => Some(Direction::In),
        2 => Some(Direction::Out),
        0 => None,
        other => unknown.add(format!("direction {other}")),
    };
    when.on = text("ifname")?.map(|name| Ok(On { not: flag("ifnot")?, name })).transpose()?;
    when.family = family;
    when.protocol = u8::try_from(loaded.number("proto")?).ok().filter(|protocol| *protocol != 0);
    when.from = side(loaded.list("src")?, family, &mut unknown)?;
    when.to = side(loaded.list("dst")?, family, &mut unknown)?;
    // pfctl(8) has the name of the number from pf.os(5); the system cannot be decided here in any case
    when.os = Some(loaded.number("os_fingerprint")?).filter(|os| *os != 0).map(|os| format!("fingerprint {os:#x}"));
    let received_on = loaded.string("rcv_ifname").unwrap_or_default();
    when.received_on = Some(received_on)
        .filter(|name| !name.is_empty())
        .map(|name| On { not: later("rcv_ifnot") != 0, name: name.to_owned() });
    when.user = owner(loaded.list("uid")?, &mut unknown)?;
    when.group = owner(loaded.list("gid")?, &mut unknown)?;
    when.flags =
        Some((loaded.number("flags")? as u16, loaded.number("flagset")? as u16)).filter(|flags| *flags != (0, 0));
    // one more than the number; 0 for any
    let icmp = |name| Ok::<_, Malformed>(loaded.number(name)?.checked_sub(1).map(|number| number as u8));
    when.icmp = icmp("type")?.map(|kind| Ok((kind, icmp("code")?))).transpose()?;
    when.tos = Some(loaded.number("tos")? as u8).filter(|tos| *tos != 0);
    when.prio = match loaded.number("prio")? as u8 {
        0 => None,
        PF_PRIO_ZERO => Some(0),
        prio => Some(prio),
    };
    if let Ok(rate) = loaded.list("pktrate") {
        let rate = (rate.number("limit")? as u32, rate.number("seconds")? as u32);
        when.max_pkt_rate = Some(rate).filter(|(limit, _)| *limit != 0);
    }
    when.probability = probability(loaded.number("prob")? as u32);
    when.fragment = rule_flag & PFRULE_FRAGMENT != 0;
    when.tagged = text("match_tagname")?.map(|tag| Ok((flag("match_tag_not")?, tag))).transpose()?;

    rule.log = flag("log")?;
    rule.quick = flag("quick")?;
    rule.tag = text("tagname")?;
    let labels = loaded.strings("labels").unwrap_or_default();
    rule.labels = labels.iter().filter(|label| !label.is_empty()).cloned().collect();
    match &mut rule.action {
        Action::Translate { kind, pool: Some(into), pass } => {
            *pass = flag("natpass")?;
            *into = pool(loaded.list("rpool")?, addresses.rdr, *kind == RuleKind::Nat, &mut unknown)?;
        }
        Action::Translate { pool: None, .. } | Action::Call(..) => {}
        Action::Pass | Action::Block | Action::Match => {
            *rule.effects = effects(loaded, &rule.action, rule_flag, addresses, &mut unknown)?;
        }
    }
    rule.effects.max_pkt_size = later("max_pkt_size") as u16;
    rule.effects.rtable = u32::try_from(loaded.number("rtableid")? as u32 as i32).ok();
    unknown.0.extend(loaded.string("unknown").map(str::to_owned));
    rule.when.unknown = unknown.text();
    Ok(Some(rule))
}

/// The other effects of a filter rule.
fn effects(
    loaded: &List, action: &Action, rule_flag: u64, addresses: Addresses, unknown: &mut Unknown,
) -> Result<Effects, Malformed> {
    let number = |name| Ok::<_, Malformed>(loaded.number(name)? as u32);
    let later = |name: &str| loaded.number(name).unwrap_or(0);
    let keep_state = number("keep_state")?;
    let keep = Keep {
        synproxy: keep_state == PF_STATE_SYNPROXY,
        if_bound: rule_flag & PFRULE_IFBOUND != 0,
        limits: [number("max_states")?, number("max_src_states")?, number("max_src_conn")?, number("max_src_nodes")?],
        max_src_conn_rate: (number("max_src_conn_rate.limit")?, number("max_src_conn_rate.seconds")?),
    };
    let divert = match loaded.list("divert") {
        Ok(divert) => divert.number("port")?,
        Err(_) => later("divert_port"),
    };
    let mut effects = Effects {
        keep: Some(keep).filter(|_| *action == Action::Pass && keep_state != 0),
        // the number is the field's bytes, which are in network order
        divert: Some(u16::from_be(divert as u16)).filter(|port| *port != 0),
        ..Effects::default()
    };
    let route = match number("rt")? {
        // fastroute, which changes nothing
        0 | 1 => None,
        2 => Some(RouteKind::Packets),
        3 => Some(RouteKind::Copies),
        4 => Some(RouteKind::Replies),
        other => unknown.add(format!("rt {other}")),
    };
    if let Some(kind) = route {
        // before 15 a rule had one pool
        let list = loaded.list("route").or_else(|_| loaded.list("rpool"))?;
        effects.route = Some((kind, pool(list, addresses.route, false, unknown)?));
    }
    let mut pool_of = |list, addresses: Vec<_>, source| match addresses.is_empty() {
        true => Ok::<_, Malformed>(None),
        false => pool(loaded.list(list)?, addresses, source, unknown).map(Some),
    };
    let (nat, rdr) = (pool_of("nat", addresses.nat, true)?, pool_of("rpool", addresses.rdr, false)?);
    if rule_flag & PFRULE_AFTO == 0 {
        (effects.nat_to, effects.rdr_to) = (nat, rdr);
        return Ok(effects);
    }
    match (family(later("naf"), unknown), nat) {
        (Some(family), Some(source)) => effects.af_to = Some((family, source, rdr)),
        _ => unknown.0.push("af-to".to_owned()),
    }
    Ok(effects)
}

fn family(af: u64, unknown: &mut Unknown) -> Option<Family> {
    match u8::try_from(af) {
        Ok(AF_INET) => Some(Family::Inet),
        Ok(AF_INET6) => Some(Family::Inet6),
        Ok(0) => None,
        _ => unknown.add(format!("af {af}")),
    }
}

/// `src` or `dst` of a rule.
fn side(side: &List, family: Option<Family>, unknown: &mut Unknown) -> Result<Side, Malformed> {
    let addr = side.list("addr")?;
    // the numbers are the bytes of the struct's field: network order
    let port = |number: u64| u64::from(u16::from_be(number as u16));
    let numbers: Vec<u64> = side.numbers("port")?.iter().copied().map(port).collect();
    let ports = compared(side.number("port_op")?, &numbers, "port", unknown);
    Ok(Side {
        not: side.number("neg")? != 0,
        address: address(&wrap(addr)?, family, unknown),
        ports: ports.map(|Compared { operator, a, b }| Compared { operator, a: a as u16, b: b as u16 }),
    })
}

/// PF_OP_IRG, EQ, NE, LT, LE, GT, GE, XRG, RRG, from 1 on
const OPERATORS: [Operator; 9] = [
    Operator::Between,
    Operator::Equal,
    Operator::NotEqual,
    Operator::Less,
    Operator::AtMost,
    Operator::Greater,
    Operator::AtLeast,
    Operator::Outside,
    Operator::Range,
];

/// An operator with its numbers; 0 is none.
fn compared(op: u64, numbers: &[u64], what: &str, unknown: &mut Unknown) -> Option<Compared<u32>> {
    let [a, b] = [0, 1].map(|at| numbers.get(at).map_or(0, |number| *number as u32));
    let nth = usize::try_from(op).unwrap_or(usize::MAX).checked_sub(1)?;
    let Some(operator) = OPERATORS.get(nth).copied() else { return unknown.add(format!("{what} op {op} {a} {b}")) };
    Some(Compared { operator, a, b: if operator.takes_two() { b } else { 0 } })
}

/// `uid` or `gid` of a rule.
fn owner(owner: &List, unknown: &mut Unknown) -> Result<Option<Owner>, Malformed> {
    // both have this key
    let compared = compared(owner.number("op")?, owner.numbers("uid")?, "user", unknown);
    Ok(compared.map(Owner::number))
}

/// As pfctl(8) prints it, with all digits.
fn probability(prob: u32) -> Option<String> {
    let percent = format!("{:.6}", f64::from(prob) * 100.0 / 4_294_967_296.0);
    (prob != 0).then(|| format!("{}%", percent.trim_end_matches('0').trim_end_matches('.')))
}

/// struct pf_addr_wrap of its nvlist.
pub fn wrap(list: &List) -> Result<PfAddrWrap, Malformed> {
    let mut wrap = PfAddrWrap::new_zeroed();
    wrap.kind = u8::try_from(list.number("type")?).unwrap_or(u8::MAX);
    wrap.iflags = list.number("iflags")? as u8;
    for (name, into) in [("addr", &mut wrap.addr), ("mask", &mut wrap.mask)] {
        into.iter_mut().zip(list.list(name)?.binary("addr")?).for_each(|(into, byte)| *into = *byte);
    }
    match wrap.kind {
        PF_ADDR_DYNIFTL => wrap.addr = field(list.string("ifname")?),
        PF_ADDR_TABLE => wrap.set_table(list.string("tblname")?),
        _ => {}
    }
    Ok(wrap)
}

/// An address of a pool, and the interface with it. The addresses of an interface have the family of the rule (pf_addr_setup in
/// sys/netpfil/pf/pf_ioctl.c).
pub fn pool_address(wrap: &PfAddrWrap, af: u64, of_rule: u64, ifname: &str) -> PoolAddress {
    let af = if af == 0 { of_rule } else { af };
    let interface = Some(ifname.to_owned()).filter(|name| !name.is_empty());
    let mut unknown = Unknown::default();
    // an interface alone has an address of zeros, with any mask, and in 15 no address
    let zeros = wrap.kind == PF_ADDR_ADDRMASK && wrap.addr == [0; 16];
    let alone = interface.is_some() && (zeros || wrap.kind == PF_ADDR_NONE);
    let address = (!alone).then(|| address(wrap, family(af, &mut unknown), &mut unknown));
    // a name that cannot be looked up
    PoolAddress { interface, address: unknown.text().map(Operand::Named).or(address) }
}

/// An address of a rule of this family.
fn address(wrap: &PfAddrWrap, family: Option<Family>, unknown: &mut Unknown) -> Operand {
    let (addr, mask) = (wrap.addr, wrap.mask);
    // no family: the bytes after the first four tell
    let v4 = family == Some(Family::Inet) || family.is_none() && addr[4..] == [0; 12] && mask[4..] == [0; 12];
    let ip = |bytes| ip(bytes, v4);
    match wrap.kind {
        PF_ADDR_ADDRMASK => {
            let network = IpNet::with_netmask(ip(addr), ip(mask)).ok();
            // none: ones after zeros
            let network = network.or_else(|| unknown.add(format!("mask {}", ip(mask))));
            network.filter(|network| network.prefix_len() > 0).map_or(Operand::Any, Operand::Network)
        }
        PF_ADDR_NOROUTE => Operand::NoRoute,
        PF_ADDR_DYNIFTL => {
            let part = match wrap.iflags & (PFI_AFLAG_NETWORK | PFI_AFLAG_BROADCAST | PFI_AFLAG_PEER) {
                0 => Part::Address,
                PFI_AFLAG_NETWORK => Part::Network,
                PFI_AFLAG_BROADCAST => Part::Broadcast,
                PFI_AFLAG_PEER => Part::Peer,
                other => unknown.add(format!("iflags {other:#x} of {}", text(&wrap.addr))).unwrap_or(Part::Address),
            };
            // those of 128 are for both families
            let bits = mask.iter().map(|byte| byte.count_ones()).sum::<u32>() as u8;
            let whole = if family == Some(Family::Inet) { 32 } else { 128 };
            Operand::Interface(OfInterface {
                name: text(&wrap.addr),
                part,
                first: wrap.iflags & PFI_AFLAG_NOALIAS != 0,
                dynamic: true,
                bits: Some(bits).filter(|bits| *bits < whole),
            })
        }
        PF_ADDR_TABLE => Operand::Table(text(&[addr, mask].concat())),
        PF_ADDR_URPFFAILED => Operand::UrpfFailed,
        PF_ADDR_RANGE => Operand::Range(ip(addr), ip(mask)),
        other => unknown.add(format!("address of type {other}")).unwrap_or(Operand::Any),
    }
}

/// struct pf_pool with its addresses. The ports of `source` are those that translated packets come from.
fn pool(list: &List, addresses: Vec<PoolAddress>, source: bool, unknown: &mut Unknown) -> Result<Pool, Malformed> {
    let opts = list.number("opts")? as u8;
    let ports = match list.numbers("proxy_port")? {
        [first, last, ..] => (*first as u16, *last as u16),
        _ => (0, 0),
    };
    let kind = match opts & PF_POOL_TYPEMASK {
        0 => PoolKind::Single,
        1 => PoolKind::Bitmask,
        2 => PoolKind::Random,
        3 => PoolKind::SourceHash(hash_key(list.binary("key")?)),
        PF_POOL_ROUNDROBIN => PoolKind::RoundRobin,
        other => unknown.add(format!("pool opts {other}")).unwrap_or_default(),
    };
    let mape = list.list("mape")?;
    let portset = match mape.number("offset")? as u8 {
        0 => None,
        offset => Some((offset, mape.number("psidlen")? as u8, mape.number("psid")? as u16)),
    };
    Ok(Pool {
        addresses,
        ports,
        kind,
        sticky: opts & PF_POOL_STICKYADDR != 0,
        static_port: source && ports == (0, 0),
        endpoint_independent: opts & PF_POOL_ENDPI != 0,
        portset,
        prefer_ipv6_nexthop: opts & PF_POOL_IPV6NH != 0,
    })
}

/// Four numbers, as pfctl(8) prints them.
fn hash_key(key: &[u8]) -> String {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
    let words: String = key.chunks(4).map(|bytes| format!("{:08x}", word(bytes))).collect();
    format!("0x{words}")
}
