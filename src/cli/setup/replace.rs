//! Replaces several files together: each is written to a new file in its directory and checked, and then all are renamed.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::child;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting, error, quoted};
use crate::files::flags;

/// The maximum length of a file that is read, in bytes.
const MAX_FILE: usize = 16 << 20;
/// S_IWGRP and S_IWOTH
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// S_ISVTX
const STICKY: u32 = 0o1000;
/// The maximum number of backups of a file.
const MOST_BACKUPS: u32 = 100;

#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConfFile {
    /// With links resolved.
    pub path: PathBuf,
    /// Empty if there is no such file.
    pub text: Vec<u8>,
    pub exists: bool,
    /// Whether it is FreeBSD's, and this is another system: it is neither read nor written.
    pub foreign: bool,
}

impl ConfFile {
    pub fn read(path: &Path) -> Result<ConfFile> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            // the programs that read it run in another directory
            Err(_) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                let dir = path.parent().and_then(|dir| fs::canonicalize(dir).ok());
                dir.zip(path.file_name()).map(|(dir, name)| dir.join(name)).unwrap_or(path)
            }
        };
        match crate::files::read_regular(&path, MAX_FILE).map_err(failed("read", &path))? {
            Some(text) => Ok(ConfFile { path, text, exists: true, foreign: false }),
            None => Ok(ConfFile { path, ..ConfFile::default() }),
        }
    }

    /// The given file, or FreeBSD's.
    pub fn given(path: Option<&Path>, default: &Path) -> Result<ConfFile> {
        match path {
            None if cfg!(not(target_os = "freebsd")) => {
                Ok(ConfFile { path: default.into(), foreign: true, ..ConfFile::default() })
            }
            path => ConfFile::read(path.unwrap_or(default)),
        }
    }

    /// The file as text, for reading only: bytes that are not UTF-8 are U+FFFD.
    pub fn shown(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }
}

/// A file, and what is to be done with it.
#[derive(Default)]
pub struct Change<'a> {
    pub conf: ConfFile,
    /// Its new contents; `None` removes the file, which kport has created.
    pub text: Option<Vec<u8>>,
    /// The program that checks it, and its arguments before the file.
    pub checker: Option<(&'a Path, &'static [&'static str])>,
    /// What is printed about it.
    pub shown: String,
    /// Why its lines must be added by hand.
    pub by_hand: Vec<String>,
    /// Whether pfctl(8) loads it: pf.conf, and what it includes.
    pub loads: bool,
}

impl Change<'_> {
    pub fn path(&self) -> std::path::Display<'_> {
        self.conf.path.display()
    }

    pub fn is_one(&self) -> bool {
        !self.conf.foreign && self.text.as_ref() != Some(&self.conf.text)
    }

    /// Checks the file that is to replace the old one: a remark for the output, or the error.
    fn check(&self, new: &Path, deadline: Deadline) -> Result<String> {
        let Some((program, arguments)) = self.checker else { return Ok(String::new()) };
        match child::output_of(program, arguments, Some(new), deadline)? {
            None => Ok(format!(", not checked: there is no {}", program.display())),
            Some(Ok(_)) => Ok(", checked".to_owned()),
            Some(Err(said)) => {
                let was = match child::output_of(program, arguments, Some(&self.conf.path), deadline)? {
                    Some(Err(_)) => "it also rejects the present file; correct that first",
                    _ => "nothing was changed",
                };
                let name = program.file_name().unwrap_or_default().display();
                Err(error!(Unavailable, "{name} {} rejects it: {said}; {was}", arguments.join(" ")))
            }
        }
    }
}

/// A new file in the directory of the old one. Dropping this removes it and the backup, unless it was renamed.
struct Prepared<'a> {
    change: &'a Change<'a>,
    new: PathBuf,
    checked: String,
    backup: Option<PathBuf>,
    done: bool,
}

/// Replaces all files, or changes none. Returns what was done, a line for each file.
pub fn replace(changes: &[&Change<'_>], deadline: Deadline) -> Result<String> {
    changes.iter().try_for_each(|change| can_replace(&change.conf.path))?;
    let dirs: BTreeSet<&Path> = changes.iter().filter_map(|change| change.conf.path.parent()).collect();
    let _locks = dirs.into_iter().map(lock).collect::<Result<Vec<_>>>()?;
    let mut prepared = changes.iter().map(|change| Prepared::new(change, deadline)).collect::<Result<Vec<_>>>()?;
    if deadline.passed() {
        return Err(Error::new(Kind::Busy, "the time is up, and nothing was changed; try again")
            .remedy("give more time with", Setting::Timeout));
    }
    prepared.iter().try_for_each(Prepared::is_unchanged)?;
    for at in 0..prepared.len() {
        if let Err(error) = prepared[at].put() {
            return Err(prepared[..at].iter().fold(error, |error, file| match file.take_back() {
                Ok(()) => error,
                Err(again) => error.and(format_args!("{} stays changed ({again})", file.change.path())),
            }));
        }
    }
    Ok(prepared.iter().map(Prepared::told).collect())
}

/// Creates and locks a directory, so that two processes do not write one file in it. The lock of a killed process is released.
fn lock(dir: &Path) -> Result<File> {
    let open = || {
        DirBuilder::new().mode(0o755).recursive(true).create(dir)?;
        File::open(dir)
    };
    let file = open().map_err(failed("open", dir))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(error!(Busy, "another kport setup is writing to {}; try again", dir.display()))
        }
        Err(TryLockError::Error(error)) => Err(failed("lock", dir)(error)),
    }
}

impl<'a> Prepared<'a> {
    fn new(change: &'a Change<'a>, deadline: Deadline) -> Result<Prepared<'a>> {
        let path = &change.conf.path;
        let new = path.with_added_extension("kport-new");
        let mut prepared = Prepared { change, new, checked: String::new(), backup: None, done: false };
        if let Some(text) = &change.text {
            // a killed process may have left one
            _ = fs::remove_file(&prepared.new);
            create(&prepared.new, text, path).map_err(failed("write", &prepared.new))?;
            prepared.checked = change.check(&prepared.new, deadline)?;
        }
        prepared.backup = backup(&change.conf)?;
        Ok(prepared)
    }

    /// Fails if an editor has changed the file meanwhile.
    fn is_unchanged(&self) -> Result<()> {
        let conf = &self.change.conf;
        if ConfFile::read(&conf.path).is_ok_and(|now| now == *conf) {
            return Ok(());
        }
        Err(error!(Busy, "{} was changed meanwhile, and nothing was written; try again", self.change.path()))
    }

    fn put(&mut self) -> Result<()> {
        let path = &self.change.conf.path;
        match self.change.text {
            None => remove(path)?,
            Some(_) => fs::rename(&self.new, path).map_err(failed("rename", &self.new))?,
        }
        self.done = true;
        Ok(())
    }

    fn take_back(&self) -> Result<()> {
        let path = &self.change.conf.path;
        match &self.backup {
            Some(backup) => fs::rename(backup, path).map_err(failed("rename", backup)),
            None => remove(path),
        }
    }

    fn told(&self) -> String {
        let kept = self.backup.as_ref().map_or(String::new(), |b| format!("; the old file is {}", b.display()));
        let done = if self.change.text.is_some() { "written" } else { "removed, as kport setup had created it" };
        format!("{}: {done}{}{kept}\n", self.change.path(), self.checked)
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.done {
            // a missing file need not be removed
            _ = fs::remove_file(&self.new);
            _ = self.backup.take().map(fs::remove_file);
        }
    }
}

fn failed(doing: &str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| Error::io(format_args!("{doing} {}", path.display()), &error)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(failed("remove", path))
}

/// Checks that a file has no flag against it and no other link, and that nobody else can rename its directory or what is in it.
fn can_replace(path: &Path) -> Result<()> {
    let refuse = |why: String| Err(error!(Permission, "{} was not changed: {why}", path.display()));
    for kept in path.ancestors().take(2) {
        let flags = fs::metadata(kept).map_or(vec![], |about| flags::immutable(&about));
        if !flags.is_empty() {
            let (off, on, kept) = (flags.join(",no"), flags.join(","), kept.display());
            return refuse(format!("{kept} has flags; chflags no{off} {kept}, and afterwards chflags {on} {kept}"));
        }
    }
    let links = fs::symlink_metadata(path).map_or(1, |file| file.nlink());
    if links > 1 {
        return refuse(format!("it has {links} links, and the others would keep the old contents; remove them"));
    }
    let user = rustix::process::geteuid().as_raw();
    for dir in path.ancestors().skip(1) {
        // one that is to be created has the owner and the mode of this process
        let Ok(about) = fs::metadata(dir) else { continue };
        let others = about.mode() & WRITABLE_BY_OTHERS != 0 && about.mode() & STICKY == 0;
        if ![0, user].contains(&about.uid()) || others {
            return refuse(format!(
                "others may rename files in {} (it is owned by user {}, mode {:o}); correct that with chown(8) and chmod(1)",
                dir.display(),
                about.uid(),
                about.mode() & 0o7777
            ));
        }
    }
    Ok(())
}

/// Creates a file, which gets the owner, the mode and the flags of the old one. Neither a link nor a file of others is opened.
fn create(path: &Path, text: &[u8], old: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    match fs::metadata(old) {
        Ok(old) => {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(old.permissions())?;
            flags::copy(&old, &file)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.set_permissions(Permissions::from_mode(0o644))?,
        Err(error) => return Err(error),
    }
    file.sync_all()
}

/// Copies the file to an unused name in its directory; `None` if there is no file.
fn backup(conf: &ConfFile) -> Result<Option<PathBuf>> {
    if !conf.exists {
        return Ok(None);
    }
    let first = conf.path.with_added_extension("before-kport");
    for number in 0..MOST_BACKUPS {
        let backup = if number == 0 { first.clone() } else { first.with_added_extension(number.to_string()) };
        match create(&backup, &conf.text, &conf.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| Some(backup)).map_err(failed("copy", &conf.path)),
        }
    }
    Err(error!(System, "there are {MOST_BACKUPS} copies such as {}; remove some", quoted(&first.display().to_string())))
}
