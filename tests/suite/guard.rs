//! A panic inside the library is a status of the C ABI, and prints nothing.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::{panic, thread};

use kport::error::Kind;
use kport::ffi::guard::{SILENCED, give, guard};
use kport::ffi::{kport_error_message, kport_error_status};

#[test]
fn a_panic_is_a_status() {
    let mut err = MaybeUninit::uninit();
    let status = guard(Some(&mut err), || panic!("port {} fell off", 8080));
    // SAFETY: guard() always writes it.
    let error = unsafe { err.assume_init() }.unwrap();
    assert_eq!(
        (status as i32, kport_error_status(Some(&error)) as i32),
        (Kind::Internal.number(), Kind::Internal.number())
    );
    // SAFETY: the message is NUL-terminated, and lives as long as the error.
    let message = unsafe { CStr::from_ptr(kport_error_message(Some(&error))) }.to_str().unwrap();
    assert!(
        ["tests/suite/guard.rs:", "port 8080 fell off", "report"].iter().all(|part| message.contains(part)),
        "{message}"
    );

    let mut out: MaybeUninit<Option<Box<u8>>> = MaybeUninit::uninit();
    let status = give(Some(&mut out), None, || std::panic::panic_any(7));
    assert_eq!(status as i32, Kind::Internal.number());
    // SAFETY: give() always writes it.
    assert!(unsafe { out.assume_init() }.is_none());
}

/// Not a test by itself: the test below runs it in another process.
#[test]
#[ignore = "run by a_panic_inside_prints_nothing_and_one_outside_does"]
fn panics_inside_and_outside() {
    assert_eq!(guard(None, || panic!("inside")) as i32, Kind::Internal.number());
    assert!(panic::catch_unwind(|| panic!("outside")).is_err());
}

/// Runs one of these tests alone, in another process, and returns what it prints.
fn alone(test: &str) -> String {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", &format!("guard::{test}"), "--ignored", "--nocapture"]);
    let output = again.env("RUST_BACKTRACE", "1").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    printed.into_owned()
}

#[test]
fn a_panic_inside_prints_nothing_and_one_outside_does() {
    let printed = alone("panics_inside_and_outside");
    assert!(printed.contains("1 passed") && printed.contains("outside"), "{printed}");
    assert!(!printed.contains("\ninside"), "{printed}");
}

/// Not a test by itself. One thread is in the hook of a panic, another one waits for it in its first call, and the
/// process forks: the child has neither.
#[test]
#[ignore = "run by the_first_call_of_a_child_does_not_wait_for_a_thread_that_it_does_not_have"]
fn a_fork_during_the_first_call() {
    let (entered, in_hook) = mpsc::channel();
    panic::set_hook(Box::new(move |_| {
        entered.send(()).unwrap();
        loop {
            thread::park();
        }
    }));
    thread::spawn(|| panic!("stays in the hook"));
    in_hook.recv().unwrap();
    thread::spawn(|| guard(None, || Ok(())));
    while !SILENCED.load(Ordering::Relaxed) {
        thread::yield_now();
    }
    // SAFETY: the child makes one call of the library and exits; after a minute the alarm ends it.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::alarm(60);
            libc::_exit(guard(None, || Ok(())) as i32)
        }
    }
    let mut status = -1;
    // SAFETY: `status` is a variable, and the child is this process's own.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    // SAFETY: the other threads would not let the process end.
    unsafe { libc::_exit(i32::from(status != 0)) }
}

#[test]
fn the_first_call_of_a_child_does_not_wait_for_a_thread_that_it_does_not_have() {
    let printed = alone("a_fork_during_the_first_call");
    assert!(printed.contains("running 1 test"), "{printed}");
}
