//! What the host knows: routes, interfaces, jails, listening sockets, sysctls. The only place that asks the system.
//!
//! [`Host`] is a trait so that tests can play any host: [`System`] is the one that runs, [`Fixed`] one from a file.

mod fixed;
#[cfg(any(target_os = "freebsd", test))]
mod freebsd;
mod interfaces;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
mod other;
mod played;
mod rights;
mod watch;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use fixed::Fixed;
#[cfg(target_os = "freebsd")]
pub use freebsd::System;
pub use interfaces::Interfaces;
#[cfg(test)]
pub(crate) use interfaces::fixture;
#[cfg(target_os = "linux")]
pub use linux::System;
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
pub use other::System;
pub use played::Played;
pub use rights::has_borrowed_rights;
pub use watch::Watch;

use crate::error::Result;
use crate::net::{Family, Interface, PerFamily, Protocol};

/// A network interface of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostInterface {
    /// Its name.
    pub name: Interface,
    /// The groups it is in (ifconfig(8) `group`), its own driver's among them.
    #[serde(default)]
    pub groups: Vec<Interface>,
    /// Its addresses, each with its network.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Whether it is up.
    pub up: bool,
}

/// A jail, as jail_get(2) tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jail {
    /// Its number, never reused while the host is up as long as a dying one keeps it.
    pub jid: i32,
    /// Its name.
    pub name: String,
    /// Whether its network stack is not the host's: `vnet=new`, its own or of a jail above it. Its addresses are then
    /// [`Host::vnet_addresses`].
    #[serde(default)]
    pub vnet: bool,
    /// Whether it uses the host's addresses (`ip4=inherit`, `ip6=inherit`), by family; never if `vnet` is set, though
    /// the kernel calls a VNET jail `ip4=inherit` too.
    #[serde(default)]
    pub inherits: PerFamily<bool>,
    /// Its addresses, for a jail on the host's network stack: `ip4.addr`, then `ip6.addr`.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Whether it is being torn down.
    #[serde(default)]
    pub dying: bool,
}

/// The jails of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jails {
    /// Those that can be read, dying ones included.
    pub jails: Vec<Jail>,
    /// Those that cannot: root of a jail names the jails in it as it likes.
    pub skipped: Vec<SkippedJail>,
}

/// A jail that is there, and of which no more is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedJail {
    /// Its number.
    pub jid: i32,
    /// Its name, if that is known.
    #[serde(default)]
    pub name: Option<String>,
    /// What keeps kport from reading it.
    pub why: String,
}

/// A socket of the host, or of a jail without a network stack of its own, that waits for traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// The protocol.
    pub protocol: Protocol,
    /// The families that it accepts.
    pub families: PerFamily<bool>,
    /// The local address; `None` for every address of its families.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The local port.
    pub port: u16,
}

/// A process that has a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The number of the jail that it runs in; 0 for the host.
    #[serde(default)]
    pub jid: i32,
    /// Its arguments, the program's name first, as the process itself may have changed them.
    pub arguments: Vec<String>,
}

/// How long a jail may take to answer with its addresses if nobody else waits meanwhile. It takes a millisecond, and a loaded
/// machine many.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What kport asks the host. Every answer is a fact of this moment.
pub trait Host {
    /// The interface of the default route of `family`, of the calling process's FIB; `None` without one.
    fn gateway(&self, family: Family) -> Result<Option<Interface>>;

    /// Every interface whose name a pf rule of kport can hold.
    fn interfaces(&self) -> Result<Vec<HostInterface>>;

    /// The jail with this name, or with this number if `name` is one; `None` if there is none. A dying jail is
    /// found too.
    fn jail(&self, name: &str) -> Result<Option<Jail>>;

    /// Every jail, dying ones included. One that cannot be read does not hide the others.
    fn jails(&self) -> Result<Jails>;

    /// The addresses that a jail with `vnet` has, in the order of its interfaces; loopback, link-local and unspecified
    /// ones left out, and those of interfaces that are down. The answer comes from the jail's root, who may lie or not
    /// answer: that is [`Kind::Unavailable`](crate::error::Kind::Unavailable), as is a jail that has gone. No answer `within` that
    /// time is [`Kind::Busy`](crate::error::Kind::Busy), and every other error is not of the jail's making.
    fn vnet_addresses(&self, jail: &Jail, within: Duration) -> Result<Vec<IpAddr>>;

    /// What reports changes to the network of a jail with `vnet`: interfaces, addresses, routes. `None` if the system does not
    /// report them. It may take as long as `within`, and fails as [`Host::vnet_addresses`] does. To be dropped soon: a jail that is
    /// removed meanwhile is dying until then.
    fn watch(&self, _jail: &Jail, _within: Duration) -> Result<Option<Watch>> {
        Ok(None)
    }

    /// Every listening tcp and sctp socket, and every udp socket that is bound to a port of its own choice and not connected,
    /// of the host and of the jails that share its network stack. A udp socket whose port the kernel chose is a client's.
    fn listeners(&self) -> Result<Vec<Listener>>;

    /// The processes that have a udp socket which is bound to `port` and not connected; none if the system does not say.
    /// Each of them is looked at, so this is not a question for every publication.
    fn udp_holders(&self, _port: u16) -> Result<Vec<Process>> {
        Ok(vec![])
    }

    /// An integer sysctl(8) by name; `None` if the kernel does not know it.
    fn sysctl(&self, name: &str) -> Result<Option<i64>>;

    /// A text that is another one after each boot.
    fn boot_id(&self) -> Result<String>;

    /// Whether somebody has written its answers down: it is not the host that runs.
    fn is_played(&self) -> bool {
        false
    }
}

#[cfg(all(test, any(target_os = "freebsd", target_os = "linux")))]
mod tests {
    //! The host that runs these tests, against what the standard library does on it.

    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn loopback_and_the_gateways_are_among_the_interfaces() {
        let all = System.interfaces().unwrap();
        let localhost: IpNet = "127.0.0.1/8".parse().unwrap();
        let lo = all.iter().find(|interface| interface.addresses.contains(&localhost)).unwrap();
        assert!(lo.up && lo.name.as_str().starts_with("lo"), "{lo:?}");
        if cfg!(target_os = "freebsd") {
            assert_eq!(lo.groups, ["lo".parse().unwrap()]);
        }
        for family in Family::ALL {
            if let Some(gateway) = System.gateway(family).unwrap() {
                assert!(all.iter().any(|interface| interface.name == gateway), "{gateway}");
            }
        }
    }

    #[test]
    fn sockets_that_wait_are_listeners() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        // not from the ports that a kernel chooses from
        let udp = (2000..10000).find_map(|port| UdpSocket::bind(("0.0.0.0", port)).ok()).unwrap();
        let asking = UdpSocket::bind("0.0.0.0:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(("127.0.0.1", udp.local_addr().unwrap().port())).unwrap();
        let found = System.listeners().unwrap();
        let inet = |protocol, address: Option<&str>, port| {
            let address = address.map(|text| text.parse().unwrap());
            found.contains(&Listener { protocol, families: PerFamily::only(Family::Inet), address, port })
        };
        assert!(inet(Protocol::Tcp, Some("127.0.0.1"), tcp.local_addr().unwrap().port()), "{found:?}");
        assert!(inet(Protocol::Udp, None, udp.local_addr().unwrap().port()), "{found:?}");
        assert!(!inet(Protocol::Udp, None, asking.local_addr().unwrap().port()), "{found:?}");
        assert!(!inet(Protocol::Udp, Some("127.0.0.1"), client.local_addr().unwrap().port()), "{found:?}");
    }

    #[test]
    fn a_socket_has_its_process() {
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let holders = System.udp_holders(port).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(holders.iter().any(|process| process.pid == own && process.jid == 0), "{holders:?}");
        let arguments: Vec<String> = std::env::args().collect();
        assert!(holders.iter().any(|process| process.arguments == arguments), "{holders:?}");
        drop(udp);
        assert!(System.udp_holders(port).unwrap().iter().all(|process| process.pid != own));
    }

    #[test]
    fn sysctls() {
        #[cfg(target_os = "freebsd")]
        assert!(matches!(System.sysctl("net.inet.ip.forwarding"), Ok(Some(0 | 1))));
        assert_eq!(System.sysctl("net.kport.unknown").unwrap(), None);
        assert_eq!(System.sysctl("net.inet.ip.forwarding\0").unwrap(), None);
    }

    #[test]
    fn the_boot_does_not_change() {
        let id = System.boot_id().unwrap();
        assert!(id.len() >= 16 && !id.contains(char::is_whitespace), "{id}");
        assert_eq!(id, System.boot_id().unwrap());
    }

    #[test]
    fn jails_that_are_not_there() {
        for name in ["", "no such jail", "nul\0", "0", "-1", "999999"] {
            assert_eq!(System.jail(name).unwrap(), None, "{name:?}");
        }
        #[cfg(target_os = "freebsd")]
        for jail in System.jails().unwrap().jails {
            assert_eq!(System.jail(&jail.jid.to_string()).unwrap().map(|again| again.name), Some(jail.name));
        }
    }
}
