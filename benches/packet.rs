//! The cost of a packet in pf as jails are published, from kport's evaluator, which evaluates the rules that pf would
//! evaluate. It counts anchors and rules, not time on a kernel. `cargo bench --bench packet`

// the table is the purpose
#![allow(clippy::print_stdout)]

use divan::{Bencher, black_box};
use kport::host::HostInterface;
use kport::name::{Anchor, JailName};
use kport::net::{Place, PortRange, Protocol};
use kport::options::Options;
use kport::pfconf::Conf;
use kport::publication::{Publication, Redirect};
use kport::rule::Rule;
use kport::trace::{Looked, Party, Release, World};
use kport::{calls, rules};

const JAILS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// How the jails' rules are laid out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    /// An anchor for each jail, called by the tree in `kport`.
    Tree,
    /// The same anchors, called by a wildcard, as with the lines of earlier versions.
    Wildcard,
    /// All rules in one anchor.
    OneAnchor,
}

fn main() {
    println!(
        "a packet to a port that is not published, blocked in on em0; a packet to the last published port, up to its jail"
    );
    println!("{:<10} {:>7} {:>9} {:>9} {:>9} {:>9}", "layout", "jails", "anchors", "rules", "anchors", "rules");
    for layout in [Layout::Tree, Layout::Wildcard, Layout::OneAnchor] {
        for jails in JAILS {
            let world = world(layout, jails);
            let (no, yes) = (ask(&world, 9), ask(&world, port(jails - 1)));
            let name = format!("{layout:?}");
            println!("{name:<10} {jails:>7} {:>9} {:>9} {:>9} {:>9}", no.anchors, no.rules, yes.anchors, yes.rules);
        }
    }
    divan::main();
}

fn port(jail: usize) -> u16 {
    u16::try_from(10_000 + jail).unwrap()
}

/// The rules of a jail with one mapping, as kport makes them.
fn rules(jail: usize) -> (Anchor, Vec<Rule>) {
    let name: JailName = format!("j{jail}").parse().unwrap();
    let redirect = Redirect {
        place: Place::Interface("em0".parse().unwrap()),
        protocol: Protocol::Tcp,
        host: PortRange::new(port(jail), port(jail)).unwrap(),
        target: std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(jail).unwrap() + 2).into(),
        jail: PortRange::new(80, 80).unwrap(),
        af_to: false,
    };
    let anchor = name.anchor();
    let publication = Publication::new(name, vec![redirect], Options::default(), |_| Ok(None)).unwrap();
    (anchor, rules::rules(&publication))
}

fn world(layout: Layout, jails: usize) -> World {
    let interface = |name: &str, group: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        HostInterface::up(name.parse().unwrap(), vec![group.parse().unwrap()], addresses)
    };
    let interfaces = vec![
        interface("em0", "egress", &["192.0.2.1/24"]),
        interface("bridge0", "bridge", &["10.0.0.1/8"]),
        interface("lo0", "lo", &["127.0.0.1/8"]),
    ];
    let mut world = World::new(Release::V15, interfaces);
    world.lookup.gateway.inet = "em0".parse().ok();
    let call = if layout == Layout::Tree { "kport" } else { "kport/*" };
    let main =
        format!("nat-anchor \"{call}\"\nrdr-anchor \"{call}\"\nblock in log all\npass out all\nanchor \"{call}\"\n");
    world.load_text("", &main).unwrap();
    let all: Vec<(Anchor, Vec<Rule>)> = (0..jails).map(rules).collect();
    let text = |rules: &[Rule]| Conf::of_text(kport::rule::text(rules).as_bytes()).unwrap();
    if layout == Layout::OneAnchor {
        let rules: Vec<Rule> = all.into_iter().flat_map(|(_, rules)| rules).collect();
        world.load_conf("kport/all", &text(&rules));
        return world;
    }
    for (anchor, rules) in &all {
        world.load_conf(anchor.path(), &text(rules));
    }
    let entries: Vec<_> = all.iter().flat_map(|(anchor, rules)| calls::entries(anchor, rules)).collect();
    world.call(&entries);
    world
}

fn ask(world: &World, port: u16) -> Looked {
    let em0 = Party::Network("em0".parse().unwrap());
    let to = std::net::SocketAddr::new([192, 0, 2, 1].into(), port);
    world.clone().trace(&em0, Protocol::Tcp, "192.0.2.100:40000".parse().unwrap(), to).looked
}

/// The evaluator's own time, which is not the kernel's.
#[divan::bench(args = JAILS)]
fn a_packet_that_nobody_publishes(bencher: Bencher<'_, '_>, jails: usize) {
    let world = world(Layout::Tree, jails);
    bencher.bench_local(|| black_box(ask(&world, 9)));
}
