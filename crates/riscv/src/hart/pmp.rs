//! Physical memory protection: 16 entries (privileged specification, "Physical Memory Protection").
//!
//! Choices: granularity 4 bytes; the reserved combination W without R reads as neither. An access from S- or
//! U-mode that no entry matches fails, also while every entry is off: firmware has to open memory first, as on
//! QEMU and as [`Pmp::open`] does for a machine that is its own firmware.

pub(crate) mod state;

use super::{Access, Mode};

/// Entries implemented.
pub(crate) const ENTRIES: usize = 16;

const R: u8 = 1;
const W: u8 = 2;
const X: u8 = 4;
const MATCH: u8 = 0x18;
const LOCKED: u8 = 0x80;

const OFF: u8 = 0;
const TOR: u8 = 1;
const NA4: u8 = 2;
/// NAPOT, in its place.
const NAPOT: u8 = 3 << 3;

/// The PMP registers of one hart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pmp {
    cfg: [u8; ENTRIES],
    addr: [u64; ENTRIES],
}

impl Pmp {
    /// All of memory open to every mode, by one entry: what firmware leaves behind that protects nothing.
    pub(crate) fn open() -> Self {
        let mut pmp = Self::default();
        pmp.set_addr(0, u64::MAX);
        pmp.set_cfg(0, u64::from(R | W | X | NAPOT));
        pmp
    }

    /// One of `pmpcfg0`, `pmpcfg2`: eight entries' configurations.
    pub(crate) fn cfg(&self, first: usize) -> u64 {
        (0..8).fold(0, |value, i| value | u64::from(self.cfg.get(first + i).copied().unwrap_or(0)) << (8 * i))
    }

    /// Writes one of `pmpcfg0`, `pmpcfg2`; locked entries keep theirs.
    pub(crate) fn set_cfg(&mut self, first: usize, value: u64) {
        for i in 0..8 {
            let Some(cfg) = self.cfg.get_mut(first + i) else { return };
            let mut new = (value >> (8 * i)) as u8 & (R | W | X | MATCH | LOCKED);
            if new & (R | W) == W {
                new &= !W;
            }
            if *cfg & LOCKED == 0 {
                *cfg = new;
            }
        }
    }

    /// `pmpaddr<index>`; entries that are not implemented read as zero.
    pub(crate) fn addr(&self, index: usize) -> u64 {
        self.addr.get(index).copied().unwrap_or(0)
    }

    /// Writes `pmpaddr<index>` unless it is locked, by itself or as the base of a locked range above it.
    pub(crate) fn set_addr(&mut self, index: usize, value: u64) {
        let Some(&cfg) = self.cfg.get(index) else { return };
        let above = self.cfg.get(index + 1).copied().unwrap_or(0);
        if cfg & LOCKED != 0 || (above & LOCKED != 0 && (above & MATCH) >> 3 == TOR) {
            return;
        }
        self.addr[index] = value & 0x3f_ffff_ffff_ffff;
    }

    /// The bytes an entry covers, first and one past the last; empty if it is off.
    fn range(&self, index: usize) -> (u64, u64) {
        let addr = self.addr[index];
        match (self.cfg[index] & MATCH) >> 3 {
            OFF => (0, 0),
            TOR => (if index == 0 { 0 } else { self.addr[index - 1] << 2 }, addr << 2),
            NA4 => (addr << 2, (addr << 2) + 4),
            _ => {
                let size = 8u64 << (!addr).trailing_zeros().min(54);
                let base = (addr << 2) & !(size - 1);
                (base, base.saturating_add(size))
            }
        }
    }

    /// Whether any entry is in use.
    fn active(&self) -> bool {
        self.cfg.iter().any(|cfg| cfg & MATCH != 0)
    }

    /// Whether `mode` may access all `len` bytes at `addr`. The lowest-numbered entry that matches any byte
    /// decides, and it must match all of them.
    pub(crate) fn allows(&self, addr: u64, len: u64, access: Access, mode: Mode) -> bool {
        if !self.active() {
            return mode == Mode::Machine;
        }
        let end = addr.saturating_add(len);
        for index in 0..ENTRIES {
            let (first, past) = self.range(index);
            if addr >= past || end <= first {
                continue;
            }
            if addr < first || end > past {
                return false;
            }
            let cfg = self.cfg[index];
            let needed = match access {
                Access::Fetch => X,
                Access::Load => R,
                Access::Store => W,
            };
            return cfg & needed != 0 || (mode == Mode::Machine && cfg & LOCKED == 0);
        }
        mode == Mode::Machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_numbered_match_decides() {
        let mut pmp = Pmp::default();
        assert!(!pmp.allows(0x8000_0000, 8, Access::Store, Mode::User), "no entry matches");
        assert!(pmp.allows(0x8000_0000, 8, Access::Store, Mode::Machine));
        assert!(Pmp::open().allows(0x8000_0000, 8, Access::Store, Mode::User));
        pmp.set_addr(0, 0x8000_0000 >> 2 | 0x1ff); // NAPOT, 4 KiB
        pmp.set_addr(1, u64::MAX);
        pmp.set_cfg(0, 0x1f18); // entry 0: NAPOT, nothing allowed; entry 1: NAPOT, RWX
        assert!(!pmp.allows(0x8000_0000, 8, Access::Load, Mode::Supervisor));
        assert!(pmp.allows(0x8000_0000, 8, Access::Load, Mode::Machine), "not locked");
        assert!(pmp.allows(0x8000_1000, 8, Access::Store, Mode::User));
        assert!(!pmp.allows(0x8000_0ffc, 8, Access::Load, Mode::User), "straddles");
    }

    #[test]
    fn locked_entries_bind_machine_mode_and_keep_their_value() {
        let mut pmp = Pmp::default();
        pmp.set_addr(0, 0x1000);
        pmp.set_cfg(0, 0x88 | u64::from(R));
        pmp.set_cfg(0, 0);
        pmp.set_addr(0, 0);
        assert!(!pmp.allows(0x100, 4, Access::Store, Mode::Machine));
        assert!(pmp.allows(0x100, 4, Access::Load, Mode::Machine));
    }
}
