//! What belongs to the board and to no device, and where reset leads, as they are saved.

use super::{Misc, ResetState};
use crate::state::state;
use alloc::vec::Vec;

state!(
    /// Version 2. (In version 1 no machine began again in place.)
    MiscV2 of Misc { halted: bool, rom: Vec<u8>, restart: bool, restarts: u64 }
);

state!(
    /// The places of the boot image: version 1.
    ResetV1 of ResetState { pc: u64, fdt: u64, rng_seed: u64, direct: bool }
);
