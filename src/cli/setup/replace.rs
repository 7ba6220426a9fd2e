//! Replaces several files together: each is written to a new file in its directory and checked, and then all are renamed.

use std::borrow::Cow;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result, quoted};

/// The maximum number of backups of a file.
const MOST_BACKUPS: u32 = 100;

/// A file of the system.
#[derive(Debug)]
pub struct Conf {
    /// Its path, with links resolved.
    pub path: PathBuf,
    /// Its bytes; empty if there is no such file.
    pub text: Vec<u8>,
    /// Whether there is one.
    exists: bool,
}

impl Conf {
    /// Reads it.
    pub fn read(path: &Path) -> Result<Conf> {
        let is_link = fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink());
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if is_link => return Err(Error::io(format_args!("read {}", path.display()), &error)),
            Err(_) => path.to_owned(),
        };
        match fs::read(&path) {
            Ok(text) => Ok(Conf { path, text, exists: true }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Conf::none(path)),
            Err(error) => Err(Error::io(format_args!("read {}", path.display()), &error)),
        }
    }

    /// A file that does not exist.
    pub fn none(path: PathBuf) -> Conf {
        Conf { path, text: vec![], exists: false }
    }

    /// The file as text, for reading only: bytes that are not UTF-8 are U+FFFD.
    pub fn shown(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }
}

/// A program and its arguments.
pub type Checker<'a> = (&'a Path, &'static [&'static str]);

/// A change of a file.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The program that checks it, and its arguments before the file.
    pub checker: Option<Checker<'a>>,
    /// The file as read.
    pub conf: &'a Conf,
    /// Its new contents.
    pub text: &'a [u8],
}

/// A new file in the directory of the old one. Dropping this removes it and the backup, unless it was renamed.
struct Prepared<'a> {
    change: Change<'a>,
    new: PathBuf,
    /// Locked while this lives, so two processes do not write one file. The lock of a killed process is released.
    file: File,
    /// The remark of the check.
    checked: String,
    backup: Option<PathBuf>,
    done: bool,
}

/// Replaces all files, or changes none. `check` checks a new file that is to replace another, and returns a remark.
pub fn replace(changes: &[Change<'_>], check: &dyn Fn(&Change<'_>, &Path) -> Result<String>) -> Result<String> {
    let mut prepared = vec![];
    for change in changes {
        prepared.push(Prepared::write(*change)?);
    }
    for file in &mut prepared {
        file.checked = check(&file.change, &file.new)?;
    }
    for file in &mut prepared {
        file.backup = backup(&file.change.conf.path)?;
    }
    for file in &prepared {
        file.is_unchanged()?;
    }
    for at in 0..prepared.len() {
        if let Err(error) = prepared[at].put() {
            return Err(prepared[..at].iter_mut().fold(error, |error, file| match file.take_back() {
                Ok(()) => error,
                Err(again) => error.and(format_args!("{} stays changed ({again})", file.change.conf.path.display())),
            }));
        }
    }
    Ok(prepared.iter().map(Prepared::told).collect())
}

impl<'a> Prepared<'a> {
    fn write(change: Change<'a>) -> Result<Prepared<'a>> {
        let new = beside(&change.conf.path, "kport-new");
        let failed = |error: io::Error| Error::io(format_args!("write {}", new.display()), &error);
        if let Some(dir) = change.conf.path.parent().filter(|dir| !change.conf.exists && !dir.as_os_str().is_empty()) {
            DirBuilder::new().mode(0o755).recursive(true).create(dir).map_err(failed)?;
        }
        let file = locked(&new).map_err(failed)?.ok_or_else(|| {
            Error::new(Kind::Busy, format!("{} is being written by another kport setup; try again", new.display()))
        })?;
        let mut prepared =
            Prepared { change, new: new.clone(), file, checked: String::new(), backup: None, done: false };
        prepared.fill().map_err(failed)?;
        Ok(prepared)
    }

    fn fill(&mut self) -> io::Result<()> {
        let file = &mut self.file;
        file.set_len(0)?;
        match fs::metadata(&self.change.conf.path) {
            Ok(old) => {
                fchown(&*file, Some(old.uid()), Some(old.gid()))?;
                file.set_permissions(old.permissions())?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file.set_permissions(fs::Permissions::from_mode(0o644))?;
            }
            Err(error) => return Err(error),
        }
        file.write_all(self.change.text)?;
        file.sync_all()
    }

    /// Fails if an editor has changed the file meanwhile.
    fn is_unchanged(&self) -> Result<()> {
        let Conf { path, text, exists } = self.change.conf;
        let same = match fs::read(path) {
            Ok(now) => *exists && now == *text,
            Err(error) => !exists && error.kind() == io::ErrorKind::NotFound,
        };
        if same {
            return Ok(());
        }
        Err(Error::new(
            Kind::Busy,
            format!("{} was changed meanwhile, and nothing was written; try again", path.display()),
        ))
    }

    fn put(&mut self) -> Result<()> {
        fs::rename(&self.new, &self.change.conf.path)
            .map_err(|e| Error::io(format_args!("rename {}", self.new.display()), &e))?;
        self.done = true;
        Ok(())
    }

    /// Restores the old file.
    fn take_back(&mut self) -> Result<()> {
        let conf = self.change.conf;
        if !conf.exists {
            return fs::remove_file(&conf.path)
                .map_err(|e| Error::io(format_args!("remove {}", conf.path.display()), &e));
        }
        Prepared::write(Change { text: &conf.text, ..self.change })?.put()
    }

    fn told(&self) -> String {
        let kept = self.backup.as_ref().map_or(String::new(), |b| format!("; the old file is {}", b.display()));
        format!("{}: written{}{kept}\n", self.change.conf.path.display(), self.checked)
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

/// Opens and locks a new file, or one that a killed process has left; `None` if another process has locked it.
fn locked(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::OFlags;
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // the process that had it may have renamed or removed it meanwhile
    let (own, named) = (file.metadata()?, fs::symlink_metadata(path));
    let same = |named: fs::Metadata| named.ino() == own.ino() && named.dev() == own.dev();
    Ok(named.is_ok_and(same).then_some(file))
}

/// A name in the directory of a file.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(end);
    path.with_file_name(name)
}

/// Copies the file to an unused name in its directory; `None` if there is no file.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_cannot_be_put_in_place_none_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("a"), "old").unwrap();
        fs::set_permissions(file("a"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(file("c"), "old").unwrap();
        let confs = ["a", "b", "c"].map(|name| Conf::read(&file(name)).unwrap());
        let changes = confs.each_ref().map(|conf| Change { checker: None, conf, text: b"new\xe9" });
        // the last one fails after all files were checked
        let check = |change: &Change<'_>, new: &Path| {
            if change.conf.path.ends_with("c") {
                fs::remove_file(new).unwrap();
            }
            Ok(String::new())
        };
        let error = replace(&changes, &check).unwrap_err();
        assert!(error.message().contains("rename"), "{error}");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let names: Vec<String> = fs::read_dir(dir.path()).unwrap().map(name).collect();
        assert_eq!(fs::read_to_string(file("a")).unwrap(), "old");
        assert_eq!(fs::metadata(file("a")).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!names.contains(&"b".to_owned()) && !names.iter().any(|name| name.ends_with("-new")), "{names:?}");

        let said = replace(&changes, &|_, _| Ok(String::new())).unwrap();
        assert_eq!(said.lines().count(), 3);
        assert!(["a", "b", "c"].iter().all(|name| fs::read(file(name)).unwrap() == b"new\xe9"));
        // a change that was made meanwhile is kept
        let error = replace(&changes, &|_, _| Ok(String::new())).unwrap_err();
        assert!(error.kind() == Kind::Busy && error.message().contains("changed meanwhile"), "{error}");
    }
}
