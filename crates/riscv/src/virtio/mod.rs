//! virtio 1.2 devices: chips (`blk`, `net`, `console`, `rng`) under one transport (`mmio`) over split virtqueues
//! (`queue`).
//!
//! Invariant (DESIGN 2.5): a chip copies out of guest memory when the guest kicks a queue, and into guest memory
//! when the completion event is applied; at no other instant. Everything that the guest writes is untrusted: what
//! makes no sense puts the device into `DEVICE_NEEDS_RESET`, and nothing else happens.

pub mod blk;
pub mod button;
pub mod console;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
pub(crate) mod state;

use crate::config::DeviceConfig;
use crate::ram::Ram;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use pollux_vocab::{Input, Output, SlotId};
use queue::{Queue, QueueError};

/// VIRTIO_F_INDIRECT_DESC (virtio 1.2, 6).
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_VERSION_1.
pub const F_VERSION_1: u64 = 1 << 32;

/// What a chip works with while it handles a kick or an event.
pub(crate) struct Context<'a> {
    pub(crate) slot: SlotId,
    pub(crate) ram: &'a mut Ram,
    pub(crate) queues: &'a mut [Queue],
    pub(crate) outputs: &'a mut VecDeque<Output>,
    /// The driver has accepted version 1 of the standard.
    pub(crate) version_1: bool,
    /// Set when the guest is to be told that a queue has been used.
    pub(crate) used: bool,
}

impl Context<'_> {
    /// Takes the next chain of a queue that the driver has made available.
    pub(crate) fn pop(&mut self, queue: usize) -> Result<Option<queue::Chain>, QueueError> {
        match self.queues.get_mut(queue) {
            Some(q) => q.pop(self.ram),
            None => Ok(None),
        }
    }

    /// Gives a chain back, `written` bytes of it filled.
    pub(crate) fn push(&mut self, queue: usize, head: u16, written: u32) -> Result<(), QueueError> {
        if let Some(q) = self.queues.get_mut(queue) {
            self.used |= q.push(self.ram, head, written)?;
        }
        Ok(())
    }
}

/// A device's own part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chip {
    /// Nothing in this slot.
    Empty,
    /// A disk.
    Blk(blk::Blk),
    /// A network card.
    Net(net::Net),
    /// A console.
    Console(console::Console),
    /// A source of entropy.
    Rng(rng::Rng),
    /// The power button.
    Button(button::Button),
}

impl Chip {
    /// The chip that a slot is configured with.
    #[must_use]
    pub fn new(config: &DeviceConfig) -> Self {
        match config {
            DeviceConfig::Empty => Self::Empty,
            DeviceConfig::Block { bytes, read_only, serial } => {
                Self::Blk(blk::Blk::new(*bytes, *read_only, serial))
            }
            DeviceConfig::Net { mac } => Self::Net(net::Net::new(*mac)),
            DeviceConfig::Console => Self::Console(console::Console::default()),
            DeviceConfig::Rng => Self::Rng(rng::Rng::default()),
            DeviceConfig::Button => Self::Button(button::Button::default()),
        }
    }

    /// The virtio device id (virtio 1.2, 5).
    #[must_use]
    pub const fn device_id(&self) -> u32 {
        match self {
            Self::Empty => 0,
            Self::Net(_) => 1,
            Self::Blk(_) => 2,
            Self::Console(_) => 3,
            Self::Rng(_) => 4,
            Self::Button(_) => 18,
        }
    }

    /// How many queues it has.
    #[must_use]
    pub const fn queue_count(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Blk(_) | Self::Rng(_) => 1,
            Self::Net(_) | Self::Console(_) | Self::Button(_) => 2,
        }
    }

    /// The features it offers.
    #[must_use]
    pub fn features(&self) -> u64 {
        let own = match self {
            Self::Empty => return 0,
            Self::Blk(chip) => chip.features(),
            Self::Net(_) => net::FEATURES,
            Self::Console(_) | Self::Rng(_) | Self::Button(_) => 0,
        };
        own | F_VERSION_1 | F_INDIRECT_DESC
    }

    /// Its configuration space.
    #[must_use]
    pub fn config_space(&self) -> Vec<u8> {
        match self {
            Self::Blk(chip) => chip.config_space(),
            Self::Net(chip) => chip.config_space(),
            Self::Console(_) => console::CONFIG_SPACE.to_vec(),
            Self::Button(chip) => chip.config_space(),
            Self::Empty | Self::Rng(_) => Vec::new(),
        }
    }

    /// The driver writes to the configuration space.
    pub(crate) fn write_config(&mut self, offset: u64, bytes: u8, value: u64) {
        if let Self::Button(chip) = self {
            (0..u64::from(bytes)).for_each(|i| chip.write_config(offset + i, (value >> (8 * i)) as u8));
        }
    }

    /// The driver has reset the device: who waited for what is in flight is forgotten.
    pub(crate) fn reset(&mut self) {
        match self {
            Self::Blk(chip) => chip.reset(),
            Self::Rng(chip) => chip.reset(),
            Self::Console(chip) => chip.reset(),
            Self::Button(chip) => chip.reset(),
            Self::Empty | Self::Net(_) => {}
        }
    }

    /// The driver has kicked a queue.
    pub(crate) fn handle_kick(&mut self, queue: usize, context: &mut Context<'_>) -> Result<(), QueueError> {
        match self {
            Self::Empty => Ok(()),
            Self::Blk(chip) => chip.handle_kick(context),
            Self::Net(_) => net::handle_kick(queue, context),
            Self::Console(chip) => chip.handle_kick(queue, context),
            Self::Rng(chip) => chip.handle_kick(context),
            Self::Button(chip) => chip.handle_kick(queue, context),
        }
    }

    /// Something happened outside. An event that is not for this kind of device, or comes too late, is dropped.
    pub(crate) fn handle_input(
        &mut self,
        input: &Input,
        context: &mut Context<'_>,
    ) -> Result<(), QueueError> {
        match (self, input) {
            (Self::Blk(chip), Input::DiskDone { request, status, data, .. }) => {
                chip.handle_done(*request, *status, data, context)
            }
            (Self::Button(chip), Input::PowerButton) => chip.handle_press(context),
            (Self::Net(_), Input::Packet { frame, .. }) => net::handle_packet(frame, context),
            (Self::Console(chip), Input::Console { bytes, .. }) => chip.handle_typed(bytes, context),
            (Self::Rng(chip), Input::Entropy { request, bytes, .. }) => {
                chip.handle_bytes(*request, bytes, context)
            }
            _ => Ok(()),
        }
    }

    /// The same while no driver is there to be told: what was asked for is settled, and that is all.
    pub(crate) fn handle_unheard(&mut self, input: &Input) {
        match (self, input) {
            (Self::Blk(chip), Input::DiskDone { request, .. }) => chip.handle_unheard(*request),
            (Self::Rng(chip), Input::Entropy { request, .. }) => chip.handle_unheard(*request),
            _ => {}
        }
    }

    /// What it has asked the world for and not been answered, oldest first.
    #[must_use]
    pub fn pending(&self, slot: SlotId) -> Vec<Output> {
        match self {
            Self::Blk(chip) => chip.pending(slot),
            Self::Rng(chip) => chip.pending(slot),
            _ => Vec::new(),
        }
    }
}
