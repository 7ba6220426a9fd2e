//! The places of kport's lines in a pf.conf(5).

use std::path::Path;

use kport::cli::setup::marks;
use kport::cli::setup::plan::{Ground, Plan, undone};
use kport::host::Fixed;
use kport::readiness::CALLS;

const NAT: &str = CALLS[0].1;
const RDR: &str = CALLS[1].1;
const FILTER: &str = CALLS[2].1;

fn plan(text: &[u8]) -> Plan {
    let host: Fixed = r#"{
        "gateway": { "inet": "em0" },
        "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
                        { "name": "bridge0", "groups": [ "bridge" ], "up": true, "addresses": [ "10.0.0.1/24" ] } ]
    }"#
    .parse()
    .unwrap();
    kport::cli::setup::plan::plan(&Ground { host: &host, name: Path::new("pf.conf") }, text)
}

/// The numbers of the lines that the two groups go after.
fn places(text: &str) -> Vec<usize> {
    plan(text.as_bytes()).insertions.iter().map(|insertion| insertion.after).collect()
}

#[test]
fn an_empty_file_gets_all_three() {
    for text in [&b""[..], b"# nothing\n", b"\n\n", b"# no newline", b"# caf\xe9 \xff\r\n"] {
        let plan = plan(text);
        assert_eq!(plan.insertions.len(), 1, "{text:?}");
        assert_eq!(plan.insertions[0].lines, [NAT, RDR, FILTER]);
        assert_eq!(undone(&plan.text), text);
    }
}

#[test]
fn again_changes_nothing() {
    let text = b"set skip on lo\nblock in all\npass out quick\n";
    let once = plan(text).text;
    let again = plan(&once);
    assert!(again.missing.is_empty() && again.insertions.is_empty());
    assert_eq!(again.text, once);
    assert_eq!(undone(&once), text);
    // a file whose last line has no newline
    let once = plan(b"block all").text;
    assert_eq!(once.iter().filter(|byte| **byte == b'\n').count(), 4);
    assert!(plan(&once).missing.is_empty());
    assert_eq!(undone(&once), b"block all");
    // lines that somebody else has written stay
    let theirs = b"rdr-anchor \"kport\"\nnat-anchor \"kport\" # mine\nanchor 'kport'\n";
    assert!(plan(theirs).missing.is_empty());
    assert_eq!(undone(theirs), theirs);
}

#[test]
fn calls_by_wildcard_are_turned() {
    let text =
        b"nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\" # mine\nblock in all\nanchor \"kport/*\" # kport setup\n";
    let turned = plan(text);
    assert!(turned.missing.is_empty() && turned.insertions.is_empty(), "{turned:?}");
    let made = turned.text.clone();
    let mark = "# kport setup (was \"kport/*\")";
    assert_eq!(
        String::from_utf8(made.clone()).unwrap(),
        format!("{NAT} {mark}\n{RDR} # mine {mark}\nblock in all\n{FILTER} # kport setup\n")
    );
    assert!(turned.to_string().contains("line 2 without the wildcard:\n    rdr-anchor \"kport\" # mine"), "{turned}");
    // what the administrator wrote is as it was; what an earlier setup has added goes
    assert_eq!(undone(&made), &text[..text.len() - 31]);
    assert_eq!(plan(&made).text, made);
    // with lines that are missing
    let text = b"rdr-anchor \"kport/*\"\nblock all";
    let made = plan(text).text;
    assert!(made.starts_with(format!("{RDR} {mark}\n{NAT} # kport setup\n").as_bytes()), "{made:?}");
    assert_eq!(undone(&made), text);
    for text in [&b"k = '\"kport/*\"'\nanchor $k\n"[..], b"anchor \"kport/*\" \\\n on em0\n"] {
        let by_hand = plan(text);
        assert!(!String::from_utf8_lossy(&by_hand.text).contains("(was"), "{by_hand:?}");
        assert!(by_hand.to_string().contains("write \"kport\" instead"), "{by_hand:?}");
    }
}

#[test]
fn sections() {
    assert_eq!(places("ext=\"em0\"\nset skip on lo\nscrub in\n\nblock all\npass out\n"), [3, 5]);
    assert_eq!(places("nat on em0 from any to any -> (em0)\nrdr-anchor \"x/*\"\nblock all\n"), [2, 3]);
    assert_eq!(places("pass in on em0\npass out\n"), [0]);
    assert_eq!(places("table <x> persist { \\\n10.0.0.0/8 }\nblock all\n"), [2, 3]);
    // a list over several lines, an anchor with its rules, a comment that goes on
    assert_eq!(
        places("x = \"{ 1 \\\n 2 }\"\nblock all\nanchor \"a\" {\n  pass in\n  block in quick\n}\npass out\n"),
        [2, 3]
    );
    assert_eq!(places("# one \\\nblock quick all\nblock all\n"), [2, 3]);
    // a line that is there
    let plan = plan(b"rdr-anchor \"kport\"\nblock all\n");
    assert_eq!(plan.insertions[0].lines, [NAT]);
    assert_eq!(plan.insertions[1].lines, [FILTER]);
}

#[test]
fn rules_that_are_final() {
    assert_eq!(places("block in all\npass out quick\npass in proto tcp to port 22\n"), [0, 1]);
    assert_eq!(places("block in quick from <bad>\npass in quick on lo0\nblock all\nblock quick all\n"), [0, 3]);
    assert_eq!(places("pass in proto tcp to port 22\nblock in quick on em0\nblock all\n"), [0]);
    assert_eq!(places("block all\nanchor \"a\"\nanchor \"b\" quick\nblock all\n"), [0, 2]);
    assert_eq!(places("block all\npass quick all\nanchor \"a\"\n"), [0, 1]);
    assert_eq!(places("block in quick from any to any\n"), [0]);
    let late = plan(b"nat-anchor \"kport\"\nrdr-anchor \"kport\"\nblock quick all\nanchor \"kport\"\n");
    let failures: Vec<String> = late.checked.unwrap().proof.failures().collect();
    assert!(failures.len() == 1 && failures[0].contains("line 3, block quick all"), "{failures:?}");
}

#[test]
fn what_it_cannot_tell() {
    for (text, why) in [
        ("include \"/nonexistent/a\"\nblock all\n", "line 1: read /nonexistent/a"),
        ("block all\nnat on em0 -> (em0)\n", "after the filter rules"),
        ("blokc all\n", "\"blokc\""),
        ("x = \"a\nblock all\n", "a quote is not closed"),
        ("block in from { 10.0.0.1\n", "a { is not closed"),
        ("block all \\\n", "line 1: the backslash"),
        ("x = 1\n# \\", "line 2: the backslash"),
        ("block in from 10.0.0.1 }\n", "no { for this }"),
    ] {
        let plan = plan(text.as_bytes());
        assert!(plan.insertions.is_empty() && plan.by_hand[0].contains(why), "{text}: {plan:?}");
        let shown = plan.to_string();
        assert!([NAT, RDR, FILTER, "by hand"].iter().all(|line| shown.contains(line)), "{shown}");
        assert_eq!(plan.text, text.as_bytes());
    }
}

#[test]
fn interfaces_that_pf_skips() {
    let plan = plan(b"set skip on { lo0 bridge }\n");
    assert!(plan.notes[0].contains("--host-access") && plan.notes[1].contains("pf skips bridge"), "{:?}", plan.notes);
}

/// Any bytes in comments and in quotes, and any line ends, are kept, and undo restores the same file.
#[test]
fn no_byte_is_lost() {
    let text =
        b"# caf\xe9 \xe2\x82\r\next = \"em\xe90\" # \xff \\\n goes on\n\t block in all label \"\xe9 \\\" \" # \r\n\
        anchor \"a\" { # \xe9\n pass in\n} # \xe9\npass out";
    let plan = plan(text);
    assert_eq!(plan.insertions.iter().map(|insertion| insertion.after).collect::<Vec<_>>(), [3, 7], "{plan:?}");
    let once = plan.text;
    assert_eq!(
        once.len(),
        text.len() + CALLS.iter().map(|(_, line)| line.len() + 2 + marks::MARK.len()).sum::<usize>()
    );
    assert_eq!(undone(&once), text);
    let lines: Vec<&[u8]> = once.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(
        [lines[3], lines[4], lines[9]].concat(),
        format!("{NAT} {0}\n{RDR} {0}\n{FILTER} {0}\n", marks::MARK).as_bytes()
    );
}

proptest::proptest! {
    #[test]
    fn undo_gives_back_any_bytes(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            &b"block all\n"[..], b"pass quick", b"\n", b"\r\n", b"# \xe9", b"\"", b" \\\n", b"anchor {\n", b"}\n", b"nat on em0 -> em0\n",
            b"x = 1\n", b"\xff", b"set skip on lo\n", b"anchor \"kport\"\n", b"anchor \"kport/*\" # x\r\n", b"\t", b"$x", b"block all",
        ]), 0..12),
    ) {
        let text = parts.concat();
        let made = plan(&text);
        let once = made.text.clone();
        proptest::prop_assert_eq!(undone(&once), &text[..], "{:?}", once);
        if !made.insertions.is_empty() {
            proptest::prop_assert!(plan(&once).missing.is_empty(), "{:?}", once);
        }
    }
}
