//! A slot of the board as it is saved.

use super::Slot;
use crate::state::state;
use crate::virtio::Chip;
use crate::virtio::queue::Queue;
use alloc::vec::Vec;

state!(
    /// Version 2. (In version 1 the board had one slot less, and no button.)
    SlotV2 of Slot {
        chip: Chip,
        queues: Vec<Queue>,
        status: u32,
        interrupt: u32,
        driver_features: u64,
        device_features_sel: u32,
        driver_features_sel: u32,
        queue_sel: u32,
    }
);
