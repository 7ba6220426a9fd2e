//! The C ABI, whole. The header include/kport.h is made from this file by cbindgen, comments included: they are written for
//! C programmers.
//!
//! The contract is in the types as far as they go: `Option<&T>` is a pointer that may be NULL,
//! `Option<&mut MaybeUninit<T>>` one to a variable that need not be initialised, `Option<Box<T>>` one that is owned.
//! Everything runs inside `guard`, so nothing unwinds into C. What the functions need for that is beside them: checked
//! input, output, the guard against panics.

#![allow(non_camel_case_types, unsafe_code)]
// "# Safety" headings would land in the header, which has its own words for it
#![allow(clippy::missing_safety_doc)]
// the comments are C's: <table> and [address] are words of pf and of the grammar
#![allow(rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::ptr;

use crate::container::kleene;
use crate::error::Error;
use crate::host;
use crate::publisher::{self, Unobserved};
use crate::spec::{self, Spec};

mod guard;
mod input;
mod output;

use guard::{give, guard};
use input::{CallerOptions, jail_name, null, required};
use output::{Row, fill, mapping_of};

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

/// Port specs, parsed. Never changes: threads may share it for reading.
pub struct kport_spec {
    spec: Spec,
    text: CString,
    places: Vec<Option<CString>>,
    /// Where the ports lead unless options->addresses says it: Kleene's records name the container's addresses.
    addresses: Vec<IpAddr>,
}

/// A snapshot of what is published. Never changes: threads may share it for
/// reading.
pub struct kport_listing {
    rows: Vec<Row>,
}

/// What a call has changed, and what its caller should hear. Never changes:
/// threads may share it for reading.
pub struct kport_outcome {
    changed: bool,
    ended: u64,
    rows: Vec<Row>,
    notes: Vec<CString>,
}

/// The rules of a publication. Never changes: threads may share it for reading.
pub struct kport_ruleset {
    text: CString,
}

/// Why a call failed. Never changes: threads may share it for reading.
pub struct kport_error {
    error: Error,
    message: CString,
}

// what the header says of threads
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<kport_spec>();
    shared::<kport_listing>();
    shared::<kport_outcome>();
    shared::<kport_ruleset>();
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
/// long as the listing or outcome.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kport_entry {
    /// The jail; NULL where no record tells whose anchor it is, and in the
    /// outcome of a call for all jails.
    pub jail: *const c_char,
    /// The anchor in pf, "kport/web"; NULL in the outcome of a call for all
    /// jails.
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

/// How to publish. Zero in a field means: the default. Start from
/// KPORT_OPTIONS_INIT, which sets size; the library copies what it needs.
/// Lists are texts with white space between the items. A call looks at the
/// fields that concern it, but refuses bad values in any.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kport_options {
    /// sizeof(struct kport_options) of the caller.
    pub size: usize,
    /// "auto" (the default): on FreeBSD /dev/pf where the kernel has all that it
    /// takes, else pfctl(8); where there is no pf, "sim". "native": /dev/pf, no
    /// child process. "pfctl": pfctl(8). "sim": files, nothing is redirected.
    /// One that is named is never replaced by another.
    pub backend: *const c_char,
    /// Where the lock and the record are; default: /var/run/kport.
    pub state_dir: *const c_char,
    /// The jail's addresses, one for each network that it is connected to, the
    /// preferred one first; default: the kernel is asked. "inherit": the jail
    /// is on the host's network (nothing can be published then).
    pub addresses: *const c_char,
    /// The gateway interface; default: that of the default route.
    pub gateway: *const c_char,
    /// Interfaces and groups whose hosts reach the jail's own address and
    /// port; default: "bridge epair lo". "": none.
    pub reach: *const c_char,
    /// Who may use the ports from outside: networks, addresses and tables, as
    /// in "192.0.2.0/24 2001:db8::1 <trusted>"; default: everybody. "" is
    /// refused.
    pub sources: *const c_char,
    /// Where a call that changes something puts what it did, which
    /// kport_outcome_free() frees: *outcome is a new object on success, and
    /// NULL on failure. Like *err it is written in any case (but for a bad
    /// size) and never read, so what it held must be freed before, and threads
    /// that share options have NULL here; default: nobody wants to know.
    pub outcome: *mut *mut kport_outcome,
    /// How long a call may take, in milliseconds; default: 60000.
    pub timeout_ms: u32,
    /// KPORT_FORCE and the like, or-ed.
    pub flags: u32,
    /// The most connections at a time through a mapping; default: no bound.
    pub max_connections: u32,
    /// The most of them from one address; default: no bound.
    pub max_connections_per_source: u32,
    /// The most new connections from one address in rate_seconds, tcp only.
    /// Both or neither are set; default: no bound.
    pub rate_connections: u32,
    /// See rate_connections.
    pub rate_seconds: u32,
    /// The jail's number, so that a late stop hook of an earlier start cannot
    /// undo a later one; default: the kernel is asked, or it does not matter.
    pub jid: i32,
    /// The lowest and the highest of the ports of which one is chosen for
    /// "auto"; default: 49152 and 65535. Both or neither are set.
    pub auto_first: u16,
    /// See auto_first.
    pub auto_last: u16,
    /// How long kport_publish() waits for the jail to have an address, as one
    /// that asks DHCP for it, in milliseconds; it comes on top of timeout_ms;
    /// default: not at all.
    pub wait_ms: u32,
    /// 0.
    pub reserved: u32,
}

/// The version, for messages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

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

/// Reads ports as Kleene records them: a PublishedPort of Kleened's API, or a
/// list of them, as JSON.
///
/// The spec holds the addresses of the records as well: kport_publish() takes
/// them where options->addresses is NULL. On success *out is a new spec, to be
/// freed with kport_spec_free(); on failure it is NULL. Fails with
/// KPORT_ERR_SPEC for ports that cannot be published, such as a range from
/// high to low or ranges of different lengths, and with KPORT_ERR_ARGUMENT
/// for what is no record; the message names the record. Touches nothing
/// outside the process.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_parse_kleene(
    json: *const c_char,
    out: Option<&mut MaybeUninit<Option<Box<kport_spec>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises a NUL-terminated text or NULL.
        let json = unsafe { required(json, "json", kleene::MAX_TEXT) }?;
        let ports = kleene::parse(json)?;
        Ok(kport_spec { addresses: ports.addresses, ..kport_spec::new(ports.spec)? })
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
        let (options, jail) = unsafe { (CallerOptions::of_change(options)?, jail_name(jail)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        let request = options.request(jail, spec)?;
        options.change(Some(&request.jail), |publisher| publisher.publish(&request))
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
        let (options, jail) = unsafe { (CallerOptions::of_change(options)?, jail_name(jail)?) };
        options.change(Some(&jail), |publisher| publisher.unpublish(&jail, options.jid))
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
        let (options, jail) = unsafe { (CallerOptions::of_change(options)?, jail_name(jail)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        options.change(Some(&jail), |publisher| publisher.unpublish_some(&jail, options.jid, &spec.spec))
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
            (jail, CallerOptions::read(options)?)
        };
        let session = options.session()?;
        let listed = session.publisher(&Unobserved)?.list_with_counters(jail.as_ref())?;
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
        let options = unsafe { CallerOptions::of_change(options) }?;
        options.change(None, |publisher| publisher.restore())
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
        let options = unsafe { CallerOptions::of_change(options) }?;
        options.change(None, |publisher| publisher.gc())
    })
}

/// Makes the rules that kport_publish() would load, as pf.conf(5) text. Nothing
/// is loaded, and neither pf nor the record is asked.
///
/// On success *out is a new object, to be freed with kport_ruleset_free(); on
/// failure it is NULL. Fails with KPORT_ERR_UNAVAILABLE if options->addresses
/// is NULL, or if a mapping names no place and the host has no default route;
/// with KPORT_ERR_UNSUPPORTED for a host port "auto", or if the jail is on the
/// host's network; with KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_rules(
    jail: *const c_char,
    spec: Option<&kport_spec>,
    options: *const kport_options,
    out: Option<&mut MaybeUninit<Option<Box<kport_ruleset>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises NUL-terminated texts or NULL, and options as the header says.
        let (jail, options) = unsafe { (jail_name(jail)?, CallerOptions::read(options)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        kport_ruleset::new(&publisher::rules(&host::System, &options.request(jail, spec)?)?)
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

/// 1 if the call has changed pf, 0 if all was as it should be. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_changed(outcome: Option<&kport_outcome>) -> c_int {
    outcome.is_some_and(|outcome| outcome.changed).into()
}

/// How many connections (states of pf) the call has ended. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_ended(outcome: Option<&kport_outcome>) -> u64 {
    outcome.map_or(0, |outcome| outcome.ended)
}

/// The number of notes. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_notes(outcome: Option<&kport_outcome>) -> usize {
    outcome.map_or(0, |outcome| outcome.notes.len())
}

/// A note, counted from 0: what the call did not fail for, but an admin should
/// hear, such as a conflict that was forced, connections that live on, or a
/// record that was damaged. One line without a newline, as kport(8) prints it;
/// it lives as long as the outcome. NULL if there is no note i.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_note(outcome: Option<&kport_outcome>, i: usize) -> *const c_char {
    outcome.and_then(|outcome| outcome.notes.get(i)).map_or(ptr::null(), |note| note.as_ptr())
}

/// The number of rows. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_len(outcome: Option<&kport_outcome>) -> usize {
    outcome.map_or(0, |outcome| outcome.rows.len())
}

/// Fills in a row of what is published now, with the port that was chosen for
/// "auto"; size is sizeof(struct kport_entry) of the caller. i counts from 0.
/// Counters, since and jid are 0. Fails as kport_listing_get() does.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_outcome_get(
    outcome: Option<&kport_outcome>,
    i: usize,
    out: *mut kport_entry,
    size: usize,
) -> kport_status {
    let Some(row) = outcome.and_then(|o| o.rows.get(i)) else { return kport_status::KPORT_ERR_ARGUMENT };
    // SAFETY: the caller promises that out is NULL or has room for size bytes.
    unsafe { fill(out, size, row.entry()) }
}

/// Frees an outcome. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_free(outcome: Option<Box<kport_outcome>>) {
    drop(outcome);
}

/// The rules, a line for each, as pfctl(8) would read them. The text lives as
/// long as the object. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_ruleset_text(ruleset: Option<&kport_ruleset>) -> *const c_char {
    ruleset.map_or(ptr::null(), |ruleset| ruleset.text.as_ptr())
}

/// Frees the rules. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn kport_ruleset_free(ruleset: Option<Box<kport_ruleset>>) {
    drop(ruleset);
}

/// The status that the failed call returned. KPORT_OK for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_status(error: Option<&kport_error>) -> kport_status {
    error.map_or(kport_status::KPORT_OK, |e| e.error.kind().into())
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
