//! Every byte that outlives a process: frames on the channel, recordings, snapshots. `docs/wire.md` is their
//! description; a change here without one there fails `cargo xtask tidy`.
//!
//! Invariant: nothing that is read here is trusted. Damage, truncation and other versions are errors that say what,
//! where and what to do; no input makes a decoder panic or allocate more than a small multiple of its size.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod frame;
pub mod logfile;
pub mod message;
pub mod snapshot;

use crc::{CRC_32_ISCSI, Crc, Table};

const CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// CRC32C (Castagnoli), as in iSCSI.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    CRC32C.checksum(bytes)
}
