//! CBSD: pfrdr.conf and pf.conf in the etc of its working directory.

use std::net::IpAddr;
use std::path::Path;

use super::ports::{lines, range, words, wrong};
use super::root::add_calls;
use super::{Environment, Exports, Identity, Manager, Port, Root, TextOf};
use crate::error::{Problem, Result};

/// The variable with the jail's name.
const NAME: &str = "jname";

#[derive(Debug)]
pub(super) struct Cbsd;

impl Manager for Cbsd {
    fn name(&self) -> &'static str {
        "cbsd"
    }

    fn variable(&self) -> Option<&'static str> {
        Some(NAME)
    }

    /// `jname`, `ipv4_first`, `ipv6_first` (subr/jcreate.subr). Its hooks run also after a start that failed.
    fn identity(&self, environment: &Environment<'_>) -> Result<Option<Identity>> {
        let Some(name) = environment.get(NAME) else { return Ok(None) };
        // "0" and "DHCP" are not addresses: then they are read from the kernel
        let address =
            |name: &str| environment.get(name).and_then(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        let addresses = ["ipv4_first", "ipv6_first"].into_iter().filter_map(address).map(|a| a.to_string()).collect();
        Ok(Some(Identity {
            name: Some(name),
            addresses,
            calls_after_failure: Some("CBSD"),
            ..Identity::by("CBSD's jname")
        }))
    }

    fn exports(&self) -> Option<Exports> {
        Some(Exports { files: "~cbsd/etc/pfrdr.conf", read: pfrdr_conf })
    }

    fn replaces_ruleset(&self, root: &Root<'_>) -> Option<Problem> {
        let work = root.path_setting("/etc/rc.conf", "cbsd_workdir").unwrap_or_else(|| "/usr/jails".into());
        let rules = work.join("etc/pf.conf");
        root.lacks_calls(&rules).then(|| Problem {
            seen: format!("cbsd expose and cbsd naton load {} as the main ruleset", rules.display()),
            remedy: add_calls(&rules),
        })
    }
}

/// pf rules, with the jail's name in a comment (tools/expose).
fn pfrdr_conf(path: &Path, text: TextOf<'_>) -> Result<Vec<Port>> {
    let text = text(path)?;
    if text.starts_with("SQLite format") {
        let why = "is a database; give ~cbsd/etc/pfrdr.conf, which has the exposed ports of every jail";
        return Err(wrong(path.display(), why));
    }
    let mut found = vec![];
    for (number, line) in lines(&text) {
        let from = format!("{}:{number}", path.display());
        let not_a_line = || wrong(&from, format_args!("not a line of CBSD's expose: {line}"));
        let (rule, comment) = line.split_once('#').ok_or_else(not_a_line)?;
        // "// Setup by CBSD expose: tcp-22-web from IPs any"
        let about = comment
            .split_once("CBSD expose: ")
            .and_then(|(_, about)| about.split_once(" from IPs "))
            .ok_or_else(not_a_line)?
            .0;
        let jail = about.splitn(3, '-').nth(2).ok_or_else(not_a_line)?.to_owned();
        let spaced = rule.replace(['{', '}', ','], " ");
        let words = words(&spaced);
        let at = |word: &str| words.iter().position(|w| *w == word).ok_or_else(not_a_line);
        let (proto, source, to, arrow) = (at("proto")?, at("from")?, at("to")?, at("->")?);
        if !(proto < source && source < to && to < arrow) {
            return Err(not_a_line());
        }
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut port =
            Port { from: from.clone(), jail, protocols: owned(&words[proto + 1..source]), ..Port::default() };
        port.sources = owned(&words[source + 1..to]);
        port.sources.retain(|source| source != "any");
        port.places = owned(&words[to + 1..=to + 1]);
        match (&words[to + 2..arrow], &words[arrow + 2..]) {
            (["port", host], ["port", target]) => (port.host, port.ports) = (range(host), range(target)),
            ([], []) => {
                port.unsupported =
                    Some("all ports of an address: kport publishes single ports and ranges; name them".to_owned());
            }
            _ => return Err(not_a_line()),
        }
        found.push(port);
    }
    Ok(found)
}
