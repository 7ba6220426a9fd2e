//! The output of the helper: results go to standard output, everything else to standard error. Control characters are escaped:
//! names of jails and of files may come from others.

use std::collections::HashSet;
use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use crate::doctor::self_test::Step;
use crate::doctor::{Finding, Level};
use crate::error::{Error, Result, printable};
use crate::net::Place;
use crate::pf::Counters;
use crate::publication::Redirect;
use crate::publisher::{Listed, Liveness, Observer, Outcome, Phase};
use crate::session::Session;
use crate::spec::{HostPorts, Mapping};
use clap::error::ContextValue;
use serde_json::{Value, json};

/// A line on standard error, written by one call.
pub fn complain(what: &dyn Display) {
    _ = io::stderr().write_all(format!("kport: {}\n", shown(&what.to_string())).as_bytes());
}

/// Prints the notes of a change, and a notice if no packet is redirected.
pub fn outcome(session: &Session, outcome: &Outcome, quiet: bool) {
    if outcome.changed {
        session.notice().iter().for_each(|notice| complain(notice));
    }
    outcome.notes.iter().filter(|_| !quiet).for_each(|note| complain(note));
}

/// Prints clap's help and version on standard output, and its errors on standard error. Returns the text.
pub fn usage(mut error: clap::Error) -> String {
    // it has words of the command line: a newline in one of them must not look like one of clap's
    let kinds: Vec<_> = error.context().map(|(kind, _)| kind).collect();
    for kind in kinds {
        let words = match error.get(kind) {
            Some(ContextValue::String(text)) => ContextValue::String(printable(text).into_owned()),
            Some(ContextValue::Strings(texts)) => {
                ContextValue::Strings(texts.iter().map(|text| printable(text).into_owned()).collect())
            }
            _ => continue,
        };
        error.insert(kind, words);
    }
    let text = shown(&error.render().to_string());
    // there is no other place to report a failure
    _ = match error.use_stderr() {
        true => io::stderr().write_all(text.as_bytes()),
        false => io::stdout().write_all(text.as_bytes()),
    };
    text
}

/// A JSON document. Characters that do not print have JSON's escapes, so a reader gets the same value.
pub fn document(value: &Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}").chars() {
        if matches!(c, ' '..='~' | '\n') || printable(c.encode_utf8(&mut [0; 4])) == c.to_string() {
            text.push(c);
        } else {
            // outside of its strings, a document has no such character
            for unit in c.encode_utf16(&mut [0; 2]) {
                _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text.push('\n');
    text
}

/// Lines of text, each of characters that print.
fn shown(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Quotes a word for the shell.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Lines of text on standard output.
pub fn print(text: &str) -> Result<()> {
    raw(shown(text).as_bytes()).map(|_| ())
}

/// Prints a table: on a terminal it replaces the last one, else it follows it. Returns false if the reader is gone.
pub fn redraw(text: &str) -> Result<bool> {
    // home, and clear
    let before = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    raw(format!("{before}{}", shown(text)).as_bytes())
}

/// Writes standard output unchanged: only for kport's own text. Returns false if the reader is gone.
pub fn raw(bytes: &[u8]) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // the reader has closed the pipe
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::io("write to standard output", &e)),
        Ok(()) => Ok(true),
    }
}

/// `-v`: the phases of a transaction on standard error, each with the time since the start.
pub struct Shown {
    verbose: u8,
    start: Instant,
}

impl Shown {
    pub fn new(verbose: u8) -> Shown {
        Shown { verbose, start: Instant::now() }
    }

    /// Prints a line if `-v` is given this often.
    pub fn line(&self, level: u8, text: &str) {
        if self.verbose >= level {
            complain(&format_args!("{:8.3} ms  {text}", self.start.elapsed().as_secs_f64() * 1e3));
        }
    }
}

impl Observer for Shown {
    fn phase(&self, phase: Phase) -> Result<()> {
        self.line(1, phase.name());
        Ok(())
    }

    fn waiting(&self, why: &str) {
        self.line(1, &format!("waiting: {why}"));
    }

    fn detail(&self, text: &str) {
        self.line(2, text);
    }
}

/// The version of every JSON document that the helper prints. It is raised if the meaning of a field changes, not if one is added.
pub const VERSION: u32 = 1;

pub fn lines(items: impl IntoIterator<Item: Display>) -> String {
    items.into_iter().map(|item| format!("{item}\n")).collect()
}

pub fn mappings_json(mappings: &[Mapping]) -> Value {
    let mapping = |m: &Mapping| {
        json!({
            "place": m.place.map(|p| p.to_string()),
            "host_port": match m.host {
                HostPorts::Fixed(range) => json!(range.first()),
                HostPorts::Auto => json!("auto"),
            },
            "jail_port": m.jail.first(),
            "count": m.jail.count(),
            "protocol": m.protocol.name(),
        })
    };
    json!({ "version": VERSION, "mappings": mappings.iter().map(mapping).collect::<Vec<_>>() })
}

fn redirect_json(redirect: &Redirect) -> Value {
    json!({
        "place": redirect.place.to_string(),
        "family": redirect.family().to_string(),
        "protocol": redirect.protocol.name(),
        "host_port": redirect.host.first(),
        "address": redirect.target.to_string(),
        "jail_port": redirect.jail.first(),
        "count": redirect.host.count(),
        "af_to": redirect.af_to,
    })
}

pub fn list_json(list: &[Listed]) -> Value {
    let port = |(redirect, counters): &(Redirect, Counters)| {
        let mut port = redirect_json(redirect);
        port["packets"] = json!(counters.packets);
        port["bytes"] = json!(counters.bytes);
        port["states"] = json!(counters.states);
        port
    };
    let jail = |l: &Listed| {
        json!({
            "jail": l.jail.as_ref().map(|j| j.as_str()),
            "no_jail": l.no_jail,
            "anchor": l.anchor.path(),
            "jid": l.jid,
            "since": l.since,
            "state": l.liveness.name(),
            "problem": l.problem,
            "ports": l.redirects.iter().map(port).collect::<Vec<_>>(),
        })
    };
    json!({ "version": VERSION, "jails": list.iter().map(jail).collect::<Vec<_>>() })
}

/// A list as an aligned table; empty for an empty list.
pub fn list(list: &[Listed]) -> String {
    let mut rows: Vec<[String; 6]> = vec![];
    for l in list {
        let jail = if l.no_jail { format!("{} (no jail)", name(l)) } else { name(l) };
        let state = l.liveness.name().to_owned();
        if l.redirects.is_empty() {
            rows.push([&jail, "-", "-", "-", "-", &state].map(str::to_owned));
        }
        for (r, _) in &l.redirects {
            rows.push([
                jail.clone(),
                r.protocol.to_string(),
                r.place.to_string(),
                r.host.to_string(),
                if r.af_to { format!("{} by af-to", target(r)) } else { target(r) },
                state.clone(),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    rows.insert(0, ["JAIL", "PROTO", "ON", "PORT", "TO", "STATE"].map(str::to_owned));
    let mut text = table(&rows);
    let mut told = HashSet::new();
    for (l, problem) in list.iter().filter_map(|l| Some((l, l.problem.as_ref()?))) {
        if l.liveness != Liveness::Inert {
            _ = writeln!(text, "{}: {problem}", name(l));
        } else if told.insert(problem) {
            // the same for each jail
            _ = writeln!(text, "{problem}");
        }
    }
    text
}

/// The jail, or the anchor without one.
pub fn name(l: &Listed) -> String {
    l.jail.as_ref().map_or_else(|| format!("({})", l.anchor), |j| printable(j.as_str()).into_owned())
}

/// Rows with aligned cells.
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(widths) {
            text += cell;
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

pub fn target(r: &Redirect) -> String {
    format!("{}:{}", Place::Address(r.target), r.jail)
}

pub fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "version": VERSION,
        "changed": outcome.changed,
        "killed": outcome.killed,
        "ports": outcome.redirects.iter().map(redirect_json).collect::<Vec<_>>(),
        "notes": outcome.notes,
    })
}

pub fn findings_json(findings: &[Finding]) -> Value {
    let finding = |f: &Finding| {
        json!({
            "id": f.id,
            "level": f.level.name(),
            "seen": f.seen,
            "remedy": if f.remedy.is_empty() { Value::Null } else { json!(f.remedy) },
        })
    };
    json!({
        "version": VERSION,
        "healthy": findings.iter().all(|f| f.level < Level::Problem),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// The steps of a self-test, numbered.
pub fn steps(steps: &[Step]) -> String {
    let line = |(number, step): (usize, &Step)| match &step.result {
        Ok(()) => format!("{number:2}  passed  {}", step.what),
        Err(error) => format!("{number:2}  FAILED  {}: {error}", step.what),
    };
    lines((1..).zip(steps).map(line))
}
