//! Any bytes on the standard input of the CNI plugin, with each command and the simulator: they are answered or refused, and `DEL`
//! removes what `ADD` has published.

#![no_main]

use std::sync::LazyLock;

use kport::container::cni;
use kport::container::{Overrides, Program};
use kport::error::Result;
use kport::host::Fixed;
use kport::managers::Environment;
use kport::publisher::{Observer, Outcome, Unobserved};
use kport::session::{Backend, Session, Settings};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static STATE: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// A separate host, whatever state directory and backend the document has.
struct Runtime;

impl Program for Runtime {
    fn session(&self, _: Overrides) -> Result<Session> {
        let host: Fixed = r#"{
            "gateway": { "inet": "em0", "inet6": "em0" },
            "interfaces": [ { "name": "em0", "up": true, "addresses": [ "192.0.2.1/24", "2001:db8::1/64" ] } ],
            "jails": [ { "jid": 7, "name": "blue", "vnet": true } ],
            "sysctls": { "net.inet.ip.forwarding": 1, "net.inet6.ip6.forwarding": 1 },
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

fn run(command: &str, bytes: &[u8]) -> std::result::Result<Option<Value>, Value> {
    let variables = |name: &str| match name {
        "CNI_COMMAND" => Some(command.to_owned()),
        "CNI_CONTAINERID" => Some("c0ffee".to_owned()),
        "CNI_IFNAME" => Some("eth0".to_owned()),
        "CNI_NETNS" => Some("blue".to_owned()),
        _ => None,
    };
    let answer = cni::answer(&Environment(&variables), &|_| Ok(bytes.to_vec()), &Runtime);
    if let Err(error) = &answer {
        let details = error["details"].as_str().expect("an error has details");
        assert!(!details.is_empty() && !details.contains(char::is_control), "{error}");
        assert_ne!(error["code"], 999, "{error}");
    }
    answer
}

fuzz_target!(|bytes: &[u8]| {
    _ = run("VERSION", bytes);
    let added = run("ADD", bytes);
    for command in ["CHECK", "STATUS", "GC"] {
        _ = run(command, bytes);
    }
    let Ok(result) = added else { return };
    assert!(result.is_some_and(|result| result["cniVersion"].is_string()));
    assert_eq!(run("DEL", bytes), Ok(None));
    let session = Runtime.session(Overrides::default()).unwrap();
    assert_eq!(session.publisher(&Unobserved).unwrap().list(None).unwrap(), []);
});
