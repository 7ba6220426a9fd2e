//! The rule text of publications, as files: tests/rules/NNNN-name.in is what is published, .ok the pf.conf(5) text or the
//! refusal. KPORT_BLESS=1 writes the .ok files again.

use crate::support::input;

use std::fs;
use std::path::Path;

use kport::rule::{Rule, text};

#[test]
fn goldens() {
    let bless = std::env::var_os("KPORT_BLESS").is_some();
    let mut wrong = vec![];
    for (path, input) in input::all() {
        let got = match input::made(&input) {
            Ok(rules) => {
                check(&rules, &path);
                text(&rules)
            }
            Err(error) => format!("error: {}: {error}\n", error.kind().text()),
        };
        let ok = path.with_extension("ok");
        if bless {
            fs::write(&ok, &got).unwrap();
        }
        let expected = fs::read_to_string(&ok).unwrap_or_default();
        if got != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- got\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nKPORT_BLESS=1 renews the .ok files", wrong.join("\n"));
}

/// What holds for the rules of every publication.
fn check(rules: &[Rule], path: &Path) {
    let order = |rule: &Rule| match rule {
        Rule::Nat { .. } => 0,
        Rule::Rdr { .. } => 1,
        Rule::AfTo { .. } | Rule::Pass { .. } => 2,
    };
    assert!(rules.is_sorted_by_key(order), "{}: nat, rdr, pass", path.display());
    let mut seen = std::collections::HashSet::new();
    for line in rules.iter().flat_map(Rule::expand).map(|rule| rule.to_string()) {
        assert!(!line.contains("{"), "{line}");
        assert!(seen.insert(line.clone()), "{}: twice: {line}", path.display());
    }
    // the reader of pf.conf(5) accepts the text
    if let Err(error) = text(rules).parse::<kport::pfconf::Conf>() {
        panic!("{}: {error}", path.display());
    }
    let json = serde_json::to_string(rules).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Rule>>(&json).unwrap(), rules, "{json}");
}
