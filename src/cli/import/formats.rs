//! What jail managers have published, from their own files.
//!
//! * Bastille, rdr.conf: `INET IF[,IF] SRC DST PROTO HOST JAIL [log ...]`, before 0.14 `PROTO HOST JAIL [log ...]` (rdr.sh);
//! * AppJail, a directory for each port: `enabled`, `hport`, `jport`, `protocol`, `on_if`, `ext_ip`, ... (cmd/expose);
//! * pot, pot.conf: `pot.export.ports=[udp:]POT[:HOST] ...`, without a host port any free one (start.sh);
//! * iocage, config.json: `nat_forwards` as `PROTO(JAIL[:HOST]),...`, PROTO `tcp`, `udp` or `tcp/udp`, or a bare port (ioc_json.py);
//! * CBSD, etc/pfrdr.conf: pf rules, the jail's name in a comment (tools/expose).

use std::path::Path;

use serde_json::Value;

/// One port, as its manager says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The line or file that says it.
    pub from: String,
    /// The jail's name, as jls(8) prints it; empty where the file does not tell.
    pub jail: String,
    /// Where: interfaces or an address; empty for the gateway interface.
    pub places: Vec<String>,
    /// The host's ports: `8080`, `8000-8010` or `auto`.
    pub host: String,
    /// The jail's.
    pub ports: String,
    /// tcp, udp.
    pub protocols: Vec<String>,
    /// Who may come; empty for everybody.
    pub sources: Vec<String>,
    /// Whether it is logged.
    pub log: bool,
    /// What kport does otherwise.
    pub notes: Vec<String>,
    /// Why kport cannot say it.
    pub unsaid: Option<String>,
}

/// A range of pf.conf(5), or of a manager: `8000:8010`, `8000-8010`, and `9000:*`, whose end the other side has.
fn range(text: &str) -> String {
    text.strip_suffix(":*").unwrap_or(text).replacen(':', "-", 1)
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The lines that say something, each with its number.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

/// The directory that stands in a path behind `jails`.
pub fn jail_of(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().rposition(|part| *part == "jails");
    at.and_then(|at| parts.get(at + 1)).map_or(String::new(), |name| (*name).to_owned())
}

/// rdr.conf
pub fn bastille(path: &Path, text: &str) -> Result<Vec<Port>, String> {
    let jail = jail_of(path);
    let mut found = vec![];
    for (number, line) in lines(text) {
        let from = format!("{}:{number}", path.display());
        let mut port = Port { from: from.clone(), jail: jail.clone(), ..Port::default() };
        let words = words(line);
        let rest = match words[..] {
            [inet @ ("dual" | "ipv4" | "ipv6"), interfaces, source, destination, protocol, host, to, ref rest @ ..] => {
                if inet != "dual" {
                    port.notes.push(format!(
                        "{inet} alone: kport publishes for each family of which the jail has an address"
                    ));
                }
                port.places = interfaces.split(',').map(str::to_owned).collect();
                if destination != "any" {
                    port.places = vec![destination.to_owned()];
                }
                port.sources.extend(Some(source).filter(|s| *s != "any").map(str::to_owned));
                (port.host, port.ports, port.protocols) = (range(host), range(to), vec![protocol.to_owned()]);
                rest
            }
            [protocol @ ("tcp" | "udp"), host, to, ref rest @ ..] => {
                (port.host, port.ports, port.protocols) = (range(host), range(to), vec![protocol.to_owned()]);
                rest
            }
            _ => return Err(format!("{from}: not a line of rdr.conf: {line}")),
        };
        match rest {
            [] => {}
            ["log"] => port.log = true,
            ["log", options @ ..] => {
                port.log = true;
                port.notes.push(format!("{}: kport logs the packet that starts a connection", options.join(" ")));
            }
            _ => return Err(format!("{from}: not a line of rdr.conf: {line}")),
        }
        found.push(port);
    }
    Ok(found)
}

/// The files of one port, by a function that reads the first line of one.
pub fn appjail(path: &Path, first_line: &dyn Fn(&str) -> String) -> Result<Option<Port>, String> {
    let from = path.display().to_string();
    if first_line("hport").is_empty() {
        return Err(format!("{from}: no directory of AppJail's expose: there is no hport in it"));
    }
    if first_line("enabled") != "1" {
        return Ok(None);
    }
    let (on, outside, address) = (first_line("on_if"), first_line("ext_if"), first_line("ext_ip"));
    let mut port = Port { from, jail: jail_of(path), host: range(&first_line("hport")), ..Port::default() };
    port.ports = Some(first_line("jport")).filter(|p| !p.is_empty()).map_or(port.host.clone(), |p| range(&p));
    port.protocols = vec![Some(first_line("protocol")).filter(|p| !p.is_empty()).unwrap_or("tcp".to_owned())];
    port.places = [address.clone(), on.clone()].into_iter().find(|place| !place.is_empty()).into_iter().collect();
    if address.is_empty() && !outside.is_empty() {
        port.notes.push(match on == outside {
            true => format!("AppJail takes the first address of {outside} alone; kport takes each"),
            false => format!(
                "AppJail takes what comes in on {on} for the first address of {outside}; kport takes what is for {on}"
            ),
        });
    }
    port.log = first_line("pf-rule").contains(" log ");
    Ok(Some(port))
}

/// pot.conf
pub fn pot(path: &Path, text: &str) -> Result<Vec<Port>, String> {
    let mut found = vec![];
    for (number, line) in lines(text) {
        let Some(value) = line.trim().strip_prefix("pot.export.ports=") else { continue };
        for word in words(value) {
            let (protocol, ports) = match word.split_once(':') {
                Some((protocol @ ("tcp" | "udp"), ports)) => (protocol, ports),
                _ => ("tcp", word),
            };
            let (to, host) = ports.split_once(':').unwrap_or((ports, "auto"));
            found.push(Port {
                from: format!("{}:{number}", path.display()),
                jail: jail_of(path),
                host: host.to_owned(),
                ports: to.to_owned(),
                protocols: vec![protocol.to_owned()],
                ..Port::default()
            });
        }
    }
    Ok(found)
}

/// config.json
pub fn iocage(path: &Path, text: &str) -> Result<Vec<Port>, String> {
    let from = path.display().to_string();
    let config: Value = serde_json::from_str(text).map_err(|e| format!("{from}: not a config.json: {e}"))?;
    let forwards = config["nat_forwards"].as_str().unwrap_or("none");
    let name = config["host_hostuuid"].as_str().map_or_else(|| jail_of(path), str::to_owned);
    let jail = Some(name)
        .filter(|name| !name.is_empty())
        .map_or(String::new(), |name| format!("ioc-{}", name.replace('.', "_")));
    let mut found = vec![];
    for forward in forwards.split(',').filter(|_| forwards != "none" && !forwards.is_empty()) {
        let (protocol, ports) = match forward.strip_suffix(')').and_then(|f| f.split_once('(')) {
            Some(parts) => parts,
            None => ("tcp", forward),
        };
        let (to, host) = ports.split_once(':').unwrap_or((ports, ports));
        found.push(Port {
            from: format!("{from}: {forward}"),
            jail: jail.clone(),
            host: host.to_owned(),
            ports: to.to_owned(),
            protocols: protocol.split('/').map(str::to_owned).collect(),
            ..Port::default()
        });
    }
    Ok(found)
}

/// pfrdr.conf
pub fn cbsd(path: &Path, text: &str) -> Result<Vec<Port>, String> {
    if text.starts_with("SQLite format") {
        let why = "is a database; give ~cbsd/etc/pfrdr.conf, which has what is exposed of every jail";
        return Err(format!("{}: {why}", path.display()));
    }
    let mut found = vec![];
    for (number, line) in lines(text) {
        let from = format!("{}:{number}", path.display());
        let bad = || format!("{from}: not a line of CBSD's expose: {line}");
        let (rule, comment) = line.split_once('#').ok_or_else(bad)?;
        // "// Setup by CBSD expose: tcp-22-web from IPs any"
        let about = comment
            .split_once("CBSD expose: ")
            .and_then(|(_, about)| about.split_once(" from IPs "))
            .ok_or_else(bad)?
            .0;
        let jail = about.splitn(3, '-').nth(2).ok_or_else(bad)?.to_owned();
        let spaced = rule.replace(['{', '}', ','], " ");
        let words = words(&spaced);
        let at = |word: &str| words.iter().position(|w| *w == word).ok_or_else(bad);
        let (proto, source, to, arrow) = (at("proto")?, at("from")?, at("to")?, at("->")?);
        if !(proto < source && source < to && to < arrow) {
            return Err(bad());
        }
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let mut port =
            Port { from: from.clone(), jail, protocols: owned(&words[proto + 1..source]), ..Port::default() };
        port.sources = owned(&words[source + 1..to]);
        port.sources.retain(|source| source != "any");
        port.places = owned(&words[to + 1..=to + 1]);
        match (&words[to + 2..arrow], &words[arrow + 2..]) {
            (["port", host], ["port", target]) => (port.host, port.ports) = (range(host), range(target)),
            ([], []) => port.unsaid = Some("all ports of an address: kport publishes ports, name them".to_owned()),
            _ => return Err(bad()),
        }
        found.push(port);
    }
    Ok(found)
}
