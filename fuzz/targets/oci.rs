//! Any bytes as the state that an OCI runtime passes to its hook: a start publishes what the hook allows, of the jail of the id, or
//! nothing; a stop removes it.

#![no_main]

use std::sync::LazyLock;

use kport::container::oci::{self, Allowed, State};
use kport::container::{Overrides, Program};
use kport::error::Result;
use kport::host::Fixed;
use kport::publisher::{Observer, Outcome, Unobserved};
use kport::session::{Backend, Session, Settings};
use libfuzzer_sys::fuzz_target;

static STATE: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

struct Runtime;

impl Program for Runtime {
    fn session(&self, overrides: Overrides) -> Result<Session> {
        assert_eq!(overrides, Overrides::default());
        let host: Fixed = r#"{
            "gateway": { "inet": "em0" },
            "interfaces": [
                { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24" ] },
                { "name": "bridge0", "groups": [ "bridge" ], "up": true, "addresses": [ "10.88.0.1/16" ] }
            ],
            "jails": [ { "jid": 7, "name": "blue", "vnet": true } ],
            "vnet_addresses": { "blue": [ "10.88.0.5" ] },
            "sysctls": { "net.inet.ip.forwarding": 1 },
            "boot_id": "first"
        }"#
        .parse()?;
        let state_dir = Some(STATE.path().to_owned());
        Session::new(&Settings { backend: Backend::Sim, state_dir, ..Settings::default() }, Box::new(host))
    }

    fn observer(&self) -> &dyn Observer {
        &Unobserved
    }

    fn report(&self, _: &Session, _: &Outcome) {}
}

fuzz_target!(|bytes: &[u8]| {
    // the runtime writes it, and not an image: another jid is another start of the jail
    if bytes.windows(4).any(|word| word == b".jid") {
        return;
    }
    let Some(state) = State::read(bytes) else { return };
    let list = || {
        let session = Runtime.session(Overrides::default()).unwrap();
        session.publisher(&Unobserved).unwrap().list(None).unwrap()
    };
    let allowed = Allowed { ports: vec!["1024-65535".parse().unwrap()], places: vec![] };
    if let Err(error) = oci::start(&state, &allowed, &Runtime) {
        assert!(!error.message().is_empty() && !error.message().contains(char::is_control), "{error:?}");
    }
    for listed in list() {
        assert_eq!(listed.jail.unwrap().as_str(), "blue");
        for (redirect, _) in listed.redirects {
            assert_eq!(
                (redirect.target.to_string().as_str(), redirect.place.to_string().as_str()),
                ("10.88.0.5", "em0")
            );
            assert!(redirect.host.first() >= 1024, "{redirect}");
        }
    }
    _ = oci::stop(&state, &Runtime);
    assert_eq!(list(), []);
});
