//! Turns a Rust result into a status: nothing unwinds into C, and nothing is printed.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};

use super::input::null;
use super::{VERSION, kport_error, kport_status};
use crate::error::{Result, error};

/// A variable of the caller for a new object: NULL, or always written and never read.
pub type Out<'a, T> = Option<&'a mut MaybeUninit<Option<Box<T>>>>;

/// Runs `act` and writes its result to `*out`, which is always written.
pub fn give<T>(out: Out<'_, T>, err: Out<'_, kport_error>, act: impl FnOnce() -> Result<T>) -> kport_status {
    let Some(out) = out else {
        return guard(err, || Err(null("out")));
    };
    let slot = out.write(None);
    guard(err, || {
        *slot = Some(Box::new(act()?));
        Ok(())
    })
}

/// Whether `silence_panics` was called. Nobody waits for another thread that is in it: this process may be a child, forked
/// at that moment, which does not have the other thread.
pub static SILENCED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread is inside [`guard`], which turns a panic into a status instead of a message on standard error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `act`: always writes `*err`, and turns a panic into KPORT_ERR_INTERNAL.
pub fn guard(err: Out<'_, kport_error>, act: impl FnOnce() -> Result<()>) -> kport_status {
    silence_panics();
    let before = GUARDED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| {
        let what = PANIC.take();
        let what = if what.is_empty() { "panic" } else { &what };
        Err(error!(Internal, "{what}: a defect in kport {VERSION}, please report it"))
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
