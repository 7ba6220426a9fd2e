//! Files that are replaced together.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use kport::cli::setup::replace::{Change, ConfFile, replace};
use kport::deadline::Deadline;
use kport::error::Kind;

#[test]
fn where_one_cannot_be_put_in_place_none_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("a"), "old").unwrap();
    fs::set_permissions(file("a"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::write(file("c"), "old").unwrap();
    let mut changes = ["a", "b", "c"].map(|name| Change {
        conf: ConfFile::read(&file(name)).unwrap(),
        text: Some(b"new\xe9".to_vec()),
        ..Change::default()
    });
    let replace = |changes: &[Change<'_>; 3]| {
        replace(&changes.each_ref().map(|change| change), Deadline::after(Duration::from_secs(60)))
    };
    // the last one fails after all files were checked: its check removes the new file
    changes[2].checker = Some((Path::new("/bin/rm"), &["-f"]));
    let error = replace(&changes).unwrap_err();
    assert!(error.message().contains("rename"), "{error}");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let names: Vec<String> = fs::read_dir(dir.path()).unwrap().map(name).collect();
    assert_eq!(fs::read_to_string(file("a")).unwrap(), "old");
    assert_eq!(fs::metadata(file("a")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(!names.contains(&"b".to_owned()) && !names.iter().any(|name| name.ends_with("-new")), "{names:?}");

    changes[2].checker = None;
    let said = replace(&changes).unwrap();
    assert_eq!(said.lines().count(), 3);
    assert!(["a", "b", "c"].iter().all(|name| fs::read(file(name)).unwrap() == b"new\xe9"));
    // a change that was made meanwhile is kept
    let error = replace(&changes).unwrap_err();
    assert!(error.kind() == Kind::Busy && error.message().contains("changed meanwhile"), "{error}");
}
