//! The traffic of each mapping. pf counts for a mapping, so its redirects (each interface, IPv4 and IPv6) share the counters.

use std::collections::HashMap;
use std::time::Duration;

use crate::name::Anchor;
use crate::net::{PortRange, Protocol};
use crate::pf::Counters;
use crate::publication::Redirect;
use crate::publisher::Listed;

use super::show;

/// One mapping of a jail, with all of its redirects.
pub struct Traffic {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports on the host.
    pub host: PortRange,
    /// Its places and targets.
    pub redirects: Vec<Redirect>,
    /// The counters of its rules.
    pub counters: Counters,
}

/// A jail's mappings, in the order of the list.
pub fn mappings(listed: &Listed) -> Vec<Traffic> {
    let mut mappings: Vec<Traffic> = vec![];
    let mut places: HashMap<(Protocol, PortRange), usize> = HashMap::new();
    for (redirect, counters) in &listed.redirects {
        let (protocol, host) = (redirect.protocol, redirect.host);
        let at = *places.entry((protocol, host)).or_insert_with(|| {
            mappings.push(Traffic { protocol, host, redirects: vec![], counters: *counters });
            mappings.len() - 1
        });
        mappings[at].redirects.push(*redirect);
    }
    mappings
}

/// The first row of what [`rates`] returns.
const HEAD: [&str; 8] = ["JAIL", "PROTO", "ON", "PORT", "PACKETS/S", "BYTES/S", "STATES/S", "STATE"];

/// The traffic per second of each mapping of the second sample since the first, after a row with the names of the columns.
/// A new mapping counts from 0, and so does one whose counters are lower than before: its rules were loaded again.
pub fn rates(before: &[Listed], after: &[Listed], elapsed: Duration) -> Vec<[String; 8]> {
    let mut earlier: HashMap<(&Anchor, Protocol, PortRange), Counters> = HashMap::new();
    for listed in before {
        let counted = mappings(listed).into_iter().map(|m| ((&listed.anchor, m.protocol, m.host), m.counters));
        earlier.extend(counted);
    }
    let rate = |before: u64, after: u64| match elapsed {
        Duration::ZERO => "-".to_owned(),
        _ => format!("{:.1}", after.checked_sub(before).unwrap_or(after) as f64 / elapsed.as_secs_f64()),
    };
    let mut rows = vec![HEAD.map(str::to_owned)];
    for listed in after {
        let (jail, state) = (show::name(listed), listed.liveness.name());
        let mappings = mappings(listed);
        if mappings.is_empty() {
            rows.push([&jail, "-", "-", "-", "-", "-", "-", state].map(str::to_owned));
        }
        for Traffic { protocol, host, redirects, counters } in mappings {
            let first = earlier.get(&(&listed.anchor, protocol, host)).copied().unwrap_or_default();
            // all counters of rules that were loaded again start at 0
            let first = if counters.packets < first.packets { Counters::default() } else { first };
            let mut on: Vec<String> = vec![];
            for place in redirects.iter().map(|redirect| redirect.place.to_string()) {
                if !on.contains(&place) {
                    on.push(place);
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::JailName;
    use crate::publisher::Liveness;

    fn listed(jail: &str, ports: &[(&str, u16, &str, [u64; 3])]) -> Listed {
        let name: JailName = jail.parse().unwrap();
        let port = |n| PortRange::new(n, n).unwrap();
        let redirect = |&(place, host, target, [packets, bytes, states]): &(&str, u16, &str, [u64; 3])| {
            let place = place.parse().unwrap();
            let target = target.parse().unwrap();
            let redirect =
                Redirect { place, protocol: Protocol::Tcp, host: port(host), target, jail: port(80), af_to: false };
            (redirect, Counters { packets, bytes, states, ..Counters::default() })
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
}
