//! Errors: their numbers, their text, and what of it is escaped.

use std::io;

use kport::error::{Error, Kind, Setting, printable, quoted};

#[test]
fn numbers_are_the_contract() {
    let numbers: Vec<i32> = Kind::ALL.iter().map(|k| k.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_message_is_one_line() {
    let error = Error::new(Kind::Argument, "a\nb\0c\n");
    assert_eq!(error.message(), "a\\nb\\0c");
    assert_eq!(quoted("x\"\n"), "\"x\\\"\\n\"");
    assert_eq!(quoted(&"y".repeat(100)), format!("\"{}...\"", "y".repeat(80)));
}

#[test]
fn a_remedy_is_in_the_words_of_the_interface_or_omitted() {
    let error = Error::new(Kind::Argument, "no address").remedy("give one with", Setting::Address).and("and\nmore");
    let error = error.context("web");
    assert_eq!(error.message(), "web: no address; give one with -a; and\\nmore");
    assert_eq!(error.found(), "web: no address; and\\nmore");
    let other = error.clone().in_words(|setting| Some(format!("<{setting:?}>")));
    assert_eq!(other.message(), "web: no address; give one with <Address>; and\\nmore");
    // words are chosen once
    assert_eq!(other.clone().in_words(|_| None), other);
    let both = Error::all([error.clone(), error]).unwrap_err();
    assert_eq!(both.found(), "web: no address; and\\nmore; web: no address; and\\nmore");
    assert_eq!(both.message().matches(" -a;").count(), 2);
}

#[test]
fn the_words_of_c_are_in_the_header() {
    let header = include_str!("../../include/kport.h");
    for words in Setting::ALL.map(Setting::in_c) {
        let names = words.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        assert!(names.filter(|name| !matches!(*name, "and" | "in")).all(|name| header.contains(name)), "{words}");
    }
}

#[test]
fn several_errors_are_of_the_first_kind_that_tells_something() {
    let of = |kinds: &[Kind]| Error::all(kinds.iter().map(|kind| Error::new(*kind, "a"))).unwrap_err().kind();
    assert_eq!(of(&[Kind::System, Kind::Permission]), Kind::Permission);
    assert_eq!(of(&[Kind::Permission, Kind::System, Kind::Busy]), Kind::Permission);
    assert_eq!(of(&[Kind::System, Kind::System]), Kind::System);
}

#[test]
fn what_does_not_print_is_escaped_and_nothing_else() {
    for text in ["", "web", "it's \"a\\b\"", "käse", "日本", "🦀"] {
        assert_eq!(printable(text), text);
    }
    for (text, shown) in [
        ("\u{1b}[2J", "\\u{1b}[2J"),
        ("a\u{202e}b", "a\\u{202e}b"),
        ("a\tb\r\n", "a\\tb\\r\\n"),
        ("a\u{200b}\u{feff}\u{2028}", "a\\u{200b}\\u{feff}\\u{2028}"),
        ("\u{9b}2J", "\\u{9b}2J"),
        ("\u{7f}", "\\u{7f}"),
    ] {
        assert_eq!(printable(text), shown);
        assert_eq!(Error::new(Kind::Argument, text).message(), printable(text.trim_end_matches('\n')));
    }
}

#[test]
fn errno_decides_between_permission_and_system() {
    let denied = Error::io("open x", &io::Error::from_raw_os_error(libc::EACCES));
    assert_eq!((denied.kind(), denied.errno()), (Kind::Permission, Some(libc::EACCES)));
    let missing = Error::io("open x", &io::Error::from_raw_os_error(libc::ENOENT));
    assert_eq!(missing.kind(), Kind::System);
}
