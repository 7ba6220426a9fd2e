//! jail_get(2).

use std::ffi::CStr;
use std::io;

use libc::{JAIL_DYING, c_uint, iovec};

use super::{Parameter, TEXT};
use crate::error::{Error, Result, quoted};

/// Fills the values of `parameters`; the first one selects the jail. Answers its number, `None` if there is none.
pub fn jail_get(parameters: &mut Vec<Parameter>) -> Result<Option<i32>> {
    parameters.push((c"errmsg", vec![0; TEXT]));
    let mut list: Vec<iovec> = Vec::with_capacity(2 * parameters.len());
    for (name, value) in parameters.iter_mut() {
        // the kernel does not write to a name
        list.push(iovec { iov_base: name.as_ptr().cast_mut().cast(), iov_len: name.count_bytes() + 1 });
        list.push(iovec { iov_base: value.as_mut_ptr().cast(), iov_len: value.len() });
    }
    // lossless: a few
    let count = list.len() as c_uint;
    // SAFETY: `list` has `count` entries; each points to memory of its length that outlives the call and is not used
    // otherwise meanwhile. The kernel writes no value longer than its room, and stores the length of each in `list`.
    let jid = unsafe { libc::jail_get(list.as_mut_ptr(), count, JAIL_DYING) };
    let error = io::Error::last_os_error();
    let message = parameters.pop().map(|(_, value)| value).unwrap_or_default();
    if jid >= 0 {
        for ((_, value), entry) in parameters.iter_mut().zip(list.iter().skip(1).step_by(2)) {
            value.truncate(entry.iov_len);
        }
        return Ok(Some(jid));
    }
    if error.raw_os_error() == Some(libc::ENOENT) {
        return Ok(None);
    }
    let failed = Error::io("jail_get", &error);
    match CStr::from_bytes_until_nul(&message) {
        Ok(text) if !text.is_empty() => Err(failed.and(quoted(&text.to_string_lossy()))),
        _ => Err(failed),
    }
}
