//! `kport metrics`: what is published as OpenMetrics text, for the textfile collector of node_exporter.
//!
//! The collector reads an older form, Prometheus' text format: there `# EOF` is a comment, a type must be one that it
//! knows (not `info`), and a counter whose name ends in `_total` counts as untyped, and is kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::error::{Result, printable};
use crate::net::{PortRange, Protocol};
use crate::pf::Counters;
use crate::publisher::{Listed, Liveness};
use crate::watch;

use super::args::Global;
use super::output::{Shown, print};
use super::session::session;
use super::{show, traffic};

/// `kport metrics`
pub fn run(global: &Global) -> Result<()> {
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let mut text = text(&session.publisher(&observer)?.list_with_counters(None)?);
    watched(&mut text, &watch::counts(&session.store()?));
    text.push_str("# EOF\n");
    print(&text)
}

/// What `kport watch` has reported since the boot; nothing if it has not run.
fn watched(text: &mut String, counts: &BTreeMap<String, u64>) {
    if counts.is_empty() {
        return;
    }
    head(text, "kport_watch_reports", "counter", None, "What kport watch has done.");
    for (what, count) in counts {
        _ = writeln!(text, "kport_watch_reports_total{{what=\"{what}\"}} {count}");
    }
}

/// A family of counters: its name without `_total`, its unit, its help, and the function that reads it.
type MetricFamily = (&'static str, Option<&'static str>, &'static str, fn(&Counters) -> u64);

const COUNTED: [MetricFamily; 3] = [
    ("kport_mapping_packets", None, "Packets through a mapping, both directions.", |c| c.packets),
    ("kport_mapping_bytes", Some("bytes"), "Bytes through a mapping, both directions.", |c| c.bytes),
    ("kport_mapping_states", None, "Connections through a mapping.", |c| c.states),
];

fn text(list: &[Listed]) -> String {
    let mut text = String::new();
    head(
        &mut text,
        "kport_jail_live",
        "gauge",
        None,
        "1 if pf has what is recorded for a jail and evaluates it, 0 if not.",
    );
    for l in list {
        let state = l.liveness.name();
        _ = writeln!(text, "kport_jail_live{{{},state=\"{state}\"}} {}", jail(l), live(l));
    }
    head(
        &mut text,
        "kport_redirect_live",
        "gauge",
        None,
        "1 if pf has a redirect of a mapping and evaluates it, 0 if not.",
    );
    for l in list {
        for (redirect, _) in &l.redirects {
            let labels = mapping(l, redirect.protocol, redirect.host);
            let (on, to) = (escaped(&redirect.place.to_string()), escaped(&show::target(redirect)));
            _ = writeln!(text, "kport_redirect_live{{{labels},on=\"{on}\",to=\"{to}\"}} {}", live(l));
        }
    }
    for (name, unit, help, count) in COUNTED {
        head(&mut text, name, "counter", unit, help);
        // rules that are not loaded have no counters
        for l in list.iter().filter(|l| matches!(l.liveness, Liveness::Live | Liveness::Inert)) {
            for m in traffic::mappings(l) {
                _ = writeln!(text, "{name}_total{{{}}} {}", mapping(l, m.protocol, m.host), count(&m.counters));
            }
        }
    }
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

fn mapping(l: &Listed, protocol: Protocol, host: PortRange) -> String {
    format!("{},protocol=\"{}\",port=\"{host}\"", jail(l), protocol.name())
}

/// A label's value. Characters that do not print are escaped first: `print` would write escapes that the format does not have.
fn escaped(value: &str) -> String {
    printable(value).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::JailName;
    use crate::publication::Redirect;

    fn listed(jail: &str, liveness: Liveness) -> Listed {
        let name: JailName = jail.parse().unwrap();
        let port = |n| PortRange::new(n, n).unwrap();
        let redirect = |place: &str, target: &str| Redirect {
            af_to: false,
            place: place.parse().unwrap(),
            protocol: Protocol::Tcp,
            host: port(8080),
            target: target.parse().unwrap(),
            jail: port(80),
        };
        let counters = Counters { evaluations: 9, packets: 12, bytes: 3400, states: 2 };
        Listed {
            anchor: name.anchor(),
            jail: Some(name),
            no_jail: false,
            jid: Some(1),
            since: None,
            liveness,
            redirects: vec![(redirect("em0", "10.0.0.2"), counters), (redirect("em0", "2001:db8::2"), counters)],
            problem: None,
        }
    }

    #[test]
    fn a_mapping_is_counted_once_and_each_redirect_is_listed() {
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
";
        assert_eq!(text(&[listed("web", Liveness::Live)]), expected);
    }

    #[test]
    fn what_pf_has_not_is_0_and_has_no_counters() {
        let stale = Listed { jail: None, redirects: vec![], ..listed("old", Liveness::Stale) };
        let said = text(&[listed("web", Liveness::Missing), stale]);
        assert!(said.contains("kport_jail_live{jail=\"web\",anchor=\"kport/web\",state=\"missing\"} 0\n"), "{said}");
        assert!(said.contains("kport_jail_live{jail=\"\",anchor=\"kport/old\",state=\"stale\"} 0\n"), "{said}");
        let guest = text(&[Listed { no_jail: true, ..listed("guest", Liveness::Live) }]);
        let counted = "kport_mapping_bytes_total{jail=\"guest\",anchor=\"kport/guest\",no_jail=\"true\",protocol";
        assert!(guest.contains(counted), "{guest}");
        let inert = text(&[listed("web", Liveness::Inert)]);
        assert!(inert.contains("state=\"inert\"} 0\n") && inert.contains("port=\"8080\"} 3400\n"), "{inert}");
        assert!(said.contains("to=\"10.0.0.2:80\"} 0\n") && !said.contains("_total"), "{said}");
    }

    #[test]
    fn what_the_watcher_did_is_counted_if_there_is_one() {
        let mut text = String::new();
        watched(&mut text, &BTreeMap::new());
        assert_eq!(text, "");
        watched(&mut text, &[("published".to_owned(), 3)].into());
        assert!(text.ends_with("\nkport_watch_reports_total{what=\"published\"} 3\n"), "{text}");
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("a\"b\\c"), "a\\\"b\\\\c");
        assert_eq!(escaped("a\nb\u{202e}"), "a\\\\nb\\\\u{202e}");
    }
}
