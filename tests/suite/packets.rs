//! Publishing, in packets: on random hosts, every packet arrives that should, and no other.
//!
//! The expectation is computed from the publications themselves, never from the rules.

use crate::support::world;

use std::net::{IpAddr, SocketAddr};

use crate::support::world::{ANCHORS, interface, jail, publication, reads};
use kport::host::HostInterface;
use kport::net::{Family, Interface, PerFamily, Place, Protocol};
use kport::options::{Options, Source};
use kport::publication::{Answer, Publication, Redirect};
use kport::rule::{self, NextHop, Routing};
use kport::rules;
use kport::trace::{Party, Release, World};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A random host with publications.
#[derive(Debug)]
struct Case {
    world: World,
    interfaces: Vec<HostInterface>,
    publications: Vec<Publication>,
    /// The main ruleset passes everything out.
    passes_out: bool,
    text: String,
}

/// The parts of a publication.
#[derive(Clone, Debug)]
struct Wish {
    specs: Vec<(u8, Protocol, u16, u16)>,
    options: Options,
}

fn wish() -> impl Strategy<Value = Wish> {
    let spec = (0u8..8, select(Protocol::ALL.to_vec()), 1u16..5, any::<bool>());
    let specs = prop::collection::vec(spec, 1..4).prop_map(|specs| {
        specs.into_iter().map(|(place, proto, count, shift)| (place, proto, count, u16::from(shift))).collect()
    });
    let reach = select(vec![vec!["bridge", "epair", "lo"], vec!["bridge"], vec![]]);
    let from = select(vec![
        vec![],
        vec![],
        vec!["192.0.2.96/28"],
        vec!["<friends>", "2001:db8::/64"],
        vec!["198.51.100.0/24", "192.0.2.100"],
    ]);
    (specs, reach, from, any::<[bool; 4]>()).prop_map(|(specs, reach, from, [hairpin, host_access, log, quick])| {
        let hairpin = hairpin && !reach.is_empty();
        let options = Options {
            reach: reads(&reach),
            hairpin,
            host_access,
            sources: reads(&from),
            log,
            quick,
            ..Options::default()
        };
        Wish { specs, options }
    })
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (1usize..3, prop::collection::vec((0usize..2, any::<bool>()), 2..5), any::<[bool; 5]>());
    (shape, prop::collection::vec(wish(), 1..4)).prop_map(|((bridges, jails, bits), wishes)| {
        let [v14, passes_out, aliases, members, routers] = bits;
        build(
            bridges,
            &jails,
            if v14 { Release::V14 } else { Release::V15 },
            passes_out,
            [aliases, members, routers],
            &wishes,
        )
    })
}

fn build(
    bridges: usize, jails: &[(usize, bool)], release: Release, passes_out: bool,
    [aliases, members, routers]: [bool; 3], wishes: &[Wish],
) -> Case {
    let mut outer = vec!["192.0.2.1/24", "2001:db8::1/64"];
    if aliases {
        outer.extend(["192.0.2.7/32", "2001:db8::7/128"]);
    }
    let mut interfaces = vec![
        interface("lo0", &["lo"], &["127.0.0.1/8", "::1/128"]),
        interface("em0", &["outer"], &outer),
        interface("em1", &[], &["198.51.100.1/24", "2001:db8:1::1/64"]),
    ];
    for n in 0..bridges {
        let (v4, v6) = (format!("10.{n}.0.1/24"), format!("fd0{n}::1/64"));
        interfaces.push(interface(&format!("bridge{n}"), &["bridge"], &[&v4, &v6]));
    }
    let mut living = vec![];
    for (n, (bridge, inet6)) in jails.iter().enumerate() {
        let (bridge, host) = (bridge % bridges, n + 2);
        interfaces.push(interface(&format!("epair{n}a"), &["epair"], &[]));
        let mut addresses = vec![format!("10.{bridge}.0.{host}/24")];
        if *inet6 {
            addresses.push(format!("fd0{bridge}::{host}/64"));
        }
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        living.push(jail(&format!("j{n}"), Some(&format!("bridge{bridge}")), Some(&format!("epair{n}a")), &addresses));
    }
    let mut world = World::new(release, interfaces.clone());
    world.lookup.gateway = PerFamily::each(|_| Some("em0".parse().unwrap()));
    world.jails.clone_from(&living);

    let mut publications = vec![];
    for (n, wish) in wishes.iter().enumerate() {
        // a jail has one publication, or several with options of their own
        let jail = &living[n % 2];
        let addresses: Vec<String> = jail.addresses.iter().map(|net| net.addr().to_string()).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        // no two publications overlap: kport refuses that before it makes rules
        let spec = |(m, (place, protocol, count, shift)): (usize, &(u8, Protocol, u16, u16))| {
            let host = 8000 + 100 * n as u16 + 10 * m as u16;
            // pf does not change the ports of sctp, and kport refuses what would need it
            let inside = if *shift == 0 || *protocol == Protocol::Sctp { host } else { 80 + 10 * m as u16 };
            let place = match place {
                0 | 1 => "em0:",
                2 => "em1:",
                3 => "192.0.2.1:",
                4 => "[2001:db8::1]:",
                5 => "0.0.0.0:",
                6 => "[::]:",
                _ => "*:",
            };
            let place = if place.starts_with('[') && addresses.len() < 2 { "outer:" } else { place };
            format!("{place}{host}-{}:{inside}/{protocol}", host + count - 1)
        };
        let spec: Vec<String> = wish.specs.iter().enumerate().map(spec).collect();
        let made = publication(&interfaces, &jail.name, &addresses, &spec.join(" "), &wish.options);
        let answers = if routers { answers(&made) } else { vec![] };
        publications.push(Publication { answers, ..made });
    }
    let host_access = publications.iter().any(|publication| publication.options.host_access);
    let policy = if passes_out { "block in log all\npass out all\n" } else { "block log all\n" };
    let own = if host_access { "pass quick on lo0\n" } else { "" };
    let main = format!("table <friends> {{ 192.0.2.101 2001:db8::101 }}\n{policy}{own}{ANCHORS}");
    world.load_text("", &main).unwrap();
    world.filter_local = host_access;
    // hairpin and host access need bridge members that are not filtered: see docs/who-can-reach-what.md
    world.pfil_member =
        members && !publications.iter().any(|p| p.options.hairpin || p.options.host_access || !rooted(p));
    let mut text = main;
    for jail in &living {
        let own: Vec<Publication> = publications.iter().filter(|p| p.jail.as_str() == jail.name).cloned().collect();
        let rules = rules::of_all(&own);
        text.push_str(&format!("# {}\n{}", jail.name, rule::text(&rules)));
        world.load(&format!("kport/{}", jail.name), &rules);
    }
    Case { world, interfaces, publications, passes_out, text }
}

/// Through the routers behind em1.
fn answers(publication: &Publication) -> Vec<Answer> {
    let on: Interface = "em1".parse().unwrap();
    let answer = |redirect: &Redirect| {
        let gateway = Some(match redirect.family() {
            Family::Inet => world::address("198.51.100.254"),
            Family::Inet6 => world::address("fe80::1"),
        });
        let routing = Routing { reply_to: Some(NextHop { interface: on, gateway }), rtable: None };
        Answer { place: redirect.place, target: redirect.target, on, beyond: true, routing }
    };
    publication.redirects.iter().map(answer).collect()
}

/// Whether every place of a publication is an interface.
fn rooted(publication: &Publication) -> bool {
    publication.redirects.iter().all(|redirect| matches!(redirect.place, Place::Interface(_)))
}

/// The expected result of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// The connection is established with this jail, at this address.
    Reaches(String, SocketAddr),
    /// No jail receives anything.
    Nothing,
    /// The packet may arrive, but no connection is established: a jail connects to a place without an interface, without hairpin,
    /// and the answer does not return through the host; or the host itself does, without host access.
    OneWay(String, SocketAddr),
}

impl Case {
    fn has(&self, interface: Interface, address: IpAddr) -> bool {
        let named = |i: &&HostInterface| i.name == interface || i.groups.contains(&interface);
        self.interfaces.iter().filter(named).any(|i| i.addresses.iter().any(|net| net.addr() == address))
    }

    fn is_next_to(&self, interface: Interface, address: IpAddr) -> bool {
        let mut networks = self.interfaces.iter().filter(|i| i.name == interface).flat_map(|i| &i.addresses);
        networks.any(|network| network.contains(&address))
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.interfaces.iter().any(|i| i.addresses.iter().any(|net| net.addr() == address))
    }

    fn is_in(&self, interface: Interface, name: Interface) -> bool {
        interface == name || self.interfaces.iter().any(|i| i.name == interface && i.groups.contains(&name))
    }

    /// Whether the jail has another publication, whose address translation also applies to the packets of this one.
    fn shared(&self, publication: &Publication) -> bool {
        self.publications.iter().filter(|other| other.jail == publication.jail).count() > 1
    }

    fn covers(&self, place: Place, address: IpAddr) -> bool {
        match place {
            Place::Interface(interface) => self.has(interface, address),
            Place::Address(own) => own == address,
            Place::Any => self.is_own(address),
            Place::AnyOf(family) => Family::of(address) == family && self.is_own(address),
        }
    }

    fn expected(&self, who: &Party, protocol: Protocol, source: IpAddr, to: SocketAddr) -> Expected {
        for publication in &self.publications {
            for redirect in &publication.redirects {
                if redirect.protocol == protocol && redirect.family() == Family::of(to.ip()) {
                    let expected = self.by_redirect(publication, redirect, who, source, to);
                    if expected != Expected::Nothing {
                        return expected;
                    }
                }
            }
        }
        self.direct(who, protocol, to)
    }

    /// To the host's address.
    fn by_redirect(
        &self, publication: &Publication, redirect: &Redirect, who: &Party, source: IpAddr, to: SocketAddr,
    ) -> Expected {
        let options = &publication.options;
        if !redirect.host.contains(to.port()) {
            return Expected::Nothing;
        }
        let port = redirect.jail.first() + to.port() - redirect.host.first();
        let name = publication.jail.to_string();
        let at = SocketAddr::new(redirect.target, port);
        let covered = self.covers(redirect.place, to.ip());
        let allowed = options.sources.is_empty()
            || options.sources.iter().any(|from| match from {
                Source::Network(network) => network.contains(&source),
                Source::Table(_) => {
                    source == world::address("192.0.2.101") || source == world::address("2001:db8::101")
                }
            });
        let bound = matches!(redirect.place, Place::Interface(_));
        match who {
            Party::Network(on) => {
                let here = match redirect.place {
                    Place::Interface(interface) => self.is_in(*on, interface),
                    _ => true,
                };
                // the answer to a client of another network leaves by the default route, unless it is sent to the router
                let home = on.as_str() == "em0" || self.is_next_to(*on, source) || !publication.answers.is_empty();
                match covered && here && allowed {
                    true if home => Expected::Reaches(name, at),
                    true => Expected::OneWay(name, at),
                    false => Expected::Nothing,
                }
            }
            Party::Jail(client) => {
                if covered && options.hairpin {
                    return Expected::Reaches(name, at);
                }
                if !covered || bound || !allowed {
                    return Expected::Nothing;
                }
                let bridge =
                    |name: &str| self.world.jails.iter().find(|jail| jail.name == name).and_then(|jail| jail.behind);
                if *client == name && !self.shared(publication) {
                    Expected::Nothing
                } else if bridge(client) == bridge(&name) {
                    // the answer does not return through the host
                    Expected::OneWay(name, at)
                } else {
                    Expected::Reaches(name, at)
                }
            }
            Party::Host => {
                let covered = covered || (to.ip().is_loopback() && options.host_access);
                // ip6_forward drops ::1 before pf could translate it
                if !covered || to.ip() == world::address("::1") {
                    return Expected::Nothing;
                }
                if options.host_access {
                    return Expected::Reaches(name, at);
                }
                // a rule without an interface also matches on lo0: what the main ruleset passes out there arrives
                let let_out = self.passes_out || self.world.filter_local;
                let open = !bound && allowed && let_out && !source.is_loopback();
                if !open {
                    let by_another = !bound && allowed && let_out && self.shared(publication);
                    return if by_another { Expected::OneWay(name, at) } else { Expected::Nothing };
                }
                if self.world.filter_local { Expected::Reaches(name, at) } else { Expected::OneWay(name, at) }
            }
        }
    }

    /// To the jail's own address.
    fn direct(&self, who: &Party, protocol: Protocol, to: SocketAddr) -> Expected {
        let Some(target) = self.world.jails.iter().find(|jail| jail.addresses.iter().any(|net| net.addr() == to.ip()))
        else {
            return Expected::Nothing;
        };
        let Party::Jail(client) = who else { return Expected::Nothing };
        let client = self.world.jails.iter().find(|jail| jail.name == *client).unwrap();
        // if bridge members are filtered, a list of the bridges alone passes nothing between members
        let reaches = |options: &Options| {
            if self.world.pfil_member { options.reach.len() > 1 } else { !options.reach.is_empty() }
        };
        let published = self.publications.iter().filter(|p| p.jail.as_str() == target.name && reaches(&p.options));
        let mut ports = published.flat_map(|p| &p.redirects).filter(|r| r.target == to.ip() && r.protocol == protocol);
        let open = ports.any(|redirect| redirect.jail.contains(to.port()));
        // not through the host on the same bridge, unless its members are filtered
        let past = client.behind == target.behind && (!self.world.pfil_member || client.name == target.name);
        if past || open { Expected::Reaches(target.name.clone(), to) } else { Expected::Nothing }
    }

    /// The senders, with their addresses by family.
    fn senders(&self) -> Vec<(Party, IpAddr)> {
        let mut all = vec![];
        for (on, addresses) in [
            (
                "em0",
                [
                    "192.0.2.100",
                    "192.0.2.101",
                    "192.0.2.200",
                    "203.0.113.5",
                    "2001:db8::100",
                    "2001:db8::101",
                    "2001:db8:9::1",
                ]
                .as_slice(),
            ),
            ("em1", ["198.51.100.9", "192.0.2.100", "2001:db8:1::9"].as_slice()),
        ] {
            all.extend(addresses.iter().map(|text| (world::party(on), world::address(text))));
        }
        for jail in &self.world.jails {
            all.extend(jail.addresses.iter().map(|net| (Party::Jail(jail.name.clone()), net.addr())));
        }
        all
    }

    /// Every address that exists, and one that does not.
    fn addresses(&self) -> Vec<IpAddr> {
        let host = self.interfaces.iter().flat_map(|i| &i.addresses).filter(|net| !net.addr().is_loopback());
        let jails = self.world.jails.iter().flat_map(|jail| &jail.addresses);
        host.chain(jails).map(|net| net.addr()).chain(["203.0.113.77", "2001:db8:77::1"].map(world::address)).collect()
    }

    /// Every port that is used, and its neighbours.
    fn ports(&self) -> Vec<u16> {
        let ranges = self.publications.iter().flat_map(|p| &p.redirects).flat_map(|r| [r.host, r.jail]);
        let mut ports: Vec<u16> =
            ranges.flat_map(|range| [range.first() - 1, range.first(), range.last(), range.last() + 1]).collect();
        ports.extend([22, 65535]);
        ports.sort();
        ports.dedup();
        ports
    }
}

/// Counts the packets of each kind: a check that the cases are not all of one kind.
#[derive(Default, Debug)]
struct Count {
    reached: u32,
    nothing: u32,
    one_way: u32,
}

fn check(
    case: &Case, who: &Party, protocol: Protocol, source: IpAddr, to: SocketAddr, count: &mut Count,
) -> Result<(), TestCaseError> {
    let trace = case.world.clone().trace(who, protocol, SocketAddr::new(source, 40000), to);
    let got = match &trace.delivered_to {
        Some((Party::Jail(name), at)) => Some((name.clone(), *at)),
        _ => None,
    };
    let expected = case.expected(who, protocol, source, to);
    let good = match &expected {
        Expected::Reaches(name, at) => {
            count.reached += 1;
            got == Some((name.clone(), *at)) && trace.reaches(name)
        }
        Expected::OneWay(name, at) => {
            count.one_way += 1;
            let shared = case.publications.iter().filter(|p| p.jail.as_str() == name).count() > 1;
            got.is_none() || (got == Some((name.clone(), *at)) && (shared || !trace.reaches(name)))
        }
        Expected::Nothing => {
            count.nothing += 1;
            got.is_none()
        }
    };
    prop_assert!(good, "expected {expected:?}\n{trace}\n\n{}", case.text);
    Ok(())
}

#[test]
fn what_should_arrive_does_and_nothing_else_does() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let count = std::cell::RefCell::new(Count::default());
    let packets = prop::collection::vec((any::<[Index; 3]>(), select(Protocol::ALL.to_vec())), 60);
    let result = runner.run(&(case(), packets), |(case, packets)| {
        let (senders, addresses, ports) = (case.senders(), case.addresses(), case.ports());
        let mut count = count.borrow_mut();
        // packets at random
        for ([sender, address, port], protocol) in packets {
            let (who, source) = sender.get(&senders);
            let same: Vec<_> = addresses.iter().filter(|to| to.is_ipv4() == source.is_ipv4()).collect();
            let to = SocketAddr::new(**address.get(&same), *port.get(&ports));
            check(&case, who, protocol, *source, to, &mut count)?;
        }
        // and from every sender to everything that is published, and to the ports beside it
        for redirect in case.publications.iter().flat_map(|publication| &publication.redirects) {
            for (who, source) in senders.iter().filter(|(_, source)| Family::of(*source) == redirect.family()) {
                for address in addresses.iter().filter(|to| Family::of(**to) == redirect.family()) {
                    for port in [redirect.host.last(), redirect.jail.first()] {
                        check(&case, who, redirect.protocol, *source, SocketAddr::new(*address, port), &mut count)?;
                    }
                }
            }
            // the host connects to itself, from the address that it connects to
            let own = case.interfaces.iter().flat_map(|i| &i.addresses).map(|net| net.addr());
            for address in own.filter(|address| Family::of(*address) == redirect.family()) {
                let to = SocketAddr::new(address, redirect.host.first());
                check(&case, &Party::Host, redirect.protocol, address, to, &mut count)?;
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        // the input is in the message, as rules and a trace
        Err(proptest::test_runner::TestError::Fail(why, _)) => panic!("{why}"),
        Err(error) => panic!("{error}"),
    }
    let count = count.into_inner();
    assert!(count.reached > 1000 && count.nothing > 1000 && count.one_way > 50, "{count:?}");
}
