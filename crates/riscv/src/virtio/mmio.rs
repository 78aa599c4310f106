//! The MMIO transport (virtio 1.2, 4.2; version 2 only): registers, negotiation, queues, interrupts.

pub(crate) mod state;

use super::queue::{QUEUE_SIZE_MAX, Queue, QueueError};
use super::{Chip, Context, F_VERSION_1};
use crate::config::DeviceConfig;
use crate::ram::Ram;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use pollux_vocab::{Input, Output, SlotId};

/// Size of a slot's register window, in bytes.
pub const BYTES: u64 = 0x1000;
const CONFIG: u64 = 0x100;
const MAGIC: u32 = 0x7472_6976;
/// "QEMU": drivers written against its `virt` board look for it.
const VENDOR: u32 = 0x554d_4551;
const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;
const STATUS_NEEDS_RESET: u32 = 64;
const INTERRUPT_USED: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

/// A slot of the board: a chip behind registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slot {
    chip: Chip,
    queues: Vec<Queue>,
    status: u32,
    interrupt: u32,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

impl Slot {
    /// At reset.
    #[must_use]
    pub fn new(config: &DeviceConfig) -> Self {
        let chip = Chip::new(config);
        Self {
            queues: vec![Queue::default(); chip.queue_count()],
            chip,
            status: 0,
            interrupt: 0,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
        }
    }

    /// As at reset, but that what the world still does for the device stays counted.
    pub(crate) fn power_on(&mut self) {
        self.set_status(0);
        (self.device_features_sel, self.driver_features_sel, self.queue_sel) = (0, 0, 0);
    }

    /// Whether this state belongs to a slot of `config`.
    #[must_use]
    pub fn fits(&self, config: &DeviceConfig) -> bool {
        let fresh = Self::new(config);
        let chips = match (&self.chip, &fresh.chip) {
            (Chip::Blk(a), Chip::Blk(b)) => a.fits(b),
            (Chip::Net(a), Chip::Net(b)) => a == b,
            (Chip::Rng(a), Chip::Rng(_)) => a.is_sound(),
            (a, b) => a.device_id() == b.device_id(),
        };
        chips && self.queues.len() == fresh.queues.len() && self.queues.iter().all(Queue::is_sound)
    }

    /// Whether the device asks for an interrupt.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.interrupt != 0
    }

    /// The chip.
    #[must_use]
    pub fn chip(&self) -> &Chip {
        &self.chip
    }

    /// Whether a frame would find a receive buffer.
    #[must_use]
    pub fn packet_room(&self, ram: &Ram) -> bool {
        let header = super::net::header_bytes(self.knows_version_1());
        matches!(self.chip, Chip::Net(_)) && self.is_live() && super::net::has_room(&self.queues, ram, header)
    }

    /// How much typed input would be taken.
    #[must_use]
    pub fn console_room(&self) -> usize {
        match &self.chip {
            Chip::Console(chip) if self.is_live() => chip.room(),
            _ => 0,
        }
    }

    fn knows_version_1(&self) -> bool {
        self.driver_features & F_VERSION_1 != 0
    }

    /// Whether a driver is there to be told of things.
    pub(crate) fn is_live(&self) -> bool {
        self.status & STATUS_DRIVER_OK != 0 && self.status & STATUS_NEEDS_RESET == 0
    }

    /// Reads a register (4 bytes), or configuration space (1, 2 or 4).
    #[must_use]
    pub fn read(&self, offset: u64, bytes: u8) -> Option<u64> {
        if offset >= CONFIG {
            let space = self.chip.config_space();
            let byte = |i: u64| space.get((offset - CONFIG + i) as usize).copied().unwrap_or(0);
            return Some((0..u64::from(bytes)).fold(0, |value, i| value | u64::from(byte(i)) << (8 * i)));
        }
        if bytes != 4 || !offset.is_multiple_of(4) {
            return None;
        }
        let queue = self.queues.get(self.queue_sel as usize);
        let value = match offset {
            0x00 => MAGIC,
            0x04 => 2,
            0x08 => self.chip.device_id(),
            0x0c => VENDOR,
            0x10 => match self.device_features_sel {
                0 => self.chip.features() as u32,
                1 => (self.chip.features() >> 32) as u32,
                _ => 0,
            },
            0x34 => queue.map_or(0, |_| u32::from(QUEUE_SIZE_MAX)),
            0x44 => queue.map_or(0, |q| u32::from(q.ready)),
            0x60 => self.interrupt,
            0x70 => self.status,
            // No shared memory: its length reads as all ones (4.2.2.1).
            0xb0..=0xbc => u32::MAX,
            _ => 0,
        };
        Some(u64::from(value))
    }

    /// Writes a register (4 bytes), or configuration space, which is read-only but for what selects its content.
    pub(crate) fn write(
        &mut self,
        slot: SlotId,
        offset: u64,
        bytes: u8,
        value: u64,
        ram: &mut Ram,
        outputs: &mut VecDeque<Output>,
    ) -> Option<()> {
        if offset >= CONFIG {
            self.chip.write_config(offset - CONFIG, bytes, value);
            return Some(());
        }
        if bytes != 4 || !offset.is_multiple_of(4) {
            return None;
        }
        let value = value as u32;
        match offset {
            0x14 => self.device_features_sel = value,
            0x20 if self.status & STATUS_FEATURES_OK == 0 => {
                let (shift, keep) =
                    if self.driver_features_sel == 0 { (0, !0xffff_ffff) } else { (32, 0xffff_ffff) };
                if self.driver_features_sel < 2 {
                    self.driver_features = self.driver_features & keep | u64::from(value) << shift;
                }
            }
            0x24 => self.driver_features_sel = value,
            0x30 => self.queue_sel = value,
            0x50 => self.kick(slot, value, ram, outputs),
            0x64 => self.interrupt &= !value,
            0x70 => self.set_status(value),
            0x38 | 0x44 | 0x80..=0xa4 => self.set_up_queue(offset, value),
            _ => {}
        }
        Some(())
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.chip.reset();
            self.queues.fill(Queue::default());
            self.status = 0;
            self.interrupt = 0;
            self.driver_features = 0;
            return;
        }
        let mut status = value & !STATUS_NEEDS_RESET | self.status & STATUS_NEEDS_RESET;
        // Features are accepted if they were offered. A driver ought to accept version 1 (6.1); one that does not is
        // served all the same, as QEMU does: drivers written against its `virt` board leave it out.
        let offered = self.driver_features & !self.chip.features() == 0;
        if status & STATUS_FEATURES_OK != 0 && !offered {
            status &= !STATUS_FEATURES_OK;
        }
        self.status = status;
    }

    fn set_up_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else { return };
        let low = |old: u64| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        if offset == 0x44 {
            if value & 1 == 0 {
                let size = queue.size;
                *queue = Queue::default();
                queue.size = size;
            } else {
                queue.ready = true;
            }
            return;
        }
        if queue.ready {
            return;
        }
        match offset {
            0x38 => {
                if let Ok(size) = u16::try_from(value)
                    && size.is_power_of_two()
                    && size <= QUEUE_SIZE_MAX
                {
                    queue.size = size;
                }
            }
            0x80 => queue.desc = low(queue.desc),
            0x84 => queue.desc = high(queue.desc),
            0x90 => queue.avail = low(queue.avail),
            0x94 => queue.avail = high(queue.avail),
            0xa0 => queue.used = low(queue.used),
            0xa4 => queue.used = high(queue.used),
            _ => {}
        }
    }

    fn kick(&mut self, slot: SlotId, queue: u32, ram: &mut Ram, outputs: &mut VecDeque<Output>) {
        if !self.is_live() {
            return;
        }
        self.with_chip(slot, ram, outputs, |chip, context| chip.handle_kick(queue as usize, context));
    }

    /// Something happened outside.
    pub(crate) fn handle_input(
        &mut self,
        slot: SlotId,
        input: &Input,
        ram: &mut Ram,
        outputs: &mut VecDeque<Output>,
    ) {
        if !self.is_live() {
            return self.chip.handle_unheard(input);
        }
        self.with_chip(slot, ram, outputs, |chip, context| chip.handle_input(input, context));
    }

    fn with_chip(
        &mut self,
        slot: SlotId,
        ram: &mut Ram,
        outputs: &mut VecDeque<Output>,
        act: impl FnOnce(&mut Chip, &mut Context<'_>) -> Result<(), QueueError>,
    ) {
        let version_1 = self.knows_version_1();
        let mut context = Context { slot, ram, queues: &mut self.queues, outputs, version_1, used: false };
        let acted = act(&mut self.chip, &mut context);
        if context.used {
            self.interrupt |= INTERRUPT_USED;
        }
        if acted.is_err() {
            self.status |= STATUS_NEEDS_RESET;
            self.interrupt |= INTERRUPT_CONFIG;
        }
    }
}
