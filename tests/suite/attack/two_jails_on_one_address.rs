//! Two jails on one address share no tag, pass rule, limit or label.

use crate::support::world::{ANCHORS, host, party, publish};
use kport::net::Protocol;
use kport::options::{Limits, Options};
use kport::trace::{Release, Trace, World};

/// Two jails that share 10.9.0.2, and publish the same port of it.
fn world(release: Release, aaa: &Options) -> World {
    let mut world = host(release);
    world.load_text("", &format!("block log all\n{ANCHORS}")).unwrap();
    publish(&mut world, "aaa", &["10.9.0.2"], "8080:80", aaa);
    publish(&mut world, "bbb", &["10.9.0.2"], "9090:80", &Options::default());
    world
}

fn ask(world: &World, to: &str) -> Trace {
    let source = "192.0.2.100:40000".parse().unwrap();
    world.clone().trace(&party("em0"), Protocol::Tcp, source, to.parse().unwrap())
}

#[test]
fn each_redirect_meets_its_own_jails_rules() {
    let one = Options {
        limits: Limits { connections: Some(1.try_into().unwrap()), ..Limits::default() },
        ..Options::default()
    };
    for release in [Release::V14, Release::V15] {
        for aaa in [Options::default(), one.clone()] {
            let world = world(release, &aaa);
            for (to, jail, other) in [("192.0.2.1:8080", "aaa", "bbb"), ("192.0.2.1:9090", "bbb", "aaa")] {
                let trace = ask(&world, to);
                assert!(trace.delivered_to.is_some(), "{trace}");
                let text = trace.to_string();
                assert!(text.contains(&format!("kport/{jail}: pass ")), "{text}");
                assert!(text.contains(&format!("label \"kport:{jail}\"")), "{text}");
                assert!(!text.contains(&format!("kport/{other}")), "{text}");
            }
        }
    }
}

/// The same if the port of the jail needs a tag for each mapping.
#[test]
fn mappings_to_one_port_as_well() {
    let mut world = host(Release::V15);
    world.load_text("", &format!("block log all\n{ANCHORS}")).unwrap();
    publish(&mut world, "aaa", &["10.9.0.2"], "8080:80 em1:8080:80 8081:80", &Options::default());
    publish(&mut world, "bbb", &["10.9.0.2"], "em0:9090:80 em1:8081:80 9091:80", &Options::default());
    let text = ask(&world, "192.0.2.1:9091").to_string();
    assert!(text.contains("kport/bbb: pass ") && !text.contains("kport/aaa"), "{text}");
}
