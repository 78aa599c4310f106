//! The seam where a translating engine takes the inner loop's place.
//!
//! Invariant (DESIGN 2.1): an engine never shows. Whatever it does with the hart and RAM it is lent must be what
//! the interpreter would have done, step for step; [`Guest::interpret`] is the interpreter, for all that an engine
//! would rather not do itself.
//!
//! The machine stays free of `unsafe`: an engine that writes registers and RAM through pointers gets addresses here,
//! and answers for them itself (`pollux-jit`). [`layout`] says where things lie.
//!
//! Not here: translation (`pollux-codegen`), executable memory (`pollux-jit`).

use crate::hart::code::PageOrigin;
use crate::hart::csr::{envcfg, status};
use crate::hart::execute::{self, Env};
use crate::hart::memory;
use crate::hart::{Access, Hart, Mode, fetch, shortcut, system};
use crate::mmu::PAGE_MASK;
use crate::ram::{PAGE, Ram};
use pollux_isa::csr;

/// Runs harts in the interpreter's place.
pub trait Engine: Send {
    /// Runs the hart from its `pc` for at most `limit` steps, exactly as [`Guest::interpret`] would, and returns how
    /// many it ran. It may run fewer, even none, only if the guest says so ([`Guest::must_leave`]).
    fn run(&mut self, guest: &mut Guest<'_, '_>, limit: u64) -> u64;
    /// Forgets all translations, for the tests that prove that they do not show.
    fn clear(&mut self);
}

/// Where the parts of a hart lie: byte offsets from [`Guest::hart_address`]. All are little-endian doublewords.
pub mod layout {
    use crate::hart::Hart;
    use crate::hart::csr::Csrs;
    use crate::mmu::{Contexts, ENTRIES, Entry, FetchEntry, Tlb};
    use core::mem::offset_of;

    /// Integer registers: `X + 8 * n`.
    pub const X: usize = offset_of!(Hart, x);
    /// Floating-point registers: `F + 8 * n`.
    pub const F: usize = offset_of!(Hart, f);
    /// The program counter.
    pub const PC: usize = offset_of!(Hart, pc);
    /// Accrued floating-point exceptions, as in `fflags`.
    pub const FFLAGS: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, fflags);
    /// `mstatus`, but for SD.
    pub const MSTATUS: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, mstatus);
    /// `mie`.
    pub const MIE: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, mie);
    /// `mip`, but for the lines.
    pub const MIP: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, mip);
    /// `sscratch`.
    pub const SSCRATCH: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, sscratch);
    /// `sepc`, always even.
    pub const SEPC: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, sepc);
    /// `scause`.
    pub const SCAUSE: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, scause);
    /// `stval`.
    pub const STVAL: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, stval);
    /// The privilege mode, one byte: 0 is U, 1 is S.
    pub const MODE: usize = offset_of!(Hart, mode);
    /// `medeleg`.
    pub const MEDELEG: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, medeleg);
    /// `stvec`.
    pub const STVEC: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, stvec);
    /// `frm`.
    pub const FRM: usize = offset_of!(Hart, csrs) + offset_of!(Csrs, frm);
    /// Steps that did not retire.
    pub const TRAPPED: usize = offset_of!(Hart, trapped);
    /// Guest physical address of the doubleword that `lr` reserved; 0 if there is none.
    pub const RESERVATION: usize = offset_of!(Hart, reservation);
    /// Words that belong to the engine: [`ENGINE_WORDS`] of them.
    pub const ENGINE: usize = offset_of!(Hart, engine);
    /// How many words the engine has.
    pub const ENGINE_WORDS: usize = 240;
    /// Address of the cached translations for loads: an array of entries of two words, a tag and what to add to a
    /// virtual address for its offset in RAM. The entry for an address is number `(address ^ mix) >> 12` modulo
    /// [`TLB_ENTRIES`], with the mix of the address's half in [`DATA_MIXES`]; it holds if the tag is
    /// `address & (!0xfff | bytes - 1) | context`, with the half's context in [`DATA_CONTEXTS`]. With the other half's
    /// number nothing wrong is found: the number of a lower half is no other address space's upper half's.
    pub const TLB_READ: usize = offset_of!(Hart, tlb) + offset_of!(Tlb, read);
    /// The same for stores.
    pub const TLB_WRITE: usize = offset_of!(Hart, tlb) + offset_of!(Tlb, write);
    /// The same for fetches, with [`FETCH_MIXES`] and [`FETCH_CONTEXTS`]; the second word's lower half is the number of
    /// the decoded page.
    pub const TLB_FETCH: usize = offset_of!(Hart, tlb) + offset_of!(Tlb, fetch);
    /// Entries in each array.
    pub const TLB_ENTRIES: usize = ENTRIES;
    /// The contexts of loads and stores, of the lower half of the address space and then of the upper one.
    pub const DATA_CONTEXTS: usize = offset_of!(Hart, data) + offset_of!(Contexts, tags);
    /// What [`FETCH_CONTEXTS`] and [`DATA_CONTEXTS`], each with its mixes behind it, are in U-mode and in S-mode; and
    /// [`DATA_CONTEXTS`] in S-mode under SUM. All as long as MXR is clear, and MPRV; and until the interpreter runs.
    pub const VIEWS: usize = offset_of!(Hart, views);
    /// Bytes of each of them: two contexts, two mixes.
    pub const VIEW_BYTES: usize = size_of::<Contexts>();
    /// The contexts of fetches: a virtual address means the same as long as the number of its half stays what it is.
    pub const FETCH_CONTEXTS: usize = offset_of!(Hart, fetches) + offset_of!(Contexts, tags);
    /// See [`TLB_READ`].
    pub const DATA_MIXES: usize = offset_of!(Hart, data) + offset_of!(Contexts, mixes);
    /// See [`TLB_FETCH`].
    pub const FETCH_MIXES: usize = offset_of!(Hart, fetches) + offset_of!(Contexts, mixes);

    /// Virtual nanoseconds per tick of `time`.
    pub const NS_PER_TICK: u64 = crate::hart::csr::NS_PER_TICK;

    /// Bits of `sstatus`.
    pub mod sstatus {
        use crate::hart::csr::status;

        /// What can be written.
        pub const WRITABLE: u64 = status::S_WRITABLE;
        /// What is read, but for SD.
        pub const READABLE: u64 = status::S_WRITABLE | status::UXL;
        /// What is on when interrupts are, before the trap, and S-mode if that was trapped.
        pub const SIE: u64 = status::SIE;
        /// See [`SIE`].
        pub const SPIE: u64 = status::SPIE;
        /// See [`SIE`].
        pub const SPP: u64 = status::SPP;
        /// Whether S-mode may access user pages.
        pub const SUM: u64 = status::SUM;
        /// What makes translation depend on more than mode and SUM.
        pub const UNUSUAL: u64 = status::MXR | status::MPRV;
        /// Of `mstatus`: `sret` traps.
        pub const TSR: u64 = status::TSR;
        /// Of `mstatus`: `sfence.vma` traps.
        pub const TVM: u64 = status::TVM;
        /// The state of floating point; all ones is dirty.
        pub const FS: u64 = status::FS;
        /// Set in what is read if floating point is dirty.
        pub const SD: u64 = status::SD;
    }

    const _: () = assert!(size_of::<Entry>() == 16 && offset_of!(Entry, tag) == 0);
    const _: () = assert!(DATA_MIXES == DATA_CONTEXTS + 16 && FETCH_MIXES == FETCH_CONTEXTS + 16);
    const _: () = assert!(size_of::<FetchEntry>() == 16 && offset_of!(FetchEntry, code_page) == 8);
}

/// Where `pc` leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Page {
    /// To this decoded page, whose translations may be kept.
    Cached(u32),
    /// To a page whose instructions must be fetched one by one.
    Uncached,
    /// Nobody knows yet: the interpreter will say so, and the machine will find out.
    Unknown,
}

/// Whether the TLB knows a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// No: the access has more to it, or the page may not be cached.
    No,
    /// Yes.
    Yes,
    /// Yes, and pages became tables by that, to which stores are the interpreter's.
    WithNewTables,
}

/// A hart and what is around it, lent to an engine for one run.
pub struct Guest<'a, 'b> {
    hart: &'a mut Hart,
    ram: &'a mut Ram,
    env: &'a mut Env<'b>,
    icount_base: u64,
    steps_base: u64,
}

impl<'a, 'b> Guest<'a, 'b> {
    pub(crate) fn new(hart: &'a mut Hart, ram: &'a mut Ram, env: &'a mut Env<'b>) -> Self {
        let (icount_base, steps_base) = (env.icount_base, env.steps_base);
        Self { hart, ram, env, icount_base, steps_base }
    }

    /// Interprets at most `limit` steps, `done` of this run having been taken before. With `one_block`, not beyond the
    /// first jump.
    pub fn interpret(&mut self, done: u64, limit: u64, one_block: bool) -> u64 {
        self.env.icount_base = self.icount_base + done;
        self.env.steps_base = self.steps_base.wrapping_add(done);
        if one_block {
            execute::run::<true>(self.hart, self.ram, self.env, limit)
        } else {
            execute::run::<false>(self.hart, self.ram, self.env, limit)
        }
    }

    /// Executes the instruction at `pc` as [`Guest::interpret`] would, if it is one that only computes with floating-point
    /// registers, or accesses RAM across pages that the TLB knows; returns whether it has. It has led to the next one
    /// then, but `pc` and counts are the engine's to see to.
    pub fn shortcut(&mut self, pc: u64) -> bool {
        shortcut::execute(self.hart, self.ram, self.env.code, pc)
    }

    /// Whether the machine has no other hart, so that `pause` and its like do nothing.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.env.is_alone
    }

    /// Whether the run must end here: only the machine can settle what has happened.
    #[must_use]
    pub fn must_leave(&self) -> bool {
        self.env.leave || self.env.fetch_miss || self.env.yielded
    }

    /// The program counter.
    #[must_use]
    pub fn pc(&self) -> u64 {
        self.hart.pc
    }

    /// Sets the program counter.
    pub fn set_pc(&mut self, pc: u64) {
        self.hart.pc = pc;
    }

    /// Which hart it is.
    #[must_use]
    pub fn hart_index(&self) -> usize {
        self.hart.csrs.hart_id as usize
    }

    /// See [`layout::FETCH_CONTEXTS`].
    #[must_use]
    pub fn fetch_contexts(&self) -> [u64; 2] {
        self.hart.fetches.tags
    }

    /// See [`layout::DATA_CONTEXTS`].
    #[must_use]
    pub fn data_contexts(&self) -> [u64; 2] {
        self.hart.data.tags
    }

    /// Changes when context numbers are given out anew: whoever remembers one must forget it.
    #[must_use]
    pub fn context_epoch(&self) -> u64 {
        self.hart.tlb.epoch()
    }

    /// Finds out where `pc` leads, if that takes no more than a walk of the page tables that changes nothing; returns
    /// whether it did.
    pub fn find_page(&mut self) -> bool {
        let pc = self.hart.pc;
        fetch::refill(self.hart, self.ram, self.env.code, pc)
    }

    /// Puts the page of a load or a store that is about to be executed into the TLB. Changes nothing that the guest can
    /// see: an accessed or dirty bit to be set may lie in what executes.
    pub fn find_data(&mut self, addr: u64, store: bool) -> Found {
        let flagged = self.ram.flagged();
        let access = if store { Access::Store } else { Access::Load };
        let is_ram = memory::foresee(self.hart, self.ram, addr, access);
        let entries = if store { &self.hart.tlb.write } else { &self.hart.tlb.read };
        let is_cached = entries[self.hart.data.slot(addr)].tag == addr & PAGE_MASK | self.hart.data.tag(addr);
        match is_ram && is_cached {
            true if self.ram.flagged() == flagged => Found::Yes,
            true => Found::WithNewTables,
            false => Found::No,
        }
    }

    /// Where `pc` leads.
    #[must_use]
    pub fn page(&self) -> Page {
        let pc = self.hart.pc;
        let entry = &self.hart.tlb.fetch[self.hart.fetches.slot(pc)];
        if entry.tag != pc & PAGE_MASK | self.hart.fetches.tag(pc) {
            return Page::Unknown;
        }
        match self.env.code.origin(entry.code_page) {
            Some(PageOrigin { cached: true, .. }) => Page::Cached(entry.code_page),
            Some(_) => Page::Uncached,
            None => Page::Unknown,
        }
    }

    /// The decoded page behind that of `pc`, and where it lies in RAM, if its translations may be kept. The TLB knows it
    /// then. Like [`Guest::find_page`] it changes nothing: no page that was never executed is found.
    pub fn page_behind(&mut self) -> Option<(u32, u64)> {
        let next = (self.hart.pc & PAGE_MASK).wrapping_add(PAGE as u64);
        let slot = self.hart.fetches.slot(next);
        let is_known = self.hart.tlb.fetch[slot].tag == next | self.hart.fetches.tag(next);
        if !is_known && !fetch::refill(self.hart, self.ram, self.env.code, next) {
            return None;
        }
        let entry = &self.hart.tlb.fetch[slot];
        let origin = self.env.code.origin(entry.code_page).filter(|origin| origin.cached)?;
        Some((entry.code_page, self.ram.offset(origin.physical, PAGE as u64)? as u64))
    }

    /// The bytes of a decoded page.
    #[must_use]
    pub fn page_bytes(&self, page: u32) -> Option<&[u8; PAGE]> {
        let origin = self.env.code.origin(page)?;
        self.ram.page(self.ram.offset(origin.physical, PAGE as u64)? / PAGE)
    }

    /// Flags a decoded page, so that stores to it are reported to [`Guest::take_stale`].
    pub fn mark_code(&mut self, page: u32) {
        if let Some(origin) = self.env.code.origin(page)
            && let Some(at) = self.ram.offset(origin.physical, PAGE as u64)
        {
            self.ram.mark_code(at / PAGE);
        }
    }

    /// A range of a decoded page that was written to since it was last asked: page, first and last byte.
    pub fn take_stale(&mut self) -> Option<(u32, u16, u16)> {
        self.env.code.take_written()
    }

    /// As long as it stays the same, no page has become one to which stores are the interpreter's; within a run.
    #[must_use]
    pub fn flagged_pages(&self) -> u64 {
        self.ram.flagged()
    }

    /// Whether [`Guest::take_stale`] has something to say.
    #[must_use]
    pub fn has_stale(&self) -> bool {
        self.env.code.has_written()
    }

    /// Changes when the numbers of decoded pages are given out anew.
    #[must_use]
    pub fn page_epoch(&self) -> u64 {
        self.env.code.epoch()
    }

    /// Whether floating point is on and dirty, and rounds to nearest even by default.
    #[must_use]
    pub fn has_plain_float(&self) -> bool {
        self.hart.csrs.mstatus & status::FS == status::FS && self.hart.csrs.frm == 0
    }

    /// Whether S-mode or M-mode executes.
    #[must_use]
    pub fn is_supervisor(&self) -> bool {
        self.hart.mode >= Mode::Supervisor
    }

    /// Whether `cbo.zero` is enabled: for the mode, for U-mode, and for S-mode.
    #[must_use]
    pub fn zeroes_blocks(&self) -> [bool; 3] {
        [self.hart.mode, Mode::User, Mode::Supervisor]
            .map(|mode| system::block_op_enabled(self.hart, mode, envcfg::CBZE))
    }

    /// Whether U-mode, S-mode, nobody and M-mode may read `time`: by their numbers.
    #[must_use]
    pub fn reads_time(&self) -> [bool; 4] {
        let reads = |mode| self.hart.may_count(mode, csr::TIME);
        [reads(Mode::User), reads(Mode::Supervisor), false, reads(Mode::Machine)]
    }

    /// The line that virtual time is over the steps of this run: how many steps before the run it begins, where, in
    /// nanoseconds, and how many of these 2^32 steps take. `None` if it begins later.
    #[must_use]
    pub fn time_line(&self) -> Option<(u64, u64, u64)> {
        let clock = &self.env.clock;
        let steps = self.icount_base.checked_sub(clock.base_icount.0)?;
        Some((steps, clock.base.0, clock.rate.0))
    }

    /// The contexts of fetches in U-mode, and in S-mode ([`layout::VIEWS`]).
    #[must_use]
    pub fn views(&self) -> [[u64; 2]; 2] {
        [self.hart.views[0].tags, self.hart.views[1].tags]
    }

    /// The interrupt lines into `mip`; they do not change in a run.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.env.lines
    }

    /// Ors accrued exceptions into `fflags`. Floating point must be dirty already.
    pub fn accrue(&mut self, fflags: u64) {
        self.hart.csrs.fflags |= fflags & 31;
    }

    /// The engine's words.
    #[must_use]
    pub fn words(&mut self) -> &mut [u64; layout::ENGINE_WORDS] {
        &mut self.hart.engine
    }

    /// Where the hart is; see [`layout`].
    #[must_use]
    pub fn hart_address(&mut self) -> *mut u8 {
        core::ptr::from_mut(self.hart).cast()
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn ram_len(&self) -> u64 {
        self.ram.len()
    }

    /// Where RAM is, and its page flags. A store to a page with a flag set is [`Guest::interpret`]'s to do.
    #[must_use]
    pub fn ram_addresses(&mut self) -> (*mut u8, *const u8) {
        self.ram.addresses()
    }
}
