//! pot, including Nomad's pot driver: pot.conf of a pot, and that of pot itself.

use std::path::Path;

use super::import::{jail_of, lines, words};
use super::{Environment, Exports, Identity, Manager, Port, Root, TextOf};
use crate::error::{Problem, Result};
use crate::pfconf::PF_CONF;

/// The maximum number of addresses of one pot: `_POT_IP_0` and those after it.
const ADDRESSES: usize = 64;

/// The variable with the jail's name.
const NAME: &str = "_POT_NAME";

pub(super) const POT: Manager = Manager {
    variable: Some(NAME),
    identity,
    exports: Some(Exports { files: "pot.conf of a pot", read: pot_conf }),
    replaces_ruleset,
    ..Manager::named("pot")
};

/// `_POT_NAME`, `_POT_JID` while the pot runs, `_POT_IP`, and `_POT_IP_0` and those after it (share/pot/info.sh).
fn identity(environment: &Environment<'_>) -> Result<Option<Identity>> {
    let Some(name) = environment.get(NAME) else { return Ok(None) };
    let numbered = (0..ADDRESSES).map(|n| format!("_POT_IP_{n}"));
    let all = std::iter::once("_POT_IP".to_owned()).chain(numbered);
    let mut addresses: Vec<String> = vec![];
    for address in all.filter_map(|name| environment.get(&name)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let jid = environment.jid("_POT_JID")?;
    Ok(Some(Identity { name: Some(name), jid, addresses, ..Identity::by("pot's _POT_NAME") }))
}

fn replaces_ruleset(root: &Root<'_>) -> Option<Problem> {
    let seen = format!(
        "pot loads {PF_CONF} again if its own anchors are missing from the main ruleset, and that file does not call kport's anchors"
    );
    let uses_it = root.below("/usr/local/etc/pot/pot.conf".as_ref()).exists();
    root.without_calls(PF_CONF.as_ref(), seen).filter(|_| uses_it)
}

/// `pot.export.ports=[udp:]POT[:HOST] ...`, without a host port a free one (start.sh).
fn pot_conf(path: &Path, text: TextOf<'_>) -> Result<Vec<Port>> {
    let mut found = vec![];
    for (from, line) in lines(path, &text(path)?) {
        let Some(value) = line.trim().strip_prefix("pot.export.ports=") else { continue };
        for word in words(value) {
            let (protocol, ports) = match word.split_once(':') {
                Some((protocol @ ("tcp" | "udp"), ports)) => (protocol, ports),
                _ => ("tcp", word),
            };
            let (to, host) = ports.split_once(':').unwrap_or((ports, "auto"));
            found.push(Port {
                from: from.clone(),
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
