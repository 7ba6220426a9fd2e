//! From the arguments of `publish` and `rules` to a request.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kport::container::kleene;
use kport::error::{Error, Result};
use kport::options::{Limits, Options};
use kport::publication;
use kport::publisher::Request;
use kport::spec::{self, Spec};

use super::args::RequestArgs;

/// What the arguments ask for.
pub fn request(args: &RequestArgs) -> Result<Request> {
    with_spec(args, spec::parse(&args.specs.join(" "))?)
}

/// The same with the ports of Kleene's records, and with the addresses in them where no other ones are given.
pub fn of_kleene(args: &RequestArgs, file: &Path) -> Result<Request> {
    let mut json = String::new();
    let read = match file == Path::new("-") {
        true => io::stdin().lock().take(kleene::MAX_TEXT as u64 + 1).read_to_string(&mut json),
        false => File::open(file).and_then(|file| file.take(kleene::MAX_TEXT as u64 + 1).read_to_string(&mut json)),
    };
    read.map_err(|e| Error::io(format_args!("read {}", file.display()), &e))?;
    let ports = kleene::parse(&json)?;
    let mut request = with_spec(args, ports.spec)?;
    if request.addresses.is_empty() {
        request.addresses = ports.addresses;
    }
    Ok(request)
}

fn with_spec(args: &RequestArgs, spec: Spec) -> Result<Request> {
    let mut request = Request::new(args.jail.clone(), spec);
    request.addresses = publication::addresses(&args.jail, args.addresses.iter().map(String::as_str))?;
    request.gateway = args.gateway;
    request.options = options(args);
    Ok(request)
}

fn options(args: &RequestArgs) -> Options {
    let default = Options::default();
    Options {
        reach: if args.reach.is_empty() { default.reach } else { args.reach.clone() },
        hairpin: args.hairpin,
        host_access: args.host_access,
        sources: args.sources.clone(),
        limits: Limits {
            connections: args.max_connections,
            connections_per_source: args.max_connections_per_source,
            rate: args.rate,
        },
        log: args.log,
        quick: !args.no_quick,
    }
}
