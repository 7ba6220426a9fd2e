//! podman lets conmon(8) hold the ports that it publishes, with sockets that are never read, so that no other program binds them.
//! For tcp they do not listen, so kport ignores them. A udp socket looks like any other, so its process is checked.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::Result;
use crate::host::{Behind, Host, Listener, Process};
use crate::net::Protocol;

/// A host without the udp sockets that one container's conmon has on the container's own ports.
pub struct WithoutConmon {
    pub host: Box<dyn Host>,
    pub container: String,
    pub ports: BTreeSet<u16>,
}

impl WithoutConmon {
    /// Only if all sockets of a port are known to belong to the container's conmon: one whose process is unknown is still a
    /// conflict.
    fn is_conmons(&self, port: u16) -> bool {
        self.host
            .udp_holders(port)
            .is_ok_and(|holders| !holders.is_empty() && holders.iter().all(|holder| self.is_conmon(holder)))
    }

    /// conmon(8) of this container: `conmon ... -c ID`, on the host. A process in a jail may use any name.
    fn is_conmon(&self, process: &Process) -> bool {
        let Some((program, arguments)) = process.arguments.split_first() else { return false };
        let named = Path::new(program).file_name().is_some_and(|name| name == "conmon");
        let id = |pair: &[String]| matches!(pair[0].as_str(), "-c" | "--cid") && pair[1] == self.container;
        process.jid == 0 && named && arguments.windows(2).any(id)
    }
}

impl Host for WithoutConmon {
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Host(&*self.host))
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        let mut listeners = self.host.listeners()?;
        listeners.retain(|listener| {
            let asks = listener.protocol == Protocol::Udp && self.ports.contains(&listener.port);
            !(asks && self.is_conmons(listener.port))
        });
        Ok(listeners)
    }
}
