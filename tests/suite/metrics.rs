//! Metrics, the table of list --watch, completions, the topics of help.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::cc;
use kport::cli::traffic::{mappings, open_metrics, rates};
use kport::name::JailName;
use kport::net::{PortRange, Protocol};
use kport::pf::Counters;
use kport::publication::Redirect;
use kport::publisher::{Listed, Liveness};

fn kport(state: &Path, arguments: &[&str]) -> Command {
    let mut kport = Command::new(env!("CARGO_BIN_EXE_kport"));
    kport.args(arguments).env_clear().env("KPORT_STATE_DIR", state);
    kport
}

fn says(state: &Path, arguments: &[&str]) -> String {
    cc::text(&cc::done(&mut kport(state, arguments)).stdout)
}

fn publish(state: &Path, jail: &str, specs: &[&str]) {
    let arguments = [&["-q", "publish", jail, "-a", "10.0.0.2", "--gateway", "em0"], specs].concat();
    cc::done(&mut kport(state, &arguments));
}

#[test]
fn metrics_report_what_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let empty = says(dir.path(), &["metrics"]);
    assert!(empty.lines().all(|line| line.starts_with("# ")) && empty.ends_with("\n# EOF\n"), "{empty}");
    publish(dir.path(), "web", &["8080:80", "8080:80/udp"]);
    publish(dir.path(), "a\"b\\\u{202e}", &["8000-8001:80"]);
    let text = says(dir.path(), &["metrics"]);
    let web = "jail=\"web\",anchor=\"kport/web\"";
    for line in [
        format!("kport_jail_live{{{web},state=\"live\"}} 1\n"),
        format!("kport_redirect_live{{{web},protocol=\"udp\",port=\"8080\",on=\"em0\",to=\"10.0.0.2:80\"}} 1\n"),
        format!("kport_mapping_bytes_total{{{web},protocol=\"tcp\",port=\"8080\"}} 0\n"),
        format!("kport_mapping_packets_total{{{web},protocol=\"udp\",port=\"8080\"}} 0\n"),
    ] {
        assert_eq!(text.matches(&line).count(), 1, "{line}{text}");
    }
    // as in the format: a backslash before a quote and a backslash only
    assert!(text.contains("{jail=\"a\\\"b\\\\\\\\u{202e}\",anchor=\"kport/"), "{text}");
    assert!(text.is_ascii() && text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    // each series once, after the type of its family
    let mut seen = std::collections::HashSet::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(series.starts_with(family) && value.parse::<u64>().is_ok() && seen.insert(series), "{line}");
        }
    }
    assert_eq!(seen.len(), 2 + 3 + 3 * 3);
}

#[test]
fn the_table_that_stays_follows_itself_and_ends_with_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    publish(dir.path(), "web", &["8080:80"]);
    let mut watch = kport(dir.path(), &["list", "--watch", "--interval", "0.01", "web"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(watch.stdout.take().unwrap()).lines().take(4).map(|line| line.unwrap()).collect();
    let head = "JAIL  PROTO  ON   PORT  PACKETS/S  BYTES/S  STATES/S  STATE";
    let row = "web   tcp    em0  8080  0.0        0.0      0.0       live";
    // not a terminal, so nothing is cleared
    assert_eq!(lines, [head, row, head, row]);
    // the reader has closed the pipe
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn an_interval_is_for_watching() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["list", "--watch", "--interval", "0"][..],
        &["list", "--watch", "--interval", "-1"],
        &["list", "--interval", "1"],
        &["list", "--watch", "--json"],
    ] {
        let output = kport(dir.path(), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn each_shell_has_completions() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = says(dir.path(), &["completions", shell]);
        for word in ["unpublish", "metrics", "completions", "host-access", "max-connections-per-source"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let file = dir.path().join(shell);
        std::fs::write(&file, &script).unwrap();
        if ["bash", "fish", "zsh"].contains(&shell) && cc::has(shell) {
            cc::done(Command::new(shell).arg("-n").arg(&file));
        }
    }
    assert_eq!(kport(dir.path(), &["completions", "tcsh"]).output().unwrap().status.code(), Some(64));
    // bash completes a command with them
    if cc::has("bash") {
        let script = ". \"$1\"; COMP_WORDS=(kport unp); COMP_CWORD=1; _kport kport unp kport; echo \"${COMPREPLY[@]}\"";
        let mut bash = Command::new("bash");
        let output = cc::done(bash.args(["-c", script, "bash"]).arg(dir.path().join("bash")));
        assert_eq!(cc::text(&output.stdout), "unpublish\n");
    }
}

#[test]
fn help_on_specs_is_the_grammar_and_its_examples_hold() {
    let dir = tempfile::tempdir().unwrap();
    let text = says(dir.path(), &["help", "spec"]);
    let (examples, grammar) = text.split_once("The grammar:\n").unwrap();
    let specs: Vec<&str> = examples
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(specs.len() > 10, "{specs:?}");
    for spec in specs {
        assert!(kport::spec::parse(spec).is_ok(), "{spec}");
    }
    let source = std::fs::read_to_string(cc::root().join("src/spec.rs")).unwrap();
    let lines: Vec<&str> = grammar.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(lines.len(), 8, "{grammar}");
    let documented: Vec<&str> = source
        .lines()
        .skip_while(|line| *line != "//! ```text")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.trim_start_matches("//! "))
        .collect();
    let words = |line: &&str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines.iter().map(words).collect::<Vec<_>>(), documented.iter().map(words).collect::<Vec<_>>());
}

#[test]
fn help_on_pf_has_the_lines_of_the_example() {
    let dir = tempfile::tempdir().unwrap();
    let text = says(dir.path(), &["help", "pf"]);
    let example = std::fs::read_to_string(cc::root().join("examples/pf.conf")).unwrap();
    let lines: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("  ")).filter(|l| l.contains('"')).collect();
    assert_eq!(lines, ["nat-anchor \"kport\"", "rdr-anchor \"kport\"", "anchor \"kport\""]);
    for line in lines {
        assert!(example.lines().any(|l| l == line), "{line}");
    }
}

#[test]
fn help_on_a_command_is_that_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["publish", "unpublish", "list", "metrics", "help"] {
        assert_eq!(says(dir.path(), &["help", command]), says(dir.path(), &[command, "--help"]));
    }
    let top = says(dir.path(), &["help"]);
    assert_eq!(top, says(dir.path(), &["--help"]));
    assert!(top.contains("kport help spec") && top.contains("kport help pf"), "{top}");
    let output = kport(dir.path(), &["help", "publsh"]).output().unwrap();
    let said = cc::text(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains("publsh"), "{said}");
}

fn listed(jail: &str, ports: &[(&str, u16, &str, [u64; 3])]) -> Listed {
    let name: JailName = jail.parse().unwrap();
    let port = |n| PortRange::new(n, n).unwrap();
    let redirect = |&(place, host, target, [packets, bytes, states]): &(&str, u16, &str, [u64; 3])| {
        let place = place.parse().unwrap();
        let target = target.parse().unwrap();
        let redirect =
            Redirect { place, protocol: Protocol::Tcp, host: port(host), target, jail: port(80), af_to: false };
        (redirect, Counters { packets, bytes, states })
    };
    Listed {
        anchor: name.anchor(),
        jail: Some(name),
        no_jail: false,
        jid: None,
        since: None,
        liveness: Liveness::Live,
        redirects: ports.iter().map(redirect).collect(),
        problem: None,
    }
}

fn table(before: &[Listed], after: &[Listed], elapsed: Duration) -> String {
    rates(before, after, elapsed).iter().skip(1).map(|row| row.join(" ") + "\n").collect()
}

#[test]
fn a_rate_is_the_difference_by_the_time() {
    let before = [listed("web", &[("em0", 8080, "10.0.0.2", [100, 5000, 4])])];
    let after = [listed("web", &[("em0", 8080, "10.0.0.2", [130, 9000, 5])])];
    assert_eq!(table(&before, &after, Duration::from_secs(2)), "web tcp em0 8080 15.0 2000.0 0.5 live\n");
    assert_eq!(table(&after, &after, Duration::from_secs(2)), "web tcp em0 8080 0.0 0.0 0.0 live\n");
    assert_eq!(table(&before, &after, Duration::ZERO), "web tcp em0 8080 - - - live\n");
    assert_eq!(table(&before, &[], Duration::from_secs(1)), "");
}

#[test]
fn what_is_new_or_was_loaded_again_counts_from_nothing() {
    let before = [listed("web", &[("em0", 80, "10.0.0.2", [100, 5000, 4])])];
    // the states of the new rules are more than the old ones had
    let after = [listed("web", &[("em0", 80, "10.0.0.2", [10, 600, 5]), ("em0", 81, "10.0.0.2", [7, 70, 1])])];
    assert_eq!(
        table(&before, &after, Duration::from_secs(1)),
        "web tcp em0 80 10.0 600.0 5.0 live\nweb tcp em0 81 7.0 70.0 1.0 live\n"
    );
    // the same port of another jail is another mapping
    let other = [listed("db", &[("em0", 80, "10.0.0.3", [130, 5001, 4])])];
    assert_eq!(table(&before, &other, Duration::from_secs(1)), "db tcp em0 80 130.0 5001.0 4.0 live\n");
}

#[test]
fn redirects_of_one_mapping_are_counted_once() {
    let count = [10, 100, 1];
    let after = [listed(
        "web",
        &[("em0", 80, "10.0.0.2", count), ("em0", 80, "2001:db8::2", count), ("em1", 80, "10.0.0.2", count)],
    )];
    assert_eq!(table(&[], &after, Duration::from_secs(1)), "web tcp em0,em1 80 10.0 100.0 1.0 live\n");
    assert_eq!(mappings(&after[0])[0].redirects.len(), 3);
}

#[test]
fn an_anchor_without_a_record_has_a_row() {
    let stale = Listed { jail: None, liveness: Liveness::Stale, ..listed("web", &[]) };
    assert_eq!(table(&[], &[stale], Duration::from_secs(1)), "(kport/web) - - - - - - stale\n");
}

/// With two redirects of one mapping.
fn metered(jail: &str, liveness: Liveness) -> Listed {
    let listed = listed(jail, &[("em0", 8080, "10.0.0.2", [12, 3400, 2]), ("em0", 8080, "2001:db8::2", [12, 3400, 2])]);
    Listed { liveness, ..listed }
}

#[test]
fn a_mapping_is_counted_once_and_each_redirect_is_metered() {
    let expected = "\
# TYPE kport_jail_live gauge
# HELP kport_jail_live 1 if pf has what is recorded for a jail and evaluates it, 0 if not.
kport_jail_live{jail=\"web\",anchor=\"kport/web\",state=\"live\"} 1
# TYPE kport_redirect_live gauge
# HELP kport_redirect_live 1 if pf has a redirect of a mapping and evaluates it, 0 if not.
kport_redirect_live{jail=\"web\",anchor=\"kport/web\",protocol=\"tcp\",port=\"8080\",on=\"em0\",to=\"10.0.0.2:80\"} 1
kport_redirect_live{jail=\"web\",anchor=\"kport/web\",protocol=\"tcp\",port=\"8080\",on=\"em0\",to=\"[2001:db8::2]:80\"} 1
# TYPE kport_mapping_packets counter
# HELP kport_mapping_packets Packets through a mapping, both directions.
kport_mapping_packets_total{jail=\"web\",anchor=\"kport/web\",protocol=\"tcp\",port=\"8080\"} 12
# TYPE kport_mapping_bytes counter
# UNIT kport_mapping_bytes bytes
# HELP kport_mapping_bytes Bytes through a mapping, both directions.
kport_mapping_bytes_total{jail=\"web\",anchor=\"kport/web\",protocol=\"tcp\",port=\"8080\"} 3400
# TYPE kport_mapping_states counter
# HELP kport_mapping_states Connections through a mapping.
kport_mapping_states_total{jail=\"web\",anchor=\"kport/web\",protocol=\"tcp\",port=\"8080\"} 2
# EOF
";
    assert_eq!(open_metrics(&[metered("web", Liveness::Live)], &BTreeMap::new()), expected);
}

#[test]
fn what_pf_has_not_is_0_and_has_no_counters() {
    let text = |list: &[Listed]| open_metrics(list, &BTreeMap::new());
    let stale = Listed { jail: None, redirects: vec![], ..metered("old", Liveness::Stale) };
    let said = text(&[metered("web", Liveness::Missing), stale]);
    assert!(said.contains("kport_jail_live{jail=\"web\",anchor=\"kport/web\",state=\"missing\"} 0\n"), "{said}");
    assert!(said.contains("kport_jail_live{jail=\"\",anchor=\"kport/old\",state=\"stale\"} 0\n"), "{said}");
    let guest = text(&[Listed { no_jail: true, ..metered("guest", Liveness::Live) }]);
    let counted = "kport_mapping_bytes_total{jail=\"guest\",anchor=\"kport/guest\",no_jail=\"true\",protocol";
    assert!(guest.contains(counted), "{guest}");
    let inert = text(&[metered("web", Liveness::Inert)]);
    assert!(inert.contains("state=\"inert\"} 0\n") && inert.contains("port=\"8080\"} 3400\n"), "{inert}");
    assert!(said.contains("to=\"10.0.0.2:80\"} 0\n") && !said.contains("_total"), "{said}");
}

#[test]
fn what_the_watcher_did_is_counted_if_there_is_one() {
    assert!(!open_metrics(&[], &BTreeMap::new()).contains("watch"));
    let text = open_metrics(&[], &[("published".to_owned(), 3)].into());
    assert!(text.ends_with("\nkport_watch_reports_total{what=\"published\"} 3\n# EOF\n"), "{text}");
}
