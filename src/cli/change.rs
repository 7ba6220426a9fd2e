//! The commands that change something: publish, unpublish, restore, gc.

use kport::error::Result;
use kport::publisher::{Outcome, Publisher};
use kport::sim;
use kport::spec::{self, HostPorts};

use super::args::{Global, JsonArgs, PublishArgs, UnpublishArgs};
use super::output::{Shown, complain, document, print};
use super::request::request;
use super::session::session;
use super::show;

/// `kport publish`
pub fn publish(global: &Global, args: &PublishArgs) -> Result<()> {
    let mut request = request(&args.request)?;
    request.jid = args.jid;
    request.add = args.add;
    request.auto_range = args.auto_range;
    request.force = args.force;
    request.allow_inert = args.allow_inert;
    let auto = request.spec.mappings().iter().any(|m| m.host == HostPorts::Auto);
    let report = match args.json {
        true => Report::Json,
        false if auto && !global.quiet => Report::Ports,
        false => Report::Nothing,
    };
    change(global, report, |publisher| publisher.publish(&request))
}

/// `kport unpublish`
pub fn unpublish(global: &Global, args: &UnpublishArgs) -> Result<()> {
    let UnpublishArgs { jail, specs, jid } = args;
    if specs.is_empty() {
        return change(global, Report::Nothing, |publisher| publisher.unpublish(jail, *jid));
    }
    let spec = spec::parse(&specs.join(" "))?;
    change(global, Report::Nothing, |publisher| publisher.unpublish_some(jail, *jid, &spec))
}

/// `kport restore`
pub fn restore(global: &Global, args: &JsonArgs) -> Result<()> {
    change(global, Report::json(args), |publisher| publisher.restore())
}

/// `kport gc`
pub fn gc(global: &Global, args: &JsonArgs) -> Result<()> {
    change(global, Report::json(args), |publisher| publisher.gc())
}

/// What a change prints on standard output.
enum Report {
    Nothing,
    /// The redirects, a line each: somebody chose ports that the caller does not know.
    Ports,
    Json,
}

impl Report {
    fn json(args: &JsonArgs) -> Report {
        if args.json { Report::Json } else { Report::Nothing }
    }
}

/// Runs one change, says what there is to say, and prints its outcome.
fn change(global: &Global, report: Report, act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>) -> Result<()> {
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let outcome = act(&session.publisher(&observer)?)?;
    if outcome.changed && session.firewall.name() == "sim" {
        complain(&sim::NOTICE);
    }
    if !global.quiet {
        for note in &outcome.notes {
            complain(note);
        }
    }
    match report {
        Report::Nothing => Ok(()),
        Report::Ports => print(&show::redirects(&outcome.redirects)),
        Report::Json => print(&document(&show::outcome_json(&outcome))),
    }
}
