//! The lines of pf.conf(5) that call kport's anchors by wildcard.

use std::path::Path;

use kport::readiness::{end_of_path, wildcards};

#[test]
fn the_path_is_found_in_a_call() {
    for (line, at) in [
        ("anchor \"kport/*\" on em0\n", Some(13)),
        ("\tanchor '/kport/*'\n", Some(15)),
        ("rdr-anchor kport/* # x\n", Some(16)),
        ("anchor \\\n \"kport\"\n", Some(16)),
        ("anchor $kport\n", None),
        ("anchor", None),
        ("", None),
    ] {
        assert_eq!(end_of_path(line.as_bytes()), at, "{line}");
    }
}

#[test]
fn calls_by_wildcard_are_found() {
    let several = b"anchor \"kport/*\" \\\n on em0\n";
    assert_eq!(wildcards(Path::new("pf.conf"), several)[0].in_text(several), None);
    let text = b"k = '\"kport/*\"'\nnat-anchor \"kport/*\"\nrdr-anchor \"kport\"\nanchor \"other/*\"\nanchor $k\nanchor \"a\" {\n anchor \"/kport/*\"\n}\n";
    let found = wildcards(Path::new("pf.conf"), text);
    let lines: Vec<_> = found.iter().map(|of| (of.line, of.in_text(text).map(|at| text[at].to_vec()))).collect();
    assert_eq!(lines, [(2, Some(b"/*".to_vec())), (5, None), (7, Some(b"/*".to_vec()))]);
}
