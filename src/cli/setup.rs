//! `kport setup`: what pf.conf(5), rc.conf(5) and sysctl(8) need, and the first of them written.

mod plan;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kport::error::{Error, Kind, Result, quoted};
use kport::host::Host;
use kport::net::Family;

use super::args::{Global, SetupArgs};
use super::{output, session};

/// The most backups that are kept beside a file.
const MOST_BACKUPS: u32 = 100;

/// What to do.
struct Setup<'a> {
    /// The file.
    pf_conf: &'a Path,
    /// Put kport's lines into it.
    write: bool,
    /// Take them out again.
    undo: bool,
    /// Load it afterwards.
    load: bool,
    /// The pfctl(8) that checks and loads it.
    pfctl: &'a Path,
}

/// `kport setup`
pub fn run(global: &Global, args: &SetupArgs) -> Result<()> {
    let SetupArgs { write, undo, load, ref pf_conf } = *args;
    let setup = Setup { pf_conf, write, undo, load, pfctl: &global.pfctl };
    output::print(&setup.run(&*session::host(global)?)?)
}

impl Setup<'_> {
    /// Does it; what there is to say, a line each, and an error where it could not be done.
    fn run(&self, host: &dyn Host) -> Result<String> {
        let (path, text) = self.read()?;
        if self.undo {
            let made = plan::undone(&text);
            let said = match made == text {
                true => format!("{}: has no line of kport setup\n", path.display()),
                false => self.put(&path, &text, &made)?,
            };
            return Ok(said + &self.loaded(&path)?);
        }
        let plan = plan::plan(&text);
        let mut said = format!("{}:\n{plan}", path.display());
        if !self.write {
            return Ok(said + &conf(host)?);
        }
        if !plan.by_hand.is_empty() {
            let why = format!(
                "{} was left as it is: {}; kport setup says which lines go where",
                path.display(),
                plan.by_hand.join("; ")
            );
            return Err(Error::new(Kind::Unavailable, why));
        }
        if !plan.insertions.is_empty() {
            said += &self.put(&path, &text, &plan.applied(&text))?;
        }
        Ok(said + &self.loaded(&path)? + &conf(host)?)
    }

    /// The file itself, behind links, and what stands in it; one that is not there is empty.
    fn read(&self) -> Result<(PathBuf, String)> {
        let path = fs::canonicalize(self.pf_conf).unwrap_or_else(|_| self.pf_conf.to_owned());
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((path, String::new())),
            Err(error) => Err(Error::io(format_args!("read {}", path.display()), &error)),
        }
    }

    /// Writes it beside the file, has it checked, and puts it in place, with a copy of what was there.
    fn put(&self, path: &Path, before: &str, text: &str) -> Result<String> {
        let new = beside(path, "kport-new");
        let written = self.write_new(&new, path, text).and_then(|()| self.check(&new, path));
        let put = written.and_then(|checked| {
            let backup = backup(path)?;
            // an editor may have been quicker
            if fs::read_to_string(path).unwrap_or_default() != before {
                return Err(Error::new(Kind::Busy, format!("{} was changed meanwhile; again", path.display())));
            }
            fs::rename(&new, path).map_err(|e| Error::io(format_args!("rename {}", new.display()), &e))?;
            let kept = backup.map_or(String::new(), |backup| format!("; what it was is {}", backup.display()));
            Ok(format!("{}: written{checked}{kept}\n", path.display()))
        });
        if put.is_err() {
            // where it was not even made there is nothing to remove
            _ = fs::remove_file(&new);
        }
        put
    }

    fn write_new(&self, new: &Path, like: &Path, text: &str) -> Result<()> {
        let write = || -> io::Result<()> {
            let old = match fs::metadata(like) {
                Ok(old) => Some(old),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            let mode = old.as_ref().map_or(0o644, |old| old.mode() & 0o7777);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
            if let Some(old) = old {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
                file.set_permissions(old.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e| Error::io(format_args!("write {}", new.display()), &e))
    }

    /// `pfctl -nf`: a word about it, or what it said.
    fn check(&self, new: &Path, path: &Path) -> Result<String> {
        match self.pfctl(&["-n", "-f"], new)? {
            None => Ok(format!(", not checked: there is no {}", self.pfctl.display())),
            Some(Ok(())) => Ok(", checked".to_owned()),
            Some(Err(said)) => {
                let was = match self.pfctl(&["-n", "-f"], path)? {
                    Some(Err(_)) => "it refuses the file as it is, too: correct that first",
                    _ => "nothing was changed",
                };
                Err(Error::new(Kind::Unavailable, format!("pfctl -nf refuses it: {said}; {was}")))
            }
        }
    }

    fn loaded(&self, path: &Path) -> Result<String> {
        if !self.load {
            return Ok(match self.write || self.undo {
                true => format!("  not loaded: pfctl -f {}\n", path.display()),
                false => String::new(),
            });
        }
        match self.pfctl(&["-f"], path)? {
            None => Err(Error::new(Kind::Unavailable, format!("there is no {} to load it with", self.pfctl.display()))),
            Some(Ok(())) => Ok(format!("{}: loaded\n", path.display())),
            Some(Err(said)) => Err(Error::new(Kind::Unavailable, format!("pfctl -f {}: {said}", path.display()))),
        }
    }

    /// Runs pfctl(8) on a file: nothing where there is none, and what it said where it failed.
    fn pfctl(&self, arguments: &[&str], file: &Path) -> Result<Option<std::result::Result<(), String>>> {
        let mut pfctl = Command::new(self.pfctl);
        pfctl.args(arguments).arg(file).env_clear().env("LC_ALL", "C").stdin(Stdio::null());
        match pfctl.output() {
            Ok(output) if output.status.success() => Ok(Some(Ok(()))),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let lines: Vec<&str> = said.lines().take(3).collect();
                Ok(Some(Err(lines.join("; "))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format_args!("run {}", self.pfctl.display()), &error)),
        }
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(end);
    path.with_file_name(name)
}

/// Copies the file to a name beside it that nobody has; nothing where there is no file.
fn backup(path: &Path) -> Result<Option<PathBuf>> {
    let failed = |error: io::Error| Error::io(format_args!("copy {}", path.display()), &error);
    let mut from = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = from.metadata().map_err(failed)?.mode() & 0o7777;
    for number in 0..MOST_BACKUPS {
        let end = if number == 0 { "before-kport".to_owned() } else { format!("before-kport.{number}") };
        let backup = beside(path, &end);
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&backup) {
            Ok(mut to) => {
                io::copy(&mut from, &mut to).and_then(|_| to.sync_all()).map_err(failed)?;
                return Ok(Some(backup));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let name = quoted(&beside(path, "before-kport").display().to_string());
    Err(Error::new(Kind::System, format!("there are {MOST_BACKUPS} copies such as {name}; remove some")))
}

/// What rc.conf(5) and sysctl(8) need, as commands.
fn conf(host: &dyn Host) -> Result<String> {
    let mut said = "rc.conf(5):\n  sysrc pf_enable=YES gateway_enable=YES".to_owned();
    if host.gateway(Family::Inet6)?.is_some() {
        said += " ipv6_gateway_enable=YES";
    }
    said += "\n";
    let mut missing = vec![];
    for (family, name) in [(Family::Inet, "net.inet.ip.forwarding"), (Family::Inet6, "net.inet6.ip6.forwarding")] {
        if host.gateway(family)?.is_some() && host.sysctl(name)? == Some(0) {
            missing.push(format!("{name}=1"));
        }
    }
    said += &match missing.is_empty() {
        true => "sysctl(8):\n  packets are forwarded; --host-access needs net.pf.filter_local=1 before pf starts\n"
            .to_owned(),
        false => format!("sysctl(8):\n  sysctl {}\n", missing.join(" ")),
    };
    Ok(said)
}
