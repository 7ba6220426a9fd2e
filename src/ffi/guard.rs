//! Turns a Rust result into a status: nothing unwinds into C, and nothing is printed.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};

use super::input::null;
use super::{VERSION, kport_error, kport_status};
use crate::error::{Error, Kind, Result};

/// A variable of the caller for a new object: NULL, or always written and never read.
pub(super) type Out<'a, T> = Option<&'a mut MaybeUninit<Option<Box<T>>>>;

/// Runs `act` and writes its result to `*out`, which is always written.
pub(super) fn give<T>(out: Out<'_, T>, err: Out<'_, kport_error>, act: impl FnOnce() -> Result<T>) -> kport_status {
    let Some(out) = out else {
        return guard(err, || Err(null("out")));
    };
    let slot = out.write(None);
    guard(err, || {
        *slot = Some(Box::new(act()?));
        Ok(())
    })
}

/// Whether [`silence_panics`] was called. Nobody waits for another thread that is in it: this process may be a child, forked
/// at that moment, which does not have the other thread.
static SILENCED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread is inside [`guard`], which turns a panic into a status instead of a message on standard error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `act`: always writes `*err`, and turns a panic into KPORT_ERR_INTERNAL.
pub(super) fn guard(err: Out<'_, kport_error>, act: impl FnOnce() -> Result<()>) -> kport_status {
    silence_panics();
    let before = GUARDED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
        let what = PANIC.take();
        let what = if what.is_empty() { "panic" } else { &what };
        Err(Error::new(Kind::Internal, format!("{what}: a defect in kport {VERSION}, please report it")))
    });
    GUARDED.set(before);
    let (status, error) = match done {
        Ok(()) => (kport_status::KPORT_OK, None),
        Err(error) => (error.kind().into(), Some(Box::new(kport_error::new(error)))),
    };
    if let Some(err) = err {
        err.write(error);
    }
    status
}

/// The library prints nothing: a panic inside [`guard`] is kept for the error's message. Other panics are not changed.
fn silence_panics() {
    if SILENCED.swap(true, Ordering::Relaxed) {
        return;
    }
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if GUARDED.get() {
            let at = info.location().map(|l| format!("{}:{}: ", l.file(), l.line())).unwrap_or_default();
            let what = info.payload_as_str().unwrap_or("panic");
            PANIC.replace(format!("{at}{what}"));
        } else {
            previous(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_panic_is_a_status() {
        let mut err = MaybeUninit::uninit();
        let status = guard(Some(&mut err), || panic!("port {} fell off", 8080));
        // SAFETY: guard() always writes it.
        let error = unsafe { err.assume_init() }.unwrap();
        assert_eq!((status as i32, error.error.kind()), (Kind::Internal.number(), Kind::Internal));
        let message = error.message.to_str().unwrap();
        assert!(
            ["src/ffi/guard.rs:", "port 8080 fell off", "report"].iter().all(|part| message.contains(part)),
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
        again.args(["--exact", &format!("ffi::guard::tests::{test}"), "--ignored", "--nocapture"]);
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
}
