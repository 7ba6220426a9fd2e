//! B7: a host that closed descriptors 0 to 2.

use crate::support::cc::{self, C99};
use crate::support::rig::files;

#[test]
fn what_the_host_prints_is_in_no_file_of_kport_s() {
    let (mut program, dir) = cc::command(&C99.build("tests/c/closed.c"));
    cc::done(&mut program);
    let mut records = 0;
    for file in files(dir.path()) {
        let text = std::fs::read_to_string(dir.path().join(&file)).unwrap();
        assert!(!text.contains("the host's log"), "{file}: {text}");
        records += usize::from(file.ends_with(".json") && text.starts_with(['{', '[']));
    }
    // the record, and the rules of the simulator
    assert_eq!(records, 2);
}
