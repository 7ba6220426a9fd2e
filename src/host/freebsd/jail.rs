//! Jails, by their parameters (jail(8)), from jail_get(2).

use std::ffi::CStr;
use std::net::IpAddr;

use super::{Parameter, TEXT, malformed};
use crate::error::{Result, error};
use crate::host::{Jail, Jails, SkippedJail};
use crate::net::{Family, PerFamily};

/// jail_get(2), or a substitute in tests: fills the values of the parameters, the first of which selects the jail, and
/// returns the jid; `None` if there is no such jail.
pub type JailGet = dyn Fn(&mut Vec<Parameter>) -> Result<Option<i32>>;

/// MAXPATHLEN
const PATH: usize = 1024;
/// Eight times the default of `security.jail.jail_max_af_ips`. Together with the rest it is below the 64 KiB that the
/// kernel accepts (VFS_MOUNTARG_SIZE_MAX).
pub const MOST_ADDRESSES: usize = 2048;
/// Jails are nested less deeply than this (children.max counts them all).
const DEEPEST: usize = 1024;
/// sys/jail.h
const JAIL_SYS_NEW: i32 = 1;
const JAIL_SYS_INHERIT: i32 = 2;

/// The options that the kernel was built with. It refuses a parameter that it does not have.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub families: PerFamily<bool>,
    pub vimage: bool,
}

/// The jail with this name or jid, even if it is dying.
pub fn named(get: &JailGet, features: Features, name: &str) -> Result<Option<Jail>> {
    // as in jail_getid(3): a number is a jid first
    let jid = match name.parse::<i32>() {
        Ok(jid) if jid > 0 && jid.to_string() == name => Some(jid),
        _ if name.is_empty() || name.contains('\0') || name.len() >= TEXT => None,
        _ => get(&mut vec![(c"name", [name.as_bytes(), &[0]].concat())])?,
    };
    let Some(jid) = jid else { return Ok(None) };
    let Some(parameters) = ask(get, features, c"jid", jid)? else { return Ok(None) };
    read(get, features, &parameters).map(Some)
}

/// Every jail below that of the caller, in the order of their jids, including dying ones. Root of a jail chooses the
/// names and addresses of the jails in it, so a jail that cannot be read is skipped and reported, and does not hide the
/// others.
pub fn all(get: &JailGet, features: Features) -> Result<Jails> {
    let mut found = Jails::default();
    let mut last = 0;
    loop {
        let (parameters, jail) = match ask(get, features, c"lastjid", last) {
            Ok(None) => return Ok(found),
            Ok(Some(parameters)) => {
                let jail = read(get, features, &parameters);
                (parameters, jail)
            }
            // the same jail with fewer parameters; if that fails, too, the jail is not the cause
            Err(error) => {
                let mut values = vec![(c"lastjid", last.to_ne_bytes().to_vec()), (c"name", vec![0; TEXT])];
                let Some(jid) = get(&mut values)? else { return Ok(found) };
                (Parameters { jid, values }, Err(error))
            }
        };
        last = parameters.jid;
        match jail {
            Ok(jail) => found.jails.push(jail),
            Err(error) => {
                let name = parameters.name().ok().map(str::to_owned);
                found.skipped.push(SkippedJail { jid: last, name, why: error.message().to_owned() });
            }
        }
    }
}

struct Parameters {
    jid: i32,
    values: Vec<Parameter>,
}

impl Parameters {
    fn value(&self, name: &CStr) -> &[u8] {
        self.values.iter().find(|parameter| parameter.0 == name).map_or(&[], |parameter| &parameter.1)
    }

    fn name(&self) -> Result<&str> {
        let name = CStr::from_bytes_until_nul(self.value(c"name")).map(CStr::to_bytes).unwrap_or_default();
        std::str::from_utf8(name).map_err(|_| {
            let (jid, shown) = (self.jid, name.escape_ascii());
            error!(Unsupported, "the name of jail {jid}, \"{shown}\", is not UTF-8: rename it")
        })
    }

    /// `None` if the kernel does not have the parameter.
    fn number(&self, name: &CStr) -> Option<i32> {
        self.value(name).try_into().ok().map(i32::from_ne_bytes)
    }
}

fn number() -> Vec<u8> {
    vec![0; size_of::<i32>()]
}

/// The parameters of the jail that `key` (`jid` or `lastjid`) selects.
fn ask(get: &JailGet, features: Features, key: &'static CStr, jid: i32) -> Result<Option<Parameters>> {
    let mut values: Vec<Parameter> = vec![
        (key, jid.to_ne_bytes().to_vec()),
        (c"name", vec![0; TEXT]),
        (c"path", vec![0; PATH]),
        (c"parent", number()),
        (c"dying", number()),
    ];
    if features.vimage {
        values.push((c"vnet", number()));
    }
    if features.families.inet {
        values.extend([(c"ip4", number()), (c"ip4.addr", vec![0; MOST_ADDRESSES * 4])]);
    }
    if features.families.inet6 {
        values.extend([(c"ip6", number()), (c"ip6.addr", vec![0; MOST_ADDRESSES * 16])]);
    }
    Ok(get(&mut values)?.map(|jid| Parameters { jid, values }))
}

fn read(get: &JailGet, features: Features, parameters: &Parameters) -> Result<Jail> {
    let jid = parameters.jid;
    let name = parameters.name()?;
    let path = CStr::from_bytes_until_nul(parameters.value(c"path")).unwrap_or_default();
    let parent = parameters.number(c"parent").unwrap_or(0);
    let stack = match parameters.number(c"vnet") {
        Some(JAIL_SYS_NEW) => jid,
        _ => stack_above(get, features, parent)?,
    };
    let vnet = stack != 0;
    let addresses = addresses(parameters.value(c"ip4.addr"), parameters.value(c"ip6.addr"))?;
    let jailsys = PerFamily { inet: parameters.number(c"ip4"), inet6: parameters.number(c"ip6") };
    let inherits = inherits(vnet, jailsys, &addresses);
    let dying = parameters.number(c"dying") == Some(1);
    let (name, path) = (name.to_owned(), path.to_string_lossy().into_owned());
    Ok(Jail { jid, name, path, vnet, stack, inherits, fib: 0, addresses, dying })
}

/// The jail with this jid, or one above it, that has its own network stack; 0 if it is the host's.
fn stack_above(get: &JailGet, features: Features, mut jid: i32) -> Result<i32> {
    for _ in 0..DEEPEST {
        if jid == 0 || !features.vimage {
            break;
        }
        let mut values = vec![(c"jid", jid.to_ne_bytes().to_vec()), (c"parent", number()), (c"vnet", number())];
        let Some(found) = get(&mut values)? else { break };
        let above = Parameters { jid: found, values };
        if above.number(c"vnet") == Some(JAIL_SYS_NEW) {
            return Ok(found);
        }
        jid = above.number(c"parent").unwrap_or(0);
    }
    Ok(0)
}

pub fn addresses(ip4: &[u8], ip6: &[u8]) -> Result<Vec<IpAddr>> {
    let (v4, odd4) = ip4.as_chunks::<4>();
    let (v6, odd6) = ip6.as_chunks::<16>();
    if !(odd4.is_empty() && odd6.is_empty()) {
        return Err(malformed("list of jail addresses"));
    }
    let v4 = v4.iter().map(|bytes| IpAddr::from(*bytes));
    Ok(v4.chain(v6.iter().map(|bytes| IpAddr::from(*bytes))).collect())
}

/// Whether a jail uses the host's addresses: from its parameters `ip4` and `ip6`, as far as the kernel has them. The
/// kernel also returns "inherit" for a VNET jail, and for a jail that inherits the addresses of the jail above it;
/// these it lists.
pub fn inherits(vnet: bool, jailsys: PerFamily<Option<i32>>, addresses: &[IpAddr]) -> PerFamily<bool> {
    let own = |family| addresses.iter().any(|address| Family::of(*address) == family);
    PerFamily::each(|family| !vnet && !own(family) && *jailsys.of(family) == Some(JAIL_SYS_INHERIT))
}
