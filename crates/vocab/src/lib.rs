//! The nouns of Pollux: what enters a machine, what leaves it, and the units both are counted in.
//!
//! Every other crate speaks these types; this crate knows none of the others. The guest machine is a pure
//! function of its initial state and the [`Input`]s applied to it, each at an exact [`Icount`]; all it ever
//! says to the world is a sequence of [`Output`]s. The log ([`Record`]) is that function's argument, written down.
//!
//! Not here: how any of it is encoded (`pollux-codec`) or decided (`pollux-protocol`).
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod digest;
mod io;
mod record;
mod units;

pub use digest::{Digest, PageHash};
pub use io::{ConsoleId, DiskOp, DiskRequest, DiskStatus, Input, Output, RequestId, SlotId};
pub use record::{Control, Record, RecordBody};
pub use units::{Clock, ClockRate, Generation, GuestAddr, Icount, Lsn, VirtTime};

/// Bytes in a guest physical page. Every page-granular mechanism (flags, digest, snapshot) uses it.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes in a disk sector as virtio-blk counts them (virtio 1.2, 5.2.4), whatever the image's own block size.
pub const SECTOR_BYTES: u64 = 512;
