//! sysctl(3).

use std::ffi::CString;
use std::io;
use std::ptr;

use libc::{c_int, c_uint, c_void};

use crate::error::{Error, Result};

/// How often a list may grow between reading its size and reading it.
const TRIES: usize = 16;

/// Enough for a number, a text, and the routes and interfaces of most hosts: they are then read by one call.
const USUAL: usize = 16 * 1024;

/// The value of the sysctl with this MIB.
pub fn fetch(mib: &[c_int]) -> io::Result<Vec<u8>> {
    // lossless: CTL_MAXNAME numbers at most
    let count = mib.len() as c_uint;
    // SAFETY: `mib` has `count` numbers, and `value` has `size` bytes or is NULL.
    read(|value, size| unsafe { libc::sysctl(mib.as_ptr(), count, value, size, ptr::null(), 0) })
}

/// The value of the sysctl with this name; `None` if the kernel has none.
pub fn named(name: &str) -> Result<Option<Vec<u8>>> {
    let Ok(text) = CString::new(name) else { return Ok(None) };
    // SAFETY: `text` ends with a NUL, and `value` has `size` bytes or is NULL.
    match read(|value, size| unsafe { libc::sysctlbyname(text.as_ptr(), value, size, ptr::null(), 0) }) {
        Ok(value) => Ok(Some(value)),
        // the name is unknown, or its module was unloaded
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(Error::io(format!("sysctl {name}"), &error)),
    }
}

/// Reads a value by `ask`, which is given a buffer and its size, which the kernel replaces with the number of bytes that it wrote;
/// without a buffer it only stores the size that it needs.
fn read(ask: impl Fn(*mut c_void, *mut usize) -> c_int) -> io::Result<Vec<u8>> {
    let mut size = USUAL;
    for _ in 0..TRIES {
        let mut value = vec![0u8; size];
        if ask(value.as_mut_ptr().cast(), &raw mut size) == 0 {
            value.truncate(size);
            return Ok(value);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return Err(error);
        }
        if ask(ptr::null_mut(), &raw mut size) != 0 {
            return Err(io::Error::last_os_error());
        }
        // space for what is opened meanwhile
        size += size / 8 + 1024;
    }
    Err(io::Error::from_raw_os_error(libc::ENOMEM))
}
