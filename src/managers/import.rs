//! The ports that a manager has published by itself: the syntax that files of several managers have in common, and the requests.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::error::{Error, Result, error, printable, quoted};
use crate::name::JailName;
use crate::net::Place;
use crate::options::Given;
use crate::publisher::Request;
use crate::spec;

/// The files with the ports that a manager has published.
#[derive(Clone, Copy, Debug)]
pub struct Exports {
    /// A short description of the files.
    pub files: &'static str,
    /// Reads the ports of one of these files, or directories. A line that is not understood is a [`Port`] with the reason.
    ///
    /// # Errors
    ///
    /// `Kind::Argument` for a file of another kind. Those of [`TextOf`].
    pub read: fn(&Path, TextOf<'_>) -> Result<Vec<Port>>,
}

/// The text of a file.
pub type TextOf<'a> = &'a dyn Fn(&Path) -> Result<String>;

/// One port, in the syntax of its manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its line or file.
    pub from: String,
    /// The jail's name, as jls(8) prints it; empty if the file does not name it.
    pub jail: String,
    /// Its places: interfaces or an address; empty for the gateway interface.
    pub places: Vec<String>,
    /// The host's ports: `8080`, `8000-8010` or `auto`.
    pub host: String,
    /// The jail's ports.
    pub ports: String,
    /// tcp, udp.
    pub protocols: Vec<String>,
    /// The allowed sources; empty for all.
    pub sources: Vec<String>,
    /// Whether connections are logged.
    pub log: bool,
    /// Whether the host itself may use it, at its loopback addresses.
    pub host_access: bool,
    /// Differences between the manager and kport.
    pub notes: Vec<String>,
    /// Why kport cannot publish it, or why it was not understood.
    pub unsupported: Option<String>,
}

impl Port {
    /// An entry that is not understood. `jail` may be empty.
    pub(super) fn unread(from: impl Into<String>, jail: impl Into<String>, why: impl fmt::Display) -> Port {
        Port { from: from.into(), jail: jail.into(), unsupported: Some(why.to_string()), ..Port::default() }
    }
}

/// A range of pf.conf(5), or of a manager: `8000:8010`, `8000-8010`, and `9000:*`, as many ports as on the other side. Names of
/// services(5) are replaced by their numbers for `protocol`; those that are not there stay.
pub(super) fn range(range: &str, protocol: &str, text: TextOf<'_>) -> String {
    let ends = range.strip_suffix(":*").unwrap_or(range).replacen(':', "-", 1);
    if !ends.starts_with(|c: char| c.is_ascii_alphabetic()) || ends == "auto" {
        return ends;
    }
    let services = text("/etc/services".as_ref()).unwrap_or_default();
    // a name may have a dash of its own
    let number = |name: &str| service(&services, name, protocol);
    if let Some(port) = number(&ends) {
        return port;
    }
    let both = ends.split_once('-').and_then(|(first, last)| Some(format!("{}-{}", number(first)?, number(last)?)));
    both.unwrap_or(ends)
}

/// The number of a service, by its name or an alias: `http 80/tcp www www-http # comment`.
fn service(services: &str, name: &str, protocol: &str) -> Option<String> {
    services.lines().find_map(|line| {
        let words = words(line.split('#').next()?);
        let (port, of) = words.get(1)?.split_once('/')?;
        let names = || words.iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, word)| *word);
        (of == protocol && names().any(|known| known == name)).then(|| port.to_owned())
    })
}

pub(super) fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// The lines except empty ones and comments, each with its place: `rdr.conf:3`.
pub(super) fn lines<'a>(path: &Path, text: &'a str) -> impl Iterator<Item = (String, &'a str)> {
    let has_more = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let at = |(number, line)| (format!("{}:{number}", path.display()), line);
    (1..).zip(text.lines()).filter(move |(_, line)| has_more(line)).map(at)
}

/// The directory after `jails` in a path.
pub(super) fn jail_of(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let at = parts.iter().rposition(|part| *part == "jails");
    at.and_then(|at| parts.get(at + 1)).map_or(String::new(), |name| (*name).to_owned())
}

/// The error for an invalid file of a manager.
pub(super) fn wrong(from: impl fmt::Display, why: impl fmt::Display) -> Error {
    error!(Argument, "{from}: {why}")
}

/// The ports of one jail that have the same options: one `kport publish`. All fields were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The options without their default values, by name.
    pub options: Vec<(&'static str, Given)>,
    /// The specs.
    pub specs: Vec<String>,
}

/// The ports that a manager has published for one jail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The commands; each except the first adds to the ports of those before it.
    pub commands: Vec<Command>,
    /// Differences between the manager and kport.
    pub notes: Vec<String>,
    /// Ports that kport cannot publish, and lines that were not understood.
    pub unsupported: Vec<String>,
}

impl Imported {
    /// The requests of one transaction for the jail; empty if there is nothing to publish.
    ///
    /// # Errors
    ///
    /// `Kind::Unsupported` if kport cannot publish all ports.
    pub fn requests(&self, jail: &JailName) -> Result<Vec<Request>> {
        if let Some(why) = self.unsupported.first() {
            return Err(error!(Unsupported, "nothing was published: {why}"));
        }
        let request = |command: &Command| {
            let mut request = Request::new(jail.clone(), spec::parse(&command.specs.join(" "))?);
            command.options.iter().try_for_each(|(name, given)| request.set(name, given))?;
            Ok(request)
        };
        self.commands.iter().map(request).collect()
    }
}

/// The entries of a manager's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Those of each jail.
    pub jails: BTreeMap<JailName, Imported>,
    /// Those whose jail is unknown, and why they were not understood.
    pub unread: Vec<String>,
}

impl Import {
    /// The number of entries that kport cannot publish.
    pub fn unpublished(&self) -> usize {
        self.unread.len() + self.jails.values().map(|of| of.unsupported.len()).sum::<usize>()
    }
}

/// Sorts ports by jail and by options; `jail` overrides the jails that they name. A port that is not valid is unsupported.
///
/// # Errors
///
/// `Kind::Argument` for a port without a jail.
pub fn by_jail(ports: Vec<Port>, jail: Option<&JailName>) -> Result<Import> {
    let mut import = Import::default();
    let mut of_jails: BTreeMap<JailName, Vec<Port>> = BTreeMap::new();
    for port in ports {
        let from = &port.from;
        let name = match (jail, &*port.jail, &port.unsupported) {
            (Some(jail), ..) => Ok(jail.clone()),
            (None, "", None) => {
                return Err(error!(Argument, "{from}: the path does not name the jail; give it with -j"));
            }
            (None, "", Some(why)) => Err(why.clone()),
            (None, named, _) => named.parse().map_err(|error: Error| error.to_string()),
        };
        match name {
            // it would be another jail's in a command
            Ok(name) if printable(name.as_str()) != name.as_str() => {
                import.unread.push(format!("{from}: {}: the name has characters that do not print", name.mention()));
            }
            Ok(name) => of_jails.entry(name).or_default().push(port),
            Err(why) => import.unread.push(format!("{from}: {why}")),
        }
    }
    for (name, ports) in of_jails {
        let of = import.jails.entry(name).or_default();
        let mut valid = vec![];
        for port in ports {
            match port.unsupported.clone().or_else(|| Some(check(&port).err()?.to_string())) {
                Some(why) => of.unsupported.push(format!("{}: {why}", port.from)),
                None => {
                    of.notes.extend(port.notes.iter().map(|note| format!("{}: {note}", port.from)));
                    valid.push(port);
                }
            }
        }
        for port in with_host_access(valid, &mut of.notes) {
            let options = options(&port);
            match of.commands.iter_mut().find(|command| command.options == options) {
                Some(command) => command.specs.extend(specs(&port)),
                None => of.commands.push(Command { options, specs: specs(&port) }),
            }
        }
    }
    Ok(import)
}

/// Whether the values of a port are valid.
fn check(port: &Port) -> Result<()> {
    options(port).iter().try_for_each(|(name, given)| Request::check(name, given))?;
    specs(port).iter().try_for_each(|spec| match spec.contains(char::is_whitespace) {
        // it would be several
        true => Err(error!(Spec, "{} is not one port or range", quoted(spec))),
        false => spec::parse(spec).map(|_| ()).map_err(|error| error.context(quoted(spec))),
    })
}

/// A port at a loopback interface is for the host itself: for kport that is an option of the same port at another place, if there
/// is one.
fn with_host_access(mut ports: Vec<Port>, notes: &mut Vec<String>) -> Vec<Port> {
    let is_loopback = |place: &String| at(place).parse().is_ok_and(Place::is_loopback);
    let mapping = |port: &Port| (port.host.clone(), port.ports.clone(), port.protocols.clone());
    let mut local = vec![];
    for port in ports.iter_mut().filter(|port| port.places.iter().any(is_loopback)) {
        local.push(mapping(port));
        notes.push(format!("{}: for access from the host itself, run kport setup --host-access", port.from));
        if !port.sources.is_empty() {
            notes.push(format!("{}: kport's access from the host is for all of its addresses", port.from));
        }
        port.host_access = true;
        if !port.places.iter().all(is_loopback) {
            port.places.retain(|place| !is_loopback(place));
        }
    }
    let is_outer = |port: &Port| !port.places.iter().any(is_loopback);
    let outer: Vec<_> = ports.iter().filter(|port| is_outer(port)).map(mapping).collect();
    ports.retain(|port| is_outer(port) || !outer.contains(&mapping(port)));
    for port in &mut ports {
        port.host_access |= local.contains(&mapping(port));
    }
    ports
}

fn options(port: &Port) -> Vec<(&'static str, Given)> {
    let sources = (!port.sources.is_empty()).then(|| ("sources", Given::List(port.sources.clone())));
    let flag = |on: bool, name| on.then_some((name, Given::Flag(true)));
    [sources, flag(port.log, "log"), flag(port.host_access, "host-access")].into_iter().flatten().collect()
}

fn specs(port: &Port) -> Vec<String> {
    let protocols = port.protocols.join(",");
    let tail = if protocols == "tcp" { String::new() } else { format!("/{protocols}") };
    let ports = format!("{}:{}{tail}", port.host, port.ports);
    if port.places.is_empty() {
        return vec![ports];
    }
    port.places.iter().map(|place| format!("{}:{ports}", at(place))).collect()
}

/// A place as in a spec.
fn at(place: &str) -> String {
    match place.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => place.strip_suffix("/32").unwrap_or(place).to_owned(),
    }
}
