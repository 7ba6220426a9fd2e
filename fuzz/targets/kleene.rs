//! Any bytes as Kleene's records: they are read or refused. The spec can be read back, and there is at most one address of each family.

#![no_main]

use kport::container::kleene;
use kport::error::Kind;
use kport::spec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match kleene::parse(text) {
        Ok(ports) => {
            let written = ports.spec.to_string();
            assert_eq!(spec::parse(&written).expect("what is written out can be read"), ports.spec);
            assert!(ports.addresses.len() <= 2 && ports.addresses.is_sorted_by_key(|address| address.is_ipv6()));
        }
        Err(error) => {
            assert!(matches!(error.kind(), Kind::Argument | Kind::Spec), "{error:?}");
            assert!(!error.message().contains(char::is_control), "{error:?}");
        }
    }
});
