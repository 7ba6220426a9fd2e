//! From the arguments of `publish` and `rules` to a request.

use kport::error::Result;
use kport::options::{Limits, Options};
use kport::publication;
use kport::publisher::Request;
use kport::spec;

use super::args::RequestArgs;

/// What the arguments ask for.
pub fn request(args: &RequestArgs) -> Result<Request> {
    let mut request = Request::new(args.jail.clone(), spec::parse(&args.specs.join(" "))?);
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
