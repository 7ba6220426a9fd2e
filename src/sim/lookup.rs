//! What rules look up when a packet passes: the interfaces of the host, and the tables.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::host::{HostInterface, Interfaces};
use crate::net::Interface;

/// What rules look up when a packet passes.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookup {
    pub interfaces: Vec<HostInterface>,
    pub tables: BTreeMap<String, Vec<IpNet>>,
}

impl Lookup {
    /// Whether `name` is the interface or a group that it is in.
    pub(super) fn is_in(&self, interface: Interface, name: Interface) -> bool {
        Interfaces(&self.interfaces).is_in(interface, name)
    }
}
