//! What kport refuses or reports on a host, and what it advises: a remedy that is printed works.

use std::process::Command;

use serde_json::{Value, json};

const MAIN: &str = "nat-anchor \"kport\"\nrdr-anchor \"kport\"\nanchor \"kport\"\n";

/// A host in a file, and the helper that uses it.
pub struct Played {
    dir: tempfile::TempDir,
    host: Value,
}

impl Played {
    /// With em0 and a bridge of jails; the jails have IPv4.
    pub fn new() -> Played {
        let host = json!({
            "gateway": { "inet": "em0", "inet6": null },
            "interfaces": [
                { "name": "em0", "up": true, "addresses": [ "203.0.113.10/24", "203.0.113.11/32" ] },
                { "name": "bridge0", "groups": [ "bridge" ], "up": true, "addresses": [ "10.0.0.1/24" ] },
                { "name": "lo0", "groups": [ "lo" ], "up": true, "addresses": [ "127.0.0.1/8", "::1/128" ] }
            ],
            "jails": [
                { "jid": 1, "name": "web", "vnet": true },
                { "jid": 2, "name": "db", "vnet": true },
                { "jid": 3, "name": "old", "addresses": [ "127.0.1.1" ] }
            ],
            "vnet_addresses": { "web": [ "10.0.0.2" ], "db": [ "10.0.0.3" ] },
            "listeners": [],
            "sysctls": { "kern.osreldate": 1_501_502, "net.inet.ip.forwarding": 1, "net.inet6.ip6.forwarding": 1,
                         "net.pf.filter_local": 0, "net.link.bridge.pfil_member": 0 },
            "boot_id": "x"
        });
        let played = Played { dir: tempfile::tempdir().unwrap(), host };
        played.with_main(MAIN)
    }

    pub fn with(mut self, pointer: &str, value: Value) -> Played {
        *self.host.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        self
    }

    pub fn and(mut self, pointer: &str, value: Value) -> Played {
        self.host.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    pub fn with_main(self, text: &str) -> Played {
        std::fs::create_dir_all(self.dir.path().join("sim")).unwrap();
        std::fs::write(self.dir.path().join("sim/main.conf"), text).unwrap();
        self
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let host = self.file("host.json", &self.host.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_kport"));
        command.env_clear().args(["--backend", "sim", "--host", &host, "--state-dir"]).arg(self.dir.path());
        command.args(arguments);
        command
    }

    /// The status, and what is printed without the notice of the simulator.
    pub fn kport(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap().replace(&format!("kport: {}\n", kport::pf::files::NOTICE), "");
        (output.status.code().unwrap(), text.replace("kport: ", ""))
    }

    pub fn publish(&self, arguments: &[&str]) {
        let (status, text) = self.kport(&[&["publish"], arguments].concat());
        assert_eq!(status, 0, "{arguments:?}: {text}");
    }

    /// The findings of doctor besides ok.
    pub fn doctor(&self) -> Vec<String> {
        let (_, text) = self.kport(&["doctor", "--json"]);
        let report: Value = serde_json::from_str(text.lines().next().unwrap_or_default())
            .or_else(|_| serde_json::from_str(&text[..=text.rfind('}').unwrap_or(0)]))
            .unwrap_or_else(|error| panic!("{error}: {text}"));
        let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] != "ok");
        let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        findings
            .map(|f| format!("{} {}: {} -> {}", word(f, "level"), word(f, "id"), word(f, "seen"), word(f, "remedy")))
            .collect()
    }
}

fn listener(protocol: &str, address: Option<&str>, port: u16) -> Value {
    json!({ "protocol": protocol, "families": { "inet": true }, "address": address, "port": port })
}

/// The spec that a refusal names before another port or --force.
fn instead(text: &str) -> &str {
    let rest =
        text.split_once("publish on one interface or address of the host: ").unwrap_or_else(|| panic!("{text}")).1;
    let (spec, others) = rest.split_once(", or ").unwrap();
    assert!(others.starts_with("choose another host port") || others.starts_with("remove one of them"), "{text}");
    spec
}

#[test]
fn a_refusal_names_a_narrower_place_which_is_free() {
    let socket = |address| listener("udp", Some(address), 53);
    let others = json!([socket("127.0.0.1"), socket("203.0.113.10"), socket("10.0.0.1")]);
    for (played, spec, expected) in [
        (Played::new().and("/listeners", socket("127.0.0.1")), "*:53:53/udp", "em0:53:53/udp"),
        (Played::new().with("/listeners", others.clone()), "*:53:53/udp", "203.0.113.11:53:53/udp"),
        (Played::new().with("/listeners", others.clone()), "53:5353/udp", "203.0.113.11:53:5353/udp"),
        (Played::new().and("/listeners", socket("127.0.0.1")), "0.0.0.0:53:53/udp", "203.0.113.10:53:53/udp"),
        // the redirect of the administrator is for one address
        (
            Played::new().with_main(&format!("rdr on em0 proto udp to 203.0.113.10 port domain -> 10.0.0.9\n{MAIN}")),
            "53/udp",
            "203.0.113.11:53:53/udp",
        ),
    ] {
        let (status, text) = played.kport(&["publish", "web", spec]);
        assert_eq!((status, instead(&text)), (3, expected), "{text}");
        played.publish(&["web", expected]);
    }
}

#[test]
fn another_jail_has_an_address_of_the_interface() {
    let played = Played::new();
    played.publish(&["web", "203.0.113.11:443:443"]);
    let (status, text) = played.kport(&["publish", "db", "443:8443"]);
    assert_eq!((status, instead(&text)), (3, "203.0.113.10:443:8443"), "{text}");
    played.publish(&["db", "203.0.113.10:443:8443"]);
}

#[test]
fn nothing_narrower_is_named_if_nothing_is_free() {
    for (played, spec) in [
        (Played::new().and("/listeners", listener("tcp", None, 22)), "*:22:22"),
        (Played::new().and("/listeners", listener("tcp", Some("203.0.113.10"), 22)), "203.0.113.10:22:22"),
        (Played::new().with_main(&format!("rdr on em0 proto {{ tcp udp }} to port 22 -> 10.0.0.9\n{MAIN}")), "22"),
    ] {
        let (status, text) = played.kport(&["publish", "web", spec]);
        assert!(status == 3 && !text.contains("publish on one interface"), "{text}");
    }
}

/// Lists and names of services in a file are read as pfctl(8) reads them.
#[test]
fn redirects_of_a_file() {
    for (rule, spec, taken) in [
        ("rdr on em0 proto { tcp udp } from any to any port 8443 -> 10.0.0.9", "203.0.113.10:8443:443", true),
        ("rdr on em0 proto { tcp udp } from any to any port 8443 -> 10.0.0.9", "203.0.113.10:8443:443/udp", true),
        ("rdr on em0 proto { tcp udp } from any to any port 8443 -> 10.0.0.9", "203.0.113.10:8443:8443/sctp", false),
        ("rdr on em0 proto tcp from any to any port http -> 10.0.0.9", "80:80", true),
        ("rdr on em0 proto tcp from any to any port http -> 10.0.0.9", "8443:80", false),
        ("rdr on { em0 bridge0 } proto tcp from any to any port { http https } -> 10.0.0.9", "443:80", true),
        ("rdr on { em0 bridge0 } proto tcp from any to any port { http https } -> 10.0.0.9", "444:80", false),
    ] {
        let played = Played::new().with_main(&format!("{rule}\n{MAIN}"));
        let (status, text) = played.kport(&["publish", "web", spec]);
        assert_eq!(status, if taken { 3 } else { 0 }, "{rule}: {spec}: {text}");
    }
}

#[test]
fn a_jail_at_a_loopback_address_of_its_own() {
    let played = Played::new()
        .and("/interfaces", json!({ "name": "lo1", "groups": [ "lo" ], "up": true, "addresses": [ "127.0.1.1/32" ] }));
    for arguments in [&["old", "8080:80"][..], &["old", "-a", "127.0.1.1", "8080:80"]] {
        played.publish(arguments);
        let (status, text) = played.kport(&["trace", "--on", "em0", "tcp", "198.51.100.7", "203.0.113.10:8080"]);
        assert!(text.contains("delivered to jail old at 127.0.1.1:80"), "{status} {text}");
        // nobody reaches it by its own address
        assert_eq!(played.kport(&["trace", "--on", "em0", "tcp", "198.51.100.7", "127.0.1.1:80"]).0, 5);
    }
    assert_eq!(played.doctor(), [""; 0]);
    let (status, rules) = played.kport(&["rules", "old", "8080:80"]);
    assert!(status == 0 && rules.contains("-> 127.0.1.1 port 80"), "{rules}");
    for (arguments, why) in [
        (&["-a", "127.0.0.1"][..], "127.0.0.1 is a loopback address, which is the host's own"),
        (&["-a", "127.0.2.1"], "127.0.2.1 is a loopback address that is not the jail's own"),
        (&["-a", "127.0.0.1", "--force"], "outside of 127.0.0.0/8"),
    ] {
        let (status, text) = played.kport(&[&["publish", "old"], arguments, &["8080:80"]].concat());
        assert!(status == 1 && text.contains(why) && !text.contains("with -a"), "{text}");
    }
    // the address of another jail is not that of a jail with its own network stack
    assert_eq!(played.kport(&["publish", "web", "-a", "127.0.1.1", "8081:80"]).0, 1);
    let localhost = Played::new().with("/jails/2/addresses", json!(["127.0.0.1"]));
    let (status, text) = localhost.kport(&["publish", "old", "8080:80"]);
    assert!(status == 1 && text.contains("give the jail an address outside of 127.0.0.0/8"), "{text}");
}

/// A host with IPv6 only outside, and jails with one family and with both.
fn inet6_only() -> Played {
    Played::new()
        .with("/gateway", json!({ "inet": null, "inet6": "em0" }))
        .with("/interfaces/0/addresses", json!(["2001:db8:1::10/64"]))
        .with("/interfaces/1/addresses", json!(["10.0.0.1/24", "fd00::1/64"]))
        .with("/vnet_addresses", json!({ "web": [ "10.0.0.2" ], "db": [ "10.0.0.3", "fd00::3" ] }))
        .with_main(&format!("{MAIN}pass quick inet6 proto icmp6\n"))
}

#[test]
fn a_warning_of_one_jail_does_not_hide_the_problem_of_another() {
    for jails in [["web", "db"], ["db", "web"]] {
        let played = inet6_only();
        played.publish(&[jails[0], "8081:80"]);
        played.publish(&[jails[1], "8082:80"]);
        let found = played.doctor();
        let problem = "problem interfaces: em0, on which jail \"web\" is published, has no inet address -> publish to an \
                       inet6 address of the jail";
        assert!(found.iter().any(|finding| finding.starts_with(problem)), "{found:?}");
        // db is reached over IPv6, which is all that this host has
        assert!(found.iter().any(|finding| finding.starts_with("warning interfaces:") && finding.ends_with("-> ")));
        assert_eq!(played.kport(&["doctor", "-q"]).0, 5);
    }
}

#[test]
fn the_remedy_for_a_missing_address_suits_the_interface() {
    for (name, groups, remedy) in [
        ("em0", json!([]), "wait for it if em0 gets it by DHCP, else: ifconfig em0 inet ADDRESS/PREFIX alias"),
        ("tun0", json!(["tun"]), "wait until the program of tun0 (ppp(8), mpd5) is connected"),
        ("wan", json!(["ng"]), "wait until the program of wan (ppp(8), mpd5) is connected"),
        ("ppp0", json!([]), "wait until the program of ppp0 (ppp(8), mpd5) is connected"),
        ("tungsten", json!([]), "ifconfig tungsten inet ADDRESS/PREFIX alias"),
    ] {
        let played = Played::new()
            .with("/gateway/inet", json!(name))
            .with("/interfaces/0", json!({ "name": name, "groups": groups, "up": true }));
        // publish notes the same
        let (status, text) = played.kport(&["publish", "web", "8080:80"]);
        assert!(status == 0 && text.contains(remedy), "{name}: {text}");
        let found = played.doctor();
        assert!(found.len() == 1 && found[0].contains(remedy), "{found:?}");
    }
}

#[test]
fn a_reach_list_without_the_outer_interface() {
    let outer = || {
        Played::new()
            .with("/gateway/inet", json!("bridge0"))
            .with("/interfaces/0", json!({ "name": "em0", "up": true }))
            .with("/interfaces/1/addresses", json!(["192.168.1.10/24"]))
            .with("/vnet_addresses/web", json!(["192.168.1.50"]))
            .and("/interfaces", json!({ "name": "epair0a", "groups": [ "epair" ], "up": true }))
    };
    let second = json!({ "name": "bridge1", "groups": [ "bridge" ], "up": true, "addresses": [ "10.1.0.1/24" ] });
    for (played, reach, advised) in [
        (outer(), &[][..], "--reach epair --reach lo"),
        (outer(), &["--reach", "bridge0"], "--reach lo"),
        (outer().and("/interfaces", second.clone()), &[], "--reach bridge1 --reach epair --reach lo"),
        (outer().and("/interfaces", second), &["--reach", "bridge", "--reach", "bridge0"], "--reach bridge1"),
    ] {
        let publish = |reach: &[&str]| played.publish(&[&["web", "-a", "192.168.1.50", "8080:80"], reach].concat());
        publish(reach);
        let found = || {
            let all = played.doctor().into_iter();
            all.filter(|finding| finding.starts_with("warning reach: ")).collect::<Vec<_>>()
        };
        assert!(found().len() == 1 && found()[0].ends_with(&format!("without it: {advised}")), "{:?}", found());
        publish(&advised.split(' ').collect::<Vec<_>>());
        assert_eq!(found(), [""; 0]);
    }
}

#[test]
fn the_default_rule_may_block() {
    let drops = || Played::new().with("/sysctls/net.inet6.ip6.forwarding", json!(1));
    let ssh = &["trace", "--on", "em0", "tcp", "198.51.100.7", "203.0.113.10:22"];
    let played = drops().and("/listeners", listener("tcp", None, 22));
    assert_eq!(played.kport(ssh).0, 0);
    let mut dropping = drops().and("/listeners", listener("tcp", None, 22));
    dropping.host["sysctls"]["net.pf.default_to_drop"] = json!(1);
    let (status, text) = dropping.kport(ssh);
    assert!(
        status == 5 && text.contains("    the default rule: block (net.pf.default_to_drop)\n    blocked\n"),
        "{text}"
    );
    let (_, text) = dropping.kport(&[&ssh[..1], &["--json"], &ssh[1..]].concat());
    assert!(text.contains("\"step\": \"default\"") || text.contains("\"step\":\"default\""), "{text}");
    // a rule that matches decides before it, in both directions, and a state comes before the rules
    let dropping = dropping.with_main(&format!("{MAIN}pass in proto tcp to port 22\n"));
    assert_eq!(dropping.kport(ssh).0, 0);
    dropping.publish(&["web", "8080:80"]);
    assert_eq!(dropping.kport(&["trace", "--on", "em0", "tcp", "198.51.100.7", "203.0.113.10:8080"]).0, 0);
    // kport's rules without quick are the last that match
    dropping.publish(&["web", "--no-quick", "8080:80"]);
    assert_eq!(dropping.kport(&["trace", "--on", "em0", "tcp", "198.51.100.7", "203.0.113.10:8080"]).0, 0);
    // neighbour discovery matches none of kport's rules
    let mut dropping = inet6_only().with_main(MAIN);
    dropping.host["sysctls"]["net.pf.default_to_drop"] = json!(1);
    let (status, text) = dropping.kport(&["publish", "db", "8080:80"]);
    assert!(status == 0 && text.contains("the default rule (net.pf.default_to_drop) blocks IPv6 neighbour"), "{text}");
}

/// The statements that pfctl(8) refuses on a host whose em0 has only IPv6, and whose lo1 has no address.
#[test]
fn a_file_that_pfctl_refuses_on_this_host() {
    let played = inet6_only().and("/interfaces", json!({ "name": "lo1", "groups": [ "lo" ], "up": true }));
    for (statement, why) in [
        ("antispoof for em0 inet", "rule expands to no valid combination"),
        ("antispoof quick for { bridge0 em0 } inet", "rule expands to no valid combination"),
        ("pass in on em0 inet from em0:network", "rule expands to no valid combination"),
        ("pass in inet from any to { em0, em0:0 }", "rule expands to no valid combination"),
        ("pass in from 10.0.0.0/8 to em0", "rule expands to no valid combination"),
        ("nat on em0 from lo1:network to any -> (em0)", "no IP address found for lo1:network"),
        ("pass in from { 10.0.0.0/8 lo1 }", "no IP address found for lo1"),
        ("pass out from em7:network", "no IP address found for em7:network"),
        ("pass in to em0:broadcast", "no IP address found for em0:broadcast"),
        ("nat on em0 inet from 10.0.0.0/8 to any -> em0", "no translation address with matching address family"),
        ("table <mine> { lo1 10.0.0.1 }", "table <mine>: no IP address found for lo1"),
    ] {
        let before = if statement.starts_with("nat") || statement.starts_with("table") { statement } else { "" };
        let after = if before.is_empty() { statement } else { "" };
        let file = played.file("pf.conf", &format!("{before}\n{MAIN}{after}\n"));
        let question = ["trace", "--pf-conf", &file, "--on", "em0", "tcp", "2001:db8:2::7", "[2001:db8:1::10]:22"];
        let (status, text) = played.kport(&question);
        assert!(
            status == 5 && text.contains("pfctl(8) refuses the whole file") && text.contains(why),
            "{statement}: {text}"
        );
        // the same file as the main ruleset of the host
        let played = inet6_only()
            .and("/interfaces", json!({ "name": "lo1", "groups": [ "lo" ], "up": true }))
            .with_main(&format!("{before}\n{MAIN}{after}\n"));
        assert_eq!(played.kport(&["trace", "--on", "em0", "tcp", "2001:db8:2::7", "[2001:db8:1::10]:22"]).0, 5);
    }
    for statement in [
        "antispoof for em0",
        "antispoof for em0 inet6",
        // no rule, and no error
        "antispoof for lo1",
        "pass in from (em0:network)",
        "pass in inet from (em0)",
        "pass in on lo1 inet",
        "pass in from { 10.0.0.0/8 em0:network }",
        "pass in to ! em0",
        // may be the name of a host
        "pass in to mail",
        "pass in inet to bridge0",
        "pass in from self",
    ] {
        let file = played.file("pf.conf", &format!("{MAIN}{statement}\n"));
        let question = ["trace", "--pf-conf", &file, "--on", "em0", "tcp", "2001:db8:2::7", "[2001:db8:1::10]:22"];
        let (_, text) = played.kport(&question);
        assert!(!text.contains("pfctl(8) refuses"), "{statement}: {text}");
    }
}

#[test]
fn an_empty_table_of_sources_is_a_warning() {
    for (table, expected) in [
        ("table <friends> persist\n", "warning sources: table <friends> is empty"),
        ("table <friends> { ! 198.51.100.7 }\n", "warning sources: table <friends> is empty"),
        ("table <friends> { 198.51.100.7 }\n", ""),
        ("table <friends> { em0:network }\n", ""),
    ] {
        let played = Played::new().with_main(&format!("{table}{MAIN}"));
        played.publish(&["web", "--sources", "<friends>", "8080:80"]);
        let found = played.doctor();
        match expected {
            "" => assert_eq!(found, [""; 0]),
            _ => assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}"),
        }
    }
    // one that a reload has removed
    let played = Played::new().with_main(&format!("table <friends> persist\n{MAIN}"));
    played.publish(&["web", "--sources", "<friends>", "8080:80"]);
    let found = played.with_main(MAIN).doctor();
    assert!(found.iter().any(|finding| finding.starts_with("problem sources: pf has no table <friends>")), "{found:?}");
}

#[test]
fn rules_reads_the_address_as_its_help_says() {
    let played = Played::new();
    let (status, read) = played.kport(&["rules", "web", "8080:80"]);
    let (_, given) = played.kport(&["rules", "web", "-a", "10.0.0.2", "8080:80"]);
    assert!(status == 0 && read == given && read.contains("-> 10.0.0.2 port 80"), "{read}");
    let (status, text) = played.kport(&["rules", "gone", "8080:80"]);
    assert!(status == 5 && text.contains("is not running here"), "{text}");
}

#[test]
fn a_jail_without_an_address_yet() {
    let played = Played::new().with("/vnet_addresses/web", json!([]));
    let (status, text) = played.kport(&["publish", "web", "8080:80"]);
    assert!(status == 5 && text.contains("wait for one with --wait; or give it with -a"), "{text}");
    // as a hook, and after waiting
    let mut hook = played.command(&["publish", "--hook", "8080:80"]);
    let output = hook.env("JNAME", "web").env("JID", "1").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("wait for one with --wait"), "{output:?}");
    let (status, text) = played.kport(&["publish", "--wait", "0.01", "web", "8080:80"]);
    assert!(status == 5 && text.contains("has no address; waited") && !text.contains("--wait"), "{text}");
}

/// kport's calls, with rules before the translation calls, between them and the filter call, and after it.
fn around(translation: &str, before: &str, after: &str) -> String {
    format!("{translation}nat-anchor \"kport\"\nrdr-anchor \"kport\"\n{before}anchor \"kport\"\n{after}")
}

const BOGONS: &str = "{ 0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 \
                      192.0.2.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 }";

/// Rulesets that pass what is published: doctor and publish find nothing, whatever they refuse.
#[test]
fn rules_that_refuse_no_outsider_are_not_blamed() {
    for main in [
        // case 04: rules of other ports, protocols, interfaces and directions, and those for a source
        "table <sshguard> persist\n".to_owned()
            + &around(
                "",
                "antispoof quick for em0\nblock out quick on em0 proto tcp from any to any port 137:139\n\
                 block in quick on em0 proto udp from any to any port 161\n\
                 block in quick proto tcp from <sshguard> to any port 22\nblock in quick on em1 all\nblock log all\n",
                "pass out all\n",
            ),
        around("", "block in quick from urpf-failed\nblock in quick from no-route\nblock log all\n", "pass out all\n"),
        around("", "block in quick from { 192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/25 }\n", ""),
        around("", "block in quick inet6\nblock quick proto { icmp udp }\nblock in quick to 203.0.113.11\n", ""),
        around("", "block in quick proto tcp to port { 22 8081 >= 9000 }\nblock in quick from any port 25\n", ""),
        around("", "block in quick proto tcp flags FUP/FUP\nblock in quick proto tcp from any os Windows\n", ""),
        around("", "anchor \"blocklistd/*\" in on em0\nanchor \"f2b/*\"\n", ""),
        around("", "anchor {\n block in quick from 192.0.2.0/24\n block in quick on em1\n}\n", ""),
        around("no rdr on em0 proto tcp to port 22\nno rdr on em1\n", "block in quick from 192.0.2.0/24\n", ""),
        // a bogon list has every address for documentation
        format!("table <bogons> const {BOGONS}\n{}", around("", "block in quick on em0 from <bogons>\n", "")),
        around("", &format!("block in quick from {BOGONS}\nblock all\n"), "pass out\n"),
        // later rules do not decide
        around("", "block all\n", "block in quick all\nblock in quick on em0\n"),
    ] {
        let played = Played::new().with_main(&main);
        let (status, text) = played.kport(&["publish", "web", "8080:80"]);
        assert_eq!((status, text.as_str()), (0, ""), "{main}");
        assert_eq!(played.doctor(), [""; 0], "{main}");
    }
}

#[test]
fn an_allow_list_is_named() {
    for (rule, table) in [
        ("block in quick on em0 from ! <friends>", "{ 192.0.2.0/24 }"),
        ("block in quick from ! <friends>", "{ 192.0.2.0/24 ! 192.0.2.77 }"),
        ("block in quick proto tcp from ! <friends> to any", "{ 198.51.100.1 }"),
    ] {
        let main = format!("table <friends> persist {table}\n{}", around("", &format!("{rule}\n"), ""));
        let played = Played::new().with_main(&main);
        played.publish(&["web", "8080:80"]);
        assert_eq!(played.doctor(), [""; 0]);
        let (_, text) = played.kport(&["doctor"]);
        assert!(
            text.contains(&format!("passes what is published; only sources that line 4, {rule} allows get in")),
            "{text}"
        );
    }
}

/// Moves the calls of a file as a remedy says: `move anchor "kport" before line 5, block ...`.
fn moved(main: &str, remedy: &str) -> String {
    let moves = remedy.strip_prefix("in /etc/pf.conf, ").unwrap_or_else(|| panic!("{main}{remedy}"));
    let moves = moves.split_once(", then: service pf reload").unwrap().0;
    let mut lines: Vec<(usize, String)> = (1..).zip(main.lines().map(str::to_owned)).collect();
    for one in moves.split("move ").filter(|one| !one.is_empty()) {
        let (call, rest) = one.split_once(" \"kport\" ").unwrap();
        let (side, rest) = rest.split_once(" line ").unwrap();
        let target: usize = rest.split_once(',').unwrap().0.parse().unwrap();
        let from = lines.iter().position(|(_, line)| *line == format!("{call} \"kport\"")).unwrap();
        let (_, line) = lines.remove(from);
        let at = lines.iter().position(|(number, _)| *number == target).unwrap();
        lines.insert(if side == "before" { at } else { at + 1 }, (0, line));
    }
    lines.iter().map(|(_, line)| format!("{line}\n")).collect()
}

/// A remedy is tried: with it the packet arrives, and who is refused because of his source stays refused.
#[test]
fn what_decides_is_blamed_and_the_remedy_works() {
    let bad = "table <bad> { 192.0.2.66 }\n";
    for (main, blamed) in [
        // case 01: the blocklist does not hold at the published port
        (
            format!("{bad}{}", around("", "block drop log all\n", "block in quick from <bad>\npass out all\n")),
            "problem anchors-order: line 6, block in quick from <bad> refuses sources, but not at 8080 on em0, which",
        ),
        (
            around("", "", "block in quick from 192.0.2.66\n"),
            "problem anchors-order: line 4, block in quick from 192.0.2.66",
        ),
        (
            around("", "block all\n", "pass out\nantispoof quick for bridge0\n"),
            "problem anchors-order: line 6, antispoof quick for bridge0",
        ),
        (
            around("", "block all\n", "block in quick from urpf-failed\npass out\n"),
            "problem anchors-order: line 5, block in quick from urpf-failed",
        ),
        // whoever a program blocks later
        (around("", "", "anchor \"f2b/*\"\npass out\n"), "problem anchors-order: line 4, anchor \"f2b/*\" refuses"),
        (
            around("", "", "block in quick from { 192.0.2.66, 192.0.2.67 }\n"),
            "problem anchors-order: line 4, block in quick from { 192.0.2.66, 192.0.2.67 }",
        ),
        // case 02: a translation rule ends the evaluation
        (around("no rdr\n", "block in on em0\n", "pass out\n"), "(line 1, no rdr)"),
        (
            around("no rdr on em0 proto tcp from any to any port 8080\n", "block in on em0\n", ""),
            "(line 1, no rdr on em0 proto tcp from any to any port 8080)",
        ),
        // case 03: rules that are final for everybody
        (around("", "block return in quick proto tcp all\n", ""), "(line 3, block return in quick proto tcp all)"),
        (around("", "block in quick to 10.0.0.0/8\n", ""), "(line 3, block in quick to 10.0.0.0/8)"),
        (
            around("", "block in quick from any to { 10.0.0.0/8 192.168.0.0/16 }\nblock all\n", ""),
            "(line 3, block in quick from any to { 10.0.0.0/8 192.168.0.0/16 })",
        ),
        (around("", "block out quick on bridge0\n", ""), "(line 3, block out quick on bridge0)"),
        (
            around("", "anchor {\n block in quick on em0 proto tcp\n}\n", ""),
            "(line 4, block in quick on em0 proto tcp)",
        ),
        // both at once: the list stays before the anchor, the final rule comes after it
        (
            format!("{bad}{}", around("", "block in quick from <bad>\nblock in quick all\n", "")),
            "(line 5, block in quick all)",
        ),
    ] {
        let played = Played::new().with_main(&main);
        played.publish(&["web", "8080:80"]);
        let found = played.doctor();
        assert_eq!(found.len(), 1, "{main}{found:?}");
        assert!(found[0].contains(blamed), "{main}{found:?}");
        let remedy = &found[0][found[0].rfind(" -> ").unwrap() + 4..];
        let fixed = moved(&main, remedy);
        let played = played.with_main(&fixed);
        assert_eq!(played.doctor(), [""; 0], "{main}{remedy}\n{fixed}");
        assert_eq!(played.kport(&["trace", "--on", "em0", "tcp", "192.0.2.7", "203.0.113.10:8080"]).0, 0, "{fixed}");
        if main.contains("192.0.2.66") || main.contains("<bad>") {
            assert_eq!(
                played.kport(&["trace", "--on", "em0", "tcp", "192.0.2.66", "203.0.113.10:8080"]).0,
                5,
                "{fixed}"
            );
        }
    }
}

#[test]
fn no_place_is_advised_if_none_is_right() {
    // on the way in the list must come before the anchor, on the way out the anchor before the other line
    let main = around("", "block out quick on bridge0\nblock in quick from 192.0.2.0/24\n", "");
    let played = Played::new().with_main(&main);
    let (status, text) = played.kport(&["publish", "web", "8080:80"]);
    assert_eq!(status, 0);
    assert!(text.contains("(line 3, block out quick on bridge0)"), "{text}");
    assert!(text.contains("contradict each other: change one of them") && !text.contains("move "), "{text}");
}

/// Two findings never say the opposite of each other.
#[test]
fn findings_that_would_contradict_each_other() {
    let (_, text) = Played::new().with_main("pass all\n").kport(&["doctor"]);
    assert!(text.contains("problem  anchors-called") && !text.contains("anchors-order"), "{text}");
    let (_, text) = Played::new().with_main("nat-anchor \"kport\"\nanchor \"kport\"\n").kport(&["doctor"]);
    assert!(!text.contains("anchors-order"), "{text}");
    let off = Played::new().with("/sysctls/net.inet.ip.forwarding", json!(0));
    let (_, text) = off.kport(&["doctor"]);
    let ok = "ok       forwarding           nothing is published that needs net.inet.ip.forwarding, which is 0\n";
    assert!(text.contains(ok), "{text}");
    let (_, text) = Played::new().kport(&["doctor"]);
    assert!(text.contains("ok       forwarding           the host forwards what is published\n"), "{text}");
}

/// Mappings that no rule distinguishes are tried once, and one that a rule singles out is found among them.
#[test]
fn one_port_of_many_is_blocked() {
    for (ports, blocked) in [("8000-8999:8000", "8500"), ("auto:80 8080:80 8081:80", "8081"), ("8000-8010:80", "84")] {
        let rule = format!("block in quick proto tcp to port {}\n", if blocked == "8081" { "80" } else { blocked });
        let played = Played::new().with_main(&around("", &rule, ""));
        let (status, text) = played.kport(&[&["publish", "web"][..], &ports.split(' ').collect::<Vec<_>>()].concat());
        assert!(status == 0 && text.contains(&format!("(line 3, {})", rule.trim())), "{ports}: {text}");
    }
}

/// The client of the self-test is an ordinary outsider, too.
#[test]
fn the_self_test_with_a_list_of_bogons() {
    for main in [
        format!(
            "table <bogons> const {BOGONS}\n{}",
            around("", "block in quick from <bogons>\nblock all\n", "pass out\n")
        ),
        around("", "block in quick from 198.18.0.0/15\nblock all\n", "pass out\n"),
        format!("table <friends> {{ 198.51.100.0/24 }}\n{}", around("", "block in quick from ! <friends>\n", "")),
    ] {
        let (status, text) = Played::new().with_main(&main).kport(&["doctor", "--self-test"]);
        assert!(status == 0 && !text.contains("FAILED"), "{main}{text}");
    }
    let (status, text) =
        Played::new().with_main(&around("", "block quick all\n", "")).kport(&["doctor", "--self-test"]);
    assert!(status == 5 && text.contains("FAILED  an outsider connects"), "{text}");
}

#[test]
fn setup_mentions_other_filters() {
    let played = Played::new();
    let files = |rc: &str, sysctl: &str| {
        let paths = [played.file("pf.conf", MAIN), played.file("rc.conf", rc), played.file("sysctl.conf", sysctl)];
        let [pf, rc, sysctl] = &paths;
        played.kport(&["setup", "--pf-conf", pf, "--rc-conf", rc, "--sysctl-conf", sysctl]).1
    };
    let text = files("firewall_enable=\"YES\"\nipfilter_enable=\"NO\"\n", "net.link.bridge.pfil_member=1\n");
    assert!(text.contains("note: firewall_enable is set, so ipfw(8) filters") && !text.contains("ipf(8)"), "{text}");
    assert!(text.contains("note: net.link.bridge.pfil_member is not 0: pf filters on members of bridges"), "{text}");
    let text = files("ipfilter_enable=yes\n", "net.link.bridge.pfil_member=0\n");
    assert!(text.contains("ipfilter_enable is set, so ipf(8)") && !text.contains("pfil_member is not"), "{text}");
    let text = files("", "");
    assert!(!text.contains("filters the packets") && !text.contains("pfil_member"), "{text}");
}

/// A host from a file is played in every respect: files of the machine that kport runs on say nothing about it.
#[cfg(target_os = "linux")]
#[test]
fn a_host_from_a_file_has_nothing_of_this_machine() {
    use crate::support::cc;
    let library = cc::work_dir().join("poison.so");
    let source = cc::root().join("tests/host/poison.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(compiled.success());
    let root = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("etc/jail.conf", "web { exec.poststart = \"kport publish db 80\"; }\n"),
        ("etc/jail.conf.d/db.conf", "db { exec.start = \"kport publish web 80\"; }\n"),
        ("etc/rc.conf", "cbsd_workdir=\"/usr/local/cbsd\"\n"),
        ("etc/pf.conf", "block quick all\n"),
        ("usr/local/cbsd/etc/pf.conf", "pass all\n"),
        ("usr/local/bastille/jails/web/jail.conf", "web { exec.poststart = \"kport publish db 80\"; }\n"),
        ("usr/local/appjail/jails/web/conf/template.conf", "exec.poststart: \"kport publish db 80\"\n"),
    ] {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let run = |mut command: Command| {
        let output = command.env("LD_PRELOAD", &library).env("POISON", root.path()).output().unwrap();
        let log = std::fs::read_to_string(root.path().join("log")).unwrap_or_default();
        _ = std::fs::remove_file(root.path().join("log"));
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), log)
    };
    // the main ruleset does not call kport's anchors: then doctor asks which manager has replaced it
    let lost = Played::new();
    lost.publish(&["db", "8081:80"]);
    let lost = lost.with_main("pass all\n");
    for (played, arguments, expected) in [
        (&Played::new(), &["publish", "web", "8080:80"][..], Some(0)),
        (&Played::new(), &["rules", "web", "8080:80"], Some(0)),
        (&Played::new(), &["doctor"], Some(0)),
        (&Played::new(), &["list"], Some(0)),
        (&Played::new(), &["trace", "tcp", "198.51.100.7", "203.0.113.10:22"], Some(5)),
        (&lost, &["doctor"], Some(5)),
    ] {
        let (status, text, log) = run(played.command(arguments));
        assert_eq!((status, log.as_str()), (expected, ""), "{arguments:?}: {text}");
        assert!(!text.contains("jail.conf") && !text.contains("cbsd"), "{text}");
    }
    // the poison works: without --host, the files are those of this host
    let mut own = Command::new(env!("CARGO_BIN_EXE_kport"));
    own.env_clear().args(["--backend", "sim", "--state-dir"]).arg(lost.dir.path()).arg("doctor");
    let (_, text, log) = run(own);
    for path in
        ["/etc/jail.conf", "/usr/local/bastille/jails/web/jail.conf", "/usr/local/appjail/jails/web/conf/template.conf"]
    {
        assert!(text.contains(&format!("{path} line 1")) && log.contains(path), "{text}{log}");
    }
}
