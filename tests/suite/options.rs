//! Options by name: every field, every kind of value, and the mistakes.

use std::net::IpAddr;

use kport::error::Kind;
use kport::net::Family;
use kport::options::{Given, Limits, Options, Rate, Source, Takes};

#[test]
fn routers_of_an_option() {
    let set = |items: &[&str]| {
        let mut options = Options::default();
        let items = items.iter().map(|item| (*item).to_owned()).collect();
        options.set("reply-to", &Given::List(items)).map(|()| options.reply_to.unwrap())
    };
    let both: Vec<IpAddr> = vec!["192.0.2.254".parse().unwrap(), "fe80::1".parse().unwrap()];
    assert_eq!(set(&["192.0.2.254,fe80::1"]).unwrap(), both);
    assert_eq!(set(&["192.0.2.254", "fe80::1"]).unwrap(), both);
    assert_eq!(set(&["none"]).unwrap(), [] as [IpAddr; 0]);
    for bad in
        [&["192.0.2.254,192.0.2.253"][..], &["none", "192.0.2.254"], &["0.0.0.0"], &["224.0.0.1"], &["em0"], &[""], &[]]
    {
        assert_eq!(set(bad).unwrap_err().kind(), Kind::Argument, "{bad:?}");
    }
}

/// For each option a value that is not its default.
fn each_by_name() -> Options {
    let mut options = Options::default();
    for (name, takes) in Options::names() {
        let text = match name {
            "reach" => "bridge1 jails",
            "sources" => "192.0.2.0/24 <friends>",
            "family" => "inet6",
            "rate" => "15/5",
            "reply-to" => "192.0.2.254,fe80::1",
            _ => "7",
        };
        let given = match takes {
            Takes::Flag => Given::Flag(name != "quick"),
            _ => Given::Text(text.to_owned()),
        };
        options.set(name, &given).unwrap();
    }
    options
}

#[test]
fn every_field_is_set_by_name() {
    use serde_json::{Value, to_value};
    fn leaves(value: Value, path: String, found: &mut Vec<(String, Value)>) {
        match value {
            Value::Object(fields) => {
                fields.into_iter().for_each(|(key, value)| leaves(value, format!("{path}.{key}"), found));
            }
            value => found.push((path, value)),
        }
    }
    let (mut usual, mut set) = (vec![], vec![]);
    leaves(to_value(Options::default()).unwrap(), String::new(), &mut usual);
    leaves(to_value(each_by_name()).unwrap(), String::new(), &mut set);
    assert_eq!(usual.len(), Options::names().count());
    for (before, after) in usual.iter().zip(&set) {
        assert!(before.0 == after.0 && before.1 != after.1, "{before:?} {after:?}");
    }
}

#[test]
fn values_by_name() {
    let set = |name: &str, given: Given| {
        let mut options = Options::default();
        options.set(name, &given).map(|()| options)
    };
    let text = |text: &str| Given::Text(text.to_owned());
    let list = |items: &[&str]| Given::List(items.iter().map(|item| (*item).to_owned()).collect());
    assert_eq!(set("reach", text(" ")).unwrap().reach, []);
    for both in [text("inet6,inet"), text("inet inet6 inet"), list(&["inet6", "inet"])] {
        assert_eq!(set("family", both).unwrap().families, Family::ALL);
    }
    assert_eq!(set("reach", text(" lo\tbridge ")), set("reach", list(&["lo", "bridge"])));
    for (name, on, quick) in [("quick", true, true), ("no-quick", true, false), ("no-quick", false, true)] {
        assert_eq!(set(name, Given::Flag(on)).unwrap().quick, quick);
    }
    for (name, given, kind, offset) in [
        ("sources", text("192.0.2.0/24 em0"), Kind::Argument, Some(13)),
        ("sources", list(&["192.0.2.0/24", "em0"]), Kind::Argument, None),
        ("sources", list(&["192.0.2.0/24 <a>"]), Kind::Argument, None),
        ("sources", text(" "), Kind::Argument, None),
        ("sources", list(&[]), Kind::Argument, None),
        ("sources", Given::Flag(true), Kind::Argument, None),
        ("hairpin", text("yes"), Kind::Argument, None),
        ("max-connections", text("0"), Kind::Argument, None),
        ("max-connections", text("4294967296"), Kind::Argument, None),
        ("rate", text("5"), Kind::Argument, None),
        ("rate", list(&["5/1"]), Kind::Argument, None),
        ("family", text("inet ipv6"), Kind::Argument, Some(5)),
        ("family", text("inet,"), Kind::Argument, Some(0)),
        ("no-sources", text("<a>"), Kind::Unsupported, None),
        ("no-no-quick", Given::Flag(true), Kind::Unsupported, None),
        ("sorces", text("<a>"), Kind::Unsupported, None),
    ] {
        let error = set(name, given.clone()).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (kind, offset), "{name} {given:?}: {error}");
    }
}

#[test]
fn sources() {
    for good in ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "2001:db8::1", "<friends>", "0.0.0.0/0", "::/0"] {
        assert_eq!(good.parse::<Source>().unwrap().to_string(), good);
    }
    assert_eq!("192.0.2.1/32".parse::<Source>().unwrap().to_string(), "192.0.2.1");
    for bad in ["", "192.0.2.1/24", "192.0.2.0/33", "<>", "<a", "a", "<a b>", "<_pf>", "! 192.0.2.1", "ff02::1", "em0"]
    {
        assert!(bad.parse::<Source>().is_err(), "{bad}");
        assert!(serde_json::from_value::<Source>(bad.into()).is_err(), "{bad}");
    }
}

#[test]
fn rates() {
    assert_eq!("15/5".parse::<Rate>().unwrap(), Rate::new(15, 5).unwrap());
    for bad in ["", "15", "15/", "/5", "0/5", "15/0", "+15/5", "15/5/5", "4294968/1", "15/4294967296", "１５/5"] {
        assert!(bad.parse::<Rate>().is_err(), "{bad}");
    }
}

#[test]
fn what_is_narrower_does_not_allow_all() {
    let usual = Options::default;
    let from = |sources: &[&str]| Options { sources: sources.iter().map(|s| s.parse().unwrap()).collect(), ..usual() };
    let most = |n: u32| Limits { connections: n.try_into().ok(), ..Limits::default() };
    let rate = |rate: &str| Options { limits: Limits { rate: rate.parse().ok(), ..most(0) }, ..usual() };
    // this direction is narrower, the other is wider
    for (wide, narrow) in [
        (usual(), from(&["192.0.2.0/24"])),
        (from(&["192.0.2.0/24", "<a>"]), from(&["192.0.2.0/25", "<a>"])),
        (from(&["<a>", "<b>"]), from(&["<a>"])),
        (usual(), Options { reach: vec!["bridge".parse().unwrap()], ..usual() }),
        (Options { hairpin: true, ..usual() }, usual()),
        (Options { host_access: true, ..usual() }, usual()),
        (Options { af_to: true, ..usual() }, usual()),
        (usual(), Options { limits: most(10), ..usual() }),
        (Options { limits: most(10), ..usual() }, Options { limits: most(9), ..usual() }),
        (usual(), rate("5/1")),
    ] {
        assert!(wide.allows_all_of(&narrow) && !narrow.allows_all_of(&wide), "{wide:?} {narrow:?}");
        assert!(wide.allows_all_of(&wide) && narrow.allows_all_of(&narrow));
    }
    // in doubt, so connections end in both directions
    assert!(!rate("5/1").allows_all_of(&rate("10/2")) && !rate("10/2").allows_all_of(&rate("5/1")));
    assert!(!from(&["<a>"]).allows_all_of(&from(&["192.0.2.1"])));
    let other = Options { log: true, quick: false, ..usual() };
    assert!(other.allows_all_of(&usual()) && usual().allows_all_of(&other));
}
