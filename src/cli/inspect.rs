//! The commands that only read: parse, rules, list, completions.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::Result;
use crate::{publisher, rule, spec};

use super::args::{Cli, Global, ListArgs, RequestArgs};
use super::output::{self, document, print, raw};
use super::{host, session, traffic, with_publisher};

/// `kport parse`
pub fn parse(json: bool, specs: &[String]) -> Result<()> {
    let spec = spec::parse(&specs.join(" "))?;
    print(&match json {
        true => document(&output::mappings_json(spec.mappings())),
        false => output::lines(spec.mappings()),
    })
}

/// `kport rules`
pub fn rules(global: &Global, args: &RequestArgs) -> Result<()> {
    // the firewall is not needed, so a missing one is not an error
    let host = if global.host.is_some() { session(global)?.host } else { host(global)? };
    print(&rule::text(&publisher::rules(&*host, &args.request()?)?))
}

/// `kport list`
pub fn list(global: &Global, args: &ListArgs) -> Result<()> {
    let jail = args.jail.as_ref();
    if args.watch {
        return traffic::watch(global, jail, args.interval);
    }
    with_publisher(global, |_, publisher| {
        // only the document shows counters
        print(&match args.json {
            true => document(&output::list_json(&publisher.list_with_counters(jail)?)),
            false => output::list(&publisher.list(jail)?),
        })
    })
}

/// `kport completions`
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "kport", &mut script);
    // all of it is kport's own text, and tabs must be kept
    raw(&script).map(|_| ())
}
