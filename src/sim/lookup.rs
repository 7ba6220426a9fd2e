//! What rules look up when a packet passes: the interfaces of the host, and the tables.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::host::HostInterface;
use crate::net::Interface;

/// What rules look up when a packet passes.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookup {
    pub interfaces: Vec<HostInterface>,
    pub tables: BTreeMap<String, Vec<IpNet>>,
}

impl Lookup {
    /// Whether `name` is the interface or a group that it is in (pfi_kkif_match in pf_if.c).
    pub(super) fn is_in(&self, interface: Interface, name: Interface) -> bool {
        interface == name || self.interfaces.iter().any(|known| known.name == interface && known.groups.contains(&name))
    }
}
