//! The addresses and ports that a translation can give: pools, `nat`, `rdr`, `binat`, `af-to` (sys/netpfil/pf/pf_lb.c).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::lookup::Lookup;
use super::packet::{IpProtocol, Packet};
use super::state::States;
use crate::net::Direction;
use crate::net::{Family, Protocol};
use crate::pfconf::address::{Operand, Pool, PoolKind, Ports, Side};
use crate::pfconf::rule::{Effects, RuleKind};

/// The maximum number of addresses of a pool that are tried.
const TRIED: usize = 16;

/// Why a packet is not translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Untranslated {
    /// There is no address to translate to, or no free port.
    Failed,
    /// The address is unknown.
    Unknown(String),
}

/// The addresses that a pool can give, and whether there are more.
pub(super) struct Possible {
    pub addresses: Vec<IpAddr>,
    pub more: bool,
}

/// What a translation needs in addition to the rule.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub anchor: &'a str,
    pub lookup: &'a Lookup,
    pub states: &'a States,
    /// Addresses in use: these are tried if a pool has too many.
    pub known: &'a [IpAddr],
}

impl Pool {
    /// The addresses of one family that it can give for a packet with the address `old`.
    pub(super) fn addresses(&self, family: Family, old: IpAddr, cx: Context<'_>) -> Result<Possible, Untranslated> {
        let mut networks = vec![];
        for address in &self.addresses {
            let Some(operand) = &address.address else { continue };
            match operand.pool(cx.anchor, family, cx.lookup) {
                Some(mut found) => networks.append(&mut found),
                None => return Err(Untranslated::Unknown("the address that it leads to".to_owned())),
            }
        }
        let Some(first) = networks.first() else { return Err(Untranslated::Failed) };
        Ok(match self.kind {
            PoolKind::Single => Possible { addresses: vec![first.addr()], more: false },
            PoolKind::Bitmask => Possible { addresses: vec![masked(*first, old)], more: false },
            PoolKind::Random | PoolKind::SourceHash(_) | PoolKind::RoundRobin => round(&networks, cx.known),
        })
    }
}

/// The network bits of one address with the host bits of another (pf_poolmask).
fn masked(network: IpNet, other: IpAddr) -> IpAddr {
    match (network, other) {
        (IpNet::V4(net), IpAddr::V4(other)) => {
            let mask = net.netmask().to_bits();
            Ipv4Addr::from(net.addr().to_bits() & mask | other.to_bits() & !mask).into()
        }
        (IpNet::V6(net), IpAddr::V6(other)) => {
            let mask = net.netmask().to_bits();
            Ipv6Addr::from(net.addr().to_bits() & mask | other.to_bits() & !mask).into()
        }
        _ => network.addr(),
    }
}

/// All addresses of small networks; of large ones the first, the last, and those in use.
fn round(networks: &[IpNet], known: &[IpAddr]) -> Possible {
    let mut addresses: Vec<IpAddr> = vec![];
    let mut more = false;
    for network in networks {
        let bits = network.max_prefix_len() - network.prefix_len();
        if bits <= 3 {
            let all = (0..1_u32 << bits).map(|n| nth(*network, n));
            addresses.extend(all);
        } else {
            more = true;
            addresses.extend([network.network(), network.broadcast()]);
            addresses.extend(known.iter().filter(|address| network.contains(*address)));
        }
    }
    let mut seen = std::collections::HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    more |= addresses.len() > TRIED;
    addresses.truncate(TRIED);
    Possible { addresses, more }
}

fn nth(network: IpNet, n: u32) -> IpAddr {
    match network {
        IpNet::V4(net) => Ipv4Addr::from(net.network().to_bits().wrapping_add(n)).into(),
        IpNet::V6(net) => Ipv6Addr::from(net.network().to_bits().wrapping_add(n.into())).into(),
    }
}

/// The packets that a source translation can make of one, with a port chosen for each (pf_get_sport).
pub(super) fn source(packet: &Packet, pool: &Pool, cx: Context<'_>) -> Result<(Vec<Packet>, bool), Untranslated> {
    let possible = pool.addresses(packet.family(), packet.from.ip(), cx)?;
    let mut made = vec![];
    for address in possible.addresses {
        if let Some(port) = source_port(packet, address, pool, cx.states) {
            made.push(Packet { from: SocketAddr::new(address, port), ..packet.clone() });
        }
    }
    if made.is_empty() { Err(Untranslated::Failed) } else { Ok((made, possible.more)) }
}

fn source_port(packet: &Packet, address: IpAddr, pool: &Pool, states: &States) -> Option<u16> {
    let kept = packet.from.port();
    if packet.protocol.is_icmp() {
        // the id of a query is chosen; other types have nothing to translate
        return packet.answer().map_or(Some(kept), |_| states.free_port(packet, address, 1, u16::MAX, kept));
    }
    let (low, high) = match pool.portset {
        Some((offset, length, id)) => portset(offset, length, id),
        None => pool.ports,
    };
    if !packet.protocol.has_translated_ports() || (low, high) == (0, 0) {
        return states.free_port(packet, address, kept, kept, kept);
    }
    states.free_port(packet, address, low.min(high), low.max(high), 0)
}

/// The range of the first ports of MAP-E (pf_get_mape_sport).
fn portset(offset: u8, length: u8, id: u16) -> (u16, u16) {
    let shift = 16_u32.saturating_sub(offset.into());
    let below = shift.saturating_sub(length.into());
    let low = ((1_u32 << shift) | (u32::from(id) << below)) & 0xffff;
    (u16::try_from(low).unwrap_or(1), u16::try_from((low | ((1_u32 << below) - 1)) & 0xffff).unwrap_or(u16::MAX))
}

/// The packets that a redirection can make of one; a range keeps its offset, and sctp its port (pf_get_transaddr).
pub(super) fn destination(
    packet: &Packet,
    pool: &Pool,
    to: Option<Ports>,
    cx: Context<'_>,
) -> Result<(Vec<Packet>, bool), Untranslated> {
    let possible = pool.addresses(packet.family(), packet.to.ip(), cx)?;
    let (old, base) = (packet.to.port(), to.map_or(0, |ports| ports.a));
    let port = match pool.ports {
        _ if !packet.protocol.has_translated_ports() => old,
        (0, 0) => old,
        (first, 0) => first,
        (first, last) => {
            let count = (i32::from(last) - i32::from(first) + 1).rem_euclid(1 << 16).max(1);
            let offset = (i32::from(old) - i32::from(base)).rem_euclid(1 << 16) % count;
            let port = offset + i32::from(first);
            u16::try_from(if port > 65_535 { port - 65_535 } else { port }).unwrap_or(first)
        }
    };
    let made =
        possible.addresses.into_iter().map(|address| Packet { to: SocketAddr::new(address, port), ..packet.clone() });
    Ok((made.collect(), possible.more))
}

/// `binat`: replaces the bits of one network with those of the other, by direction.
pub(super) fn both(
    packet: &Packet,
    inside: &Side,
    pool: &Pool,
    direction: Direction,
    cx: Context<'_>,
) -> Result<(Vec<Packet>, bool), Untranslated> {
    let operand = match direction {
        Direction::Out => pool.addresses.first().and_then(|address| address.address.as_ref()),
        Direction::In => Some(&inside.address),
    };
    let network = |operand: &Operand| operand.pool(cx.anchor, packet.family(), cx.lookup);
    let networks = match operand.map(network) {
        Some(None) => return Err(Untranslated::Unknown("the address that it leads to".to_owned())),
        Some(Some(networks)) => networks,
        None => vec![],
    };
    // `from any` leaves the address unchanged
    let Some(network) = networks.first() else {
        return if matches!(operand, Some(Operand::Any)) {
            Ok((vec![packet.clone()], false))
        } else {
            Err(Untranslated::Failed)
        };
    };
    let mut made = packet.clone();
    match direction {
        Direction::Out => made.from.set_ip(masked(*network, packet.from.ip())),
        Direction::In => made.to.set_ip(masked(*network, packet.to.ip())),
    }
    Ok((vec![made], false))
}

/// The packets that one translation makes of a packet.
pub(super) fn by_rule(
    packet: &Packet,
    kind: RuleKind,
    pool: &Pool,
    when: &crate::pfconf::rule::Conditions,
    direction: Direction,
    cx: Context<'_>,
) -> Result<(Vec<Packet>, bool), Untranslated> {
    match kind {
        RuleKind::Nat => source(packet, pool, cx),
        RuleKind::Binat => both(packet, &when.from, pool, direction, cx),
        RuleKind::Rdr | RuleKind::Filter => destination(packet, pool, when.to.ports, cx),
    }
}

/// `af-to`: makes a packet of the other family (pf_get_transaddr_af).
pub(super) fn family(packet: &Packet, effects: &Effects, to: &Side, cx: Context<'_>) -> Result<Packet, Untranslated> {
    let Some((family, sources, targets)) = &effects.af_to else { return Ok(packet.clone()) };
    let possible = sources.addresses(*family, packet.from.ip(), cx)?;
    let from = *possible.addresses.first().ok_or(Untranslated::Failed)?;
    let target = match targets {
        Some(pool) => {
            let mut networks =
                pool.addresses.iter().filter_map(|a| a.address.as_ref()?.pool(cx.anchor, *family, cx.lookup));
            let network = networks.next().and_then(|all| all.first().copied()).ok_or(Untranslated::Failed)?;
            if network.prefix_len() == network.max_prefix_len() {
                network.addr()
            } else {
                embed(network, packet.to.ip())
            }
        }
        None => match (packet.to.ip(), family) {
            (IpAddr::V6(to6), Family::Inet) => {
                let length = match &to.address {
                    Operand::Network(network) if network.prefix_len() >= 32 => network.prefix_len(),
                    _ => 96,
                };
                extract(to6, length).into()
            }
            (old @ IpAddr::V4(_), Family::Inet6) => {
                let length = match sources.addresses.first().and_then(|a| a.address.as_ref()) {
                    Some(Operand::Network(network)) => network.prefix_len().min(96),
                    _ => 96,
                };
                embed(IpNet::new(from, length).map_err(|_| Untranslated::Failed)?, old)
            }
            (same, _) => same,
        },
    };
    let mut made = packet.clone();
    made.to = SocketAddr::new(target, packet.to.port());
    made.from = SocketAddr::new(from, packet.from.port());
    if let Some(pool) = targets
        && pool.ports.0 > 0
        && packet.protocol.has_translated_ports()
    {
        made.to.set_port(pool.ports.0);
    }
    if packet.protocol.is_icmp() {
        let echo: [(u8, u8); 2] = if *family == Family::Inet { [(128, 8), (129, 0)] } else { [(8, 128), (0, 129)] };
        let Some((old, code)) = packet.icmp else { return Err(Untranslated::Failed) };
        let (_, new) = echo.into_iter().find(|(from, _)| *from == old).ok_or(Untranslated::Failed)?;
        made.icmp = Some((new, code));
        made.protocol = if *family == Family::Inet { IpProtocol::ICMP } else { IpProtocol::ICMP6 };
        let query = if *family == Family::Inet { 8 } else { 128 };
        if matches!(old, 8 | 128) { made.to.set_port(query) } else { made.from.set_port(query) }
    } else {
        // the port is chosen among those of the new family
        let kept = if packet.protocol.with_ports() == Some(Protocol::Sctp) { (0, 0) } else { sources.ports };
        let pool = Pool { ports: kept, ..sources.clone() };
        let port = source_port(&made, from, &pool, cx.states).ok_or(Untranslated::Failed)?;
        made.from.set_port(port);
    }
    Ok(made)
}

/// An IPv4 address after an IPv6 prefix, without the byte that stays zero (RFC 6052, 2.2); for IPv4, the low bits of
/// the address.
fn embed(network: IpNet, address: IpAddr) -> IpAddr {
    match (network, address) {
        (IpNet::V6(net), IpAddr::V4(v4)) => {
            let mut octets = net.network().octets();
            let mut at = usize::from(net.prefix_len() / 8);
            for octet in v4.octets() {
                if at == 8 {
                    at += 1;
                }
                if let Some(place) = octets.get_mut(at) {
                    *place = octet;
                }
                at += 1;
            }
            Ipv6Addr::from(octets).into()
        }
        (IpNet::V4(net), IpAddr::V6(v6)) => {
            let octets = v6.octets();
            let low = Ipv4Addr::new(octets[12], octets[13], octets[14], octets[15]);
            masked(IpNet::V4(net), low.into())
        }
        (network, other) => masked(network, other),
    }
}

fn extract(address: Ipv6Addr, length: u8) -> Ipv4Addr {
    let octets = address.octets();
    let mut at = usize::from(length / 8);
    let mut found = [0; 4];
    for octet in &mut found {
        if at == 8 {
            at += 1;
        }
        *octet = octets.get(at).copied().unwrap_or(0);
        at += 1;
    }
    Ipv4Addr::from(found)
}
