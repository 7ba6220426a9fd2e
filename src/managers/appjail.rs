//! AppJail: a directory for each published port, and its jails' templates.

use std::path::Path;

use super::import::{jail_of, range};
use super::jail::parameter;
use super::{ExecStatement, Exports, HookFile, Manager, Port, Root, TextOf};
use crate::error::Result;

pub(super) const APPJAIL: Manager = Manager {
    exports: Some(Exports { files: "The directories of conf/boot/expose of a jail", read: expose }),
    hook_files,
    ..Manager::named("appjail")
};

fn hook_files(root: &Root<'_>) -> Vec<HookFile> {
    let of_jail = |jail: &Path| {
        let path = jail.join("conf/template.conf");
        let statements = template(&path, &root.text(&path)?, &jail.file_name()?.to_string_lossy());
        Some(HookFile { statements, includes: vec![] })
    };
    root.children("/usr/local/appjail/jails").iter().filter_map(|jail| of_jail(jail)).collect()
}

/// The files `enabled`, `hport`, `jport`, `protocol`, `on_if`, `ext_ip` and others of one port (cmd/expose).
fn expose(path: &Path, text: TextOf<'_>) -> Result<Vec<Port>> {
    // most of them may be missing
    let first_line = |name: &str| {
        let text = text(&path.join(name)).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let from = path.display().to_string();
    if first_line("hport").is_empty() {
        return Ok(vec![Port::unread(from, jail_of(path), "not a directory of AppJail's expose: it has no hport")]);
    }
    if first_line("enabled") != "1" {
        return Ok(vec![]);
    }
    let (on, outside, address) = (first_line("on_if"), first_line("ext_if"), first_line("ext_ip"));
    let protocol = Some(first_line("protocol")).filter(|p| !p.is_empty()).unwrap_or("tcp".to_owned());
    let range = |ports: &str| range(ports, &protocol, text);
    let mut port = Port { from, jail: jail_of(path), host: range(&first_line("hport")), ..Port::default() };
    port.ports = Some(first_line("jport")).filter(|p| !p.is_empty()).map_or(port.host.clone(), |p| range(&p));
    port.protocols = vec![protocol];
    port.places = [address.clone(), on.clone()].into_iter().find(|place| !place.is_empty()).into_iter().collect();
    if address.is_empty() && !outside.is_empty() {
        port.notes.push(match on == outside {
            true => format!("AppJail uses only the first address of {outside}; kport uses all"),
            false => format!(
                "AppJail redirects packets that arrive on {on} for the first address of {outside}; kport those for the addresses of {on}"
            ),
        });
    }
    port.log = first_line("pf-rule").contains(" log ");
    Ok(vec![port])
}

/// The hooks of a jail's template: `exec.poststart: "..."`, with `+:` to append, a statement a line.
fn template(path: &Path, text: &str, jail: &str) -> Vec<ExecStatement> {
    let mut found = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        let Some((parameter, appends, values)) = parameter(line, ':') else { continue };
        if !parameter.starts_with("exec.") {
            continue;
        }
        let (path, jail) = (path.to_owned(), Some(jail.to_owned()));
        found.push(ExecStatement { path, line: number, jail, parameter, appends, values });
    }
    found
}
