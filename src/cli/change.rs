//! `kport publish` and `kport unpublish`.

use std::path::Path;

use crate::container::kleene;
use crate::error::{Error, Kind, Result, error};
use crate::name::JailName;
use crate::options::Given;
use crate::publisher::{Outcome, Publisher, Request};
use crate::spec::{self, HostPorts};

use super::args::{Global, PublishArgs, RequestArgs, UnpublishArgs};
use super::output::{self, document, print};
use super::{hook, host, text, with_publisher};

pub fn publish(global: &Global, args: &PublishArgs) -> Result<()> {
    publish_now(global, args).map_err(|error| {
        if !args.hook {
            return error;
        }
        let error = if args.dry_run { error } else { left_behind(global, error) };
        // a manager may discard the output of its hooks
        hook::log(hook::LOG_ERR, &error.to_string());
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
    // the jail that is to have the lines of kport.conf(5), and nothing else of them
    let mut follows = None;
    let mut requests = match &args.kleene {
        _ if args.hook => {
            let host = host(global)?;
            let words = (args.request.jail.as_ref(), &args.request.specs[..]);
            let (caller, specs) = hook::caller(words, args.jid, args.state.as_deref(), &*host)?;
            if !args.dry_run {
                caller.check_started(&*host)?;
            }
            let mut of_caller = RequestArgs { jail: Some(caller.jail.clone()), ..args.request.clone() };
            of_caller.specs = specs.into_iter().map(str::to_owned).collect();
            if of_caller.addresses.is_empty() {
                of_caller.addresses = caller.addresses;
            }
            let mut requests = match of_caller.specs.is_empty() {
                true => lines(global, &caller.jail, &of_caller, args)?,
                false => vec![of_caller.request()?],
            };
            // it does not exist yet in exec.prestart
            let is_followed = requests.is_empty() || host.running(caller.jail.as_str())?.is_some();
            follows = Some(caller.jail).filter(|_| of_caller.specs.is_empty() && is_followed);
            requests.iter_mut().for_each(|request| request.jid = caller.jid);
            requests
        }
        Some(file) => vec![of_kleene(&args.request, file)?],
        None => vec![args.request.request()?],
    };
    for request in &mut requests {
        request.jid = request.jid.or(args.jid);
        args.options.set(request)?;
    }
    if args.dry_run {
        return requests.iter().try_for_each(|request| change(global, |by| by.dry_run(request)).map(drop));
    }
    // in addition to the time of a change
    let wait = requests.iter().map(|request| request.wait).max().unwrap_or_default();
    let waiting = Global { timeout: global.timeout.saturating_add(wait), ..global.clone() };
    let outcome = change(&waiting, |publisher| match &follows {
        Some(jail) => publisher.follow(jail, Some(&requests)),
        None => publisher.publish_all(&requests),
    })?;
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
    let ports = kleene::parse(&text(file)?)?;
    let mut request = args.request_for(ports.spec)?;
    if request.addresses.is_empty() {
        request.addresses = ports.addresses;
    }
    Ok(request)
}

/// The lines of kport.conf(5) for the jail, which may be none.
fn lines(global: &Global, jail: &JailName, of_caller: &RequestArgs, args: &PublishArgs) -> Result<Vec<Request>> {
    let mut given = of_caller.options.iter().chain(args.options.iter());
    if let Some((option, _)) = given.find(|(name, _)| *name != "wait") {
        return Err(error!(
            Argument,
            "--{option} needs the ports; without them, the options are those of the lines in kport.conf"
        ));
    }
    let conf = crate::conf::Conf::read(global.config.as_deref())?;
    let mut requests: Vec<Request> = conf.of(jail).map(|line| line.request(jail)).collect();
    for request in requests.iter_mut().filter(|request| request.addresses.is_empty()) {
        request.set("address", &Given::List(of_caller.addresses.clone()))?;
    }
    Ok(requests)
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
