//! The power button: an input device (virtio 1.2, 5.8) with one key, `KEY_POWER`.
//!
//! Why virtio: Debian's kernel for riscv64 has `virtio_input`, and neither `gpio-keys` nor a GPIO controller of the `virt`
//! boards of other architectures. systemd-logind and acpid listen to such a key without being told.

pub(crate) mod state;

use super::Context;
use super::queue::{QUEUE_SIZE_MAX, QueueError, scatter};
use alloc::vec::Vec;

const EVENTS_QUEUE: usize = 0;
const STATUS_QUEUE: usize = 1;
/// What the driver may ask the configuration for.
mod select {
    pub(super) const NAME: u8 = 1;
    pub(super) const IDS: u8 = 3;
    pub(super) const EVENT_BITS: u8 = 0x11;
}
const NAME: &[u8] = b"Pollux power button";
/// Bus (`BUS_VIRTUAL`), vendor, product, version.
const IDS: [u8; 8] = [6, 0, 0, 0, 0, 0, 1, 0];
/// Event types and codes (Linux `input-event-codes.h`).
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// A press and its release; each is told by an event of type `EV_SYN`.
const PRESS: [(u16, u16, u32); 4] =
    [(EV_KEY, KEY_POWER, 1), (EV_SYN, 0, 0), (EV_KEY, KEY_POWER, 0), (EV_SYN, 0, 0)];
/// Nothing of a press is still to be told.
const TOLD: u8 = PRESS.len() as u8;

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Button {
    select: u8,
    subselect: u8,
    /// Which event of a press is told next.
    next: u8,
}

impl Default for Button {
    fn default() -> Self {
        Self { select: 0, subselect: 0, next: TOLD }
    }
}

impl Button {
    /// `struct virtio_input_config`: what was selected, how much there is of it, and what it is.
    #[must_use]
    pub fn config_space(&self) -> Vec<u8> {
        let mut keys = [0; KEY_POWER as usize / 8 + 1];
        keys[KEY_POWER as usize / 8] = 1 << (KEY_POWER % 8);
        let content: &[u8] = match (self.select, u16::from(self.subselect)) {
            (select::NAME, 0) => NAME,
            (select::IDS, 0) => &IDS,
            (select::EVENT_BITS, EV_KEY) => &keys,
            _ => &[],
        };
        [&[self.select, self.subselect, content.len() as u8, 0, 0, 0, 0, 0], content].concat()
    }

    /// The driver selects what it wants to read.
    pub(crate) fn write_config(&mut self, offset: u64, byte: u8) {
        match offset {
            0 => self.select = byte,
            1 => self.subselect = byte,
            _ => {}
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn handle_kick(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), QueueError> {
        if queue != STATUS_QUEUE {
            return self.deliver(context);
        }
        // What the driver wants lit: there is no lamp.
        for _ in 0..QUEUE_SIZE_MAX {
            let Some(chain) = context.pop(STATUS_QUEUE)? else { break };
            context.push(STATUS_QUEUE, chain.head, 0)?;
        }
        Ok(())
    }

    /// Somebody presses the button. One press at a time: a second one before the first was heard is the same.
    pub(crate) fn handle_press(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        if self.next >= TOLD {
            self.next = 0;
        }
        self.deliver(context)
    }

    fn deliver(&mut self, context: &mut Context<'_>) -> Result<(), QueueError> {
        while let Some((kind, code, value)) = PRESS.get(usize::from(self.next)) {
            let Some(chain) = context.pop(EVENTS_QUEUE)? else { break };
            let mut event = [0; 8];
            event[..2].copy_from_slice(&kind.to_le_bytes());
            event[2..4].copy_from_slice(&code.to_le_bytes());
            event[4..].copy_from_slice(&value.to_le_bytes());
            let written = scatter(context.ram, &chain.writable, &event)?;
            context.push(EVENTS_QUEUE, chain.head, written)?;
            self.next += 1;
        }
        Ok(())
    }
}
