//! kport(8), the helper for shell hooks and administrators: its arguments, and how it prints the results of the library.
//!
//! A command is a variant of [`args::Command`] with its arguments, and a function of the module of its group: `change`
//! (publish, unpublish), `apply` (apply, check, watch), `inspect` (parse, rules, list, help, completions), `traffic` (metrics,
//! list --watch), `diagnose` (doctor, trace), `setup`, `import`, `container` (cni, oci-hook). All of them open the firewall
//! with `session`, and print with `output`.

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
mod session;
pub mod setup;
pub mod traffic;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use crate::error::{Error, Kind, Result};
use crate::files;

use args::{Cli, Command, USAGE};

/// Runs the helper with the arguments of the process. The value is its exit status.
pub(crate) fn main() -> ExitCode {
    files::in_helper();
    if let Err(error) = session::refuse_borrowed_rights() {
        return failed(&error);
    }
    let cli = match args::parse(&container::command_line()) {
        Ok(cli) => cli,
        Err(error) => {
            let is_answer = !error.use_stderr();
            let text = output::usage(error);
            return match is_answer {
                true => ExitCode::SUCCESS,
                false if args::is_stop(&container::command_line(), hook::is_stopped) => {
                    hook::log(&text.replace('\n', " "));
                    ExitCode::SUCCESS
                }
                false => ExitCode::from(USAGE),
            };
        }
    };
    run(cli).unwrap_or_else(|error| failed(&error))
}

fn failed(error: &Error) -> ExitCode {
    output::complain(error);
    ExitCode::from(u8::try_from(error.kind().number()).unwrap_or(u8::MAX))
}

fn run(Cli { global, command }: Cli) -> Result<ExitCode> {
    let done = match command {
        // has its own exit statuses
        Command::Cni => return Ok(container::cni(&global)),
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
        Command::Help { word } => inspect::help(word.as_deref()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Opens a file, or standard input for `-`.
fn open(file: &Path) -> io::Result<Box<dyn Read>> {
    Ok(if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(file)?) })
}

const _: () = assert!(Kind::Internal as i32 <= u8::MAX as i32);
