//! sysctl(3).

use std::ffi::CString;
use std::io;
use std::ptr;

use libc::{c_int, c_uint};

use crate::error::{Error, Result};

/// How often a list may have grown between the question for its size and the question for itself.
const TRIES: usize = 16;

/// The value of the sysctl with these numbers.
pub fn fetch(mib: &[c_int]) -> io::Result<Vec<u8>> {
    // lossless: CTL_MAXNAME numbers at most
    let count = mib.len() as c_uint;
    for _ in 0..TRIES {
        let mut size = 0;
        // SAFETY: `mib` holds `count` numbers; with no old buffer the kernel only stores the size it would need.
        if unsafe { libc::sysctl(mib.as_ptr(), count, ptr::null_mut(), &raw mut size, ptr::null(), 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // room for what is opened meanwhile
        size += size / 8 + 1024;
        let mut value = vec![0u8; size];
        // SAFETY: as above, and `value` has `size` bytes, which the kernel replaces by the number of bytes it wrote.
        if unsafe { libc::sysctl(mib.as_ptr(), count, value.as_mut_ptr().cast(), &raw mut size, ptr::null(), 0) } == 0 {
            value.truncate(size);
            return Ok(value);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOMEM) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENOMEM))
}

/// The value of the sysctl with this name; `None` if the kernel knows none.
pub fn named(name: &str) -> Result<Option<Vec<u8>>> {
    let Ok(text) = CString::new(name) else { return Ok(None) };
    let mut mib = [0; libc::CTL_MAXNAME as usize];
    let mut count = mib.len();
    // SAFETY: `text` ends with a NUL, and `mib` holds `count` numbers, which libc replaces by how many it wrote.
    let found = unsafe { libc::sysctlnametomib(text.as_ptr(), mib.as_mut_ptr(), &raw mut count) };
    let value = if found == 0 { fetch(&mib[..count]) } else { Err(io::Error::last_os_error()) };
    match value {
        Ok(value) => Ok(Some(value)),
        // the name, or a module that is gone again
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(Error::io(format!("sysctl {name}"), &error)),
    }
}
