//! The real-time clock as it is saved.

use super::Rtc;
use crate::state::state;

state!(
    /// Version 1.
    RtcV1 of Rtc { base_ns: u64, latched_high: u32, written_high: u32, alarm: u64, irq_enabled: bool }
);
