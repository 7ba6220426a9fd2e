//! Which firewall a session has.

use kport::error::{Kind, Result};
use kport::host::Fixed;
use kport::session::{Backend, Session, Settings};

fn session(backend: Backend) -> Result<Session> {
    let settings = Settings { backend, state_dir: Some("/nonexistent".into()), ..Settings::default() };
    Session::new(&settings, Box::new(Fixed::default()))
}

#[test]
fn every_word_is_read_and_no_other() {
    let all = [Backend::Auto, Backend::Native, Backend::Pfctl, Backend::Sim];
    assert_eq!(Backend::NAMES.map(|name| name.parse::<Backend>().unwrap()), all);
    let error = "macos".parse::<Backend>().unwrap_err();
    assert_eq!(error.kind(), Kind::Argument);
    assert!(Backend::NAMES.iter().all(|name| error.message().contains(name)), "{error}");
}

#[test]
fn a_backend_that_was_asked_for_is_that_one() {
    for (backend, name) in [(Backend::Pfctl, "pfctl"), (Backend::Sim, "sim")] {
        assert_eq!(session(backend).unwrap().why(), format!("backend {name}: it was requested"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn off_freebsd_auto_is_the_simulator_and_native_is_refused() {
    assert_eq!(session(Backend::Auto).unwrap().why(), "backend sim: linux has no pf");
    let error = session(Backend::Native).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("/dev/pf of FreeBSD"), "{error}");
}
