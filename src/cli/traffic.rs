//! The traffic of each mapping: `kport list --watch`, and `kport metrics`. pf counts for a mapping, so its redirects (each
//! interface, IPv4 and IPv6) share the counters.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::error::{Result, error, printable};
use crate::name::JailName;
use crate::pf::Counters;
use crate::publication::{Redirect, distinct};
use crate::publisher::{Listed, Liveness};
use crate::watch;

use super::args::Global;
use super::output::{self, print, redraw};
use super::with_publisher;

/// One mapping of a jail, with all of its redirects, of which there is at least one.
pub struct Traffic {
    pub redirects: Vec<Redirect>,
    pub counters: Counters,
}

/// A jail's mappings, in the order of the list.
pub fn mappings(listed: &Listed) -> Vec<Traffic> {
    let mut mappings: Vec<Traffic> = vec![];
    for (redirect, counters) in &listed.redirects {
        let is_of_same =
            |m: &&mut Traffic| (m.redirects[0].protocol, m.redirects[0].host) == (redirect.protocol, redirect.host);
        match mappings.iter_mut().find(is_of_same) {
            Some(same) => same.redirects.push(*redirect),
            None => mappings.push(Traffic { redirects: vec![*redirect], counters: *counters }),
        }
    }
    mappings
}

/// The traffic per second of each mapping of the second sample since the first, after a row with the names of the columns.
/// A new mapping counts from 0, and so does one whose counters are lower than before: its rules were loaded again.
pub fn rates(before: &[Listed], after: &[Listed], elapsed: Duration) -> Vec<[String; 8]> {
    let counted = before
        .iter()
        .flat_map(|l| l.redirects.iter().map(move |(r, counters)| ((&l.anchor, r.protocol, r.host), *counters)));
    let earlier: HashMap<_, Counters> = counted.collect();
    let rate = |before: u64, after: u64| match elapsed {
        Duration::ZERO => "-".to_owned(),
        _ => format!("{:.1}", after.checked_sub(before).unwrap_or(after) as f64 / elapsed.as_secs_f64()),
    };
    let head = ["JAIL", "PROTO", "ON", "PORT", "PACKETS/S", "BYTES/S", "STATES/S", "STATE"];
    let mut rows = vec![head.map(str::to_owned)];
    for listed in after {
        let (jail, state) = (output::name(listed), listed.liveness.name());
        let mappings = mappings(listed);
        if mappings.is_empty() {
            rows.push([&jail, "-", "-", "-", "-", "-", "-", state].map(str::to_owned));
        }
        for Traffic { redirects, counters } in mappings {
            let Redirect { protocol, host, .. } = redirects[0];
            let first = earlier.get(&(&listed.anchor, protocol, host)).copied().unwrap_or_default();
            // all counters of rules that were loaded again start at 0
            let first = if counters.packets < first.packets { Counters::default() } else { first };
            let on = distinct(redirects.iter().map(|redirect| redirect.place.to_string()));
            rows.push([
                jail.clone(),
                protocol.to_string(),
                on.join(","),
                host.to_string(),
                rate(first.packets, counters.packets),
                rate(first.bytes, counters.bytes),
                rate(first.states, counters.states),
                state.to_owned(),
            ]);
        }
    }
    rows
}

/// `kport list --watch`, until the reader is gone. SIGINT has its default action.
pub fn watch(global: &Global, jail: Option<&JailName>, interval: Duration) -> Result<()> {
    // the time-out is that of one sample, so each opens a session
    let sample = || with_publisher(global, |_, publisher| Ok((publisher.list_with_counters(jail)?, Instant::now())));
    let mut before = sample()?;
    if let Some(jail) = jail.filter(|_| before.0.is_empty()) {
        return Err(error!(Argument, "{} has published nothing", jail.mention()));
    }
    loop {
        std::thread::sleep(interval);
        let after = sample()?;
        if !redraw(&output::table(&rates(&before.0, &after.0, after.1 - before.1)))? {
            return Ok(());
        }
        before = after;
    }
}

/// `kport metrics`: what is published as OpenMetrics text, for the textfile collector of node_exporter.
///
/// The collector reads an older form, Prometheus' text format: there `# EOF` is a comment, a type must be one that it
/// knows (not `info`), and a counter whose name ends in `_total` counts as untyped, and is kept.
pub fn metrics(global: &Global) -> Result<()> {
    with_publisher(global, |session, publisher| {
        let list = publisher.list_with_counters(None)?;
        print(&open_metrics(&list, &watch::counts(&session.store()?)))
    })
}

/// A family of counters: its name without `_total`, its unit, its help, and the function that reads it.
type MetricFamily = (&'static str, Option<&'static str>, &'static str, fn(&Counters) -> u64);

const COUNTED: [MetricFamily; 3] = [
    ("kport_mapping_packets", None, "Packets through a mapping, both directions.", |c| c.packets),
    ("kport_mapping_bytes", Some("bytes"), "Bytes through a mapping, both directions.", |c| c.bytes),
    ("kport_mapping_states", None, "Connections through a mapping.", |c| c.states),
];

/// The text for a list, and for what `kport watch` has reported since the boot, if it has run.
pub fn open_metrics(list: &[Listed], watched: &BTreeMap<String, u64>) -> String {
    let mut text = String::new();
    let help = "1 if pf has what is recorded for a jail and evaluates it, 0 if not.";
    head(&mut text, "kport_jail_live", "gauge", None, help);
    for l in list {
        let state = l.liveness.name();
        _ = writeln!(text, "kport_jail_live{{{},state=\"{state}\"}} {}", jail(l), live(l));
    }
    let help = "1 if pf has a redirect of a mapping and evaluates it, 0 if not.";
    head(&mut text, "kport_redirect_live", "gauge", None, help);
    for l in list {
        for (redirect, _) in &l.redirects {
            let labels = mapping(l, redirect);
            let (on, to) = (escaped(&redirect.place.to_string()), escaped(&output::target(redirect)));
            _ = writeln!(text, "kport_redirect_live{{{labels},on=\"{on}\",to=\"{to}\"}} {}", live(l));
        }
    }
    for (name, unit, help, count) in COUNTED {
        head(&mut text, name, "counter", unit, help);
        // rules that are not loaded have no counters
        for l in list.iter().filter(|l| matches!(l.liveness, Liveness::Live | Liveness::Inert)) {
            for m in mappings(l) {
                _ = writeln!(text, "{name}_total{{{}}} {}", mapping(l, &m.redirects[0]), count(&m.counters));
            }
        }
    }
    if !watched.is_empty() {
        head(&mut text, "kport_watch_reports", "counter", None, "What kport watch has done.");
    }
    for (what, count) in watched {
        _ = writeln!(text, "kport_watch_reports_total{{what=\"{what}\"}} {count}");
    }
    text.push_str("# EOF\n");
    text
}

fn head(text: &mut String, name: &str, kind: &str, unit: Option<&str>, help: &str) {
    _ = writeln!(text, "# TYPE {name} {kind}");
    if let Some(unit) = unit {
        _ = writeln!(text, "# UNIT {name} {unit}");
    }
    _ = writeln!(text, "# HELP {name} {help}");
}

fn live(l: &Listed) -> u8 {
    u8::from(l.liveness == Liveness::Live)
}

/// Different names may look the same when escaped; the anchor is different for each jail.
fn jail(l: &Listed) -> String {
    let name = l.jail.as_ref().map_or("", |jail| jail.as_str());
    let kind = if l.no_jail { ",no_jail=\"true\"" } else { "" };
    format!("jail=\"{}\",anchor=\"{}\"{kind}", escaped(name), escaped(l.anchor.path()))
}

fn mapping(l: &Listed, r: &Redirect) -> String {
    format!("{},protocol=\"{}\",port=\"{}\"", jail(l), r.protocol.name(), r.host)
}

/// A label's value. Characters that do not print are escaped first: `print` would write escapes that the format does not have.
fn escaped(value: &str) -> String {
    printable(value).replace('\\', "\\\\").replace('"', "\\\"")
}
