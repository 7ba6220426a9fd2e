//! Tables.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::address::Operand;
use crate::net::Family;

/// The addresses of a pf table; the longest entry that holds an address decides (pfr_match_addr in pf_table.c).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Each network, and whether it is negated.
    networks: HashMap<IpNet, bool>,
    /// The lengths of its entries, of each family: only these are looked up.
    lengths: BTreeSet<(Family, u8)>,
    /// Names of interfaces and hosts, which pfctl looks up when it fills the table.
    pub others: Vec<(bool, Operand)>,
}

impl Table {
    pub(crate) fn insert(&mut self, network: IpNet, not: bool) {
        self.lengths.insert((Family::of(network.addr()), network.prefix_len()));
        self.networks.insert(network.trunc(), not);
    }

    /// Whether it holds no address.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.values().all(|not| *not) && self.others.iter().all(|(not, _)| *not)
    }

    /// Its entries, in order.
    pub(crate) fn networks(&self) -> Vec<(bool, IpNet)> {
        let mut all: Vec<(bool, IpNet)> = self.networks.iter().map(|(network, not)| (*not, *network)).collect();
        all.sort_by_key(|(_, network)| *network);
        all
    }

    /// Whether the longest entry that contains an address is negated; `None` if no entry contains it.
    pub(crate) fn longest(&self, address: IpAddr) -> Option<bool> {
        let family = Family::of(address);
        let mut lengths = self.lengths.range((family, 0)..=(family, u8::MAX)).rev();
        lengths.find_map(|(_, length)| self.networks.get(&IpNet::new(address, *length).ok()?.trunc()).copied())
    }

    /// The addresses of one family that a pool uses from it: one for each entry.
    pub(crate) fn pool(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.networks().into_iter().filter(move |(not, net)| !not && Family::of(net.addr()) == family).map(|(_, n)| n)
    }
}
