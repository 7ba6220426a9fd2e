//! A system whose facts kport cannot read.

use std::net::IpAddr;
use std::time::Duration;

use super::{Host, HostInterface, Jail, Jails, Listener};
use crate::error::{Error, Kind, Result};
use crate::net::{Family, Interface};

/// The running host; it is neither FreeBSD nor Linux, so every call returns [`Kind::Unsupported`].
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

fn unsupported<T>() -> Result<T> {
    Err(Error::new(
        Kind::Unsupported,
        format!("kport cannot read the facts of a host of {}; run it on FreeBSD", std::env::consts::OS),
    ))
}

impl Host for System {
    fn gateway(&self, _: Family) -> Result<Option<Interface>> {
        unsupported()
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        unsupported()
    }

    fn jail(&self, _: &str) -> Result<Option<Jail>> {
        unsupported()
    }

    fn jails(&self) -> Result<Jails> {
        unsupported()
    }

    fn vnet_addresses(&self, _: &Jail, _: Duration) -> Result<Vec<IpAddr>> {
        unsupported()
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        unsupported()
    }

    fn sysctl(&self, _: &str) -> Result<Option<i64>> {
        unsupported()
    }

    fn boot_id(&self) -> Result<String> {
        unsupported()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::PerFamily;

    #[test]
    fn every_call_is_unsupported() {
        let jail = Jail {
            jid: 1,
            name: "web".to_owned(),
            vnet: true,
            inherits: PerFamily::default(),
            addresses: Vec::new(),
            dying: false,
        };
        let errors = [
            System.gateway(Family::Inet).err(),
            System.interfaces().err(),
            System.jail("web").err(),
            System.jails().err(),
            System.vnet_addresses(&jail, Duration::ZERO).err(),
            System.listeners().err(),
            System.sysctl("kern.securelevel").err(),
            System.boot_id().err(),
        ];
        assert!(errors.iter().all(|e| e.as_ref().is_some_and(|e| e.kind() == Kind::Unsupported)), "{errors:?}");
    }
}
