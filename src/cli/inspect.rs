//! The commands that only look: parse, rules, list.

use kport::error::Result;
use kport::publisher;
use kport::rule;
use kport::spec;

use super::args::{Global, ListArgs, ParseArgs, RequestArgs};
use super::output::{Shown, document, print};
use super::request::request;
use super::session::{host, session};
use super::show;

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
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let (publisher, jail) = (session.publisher(&observer)?, args.jail.as_ref());
    // only the document shows counters
    print(&match args.json {
        true => document(&show::list_json(&publisher.list_with_counters(jail)?)),
        false => show::list(&publisher.list(jail)?),
    })
}
