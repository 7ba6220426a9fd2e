//! `kport publish` and `kport unpublish`.

use std::io::Read;
use std::path::Path;

use crate::container::kleene;
use crate::error::{Error, Kind, Result, error};
use crate::name::JailName;
use crate::options::Given;
use crate::publisher::{Outcome, Publisher, Request};
use crate::spec::{self, HostPorts};

use super::args::{Global, PublishArgs, RequestArgs, UnpublishArgs};
use super::output::{self, document, print};
use super::{hook, host, open, with_publisher};

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

/// After a poststart hook that fails, jail(8) removes the jail without its poststop lines, which would remove its interfaces.
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
    if args.options.iter().any(|(name, _)| *name == "no-jail") && (args.hook || args.kleene.is_some()) {
        return Err(Error::new(Kind::Argument, "--no-jail cannot be used with --hook or --kleene, which name a jail"));
    }
    let mut request = match &args.kleene {
        _ if args.hook => {
            let host = host(global)?;
            let words = (args.request.jail.as_ref(), &args.request.specs[..]);
            let (caller, specs) = hook::caller(words, args.jid, args.state.as_deref(), &*host)?;
            if !args.dry_run {
                caller.check_started(&*host)?;
            }
            if specs.is_empty() {
                return publish_lines(global, args, &caller);
            }
            let mut of_caller = RequestArgs { jail: Some(caller.jail), ..args.request.clone() };
            of_caller.specs = specs.into_iter().map(str::to_owned).collect();
            if of_caller.addresses.is_empty() {
                of_caller.addresses = caller.addresses;
            }
            Request { jid: caller.jid, ..of_caller.request()? }
        }
        Some(file) => of_kleene(&args.request, file)?,
        None => args.request.request()?,
    };
    request.jid = request.jid.or(args.jid);
    args.options.set(&mut request)?;
    let act = |publisher: &Publisher<'_>| publisher.publish(&request);
    publish_by(global, args, std::slice::from_ref(&request), act)
}

/// Publishes requests by `act`, or tries each.
fn publish_by(
    global: &Global, args: &PublishArgs, requests: &[Request], act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>,
) -> Result<()> {
    if args.dry_run {
        let mut requests = requests.iter();
        return requests.try_for_each(|request| change(global, |by| by.dry_run(request)).map(drop));
    }
    // in addition to the time of a change
    let wait = requests.iter().map(|request| request.wait).max().unwrap_or_default();
    let waiting = Global { timeout: global.timeout.saturating_add(wait), ..global.clone() };
    let outcome = change(&waiting, act)?;
    // the caller does not know the ports that were chosen
    let auto = requests.iter().flat_map(|request| request.spec.mappings()).any(|m| m.host == HostPorts::Auto);
    match args.json {
        true => print(&document(&output::outcome_json(&outcome))),
        false if auto && !global.quiet => print(&output::lines(&outcome.redirects)),
        false => Ok(()),
    }
}

/// The request for the ports of Kleene's records, and for their addresses if no others are given.
fn of_kleene(args: &RequestArgs, file: &Path) -> Result<Request> {
    let mut json = String::new();
    let read = open(file).and_then(|file| file.take(kleene::MAX_TEXT as u64 + 1).read_to_string(&mut json));
    read.map_err(|e| Error::io(format_args!("read {}", file.display()), &e))?;
    let ports = kleene::parse(&json)?;
    let mut request = args.request_for(ports.spec)?;
    if request.addresses.is_empty() {
        request.addresses = ports.addresses;
    }
    Ok(request)
}

/// `publish --hook` without ports: the lines of kport.conf(5) for the jail, which may be none.
fn publish_lines(global: &Global, args: &PublishArgs, caller: &crate::managers::Caller) -> Result<()> {
    let mut given = args.request.options.iter().chain(args.options.iter());
    if let Some((option, _)) = given.find(|(name, _)| *name != "wait") {
        return Err(error!(
            Argument,
            "--{option} needs the ports; without them, the options are those of the lines in kport.conf"
        ));
    }
    let conf = crate::conf::Conf::read(global.config.as_deref())?;
    let mut requests: Vec<Request> = conf.of(&caller.jail).map(|line| line.request(&caller.jail)).collect();
    for request in &mut requests {
        request.jid = caller.jid;
        if request.addresses.is_empty() {
            let addresses = if args.request.addresses.is_empty() { &caller.addresses } else { &args.request.addresses };
            request.set("address", &Given::List(addresses.clone()))?;
        }
        args.options.set(request)?;
    }
    publish_by(global, args, &requests, |publisher| {
        // before the jail exists: exec.prestart
        if !requests.is_empty() && host(global)?.running(caller.jail.as_str())?.is_none() {
            return publisher.publish_all(&requests);
        }
        publisher.follow(&caller.jail, Some(&requests))
    })
}

pub fn unpublish(global: &Global, args: &UnpublishArgs) -> Result<()> {
    if args.hook {
        // an error must not keep a jail from stopping
        let stopped = || {
            let words = (args.jail.as_ref(), &args.specs[..]);
            let (caller, specs) = hook::caller(words, args.jid, args.state.as_deref(), &*host(global)?)?;
            remove(global, &caller.jail, caller.jid, &specs)
        };
        stopped().unwrap_or_else(|error| hook::stops_anyway("jail", &error));
        return Ok(());
    }
    let Some(jail) = &args.jail else { return Err(Error::new(Kind::Argument, "name the jail")) };
    remove(global, jail, args.jid, &args.specs.iter().map(String::as_str).collect::<Vec<_>>())
}

fn remove(global: &Global, jail: &JailName, jid: Option<i32>, specs: &[&str]) -> Result<()> {
    let some = if specs.is_empty() { None } else { Some(spec::parse(&specs.join(" "))?) };
    change(global, |publisher| match &some {
        None => publisher.unpublish(jail, jid),
        Some(spec) => publisher.unpublish_some(jail, jid, spec),
    })?;
    Ok(())
}

pub fn change(global: &Global, act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>) -> Result<Outcome> {
    with_publisher(global, |session, publisher| {
        let outcome = act(publisher)?;
        output::outcome(session, &outcome, global.quiet);
        Ok(outcome)
    })
}
