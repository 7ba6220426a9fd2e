//! Replaces several files together: each is written to a new file in its directory and checked, and then all are renamed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::child;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting, error, quoted};
use crate::files::flags::Flags;

/// The maximum length of a file that is read, in bytes.
const MAX_FILE: usize = 16 << 20;
/// S_IWGRP and S_IWOTH
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// S_ISVTX
const STICKY: u32 = 0o1000;
/// The maximum number of backups of a file.
const MOST_BACKUPS: u32 = 100;

#[derive(Clone, PartialEq, Eq)]
pub struct ConfFile {
    /// With links resolved.
    pub path: PathBuf,
    /// Empty if there is no such file.
    pub text: Vec<u8>,
    pub exists: bool,
}

impl ConfFile {
    pub fn read(path: &Path) -> Result<ConfFile> {
        let is_link = fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink());
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if is_link => return Err(failed("read", path)(error)),
            // the programs that read it run in another directory
            Err(_) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
                let dir = path.parent().and_then(|dir| fs::canonicalize(dir).ok());
                dir.zip(path.file_name()).map(|(dir, name)| dir.join(name)).unwrap_or(path)
            }
        };
        match crate::files::read_regular(&path, MAX_FILE).map_err(failed("read", &path))? {
            Some(text) => Ok(ConfFile { path, text, exists: true }),
            None => Ok(ConfFile::none(path)),
        }
    }

    pub fn none(path: PathBuf) -> ConfFile {
        ConfFile { path, text: vec![], exists: false }
    }

    /// The file as text, for reading only: bytes that are not UTF-8 are U+FFFD.
    pub fn shown(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }
}

/// The program that checks a file, and its arguments before the file.
pub type Checker<'a> = (&'a Path, &'static [&'static str]);

pub struct Change<'a> {
    pub checker: Option<Checker<'a>>,
    pub conf: ConfFile,
    /// Its new contents; `None` removes the file, which kport has created.
    pub text: Option<Vec<u8>>,
}

impl Change<'_> {
    pub fn is_one(&self) -> bool {
        self.text.as_ref() != Some(&self.conf.text)
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
    /// Locked while this lives, so two processes do not write one file. The lock of a killed process is released.
    file: File,
    checked: String,
    backup: Option<PathBuf>,
    done: bool,
}

/// Replaces all files, or changes none. Returns what was done, a line for each file.
pub fn replace(changes: &[&Change<'_>], deadline: Deadline) -> Result<String> {
    changes.iter().try_for_each(|change| can_replace(&change.conf.path))?;
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
                Err(again) => error.and(format_args!("{} stays changed ({again})", file.change.conf.path.display())),
            }));
        }
    }
    Ok(prepared.iter().map(Prepared::told).collect())
}

impl<'a> Prepared<'a> {
    fn new(change: &'a Change<'a>, deadline: Deadline) -> Result<Prepared<'a>> {
        let ConfFile { path, exists, .. } = &change.conf;
        let new = path.with_added_extension("kport-new");
        if let Some(dir) = path.parent().filter(|dir| !exists && !dir.as_os_str().is_empty()) {
            DirBuilder::new().mode(0o755).recursive(true).create(dir).map_err(failed("write", &new))?;
        }
        let file = create(&new)?;
        let mut prepared = Prepared { change, new, file, checked: String::new(), backup: None, done: false };
        let text = change.text.as_deref().unwrap_or_default();
        fill(&prepared.file, text, path).map_err(failed("write", &prepared.new))?;
        if change.text.is_some() {
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
        Err(error!(Busy, "{} was changed meanwhile, and nothing was written; try again", conf.path.display()))
    }

    fn put(&mut self) -> Result<()> {
        let path = &self.change.conf.path;
        if self.change.text.is_none() {
            remove(path)?;
            _ = fs::remove_file(&self.new);
        } else {
            fs::rename(&self.new, path).map_err(failed("rename", &self.new))?;
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
        format!("{}: {done}{}{kept}\n", self.change.conf.path.display(), self.checked)
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
    if let Ok(file) = fs::symlink_metadata(path) {
        if file.nlink() > 1 {
            let links = file.nlink();
            return refuse(format!("it has {links} links, and the others would keep the old contents; remove them"));
        }
        if let Some(flags) = Flags::of(&file).immutable() {
            return refuse(by_flags(path, &flags));
        }
    }
    let user = rustix::process::geteuid().as_raw();
    for (number, dir) in path.ancestors().skip(1).enumerate() {
        // one that is to be created has the owner and the mode of this process
        let Ok(about) = fs::metadata(dir) else { continue };
        if let Some(flags) = Flags::of(&about).immutable().filter(|_| number == 0) {
            return refuse(by_flags(dir, &flags));
        }
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

/// The message for flags that keep a file.
pub fn by_flags(path: &Path, flags: &str) -> String {
    let path = path.display();
    let off: Vec<String> = flags.split(',').map(|flag| format!("no{flag}")).collect();
    let off = off.join(",");
    let boot = match flags.split(',').any(|flag| flag.starts_with('s')) {
        true => " (in single-user mode, if kern.securelevel is above 0)",
        false => "",
    };
    format!("{path} has the flags {flags}; chflags {off} {path}{boot}, and afterwards chflags {flags} {path}")
}

/// Neither a link nor a file of others is opened.
fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Fills a new file, which gets the owner, the mode and the flags of the old one.
fn fill(mut file: &File, text: &[u8], old: &Path) -> io::Result<()> {
    file.write_all(text)?;
    match fs::metadata(old) {
        Ok(old) => {
            fchown(file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(old.permissions())?;
            Flags::of(&old).copy_to(file)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.set_permissions(Permissions::from_mode(0o644))?,
        Err(error) => return Err(error),
    }
    file.sync_all()
}

fn busy<T>(path: &Path) -> Result<T> {
    Err(error!(Busy, "{} is being written by another kport setup; try again", path.display()))
}

/// Creates and locks a new file. One that a killed process has left is removed first.
fn create(path: &Path) -> Result<File> {
    let is_there = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    let mut made = create_new(path);
    if made.as_ref().is_err_and(is_there) {
        remove_left(path)?;
        made = create_new(path);
    }
    match made {
        Ok(file) if is_locked(&file, path)? => Ok(file),
        Err(error) if !is_there(&error) => Err(failed("write", path)(error)),
        _ => busy(path),
    }
}

fn remove_left(path: &Path) -> Result<()> {
    let failed = failed("write", path);
    let about = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about.map_err(&failed)?,
    };
    let user = rustix::process::geteuid().as_raw();
    if !about.is_file() || about.nlink() != 1 || ![0, user].contains(&about.uid()) {
        return Err(error!(
            Permission,
            "{} is not a file that kport setup has left (it is {}owned by user {}, with {} links); remove it",
            path.display(),
            if about.is_file() { "" } else { "not a regular file, " },
            about.uid(),
            about.nlink()
        ));
    }
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let left = OpenOptions::new().write(true).custom_flags(nofollow).open(path).map_err(&failed)?;
    if !is_locked(&left, path)? {
        return busy(path);
    }
    fs::remove_file(path).map_err(failed)
}

/// Locks a file; false if another process has locked it, or has renamed or removed it meanwhile.
fn is_locked(file: &File, path: &Path) -> Result<bool> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(false),
        locked => locked.map_err(|error| failed("write", path)(error.into()))?,
    }
    let own = file.metadata().map_err(failed("write", path))?;
    Ok(fs::symlink_metadata(path).is_ok_and(|named| (named.ino(), named.dev()) == (own.ino(), own.dev())))
}

/// Copies the file to an unused name in its directory; `None` if there is no file.
fn backup(conf: &ConfFile) -> Result<Option<PathBuf>> {
    if !conf.exists {
        return Ok(None);
    }
    let first = conf.path.with_added_extension("before-kport");
    for number in 0..MOST_BACKUPS {
        let backup = if number == 0 { first.clone() } else { first.with_added_extension(number.to_string()) };
        match create_new(&backup) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            file => {
                let filled = file.and_then(|file| fill(&file, &conf.text, &conf.path));
                return filled.map(|()| Some(backup)).map_err(failed("copy", &conf.path));
            }
        }
    }
    Err(error!(System, "there are {MOST_BACKUPS} copies such as {}; remove some", quoted(&first.display().to_string())))
}
