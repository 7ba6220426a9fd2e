//! Commands that only read do not need write access, and what cannot be written ends nobody's process.

use std::process::Command;
use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::Kind;
use kport::pf::native::{Native, probe};
use kport::publisher::{Liveness, Unobserved};

use crate::support::cc;
use crate::support::fake_kernel::Fake;
use crate::support::rig::{Rig, request};

/// By a descriptor of /dev/pf for reading (EACCES), and at kern.securelevel 3 (EPERM): pfioctl in sys/netpfil/pf/pf_ioctl.c.
#[test]
fn native_lists_and_looks_where_it_may_change_nothing() {
    let fake = Fake::new();
    let rig = Rig::new();
    let native = || Native::over(&fake, Deadline::after(Duration::from_secs(60)));
    rig.with(&native(), &Unobserved, |p| p.publish(&request("db", "8080:80"))).unwrap();
    for errno in [libc::EACCES, libc::EPERM] {
        fake.refuse_changes(Some(errno));
        probe(&fake).unwrap();
        rig.with(&native(), &Unobserved, |p| {
            assert_eq!(p.list(None).unwrap()[0].liveness, Liveness::Live);
            assert_eq!(p.list_with_counters(None).unwrap().len(), 1);
            // a change reports why it is not possible
            for error in [p.publish(&request("db", "9090:80")).err(), p.unpublish(&"db".parse().unwrap(), None).err()] {
                assert_eq!(error.unwrap().kind(), Kind::Permission);
            }
            assert_eq!(p.list(None).unwrap()[0].liveness, Liveness::Live);
        });
    }
    fake.refuse_changes(None);
    assert!(rig.with(&native(), &Unobserved, |p| p.unpublish(&"db".parse().unwrap(), None)).unwrap().changed);
}

fn kport(line: &str) -> String {
    format!("'{}' --backend sim {line}", env!("CARGO_BIN_EXE_kport"))
}

/// A file system that is mounted read-only: nothing is changed, reading works, and doctor reports it.
#[cfg(target_os = "linux")]
#[test]
fn a_state_directory_that_cannot_be_written_to() {
    if !cc::has("unshare") || !Command::new("unshare").args(["--mount", "true"]).status().unwrap().success() {
        assert!(std::env::var_os("KPORT_TEST_ALL").is_none(), "no mount namespaces here, and KPORT_TEST_ALL is set");
        eprintln!("skipped: no mount namespaces here, or not root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o mode=700 none {dir}; export KPORT_STATE_DIR={dir}/state
        {publish} && mount -o remount,ro {dir} || exit 9
        {publish} --add 2>&1; echo publish $?; {unpublish} 2>&1; echo unpublish $?
        {list}; echo list $?; {doctor} | grep -A1 'problem  state'",
        dir = dir.path().display(),
        publish = kport("-q publish web -a 10.0.0.2 em0:8080:80"),
        unpublish = kport("-q unpublish web"),
        list = kport("-q list"),
        doctor = kport("doctor"),
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).env_clear().output().unwrap();
    let said = cc::text(&output.stdout);
    assert!(said.contains("\npublish 4") && said.contains("unpublish 4"), "{said}{}", cc::text(&output.stderr));
    assert!(said.contains("10.0.0.2:80") && said.contains("list 0"), "{said}");
    assert!(said.contains("write to ") && said.contains("Read-only") && said.contains("tmpfs(5)"), "{said}");
}

/// Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which ends a program that does not handle it.
#[test]
fn a_limit_of_the_size_of_files_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let run = |limit: &str, line: &str| {
        let script = format!("ulimit -f {limit}; {}", kport(line));
        Command::new("sh").args(["-c", &script]).env("KPORT_STATE_DIR", dir.path().join("state")).output().unwrap()
    };
    let publish = "-q publish web -a 10.0.0.2 em0:8080:80";
    let output = run("0", publish);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(cc::text(&output.stderr).contains("File too large"), "{output:?}");
    assert!(run("unlimited", publish).status.success());
    // the record stays as it was
    assert_eq!(run("0", "-q publish web -a 10.0.0.2 em0:9090:90").status.code(), Some(7));
    let list = cc::text(&run("0", "list").stdout);
    assert!(list.contains("8080") && list.contains("live") && !list.contains("9090"), "{list}");
}
