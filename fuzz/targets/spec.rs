//! Any bytes as specs: parsed, printed with every field, parsed again, and made into rules.

#![no_main]

use kport::error::Kind;
use kport::options::Options;
use kport::publication::{self, Publication, Targets};
use kport::rule;
use kport::rules;
use kport::spec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parsed = match spec::parse(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Spec);
            assert!(error.offset().is_some_and(|offset| offset <= text.len()), "{error:?}");
            assert!(!error.message().contains(char::is_control), "{error:?}");
            return;
        }
    };
    let canonical = parsed.to_string();
    let again = spec::parse(&canonical).expect("what is written out can be read");
    assert_eq!(again, parsed);
    assert_eq!(again.to_string(), canonical);

    let jail = "web".parse().unwrap();
    let targets = Targets {
        inet: Some([10, 0, 0, 2].into()),
        inet6: Some([0xfd00, 0, 0, 0, 0, 0, 0, 2].into()),
        ..Targets::default()
    };
    let gateway = "em0".parse().unwrap();
    // "auto" has no port yet
    let Ok(redirects) = publication::redirects(&jail, &parsed, &targets, |_| Ok(gateway)) else { return };
    let Ok(publication) = Publication::new(jail, redirects, Options::default(), |_| Ok(None)) else { return };
    for line in rule::text(&rules::rules(&publication)).lines() {
        assert!(["rdr ", "pass quick ", "nat "].iter().any(|start| line.starts_with(start)), "{line}");
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
    }
});
