//! kport.conf(5): what is to be published, one line for each publication, and the jails that it is for.
//!
//! ```text
//! web      8080:80 8443:443/tcp,udp --sources 192.0.2.0/24
//! /^ci-/   auto:22
//! ```
//!
//! The words after the jail are those of `kport publish`; the options are read by their names, as everywhere
//! ([`Request::set`]).

mod line;

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::conflict;
use crate::error::{Error, Kind, Result, error};
use crate::files::{self, names_in};
use crate::host::{Host, HostInterface, Interfaces};
use crate::name::JailName;
use crate::net::{Family, Place};
use crate::publication::{self, Publication, Redirect, Targets};
use crate::publisher::{self, NOBODY, Outcome, Publisher, Recorded, Request};
use crate::spec::{HostPorts, Spec};

pub use line::Line;

/// The file that is read if the caller names none.
pub const DEFAULT: &str = "/usr/local/etc/kport.conf";

const MAX_FILE: usize = 4 << 20;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The lines of kport.conf(5) and of the files in kport.conf.d.
#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub lines: Vec<Line>,
}

impl Conf {
    /// Reads `file`, then the files of the directory `file.d` whose names end in `.conf`, in the order of their names. Without
    /// a file of the caller's choice, [`DEFAULT`], which need not exist.
    ///
    /// They open ports: [`Kind::Permission`] if somebody other than root and the caller could have written one. A line that
    /// cannot be read is an error with the file, the line and the offset in it.
    pub fn read(file: Option<&Path>) -> Result<Conf> {
        let path = file.unwrap_or(Path::new(DEFAULT));
        let mut conf = Conf::default();
        if !conf.add(path)? && file.is_some() {
            return Err(error!(Argument, "there is no file {}", path.display()));
        }
        let dir = path.with_added_extension("d");
        if is_trusted(&dir, Metadata::is_dir)? {
            let mut names = names_in(&dir)?;
            names.retain(|name| name.ends_with(".conf") && !name.starts_with('.'));
            names.sort_unstable();
            for name in names {
                conf.add(&dir.join(name))?;
            }
        }
        Ok(conf)
    }

    /// Adds the lines of a file; false if there is none.
    fn add(&mut self, path: &Path) -> Result<bool> {
        if !is_trusted(path, Metadata::is_file)? {
            return Ok(false);
        }
        let shown = path.display();
        let bytes = files::read_regular(path, MAX_FILE).map_err(|e| Error::io(format_args!("read {shown}"), &e))?;
        let text =
            String::from_utf8(bytes.unwrap_or_default()).map_err(|_| error!(Argument, "{shown} is not UTF-8"))?;
        self.lines.extend(line::parse(&shown.to_string(), &text)?);
        Ok(true)
    }

    /// What a file with this text and this name says.
    pub fn parse(name: &str, text: &str) -> Result<Conf> {
        Ok(Conf { lines: line::parse(name, text)? })
    }

    pub fn of<'a>(&'a self, jail: &'a JailName) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(|line| line.is_of(jail))
    }

    /// The requests of one transaction for a jail that runs. They do not wait for an address: a hook does.
    pub fn requests(&self, jail: &JailName) -> Vec<Request> {
        self.of(jail).map(|line| Request { wait: std::time::Duration::ZERO, ..line.request(jail) }).collect()
    }

    /// Whether a jail has other lines than those that were requested, except for addresses that a manager gave to the hook.
    pub fn differs(&self, jail: &JailName, requests: &[Request]) -> bool {
        let (had, lines) = (configured(requests), self.requests(jail));
        had.len() != lines.len() || lines.iter().any(|line| !had.iter().any(|old| is_of_line(old, line)))
    }

    /// The targets that are not jails.
    pub fn not_jails(&self) -> BTreeSet<&JailName> {
        self.lines.iter().filter(|line| line.request.no_jail).filter_map(Line::jail).collect()
    }
}

/// Those that were made from lines.
pub fn configured<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Vec<&'a Request> {
    requests.into_iter().filter(|request| request.configured).collect()
}

/// Whether a request was made from a line.
pub fn is_of_line(request: &Request, line: &Request) -> bool {
    let found = || Request { addresses: vec![], ..request.clone() };
    request.is_same(line) || line.addresses.is_empty() && line.is_same(&found())
}

fn running(host: &dyn Host) -> Result<Vec<JailName>> {
    let jails = match host.jails() {
        // a system without jails, for trying kport
        Err(error) if error.kind() == Kind::Unsupported => vec![],
        jails => jails?.jails,
    };
    Ok(jails.into_iter().filter(|jail| !jail.dying).filter_map(|jail| jail.name.parse().ok()).collect())
}

/// The jails that are followed: those with a record, those that run and have a line, and the targets that are not jails.
pub fn jails(conf: Option<&Conf>, host: &dyn Host, recorded: &[Recorded]) -> Result<BTreeSet<JailName>> {
    let mut all: BTreeSet<JailName> = recorded.iter().map(|record| record.jail.clone()).collect();
    if let Some(conf) = conf {
        all.extend(running(host)?.into_iter().filter(|name| conf.of(name).next().is_some()));
        all.extend(conf.not_jails().into_iter().cloned());
    }
    Ok(all)
}

/// Makes what is published what the lines say, each jail in a transaction of its own, with its result. Without `conf`, with the
/// lines that are recorded. Ports may move from one jail to another, or be exchanged: a jail whose ports another one still has
/// comes again after that one.
pub fn apply<'a>(
    publisher: &Publisher<'_>, conf: Option<&Conf>, recorded: &[Recorded], jails: &'a BTreeSet<JailName>,
) -> Vec<(&'a JailName, Result<Outcome>)> {
    let lines = |jail: &JailName| conf.map(|conf| conf.requests(jail));
    let mut done = vec![];
    let mut left: Vec<&JailName> = jails.iter().collect();
    for last in [false, true] {
        let mut refused = vec![];
        for jail in left {
            match publisher.follow(jail, lines(jail).as_deref()) {
                Err(error) if !last && error.kind() == Kind::Conflict => refused.push(jail),
                result => done.push((jail, result)),
            }
        }
        // an exchange: first all of them give up what they are not to have
        for jail in &refused {
            let of_jail = recorded.iter().filter(|record| record.jail == **jail);
            let had = configured(of_jail.flat_map(|record| &record.requests));
            let mut stays = lines(jail).unwrap_or_default();
            stays.retain(|request| had.iter().any(|known| known.is_same(request)));
            if stays.len() < had.len() {
                // what is wrong is reported by the next pass
                _ = publisher.follow(jail, Some(&stays));
            }
        }
        left = refused;
    }
    done
}

/// Whether there is such a file, or directory. An error if others may have written it, or may replace it.
fn is_trusted(path: &Path, is_it: fn(&Metadata) -> bool) -> Result<bool> {
    let failed = |e| Error::io(format_args!("stat {}", path.display()), &e);
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta.map_err(failed)?,
    };
    if !is_it(&meta) {
        let why = "is not a regular file, or a directory, itself: a symbolic link is not followed";
        return Err(error!(Permission, "{} {why}", path.display()));
    }
    // who may write to the directory may replace the file
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let user = rustix::process::geteuid().as_raw();
    for (path, meta) in [(path, meta), (above, fs::metadata(above).map_err(failed)?)] {
        if ![0, user].contains(&meta.uid()) || meta.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(error!(
                Permission,
                "{} opens ports, and others can write to it: it is owned by user {}, mode {:o}; run chown root and chmod go-w",
                path.display(),
                meta.uid(),
                meta.mode() & 0o7777
            ));
        }
    }
    Ok(true)
}

/// What is wrong with the lines, without a look at pf: ports that two jails would have, and what the host lacks. Each error has its
/// file and line. The lines with a pattern are checked for the jails that run.
pub fn check(conf: &Conf, host: &dyn Host) -> Result<Vec<Error>> {
    let interfaces = host.interfaces()?;
    let mut jails: BTreeSet<JailName> = conf.lines.iter().filter_map(Line::jail).cloned().collect();
    jails.extend(running(host)?);
    let mut wrong = vec![];
    let mut claims: Vec<(JailName, &Line, Redirect)> = vec![];
    // a line with a pattern is the same for each of its jails
    let mut refused: BTreeSet<String> = BTreeSet::new();
    for jail in &jails {
        for line in conf.of(jail) {
            match of_line(host, &interfaces, &line.request(jail)) {
                Ok(made) => claims.extend(made.into_iter().map(|claim| (jail.clone(), line, claim))),
                Err(error) if refused.insert(line.to_string()) => wrong.push(error.context(line)),
                Err(_) => {}
            }
        }
    }
    wrong.extend(overlaps(&claims, Interfaces(&interfaces)));
    Ok(wrong)
}

/// What a line takes of the host.
fn of_line(host: &dyn Host, interfaces: &[HostInterface], request: &Request) -> Result<Vec<Redirect>> {
    let places = Interfaces(interfaces);
    let families = &request.options.families;
    let nobody = || Family::ALL.map(|family| *NOBODY.of(family)).to_vec();
    let mut addresses = if request.addresses.is_empty() { nobody() } else { request.addresses.clone() };
    addresses.retain(|address| families.is_empty() || families.contains(&Family::of(*address)));
    let targets = Targets::choose_of(&request.jail, &addresses, &addresses)?;
    let mut redirects = vec![];
    // the port of the others is chosen when they are published
    for mapping in request.spec.mappings().iter().filter(|mapping| mapping.host != HostPorts::Auto) {
        redirects.extend(publication::redirects(&request.jail, &Spec::one(*mapping), &targets, |family| {
            request.gateway.map_or_else(|| publisher::gateway(host, family), Ok)
        })?);
    }
    let (jail, options) = (request.jail.clone(), request.options.clone());
    let publication = Publication { jail, redirects, options, via: Default::default(), answers: vec![] };
    publication.check()?;
    for redirect in &publication.redirects {
        match redirect.place {
            Place::Interface(name) if places.members(name).next().is_none() => {
                return Err(error!(
                    Unavailable,
                    "the host has no interface or interface group {name}, so its ports would not be used"
                ));
            }
            _ if !request.force => conflict::with_transit(redirect, places)?,
            _ => {}
        }
    }
    Ok(publication.claims())
}

/// Each pair of lines that would take the same packets, once.
fn overlaps(claims: &[(JailName, &Line, Redirect)], interfaces: Interfaces<'_>) -> Vec<Error> {
    let all = claims.iter().enumerate().map(|(at, (_, _, redirect))| (at, redirect)).collect();
    let mut told: BTreeSet<(String, String)> = BTreeSet::new();
    let mut found = vec![];
    for [(other, theirs), (at, redirect)] in conflict::overlapping(all, interfaces) {
        let ((owner, other, _), (jail, line, _)) = (&claims[other], &claims[at]);
        // of one line, and of one jail, the same redirect twice is one
        if owner == jail && theirs == redirect || !told.insert((line.to_string(), other.to_string())) {
            continue;
        }
        let whose = if owner == jail { "the same jail".to_owned() } else { owner.mention() };
        let (protocol, host, place) = (redirect.protocol, redirect.host, redirect.place);
        let why = format!(
            "{}: {protocol} {host} on {place} is also for {whose}, by {other} ({} on {}); choose another host port",
            jail.mention(),
            theirs.host,
            theirs.place
        );
        found.push(Error::new(Kind::Conflict, why).context(line));
    }
    found
}
