//! Jails by jail_get(2).

use std::ffi::CStr;
use std::io;

use libc::{JAIL_DYING, JAIL_SYS_NEW, c_int, c_uint, iovec};

use super::sysctl;
use crate::error::{Error, Kind, Result, quoted};
use crate::host::{Jail, kernel};

/// A parameter of jail(8) and room for its value.
type Parameter = (&'static CStr, Vec<u8>);

/// MAXHOSTNAMELEN, the longest name with its NUL, and what the kernel has for an error message.
const TEXT: usize = 256;
/// Eight times what `security.jail.jail_max_af_ips` allows by default. With the rest it stays below the 64 KiB that the
/// kernel takes (VFS_MOUNTARG_SIZE_MAX).
const MOST_ADDRESSES: usize = 2048;
/// Jails nest less deep than this (children.max counts them all).
const DEEPEST: usize = 1024;

/// The jail with this name or number, a dying one too.
pub fn named(name: &str) -> Result<Option<Jail>> {
    // as jail_getid(3): a name is no number, unless it is its own
    let jid = match name.parse::<i32>() {
        Ok(jid) if jid > 0 && jid.to_string() == name => Some(jid),
        _ if name.is_empty() || name.contains('\0') || name.len() >= TEXT => None,
        _ => jail_get(&mut vec![(c"name", [name.as_bytes(), &[0]].concat())])?,
    };
    let Some(jid) = jid else { return Ok(None) };
    Ok(read(c"jid", jid, &Features::of_kernel()?)?.map(|(jail, _)| jail))
}

/// Every jail below the one that the caller is in, in the order of their numbers, dying ones included.
pub fn all() -> Result<Vec<Jail>> {
    let features = Features::of_kernel()?;
    let mut found: Vec<Jail> = Vec::new();
    while let Some((jail, _)) = read(c"lastjid", found.last().map_or(0, |jail| jail.jid), &features)? {
        found.push(jail);
    }
    Ok(found)
}

/// What the kernel was built with. It refuses a question for a parameter that it does not have.
struct Features {
    inet: bool,
    inet6: bool,
    vimage: bool,
}

impl Features {
    fn of_kernel() -> Result<Features> {
        let has = |name| sysctl::named(name).map(|value| value.is_some());
        Ok(Features {
            inet: has("kern.features.inet")?,
            inet6: has("kern.features.inet6")?,
            vimage: has("kern.features.vimage")?,
        })
    }
}

/// The jail that `key` (`jid` or `lastjid`) selects, and the number of the jail above it (0: the caller's own).
fn read(key: &'static CStr, jid: i32, features: &Features) -> Result<Option<(Jail, i32)>> {
    let number = || vec![0; size_of::<c_int>()];
    let mut parameters: Vec<Parameter> =
        vec![(key, jid.to_ne_bytes().to_vec()), (c"name", vec![0; TEXT]), (c"parent", number()), (c"dying", number())];
    if features.vimage {
        parameters.push((c"vnet", number()));
    }
    if features.inet {
        parameters.extend([(c"ip4", number()), (c"ip4.addr", vec![0; MOST_ADDRESSES * 4])]);
    }
    if features.inet6 {
        parameters.extend([(c"ip6", number()), (c"ip6.addr", vec![0; MOST_ADDRESSES * 16])]);
    }
    let Some(jid) = jail_get(&mut parameters)? else { return Ok(None) };

    let value = |name| parameters.iter().find(|p| p.0 == name).map_or(&[][..], |p| &p.1);
    let number = |name| value(name).try_into().ok().map(c_int::from_ne_bytes);
    let name = CStr::from_bytes_until_nul(value(c"name")).ok().and_then(|name| name.to_str().ok());
    let name = name.ok_or_else(|| Error::new(Kind::Unsupported, format!("the name of jail {jid} is not UTF-8")))?;
    let parent = number(c"parent").unwrap_or(0);
    let vnet = number(c"vnet") == Some(JAIL_SYS_NEW) || above_is_vnet(parent, features)?;
    let addresses = kernel::jail_addresses(value(c"ip4.addr"), value(c"ip6.addr"))?;
    let inherits = kernel::inherits(vnet, [number(c"ip4"), number(c"ip6")], &addresses);
    let dying = number(c"dying") == Some(1);
    Ok(Some((Jail { jid, name: name.to_owned(), vnet, inherits, addresses, dying }, parent)))
}

/// Whether jail `jid`, or one above it, has a network stack of its own.
fn above_is_vnet(mut jid: i32, features: &Features) -> Result<bool> {
    for _ in 0..DEEPEST {
        if jid == 0 || !features.vimage {
            break;
        }
        let number = || vec![0; size_of::<c_int>()];
        let mut parameters = vec![(c"jid", jid.to_ne_bytes().to_vec()), (c"parent", number()), (c"vnet", number())];
        if jail_get(&mut parameters)?.is_none() {
            break;
        }
        let number = |at: usize| parameters[at].1.as_slice().try_into().map_or(0, c_int::from_ne_bytes);
        if number(2) == JAIL_SYS_NEW {
            return Ok(true);
        }
        jid = number(1);
    }
    Ok(false)
}

/// Fills the values of `parameters`; the first one selects the jail. Answers its number, `None` where there is none.
fn jail_get(parameters: &mut Vec<Parameter>) -> Result<Option<i32>> {
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
