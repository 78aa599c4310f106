//! The core-local interruptor: software interrupts and the machine timer.
//!
//! Source: SiFive FU540-C000 manual, chapter 9 (the layout that QEMU's `virt` has): `msip` at 4 × hart, `mtimecmp`
//! at 0x4000 + 8 × hart, `mtime` at 0xbff8. Time is a function of icount (DESIGN 2.4), so `mtime` is read-only.

pub(crate) mod state;

use crate::config::HARTS_MAX;
use crate::hart::csr::NS_PER_TICK;
use alloc::vec;
use alloc::vec::Vec;
use pollux_vocab::VirtTime;

/// Size of the register window, in bytes.
pub const BYTES: u64 = 0x1_0000;
const MTIMECMP: u64 = 0x4000;
const MTIME: u64 = 0xbff8;

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clint {
    msip: Vec<bool>,
    mtimecmp: Vec<u64>,
}

impl Clint {
    /// At reset: no software interrupt, no timer armed.
    #[must_use]
    pub fn new(harts: u32) -> Self {
        let harts = harts.min(HARTS_MAX) as usize;
        Self { msip: vec![false; harts], mtimecmp: vec![u64::MAX; harts] }
    }

    /// Whether this state belongs to a board with `harts` harts.
    #[must_use]
    pub fn fits(&self, harts: u32) -> bool {
        self.msip.len() == harts as usize && self.mtimecmp.len() == harts as usize
    }

    /// Reads 4 or 8 bytes. Unassigned registers read as zero.
    #[must_use]
    pub fn read(&self, now: VirtTime, offset: u64, bytes: u8) -> Option<u64> {
        if !matches!(bytes, 4 | 8) || !offset.is_multiple_of(u64::from(bytes)) {
            return None;
        }
        let word = |value: u64| if offset & 4 != 0 { value >> 32 } else { value };
        let value = match offset {
            0..MTIMECMP => u64::from(self.msip.get((offset / 4) as usize).copied().unwrap_or(false)),
            MTIMECMP..MTIME => {
                word(self.mtimecmp.get(((offset - MTIMECMP) / 8) as usize).copied().unwrap_or(0))
            }
            _ if offset & !7 == MTIME => word(now.0 / NS_PER_TICK),
            _ => 0,
        };
        Some(if bytes == 4 { value & 0xffff_ffff } else { value })
    }

    /// Writes 4 or 8 bytes. Unassigned registers, and `mtime`, take nothing.
    pub fn write(&mut self, offset: u64, bytes: u8, value: u64) -> Option<()> {
        if !matches!(bytes, 4 | 8) || !offset.is_multiple_of(u64::from(bytes)) {
            return None;
        }
        match offset {
            0..MTIMECMP => {
                if let Some(msip) = self.msip.get_mut((offset / 4) as usize) {
                    *msip = value & 1 != 0;
                }
            }
            MTIMECMP..MTIME => {
                if let Some(compare) = self.mtimecmp.get_mut(((offset - MTIMECMP) / 8) as usize) {
                    *compare = match (bytes, offset & 4) {
                        (8, _) => value,
                        (_, 0) => *compare & !0xffff_ffff | value & 0xffff_ffff,
                        _ => *compare & 0xffff_ffff | value << 32,
                    };
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Whether software has interrupted this hart.
    #[must_use]
    pub fn msip(&self, hart: usize) -> bool {
        self.msip.get(hart).copied().unwrap_or(false)
    }

    /// When this hart's machine timer goes off, in ticks.
    #[must_use]
    pub fn mtimecmp(&self, hart: usize) -> u64 {
        self.mtimecmp.get(hart).copied().unwrap_or(u64::MAX)
    }
}
