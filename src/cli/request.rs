//! Builds a request from the arguments of `publish` and `rules`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::container::kleene;
use crate::error::{Error, Kind, Result};
use crate::options::Given;
use crate::publisher::Request;
use crate::spec::{self, Spec};

use super::args::RequestArgs;

/// The request of the arguments.
pub fn request(args: &RequestArgs) -> Result<Request> {
    with_spec(args, spec::parse(&args.specs.join(" "))?)
}

/// The request for the ports of Kleene's records, and for their addresses if no others are given.
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
    let jail = args.jail.clone().ok_or_else(|| Error::new(Kind::Argument, "name the jail"))?;
    let mut request = Request::new(jail, spec);
    let addresses = Given::List(args.addresses.clone());
    set(&mut request, [("address", &addresses)])?;
    set(&mut request, args.options.iter())?;
    Ok(request)
}

/// Sets the options of flags.
pub fn set<'a>(request: &mut Request, flags: impl IntoIterator<Item = (&'a str, &'a Given)>) -> Result<()> {
    let mut flags = flags.into_iter();
    flags.try_for_each(|(name, given)| request.set(name, given).map_err(|e| e.context(format_args!("--{name}"))))
}
