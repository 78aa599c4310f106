//! The power button as it is saved.

use super::Button;
use crate::state::state;

state!(
    /// Version 1.
    ButtonV1 of Button { select: u8, subselect: u8, next: u8 }
);
