//! The requests that a record keeps.

use std::time::Duration;

use super::Request;
use crate::error::Result;
use crate::name::JailName;
use crate::publication::{Publication, Redirect};
use crate::spec::{self, HostPorts, Mapping};
use crate::store::{Record, Requested};

/// Those of a record to which requests were added, or only these if nothing was published before. A mapping that is requested
/// again is that of the later request.
pub(super) fn after(before: Option<&Record>, requests: &[Request]) -> Result<Vec<Requested>> {
    let again = |mapping: &Mapping| requests.iter().any(|request| request.spec.mappings().contains(mapping));
    let kept = before.map(|record| retained(&record.requested, |mapping| !again(mapping)));
    let mut all = kept.transpose()?.unwrap_or_default();
    all.extend(requests.iter().map(of));
    Ok(all)
}

/// Those that are left when only `publications` stay published.
pub(super) fn left(requested: &[Requested], publications: &[Publication]) -> Result<Vec<Requested>> {
    let redirects = || publications.iter().flat_map(|p| &p.redirects);
    retained(requested, |mapping| {
        redirects().any(|r| has_ports(mapping, r) && mapping.place.is_none_or(|place| place == r.place))
    })
}

fn retained(requested: &[Requested], stays: impl Fn(&Mapping) -> bool) -> Result<Vec<Requested>> {
    let mut kept = vec![];
    for one in requested {
        let spec = spec::parse(&one.spec)?;
        let mappings: Vec<String> = spec.mappings().iter().filter(|m| stays(m)).map(Mapping::to_string).collect();
        if !mappings.is_empty() {
            kept.push(Requested { spec: mappings.join(" "), ..one.clone() });
        }
    }
    Ok(kept)
}

/// What a record keeps of a request.
pub(super) fn of(request: &Request) -> Requested {
    Requested {
        spec: request.spec.to_string(),
        addresses: request.addresses.clone(),
        trust: request.trust.clone(),
        gateway: request.gateway,
        auto_range: request.auto_range,
        force: request.force,
        allow_inert: request.allow_inert,
        options: request.options.clone(),
        configured: request.configured,
    }
}

/// The request again.
pub(super) fn request(requested: &Requested, jail: &JailName, no_jail: bool) -> Result<Request> {
    Ok(Request {
        addresses: requested.addresses.clone(),
        trust: requested.trust.clone(),
        gateway: requested.gateway,
        auto_range: requested.auto_range,
        force: requested.force,
        allow_inert: requested.allow_inert,
        options: requested.options.clone(),
        configured: requested.configured,
        no_jail,
        wait: Duration::ZERO,
        ..Request::new(jail.clone(), spec::parse(&requested.spec)?)
    })
}

impl Request {
    /// Whether both publish the same, for a jail that has the same addresses: how long they wait does not matter.
    pub fn is_same(&self, other: &Request) -> bool {
        self.jail == other.jail && self.no_jail == other.no_jail && of(self) == of(other)
    }
}

/// Whether a redirect has the ports and the protocol of a mapping.
pub(super) fn has_ports(mapping: &Mapping, redirect: &Redirect) -> bool {
    let host = match mapping.host {
        HostPorts::Fixed(host) => host == redirect.host,
        HostPorts::Auto => true,
    };
    host && mapping.jail == redirect.jail && mapping.protocol == redirect.protocol
}
