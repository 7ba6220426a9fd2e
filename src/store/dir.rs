//! Which directory can be the state directory: write access to it, or the ability to replace it, decides what is loaded into
//! pf.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result, Setting};
use crate::files::make_dir;

/// S_ISVTX: in such a directory only the owner of a file can rename or remove it (sticky(7)).
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const MOST_LINKS: usize = 40;

/// Returns the path of `dir` to use; creates it if it is missing.
pub(super) fn own(dir: &Path) -> Result<PathBuf> {
    let shown = dir.display();
    if !dir.is_absolute() {
        return Err(Error::new(Kind::Argument, format!("state directory {shown}: give an absolute path")));
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
        let link = if meta.is_symlink() { "a symbolic link, " } else { "" };
        let why = format!(
            "state directory {shown} must be a directory of user {owner} that only its owner can write to (it is {link}{}); \
             run as its owner",
            whose(&meta)
        );
        return Err(Error::new(Kind::Permission, why).remedy("or name another one with", Setting::StateDir));
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
                let why = format!(
                    "state directory {}: others may write to {} (it is {}), and so decide what is loaded into pf",
                    dir.display(),
                    path.display(),
                    whose(&meta)
                );
                return Err(Error::new(Kind::Permission, why).remedy("name another directory with", Setting::StateDir));
            }
        }
    }
    Err(Error::new(Kind::Permission, format!("state directory {}: too many symbolic links", dir.display())))
}
