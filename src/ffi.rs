//! The C ABI, whole. The header include/kport.h is made from this file by cbindgen, comments included: they are written for
//! C programmers.
//!
//! The contract is in the types as far as they go: `Option<&T>` is a pointer that may be NULL,
//! `Option<&mut MaybeUninit<T>>` one to a variable that need not be initialised, `Option<Box<T>>` one that is owned.
//! Everything runs inside `guard`, so nothing unwinds into C.

#![allow(non_camel_case_types, unsafe_code)]
// "# Safety" headings would land in the header, which has its own words for it
#![allow(clippy::missing_safety_doc)]
// the comments are C's: <table> and [address] are words of pf and of the grammar
#![allow(rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links)]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::ptr;
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use crate::error::{Error, Kind, Result, quoted};
use crate::host;
use crate::name::JailName;
use crate::net::{Family, Interface, PortRange};
use crate::options::{Limits, Options};
use crate::publication::Redirect;
use crate::publisher::{AUTO_RANGE, Listed, Liveness, Outcome, Publisher, Request, Unobserved};
use crate::session::{Session, Settings};
use crate::spec::{self, HostPorts, Mapping, Spec};

/// What a call returns: KPORT_OK or why it failed, sorted by what the caller
/// can do about it. The numbers never change, and are the exit statuses of
/// kport(8).
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum kport_status {
    /// Done.
    KPORT_OK = 0,
    /// An argument is NULL, too long, or not UTF-8: a mistake in the caller.
    KPORT_ERR_ARGUMENT = 1,
    /// The text does not follow the grammar; see kport_error_offset().
    KPORT_ERR_SPEC = 2,
    /// A port is held by another jail, by the host, or by another tool.
    KPORT_ERR_CONFLICT = 3,
    /// The process may not change the firewall or the record.
    KPORT_ERR_PERMISSION = 4,
    /// pf is off or absent, or would not evaluate the rules, or a fact about
    /// the host or the jail is missing.
    KPORT_ERR_UNAVAILABLE = 5,
    /// The lock or pf stayed busy until the time-out: try again.
    KPORT_ERR_BUSY = 6,
    /// A system call or pfctl(8) failed; see kport_error_errno().
    KPORT_ERR_SYSTEM = 7,
    /// Not possible for this jail, or not known to this version.
    KPORT_ERR_UNSUPPORTED = 8,
    /// A defect in kport.
    KPORT_ERR_INTERNAL = 9,
}

/// Whether pf has what is recorded: the field state of struct kport_entry.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum kport_state {
    /// pf has what the record says.
    KPORT_LIVE = 1,
    /// Recorded, but not, or not all, in pf: kport_restore() loads it.
    KPORT_MISSING = 2,
    /// In pf, but not recorded: kport_gc() removes it.
    KPORT_STALE = 3,
}

/// Publish although a socket of the host, or another tool's redirect, has the
/// port. Other jails' ports are refused all the same.
pub const KPORT_FORCE: u32 = 1;
/// Publish although pf would not evaluate the rules for now.
pub const KPORT_ALLOW_INERT: u32 = 2;
/// The jails of the reach list, those on the jail's own bridge among them,
/// reach the published port at the host's address, too.
pub const KPORT_HAIRPIN: u32 = 4;
/// The host itself, and the jails that share its network stack, reach the
/// published port, at the host's address and at 127.0.0.1 or ::1.
pub const KPORT_HOST_ACCESS: u32 = 8;
/// Log the packet that starts a connection to pflog0.
pub const KPORT_LOG: u32 = 16;
/// Let the rules behind kport's anchor decide, too: pass without quick.
pub const KPORT_NO_QUICK: u32 = 32;
/// Add to what the jail has published, instead of taking its place. Each
/// call's options are those of its mappings.
pub const KPORT_ADD: u32 = 64;

/// Every flag that is known.
const FLAGS: u32 =
    KPORT_FORCE | KPORT_ALLOW_INERT | KPORT_HAIRPIN | KPORT_HOST_ACCESS | KPORT_LOG | KPORT_NO_QUICK | KPORT_ADD;

/// Port specs, parsed. Never changes: threads may share it for reading.
pub struct kport_spec {
    spec: Spec,
    text: CString,
    places: Vec<Option<CString>>,
}

/// A snapshot of what is published. Never changes: threads may share it for
/// reading.
pub struct kport_listing {
    rows: Vec<Row>,
}

/// Why a call failed. Never changes: threads may share it for reading.
pub struct kport_error {
    error: Error,
    message: CString,
}

/// One row of a listing: a redirect of a jail, or a jail of which none is known.
struct Row {
    jail: Option<CString>,
    anchor: CString,
    since: i64,
    jid: i32,
    state: kport_state,
    redirect: Option<RowRedirect>,
}

struct RowRedirect {
    place: CString,
    address: CString,
    redirect: Redirect,
    packets: u64,
    bytes: u64,
    states: u64,
}

// what the header says of threads
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<kport_spec>();
    shared::<kport_listing>();
    shared::<kport_error>();
};

/// One mapping of a spec. Pointers live as long as the spec.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kport_mapping {
    /// "em0", "192.0.2.1", "[2001:db8::1]" or "*"; NULL: the interface of the
    /// host's default route.
    pub place: *const c_char,
    /// The first port on the host; 0: a free one is chosen.
    pub host_port: u16,
    /// The first port in the jail.
    pub jail_port: u16,
    /// How many ports in a row, on both sides.
    pub count: u16,
    /// IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
    pub protocol: u8,
    /// 0.
    pub reserved: u8,
}

/// One published redirect, or a jail of which none is known. Pointers live as
/// long as the listing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kport_entry {
    /// The jail; NULL where no record tells whose anchor it is.
    pub jail: *const c_char,
    /// The anchor in pf, "kport/web".
    pub anchor: *const c_char,
    /// Where on the host, as in struct kport_mapping; NULL if count is 0.
    pub place: *const c_char,
    /// The address in the jail; NULL if count is 0.
    pub address: *const c_char,
    /// Packets that the rules have passed since they were loaded, both ways.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// States (connections) that the rules have made.
    pub states: u64,
    /// When it was published, in seconds since 1970; 0: unknown.
    pub since: i64,
    /// The jail's number when it was published; 0: unknown.
    pub jid: i32,
    /// One of enum kport_state.
    pub state: i32,
    /// The first port on the host.
    pub host_port: u16,
    /// The first port in the jail.
    pub jail_port: u16,
    /// How many ports in a row; 0: no redirect is known of this anchor.
    pub count: u16,
    /// IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
}

/// How to publish. Zero in a field means: as usual. Start from
/// KPORT_OPTIONS_INIT, which sets size; the library copies what it needs.
/// Lists are texts with white space between the items. A call looks at the
/// fields that concern it, but refuses bad values in any.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kport_options {
    /// sizeof(struct kport_options) of the caller.
    pub size: usize,
    /// "auto" (usual): on FreeBSD /dev/pf where the kernel has all that it
    /// takes, else pfctl(8); where there is no pf, "sim". "native": /dev/pf, no
    /// child process. "pfctl": pfctl(8). "sim": files, nothing is redirected.
    /// One that is named is never replaced by another.
    pub backend: *const c_char,
    /// Where the lock and the record are; usually /var/run/kport.
    pub state_dir: *const c_char,
    /// The jail's addresses, one for each network that it is connected to, the
    /// preferred one first; usually the kernel is asked. "inherit": the jail
    /// is on the host's network (nothing can be published then).
    pub addresses: *const c_char,
    /// The gateway interface; usually that of the default route.
    pub gateway: *const c_char,
    /// Interfaces and groups whose hosts reach the jail's own address and
    /// port; usually "bridge epair lo". "": none.
    pub reach: *const c_char,
    /// Who may use the ports from outside: networks, addresses and tables, as
    /// in "192.0.2.0/24 2001:db8::1 <trusted>"; usually everybody. "" is
    /// refused.
    pub sources: *const c_char,
    /// How long a call may take, in milliseconds; usually 30000.
    pub timeout_ms: u32,
    /// KPORT_FORCE and the like, or-ed.
    pub flags: u32,
    /// The most connections at a time through a mapping; usually no bound.
    pub max_connections: u32,
    /// The most of them from one address; usually no bound.
    pub max_connections_per_source: u32,
    /// The most new connections from one address in rate_seconds, tcp only.
    /// Both or neither are set; usually no bound.
    pub rate_connections: u32,
    /// See rate_connections.
    pub rate_seconds: u32,
    /// The jail's number, so that a late stop hook of an earlier start cannot
    /// undo a later one; usually the kernel is asked, or it does not matter.
    pub jid: i32,
    /// The lowest and the highest of the ports of which one is chosen for
    /// "auto"; usually 49152 and 65535. Both or neither are set.
    pub auto_first: u16,
    /// See auto_first.
    pub auto_last: u16,
}

/// The version, for messages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The size of struct kport_options in the first release.
const OPTIONS_FIRST_SIZE: usize = 7 * size_of::<usize>() + 8 * 4;
/// No struct of ours will ever be larger: a size above is no size.
const STRUCT_MAX_SIZE: usize = 4096;
/// The longest text that is taken, but for specs, which have their own limit.
const MAX_TEXT: usize = 65536;
/// The longest path: PATH_MAX of FreeBSD. Paths stand in error messages.
const MAX_PATH: usize = 1024;

// every byte is a field's
const _: () = assert!(size_of::<kport_options>() == OPTIONS_FIRST_SIZE);

/// Reads port specs, such as "8080:80/udp em1:443:8443".
///
/// On success *out is a new spec, to be freed with kport_spec_free(); on
/// failure it is NULL. Fails with KPORT_ERR_SPEC, and then
/// kport_error_offset() tells where; with KPORT_ERR_ARGUMENT if text or out
/// is NULL, or text is too long or not UTF-8. Touches nothing outside the
/// process.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_parse(
    text: *const c_char,
    out: Option<&mut MaybeUninit<Option<Box<kport_spec>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises a NUL-terminated text or NULL.
        let text = unsafe { required(text, "text", spec::MAX_TEXT) }?;
        kport_spec::new(spec::parse(text)?)
    })
}

/// Publishes all mappings of a spec for a jail, in place of what the jail had
/// published: all of them or, on any failure, none, and what was there stays.
/// The same again changes nothing and succeeds.
///
/// The spec stays the caller's. options may be NULL. Fails with
/// KPORT_ERR_CONFLICT if somebody else has one of the ports,
/// KPORT_ERR_UNAVAILABLE if pf would not evaluate the rules or the jail's
/// address is unknown, KPORT_ERR_UNSUPPORTED if the jail is on the host's
/// network, KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
/// KPORT_ERR_ARGUMENT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_publish(
    jail: *const c_char,
    spec: Option<&kport_spec>,
    options: *const kport_options,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises NUL-terminated texts or NULL, and options as the header says.
        let (jail, options) = unsafe { (jail_name(jail)?, Given::read(options)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        let request = options.request(jail, spec.spec.clone())?;
        options.change(|publisher| publisher.publish(&request))
    })
}

/// Removes everything that a jail has published, and ends the connections that
/// went through it. Nothing published is success.
///
/// With options->jid, what a later start of the jail has published stays.
/// options may be NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_BUSY,
/// KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT; as much as possible is removed all
/// the same, and the call can be repeated.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_unpublish(
    jail: *const c_char,
    options: *const kport_options,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises a NUL-terminated text or NULL, and options as the header says.
        let (jail, options) = unsafe { (jail_name(jail)?, Given::read(options)?) };
        options.change(|publisher| publisher.unpublish(&jail, options.jid))
    })
}

/// Removes these of the mappings that a jail has published, and ends the
/// connections that went through them. The others stay.
///
/// A mapping that names no place is that of the host's default route, "auto"
/// is any host port, and one that is not published is no error. With
/// options->jid, what a later start of the jail has published stays. options
/// may be NULL. Fails as kport_unpublish() does, and with
/// KPORT_ERR_UNAVAILABLE if pf is not there to load the others.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_unpublish_some(
    jail: *const c_char,
    spec: Option<&kport_spec>,
    options: *const kport_options,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises a NUL-terminated text or NULL, and options as the header says.
        let (jail, options) = unsafe { (jail_name(jail)?, Given::read(options)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        options.change(|publisher| publisher.unpublish_some(&jail, options.jid, &spec.spec))
    })
}

/// Lists what is published by a jail, or by all if jail is NULL: a row for
/// each redirect, sorted by anchor.
///
/// On success *out is a new listing, to be freed with kport_listing_free();
/// on failure it is NULL. Nothing published is success, with no rows. options
/// may be NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_UNAVAILABLE,
/// KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_list(
    jail: *const c_char,
    options: *const kport_options,
    out: Option<&mut MaybeUninit<Option<Box<kport_listing>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises a NUL-terminated text or NULL, and options as the header says.
        let (jail, options) = unsafe {
            let jail = if jail.is_null() { None } else { Some(jail_name(jail)?) };
            (jail, Given::read(options)?)
        };
        let session = options.session()?;
        let listed = session.publisher(&Unobserved)?.list(jail.as_ref())?;
        kport_listing::new(listed)
    })
}

/// Loads again what is recorded and was lost from pf, for all jails, as after
/// "pfctl -F all". What pf has is not touched.
///
/// options may be NULL. Fails with KPORT_ERR_UNAVAILABLE if pf is not there,
/// KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
/// KPORT_ERR_ARGUMENT; one jail's failure does not stop the others, and the
/// call can be repeated.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_restore(
    options: *const kport_options,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises options as the header says.
        let options = unsafe { Given::read(options) }?;
        options.change(|publisher| publisher.restore())
    })
}

/// Removes what belongs to jails that are gone, and anchors of kport's that no
/// record knows.
///
/// options may be NULL. Fails as kport_restore() does.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_gc(
    options: *const kport_options,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises options as the header says.
        let options = unsafe { Given::read(options) }?;
        options.change(|publisher| publisher.gc())
    })
}

/// The spec written out: every field, one mapping for each protocol. The text
/// lives as long as the spec. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_spec_text(spec: Option<&kport_spec>) -> *const c_char {
    spec.map_or(ptr::null(), |spec| spec.text.as_ptr())
}

/// The number of mappings. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_spec_len(spec: Option<&kport_spec>) -> usize {
    spec.map_or(0, |spec| spec.spec.mappings().len())
}

/// Fills in a mapping; size is sizeof(struct kport_mapping) of the caller.
/// i counts from 0. Fails with KPORT_ERR_ARGUMENT, and leaves *out as it was,
/// if there is no mapping i, or spec or out is NULL, or size is 0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_spec_get(
    spec: Option<&kport_spec>,
    i: usize,
    out: *mut kport_mapping,
    size: usize,
) -> kport_status {
    let Some((spec, mapping)) = spec.and_then(|s| Some((s, s.spec.mappings().get(i)?))) else {
        return kport_status::KPORT_ERR_ARGUMENT;
    };
    let place = spec.places[i].as_ref().map_or(ptr::null(), |p| p.as_ptr());
    // SAFETY: the caller promises that out is NULL or has room for size bytes.
    unsafe { fill(out, size, mapping_of(mapping, place)) }
}

/// Frees a spec. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn kport_spec_free(spec: Option<Box<kport_spec>>) {
    drop(spec);
}

/// The number of rows. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_listing_len(listing: Option<&kport_listing>) -> usize {
    listing.map_or(0, |listing| listing.rows.len())
}

/// Fills in a row; size is sizeof(struct kport_entry) of the caller. i counts
/// from 0. Fails with KPORT_ERR_ARGUMENT, and leaves *out as it was, if there
/// is no row i, or listing or out is NULL, or size is 0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_listing_get(
    listing: Option<&kport_listing>,
    i: usize,
    out: *mut kport_entry,
    size: usize,
) -> kport_status {
    let Some(row) = listing.and_then(|l| l.rows.get(i)) else { return kport_status::KPORT_ERR_ARGUMENT };
    // SAFETY: the caller promises that out is NULL or has room for size bytes.
    unsafe { fill(out, size, row.entry()) }
}

/// Frees a listing. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn kport_listing_free(listing: Option<Box<kport_listing>>) {
    drop(listing);
}

/// The status that the failed call returned. KPORT_OK for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_status(error: Option<&kport_error>) -> kport_status {
    error.map_or(kport_status::KPORT_OK, |e| status(e.error.kind()))
}

/// What was seen and what to do, on one line without a newline. The text lives
/// as long as the error. "" for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_message(error: Option<&kport_error>) -> *const c_char {
    error.map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// The errno of the system call that failed. 0: none did. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_errno(error: Option<&kport_error>) -> c_int {
    error.and_then(|e| e.error.errno()).unwrap_or(0)
}

/// The offset, in bytes from 0, of what was wrong in the text given to
/// kport_parse(). SIZE_MAX: the error is not about a text. SIZE_MAX for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_offset(error: Option<&kport_error>) -> usize {
    error.and_then(|e| e.error.offset()).unwrap_or(usize::MAX)
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_free(error: Option<Box<kport_error>>) {
    drop(error);
}

/// A few words for a status, or for any other number. Never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn kport_status_text(status: i32) -> *const c_char {
    let text: &'static CStr = match status {
        0 => c"done",
        1 => c"bad argument",
        2 => c"bad port spec",
        3 => c"port in use",
        4 => c"permission denied",
        5 => c"firewall not ready",
        6 => c"busy, try again",
        7 => c"system error",
        8 => c"not supported",
        9 => c"internal error in kport",
        _ => c"unknown status",
    };
    text.as_ptr()
}

/// The version of the running library, "0.1.0"; KPORT_VERSION is that of the
/// header. Never NULL, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn kport_version() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("the version has a NUL"),
    };
    TEXT.as_ptr()
}

/// The options as Rust has them.
struct Given {
    settings: Settings,
    addresses: Option<String>,
    gateway: Option<Interface>,
    options: Options,
    jid: Option<i32>,
    auto_range: PortRange,
    flags: u32,
}

impl Given {
    /// Copies the caller's options, whatever version of the struct they have.
    ///
    /// # Safety
    /// `options` is NULL, or points to as many bytes as its field `size` says, and its texts are NUL-terminated or NULL.
    unsafe fn read(options: *const kport_options) -> Result<Given> {
        // SAFETY: all fields are integers and raw pointers, for which zero is a value.
        let mut given: kport_options = unsafe { MaybeUninit::zeroed().assume_init() };
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
            if !unsafe { extend(options, size, &mut given) } {
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
        let unknown = given.flags & !FLAGS;
        if unknown != 0 {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "options->flags has {unknown:#x}, which libkport {VERSION} does not know; use a newer libkport"
                ),
            ));
        }
        // SAFETY: the caller promises NUL-terminated texts or NULL.
        let text = |text, name| unsafe { optional(text, name, MAX_TEXT) };
        let mut settings = Settings::default();
        if let Some(backend) = text(given.backend, "options->backend")? {
            settings.backend = backend.parse()?;
        }
        // SAFETY: as above.
        let state_dir = unsafe { optional(given.state_dir, "options->state_dir", MAX_PATH) }?;
        settings.state_dir = state_dir.map(PathBuf::from);
        if given.timeout_ms != 0 {
            settings.timeout = Duration::from_millis(given.timeout_ms.into());
        }
        let usual = Options::default();
        Ok(Given {
            settings,
            addresses: text(given.addresses, "options->addresses")?,
            gateway: text(given.gateway, "options->gateway")?.map(|text| text.parse()).transpose()?,
            options: Options {
                reach: text(given.reach, "options->reach")?
                    .map(|text| words(&text))
                    .transpose()?
                    .unwrap_or(usual.reach),
                sources: match text(given.sources, "options->sources")?.map(|text| words(&text)).transpose()? {
                    // nobody, as it says, would be nothing to publish; everybody must not come of a list that was lost
                    Some(none) if none.is_empty() => {
                        let what = "options->sources names nobody; leave it NULL for everybody";
                        return Err(Error::new(Kind::Argument, what));
                    }
                    given => given.unwrap_or(usual.sources),
                },
                limits: limits(&given)?,
                hairpin: given.flags & KPORT_HAIRPIN != 0,
                host_access: given.flags & KPORT_HOST_ACCESS != 0,
                log: given.flags & KPORT_LOG != 0,
                quick: given.flags & KPORT_NO_QUICK == 0,
            },
            jid: match given.jid {
                0 => None,
                jid if jid > 0 => Some(jid),
                jid => return Err(Error::new(Kind::Argument, format!("options->jid is {jid}; jails count from 1"))),
            },
            auto_range: match (given.auto_first, given.auto_last) {
                (0, 0) => AUTO_RANGE,
                (first, last) => PortRange::new(first, last).ok_or_else(|| {
                    let what =
                        format!("options->auto_first and auto_last are {first} and {last}, which is no range of ports");
                    Error::new(Kind::Argument, what)
                })?,
            },
            flags: given.flags,
        })
    }

    fn request(&self, jail: JailName, spec: Spec) -> Result<Request> {
        let mut request = Request::new(jail, spec);
        if let Some(addresses) = &self.addresses {
            request.addresses = crate::publication::addresses(&request.jail, addresses.split_whitespace())?;
        }
        request.gateway = self.gateway;
        request.jid = self.jid;
        request.options = self.options.clone();
        request.auto_range = self.auto_range;
        request.add = self.flags & KPORT_ADD != 0;
        request.force = self.flags & KPORT_FORCE != 0;
        request.allow_inert = self.flags & KPORT_ALLOW_INERT != 0;
        Ok(request)
    }

    fn session(&self) -> Result<Session> {
        Session::new(&self.settings, Box::new(host::System))
    }

    fn change(&self, act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>) -> Result<()> {
        act(&self.session()?.publisher(&Unobserved)?).map(drop)
    }
}

fn limits(given: &kport_options) -> Result<Limits> {
    let rate = match (NonZeroU32::new(given.rate_connections), NonZeroU32::new(given.rate_seconds)) {
        (None, None) => None,
        // the text names the bounds where it is not one
        _ => Some(format!("{}/{}", given.rate_connections, given.rate_seconds).parse()?),
    };
    Ok(Limits {
        connections: NonZeroU32::new(given.max_connections),
        connections_per_source: NonZeroU32::new(given.max_connections_per_source),
        rate,
    })
}

fn words<T: FromStr<Err = Error>>(text: &str) -> Result<Vec<T>> {
    text.split_whitespace().map(str::parse).collect()
}

impl kport_spec {
    fn new(spec: Spec) -> Result<kport_spec> {
        let text = c_text(spec.to_string())?;
        let place = |m: &Mapping| m.place.map(|p| c_text(p.to_string())).transpose();
        let places = spec.mappings().iter().map(place).collect::<Result<_>>()?;
        Ok(kport_spec { spec, text, places })
    }
}

fn mapping_of(mapping: &Mapping, place: *const c_char) -> kport_mapping {
    kport_mapping {
        place,
        host_port: match mapping.host {
            HostPorts::Fixed(range) => range.first(),
            HostPorts::Auto => 0,
        },
        jail_port: mapping.jail.first(),
        count: mapping.jail.count(),
        protocol: mapping.protocol.number(),
        reserved: 0,
    }
}

impl kport_listing {
    fn new(listed: Vec<Listed>) -> Result<kport_listing> {
        let mut rows = vec![];
        for jail in listed {
            let name = jail.jail.as_ref().map(|j| c_text(j.as_str())).transpose()?;
            let anchor = c_text(jail.anchor.path())?;
            let row = |redirect| Row {
                jail: name.clone(),
                anchor: anchor.clone(),
                since: jail.since.map_or(0, |s| i64::try_from(s).unwrap_or(i64::MAX)),
                jid: jail.jid.unwrap_or(0),
                state: match jail.liveness {
                    Liveness::Live => kport_state::KPORT_LIVE,
                    Liveness::Missing => kport_state::KPORT_MISSING,
                    Liveness::Stale => kport_state::KPORT_STALE,
                },
                redirect,
            };
            if jail.redirects.is_empty() {
                rows.push(row(None));
            }
            for (redirect, counters) in jail.redirects {
                let place = c_text(redirect.place.to_string())?;
                let address = c_text(redirect.target.to_string())?;
                let (packets, bytes, states) = (counters.packets, counters.bytes, counters.states);
                rows.push(row(Some(RowRedirect { place, address, redirect, packets, bytes, states })));
            }
        }
        Ok(kport_listing { rows })
    }
}

impl Row {
    /// What C sees; its pointers live as long as the row.
    fn entry(&self) -> kport_entry {
        let mut entry = kport_entry {
            jail: self.jail.as_ref().map_or(ptr::null(), |jail| jail.as_ptr()),
            anchor: self.anchor.as_ptr(),
            place: ptr::null(),
            address: ptr::null(),
            packets: 0,
            bytes: 0,
            states: 0,
            since: self.since,
            jid: self.jid,
            state: self.state as i32,
            host_port: 0,
            jail_port: 0,
            count: 0,
            protocol: 0,
            family: 0,
        };
        if let Some(RowRedirect { place, address, redirect, packets, bytes, states }) = &self.redirect {
            entry.place = place.as_ptr();
            entry.address = address.as_ptr();
            entry.packets = *packets;
            entry.bytes = *bytes;
            entry.states = *states;
            entry.host_port = redirect.host.first();
            entry.jail_port = redirect.jail.first();
            entry.count = redirect.host.count();
            entry.protocol = redirect.protocol.number();
            entry.family = match redirect.family() {
                Family::Inet => 4,
                Family::Inet6 => 6,
            };
        }
        entry
    }
}

impl kport_error {
    fn new(error: Error) -> kport_error {
        // messages have no control characters, so no NUL
        let message = CString::new(error.message()).unwrap_or_default();
        kport_error { error, message }
    }
}

fn c_text(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(Kind::Internal, "a text has a NUL"))
}

fn status(kind: Kind) -> kport_status {
    match kind {
        Kind::Argument => kport_status::KPORT_ERR_ARGUMENT,
        Kind::Spec => kport_status::KPORT_ERR_SPEC,
        Kind::Conflict => kport_status::KPORT_ERR_CONFLICT,
        Kind::Permission => kport_status::KPORT_ERR_PERMISSION,
        Kind::Unavailable => kport_status::KPORT_ERR_UNAVAILABLE,
        Kind::Busy => kport_status::KPORT_ERR_BUSY,
        Kind::System => kport_status::KPORT_ERR_SYSTEM,
        Kind::Unsupported => kport_status::KPORT_ERR_UNSUPPORTED,
        Kind::Internal => kport_status::KPORT_ERR_INTERNAL,
    }
}

fn null(name: &str) -> Error {
    Error::new(Kind::Argument, format!("{name} is NULL"))
}

/// A text from C; NULL is an error.
///
/// # Safety
/// `text` is NULL or NUL-terminated, and lives for `'a`.
unsafe fn required<'a>(text: *const c_char, name: &str, most: usize) -> Result<&'a str> {
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
unsafe fn jail_name(text: *const c_char) -> Result<JailName> {
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

/// Copies `value` to a caller whose struct has `size` bytes: a shorter one gets the fields that it knows, a longer one zeros
/// in those that it does not.
///
/// # Safety
/// `out` is NULL or has room for `size` bytes.
unsafe fn fill<T: Copy>(out: *mut T, size: usize, value: T) -> kport_status {
    if out.is_null() || size == 0 || size > STRUCT_MAX_SIZE {
        return kport_status::KPORT_ERR_ARGUMENT;
    }
    let known = size.min(size_of::<T>());
    // SAFETY: `out` has `size` bytes, of which `known` are copied from a value that has as many, and the rest is set.
    unsafe {
        ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), out.cast::<u8>(), known);
        out.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    kport_status::KPORT_OK
}

/// Runs `act` and hands out what it makes: `*out` is written in any case.
fn give<T>(
    out: Option<&mut MaybeUninit<Option<Box<T>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
    act: impl FnOnce() -> Result<T>,
) -> kport_status {
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
    /// Whether this thread is inside [`guard`], where a panic is a status and not a text on standard error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The one way from a Rust result to a status: writes `*err` in any case, and turns a panic into KPORT_ERR_INTERNAL.
fn guard(err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>, act: impl FnOnce() -> Result<()>) -> kport_status {
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
        Err(error) => (status(error.kind()), Some(Box::new(kport_error::new(error)))),
    };
    if let Some(err) = err {
        err.write(error);
    }
    status
}

/// The library prints nothing: a panic inside [`guard`] is kept for the error's message. Other panics go where they went.
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
    use super::*;
    use std::process::Command;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Grown {
        size: u32,
        old: u32,
        new: u32,
    }

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

    #[test]
    fn a_struct_is_filled_as_far_as_the_caller_knows_it() {
        let value = Grown { size: 1, old: 2, new: 3 };
        for (size, expected) in [(4, [1, 9, 9, 9]), (8, [1, 2, 9, 9]), (12, [1, 2, 3, 9]), (16, [1, 2, 3, 0])] {
            let mut out = [9_u32; 4];
            // SAFETY: out has 16 bytes.
            let status = unsafe { fill(out.as_mut_ptr().cast(), size, value) };
            assert_eq!((status as i32, out), (0, expected));
        }
        // SAFETY: nothing is written to NULL, nor with these sizes.
        let refused = unsafe {
            let mut out = value;
            [
                fill(ptr::null_mut(), 12, value),
                fill(&mut out, 0, value),
                fill(&mut out, STRUCT_MAX_SIZE + 1, value),
                fill(&mut out, usize::MAX, value),
            ]
        };
        assert!(refused.iter().all(|status| *status as i32 == Kind::Argument.number()));
    }

    #[test]
    fn statuses_are_the_kinds() {
        assert_eq!(kport_status::KPORT_OK as i32, 0);
        for kind in Kind::ALL {
            assert_eq!(status(kind) as i32, kind.number());
            // SAFETY: a static text.
            let text = unsafe { CStr::from_ptr(kport_status_text(kind.number())) };
            assert_eq!(text.to_str(), Ok(kind.text()));
        }
    }

    #[test]
    fn a_panic_is_a_status() {
        let mut err = MaybeUninit::uninit();
        let status = guard(Some(&mut err), || panic!("port {} fell off", 8080));
        // SAFETY: guard() writes it in any case.
        let error = unsafe { err.assume_init() };
        assert_eq!(status as i32, Kind::Internal.number());
        assert_eq!(kport_error_status(error.as_deref()) as i32, Kind::Internal.number());
        // SAFETY: a text of an error that is still there.
        let message = unsafe { CStr::from_ptr(kport_error_message(error.as_deref())) }.to_str().unwrap();
        assert!(message.contains("src/ffi.rs:") && message.contains("port 8080 fell off"), "{message}");
        assert!(message.contains("report"), "{message}");
        kport_error_free(error);

        let mut out: MaybeUninit<Option<Box<u8>>> = MaybeUninit::uninit();
        let status = give(Some(&mut out), None, || std::panic::panic_any(7));
        assert_eq!(status as i32, Kind::Internal.number());
        // SAFETY: give() writes it in any case.
        assert!(unsafe { out.assume_init() }.is_none());
    }

    /// Not a test by itself: what the test below looks at from outside.
    #[test]
    #[ignore = "run by a_panic_inside_prints_nothing_and_one_outside_does"]
    fn panics_inside_and_outside() {
        assert_eq!(guard(None, || panic!("inside")) as i32, Kind::Internal.number());
        assert!(panic::catch_unwind(|| panic!("outside")).is_err());
    }

    #[test]
    fn a_panic_inside_prints_nothing_and_one_outside_does() {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "ffi::tests::panics_inside_and_outside", "--ignored", "--nocapture"]);
        let output = again.env("RUST_BACKTRACE", "1").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
        assert!(printed.contains("outside"), "{printed}");
        assert!(!printed.contains("\ninside"), "{printed}");
    }
}
