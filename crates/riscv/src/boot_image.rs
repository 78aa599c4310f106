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
use crate::board::state::ResetV1;
use crate::computer::{Computer, new_ram};
use crate::config::{Config, OnPanic, OnReset, RNG_SEED_BYTES};
use crate::digest::Digester;
use crate::hart::{Activity, Hart};
use crate::ram::{PAGE, RAM_BASE, Ram};
use crate::sbi_host::enter_supervisor;
use crate::snapshot::entries::Entries;
use crate::state::{Fields, Saved, encode};
use alloc::boxed::Box;
use alloc::vec::Vec;
use pollux_vocab::{GuestAddr, PAGE_BYTES};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Pages of the next life's RAM that are filled in one go: a millisecond or so, after which the world is looked at.
const PORTION_PAGES: usize = 1024;
/// Bytes of an earlier life's RAM that are given back in one go.
const RETIRED_PORTION_BYTES: usize = 64 << 20;
/// Most bytes that the places of a boot image take in a snapshot.
const PLACES_BYTES_MAX: usize = 64;

/// Memory of an earlier life, which the host gets back in portions: all at once would hold a large VM up for longer than
/// its backup waits for a sign of life.
#[derive(Debug, Default)]
pub(crate) struct Retired(Vec<u8>);

impl Retired {
    pub(crate) fn of(bytes: Box<[u8]>) -> Self {
        Self(bytes.into_vec())
    }

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

    /// Its pages, in order: number and content.
    pub(crate) fn entry(&self, index: usize) -> Option<(u32, &[u8])> {
        Some((*self.pages.get(index)?, self.contents.get(index * PAGE..)?.get(..PAGE)?))
    }

    fn entries(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.pages.iter().copied().zip(self.contents.chunks_exact(PAGE))
    }

    /// The places, as they stand before the pages in a snapshot.
    pub(crate) fn places(&self) -> Vec<u8> {
        encode(&self.state.save())
    }

    /// Appends the image as a snapshot has it: places, then pages.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.places());
        for (page, content) in self.entries() {
            out.extend_from_slice(&page.to_le_bytes());
            out.extend_from_slice(content);
        }
    }
}

/// A boot image as its bytes come out of a snapshot.
#[derive(Default)]
pub(crate) struct ImageReader {
    /// The beginning of the places, until they are all there.
    begun: Vec<u8>,
    state: Option<ResetState>,
    entries: Entries,
    pages: Vec<u32>,
    contents: Vec<u8>,
}

impl ImageReader {
    /// Takes the next bytes; `None` if that is no boot image.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let mut bytes = bytes;
        if self.state.is_none() {
            let missing = PLACES_BYTES_MAX.saturating_sub(self.begun.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(missing);
            self.begun.extend_from_slice(head);
            bytes = rest;
            let begun = core::mem::take(&mut self.begun);
            match ResetV1::read(&begun) {
                Ok((state, behind)) => {
                    self.state = Some(ResetState::revive(state));
                    self.push_entries(behind)?;
                }
                Err(_) if begun.len() < PLACES_BYTES_MAX => self.begun = begun,
                Err(_) => return None,
            }
        }
        self.push_entries(bytes)
    }

    fn push_entries(&mut self, bytes: &[u8]) -> Option<()> {
        let Self { entries, pages, contents, .. } = self;
        entries.push(
            bytes,
            |_| PAGE,
            |page, content| {
                let follows = pages.last().is_none_or(|last| *last < page);
                pages.push(page);
                contents.extend_from_slice(content);
                follows.then_some(())
            },
        )
    }

    /// The image, now that all bytes are there; `None` if it is none for this much RAM.
    pub(crate) fn finish(self, ram_bytes: u64) -> Option<BootImage> {
        let fits = self.pages.last().is_none_or(|last| u64::from(*last) < ram_bytes / PAGE_BYTES);
        let state = self.state.filter(|_| fits && self.entries.is_whole())?;
        Some(BootImage::assemble(state, self.pages, self.contents))
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
        let next = self.next_ram.take();
        let next = next.or_else(|| Some((new_ram(&mut *self.memory, self.ram.len())?, 0)));
        let Some((mut ram, filled)) = next else {
            // The host has not got the memory to give at present.
            self.image = Some(image);
            return false;
        };
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
        let old = self.ram.replace(ram);
        self.retire(old);
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
