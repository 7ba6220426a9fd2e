//! The state directory: which one is accepted, its lock, and the documents beside the records.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use kport::deadline::Deadline;
use kport::error::{Error, Kind};
use kport::name::{Anchor, JailName};
use kport::store::{Lock, Store, is_settled};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn opened(dir: &Path) -> Result<PathBuf, Error> {
    Store::open(dir).map(|store| store.dir().to_owned())
}

#[test]
fn below_what_others_may_write_to() {
    let top = tempfile::tempdir().unwrap();
    let shared = top.path().join("shared");
    fs::create_dir(&shared).unwrap();
    for (bits, fine) in [(0o755, true), (0o775, false), (0o757, false), (0o1777, true), (0o700, true)] {
        mode(&shared, bits);
        for state in ["there", "a/b/c"] {
            let found = opened(&shared.join(state));
            assert_eq!(found.is_ok(), fine, "{bits:o} {state}: {found:?}");
            if let Err(error) = found {
                let text = error.message();
                assert_eq!(error.kind(), Kind::Permission);
                assert!(text.contains("others may write to") && text.contains("shared"), "{text}");
            }
        }
    }
    mode(&shared, 0o777);
    assert!(opened(&shared.join("new")).is_err() && !shared.join("new").exists());
}

#[test]
fn links() {
    let top = tempfile::tempdir().unwrap();
    let real = top.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink(&real, top.path().join("link")).unwrap();
    for end in ["link", "link/", "link/.", "link//"] {
        let error = opened(&top.path().join(end)).unwrap_err();
        assert_eq!(error.kind(), Kind::Permission, "{end}");
        assert!(error.message().contains("a symbolic link"), "{error}");
    }
    // in the path, like /tmp of macOS, the owner of the link matters
    assert_eq!(opened(&top.path().join("link/state/")).unwrap(), top.path().join("link/state"));
    // and its target is checked
    mode(&real, 0o777);
    assert!(opened(&top.path().join("link/state")).is_err());
    mode(&real, 0o755);
}

#[test]
fn a_path_that_is_not_absolute() {
    assert_eq!(opened(Path::new("state")).unwrap_err().kind(), Kind::Argument);
}

/// Whether the directory had been swept in this boot; it is now.
fn was_swept(store: &Store, lock: &Lock, boot: &str) -> bool {
    let mut asked = false;
    let children = || {
        asked = true;
        Ok(vec![])
    };
    store.sweep_after_boot(lock, boot, &mut |_| false, children).unwrap();
    !asked
}

/// A shorter text removes all of a longer one.
#[test]
fn the_lock_says_who_has_it_and_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let path = dir.path().join("lock");
    let text = |boot: &str| format!("process {}\nboot {boot}\n", std::process::id());
    let mut before = "";
    for boot in ["a-rather-long-boot", "b", "b", "another"] {
        let lock = store.lock(soon()).unwrap();
        assert_eq!(was_swept(&store, &lock, boot), boot == before);
        assert!(was_swept(&store, &lock, boot));
        drop(lock);
        let lock = store.lock(soon()).unwrap();
        assert!(was_swept(&store, &lock, boot));
        assert_eq!(fs::read_to_string(&path).unwrap(), text(boot));
        before = boot;
    }
    // what another program has left
    for (byte, length) in [(b'x', 300), (b'x', 3000), (0xff, 300)] {
        fs::write(&path, vec![byte; length]).unwrap();
        was_swept(&store, &store.lock(soon()).unwrap(), "c");
        assert_eq!(fs::read_to_string(&path).unwrap(), text("c"));
    }
}

#[test]
fn dropping_the_lock_releases_it_though_another_descriptor_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let lock = store.lock(soon()).unwrap();
    assert!(lock.as_fd().as_raw_fd() > 2);
    // what a forked child has
    let copy = lock.as_fd().try_clone_to_owned().unwrap();
    let error = store.lock(now()).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
    drop(lock);
    drop(store.lock(now()).unwrap());
    drop(copy);
}

/// A process that waits for a lock file that is removed meanwhile would get a lock that no other process sees.
#[test]
fn a_lock_file_that_was_removed_is_not_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let path = dir.path().join("lock");
    // open() of the waiting process is before the removal or after it: both must end with the new file
    for _ in 0..50 {
        let first = store.lock(soon()).unwrap();
        let begun = Barrier::new(2);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                begun.wait();
                store.lock(soon()).unwrap()
            });
            begun.wait();
            fs::remove_file(&path).unwrap();
            drop(first);
            let second = waiting.join().unwrap();
            let own = fs::File::from(second.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap().ino();
            assert_eq!(own, fs::symlink_metadata(&path).unwrap().ino());
            assert_eq!(store.lock(now()).unwrap_err().kind(), Kind::Busy);
        });
    }
}

#[test]
fn a_folder_of_documents_has_a_lock_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let documents = store.documents("cni", now()).unwrap();
    assert_eq!(store.documents("cni", now()).unwrap_err().kind(), Kind::Busy);
    drop(store.lock(now()).unwrap());
    drop(store.documents("other", now()).unwrap());
    drop(documents);
    drop(store.documents("cni", now()).unwrap());
}

#[test]
fn documents_are_by_anchor_and_nothing_else_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let documents = store.documents("cni", now()).unwrap();
    let anchor = |name: &str| -> Anchor { name.parse::<JailName>().unwrap().anchor() };
    for name in ["web", "db"] {
        documents.put(&anchor(name), name.as_bytes()).unwrap();
    }
    for name in ["web.json.tmp", "README", "_odd.json"] {
        fs::write(dir.path().join("cni").join(name), "x").unwrap();
    }
    assert_eq!(documents.anchors().unwrap(), [anchor("db"), anchor("web")]);
    assert_eq!(documents.get(&anchor("web")).unwrap(), b"web");
    for _ in 0..2 {
        documents.remove(&anchor("web")).unwrap();
        assert_eq!(documents.get(&anchor("web")).unwrap(), b"");
    }
    assert_eq!(documents.anchors().unwrap(), [anchor("db")]);
}

/// A file system may count whole seconds.
#[test]
fn what_was_just_written_is_not_settled() {
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
    for (now, settled) in [(99_000, false), (100_999, false), (102_000, false), (102_001, true)] {
        assert_eq!(is_settled(100, at(now)), settled, "{now}");
    }
    assert!(!is_settled(-1, at(102_001)));
}
