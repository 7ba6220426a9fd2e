//! Commands that only read do not need write access.

use std::time::Duration;

use kport::deadline::Deadline;
use kport::error::Kind;
use kport::pf::native::{Native, probe};
use kport::publisher::{Liveness, Unobserved};

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
