//! The files. They open ports, so nobody but root and the caller may be able to write them.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::DEFAULT;
use crate::error::{Error, Kind, Result};
use crate::files::{Folder, open};

/// The most bytes that are read of a file.
const MAX_FILE: u64 = 4 << 20;
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Each file, by its name, with its text: the given one or the default, then those in its directory.
pub fn texts(file: Option<&Path>) -> Result<Vec<(String, String)>> {
    let path = file.unwrap_or(Path::new(DEFAULT));
    let mut found = vec![];
    match trusted(path, OFlags::empty())? {
        Some(opened) => found.push((path.display().to_string(), text(path, opened)?)),
        None if file.is_some() => {
            return Err(Error::new(Kind::Argument, format!("there is no file {}", path.display())));
        }
        None => {}
    }
    let mut dir = path.as_os_str().to_owned();
    dir.push(".d");
    let dir = PathBuf::from(dir);
    if trusted(&dir, OFlags::DIRECTORY)?.is_none() {
        return Ok(found);
    }
    let failed = |e| Error::io(format_args!("read {}", dir.display()), &e);
    let mut names = Folder::open(&dir).and_then(|dir| dir.map_or(Ok(vec![]), |mut dir| dir.names())).map_err(failed)?;
    names.retain(|name| name.ends_with(".conf") && !name.starts_with('.'));
    names.sort_unstable();
    for path in names.iter().map(|name| dir.join(name)) {
        // removed meanwhile
        let Some(opened) = trusted(&path, OFlags::empty())? else { continue };
        found.push((path.display().to_string(), text(&path, opened)?));
    }
    Ok(found)
}

/// Opens a file or a directory; `None` if there is none. An error if others may have written it, or may replace it.
fn trusted(path: &Path, flags: OFlags) -> Result<Option<File>> {
    let shown = path.display();
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // EMLINK on FreeBSD, ELOOP elsewhere; ENOTDIR for a directory
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EMLINK | libc::ENOTDIR)) => {
            let what = if flags.contains(OFlags::DIRECTORY) { "a directory" } else { "a file" };
            return Err(Error::new(
                Kind::Permission,
                format!("{shown} is not {what} itself: a symbolic link is not followed"),
            ));
        }
        Err(error) => return Err(Error::io(format_args!("open {shown}"), &error)),
    };
    let failed = |e| Error::io(format_args!("stat {shown}"), &e);
    let meta = file.metadata().map_err(failed)?;
    check(path, &meta)?;
    if !flags.contains(OFlags::DIRECTORY) {
        if !meta.is_file() {
            return Err(Error::new(Kind::Permission, format!("{shown} is not a regular file")));
        }
        // who may write to the directory may replace the file
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        check(above, &std::fs::metadata(above).map_err(failed)?)?;
    }
    Ok(Some(file))
}

fn check(path: &Path, meta: &Metadata) -> Result<()> {
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
    let mut text = String::new();
    match file.take(MAX_FILE + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 <= MAX_FILE => Ok(text),
        Ok(_) => Err(Error::new(Kind::Argument, format!("{} has more than {MAX_FILE} bytes", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(Error::new(Kind::Argument, format!("{} is not UTF-8", path.display())))
        }
        Err(error) => Err(Error::io(format_args!("read {}", path.display()), &error)),
    }
}
