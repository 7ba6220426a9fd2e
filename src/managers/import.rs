//! From the ports that a manager has published by itself to requests.

use std::collections::BTreeMap;

use super::Port;
use crate::error::{Error, Kind, Result, quoted};
use crate::name::JailName;
use crate::options::Source;
use crate::publisher::Request;
use crate::spec;

/// The ports of one jail that have the same options: one `kport publish`. All of it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Who may connect; empty for everybody.
    pub sources: Vec<String>,
    /// Whether connections are logged.
    pub log: bool,
    /// The specs.
    pub specs: Vec<String>,
}

/// What a manager has published of one jail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// What kport is to publish; each command but the first one adds to what those before it publish.
    pub commands: Vec<Command>,
    /// What kport does in another way.
    pub notes: Vec<String>,
    /// What it cannot publish.
    pub unsupported: Vec<String>,
}

impl Imported {
    /// The requests of one transaction for the jail; none if there is nothing to publish.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if kport cannot publish all of it.
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
        request.options.sources = self.sources.iter().map(|source| source.parse()).collect::<Result<_>>()?;
        request.options.log = self.log;
        Ok(request)
    }
}

/// Sorts ports by jail and by options; `jail` is in place of the jails that they name.
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
        port.sources.iter().try_for_each(|source| source.parse::<Source>().map(|_| ())).map_err(at)?;
        for spec in specs(&port) {
            spec::parse(&spec).map_err(|error| at(error.context(quoted(&spec))))?;
            let same = |command: &&mut Command| command.sources == port.sources && command.log == port.log;
            match of.commands.iter_mut().find(same) {
                Some(command) => command.specs.push(spec),
                None => of.commands.push(Command { sources: port.sources.clone(), log: port.log, specs: vec![spec] }),
            }
        }
    }
    Ok(jails)
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
        /// Whatever a file holds, it is read or refused, with its name, and what is read can be asked for.
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
