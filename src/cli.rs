//! kport(8), the helper for shell hooks and administrators: its arguments, and how it prints the results of the library.
//!
//! A command is a variant of [`args::Command`] with its arguments, and a function of the module of its group: `change`
//! (publish, unpublish), `apply` (apply, check, watch), `inspect` (parse, rules, list, completions), `traffic` (metrics,
//! list --watch), `diagnose` (doctor, trace), `setup`, `import`, `container` (cni, oci-hook). All of them open a
//! [`session`], and print with `output`.

mod apply;
pub mod args;
mod change;
mod container;
mod diagnose;
mod flags;
mod help;
pub mod hook;
mod import;
mod inspect;
mod output;
pub mod setup;
pub mod traffic;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use crate::error::{Error, Kind, Result, error};
use crate::host::{self, Host};
use crate::pf::{WithConf, pfctl};
use crate::pfconf::Conf;
use crate::publisher::Publisher;
use crate::session::{Backend, Session, Settings};

use args::{Cli, Command, Global, USAGE};
use output::{Shown, complain};

/// Runs the helper with the arguments of the process. The value is its exit status.
pub(crate) fn main() -> ExitCode {
    crate::files::in_helper();
    // its user chooses its pfctl(8) and its directory, so a setuid bit on it would make every user root
    if host::has_borrowed_rights() {
        return failed(&error!(
            Permission,
            "it runs setuid or setgid, with the rights of another user; remove that bit with chmod(1), and run it as root"
        ));
    }
    match args::parse(&container::command_line()) {
        Ok(cli) => run(cli).unwrap_or_else(|error| failed(&error)),
        Err(error) => usage(error),
    }
}

/// Prints what clap(3) says; the value is the exit status.
fn usage(error: clap::Error) -> ExitCode {
    let is_answer = !error.use_stderr();
    let text = output::usage(error);
    match is_answer {
        true => ExitCode::SUCCESS,
        false if args::is_stop(&container::command_line(), hook::is_stopped) => {
            hook::log(hook::LOG_ERR, &text.replace('\n', " "));
            ExitCode::SUCCESS
        }
        false => ExitCode::from(USAGE),
    }
}

fn failed(error: &Error) -> ExitCode {
    output::complain(error);
    ExitCode::from(u8::try_from(error.kind().number()).unwrap_or(u8::MAX))
}

fn run(Cli { global, command }: Cli) -> Result<ExitCode> {
    let done = match command {
        // has its own exit statuses
        Command::Cni => return container::cni(&global),
        Command::Parse { json, specs } => inspect::parse(json, &specs),
        Command::Rules(args) => inspect::rules(&global, &args),
        Command::Publish(args) => change::publish(&global, &args),
        Command::Unpublish(args) => change::unpublish(&global, &args),
        Command::Apply(args) => apply::apply(&global, &args),
        Command::Check { file } => apply::check(&global, file.as_deref()),
        Command::List(args) => inspect::list(&global, &args),
        Command::Trace(question) => diagnose::trace(&global, &question),
        Command::Import(args) => import::run(&global, &args),
        Command::Setup(args) => setup::run(&global, &args),
        Command::Doctor(args) => diagnose::doctor(&global, &args),
        Command::OciHook(args) => container::oci_hook(&global, &args),
        Command::Watch { json } => apply::watch(&global, json),
        Command::Metrics => traffic::metrics(&global),
        Command::Completions { shell } => inspect::completions(shell),
        Command::Help { word } => match word.as_deref().and_then(help::topic) {
            Some(text) => output::print(text),
            None => return Ok(args::help(word.as_deref()).map_or(ExitCode::SUCCESS, usage)),
        },
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// The text of a file, or of standard input for `-`.
fn text(file: &Path) -> Result<String> {
    let mut bytes = vec![];
    let read = match file == Path::new("-") {
        true => io::stdin().read_to_end(&mut bytes),
        false => File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|e| error!(Argument, "read {}: {e}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
