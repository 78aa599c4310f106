//! One run of one hart: between translated code, the interpreter and the machine.

use crate::cache::Cache;
use crate::enter::enter;
use pollux_codegen::state::{self, StepInfo, after};
use pollux_riscv::engine::{Found, Guest, Page};

const PAGE: u64 = 4096;

/// A run.
pub(crate) struct Run<'r, 'g, 'a, 'b> {
    pub(crate) guest: &'g mut Guest<'a, 'b>,
    cache: &'r mut Cache,
    limit: u64,
    /// Steps that may still be taken. While translated code runs, the engine's word has the truth.
    budget: u64,
    /// Translated code was left in the middle of a block, where it goes on.
    is_resumed: bool,
    /// The contexts of loads and stores when translated code was last left: those that the inline caches are of.
    data_contexts: [u64; 2],
    /// [`Guest::flagged_pages`] when the pages in the inline caches for stores were without flags.
    flagged_pages: u64,
}

impl<'r, 'g, 'a, 'b> Run<'r, 'g, 'a, 'b> {
    pub(crate) fn new(guest: &'g mut Guest<'a, 'b>, cache: &'r mut Cache, limit: u64) -> Self {
        Self {
            guest,
            cache,
            limit,
            budget: limit,
            is_resumed: false,
            data_contexts: [0; 2],
            flagged_pages: 0,
        }
    }

    /// Runs to the limit, or until the machine must look; returns the steps taken. A place is translated when it is
    /// reached for the `hot`th time.
    pub(crate) fn run(mut self, hot: u8) -> u64 {
        self.cache.catch_up(self.guest);
        self.prepare_words();
        while self.budget > 0 && !self.guest.must_leave() {
            match self.find(hot) {
                Some(code) => self.translated(code),
                None => self.interpreted(true),
            }
            if self.guest.has_stale() {
                self.cache.catch_up(self.guest);
            }
        }
        self.limit - self.budget
    }

    fn prepare_words(&mut self) {
        let (ram, flags) = self.guest.ram_addresses();
        self.cache.meet_ram(ram, self.guest.ram_len());
        self.cache.meet_hart(self.guest.hart_index());
        let lines = self.guest.lines();
        let is_alone = self.guest.is_alone();
        let line = self.guest.time_line();
        let words = self.guest.words();
        words[state::RAM] = ram as u64;
        words[state::FLAGS] = flags as u64;
        words[state::CLEAN] = state::MXCSR_CLEAN;
        [words[state::NAN_DOUBLE], words[state::NAN_SINGLE]] = state::CANONICAL_NANS;
        if let Some((steps, base, rate)) = line {
            words[state::TIME_STEPS] = steps.wrapping_add(self.limit);
            words[state::TIME_BASE] = base;
            words[state::TIME_RATE] = rate;
        }
        words[state::FFLAGS_OF..][..state::FFLAGS_TABLE.len()].copy_from_slice(&state::FFLAGS_TABLE);
        words[state::ALONE] = u64::from(is_alone);
        words[state::SHORT] = 0;
        words[state::MISSED] = 0;
        words[state::LINES] = lines;
        words[state::LOAD_TAGS..state::TAGS_END].fill(state::NO_TAG);
    }

    /// Sets the words that depend on what the interpreter may have changed; returns whether floating point is plain.
    /// `remembers` says that loads and stores still mean what they meant.
    fn refresh_words(&mut self, remembers: bool) -> bool {
        let (float, supervisor) = (self.guest.has_plain_float(), self.guest.is_supervisor());
        let zero = self.guest.zeroes_blocks();
        let flagged = self.guest.flagged_pages();
        let tells_time = self.guest.time_line().is_some();
        let time = self.guest.reads_time().map(|reads| u64::from(reads && tells_time));
        let words = self.guest.words();
        words[state::FLOAT] = u64::from(float);
        words[state::SUPERVISOR] = u64::from(supervisor);
        words[state::TIME_IN_MODE..][..state::MODES].copy_from_slice(&time);
        words[state::ZERO] = u64::from(zero[0]);
        words[state::ZERO_IN_MODE] = u64::from(zero[1]);
        words[state::ZERO_IN_MODE + 1] = u64::from(zero[2]);
        // It may have walked page tables, or met code, and flagged them.
        let stores = flagged == std::mem::replace(&mut self.flagged_pages, flagged);
        match (remembers, stores) {
            (true, true) => {}
            (true, false) => words[state::STORE_TAGS..state::TAGS_END].fill(state::NO_TAG),
            (false, _) => words[state::LOAD_TAGS..state::TAGS_END].fill(state::NO_TAG),
        }
        float
    }

    /// Translated code for the hart's `pc`, if there is some by now.
    fn find(&mut self, hot: u8) -> Option<u64> {
        let page = match self.guest.page() {
            Page::Unknown if self.guest.find_page() => self.guest.page(),
            known => known,
        };
        let Page::Cached(page) = page else { return None };
        let code = self.cache.code(self.guest, page, hot, !std::mem::take(&mut self.is_resumed))?;
        self.cache.remember_target(self.guest, code);
        Some(code)
    }

    fn interpreted(&mut self, one_block: bool) {
        let steps = self.guest.interpret(self.limit - self.budget, self.budget, one_block);
        self.budget -= steps;
        self.cache.catch_up_contexts(self.guest);
    }

    fn translated(&mut self, code: u64) {
        let pc = self.guest.pc();
        self.refresh_words(self.guest.data_contexts() == self.data_contexts);
        self.cache.prepare_words(self.guest);
        let words = self.guest.words();
        words[state::PAGE_BASE] = pc & !0xfff;
        words[state::BUDGET] = self.budget;
        let stub = self.cache.enter_address();
        enter(self, stub, code);
        self.data_contexts = self.guest.data_contexts();
        self.accrue();
        let words = self.guest.words();
        self.budget = words[state::BUDGET];
        if std::mem::take(&mut words[state::SHORT]) != 0 {
            // Fewer steps are left than the next block has.
            self.interpreted(false);
        }
    }

    /// Takes over the floating-point exceptions that the host has noted.
    fn accrue(&mut self) {
        let noted = state::fflags(self.guest.words()[state::MXCSR]);
        if noted != 0 {
            self.guest.accrue(noted);
        }
    }

    /// Puts the page into the TLB that an access did not find there, if that is all that it needs; the instruction is
    /// tried again then. One that does not come back must not: what is proved of other pages may hold no longer.
    fn finds_page(&mut self, comes_back: bool) -> bool {
        let words = self.guest.words();
        words[state::AGAIN] = 0;
        let (missed, addr) = (std::mem::take(&mut words[state::MISSED]), words[state::MISSED_AT]);
        if missed == 0 {
            return false;
        }
        match self.guest.find_data(addr, missed == 2) {
            Found::No => return false,
            Found::WithNewTables if !comes_back => return false,
            Found::WithNewTables => {
                self.guest.words()[state::STORE_TAGS..state::TAGS_END].fill(state::NO_TAG);
            }
            Found::Yes => {}
        }
        self.guest.words()[state::AGAIN] = 1;
        true
    }

    /// Has one instruction of translated code interpreted.
    pub(crate) fn step(&mut self, info: u32) -> u32 {
        let info = StepInfo::unpack(info);
        self.accrue();
        if self.finds_page(info.comes_back) {
            return after::NEXT;
        }
        let words = self.guest.words();
        let in_block = words[state::BUDGET];
        let before = in_block.wrapping_add(u64::from(info.unexecuted));
        let pc = words[state::PAGE_BASE].wrapping_add(u64::from(info.offset));
        if self.guest.shortcut(pc) {
            return self.after_shortcut(info, pc, before - 1);
        }
        self.guest.set_pc(pc);
        if pc % PAGE == PAGE - 2 && info.len == 4 {
            // It ends in the next page, of which the TLB for fetches may have lost the entry.
            self.guest.page_behind();
        }
        let (contexts, data_contexts) = (self.guest.fetch_contexts(), self.guest.data_contexts());
        let views = self.guest.views();
        let steps = self.guest.interpret(self.limit - before, 1, false);
        let budget = before - steps;
        let renumbered = self.cache.catch_up_contexts(self.guest);
        // Tables of jump targets are ready for the modes that the views are of.
        let is_elsewhere =
            renumbered || self.guest.fetch_contexts() != contexts || self.guest.views() != views;
        if is_elsewhere {
            self.cache.prepare_words(self.guest);
        }
        let float = self.refresh_words(self.guest.data_contexts() == data_contexts);
        let changed = self.guest.has_stale() && self.cache.drop_stale(self.guest);
        let leave = self.guest.must_leave() || changed || steps == 0;
        let sequential = self.guest.pc() == pc.wrapping_add(u64::from(info.len))
            && !is_elsewhere
            && (float || !info.needs_float)
            && info.comes_back;
        if !leave && sequential {
            return after::NEXT;
        }
        self.is_resumed = !info.comes_back;
        self.guest.words()[state::BUDGET] = budget;
        if leave || budget == 0 { after::LEAVE } else { after::JUMP }
    }

    /// How translated code goes on behind an instruction that did no more than compute: only that floating point is dirty
    /// may be news.
    fn after_shortcut(&mut self, info: StepInfo, pc: u64, budget: u64) -> u32 {
        let float = self.guest.has_plain_float();
        self.guest.words()[state::FLOAT] = u64::from(float);
        if info.comes_back && (float || !info.needs_float) {
            return after::NEXT;
        }
        self.guest.set_pc(pc.wrapping_add(u64::from(info.len)));
        self.is_resumed = !info.comes_back;
        self.guest.words()[state::BUDGET] = budget;
        if budget == 0 { after::LEAVE } else { after::JUMP }
    }
}
