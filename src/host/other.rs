//! A system whose facts kport cannot read.

use std::net::IpAddr;
use std::time::Duration;

use super::{Host, HostInterface, Jail, Jails, Listener};
use crate::error::{Error, Kind, Result};
use crate::net::{Family, Interface};

/// The running host; it is neither FreeBSD nor Linux, so every call returns [`Kind::Unsupported`].
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

pub fn unsupported<T>() -> Result<T> {
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

    fn uptime(&self) -> Result<u64> {
        unsupported()
    }
}
