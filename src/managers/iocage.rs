//! iocage: config.json of a jail. The variables of its hooks are those of [jail(8)](super::jail).

use std::path::Path;

use serde_json::Value;

use super::import::{jail_of, wrong};
use super::{Exports, Manager, Port, Root, TextOf};
use crate::error::{Problem, Result};

pub(super) const IOCAGE: Manager = Manager {
    exports: Some(Exports { files: "config.json of a jail", read: config_json }),
    replaces_ruleset,
    ..Manager::named("iocage")
};

/// ioc_start.py: `pfctl -f`.
fn replaces_ruleset(root: &Root<'_>) -> Option<Problem> {
    const RULES: &str = "/tmp/iocage_nat_pf.conf";
    let seen = format!("iocage has created {RULES}: the start of a jail with nat=1 replaces the main ruleset with it");
    let remedy = "iocage set nat=0 JAIL, with the nat rule in /etc/pf.conf, then: service pf reload".to_owned();
    root.without_calls(RULES.as_ref(), seen).map(|problem| Problem { remedy, ..problem })
}

/// `nat_forwards` as `PROTO(JAIL[:HOST]),...`, PROTO `tcp`, `udp` or `tcp/udp`, or a bare port (ioc_json.py).
fn config_json(path: &Path, text: TextOf<'_>) -> Result<Vec<Port>> {
    let from = path.display().to_string();
    let config: Value =
        serde_json::from_str(&text(path)?).map_err(|e| wrong(&from, format_args!("not a config.json: {e}")))?;
    let forwards = config["nat_forwards"].as_str().unwrap_or("none");
    let name = config["host_hostuuid"].as_str().map_or_else(|| jail_of(path), str::to_owned);
    let jail = Some(name)
        .filter(|name| !name.is_empty())
        .map_or(String::new(), |name| format!("ioc-{}", name.replace('.', "_")));
    let mut found = vec![];
    let each = forwards.split(',').map(str::trim).filter(|forward| !forward.is_empty() && *forward != "none");
    for forward in each {
        let (protocol, ports) = match forward.strip_suffix(')').and_then(|f| f.split_once('(')) {
            Some(parts) => parts,
            None => ("tcp", forward),
        };
        let (to, host) = ports.split_once(':').unwrap_or((ports, ports));
        found.push(Port {
            from: format!("{from}: {forward}"),
            jail: jail.clone(),
            host: host.trim().to_owned(),
            ports: to.trim().to_owned(),
            protocols: protocol.split('/').map(|name| name.trim().to_owned()).collect(),
            ..Port::default()
        });
    }
    Ok(found)
}
