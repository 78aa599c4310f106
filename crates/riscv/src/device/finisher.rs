//! The test finisher: a guest's way to end the machine with a status.
//!
//! Source: SiFive test device, as on QEMU's `virt`: the low half of what is written says how, the high half is the
//! status of a failure.

use pollux_vocab::Output;

/// Size of the register window, in bytes.
pub const BYTES: u64 = 0x1000;
const FAIL: u64 = 0x3333;
const PASS: u64 = 0x5555;
const RESET: u64 = 0x7777;

/// What a write to the finisher makes the machine say as its last word, if anything.
#[must_use]
pub fn output_of(offset: u64, value: u64) -> Option<Output> {
    match (offset, value & 0xffff) {
        (0, PASS) => Some(Output::PowerOff { status: 0 }),
        (0, FAIL) => Some(Output::PowerOff { status: ((value >> 16) & 0xffff) as i32 }),
        (0, RESET) => Some(Output::Reset),
        _ => None,
    }
}
