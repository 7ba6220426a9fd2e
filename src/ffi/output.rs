//! The output for C: the objects with their strings, and structs of any version.

use std::ffi::{CStr, CString, c_char};
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
use crate::spec::{HostPorts, Mapping, Spec};

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

/// One row of a listing or outcome: a redirect of a jail, or a jail without a known one.
#[derive(Clone)]
pub(super) struct Row {
    jail: Option<CString>,
    anchor: Option<CString>,
    since: i64,
    jid: i32,
    state: kport_state,
    /// With the texts of its place and target.
    redirect: Option<(CString, CString, Redirect, Counters)>,
}

impl kport_spec {
    pub(super) fn new(spec: Spec) -> Result<kport_spec> {
        let text = c_text(spec.to_string())?;
        let place = |m: &Mapping| m.place.map(|p| c_text(p.to_string())).transpose();
        let places = spec.mappings().iter().map(place).collect::<Result<_>>()?;
        Ok(kport_spec { spec, text, places, addresses: vec![] })
    }
}

pub(super) fn mapping_of(mapping: &Mapping, place: Option<&CStr>) -> kport_mapping {
    kport_mapping {
        place: pointer(place),
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
    pub(super) fn new(listed: Vec<Listed>) -> Result<kport_listing> {
        let mut rows = vec![];
        for jail in listed {
            let row = Row {
                jail: jail.jail.as_ref().map(|j| c_text(j.as_str())).transpose()?,
                anchor: Some(c_text(jail.anchor.path())?),
                since: jail.since.map_or(0, |s| i64::try_from(s).unwrap_or(i64::MAX)),
                jid: jail.jid.unwrap_or(0),
                state: match jail.liveness {
                    Liveness::Live => kport_state::KPORT_LIVE,
                    Liveness::Inert => kport_state::KPORT_INERT,
                    Liveness::Missing => kport_state::KPORT_MISSING,
                    Liveness::Stale => kport_state::KPORT_STALE,
                },
                redirect: None,
            };
            if jail.redirects.is_empty() {
                rows.push(row);
                continue;
            }
            for (redirect, counters) in jail.redirects {
                rows.push(row.of(redirect, counters)?);
            }
        }
        Ok(kport_listing { rows })
    }
}

impl kport_outcome {
    /// The outcome of a change of one jail, or of all.
    pub(super) fn new(jail: Option<&JailName>, outcome: Outcome) -> Result<kport_outcome> {
        let row = Row {
            jail: jail.map(|jail| c_text(jail.as_str())).transpose()?,
            anchor: jail.map(|jail| c_text(jail.anchor().path())).transpose()?,
            since: 0,
            jid: 0,
            state: kport_state::KPORT_LIVE,
            redirect: None,
        };
        let rows = outcome.redirects.into_iter().map(|redirect| row.of(redirect, Counters::default()));
        Ok(kport_outcome {
            changed: outcome.changed,
            ended: outcome.killed,
            rows: rows.collect::<Result<_>>()?,
            notes: outcome.notes.iter().map(|note| c_text(&*printable(note))).collect::<Result<_>>()?,
        })
    }
}

impl Row {
    /// The row of a redirect of this jail.
    fn of(&self, redirect: Redirect, counters: Counters) -> Result<Row> {
        let (place, address) = (c_text(redirect.place.to_string())?, c_text(redirect.target.to_string())?);
        Ok(Row { redirect: Some((place, address, redirect, counters)), ..self.clone() })
    }

    /// The entry for C; its pointers are valid as long as the row.
    pub(super) fn entry(&self) -> kport_entry {
        let entry = kport_entry {
            jail: pointer(self.jail.as_deref()),
            anchor: pointer(self.anchor.as_deref()),
            since: self.since,
            jid: self.jid,
            state: self.state as i32,
            ..kport_entry::default()
        };
        let Some((place, address, redirect, counters)) = &self.redirect else { return entry };
        kport_entry {
            place: place.as_ptr(),
            address: address.as_ptr(),
            packets: counters.packets,
            bytes: counters.bytes,
            states: counters.states,
            host_port: redirect.host.first(),
            jail_port: redirect.jail.first(),
            count: redirect.host.count(),
            protocol: redirect.protocol.number(),
            family: if redirect.family() == Family::Inet { 4 } else { 6 },
            ..entry
        }
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

/// NULL for `None`.
pub(super) fn pointer(text: Option<&CStr>) -> *const c_char {
    text.map_or(ptr::null(), CStr::as_ptr)
}

pub(super) fn c_text(text: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(Kind::Internal, "a text has a NUL"))
}

/// Copies `value` to a caller's struct of `size` bytes: a shorter one gets its own fields, a longer one zeros in those that are
/// unknown here. Without a value nothing is written.
///
/// # Safety
/// `out` is NULL or has room for `size` bytes.
pub(super) unsafe fn fill<T: Copy>(out: *mut T, size: usize, value: Option<T>) -> kport_status {
    let Some(value) = value.filter(|_| !out.is_null() && (1..=STRUCT_MAX_SIZE).contains(&size)) else {
        return kport_status::KPORT_ERR_ARGUMENT;
    };
    let known = size.min(size_of::<T>());
    // SAFETY: `out` has `size` bytes, of which `known` are copied from a value that has as many, and the rest is set.
    unsafe {
        ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), out.cast::<u8>(), known);
        out.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    kport_status::KPORT_OK
}
