//! kport.conf(5): what is to be published, one line for each publication, and the jails that it is for.
//!
//! ```text
//! web      8080:80 8443:443/tcp,udp --sources 192.0.2.0/24
//! /^ci-/   auto:22
//! ```
//!
//! The words after the jail are those of `kport publish`; the options are read by their names, as everywhere
//! ([`Request::set`]).

mod check;
mod line;

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Kind, Result};
use crate::files::{names_in, open};
use crate::host::Host;
use crate::name::JailName;
use crate::publisher::{Outcome, Publisher, Recorded, Request};

pub use check::check;
pub use line::Line;

/// The file that is read if the caller names none.
pub const DEFAULT: &str = "/usr/local/etc/kport.conf";

/// The most bytes that are read of a file.
const MAX_FILE: u64 = 4 << 20;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The lines of kport.conf(5) and of the files in kport.conf.d.
#[derive(Clone, Debug, Default)]
pub struct Conf {
    lines: Vec<Line>,
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
            return Err(Error::new(Kind::Argument, format!("there is no file {}", path.display())));
        }
        let mut dir = path.as_os_str().to_owned();
        dir.push(".d");
        let dir = PathBuf::from(dir);
        if trusted(&dir, OFlags::DIRECTORY)?.is_some() {
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
        let Some(file) = trusted(path, OFlags::empty())? else { return Ok(false) };
        self.lines.extend(line::parse(&path.display().to_string(), &text(path, file)?)?);
        Ok(true)
    }

    /// What a file with this text and this name says.
    pub fn parse(name: &str, text: &str) -> Result<Conf> {
        Ok(Conf { lines: line::parse(name, text)? })
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The lines of a jail.
    pub fn of<'a>(&'a self, jail: &'a JailName) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(|line| line.is_of(jail))
    }

    /// The requests of one transaction for a jail that runs; empty if no line is for it. They do not wait for an address: a hook
    /// does.
    pub fn requests(&self, jail: &JailName) -> Vec<Request> {
        self.of(jail).map(|line| Request { wait: Duration::ZERO, ..line.request(jail) }).collect()
    }

    /// Whether the lines of a jail are others than those that were requested for it, except for addresses that a manager gave to
    /// the hook.
    pub fn differs(&self, jail: &JailName, requests: &[Request]) -> bool {
        let lines = self.requests(jail);
        let had: Vec<&Request> = requests.iter().filter(|request| request.configured).collect();
        had.len() != lines.len() || lines.iter().any(|line| !had.iter().any(|old| is_of_line(old, line)))
    }

    /// The names of targets that are not jails.
    pub fn not_jails(&self) -> BTreeSet<&JailName> {
        self.lines.iter().filter(|line| line.is_no_jail()).filter_map(Line::jail).collect()
    }
}

/// Whether a request was made from a line.
pub fn is_of_line(request: &Request, line: &Request) -> bool {
    let found = || Request { addresses: vec![], ..request.clone() };
    request.is_same(line) || line.addresses.is_empty() && line.is_same(&found())
}

/// The names of the jails that run.
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

/// Makes what is published what the lines say, each jail in a transaction of its own, and reports each result, in any order.
/// Without `conf`, with the lines that are recorded. Ports may move from one jail to another, or be exchanged: a jail whose ports
/// another one still has comes again after that one.
pub fn apply(
    publisher: &Publisher<'_>,
    conf: Option<&Conf>,
    recorded: &[Recorded],
    jails: &BTreeSet<JailName>,
    told: &mut dyn FnMut(&JailName, Result<Outcome>),
) {
    let lines = |jail: &JailName| conf.map(|conf| conf.requests(jail));
    let mut left: Vec<&JailName> = jails.iter().collect();
    for last in [false, true] {
        let mut refused = vec![];
        for jail in left {
            match publisher.follow(jail, lines(jail).as_deref()) {
                Err(error) if !last && error.kind() == Kind::Conflict => refused.push(jail),
                result => told(jail, result),
            }
        }
        // an exchange: first all of them give up what they are not to have
        for jail in &refused {
            let had = recorded.iter().filter(|record| record.jail == **jail).flat_map(|record| &record.requests);
            let had: Vec<&Request> = had.filter(|request| request.configured).collect();
            let mut stays = lines(jail).unwrap_or_default();
            stays.retain(|request| had.iter().any(|known| known.is_same(request)));
            if stays.len() < had.len() {
                // what is wrong is reported by the next pass
                _ = publisher.follow(jail, Some(&stays));
            }
        }
        left = refused;
    }
}

/// Opens a file or a directory; `None` if there is none. An error if others may have written it, or may replace it.
fn trusted(path: &Path, flags: OFlags) -> Result<Option<File>> {
    let shown = path.display();
    let refuse = |why: String| Err(Error::new(Kind::Permission, why));
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // EMLINK on FreeBSD, ELOOP elsewhere; ENOTDIR for a directory
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EMLINK | libc::ENOTDIR)) => {
            let what = if flags.contains(OFlags::DIRECTORY) { "a directory" } else { "a file" };
            return refuse(format!("{shown} is not {what} itself: a symbolic link is not followed"));
        }
        Err(error) => return Err(Error::io(format_args!("open {shown}"), &error)),
    };
    let failed = |e| Error::io(format_args!("stat {shown}"), &e);
    let meta = file.metadata().map_err(failed)?;
    check_owner(path, &meta)?;
    if !flags.contains(OFlags::DIRECTORY) {
        if !meta.is_file() {
            return refuse(format!("{shown} is not a regular file"));
        }
        // who may write to the directory may replace the file
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        check_owner(above, &std::fs::metadata(above).map_err(failed)?)?;
    }
    Ok(Some(file))
}

fn check_owner(path: &Path, meta: &Metadata) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if (meta.uid() == 0 || meta.uid() == user) && meta.mode() & WRITABLE_BY_OTHERS == 0 {
        return Ok(());
    }
    let why = format!(
        "{} opens ports, and others can write to it: it is owned by user {}, mode {:o}; run chown root and chmod go-w",
        path.display(),
        meta.uid(),
        meta.mode() & 0o7777
    );
    Err(Error::new(Kind::Permission, why))
}

fn text(path: &Path, file: File) -> Result<String> {
    let refuse = |why: String| Err(Error::new(Kind::Argument, format!("{} {why}", path.display())));
    let mut text = String::new();
    match file.take(MAX_FILE + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= MAX_FILE => Ok(text),
        Ok(_) => refuse(format!("has more than {MAX_FILE} bytes")),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => refuse("is not UTF-8".to_owned()),
        Err(error) => Err(Error::io(format_args!("read {}", path.display()), &error)),
    }
}
