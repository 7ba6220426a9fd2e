//! Ports, interfaces and places: what is one, and what is not.

use kport::net::{Interface, Place, PortRange};

#[test]
fn port_ranges() {
    assert_eq!(PortRange::new(0, 5), None);
    assert_eq!(PortRange::new(6, 5), None);
    assert_eq!(PortRange::starting_at(65535, 2), None);
    assert_eq!(PortRange::starting_at(1, 0), None);
    let range = PortRange::starting_at(8000, 11).unwrap();
    assert_eq!((range.to_string().as_str(), range.count()), ("8000-8010", 11));
    assert!(range.overlaps(PortRange::new(8010, 9000).unwrap()));
    assert!(!range.overlaps(PortRange::new(8011, 9000).unwrap()));
    for bad in ["", "0", "080", "+80", "80-", "-80", "90-80", "65536", "80-81-82", "8 0", "８０"] {
        assert!(bad.parse::<PortRange>().is_err(), "{bad}");
    }
}

#[test]
fn interface_names() {
    for good in ["em0", "em0.10", "wan", "a_b", "vm-public", "abcdefghijklmno"] {
        assert_eq!(good.parse::<Interface>().unwrap().as_str(), good);
    }
    for bad in
        ["", "0em", "_a", ".a", "-a", "em0\n", "em 0", "em0:network", "! em0", "abcdefghijklmnop", "any", "self", "all"]
    {
        assert!(bad.parse::<Interface>().is_err(), "{bad}");
    }
}

#[test]
fn places() {
    for good in ["em0", "192.0.2.1", "[2001:db8::1]", "*", "0.0.0.0", "[::]", "127.0.0.1"] {
        assert_eq!(good.parse::<Place>().unwrap().to_string(), good);
    }
    for bad in [
        "::",
        "224.0.0.1",
        "[ff02::1]",
        "[fe80::1]",
        "169.254.1.1",
        "255.255.255.255",
        "[::ffff:192.0.2.1]",
        "2001:db8::1",
        "[192.0.2.1]",
        "[",
        "1.2.3",
        "all",
    ] {
        assert!(bad.parse::<Place>().is_err(), "{bad}");
    }
}
