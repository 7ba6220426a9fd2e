//! The C functions with any strings, sizes and numbers, in any order. Pointers are valid, as the header requires; the firewall is
//! the simulator.

#![no_main]

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use kport::ffi::*;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Given<'a> {
    /// Bytes after those of kport_options; `size` includes some of them.
    tail: &'a [u8],
    size: Size,
    addresses: Text<'a>,
    gateway: Text<'a>,
    reach: Text<'a>,
    sources: Text<'a>,
    reply_to: Text<'a>,
    trust: Text<'a>,
    families: Text<'a>,
    numbers: [u32; 6],
    jid: i32,
    auto: (u16, u16),
    reserved: u32,
}

/// A string: a valid one, so that a call gets far, or any.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Text<'a> {
    Null,
    Good(u8),
    Any(&'a [u8]),
}

const JAILS: &[&str] = &["web", "db", "_odd name", "7"];
const SPECS: &[&str] = &["8080:80", "em0:1-100:1/udp 443", "*:auto:80", "[fd00::1]:53:53/tcp,udp"];
const ADDRESSES: &[&str] = &["10.0.0.2", "fd00::2 10.0.0.2", "inherit", ""];
const INTERFACES: &[&str] = &["em0", "lo0", ""];
const REACHES: &[&str] = &["", "bridge", "lo vm0 wg0"];
const ROUTERS: &[&str] = &["none", "192.0.2.254 2001:db8::fe", ""];
const NETWORKS: &[&str] = &["192.168.1.0/24 2001:db8::/64", ""];
const FAMILIES: &[&str] = &["inet", "inet inet6", ""];
const SOURCES: &[&str] = &["192.0.2.0/24", "<trusted> 2001:db8::1", ""];

/// The size of the first version of kport_options.
const FIRST_SIZE: usize = std::mem::offset_of!(kport_options, reply_to);

#[derive(Arbitrary, Debug)]
enum Size {
    Right,
    /// That of the first version, which ended before `reply_to`.
    First,
    Zero,
    Absurd(usize),
}

#[derive(Arbitrary, Debug)]
enum Call<'a> {
    Publish { jail: Text<'a>, specs: Text<'a>, given: Option<Given<'a>> },
    Unpublish { jail: Text<'a>, given: Option<Given<'a>> },
    List { jail: Text<'a>, given: Option<Given<'a>> },
    Restore { given: Given<'a> },
    Gc { given: Given<'a> },
    Rules { jail: Text<'a>, specs: Text<'a>, given: Option<Given<'a>> },
    StatusText(i32),
}

type Slot<T> = MaybeUninit<Option<Box<T>>>;

/// Strings up to their first NUL, which live as long as the calls that use them.
#[derive(Default)]
struct Texts(Vec<CString>);

impl Texts {
    fn put(&mut self, text: Text<'_>, good: &[&str]) -> *const c_char {
        let bytes = match text {
            Text::Null => return ptr::null(),
            Text::Good(i) => good[usize::from(i) % good.len()].as_bytes(),
            Text::Any(bytes) => bytes,
        };
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        self.0.push(CString::new(&bytes[..end]).unwrap());
        self.0.last().unwrap().as_ptr()
    }
}

static STATE: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// The struct and its tail, aligned.
struct Options(Vec<u64>);

/// The outcome of a change; the variable is never read before.
struct Outcome(*mut kport_outcome);

impl Outcome {
    fn new() -> Outcome {
        Outcome(ptr::without_provenance_mut(8))
    }

    /// Reads all of it. Invalid options leave the variable unchanged.
    fn check(self, succeeded: bool, size_was_one: bool) {
        if !size_was_one {
            assert_eq!(self.0, ptr::without_provenance_mut(8));
            return;
        }
        assert_eq!(!self.0.is_null(), succeeded);
        // SAFETY: NULL, or a new object of the library's.
        let outcome = (!self.0.is_null()).then(|| unsafe { Box::from_raw(self.0) });
        let o = outcome.as_deref();
        for i in 0..=kport_outcome_notes(o) {
            let note = kport_outcome_note(o, i);
            assert_eq!(note.is_null(), i == kport_outcome_notes(o));
            // SAFETY: a text of an outcome that is still there.
            assert!(note.is_null() || !unsafe { CStr::from_ptr(note) }.to_str().unwrap().contains(char::is_control));
        }
        for i in 0..=kport_outcome_len(o) {
            let mut entry = MaybeUninit::<kport_entry>::uninit();
            // SAFETY: the entry has that size.
            let status = unsafe { kport_outcome_get(o, i, entry.as_mut_ptr(), size_of::<kport_entry>()) };
            assert_eq!(status as i32 == 0, i < kport_outcome_len(o));
        }
        kport_outcome_free(outcome);
    }
}

impl Options {
    /// Whether the library can find its fields.
    fn has_size(&self) -> bool {
        // SAFETY: the size is the first field.
        let size = unsafe { self.0.as_ptr().cast::<usize>().read() };
        (FIRST_SIZE..=4096).contains(&size)
    }

    /// The same, with a variable for what a change did.
    fn with(mut self, outcome: &mut Outcome) -> Options {
        // SAFETY: the memory begins with a whole struct.
        unsafe { (*self.0.as_mut_ptr().cast::<kport_options>()).outcome = &raw mut outcome.0 };
        self
    }

    fn new(given: &Given<'_>, texts: &mut Texts) -> Options {
        let known = size_of::<kport_options>();
        let tail = &given.tail[..given.tail.len().min(4096)];
        let [timeout_ms, flags, max_connections, max_connections_per_source, rate_connections, rate_seconds] =
            given.numbers;
        let options = kport_options {
            size: match given.size {
                Size::Right => known + tail.len(),
                Size::First => FIRST_SIZE,
                Size::Zero => 0,
                // never a size with more bytes than there are
                Size::Absurd(size) if size > 4096 || size < FIRST_SIZE => size,
                Size::Absurd(_) => usize::MAX,
            },
            backend: texts.put(Text::Any(b"sim"), &[]),
            state_dir: texts.put(Text::Any(STATE.path().as_os_str().as_encoded_bytes()), &[]),
            addresses: texts.put(given.addresses, ADDRESSES),
            gateway: texts.put(given.gateway, INTERFACES),
            reach: texts.put(given.reach, REACHES),
            sources: texts.put(given.sources, SOURCES),
            outcome: ptr::null_mut(),
            timeout_ms: timeout_ms | 1024,
            flags,
            max_connections,
            max_connections_per_source,
            rate_connections,
            rate_seconds,
            jid: given.jid,
            auto_first: given.auto.0,
            auto_last: given.auto.1,
            // an address is given, or there is no jail to wait for: see WAIT
            wait_ms: 0,
            reserved: given.reserved,
            reply_to: texts.put(given.reply_to, ROUTERS),
            trust: texts.put(given.trust, NETWORKS),
            families: texts.put(given.families, FAMILIES),
        };
        let mut memory = vec![0_u64; (known + tail.len()).div_ceil(8)];
        // SAFETY: the memory has room for both.
        unsafe {
            memory.as_mut_ptr().cast::<kport_options>().write(options);
            memory.as_mut_ptr().cast::<u8>().add(known).copy_from_nonoverlapping(tail.as_ptr(), tail.len());
        }
        Options(memory)
    }
}

fn pointer(options: &Option<Options>) -> *const kport_options {
    options.as_ref().map_or(ptr::null(), |options| options.0.as_ptr().cast())
}

/// What the header promises for every failure and every success.
fn sound(status: kport_status, err: Slot<kport_error>) -> bool {
    // SAFETY: every call writes it.
    let error = unsafe { err.assume_init() };
    let e = error.as_deref();
    assert_eq!(kport_error_status(e) as i32, status as i32);
    assert_eq!(error.is_none(), status as i32 == 0);
    // SAFETY: a text of an error that is still there.
    let message = unsafe { CStr::from_ptr(kport_error_message(e)) }.to_str().unwrap();
    assert!(!message.contains(char::is_control), "{message}");
    assert_ne!(status as i32, 9, "{message}");
    kport_error_free(error);
    status as i32 == 0
}

fn parse(texts: &mut Texts, specs: Text<'_>) -> Option<Box<kport_spec>> {
    let (mut out, mut err) = (Slot::uninit(), Slot::uninit());
    // SAFETY: a NUL-terminated text, or NULL.
    let status = unsafe { kport_parse(texts.put(specs, SPECS), Some(&mut out), Some(&mut err)) };
    // SAFETY: the call writes it.
    let spec = unsafe { out.assume_init() };
    assert_eq!(sound(status, err), spec.is_some());
    let length = kport_spec_len(spec.as_deref());
    let mut mapping = MaybeUninit::<kport_mapping>::uninit();
    for i in 0..=length {
        // SAFETY: the mapping has that size.
        let status = unsafe { kport_spec_get(spec.as_deref(), i, mapping.as_mut_ptr(), size_of::<kport_mapping>()) };
        assert_eq!(status as i32 == 0, i < length);
    }
    spec
}

fn list(texts: &mut Texts, jail: Text<'_>, options: *const kport_options) -> usize {
    let (mut out, mut err) = (Slot::uninit(), Slot::uninit());
    // SAFETY: texts and options as the header requires.
    let status = unsafe { kport_list(texts.put(jail, JAILS), options, Some(&mut out), Some(&mut err)) };
    // SAFETY: the call writes it.
    let listing = unsafe { out.assume_init() };
    assert_eq!(sound(status, err), listing.is_some());
    let length = kport_listing_len(listing.as_deref());
    for i in 0..=length {
        let mut entry = MaybeUninit::<kport_entry>::uninit();
        // SAFETY: the entry has that size, and is filled in if the call succeeds.
        unsafe {
            let status = kport_listing_get(listing.as_deref(), i, entry.as_mut_ptr(), size_of::<kport_entry>());
            assert_eq!(status as i32 == 0, i < length);
            if i < length {
                assert!(!CStr::from_ptr(entry.assume_init().anchor).is_empty());
            }
        }
    }
    kport_listing_free(listing);
    length
}

fuzz_target!(|calls: Vec<Call<'_>>| {
    let mut texts = Texts::default();
    let no_options = Given {
        tail: &[],
        size: Size::Right,
        addresses: Text::Null,
        gateway: Text::Null,
        reach: Text::Null,
        sources: Text::Null,
        reply_to: Text::Null,
        trust: Text::Null,
        families: Text::Null,
        numbers: [0; 6],
        jid: 0,
        auto: (0, 0),
        reserved: 0,
    };
    let defaults = Some(Options::new(&no_options, &mut texts));
    for call in calls.into_iter().take(8) {
        let mut err = Slot::uninit();
        // with NULL for options, it would use the state directory of this machine
        let options = |given: Option<Given<'_>>, texts: &mut Texts| Some(Options::new(given.as_ref()?, texts));
        match call {
            Call::Publish { jail, specs, given } => {
                let spec = parse(&mut texts, specs);
                let mut outcome = Outcome::new();
                let options = Options::new(given.as_ref().unwrap_or(&no_options), &mut texts).with(&mut outcome);
                let jail = texts.put(jail, JAILS);
                // SAFETY: texts and options as the header requires.
                let status = unsafe { kport_publish(jail, spec.as_deref(), options.0.as_ptr().cast(), Some(&mut err)) };
                let published = sound(status, err);
                outcome.check(published, options.has_size());
                if published {
                    assert!(list(&mut texts, Text::Null, pointer(&defaults)) > 0);
                    let mut err = Slot::uninit();
                    // SAFETY: as above.
                    let status = unsafe { kport_unpublish(jail, pointer(&defaults), Some(&mut err)) };
                    assert!(sound(status, err));
                }
                kport_spec_free(spec);
            }
            Call::Unpublish { jail, given } => {
                let mut outcome = Outcome::new();
                let options = Options::new(given.as_ref().unwrap_or(&no_options), &mut texts).with(&mut outcome);
                let jail = texts.put(jail, JAILS);
                // SAFETY: as above.
                let status = unsafe { kport_unpublish(jail, options.0.as_ptr().cast(), Some(&mut err)) };
                outcome.check(sound(status, err), options.has_size());
            }
            Call::Rules { jail, specs, given } => {
                let spec = parse(&mut texts, specs);
                let options = options(given, &mut texts);
                let options = if options.is_some() { &options } else { &defaults };
                let jail = texts.put(jail, JAILS);
                let mut out = Slot::uninit();
                // SAFETY: as above.
                let status =
                    unsafe { kport_rules(jail, spec.as_deref(), pointer(options), Some(&mut out), Some(&mut err)) };
                // SAFETY: the call writes it.
                let ruleset = unsafe { out.assume_init() };
                assert_eq!(sound(status, err), ruleset.is_some());
                assert_eq!(kport_ruleset_text(ruleset.as_deref()).is_null(), ruleset.is_none());
                kport_ruleset_free(ruleset);
                kport_spec_free(spec);
            }
            Call::List { jail, given } => {
                let options = options(given, &mut texts);
                list(&mut texts, jail, pointer(if options.is_some() { &options } else { &defaults }));
            }
            Call::Restore { given } => {
                let options = options(Some(given), &mut texts);
                // SAFETY: as above.
                sound(unsafe { kport_restore(pointer(&options), Some(&mut err)) }, err);
            }
            Call::Gc { given } => {
                let options = options(Some(given), &mut texts);
                // SAFETY: as above.
                sound(unsafe { kport_gc(pointer(&options), Some(&mut err)) }, err);
            }
            Call::StatusText(status) => {
                // SAFETY: a static text.
                assert!(!unsafe { CStr::from_ptr(kport_status_text(status)) }.is_empty());
            }
        }
    }
});
