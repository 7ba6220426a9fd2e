//! Turns the ports that a manager has published by itself into requests.

use std::collections::BTreeMap;

use super::Port;
use crate::error::{Error, Kind, Result, quoted};
use crate::name::JailName;
use crate::options::Given;
use crate::publisher::Request;
use crate::spec;

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
    /// Ports that kport cannot publish.
    pub unsupported: Vec<String>,
}

impl Imported {
    /// The requests of one transaction for the jail; empty if there is nothing to publish.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if kport cannot publish all ports.
    pub fn requests(&self, jail: &JailName) -> Result<Vec<Request>> {
        if let Some(why) = self.unsupported.first() {
            return Err(Error::new(Kind::Unsupported, format!("nothing was published: {why}")));
        }
        self.commands.iter().map(|command| command.request(jail)).collect()
    }
}

impl Command {
    fn request(&self, jail: &JailName) -> Result<Request> {
        let mut request = Request::new(jail.clone(), spec::parse(&self.specs.join(" "))?);
        self.options.iter().try_for_each(|(name, given)| request.set(name, given))?;
        Ok(request)
    }
}

/// Sorts ports by jail and by options; `jail` overrides the jails that they name.
///
/// # Errors
///
/// Of [`Kind::Argument`] or [`Kind::Spec`], with the line or file, for a port without a jail and one that is not valid.
pub fn by_jail(ports: Vec<Port>, jail: Option<&JailName>) -> Result<BTreeMap<JailName, Imported>> {
    let mut jails: BTreeMap<JailName, Imported> = BTreeMap::new();
    for port in ports {
        let at = |error: Error| Error::new(error.kind(), format!("{}: {error}", port.from));
        let name: JailName = match jail {
            Some(jail) => jail.clone(),
            None if port.jail.is_empty() => {
                return Err(at(Error::new(Kind::Argument, "the path does not name the jail; give it with -j")));
            }
            None => port.jail.parse().map_err(at)?,
        };
        let of = jails.entry(name).or_default();
        of.notes.extend(port.notes.iter().map(|note| format!("{}: {note}", port.from)));
        if let Some(why) = &port.unsupported {
            of.unsupported.push(format!("{}: {why}", port.from));
            continue;
        }
        let options = options(&port);
        options.iter().try_for_each(|(name, given)| Request::check(name, given)).map_err(at)?;
        for spec in specs(&port) {
            spec::parse(&spec).map_err(|error| at(error.context(quoted(&spec))))?;
            match of.commands.iter_mut().find(|command| command.options == options) {
                Some(command) => command.specs.push(spec),
                None => of.commands.push(Command { options: options.clone(), specs: vec![spec] }),
            }
        }
    }
    Ok(jails)
}

fn options(port: &Port) -> Vec<(&'static str, Given)> {
    let sources = (!port.sources.is_empty()).then(|| ("sources", Given::List(port.sources.clone())));
    sources.into_iter().chain(port.log.then_some(("log", Given::Flag(true)))).collect()
}

fn specs(port: &Port) -> Vec<String> {
    let protocols = port.protocols.join(",");
    let tail = if protocols == "tcp" { String::new() } else { format!("/{protocols}") };
    let ports = format!("{}:{}{tail}", port.host, port.ports);
    if port.places.is_empty() {
        return vec![ports];
    }
    let place = |place: &String| match place.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{ports}"),
        Err(_) => format!("{}:{ports}", place.strip_suffix("/32").unwrap_or(place)),
    };
    port.places.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managers::ALL;

    fn port(host: &str) -> Port {
        let (from, jail) = (format!("file:{host}"), "web".to_owned());
        Port {
            from,
            jail,
            host: host.to_owned(),
            ports: "80".to_owned(),
            protocols: vec!["tcp".to_owned()],
            ..Port::default()
        }
    }

    #[test]
    fn ports_with_the_same_options_are_one_request_of_the_jail() {
        let logged = Port { log: true, sources: vec!["192.0.2.0/24".to_owned()], ..port("81") };
        let jails = by_jail(vec![port("80"), logged, port("82"), Port { jail: "db".to_owned(), ..port("83") }], None);
        let jails = jails.unwrap();
        let requests = |name: &str| {
            let jail: JailName = name.parse().unwrap();
            let requests = jails[&jail].requests(&jail).unwrap();
            let shown = |r: &Request| (r.spec.to_string(), r.options.log, r.options.sources.len());
            requests.iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(requests("web"), [("80:80/tcp 82:80/tcp".to_owned(), false, 0), ("81:80/tcp".to_owned(), true, 1)]);
        assert_eq!(requests("db"), [("83:80/tcp".to_owned(), false, 0)]);
    }

    #[test]
    fn all_of_a_jail_or_nothing() {
        let jail: JailName = "web".parse().unwrap();
        let jails = by_jail(vec![port("80"), Port { unsupported: Some("no".to_owned()), ..port("81") }], None).unwrap();
        assert_eq!(jails[&jail].requests(&jail).unwrap_err().kind(), Kind::Unsupported);
        for wrong in [
            Port { jail: String::new(), ..port("80") },
            Port { jail: "a\nb".to_owned(), ..port("80") },
            port("0"),
            Port { places: vec!["em 0".to_owned()], ..port("80") },
            Port { sources: vec!["nobody".to_owned()], ..port("80") },
        ] {
            let error = by_jail(vec![wrong.clone()], None).unwrap_err();
            assert!(error.message().starts_with(&wrong.from), "{error}");
        }
    }

    proptest::proptest! {
        /// Any file gives ports, or an error with its name, and the ports give requests.
        #[test]
        fn any_file_is_read_or_refused(parts in proptest::collection::vec(proptest::sample::select(vec![
            "dual", "ipv4", "em0", "em0,em1", "any", "tcp", "udp", "8080", "8000:8010", "80", "log", "(all)", "\n", "#", " ",
            "pot.export.ports=", "udp:53:53", ":", "{\"nat_forwards\":\"", "tcp(80:8080)", "\"}", ",", "-", "auto",
            "rdr pass on em0 proto tcp from any to 192.0.2.1 port 80 -> 10.0.0.2 port 80 ", "-> ", "from ", "to ", "proto ",
            "# // Setup by CBSD expose: tcp-80-web from IPs any\n", "SQLite format", "1", "<a>", "\u{1b}",
        ]), 0..20)) {
            let text = parts.join(" ");
            for exports in ALL.iter().filter_map(|manager| manager.exports()) {
                let read = (exports.read)("/jails/web/FILE".as_ref(), &|_| Ok(text.clone()));
                match read.and_then(|ports| by_jail(ports, None)) {
                    Err(error) => proptest::prop_assert!(error.message().contains("FILE"), "{}", error),
                    Ok(jails) => for (jail, imported) in jails.iter().filter(|(_, of)| of.unsupported.is_empty()) {
                        proptest::prop_assert_eq!(imported.requests(jail).unwrap().len(), imported.commands.len());
                    },
                }
            }
        }
    }
}
