//! Bastille: rdr.conf in a jail's directory, and its jails' jail.conf(5).

use std::path::Path;

use super::import::{jail_of, lines, range, words};
use super::{Exports, HookFile, Manager, Port, Root, TextOf};
use crate::error::Result;

pub(super) const BASTILLE: Manager = Manager {
    exports: Some(Exports { files: "rdr.conf of a jail", read: rdr_conf }),
    hook_files,
    ..Manager::named("bastille")
};

fn hook_files(root: &Root<'_>) -> Vec<HookFile> {
    let prefix = root.path_setting("/usr/local/etc/bastille/bastille.conf", "bastille_prefix");
    let jails = prefix.unwrap_or_else(|| "/usr/local/bastille".into()).join("jails");
    let files = root.children(jails).into_iter().map(|jail| jail.join("jail.conf"));
    files.filter_map(|path| HookFile::jail_conf(root, &path)).collect()
}

/// `INET IF[,IF] SRC DST PROTO HOST JAIL [log ...]`, before 0.14 `PROTO HOST JAIL [log ...]` (rdr.sh). `ext_if="{ em0 em1 }"` in
/// pf.conf is written as two words.
fn rdr_conf(path: &Path, text: TextOf<'_>) -> Result<Vec<Port>> {
    let jail = jail_of(path);
    let port = |(from, line): (String, &str)| {
        read_line(line, text)
            .map(|port| Port { from: from.clone(), jail: jail.clone(), ..port })
            .unwrap_or_else(|| Port::unread(from, jail.clone(), format_args!("not a line of rdr.conf: {line}")))
    };
    Ok(lines(path, &text(path)?).map(port).collect())
}

fn read_line(line: &str, text: TextOf<'_>) -> Option<Port> {
    let spaced = line.replace(['{', '}'], " ");
    let all = words(&spaced);
    let (inet, rest) = match all[..] {
        [inet @ ("dual" | "ipv4" | "ipv6"), ref rest @ ..] => (Some(inet), rest),
        _ => (None, &all[..]),
    };
    let (before, after) = rest.split_at(rest.iter().position(|word| matches!(*word, "tcp" | "udp"))?);
    let [protocol, host, to, log @ ..] = after else { return None };
    let mut port = Port {
        host: range(host, protocol, text),
        ports: range(to, protocol, text),
        protocols: vec![(*protocol).to_owned()],
        ..Port::default()
    };
    match (inet, before) {
        (Some(inet), [interfaces @ .., source, destination]) if !interfaces.is_empty() => {
            if inet != "dual" {
                port.notes
                    .push(format!("{inet} only: kport publishes for each family of which the jail has an address"));
            }
            let names = interfaces.iter().flat_map(|word| word.split(',')).filter(|name| !name.is_empty());
            port.places = match *destination {
                "any" => names.map(str::to_owned).collect(),
                address => vec![address.to_owned()],
            };
            port.sources.extend(Some(*source).filter(|source| *source != "any").map(str::to_owned));
        }
        (None, []) => {}
        _ => return None,
    }
    match log {
        [] => {}
        ["log"] => port.log = true,
        ["log", options @ ..] => {
            port.log = true;
            port.notes.push(format!("{}: kport logs the packet that starts a connection", options.join(" ")));
        }
        _ => return None,
    }
    Some(port)
}
