//! Metrics, the table of list --watch, completions, the topics of help.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::cc;

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
