//! The CLINT as it is saved.

use super::Clint;
use crate::state::state;
use alloc::vec::Vec;

state!(
    /// Version 1.
    ClintV1 of Clint { msip: Vec<bool>, mtimecmp: Vec<u64> }
);
