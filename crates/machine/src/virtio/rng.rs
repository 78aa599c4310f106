//! The source of entropy (virtio 1.2, 5.4). Random bytes are an event like any other: asked for, logged, applied.

use super::Context;
use super::queue::{QUEUE_SIZE_MAX, QueueError, Segment, scatter, total};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use pollux_vocab::{Output, RequestId, SlotId};
use serde::{Deserialize, Serialize};

/// Bytes given at a time; a driver that wants more asks again.
pub const BYTES_MAX: u64 = 4096;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct InFlight {
    request: RequestId,
    head: u16,
    len: u32,
    answer: Vec<Segment>,
}

/// The chip, and its state as it is saved (version 1).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rng {
    next_request: RequestId,
    in_flight: VecDeque<InFlight>,
}

impl Rng {
    pub(crate) fn reset(&mut self) {
        self.in_flight.clear();
    }

    pub(crate) fn handle_kick(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        while self.in_flight.len() < usize::from(QUEUE_SIZE_MAX) {
            let Some(chain) = context.pop(0)? else { break };
            let len = total(&chain.writable).min(BYTES_MAX) as u32;
            let request = self.next_request;
            self.next_request = self.next_request.wrapping_add(1);
            self.in_flight.push_back(InFlight { request, head: chain.head, len, answer: chain.writable });
            context.outputs.push_back(Output::EntropyWanted { slot: context.slot, request, len });
        }
        Ok(())
    }

    pub(crate) fn handle_bytes(
        &mut self,
        request: RequestId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), QueueError> {
        let Some(index) = self.in_flight.iter().position(|f| f.request == request) else { return Ok(()) };
        let Some(done) = self.in_flight.remove(index) else { return Ok(()) };
        let written = scatter(context.ram, &done.answer, &bytes[..bytes.len().min(done.len as usize)])?;
        context.push(0, done.head, written)
    }

    /// Requests without an answer.
    #[must_use]
    pub fn pending(&self, slot: SlotId) -> Vec<Output> {
        let wanted = |f: &InFlight| Output::EntropyWanted { slot, request: f.request, len: f.len };
        self.in_flight.iter().map(wanted).collect()
    }
}
