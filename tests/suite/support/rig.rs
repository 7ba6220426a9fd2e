//! What several tests use: a host, a state directory, and publishers with the simulator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::Result;
use kport::host::Fixed;
use kport::pf::Firewall;
use kport::pf::files::Sim;
use kport::publisher::{Listed, Observer, Outcome, Publisher, Request, Unobserved};
use kport::rule;
use kport::store::Store;

/// The host of FreeBSD 15.1's recordings: two outer interfaces, two bridges, jails on them.
pub fn host() -> Fixed {
    r#"{
        "gateway": { "inet": "em0", "inet6": "em0" },
        "gateways": [
            { "interface": "em0", "address": "192.0.2.254", "default": true },
            { "interface": "em1", "address": "198.51.100.254" }
        ],
        "interfaces": [
            { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24", "192.0.2.7/32", "2001:db8::1/64" ] },
            { "name": "em1", "up": true, "addresses": [ "198.51.100.1/24" ] },
            { "name": "bridge0", "groups": [ "bridge" ], "up": true, "addresses": [ "10.0.0.1/24", "fd00::1/64" ] },
            { "name": "bridge1", "groups": [ "bridge" ], "up": true, "addresses": [ "10.1.0.1/24" ] },
            { "name": "lo0", "groups": [ "lo" ], "up": true, "addresses": [ "127.0.0.1/8", "::1/128" ] },
            { "name": "lo1", "groups": [ "lo" ], "up": true, "addresses": [ "10.9.0.2/32" ] }
        ],
        "jails": [
            { "jid": 2, "name": "web", "vnet": true },
            { "jid": 3, "name": "db", "vnet": true },
            { "jid": 5, "name": "flat", "addresses": [ "10.9.0.2" ] },
            { "jid": 6, "name": "hosty", "inherits": { "inet": true, "inet6": true } }
        ],
        "vnet_addresses": { "web": [ "10.0.0.2", "fd00::2" ], "db": [ "10.0.0.3" ] },
        "listeners": [
            { "protocol": "tcp", "families": { "inet": true, "inet6": true }, "port": 22 },
            { "protocol": "tcp", "families": { "inet": true }, "address": "10.9.0.2", "port": 80 },
            { "protocol": "udp", "families": { "inet": true }, "address": "192.0.2.7", "port": 53 }
        ],
        "sysctls": { "net.inet.ip.forwarding": 1, "net.inet6.ip6.forwarding": 1 },
        "boot_id": "first"
    }"#
    .parse()
    .unwrap()
}

/// A request for `jail`; everything else is read from the host.
pub fn request(jail: &str, spec: &str) -> Request {
    Request::new(jail.parse().unwrap(), spec.parse().unwrap())
}

/// A state directory and a host.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub host: Fixed,
}

impl Rig {
    pub fn new() -> Rig {
        Rig { dir: tempfile::tempdir().unwrap(), host: host() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn state(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn sim(&self) -> Sim {
        Sim::new(self.path())
    }

    /// Runs `act` with a publisher and `firewall`.
    pub fn with<T>(
        &self, firewall: &dyn Firewall, observer: &dyn Observer, act: impl FnOnce(&Publisher<'_>) -> T,
    ) -> T {
        run(self.path(), &self.host, firewall, observer, act)
    }

    pub fn publish(&self, request: &Request) -> Result<Outcome> {
        self.with(&self.sim(), &Unobserved, |p| p.publish(request))
    }

    pub fn unpublish(&self, jail: &str) -> Result<Outcome> {
        self.with(&self.sim(), &Unobserved, |p| p.unpublish(&jail.parse().unwrap(), None))
    }

    pub fn list(&self) -> Vec<Listed> {
        self.with(&self.sim(), &Unobserved, |p| p.list(None)).unwrap()
    }

    /// Every rule in the simulator, as text, by anchor.
    pub fn loaded(&self) -> Vec<(String, String)> {
        let sim = self.sim();
        let anchors = sim.anchors().unwrap();
        anchors
            .into_iter()
            .map(|child| {
                let anchor = kport::name::Anchor::from_child(&child).unwrap();
                let text = rule::text(&sim.rules(&anchor).unwrap());
                (child, text)
            })
            .collect()
    }
}

/// Runs `act` with a publisher and a state directory.
pub fn run<T>(
    dir: &Path, host: &Fixed, firewall: &dyn Firewall, observer: &dyn Observer, act: impl FnOnce(&Publisher<'_>) -> T,
) -> T {
    let deadline = Deadline::after(Duration::from_secs(60));
    act(&Publisher::new(host, firewall, Store::open(dir).unwrap(), deadline, observer))
}

/// The files under a directory, by their paths below it, sorted.
pub fn files(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, top: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, top, found);
            } else {
                found.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = vec![];
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// A file with another text of the same length in place of one that it has.
pub fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    assert_eq!(from.len(), to.len());
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}
