//! The network card (virtio 1.2, 5.1): one pair of queues, no offloads, so that what enters and leaves is frames.

pub(crate) mod state;

use super::Context;
use super::queue::{QUEUE_SIZE_MAX, Queue, QueueError, gather, scatter, total};
use crate::ram::Ram;
use alloc::vec::Vec;
use pollux_vocab::Output;

const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;
/// What the card offers.
pub const FEATURES: u64 = F_MAC | F_STATUS;
/// `struct virtio_net_hdr` with `num_buffers`, as VERSION_1 has it always (5.1.6).
const HEADER_BYTES: usize = 12;
/// The same without `num_buffers`, for a driver that has not accepted VERSION_1 (5.1.6.1).
const LEGACY_HEADER_BYTES: usize = 10;
/// The shortest frame that leaves: two addresses and a type.
const FRAME_BYTES_MIN: usize = 14;
/// The longest frame that enters or leaves.
pub const FRAME_BYTES_MAX: usize = 1514 + 4;
const RX: usize = 0;
const TX: usize = 1;
const LINK_UP: u16 = 1;

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Net {
    mac: [u8; 6],
}

impl Net {
    /// A card with this address.
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        Self { mac }
    }

    /// `struct virtio_net_config` (5.1.4) up to `status`.
    #[must_use]
    pub fn config_space(&self) -> Vec<u8> {
        [&self.mac[..], &LINK_UP.to_le_bytes()].concat()
    }
}

/// Bytes before each frame.
pub(crate) const fn header_bytes(version_1: bool) -> usize {
    if version_1 { HEADER_BYTES } else { LEGACY_HEADER_BYTES }
}

/// Whether a receive buffer waits that takes a frame at all.
pub(crate) fn has_room(queues: &[Queue], ram: &Ram, header: usize) -> bool {
    let next = queues.get(RX).map(|queue| queue.peek(ram));
    // A broken queue takes the frame, and the device notices.
    match next {
        Some(Ok(Some(chain))) => total(&chain.writable) >= (header + FRAME_BYTES_MIN) as u64,
        Some(Ok(None)) | None => false,
        Some(Err(_)) => true,
    }
}

/// The guest sends.
pub(crate) fn handle_kick(queue: usize, context: &mut Context<'_>) -> Result<(), QueueError> {
    if queue != TX {
        return Ok(());
    }
    let header = header_bytes(context.version_1);
    for _ in 0..QUEUE_SIZE_MAX {
        let Some(chain) = context.pop(TX)? else { break };
        let mut frame = gather(context.ram, &chain.readable, header + FRAME_BYTES_MAX)?;
        let whole = total(&chain.readable) as usize == frame.len();
        if whole && frame.len() >= header + FRAME_BYTES_MIN {
            frame.drain(..header);
            context.outputs.push_back(Output::Packet { slot: context.slot, frame });
        }
        context.push(TX, chain.head, 0)?;
    }
    Ok(())
}

/// A frame arrives. Without a buffer that takes it, it is lost.
pub(crate) fn handle_packet(frame: &[u8], context: &mut Context<'_>) -> Result<(), QueueError> {
    let header = header_bytes(context.version_1);
    let Some(queue) = context.queues.get(RX) else { return Ok(()) };
    let Some(chain) = queue.peek(context.ram)? else { return Ok(()) };
    if total(&chain.writable) < (header + frame.len()) as u64 || frame.len() > FRAME_BYTES_MAX {
        return Ok(());
    }
    context.pop(RX)?;
    let mut bytes = Vec::with_capacity(header + frame.len());
    bytes.extend_from_slice(&[0; LEGACY_HEADER_BYTES]);
    if context.version_1 {
        bytes.extend_from_slice(&1u16.to_le_bytes());
    }
    bytes.extend_from_slice(frame);
    let written = scatter(context.ram, &chain.writable, &bytes)?;
    context.push(RX, chain.head, written)
}
