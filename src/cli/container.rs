//! `kport cni` and `kport oci-hook`: the commands for container runtimes.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use crate::container::cni::{self, MAX_INPUT, Operation};
use crate::container::oci::{self, Allowed};
use crate::container::{Overrides, Program};
use crate::error::{Error, Kind, Result};
use crate::managers::Environment;
use crate::publisher::{Observer, Outcome};
use crate::session::Session;

use super::args::{Global, OciHookArgs};
use super::output::{self, Shown};
use super::{hook, session};

/// The names by which a runtime may call the program, each with its command. A plugin is searched by its `type`; the name of a
/// hook is the first of its `args`, except with ocijail, which passes that as the first argument.
const NAMES: [(&str, &str); 3] = [("portmap", "cni"), ("kport-cni", "cni"), ("kport-oci-hook", "oci-hook")];

/// The command line, with the command that the name of the program selects: a runtime passes no arguments to its plugins.
pub fn command_line() -> Vec<OsString> {
    let mut line: Vec<OsString> = std::env::args_os().collect();
    let name = line.first().and_then(|program| std::path::Path::new(program).file_name()?.to_str());
    if let Some((_, command)) = NAMES.into_iter().find(|known| Some(known.0) == name) {
        line.insert(1, command.into());
    }
    line
}

struct Helper<'a> {
    global: &'a Global,
    observer: Shown,
}

impl Program for Helper<'_> {
    fn session(&self, overrides: Overrides) -> Result<Session> {
        let mut global = self.global.clone();
        global.backend = overrides.backend.or(global.backend);
        global.state_dir = overrides.state_dir.or(global.state_dir);
        global.timeout = overrides.timeout.unwrap_or(global.timeout);
        session(&global)
    }

    fn observer(&self) -> &dyn Observer {
        &self.observer
    }

    fn report(&self, session: &Session, outcome: &Outcome) {
        output::outcome(session, outcome, self.global.quiet);
    }
}

/// `kport cni`. The runtime reads errors from standard output.
pub fn cni(global: &Global) -> Result<ExitCode> {
    let helper = Helper { global, observer: Shown::new(global.verbose) };
    let answered = cni::answer(&Environment(&hook::variable), &configuration, &helper);
    let status = if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if let Ok(Some(document)) | Err(document) = answered {
        output::print(&format!("{document}\n"))?;
    }
    Ok(status)
}

/// Reads standard input to its end. For `VERSION` it may be missing.
fn configuration(operation: Operation) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut input = io::stdin().lock();
    if operation == Operation::Version && input.is_terminal() {
        return Ok(bytes);
    }
    let read = Read::by_ref(&mut input).take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io("read the network configuration from standard input", &e))?;
    Ok(bytes)
}

/// `kport oci-hook`. Fails if the ports of a container that starts could not be published; an error must not keep one from stopping.
pub fn oci_hook(global: &Global, args: &OciHookArgs) -> Result<()> {
    let Some(state) = hook::state_in("-".as_ref())? else {
        let why = "no OCI state on standard input; use oci-hook only in the configuration of a container runtime";
        return Err(Error::new(Kind::Argument, why));
    };
    let helper = Helper { global, observer: Shown::new(global.verbose) };
    if !state.has_stopped() {
        let allowed = Allowed { ports: args.allow_ports.clone(), places: args.allow_place.clone() };
        return oci::start(&state, &allowed, &helper);
    }
    oci::stop(&state, &helper).unwrap_or_else(|error| hook::stops_anyway("container", &error));
    Ok(())
}
