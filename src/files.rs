//! Files that are written in whole or not at all, and directories.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Puts `bytes` at `path` so that a reader, and whoever comes after a kill, finds the old or the new content.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        let open = || {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&temporary)
        };
        let mut file = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_dir(path.parent().unwrap_or(Path::new("/")))?;
                open()?
            }
            other => other?,
        };
        file.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // what a full disk left of it is of no use; the error that matters is the first one
        _ = fs::remove_file(&temporary);
        Error::io(format_args!("write {}", path.display()), &e)
    })
}

/// Makes a directory, and those above it, for its owner alone; one that is there is fine.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(dir)
}

/// The names in a directory; none where there is no such directory. A name that is not UTF-8 is not one of kport's; it comes with
/// replacement characters.
pub fn names_in(dir: &Path) -> Result<Vec<String>> {
    let failed = |e: io::Error| Error::io(format_args!("read {}", dir.display()), &e);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(failed(e)),
    };
    let mut names = vec![];
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    Ok(names)
}
