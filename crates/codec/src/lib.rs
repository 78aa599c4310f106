//! Every byte that outlives a process: snapshots, recordings, and what two replicas say to each other.
//!
//! Why one crate: whoever wants to know what is on the wire or on disk reads this crate and `docs/wire.md`,
//! which `cargo xtask tidy` keeps in step with each other.
//!
//! Invariants:
//! - Nothing that was written once is ever read as something else: magic, version and checksum come before
//!   any content, in fixed raw bytes, so that a version mismatch is always told as such.
//! - Input is hostile. No decoder panics, and none allocates more than a fixed multiple of what it was given
//!   (255 where LZ4 is involved, and then at most [`frame::PAYLOAD_BYTES_MAX`]).
//! - What version 1 wrote decodes for ever: golden files under `tests/golden/`.
//!
//! Map: [`crc`] and [`varint`] are the atoms; [`frame`] puts a payload into a checked envelope; [`record`] is
//! the payload of log frames; [`message`] is what replicas say, [`piece`] how they say what is long; [`logfile`] a recording; [`snapshot`] the
//! container of a machine's state.
//!
//! Not here: files, sockets (sans-I/O: bytes in, values out), and what any of it means.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod crc;
pub mod frame;
pub mod logfile;
pub mod message;
pub mod piece;
pub mod record;
pub mod snapshot;
pub mod varint;

pub use crc::crc32c;
