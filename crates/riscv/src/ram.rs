//! Guest RAM, and one byte of flags per page that keeps every cache honest.
//!
//! Why flags: the caches of the machine (translations, decoded instructions, page hashes, checkpoints) must
//! never show (DESIGN 2.1). Whoever caches something about a page flags the page; every store looks at the
//! flags, and only a store to a flagged page pays for more than the look.
//!
//! Invariant: no byte of RAM changes except through [`Ram::write`] and its siblings here, so no cache can be
//! left stale. What a store made stale is noted here and dropped by the hart before its next instruction.
//!
//! Not here: what is cached (`mmu`, `hart::code`, `digest`); memory-mapped devices (`board`).

mod frozen;
mod tables;

use alloc::vec;
use alloc::vec::Vec;
use frozen::Frozen;
use pollux_machine::Memory;
use pollux_vocab::{GuestAddr, PAGE_BYTES};
pub(crate) use tables::{StaleTranslation, TablePlace};

/// Guest physical address of the first byte of RAM, as on QEMU's `virt` board.
pub const RAM_BASE: u64 = 0x8000_0000;

/// Bytes in a page, as an index.
pub(crate) const PAGE: usize = PAGE_BYTES as usize;

/// Why a page is flagged.
pub(crate) mod flag {
    /// Instructions decoded from this page are cached.
    pub(crate) const CODE: u8 = 1;
    /// Translations cached from page-table entries in this page.
    pub(crate) const PAGE_TABLE: u8 = 2;
    /// The page's hash in the digest is up to date.
    pub(crate) const DIGEST_CLEAN: u8 = 4;
    /// Not written since the last checkpoint.
    pub(crate) const CLEAN: u8 = 8;
    /// Part of a frozen image: copy before the first write.
    pub(crate) const FROZEN: u8 = 16;
    /// The upper half of this root table is known by its content (`mmu`).
    pub(crate) const ROOT: u8 = 32;
}

/// The address range is not (all) RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("guest physical address {addr:#x}, {len} bytes: not in RAM")]
pub struct BadAddress {
    /// First byte asked for.
    pub addr: u64,
    /// Bytes asked for.
    pub len: u64,
}

/// A range of halfwords of one page whose decoded instructions a store made stale: byte offsets in the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StaleCode {
    pub(crate) page: u32,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// The machine's RAM.
pub struct Ram {
    bytes: Memory,
    flags: Vec<u8>,
    /// Counts the pages that were flagged as tables or as code: as long as it stays the same, none has become one.
    flagged: u64,
    /// Pages with `PAGE_TABLE` set.
    table_pages: Vec<u32>,
    /// Of each page with `PAGE_TABLE` set, what it has been used as.
    table_places: Vec<TablePlace>,
    /// Writes to them since the first of them was flagged.
    table_writes: u32,
    /// A bit for each page that was ever written; all others are zero.
    written: Vec<u64>,
    /// Pages written since the digest last hashed them.
    digest_dirty: Vec<u32>,
    /// Pages written since the last checkpoint, once tracking is on.
    checkpoint_dirty: Vec<u32>,
    /// What is kept for the sake of an image.
    frozen: Frozen,
    stale_code: Vec<StaleCode>,
    /// Some of what is stale, in every address space.
    stale_pages: Vec<StaleTranslation>,
    stale_translations: bool,
    /// Any of the three above: one load for the store path to look at.
    stale: bool,
}

impl Ram {
    /// RAM of `bytes` bytes (rounded down to whole pages), all zero. The host maps pages on first use.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let pages = usize::try_from(bytes / PAGE_BYTES).unwrap_or(0);
        Self::of(Memory::Own(vec![0; pages * PAGE].into_boxed_slice()))
    }

    /// RAM in this memory, which is whole pages and all zero.
    pub(crate) fn of(memory: Memory) -> Self {
        let pages = memory.len() / PAGE;
        Self {
            bytes: memory,
            flags: vec![flag::DIGEST_CLEAN; pages],
            flagged: 0,
            table_pages: Vec::new(),
            table_places: vec![TablePlace::Other; pages],
            table_writes: 0,
            written: vec![0; pages.div_ceil(64)],
            digest_dirty: Vec::new(),
            checkpoint_dirty: Vec::new(),
            frozen: Frozen::default(),
            stale_code: Vec::new(),
            stale_pages: Vec::new(),
            stale_translations: false,
            stale: false,
        }
    }

    /// Takes another RAM's place, with nothing flagged and nothing listed; returns the memory that goes. A frozen image
    /// stays, and keeps the memory that it is of.
    pub(crate) fn replace(&mut self, next: Self) -> Option<Memory> {
        let flagged = self.flagged + next.flagged + 1;
        let old = core::mem::replace(self, next);
        self.flagged = flagged;
        self.frozen = old.frozen;
        self.frozen.outlive(old.bytes, old.written)
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether there is no RAM at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.flags.len()
    }

    /// Where `addr` lies in RAM, if all `len` bytes from there do.
    #[inline(always)]
    pub(crate) fn offset(&self, addr: u64, len: u64) -> Option<usize> {
        let offset = addr.wrapping_sub(RAM_BASE);
        let size = self.bytes.len() as u64;
        (len <= size && offset <= size - len).then_some(offset as usize)
    }

    fn range(&self, addr: GuestAddr, len: usize) -> Result<usize, BadAddress> {
        self.offset(addr.0, len as u64).ok_or(BadAddress { addr: addr.0, len: len as u64 })
    }

    /// The `len` bytes at `addr`, if they are RAM.
    #[must_use]
    pub fn slice(&self, addr: GuestAddr, len: u64) -> Option<&[u8]> {
        let at = self.offset(addr.0, len)?;
        self.bytes.get(at..at + len as usize)
    }

    /// Copies RAM at `addr` out into `to`.
    pub fn read(&self, addr: GuestAddr, to: &mut [u8]) -> Result<(), BadAddress> {
        let at = self.range(addr, to.len())?;
        to.copy_from_slice(&self.bytes[at..at + to.len()]);
        Ok(())
    }

    /// Copies `from` into RAM at `addr`: every store of every hart and every DMA, in the end.
    pub fn write(&mut self, addr: GuestAddr, from: &[u8]) -> Result<(), BadAddress> {
        let start = self.range(addr, from.len())?;
        let mut at = start;
        let mut rest = from;
        while !rest.is_empty() {
            let len = rest.len().min(PAGE - at % PAGE);
            let (now, later) = rest.split_at(len);
            if self.flags[at / PAGE] != 0 {
                self.before_write(at, now, true);
            }
            self.bytes[at..at + len].copy_from_slice(now);
            at += len;
            rest = later;
        }
        Ok(())
    }

    /// Reads a little-endian halfword.
    pub fn read_u16(&self, addr: GuestAddr) -> Result<u16, BadAddress> {
        self.range(addr, 2).map(|at| u16::from_le_bytes(self.load(at)))
    }

    /// Reads a little-endian word.
    pub fn read_u32(&self, addr: GuestAddr) -> Result<u32, BadAddress> {
        self.range(addr, 4).map(|at| u32::from_le_bytes(self.load(at)))
    }

    /// Reads a little-endian doubleword.
    pub fn read_u64(&self, addr: GuestAddr) -> Result<u64, BadAddress> {
        self.range(addr, 8).map(|at| u64::from_le_bytes(self.load(at)))
    }

    /// Writes a little-endian halfword.
    pub fn write_u16(&mut self, addr: GuestAddr, value: u16) -> Result<(), BadAddress> {
        self.write(addr, &value.to_le_bytes())
    }

    /// Writes a little-endian word.
    pub fn write_u32(&mut self, addr: GuestAddr, value: u32) -> Result<(), BadAddress> {
        self.write(addr, &value.to_le_bytes())
    }

    /// Writes a little-endian doubleword.
    pub fn write_u64(&mut self, addr: GuestAddr, value: u64) -> Result<(), BadAddress> {
        self.write(addr, &value.to_le_bytes())
    }

    /// `N` bytes at an offset that is known to be in RAM (zeros, never a panic, if it is not).
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&self, at: usize) -> [u8; N] {
        match self.bytes.get(at..at.wrapping_add(N)).and_then(|b| b.first_chunk::<N>()) {
            Some(bytes) => *bytes,
            None => [0; N],
        }
    }

    /// Stores `N` bytes at an offset within one page. Returns whether something cached is stale now.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(&mut self, at: usize, value: [u8; N]) -> bool {
        match self.flags.get(at / PAGE) {
            Some(0) => {}
            Some(_) => self.before_write(at, &value, true),
            None => return false,
        }
        if let Some(bytes) = self.bytes.get_mut(at..at.wrapping_add(N)) {
            bytes.copy_from_slice(&value);
        }
        self.stale
    }

    /// Whether the page at `at` has any flag, so that a store to it is more than a store.
    #[inline(always)]
    pub(crate) fn is_flagged(&self, at: usize) -> bool {
        self.flags.get(at / PAGE).is_none_or(|flags| *flags != 0)
    }

    /// Sets accessed and dirty bits in a page-table entry. A cached translation never depends on those bits
    /// being clear (it is cached only once they are set), so this makes no translation stale.
    pub(crate) fn store_pte(&mut self, at: usize, pte: u64) {
        let value = pte.to_le_bytes();
        if self.flags[at / PAGE] != 0 {
            self.before_write(at, &value, false);
        }
        self.bytes[at..at + 8].copy_from_slice(&value);
    }

    /// Does what the flags of the page ask for before `new` replaces the bytes at `at`.
    #[cold]
    #[inline(never)]
    fn before_write(&mut self, at: usize, new: &[u8], translations: bool) {
        let page = at / PAGE;
        let flags = self.flags[page];
        if flags & flag::CODE != 0 && !new.is_empty() {
            let first = (at % PAGE) as u16;
            let last = first + (new.len() - 1) as u16;
            self.stale_code.push(StaleCode { page: page as u32, first, last });
            self.stale = true;
        }
        if flags & (flag::PAGE_TABLE | flag::ROOT) != 0 && translations {
            self.before_table_write(at, new);
        }
        if flags & flag::FROZEN != 0 {
            self.keep_frozen(page);
        }
        if flags & flag::DIGEST_CLEAN != 0 {
            self.digest_dirty.push(page as u32);
            // The first write to a page comes by here, for every page begins with this flag.
            self.written[page / 64] |= 1 << (page % 64);
        }
        if flags & flag::CLEAN != 0 {
            self.checkpoint_dirty.push(page as u32);
        }
        self.flags[page] &= flag::CODE | flag::PAGE_TABLE | flag::ROOT;
    }

    /// Where the bytes and the flags are, for an engine that stores to pages without flags by itself.
    pub(crate) fn addresses(&mut self) -> (*mut u8, *const u8) {
        (self.bytes.as_mut_ptr(), self.flags.as_ptr())
    }

    /// Flags the page at `at` as one whose decoded instructions are cached.
    pub(crate) fn mark_code(&mut self, page: usize) {
        self.flagged += u64::from(self.flags[page] & flag::CODE == 0);
        self.flags[page] |= flag::CODE;
    }

    /// How many pages have been flagged as tables or as code, those that were more often counted as often.
    pub(crate) fn flagged(&self) -> u64 {
        self.flagged
    }

    /// Flags a page as free of cached instructions.
    pub(crate) fn unmark_code(&mut self, page: usize) {
        self.flags[page] &= !flag::CODE;
    }

    /// Flags every page as free of cached instructions.
    pub(crate) fn forget_code(&mut self) {
        self.flags.iter_mut().for_each(|f| *f &= !flag::CODE);
        self.stale_code.clear();
        self.stale = self.stale_translations();
    }

    /// Whether a store has made anything cached stale.
    #[inline(always)]
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether cached translations are stale, some or all.
    pub(crate) fn stale_translations(&self) -> bool {
        self.stale_translations || !self.stale_pages.is_empty()
    }

    /// Takes one range of stale decoded instructions.
    pub(crate) fn take_stale_code(&mut self) -> Option<StaleCode> {
        let stale = self.stale_code.pop();
        self.stale = self.stale_translations() || !self.stale_code.is_empty();
        stale
    }

    /// The pages that may be other than zero: their numbers, and their bytes. The host need not provide the others.
    pub(crate) fn written_pages(&self) -> impl Iterator<Item = (u32, &[u8; PAGE])> {
        let is_written = |page: &usize| self.written[page / 64] >> (page % 64) & 1 != 0;
        let pages = (0..self.pages()).filter(is_written);
        pages.filter_map(|page| Some((page as u32, self.page(page)?)))
    }

    /// One page's bytes.
    pub(crate) fn page(&self, page: usize) -> Option<&[u8; PAGE]> {
        self.bytes.get(page.checked_mul(PAGE)?..)?.first_chunk()
    }

    /// Takes the list of pages written since their hashes were taken, and flags them clean.
    pub(crate) fn take_digest_dirty(&mut self) -> Vec<u32> {
        let dirty = core::mem::take(&mut self.digest_dirty);
        for &page in &dirty {
            self.flags[page as usize] |= flag::DIGEST_CLEAN;
        }
        dirty
    }

    /// Takes the list of pages written since the previous call, rising, and starts a new list. `first` turns
    /// tracking on and returns every page.
    pub fn take_checkpoint_dirty(&mut self, first: bool) -> Vec<u32> {
        let mut dirty = core::mem::take(&mut self.checkpoint_dirty);
        if first {
            self.flags.iter_mut().for_each(|f| *f |= flag::CLEAN);
            return (0..self.flags.len() as u32).collect();
        }
        for &page in &dirty {
            self.flags[page as usize] |= flag::CLEAN;
        }
        dirty.sort_unstable();
        dirty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: GuestAddr = GuestAddr(RAM_BASE);

    #[test]
    fn addresses_outside_ram_are_refused_without_wrapping() {
        let mut ram = Ram::new(8192);
        for addr in [0, RAM_BASE - 1, RAM_BASE + 8185, RAM_BASE + 8192, u64::MAX, u64::MAX - 7] {
            assert!(ram.read_u64(GuestAddr(addr)).is_err(), "{addr:#x}");
            assert!(ram.write_u64(GuestAddr(addr), 1).is_err(), "{addr:#x}");
        }
        assert!(ram.read_u64(GuestAddr(RAM_BASE + 8184)).is_ok());
        assert!(ram.slice(BASE, u64::MAX).is_none());
    }

    #[test]
    fn a_write_across_pages_dirties_each_page_once() {
        let mut ram = Ram::new(4 * PAGE_BYTES);
        ram.write(GuestAddr(RAM_BASE + 4090), &[1; 5000]).unwrap();
        ram.write(GuestAddr(RAM_BASE + 4090), &[2; 5000]).unwrap();
        assert_eq!(ram.take_digest_dirty(), [0, 1, 2]);
        ram.write_u16(GuestAddr(RAM_BASE + 4095), 7).unwrap();
        assert_eq!(ram.take_digest_dirty(), [0, 1]);
    }
}
