//! The console as it is saved.

use super::Console;
use crate::state::state;
use alloc::vec::Vec;

state!(
    /// Version 1.
    ConsoleV1 of Console { input: Vec<u8> }
);
