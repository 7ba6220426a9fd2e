//! kport(8): the helper for shell hooks and for people. Arguments in, Rust API, exit status out.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use kport::error::{Error, Kind, Result};

use cli::args::{Cli, Command, USAGE};
use cli::{change, cni, diagnose, hook, import, inspect, metrics, oci, output, session, setup, trace};

fn main() -> ExitCode {
    if let Err(error) = session::refuse_borrowed_rights() {
        return failed(&error);
    }
    let cli = match Cli::try_parse_from(cni::command_line()).and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(error) => {
            let is_answer = !error.use_stderr();
            let text = output::usage(error);
            let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
            return match is_answer {
                true => ExitCode::SUCCESS,
                false if hook::is_stop(arguments) => {
                    hook::log(&text.replace('\n', " "));
                    ExitCode::SUCCESS
                }
                false => ExitCode::from(USAGE),
            };
        }
    };
    if let Command::Cni = cli.command {
        // its errors are for a program, which reads them from standard output
        return cni::run(&cli.global);
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> ExitCode {
    output::complain(error);
    ExitCode::from(u8::try_from(error.kind().number()).unwrap_or(u8::MAX))
}

fn run(Cli { global, command }: Cli) -> Result<()> {
    match command {
        Command::Parse(args) => inspect::parse(&args),
        Command::Rules(args) => inspect::rules(&global, &args),
        Command::Publish(args) => change::publish(&global, &args),
        Command::Unpublish(args) => change::unpublish(&global, &args),
        Command::List(args) => inspect::list(&global, &args),
        Command::Trace(question) => trace::run(&global, &question),
        Command::Restore(args) => change::restore(&global, &args),
        Command::Import(args) => import::run(&global, &args),
        Command::Setup(args) => setup::run(&global, &args),
        Command::Doctor(args) => diagnose::run(&global, &args),
        Command::OciHook => oci::run(&global),
        Command::Cni => unreachable!("answered in main"),
        Command::Gc(args) => change::gc(&global, &args),
        Command::Metrics => metrics::run(&global),
        Command::Completions { shell } => inspect::completions(shell),
        Command::Help { word } => inspect::help(word.as_deref()),
    }
}

const _: () = assert!(Kind::Internal as i32 <= u8::MAX as i32);
