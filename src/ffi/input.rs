//! Checks the input from C: strings, and the options with any version of the struct.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::time::Duration;

use super::output::STRUCT_MAX_SIZE;
use super::{FLAGS, KPORT_COUNTERS, VERSION, kport_options, kport_outcome, kport_spec};
use crate::error::{Error, Result, error, quoted};
use crate::host;
use crate::name::JailName;
use crate::options::Given;
use crate::publisher::{Outcome, Publisher, Request, Unobserved};
use crate::session::{Session, Settings};

/// The size of struct kport_options in the first release.
const OPTIONS_FIRST_SIZE: usize = size_of::<[usize; 8]>() + size_of::<[u32; 10]>();
/// The maximum length of a string, except for specs, which have their own limit.
const MAX_TEXT: usize = 65536;
/// The maximum length of a path: PATH_MAX of FreeBSD. Paths are quoted in error messages.
const MAX_PATH: usize = 1024;

// there is no padding
const _: () = assert!(size_of::<kport_options>() == OPTIONS_FIRST_SIZE + size_of::<[usize; 3]>());

/// The caller's kport_options, copied and checked.
pub(super) struct CallerOptions {
    /// The backend, the state directory and the time limit.
    pub(super) settings: Settings,
    fields: Vec<Field>,
    pub(super) jid: Option<i32>,
    /// Whether a list has counters.
    pub(super) counters: bool,
    /// The caller's variable for the outcome of a change.
    outcome: Option<NonNull<*mut kport_outcome>>,
}

/// What a call does with [`kport_options::outcome`].
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Call {
    /// It is not written.
    Reads,
    /// It is NULL until [`CallerOptions::change`] succeeds.
    Changes,
}

impl CallerOptions {
    /// Copies the caller's options, with any version of the struct.
    ///
    /// # Safety
    /// `options` is NULL, or points to as many bytes as its field `size` says, and its strings are NUL-terminated or NULL. If the
    /// call changes something, `outcome` is NULL or a variable that lives as long as the returned value.
    pub(super) unsafe fn read(options: *const kport_options, call: Call) -> Result<CallerOptions> {
        let mut raw = kport_options::default();
        if !options.is_null() {
            // SAFETY: the caller promises a field `size`, at the start; alignment is not required.
            let size = unsafe { options.cast::<usize>().read_unaligned() };
            if !(OPTIONS_FIRST_SIZE..=STRUCT_MAX_SIZE).contains(&size) {
                return Err(error!(Argument, "kport_options.size is {size}; start from KPORT_OPTIONS_INIT"));
            }
            // SAFETY: the caller promises `size` readable bytes; the fields are integers and raw pointers.
            let is_known = unsafe { extend(options, size, &mut raw) };
            if call == Call::Changes
                && let Some(outcome) = NonNull::new(raw.outcome)
            {
                // SAFETY: the caller promises a variable; it is written and never read.
                unsafe { outcome.write(ptr::null_mut()) };
            }
            if !is_known {
                let known = size_of::<kport_options>();
                let what = format!("{size} bytes, and a field beyond the {known} that libkport {VERSION} knows is set");
                let remedy = "use a newer libkport, or leave that field 0";
                return Err(error!(Unsupported, "kport_options has {what}; {remedy}"));
            }
        }
        let unknown = FLAGS.iter().fold(raw.flags & !KPORT_COUNTERS, |flags, (flag, _)| flags & !flag);
        if unknown != 0 {
            let what = format!("{unknown:#x}, which is unknown to libkport {VERSION}");
            return Err(error!(Unsupported, "options->flags has {what}; use a newer libkport"));
        }
        if raw.reserved != 0 {
            return Err(error!(Unsupported, "options->reserved is not 0; start from KPORT_OPTIONS_INIT"));
        }
        let mut settings = Settings::default();
        // SAFETY: the caller promises NUL-terminated strings or NULL.
        unsafe {
            if let Some(backend) = optional(raw.backend, "options->backend", MAX_TEXT)? {
                settings.backend = backend.parse()?;
            }
            settings.state_dir = path(raw.state_dir, "options->state_dir")?;
        }
        if raw.timeout_ms != 0 {
            settings.timeout = Duration::from_millis(raw.timeout_ms.into());
        }
        settings.timeout += Duration::from_millis(raw.wait_ms.into());
        // SAFETY: as above.
        let fields = unsafe { fields(&raw) }?;
        // the check of addresses depends on the jail
        for (name, option, given) in fields.iter().filter(|field| field.1 != "address") {
            Request::check(option, given).map_err(|error| named(name, error))?;
        }
        Ok(CallerOptions {
            settings,
            fields,
            jid: match raw.jid {
                0 => None,
                jid if jid > 0 => Some(jid),
                jid => return Err(error!(Argument, "options->jid is {jid}; a jid is at least 1")),
            },
            counters: raw.flags & KPORT_COUNTERS != 0,
            outcome: NonNull::new(raw.outcome).filter(|_| call == Call::Changes),
        })
    }

    pub(super) fn request(&self, jail: JailName, spec: &kport_spec) -> Result<Request> {
        let mut request = Request::new(jail, spec.spec.clone());
        request.addresses.clone_from(&spec.addresses);
        request.jid = self.jid;
        for (name, option, given) in &self.fields {
            request.set(option, given).map_err(|error| named(name, error))?;
        }
        Ok(request)
    }

    pub(super) fn session(&self) -> Result<Session> {
        Session::new(&self.settings, Box::new(host::System))
    }

    /// Runs a change of one jail, or of all, and writes its outcome.
    pub(super) fn change(
        &self, jail: Option<&JailName>, act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>,
    ) -> Result<()> {
        let session = self.session()?;
        let mut done = act(&session.publisher(&Unobserved)?)?;
        let Some(outcome) = self.outcome else { return Ok(()) };
        if done.changed {
            done.notes.splice(0..0, session.notice().map(str::to_owned));
        }
        let made = Box::new(kport_outcome::new(jail, &done)?);
        // SAFETY: the caller promised a variable that lives as long as `self`.
        unsafe { outcome.write(Box::into_raw(made)) };
        Ok(())
    }
}

/// A field that is set: its name in C, its name for [`Request::set`], and its value.
pub type Field = (&'static str, &'static str, Given);

/// The error with the name of the field, and with the offset in its string.
fn named(field: &str, error: Error) -> Error {
    match error.offset() {
        Some(offset) => error.context(format_args!("options->{field} at byte {offset}")),
        None => error.context(format_args!("options->{field}")),
    }
}

/// The fields of a request that the caller has set.
///
/// # Safety
/// The strings are NULL or NUL-terminated.
pub unsafe fn fields(raw: &kport_options) -> Result<Vec<Field>> {
    // SAFETY: as promised to this function.
    let text = |text, name| unsafe { optional(text, name, MAX_TEXT) };
    let number = |number: u32| (number != 0).then(|| number.to_string());
    let pair = |a: u32, between, b: u32| ((a, b) != (0, 0)).then(|| format!("{a}{between}{b}"));
    let wait = Duration::from_millis(raw.wait_ms.into());
    let texts = [
        ("addresses", "address", text(raw.addresses, "options->addresses")?),
        ("gateway", "gateway", text(raw.gateway, "options->gateway")?),
        ("reach", "reach", text(raw.reach, "options->reach")?),
        ("sources", "sources", text(raw.sources, "options->sources")?),
        ("reply_to", "reply-to", text(raw.reply_to, "options->reply_to")?),
        ("trust", "trust", text(raw.trust, "options->trust")?),
        ("families", "family", text(raw.families, "options->families")?),
        ("max_connections", "max-connections", number(raw.max_connections)),
        ("max_connections_per_source", "max-connections-per-source", number(raw.max_connections_per_source)),
        ("rate_connections and rate_seconds", "rate", pair(raw.rate_connections, '/', raw.rate_seconds)),
        ("auto_first and auto_last", "auto-range", pair(raw.auto_first.into(), '-', raw.auto_last.into())),
        ("wait_ms", "wait", number(raw.wait_ms).map(|_| wait.as_secs_f64().to_string())),
    ];
    let texts = texts.into_iter().filter_map(|(name, option, text)| Some((name, option, Given::Text(text?))));
    let flags = FLAGS.iter().filter(|(flag, _)| raw.flags & flag != 0);
    Ok(texts.chain(flags.map(|(_, option)| ("flags", *option, Given::Flag(true)))).collect())
}

pub(super) fn null(name: &str) -> Error {
    error!(Argument, "{name} is NULL")
}

/// A string from C; NULL is an error.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and lives for `'a`. So of the functions below.
pub(super) unsafe fn required<'a>(text: *const c_char, name: &str, most: usize) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, so NUL-terminated by the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > most {
        return Err(error!(Argument, "{name} has {} bytes; the maximum is {most}", bytes.len()));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let shown = String::from_utf8_lossy(bytes);
        error!(Argument, "{name} is not UTF-8 at byte {}: {}", e.valid_up_to(), quoted(&shown))
    })
}

/// A string from C; NULL is `None`.
unsafe fn optional(text: *const c_char, name: &str, most: usize) -> Result<Option<String>> {
    // SAFETY: as promised to this function.
    let text = (!text.is_null()).then(|| unsafe { required(text, name, most) });
    Ok(text.transpose()?.map(str::to_owned))
}

pub(super) unsafe fn path(text: *const c_char, name: &str) -> Result<Option<PathBuf>> {
    // SAFETY: as promised to this function.
    Ok(unsafe { optional(text, name, MAX_PATH) }?.map(PathBuf::from))
}

pub(super) unsafe fn jail_name(text: *const c_char) -> Result<JailName> {
    // SAFETY: as promised to this function.
    unsafe { required(text, "jail", MAX_TEXT) }?.parse()
}

/// Copies the caller's struct of `size` bytes over `known`: with a shorter one the rest is unchanged. Returns false if
/// a longer one is not zero in the bytes that are unknown here.
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
