//! Who is an ordinary outsider, and whom a main ruleset refuses because of his source.

use kport::host::HostInterface;
use kport::net::Protocol;
use kport::proof::{Entrance, Judge};
use kport::trace::{Release, World};

fn judge(text: &str) -> Judge {
    let interface = |name: &str, group: &str, address: &str| {
        let groups = vec![group.parse().unwrap()];
        HostInterface::up(name.parse().unwrap(), groups, vec![address.parse().unwrap()])
    };
    let interfaces = vec![interface("em0", "egress", "192.0.2.1/24"), interface("bridge0", "bridge", "10.0.0.1/24")];
    let mut world = World::new(Release::V15, interfaces);
    world.lookup.gateway.inet = Some("em0".parse().unwrap());
    world.load_text("", text).unwrap();
    Judge::new(world, "pf.conf")
}

fn entrance() -> Entrance {
    Entrance {
        on: "em0".parse().unwrap(),
        protocol: Protocol::Tcp,
        host: "192.0.2.1:8080".parse().unwrap(),
        jail: "10.0.0.2:80".parse().unwrap(),
        via: Some("bridge0".parse().unwrap()),
        required: true,
    }
}

#[test]
fn an_outsider_is_singled_out_by_no_rule() {
    let allowed = "table <friends> { 198.51.100.0/24 }\n";
    for (text, address, by) in [
        ("", "203.0.113.77", None),
        ("block all\n", "203.0.113.77", None),
        ("block in quick from 203.0.113.0/24\n", "198.51.100.77", None),
        ("table <bogons> { 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 }\nblock in quick from <bogons>\n", "0", None),
        (&format!("{allowed}block in quick from ! <friends>\nblock all\n"), "198.51.100.77", Some("line 2, ")),
        (&format!("{allowed}pass in quick from <friends>\nblock in quick all\n"), "203.0.113.77", None),
        ("pass in quick from ! 203.0.113.0/24\nblock quick all\n", "198.51.100.77", None),
        (
            "block in quick from urpf-failed\nblock in quick from no-route\nantispoof quick for em0\n",
            "203.0.113.77",
            None,
        ),
        ("table <later> persist\nblock in quick from ! <later>\n", "0", Some("line 2, block in quick from ! <later>")),
    ] {
        let found = judge(text).outsider(&entrance()).unwrap().expect(text);
        let shown = found.address.to_string();
        assert!(shown == address || address == "0" && !PREFERRED.contains(&&*shown), "{text}: {found:?}");
        let allowed_by = found.allowed_by.map(|by| by.to_string());
        assert_eq!(allowed_by.is_some(), by.is_some(), "{text}");
        assert!(allowed_by.unwrap_or_default().starts_with(by.unwrap_or_default()), "{text}");
    }
}

/// The addresses that are taken if they are in the class.
const PREFERRED: [&str; 3] = ["203.0.113.77", "198.51.100.77", "192.0.2.77"];

#[test]
fn who_is_refused_because_of_his_source() {
    let refusal = |text: &str, source: &str| {
        judge(text).refusal(&entrance(), source.parse().unwrap()).unwrap().map(|found| found.to_string())
    };
    let list = "table <bad> { 198.51.100.66 }\nblock all\nblock in quick from <bad>\n";
    assert_eq!(refusal(list, "198.51.100.66").unwrap(), "line 3, block in quick from <bad>");
    assert_eq!(refusal(list, "198.51.100.67"), None);
    assert_eq!(refusal("block all\n", "198.51.100.66"), None);
    let spoofed = "block in all\nantispoof for bridge0\npass out\n";
    assert_eq!(refusal(spoofed, "10.0.0.7").unwrap(), "line 2, antispoof for bridge0");
    assert_eq!(
        refusal("block in quick from urpf-failed\n", "10.0.0.7").unwrap(),
        "line 1, block in quick from urpf-failed"
    );
    assert_eq!(
        refusal("block out on bridge0 from 198.51.100.0/24\n", "198.51.100.1").unwrap(),
        "line 1, block out on bridge0 from 198.51.100.0/24"
    );
    // everybody else has passed
    assert!(refusal("pass quick from ! 198.51.100.0/24\nblock quick all\n", "198.51.100.1").is_some());
}

#[test]
fn who_may_be_refused_later() {
    let refused = |text: &str| {
        let judge = judge(text);
        let survey = judge.survey(&entrance()).unwrap();
        let mut lines: Vec<usize> = survey
            .refused()
            .filter(|(source, ..)| !source.perhaps)
            .map(|(.., met)| judge.statement(&met).line)
            .collect();
        lines.sort_unstable();
        lines.dedup();
        lines
    };
    assert!(refused("block all\n").is_empty());
    assert_eq!(refused("table <f2b> persist\nblock all\nblock in quick from <f2b>\n"), [3]);
    assert_eq!(
        refused("block all\nanchor \"f2b/*\"\nanchor \"blacklistd\" in on em0\nanchor \"x\" out on em0\n"),
        [2, 3]
    );
    assert_eq!(refused("anchor \"kport\"\nanchor {\n block quick from 10.9.0.0/16\n}\n"), [3]);
    assert_eq!(
        refused("block in quick proto tcp from any os \"Windows\"\nblock in quick from bad.example.org\n"),
        [1, 2]
    );
    // never reached
    assert!(refused("block in quick all\nanchor \"f2b/*\"\n").is_empty());
}
