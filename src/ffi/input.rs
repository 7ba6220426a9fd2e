//! What comes from C, checked: texts, and the options, whatever version of the struct the caller has.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::str::FromStr;
use std::time::Duration;

use super::output::STRUCT_MAX_SIZE;
use super::{
    KPORT_ADD, KPORT_ALLOW_INERT, KPORT_FORCE, KPORT_HAIRPIN, KPORT_HOST_ACCESS, KPORT_LOG, KPORT_NO_QUICK, VERSION,
    kport_options, kport_outcome, kport_spec,
};
use crate::error::{Error, Kind, Result, quoted};
use crate::host;
use crate::name::JailName;
use crate::net::{Interface, PortRange};
use crate::options::{Limits, Options};
use crate::publication;
use crate::publisher::{AUTO_RANGE, Outcome, Publisher, Request, Unobserved};
use crate::rule::Rate;
use crate::session::{Session, Settings};

/// Every flag that is known.
const FLAGS: u32 =
    KPORT_FORCE | KPORT_ALLOW_INERT | KPORT_HAIRPIN | KPORT_HOST_ACCESS | KPORT_LOG | KPORT_NO_QUICK | KPORT_ADD;

/// The size of struct kport_options in the first release.
const OPTIONS_FIRST_SIZE: usize = size_of::<[usize; 8]>() + size_of::<[u32; 10]>();
/// The longest text that is taken, but for specs, which have their own limit.
const MAX_TEXT: usize = 65536;
/// The longest path: PATH_MAX of FreeBSD. Paths stand in error messages.
const MAX_PATH: usize = 1024;

// every byte is a field's
const _: () = assert!(size_of::<kport_options>() == OPTIONS_FIRST_SIZE);

/// A kport_options of the caller's, copied and checked.
pub(super) struct CallerOptions {
    settings: Settings,
    addresses: Option<String>,
    gateway: Option<Interface>,
    options: Options,
    pub(super) jid: Option<i32>,
    auto_range: PortRange,
    flags: u32,
    wait: Duration,
    /// Where the caller wants to have what a change did.
    outcome: Option<NonNull<*mut kport_outcome>>,
}

impl CallerOptions {
    /// Those of a call that changes nothing: [`kport_options::outcome`] is left alone.
    ///
    /// # Safety
    /// `options` is NULL, or points to as many bytes as its field `size` says, and its texts are NUL-terminated or NULL.
    pub(super) unsafe fn read(options: *const kport_options) -> Result<CallerOptions> {
        // SAFETY: as promised to this function.
        unsafe { CallerOptions::copy(options, false) }
    }

    /// Those of a call that changes something: `*outcome` is NULL until [`CallerOptions::change`] succeeds.
    ///
    /// # Safety
    /// As for [`CallerOptions::read`], and `outcome` is NULL or a variable that is there as long as what this returns.
    pub(super) unsafe fn of_change(options: *const kport_options) -> Result<CallerOptions> {
        // SAFETY: as promised to this function.
        unsafe { CallerOptions::copy(options, true) }
    }

    /// Copies the caller's options, whatever version of the struct they have.
    ///
    /// # Safety
    /// As for [`CallerOptions::of_change`] if `changes`, else as for [`CallerOptions::read`].
    unsafe fn copy(options: *const kport_options, changes: bool) -> Result<CallerOptions> {
        // SAFETY: all fields are integers and raw pointers, for which zero is a value.
        let mut raw: kport_options = unsafe { MaybeUninit::zeroed().assume_init() };
        if !options.is_null() {
            // SAFETY: the caller promises a field `size`, at the start; no alignment is asked for.
            let size = unsafe { options.cast::<usize>().read_unaligned() };
            if !(OPTIONS_FIRST_SIZE..=STRUCT_MAX_SIZE).contains(&size) {
                return Err(Error::new(
                    Kind::Argument,
                    format!("kport_options.size is {size}; start from KPORT_OPTIONS_INIT"),
                ));
            }
            // SAFETY: the caller promises `size` readable bytes, and zero is a value of each field.
            let is_known = unsafe { extend(options, size, &mut raw) };
            if changes && let Some(outcome) = NonNull::new(raw.outcome) {
                // SAFETY: the caller promises a variable; it is written and never read.
                unsafe { outcome.write(ptr::null_mut()) };
            }
            if !is_known {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "kport_options has {size} bytes, and a field beyond the {} that libkport {VERSION} knows is set; \
                         use a newer libkport, or leave that field 0",
                        size_of::<kport_options>()
                    ),
                ));
            }
        }
        let unknown = raw.flags & !FLAGS;
        if unknown != 0 {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "options->flags has {unknown:#x}, which libkport {VERSION} does not know; use a newer libkport"
                ),
            ));
        }
        if raw.reserved != 0 {
            return Err(Error::new(Kind::Unsupported, "options->reserved is not 0; start from KPORT_OPTIONS_INIT"));
        }
        // SAFETY: the caller promises NUL-terminated texts or NULL.
        let text = |text, name| unsafe { optional(text, name, MAX_TEXT) };
        let mut settings = Settings::default();
        if let Some(backend) = text(raw.backend, "options->backend")? {
            settings.backend = backend.parse()?;
        }
        // SAFETY: as above.
        let state_dir = unsafe { optional(raw.state_dir, "options->state_dir", MAX_PATH) }?;
        settings.state_dir = state_dir.map(PathBuf::from);
        if raw.timeout_ms != 0 {
            settings.timeout = Duration::from_millis(raw.timeout_ms.into());
        }
        let wait = Duration::from_millis(raw.wait_ms.into());
        settings.timeout += wait;
        let default = Options::default();
        Ok(CallerOptions {
            settings,
            addresses: text(raw.addresses, "options->addresses")?,
            gateway: text(raw.gateway, "options->gateway")?.map(|text| text.parse()).transpose()?,
            options: Options {
                reach: text(raw.reach, "options->reach")?.map(|text| list(&text)).transpose()?.unwrap_or(default.reach),
                sources: match text(raw.sources, "options->sources")?.map(|text| list(&text)).transpose()? {
                    // nobody, as it says, would be nothing to publish; everybody must not come of a list that was lost
                    Some(none) if none.is_empty() => {
                        let what = "options->sources names nobody; leave it NULL for everybody";
                        return Err(Error::new(Kind::Argument, what));
                    }
                    sources => sources.unwrap_or(default.sources),
                },
                limits: limits(&raw)?,
                hairpin: raw.flags & KPORT_HAIRPIN != 0,
                host_access: raw.flags & KPORT_HOST_ACCESS != 0,
                log: raw.flags & KPORT_LOG != 0,
                quick: raw.flags & KPORT_NO_QUICK == 0,
            },
            jid: match raw.jid {
                0 => None,
                jid if jid > 0 => Some(jid),
                jid => return Err(Error::new(Kind::Argument, format!("options->jid is {jid}; jails count from 1"))),
            },
            auto_range: match (raw.auto_first, raw.auto_last) {
                (0, 0) => AUTO_RANGE,
                (first, last) => PortRange::new(first, last).ok_or_else(|| {
                    let what =
                        format!("options->auto_first and auto_last are {first} and {last}, which is no range of ports");
                    Error::new(Kind::Argument, what)
                })?,
            },
            flags: raw.flags,
            wait,
            outcome: NonNull::new(raw.outcome).filter(|_| changes),
        })
    }

    pub(super) fn request(&self, jail: JailName, spec: &kport_spec) -> Result<Request> {
        let mut request = Request::new(jail, spec.spec.clone());
        request.addresses.clone_from(&spec.addresses);
        if let Some(addresses) = &self.addresses {
            request.addresses = publication::addresses(&request.jail, addresses.split_whitespace())?;
        }
        request.gateway = self.gateway;
        request.jid = self.jid;
        request.options = self.options.clone();
        request.auto_range = self.auto_range;
        request.wait = self.wait;
        request.add = self.flags & KPORT_ADD != 0;
        request.force = self.flags & KPORT_FORCE != 0;
        request.allow_inert = self.flags & KPORT_ALLOW_INERT != 0;
        Ok(request)
    }

    pub(super) fn session(&self) -> Result<Session> {
        Session::new(&self.settings, Box::new(host::System))
    }

    /// Runs a change of one jail, or of all, and hands out what it did.
    pub(super) fn change(
        &self,
        jail: Option<&JailName>,
        act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>,
    ) -> Result<()> {
        let session = self.session()?;
        let mut done = act(&session.publisher(&Unobserved)?)?;
        let Some(outcome) = self.outcome else { return Ok(()) };
        if done.changed && !session.firewall.redirects_packets() {
            done.notes.insert(0, crate::pf::files::NOTICE.to_owned());
        }
        let made = Box::new(kport_outcome::new(jail, done)?);
        // SAFETY: the caller promised a variable for as long as `self` is there.
        unsafe { outcome.write(Box::into_raw(made)) };
        Ok(())
    }
}

fn limits(raw: &kport_options) -> Result<Limits> {
    let rate = match (NonZeroU32::new(raw.rate_connections), NonZeroU32::new(raw.rate_seconds)) {
        (None, None) => None,
        _ => Some(Rate::new(raw.rate_connections, raw.rate_seconds)?),
    };
    Ok(Limits {
        connections: NonZeroU32::new(raw.max_connections),
        connections_per_source: NonZeroU32::new(raw.max_connections_per_source),
        rate,
    })
}

fn list<T: FromStr<Err = Error>>(text: &str) -> Result<Vec<T>> {
    text.split_whitespace().map(str::parse).collect()
}

pub(super) fn null(name: &str) -> Error {
    Error::new(Kind::Argument, format!("{name} is NULL"))
}

/// A text from C; NULL is an error.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and lives for `'a`.
pub(super) unsafe fn required<'a>(text: *const c_char, name: &str, most: usize) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, so NUL-terminated by the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > most {
        return Err(Error::new(Kind::Argument, format!("{name} has {} bytes; at most {most} are taken", bytes.len())));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let shown = String::from_utf8_lossy(bytes);
        Error::new(Kind::Argument, format!("{name} is not UTF-8 at byte {}: {}", e.valid_up_to(), quoted(&shown)))
    })
}

/// A text from C; NULL is `None`.
///
/// # Safety
/// As for [`required`].
unsafe fn optional(text: *const c_char, name: &str, most: usize) -> Result<Option<String>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: as promised to this function.
    unsafe { required(text, name, most) }.map(|text| Some(text.to_owned()))
}

/// # Safety
/// As for [`required`].
pub(super) unsafe fn jail_name(text: *const c_char) -> Result<JailName> {
    // SAFETY: as promised to this function.
    unsafe { required(text, "jail", MAX_TEXT) }?.parse()
}

/// Copies the caller's struct of `size` bytes over `known`: of a shorter one the rest stays as it is, a longer one must be
/// zero in the bytes that are not known here, or the answer is false.
///
/// # Safety
/// `given` points to `size` readable bytes, and any bytes are a value of `T`.
unsafe fn extend<T: Copy>(given: *const T, size: usize, known: &mut T) -> bool {
    let common = size.min(size_of::<T>());
    // SAFETY: `common` is within both; the tail is what of `size` bytes follows.
    let tail = unsafe {
        ptr::copy_nonoverlapping(given.cast::<u8>(), ptr::from_mut(known).cast::<u8>(), common);
        std::slice::from_raw_parts(given.cast::<u8>().add(common), size - common)
    };
    tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::super::output::Grown;
    use super::*;

    fn extended(given: &[u32]) -> Option<Grown> {
        let mut known = Grown { size: 0, old: 0, new: 0 };
        // SAFETY: the size is that of the slice, and integers have no invalid values.
        unsafe { extend(given.as_ptr().cast(), size_of_val(given), &mut known) }.then_some(known)
    }

    #[test]
    fn a_shorter_struct_is_extended_by_zeros_and_a_longer_one_must_end_in_zeros() {
        assert_eq!(extended(&[8, 7]), Some(Grown { size: 8, old: 7, new: 0 }));
        assert_eq!(extended(&[12, 7, 5]), Some(Grown { size: 12, old: 7, new: 5 }));
        assert_eq!(extended(&[20, 7, 5, 0, 0]), Some(Grown { size: 20, old: 7, new: 5 }));
        assert_eq!(extended(&[20, 7, 5, 0, 1]), None);
        assert_eq!(extended(&[20, 7, 5, 1 << 31, 0]), None);
    }
}
