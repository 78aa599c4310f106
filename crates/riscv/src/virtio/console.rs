//! The console (virtio 1.2, 5.3): one port.

pub(crate) mod state;

use super::Context;
use super::queue::{QUEUE_SIZE_MAX, QueueError, gather, scatter};
use alloc::vec::Vec;
use pollux_vocab::{ConsoleId, Output};

/// No size, one port, no emergency write: the features that would fill these in are not offered.
pub const CONFIG_SPACE: [u8; 12] = [0; 12];
/// Typed bytes that wait for the guest to offer a buffer.
const INPUT_MAX: usize = 4096;
/// Bytes taken from one chain.
const CHAIN_BYTES_MAX: usize = 64 * 1024;
const RX: usize = 0;
const TX: usize = 1;

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Console {
    input: Vec<u8>,
}

impl Console {
    /// How much typed input would be taken.
    #[must_use]
    pub fn room(&self) -> usize {
        INPUT_MAX.saturating_sub(self.input.len())
    }

    pub(crate) fn reset(&mut self) {
        self.input.clear();
    }

    pub(crate) fn handle_kick(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), QueueError> {
        if queue != TX {
            return self.deliver(context);
        }
        for _ in 0..QUEUE_SIZE_MAX {
            let Some(chain) = context.pop(TX)? else { break };
            let bytes = gather(context.ram, &chain.readable, CHAIN_BYTES_MAX)?;
            if !bytes.is_empty() {
                context
                    .outputs
                    .push_back(Output::Console { console: ConsoleId::Virtio(context.slot), bytes });
            }
            context.push(TX, chain.head, 0)?;
        }
        Ok(())
    }

    pub(crate) fn handle_typed(&mut self, bytes: &[u8], context: &mut Context<'_>) -> Result<(), QueueError> {
        self.input.extend(bytes.iter().take(self.room()));
        self.deliver(context)
    }

    fn deliver(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        for _ in 0..QUEUE_SIZE_MAX {
            if self.input.is_empty() {
                break;
            }
            let Some(chain) = context.pop(RX)? else { break };
            let written = scatter(context.ram, &chain.writable, &self.input)?;
            self.input.drain(..written as usize);
            context.push(RX, chain.head, written)?;
        }
        Ok(())
    }
}
