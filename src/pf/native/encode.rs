//! From typed rules to what DIOCADDRULE and DIOCADDADDR need: field by field what pfctl(8) sends for the same text
//! (expand_rule in sbin/pfctl/parse.y), with one difference: the struct has one label, which is the jail's. The states of a
//! mapping are also matched by their protocol and port (`read::kill_states`).

use std::net::IpAddr;
use std::num::NonZeroU32;

use zerocopy::FromZeros;

use super::layout::*;
use super::netlink::Attributes;
use crate::name::Label;
use crate::net::{Direction, Family, Interface, PortRange, Protocol};
use crate::pfconf;
use crate::pfconf::address::{Compared, Operand};
use crate::pfconf::rule::{Action, RuleKind};
use crate::rule::{Address, Match, Member, NextHop, Rule, StateOptions};

/// The rulesets that kport loads, in the order of a transaction, and their numbers in it.
pub const LOADED: [RuleKind; 3] = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Filter];
pub const NUMBERS: [i32; 3] = [PF_RULESET_NAT, PF_RULESET_RDR, PF_RULESET_FILTER];

/// Every ruleset of an anchor, in the order in which pfctl(8) shows them.
pub const EVERY: [RuleKind; 4] = [RuleKind::Nat, RuleKind::Rdr, RuleKind::Binat, RuleKind::Filter];

/// The ruleset of a rule, by its index in [`LOADED`].
pub fn ruleset(rule: &Rule) -> usize {
    match rule {
        Rule::Nat { .. } => 0,
        Rule::Rdr { .. } => 1,
        Rule::AfTo { .. } | Rule::Pass { .. } => 2,
    }
}

/// The rule of a call.
pub(crate) fn call(rule: &pfconf::rule::Rule, into: &mut PfiocRule) {
    if let Action::Call(_, path) = &rule.action {
        into.anchor_call = field(path);
    }
    let into = &mut into.rule;
    into.zero();
    into.rtableid = -1;
    into.action = action(rule.action.kind());
    into.af = rule.when.family.map_or(0, af);
    into.proto = rule.when.protocol.unwrap_or(0);
    if let Operand::Network(network) = rule.when.to.address {
        address(Some(&Address::Network(network)), &mut into.dst.addr);
    }
    if let Some(range) = rule.when.to.ports.and_then(Compared::range) {
        ports(range, &mut into.dst);
    }
}

/// The action of the rules of a ruleset; DIOCGETRULES and DIOCGETRULENV name the ruleset by it.
pub fn action(kind: RuleKind) -> u8 {
    match kind {
        RuleKind::Nat => PF_NAT,
        RuleKind::Rdr => PF_RDR,
        RuleKind::Binat => PF_BINAT,
        RuleKind::Filter => PF_PASS,
    }
}

pub fn af(family: Family) -> u8 {
    match family {
        Family::Inet => AF_INET,
        Family::Inet6 => AF_INET6,
    }
}

/// The rule of `rule` for one member of its lists.
pub fn rule(rule: &Rule, member: Member<'_>, into: &mut PfRule) {
    into.zero();
    // without a routing table of its own
    into.rtableid = -1;
    // `on`, `from` and `to` are the member's; the other fields of a match must all be used
    let Match { on: _, family, protocol, from: _, to: _, ports: to_ports } = rule.matches();
    into.af = af(*family);
    into.proto = protocol.number();
    if let Some(interface) = member.on {
        into.ifname = *interface.padded();
    }
    address(member.from, &mut into.src.addr);
    into.src.neg = u8::from(matches!(member.from, Some(Address::NotInterfaceNetwork(_))));
    address(member.to, &mut into.dst.addr);
    ports(*to_ports, &mut into.dst);
    into.action = action(LOADED[ruleset(rule)]);
    match rule {
        Rule::Nat { matches: _, tagged, source } => {
            into.rpool.proxy_port = PF_NAT_PROXY_PORT;
            // DYNIF_MULTIADDR in sbin/pfctl/parse.y: an interface may have several addresses, a group has several first ones
            let is_one = |name: &Interface| name.as_str().ends_with(|c: char| c.is_ascii_digit());
            let is_single = matches!(source, Address::First(name) if is_one(name));
            into.rpool.opts = if is_single { 0 } else { PF_POOL_ROUNDROBIN };
            if let Some(tag) = tagged {
                into.match_tagname = field(tag.as_str());
            }
        }
        Rule::Rdr { matches: _, tag, target: _, ports } => {
            into.tagname = field(tag.as_str());
            let last = if ports.count() == 1 { 0 } else { ports.last() };
            into.rpool.proxy_port = [ports.first(), last];
        }
        Rule::AfTo { matches: _, log, quick, address_of: _, target: _, port, state, labels: [label, _] } => {
            into.direction = PF_IN;
            into.rpool.proxy_port = [port.unwrap_or(0), 0];
            passes(*protocol, [*log, *quick], state, label, into);
            into.rule_flag |= PFRULE_AFTO as u32;
        }
        Rule::Pass { matches: _, direction, log, quick, routing, tagged, state, labels: [label, _] } => {
            into.direction = match direction {
                None => 0,
                Some(Direction::In) => PF_IN,
                Some(Direction::Out) => PF_OUT,
            };
            into.rt = if routing.reply_to.is_some() { PF_REPLYTO } else { 0 };
            // a FIB above net.fibs is refused, and the kernel has far fewer than 2^31
            into.rtableid = routing.rtable.map_or(-1, u32::cast_signed);
            if let Some(tag) = tagged {
                into.match_tagname = field(tag.as_str());
            }
            passes(*protocol, [*log, *quick], state, label, into);
        }
    }
}

/// `flags S/SA keep state label ...`, with what pfctl(8) adds to the options of `keep state` (rules of pfrule in sbin/pfctl/parse.y):
/// states of a rule with a limit expire sooner from 60% of it on, and sources are remembered as long as their rate is counted.
fn passes(protocol: Protocol, log_and_quick: [bool; 2], state: &StateOptions, label: &Label, into: &mut PfRule) {
    // PF_LOG is 1
    [into.log, into.quick] = log_and_quick.map(u8::from);
    into.keep_state = PF_STATE_NORMAL;
    if protocol == Protocol::Tcp {
        into.flags = TH_SYN;
        into.flagset = TH_SYN_ACK;
    }
    into.label = field(label.as_str());
    let StateOptions { max, max_src_states, max_src_conn, max_src_conn_rate } = *state;
    let number = |n: Option<NonZeroU32>| n.map_or(0, NonZeroU32::get);
    into.max_states = number(max);
    into.max_src_states = number(max_src_states);
    into.max_src_conn = number(max_src_conn);
    if let Some(rate) = max_src_conn_rate {
        into.max_src_conn_rate = [rate.connections(), rate.seconds()];
        into.timeout[PFTM_SRC_NODE] = rate.seconds();
    }
    if let Some(max) = max {
        // in pfctl's order of operations: u_int32_t, so the divisions come first
        into.timeout[PFTM_ADAPTIVE_START] = (max.get() / 10).wrapping_mul(6);
        into.timeout[PFTM_ADAPTIVE_END] = (max.get() / 10).wrapping_mul(12);
    }
    if state.tracks_sources() {
        into.rule_flag |= PFRULE_SRCTRACK | PFRULE_RULESRCTRACK;
    }
}

/// The address in the pool of `rule`, and whether it has one. The struct has one pool: if the rule has `reply-to`, 15 also
/// takes it for the one of that (pf_ioctl_addrule in sys/netpfil/pf/pf_ioctl.c).
pub fn target(rule: &Rule, into: &mut PfiocPooladdr) -> bool {
    let to = match rule {
        Rule::Nat { source, .. } => source,
        Rule::Rdr { target, .. } | Rule::AfTo { target, .. } => &Address::Host(*target),
        Rule::Pass { routing, .. } => {
            let Some(NextHop { interface, gateway }) = routing.reply_to else { return false };
            into.ifname = *interface.padded();
            match gateway {
                Some(gateway) => &Address::Host(gateway),
                None => {
                    // as pfctl(8) for an interface alone (route_host in sbin/pfctl/parse.y): no family, no address
                    into.addr.zero();
                    into.addr.mask = HOST_MASK;
                    return true;
                }
            }
        }
    };
    // 15 compares the family of the address with the packet's (pf_map_addr in sys/netpfil/pf/pf_lb.c)
    into.af = match rule {
        Rule::AfTo { .. } => AF_INET,
        _ => af(rule.matches().family),
    };
    address(Some(to), &mut into.addr);
    true
}

/// The request of PFNL_CMD_ADD_ADDR for the source addresses of `af-to`: those of an interface.
pub fn source(ticket: u32, address_of: Interface) -> Attributes {
    let mut wrap = PfAddrWrap::new_zeroed();
    address(Some(&Address::Interface(address_of)), &mut wrap);
    let pooled = Attributes::default().with(1, addresses(&wrap).as_bytes());
    // PF_AA_TICKET, PF_AA_AF, PF_AA_ADDR, PF_AA_WHICH
    let request = Attributes::default().number(2, ticket).with(7, &[AF_INET]);
    request.with(9, pooled.as_bytes()).number(10, u32::from(PF_NAT))
}

/// The request of PFNL_CMD_ADDRULE for a rule with `af-to`: that of DIOCADDRULE, whose struct has neither the new family nor a
/// pool for the source (pf_rule_to_krule in sys/netpfil/pf/pf_ioctl.c). An attribute that is missing is 0 in the kernel.
pub fn af_to(request: &PfiocRule) -> Attributes {
    let rule = &request.rule;
    let pool = |ports: [u16; 2], opts: u8| {
        let [first, last] = ports.map(u16::to_le_bytes);
        Attributes::default().with(4, &first).with(5, &last).with(6, &[opts])
    };
    let side = |side: &PfRuleAddr| {
        let [first, last] = side.port.map(|port| port.to_bytes());
        let made = Attributes::default().with(1, addresses(&side.addr).as_bytes()).with(2, &first).with(3, &last);
        made.with(4, &[side.neg]).with(5, &[side.port_op])
    };
    let timeouts = rule.timeout.iter().fold(Attributes::default(), |made, timeout| made.number(1, *timeout));
    let mut made = Attributes::default()
        .with(1, side(&rule.src).as_bytes())
        .with(2, side(&rule.dst).as_bytes())
        .with(4, Attributes::default().text(1, &text(&rule.label)).as_bytes())
        .text(5, &text(&rule.ifname))
        .with(11, pool(rule.rpool.proxy_port, rule.rpool.opts).as_bytes())
        .with(14, timeouts.as_bytes())
        .with(75, pool(PF_NAT_PROXY_PORT, PF_POOL_ROUNDROBIN).as_bytes())
        .with(76, &[AF_INET]);
    for (kind, value) in [
        (13, rule.rtableid.cast_unsigned()),
        (15, rule.max_states),
        (17, rule.max_src_states),
        (18, rule.max_src_conn_rate[0]),
        (19, rule.max_src_conn_rate[1]),
        (33, rule.rule_flag),
        (74, rule.max_src_conn),
    ] {
        made = made.number(kind, value);
    }
    for (kind, value) in [
        (34, rule.action),
        (35, rule.direction),
        (36, rule.log),
        (38, rule.quick),
        (42, rule.keep_state),
        (43, rule.af),
        (44, rule.proto),
        (47, rule.flags),
        (48, rule.flagset),
    ] {
        made = made.with(kind, &[value]);
    }
    // PF_ART_TICKET, PF_ART_POOL_TICKET, PF_ART_ANCHOR, PF_ART_ANCHOR_CALL (without which the kernel dereferences a null
    // pointer), PF_ART_RULE
    let request_of = Attributes::default().number(1, request.ticket).number(2, request.pool_ticket);
    request_of.text(3, &text(&request.anchor)).text(4, "").with(5, made.as_bytes())
}

/// struct pf_addr_wrap: the union as it is, the type, the flags.
fn addresses(wrap: &PfAddrWrap) -> Attributes {
    Attributes::default().with(1, &wrap.addr).with(2, &wrap.mask).with(5, &[wrap.kind]).with(6, &[wrap.iflags])
}

const HOST_MASK: [u8; 16] = [0xff; 16];

pub fn address(from: Option<&Address>, into: &mut PfAddrWrap) {
    into.zero();
    let dynamic = |into: &mut PfAddrWrap, name: &[u8; Interface::SIZE], iflags| {
        into.kind = PF_ADDR_DYNIFTL;
        into.iflags = iflags;
        into.addr = *name;
        // any other mask makes networks of the addresses (pfi_dynaddr_setup in sys/netpfil/pf/pf_if.c)
        into.mask = HOST_MASK;
    };
    match from {
        None | Some(Address::Any) => {}
        Some(Address::Host(host)) => {
            into.addr = octets(*host);
            into.mask = HOST_MASK;
        }
        Some(Address::Network(network)) => {
            into.addr = octets(network.network());
            into.mask = octets(network.netmask());
        }
        Some(Address::Interface(interface)) => dynamic(into, interface.padded(), 0),
        Some(Address::First(interface)) => dynamic(into, interface.padded(), PFI_AFLAG_NOALIAS),
        Some(Address::InterfaceNetwork(interface) | Address::NotInterfaceNetwork(interface)) => {
            dynamic(into, interface.padded(), PFI_AFLAG_NETWORK);
        }
        // the kernel resolves the name to the addresses of every interface (pfi_dynaddr_setup)
        Some(Address::Own) => dynamic(into, &field("self"), 0),
        Some(Address::Table(table)) => {
            into.kind = PF_ADDR_TABLE;
            into.set_table(table.as_str());
        }
    }
}

/// struct pf_addr
pub fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub fn ports(range: PortRange, into: &mut PfRuleAddr) {
    if range.count() == 1 {
        into.port_op = PF_OP_EQ;
        into.port = [range.first().into(), 0.into()];
    } else {
        into.port_op = PF_OP_RRG;
        into.port = [range.first().into(), range.last().into()];
    }
}
