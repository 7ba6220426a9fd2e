//! Opens a session from the global options: the firewall, the state directory, the host.

use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::host::{self, Host};
use crate::pf::{WithConf, pfctl};
use crate::pfconf::Conf;
use crate::publisher::Publisher;
use crate::session::{Backend, Session, Settings};

use super::args::Global;
use super::output::{Shown, complain};

/// The user of the helper chooses the pfctl(8) that it runs and the directory that it writes to, so a setuid bit on it would make
/// every user root.
pub fn refuse_borrowed_rights() -> Result<()> {
    if !host::has_borrowed_rights() {
        return Ok(());
    }
    let why =
        "it runs setuid or setgid, with the rights of another user; remove that bit with chmod(1), and run it as root";
    Err(Error::new(Kind::Permission, why))
}

/// The session of a command that may change something: ports of a described host must not be published in the pf of this one.
pub fn session(global: &Global) -> Result<Session> {
    let session = any_session(global)?;
    if global.host.is_some() && session.redirects_packets() {
        return Err(Error::new(Kind::Argument, "--host describes another host; use it with --backend sim"));
    }
    Ok(session)
}

pub fn with_publisher<T>(global: &Global, act: impl FnOnce(&Session, &Publisher<'_>) -> Result<T>) -> Result<T> {
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    act(&session, &session.publisher(&observer)?)
}

pub fn with_conf(mut session: Session, file: Option<&Path>) -> Result<Session> {
    if let Some(file) = file {
        session.firewall = Box::new(WithConf::new(Conf::of_file(file)?, session.firewall));
    }
    Ok(session)
}

/// The session of a command that only reads.
pub fn any_session(global: &Global) -> Result<Session> {
    let backend = match (global.backend, std::env::var("KPORT_BACKEND")) {
        (Some(backend), _) => backend,
        (None, Ok(name)) if !name.is_empty() => {
            name.parse().map_err(|e: Error| e.context("environment variable KPORT_BACKEND"))?
        }
        _ => Backend::default(),
    };
    let state_dir = global
        .state_dir
        .clone()
        .or_else(|| std::env::var_os("KPORT_STATE_DIR").filter(|dir| !dir.is_empty()).map(Into::into));
    let settings = Settings { backend, state_dir, timeout: global.timeout, pfctl: global.pfctl.clone() };
    let trace: Option<Box<pfctl::Trace>> = (global.verbose > 0).then(|| {
        let shown = Shown::new(global.verbose);
        Box::new(move |run: &pfctl::Invocation<'_>| shown.line(1, &run.to_string())) as _
    });
    let session = Session::traced(&settings, host(global)?, trace)?;
    if global.verbose > 0 {
        complain(&session.why());
    }
    Ok(session)
}

pub fn host(global: &Global) -> Result<Box<dyn Host>> {
    let Some(file) = &global.host else { return Ok(Box::new(host::System)) };
    Ok(Box::new(host::Played::new(file)?))
}
