//! The translations: where they are, what they were made of, and when they are forgotten.
//!
//! Invariant (DESIGN 2.1): a translation is of the bytes that its page holds; an instruction that ends in the next page
//! looks itself whether that is still the same (`pollux_codegen`'s `straddle`). A write to them, reported by the machine
//! before the next instruction, forgets the whole page. Virtual addresses are known only by the tables of jump targets,
//! one for each fetch context, which is that of one half of an address space: when the meaning of an address changes, so does the context's number.
//!
//! Memory is bounded: when it is full, everything is forgotten at once.

use crate::memory::{CodeMemory, prefer_large_pages};
use pollux_codegen::state::{
    CODE, LOAD_TAGS, NO_TAG, NO_TARGET, PAGES, PAGES_LEN, TABLE, TABLE_CONTEXT, TABLE_ENTRIES,
    TABLE_ENTRY_WORDS, TABLE_IN_MODE, TAGS_END, table_entry,
};
use pollux_codegen::{Behind, Features, Manner, REGION_BYTES_MAX, Region, Stubs, jump_to, stubs, translate};
use pollux_riscv::engine::Guest;
use std::io;

/// Halfwords in a page: places where an instruction can begin.
const HALVES: usize = 2048;

/// What is known of one page. Translated code reads the entries, which come first (`pollux_codegen::state::PAGES`).
#[repr(C)]
struct Page {
    /// Where the block that begins at a halfword is; 0 for nowhere.
    entries: [u32; HALVES],
    /// How often the interpreter came by.
    heat: [u8; HALVES],
    /// Jumps that wait for a block: to which halfword, and where they are.
    links: Vec<(u16, u32)>,
    /// Which halfwords were translated.
    covered: [u64; HALVES / 64],
}

impl Page {
    fn new() -> Box<Self> {
        Box::new(Self {
            entries: [0; HALVES],
            heat: [0; HALVES],
            links: Vec::new(),
            covered: [0; HALVES / 64],
        })
    }

    fn cover(&mut self, first: u16, end: u16) {
        for half in first / 2..end.div_ceil(2) {
            self.covered[usize::from(half) / 64] |= 1 << (half % 64);
        }
    }

    fn is_covered(&self, first: u16, last: u16) -> bool {
        (first / 2..=last / 2).any(|half| self.covered[usize::from(half) / 64] >> (half % 64) & 1 != 0)
    }
}

/// Tables of jump targets that a hart has at most: the kernel and a few processes.
const TABLES_MAX: usize = 8;

/// A table of jump targets (`pollux_codegen::state::TABLE`) and the fetch context that it is for.
struct Table {
    context: u64,
    words: Vec<u64>,
}

/// The fetch context of the hart's `pc`.
fn context_of_pc(guest: &Guest<'_, '_>) -> u64 {
    guest.fetch_contexts()[(guest.pc() >> 63) as usize]
}

/// What follows the page of the hart's `pc`, if that is known.
fn behind(guest: &mut Guest<'_, '_>) -> Option<Behind> {
    let (page, ram_offset) = guest.page_behind()?;
    let bytes = guest.page_bytes(page)?;
    Some(Behind { page, ram_offset, half: u16::from_le_bytes([bytes[0], bytes[1]]) })
}

/// A hart's tables, the one used last at the end.
#[derive(Default)]
struct Targets {
    tables: Vec<Table>,
    /// Memory of forgotten ones.
    spare: Vec<Vec<u64>>,
    context_epoch: u64,
}

impl Targets {
    fn forget(&mut self) {
        self.spare.extend(self.tables.drain(..).map(|table| table.words));
    }

    /// The table for a fetch context.
    fn table(&mut self, context: u64) -> &mut Table {
        if self.tables.last().is_none_or(|table| table.context != context) {
            let table = match self.tables.iter().position(|table| table.context == context) {
                Some(known) => self.tables.remove(known),
                None => {
                    if self.tables.len() == TABLES_MAX {
                        self.spare.push(self.tables.remove(0).words);
                    }
                    let mut words = self.spare.pop().unwrap_or_default();
                    words.clear();
                    words.resize(TABLE_ENTRIES * TABLE_ENTRY_WORDS, NO_TARGET);
                    Table { context, words }
                }
            };
            self.tables.push(table);
        }
        let last = self.tables.len() - 1;
        &mut self.tables[last]
    }
}

/// Everything translated.
pub(crate) struct Cache {
    memory: CodeMemory,
    /// Where the next region goes, and where its cold part does.
    used: u32,
    used_cold: u32,
    stubs: Stubs,
    features: Features,
    /// The RAM that large pages were asked for.
    ram: usize,
    /// By the machine's number of the decoded page.
    pages: Vec<Option<Box<Page>>>,
    page_epoch: u64,
    /// By hart.
    targets: Vec<Targets>,
}

impl Cache {
    pub(crate) fn new(bytes: usize, features: Features) -> io::Result<Self> {
        let mut memory = CodeMemory::new(bytes.max(4 * REGION_BYTES_MAX))?;
        let (code, stubs) = stubs();
        memory.write(0, &code);
        let mut cache = Self {
            memory,
            used: stubs.end,
            used_cold: 0,
            stubs,
            features,
            ram: 0,
            pages: Vec::new(),
            page_epoch: 0,
            targets: Vec::new(),
        };
        cache.clear();
        Ok(cache)
    }

    /// Where cold parts begin: they take about as much as the others.
    fn cold_base(&self) -> u32 {
        (self.memory.len() / 2) as u32
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        self.used = self.stubs.end;
        self.used_cold = self.cold_base();
        self.forget_targets();
    }

    fn forget_targets(&mut self) {
        self.targets.iter_mut().for_each(Targets::forget);
    }

    pub(crate) fn enter_address(&self) -> u64 {
        self.memory.address(self.stubs.enter)
    }

    /// A guest with RAM at this address is about to run.
    pub(crate) fn meet_ram(&mut self, ram: *mut u8, len: u64) {
        if self.ram != ram as usize {
            self.ram = ram as usize;
            prefer_large_pages(ram, len as usize);
        }
    }

    /// This hart is about to run.
    pub(crate) fn meet_hart(&mut self, hart: usize) {
        if self.targets.len() <= hart {
            self.targets.resize_with(hart + 1, Targets::default);
        }
    }

    /// Tells translated code where to look for jump targets: the tables may have been moved since.
    pub(crate) fn prepare_words(&mut self, guest: &mut Guest<'_, '_>) {
        self.catch_up_contexts(guest);
        let (hart, context) = (guest.hart_index(), context_of_pc(guest));
        let [user, supervisor] = guest.views();
        let targets = &mut self.targets[hart];
        let in_mode = [user[0], supervisor[1]].map(|context| targets.table(context).words.as_ptr() as u64);
        let words = guest.words();
        words[TABLE_CONTEXT] = context;
        words[TABLE_IN_MODE] = in_mode[0];
        words[TABLE_IN_MODE + 1] = in_mode[1];
        words[TABLE] = self.targets[hart].table(context).words.as_ptr() as u64;
        words[PAGES] = self.pages.as_ptr() as u64;
        words[PAGES_LEN] = self.pages.len() as u64;
        words[CODE] = self.memory.address(0);
    }

    /// Drops what the machine has made stale. Between translated code only.
    pub(crate) fn catch_up(&mut self, guest: &mut Guest<'_, '_>) {
        if self.page_epoch != guest.page_epoch() {
            self.page_epoch = guest.page_epoch();
            self.clear();
        }
        self.drop_stale(guest);
    }

    /// Forgets what was translated from what has been written to since; returns whether there was something. Translated
    /// code that a step was called from stays where it is, but must be left.
    pub(crate) fn drop_stale(&mut self, guest: &mut Guest<'_, '_>) -> bool {
        let mut changed = false;
        while let Some((page, first, last)) = guest.take_stale() {
            let Some(slot) = self.pages.get_mut(page as usize) else { continue };
            if slot.as_ref().is_some_and(|known| known.is_covered(first, last)) {
                *slot = None;
                self.forget_targets();
                changed = true;
            }
        }
        changed
    }

    /// Drops the hart's jump targets, and its inline caches, if the numbers of contexts have been given out
    /// anew; returns whether they have.
    pub(crate) fn catch_up_contexts(&mut self, guest: &mut Guest<'_, '_>) -> bool {
        let hart = guest.hart_index();
        let epoch = guest.context_epoch();
        if let Some(known) = self.targets.get_mut(hart)
            && known.context_epoch != epoch
        {
            known.context_epoch = epoch;
            known.forget();
            guest.words()[LOAD_TAGS..TAGS_END].fill(NO_TAG);
            return true;
        }
        false
    }

    /// Address of the code for the hart's `pc`, which lies in `page`; translates it if the interpreter has been there
    /// `hot` times. `grouped` is [`Manner`]'s.
    pub(crate) fn code(
        &mut self,
        guest: &mut Guest<'_, '_>,
        page: u32,
        hot: u8,
        grouped: bool,
    ) -> Option<u64> {
        let index = page as usize;
        if self.pages.len() <= index {
            self.pages.resize_with(index + 1, || None);
        }
        let half = (guest.pc() >> 1) as usize % HALVES;
        let known = self.pages[index].get_or_insert_with(Page::new);
        if known.entries[half] == 0 {
            known.heat[half] = known.heat[half].saturating_add(1);
            if known.heat[half] < hot {
                return None;
            }
            self.translate(guest, page, half, grouped);
        }
        let entry = self.pages[index].as_ref()?.entries[half];
        (entry != 0).then(|| self.memory.address(entry))
    }

    fn translate(&mut self, guest: &mut Guest<'_, '_>, page: u32, half: usize, grouped: bool) {
        let full = self.used as usize + REGION_BYTES_MAX > self.cold_base() as usize
            || self.used_cold as usize + REGION_BYTES_MAX > self.memory.len();
        if full {
            self.clear();
            self.pages.resize_with(page as usize + 1, || None);
        }
        guest.mark_code(page);
        // Only what begins at the last halfword may end in the page behind.
        let behind = if half == HALVES - 1 { behind(guest) } else { None };
        let Some(bytes) = guest.page_bytes(page) else { return };
        let known = self.pages[page as usize].get_or_insert_with(Page::new);
        let entries = &known.entries;
        let place_of = |offset: u16| match entries[usize::from(offset) / 2 % HALVES] {
            0 => None,
            place => Some(place),
        };
        let manner = Manner { features: self.features, grouped, upper: guest.pc() >> 63 != 0 };
        let region = translate(
            bytes,
            half as u16 * 2,
            (self.used, self.used_cold),
            &self.stubs,
            manner,
            &place_of,
            behind,
        );
        let Region { bytes, cold, entries, links, ranges } = region;
        let largest = bytes.len().max(cold.len());
        assert!(largest <= REGION_BYTES_MAX, "a region has {largest} bytes: more than was left");
        self.memory.write(self.used, &bytes);
        self.memory.write(self.used_cold, &cold);
        self.used_cold += cold.len() as u32;
        // Blocks begin at multiples of 16: what the host's branch predictor and instruction cache like.
        self.used = (self.used + bytes.len() as u32).next_multiple_of(16);
        for (offset, place) in entries {
            known.entries[usize::from(offset) / 2] = place;
        }
        for (first, end) in ranges {
            known.cover(first, end);
        }
        known.links.extend(links.iter().map(|link| (link.target, link.place)));
        let (memory, entries) = (&mut self.memory, &known.entries);
        known.links.retain(|&(target, place)| match entries[usize::from(target) / 2] {
            0 => true,
            entry => {
                memory.write(place, &jump_to(place, entry));
                false
            }
        });
    }

    /// Lets jumps to the hart's `pc` find `code`.
    pub(crate) fn remember_target(&mut self, guest: &Guest<'_, '_>, code: u64) {
        let pc = guest.pc();
        let entry = table_entry(pc) * TABLE_ENTRY_WORDS;
        let table = self.targets[guest.hart_index()].table(context_of_pc(guest));
        table.words[entry..entry + TABLE_ENTRY_WORDS].copy_from_slice(&[pc, code]);
    }
}
