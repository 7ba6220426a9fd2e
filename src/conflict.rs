//! Who else has a port: overlaps of redirects with each other, with listening sockets, with other tools' rules.
//!
//! Pure: facts in, an error or nothing out. pf itself would take every overlap and let one rule win: the first one on
//! FreeBSD 14, the last anchor on 15.1. So no order is relied on, and overlaps are refused.

use crate::error::{Error, Kind, Result};
use crate::host::{HostInterface, Listener};
use crate::net::{Family, Interface, Place};
use crate::pf::ForeignRedirect;
use crate::rules::Redirect;

/// The interfaces of the host, for questions about places.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a>(pub &'a [HostInterface]);

impl Places<'_> {
    /// Whether one packet can be meant by both places.
    pub fn overlap(&self, a: Place, b: Place) -> bool {
        match (a, b) {
            (Place::Any, _) | (_, Place::Any) => true,
            (Place::Address(a), Place::Address(b)) => a == b,
            (Place::Interface(i), Place::Address(a)) | (Place::Address(a), Place::Interface(i)) => {
                self.members(i).any(|m| m.addresses.iter().any(|n| n.addr() == a))
            }
            (Place::Interface(a), Place::Interface(b)) => {
                a == b || self.members(a).any(|m| m.name == b || m.groups.contains(&b))
            }
        }
    }

    /// The interface of that name, and those in the group of that name.
    pub fn members(&self, name: Interface) -> impl Iterator<Item = &HostInterface> {
        self.0.iter().filter(move |i| i.name == name || i.groups.contains(&name))
    }
}

/// Whether both redirects can be meant by one packet.
pub fn overlap(a: &Redirect, b: &Redirect, places: Places<'_>) -> bool {
    a.protocol == b.protocol && a.family() == b.family() && a.host.overlaps(b.host) && places.overlap(a.place, b.place)
}

/// Refuses two redirects of one set that a packet could follow both.
pub fn within(redirects: &[Redirect], places: Places<'_>) -> Result<()> {
    let mut sorted: Vec<&Redirect> = redirects.iter().collect();
    sorted.sort_by_key(|r| (r.protocol, r.family(), r.host.first()));
    // the redirects before this one that reach up to it
    let mut open: Vec<&Redirect> = vec![];
    for redirect in sorted {
        open.retain(|o| {
            o.protocol == redirect.protocol && o.family() == redirect.family() && o.host.last() >= redirect.host.first()
        });
        if let Some(other) = open.iter().find(|o| overlap(o, redirect, places)) {
            return Err(Error::new(
                Kind::Conflict,
                format!("{other} and {redirect} would both take the same packets; leave one of them out"),
            ));
        }
        open.push(redirect);
    }
    Ok(())
}

/// Refuses a redirect that takes what another jail has published.
pub fn with_jail(redirect: &Redirect, owner: &str, theirs: &Redirect, places: Places<'_>) -> Result<()> {
    if !overlap(redirect, theirs, places) {
        return Ok(());
    }
    let shown =
        if redirect.host.overlaps(theirs.host) && redirect.host.count() == 1 { redirect.host } else { theirs.host };
    let mut what = format!("{} {shown} on {} is published by {owner}", redirect.protocol, theirs.place);
    if theirs.host != shown {
        what.push_str(&format!(" ({})", theirs.host));
    }
    if theirs.place != redirect.place {
        what.push_str(&format!(", and {} is also reached through {}", redirect.place, theirs.place));
    }
    Err(Error::new(Kind::Conflict, format!("{what}; choose another host port, or unpublish that one")))
}

/// Refuses a redirect that would take the traffic of a socket: publishing port 22 must not lock the admin out.
pub fn with_listener(redirect: &Redirect, listener: &Listener, places: Places<'_>) -> Result<()> {
    let family = match redirect.family() {
        Family::Inet => listener.families[0],
        Family::Inet6 => listener.families[1],
    };
    if !family || listener.protocol != redirect.protocol || !redirect.host.contains(listener.port) {
        return Ok(());
    }
    let place = match listener.address {
        None => Place::Any,
        // the jail's own service, on an address of the host that redirects lead to
        Some(address) if address == redirect.target => return Ok(()),
        Some(address) => Place::Address(address),
    };
    if !places.overlap(place, redirect.place) {
        return Ok(());
    }
    let at = match place {
        Place::Any => "every address".to_owned(),
        place => place.to_string(),
    };
    Err(Error::new(
        Kind::Conflict,
        format!(
            "a socket of the host listens on {} port {} of {at} and would get no traffic from {} any more; \
             choose another host port, or publish with --force (see who it is: sockstat -l -p {})",
            redirect.protocol, listener.port, redirect.place, listener.port
        ),
    ))
}

/// Refuses a redirect that meets one of another tool or of the admin.
pub fn with_foreign(redirect: &Redirect, foreign: &ForeignRedirect, places: Places<'_>) -> Result<()> {
    let meets = foreign.family.is_none_or(|f| f == redirect.family())
        && foreign.protocol.is_none_or(|p| p == redirect.protocol)
        && foreign.ports.is_none_or(|p| p.overlaps(redirect.host))
        && places.overlap(foreign.place, redirect.place);
    if !meets {
        return Ok(());
    }
    let place = match foreign.anchor.as_str() {
        "" => "the main ruleset".to_owned(),
        anchor => format!("anchor {anchor}"),
    };
    Err(Error::new(
        Kind::Conflict,
        format!(
            "{place} has a redirect of its own for {} {} on {}: {}; remove one of them, or publish with --force \
             (which of them wins differs between FreeBSD 14 and 15)",
            redirect.protocol,
            redirect.host,
            redirect.place,
            foreign.text.trim()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{PortRange, Protocol};

    fn host() -> Vec<HostInterface> {
        let interface = |name: &str, groups: &[&str], addresses: &[&str]| HostInterface {
            name: name.parse().unwrap(),
            groups: groups.iter().map(|g| g.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            up: true,
        };
        vec![
            interface("em0", &["egress"], &["192.0.2.1/24", "192.0.2.7/32", "2001:db8::1/64"]),
            interface("em1", &[], &["198.51.100.1/24"]),
            interface("bridge0", &["bridge"], &["10.0.0.1/24"]),
            interface("lo0", &["lo"], &["127.0.0.1/8"]),
        ]
    }

    fn redirect(place: &str, ports: &str) -> Redirect {
        Redirect {
            place: place.parse().unwrap(),
            protocol: Protocol::Tcp,
            host: ports.parse().unwrap(),
            target: "10.0.0.2".parse().unwrap(),
            jail: PortRange::new(80, 80).unwrap(),
        }
    }

    #[test]
    fn places() {
        let host = host();
        let places = Places(&host);
        for (a, b, overlap) in [
            ("em0", "em0", true),
            ("em0", "em1", false),
            ("em0", "*", true),
            ("192.0.2.7", "em0", true),
            ("192.0.2.7", "egress", true),
            ("192.0.2.7", "em1", false),
            ("192.0.2.7", "192.0.2.1", false),
            ("egress", "em0", true),
            ("egress", "bridge", false),
            ("wg7", "em0", false),
            ("wg7", "wg7", true),
        ] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(places.overlap(a, b), overlap, "{a} {b}");
            assert_eq!(places.overlap(b, a), overlap, "{b} {a}");
        }
    }

    #[test]
    fn a_set_of_its_own() {
        let host = host();
        let places = Places(&host);
        within(&[redirect("em0", "8080"), redirect("em1", "8080"), redirect("em0", "8081-8090")], places).unwrap();
        let error =
            within(&[redirect("*", "80"), redirect("em0", "9000"), redirect("em0", "8-100")], places).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        let mut udp = redirect("em0", "8080");
        udp.protocol = Protocol::Udp;
        within(&[udp, redirect("em0", "8080")], places).unwrap();
    }

    #[test]
    fn messages_name_the_other_side() {
        let host = host();
        let places = Places(&host);
        let error =
            with_jail(&redirect("em0", "8080"), "jail \"db\"", &redirect("em0", "8000-8100"), places).unwrap_err();
        assert!(error.message().starts_with("tcp 8080 on em0 is published by jail \"db\" (8000-8100)"), "{error}");
    }

    #[test]
    fn sockets() {
        let host = host();
        let places = Places(&host);
        let ssh = |address: Option<&str>| Listener {
            protocol: Protocol::Tcp,
            families: [true, false],
            address: address.map(|a| a.parse().unwrap()),
            port: 22,
        };
        for (place, listener, conflict) in [
            ("em0", ssh(None), true),
            ("em0", ssh(Some("192.0.2.1")), true),
            ("em1", ssh(Some("192.0.2.1")), false),
            ("192.0.2.7", ssh(Some("192.0.2.1")), false),
            ("em0", ssh(Some("127.0.0.1")), false),
            // (self) has the loopback addresses, too
            ("*", ssh(Some("127.0.0.1")), true),
            ("*", ssh(Some("10.0.0.2")), false),
            ("*", ssh(Some("192.0.2.1")), true),
        ] {
            let found = with_listener(&redirect(place, "20-30"), &listener, places);
            assert_eq!(found.is_err(), conflict, "{place} {listener:?}");
        }
        with_listener(&redirect("em0", "23"), &ssh(None), places).unwrap();
    }
}
