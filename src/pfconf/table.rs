//! Tables.

use std::collections::HashMap;

use ipnet::IpNet;

use super::address::Operand;
use crate::net::Family;

/// The addresses of a pf table; the longest entry that holds an address decides (pfr_match_addr in pf_table.c).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Each network, and whether it is negated.
    networks: HashMap<IpNet, bool>,
    /// Names of interfaces and hosts, which pfctl looks up when it fills the table.
    pub others: Vec<(bool, Operand)>,
}

impl Table {
    pub(crate) fn insert(&mut self, network: IpNet, not: bool) {
        self.networks.insert(network.trunc(), not);
    }

    /// Its entries, in order.
    pub(crate) fn networks(&self) -> Vec<(bool, IpNet)> {
        let mut all: Vec<(bool, IpNet)> = self.networks.iter().map(|(network, not)| (*not, *network)).collect();
        all.sort_by_key(|(_, network)| *network);
        all
    }

    /// Whether a network is negated, if it is an entry.
    pub(crate) fn network(&self, network: IpNet) -> Option<bool> {
        self.networks.get(&network).copied()
    }

    /// The addresses of one family that a pool uses from it: one for each entry.
    pub(crate) fn pool(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.networks().into_iter().filter(move |(not, net)| !not && Family::of(net.addr()) == family).map(|(_, n)| n)
    }
}
