//! The source of entropy as it is saved.

use super::{InFlight, Rng};
use crate::state::state;
use crate::virtio::queue::Segment;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use pollux_vocab::RequestId;

state!(
    /// A request that has not been answered: version 1.
    RngInFlightV1 of InFlight { request: RequestId, head: u16, len: u32, answer: Vec<Segment> }
);

state!(
    /// Version 1.
    RngV1 of Rng { next_request: RequestId, in_flight: VecDeque<InFlight> }
);
