//! Turns the ports that a manager has published by itself into requests.

use std::collections::BTreeMap;

use super::Port;
use crate::error::{Error, Kind, Result, printable, quoted};
use crate::name::JailName;
use crate::net::Place;
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
    /// Ports that kport cannot publish, and lines that were not understood.
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
/// [`Kind::Argument`] for a port without a jail.
pub fn by_jail(ports: Vec<Port>, jail: Option<&JailName>) -> Result<Import> {
    let mut import = Import::default();
    let mut valid: BTreeMap<JailName, Vec<Port>> = BTreeMap::new();
    for port in ports {
        let from = &port.from;
        let name = match (jail, &*port.jail, &port.unsupported) {
            (Some(jail), ..) => Ok(jail.clone()),
            (None, "", None) => {
                let why = format!("{from}: the path does not name the jail; give it with -j");
                return Err(Error::new(Kind::Argument, why));
            }
            (None, "", Some(why)) => Err(why.clone()),
            (None, named, _) => named.parse().map_err(|error: Error| error.to_string()),
        };
        // a name that is not printed unchanged would be another jail's in a command
        let name = name.and_then(|name: JailName| match printable(name.as_str()) == name.as_str() {
            true => Ok(name),
            false => Err(format!("{}: the name has characters that do not print", name.mention())),
        });
        let name = match name {
            Ok(name) => name,
            Err(why) => {
                import.unread.push(format!("{from}: {why}"));
                continue;
            }
        };
        let of = import.jails.entry(name.clone()).or_default();
        match port.unsupported.clone().map_or_else(|| check(&port).err().map(|error| error.to_string()), Some) {
            Some(why) => of.unsupported.push(format!("{from}: {why}")),
            None => {
                of.notes.extend(port.notes.iter().map(|note| format!("{from}: {note}")));
                valid.entry(name).or_default().push(port);
            }
        }
    }
    for (name, ports) in valid {
        let of = import.jails.entry(name).or_default();
        for port in with_host_access(ports, &mut of.notes) {
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
        true => Err(Error::new(Kind::Spec, format!("{} is not one port or range", quoted(spec)))),
        false => spec::parse(spec).map(|_| ()).map_err(|error| error.context(quoted(spec))),
    })
}

/// A port at a loopback interface is for the host itself: for kport that is an option of the same port at another place, if there
/// is one.
fn with_host_access(mut ports: Vec<Port>, notes: &mut Vec<String>) -> Vec<Port> {
    let is_loopback = |place: &String| at(place).parse().is_ok_and(Place::is_loopback);
    let mapping = |port: &Port| (port.host.clone(), port.ports.clone(), port.protocols.clone());
    let mut local = vec![];
    for port in &mut ports {
        if !port.places.iter().any(is_loopback) {
            continue;
        }
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
        let jails = jails.unwrap().jails;
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
        for wrong in [
            Port { unsupported: Some("no".to_owned()), ..port("81") },
            port("0"),
            Port { places: vec!["em 0".to_owned()], ..port("81") },
            Port { places: vec!["tcp".to_owned()], ..port("81") },
            port("81:81 22"),
            Port { sources: vec!["nobody".to_owned()], ..port("81") },
        ] {
            let from = wrong.from.clone();
            let import = by_jail(vec![wrong, port("80"), Port { jail: "db".to_owned(), ..port("82") }], None).unwrap();
            assert_eq!(import.unpublished(), 1);
            let of = &import.jails[&jail];
            assert!(of.unsupported[0].starts_with(&from), "{of:?}");
            // printed, but not published without the other
            assert_eq!(of.commands[0].specs, ["80:80"]);
            assert_eq!(of.requests(&jail).unwrap_err().kind(), Kind::Unsupported);
            let db: JailName = "db".parse().unwrap();
            assert_eq!(import.jails[&db].requests(&db).unwrap().len(), 1);
        }
        for unknown in ["a\nb", "a\u{202e}b"] {
            let import = by_jail(vec![Port { jail: unknown.to_owned(), ..port("80") }], None).unwrap();
            assert!(import.jails.is_empty() && import.unread[0].starts_with("file:80: "), "{import:?}");
        }
        let error = by_jail(vec![Port { jail: String::new(), ..port("80") }], None).unwrap_err();
        assert!(error.message().contains("-j"), "{error}");
    }

    #[test]
    fn a_port_at_lo0_is_access_from_the_host() {
        let at = |host: &str, places: &[&str]| Port {
            places: places.iter().map(|p| (*p).to_owned()).collect(),
            ..port(host)
        };
        let commands = |ports: Vec<Port>| {
            let import = by_jail(ports, None).unwrap();
            let of = import.jails.into_values().next().unwrap();
            let shown = |command: Command| {
                let names: Vec<&str> = command.options.iter().map(|option| option.0).collect();
                format!(
                    "{}{}",
                    names.iter().map(|name| format!("{name} ")).collect::<String>(),
                    command.specs.join(" ")
                )
            };
            of.commands.into_iter().map(shown).collect::<Vec<_>>()
        };
        assert_eq!(commands(vec![at("80", &["em0"]), at("80", &["lo0"])]), ["host-access em0:80:80"]);
        assert_eq!(commands(vec![at("80", &["lo0"]), at("80", &[])]), ["host-access 80:80"]);
        assert_eq!(commands(vec![at("80", &["em0", "lo0"])]), ["host-access em0:80:80"]);
        assert_eq!(
            commands(vec![at("80", &["127.0.0.1"]), at("80", &["em0", "em1"])]),
            ["host-access em0:80:80 em1:80:80"]
        );
        assert_eq!(commands(vec![at("80", &["::1"])]), ["host-access [::1]:80:80"]);
        // another port of the host is another mapping
        assert_eq!(commands(vec![at("80", &["em0"]), at("81", &["lo0"])]), ["em0:80:80", "host-access lo0:81:80"]);
        let udp = Port { protocols: vec!["udp".to_owned()], ..at("80", &["lo0"]) };
        assert_eq!(commands(vec![at("80", &["em0"]), udp]), ["em0:80:80", "host-access lo0:80:80/udp"]);
    }

    proptest::proptest! {
        /// Any file gives ports, or an error with its name, and the ports give requests.
        #[test]
        fn any_file_is_read_or_refused(parts in proptest::collection::vec(proptest::sample::select(vec![
            "dual", "ipv4", "em0", "em0,em1", "lo0", "{", "}", "http", "any", "tcp", "udp", "8080", "8000:8010", "80", "log", "(all)", "\n", "#", " ",
            "pot.export.ports=", "udp:53:53", ":", "{\"nat_forwards\":\"", "tcp(80:8080)", "\"}", ",", "-", "auto",
            "rdr pass on em0 proto tcp from any to 192.0.2.1 port 80 -> 10.0.0.2 port 80 ", "-> ", "from ", "to ", "proto ",
            "# // Setup by CBSD expose: tcp-80-web from IPs any\n", "SQLite format", "1", "<a>", "\u{1b}",
        ]), 0..20)) {
            let text = parts.join(" ");
            for exports in ALL.iter().filter_map(|manager| manager.exports()) {
                let read = (exports.read)("/jails/web/FILE".as_ref(), &|_| Ok(text.clone()));
                match read.and_then(|ports| by_jail(ports, None)) {
                    Err(error) => proptest::prop_assert!(error.message().contains("FILE"), "{}", error),
                    Ok(import) => {
                        for (jail, imported) in import.jails.iter().filter(|(_, of)| of.unsupported.is_empty()) {
                            proptest::prop_assert_eq!(imported.requests(jail).unwrap().len(), imported.commands.len());
                        }
                        for why in import.jails.values().flat_map(|of| &of.unsupported).chain(&import.unread) {
                            proptest::prop_assert!(why.contains("FILE"), "{}", why);
                        }
                    }
                }
            }
        }
    }
}
