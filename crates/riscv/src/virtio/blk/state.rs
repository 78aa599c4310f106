//! The disk as it is saved.

use super::{Blk, InFlight};
use crate::state::state;
use crate::virtio::queue::Segment;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use pollux_vocab::{DiskOp, RequestId};

state!(
    /// A request that has not been answered: version 1.
    BlkInFlightV1 of InFlight { request: RequestId, head: u16, op: DiskOp, answer: Vec<Segment>, issued: bool }
);

state!(
    /// Version 1.
    BlkV1 of Blk {
        bytes: u64,
        read_only: bool,
        serial: String,
        next_request: RequestId,
        in_flight: VecDeque<InFlight>,
    }
);
