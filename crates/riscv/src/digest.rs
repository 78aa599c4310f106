//! The state digest (DESIGN 2): hashes of harts, devices and RAM that two replicas compare.
//!
//! Invariant: equal states give equal digests whatever was digested, cached, split or hashed ahead before. RAM's
//! part is kept up to date page by page: only pages written since the previous digest are hashed again, some of
//! them ahead, in portions, so that no guest waits for all of them at once. A page's hash depends on its number,
//! so that swapped pages show; a page of zeros hashes to 0, so that untouched RAM is never read.

use crate::computer::Computer;
use crate::computer::state::MachineV2;
use crate::hart::state::HartV1;
use crate::ram::{PAGE, RAM_BASE, Ram};
use crate::state::encode;
use alloc::vec;
use alloc::vec::Vec;
use pollux_vocab::{Digest, GuestAddr, PAGE_BYTES, PageHash};
use serde::Serialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Most pages a digest names; if more changed, it names none.
pub const CHANGED_PAGES_MAX: usize = 4096;

/// Page hashes, as of the previous digest or later.
pub(crate) struct Digester {
    pages: Vec<u64>,
    sum: u64,
    /// Pages that RAM counts as hashed and that are still to be: each once, since RAM names a page again only
    /// when it is written again, and is asked only when this is empty.
    waiting: Vec<u32>,
    /// Pages written since the previous digest and hashed at least once, each once.
    changed: Vec<u32>,
    /// Which pages are in `changed`.
    is_changed: Vec<bool>,
}

impl Digester {
    /// For RAM that is all zero.
    pub(crate) fn new(pages: usize) -> Self {
        let (waiting, changed) = (Vec::new(), Vec::new());
        Self { pages: vec![0; pages], sum: 0, waiting, changed, is_changed: vec![false; pages] }
    }

    /// Hashes up to `pages_max` of the pages written since they were last hashed. True if there are no more.
    pub(crate) fn prepare(&mut self, ram: &mut Ram, pages_max: usize) -> bool {
        for _ in 0..pages_max {
            if self.waiting.is_empty() {
                self.waiting = ram.take_digest_dirty();
            }
            let Some(page) = self.waiting.pop() else { return true };
            self.hash(ram, page);
        }
        false
    }

    fn hash(&mut self, ram: &Ram, page: u32) {
        let new = hash_page(ram, page as usize);
        let (Some(hash), Some(is_changed)) =
            (self.pages.get_mut(page as usize), self.is_changed.get_mut(page as usize))
        else {
            return;
        };
        self.sum = self.sum.wrapping_sub(*hash).wrapping_add(new);
        *hash = new;
        if !core::mem::replace(is_changed, true) {
            self.changed.push(page);
        }
    }

    /// Brings the hashes up to date. Returns the pages written since the previous call, rising; none if they are
    /// too many to name.
    fn update(&mut self, ram: &mut Ram) -> Vec<u32> {
        while !self.prepare(ram, usize::MAX) {}
        let mut changed = core::mem::take(&mut self.changed);
        for &page in &changed {
            self.is_changed[page as usize] = false;
        }
        if changed.len() > CHANGED_PAGES_MAX {
            return Vec::new();
        }
        changed.sort_unstable();
        changed
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
    xxh3_64(&encode(value))
}

impl Computer {
    /// The digest at this instant. The board's sections are followed by one for the clock and the schedule.
    pub(crate) fn state_digest(&mut self) -> Digest {
        let changed = self.digester.update(&mut self.ram);
        let page = |&page: &u32| PageHash {
            page: RAM_BASE / PAGE_BYTES + u64::from(page),
            hash: self.digester.pages.get(page as usize).copied().unwrap_or(0),
        };
        let changed = changed.iter().map(page).collect();
        let section = |(kind, version, bytes): (u16, u16, Vec<u8>)| {
            xxh3_64_with_seed(&bytes, u64::from(kind) << 16 | u64::from(version))
        };
        let mut devices: Vec<u64> = self.board.save().into_iter().map(section).collect();
        devices.push(hash_of(&(MachineV2::of(self), self.image_hash())));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;
    use crate::config::Config;
    use pollux_machine::Machine;

    fn machine() -> Computer {
        let config =
            Config { ram_bytes: 1 << 20, harts: 1, devices: Vec::new(), rtc_base_ns: 0, ..Config::default() };
        Computer::assemble(&config, Board::new(&config))
    }

    fn write(m: &mut Computer, page: u64, value: u64) {
        m.ram.write_u64(GuestAddr(RAM_BASE + page * PAGE_BYTES), value).expect("the page is RAM");
    }

    #[test]
    fn what_was_hashed_ahead_does_not_show_in_the_digest() {
        let (mut at_once, mut ahead) = (machine(), machine());
        for round in 0..20_u64 {
            for m in [&mut at_once, &mut ahead] {
                (0..40).for_each(|i| write(m, (i * 7 + round) % 50 + round, i));
            }
            // Some pages are hashed, others wait; then some of both kinds are written again, and new ones.
            ahead.prepare_digest(round as usize);
            for m in [&mut at_once, &mut ahead] {
                (0..30).for_each(|i| write(m, (i * 11 + round) % 60 + round, i + 1));
            }
            ahead.prepare_digest(5);
            assert_eq!(at_once.digest(), ahead.digest(), "round {round}");
        }
    }

    #[test]
    fn the_work_of_a_digest_can_be_done_in_portions() {
        let mut m = machine();
        (0..10).for_each(|page| write(&mut m, page, 1));
        assert!(!m.prepare_digest(4));
        assert_eq!(m.digester.changed.len(), 4);
        assert!(!m.prepare_digest(4));
        assert!(m.prepare_digest(4));
        write(&mut m, 3, 2);
        assert!(!m.prepare_digest(1));
        assert!(m.prepare_digest(1));
        assert_eq!(m.digest().changed.len(), 10);
        assert_eq!(m.digest().changed.len(), 0, "nothing has changed since");
    }
}
