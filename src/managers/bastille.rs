//! Bastille: rdr.conf in a jail's directory, and its jails' jail.conf(5).

use std::path::Path;

use super::ports::{jail_of, lines, range, words, wrong};
use super::{Exports, HookFile, Manager, Port, Root, TextOf};
use crate::error::Result;

#[derive(Debug)]
pub(super) struct Bastille;

impl Manager for Bastille {
    fn name(&self) -> &'static str {
        "bastille"
    }

    fn exports(&self) -> Option<Exports> {
        Some(Exports { files: "rdr.conf of a jail", read: rdr_conf })
    }

    fn hook_files(&self, root: &Root<'_>) -> Vec<HookFile> {
        let prefix = root.path_setting("/usr/local/etc/bastille/bastille.conf", "bastille_prefix");
        let jails = prefix.unwrap_or_else(|| "/usr/local/bastille".into()).join("jails");
        let files = root.children(jails).into_iter().map(|jail| jail.join("jail.conf"));
        files.filter_map(|path| HookFile::jail_conf(root, &path)).collect()
    }
}

/// `INET IF[,IF] SRC DST PROTO HOST JAIL [log ...]`, before 0.14 `PROTO HOST JAIL [log ...]` (rdr.sh).
fn rdr_conf(path: &Path, text: TextOf<'_>) -> Result<Vec<Port>> {
    let jail = jail_of(path);
    let mut found = vec![];
    for (number, line) in lines(&text(path)?) {
        let from = format!("{}:{number}", path.display());
        let not_a_line = || wrong(&from, format_args!("not a line of rdr.conf: {line}"));
        let mut port = Port { from: from.clone(), jail: jail.clone(), ..Port::default() };
        let words = words(line);
        let rest = match words[..] {
            [inet @ ("dual" | "ipv4" | "ipv6"), interfaces, source, destination, protocol, host, to, ref rest @ ..] => {
                if inet != "dual" {
                    port.notes
                        .push(format!("{inet} only: kport publishes for each family of which the jail has an address"));
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
            _ => return Err(not_a_line()),
        };
        match rest {
            [] => {}
            ["log"] => port.log = true,
            ["log", options @ ..] => {
                port.log = true;
                port.notes.push(format!("{}: kport logs the packet that starts a connection", options.join(" ")));
            }
            _ => return Err(not_a_line()),
        }
        found.push(port);
    }
    Ok(found)
}
