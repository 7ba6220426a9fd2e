//! Numbers at offsets in the kernel's results.
//!
//! The offsets are those of the 64-bit structs of FreeBSD 14 and 15; `tests/host/layout.c` asserts them with FreeBSD's
//! own headers. No byte is trusted: a buffer with another layout is an error, never a panic, never a wrong fact.

use crate::error::{Error, Kind};

/// `N` bytes at `offset`.
pub fn bytes<const N: usize>(buffer: &[u8], offset: usize) -> Option<[u8; N]> {
    buffer.get(offset..)?.first_chunk().copied()
}

pub fn u8_at(buffer: &[u8], offset: usize) -> Option<u8> {
    buffer.get(offset).copied()
}

pub fn u16_at(buffer: &[u8], offset: usize) -> Option<u16> {
    bytes(buffer, offset).map(u16::from_ne_bytes)
}

pub fn u32_at(buffer: &[u8], offset: usize) -> Option<u32> {
    bytes(buffer, offset).map(u32::from_ne_bytes)
}

pub fn u64_at(buffer: &[u8], offset: usize) -> Option<u64> {
    bytes(buffer, offset).map(u64::from_ne_bytes)
}

/// The error for a result with another layout.
pub fn malformed(what: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!(
            "the kernel's {what} does not have the layout of FreeBSD 14 and 15; a kport for this release is needed"
        ),
    )
}
