//! Who can reach what: the evaluator gives the answers of a FreeBSD 15.1 kernel.

// to see the table: cargo test --test suite reach:: -- --nocapture the_table
#![allow(clippy::print_stdout)]

use crate::support::world;

use std::net::SocketAddr;

use crate::support::world::{ANCHORS, address, host, party, publish, reads};
use kport::net::{Family, PerFamily, Protocol};
use kport::options::Options;
use kport::trace::{Party, Release, Trace, World};

/// The host of the recordings: an outer interface, two bridges, web and app on the first, other on the second, and flat on the
/// host's own stack. web publishes 8080:80 tcp and 5353:53 udp, flat 8100:80.
fn observed(release: Release, hairpin: bool, host_access: bool) -> World {
    let mut world = host(release);
    // in the run on the kernel, lo0 was passed only for host access
    let own = if host_access { "pass quick on lo0\n" } else { "" };
    world.load_text("", &format!("block log all\n{own}{ANCHORS}")).unwrap();
    world.filter_local = host_access;
    let options = Options { hairpin, host_access, ..Options::default() };
    publish(&mut world, "web", &["10.0.0.2", "fd00::2"], "8080:80 5353:53/udp", &options);
    publish(&mut world, "flat", &["10.9.0.2"], "8100:80", &options);
    world
}

fn ask(world: &World, from: &Party, protocol: Protocol, source: &str, to: &str) -> Trace {
    let source = SocketAddr::new(address(source), 40000);
    world.clone().trace(from, protocol, source, to.parse().unwrap())
}

/// A client and its packet: the name of the row, the sender, the protocol, its address, the target, and the jail that answers.
type Row = (&'static str, &'static str, Protocol, &'static str, &'static str, &'static str, [bool; 3]);

const ROWS: &[Row] = {
    use Protocol::{Tcp, Udp};
    const ALWAYS: [bool; 3] = [true; 3];
    const NEVER: [bool; 3] = [false; 3];
    const HAIRPIN: [bool; 3] = [false, true, true];
    const HOST: [bool; 3] = [false, false, true];
    &[
        ("outside -> host address", "em0", Tcp, "192.0.2.100", "192.0.2.1:8080", "web", ALWAYS),
        ("outside -> host address, alias", "em0", Tcp, "192.0.2.100", "192.0.2.7:8080", "web", ALWAYS),
        ("outside -> host address, tcp6", "em0", Tcp, "2001:db8::100", "[2001:db8::1]:8080", "web", ALWAYS),
        ("outside -> host address, udp", "em0", Udp, "192.0.2.100", "192.0.2.1:5353", "web", ALWAYS),
        ("outside -> host address, flat", "em0", Tcp, "192.0.2.100", "192.0.2.1:8100", "flat", ALWAYS),
        ("outside -> jail address directly", "em0", Tcp, "192.0.2.100", "10.0.0.2:80", "web", NEVER),
        ("outside -> jail address directly, tcp6", "em0", Tcp, "2001:db8::100", "[fd00::2]:80", "web", NEVER),
        ("jail of another network -> host address", "other", Tcp, "10.1.0.2", "192.0.2.1:8080", "web", HAIRPIN),
        (
            "jail of another network -> host address, tcp6",
            "other",
            Tcp,
            "fd01::2",
            "[2001:db8::1]:8080",
            "web",
            HAIRPIN,
        ),
        ("jail of another network -> host address, udp", "other", Udp, "10.1.0.2", "192.0.2.1:5353", "web", HAIRPIN),
        ("jail of the same bridge -> host address", "app", Tcp, "10.0.0.3", "192.0.2.1:8080", "web", HAIRPIN),
        ("jail of the same bridge -> host address, tcp6", "app", Tcp, "fd00::3", "[2001:db8::1]:8080", "web", HAIRPIN),
        ("jail of the same bridge -> host address, udp", "app", Udp, "10.0.0.3", "192.0.2.1:5353", "web", HAIRPIN),
        ("the jail itself -> host address", "web", Tcp, "10.0.0.2", "192.0.2.1:8080", "web", HAIRPIN),
        ("the jail itself -> host address, tcp6", "web", Tcp, "fd00::2", "[2001:db8::1]:8080", "web", HAIRPIN),
        ("the jail itself -> host address, udp", "web", Udp, "10.0.0.2", "192.0.2.1:5353", "web", HAIRPIN),
        ("jail of another network -> host address, flat", "other", Tcp, "10.1.0.2", "192.0.2.1:8100", "flat", HAIRPIN),
        ("jail of the same bridge -> host address, flat", "app", Tcp, "10.0.0.3", "192.0.2.1:8100", "flat", HAIRPIN),
        ("jail of another network -> jail address directly", "other", Tcp, "10.1.0.2", "10.0.0.2:80", "web", ALWAYS),
        ("jail of another network -> jail address, tcp6", "other", Tcp, "fd01::2", "[fd00::2]:80", "web", ALWAYS),
        ("jail of the same bridge -> jail address directly", "app", Tcp, "10.0.0.3", "10.0.0.2:80", "web", ALWAYS),
        ("host -> host address", "host", Tcp, "192.0.2.1", "192.0.2.1:8080", "web", HOST),
        ("host -> host address, tcp6", "host", Tcp, "2001:db8::1", "[2001:db8::1]:8080", "web", HOST),
        ("host -> 127.0.0.1", "host", Tcp, "127.0.0.1", "127.0.0.1:8080", "web", HOST),
        ("host -> 127.0.0.1, udp", "host", Udp, "127.0.0.1", "127.0.0.1:5353", "web", HOST),
        // read in ip6_forward, not seen on a kernel
        ("host -> ::1", "host", Tcp, "::1", "[::1]:8080", "web", NEVER),
    ]
};

/// The page. Its table is the one that the test makes; KPORT_BLESS=1 writes it.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/who-can-reach-what.md");

#[test]
fn the_table_of_clients_and_options() {
    let variants = [(false, false), (true, false), (true, true)];
    let mut tables = vec![];
    for release in [Release::V14, Release::V15] {
        let worlds = variants.map(|(hairpin, host_access)| observed(release, hairpin, host_access));
        let mut table =
            "| client -> target | default | + hairpin | + hairpin + host access |\n|---|---|---|---|\n".to_owned();
        for (name, who, protocol, source, to, jail, expected) in ROWS {
            let traces = worlds.each_ref().map(|world| ask(world, &party(who), *protocol, source, to));
            let got = traces.each_ref().map(|trace| trace.reaches(jail));
            let words = got.map(|yes| if yes { "yes" } else { "no" });
            table.push_str(&format!("| {name} | {} |\n", words.join(" | ")));
            for ((got, expected), trace) in got.iter().zip(expected).zip(&traces) {
                assert_eq!(got, expected, "{name}\n{trace}");
            }
        }
        tables.push(table);
    }
    println!("{}", tables[0]);
    assert_eq!(tables[0], tables[1], "14 and 15 answer alike");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once("<!-- table -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let renewed = format!("{before}<!-- table -->\n{}<!-- end -->{after}", tables[0]);
    if std::env::var_os("KPORT_BLESS").is_some() {
        std::fs::write(PAGE, &renewed).unwrap();
    } else {
        assert_eq!(page, renewed, "KPORT_BLESS=1 renews the table");
    }
}

/// Seen on 15.1: without the nat from lo0 and em0 only the host's own address works.
#[test]
fn what_the_nat_of_host_access_is_for() {
    let mut world = observed(Release::V15, true, true);
    let options = Options { hairpin: true, host_access: true, ..Options::default() };
    let mut rules = world::rules_of("web", &["10.0.0.2"], "8080:80", &options);
    rules.retain(|rule| !rule.to_string().starts_with("nat on \"bridge0\" inet proto tcp from { (\"lo0\")"));
    world.load("kport/web", &rules);
    assert!(ask(&world, &party("host"), Protocol::Tcp, "192.0.2.1", "192.0.2.1:8080").reaches("web"));
    assert!(!ask(&world, &party("host"), Protocol::Tcp, "127.0.0.1", "127.0.0.1:8080").reaches("web"));
    // and without filter_local the answer is not translated back
    let mut world = observed(Release::V15, true, true);
    world.filter_local = false;
    let trace = ask(&world, &party("host"), Protocol::Tcp, "127.0.0.1", "127.0.0.1:8080");
    assert!(trace.touches("web") && !trace.reaches("web"), "{trace}");
}

/// Seen on 15.1: the other experiments of the recordings, with anchors written by hand.
#[test]
fn the_experiments_of_the_recordings() {
    let rdr = "rdr on em0 inet proto tcp from any to (em0) port 8080 ";
    let client = party("em0");
    let tcp = |world: &World, from: &Party, source: &str, to: &str| ask(world, from, Protocol::Tcp, source, to);

    // block log all: with `pass in on em0` the way out towards the jail is blocked
    let mut world = host(Release::V15);
    world.load_text("", &format!("block log all\n{ANCHORS}")).unwrap();
    let one_way =
        "tag kport -> 10.0.0.2 port 80\npass in quick on em0 inet proto tcp from any to 10.0.0.2 port 80 tagged kport";
    world.load_text("kport/web", &format!("{rdr}{one_way}")).unwrap();
    let trace = tcp(&world, &client, "192.0.2.100", "192.0.2.1:8080");
    assert_eq!(trace.delivered_to, None, "{trace}");
    assert!(trace.to_string().contains("out on bridge0\n    pf.conf: block log all\n    blocked"), "{trace}");

    // block in, pass out: it arrives, and the tag blocks packets to the jail's own address
    world.load_text("", &format!("block in log all\npass out all\n{ANCHORS}")).unwrap();
    assert!(tcp(&world, &client, "192.0.2.100", "192.0.2.1:8080").reaches("web"));
    assert!(!tcp(&world, &client, "192.0.2.100", "10.0.0.2:80").touches("web"));
    // without tag and tagged the jail's address is open
    let untagged = "-> 10.0.0.2 port 80\npass in quick on em0 inet proto tcp from any to 10.0.0.2 port 80";
    world.load_text("kport/web", &format!("{rdr}{untagged}")).unwrap();
    assert!(tcp(&world, &client, "192.0.2.100", "10.0.0.2:80").reaches("web"));

    // (em0:0) is the first address only
    let first = "rdr on em0 inet proto tcp from any to (em0:0) port 8080 -> 10.0.0.2 port 80\npass quick all";
    world.load_text("kport/web", first).unwrap();
    assert!(tcp(&world, &client, "192.0.2.100", "192.0.2.1:8080").reaches("web"));
    assert!(!tcp(&world, &client, "192.0.2.100", "192.0.2.7:8080").touches("web"));

    // a range keeps its offset
    let range = "rdr on em0 inet proto tcp from any to (em0) port 9000:9010 -> 10.0.0.2 port 9100:*\npass quick all";
    world.load_text("kport/web", range).unwrap();
    let trace = tcp(&world, &client, "192.0.2.100", "192.0.2.1:9007");
    assert_eq!(trace.delivered_to, Some((party("web"), "10.0.0.2:9107".parse().unwrap())), "{trace}");

    // hairpin without the nat: other networks only
    let hairpin = "rdr on bridge inet proto tcp from any to (em0) port 8080 -> 10.0.0.2 port 80\npass quick all";
    world.load_text("kport/web", hairpin).unwrap();
    assert!(tcp(&world, &party("other"), "10.1.0.2", "192.0.2.1:8080").reaches("web"));
    let trace = tcp(&world, &party("app"), "10.0.0.3", "192.0.2.1:8080");
    assert!(trace.touches("web") && !trace.reaches("web"), "the answer goes straight back\n{trace}");
}

/// The host and a jail on its own stack: the last answer passes lo0 as a packet without a state, so the main ruleset's rule for
/// lo0 must not have `flags S/SA`. Read in the sources, not seen on a kernel.
#[test]
fn host_access_to_a_jail_on_the_hosts_stack() {
    for (rule, answered) in [("pass quick on lo0", false), ("pass quick on lo0 no state", true)] {
        let mut world = observed(Release::V15, true, true);
        world.load_text("", &format!("block log all\n{rule}\n{ANCHORS}")).unwrap();
        for (source, to) in [("192.0.2.1", "192.0.2.1:8100"), ("127.0.0.1", "127.0.0.1:8100")] {
            let trace = ask(&world, &party("host"), Protocol::Tcp, source, to);
            assert!(trace.touches("flat"), "{trace}");
            assert_eq!(trace.reaches("flat"), answered, "{rule}\n{trace}");
        }
        // a jail with a stack of its own is reached with either
        assert!(ask(&world, &party("host"), Protocol::Tcp, "127.0.0.1", "127.0.0.1:8080").reaches("web"));
        // and flat reaches it as the host does
        assert!(ask(&world, &party("flat"), Protocol::Tcp, "10.9.0.2", "192.0.2.1:8080").reaches("web"));
    }
}

/// Two anchors that redirect one port, and a rule of the main ruleset: 14 takes the first, 15.1 the last.
#[test]
fn which_redirect_wins() {
    let rdr = |to: &str| format!("rdr on em0 inet proto tcp from any to (em0) port 8080 -> {to} port 80\n");
    let winner = |release, before: &str, after: &str| {
        let mut world = host(release);
        let anchors =
            format!("nat-anchor \"kport/*\"\n{before}rdr-anchor \"kport/*\"\n{after}pass all\nanchor \"kport/*\"");
        world.load_text("", &anchors).unwrap();
        world.load_text("kport/b", &rdr("10.0.0.3")).unwrap();
        world.load_text("kport/a", &rdr("10.0.0.2")).unwrap();
        let trace = ask(&world, &party("em0"), Protocol::Tcp, "192.0.2.100", "192.0.2.1:8080");
        trace.delivered_to.map(|(party, _)| party)
    };
    let (own, none) = (rdr("10.1.0.2"), "no rdr on em0 inet proto tcp from any to any port 8080\n");
    for (release, before, after, wins) in [
        (Release::V14, "", "", "web"),
        (Release::V15, "", "", "app"),
        (Release::V14, own.as_str(), "", "other"),
        (Release::V14, "", own.as_str(), "web"),
        (Release::V15, "", own.as_str(), "other"),
        // the first match ends the main ruleset before the call
        (Release::V15, own.as_str(), "", "other"),
        (Release::V14, none, "", "host"),
        (Release::V15, none, "", "host"),
        (Release::V14, "", none, "web"),
        (Release::V15, "", none, "app"),
    ] {
        assert_eq!(winner(release, before, after), Some(party(wins)), "{release:?} {before:?} {after:?}");
    }
}

/// A later rule of the main ruleset does not decide after quick, and does without it.
#[test]
fn quick_and_no_quick() {
    for (quick, arrives) in [(true, true), (false, false)] {
        let mut world = host(Release::V15);
        world.load_text("", &format!("pass all\n{ANCHORS}block in proto tcp to port 80")).unwrap();
        publish(&mut world, "web", &["10.0.0.2"], "8080:80", &Options { quick, ..Options::default() });
        let trace = ask(&world, &party("em0"), Protocol::Tcp, "192.0.2.100", "192.0.2.1:8080");
        assert_eq!(trace.reaches("web"), arrives, "{trace}");
    }
}

/// What sources admit, and what they do not restrict.
#[test]
fn sources() {
    for release in [Release::V14, Release::V15] {
        let mut world = host(release);
        world.load_text("", &format!("table <friends> {{ 198.51.100.7 }}\nblock log all\n{ANCHORS}")).unwrap();
        let sources = reads(&["192.0.2.0/28", "<friends>"]);
        let options = Options { sources, hairpin: true, ..Options::default() };
        publish(&mut world, "web", &["10.0.0.2", "fd00::2"], "8080:80 *:8081:80", &options);
        for (who, source, to, arrives) in [
            ("em0", "192.0.2.14", "192.0.2.1:8080", true),
            ("em0", "192.0.2.16", "192.0.2.1:8080", false),
            ("em0", "198.51.100.7", "192.0.2.1:8080", true),
            ("em0", "198.51.100.7", "192.0.2.1:8081", true),
            ("em0", "198.51.100.8", "192.0.2.1:8081", false),
            // none of the sources is IPv6, except for the table, which is empty
            ("em0", "2001:db8::100", "[2001:db8::1]:8080", false),
            // the reach list is a separate list
            ("other", "10.1.0.2", "192.0.2.1:8080", true),
            ("app", "10.0.0.3", "192.0.2.1:8081", true),
            ("other", "10.1.0.2", "10.0.0.2:80", true),
        ] {
            let trace = ask(&world, &party(who), Protocol::Tcp, source, to);
            assert_eq!(trace.touches("web"), arrives, "{source} -> {to}\n{trace}");
            assert_eq!(trace.reaches("web"), arrives, "{source} -> {to}\n{trace}");
        }
    }
}

/// A connection counts once, and the limits are those of the whole mapping and of each source.
#[test]
fn limits() {
    let mut world = host(Release::V15);
    world.load_text("", &format!("block log all\n{ANCHORS}")).unwrap();
    let mut options = Options::default();
    options.limits.connections = "3".parse().ok();
    options.limits.connections_per_source = "2".parse().ok();
    publish(&mut world, "web", &["10.0.0.2"], "8080:80 5353:53/udp", &options);
    for (protocol, port) in [(Protocol::Tcp, 8080), (Protocol::Udp, 5353)] {
        let mut connect = |source: &str, number: u16| {
            let from = SocketAddr::new(address(source), 40000 + number);
            world.trace(&party("em0"), protocol, from, SocketAddr::new(address("192.0.2.1"), port)).reaches("web")
        };
        let made = ["192.0.2.100", "192.0.2.100", "192.0.2.100", "192.0.2.101", "192.0.2.102"];
        let got: Vec<bool> = (0..).zip(made).map(|(number, source)| connect(source, number)).collect();
        assert_eq!(got, [true, true, false, true, false], "{protocol}");
        // existing connections continue
        assert!(connect("192.0.2.100", 0));
    }
}

/// With `if-bound`, a state of one interface passes nothing on another.
#[test]
fn floating_and_bound_states() {
    for (policy, arrives) in [("floating", true), ("if-bound", false)] {
        let mut world = host(Release::V15);
        // the answer comes in on bridge0, where no rule passes it
        world
            .load_text(
                "",
                &format!(
                    "set state-policy {policy}\nblock all\npass in on em0 proto udp\npass out on bridge1 proto udp\n"
                ),
            )
            .unwrap();
        let ask = |world: &mut World, who: &str, from: &str, to: &str| {
            world.trace(&party(who), Protocol::Udp, from.parse().unwrap(), to.parse().unwrap())
        };
        assert!(ask(&mut world, "em0", "192.0.2.100:40000", "10.1.0.2:53").reaches("other"));
        // the same connection on another interface
        let trace = ask(&mut world, "bridge0", "192.0.2.100:40000", "10.1.0.2:53");
        assert_eq!(trace.touches("other"), arrives, "{trace}");
    }
}

/// `set skip`, pf disabled, no forwarding, the anchors not called: the cause is reported.
#[test]
fn the_cause_is_reported() {
    let published = |main: &str| {
        let mut world = host(Release::V15);
        world.load_text("", main).unwrap();
        publish(&mut world, "web", &["10.0.0.2"], "8080:80", &Options::default());
        world
    };
    let ask = |world: &World| ask(world, &party("em0"), Protocol::Tcp, "192.0.2.100", "192.0.2.1:8080");
    let main = format!("block log all\n{ANCHORS}");
    assert!(ask(&published(&main)).reaches("web"));
    assert!(ask(&published(&format!("set skip on em0\n{main}"))).touches_host());
    assert!(!ask(&published("block log all\nrdr-anchor \"kport/*\"\n")).touches("web"));
    assert!(!ask(&published("block log all\nanchor \"kport/*\"\n")).touches("web"));
    assert!(!ask(&published(&format!("block quick on em0\n{main}"))).touches("web"));
    let mut world = published(&main);
    world.pf.enabled = false;
    assert!(ask(&world).touches_host());
    let mut world = published(&main);
    world.forwarding = PerFamily::only(Family::Inet6);
    let trace = ask(&world);
    assert!(!trace.touches("web") && trace.to_string().contains("the host does not forward"), "{trace}");
}

trait TouchesHost {
    fn touches_host(&self) -> bool;
}

impl TouchesHost for Trace {
    fn touches_host(&self) -> bool {
        matches!(&self.delivered_to, Some((Party::Host, _)))
    }
}

/// Bridge members that pf filters as well (net.link.bridge.pfil_member=1): seen for clients of every kind.
#[test]
fn with_bridge_members_filtered() {
    let mut world = observed(Release::V15, false, false);
    world.pfil_member = true;
    for (who, source, to) in [
        ("em0", "192.0.2.100", "192.0.2.1:8080"),
        ("other", "10.1.0.2", "10.0.0.2:80"),
        ("app", "10.0.0.3", "10.0.0.2:80"),
    ] {
        let trace = ask(&world, &party(who), Protocol::Tcp, source, to);
        assert!(trace.reaches("web"), "{trace}");
    }
}

/// Hairpin and host access with filtered bridge members: the answer is translated back at the member, before it is at the bridge,
/// and is lost. The page says so.
#[test]
fn hairpin_and_host_access_need_unfiltered_bridge_members() {
    let mut world = observed(Release::V15, true, true);
    world.pfil_member = true;
    for (who, source, to) in [
        ("other", "10.1.0.2", "192.0.2.1:8080"),
        ("app", "10.0.0.3", "192.0.2.1:8080"),
        ("host", "127.0.0.1", "127.0.0.1:8080"),
    ] {
        let trace = ask(&world, &party(who), Protocol::Tcp, source, to);
        assert!(trace.touches("web") && !trace.reaches("web"), "{trace}");
    }
    // the rest is unchanged
    assert!(ask(&world, &party("em0"), Protocol::Tcp, "192.0.2.100", "192.0.2.1:8080").reaches("web"));
}

/// The same host, as the trait Host reports it.
#[test]
fn a_world_of_a_hosts_facts() {
    let mut facts = kport::host::Fixed {
        interfaces: world::interfaces(),
        jails: serde_json::from_value(serde_json::json!([
            { "jid": 1, "name": "web", "vnet": true },
            { "jid": 2, "name": "both", "vnet": true },
            { "jid": 3, "name": "flat", "addresses": ["10.9.0.2"] },
            { "jid": 4, "name": "gone", "vnet": true, "dying": true },
            { "jid": 5, "name": "far", "vnet": true },
        ]))
        .unwrap(),
        ..Default::default()
    };
    facts.gateway.inet = Some("em0".parse().unwrap());
    for (name, addresses) in [
        ("web", &["10.0.0.2", "fd00::2"][..]),
        ("both", &["10.0.0.3", "10.1.0.2"]),
        ("gone", &["10.0.0.4"]),
        ("far", &["172.16.0.2"]),
    ] {
        facts.vnet_addresses.insert(name.to_owned(), addresses.iter().map(|text| address(text)).collect());
    }
    let mut world = World::of_host(&facts, Release::of(1501502)).unwrap();
    world.load_text("", kport::pf::files::MAIN).unwrap();
    publish(&mut world, "web", &["10.0.0.2"], "8080:80", &Options::default());
    publish(&mut world, "both", &["10.1.0.2"], "8081:80", &Options::default());
    for (source, on, to, jail) in [
        ("192.0.2.100", Some("em0"), "192.0.2.1:8080", "web"),
        ("203.0.113.9", None, "192.0.2.1:8081", "both"),
        ("10.1.0.2", None, "10.0.0.2:80", "web"),
        ("10.0.0.3", Some("bridge0"), "10.0.0.2:80", "web"),
        ("10.0.0.2", None, "10.1.0.2:80", "both"),
    ] {
        let on = on.map(|name: &str| name.parse().unwrap());
        let sender = world.sender(address(source), on).unwrap();
        let trace = ask(&world, &sender, Protocol::Tcp, source, to);
        assert!(trace.reaches(jail), "{trace}");
    }
    assert_eq!(world.party(address("10.9.0.2")).unwrap(), party("flat"));
    assert_eq!(world.party(address("172.16.0.2")).unwrap(), party("em0"));
    assert!(world.sender(address("10.0.0.2"), Some("em9".parse().unwrap())).is_err());
    assert!(world.party(address("2001:db8:5::1")).is_err(), "no IPv6 default route");
    facts.sysctls.insert("net.inet.ip.forwarding".to_owned(), 0);
    let closed = World::of_host(&facts, Release::of(1400000)).unwrap();
    assert_eq!(closed.forwarding, PerFamily::only(Family::Inet6));
}

/// A trace as `kport trace` prints it.
#[test]
fn the_text_of_a_trace() {
    let world = observed(Release::V15, false, false);
    let trace = ask(&world, &party("em0"), Protocol::Tcp, "192.0.2.100", "192.0.2.1:8080").to_string();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reach/trace.ok");
    if std::env::var_os("KPORT_BLESS").is_some() {
        std::fs::write(golden, format!("{trace}\n")).unwrap();
    }
    assert_eq!(format!("{trace}\n"), std::fs::read_to_string(golden).unwrap());
}

#[test]
fn what_the_simulator_does_not_read_is_refused() {
    for (text, why) in [
        ("pass in frobnicate all", "line 1"),
        ("block all\n\npast in all", "line 3"),
        ("pass from exa~mple.org to any", "exa~mple.org"),
        ("pass proto tcp to port nowhere", "nowhere"),
        ("pass on $ext_if all", "macro ext_if"),
        ("rdr on em0 proto tcp to port 80", "expected ->"),
        ("binat on em0 from 10.0.0.2 to any", "expected ->"),
        ("load anchor x from \"/etc/x\"", "/etc/x"),
        ("include \"/etc/x\"", "/etc/x"),
        ("pass \"", "quote"),
        ("pass proto { }", "empty list"),
        ("table <a> file \"/x\"", "file"),
        ("set skip", "on"),
        ("pass keep state (soggy)", "soggy"),
        ("rdr proto tcp to port 9:1 -> 10.0.0.2 port 5:*", "is empty"),
        ("anchor \"x\" {\npass\n", "} of an anchor is missing"),
        ("}", "no {"),
        ("pass from 10.0.0.1 to fd00::1", "different families"),
        ("pass from (em0", ")"),
        ("$", "macro"),
    ] {
        let error = text.parse::<kport::pfconf::Conf>().unwrap_err();
        assert!(error.message().contains(why), "{text}: {error}");
    }
    let bomb: String = (1..40).map(|n| format!("m{n} = $m{} $m{}\n", n - 1, n - 1)).collect();
    let error = format!("m0 = \"em0 em0\"\n{bomb}").parse::<kport::pfconf::Conf>().unwrap_err();
    assert!(error.message().contains("characters"), "{error}");
    let list = "{ ".to_owned() + &"10.0.0.1 ".repeat(1000) + "}";
    let error = format!("pass from {list} to {list}").parse::<kport::pfconf::Conf>().unwrap_err();
    assert!(error.message().contains("rules"), "{error}");
    for good in [
        // as pfctl -P prints them
        "nat-anchor \"kport/*\" all\nrdr-anchor \"kport/*\" all\nblock drop in log all\npass out all flags S/SA keep state\nanchor \"kport/*\" all",
        "rdr on em0 inet proto tcp from any to (em0) port 9000:9010 -> 10.0.0.2 port 9000:9010",
        "pass in quick on em0 inet proto tcp from any to 10.0.0.2 port = 80 flags S/SA keep state label \"kport:web\" label \"tcp:8080\" tagged kport",
        "pass in inet proto tcp all flags S/SA keep state (max 100, source-track rule, max-src-conn 10, max-src-conn-rate 15/5, adaptive.start 60, adaptive.end 120, src.track 5)",
        "ext = \"em0\"\nnets = \"{ 10.0.0.0/8, 10.1.0.0/16 }\"\npass in on $ext from $nets to any # why\n",
        "scrub in all\nset limit states 1000\nblock return in log (all, to pflog1) quick on ! lo0 inet6 proto ipv6-icmp all icmp6-type echoreq",
        "pass in on em0 inet proto tcp from any to any port = 22 flags S/SA keep state label \"a # b\"",
        "pass out \\\n on em0 all no state\npass proto udp from any port > 1023 to 192.0.2.1 port { 53, 5000:5010, 1 >< 9, != 7 }",
        "nat on em0 inet from 10.0.0.0/24 to any -> (em0:0) port 1024:65535 round-robin\nno nat on em0 all\nrdr pass on em0 proto tcp to em0 port 80 -> 10.0.0.2",
    ] {
        if let Err(error) = good.parse::<kport::pfconf::Conf>() {
            panic!("{good}: {error}");
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    /// Any text is read or refused.
    #[test]
    fn any_text_is_read_or_refused(words in proptest::collection::vec(proptest::sample::select(vec![
        "pass", "block", "rdr", "nat", "no", "in", "on", "em0", "from", "to", "port", "proto", "tcp", "{", "}", "(", ")", "!", "<t>", "<", ">", "=",
        "><", "->", "10.0.0.1", "80", "1:5", "9:*", "\"", "$x", "x", "=", "\n", "\\\n", "#", ",", "keep", "state", "max", "0", "anchor", "a/*", "all",
        "flags", "S/SA", "set", "skip", "table", "ä", "\u{0}", "tag", "tagged", "label",
    ]), 0..24)) {
        if let Err(error) = words.join(" ").parse::<kport::pfconf::Conf>() {
            assert!(error.message().starts_with("pf.conf line "), "{error}");
        }
    }
}

/// The translated source of a packet is never a link-local address, in whatever order an interface has its addresses.
#[test]
fn link_local_addresses_are_passed_over() {
    let mut world = observed(Release::V15, true, false);
    let bridge = world.lookup.interfaces.iter_mut().find(|interface| interface.name.as_str() == "bridge0").unwrap();
    bridge.addresses.insert(0, "fe80::1/64".parse().unwrap());
    let trace = ask(&world, &party("app"), Protocol::Tcp, "fd00::3", "[2001:db8::1]:8080");
    assert!(trace.reaches("web") && trace.to_string().contains("now tcp [fd00::1]:50001 -> [fd00::2]:80"), "{trace}");
}

/// The text for pfctl means the same as the typed rules.
#[test]
fn text_and_typed_rules_answer_alike() {
    let options = Options {
        hairpin: true,
        host_access: true,
        masquerade: true,
        sources: reads(&["192.0.2.0/24"]),
        log: true,
        ..Options::default()
    };
    let rules = world::rules_of("web", &["10.0.0.2", "fd00::2"], "8000-8010:9000 *:5353:53/udp", &options);
    let (mut typed, mut text) = (host(Release::V15), host(Release::V15));
    for world in [&mut typed, &mut text] {
        world.load_text("", &format!("block log all\npass quick on lo0\n{ANCHORS}")).unwrap();
        world.filter_local = true;
    }
    typed.load("kport/web", &rules);
    text.load_text("kport/web", &kport::rule::text(&rules)).unwrap();
    let mut arrived = 0;
    for (who, source) in [
        ("em0", "192.0.2.100"),
        ("em0", "198.51.100.1"),
        ("other", "10.1.0.2"),
        ("app", "10.0.0.3"),
        ("host", "127.0.0.1"),
    ] {
        for (protocol, to) in [
            (Protocol::Tcp, "192.0.2.1:8003"),
            (Protocol::Udp, "192.0.2.7:5353"),
            (Protocol::Tcp, "127.0.0.1:8010"),
            (Protocol::Tcp, "10.0.0.2:9003"),
            (Protocol::Tcp, "192.0.2.1:8011"),
        ] {
            let of = |world: &World| ask(world, &party(who), protocol, source, to);
            let (typed, text) = (of(&typed), of(&text));
            assert_eq!((&typed.verdict, &typed.delivered_to), (&text.verdict, &text.delivered_to), "{typed}\n{text}");
            arrived += usize::from(typed.reaches("web"));
        }
    }
    assert!(arrived >= 8, "only {arrived}");
}
