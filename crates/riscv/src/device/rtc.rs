//! The goldfish real-time clock: wall-clock time, which is the reset's plus virtual time.
//!
//! Source: "Goldfish RTC" in Android's emulator, as QEMU's `virt` has it. Reading `TIME_LOW` latches `TIME_HIGH`. Setting
//! the time moves the base. The alarm is kept and reads back, but never rings: Linux does not need it to.

pub(crate) mod state;

use pollux_vocab::VirtTime;

/// Size of the register window, in bytes.
pub const BYTES: u64 = 0x1000;

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rtc {
    base_ns: u64,
    latched_high: u32,
    written_high: u32,
    alarm: u64,
    irq_enabled: bool,
}

impl Rtc {
    /// A clock that says `base_ns` (since 1970) at virtual time zero.
    #[must_use]
    pub fn new(base_ns: u64) -> Self {
        Self { base_ns, latched_high: 0, written_high: 0, alarm: 0, irq_enabled: false }
    }

    /// Reads a register (4 bytes).
    pub fn read(&mut self, now: VirtTime, offset: u64) -> u64 {
        match offset {
            0x00 => {
                let time = self.base_ns.wrapping_add(now.0);
                self.latched_high = (time >> 32) as u32;
                time & 0xffff_ffff
            }
            0x04 => u64::from(self.latched_high),
            0x08 => self.alarm & 0xffff_ffff,
            0x0c => self.alarm >> 32,
            0x10 => u64::from(self.irq_enabled),
            _ => 0,
        }
    }

    /// Writes a register (4 bytes).
    pub fn write(&mut self, now: VirtTime, offset: u64, value: u64) {
        let value = value & 0xffff_ffff;
        match offset {
            0x00 => self.base_ns = (u64::from(self.written_high) << 32 | value).wrapping_sub(now.0),
            0x04 => self.written_high = value as u32,
            0x08 => self.alarm = self.alarm & !0xffff_ffff | value,
            0x0c => self.alarm = self.alarm & 0xffff_ffff | value << 32,
            0x10 => self.irq_enabled = value & 1 != 0,
            _ => {}
        }
    }
}
