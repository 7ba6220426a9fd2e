//! The one descriptor of a device in a process, in a host that may fork, and that may close descriptors which are not its
//! own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{io, mem, process};

use rustix::fs::{Mode, OFlags, fstat};

use crate::files;

/// What distinguishes a descriptor's file from any other: its device and number, and the device that it is.
type Identity = (libc::dev_t, libc::ino_t, libc::dev_t);

#[derive(Debug)]
struct Opened {
    pid: u32,
    file: Arc<OwnedFd>,
    identity: Identity,
}

/// The descriptor, if it is open.
#[derive(Debug)]
pub struct Descriptor(Mutex<Option<Opened>>);

impl Descriptor {
    /// Not open yet.
    pub const fn closed() -> Descriptor {
        Descriptor(Mutex::new(None))
    }

    /// A descriptor of `path`: close-on-exec, never a standard one, for reading and writing, or for reading if the process
    /// may not do more. It is opened at the first call, after a fork, and if its number belongs to another file.
    pub fn get(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        // held for the length of an open(2): a child forked in that time has a lock that is never released
        let Ok(mut kept) = self.0.try_lock() else { return open(path).map(Arc::new) };
        if let Some(opened) = kept.take() {
            if identity(&*opened.file).is_ok_and(|now| now == opened.identity) {
                if opened.pid == process::id() {
                    return Ok(Arc::clone(&kept.insert(opened).file));
                }
            } else {
                // the host has closed it, and the number belongs to another file: do not close it
                mem::forget(opened);
            }
        }
        let file = open(path)?;
        let identity = identity(&file)?;
        Ok(Arc::clone(&kept.insert(Opened { pid: process::id(), file: Arc::new(file), identity }).file))
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let open = |flags| files::open(path, flags, Mode::empty()).map(OwnedFd::from);
    match open(OFlags::RDWR) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            open(OFlags::RDONLY)
        }
        other => other,
    }
}

fn identity(file: impl AsFd) -> io::Result<Identity> {
    let is = fstat(file)?;
    Ok((is.st_dev, is.st_ino, is.st_rdev))
}
