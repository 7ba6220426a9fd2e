//! Lines that are added to a file, and found again by their mark.

use std::slice;

use kport::cli::setup::marks::{add, has_file, removed, turned, turned_back, with_file};

#[test]
fn a_call_by_wildcard_is_turned_and_turned_back() {
    for (text, made) in [
        ("anchor \"kport/*\"", "anchor \"kport\" # kport setup (was \"kport/*\")"),
        ("x\n\tanchor kport/* # mine\r\ny", "x\n\tanchor kport # mine # kport setup (was \"kport/*\")\r\ny"),
        ("anchor '/kport/*' on { em0 }  \n", "anchor '/kport' on { em0 } # kport setup (was \"kport/*\")  \n"),
    ] {
        let at = text.find("/*").unwrap();
        assert_eq!(String::from_utf8(turned(text.as_bytes(), slice::from_ref(&(at..at + 2)))).unwrap(), made);
        assert_eq!(String::from_utf8(turned_back(made.as_bytes())).unwrap(), text);
    }
    // a line that kport has added is removed as a whole
    let own = b"anchor \"kport/*\" # kport setup\n";
    assert_eq!(turned(own, slice::from_ref(&(13..15))), b"anchor \"kport\" # kport setup\n");
    for edited in ["# kport setup (was \"kport/*\")\n", "block all # kport setup (was \"kport/*\")\n"] {
        assert_eq!(turned_back(edited.as_bytes()), edited.as_bytes());
    }
}

#[test]
fn what_is_added_is_removed() {
    for text in [&b""[..], b"a\n", b"a", b"\n", b"caf\xe9 # \xff\r\n", b"\r\n\xe9"] {
        let mut made = text.to_owned();
        add(&mut made, ["x", "y"]);
        assert!(made.ends_with(b"\ny # kport setup\n") && made.starts_with(text), "{made:?}");
        assert_eq!(removed(&made, |line| line == "x" || line == "y"), text);
        made.extend(b"more");
        let ends = if text.is_empty() || text.ends_with(b"\n") { &b""[..] } else { b"\n" };
        assert_eq!(removed(&made, |line| line == "x" || line == "y"), [text, ends, b"more"].concat());
    }
    let mut made = vec![];
    add(&mut made, ["x", "y"]);
    assert!(!has_file(&made));
    let made = with_file(&made);
    assert_eq!(made, b"x # kport setup (and the file)\ny # kport setup\n");
    assert!(has_file(&made) && removed(&made, |line| line == "x" || line == "y").is_empty());
    assert_eq!(with_file(b""), b"");
    assert_eq!(removed(b"z # kport setup\nx\n", |line| line == "x"), b"z # kport setup\nx\n");
}
