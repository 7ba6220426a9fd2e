//! Descriptors, files that are written completely or not at all, and directories.
//!
//! A host may have closed its standard descriptors and still write to them. A file of kport that gets such a number
//! receives what the host prints. So no descriptor of this module has a number below 3.

pub(crate) mod flags;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::error::{Error, Result};

/// Opens with `open`, under a number of 3 or more and with close-on-exec.
pub(crate) fn above_stdio<T: Into<OwnedFd>>(open: impl FnOnce() -> io::Result<T>) -> io::Result<OwnedFd> {
    let _taken = Taken::standard();
    lift(open()?.into())
}

/// A pipe, its reading end first, both like [`above_stdio`].
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let _taken = Taken::standard();
    // std's pipes are close-on-exec
    let (read, write) = io::pipe()?;
    Ok((lift(read.into())?, lift(write.into())?))
}

/// Opens a file or a directory, like [`above_stdio`].
pub(crate) fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    Ok(above_stdio(|| Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)?))?.into())
}

/// Occupies the closed ones of the numbers 0 to 2, until it is dropped: what is opened meanwhile does not get them.
/// Reading and writing them fails, as it did before.
#[must_use]
pub(crate) struct Taken {
    _descriptors: Vec<OwnedFd>,
}

impl Taken {
    pub(crate) fn standard() -> Taken {
        let closed = [
            rustix::io::fcntl_getfd(io::stdin()).is_err(),
            rustix::io::fcntl_getfd(io::stdout()).is_err(),
            rustix::io::fcntl_getfd(io::stderr()).is_err(),
        ];
        // a directory that always exists
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = || rustix::fs::open("/", flags, Mode::empty()).ok();
        Taken { _descriptors: closed.into_iter().filter(|closed| *closed).filter_map(|_| root()).collect() }
    }
}

/// Moves the file to a number of 3 or more: the host may just have closed a standard descriptor, or another call of
/// kport may have released one.
fn lift(file: OwnedFd) -> io::Result<OwnedFd> {
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, 3)?)
}

/// Fails if a file of `bytes` is larger than RLIMIT_FSIZE of setrlimit(2): SIGXFSZ would end the calling program.
pub(crate) fn fits(bytes: &[u8]) -> io::Result<()> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    match most.is_some_and(|most| bytes.len() as u64 > most) {
        true => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        false => Ok(()),
    }
}

/// Writes all of `bytes` to a new file, and checks that it holds only them. The error for a file that holds more means
/// that the host has written to a closed descriptor at the moment when kport got its number.
pub(crate) fn write_new(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    fits(bytes)?;
    file.write_all(bytes)?;
    if rustix::fs::fstat(file)?.st_size.unsigned_abs() != bytes.len() as u64 {
        return Err(io::Error::other("the calling program writes to a descriptor that it has closed; try again"));
    }
    Ok(())
}

/// Reads at most `most` bytes of a file and one more; `None` if there is no file. Does not follow a symbolic link, and
/// does not wait for a pipe.
pub(crate) fn read_file(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![];
    let there = read_into(open(path, TO_READ, Mode::empty()), most, &mut bytes)?;
    Ok(there.then_some(bytes))
}

/// Reads a regular file of at most `most` bytes; `None` if there is no file.
pub(crate) fn read_regular(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path, TO_READ, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = vec![];
    read_into(Ok(file), most, &mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(Some(bytes))
}

const TO_READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// Reads into `bytes`, replacing its contents; false if there is no file.
fn read_into(file: io::Result<File>, most: usize, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    // enough for a record of a few mappings; its end is then known without a second call
    bytes.reserve(4096);
    while bytes.len() <= most {
        bytes.reserve(1024);
        let room = bytes.capacity() - bytes.len();
        match rustix::io::read(&file, spare_capacity(bytes)) {
            // a regular file returns all that was asked for up to its end
            Ok(count) if count < room => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// A directory of which many files are read: the path is resolved once, and the standard descriptors are checked once.
pub(crate) struct Folder {
    dir: File,
    _taken: Taken,
}

impl Folder {
    /// `None` if there is no such directory.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Folder>> {
        let _taken = Taken::standard();
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(dir) => Ok(Some(Folder { dir: lift(dir)?.into(), _taken })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The names in it. A name that is not UTF-8 is not kport's; it is returned with replacement characters.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = vec![];
        for entry in Dir::new(self.open_in(c".", OFlags::RDONLY | OFlags::DIRECTORY)?)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// [`read_file`] of a file in it, into `bytes`; false if there is none.
    pub(crate) fn read(&self, name: &str, most: usize, bytes: &mut Vec<u8>) -> io::Result<bool> {
        read_into(self.open_in(name, TO_READ), most, bytes)
    }

    fn open_in(&self, name: impl Arg, flags: OFlags) -> io::Result<File> {
        Ok(lift(rustix::fs::openat(&self.dir, name, flags | OFlags::CLOEXEC, Mode::empty())?)?.into())
    }
}

/// Writes `bytes` to `path` so that a reader finds the old or the new content, even after a kill.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let write = || -> io::Result<()> {
        let make = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
            open(&temporary, flags, Mode::RUSR | Mode::WUSR)
        };
        let file = match make() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_dir(path.parent().unwrap_or(Path::new("/")))?;
                make()?
            }
            other => other?,
        };
        write_new(&file, bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // what a full disk left of it is useless; the first error matters
        _ = fs::remove_file(&temporary);
        Error::io(format_args!("write {}", path.display()), &e)
    })
}

/// Creates an empty file, and its directory, if they do not exist.
pub(crate) fn touch(path: &Path) -> io::Result<()> {
    let make = || open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW, Mode::RUSR | Mode::WUSR);
    match make() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            make_dir(path.parent().unwrap_or(Path::new("/")))?;
            make()?
        }
        other => other?,
    };
    Ok(())
}

/// Creates a directory, and those above it, for its owner only, if they do not exist.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(dir)
}

/// The names in a directory, as in `Folder::names`; none if there is no such directory.
pub fn names_in(dir: &Path) -> Result<Vec<String>> {
    let names = || Folder::open(dir)?.map_or(Ok(vec![]), |folder| folder.names());
    names().map_err(|e| Error::io(format_args!("read {}", dir.display()), &e))
}
