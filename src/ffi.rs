//! The C ABI. cbindgen generates the header include/kport.h from this file, with its comments: they are written for C
//! programmers.
//!
//! The types express the contract as far as possible: `Option<&T>` is a pointer that may be NULL,
//! `Option<&mut MaybeUninit<T>>` one to a variable that need not be initialised, `Option<Box<T>>` one that is owned.
//! Everything runs inside `guard`, so nothing unwinds into C. The modules have what the functions need: checked
//! input, output, the guard against panics.

#![allow(non_camel_case_types, unsafe_code)]
// "# Safety" headings would be copied to the header, which describes this itself
#![allow(clippy::missing_safety_doc)]
// the comments are for C: <table> and [address] are syntax of pf and of the grammar
#![allow(rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links)]

use std::ffi::{CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::{Duration, Instant};

use crate::container::kleene;
use crate::error::{Error, Kind};
use crate::publisher::{self, Unobserved};
use crate::session::Session;
use crate::spec::{self, Spec};
use crate::watch::Watcher;
use crate::{host, rule};

pub mod guard;
pub mod input;
mod output;

use guard::{give, guard};
use input::{Call, CallerOptions, jail_name, null, path, required};
use output::{Rows, c_text, fill};

/// The status that a call returns: KPORT_OK or the kind of failure, by what the
/// caller can do about it. The numbers never change, and are the exit statuses
/// of kport(8).
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum kport_status {
    /// Done.
    KPORT_OK = 0,
    /// An argument is NULL, too long, or not UTF-8: a mistake in the caller.
    KPORT_ERR_ARGUMENT = 1,
    /// The string does not follow the grammar; see kport_error_offset().
    KPORT_ERR_SPEC = 2,
    /// A port is used by another jail, by the host, or by another tool.
    KPORT_ERR_CONFLICT = 3,
    /// The process may not change the firewall or the records.
    KPORT_ERR_PERMISSION = 4,
    /// pf is disabled or missing, or does not evaluate the rules, or a property
    /// of the host or the jail is unknown.
    KPORT_ERR_UNAVAILABLE = 5,
    /// The lock or pf was busy until the time-out: try again.
    KPORT_ERR_BUSY = 6,
    /// A system call or pfctl(8) failed; see kport_error_errno().
    KPORT_ERR_SYSTEM = 7,
    /// Not possible for this jail, or unknown to this version.
    KPORT_ERR_UNSUPPORTED = 8,
    /// A defect in kport.
    KPORT_ERR_INTERNAL = 9,
}

/// Whether pf has what is recorded: the field state of struct kport_entry.
#[repr(i32)]
#[derive(Clone, Copy)]
pub enum kport_state {
    /// pf has what is recorded, and evaluates it.
    KPORT_LIVE = 1,
    /// Recorded, but missing or incomplete in pf: kport_restore() loads it.
    KPORT_MISSING = 2,
    /// In pf, but not recorded: kport_gc() removes it.
    KPORT_STALE = 3,
    /// pf has what is recorded, but is disabled, or its main ruleset does not
    /// call kport's anchors.
    KPORT_INERT = 4,
}

/// Publish even if a socket of the host or another tool's redirect has the
/// port. A port of another jail is still a conflict.
pub const KPORT_FORCE: u32 = 1;
/// Publish even if pf does not evaluate the rules at present.
pub const KPORT_ALLOW_INERT: u32 = 2;
/// Let the hosts of the reach list, including jails on the jail's own bridge,
/// also use the published port at the host's address.
pub const KPORT_HAIRPIN: u32 = 4;
/// Let the host itself, and the jails that share its network stack, use the
/// published port, at the host's address and at 127.0.0.1 or ::1.
pub const KPORT_HOST_ACCESS: u32 = 8;
/// Log the first packet of each connection to pflog0.
pub const KPORT_LOG: u32 = 16;
/// Do not use quick: rules after kport's anchor can still block the traffic.
pub const KPORT_NO_QUICK: u32 = 32;
/// Add to the ports that the jail has published, instead of replacing them. The
/// options of a call apply to its mappings.
pub const KPORT_ADD: u32 = 64;
/// The name is not that of a jail, but of another target: a guest of bhyve(8),
/// a host of the LAN. Needs addresses, and no jid. kport_gc() leaves it alone.
pub const KPORT_NO_JAIL: u32 = 128;
/// Let IPv6 clients use the ports of a jail that has an IPv4 address only: pf
/// of FreeBSD 15 translates the packets.
pub const KPORT_AF_TO: u32 = 512;

/// Replace the source of every connection to the ports with an address of the
/// interface that leads to the jail, so that the answers return through the
/// host whatever the jail's default route is.
pub const KPORT_MASQUERADE: u32 = 256;

/// For kport_list(): count the packets, bytes and states of each mapping, which
/// reads each rule. Other calls ignore it.
pub const KPORT_COUNTERS: u32 = 1024;

/// Every flag of a request, and the name of its option: that of [`publisher::Request::set`].
const FLAGS: [(u32, &str); 10] = [
    (KPORT_FORCE, "force"),
    (KPORT_ALLOW_INERT, "allow-inert"),
    (KPORT_HAIRPIN, "hairpin"),
    (KPORT_HOST_ACCESS, "host-access"),
    (KPORT_LOG, "log"),
    (KPORT_NO_QUICK, "no-quick"),
    (KPORT_ADD, "add"),
    (KPORT_NO_JAIL, "no-jail"),
    (KPORT_MASQUERADE, "masquerade"),
    (KPORT_AF_TO, "af-to"),
];

/// Port specs, parsed. Never changes: threads may share it for reading.
pub struct kport_spec {
    spec: Spec,
    text: CString,
    rows: Rows<kport_mapping>,
    /// The addresses in the jail unless options->addresses is set: Kleene's records have those of the container.
    addresses: Vec<IpAddr>,
}

/// A snapshot of what is published. Never changes: threads may share it for
/// reading.
pub struct kport_listing {
    rows: Rows<kport_entry>,
}

/// The outcome of a change, with notes for the administrator. Never changes:
/// threads may share it for reading.
pub struct kport_outcome {
    changed: bool,
    ended: u64,
    rows: Rows<kport_entry>,
    notes: Vec<CString>,
}

/// The rules of a publication. Never changes: threads may share it for reading.
pub struct kport_ruleset {
    text: CString,
}

/// Keeps what is published true: kport watch of kport(8), in the program's own
/// event loop. One thread may use it at a time.
pub struct kport_watch {
    watcher: Watcher,
    report: Option<CString>,
}

/// Why a call failed. Never changes: threads may share it for reading.
pub struct kport_error {
    error: Error,
    message: CString,
}

// as the header promises for threads
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<kport_spec>();
    shared::<kport_listing>();
    shared::<kport_outcome>();
    shared::<kport_ruleset>();
    shared::<kport_error>();
    const fn passed_on<T: Send>() {}
    passed_on::<kport_watch>();
};

/// One mapping of a spec. Pointers are valid until the spec is freed.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct kport_mapping {
    /// "em0", "192.0.2.1", "[2001:db8::1]" or "*"; NULL: the interface of the
    /// host's default route.
    pub place: *const c_char,
    /// The first port on the host; 0: a free one is chosen.
    pub host_port: u16,
    /// The first port in the jail.
    pub jail_port: u16,
    /// The number of consecutive ports, on the host and in the jail.
    pub count: u16,
    /// IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
    pub protocol: u8,
    /// 0.
    pub reserved: u8,
}

/// One published redirect, or a jail without a known one. Pointers are valid
/// until the listing or outcome is freed.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct kport_entry {
    /// The jail; NULL if the anchor is not recorded, and in the outcome of a
    /// call for all jails.
    pub jail: *const c_char,
    /// The anchor in pf, "kport/web"; NULL in the outcome of a call for all
    /// jails.
    pub anchor: *const c_char,
    /// The place on the host, as in struct kport_mapping; NULL if count is 0.
    pub place: *const c_char,
    /// The address in the jail; NULL if count is 0.
    pub address: *const c_char,
    /// Packets that the rules have passed since they were loaded, in both
    /// directions.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// States (connections) that the rules have created.
    pub states: u64,
    /// The time of publication, in seconds since 1970; 0: unknown.
    pub since: i64,
    /// The jid at the time of publication; 0: unknown.
    pub jid: i32,
    /// One of enum kport_state.
    pub state: i32,
    /// The first port on the host.
    pub host_port: u16,
    /// The first port in the jail.
    pub jail_port: u16,
    /// The number of consecutive ports; 0: no redirect of this anchor is known.
    pub count: u16,
    /// IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
}

/// Settings of a call. Zero in a field selects the default. Start from
/// KPORT_OPTIONS_INIT, which sets size; the library copies what it needs.
/// Lists are strings with white space between the items. A call uses only the
/// fields that concern it, but an invalid value in any field is an error.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct kport_options {
    /// sizeof(struct kport_options) of the caller.
    pub size: usize,
    /// "auto" (the default): on FreeBSD /dev/pf if the kernel has all that is
    /// needed, else pfctl(8); "sim" if the system has no pf. "native": /dev/pf,
    /// without child processes. "pfctl": pfctl(8). "sim": files, nothing is
    /// redirected. A named backend is never replaced with another.
    pub backend: *const c_char,
    /// The directory of the lock and the records; default: /var/run/kport.
    pub state_dir: *const c_char,
    /// The jail's addresses, one for each network, the preferred one first;
    /// default: read from the kernel. "inherit": the jail uses the host's
    /// network (then nothing can be published).
    pub addresses: *const c_char,
    /// The gateway interface; default: that of the default route.
    pub gateway: *const c_char,
    /// The reach list: interfaces and groups whose hosts may use the jail's own
    /// address and port; default: "bridge epair lo". "": none.
    pub reach: *const c_char,
    /// The sources that may use the ports from outside: networks, addresses and
    /// tables, as in "192.0.2.0/24 2001:db8::1 <trusted>"; default: all. "" is
    /// an error.
    pub sources: *const c_char,
    /// A variable for the outcome of a call that changes something: *outcome is
    /// a new object on success, to be freed with kport_outcome_free(), and NULL
    /// on failure. Like *err it is always written (except for a bad size) and
    /// never read, so free an old object before the call, and set NULL in
    /// options that threads share; default: the outcome is discarded.
    pub outcome: *mut *mut kport_outcome,
    /// The maximum time of a call, in milliseconds; default: 60000.
    pub timeout_ms: u32,
    /// The bitwise OR of KPORT_FORCE and the other flags.
    pub flags: u32,
    /// The maximum number of connections of a mapping at once; default: no
    /// limit.
    pub max_connections: u32,
    /// The maximum number of these from one address; default: no limit.
    pub max_connections_per_source: u32,
    /// The maximum number of new connections from one address in rate_seconds,
    /// tcp only. Set both or neither; default: no limit.
    pub rate_connections: u32,
    /// See rate_connections.
    pub rate_seconds: u32,
    /// The jid, so that a late stop hook of an earlier start cannot undo a later
    /// one; default: read from the kernel to publish, any jid to unpublish.
    pub jid: i32,
    /// The lowest and the highest port of the range from which "auto" chooses;
    /// default: 49152 and 65535. Set both or neither.
    pub auto_first: u16,
    /// See auto_first.
    pub auto_last: u16,
    /// The maximum time that kport_publish() waits until the jail has an address
    /// (DHCP, SLAAC), in milliseconds; added to timeout_ms; default: does not
    /// wait.
    pub wait_ms: u32,
    /// 0.
    pub reserved: u32,
    /// The routers through which connections are answered that come in on an
    /// interface that is not the default route's, one of each family at most,
    /// as in "203.0.113.254 fe80::1"; default: those of the host's routes.
    /// "none": the route to the client decides.
    pub reply_to: *const c_char,
    /// Networks, as in "192.168.1.0/24 2001:db8::/64", from which an address that
    /// a jail with its own network stack reports is believed, besides those of
    /// the host's bridges and epairs: the jail's address is one of the LAN, from
    /// DHCP; default: none. A network in addresses means the same.
    pub trust: *const c_char,
    /// The families of the published ports: "inet", "inet6" or "inet inet6"; each
    /// is waited for, and its absence is an error; default: those of the jail's
    /// addresses.
    pub families: *const c_char,
}

/// The version, for messages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reads port specs, such as "8080:80/udp em1:443:8443".
///
/// On success *out is a new spec, to be freed with kport_spec_free(); on
/// failure it is NULL. Fails with KPORT_ERR_SPEC if a spec is invalid, and
/// then kport_error_offset() returns the place; with KPORT_ERR_ARGUMENT if
/// text or out is NULL, or text is too long or not UTF-8. Uses nothing
/// outside the process.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_parse(
    text: *const c_char, out: Option<&mut MaybeUninit<Option<Box<kport_spec>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises a NUL-terminated string or NULL.
        let text = unsafe { required(text, "text", spec::MAX_TEXT) }?;
        kport_spec::new(spec::parse(text)?)
    })
}

/// Reads the ports of Kleene's records: a PublishedPort of Kleened's API, or a
/// list of them, as JSON.
///
/// The spec also holds the addresses of the records: kport_publish() uses them
/// if options->addresses is NULL. On success *out is a new spec, to be
/// freed with kport_spec_free(); on failure it is NULL. Fails with
/// KPORT_ERR_SPEC for ports that cannot be published, such as a range from
/// high to low or ranges of different lengths, and with KPORT_ERR_ARGUMENT
/// if json is not a record; the message names the record. Uses nothing
/// outside the process.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_parse_kleene(
    json: *const c_char, out: Option<&mut MaybeUninit<Option<Box<kport_spec>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises a NUL-terminated string or NULL.
        let json = unsafe { required(json, "json", kleene::MAX_TEXT) }?;
        let ports = kleene::parse(json)?;
        Ok(kport_spec { addresses: ports.addresses, ..kport_spec::new(ports.spec)? })
    })
}

/// Publishes all mappings of a spec for a jail. They replace the ports that the
/// jail had published; on failure nothing is changed. Publishing the same ports
/// again changes nothing and succeeds.
///
/// The caller keeps the spec. options may be NULL. Fails with
/// KPORT_ERR_CONFLICT if one of the ports is in use, KPORT_ERR_UNAVAILABLE if
/// pf does not evaluate the rules or the jail's address is unknown,
/// KPORT_ERR_UNSUPPORTED if the jail uses the host's network,
/// KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
/// KPORT_ERR_ARGUMENT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_publish(
    jail: *const c_char, spec: Option<&kport_spec>, options: *const kport_options,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises NUL-terminated strings or NULL, and options as the header says.
        let (options, jail) = unsafe { (CallerOptions::read(options, Call::Changes)?, jail_name(jail)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        let request = options.request(jail, spec)?;
        options.change(Some(&request.jail), |publisher| publisher.publish(&request))
    })
}

/// Removes all published ports of a jail, and ends their connections. It is not
/// an error if there are none.
///
/// With options->jid, ports of a later start of the jail stay. options may be
/// NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
/// KPORT_ERR_ARGUMENT; even then as much as possible is removed, and the call
/// can be repeated.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_unpublish(
    jail: *const c_char, options: *const kport_options, err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises a NUL-terminated string or NULL, and options as the header says.
        let (options, jail) = unsafe { (CallerOptions::read(options, Call::Changes)?, jail_name(jail)?) };
        options.change(Some(&jail), |publisher| publisher.unpublish(&jail, options.jid))
    })
}

/// Removes the given mappings of a jail, and ends their connections. The other
/// published ports stay.
///
/// A mapping without a place is that of the host's default route, and "auto"
/// is any host port; it is not an error if a mapping is not published. With
/// options->jid, ports of a later start of the jail stay. options may be NULL.
/// Fails like kport_unpublish(), and with KPORT_ERR_UNAVAILABLE if there is no
/// pf to load the other ports.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_unpublish_some(
    jail: *const c_char, spec: Option<&kport_spec>, options: *const kport_options,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises a NUL-terminated string or NULL, and options as the header says.
        let (options, jail) = unsafe { (CallerOptions::read(options, Call::Changes)?, jail_name(jail)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        options.change(Some(&jail), |publisher| publisher.unpublish_some(&jail, options.jid, &spec.spec))
    })
}

/// Lists the published ports of a jail, or of all jails if jail is NULL: a row
/// for each redirect, sorted by anchor.
///
/// On success *out is a new listing, to be freed with kport_listing_free();
/// on failure it is NULL. It is not an error if nothing is published. Of the
/// counters, packets, bytes and states are 0 unless options->flags has
/// KPORT_COUNTERS. options may be NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_UNAVAILABLE,
/// KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_list(
    jail: *const c_char, options: *const kport_options, out: Option<&mut MaybeUninit<Option<Box<kport_listing>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises a NUL-terminated string or NULL, and options as the header says.
        let (jail, options) = unsafe {
            let jail = if jail.is_null() { None } else { Some(jail_name(jail)?) };
            (jail, CallerOptions::read(options, Call::Reads)?)
        };
        let session = options.session()?;
        let publisher = session.publisher(&Unobserved)?;
        kport_listing::new(&match options.counters {
            true => publisher.list_with_counters(jail.as_ref())?,
            false => publisher.list(jail.as_ref())?,
        })
    })
}

/// Loads the recorded rules that are missing in pf, for all jails, as after
/// "pfctl -F all". Rules that pf has are not changed.
///
/// options may be NULL. Fails with KPORT_ERR_UNAVAILABLE if there is no pf,
/// KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
/// KPORT_ERR_ARGUMENT; a failure for one jail does not stop the others, and
/// the call can be repeated.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_restore(
    options: *const kport_options, err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises options as the header says.
        let options = unsafe { CallerOptions::read(options, Call::Changes) }?;
        options.change(None, |publisher| publisher.restore())
    })
}

/// Removes the ports of jails that are gone, and anchors of kport that are not
/// recorded.
///
/// options may be NULL. Fails like kport_restore().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_gc(
    options: *const kport_options, err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    guard(err, || {
        // SAFETY: the caller promises options as the header says.
        let options = unsafe { CallerOptions::read(options, Call::Changes) }?;
        options.change(None, |publisher| publisher.gc())
    })
}

/// Creates the rules that kport_publish() would load, as pf.conf(5) text.
/// Nothing is loaded, and neither pf nor the records are read.
///
/// On success *out is a new object, to be freed with kport_ruleset_free(); on
/// failure it is NULL. Fails with KPORT_ERR_UNAVAILABLE if options->addresses
/// is NULL, or if a mapping has no place and the host has no default route;
/// with KPORT_ERR_UNSUPPORTED for a host port "auto", or if the jail uses the
/// host's network; with KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_rules(
    jail: *const c_char, spec: Option<&kport_spec>, options: *const kport_options,
    out: Option<&mut MaybeUninit<Option<Box<kport_ruleset>>>>, err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises NUL-terminated strings or NULL, and options as the header says.
        let (jail, options) = unsafe { (jail_name(jail)?, CallerOptions::read(options, Call::Reads)?) };
        let spec = spec.ok_or_else(|| null("spec"))?;
        let rules = publisher::rules(&host::System, &options.request(jail, spec)?)?;
        Ok(kport_ruleset { text: c_text(rule::text(&rules))? })
    })
}

/// Begins to keep what is published true, as kport watch of kport(8) does:
/// what kport.conf(5), the records and the running jails say.
///
/// config is the kport.conf(5); NULL: /usr/local/etc/kport.conf, which need not
/// exist. Of options, which may be NULL, backend, state_dir and timeout_ms are
/// used; the time-out is that of one transaction. On success *out is a new
/// watch, to be freed with kport_watch_free(); on failure it is NULL. Nothing is
/// changed before the first kport_watch_next(). Fails with
/// KPORT_ERR_PERMISSION, KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT, and with
/// KPORT_ERR_UNSUPPORTED if the system reports no events.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_watch_open(
    config: *const c_char, options: *const kport_options, out: Option<&mut MaybeUninit<Option<Box<kport_watch>>>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    give(out, err, || {
        // SAFETY: the caller promises a NUL-terminated string or NULL, and options as the header says.
        let (config, options) = unsafe { (path(config, "config")?, CallerOptions::read(options, Call::Reads)?) };
        // what is wrong with the settings is an error now
        options.session()?.publisher(&Unobserved)?;
        let settings = options.settings;
        let open = Box::new(move || Session::new(&settings, Box::new(host::System)));
        let watcher = Watcher::new(open, host::events()?, Box::new(Instant::now), config);
        Ok(kport_watch { watcher, report: None })
    })
}

/// Returns a descriptor for poll(2) or kqueue(2): it is readable when
/// kport_watch_next() has something to do. It belongs to the watch: only wait
/// for it. -1 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_watch_descriptor(watch: Option<&kport_watch>) -> c_int {
    watch.map_or(-1, |watch| watch.watcher.descriptor().as_raw_fd())
}

/// Does what there is to do now, at most for one jail, without waiting for
/// events; it can wait for a lock and for pf.
///
/// *report is one line of JSON about what was done, as kport watch --json
/// prints it, valid until the next call; NULL if there is nothing to report:
/// then wait for the descriptor. What fails for a jail is reported, and tried
/// again. Fails with KPORT_ERR_SYSTEM if there will be no more events, and with
/// KPORT_ERR_ARGUMENT if watch or report is NULL.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_watch_next(
    watch: Option<&mut kport_watch>, report: Option<&mut MaybeUninit<*const c_char>>,
    err: Option<&mut MaybeUninit<Option<Box<kport_error>>>>,
) -> kport_status {
    let Some(report) = report else { return guard(err, || Err(null("report"))) };
    let text = report.write(ptr::null());
    guard(err, || {
        let watch = watch.ok_or_else(|| null("watch"))?;
        let done = watch.watcher.step(Duration::ZERO)?;
        // JSON has no NUL
        watch.report = done.and_then(|report| CString::new(report.json()).ok());
        *text = watch.report.as_ref().map_or(ptr::null(), |report| report.as_ptr());
        Ok(())
    })
}

/// Reads kport.conf(5) again, and applies it, by the next kport_watch_next().
/// The descriptor does not tell. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn kport_watch_reload(watch: Option<&mut kport_watch>) {
    watch.into_iter().for_each(|watch| watch.watcher.reload());
}

/// Ends a watch, and leaves everything that is published. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn kport_watch_free(watch: Option<Box<kport_watch>>) {
    drop(watch);
}

/// Returns the spec with every field, one mapping for each protocol. The string
/// is valid until the spec is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_spec_text(spec: Option<&kport_spec>) -> *const c_char {
    spec.map_or(ptr::null(), |spec| spec.text.as_ptr())
}

/// Returns the number of mappings. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_spec_len(spec: Option<&kport_spec>) -> usize {
    spec.map_or(0, |spec| spec.spec.mappings().len())
}

/// Fills in a mapping; size is sizeof(struct kport_mapping) of the caller.
/// i counts from 0. Fails with KPORT_ERR_ARGUMENT, and does not write *out, if
/// there is no mapping i, or spec or out is NULL, or size is 0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_spec_get(
    spec: Option<&kport_spec>, i: usize, out: *mut kport_mapping, size: usize,
) -> kport_status {
    // SAFETY: the caller promises that out is NULL or has room for size bytes.
    unsafe { fill(out, size, spec.and_then(|spec| spec.rows.all.get(i))) }
}

/// Frees a spec. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn kport_spec_free(spec: Option<Box<kport_spec>>) {
    drop(spec);
}

/// Returns the number of rows. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_listing_len(listing: Option<&kport_listing>) -> usize {
    listing.map_or(0, |listing| listing.rows.all.len())
}

/// Fills in a row; size is sizeof(struct kport_entry) of the caller. i counts
/// from 0. Fails with KPORT_ERR_ARGUMENT, and does not write *out, if there is
/// no row i, or listing or out is NULL, or size is 0.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_listing_get(
    listing: Option<&kport_listing>, i: usize, out: *mut kport_entry, size: usize,
) -> kport_status {
    // SAFETY: the caller promises that out is NULL or has room for size bytes.
    unsafe { fill(out, size, listing.and_then(|listing| listing.rows.all.get(i))) }
}

/// Frees a listing. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn kport_listing_free(listing: Option<Box<kport_listing>>) {
    drop(listing);
}

/// Returns 1 if the call has changed pf, 0 if no change was needed. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_changed(outcome: Option<&kport_outcome>) -> c_int {
    outcome.is_some_and(|outcome| outcome.changed).into()
}

/// Returns the number of connections (states of pf) that the call has ended. 0
/// for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_ended(outcome: Option<&kport_outcome>) -> u64 {
    outcome.map_or(0, |outcome| outcome.ended)
}

/// Returns the number of notes. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_notes(outcome: Option<&kport_outcome>) -> usize {
    outcome.map_or(0, |outcome| outcome.notes.len())
}

/// Returns note i, counted from 0. A note concerns the administrator, but is not
/// a failure: a conflict that was overridden, connections that continue, or a
/// damaged record. One line without a newline, as kport(8) prints it, valid
/// until the outcome is freed. NULL if there is no note i.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_note(outcome: Option<&kport_outcome>, i: usize) -> *const c_char {
    outcome.and_then(|outcome| outcome.notes.get(i)).map_or(ptr::null(), |note| note.as_ptr())
}

/// Returns the number of rows. 0 for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_len(outcome: Option<&kport_outcome>) -> usize {
    outcome.map_or(0, |outcome| outcome.rows.all.len())
}

/// Fills in a row of the ports that are now published, with the port that was
/// chosen for "auto"; size is sizeof(struct kport_entry) of the caller. i
/// counts from 0. Counters, since and jid are 0. Fails like
/// kport_listing_get().
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kport_outcome_get(
    outcome: Option<&kport_outcome>, i: usize, out: *mut kport_entry, size: usize,
) -> kport_status {
    // SAFETY: the caller promises that out is NULL or has room for size bytes.
    unsafe { fill(out, size, outcome.and_then(|outcome| outcome.rows.all.get(i))) }
}

/// Frees an outcome. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn kport_outcome_free(outcome: Option<Box<kport_outcome>>) {
    drop(outcome);
}

/// Returns the rules, one per line, as pfctl(8) reads them. The string is valid
/// until the object is freed. NULL for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_ruleset_text(ruleset: Option<&kport_ruleset>) -> *const c_char {
    ruleset.map_or(ptr::null(), |ruleset| ruleset.text.as_ptr())
}

/// Frees the rules. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn kport_ruleset_free(ruleset: Option<Box<kport_ruleset>>) {
    drop(ruleset);
}

/// Returns the status of the failed call. KPORT_OK for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_status(error: Option<&kport_error>) -> kport_status {
    error.map_or(kport_status::KPORT_OK, |e| e.error.kind().into())
}

/// Returns what was found and what to do, on one line without a newline. The
/// string is valid until the error is freed. "" for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_message(error: Option<&kport_error>) -> *const c_char {
    error.map_or(c"".as_ptr(), |e| e.message.as_ptr())
}

/// Returns the errno of the system call that failed, or 0 if none failed. 0 for
/// NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_errno(error: Option<&kport_error>) -> c_int {
    error.and_then(|e| e.error.errno()).unwrap_or(0)
}

/// Returns the offset of the error, in bytes from 0, in the string given to
/// kport_parse(), or in the string of options that the message names. SIZE_MAX
/// if the error does not concern a place in a string, and for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_offset(error: Option<&kport_error>) -> usize {
    error.and_then(|e| e.error.offset()).unwrap_or(usize::MAX)
}

/// Frees an error. NULL is ignored.
#[unsafe(no_mangle)]
pub extern "C" fn kport_error_free(error: Option<Box<kport_error>>) {
    drop(error);
}

/// Returns a short description of a status, or of any other number. Never NULL;
/// must not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn kport_status_text(status: i32) -> *const c_char {
    let kind = Kind::ALL.into_iter().find(|kind| kind.number() == status);
    let other = if status == 0 { c"done" } else { c"unknown status" };
    kind.map_or(other, Kind::c_text).as_ptr()
}

/// Returns the version of the running library, "0.1.0"; KPORT_VERSION is that of
/// the header. Never NULL; must not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn kport_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
