//! The state digest (DESIGN 2): hashes of harts, devices and RAM that two replicas compare.
//!
//! Invariant: equal states give equal digests whatever was digested, cached or split before. RAM's part is
//! kept up to date page by page: only pages written since the previous digest are hashed again. A page's hash
//! depends on its number, so that swapped pages show; a page of zeros hashes to 0, so that untouched RAM is
//! never read.

use crate::computer::Computer;
use crate::ram::{PAGE, RAM_BASE, Ram};
use crate::snapshot::{HartV1, MachineV1};
use alloc::vec;
use alloc::vec::Vec;
use pollux_vocab::{Digest, GuestAddr, PAGE_BYTES, PageHash};
use serde::Serialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Most pages a digest names; if more changed, it names none.
pub const CHANGED_PAGES_MAX: usize = 4096;

/// Page hashes as of the previous digest.
pub(crate) struct Digester {
    pages: Vec<u64>,
    sum: u64,
}

impl Digester {
    /// For RAM that is all zero.
    pub(crate) fn new(pages: usize) -> Self {
        Self { pages: vec![0; pages], sum: 0 }
    }

    /// Brings the hashes up to date. Returns the pages that were hashed, rising.
    fn update(&mut self, ram: &mut Ram) -> Vec<u32> {
        let mut dirty = ram.take_digest_dirty();
        for &page in &dirty {
            let new = hash_page(ram, page as usize);
            if let Some(hash) = self.pages.get_mut(page as usize) {
                self.sum = self.sum.wrapping_sub(*hash).wrapping_add(new);
                *hash = new;
            }
        }
        dirty.sort_unstable();
        dirty
    }
}

/// The hash of a page of RAM by its index.
fn hash_page(ram: &Ram, page: usize) -> u64 {
    match ram.page(page) {
        Some(bytes) if *bytes != [0; PAGE] => xxh3_64_with_seed(bytes, page as u64),
        _ => 0,
    }
}

fn hash_of<T: Serialize>(value: &T) -> u64 {
    // Serialising plain structs into a growing buffer cannot fail.
    postcard::to_allocvec(value).map_or(0, |bytes| xxh3_64(&bytes))
}

impl Computer {
    /// The digest at this instant. The board's sections are followed by one for the clock and the schedule.
    pub(crate) fn state_digest(&mut self) -> Digest {
        let dirty = self.digester.update(&mut self.ram);
        let changed = if dirty.len() > CHANGED_PAGES_MAX {
            Vec::new()
        } else {
            let page = |&page: &u32| PageHash {
                page: RAM_BASE / PAGE_BYTES + u64::from(page),
                hash: self.digester.pages.get(page as usize).copied().unwrap_or(0),
            };
            dirty.iter().map(page).collect()
        };
        let section = |(kind, version, bytes): (u16, u16, Vec<u8>)| {
            xxh3_64_with_seed(&bytes, u64::from(kind) << 16 | u64::from(version))
        };
        let mut devices: Vec<u64> = self.board.save().into_iter().map(section).collect();
        devices.push(hash_of(&MachineV1::of(self)));
        let harts = self.harts.iter().map(|hart| hash_of(&HartV1::of(hart))).collect();
        Digest { harts, devices, ram: self.digester.sum, changed }
    }

    /// The hash of one page of RAM as it is, by guest physical page number; 0 outside RAM.
    #[must_use]
    pub fn page_hash(&self, page: u64) -> u64 {
        let index = page.checked_sub(RAM_BASE / PAGE_BYTES).and_then(|index| usize::try_from(index).ok());
        index.map_or(0, |index| hash_page(&self.ram, index))
    }

    /// Flips one bit of RAM (bit 0 to 7 of the byte at `addr`): a fault for tests to detect. Does nothing
    /// outside RAM.
    pub fn flip_ram_bit(&mut self, addr: GuestAddr, bit: u8) {
        let mut byte = [0];
        if self.ram.read(addr, &mut byte).is_ok() {
            byte[0] ^= 1 << (bit & 7);
            // The same address was just read, so it is RAM.
            let _ = self.ram.write(addr, &byte);
        }
    }
}
