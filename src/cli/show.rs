//! The formats of the helper's output: tables and JSON documents.

use std::collections::HashSet;
use std::fmt::{Display, Write as _};

use crate::doctor::self_test::Step;
use crate::doctor::{Finding, Level};
use crate::error::printable;
use crate::publication::Redirect;
use crate::publisher::{Listed, Liveness, Outcome};
use crate::spec::{HostPorts, Mapping};
use serde_json::{Value, json};

/// The version of every JSON document that the helper prints. It is raised if the meaning of a field changes, not if one is added.
pub const VERSION: u32 = 1;

/// A line for each item.
pub fn lines(items: impl IntoIterator<Item: Display>) -> String {
    items.into_iter().map(|item| format!("{item}\n")).collect()
}

/// The mappings as JSON.
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

/// A list as JSON.
pub fn list_json(list: &[Listed]) -> Value {
    let jail = |l: &Listed| {
        let ports: Vec<Value> = l
            .redirects
            .iter()
            .map(|(redirect, counters)| {
                let mut port = redirect_json(redirect);
                port["packets"] = json!(counters.packets);
                port["bytes"] = json!(counters.bytes);
                port["states"] = json!(counters.states);
                port
            })
            .collect();
        json!({
            "jail": l.jail.as_ref().map(|j| j.as_str()),
            "no_jail": l.no_jail,
            "anchor": l.anchor.path(),
            "jid": l.jid,
            "since": l.since,
            "state": l.liveness.name(),
            "problem": l.problem,
            "ports": ports,
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
            rows.push([jail.clone(), "-".into(), "-".into(), "-".into(), "-".into(), state.clone()]);
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
    for l in list {
        match &l.problem {
            None => {}
            Some(problem) if l.liveness != Liveness::Inert => _ = writeln!(text, "{}: {problem}", name(l)),
            // the same for each jail
            Some(problem) if told.insert(problem) => _ = writeln!(text, "{problem}"),
            Some(_) => {}
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
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The target of a redirect.
pub fn target(r: &Redirect) -> String {
    match r.target {
        std::net::IpAddr::V4(v4) => format!("{v4}:{}", r.jail),
        std::net::IpAddr::V6(v6) => format!("[{v6}]:{}", r.jail),
    }
}

/// The outcome of a change, as JSON.
pub fn outcome_json(outcome: &Outcome) -> Value {
    json!({
        "version": VERSION,
        "changed": outcome.changed,
        "killed": outcome.killed,
        "ports": outcome.redirects.iter().map(redirect_json).collect::<Vec<_>>(),
        "notes": outcome.notes,
    })
}

/// Findings as JSON.
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
