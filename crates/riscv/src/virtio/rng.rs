//! The source of entropy (virtio 1.2, 5.4). Random bytes are an event like any other: asked for, logged, applied.
//!
//! Invariant: a reset forgets who waits for an answer, not that the world owes it (as in `blk`).

pub(crate) mod state;

use super::Context;
use super::queue::{QUEUE_SIZE_MAX, QueueError, Segment, scatter, total};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use pollux_vocab::{Output, RequestId, SlotId};

/// Bytes given at a time; a driver that wants more asks again.
pub const BYTES_MAX: u64 = 4096;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InFlight {
    request: RequestId,
    head: u16,
    len: u32,
    /// Empty: a reset came between, and nobody waits.
    answer: Vec<Segment>,
}

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rng {
    next_request: RequestId,
    in_flight: VecDeque<InFlight>,
}

impl Rng {
    /// Whether this could be what a source has come to.
    pub(crate) fn is_sound(&self) -> bool {
        self.in_flight.len() <= usize::from(QUEUE_SIZE_MAX)
            && self.in_flight.iter().all(|f| u64::from(f.len) <= BYTES_MAX)
    }

    pub(crate) fn reset(&mut self) {
        self.in_flight.iter_mut().for_each(|f| f.answer = Vec::new());
    }

    fn settle(&mut self, request: RequestId) -> Option<InFlight> {
        let index = self.in_flight.iter().position(|f| f.request == request)?;
        self.in_flight.remove(index)
    }

    /// An answer has come, and there is no driver to be told.
    pub(crate) fn handle_unheard(&mut self, request: RequestId) {
        self.settle(request);
    }

    pub(crate) fn handle_kick(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        for _ in 0..QUEUE_SIZE_MAX {
            if self.in_flight.len() >= usize::from(QUEUE_SIZE_MAX) {
                break;
            }
            let Some(chain) = context.pop(0)? else { break };
            if chain.writable.is_empty() {
                context.push(0, chain.head, 0)?;
                continue;
            }
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
        let Some(done) = self.settle(request) else { return Ok(()) };
        if !done.answer.is_empty() {
            let written = scatter(context.ram, &done.answer, &bytes[..bytes.len().min(done.len as usize)])?;
            context.push(0, done.head, written)?;
        }
        // Room in here: the driver may have queued more than could be taken.
        self.handle_kick(context)
    }

    /// Requests without an answer.
    #[must_use]
    pub fn pending(&self, slot: SlotId) -> Vec<Output> {
        let wanted = |f: &InFlight| Output::EntropyWanted { slot, request: f.request, len: f.len };
        self.in_flight.iter().map(wanted).collect()
    }
}
