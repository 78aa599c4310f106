//! A virtqueue as it is saved.

use super::{Queue, Segment};
use crate::state::state;
use pollux_vocab::GuestAddr;

state!(
    /// A piece of guest memory: version 1.
    SegmentV1 of Segment { addr: GuestAddr, len: u32 }
);

state!(
    /// Version 1.
    QueueV1 of Queue {
        size: u16,
        ready: bool,
        desc: u64,
        avail: u64,
        used: u64,
        next_avail: u16,
        next_used: u16,
    }
);
