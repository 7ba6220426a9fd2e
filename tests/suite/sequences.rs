//! Any calls in any order: the records, the rules in pf, and the claims always agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::support::rig::{Rig, files};
use kport::error::Kind;
use kport::host::{Host, Interfaces, Listener};
use kport::name::{Anchor, JailName};
use kport::net::{Family, Interface, PerFamily, Place, PortRange};
use kport::options::Options;
use kport::pf::Firewall;
use kport::publication::Redirect;
use kport::publisher::{Liveness, Request, Unobserved};
use kport::spec::Spec;
use kport::store::Store;
use kport::{conflict, rule, rules};
use proptest::prelude::*;
use proptest::sample::select;

/// One call.
#[derive(Clone, Debug)]
enum Call {
    Publish {
        jail: &'static str,
        specs: Vec<&'static str>,
        options: Options,
        add: bool,
        force: bool,
    },
    Unpublish(&'static str),
    Remove(&'static str, Vec<&'static str>),
    /// Anchors are flushed without kport, then restored.
    Restore(Vec<&'static str>),
    /// The jail starts again, with another jid and another address.
    Restart(&'static str),
    /// A service starts to listen on every address of the host.
    Listen(u16),
}

const JAILS: [&str; 3] = ["web", "db", "flat"];

/// Few ports and few places, so that calls conflict.
const SPECS: [&str; 16] = [
    "8080:80",
    "8081:81",
    "8080-8083:8000",
    "em1:8080:80",
    "192.0.2.7:8082:80",
    "*:8083:80",
    "8080:80/udp",
    "em0:8084:84",
    "bridge:8085:80",
    "auto:80",
    "em1:auto:80",
    "auto:81/tcp,udp",
    "auto:90-92",
    "*:auto:93",
    "192.0.2.7:auto:80",
    "8081:80",
];

/// The range for `auto`: not enough for all jails.
const AUTO: (u16, u16) = (8082, 8096);

fn options() -> impl Strategy<Value = Options> {
    (any::<[bool; 3]>(), select(vec![vec![], vec!["192.0.2.0/24"], vec!["<friends>"]])).prop_map(
        |([hairpin, host_access, log], from)| Options {
            hairpin,
            host_access,
            log,
            sources: from.iter().map(|text| text.parse().unwrap()).collect(),
            ..Options::default()
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let jail = || select(JAILS.to_vec());
    let specs = || prop::collection::vec(select(SPECS.to_vec()), 1..4);
    // most calls have the default options, so that sets are joined
    let options = || prop_oneof![3 => Just(Options::default()), 2 => options()];
    prop_oneof![
        8 => (jail(), specs(), options(), any::<bool>(), any::<bool>())
            .prop_map(|(jail, specs, options, add, force)| Call::Publish { jail, specs, options, add, force }),
        1 => jail().prop_map(Call::Unpublish),
        3 => (jail(), specs()).prop_map(|(jail, specs)| Call::Remove(jail, specs)),
        1 => prop::collection::vec(jail(), 0..3).prop_map(Call::Restore),
        1 => select(vec!["web", "db"]).prop_map(Call::Restart),
        1 => (8080u16..8100).prop_map(Call::Listen),
    ]
}

fn spec(specs: &[&str]) -> Spec {
    specs.join(" ").parse().unwrap()
}

fn request(jail: &str, specs: &[&str], options: &Options, add: bool, force: bool) -> Request {
    let mut request = Request::new(jail.parse().unwrap(), spec(specs));
    request.options = options.clone();
    request.auto_range = PortRange::new(AUTO.0, AUTO.1).unwrap();
    (request.add, request.force) = (add, force);
    request
}

/// Without the target: the jail's address may change.
type Mapping = (String, String, String, String, bool);

fn mapping(r: &Redirect) -> Mapping {
    (r.place.to_string(), r.protocol.to_string(), r.host.to_string(), r.jail.to_string(), r.target.is_ipv6())
}

fn mappings(rig: &Rig) -> BTreeMap<String, BTreeSet<Mapping>> {
    rig.list()
        .into_iter()
        .map(|l| (l.jail.unwrap().to_string(), l.redirects.iter().map(|(r, _)| mapping(r)).collect()))
        .collect()
}

/// What must be true between any two calls.
fn check(rig: &Rig) {
    let store = Store::open(rig.path()).unwrap();
    let interfaces = rig.host.interfaces().unwrap();
    let records: Vec<_> =
        store.anchors().unwrap().iter().map(|anchor| store.get(anchor).unwrap().expect("a record")).collect();

    // pf has what is recorded, and no more
    let recorded: Vec<(String, String)> = records
        .iter()
        .map(|r| (r.jail.anchor().child().to_owned(), rule::text(&rules::of_all(&r.publications))))
        .collect();
    let mut loaded = rig.loaded();
    loaded.sort();
    let mut sorted = recorded.clone();
    sorted.sort();
    assert_eq!(loaded, sorted);
    for listed in rig.list() {
        assert_eq!((listed.liveness, &listed.problem), (Liveness::Live, &None));
    }

    let mut claims: Vec<(String, Redirect)> = vec![];
    for record in &records {
        assert!(record.replaces.is_empty() && !record.publications.is_empty());
        for publication in &record.publications {
            assert!(!publication.redirects.is_empty(), "{publication:?}");
            publication.check().unwrap();
            let alike = record.publications.iter().filter(|other| other.options == publication.options);
            assert_eq!(alike.count(), 1, "two publications with the same options");
        }
        claims.extend(record.claims().into_iter().map(|claim| (record.jail.to_string(), claim)));
    }
    // no packet matches two
    for (n, (jail, a)) in claims.iter().enumerate() {
        for (other, b) in &claims[n + 1..] {
            assert!(!conflict::overlap(a, b, Interfaces(&interfaces)), "{jail}: {a}; {other}: {b}");
        }
    }
    // the claims on disk are those of the records
    let on_disk: BTreeSet<String> = files(&rig.state("ports"))
        .iter()
        .map(|path| format!("{}/{}", path.split('/').next().unwrap(), path.rsplit('/').next().unwrap()))
        .collect();
    let wanted: BTreeSet<String> = claims
        .iter()
        .map(|(jail, c)| {
            let anchor = jail.parse::<JailName>().unwrap().anchor();
            format!("{}/{}@{}@{}", c.protocol, c.host, c.place, anchor.child())
        })
        .collect();
    assert_eq!(on_disk, wanted);
}

fn restart(rig: &mut Rig, name: &str) {
    let jail = rig.host.jails.iter_mut().find(|jail| jail.name == name).unwrap();
    jail.jid += 10;
    let last = u8::try_from(jail.jid).unwrap();
    for address in rig.host.vnet_addresses.get_mut(name).unwrap() {
        *address = if address.is_ipv4() { [10, 0, 0, last].into() } else { format!("fd00::{last:x}").parse().unwrap() };
    }
}

fn run(calls: &[Call]) {
    let mut rig = Rig::new();
    for call in calls {
        let before = (mappings(&rig), rig.loaded());
        match call {
            Call::Publish { jail, specs, options, add, force } => {
                let request = request(jail, specs, options, *add, *force);
                // nothing is added to what an earlier start left
                let had = rig.list().into_iter().find(|l| l.jail.as_ref().unwrap().as_str() == *jail);
                let now = rig.host.jails.iter().find(|j| j.name == *jail).map(|j| j.jid);
                let adds = *add && had.is_none_or(|had| had.jid == now);
                match rig.publish(&request) {
                    Err(error) => {
                        assert!(matches!(error.kind(), Kind::Conflict | Kind::Argument), "{error}");
                        assert_eq!((mappings(&rig), rig.loaded()), before, "{error}");
                    }
                    Ok(done) => {
                        published(&rig, jail, &request, adds, &before.0, &done.redirects);
                        // publishing again changes nothing
                        let now = (mappings(&rig), rig.loaded());
                        let again = rig.publish(&request).unwrap();
                        assert_eq!((mappings(&rig), rig.loaded()), now);
                        assert!(!again.changed, "{request:?}");
                    }
                }
            }
            Call::Unpublish(jail) => {
                rig.unpublish(jail).unwrap();
                let mut left = before.0.clone();
                left.remove(*jail);
                assert_eq!(mappings(&rig), left);
            }
            Call::Remove(jail, specs) => removed(&rig, jail, specs, &before.0),
            Call::Restore(flushed) => {
                for jail in flushed {
                    let anchor: Anchor = jail.parse::<JailName>().unwrap().anchor();
                    rig.sim().replace(&anchor, &[]).unwrap();
                }
                rig.with(&rig.sim(), &Unobserved, |p| p.restore()).unwrap();
                assert_eq!((mappings(&rig), rig.loaded()), before);
            }
            Call::Restart(jail) => restart(&mut rig, jail),
            Call::Listen(port) => rig.host.listeners.push(Listener {
                protocol: kport::net::Protocol::Tcp,
                families: PerFamily { inet: true, inet6: true },
                address: None,
                port: *port,
            }),
        }
        check(&rig);
    }
    for jail in JAILS {
        rig.unpublish(jail).unwrap();
    }
    assert_eq!(rig.loaded(), []);
    assert_eq!(files(&rig.state("jails")), [""; 0]);
    assert_eq!(files(&rig.state("ports")), [""; 0]);
    assert_eq!(files(&rig.state("damaged")), [""; 0]);
    assert!(fs::read_dir(rig.state("sim")).map_or(0, Iterator::count) == 0);
}

/// The result of a publish: the other jails unchanged, the ports in the specs, for each `auto` a port of the range on which
/// nobody listens, and with `add` the earlier ports.
fn published(
    rig: &Rig, jail: &str, request: &Request, adds: bool, before: &BTreeMap<String, BTreeSet<Mapping>>,
    told: &[Redirect],
) {
    let now = mappings(rig);
    for other in JAILS.iter().filter(|other| **other != jail) {
        assert_eq!(now.get(*other), before.get(*other), "{other}");
    }
    let mine = &now[jail];
    assert_eq!(&told.iter().map(mapping).collect::<BTreeSet<_>>(), mine);
    let none = BTreeSet::new();
    let had = before.get(jail).unwrap_or(&none);
    if adds {
        assert!(mine.is_superset(had), "{had:?} {mine:?}");
    }
    let fresh: BTreeSet<&Mapping> = mine.difference(had).collect();
    for asked in request.spec.mappings() {
        let meant = |r: &&Redirect| {
            r.protocol == asked.protocol && r.jail == asked.jail && asked.place.is_none_or(|place| place == r.place)
        };
        let fixed = match asked.host {
            kport::spec::HostPorts::Fixed(host) => Some(host),
            kport::spec::HostPorts::Auto => None,
        };
        let found: Vec<&Redirect> = told.iter().filter(meant).filter(|r| fixed.is_none_or(|h| h == r.host)).collect();
        assert!(!found.is_empty(), "{asked} {told:?}");
        if fixed.is_none() {
            assert!(found.iter().any(|r| AUTO.0 <= r.host.first() && r.host.last() <= AUTO.1), "{asked} {found:?}");
        }
    }
    // a port that was chosen is free, with --force or without
    let chosen = told.iter().filter(|r| {
        let fixed = request.spec.mappings().iter().any(|m| m.host == kport::spec::HostPorts::Fixed(r.host));
        fresh.contains(&mapping(r)) && !fixed
    });
    for redirect in chosen {
        for listener in &rig.host.listeners {
            let interfaces = rig.host.interfaces().unwrap();
            assert_eq!(conflict::with_listener(redirect, listener, Interfaces(&interfaces)), None);
        }
    }
}

fn removed(rig: &Rig, jail: &str, specs: &[&str], before: &BTreeMap<String, BTreeSet<Mapping>>) {
    let wanted = spec(specs);
    let name: JailName = jail.parse().unwrap();
    let done = rig.with(&rig.sim(), &Unobserved, |p| p.unpublish_some(&name, None, &wanted)).unwrap();
    let gateway: Interface = "em0".parse().unwrap();
    let mut expected = before.clone();
    let mut untold = 0;
    for m in wanted.mappings() {
        let host = match m.host {
            kport::spec::HostPorts::Fixed(host) => Some(host.to_string()),
            kport::spec::HostPorts::Auto => None,
        };
        let alike = |r: &&Mapping| {
            r.1 == m.protocol.to_string() && host.as_ref().is_none_or(|host| *host == r.2) && r.3 == m.jail.to_string()
        };
        let mine = expected.entry(jail.to_owned()).or_default();
        // without a place: the gateway interface, or otherwise the only interface that has the ports
        let interfaces: BTreeSet<String> = mine
            .iter()
            .filter(|r| alike(r) && matches!(r.0.parse(), Ok(Place::Interface(_))))
            .map(|r| r.0.clone())
            .collect();
        let place = match (m.place, interfaces.len()) {
            (Some(place), _) => place.to_string(),
            (None, 1) => interfaces.into_iter().next().unwrap(),
            (None, _) => gateway.to_string(),
        };
        let count = mine.len();
        mine.retain(|r| !(alike(&r) && r.0 == place));
        untold += usize::from(mine.len() == count);
    }
    expected.retain(|_, redirects| !redirects.is_empty());
    assert_eq!(mappings(rig), expected);
    assert_eq!(done.notes.iter().filter(|note| note.contains("has not published")).count(), untold, "{:?}", done.notes);
    assert_eq!(done.changed, *before != expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_in_any_order(calls in prop::collection::vec(call(), 1..14)) {
        run(&calls);
    }
}

fn publish(jail: &'static str, specs: &[&'static str], options: Options, add: bool) -> Call {
    Call::Publish { jail, specs: specs.to_vec(), options, add, force: false }
}

/// An auto mapping keeps its own port, not that of another place with the same port in the jail.
#[test]
fn auto_at_two_places_stays_at_both() {
    run(&[publish("db", &["em1:auto:80", "auto:80", "192.0.2.7:auto:80"], Options::default(), false)]);
}

#[test]
fn adding_an_auto_mapping_again_adds_nothing() {
    run(&[
        publish("db", &["auto:80"], Options::default(), true),
        publish("db", &["auto:80", "8081:81"], Options { log: true, ..Options::default() }, true),
    ]);
}

/// With host access the port is taken on loopback, too.
#[test]
fn auto_with_host_access_keeps_clear_of_loopback() {
    let mut rig = Rig::new();
    for port in AUTO.0..AUTO.1 {
        rig.host.listeners.push(Listener {
            protocol: kport::net::Protocol::Tcp,
            families: PerFamily::only(Family::Inet),
            address: Some("127.0.0.1".parse().unwrap()),
            port,
        });
    }
    let mut request = request("db", &["auto:80"], &Options { host_access: true, ..Options::default() }, false, false);
    assert_eq!(rig.publish(&request).unwrap().redirects[0].host.first(), AUTO.1);
    // and * is one claim, not two that overlap
    request.spec = "*:9000:80".parse().unwrap();
    rig.publish(&request).unwrap();
    check(&rig);
}

/// A set to which something is added: forced mappings remain.
#[test]
fn adding_after_a_restart_and_after_force() {
    let mut rig = Rig::new();
    let usual = Options::default();
    rig.publish(&request("db", &["8080:80", "8081:81"], &usual, false, false)).unwrap();
    restart(&mut rig, "db");
    rig.publish(&request("db", &["8080:80"], &usual, true, false)).unwrap();
    let shown: Vec<String> = rig.list()[0].redirects.iter().map(|(r, _)| r.to_string()).collect();
    assert_eq!(shown, ["tcp 8080 on em0 -> 10.0.0.13:80"], "what the earlier start left is not adopted");
    rig.publish(&request("db", &["8081:81"], &usual, true, false)).unwrap();
    check(&rig);
    rig.host.listeners.push(Listener {
        protocol: kport::net::Protocol::Tcp,
        families: PerFamily { inet: true, inet6: true },
        address: None,
        port: 8081,
    });
    rig.publish(&request("db", &["8090:90"], &usual, true, false)).unwrap();
    assert_eq!(rig.list()[0].redirects.len(), 3);
    // the added mapping is checked
    let error = rig.publish(&request("db", &["em1:8081:81"], &usual, true, false)).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    check(&rig);
}
