//! The addresses and ports that a translation can give: pools, `nat`, `rdr`, `binat`, `af-to` (sys/netpfil/pf/pf_lb.c).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::matching::{Found, Hook, address, number};
use super::packet::{IpProtocol, Packet};
use super::state::States;
use crate::net::{Direction, Family, Protocol};
use crate::pfconf::address::{Operand, Pool, PoolKind, Ports, Side};
use crate::pfconf::rule::RuleKind;

/// The maximum number of addresses of a pool that are tried.
const TRIED: usize = 16;

/// Why a packet is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untranslated {
    /// There is no address to translate to, or no free port.
    Failed,
    /// The address is unknown.
    Unknown,
}

/// Of which address cannot be decided.
pub(super) const UNKNOWN: &str = "the address that it leads to";

/// The packets that a translation can make, and whether there are more.
pub(super) type Made = Result<(Vec<Packet>, bool), Untranslated>;

impl Pool {
    /// The addresses of one family that it can give for a packet with the address `old`, and whether there are more.
    fn possible(
        &self, family: Family, old: IpAddr, anchor: &str, hook: Hook<'_>,
    ) -> Result<(Vec<IpAddr>, bool), Untranslated> {
        let mut networks = vec![];
        for operand in self.operands() {
            networks.append(&mut operand.pool(anchor, family, hook.lookup).ok_or(Untranslated::Unknown)?);
        }
        let first = *networks.first().ok_or(Untranslated::Failed)?;
        Ok(match self.kind {
            PoolKind::Single => (vec![first.addr()], false),
            PoolKind::Bitmask => (vec![masked(first, old)], false),
            PoolKind::Random | PoolKind::SourceHash(_) | PoolKind::RoundRobin => round(&networks, &hook.lookup.known),
        })
    }
}

/// The network bits of one address with the host bits of another (pf_poolmask).
fn masked(network: IpNet, other: IpAddr) -> IpAddr {
    let (family, hosts) = (Family::of(network.addr()), number(network.hostmask()));
    if Family::of(other) != family {
        return network.addr();
    }
    address(family, number(network.addr()) & !hosts | number(other) & hosts)
}

/// All addresses of small networks; of large ones the first, the last, and those in use.
fn round(networks: &[IpNet], known: &[IpAddr]) -> (Vec<IpAddr>, bool) {
    let mut addresses: Vec<IpAddr> = vec![];
    let mut more = false;
    for network in networks {
        let (family, bits) = (Family::of(network.addr()), network.max_prefix_len() - network.prefix_len());
        if bits <= 3 {
            addresses.extend((0..1_u128 << bits).map(|n| address(family, number(network.network()) + n)));
        } else {
            more = true;
            addresses.extend([network.network(), network.broadcast()]);
            addresses.extend(known.iter().filter(|address| network.contains(*address)));
        }
    }
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    more |= addresses.len() > TRIED;
    addresses.truncate(TRIED);
    (addresses, more)
}

/// The packets that a source translation can make of one, with a port chosen for each (pf_get_sport).
fn source(packet: &Packet, pool: &Pool, anchor: &str, hook: Hook<'_>) -> Made {
    let (addresses, more) = pool.possible(packet.family(), packet.from.ip(), anchor, hook)?;
    let made = addresses.into_iter().filter_map(|address| {
        let port = source_port(packet, address, pool, &hook.pf.states)?;
        Some(Packet { from: SocketAddr::new(address, port), ..packet.clone() })
    });
    let made: Vec<Packet> = made.collect();
    if made.is_empty() { Err(Untranslated::Failed) } else { Ok((made, more)) }
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
fn destination(packet: &Packet, pool: &Pool, to: Option<Ports>, anchor: &str, hook: Hook<'_>) -> Made {
    let (addresses, more) = pool.possible(packet.family(), packet.to.ip(), anchor, hook)?;
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
    let made = addresses.into_iter().map(|address| Packet { to: SocketAddr::new(address, port), ..packet.clone() });
    Ok((made.collect(), more))
}

/// `binat`: replaces the bits of one network with those of the other, by direction.
fn both(packet: &Packet, inside: &Side, pool: &Pool, anchor: &str, hook: Hook<'_>) -> Made {
    let operand = match hook.direction {
        Direction::Out => pool.operands().next(),
        Direction::In => Some(&inside.address),
    };
    let operand = operand.ok_or(Untranslated::Failed)?;
    let networks = operand.pool(anchor, packet.family(), hook.lookup).ok_or(Untranslated::Unknown)?;
    let mut made = packet.clone();
    match (networks.first(), hook.direction) {
        // `from any` leaves the address unchanged
        (None, _) if *operand == Operand::Any => {}
        (None, _) => return Err(Untranslated::Failed),
        (Some(network), Direction::Out) => made.from.set_ip(masked(*network, packet.from.ip())),
        (Some(network), Direction::In) => made.to.set_ip(masked(*network, packet.to.ip())),
    }
    Ok((vec![made], false))
}

/// The packets that one translation of a rule makes of a packet.
pub(super) fn by_rule(packet: &Packet, kind: RuleKind, pool: &Pool, at: &Found<'_>, hook: Hook<'_>) -> Made {
    match kind {
        RuleKind::Nat => source(packet, pool, at.anchor, hook),
        RuleKind::Binat => both(packet, &at.rule.when.from, pool, at.anchor, hook),
        RuleKind::Rdr | RuleKind::Filter => destination(packet, pool, at.rule.when.to.ports, at.anchor, hook),
    }
}

/// `af-to`: makes a packet of the other family (pf_get_transaddr_af).
pub(super) fn family(
    packet: &Packet, (family, sources, targets): &(Family, Pool, Option<Pool>), at: &Found<'_>, hook: Hook<'_>,
) -> Result<Packet, Untranslated> {
    let (addresses, _) = sources.possible(*family, packet.from.ip(), at.anchor, hook)?;
    let from = *addresses.first().ok_or(Untranslated::Failed)?;
    let target = match targets {
        Some(pool) => {
            let mut networks = pool.operands().filter_map(|operand| operand.pool(at.anchor, *family, hook.lookup));
            let network = networks.next().and_then(|all| all.first().copied()).ok_or(Untranslated::Failed)?;
            let one = network.prefix_len() == network.max_prefix_len();
            if one { network.addr() } else { embed(network, packet.to.ip()) }
        }
        None => match (packet.to.ip(), family) {
            (IpAddr::V6(to6), Family::Inet) => {
                let length = match &at.rule.when.to.address {
                    Operand::Network(network) if network.prefix_len() >= 32 => network.prefix_len(),
                    _ => 96,
                };
                extract(to6, length).into()
            }
            (old @ IpAddr::V4(_), Family::Inet6) => {
                let length = match sources.operands().next() {
                    Some(Operand::Network(network)) => network.prefix_len().min(96),
                    _ => 96,
                };
                embed(IpNet::new(from, length).map_err(|_| Untranslated::Failed)?, old)
            }
            (same, _) => same,
        },
    };
    let mut made = packet.clone();
    made.to.set_ip(target);
    made.from.set_ip(from);
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
        let port = source_port(&made, from, &pool, &hook.pf.states).ok_or(Untranslated::Failed)?;
        made.from.set_port(port);
    }
    Ok(made)
}

/// The bytes of an IPv4 address after an IPv6 prefix, without the one that stays zero (RFC 6052, 2.2).
fn embedded(length: u8) -> impl Iterator<Item = usize> {
    (usize::from(length / 8)..16).filter(|at| *at != 8).take(4)
}

/// An IPv4 address after an IPv6 prefix; for IPv4, the low bits of the address.
fn embed(network: IpNet, address: IpAddr) -> IpAddr {
    match (network, address) {
        (IpNet::V6(net), IpAddr::V4(v4)) => {
            let mut octets = net.network().octets();
            embedded(net.prefix_len()).zip(v4.octets()).for_each(|(at, octet)| octets[at] = octet);
            Ipv6Addr::from(octets).into()
        }
        (IpNet::V4(net), IpAddr::V6(v6)) => {
            let [.., a, b, c, d] = v6.octets();
            masked(IpNet::V4(net), Ipv4Addr::new(a, b, c, d).into())
        }
        (network, other) => masked(network, other),
    }
}

fn extract(address: Ipv6Addr, length: u8) -> Ipv4Addr {
    let mut found = [0; 4];
    found.iter_mut().zip(embedded(length)).for_each(|(octet, at)| *octet = address.octets()[at]);
    Ipv4Addr::from(found)
}
