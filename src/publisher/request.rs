//! The options of a request besides the jail and its ports, by name.

use std::time::Duration;

use ipnet::IpNet;

use super::Request;
use crate::error::{Error, Kind, Result, quoted};
use crate::options::{Given, Names, Options, Setter, Takes, put};
use crate::publication;

/// Those that are not part of [`Options`].
const NAMED: Names<Request> = Names(&[
    (
        "address",
        Setter::Words(|request, words| {
            let read = words.each(|word| match word.contains('/') {
                true => network(word).map(|network| (Some(network), None)),
                false => publication::address(&request.jail, word).map(|address| (None, Some(address))),
            })?;
            request.trust.extend(read.iter().filter_map(|(network, _)| *network));
            request.addresses = read.iter().filter_map(|(_, address)| *address).collect();
            Ok(())
        }),
    ),
    (
        "trust",
        Setter::Words(|request, words| {
            request.trust.extend(words.each(network)?);
            Ok(())
        }),
    ),
    ("gateway", Setter::Word(|request, word| put(&mut request.gateway, word.parse().map(Some)))),
    ("auto-range", Setter::Word(|request, word| put(&mut request.auto_range, word.parse()))),
    ("wait", Setter::Word(|request, word| put(&mut request.wait, seconds(word)))),
    ("add", Setter::Flag(|request, on| request.add = on)),
    ("jail", Setter::Flag(|request, on| request.no_jail = !on)),
    ("force", Setter::Flag(|request, on| request.force = on)),
    ("allow-inert", Setter::Flag(|request, on| request.allow_inert = on)),
]);

impl Request {
    /// The name of each option of a request, as for [`Request::set`], and the kind of its value.
    pub fn names() -> impl Iterator<Item = (&'static str, Takes)> {
        NAMED.names().chain(Options::names())
    }

    /// The kind of value of the option with this name; `None` if there is none.
    pub fn takes(name: &str) -> Option<Takes> {
        NAMED.takes(name).or_else(|| Options::takes(name))
    }

    /// Sets an option by its name, which is that of its flag: one of the request, or of its [`Options`].
    ///
    /// # Errors
    ///
    /// As for [`Options::set`]; for `address` also [`Kind::Unsupported`] if the jail is on the host's network.
    pub fn set(&mut self, name: &str, given: &Given) -> Result<()> {
        NAMED.set(self, name, given).unwrap_or_else(|| self.options.set(name, given))
    }

    /// Whether an option can have this value, independent of the ports.
    ///
    /// # Errors
    ///
    /// As for [`Request::set`].
    pub fn check(name: &str, given: &Given) -> Result<()> {
        Request::new("jail".parse()?, "1".parse()?).set(name, given)
    }
}

/// A network in which the jail's address is.
fn network(word: &str) -> Result<IpNet> {
    let refuse = |why: String| Err(Error::new(Kind::Argument, format!("{} {why}", quoted(word))));
    match word.parse::<IpNet>() {
        Ok(network) if network == network.trunc() => Ok(network),
        Ok(network) => {
            refuse(format!("has bits set after its prefix; write {} or {}", network.trunc(), network.addr()))
        }
        Err(_) => refuse("is not a network such as 192.168.1.0/24".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| Error::new(Kind::Argument, format!("{} is not a number of seconds", quoted(text))))
}
