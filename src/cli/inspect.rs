//! The commands that only look: parse, rules, list, help, completions.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::Result;
use crate::publisher;
use crate::rule;
use crate::spec;

use super::args::{Cli, Global, ListArgs, ParseArgs, RequestArgs};
use super::output::{Shown, document, print, raw};
use super::request::request;
use super::session::{host, session};
use super::{help as topics, show, watch};

/// `kport parse`
pub fn parse(args: &ParseArgs) -> Result<()> {
    let spec = spec::parse(&args.specs.join(" "))?;
    print(&match args.json {
        true => document(&show::mappings_json(spec.mappings())),
        false => show::mappings(spec.mappings()),
    })
}

/// `kport rules`
pub fn rules(global: &Global, args: &RequestArgs) -> Result<()> {
    // no firewall is asked, so that one which is not there is no reason to fail
    let host = if global.host.is_some() { session(global)?.host } else { host(global)? };
    print(&rule::text(&publisher::rules(&*host, &request(args)?)?))
}

/// `kport list`
pub fn list(global: &Global, args: &ListArgs) -> Result<()> {
    if args.watch {
        return watch::run(global, args.jail.as_ref(), args.interval);
    }
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let (publisher, jail) = (session.publisher(&observer)?, args.jail.as_ref());
    // only the document shows counters
    print(&match args.json {
        true => document(&show::list_json(&publisher.list_with_counters(jail)?)),
        false => show::list(&publisher.list(jail)?),
    })
}

/// `kport help spec`, `kport help pf`; what is about a command is clap's, see [`Cli::checked`]
pub fn help(word: Option<&str>) -> Result<()> {
    print(word.and_then(topics::topic).unwrap_or_default())
}

/// `kport completions`
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "kport", &mut script);
    // nothing of it is anybody else's text, and a tab has to stay one
    raw(&script).map(|_| ())
}
