//! Turns a Rust result into a status: nothing unwinds into C, and nothing is printed.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

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
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
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
    });
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::process::Command;

    use super::*;
    use crate::ffi::{kport_error_free, kport_error_message, kport_error_status};

    #[test]
    fn a_panic_is_a_status() {
        let mut err = MaybeUninit::uninit();
        let status = guard(Some(&mut err), || panic!("port {} fell off", 8080));
        // SAFETY: guard() always writes it.
        let error = unsafe { err.assume_init() };
        assert_eq!(status as i32, Kind::Internal.number());
        assert_eq!(kport_error_status(error.as_deref()) as i32, Kind::Internal.number());
        // SAFETY: a string of an error that is not freed yet.
        let message = unsafe { CStr::from_ptr(kport_error_message(error.as_deref())) }.to_str().unwrap();
        assert!(message.contains("src/ffi/guard.rs:") && message.contains("port 8080 fell off"), "{message}");
        assert!(message.contains("report"), "{message}");
        kport_error_free(error);

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

    #[test]
    fn a_panic_inside_prints_nothing_and_one_outside_does() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "ffi::guard::tests::panics_inside_and_outside", "--ignored", "--nocapture"]);
        let output = again.env("RUST_BACKTRACE", "1").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
        assert!(printed.contains("outside"), "{printed}");
        assert!(!printed.contains("\ninside"), "{printed}");
    }
}
