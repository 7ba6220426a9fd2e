//! Any bytes as pf.conf(5): they are read or refused. The rules print as the same rules, and the path of each packet ends.

#![no_main]

use kport::host::HostInterface;
use kport::net::Protocol;
use kport::pfconf::{Conf, Outline};
use kport::trace::{Party, Release, Verdict, World};
use libfuzzer_sys::fuzz_target;

fn world(release: Release) -> World {
    let interface = |name: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        HostInterface::up(name.parse().unwrap(), vec![], addresses)
    };
    let interfaces = vec![
        interface("lo0", &["127.0.0.1/8"]),
        interface("em0", &["192.0.2.1/24"]),
        interface("bridge0", &["10.0.0.1/24"]),
    ];
    let mut world = World::new(release, interfaces);
    world.lookup.gateway.inet = "em0".parse().ok();
    world
}

fuzz_target!(|bytes: &[u8]| {
    // its statements have places, whether they can be read or not
    let outline = Outline::of_text(bytes);
    let mut end = 0;
    for statement in &outline.statements {
        assert!(end <= statement.bytes.start && statement.bytes.start < statement.bytes.end);
        end = statement.bytes.end;
    }
    assert!(end <= bytes.len());
    let Ok(conf) = Conf::of_text(bytes) else {
        // the output of pfctl may have unknown words
        _ = Conf::of_output(&String::from_utf8_lossy(bytes));
        return;
    };
    assert_eq!(outline.broken, None);
    let printed = conf.to_string();
    let again = printed.parse::<Conf>().expect("what is printed can be read");
    assert_eq!(again, conf, "{printed}");
    for release in [Release::V14, Release::V15] {
        let mut world = world(release);
        world.load_conf("", &conf);
        let em0 = Party::Network("em0".parse().unwrap());
        for (protocol, to) in [(Protocol::Tcp, "10.0.0.2:80"), (Protocol::Udp, "192.0.2.1:53")] {
            let trace = world.trace(&em0, protocol, "192.0.2.100:40000".parse().unwrap(), to.parse().unwrap());
            assert_eq!(trace.verdict == Verdict::Depends, !trace.depends_on.is_empty());
        }
    }
});
