//! What clients may ask of a machine, whichever it is.

use crate::machines::MachineKind;
use crate::machines::frames::{Reply, guest, model};

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Fill a block with a value; answered when it is flushed.
    Write { key: u64, value: u64 },
    /// Read a block.
    Read { key: u64 },
    /// Count; answered with the new count.
    Add,
    /// Read the count.
    Total,
    /// Something that has no right answer, but only one: random bytes, the time.
    Other,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Value(u64),
    /// The disk failed.
    Bad,
}

/// A request as a frame.
pub(crate) fn request(kind: MachineKind, client: u64, seq: u64, op: Op) -> Vec<u8> {
    match kind {
        MachineKind::Model => model::Request { client, seq, op }.frame(),
        MachineKind::Guest => guest::request(client, seq, op),
    }
}

/// The answer in a frame, if it is one. `is_block`: whether a client's request, by its number, was to read a block.
pub(crate) fn read(kind: MachineKind, frame: &[u8], is_block: impl Fn(u64, u64) -> bool) -> Option<Reply> {
    match kind {
        MachineKind::Model => model::read(frame),
        MachineKind::Guest => guest::read(frame, is_block),
    }
}
