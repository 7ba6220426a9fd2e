//! Reads what pf has: rules, anchors, tables, status; and ends states.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zerocopy::FromZeros;

use super::encode;
use super::kernel::{Answer, Call, Failure, Kernel, Nv};
use super::layout::*;
use super::nv::{List, Malformed, Value};
use crate::name::Label;
use crate::net::{Family, PortRange, Protocol};
use crate::pf::{Hosts, States};
use crate::pfconf::address::{Operand, Table};
use crate::pfconf::rule::RuleKind;
use crate::rule::Address;

/// Room for the reply of a call: a rule needs about 4000 bytes, the status 6000.
const REPLY: usize = 16 * 1024;
/// pf_ioctl.c does not allocate room for more interfaces (net.pf.request_maxcount).
const MOST_INTERFACES: usize = 65_536;
/// The most states that are read, 48 MiB. Without `set limit states` there are not so many: PFSTATE_HIWAT of pfvar.h is 100,000.
const MOST_STATES: usize = 131_072;
/// A search of the table for states to end takes as long as to read so many.
const STATES_A_SEARCH: usize = 4_096;
/// No reply is longer.
const LONGEST_REPLY: usize = 1024 * 1024;

/// A ruleset at one moment: its number of rules and its ticket.
pub type Stamp = (u32, u32);

/// The position of a rule.
#[derive(Clone, Copy)]
pub struct RulesetAt<'a> {
    pub anchor: &'a str,
    pub ruleset: RuleKind,
    pub ticket: u32,
    pub nr: u32,
}

/// Sends `request`, and returns what `read` makes of the reply, with what has these names, or all of it.
fn exchange<T>(
    kernel: &dyn Kernel, call: fn(&mut Nv) -> Call<'_>, request: &List, names: &[&str],
    read: impl Fn(List) -> Result<T, Malformed>,
) -> Answer<T> {
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
                let read = List::decode(reply, names).and_then(read);
                return read.map_err(|malformed| Failure { call: name, ..malformed.into() });
            }
        }
    }
}

/// The numbers of rules of rulesets and their tickets; none if the anchor does not exist (pf_ioctl_getrules: EINVAL). What the kernel
/// copies in and out is 3 kB, so that it pays to fill it in once.
pub fn stamps<const N: usize>(kernel: &dyn Kernel, anchor: &str, rulesets: [RuleKind; N]) -> Answer<[Stamp; N]> {
    let mut request = PfiocRule::new_zeroed();
    request.anchor = field(anchor);
    let mut stamps = [(0, 0); N];
    for (stamp, ruleset) in stamps.iter_mut().zip(rulesets) {
        request.rule.action = encode::action(ruleset);
        match kernel.call(Call::GetRules(&mut request)) {
            Ok(()) => *stamp = (request.nr, request.ticket),
            Err(failure) if !anchor.is_empty() && matches!(failure.errno, libc::EINVAL | libc::ENOENT) => break,
            Err(failure) => return Err(failure.about(format_args!("anchor \"{anchor}\""))),
        }
    }
    Ok(stamps)
}

/// What `read` makes of each rule of a ruleset with this number of rules and this ticket. EBUSY if it was loaded again meanwhile.
pub fn each<T>(
    anchor: &str, ruleset: RuleKind, (count, ticket): Stamp, mut read: impl FnMut(&RulesetAt<'_>) -> Answer<T>,
) -> impl Iterator<Item = Answer<T>> {
    (0..count).map(move |nr| {
        let read = read(&RulesetAt { anchor, ruleset, ticket, nr });
        read.map_err(|failure| failure.of_what_is_gone().about(format_args!("rule {nr} of anchor \"{anchor}\"")))
    })
}

/// One rule of a ruleset, if it still has this ticket: EBUSY if it was loaded again. With the key `anchor_call`, the anchor that it
/// calls; empty for an ordinary rule.
pub fn rule(kernel: &dyn Kernel, at: &RulesetAt<'_>) -> Answer<List> {
    let number = |number: u32| Value::Number(u64::from(number));
    let request = List::new()
        .with("anchor", Value::String(at.anchor.to_owned()))
        .with("ruleset", number(encode::action(at.ruleset).into()))
        .with("ticket", number(at.ticket))
        .with("nr", number(at.nr));
    exchange(
        kernel,
        |nv| Call::GetRule(nv),
        &request,
        &[],
        |reply| {
            let call = reply.string("anchor_call")?.to_owned();
            Ok(reply.list("rule")?.clone().with("anchor_call", Value::String(call)))
        },
    )
}

/// The number of the anchors directly below `anchor`; 0 if that anchor does not exist.
pub fn number_of_children(kernel: &dyn Kernel, anchor: &str) -> Answer<u32> {
    let mut request = PfiocRuleset::new_zeroed();
    request.path = field(anchor);
    match kernel.call(Call::GetRulesets(&mut request)) {
        Ok(()) => Ok(request.nr),
        Err(failure) if matches!(failure.errno, libc::ENOENT | libc::EINVAL) => Ok(0),
        Err(failure) => Err(failure.about(format_args!("anchor \"{anchor}\""))),
    }
}

/// The names of the anchors directly below `anchor`, sorted; none if that anchor does not exist.
pub fn children(kernel: &dyn Kernel, anchor: &str) -> Answer<Vec<String>> {
    other_children(kernel, anchor, &[])
}

/// Those that are not among `known`, which are sorted. The kernel walks to each child that is asked for by its number, so a few
/// among many are searched for by the places that they leave to the others.
pub fn other_children(kernel: &dyn Kernel, anchor: &str, known: &[&str]) -> Answer<Vec<String>> {
    let count = number_of_children(kernel, anchor)?;
    let all = count as usize;
    let mut request = PfiocRuleset::new_zeroed();
    request.path = field(anchor);
    let mut at = |place: usize| {
        request.nr = u32::try_from(place).unwrap_or(u32::MAX);
        let answer = kernel.call(Call::GetRuleset(&mut request));
        answer.map_err(|failure| failure.of_what_is_gone().about(format_args!("anchor \"{anchor}\"")))?;
        Ok(text(&request.name))
    };
    let few = all.saturating_sub(known.len()) < all / 16;
    let mut others: Vec<String> = vec![];
    let mut next = 0;
    while others.len() + known.len() < all && few {
        let mut last = others.len() + known.len();
        while next < last {
            let middle = next.midpoint(last);
            match at(middle)? == known[middle - others.len()] {
                true => next = middle + 1,
                false => last = middle,
            }
        }
        others.push(at(next)?);
        next += 1;
    }
    // also if one of those that are known is gone
    if !few && all != known.len() || others.iter().any(|other| known.binary_search(&other.as_str()).is_ok()) {
        others = (0..all).map(at).collect::<Answer<_>>()?;
        others.retain(|other| known.binary_search(&other.as_str()).is_err());
    }
    // the list is not locked: an anchor that was added or removed has changed the numbers of the others
    if !others.is_empty() && number_of_children(kernel, anchor)? != count {
        return Err(Failure::new("DIOCGETRULESET", libc::EBUSY).about(format_args!("anchor \"{anchor}\"")));
    }
    others.sort();
    others.dedup();
    Ok(others)
}

/// A run of pf, and the main ruleset that it had when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// A random number that each attach of pf chooses (pf_attach_vnet), or the number of `set hostid`.
    pub hostid: u64,
    /// The checksum of the main ruleset, as of its last load (pf_setup_pfsync_matching).
    pub checksum: Vec<u8>,
}

/// DIOCGETSTATUSNV: whether pf is enabled, and which run it is.
pub fn status(kernel: &dyn Kernel) -> Answer<(bool, Run)> {
    exchange(
        kernel,
        |nv| Call::GetStatus(nv),
        &List::new(),
        &["running", "hostid", "chksum"],
        |status| {
            let (hostid, checksum) = (status.number("hostid")?, status.binary("chksum")?.to_vec());
            Ok((status.bool("running")?, Run { hostid, checksum }))
        },
    )
}

/// Whether `set syncookies always` is in effect.
pub fn syncookies(kernel: &dyn Kernel) -> Answer<bool> {
    let read = |reply: List| Ok(reply.bool("enabled")? && !reply.bool("adaptive")?);
    exchange(kernel, |nv| Call::GetSyncookies(nv), &List::new(), &[], read)
}

/// The number of rules about Ethernet frames in the main ruleset.
pub fn ether_rules(kernel: &dyn Kernel) -> Answer<u64> {
    let request = List::new().with("anchor", Value::String(String::new()));
    exchange(kernel, |nv| Call::GetEtherRules(nv), &request, &[], |reply| reply.number("nr"))
}

/// Whether this is the pf of 15 or later: it has a limit of anchors.
pub fn is_15(kernel: &dyn Kernel) -> Answer<bool> {
    match kernel.call(Call::GetLimit(&mut PfiocLimit { index: PF_LIMIT_ANCHORS, limit: 0 })) {
        Ok(()) => Ok(true),
        Err(failure) if failure.errno == libc::EINVAL => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Ends states, and returns how many. The kernel requires every key but `nat` (pf_nvstate_kill_to_kstate_kill in
/// sys/netpfil/pf/pf_nv.c); an empty one matches everything. The destination is that of the packet on the wire, before it is
/// redirected (pf_killstates_row in sys/netpfil/pf/pf_ioctl.c): address and port of the host, or of the jail itself; with `nat`,
/// which 15 has, those after the redirect.
pub fn kill_states(kernel: &dyn Kernel, states: &States) -> Answer<u64> {
    let States { jail, ports, to, from, on, .. } = states;
    let (protocol, ports) = ports.unzip();
    let number = Value::Number;
    let side = |hosts: &Option<Hosts>, to: Option<PortRange>| {
        let mut side = PfRuleAddr::new_zeroed();
        encode::address(hosts.map(|hosts| Address::Network(hosts.network)).as_ref(), &mut side.addr);
        if let Some(to) = to {
            encode::ports(to, &mut side);
        }
        let bytes = |octets: [u8; 16]| Value::List(List::new().with("addr", Value::Binary(octets.to_vec())));
        let wrap = List::new()
            .with("type", number(u64::from(side.addr.kind)))
            .with("iflags", number(u64::from(side.addr.iflags)))
            .with("addr", bytes(side.addr.addr))
            .with("mask", bytes(side.addr.mask));
        // as in a rule: the number is the field's bytes, which are in network order
        let port = side.port.map(|port| u64::from(u16::from_ne_bytes(port.to_bytes())));
        Value::List(
            List::new()
                .with("addr", Value::List(wrap))
                .with("port", Value::Numbers(port.to_vec()))
                .with("neg", number(u64::from(hosts.is_some_and(|hosts| hosts.not))))
                .with("port_op", number(u64::from(side.port_op))),
        )
    };
    // an address of one family would match some of the other one
    let family = to.or(*from).map_or(0, |hosts| encode::af(Family::of(hosts.network.addr())));
    let compare = List::new().with("id", number(0)).with("creatorid", number(0)).with("direction", number(0));
    let request = List::new()
        .with("cmp", Value::List(compare))
        .with("af", number(u64::from(family)))
        .with("proto", number(u64::from(protocol.map_or(0, Protocol::number))))
        .with("src", side(from, None))
        .with("dst", side(to, ports))
        .with("ifname", Value::String(on.map(|on| on.to_string()).unwrap_or_default()))
        .with("label", Value::String(jail.as_ref().map(Label::to_string).unwrap_or_default()))
        .with("kill_match", Value::Bool(false))
        .with("nat", Value::Bool(jail.is_none()));
    let killed = exchange(kernel, |nv| Call::KillStates(nv), &request, &[], |reply| reply.number("killed"));
    killed.map_err(|failure| {
        let label = jail.iter().map(|label| format!("label \"{label}\""));
        let to = states.ports.iter().map(|(protocol, ports)| format!("{protocol} {ports}"));
        failure.about(label.chain(to).collect::<Vec<_>>().join(", "))
    })
}

/// What the table of states has at the addresses that states to end are at, on either side of a redirect.
pub struct StateTable(HashMap<IpAddr, BTreeSet<(u8, u16)>>);

impl StateTable {
    /// Reads the table once: to end states, the kernel locks each of its rows, which takes as long as a run of pfctl(8), whether
    /// there are any states or not. `None` if it is not known: an address is not given, or there are so many states that to
    /// read them takes longer, or the kernel does not tell (15 without COMPAT_FREEBSD14).
    pub fn read(kernel: &dyn Kernel, to_end: &[States]) -> Answer<Option<StateTable>> {
        let addresses: HashSet<IpAddr> = to_end.iter().flat_map(|states| &states.at).copied().collect();
        if addresses.is_empty() {
            return Ok(None);
        }
        let mut count = 0;
        match kernel.call(Call::GetStates(&mut [], &mut count)) {
            Err(failure) if matches!(failure.errno, libc::ENODEV | libc::ENOTTY | libc::ENOTSUP) => return Ok(None),
            other => other?,
        }
        let mut found: HashMap<_, BTreeSet<_>> = HashMap::new();
        if count == 0 {
            return Ok(Some(StateTable(found)));
        }
        if count > MOST_STATES.min(STATES_A_SEARCH * to_end.len()) {
            return Ok(None);
        }
        // more may come meanwhile; the kernel leaves out whole rows of its table
        let spare = count / 8 + 64;
        let mut room = vec![PfStateExport::new_zeroed(); count + spare];
        let mut written = 0;
        kernel.call(Call::GetStates(&mut room, &mut written))?;
        let states = room.get(..written).unwrap_or_default();
        if written > count + spare / 2 || states.iter().any(|state| state.version != PF_STATE_VERSION) {
            return Ok(None);
        }
        for state in states {
            for key in &state.keys {
                for (octets, port) in key.addr.iter().zip(key.port) {
                    // with af-to the two sides have different families, and only one of them is in the struct
                    for address in [true, false].map(|is_v4| ip(*octets, is_v4)) {
                        if addresses.contains(&address) {
                            found.entry(address).or_default().insert((state.proto, u16::from_be(port)));
                        }
                    }
                }
            }
        }
        Ok(Some(StateTable(found)))
    }

    /// Whether there can be such states.
    pub fn may_have(&self, states: &States) -> bool {
        let is_at = |address| {
            let Some(known) = self.0.get(address) else { return false };
            let Some((protocol, ports)) = states.ports else { return true };
            // the ports of the jail are not known here
            let (first, last) = if states.jail.is_some() { (0, u16::MAX) } else { (ports.first(), ports.last()) };
            known.range((protocol.number(), first)..=(protocol.number(), last)).next().is_some()
        };
        // sctp makes states for other addresses as well (pf_sctp_multihome_add_addr)
        let elsewhere = states.jail.is_some() && matches!(states.ports, Some((Protocol::Sctp, _)));
        elsewhere || states.at.is_empty() || states.at.iter().any(is_at)
    }
}

/// How many addresses an active table has: one that a rule uses, with `persist`, or created by hand (pfr_get_addrs in
/// sys/netpfil/pf/pf_table.c); they are read if there is room for all. `None` if the table does not exist.
pub fn addresses(kernel: &dyn Kernel, anchor: &str, table: &str, room: &mut [PfrAddr]) -> Answer<Option<usize>> {
    let mut request = PfiocTable::new_zeroed();
    request.anchor = field(anchor);
    request.name = field(table);
    match kernel.call(Call::GetTable(&mut request, room)) {
        Ok(()) => Ok(Some(usize::try_from(request.size).unwrap_or(0))),
        Err(failure) if failure.errno == libc::ESRCH => Ok(None),
        Err(failure) => Err(failure.about(format_args!("table <{table}>"))),
    }
}

/// The contents of an active table of an anchor; `None` if the table does not exist. If it has more addresses than the kernel
/// returns (net.pf.request_maxcount), they are unknown.
pub(crate) fn table(kernel: &dyn Kernel, anchor: &str, name: &str) -> Answer<Option<Table>> {
    let Some(count) = addresses(kernel, anchor, name, &mut [])? else { return Ok(None) };
    let mut table = Table::default();
    let mut room = vec![PfrAddr::new_zeroed(); count];
    match addresses(kernel, anchor, name, &mut room) {
        // more room than the kernel accepts
        Err(failure) if failure.errno == libc::EINVAL => {
            let unknown = Operand::Named(format!("table <{name}>, which has {count} addresses,"));
            table.others.push((false, unknown));
            return Ok(Some(table));
        }
        Ok(now) if now == Some(count) => {}
        Ok(_) => return Err(Failure::new("DIOCRGETADDRS", libc::EBUSY).about(format_args!("table <{name}>"))),
        Err(failure) => return Err(failure),
    }
    for entry in room {
        let network = IpNet::new(ip(entry.addr, entry.af != AF_INET6), entry.net)
            .map_err(|_| Failure::new("DIOCRGETADDRS", libc::EBADMSG).about(format_args!("table <{name}>")))?;
        table.insert(network, entry.not != 0);
    }
    Ok(Some(table))
}

/// The interfaces and groups that pf skips (`set skip on`). `None` if this kernel's answer cannot be read: its struct pfi_kif
/// differs.
pub fn skipped(kernel: &dyn Kernel) -> Answer<Option<Vec<String>>> {
    let mut room = vec![PfiKif::new_zeroed(); 64];
    loop {
        let mut count = 0;
        match kernel.call(Call::GetInterfaces(&mut room, &mut count)) {
            // by the size of an element (pfioctl)
            Err(failure) if failure.errno == libc::ENODEV => return Ok(None),
            Err(failure) => return Err(failure),
            // do not repeat forever because interfaces are added
            Ok(()) if count > room.len() && room.len() < MOST_INTERFACES => {
                room.resize(2 * room.len(), PfiKif::new_zeroed());
            }
            Ok(()) => {
                room.truncate(count);
                break;
            }
        }
    }
    // the group of all interfaces always exists: it shows that the fields are at their expected offsets
    let all = room.iter().any(|kif| text(&kif.name) == "all" && kif.group == PFIK_GROUP);
    let skipped = room.iter().filter(|kif| kif.flags & PFI_IFLAG_SKIP != 0);
    Ok(all.then(|| skipped.map(|kif| text(&kif.name)).collect()))
}
