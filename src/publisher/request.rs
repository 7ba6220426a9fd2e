//! What is to be published: its options by name, and what a record keeps of it.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::error::{Result, error, quoted};
use crate::name::JailName;
use crate::net::{Family, Interface, PortRange};
use crate::options::{Given, Names, Options, Takes, put};
use crate::publication::{self, Publication, Redirect};
use crate::spec::{HostPorts, Mapping, Spec};
use crate::store::{Record, Requested};

/// The ports that `auto` chooses from by default: the dynamic ports of RFC 6335, which are also those of
/// `net.inet.ip.portrange.hifirst` and `hilast`.
pub const AUTO_RANGE: PortRange = match PortRange::new(49152, 65535) {
    Some(range) => range,
    None => unreachable!(),
};

/// What to publish.
#[derive(Clone, Debug)]
pub struct Request {
    /// The jail.
    pub jail: JailName,
    /// The ports.
    pub spec: Spec,
    /// The jail's addresses in order of preference: one for each network it is connected to. If empty, they are read from the
    /// host.
    pub addresses: Vec<IpAddr>,
    /// The networks from which the addresses that a jail with its own network stack reports are believed, besides those of
    /// the bridges and epairs of the host: the jail's address is one of the LAN, from DHCP. The host's own addresses, and those
    /// of other jails, are never believed.
    pub trust: Vec<IpNet>,
    /// The gateway interface, for mappings without a place. `None`: that of the host's default route.
    pub gateway: Option<Interface>,
    /// The jid. `None`: it is read from the host.
    pub jid: Option<i32>,
    /// How long to wait until the jail has an address that can be published, if none is given: one of each family of
    /// [`Options::families`]; if none is named, one, and [`GRACE`](super::GRACE) for one of the other family, if the host has a
    /// default route of both. The deadline of the publisher applies as well.
    pub wait: Duration,
    /// The options.
    pub options: Options,
    /// The host ports that `auto` chooses from.
    pub auto_range: PortRange,
    /// Add to what the jail has published instead of replacing it. The options apply to the mappings of this call.
    pub add: bool,
    /// Publish even if a socket of the host or another tool's redirect has the port.
    pub force: bool,
    /// Publish even if pf does not evaluate the rules at present.
    pub allow_inert: bool,
    /// The name is not that of a jail, but of another target of redirects: a guest of bhyve(8), a host of the LAN. It needs its
    /// address, has no jid, and is published until it is unpublished.
    pub no_jail: bool,
    /// Every address of the host is the default of the caller, and not the choice of a user: no note about it.
    pub default_everywhere: bool,
    /// It is a line of kport.conf(5): [`Publisher::follow`](super::Publisher::follow) unpublishes it when the line is gone.
    pub configured: bool,
}

impl Request {
    /// A request with the default options.
    pub fn new(jail: JailName, spec: Spec) -> Request {
        Request {
            jail,
            spec,
            addresses: vec![],
            trust: vec![],
            gateway: None,
            jid: None,
            wait: Duration::ZERO,
            options: Options::default(),
            auto_range: AUTO_RANGE,
            add: false,
            force: false,
            allow_inert: false,
            no_jail: false,
            default_everywhere: false,
            configured: false,
        }
    }

    /// The name of each option of a request, as for [`Request::set`], and the kind of its value.
    pub fn names() -> impl Iterator<Item = (&'static str, Takes)> {
        NAMED.names().chain(Options::names())
    }

    /// The kind of value of the option with this name; `None` if there is none.
    pub fn takes(name: &str) -> Option<Takes> {
        NAMED.takes(name).or_else(|| Options::takes(name))
    }

    /// Sets an option by its name, which is that of its flag: one of the request, or of its [`Options`].
    ///
    /// # Errors
    ///
    /// As for [`Options::set`]; for `address` also `Kind::Unsupported` if the jail is on the host's network.
    pub fn set(&mut self, name: &str, given: &Given) -> Result<()> {
        NAMED.set(self, name, given).unwrap_or_else(|| self.options.set(name, given))
    }

    /// Whether an option can have this value, independent of the ports.
    ///
    /// # Errors
    ///
    /// As for [`Request::set`].
    pub fn check(name: &str, given: &Given) -> Result<()> {
        Request::new("jail".parse()?, "1".parse()?).set(name, given)
    }

    pub(super) fn waits(&self) -> bool {
        !self.wait.is_zero() && self.addresses.is_empty()
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trust.iter().any(|network| network.contains(&address))
    }

    /// Those in which something can be published.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        let (wanted, mappings) = (&self.options.families, self.spec.mappings());
        Family::ALL.into_iter().filter(move |family| {
            (wanted.is_empty() || wanted.contains(family))
                && mappings.iter().any(|mapping| mapping.place.is_none_or(|place| place.has_family(*family)))
        })
    }

    /// Whether both publish the same, for a jail that has the same addresses: how long they wait does not matter.
    pub fn is_same(&self, other: &Request) -> bool {
        self.jail == other.jail && self.no_jail == other.no_jail && self.to_record() == other.to_record()
    }

    /// What a record keeps of it.
    pub(super) fn to_record(&self) -> Requested {
        let Request { spec, addresses, trust, options, .. } = self.clone();
        let Request { gateway, auto_range, force, allow_inert, configured, .. } = *self;
        Requested { spec, addresses, trust, gateway, auto_range, force, allow_inert, options, configured }
    }

    /// The requests that a record keeps.
    pub(super) fn of_record(record: &Record) -> Vec<Request> {
        let of = |requested: &Requested| {
            let Requested { spec, addresses, trust, gateway, auto_range, force, allow_inert, options, configured } =
                requested.clone();
            let (new, no_jail) = (Request::new(record.jail.clone(), spec), record.no_jail);
            Request { addresses, trust, gateway, auto_range, force, allow_inert, options, configured, no_jail, ..new }
        };
        record.requested.iter().map(of).collect()
    }
}

/// Those that are not part of [`Options`].
const NAMED: Names<Request> = Names(&[
    ("address", Takes::Words, |request, given| {
        let read = given.each(|word| match word.contains('/') {
            true => network(word).map(|network| (Some(network), None)),
            false => publication::address(&request.jail, word).map(|address| (None, Some(address))),
        })?;
        request.trust.extend(read.iter().filter_map(|(network, _)| *network));
        request.addresses = read.iter().filter_map(|(_, address)| *address).collect();
        Ok(())
    }),
    ("trust", Takes::Words, |request, given| {
        request.trust.extend(given.each(network)?);
        Ok(())
    }),
    ("gateway", Takes::Word, |request, given| put(&mut request.gateway, given.word(str::parse).map(Some))),
    ("auto-range", Takes::Word, |request, given| put(&mut request.auto_range, given.word(str::parse))),
    ("wait", Takes::Word, |request, given| put(&mut request.wait, given.word(seconds))),
    ("add", Takes::Flag, |request, given| put(&mut request.add, given.flag())),
    ("jail", Takes::Flag, |request, given| put(&mut request.no_jail, given.flag().map(|on| !on))),
    ("force", Takes::Flag, |request, given| put(&mut request.force, given.flag())),
    ("allow-inert", Takes::Flag, |request, given| put(&mut request.allow_inert, given.flag())),
]);

fn network(word: &str) -> Result<IpNet> {
    let refuse = |why: String| Err(error!(Argument, "{} {why}", quoted(word)));
    match word.parse::<IpNet>() {
        Ok(network) if network == network.trunc() => Ok(network),
        Ok(network) => {
            refuse(format!("has bits set after its prefix; write {} or {}", network.trunc(), network.addr()))
        }
        Err(_) => refuse("is not a network such as 192.168.1.0/24".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| error!(Argument, "{} is not a number of seconds", quoted(text)))
}

/// Those of a record to which requests were added, or only these if nothing was published before. A mapping that is requested
/// again is that of the later request.
pub(super) fn after(before: Option<&Record>, requests: &[Request]) -> Vec<Requested> {
    let again = |mapping: &Mapping| requests.iter().any(|request| request.spec.mappings().contains(mapping));
    let mut all = before.map(|record| retained(&record.requested, |mapping| !again(mapping))).unwrap_or_default();
    all.extend(requests.iter().map(Request::to_record));
    all
}

/// Those that are left when only `publications` stay published.
pub(super) fn left(requested: &[Requested], publications: &[Publication]) -> Vec<Requested> {
    let redirects = || publications.iter().flat_map(|p| &p.redirects);
    retained(requested, |mapping| {
        redirects().any(|r| has_ports(mapping, r) && mapping.place.is_none_or(|place| place == r.place))
    })
}

fn retained(requested: &[Requested], stays: impl Fn(&Mapping) -> bool) -> Vec<Requested> {
    let kept = |one: &Requested| Some(Requested { spec: one.spec.only(&stays)?, ..one.clone() });
    requested.iter().filter_map(kept).collect()
}

/// Whether a redirect has the ports and the protocol of a mapping.
pub(super) fn has_ports(mapping: &Mapping, redirect: &Redirect) -> bool {
    let host = match mapping.host {
        HostPorts::Fixed(host) => host == redirect.host,
        HostPorts::Auto => true,
    };
    host && mapping.jail == redirect.jail && mapping.protocol == redirect.protocol
}
