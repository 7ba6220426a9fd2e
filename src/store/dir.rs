//! A state directory: which one can be it, and its lock. Write access to it, or the ability to replace it, decides what is loaded
//! into pf.

use std::cell::RefCell;
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::deadline::Deadline;
use crate::error::{Error, Result, Setting, error};
use crate::files::{self, make_dir};

/// S_ISVTX: in such a directory only the owner of a file can rename or remove it (sticky(7)).
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const MOST_LINKS: usize = 40;

/// Returns the path of `dir` to use; creates it if it is missing.
pub(super) fn own(dir: &Path) -> Result<PathBuf> {
    let shown = dir.display();
    if !dir.is_absolute() {
        return Err(error!(Argument, "state directory {shown}: give an absolute path"));
    }
    // a slash at the end would follow a symbolic link
    let dir: PathBuf = dir.components().collect();
    let owner = rustix::process::geteuid().as_raw();
    let there = fs::symlink_metadata(&dir).ok();
    let meta = match there.filter(|meta| meta.is_dir() || meta.is_symlink()) {
        Some(meta) => meta,
        None => {
            // nothing is created in a directory that is refused
            above(&dir, owner)?;
            make_dir(&dir).map_err(|e| Error::io(format_args!("create the state directory {shown}"), &e))?;
            fs::symlink_metadata(&dir).map_err(|e| Error::io(format_args!("stat {}", dir.display()), &e))?
        }
    };
    if !meta.is_dir() || meta.uid() != owner || meta.mode() & WRITABLE_BY_OTHERS != 0 {
        let (link, whose) = (if meta.is_symlink() { "a symbolic link, " } else { "" }, whose(&meta));
        let must = format!("must be a directory of user {owner} that only its owner can write to");
        return Err(error!(Permission, "state directory {shown} {must} (it is {link}{whose}); run as its owner")
            .remedy("or name another one with", Setting::StateDir));
    }
    above(&dir, owner)?;
    Ok(dir)
}

fn whose(meta: &Metadata) -> String {
    format!("owned by user {}, mode {:o}", meta.uid(), meta.mode() & 0o7777)
}

/// Refuses a directory that someone other than root and `user` can move: one below a directory that others may write to,
/// unless that is sticky. Symbolic links on the path must belong to root or `user`, and their targets are checked as well.
fn above(dir: &Path, user: u32) -> Result<()> {
    let mut ways: Vec<PathBuf> = dir.parent().map(Path::to_owned).into_iter().collect();
    // the kernel does not follow more links than these (ELOOP), so that the directory could not have been created
    for _ in 0..MOST_LINKS {
        let Some(way) = ways.pop() else { return Ok(()) };
        for path in way.ancestors() {
            let failed = |e: io::Error| Error::io(format_args!("stat {}", path.display()), &e);
            let meta = match fs::symlink_metadata(path) {
                Ok(meta) => meta,
                // what is missing is created by kport
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            if meta.is_symlink() {
                let target = fs::read_link(path).map_err(failed)?;
                ways.push(path.parent().unwrap_or(path).join(target));
            }
            // the mode of a link has no meaning; its owner, and that of an entry of a sticky directory, is checked
            let open = !meta.is_symlink() && meta.mode() & WRITABLE_BY_OTHERS != 0 && meta.mode() & STICKY == 0;
            if open || meta.uid() != 0 && meta.uid() != user {
                let (dir, path, whose) = (dir.display(), path.display(), whose(&meta));
                let what = format!("others may write to {path} (it is {whose}), and so decide what is loaded into pf");
                return Err(error!(Permission, "state directory {dir}: {what}")
                    .remedy("name another directory with", Setting::StateDir));
            }
        }
    }
    Err(error!(Permission, "state directory {}: too many symbolic links", dir.display()))
}

const MOST: usize = 400;

/// The lock of a state directory: flock(2). Dropping it, or the end of the process, releases it.
///
/// A child that the host forks meanwhile has the descriptor as well, and the lock belongs to the open file of both. So it is
/// released explicitly, not by the last close; and if the kernel supports it, a fork does not pass the descriptor on, so that
/// the lock of a host that was killed does not remain with its children.
#[derive(Debug)]
#[must_use = "the lock is held as long as this value lives"]
pub struct Lock {
    file: File,
    text: RefCell<Vec<u8>>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // an error cannot be handled; the close that follows releases the lock unless a child has it
        _ = self.file.unlock();
    }
}

/// A program that is given this descriptor also holds the lock, until it ends or the lock is dropped.
impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Lock {
    /// The lock of a directory. Waits until `deadline`, then fails with [`Kind::Busy`] and names the holder.
    pub(super) fn take(dir: &Path, deadline: Deadline) -> Result<Lock> {
        let path = dir.join("lock");
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
            let file = files::open(&path, flags, Mode::RUSR | Mode::WUSR)
                .map_err(|e| Error::io(format_args!("open {}", path.display()), &e))?;
            close_on_fork(&file);
            wait(&file, &path, deadline)?;
            // from here on dropping it unlocks the file
            let lock = Lock { file, text: RefCell::default() };
            // the file may have been removed or replaced: other processes lock the new one
            if is_at(&lock.file, &path).map_err(|e| Error::io(format_args!("stat {}", path.display()), &e))? {
                lock.text.replace(text(&lock.file));
                lock.set_boot(&lock.boot());
                return Ok(lock);
            }
        }
    }

    /// The boot in which the directory was swept last.
    pub(super) fn boot(&self) -> String {
        let text = self.text.borrow();
        let text = str::from_utf8(&text).unwrap_or_default();
        text.lines().nth(1).and_then(|line| line.strip_prefix("boot ")).unwrap_or_default().to_owned()
    }

    /// Notes who has the lock, for the message of those that wait, and that the directory was swept in this boot. If that fails, the
    /// next transaction sweeps again.
    pub(super) fn set_boot(&self, boot: &str) {
        let text = format!("process {}\nboot {boot}\n", std::process::id()).into_bytes();
        let before = self.text.replace(text.clone());
        if before == text {
            return;
        }
        // overwrite the old text, then truncate: a file system that frees the block and allocates it again costs more than
        // the rest of a transaction. A kill in between leaves more than two lines, and the third is never read
        let written = files::fits(&text).and_then(|()| self.file.write_all_at(&text, 0));
        if written.is_ok() && before.len() > text.len() {
            _ = self.file.set_len(text.len() as u64);
        }
    }
}

/// What a lock file has, as far as it is read; empty if it cannot be read.
fn text(file: &File) -> Vec<u8> {
    let mut text = vec![0; MOST];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    text.truncate(length);
    text
}

/// FD_CLOFORK, new in FreeBSD 15; 14 has only FD_CLOEXEC here, and ignores other flags (fcntl(2)).
#[cfg(target_os = "freebsd")]
fn close_on_fork(file: &File) {
    use rustix::io::FdFlags;
    const FD_CLOFORK: u32 = 4;
    // without it the lock is released anyway, unless the host is killed
    _ = rustix::io::fcntl_setfd(file, FdFlags::CLOEXEC | FdFlags::from_bits_retain(FD_CLOFORK));
}

#[cfg(not(target_os = "freebsd"))]
fn close_on_fork(_: &File) {}

fn wait(file: &File, path: &Path, deadline: Deadline) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(e)) => return Err(Error::io(format_args!("lock {}", path.display()), &e)),
        }
        let left = deadline.remaining();
        if left.is_zero() {
            let holder = text(file);
            // the text is only for the message, so one that cannot be read is ignored
            let holder = str::from_utf8(&holder).ok().and_then(|holder| holder.lines().next()).unwrap_or_default();
            let holder = if holder.is_empty() { "another process" } else { holder };
            let or = "or by a program that it has started, and the time-out has passed; try again";
            return Err(error!(Busy, "{} is held by {holder}, {or}", path.display()));
        }
        std::thread::sleep(pause.mul_f64(0.5 + fastrand::f64()).min(left));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = rustix::fs::fstat(file)?;
    match rustix::fs::lstat(path) {
        Ok(there) => Ok((own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
