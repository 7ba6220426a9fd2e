//! The cost of a packet in pf as jails are published, from kport's evaluator, which evaluates the rules that pf would
//! evaluate. It counts anchors and rules, not time on a kernel. `cargo bench --bench packet`

// the table is the purpose
#![allow(clippy::print_stdout)]

use divan::{Bencher, black_box};
use kport::host::HostInterface;
use kport::net::Protocol;
use kport::trace::{Looked, Party, Release, World};

const JAILS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const MAIN: &str = "nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\nblock in log all\npass out all\n";

/// How the jails' rules are laid out.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// An anchor for each jail, called by a wildcard: kport's.
    AnchorForEach,
    /// All rules in one anchor.
    OneAnchor,
    /// An anchor for each jail, each called for its own port and address.
    Called,
}

fn main() {
    println!(
        "a packet to a port that is not published, blocked in on em0; a packet to the last published port, up to its jail"
    );
    println!("{:<16} {:>7} {:>9} {:>9} {:>9} {:>9}", "layout", "jails", "anchors", "rules", "anchors", "rules");
    for layout in [Layout::AnchorForEach, Layout::OneAnchor, Layout::Called] {
        for jails in JAILS {
            let world = world(layout, jails);
            let (no, yes) = (ask(&world, 9), ask(&world, port(jails - 1)));
            let name = format!("{layout:?}");
            println!("{name:<16} {jails:>7} {:>9} {:>9} {:>9} {:>9}", no.anchors, no.rules, yes.anchors, yes.rules);
        }
    }
    divan::main();
}

fn port(jail: usize) -> u16 {
    u16::try_from(10_000 + jail).unwrap()
}

/// The rules of a jail with one mapping, as kport makes them.
fn rules(jail: usize) -> [String; 5] {
    let (port, address) = (port(jail), std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(jail).unwrap() + 2));
    let pass = format!("inet proto tcp from any to {address} port 80");
    [
        format!("rdr on em0 inet proto tcp from any to (em0) port {port} tag \"kport:j{jail}\" -> {address} port 80"),
        format!("pass quick {pass} tagged \"kport:j{jail}\""),
        format!("pass quick on bridge {pass}"),
        format!("pass quick on epair {pass}"),
        format!("pass quick on lo {pass}"),
    ]
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
    world.gateway.inet = "em0".parse().ok();
    let called = |anchors: String| format!("{MAIN}{anchors}");
    match layout {
        Layout::AnchorForEach => {
            for jail in 0..jails {
                world.load_text(&format!("kport/j{jail}"), &rules(jail).join("\n")).unwrap();
            }
            world.load_main(&called("anchor \"kport/*\"\n".to_owned())).unwrap();
        }
        Layout::OneAnchor => {
            let all: Vec<String> = (0..jails).flat_map(rules).collect();
            world.load_text("kport/all", &all.join("\n")).unwrap();
            world.load_main(&called("anchor \"kport/*\"\n".to_owned())).unwrap();
        }
        Layout::Called => {
            let mut calls = String::new();
            for jail in 0..jails {
                let address = std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(jail).unwrap() + 2);
                calls += &format!("rdr-anchor \"j{jail}\" inet proto tcp to port {}\n", port(jail));
                calls += &format!("anchor \"j{jail}\" inet proto tcp to {address}\n");
                world.load_text(&format!("kport/all/j{jail}"), &rules(jail).join("\n")).unwrap();
            }
            world.load_text("kport/all", &calls).unwrap();
            world.load_main(&called("anchor \"kport/*\"\n".to_owned())).unwrap();
        }
    }
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
    let world = world(Layout::AnchorForEach, jails);
    bencher.bench_local(|| black_box(ask(&world, 9)));
}
