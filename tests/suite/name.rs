//! Names of anchors, labels, tags and tables: what fits stays, and no two jails share one.

use std::collections::HashSet;

use kport::name::{Anchor, JailName, Label, MAX_NAME, NODES, Table};
use kport::net::{PortRange, Protocol};

fn anchor(name: &str) -> String {
    name.parse::<JailName>().unwrap().anchor().path().to_owned()
}

#[test]
fn names_that_fit_stay() {
    let longest = "a".repeat(57);
    for name in ["web", "web.db", "-x", "9", "a_b", "UPPER", longest.as_str()] {
        assert_eq!(anchor(name), format!("kport/{name}"));
    }
}

#[test]
fn names_that_do_not_fit_get_a_digest() {
    let too_long = "a".repeat(58);
    let mut seen = HashSet::new();
    for name in
        ["_web", ".", "..", "a/b", "a b", "a\"b", "a$nr", "web*", "a+b", "jäil", "{", "#", "a\\", too_long.as_str()]
    {
        let path = anchor(name);
        assert!(path.len() <= MAX_NAME, "{path}");
        assert!(path.contains('+'), "{path}");
        assert!(Anchor::from_child(&path["kport/".len()..]).is_some(), "{path}");
        assert!(seen.insert(path));
    }
}

#[test]
fn a_digest_form_is_not_a_plain_name() {
    let path = anchor("_web");
    let imitation = path.strip_prefix("kport/").unwrap();
    assert_ne!(anchor(imitation), path);
}

#[test]
fn labels_stay_within_63_bytes() {
    let range = PortRange::new(10000, 65535).unwrap();
    for name in ["web", &"a".repeat(57), &"b".repeat(255), "a\"b"] {
        let jail: JailName = name.parse().unwrap();
        for label in [jail.label(), jail.mapping_label(Protocol::Sctp, range)] {
            assert!(label.as_str().len() <= MAX_NAME, "{label}");
            assert!(!label.as_str().contains(['"', '$', ' ', '\n']), "{label}");
        }
    }
    let web: JailName = "web".parse().unwrap();
    assert_eq!(web.label().as_str(), "kport:web");
    assert_eq!(web.mapping_label(Protocol::Tcp, PortRange::new(8080, 8080).unwrap()).as_str(), "kport:web:tcp:8080");
}

#[test]
fn a_tag_is_one_jails() {
    let range = PortRange::new(10000, 65535).unwrap();
    let long = "b".repeat(255);
    let jails: Vec<JailName> =
        ["web", "web:tcp:8080", "web.tcp", "_x", &"a".repeat(57), &long].map(|name| name.parse().unwrap()).into();
    let mut seen = HashSet::new();
    for jail in &jails {
        for tag in [
            jail.label(),
            jail.mapping_tag(Protocol::Sctp, range, 0),
            jail.mapping_tag(Protocol::Tcp, PortRange::new(8080, 8080).unwrap(), 0),
            jail.mapping_tag(Protocol::Sctp, range, 999_999),
        ] {
            assert_eq!(tag.as_str().parse::<Label>().unwrap(), tag);
            assert!(seen.insert(tag.clone()), "{tag}");
        }
    }
}

#[test]
fn names_that_are_refused() {
    for bad in ["", "a\nb", "a\0b", "\u{7f}", &"x".repeat(256)] {
        assert!(bad.parse::<JailName>().is_err());
    }
    for good in ["kport:web", "kport:web:tcp:8080", "kport:web:udp:8000-8010:2"] {
        assert_eq!(good.parse::<Label>().unwrap().as_str(), good);
    }
    for bad in ["", "kport", "admin", "kport:a b", "kport:a\"b", "kport:$nr", "kport:{", "a\nb", "\u{e4}"] {
        assert!(bad.parse::<Label>().is_err(), "{bad}");
    }
    assert!("kport:x".repeat(10).parse::<Label>().is_err());
    for bad in ["", "a b", "-a", "_pf", "<a>", &"x".repeat(32)] {
        assert!(bad.parse::<Table>().is_err(), "{bad}");
    }
    for bad in ["", "..", "_a", "a/b", "+", "a b", NODES, &"x".repeat(58)] {
        assert!(Anchor::from_child(bad).is_none(), "{bad}");
    }
}
