//! The decoded-instruction cache: for every page of RAM that was executed, a packed operation per halfword.
//!
//! Invariant (DESIGN 2.1): a slot is either empty or what decoding RAM gives; a store to a page flagged as
//! code empties the slots it touches, including that of an instruction begun two bytes earlier. Instructions
//! that straddle two pages are never cached, for their second half has a translation of its own.
//!
//! Slots are atomics only so that the executing hart can hold a page and empty slots of it at the same time;
//! there is no second thread, and relaxed loads cost nothing.

use crate::ram::{Ram, StaleCode};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU64, Ordering};
use pollux_isa::{Format, Inst};

/// Slots per page: one per halfword.
pub(crate) const SLOTS: usize = 2048;
/// Decoded pages kept at most (16 KiB of host memory each); when they run out, all are dropped.
const PAGES_MAX: usize = 8192;

/// Writes that a page takes before it counts as data, the first time.
const WEAR_FIRST: u32 = 16;

/// A decoded page.
pub(crate) type CodePage = [AtomicU64; SLOTS];

/// Where writes to x0 go: a register that nobody reads.
pub(crate) const SINK: u8 = 32;

/// A decoded instruction in eight bytes: kind, rd, rs1, rs2, length, 24-bit immediate, from the low end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packed(pub(crate) u64);

impl Packed {
    /// Not decoded yet.
    pub(crate) const EMPTY: Self = Self(0);

    #[inline(always)]
    pub(crate) fn kind(self) -> u8 {
        self.0 as u8
    }
    #[inline(always)]
    pub(crate) fn rd(self) -> usize {
        usize::from((self.0 >> 8) as u8)
    }
    #[inline(always)]
    pub(crate) fn rs1(self) -> usize {
        usize::from((self.0 >> 16) as u8)
    }
    #[inline(always)]
    pub(crate) fn rs2(self) -> usize {
        usize::from((self.0 >> 24) as u8)
    }
    #[inline(always)]
    pub(crate) fn len(self) -> u64 {
        u64::from((self.0 >> 32) as u8)
    }
    #[inline(always)]
    pub(crate) fn imm(self) -> u64 {
        (self.0 as i64 >> 40) as u64
    }
    /// The third source of a fused multiply-add.
    pub(crate) fn rs3(self) -> usize {
        (self.0 >> 40) as usize & 31
    }
    /// The rounding mode of a floating-point operation.
    pub(crate) fn rm(self) -> u8 {
        (self.0 >> 45) as u8 & 7
    }

    /// Packs a decoded instruction. U-type immediates lose their twelve zero bits.
    pub(crate) fn new(inst: &Inst) -> Self {
        let format = inst.opcode.info().map_or(Format::Bare, |info| info.format);
        let imm = match format {
            Format::U => inst.imm >> 12,
            Format::F4 | Format::FRound1 | Format::FRound2 | Format::FToIntRound | Format::FFromIntRound => {
                i32::from(inst.rs3 & 31) | i32::from(inst.rm) << 5
            }
            _ => inst.imm,
        };
        let float_rd = matches!(
            format,
            Format::FLoad
                | Format::F4
                | Format::FRound1
                | Format::FRound2
                | Format::F2
                | Format::FFromInt
                | Format::FFromIntRound
                | Format::FConstant
        );
        let rd = if inst.rd == 0 && !float_rd { SINK } else { inst.rd };
        let fields = [inst.opcode as u8, rd, inst.rs1, inst.rs2, inst.len, 0, 0, 0];
        Self(u64::from_le_bytes(fields) | (imm as u64) << 40)
    }
}

/// All decoded pages. Not part of the state.
pub(crate) struct CodeCache {
    pages: Vec<Box<CodePage>>,
    origins: Vec<PageOrigin>,
    /// Of each decoded page: writes to it that changed no decoded instruction, and how many of them it may take.
    wear: Vec<Cell<(u32, u32)>>,
    /// Decoded page of each RAM page, plus one; 0 for none.
    by_ram_page: Vec<u32>,
    /// Counts the times that all was dropped.
    epoch: u64,
    /// Whether somebody takes what `written` collects: ranges of decoded pages that were written to.
    reports: bool,
    written: RefCell<Vec<(u32, u16, u16)>>,
}

/// What a decoded page mirrors.
#[derive(Clone, Copy)]
pub(crate) struct PageOrigin {
    /// Its physical address.
    pub(crate) physical: u64,
    /// Whether decoded instructions may stay in it.
    pub(crate) cached: bool,
}

impl CodeCache {
    pub(crate) fn new(ram_pages: usize) -> Self {
        Self {
            pages: Vec::new(),
            origins: Vec::new(),
            wear: Vec::new(),
            by_ram_page: vec![0; ram_pages],
            epoch: 0,
            reports: false,
            written: RefCell::default(),
        }
    }

    /// The decoded page with this index.
    #[inline(always)]
    pub(crate) fn page(&self, index: u32) -> Option<&CodePage> {
        self.pages.get(index as usize).map(|page| &**page)
    }

    /// The physical address of the page that a decoded page mirrors.
    pub(crate) fn physical(&self, index: u32) -> u64 {
        self.origin(index).map_or(0, |origin| origin.physical)
    }

    /// What the decoded page with this index mirrors.
    pub(crate) fn origin(&self, index: u32) -> Option<PageOrigin> {
        self.origins.get(index as usize).copied()
    }

    /// Whether an engine wants to know of writes to decoded pages.
    pub(crate) fn report_writes(&mut self, wanted: bool) {
        self.reports = wanted;
        self.written.get_mut().clear();
        // Whoever asks from now on knows no page yet.
        self.epoch += 1;
    }

    /// Changes when pages are numbered anew.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes one range of a decoded page that was written to.
    pub(crate) fn take_written(&self) -> Option<(u32, u16, u16)> {
        self.written.borrow_mut().pop()
    }

    /// Whether there is one.
    #[inline(always)]
    pub(crate) fn has_written(&self) -> bool {
        !self.written.borrow().is_empty()
    }

    /// Whether the next new page needs [`CodeCache::clear`] first.
    pub(crate) fn is_full(&self) -> bool {
        self.pages.len() >= PAGES_MAX
    }

    /// The decoded page of a RAM page at a physical address, made empty if there is none yet.
    pub(crate) fn page_for(&mut self, ram: &mut Ram, ram_page: usize, physical: u64) -> u32 {
        let known = self.by_ram_page[ram_page];
        if known != 0 {
            return known - 1;
        }
        let index = self.push(physical, true);
        self.by_ram_page[ram_page] = index + 1;
        ram.mark_code(ram_page);
        index
    }

    /// The decoded page of a RAM page, if there is one.
    pub(crate) fn known_page(&self, ram_page: usize) -> Option<u32> {
        self.by_ram_page.get(ram_page)?.checked_sub(1)
    }

    /// A decoded page whose slots stay empty, so that every fetch from it is checked: for ROM, and for pages of
    /// which PMP allows only a part.
    pub(crate) fn uncached_page_for(&mut self, physical: u64) -> u32 {
        self.push(physical, false)
    }

    fn push(&mut self, physical: u64, cached: bool) -> u32 {
        self.pages.push(Box::new([const { AtomicU64::new(0) }; SLOTS]));
        self.origins.push(PageOrigin { physical, cached });
        self.wear.push(Cell::new((0, WEAR_FIRST)));
        self.pages.len() as u32 - 1
    }

    /// Keeps a decoded instruction, if its page keeps any.
    pub(crate) fn remember(&self, index: u32, slot: usize, packed: Packed) {
        if let (Some(page), Some(PageOrigin { cached: true, .. })) = (self.page(index), self.origin(index)) {
            page[slot % SLOTS].store(packed.0, Ordering::Relaxed);
        }
    }

    /// Empties the slots that a store made stale. True if the page should not count as code any more: what is written
    /// again and again without being executed is data, and data that is taken for code is slow to write. A page that
    /// turns out to be code all the same is given twice as long the next time.
    fn invalidate(&self, stale: StaleCode) -> bool {
        let Some(&known) = self.by_ram_page.get(stale.page as usize) else { return false };
        let Some(index) = known.checked_sub(1) else { return false };
        let (Some(page), Some(wear)) = (self.page(index), self.wear.get(index as usize)) else {
            return false;
        };
        if self.reports {
            self.written.borrow_mut().push((index, stale.first, stale.last));
        }
        let first = (stale.first / 2).saturating_sub(1);
        let mut changed = false;
        for slot in first..=stale.last / 2 {
            changed |=
                page[usize::from(slot) % SLOTS].swap(Packed::EMPTY.0, Ordering::Relaxed) != Packed::EMPTY.0;
        }
        let (writes, writes_max) = wear.get();
        if changed || writes < writes_max {
            wear.set((if changed { 0 } else { writes + 1 }, writes_max));
            return false;
        }
        wear.set((0, writes_max.saturating_mul(2)));
        page.iter().for_each(|slot| slot.store(Packed::EMPTY.0, Ordering::Relaxed));
        if self.reports {
            self.written.borrow_mut().push((index, 0, (2 * SLOTS - 1) as u16));
        }
        true
    }

    /// Empties the slots behind everything that is stale.
    pub(crate) fn drain(&self, ram: &mut Ram) {
        while let Some(stale) = ram.take_stale_code() {
            if self.invalidate(stale) {
                ram.unmark_code(stale.page as usize);
            }
        }
    }

    /// Drops every decoded page. The caller forgets all fetch translations, which hold indices.
    pub(crate) fn clear(&mut self, ram: &mut Ram) {
        self.pages.clear();
        self.origins.clear();
        self.wear.clear();
        self.by_ram_page.fill(0);
        self.written.get_mut().clear();
        self.epoch += 1;
        ram.forget_code();
    }
}
