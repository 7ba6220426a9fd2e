//! What docs/what-stays.md says: names and numbers that programs, scripts and pf.conf(5) rely on. What is in these lists stays for all
//! versions 0.1; an addition is added here.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::support::{cc, rig};
use kport::error::Kind;
use kport::name::JailName;
use kport::publisher::Liveness;

/// Written again with KPORT_BLESS; a release takes no line out of it.
#[test]
fn commands_and_options() {
    let everywhere = super::man::options(&["--help"]);
    let mut now: Vec<String> = everywhere.iter().map(|option| format!("--{option}\n")).collect();
    for command in super::man::commands() {
        now.push(format!("{command}\n"));
        let options = super::man::options(&if command == "help" { vec!["--help"] } else { vec![&*command, "--help"] });
        now.extend(options.difference(&everywhere).map(|option| format!("{command} --{option}\n")));
    }
    let path = cc::root().join("tests/stays/options");
    if std::env::var_os("KPORT_BLESS").is_some() {
        fs::write(&path, now.concat()).unwrap();
    }
    let then = fs::read_to_string(path).unwrap();
    assert_eq!(now.concat(), then, "commands or options have changed: KPORT_BLESS=1 cargo test --test suite stays");
}

#[test]
fn exit_statuses_which_are_those_of_c() {
    use Kind::*;
    let all = [Argument, Spec, Conflict, Permission, Unavailable, Busy, System, Unsupported, Internal];
    assert_eq!(all, Kind::ALL);
    assert_eq!(all.map(Kind::number), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let usage = Command::new(env!("CARGO_BIN_EXE_kport")).arg("fly").output().unwrap();
    assert_eq!(usage.status.code(), Some(64));
}

#[test]
fn words_of_list_and_numbers_of_c() {
    let all = [Liveness::Live, Liveness::Missing, Liveness::Stale, Liveness::Inert];
    assert_eq!(all.map(Liveness::name), ["live", "missing", "stale", "inert"]);
}

/// The name of a jail decides its anchor, its labels and its tag: earlier rules in pf are found by them.
#[test]
fn anchors_labels_and_tags() {
    let long = "n".repeat(80);
    for (name, anchor) in [
        ("web", "kport/web"),
        ("a.b-c_d", "kport/a.b-c_d"),
        ("a name/with $signs", "kport/a-name-with--signs+c4a57cf364150c6d753da7a163e333bd"),
        // a name that kport uses itself
        ("+calls", "kport/-calls+ad7145075cf3260b8d643b39d7260f60"),
        (&long, "kport/nnnnnnnnnnnnnnnnnnnnnnnn+feed930b893b18fbbaa20d00a3e21b7e"),
    ] {
        let jail: JailName = name.parse().unwrap();
        assert_eq!(jail.anchor().path(), anchor);
    }
    let rig = rig::Rig::new();
    rig.publish(&rig::request("web", "8080:80")).unwrap();
    let (child, rules) = &rig.loaded()[0];
    assert_eq!(child, "web");
    assert!(rules.contains("tag \"kport:web\" ->") && rules.contains("tagged \"kport:web\" "), "{rules}");
    assert!(rules.contains("label \"kport:web\" label \"kport:web:tcp:8080\""), "{rules}");
}

#[test]
fn pf_conf() {
    // what tests/setup compares with what setup writes
    let main = kport::pf::files::MAIN;
    for line in ["nat-anchor \"kport\"", "rdr-anchor \"kport\"", "anchor \"kport\""] {
        assert!(main.lines().any(|one| one == line), "{main}");
    }
}

/// Each family, and the names of its labels.
#[test]
fn metrics() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("watch.json"), r#"{"published":2}"#).unwrap();
    let run = |arguments: &[&str]| {
        let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
        kport.env_clear().env("KPORT_STATE_DIR", dir.path()).args(["-q", "--backend", "sim"]);
        cc::text(&cc::done(kport.args(arguments)).stdout)
    };
    run(&["publish", "web", "-a", "10.0.0.2", "--gateway", "em0", "8080:80"]);
    run(&["publish", "--no-jail", "guest", "-a", "10.0.0.3", "--gateway", "em0", "8081:80"]);
    let text = run(&["metrics"]);
    let mut series: BTreeSet<String> = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').unwrap();
        let labels = labels.split('}').next().unwrap().split(',');
        let labels: Vec<&str> = labels.map(|label| label.split('=').next().unwrap()).collect();
        series.insert(format!("{name} {}", labels.join(" ")));
    }
    let series: Vec<&str> = series.iter().map(String::as_str).collect();
    assert_eq!(
        series,
        [
            "kport_jail_live jail anchor no_jail state",
            "kport_jail_live jail anchor state",
            "kport_mapping_bytes_total jail anchor no_jail protocol port",
            "kport_mapping_bytes_total jail anchor protocol port",
            "kport_mapping_packets_total jail anchor no_jail protocol port",
            "kport_mapping_packets_total jail anchor protocol port",
            "kport_mapping_states_total jail anchor no_jail protocol port",
            "kport_mapping_states_total jail anchor protocol port",
            "kport_redirect_live jail anchor no_jail protocol port on to",
            "kport_redirect_live jail anchor protocol port on to",
            "kport_watch_reports_total what",
        ]
    );
}

/// Those of kport(8); others change nothing.
#[test]
fn environment() {
    let sources = rig::files(&cc::root().join("src"));
    let mut read = BTreeSet::new();
    for file in sources {
        let text = fs::read_to_string(cc::root().join("src").join(file)).unwrap();
        let words = text.split('"').filter(|word| word.starts_with("KPORT_") && word.len() > 6);
        read.extend(words.filter(|word| word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')).map(str::to_owned));
    }
    assert_eq!(read.iter().map(String::as_str).collect::<Vec<_>>(), ["KPORT_BACKEND", "KPORT_STATE_DIR"]);
}
