//! What was requested for a jail, as far as it does not depend on the host.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::{Interface, PortRange};
use crate::options::Options;

/// A request, in a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The ports, with every field.
    pub spec: String,
    /// The addresses that were given; if there are none, they are found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Interface>,
    pub auto_range: PortRange,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_inert: bool,
    pub options: Options,
    /// Whether it is a line of kport.conf(5), and not by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub configured: bool,
}
