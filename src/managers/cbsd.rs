//! CBSD: pfrdr.conf and pf.conf in the etc of its working directory.

use std::net::IpAddr;
use std::path::Path;

use super::import::{lines, wrong};
use super::{Environment, Exports, Identity, Manager, Port, Root, TextOf};
use crate::error::{Problem, Result};
use crate::net::PortRange;
use crate::pfconf::Conf;
use crate::pfconf::address::Operand;
use crate::pfconf::names::protocol_name;
use crate::pfconf::rule::{Action, Rule, RuleKind};

/// The variable with the jail's name.
const NAME: &str = "jname";

pub(super) const CBSD: Manager = Manager {
    variable: Some(NAME),
    identity,
    exports: Some(Exports { files: "~cbsd/etc/pfrdr.conf", read: pfrdr_conf }),
    replaces_ruleset,
    ..Manager::named("cbsd")
};

/// `jname`, `ipv4_first`, `ipv6_first` (subr/jcreate.subr). Its hooks run also after a start that failed.
fn identity(environment: &Environment<'_>) -> Result<Option<Identity>> {
    let Some(name) = environment.get(NAME) else { return Ok(None) };
    // "0" and "DHCP" are not addresses: then they are read from the kernel
    let address = |name: &str| environment.get(name).and_then(|text| text.split('/').next()?.parse::<IpAddr>().ok());
    let addresses = ["ipv4_first", "ipv6_first"].into_iter().filter_map(address).map(|a| a.to_string()).collect();
    let by = Identity::by("CBSD's jname");
    Ok(Some(Identity { name: Some(name), addresses, calls_after_failure: Some("CBSD"), ..by }))
}

fn replaces_ruleset(root: &Root<'_>) -> Option<Problem> {
    let work = root.path_setting("/etc/rc.conf", "cbsd_workdir").unwrap_or_else(|| "/usr/jails".into());
    let rules = work.join("etc/pf.conf");
    root.without_calls(&rules, format!("cbsd expose and cbsd naton load {} as the main ruleset", rules.display()))
}

/// pf rules, with the jail's name in a comment (tools/expose).
fn pfrdr_conf(path: &Path, text: TextOf<'_>) -> Result<Vec<Port>> {
    let text = text(path)?;
    if text.starts_with("SQLite format") {
        let why = "is a database; give ~cbsd/etc/pfrdr.conf, which has the exposed ports of every jail";
        return Err(wrong(path.display(), why));
    }
    let port = |(from, line): (String, &str)| {
        let (rule, comment) = line.split_once('#').unwrap_or((line, ""));
        let jail = jail_in(comment).unwrap_or_default();
        match read_rule(rule).filter(|_| !jail.is_empty()) {
            Some(port) => Port { from, jail: jail.to_owned(), ..port },
            None => Port::unread(from, jail, format_args!("not a line of CBSD's expose: {line}")),
        }
    };
    Ok(lines(path, &text).map(port).collect())
}

/// The jail in `// Setup by CBSD expose: tcp-22-web from IPs any`; before 13.0.12 without the addresses.
fn jail_in(comment: &str) -> Option<&str> {
    let about = comment.split_once("CBSD expose: ")?.1;
    let about = about.split_once(" from IPs").map_or(about, |(about, _)| about);
    about.trim().splitn(3, '-').nth(2)
}

/// `rdr pass proto tcp from {any} to A port N -> B port M`: one rule for each member of its lists. Without ports it is every port of
/// an address.
fn read_rule(rule: &str) -> Option<Port> {
    let add = |list: &mut Vec<String>, word: String| {
        if !list.contains(&word) {
            list.push(word);
        }
    };
    let conf = Conf::of_text(rule.as_bytes()).ok()?;
    let mut port = Port::default();
    for rule in conf.rules() {
        let Rule { action: Action::Translate { kind: RuleKind::Rdr, pool: Some(pool), .. }, when, .. } = rule else {
            return None;
        };
        add(&mut port.protocols, protocol_name(when.protocol?));
        if when.from.not || when.to.not {
            return None;
        }
        if when.from.address != Operand::Any {
            add(&mut port.sources, when.from.address.to_string());
        }
        add(&mut port.places, when.to.address.to_string());
        match (when.to.ports, pool.ports) {
            (Some(host), (first @ 1.., last)) => {
                port.host = host.range()?.to_string();
                port.ports = PortRange::new(first, first.max(last))?.to_string();
            }
            (None, (0, 0)) => {
                port.unsupported =
                    Some("all ports of an address: kport publishes single ports and ranges; name them".to_owned());
            }
            _ => return None,
        }
    }
    (!port.protocols.is_empty()).then_some(port)
}
