//! Kleene's records of published ports.

use std::net::IpAddr;

use kport::container::kleene::parse;
use kport::error::Kind;
use kport::spec;

fn record(host: &str, container: &str, more: &str) -> String {
    format!(r#"{{ "interfaces": [], "host_port": "{host}", "container_port": "{container}"{more} }}"#)
}

fn specs(json: &str) -> String {
    parse(json).unwrap().spec.to_string()
}

#[test]
fn every_form_of_a_record() {
    assert_eq!(specs(&record("8080", "80", "")), "8080:80/tcp");
    assert_eq!(specs(&record("53", "53", r#", "protocol": "udp""#)), "53:53/udp");
    assert_eq!(specs(&record("8000:8010", "9000:*", "")), "8000-8010:9000-9010/tcp");
    assert_eq!(specs(&record("8000:8010", "9000:9010", "")), "8000-8010:9000-9010/tcp");
    assert_eq!(specs(&record("8000", "9000:*", "")), "8000:9000/tcp");
    let two = r#"[ { "interfaces": ["em0", "em1"], "host_port": "80", "container_port": "8080", "protocol": "tcp",
                     "ip_address": "10.0.0.2", "ip_address6": "" },
                   { "interfaces": [], "host_port": "80", "container_port": "8080", "protocol": "udp",
                     "ip_address": "10.0.0.2", "ip_address6": "fd00::2" } ]"#;
    let ports = parse(two).unwrap();
    assert_eq!(ports.spec.to_string(), "em0:80:8080/tcp em1:80:8080/tcp 80:8080/udp");
    assert_eq!(ports.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    assert!(parse(&record("80", "80", r#", "ip_address": null"#)).unwrap().addresses.is_empty());
}

#[test]
fn what_is_wrong_names_the_record() {
    let second = |host: &str, container: &str, more: &str| {
        format!("[{}, {}]", record("80", "80", r#", "ip_address": "10.0.0.2""#), record(host, container, more))
    };
    for (json, kind, word) in [
        (second("8010:8000", "9000:*", ""), Kind::Spec, "8010-8000"),
        (second("8000:8010", "80", ""), Kind::Spec, "11 ports on the host and 1 in the container"),
        (second("8000:8010", "9000:9001", ""), Kind::Spec, "use container_port \"9000:*\""),
        (second("0", "80", ""), Kind::Spec, "\"0\" is not a port"),
        (second("65536", "80", ""), Kind::Spec, "65536"),
        (second("080", "80", ""), Kind::Spec, "080"),
        (second("8000:8001:8002", "80", ""), Kind::Spec, "8001:8002"),
        (second("*", "80", ""), Kind::Spec, "\"*\""),
        (second("60000:65535", "65000:*", ""), Kind::Spec, "exceed 65535"),
        (second("8080", "80", r#", "protocol": "icmp""#), Kind::Spec, "icmp"),
        (second("8080", "80", r#", "ip_address": "10.0.0.3""#), Kind::Argument, "10.0.0.2"),
        (second("8080", "80", r#", "ip_address": "fd00::2""#), Kind::Argument, "fd00::2"),
        (second("8080", "80", r#", "sources": []"#), Kind::Argument, "sources"),
        (second("8080\\n", "80", ""), Kind::Spec, "8080\\n"),
    ] {
        let error = parse(&json).unwrap_err();
        let said = error.message();
        assert!(error.kind() == kind && said.contains("record 2") && said.contains(word), "{json}: {kind:?} {said}");
    }
    let interface = r#"{ "interfaces": ["em 0"], "host_port": "80", "container_port": "80" }"#;
    assert_eq!(parse(interface).unwrap_err().kind(), Kind::Spec);
    for json in
        ["", "[]", "7", "nonsense", r#"[{ "host_port": 80, "container_port": "80" }]"#, r#"{ "host_port": "80" }"#]
    {
        assert_eq!(parse(json).unwrap_err().kind(), Kind::Argument, "{json}");
    }
    let twice = format!("[{0}, {0}]", record("80", "80", ""));
    let twice = parse(&twice).map(|ports| ports.spec.mappings().len());
    // as the same spec twice
    assert_eq!(twice.ok(), spec::parse("80:80 80:80").map(|spec| spec.mappings().len()).ok());
}
