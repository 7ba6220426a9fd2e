//! What jail managers call: the lines of the documentation, at the place where the installer puts the program.

use crate::support::cc;

use std::fs;
use std::path::{Path, PathBuf};

/// Every text that shows a way to call kport, by its path below the repository.
fn texts() -> Vec<(String, String)> {
    fn walk(path: PathBuf, found: &mut Vec<(String, String)>) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| walk(entry.unwrap().path(), found));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.strip_prefix(cc::root()).unwrap().display().to_string(), text));
        }
    }
    let mut found = vec![];
    for top in ["README.md", "docs", "examples", "man", "packaging", "c-examples"] {
        walk(cc::root().join(top), &mut found);
    }
    assert!(found.len() > 8, "{found:#?}");
    found.sort();
    found
}

/// Where scripts/install.sh puts the helper.
fn installed() -> String {
    let script = fs::read_to_string(cc::root().join("scripts/install.sh")).unwrap();
    let value = |from: &str, to: &str| {
        let (_, rest) = script.split_once(from).unwrap_or_else(|| panic!("{from}: not in install.sh"));
        rest.split_once(to).unwrap().0.to_owned()
    };
    assert!(script.contains("\nput 755 \"$from/kport\" \"$bindir\"\n"));
    let prefix = value("\nprefix=", " ");
    value("\"${bindir:=", "}").replace("$prefix", &prefix) + "/kport"
}

/// A line that a manager or rc(8) runs, whose PATH may lack /usr/local (libexec/rc/rc sets one without).
fn is_hook(line: &str) -> bool {
    ["exec.", "exec_", "_postcmd=", "_precmd="].iter().any(|key| line.contains(key))
}

/// The places of the program that a line names, and whether it names it without one.
fn calls(line: &str) -> (Vec<&str>, bool) {
    let words = line.split(|c: char| c.is_whitespace() || "\"'`=;()<>|&".contains(c));
    let mut absolute = vec![];
    let mut bare = false;
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let command = matches!(words.peek(), Some(&("publish" | "unpublish" | "restore" | "gc" | "doctor")));
        if word.starts_with('/') && word.ends_with("bin/kport") {
            absolute.push(word);
        } else if word == "kport" && command {
            bare = true;
        }
    }
    (absolute, bare)
}

#[test]
fn every_text_calls_kport_where_the_installer_puts_it() {
    let installed = installed();
    assert_eq!(installed, "/usr/local/bin/kport");
    let mut seen = 0;
    for (path, text) in texts() {
        // a script that a manager runs, in a page or a file of its own
        let mut script = false;
        for (number, line) in (1..).zip(text.lines()) {
            script = if line.starts_with("#!") { true } else { script && !line.starts_with("```") };
            let (absolute, bare) = calls(line);
            assert!(absolute.iter().all(|place| *place == installed), "{path}:{number}: {line}");
            assert!(!(bare && (is_hook(line) || script)), "{path}:{number}: name {installed}: {line}");
            seen += absolute.len();
        }
    }
    assert!(seen > 8, "only {seen} calls were found");
}

#[test]
fn the_check_sees_a_wrong_place_and_none() {
    assert_eq!(
        calls("exec.poststart = \"/usr/local/sbin/kport publish web 80\";"),
        (vec!["/usr/local/sbin/kport"], false)
    );
    assert_eq!(calls("exec.poststop = 'kport unpublish web || true';"), (vec![], true));
    assert_eq!(calls("the lock of kport and /var/run/kport"), (vec![], false));
    assert!(is_hook("iocage set exec_poststart='x' web") && !is_hook("$ kport publish web 80"));
    assert!(Path::new(&installed()).is_absolute());
}
