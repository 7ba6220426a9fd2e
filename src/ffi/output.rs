//! The output for C: the objects with their strings, and structs of any version.

use std::ffi::{CString, c_char};
use std::ptr;

use super::{
    kport_entry, kport_error, kport_listing, kport_mapping, kport_outcome, kport_spec, kport_state, kport_status,
};
use crate::error::{Error, Kind, Result, printable};
use crate::name::JailName;
use crate::net::Family;
use crate::pf::Counters;
use crate::publication::Redirect;
use crate::publisher::{Listed, Liveness, Outcome};
use crate::spec::{HostPorts, Spec};

/// The maximum size of any struct, also in later versions: a larger size is an error.
pub(super) const STRUCT_MAX_SIZE: usize = 4096;

impl From<Kind> for kport_status {
    fn from(kind: Kind) -> kport_status {
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
}

/// Structs for C, and the texts that they point to.
#[derive(Default)]
pub(super) struct Rows<T> {
    pub(super) all: Vec<T>,
    texts: Vec<CString>,
}

// SAFETY: the entries point to the texts alone, which live as long and do not change.
unsafe impl Send for Rows<kport_entry> {}
// SAFETY: likewise.
unsafe impl Sync for Rows<kport_entry> {}
// SAFETY: likewise.
unsafe impl Send for Rows<kport_mapping> {}
// SAFETY: likewise.
unsafe impl Sync for Rows<kport_mapping> {}

impl<T> Rows<T> {
    /// A text that lives as long as the rows; NULL for `None`.
    fn text(&mut self, text: Option<impl Into<Vec<u8>>>) -> Result<*const c_char> {
        let Some(text) = text else { return Ok(ptr::null()) };
        self.texts.push(c_text(text)?);
        Ok(self.texts.last().map_or(ptr::null(), |text| text.as_ptr()))
    }
}

impl Rows<kport_entry> {
    /// Adds a redirect of a jail.
    fn add(&mut self, jail: kport_entry, redirect: &Redirect, counters: &Counters) -> Result<()> {
        let entry = kport_entry {
            place: self.text(Some(redirect.place.to_string()))?,
            address: self.text(Some(redirect.target.to_string()))?,
            packets: counters.packets,
            bytes: counters.bytes,
            states: counters.states,
            host_port: redirect.host.first(),
            jail_port: redirect.jail.first(),
            count: redirect.host.count(),
            protocol: redirect.protocol.number(),
            family: if redirect.family() == Family::Inet { 4 } else { 6 },
            ..jail
        };
        self.all.push(entry);
        Ok(())
    }
}

impl kport_spec {
    pub(super) fn new(spec: Spec) -> Result<kport_spec> {
        let mut rows = Rows::default();
        for mapping in spec.mappings() {
            let mapping = kport_mapping {
                place: rows.text(mapping.place.map(|place| place.to_string()))?,
                host_port: match mapping.host {
                    HostPorts::Fixed(range) => range.first(),
                    HostPorts::Auto => 0,
                },
                jail_port: mapping.jail.first(),
                count: mapping.jail.count(),
                protocol: mapping.protocol.number(),
                reserved: 0,
            };
            rows.all.push(mapping);
        }
        Ok(kport_spec { text: c_text(spec.to_string())?, spec, rows, addresses: vec![] })
    }
}

impl kport_listing {
    pub(super) fn new(listed: &[Listed]) -> Result<kport_listing> {
        let mut rows = Rows::default();
        for listed in listed {
            let state = match listed.liveness {
                Liveness::Live => kport_state::KPORT_LIVE,
                Liveness::Inert => kport_state::KPORT_INERT,
                Liveness::Missing => kport_state::KPORT_MISSING,
                Liveness::Stale => kport_state::KPORT_STALE,
            };
            let jail = kport_entry {
                jail: rows.text(listed.jail.as_ref().map(JailName::as_str))?,
                anchor: rows.text(Some(listed.anchor.path()))?,
                since: listed.since.map_or(0, |since| i64::try_from(since).unwrap_or(i64::MAX)),
                jid: listed.jid.unwrap_or(0),
                state: state as i32,
                ..kport_entry::default()
            };
            if listed.redirects.is_empty() {
                rows.all.push(jail);
            }
            listed.redirects.iter().try_for_each(|(redirect, counters)| rows.add(jail, redirect, counters))?;
        }
        Ok(kport_listing { rows })
    }
}

impl kport_outcome {
    /// The outcome of a change of one jail, or of all.
    pub(super) fn new(jail: Option<&JailName>, outcome: &Outcome) -> Result<kport_outcome> {
        let mut rows = Rows::default();
        let jail = kport_entry {
            jail: rows.text(jail.map(JailName::as_str))?,
            anchor: rows.text(jail.map(|jail| jail.anchor().path().to_owned()))?,
            state: kport_state::KPORT_LIVE as i32,
            ..kport_entry::default()
        };
        outcome.redirects.iter().try_for_each(|redirect| rows.add(jail, redirect, &Counters::default()))?;
        let notes = outcome.notes.iter().map(|note| c_text(&*printable(note))).collect::<Result<_>>()?;
        Ok(kport_outcome { changed: outcome.changed, ended: outcome.killed, rows, notes })
    }
}

impl kport_error {
    pub(super) fn new(error: Error) -> kport_error {
        let error = error.in_words(|setting| Some(setting.in_c().to_owned()));
        // messages have no control characters, so no NUL
        let message = c_text(error.message()).unwrap_or_default();
        kport_error { error, message }
    }
}

pub(super) fn c_text(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(Kind::Internal, "a text has a NUL"))
}

/// Copies `value` to a caller's struct of `size` bytes: a shorter one gets its own fields, a longer one zeros in those that are
/// unknown here. Without a value nothing is written.
///
/// # Safety
/// `out` is NULL or has room for `size` bytes.
pub(super) unsafe fn fill<T: Copy>(out: *mut T, size: usize, value: Option<&T>) -> kport_status {
    let Some(value) = value.filter(|_| !out.is_null() && (1..=STRUCT_MAX_SIZE).contains(&size)) else {
        return kport_status::KPORT_ERR_ARGUMENT;
    };
    let known = size.min(size_of::<T>());
    // SAFETY: `out` has `size` bytes, of which `known` are copied from a value that has as many, and the rest is set.
    unsafe {
        ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), out.cast::<u8>(), known);
        out.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    kport_status::KPORT_OK
}
