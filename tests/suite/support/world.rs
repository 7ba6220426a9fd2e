//! The host of the recordings, as a world of the evaluator.

use std::net::IpAddr;

use kport::error::Error;
use kport::host::{HostInterface, Interfaces};
use kport::name::JailName;
use kport::net::{Interface, PerFamily};
use kport::options::Options;
use kport::publication::{self, Publication, Targets};
use kport::rule::Rule;
use kport::rules;
use kport::trace::{Attachment, Party, Release, World};

/// The three calls, and what IPv6 needs for neighbour discovery.
/// By wildcard: the anchors of the tests are loaded as text, so nothing makes the calls.
pub const ANCHORS: &str =
    "nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\npass quick inet6 proto ipv6-icmp\nanchor \"kport/*\"\n";

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn reads<T: std::str::FromStr<Err = Error>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The jail with that name, `host`, or the network behind the interface with that name.
pub fn party(name: &str) -> Party {
    match name {
        "host" => Party::Host,
        "em0" | "em1" | "bridge0" | "bridge1" => Party::Network(name.parse().unwrap()),
        _ => Party::Jail(name.to_owned()),
    }
}

pub fn interface(name: &str, groups: &[&str], addresses: &[&str]) -> HostInterface {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    HostInterface::up(name.parse().unwrap(), reads(groups), addresses)
}

pub fn jail(name: &str, behind: Option<&str>, member: Option<&str>, addresses: &[&str]) -> Attachment {
    let interface = |name: &str| name.parse::<Interface>().unwrap();
    Attachment {
        name: name.to_owned(),
        behind: behind.map(interface),
        member: member.map(interface),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

pub fn interfaces() -> Vec<HostInterface> {
    vec![
        interface("lo0", &["lo"], &["127.0.0.1/8", "::1/128", "fe80::1/64"]),
        interface("em0", &[], &["192.0.2.1/24", "192.0.2.7/32", "fe80::58b2:5aff:fe9c:8e5/64", "2001:db8::1/64"]),
        interface("bridge0", &["bridge"], &["10.0.0.1/24", "fd00::1/64"]),
        interface("bridge1", &["bridge"], &["10.1.0.1/24", "fd01::1/64"]),
        interface("epair1a", &["epair"], &[]),
        interface("epair2a", &["epair"], &[]),
        interface("epair3a", &["epair"], &[]),
        interface("lo1", &["lo"], &["10.9.0.2/32"]),
    ]
}

pub fn host(release: Release) -> World {
    let mut world = World::new(release, interfaces());
    world.lookup.gateway = PerFamily::each(|_| Some("em0".parse().unwrap()));
    world.jails = vec![
        jail("web", Some("bridge0"), Some("epair1a"), &["10.0.0.2/24", "fd00::2/64"]),
        jail("app", Some("bridge0"), Some("epair2a"), &["10.0.0.3/24", "fd00::3/64"]),
        jail("other", Some("bridge1"), Some("epair3a"), &["10.1.0.2/24", "fd01::2/64"]),
        jail("flat", None, None, &["10.9.0.2/32"]),
    ];
    world
}

/// The rules of a publication on the host of [`interfaces`].
pub fn rules_of(jail: &str, addresses: &[&str], spec: &str, options: &Options) -> Vec<Rule> {
    rules::rules(&publication(&interfaces(), jail, addresses, spec, options))
}

pub fn publication(
    host: &[HostInterface], jail: &str, addresses: &[&str], spec: &str, options: &Options,
) -> Publication {
    let jail: JailName = jail.parse().unwrap();
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| address(text)).collect();
    let targets = Targets::choose(&jail, &addresses).unwrap();
    let redirects = publication::redirects(&jail, &spec.parse().unwrap(), &targets, |_| "em0".parse()).unwrap();
    Publication::new(jail, redirects, options.clone(), |target| Interfaces(host).leads_to(target)).unwrap()
}

pub fn publish(world: &mut World, jail: &str, addresses: &[&str], spec: &str, options: &Options) {
    world.load(&format!("kport/{jail}"), &rules_of(jail, addresses, spec, options));
}
