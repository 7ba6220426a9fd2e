//! `kport import`: what another manager has published, as kport's commands.

mod formats;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use kport::error::{Error, Kind, Result, quoted};
use kport::name::JailName;
use kport::options::Source;
use kport::publisher::Request;

use kport::spec;

use super::args::{Global, ImportArgs, Manager};
use super::output::{Shown, complain, print};
use super::session::session;
use formats::Port;

/// The ports of one jail that have the same options: one command.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    sources: Vec<String>,
    log: bool,
    specs: Vec<String>,
}

/// What is to be said of one jail.
#[derive(Debug, Default, PartialEq, Eq)]
struct OfJail {
    commands: Vec<Command>,
    /// What kport does otherwise.
    notes: Vec<String>,
    /// What it cannot say.
    unsaid: Vec<String>,
}

/// `kport import`
pub fn run(global: &Global, args: &ImportArgs) -> Result<()> {
    let mut ports = vec![];
    for file in &args.files {
        ports.extend(read(args.manager, file).map_err(|why| Error::new(Kind::Argument, why))?);
    }
    let jails = sorted(ports, args.jail.as_ref())?;
    if args.publish {
        return jails.iter().try_for_each(|(jail, of)| publish(global, jail, of));
    }
    let mut text = String::new();
    for (jail, of) in &jails {
        show(&mut text, jail, of);
    }
    print(&text)?;
    match jails.values().map(|of| of.unsaid.len()).sum() {
        0 => Ok(()),
        1 => Err(Error::new(Kind::Unsupported, "one port cannot be said, see above")),
        n => Err(Error::new(Kind::Unsupported, format!("{n} ports cannot be said, see above"))),
    }
}

fn read(manager: Manager, file: &Path) -> std::result::Result<Vec<Port>, String> {
    if manager == Manager::Appjail {
        let first_line = |name: &str| {
            let text = fs::read_to_string(file.join(name)).unwrap_or_default();
            text.lines().next().unwrap_or_default().trim().to_owned()
        };
        return Ok(formats::appjail(file, &first_line)?.into_iter().collect());
    }
    let mut text = vec![];
    let read = if file == Path::new("-") {
        io::stdin().lock().read_to_end(&mut text).map(|_| ())
    } else {
        fs::read(file).map(|bytes| text = bytes)
    };
    read.map_err(|e| format!("read {}: {e}", file.display()))?;
    let text = String::from_utf8_lossy(&text);
    match manager {
        Manager::Bastille => formats::bastille(file, &text),
        Manager::Iocage => formats::iocage(file, &text),
        Manager::Pot => formats::pot(file, &text),
        Manager::Cbsd => formats::cbsd(file, &text),
        Manager::Appjail => Ok(vec![]),
    }
}

/// By jail, and by what has the same options; every spec is checked.
fn sorted(ports: Vec<Port>, jail: Option<&JailName>) -> Result<BTreeMap<JailName, OfJail>> {
    let mut jails: BTreeMap<JailName, OfJail> = BTreeMap::new();
    for port in ports {
        let at = |error: Error| Error::new(error.kind(), format!("{}: {error}", port.from));
        let name: JailName = match jail {
            Some(jail) => jail.clone(),
            None if port.jail.is_empty() => {
                return Err(at(Error::new(Kind::Argument, "the path does not tell the jail; give it with -j")));
            }
            None => port.jail.parse().map_err(at)?,
        };
        let of = jails.entry(name).or_default();
        of.notes.extend(port.notes.iter().map(|note| format!("{}: {note}", port.from)));
        if let Some(why) = &port.unsaid {
            of.unsaid.push(format!("{}: {why}", port.from));
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

/// As a shell reads it.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn show(text: &mut String, jail: &JailName, of: &OfJail) {
    for note in &of.notes {
        _ = writeln!(text, "# {note}");
    }
    for why in &of.unsaid {
        _ = writeln!(text, "# {why}");
    }
    for (number, command) in of.commands.iter().enumerate() {
        text.push_str("kport publish");
        if number > 0 {
            text.push_str(" --add");
        }
        for source in &command.sources {
            _ = write!(text, " --sources {}", word(source));
        }
        if command.log {
            text.push_str(" --log");
        }
        _ = write!(text, " {}", word(jail.as_str()));
        for spec in &command.specs {
            _ = write!(text, " {}", word(spec));
        }
        text.push('\n');
    }
}

/// One transaction, whatever options the jail's ports have.
fn publish(global: &Global, jail: &JailName, of: &OfJail) -> Result<()> {
    let about = |error: Error| error.context(format_args!("jail \"{jail}\""));
    if let Some(why) = of.unsaid.first() {
        return Err(about(Error::new(Kind::Unsupported, format!("nothing was published: {why}"))));
    }
    if of.commands.is_empty() {
        return Ok(());
    }
    let request = |command: &Command| {
        let mut request = Request::new(jail.clone(), spec::parse(&command.specs.join(" "))?);
        request.options.sources = command.sources.iter().map(|s| s.parse()).collect::<Result<_>>()?;
        request.options.log = command.log;
        Ok(request)
    };
    let requests: Vec<Request> = of.commands.iter().map(request).collect::<Result<_>>()?;
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let outcome = session.publisher(&observer)?.publish_all(&requests).map_err(about)?;
    outcome.notes.iter().filter(|_| !global.quiet).for_each(|note| complain(note));
    if session.firewall.name() == "sim" {
        complain(&kport::pf::files::NOTICE);
    }
    Ok(())
}
