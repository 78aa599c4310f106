//! What a reset finds in memory again, and the reset itself: the machine begins a new life in place.
//!
//! Invariants: a reset happens right before a step that is then taken, so that a run that stops has not half reset, and
//! an input finds the same machine on every replica. Icount and clock go on; RAM, harts and devices are as they were when
//! the machine was built, except that what the world still does for a device stays counted, request numbers are never
//! used again, the real-time clock keeps its time, and each life has a seed of its own.
//!
//! The image is kept as pages, not as files: it is what loading the files came to, nobody has to trust their content a
//! second time, and it travels in the snapshot, so that a backup needs no files.

use crate::board::ResetState;
use crate::computer::Computer;
use crate::config::{Config, OnPanic, OnReset, RNG_SEED_BYTES};
use crate::digest::Digester;
use crate::hart::{Activity, Hart};
use crate::ram::{PAGE, RAM_BASE, Ram};
use crate::sbi_host::enter_supervisor;
use alloc::vec::Vec;
use pollux_vocab::{GuestAddr, PAGE_BYTES};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Pages of the next life's RAM that are filled in one go: a millisecond or so, after which the world is looked at.
const PORTION_PAGES: usize = 1024;
/// Bytes of an earlier life's RAM that are given back in one go.
const RETIRED_PORTION_BYTES: usize = 64 << 20;
/// Bytes of a page with its number before it, as a snapshot has them.
const ENTRY_BYTES: usize = 4 + PAGE;

/// Memory of an earlier life, which the host gets back in portions: all at once would hold a large VM up for longer than
/// its backup waits for a sign of life.
#[derive(Debug, Default)]
pub(crate) struct Retired(Vec<u8>);

impl Retired {
    pub(crate) fn shrink(&mut self) {
        if !self.0.is_empty() {
            self.0.truncate(self.0.len().saturating_sub(RETIRED_PORTION_BYTES));
            self.0.shrink_to_fit();
        }
    }
}

/// RAM as reset finds it, and where the harts begin.
#[derive(Debug)]
pub(crate) struct BootImage {
    state: ResetState,
    /// Pages that are not all zero, rising, and their contents one after another.
    pages: Vec<u32>,
    contents: Vec<u8>,
    hash: u64,
}

impl BootImage {
    /// Of a machine that has been loaded and has not run, if it is one that is ever reset in place.
    pub(crate) fn of(config: &Config, state: &ResetState, ram: &Ram) -> Option<Self> {
        if !is_kept(config) {
            return None;
        }
        let (mut pages, mut contents) = (Vec::new(), Vec::new());
        for (page, content) in ram.written_pages().filter(|(_, content)| **content != [0; PAGE]) {
            pages.push(page);
            contents.extend_from_slice(content);
        }
        Some(Self::assemble(state.clone(), pages, contents))
    }

    fn assemble(state: ResetState, pages: Vec<u32>, contents: Vec<u8>) -> Self {
        let numbers = pages.iter().fold(0, |hash, page| xxh3_64_with_seed(&page.to_le_bytes(), hash));
        let places = [state.pc, state.fdt, state.rng_seed, u64::from(state.direct)];
        let places = places.iter().fold(numbers, |hash, place| xxh3_64_with_seed(&place.to_le_bytes(), hash));
        let hash = xxh3_64_with_seed(&contents, places);
        Self { state, pages, contents, hash }
    }

    /// What a reset finds in a page, if that is not all zero.
    pub(crate) fn page(&self, page: u32) -> Option<&[u8; PAGE]> {
        let index = self.pages.binary_search(&page).ok()?;
        self.contents.get(index * PAGE..)?.first_chunk()
    }

    fn entries(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.pages.iter().copied().zip(self.contents.chunks_exact(PAGE))
    }

    /// Appends the image as a snapshot has it: places, then pages.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        // Serialising a plain struct into a growing buffer cannot fail.
        out.extend_from_slice(&postcard::to_allocvec(&self.state).unwrap_or_default());
        for (page, content) in self.entries() {
            out.extend_from_slice(&page.to_le_bytes());
            out.extend_from_slice(content);
        }
    }

    /// The image that a snapshot has; `None` if it is none for this much RAM.
    pub(crate) fn read(bytes: &[u8], ram_bytes: u64) -> Option<Self> {
        let (state, rest) = postcard::take_from_bytes::<ResetState>(bytes).ok()?;
        let entries = rest.chunks_exact(ENTRY_BYTES);
        if !entries.remainder().is_empty() {
            return None;
        }
        let mut pages = Vec::with_capacity(entries.len());
        let mut contents = Vec::with_capacity(entries.len() * PAGE);
        for entry in entries {
            let (page, content) = entry.split_first_chunk::<4>()?;
            let page = u32::from_le_bytes(*page);
            let follows = pages.last().is_none_or(|last| *last < page);
            if !follows || u64::from(page) >= ram_bytes / PAGE_BYTES {
                return None;
            }
            pages.push(page);
            contents.extend_from_slice(content);
        }
        Some(Self::assemble(state, pages, contents))
    }
}

/// Whether a machine is one that begins again in place.
pub(crate) fn is_kept(config: &Config) -> bool {
    config.on_reset == OnReset::Restart || config.on_panic == OnPanic::Restart
}

/// The seed of a life, by how many came before it. Whoever knows one life's seed knows the later ones': a guest, and that
/// is the same guest.
fn seed_of(first: &[u8; RNG_SEED_BYTES], restarts: u64) -> [u8; RNG_SEED_BYTES] {
    let mut seed = *first;
    if restarts > 0 {
        for (part, word) in (0..).zip(seed.chunks_exact_mut(8)) {
            let number = xxh3_64_with_seed(&restarts.to_le_bytes(), part);
            word.copy_from_slice(&xxh3_64_with_seed(first, number).to_le_bytes());
        }
    }
    seed
}

impl Computer {
    /// Says what a digest is to say of the boot image.
    pub(crate) fn image_hash(&self) -> u64 {
        self.image.as_ref().map_or(0, |image| image.hash)
    }

    /// Puts the harts where reset puts them.
    pub(crate) fn enter(&mut self, state: &ResetState) {
        self.builtin_sbi = state.direct;
        for hart in &mut self.harts {
            if state.direct {
                enter_supervisor(hart, state.pc, state.fdt);
                if hart.csrs.hart_id != 0 {
                    hart.activity = Activity::Stopped;
                }
            } else {
                hart.pc = state.pc;
            }
        }
    }

    /// Prepares a portion of the next life, or, if all is prepared, begins it here and now. True: it has begun. Until then
    /// the machine is as it was, whatever is applied to it.
    pub(crate) fn restart(&mut self) -> bool {
        let Some(image) = self.image.take() else {
            self.board.give_up_restart();
            return true;
        };
        let (mut ram, filled) = self.next_ram.take().unwrap_or_else(|| (Ram::new(self.ram.len()), 0));
        for (page, content) in image.entries().skip(filled).take(PORTION_PAGES) {
            // The image is of this RAM.
            let _ = ram.write(GuestAddr(RAM_BASE + u64::from(page) * PAGE_BYTES), content);
        }
        if filled + PORTION_PAGES < image.pages.len() {
            self.next_ram = Some((ram, filled + PORTION_PAGES));
            self.image = Some(image);
            return false;
        }
        self.clear_caches();
        self.retired = Retired(self.ram.replace(ram));
        self.digester = Digester::new(self.ram.pages());
        self.board.restart(&self.config);
        let seed = seed_of(&self.config.rng_seed, self.board.restarts());
        let _ = self.ram.write(GuestAddr(image.state.rng_seed), &seed);
        for (hart, id) in self.harts.iter_mut().zip(0..) {
            let (steps, trapped) = (hart.steps, hart.trapped);
            *hart = Hart::new(id);
            (hart.steps, hart.trapped) = (steps, trapped);
        }
        self.enter(&image.state);
        (self.current, self.quantum_left) = (0, 0);
        self.image = Some(image);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_has_a_seed_of_its_own_and_the_first_has_the_one_that_was_chosen() {
        let first = [7; RNG_SEED_BYTES];
        assert_eq!(seed_of(&first, 0), first);
        let lives: alloc::collections::BTreeSet<_> = (0..100).map(|life| seed_of(&first, life)).collect();
        assert_eq!(lives.len(), 100);
        assert_ne!(seed_of(&first, 1), seed_of(&[8; RNG_SEED_BYTES], 1));
    }
}
