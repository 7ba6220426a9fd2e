//! What pf holds: rules, anchors, status, and how it is asked to end states.

use std::net::IpAddr;

use zerocopy::FromZeros;

use super::encode::Ruleset;
use super::kernel::{Call, Failure, Kernel, Nv};
use super::layout::*;
use super::nv::{List, Malformed, Value};
use crate::net::PortRange;
use crate::pf::States;

/// Room for the reply of a call: a rule takes about 4000 bytes, the status 6000.
const REPLY: usize = 16 * 1024;
/// For more interfaces pf_ioctl.c makes no room (net.pf.request_maxcount).
const MOST_INTERFACES: usize = 65_536;
/// No reply is longer.
const LONGEST_REPLY: usize = 1024 * 1024;

/// A rule that pf holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedRule {
    /// The anchor that it calls; empty for an ordinary rule.
    pub anchor_call: String,
    /// The rule.
    pub rule: List,
    /// The ticket of its ruleset.
    pub ticket: u32,
    /// Its number there.
    pub nr: u32,
}

/// Sends `request` and reads the reply.
fn exchange<K: Kernel>(kernel: &K, call: fn(&mut Nv) -> Call<'_>, request: &List) -> Result<List, Failure> {
    let request = request.encode();
    let mut nv = Nv { buffer: vec![0; REPLY.max(request.len())], length: 0 };
    loop {
        nv.buffer[..request.len()].copy_from_slice(&request);
        nv.length = request.len();
        let name = call(&mut nv).name();
        match kernel.call(call(&mut nv)) {
            Err(failure) if failure.errno == libc::ENOSPC && nv.buffer.len() < LONGEST_REPLY => {
                nv.buffer.resize(2 * nv.buffer.len(), 0);
            }
            Err(failure) => return Err(failure),
            Ok(()) => {
                let reply = nv.buffer.get(..nv.length).unwrap_or_default();
                return List::decode(reply).map_err(|malformed| unreadable(name, &malformed));
            }
        }
    }
}

/// A reply that does not follow the form: EBADMSG, which is also what the kernel says of such a request.
pub fn unreadable(call: &'static str, malformed: &Malformed) -> Failure {
    Failure::new(call, libc::EBADMSG).about(malformed)
}

/// The number of rules of a ruleset and its ticket; none where there is no such anchor (pf_ioctl_getrules: EINVAL).
pub fn count<K: Kernel>(kernel: &K, anchor: &str, ruleset: Ruleset) -> Result<(u32, u32), Failure> {
    let mut request = PfiocRule::new_zeroed();
    request.anchor = field(anchor);
    request.rule.action = ruleset.action();
    match kernel.call(Call::GetRules(&mut request)) {
        Ok(()) => Ok((request.nr, request.ticket)),
        Err(failure) if !anchor.is_empty() && matches!(failure.errno, libc::EINVAL | libc::ENOENT) => Ok((0, 0)),
        Err(failure) => Err(failure.about(format_args!("anchor \"{anchor}\""))),
    }
}

/// [`count`] of the three rulesets of an anchor, in the order of [`Ruleset::ALL`].
pub fn stamps<K: Kernel>(kernel: &K, anchor: &str) -> Result<[(u32, u32); 3], Failure> {
    let [nat, rdr, filter] = Ruleset::ALL.map(|ruleset| count(kernel, anchor, ruleset));
    Ok([nat?, rdr?, filter?])
}

/// The rules of a ruleset. EBUSY where it was loaded anew meanwhile.
pub fn rules<K: Kernel>(kernel: &K, anchor: &str, ruleset: Ruleset) -> Result<Vec<LoadedRule>, Failure> {
    rules_at(kernel, anchor, ruleset, count(kernel, anchor, ruleset)?)
}

/// The rules of a ruleset that has this number of rules and this ticket. EBUSY where it was loaded anew meanwhile.
pub fn rules_at<K: Kernel>(
    kernel: &K,
    anchor: &str,
    ruleset: Ruleset,
    (count, ticket): (u32, u32),
) -> Result<Vec<LoadedRule>, Failure> {
    (0..count).map(|nr| rule(kernel, anchor, ruleset, ticket, nr)).collect()
}

/// One rule of a ruleset, if that has this ticket still: EBUSY where it was loaded anew.
pub fn rule<K: Kernel>(
    kernel: &K,
    anchor: &str,
    ruleset: Ruleset,
    ticket: u32,
    nr: u32,
) -> Result<LoadedRule, Failure> {
    let request = List::new()
        .with("anchor", Value::String(anchor.to_owned()))
        .with("ruleset", Value::Number(u64::from(ruleset.action())))
        .with("ticket", Value::Number(u64::from(ticket)))
        .with("nr", Value::Number(u64::from(nr)));
    let reply = match exchange(kernel, |nv| Call::GetRule(nv), &request) {
        // the anchor went away between the calls
        Err(failure) if failure.errno == libc::ENOENT => Err(Failure { errno: libc::EBUSY, ..failure }),
        other => other,
    }
    .map_err(|failure| Failure { about: format!("rule {nr} of anchor \"{anchor}\""), ..failure })?;
    let read = || -> Result<LoadedRule, Malformed> {
        let (anchor_call, rule) = (reply.string("anchor_call")?.to_owned(), reply.list("rule")?.clone());
        Ok(LoadedRule { anchor_call, rule, ticket, nr })
    };
    read().map_err(|malformed| unreadable("DIOCGETRULENV", &malformed))
}

/// The addresses that a rule redirects to; none where the kernel does not tell. EBUSY where the ruleset was loaded anew
/// meanwhile. 14 has one list of addresses for each rule, which is that of route-to in a filter rule; 15 has several, and
/// this call gives those of rdr-to (pf_ioctl_get_addrs).
pub fn targets<K: Kernel>(
    kernel: &K,
    anchor: &str,
    ruleset: Ruleset,
    loaded: &LoadedRule,
) -> Result<Vec<Address>, Failure> {
    let mut request = PfiocPooladdr::new_zeroed();
    (request.ticket, request.r_action, request.r_num) = (loaded.ticket, ruleset.action(), loaded.nr);
    request.anchor = field(anchor);
    match kernel.call(Call::GetAddrs(&mut request)) {
        Ok(()) => {}
        Err(failure) if failure.errno == libc::EBUSY => return Err(failure),
        // what is asked for is only for the message, mostly
        Err(_) => return Ok(vec![]),
    }
    let mut targets = Vec::new();
    for nr in 0..request.nr {
        request.nr = nr;
        kernel.call(Call::GetAddr(&mut request))?;
        let wrap = &request.addr;
        targets.push(match wrap.kind {
            PF_ADDR_DYNIFTL => Address::Interface(text(&wrap.addr), modifiers(u64::from(wrap.iflags))),
            PF_ADDR_TABLE => Address::Table(text(&[wrap.addr, wrap.mask].concat())),
            PF_ADDR_ADDRMASK => masked(wrap.addr, wrap.mask, u64::from(request.af)),
            _ => Address::Other,
        });
    }
    Ok(targets)
}

/// The names of the anchors directly below `anchor`; none where there is no such anchor.
pub fn children<K: Kernel>(kernel: &K, anchor: &str) -> Result<Vec<String>, Failure> {
    let total = |kernel: &K| -> Result<u32, Failure> {
        let mut request = PfiocRuleset::new_zeroed();
        request.path = field(anchor);
        match kernel.call(Call::GetRulesets(&mut request)) {
            Ok(()) => Ok(request.nr),
            Err(failure) if matches!(failure.errno, libc::ENOENT | libc::EINVAL) => Ok(0),
            Err(failure) => Err(failure.about(format_args!("anchor \"{anchor}\""))),
        }
    };
    let before = total(kernel)?;
    let mut names = Vec::new();
    for nr in 0..before {
        let mut request = PfiocRuleset::new_zeroed();
        request.path = field(anchor);
        request.nr = nr;
        match kernel.call(Call::GetRuleset(&mut request)) {
            Ok(()) => names.push(text(&request.name)),
            Err(failure) => {
                // the anchor itself went away between the calls
                let errno = if failure.errno == libc::ENOENT { libc::EBUSY } else { failure.errno };
                return Err(Failure { errno, ..failure }.about(format_args!("anchor \"{anchor}\"")));
            }
        }
    }
    // nothing holds the list still: an anchor that came or went has moved the numbers of the others
    if total(kernel)? != before {
        return Err(Failure::new("DIOCGETRULESET", libc::EBUSY).about(format_args!("anchor \"{anchor}\"")));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Whether pf is enabled, and its `hostid`: a random number that each attach of pf takes (pf_attach_vnet in
/// sys/netpfil/pf/pf_ioctl.c), or what `set hostid` has put in its place; with the checksum of the main ruleset, which each load
/// of it computes (pf_setup_pfsync_matching).
pub fn status<K: Kernel>(kernel: &K) -> Result<(bool, u64, Vec<u8>), Failure> {
    let status = exchange(kernel, |nv| Call::GetStatus(nv), &List::new())?;
    let read = || Ok((status.bool("running")?, status.number("hostid")?, status.binary("chksum")?.to_vec()));
    read().map_err(|malformed| unreadable("DIOCGETSTATUSNV", &malformed))
}

/// Ends states, and says how many. Every key is one that the kernel insists on (pf_nvstate_kill_to_kstate_kill in
/// sys/netpfil/pf/pf_nv.c); an empty one matches everything. The destination is that of the packet on the wire, before it is
/// redirected (pf_killstates_row in sys/netpfil/pf/pf_ioctl.c): the port of the host.
pub fn kill_states<K: Kernel>(kernel: &K, states: &States) -> Result<u64, Failure> {
    let (label, protocol, ports) = match states {
        States::Jail { label } => (label, 0, None),
        States::Mapping { jail, label: _, protocol, host } => (jail, protocol.number(), Some(*host)),
    };
    let label = label.as_str();
    let number = Value::Number;
    let side = |ports: Option<PortRange>| {
        let zeros = || Value::List(List::new().with("addr", Value::Binary(vec![0; 16])));
        // as in a rule: the number is the field's bytes, which are in network order
        let port = |port: u16| u64::from(port.to_be());
        let (op, port) = match ports {
            None => (0, [0, 0]),
            Some(one) if one.count() == 1 => (PF_OP_EQ, [port(one.first()), 0]),
            Some(range) => (PF_OP_RRG, [port(range.first()), port(range.last())]),
        };
        let wrap = List::new()
            .with("type", number(u64::from(PF_ADDR_ADDRMASK)))
            .with("iflags", number(0))
            .with("addr", zeros())
            .with("mask", zeros());
        Value::List(
            List::new()
                .with("addr", Value::List(wrap))
                .with("port", Value::Numbers(port.to_vec()))
                .with("neg", number(0))
                .with("port_op", number(u64::from(op))),
        )
    };
    let compare = List::new().with("id", number(0)).with("creatorid", number(0)).with("direction", number(0));
    let request = List::new()
        .with("cmp", Value::List(compare))
        .with("af", number(0))
        .with("proto", number(u64::from(protocol)))
        .with("src", side(None))
        .with("dst", side(ports))
        .with("ifname", Value::String(String::new()))
        .with("label", Value::String(label.to_owned()))
        .with("kill_match", Value::Bool(false));
    let reply = exchange(kernel, |nv| Call::KillStates(nv), &request).map_err(|failure| match states {
        States::Jail { .. } => failure.about(format_args!("label \"{label}\"")),
        States::Mapping { protocol, host, .. } => failure.about(format_args!("label \"{label}\", {protocol} {host}")),
    })?;
    reply.number("killed").map_err(|malformed| unreadable("DIOCKILLSTATESNV", &malformed))
}

/// The limit of anchors (0 is none); `None` where the kernel has no such limit (before 15).
pub fn anchor_limit<K: Kernel>(kernel: &K) -> Result<Option<u32>, Failure> {
    let mut request = PfiocLimit { index: PF_LIMIT_ANCHORS, limit: 0 };
    match kernel.call(Call::GetLimit(&mut request)) {
        Ok(()) => Ok(Some(request.limit)),
        Err(failure) if failure.errno == libc::EINVAL => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether the main ruleset has an active table of this name: one with a rule, with `persist`, or made by hand
/// (pfr_get_addrs in sys/netpfil/pf/pf_table.c).
pub fn has_table<K: Kernel>(kernel: &K, table: &str) -> Result<bool, Failure> {
    let mut request = PfiocTable::new_zeroed();
    request.name = field(table);
    request.esize = PFR_ADDR_SIZE;
    match kernel.call(Call::GetTable(&mut request)) {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno == libc::ESRCH => Ok(false),
        Err(failure) => Err(failure.about(format_args!("table <{table}>"))),
    }
}

/// The interfaces and groups that pf does not look at (`set skip on`). `None` where this kernel's answer cannot be read: its
/// struct pfi_kif is another one.
pub fn skipped<K: Kernel>(kernel: &K) -> Result<Option<Vec<String>>, Failure> {
    let mut room = vec![PfiKif::new_zeroed(); 64];
    loop {
        let mut count = 0;
        match kernel.call(Call::GetInterfaces(&mut room, &mut count)) {
            // by the size of an element (pfioctl)
            Err(failure) if failure.errno == libc::ENODEV => return Ok(None),
            Err(failure) => return Err(failure),
            // an interface that came meanwhile is no reason to ask for ever
            Ok(()) if count > room.len() && room.len() < MOST_INTERFACES => {
                room.resize(2 * room.len(), PfiKif::new_zeroed());
            }
            Ok(()) => {
                room.truncate(count);
                break;
            }
        }
    }
    // the group of all interfaces is always there: it shows that the fields are where they are looked for
    let all = room.iter().any(|kif| text(&kif.name) == "all" && kif.group == PFIK_GROUP);
    let skipped = room.iter().filter(|kif| kif.flags & PFI_IFLAG_SKIP != 0);
    Ok(all.then(|| skipped.map(|kif| text(&kif.name)).collect()))
}

/// An address of a rule, as DIOCGETRULENV gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `any`
    Any,
    /// one address
    Host(IpAddr),
    /// an address and the length of its prefix
    Network(IpAddr, u32),
    /// `(em0)`, `(self)`, and with what follows the name: `(em0:network)`
    Interface(String, String),
    /// `<name>`
    Table(String),
    /// anything else: a range, `urpf-failed`, `no-route`
    Other,
}

/// The address in `src` or `dst` of a rule of family `af` (0 for both).
pub fn address(rule_addr: &List, af: u64) -> Result<Address, Malformed> {
    let wrap = rule_addr.list("addr")?;
    let kind = wrap.number("type")?;
    if kind == u64::from(PF_ADDR_DYNIFTL) {
        return Ok(Address::Interface(wrap.string("ifname")?.to_owned(), modifiers(wrap.number("iflags")?)));
    }
    if kind == u64::from(PF_ADDR_TABLE) {
        return Ok(Address::Table(wrap.string("tblname")?.to_owned()));
    }
    if kind != u64::from(PF_ADDR_ADDRMASK) {
        return Ok(Address::Other);
    }
    let bytes = |name: &str| -> Result<[u8; 16], Malformed> {
        let mut bytes = [0; 16];
        let given = wrap.list(name)?.binary("addr")?;
        let length = given.len().min(16);
        bytes[..length].copy_from_slice(&given[..length]);
        Ok(bytes)
    };
    Ok(masked(bytes("addr")?, bytes("mask")?, af))
}

/// What follows the name of an interface: PFI_AFLAG_*.
fn modifiers(flags: u64) -> String {
    let words = [(1, ":network"), (2, ":broadcast"), (4, ":peer"), (8, ":0")];
    words.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect()
}

/// An address and its mask, of family `af`.
fn masked(address: [u8; 16], mask: [u8; 16], af: u64) -> Address {
    let prefix = mask.iter().map(|byte| byte.count_ones()).sum::<u32>();
    if prefix == 0 {
        return Address::Any;
    }
    // no family: what is behind the first four bytes tells
    let v4 = af == u64::from(AF_INET) || af == 0 && address[4..] == [0; 12] && mask[4..] == [0; 12];
    let [a, b, c, d, ..] = address;
    let (address, whole) = if v4 { (IpAddr::from([a, b, c, d]), 32) } else { (IpAddr::from(address), 128) };
    if prefix >= whole { Address::Host(address) } else { Address::Network(address, prefix) }
}

/// The ports in `src` or `dst` of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// PF_OP_*; 0 for any port
    pub op: u8,
    /// what it compares with
    pub ports: [u16; 2],
}

impl Ports {
    /// Reads them.
    pub fn read(rule_addr: &List) -> Result<Ports, Malformed> {
        // the numbers are the bytes of the struct's field: network order
        let port = |number: Option<&u64>| number.map_or(0, |number| u16::from_be(*number as u16));
        let numbers = rule_addr.numbers("port")?;
        Ok(Ports { op: rule_addr.number("port_op")? as u8, ports: [port(numbers.first()), port(numbers.get(1))] })
    }
}
