//! Physical memory protection as it is saved.

use super::{ENTRIES, Pmp};
use crate::state::state;

state!(
    /// Version 1.
    PmpV1 of Pmp { cfg: [u8; ENTRIES], addr: [u64; ENTRIES] }
);
