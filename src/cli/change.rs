//! The commands that change something: publish, unpublish, restore, gc.

use crate::error::{Error, Kind, Result};
use crate::name::JailName;
use crate::publisher::{Outcome, Publisher, Request};
use crate::spec::{self, HostPorts};

use super::args::{Global, JsonArgs, PublishArgs, RequestArgs, UnpublishArgs};
use super::hook;
use super::output::{self, Shown, complain, document, print};
use super::request::{of_kleene, request, set};
use super::session::{host, session};
use super::show;

/// `kport publish`
pub fn publish(global: &Global, args: &PublishArgs) -> Result<()> {
    publish_now(global, args).map_err(|error| {
        if !args.hook {
            return error;
        }
        let error = if args.dry_run { error } else { left_behind(global, error) };
        // a manager may discard the output of its hooks
        hook::log(&error.to_string());
        error
    })
}

/// After a poststart hook that fails, jail(8) removes the jail, but does not run its poststop lines, which would remove its
/// interfaces.
fn left_behind(global: &Global, error: Error) -> Error {
    let Some(name) = hook::variable("JNAME") else { return error };
    let jail = host(global).and_then(|host| host.running(&name)).ok().flatten();
    match jail {
        Some(jail) if jail.vnet => {
            error.and(format!("if the jail's interfaces are left behind, run (FreeBSD 15): jail -rC {name}"))
        }
        _ => error,
    }
}

fn publish_now(global: &Global, args: &PublishArgs) -> Result<()> {
    if args.options.iter().any(|(name, _)| name == "no-jail") && (args.hook || args.kleene.is_some()) {
        return Err(Error::new(Kind::Argument, "--no-jail cannot be used with --hook or --kleene, which name a jail"));
    }
    let mut request = match &args.kleene {
        _ if args.hook => hook_request(global, args)?,
        Some(file) => of_kleene(&args.request, file)?,
        None => request(&args.request)?,
    };
    request.jid = request.jid.or(args.jid);
    set(&mut request, args.options.iter())?;
    if args.dry_run {
        return change(global, Report::Nothing, |publisher| publisher.dry_run(&request));
    }
    let auto = request.spec.mappings().iter().any(|m| m.host == HostPorts::Auto);
    let report = match args.json {
        true => Report::Json,
        false if auto && !global.quiet => Report::Ports,
        false => Report::Nothing,
    };
    let global = Global { timeout: global.timeout.saturating_add(request.wait), ..global.clone() };
    change(&global, report, |publisher| publisher.publish(&request))
}

/// `publish --hook`: takes the jail, its jid and its addresses from the manager, unless they are given.
fn hook_request(global: &Global, args: &PublishArgs) -> Result<Request> {
    let host = host(global)?;
    let (name, specs) = hook::words(args.request.words());
    let caller = hook::caller((name, args.jid), args.state.as_deref(), &*host)?;
    if !args.dry_run {
        caller.check_started(&*host)?;
    }
    let mut of_caller = RequestArgs { jail: caller.jail.clone(), ..args.request.clone() };
    of_caller.specs = specs.into_iter().map(str::to_owned).collect();
    if of_caller.addresses.is_empty() {
        of_caller.addresses = caller.addresses;
    }
    let mut request = request(&of_caller)?;
    request.jid = caller.jid;
    Ok(request)
}

/// `kport unpublish`
pub fn unpublish(global: &Global, args: &UnpublishArgs) -> Result<()> {
    let UnpublishArgs { jail, specs, jid, hook, state: _ } = args;
    if *hook {
        stop(global, args);
        return Ok(());
    }
    let Some(jail) = jail else { return Err(Error::new(Kind::Argument, "name the jail")) };
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

/// `unpublish --hook`: an error here must not keep a jail from stopping. It is printed, and sent to syslogd(8), since a
/// manager may discard the output of its hooks.
fn stop(global: &Global, args: &UnpublishArgs) {
    let UnpublishArgs { jail, specs, jid, state, .. } = args;
    let words = jail.as_ref().map(JailName::as_str).into_iter().chain(specs.iter().map(String::as_str));
    let stopped = || -> Result<()> {
        let (name, specs) = hook::words(words);
        let caller = hook::caller((name, *jid), state.as_deref(), &*host(global)?)?;
        if !specs.is_empty() {
            let spec = spec::parse(&specs.join(" "))?;
            return change(global, Report::Nothing, |publisher| {
                publisher.unpublish_some(&caller.jail, caller.jid, &spec)
            });
        }
        change(global, Report::Nothing, |publisher| publisher.unpublish(&caller.jail, caller.jid))
    };
    if let Err(error) = stopped() {
        let line = format!("{error}; the jail stops anyway, and kport gc removes the remaining ports");
        complain(&line);
        hook::log(&line);
    }
}

/// The output of a change on standard output.
enum Report {
    Nothing,
    /// The redirects, a line each: the caller does not know the ports that were chosen.
    Ports,
    Json,
}

impl Report {
    fn json(args: &JsonArgs) -> Report {
        if args.json { Report::Json } else { Report::Nothing }
    }
}

/// Runs one change, reports its notes, and prints its outcome.
fn change(global: &Global, report: Report, act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>) -> Result<()> {
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let outcome = act(&session.publisher(&observer)?)?;
    output::outcome(&session, &outcome, global.quiet);
    match report {
        Report::Nothing => Ok(()),
        Report::Ports => print(&show::lines(&outcome.redirects)),
        Report::Json => print(&document(&show::outcome_json(&outcome))),
    }
}
