//! nvlists, in the packed form of libnv.

use kport::pf::native::nv::{List, Value};
use proptest::prelude::*;

/// The length of the header of a list, after which its first pair begins.
const HEADER: usize = 19;
/// The types that have a length.
const SIZED: [u8; 6] = [4, 7, 8, 9, 10, 11];
/// The deepest list that is read.
const MAX_DEPTH: usize = 16;

fn value(depth: u32) -> BoxedStrategy<Value> {
    let text = "[a-z0-9/:. äöü]{0,12}";
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::Number),
        text.prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 1..20).prop_map(Value::Binary),
        prop::collection::vec(any::<u64>(), 1..5).prop_map(Value::Numbers),
        prop::collection::vec(text, 1..5).prop_map(Value::Strings),
    ];
    if depth == 0 {
        return leaf.boxed();
    }
    prop_oneof![
        4 => leaf,
        1 => list(depth - 1).prop_map(Value::List),
    ]
    .boxed()
}

fn list(depth: u32) -> BoxedStrategy<List> {
    prop::collection::vec(("[a-z_.]{1,9}", value(depth)), 0..6)
        .prop_map(|pairs| pairs.into_iter().fold(List::new(), |list, (name, value)| list.with(&name, value)))
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_encoded_is_read_again(list in list(3)) {
        let bytes = list.encode();
        // or only a part of it
        for (name, value) in list.pairs() {
            let only = List::decode(&bytes, &[name, "another name"]).unwrap();
            prop_assert_eq!(only, List::new().with(name, value.clone()));
        }
        prop_assert_eq!(List::decode(&bytes, &["another name"]), Ok(List::new()));
        prop_assert_eq!(List::decode(&bytes, &[]), Ok(list));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        _ = List::decode(&bytes, &["a"]);
        if let Ok(list) = List::decode(&bytes, &[]) {
            prop_assert_eq!(List::decode(&list.encode(), &[]), Ok(list));
        }
    }

    /// Almost valid input reaches further into the reader than random input.
    #[test]
    fn a_changed_byte_is_read_or_refused(list in list(3), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = list.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(list) = List::decode(&bytes, &[]) {
            prop_assert_eq!(List::decode(&list.encode(), &[]), Ok(list));
        }
        prop_assert!(List::decode(&bytes[..at], &[]).is_err());
    }
}

#[test]
fn descriptors_are_refused() {
    let good = List::new().with("fd", Value::Number(0)).encode();
    for kind in [0, 6, 12, 13, 253] {
        let mut bytes = good.clone();
        bytes[HEADER] = kind;
        assert!(List::decode(&bytes, &[]).is_err(), "{kind}");
    }
}

#[test]
fn an_announced_size_allocates_nothing() {
    for kind in SIZED {
        let mut bytes = List::new().with("x", Value::Number(0)).encode();
        bytes[HEADER] = kind;
        bytes[HEADER + 3..HEADER + 19].fill(0xff);
        assert!(List::decode(&bytes, &[]).is_err(), "{kind}");
    }
}

#[test]
fn depth_is_bounded() {
    let deep = (0..MAX_DEPTH).fold(List::new(), |list, _| List::new().with("x", Value::List(list)));
    assert_eq!(List::decode(&deep.encode(), &[]), Ok(deep.clone()));
    assert!(List::decode(&List::new().with("x", Value::List(deep)).encode(), &[]).is_err());
}

#[test]
fn a_missing_or_other_key_is_told() {
    let list = List::new().with("n", Value::Number(1));
    assert_eq!(list.number("n"), Ok(1));
    assert_eq!(list.string("n").unwrap_err().to_string(), "n is not a text");
    assert_eq!(list.number("m").unwrap_err().to_string(), "m is missing");
}
