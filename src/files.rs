//! Descriptors, files that are written completely or not at all, and directories.
//!
//! A host may have closed its standard descriptors and still write to them. A file of kport that gets such a number
//! receives what the host prints. So no descriptor of this module has a number below 3, and one that can be written to
//! never had one. What is open for reading only cannot receive anything, and kport reads it at offsets of its own. In the
//! helper that cannot happen ([`in_helper`]), so it does not ask the kernel before each file.

pub mod flags;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::race::OnceBox;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Dir, DirEntry, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Whether the process is the helper.
static HELPER: AtomicBool = AtomicBool::new(false);

/// To be called by the main function of the helper, before anything is opened. std has opened the standard descriptors that
/// were closed (`sanitize_standard_fds` of its rt), nothing closes them, and nothing changes the limits of the process.
pub(crate) fn in_helper() {
    HELPER.store(true, Ordering::Relaxed);
}

/// Opens with `open`, under a number of 3 or more and with close-on-exec.
pub(crate) fn above_stdio<T: Into<OwnedFd>>(open: impl FnOnce() -> io::Result<T>) -> io::Result<OwnedFd> {
    let _taken = taken();
    lift(open()?.into())
}

pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let _taken = taken();
    // std's pipes are close-on-exec
    let (read, write) = io::pipe()?;
    Ok((lift(read.into())?, lift(write.into())?))
}

/// Opens a file or a directory, like [`above_stdio`].
pub(crate) fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let open = || Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)?);
    match flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        true => Ok(above_stdio(open)?.into()),
        false => Ok(lift(open()?)?.into()),
    }
}

/// Occupies the closed ones of the numbers 0 to 2, until they are dropped: what is opened meanwhile does not get them.
/// Reading and writing them fails, as it did before.
#[must_use]
pub(crate) fn taken() -> Vec<OwnedFd> {
    if HELPER.load(Ordering::Relaxed) {
        return vec![];
    }
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let ask = |standard| PollFd::from_borrowed_fd(standard, PollFlags::empty());
    let mut asked = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(ask);
    let unknown = poll(&mut asked, Some(&Timespec::default())).is_err();
    let closed = asked.iter().filter(|standard| unknown || standard.revents().contains(PollFlags::NVAL)).count();
    // a directory that always exists
    let root = |_| rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok();
    (0..closed).filter_map(root).collect()
}

/// The host may just have closed a standard descriptor, or another call of kport may have released one.
fn lift(file: OwnedFd) -> io::Result<OwnedFd> {
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&file, 3)?)
}

/// Fails if a file of `bytes` is larger than RLIMIT_FSIZE of setrlimit(2): SIGXFSZ would end the calling program.
pub(crate) fn fits(bytes: &[u8]) -> io::Result<()> {
    static KNOWN: OnceBox<Option<u64>> = OnceBox::new();
    let limit = || rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let most = if HELPER.load(Ordering::Relaxed) { *KNOWN.get_or_init(|| Box::new(limit())) } else { limit() };
    let fits = most.is_none_or(|most| bytes.len() as u64 <= most);
    if fits { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EFBIG)) }
}

/// Writes all of `bytes` to a new file, and checks that it holds only them. The error for a file that holds more means
/// that the host has written to a closed descriptor at the moment when kport got its number.
pub(crate) fn write_new(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    fits(bytes)?;
    file.write_all(bytes)?;
    if !HELPER.load(Ordering::Relaxed) && rustix::fs::fstat(file)?.st_size.unsigned_abs() != bytes.len() as u64 {
        return Err(io::Error::other("the calling program writes to a descriptor that it has closed; try again"));
    }
    Ok(())
}

/// Reads at most `most` bytes of a file and one more; `None` if there is no file. Does not follow a symbolic link, and
/// does not wait for a pipe.
pub(crate) fn read_file(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = if_there(open(path, TO_READ, Mode::empty()))? else { return Ok(None) };
    let mut bytes = vec![];
    read_into(&file, most, &mut bytes)?;
    Ok(Some(bytes))
}

/// Reads a regular file of at most `most` bytes; `None` if there is no file.
pub(crate) fn read_regular(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = if_there(open(path, TO_READ, Mode::empty()))? else { return Ok(None) };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = vec![];
    read_into(&file, most, &mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(Some(bytes))
}

const TO_READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// `None` if what was to be opened does not exist.
fn if_there<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Reads into `bytes`, replacing its contents.
fn read_into(file: impl AsFd, most: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    // enough for a record of a few mappings; its end is then known without a second call
    bytes.reserve(4096);
    while bytes.len() <= most {
        bytes.reserve(1024);
        let (offset, room) = (bytes.len() as u64, bytes.capacity() - bytes.len());
        match rustix::io::pread(&file, spare_capacity(bytes), offset) {
            // a regular file returns all that was asked for up to its end
            Ok(count) if count < room => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A directory of which many files are read: the path is resolved once.
pub(crate) struct Folder(Dir);

impl Folder {
    /// `None` if there is no such directory.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Folder>> {
        let dir = if_there(open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()))?;
        dir.map(|dir| Ok(Folder(Dir::new(dir)?))).transpose()
    }

    /// The names in it; to be called once. A name that is not UTF-8 is not kport's; it is returned with replacement characters.
    pub(crate) fn names(&mut self) -> io::Result<Vec<String>> {
        let name = |entry: rustix::io::Result<DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = self.0.by_ref().map(name).collect::<io::Result<_>>()?;
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    /// [`read_file`] of a file in it, into `bytes`; false if there is none.
    pub(crate) fn read(&self, name: &str, most: usize, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let file = rustix::fs::openat(self.0.fd()?, name, TO_READ | OFlags::CLOEXEC, Mode::empty());
        let Some(file) = if_there(file.map_err(io::Error::from))? else { return Ok(false) };
        read_into(lift(file)?, most, bytes).map(|()| true)
    }

    /// What a file in it is; a symbolic link is not followed.
    pub(crate) fn look_at(&self, name: &str) -> io::Result<Stat> {
        Ok(rustix::fs::statat(self.0.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Writes `bytes` to `path` so that a reader finds the old or the new content, even after a kill.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_added_extension("tmp");
    let write = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let file = in_directory(&temporary, || open(&temporary, flags, Mode::RUSR | Mode::WUSR))?;
        write_new(&file, bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // what a full disk left of it is useless; the first error matters
        _ = fs::remove_file(&temporary);
        Error::io(format_args!("write {}", path.display()), &e)
    })
}

/// Creates an entry of which only the name is needed, and its directory, if they do not exist. It is a symbolic link that leads
/// nowhere: one call makes it, and no descriptor is open meanwhile.
pub(crate) fn mark(path: &Path) -> io::Result<()> {
    in_directory(path, || match rustix::fs::symlink("-", path) {
        Err(Errno::EXIST) => Ok(()),
        other => Ok(other?),
    })
}

/// Makes something at a path; if there is no such directory, after it was created.
fn in_directory<T>(path: &Path, make: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match make() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dir(path.parent().unwrap_or(Path::new("/")))?;
            make()
        }
        made => made,
    }
}

/// Creates a directory, and those above it, for its owner only.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(dir)
}

/// The names in a directory, as in `Folder::names`; none if there is no such directory.
pub fn names_in(dir: &Path) -> Result<Vec<String>> {
    let names = || Folder::open(dir)?.map_or(Ok(vec![]), |mut folder| folder.names());
    names().map_err(|e| Error::io(format_args!("read {}", dir.display()), &e))
}
